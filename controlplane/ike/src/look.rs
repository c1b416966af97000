//! Time passed for an IKE SA.

use std::time::Duration;

use wire::ike::{KEEPALIVE, NAT_PORT};

use crate::child::Sealing;
use crate::engine::Engine;
use crate::limits::CHILDLESS;
use crate::sa::{Sa, Stage, Task};
use crate::turn::Turn;
use crate::want::Failure;

/// What was to be replaced and is not, is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(60);

impl Engine {
    pub(crate) fn look(&mut self, turn: &mut Turn<'_>, sa: &mut Sa) {
        self.retransmit(turn, sa);
        let now = turn.now;
        match &sa.stage {
            Stage::Proving(proving) if proving.until <= now => {
                if sa.is_half_open() {
                    self.leave_crowd(sa);
                    self.give_back_reserved(sa);
                    self.counts.abandoned += 1;
                    sa.stage = Stage::Over;
                } else {
                    self.give_up(turn, sa, Failure::Refused, "no answer");
                }
            }
            Stage::Refused(until) if *until <= now => {
                self.leave_crowd(sa);
                self.give_back_reserved(sa);
                sa.stage = Stage::Over;
            }
            Stage::Established(_) => {
                self.look_at_children(turn, sa);
                self.look_at_life(turn, sa);
            }
            _ => {}
        }
    }

    fn look_at_children(&mut self, turn: &mut Turn<'_>, sa: &mut Sa) {
        let now = turn.now;
        let Some(established) = sa.established_mut() else { return };
        let (mut sealing, mut tasks) = (Vec::new(), Vec::new());
        for child in &mut established.children {
            if matches!(&child.sealing, Sealing::Waiting(waiting) if waiting.until <= now) {
                sealing.push(child.inbound);
            }
            if child.is_closing {
                continue;
            }
            if child.close_at.is_some_and(|at| at <= now) {
                child.close_at = None;
                tasks.push(Task::Delete(child.inbound));
            } else if child.successor.is_none() && child.rekey_at <= now {
                child.rekey_at = now + TRY_AGAIN;
                // Of one that waits the peer may not know yet.
                if !matches!(child.sealing, Sealing::Waiting(_)) {
                    tasks.push(Task::Replace(child.inbound));
                }
            }
        }
        sealing.into_iter().for_each(|inbound| self.seal_by(turn, sa, inbound));
        let replacing = sa.replacing();
        let is_new = |task: &Task| !matches!(task, Task::Replace(spi) if replacing == Some(*spi));
        tasks.into_iter().filter(is_new).for_each(|task| sa.add(task));
    }

    fn look_at_life(&mut self, turn: &mut Turn<'_>, sa: &mut Sa) {
        let (now, peer, ike) = (turn.now, sa.peer(), &sa.profile.ike);
        let idle = Duration::from_secs(ike.idle.into());
        let keepalive = Duration::from_secs(ike.nat_keepalive.into());
        if sa.asking.pending.is_none() && sa.heard + sa.silence() <= now {
            // RFC 7296 §2.4
            sa.add(Task::Probe);
        }
        if sa.nat.us && !keepalive.is_zero() && sa.sent + keepalive <= now {
            sa.sent = now;
            if sa.path.local.port() == NAT_PORT {
                turn.send_bare(&sa.path, KEEPALIVE.to_vec());
            }
        }
        let is_rekeying = sa.is_rekeying();
        let Some(established) = sa.established_mut() else { return };
        if let Some(at) = established.close_at.filter(|at| *at <= now) {
            established.close_at = None;
            return self.look_at_end(turn, sa, at <= now);
        }
        if established.is_ending {
            return;
        }
        if established.rekey_at <= now {
            established.rekey_at = now + TRY_AGAIN;
            if !is_rekeying {
                sa.add(Task::Rekey);
            }
        }
        let Some(established) = sa.established_mut() else { return };
        let is_idle = !idle.is_zero() && established.used + idle <= now;
        let is_childless = established.childless.is_some_and(|since| since + CHILDLESS <= now);
        if !is_idle && !is_childless {
            return;
        }
        if is_idle {
            established.used = now;
        }
        if is_childless {
            established.childless = Some(now);
        }
        if self.is_server(&peer) {
            if is_childless && let Some(worker) = self.worker_for(sa) {
                sa.add(Task::Child(worker, false));
            }
        } else {
            self.end(turn, sa, if is_childless { "it has no child SA" } else { "idle" });
        }
    }

    /// The peer did not close what it ought to; or of two that were begun at once this is the one that goes.
    fn look_at_end(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, _is_due: bool) {
        let Some(established) = sa.established_mut() else { return };
        match established.yields_to.take() {
            None if established.is_ending => sa.add(Task::End),
            None => self.end(turn, sa, "another one is in its place"),
            Some(other) => {
                let Some(other) = self.sas.get(&other) else { return };
                if other.established().is_some_and(crate::sa::Established::is_carrying) {
                    let is_peers = other.side != sa.side;
                    let reason = if is_peers {
                        "the peer began at the same time"
                    } else {
                        "another one is in its place"
                    };
                    self.end(turn, sa, reason);
                }
            }
        }
    }
}
