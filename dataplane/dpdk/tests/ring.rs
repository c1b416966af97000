//! Ports over rings: a loop and a pair, without huge pages. One test: the EAL starts once per process.

#![allow(clippy::unwrap_used, clippy::panic)]

use dpdk::{Eal, EalArgs, Memory, Mempool, MempoolConfig, Port, PortConfig, PortError, free_bulk, ring};
use wire::buf::PacketBuf;

#[test]
fn ring_ports() {
    let args = EalArgs { memory: Memory::NoHuge { mb: 128 }, ..EalArgs::default() };
    let eal = Eal::start(&args).unwrap();
    assert!(Port::list(&eal).is_empty());
    let config = MempoolConfig { name: "rings", count: 4095, cache: 64, ..MempoolConfig::default() };
    let pool = Mempool::create(&eal, &config).unwrap();
    let config = PortConfig::new(pool);

    bare_ring(&eal, &pool);
    port_between_two_rings(&eal, &pool, &config);
    pair_of_ports(&eal, &pool, &config);

    let (_, rx) = ring(&eal, "lonely", 8).unwrap();
    assert!(matches!(
        Port::over_rings(&eal, "no_tx", vec![rx], vec![], &config),
        Err(PortError::Empty { .. })
    ));
}

fn numbered(pool: &Mempool, count: u8) -> Vec<dpdk::Mbuf> {
    (0..count).map(|number| pool.alloc_copy(&[number; 60]).unwrap()).collect()
}

fn bare_ring(eal: &Eal, pool: &Mempool) {
    let (mut tx, mut rx) = ring(eal, "bare", 5).unwrap();
    let error = ring(eal, "bare", 5).unwrap_err();
    assert_eq!(error.to_string(), "ring \"bare\" of 5 slots: File exists (17)");
    let mut packets = numbered(pool, 7);
    let sender = std::thread::spawn(move || {
        let taken = tx.burst(&mut packets);
        (taken, packets, tx)
    });
    let (taken, mut left, mut tx) = sender.join().unwrap();
    assert_eq!((taken, left.len()), (5, 2));
    assert_eq!(left[0].bytes()[0], 5, "what did not fit keeps its order");
    let mut got = Vec::with_capacity(8);
    assert_eq!((rx.burst(&mut got, 3), tx.burst(&mut left), rx.burst(&mut got, 64)), (3, 2, 4));
    assert!(got.iter().map(|packet| packet.bytes()[0]).eq(0..7));
    free_bulk(&mut got);
    assert_eq!((rx.burst(&mut got, 64), pool.in_use()), (0, 0));
}

/// What nave-perf does: preload one ring, forward through the port, check what is in the other.
fn port_between_two_rings(eal: &Eal, pool: &Mempool, config: &PortConfig) {
    let (mut feed, port_rx) = ring(eal, "feed", 256).unwrap();
    let (port_tx, mut drain) = ring(eal, "drain", 256).unwrap();
    let mut opened = Port::over_rings(eal, "perf", vec![port_rx], vec![port_tx], config).unwrap();
    assert_eq!((opened.port.driver(), opened.rx.len(), opened.tx.len()), ("net_ring", 1, 1));
    assert!(opened.port.link().unwrap().up);
    assert_eq!(feed.burst(&mut numbered(pool, 100)), 100);
    let mut burst = Vec::with_capacity(32);
    let mut forwarded = 0;
    while opened.rx[0].burst(&mut burst, 32) != 0 {
        burst.iter_mut().for_each(|packet| packet.bytes_mut()[1] = 0xff);
        forwarded += opened.tx[0].burst(&mut burst);
    }
    let mut got = Vec::with_capacity(256);
    assert_eq!((forwarded, drain.burst(&mut got, 256)), (100, 100));
    assert!(got.iter().map(|packet| packet.bytes()[0]).eq(0..100));
    assert!(got.iter().all(|packet| packet.bytes()[1] == 0xff));
    free_bulk(&mut got);
    let stats = opened.port.stats().unwrap();
    assert_eq!((stats.rx_packets, stats.tx_packets, pool.in_use()), (100, 100, 0));
    opened.port.close(opened.rx, opened.tx).unwrap();
}

fn pair_of_ports(eal: &Eal, pool: &Mempool, config: &PortConfig) {
    let (a_to_b_tx, a_to_b_rx) = ring(eal, "a_to_b", 64).unwrap();
    let (b_to_a_tx, b_to_a_rx) = ring(eal, "b_to_a", 64).unwrap();
    let mut a = Port::over_rings(eal, "a", vec![b_to_a_rx], vec![a_to_b_tx], config).unwrap();
    let mut b = Port::over_rings(eal, "b", vec![a_to_b_rx], vec![b_to_a_tx], config).unwrap();
    let mut burst = numbered(pool, 64);
    assert_eq!(a.tx[0].burst(&mut burst), 64);
    assert_eq!((b.rx[0].burst(&mut burst, 64), a.rx[0].burst(&mut burst, 64)), (64, 0));
    assert_eq!((b.tx[0].burst(&mut burst), burst.len()), (64, 0));
    assert_eq!(a.rx[0].burst(&mut burst, 64), 64);
    assert!(burst.iter().map(|packet| packet.bytes()[0]).eq(0..64));
    free_bulk(&mut burst);
    // A full ring takes what fits and leaves the rest with its owner.
    let mut burst = numbered(pool, 70);
    assert_eq!((a.tx[0].burst(&mut burst), burst.len()), (64, 6));
    assert_eq!(burst[0].bytes()[0], 64);
    free_bulk(&mut burst);
    assert_eq!(b.rx[0].burst(&mut burst, 64), 64);
    free_bulk(&mut burst);
    assert_eq!(pool.in_use(), 0);
}
