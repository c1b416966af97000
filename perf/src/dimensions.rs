//! What `graph` and `wire` measure, as the command line says it: the scenario and its dimensions.

use std::ops::RangeInclusive;
use std::sync::Arc;

use anyhow::ensure;
use clap::value_parser;
use model::sa::{SaMode, Suite};

use crate::destinations::Destinations;
use crate::esp::{Esp, MOST_SPOKES};
use crate::frame::least_size;
use crate::scenario::{Family, Kind, PORTS, Scenario};
use crate::size::Size;

/// Ranges of the dimensions: what the address plan of the scenarios has room for.
const SPOKES: RangeInclusive<i64> = 1..=500_000;
const ROUTES: RangeInclusive<i64> = 1..=4_000_000;
/// Most prefixes as in a public table.
const PUBLIC: u32 = 2_000_000;
const WORKERS: RangeInclusive<i64> = 1..=16;
/// Sequence numbers of a replay window: what an SA takes.
const WINDOWS: RangeInclusive<i64> = 64..=4096;
/// Largest IP packet of the graph's ports, in bytes.
const MTU: u16 = 9000;

const PROTECTED: &str = "Of encrypt, decrypt and relay";

/// See the module.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Dimensions {
    /// What the packets go through
    #[arg(long, value_enum)]
    pub(crate) scenario: Kind,
    /// Spokes, one of which is chosen at random for each packet; in `ipv4` next hops
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(SPOKES))]
    pub(crate) spokes: u32,
    /// Family of what the tunnel carries; ipv4 if not given
    #[arg(long, value_enum)]
    pub(crate) inner: Option<Family>,
    /// Family of what the tunnel puts before it; ipv4 if not given
    #[arg(long, value_enum)]
    pub(crate) outer: Option<Family>,
    /// Prefixes that packets are sent to, spread over the spokes; no less than spokes
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(ROUTES))]
    pub(crate) routes: u32,
    /// Prefixes as in a public table instead of one /24 (or /48) behind the other
    #[arg(long)]
    pub(crate) public: bool,
    /// Workers, each on a core of its own with packets of its own
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u16).range(WORKERS))]
    pub(crate) workers: u16,
    /// Who seals and opens in the graph: vaes512, vaes256, aesni, ring or aes-gcm; the fastest usable one if not given. Another one checks it
    #[arg(long, value_name = "PROVIDER", help_heading = PROTECTED)]
    pub(crate) aead: Option<aead::Provider>,
    /// Bits of the keys; 128 if not given
    #[arg(long, value_parser = ["128", "256"], help_heading = PROTECTED)]
    pub(crate) bits: Option<String>,
    /// ESP in tunnel mode instead of transport mode
    #[arg(long, help_heading = PROTECTED)]
    pub(crate) tunnel_mode: bool,
    /// ESP in UDP, each spoke with a port of its own
    #[arg(long, help_heading = PROTECTED)]
    pub(crate) udp: bool,
    /// Sequence numbers of 32 bits instead of 64
    #[arg(long, help_heading = PROTECTED)]
    pub(crate) no_esn: bool,
    /// Sequence numbers of the replay window; 1024 if not given
    #[arg(long, value_parser = value_parser!(u16).range(WINDOWS), help_heading = PROTECTED)]
    pub(crate) window: Option<u16>,
}

impl Dimensions {
    /// The command line that says the same.
    pub(crate) fn flags(&self, size: Size) -> Vec<String> {
        let size = match size {
            Size::Bytes(bytes) => bytes.to_string(),
            Size::Imix => "imix".to_owned(),
        };
        let named = [
            ("--scenario", Some(self.scenario.name().to_owned())),
            ("--spokes", Some(self.spokes.to_string())),
            ("--inner", self.inner.map(|family| family.name().to_owned())),
            ("--outer", self.outer.map(|family| family.name().to_owned())),
            ("--size", Some(size)),
            ("--routes", Some(self.routes.to_string())),
            ("--workers", Some(self.workers.to_string())),
            ("--aead", self.aead.map(|provider| provider.name().to_owned())),
            ("--bits", self.bits.clone()),
            ("--window", self.window.map(|window| window.to_string())),
        ];
        let named = named.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?]));
        let plain = [
            ("--public", self.public),
            ("--tunnel-mode", self.tunnel_mode),
            ("--udp", self.udp),
            ("--no-esn", self.no_esn),
        ];
        let plain = plain.into_iter().filter(|(_, given)| *given).map(|(name, _)| name.to_owned());
        named.flatten().chain(plain).collect()
    }

    /// What the command line says, made sense of, with frames of this size.
    pub(crate) fn scenario(&self, size: Size) -> anyhow::Result<Scenario> {
        let kind = self.scenario;
        let given = self.inner.or(self.outer).is_some();
        ensure!(!(given && kind.is_plain()), "--inner and --outer are of tunnels, {} has none", kind.name());
        let (inner, outer) = match kind {
            Kind::Ipv6 => (Family::Ipv6, Family::Ipv6),
            _ => (self.inner.unwrap_or(Family::Ipv4), self.outer.unwrap_or(Family::Ipv4)),
        };
        let least = least_size(inner);
        if let Size::Bytes(bytes) = size {
            ensure!(
                bytes >= least,
                "--size {bytes}: with {} a frame has {least} bytes at least",
                inner.name()
            );
        }
        let routes = self.routes.max(self.spokes);
        ensure!(routes <= PUBLIC || !self.public, "--routes {routes} --public: there are {PUBLIC} at most");
        let destinations = Arc::new(Destinations::new(inner, routes, self.public));
        let esp = self.esp()?;
        let macs = PORTS.map(|(_, mac)| mac);
        Ok(Scenario { kind, inner, outer, spokes: self.spokes, destinations, size, esp, macs, mtu: MTU })
    }

    /// What protects the tunnel, if something does.
    fn esp(&self) -> anyhow::Result<Option<Esp>> {
        if !self.scenario.is_protected() {
            let given = self.aead.is_some() || self.bits.is_some() || self.window.is_some();
            ensure!(
                !(given || self.tunnel_mode || self.udp || self.no_esn),
                "--aead, --bits, --tunnel-mode, --udp, --no-esn and --window are of protected tunnels, {} has none",
                self.scenario.name()
            );
            return Ok(None);
        }
        ensure!(self.spokes <= MOST_SPOKES, "--spokes {}: {MOST_SPOKES} can have SAs", self.spokes);
        let provider = self.aead.unwrap_or_else(aead::Provider::best);
        ensure!(provider.is_usable(), "--aead {provider}: it cannot be used on this machine");
        Ok(Some(Esp {
            suite: if self.bits.as_deref() == Some("256") { Suite::AesGcm256 } else { Suite::AesGcm128 },
            mode: if self.tunnel_mode { SaMode::Tunnel } else { SaMode::Transport },
            is_udp: self.udp,
            esn: !self.no_esn,
            window: self.window.unwrap_or(1024),
            provider,
        }))
    }
}
