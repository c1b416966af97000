//! Everything at once, for a long time; then calm. What was wanted works, once, and nothing else is left.

use crate::net::*;

fn storm(seed: u64, nodes: usize, config: &str) {
    let mut net = Net::seeded(nodes, &format!("{PSK}{config}"), seed);
    for node in (1..nodes).step_by(3) {
        let first = 20_000 + 10 * node as u16;
        net.nat.insert(node, Nat { outside: "192.0.2.77".parse().unwrap(), first });
    }
    net.is_bad = true;
    (net.lost, net.doubled, net.shaken) = (150, 100, millis(200));
    net.start();
    for node in 1..nodes {
        net.want_server(node, 0);
    }
    for step in 0..60_u16 {
        net.run(seconds(3));
        let node = net.random() as usize % nodes;
        match net.random() % 8 {
            0 => net.greet(node, true),
            1 => {
                net.kill(node);
                net.start_one(node, true);
                for spoke in 1..nodes {
                    if node == spoke {
                        net.want_server(spoke, 0);
                    }
                }
            }
            2 => {
                net.behead(node);
                net.adopt(node);
                if node > 0 {
                    net.want_server(node, 0);
                }
            }
            3 => {
                if let Some(nat) = net.nat.get_mut(&node) {
                    nat.first = 30_000 + 1000 * node as u16 + 2 * step;
                }
            }
            4 => net.give(node, ike::Input::Clear(ike::Clear::default())),
            5 if node > 0 && !net.nat.contains_key(&node) => net.want(0, node),
            _ => {}
        }
    }
    (net.lost, net.doubled, net.shaken) = (0, 0, millis(0));
    net.run(seconds(200));
    for node in 1..nodes {
        assert!(net.can_talk(node, 0), "seed {seed}, node {node}: {:#?}", net.sas(node));
        let sas = net.established(node);
        assert_eq!(sas.len(), 1, "seed {seed}, node {node}: {sas:#?}");
    }
    assert_eq!(net.established(0).len(), nodes - 1, "seed {seed}");
    for node in 0..nodes {
        let (sas, half_open, inbound) = net.nodes[node].engine.sizes();
        let children: usize = net.established(node).iter().map(|sa| sa.children.len()).sum();
        assert_eq!(half_open, 0);
        assert!(sas <= net.established(node).len() + 2, "seed {seed}, node {node}: {sas}");
        assert!(
            inbound <= 4 * children && inbound == net.nodes[node].inbound.len(),
            "seed {seed}, node {node}"
        );
    }
}

#[test]
fn a_storm_ends_and_everything_works() {
    for seed in 1..16 {
        storm(seed, 6, "dead_peer_detection = 5\n");
    }
}

#[test]
fn a_storm_with_short_lives_ends_and_everything_works() {
    for seed in 100..112 {
        storm(seed, 5, "dead_peer_detection = 5\nchild_lifetime = 17\nlifetime = 41\n");
    }
}

/// A thousand come at once.
#[test]
fn a_thousand_spokes_come_at_once() {
    let mut net = Net::new(1001, PSK);
    net.start();
    for node in 1..1001 {
        net.want_server(node, 0);
    }
    net.run(seconds(4));
    assert_eq!(net.established(0).len(), 1000);
    let mut workers = std::collections::BTreeMap::<_, usize>::new();
    for spi in net.nodes[0].inbound.keys() {
        *workers.entry(spi.worker()).or_default() += 1;
    }
    assert!(workers.len() == 2 && workers.values().all(|n| (495..=505).contains(n)), "{workers:?}");
    for node in 1..1001 {
        assert!(net.can_talk(0, node));
    }
}
