//! Whatever happens, in whatever order: nothing panics, and what is programmed hangs together.

use std::collections::BTreeSet;

use model::config::{Map, MapMulticast};
use model::program::{Key, Object, Path};
use model::state::nhrp::EntryType;
use model::{ProtocolAddr, TableId};
use nhrp::{Clear, Input};
use proptest::prelude::*;
use proptest::sample::Index;
use wire::nhrp::{Body, Cie, Flags, MessageType};

use crate::net::*;

#[derive(Debug, Clone)]
enum Step {
    Packet {
        from: u8,
        to: u8,
        host: u8,
    },
    Run(u16),
    /// A message that was sent once comes again, to anybody, from anybody; some of its bytes changed, its checksum right.
    Forged {
        sender: u8,
        which: Index,
        to: u8,
        from: u8,
        changes: Vec<(Index, u8)>,
    },
    Glean {
        node: u8,
        last: u8,
    },
    Redirect {
        node: u8,
        from: u8,
        bytes: Vec<u8>,
    },
    Route {
        node: u8,
        to: u8,
        length: u8,
        lead: u8,
    },
    Clear {
        node: u8,
        last: Option<u8>,
    },
    Configure {
        node: u8,
        how: u8,
    },
    /// A node of the bench registers a prefix, and perhaps in another's name.
    Prefix {
        node: u8,
        from: u8,
        length: u8,
        held: u8,
    },
    Kill(u8),
    Lose(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..4_u8;
    prop_oneof![
        4 => (1..4_u8, 1..4_u8, any::<u8>()).prop_map(|(from, to, host)| Step::Packet { from, to, host }),
        4 => prop_oneof![0..100_u16, 0..40_000_u16].prop_map(Step::Run),
        3 => (node(), any::<Index>(), node(), node(), prop::collection::vec(any::<(Index, u8)>(), 0..4))
            .prop_map(|(sender, which, to, from, changes)| Step::Forged { sender, which, to, from, changes }),
        1 => (node(), any::<u8>()).prop_map(|(node, last)| Step::Glean { node, last }),
        1 => (node(), node(), prop::collection::vec(any::<u8>(), 0..60))
            .prop_map(|(node, from, bytes)| Step::Redirect { node, from, bytes }),
        2 => (node(), node(), 16..=32_u8, 0..3_u8)
            .prop_map(|(node, to, length, lead)| Step::Route { node, to, length, lead }),
        1 => (node(), prop::option::of(0..8_u8)).prop_map(|(node, last)| Step::Clear { node, last }),
        1 => (node(), 0..14_u8).prop_map(|(node, how)| Step::Configure { node, how }),
        2 => (1..4_u8, 1..4_u8, 16..=32_u8, any::<u8>())
            .prop_map(|(node, from, length, held)| Step::Prefix { node, from, length, held }),
        1 => node().prop_map(Step::Kill),
        1 => (0..500_u16).prop_map(Step::Lose),
    ]
}

fn take(net: &mut Net, step: Step) {
    match step {
        Step::Packet { from, to, host: last } => {
            let (from, to) = (usize::from(from), usize::from(to));
            let _ = net.packet(from, host(from, 9), host(to, last));
        }
        Step::Run(ms) => net.run(millis(ms.into())),
        Step::Forged { sender, which, to, from, changes } => {
            let sent = &net.nodes[usize::from(sender)].sent;
            if sent.is_empty() {
                return;
            }
            let mut bytes = sent[which.index(sent.len())].2.clone();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes[12..14].fill(0);
            let size = usize::from(u16::from_be_bytes([bytes[10], bytes[11]])).min(bytes.len());
            let sum = wire::checksum::checksum(&bytes[..size]);
            bytes[12..14].copy_from_slice(&sum.to_be_bytes());
            let (source, destination) = (nbma(from.into()), nbma(to.into()));
            net.give(to.into(), Input::Packet { tunnel: tunnel0(), from: source.into(), destination, bytes });
        }
        Step::Glean { node, last } => {
            let next_hop = format!("172.16.0.{last}").parse().unwrap();
            net.give(node.into(), Input::Glean { tunnel: tunnel0(), next_hop });
        }
        Step::Redirect { node, from, bytes } => {
            let source = nbma(from.into());
            net.give(node.into(), Input::Redirect { tunnel: tunnel0(), source, port: None, bytes });
        }
        Step::Route { node, to, length, lead } => {
            let prefix = model::Prefix::new(host(to.into(), 200).0, length).unwrap();
            let rib = &mut net.nodes[usize::from(node)].rib.0;
            match lead {
                0 => rib.remove(&prefix),
                1 => rib.insert(prefix, Lead::Lan),
                _ => rib.insert(prefix, Lead::Via(overlay(usize::from(lead)))),
            };
            net.routes_changed(node.into(), &[prefix]);
        }
        Step::Clear { node, last } => {
            let address = last.map(|n| overlay(n.into()));
            net.give(node.into(), Input::Clear(Clear { tunnel: None, address }));
        }
        Step::Configure { node, how } => {
            let node = usize::from(node);
            let tunnel = &mut net.nodes[node].tunnel;
            match how {
                0 => tunnel.nhrp.shortcut = !tunnel.nhrp.shortcut,
                1 => tunnel.nhrp.redirect = !tunnel.nhrp.redirect,
                2 => tunnel.nhrp.map_multicast = vec![MapMulticast::Dynamic, MapMulticast::Nbma(nbma(9))],
                3 => tunnel.nhrp.map_multicast.clear(),
                4 => tunnel.nhrp.holding_time.0 = 30,
                5 => tunnel.addresses.rotate_left(1),
                6 => return net.give(node, Input::Configure(vec![])),
                8 => tunnel.nhrp.accept_prefixes = vec!["10.20.0.0/17".parse().unwrap()],
                9 => tunnel.nhrp.accept_prefixes.clear(),
                10 => tunnel.nhrp.answer_from_cache = !tunnel.nhrp.answer_from_cache,
                11 => tunnel.nhrp.limits.registrations = 2,
                12 if node != 2 => tunnel.nhrp.map = vec![Map { protocol: overlay(2), nbma: nbma(2) }],
                13 if node != 2 => tunnel.nhrp.map = vec![Map { protocol: overlay(2), nbma: nbma(9) }],
                _ => {
                    let other = if tunnel.nbma == Some(nbma(node)) { nbma(node + 20) } else { nbma(node) };
                    tunnel.nbma = Some(other);
                }
            }
            net.start(node);
        }
        Step::Prefix { node, from, length, held } => {
            let Some((_, _, mut request)) = net.messages(node.into(), MessageType::RegistrationRequest).pop()
            else {
                return;
            };
            if let Body::Exchange { flags, entries, .. } = &mut request.body {
                *flags = Flags::default();
                let network = std::net::Ipv4Addr::new(10, 20, held, 0);
                let (protocol, holding_time) = (Some(network.into()), u16::from(held) + 1);
                *entries = vec![Cie { prefix: length, protocol, holding_time, ..Cie::default() }];
            }
            let from = nbma(from.into()).into();
            let (destination, bytes) = (nbma(0), request.encode());
            net.give(0, Input::Packet { tunnel: tunnel0(), from, destination, bytes });
        }
        Step::Kill(node) => {
            // What the data plane has is swept with the resync: what is not put again goes.
            net.nodes[usize::from(node)].program.clear();
            net.restart(node.into());
        }
        Step::Lose(thousandths) => net.lost = thousandths.into(),
    }
}

/// What is programmed is what is shown; every route and fall-back leads to a binding.
pub(crate) fn check(net: &Net) {
    // A dead engine knows of nothing that happens.
    let alive = net.nodes.iter().enumerate().filter(|(_, n)| n.alive && n.has_control);
    for (i, node) in alive {
        let bound = |next_hop| node.program.contains_key(&Key::Binding(tunnel0(), next_hop));
        for (object, _) in node.program.values() {
            match object {
                Object::Route(r) => {
                    let Path::Via(hop) = r.path else { panic!("{r:?}") };
                    assert!(bound(ProtocolAddr(hop.next_hop)), "node {i}: {r:?} leads to nothing");
                    assert!(!r.prefix.is_default());
                }
                Object::Fallback(f) => assert!(bound(f.next_hop), "node {i}: {f:?}"),
                _ => {}
            }
        }
        for entry in node.engine.entries(net.now).iter().filter(|e| e.nbma.is_some()) {
            let is_local = entry.entry_type == EntryType::Local;
            assert_eq!(bound(entry.next_hop), !is_local, "node {i}: {entry:?}");
        }
        let entries = node.engine.entries(net.now);
        let prefixes = entries.iter().filter(|e| e.nbma.is_some() && !e.prefix.is_host());
        let shown = node.engine.shortcuts(net.now);
        assert_eq!(shown.len() + prefixes.count(), net.routes(i).len());
        // What is counted is there, and who is registered gets multicast.
        let registered = entries.iter().filter(|e| e.flags.registered);
        let dynamic = registered.clone().filter(|e| e.entry_type == EntryType::Dynamic).count();
        assert_eq!(node.engine.census().registrations, dynamic, "node {i}");
        let wanted = &node.tunnel.nhrp.map_multicast;
        let clients = registered.filter(|_| wanted.contains(&MapMulticast::Dynamic)).filter_map(|e| e.nbma);
        let configured = wanted.iter().filter_map(|m| match m {
            MapMulticast::Nbma(nbma) => Some(*nbma),
            MapMulticast::Dynamic | MapMulticast::Nhs => None,
        });
        let receivers: BTreeSet<_> = clients.chain(configured).collect();
        let replicas = node.program.keys().filter_map(|key| match key {
            Key::Replica(_, nbma, _) => Some(*nbma),
            _ => None,
        });
        let is_configured = entries.iter().any(|e| e.entry_type == EntryType::Local);
        let receivers = if is_configured { receivers } else { BTreeSet::new() };
        assert_eq!(replicas.collect::<BTreeSet<_>>(), receivers, "node {i}");
        assert!(shown.iter().all(|s| net.has(i, Key::Route(TableId(0), s.prefix))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_program_hangs_together(steps in prop::collection::vec(step(), 1..80)) {
        let mut net = Net::new(3, &Setup { holding: 60, ..Setup::default() });
        net.run(millis(50));
        for step in steps {
            take(&mut net, step);
            check(&net);
        }
        // Back in order: one address each, no loss, and what was forged, for however long, is cleared. It heals.
        net.lost = 0;
        net.run(seconds(1));
        net.give(0, Input::Clear(Clear::default()));
        for node in 0..4 {
            let setup = Setup { holding: 60, ..Setup::default() };
            net.nodes[node].tunnel = tunnel(node, &setup);
            net.start(node);
        }
        net.run(seconds(200));
        check(&net);
        for spoke in 1..4 {
            prop_assert_eq!(net.binding(0, overlay(spoke)), Some(nbma(spoke)));
        }
    }
}
