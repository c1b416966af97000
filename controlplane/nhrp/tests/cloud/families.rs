//! IPv4 and IPv6, over and under: all four.

use std::collections::BTreeMap;

use model::config::{MapMulticast, Nhrp, Nhs, Registration};
use model::program::{Hop, Object, TunnelMode};
use model::time::{HoldingTime, Instant};
use model::{NbmaAddr, Prefix, ProtocolAddr, TableId};
use nhrp::{Action, Engine, Found, Input, Routes, To, Tunnel};

use crate::net::{millis, tunnel0};

/// One attached prefix.
struct Attached(Prefix);

impl Routes for Attached {
    fn lookup(&self, _: TableId, addr: ProtocolAddr) -> Option<Found> {
        let to = To::Tunnel(Hop { interface: tunnel0(), next_hop: addr.0 });
        self.0.contains(addr.0).then_some(Found { prefix: self.0, to })
    }
    fn is_split(&self, _: TableId, _: Prefix, _: &To) -> bool {
        false
    }
}

/// A hub and two spokes; the bindings that each has in the end.
fn run(overlays: [&str; 3], nbmas: [&str; 3], subnet: &str) -> Vec<BTreeMap<ProtocolAddr, NbmaAddr>> {
    let overlays = overlays.map(|t| t.parse::<ProtocolAddr>().unwrap());
    let nbmas = nbmas.map(|t| t.parse::<NbmaAddr>().unwrap());
    let routes = Attached(subnet.parse().unwrap());
    let tunnel = |node: usize| Tunnel {
        name: tunnel0(),
        mode: TunnelMode::Multipoint,
        nbma: Some(nbmas[node]),
        addresses: vec![format!("{}/{}", overlays[node], routes.0.length()).parse().unwrap()],
        mtu: 1400,
        table: TableId(0),
        nhrp: Nhrp {
            network_id: 1,
            authentication: Some("secret".into()),
            holding_time: HoldingTime(600),
            nhs: (node > 0).then_some(Nhs { protocol: overlays[0], nbma: nbmas[0] }).into_iter().collect(),
            map: vec![],
            map_multicast: vec![MapMulticast::Dynamic],
            redirect: true,
            shortcut: true,
            registration: Registration::default(),
        },
    };
    let mut engines: Vec<_> = (0..3).map(|n| Engine::new(Default::default(), n, None)).collect();
    let mut bindings = vec![BTreeMap::new(); 3];
    let mut now = Instant::default();
    let mut inputs: Vec<_> = (0..3).map(|n| (n, Input::Configure(vec![tunnel(n)]))).collect();
    let mut has_gleaned = false;
    while !inputs.is_empty() {
        now = now + millis(1);
        let mut next = Vec::new();
        for (node, input) in inputs {
            let mut actions = Vec::new();
            engines[node].handle(now, input, &routes, &mut actions);
            for action in actions {
                match action {
                    Action::Send { tunnel, to, bytes } => {
                        let peer = nbmas.iter().position(|n| *n == to).unwrap();
                        let source = nbmas[node];
                        next.push((peer, Input::Packet { tunnel, source, destination: to, bytes }));
                    }
                    Action::Put(Object::Binding(b)) => {
                        bindings[node].insert(b.next_hop, b.nbma);
                    }
                    _ => {}
                }
            }
        }
        if next.is_empty() && !has_gleaned {
            has_gleaned = true;
            next.push((1, Input::Glean { tunnel: tunnel0(), next_hop: overlays[2] }));
        }
        inputs = next;
    }
    for engine in &engines {
        assert_eq!(engine.traffic().rejects.iter().map(|r| r.count).sum::<u64>(), 0);
    }
    bindings
}

#[test]
fn all_four_pairs_of_families() {
    let v4 = ["172.16.0.1", "172.16.0.2", "172.16.0.3"];
    let v6 = ["fd00::1", "fd00::2", "fd00::3"];
    let under4 = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    let under6 = ["2001:db8::1", "2001:db8::2", "2001:db8::3"];
    for (over, subnet) in [(v4, "172.16.0.0/24"), (v6, "fd00::/64")] {
        for under in [under4, under6] {
            let bindings = run(over, under, subnet);
            let pair = |n: usize| (over[n].parse().unwrap(), under[n].parse().unwrap());
            assert_eq!(bindings[0], BTreeMap::from([pair(1), pair(2)]), "{over:?} {under:?}");
            assert_eq!(bindings[1], BTreeMap::from([pair(0), pair(2)]));
            assert_eq!(bindings[2], BTreeMap::from([pair(0), pair(1)]));
        }
    }
}
