//! `nave-perf nhrp --process`: registrations through everything.
//!
//! ```text
//!              ┌──────────── nave-dataplane ───────────┐          ┌─ nave-controlplane ─┐
//!   clients ── memif ── wan ── gre-decap ── punt ──────┼── gRPC ──┼─▶ NHRP, a hub ──┐   │
//!   (thread) ◀ memif ── wan ◀─ midchain ◀─ binding ◀───┼── gRPC ──┼── binding, reply   │
//!              └───────────────────────────────────────┘          └─────────────────────┘
//! ```

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use dpdk::free_bulk;
use model::program::Object;
use model::state::nhrp::EntryType;
use model::state::{State, What};
use model::{NbmaAddr, Prefix};
use proto::client::Dataplane as Programmed;
use serde::Serialize;
use wire::buf::PacketBuf;
use wire::nhrp::{Body, CieCode, Message, MessageType};
use wire::{gre, ipv4};

use super::{Args, HOLDING_TIME, SECRET, SERVER, SERVER_NBMA, nbma_of, protocol_of, registration, shuffle};
use crate::hub::{BURST, Hub, PATIENCE, PAUSE, ROUTER, Router, ipv4_in};
use crate::process::Folder;
use crate::reference::Random;
use crate::report::median;

/// Key of the tunnel.
const KEY: u32 = 42;
/// A request that has no answer after this time is sent again.
const GIVEN_UP: Duration = Duration::from_secs(1);

/// What registrations of one kind cost.
#[derive(Debug, Serialize)]
struct Cost {
    /// Registrations a second, from the first request to the last reply: the median of the passes, and the best.
    per_second: f64,
    per_second_max: f64,
    /// Time on a core of each process for one, in microseconds: of all passes together.
    dataplane_microseconds: f64,
    controlplane_microseconds: f64,
    /// Registrations of all passes, requests that had no reply in time and were sent again, and those of them whose first reply came
    /// after all: the others were lost.
    registrations: usize,
    sent_again: u64,
    late: u64,
}

/// One run.
#[derive(Debug, Serialize)]
struct Report {
    clients: u32,
    window: u32,
    /// Clients that were not there before: once.
    first: Cost,
    /// The same again, in random order.
    renewal: Cost,
    passes: u32,
    /// At the end: clients with their right address in the control plane's cache, and bindings in the data plane.
    entries: usize,
    bindings: usize,
    /// Whether every registration was accepted, and is there.
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong: Option<String>,
    /// Whether the data plane's packet buffers are in huge pages.
    huge_pages: bool,
}

/// Runs it; whether every registration was accepted, and is there in the end.
///
/// # Errors
/// What keeps it from running, in one sentence.
pub(super) fn run(args: &Args) -> anyhow::Result<bool> {
    Hub::alone()?;
    let clients = args.clients.unwrap_or(1000);
    let folder = Folder::new()?;
    let programs = (args.dataplane.as_deref(), args.controlplane.as_deref());
    let hub = Hub::start(programs, &folder, &configuration(clients, &folder), SERVER_NBMA)?;
    let mut node = Node { hub, clients: Clients::default() };
    let report = node.measure(args, clients)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.verified)
}

/// A hub and its clients.
struct Node {
    hub: Hub,
    clients: Clients,
}

impl Node {
    fn measure(&mut self, args: &Args, clients: u32) -> anyhow::Result<Report> {
        let mut order: Vec<u32> = (0..clients).collect();
        let mut random = Random(7);
        let window = args.window as usize;
        let (mut first, mut renewal) = (Passes::default(), Passes::default());
        self.pass(&mut first, &order, 0, window)?;
        for pass in 1..=args.passes {
            shuffle(&mut order, &mut random);
            self.pass(&mut renewal, &order, pass, window)?;
        }
        let (entries, bindings) = self.registered(clients)?;
        let count = clients as usize;
        let mut wrong = self.clients.wrong.take();
        if (entries, bindings) != (count, count) {
            wrong.get_or_insert(format!("of {clients} clients {entries} are in the cache, {bindings} bound"));
        }
        Ok(Report {
            clients,
            window: args.window,
            first: first.cost(),
            renewal: renewal.cost(),
            passes: args.passes,
            entries,
            bindings,
            verified: wrong.is_none(),
            wrong,
            huge_pages: self.hub.dataplane.huge_pages,
        })
    }

    /// Has each client register once.
    fn pass(&mut self, passes: &mut Passes, order: &[u32], pass: u32, window: usize) -> anyhow::Result<()> {
        // Each request has a number of its own: no reply of another pass counts.
        let clients = order.len() as u32;
        let base = pass.wrapping_mul(clients).wrapping_add(1);
        let id = |client: u32| base.wrapping_add(client);
        let requests: Vec<Vec<u8>> = (0..clients)
            .map(|client| frame(&self.hub.router, client, id(client)))
            .collect::<Result<_, _>>()?;
        let before = (self.hub.dataplane.process.on_core()?, self.hub.controlplane.on_core()?);
        let begun = Instant::now();
        passes.sent_again += self.clients.exchange(&mut self.hub.router, &requests, order, (base, window))?;
        passes.late += std::mem::take(&mut self.clients.late);
        passes.per_second.push(f64::from(clients) / begun.elapsed().as_secs_f64());
        passes.dataplane += self.hub.dataplane.process.on_core()?.saturating_sub(before.0);
        passes.controlplane += self.hub.controlplane.on_core()?.saturating_sub(before.1);
        passes.registrations += order.len();
        Ok(())
    }

    /// How many clients are in the control plane's cache with their right address, and how many bindings the data plane has. What
    /// was answered is programmed a moment later.
    fn registered(&self, clients: u32) -> anyhow::Result<(usize, usize)> {
        let dataplane = Programmed::at(&self.hub.dataplane.socket);
        let until = Instant::now() + PATIENCE;
        loop {
            let (cache, program) = self.hub.runtime.block_on(async {
                let cache = self.hub.management.show(What::Nhrp.into()).await?;
                anyhow::Ok((cache, dataplane.show(What::Program.into()).await?))
            })?;
            let (State::Nhrp(cache), State::Program(program)) = (cache, program) else {
                bail!("the cache and the program were asked for")
            };
            let dynamic = cache.0.iter().filter(|entry| entry.entry_type == EntryType::Dynamic);
            let known: HashSet<(Prefix, Option<NbmaAddr>)> = dynamic.map(|e| (e.prefix, e.nbma)).collect();
            let is_known = |client: &u32| {
                known.contains(&(Prefix::host(protocol_of(*client).into()), Some(nbma_of(*client))))
            };
            let entries = (0..clients).filter(is_known).count();
            let bindings = program.0.iter().filter(|one| matches!(one.object, Object::Binding(_))).count();
            let all = clients as usize;
            if (entries, bindings) == (all, all) || Instant::now() > until {
                return Ok((entries, bindings));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Passes of one kind of registration.
#[derive(Debug, Default)]
struct Passes {
    per_second: Vec<f64>,
    dataplane: Duration,
    controlplane: Duration,
    registrations: usize,
    sent_again: u64,
    late: u64,
}

impl Passes {
    fn cost(&self) -> Cost {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / self.registrations as f64;
        Cost {
            per_second: median(self.per_second.iter().copied()),
            per_second_max: self.per_second.iter().copied().fold(0.0, f64::max),
            dataplane_microseconds: each(self.dataplane),
            controlplane_microseconds: each(self.controlplane),
            registrations: self.registrations,
            sent_again: self.sent_again,
            late: self.late,
        }
    }
}

/// Where a client is with its registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Waiting,
    OnItsWay,
    GivenUp,
    Answered,
}

/// A client's request as it arrives at the hub.
fn frame(router: &Router, client: u32, id: u32) -> anyhow::Result<Vec<u8>> {
    let mut tunnel = [0; 8];
    gre::write(&mut tunnel, gre::NHRP, Some(KEY)).context("a header of 8 bytes")?;
    let NbmaAddr(IpAddr::V4(from)) = nbma_of(client) else { bail!("clients have IPv4 addresses") };
    router.frame((from, SERVER_NBMA), ipv4::GRE, &[&tunnel, &registration(client, id)])
}

/// All clients.
#[derive(Default)]
struct Clients {
    steps: Vec<Step>,
    in_flight: usize,
    /// Replies to requests that had been given up.
    late: u64,
    wrong: Option<String>,
}

impl Clients {
    /// Sends each client's request, `window` of them on their way at once, until all have been answered; how many were sent
    /// again.
    ///
    /// # Errors
    /// Nothing comes any more.
    fn exchange(
        &mut self,
        router: &mut Router,
        requests: &[Vec<u8>],
        order: &[u32],
        (base, window): (u32, usize),
    ) -> anyhow::Result<u64> {
        self.steps = vec![Step::Waiting; requests.len()];
        let (mut next, mut again, mut on_their_way) = (order.iter(), Vec::new(), VecDeque::new());
        let (mut answered, mut sent_again, mut last) = (0, 0, Instant::now());
        let mut came = Vec::with_capacity(BURST);
        while answered < requests.len() {
            let now = Instant::now();
            while let Some((client, _)) = on_their_way.pop_front_if(|(client, sent): &mut (u32, Instant)| {
                self.steps[*client as usize] == Step::Answered || now.duration_since(*sent) > GIVEN_UP
            }) {
                if self.steps[client as usize] == Step::OnItsWay {
                    self.steps[client as usize] = Step::GivenUp;
                    self.in_flight -= 1;
                    sent_again += 1;
                    again.push(client);
                }
            }
            while router.room() > 0 && self.in_flight < window {
                let Some(client) = again.pop().or_else(|| next.next().copied()) else { break };
                // Its reply may only have been late.
                if self.steps[client as usize] != Step::Answered {
                    self.steps[client as usize] = Step::OnItsWay;
                    self.in_flight += 1;
                    on_their_way.push_back((client, now));
                    router.push(&requests[client as usize])?;
                }
            }
            let sent = router.send();
            let received = router.receive(&mut came);
            let new = came.iter().filter(|packet| self.account(router, packet.bytes(), base)).count();
            free_bulk(&mut came);
            answered += new;
            if new > 0 {
                last = now;
            } else if now.duration_since(last) > PATIENCE {
                bail!("{answered} of {} requests were answered, then none", requests.len());
            } else if received + sent == 0 {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(sent_again)
    }

    /// Whether a frame is the reply that a client waits for.
    fn account(&mut self, router: &mut Router, frame: &[u8], base: u32) -> bool {
        router.answer_arp(frame);
        let Some((to, message)) = nhrp(frame) else { return false };
        let (code, id) = match &message.body {
            Body::Exchange { entries, request_id, .. } => (entries.first().map(|e| e.code), *request_id),
            _ => (None, 0),
        };
        let client = id.wrapping_sub(base);
        let Some(step) = self.steps.get_mut(client as usize) else {
            // It is of a request that was given up in another pass.
            return false;
        };
        let is_right = message.message_type() == MessageType::RegistrationReply
            && code == Some(CieCode::SUCCESS)
            && NbmaAddr(to.into()) == nbma_of(client)
            && message.source == Some(protocol_of(client).into());
        if !is_right {
            self.wrong.get_or_insert_with(|| format!("client {client} was sent, to {to}: {message:?}"));
        }
        match std::mem::replace(step, Step::Answered) {
            Step::Answered => {
                self.late += 1;
                return false;
            }
            Step::OnItsWay => self.in_flight -= 1,
            Step::GivenUp => self.late += 1,
            Step::Waiting => {}
        }
        true
    }
}

/// What a frame has of NHRP, and the address in the underlay that it is for.
fn nhrp(frame: &[u8]) -> Option<(Ipv4Addr, Message)> {
    let (to, protocol, payload) = ipv4_in(frame)?;
    let (fields, message) = (protocol == ipv4::GRE).then(|| gre::parse(payload).ok())??;
    let is_nhrp = (fields.protocol, fields.key) == (gre::NHRP, Some(KEY));
    Some((to, is_nhrp.then(|| Message::decode(message).ok())??))
}

/// The hub's configuration: as many clients as there are, and no limit on what they ask.
fn configuration(clients: u32, folder: &Folder) -> String {
    let path = |name: &str| folder.file(name).display().to_string();
    let (state_file, dataplane, management) =
        (path("state.json"), path("dataplane.sock"), path("controlplane.sock"));
    format!(
        r#"
[node]
name = "hub"
state_file = "{state_file}"
[dataplane]
socket = "{dataplane}"
[management]
socket = "{management}"
[[interfaces]]
name = "wan"
addresses = ["{SERVER_NBMA}/24"]
[[routes]]
prefix = "0.0.0.0/0"
next_hop = "{ROUTER}"
[[tunnels]]
name = "tunnel0"
mode = "gre-multipoint"
source = "wan"
key = {KEY}
mtu = 1400
addresses = ["{SERVER}/8"]
[tunnels.nhrp]
network_id = 1
authentication = "{SECRET}"
holding_time = {HOLDING_TIME}
[tunnels.nhrp.limits]
registrations = {clients}
entries = {}
requests_per_second = 10000000
requests_per_second_per_peer = 1000000
"#,
        2 * clients
    )
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} clients, {} requests on their way, {} passes, through both processes{}",
            self.clients,
            self.window,
            self.passes,
            if self.huge_pages { "" } else { "; no huge pages for the data plane's packets" }
        )?;
        for (name, cost) in [("first", &self.first), ("renewed", &self.renewal)] {
            writeln!(
                f,
                "{:9.0} a second registrations, {name} (best pass {:.0}): {:.0} µs of the data plane, {:.0} µs of the control plane; {} of {} sent again, {} of them only late",
                cost.per_second,
                cost.per_second_max,
                cost.dataplane_microseconds,
                cost.controlplane_microseconds,
                cost.sent_again,
                cost.registrations,
                cost.late
            )?;
        }
        writeln!(f, "{:9} clients in the cache, {} bindings in the data plane", self.entries, self.bindings)?;
        match &self.wrong {
            None => write!(f, "verified: every registration was accepted, and is there"),
            Some(wrong) => write!(f, "WRONG: {wrong}"),
        }
    }
}
