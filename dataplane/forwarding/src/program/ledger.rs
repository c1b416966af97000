//! What workers have been told of SAs, what they are still to be told, and the numbers that stand for peers and domains.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::net::IpAddr;

use model::program::{InboundSa, OutboundSa, Tunnel};
use model::sa::{Lifetimes, ProfileName, Protection, SaKey, SaMode, Spi};
use model::{NbmaAddr, TableId};

use crate::sa::{OrderSender, PROTECTIONS};

/// What a decrypted packet and its tunnel must have in common: the profile, the table of outer packets and our own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Domain {
    profile: ProfileName,
    table: TableId,
    local: NbmaAddr,
}

impl Domain {
    pub(super) fn of(protection: &Protection) -> Self {
        let Protection { profile, table, local, .. } = *protection;
        Self { profile, table, local }
    }

    /// Of a tunnel that is protected.
    pub(super) fn of_tunnel(tunnel: &Tunnel) -> Option<Self> {
        let profile = tunnel.protection?;
        Some(Self { profile, table: tunnel.underlay_table, local: tunnel.source })
    }

    /// A peer in it.
    pub(super) fn peer(self, remote: IpAddr, port: u16) -> Protection {
        let Self { profile, table, local } = self;
        Protection { profile, table, local, remote: NbmaAddr(remote), port }
    }
}

/// Where an SA is, or could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A worker and the slot that an SPI names.
    Inbound(u16, u32),
    /// The slot of a peer, in all workers.
    Outbound(u32),
}

/// A key without the key: equal ones are of equal keys. They mean something in this process alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

/// What makes an SA the same one: then it keeps its window, or goes on from its own sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) spi: Spi,
    pub(super) key: Fingerprint,
    pub(super) mode: SaMode,
    pub(super) esn: bool,
}

/// Lifetimes of an SA, which most have none of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limits(Option<Box<Lifetimes>>);

impl From<Lifetimes> for Limits {
    fn from(lifetimes: Lifetimes) -> Self {
        Self((lifetimes != Lifetimes::default()).then(|| Box::new(lifetimes)))
    }
}

/// An inbound SA as its worker was told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GivenInbound {
    pub(super) identity: Identity,
    pub(super) domain: u16,
    pub(super) remote: IpAddr,
    pub(super) port: u16,
    pub(super) limits: Limits,
}

/// An outbound SA as its worker was told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GivenOutbound {
    pub(super) identity: Identity,
    /// The first sequence number that was not used when it was last given more.
    pub(super) since: u64,
    /// The last that it may use.
    pub(super) last: u64,
    pub(super) limits: Limits,
}

/// What a worker was told of a peer.
#[derive(Debug, Clone, Default)]
pub(super) struct Sealer {
    pub(super) own: Option<GivenOutbound>,
    pub(super) elsewhere: Option<u16>,
}

/// A peer that has a slot.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) protection: Protection,
    /// By worker.
    pub(super) sealers: Vec<Sealer>,
    /// How its packets are sealed: as the SA of the lowest worker says.
    pub(super) mode: SaMode,
    /// Whether packets may take the slot: every worker has been told of it, and it is not to go.
    pub(super) open: bool,
    /// It is to go, and its SAs with it when all workers have acknowledged this generation.
    pub(super) gate: u64,
}

/// A slot that workers may still refer to: until all have acknowledged a generation and carried out so many orders.
#[derive(Debug)]
struct Retired {
    slot: u32,
    generation: u64,
    orders: Vec<u64>,
}

/// All that was told, and the numbers.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Numbers of domains, from 1 on. They come and never go, so that none ever stands for two.
    domains: HashMap<Domain, u16>,
    /// By domain, the peer's address and its UDP port.
    slots: HashMap<(u16, IpAddr, u16), u32>,
    peers: Vec<Option<Peer>>,
    free: VecDeque<u32>,
    retired: VecDeque<Retired>,
    pub(super) inbound: HashMap<(u16, u32), GivenInbound>,
    /// Packets that inbound SAs had carried when that was last asked about.
    pub(super) heard: HashMap<Spi, u64>,
    /// Places where what is programmed may not be what was told; each once.
    waiting: VecDeque<Place>,
    queued: HashSet<Place>,
    workers: usize,
    fingerprints: RandomState,
}

impl Ledger {
    /// One more worker, which has been told nothing.
    pub(super) fn add_worker(&mut self) {
        self.workers += 1;
        for slot in 0..self.peers.len() {
            if let Some(peer) = &mut self.peers[slot] {
                peer.sealers.push(Sealer::default());
                self.queue(Place::Outbound(slot as u32));
            }
        }
    }

    /// The number of a domain, which has one from now on. The caller has made sure that there is one left.
    pub(super) fn number(&mut self, domain: Domain) -> u16 {
        let next = self.domains.len() as u16 + 1;
        *self.domains.entry(domain).or_insert(next)
    }

    pub(super) fn domain(&self, domain: &Domain) -> Option<u16> {
        self.domains.get(domain).copied()
    }

    pub(super) fn domains_left(&self) -> usize {
        usize::from(u16::MAX) - self.domains.len()
    }

    /// What a peer's slot is found by; `None` as long as its domain has no number.
    fn key(&self, protection: &Protection) -> Option<(u16, IpAddr, u16)> {
        Some((self.domain(&Domain::of(protection))?, protection.remote.0, protection.port))
    }

    pub(super) fn slot(&self, protection: &Protection) -> Option<u32> {
        self.slots.get(&self.key(protection)?).copied()
    }

    /// Slots that can be given now.
    pub(super) fn slots_left(&self) -> usize {
        PROTECTIONS - self.peers.len() + self.free.len()
    }

    pub(super) fn peer(&self, slot: u32) -> Option<&Peer> {
        self.peers.get(slot as usize)?.as_ref()
    }

    pub(super) fn peer_mut(&mut self, slot: u32) -> Option<&mut Peer> {
        self.peers.get_mut(slot as usize)?.as_mut()
    }

    /// All peers with their slots.
    pub(super) fn peers(&self) -> impl Iterator<Item = (u32, &Peer)> {
        self.peers.iter().enumerate().filter_map(|(slot, peer)| Some((slot as u32, peer.as_ref()?)))
    }

    /// The slot of a peer, which has one from now on, and so has its domain a number. The caller has made sure that there is room.
    pub(super) fn settle(&mut self, protection: Protection, mode: SaMode) -> u32 {
        let key = (self.number(Domain::of(&protection)), protection.remote.0, protection.port);
        if let Some(slot) = self.slots.get(&key) {
            return *slot;
        }
        let slot = self.free.pop_front().unwrap_or_else(|| {
            self.peers.push(None);
            (self.peers.len() - 1) as u32
        });
        let sealers = vec![Sealer::default(); self.workers];
        self.peers[slot as usize] = Some(Peer { protection, sealers, mode, open: false, gate: 0 });
        self.slots.insert(key, slot);
        slot
    }

    /// The peer has no SA in any worker, as soon as they have carried out what they were told. The slot may be used again then, and when
    /// they have acknowledged `generation`.
    pub(super) fn retire(&mut self, slot: u32, generation: u64, senders: &[OrderSender]) {
        let Some(peer) = self.peers.get_mut(slot as usize).and_then(Option::take) else { return };
        if let Some(key) = self.key(&peer.protection) {
            self.slots.remove(&key);
        }
        let orders = senders.iter().map(OrderSender::given).collect();
        self.retired.push_back(Retired { slot, generation, orders });
    }

    /// Every worker has acknowledged `generation`.
    pub(super) fn reclaim(&mut self, generation: u64, senders: &[OrderSender]) {
        let is_over = |retired: &mut Retired| {
            let mut orders = senders.iter().zip(&retired.orders);
            retired.generation <= generation && orders.all(|(sender, given)| sender.taken() >= *given)
        };
        while let Some(retired) = self.retired.pop_front_if(is_over) {
            self.free.push_back(retired.slot);
        }
    }

    /// What a place is told is to be looked at.
    pub(super) fn queue(&mut self, place: Place) {
        if self.queued.insert(place) {
            self.waiting.push_back(place);
        }
    }

    /// How many places are to be looked at.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The next place that is to be looked at.
    pub(super) fn next(&mut self) -> Option<Place> {
        let place = self.waiting.pop_front()?;
        self.queued.remove(&place);
        Some(place)
    }

    pub(super) fn identity_of_inbound(&self, sa: &InboundSa) -> Identity {
        Identity { spi: sa.spi, key: self.fingerprint(&sa.key), mode: sa.mode, esn: sa.esn }
    }

    pub(super) fn identity_of_outbound(&self, sa: &OutboundSa) -> Identity {
        Identity { spi: sa.spi, key: self.fingerprint(&sa.key), mode: sa.mode, esn: sa.esn }
    }

    fn fingerprint(&self, key: &SaKey) -> Fingerprint {
        Fingerprint(self.fingerprints.hash_one(key.keymat()))
    }
}
