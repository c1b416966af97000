//! `model::sa`, and the SAs of `model::program`.
//!
//! Messages with a key in them have a `Debug` that hides it: what is logged of a call has no keys.

use std::fmt;

use model::program::{InboundSa, OutboundSa};
use model::sa::{Amount, Direction, Lease, Lifetimes, Protection, Reached, SaMode, Suite};

use super::{enumeration, message};
use crate::pb;

enumeration!(Suite => Suite { AesGcm128, AesGcm256 });
enumeration!(SaMode => SaMode { Transport, Tunnel });
enumeration!(Direction => SaDirection { Inbound, Outbound });
enumeration!(Reached => Reached { Soft, Hard });

message!(Protection => Protection { profile: text, table: table, local: text, remote: text, port: small, });
message!(Amount => Amount { bytes: same, packets: same, });
message!(Lifetimes => Lifetimes { soft: inner, hard: inner, });
message!(Lease => Lease { first: same, last: same, });
message!(InboundSa => InboundSa {
    spi: spi, protection: inner, mode: enumerator, key: key, esn: same, window: small, lifetimes: inner,
});
message!(OutboundSa => OutboundSa {
    protection: inner, worker: worker, spi: spi, mode: enumerator, key: key, esn: same, lease: inner, lifetimes: inner,
});

/// The text of a configuration has keys in it, too.
impl fmt::Debug for pb::ApplyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApplyRequest {{ {} bytes, dry_run: {} }}", self.text.len(), self.dry_run)
    }
}

impl fmt::Debug for pb::InboundSa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InboundSa {{ spi: {:#x}, protection: {:?}, .. }}", self.spi, self.protection)
    }
}

impl fmt::Debug for pb::OutboundSa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutboundSa {{ spi: {:#x}, protection: {:?}, .. }}", self.spi, self.protection)
    }
}
