//! Between which addresses an IKE SA talks, and what NATs are on the way (RFC 7296 §2.23).

use std::net::{IpAddr, SocketAddr};

use model::sa::{ProfileName, Protection};
use model::{NbmaAddr, TableId};
use wire::ike::{NAT_PORT, NotifyType, Payload};

use crate::Crypto;

/// Two ends of UDP datagrams, in a FIB table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Path {
    pub(crate) table: TableId,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

impl Path {
    /// The same on port 4500; a port of the peer that a NAT gave it stays (RFC 7296 §2.23).
    pub(crate) fn floated(mut self) -> Self {
        if self.local.port() != NAT_PORT {
            self.local.set_port(NAT_PORT);
            self.remote.set_port(NAT_PORT);
        }
        self
    }

    /// Whose ESP goes this way.
    pub(crate) fn protection(&self, profile: ProfileName, nat: Nat) -> Protection {
        Protection {
            profile,
            table: self.table,
            local: NbmaAddr(self.local.ip()),
            remote: NbmaAddr(self.remote.ip()),
            port: if nat.is_any() { self.remote.port() } else { 0 },
        }
    }

    /// Bytes of an IKE message that make an IP packet of `size` bytes at most.
    pub(crate) fn message_len(&self, size: u16) -> usize {
        let ip = if self.remote.is_ipv4() { 20 } else { 40 };
        let marker = if self.local.port() == NAT_PORT { 4 } else { 0 };
        usize::from(size).saturating_sub(ip + 8 + marker).max(256)
    }
}

/// What was found out of NATs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Nat {
    /// We are behind one: it has to be kept open.
    pub(crate) us: bool,
    /// The peer is behind one: its place may change.
    pub(crate) them: bool,
}

impl Nat {
    /// ESP is in UDP.
    pub(crate) fn is_any(self) -> bool {
        self.us || self.them
    }

    /// What the peer's NAT_DETECTION notifications say. Without any it does not do ESP in UDP, and there is none.
    pub(crate) fn detect(crypto: &dyn Crypto, spis: (u64, u64), path: &Path, payloads: &[Payload]) -> Self {
        let hashes = |wanted: NotifyType| {
            payloads.iter().filter_map(move |payload| match payload {
                Payload::Notify { kind, data, .. } if *kind == wanted => Some(data),
                _ => None,
            })
        };
        let differs = |wanted, end: SocketAddr| {
            let expected = place(crypto, spis, end);
            let mut all = hashes(wanted).peekable();
            all.peek().is_some() && all.all(|hash| hash[..] != expected)
        };
        Self {
            us: differs(NotifyType::NAT_DETECTION_DESTINATION_IP, path.local),
            them: differs(NotifyType::NAT_DETECTION_SOURCE_IP, path.remote),
        }
    }

    /// Our NAT_DETECTION notifications.
    pub(crate) fn notifications(crypto: &dyn Crypto, spis: (u64, u64), path: &Path) -> [Payload; 2] {
        let says = |kind, end| notify(kind, place(crypto, spis, end).to_vec());
        [
            says(NotifyType::NAT_DETECTION_SOURCE_IP, path.local),
            says(NotifyType::NAT_DETECTION_DESTINATION_IP, path.remote),
        ]
    }
}

/// `SHA-1(SPIs | IP | Port)`.
fn place(crypto: &dyn Crypto, (initiator, responder): (u64, u64), end: SocketAddr) -> [u8; 20] {
    let spis = [initiator.to_be_bytes(), responder.to_be_bytes()].concat();
    let port = end.port().to_be_bytes();
    match end.ip() {
        IpAddr::V4(v4) => crypto.sha1(&[&spis, &v4.octets(), &port]),
        IpAddr::V6(v6) => crypto.sha1(&[&spis, &v6.octets(), &port]),
    }
}

/// A notification that speaks of no SA but this one.
pub(crate) fn notify(kind: NotifyType, data: Vec<u8>) -> Payload {
    Payload::Notify { protocol: 0, spi: Vec::new(), kind, data }
}
