//! What the kernel does with twins: the promises of the crate's first page, each seen. Runs as root, in namespaces of its own.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use twin::{
    Anchor, Error, Kind, NAMED, Queue, in_netns, in_netns_with_files, is_gone, make_netns, netns_id,
    remove_netns,
};

/// A network namespace that goes with the test.
struct Netns(PathBuf);

impl Netns {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("twin-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        let netns = Self(name.into());
        netns.ip("link set lo up");
        netns
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn ip(&self, args: &str) -> String {
        ip(&["-n", self.name()].into_iter().chain(args.split(' ')).collect::<Vec<_>>())
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_netns(&self.0, work).unwrap()
    }

    fn anchor(&self, kind: Kind) -> Anchor {
        self.run(|| Anchor::create("t0", kind)).unwrap()
    }

    fn attach(&self, kind: Kind) -> Queue {
        Queue::attach("t0", kind, Some(&self.0)).unwrap()
    }

    fn socket(&self, from: &str) -> UdpSocket {
        let socket = self.run(|| UdpSocket::bind(from)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    /// A closed file goes when the last copy of it goes, and a process that another test is starting has copies of all.
    fn wait_for_links(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        let end = Instant::now() + Duration::from_secs(5);
        while !wanted(&self.ip("link show")) {
            assert!(Instant::now() < end, "waited for: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn dropped(&self) -> u64 {
        let path = "/sys/class/net/t0/statistics/tx_dropped";
        // sysfs shows the namespace that it was mounted in.
        let output = Command::new("ip").args(["netns", "exec", self.name(), "cat", path]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", self.name()]).status().ok();
    }
}

fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The next packet that is `wanted`, within five seconds; the kernel's own chatter is passed over.
fn read_until(queue: &Queue, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let end = Instant::now() + Duration::from_secs(5);
    let mut packet = [0; 2048];
    while Instant::now() < end {
        let mut ready = [PollFd::new(queue.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(100u8)).unwrap();
        match queue.read(&mut packet) {
            Ok(length) if wanted(&packet[..length]) => return packet[..length].to_vec(),
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
        }
    }
    panic!("nothing of that kind came from {}", queue.name());
}

/// Whether this is IPv4 with UDP in it that ends in `text`.
fn is_udp(packet: &[u8], text: &str) -> bool {
    packet.first() == Some(&0x45) && packet[9] == 17 && packet.ends_with(text.as_bytes())
}

/// IPv4 and UDP around `text`.
fn udp(from: Ipv4Addr, to: Ipv4Addr, port: u16, text: &str) -> Vec<u8> {
    let length = u16::try_from(28 + text.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !(u16::try_from(sum & 0xffff).unwrap() + u16::try_from(sum >> 16).unwrap());
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend((length - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(text.as_bytes());
    packet
}

const HERE: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 2);

fn bring_up(netns: &Netns) {
    netns.ip("link set t0 up");
    netns.ip("addr add 10.255.0.1/24 dev t0");
    netns.ip("route add 192.168.7.0/24 via 10.255.0.2 dev t0");
}

fn assert_whole(netns: &Netns) {
    let link = netns.ip("link show t0");
    assert!(link.contains("LOWER_UP") && !link.contains("NO-CARRIER"), "{link}");
    assert_settings_kept(netns);
    let routes = netns.ip("route show dev t0");
    assert!(!routes.contains("linkdown"), "{routes}");
}

fn assert_settings_kept(netns: &Netns) {
    assert!(netns.ip("addr show t0").contains("10.255.0.1/24"));
    let routes = netns.ip("route show dev t0");
    assert!(routes.contains("10.255.0.0/24") && routes.contains("192.168.7.0/24 via 10.255.0.2"), "{routes}");
}

#[test]
fn a_tunnel_twin_carries_bare_ip_both_ways() {
    let netns = Netns::new();
    let _anchor = netns.anchor(Kind::Tun);
    bring_up(&netns);
    let link = netns.ip("link show t0");
    assert!(link.contains("POINTOPOINT,MULTICAST,NOARP,UP"), "{link}");
    let queue = netns.attach(Kind::Tun);
    let socket = netns.socket("10.255.0.1:4000");

    socket.send_to(b"down", (THERE, 4000)).unwrap();
    let sent = read_until(&queue, |packet| is_udp(packet, "down"));
    assert_eq!(sent[12..20], [HERE.octets(), THERE.octets()].concat());

    queue.write(&udp(THERE, HERE, 4000, "up")).unwrap();
    let mut text = [0; 16];
    let (length, from) = socket.recv_from(&mut text).unwrap();
    assert_eq!((&text[..length], from.ip()), (&b"up"[..], THERE.into()));
}

#[test]
fn a_port_twin_carries_frames_both_ways() {
    let netns = Netns::new();
    let _anchor = netns.anchor(Kind::Tap);
    netns.ip("link set t0 address 02:00:00:00:00:01");
    bring_up(&netns);
    let queue = netns.attach(Kind::Tap);
    let socket = netns.socket("10.255.0.1:4000");

    socket.send_to(b"down", (THERE, 4000)).unwrap();
    let request = read_until(&queue, |frame| frame[12..14] == [8, 6]);
    assert_eq!(request[..12], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1]);
    let mut reply = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 2];
    reply.extend(THERE.octets());
    reply.extend(&request[22..32]);
    queue.write(&reply).unwrap();

    let frame = read_until(&queue, |frame| is_udp(&frame[14..], "down"));
    assert_eq!(frame[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
}

/// Set in the environment of the process that is to be killed: the namespace and kind whose twin it attaches to.
const VICTIM: &str = "NAVE_TWIN_VICTIM";

fn kill_of_the_attached_side(kind: Kind, test: &str) {
    if let Ok(netns) = std::env::var(VICTIM) {
        let queue = Queue::attach("t0", kind, Some(Path::new(&netns))).unwrap();
        read_until(&queue, |packet| packet.ends_with(b"before"));
        println!("attached");
        loop {
            std::thread::park();
        }
    }
    let netns = Netns::new();
    let anchor = netns.anchor(kind);
    bring_up(&netns);
    if kind == Kind::Tap {
        netns.ip("neigh add 10.255.0.2 lladdr 02:00:00:00:00:02 dev t0");
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(VICTIM, netns.name())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let socket = netns.socket("10.255.0.1:4000");
    let said = victim.stdout.take().unwrap();
    let lines = std::thread::spawn(move || {
        std::io::BufRead::lines(std::io::BufReader::new(said)).any(|line| line.unwrap().contains("attached"))
    });
    while !lines.is_finished() {
        socket.send_to(b"before", (THERE, 4000)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(lines.join().unwrap(), "the victim never got a packet");
    victim.kill().unwrap();
    victim.wait().unwrap();

    // Nobody takes packets, and nothing else changed.
    assert_whole(&netns);
    let dropped = netns.dropped();
    for _ in 0..10 {
        socket.send_to(b"away", (THERE, 4000)).unwrap();
    }
    assert!(netns.dropped() >= dropped + 10, "{} then {dropped}", netns.dropped());
    assert_whole(&netns);

    // A new queue takes the next packet, and none of the old ones.
    let queue = netns.attach(kind);
    socket.send_to(b"after", (THERE, 4000)).unwrap();
    let first = read_until(&queue, |packet| packet.ends_with(b"away") || packet.ends_with(b"after"));
    assert!(first.ends_with(b"after"));
    assert_whole(&netns);
    drop(anchor);
}

#[test]
fn a_tunnel_twin_outlives_a_kill_of_the_attached_side() {
    kill_of_the_attached_side(Kind::Tun, "a_tunnel_twin_outlives_a_kill_of_the_attached_side");
}

#[test]
fn a_port_twin_outlives_a_kill_of_the_attached_side() {
    kill_of_the_attached_side(Kind::Tap, "a_port_twin_outlives_a_kill_of_the_attached_side");
}

#[test]
fn with_both_sides_gone_the_twin_stays_without_carrier_until_one_is_back() {
    let netns = Netns::new();
    let anchor = netns.anchor(Kind::Tun);
    assert!(!anchor.adopted());
    bring_up(&netns);
    let queue = netns.attach(Kind::Tun);

    drop(anchor);
    assert_whole(&netns);
    drop(queue);
    netns.wait_for_links("no carrier", |links| links.contains("NO-CARRIER"));
    assert_settings_kept(&netns);

    let anchor = netns.anchor(Kind::Tun);
    assert!(anchor.adopted());
    assert_whole(&netns);
}

#[test]
fn an_anchor_taken_again_leaves_the_attached_queue_alone() {
    let netns = Netns::new();
    let first = netns.anchor(Kind::Tun);
    bring_up(&netns);
    let queue = netns.attach(Kind::Tun);
    let second = netns.anchor(Kind::Tun);
    assert!(second.adopted());
    drop(first);
    let socket = netns.socket("10.255.0.1:4000");
    // Each of them, whatever the kernel hashes it by.
    for port in 4000..4064 {
        socket.send_to(b"down", (THERE, port)).unwrap();
        read_until(&queue, |packet| is_udp(packet, "down") && packet[22..24] == u16::to_be_bytes(port));
    }
    assert_whole(&netns);
}

#[test]
fn a_removed_twin_goes_with_its_last_queue() {
    let netns = Netns::new();
    netns.anchor(Kind::Tap).remove().unwrap();
    netns.wait_for_links("t0 is gone", |links| !links.contains("t0"));

    let anchor = netns.anchor(Kind::Tap);
    let queue = netns.attach(Kind::Tap);
    anchor.remove().unwrap();
    assert!(netns.ip("link show").contains("t0"));
    drop(queue);
    netns.wait_for_links("t0 is gone", |links| !links.contains("t0"));
}

#[test]
fn a_queue_knows_when_its_twin_was_deleted() {
    let netns = Netns::new();
    let anchor = netns.anchor(Kind::Tun);
    let queue = netns.attach(Kind::Tun);
    netns.ip("link set t0 up");
    netns.ip("link del t0");

    let mut ready = [PollFd::new(queue.as_fd(), PollFlags::POLLIN)];
    poll(&mut ready, PollTimeout::ZERO).unwrap();
    assert!(ready[0].revents().unwrap().contains(PollFlags::POLLERR));
    assert!(is_gone(&queue.read(&mut [0; 64]).unwrap_err()));
    assert!(is_gone(&queue.write(&udp(THERE, HERE, 1, "")).unwrap_err()));
    assert!(
        matches!(Queue::attach("t0", Kind::Tun, Some(&netns.0)), Err(Error::Absent(name)) if name == "t0")
    );
    let error = anchor.remove().unwrap_err().to_string();
    assert!(error.starts_with("twin `t0`: TUNSETPERSIST: "), "{error}");

    let _anchor = netns.anchor(Kind::Tun);
    netns.attach(Kind::Tun);
}

#[test]
fn what_is_no_twin_is_left_alone() {
    let netns = Netns::new();
    let refused = |kind| {
        let create = netns.run(|| Anchor::create("t0", kind)).unwrap_err();
        assert!(matches!(&create, Error::Foreign { name, .. } if name == "t0"), "{create}");
        let attach = Queue::attach("t0", kind, Some(&netns.0)).unwrap_err();
        assert!(matches!(&attach, Error::Foreign { name, .. } if name == "t0"), "{attach}");
        assert!(netns.ip("link show").contains("t0"));
    };
    netns.ip("link add t0 type veth peer name t1");
    refused(Kind::Tap);
    netns.ip("link del t0");

    netns.ip("tuntap add dev t0 mode tap");
    refused(Kind::Tap);
    netns.ip("link del t0");

    let _anchor = netns.anchor(Kind::Tun);
    refused(Kind::Tap);
    netns.ip("link del t0");

    // A device that lives by its file, as DPDK's net_tap makes them.
    let _anchor = netns.anchor(Kind::Tap);
    let _queue = netns.attach(Kind::Tap);
    netns.anchor(Kind::Tap).remove().unwrap();
    refused(Kind::Tap);
}

#[test]
fn errors_name_the_device_and_the_step() {
    assert_eq!(
        Anchor::create("a-name-too-long-for-it", Kind::Tap).unwrap_err().to_string(),
        "`a-name-too-long-for-it` cannot be the name of a twin: 1 to 15 bytes"
    );
    let netns = Netns::new();
    let absent = Queue::attach("t0", Kind::Tap, Some(&netns.0)).unwrap_err();
    assert_eq!(absent.to_string(), "twin `t0` is not there");
    assert!(!netns.ip("link show").contains("t0"));
    let nowhere = Queue::attach("t0", Kind::Tap, Some(Path::new("twin-nowhere"))).unwrap_err().to_string();
    assert!(nowhere.starts_with("network namespace `/run/netns/twin-nowhere`: open: "), "{nowhere}");
    let no_netns = Queue::attach("t0", Kind::Tap, Some(Path::new("/dev/null"))).unwrap_err().to_string();
    assert!(no_netns.starts_with("network namespace `/dev/null`: setns: "), "{no_netns}");
}

/// A name that goes with the test, for a namespace that the crate makes.
struct Name(String);

impl Drop for Name {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.0]).stderr(Stdio::null()).status().ok();
    }
}

#[test]
fn a_namespace_is_made_once_named_for_all_and_removed() {
    let name = Name(format!("twin-{}-made", std::process::id()));
    assert!(netns_id(Some(name.0.as_ref())).is_err());
    // What a restart of the machine leaves where /run is on a disk.
    std::fs::write(Path::new(NAMED).join(&name.0), "").unwrap();
    assert!(make_netns(&name.0).unwrap());
    assert!(!make_netns(&name.0).unwrap(), "it is there");
    assert!(ip(&["netns", "list"]).contains(&name.0));
    assert!(ip(&["-n", &name.0, "-o", "link", "show"]).contains("lo: <LOOPBACK>"));

    let id = netns_id(Some(name.0.as_ref())).unwrap();
    let inside = in_netns(name.0.as_ref(), || netns_id(None).unwrap()).unwrap();
    assert_eq!(inside, id);
    assert_ne!(netns_id(None).unwrap(), id, "this thread is where it was");

    remove_netns(&name.0).unwrap();
    assert!(!Path::new(NAMED).join(&name.0).exists());
    let error = remove_netns(&name.0).unwrap_err().to_string();
    assert!(error.starts_with(&format!("network namespace `/run/netns/{}`: ", name.0)), "{error}");
}

#[test]
fn a_named_namespace_has_its_own_hosts_file_for_who_asks_in_it_and_nobody_else() {
    use std::net::ToSocketAddrs;
    let name = Name(format!("twin-{}-etc", std::process::id()));
    make_netns(&name.0).unwrap();
    let files = FilesOf(Path::new("/etc/netns").join(&name.0));
    std::fs::create_dir_all(&files.0).unwrap();
    std::fs::write(files.0.join("hosts"), "198.51.100.7 hub.nave.test\n").unwrap();
    std::fs::write(files.0.join("no-such-file-in-etc"), "").unwrap();
    let look_up =
        || ("hub.nave.test", 0).to_socket_addrs().map(|all| all.map(|a| a.ip().to_string()).collect());
    let inside: Vec<String> = in_netns_with_files(name.0.as_ref(), look_up).unwrap().unwrap();
    assert_eq!(inside, ["198.51.100.7"]);
    let hosts = || std::fs::read_to_string("/etc/hosts").unwrap();
    assert!(!hosts().contains("hub.nave.test"), "this thread sees what it saw");
    assert!(!in_netns(name.0.as_ref(), hosts).unwrap().contains("hub.nave.test"));
    drop(files);
    assert!(!in_netns_with_files(name.0.as_ref(), hosts).unwrap().contains("hub.nave.test"), "it needs none");
    remove_netns(&name.0).unwrap();
}

/// A folder in `/etc/netns`.
struct FilesOf(std::path::PathBuf);

impl Drop for FilesOf {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn a_queue_keeps_a_namespace_that_lost_its_name_until_its_twin_is_deleted() {
    let name = Name(format!("twin-{}-lost", std::process::id()));
    let path = Path::new(&name.0);
    make_netns(&name.0).unwrap();
    let anchor = in_netns(path, || Anchor::create("t0", Kind::Tun)).unwrap().unwrap();
    let queue = Queue::attach("t0", Kind::Tun, Some(path)).unwrap();
    remove_netns(&name.0).unwrap();
    drop(anchor);
    assert_eq!(queue.read(&mut [0; 64]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);

    // Another namespace of that name has another twin.
    make_netns(&name.0).unwrap();
    assert!(matches!(Queue::attach("t0", Kind::Tun, Some(path)), Err(Error::Absent(_))));
}
