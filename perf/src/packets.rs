//! Packets of one queue: made before a pass, in which nothing but forwarding happens to them, and checked behind it, byte by byte.

use anyhow::{Context as _, bail, ensure};

use crate::frame::{Way, esp_of, index_of, least_size};
use crate::peers::Peers;
use crate::reference::Random;
use crate::scenario::Scenario;

/// See the module.
pub(crate) struct Packets {
    pub(crate) scenario: Scenario,
    /// The other ends of the SAs, if there are some.
    peers: Option<Peers>,
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
    /// Packets for the worker with this number.
    ///
    /// # Errors
    /// There is no SA for it.
    pub(crate) fn new(scenario: Scenario, worker: u16) -> anyhow::Result<Self> {
        let peers = Peers::new(&scenario, worker)?;
        let random = Random(u64::from(worker) + 1);
        let (ways, seen, sample) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { scenario, peers, random, pass: 0, ways, seen, came: 0, sample, sampled: 0 })
    }

    /// From now on packets may get lost on their way.
    pub(crate) fn allow_loss(&mut self) {
        if let Some(peers) = &mut self.peers {
            peers.allow_loss();
        }
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
        way.arrival(scenario, self.peers.as_mut(), frame)?;
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
        if let Some(peers) = self.peers.as_mut().filter(|_| scenario.kind.leaves_in_tunnel()) {
            let sequence = peers.open(esp_of(scenario, frame)?)?;
            opened = Some((peers, sequence));
        }
        let index = index_of(scenario, frame).context("a frame without a payload")? as usize;
        let Some((way, seen)) = self.ways.get(index).zip(self.seen.get_mut(index)) else {
            bail!("a frame that is none of ours: {frame:02x?}");
        };
        ensure!(!std::mem::replace(seen, true), "packet {index} came out twice");
        self.came += 1;
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
