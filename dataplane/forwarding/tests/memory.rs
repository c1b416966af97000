//! What a complete spoke keeps on the heap: its claims, and what is built of them. (Its SAs' lines, windows and keys lie in arrays of slots.)
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use std::net::Ipv4Addr;

use lab::esp::PLAIN;
use lab::*;
use memory::Heap;
use model::NbmaAddr;
use model::program::{Binding, InboundSa, Object, OutboundSa, Path};
use model::sa::{Protection, Spi};

#[global_allocator]
static HEAP: Heap = Heap;

/// Spokes that are there before, and spokes that come: then hash tables are 5/8 full, the mean of 7/16 and 7/8.
const THERE: u32 = 100;
const SPOKES: u32 = 10_240;
/// Steps of a batch.
const BATCH: usize = 1024;

/// Two SAs, a binding and a route.
fn spoke(number: u32) -> [Object; 4] {
    let at = |base: u32| Ipv4Addr::from(base + number);
    let remote = NbmaAddr(at(0xc633_0000).into());
    let protection = Protection { remote, ..PLAIN.protection(2) };
    let inbound = PLAIN.inbound(2, Spi::of(0, 500 + number, 7).unwrap());
    let outbound = PLAIN.outbound(2, Spi::new(0xabcd_0000 + number).unwrap());
    let (tunnel, next_hop) = (name("tun"), at(0x0a64_0000));
    let Object::Binding(binding) =
        binding("tun", "10.0.0.2", "198.51.100.2", Some(hop("wan", "192.0.2.254")))
    else {
        panic!("not a binding")
    };
    [
        Object::InboundSa(InboundSa { protection, ..inbound }),
        Object::OutboundSa(OutboundSa { protection, ..outbound }),
        Object::Binding(Binding { next_hop: model::ProtocolAddr(next_hop.into()), nbma: remote, ..binding }),
        route(
            &format!("{}/24", Ipv4Addr::from(0x2800_0000 + (number << 8))),
            Path::Via(model::program::Hop { interface: tunnel, next_hop: next_hop.into() }),
        ),
    ]
}

#[test]
fn a_complete_spoke_keeps_no_more_than_this_on_the_heap() {
    let mut hub = PLAIN.bare_hub(|_| {});
    hub.put([neighbour("wan", "192.0.2.254", station(254))]);
    let mut put = |numbers: std::ops::Range<u32>| {
        let objects: Vec<_> = numbers.flat_map(spoke).collect();
        for batch in objects.chunks(BATCH) {
            hub.put(batch.to_vec());
            hub.settle();
        }
    };
    put(0..THERE);
    Heap::count(true);
    let before = Heap::held();
    put(THERE..THERE + SPOKES);
    let after = Heap::held();
    Heap::count(false);
    let each = |before: i64, after: i64| (after - before) as f64 / f64::from(SPOKES);
    let (bytes, pieces) = (each(before.0, after.0), each(before.1, after.1));
    println!("{bytes:.0} bytes in {pieces:.1} pieces");
    assert!(bytes + 8.0 * pieces < 2250.0, "{bytes:.0} bytes in {pieces:.1} pieces");
}
