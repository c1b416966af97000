//! `nave-perf ike`: what a peer costs a responder, in time and memory: the IKEv2 engine alone, on one core, with datagrams as on the wire.
//!
//! ```text
//!   peers (engines of their own, not timed)            responder (timed)
//!   Want ──▶ IKE_SA_INIT request  ───────────────────▶ cookie off; key exchange
//!            IKE_AUTH request     ◀── response ───────
//!                                 ───────────────────▶ proof of the peer, inbound SA, proof of ours
//!            inbound, outbound SA ◀── response ───────
//!            first packet by ESP  ───────────────────▶ outbound SA: the peer is protected
//! ```
//!
//! With `--process` all of it (`process.rs`).

mod process;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{ValueEnum, value_parser};
use ike::crypto::aws_lc::AwsLc;
use ike::crypto::fake::Fake;
use ike::{Action, Credentials, Crypto, Engine, Input, Profile};
use memory::Heap;
use model::config::Ike;
use model::ike::{EspSuite, IkeSuite};
use model::program::Object;
use model::sa::{Lifetimes, Protection, SaKey, SaMode, Spi};
use model::time::Instant;
use model::{NbmaAddr, TableId};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SignatureAlgorithm, date_time_ymd,
};
use serde::Serialize;
use serde_json::json;

use crate::machine::{cores, on_core};
use crate::report::median;

/// Peers that begin together, and whose datagrams are then timed together.
const TOGETHER: usize = 256;
/// Of the engine's clock from one datagram to the next.
const APART: Duration = Duration::from_micros(100);
/// What is kept for a short time is gone after this, and no peer is asked yet whether it lives.
const QUIET: Duration = Duration::from_secs(6);
/// The hub, and the first of the peers.
const HUB: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const PEERS: u32 = 0x6440_0000;
/// Port of IKE.
const PORT: u16 = 500;
/// 2026-11-27 18:00 UTC, in seconds since 1970: certificates are valid then.
const NOW: u64 = 1_795_802_400;

/// A datagram, and the peer that it is to or from.
type Datagram = (SocketAddr, Vec<u8>);

/// Command line of `nave-perf ike`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Peers [default: 1000; with --process 2000]
    #[arg(long, value_parser = value_parser!(u32).range(1..=100_000))]
    peers: Option<u32>,
    /// Through everything: a hub of both processes, whose spokes all come back at once and register
    #[arg(long, conflicts_with = "fake")]
    process: bool,
    /// The data plane's program; the one beside this program if not given
    #[arg(long, requires = "process")]
    dataplane: Option<PathBuf>,
    /// The control plane's program; the one beside this program if not given
    #[arg(long, requires = "process")]
    controlplane: Option<PathBuf>,
    /// What peers and responder prove themselves by
    #[arg(long, default_value = "psk")]
    proof: Proof,
    /// Algorithms of IKE
    #[arg(long, default_value = "aes256gcm16-prfsha384-x25519")]
    suite: IkeSuite,
    /// Algorithms of ESP
    #[arg(long, default_value = "aes256gcm16-esn")]
    esp: EspSuite,
    /// With cryptography that only looks like it (pre-shared keys alone): what the state machine costs
    #[arg(long)]
    fake: bool,
    /// Passes that medians are of
    #[arg(long, default_value_t = 7, value_parser = value_parser!(u32).range(1..=1000))]
    passes: u32,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// How identities are proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Proof {
    /// A pre-shared key
    Psk,
    /// Certificates with keys on P-256, from an authority with one
    Ecdsa,
    /// Certificates with keys of RSA of 2048 bits, from an authority with one on P-256
    Rsa,
    /// Certificates with keys of Ed25519, from an authority with one on P-256
    Ed25519,
}

impl Proof {
    const fn name(self) -> &'static str {
        match self {
            Self::Psk => "psk",
            Self::Ecdsa => "ecdsa",
            Self::Rsa => "rsa",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// What one of something costs.
#[derive(Debug, Clone, Copy, Serialize)]
struct Cost {
    /// Microseconds of this thread's time on a core; the median of the passes, and the best.
    microseconds: f64,
    microseconds_min: f64,
}

/// One run.
#[derive(Debug, Serialize)]
struct Report {
    peers: u32,
    proof: Proof,
    suite: IkeSuite,
    esp: EspSuite,
    fake: bool,
    /// IKE SAs with a child SA that one core sets up in a second, at the median.
    setups_per_second: f64,
    /// All of one, and its parts: each datagram, and that the peer's first packet came.
    setup: Cost,
    init: Cost,
    auth: Cost,
    used: Cost,
    /// What the responder keeps of one on the heap, as asked for, and in how many pieces.
    bytes_per_setup: f64,
    pieces_per_setup: f64,
    /// Length of the datagrams: both requests and their answers, without UDP.
    datagram_bytes: [usize; 4],
    passes: u32,
    /// Whether every peer is protected, with the same keys on both sides.
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong: Option<String>,
}

/// Runs it; whether every peer was protected.
///
/// # Errors
/// What keeps it from running, in one sentence.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    if args.process {
        return process::run(args);
    }
    ensure!(!args.fake || args.proof == Proof::Psk, "signatures are real: --fake goes with --proof psk");
    for core in cores(1)? {
        ensure!(core_affinity::set_for_current(core), "core {} cannot be had", core.id);
    }
    let report = measure(args)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.verified)
}

fn measure(args: &Args) -> anyhow::Result<Report> {
    let peers = args.peers.unwrap_or(1000);
    let credentials = Issued::new(args, peers)?;
    let mut passes = Vec::new();
    let mut wrong = None;
    for number in 0..args.passes {
        let mut pass = Pass::new(args, peers, &credentials, number)?;
        for first in (0..peers).step_by(TOGETHER) {
            pass.set_up(first..peers.min(first + TOGETHER as u32))?;
        }
        wrong = wrong.or_else(|| pass.check());
        passes.push(pass.end());
    }
    let cost = |part: &dyn Fn(&Spent) -> Duration| {
        let each = passes.iter().map(|spent| part(spent).as_secs_f64() * 1e6 / f64::from(peers));
        Cost { microseconds: median(each.clone()), microseconds_min: each.fold(f64::INFINITY, f64::min) }
    };
    let setup = cost(&|spent| spent.init + spent.auth + spent.used);
    let first = passes.first().context("a pass")?;
    Ok(Report {
        peers,
        proof: args.proof,
        suite: args.suite,
        esp: args.esp,
        fake: args.fake,
        setups_per_second: 1e6 / setup.microseconds,
        setup,
        init: cost(&|spent| spent.init),
        auth: cost(&|spent| spent.auth),
        used: cost(&|spent| spent.used),
        bytes_per_setup: first.bytes as f64 / f64::from(peers),
        pieces_per_setup: first.pieces as f64 / f64::from(peers),
        datagram_bytes: first.datagrams,
        passes: args.passes,
        verified: wrong.is_none(),
        wrong,
    })
}

/// What the responder spent in a pass.
#[derive(Debug, Default)]
struct Spent {
    init: Duration,
    auth: Duration,
    used: Duration,
    bytes: i64,
    pieces: i64,
    datagrams: [usize; 4],
}

/// What a pass has of one peer.
struct Peer {
    engine: Engine,
    /// Keys that it seals and opens with.
    keys: Option<(SaKey, SaKey)>,
    is_up: bool,
}

/// What the responder has of one.
#[derive(Default)]
struct Served {
    inbound: Option<(Spi, SaKey)>,
    outbound: Option<SaKey>,
    is_up: bool,
}

/// A responder and its peers, from nothing.
struct Pass<'a> {
    args: &'a Args,
    issued: &'a Issued,
    hub: Engine,
    now: Instant,
    peers: Vec<Peer>,
    served: HashMap<IpAddr, Served>,
    spent: Spent,
}

impl<'a> Pass<'a> {
    fn new(args: &'a Args, peers: u32, issued: &'a Issued, number: u32) -> anyhow::Result<Self> {
        let now = Instant(NOW * 1_000_000);
        let hub = engine(args, u64::from(number), &issued.hub, HUB, now, 1 << 18)?;
        let (peers, served) = (Vec::new(), HashMap::with_capacity(peers as usize));
        Ok(Self { args, issued, hub, now, peers, served, spent: Spent::default() })
    }

    /// All of these peers begin at once.
    fn set_up(&mut self, peers: std::ops::Range<u32>) -> anyhow::Result<()> {
        let first = peers.start as usize;
        let mut requests = Vec::new();
        for number in peers {
            let address = address_of(number);
            let own = &self.issued.peers[number as usize % self.issued.peers.len()];
            let engine = engine(self.args, u64::from(number) << 32 | 1, own, address, self.now, 64)?;
            let mut peer = Peer { engine, keys: None, is_up: false };
            let hub = Protection {
                profile: profile_name()?,
                table: TableId(0),
                local: nbma(address),
                remote: nbma(HUB),
                port: 0,
            };
            requests.extend(peer.give(self.now, Input::Want { peer: hub, is_server: true }));
            self.peers.push(peer);
        }
        let length = |datagrams: &[Datagram]| datagrams.first().map_or(0, |(_, bytes)| bytes.len());
        self.spent.datagrams[0] = length(&requests);
        let (responses, spent) = self.serve(requests)?;
        self.spent.init += spent;
        self.spent.datagrams[1] = length(&responses);
        let mut requests = self.answer(first, responses);
        if self.args.suite.additional.is_some() {
            let (responses, spent) = self.serve(requests)?;
            self.spent.init += spent;
            requests = self.answer(first, responses);
        }
        self.spent.datagrams[2] = length(&requests);
        let (responses, spent) = self.serve(requests)?;
        self.spent.auth += spent;
        self.spent.datagrams[3] = length(&responses);
        self.answer(first, responses);
        // The data plane says once in a while by which SAs packets came.
        let inbound = self.peers[first..].iter().zip(first as u32..).filter_map(|(_, number)| {
            let served = self.served.get(&IpAddr::V4(address_of(number)))?;
            served.inbound.as_ref().map(|(spi, _)| *spi)
        });
        let input = Input::Used { inbound: inbound.collect(), outbound: Vec::new() };
        let (_, spent) = self.timed(vec![input])?;
        self.spent.used += spent;
        Ok(())
    }

    /// The responder gets datagrams; what it sends, to whom, and what that took.
    fn serve(&mut self, datagrams: Vec<Datagram>) -> anyhow::Result<(Vec<Datagram>, Duration)> {
        let datagram = |(remote, bytes)| Input::Datagram {
            table: TableId(0),
            local: SocketAddr::new(HUB.into(), PORT),
            remote,
            bytes,
        };
        self.timed(datagrams.into_iter().map(datagram).collect())
    }

    fn timed(&mut self, inputs: Vec<Input>) -> anyhow::Result<(Vec<Datagram>, Duration)> {
        let mut all = Vec::with_capacity(inputs.len());
        all.resize_with(inputs.len(), Vec::new);
        let begun = on_core()?;
        for (input, actions) in inputs.into_iter().zip(&mut all) {
            self.now = self.now + APART;
            self.hub.handle(self.now, input, actions);
            let _ = std::hint::black_box(self.hub.next_deadline());
        }
        let spent = on_core()?.saturating_sub(begun);
        let mut sent = Vec::new();
        for action in all.into_iter().flatten() {
            match action {
                Action::Send { remote, bytes, .. } => sent.push((remote, bytes)),
                Action::Put(Object::InboundSa(sa)) => {
                    self.served.entry(sa.protection.remote.0).or_default().inbound = Some((sa.spi, sa.key));
                }
                Action::Put(Object::OutboundSa(sa)) => {
                    self.served.entry(sa.protection.remote.0).or_default().outbound = Some(sa.key);
                }
                Action::Up { peer, .. } => self.served.entry(peer.remote.0).or_default().is_up = true,
                _ => {}
            }
        }
        Ok((sent, spent))
    }

    /// Peers get what the responder sent; what they send.
    fn answer(&mut self, first: usize, datagrams: Vec<Datagram>) -> Vec<Datagram> {
        let mut sent = Vec::new();
        for (to, bytes) in datagrams {
            let IpAddr::V4(address) = to.ip() else { continue };
            let number = (u32::from(address) - PEERS) as usize;
            let Some(peer) = self.peers.get_mut(number).filter(|_| number >= first) else { continue };
            let remote = SocketAddr::new(HUB.into(), PORT);
            sent.extend(peer.give(self.now, Input::Datagram { table: TableId(0), local: to, remote, bytes }));
        }
        sent
    }

    /// What is wrong, if anything: each peer must be protected on both sides, with the keys of one the other's.
    fn check(&self) -> Option<String> {
        (0..).zip(&self.peers).find_map(|(number, peer)| {
            let served = self.served.get(&IpAddr::V4(address_of(number)));
            let is_right = served.is_some_and(|served| {
                let inbound = served.inbound.as_ref().map(|(_, key)| key);
                let ours = served.outbound.as_ref().zip(inbound);
                let theirs = peer.keys.as_ref().map(|(inbound, outbound)| (inbound, outbound));
                served.is_up && peer.is_up && ours.is_some() && ours == theirs
            });
            (!is_right).then(|| format!("peer {number} is not protected by the same keys on both sides"))
        })
    }
}

impl Pass<'_> {
    /// What it took, and what the responder keeps when all is quiet: what comes back when it goes.
    fn end(mut self) -> Spent {
        self.hub.handle(self.now + QUIET, Input::Tick, &mut Vec::new());
        let held = Heap::held();
        Heap::count(true);
        drop(self.hub);
        Heap::count(false);
        let now = Heap::held();
        Spent { bytes: held.0 - now.0, pieces: held.1 - now.1, ..self.spent }
    }
}

impl Peer {
    /// It gets something; what it sends, and from where.
    fn give(&mut self, now: Instant, input: Input) -> Vec<Datagram> {
        let mut actions = Vec::new();
        self.engine.handle(now, input, &mut actions);
        let mut sent = Vec::new();
        let (mut inbound, mut outbound) = (None, None);
        for action in actions {
            match action {
                Action::Send { local, bytes, .. } => sent.push((local, bytes)),
                Action::Put(Object::InboundSa(sa)) => inbound = Some(sa.key),
                Action::Put(Object::OutboundSa(sa)) => outbound = Some(sa.key),
                Action::Up { .. } => self.is_up = true,
                _ => {}
            }
        }
        self.keys = inbound.zip(outbound).or(self.keys.take());
        sent
    }
}

/// An engine with one profile and a data plane of one worker.
fn engine(
    args: &Args,
    seed: u64,
    own: &Own,
    address: Ipv4Addr,
    now: Instant,
    slots: u32,
) -> anyhow::Result<Engine> {
    let crypto: Box<dyn Crypto> = if args.fake { Box::new(Fake::new(seed)) } else { Box::new(AwsLc) };
    let mut engine = Engine::new(crypto);
    let profile = Profile {
        name: profile_name()?,
        mode: SaMode::Transport,
        replay_window: 1024,
        lifetimes: Lifetimes::default(),
        ike: own.ike.clone(),
        credentials: own.credentials.clone(),
        sources: vec![(TableId(0), nbma(address))],
    };
    let mut actions = Vec::new();
    engine.handle(now, Input::Configure(vec![profile]), &mut actions);
    let dataplane = Input::Dataplane { workers: 1, slots, reserved: Vec::new(), is_new: true };
    engine.handle(now, dataplane, &mut actions);
    Ok(engine)
}

fn profile_name() -> anyhow::Result<model::sa::ProfileName> {
    Ok("bench".parse()?)
}

fn nbma(address: Ipv4Addr) -> NbmaAddr {
    NbmaAddr(address.into())
}

fn address_of(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(PEERS + number)
}

/// Whom somebody is, and whom he believes.
struct Own {
    ike: Ike,
    credentials: Arc<Credentials>,
    /// What its section names.
    files: Vec<(&'static str, String)>,
}

/// Credentials of all.
struct Issued {
    hub: Own,
    /// One for each peer, or one for all.
    peers: Vec<Own>,
}

impl Issued {
    fn new(args: &Args, peers: u32) -> anyhow::Result<Self> {
        let algorithm: &'static SignatureAlgorithm = match args.proof {
            Proof::Psk => {
                let own =
                    || Own::load((args, peers), &json!({ "psk": [{ "secret": "nave-perf" }] }), Vec::new());
                return Ok(Self { hub: own()?, peers: vec![own()?] });
            }
            Proof::Ecdsa => &rcgen::PKCS_ECDSA_P256_SHA256,
            Proof::Rsa => &rcgen::PKCS_RSA_SHA256,
            Proof::Ed25519 => &rcgen::PKCS_ED25519,
        };
        let mut params = params("authority", None)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let own =
            |name: String, address| Own::certified((args, peers), &authority, algorithm, &name, address);
        let hub = own("hub".to_owned(), HUB)?;
        let peers = (0..peers).map(|number| own(format!("peer{number}"), address_of(number)));
        Ok(Self { hub, peers: peers.collect::<anyhow::Result<_>>()? })
    }
}

fn params(name: &str, address: Option<Ipv4Addr>) -> anyhow::Result<CertificateParams> {
    let names =
        address.map(|address| vec![format!("{name}.example"), address.to_string()]).unwrap_or_default();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    Ok(params)
}

impl Own {
    fn certified(
        (args, peers): (&Args, u32),
        authority: &CertifiedIssuer<'static, KeyPair>,
        algorithm: &'static SignatureAlgorithm,
        name: &str,
        address: Ipv4Addr,
    ) -> anyhow::Result<Self> {
        let key = KeyPair::generate_for(algorithm)?;
        let certificate = params(name, Some(address))?.signed_by(&key, authority)?;
        let files =
            vec![("own", certificate.pem()), ("key", key.serialize_pem()), ("authority", authority.pem())];
        let named = json!({ "certificate": "own", "private_key": "key", "authorities": ["authority"] });
        Self::load((args, peers), &named, files)
    }

    fn load(
        (args, peers): (&Args, u32),
        section: &serde_json::Value,
        files: Vec<(&'static str, String)>,
    ) -> anyhow::Result<Self> {
        let mut section = section.clone();
        section["proposals"] = json!([args.suite]);
        section["esp"] = json!([args.esp]);
        // No limit is met: what it costs is measured, not what is refused.
        let most = peers + TOGETHER as u32;
        section["limits"] = json!({
            "half_open": most, "half_open_per_address": most, "cookies_above": most,
            "auth_per_second": 1_000_000, "sas": most,
        });
        let ike: Ike = serde_json::from_value(section)?;
        let read = |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| text.clone().into_bytes()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
        };
        let credentials = Arc::new(Credentials::load(&ike, &read)?);
        Ok(Self { ike, credentials, files })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proof = self.proof.name();
        let [first, second, third, fourth] = self.datagram_bytes;
        writeln!(
            f,
            "{} peers, {} passes; {} and {proof}, ESP {}{}; datagrams of {first}, {second}, {third} and {fourth} bytes",
            self.peers,
            self.passes,
            self.suite,
            self.esp,
            if self.fake { "; no cryptography" } else { "" },
        )?;
        writeln!(
            f,
            "{:9.0} a second: IKE SA and child SA as responder, on one core",
            self.setups_per_second
        )?;
        for (name, cost) in [
            ("all of one", self.setup),
            ("IKE_SA_INIT", self.init),
            ("IKE_AUTH", self.auth),
            ("first packet", self.used),
        ] {
            writeln!(f, "{:9.1} µs {name} (best pass {:.1})", cost.microseconds, cost.microseconds_min)?;
        }
        writeln!(
            f,
            "{:9.0} bytes on the heap for each, in {:.1} pieces",
            self.bytes_per_setup, self.pieces_per_setup
        )?;
        match &self.wrong {
            None => write!(f, "verified: every peer is protected by the same keys on both sides"),
            Some(wrong) => write!(f, "WRONG: {wrong}"),
        }
    }
}
