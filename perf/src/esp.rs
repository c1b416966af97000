//! What protects the tunnel of `encrypt`, `decrypt` and `relay`: SAs as they are programmed.
//!
//! Each spoke has a child SA with each worker (RFC 9611): no packet changes its worker. Both directions are programmed whatever the scenario
//! uses, as a hub has them.

use anyhow::Context as _;
use model::program::{InboundSa, Object, OutboundSa};
use model::sa::{self, Direction, Lease, Lifetimes, ProfileName, SaKey, SaMode, Spi, Suite};
use model::{NbmaAddr, TableId, WorkerId};
use wire::{ipv4, udp};

use crate::frame::ip_len;
use crate::reference::Random;
use crate::scenario::{Family, nbma, own_nbma};

/// Most spokes: slots of a worker.
pub(crate) const MOST_SPOKES: u32 = Spi::SLOTS as u32;
/// The bit of SPIs that spokes chose.
const CHOSEN_BY_SPOKE: u32 = 1 << 31;
/// UDP ports of spokes, if they are behind NATs: so many from the first on.
const FIRST_PORT: u32 = 10_000;
const PORTS: u32 = 50_000;

/// Slots of even lives of a child SA, and of odd ones.
pub(crate) const HALF: u32 = MOST_SPOKES / 2;

/// A child SA of a spoke with the first worker, life after life: so that the next is there while the one before still is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) spoke: u32,
    pub(crate) life: u32,
}

impl Child {
    /// Its slot, which is that of its SPIs, too.
    pub(crate) fn slot(self) -> u32 {
        self.spoke + self.life % 2 * HALF
    }
}

/// Protocol numbers of IPv4 and IPv6 in IP.
const IP_IN_IP: u8 = 4;
const IP6_IN_IP: u8 = 41;

/// How it is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Esp {
    pub(crate) suite: Suite,
    pub(crate) mode: SaMode,
    /// Whether it is in UDP (RFC 3948).
    pub(crate) is_udp: bool,
    pub(crate) esn: bool,
    /// Sequence numbers of the replay window.
    pub(crate) window: u16,
    /// Who seals and opens in the graph.
    pub(crate) provider: aead::Provider,
}

/// The profile of the tunnel.
pub(crate) fn profile() -> anyhow::Result<ProfileName> {
    "spokes".parse().context("a profile's name")
}

impl Esp {
    /// A spoke's UDP port; 0: it has none.
    pub(crate) fn port(&self, spoke: u32) -> u16 {
        if self.is_udp { (FIRST_PORT + spoke % PORTS) as u16 } else { 0 }
    }

    /// What the outer header says is in the packet.
    pub(crate) fn protocol(&self) -> u8 {
        if self.is_udp { ipv4::UDP } else { ipv4::ESP }
    }

    /// Bytes between outer IP header and ESP.
    pub(crate) fn udp_len(&self) -> usize {
        if self.is_udp { udp::LEN } else { 0 }
    }

    /// What is encrypted: GRE, or in tunnel mode IP in IP (RFC 4303 §2.6).
    pub(crate) fn next_header(&self, outer: Family) -> u8 {
        match (self.mode, outer) {
            (SaMode::Transport, _) => ipv4::GRE,
            (SaMode::Tunnel, Family::Ipv4) => IP_IN_IP,
            (SaMode::Tunnel, Family::Ipv6) => IP6_IN_IP,
        }
    }

    /// Bytes that are encrypted before GRE.
    pub(crate) fn inner_len(&self, outer: Family) -> usize {
        if self.mode == SaMode::Tunnel { ip_len(outer) } else { 0 }
    }

    /// The SPI of a child SA: by which a spoke sends, or we do.
    pub(crate) fn spi(&self, direction: Direction, worker: u16, spoke: u32) -> anyhow::Result<Spi> {
        let spi = match direction {
            Direction::Inbound => Spi::of(worker, spoke, (spoke % 127) as u8 + 1),
            Direction::Outbound => Spi::new(CHOSEN_BY_SPOKE | u32::from(worker) << 18 | spoke),
        };
        spi.with_context(|| format!("no SPI for spoke {spoke} and worker {worker}"))
    }

    /// Which spoke an SPI belongs to, wherever its SA is.
    pub(crate) fn spoke(spi: u32) -> u32 {
        spi & (MOST_SPOKES - 1)
    }

    /// Which worker's SA has an SPI.
    pub(crate) fn worker(spi: u32) -> u16 {
        (spi / MOST_SPOKES) as u16 & (Spi::WORKERS as u16 - 1)
    }

    /// The key of a child SA: as good as random, another one for each, the same each time.
    pub(crate) fn key(&self, direction: Direction, worker: u16, spoke: u32) -> anyhow::Result<SaKey> {
        let number = u64::from(worker) << 33 | u64::from(spoke) << 1;
        self.numbered_key(number | u64::from(direction == Direction::Inbound))
    }

    fn numbered_key(&self, number: u64) -> anyhow::Result<SaKey> {
        let mut random = Random((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let keymat: Vec<u8> = (0..self.suite.key_len() + 4).map(|_| (random.next() >> 56) as u8).collect();
        SaKey::new(&keymat).context("a key of a length that there is none of")
    }

    /// Whose SAs with a spoke are.
    pub(crate) fn protection(&self, outer: Family, spoke: u32) -> anyhow::Result<sa::Protection> {
        Ok(sa::Protection {
            profile: profile()?,
            table: TableId(0),
            local: NbmaAddr(own_nbma(outer)),
            remote: NbmaAddr(nbma(outer, spoke)),
            port: self.port(spoke),
        })
    }

    /// The SPI of a child SA which is renewed. It comes again after some hundred lives, with another key.
    pub(crate) fn child_spi(&self, direction: Direction, child: Child) -> anyhow::Result<Spi> {
        let turn = child.life / 2;
        let spi = match direction {
            Direction::Inbound => Spi::of(0, child.slot(), (turn % 255) as u8 + 1),
            Direction::Outbound => Spi::new(CHOSEN_BY_SPOKE | (turn % (1 << 13)) << 18 | child.slot()),
        };
        spi.with_context(|| format!("no SPI for {child:?}"))
    }

    /// Its key: another one for each life.
    pub(crate) fn child_key(&self, direction: Direction, child: Child) -> anyhow::Result<SaKey> {
        let number = u64::from(child.life) << 20 | u64::from(child.spoke) << 1;
        self.numbered_key(1 << 63 | number | u64::from(direction == Direction::Inbound))
    }

    /// An SA of the first worker's as it is programmed.
    pub(crate) fn child_sa(
        &self,
        direction: Direction,
        outer: Family,
        child: Child,
    ) -> anyhow::Result<Object> {
        let (spi, key) = (self.child_spi(direction, child)?, self.child_key(direction, child)?);
        Ok(self.sa(direction, self.protection(outer, child.spoke)?, 0, spi, key))
    }

    fn sa(
        &self,
        direction: Direction,
        protection: sa::Protection,
        worker: u16,
        spi: Spi,
        key: SaKey,
    ) -> Object {
        let (mode, esn, lifetimes) = (self.mode, self.esn, Lifetimes::default());
        match direction {
            Direction::Inbound => {
                let window = self.window;
                Object::InboundSa(InboundSa { spi, protection, mode, key, esn, window, lifetimes })
            }
            Direction::Outbound => {
                // All that there are: no run is long enough to ask for more.
                let (worker, lease) = (WorkerId(worker), Lease { first: 1, last: u32::MAX.into() });
                Object::OutboundSa(OutboundSa { protection, worker, spi, mode, key, esn, lease, lifetimes })
            }
        }
    }

    /// Both SAs of a child.
    pub(crate) fn sas(&self, outer: Family, worker: u16, spoke: u32) -> anyhow::Result<[Object; 2]> {
        let protection = self.protection(outer, spoke)?;
        let sa = |direction| -> anyhow::Result<Object> {
            let (spi, key) = (self.spi(direction, worker, spoke)?, self.key(direction, worker, spoke)?);
            Ok(self.sa(direction, protection, worker, spi, key))
        };
        Ok([sa(Direction::Inbound)?, sa(Direction::Outbound)?])
    }
}
