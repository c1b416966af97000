//! The network namespaces that twins are in: that of this process, and those of the other tables.
//!
//! A namespace that is not there is made, as `ip netns add` does, and removed again at a clean stop. Whose it is says an alias on
//! its loopback: [`MARK`] and the namespace of the control plane that made it. So the mark lives exactly as long as what it
//! marks: a control plane that was killed knows its namespaces again, and after a restart of the machine, or after somebody made
//! another one of that name, there is no mark. (A file beside the state file would still say that it is ours.)

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::Failure;
use super::netlink::Netlink;
use super::twins::links;

/// Begins the alias of the loopback of a namespace that a control plane made. The rest is that control plane's own namespace, as
/// `/proc/PID/ns/net` has it.
const MARK: &str = "nave twins of ";

/// Index of the loopback in every namespace.
const LOOPBACK: u32 = 1;

/// Devices that the kernel may put into every namespace by itself (`net.core.fb_tunnels_only_for_init_net`).
const FALLBACKS: [&str; 10] =
    ["lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"];

/// A namespace.
#[derive(Debug)]
pub(super) struct Site(Option<Named>);

#[derive(Debug)]
struct Named {
    name: String,
    /// Keeps it, under whatever name.
    file: File,
    id: u64,
}

impl Site {
    /// That of this process.
    pub(super) fn home() -> Self {
        Self(None)
    }

    /// The one of this name. Does not make it.
    pub(super) fn named(name: &str) -> io::Result<Self> {
        let file = File::open(Path::new(twin::NAMED).join(name))?;
        let id = std::os::unix::fs::MetadataExt::ino(&file.metadata()?);
        Ok(Self(Some(Named { name: name.to_owned(), file, id })))
    }

    /// Its name; `None` if it is that of this process.
    pub(super) fn name(&self) -> Option<&str> {
        self.0.as_ref().map(|named| named.name.as_str())
    }

    /// Whether another one is the same, under whatever name.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let id = |site: &Self| site.0.as_ref().map_or_else(|| twin::netns_id(None), |named| Ok(named.id));
        matches!((id(self), id(other)), (Ok(one), Ok(other)) if one == other)
    }

    /// Whether it still has its name.
    pub(super) fn is_there(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|named| twin::netns_id(Some(named.name.as_ref())).is_ok_and(|id| id == named.id))
    }

    /// Does work in it. Files and sockets opened there stay in it, and `/proc/sys/net` is its own.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, twin::Error> {
        match &self.0 {
            None => Ok(work()),
            Some(named) => {
                let file = PathBuf::from(format!("/proc/self/fd/{}", named.file.as_raw_fd()));
                twin::in_netns(&file, work)
            }
        }
    }

    /// A process that is in it, but for this one.
    fn process(&self) -> Option<String> {
        let named = self.0.as_ref()?;
        let within = Path::new(&format!("net:[{}]", named.id)).to_owned();
        let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
        let is_in =
            |entry: &fs::DirEntry| fs::read_link(entry.path().join("ns/net")).is_ok_and(|net| net == within);
        processes.filter(is_in).map(|entry| entry.file_name().to_string_lossy().into_owned()).next()
    }
}

/// The mark of namespaces that this control plane makes: that of the thread's own namespace.
pub(super) fn mark() -> io::Result<String> {
    Ok(format!("{MARK}net:[{}]", twin::netns_id(None)?))
}

/// Who made a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    /// A control plane of this node.
    Ours,
    /// Somebody who will remove it.
    Somebody,
}

/// Marks a namespace that was `made` just now; finds out who made it otherwise. It is a failure if that was the control plane of
/// another node: two would remove each other's twins.
pub(super) async fn claim(netlink: &Netlink, name: &str, mark: &str, made: bool) -> Result<Maker, Failure> {
    if made {
        let mut message = LinkMessage::default();
        message.header.index = LOOPBACK;
        // Up: what is sent to an address of the twins from beside them goes by the loopback.
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::IfAlias(mark.to_owned()));
        let result = netlink.change(RouteNetlinkMessage::NewLink(message), 0).await;
        result.map_err(|error| Failure::new(format!("mark network namespace `{name}`"), error))?;
        return Ok(Maker::Ours);
    }
    match marked(netlink).await? {
        Some(maker) if maker == mark => Ok(Maker::Ours),
        Some(maker) => {
            let by = maker.trim_start_matches(MARK);
            Err(Failure::new(
                format!("use network namespace `{name}`"),
                format!("the node in {by} made it for its own twins"),
            ))
        }
        None => Ok(Maker::Somebody),
    }
}

async fn marked(netlink: &Netlink) -> Result<Option<String>, Failure> {
    let links = links(netlink).await?;
    let loopback = links.into_iter().find(|link| link.index == LOOPBACK);
    Ok(loopback.map(|link| link.alias).filter(|alias| alias.starts_with(MARK)))
}

/// Names of the namespaces that a control plane of this node made and did not remove: it was killed.
pub(super) async fn left_behind(mark: &str) -> Vec<String> {
    let mut left = Vec::new();
    let Ok(entries) = fs::read_dir(twin::NAMED) else { return left };
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let Ok(netlink) = Site::named(&name).and_then(|site| Netlink::open(&site)) else { continue };
        if marked(&netlink).await.is_ok_and(|maker| maker.as_deref() == Some(mark)) {
            left.push(name);
        }
    }
    left
}

/// Removes a namespace that this node made and that is empty but for what everyone has; says so if it is not.
pub(super) async fn remove(netlink: &Netlink, site: &Site) -> Result<(), Failure> {
    let Some(name) = site.name().filter(|_| site.is_there()) else { return Ok(()) };
    let others = links(netlink).await?.into_iter().map(|link| format!("link `{}`", link.name));
    let mut others = others.filter(|link| !FALLBACKS.iter().any(|name| *link == format!("link `{name}`")));
    match others.next().or_else(|| site.process().map(|id| format!("process {id}"))) {
        Some(user) => {
            tracing::info!(netns = name, user, "a network namespace stays: somebody else uses it");
            Ok(())
        }
        None => twin::remove_netns(name).map_err(|error| Failure::new("remove a network namespace", error)),
    }
}
