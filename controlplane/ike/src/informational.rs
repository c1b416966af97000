//! INFORMATIONAL, both sides (RFC 7296 §1.4): deletes, and whether somebody lives.

use std::time::Duration;

use model::sa::Spi;
use wire::ike::{Exchange, NotifyType, Payload, Protocol};

use crate::Reject;
use crate::child::says;
use crate::create::{child_mut, is_asked};
use crate::engine::Engine;
use crate::programmed::Ending;
use crate::receive::Opened;
use crate::sa::{Asked, Sa, Task};
use crate::turn::Turn;

/// A child that is missing is asked for after this: what is on its way may bring one.
const TRY_AGAIN: Duration = Duration::from_secs(1);

fn delete(spis: &[Spi]) -> Payload {
    let spis = spis.iter().map(|spi| spi.value().to_be_bytes().to_vec()).collect();
    Payload::Delete { protocol: Protocol::ESP.0, spis }
}

impl Engine {
    /// Asks the peer to close a child, by our inbound SPI (RFC 7296 §1.4.1).
    pub(crate) fn ask_delete(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, inbound: Spi) {
        if let Some(child) = child_mut(sa, inbound) {
            child.is_closing = true;
        }
        self.ask(turn, sa, Exchange::INFORMATIONAL, &[delete(&[inbound])], Asked::Delete(vec![inbound]));
    }

    pub(crate) fn delete_answer(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        children: &[Spi],
    ) -> Result<(), Reject> {
        for inbound in children {
            if child_mut(sa, *inbound).is_some() {
                self.drop_child(turn, sa, *inbound, true, "replaced");
            } else if !self.inbounds.contains_key(inbound) {
                self.give_back(*inbound);
            }
        }
        self.without_child(sa, false);
        Ok(())
    }

    pub(crate) fn informational_request(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        opened: &Opened,
    ) -> Result<(), Reject> {
        let (payloads, path) = (&opened.payloads, &opened.path);
        let ends = payloads.iter().any(
            |payload| matches!(payload, Payload::Delete { protocol, .. } if *protocol == Protocol::IKE.0),
        );
        let is_unbelieved = says(payloads, NotifyType::AUTHENTICATION_FAILED);
        if ends || is_unbelieved {
            // RFC 7296 §2.25.2: whatever we are about to do with it.
            self.answer(turn, sa, path, Exchange::INFORMATIONAL, &[]);
            let mut reason = "peer closed it";
            if is_unbelieved {
                reason = "peer did not believe who we are (AUTHENTICATION_FAILED)";
                let identity = sa.established().map(|established| established.identity.clone());
                self.failed(turn, Some(sa), path.remote, identity, reason);
            }
            self.finish(turn, sa, Ending::Told, reason);
            return Ok(());
        }
        let deleted: Vec<_> = payloads
            .iter()
            .filter_map(|payload| match payload {
                Payload::Delete { protocol, spis } if *protocol == Protocol::ESP.0 => Some(spis),
                _ => None,
            })
            .flatten()
            .collect();
        let mut gone = Vec::new();
        for spi in deleted {
            let children = sa.established().map_or(&[][..], |established| &established.children[..]);
            let child = children.iter().find(|child| child.outbound.value().to_be_bytes()[..] == spi[..]);
            let Some(inbound) = child.map(|child| child.inbound) else { continue };
            // RFC 7296 §1.4.1: where both close it at once, each says nothing of it in its answer.
            if !is_asked(sa, inbound) {
                gone.push(inbound);
                self.drop_child(turn, sa, inbound, true, "peer closed it");
            }
        }
        self.seal_all(turn, sa);
        let answer = if gone.is_empty() { Vec::new() } else { vec![delete(&gone)] };
        self.answer(turn, sa, path, Exchange::INFORMATIONAL, &answer);
        self.without_child(sa, false);
        Ok(())
    }

    /// Whatever happened: a peer that has a child with us, and to whom nothing can leave, gets another one.
    pub(crate) fn ensure_child(&mut self, turn: &Turn<'_>, sa: &mut Sa) {
        let Some(established) = sa.established() else { return };
        let is_meant = established.children.iter().any(|child| !child.is_closing);
        if !is_meant || established.is_ending || established.yields_to.is_some() || established.is_carrying()
        {
            return;
        }
        let making = |task: &Task| matches!(task, Task::Child(..) | Task::Replace(_));
        let is_making = matches!(sa.asking.pending.as_deref().map(|p| &p.asked), Some(Asked::Child(_)));
        let is_up = self.peers.get(&established.peer).is_some_and(|peer| !peer.outbound.is_empty());
        if is_making || is_up || sa.asking.tasks.iter().any(making) {
            return;
        }
        if let Some(worker) = self.worker_for(sa) {
            sa.add(Task::Child(worker, false));
            sa.asking.hold_until = sa.asking.hold_until.max(turn.now + TRY_AGAIN);
        }
    }

    /// The last child may be gone: with a server, and who is wanted, there is to be one.
    pub(crate) fn without_child(&mut self, sa: &mut Sa, is_wanted: bool) {
        let Some(established) = sa.established() else { return };
        let is_making = matches!(sa.asking.pending.as_deref().map(|p| &p.asked), Some(Asked::Child(_)));
        if established.is_ending || is_making || established.is_carrying() {
            return;
        }
        if (is_wanted || self.is_server(&established.peer))
            && let Some(worker) = self.worker_for(sa)
        {
            sa.add(Task::Child(worker, false));
        }
    }
}
