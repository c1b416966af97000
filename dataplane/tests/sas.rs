//! SAs in the real process, told over gRPC: an ack means that workers have them, whatever their number; packets go to the worker that has
//! their SA.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aead::{Key, Packet, Provider, open_one, seal_one};
use common::{Running, interface, name, receive};
use futures::StreamExt;
use model::observe::TraceRequest;
use model::program::{
    Ack, Batch, Binding, Hop, InboundSa, Neighbour, Object, Op, OutboundSa, OuterDf, Owner,
    Path as RoutePath, Route, TcpMss, Tunnel, TunnelMode,
};
use model::sa::{Lease, Lifetimes, Protection, SaKey, SaMode, Spi};
use model::state::adjacency::AdjacencyKind;
use model::state::{Show, State, What};
use model::{Epoch, Mac, NbmaAddr, ProtocolAddr, TableId, WorkerId};
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use proto::client::Dataplane;
use proto::{Hello, Open, Stream};
use tokio::sync::mpsc;
use zerocopy::IntoBytes;

/// Our NBMA address, and the gateway that all peers are behind.
const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 9]);
/// Last sequence number of leases.
const LEASED: u64 = 1 << 30;

/// A control plane of a few words.
struct Programmer {
    client: Dataplane,
    batches: mpsc::Sender<Batch>,
    acks: Stream<Ack, proto::client::Error>,
    number: u64,
}

impl Programmer {
    async fn of(running: &Running) -> Self {
        let client = Dataplane::at(&running.socket);
        let greeting = client.hello(Hello { epoch: Epoch(1), name: "test".to_owned() }).await.unwrap();
        let (batches, receiver) = mpsc::channel(8);
        let acks =
            client.program(Open { instance: greeting.instance, epoch: Epoch(1) }, receiver).await.unwrap();
        Self { client, batches, acks, number: 0 }
    }

    /// One batch, until it is acknowledged.
    async fn say(&mut self, ops: Vec<Op>) {
        self.number += 1;
        self.batches.send(Batch { number: self.number, ops }).await.unwrap();
        let ack = self.acks.next().await.unwrap().unwrap();
        assert_eq!((ack.number, ack.result), (self.number, Ok(())));
    }

    async fn show(&self, what: What) -> State {
        self.client.show(Show::from(what)).await.unwrap()
    }
}

fn put(object: Object) -> Op {
    Op::Put(Owner::Config, object)
}

fn gateway() -> Hop {
    Hop { interface: name("wan0"), next_hop: "192.0.2.9".parse().unwrap() }
}

/// A protected tunnel from [`LOCAL`], and a LAN.
fn hub() -> Vec<Op> {
    let tunnel = Tunnel {
        name: name("tunnel0"),
        mode: TunnelMode::Multipoint,
        source: NbmaAddr(LOCAL.into()),
        source_interface: name("wan0"),
        key: None,
        mtu: 1400,
        ttl: 64,
        network_id: 1,
        redirect: false,
        table: TableId::default(),
        underlay_table: TableId::default(),
        outer_df: OuterDf::default(),
        tcp_mss: TcpMss::default(),
        protection: Some("guard".parse().unwrap()),
        netns: None,
    };
    vec![
        interface("wan0", "wan"),
        interface("lan0", "lan"),
        receive("192.0.2.1/32", "wan0"),
        put(Object::Neighbour(Neighbour { hop: gateway(), mac: GATEWAY })),
        put(Object::Tunnel(tunnel)),
    ]
}

/// A peer by its number.
#[derive(Clone, Copy)]
struct Peer(u32);

impl Peer {
    /// 198.18.0.0 and up, and behind it 10.32.0.0 and up.
    fn nbma(self) -> NbmaAddr {
        NbmaAddr(Ipv4Addr::from_bits(0xc612_0000 + self.0).into())
    }

    fn overlay(self) -> IpAddr {
        Ipv4Addr::from_bits(0x0a20_0000 + self.0).into()
    }

    fn protection(self) -> Protection {
        let profile = "guard".parse().unwrap();
        Protection {
            profile,
            table: TableId::default(),
            local: NbmaAddr(LOCAL.into()),
            remote: self.nbma(),
            port: 0,
        }
    }

    fn key(self, salt: u8) -> SaKey {
        let mut keymat = [salt; 20];
        keymat[..4].copy_from_slice(&self.0.to_be_bytes());
        SaKey::new(&keymat).unwrap()
    }

    fn of_ours(self, worker: u16) -> Spi {
        Spi::of(worker, self.0, 7).unwrap()
    }

    fn of_peer(self) -> Spi {
        Spi::new(0xabc0_0000 + self.0).unwrap()
    }

    /// Its binding and its SAs, which a worker has.
    fn ops(self, worker: u16) -> [Op; 3] {
        let binding = Binding {
            tunnel: name("tunnel0"),
            next_hop: ProtocolAddr(self.overlay()),
            nbma: self.nbma(),
            port: 0,
            link: Some(gateway()),
            expires_in: None,
        };
        let inbound = InboundSa {
            spi: self.of_ours(worker),
            protection: self.protection(),
            mode: SaMode::Transport,
            key: self.key(1),
            esn: false,
            window: 64,
            lifetimes: Lifetimes::default(),
        };
        let outbound = OutboundSa {
            protection: self.protection(),
            worker: WorkerId(worker),
            spi: self.of_peer(),
            mode: SaMode::Transport,
            key: self.key(2),
            esn: false,
            lease: Lease { first: 1, last: LEASED },
            lifetimes: Lifetimes::default(),
        };
        [Object::Binding(binding), Object::InboundSa(inbound), Object::OutboundSa(outbound)].map(put)
    }
}

fn needs_two_cores() {
    assert!(std::thread::available_parallelism().unwrap().get() >= 2, "this test needs two cores");
}

/// Adjacencies that are sealed, and those that are not for want of an SA.
async fn sealed(programmer: &Programmer) -> (usize, usize) {
    let State::Adjacency(all) = programmer.show(What::Adjacency).await else { panic!("adjacencies") };
    let count = |kind| all.0.iter().filter(|adjacency| adjacency.kind == kind).count();
    (count(AdjacencyKind::Midchain), count(AdjacencyKind::Unprotected))
}

/// Input: 10,000 peers with an SA each way, on two workers that sleep when they have nothing to do, in batches of 1,024 steps; then 3,000 more in one
/// batch, more than workers' queues have room for. Output: with each ack packets to all peers so far are sealed, and it does not take
/// long. Then all SAs go in one batch, and nothing is sealed.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_ack_means_that_workers_have_the_sas() {
    needs_two_cores();
    let running = Running::start("sas", "0,1");
    let mut programmer = Programmer::of(&running).await;
    programmer.say(hub()).await;
    let ops = |range: std::ops::Range<u32>| -> Vec<Op> {
        range.flat_map(|number| Peer(number).ops((number % 2) as u16)).collect()
    };
    let begun = Instant::now();
    for batch in ops(1..10_001).chunks(1024) {
        programmer.say(batch.to_vec()).await;
    }
    let took = begun.elapsed();
    eprintln!("10,000 peers, 20,000 SAs in batches of 1,024 steps: {took:?}");
    assert_eq!(sealed(&programmer).await, (10_000, 0));
    // It is 8 ms of a processor's time for each batch; the bound is for machines that do other things, too.
    assert!(took < Duration::from_secs(20), "{took:?}");

    let begun = Instant::now();
    programmer.say(ops(10_001..13_001)).await;
    let after_ack = sealed(&programmer).await;
    eprintln!("3,000 peers in one batch: {:?}", begun.elapsed());
    assert_eq!(after_ack, (13_000, 0));
    let State::Sa(sas) = programmer.show(What::Sa).await else { panic!("SAs") };
    assert_eq!(sas.0.len(), 26_000);
    let workers = [0, 1].map(|worker| sas.0.iter().filter(|sa| sa.worker == WorkerId(worker)).count());
    assert_eq!(workers, [13_000, 13_000]);

    let gone = sas.0.iter().map(|sa| {
        let key = match sa.direction {
            model::sa::Direction::Inbound => model::program::Key::InboundSa(sa.spi),
            model::sa::Direction::Outbound => model::program::Key::OutboundSa(sa.protection, sa.worker),
        };
        Op::Remove(Owner::Config, key)
    });
    let gone: Vec<_> = gone.collect();
    programmer.say(gone).await;
    assert_eq!(sealed(&programmer).await, (0, 13_000));
    let State::Sa(sas) = programmer.show(What::Sa).await else { panic!("SAs") };
    assert!(sas.0.is_empty());
}

/// A file of a test.
fn file(called: &str) -> PathBuf {
    std::env::temp_dir().join(format!("nave-sas-{called}-{}.pcap", std::process::id()))
}

fn write(called: &str, frames: &[Vec<u8>]) -> PathBuf {
    let path = file(called);
    let mut pcap = PcapWriter::new(File::create(&path).unwrap()).unwrap();
    for frame in frames {
        pcap.write_packet(&PcapPacket::new(Duration::ZERO, frame.len() as u32, frame)).unwrap();
    }
    path
}

/// DPDK's address of a net_pcap device.
fn pcap_mac(device: u8) -> [u8; 6] {
    [2, b'p', b'c', b'a', b'p', device]
}

/// An IPv4 packet.
fn ipv4(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { panic!("IPv4") };
    let header = wire::ipv4::Header::new(from, to, protocol, 64, payload.len()).unwrap();
    [header.as_bytes(), payload].concat()
}

fn frame(to: [u8; 6], packet: &[u8]) -> Vec<u8> {
    [&to[..], &[2, 0, 0, 0, 0, 1], &[0x08, 0x00], packet].concat()
}

/// A UDP packet of the LAN to who is behind a peer.
fn from_lan(peer: Peer) -> Vec<u8> {
    let udp =
        [&5000_u16.to_be_bytes()[..], &6000_u16.to_be_bytes(), &40_u16.to_be_bytes(), &[0; 2], &[0x5a; 32]];
    ipv4("10.1.0.9".parse().unwrap(), peer.overlay(), wire::ipv4::UDP, &udp.concat())
}

/// What a peer sends for the LAN, sealed with sequence number 1.
fn from_peer(peer: Peer, worker: u16) -> Vec<u8> {
    let inner = ipv4(peer.overlay(), "10.1.0.9".parse().unwrap(), wire::ipv4::UDP, &[0, 7, 0, 7, 0, 8, 0, 0]);
    let mut text = [&[0, 0, 0x08, 0x00][..], &inner].concat();
    let padding = (4 - (text.len() + 2) % 4) % 4;
    text.extend(1..=padding as u8);
    text.extend([padding as u8, wire::ipv4::GRE]);
    text.extend([0; aead::ICV]);
    let (spi, keymat) = (peer.of_ours(worker).value(), peer.key(1));
    let key = Key::new(Provider::AesGcm, keymat.key()).unwrap();
    let packet =
        Packet { key: &key, salt: keymat.salt(), iv: 1, sequence: 1, spi, esn: false, text: &mut text };
    seal_one(packet);
    let esp = [&spi.to_be_bytes()[..], &1_u32.to_be_bytes(), &1_u64.to_be_bytes(), &text].concat();
    ipv4(peer.nbma().0, LOCAL.into(), wire::ipv4::ESP, &esp)
}

/// SPI, sequence number and, opened by another provider, what was in it, of a frame of ours to a peer.
fn opened(frame: &[u8], peer: Peer) -> (u32, Vec<u8>) {
    assert_eq!((&frame[..6], frame[23]), (&GATEWAY.0[..], wire::ipv4::ESP), "only ESP leaves");
    let esp = &frame[34..];
    let word = |at: usize| u32::from_be_bytes(esp[at..at + 4].try_into().unwrap());
    assert_eq!(word(0), peer.of_peer().value());
    let (sequence, keymat) = (word(4), peer.key(2));
    let mut text = esp[16..].to_vec();
    let key = Key::new(Provider::AesGcm, keymat.key()).unwrap();
    let authentic = open_one(Packet {
        key: &key,
        salt: keymat.salt(),
        iv: u64::from_be_bytes(esp[8..16].try_into().unwrap()),
        sequence: sequence.into(),
        spi: word(0),
        esn: false,
        text: &mut text,
    });
    assert!(authentic);
    // Behind GRE without key.
    (sequence, text.split_off(4))
}

/// Each packet of a trace goes from its port to its end, by the nodes of two workers if it was handed off.
async fn handed_packets_are_traced_to_their_end(client: &Dataplane) {
    let request = TraceRequest { packets: 200.try_into().unwrap(), address: "10.1.0.9".parse().ok() };
    let mut steps = client.trace(request).await.unwrap();
    let mut ways = BTreeMap::<u32, Vec<_>>::new();
    while let Some(step) = steps.next().await {
        let step = step.unwrap();
        ways.entry(step.packet).or_default().push((step.node, step.worker));
    }
    // They name the address: those of the LAN, and after they were opened those that went there.
    assert_eq!(ways.len(), 200);
    let has = |way: &[(String, WorkerId)], node: &str| way.iter().any(|(at, _)| at == node);
    let is_of = |way: &[(String, WorkerId)], worker| way.iter().any(|(_, by)| *by == WorkerId(worker));
    let handed: Vec<_> = ways.values().filter(|way| is_of(way, 0) && is_of(way, 1)).collect();
    assert!(handed.iter().all(|way| has(way, "rx") && has(way, "inject")), "{handed:?}");
    assert!(handed.iter().any(|way| has(way, "tx")), "{ways:?}");
}

/// Input: two workers, each with the SAs of one peer; packets to both peers, and from both, come by the queues of both workers for ever. Output:
/// each worker hands off and takes in; what leaves by a worker's queue is sealed with its own SA, each number once and upwards, and
/// opens to what came; of each sealed packet that came again and again one was taken, whichever queue it came by.
#[tokio::test]
async fn packets_go_to_the_worker_that_has_their_sa() {
    needs_two_cores();
    let peers = [Peer(1), Peer(2)];
    let of_lan = peers.map(|peer| frame(pcap_mac(1), &from_lan(peer)));
    let of_wan = [0, 1].map(|worker| frame(pcap_mac(0), &from_peer(peers[usize::from(worker)], worker)));
    let (lan, wan) = (write("lan", &of_lan), write("wan", &of_wan));
    let out = [file("out0"), file("out1")];
    let port = |name: &str, at: u8, from: &PathBuf, to: [&str; 2]| {
        let from = from.display();
        format!(
            "{name}=net_pcap{at},rx_pcap={from},rx_pcap={from},infinite_rx=1,tx_pcap={},tx_pcap={}",
            to[0], to[1]
        )
    };
    let out_names = [out[0].display().to_string(), out[1].display().to_string()];
    let ports = [
        port("wan", 0, &wan, [&out_names[0], &out_names[1]]),
        port("lan", 1, &lan, ["/dev/null", "/dev/null"]),
    ];
    let running = Running::start_on("handoff", "0,1", [&ports[0], &ports[1]], &["--aead", "ring"]);
    fs::remove_file(lan).unwrap();
    fs::remove_file(wan).unwrap();
    let mut programmer = Programmer::of(&running).await;
    let mut ops = hub();
    for (peer, worker) in peers.into_iter().zip(0..) {
        ops.extend(peer.ops(worker));
        let hop = Hop { interface: name("tunnel0"), next_hop: peer.overlay() };
        let prefix = format!("{}/32", peer.overlay()).parse().unwrap();
        let table = TableId::default();
        ops.push(put(Object::Route(Route { table, prefix, path: RoutePath::Via(hop), expires_in: None })));
    }
    let lan = Route {
        table: TableId::default(),
        prefix: "10.1.0.0/24".parse().unwrap(),
        path: RoutePath::Attached(name("lan0")),
        expires_in: None,
    };
    let host = Hop { interface: name("lan0"), next_hop: "10.1.0.9".parse().unwrap() };
    ops.push(put(Object::Route(lan)));
    ops.push(put(Object::Neighbour(Neighbour { hop: host, mac: Mac([2, 0, 0, 0, 0, 8]) })));
    programmer.say(ops).await;

    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let State::Workers(workers) = programmer.show(What::Workers).await else { panic!("workers") };
        assert!(workers.0.iter().all(|worker| worker.aead == "ring"));
        let least = workers.0.iter().flat_map(|w| [w.handed_in, w.handed_off, w.rx_packets]).min();
        if least > Some(2000) {
            break;
        }
        assert!(Instant::now() < deadline, "{workers}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    handed_packets_are_traced_to_their_end(&programmer.client).await;
    let State::Sa(sas) = programmer.show(What::Sa).await else { panic!("SAs") };
    assert_eq!(sas.0.len(), 4);
    for sa in &sas.0 {
        match sa.direction {
            model::sa::Direction::Inbound => {
                assert!((sa.packets, sa.sequence, sa.bad_icv) == (1, 1, 0) && sa.replayed > 0, "{sa:?}");
            }
            model::sa::Direction::Outbound => {
                assert!(sa.packets > 1000 && sa.sequence >= sa.packets, "{sa:?}")
            }
        }
    }
    let status = tokio::task::spawn_blocking(|| running.terminate()).await.unwrap();
    assert!(status.success(), "{status}");

    for (path, peer) in out.iter().zip(peers) {
        let mut pcap = PcapReader::new(File::open(path).unwrap()).unwrap();
        let (mut last, mut count) = (0, 0);
        // Some ten thousand tell as much as a million.
        while count < 20_000
            && let Some(Ok(packet)) = pcap.next_packet()
        {
            let (sequence, inner) = opened(&packet.data, peer);
            assert!(sequence > last, "{sequence} behind {last}");
            // One hop further: but for time to live and checksum it is what came.
            let sent = from_lan(peer);
            assert_eq!((inner[8], &inner[12..sent.len()]), (63, &sent[12..]));
            (last, count) = (sequence, count + 1);
        }
        assert!(count > 1000, "{count}");
        fs::remove_file(path).unwrap();
    }
}
