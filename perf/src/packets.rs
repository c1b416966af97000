//! Packets of one queue: made before a pass, in which nothing but forwarding happens to them, and checked behind it, byte by byte.

use std::ops::Range;

use anyhow::{Context as _, bail, ensure};

use crate::esp::Esp;
use crate::frame::{Way, esp_of, index_of, least_size};
use crate::peers::Peers;
use crate::reference::Random;
use crate::scenario::Scenario;
use crate::size::Size;

/// See the module.
pub(crate) struct Packets {
    pub(crate) scenario: Scenario,
    /// The other ends of the SAs, by worker; none if the tunnel is not protected. The first worker.
    peers: Vec<Peers>,
    first: u16,
    /// Whether each packet may come out many times.
    repeats: bool,
    random: Random,
    /// The pass, and its packets by their numbers: on what way, and whether they came out.
    pass: u32,
    ways: Vec<Way>,
    seen: Vec<bool>,
    came: usize,
    /// Frames that came out, as they did, and how many of them are kept.
    sample: Vec<Vec<u8>>,
    sampled: usize,
}

impl Packets {
    /// Packets for the workers with these numbers.
    ///
    /// # Errors
    /// There are no SAs for them.
    pub(crate) fn new(scenario: Scenario, workers: Range<u16>) -> anyhow::Result<Self> {
        let first = workers.start;
        let mut peers = Vec::new();
        for worker in workers {
            peers.extend(Peers::new(&scenario, worker)?);
        }
        Ok(Self {
            peers,
            first,
            scenario,
            repeats: false,
            random: Random(u64::from(first) + 1),
            pass: 0,
            ways: Vec::new(),
            seen: Vec::new(),
            came: 0,
            sample: Vec::new(),
            sampled: 0,
        })
    }

    /// From now on frames have this size.
    pub(crate) fn resize(&mut self, size: Size) {
        self.scenario.size = size;
    }

    /// From now on packets may come out more than once: their source begins again and again.
    pub(crate) fn allow_repetition(&mut self) {
        self.repeats = true;
    }

    /// From now on packets may get lost on their way.
    pub(crate) fn allow_loss(&mut self) {
        self.peers.iter_mut().for_each(Peers::allow_loss);
    }

    /// Keeps the next frames that are checked, so many.
    pub(crate) fn keep(&mut self, count: usize) {
        self.sampled = count;
    }

    /// What was kept.
    pub(crate) fn take_sample(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.sample)
    }

    /// Begins a pass: it has no packets yet.
    pub(crate) fn begin(&mut self) {
        self.pass += 1;
        self.ways.clear();
        self.seen.clear();
        self.came = 0;
    }

    /// The pass's next packet, as it arrives: route, host, spoke and size drawn at random, and sealed if it arrives so.
    ///
    /// # Errors
    /// Its spoke has no SA.
    pub(crate) fn make(&mut self, frame: &mut Vec<u8>) -> anyhow::Result<()> {
        let (scenario, random) = (&self.scenario, &mut self.random);
        let (to, route) = scenario.destinations.draw(random);
        let from = random.below(scenario.spokes);
        let size = scenario.size.draw(least_size(scenario.inner), random);
        let index = self.ways.len() as u32;
        let way = Way { index, pass: self.pass, size, from, to, route };
        let worker = if self.peers.len() > 1 { random.below(self.peers.len() as u32) } else { 0 };
        way.arrival(scenario, self.peers.get_mut(worker as usize), frame)?;
        self.ways.push(way);
        self.seen.push(false);
        Ok(())
    }

    /// Checks every byte of a frame that left by this port, and that it is the first of its packet; opens it, if it is sealed. The
    /// packet's number.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&mut self, port: u16, frame: &mut [u8]) -> anyhow::Result<usize> {
        if self.sample.len() < self.sampled {
            self.sample.push(frame.to_vec());
        }
        let scenario = &self.scenario;
        let mut opened = None;
        if !self.peers.is_empty() && scenario.kind.leaves_in_tunnel() {
            let packet = esp_of(scenario, frame)?;
            let spi = packet.first_chunk().map_or(0, |spi| u32::from_be_bytes(*spi));
            let worker = usize::from(Esp::worker(spi).wrapping_sub(self.first));
            let peers = self.peers.get_mut(worker).with_context(|| format!("SPI {spi:#x} is no worker's"))?;
            let sequence = peers.open(packet)?;
            opened = Some((peers, sequence));
        }
        let index = index_of(scenario, frame).context("a frame without a payload")? as usize;
        let Some((way, seen)) = self.ways.get(index).zip(self.seen.get_mut(index)) else {
            bail!("a frame that is none of ours: {frame:02x?}");
        };
        let again = std::mem::replace(seen, true);
        ensure!(!again || self.repeats, "packet {index} came out twice");
        self.came += usize::from(!again);
        let header = opened
            .map(|(peers, sequence)| peers.header(scenario.spoke_of(way.route), sequence))
            .transpose()?;
        way.check_departure(scenario, port, header, frame)
            .with_context(|| format!("packet {index}: {way:?}"))?;
        Ok(index)
    }

    /// Packets of the pass that did not come out.
    pub(crate) fn missing(&self) -> usize {
        self.ways.len() - self.came
    }
}
