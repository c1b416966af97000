//! `model::observe`.

use model::observe::{CaptureRequest, Captured, Direction, Reason, Tap, TraceRequest, TraceStep};

use super::kind::{enumerator, inner, maybe_inner, maybe_text, positive, worker};
use super::{Malformed, enumeration, message, needed};
use crate::pb;

enumeration!(Direction => Direction { In, Out });

message!(Reason => DropReason { name: same, sentence: same, });
message!(TraceStep => TraceStep {
    packet: same, worker: worker, node: same, time_us: same, interface: maybe_text, table: table,
    destination: maybe_text, adjacency: same, offset: small, reason: maybe_inner, len: same, bytes: same, lost: same,
});
message!(TraceRequest => TraceRequest { packets: positive, address: maybe_text, });

impl From<Tap> for pb::Tap {
    fn from(tap: Tap) -> Self {
        use pb::tap::At;
        let at = match tap {
            Tap::Port(port) => At::Port(port),
            Tap::Node(node) => At::Node(node),
        };
        Self { at: Some(at) }
    }
}

impl TryFrom<pb::Tap> for Tap {
    type Error = Malformed;
    fn try_from(tap: pb::Tap) -> Result<Self, Malformed> {
        use pb::tap::At;
        Ok(match needed(tap.at, "at")? {
            At::Port(port) => Self::Port(port),
            At::Node(node) => Self::Node(node),
        })
    }
}

impl From<CaptureRequest> for pb::CaptureRequest {
    fn from(request: CaptureRequest) -> Self {
        Self {
            at: inner::down(request.at),
            packets: request.packets.map(u32::from),
            snap: request.snap.map(|snap| snap.get().into()),
            address: maybe_text::down(request.address),
        }
    }
}

impl TryFrom<pb::CaptureRequest> for CaptureRequest {
    type Error = Malformed;
    fn try_from(request: pb::CaptureRequest) -> Result<Self, Malformed> {
        Ok(Self {
            at: inner::up(request.at, "at")?,
            packets: request.packets.map(|packets| positive::up(packets, "packets")).transpose()?,
            snap: request.snap.map(|snap| positive::up(snap, "snap")).transpose()?,
            address: maybe_text::up(request.address, "address")?,
        })
    }
}

impl From<Captured> for pb::Captured {
    fn from(captured: Captured) -> Self {
        Self {
            worker: worker::down(captured.worker),
            time_us: captured.time_us,
            interface: maybe_text::down(captured.interface),
            direction: captured.direction.map(enumerator::down),
            reason: maybe_inner::down(captured.reason),
            len: captured.len,
            bytes: captured.bytes,
            lost: captured.lost,
        }
    }
}

impl TryFrom<pb::Captured> for Captured {
    type Error = Malformed;
    fn try_from(captured: pb::Captured) -> Result<Self, Malformed> {
        let direction = captured.direction.map(|direction| enumerator::up(direction, "direction"));
        Ok(Self {
            worker: worker::up(captured.worker, "worker")?,
            time_us: captured.time_us,
            interface: maybe_text::up(captured.interface, "interface")?,
            direction: direction.transpose()?,
            reason: maybe_inner::up(captured.reason, "reason")?,
            len: captured.len,
            bytes: captured.bytes,
            lost: captured.lost,
        })
    }
}
