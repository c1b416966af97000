//! The FIB against a linear scan over the same routes, and the life of its groups.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};

use forwarding::fib::{Address, FibPrefix, Full, TableWriter, V4Prefix, Word, Writer};
use proptest::prelude::*;

/// A prefix as numbers: first address, length.
type Numbers<A> = (A, u8);

/// What the tests know of a family, by arithmetic of their own.
trait Family: Address {
    /// Prefixes that meet each other often: few distinct addresses, all lengths, most near the boundary of a group.
    fn meeting() -> BoxedStrategy<Numbers<Self>>;
    fn any() -> BoxedStrategy<Self>;
    fn ip(self) -> Self::Ip;
    fn last(prefix: Numbers<Self>) -> Self;
    /// The addresses just outside of a prefix.
    fn around(prefix: Numbers<Self>) -> [Self; 2];
}

impl Family for u32 {
    fn meeting() -> BoxedStrategy<(u32, u8)> {
        let octet = || prop_oneof![Just(0_u8), Just(1), Just(10), Just(127), Just(128), Just(255)];
        let len = prop_oneof![0_u8..=32, 20_u8..=32];
        let prefix = ((octet(), octet(), octet(), any::<u8>()), len).prop_map(|((a, b, c, d), len)| {
            let addr = u32::from_be_bytes([a, b, c, d]);
            (addr & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0), len)
        });
        prefix.boxed()
    }
    fn any() -> BoxedStrategy<u32> {
        any::<u32>().boxed()
    }
    fn ip(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self)
    }
    fn last((first, len): (u32, u8)) -> u32 {
        first | u32::MAX.checked_shr(len.into()).unwrap_or(0)
    }
    fn around(prefix: (u32, u8)) -> [u32; 2] {
        [prefix.0.wrapping_sub(1), Self::last(prefix).wrapping_add(1)]
    }
}

impl Family for u128 {
    fn meeting() -> BoxedStrategy<(u128, u8)> {
        let octet = || prop_oneof![4 => Just(0_u8), 1 => Just(1), 1 => Just(0x20), 1 => Just(255)];
        let len = prop_oneof![0_u8..=128, 20_u8..=66, Just(128)];
        let prefix = (prop::array::uniform16(octet()), len).prop_map(|(octets, len)| {
            let addr = u128::from_be_bytes(octets);
            (addr & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0), len)
        });
        prefix.boxed()
    }
    fn any() -> BoxedStrategy<u128> {
        any::<u128>().boxed()
    }
    fn ip(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self)
    }
    fn last((first, len): (u128, u8)) -> u128 {
        first | u128::MAX.checked_shr(len.into()).unwrap_or(0)
    }
    fn around(prefix: (u128, u8)) -> [u128; 2] {
        [prefix.0.wrapping_sub(1), Self::last(prefix).wrapping_add(1)]
    }
}

#[derive(Debug, Clone)]
enum Step<A> {
    Put(Numbers<A>, u32),
    Remove(Numbers<A>),
    /// Removes one of those that are there.
    RemoveNth(usize),
    /// A grace period ends.
    Grace,
}

fn step<A: Family>() -> impl Strategy<Value = Step<A>> {
    prop_oneof![
        6 => (A::meeting(), 1_u32..1 << 31).prop_map(|(prefix, word)| Step::Put(prefix, word)),
        1 => A::meeting().prop_map(Step::Remove),
        4 => any::<usize>().prop_map(Step::RemoveNth),
        1 => Just(Step::Grace),
    ]
}

fn steps<A: Family>() -> impl Strategy<Value = (Vec<Step<A>>, Vec<A>)> {
    (prop::collection::vec(step(), 1..80), prop::collection::vec(A::any(), 8))
}

fn fib_prefix<A: Family>(prefix: Numbers<A>) -> FibPrefix<A> {
    FibPrefix::new(prefix.0.ip(), prefix.1).unwrap()
}

fn scan<A: Family>(routes: &BTreeMap<Numbers<A>, u32>, addr: A) -> u32 {
    let holds = |prefix: Numbers<A>| prefix.0 <= addr && addr <= A::last(prefix);
    routes.iter().filter(|(p, _)| holds(**p)).max_by_key(|(p, _)| p.1).map_or(0, |(_, word)| *word)
}

/// Groups of the tables here: few, so that they run out.
const GROUPS: usize = 64;

fn is_a_linear_scan<A: Family>(steps: Vec<Step<A>>, probes: Vec<A>) -> Result<(), TestCaseError> {
    let mut writer = TableWriter::<A>::new(GROUPS).unwrap();
    let fib = writer.fib();
    let mut routes = BTreeMap::new();
    let mut edges = probes;
    for (generation, step) in (1..).zip(steps) {
        match step {
            Step::Put(prefix, word) => {
                let needed = writer.groups_needed(fib_prefix(prefix)).count();
                let room = writer.free_groups();
                match writer.put(fib_prefix(prefix), Word::new(word).unwrap()) {
                    Ok(old) => {
                        prop_assert_eq!(old.map(Word::value), routes.insert(prefix, word));
                        prop_assert_eq!(writer.free_groups(), room - needed);
                    }
                    Err(Full { groups }) => {
                        prop_assert_eq!((groups, writer.free_groups()), (GROUPS, room));
                        prop_assert!(needed > room && prefix.1 > 24);
                    }
                }
                edges.extend([prefix.0, A::last(prefix)]);
                edges.extend(A::around(prefix));
            }
            Step::Remove(prefix) => {
                let old = writer.remove(fib_prefix(prefix));
                prop_assert_eq!(old.map(Word::value), routes.remove(&prefix));
            }
            Step::RemoveNth(n) => {
                if let Some(prefix) = routes.keys().nth(n % routes.len().max(1)).copied() {
                    let old = writer.remove(fib_prefix(prefix));
                    prop_assert_eq!(old.map(Word::value), routes.remove(&prefix));
                }
            }
            Step::Grace => {
                writer.retire(generation);
                writer.reclaim(generation);
            }
        }
        let addrs: Vec<A::Ip> = edges.iter().map(|addr| addr.ip()).collect();
        let mut words = vec![u32::MAX; addrs.len()];
        fib.lookup_bulk(&addrs, &mut words);
        for (addr, word) in edges.iter().zip(words) {
            let expected = scan(&routes, *addr);
            prop_assert_eq!(fib.lookup(addr.ip()), expected, "{:?}", addr);
            prop_assert_eq!(word, expected, "{:?} in bulk", addr);
            prop_assert_eq!(writer.longest_match(addr.ip()).map_or(0, |(_, word)| word.value()), expected);
        }
    }
    let all: Vec<_> =
        writer.routes().map(|(prefix, word)| ((prefix.first(), prefix.length()), word.value())).collect();
    prop_assert_eq!(all, routes.iter().map(|(prefix, word)| (*prefix, *word)).collect::<Vec<_>>());
    for prefix in routes.keys() {
        prop_assert!(writer.remove(fib_prefix(*prefix)).is_some());
    }
    writer.retire(u64::MAX);
    writer.reclaim(u64::MAX);
    prop_assert_eq!((writer.is_empty(), writer.free_groups()), (true, GROUPS));
    for addr in &edges {
        prop_assert_eq!(fib.lookup(addr.ip()), 0);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_lookup_of_ipv4_is_a_linear_scan((steps, probes) in steps::<u32>()) {
        is_a_linear_scan(steps, probes)?;
    }

    #[test]
    fn a_lookup_of_ipv6_is_a_linear_scan((steps, probes) in steps::<u128>()) {
        is_a_linear_scan(steps, probes)?;
    }
}

fn put(writer: &mut Writer, prefix: &str, word: u32) -> Result<(), Full> {
    let prefix: model::Prefix = prefix.parse().unwrap();
    writer.put(prefix.try_into().unwrap(), Word::new(word).unwrap()).map(drop)
}

fn remove(writer: &mut Writer, prefix: &str) -> bool {
    writer.remove(prefix.parse::<model::Prefix>().unwrap().try_into().unwrap()).is_some()
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
