//! What is measured: the tables that a scenario programs, and where its packets come from and go to.
//!
//! ```text
//!   LAN hosts 192.168.0.0/16 ── lan ┌──────┐ wan ── gateway 198.51.100.1 ── spokes' NBMA addresses 100.64.0.0/10
//!                192.168.0.1 port 0 │ node │ port 1  198.51.100.2            behind it, tunnel addresses 10.0.0.0/8,
//!                                   └──────┘                                 LANs 20.0.0.0/24, 20.0.1.0/24, …
//! ```
//!
//! | scenario  | a packet                                | look-ups                               |
//! |-----------|-----------------------------------------|----------------------------------------|
//! | ipv4      | lan → wan                               | one of the routes, one of the spokes as plain next hop |
//! | encap     | lan → tunnel → wan                      | one of the routes, midchain of a spoke |
//! | decap     | wan → tunnel → lan                      | tunnel, one of the routes, one of 16 LAN routers |
//! | gre-relay | wan → tunnel → tunnel → wan             | tunnel, one of the routes, midchain of a spoke |

use std::net::Ipv4Addr;

use clap::ValueEnum;
use model::program::{
    Batch, Binding, Hop, Interface, Neighbour, Object, Op, Owner, Path, Route, Tunnel, TunnelMode,
};
use model::{InterfaceName, Mac, NbmaAddr, Prefix, ProtocolAddr, TableId};

/// Ports, as the program numbers them.
pub(crate) const LAN: u16 = 0;
pub(crate) const WAN: u16 = 1;
/// Names and addresses of the ports.
pub(crate) const PORTS: [(&str, Mac); 2] =
    [("lan", Mac([2, 0, 0, 0, 0, 1])), ("wan", Mac([2, 0, 0, 0, 0, 2]))];
/// The station that sends to the LAN port, and the gateway on the WAN.
pub(crate) const SENDER: Mac = Mac([2, 0, 0, 1, 0, 1]);
pub(crate) const GATEWAY: Mac = Mac([2, 0, 0, 2, 0, 1]);
const GATEWAY_ADDR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Our NBMA address.
pub(crate) const OWN_NBMA: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The tunnel's GRE key.
pub(crate) const KEY: u32 = 0x6e61_7665;
/// TTL of what the tunnel sends.
pub(crate) const TUNNEL_TTL: u8 = 255;
/// Routers on the LAN in `decap`.
const LAN_ROUTERS: u32 = 16;
/// Steps of one batch.
const BATCH: usize = 4096;

/// What the packets go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Forwarding from the LAN port to next hops on the WAN port
    Ipv4,
    /// From the LAN into an mGRE tunnel
    Encap,
    /// Out of the tunnel to the LAN
    Decap,
    /// Out of the tunnel and into it again, to another spoke: a hub's work
    GreRelay,
}

/// A scenario and its dimensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) kind: Kind,
    /// Spokes; in `ipv4` next hops.
    pub(crate) spokes: u32,
    /// Prefixes (/24) that packets are sent to, spread over the spokes.
    pub(crate) routes: u32,
    /// Bytes of the Ethernet frame in the clear, without FCS: 14 and the inner IPv4 packet.
    pub(crate) size: usize,
}

impl Kind {
    /// The name, as on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Encap => "encap",
            Self::Decap => "decap",
            Self::GreRelay => "gre-relay",
        }
    }

    /// Whether packets arrive in GRE.
    pub(crate) fn arrives_in_tunnel(self) -> bool {
        matches!(self, Self::Decap | Self::GreRelay)
    }

    /// Whether packets leave in GRE.
    pub(crate) fn leaves_in_tunnel(self) -> bool {
        matches!(self, Self::Encap | Self::GreRelay)
    }

    /// The port by which packets arrive.
    pub(crate) fn in_port(self) -> u16 {
        if self.arrives_in_tunnel() { WAN } else { LAN }
    }

    /// The port by which they leave.
    pub(crate) fn out_port(self) -> u16 {
        if self == Self::Decap { LAN } else { WAN }
    }
}

/// NBMA address of a spoke.
pub(crate) fn nbma(spoke: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be_bytes([100, 64, 0, 2]) + spoke)
}

/// Tunnel address of a spoke; in `ipv4` its address on the WAN.
fn protocol(spoke: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 2]) + spoke)
}

/// First address of a route's prefix.
pub(crate) fn network(route: u32) -> u32 {
    u32::from_be_bytes([20, 0, 0, 0]) + (route << 8)
}

/// Ethernet address of a spoke that is a plain next hop, or of a LAN router.
fn station(kind: u8, number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac([2, kind, a, b, c, d])
}

impl Scenario {
    /// Who a route leads to.
    pub(crate) fn spoke_of(&self, route: u32) -> u32 {
        route % if self.kind == Kind::Decap { LAN_ROUTERS } else { self.spokes }
    }

    /// Ethernet destination of what is sent to a route.
    pub(crate) fn next_station(&self, route: u32) -> Mac {
        match self.kind {
            Kind::Ipv4 => station(3, self.spoke_of(route)),
            Kind::Decap => station(4, self.spoke_of(route)),
            Kind::Encap | Kind::GreRelay => GATEWAY,
        }
    }

    /// The batches that program it.
    pub(crate) fn batches(&self) -> anyhow::Result<Vec<Batch>> {
        let names = Names::new()?;
        let mut objects = names.ports(self.kind == Kind::Ipv4);
        match self.kind {
            Kind::Ipv4 => {
                for spoke in 0..self.spokes {
                    let hop = Hop { interface: names.wan, next_hop: protocol(spoke).into() };
                    objects.push(Object::Neighbour(Neighbour { hop, mac: station(3, spoke) }));
                }
                self.routes_via(names.wan, protocol, &mut objects);
            }
            Kind::Encap | Kind::GreRelay => {
                objects.extend(names.tunnel(self.spokes));
                self.routes_via(names.tunnel, protocol, &mut objects);
            }
            Kind::Decap => {
                objects.extend(names.tunnel(self.spokes));
                let router = |number| Ipv4Addr::from_bits(u32::from_be_bytes([192, 168, 0, 2]) + number);
                for number in 0..LAN_ROUTERS {
                    let hop = Hop { interface: names.lan, next_hop: router(number).into() };
                    objects.push(Object::Neighbour(Neighbour { hop, mac: station(4, number) }));
                }
                self.routes_via(names.lan, router, &mut objects);
            }
        }
        let ops: Vec<Op> = objects.into_iter().map(|object| Op::Put(Owner::Config, object)).collect();
        Ok((1..).zip(ops.chunks(BATCH)).map(|(number, ops)| Batch { number, ops: ops.to_vec() }).collect())
    }

    fn routes_via(&self, interface: InterfaceName, hop: impl Fn(u32) -> Ipv4Addr, objects: &mut Vec<Object>) {
        for number in 0..self.routes {
            let next_hop = hop(self.spoke_of(number)).into();
            objects.push(route(network(number), 24, Path::Via(Hop { interface, next_hop })));
        }
    }
}

fn route(first: u32, len: u8, path: Path) -> Object {
    let addr = Ipv4Addr::from_bits(first).into();
    let prefix = Prefix::new(addr, len).unwrap_or(Prefix::host(addr));
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

    /// The port interfaces, their addresses and the gateway. A tunnel's source does not forward, as in a real node.
    fn ports(&self, forwarding: bool) -> Vec<Object> {
        let interface = |name: InterfaceName, forwarding| {
            let port = name.to_string();
            Object::Interface(Interface { name, port, mtu: 9000, table: TableId(0), forwarding })
        };
        let hop = Hop { interface: self.wan, next_hop: GATEWAY_ADDR.into() };
        vec![
            interface(self.lan, true),
            interface(self.wan, forwarding),
            route(u32::from_be_bytes([192, 168, 0, 1]), 32, Path::Receive(self.lan)),
            route(OWN_NBMA.to_bits(), 32, Path::Receive(self.wan)),
            Object::Neighbour(Neighbour { hop, mac: GATEWAY }),
        ]
    }

    /// The tunnel and a binding for each spoke.
    fn tunnel(&self, spokes: u32) -> Vec<Object> {
        let tunnel = Tunnel {
            name: self.tunnel,
            mode: TunnelMode::Multipoint,
            source: NbmaAddr(OWN_NBMA.into()),
            source_interface: self.wan,
            key: Some(KEY),
            mtu: 8900,
            ttl: TUNNEL_TTL,
            network_id: 1,
            redirect: false,
            table: TableId(0),
            underlay_table: TableId(0),
        };
        let binding = |spoke| {
            Object::Binding(Binding {
                tunnel: self.tunnel,
                next_hop: ProtocolAddr(protocol(spoke).into()),
                nbma: NbmaAddr(nbma(spoke).into()),
                link: Some(Hop { interface: self.wan, next_hop: GATEWAY_ADDR.into() }),
                expires_in: None,
            })
        };
        std::iter::once(Object::Tunnel(tunnel)).chain((0..spokes).map(binding)).collect()
    }
}
