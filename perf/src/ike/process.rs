//! `nave-perf ike --process`: all spokes of a hub come back at once, through everything.
//!
//! ```text
//!              ┌──────────── nave-dataplane ───────────┐          ┌──── nave-controlplane ────┐
//!   spokes ─── memif ── wan ── twin ───────────────────┼── UDP ───┼─▶ IKE ── SAs ──┐          │
//!   (engines)  memif ── wan ── esp-decrypt ── punt ────┼── gRPC ──┼─▶ NHRP, a hub  │          │
//!            ◀ memif ── wan ◀─ esp-encrypt ◀─ SAs ◀────┼── gRPC ──┼── binding, reply          │
//!              └───────────────────────────────────────┘          └───────────────────────────┘
//! ```

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aead::{Key, Packet, Provider};
use anyhow::{Context as _, bail};
use dpdk::free_bulk;
use ike::{Action, Engine, Input};
use model::ike::{EspSuite, IkeSuite};
use model::program::Object;
use model::sa::{Protection, SaKey};
use model::state::ike::IkeState;
use model::state::nhrp::EntryType;
use model::state::{State, What};
use model::{NbmaAddr, Prefix, TableId};
use serde::Serialize;
use wire::buf::PacketBuf;
use wire::nhrp::{Body, CieCode, Message, MessageType};
use wire::{IntoBytes, esp, gre, ipv4, udp};

use super::{Args, HUB, Issued, Proof, address_of, engine, nbma, profile_name};
use crate::hub::{Hub, PATIENCE, PAUSE, ROUTER, Router, ipv4_in};
use crate::nhrp::{HOLDING_TIME, SECRET, SERVER, protocol_of, registration};
use crate::process::Folder;

/// Key of the tunnel.
const KEY: u32 = 42;
/// How often spokes are looked after whose time has come.
const TICK: Duration = Duration::from_millis(2);
/// A registration without a reply is sent again after this.
const GIVEN_UP: Duration = Duration::from_secs(1);

/// One run.
#[derive(Debug, Serialize)]
struct Report {
    peers: u32,
    proof: Proof,
    suite: IkeSuite,
    esp: EspSuite,
    /// Milliseconds from the moment that all begin until the first, half and all of them are protected, and have their registration's reply.
    protected_milliseconds: [f64; 3],
    registered_milliseconds: [f64; 3],
    /// Datagrams that spokes had to send again, and registrations.
    sent_again: u64,
    registered_again: u64,
    /// Time on a core of each process for one spoke, in microseconds.
    dataplane_microseconds: f64,
    controlplane_microseconds: f64,
    /// At the end: IKE SAs that are up, and spokes with their right address in the control plane's cache.
    sas: usize,
    entries: usize,
    /// Whether every spoke is protected and registered.
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong: Option<String>,
    /// Whether the data plane's packet buffers are in huge pages.
    huge_pages: bool,
}

/// Runs it; whether every spoke was protected and registered.
///
/// # Errors
/// What keeps it from running, in one sentence.
pub(super) fn run(args: &Args) -> anyhow::Result<bool> {
    Hub::alone()?;
    let peers = args.peers.unwrap_or(2000);
    let folder = Folder::new()?;
    let issued = Issued::new(args, peers)?;
    let config = configuration(args, &issued, &folder)?;
    let programs = (args.dataplane.as_deref(), args.controlplane.as_deref());
    let mut hub = Hub::start(programs, &folder, &config, HUB)?;
    let report = measure(args, peers, &issued, &mut hub)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.verified)
}

fn measure(args: &Args, peers: u32, issued: &Issued, hub: &mut Hub) -> anyhow::Result<Report> {
    let clock = Clock::new();
    let mut spokes = Spokes::new(args, peers, issued, clock)?;
    let before = (hub.dataplane.process.on_core()?, hub.controlplane.on_core()?);
    let begun = Instant::now();
    spokes.come_back(&mut hub.router)?;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(peers);
    let dataplane = hub.dataplane.process.on_core()?.saturating_sub(before.0);
    let controlplane = hub.controlplane.on_core()?.saturating_sub(before.1);
    let (sas, entries) = known(hub, peers)?;
    let mut wrong = spokes.wrong.take();
    if (sas, entries) != (peers as usize, peers as usize) {
        wrong.get_or_insert(format!("of {peers} spokes {sas} have an IKE SA, {entries} are in the cache"));
    }
    let times = |of: &dyn Fn(&Spoke) -> Option<Instant>| {
        let mut all: Vec<f64> = spokes
            .all
            .iter()
            .filter_map(|spoke| Some(of(spoke)?.duration_since(begun).as_secs_f64() * 1e3))
            .collect();
        all.sort_by(f64::total_cmp);
        [0, all.len() / 2, all.len().saturating_sub(1)].map(|at| all.get(at).copied().unwrap_or(f64::NAN))
    };
    Ok(Report {
        peers,
        proof: args.proof,
        suite: args.suite,
        esp: args.esp,
        protected_milliseconds: times(&|spoke| spoke.up),
        registered_milliseconds: times(&|spoke| spoke.registered),
        sent_again: spokes.sent_again,
        registered_again: spokes.registered_again,
        dataplane_microseconds: each(dataplane),
        controlplane_microseconds: each(controlplane),
        sas,
        entries,
        verified: wrong.is_none(),
        wrong,
        huge_pages: hub.dataplane.huge_pages,
    })
}

/// How many IKE SAs are up, and how many spokes are in the cache with their right address.
fn known(hub: &Hub, peers: u32) -> anyhow::Result<(usize, usize)> {
    let until = Instant::now() + PATIENCE;
    loop {
        let (ike, cache) = hub.runtime.block_on(async {
            let ike = hub.management.show(What::Ike.into()).await?;
            anyhow::Ok((ike, hub.management.show(What::Nhrp.into()).await?))
        })?;
        let (State::Ike(ike), State::Nhrp(cache)) = (ike, cache) else {
            bail!("IKE SAs and the cache were asked for")
        };
        let up: HashSet<IpAddr> = ike
            .0
            .iter()
            .filter(|sa| sa.state == IkeState::Up && !sa.children.is_empty())
            .map(|sa| sa.protection.remote.0)
            .collect();
        let dynamic = cache.0.iter().filter(|entry| entry.entry_type == EntryType::Dynamic);
        let entries: HashSet<(Prefix, Option<NbmaAddr>)> =
            dynamic.map(|entry| (entry.prefix, entry.nbma)).collect();
        let is_known = |number: &u32| {
            entries.contains(&(Prefix::host(protocol_of(*number).into()), Some(nbma(address_of(*number)))))
        };
        let sas = (0..peers).filter(|number| up.contains(&address_of(*number).into())).count();
        let found = (sas, (0..peers).filter(is_known).count());
        if found == (peers as usize, peers as usize) || Instant::now() > until {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Microseconds since 1970, which go on steadily.
#[derive(Debug, Clone, Copy)]
struct Clock {
    began_at: u64,
    began: Instant,
}

impl Clock {
    fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { began_at: u64::try_from(since.as_micros()).unwrap_or(0), began: Instant::now() }
    }

    fn now(self) -> model::time::Instant {
        model::time::Instant(self.began_at) + self.began.elapsed()
    }
}

/// One end of an SA.
struct Sa {
    spi: u32,
    key: Key,
    salt: [u8; 4],
    esn: bool,
    /// The last sequence number.
    sequence: u64,
}

impl Sa {
    fn new(spi: u32, key: &SaKey, esn: bool) -> anyhow::Result<Self> {
        let salt = key.salt();
        let key = Key::new(Provider::Ring, key.key()).context("a key of ESP")?;
        Ok(Self { spi, key, salt, esn, sequence: 0 })
    }

    /// Seals a payload of GRE: an ESP packet.
    fn seal(&mut self, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.sequence += 1;
        let mut text = payload.to_vec();
        text.resize(esp::text_len(payload.len()), 0);
        esp::write_trailer(&mut text, payload.len(), ipv4::GRE).context("room for a trailer")?;
        text.resize(text.len() + esp::ICV, 0);
        let (spi, sequence, esn, salt) = (self.spi, self.sequence, self.esn, self.salt);
        aead::seal_one(Packet { key: &self.key, salt, iv: sequence, sequence, spi, esn, text: &mut text });
        Ok([esp::Header::new(spi, sequence, sequence).as_bytes(), &text].concat())
    }

    /// Opens an ESP packet: its payload, if it is authentic, of this SA, and GRE. Few come: the high half of the number is 0.
    fn open(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let (header, text) = esp::parse(packet).ok()?;
        let mut text = text.to_vec();
        let packet = Packet {
            key: &self.key,
            salt: self.salt,
            iv: header.iv(),
            sequence: header.sequence().into(),
            spi: header.spi(),
            esn: self.esn,
            text: &mut text,
        };
        if header.spi() != self.spi || !aead::open_one(packet) {
            return None;
        }
        text.truncate(text.len() - esp::ICV);
        let trailer = esp::trailer(&text).ok()?;
        if trailer.next_header != ipv4::GRE {
            return None;
        }
        text.truncate(trailer.payload);
        Some(text)
    }
}

/// A spoke.
struct Spoke {
    engine: Engine,
    inbound: Option<Sa>,
    outbound: Option<Sa>,
    up: Option<Instant>,
    asked: Option<Instant>,
    registered: Option<Instant>,
}

/// All of them, behind the router.
struct Spokes {
    all: Vec<Spoke>,
    clock: Clock,
    /// Frames that are still to be sent.
    frames: VecDeque<Vec<u8>>,
    /// Those that are not registered yet.
    left: usize,
    sent_again: u64,
    registered_again: u64,
    wrong: Option<String>,
}

impl Spokes {
    fn new(args: &Args, peers: u32, issued: &Issued, clock: Clock) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        for number in 0..peers {
            let own = &issued.peers[number as usize % issued.peers.len()];
            let engine = engine(args, 0, own, address_of(number), clock.now(), 64)?;
            let (inbound, outbound, up, asked, registered) = (None, None, None, None, None);
            all.push(Spoke { engine, inbound, outbound, up, asked, registered });
        }
        let left = all.len();
        let (frames, wrong) = (VecDeque::new(), None);
        Ok(Self { all, clock, frames, left, sent_again: 0, registered_again: 0, wrong })
    }

    /// All begin at once, and register when they are protected, until all have their reply.
    ///
    /// # Errors
    /// Nothing goes on any more.
    fn come_back(&mut self, router: &mut Router) -> anyhow::Result<()> {
        for number in 0..self.all.len() {
            let local = nbma(address_of(number as u32));
            let hub =
                Protection { profile: profile_name()?, table: TableId(0), local, remote: nbma(HUB), port: 0 };
            self.give(router, number, Input::Want { peer: hub, is_server: true })?;
        }
        let mut came = Vec::new();
        let (mut last, mut ticked) = (Instant::now(), Instant::now());
        while self.left > 0 {
            while router.room() > 0
                && let Some(frame) = self.frames.pop_front()
            {
                router.push(&frame)?;
            }
            let sent = router.send();
            let received = router.receive(&mut came);
            let before = self.left;
            for packet in &came {
                router.answer_arp(packet.bytes());
                self.take(router, packet.bytes())?;
            }
            free_bulk(&mut came);
            let now = Instant::now();
            if now.duration_since(ticked) > TICK {
                ticked = now;
                self.look_after(router, now)?;
            }
            if self.left < before {
                last = now;
            } else if now.duration_since(last) > PATIENCE {
                let up = self.all.iter().filter(|spoke| spoke.up.is_some()).count();
                bail!(
                    "of {} spokes {up} are protected, {} are not registered, and nothing goes on",
                    self.all.len(),
                    self.left
                );
            } else if received + sent == 0 {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Those whose time has come: what has no answer is sent again.
    fn look_after(&mut self, router: &Router, now: Instant) -> anyhow::Result<()> {
        for number in 0..self.all.len() {
            let at = self.clock.now();
            if self.all[number].engine.next_deadline().is_some_and(|due| due <= at) {
                let waiting = self.frames.len();
                self.give(router, number, Input::Tick)?;
                self.sent_again += (self.frames.len() - waiting) as u64;
            }
            let spoke = &self.all[number];
            let is_late = spoke.asked.is_some_and(|asked| now.duration_since(asked) > GIVEN_UP);
            if is_late && spoke.registered.is_none() {
                self.registered_again += 1;
                self.register(router, number)?;
            }
        }
        Ok(())
    }

    /// A spoke gets something, and does what it wants done.
    fn give(&mut self, router: &Router, number: usize, input: Input) -> anyhow::Result<()> {
        let mut actions = Vec::new();
        let spoke = &mut self.all[number];
        spoke.engine.handle(self.clock.now(), input, &mut actions);
        let mut is_up = false;
        for action in actions {
            match action {
                Action::Send { local, remote, bytes, .. } => {
                    let header = udp::Header::new(local.port(), remote.port(), bytes.len());
                    let header = header.context("a datagram that fits")?;
                    let way = (address_of(number as u32), HUB);
                    // Without a checksum, which IPv4 leaves to the sender (RFC 768).
                    self.frames.push_back(router.frame(way, ipv4::UDP, &[header.as_bytes(), &bytes])?);
                }
                Action::Put(Object::InboundSa(sa)) => {
                    spoke.inbound = Some(Sa::new(sa.spi.value(), &sa.key, sa.esn)?);
                }
                Action::Put(Object::OutboundSa(sa)) => {
                    spoke.outbound = Some(Sa::new(sa.spi.value(), &sa.key, sa.esn)?);
                }
                Action::Up { .. } => is_up = true,
                Action::Down { .. } => {
                    self.wrong.get_or_insert(format!("spoke {number} lost its hub"));
                }
                _ => {}
            }
        }
        if is_up && spoke.up.is_none() {
            spoke.up = Some(Instant::now());
            self.register(router, number)?;
        }
        Ok(())
    }

    /// Sends a spoke's registration, sealed.
    fn register(&mut self, router: &Router, number: usize) -> anyhow::Result<()> {
        let client = number as u32;
        let spoke = &mut self.all[number];
        let mut payload = vec![0; 8];
        gre::write(&mut payload, gre::NHRP, Some(KEY)).context("a header of 8 bytes")?;
        payload.extend(registration(client, client + 1));
        let sealed = spoke.outbound.as_mut().context("who is up has an outbound SA")?.seal(&payload)?;
        self.frames.push_back(router.frame((address_of(client), HUB), ipv4::ESP, &[&sealed])?);
        spoke.asked = Some(Instant::now());
        Ok(())
    }

    /// A frame came from the hub.
    fn take(&mut self, router: &Router, frame: &[u8]) -> anyhow::Result<()> {
        let Some((to, protocol, payload)) = ipv4_in(frame) else { return Ok(()) };
        let number = u32::from(to).wrapping_sub(u32::from(address_of(0))) as usize;
        if number >= self.all.len() {
            return Ok(());
        }
        match protocol {
            ipv4::UDP => {
                let Ok((header, bytes)) = udp::parse(payload) else { return Ok(()) };
                let local = SocketAddr::new(to.into(), header.destination_port());
                let remote = SocketAddr::new(HUB.into(), header.source_port());
                let input = Input::Datagram { table: TableId(0), local, remote, bytes: bytes.to_vec() };
                self.give(router, number, input)
            }
            ipv4::ESP => {
                self.reply(number, to, payload);
                Ok(())
            }
            ipv4::GRE => {
                self.wrong.get_or_insert(format!("spoke {number} was sent GRE in the clear"));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A sealed packet came: the reply to a registration.
    fn reply(&mut self, number: usize, to: Ipv4Addr, packet: &[u8]) {
        let spoke = &mut self.all[number];
        let opened = spoke.inbound.as_ref().and_then(|sa| sa.open(packet));
        let Some(payload) = opened else {
            self.wrong.get_or_insert(format!("spoke {number} was sent a packet that it cannot open"));
            return;
        };
        let message = gre::parse(&payload).ok().and_then(|(fields, message)| {
            ((fields.protocol, fields.key) == (gre::NHRP, Some(KEY)))
                .then(|| Message::decode(message).ok())?
        });
        let Some(message) = message else { return };
        let code = match &message.body {
            Body::Exchange { entries, .. } => entries.first().map(|entry| entry.code),
            _ => None,
        };
        let is_right = message.message_type() == MessageType::RegistrationReply
            && code == Some(CieCode::SUCCESS)
            && message.source == Some(protocol_of(number as u32).into());
        if !is_right {
            self.wrong.get_or_insert(format!("spoke {number} was sent, to {to}: {message:?}"));
        } else if spoke.registered.is_none() {
            spoke.registered = Some(Instant::now());
            self.left -= 1;
        }
    }
}

/// The hub's configuration: its own limits are those of everybody.
fn configuration(args: &Args, issued: &Issued, folder: &Folder) -> anyhow::Result<String> {
    let path = |name: &str| folder.file(name).display().to_string();
    let (state_file, dataplane, management) =
        (path("state.json"), path("dataplane.sock"), path("controlplane.sock"));
    for (name, text) in &issued.hub.files {
        std::fs::write(folder.file(name), text)?;
    }
    let proof = match args.proof {
        Proof::Psk => "psk = [{ secret = \"nave-perf\" }]".to_owned(),
        _ => format!(
            "certificate = \"{}\"\nprivate_key = \"{}\"\nauthorities = [\"{}\"]",
            path("own"),
            path("key"),
            path("authority")
        ),
    };
    let (suite, esp) = (args.suite, args.esp);
    Ok(format!(
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
addresses = ["{HUB}/24"]
[[routes]]
prefix = "0.0.0.0/0"
next_hop = "{ROUTER}"
[[profiles]]
name = "bench"
[profiles.ike]
proposals = ["{suite}"]
esp = ["{esp}"]
{proof}
[[tunnels]]
name = "tunnel0"
mode = "gre-multipoint"
source = "wan"
key = {KEY}
protection = "bench"
addresses = ["{SERVER}/8"]
[tunnels.nhrp]
network_id = 1
authentication = "{SECRET}"
holding_time = {HOLDING_TIME}
"#
    ))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} spokes come back at once, through both processes; {} and {}, ESP {}{}",
            self.peers,
            self.suite,
            self.proof.name(),
            self.esp,
            if self.huge_pages { "" } else { "; no huge pages for the data plane's packets" }
        )?;
        for (name, [first, half, all]) in
            [("protected", self.protected_milliseconds), ("registered", self.registered_milliseconds)]
        {
            writeln!(f, "{all:9.0} ms until all are {name} (the first {first:.0}, half {half:.0})")?;
        }
        writeln!(
            f,
            "{:9.0} µs of the control plane and {:.0} µs of the data plane for each; {} datagrams and {} registrations sent again",
            self.controlplane_microseconds,
            self.dataplane_microseconds,
            self.sent_again,
            self.registered_again
        )?;
        writeln!(f, "{:9} IKE SAs are up, {} spokes in the cache", self.sas, self.entries)?;
        match &self.wrong {
            None => write!(f, "verified: every spoke is protected and registered"),
            Some(wrong) => write!(f, "WRONG: {wrong}"),
        }
    }
}
