//! Inbound SPIs of ours: places of the data plane's workers, given out evenly, and again as late as can be.

use std::collections::{HashMap, HashSet, VecDeque};

use model::WorkerId;
use model::sa::Spi;

use crate::Crypto;

/// The places of one worker.
#[derive(Debug, Default)]
struct Places {
    /// Those from here on, `slots` of them in a circle, were not given out yet.
    next: u32,
    untouched: u32,
    /// Those that came back, the oldest first.
    back: VecDeque<u32>,
    /// By place, who has it: another that had it before cannot give it back.
    used: HashMap<u32, Spi>,
}

/// All places.
#[derive(Debug, Default)]
pub(crate) struct Spis {
    workers: Vec<Places>,
    slots: u32,
    /// Names of SAs that were lost and that peers may still know: their places are free, and nobody is called so.
    lost: HashSet<Spi>,
}

impl Spis {
    /// Places of a data plane, but for those that are taken, and names, but for those of what is `lost`.
    pub(crate) fn new(
        crypto: &mut dyn Crypto,
        (workers, slots): (u16, u32),
        taken: &[Spi],
        lost: HashSet<Spi>,
    ) -> Self {
        let slots = slots.min(Spi::SLOTS as u32);
        let workers = usize::from(workers).min(Spi::WORKERS);
        let places = (0..workers).map(|_| {
            let mut chance = [0; 4];
            crypto.random(&mut chance);
            let next = u32::from_be_bytes(chance) % slots.max(1);
            Places { next, untouched: slots, ..Places::default() }
        });
        let mut spis = Self { workers: places.collect(), slots, lost };
        for spi in taken {
            spis.reserve(*spi);
        }
        spis
    }

    /// Workers that there are.
    pub(crate) fn workers(&self) -> u16 {
        u16::try_from(self.workers.len()).unwrap_or(u16::MAX)
    }

    /// Worker of an SPI as the data plane has it: the field modulo the number of workers.
    fn home(&self, spi: Spi) -> usize {
        usize::from(spi.worker()) % self.workers.len().max(1)
    }

    /// Whether an SPI that was taken of a data plane before is a place of this worker in this one, too.
    pub(crate) fn is_home(&self, spi: Spi, worker: WorkerId) -> bool {
        let worker = usize::from(worker.0);
        worker < self.workers.len() && self.home(spi) == worker && spi.slot() < self.slots
    }

    /// Takes the place of an SPI that is there already.
    pub(crate) fn reserve(&mut self, spi: Spi) {
        let home = self.home(spi);
        if let Some(places) = self.workers.get_mut(home).filter(|_| spi.slot() < self.slots) {
            places.used.insert(spi.slot(), spi);
        }
    }

    /// The worker with the most room.
    pub(crate) fn emptiest(&self) -> Option<WorkerId> {
        let by_use = self.workers.iter().zip(0_u16..).min_by_key(|(places, _)| places.used.len());
        by_use.map(|(_, worker)| WorkerId(worker))
    }

    /// A new one of a worker's; `None` if it has no place left.
    pub(crate) fn take(&mut self, crypto: &mut dyn Crypto, worker: WorkerId) -> Option<Spi> {
        let slots = self.slots;
        let places = self.workers.get_mut(usize::from(worker.0))?;
        let slot = loop {
            let slot = if places.untouched > 0 {
                places.untouched -= 1;
                let slot = places.next;
                places.next = (places.next + 1) % slots;
                slot
            } else {
                places.back.pop_front()?
            };
            if !places.used.contains_key(&slot) {
                break slot;
            }
        };
        let spi = loop {
            let mut generation = [0];
            crypto.random(&mut generation);
            let spi = Spi::of(worker.0, slot, generation[0]);
            if let Some(spi) = spi.filter(|spi| !self.lost.contains(spi)) {
                break spi;
            }
        };
        places.used.insert(slot, spi);
        Some(spi)
    }

    /// Gives one back, if it has its place still.
    pub(crate) fn give_back(&mut self, spi: Spi) {
        let home = self.home(spi);
        if let Some(places) = self.workers.get_mut(home)
            && places.used.get(&spi.slot()) == Some(&spi)
        {
            places.used.remove(&spi.slot());
            places.back.push_back(spi.slot());
        }
    }
}
