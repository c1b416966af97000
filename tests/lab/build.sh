#!/bin/bash
# Builds the virtual machine's kernel and the root file system of a suite of Debian in DIRECTORY, if they are not there:
#   build.sh DIRECTORY SUITE
# trixie (Debian 13): FRR 10.3, strongSwan 6.0.1. bookworm (Debian 12): strongSwan 5.9.8; its FRR has no NHRP authentication.
# Packages come from the machine's own apt sources, with the suite's name replaced. The kernel is of Debian 12 (linked with the
# machine's libc) in each.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"; top=$(cd "$1" && pwd)
suite=$2
packages="frr charon-systemd strongswan-swanctl libstrongswan-standard-plugins libstrongswan-extra-plugins libcharon-extra-plugins python3-minimal libpython3-stdlib bash coreutils busybox-static grep sed mawk mount util-linux hostname iproute2 iptables kmod procps ethtool iputils-ping tcpdump socat"
# Dependencies that nothing in the guest calls.
unwanted='^(udev|cron|cron-daemon-common|perl|perl-modules-.*|libperl5.*|perl-base|usrmerge|usr-is-merged|dpkg|tar|systemd|systemd-sysv|dbus|dbus-.*|sensible-utils|logrotate|debconf|adduser|libsemanage.*)$'

kernel() {
  local work=$top/kernel.new
  rm -rf "$work"; mkdir -p "$work/x"
  (cd "$work" && apt-get -q -o APT::Sandbox::User=root download user-mode-linux >download.log 2>&1)
  dpkg-deb -x "$work"/user-mode-linux_*.deb "$work/x"
  mv "$work/x/usr/bin/linux.uml" "$work/linux"; mv "$work/x/usr/lib/uml/modules" "$work/modules"
  rm -rf "$work/x" "$work"/*.deb "$top/kernel"; mv "$work" "$top/kernel"
}

root() {
  local work=$top/$suite.new get=$top/apt name file
  rm -rf "$work" "$get"; mkdir -p "$get"/{lists/partial,cache/archives/partial,sources,debs}
  local apt=(-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$get/sources" -o Dir::Etc::preferencesparts=/dev/null
    -o Dir::State::lists="$get/lists" -o Dir::Cache="$get/cache" -o Dir::State::status="$get/status"
    -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o APT::Install-Recommends=0 -q)
  : > "$get/status"
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list; do
    [ -f "$file" ] && grep -q /debian "$file" || continue
    sed -E "s/\b(bookworm|trixie)\b/$suite/g" "$file" > "$get/sources/$(basename "$file")"
  done
  apt-get "${apt[@]}" update >"$get/update.log" 2>&1
  apt-get "${apt[@]}" -s install $packages 2>/dev/null | awk '/^Inst /{print $2}' | grep -Ev "$unwanted" | sort > "$get/closure"
  [ -s "$get/closure" ] || { echo "$suite is not to be had from this machine's apt sources; see $get/update.log" >&2; exit 1; }
  (cd "$get/debs" && xargs apt-get "${apt[@]}" download < ../closure >../download.log 2>&1)
  mkdir -p "$work"/usr/{bin,sbin,lib,lib64} "$work"/{proc,sys,dev,run,tmp,lab,root,mnt,var,etc}
  for name in bin sbin lib lib64; do ln -s "usr/$name" "$work/$name"; done
  for file in "$get"/debs/*.deb; do dpkg-deb --fsys-tarfile "$file" | tar -x --keep-directory-symlink -C "$work" -f -; done
  rm -rf "$work"/usr/share/{doc,man,locale,info,lintian}
  mkdir -p "$work/usr/lib/modules"; cp -a "$top"/kernel/modules/* "$work/usr/lib/modules/"
  # What maintainer scripts would have done.
  printf '%s\n' 'root:x:0:0:root:/root:/bin/bash' 'frr:x:101:101:frr:/nonexistent:/usr/sbin/nologin' > "$work/etc/passwd"
  printf '%s\n' 'root:x:0:' 'frr:x:101:' 'frrvty:x:103:frr,root' > "$work/etc/group"
  printf 'passwd: files\ngroup: files\nhosts: files\n' > "$work/etc/nsswitch.conf"
  printf 'root::19000:0:99999:7:::\n' > "$work/etc/shadow"
  printf '127.0.0.1 localhost\n' > "$work/etc/hosts"
  printf '#%%PAM-1.0\nauth sufficient pam_permit.so\naccount sufficient pam_permit.so\n' > "$work/etc/pam.d/frr"
  for name in auth account session password; do
    printf '%s sufficient pam_permit.so\n' $name > "$work/etc/pam.d/common-$name"
  done
  ln -sf xtables-legacy-multi "$work/usr/sbin/iptables"
  [ -e "$work/usr/bin/sh" ] || ln -s bash "$work/usr/bin/sh"
  [ -e "$work/usr/bin/awk" ] || ln -s mawk "$work/usr/bin/awk"
  [ -e "$work/usr/bin/python3" ] || ln -s "$(cd "$work/usr/bin"; ls python3.* | head -1)" "$work/usr/bin/python3"
  ldconfig -r "$work"
  rm -rf "$get" "${top:?}/$suite" "$top/$suite.made"; mv "$work" "$top/$suite"
}

exec 9>"$top/.lock"; flock 9
[ -x "$top/kernel/linux" ] || kernel
# The image of another build.sh is not this one's.
made=$(sha256sum < "$here/build.sh")
[ "$(cat "$top/$suite.made" 2>/dev/null)" = "$made" ] || { root; echo "$made" > "$top/$suite.made"; }
install -m 755 "$here"/guest/* "$top/$suite/usr/sbin/"
