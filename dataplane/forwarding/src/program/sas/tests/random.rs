//! Whatever is programmed, in whatever order, with workers that lag and processes that start again: nothing of a protected tunnel is in the
//! clear, no slot is of two peers, and no number is used twice with a key.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::adjacency::{AdjacencyId, CHUNK};
use crate::program::ledger::Domain;

const WORKERS: usize = 2;
const PROFILES: [&str; 2] = ["one", "two"];
const REMOTES: [&str; 2] = ["192.0.2.8", "192.0.2.9"];
const PORTS: [u16; 2] = [0, 1024];
/// Peers that there may be: any profile, remote and port.
const PEERS: usize = 8;

fn any_peer(number: usize) -> Protection {
    peer(PROFILES[number / 4], REMOTES[number / 2 % 2], PORTS[number % 2])
}

/// Of each peer, worker and key another SPI.
fn spi_of(number: usize, worker: u16, key: u8) -> u32 {
    0x1000 + number as u32 * 16 + u32::from(worker) * 4 + u32::from(key)
}

fn peer_of(spi: u32) -> Protection {
    any_peer((spi - 0x1000) as usize / 16)
}

#[derive(Debug, Clone)]
enum Step {
    Tell(Vec<Op>),
    /// An outbound SA by peer, worker and key; said as by somebody who does not know what runs, or who only gives more.
    Outbound {
        number: usize,
        worker: u16,
        key: u8,
        anew: bool,
        more: u64,
        esn: bool,
    },
    NoOutbound {
        number: usize,
        worker: u16,
    },
    /// The control plane starts again: what it does not say goes.
    Resync {
        keep: u8,
    },
    /// The data plane does.
    Restart,
    /// A worker breathes and seals so many packets with each SA that it has.
    Breathe {
        worker: usize,
        packets: u64,
    },
    Pump,
}

/// What the control plane knows and has recorded.
#[derive(Default)]
struct Control {
    /// Of each SPI and key the last number that was leased.
    bounds: HashMap<(u32, u8), u64>,
    /// What it says now.
    said: HashMap<Key, Object>,
    /// The highest number that was used of each SPI and key.
    used: HashMap<(u32, u8), u64>,
}

impl Control {
    /// An SA with numbers that are recorded before it is told.
    fn leased(&mut self, mut sa: OutboundSa, anew: bool, more: u64) -> Object {
        let bound = self.bounds.entry((sa.spi.value(), sa.key.salt()[0])).or_default();
        let running = match self.said.get(&Key::OutboundSa(sa.protection, sa.worker)) {
            Some(Object::OutboundSa(old)) => (old.spi, &old.key) == (sa.spi, &sa.key),
            _ => false,
        };
        // What runs may be told the old beginning. (What has another use of its key then has no say in it.)
        let first = if running && !anew { 1 } else { *bound + 1 };
        *bound += more;
        sa.lease = Lease { first, last: *bound };
        Object::OutboundSa(sa)
    }

    fn tell(&mut self, hub: &mut Hub, ops: Vec<Op>) {
        if hub.apply(ops.clone()).is_err() {
            return;
        }
        for op in ops {
            match op {
                Op::ResyncBegin(_) => self.said.clear(),
                Op::Put(_, object) => drop(self.said.insert(object.key(), object)),
                Op::Remove(_, key) => drop(self.said.remove(&key)),
                _ => {}
            }
        }
    }

    /// All that it says, with SAs anew.
    fn again(&mut self, keep: impl Fn(usize, &Key) -> bool) -> Vec<Op> {
        // It may be refused, as what stands on a tunnel that is not said any more is: then what was said before still counts.
        let mut all: Vec<_> = self.said.iter().map(|(key, object)| (*key, object.clone())).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        let kept = all.into_iter().enumerate().filter(|(at, (key, _))| keep(*at, key));
        let kept: Vec<_> = kept.map(|(_, (_, object))| object).collect();
        let again = kept.into_iter().map(|object| match object {
            Object::OutboundSa(sa) => self.leased(sa, true, 3),
            other => other,
        });
        again.map(|object| Op::Put(Owner::Config, object)).collect()
    }
}

impl Hub {
    /// A worker breathes, and what it has then is as it should be.
    fn breathe(&mut self, at: usize, packets: u64, used: &mut HashMap<(u32, u8), u64>) {
        self.workers[at].breathe();
        let worker = &mut self.workers[at];
        for (slot, sa) in &worker.outbound {
            let next = worker.next.get_mut(slot).unwrap();
            let highest = used.entry((sa.spi, sa.salt[0])).or_default();
            for _ in 0..packets {
                if *next > sa.lease.last {
                    break;
                }
                assert!(*next > *highest, "{:#x} uses {next} again", sa.spi);
                (*highest, *next) = (*next, *next + 1);
            }
        }
        let domain = |protection: &Protection| self.program.ledger.domain(&Domain::of(protection)).unwrap();
        for ((of, remote, port), slot) in worker.tables.protections.iter() {
            if let Some(sa) = worker.outbound.get(slot) {
                let peer = peer_of(sa.spi);
                assert_eq!((domain(&peer), peer.remote.0, peer.port), (*of, *remote, *port));
            }
        }
        for index in 0..CHUNK as u32 {
            let entry = worker.tables.adjacencies.slot(AdjacencyId::new(index, 0));
            let Some(tunnel) = worker.tables.tunnel(entry.interface) else { continue };
            if entry.kind != Kind::Midchain {
                assert_eq!(entry.protection, UNPROTECTED);
                continue;
            }
            assert_eq!(entry.flags & flag::ESP != 0, tunnel.domain != 0, "in the clear: {entry:?}");
            if tunnel.domain == 0 {
                assert_eq!(entry.protection, UNPROTECTED);
                continue;
            }
            assert_eq!(entry.flags & flag::PLAIN, 0);
            let port = if entry.flags & flag::ESP_UDP == 0 { 0 } else { 1024 };
            let slot = worker.tables.protections.get(&(tunnel.domain, entry.nbma(), port)).unwrap();
            assert_eq!(entry.protection, slot);
            // Whoever sees it has been told who seals, and has not been told yet that nobody does.
            let told = worker.outbound.contains_key(&slot) || worker.elsewhere.contains_key(&slot);
            assert!(told, "nobody seals for slot {slot}");
        }
    }

    /// In the end every worker has what is said and nothing else.
    fn check_all(&mut self, said: &HashMap<Key, Object>) {
        self.settle();
        let mut expected: Vec<Vec<_>> = vec![Vec::new(); WORKERS];
        for object in said.values() {
            if let Object::OutboundSa(sa) = object {
                let slot = self.program.ledger.slot(&sa.protection).unwrap();
                expected[usize::from(sa.worker.0)].push((slot, sa.spi.value(), sa.key.salt()));
            }
        }
        for (worker, expected) in self.workers.iter().zip(&mut expected) {
            let mut has: Vec<_> = worker.outbound.iter().map(|(slot, sa)| (*slot, sa.spi, sa.salt)).collect();
            has.sort_unstable();
            expected.sort_unstable();
            assert_eq!(has, *expected);
        }
        let inbound = |at: u16| {
            let mut all: Vec<_> = self.workers[usize::from(at)].inbound.values().map(|sa| sa.spi).collect();
            all.sort_unstable();
            all
        };
        let said = |at: u16| {
            let of = |object: &Object| match object {
                Object::InboundSa(sa) if sa.spi.worker() % WORKERS as u16 == at => Some(sa.spi.value()),
                _ => None,
            };
            let mut all: Vec<_> = said.values().filter_map(of).collect();
            all.sort_unstable();
            all
        };
        for at in 0..WORKERS as u16 {
            assert_eq!(inbound(at), said(at));
        }
    }
}

fn any_object() -> impl Strategy<Value = Object> {
    let protection = || prop_oneof![1 => Just(None), 3 => (0..2_usize).prop_map(|n| Some(PROFILES[n]))];
    let tunnel_name = || prop_oneof![4 => Just("tun"), 1 => Just("gre1")];
    let to = || (0..2_usize, 0..2_usize).prop_map(|(remote, port)| (REMOTES[remote], PORTS[port]));
    prop_oneof![
        2 => protection().prop_map(|profile| Object::Tunnel(tunnel("tun", Some(42), profile))),
        1 => (protection(), any::<bool>()).prop_map(|(profile, point)| {
            let mut tunnel = tunnel("gre1", Some(7), profile);
            if point {
                tunnel.mode = TunnelMode::PointToPoint { destination: nbma(REMOTES[0]) };
            }
            Object::Tunnel(tunnel)
        }),
        2 => (0..2_usize).prop_map(|n| neighbour(REMOTES[n])),
        3 => (tunnel_name(), 2..5_u8, to()).prop_map(|(tunnel, n, (to, port))| {
            let next_hop = if n == 4 { "0.0.0.0".to_owned() } else { format!("10.0.0.{n}") };
            binding(tunnel, &next_hop, to, port)
        }),
        1 => (tunnel_name(), to()).prop_map(|(tunnel, (to, port))| replica(tunnel, to, port)),
        2 => (0..PEERS, 1..3_u32, 0..4_u32, 0..2_u32, 1..3_u8).prop_map(|(number, life, worker, slot, key)| {
            let spi = life << 24 | worker << 18 | slot;
            Object::InboundSa(inbound_sa(spi, any_peer(number), key))
        }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let op = prop_oneof![
        3 => any_object().prop_map(|object| Op::Put(Owner::Config, object)),
        1 => any_object().prop_map(|object| Op::Remove(Owner::Config, object.key())),
    ];
    let worker = || 0..WORKERS as u16;
    prop_oneof![
        6 => proptest::collection::vec(op, 1..4).prop_map(Step::Tell),
        6 => (0..PEERS, worker(), 1..3_u8, any::<bool>(), 0..5_u64, any::<bool>())
            .prop_map(|(number, worker, key, anew, more, esn)| Step::Outbound { number, worker, key, anew, more, esn }),
        3 => (0..PEERS, worker()).prop_map(|(number, worker)| Step::NoOutbound { number, worker }),
        1 => any::<u8>().prop_map(|keep| Step::Resync { keep }),
        1 => Just(Step::Restart),
        12 => (0..WORKERS, 0..4_u64).prop_map(|(worker, packets)| Step::Breathe { worker, packets }),
        3 => Just(Step::Pump),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_in_the_clear_no_slot_is_of_two_and_no_number_comes_twice(
        steps in proptest::collection::vec(any_step(), 1..120),
    ) {
        let mut hub = Hub::new(WORKERS);
        let mut control = Control::default();
        let start = vec![interface(None), Object::Tunnel(tunnel("tun", Some(42), Some("one")))];
        control.tell(&mut hub, start.into_iter().map(|object| Op::Put(Owner::Config, object)).collect());
        for step in steps {
            match step {
                Step::Tell(ops) => control.tell(&mut hub, ops),
                Step::Outbound { number, worker, key, anew, more, esn } => {
                    let spi = spi_of(number, worker, key);
                    let sa = outbound_sa(worker, spi, any_peer(number), key, (0, 0));
                    let sa = control.leased(OutboundSa { esn, ..sa }, anew, more);
                    control.tell(&mut hub, vec![Op::Put(Owner::Config, sa)]);
                }
                Step::NoOutbound { number, worker } => {
                    let key = Key::OutboundSa(any_peer(number), WorkerId(worker));
                    control.tell(&mut hub, vec![Op::Remove(Owner::Config, key)]);
                }
                Step::Resync { keep } => {
                    let mut ops = vec![Op::ResyncBegin(Owner::Config)];
                    let is_kept = |at: usize, key: &Key| {
                        !matches!(key, Key::InboundSa(_) | Key::OutboundSa(..)) || keep >> (at % 8) & 1 != 0
                    };
                    ops.extend(control.again(is_kept));
                    ops.push(Op::ResyncEnd(Owner::Config));
                    control.tell(&mut hub, ops);
                }
                Step::Restart => {
                    hub = Hub::new(WORKERS);
                    let ops = control.again(|_, _| true);
                    control.said.clear();
                    control.tell(&mut hub, ops);
                }
                Step::Breathe { worker, packets } => hub.breathe(worker, packets, &mut control.used),
                Step::Pump => {
                    hub.program.pump();
                }
            }
        }
        hub.check_all(&control.said);
        let all = [Op::ResyncBegin(Owner::Config), Op::ResyncEnd(Owner::Config)];
        control.said.clear();
        hub.apply(all.to_vec()).unwrap();
        hub.check_all(&control.said);
        prop_assert_eq!(hub.program.ledger.peers().count(), 0);
        let left = (hub.program.protections.iter().count(), hub.program.nbmas.iter().count());
        prop_assert_eq!(left, (0, 0));
    }
}
