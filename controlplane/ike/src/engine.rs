//! The engine: inputs in, actions out.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::ike::Identity;
use model::sa::{Direction, Protection, Reached, Spi};
use model::time::{Instant, Timers};
use model::{NbmaAddr, TableId};

use crate::crowd::Crowd;
use crate::input::Profile;
use crate::limits::{Bucket, FAILURES_PER_SECOND, PACE_PER_SECOND};
use crate::path::Path;
use crate::programmed::{Ending, Inbound, Peer};
use crate::sa::{Sa, Task};
use crate::show::Counts;
use crate::spi::Spis;
use crate::turn::Turn;
use crate::want::Wanted;
use crate::{Action, Clear, Crypto, Event, Input};

/// An IKE SA is not looked at more often than this.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What happens when a timer fires, beside those of IKE SAs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// An inbound SA has lingered.
    Linger(Spi),
    /// What is nobody's has ended.
    Orphans(Protection),
    /// A rest ends.
    Want(Protection),
}

/// IKEv2 for all profiles of a node; initiator and responder at once.
#[derive(Debug)]
pub struct Engine {
    pub(crate) crypto: Box<dyn Crypto>,
    pub(crate) profiles: Vec<Arc<Profile>>,
    /// By the SPI that we chose.
    pub(crate) sas: HashMap<u64, Box<Sa>>,
    /// Those whose peer began and has not proved anything, by what tells its first message from others' (RFC 7296 §2.1).
    pub(crate) half_open: HashMap<(Path, u64), u64>,
    /// What is programmed, and told.
    pub(crate) peers: BTreeMap<Protection, Peer>,
    pub(crate) inbounds: HashMap<Spi, Inbound>,
    pub(crate) wants: BTreeMap<Protection, Wanted>,
    pub(crate) spis: Option<Spis>,
    pub(crate) sa_timers: Timers<u64>,
    pub(crate) timers: Timers<Timer>,
    pub(crate) crowd: Crowd,
    pub(crate) counts: Counts,
    pub(crate) proofs: Bucket,
    /// Notifications in the clear.
    pub(crate) clear: Bucket,
    failures: Bucket,
    /// Bytes of fragments that are held.
    pub(crate) fragments_held: usize,
    is_stopping: bool,
}

impl Engine {
    /// An engine without profiles. All its chance is that of `crypto`.
    #[must_use]
    pub fn new(crypto: Box<dyn Crypto>) -> Self {
        Self {
            crypto,
            profiles: Vec::new(),
            sas: HashMap::new(),
            half_open: HashMap::new(),
            peers: BTreeMap::new(),
            inbounds: HashMap::new(),
            wants: BTreeMap::new(),
            spis: None,
            sa_timers: Timers::default(),
            timers: Timers::default(),
            crowd: Crowd::default(),
            counts: Counts::default(),
            proofs: Bucket::default(),
            clear: Bucket::default(),
            failures: Bucket::default(),
            fragments_held: 0,
            is_stopping: false,
        }
    }

    /// Something happened at `now`, which never goes back, and is the time since 1970: certificates have a first and a last day. What is to be done is appended to `actions`, to be done in order.
    pub fn handle(&mut self, now: Instant, input: Input, actions: &mut Vec<Action>) {
        let mut turn = Turn::new(now, actions);
        self.expire(&mut turn);
        if !self.is_stopping {
            self.take(&mut turn, input);
        }
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.sa_timers.next().into_iter().chain(self.timers.next()).min()
    }

    fn expire(&mut self, turn: &mut Turn<'_>) {
        while let Some(spi) = self.sa_timers.expire(turn.now) {
            if let Some(mut sa) = self.sas.remove(&spi) {
                self.look(turn, &mut sa);
                self.settle(turn, sa);
            }
        }
        while let Some(timer) = self.timers.expire(turn.now) {
            match timer {
                Timer::Linger(spi) => self.drop_inbound(turn, spi),
                Timer::Orphans(peer) => self.drop_orphans(turn, peer, false),
                Timer::Want(peer) => self.rested(turn, peer),
            }
        }
    }

    fn take(&mut self, turn: &mut Turn<'_>, input: Input) {
        match input {
            Input::Configure(profiles) => self.configure(turn, profiles),
            Input::Dataplane { workers, slots, reserved, is_new } => {
                self.dataplane(turn, (workers, slots), &reserved, is_new);
            }
            Input::Adopt(adopted) => self.adopt(turn, adopted),
            Input::Datagram { table, local, remote, bytes } => {
                if let Err(reject) = self.datagram(turn, Path { table, local, remote }, &bytes) {
                    self.counts.reject(reject);
                }
            }
            Input::Want { peer, is_server } => self.want(turn, peer, is_server),
            Input::Used { inbound, outbound } => self.used(turn, &inbound, &outbound),
            Input::Lifetime { peer, spi, direction, reached } => {
                self.lifetime(turn, peer, (spi, direction), reached);
            }
            Input::Moved { spi, remote } => self.moved_by_esp(turn, spi, remote),
            Input::Clear(clear) => self.clear(turn, &clear),
            Input::Shutdown => self.shut_down(turn),
            Input::Tick => {}
        }
    }

    /// Puts an IKE SA back in its place, with its timer; or ends it.
    pub(crate) fn settle(&mut self, turn: &mut Turn<'_>, mut sa: Box<Sa>) {
        self.ensure_child(turn, &mut sa);
        self.pump(turn, &mut sa);
        if sa.is_over() {
            self.sa_timers.cancel(sa.ours);
            return;
        }
        match sa.due() {
            // Whatever is overdue, time passes before it is looked at again.
            Some(due) => self.sa_timers.set(sa.ours, due.max(turn.now + LOOK_AGAIN)),
            None => self.sa_timers.cancel(sa.ours),
        }
        self.sas.insert(sa.ours, sa);
    }

    /// Does something with an IKE SA that is in its place.
    pub(crate) fn with(
        &mut self,
        turn: &mut Turn<'_>,
        ours: u64,
        change: impl FnOnce(&mut Self, &mut Turn<'_>, &mut Sa),
    ) {
        if let Some(mut sa) = self.sas.remove(&ours) {
            change(self, turn, &mut sa);
            self.settle(turn, sa);
        }
    }

    /// Our SPIs of all IKE SAs, in an order that is the same every time.
    pub(crate) fn all(&self) -> Vec<u64> {
        let mut all: Vec<_> = self.sas.keys().copied().collect();
        all.sort_unstable();
        all
    }

    /// `duration`, shortened by chance by up to a tenth: those that began together do not stay together.
    pub(crate) fn jittered(&mut self, duration: Duration) -> Duration {
        let mut chance = [0; 2];
        self.crypto.random(&mut chance);
        duration - duration / 10 * u32::from(u16::from_be_bytes(chance) / 64) / 1024
    }

    /// A number that nobody can guess, and is no SPI of ours yet.
    pub(crate) fn new_spi(&mut self) -> u64 {
        loop {
            let mut bytes = [0; 8];
            self.crypto.random(&mut bytes);
            let spi = u64::from_be_bytes(bytes);
            if spi != 0 && !self.sas.contains_key(&spi) {
                return spi;
            }
        }
    }

    pub(crate) fn random(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.crypto.random(&mut bytes);
        bytes
    }

    /// The profile of a peer, if it is still for its source.
    pub(crate) fn profile(&self, peer: &Protection) -> Option<Arc<Profile>> {
        let is_its = |profile: &&Arc<Profile>| {
            profile.name == peer.profile && profile.sources.contains(&(peer.table, peer.local))
        };
        self.profiles.iter().find(is_its).cloned()
    }

    /// The profiles whose tunnels have this source.
    pub(crate) fn profiles_at(&self, table: TableId, local: SocketAddr) -> Vec<Arc<Profile>> {
        let source = (table, NbmaAddr(local.ip()));
        self.profiles.iter().filter(|profile| profile.sources.contains(&source)).cloned().collect()
    }

    /// Tells of a failure; of a flood of them not of each.
    pub(crate) fn failed(
        &mut self,
        turn: &mut Turn<'_>,
        sa: Option<&Sa>,
        remote: SocketAddr,
        identity: Option<Identity>,
        reason: impl Into<String>,
    ) {
        self.counts.failures += 1;
        if self.failures.take(turn.now, FAILURES_PER_SECOND) {
            let profile = sa.map(|sa| sa.profile.name);
            turn.event(Event::Failed { profile, remote, identity, reason: reason.into() });
        }
    }
}

/// What becomes of all of them.
impl Engine {
    fn configure(&mut self, turn: &mut Turn<'_>, profiles: Vec<Profile>) {
        self.profiles = profiles.into_iter().map(Arc::new).collect();
        for ours in self.all() {
            self.with(turn, ours, |engine, turn, sa| {
                let admitted = engine.profile(&sa.peer()).filter(|profile| {
                    sa.established().is_none_or(|established| {
                        profile.ike.peers.iter().any(|pattern| pattern.admits(&established.identity))
                    })
                });
                match admitted {
                    Some(profile) => sa.profile = profile,
                    None => engine.end(turn, sa, "the configuration has it no more"),
                }
            });
        }
        let gone: Vec<_> = self.peers.keys().filter(|peer| self.profile(peer).is_none()).copied().collect();
        for peer in gone {
            self.drop_orphans(turn, peer, false);
        }
        self.wants = std::mem::take(&mut self.wants)
            .into_iter()
            .filter(|(peer, _)| self.profile(peer).is_some())
            .collect();
    }

    /// A data plane: if it is another one, what the old one had is lost, and each child is replaced.
    fn dataplane(&mut self, turn: &mut Turn<'_>, places: (u16, u32), reserved: &[Spi], is_new: bool) {
        let (workers, slots) = places;
        if is_new {
            self.lose_all(turn);
        }
        // A child that is on its way comes to the place that was set aside for it.
        let mut taken = reserved.to_vec();
        taken.extend(self.inbounds.keys());
        taken.extend(self.sas.values().filter_map(|sa| sa.reserved()));
        let children = self.sas.values().filter_map(|sa| sa.established()).flat_map(|sa| &sa.children);
        let lost =
            children.map(|child| child.inbound).filter(|spi| !self.inbounds.contains_key(spi)).collect();
        self.spis = Some(Spis::new(&mut *self.crypto, (workers, slots), &taken, lost));
        if is_new {
            self.replace_all(turn);
        }
        let waiting: Vec<_> = self.wants.keys().copied().collect();
        for peer in waiting {
            self.want_again(turn, peer);
        }
    }

    /// Every SA goes at once.
    fn lose_all(&mut self, turn: &mut Turn<'_>) {
        let mut inbound: Vec<_> = self.inbounds.keys().copied().collect();
        inbound.sort_unstable();
        for spi in inbound {
            self.drop_inbound(turn, spi);
        }
        let all: Vec<_> = self.peers.keys().copied().collect();
        for peer in all {
            self.lose_outbound(turn, peer);
        }
    }

    /// Each child that is lost is replaced by one with keys of its own (RFC 7296 §2.8), some of them at a time.
    fn replace_all(&mut self, turn: &mut Turn<'_>) {
        for (nth, ours) in (0_u32..).zip(self.all()) {
            let hold = Duration::from_secs(1) * nth / PACE_PER_SECOND;
            self.with(turn, ours, |_, turn, sa| {
                let Some(established) = sa.established_mut() else { return };
                let mut lost = Vec::new();
                for child in &mut established.children {
                    child.is_lost = true;
                    child.sealing = crate::child::Sealing::Never;
                    if !child.is_closing && child.successor.is_none() {
                        lost.push(child.inbound);
                    }
                }
                sa.asking.hold_until = sa.asking.hold_until.max(turn.now + hold);
                lost.into_iter().for_each(|spi| sa.add(Task::Replace(spi)));
            });
        }
    }

    fn clear(&mut self, turn: &mut Turn<'_>, clear: &Clear) {
        for ours in self.all() {
            let is_meant = self.sas.get(&ours).is_some_and(|sa| {
                let identity = sa.established().map(|established| &established.identity);
                clear.remote.is_none_or(|remote| remote.0 == sa.path.remote.ip())
                    && clear.identity.as_ref().is_none_or(|meant| Some(meant) == identity)
            });
            if is_meant {
                self.with(turn, ours, |engine, turn, sa| engine.end(turn, sa, "the operator cleared it"));
            }
        }
        let is_meant = |peer: &&Protection| clear.remote.is_none_or(|remote| remote == peer.remote);
        for peer in self.wants.keys().filter(is_meant).copied().collect::<Vec<_>>() {
            self.forgive(turn, peer);
        }
    }

    fn shut_down(&mut self, turn: &mut Turn<'_>) {
        self.is_stopping = true;
        self.wants.clear();
        for ours in self.all() {
            if let Some(mut sa) = self.sas.remove(&ours) {
                self.say_end(turn, &mut sa);
                self.drop_children(turn, &mut sa, Ending::Cut, "this node stops");
                self.sa_timers.cancel(ours);
            }
        }
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            self.drop_orphans(turn, peer, false);
        }
        let mut left: Vec<_> = self.inbounds.keys().copied().collect();
        left.sort_unstable();
        for spi in left {
            self.drop_inbound(turn, spi);
        }
        self.sa_timers = Timers::default();
        self.timers = Timers::default();
    }

    /// Packets came or went.
    fn used(&mut self, turn: &mut Turn<'_>, inbound: &[Spi], outbound: &[Protection]) {
        let now = turn.now;
        for spi in inbound {
            let Some(ours) = self.inbounds.get(spi).map(|inbound| inbound.sa) else { continue };
            self.with(turn, ours, |engine, turn, sa| {
                sa.heard = now;
                if let Some(established) = sa.established_mut() {
                    established.used = now;
                }
                // Who sends by it has it, and its inbound one as well.
                engine.seal_by(turn, sa, *spi);
            });
        }
        for peer in outbound {
            let sas = self.peers.get(peer).map(|programmed| programmed.sas.clone()).unwrap_or_default();
            for ours in sas {
                let Some(sa) = self.sas.get_mut(&ours) else { continue };
                sa.sent = now;
                if let Some(established) = sa.established_mut() {
                    established.used = now;
                }
            }
        }
    }

    /// An SA reached a lifetime: it is replaced; at its hard end it carries nothing any more, and what remains is the same.
    fn lifetime(
        &mut self,
        turn: &mut Turn<'_>,
        peer: Protection,
        (spi, direction): (Spi, Direction),
        _reached: Reached,
    ) {
        let sas = match direction {
            Direction::Inbound => self.inbounds.get(&spi).map(|inbound| vec![inbound.sa]),
            Direction::Outbound => self.peers.get(&peer).map(|programmed| programmed.sas.clone()),
        };
        for ours in sas.unwrap_or_default() {
            self.with(turn, ours, |_, _, sa| {
                let Some(established) = sa.established() else { return };
                let child = established.children.iter().find(|child| match direction {
                    Direction::Inbound => child.inbound == spi,
                    Direction::Outbound => child.outbound == spi,
                });
                let inbound = child.filter(|child| !child.is_closing && child.successor.is_none());
                if let Some(inbound) = inbound.map(|child| child.inbound)
                    && sa.replacing() != Some(inbound)
                {
                    sa.add(Task::Replace(inbound));
                }
            });
        }
    }
}
