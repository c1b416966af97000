//! Registration requests that come to us (RFC 2332 §5.2.3, §5.2.4: the server's side). The client's side is in `nhs`.
//!
//! A binding is kept for as long as the client says; a second NBMA address for one that is unique is refused (14); clients get
//! multicast if the tunnel is told to give it to them.

use model::time::HoldingTime;
use model::{NbmaAddr, ProtocolAddr};
use wire::nhrp::{Body, Cie, CieCode, Extension, ExtensionType, Families, Flags, Kind, Message};

use crate::cache::{Entry, Origin, check_peer};
use crate::cloud::Cloud;
use crate::input::Peer;
use crate::limits::HOP_COUNT;
use crate::turn::Turn;
use crate::{Event, Reject, Sender};

/// What the server thinks of one entry of a registration request.
struct Verdict {
    code: CieCode,
    reject: Option<Reject>,
}

impl Verdict {
    const fn refused(code: CieCode, reject: Reject) -> Self {
        Self { code, reject: Some(reject) }
    }
}

/// The server.
impl Cloud {
    /// A registration request for us. It is answered where it came from.
    pub(crate) fn registration_request(
        &mut self,
        turn: &mut Turn<'_>,
        sender: &Sender,
        mut message: Message,
    ) -> Result<(), Reject> {
        let source = sender.nbma;
        let address = ProtocolAddr(message.source.ok_or(Reject::Address)?);
        let claimed = NbmaAddr(message.source_nbma.unwrap_or(source.0));
        let own = self.identity(address).ok_or(Reject::Unreachable)?;
        // A client that does not come from where it says is behind a NAT, and reached where it comes from. But what passed
        // another server comes from that.
        let passed = message.extension(ExtensionType::FORWARD_TRANSIT).is_some_and(|e| !e.value().is_empty());
        let observed = if passed { claimed } else { source };
        let Body::Exchange { kind, flags, entries, .. } = &mut message.body else {
            return Err(Reject::Malformed);
        };
        let flags = *flags;
        *kind = Kind::RegistrationReply;
        // RFC 2332 §5.2.3: with U there is one entry.
        if entries.is_empty() || (flags.has(Flags::UNIQUE) && entries.len() > 1) {
            return Err(Reject::Malformed);
        }
        let mut rejects = Vec::new();
        let families = message.families;
        for entry in entries.iter_mut() {
            let verdict = if entry.length(families).is_some() {
                // A prefix of addresses is more than one peer may claim.
                Verdict::refused(CieCode::ADMINISTRATIVELY_PROHIBITED, Reject::Prohibited)
            } else {
                let client = ProtocolAddr(entry.protocol.unwrap_or(address.0));
                let said = NbmaAddr(entry.nbma.unwrap_or(claimed.0));
                let nbma = if said == claimed { observed } else { said };
                let claimed = (said != nbma).then_some(said);
                let peer = Peer { nbma, port: if nbma == source { sender.port } else { None } };
                self.enroll(turn, client, peer, claimed, entry, flags.has(Flags::UNIQUE))
            };
            entry.code = verdict.code;
            if verdict.reject.is_some() {
                // RFC 2332 §5.2.0.1: 0 in a refusal.
                entry.holding_time = 0;
            }
            rejects.extend(verdict.reject);
        }
        message.hop_count = HOP_COUNT;
        fill_responder(&mut message, &self.own_entry(&own));
        if claimed != observed {
            self.add_observed(&mut message, observed, address);
        }
        // RFC 2332 §5.2.4: straight to the client.
        let to = if passed { observed.into() } else { sender.peer() };
        self.send(turn, to, message);
        for reject in rejects {
            turn.reject_from(self.name(), source, reject);
        }
        Ok(())
    }

    /// Takes one client, or says why not.
    fn enroll(
        &mut self,
        turn: &mut Turn<'_>,
        client: ProtocolAddr,
        peer: Peer,
        claimed: Option<NbmaAddr>,
        entry: &Cie,
        unique: bool,
    ) -> Verdict {
        let Peer { nbma, port } = peer;
        let prohibited = CieCode::ADMINISTRATIVELY_PROHIBITED;
        if entry.holding_time == 0 {
            return Verdict::refused(prohibited, Reject::Prohibited);
        }
        if let Err(reject) = check_peer(self, client, nbma) {
            return Verdict::refused(prohibited, reject);
        }
        if self.is_full(turn, client) {
            return Verdict::refused(CieCode::INSUFFICIENT_RESOURCES, Reject::NoRoom);
        }
        let old = self.cache.get(&client);
        match old {
            Some(old) if old.origin.is_configured() => {
                // The configuration says where it is; it may only agree.
                if old.nbma != nbma {
                    return Verdict::refused(prohibited, Reject::Prohibited);
                }
                self.replicate_to_configured(turn, client, true);
                return Verdict { code: CieCode::SUCCESS, reject: None };
            }
            Some(old) if old.origin == Origin::Dynamic && old.unique && old.nbma != nbma => {
                return Verdict::refused(CieCode::ALREADY_REGISTERED, Reject::AlreadyRegistered);
            }
            _ => {}
        }
        let refresh = old.is_some_and(|o| o.origin == Origin::Dynamic && o.nbma == nbma);
        let holding_time = HoldingTime(entry.holding_time);
        let registered = Entry {
            origin: Origin::Dynamic,
            nbma,
            port,
            claimed,
            unique,
            authoritative: true,
            implicit: false,
            replica: false,
            mtu: entry.mtu,
            created: turn.now,
            holding_time,
            expires: Some(turn.now + holding_time.duration()),
            last_used: None,
            identity: None,
        };
        self.install(turn, client, registered);
        turn.event(Event::Registered { tunnel: self.name(), client, nbma, refresh });
        Verdict { code: CieCode::SUCCESS, reject: None }
    }

    /// Tells a client behind a NAT what it looks like from here (Cisco's NAT extension, second entry).
    fn add_observed(&self, message: &mut Message, nbma: NbmaAddr, client: ProtocolAddr) {
        let families = message.families;
        let observed = self.seen_entry(families, nbma, client);
        if let Some(addresses) = message.extension_mut(ExtensionType::NAT) {
            // One entry more in a list of one has room.
            let _ = addresses.push(&observed, families);
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

/// Fills the responder extension of a reply, where its request asked for that (RFC 2332 §5.3.1).
pub(crate) fn fill_responder(message: &mut Message, own: &Cie) {
    let families = message.families;
    if let Some(responder) = message.extension_mut(ExtensionType::RESPONDER) {
        let mut filled = Extension::empty(ExtensionType::RESPONDER, responder.compulsory());
        // An empty extension has room for one entry.
        let _ = filled.push(own, families);
        *responder = filled;
    }
}
