//! `nave-perf aead`: what sealing and opening a packet costs with each provider of AES-GCM, side by side with ring.
//!
//! ```text
//!   texts, filled ──▶ aead::seal, timed ──▶ aead::open, timed ──▶ compared with what they were
//! ```

use std::fmt;
use std::ops::Range;

use aead::{Burst, ICV, Key, Packet, Provider, Soon, open, open_one, seal};
use anyhow::ensure;
use clap::{ValueEnum, value_parser};
use memory::cycles;
use serde::Serialize;

use crate::machine::cores;
use crate::reference::Random;
use crate::report::median;

/// Packets of a burst, and of a run.
const BURST: usize = 32;
const PACKETS: usize = 1024;
/// Bytes of a buffer, and where the text begins in it: behind headroom, Ethernet, IPv4, and ESP with its IV.
const BUFFER: usize = 2048;
const BEFORE: usize = 128 + 14 + 20 + 16;
/// Lengths in IMIX, and how many there are in twelve of each.
const IMIX: [(u32, u64); 3] = [(64, 7), (570, 4), (1400, 1)];

/// Command line of `nave-perf aead`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Providers beside ring; all that this machine can run if not given
    #[arg(long, value_delimiter = ',')]
    providers: Vec<Provider>,
    /// Bytes of text, without ICV; 0 is IMIX: 64, 570 and 1400 bytes, 7:4:1
    #[arg(long, value_delimiter = ',', default_values_t = [64, 354, 512, 1024, 1400, 0],
        value_parser = value_parser!(u32).range(0..=1500))]
    sizes: Vec<u32>,
    /// SAs that the packets are of, at random
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1000, 10_000],
        value_parser = value_parser!(u32).range(1..=100_000))]
    sas: Vec<u32>,
    /// Bits of the keys
    #[arg(long, value_enum, default_value = "128")]
    bits: Bits,
    /// Runs of 1,024 packets that the medians are of; in each all providers have their turn
    #[arg(long, default_value_t = 65, value_parser = value_parser!(u32).range(1..=10_000))]
    passes: u32,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Length of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bits {
    #[value(name = "128")]
    Short = 128,
    #[value(name = "256")]
    Long = 256,
}

/// One run. Cycles are those of the time stamp counter.
#[derive(Debug, Serialize)]
struct Report {
    bits: u32,
    lines: Vec<Line>,
    /// Whether every packet was authentic and is what it was, and `aes-gcm` opened what each provider had sealed.
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong: Option<String>,
    passes: u32,
    packets_per_pass: usize,
    /// Rate of the time stamp counter per second.
    cycles_per_second: u64,
}

/// A provider with packets of one length and so many SAs.
#[derive(Debug, Serialize)]
struct Line {
    sas: u32,
    /// Bytes of text, or `imix`.
    size: String,
    provider: &'static str,
    seal: Cost,
    open: Cost,
}

/// Cycles per packet.
#[derive(Debug, Serialize)]
struct Cost {
    /// The median of the passes, and the best.
    cycles: f64,
    cycles_min: f64,
    /// Over ring's of the same pass: the median.
    ring_ratio: f64,
    /// Of the best pass over ring's best.
    ring_ratio_min: f64,
}

/// Runs it; whether every packet was right.
///
/// # Errors
/// What keeps it from running, in one sentence.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    for core in cores(1)? {
        ensure!(core_affinity::set_for_current(core), "core {} cannot be had", core.id);
    }
    for provider in &args.providers {
        ensure!(provider.is_usable(), "this machine cannot run {provider}");
    }
    let wanted = |provider: &Provider| {
        let all = args.providers.is_empty() && provider.is_usable();
        all || args.providers.contains(provider) || *provider == Provider::Ring
    };
    let providers: Vec<Provider> = Provider::ALL.into_iter().filter(wanted).collect();
    let mut report = Report {
        bits: args.bits as u32,
        lines: Vec::new(),
        verified: true,
        wrong: None,
        passes: args.passes,
        packets_per_pass: PACKETS,
        cycles_per_second: memory::cycles_per_second(),
    };
    for sas in &args.sas {
        let mut bench = Bench::new(&providers, *sas, args.bits)?;
        for size in &args.sizes {
            let measured = bench.measure(*size, args.passes);
            report.lines.extend(bench.lines(*size));
            if let Err(error) = measured {
                report.verified = false;
                report.wrong.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.verified)
}

/// Some SAs, with the keys and texts of each provider.
struct Bench {
    sas: u32,
    bits: Bits,
    lanes: Vec<Lane>,
    random: Random,
}

/// What one provider works on.
struct Lane {
    provider: Provider,
    keys: Vec<Key>,
    texts: Vec<u8>,
    /// Cycles per packet, pass by pass.
    seal: Vec<f64>,
    open: Vec<f64>,
}

/// A packet of a pass, the same for each provider.
#[derive(Debug, Clone, Copy)]
struct Slot {
    sa: u32,
    /// Which buffer.
    buffer: u32,
    length: u32,
}

/// Packets of a burst, as a worker would have them.
struct Slots<'a> {
    keys: &'a [Key],
    texts: &'a mut [u8],
    slots: &'a [Slot],
    authentic: usize,
}

impl Burst for Slots<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline(always)]
    fn packet(&mut self, at: usize) -> Option<Packet<'_>> {
        let slot = self.slots.get(at)?;
        Some(slot.packet(self.keys.get(slot.sa as usize)?, slot.text(self.texts)?))
    }

    #[inline(always)]
    fn ahead(&mut self, at: usize) -> Option<Soon> {
        let slot = self.slots.get(at)?;
        Some(Soon::of(self.keys.get(slot.sa as usize)?, self.texts.get(slot.place())?))
    }

    fn sealed(&mut self, _: usize) {}

    #[inline(always)]
    fn opened(&mut self, _: usize, authentic: bool) {
        self.authentic += usize::from(authentic);
    }
}

impl Slot {
    #[inline(always)]
    fn packet<'a>(&self, key: &'a Key, text: &'a mut [u8]) -> Packet<'a> {
        let sequence = u64::from(self.buffer) + 1;
        let salt = self.sa.to_le_bytes();
        Packet { key, salt, iv: sequence, sequence, spi: 0x100 + self.sa, esn: false, text }
    }

    /// Its bytes, with room for the ICV.
    #[inline(always)]
    fn text<'a>(&self, texts: &'a mut [u8]) -> Option<&'a mut [u8]> {
        texts.get_mut(self.place())
    }

    #[inline(always)]
    fn place(&self) -> Range<usize> {
        let begin = self.buffer as usize * BUFFER + BEFORE;
        begin..begin + self.length as usize + ICV
    }

    /// What its bytes are in the clear.
    fn plain(&self) -> impl Iterator<Item = u8> {
        let seed = self.buffer.wrapping_mul(37);
        (0..self.length).map(move |at| (at.wrapping_mul(11).wrapping_add(seed)) as u8)
    }
}

impl Bench {
    fn new(providers: &[Provider], sas: u32, bits: Bits) -> anyhow::Result<Self> {
        let mut lanes = Vec::new();
        for provider in providers {
            let keys: Result<_, _> = (0..sas).map(|sa| key(*provider, sa, bits)).collect();
            let texts = vec![0; PACKETS * BUFFER];
            lanes.push(Lane { provider: *provider, keys: keys?, texts, seal: Vec::new(), open: Vec::new() });
        }
        Ok(Self { sas, bits, lanes, random: Random(0x6165_6164) })
    }

    /// Passes of one length; the first warms up and is checked with another provider.
    fn measure(&mut self, size: u32, passes: u32) -> anyhow::Result<()> {
        for lane in &mut self.lanes {
            lane.seal.clear();
            lane.open.clear();
        }
        for pass in 0..=passes as usize {
            let slots = self.slots(size);
            for lane in &mut self.lanes {
                lane.fill(&slots);
            }
            let count = self.lanes.len();
            let (mut sealing, mut opening) = (vec![0; count], vec![0; count]);
            // The provider that begins is another one each time. With one SA nothing is to be out of the caches: each provider opens right
            // behind sealing, and does it again and again. With many, all others have been at work in between.
            let turns = |lane: usize| (pass + lane) % count;
            let (runs, apart) = if self.sas == 1 { (PACKETS / BURST, false) } else { (1, true) };
            for at in (0..count).map(turns) {
                for run in 0..runs {
                    sealing[at] += self.lanes[at].seal(&slots);
                    if pass == 0 && run == 0 {
                        self.lanes[at].check(&slots, self.bits)?;
                    }
                    if !apart {
                        opening[at] += self.lanes[at].open(&slots)?;
                    }
                }
            }
            for at in (0..count).map(turns).filter(|_| apart) {
                opening[at] += self.lanes[at].open(&slots)?;
            }
            for ((lane, sealing), opening) in self.lanes.iter_mut().zip(sealing).zip(opening) {
                lane.compare(&slots)?;
                if pass > 0 {
                    lane.seal.push(sealing as f64 / PACKETS as f64);
                    lane.open.push(opening as f64 / PACKETS as f64);
                }
            }
        }
        Ok(())
    }

    /// The packets of a pass: each buffer once, in random order; with one SA only those of a burst.
    fn slots(&mut self, size: u32) -> Vec<Slot> {
        let buffers = if self.sas == 1 { BURST } else { PACKETS };
        let mut order: Vec<u32> = (0..buffers as u32).collect();
        for at in (1..buffers as u32).rev() {
            order.swap(at as usize, self.random.below(at + 1) as usize);
        }
        let random = &mut self.random;
        let mut length = || match size {
            0 => imix(u64::from(random.below(12))),
            size => size,
        };
        let mut slots: Vec<Slot> =
            order.into_iter().map(|buffer| Slot { sa: 0, buffer, length: length() }).collect();
        for slot in &mut slots {
            slot.sa = self.random.below(self.sas);
        }
        slots
    }

    /// What was measured last.
    fn lines(&self, size: u32) -> Vec<Line> {
        let ring = self.lanes.iter().find(|lane| lane.provider == Provider::Ring);
        let lines = self.lanes.iter().map(|lane| Line {
            sas: self.sas,
            size: if size == 0 { "imix".into() } else { size.to_string() },
            provider: lane.provider.name(),
            seal: Cost::of(&lane.seal, ring.map_or(&[], |ring| &ring.seal)),
            open: Cost::of(&lane.open, ring.map_or(&[], |ring| &ring.open)),
        });
        lines.collect()
    }
}

/// A length of IMIX by a number below 12.
fn imix(mut number: u64) -> u32 {
    for (length, share) in IMIX {
        if number < share {
            return length;
        }
        number -= share;
    }
    IMIX[0].0
}

fn key(provider: Provider, sa: u32, bits: Bits) -> Result<Key, aead::KeyError> {
    let mut bytes = [0x4e; 32];
    bytes[..4].copy_from_slice(&sa.to_le_bytes());
    Key::new(provider, &bytes[..bits as usize / 8])
}

impl Lane {
    fn fill(&mut self, slots: &[Slot]) {
        for slot in slots {
            let text = slot.text(&mut self.texts).into_iter().flatten();
            text.zip(slot.plain()).for_each(|(to, byte)| *to = byte);
        }
    }

    /// Seals all, burst by burst; cycles.
    fn seal(&mut self, slots: &[Slot]) -> u64 {
        let begun = cycles();
        for slots in slots.chunks(BURST) {
            let mut burst = Slots { keys: &self.keys, texts: &mut self.texts, slots, authentic: 0 };
            seal(self.provider, &mut burst);
        }
        cycles() - begun
    }

    /// Opens all, burst by burst; cycles.
    fn open(&mut self, slots: &[Slot]) -> anyhow::Result<u64> {
        let begun = cycles();
        let mut authentic = 0;
        for slots in slots.chunks(BURST) {
            let mut burst = Slots { keys: &self.keys, texts: &mut self.texts, slots, authentic: 0 };
            open(self.provider, &mut burst);
            authentic += burst.authentic;
        }
        let spent = cycles() - begun;
        let provider = self.provider;
        ensure!(
            authentic == slots.len(),
            "{provider}: {} of {} are not authentic",
            slots.len() - authentic,
            slots.len()
        );
        Ok(spent)
    }

    /// Whether `aes-gcm` opens what was sealed, to what it was.
    fn check(&mut self, slots: &[Slot], bits: Bits) -> anyhow::Result<()> {
        let provider = self.provider;
        for slot in slots {
            let other = key(Provider::AesGcm, slot.sa, bits)?;
            let mut text = slot.text(&mut self.texts).unwrap_or_default().to_vec();
            let opened = open_one(slot.packet(&other, &mut text));
            let right = opened && text.iter().copied().zip(slot.plain()).all(|(byte, plain)| byte == plain);
            ensure!(right, "aes-gcm does not open {} bytes that {provider} sealed", slot.length);
        }
        Ok(())
    }

    /// Whether the texts are what they were before.
    fn compare(&mut self, slots: &[Slot]) -> anyhow::Result<()> {
        let provider = self.provider;
        for slot in slots {
            let text = slot.text(&mut self.texts).unwrap_or_default();
            let right = text.iter().copied().zip(slot.plain()).all(|(byte, plain)| byte == plain);
            ensure!(right, "{provider}: {} bytes are not what they were", slot.length);
        }
        Ok(())
    }
}

impl Cost {
    fn of(cycles: &[f64], ring: &[f64]) -> Self {
        let best = |cycles: &[f64]| cycles.iter().copied().fold(f64::INFINITY, f64::min);
        Self {
            cycles: median(cycles.iter().copied()),
            cycles_min: best(cycles),
            ring_ratio: median(cycles.iter().zip(ring).map(|(own, ring)| own / ring)),
            ring_ratio_min: best(cycles) / best(ring),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "AES-GCM with keys of {} bits, cycles per packet (ring = 1): medians of {} passes of {}, and the best",
            self.bits, self.passes, self.packets_per_pass
        )?;
        writeln!(f, "{:>6} {:>5} {:9} {:>26} {:>26}", "SAs", "bytes", "provider", "seal", "open")?;
        for line in &self.lines {
            write!(f, "{:>6} {:>5} {:9}", line.sas, line.size, line.provider)?;
            for cost in [&line.seal, &line.open] {
                write!(f, " {:6.0} ({:.3})", cost.cycles, cost.ring_ratio)?;
                write!(f, " {:5.0} ({:.3})", cost.cycles_min, cost.ring_ratio_min)?;
            }
            writeln!(f)?;
        }
        match &self.wrong {
            None => write!(f, "verified: every packet was opened, by aes-gcm too, and is what it was"),
            Some(wrong) => write!(f, "WRONG: {wrong}"),
        }
    }
}
