//! A whole cloud in one process: a hub and two spokes, three workers, one switch between them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use std::time::Duration;

use forwarding::{DropReason, Notice, Origin, Punt};
use lab::*;
use model::Mac;
use model::program::{Object, Op, Owner};
use model::report::PuntReason;
use wire::buf::{PacketBuf, TestBuf};
use wire::{ethernet, gre};

/// Node `n` is 192.0.2.n in the underlay, 10.0.0.n in the overlay, with the LAN 10.1.n.0/24 and a host 10.1.n.2 on it.
fn node(n: u8) -> TestNode {
    let mut node = TestNode::new(n, 2);
    let mut tun = tunnel("tun", &format!("192.0.2.{n}"), "wan", Some(42));
    tun.redirect = n == 1;
    node.put([
        interface("wan", "p0", false),
        interface("lan", "p1", true),
        Object::Tunnel(tun),
        receive(&format!("192.0.2.{n}/32"), "wan"),
        receive(&format!("10.1.{n}.1/32"), "lan"),
        receive(&format!("10.0.0.{n}/32"), "tun"),
        attached("192.0.2.0/24", "wan"),
        attached(&format!("10.1.{n}.0/24"), "lan"),
        attached("10.0.0.0/24", "tun"),
        neighbour("lan", &format!("10.1.{n}.2"), host_mac(n)),
    ]);
    node
}

fn host_mac(n: u8) -> Mac {
    Mac([2, 0, 0, 2, 0, n])
}

/// As NHRP would: `of`'s overlay address is at its underlay address.
fn bind(node: &mut TestNode, of: u8) {
    let nbma = format!("192.0.2.{of}");
    node.put([
        neighbour("wan", &nbma, port_mac(of, 0)),
        binding("tun", &format!("10.0.0.{of}"), &nbma, Some(hop("wan", &nbma))),
    ]);
}

struct Cloud {
    nodes: [TestNode; 3],
    /// Outer source and destination of every frame that crossed the underlay.
    crossed: Vec<(String, String)>,
}

impl Cloud {
    /// Phase 3: spokes know the hub alone, and a default route by it; the hub knows all.
    fn new() -> Self {
        let mut nodes = [node(1), node(2), node(3)];
        for spoke in [2, 3] {
            bind(&mut nodes[usize::from(spoke) - 1], 1);
            nodes[usize::from(spoke) - 1]
                .put([via("10.1.0.0/16", "tun", "10.0.0.1"), fallback("tun", "10.0.0.1")]);
            bind(&mut nodes[0], spoke);
            nodes[0].put([via(&format!("10.1.{spoke}.0/24"), "tun", &format!("10.0.0.{spoke}"))]);
        }
        Self { nodes, crossed: Vec::new() }
    }

    /// Breathes until nothing moves any more; the switch of the underlay knows every port's address.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for at in 0..self.nodes.len() {
                moved |= !self.nodes[at].breathe().is_idle();
                let frames: Vec<TestBuf> = self.nodes[at].ports.tx[0].drain(..).collect();
                for frame in frames {
                    let (link, _) = ethernet::parse(frame.bytes()).unwrap();
                    let (from, to, key, _) = open_tunnel(frame.bytes());
                    assert_eq!(key, Some(42));
                    self.crossed.push((from, to));
                    let node = usize::from(link.destination[4]) - 1;
                    self.nodes[node].ports.rx[0].push_back(TestBuf::new(frame.bytes()));
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// The LAN host of one node sends to that of another.
    fn send(&mut self, from: u8, to: u8, payload: &[u8]) {
        let packet = udp(&format!("10.1.{from}.2"), &format!("10.1.{to}.2"), payload);
        let arriving = frame(port_mac(from, 1), host_mac(from), ethernet::IPV4, &packet);
        self.nodes[usize::from(from) - 1].ports.rx[1].push_back(TestBuf::new(&arriving));
    }

    /// Payloads that a LAN host got.
    fn got(&mut self, at: u8) -> Vec<Vec<u8>> {
        let frames = self.nodes[usize::from(at) - 1].sent(1);
        frames.iter().map(|frame| frame[14 + 28..].to_vec()).collect()
    }
}

#[test]
fn traffic_goes_by_the_hub_until_the_shortcut_and_none_is_lost() {
    let mut cloud = Cloud::new();
    for n in 0..100_u8 {
        cloud.send(2, 3, &[n]);
    }
    cloud.settle();
    let sent: Vec<_> = (0..100_u8).map(|n| vec![n]).collect();
    assert_eq!(cloud.got(3), sent);
    let hop = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let by_hub = [hop("192.0.2.2", "192.0.2.1"), hop("192.0.2.1", "192.0.2.3")];
    assert!(by_hub.iter().all(|hop| cloud.crossed.iter().filter(|crossed| *crossed == hop).count() == 100));

    // The hub saw that it could go straight, and said so once.
    let punted = cloud.nodes[0].punted();
    assert_eq!(punted.len(), 1);
    let Punt::Control { reason: PuntReason::Redirect, source, tunnel, .. } = punted[0].0 else {
        panic!("{punted:?}")
    };
    assert_eq!(source, addr("192.0.2.2"));
    // The hub's control plane tells the spoke, whose data plane hands it to its own.
    let to_spoke = Origin::Control { tunnel, destination: source, protocol_type: gre::NHRP, port: 0 };
    cloud.nodes[0]
        .ports
        .inject
        .push_back(forwarding::Injected { origin: to_spoke, buf: TestBuf::new(b"indication") });
    cloud.settle();
    let heard = cloud.nodes[1].punted();
    assert!(
        matches!(heard[..], [(Punt::Control { reason: PuntReason::Nhrp, .. }, ref bytes)] if bytes == b"indication")
    );

    // The shortcut is programmed in the midst of traffic.
    cloud.crossed.clear();
    for n in 0..50 {
        cloud.send(2, 3, &[n]);
    }
    let spoke = &mut cloud.nodes[1];
    let nbma = "192.0.2.3";
    let shortcut = [
        neighbour("wan", nbma, port_mac(3, 0)),
        binding("tun", "10.0.0.3", nbma, Some(lab::hop("wan", nbma))),
        via("10.1.3.0/24", "tun", "10.0.0.3"),
    ];
    spoke.try_apply(shortcut.into_iter().map(|object| Op::Put(Owner::Nhrp, object)).collect()).unwrap();
    for n in 50..100 {
        cloud.send(2, 3, &[n]);
    }
    cloud.settle();
    assert_eq!(cloud.got(3), sent);
    assert_eq!(cloud.crossed, vec![hop("192.0.2.2", nbma); 100]);
    for node in &cloud.nodes {
        assert_eq!(node.drops(), []);
    }
}

#[test]
fn phase_2_goes_by_the_hub_while_the_next_hop_is_unresolved() {
    let mut cloud = Cloud::new();
    cloud.nodes[1].put([via("10.1.3.0/24", "tun", "10.0.0.3")]);
    cloud.send(2, 3, b"first");
    cloud.settle();
    assert_eq!(cloud.got(3), [b"first"]);
    let interface = cloud.nodes[1].id("tun");
    assert_eq!(
        cloud.nodes[1].ports.notices,
        [Notice::Glean { interface, next_hop: addr("10.0.0.3").into() }]
    );
    bind(&mut cloud.nodes[1], 3);
    cloud.crossed.clear();
    cloud.send(2, 3, b"second");
    cloud.settle();
    assert_eq!(cloud.got(3), [b"second"]);
    assert_eq!(cloud.crossed, [("192.0.2.2".to_owned(), "192.0.2.3".to_owned())]);
}

#[test]
fn a_routing_daemons_multicast_reaches_the_twins_and_no_further() {
    let mut cloud = Cloud::new();
    for (at, receivers) in [(0, &[2, 3][..]), (1, &[1]), (2, &[1])] {
        for receiver in receivers {
            let nbma = format!("192.0.2.{receiver}");
            cloud.nodes[at].put([replica("tun", &nbma, Some(hop("wan", &nbma)))]);
        }
        let origin = Origin::Twin(cloud.nodes[at].id("tun"));
        let hello = with_ttl(&ip(&format!("10.0.0.{}", at + 1), "224.0.0.5", 89, b"hello"), 1);
        cloud.nodes[at].ports.inject.push_back(forwarding::Injected { origin, buf: TestBuf::new(&hello) });
    }
    cloud.settle();
    for (at, hellos) in [(0, 2), (1, 1), (2, 1)] {
        let twin = Punt::Host(cloud.nodes[at].id("tun"));
        let got = cloud.nodes[at].punted();
        assert_eq!(got.len(), hellos);
        assert!(got.iter().all(|(punt, _)| *punt == twin));
        assert_eq!(cloud.nodes[at].drops(), []);
    }
}

#[test]
fn a_spoke_that_is_not_registered_is_unreachable_and_nothing_leaks() {
    let mut cloud = Cloud::new();
    cloud.nodes[0].remove(&binding("tun", "10.0.0.3", "192.0.2.3", None));
    cloud.send(1, 3, b"to nobody");
    cloud.settle();
    assert_eq!((cloud.got(3).len(), cloud.crossed.len()), (0, 0));
    assert_eq!(cloud.nodes[0].drops(), [(DropReason::HostUnreachable, 1)]);
    // The LAN host hears an ICMP error: type 3, code 1.
    let frames = cloud.nodes[0].sent(1);
    assert_eq!((frames.len(), &frames[0][34..36]), (1, &[3, 1][..]));
    // From another spoke the error goes back by the tunnel.
    cloud.nodes[0].pass(Duration::from_secs(1));
    cloud.send(2, 3, b"to nobody");
    cloud.settle();
    assert_eq!(cloud.got(3).len(), 0);
    let error = &cloud.nodes[1].sent(1)[0][14..];
    assert_eq!((&error[12..16], error[20], error[21]), (&[10, 0, 0, 1][..], 3, 1));
}
