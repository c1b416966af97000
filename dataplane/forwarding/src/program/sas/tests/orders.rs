//! What workers are told, and what is refused.

use std::sync::atomic::Ordering;

use model::report::Report;
use model::sa::{Amount, Direction, Lifetimes, Reached, Suite};
use model::state::sa::Sa;

use super::*;

/// SPIs of slot 7: of worker 0, of worker 1, and of what is worker 0 again where there are two.
const SPIS: [u32; 3] = [0x0100_0007, 0x0104_0007, 0x0108_0007];

#[test]
fn what_cannot_be_is_refused_with_its_reason_and_changes_nothing() {
    let mut hub = Hub::new(2);
    let protection = peer("one", "192.0.2.9", 0);
    hub.put([Object::InboundSa(inbound_sa(SPIS[0], protection, 1))]);
    hub.told();
    let senseless = |what: &str| Refusal::Senseless(what.into());
    for window in [0, 63, 4097, u16::MAX] {
        let what = format!("a replay window of {window} packets is not one of 64 to 4096");
        let sa = InboundSa { window, ..inbound_sa(SPIS[1], protection, 1) };
        assert_eq!(hub.refused(Object::InboundSa(sa)), senseless(&what));
    }
    let taken = Refusal::SlotTaken(Spi::new(SPIS[2]).unwrap(), Spi::new(SPIS[0]).unwrap());
    assert_eq!(hub.refused(Object::InboundSa(inbound_sa(SPIS[2], protection, 1))), taken);
    let sa = |worker, lease| Object::OutboundSa(outbound_sa(worker, 0x1234, protection, 2, lease));
    assert_eq!(hub.refused(sa(2, (1, 9))), senseless("there is no worker 2: they are 2, from 0 on"));
    assert_eq!(hub.refused(sa(0, (0, 9))), senseless("sequence numbers 0 to 9 are no lease"));
    assert_eq!(hub.refused(sa(0, (11, 9))), senseless("sequence numbers 11 to 9 are no lease"));
    let mixed = Protection { remote: nbma("2001:db8::9"), ..protection };
    let families = Refusal::Unsupported("a tunnel between families (192.0.2.1, 2001:db8::9)".into());
    assert_eq!(hub.refused(Object::InboundSa(inbound_sa(SPIS[1], mixed, 1))), families);
    let nobody = Protection { remote: nbma("0.0.0.0"), ..protection };
    let unspecified = Refusal::Unsupported("the address 0.0.0.0".into());
    assert_eq!(hub.refused(Object::OutboundSa(outbound_sa(0, 300, nobody, 2, (1, 9)))), unspecified);
    // 18 bytes of Ethernet, 40, 8 and 40, 8 of GRE are more than an adjacency holds.
    let udp = outbound_sa(0, 300, peer("one", "2001:db8::9", 4500), 2, (1, 9));
    let udp = Object::OutboundSa(OutboundSa { mode: SaMode::Tunnel, ..udp });
    assert_eq!(hub.refused(udp), Refusal::Unsupported("tunnel mode in UDP over IPv6".into()));
    assert_eq!(hub.told(), [[""; 0]; 2], "nothing of all that");
    // The slot of another worker is another one, and of one that has gone; an empty lease is one.
    hub.put([Object::InboundSa(inbound_sa(SPIS[1], protection, 1)), sa(0, (10, 9))]);
    hub.remove([Key::InboundSa(Spi::new(SPIS[0]).unwrap())]);
    hub.put([Object::InboundSa(inbound_sa(SPIS[2], protection, 1))]);
    let told = hub.told();
    assert_eq!(told[0], ["out 0x1234 10-9", "in none", "in 0x1080007"]);
    assert_eq!(told[1], ["in 0x1040007", "elsewhere 0"]);
}

#[test]
fn a_refused_batch_takes_no_slot() {
    let mut hub = Hub::new(1);
    let protection = peer("one", "192.0.2.9", 0);
    let sa = |spi| Op::Put(Owner::Config, Object::InboundSa(inbound_sa(spi, protection, 1)));
    let ops = vec![sa(SPIS[0]), Op::Put(Owner::Config, binding("none", "10.0.0.9", "192.0.2.9", 0))];
    assert_eq!(hub.apply(ops).unwrap_err().op, 1);
    hub.apply(vec![sa(SPIS[1])]).unwrap();
    // In one batch the slot of what goes is free for what comes; the other way round it is not.
    let key = |spi| Key::InboundSa(Spi::new(spi).unwrap());
    let gone = |spi| Op::Remove(Owner::Config, key(spi));
    assert_eq!(hub.apply(vec![sa(SPIS[0]), gone(SPIS[1])]).unwrap_err().op, 0);
    hub.apply(vec![gone(SPIS[1]), sa(SPIS[0])]).unwrap();
    assert_eq!(hub.told(), [["in 0x1040007", "in 0x1000007"]], "one in place of the other");
}

#[test]
fn an_inbound_sa_keeps_its_window_as_long_as_it_is_the_same_and_is_exchanged_else() {
    let mut hub = Hub::new(1);
    let protection = peer("one", "192.0.2.9", 4500);
    let sa = inbound_sa(SPIS[0], protection, 1);
    let put = |hub: &mut Hub, sa: &InboundSa| {
        hub.put([Object::InboundSa(sa.clone())]);
        hub.told().remove(0)
    };
    assert_eq!(put(&mut hub, &sa), ["in 0x1000007"]);
    assert_eq!(put(&mut hub, &sa), [""; 0]);
    // The window that it was put with counts.
    assert_eq!(put(&mut hub, &InboundSa { window: 64, ..sa.clone() }), [""; 0]);
    let moved = InboundSa { protection: peer("one", "192.0.2.10", 1024), ..sa.clone() };
    assert_eq!(put(&mut hub, &moved), ["in 0x1000007 peer"]);
    let told = &hub.workers[0].inbound[&7];
    assert_eq!((told.remote, told.port, told.window), ("192.0.2.10".parse().unwrap(), 1024, 1024));
    let hard = Amount { packets: Some(9), bytes: None };
    let limited = InboundSa { lifetimes: Lifetimes { hard, ..Lifetimes::default() }, ..moved };
    assert_eq!(put(&mut hub, &limited), ["in 0x1000007 peer"]);
    assert_eq!(hub.workers[0].inbound[&7].lifetimes.hard, hard);
    assert_eq!(put(&mut hub, &sa), ["in 0x1000007 peer"]);
    for other in [
        InboundSa { key: key(9), ..sa.clone() },
        InboundSa { esn: true, ..sa.clone() },
        InboundSa { mode: SaMode::Tunnel, ..sa.clone() },
    ] {
        assert_eq!(put(&mut hub, &other), ["in 0x1000007"]);
        assert_eq!(put(&mut hub, &sa), ["in 0x1000007"]);
    }
}

#[test]
fn an_outbound_sa_goes_on_with_a_higher_end_as_long_as_it_is_the_same() {
    let mut hub = Hub::new(1);
    let protection = peer("one", "192.0.2.9", 0);
    let put = |hub: &mut Hub, sa: OutboundSa| {
        hub.put([Object::OutboundSa(sa)]);
        hub.told().remove(0)
    };
    let sa = |key, lease| outbound_sa(0, 0x1234, protection, key, lease);
    assert_eq!(put(&mut hub, sa(2, (1, 1000))), ["out 0x1234 1-1000"]);
    assert_eq!(put(&mut hub, sa(2, (1, 1000))), [""; 0]);
    assert_eq!(put(&mut hub, sa(2, (1001, 2000))), ["lease 0x1234 2000"]);
    assert_eq!(put(&mut hub, sa(2, (1, 1500))), [""; 0], "what was given is not taken back");
    let hard = Amount { packets: None, bytes: Some(1 << 30) };
    let limited = OutboundSa { lifetimes: Lifetimes { hard, ..Lifetimes::default() }, ..sa(2, (1, 1500)) };
    assert_eq!(put(&mut hub, limited), ["lease 0x1234 2000"]);
    assert_eq!(put(&mut hub, sa(2, (3001, 4000))), ["out 0x1234 3001-4000"], "none of what may be another's");
    // Another one takes over between two packets.
    assert_eq!(put(&mut hub, sa(3, (1, 500))), ["out 0x1234 1-500"]);
    // The same key used otherwise uses no number again, whatever it is said to begin with.
    assert_eq!(put(&mut hub, OutboundSa { esn: true, ..sa(3, (1, 700)) }), ["out 0x1234 501-700"]);
    assert_eq!(
        put(&mut hub, OutboundSa { esn: true, ..sa(3, (1, u64::MAX)) }),
        [format!("lease 0x1234 {}", u64::MAX - 1)]
    );
    // Without ESN there are 2^32 - 1 numbers.
    assert_eq!(put(&mut hub, sa(4, (7, 1 << 40))), ["out 0x1234 7-4294967295"]);
}

#[test]
fn who_has_no_sa_of_its_own_hands_off_to_the_lowest_that_has_one() {
    let mut hub = Hub::new(3);
    let protection = peer("one", "192.0.2.9", 0);
    let sa = |worker: u16| {
        Object::OutboundSa(outbound_sa(worker, 0x300 + u32::from(worker), protection, 2, (1, 9)))
    };
    let key = |worker| Key::OutboundSa(protection, WorkerId(worker));
    hub.put([sa(1)]);
    assert_eq!(hub.told(), [vec!["elsewhere 1"], vec!["out 0x301 1-9"], vec!["elsewhere 1"]]);
    hub.put([sa(0)]);
    assert_eq!(hub.told(), [vec!["out 0x300 1-9"], vec![], vec!["elsewhere 0"]]);
    hub.put([sa(2)]);
    assert_eq!(hub.told(), [vec![], vec![], vec!["out 0x302 1-9"]]);
    // It knows who has one before its own goes.
    hub.remove([key(0)]);
    assert_eq!(hub.told(), [vec!["out none"], vec![], vec![]], "worker 0 was told of 1 in the beginning");
    hub.remove([key(2)]);
    assert_eq!(hub.told(), [vec![], vec![], vec!["elsewhere 1", "out none"]]);
    hub.remove([key(1)]);
    assert_eq!(hub.told(), [vec!["elsewhere none"], vec!["out none"], vec!["elsewhere none"]]);
    assert_eq!(hub.program.ledger.slot(&protection), None);
}

#[test]
fn the_first_owners_sa_counts_and_a_resync_sweeps() {
    let mut hub = Hub::new(1);
    let protection = peer("one", "192.0.2.9", 0);
    let outbound = |spi, number| Object::OutboundSa(outbound_sa(0, spi, protection, number, (1, 9)));
    let inbound = Object::InboundSa(inbound_sa(SPIS[0], protection, 1));
    let put = |owner, object: &Object| Op::Put(owner, object.clone());
    hub.apply(vec![put(Owner::Config, &outbound(0x300, 1)), put(Owner::Config, &inbound)]).unwrap();
    hub.apply(vec![put(Owner::Ike, &outbound(0x400, 2)), put(Owner::Netlink, &outbound(0x500, 3))]).unwrap();
    assert_eq!(hub.told(), [["in 0x1000007", "out 0x300 1-9", "out 0x400 1-9"]]);
    hub.apply(vec![Op::ResyncBegin(Owner::Ike), Op::ResyncEnd(Owner::Ike)]).unwrap();
    assert_eq!(hub.told(), [["out 0x300 1-9"]]);
    // What is put again in a resync goes on; what is not goes.
    let ops = [
        Op::ResyncBegin(Owner::Config),
        put(Owner::Config, &interface(None)),
        put(Owner::Config, &outbound(0x300, 1)),
        Op::ResyncEnd(Owner::Config),
    ];
    hub.apply(ops.to_vec()).unwrap();
    assert_eq!(hub.told(), [["in none"]]);
    let all = Owner::ALL.into_iter().flat_map(|owner| [Op::ResyncBegin(owner), Op::ResyncEnd(owner)]);
    hub.apply(all.collect()).unwrap();
    assert_eq!(hub.told(), [["out none"]]);
    assert!(hub.workers[0].inbound.is_empty() && hub.workers[0].outbound.is_empty());
}

#[test]
fn a_slot_is_used_again_when_all_workers_have_forgotten_it() {
    let mut hub = Hub::new(2);
    let protection = |n: u8| peer("one", &format!("192.0.2.{n}"), 0);
    let sa = |n: u8| Object::OutboundSa(outbound_sa(0, 0x300 + u32::from(n), protection(n), n, (1, 9)));
    hub.put([sa(2), sa(3)]);
    hub.settle();
    let slot = |hub: &Hub, n| hub.program.ledger.slot(&protection(n));
    assert_eq!((slot(&hub, 2), slot(&hub, 3)), (Some(0), Some(1)));
    hub.remove([Key::OutboundSa(protection(2), WorkerId(0))]);
    hub.program.pump();
    // Both acknowledge that no packet takes the slot; then they are told to empty it.
    hub.workers.iter_mut().for_each(Listener::breathe);
    assert!(slot(&hub, 2).is_some());
    hub.program.pump();
    assert!(slot(&hub, 2).is_none());
    hub.put([sa(4)]);
    assert_eq!(slot(&hub, 4), Some(2), "the workers have not carried that out");
    hub.workers[0].breathe();
    hub.put([sa(5)]);
    assert_eq!(slot(&hub, 5), Some(3), "one of them has not");
    hub.workers[1].breathe();
    hub.put([sa(6)]);
    assert_eq!(slot(&hub, 6), Some(0));
    // What comes again before it is gone has the slot that it had.
    hub.remove([Key::OutboundSa(protection(3), WorkerId(0))]);
    hub.put([sa(3)]);
    assert_eq!(slot(&hub, 3), Some(1));
    hub.settle();
    assert!(hub.workers[0].outbound.contains_key(&1));
}

#[test]
fn what_queues_have_no_room_for_waits_without_keys_and_packets_take_no_slot_of_which_nobody_knows() {
    let mut hub = Hub::new(2);
    let count = 3000;
    let remote = |n: u32| format!("198.18.{}.{}", n / 250, n % 250);
    let via = Some(wan("192.0.2.254"));
    hub.put([neighbour("192.0.2.254")]);
    for n in 0..count {
        let Object::Binding(to) = binding("tun", &format!("10.1.{}.{}", n / 250, n % 250 + 1), &remote(n), 0)
        else {
            panic!("a binding")
        };
        let protection = peer("one", &remote(n), 0);
        hub.put([
            Object::Binding(Binding { link: via, ..to }),
            Object::OutboundSa(outbound_sa((n % 2) as u16, 0x1000 + n, protection, 1, (1, 9))),
        ]);
    }
    let kinds = |hub: &Hub| {
        let kinds = hub.program.adjacencies().filter(|a| a.nbma.is_some()).map(|a| a.kind);
        let all: Vec<_> = kinds.collect();
        let midchains = all.iter().filter(|kind| **kind == Kind::Midchain).count();
        assert!(all.iter().all(|kind| matches!(kind, Kind::Midchain | Kind::Unprotected)));
        (all.len(), midchains)
    };
    // Nobody has breathed: a queue holds 1,024 orders, and each peer takes one of each worker.
    assert_eq!((kinds(&hub), hub.program.ledger.waiting()), ((3000, 1024), 1976));
    assert!(!hub.program.are_orders_taken() && hub.program.pump());
    // One worker is slower than the other.
    hub.workers[0].breathe();
    hub.program.pump();
    assert_eq!(kinds(&hub), (3000, 1024));
    hub.settle();
    assert_eq!(kinds(&hub), (3000, 3000));
    assert!(hub.workers.iter().all(|worker| worker.outbound.len() == 1500 && worker.elsewhere.len() == 1500));
}

#[test]
fn leases_that_run_low_and_lifetimes_that_were_reached_are_told_as_long_as_it_is_so() {
    let mut hub = Hub::new(2);
    let protection = peer("one", "192.0.2.9", 0);
    hub.put([
        Object::InboundSa(inbound_sa(SPIS[1], protection, 1)),
        Object::OutboundSa(outbound_sa(1, 0x1234, protection, 2, (101, 200))),
    ]);
    hub.settle();
    assert_eq!(hub.program.sa_reports(), [], "no worker has counted anything");
    let lines = Arc::clone(&hub.workers[1].lines);
    let (inbound, outbound) = (&lines.inbound[7], &lines.outbound[0]);
    inbound.spi.store(SPIS[1], Ordering::Relaxed);
    outbound.spi.store(0x1234, Ordering::Relaxed);
    let low = |next| {
        let spi = Spi::new(0x1234).unwrap();
        vec![Report::LeaseLow { protection, worker: WorkerId(1), spi, next }]
    };
    let at = |hub: &mut Hub, next| {
        outbound.next.store(next, Ordering::Relaxed);
        hub.program.sa_reports()
    };
    assert_eq!([at(&mut hub, 101), at(&mut hub, 151)], [vec![], vec![]]);
    assert_eq!([at(&mut hub, 152), at(&mut hub, 152), at(&mut hub, 201)], [low(152), low(152), low(201)]);
    // More was given when 152 was next: half of it is 200.
    at(&mut hub, 152);
    hub.put([Object::OutboundSa(outbound_sa(1, 0x1234, protection, 2, (101, 351)))]);
    hub.settle();
    assert_eq!([at(&mut hub, 201), at(&mut hub, 252), at(&mut hub, 253)], [vec![], vec![], low(253)]);
    // There is no more to give.
    hub.put([Object::OutboundSa(outbound_sa(1, 0x1234, protection, 2, (101, u64::MAX)))]);
    hub.settle();
    assert_eq!(at(&mut hub, u64::from(u32::MAX)), []);

    inbound.port_reached.store(4500 << 16 | 1, Ordering::Relaxed);
    outbound.flags_reached.store(0xff << 16 | 2, Ordering::Relaxed);
    let reached = |spi, direction, reached| Report::SaLifetime {
        protection,
        spi: Spi::new(spi).unwrap(),
        direction,
        reached,
    };
    let expected = [
        reached(SPIS[1], Direction::Inbound, Reached::Soft),
        reached(0x1234, Direction::Outbound, Reached::Hard),
    ];
    assert_eq!(hub.program.sa_reports(), expected);
    assert_eq!(hub.program.sa_reports(), expected);
}

#[test]
fn an_inbound_sa_that_carried_packets_is_told_once_for_each_time_that_it_did() {
    let mut hub = Hub::new(2);
    let protection = peer("one", "192.0.2.9", 0);
    hub.put([Object::InboundSa(inbound_sa(SPIS[1], protection, 1))]);
    hub.settle();
    let lines = Arc::clone(&hub.workers[1].lines);
    let line = &lines.inbound[7];
    line.spi.store(SPIS[1], Ordering::Relaxed);
    let after = |hub: &mut Hub, packets| {
        line.packets.store(packets, Ordering::Relaxed);
        hub.program.sas_used()
    };
    let used = Some(Report::SaUsed { spis: vec![Spi::new(SPIS[1]).unwrap()] });
    let told = [0, 3, 3, 4, 4].map(|packets| after(&mut hub, packets));
    assert_eq!(told, [None, used.clone(), None, used.clone(), None]);
    // It came anew, and counts from 0.
    assert_eq!([0, 1].map(|packets| after(&mut hub, packets)), [None, used]);
}

#[test]
fn sas_are_shown_with_what_they_carried_and_without_keys() {
    let mut hub = Hub::new(2);
    let protection = peer("one", "192.0.2.9", 4500);
    hub.put([
        Object::OutboundSa(outbound_sa(1, 0x1234, protection, 2, (101, 200))),
        Object::InboundSa(inbound_sa(SPIS[1], protection, 1)),
    ]);
    hub.settle();
    let none = Sa {
        direction: Direction::Inbound,
        spi: Spi::new(SPIS[1]).unwrap(),
        protection,
        mode: SaMode::Transport,
        suite: Suite::AesGcm128,
        esn: false,
        worker: WorkerId(1),
        packets: 0,
        bytes: 0,
        sequence: 0,
        leased: None,
        replayed: 0,
        bad_icv: 0,
        reached: None,
        refused: None,
        age: None,
        rekey_in: None,
    };
    let out = Sa {
        direction: Direction::Outbound,
        spi: Spi::new(0x1234).unwrap(),
        leased: Some(200),
        ..none.clone()
    };
    assert_eq!(hub.program.sas().collect::<Vec<_>>(), [none.clone(), out.clone()]);
    let lines = Arc::clone(&hub.workers[1].lines);
    let (inbound, outbound) = (&lines.inbound[7], &lines.outbound[0]);
    for (counter, value) in [
        (&inbound.packets, 3),
        (&inbound.bytes, 300),
        (&inbound.top, 77),
        (&outbound.packets, 5),
        (&outbound.bytes, 500),
        (&outbound.next, 106),
    ] {
        counter.store(value, Ordering::Relaxed);
    }
    for (counter, value) in [
        (&inbound.replayed, 4),
        (&inbound.forged, 6),
        (&inbound.port_reached, 2),
        (&inbound.spi, SPIS[1]),
        (&outbound.spi, 0x1234),
    ] {
        counter.store(value, Ordering::Relaxed);
    }
    let inbound = Sa {
        packets: 3,
        bytes: 300,
        sequence: 77,
        replayed: 4,
        bad_icv: 6,
        reached: Some(Reached::Hard),
        ..none
    };
    let outbound = Sa { packets: 5, bytes: 500, sequence: 105, ..out };
    assert_eq!(hub.program.sas().collect::<Vec<_>>(), [inbound, outbound]);
    let keys = hub.program.programmed(Instant::default()).filter_map(|programmed| match programmed.object {
        Object::InboundSa(sa) => Some(sa.key),
        Object::OutboundSa(sa) => Some(sa.key),
        _ => None,
    });
    assert_eq!(keys.collect::<Vec<_>>(), [SaKey::blank(Suite::AesGcm128), SaKey::blank(Suite::AesGcm128)]);
}
