//! `nave-perf nhrp`: what a client costs a server, in time and memory: the NHRP engine alone, on one core, with packets as on the wire; or,
//! with `--process`, all of it (`process.rs`).
//!
//! ```text
//!   requests, encoded ──▶ Engine::handle ──▶ actions: the reply, encoded; the binding, to be programmed
//! ```

mod process;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::value_parser;
use model::config::Nhrp;
use model::program::{Hop, Object, TunnelMode};
use model::time::Instant;
use model::{InterfaceAddr, InterfaceName, NbmaAddr, Prefix, ProtocolAddr, TableId};
use nhrp::{Action, Engine, Found, Input, Routes, To, Tunnel};
use serde::Serialize;
use wire::nhrp::{
    Body, Cie, CieCode, Extension, ExtensionType, Families, Family, Flags, Kind, Message, MessageType,
};

use crate::machine::{cores, on_core, resident};
use crate::reference::Random;
use crate::report::median;

/// Microseconds of the engine's clock from one request to the next: 20,000 a second, below every limit.
const APART: u64 = 50;
/// Requests of a pass at least, however few clients there are.
const LEAST: usize = 20_000;
/// Requests that are made at once, and then timed together.
const TOGETHER: usize = 4096;
/// Of so many requests one has its answer looked at byte by byte.
const CHECKED: usize = 64;
/// What clients hold each other's addresses for, in seconds: longer than a run lasts on the engine's clock.
pub(crate) const HOLDING_TIME: u16 = 7200;
/// Addresses: the server's, and the first of those of the clients in the overlay and the underlay.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER_NBMA: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const CLIENTS: u32 = 0x0a01_0000;
const CLIENTS_NBMA: u32 = 0x6440_0000;
/// Behind the server are a /24 for each number.
const BEHIND: u32 = 0xac10_0000;
/// Clients that ask for what is behind the server at most: whom it answered it remembers, up to a limit.
const ASKERS: u32 = 16_384;
pub(crate) const SECRET: &str = "nave-nhs";

/// Command line of `nave-perf nhrp`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Clients that register [default: 100000; with --process 1000]
    #[arg(long, value_parser = value_parser!(u32).range(100..=1_000_000))]
    clients: Option<u32>,
    /// Through everything: packets into a port of a data plane, up to the control plane of a hub, its replies back out of the port
    #[arg(long)]
    process: bool,
    /// Requests on their way that have not been answered
    #[arg(long, default_value_t = 256, requires = "process", value_parser = value_parser!(u32).range(1..=512))]
    window: u32,
    /// The data plane's program; the one beside this program if not given
    #[arg(long, requires = "process")]
    dataplane: Option<PathBuf>,
    /// The control plane's program; the one beside this program if not given
    #[arg(long, requires = "process")]
    controlplane: Option<PathBuf>,
    /// Passes that medians are of
    #[arg(long, default_value_t = 7, value_parser = value_parser!(u32).range(1..=1000))]
    passes: u32,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// What one kind of request costs.
#[derive(Debug, Serialize)]
struct Cost {
    /// Nanoseconds of this thread's time on a core for one, the answer's included; the median of the passes, and the best.
    nanoseconds: f64,
    nanoseconds_min: f64,
    /// Requests a second of one core at the former.
    per_second: f64,
    /// Requests of a pass.
    requests: usize,
}

/// One run.
#[derive(Debug, Serialize)]
struct Report {
    clients: u32,
    /// Clients that were not there before: once.
    first: Cost,
    /// The same again.
    renewal: Cost,
    /// Resolution requests that go on to the client that they are for.
    forwarded: Cost,
    /// Resolution requests that are answered with a prefix behind the server.
    answered: Cost,
    /// Growth of this process's memory by all registrations, over the number of clients.
    bytes_per_binding: f64,
    /// Length of a registration request and its reply, of a resolution request.
    request_bytes: [usize; 3],
    passes: u32,
    /// Whether every request brought about what it should have.
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong: Option<String>,
}

/// Runs it; whether every answer was right.
///
/// # Errors
/// What keeps it from running, in one sentence.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    if args.process {
        return process::run(args);
    }
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
    let clients = args.clients.unwrap_or(100_000);
    let mut bench = Bench::new(clients)?;
    let registrations: Vec<Vec<u8>> = (0..clients).map(|client| registration(client, client + 1)).collect();
    let mut order: Vec<u32> = (0..clients).collect();
    // What the process needs for anything at all is there before memory is looked at.
    bench.actions.reserve(64);
    let before = resident("self")?.rss;
    let mut first = Passes::default();
    bench.pass(&mut first, &registrations, &order, Wanted::Registered)?;
    let grown = resident("self")?.rss.saturating_sub(before);

    let mut random = Random(7);
    let mut renewal = Passes::default();
    let mut answered = Passes::default();
    let mut forwarded = Passes::default();
    let requests = order.len().max(LEAST);
    for _ in 0..args.passes {
        shuffle(&mut order, &mut random);
        let again: Vec<u32> = order.iter().copied().cycle().take(requests).collect();
        bench.pass(&mut renewal, &registrations, &again, Wanted::Registered)?;
        let pairs: Vec<(u32, u32)> = (0..requests)
            .map(|_| {
                let client = (random.next() % u64::from(clients)) as u32;
                (client, (client + 1 + (random.next() % u64::from(clients - 1)) as u32) % clients)
            })
            .collect();
        let places: Vec<u32> = (0..pairs.len() as u32).collect();
        let asked: Vec<_> = pairs.iter().map(|&(from, of)| bench.resolution(from, protocol_of(of))).collect();
        bench.asked = pairs.iter().map(|(_, of)| *of).collect();
        bench.pass(&mut forwarded, &asked, &places, Wanted::Forwarded)?;
        let behind = |of: u32| Ipv4Addr::from(BEHIND + (of << 8) % (1 << 20) + 9);
        bench.asked = pairs.iter().map(|(from, _)| from % ASKERS).collect();
        let asked: Vec<_> = bench.asked.iter().map(|&from| bench.resolution(from, behind(from))).collect();
        bench.pass(&mut answered, &asked, &places, Wanted::Answered)?;
    }
    let reply = bench.reply_bytes;
    let lengths = [registrations[0].len(), reply, bench.resolution(0, protocol_of(1)).len()];
    Ok(Report {
        clients,
        first: first.cost(),
        renewal: renewal.cost(),
        forwarded: forwarded.cost(),
        answered: answered.cost(),
        bytes_per_binding: grown as f64 / f64::from(clients),
        request_bytes: lengths,
        passes: args.passes,
        verified: bench.wrong.is_none(),
        wrong: bench.wrong,
    })
}

/// What a request must bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The binding, and a reply that accepts it.
    Registered,
    /// The request at the client that has the address.
    Forwarded,
    /// A reply with a prefix.
    Answered,
}

/// Passes of one kind of request.
#[derive(Debug, Default)]
struct Passes {
    nanoseconds: Vec<f64>,
    requests: usize,
}

impl Passes {
    fn cost(&self) -> Cost {
        let nanoseconds = median(self.nanoseconds.iter().copied());
        Cost {
            nanoseconds,
            nanoseconds_min: self.nanoseconds.iter().copied().fold(f64::INFINITY, f64::min),
            per_second: 1e9 / nanoseconds,
            requests: self.requests,
        }
    }
}

/// A server, its clock, and what was found wrong.
struct Bench {
    engine: Engine,
    now: Instant,
    tunnel: InterfaceName,
    nbma: NbmaAddr,
    actions: Vec<Action>,
    /// Of each request of a pass the client that its answer is for.
    asked: Vec<u32>,
    reply_bytes: usize,
    wrong: Option<String>,
}

impl Bench {
    fn new(clients: u32) -> anyhow::Result<Self> {
        let tunnel: InterfaceName = "tunnel0".parse()?;
        let nbma = NbmaAddr(SERVER_NBMA.into());
        let mut config = Nhrp::new(1);
        config.authentication = Some(SECRET.to_owned());
        config.shortcut = true;
        config.limits.registrations = config.limits.registrations.max(clients);
        config.limits.entries = config.limits.entries.max(2 * clients);
        let of_tunnel = Tunnel {
            name: tunnel,
            mode: TunnelMode::Multipoint,
            nbma: Some(nbma),
            addresses: vec![InterfaceAddr::new(SERVER.into(), 8).context("a prefix of 8 bits")?],
            mtu: 1400,
            table: TableId(0),
            nhrp: config,
        };
        let now = Instant(1_000_000);
        let mut bench = Self {
            engine: Engine::new(now, 1, None),
            now,
            tunnel,
            nbma,
            actions: Vec::new(),
            asked: Vec::new(),
            reply_bytes: 0,
            wrong: None,
        };
        let table = Table { tunnel };
        bench.engine.handle(now, Input::Configure(vec![of_tunnel]), &table, &mut bench.actions);
        bench.actions.clear();
        Ok(bench)
    }

    /// Gives the engine requests in an order, and times that.
    fn pass(
        &mut self,
        passes: &mut Passes,
        requests: &[Vec<u8>],
        order: &[u32],
        wanted: Wanted,
    ) -> anyhow::Result<()> {
        let table = Table { tunnel: self.tunnel };
        let (mut spent, mut sent, mut bound) = (Duration::ZERO, 0, 0);
        for places in order.chunks(TOGETHER) {
            let packet = |at: &u32| {
                let bytes = requests[*at as usize].clone();
                let from = source_nbma(&bytes).into();
                Input::Packet { tunnel: self.tunnel, from, destination: self.nbma, bytes }
            };
            let inputs: Vec<Input> = places.iter().map(packet).collect();
            let mut kept = Vec::with_capacity(TOGETHER / CHECKED + 1);
            let begun = on_core()?;
            for (number, input) in inputs.into_iter().enumerate() {
                self.now.0 += APART;
                self.engine.handle(self.now, input, &table, &mut self.actions);
                for action in &self.actions {
                    match action {
                        Action::Send { .. } => sent += 1,
                        Action::Put(Object::Binding(_)) => bound += 1,
                        _ => {}
                    }
                }
                if number % CHECKED == 0 {
                    kept.push((number, std::mem::take(&mut self.actions)));
                }
                self.actions.clear();
            }
            spent += on_core()?.saturating_sub(begun);
            for (number, actions) in kept {
                self.check(places[number], &actions, wanted);
            }
        }
        let bindings = if wanted == Wanted::Registered { order.len() } else { 0 };
        if sent != order.len() || bound < bindings {
            self.wrong.get_or_insert(format!(
                "{} requests ({wanted:?}) brought about {sent} packets and {bound} bindings",
                order.len()
            ));
        }
        passes.nanoseconds.push(spent.as_nanos() as f64 / order.len() as f64);
        passes.requests = order.len();
        Ok(())
    }

    /// Looks at what the request at a place brought about.
    fn check(&mut self, at: u32, actions: &[Action], wanted: Wanted) {
        let sent = actions.iter().find_map(|action| match action {
            Action::Send { to, bytes, .. } => Some((*to, Message::decode(bytes).ok()?, bytes.len())),
            _ => None,
        });
        let Some((to, message, length)) = sent else {
            self.wrong.get_or_insert(format!("request {at} ({wanted:?}) brought about no packet"));
            return;
        };
        let entries = match &message.body {
            Body::Exchange { entries, .. } => &entries[..],
            _ => &[],
        };
        let is_right = match wanted {
            Wanted::Registered => {
                self.reply_bytes = length;
                let code = entries.first().map(|entry| entry.code);
                to == nbma_of(at)
                    && message.message_type() == MessageType::RegistrationReply
                    && code == Some(CieCode::SUCCESS)
            }
            Wanted::Forwarded => {
                to == nbma_of(self.asked[at as usize])
                    && message.message_type() == MessageType::ResolutionRequest
                    && message.hop_count == 254
            }
            Wanted::Answered => {
                to == nbma_of(self.asked[at as usize])
                    && message.message_type() == MessageType::ResolutionReply
                    && entries.first().map(|entry| (entry.prefix, entry.nbma))
                        == Some((24, Some(SERVER_NBMA.into())))
            }
        };
        if !is_right {
            self.wrong
                .get_or_insert(format!("request {at} ({wanted:?}) brought about, to {to}: {message:?}"));
        }
    }

    /// A client's request for the way to an address.
    fn resolution(&self, client: u32, of: Ipv4Addr) -> Vec<u8> {
        let flags = Flags::ROUTER | Flags::AUTHORITATIVE | Flags::SOURCE_STABLE | Flags::NAT;
        request(Kind::ResolutionRequest, (client, client + 1), of, flags, None, 0xff)
    }
}

/// A client's registration request with this number, as IOS makes it.
pub(crate) fn registration(client: u32, id: u32) -> Vec<u8> {
    let nat = Cie {
        prefix: 32,
        mtu: 1400,
        nbma: Some(SERVER_NBMA.into()),
        protocol: Some(SERVER.into()),
        ..Cie::default()
    };
    let flags = Flags::UNIQUE | Flags::NAT;
    request(Kind::RegistrationRequest, (client, id), SERVER, flags, Some(nat), 32)
}

fn request(
    kind: Kind,
    (client, id): (u32, u32),
    destination: Ipv4Addr,
    flags: Flags,
    nat: Option<Cie>,
    prefix: u8,
) -> Vec<u8> {
    let families = Families { nbma: Family::V4, protocol: Family::V4 };
    let entry = Cie { prefix, mtu: 1400, holding_time: HOLDING_TIME, ..Cie::default() };
    let mut natted = Extension::empty(ExtensionType::NAT, false);
    if let Some(nat) = nat {
        let _ = natted.push(&nat, families);
    }
    let secret = [&[0, 0, 0, 1], SECRET.as_bytes()].concat();
    let extensions = vec![
        Extension::empty(ExtensionType::RESPONDER, true),
        Extension::empty(ExtensionType::FORWARD_TRANSIT, true),
        Extension::empty(ExtensionType::REVERSE_TRANSIT, true),
        Extension::new(ExtensionType::AUTHENTICATION, true, secret),
        natted,
    ];
    Message {
        families,
        hop_count: 255,
        source_nbma: Some(nbma_of(client).0),
        source: Some(IpAddr::V4(protocol_of(client))),
        destination: Some(destination.into()),
        body: Body::Exchange { kind, flags, request_id: id, entries: vec![entry] },
        extensions: Some(extensions),
    }
    .encode()
}

/// A client's address in the overlay.
pub(crate) fn protocol_of(client: u32) -> Ipv4Addr {
    Ipv4Addr::from(CLIENTS + client)
}

/// And in the underlay.
fn nbma_of(client: u32) -> NbmaAddr {
    NbmaAddr(Ipv4Addr::from(CLIENTS_NBMA + client).into())
}

/// The source NBMA address of a request: behind the fixed header and the first eight bytes of the mandatory part.
fn source_nbma(request: &[u8]) -> NbmaAddr {
    let at = wire::nhrp::FIXED + 8;
    let bytes = request.get(at..).and_then(<[u8]>::first_chunk::<4>).copied().unwrap_or_default();
    NbmaAddr(Ipv4Addr::from(bytes).into())
}

/// The routes: the overlay by the tunnel, all else behind the server. (A real table has more, and costs more.)
#[derive(Debug)]
struct Table {
    tunnel: InterfaceName,
}

impl Routes for Table {
    fn lookup(&self, _: TableId, addr: ProtocolAddr) -> Option<Found> {
        let IpAddr::V4(v4) = addr.0 else { return None };
        let of = |length| Prefix::new(addr.0, length).unwrap_or(Prefix::host(addr.0));
        if v4 == SERVER {
            return Some(Found { prefix: Prefix::host(addr.0), to: To::Local });
        }
        if v4.octets()[0] == SERVER.octets()[0] {
            let hop = Hop { interface: self.tunnel, next_hop: addr.0 };
            return Some(Found { prefix: of(8), to: To::Tunnel(hop) });
        }
        let lan = "lan".parse().unwrap_or(self.tunnel);
        Some(Found { prefix: of(24), to: To::Elsewhere(lan) })
    }

    fn is_split(&self, _: TableId, _: Prefix, _: &To) -> bool {
        false
    }
}

fn shuffle(order: &mut [u32], random: &mut Random) {
    for last in (1..order.len()).rev() {
        order.swap(last, (random.next() % (last as u64 + 1)) as usize);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [request, reply, resolution] = self.request_bytes;
        writeln!(
            f,
            "{} clients, {} passes; registrations of {request} bytes, replies of {reply}, resolution requests of {resolution}",
            self.clients, self.passes
        )?;
        for (name, cost) in [
            ("registrations, first", &self.first),
            ("registrations, renewed", &self.renewal),
            ("resolutions, forwarded", &self.forwarded),
            ("resolutions, answered", &self.answered),
        ] {
            writeln!(
                f,
                "{:9.0} a second {name}: {:.0} ns (best pass {:.0})",
                cost.per_second, cost.nanoseconds, cost.nanoseconds_min
            )?;
        }
        writeln!(f, "{:9.0} bytes per binding (growth of memory in RAM)", self.bytes_per_binding)?;
        match &self.wrong {
            None => write!(f, "verified: every request brought about what it should have"),
            Some(wrong) => write!(f, "WRONG: {wrong}"),
        }
    }
}
