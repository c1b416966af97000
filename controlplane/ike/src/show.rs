//! What the engine shows of itself, and what others ask it.

use std::net::IpAddr;

use model::ike::Identity;
use model::sa::{Protection, Spi};
use model::state::ike::{self, IkeSa, IkeState, Role};
use model::time::Instant;
use model::{NbmaAddr, TableId};
use wire::ike::NotifyType;

use crate::Reject;
use crate::child::Child;
use crate::engine::Engine;
use crate::keymat::{IkeKeys, Side};
use crate::sa::{Sa, Stage};
use crate::want::Wanted;

/// What was done, since the engine began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// IKE messages that came and can be read.
    pub received: u64,
    /// Attempts of ours.
    pub begun: u64,
    /// IKE SAs that were established, without those that were rekeyed.
    pub established: u64,
    /// IKE SAs that were rekeyed.
    pub rekeyed: u64,
    /// Failures, those that no event told of as well.
    pub failures: u64,
    /// Requests of ours that were sent again.
    pub retransmitted: u64,
    /// Answers of ours that were sent again.
    pub repeated: u64,
    /// Cookies that were sent.
    pub cookies: u64,
    /// Those who began and never proved anything.
    pub abandoned: u64,
    rejects: [u64; Reject::ALL.len()],
}

impl Counts {
    pub(crate) fn reject(&mut self, reject: Reject) {
        if let Some(at) = Reject::ALL.iter().position(|other| *other == reject) {
            self.rejects[at] += 1;
        }
    }
}

/// Queries.
impl Engine {
    /// All IKE SAs by peer, and who is wanted and has none.
    #[must_use]
    pub fn sas(&self, now: Instant) -> Vec<IkeSa> {
        let mut rows: Vec<_> = self.sas.values().map(|sa| self.row(now, sa)).collect();
        let waiting =
            self.wants.iter().filter(|(peer, wanted)| wanted.is_waiting() && !self.is_protected(peer));
        rows.extend(waiting.map(|(peer, wanted)| self.waiting_row(now, *peer, wanted)));
        rows.sort_by_key(|row| {
            (row.protection, std::cmp::Reverse(row.age), row.spi_initiator, row.spi_responder)
        });
        rows
    }

    fn row(&self, now: Instant, sa: &Sa) -> IkeSa {
        let established = sa.established();
        let peer = sa.peer();
        let state = match &sa.stage {
            Stage::Opening(_) => IkeState::Connecting,
            Stage::Proving(_) => IkeState::Authenticating,
            Stage::Refused(_) | Stage::Over => IkeState::Closing,
            Stage::Established(established) if established.is_ending => IkeState::Closing,
            Stage::Established(_) if sa.is_rekeying() => IkeState::Rekeying,
            Stage::Established(_) => IkeState::Up,
        };
        let children = established.map_or(&[][..], |established| &established.children[..]);
        let (spi_initiator, spi_responder) = sa.spis();
        let wanted = self.wants.get(&sa.wanted_as.unwrap_or(peer));
        IkeSa {
            protection: peer,
            identity: established.map(|established| established.identity.clone()),
            proof: established.map(|established| established.by.clone()),
            addresses: established.map(|established| established.addresses.clone()).unwrap_or_default(),
            role: if sa.side == Side::Initiator { Role::Initiator } else { Role::Responder },
            state,
            suite: sa.keys.as_ref().map(IkeKeys::suite),
            spi_initiator,
            spi_responder,
            age: now.since(established.map_or(sa.begun, |established| established.at)),
            rekey_in: established
                .filter(|established| !established.is_ending)
                .map(|established| established.rekey_at.since(now)),
            heard: sa.keys.is_some().then(|| now.since(sa.heard)),
            nat_here: sa.nat.us,
            nat_there: sa.nat.them,
            server: self.is_server(&peer),
            retransmissions: sa.asking.pending.as_ref().map_or(0, |pending| pending.times.saturating_sub(1)),
            failure: wanted.filter(|_| established.is_none()).and_then(|wanted| wanted.failure.clone()),
            children: children.iter().map(|child| shown(now, child)).collect(),
        }
    }

    fn waiting_row(&self, now: Instant, peer: Protection, wanted: &Wanted) -> IkeSa {
        IkeSa {
            protection: peer,
            identity: None,
            proof: None,
            addresses: Vec::new(),
            role: Role::Initiator,
            state: IkeState::Waiting,
            suite: None,
            spi_initiator: 0,
            spi_responder: 0,
            age: now.since(wanted.since),
            rekey_in: wanted.next_attempt().map(|at| at.since(now)),
            heard: None,
            nat_here: false,
            nat_there: false,
            server: self.is_server(&peer),
            retransmissions: 0,
            failure: wanted.failure.clone(),
            children: Vec::new(),
        }
    }

    /// Who sends by an inbound SA of ours: whose it is, who that proved to be, and the addresses that its certificate names. Of an SA
    /// of a former life nobody knows that.
    #[must_use]
    pub fn peer_of(&self, spi: Spi) -> Option<(&Protection, &Identity, &[IpAddr])> {
        let inbound = self.inbounds.get(&spi)?;
        let of_sa = self.sas.get(&inbound.sa).and_then(|sa| sa.established());
        if let Some(established) = of_sa {
            return Some((&inbound.peer, &established.identity, &established.addresses));
        }
        let (identity, addresses) = self.peers.get(&inbound.peer)?.told.as_ref()?;
        Some((&inbound.peer, identity, addresses))
    }

    /// The one protected peer at that address, if it is one.
    #[must_use]
    pub fn protection_towards(
        &self,
        profile: model::sa::ProfileName,
        table: TableId,
        local: NbmaAddr,
        remote: NbmaAddr,
    ) -> Option<Protection> {
        let first = Protection { profile, table, local, remote, port: 0 };
        let last = Protection { port: u16::MAX, ..first };
        let mut up = self.peers.range(first..=last).filter(|(_, programmed)| !programmed.outbound.is_empty());
        let (one, _) = up.next()?;
        up.next().is_none().then_some(*one)
    }

    /// Whether packets to this peer can leave.
    #[must_use]
    pub fn is_up(&self, peer: &Protection) -> bool {
        self.peers.get(peer).is_some_and(|programmed| !programmed.outbound.is_empty())
    }

    /// Messages that were not accepted, by reason; all reasons, in their order.
    pub fn rejects(&self) -> impl Iterator<Item = (Reject, u64)> {
        Reject::ALL.into_iter().zip(self.counts.rejects)
    }

    /// Counters.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// IKE SAs of any state, those that have not proved who they are among them, and inbound SAs that are programmed.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.sas.len(), self.crowd.len() as usize, self.inbounds.len())
    }
}

fn shown(now: Instant, child: &Child) -> ike::Child {
    let stays = !child.is_closing && child.successor.is_none();
    ike::Child {
        inbound: child.inbound,
        outbound: child.outbound,
        suite: child.suite,
        worker: child.worker,
        age: now.since(child.at),
        rekey_in: stays.then(|| child.rekey_at.since(now)),
    }
}

/// The name of an error, as the registry has it.
pub(crate) fn notify_name(kind: NotifyType) -> String {
    let name = match kind {
        NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD => "UNSUPPORTED_CRITICAL_PAYLOAD",
        NotifyType::INVALID_IKE_SPI => "INVALID_IKE_SPI",
        NotifyType::INVALID_MAJOR_VERSION => "INVALID_MAJOR_VERSION",
        NotifyType::INVALID_SYNTAX => "INVALID_SYNTAX",
        NotifyType::INVALID_MESSAGE_ID => "INVALID_MESSAGE_ID",
        NotifyType::INVALID_SPI => "INVALID_SPI",
        NotifyType::NO_PROPOSAL_CHOSEN => "NO_PROPOSAL_CHOSEN",
        NotifyType::INVALID_KE_PAYLOAD => "INVALID_KE_PAYLOAD",
        NotifyType::AUTHENTICATION_FAILED => "AUTHENTICATION_FAILED",
        NotifyType::SINGLE_PAIR_REQUIRED => "SINGLE_PAIR_REQUIRED",
        NotifyType::NO_ADDITIONAL_SAS => "NO_ADDITIONAL_SAS",
        NotifyType::INTERNAL_ADDRESS_FAILURE => "INTERNAL_ADDRESS_FAILURE",
        NotifyType::FAILED_CP_REQUIRED => "FAILED_CP_REQUIRED",
        NotifyType::TS_UNACCEPTABLE => "TS_UNACCEPTABLE",
        NotifyType::INVALID_SELECTORS => "INVALID_SELECTORS",
        NotifyType::TEMPORARY_FAILURE => "TEMPORARY_FAILURE",
        NotifyType::CHILD_SA_NOT_FOUND => "CHILD_SA_NOT_FOUND",
        NotifyType::TS_MAX_QUEUE => "TS_MAX_QUEUE",
        NotifyType(number) => return format!("error {number}"),
    };
    name.to_owned()
}
