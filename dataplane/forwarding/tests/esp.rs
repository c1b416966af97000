//! Walks by protected tunnels: what leaves is opened, and what arrives was sealed, by another provider, in every way to protect.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use forwarding::{CaptureOrder, Command, DropReason, Node, Origin, Punt, Tap, TraceOrder};
use lab::esp::*;
use lab::*;
use model::program::{Object, Tunnel};
use model::sa::{Lease, SaMode, Spi};
use wire::buf::TestBuf;
use wire::{esp, ethernet, gre, ipv4, tcp};

/// All there is to say when a way fails.
fn name(guard: &Guard) -> String {
    let Guard { over_v6, tagged, port, mode, esn, key_len } = guard;
    format!("over IPv6 {over_v6}, tag {tagged}, port {port}, {mode} mode, esn {esn}, {key_len} bytes")
}

#[test]
fn what_leaves_by_a_protected_tunnel_is_sealed_in_every_way() {
    for guard in Guard::all() {
        let (mut node, peer) = (guard.hub(&[2]), guard.peer(2));
        let mut number = 0;
        for v6 in [false, true] {
            let (host, remote) = hosts(v6, 2);
            // Each padding, and packets that just fit.
            for len in [0, 1, 2, 3, 64, 700, 1300 - 48] {
                let packet = any_udp(&host, &remote, &vec![7; len]);
                node.receive(1, &guard.under().from_lan(&packet));
                let sent = node.sent(0);
                assert_eq!((sent.len(), node.drops()), (1, vec![]), "{} {v6} {len}", name(&guard));
                number += 1;
                assert_eq!(peer.open(&sent[0]), (number, with_ttl(&packet, 63)), "{} {len}", name(&guard));
                assert!(is_covered(&sent[0]));
            }
        }
        let shown = node.program.node(Node::EspEncrypt).packets;
        assert_eq!(shown, number, "{}", name(&guard));
    }
}

#[test]
fn what_arrives_sealed_goes_on_in_the_clear_in_every_way() {
    for guard in Guard::all() {
        let (mut node, mut peer) = (guard.hub(&[2]), guard.peer(2));
        for v6 in [false, true] {
            let (host, remote) = hosts(v6, 2);
            for len in [0, 1, 2, 3, 64, 700, 1300 - 48] {
                let packet = any_udp(&remote, &host, &vec![7; len]);
                node.receive(0, &peer.seal(&packet));
                let sent = node.sent(1);
                assert_eq!((sent.len(), node.drops()), (1, vec![]), "{} {v6} {len}", name(&guard));
                assert_eq!(open_frame(&sent[0]).1, with_ttl(&packet, 63), "{} {len}", name(&guard));
            }
        }
        assert_eq!(node.program.node(Node::EspDecrypt).packets, 14);
    }
}

#[test]
fn a_hub_relays_from_spoke_to_spoke() {
    for guard in Guard::all() {
        let mut node = guard.hub(&[2, 3]);
        let (mut from, to) = (guard.peer(2), guard.peer(3));
        let burst: Vec<_> =
            (0..100_u8).map(|n| udp("10.1.2.9", "10.1.3.9", &vec![n; usize::from(n) * 9])).collect();
        node.ports.rx[0].extend(burst.iter().map(|packet| TestBuf::new(&from.seal(packet))));
        node.settle();
        let sent = node.sent(0);
        assert_eq!((sent.len(), node.drops()), (100, vec![]), "{}", name(&guard));
        for (at, (frame, packet)) in sent.iter().zip(&burst).enumerate() {
            assert_eq!(to.open(frame), (at as u64 + 1, with_ttl(packet, 63)));
        }
        assert_eq!(node.ports.freed, 0);
    }
}

#[test]
fn marks_go_in_and_out_by_the_outer_header_alone() {
    for guard in [PLAIN, Guard { mode: SaMode::Tunnel, ..PLAIN }, Guard { over_v6: true, ..PLAIN }] {
        let (mut node, mut peer) = (guard.hub(&[2]), guard.peer(2));
        let packet = with_class(&udp("10.1.0.2", "10.1.2.9", b"x"), 0xba);
        node.receive(1, &guard.under().from_lan(&packet));
        let sent = node.sent(0);
        assert_eq!(class_of(&open_frame(&sent[0]).1), 0xba, "DSCP and mark are the inner ones");
        // A router marks the outer packet.
        let packet = with_class(&udp("10.1.2.9", "10.1.0.2", b"x"), 0xba);
        let outer = open_frame(&peer.seal(&packet)).1;
        node.receive(0, &guard.under().from_wan(station(2), &with_class(&outer, 3)));
        assert_eq!(class_of(&open_frame(&node.sent(1)[0]).1), 0xbb);
        assert_eq!(node.drops(), []);
    }
}

#[test]
fn a_syn_asks_for_what_fits_behind_all_headers() {
    let (mut node, mut peer) = (PLAIN.hub(&[2]), PLAIN.peer(2));
    let syn = tcp_packet("10.1.0.2", "10.1.2.9", 2, 1460);
    node.receive(1, &PLAIN.under().from_lan(&syn));
    assert_eq!(mss_of(&peer.open(&node.sent(0)[0]).1), 1300 - 40);
    node.receive(0, &peer.seal(&tcp_packet("10.1.2.9", "10.1.0.2", 2, 1460)));
    assert_eq!(mss_of(&open_frame(&node.sent(1)[0]).1), 1300 - 40);
}

#[test]
fn what_is_too_large_is_cut_before_it_is_sealed() {
    for guard in Guard::all() {
        let (mut node, peer) = (guard.hub(&[2]), guard.peer(2));
        let packet = udp("10.1.0.2", "10.1.2.9", &vec![7; 2000]);
        node.receive(1, &guard.under().from_lan(&packet));
        let sent = node.sent(0);
        assert_eq!((sent.len(), node.drops()), (2, vec![]), "{}", name(&guard));
        let pieces: Vec<_> = sent.iter().map(|frame| peer.open(frame)).collect();
        assert_eq!([pieces[0].0, pieces[1].0], [1, 2]);
        let (first, _) = ipv4::parse(&pieces[0].1).unwrap();
        assert!(first.more_fragments() && pieces[0].1.len() <= 1300);
        assert_eq!(pieces[0].1.len() + pieces[1].1.len(), 2028 + 20);
        // IPv6 is not cut: its sender is told what fits.
        node.receive(1, &guard.under().from_lan(&udp6("fd00:1::2", "fd00:1:2::9", &[7; 1400])));
        assert_eq!(node.dropped(DropReason::TooBig), 1);
    }
}

#[test]
fn ipv6_of_1280_bytes_passes_a_narrow_underlay_in_pieces_of_esp() {
    for over_v6 in [false, true] {
        for (port, mode) in [(0, SaMode::Transport), (0, SaMode::Tunnel), (4500, SaMode::Transport)] {
            let guard = Guard { over_v6, port, mode, ..PLAIN };
            let (mut node, peer) = (guard.hub(&[2]), guard.peer(2));
            let Object::Interface(wan) = interface("wan", "p0", false) else { panic!("an interface") };
            node.put([Object::Interface(model::program::Interface { mtu: 1280, ..wan })]);
            let packet = udp6("fd00:1::2", "fd00:1:2::9", &vec![7; 1280 - 48]);
            node.receive(1, &guard.under().from_lan(&packet));
            let sent = node.sent(0);
            assert_eq!((sent.len(), node.drops()), (2, vec![]), "{}", name(&guard));
            assert!(sent.iter().all(|frame| frame.len() <= 14 + 1280 && is_covered(frame)));
            let outer = join(&sent);
            let (.., esp) = open_outer(&outer, port);
            assert_eq!(peer.open_esp(&esp).1, gre_bytes(Some(42), gre::IPV6, &with_ttl(&packet, 63)));
        }
    }
}

/// The packet whose two fragments these frames are.
fn join(frames: &[Vec<u8>]) -> Vec<u8> {
    let packets: Vec<_> = frames.iter().map(|frame| open_frame(frame).1).collect();
    let mut whole = packets[0].clone();
    if whole[0] >> 4 == 4 {
        whole.extend(&packets[1][20..]);
        let total = (whole.len() as u16).to_be_bytes();
        whole[2..4].copy_from_slice(&total);
        whole[6] &= 0xdf;
        return summed(whole);
    }
    whole[6] = whole[40];
    whole.drain(40..48);
    whole.extend(&packets[1][48..]);
    let payload = (whole.len() as u16 - 40).to_be_bytes();
    whole[4..6].copy_from_slice(&payload);
    whole
}

/// A packet in fragments of at most so many bytes of data.
fn cut(guard: &Guard, packet: &[u8], most: usize) -> Vec<Vec<u8>> {
    let v6 = packet[0] >> 4 == 6;
    let (head, data) = packet.split_at(if v6 { 40 } else { 20 });
    let count = data.len().div_ceil(most);
    let pieces = data.chunks(most).enumerate().map(|(at, chunk)| {
        let more = at + 1 < count;
        let mut piece = head.to_vec();
        if v6 {
            let header = wire::ipv6::Fragment::new(head[6], (at * most) as u16, more, 77);
            piece[6] = wire::ipv6::FRAGMENT;
            piece.extend(wire::IntoBytes::as_bytes(&header));
            piece.extend(chunk);
            let len = (piece.len() as u16 - 40).to_be_bytes();
            piece[4..6].copy_from_slice(&len);
            return guard.under().from_wan(station(2), &piece);
        }
        let offset = (at * most / 8) as u16 | if more { ipv4::MORE_FRAGMENTS } else { 0 };
        piece.extend(chunk);
        let len = (piece.len() as u16).to_be_bytes();
        piece[2..4].copy_from_slice(&len);
        piece[6..8].copy_from_slice(&offset.to_be_bytes());
        guard.under().from_wan(station(2), &summed(piece))
    });
    pieces.collect()
}

#[test]
fn fragments_of_esp_are_put_together_before_they_are_opened() {
    for guard in Guard::all() {
        let (mut node, mut peer) = (guard.hub(&[2]), guard.peer(2));
        let packet = udp("10.1.2.9", "10.1.0.2", &vec![7; 1100]);
        let sealed = open_frame(&peer.seal(&packet)).1;
        let mut pieces = cut(&guard, &sealed, 496);
        assert_eq!(pieces.len(), 3);
        pieces.reverse();
        for piece in &pieces {
            node.ports.rx[0].push_back(TestBuf::with_room(128, piece, 2048));
            node.settle();
        }
        assert_eq!(node.drops(), [], "{}", name(&guard));
        assert_eq!(open_frame(&node.sent(1)[0]).1, with_ttl(&packet, 63), "{}", name(&guard));
    }
}

#[test]
fn ike_and_its_fragments_go_to_the_kernel_as_they_came() {
    for guard in Guard::all().into_iter().filter(|guard| guard.port != 0) {
        let mut node = guard.hub(&[2]);
        let (spoke, hub) = (guard.under().nbma(2), guard.under().nbma(1));
        let wan = node.id("wan");
        let datagram = |port: u16, payload: &[u8]| {
            if guard.over_v6 {
                udp6_ports(&spoke, &hub, (port, port), payload)
            } else {
                udp_ports(&spoke, &hub, (port, port), payload)
            }
        };
        // More than a buffer of ours holds, and more fragments than one walk has places for.
        let marked = [&[0; 4][..], &[9; 4000]].concat();
        for packet in [datagram(500, &[9; 4000]), datagram(4500, &marked), datagram(53, &[9; 900])] {
            let pieces = cut(&guard, &packet, 800);
            pieces.iter().for_each(|piece| node.receive(0, piece));
            let punted = node.punted();
            assert_eq!((punted.len(), node.drops()), (pieces.len(), vec![]), "{}", name(&guard));
            for piece in &pieces {
                let bare = frame(WAN, station(2), ethertype(&open_frame(piece).1), &open_frame(piece).1);
                assert!(punted.contains(&(Punt::Host(wan), bare)), "{}", name(&guard));
            }
        }
        for packet in [datagram(500, b"ike"), datagram(4500, &[0, 0, 0, 0, 1]), datagram(4500, b"no")] {
            node.receive(0, &guard.under().from_wan(station(2), &packet));
            assert_eq!(node.punted().len(), 1, "{}", name(&guard));
        }
        node.receive(0, &guard.under().from_wan(station(2), &datagram(4500, &[0xff])));
        assert_eq!(node.drops(), [(DropReason::NatKeepalive, 1)]);
        assert_eq!(node.punted(), []);
    }
}

/// What a spoke puts into ESP: a text without its trailer, the next header, and how much more padding (times four bytes) than there has to be.
type Sealed = (u8, Vec<u8>, u8, usize);

/// What comes by SAs of two spokes, for two tunnels: what is most beside what is not.
fn sealed_kinds() -> Vec<Sealed> {
    let in_gre = |key, packet: &[u8]| gre_bytes(key, ethertype(packet), packet);
    let to = |destination: &str, len: usize| udp("10.1.2.9", destination, &vec![8; len]);
    let to_lan = in_gre(Some(42), &to("10.1.0.2", 40));
    let mut too_long = in_gre(Some(42), &to("10.1.0.2", 40));
    too_long.truncate(60);
    let texts = [
        (in_gre(Some(42), &to("10.1.0.2", 41)), ipv4::GRE, 0),
        (in_gre(Some(42), &to("10.1.0.2", 42)), ipv4::GRE, 1),
        (to_lan.clone(), ipv4::GRE, 9),
        ([&to_lan[..], &[9; 50]].concat(), ipv4::GRE, 0),
        (too_long, ipv4::GRE, 1),
        (in_gre(Some(42), &to("10.1.3.9", 300)), ipv4::GRE, 0),
        (in_gre(Some(42), &with_ttl(&to("10.1.0.2", 9), 1)), ipv4::GRE, 0),
        (in_gre(Some(42), &tcp_packet("10.1.2.9", "10.1.0.2", tcp::SYN, 9000)), ipv4::GRE, 0),
        (in_gre(Some(42), &udp6("fd00:1:2::9", "fd00:1:0::2", &[8; 40])), ipv4::GRE, 0),
        (in_gre(Some(42), &to("10.1.0.1", 9)), ipv4::GRE, 0),
        (in_gre(Some(43), &to("10.1.0.2", 43)), ipv4::GRE, 0),
        (in_gre(Some(44), &to("10.1.0.2", 44)), ipv4::GRE, 0),
        (in_gre(None, &to("10.1.0.2", 45)), ipv4::GRE, 0),
        (gre_bytes(Some(42), gre::NHRP, &[1; 60]), ipv4::GRE, 0),
        (to("10.1.0.2", 46), esp::IPV4, 0),
        (vec![0; 60], esp::NO_NEXT_HEADER, 0),
        (vec![], ipv4::GRE, 0),
    ];
    (2..4).flat_map(|spoke| texts.clone().map(|(text, next, more)| (spoke, text, next, more))).collect()
}

/// What left by the LAN and sealed, in order of bytes and without ICMP errors, which are limited in number; what was punted; drops.
type Gone = (Vec<Vec<u8>>, Vec<Vec<u8>>, usize, Vec<(DropReason, u64)>);

/// Opens them, so many in a burst; `seen`: while somebody captures at nodes.
fn opened(together: usize, seen: bool) -> Gone {
    let mut node = PLAIN.hub(&[2, 3]);
    if seen {
        let order = CaptureOrder { at: Tap::Node(Node::Punt), packets: 0, snap: 1, only: None };
        node.ports.commands.push_back(Command::Capture(Some(order)));
    }
    let second = Tunnel {
        protection: Some("guard".parse().unwrap()),
        mtu: 1300,
        ..tunnel("tun2", &PLAIN.under().nbma(1), "wan", Some(43))
    };
    node.put([Object::Tunnel(second)]);
    node.settle();
    let mut peers = [PLAIN.peer(2), PLAIN.peer(3)];
    let kinds = sealed_kinds();
    let pairs = kinds.iter().flat_map(|one| kinds.iter().flat_map(move |other| [one, other]));
    let runs = kinds.iter().flat_map(|one| std::iter::repeat_n(one, 40));
    let mut frames = Vec::new();
    for (at, (spoke, text, next, more)) in pairs.chain(runs).enumerate() {
        let peer = &mut peers[usize::from(spoke - 2)];
        peer.sequence += if at % 50 == 9 { 3 } else { 1 };
        let sealed = peer.seal_text(peer.sequence, text, *next, *more);
        // Some are marked on their way, some are changed, some come twice, some in another order.
        let marked = with_class(&sealed[ethernet::LEN..], 3);
        frames.push(match at % 23 {
            7 => PLAIN.under().from_wan(station(*spoke), &marked),
            11 => sealed.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 60)).collect(),
            _ => sealed,
        });
        match at % 31 {
            3 => frames.push(frames[frames.len() - 1].clone()),
            17 => frames.swap(at / 2, at / 2 + 1),
            _ => {}
        }
    }
    let (mut to_lan, mut to_spokes, mut punted) = (Vec::new(), Vec::new(), 0);
    for frames in frames.chunks(together) {
        node.ports.rx[0].extend(frames.iter().map(|frame| TestBuf::new(frame)));
        node.settle();
        to_lan.extend(node.sent(1));
        to_spokes.extend(node.sent(0).iter().map(|frame| peers[usize::from(frame[33] - 2)].open(frame).1));
        punted += node.punted().len();
    }
    to_lan.retain(|frame| frame.get(23) != Some(&ipv4::ICMP));
    to_spokes.retain(|packet| packet.get(9) != Some(&ipv4::ICMP));
    to_lan.sort();
    to_spokes.sort();
    (to_lan, to_spokes, punted, node.drops())
}

#[test]
fn what_is_opened_together_goes_on_as_what_is_opened_alone() {
    let alone = opened(1, true);
    assert!(alone.0.len() > 1000 && alone.1.len() > 100 && alone.2 > 100);
    assert!(alone.3.len() >= 7, "{:?}", alone.3);
    for (together, seen) in
        [(1, false), (2, false), (15, false), (16, false), (17, false), (100, false), (100, true)]
    {
        assert!(opened(together, seen) == alone, "{together} at once, {seen}");
    }
}

#[test]
fn two_copies_in_one_burst_are_one() {
    let (mut node, mut peer) = (PLAIN.hub(&[2]), PLAIN.peer(2));
    let sealed = peer.seal(&udp("10.1.2.9", "10.1.0.2", b"x"));
    node.ports.rx[0].extend((0..5).map(|_| TestBuf::new(&sealed)));
    node.settle();
    assert_eq!((node.sent(1).len(), node.drops()), (1, vec![(DropReason::Replayed, 4)]));
    node.receive(0, &sealed);
    assert_eq!((node.sent(1).len(), node.drops()), (0, vec![(DropReason::Replayed, 5)]));
}

#[test]
fn numbers_go_over_the_end_of_their_low_half_with_esn_and_end_there_without() {
    for esn in [true, false] {
        let guard = Guard { esn, ..PLAIN };
        let mut node = guard.bare_hub(|_| {});
        let mut outbound = guard.outbound(2, out_spi(2));
        let last = if esn { u64::MAX >> 8 } else { u64::from(u32::MAX) };
        outbound.lease = Lease { first: u64::from(u32::MAX) - 1, last };
        node.put([Object::InboundSa(guard.inbound(2, in_spi(2))), Object::OutboundSa(outbound)]);
        node.put(guard.spoke(2));
        node.settle();
        let mut peer = guard.peer(2);
        for n in 0..4 {
            node.receive(1, &guard.under().from_lan(&udp("10.1.0.2", "10.1.2.9", &[n])));
        }
        let numbers: Vec<u64> = node.sent(0).iter().map(|frame| peer.open(frame).0).collect();
        let first = u64::from(u32::MAX) - 1;
        if esn {
            assert_eq!(numbers, [first, first + 1, first + 2, first + 3]);
            assert_eq!(node.drops(), []);
        } else {
            assert_eq!(numbers, [first, first + 1]);
            assert_eq!(node.drops(), [(DropReason::SequenceOverflow, 2)]);
        }
        // The other way: to the end of the low half in jumps of less than half of it, and over.
        let numbers = [1, 1 << 31, (1 << 32) - 3, (1 << 32) - 1, (1 << 32) + 2, (1 << 32) - 2, (1 << 32) + 2];
        for number in numbers {
            peer.sequence = number - 1;
            node.receive(0, &peer.seal(&udp("10.1.2.9", "10.1.0.2", b"x")));
        }
        // Without ESN 2 to the 32 and 2 is 2 again, and long gone.
        assert_eq!(node.sent(1).len(), if esn { 6 } else { 5 });
        assert_eq!(node.dropped(DropReason::Replayed), if esn { 1 } else { 2 });
    }
}

#[test]
fn a_new_sa_takes_over_between_two_packets_and_the_old_one_is_still_heard() {
    let mut node = PLAIN.hub(&[2]);
    let mut old = PLAIN.peer(2);
    let packet = |n| udp("10.1.0.2", "10.1.2.9", &[n]);
    let back = |n| udp("10.1.2.9", "10.1.0.2", &[n]);
    // Up to four inbound SAs of a child at once.
    let spis: Vec<Spi> = (0..3).map(|n| Spi::of(0, 100 + n, 9).unwrap()).collect();
    node.put(spis.iter().map(|spi| Object::InboundSa(PLAIN.inbound(2, *spi))));
    node.settle();
    let new_out = Spi::new(0x7777_0000).unwrap();
    let mut peers: Vec<Peer> = spis.iter().map(|spi| Peer::new(PLAIN, 2, *spi, new_out)).collect();
    node.receive(0, &old.seal(&back(0)));
    for (at, peer) in peers.iter_mut().enumerate() {
        node.receive(0, &peer.seal(&back(at as u8)));
    }
    assert_eq!((node.sent(1).len(), node.drops()), (4, vec![]));
    node.receive(1, &PLAIN.under().from_lan(&packet(1)));
    node.put([Object::OutboundSa(PLAIN.outbound(2, new_out))]);
    node.receive(1, &PLAIN.under().from_lan(&packet(2)));
    node.settle();
    let sent = node.sent(0);
    assert_eq!((sent.len(), node.drops()), (2, vec![]));
    assert_eq!(old.open(&sent[0]), (1, with_ttl(&packet(1), 63)));
    assert_eq!(peers[0].open(&sent[1]), (1, with_ttl(&packet(2), 63)));
    // The old inbound SA goes, and only that.
    node.receive(0, &old.seal(&back(5)));
    node.remove(&Object::InboundSa(PLAIN.inbound(2, in_spi(2))));
    node.settle();
    node.receive(0, &old.seal(&back(6)));
    node.receive(0, &peers[2].seal(&back(7)));
    assert_eq!((node.sent(1).len(), node.drops()), (2, vec![(DropReason::NoSa, 1)]));
}

#[test]
fn the_control_plane_s_packets_are_sealed_whoever_is_bound() {
    for guard in Guard::all() {
        let mut node = guard.bare_hub(|_| {});
        let tun = node.id("tun");
        let origin = Origin::Control {
            tunnel: tun,
            destination: guard.nbma(2).0,
            port: guard.port,
            protocol_type: gre::NHRP,
        };
        // No SA: nothing leaves.
        node.inject(origin, b"reply");
        assert_eq!((node.sent(0), node.drops()), (vec![], vec![(DropReason::NoOutboundSa, 1)]));
        // An SA and nobody bound: by the routes of the underlay.
        node.put(guard.sas(2));
        node.put([neighbour("wan", &guard.under().nbma(2), station(2))]);
        node.settle();
        let (peer, mut numbers) = (guard.peer(2), Vec::new());
        node.inject(origin, b"reply");
        // Bound: by the link of the binding.
        node.put(guard.spoke(2));
        node.inject(origin, b"reply");
        for frame in node.sent(0) {
            let (number, gre) = peer.open_gre(&frame);
            assert_eq!(gre, gre_bytes(Some(42), gre::NHRP, b"reply"), "{}", name(&guard));
            assert_eq!(class_of(&open_frame(&frame).1), ipv4::CS6);
            numbers.push(number);
        }
        assert_eq!(numbers, [1, 2], "{}", name(&guard));
        // And what the peer says to it, with where it came from.
        node.receive(0, &peer.seal_gre(1, &gre_bytes(Some(42), gre::NHRP, b"request")));
        let [(Punt::Control { source, destination, port, spi, tunnel, .. }, bytes)] = &node.punted()[..]
        else {
            panic!("{}", name(&guard))
        };
        assert_eq!((*source, *destination), (guard.nbma(2).0, guard.nbma(1).0));
        assert_eq!((*port, *spi, *tunnel), (guard.port, in_spi(2).value(), tun));
        assert_eq!(bytes, b"request");
        assert_eq!(node.dropped(DropReason::NoOutboundSa), 1);
    }
}

#[test]
fn multicast_is_sealed_for_each_receiver() {
    for guard in Guard::all() {
        let mut node = guard.hub(&[2, 3]);
        let link = |spoke| Some(hop("wan", &guard.under().nbma(spoke)));
        let receivers =
            [2, 3, 4].map(|spoke| match replica("tun", &guard.under().nbma(spoke), link(spoke)) {
                Object::Replica(replica) => {
                    Object::Replica(model::program::Replica { port: guard.port, ..replica })
                }
                other => other,
            });
        node.put(receivers);
        let hello = ip("10.0.0.1", "224.0.0.5", 89, b"hello");
        let twin = Origin::Twin(node.id("tun"));
        node.inject(twin, &hello);
        let sent = node.sent(0);
        assert_eq!(sent.len(), 2, "{}", name(&guard));
        for (frame, spoke) in sent.iter().zip([2, 3]) {
            assert_eq!(guard.peer(spoke).open(frame), (1, hello.clone()));
        }
        // The third has no SA.
        assert_eq!(node.drops(), [(DropReason::NoOutboundSa, 1)]);
    }
}

#[test]
fn a_trace_shows_a_packet_before_and_after() {
    let (mut node, mut peer) = (PLAIN.hub(&[2, 3]), PLAIN.peer(2));
    node.ports.commands.push_back(Command::Trace(TraceOrder { packets: 1, only: None }));
    let packet = udp("10.1.2.9", "10.1.3.9", b"clear");
    let sealed = peer.seal(&packet);
    node.receive(0, &sealed);
    let steps = node.worker.take_trace();
    let nodes: Vec<Node> = steps.iter().map(|step| step.node).collect();
    use Node::*;
    assert_eq!(nodes, [Rx, Classify, EspDecrypt, GreDecap, IpLookup, Midchain, EspEncrypt, Tx]);
    let at = |node: Node| steps.iter().find(|step| step.node == node).unwrap();
    assert_eq!(at(EspDecrypt).bytes, sealed[..96]);
    let clear = b"clear";
    let shows = |node| at(node).bytes.windows(clear.len()).any(|bytes| bytes == clear);
    assert!(!shows(EspDecrypt) && shows(GreDecap) && !shows(Tx));
    assert_eq!(at(EspDecrypt).destination, None);
    let first = esp::parse(&at(Tx).bytes[34..]).unwrap().0.spi();
    assert_eq!(first, out_spi(3).value());
}
