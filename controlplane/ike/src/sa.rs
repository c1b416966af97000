//! An IKE SA: what is known of it, by what it expects next.
//!
//! ```text
//!   we begin:       Opening ──IKE_SA_INIT──▶ Proving ──[IKE_INTERMEDIATE]──IKE_AUTH──▶ Established ──▶ gone
//!                      │ cookie, other group: again          │ not believed                  │ rekeyed: another
//!                      ▼                                     ▼                               ▼ takes its children
//!                    gone: a rest, then again             gone                            Established
//!   the peer does:  ────────IKE_SA_INIT──▶ Proving ──[IKE_INTERMEDIATE]──IKE_AUTH──▶ Established
//!                                             │ not believed: Refused, gone soon
//! ```

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use model::WorkerId;
use model::ike::{EspSuite, Group, Identity};
use model::sa::{Protection, Spi};
use model::time::Instant;
use wire::ike::{Exchange, Payload};

use crate::Profile;
use crate::auth::Hashes;
use crate::child::Child;
use crate::crypto::Begun;
use crate::fragment::Fragments;
use crate::keymat::{IkeKeys, Side};
use crate::limits::TASKS;
use crate::path::{Nat, Path};

/// One IKE SA.
#[derive(Debug)]
pub(crate) struct Sa {
    /// The SPI that we chose: its key in the engine.
    pub(crate) ours: u64,
    /// The SPI that the peer chose; 0 before it did.
    pub(crate) theirs: u64,
    /// Whether we began it, or its rekeying: flag I of what we send.
    pub(crate) side: Side,
    pub(crate) path: Path,
    /// The way its first message came, or went.
    pub(crate) first: Path,
    pub(crate) nat: Nat,
    pub(crate) profile: Arc<Profile>,
    /// From IKE_SA_INIT on.
    pub(crate) keys: Option<IkeKeys>,
    pub(crate) stage: Stage,
    pub(crate) asking: Asking,
    pub(crate) answering: Answering,
    /// The peer takes messages in fragments (RFC 7383 §2.3).
    pub(crate) takes_fragments: bool,
    /// When its first message came or went.
    pub(crate) begun: Instant,
    /// When something authentic came from the peer, IKE or ESP.
    pub(crate) heard: Instant,
    /// When something went to the peer.
    pub(crate) sent: Instant,
    /// What was wanted, as it was said.
    pub(crate) wanted_as: Option<Protection>,
}

/// What it expects, and what it needs for that.
#[derive(Debug)]
pub(crate) enum Stage {
    /// An answer to our IKE_SA_INIT.
    Opening(Box<Opening>),
    /// As initiator the answer to IKE_INTERMEDIATE or IKE_AUTH, as responder the request.
    Proving(Box<Proving>),
    /// Nothing: it answers the one request that it refused again until then.
    Refused(Instant),
    /// Anything that peers say to each other.
    Established(Box<Established>),
    /// Nothing; it goes now.
    Over,
}

/// We asked for an IKE SA.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) begun: Begun,
    pub(crate) nonce: Vec<u8>,
    /// Our message, as it was sent last.
    pub(crate) request: Vec<u8>,
    pub(crate) cookie: Option<Vec<u8>>,
    pub(crate) restarts: u8,
    /// An error that came in the clear: it counts if nothing better comes.
    pub(crate) refusal: Option<String>,
}

/// Keys are there, and nobody knows with whom.
#[derive(Debug)]
pub(crate) struct Proving {
    /// The IKE_SA_INIT messages.
    pub(crate) request: Vec<u8>,
    pub(crate) response: Vec<u8>,
    pub(crate) initiator_nonce: Vec<u8>,
    pub(crate) responder_nonce: Vec<u8>,
    /// Hash algorithms of signatures that the peer takes (RFC 7427 §4).
    pub(crate) hashes: Hashes,
    /// The key exchange that is still to be done in IKE_INTERMEDIATE (RFC 9370 §2.2.2).
    pub(crate) additional: Option<Group>,
    /// Ours of it, as initiator.
    pub(crate) begun: Option<Begun>,
    /// What IKE_INTERMEDIATE messages of both sides, initiator's first, add to what is proved (RFC 9242 §3.3.2).
    pub(crate) intermediate: Option<(Vec<u8>, Vec<u8>)>,
    /// The keys before: what comes again of IKE_INTERMEDIATE is encrypted with them.
    pub(crate) before: Option<IkeKeys>,
    /// Our inbound SPI and its worker, as initiator.
    pub(crate) child: Option<(Spi, WorkerId)>,
    /// When this has come to nothing.
    pub(crate) until: Instant,
}

/// The peer is who it says it is.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) peer: Protection,
    pub(crate) identity: Identity,
    pub(crate) addresses: Vec<IpAddr>,
    /// How it proved that, in words.
    pub(crate) by: String,
    /// Nonce of the initiator of its first exchange: which of two that were begun at once stays.
    pub(crate) nonce: Vec<u8>,
    pub(crate) children: Vec<Child>,
    pub(crate) at: Instant,
    pub(crate) rekey_at: Instant,
    /// When ESP of this peer came or went.
    pub(crate) used: Instant,
    /// Since when there is no child, if there is none.
    pub(crate) childless: Option<Instant>,
    /// We began to close it, or want to.
    pub(crate) is_ending: bool,
    /// Another took its place: this is closed then, if it is not before. Of two that were begun at once only if that one lives (`yields_to`).
    pub(crate) close_at: Option<Instant>,
    pub(crate) yields_to: Option<u64>,
    /// The peer rekeyed it while we do: the new one, and the lower nonce of that exchange (RFC 7296 §2.8.2).
    pub(crate) rival: Option<(u64, Vec<u8>)>,
    /// It is such a rival, of this one.
    pub(crate) rival_of: Option<u64>,
    /// Where its outbound SAs are still programmed: the peer moved.
    pub(crate) moved_from: Option<Protection>,
    pub(crate) moved_at: Instant,
    /// When the peer was last asked whether it lives because of something unauthentic.
    pub(crate) probed: Instant,
    /// The peer takes no further children (NO_ADDITIONAL_SAS, TS_MAX_QUEUE).
    pub(crate) is_full: bool,
}

/// Our requests: one at a time (RFC 7296 §2.3).
#[derive(Debug, Default)]
pub(crate) struct Asking {
    /// Message id of the next one.
    pub(crate) next: u32,
    pub(crate) pending: Option<Box<Pending>>,
    /// What is to be asked then, in order.
    pub(crate) tasks: Vec<Task>,
    /// No new SAs are asked for before this.
    pub(crate) hold_until: Instant,
    /// What came of the answer, if in fragments.
    pub(crate) fragments: Option<Box<Fragments>>,
}

/// A request without answer.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) id: u32,
    pub(crate) exchange: Exchange,
    /// It, as it was sent: one message, or its fragments.
    pub(crate) messages: Vec<Vec<u8>>,
    /// How often it was sent.
    pub(crate) times: u32,
    /// When it is sent again, or the peer is dead.
    pub(crate) due: Instant,
    pub(crate) asked: Asked,
}

/// What was asked.
#[derive(Debug)]
pub(crate) enum Asked {
    /// What its stage says: IKE_SA_INIT, IKE_INTERMEDIATE, IKE_AUTH.
    Stage,
    /// A new child, or one in another's place.
    Child(Box<AskedChild>),
    /// A new IKE SA in this one's place.
    Rekey(Box<AskedRekey>),
    /// A further key exchange of that (RFC 9370 §2.2.4).
    Followup(Box<AskedFollowup>),
    /// That these children be closed: our inbound SPIs.
    Delete(Vec<Spi>),
    /// That this IKE SA be closed.
    End,
    /// Whether it lives.
    Probe,
    /// Nothing: the peer is told that we do not believe it, and this IKE SA goes.
    Complaint,
}

/// Our half of a new child.
#[derive(Debug)]
pub(crate) struct AskedChild {
    pub(crate) inbound: Spi,
    pub(crate) worker: WorkerId,
    pub(crate) nonce: Vec<u8>,
    pub(crate) begun: Option<Begun>,
    /// What was offered.
    pub(crate) offered: Vec<EspSuite>,
    /// Our inbound SPI of the one whose place it takes.
    pub(crate) replaces: Option<Spi>,
    /// It is one more, of a worker (RFC 9611).
    pub(crate) is_additional: bool,
    pub(crate) restarts: u8,
    /// The peer replaced the same one while we do: the new one, and the lower nonce of that exchange (RFC 7296 §2.8.1).
    pub(crate) rival: Option<(Spi, Vec<u8>)>,
}

/// Our half of a rekeyed IKE SA.
#[derive(Debug)]
pub(crate) struct AskedRekey {
    pub(crate) ours: u64,
    pub(crate) nonce: Vec<u8>,
    pub(crate) begun: Begun,
    pub(crate) restarts: u8,
}

/// A rekeyed IKE SA that lacks a further key exchange.
#[derive(Debug)]
pub(crate) struct AskedFollowup {
    pub(crate) draft: crate::rekey::Draft,
    pub(crate) begun: Begun,
}

/// Something to be asked when nothing else is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// One more child of this worker; `true`: for this worker alone (RFC 9611).
    Child(WorkerId, bool),
    /// One in the place of the child with this inbound SPI.
    Replace(Spi),
    /// That child is to be closed.
    Delete(Spi),
    /// A new IKE SA in this one's place.
    Rekey,
    /// This IKE SA is to be closed.
    End,
    /// Whether it lives.
    Probe,
}

/// The peer's requests.
#[derive(Debug, Default)]
pub(crate) struct Answering {
    /// Message id of the next one.
    pub(crate) next: u32,
    /// The answer to the last one, as it was sent.
    pub(crate) last: Vec<Vec<u8>>,
    pub(crate) fragments: Option<Box<Fragments>>,
    /// The answer to IKE_FOLLOWUP_KE completes this one.
    pub(crate) draft: Option<Box<crate::rekey::Awaited>>,
}

impl Sa {
    /// The peer's side.
    pub(crate) fn their_side(&self) -> Side {
        match self.side {
            Side::Initiator => Side::Responder,
            Side::Responder => Side::Initiator,
        }
    }

    /// SPI of the initiator and of the responder.
    pub(crate) fn spis(&self) -> (u64, u64) {
        match self.side {
            Side::Initiator => (self.ours, self.theirs),
            Side::Responder => (self.theirs, self.ours),
        }
    }

    pub(crate) fn established(&self) -> Option<&Established> {
        match &self.stage {
            Stage::Established(established) => Some(established),
            _ => None,
        }
    }

    pub(crate) fn established_mut(&mut self) -> Option<&mut Established> {
        match &mut self.stage {
            Stage::Established(established) => Some(established),
            _ => None,
        }
    }

    /// Whom its ESP is for.
    pub(crate) fn peer(&self) -> Protection {
        match &self.stage {
            Stage::Established(established) => established.peer,
            _ => self.path.protection(self.profile.name, self.nat),
        }
    }

    /// Whether it counts as half-open: the peer began, and did not prove anything.
    pub(crate) fn is_half_open(&self) -> bool {
        self.side == Side::Responder && matches!(self.stage, Stage::Proving(_) | Stage::Refused(_))
    }

    /// It only answers its last request again.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.stage, Stage::Refused(_))
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Puts something on the list of what is to be asked, once.
    pub(crate) fn add(&mut self, task: Task) {
        let tasks = &mut self.asking.tasks;
        if !tasks.contains(&task) && tasks.len() < TASKS {
            tasks.push(task);
        }
    }

    /// Whether we are rekeying this IKE SA.
    pub(crate) fn is_rekeying(&self) -> bool {
        let asked = self.asking.pending.as_ref().map(|pending| &pending.asked);
        matches!(asked, Some(Asked::Rekey(_) | Asked::Followup(_)))
    }

    /// The inbound SPI that was set aside for a child that is on its way.
    pub(crate) fn reserved(&self) -> Option<Spi> {
        match (&self.stage, self.asking.pending.as_deref().map(|pending| &pending.asked)) {
            (Stage::Proving(proving), _) => proving.child.map(|(spi, _)| spi),
            (_, Some(Asked::Child(child))) => Some(child.inbound),
            _ => None,
        }
    }

    /// The child that we are about to replace: its inbound SPI.
    pub(crate) fn replacing(&self) -> Option<Spi> {
        match &self.asking.pending.as_ref()?.asked {
            Asked::Child(child) => child.replaces,
            _ => None,
        }
    }

    /// Largest message in bytes that is not fragmented, if the peer takes fragments.
    pub(crate) fn largest(&self) -> Option<usize> {
        self.takes_fragments.then(|| self.path.message_len(self.profile.ike.fragment_size))
    }

    /// A peer that was not heard of for so long is asked whether it lives. The responder waits a little longer: the question of one is an
    /// answer to that of the other.
    pub(crate) fn silence(&self) -> Duration {
        let silence = Duration::from_secs(self.profile.ike.dead_peer_detection.max(1).into());
        if self.side == Side::Initiator { silence } else { silence + silence / 8 }
    }

    /// When it is to be looked at next.
    pub(crate) fn due(&self) -> Option<Instant> {
        let mut due = self.asking.pending.as_ref().map(|pending| pending.due);
        let mut at = |other: Instant| due = Some(due.map_or(other, |due| due.min(other)));
        match &self.stage {
            Stage::Opening(_) => {}
            Stage::Proving(proving) => at(proving.until),
            Stage::Refused(until) => at(*until),
            Stage::Over => {}
            Stage::Established(established) => {
                let ike = &self.profile.ike;
                if self.asking.pending.is_none() {
                    at(self.heard + self.silence());
                    if !self.asking.tasks.is_empty() {
                        at(self.asking.hold_until);
                    }
                }
                if !established.is_ending {
                    established.childless.iter().for_each(|since| at(*since + crate::limits::CHILDLESS));
                    at(established.rekey_at);
                    if ike.idle > 0 {
                        at(established.used + Duration::from_secs(ike.idle.into()));
                    }
                }
                if self.nat.us && ike.nat_keepalive > 0 {
                    at(self.sent + Duration::from_secs(ike.nat_keepalive.into()));
                }
                established.close_at.into_iter().for_each(&mut at);
                established.children.iter().filter_map(Child::due).for_each(&mut at);
            }
        }
        due
    }
}

/// The first payload of a message that `wanted` takes.
pub(crate) fn find<'a, T>(
    payloads: &'a [Payload],
    wanted: impl Fn(&'a Payload) -> Option<T> + 'a,
) -> Option<T> {
    payloads.iter().find_map(wanted)
}
