//! Redirects (draft-detienne-dmvpn): a hub that forwards a packet out by the cloud that it came from tells the sender, with a
//! traffic indication, that there is a better way; a spoke that is told so asks for that way.

use std::net::IpAddr;
use std::time::Duration;

use model::time::Instant;
use model::{Prefix, ProtocolAddr};
use wire::nhrp::{Body, Message};

use crate::cloud::Cloud;
use crate::input::Peer;
use crate::limits::{INDICATION_HOP_COUNT, REDIRECT_AGAIN, REDIRECT_AGAIN_LONGEST, REDIRECT_MEMORY, backoff};
use crate::overlap::overlapping;
use crate::turn::Turn;
use crate::{Event, Reject, To};

/// A flow that was redirected.
#[derive(Debug)]
pub(crate) struct Redirected {
    at: Instant,
    times: u32,
}

impl Redirected {
    /// Whether the next redirect counts as the first.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now.since(self.at) >= REDIRECT_MEMORY
    }

    fn pause(&self) -> Duration {
        backoff(REDIRECT_AGAIN, self.times.saturating_sub(1), REDIRECT_AGAIN_LONGEST)
    }
}

/// Source and destination of an IP packet, of which the first octets are there.
pub(crate) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let address = |from: usize, len: usize| -> Option<IpAddr> {
        let bytes = packet.get(from..from + len)?;
        match len {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        }
    };
    match packet.first()? >> 4 {
        4 => Some((address(12, 4)?, address(16, 4)?)),
        6 => Some((address(8, 16)?, address(24, 16)?)),
        _ => None,
    }
}

/// Whether a packet stays on its link by its addresses: it has no better way.
fn is_of_one_link(from: IpAddr, to: IpAddr) -> bool {
    ProtocolAddr(from).is_link_local() || ProtocolAddr(to).is_link_local() || to.is_multicast()
}

/// The hub.
impl Cloud {
    /// The data plane forwarded a packet out by the cloud that it came from. `better` is the peer that the routes lead to.
    pub(crate) fn redirect(
        &mut self,
        turn: &mut Turn<'_>,
        source: Peer,
        (from, to): (IpAddr, IpAddr),
        packet: &[u8],
        better: Option<Peer>,
    ) -> Result<(), Reject> {
        if !self.tunnel.nhrp.redirect {
            return Err(Reject::Prohibited);
        }
        if is_of_one_link(from, to) {
            return Err(Reject::Address);
        }
        let own = self.identity(ProtocolAddr(from)).ok_or(Reject::Unreachable)?;
        // Nothing is better than where it came from; and of a way that is not there, nobody is told.
        if better.is_none_or(|peer| peer == source) {
            return Err(Reject::Unreachable);
        }
        self.pace(turn, (source, from, to))?;
        let message = Message {
            families: own.families,
            hop_count: INDICATION_HOP_COUNT,
            source_nbma: Some(own.nbma.0),
            source: Some(own.protocol.0),
            destination: Some(from),
            body: Body::Traffic { code: 0, packet: packet.to_vec() },
            // End alone, if there is no authentication: with it the length is such that FRR's checksum agrees with ours.
            extensions: Some(Vec::new()),
        };
        self.send(turn, source, message);
        turn.event(Event::RedirectSent {
            tunnel: self.name(),
            to: source.nbma,
            destination: ProtocolAddr(to),
        });
        Ok(())
    }

    /// One redirect for a flow at once, the next after 1, 2, 4 .. s of more packets.
    fn pace(&mut self, turn: &mut Turn<'_>, flow: (Peer, IpAddr, IpAddr)) -> Result<(), Reject> {
        let now = turn.now;
        let limits = turn.common.limits;
        let times = match self.redirected.get(&flow) {
            Some(r) if r.is_over(now) => 0,
            Some(r) if now.since(r.at) < r.pause() => return Err(Reject::Redirected),
            Some(r) => r.times,
            None => 0,
        };
        if !turn.common.redirects.take(now, limits.redirects_per_second) {
            return Err(Reject::RateLimited);
        }
        if self.redirected.len() >= limits.redirects {
            // Whichever it is: it may be redirected once more than it ought to be.
            self.redirected.pop_first();
        }
        self.redirected.insert(flow, Redirected { at: now, times: times + 1 });
        Ok(())
    }
}

/// The spoke.
impl Cloud {
    /// A traffic indication. Only the packet that it carries counts: peers differ in what they put into its header.
    pub(crate) fn traffic_indication(&mut self, turn: &mut Turn<'_>, packet: &[u8]) -> Result<(), Reject> {
        let (from, to) = addresses(packet).ok_or(Reject::Malformed)?;
        if !self.tunnel.nhrp.shortcut || !self.is_multipoint() {
            return Err(Reject::Prohibited);
        }
        if is_of_one_link(from, to) {
            return Err(Reject::Address);
        }
        // RFC 2332 §6.4, draft §4: only where the flow enters the cloud may it be asked for.
        let route = turn.routes.lookup(self.tunnel.table, ProtocolAddr(from));
        match route.map(|r| r.to) {
            Some(To::Local | To::Elsewhere(_)) => {}
            Some(To::Tunnel(_)) => return Err(Reject::Intermediate),
            Some(To::Nowhere) | None => return Err(Reject::Unreachable),
        }
        let destination = ProtocolAddr(to);
        let (hop, _) = self.route_by_tunnel(turn, destination).ok_or(Reject::Unreachable)?;
        turn.event(Event::RedirectReceived { tunnel: self.name(), destination });
        // By way of a server, the way to the destination is wanted; where the routes name the peer, the peer.
        let wanted = if self.is_server(hop) { destination } else { hop };
        // On its way while the shortcut or binding was made.
        let is_served = self.binding(wanted).is_some()
            || !overlapping(&self.shortcuts, Prefix::host(wanted.0), |p| *p).is_empty();
        if !is_served {
            self.ask(turn, wanted);
        }
        Ok(())
    }
}
