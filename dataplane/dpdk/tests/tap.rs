//! net_tap in a network namespace of its own: the kernel talks to a port, also after the interface moved to another
//! namespace. Needs CAP_NET_ADMIN and /dev/net/tun. One test: the EAL starts once per process.

#![allow(clippy::unwrap_used, clippy::panic)]

use dpdk::{
    Eal, EalArgs, Errno, EspRule, Mbuf, Memory, Mempool, MempoolConfig, Opened, Port, PortConfig, free_bulk,
};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, unshare};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use wire::buf::PacketBuf;

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Another network namespace, for as long as a child sleeps in it.
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let child =
            Command::new("unshare").args(["--net", "sleep", "60"]).stdout(Stdio::null()).spawn().unwrap();
        let (own, theirs) = ("/proc/thread-self/ns/net".into(), format!("/proc/{}/ns/net", child.id()));
        let place = |path: &String| std::fs::read_link(path).ok();
        while place(&theirs) == place(&own) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Self(child)
    }

    fn run(&self, command: &str) -> Child {
        let pid = self.0.id().to_string();
        let words = command.split(' ');
        Command::new("nsenter").args(["-t", &pid, "-n"]).args(words).stdout(Stdio::null()).spawn().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Receives for at most 5 s until a packet fits; everything else goes back to the pool.
fn receive(opened: &mut Opened, fits: impl Fn(&[u8]) -> bool) -> Mbuf {
    let until = Instant::now() + Duration::from_secs(5);
    let mut burst = Vec::with_capacity(32);
    while Instant::now() < until {
        for queue in &mut opened.rx {
            queue.burst(&mut burst, 32);
        }
        let found =
            burst.iter().position(|packet| fits(packet.bytes())).map(|place| burst.swap_remove(place));
        free_bulk(&mut burst);
        if let Some(packet) = found {
            return packet;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the packet did not arrive");
}

/// Whether the first queue's descriptor becomes readable within `ms` milliseconds.
fn wakes(opened: &Opened, ms: u16) -> bool {
    let fd = opened.rx[0].wake_fd().unwrap();
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], ms).unwrap() == 1
}

/// Frees what the kernel sends by itself when an interface comes up, until it is quiet.
fn drain(opened: &mut Opened) {
    let mut burst = Vec::with_capacity(32);
    while wakes(opened, 100) {
        opened.rx[0].burst(&mut burst, 32);
        free_bulk(&mut burst);
    }
}

/// Whether a frame is IPv4 of `protocol`.
fn is_ipv4(frame: &[u8], protocol: u8) -> bool {
    frame.len() > 34 && frame[12..14] == [8, 0] && frame[23] == protocol
}

/// Turns a frame round: MAC and IPv4 addresses change places, which leaves the checksums right.
fn turn_round(frame: &mut [u8]) {
    let (left, right) = frame[..12].split_at_mut(6);
    left.swap_with_slice(right);
    let (left, right) = frame[26..34].split_at_mut(4);
    left.swap_with_slice(right);
}

fn send(opened: &mut Opened, packet: Mbuf) {
    let mut burst = vec![packet];
    assert_eq!(opened.tx[0].burst(&mut burst), 1);
}

#[test]
fn tap_ports() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let args = EalArgs {
        memory: Memory::NoHuge { mb: 128 },
        vdevs: vec!["net_tap0,iface=one".into(), "net_tap1,iface=many".into(), "net_tap2,iface=short".into()],
        ..EalArgs::default()
    };
    let eal = Eal::start(&args).unwrap();
    let config = MempoolConfig { name: "tap", count: 8191, ..MempoolConfig::default() };
    let pool = Mempool::create(&eal, &config).unwrap();
    let mut one = Port::open(&eal, "net_tap0", &PortConfig { mtu: 1400, ..PortConfig::new(pool) }).unwrap();
    assert_eq!((one.port.driver(), one.port.mtu(), one.rx.len(), one.tx.len()), ("net_tap", Ok(1400), 1, 1));
    let several = PortConfig { rx_queues: 4, tx_queues: 4, ..PortConfig::new(pool) };
    let many = Port::open(&eal, "net_tap1", &several).unwrap();
    assert_eq!((many.rx.len(), many.tx.len()), (4, 4));
    // Its driver knows rules, and none about ESP; the port works on.
    let rules: Vec<_> =
        (0..4).map(|queue| EspRule { mask: 3 << 18, value: u32::from(queue) << 18, queue }).collect();
    for (form, taken) in many.port.steer_esp(&rules) {
        let refused = taken.unwrap_err();
        assert_eq!((refused.errno, &*refused.reason), (Errno(95), "item not supported"), "{form}");
    }
    let idle = pool.in_use();

    udp_there_and_back(&mut one);
    across_queues(many);
    scattered(&eal);

    let elsewhere = Namespace::new();
    ip(&format!("link set one netns {}", elsewhere.0.id()));
    ping_in(&elsewhere, &mut one);
    assert!(one.port.link().unwrap().up, "wherever it is");
    assert_eq!(one.port.mtu(), Ok(1400));
    assert!(one.port.stats().unwrap().rx_packets > 0);
    drop(elsewhere);
    let mut burst = Vec::with_capacity(32);
    one.rx[0].burst(&mut burst, 32);
    free_bulk(&mut burst);
    assert!(pool.in_use() <= idle, "every mbuf came back");
    one.port.close(one.rx, one.tx).unwrap();
    assert_eq!(Port::list(&eal), ["net_tap1"; 0]);
}

/// The kernel sends a datagram into the port and gets it back.
fn udp_there_and_back(opened: &mut Opened) {
    ip("addr add 192.0.2.1/24 dev one");
    ip("link set one addrgenmode none");
    ip("link set one up");
    ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev one");
    assert!(opened.port.link().unwrap().up);
    let mac = opened.port.mac().unwrap();
    let socket = UdpSocket::bind("192.0.2.1:4000").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    drain(opened);
    socket.send_to(b"there and back", "192.0.2.2:4000").unwrap();
    assert!(wakes(opened, 5000));
    let mut packet = receive(opened, |frame| is_ipv4(frame, 17));
    assert_eq!((packet.segments(), packet.headroom(), packet.len()), (1, 128, 14 + 20 + 8 + 14));
    assert_eq!((&packet.bytes()[..6], &packet.bytes()[6..12]), (&[2, 0, 0, 0, 0, 2][..], &mac[..]));
    turn_round(packet.bytes_mut());
    send(opened, packet);
    let mut answer = [0; 64];
    let (length, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!((&answer[..length], from.to_string()), (&b"there and back"[..], "192.0.2.2:4000".to_owned()));
}

/// A port of four queues receives every flow once, whichever queue the kernel puts it on.
fn across_queues(mut opened: Opened) {
    ip("addr add 198.51.100.1/24 dev many");
    ip("link set many up");
    ip("neigh add 198.51.100.2 lladdr 02:00:00:00:00:03 dev many");
    let sockets: Vec<_> = (0..32).map(|_| UdpSocket::bind("198.51.100.1:0").unwrap()).collect();
    sockets.iter().for_each(|socket| assert_eq!(socket.send_to(&[0; 20], "198.51.100.2:9").unwrap(), 20));
    let mut ports: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
    let (mut seen, mut queues) = (Vec::new(), Vec::new());
    let until = Instant::now() + Duration::from_secs(5);
    while seen.len() < sockets.len() && Instant::now() < until {
        let mut burst = Vec::with_capacity(64);
        for queue in &mut opened.rx {
            burst.clear();
            queue.burst(&mut burst, 64);
            let flows = burst.iter().filter(|packet| is_ipv4(packet.bytes(), 17));
            let before = seen.len();
            seen.extend(flows.map(|packet| u16::from_be_bytes([packet.bytes()[34], packet.bytes()[35]])));
            queues.extend((seen.len() > before).then_some(queue.index()));
            free_bulk(&mut burst);
        }
    }
    ports.sort_unstable();
    seen.sort_unstable();
    assert_eq!(seen, ports);
    queues.dedup();
    assert!(queues.len() > 1, "32 flows met on queues {queues:?}");
    opened.port.close(opened.rx, opened.tx).unwrap();
}

/// Buffers smaller than a frame: the packet comes in segments, which the first has no room to take in.
fn scattered(eal: &Eal) {
    let config = MempoolConfig { name: "short", count: 1023, cache: 0, data_room: 512, socket: None };
    let pool = Mempool::create(eal, &config).unwrap();
    let mut opened =
        Port::open(eal, "net_tap2", &PortConfig { rx_ring: 64, ..PortConfig::new(pool) }).unwrap();
    assert!(opened.port.offloads().rx_scatter);
    let idle = pool.in_use();
    ip("addr add 198.18.0.1/24 dev short");
    ip("link set short up");
    ip("neigh add 198.18.0.2 lladdr 02:00:00:00:00:05 dev short");
    let socket = UdpSocket::bind("198.18.0.1:0").unwrap();
    socket.send_to(&[7; 1400], "198.18.0.2:9").unwrap();
    let mut packet = receive(&mut opened, |frame| is_ipv4(frame, 17));
    assert_eq!((packet.segments(), packet.len(), packet.packet_len()), (3, 512, 1442));
    assert!(!packet.linearise());
    assert_eq!(packet.segments(), 3);
    packet.reset();
    assert_eq!((packet.segments(), packet.packet_len()), (1, 0));
    packet.free();
    assert!(pool.in_use() <= idle);
}

/// Another namespace's ping is answered by hand.
fn ping_in(namespace: &Namespace, opened: &mut Opened) {
    for command in [
        "ip addr add 203.0.113.1/24 dev one",
        "ip link set one up",
        "ip neigh add 203.0.113.2 lladdr 02:00:00:00:00:04 dev one",
    ] {
        assert!(namespace.run(command).wait().unwrap().success(), "{command}");
    }
    let mut ping = namespace.run("ping -c 1 -W 5 203.0.113.2");
    let mut packet = receive(opened, |frame| is_ipv4(frame, 1) && frame[34] == 8);
    let bytes = packet.bytes_mut();
    turn_round(bytes);
    // Echo request to echo reply: the type falls by 8, so the checksum rises by 0x0800 (RFC 1624).
    bytes[34] = 0;
    let sum = u32::from(u16::from_be_bytes([bytes[36], bytes[37]])) + 0x0800;
    let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[36..38].copy_from_slice(&sum.to_be_bytes());
    send(opened, packet);
    assert!(ping.wait().unwrap().success());
}
