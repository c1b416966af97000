//! What net_tap says of the checksums of IPv4 headers, which arrive as a net_af_packet port on the same interface sends them. Needs
//! CAP_NET_ADMIN, CAP_NET_RAW and /dev/net/tun. One test: the EAL starts once per process.

#![allow(clippy::unwrap_used, clippy::panic)]

use dpdk::{Eal, EalArgs, Memory, Mempool, MempoolConfig, Offloading, Opened, Port, PortConfig, free_bulk};
use nix::sched::{CloneFlags, unshare};
use std::process::Command;
use std::time::{Duration, Instant};
use wire::buf::PacketBuf;
use wire::{IntoBytes, ethernet, ipv4};

fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [ethernet::Header::new([2; 6], [4; 6], ethertype).as_bytes(), payload].concat()
}

/// An IPv4 packet with its checksum off by so much.
fn packet(protocol: u8, off: u16, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let header = ipv4::Header::new(from, to, protocol, 64, payload.len()).unwrap();
    let mut bytes = [header.as_bytes(), payload].concat();
    let sum = u16::from_be_bytes([bytes[10], bytes[11]]).wrapping_add(off);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    frame(ethernet::IPV4, &bytes)
}

/// Sends frames by one port; what the other, on the same interface, says of each.
fn say(pool: Mempool, by: &mut Opened, to: &mut Opened, frames: &[Vec<u8>]) -> Vec<bool> {
    let (until, mut said) = (Instant::now() + Duration::from_secs(5), vec![None; frames.len()]);
    // More than once: the sender's socket, bound before the interface was up, first says so.
    while said.contains(&None) {
        assert!(Instant::now() < until, "what arrived is {said:?}");
        let mut burst: Vec<_> = frames.iter().map(|frame| pool.alloc_copy(frame).unwrap()).collect();
        by.tx[0].burst(&mut burst);
        for queue in &mut to.rx {
            queue.burst(&mut burst, 32);
        }
        for packet in &burst {
            if let Some(at) = frames.iter().position(|frame| packet.bytes() == frame) {
                said[at] = Some(packet.is_ipv4_summed());
            }
        }
        free_bulk(&mut burst);
        std::thread::sleep(Duration::from_millis(1));
    }
    said.into_iter().flatten().collect()
}

/// Input: right and wrong headers of UDP and ESP, GRE with a right inner header and a wrong outer one. Output: of a port that is to use all
/// offloads, right ones only are said to be right, and of what is a tunnel, of which a card may have seen the inner header, nothing is said.
/// Of a port that is to use free ones nothing is said, for this driver sums in software.
#[test]
fn headers_that_a_port_found_right() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let vdevs = [
        "net_tap0,iface=sum-free",
        "net_tap1,iface=sum-all",
        "net_tap2,iface=sum-none",
        "net_af_packet0,iface=sum-free",
        "net_af_packet1,iface=sum-all",
        "net_af_packet2,iface=sum-none",
    ];
    let args = EalArgs {
        memory: Memory::NoHuge { mb: 256 },
        vdevs: vdevs.map(str::to_owned).to_vec(),
        ..EalArgs::default()
    };
    let eal = Eal::start(&args).unwrap();
    let config = MempoolConfig { name: "sums", count: 16_383, ..MempoolConfig::default() };
    let pool = Mempool::create(&eal, &config).unwrap();

    let inner = packet(ipv4::UDP, 0, &[0; 30]);
    let gre = [&[0, 0, 8, 0][..], &inner[ethernet::LEN..]].concat();
    let frames = [
        packet(ipv4::UDP, 0, &[9; 30]),
        packet(ipv4::UDP, 1, &[9; 30]),
        packet(ipv4::ESP, 0, &[9; 60]),
        packet(ipv4::ESP, 0x100, &[9; 60]),
        packet(ipv4::GRE, 1, &gre),
        packet(ipv4::GRE, 0, &gre),
        frame(ethernet::IPV6, &[0x60; 60]),
    ];
    for (index, (name, offloading, said)) in [
        ("sum-free", Offloading::Free, [false; 7]),
        ("sum-all", Offloading::All, [true, false, true, false, false, false, false]),
        ("sum-none", Offloading::None, [false; 7]),
    ]
    .into_iter()
    .enumerate()
    {
        let config = PortConfig { offloading, rx_queues: 2, tx_queues: 2, ..PortConfig::new(pool) };
        let mut tap = Port::open(&eal, &format!("net_tap{index}"), &config).unwrap();
        let used = tap.port.used();
        assert!(tap.port.offloads().rx_ipv4_checksum && tap.port.offloads().rss);
        assert_eq!((used.rx_ipv4_checksum, used.rx_scatter), (offloading == Offloading::All, false));
        let queues = if offloading == Offloading::None { 1 } else { 2 };
        assert_eq!((used.rss, tap.rx.len(), tap.tx.len()), (queues > 1, queues, queues));
        let up =
            Command::new("ip").args(["link", "set", name, "addrgenmode", "none", "up"]).status().unwrap();
        assert!(up.success());
        let config = PortConfig { promiscuous: true, ..PortConfig::new(pool) };
        let mut packets = Port::open(&eal, &format!("net_af_packet{index}"), &config).unwrap();
        assert_eq!(say(pool, &mut packets, &mut tap, &frames), said, "{name}");
    }
}
