//! Link-local addresses of tunnels: each tunnel is a link of its own, on which a next hop is found by tunnel and address.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

mod lab;

use forwarding::{AdjacencyId, DropReason, Notice, Origin, Punt};
use lab::*;
use model::program::{Object, Op, Owner, Refusal, TunnelMode};

const HELLO: u8 = 89;

fn under() -> Dual {
    Dual { over_v6: false, tagged: false }
}

/// A hub with two tunnels, `tun` (key 42) and `tun2` (key 43), and of each a station `fe80::2`: at 192.0.2.2 and 192.0.2.3.
fn hub_of_two() -> TestNode {
    let mut node = under().hub(&[2, 3], |_| {});
    node.put([Object::Tunnel(tunnel("tun2", "192.0.2.1", "wan", Some(43)))]);
    node.put([ll("tun", "fe80::2", 2), ll("tun2", "fe80::2", 3)]);
    node
}

/// The binding of a link-local address to a spoke.
fn ll(tunnel: &str, next_hop: &str, spoke: u8) -> Object {
    let nbma = under().nbma(spoke);
    binding(tunnel, next_hop, &nbma, Some(hop("wan", &nbma)))
}

fn packet(to: &str) -> Vec<u8> {
    ip6("fe80::1", to, HELLO, b"ospf")
}

/// NBMA address and key of the tunnel packets that the hub sent, and what was in them.
fn sent(node: &mut TestNode) -> Vec<(String, Option<u32>, Vec<u8>)> {
    let opened = node.sent(0).iter().map(|frame| open_tunnel(frame)).collect::<Vec<_>>();
    opened.into_iter().map(|(_, to, key, inner)| (to, key, inner)).collect()
}

#[test]
fn two_tunnels_have_stations_of_one_link_local_address_each_its_own() {
    let mut node = hub_of_two();
    for (tunnel, to, key) in [("tun", "192.0.2.2", 42), ("tun2", "192.0.2.3", 43)] {
        // Sent by the box: the hop limit stays as it is, 1 as a routing daemon's may be.
        let packet = with_ttl(&packet("fe80::2"), 1);
        node.inject(Origin::Twin(node.id(tunnel)), &packet);
        assert_eq!(sent(&mut node), [(to.to_owned(), Some(key), packet)]);
    }
    // One goes, the other stays.
    node.remove(&ll("tun", "fe80::2", 2));
    let (tun, tun2) = (Origin::Twin(node.id("tun")), Origin::Twin(node.id("tun2")));
    node.inject(tun2, &packet("fe80::2"));
    assert_eq!(sent(&mut node).len(), 1);
    node.inject(tun, &packet("fe80::2"));
    assert_eq!((sent(&mut node), node.drops()), (vec![], vec![(DropReason::HostUnreachable, 1)]));
}

#[test]
fn a_route_by_a_link_local_next_hop_takes_its_binding() {
    let mut node = hub_of_two();
    node.put([via("2001:db8:7::/48", "tun2", "fe80::2"), via("2001:db8:8::/48", "tun", "fe80::2")]);
    for (to, nbma, key) in [("2001:db8:7::9", "192.0.2.3", 43), ("2001:db8:8::9", "192.0.2.2", 42)] {
        let packet = udp6("fd00:1::2", to, b"x");
        node.receive(1, &under().from_lan(&packet));
        assert_eq!(sent(&mut node), [(nbma.to_owned(), Some(key), with_ttl(&packet, 63))]);
    }
    assert_eq!(node.drops(), []);
}

#[test]
fn a_station_that_is_not_known_is_asked_for_by_its_address_and_its_packets_go_to_the_server() {
    let mut node = hub_of_two();
    node.put([fallback("tun", "fd00::3")]);
    let tun = node.id("tun");
    node.inject(Origin::Twin(tun), &packet("fe80::99"));
    assert_eq!(sent(&mut node), [("192.0.2.3".to_owned(), Some(42), packet("fe80::99"))]);
    let asked = |next_hop: &str| Notice::Glean { interface: tun, next_hop: next_hop.parse().unwrap() };
    assert_eq!(node.ports.notices, [asked("fe80::99")]);
    node.put([ll("tun", "fe80::99", 2)]);
    node.inject(Origin::Twin(tun), &packet("fe80::99"));
    assert_eq!(sent(&mut node)[0].0, "192.0.2.2");
    // Another prefix of fe80::/10 is nobody's (RFC 4291 §2.5.6: 54 zeros), be it as the tables write those of a tunnel.
    for to in ["fe80:0:0:1::99", "fe80:1::99", "fe80:2::99", "fe80:3::2", "febf::1"] {
        node.inject(Origin::Twin(tun), &packet(to));
    }
    assert_eq!((sent(&mut node), node.drops()), (vec![], vec![(DropReason::Scope, 5)]));
}

#[test]
fn what_comes_by_a_tunnel_for_a_station_of_it_is_relayed_there_and_all_else_is_the_boxs() {
    let mut node = hub_of_two();
    let (tun, lan) = (node.id("tun"), node.id("lan"));
    // As from the other spoke, by the tunnel that has the station: on to it, one hop farther.
    node.receive(0, &under().tunnelled(3, &packet("fe80::2")));
    assert_eq!(sent(&mut node), [("192.0.2.2".to_owned(), Some(42), with_ttl(&packet("fe80::2"), 63))]);
    // To our own address, whatever it is: the kernel knows. No redirect is sent about any of these.
    node.receive(0, &under().tunnelled(3, &packet("fe80::1")));
    assert_eq!(node.punted(), [(Punt::Host(tun), packet("fe80::1"))]);
    // The LAN is another link.
    node.receive(1, &under().from_lan(&packet("fe80::2")));
    let [(punt, _)] = &node.punted()[..] else { panic!("one") };
    assert_eq!((*punt, sent(&mut node).len()), (Punt::Host(lan), 0));
    assert_eq!(node.drops(), []);
}

#[test]
fn the_stations_of_a_tunnel_stay_with_it_when_it_moves_and_go_with_it() {
    let mut node = hub_of_two();
    let put = |object| Op::Put(Owner::Config, object);
    let remove = |object: &Object| Op::Remove(Owner::Config, object.key());
    let mut moved = tunnel("tun2", "192.0.2.1", "wan", Some(43));
    moved.table = model::TableId(7);
    node.put([Object::Tunnel(moved.clone())]);
    let tun2 = node.id("tun2");
    node.inject(Origin::Twin(tun2), &packet("fe80::2"));
    assert_eq!(sent(&mut node)[0].0, "192.0.2.3");
    // Of one peer: all goes to it.
    let station = ll("tun2", "fe80::2", 3);
    moved.mode = TunnelMode::PointToPoint { destination: "192.0.2.2".parse().unwrap() };
    let to_peer = binding("tun2", "0.0.0.0", "192.0.2.2", Some(hop("wan", "192.0.2.2")));
    node.try_apply(vec![remove(&station), put(Object::Tunnel(moved.clone())), put(to_peer.clone())]).unwrap();
    node.inject(Origin::Twin(tun2), &packet("fe80::2"));
    assert_eq!(sent(&mut node)[0].0, "192.0.2.2");
    moved.mode = TunnelMode::Multipoint;
    let back = [remove(&to_peer), put(Object::Tunnel(moved.clone())), put(station.clone())];
    node.try_apply(back.into()).unwrap();
    node.inject(Origin::Twin(tun2), &packet("fe80::2"));
    assert_eq!(sent(&mut node)[0].0, "192.0.2.3");
    // It goes, with all that is on it; the next tunnel, which may get its number, has none of it.
    let adjacencies = node.program.adjacencies().count();
    node.try_apply(vec![remove(&station), remove(&Object::Tunnel(moved))]).unwrap();
    let left = node.program.adjacencies().count();
    assert!(left < adjacencies);
    node.inject(Origin::Twin(tun2), &packet("fe80::2"));
    assert_eq!((sent(&mut node), node.drops()), (vec![], vec![(DropReason::StaleIndex, 1)]));
    node.put([Object::Tunnel(tunnel("tun3", "192.0.2.1", "wan", Some(44)))]);
    node.inject(Origin::Twin(node.id("tun3")), &packet("fe80::2"));
    assert_eq!(sent(&mut node), []);
}

#[test]
fn packets_wait_for_the_link_of_a_link_local_station() {
    let mut node = hub_of_two();
    node.put([binding("tun", "fe80::4", "192.0.2.4", Some(hop("wan", "192.0.2.4")))]);
    let tun = Origin::Twin(node.id("tun"));
    node.inject(tun, &packet("fe80::4"));
    node.receive(0, &under().tunnelled(3, &packet("fe80::4")));
    assert_eq!(sent(&mut node), []);
    node.put([neighbour("wan", "192.0.2.4", station(4))]);
    node.settle();
    let to_it: Vec<_> = sent(&mut node).into_iter().map(|(to, _, packet)| (to, packet)).collect();
    let nbma = || "192.0.2.4".to_owned();
    assert_eq!(to_it, [(nbma(), packet("fe80::4")), (nbma(), with_ttl(&packet("fe80::4"), 63))]);
    assert_eq!(node.drops(), []);
}

#[test]
fn link_local_stations_that_find_no_room_are_refused_and_those_that_go_make_room() {
    // 16 groups for IPv6 beside what is fixed.
    let mut node = TestNode::with_room(1, 1, AdjacencyId::LIMIT, 4);
    node.put([interface("wan", "p0", false), attached("192.0.2.0/24", "wan")]);
    let mut tunnels = Vec::new();
    let full =
        |refused: model::program::Refused| assert!(matches!(refused.reason, Refusal::Full(_)), "{refused}");
    // A tunnel and a station of its own in one batch: together they need at most 13.
    for n in 0..4_u8 {
        let name = format!("tun{n}");
        let of_it = [
            Object::Tunnel(tunnel(&name, "192.0.2.1", "wan", Some(n.into()))),
            ll(&name, "fe80::1:2:3:4", 2),
        ];
        match node.try_apply(of_it.iter().map(|object| Op::Put(Owner::Config, object.clone())).collect()) {
            Ok(()) => tunnels.push(of_it),
            Err(refused) => full(refused),
        }
    }
    assert_eq!(tunnels.len(), 1);
    let another = || vec![Op::Put(Owner::Config, ll("tun0", "fe80::5:2:3:4", 3))];
    full(node.try_apply(another()).unwrap_err());
    node.inject(Origin::Twin(node.id("tun0")), &packet("fe80::5:2:3:4"));
    assert_eq!(node.ports.notices.len(), 1, "nothing of it was done");
    node.remove(&tunnels[0][1]);
    node.settle();
    node.try_apply(another()).unwrap();
}
