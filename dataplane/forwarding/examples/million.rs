//! What a full table costs the builder: time for each route in [`Program::apply`], and memory.
//!
//! `cargo run --release -p forwarding --example million [ROUTES] [BATCH] [sorted]`
//!
//! The routes are as in a public table (see `perf/src/mix.rs`), in percent: /8–/15 0.4, /16 1.4, /17 0.9, /18 1.5, /19 2.6,
//! /20 4.6, /21 5.3, /22 11.4, /23 10.2, /24 61.2, /25–/32 0.5; half of them lie in a shorter one. They lead to 16 next hops.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use forwarding::{Port, Program};
use model::program::{Batch, Hop, Interface, Neighbour, Object, Op, Owner, Path, Route};
use model::{InterfaceName, Mac, Prefix, TableId};

/// Lengths with their shares, of 100,000.
const SHARES: [(u8, u32); 25] = [
    (8, 2),
    (9, 2),
    (10, 4),
    (11, 10),
    (12, 30),
    (13, 60),
    (14, 120),
    (15, 200),
    (16, 1_400),
    (17, 850),
    (18, 1_450),
    (19, 2_600),
    (20, 4_600),
    (21, 5_300),
    (22, 11_400),
    (23, 10_200),
    (24, 61_272),
    (25, 50),
    (26, 50),
    (27, 60),
    (28, 80),
    (29, 80),
    (30, 60),
    (31, 20),
    (32, 100),
];
const NEXT_HOPS: u8 = 16;
/// Routes that are removed and put back one batch each, as of a table that changes.
const CHURN: usize = 10_000;

fn main() {
    let mut args = std::env::args().skip(1);
    let count = args.next().map_or(1_000_000, |arg| arg.parse().unwrap());
    let batch = args.next().map_or(4_096, |arg| arg.parse().unwrap());
    let mut prefixes = table(count);
    if args.next().as_deref() == Some("sorted") {
        prefixes.sort_unstable();
    }
    let mut program = node();
    let bytes = resident();
    let mut spent = Duration::ZERO;
    let mut longest = Duration::ZERO;
    for (number, prefixes) in (2..).zip(prefixes.chunks(batch)) {
        let ops = prefixes.iter().map(|prefix| put(*prefix, prefix.0)).collect();
        let batch = Batch { number, ops };
        let start = on_core();
        program.apply(model::time::Instant::default(), &batch).unwrap();
        let took = on_core() - start;
        spent += took;
        longest = longest.max(took);
    }
    let grown = resident() - bytes;
    println!("{} routes, batches of {batch}", prefixes.len());
    println!("put: {:.0} ns a route, longest batch {longest:?}", each(spent, prefixes.len()));
    println!(
        "memory: {:.1} MB, {:.0} bytes a route",
        grown as f64 / 1e6,
        grown as f64 / prefixes.len() as f64
    );
    let again = timed(&mut program, prefixes.iter().map(|prefix| put(*prefix, prefix.0)), batch);
    println!("put again: {:.0} ns a route", each(again, prefixes.len()));
    let elsewhere = timed(&mut program, prefixes.iter().map(|prefix| put(*prefix, prefix.0 + 1)), batch);
    println!("put elsewhere: {:.0} ns a route", each(elsewhere, prefixes.len()));
    let churn = prefixes.iter().step_by(prefixes.len().div_ceil(CHURN)).copied().collect::<Vec<_>>();
    let gone = timed(&mut program, churn.iter().map(|prefix| remove(*prefix)), 1);
    let back = timed(&mut program, churn.iter().map(|prefix| put(*prefix, prefix.0)), 1);
    println!("one by one: remove {:.0} ns, put {:.0} ns", each(gone, churn.len()), each(back, churn.len()));
    let all = timed(&mut program, prefixes.iter().map(|prefix| remove(*prefix)), batch);
    println!("remove: {:.0} ns a route", each(all, prefixes.len()));
}

fn each(spent: Duration, count: usize) -> f64 {
    spent.as_nanos() as f64 / count as f64
}

/// Applies steps in batches.
fn timed(program: &mut Program, ops: impl Iterator<Item = Op>, batch: usize) -> Duration {
    let ops: Vec<Op> = ops.collect();
    let batches: Vec<Batch> = ops.chunks(batch).map(|ops| Batch { number: 0, ops: ops.to_vec() }).collect();
    let start = on_core();
    for batch in &batches {
        program.apply(model::time::Instant::default(), batch).unwrap();
    }
    on_core() - start
}

/// A port with resolved next hops.
fn node() -> Program {
    let port = Port { name: "p0".into(), mac: Mac([2, 0, 0, 0, 0, 1]), mtu: 1500 };
    let mut program = Program::new(vec![port]).unwrap();
    let interface = Interface {
        name: name(),
        port: "p0".into(),
        vlan: None,
        mtu: 1500,
        table: TableId(0),
        forwarding: true,
        netns: None,
    };
    let neighbours = (0..NEXT_HOPS)
        .map(|n| Object::Neighbour(Neighbour { hop: hop(n.into()), mac: Mac([2, 0, 0, 0, 1, n]) }));
    let objects = std::iter::once(Object::Interface(interface)).chain(neighbours);
    let ops = objects.map(|object| Op::Put(Owner::Config, object)).collect();
    program.apply(model::time::Instant::default(), &Batch { number: 1, ops }).unwrap();
    program
}

fn name() -> InterfaceName {
    "wan".parse().unwrap()
}

fn hop(n: u32) -> Hop {
    Hop { interface: name(), next_hop: Ipv4Addr::from(0x0a00_0001 + n % u32::from(NEXT_HOPS)).into() }
}

fn put((first, len): (u32, u8), to: u32) -> Op {
    let prefix = Prefix::new(Ipv4Addr::from(first).into(), len).unwrap();
    let path = Path::Via(hop((to >> 8).wrapping_mul(0x9e37_79b9) >> 16));
    Op::Put(Owner::Nhrp, Object::Route(Route { table: TableId(0), prefix, path, expires_in: None }))
}

fn remove(prefix: (u32, u8)) -> Op {
    let Op::Put(owner, object) = put(prefix, 0) else { unreachable!() };
    Op::Remove(owner, object.key())
}

/// So many distinct prefixes, each before those that are longer: first address and length.
fn table(count: usize) -> Vec<(u32, u8)> {
    let mut random = Random(0x5eed);
    let mut seen = HashSet::new();
    let mut all: Vec<(u32, u8)> = Vec::with_capacity(count);
    for (len, share) in SHARES {
        let wanted = (count as u64 * u64::from(share) / 100_000) as usize;
        let shorter = all.len();
        let mut made = 0;
        while made < wanted {
            let mut addr = random.next();
            if shorter > 0 && random.next() % 100 < 54 {
                let (first, within) = all[random.next() as usize % shorter];
                addr = first | addr & u32::MAX.checked_shr(within.into()).unwrap_or(0);
            }
            let first = addr & u32::MAX << (32 - len);
            if !matches!(first >> 24, 0 | 10 | 127 | 224..) && seen.insert((first, len)) {
                all.push((first, len));
                made += 1;
            }
        }
    }
    // In no order, as neighbours tell them.
    for at in (1..all.len()).rev() {
        all.swap(at, random.next() as usize % (at + 1));
    }
    all
}

/// Xorshift (Marsaglia 2003): the same table every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32
    }
}

/// Time that this thread had a core: others on the machine do not count.
fn on_core() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap())
}

/// Memory of this process in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
