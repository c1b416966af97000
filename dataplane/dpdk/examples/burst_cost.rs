//! What a burst costs: TSC cycles per packet of rx and tx at burst 32, over a ring port that is its own wire and over
//! net_null, with nothing done to the packets and with their first byte read.
//!
//!     cargo run --release -p dpdk --example burst_cost

use dpdk::{Eal, EalArgs, Memory, Mempool, MempoolConfig, Opened, Port, PortConfig, ring};
use std::hint::black_box;
use wire::buf::PacketBuf;

const BURST: usize = 32;
const ROUNDS: u64 = 20_000;

/// Least cycles per packet of 50 runs: the machine is shared, the least is the cost.
fn cycles_per_packet(opened: &mut Opened, touch: bool) -> f64 {
    let mut burst = Vec::with_capacity(BURST);
    let mut run = || {
        let (mut packets, from) = (0, memory::cycles());
        for _ in 0..ROUNDS {
            opened.rx[0].burst(&mut burst, BURST);
            if touch {
                burst.iter().for_each(|packet| {
                    black_box(packet.bytes().first());
                });
            }
            packets += opened.tx[0].burst(&mut burst);
        }
        (memory::cycles() - from) as f64 / packets as f64
    };
    (0..50).map(|_| run()).fold(f64::INFINITY, f64::min)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args =
        EalArgs { memory: Memory::NoHuge { mb: 256 }, vdevs: vec!["net_null0".into()], ..EalArgs::default() };
    let eal = Eal::start(&args)?;
    let pool = Mempool::create(&eal, &MempoolConfig::default())?;
    let config = PortConfig::new(pool);

    let (mut tx, rx) = ring(&eal, "wire", 4096)?;
    let mut packets = Vec::new();
    if !pool.alloc_bulk(&mut packets, 2048) {
        return Err("the mempool is too small".into());
    }
    packets.iter_mut().filter_map(|packet| packet.append(64)).for_each(|bytes| bytes.fill(0));
    tx.burst(&mut packets);
    let mut looped = Port::over_rings(&eal, "loop", vec![rx], vec![tx], &config)?;
    let mut null = Port::open(&eal, "net_null0", &config)?;
    for (name, opened) in [("ring", &mut looped), ("null", &mut null)] {
        let (bare, touched) = (cycles_per_packet(opened, false), cycles_per_packet(opened, true));
        println!("{name}: rx+tx {bare:.1} cycles per packet, {touched:.1} with the first byte read");
    }
    Ok(())
}
