//! Twins of other tables: in namespaces of their own.

use super::*;

/// In table 7.
fn there(spec: TwinSpec, netns: &Netns) -> TwinSpec {
    TwinSpec { table: TableId(7), netns: Some(netns.0.clone()), ..spec }
}

fn named(spec: TwinSpec, name: &str) -> TwinSpec {
    TwinSpec { name: name.parse().unwrap(), ..spec }
}

fn in_table_7(notice: Notice) -> Notice {
    match notice {
        Notice::Route { route, present } => {
            Notice::Route { route: Route { table: TableId(7), ..route }, present }
        }
        other => other,
    }
}

#[test]
fn two_tables_with_the_same_addresses_know_nothing_of_each_other() {
    let (home, red) = (Netns::new(), Netns::unmade());
    home.run(async |mut kernel| {
        let specs = vec![lan(&["10.1.0.1/24"]), there(named(lan(&["10.1.0.1/24"]), "lan1"), &red)];
        let heard = kernel.twins(specs.clone()).await;
        assert_eq!(heard, [address("lan0", "10.1.0.1/24", true), address("lan1", "10.1.0.1/24", true)]);
        assert!(home.ip("link show").contains("lan0") && !home.ip("link show").contains("lan1"));
        assert!(red.ip("addr show lan1").contains("inet 10.1.0.1/24 brd 10.1.0.255"));
        assert!(red.ip("link show lo").contains("LOOPBACK,UP"));
        assert_eq!(red.setting("ipv4/conf/lan1/arp_ignore"), "1", "in the namespace, not here");

        // The same neighbour, resolved by each for itself.
        let queue = home.attach("lan0", twin::Kind::Tap);
        let queue_there = red.attach("lan1", twin::Kind::Tap);
        for (interface, queue, mac) in [("lan0", &queue, 8), ("lan1", &queue_there, 9)] {
            let neighbour = hop(interface, "10.1.0.9");
            kernel.order(Order::Resolve(neighbour)).await;
            tokio::task::yield_now().await;
            std::thread::scope(|scope| {
                scope.spawn(|| answer_arp(queue, [10, 1, 0, 9], [2, 0, 0, 0, 0, mac]));
            });
            let mac = Some(Mac([2, 0, 0, 0, 0, mac]));
            assert_eq!(kernel.next().await, Notice::Neighbour { hop: neighbour, mac });
        }

        // Routes of a daemon, and our own.
        red.ip("route add 192.168.7.0/24 via 10.1.0.2 proto ospf");
        assert_eq!(kernel.next().await, in_table_7(told("192.168.7.0/24", "lan1", "10.1.0.2", true)));
        home.ip("route add 192.168.7.0/24 via 10.1.0.3 proto ospf");
        assert_eq!(kernel.next().await, told("192.168.7.0/24", "lan0", "10.1.0.3", true));
        let here = route("0.0.0.0/0", Path::Via(hop("lan0", "10.1.0.254")));
        let away = Route { table: TableId(7), path: Path::Via(hop("lan1", "10.1.0.254")), ..here.clone() };
        kernel.order(Order::Routes(vec![here, away])).await;
        kernel.quiet().await;
        assert_eq!(home.ip("route show proto 78").trim(), "default via 10.1.0.254 dev lan0 onlink");
        assert_eq!(red.ip("route show proto 78").trim(), "default via 10.1.0.254 dev lan1 onlink");

        // Ordered again, nothing happens to them.
        let (mut watch, mut watch_there) = (Watch::new(&home), Watch::new(&red));
        kernel.twins(specs).await;
        assert_eq!((watch.seen(), watch_there.seen()), (vec![], vec![]));
    });
}

#[test]
fn a_namespace_is_made_kept_by_a_kill_and_removed_at_a_clean_stop() {
    let (home, red) = (Netns::new(), Netns::unmade());
    let specs = vec![there(tunnel(), &red)];
    home.run(async |mut kernel| drop(kernel.twins(specs.clone()).await));
    assert!(red.is_there());
    let before = index(&red, "tunnel0");
    home.run(async |mut kernel| {
        assert_eq!(kernel.twins(specs.clone()).await, [address("tunnel0", "10.255.0.1/24", true)]);
        assert_eq!(index(&red, "tunnel0"), before, "adopted");
        kernel.order(Order::Stop { remove_twins: true }).await;
        while kernel.notices.recv().await.is_some() {}
    });
    assert!(!red.is_there());
}

#[test]
fn a_namespace_that_the_configuration_names_no_longer_goes() {
    let (home, red) = (Netns::new(), Netns::unmade());
    home.run(async |mut kernel| {
        kernel.twins(vec![there(tunnel(), &red)]).await;
        let heard = kernel.twins(vec![lan(&[])]).await;
        assert_eq!(heard, [address("tunnel0", "10.255.0.1/24", false)]);
        assert!(!red.is_there());
        kernel.twins(vec![there(tunnel(), &red)]).await;
    });
    // Nor after a life in which it was not told.
    assert!(red.is_there());
    home.run(async |mut kernel| {
        kernel.twins(vec![lan(&[])]).await;
        assert!(!red.is_there());
    });
}

#[test]
fn a_namespace_of_somebody_else_is_used_and_left() {
    let (home, theirs) = (Netns::new(), Netns::new());
    home.run(async |mut kernel| {
        kernel.twins(vec![there(tunnel(), &theirs)]).await;
        assert!(theirs.ip("link show").contains("tunnel0"));
        kernel.order(Order::Stop { remove_twins: true }).await;
        while kernel.notices.recv().await.is_some() {}
    });
    assert!(!theirs.ip("link show").contains("tunnel0"));
    assert!(!theirs.ip("-d link show lo").contains("alias"));
}

#[test]
fn a_namespace_that_others_use_stays_at_a_clean_stop() {
    let (home, red, blue) = (Netns::new(), Netns::unmade(), Netns::unmade());
    let mut sleeper = None;
    home.run(async |mut kernel| {
        kernel.twins(vec![there(tunnel(), &red), there(named(lan(&[]), "lan7"), &blue)]).await;
        red.ip("link add other0 type veth peer name other1");
        let sleep = || Command::new("sleep").arg("60").spawn().unwrap();
        sleeper = Some(in_netns(blue.0.as_ref(), sleep).unwrap());
        kernel.order(Order::Stop { remove_twins: true }).await;
        while kernel.notices.recv().await.is_some() {}
    });
    let mut sleeper = sleeper.unwrap();
    let left = (red.is_there(), blue.is_there());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert_eq!(left, (true, true));
    let links = red.ip("link show");
    assert!(links.contains("other0") && !links.contains("tunnel0"), "{links}");
}

#[test]
fn a_namespace_that_another_node_made_is_not_used() {
    let (one, two, red) = (Netns::new(), Netns::new(), Netns::unmade());
    one.run(async |mut first| {
        first.twins(vec![there(tunnel(), &red)]).await;
        two.run(async |mut second| {
            let heard = second.twins(vec![there(lan(&["10.1.0.1/24"]), &red)]).await;
            let [Notice::Failed { order, reason }] = &heard[..] else { panic!("{heard:?}") };
            assert_eq!(*order, format!("use network namespace `{}`", red.0));
            assert!(reason.starts_with("the node in net:["), "{reason}");
        });
        first.quiet().await;
        let links = red.ip("link show");
        assert!(links.contains("tunnel0") && !links.contains("lan0"), "{links}");
    });
}

#[test]
fn the_namespace_of_table_0_is_not_that_of_another() {
    let home = Netns::new();
    home.run(async |mut kernel| {
        let heard = kernel.twins(vec![tunnel(), there(lan(&["10.1.0.1/24"]), &home)]).await;
        let failed = heard.iter().find_map(|notice| match notice {
            Notice::Failed { order, reason } => Some((order.as_str(), reason.as_str())),
            _ => None,
        });
        let order = format!("use network namespace `{}`", home.0);
        assert_eq!(failed, Some((order.as_str(), "it is also that of another table")));
        kernel.quiet().await;
        let links = home.ip("link show");
        assert!(links.contains("tunnel0") && !links.contains("lan0"), "{links}");
    });
}

#[test]
fn a_namespace_that_is_removed_is_told_and_made_again() {
    let (home, red) = (Netns::new(), Netns::unmade());
    home.run(async |mut kernel| {
        kernel.twins(vec![there(tunnel(), &red)]).await;
        let queue = red.attach("tunnel0", twin::Kind::Tun);
        assert!(Command::new("ip").args(["netns", "del", &red.0]).status().unwrap().success());
        assert_eq!(kernel.next().await, address("tunnel0", "10.255.0.1/24", false));
        let lost = Notice::Failed {
            order: format!("keep network namespace `{}`", red.0),
            reason: "it was removed".to_owned(),
        };
        assert_eq!(kernel.next().await, lost);
        assert_eq!(kernel.next().await, address("tunnel0", "10.255.0.1/24", true));
        assert_eq!(kernel.next().await, Notice::Synced);
        assert!(twin::is_gone(&queue.read(&mut [0; 64]).unwrap_err()), "the data plane is to notice");
        assert!(red.ip("link show tunnel0").contains("LOWER_UP"));
        kernel.quiet().await;
    });
}

#[test]
fn a_twin_that_moves_is_gone_before_it_is_there() {
    let (home, red) = (Netns::new(), Netns::unmade());
    home.run(async |mut kernel| {
        kernel.twins(vec![lan(&["10.1.0.1/24"]), there(tunnel(), &red)]).await;
        let heard = kernel.twins(vec![there(lan(&["10.1.0.1/24"]), &red), tunnel()]).await;
        let gone = [address("lan0", "10.1.0.1/24", false), address("tunnel0", "10.255.0.1/24", false)];
        let there_again = [address("tunnel0", "10.255.0.1/24", true), address("lan0", "10.1.0.1/24", true)];
        assert_eq!(heard, [gone, there_again].concat());
        assert!(home.ip("link show").contains("tunnel0") && !home.ip("link show").contains("lan0"));
    });
}
