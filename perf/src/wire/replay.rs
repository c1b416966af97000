//! A file's frames again and again: the data plane's own driver reads them, so no other core sends, and nobody takes what comes out. What leaves is
//! captured, a sample of it, and checked.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use model::Mac;
use model::observe::{CaptureRequest, Direction, Tap};
use proto::client::Dataplane;

use crate::generator::Flight;
use crate::histogram::Latencies;
use crate::lane::DISTINCT;
use crate::output;
use crate::packets::Packets;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::scenario::{PORTS, Scenario};
use crate::wire::Bench;
use crate::wire::link::Kind;
use crate::wire::meter::Meter;
use crate::wire::report::{Costs, Report};

/// Address of the first port of DPDK's net_pcap: `02`, "pcap", number.
pub(crate) const MAC: Mac = Mac([2, b'p', b'c', b'a', b'p', 0]);
/// How long the counters run between two looks.
const WINDOW: Duration = Duration::from_millis(50);
/// How long a sample may take to come.
const PATIENCE: Duration = Duration::from_secs(20);
/// The seed of a file's packets: they are made once for the file and once more to be checked against.
const ROUNDS: usize = DISTINCT;

/// The packets of the file, in the order of the file.
fn packets(scenario: &Scenario, workers: u16, mut each: impl FnMut(&[u8])) -> anyhow::Result<Packets> {
    let mut packets = Packets::new(scenario.clone(), 0..workers)?;
    packets.begin();
    let mut frame = Vec::new();
    for _ in 0..ROUNDS {
        packets.make(&mut frame)?;
        each(&frame);
    }
    packets.allow_loss();
    packets.allow_repetition();
    Ok(packets)
}

/// Writes the file; how many frames it has.
pub(crate) fn write(file: &Path, scenario: &Scenario, workers: u16) -> anyhow::Result<usize> {
    let mut frames = Vec::with_capacity(ROUNDS);
    packets(scenario, workers, |frame| frames.push(frame.to_vec()))?;
    output::pcap(file, frames.iter().map(Vec::as_slice))?;
    Ok(frames.len())
}

/// Looks at the counters while packets run, so many times, then checks a sample of what leaves.
///
/// # Errors
/// What keeps it from running.
pub(crate) fn measure(bench: &Bench, windows: u64, write: Option<&Path>) -> anyhow::Result<Report> {
    let mut progress = Progress::new();
    let mut reference = Reference::new()?;
    let mut costs = Costs::default();
    std::thread::sleep(2 * WINDOW);
    let mut meter = Meter::new(bench.seen()?);
    let mut begun = memory::cycles();
    // The first one is between counters that were read at different times.
    for window in 0..=windows {
        std::thread::sleep(WINDOW);
        let spent = meter.spent(bench.seen()?);
        let cycles = memory::cycles() - std::mem::replace(&mut begun, memory::cycles());
        if window == 0 {
            continue;
        }
        let count = spent.packets as usize;
        let (refused, late_max, latencies) = (0, Duration::ZERO, Latencies::new()?);
        let flight = Flight { sent: count, refused, came: count, cycles, late_max, latencies };
        let plain = reference.measure(DISTINCT);
        costs.add(&flight, &spent, (plain, reference.measure_sealing(DISTINCT / 8)));
        progress.tell(format_args!("look {window} of {windows}: {:.2} Mpps", flight.mpps()));
        meter = Meter::new(bench.seen()?);
        begun = memory::cycles();
    }
    let sample = bench.runtime.block_on(sample(bench))?;
    let mut packets = packets(&bench.scenario, bench.workers, |_| ())?;
    let port = bench.scenario.kind.out_port();
    let check = |frame: &Vec<u8>| packets.check(port, &mut frame.clone());
    let wrong = sample.iter().map(check).find_map(Result::err).map(|error| format!("{error:#}"));
    let mut report = Report::new(bench, Kind::Pcap, costs, wrong);
    report.sampled = Some(sample.len());
    if let Some(file) = write {
        output::write(file, &bench.scenario, bench.workers, sample)?;
    }
    Ok(report)
}

/// Frames as they leave the data plane.
async fn sample(bench: &Bench) -> anyhow::Result<Vec<Vec<u8>>> {
    let (name, _) = PORTS[usize::from(bench.scenario.kind.out_port())];
    let request = CaptureRequest {
        at: Tap::Port(name.to_owned()),
        packets: NonZeroU32::new(2 * output::SAMPLE as u32),
        snap: None,
        address: None,
    };
    let client = Dataplane::at(bench.dataplane.socket.clone());
    let mut captured = client.capture(request).await.context("capturing what leaves")?;
    let mut frames = Vec::new();
    let until = Instant::now() + PATIENCE;
    while let Some(packet) = captured.next().await {
        let packet = packet?;
        if packet.direction == Some(Direction::Out) && frames.len() < output::SAMPLE {
            frames.push(packet.bytes);
        }
        ensure!(Instant::now() < until, "what leaves cannot be captured");
    }
    ensure!(!frames.is_empty(), "nothing leaves by {name}");
    Ok(frames)
}
