//! A peer behind a NAT is at another place (RFC 7296 §2.23): we follow it after an authentic message or ESP packet.
//!
//! The outbound SA stays as it is programmed, for the old place, until a new child is made: its key cannot be put once more for another place,
//! where it would count its packets from 1 again.

use std::net::SocketAddr;

use model::sa::Spi;

use crate::Event;
use crate::engine::Engine;
use crate::limits::MOVE_AGAIN;
use crate::path::Path;
use crate::sa::{Sa, Stage, Task};
use crate::turn::Turn;

impl Engine {
    /// An authentic message came by this way.
    pub(crate) fn follow(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, path: &Path, is_answer: bool) {
        let is_here = (path.table, path.local.ip()) == (sa.path.table, sa.path.local.ip());
        if *path == sa.path || !is_here {
            return;
        }
        match &sa.stage {
            // The initiator goes on from port 4500 (RFC 7296 §2.23), and a NAT may give it any port.
            Stage::Proving(_) if !is_answer && (sa.nat.them || path.remote.ip() == sa.path.remote.ip()) => {
                sa.path = *path;
            }
            Stage::Established(_) if sa.nat.them && path.remote != sa.path.remote => {
                self.moved(turn, sa, path.remote);
            }
            _ => {}
        }
    }

    /// The newest authentic ESP packet of an inbound SA came from there.
    pub(crate) fn moved_by_esp(&mut self, turn: &mut Turn<'_>, spi: Spi, remote: SocketAddr) {
        let Some(ours) = self.inbounds.get(&spi).filter(|inbound| !inbound.lingers).map(|one| one.sa) else {
            return;
        };
        self.with(turn, ours, |engine, turn, sa| {
            if sa.nat.them && sa.path.remote != remote && sa.path.remote.is_ipv4() == remote.is_ipv4() {
                engine.moved(turn, sa, remote);
            }
        });
    }

    fn moved(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, remote: SocketAddr) {
        let (now, ours) = (turn.now, sa.ours);
        let path = Path { remote, ..sa.path };
        let peer = path.protection(sa.profile.name, sa.nat);
        let Some(established) = sa.established_mut() else { return };
        if established.is_ending || now.since(established.moved_at) < MOVE_AGAIN {
            return;
        }
        established.moved_at = now;
        let was = std::mem::replace(&mut established.peer, peer);
        // Its outbound SAs are where they were put; back there, nothing is to be done.
        let put_at = established.moved_from.take().unwrap_or(was);
        established.moved_from = Some(put_at).filter(|put_at| *put_at != peer);
        let inbound: Vec<_> = established.children.iter().map(|child| child.inbound).collect();
        let live = established.children.iter().filter(|child| child.is_live());
        let tasks: Vec<_> = live.map(|child| Task::Replace(child.inbound)).collect();
        sa.path = path;
        if let Some(old) = self.peers.get_mut(&was) {
            old.sas.retain(|other| *other != ours);
            old.inbound.retain(|spi| !inbound.contains(spi));
        }
        let new = self.peers.entry(peer).or_default();
        new.sas.push(ours);
        new.inbound.extend(&inbound);
        for spi in &inbound {
            if let Some(inbound) = self.inbounds.get_mut(spi) {
                inbound.peer = peer;
            }
        }
        let replacing = sa.replacing();
        let is_new = |task: &Task| !matches!(task, Task::Replace(spi) if replacing == Some(*spi));
        tasks.into_iter().filter(is_new).for_each(|task| sa.add(task));
        turn.event(Event::Moved { peer, was });
    }
}
