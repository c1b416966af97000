//! The kernel's side of the node: one task that makes the kernel twins, keeps the configuration's addresses and static
//! routes on them, has neighbours resolved, and mirrors what the kernel knows of the twins: addresses, neighbours, routes of
//! routing daemons. It talks netlink (RFC 3549, rtnetlink(7)) in the network namespaces of the tables.
//!
//! ```text
//!            Order                      requests
//! conductor ───────▶ ┌───────────────┐ ─────────▶ kernel: links, addresses, neighbours, routes
//!           ◀─────── │ actor  mirror │ ◀───────── notifications (a socket of its own)
//!            Notice  └───────────────┘
//! ```
//!
//! Orders are whole sets, not changes: what is there already is left as it is, so a control plane that was killed finds its
//! twins, adopts them, and nothing flaps. What is ours is marked in the kernel itself: links by [`ALIAS`],
//! addresses, routes and neighbours that were asked for by the protocol number [`PROTOCOL`]. There is one control plane per network namespace.
//!
//! The twins of table 0 are in the namespace of this process, those of each other table in one of its own, in whose main table the
//! routes of that table are: so tables may have the same addresses. A namespace that is not there is made, as `ip netns add` does,
//! and marked on its loopback; it is removed at a clean stop, or when the configuration does not name it any more, unless
//! somebody else's links or processes are in it. Namespaces without our mark are used and left; one that another node made is not
//! used. One that is removed under us is told ([`Notice::Failed`]) and made again, within a second. The data plane finds a
//! namespace by its name: both processes must see the same `/run/netns`, so under `ip netns exec`, which gives a process mounts of
//! its own, the namespaces are to be made beforehand. What we made in a namespace of somebody else's stays if that table is taken
//! out of the configuration while no control plane runs.
//!
//! What cannot be done is told once ([`Notice::Failed`]) and tried again until it can, or until a new order.
//!
//! Settings of a twin (`/proc/sys/net/ipv4/conf/TWIN` and `ipv6/conf/TWIN` of its namespace), set before it goes up:
//!
//! | setting | | why |
//! | --- | --- | --- |
//! | `forwarding` | 0 | the data plane forwards, not the kernel |
//! | `rp_filter` | 0, or 2 (loose) if `all` is strict | answers may come by another twin than the kernel would ask by |
//! | `send_redirects`, `accept_redirects` | 0 | redirects are the data plane's; the latter in `all` too, which is or-ed to it |
//! | `arp_ignore` | 1 | a port answers for its own addresses, not for the tunnel's |
//! | `neigh/…/retrans_time_ms` | 200 | packets wait a second for ARP: time for three tries, not for one (and 200 ms are whole ticks of any kernel) |
//! | `neigh/…/ucast_solicit`, `mcast_solicit` | 15 | a neighbour has the usual three seconds to answer, whatever the pace: a data plane that is away for one costs no tunnel |
//! | `arp_announce` | 2 | nor does it ask with them |
//! | `promote_secondaries` | 1 | removing one address leaves the others of its prefix |
//! | `ipv6: disable_ipv6` | 0 with an IPv6 address in the configuration, else 1 | no MLD, router solicitation and link-local noise on a port, none replicated on a tunnel |
//! | `ipv6: accept_ra` | 0 | a router on the LAN does not number us |
//! | `ipv6: accept_redirects` | 0 | as above |
//! | `ipv6: forwarding` | 0 | as above; IPv6 forwards by `all/forwarding` alone, which is left as it is: only what is for our own addresses is handed up |
//! | `ipv6: accept_dad` | 0 | an address counts at once: while the data plane is away duplicate address detection asks nobody, and a solicitation that a tunnel replicated back to us would take the address away. The configuration's addresses are put without it in any case (`IFA_F_NODAD`) |
//! | `ipv6: keep_addr_on_down` | 1 | as with IPv4, an address outlives a link that goes down |
//! | `ipv6: addr_gen_mode` | 0 (from the port's MAC) on a TAP; 1 (none) where the order has a link-local address, as that of every tunnel with IPv6 has | routing daemons and neighbours go by link-local addresses |
//! | `ipv6: neigh/…` | as for IPv4 | Neighbour Discovery is to it what ARP is |
//!
//! (With `forwarding` 0 the twin's advertisements lack the router flag, RFC 4861 §7.2.4. With 1 there the kernel would drop the
//! default routes that other links of the namespace learnt from routers, which may be the way to this machine.)
//!
//! A TUN twin is `POINTOPOINT|MULTICAST|NOARP` from the kernel; with a prefix such as 10.255.0.1/24 on it, OSPF works as
//! broadcast or point-to-multipoint.

use model::program::{Hop, Route};
use model::{InterfaceAddr, InterfaceName, Mac, TableId};
use tokio::sync::mpsc;

mod actor;
mod fact;
mod mirror;
mod neighbours;
mod netlink;
mod netns;
mod place;
mod routes;
mod sysctl;
#[cfg(test)]
mod tests;
mod twins;

/// Marks our routes (`rtm_protocol`), addresses (`IFA_PROTO`) and neighbours (`NDA_PROTOCOL`): a number that neither the kernel's `rtnetlink.h` nor
/// iproute2's and FRR's `rt_protos` assign. The letter N.
pub const PROTOCOL: u8 = 78;

/// Alias (`ip link`) of the twins that we made: others of this alias are removed.
pub const ALIAS: &str = "nave twin";

/// What the kernel should be made to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// The twins that there should be: the whole set; others that we made are removed. Then everything that the kernel knows of
    /// them is told again, and [`Notice::Synced`].
    Twins(Vec<TwinSpec>),
    /// Static routes of the configuration, and those to peers of tunnels with host addresses, to keep in the kernel on the twins: the
    /// whole set, each in the namespace of its table.
    Routes(Vec<Route>),
    /// Resolve this neighbour of a port interface (ARP, ND), and keep it resolved for as long as it answers. If it is resolved
    /// already, that is told again. If it does not answer, that is told (after three requests, some three seconds).
    Resolve(Hop),
    /// Clean stop: the task ends, which closes the channel of notices.
    Stop {
        /// Whether the twins and our routes go too. If not, it is as if the control plane was killed.
        remove_twins: bool,
    },
}

/// A twin as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinSpec {
    /// Its name, which is that of the interface.
    pub name: InterfaceName,
    /// TAP or TUN.
    pub kind: Kind,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Its addresses by configuration. They are put there if they are missing, even if somebody takes them away.
    pub addresses: Vec<InterfaceAddr>,
    /// Whether the configuration says which addresses. If not, the twin has those that it has.
    pub configured: bool,
    /// The table of what it is the twin of: its routes are told as of this table.
    pub table: TableId,
    /// Network namespace that it is in, a name as of `ip netns`; `None`: that of this process. All twins of one table are in one.
    pub netns: Option<String>,
}

/// What a twin is the twin of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of a port.
    Tap {
        /// Ethernet address of the port.
        mac: Mac,
    },
    /// Of a tunnel.
    Tun,
}

/// What the kernel knows, or what failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// An address of a twin came or went.
    Address {
        /// The twin.
        interface: InterfaceName,
        /// The address.
        address: InterfaceAddr,
        /// Whether it is there.
        present: bool,
    },
    /// A neighbour of a TAP twin: resolved (`Some`), failed or gone (`None`).
    Neighbour {
        /// Twin and address.
        hop: Hop,
        /// Its Ethernet address.
        mac: Option<Mac>,
    },
    /// A route in the main table of a table's namespace that leaves by twins, or discards, and is neither ours nor the kernel's
    /// own, e.g. of a routing daemon. At most one per prefix, the best; told anew it replaces the one before. Of several next hops
    /// those by twins; `prohibit` is told as unreachable.
    Route {
        /// The route.
        route: Route,
        /// Whether it is there.
        present: bool,
    },
    /// The best such route by ports, where the best of all leaves by a tunnel, or in part: what carries the tunnel goes by it. Told before a
    /// [`Notice::Route`] takes its place, and until one by a port has.
    Underlay {
        /// The route.
        route: Route,
        /// Whether it is there.
        present: bool,
    },
    /// All there was at the start (or after re-opening netlink, or after [`Order::Twins`]) has been told.
    Synced,
    /// Something could not be done. It is tried again; told again only if the reason changes or it was ordered anew.
    Failed {
        /// What was to be done.
        order: String,
        /// Why not.
        reason: String,
    },
}

/// Orders that wait for the task before their sender has to.
const ORDERS: usize = 1024;
/// Notices on their way. More wait in the task, which then reads no more from the kernel (see [`actor`]).
const NOTICES: usize = 256;

/// Starts the task on this tokio runtime. It ends with [`Order::Stop`], or when either channel is closed at the other end.
/// The sender of orders may wait for room without reading notices: the task takes orders whether or not notices are read.
#[must_use]
pub fn spawn() -> (mpsc::Sender<Order>, mpsc::Receiver<Notice>) {
    let (order_tx, order_rx) = mpsc::channel(ORDERS);
    let (notice_tx, notice_rx) = mpsc::channel(NOTICES);
    tokio::spawn(actor::run(order_rx, notice_tx));
    (order_tx, notice_rx)
}

/// A piece of an order that could not be carried out.
#[derive(Debug)]
struct Failure {
    order: String,
    reason: String,
}

impl Failure {
    fn new(order: impl ToString, reason: impl ToString) -> Self {
        Self { order: order.to_string(), reason: reason.to_string() }
    }
}
