//! EAL, mempools, workers and ports on net_null, without huge pages. One test: the EAL starts once per process.

#![allow(clippy::unwrap_used, clippy::panic)]

use dpdk::{
    Eal, EalArgs, EalError, Memory, Mempool, MempoolConfig, MempoolError, Port, PortConfig, PortError,
    WorkerError, free_bulk, register_worker_thread,
};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use wire::buf::PacketBuf;

fn own_cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap()).collect()
}

/// Name and allowed CPUs of every thread of this process.
fn threads() -> Vec<(String, String)> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .map(|task| {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let field = |name: &str| {
                status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
            };
            (field("Name:"), field("Cpus_allowed_list:"))
        })
        .collect()
}

#[test]
fn null_ports() {
    let before = own_cpus();
    let service = before[0];
    let args = EalArgs {
        memory: Memory::NoHuge { mb: 128 },
        vdevs: vec!["net_null0".into(), "net_null1,size=1400".into()],
        cpus: vec![service],
        ..EalArgs::default()
    };
    let eal = Eal::start(&args).unwrap();
    assert_eq!(own_cpus(), before, "the caller keeps its CPUs");
    let of_dpdk: Vec<_> = threads()
        .into_iter()
        .filter(|(name, _)| name.starts_with("eal-") || name.starts_with("rte_"))
        .collect();
    assert!(!of_dpdk.is_empty());
    assert!(of_dpdk.iter().all(|(_, cpus)| *cpus == service.to_string()), "{of_dpdk:?}");
    assert!(matches!(Eal::start(&args), Err(EalError::Started)));
    assert_eq!(Port::list(&eal), ["net_null0", "net_null1"]);

    mempools_and_workers(&eal);
    ports(&eal);
}

fn mempools_and_workers(eal: &Eal) {
    let config = MempoolConfig { name: "small", count: 1023, cache: 128, ..MempoolConfig::default() };
    let pool = Mempool::create(eal, &config).unwrap();
    assert_eq!((pool.count(), pool.available(), pool.data_room()), (1023, 1023, 2048));
    let twice = Mempool::create(eal, &config).unwrap_err();
    assert_eq!(
        twice.to_string(),
        "mempool \"small\" of 2421440 bytes: File exists (17)"
            .replace("2421440", &(1023_u64 * (2176 + 192)).to_string())
    );
    for wrong in [
        MempoolConfig { name: "a name that is much longer", ..config },
        MempoolConfig { name: "cache", cache: 513, ..config },
        MempoolConfig { name: "third", count: 300, ..config },
        MempoolConfig { name: "room", data_room: u16::MAX, ..config },
    ] {
        assert!(matches!(Mempool::create(eal, &wrong), Err(MempoolError::Config { .. })), "{wrong:?}");
    }
    let memory = Mempool::create(eal, &MempoolConfig { name: "huge", count: 1 << 20, ..config }).unwrap_err();
    assert!(matches!(memory, MempoolError::Refused { .. }), "{memory}");

    assert_eq!(register_worker_thread(eal).unwrap_err(), WorkerError::Registered, "it started the EAL");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let token = register_worker_thread(eal).unwrap();
                assert_eq!(register_worker_thread(eal).unwrap_err(), WorkerError::Registered);
                for _ in 0..1000 {
                    let mut burst = Vec::with_capacity(64);
                    assert!(pool.alloc_bulk(&mut burst, 64));
                    free_bulk(&mut burst);
                }
                drop(token);
                drop(register_worker_thread(eal).unwrap());
            });
        }
    });
    freed_by_another(eal, &pool);
    // Caches of threads that are gone hold nothing back: every mbuf can be had.
    let mut all = Vec::new();
    assert!(pool.alloc_bulk(&mut all, 1023));
    assert_eq!(pool.in_use(), 1023);
    free_bulk(&mut all);
    assert_eq!(pool.in_use(), 0);
}

/// One thread takes mbufs and another one gives them back, many times as many as there are: what is handed from worker to worker.
fn freed_by_another(eal: &Eal, pool: &Mempool) {
    let (mut into, mut out) = memory::ring(256);
    let count = 100 * u64::from(pool.count());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _token = register_worker_thread(eal).unwrap();
            for number in 0..count {
                // Its own cache and the ring hold at most 448 of 1023, the other's cache 192: there is always one left.
                let mut packet = pool.alloc_copy(&number.to_be_bytes()).unwrap();
                while let Err(back) = into.push(packet) {
                    packet = back;
                    std::thread::yield_now();
                }
            }
        });
        scope.spawn(|| {
            let _token = register_worker_thread(eal).unwrap();
            let mut expected = 0;
            while expected < count {
                match out.pop() {
                    Some(packet) => {
                        assert_eq!(packet.bytes(), expected.to_be_bytes());
                        packet.free();
                        expected += 1;
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
    });
}

fn ports(eal: &Eal) {
    let config = MempoolConfig { name: "ports", count: 4095, ..MempoolConfig::default() };
    let pool = Mempool::create(eal, &config).unwrap();
    let config = PortConfig { rx_queues: 2, tx_queues: 2, promiscuous: true, ..PortConfig::new(pool) };
    assert_eq!(
        Port::open(eal, "net_null7", &config).unwrap_err(),
        PortError::NotFound { port: "net_null7".into() }
    );
    let empty = PortConfig { rx_queues: 0, ..config.clone() };
    assert!(matches!(Port::open(eal, "net_null0", &empty), Err(PortError::Empty { .. })));

    let mut opened = Port::open(eal, "net_null0", &config).unwrap();
    assert!(matches!(Port::open(eal, "net_null0", &config), Err(PortError::Open { .. })));
    let port = &opened.port;
    assert_eq!((port.name(), port.driver(), port.mtu()), ("net_null0", "net_null", Ok(1500)));
    assert_eq!(port.mac().unwrap().len(), 6);
    assert!(port.link().unwrap().up);
    assert_eq!((opened.rx.len(), opened.tx.len()), (2, 2));
    assert!(opened.rx[0].wake_fd().is_none());

    let mut burst = Vec::with_capacity(40);
    assert_eq!(opened.rx[0].burst(&mut burst, 32), 32);
    assert_eq!(opened.rx[1].burst(&mut burst, 32), 8, "capacity is the limit, nothing is allocated");
    assert_eq!((burst.len(), burst.capacity(), opened.rx[1].burst(&mut burst, 32)), (40, 40, 0));
    assert!(
        burst.iter().all(|packet| packet.len() == 64 && packet.segments() == 1 && packet.headroom() == 128)
    );
    let fresh = pool.in_use();
    assert!(fresh >= 40);
    assert_eq!((opened.tx[1].burst(&mut burst), burst.len()), (40, 0));
    assert_eq!(pool.in_use(), fresh - 40, "the null port frees what it sends");
    let stats = opened.port.stats().unwrap();
    assert_eq!((stats.rx_packets, stats.tx_packets, stats.rx_no_mbuf), (40, 40, 0));

    // A queue that is still held keeps the port open; the last one closes it.
    let kept = opened.rx.pop();
    assert!(matches!(opened.port.close(opened.rx, opened.tx), Err(PortError::Open { .. })));
    assert_eq!(Port::list(eal), ["net_null0", "net_null1"]);
    drop(kept);
    assert_eq!(Port::list(eal), ["net_null1"]);

    let tall = PortConfig { mtu: u16::MAX, ..config.clone() };
    let refused = Port::open(eal, "net_null1", &tall).unwrap_err();
    assert!(matches!(refused, PortError::Mtu { .. } | PortError::Buffers { .. }), "{refused}");
}
