//! The real process on null ports: threads keep to their cores, the service programs and shows, a stop leaves nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use aead::Provider;
use common::{Running, interface, name, receive};

use futures::StreamExt;
use model::observe::{CaptureRequest, Direction, Tap, TraceRequest};
use model::program::{
    Batch, Hop, Interface, Neighbour, Object, Op, Owner, Path as RoutePath, Refusal, Route,
};
use model::report::Report;
use model::state::ports::{OffloadState, Port};
use model::state::{Show, State, What};
use model::{Epoch, Mac, TableId, VlanId};
use proto::client::Dataplane;
use proto::{Code, Hello, Open};
use tokio::sync::mpsc;

/// Input: one worker on core 1 of at least two. Output: no other thread may run there, and the worker nowhere else.
#[test]
fn no_other_thread_inherits_a_workers_core() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        panic!("this test needs two cores");
    }
    let running = Running::start("cores", "1");
    let threads = running.threads();
    let workers: BTreeMap<_, _> =
        threads.iter().filter(|(name, _)| name.starts_with("nave-worker")).cloned().collect();
    assert_eq!(workers, BTreeMap::from([("nave-worker-0".to_owned(), "1".to_owned())]));
    assert!(threads.len() >= 4, "{threads:?}");
    for (name, cores) in threads.iter().filter(|(name, _)| !name.starts_with("nave-worker")) {
        let may = |range: &str| match range.split_once('-') {
            Some((first, last)) => (first.parse::<usize>().unwrap()..=last.parse().unwrap()).contains(&1),
            None => range == "1",
        };
        assert!(!cores.split(',').any(may), "{name} may run on the worker's core: {cores}");
    }
}

/// Input: interfaces, a route, a batch with a bad step. Output: what is good is shown, the bad batch changes nothing, ports are
/// reported, and a signal ends the process with its socket.
#[tokio::test]
async fn programs_shows_refuses_and_stops() {
    let running = Running::start("service", "0");
    let client = Dataplane::at(&running.socket);
    let hello = Hello { epoch: Epoch(3), name: "test".to_owned() };
    let greeting = client.hello(hello).await.unwrap();
    assert_eq!(greeting.ports.0.iter().map(|port| port.name.as_str()).collect::<Vec<_>>(), ["wan", "lan"]);
    assert_eq!(greeting.workers.0.len(), 1);
    assert_eq!((greeting.sa_slots, greeting.workers.0[0].aead.as_str()), (1 << 18, Provider::best().name()));
    let open = Open { instance: greeting.instance, epoch: Epoch(3) };

    let mut reports = client.reports(open).await.unwrap();
    let Report::Port { port, .. } = reports.next().await.unwrap().unwrap() else { panic!("a port first") };
    assert_eq!(port, "wan");

    let (batches, receiver) = mpsc::channel(8);
    let mut acks = client.program(open, receiver).await.unwrap();
    let good = vec![interface("wan0", "wan"), interface("lan0", "lan"), receive("192.0.2.1/32", "wan0")];
    batches.send(Batch { number: 1, ops: good }).await.unwrap();
    assert_eq!(acks.next().await.unwrap().unwrap().result, Ok(()));
    let bad = vec![receive("192.0.2.2/32", "wan0"), receive("192.0.2.3/32", "nowhere")];
    batches.send(Batch { number: 2, ops: bad }).await.unwrap();
    let refused = acks.next().await.unwrap().unwrap().result.unwrap_err();
    assert_eq!((refused.op, refused.reason), (1, Refusal::NoInterface(name("nowhere"))));

    let State::Fib(fib) = client.show(Show::from(What::Fib)).await.unwrap() else { panic!("a FIB") };
    let of_config: Vec<_> =
        fib.0.iter().filter(|entry| entry.prefix.is_host() && entry.owner == Owner::Config).collect();
    assert_eq!(of_config.len(), 1, "{of_config:?}");
    assert_eq!(of_config[0].prefix.to_string(), "192.0.2.1/32");

    let State::Program(program) = client.show(Show::from(What::Program)).await.unwrap() else {
        panic!("objects")
    };
    assert_eq!(program.0.len(), 3);
    let State::Ports(ports) = client.show(Show::from(What::Ports)).await.unwrap() else { panic!("ports") };
    assert_eq!(ports.0[0].interface, Some(name("wan0")));

    let socket = running.socket.clone();
    let status = tokio::task::spawn_blocking(|| running.terminate()).await.unwrap();
    assert!(status.success(), "{status}");
    assert!(!socket.exists());
}

/// Input: a data plane that is told to measure, and one that is not. Output: the cycles of the nodes that packets met, and none.
#[tokio::test]
async fn cycles_are_shown_when_they_are_measured() {
    for (test, flags, measured) in [("measured", &["--measure-nodes"][..], true), ("unmeasured", &[], false)]
    {
        let running = Running::start_with(test, "0", flags);
        let client = Dataplane::at(&running.socket);
        // Null ports deliver packets all the time.
        let rx = loop {
            let State::Counters(counters) = client.show(Show::from(What::Counters)).await.unwrap() else {
                panic!("counters")
            };
            let rx = counters.nodes.into_iter().find(|node| node.node == "rx").unwrap();
            if rx.bursts > 10 {
                break rx;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(rx.cycles > 0, measured, "{rx:?}");
    }
}

/// Input: two workers on ports with RSS and without rules: one as it is, one that is to use all, one that is to use none. Output: what is
/// used, refused and left; without RSS there is one queue for both workers.
#[tokio::test]
async fn what_a_port_does_for_the_workers_is_shown_and_can_be_switched_off() {
    let flags = ["--offloads", "wan=none", "--offloads", "lan=all"];
    let running = Running::start_with("offloads", "0,1", &flags);
    let client = Dataplane::at(&running.socket);
    let State::Ports(ports) = client.show(Show::from(What::Ports)).await.unwrap() else { panic!("ports") };
    let of = |port: &Port| {
        let states = port.offloads.iter().map(|offload| (offload.kind.to_string(), offload.state));
        (port.queues, states.collect::<BTreeMap<_, _>>())
    };
    use OffloadState::{Refused, Unused, Used};
    let states = |rss, steering| {
        let all = [
            ("rss", rss),
            ("ipv4-checksum", Refused),
            ("esp-steering", steering),
            ("inline-crypto", Refused),
        ];
        all.map(|(kind, state)| (kind.to_owned(), state)).into()
    };
    assert_eq!(of(&ports.0[0]), (1, states(Unused, Unused)));
    assert_eq!(of(&ports.0[1]), (2, states(Used, Refused)));
    // Null ports deliver packets all the time: by its own queue of `lan` the second worker has some at once.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let State::Workers(workers) = client.show(Show::from(What::Workers)).await.unwrap() else {
            panic!("workers")
        };
        if workers.0.iter().all(|worker| worker.rx_packets > 0) {
            break;
        }
        assert!(Instant::now() < deadline, "{workers:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Input: a batch that cannot be read. Output: the stream ends with the reason, not as if all were well.
#[tokio::test]
async fn a_batch_that_cannot_be_read_is_answered_with_why() {
    let running = Running::start("malformed", "0");
    let client = Dataplane::at(&running.socket);
    let greeting = client.hello(Hello { epoch: Epoch(1), name: "test".to_owned() }).await.unwrap();
    let (batches, receiver) = mpsc::channel(8);
    let mut acks =
        client.program(Open { instance: greeting.instance, epoch: Epoch(1) }, receiver).await.unwrap();
    let larger_than_is_taken = interface("wan0", &"x".repeat(proto::MESSAGE_LIMIT));
    batches.send(Batch { number: 1, ops: vec![larger_than_is_taken] }).await.unwrap();
    let answer = acks.next().await.expect("an answer").unwrap_err();
    assert!(answer.to_string().contains("too large"), "{answer}");
}

/// DPDK's address of the first net_pcap device.
const PCAP_MAC: Mac = Mac([2, b'p', b'c', b'a', b'p', 0]);
/// Of the neighbour that packets go to.
const NEIGHBOUR: Mac = Mac([2, 0, 0, 0, 0, 9]);

/// A frame of VLAN 7 with an IPv4 packet of 1,500 bytes from 10.7.0.1 to 10.7.0.9.
fn full_size_of_vlan_7() -> Vec<u8> {
    let mut packet = vec![0; 1500];
    packet[..12].copy_from_slice(&[0x45, 0, 0x05, 0xdc, 0, 1, 0x40, 0, 64, 17, 0, 0]);
    packet[12..20].copy_from_slice(&[10, 7, 0, 1, 10, 7, 0, 9]);
    let words = packet[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = u16::try_from((sum >> 16) + (sum & 0xffff)).unwrap();
    packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
    [&PCAP_MAC.0[..], &[2, 0, 0, 0, 0, 1], &[0x81, 0x00, 0, 7, 0x08, 0x00], &packet].concat()
}

/// A data plane by whose port `wan` that frame comes for ever, and which is told to send it back on the same VLAN.
async fn with_traffic(test: &str) -> (Running, Dataplane) {
    let file = std::env::temp_dir().join(format!("nave-process-{test}-{}.pcap", std::process::id()));
    let mut pcap = pcap_file::pcap::PcapWriter::new(fs::File::create(&file).unwrap()).unwrap();
    let frame = full_size_of_vlan_7();
    let length = u32::try_from(frame.len()).unwrap();
    pcap.write_packet(&pcap_file::pcap::PcapPacket::new(Duration::ZERO, length, &frame)).unwrap();
    drop(pcap);
    let wan = format!("wan=net_pcap0,rx_pcap={},infinite_rx=1,tx_pcap=/dev/null", file.display());
    let running = Running::start_on(test, "0", [&wan, "lan=net_null0"], &[]);
    fs::remove_file(&file).unwrap();

    let client = Dataplane::at(&running.socket);
    let greeting = client.hello(Hello { epoch: Epoch(1), name: "test".to_owned() }).await.unwrap();
    assert_eq!(greeting.ports.0[0].mac, PCAP_MAC);
    let (batches, receiver) = mpsc::channel(8);
    let open = Open { instance: greeting.instance, epoch: Epoch(1) };
    let mut acks = client.program(open, receiver).await.unwrap();
    let Op::Put(owner, Object::Interface(untagged)) = interface("wan0.7", "wan") else { unreachable!() };
    let tagged = Object::Interface(Interface { vlan: VlanId::new(7), ..untagged });
    let hop = Hop { interface: name("wan0.7"), next_hop: "10.7.0.9".parse().unwrap() };
    let neighbour = Object::Neighbour(Neighbour { hop, mac: NEIGHBOUR });
    let route = Object::Route(Route {
        table: TableId::default(),
        prefix: "10.7.0.0/24".parse().unwrap(),
        path: RoutePath::Attached(name("wan0.7")),
        expires_in: None,
    });
    let ops = [tagged, neighbour, route].map(|object| Op::Put(owner, object)).to_vec();
    batches.send(Batch { number: 1, ops }).await.unwrap();
    assert_eq!(acks.next().await.unwrap().unwrap().result, Ok(()));
    (running, client)
}

fn capture(at: Tap, packets: Option<u32>) -> CaptureRequest {
    let packets = packets.map(|packets| packets.try_into().unwrap());
    CaptureRequest { at, packets, snap: 64.try_into().ok(), address: Some("10.7.0.9".parse().unwrap()) }
}

/// Input: tagged frames of full size. Output: a capture of the port has both directions with the tag, 4 bytes more than an untagged
/// frame of the MTU; there is one capture at a time, and the next may begin when it has ended.
#[tokio::test]
async fn frames_are_captured_at_a_port_in_both_directions_with_their_tag() {
    let (_running, client) = with_traffic("capture").await;
    let wan = || Tap::Port("wan".to_owned());
    let mut packets = client.capture(capture(wan(), Some(200))).await.unwrap();
    let mut all = Vec::new();
    while let Some(packet) = packets.next().await {
        all.push(packet.unwrap());
    }
    assert_eq!(all.len(), 200);
    for (direction, to) in [(Direction::In, PCAP_MAC), (Direction::Out, NEIGHBOUR)] {
        let packet = all.iter().find(|packet| packet.direction == Some(direction)).unwrap();
        assert_eq!((packet.len, packet.bytes.len(), packet.interface), (1518, 64, Some(name("wan0.7"))));
        assert_eq!((&packet.bytes[..6], &packet.bytes[12..16]), (&to.0[..], &[0x81, 0x00, 0, 7][..]));
    }

    let endless = client.capture(capture(Tap::Node("rewrite".to_owned()), None)).await.unwrap();
    let busy = client.capture(capture(wan(), Some(1))).await.err().unwrap();
    assert_eq!(busy.code(), Some(Code::ResourceExhausted));
    drop(endless);
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut next = loop {
        match client.capture(capture(Tap::Node("ip-lookup".to_owned()), Some(1))).await {
            Ok(next) => break next,
            Err(error) => assert_eq!(error.code(), Some(Code::ResourceExhausted)),
        }
        assert!(Instant::now() < deadline, "the capture before it does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    // Nothing of the earlier capture; at a node the tag is gone.
    let packet = next.next().await.unwrap().unwrap();
    assert_eq!((packet.len, packet.direction, &packet.bytes[12..14]), (1514, None, &[0x08, 0x00][..]));
    assert!(next.next().await.is_none());

    let refused = client.capture(capture(Tap::Port("dmz".to_owned()), None)).await.err().unwrap();
    assert_eq!(refused.to_string(), "at.port: there is no port `dmz`; there are wan, lan");
    let refused = client.capture(capture(Tap::Node("ip".to_owned()), None)).await.err().unwrap();
    assert_eq!(refused.code(), Some(Code::InvalidArgument));
    assert!(refused.to_string().contains("classify, "), "{refused}");
}

/// Input: a trace of three packets. Output: their ways from node to node, and an end.
#[tokio::test]
async fn packets_are_traced_from_port_to_port() {
    let (_running, client) = with_traffic("trace").await;
    let address = "10.7.0.9".parse().ok();
    let mut steps = client.trace(TraceRequest { packets: 3.try_into().unwrap(), address }).await.unwrap();
    let mut ways = BTreeMap::<u32, Vec<_>>::new();
    while let Some(step) = steps.next().await {
        let step = step.unwrap();
        ways.entry(step.packet).or_default().push(step);
    }
    assert_eq!(ways.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    for way in ways.values() {
        let nodes: Vec<_> = way.iter().map(|step| step.node.as_str()).collect();
        assert_eq!(nodes, ["rx", "classify", "ip-lookup", "rewrite", "tx"]);
        assert_eq!((way[0].interface, way[0].len), (None, 1518));
        assert_eq!((way[2].interface, way[2].len), (Some(name("wan0.7")), 1514));
        assert_eq!((way[2].destination, way[2].adjacency), (address, None));
        assert_eq!((way[4].adjacency.is_some(), way[4].len), (true, 1518));
    }

    let request =
        |address: &str| TraceRequest { packets: 1.try_into().unwrap(), address: address.parse().ok() };
    let nobody = client.trace(request("10.99.0.1")).await.unwrap();
    let busy = client.trace(request("10.7.0.9")).await.err().unwrap();
    assert_eq!(busy.code(), Some(Code::ResourceExhausted));
    drop(nobody);
}

/// Input: standard input that ends, as that of a process whose parent was killed, or stays open. Output: an end as by a signal, and a data plane
/// that serves on.
#[test]
fn ends_with_its_standard_input_if_it_is_told_to() {
    let mut running = Running::start_with("stdin", "0", &["--until-stdin-ends"]);
    assert!(running.child.try_wait().unwrap().is_none());
    drop(running.child.stdin.take());
    // Or else this waits for ever.
    assert!(running.child.wait().unwrap().success());
    assert!(!running.socket.exists());

    let mut untold = Running::start("no-stdin", "0");
    drop(untold.child.stdin.take());
    assert!(untold.child.try_wait().unwrap().is_none());
    assert!(untold.terminate().success());
}

/// Input: flags that cannot be. Output: one sentence that names the flag, and the exit code.
#[test]
fn what_cannot_start_says_why() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_nave-dataplane")).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = run(&["--port", "wan=net_null0", "--workers", "1023"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("--workers: core 1023"), "{text}");
    let (code, text) = run(&["--port", "wan=net_null0", "--port", "wan=net_null1", "--workers", "0"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("--port wan: the name is given twice"), "{text}");
    let (code, text) = run(&["--port", "wan=net_nothing0", "--workers", "0", "--memory", "no-huge:64"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("net_nothing0"), "{text}");
    // Not every machine has AVX-512.
    if !Provider::Vaes512.is_usable() {
        let (code, text) = run(&["--port", "wan=net_null0", "--workers", "0", "--aead", "vaes512"]);
        assert_eq!(code, Some(1));
        assert!(text.contains("--aead vaes512: the processor does not have its instructions"), "{text}");
    }
}
