//! Nodes behind a NAT, and the NAT extension (Cisco's, number 9): entries that say where a node is seen, by its protocol address.
//!
//! What is known, and how:
//! - A server sees where a client's registration comes from. Where that is not what the client says, it is behind a NAT; the server keeps
//!   both addresses (`Entry::nbma` the one that is seen, `Entry::claimed` the other one), and tells the client (`registration`, `nhs`).
//! - A client that was told says so of itself in the extension of its requests and answers.
//! - For a client that does not, whatever the reason, its server says it when it passes the message on: for the source of a resolution
//!   request, and for those that a resolution reply names. Nothing that is said already is touched.
//!
//! What is believed (docs/decisions/0009-nat.md):
//! 1. A node behind a NAT is learnt only from a message that came straight from where it is seen: its NAT has let something out to us, and
//!    lets what we send in. What came by the server, as every request does, proves nothing of the way. So of a request of such a one
//!    nothing is learnt, and an answer that names such a one and came by the server is not taken; the request is repeated, and the answer
//!    comes straight, at the latest when the other side has learnt us from our first request (FRR sends its first answer by the server).
//! 2. To a requester behind a NAT whom nothing straight has come from, an answer goes the way back that the request came: nothing else
//!    gets in. Then it sends to us, and that opens its NAT. If we are behind a NAT ourselves, too, the answer goes straight all the same:
//!    it opens our side, and it must prove the way when it arrives.
//! 3. Two that are seen at one address have no straight way: nobody relies on a NAT to send back what it got from inside. Who is asked by
//!    such a one refuses.
//! 4. Where messages are encapsulated in UDP, a port other than 4500 says that the NAT gives ports (PAT): nobody from outside can begin.
//!    The server of two such clients refuses at once.
//!
//! Whatever is refused or not answered, traffic stays on the hub, and is asked for ever more seldom (`resolution`).

use std::net::IpAddr;

use model::{InterfaceName, NbmaAddr, ProtocolAddr};
use wire::nhrp::{Body, Cie, Extension, ExtensionType, Families, Kind, Message};

use crate::cache::Origin;
use crate::cloud::Cloud;
use crate::engine::Engine;
use crate::input::Peer;
use crate::receive::Came;

/// UDP port of encapsulated packets that no NAT has given another one (RFC 3948).
const NAT_T: u16 = 4500;

/// Entries that a server adds to one message on behalf of its clients.
const SAID_FOR: usize = 4;

/// Where a node is seen that is behind a NAT: the NAT extension's entry for it.
pub(crate) fn nat_address(message: &Message, of: ProtocolAddr) -> Option<NbmaAddr> {
    let entries = message.extension(ExtensionType::NAT)?.entries(message.families).ok()?;
    entries.iter().find(|e| e.protocol == Some(of.0))?.nbma.map(NbmaAddr)
}

/// Who made a request: where it is seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requester {
    pub(crate) nbma: NbmaAddr,
    /// What it says itself, where that differs.
    pub(crate) claimed: Option<NbmaAddr>,
}

impl Requester {
    /// By the message alone.
    pub(crate) fn of(message: &Message, client: ProtocolAddr, came: Peer) -> Self {
        let said = message.source_nbma.map(NbmaAddr);
        let nbma = nat_address(message, client).or(said).unwrap_or(came.nbma);
        Self { nbma, claimed: said.filter(|said| *said != nbma) }
    }

    /// Whether what is said of it may be believed of a message that came from there.
    pub(crate) fn is_proven(&self, came: Peer) -> bool {
        self.claimed.is_none() || came.nbma == self.nbma
    }
}

impl Peer {
    /// Whether it is behind a NAT that gives ports.
    pub(crate) fn is_behind_pat(self) -> bool {
        self.port.is_some_and(|port| port != NAT_T)
    }
}

impl Engine {
    /// Whether a message came from a client behind a PAT and goes to one.
    pub(crate) fn is_pat_to_pat(&self, came: Came<'_>, out: InterfaceName, to: Peer) -> bool {
        out == came.tunnel && came.source().is_behind_pat() && to.is_behind_pat()
    }
}

impl Cloud {
    /// Says in a resolution message that is passed on where those of our clients are seen that are behind a NAT and named in it.
    pub(crate) fn say_where_clients_are(&self, message: &mut Message) {
        let (families, said) = (message.families, message.source_nbma);
        let Body::Exchange { kind, entries, .. } = &message.body else { return };
        let named: Vec<(Option<IpAddr>, Option<IpAddr>)> = match kind {
            Kind::ResolutionRequest => vec![(message.source, said)],
            Kind::ResolutionReply => {
                let destination = message.destination;
                entries.iter().take(SAID_FOR).map(|e| (e.protocol.or(destination), e.nbma)).collect()
            }
            _ => return,
        };
        for (protocol, said) in named {
            let Some(client) = protocol.map(ProtocolAddr) else { continue };
            let known = self.cache.get(&client).filter(|e| e.origin == Origin::Dynamic);
            // It says what it says of itself to us: so nobody has said the other yet.
            let known = known.filter(|e| e.claimed.is_some_and(|claimed| Some(claimed.0) == said));
            if let Some(known) = known
                && nat_address(message, client).is_none()
            {
                self.say_where(message, families, known.nbma, client);
            }
        }
    }

    /// Appends to the NAT extension of a message where a node is seen. One that is not there, or is something else, stays so.
    pub(crate) fn say_where(
        &self,
        message: &mut Message,
        families: Families,
        nbma: NbmaAddr,
        node: ProtocolAddr,
    ) {
        let entry = self.seen_entry(families, nbma, node);
        let extension = message.extension_mut(ExtensionType::NAT);
        if let Some(addresses) = extension.filter(|e| e.entries(families).is_ok()) {
            // What has no room there is too long for every way.
            let _ = addresses.push(&entry, families);
        }
    }

    /// Where a node is seen, as an entry of the NAT extension.
    pub(crate) fn seen_entry(&self, families: Families, nbma: NbmaAddr, node: ProtocolAddr) -> Cie {
        Cie {
            prefix: families.protocol.bits(),
            mtu: self.tunnel.mtu,
            nbma: Some(nbma.0),
            protocol: Some(node.0),
            ..Cie::default()
        }
    }
}

/// An extension to be filled by who answers, if the message has none yet.
pub(crate) fn make_room(message: &mut Message) {
    if message.extension(ExtensionType::NAT).is_none() {
        message.extensions.get_or_insert_default().push(Extension::empty(ExtensionType::NAT, false));
    }
}
