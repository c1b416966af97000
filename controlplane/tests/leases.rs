//! Sequence leases of static keys: whatever dies and comes again, no key seals two packets with one sequence number; and no key is
//! shown anywhere.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use controlplane::conductor::{Conductor, Fingerprint, Input, Kept, Output, Recorded, Steps};
use controlplane::kernel::Notice;
use model::config::Config;
use model::program::{Key, Object, Op, OutboundSa, Owner};
use model::report::Report;
use model::sa::{Direction, Lease, Protection, Reached, SaKey, Spi};
use model::state::event::Happening;
use model::state::{State, What};
use model::time::Instant;
use model::{Instance, WorkerId};

/// Numbers of a lease.
const LEASE: u64 = 1 << 22;
/// The keys of the configurations below, as they begin.
const KEYS: [&str; 3] = ["c0ffee", "beef", "5eed"];

fn key(n: usize) -> String {
    format!("{:0<40}", KEYS[n].repeat(3))
}

/// What an entry says.
struct Peer {
    remote: u8,
    inbound: u32,
    outbound: u32,
    /// Which of [`KEYS`].
    key: usize,
    esn: bool,
}

fn config(profile: &str, peers: &[Peer]) -> String {
    let mut text = format!(
        "[[interfaces]]\nname = \"wan\"\naddresses = [\"203.0.113.1/24\"]\n[[tunnels]]\nname = \"tunnel0\"\n\
         mode = \"gre-multipoint\"\nsource = \"wan\"\nprotection = \"{profile}\"\naddresses = [\"10.255.0.1/24\"]\n\
         nhrp = {{ network_id = 1 }}\n[[profiles]]\nname = \"{profile}\"\n"
    );
    for Peer { remote, inbound, outbound, key: n, esn } in peers {
        let inbound_key = format!("{inbound:08x}").repeat(5);
        text.push_str(&format!(
            "[[profiles.static]]\nremote = \"203.0.113.{remote}\"\n\
             inbound = {{ spi = {inbound}, key = \"{inbound_key}\" }}\n\
             outbound = {{ spi = {outbound}, key = \"{}\", esn = {esn} }}\n",
            key(*n)
        ));
    }
    text
}

const PEER: Peer = Peer { remote: 11, inbound: 0x0104_0001, outbound: 0x1001, key: 0, esn: false };

fn one_peer() -> String {
    config("lab", &[PEER])
}

fn fingerprint(n: usize) -> Fingerprint {
    let bytes: Vec<u8> =
        (0..20).map(|at| u8::from_str_radix(&key(n)[2 * at..2 * at + 2], 16).unwrap()).collect();
    Fingerprint::of(&SaKey::new(&bytes).unwrap())
}

/// An outbound SA as a data plane runs it.
#[derive(Debug)]
struct Running {
    sa: OutboundSa,
    next: u64,
    last: u64,
    /// More than half of what it had when it was given more is used from here on.
    low_at: u64,
}

/// The SAs of a data plane, and whether each is stale.
type Sas = BTreeMap<(Key, Owner), (Running, bool)>;

/// A control plane, its disk, and a data plane that keeps the rule of leases and writes down what it seals.
struct World {
    now: Instant,
    conductor: Conductor,
    /// What is on disk.
    disk: Recorded,
    /// What is being written.
    writing: Option<(u64, Recorded)>,
    instance: u64,
    connection: u64,
    /// Nothing that is programmed arrives.
    is_cut: bool,
    running: Sas,
    /// Another data plane that lives, and is not spoken to.
    other: (u64, Sas),
    /// Ranges of sequence numbers that each key sealed with, by their first.
    sealed: BTreeMap<Vec<u8>, BTreeMap<u64, u64>>,
    /// Everything that was put, in order.
    put: Vec<OutboundSa>,
    ops: Vec<Op>,
    events: Vec<Happening>,
    /// All that was put out, as it is formatted.
    said: String,
}

impl World {
    fn new(text: &str, disk: Recorded) -> Self {
        let mut world = Self {
            now: Instant(1_790_000_000_000_000),
            conductor: Conductor::new(Instant(0), Config::parse(text).unwrap(), 1, Kept::default()),
            disk,
            writing: None,
            instance: 1,
            connection: 0,
            is_cut: true,
            running: BTreeMap::new(),
            other: (1_000_000, BTreeMap::new()),
            sealed: BTreeMap::new(),
            put: Vec::new(),
            ops: Vec::new(),
            events: Vec::new(),
            said: String::new(),
        };
        world.start(text);
        world
    }

    /// A life of the control plane. What it was writing is on the disk, or is not.
    fn start(&mut self, text: &str) {
        self.writing = None;
        self.conductor = Conductor::new(self.now, Config::parse(text).unwrap(), 1, Kept::default());
        self.conductor.resume_leases(self.disk.clone());
        self.is_cut = true;
        self.give(Input::Tick);
        self.give(Input::Kernel(Notice::Synced));
    }

    fn greet(&mut self) {
        self.connection += 1;
        self.is_cut = false;
        let (connection, instance) = (self.connection, Instance(self.instance));
        self.give(Input::Greeted {
            connection,
            instance,
            version: String::new(),
            workers: 2,
            slots: 1,
            ike: vec![],
        });
    }

    /// Another life of the data plane.
    fn kill_dataplane(&mut self) {
        self.give(Input::Away { reason: "gone".to_owned() });
        self.running.clear();
        self.instance += 1;
    }

    /// The other data plane is spoken to from now on.
    fn change_dataplane(&mut self) {
        self.give(Input::Away { reason: "gone".to_owned() });
        std::mem::swap(&mut self.running, &mut self.other.1);
        std::mem::swap(&mut self.instance, &mut self.other.0);
        self.greet();
    }

    fn give(&mut self, input: Input) {
        let mut out = Vec::new();
        self.conductor.handle(self.now, input, &mut out);
        self.carry_out(out);
    }

    fn apply(&mut self, text: &str) {
        let (config, _) = self.conductor.plan(text).unwrap();
        let mut out = Vec::new();
        self.conductor.apply(self.now, config, &mut out);
        self.carry_out(out);
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.give(Input::Tick);
    }

    /// The disk does what it was told, and says so.
    fn write(&mut self) -> bool {
        let Some((number, recorded)) = self.writing.take() else { return false };
        self.disk = recorded;
        self.give(Input::Recorded(number));
        true
    }

    fn carry_out(&mut self, out: Vec<Output>) {
        for output in out {
            self.said.push_str(&format!("{output:?}\n"));
            match output {
                Output::Record { number, recorded } => {
                    assert!(self.writing.is_none(), "one at a time");
                    self.writing = Some((number, recorded));
                }
                Output::Program(Steps { connection, ops, .. }) if !self.is_cut => {
                    assert_eq!(connection, self.connection);
                    for op in ops {
                        self.take(&op);
                        self.ops.push(op);
                    }
                }
                Output::Event(event) => {
                    self.said.push_str(&format!("{event} {}\n", serde_json::to_string(&event).unwrap()));
                    self.events.push(event);
                }
                _ => {}
            }
        }
    }

    fn take(&mut self, op: &Op) {
        match op {
            Op::Put(owner, Object::OutboundSa(sa)) => {
                let bound = self.disk.bounds.get(&Fingerprint::of(&sa.key));
                assert!(
                    bound.is_some_and(|bound| sa.lease.last <= *bound),
                    "{sa:?} is not recorded: {bound:?}"
                );
                assert!(sa.lease.first >= 1 && sa.lease.first <= sa.lease.last, "{sa:?}");
                self.put.push(sa.clone());
                let at = (Key::OutboundSa(sa.protection, sa.worker), *owner);
                match self.running.get_mut(&at) {
                    Some((had, is_stale))
                        if had.sa.spi == sa.spi && had.sa.key == sa.key && sa.lease.first <= had.last + 1 =>
                    {
                        if had.last < sa.lease.last {
                            had.last = sa.lease.last;
                            had.low_at = had.next + (had.last - had.next.min(had.last)) / 2;
                        }
                        had.sa = sa.clone();
                        *is_stale = false;
                    }
                    _ => {
                        let Lease { first, last } = sa.lease;
                        self.running.insert(
                            at,
                            (
                                Running {
                                    sa: sa.clone(),
                                    next: first,
                                    last,
                                    low_at: first + (last - first) / 2,
                                },
                                false,
                            ),
                        );
                    }
                }
            }
            Op::Remove(owner, key @ Key::OutboundSa(..)) => drop(self.running.remove(&(*key, *owner))),
            Op::ResyncBegin(Owner::Config) => self.running.values_mut().for_each(|(_, stale)| *stale = true),
            Op::ResyncEnd(Owner::Config) => self.running.retain(|_, (_, stale)| !*stale),
            _ => {}
        }
    }

    /// So many packets by each SA, as far as their leases go; each number once, for ever.
    fn seal(&mut self, packets: u64) {
        for (Running { sa, next, last, .. }, _) in self.running.values_mut().chain(self.other.1.values_mut())
        {
            let end = (*next - 1).saturating_add(packets).min(*last);
            if end < *next {
                continue;
            }
            let ranges = self.sealed.entry(sa.key.keymat().to_vec()).or_default();
            let before = ranges.range(..=end).next_back();
            assert!(before.is_none_or(|(_, until)| until < next), "{sa:?}: {next} again, after {before:?}");
            ranges.insert(*next, end);
            *next = end + 1;
        }
    }

    /// The data plane says which leases are used by half.
    fn report(&mut self) {
        let low: Vec<Report> = self
            .running
            .values()
            .filter(|(running, _)| running.next > running.low_at)
            .map(|(Running { sa, next, .. }, _)| Report::LeaseLow {
                protection: sa.protection,
                worker: sa.worker,
                spi: sa.spi,
                next: *next,
            })
            .collect();
        for report in low {
            self.give(Input::Report(report));
        }
    }

    fn leases(&self) -> Vec<(u64, u64)> {
        self.put.iter().map(|sa| (sa.lease.first, sa.lease.last)).collect()
    }

    fn protection(&self) -> Protection {
        self.put.last().unwrap().protection
    }
}

/// Input: the data plane greets, and the disk is slow. Output: nothing is swept and no outbound SA goes out until its lease is on the
/// disk; an inbound one need not wait.
#[test]
fn an_outbound_key_is_not_programmed_before_its_lease_is_on_the_disk() {
    let mut world = World::new(&one_peer(), Recorded::default());
    world.greet();
    assert!(world.writing.is_some() && world.ops.is_empty());
    // Longer than anybody waits for a resync.
    world.wait(Duration::from_secs(3));
    assert!(world.ops.iter().any(|op| matches!(op, Op::Put(_, Object::InboundSa(_)))));
    assert!(!world.ops.iter().any(|op| matches!(op, Op::Put(_, Object::OutboundSa(_)) | Op::ResyncEnd(_))));
    assert!(world.write());
    assert_eq!(world.leases(), [(1, LEASE)]);
    assert!(world.ops.iter().any(|op| matches!(op, Op::ResyncEnd(Owner::Config))), "now all is told");
    // The inbound SPI names worker 1 of 2.
    let sa = &world.put[0];
    assert_eq!((sa.worker, sa.spi, sa.esn), (WorkerId(1), Spi::new(0x1001).unwrap(), false));
    assert_eq!(world.conductor.kept(world.now).sealed, [fingerprint(0)].into());
}

#[test]
fn a_disk_that_takes_nothing_is_told_once_and_tried_again() {
    let mut world = World::new(&one_peer(), Recorded::default());
    world.greet();
    let told = |world: &World| {
        world.events.iter().filter(|e| matches!(e, Happening::LeasesUnrecorded { .. })).count()
    };
    for _ in 0..3 {
        let (number, _) = world.writing.take().unwrap();
        world.give(Input::Unrecorded { number, reason: "no space left on device".to_owned() });
        assert!(world.writing.is_none() && world.put.is_empty());
        world.wait(Duration::from_secs(5));
    }
    assert_eq!(told(&world), 1);
    assert!(!world.ops.iter().any(|op| matches!(op, Op::ResyncEnd(_))), "what is there forwards on");
    world.write();
    assert_eq!(world.leases(), [(1, LEASE)]);
}

#[test]
fn a_lease_goes_on_behind_the_one_before_it_whoever_died() {
    let mut world = World::new(&one_peer(), Recorded::default());
    world.greet();
    world.write();
    // More is asked for when half is used, and what comes late is not an answer to what was asked.
    world.seal(LEASE / 2 - 1);
    world.report();
    assert!(world.writing.is_none());
    world.wait(Duration::from_secs(60));
    world.seal(2);
    world.report();
    world.report();
    assert_eq!(world.leases().len(), 1, "not before it is recorded");
    world.write();
    world.report();
    assert!(world.writing.is_none());
    assert_eq!(world.leases(), [(1, LEASE), (LEASE + 1, 2 * LEASE)]);
    // The connection breaks, and comes again: both know where they are.
    world.give(Input::Away { reason: "cut".to_owned() });
    world.greet();
    assert!(world.writing.is_none());
    assert_eq!(world.leases()[2], (LEASE + 1, 2 * LEASE));
    // Another data plane.
    world.kill_dataplane();
    world.greet();
    world.write();
    assert_eq!(world.leases()[3], (2 * LEASE + 1, 3 * LEASE));
    // Another control plane, that knows nothing but the disk, and the same data plane.
    world.start(&one_peer());
    world.greet();
    world.write();
    assert_eq!(world.leases()[4], (3 * LEASE + 1, 4 * LEASE));
    // The same key, under another name and SPI.
    world.apply(&config("other", &[Peer { remote: 12, inbound: 0x2_0002, outbound: 0x2002, ..PEER }]));
    world.write();
    assert_eq!(world.leases()[5], (4 * LEASE + 1, 5 * LEASE));
    assert_eq!(world.running.len(), 1);
}

#[test]
fn an_sa_of_high_rate_gets_longer_leases() {
    let mut world = World::new(&one_peer(), Recorded::default());
    world.greet();
    world.write();
    let mut length = LEASE;
    for _ in 0..6 {
        world.seal(length * 3 / 4);
        world.wait(Duration::from_secs(1));
        world.report();
        world.write();
        let (first, last) = *world.leases().last().unwrap();
        length = (length * 2).min(1 << 26);
        assert_eq!(last - first + 1, length);
    }
}

#[test]
fn another_key_takes_over_when_its_lease_is_on_the_disk_and_not_before() {
    let mut world = World::new(&one_peer(), Recorded::default());
    world.greet();
    world.write();
    world.apply(&config("lab", &[Peer { outbound: 0x1002, key: 1, ..PEER }]));
    let spi = |world: &World| world.running.values().map(|(r, _)| r.sa.spi.value()).collect::<Vec<_>>();
    assert_eq!(spi(&world), [0x1001], "the old one carries packets until then");
    world.write();
    assert_eq!(spi(&world), [0x1002]);
    assert_eq!(world.leases(), [(1, LEASE), (1, LEASE)], "of two keys");
}

/// Input: keys of which all numbers, or nearly, are leased. Output: a lease ends where numbers do; then the SA is not put again, and it
/// is told and shown why.
#[test]
fn a_key_without_numbers_left_is_refused() {
    let end = u64::from(u32::MAX);
    let peers = [PEER, Peer { remote: 12, inbound: 0x102, outbound: 0x1002, key: 1, esn: true }];
    let bounds = [(fingerprint(0), end - 10), (fingerprint(1), end - 10)].into();
    let text = config("lab", &peers);
    let mut world = World::new(&text, Recorded { bounds, ..Recorded::default() });
    world.greet();
    world.write();
    assert_eq!(world.leases(), [(end - 9, end), (end - 9, end - 10 + LEASE)], "the other one has 64 bits");
    world.seal(LEASE);
    world.wait(Duration::from_secs(60));
    world.report();
    world.write();
    world.report();
    let refused = |world: &World| {
        let refused = world.events.iter().filter_map(|event| match event {
            Happening::SaRefused { spi, reason, .. } => Some((spi.value(), reason.clone())),
            _ => None,
        });
        refused.collect::<Vec<_>>()
    };
    let spent = "no sequence numbers are left of its key; give it a new key";
    assert_eq!(refused(&world), [(0x1001, spent.to_owned())], "once");
    assert_eq!(world.running.len(), 2, "it goes on to the end of what it has");
    world.kill_dataplane();
    world.greet();
    world.write();
    assert_eq!(world.running.len(), 1);
    assert_eq!(refused(&world).len(), 2);
    let State::Sa(shown) = world.conductor.show(world.now, What::Sa) else { panic!() };
    assert_eq!(shown.0.len(), 1);
    assert_eq!((shown.0[0].spi.value(), shown.0[0].refused.as_deref()), (0x1001, Some(spent)));
    // Without ESN no number behind 32 bits is given either.
    let mut short = peers;
    short[1].esn = false;
    world.apply(&config("lab", &short));
    world.write();
    assert_eq!(world.running.len(), 0);
    assert_eq!(refused(&world).last().unwrap().0, 0x1002);
}

#[test]
fn a_key_whose_record_is_lost_is_refused_and_a_new_one_is_not() {
    let lost = Recorded { lost: [fingerprint(0)].into(), ..Recorded::default() };
    let mut world = World::new(&one_peer(), lost);
    world.greet();
    assert!(world.writing.is_none());
    assert!(world.ops.iter().any(|op| matches!(op, Op::ResyncEnd(_))), "nobody waits for it");
    assert!(world.put.is_empty());
    let why = "its key has been in use, and the record of its sequence numbers is lost; give it a new key";
    assert!(world.events.iter().any(|e| matches!(e, Happening::SaRefused { reason, .. } if reason == why)));
    let State::Sa(shown) = world.conductor.show(world.now, What::Sa) else { panic!() };
    assert_eq!(shown.0[0].refused.as_deref(), Some(why));
    assert!(shown.to_string().contains(why), "{shown}");
    world.apply(&config("lab", &[Peer { key: 1, ..PEER }]));
    world.write();
    assert_eq!(world.leases(), [(1, LEASE)]);
    let State::Sa(shown) = world.conductor.show(world.now, What::Sa) else { panic!() };
    assert!(shown.0.is_empty());
    // It stays lost, whatever is written.
    assert_eq!(world.disk.lost, [fingerprint(0)].into());
}

#[test]
fn a_lifetime_that_is_reached_is_told_once() {
    let mut world = World::new(&one_peer(), Recorded::default());
    world.greet();
    world.write();
    let (protection, spi) = (world.protection(), Spi::new(0x1001).unwrap());
    for reached in [Reached::Soft, Reached::Soft, Reached::Hard, Reached::Hard] {
        world.give(Input::Report(Report::SaLifetime {
            protection,
            spi,
            direction: Direction::Outbound,
            reached,
        }));
    }
    let told = world.events.iter().filter(|e| matches!(e, Happening::SaLifetime { .. })).count();
    assert_eq!(told, 2);
}

/// Input: 300 histories of deaths of either side, cut connections, slow and failing disks, changes of the configuration, and traffic.
/// Output: each put was recorded before (checked where it is taken), and each key seals with each number once.
#[test]
fn no_key_seals_two_packets_with_one_number_whatever_happens() {
    let peer = |remote, inbound, outbound, key, esn| Peer { remote, inbound, outbound, key, esn };
    let texts = [
        config("lab", &[peer(11, 0x101, 0x1001, 0, false), peer(12, 0x102, 0x1002, 1, true)]),
        config("lab", &[peer(11, 0x101, 0x1001, 0, false)]),
        // The keys change places; the SPIs do not.
        config("lab", &[peer(11, 0x101, 0x1001, 1, true), peer(12, 0x102, 0x1002, 0, false)]),
        // Another name, other SPIs, other workers.
        config("other", &[peer(12, 0x4_0105, 0x2001, 0, false), peer(13, 0x106, 0x2002, 2, false)]),
    ];
    let (mut sealed, mut deaths) = (0, 0);
    for seed in 1..=300_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        let mut text = 0;
        let mut world = World::new(&texts[text], Recorded::default());
        world.greet();
        for _ in 0..80 {
            match below(15) {
                14 => world.change_dataplane(),
                // The control plane dies, before or after what it was writing is on the disk.
                0 => {
                    if let Some((_, recorded)) = world.writing.take_if(|_| below(2) == 0) {
                        world.disk = recorded;
                    }
                    world.start(&texts[text]);
                    deaths += 1;
                    if below(2) == 0 {
                        world.greet();
                    }
                }
                1 => {
                    world.kill_dataplane();
                    deaths += 1;
                }
                2 => world.give(Input::Away { reason: "cut".to_owned() }),
                // Steps are lost until it is noticed.
                3 => world.is_cut = true,
                4 => {
                    world.give(Input::Away { reason: "cut".to_owned() });
                    world.greet();
                }
                5 => {
                    text = below(texts.len() as u64) as usize;
                    world.apply(&texts[text]);
                }
                6 => {
                    // The disk says no, and has written or not.
                    if let Some((number, recorded)) = world.writing.take() {
                        if below(2) == 0 {
                            world.disk = recorded;
                        }
                        world.give(Input::Unrecorded { number, reason: "failure".to_owned() });
                    }
                }
                7 | 8 => drop(world.write()),
                9 => world.wait(Duration::from_millis(below(6000))),
                10 => world.report(),
                _ => world.seal(below(3 * LEASE / 2)),
            }
        }
        sealed += world.sealed.values().map(BTreeMap::len).sum::<usize>();
    }
    assert!(sealed > 1000 && deaths > 1000, "{sealed} {deaths}: the test does what it says");
}

#[test]
fn no_key_is_in_what_is_put_out_shown_saved_or_formatted() {
    let mut world =
        World::new(&one_peer(), Recorded { lost: [fingerprint(1)].into(), ..Recorded::default() });
    world.greet();
    world.write();
    world.apply(&config(
        "lab",
        &[PEER, Peer { remote: 12, inbound: 0x102, outbound: 0x1002, key: 1, esn: true }],
    ));
    world.write();
    let (_, changes) = world.conductor.plan(&config("lab", &[Peer { key: 2, ..PEER }])).unwrap();
    assert!(changes.iter().any(|change| change.to_string().ends_with("outbound.key changed")), "{changes:?}");
    let shown = What::ALL.map(|what| {
        let state = world.conductor.show(world.now, what);
        format!("{state} {state:?} {}", serde_json::to_string(&state).unwrap())
    });
    let all = [
        world.said.clone(),
        shown.concat(),
        format!("{changes:?} {}", serde_json::to_string(&changes).unwrap()),
        format!(
            "{:?} {}",
            world.conductor.config(),
            serde_json::to_string(world.conductor.config()).unwrap()
        ),
        serde_json::to_string(&world.conductor.kept(world.now)).unwrap(),
        serde_json::to_string(&world.disk).unwrap(),
        serde_json::to_string(&world.put).unwrap(),
        format!("{:?}", world.put),
    ];
    let all = all.concat().to_lowercase();
    assert!(all.contains("outboundsa") && all.contains("hidden"), "the SAs are in it");
    // As digits, and as a list of bytes would be formatted.
    for key in KEYS {
        assert!(!all.contains(&key.repeat(2)), "{key}");
    }
    for bytes in ["192, 255, 238", "190, 239, 190", "94, 237, 94", "c0, ff, ee", "192,255,238"] {
        assert!(!all.contains(bytes), "{bytes}");
    }
}
