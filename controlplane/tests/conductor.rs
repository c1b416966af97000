//! The conductor on a virtual clock: the demonstration cloud in its three phases, restarts, changes under way.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::*;
use controlplane::conductor::{Input, Kept};
use controlplane::kernel::{Notice, Order};
use model::program::{Key, Object, Owner, Path, Refusal};
use model::report::Report;
use model::state::dmvpn::PeerState;
use model::state::event::Happening;
use model::state::{State, What};

const HUB: usize = 0;
const SPOKE1: usize = 1;
const SPOKE2: usize = 2;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn phase_1_a_point_to_point_spoke_is_programmed_from_the_configuration_alone() {
    let cloud = Cloud::phase(1);
    let spoke = &cloud.nodes[SPOKE1].dataplane;
    let to_peer = Some(Path::Attached(name("tunnel0")));
    assert_eq!(spoke.way("192.168.0.0/16"), to_peer);
    assert_eq!(spoke.way("10.255.0.0/24"), to_peer);
    assert_eq!(spoke.bound("0.0.0.0"), Some((nbma("203.0.113.1"), Some(hop("wan", "203.0.113.1")))));
    let of_nhrp = spoke.program().into_keys().filter(|(_, owner)| *owner == Owner::Nhrp).count();
    assert_eq!(of_nhrp, 0);
    let replicas = spoke.program().into_keys().filter(|(key, _)| matches!(key, Key::Replica(..))).count();
    assert_eq!(replicas, 1, "multicast goes to the peer, once");

    // It registers all the same: the hub knows where it is.
    let hub = &cloud.nodes[HUB].dataplane;
    let at = |n: &str| Some((nbma(n), Some(hop("wan", n))));
    assert_eq!(hub.bound("10.255.0.11"), at("203.0.113.11"));
    assert_eq!(hub.bound("10.255.0.12"), at("203.0.113.12"));
    assert_eq!(hub.way("192.168.11.0/24"), Some(Path::Via(hop("tunnel0", "10.255.0.11"))));
}

#[test]
fn phase_2_a_glean_binds_the_next_hop() {
    let mut cloud = Cloud::phase(2);
    let towards = Some(Path::Via(hop("tunnel0", "10.255.0.12")));
    assert_eq!(cloud.nodes[SPOKE1].dataplane.way("192.168.12.0/24"), towards);
    assert_eq!(cloud.nodes[SPOKE1].dataplane.bound("10.255.0.12"), None);
    let fallback = cloud.nodes[SPOKE1].dataplane.object(Owner::Nhrp, Key::Fallback(name("tunnel0")));
    assert!(matches!(fallback, Some(Object::Fallback(f)) if f.next_hop == protocol("10.255.0.1")));

    cloud.give(SPOKE1, Input::Report(Report::Glean(hop("tunnel0", "10.255.0.12"))));
    cloud.run(seconds(1));
    let direct = Some((nbma("203.0.113.12"), Some(hop("wan", "203.0.113.12"))));
    assert_eq!(cloud.nodes[SPOKE1].dataplane.bound("10.255.0.12"), direct);
    // The neighbour below it was asked for before any packet needed it.
    let below = Key::Neighbour(hop("wan", "203.0.113.12"));
    assert!(cloud.nodes[SPOKE1].dataplane.object(Owner::Netlink, below).is_some());
}

#[test]
fn phase_3_a_redirect_makes_a_shortcut() {
    let mut cloud = Cloud::phase(3);
    let by_hub = Some(Path::Via(hop("tunnel0", "10.255.0.1")));
    assert_eq!(cloud.nodes[SPOKE1].dataplane.way("192.168.0.0/16"), by_hub);

    cloud.redirect("203.0.113.11", "192.168.11.9", "192.168.12.9");
    cloud.run(seconds(1));
    let spoke = &cloud.nodes[SPOKE1];
    assert_eq!(spoke.dataplane.way("192.168.12.0/24"), Some(Path::Via(hop("tunnel0", "10.255.0.12"))));
    let direct = Some((nbma("203.0.113.12"), Some(hop("wan", "203.0.113.12"))));
    assert_eq!(spoke.dataplane.bound("10.255.0.12"), direct);
    assert!(spoke.has_seen(|e| matches!(e, Happening::ShortcutUp { .. })), "{:?}", spoke.events);
    assert!(cloud.nodes[SPOKE2].has_seen(|e| matches!(e, Happening::ResolutionAnswered { prefix, .. }
        if prefix.to_string() == "192.168.12.0/24")));
    for node in &cloud.nodes {
        assert!(node.refusals().is_empty(), "{:?}", node.refusals());
    }

    // And it is shown.
    let State::Dmvpn(dmvpn) = spoke.conductor.show(cloud.now, What::Dmvpn) else { panic!() };
    let peer = dmvpn.0[0].peers.iter().find(|p| p.protocol == protocol("10.255.0.12")).unwrap();
    assert_eq!((peer.state, peer.attributes.shortcut), (PeerState::Up, true), "{peer:?}");
    let hub = dmvpn.0[0].peers.iter().find(|p| p.nhs).unwrap();
    assert_eq!((hub.state, hub.nbma), (PeerState::Up, Some(nbma("203.0.113.1"))), "{hub:?}");
    let State::Routes(routes) = spoke.conductor.show(cloud.now, What::Routes) else { panic!() };
    let shortcut = routes.0.iter().find(|r| r.owner == Owner::Nhrp).unwrap();
    assert!(shortcut.best && shortcut.route.expires_in.is_some());
}

/// Input: the demonstration's phase 3 with host addresses on the tunnels. Output: each peer that is bound has a host route, in the
/// kernel too, by which static routes count; a server that falls silent takes those by it along, and a restart takes nothing.
#[test]
fn peers_of_a_tunnel_with_host_addresses_have_host_routes() {
    let numbered = |node| {
        example(3, node)
            .replace("10.255.0.1/24", "10.255.0.1/32")
            .replace("/24\"]\n\n[tunnels.nhrp]", "/32\"]\n\n[tunnels.nhrp]")
    };
    let mut cloud = Cloud::of(["hub", "spoke1", "spoke2"].map(numbered).as_slice());
    cloud.start(HUB);
    cloud.run(seconds(5));
    assert_eq!(cloud.nodes[HUB].dataplane.way("192.168.11.0/24"), None, "nobody is registered");
    for node in [SPOKE1, SPOKE2] {
        cloud.start(node);
    }
    cloud.run(seconds(5));
    let itself = |peer| Some(Path::Via(hop("tunnel0", peer)));
    let hub = &cloud.nodes[HUB];
    assert_eq!(hub.dataplane.way("10.255.0.11/32"), itself("10.255.0.11"));
    assert_eq!(hub.dataplane.way("192.168.11.0/24"), Some(Path::Via(hop("tunnel0", "10.255.0.11"))));
    let told = |node: usize, cloud: &Cloud| {
        let routes = cloud.nodes[node].orders.iter().rev().find_map(|order| match order {
            Order::Routes(routes) => Some(routes.iter().map(|r| r.prefix.to_string()).collect::<Vec<_>>()),
            _ => None,
        });
        routes.unwrap_or_default()
    };
    let all = ["192.168.11.0/24", "192.168.12.0/24", "10.255.0.11/32", "10.255.0.12/32"];
    assert_eq!(told(HUB, &cloud), all, "the kernel knows them too");

    // A shortcut as on any tunnel; the other spoke's address is reached by its binding.
    cloud.redirect("203.0.113.11", "192.168.11.9", "192.168.12.9");
    cloud.run(seconds(1));
    let spoke = &cloud.nodes[SPOKE1].dataplane;
    assert_eq!(spoke.way("192.168.12.0/24"), Some(Path::Via(hop("tunnel0", "10.255.0.12"))));
    assert_eq!(spoke.way("10.255.0.12/32"), itself("10.255.0.12"));
    let before = spoke.program();
    cloud.restart(SPOKE1, seconds(3));
    cloud.run(seconds(5));
    assert_eq!(cloud.nodes[SPOKE1].dataplane.program(), before);
    let removed = &cloud.nodes[SPOKE1].dataplane.removed;
    assert!(removed.iter().all(|(key, _)| matches!(key, Key::Neighbour(_))), "{removed:?}");

    // The hub is gone: nothing goes by it, and when it is back all does.
    cloud.nodes[HUB].is_gone = true;
    cloud.run(seconds(600));
    let spoke = &cloud.nodes[SPOKE1].dataplane;
    assert_eq!((spoke.way("10.255.0.1/32"), spoke.way("192.168.0.0/16")), (None, None));
    assert!(told(SPOKE1, &cloud).is_empty(), "{:?}", told(SPOKE1, &cloud));
    cloud.nodes[HUB].is_gone = false;
    cloud.run(seconds(120));
    let spoke = &cloud.nodes[SPOKE1].dataplane;
    assert_eq!(spoke.way("192.168.0.0/16"), Some(Path::Via(hop("tunnel0", "10.255.0.1"))));
    for node in &cloud.nodes {
        assert!(node.refusals().is_empty(), "{:?}", node.refusals());
    }
}

#[test]
fn a_control_plane_that_was_killed_takes_nothing_away() {
    let mut cloud = Cloud::phase(3);
    cloud.redirect("203.0.113.11", "192.168.11.9", "192.168.12.9");
    cloud.run(seconds(1));
    for node in [HUB, SPOKE1, SPOKE2] {
        let before = cloud.nodes[node].dataplane.program();
        assert!(cloud.nodes[node].saves > 0);
        cloud.restart(node, seconds(3));
        cloud.run(seconds(60));
        let after = cloud.nodes[node].dataplane.program();
        assert_eq!(before, after, "node {node}");
        let removed = &cloud.nodes[node].dataplane.removed;
        // A neighbour may be told again a moment later than the sweep: the kernel's word comes first here.
        let removed: Vec<_> = removed.iter().filter(|(key, _)| !matches!(key, Key::Neighbour(_))).collect();
        assert!(removed.is_empty(), "node {node}: {removed:?}");
        assert!(cloud.nodes[node].has_seen(|e| matches!(e, Happening::DataplaneUp { .. })));
    }
}

#[test]
fn what_outlived_its_holding_time_while_away_does_not_come_back() {
    let mut cloud = Cloud::phase(3);
    assert!(cloud.nodes[HUB].dataplane.bound("10.255.0.11").is_some());
    // Nobody is there to register again.
    cloud.nodes.truncate(1);
    cloud.restart(HUB, seconds(601));
    cloud.run(Duration::ZERO);
    assert_eq!(cloud.nodes[HUB].dataplane.bound("10.255.0.11"), None);
}

#[test]
fn a_data_plane_that_was_killed_is_programmed_again() {
    let mut cloud = Cloud::phase(3);
    cloud.redirect("203.0.113.11", "192.168.11.9", "192.168.12.9");
    cloud.run(seconds(1));
    let before = cloud.nodes[SPOKE1].dataplane.program();
    cloud.give(SPOKE1, Input::Away { reason: "it was killed".to_owned() });
    let steps = cloud.nodes[SPOKE1].dataplane.steps;
    cloud.nodes[SPOKE1].dataplane = Dataplane::default();
    cloud.run(seconds(2));
    assert_eq!(cloud.nodes[SPOKE1].dataplane.steps, 0, "nothing is sent to nobody");
    assert!(steps > 0);
    cloud.greet(SPOKE1);
    assert_eq!(cloud.nodes[SPOKE1].dataplane.program(), before, "at once, no timer had to pass");
    cloud.run(seconds(1));
    assert!(cloud.nodes[SPOKE1].refusals().is_empty());
}

#[test]
fn requests_of_a_new_life_wait_for_the_tunnel_and_go_out_at_once() {
    let mut cloud = Cloud::of(&[example(3, "hub"), example(3, "spoke1")]);
    cloud.start(HUB);
    cloud.run(seconds(1));
    // Long without a data plane: nothing is asked, nothing backs off.
    cloud.give(SPOKE1, Input::Tick);
    cloud.run(seconds(100));
    assert!(cloud.nodes[SPOKE1].sent.is_empty());
    cloud.greet(SPOKE1);
    cloud.run(Duration::ZERO);
    assert_eq!(cloud.nodes[SPOKE1].sent, [3], "one registration request, without a retry");
    assert!(cloud.nodes[SPOKE1].has_seen(|e| matches!(e, Happening::ServerUp { .. })));
}

#[test]
fn without_word_from_the_kernel_the_program_waits_for_two_seconds() {
    let mut cloud = Cloud::of(&[example(3, "hub")]);
    let mut out = Vec::new();
    let connection = 1;
    let greeted = Input::Greeted {
        connection,
        instance: model::Instance(9),
        version: String::new(),
        workers: 1,
        slots: 1,
        ike: vec![],
    };
    cloud.nodes[HUB].conductor.handle(cloud.now, greeted, &mut out);
    let programs = |out: &[controlplane::conductor::Output]| {
        out.iter().filter(|o| matches!(o, controlplane::conductor::Output::Program(_))).count()
    };
    assert_eq!(programs(&out), 0, "its mirror is empty: a sweep would take routes away");
    let due = cloud.nodes[HUB].conductor.next_deadline().unwrap();
    assert_eq!(due.since(cloud.now), seconds(2));
    cloud.nodes[HUB].conductor.handle(due, Input::Tick, &mut out);
    assert_eq!(programs(&out), 1);
}

#[test]
fn a_kernel_that_tells_late_takes_nothing_away() {
    // Address, default route and so all bindings of the spoke are the kernel's word.
    let text = example(3, "spoke1").replace("addresses = [\"203.0.113.11/24\"]\n", "");
    let mut cloud = Cloud::of(&[example(3, "hub"), text]);
    let (interface, address) = (name("wan"), "198.51.100.11/24".parse().unwrap());
    let by_wan = model::program::Route {
        table: model::TableId(0),
        prefix: "0.0.0.0/0".parse().unwrap(),
        path: Path::Via(hop("wan", "198.51.100.1")),
        expires_in: None,
    };
    let tell = |cloud: &mut Cloud| {
        cloud.give(SPOKE1, Input::Kernel(Notice::Address { interface, address, present: true }));
        cloud.give(SPOKE1, Input::Kernel(Notice::Route { route: by_wan.clone(), present: true }));
    };
    cloud.start(HUB);
    cloud.start(SPOKE1);
    tell(&mut cloud);
    cloud.run(seconds(1));
    let before = cloud.nodes[SPOKE1].dataplane.program();
    let link = Some(hop("wan", "198.51.100.1"));
    assert_eq!(cloud.nodes[SPOKE1].dataplane.bound("10.255.0.1"), Some((nbma("203.0.113.1"), link)));

    cloud.nodes[SPOKE1].is_deaf = true;
    cloud.restart(SPOKE1, seconds(1));
    cloud.run(seconds(10));
    assert!(
        cloud.nodes[SPOKE1].has_seen(|e| matches!(e, Happening::DataplaneUp { .. })),
        "it was waited for"
    );
    assert_eq!(cloud.nodes[SPOKE1].dataplane.program(), before);
    tell(&mut cloud);
    assert_eq!(cloud.nodes[SPOKE1].dataplane.program(), before);
    // What nobody wants any more goes once the kernel has told all.
    let stray = Object::Replica(model::program::Replica {
        tunnel: name("tunnel0"),
        nbma: nbma("9.9.9.9"),
        link,
        port: 0,
    });
    cloud.nodes[SPOKE1].dataplane.take(&model::program::Op::Put(Owner::Nhrp, stray)).unwrap();
    cloud.hear(SPOKE1);
    cloud.run(seconds(1));
    assert_eq!(cloud.nodes[SPOKE1].dataplane.program(), before);
}

#[test]
fn a_new_address_of_the_source_registers_again_at_once() {
    let learnt = example(3, "spoke1").replace("addresses = [\"203.0.113.11/24\"]\n", "");
    let mut cloud = Cloud::of(&[example(3, "hub"), learnt]);
    cloud.start(HUB);
    cloud.start(SPOKE1);
    cloud.run(seconds(3));
    let tunnel = Key::Tunnel(name("tunnel0"));
    assert!(cloud.nodes[SPOKE1].dataplane.object(Owner::Config, tunnel).is_none(), "no source address yet");
    let State::Dmvpn(dmvpn) = cloud.nodes[SPOKE1].conductor.show(cloud.now, What::Dmvpn) else { panic!() };
    assert!(dmvpn.0[0].peers.iter().filter(|p| p.nhs).all(|p| p.state == PeerState::Interface));

    let address = |text: &str, present| {
        Input::Kernel(Notice::Address { interface: name("wan"), address: text.parse().unwrap(), present })
    };
    cloud.give(SPOKE1, address("203.0.113.50/24", true));
    cloud.run(Duration::from_millis(1));
    assert_eq!(cloud.nodes[HUB].dataplane.bound("10.255.0.11").map(|(n, _)| n), Some(nbma("203.0.113.50")));
    assert_eq!(cloud.nodes[SPOKE1].dataplane.bound("10.255.0.1").map(|(n, _)| n), Some(nbma("203.0.113.1")));

    cloud.give(SPOKE1, address("203.0.113.50/24", false));
    cloud.give(SPOKE1, address("203.0.113.51/24", true));
    cloud.run(Duration::from_millis(999));
    assert_eq!(cloud.nodes[HUB].dataplane.bound("10.255.0.11").map(|(n, _)| n), Some(nbma("203.0.113.51")));
    assert!(cloud.nodes[SPOKE1].has_seen(|e| matches!(e, Happening::SourceChanged { nbma: Some(n), .. }
        if *n == nbma("203.0.113.51"))));
    assert!(cloud.nodes[SPOKE1].refusals().is_empty(), "{:?}", cloud.nodes[SPOKE1].refusals());
}

/// Input: a spoke that knows its hub by name; DNS that knows nothing at first, then addresses of both families. Output: it asks for the name, again
/// after a while, from the namespace of its underlay; registers at the address of its own family; and shows name and address.
#[test]
fn a_server_that_is_a_name_is_looked_up_until_it_has_an_address() {
    let spoke = example(3, "spoke1").replace("nbma = \"203.0.113.1\"", "nbma = \"hub.nave.test\"");
    assert!(spoke.contains("hub.nave.test"));
    let mut cloud = Cloud::of(&[example(3, "hub"), spoke]);
    cloud.start(HUB);
    cloud.start(SPOKE1);
    cloud.run(seconds(5));
    let asked = cloud.looked_up.len();
    assert!(asked >= 1 && cloud.nodes[HUB].dataplane.bound("10.255.0.11").is_none());
    let what = &cloud.looked_up[0];
    assert_eq!((what.tunnel, what.name.as_str(), &what.netns), (name("tunnel0"), "hub.nave.test", &None));
    let addresses = ["2001:db8::1", "203.0.113.1", "fe80::1"].map(nbma);
    cloud.names.insert("hub.nave.test".to_owned(), addresses.to_vec());
    cloud.run(seconds(130));
    assert!(cloud.looked_up.len() > asked);
    let bound = cloud.nodes[HUB].dataplane.bound("10.255.0.11");
    assert_eq!(bound.map(|(nbma, _)| nbma), Some(nbma("203.0.113.11")));
    let State::Nhs(servers) = cloud.nodes[SPOKE1].conductor.show(cloud.now, What::Nhs) else { panic!() };
    let shown = &servers.0[0];
    assert_eq!((shown.name.as_deref(), shown.nbma), (Some("hub.nave.test"), Some(nbma("203.0.113.1"))));
}

#[test]
fn bindings_follow_the_underlay_and_never_into_the_tunnel() {
    let mut cloud = Cloud::phase(3);
    let remote = example(3, "spoke1").replace("203.0.113.11/24", "198.51.100.11/24")
        + "\n[[routes]]\nprefix = \"203.0.113.0/24\"\nnext_hop = \"198.51.100.1\"\n";
    assert!(cloud.apply(SPOKE1, &remote).unwrap() > 0);
    cloud.run(seconds(1));
    let link = |cloud: &Cloud| cloud.nodes[SPOKE1].dataplane.bound("10.255.0.1").unwrap().1;
    assert_eq!(link(&cloud), Some(hop("wan", "198.51.100.1")));

    // A routing daemon learns the underlay, and everything, over the tunnel.
    for prefix in ["203.0.113.1/32", "0.0.0.0/0"] {
        let path = Path::Via(hop("tunnel0", "10.255.0.1"));
        let route = model::program::Route {
            table: model::TableId(0),
            prefix: prefix.parse().unwrap(),
            path,
            expires_in: None,
        };
        cloud.give(SPOKE1, Input::Kernel(Notice::Route { route, present: true }));
    }
    assert_eq!(link(&cloud), Some(hop("wan", "198.51.100.1")));
    assert!(cloud.nodes[SPOKE1].dataplane.way("0.0.0.0/0").is_some(), "but hosts may use it");

    // What DHCP gave, and the daemon's better metric pushed aside, does as well as a route of the configuration.
    let without = remote.split("\n[[routes]]\nprefix = \"203.0.113.0/24\"").next().unwrap().to_owned();
    let path = Path::Via(hop("wan", "198.51.100.2"));
    let prefix = "0.0.0.0/0".parse().unwrap();
    let route = model::program::Route { table: model::TableId(0), prefix, path, expires_in: None };
    cloud.give(SPOKE1, Input::Kernel(Notice::Underlay { route: route.clone(), present: true }));
    cloud.apply(SPOKE1, &without).unwrap();
    assert_eq!(link(&cloud), Some(hop("wan", "198.51.100.2")));
    let over_tunnel = Some(Path::Via(hop("tunnel0", "10.255.0.1")));
    assert_eq!(cloud.nodes[SPOKE1].dataplane.way("0.0.0.0/0"), over_tunnel, "hosts go where they went");
    cloud.give(SPOKE1, Input::Kernel(Notice::Underlay { route, present: false }));

    // Without an underlay route the binding stays, incomplete.
    assert_eq!(link(&cloud), None);
    let State::Dmvpn(dmvpn) = cloud.nodes[SPOKE1].conductor.show(cloud.now, What::Dmvpn) else { panic!() };
    let hub = dmvpn.0[0].peers.iter().find(|p| p.nhs).unwrap();
    assert_eq!((hub.state, hub.reason.as_deref()), (PeerState::Route, Some("no route to 203.0.113.1")));
}

#[test]
fn a_change_of_the_configuration_tells_only_what_is_different() {
    let mut cloud = Cloud::phase(3);
    let before = cloud.nodes[HUB].dataplane.program();
    let steps = cloud.nodes[HUB].dataplane.steps;
    assert_eq!(cloud.apply(HUB, &example(3, "hub")), Ok(0));
    assert_eq!(cloud.nodes[HUB].dataplane.steps, steps, "the same configuration is no step");

    let more = example(3, "hub") + "\n[[routes]]\nprefix = \"172.16.0.0/12\"\nnext_hop = \"192.168.1.9\"\n";
    cloud.apply(HUB, &more).unwrap();
    assert_eq!(cloud.nodes[HUB].dataplane.steps, steps + 1);
    assert!(matches!(cloud.nodes[HUB].orders.last(), Some(Order::Routes(routes)) if routes.len() == 3));
    cloud.apply(HUB, &example(3, "hub")).unwrap();
    assert_eq!(cloud.nodes[HUB].dataplane.program(), before);

    // The tunnel goes, and all that was on it, without one refusal.
    let text = example(3, "hub");
    let bare = text.split("[[tunnels]]").next().unwrap();
    let bare: String = bare.split("[[routes]]").take(1).collect();
    cloud.apply(HUB, &bare).unwrap();
    cloud.run(seconds(1));
    assert!(cloud.nodes[HUB].refusals().is_empty(), "{:?}", cloud.nodes[HUB].refusals());
    let left = cloud.nodes[HUB].dataplane.program();
    assert!(left.keys().all(|(key, owner)| *owner != Owner::Nhrp && *key != Key::Tunnel(name("tunnel0"))));
    assert!(matches!(cloud.nodes[HUB].orders.iter().rev().find(|o| matches!(o, Order::Twins(_))),
        Some(Order::Twins(twins)) if twins.len() == 2));
    // And back.
    cloud.apply(HUB, &text).unwrap();
    cloud.run(seconds(1));
    assert!(cloud.nodes[HUB].refusals().is_empty());
}

#[test]
fn a_wrong_configuration_changes_nothing() {
    let mut cloud = Cloud::phase(3);
    let before = cloud.nodes[HUB].dataplane.program();
    let (steps, events, orders) =
        (cloud.nodes[HUB].dataplane.steps, cloud.nodes[HUB].events.len(), cloud.nodes[HUB].orders.len());
    let good = example(3, "hub");
    for (wrong, sentence) in [
        (good.replace("[node]", "[node"), ""),
        (good.replace("key = 42", "kye = 42"), "kye"),
        (good.replace("mtu = 1400", "mtu = -1"), "mtu"),
        (good.replace("name = \"hub\"", "state_file = \"/elsewhere\""), "node.state_file: cannot change"),
        (good.replace("name = \"hub\"", "name = \"nave\""), "node.name: cannot change"),
        (good.clone() + "\n[management]\nsocket = \"/elsewhere\"\n", "management.socket: cannot change"),
        (good.clone() + "\n[dataplane]\nsocket = \"/elsewhere\"\n", "dataplane.socket: cannot change"),
    ] {
        let refused = cloud.apply(HUB, &wrong).unwrap_err();
        assert!(refused.contains(sentence), "{refused}");
    }
    cloud.run(Duration::ZERO);
    assert_eq!(cloud.nodes[HUB].dataplane.program(), before);
    let node = &cloud.nodes[HUB];
    assert_eq!((node.dataplane.steps, node.events.len(), node.orders.len()), (steps, events, orders));
    assert_eq!(node.conductor.config(), &model::config::Config::parse(&good).unwrap());
}

#[test]
fn a_refused_object_is_told_once_shown_and_tried_again() {
    let mut cloud = Cloud::of(&[example(3, "hub")]);
    let lan = Key::Interface(name("lan"));
    cloud.nodes[HUB].dataplane.refuses = Some((lan, Refusal::NoPort("lan".to_owned())));
    cloud.start(HUB);
    cloud.run(seconds(60));
    let told = cloud.nodes[HUB].refusals().len();
    // The interface, and what stands on it: three routes of its address.
    assert_eq!(told, 4, "{:?}", cloud.nodes[HUB].refusals());
    let State::Counters(counters) = cloud.nodes[HUB].conductor.show(cloud.now, What::Counters) else {
        panic!()
    };
    let refused: Vec<_> = counters.others.iter().filter(|c| c.name == "refused").collect();
    assert!(refused.iter().any(|c| c.sentence.contains("interface lan") && c.sentence.contains("no port")));

    // Once it is there, all of it comes without anybody's doing.
    cloud.nodes[HUB].dataplane.refuses = None;
    cloud.run(seconds(11));
    assert!(cloud.nodes[HUB].dataplane.object(Owner::Config, lan).is_some());
    assert!(cloud.nodes[HUB].dataplane.way("192.168.1.0/24").is_some());
    let State::Counters(counters) = cloud.nodes[HUB].conductor.show(cloud.now, What::Counters) else {
        panic!()
    };
    assert!(counters.others.iter().all(|c| c.name != "refused"));
    assert_eq!(cloud.nodes[HUB].refusals().len(), told);
}

/// Input: spokes have registered. Output: messages by tunnel and type in both directions, and every reason to reject, without the data
/// plane being asked.
#[test]
fn traffic_of_nhrp_is_counted_by_tunnel_and_type() {
    let cloud = Cloud::phase(3);
    let State::NhrpTraffic(traffic) = cloud.nodes[HUB].conductor.show(cloud.now, What::NhrpTraffic) else {
        panic!()
    };
    let of = |message: &str| {
        let counter = traffic.messages.iter().find(|m| m.tunnel == name("tunnel0") && m.message == message);
        counter.map(|m| (m.sent, m.received)).unwrap()
    };
    let (requests, replies) = (of("registration-request"), of("registration-reply"));
    assert_eq!((requests.0, replies.1), (0, 0), "a hub does not register");
    assert!(requests.1 >= 2 && replies.0 == requests.1, "{requests:?} {replies:?}");
    assert_eq!(traffic.messages.len(), 8);
    assert!(
        traffic.rejects.len() > 10 && traffic.rejects.iter().all(|r| r.count == 0 && !r.sentence.is_empty())
    );
    assert!(!What::NhrpTraffic.is_of_dataplane());
}

#[test]
fn twins_of_a_former_life_are_not_swept_while_the_data_plane_is_away() {
    let mut cloud = Cloud::of(&[example(3, "hub")]);
    cloud.give(HUB, Input::Tick);
    assert!(cloud.nodes[HUB].orders.is_empty(), "an order without the ports would remove their twins");
    cloud.greet(HUB);
    cloud.run(seconds(1));
    let twins = |node: &Node| match &node.orders[0] {
        Order::Twins(twins) => twins.clone(),
        other => panic!("{other:?}"),
    };
    let first = twins(&cloud.nodes[HUB]);
    assert_eq!(first.len(), 3);
    // The next life knows their Ethernet addresses before any data plane is there.
    let kept = cloud.nodes[HUB].conductor.kept(cloud.now);
    cloud.nodes[HUB] = node(&example(3, "hub"), kept);
    cloud.give(HUB, Input::Tick);
    assert_eq!(twins(&cloud.nodes[HUB]), first);
}

#[test]
fn clear_counts_and_shortcuts_come_back_when_they_are_wanted() {
    let mut cloud = Cloud::phase(3);
    cloud.redirect("203.0.113.11", "192.168.11.9", "192.168.12.9");
    cloud.run(seconds(1));
    let mut out = Vec::new();
    let now = cloud.now;
    let cleared = cloud.nodes[SPOKE1].conductor.clear(now, nhrp::Clear::default(), &mut out);
    assert!(cleared >= 1);
    cloud.carry_out(SPOKE1, out);
    assert_eq!(cloud.nodes[SPOKE1].dataplane.way("192.168.12.0/24"), None);
    assert!(cloud.nodes[SPOKE1].dataplane.bound("10.255.0.1").is_some(), "the server stays");
}

#[test]
fn a_clean_stop_tells_peers_and_leaves_nothing() {
    let mut cloud = Cloud::phase(3);
    let mut out = Vec::new();
    let now = cloud.now;
    let kept: Kept = cloud.nodes[SPOKE1].conductor.stop(now, &mut out);
    assert!(out.iter().any(|o| matches!(o, controlplane::conductor::Output::Send(_))));
    assert!(matches!(
        out.last(),
        Some(controlplane::conductor::Output::Kernel(Order::Stop { remove_twins: true }))
    ));
    cloud.carry_out(SPOKE1, out);
    // Its own conductor is over: only the others take what it sent.
    while cloud.nodes[HUB].dataplane.bound("10.255.0.11").is_some() {
        let before = cloud.now;
        cloud.run(Duration::from_millis(10));
        assert!(cloud.now.since(now) < seconds(1) && cloud.now > before, "the hub was not told");
    }
    assert!(cloud.nodes[SPOKE1].dataplane.program().is_empty());
    assert_eq!(kept.ports.len(), 2);
}

#[test]
fn goodbyes_do_not_wait_for_a_resync_that_nobody_takes() {
    let mut cloud = Cloud::phase(3);
    cloud.give(SPOKE1, Input::Away { reason: "gone".to_owned() });
    cloud.greet(SPOKE1);
    assert!(cloud.nodes[SPOKE1].conductor.is_waiting());
    let mut out = Vec::new();
    cloud.nodes[SPOKE1].conductor.stop(cloud.now, &mut out);
    assert!(out.iter().any(|o| matches!(o, controlplane::conductor::Output::Send(_))));
}

#[test]
fn the_kernels_mirror_is_programmed_and_goes_with_its_interface() {
    let mut cloud = Cloud::phase(3);
    let neighbour = |mac| Input::Kernel(Notice::Neighbour { hop: hop("lan", "192.168.1.9"), mac });
    cloud.give(HUB, neighbour(Some(model::Mac([2, 1, 1, 1, 1, 1]))));
    let key = Key::Neighbour(hop("lan", "192.168.1.9"));
    assert!(cloud.nodes[HUB].dataplane.object(Owner::Netlink, key).is_some());
    cloud.give(HUB, neighbour(None));
    assert!(cloud.nodes[HUB].dataplane.object(Owner::Netlink, key).is_none());

    // A glean on a LAN is the kernel's to resolve, and not more often than once a second.
    let asked = |cloud: &Cloud| {
        let resolve = |o: &&Order| matches!(o, Order::Resolve(h) if *h == hop("lan", "192.168.1.77"));
        cloud.nodes[HUB].orders.iter().filter(resolve).count()
    };
    for _ in 0..3 {
        cloud.give(HUB, Input::Report(Report::Glean(hop("lan", "192.168.1.77"))));
    }
    assert_eq!(asked(&cloud), 1);
    cloud.run(seconds(1));
    cloud.give(HUB, Input::Report(Report::Glean(hop("lan", "192.168.1.77"))));
    assert_eq!(asked(&cloud), 2);

    let bare =
        example(3, "hub").replace("[[interfaces]]\nname = \"lan\"\naddresses = [\"192.168.1.1/24\"]\n", "");
    cloud.apply(HUB, &bare).unwrap();
    assert!(cloud.nodes[HUB].refusals().is_empty(), "{:?}", cloud.nodes[HUB].refusals());
    let gone = Key::Neighbour(hop("lan", "192.168.1.77"));
    assert!(cloud.nodes[HUB].dataplane.object(Owner::Netlink, gone).is_none());
}

#[test]
fn a_data_plane_that_was_away_for_long_is_not_waited_for_again() {
    let mut cloud = Cloud::phase(3);
    cloud.give(SPOKE1, Input::Away { reason: "gone".to_owned() });
    cloud.run(seconds(1000));
    assert_eq!(cloud.nodes[HUB].dataplane.bound("10.255.0.11"), None);
    cloud.greet(SPOKE1);
    cloud.run(seconds(1));
    assert!(cloud.nodes[HUB].dataplane.bound("10.255.0.11").is_some(), "not after a minute of back-off");
}

#[test]
fn what_others_wait_for_is_tried_again_first() {
    let mut cloud = Cloud::phase(3);
    cloud.give(HUB, Input::Away { reason: "gone".to_owned() });
    let tunnel = Key::Tunnel(name("tunnel0"));
    let refuses = Some((tunnel, Refusal::NoInterface(name("wan"))));
    cloud.nodes[HUB].dataplane = Dataplane::default();
    cloud.nodes[HUB].dataplane.refuses = refuses;
    cloud.greet(HUB);
    cloud.run(seconds(4));
    assert_eq!(cloud.nodes[HUB].dataplane.bound("10.255.0.11"), None);
    cloud.nodes[HUB].dataplane.refuses = None;
    cloud.run(seconds(2));
    assert!(cloud.nodes[HUB].dataplane.object(Owner::Config, tunnel).is_some());
    assert!(cloud.nodes[HUB].dataplane.bound("10.255.0.11").is_some(), "not one retry later than its tunnel");
}

/// Input: a configuration is applied while the data plane acknowledges nothing. Output: it is not in force before the data plane took the
/// steps that make it so; one that is away is not waited for.
#[test]
fn a_configuration_is_in_force_when_the_data_plane_goes_by_it() {
    let mut cloud = Cloud::phase(3);
    let now = cloud.now;
    let conductor = &mut cloud.nodes[HUB].conductor;
    let before = conductor.in_force_by().unwrap();
    assert!(conductor.is_taken(before));
    let text = example(3, "hub").replace("mtu = 1400", "mtu = 1300");
    let (config, changes) = conductor.plan(&text).unwrap();
    assert!(!changes.is_empty());
    conductor.apply(now, config, &mut Vec::new());
    let by = conductor.in_force_by().unwrap();
    assert!(by > before && !conductor.is_taken(by));
    conductor.handle(now, Input::Taken(by), &mut Vec::new());
    assert!(conductor.is_taken(by) && !conductor.is_taken(by + 1));
    conductor.handle(now, Input::Away { reason: "it is gone".to_owned() }, &mut Vec::new());
    assert!(conductor.is_taken(by + 1), "nobody knows when it comes back");
}
