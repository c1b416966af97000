//! What happened, in the words of `nave watch`.

use model::ike::Identity;
use model::program::{Key, Op};
use model::state::event::Happening;
use nhrp::Event;

/// An event of the NHRP engine.
pub(crate) fn happening(event: Event) -> Happening {
    match event {
        Event::Registered { tunnel, client, nbma, refresh } => {
            Happening::Registered { tunnel, client, nbma, refresh }
        }
        Event::ServerUp { tunnel, nhs, refresh } => Happening::ServerUp { tunnel, nhs, refresh },
        Event::ServerDown { tunnel, nhs } => Happening::ServerDown { tunnel, nhs },
        Event::RedirectSent { tunnel, to, destination } => {
            Happening::RedirectSent { tunnel, to, destination }
        }
        Event::RedirectReceived { tunnel, destination } => {
            Happening::RedirectReceived { tunnel, destination }
        }
        Event::ResolutionSent { tunnel, destination } => Happening::ResolutionSent { tunnel, destination },
        Event::ResolutionAnswered { tunnel, client, prefix } => {
            Happening::ResolutionAnswered { tunnel, client, prefix }
        }
        Event::Resolved { tunnel, next_hop, nbma } => Happening::Resolved { tunnel, next_hop, nbma },
        Event::Unresolved { tunnel, destination } => Happening::Unresolved { tunnel, destination },
        Event::ShortcutUp { tunnel, prefix, next_hop } => Happening::ShortcutUp { tunnel, prefix, next_hop },
        Event::ShortcutDown { tunnel, prefix } => Happening::ShortcutDown { tunnel, prefix },
        Event::Gone { tunnel, address } => Happening::Gone { tunnel, address },
        Event::Rejected { tunnel, source, reject } => {
            Happening::Rejected { tunnel, source, reason: reject.name().to_owned() }
        }
    }
}

/// An event of the IKE engine.
pub(crate) fn of_ike(event: ike::Event) -> Happening {
    use ike::Event;
    match event {
        Event::IkeUp { peer: protection, identity, suite, is_initiator: initiator, is_rekey: rekey } => {
            Happening::IkeUp { protection, identity, suite, initiator, rekey }
        }
        Event::IkeDown { peer: protection, identity, reason } => {
            Happening::IkeDown { protection, identity: identity.map(Identity::legible), reason }
        }
        Event::ChildUp { peer: protection, inbound, outbound, suite, is_rekey: rekey } => {
            Happening::ChildUp { protection, inbound, outbound, suite, rekey }
        }
        Event::ChildDown { peer: protection, inbound, outbound, reason } => {
            Happening::ChildDown { protection, inbound, outbound, reason }
        }
        Event::Failed { profile, remote, identity, reason } => {
            Happening::IkeFailed { profile, remote, identity: identity.map(Identity::legible), reason }
        }
        Event::Moved { peer: protection, was } => {
            Happening::PeerMoved { protection, from: was.remote, from_port: was.port }
        }
    }
}

/// A step in a few words: `put route 10.0.0.0/24 of config`.
pub(crate) fn step(op: &Op) -> String {
    match op {
        Op::Put(owner, object) => format!("put {} of {owner:?}", named(&object.key())),
        Op::Remove(owner, key) => format!("remove {} of {owner:?}", named(key)),
        Op::ResyncBegin(owner) => format!("begin of the resync of {owner:?}"),
        Op::ResyncEnd(owner) => format!("end of the resync of {owner:?}"),
    }
}

fn named(key: &Key) -> String {
    match key {
        Key::Interface(name) => format!("interface {name}"),
        Key::Tunnel(name) => format!("tunnel {name}"),
        Key::Neighbour(hop) => format!("neighbour {} on {}", hop.next_hop, hop.interface),
        Key::Binding(tunnel, next_hop) => format!("binding {next_hop} on {tunnel}"),
        Key::Route(table, prefix) if table.0 == 0 => format!("route {prefix}"),
        Key::Route(table, prefix) => format!("route {prefix} in table {}", table.0),
        Key::Replica(tunnel, nbma, _) => format!("replica {nbma} on {tunnel}"),
        Key::Fallback(tunnel) => format!("fall-back of {tunnel}"),
        Key::PathMtu(tunnel, nbma) => format!("path MTU to {nbma} on {tunnel}"),
        Key::InboundSa(spi) => format!("inbound SA {spi}"),
        Key::OutboundSa(protection, worker) => format!("outbound SA of {protection} by worker {}", worker.0),
    }
}
