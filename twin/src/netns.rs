//! Network namespaces: work in another one, and namespaces by name.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::{Builder, scope};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::Error;

/// Where `ip netns` keeps the namespaces that it names.
pub const NAMED: &str = "/run/netns";

/// The namespace of the thread that looks.
const OWN: &str = "/proc/thread-self/ns/net";

/// Does `work` on a fresh thread in the network namespace `netns` (a file such as `/proc/1/ns/net`, or a name as `ip netns`
/// has it), and waits for it. Files and sockets opened there stay in that namespace; no other thread's changes.
///
/// # Errors
/// [`Error::Netns`] if there is no such namespace or it may not be entered (that takes `CAP_SYS_ADMIN`); `work` is not done then.
pub fn in_netns<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let netns = file(netns);
    let namespace = File::open(&netns).map_err(failed(&netns, "open"))?;
    let entered = || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(&netns, "setns")(errno.into()))?;
        Ok(work())
    };
    on_a_thread(&netns, entered)
}

/// Does `work` as [`in_netns`], for a namespace that has a name with the files of `/etc/netns/NAME` in the place of those of `/etc`, as `ip
/// netns exec` does: `resolv.conf` and `hosts` above all. No other thread sees them so.
///
/// # Errors
/// As [`in_netns`].
pub fn in_netns_with_files<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let files = Path::new(FILES).join(netns);
    let is_named = netns.components().count() == 1 && netns.is_relative();
    in_netns(netns, || {
        if is_named && files.is_dir() {
            lay_over_etc(&files).map_err(failed(netns, "lay its files over /etc"))?;
        }
        Ok(work())
    })
    .flatten()
}

/// Where the files of named namespaces are.
const FILES: &str = "/etc/netns";

/// Shows files in the place of those of the same name in `/etc`, to this thread alone. Those that `/etc` has not are left out.
fn lay_over_etc(files: &Path) -> io::Result<()> {
    let nothing = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    // What is mounted from here on stays here.
    mount(nothing, "/", nothing, MsFlags::MS_SLAVE | MsFlags::MS_REC, nothing)?;
    for file in fs::read_dir(files)? {
        let file = file?;
        let over = Path::new("/etc").join(file.file_name());
        if over.exists() {
            mount(Some(&file.path()), &over, nothing, MsFlags::MS_BIND, nothing)?;
        }
    }
    Ok(())
}

/// Makes a network namespace of this name, as `ip netns add` does, if there is none; whether it did. Nothing is in it but its
/// loopback, which is down.
///
/// Who runs in a mount namespace of its own that passes nothing on (`ip netns exec` makes one) is the only one to see it by
/// this name.
///
/// # Errors
/// [`Error::Netns`] with the kernel's reason; that takes `CAP_SYS_ADMIN`. Nothing is left behind then.
pub fn make_netns(name: &str) -> Result<bool, Error> {
    let path = file(name.as_ref());
    share_named().map_err(failed(&path, "prepare /run/netns"))?;
    match File::options().write(true).create_new(true).mode(0o0).open(&path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let filesystem = statfs(&path).map_err(|errno| failed(&path, "look at it")(errno.into()))?;
            if filesystem.filesystem_type() == NSFS_MAGIC {
                return Ok(false);
            }
            // Of a namespace that a restart of the machine ended.
        }
        Err(error) => return Err(failed(&path, "make its file")(error)),
    }
    let make = || {
        let refused = |step| move |errno: Errno| failed(&file(name.as_ref()), step)(errno.into());
        unshare(CloneFlags::CLONE_NEWNET).map_err(refused("unshare"))?;
        let nothing = None::<&str>;
        mount(Some(OWN), &path, nothing, MsFlags::MS_BIND, nothing).map_err(refused("mount"))
    };
    let made = on_a_thread(&path, make);
    if made.is_err() {
        fs::remove_file(&path).ok();
    }
    made.map(|()| true)
}

/// Takes the name from a network namespace, as `ip netns del` does. It goes, with all that is in it, when the last process,
/// socket and open twin has left it.
///
/// # Errors
/// [`Error::Netns`] if there is no such namespace, or with the kernel's reason.
pub fn remove_netns(name: &str) -> Result<(), Error> {
    let path = file(name.as_ref());
    match umount2(&path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(errno) => return Err(failed(&path, "unmount")(errno.into())),
    }
    fs::remove_file(&path).map_err(failed(&path, "remove its file"))
}

/// What tells a network namespace from others: its inode, by which `/proc/PID/ns/net` names it too. Of this thread's if `None`.
/// A namespace that was made after another ended may have its number.
///
/// # Errors
/// There is no such namespace.
pub fn netns_id(netns: Option<&Path>) -> io::Result<u64> {
    Ok(fs::metadata(netns.map_or_else(|| OWN.into(), file))?.ino())
}

/// A lone word names a namespace of `ip netns`; all else is a file.
fn file(netns: &Path) -> PathBuf {
    if netns.components().count() == 1 && netns.is_relative() {
        Path::new(NAMED).join(netns)
    } else {
        netns.to_owned()
    }
}

/// What is mounted in [`NAMED`] is to be seen in the mount namespaces of others, so it must be a mount of its own that shares.
fn share_named() -> io::Result<()> {
    fs::create_dir_all(NAMED)?;
    let nothing = None::<&str>;
    let share = || mount(nothing, NAMED, nothing, MsFlags::MS_SHARED | MsFlags::MS_REC, nothing);
    match share() {
        Err(Errno::EINVAL) => {
            mount(Some(NAMED), NAMED, nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing)?;
            share()?;
        }
        other => other?,
    }
    Ok(())
}

fn on_a_thread<T: Send>(netns: &Path, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    scope(|scope| {
        let thread = Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(failed(netns, "start a thread"))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn failed(netns: &Path, step: &'static str) -> impl FnOnce(io::Error) -> Error {
    let netns = netns.to_owned();
    move |source| Error::Netns { netns, step, source }
}
