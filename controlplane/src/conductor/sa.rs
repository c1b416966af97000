//! Security associations of static keys: what the configuration wants of them, leased and programmed; what the data plane says of them;
//! and the UDP ports of peers.

use std::collections::BTreeMap;

use model::program::{Binding, Key, Object, Op, Owner, Replica};
use model::sa::{Direction, Protection, Reached, Spi};
use model::state::Sas;
use model::state::event::Happening;
use model::state::sa::Sa;
use model::time::Instant;
use model::{Instance, InterfaceName, NbmaAddr, WorkerId};

use super::lease::{Leases, Moved, Refusal, Sealer, Step};
use super::topology::Topology;
use super::{Conductor, Dataplane, Output, Recorded};

impl Conductor {
    /// What was on disk of leases when this life began. Said before anything else.
    pub fn resume_leases(&mut self, recorded: Recorded) {
        self.leases = Leases::new(recorded);
    }

    /// The data plane is there: the one of before, which goes on where it was, or another one, which starts behind that.
    pub(super) fn greet_sas(
        &mut self,
        now: Instant,
        instance: Instance,
        workers: u16,
        out: &mut Vec<Output>,
    ) {
        self.workers = workers;
        self.are_sas_old = true;
        if self.leased_to.replace(instance) != Some(instance) {
            let steps = self.leases.forget();
            self.take_steps(now, steps, out);
            self.reached.clear();
        }
    }

    /// Asks for leases of what is wanted, and has them recorded. Not before a data plane is there: who seals is known then.
    pub(super) fn follow_sas(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.are_sas_old && self.dataplane != Dataplane::Away {
            self.are_sas_old = false;
            let mut steps = Vec::new();
            self.leases.want(now, &self.topology.sealers, self.workers, &mut steps);
            self.take_steps(now, steps, out);
        }
        if let Some((number, recorded)) = self.leases.record(now) {
            out.push(Output::Record { number, recorded });
        }
    }

    pub(super) fn take_steps(&mut self, now: Instant, steps: Vec<Step>, out: &mut Vec<Output>) {
        for step in steps {
            match step {
                Step::Put(sa) => self.desired.put(now, Owner::Config, Object::OutboundSa(sa)),
                Step::Remove(key) => self.desired.remove(Owner::Config, key),
                Step::Refuse(protection, spi, refusal) => {
                    let reason = refusal.to_string();
                    out.push(Output::Event(Happening::SaRefused { protection, spi, reason }));
                }
            }
        }
    }

    pub(super) fn recorded(&mut self, now: Instant, number: u64, out: &mut Vec<Output>) {
        let mut steps = Vec::new();
        if self.leases.recorded(number, &mut steps) {
            // The state names the keys that are in use.
            out.push(Output::Save);
        }
        self.unrecorded_for = None;
        self.take_steps(now, steps, out);
    }

    pub(super) fn unrecorded(&mut self, now: Instant, number: u64, reason: String, out: &mut Vec<Output>) {
        self.leases.unrecorded(now, number);
        if self.unrecorded_for.as_ref() != Some(&reason) {
            self.unrecorded_for = Some(reason.clone());
            out.push(Output::Event(Happening::LeasesUnrecorded { reason }));
        }
    }

    pub(super) fn lease_low(
        &mut self,
        now: Instant,
        (protection, worker): (Protection, WorkerId),
        spi: Spi,
        next: u64,
        out: &mut Vec<Output>,
    ) {
        let mut steps = Vec::new();
        self.leases.low(now, Key::OutboundSa(protection, worker), spi, next, &mut steps);
        self.take_steps(now, steps, out);
    }

    /// Once for each lifetime, however often the data plane says it.
    pub(super) fn lifetime_reached(
        &mut self,
        (protection, spi, direction): (Protection, Spi, Direction),
        reached: Reached,
        out: &mut Vec<Output>,
    ) {
        if self.reached.insert((protection, spi, direction), reached) != Some(reached) {
            out.push(Output::Event(Happening::SaLifetime { protection, spi, direction, reached }));
        }
    }

    /// A peer behind a NAT is somewhere else: its SAs go with it, and what goes to its address by the port that is configured. NHRP hears of
    /// it by the next message of the peer.
    pub(super) fn peer_moved(&mut self, spi: Spi, nbma: NbmaAddr, port: u16, out: &mut Vec<Output>) {
        let Some(was) = self.topology.inbound(spi).map(|sa| sa.protection) else { return };
        let is_encapsulated = was.port != 0 && port != 0 && was.remote.0.is_ipv4() == nbma.0.is_ipv4();
        let now = Protection { remote: nbma, port, ..was };
        let is_taken = self.topology.sealers.iter().any(|sealer| sealer.protection == now);
        if !is_encapsulated || is_taken {
            return;
        }
        let from = self.moved.get(&spi).map_or((was.remote, was.port), |moved| moved.from);
        self.moved.insert(spi, Moved { from, to: (nbma, port) });
        self.is_topology_old = true;
        let (from, from_port) = (was.remote, was.port);
        out.push(Output::Event(Happening::SaMoved { protection: now, spi, from, from_port }));
    }

    /// SAs that the data plane has not been given, and why.
    pub(super) fn show_sas(&self) -> Sas {
        let row = |(key, sealer, refusal): (Key, &Sealer, Refusal)| {
            let Key::OutboundSa(protection, worker) = key else { return None };
            Some(Sa {
                direction: Direction::Outbound,
                spi: sealer.spi,
                protection,
                mode: sealer.mode,
                suite: sealer.key.suite(),
                esn: sealer.esn,
                worker,
                packets: 0,
                bytes: 0,
                sequence: 0,
                leased: None,
                replayed: 0,
                bad_icv: 0,
                reached: None,
                refused: Some(refusal.to_string()),
                age: None,
                rekey_in: None,
            })
        };
        Sas(self.leases.refused().filter_map(row).collect())
    }

    /// An object of NHRP as it is programmed: to the port of its peer.
    pub(super) fn ported(&mut self, mut object: Object) -> Object {
        let said = object.clone();
        let (Object::Binding(Binding { tunnel, nbma, port, .. })
        | Object::Replica(Replica { tunnel, nbma, port, .. })) = &mut object
        else {
            return object;
        };
        let heard = std::mem::replace(port, self.topology.port(*tunnel, *nbma, *port));
        if heard != 0 || self.topology.is_protected(*tunnel) {
            self.said.insert(said.key(), said);
        } else {
            self.said.remove(&said.key());
        }
        object
    }

    /// What NHRP calls by this key is not wanted any more: the key by which it is programmed; `None` if something else is, too.
    pub(super) fn unported(&mut self, key: Key) -> Option<Key> {
        self.said.remove(&key);
        let programmed = self.topology.programmed(key);
        (said_of(&self.said, &self.topology, programmed).next().is_none()).then_some(programmed)
    }
    /// As NHRP said an object that is programmed.
    pub(super) fn as_said(&self, topology: &Topology, mut programmed: Object) -> Object {
        let said = said_of(&self.said, topology, programmed.key()).next();
        match (&mut programmed, said) {
            (Object::Binding(binding), Some(Object::Binding(said))) => binding.port = said.port,
            (Object::Replica(replica), Some(Object::Replica(said))) => replica.port = said.port,
            _ => {}
        }
        programmed
    }

    /// Ports of peers, or whether tunnels are protected, changed: what NHRP has there is programmed to those.
    pub(super) fn follow_ports(&mut self, now: Instant, old: &Topology, out: &mut Vec<Output>) {
        let is_same = |tunnel: InterfaceName| {
            old.is_protected(tunnel) == self.topology.is_protected(tunnel)
                && old.ports_of(tunnel).eq(self.topology.ports_of(tunnel))
        };
        let of_nhrp = self.desired.of(Owner::Nhrp).map(|(key, _)| key);
        let changed: Vec<Key> = of_nhrp
            .filter(|key| matches!(key, Key::Binding(tunnel, _) | Key::Replica(tunnel, _, _) if !is_same(*tunnel)))
            .collect();
        for key in changed {
            let Op::Put(_, object) = self.desired.step(now, Owner::Nhrp, key) else { continue };
            let said = self.as_said(old, object);
            self.uninstall(key);
            self.install(now, said, out);
        }
    }
}

/// What NHRP said, that is programmed by this key.
fn said_of<'a>(
    said: &'a BTreeMap<Key, Object>,
    topology: &'a Topology,
    programmed: Key,
) -> impl Iterator<Item = &'a Object> {
    let range = match programmed {
        Key::Replica(tunnel, nbma, _) => Key::Replica(tunnel, nbma, 0)..=Key::Replica(tunnel, nbma, u16::MAX),
        key => key..=key,
    };
    said.range(range)
        .filter(move |(key, _)| topology.programmed(**key) == programmed)
        .map(|(_, object)| object)
}
