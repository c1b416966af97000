//! Who may register, and what the others notice of who may not.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::IpAddr;
use std::time::Duration;

use tests::capture::Capture;
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::probe::Probe;
use tests::{frame, lock, trail, tshark, wait};

/// How long what follows at once may take.
const SOON: Duration = Duration::from_secs(5);

fn registers_without_unique(cloud: &mut Cloud, spoke: usize) {
    let node = &mut cloud.nodes[spoke];
    node.nhrp().unwrap().insert("registration".to_owned(), toml::toml! { unique = false }.into());
    node.apply().unwrap();
}

/// Input: two spokes with the tunnel address of one. Output: the second is refused (14), and says so; the first does not notice. Once
/// both let go of the claim to have it alone, the second takes it over.
#[test]
fn a_unique_address_stays_with_who_registered_it_first() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let [hub, spoke1, spoke2] = [HUB, SPOKE1, SPOKE2].map(|node| IpAddr::from(cloud.nodes[node].nbma));
    let (server, claimed) = (cloud.nodes[HUB].tunnel, cloud.nodes[SPOKE1].tunnel);
    let own = cloud.nodes[SPOKE2].tunnel;
    cloud.nodes[SPOKE2].edit(|text| text.replace(&format!("{own}/"), &format!("{claimed}/"))).unwrap();
    for node in [HUB, SPOKE1] {
        cloud.start_node(node).unwrap();
    }
    cloud.wait_registered(SPOKE1).unwrap();
    let first = Some(("dynamic".to_owned(), spoke1));
    let holder = |cloud: &Cloud| cloud.nodes[HUB].binding(claimed).unwrap();
    assert_eq!(holder(&cloud), first);
    let entry = cloud.nodes[HUB].entry(&format!("{claimed}/32")).unwrap().unwrap();
    assert_eq!(entry["flags"]["unique"], true, "{entry:#}");

    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    cloud.start_node(SPOKE2).unwrap();
    wait::until("the refusal", SOON, || {
        let said = cloud.nodes[SPOKE2].server(server)?;
        anyhow::ensure!(said["refusal"] == "unique address already registered", "{said:#}");
        anyhow::ensure!(said["state"] == "expecting", "{said:#}");
        Ok(())
    })
    .unwrap();
    let heard = tshark::spoken(&capture.finish().unwrap()).unwrap();
    let refusals: Vec<_> = heard.iter().filter(|m| m.is(4, hub, spoke2)).collect();
    assert!(!refusals.is_empty() && refusals.iter().all(|m| m.codes.first() == Some(&14)), "{heard:#?}");
    // Nothing is said to the first, who stays what it was.
    assert_eq!(heard.iter().filter(|m| m.destination == spoke1).count(), 0, "{heard:#?}");
    assert_eq!(holder(&cloud), first);
    assert!(cloud.pings(HUB, cloud.nodes[SPOKE1].host.address()).unwrap());

    registers_without_unique(&mut cloud, SPOKE1);
    wait::until_true("an address that is not unique", SOON, || {
        let entry = cloud.nodes[HUB].entry(&format!("{claimed}/32")).unwrap().unwrap();
        entry["flags"]["unique"] == false
    })
    .unwrap();
    registers_without_unique(&mut cloud, SPOKE2);
    wait::until_true("the takeover", SOON, || holder(&cloud) == Some(("dynamic".to_owned(), spoke2)))
        .unwrap_or_else(|e| panic!("{e:#}: {:?}", holder(&cloud)));
    let said = cloud.nodes[SPOKE2].server(server).unwrap();
    assert_eq!(
        (&said["state"], &said["refusal"]),
        (&"responding".into(), &serde_json::Value::Null),
        "{said:#}"
    );
    cloud.check_alive().unwrap();
}

/// Wrong registrations at once, which have no answer each.
const FLOOD: u32 = 300;

/// Input: a spoke with another word than the hub's, and a flood of such messages. Output: error indications with code 11, a few; each
/// message is counted; the spoke is not served until its word is right.
#[test]
fn another_word_is_answered_with_an_error_now_and_then_and_counted_always() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let [hub, spoke2] = [HUB, SPOKE2].map(|node| IpAddr::from(cloud.nodes[node].nbma));
    let server = cloud.nodes[HUB].tunnel;
    let to_hub = cloud.nodes[HUB].host.address();
    let word = |cloud: &mut Cloud, word: &str| {
        cloud.nodes[SPOKE2].nhrp().unwrap().insert("authentication".to_owned(), word.into())
    };
    let right = word(&mut cloud, "spoke").unwrap();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    cloud.start_processes().unwrap();
    cloud.wait_registered(SPOKE1).unwrap();
    let counted = || {
        let counters = cloud.nodes[HUB].nave_json("show counters").unwrap();
        let rejects = counters["rejects"].as_array().unwrap();
        rejects.iter().find(|c| c["name"] == "authentication").unwrap()["count"].as_u64().unwrap()
    };
    wait::until_true("a registration with the wrong word", SOON, || counted() > 0).unwrap();
    assert!(!cloud.pings(SPOKE2, to_hub).unwrap());
    assert_eq!(cloud.nodes[HUB].binding(cloud.nodes[SPOKE2].tunnel).unwrap(), None);
    wait::until("what the spoke says of it", SOON, || {
        let said = cloud.nodes[SPOKE2].server(server)?;
        anyhow::ensure!(
            said["state"] == "expecting" && said["refusal"] == "authentication failure",
            "{said:#}"
        );
        Ok(())
    })
    .unwrap();

    let probe = Probe::plug_in(&cloud).unwrap();
    let mac = probe.resolve(cloud.nodes[HUB].nbma).unwrap();
    let before = counted();
    for id in 0..FLOOD {
        let client = [10, 255, 0, 66].into();
        let message = frame::nhrp_registration(id, Probe::ADDRESS, client, server, Some("spoke"));
        let packet = frame::gre(Some(42), trail::NHRP, &message);
        probe.send(mac, &frame::ipv4((Probe::ADDRESS, cloud.nodes[HUB].nbma), 47, 64, &packet)).unwrap();
    }
    wait::until_true("every one of them counted", SOON, || counted() >= before + u64::from(FLOOD)).unwrap();
    let heard = tshark::spoken(&capture.finish().unwrap()).unwrap();
    let errors = |to: IpAddr| heard.iter().filter(|m| m.is(7, hub, to)).collect::<Vec<_>>();
    for to in [spoke2, Probe::ADDRESS.into()] {
        let errors = errors(to);
        assert!(!errors.is_empty() && errors.iter().all(|m| m.error == Some(11)), "to {to}: {errors:#?}");
    }
    let answered = errors(Probe::ADDRESS.into()).len();
    println!("{answered} errors for {FLOOD} messages");
    assert!(answered < FLOOD as usize / 2, "{answered} errors for {FLOOD} messages");

    word(&mut cloud, right.as_str().unwrap());
    cloud.nodes[SPOKE2].apply().unwrap();
    cloud.wait_registered(SPOKE2).unwrap();
    assert_eq!(cloud.nodes[SPOKE2].server(server).unwrap()["refusal"], serde_json::Value::Null);
    assert!(cloud.pings(SPOKE2, to_hub).unwrap());
    cloud.check_alive().unwrap();
}
