//! What goes out on the wire is as long as what real routers send, and says what they say.

use std::net::IpAddr;

use wire::nhrp::{Body, Flags, Message, MessageType};

use crate::net::*;

fn with(text: Option<&str>) -> Setup {
    let authentication = text.map(str::to_owned);
    Setup { authentication, holding: 7200, mtu: 17916, ..Setup::default() }
}

/// The first message of a type that a node sent: its length, its extension offset, itself.
fn first(net: &Net, node: usize, kind: MessageType) -> (usize, u16, Message) {
    let bytes = &net.nodes[node].sent.iter().map(|(_, _, b)| b).find(|b| b[17] == kind as u8).unwrap();
    (bytes.len(), u16::from_be_bytes([bytes[14], bytes[15]]), Message::decode(bytes).unwrap())
}

fn kinds(message: &Message) -> Vec<u16> {
    message.extensions.iter().flatten().map(|e| e.kind().number()).collect()
}

#[test]
fn a_registration_request_without_authentication() {
    let mut net = Net::new(1, &with(None));
    net.run(seconds(1));
    let (len, extensions, message) = first(&net, 1, MessageType::RegistrationRequest);
    assert_eq!((len, extensions), (92, 52));
    assert_eq!((message.hop_count, kinds(&message)), (255, vec![3, 4, 5, 9]));
    let Body::Exchange { flags, request_id, entries, .. } = &message.body else { panic!() };
    assert_eq!((*flags, *request_id, entries.len()), (Flags::UNIQUE | Flags::NAT, 1, 1));
    let entry = entries[0];
    assert_eq!((entry.prefix, entry.mtu, entry.holding_time), (32, 17916, 7200));
    assert_eq!((entry.nbma, entry.protocol), (None, None));
    let nat = message.extensions.as_ref().unwrap()[3].entries(message.families).unwrap();
    assert_eq!((nat[0].nbma, nat[0].protocol), (Some(nbma(0).0), Some(overlay(0).0)));
    let addresses = [message.source_nbma, message.source, message.destination].map(Option::unwrap);
    assert_eq!(addresses, [nbma(1).0, overlay(1).0, overlay(0).0] as [IpAddr; 3]);
}

#[test]
fn registration_with_authentication() {
    let mut net = Net::new(1, &with(Some("cisco123")));
    net.run(seconds(1));
    let (len, extensions, message) = first(&net, 1, MessageType::RegistrationRequest);
    assert_eq!((len, extensions, kinds(&message)), (108, 52, vec![3, 4, 5, 9, 7]));
    let (len, extensions, reply) = first(&net, 0, MessageType::RegistrationReply);
    assert_eq!((len, extensions, kinds(&reply)), (128, 52, vec![3, 4, 5, 9, 7]));
    assert_eq!(reply.hop_count, 255);
}

#[test]
fn resolution_and_traffic_indication() {
    let mut net = Net::new(2, &with(Some("cisco123")));
    net.run(seconds(1));
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(100));
    let (len, _, request) = first(&net, 1, MessageType::ResolutionRequest);
    assert_eq!((len, request.hop_count, kinds(&request)), (88, 255, vec![3, 4, 5, 9, 7]));
    let Body::Exchange { flags, entries, .. } = &request.body else { panic!() };
    assert_eq!((flags.0, entries[0].prefix, entries[0].nbma), (0xc802, 0xff, None));
    let (len, _, passed) = first(&net, 0, MessageType::ResolutionRequest);
    assert_eq!((len, passed.hop_count), (108, 254));

    let mut net = Net::new(2, &with(Some("test123")));
    net.run(seconds(1));
    net.packet(1, host(1, 9), host(2, 9));
    let (len, extensions, indication) = first(&net, 0, MessageType::TrafficIndication);
    assert_eq!((len, extensions, indication.hop_count), (143, 124, 1));
    assert_eq!(indication.destination, Some(host(1, 9).0), "the sender of the packet");
    assert!(
        matches!(indication.body, Body::Traffic { code: 0, packet } if packet == ip_packet(host(1, 9), host(2, 9)))
    );
}
