//! TCP through the cloud never stands still: not by way of the hub, not while it changes to the shortcut, not on it.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use tests::capture::Capture;
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::{lock, trail};

const SECONDS: u32 = 10;
/// How long the spoke's control plane is held, so that there is a time before the switch.
const HELD: Duration = Duration::from_secs(3);

#[test]
fn no_tenth_of_a_second_without_a_byte() {
    let _turn = lock::take_turn().unwrap();
    let cloud = Cloud::up(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let (client, server) = (&cloud.nodes[SPOKE1].host, &cloud.nodes[SPOKE2].host);
    let [nbma1, hub, nbma2] = [SPOKE1, HUB, SPOKE2].map(|n| IpAddr::from(cloud.nodes[n].nbma));

    let mut iperf = Command::new("iperf3");
    iperf.args(["-s", "-1", "-J", "-i", "0.1"]).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let listener = server.namespace.spawn(&mut iperf).unwrap();
    sleep(Duration::from_millis(300));

    // The hosts are known to their nodes: what is held below cannot resolve them.
    for spoke in [SPOKE1, SPOKE2] {
        assert!(cloud.pings(spoke, cloud.nodes[spoke].host.router()).unwrap());
    }

    // Small frames are the acknowledgements; they show the way as well as the data do.
    let capture = Capture::start(&cloud.internet, BRIDGE, |bytes| bytes.len() < 150).unwrap();
    for spoke in [SPOKE1, SPOKE2] {
        cloud.nodes[spoke].controlplane.as_ref().unwrap().signal(Signal::SIGSTOP).unwrap();
    }
    let mut iperf = Command::new("iperf3");
    iperf.args(["-c", &server.address().to_string(), "-t", &SECONDS.to_string()]).stdout(Stdio::piped());
    let sender = client.namespace.spawn(&mut iperf).unwrap();
    sleep(HELD);
    for spoke in [SPOKE1, SPOKE2] {
        cloud.nodes[spoke].controlplane.as_ref().unwrap().signal(Signal::SIGCONT).unwrap();
    }
    let sent = sender.wait_with_output().unwrap();
    println!("{}", String::from_utf8_lossy(&sent.stdout));
    assert!(sent.status.success());
    let received = listener.wait_with_output().unwrap();
    let frames = capture.finish().unwrap();

    let report: Value = serde_json::from_slice(&received.stdout).unwrap();
    let intervals = report["intervals"].as_array().unwrap();
    let bytes = |i: &Value| (i["sum"]["start"].as_f64().unwrap(), i["sum"]["bytes"].as_u64().unwrap());
    // The last one may be a sliver.
    let whole: Vec<_> =
        intervals.iter().filter(|i| i["sum"]["seconds"].as_f64().unwrap() > 0.05).map(bytes).collect();
    assert!(whole.len() >= usize::try_from(SECONDS * 10 - 2).unwrap(), "{} intervals", whole.len());
    let silent: Vec<_> = whole.iter().filter(|(_, bytes)| *bytes == 0).collect();
    assert!(silent.is_empty(), "no byte in the intervals at {silent:?}");

    // And there was a switch, in the middle.
    let acks = trail::legs(&frames, (server.address().into(), client.address().into()));
    let (began, first) = (acks[0].0, (acks[0].1, acks[0].2));
    assert_eq!(first, (nbma2, hub), "the first acknowledgement goes by the hub");
    let direct = acks.iter().find(|(_, from, to)| (*from, *to) == (nbma2, nbma1)).unwrap();
    let after = direct.0 - began;
    println!("switched to the shortcut {} ms after the first packet", after.as_millis());
    assert!(after > HELD / 2 && after < HELD * 2, "switched after {after:?}");
}
