//! What a router tells the senders of packets that cannot go on, as hosts hear it: the hops of a path, and how large a packet
//! may be.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::time::Duration;

use tests::cloud::{self, Cloud, Phase, Ports, SPOKE1, SPOKE2};
use tests::{lock, wait};

/// What ping says of one packet to the host behind spoke2.
fn ping(cloud: &Cloud, arguments: &[&str]) -> String {
    let to = cloud.nodes[SPOKE2].host.address.to_string();
    let arguments = [&["-n", "-c", "1", "-W", "2"], arguments, &[&to]].concat();
    let output = cloud.nodes[SPOKE1].host.namespace.output("ping", &arguments).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Who answers packets that may go 1, 2, 3 … hops, up to the host itself.
fn hops(cloud: &Cloud) -> Vec<String> {
    let mut hops = Vec::new();
    for ttl in 1..8 {
        let said = ping(cloud, &["-t", &ttl.to_string()]);
        if said.contains(" 0% packet loss") {
            return hops;
        }
        let line = said.lines().find(|line| line.contains("Time to live exceeded"));
        let line = line.unwrap_or_else(|| panic!("hop {ttl}: {said}"));
        hops.push(line.split(' ').nth(1).unwrap().to_owned());
    }
    panic!("more than {hops:?}");
}

#[test]
fn a_path_shows_its_hops_and_what_it_takes() {
    let _turn = lock::take_turn().unwrap();
    let by_hub = Cloud::up(&cloud::test_prefix(), Phase::One, Ports::Tap).unwrap();
    let to = by_hub.nodes[SPOKE2].host.address;
    let reach = |cloud: &Cloud| {
        wait::until_true("the first ping", Duration::from_secs(10), || cloud.pings(SPOKE1, to).unwrap())
            .unwrap();
    };
    reach(&by_hub);
    assert_eq!(hops(&by_hub), ["192.168.11.1", "10.255.0.1", "10.255.0.12"]);
    drop(by_hub);

    let direct = Cloud::up(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    reach(&direct);
    wait::until_true("the shortcut", Duration::from_secs(5), || hops(&direct).len() == 2).unwrap();
    assert_eq!(hops(&direct), ["192.168.11.1", "10.255.0.12"]);

    // A host that does not know what the tunnel takes finds out.
    direct.nodes[SPOKE1].host.namespace.ip("route replace default via 192.168.11.1").unwrap();
    // The tunnels take 1,400 bytes: 20 of IPv4, 8 of ICMP, and the payload.
    assert!(ping(&direct, &["-M", "do", "-s", "1372"]).contains(" 0% packet loss"));
    let said = ping(&direct, &["-M", "do", "-s", "1373"]);
    assert!(said.contains("From 192.168.11.1") && said.contains("(mtu = 1400)"), "{said}");

    // Where no route leads.
    let far = ["-n", "-c", "1", "-W", "2", "198.18.0.1"];
    let said = direct.nodes[SPOKE1].host.namespace.output("ping", &far).unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("From 192.168.11.1") && said.contains("Destination Net Unreachable"), "{said}");
}
