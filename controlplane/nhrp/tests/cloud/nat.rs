//! Nodes behind a NAT.

use model::NbmaAddr;
use nhrp::{Input, Reject};
use wire::nhrp::{Body, CieCode, Extension, ExtensionType, Flags, Message, MessageType};

use crate::net::*;

fn public(node: usize) -> NbmaAddr {
    format!("203.0.113.{node}").parse().unwrap()
}

/// A hub and spokes, some of them behind a NAT, one to one.
fn behind(nodes: &[usize], spokes: usize) -> Net {
    let mut net = Net::idle(spokes, &Setup::default());
    net.nat.extend(nodes.iter().map(|n| (*n, public(*n))));
    net.start_all();
    net.run(seconds(1));
    net
}

/// As the bench sees the sender.
fn give(net: &mut Net, node: usize, from: usize, message: &Message) {
    let packet = Input::Packet {
        tunnel: tunnel0(),
        from: net.outside(from).into(),
        destination: nbma(node),
        bytes: message.encode(),
    };
    net.give(node, packet);
}

/// What the NAT extension of a message says.
fn said(message: &Message) -> Vec<(Option<std::net::IpAddr>, Option<std::net::IpAddr>)> {
    let extension = message.extension(ExtensionType::NAT).unwrap();
    extension.entries(message.families).unwrap().iter().map(|e| (e.nbma, e.protocol)).collect()
}

/// A request of a client that says nothing of its NAT (as FRR's before it has an answer, or an old router's).
fn silent_request(net: &mut Net, from: usize, to: usize) -> Message {
    net.packet(from, host(from, 9), host(to, 9));
    net.run(millis(12));
    let (_, _, mut request) = net.messages(from, MessageType::ResolutionRequest).pop().unwrap();
    *request.extension_mut(ExtensionType::NAT).unwrap() = Extension::empty(ExtensionType::NAT, false);
    request
}

/// A hub says for its client where it sees it, if the client does not; what is said already it lets be.
#[test]
fn the_hub_fills_an_empty_extension_of_a_request() {
    let mut net = behind(&[1], 2);
    let mut request = silent_request(&mut net, 1, 2);
    give(&mut net, 0, 1, &request);
    let (_, _, passed) = net.messages(0, MessageType::ResolutionRequest).pop().unwrap();
    assert_eq!(said(&passed), [(Some(public(1).0), Some(overlay(1).0))]);
    give(&mut net, 0, 1, &passed_by_client(&passed));
    let (_, _, again) = net.messages(0, MessageType::ResolutionRequest).pop().unwrap();
    assert_eq!(said(&again).len(), 1, "it is said once");
    // One who is where it says is not behind a NAT, and who wants no such extension gets none.
    let open = silent_request(&mut net, 2, 1);
    give(&mut net, 0, 2, &open);
    let (_, _, passed) = net.messages(0, MessageType::ResolutionRequest).pop().unwrap();
    assert_eq!((said(&passed), passed.destination), (vec![], Some(host(1, 9).0)));
    request.extensions.as_mut().unwrap().retain(|e| e.kind() != ExtensionType::NAT);
    give(&mut net, 0, 1, &request);
    let (_, _, passed) = net.messages(0, MessageType::ResolutionRequest).pop().unwrap();
    assert!(passed.extension(ExtensionType::NAT).is_none());
}

/// A message as its client would have sent it: it passed nobody.
fn passed_by_client(message: &Message) -> Message {
    let mut message = message.clone();
    *message.extension_mut(ExtensionType::FORWARD_TRANSIT).unwrap() =
        Extension::empty(ExtensionType::FORWARD_TRANSIT, true);
    message
}

/// A reply that passes is filled for the client that it names.
#[test]
fn the_hub_fills_an_empty_extension_of_a_reply() {
    let mut net = behind(&[2], 2);
    let request = silent_request(&mut net, 1, 2);
    give(&mut net, 2, 0, &request);
    let (_, _, mut reply) = net.messages(2, MessageType::ResolutionReply).pop().unwrap();
    assert_eq!(said(&reply), [(Some(public(2).0), Some(overlay(2).0))], "it says so itself");
    *reply.extension_mut(ExtensionType::NAT).unwrap() = Extension::empty(ExtensionType::NAT, false);
    give(&mut net, 0, 2, &reply);
    let (_, to, passed) = net.messages(0, MessageType::ResolutionReply).pop().unwrap();
    assert_eq!((to, said(&passed)), (nbma(1), vec![(Some(public(2).0), Some(overlay(2).0))]));
}

/// Of a requester behind a NAT nothing is learnt from what came by the hub, and it is answered by the hub: nothing else gets in.
#[test]
fn a_requester_behind_a_nat_is_answered_by_the_way_that_it_asked() {
    let mut net = behind(&[1], 2);
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(60));
    let (_, to, reply) = net.messages(2, MessageType::ResolutionReply).pop().unwrap();
    assert_eq!((to, reply.source), (nbma(0), Some(overlay(1).0)));
    assert_eq!(net.binding(2, overlay(1)), None);
    assert_eq!(net.route(1, lan(2)), Some(overlay(2)), "it has its answer");
    // What asks for it gets its answer straight, and that is proof.
    net.packet(2, host(2, 9), host(1, 9));
    net.run(millis(60));
    let (_, to, _) = net.messages(1, MessageType::ResolutionReply).pop().unwrap();
    assert_eq!((to, net.binding(2, overlay(1))), (nbma(2), Some(public(1))));
}

/// An answer that names a node behind a NAT is not taken from anybody else; the next one is.
#[test]
fn an_answer_about_a_node_behind_a_nat_must_come_straight() {
    let mut net = behind(&[2], 2);
    let (a, b) = (net.outside(2), nbma(0));
    assert_ne!(a, b);
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(15));
    let (_, _, request) = net.messages(1, MessageType::ResolutionRequest).pop().unwrap();
    // The answer, made beforehand, as the hub passes it on (FRR's first one comes so).
    give(&mut net, 2, 0, &request);
    let (_, _, reply) = net.messages(2, MessageType::ResolutionReply).pop().unwrap();
    give(&mut net, 1, 0, &reply);
    assert_eq!((net.binding(1, overlay(2)), net.rejects(1, Reject::Unproven)), (None, 1));
    give(&mut net, 1, 2, &reply);
    assert_eq!(net.binding(1, overlay(2)), Some(public(2)));
}

/// Who does not know the extension is told the address that is of use to it.
#[test]
fn who_does_not_know_the_extension_is_told_the_public_address() {
    let mut net = behind(&[2], 2);
    let mut request = silent_request(&mut net, 1, 2);
    request.extensions.as_mut().unwrap().retain(|e| e.kind() != ExtensionType::NAT);
    if let Body::Exchange { flags, .. } = &mut request.body {
        *flags = Flags(flags.0 & !Flags::NAT.0);
    }
    give(&mut net, 2, 0, &request);
    let (_, _, reply) = net.messages(2, MessageType::ResolutionReply).pop().unwrap();
    assert!(reply.extension(ExtensionType::NAT).is_none());
    assert!(matches!(&reply.body, Body::Exchange { entries, .. } if entries[0].nbma == Some(public(2).0)));
}

/// A server that answers for a client behind a NAT says where it sees it, in the entry and in the extension.
#[test]
fn an_answer_from_the_cache_says_where_the_client_is_seen() {
    let mut net = Net::idle(2, &Setup::default());
    net.nat.insert(2, public(2));
    net.nodes[0].tunnel.nhrp.answer_from_cache = true;
    net.start_all();
    net.run(seconds(1));
    net.give(1, Input::Glean { tunnel: tunnel0(), next_hop: overlay(2) });
    net.run(millis(25));
    let (_, to, reply) = net.messages(0, MessageType::ResolutionReply).pop().unwrap();
    assert_eq!((to, said(&reply)), (nbma(1), vec![(Some(public(2).0), Some(overlay(2).0))]));
    assert!(matches!(&reply.body, Body::Exchange { entries, .. } if entries[0].nbma == Some(public(2).0)));
}

/// Two spokes behind PATs, of different places or of the same: they talk by way of the hub, nothing is lost, and few requests are made.
#[test]
fn pat_to_pat_stays_on_the_hub() {
    for addresses in [[public(1), public(2)], [public(1), public(1)]] {
        let mut net = Net::idle(3, &Setup::default());
        for (node, address) in [(1, addresses[0]), (2, addresses[1])] {
            net.pat.insert(node, (address, 4000 + node as u16));
        }
        net.start_all();
        net.run(seconds(1));
        let end = net.now + seconds(300);
        while net.now < end {
            for (from, to) in [(1, 2), (2, 1)] {
                assert_eq!(net.packet(from, host(from, 9), host(to, 9)), Some(vec![from, 0, to]));
            }
            net.run(millis(200));
        }
        for node in [1, 2] {
            assert!(net.routes(node).is_empty());
            assert_eq!(net.binding(node, overlay(3 - node)), None);
            let requests = net.messages(node, MessageType::ResolutionRequest).len();
            assert!(requests <= 10, "{requests} in five minutes");
        }
        // The hub knows the ports, and says so at once.
        let (_, _, reply) = net.messages(0, MessageType::ResolutionReply).pop().unwrap();
        assert!(matches!(&reply.body, Body::Exchange { entries, .. }
            if entries[0].code == CieCode::ADMINISTRATIVELY_PROHIBITED));
        assert!(net.rejects(0, Reject::Unproven) > 0);
    }
}

/// Between a spoke behind a PAT and one that is not the way is direct, once the one behind it has sent something out.
#[test]
fn a_spoke_behind_a_pat_reaches_one_that_is_not() {
    let mut net = Net::idle(2, &Setup::default());
    net.pat.insert(1, (public(1), 4001));
    net.start_all();
    net.run(seconds(1));
    net.converse(1, 2, seconds(3));
    assert_eq!(net.packet(1, host(1, 9), host(2, 9)), Some(vec![1, 2]));
    assert_eq!(net.packet(2, host(2, 9), host(1, 9)), Some(vec![2, 1]));
}

/// Two that are seen at one address without ports know no straight way to each other; they rest, and nothing is lost.
#[test]
fn two_at_one_address_do_not_send_to_themselves() {
    // Node 1 of another place says that it is seen where node 2 is seen.
    let mut net = behind(&[1], 2);
    let mut request = silent_request(&mut net, 1, 2);
    let mut net2 = Net::idle(2, &Setup::default());
    net2.nat.insert(2, public(1));
    net2.start_all();
    net2.run(seconds(1));
    let entry = wire::nhrp::Cie {
        prefix: 32,
        nbma: Some(public(1).0),
        protocol: Some(overlay(1).0),
        ..wire::nhrp::Cie::default()
    };
    assert!(request.extension_mut(ExtensionType::NAT).unwrap().push(&entry, request_families(&net)));
    give(&mut net2, 2, 0, &request);
    let (_, to, reply) = net2.messages(2, MessageType::ResolutionReply).pop().unwrap();
    assert_eq!(to, nbma(0), "the refusal goes back as it came");
    assert!(matches!(&reply.body, Body::Exchange { entries, .. }
        if entries[0].code == CieCode::ADMINISTRATIVELY_PROHIBITED));
    assert_eq!((net2.binding(2, overlay(1)), net2.rejects(2, Reject::Unproven)), (None, 1));
}

fn request_families(net: &Net) -> wire::nhrp::Families {
    net.messages(1, MessageType::RegistrationRequest)[0].2.families
}
