//! What must be so after each step, whatever the step was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::program::{Key, Object, Path};
use model::state::nhrp::EntryType;
use model::time::Instant;
use model::{ProtocolAddr, TableId};
use nhrp::{Action, Census, Engine, Limits, Tunnel};
use wire::nhrp::{Body, Checksum, ExtensionType, Packet};

/// What the data plane was told.
pub(crate) type Program = BTreeMap<Key, Object>;

/// Messages that one input may make, beside those that were due or waiting: a request, what it is passed on as, an answer, an error,
/// and those of the servers.
const SENDS: usize = 24;

/// What is sent is well formed, as it should be, and authenticated.
pub(crate) fn sent(bytes: &[u8], tunnel: &Tunnel) {
    let packet = Packet::read(bytes).expect("what is sent is well formed");
    assert_eq!(packet.size, bytes.len(), "something is behind it");
    assert_eq!(packet.checksum, Checksum::Right);
    let message = &packet.message;
    let extensions = message.extensions.iter().flatten();
    let tags: Vec<_> = extensions
        .filter(|e| e.kind() == ExtensionType::AUTHENTICATION)
        .map(|e| e.value().to_vec())
        .collect();
    let own = tunnel.nhrp.authentication.as_ref().map(|word| [&[0, 0, 0, 1], word.as_bytes()].concat());
    // RFC 2332 §5.2.7: an error indication of ours has no extensions. One that is passed on may have some.
    let bare = matches!(message.body, Body::Error { .. }) && tags.is_empty();
    assert!(bare || tags == Vec::from_iter(own), "{message:?}");
}

/// A step does not make a storm. `held` is what was held before.
pub(crate) fn bounded(actions: &[Action], held: &Census) {
    let sends = actions.iter().filter(|action| matches!(action, Action::Send { .. })).count();
    let waiting = held.entries + held.shortcuts + held.asks + held.told + held.purges + held.timers;
    assert!(sends <= SENDS + 2 * waiting, "{sends} messages of one step, {held:?}");
}

/// What is programmed is what the engine knows: every binding is an entry, every shortcut and fall-back leads to one.
pub(crate) fn programmed(engine: &Engine, now: Instant, program: &Program) {
    for object in program.values() {
        match object {
            Object::Route(route) => {
                let Path::Via(hop) = route.path else { panic!("{route:?}") };
                let key = Key::Binding(hop.interface, ProtocolAddr(hop.next_hop));
                assert!(program.contains_key(&key), "{route:?} leads to nothing");
                assert!(!route.prefix.is_default(), "{route:?}");
            }
            Object::Fallback(fallback) => {
                let key = Key::Binding(fallback.tunnel, fallback.next_hop);
                assert!(program.contains_key(&key), "{fallback:?} leads to nothing");
            }
            Object::Binding(_) | Object::Replica(_) => {}
            other => panic!("{other:?} is not NHRP's"),
        }
    }
    let entries = engine.entries(now);
    // Prefixes that a client registered lead to it, by its own binding.
    let mut bound = BTreeSet::new();
    for entry in entries.iter().filter(|e| e.nbma.is_some() && e.entry_type != EntryType::Local) {
        match program.get(&Key::Binding(entry.tunnel, entry.next_hop)) {
            Some(Object::Binding(binding)) => assert_eq!(Some(binding.nbma), entry.nbma, "{entry:?}"),
            other => panic!("{entry:?} is programmed as {other:?}"),
        }
        bound.insert((entry.tunnel, entry.next_hop));
    }
    let bindings = program.keys().filter(|key| matches!(key, Key::Binding(..))).count();
    assert_eq!(bound.len(), bindings, "bindings that no entry stands for");
    let shortcuts = engine.shortcuts(now);
    for shortcut in &shortcuts {
        assert!(program.contains_key(&Key::Route(TableId(0), shortcut.prefix)), "{shortcut:?}");
    }
    for object in program.values() {
        let Object::Route(route) = object else { continue };
        let mut known = shortcuts.iter().chain(&entries).map(|entry| entry.prefix);
        assert!(known.any(|prefix| prefix == route.prefix), "{route:?} is no shortcut and nobody's prefix");
    }
}

/// No more is held than may be.
pub(crate) fn limited(engine: &Engine, now: Instant, tunnels: &[Tunnel], limits: &Limits) {
    let census = engine.census();
    let each = tunnels.len().max(1);
    assert!(census.shortcuts <= limits.shortcuts * each, "{census:?}");
    assert!(census.asks <= limits.asks * each, "{census:?}");
    assert!(census.told <= limits.told * each, "{census:?}");
    assert!(census.purges <= limits.purges, "{census:?}");
    assert!(census.redirected <= limits.redirects * each, "{census:?}");
    let entries = engine.entries(now);
    for tunnel in tunnels {
        let nhrp = &tunnel.nhrp;
        let of = |kinds: &[EntryType]| {
            entries.iter().filter(|e| e.tunnel == tunnel.name && kinds.contains(&e.entry_type)).count()
        };
        let registered = of(&[EntryType::Dynamic]);
        assert!(registered <= nhrp.limits.registrations as usize, "{registered} registrations");
        let learnt = of(&[EntryType::Dynamic, EntryType::Cached]);
        assert!(learnt <= nhrp.limits.entries as usize, "{learnt} entries");
    }
}

/// What is due has been done: there is no work that a clock would have to call for again and again.
pub(crate) fn awake(engine: &Engine, now: Instant) {
    if let Some(deadline) = engine.next_deadline() {
        assert!(deadline > now, "what was due at {deadline:?} still is at {now:?}");
        assert!(deadline.since(now) < Duration::from_secs(1 << 20), "{deadline:?} is never");
    }
}
