//! Peers of protected tunnels that clear GRE serves worse: receivers of multicast, each with its own SA, and spokes that share an
//! address, told apart by their UDP ports.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use tests::capture::{self, Capture};
use tests::census::{Kind, Lookout};
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::keys::Pair;
use tests::traffic::{PLANTED, Stream};
use tests::translator::Translation;
use tests::{esp, lock, wait};

/// A group that stays on its link.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 99);

/// Input: datagrams of many sizes to a group on the hub's tunnel. Output: each spoke has each of them once; on the underlay each copy is
/// sealed by its receiver's SA, and opens to the same bytes.
#[test]
fn each_receiver_of_multicast_gets_a_copy_of_its_own() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    cloud.protect().unwrap();
    let lookout = Lookout::start(&cloud).unwrap();
    cloud.start().unwrap();

    let listeners = [SPOKE1, SPOKE2].map(|spoke| {
        let node = &cloud.nodes[spoke];
        let socket = node.namespace.run(|| UdpSocket::bind((GROUP, 7600))).unwrap().unwrap();
        node.namespace.run(|| socket.join_multicast_v4(&GROUP, &node.tunnel)).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        socket
    });
    let hub = &cloud.nodes[HUB];
    let sender = hub.namespace.run(|| UdpSocket::bind((hub.tunnel, 7600))).unwrap().unwrap();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let sizes: Vec<usize> = (1..=64).chain([200, 700, 1000, 1300, 1372]).collect();
    let datagram = |size: usize| PLANTED.iter().cycle().copied().take(size).collect::<Vec<_>>();
    for &size in &sizes {
        sender.send_to(&datagram(size), (GROUP, 7600)).unwrap();
        for listener in &listeners {
            let mut buffer = [0; 2048];
            let (length, from) = listener.recv_from(&mut buffer).unwrap_or_else(|e| {
                panic!("{size} bytes: {e}\n{}{}", hub.nave("show drops").unwrap(), cloud.logs())
            });
            assert!(buffer[..length] == datagram(size), "{length} bytes of {size}");
            assert_eq!(from.ip(), IpAddr::from(hub.tunnel));
        }
    }
    let frames = capture.finish().unwrap();
    let mut copies: BTreeMap<IpAddr, Vec<Vec<u8>>> = BTreeMap::new();
    let group = GROUP.octets();
    for frame in &frames {
        let Some(esp) = esp::packet(frame) else { continue };
        let (_, gre) = cloud.keys().sa(esp.spi).unwrap().open(&esp).unwrap();
        if gre[8..].get(16..20) == Some(&group) {
            copies.entry(esp.destination).or_default().push(gre);
        }
    }
    let [one, two] = [SPOKE1, SPOKE2].map(|spoke| &copies[&IpAddr::from(cloud.nodes[spoke].nbma)]);
    assert_eq!((one.len(), one), (sizes.len(), two));
    // The command of the operator says so too.
    let [table, file] = ["esp_sa", "copies.pcap"].map(|name| cloud.directory().join(name));
    fs::write(&table, cloud.keys().table()).unwrap();
    capture::save(&file, &frames).unwrap();
    let (table, file) = (table.display(), file.display());
    hub.nave(&format!("decode --check --esp-sa {table} {file}")).unwrap();
    cloud.stop().unwrap();
    lookout.finish().unwrap().check().unwrap();
}

/// Where the box is, and what it makes of port 4500 of those behind it.
const OUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 70);
const PORTS: [u16; 2] = [40_011, 40_012];

/// Input: two spokes behind one outer address, with ESP in UDP; the box gives each a port of its own. Output: both are registered at that
/// address, both are reached at once and lose nothing, and so do they from each other.
#[test]
fn two_spokes_behind_one_address_are_both_served_in_udp() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let inner = [11, 12].map(|number| Ipv4Addr::new(10, 0, 0, number));
    let ports = inner.into_iter().zip(PORTS).collect();
    let _nat = cloud.put_behind_translator(&[SPOKE1, SPOKE2], Translation::Ports(OUTER, ports)).unwrap();
    let hub = IpAddr::from(cloud.nodes[HUB].nbma);
    for ((spoke, port), slot) in [SPOKE1, SPOKE2].into_iter().zip(PORTS).zip([1, 3]) {
        let mut pair = Pair::new([hub, OUTER.into()], [slot, slot + 1]).unwrap();
        pair.ports = [esp::NAT_PORT, port];
        cloud.give(&pair, [HUB, spoke]).unwrap();
    }
    for node in &mut cloud.nodes {
        node.statics().unwrap();
        node.protect().unwrap();
    }
    let lookout = Lookout::start(&cloud).unwrap();
    cloud.start().unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
    for spoke in [SPOKE1, SPOKE2] {
        let entry = cloud.nodes[HUB].entry_of(cloud.nodes[spoke].tunnel).unwrap().unwrap();
        let claimed = cloud.nodes[spoke].nbma.to_string();
        assert_eq!((&entry["nbma"], &entry["claimed_nbma"]), (&OUTER.to_string().into(), &claimed.into()));
    }
    let ways =
        [(HUB, SPOKE1), (HUB, SPOKE2), (SPOKE1, HUB), (SPOKE2, HUB), (SPOKE1, SPOKE2), (SPOKE2, SPOKE1)];
    for (from, to) in ways {
        let to = cloud.nodes[to].host.address();
        wait::until_true("a ping", Duration::from_secs(10), || cloud.pings(from, to).unwrap())
            .unwrap_or_else(|e| panic!("{e:#}: {from} → {to}\n{}", cloud.logs()));
    }
    let flow = |((from, to), port)| Stream::start(cloud.flow(from, to, port, 200)).unwrap();
    let streams: Vec<_> = ways.into_iter().zip(7700..).map(flow).collect();
    std::thread::sleep(Duration::from_secs(2));
    streams.iter().for_each(Stream::stop);
    for stream in streams {
        let tally = stream.finish().unwrap();
        assert!(tally.is_whole(), "{tally}\n{}", cloud.logs());
    }
    // One leaves, and the other does not notice.
    cloud.nodes[SPOKE1].stop().unwrap();
    assert!(cloud.pings(HUB, cloud.nodes[SPOKE2].host.address()).unwrap());
    cloud.check_alive().unwrap();
    cloud.stop().unwrap();
    // The capture is of both sides of the box: each packet that passed it is there twice.
    let census = lookout.finish().unwrap();
    assert!(census.is_sealed() && census.count(Kind::Esp) == 0, "{census}");
}
