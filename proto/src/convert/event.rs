//! `model::state::event`.

use model::state::event::{Event, Happening};

use super::kind::{enumerator, inner, maybe_text, same, small, spi, text};
use super::{Malformed, needed};
use crate::pb;

/// Both directions of all events: name in the model, its message, its field in `Event`, and the kinds of its fields.
macro_rules! happenings {
    ($($variant:ident => $pb:ident in $in:ident { $($field:ident: $kind:ident),+ })+) => {
        impl From<Event> for pb::Event {
            fn from(event: Event) -> Self {
                use pb::event::Kind;
                let kind = match event.what {
                    $(Happening::$variant { $($field),+ } => {
                        Kind::$variant(pb::$pb { $($field: $kind::down($field)),+ })
                    })+
                };
                Self { time_us: event.time_us, node: event.node, kind: Some(kind) }
            }
        }

        impl TryFrom<pb::Event> for Event {
            type Error = Malformed;
            fn try_from(event: pb::Event) -> Result<Self, Malformed> {
                use pb::event::Kind;
                let what = match needed(event.kind, "kind")? {
                    $(Kind::$variant(of) => Happening::$variant {
                        $($field: $kind::up(of.$field, concat!(stringify!($in), ".", stringify!($field)))?),+
                    },)+
                };
                Ok(Self { time_us: event.time_us, node: event.node, what })
            }
        }

        #[cfg(test)]
        impl super::tests::Sample for Happening {
            fn sample(dice: &mut super::tests::Dice) -> Self {
                let mut all = vec![$(Self::$variant { $($field: super::tests::Sample::sample(dice)),+ }),+];
                all.swap_remove(dice.below(all.len()))
            }
        }
    };
}

happenings! {
    Registered => Registered in registered { tunnel: text, client: text, nbma: text, refresh: same }
    ServerUp => ServerUp in server_up { tunnel: text, nhs: text, refresh: same }
    ServerDown => ServerDown in server_down { tunnel: text, nhs: text }
    RedirectSent => RedirectSent in redirect_sent { tunnel: text, to: text, destination: text }
    RedirectReceived => RedirectReceived in redirect_received { tunnel: text, destination: text }
    ResolutionSent => ResolutionSent in resolution_sent { tunnel: text, destination: text }
    ResolutionAnswered => ResolutionAnswered in resolution_answered { tunnel: text, client: text, prefix: text }
    Resolved => Resolved in resolved { tunnel: text, next_hop: text, nbma: text }
    Unresolved => Unresolved in unresolved { tunnel: text, destination: text }
    ShortcutUp => ShortcutUp in shortcut_up { tunnel: text, prefix: text, next_hop: text }
    ShortcutDown => ShortcutDown in shortcut_down { tunnel: text, prefix: text }
    Gone => Gone in gone { tunnel: text, address: text }
    DataplaneUp => DataplaneUp in dataplane_up { instance: same, version: same }
    DataplaneDown => DataplaneDown in dataplane_down { reason: same }
    Port => PortReport in port { port: same, mac: text, up: same, mtu: small }
    SourceChanged => SourceChanged in source_changed { tunnel: text, nbma: maybe_text }
    PathMtu => PathMtuLearnt in path_mtu { tunnel: text, nbma: text, mtu: small }
    ConfigApplied => ConfigApplied in config_applied { changes: same }
    ProgramRefused => ProgramRefused in program_refused { reason: same }
    Rejected => Rejected in rejected { tunnel: text, source: text, reason: same }
    SaLifetime => SaLifetime in sa_lifetime { protection: inner, spi: spi, direction: enumerator, reached: enumerator }
    SaMoved => PeerMoved in sa_moved { protection: inner, spi: spi, from: text, from_port: small }
    SaRefused => SaRefused in sa_refused { protection: inner, spi: spi, reason: same }
    LeasesUnrecorded => LeasesUnrecorded in leases_unrecorded { reason: same }
    IkeUp => IkeUp in ike_up { protection: inner, identity: text, suite: text, initiator: same, rekey: same }
    IkeDown => IkeDown in ike_down { protection: inner, identity: maybe_text, reason: same }
    ChildUp => ChildUp in child_up { protection: inner, inbound: spi, outbound: spi, suite: text, rekey: same }
    ChildDown => ChildDown in child_down { protection: inner, inbound: spi, outbound: spi, reason: same }
    IkeFailed => IkeFailed in ike_failed { profile: maybe_text, remote: text, identity: maybe_text, reason: same }
    PeerMoved => IkePeerMoved in peer_moved { protection: inner, from: text, from_port: small }
    KernelRefused => KernelRefused in kernel_refused { order: same, reason: same }
    Missed => Missed in missed { events: same }
}
