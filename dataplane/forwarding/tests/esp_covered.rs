//! Nothing leaves in the clear: whatever the program does at any moment, whatever traffic there is.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use std::time::Duration;

use forwarding::{Injected, Origin};
use lab::esp::*;
use lab::*;
use model::WorkerId;
use model::program::{Binding, Object, Op, OutboundSa, Owner, Replica};
use model::sa::{Lease, SaMode, Spi};
use proptest::prelude::*;
use wire::buf::{PacketBuf, TestBuf};
use wire::gre;

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// An outbound SA of a spoke for a worker, of this generation, or none any more.
    Outbound(u8, u16, Option<u8>),
    Inbound(u8, bool),
    Binding(u8, bool),
    Link(u8, bool),
    Replica(u8, bool),
    Fallback(u8, bool),
    Route(u8, bool),
    /// The tunnel goes and comes with another key or mode.
    Tunnel(bool),
    /// A restart of the control plane: it says all anew, or only what is left of it.
    Resync(bool),
    Path(u8),
    /// Time passes, so that what is parked ends.
    Time,
    /// Packets: from the LAN, by a peer's SA, in the clear, from the twin, from the control plane, in bursts.
    Traffic(u8),
    /// A worker breathes once; what it has left over is left over.
    Breathe(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let spoke = 2..6_u8;
    prop_oneof![
        3 => (spoke.clone(), 0..2_u16, proptest::option::weighted(0.6, 0..4_u8)).prop_map(|(s, w, g)| Event::Outbound(s, w, g)),
        1 => (spoke.clone(), any::<bool>()).prop_map(|(s, on)| Event::Inbound(s, on)),
        2 => (spoke.clone(), any::<bool>()).prop_map(|(s, on)| Event::Binding(s, on)),
        2 => (spoke.clone(), any::<bool>()).prop_map(|(s, on)| Event::Link(s, on)),
        1 => (spoke.clone(), any::<bool>()).prop_map(|(s, on)| Event::Replica(s, on)),
        1 => (spoke.clone(), any::<bool>()).prop_map(|(s, on)| Event::Fallback(s, on)),
        1 => (spoke.clone(), any::<bool>()).prop_map(|(s, on)| Event::Route(s, on)),
        1 => any::<bool>().prop_map(Event::Tunnel),
        1 => any::<bool>().prop_map(Event::Resync),
        1 => spoke.clone().prop_map(Event::Path),
        1 => Just(Event::Time),
        6 => spoke.prop_map(Event::Traffic),
        8 => (0..2_u16).prop_map(Event::Breathe),
    ]
}

/// A team whose one tunnel is protected, or is not yet.
struct Story {
    team: Team,
    guard: Guard,
    peers: Vec<Peer>,
    serial: u32,
    /// Frames by the underlay port.
    sent: usize,
}

/// What only the overlay knows: in every inner packet.
const PLANTED: &[u8] = b"planted, and not to be seen";

impl Story {
    fn new(guard: Guard) -> Self {
        let mut team = Team::new(2);
        team.put(guard.under().base(Self::tunnel(&guard, true)));
        let peers = (2..6).map(|spoke| guard.peer(spoke)).collect();
        Self { team, guard, peers, serial: 0, sent: 0 }
    }

    fn tunnel(guard: &Guard, first: bool) -> model::program::Tunnel {
        let mut tun = tunnel("tun", &guard.under().nbma(1), "wan", Some(if first { 42 } else { 43 }));
        (tun.protection, tun.mtu, tun.redirect) = (Some("guard".parse().unwrap()), 1300, true);
        tun
    }

    fn is(&mut self, there: bool, object: Object) {
        let op = if there { Op::Put(Owner::Config, object) } else { Op::Remove(Owner::Config, object.key()) };
        self.team.try_ops(vec![op]);
    }

    fn happen(&mut self, event: Event) {
        let guard = self.guard;
        let nbma = |spoke: u8| guard.under().nbma(spoke);
        let link = |spoke: u8| Some(hop("wan", &nbma(spoke)));
        match event {
            Event::Outbound(spoke, worker, generation) => {
                self.serial += 1;
                let spi = Spi::new(0x1000_0000 + self.serial).unwrap();
                // Now and then an SA whose lease is all but spent.
                let last = if self.serial.is_multiple_of(5) { 3 } else { LEASED };
                let sa = OutboundSa {
                    worker: WorkerId(worker),
                    lease: Lease { first: 1, last },
                    ..guard.outbound(spoke, spi)
                };
                self.is(generation.is_some(), Object::OutboundSa(sa));
            }
            Event::Inbound(spoke, on) => self.is(on, Object::InboundSa(guard.inbound(spoke, in_spi(spoke)))),
            Event::Binding(spoke, on) => {
                for next_hop in [format!("10.0.0.{spoke}"), format!("fd00::{spoke}")] {
                    let Object::Binding(binding) = binding("tun", &next_hop, &nbma(spoke), link(spoke))
                    else {
                        panic!("a binding")
                    };
                    self.is(on, Object::Binding(Binding { port: guard.port, ..binding }));
                }
            }
            Event::Link(spoke, on) => self.is(on, neighbour("wan", &nbma(spoke), station(spoke))),
            Event::Replica(spoke, on) => {
                let Object::Replica(replica) = replica("tun", &nbma(spoke), link(spoke)) else {
                    panic!("a replica")
                };
                self.is(on, Object::Replica(Replica { port: guard.port, ..replica }));
            }
            Event::Fallback(spoke, on) => self.is(on, fallback("tun", &format!("10.0.0.{spoke}"))),
            Event::Route(spoke, on) => {
                self.is(on, via(&format!("10.1.{spoke}.0/24"), "tun", &format!("10.0.0.{spoke}")));
                self.is(on, via(&format!("fd00:1:{spoke}::/64"), "tun", &format!("fd00::{spoke}")));
            }
            Event::Tunnel(first) => {
                self.team.try_ops(vec![Op::Put(Owner::Config, Object::Tunnel(Self::tunnel(&guard, first)))])
            }
            Event::Resync(all) => {
                let mut ops = vec![Op::ResyncBegin(Owner::Config)];
                let put = |object| Op::Put(Owner::Config, object);
                ops.extend(guard.under().base(Self::tunnel(&guard, true)).into_iter().map(put));
                if all {
                    for spoke in 2..4 {
                        ops.extend(guard.spoke(spoke).into_iter().map(put));
                    }
                }
                ops.push(Op::ResyncEnd(Owner::Config));
                self.team.try_ops(ops);
            }
            Event::Path(spoke) => self.is(
                true,
                Object::PathMtu(model::program::PathMtu {
                    tunnel: name("tun"),
                    nbma: guard.nbma(spoke),
                    mtu: 1290,
                    expires_in: None,
                }),
            ),
            Event::Time => self.team.now = self.team.now + Duration::from_millis(600),
            Event::Traffic(spoke) => self.traffic(spoke),
            Event::Breathe(worker) => self.breathe(worker.into()),
        }
    }

    /// Some of everything, on both workers.
    fn traffic(&mut self, spoke: u8) {
        let guard = self.guard;
        let other = if spoke == 5 { 2 } else { spoke + 1 };
        let tun = self.team.program.interface_id(name("tun")).unwrap();
        for (at, ports) in self.team.ports.iter_mut().enumerate() {
            for v6 in [false, true] {
                let (host, remote) = hosts(v6, spoke);
                let beyond = hosts(v6, other).1;
                let big = [PLANTED, &[7; 1230 - 27]].concat();
                for payload in [PLANTED, &big] {
                    let out = any_udp(&host, &remote, payload);
                    ports.rx[1].push_back(TestBuf::new(&guard.under().from_lan(&out)));
                    let on = any_udp(&remote, &beyond, payload);
                    let peer = &mut self.peers[usize::from(spoke) - 2];
                    ports.rx[0].push_back(TestBuf::with_room(128, &peer.seal(&on), 256));
                    // In the clear, from a peer who forgot.
                    ports.rx[0].push_back(TestBuf::new(&guard.under().tunnelled(spoke, &on)));
                }
                let group = any_ip(
                    if v6 { "fe80::1" } else { "10.0.0.1" },
                    if v6 { "ff02::5" } else { "224.0.0.5" },
                    89,
                    PLANTED,
                );
                for packet in [group, any_udp(&host, &remote, PLANTED)] {
                    ports
                        .inject
                        .push_back(Injected { origin: Origin::Twin(tun), buf: TestBuf::new(&packet) });
                }
            }
            let origin = Origin::Control {
                tunnel: tun,
                destination: guard.nbma(spoke).0,
                port: if at == 0 { guard.port } else { 0 },
                protocol_type: gre::NHRP,
            };
            ports.inject.push_back(Injected { origin, buf: TestBuf::new(PLANTED) });
        }
    }

    fn breathe(&mut self, worker: usize) {
        self.team.breathe(worker);
        for (to, packet) in std::mem::take(&mut self.team.ports[worker].handed_off) {
            self.team.ports[to].handed_in.push_back(packet);
        }
        self.look();
    }

    /// Looks at what has left by the underlay port.
    fn look(&mut self) {
        for ports in &mut self.team.ports {
            for frame in ports.tx[0].drain(..) {
                let bytes = frame.bytes();
                assert!(is_covered(bytes), "in the clear: {bytes:02x?}");
                let seen = bytes.windows(PLANTED.len()).any(|window| window == PLANTED);
                assert!(!seen, "the payload is seen: {bytes:02x?}");
                self.sent += 1;
            }
            ports.tx[1].clear();
            ports.punts.clear();
            ports.notices.clear();
        }
    }
}

/// The guards whose entries differ most.
fn guards() -> impl Strategy<Value = Guard> {
    prop::sample::select(vec![
        PLAIN,
        Guard { port: 4500, ..PLAIN },
        Guard { mode: SaMode::Tunnel, ..PLAIN },
        Guard { over_v6: true, ..PLAIN },
        Guard { over_v6: true, port: 4501, ..PLAIN },
        Guard { tagged: true, ..PLAIN },
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any frame by the underlay port of a node with only protected tunnels is ESP, or is none of the overlay's; and what is in it is
    /// not to be read.
    #[test]
    fn nothing_leaves_in_the_clear_whatever_the_program_does(
        guard in guards(),
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut story = Story::new(guard);
        for event in events {
            story.happen(event);
        }
        for worker in [0, 1, 0, 1] {
            story.breathe(worker);
        }
        story.team.settle();
        story.look();
    }
}

/// That the property says something: with all SAs there much leaves.
#[test]
fn a_story_has_traffic() {
    for guard in [PLAIN, Guard { over_v6: true, port: 4501, ..PLAIN }] {
        let mut story = Story::new(guard);
        for spoke in 2..6 {
            let (s, on) = (spoke, true);
            for event in [
                Event::Outbound(s, u16::from(s) % 2, Some(1)),
                Event::Inbound(s, on),
                Event::Binding(s, on),
                Event::Link(s, on),
                Event::Replica(s, on),
                Event::Route(s, on),
            ] {
                story.happen(event);
            }
        }
        story.breathe(0);
        story.breathe(1);
        for spoke in 2..6 {
            story.happen(Event::Traffic(spoke));
        }
        for worker in [0, 1, 0, 1, 0, 1, 0, 1] {
            story.breathe(worker);
        }
        assert!(story.sent > 100, "{}", story.sent);
    }
}

/// A tunnel comes to be protected while packets that it has put in the clear are on their way: they do not leave any more.
#[test]
fn what_is_on_its_way_when_a_tunnel_is_protected_does_not_leave() {
    // An NHRP packet that waits for its link; a piece of a frame that waits for the next breath.
    let mut node = PLAIN.under().hub(&[], |tunnel| tunnel.mtu = 1300);
    let tun = node.id("tun");
    let origin =
        Origin::Control { tunnel: tun, destination: PLAIN.nbma(2).0, port: 0, protocol_type: gre::NHRP };
    node.put([binding("tun", "10.0.0.2", "192.0.2.2", Some(hop("wan", "192.0.2.2")))]);
    node.inject(origin, b"reply");
    assert_eq!(node.breathe().waiting, 1);
    let mut protected = tunnel("tun", "192.0.2.1", "wan", Some(42));
    (protected.protection, protected.mtu) = (Some("guard".parse().unwrap()), 1300);
    node.put([Object::Tunnel(protected.clone())]);
    node.put([neighbour("wan", "192.0.2.2", station(2))]);
    node.settle();
    assert_eq!((node.sent(0), node.breathe().waiting), (vec![], 0));
    assert_eq!(node.drops(), [(forwarding::DropReason::NoOutboundSa, 1)]);

    let mut node = PLAIN.under().hub(&[2], |tunnel| tunnel.mtu = 1300);
    let Object::Interface(wan) = interface("wan", "p0", false) else { panic!("an interface") };
    node.put([Object::Interface(model::program::Interface { mtu: 1280, ..wan })]);
    let packet = udp6("fd00:1::2", "fd00:1:2::9", &vec![7; 1280 - 48]);
    node.ports.rx[1].push_back(TestBuf::new(&PLAIN.under().from_lan(&packet)));
    node.breathe();
    node.put([Object::Tunnel(protected)]);
    node.put([Object::OutboundSa(PLAIN.outbound(2, out_spi(2)))]);
    node.settle();
    assert_eq!(node.sent(0), Vec::<Vec<u8>>::new());
    assert_eq!(node.drops(), [(forwarding::DropReason::NoOutboundSa, 2)]);
}
