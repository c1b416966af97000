//! Servers that are known by a DNS name. The shell looks it up; what it has is tried in its order, the next one when one stays silent. It is
//! looked up again when its server is silent, and before every further attempt.

use model::NbmaAddr;

use crate::Event;
use crate::cache::is_host;
use crate::cloud::Cloud;
use crate::limits::{ADDRESSES_OF_A_NAME, LOOK_UP_PATIENCE};
use crate::turn::{Timer, Turn};

use super::{Server, Standing};

impl Cloud {
    /// Has a server's name looked up, if it has one, and if that is not being done.
    pub(super) fn look_up(&mut self, turn: &mut Turn<'_>, i: usize) {
        let Some(name) = self.servers[i].dns_name().map(ToOwned::to_owned) else { return };
        let began = self.look_ups.get(&name);
        if began.is_some_and(|began| turn.now.since(*began) < LOOK_UP_PATIENCE) {
            return;
        }
        self.look_ups.insert(name.clone(), turn.now);
        turn.look_up(self.name(), name);
    }

    /// A name was looked up.
    pub(crate) fn looked_up(&mut self, turn: &mut Turn<'_>, name: &str, addresses: Vec<NbmaAddr>) {
        self.look_ups.remove(name);
        let Some(own) = self.tunnel.nbma else { return };
        let mut usable: Vec<_> = addresses
            .into_iter()
            .filter(|a| a.0.is_ipv4() == own.0.is_ipv4() && is_host(a.0) && *a != own)
            .collect();
        usable.truncate(ADDRESSES_OF_A_NAME);
        for i in 0..self.servers.len() {
            let server = &mut self.servers[i];
            if server.dns_name() != Some(name) {
                continue;
            }
            if usable.is_empty() {
                // What is known stays. Who has nothing makes room.
                if server.nbma.is_none() && server.is_taken && server.standing == Standing::Expecting {
                    self.lose_server(turn, i);
                }
                continue;
            }
            server.addresses.clone_from(&usable);
            server.accepted_at = server.accepted_at.filter(|known| usable.contains(&known.nbma));
            if server.nbma.is_none_or(|nbma| !usable.contains(&nbma)) {
                self.move_server(turn, i, usable[0]);
            }
        }
        self.elect(turn);
    }

    /// A server is elsewhere than it was, or than was known: it is registered with there.
    fn move_server(&mut self, turn: &mut Turn<'_>, i: usize, nbma: NbmaAddr) {
        let (name, server) = (self.name(), &mut self.servers[i]);
        ask_at(server, nbma);
        server.global.tries = 0;
        if server.standing == Standing::Waiting {
            return;
        }
        let (was_up, known, id) = (server.is_up(), server.known(), server.id);
        server.stand(turn, Standing::Expecting);
        turn.cancel(Timer::LinkLocal(name, id));
        if let Some(known) = known.filter(|_| was_up) {
            turn.event(Event::ServerDown { tunnel: name, nhs: known.protocol });
        }
        self.register(turn, id);
    }

    /// The next address of a server's name is tried.
    pub(super) fn try_next_address(&mut self, turn: &mut Turn<'_>, i: usize) {
        let server = &mut self.servers[i];
        let at = server.addresses.iter().position(|a| Some(*a) == server.nbma);
        let next = at.map_or(0, |at| (at + 1) % server.addresses.len());
        if let Some(next) = server.addresses.get(next).copied()
            && Some(next) != server.nbma
        {
            ask_at(server, next);
            self.bind_servers(turn);
        }
    }
}

/// From now on it is asked there: by another request, as it may be another node.
fn ask_at(server: &mut Server, nbma: NbmaAddr) {
    server.nbma = Some(nbma);
    server.global.request = None;
    server.link_local.request = None;
}
