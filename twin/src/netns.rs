//! Work in another network namespace.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use crate::Error;

/// Where `ip netns` keeps the namespaces that it names.
const NAMED: &str = "/run/netns";

/// Does `work` on a fresh thread in the network namespace `netns` (a file such as `/proc/1/ns/net`, or a name as `ip netns`
/// has it), and waits for it. Files and sockets opened there stay in that namespace; no other thread's changes.
///
/// # Errors
/// [`Error::Netns`] if there is no such namespace or it may not be entered (that takes `CAP_SYS_ADMIN`); `work` is not done then.
pub fn in_netns<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let netns = file(netns);
    let failed = |step| {
        let netns = netns.clone();
        move |source| Error::Netns { netns, step, source }
    };
    let namespace = File::open(&netns).map_err(failed("open"))?;
    let entered = || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| failed("setns")(errno.into()))?;
        Ok(work())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, entered)
            .map_err(failed("start a thread"))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A lone word names a namespace of `ip netns`; all else is a file.
fn file(netns: &Path) -> PathBuf {
    if netns.components().count() == 1 && netns.is_relative() {
        Path::new(NAMED).join(netns)
    } else {
        netns.to_owned()
    }
}
