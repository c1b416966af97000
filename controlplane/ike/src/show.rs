//! What the engine shows of itself, and what others ask it.

use std::net::{IpAddr, SocketAddr};

use model::ike::{EspSuite, Identity, IkeSuite};
use model::sa::{Protection, Spi};
use model::time::Instant;
use model::{NbmaAddr, TableId, WorkerId};
use wire::ike::NotifyType;

use crate::Reject;
use crate::engine::Engine;
use crate::keymat::{IkeKeys, Side};
use crate::sa::{Sa, Stage};

/// What an IKE SA expects, as an operator reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// We began, and there is no answer yet.
    Opening,
    /// There are keys, and nobody has proved who it is.
    Proving,
    /// It was refused, and goes soon.
    Refused,
    /// It is up.
    Established,
    /// It is being closed.
    Closing,
}

/// An IKE SA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IkeRow {
    /// Whom its ESP is for, or would be.
    pub peer: Protection,
    /// Where its messages come from and go to.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Who the peer proved to be.
    pub identity: Option<Identity>,
    /// How it did.
    pub by: Option<String>,
    /// The addresses that its certificate names.
    pub addresses: Vec<IpAddr>,
    /// We began it, or rekeyed it.
    pub is_initiator: bool,
    /// What it expects.
    pub state: State,
    /// What it is protected by.
    pub suite: Option<IkeSuite>,
    /// The SPI that we chose.
    pub our_spi: u64,
    /// The SPI that the peer chose; 0: none yet.
    pub their_spi: u64,
    /// We are behind a NAT.
    pub is_nat_here: bool,
    /// The peer is.
    pub is_nat_there: bool,
    /// When it was established.
    pub established: Option<Instant>,
    /// When it is to be rekeyed.
    pub rekey: Option<Instant>,
    /// When something authentic came from the peer.
    pub heard: Instant,
    /// Its children.
    pub children: Vec<ChildRow>,
}

/// A pair of child SAs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildRow {
    /// The SPI that we chose.
    pub inbound: Spi,
    /// The SPI that the peer chose.
    pub outbound: Spi,
    /// Whose they are.
    pub worker: WorkerId,
    /// What they are sealed with.
    pub suite: EspSuite,
    /// When they were made.
    pub made: Instant,
    /// When they are to be replaced.
    pub rekey: Instant,
    /// Packets leave by the outbound one.
    pub is_outbound: bool,
    /// Another pair has its place, or it is being closed.
    pub is_leaving: bool,
}

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

    /// Messages that were not accepted, by reason; all reasons, in their order.
    pub fn rejects(&self) -> impl Iterator<Item = (Reject, u64)> {
        Reject::ALL.into_iter().zip(self.rejects)
    }
}

/// Queries.
impl Engine {
    /// All IKE SAs, by peer.
    #[must_use]
    pub fn show(&self, now: Instant) -> Vec<IkeRow> {
        let _ = now;
        let mut rows: Vec<_> = self.sas.values().map(|sa| self.row(sa)).collect();
        rows.sort_by_key(|row| (row.peer, row.established, row.our_spi));
        rows
    }

    fn row(&self, sa: &Sa) -> IkeRow {
        let established = sa.established();
        let state = match &sa.stage {
            Stage::Opening(_) => State::Opening,
            Stage::Proving(_) => State::Proving,
            Stage::Refused(_) | Stage::Over => State::Refused,
            Stage::Established(established) if established.is_ending => State::Closing,
            Stage::Established(_) => State::Established,
        };
        let children = established.map_or(&[][..], |established| &established.children[..]);
        let outbound = self.peers.get(&sa.peer()).map_or(&[][..], |peer| &peer.outbound[..]);
        let children = children.iter().map(|child| ChildRow {
            inbound: child.inbound,
            outbound: child.outbound,
            worker: child.worker,
            suite: child.suite,
            made: child.at,
            rekey: child.rekey_at,
            is_outbound: outbound
                .iter()
                .any(|one| (one.worker, one.spi, one.sa) == (child.worker, child.outbound, sa.ours)),
            is_leaving: child.is_closing || child.successor.is_some(),
        });
        IkeRow {
            peer: sa.peer(),
            local: sa.path.local,
            remote: sa.path.remote,
            identity: established.map(|established| established.identity.clone()),
            by: established.map(|established| established.by.clone()),
            addresses: established.map(|established| established.addresses.clone()).unwrap_or_default(),
            is_initiator: sa.side == Side::Initiator,
            state,
            suite: sa.keys.as_ref().map(IkeKeys::suite),
            our_spi: sa.ours,
            their_spi: sa.theirs,
            is_nat_here: sa.nat.us,
            is_nat_there: sa.nat.them,
            established: established.map(|established| established.at),
            rekey: established.map(|established| established.rekey_at),
            heard: sa.heard,
            children: children.collect(),
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
