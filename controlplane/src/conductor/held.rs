//! What is to be sent, and waits for steps that it follows: a packet for the tunnel that it goes through, an answer of IKE for the SA that it
//! promises, an NHRP packet for the SA that it goes by. Each waits for the number of those steps, and not for what was programmed since.

use std::net::SocketAddr;

use model::TableId;
use model::report::PacketOut;

use super::Output;

/// What waits at most; a resync takes milliseconds.
const MOST: usize = 8192;

/// A datagram of IKE: exactly its UDP payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// In the network namespace of this table.
    pub table: TableId,
    /// Our address and port, 500 or 4500.
    pub local: SocketAddr,
    /// The other's.
    pub remote: SocketAddr,
    /// The payload.
    pub bytes: Vec<u8>,
}

/// Something to be sent.
#[derive(Debug)]
pub(super) enum Sent {
    Packet(PacketOut),
    Datagram(Datagram),
}

impl From<Sent> for Output {
    fn from(sent: Sent) -> Self {
        match sent {
            Sent::Packet(packet) => Self::Send(packet),
            Sent::Datagram(datagram) => Self::Datagram(datagram),
        }
    }
}

/// What something that is to be sent follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follows {
    /// No step.
    Nothing,
    /// What this turn programs.
    Turn,
    /// The steps of that number.
    Steps(u64),
}

/// What waits, in order.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Until the steps of that number were taken.
    waiting: Vec<(u64, Sent)>,
    /// Of this turn, whose steps have no number yet.
    of_turn: Vec<(Follows, Sent)>,
}

impl Held {
    /// Leaves at the end of the turn, or when what it follows is taken. `false`: there is no room, the oldest is dropped.
    pub(super) fn push(&mut self, follows: Follows, sent: Sent) -> bool {
        self.of_turn.push((follows, sent));
        let has_room = self.waiting.len() + self.of_turn.len() <= MOST;
        if !has_room && !self.waiting.is_empty() {
            self.waiting.remove(0);
        } else if !has_room {
            self.of_turn.remove(0);
        }
        has_room
    }

    /// The turn ends with the steps of number `last`; nothing leaves before those of `all`, if there are any. What waits for nothing that
    /// is still to be taken, in order.
    pub(super) fn end_turn(&mut self, last: u64, all: Option<u64>, taken: u64) -> Vec<Sent> {
        let all = all.unwrap_or(0);
        let numbered = self.of_turn.drain(..).map(|(follows, sent)| match follows {
            Follows::Nothing => (all, sent),
            Follows::Turn => (last.max(all), sent),
            Follows::Steps(number) => (number.max(all), sent),
        });
        self.waiting.extend(numbered);
        if self.waiting.iter().all(|(until, _)| *until > taken) {
            return Vec::new();
        }
        self.waiting.extract_if(.., |(until, _)| *until <= taken).map(|(_, sent)| sent).collect()
    }

    /// Everything at once: there is no later.
    pub(super) fn all(&mut self) -> Vec<Sent> {
        let waiting = self.waiting.drain(..).map(|(_, sent)| sent);
        waiting.chain(self.of_turn.drain(..).map(|(_, sent)| sent)).collect()
    }

    /// There is nobody to take what it waits for. How many packets that were.
    pub(super) fn forget(&mut self) -> u64 {
        self.all().iter().filter(|sent| matches!(sent, Sent::Packet(_))).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(n: u8) -> Sent {
        Sent::Packet(PacketOut {
            tunnel: "tunnel0".parse().unwrap(),
            destination: "192.0.2.1".parse().unwrap(),
            port: 0,
            protocol_type: 0x2001,
            bytes: vec![n],
        })
    }

    fn names(sent: &[Sent]) -> Vec<u8> {
        let name = |sent: &Sent| match sent {
            Sent::Packet(packet) => packet.bytes[0],
            Sent::Datagram(datagram) => datagram.bytes[0],
        };
        sent.iter().map(name).collect()
    }

    #[test]
    fn what_follows_nothing_does_not_wait_for_what_others_follow() {
        let mut held = Held::default();
        held.push(Follows::Nothing, packet(1));
        held.push(Follows::Turn, packet(2));
        assert_eq!(names(&held.end_turn(7, None, 6)), [1]);
        // The next turn programs more, and that waits for that.
        held.push(Follows::Turn, packet(3));
        held.push(Follows::Nothing, packet(4));
        assert_eq!(names(&held.end_turn(8, None, 6)), [4]);
        assert_eq!(names(&held.end_turn(8, None, 7)), [2], "not for number 8");
        assert_eq!(names(&held.end_turn(8, None, 8)), [3]);
        held.push(Follows::Steps(9), packet(5));
        assert!(held.end_turn(11, None, 8).is_empty());
        assert_eq!(names(&held.end_turn(11, None, 9)), [5]);
    }

    #[test]
    fn nothing_leaves_before_the_tunnels_are_there() {
        let mut held = Held::default();
        held.push(Follows::Nothing, packet(1));
        assert!(held.end_turn(3, Some(3), 2).is_empty());
        held.push(Follows::Nothing, packet(2));
        assert_eq!(names(&held.end_turn(3, None, 3)), [1, 2]);
        held.push(Follows::Turn, packet(3));
        held.end_turn(4, None, 3);
        assert_eq!((held.forget(), held.all().len()), (1, 0));
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut held = Held::default();
        for n in 0..MOST {
            assert!(held.push(Follows::Turn, packet((n % 200) as u8)));
        }
        assert!(!held.push(Follows::Turn, packet(255)));
        let all = names(&held.all());
        assert_eq!((all.len(), all[0], all[MOST - 1]), (MOST, 1, 255));
    }
}
