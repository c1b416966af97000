//! Several workers: each SA is one worker's, and packets get to it wherever they arrive.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use forwarding::{DropReason, Injected, Node, Origin};
use lab::esp::*;
use lab::*;
use model::WorkerId;
use model::program::{Object, OutboundSa};
use model::sa::Spi;
use wire::buf::TestBuf;
use wire::gre;

/// Spokes from 2 on whose SAs are spread over the workers: inbound and outbound of one spoke on different ones.
fn team(guard: &Guard, workers: usize, spokes: u8) -> (Team, Vec<Peer>) {
    let mut team = Team::new(workers);
    let mut tun = tunnel("tun", &guard.under().nbma(1), "wan", Some(42));
    (tun.protection, tun.mtu) = (Some("guard".parse().unwrap()), 1300);
    team.put(guard.under().base(tun));
    let mut peers = Vec::new();
    for spoke in 2..2 + spokes {
        let inbound = Spi::of(u16::from(spoke), spoke.into(), 7).unwrap();
        let worker = WorkerId(u16::from(spoke + 1) % workers as u16);
        team.put([
            Object::InboundSa(guard.inbound(spoke, inbound)),
            Object::OutboundSa(OutboundSa { worker, ..guard.outbound(spoke, out_spi(spoke)) }),
        ]);
        team.put(guard.spoke(spoke));
        peers.push(Peer::new(*guard, spoke, inbound, out_spi(spoke)));
    }
    team.settle();
    (team, peers)
}

#[test]
fn every_packet_gets_to_the_worker_of_its_sa_and_stays_in_order() {
    for guard in [PLAIN, Guard { port: 4500, over_v6: true, ..PLAIN }] {
        let (mut team, mut peers) = team(&guard, 2, 6);
        let (rounds, mut sent) = (200_u16, 0);
        for round in 0..rounds {
            let [high, low] = round.to_be_bytes();
            for (at, peer) in peers.iter_mut().enumerate() {
                // To the LAN, and by the hub to the next spoke. Each arrives at some worker: all of a spoke's at one, as queues have it.
                let next = 2 + (at as u8 + 1) % 6;
                let lan = udp(&format!("10.1.{}.9", peer.spoke), "10.1.0.2", &[high, low]);
                let on = udp(&format!("10.1.{}.9", peer.spoke), &format!("10.1.{next}.9"), &[high, low]);
                for packet in [lan, on] {
                    let frame = TestBuf::with_room(128, &peer.seal(&packet), 256);
                    team.ports[at / 2 % 2].rx[0].push_back(frame);
                    sent += 1;
                }
            }
            if round % 7 == 0 {
                team.settle();
            }
        }
        team.settle();
        assert_eq!(team.drops(), []);
        let mut by_spoke = vec![Vec::new(); 8];
        let (mut lan, mut handed) = (0, 0);
        for ports in &mut team.ports {
            lan += ports.tx[1].len();
            for frame in ports.tx[0].drain(..) {
                let bytes = wire::buf::PacketBuf::bytes(&frame).to_vec();
                let to = match open_frame(&bytes).1 {
                    outer if guard.over_v6 => outer[39],
                    outer => outer[19],
                };
                let peer = peers.iter().find(|peer| peer.spoke == to).unwrap();
                let (number, packet) = peer.open(&bytes);
                by_spoke[usize::from(to) - 2].push((number, packet[28..].to_vec()));
            }
        }
        assert_eq!(lan, usize::from(rounds) * 6);
        for of_spoke in by_spoke.iter().take(6) {
            // No number twice, none left out; what came in order leaves in order.
            let expected: Vec<_> =
                (0..rounds).map(|n| (u64::from(n) + 1, n.to_be_bytes().to_vec())).collect();
            assert_eq!(*of_spoke, expected);
        }
        let (mut flow_in, mut flow_out, mut received) = (0, 0, 0);
        for worker in &team.workers {
            let counters = worker.counters();
            let flow = counters.flow();
            assert!(flow.received > 0 && flow.handed_in > 0 && flow.handed_off > 0, "{flow:?}");
            assert!(
                counters.node(Node::EspDecrypt).packets > 0 && counters.node(Node::EspEncrypt).packets > 0
            );
            handed += flow.handed_off;
            (flow_in, flow_out) = (flow_in + flow.handed_in, flow_out + flow.handed_off);
            received += flow.received;
        }
        assert_eq!((received, flow_in), (sent, flow_out));
        assert!(handed > u64::from(rounds));
    }
}

#[test]
fn the_control_plane_s_packets_go_by_the_worker_of_the_sa_too() {
    let (mut team, peers) = team(&PLAIN, 2, 2);
    let tunnel = team.program.interface_id(name("tun")).unwrap();
    for peer in &peers {
        for ports in &mut team.ports {
            let destination = PLAIN.nbma(peer.spoke).0;
            let origin = Origin::Control { tunnel, destination, port: 0, protocol_type: gre::NHRP };
            ports.inject.push_back(Injected { origin, buf: TestBuf::new(b"reply") });
        }
    }
    team.settle();
    let mut numbers = Vec::new();
    for ports in &mut team.ports {
        for frame in ports.tx[0].drain(..) {
            let bytes = wire::buf::PacketBuf::bytes(&frame).to_vec();
            let peer = peers.iter().find(|peer| peer.spoke == open_frame(&bytes).1[19]).unwrap();
            let (number, gre) = peer.open_gre(&bytes);
            assert_eq!(gre, gre_bytes(Some(42), gre::NHRP, b"reply"));
            numbers.push((peer.spoke, number));
        }
    }
    // The links are resolved, so that all is sent by them.
    numbers.sort();
    assert_eq!((numbers, team.drops()), (vec![(2, 1), (2, 2), (3, 1), (3, 2)], vec![]));
}

#[test]
fn a_worker_with_an_sa_of_its_own_hands_nothing_off() {
    let (mut team, _) = team(&PLAIN, 2, 1);
    let own = |worker: u16| OutboundSa {
        worker: WorkerId(worker),
        ..PLAIN.outbound(2, Spi::new(0x5000 + u32::from(worker)).unwrap())
    };
    team.put([Object::OutboundSa(own(0)), Object::OutboundSa(own(1))]);
    team.settle();
    for (at, ports) in team.ports.iter_mut().enumerate() {
        let packet = udp("10.1.0.2", "10.1.2.9", &[at as u8]);
        ports.rx[1].push_back(TestBuf::new(&PLAIN.under().from_lan(&packet)));
    }
    team.settle();
    for (at, ports) in team.ports.iter_mut().enumerate() {
        let frame = ports.tx[0].pop().unwrap();
        let peer = Peer::new(PLAIN, 2, in_spi(2), own(at as u16).spi);
        assert_eq!(peer.open(wire::buf::PacketBuf::bytes(&frame)).1[28..], [at as u8]);
    }
    assert!(team.workers.iter().all(|worker| worker.counters().flow().handed_off == 0));
    // One of them goes: its worker's packets go by the other one's.
    team.remove(&Object::OutboundSa(own(0)));
    team.settle();
    let packet = udp("10.1.0.2", "10.1.2.9", b"x");
    team.ports[0].rx[1].push_back(TestBuf::new(&PLAIN.under().from_lan(&packet)));
    team.settle();
    let frame = team.ports[1].tx[0].pop().unwrap();
    assert_eq!(Peer::new(PLAIN, 2, in_spi(2), own(1).spi).open(wire::buf::PacketBuf::bytes(&frame)).0, 2);
    assert_eq!(team.drops(), []);
}

#[test]
fn what_changes_while_a_packet_is_handed_off_ends_it() {
    // The adjacency goes; the SA goes; the tunnel is not protected any more.
    let changes: [fn(&mut Team); 3] = [
        |team| {
            team.remove(&via("10.1.2.0/24", "tun", "10.0.0.2"));
            team.remove(&binding("tun", "10.0.0.2", "192.0.2.2", None));
        },
        |team| team.remove(&Object::OutboundSa(PLAIN.outbound(2, out_spi(2)).of(1))),
        |team| {
            let mut tun = tunnel("tun", "192.0.2.1", "wan", Some(42));
            (tun.protection, tun.mtu) = (None, 1300);
            team.put([Object::Tunnel(tun)]);
        },
    ];
    for change in changes {
        let (mut team, _) = team(&PLAIN, 2, 1);
        let packet = udp("10.1.0.2", "10.1.2.9", b"x");
        // The SA is worker 1's.
        team.ports[0].rx[1].push_back(TestBuf::new(&PLAIN.under().from_lan(&packet)));
        team.breathe(0);
        let [(1, _)] = team.ports[0].handed_off[..] else { panic!("handed off") };
        change(&mut team);
        team.settle();
        assert_eq!(team.drops(), [(DropReason::StaleIndex, 1)]);
        assert!(team.ports.iter().all(|ports| ports.tx[0].is_empty()));
    }
}

/// An SA of another worker.
trait Of {
    fn of(self, worker: u16) -> Self;
}

impl Of for OutboundSa {
    fn of(self, worker: u16) -> Self {
        Self { worker: WorkerId(worker), ..self }
    }
}
