//! The FIB against a linear scan over the same routes, and the life of its groups.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use forwarding::fib::{Full, V4Prefix, Word, Writer};
use proptest::prelude::*;

/// Prefixes that meet each other often: few distinct addresses, all lengths, most near the boundary of a group.
fn prefix() -> impl Strategy<Value = (u32, u8)> {
    let octet = || prop_oneof![Just(0_u8), Just(1), Just(10), Just(127), Just(128), Just(255)];
    let len = prop_oneof![0_u8..=32, 20_u8..=32];
    ((octet(), octet(), octet(), any::<u8>()), len).prop_map(|((a, b, c, d), len)| {
        let addr = u32::from_be_bytes([a, b, c, d]);
        (addr & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0), len)
    })
}

#[derive(Debug, Clone)]
enum Step {
    Put((u32, u8), u32),
    Remove((u32, u8)),
    /// Removes one of those that are there.
    RemoveNth(usize),
    /// A grace period ends.
    Grace,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prefix(), 1_u32..1 << 31).prop_map(|(prefix, word)| Step::Put(prefix, word)),
        1 => prefix().prop_map(Step::Remove),
        4 => any::<usize>().prop_map(Step::RemoveNth),
        1 => Just(Step::Grace),
    ]
}

fn v4(prefix: (u32, u8)) -> V4Prefix {
    V4Prefix::new(Ipv4Addr::from_bits(prefix.0), prefix.1).unwrap()
}

fn last(prefix: (u32, u8)) -> u32 {
    prefix.0 | u32::MAX.checked_shr(prefix.1.into()).unwrap_or(0)
}

fn scan(routes: &BTreeMap<(u32, u8), u32>, addr: u32) -> u32 {
    let holds = |prefix: (u32, u8)| prefix.0 <= addr && addr <= last(prefix);
    routes.iter().filter(|(p, _)| holds(**p)).max_by_key(|(p, _)| p.1).map_or(0, |(_, word)| *word)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_lookup_is_a_linear_scan(steps in prop::collection::vec(step(), 1..80), probes in prop::collection::vec(any::<u32>(), 8)) {
        let mut writer = Writer::new(64).unwrap();
        let fib = writer.fib();
        let mut routes = BTreeMap::new();
        let mut edges = probes;
        for (generation, step) in (1..).zip(steps) {
            match step {
                Step::Put(prefix, word) => {
                    match writer.put(v4(prefix), Word::new(word).unwrap()) {
                        Ok(()) => { routes.insert(prefix, word); }
                        Err(Full { groups }) => {
                            prop_assert_eq!((groups, writer.free_groups()), (64, 0));
                            prop_assert!(prefix.1 > 24);
                        }
                    }
                    edges.extend([prefix.0, last(prefix), prefix.0.wrapping_sub(1), last(prefix).wrapping_add(1)]);
                }
                Step::Remove(prefix) => {
                    prop_assert_eq!(writer.remove(v4(prefix)), routes.remove(&prefix).is_some());
                }
                Step::RemoveNth(n) => {
                    if let Some(prefix) = routes.keys().nth(n % routes.len().max(1)).copied() {
                        prop_assert!(writer.remove(v4(prefix)));
                        routes.remove(&prefix);
                    }
                }
                Step::Grace => {
                    writer.retire(generation);
                    writer.reclaim(generation);
                }
            }
            let addrs: Vec<Ipv4Addr> = edges.iter().map(|addr| Ipv4Addr::from_bits(*addr)).collect();
            let mut words = vec![u32::MAX; addrs.len()];
            fib.lookup_bulk(&addrs, &mut words);
            for (addr, word) in addrs.iter().zip(words) {
                let expected = scan(&routes, addr.to_bits());
                prop_assert_eq!(fib.lookup(*addr), expected, "{}", addr);
                prop_assert_eq!(word, expected, "{} in bulk", addr);
                prop_assert_eq!(writer.longest_match(*addr).map_or(0, |(_, word)| word.value()), expected);
            }
        }
        prop_assert_eq!(writer.len(), routes.len());
        for prefix in routes.keys() {
            prop_assert!(writer.remove(v4(*prefix)));
        }
        writer.retire(u64::MAX);
        writer.reclaim(u64::MAX);
        prop_assert_eq!((writer.is_empty(), writer.free_groups()), (true, 64));
        for addr in &edges {
            prop_assert_eq!(fib.lookup(Ipv4Addr::from_bits(*addr)), 0);
        }
    }
}

fn put(writer: &mut Writer, prefix: &str, word: u32) -> Result<(), Full> {
    let prefix: model::Prefix = prefix.parse().unwrap();
    writer.put(prefix.try_into().unwrap(), Word::new(word).unwrap())
}

fn remove(writer: &mut Writer, prefix: &str) -> bool {
    writer.remove(prefix.parse::<model::Prefix>().unwrap().try_into().unwrap())
}

#[test]
fn a_group_is_used_again_only_after_its_grace_period() {
    let mut writer = Writer::new(1).unwrap();
    put(&mut writer, "10.0.0.1/32", 1).unwrap();
    assert_eq!(put(&mut writer, "10.0.1.1/32", 2), Err(Full { groups: 1 }));
    assert!(remove(&mut writer, "10.0.0.1/32"));
    assert_eq!(writer.free_groups(), 0);
    writer.retire(7);
    writer.reclaim(6);
    assert_eq!(put(&mut writer, "10.0.1.1/32", 2), Err(Full { groups: 1 }));
    writer.reclaim(7);
    put(&mut writer, "10.0.1.1/32", 2).unwrap();
    let fib = writer.fib();
    assert_eq!(fib.lookup([10, 0, 1, 1].into()), 2);
    assert_eq!([fib.lookup([10, 0, 1, 0].into()), fib.lookup([10, 0, 0, 1].into())], [0, 0]);
}

#[test]
fn an_empty_table_and_a_default_route_touch_nothing() {
    let mut writer = Writer::new(1024).unwrap();
    put(&mut writer, "0.0.0.0/0", 5).unwrap();
    let fib = writer.fib();
    assert_eq!(fib.lookup([203, 0, 113, 9].into()), 5);
    let footprint = writer.footprint();
    assert_eq!((footprint.first, footprint.groups), (0, 0));
    put(&mut writer, "10.1.2.0/24", 6).unwrap();
    put(&mut writer, "10.1.2.9/32", 7).unwrap();
    let footprint = writer.footprint();
    assert_eq!((footprint.first, footprint.groups), (2 << 20, 2 << 20));
    // Under the default route's shadow: what is uncovered follows the default route, whatever it becomes.
    assert!(remove(&mut writer, "10.1.2.9/32") && remove(&mut writer, "10.1.2.0/24"));
    put(&mut writer, "0.0.0.0/0", 8).unwrap();
    assert_eq!(fib.lookup([10, 1, 2, 9].into()), 8);
    assert!(remove(&mut writer, "0.0.0.0/0") && !remove(&mut writer, "0.0.0.0/0"));
    assert_eq!(fib.lookup([10, 1, 2, 9].into()), 0);
}

/// Says so when it goes, also by a panic: a thread that waits for it ends.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn readers_see_the_old_word_or_the_new() {
    let mut writer = Writer::new(4).unwrap();
    put(&mut writer, "10.0.0.0/8", 1).unwrap();
    put(&mut writer, "10.0.0.0/24", 2).unwrap();
    let fib = writer.fib();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let (host, other) = (fib.lookup([10, 0, 0, 1].into()), fib.lookup([10, 0, 0, 2].into()));
                assert!(matches!((host, other), (2 | 3, 2)), "{host} {other}");
            }
        });
        let _done = Done(&done);
        for generation in 1..20_000 {
            put(&mut writer, "10.0.0.1/32", 3).unwrap();
            assert!(remove(&mut writer, "10.0.0.1/32"));
            // Used again at once: the reader may look into a group that is being filled anew, but only for this /24.
            writer.retire(generation);
            writer.reclaim(generation);
        }
    });
}

#[test]
fn words_have_31_bits_and_are_not_zero() {
    assert_eq!([Word::new(0), Word::new(1 << 31)], [None, None]);
    assert_eq!(Word::new((1 << 31) - 1).unwrap().value(), (1 << 31) - 1);
    assert!(V4Prefix::new([10, 0, 0, 0].into(), 33).is_none());
    let v6: model::Prefix = "2001:db8::/32".parse().unwrap();
    assert_eq!(V4Prefix::try_from(v6), Err(v6));
}
