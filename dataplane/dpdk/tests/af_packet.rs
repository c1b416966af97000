//! net_af_packet on one end of a veth pair: the kernel talks to a port over an interface that outlives the process.
//! Needs CAP_NET_ADMIN and CAP_NET_RAW. One test: the EAL starts once per process.
#![allow(clippy::unwrap_used, clippy::panic)]

use dpdk::{Eal, EalArgs, Memory, Mempool, MempoolConfig, Port, PortConfig, free_bulk};
use nix::sched::{CloneFlags, unshare};
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};
use wire::buf::PacketBuf;

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn af_packet_ports() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for command in [
        "link add near address 02:00:00:00:00:01 type veth peer name far address 02:00:00:00:00:02",
        "link set near up",
        "link set far up",
        "addr add 192.0.2.1/24 dev far",
        "neigh add 192.0.2.2 lladdr 02:00:00:00:00:01 dev far",
    ] {
        ip(command);
    }
    let args = EalArgs {
        memory: Memory::NoHuge { mb: 128 },
        vdevs: vec!["net_af_packet0,iface=near,qdisc_bypass=1".into()],
        ..EalArgs::default()
    };
    let eal = Eal::start(&args).unwrap();
    let config = MempoolConfig { name: "veth", count: 8191, ..MempoolConfig::default() };
    let pool = Mempool::create(&eal, &config).unwrap();
    let config = PortConfig { promiscuous: true, ..PortConfig::new(pool) };
    let mut opened = Port::open(&eal, "net_af_packet0", &config).unwrap();
    assert_eq!((opened.port.driver(), opened.port.mtu()), ("net_af_packet", Ok(1500)));
    assert_eq!(opened.port.mac(), Ok([2, 0, 0, 0, 0, 1]));
    assert!(opened.port.link().unwrap().up);

    let socket = UdpSocket::bind("192.0.2.1:4000").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // As long as a frame of MTU 1,500 can be: 14 + 20 + 8 + 1472 bytes.
    let sent: Vec<u8> = (0..1472_u16).map(|byte| byte as u8).collect();
    socket.send_to(&sent, "192.0.2.2:4000").unwrap();
    let (until, mut burst) = (Instant::now() + Duration::from_secs(5), Vec::with_capacity(32));
    let mut packet = loop {
        opened.rx[0].burst(&mut burst, 32);
        let found = burst.iter().position(|packet| packet.len() == 1514);
        let found = found.map(|place| burst.swap_remove(place));
        free_bulk(&mut burst);
        match found {
            Some(packet) => break packet,
            None => assert!(Instant::now() < until, "the datagram did not arrive"),
        }
    };
    assert_eq!((packet.segments(), packet.headroom(), &packet.bytes()[42..]), (1, 128, &sent[..]));
    let frame = packet.bytes_mut();
    let (left, right) = frame[..12].split_at_mut(6);
    left.swap_with_slice(right);
    let (left, right) = frame[26..34].split_at_mut(4);
    left.swap_with_slice(right);
    // The kernel leaves the UDP checksum to the card, which a veth is not; zero is none (RFC 768).
    frame[40..42].fill(0);
    burst.push(packet);
    assert_eq!((opened.tx[0].burst(&mut burst), burst.len()), (1, 0));
    let mut answer = [0; 2000];
    let (length, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!((&answer[..length], from.to_string()), (&sent[..], "192.0.2.2:4000".to_owned()));
    assert!(opened.port.stats().unwrap().tx_packets >= 1);
    opened.port.close(opened.rx, opened.tx).unwrap();
    assert_eq!(pool.in_use(), 0);
}
