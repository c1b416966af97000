//! Protected tunnels on the running system: whatever happens, nothing of them is on the underlay that could be read, no nonce is used
//! twice, and what nobody should send is dropped for its own reason. Keys are static ones, made for each run.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::{IpAddr, Ipv4Addr};
use std::thread::sleep;
use std::time::Duration;

use tests::capture::{Capture, Frame};
use tests::census::{Census, Lookout, Secrets};
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::esp::{self, Esp, Sa};
use tests::flows::{self, Flows, WAYS};
use tests::probe::Probe;
use tests::traffic::{Stream, wall_clock};
use tests::{frame, lock, trail, wait};

/// Packets a second, each way.
const RATE: u32 = 200;
/// How long a flow may stand still while processes start.
const PATIENCE: Duration = Duration::from_secs(15);

/// A phase 3 cloud that is laid, and protected.
fn protected(ports: Ports) -> Cloud {
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, ports).unwrap();
    cloud.protect().unwrap();
    cloud
}

/// All hosts have reached each other, and the spokes know the shortcut both ways.
fn meet(cloud: &Cloud) {
    for (from, to) in WAYS {
        cloud.reach(from, to, PATIENCE).unwrap();
    }
    let knows =
        |node: usize, lan: &str| cloud.nodes[node].nave("show fib").is_ok_and(|fib| fib.contains(lan));
    wait::until_true("the shortcuts", Duration::from_secs(10), || {
        knows(SPOKE1, "192.168.12.0/24") && knows(SPOKE2, "192.168.11.0/24")
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.what_is_known()));
}

/// Waits until a node has dropped more for this reason than it had.
fn drops_more(cloud: &Cloud, node: usize, reason: &str, before: u64) {
    let node = &cloud.nodes[node];
    wait::until_true(reason, Duration::from_secs(10), || node.drops(reason).unwrap() > before)
        .unwrap_or_else(|e| panic!("{e:#} at {}\n{}", node.name, cloud.what_is_known()));
}

/// Input: ten kills (SIGKILL) of each process of the hub and of a spoke, a control plane alone or with its data plane, while traffic goes all
/// ways. Output: it goes on after each; on the underlay there is ESP and nothing else that is the tunnels'; each of the six SAs uses every
/// IV once, and its sequence numbers go up, in the whole run. A control plane that dies alone costs no packet.
#[test]
fn ten_kills_of_each_process_leave_all_sealed_and_no_nonce_is_used_twice() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = protected(Ports::AfPacket);
    let lookout = Lookout::start(&cloud).unwrap();
    cloud.start().unwrap();
    meet(&cloud);
    flows::go_on_through_kills(&mut cloud, 6100, RATE, PATIENCE).unwrap();
    cloud.check_alive().unwrap();
    cloud.stop().unwrap();
    let census = lookout.finish().unwrap();
    println!("{census}; {} SAs", census.sas());
    census.check().unwrap();
    assert_eq!(census.sas(), 6);
}

/// Input: a spoke that has no keys with anybody, and gets them; whose keys with a peer, and then with all, are taken away; and changed,
/// first at one end. Output: without an SA its packets go by the server or nowhere, each drop with its reason, and never in the clear;
/// with both ends in agreement traffic goes on.
#[test]
fn an_sa_that_is_missing_removed_or_changed_leaves_nothing_in_the_clear() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = protected(Ports::Tap);
    let [hub, spoke1, spoke2] = [HUB, SPOKE1, SPOKE2].map(|node| IpAddr::from(cloud.nodes[node].nbma));
    let lookout = Lookout::start(&cloud).unwrap();

    // Missing at the start: it cannot even register, and its hosts are told.
    for remote in [hub, spoke1] {
        cloud.nodes[SPOKE2].forget_keys(remote, 0).unwrap();
    }
    cloud.start_processes().unwrap();
    cloud.wait_registered(SPOKE1).unwrap();
    drops_more(&cloud, SPOKE2, "no-outbound-sa", 0);
    let to = cloud.nodes[HUB].host.address().to_string();
    let said = cloud.nodes[SPOKE2].host.namespace.output("ping", &["-n", "-c", "2", "-W", "1", &to]).unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("From 192.168.12.1") && said.contains("Unreachable"), "{said}");
    assert!(!cloud.is_registered(SPOKE2).unwrap());
    for other in [HUB, SPOKE1] {
        let pair = cloud.pairs[&(other, SPOKE2)].clone();
        cloud.give(&pair, [other, SPOKE2]).unwrap();
    }
    cloud.nodes[SPOKE2].apply().unwrap();
    cloud.wait_registered(SPOKE2).unwrap();
    meet(&cloud);

    // Removed between the spokes: by the server, as a next hop that is not resolved.
    let stream = Stream::start(cloud.flow(SPOKE1, SPOKE2, 6200, RATE)).unwrap();
    sleep(Duration::from_millis(300));
    cloud.nodes[SPOKE1].forget_keys(spoke2, 0).unwrap();
    cloud.nodes[SPOKE1].apply().unwrap();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    sleep(Duration::from_millis(500));
    let frames = capture.finish().unwrap();
    let went = |from: IpAddr, to: IpAddr| {
        frames
            .iter()
            .filter_map(esp::packet)
            .filter(|esp| (esp.source, esp.destination) == (from, to))
            .count()
    };
    assert!(went(spoke1, hub) > 50 && went(spoke1, spoke2) == 0, "{}", cloud.what_is_known());
    let tally = stream.finish().unwrap();
    assert!(tally.is_whole(), "{tally}\n{}", cloud.what_is_known());
    // The other end does not know: what it sends is of no SA here.
    let before = cloud.nodes[SPOKE1].drops("no-sa").unwrap();
    assert!(!cloud.pings(SPOKE2, cloud.nodes[SPOKE1].host.address()).unwrap());
    drops_more(&cloud, SPOKE1, "no-sa", before);

    // Removed with the server too: nowhere.
    let before = cloud.nodes[SPOKE1].drops("no-outbound-sa").unwrap();
    cloud.nodes[SPOKE1].forget_keys(hub, 0).unwrap();
    cloud.nodes[SPOKE1].apply().unwrap();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    assert!(!cloud.pings(SPOKE1, cloud.nodes[SPOKE2].host.address()).unwrap());
    let frames = capture.finish().unwrap();
    let went = frames.iter().filter_map(esp::packet).filter(|esp| esp.source == spoke1).count();
    assert_eq!(went, 0, "a node without an outbound SA sends ESP");
    drops_more(&cloud, SPOKE1, "no-outbound-sa", before);

    // And given back, with new keys: one end first.
    for (other, nodes) in [(HUB, (HUB, SPOKE1)), (SPOKE2, (SPOKE1, SPOKE2))] {
        let mut pair = cloud.pairs[&nodes].clone();
        pair.renew().unwrap();
        cloud.give(&pair, [nodes.0, nodes.1]).unwrap();
        cloud.pairs.insert(nodes, pair);
        let before = [other, SPOKE1].map(|node| cloud.nodes[node].drops("no-sa").unwrap());
        cloud.nodes[other].apply().unwrap();
        let _ = cloud.pings(other, cloud.nodes[SPOKE1].host.address()).unwrap();
        drops_more(&cloud, SPOKE1, "no-sa", before[1]);
    }
    cloud.nodes[SPOKE1].apply().unwrap();
    for (from, to) in WAYS {
        cloud.reach(from, to, PATIENCE).unwrap();
    }
    cloud.check_alive().unwrap();
    cloud.stop().unwrap();
    lookout.finish().unwrap().check().unwrap();
}

/// Input: while traffic goes all ways, thousands of routes come and go, the hub dies and then the spokes' control planes, and a spoke gets
/// another underlay address. Output: nothing in the clear; the flows
/// that all this does not concern lose nothing.
#[test]
fn routes_and_addresses_change_under_traffic_and_nothing_is_in_the_clear() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = protected(Ports::Tap);
    let lookout = Lookout::start(&cloud).unwrap();
    cloud.start().unwrap();
    meet(&cloud);

    // Tables are swapped under load.
    let flows = Flows::start(&cloud, &WAYS, 6100, RATE, PATIENCE).unwrap();
    let routes = cloud.nodes[SPOKE1].config["routes"].clone();
    for round in 0..4 {
        if round % 2 == 0 {
            let more: String = (0..2000)
                .map(|n| {
                    format!(
                        "[[routes]]\nprefix = \"10.{}.{}.0/24\"\nnext_hop = \"10.255.0.1\"\n",
                        n / 250,
                        n % 250
                    )
                })
                .collect();
            let more: toml::Table = more.parse().unwrap();
            let list = cloud.nodes[SPOKE1].config["routes"].as_array_mut().unwrap();
            list.extend(more["routes"].as_array().unwrap().iter().cloned());
        } else {
            cloud.nodes[SPOKE1].config.insert("routes".to_owned(), routes.clone());
        }
        cloud.nodes[SPOKE1].apply().unwrap();
        flows.go_on(&cloud, "traffic over new tables").unwrap();
    }
    flows.are_whole(&cloud).unwrap();

    // The hub is away, and then the spokes' control planes: what they agreed on goes on.
    let ways = [(SPOKE1, SPOKE2), (SPOKE2, SPOKE1)];
    let flows = Flows::start(&cloud, &ways, 6300, RATE, PATIENCE).unwrap();
    flows.go_on(&cloud, "traffic").unwrap();
    cloud.nodes[HUB].kill_dataplane().unwrap();
    cloud.nodes[HUB].kill_controlplane().unwrap();
    sleep(Duration::from_millis(500));
    for spoke in [SPOKE1, SPOKE2] {
        cloud.nodes[spoke].kill_controlplane().unwrap();
    }
    flows.go_on(&cloud, "traffic without any control plane").unwrap();
    for spoke in [SPOKE1, SPOKE2] {
        cloud.nodes[spoke].start_controlplane().unwrap();
    }
    cloud.start_node(HUB).unwrap();
    flows.are_whole(&cloud).unwrap();
    for (from, to) in WAYS {
        cloud.reach(from, to, PATIENCE).unwrap();
    }

    // A spoke is elsewhere. Its keys are the same, and so the numbers that they may seal go on where they were.
    let (old, new) = (cloud.nodes[SPOKE1].nbma, Ipv4Addr::new(203, 0, 113, 111));
    for nodes in [(HUB, SPOKE1), (SPOKE1, SPOKE2)] {
        let mut pair = cloud.pairs[&nodes].clone();
        let other = if nodes.0 == SPOKE1 { nodes.1 } else { nodes.0 };
        cloud.nodes[other].forget_keys(old.into(), 0).unwrap();
        pair.ends[usize::from(nodes.1 == SPOKE1)] = new.into();
        cloud.give(&pair, [nodes.0, nodes.1]).unwrap();
        cloud.pairs.insert(nodes, pair);
    }
    cloud.nodes[SPOKE1]
        .edit(|text| text.replace(&format!("\"{old}/24\""), &format!("\"{new}/24\"")))
        .unwrap();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    for node in [SPOKE1, HUB, SPOKE2] {
        cloud.nodes[node].apply().unwrap();
    }
    wait::until_true("a registration from there", Duration::from_secs(30), || {
        let binding = cloud.nodes[HUB].binding(cloud.nodes[SPOKE1].tunnel).unwrap();
        binding.is_some_and(|(_, nbma)| nbma == IpAddr::from(new))
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.what_is_known()));
    for (from, to) in [(HUB, SPOKE1), (SPOKE1, HUB), (SPOKE1, SPOKE2)] {
        cloud.reach(from, to, PATIENCE).unwrap();
    }
    let frames = capture.finish().unwrap();
    let from_there = frames.iter().filter_map(esp::packet).filter(|esp| esp.source == IpAddr::from(new));
    assert!(from_there.count() > 3);
    cloud.check_alive().unwrap();
    cloud.stop().unwrap();
    lookout.finish().unwrap().check().unwrap();
}

/// Input: a cloud in the clear, with traffic all ways, whose nodes one after the other are told to protect their tunnels. Output: from the
/// moment that a node says that it has taken this, it sends nothing in the clear and takes nothing that came so; when all have, traffic
/// goes on.
#[test]
fn a_tunnel_that_becomes_protected_sends_nothing_in_the_clear_from_then_on() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::up(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    meet(&cloud);
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let flows = Flows::start(&cloud, &WAYS, 6100, RATE, PATIENCE).unwrap();
    flows.go_on(&cloud, "traffic in the clear").unwrap();
    cloud.protect().unwrap();
    let mut taken = Vec::new();
    for node in [SPOKE1, HUB, SPOKE2] {
        let before = cloud.nodes[node].drops("unprotected-in").unwrap();
        cloud.nodes[node].apply().unwrap();
        taken.push((IpAddr::from(cloud.nodes[node].nbma), wall_clock()));
        // The others still send it what can be read; the last has nobody left who does.
        if node != SPOKE2 {
            drops_more(&cloud, node, "unprotected-in", before);
        }
    }
    flows.go_on(&cloud, "traffic that is protected").unwrap();
    let all = wall_clock();
    flows.go_on(&cloud, "more of it").unwrap();
    flows.finish().unwrap().iter().for_each(|tally| println!("{tally}"));
    let frames = capture.finish().unwrap();
    for (source, at) in &taken {
        let clear: Vec<_> = frames
            .iter()
            .filter_map(trail::gre)
            .filter(|gre| gre.source == *source && gre.at > *at)
            .collect();
        assert!(
            clear.is_empty(),
            "{source} sends {} in the clear afterwards: {:?}",
            clear.len(),
            clear.first()
        );
        assert!(frames.iter().filter_map(trail::gre).any(|gre| gre.source == *source), "it never did");
    }
    let rest: Vec<Frame> = frames.into_iter().filter(|frame| frame.at > all).collect();
    Census::of(Secrets::of(&cloud), &rest).check().unwrap();
    cloud.check_alive().unwrap();
}

/// A protected hub that a stranger on the underlay sends packets to.
struct Target {
    cloud: Cloud,
    probe: Probe,
    mac: [u8; 6],
}

impl Target {
    fn up() -> Self {
        let mut cloud = protected(Ports::Tap);
        cloud.start().unwrap();
        meet(&cloud);
        let probe = Probe::plug_in(&cloud).unwrap();
        let mac = probe.resolve(cloud.nodes[HUB].nbma).unwrap();
        Self { cloud, probe, mac }
    }

    /// Sends an IP packet to the hub; it is dropped for this reason.
    fn expect(&self, what: &str, reason: &str, packet: &[u8]) {
        let before = self.cloud.nodes[HUB].drops(reason).unwrap();
        self.probe.send(self.mac, packet).unwrap();
        let count = || self.cloud.nodes[HUB].drops(reason).unwrap();
        wait::until_true(what, Duration::from_secs(3), || count() > before).unwrap_or_else(|e| {
            panic!("{e:#}: {reason}\n{}", self.cloud.nodes[HUB].nave("show drops").unwrap())
        });
        assert_eq!(count(), before + 1, "{what}");
    }

    fn from(&self, source: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        frame::ipv4((source, self.cloud.nodes[HUB].nbma), protocol, 64, payload)
    }

    /// A packet of spoke1 to the hub that was on the underlay, without Ethernet.
    fn captured(&self) -> Vec<u8> {
        let capture = Capture::start(&self.cloud.internet, BRIDGE, |_| true).unwrap();
        self.cloud.reach(SPOKE1, HUB, PATIENCE).unwrap();
        let frames = capture.finish().unwrap();
        let own = IpAddr::from(self.cloud.nodes[SPOKE1].nbma);
        let to_hub =
            |esp: &Esp<'_>| esp.source == own && esp.destination == IpAddr::from(self.cloud.nodes[HUB].nbma);
        let found = frames.iter().rfind(|frame| esp::packet(frame).is_some_and(|esp| to_hub(&esp))).unwrap();
        found.bytes[14..].to_vec()
    }
}

/// Where the sequence number is in an IPv4 packet of ESP, and where the encrypted text begins.
const SEQUENCE: usize = 24;
const TEXT: usize = 36;

/// Input: packets that nobody should send to a protected node, and a key that only one end knows. Output: each is dropped for its reason, and
/// traffic goes on.
#[test]
fn each_bad_packet_to_a_protected_tunnel_has_its_reason() {
    let _turn = lock::take_turn().unwrap();
    let target = Target::up();
    let [spoke1, spoke2] = [SPOKE1, SPOKE2].map(|node| target.cloud.nodes[node].nbma);
    let inside = frame::ipv4(
        (target.cloud.nodes[SPOKE1].host.address(), target.cloud.nodes[HUB].host.address()),
        17,
        64,
        &frame::udp(9, 9, &[0; 32]),
    );
    let gre = frame::gre(Some(42), 0x0800, &inside);

    // In the clear, from a peer and from anybody.
    target.expect("GRE of a peer in the clear", "unprotected-in", &target.from(spoke2, esp::GRE, &gre));
    target.expect("GRE in the clear", "unprotected-in", &target.from(Probe::ADDRESS, esp::GRE, &gre));
    let hub = target.cloud.nodes[HUB].tunnel;
    let stranger = Ipv4Addr::new(10, 255, 0, 66);
    let message = frame::nhrp_registration(1, Probe::ADDRESS, stranger, hub, Some("wheel"));
    let registration = frame::gre(Some(42), trail::NHRP, &message);
    target.expect(
        "NHRP in the clear",
        "unprotected-in",
        &target.from(Probe::ADDRESS, esp::GRE, &registration),
    );
    assert_eq!(target.cloud.nodes[HUB].entry_of(stranger).unwrap(), None);

    // What was on the wire comes again.
    let old = target.captured();
    target.expect("a packet that comes again", "replayed", &old);
    target.expect("and again", "replayed", &old);

    // Forged: a number that was not there yet, and then any bit.
    let sequence = u32::from_be_bytes(old[SEQUENCE..SEQUENCE + 4].try_into().unwrap());
    let mut ahead = old.clone();
    ahead[SEQUENCE..SEQUENCE + 4].copy_from_slice(&(sequence + 500).to_be_bytes());
    target.expect("another sequence number", "bad-icv", &ahead);
    let sa: &Sa = &target.cloud.pairs[&(HUB, SPOKE1)].sas[0];
    let genuine = |sequence: u32, next: u8, payload: &[u8]| {
        target.from(spoke1, esp::ESP, &sa.seal(sequence, next, payload).unwrap())
    };
    let good = genuine(sequence + 500, esp::GRE, &gre);
    for (what, at) in
        [("IV", TEXT - 1), ("text", TEXT), ("trailer", good.len() - 17), ("ICV", good.len() - 1)]
    {
        let mut forged = good.clone();
        forged[at] ^= 1;
        target.expect(&format!("a bit of the {what} is another"), "bad-icv", &forged);
    }
    target.expect("cut short", "esp-malformed", &{
        let mut short = good[..TEXT + 8].to_vec();
        frame::seal_ipv4(&mut short);
        short
    });
    // No such SA: another life of the slot, and no slot at all.
    for bytes in [[good[20] ^ 0x80, good[21], good[22], good[23]], [7, 0, 0x77, 0x77]] {
        let mut other = good.clone();
        other[20..24].copy_from_slice(&bytes);
        target.expect("an SPI of nobody", "no-sa", &other);
    }
    // Genuine, and yet not what the SA is for.
    for (what, source) in [("another peer", spoke2), ("a stranger", Probe::ADDRESS)] {
        let mut moved = good.clone();
        moved[12..16].copy_from_slice(&source.octets());
        frame::seal_ipv4(&mut moved);
        target.expect(&format!("from {what}"), "sa-mismatch", &moved);
    }
    let in_udp = frame::udp(esp::NAT_PORT, esp::NAT_PORT, &good[20..]);
    target.expect("in UDP, which was not agreed on", "sa-mismatch", &target.from(spoke1, 17, &in_udp));
    target.expect("not GRE", "sa-mismatch", &genuine(sequence + 501, 17, &frame::udp(9, 9, &[0; 32])));
    target.expect("IP without GRE", "sa-mismatch", &genuine(sequence + 502, 4, &inside));
    target.expect("a dummy", "esp-dummy", &genuine(sequence + 503, 59, &[0; 32]));
    let of_nobody = frame::gre(Some(43), 0x0800, &inside);
    target.expect("GRE of no tunnel", "gre-no-tunnel", &genuine(sequence + 504, esp::GRE, &of_nobody));
    let keepalive = frame::udp(esp::NAT_PORT, esp::NAT_PORT, &[0xff]);
    target.expect("a keepalive", "nat-keepalive", &target.from(spoke1, 17, &keepalive));

    // The good one is taken once, all of it being right.
    target.probe.send(target.mac, &good).unwrap();
    target.expect("what was taken", "replayed", &good);
    for (from, to) in WAYS {
        target.cloud.reach(from, to, PATIENCE).unwrap();
    }

    // The right SPI with a key that the peer does not know, until it does.
    let mut cloud = target.cloud;
    let mut pair = cloud.pairs[&(HUB, SPOKE2)].clone();
    pair.change_keys().unwrap();
    cloud.give(&pair, [HUB, SPOKE2]).unwrap();
    cloud.nodes[HUB].apply().unwrap();
    // The hub counts anew; the spoke has had those numbers.
    for (from, to, reason) in [(SPOKE2, HUB, "bad-icv"), (HUB, SPOKE2, "replayed")] {
        let before = cloud.nodes[to].drops(reason).unwrap();
        assert!(!cloud.pings(from, cloud.nodes[to].host.address()).unwrap());
        drops_more(&cloud, to, reason, before);
    }
    cloud.nodes[SPOKE2].apply().unwrap();
    cloud.reach(SPOKE2, HUB, PATIENCE).unwrap();
    cloud.reach(HUB, SPOKE2, PATIENCE).unwrap();
    cloud.check_alive().unwrap();
}
