//! Who of the servers is registered with. The servers of one family in one cluster share `max_connections` places; the better ones have
//! them, as far as they answer.
//!
//! A better one that is missed is asked on, with back-off, beside the one that has its place. When it answers it is on probation: it takes the
//! place after `nhs_fallback` seconds of answers, and only then is the worse one told to forget us. So a server that comes and goes costs
//! nothing but its own requests.

use std::collections::BTreeMap;
use std::time::Duration;

use model::config::NhsFallback;
use model::time::Instant;

use crate::Event;
use crate::cloud::Cloud;
use crate::turn::{Timer, Turn};

use super::{Standing, Which, timers_of};

/// Whether a better server takes the place of a worse one.
enum Replaces {
    Now,
    /// It has to answer until then.
    At(Instant),
    Never,
}

impl Cloud {
    /// Gives the places to the servers that are to have them, and asks who is to be asked.
    pub(crate) fn elect(&mut self, turn: &mut Turn<'_>) {
        let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for i in 0..self.servers.len() {
            if self.identity_with(i).is_some() {
                let server = &self.servers[i];
                groups.entry((server.nhs.cluster, server.family)).or_default().push(i);
            } else {
                // It keeps its place for when there is an address again.
                self.leave_waiting(turn, i);
            }
        }
        for ((cluster, _), mut members) in groups {
            members.sort_by_key(|&i| self.servers[i].nhs.priority);
            let cluster = self.tunnel.nhrp.clusters.iter().find(|c| c.id == cluster);
            let places = cluster.map_or(members.len(), |c| c.max_connections.into());
            self.fill_places(turn, &members, places);
            self.replace_worse(turn, &members);
            self.ask_better(turn, &members, places);
        }
        self.settle_servers(turn);
    }

    /// Free places go to who answers already, else to the best that was not asked yet. `members` are sorted, the best first.
    fn fill_places(&mut self, turn: &mut Turn<'_>, members: &[usize], places: usize) {
        // The configuration may have fewer than it had.
        while self.taken(members) > places
            && let Some(worst) = self.worst_taken(members)
        {
            self.release_server(turn, worst);
        }
        while self.taken(members) < places {
            let best = |standing| {
                let stands = |i: &usize| !self.servers[*i].is_taken && self.servers[*i].standing == standing;
                members.iter().copied().find(stands)
            };
            let Some(next) = best(Standing::Responding).or_else(|| best(Standing::Waiting)) else { break };
            self.servers[next].is_taken = true;
        }
        for &i in members {
            if self.servers[i].is_taken && self.servers[i].standing == Standing::Waiting {
                self.begin_server(turn, i);
            }
        }
    }

    /// Who is on probation takes the place of a worse one when its time has come.
    fn replace_worse(&mut self, turn: &mut Turn<'_>, members: &[usize]) {
        for (rank, &i) in members.iter().enumerate() {
            let server = &self.servers[i];
            if server.is_taken || !server.is_up() {
                continue;
            }
            let timer = Timer::FallBack(self.name(), server.id);
            let worse = self.replaceable(members, rank);
            match worse.map(|worse| (worse, self.replaces(turn, i, worse))) {
                Some((worse, Replaces::Now)) => {
                    self.servers[i].is_taken = true;
                    turn.cancel(timer);
                    turn.save();
                    self.release_server(turn, worse);
                }
                Some((_, Replaces::At(at))) => turn.common.timers.set(timer, at.max(turn.now)),
                Some((_, Replaces::Never)) | None => self.release_server(turn, i),
            }
        }
    }

    fn replaces(&self, turn: &Turn<'_>, better: usize, worse: usize) -> Replaces {
        let better = &self.servers[better];
        match self.tunnel.nhrp.nhs_fallback {
            _ if !self.servers[worse].is_up() => Replaces::Now,
            NhsFallback::Never => Replaces::Never,
            NhsFallback::After(seconds) => {
                let at = better.since + Duration::from_secs(seconds.into());
                match at <= turn.now {
                    false => Replaces::At(at),
                    true if better.global.tries == 0 => Replaces::Now,
                    // Its answer, or that there is none, decides.
                    true => Replaces::At(turn.now + self.probation_pause()),
                }
            }
        }
    }

    /// Who has no place is asked if a place is free, or a worse one has it; else it waits.
    fn ask_better(&mut self, turn: &mut Turn<'_>, members: &[usize], places: usize) {
        let is_free = self.taken(members) < places;
        for (rank, &i) in members.iter().enumerate() {
            let server = &self.servers[i];
            if server.is_taken || server.is_up() {
                continue;
            }
            let worse = self.replaceable(members, rank);
            let may_replace = |worse: usize| {
                !self.servers[worse].is_up() || self.tunnel.nhrp.nhs_fallback != NhsFallback::Never
            };
            let is_wanted = is_free || worse.is_some_and(may_replace);
            match (is_wanted, server.standing) {
                (true, Standing::Waiting) => self.begin_server(turn, i),
                (false, Standing::Expecting) => self.release_server(turn, i),
                _ => {}
            }
        }
    }

    /// The worse server whose place is to become that of the one of this rank, if there is one for it beside those on probation that are better.
    fn replaceable(&self, members: &[usize], rank: usize) -> Option<usize> {
        let is_on_probation = |i: &&usize| self.servers[**i].is_up() && !self.servers[**i].is_taken;
        let better = members[..rank].iter().filter(is_on_probation).count();
        let worse = &members[rank + 1..];
        if self.taken(worse) > better { self.worst_taken(worse) } else { None }
    }

    /// How often a server on probation is asked: a few times before it takes a place.
    pub(super) fn probation_pause(&self) -> Duration {
        match self.tunnel.nhrp.nhs_fallback {
            NhsFallback::Never => Duration::from_secs(1),
            NhsFallback::After(seconds) => Duration::from_secs((seconds / 3).max(1).into()),
        }
    }

    fn taken(&self, members: &[usize]) -> usize {
        members.iter().filter(|&&i| self.servers[i].is_taken).count()
    }

    /// Whose place is given away first: that of one that does not answer, else that of the worst.
    fn worst_taken(&self, members: &[usize]) -> Option<usize> {
        let taken = members.iter().enumerate().filter(|(_, i)| self.servers[**i].is_taken);
        taken.max_by_key(|(rank, i)| (!self.servers[**i].is_up(), *rank)).map(|(_, i)| *i)
    }

    /// Asks a server that was not asked.
    fn begin_server(&mut self, turn: &mut Turn<'_>, i: usize) {
        let server = &mut self.servers[i];
        server.global.tries = 0;
        server.global.refused = 0;
        server.stand(turn, Standing::Expecting);
        let id = server.id;
        self.say_moved(turn, i);
        self.register(turn, id);
    }

    /// A server did not answer, or refused: the next takes its place at once.
    pub(super) fn lose_server(&mut self, turn: &mut Turn<'_>, i: usize) {
        let (name, server) = (self.name(), &mut self.servers[i]);
        server.is_taken = false;
        let (was_up, known, id) = (server.is_up(), server.known(), server.id);
        server.stand(turn, Standing::Expecting);
        server.link_local.request = None;
        turn.cancel(Timer::LinkLocal(name, id));
        turn.cancel(Timer::FallBack(name, id));
        if let Some(known) = known.filter(|_| was_up) {
            turn.event(Event::ServerDown { tunnel: name, nhs: known.protocol });
            turn.save();
        }
        self.elect(turn);
    }

    /// A server is not wanted: it forgets us, and is not asked any more.
    fn release_server(&mut self, turn: &mut Turn<'_>, i: usize) {
        self.leave_waiting(turn, i);
        self.servers[i].is_taken = false;
        self.servers[i].observed = None;
        self.unregister_from(turn, i, Which::Global);
        self.unregister_from(turn, i, Which::LinkLocal);
    }

    /// A server is not asked for now.
    fn leave_waiting(&mut self, turn: &mut Turn<'_>, i: usize) {
        let (name, server) = (self.name(), &mut self.servers[i]);
        for timer in timers_of(name, server.id) {
            turn.cancel(timer);
        }
        for which in [Which::Global, Which::LinkLocal] {
            let registration = server.registration(which);
            registration.request = None;
            registration.tries = 0;
        }
        let (was_up, known) = (server.is_up(), server.known());
        server.stand(turn, Standing::Waiting);
        if let Some(known) = known.filter(|_| was_up) {
            turn.event(Event::ServerDown { tunnel: name, nhs: known.protocol });
        }
    }
}
