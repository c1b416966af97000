//! Settings of a twin that have no netlink message. Which and why: [`super`].

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::{Failure, Kind, TwinSpec};

/// `/proc/sys/net` is that of the thread's own network namespace.
const NET: &str = "/proc/sys/net";

/// Least MTU with which a link has IPv6, in bytes (RFC 8200 §5).
const IPV6_MTU: u16 = 1280;

/// Makes the settings of a twin. Those that are right already are not written, so that a read-only `/proc/sys` that
/// somebody prepared will do.
pub(super) fn settle(spec: &TwinSpec) -> Vec<Failure> {
    let name = spec.name.as_str();
    let settle = |(path, value): (PathBuf, &str)| {
        let result = match read(&path) {
            Ok(now) if now == value => return None,
            Ok(_) => std::fs::write(&path, value),
            Err(error) => Err(error),
        };
        result.err().map(|error| Failure::new(format!("write {value} to {}", path.display()), error))
    };
    let both = ipv4(name).into_iter().chain(ipv6(spec));
    both.filter_map(settle).collect()
}

fn ipv4(name: &str) -> Vec<(PathBuf, &'static str)> {
    let strict = read(&conf("ipv4", "all", "rp_filter")).is_ok_and(|value| value != "0");
    let v4 = |key| conf("ipv4", name, key);
    let mut wanted = vec![
        (v4("forwarding"), "0"),
        // The kernel takes the greater of this and `all`; 2 is looser than 1.
        (v4("rp_filter"), if strict { "2" } else { "0" }),
        (v4("send_redirects"), "0"),
        (v4("accept_redirects"), "0"),
        (conf("ipv4", "all", "accept_redirects"), "0"),
        (v4("arp_ignore"), "1"),
        (v4("arp_announce"), "2"),
        (v4("promote_secondaries"), "1"),
    ];
    wanted.extend(neighbours("ipv4", name));
    wanted
}

/// `disable_ipv6` comes last: with it IPv6 begins.
fn ipv6(spec: &TwinSpec) -> Vec<(PathBuf, &'static str)> {
    let name = spec.name.as_str();
    let v6 = |key| conf("ipv6", name, key);
    let is_wanted = spec.addresses.iter().any(|address| address.addr().is_ipv6());
    // A kernel, or a link, without IPv6.
    if !(v6("disable_ipv6").exists() || is_wanted && spec.mtu >= IPV6_MTU) {
        return Vec::new();
    }
    if !is_wanted {
        return vec![(v6("accept_ra"), "0"), (v6("disable_ipv6"), "1")];
    }
    let mut wanted = vec![
        (v6("accept_ra"), "0"),
        (v6("accept_redirects"), "0"),
        (v6("forwarding"), "0"),
        (v6("accept_dad"), "0"),
        (v6("keep_addr_on_down"), "1"),
    ];
    wanted.extend(link_local(spec).map(|mode| (v6("addr_gen_mode"), mode)));
    wanted.extend(neighbours("ipv6", name));
    wanted.push((v6("disable_ipv6"), "0"));
    wanted
}

/// How the kernel makes the link-local address: from the Ethernet address; of a TUN, which has none, it takes a random one and
/// keeps it, unless it was told to make none. Where the configuration has one, there is no other.
fn link_local(spec: &TwinSpec) -> Option<&'static str> {
    const FROM_MAC: &str = "0";
    const NONE: &str = "1";
    const RANDOM: &str = "3";
    let is_link_local = |addr: IpAddr| matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local());
    let mode = conf("ipv6", spec.name.as_str(), "addr_gen_mode");
    match spec.kind {
        _ if spec.addresses.iter().any(|address| is_link_local(address.addr())) => Some(NONE),
        Kind::Tap { .. } => Some(FROM_MAC),
        Kind::Tun => read(&mode).is_ok_and(|mode| mode == NONE).then_some(RANDOM),
    }
}

fn neighbours(family: &str, interface: &str) -> [(PathBuf, &'static str); 3] {
    let path = |key: &str| [NET, family, "neigh", interface, key].iter().collect();
    [(path("retrans_time_ms"), "200"), (path("ucast_solicit"), "15"), (path("mcast_solicit"), "15")]
}

fn conf(family: &str, interface: &str, key: &str) -> PathBuf {
    [NET, family, "conf", interface, key].iter().collect()
}

fn read(path: &Path) -> io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}
