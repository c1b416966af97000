//! What one netlink message says, in our words.

use std::net::IpAddr;

use model::{InterfaceAddr, Mac, Prefix};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHopFlags, RoutePreference,
    RouteProtocol, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_REPLACE};

use super::PROTOCOL;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    Link {
        link: Link,
        present: bool,
    },
    Address {
        index: u32,
        address: InterfaceAddr,
        ours: bool,
        present: bool,
    },
    Neighbour {
        index: u32,
        address: IpAddr,
        life: Life,
        ours: bool,
    },
    Route {
        route: KernelRoute,
        change: Change,
    },
    /// A nexthop object was removed.
    NexthopGone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) alias: String,
    pub(super) up: bool,
    pub(super) mtu: u32,
    /// `None` on a TUN.
    pub(super) mac: Option<Mac>,
}

/// Where a neighbour's entry stands in the kernel's life of it (RFC 4861 section 7.3.2, used for ARP too).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Its Ethernet address is known.
    Resolved { mac: Mac, certainty: Certainty },
    /// Requests are on their way.
    Asking,
    /// It did not answer.
    Failed,
    /// The entry was removed.
    Gone,
}

/// How the kernel keeps a resolved neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Certainty {
    /// Somebody said so, and nobody asks.
    Fixed,
    /// Asked again when it is about to go stale (`NTF_EXT_MANAGED`).
    Managed,
    /// Lately heard of, or being asked.
    Fresh,
    /// Not heard of for a while; nobody asks.
    Stale,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelRoute {
    pub(super) prefix: Prefix,
    pub(super) metric: u32,
    /// Among IPv6 routes of one metric the least is taken: 0 to 2, for the preference high, medium, low (RFC 4191 §2.1).
    pub(super) reluctance: u8,
    /// Of [`PROTOCOL`].
    pub(super) ours: bool,
    pub(super) way: Way,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// By any of these: index of the link, gateway.
    Out(Vec<(u32, Option<IpAddr>)>),
    /// The sender is told: that the host is unreachable, or may not be reached (`prohibit`).
    Unreachable,
    Blackhole,
}

/// What became of a route among those of its prefix and metric, as the kernel says it. IPv6 means something else by some of
/// these (see [`super::mirror`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is there, before the others.
    Put,
    /// It is there, after the others.
    Append,
    /// It is there instead of the first.
    Replace,
    Remove,
}

impl Fact {
    /// `None`: nothing that concerns us. `flags` are the message's.
    pub(super) fn parse(message: RouteNetlinkMessage, flags: u16) -> Option<Self> {
        match message {
            RouteNetlinkMessage::NewLink(m) => link(m).map(|link| Self::Link { link, present: true }),
            RouteNetlinkMessage::DelLink(m) => link(m).map(|link| Self::Link { link, present: false }),
            RouteNetlinkMessage::NewAddress(m) => address(&m, true),
            RouteNetlinkMessage::DelAddress(m) => address(&m, false),
            RouteNetlinkMessage::NewNeighbour(m) => neighbour(&m, true),
            RouteNetlinkMessage::DelNeighbour(m) => neighbour(&m, false),
            RouteNetlinkMessage::NewRoute(m) => {
                let change = match flags {
                    _ if flags & NLM_F_REPLACE != 0 => Change::Replace,
                    _ if flags & NLM_F_APPEND != 0 => Change::Append,
                    _ => Change::Put,
                };
                route(&m).map(|route| Self::Route { route, change })
            }
            RouteNetlinkMessage::DelRoute(m) => {
                route(&m).map(|route| Self::Route { route, change: Change::Remove })
            }
            _ => None,
        }
    }
}

fn link(message: LinkMessage) -> Option<Link> {
    // A bridge tells of its ports as links of its own family.
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        alias: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        mac: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some(link)
}

fn address(message: &AddressMessage, present: bool) -> Option<Fact> {
    let (mut local, mut prefix, mut ours) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => local = Some(*addr),
            // The peer's on a point-to-point link, else our own.
            AddressAttribute::Address(addr) => prefix = Some(*addr),
            AddressAttribute::Protocol(protocol) => ours = u8::from(*protocol) == PROTOCOL,
            _ => {}
        }
    }
    let address = InterfaceAddr::new(local.or(prefix)?, message.header.prefix_len)?;
    Some(Fact::Address { index: message.header.index, address, ours, present })
}

fn neighbour(message: &NeighbourMessage, present: bool) -> Option<Fact> {
    let (mut address, mut mac, mut managed, mut ours) = (None, None, false, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)) => {
                address = Some(IpAddr::V4(*addr))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(addr)) => {
                address = Some(IpAddr::V6(*addr))
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            NeighbourAttribute::ExtFlags(flags) => managed = flags.contains(NeighbourExtFlags::Managed),
            NeighbourAttribute::Protocol(protocol) => ours = u8::from(*protocol) == PROTOCOL,
            _ => {}
        }
    }
    let address = address.filter(|addr| !addr.is_multicast() && !addr.is_unspecified())?;
    let resolved = |certainty| mac.map_or(Life::Gone, |mac| Life::Resolved { mac, certainty });
    let life = match message.header.state {
        _ if !present => Life::Gone,
        NeighbourState::Permanent | NeighbourState::Noarp => resolved(Certainty::Fixed),
        NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe
            if managed =>
        {
            resolved(Certainty::Managed)
        }
        NeighbourState::Reachable | NeighbourState::Delay | NeighbourState::Probe => {
            resolved(Certainty::Fresh)
        }
        NeighbourState::Stale => resolved(Certainty::Stale),
        NeighbourState::Incomplete => Life::Asking,
        NeighbourState::Failed => Life::Failed,
        _ => return None,
    };
    Some(Fact::Neighbour { index: message.header.ifindex, address, life, ours })
}

/// Routes of the main table that somebody put there: not those that the kernel makes for addresses.
fn route(message: &RouteMessage) -> Option<KernelRoute> {
    let header = &message.header;
    if header.protocol == RouteProtocol::Kernel
        || header.flags.contains(RouteFlags::Cloned)
        || header.tos != 0
        // For some sources only: the data plane asks for the destination alone.
        || header.source_prefix_length != 0
    {
        return None;
    }
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut table = u32::from(header.table);
    let (mut destination, mut metric, mut reluctance, mut hops) = (unspecified, 0, 1, Vec::new());
    let dead = header.flags.contains(RouteFlags::Dead);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Destination(addr) => destination = ip(addr)?,
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Preference(RoutePreference::High) => reluctance = 0,
            RouteAttribute::Preference(RoutePreference::Low) => reluctance = 2,
            RouteAttribute::MultiPath(next_hops) => {
                let alive = next_hops.iter().filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead));
                hops.extend(alive.map(|hop| (hop.interface_index, gateway(&hop.attributes))));
            }
            RouteAttribute::Oif(index) if !dead => hops.push((*index, gateway(&message.attributes))),
            _ => {}
        }
    }
    let way = match header.kind {
        RouteType::Unicast => Way::Out(hops),
        RouteType::Unreachable | RouteType::Prohibit => Way::Unreachable,
        RouteType::BlackHole => Way::Blackhole,
        _ => return None,
    };
    let prefix = Prefix::new(destination, header.destination_prefix_length)?;
    (table == u32::from(RouteHeader::RT_TABLE_MAIN)).then_some(KernelRoute {
        prefix,
        metric,
        reluctance,
        ours: u8::from(header.protocol) == PROTOCOL,
        way,
    })
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(addr) => ip(addr),
        RouteAttribute::Via(RouteVia::Inet(addr)) => Some((*addr).into()),
        RouteAttribute::Via(RouteVia::Inet6(addr)) => Some((*addr).into()),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}
