//! What is measured: the tables that a scenario programs, and where its packets come from and go to.
//!
//! ```text
//!   LAN hosts 192.168.0.0/16 ── lan ┌──────┐ wan ── gateway 198.51.100.1 ── spokes' NBMA addresses 100.64.0.0/10
//!                192.168.0.1 port 0 │ node │ port 1  198.51.100.2            behind it, tunnel addresses 10.0.0.0/8,
//!                                   └──────┘                                 and what the routes lead to
//! ```
//!
//! In IPv6 the same, each in a /48 of its own: LAN 2001:db8:c0a8::, WAN 2001:db8:c633::, NBMA addresses 2001:db8:6440::, tunnel addresses
//! 2001:db8:a00::.
//!
//! | scenario   | a packet                                | look-ups                               |
//! |------------|-----------------------------------------|----------------------------------------|
//! | ipv4, ipv6 | lan → wan                               | one of the routes, one of the spokes as plain next hop |
//! | encap      | lan → tunnel → wan                      | one of the routes, midchain of a spoke |
//! | decap      | wan → tunnel → lan                      | tunnel, one of the routes, one of 16 LAN routers |
//! | gre-relay  | wan → tunnel → tunnel → wan             | tunnel, one of the routes, midchain of a spoke |
//! | encrypt    | as encap, and sealed                    | the same, and the outbound SA of the spoke |
//! | decrypt    | opened, and as decap                    | the inbound SA of the spoke that sends, and the same |
//! | relay      | opened, as gre-relay, and sealed        | the inbound SA of a spoke, the same, and the outbound SA of another one |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use clap::ValueEnum;
use model::program::{
    Batch, Binding, Hop, Interface, Neighbour, Object, Op, OuterDf, Owner, Path, Route, TcpMss, Tunnel,
    TunnelMode,
};
use model::{InterfaceName, Mac, NbmaAddr, Prefix, ProtocolAddr, TableId};

use crate::destinations::{Destinations, dense_prefix};
use crate::esp::{Esp, profile};
use crate::size::Size;

/// Ports, as the program numbers them.
pub(crate) const LAN: u16 = 0;
pub(crate) const WAN: u16 = 1;
/// Names and addresses of the ports.
pub(crate) const PORTS: [(&str, Mac); 2] =
    [("lan", Mac([2, 0, 0, 0, 0, 1])), ("wan", Mac([2, 0, 0, 0, 0, 2]))];
/// The station that sends to the LAN port, and the gateway on the WAN.
pub(crate) const SENDER: Mac = Mac([2, 0, 0, 1, 0, 1]);
pub(crate) const GATEWAY: Mac = Mac([2, 0, 0, 2, 0, 1]);
/// The tunnel's GRE key.
pub(crate) const KEY: u32 = 0x6e61_7665;
/// TTL of what the tunnel sends.
pub(crate) const TUNNEL_TTL: u8 = 255;
/// What the tunnel puts around a packet has fewer bytes.
pub(crate) const TUNNEL_HEADERS: u16 = 100;
/// Routers on the LAN in `decap`.
const LAN_ROUTERS: u32 = 16;
/// Steps of one batch.
const BATCH: usize = 4096;

/// What the packets go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Forwarding from the LAN port to next hops on the WAN port
    Ipv4,
    /// The same with IPv6
    Ipv6,
    /// From the LAN into an mGRE tunnel
    Encap,
    /// Out of the tunnel to the LAN
    Decap,
    /// Out of the tunnel and into it again, to another spoke: a hub's work
    GreRelay,
    /// From the LAN into a protected mGRE tunnel
    Encrypt,
    /// Out of the protected tunnel to the LAN
    Decrypt,
    /// Out of the protected tunnel and into it again: all of a hub's work
    Relay,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    /// The name, as on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

/// A scenario and its dimensions.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) kind: Kind,
    /// Family of the packets that are forwarded, and of what the tunnel puts before them.
    pub(crate) inner: Family,
    pub(crate) outer: Family,
    /// Spokes; in `ipv4` and `ipv6` next hops.
    pub(crate) spokes: u32,
    /// Prefixes that packets are sent to, spread over the spokes.
    pub(crate) destinations: Arc<Destinations>,
    /// Of the Ethernet frame in the clear, without FCS: 14 and the inner IP packet.
    pub(crate) size: Size,
    /// What protects the tunnel, if something does.
    pub(crate) esp: Option<Esp>,
    /// Ethernet addresses of the ports, and the largest IP packet that they take.
    pub(crate) macs: [Mac; 2],
    pub(crate) mtu: u16,
}

impl Kind {
    /// The name, as on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Encap => "encap",
            Self::Decap => "decap",
            Self::GreRelay => "gre-relay",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Relay => "relay",
        }
    }

    /// Whether the tunnel is protected.
    pub(crate) fn is_protected(self) -> bool {
        matches!(self, Self::Encrypt | Self::Decrypt | Self::Relay)
    }

    /// Whether there is no tunnel.
    pub(crate) fn is_plain(self) -> bool {
        matches!(self, Self::Ipv4 | Self::Ipv6)
    }

    /// Whether packets arrive in GRE.
    pub(crate) fn arrives_in_tunnel(self) -> bool {
        matches!(self, Self::Decap | Self::GreRelay | Self::Decrypt | Self::Relay)
    }

    /// Whether packets leave in GRE.
    pub(crate) fn leaves_in_tunnel(self) -> bool {
        matches!(self, Self::Encap | Self::GreRelay | Self::Encrypt | Self::Relay)
    }

    /// Whether packets leave to a router on the LAN.
    fn leads_to_lan(self) -> bool {
        matches!(self, Self::Decap | Self::Decrypt)
    }

    /// The port by which packets arrive.
    pub(crate) fn in_port(self) -> u16 {
        if self.arrives_in_tunnel() { WAN } else { LAN }
    }

    /// The port by which they leave.
    pub(crate) fn out_port(self) -> u16 {
        if self.leads_to_lan() { LAN } else { WAN }
    }
}

/// An address of the plan: of the IPv4 net, or of the IPv6 /48 in 2001:db8::/32, the one with this number.
fn address(family: Family, v4: [u8; 4], v6: u16, number: u32) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::from_bits(u32::from_be_bytes(v4) + number).into(),
        Family::Ipv6 => {
            let net = Ipv6Addr::new(0x2001, 0xdb8, v6, 0, 0, 0, 0, 0).to_bits();
            Ipv6Addr::from_bits(net + u128::from(number)).into()
        }
    }
}

/// NBMA address of a spoke.
pub(crate) fn nbma(family: Family, spoke: u32) -> IpAddr {
    address(family, [100, 64, 0, 0], 0x6440, spoke + 2)
}

/// Our NBMA address.
pub(crate) fn own_nbma(family: Family) -> IpAddr {
    address(family, [198, 51, 100, 0], 0xc633, 2)
}

/// Address of a host that sends: in the cloud's address plan behind the spoke, or on our LAN.
pub(crate) fn sender(family: Family, number: u32) -> IpAddr {
    address(family, [192, 168, 1, 0], 0xc0a9, number & 0xff)
}

/// The gateway on the WAN.
fn gateway(family: Family) -> IpAddr {
    address(family, [198, 51, 100, 0], 0xc633, 1)
}

/// Tunnel address of a spoke; without a tunnel its address on the WAN.
fn protocol(family: Family, spoke: u32) -> IpAddr {
    address(family, [10, 0, 0, 0], 0xa00, spoke + 2)
}

/// Address of the node on the LAN (1), and of the routers there (from 2 on).
fn lan(family: Family, number: u32) -> IpAddr {
    address(family, [192, 168, 0, 0], 0xc0a8, number)
}

/// Ethernet address of a spoke that is a plain next hop, or of a LAN router.
fn station(kind: u8, number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac([2, kind, a, b, c, d])
}

impl Scenario {
    /// Who a route leads to.
    pub(crate) fn spoke_of(&self, route: u32) -> u32 {
        route % if self.kind.leads_to_lan() { LAN_ROUTERS } else { self.spokes }
    }

    /// Ethernet destination of what is sent to a route.
    pub(crate) fn next_station(&self, route: u32) -> Mac {
        match self.kind {
            Kind::Ipv4 | Kind::Ipv6 => station(3, self.spoke_of(route)),
            Kind::Decap | Kind::Decrypt => station(4, self.spoke_of(route)),
            Kind::Encap | Kind::GreRelay | Kind::Encrypt | Kind::Relay => GATEWAY,
        }
    }

    /// The batches that program it.
    pub(crate) fn batches(&self) -> anyhow::Result<Vec<Batch>> {
        let names = Names::new()?;
        let mut objects = self.ports(&names);
        let hop = |interface, next_hop| Hop { interface, next_hop };
        match self.kind {
            Kind::Ipv4 | Kind::Ipv6 => {
                for spoke in 0..self.spokes {
                    let hop = hop(names.wan, protocol(self.inner, spoke));
                    objects.push(Object::Neighbour(Neighbour { hop, mac: station(3, spoke) }));
                }
                self.routes_via(names.wan, protocol, &mut objects);
            }
            Kind::Encap | Kind::GreRelay | Kind::Encrypt | Kind::Relay => {
                objects.extend(self.tunnel(&names)?);
                self.routes_via(names.tunnel, protocol, &mut objects);
            }
            Kind::Decap | Kind::Decrypt => {
                objects.extend(self.tunnel(&names)?);
                let router = |family, number| lan(family, number + 2);
                for number in 0..LAN_ROUTERS {
                    let hop = hop(names.lan, router(self.inner, number));
                    objects.push(Object::Neighbour(Neighbour { hop, mac: station(4, number) }));
                }
                self.routes_via(names.lan, router, &mut objects);
            }
        }
        Ok(batches(objects))
    }

    /// The batches that program the SAs of so many workers.
    pub(crate) fn sa_batches(&self, workers: u16) -> anyhow::Result<Vec<Batch>> {
        let Some(esp) = &self.esp else { return Ok(Vec::new()) };
        let mut objects = Vec::new();
        for spoke in 0..self.spokes {
            for worker in 0..workers {
                objects.extend(esp.sas(self.outer, worker, spoke)?);
            }
        }
        Ok(batches(objects))
    }

    fn routes_via(
        &self,
        interface: InterfaceName,
        hop: impl Fn(Family, u32) -> IpAddr,
        objects: &mut Vec<Object>,
    ) {
        self.destinations.each(|prefix, number| {
            let next_hop = hop(self.inner, self.spoke_of(number));
            objects.push(route(prefix, Path::Via(Hop { interface, next_hop })));
        });
    }

    /// The port interfaces, their addresses and the gateway. A tunnel's source does not forward, as in a real node.
    fn ports(&self, names: &Names) -> Vec<Object> {
        let interface = |name: InterfaceName, forwarding| {
            let (port, mtu, table) = (name.to_string(), self.mtu, TableId(0));
            Object::Interface(Interface { name, port, vlan: None, mtu, table, forwarding, netns: None })
        };
        let hop = Hop { interface: names.wan, next_hop: gateway(self.outer) };
        vec![
            interface(names.lan, true),
            interface(names.wan, self.kind.is_plain()),
            route(Prefix::host(lan(self.inner, 1)), Path::Receive(names.lan)),
            route(Prefix::host(own_nbma(self.outer)), Path::Receive(names.wan)),
            Object::Neighbour(Neighbour { hop, mac: GATEWAY }),
        ]
    }

    /// What is there before any spoke: ports, gateway and tunnel.
    pub(crate) fn base(&self) -> anyhow::Result<Vec<Object>> {
        let names = Names::new()?;
        let mut objects = self.ports(&names);
        objects.push(self.interface_of_tunnel(&names)?);
        Ok(objects)
    }

    /// A spoke but for its SAs: its binding, and the route to the prefix with its number.
    pub(crate) fn spoke(&self, spoke: u32) -> anyhow::Result<[Object; 2]> {
        Ok([self.binding(&Names::new()?, spoke), self.route_to(dense_prefix(self.inner, spoke), spoke)?])
    }

    /// A route to a spoke.
    pub(crate) fn route_to(&self, prefix: Prefix, spoke: u32) -> anyhow::Result<Object> {
        let hop = Hop { interface: Names::new()?.tunnel, next_hop: protocol(self.inner, spoke) };
        Ok(route(prefix, Path::Via(hop)))
    }

    /// The tunnel and a binding for each spoke.
    fn tunnel(&self, names: &Names) -> anyhow::Result<Vec<Object>> {
        let tunnel = self.interface_of_tunnel(names)?;
        let bindings = (0..self.spokes).map(|spoke| self.binding(names, spoke));
        Ok(std::iter::once(tunnel).chain(bindings).collect())
    }

    fn interface_of_tunnel(&self, names: &Names) -> anyhow::Result<Object> {
        Ok(Object::Tunnel(Tunnel {
            name: names.tunnel,
            mode: TunnelMode::Multipoint,
            source: NbmaAddr(own_nbma(self.outer)),
            source_interface: names.wan,
            key: Some(KEY),
            mtu: self.mtu - TUNNEL_HEADERS,
            ttl: TUNNEL_TTL,
            network_id: 1,
            redirect: false,
            table: TableId(0),
            underlay_table: TableId(0),
            outer_df: OuterDf::Copy,
            tcp_mss: TcpMss::Auto,
            netns: None,
            protection: if self.esp.is_some() { Some(profile()?) } else { None },
        }))
    }

    fn binding(&self, names: &Names, spoke: u32) -> Object {
        Object::Binding(Binding {
            tunnel: names.tunnel,
            next_hop: ProtocolAddr(protocol(self.inner, spoke)),
            nbma: NbmaAddr(nbma(self.outer, spoke)),
            link: Some(Hop { interface: names.wan, next_hop: gateway(self.outer) }),
            expires_in: None,
            port: self.esp.map_or(0, |esp| esp.port(spoke)),
        })
    }
}

/// The objects in batches, counted from 1.
fn batches(objects: Vec<Object>) -> Vec<Batch> {
    let ops: Vec<Op> = objects.into_iter().map(|object| Op::Put(Owner::Config, object)).collect();
    (1..).zip(ops.chunks(BATCH)).map(|(number, ops)| Batch { number, ops: ops.to_vec() }).collect()
}

fn route(prefix: Prefix, path: Path) -> Object {
    Object::Route(Route { table: TableId(0), prefix, path, expires_in: None })
}

struct Names {
    lan: InterfaceName,
    wan: InterfaceName,
    tunnel: InterfaceName,
}

impl Names {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { lan: "lan".parse()?, wan: "wan".parse()?, tunnel: "tunnel0".parse()? })
    }
}
