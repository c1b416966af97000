//! What nobody should send: each kind of it is dropped or rejected for its own reason, and nothing else suffers.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

use tests::cloud::{self, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::probe::Probe;
use tests::trail::NHRP;
use tests::{frame, lock, wait};

const KEY: u32 = 42;
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 66);

/// The count that has this name in a list of `show drops` or `show counters`.
fn count(list: &Value, name: &str) -> u64 {
    let found = list.as_array().unwrap().iter().find(|c| c["name"] == name);
    found.map_or(0, |c| c["count"].as_u64().unwrap())
}

struct Target {
    cloud: Cloud,
    probe: Probe,
    mac: [u8; 6],
}

impl Target {
    fn up() -> Self {
        let cloud = Cloud::up(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
        let probe = Probe::plug_in(&cloud).unwrap();
        let mac = probe.resolve(cloud.nodes[HUB].nbma).unwrap();
        Self { cloud, probe, mac }
    }

    fn drops(&self, reason: &str) -> u64 {
        count(&self.cloud.nodes[HUB].nave_json("show drops").unwrap(), reason)
    }

    fn rejects(&self, reason: &str) -> u64 {
        count(&self.cloud.nodes[HUB].nave_json("show counters").unwrap()["rejects"], reason)
    }

    /// Sends a packet to the hub and waits until the count goes up by one.
    fn expect(&self, what: &str, packet: &[u8], count: impl Fn() -> u64) {
        self.expect_within(Duration::from_secs(3), what, packet, count);
    }

    fn expect_within(&self, limit: Duration, what: &str, packet: &[u8], count: impl Fn() -> u64) {
        let before = count();
        self.probe.send(self.mac, packet).unwrap();
        wait::until_true(what, limit, || count() > before)
            .unwrap_or_else(|e| panic!("{e:#}\n{}", self.cloud.nodes[HUB].nave("show drops").unwrap()));
        assert_eq!(count(), before + 1, "{what}");
    }

    fn expect_drop(&self, what: &str, reason: &str, packet: &[u8]) {
        self.expect(&format!("{what}: {reason}"), packet, || self.drops(reason));
    }

    fn expect_reject(&self, what: &str, reason: &str, message: &[u8]) {
        let packet = self.gre(Some(KEY), NHRP, message);
        self.expect(&format!("{what}: {reason}"), &packet, || self.rejects(reason));
    }

    fn outer(&self, payload: &[u8]) -> Vec<u8> {
        frame::ipv4((Probe::ADDRESS, self.cloud.nodes[HUB].nbma), 47, 64, payload)
    }

    fn gre(&self, key: Option<u32>, protocol: u16, payload: &[u8]) -> Vec<u8> {
        self.outer(&frame::gre(key, protocol, payload))
    }

    fn inner(&self, ttl: u8) -> Vec<u8> {
        let to = self.cloud.nodes[SPOKE1].host.address();
        frame::ipv4((STRANGER, to), 17, ttl, &frame::udp(9, 9, &[0; 32]))
    }

    fn registration(&self, authentication: Option<&str>) -> Vec<u8> {
        frame::nhrp_registration(1, Probe::ADDRESS, STRANGER, self.cloud.nodes[HUB].tunnel, authentication)
    }
}

#[test]
fn each_bad_packet_has_its_reason() {
    let _turn = lock::take_turn().unwrap();
    let target = Target::up();

    // The data plane's.
    let good = target.gre(Some(KEY), 0x0800, &target.inner(64));
    target.expect_drop("wrong key", "gre-no-tunnel", &target.gre(Some(KEY + 1), 0x0800, &target.inner(64)));
    target.expect_drop("no key", "gre-no-tunnel", &target.gre(None, 0x0800, &target.inner(64)));
    target.expect_drop("GRE cut in its flags", "gre-malformed", &target.outer(&[0x20, 0]));
    target.expect_drop("GRE cut in its key", "gre-malformed", &target.outer(&[0x20, 0, 8, 0, 0, 0]));
    let mut version = frame::gre(Some(KEY), 0x0800, &target.inner(64));
    version[1] |= 1;
    target.expect_drop("GRE version 1", "gre-malformed", &target.outer(&version));
    target.expect_drop(
        "GRE with what we do not carry",
        "gre-protocol",
        &target.gre(Some(KEY), 0x1234, &[0; 40]),
    );
    let mut outer = good.clone();
    outer[10] ^= 1;
    target.expect_drop("bad checksum outside", "bad-checksum", &outer);
    let mut inner = target.inner(64);
    inner[10] ^= 1;
    target.expect_drop("bad checksum inside", "bad-checksum", &target.gre(Some(KEY), 0x0800, &inner));
    let mut long = target.inner(64);
    long[3] += 1;
    let sum = {
        long[10..12].fill(0);
        frame::checksum(&long[..20])
    };
    long[10..12].copy_from_slice(&sum.to_be_bytes());
    target.expect_drop("longer than it is", "bad-header", &target.gre(Some(KEY), 0x0800, &long));
    target.expect_drop("time to live 1", "ttl-expired", &target.gre(Some(KEY), 0x0800, &target.inner(1)));
    // Fragments that contradict each other: both are refused, and no other packet.
    let [head, tail] = [(0..32, true), (24..good.len() - 20, false)]
        .map(|(bytes, more)| frame::fragment(&good, bytes, more));
    target.probe.send(target.mac, &head).unwrap();
    let before = target.drops("fragment-overlap");
    target.probe.send(target.mac, &tail).unwrap();
    wait::until_true("overlapping fragments", Duration::from_secs(3), || {
        target.drops("fragment-overlap") > before
    })
    .unwrap();
    // One that stays alone is not kept for long.
    let mut alone = head;
    alone[4] ^= 0x55;
    frame::seal_ipv4(&mut alone);
    target.expect_within(Duration::from_secs(10), "a fragment alone", &alone, || {
        target.drops("reassembly-timeout")
    });
    let transit = frame::ipv4(
        (Probe::ADDRESS, target.cloud.nodes[SPOKE1].host.address()),
        17,
        64,
        &frame::udp(9, 9, &[0; 32]),
    );
    target.expect_drop("around the tunnel", "underlay-transit", &transit);

    // The NHRP engine's.
    let authentication = Some("wheel");
    target.expect_reject("wrong authentication", "authentication", &target.registration(Some("spoke")));
    target.expect_reject("no authentication", "authentication", &target.registration(None));
    let good = target.registration(authentication);
    target.expect_reject("NHRP cut short", "truncated", &good[..30]);
    let mut checksum = good.clone();
    checksum[12] ^= 1;
    target.expect_reject("bad NHRP checksum", "checksum", &checksum);

    // And no harm done: the stranger is no client, the others still talk.
    // (It is one that the hub looked for, to say that its packet ended here.)
    let is_client = || {
        let entries = target.cloud.nodes[HUB].nave_json("show nhrp").unwrap();
        let of_stranger = |entry: &&Value| entry["prefix"] == format!("{STRANGER}/32");
        entries
            .as_array()
            .unwrap()
            .iter()
            .find(of_stranger)
            .is_some_and(|entry| entry["flags"]["registered"] == true)
    };
    assert!(!is_client());
    assert!(target.cloud.pings(SPOKE1, target.cloud.nodes[SPOKE2].host.address()).unwrap());
    // The right authentication is what was missing.
    target.probe.send(target.mac, &target.gre(Some(KEY), NHRP, &good)).unwrap();
    wait::until_true("registration of the stranger", Duration::from_secs(3), is_client).unwrap();
}
