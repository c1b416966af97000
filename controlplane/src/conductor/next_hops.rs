//! The NHRP engine: what it is told, and what becomes of what it wants.

use model::program::{Binding, Hop, Key, Object, Owner, Path, Replica, Route};
use model::report::PacketOut;
use model::time::Instant;
use model::{InterfaceName, NbmaAddr};
use nhrp::Action;

use super::held::{Follows, Sent};
use super::{Conductor, Output, event};
use crate::lookup::LookUp;
use crate::rib::{Link, Origin, Target};

/// GRE protocol type of NHRP (dmvpn: RFC 2332 over RFC 2784).
const NHRP_PROTOCOL: u16 = 0x2001;

impl Conductor {
    /// Gives an engine its input and does what it wants.
    pub(super) fn engine(&mut self, now: Instant, input: nhrp::Input, out: &mut Vec<Output>) {
        let mut actions = Vec::new();
        if self.keeps_journal {
            let line = nhrp::journal::handle(&mut self.engine, now, input, &self.rib, &mut actions);
            out.push(Output::Journal(Box::new(line)));
        } else {
            self.engine.handle(now, input, &self.rib, &mut actions);
        }
        for action in actions {
            match action {
                Action::Send { tunnel, to, port, bytes } => {
                    let port = self.topology.port(tunnel, to, port.unwrap_or(0));
                    self.send(now, tunnel, (to, port), bytes);
                }
                Action::Put(object) => self.install(now, object, out),
                Action::Remove(key) => {
                    self.parked.remove(&key);
                    if let Some(programmed) = self.unported(key) {
                        self.uninstall(programmed);
                    }
                }
                Action::Save => out.push(Output::Save),
                Action::LookUp { tunnel, name } => {
                    let netns =
                        self.topology.underlays.get(&tunnel).and_then(|table| self.config.netns(*table));
                    out.push(Output::LookUp(LookUp { tunnel, name, netns }));
                }
                Action::Event(event) => out.push(Output::Event(event::happening(event))),
            }
        }
    }

    /// Packets leave at the end of the turn, behind what it programs; on a tunnel whose SAs IKE makes, when there is one.
    fn send(
        &mut self,
        now: Instant,
        tunnel: InterfaceName,
        (destination, port): (NbmaAddr, u16),
        bytes: Vec<u8>,
    ) {
        if !self.is_programmed() {
            self.counted.unsent += 1;
            return;
        }
        let packet = PacketOut { tunnel, destination, port, protocol_type: NHRP_PROTOCOL, bytes };
        match self.topology.domains.get(&tunnel).copied() {
            Some(domain) => self.send_protected(now, domain, packet),
            None => self.hold(Follows::Nothing, packet),
        }
    }

    /// Sends a packet at the end of the turn, or when what it follows is taken.
    pub(super) fn hold(&mut self, follows: Follows, packet: PacketOut) {
        if !self.held.push(follows, Sent::Packet(packet)) {
            self.counted.unsent += 1;
        }
    }

    /// NHRP wants an object. The one peer of a point-to-point tunnel is ours to program, not NHRP's.
    pub(super) fn install(&mut self, now: Instant, mut object: Object, out: &mut Vec<Output>) {
        let key = object.key();
        let link = tunnel_of(&object).and_then(|t| self.topology.links.get(&t).copied());
        match (link, &mut object) {
            (None, _) => {
                self.parked.insert(key, (object, now));
                return;
            }
            (Some(Link::PointToPoint), Object::Binding(_) | Object::Replica(_) | Object::Fallback(_)) => {
                return;
            }
            (_, Object::Route(Route { table, prefix, path, .. })) if matches!(path, Path::Attached(_)) => {
                // A peer: static next hops resolve by it, and the box itself reaches it. It is its own next hop.
                self.peers.set((*table, *prefix), Some(path));
                let hops = path.interfaces().map(|interface| Hop { interface, next_hop: prefix.addr() });
                if let Some(own) = Path::to(hops) {
                    *path = own;
                }
                self.rib.set(Origin::Peer, *table, *prefix, Some(Target::Path(path.clone())));
                self.desired.put(now, Owner::Nhrp, object);
                return;
            }
            (Some(Link::PointToPoint), Object::Route(route)) => {
                if let Path::Via(hop) = &route.path {
                    route.path = Path::Attached(hop.interface);
                }
            }
            _ => {}
        }
        object = self.ported(object);
        if let Object::Route(route) = &object {
            let target = Target::Path(route.path.clone());
            self.rib.set(Origin::Shortcut, route.table, route.prefix, Some(target));
        }
        if let Some(hop) = self.place(Owner::Nhrp, &mut object) {
            self.want(now, hop, out);
        }
        if let Object::Binding(Binding { tunnel, nbma, port, .. })
        | Object::Replica(Replica { tunnel, nbma, port, .. }) = &object
        {
            self.want_peer(*tunnel, *nbma, *port);
        }
        self.desired.put(now, Owner::Nhrp, object);
    }

    pub(super) fn uninstall(&mut self, key: Key) {
        if let Key::Route(table, prefix) = key {
            self.rib.set(Origin::Shortcut, table, prefix, None);
            self.rib.set(Origin::Peer, table, prefix, None);
            self.peers.set((table, prefix), None);
        }
        self.unplace(Owner::Nhrp, key);
        self.desired.remove(Owner::Nhrp, key);
    }
}

/// The tunnel that an object of NHRP is on.
pub(super) fn tunnel_of(object: &Object) -> Option<InterfaceName> {
    match object {
        Object::Binding(binding) => Some(binding.tunnel),
        Object::Replica(replica) => Some(replica.tunnel),
        Object::Fallback(fallback) => Some(fallback.tunnel),
        Object::Route(Route { path: Path::Via(hop), .. }) => Some(hop.interface),
        Object::Route(Route { path: Path::Attached(interface) | Path::Receive(interface), .. }) => {
            Some(*interface)
        }
        _ => None,
    }
}
