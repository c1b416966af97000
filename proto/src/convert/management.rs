//! `model::config` as far as it travels, and what is cleared.

use model::config::check::Fault;
use model::config::diff::Change;

use super::kind::{inners, maybe_text, text};
use super::{Malformed, message, needed, up};
use crate::{Apply, Clear, pb};

message!(Change => Change { path: same, before: same, after: same, });
message!(Fault => Fault { path: same, problem: same, });
message!(Apply => ApplyRequest { text: same, dry_run: same, });

impl From<Result<Vec<Change>, Fault>> for pb::ApplyReply {
    fn from(outcome: Result<Vec<Change>, Fault>) -> Self {
        use pb::apply_reply::Result as Pb;
        let result = match outcome {
            Ok(changes) => Pb::Applied(pb::Applied { changes: inners::down(changes) }),
            Err(fault) => Pb::Fault(fault.into()),
        };
        Self { result: Some(result) }
    }
}

impl pb::ApplyReply {
    /// The changes, or the fault. (`TryFrom` cannot be written for a `Result`.)
    pub(crate) fn outcome(self) -> Result<Result<Vec<Change>, Fault>, Malformed> {
        use pb::apply_reply::Result as Pb;
        Ok(match needed(self.result, "result")? {
            Pb::Applied(applied) => Ok(inners::up(applied.changes, "applied.changes")?),
            Pb::Fault(fault) => Err(up(fault, "fault")?),
        })
    }
}

impl From<Clear> for pb::ClearRequest {
    fn from(clear: Clear) -> Self {
        use pb::clear_request::What as Pb;
        let what = match clear {
            Clear::Nhrp { tunnel, address } => Pb::Nhrp(pb::ClearNhrp {
                tunnel: maybe_text::down(tunnel),
                address: maybe_text::down(address),
            }),
            Clear::Ike { peer } => Pb::Ike(pb::ClearIke { peer: text::down(peer) }),
        };
        Self { what: Some(what) }
    }
}

impl TryFrom<pb::ClearRequest> for Clear {
    type Error = Malformed;
    fn try_from(clear: pb::ClearRequest) -> Result<Self, Malformed> {
        use pb::clear_request::What as Pb;
        Ok(match needed(clear.what, "what")? {
            Pb::Nhrp(nhrp) => Self::Nhrp {
                tunnel: maybe_text::up(nhrp.tunnel, "nhrp.tunnel")?,
                address: maybe_text::up(nhrp.address, "nhrp.address")?,
            },
            Pb::Ike(ike) => Self::Ike { peer: text::up(ike.peer, "ike.peer")? },
        })
    }
}
