//! DPDK's tables: a longer prefix wins, a deleted one uncovers the shorter. One test: the EAL starts once per process.
#![allow(clippy::unwrap_used, clippy::panic)]

use dpdk::lpm::{Fib, Fib6, Lpm, Lpm6, LpmError, MOST_HOP, Room, V6, heap_bytes};
use dpdk::{Eal, EalArgs, Memory};

#[test]
fn longest_prefixes_of_four_tables() {
    let args = EalArgs { memory: Memory::NoHuge { mb: 512 }, ..EalArgs::default() };
    let eal = Eal::start(&args).unwrap();
    let before = heap_bytes(&eal);
    four_bytes(&eal);
    sixteen_bytes(&eal);
    assert_eq!(heap_bytes(&eal), before, "a dropped table gives its memory back");

    let room = Room { name: "twice", routes: 16, groups: 256 };
    let _first = Lpm::create(&eal, &room).unwrap();
    assert!(heap_bytes(&eal) > before + (64 << 20));
    let again = Lpm::create(&eal, &room).unwrap_err();
    assert_eq!(again.to_string(), "table \"twice\" for 16 routes: File exists (17)");
    let long = Room { name: &"x".repeat(26), ..room };
    assert!(matches!(Lpm::create(&eal, &long), Err(LpmError::Create { .. })));
}

fn four_bytes(eal: &Eal) {
    let room = Room { name: "four", routes: 16, groups: 256 };
    let (mut lpm, mut fib) = (Lpm::create(eal, &room).unwrap(), Fib::create(eal, &room).unwrap());
    let net = u32::from_be_bytes([10, 1, 0, 0]);
    let addresses = [net + 9, net + 0x100, net + 0x1_0000];
    for (len, hop) in [(16, 7), (28, MOST_HOP)] {
        lpm.add(net, len, hop).unwrap();
        fib.add(net, len, hop).unwrap();
    }
    assert_eq!(lpm.add(net, 16, 0), Err(LpmError::Hop(0)));
    assert_eq!(fib.add(net, 16, MOST_HOP + 1), Err(LpmError::Hop(MOST_HOP + 1)));
    let answers = |lpm: &Lpm, fib: &Fib| {
        let (mut each, mut bulk, mut hops) = ([0; 3], [0; 3], [0; 3]);
        lpm.lookup_each(&addresses, &mut each);
        lpm.lookup_bulk(&addresses, &mut bulk);
        fib.lookup_bulk(&addresses, &mut hops);
        (each.map(Lpm::hop), bulk.map(Lpm::hop), hops)
    };
    let wanted = [MOST_HOP, 7, 0];
    assert_eq!(answers(&lpm, &fib), (wanted, wanted, wanted.map(u64::from)));
    lpm.delete(net, 28).unwrap();
    fib.delete(net, 28).unwrap();
    assert_eq!(answers(&lpm, &fib), ([7, 7, 0], [7, 7, 0], [7, 7, 0]));
    assert!(matches!(lpm.delete(net, 28), Err(LpmError::Delete(_))));
    assert!(matches!(fib.delete(net, 28), Err(LpmError::Delete(_))));
}

fn sixteen_bytes(eal: &Eal) {
    let room = Room { name: "sixteen", routes: 16, groups: 256 };
    let (mut lpm, mut fib) = (Lpm6::create(eal, &room).unwrap(), Fib6::create(eal, &room).unwrap());
    let address = |text: &str| -> V6 { text.parse::<std::net::Ipv6Addr>().unwrap().octets() };
    let net = address("2001:db8::");
    let addresses = ["2001:db8::9", "2001:db8:1::", "2001:db9::"].map(address);
    for (len, hop) in [(32, 7), (48, MOST_HOP)] {
        lpm.add(&net, len, hop).unwrap();
        fib.add(&net, len, hop).unwrap();
    }
    assert_eq!(lpm.add(&net, 32, 0), Err(LpmError::Hop(0)));
    let answers = |lpm: &Lpm6, fib: &Fib6| {
        let (mut bulk, mut hops) = ([0; 3], [0; 3]);
        lpm.lookup_bulk(&addresses, &mut bulk);
        fib.lookup_bulk(&addresses, &mut hops);
        (addresses.map(|address| lpm.lookup(&address)), bulk, hops)
    };
    let most = MOST_HOP as i32;
    assert_eq!(answers(&lpm, &fib), ([MOST_HOP, 7, 0], [most, 7, -1], [MOST_HOP.into(), 7, 0]));
    lpm.delete(&net, 48).unwrap();
    fib.delete(&net, 48).unwrap();
    assert_eq!(answers(&lpm, &fib), ([7, 7, 0], [7, 7, -1], [7, 7, 0]));
    assert!(matches!(lpm.delete(&net, 48), Err(LpmError::Delete(_))));
}
