//! The story, chapter by chapter, and what it claims.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use tests::capture::Capture;
use tests::census::{Census, Kind};
use tests::cloud::{BRIDGE, Cloud, HUB, Phase, SPOKE1, SPOKE2};
use tests::keys::Protection;
use tests::traffic::{PAYLOAD, Stream};
use tests::trail::{self, Way};
use tests::wait;

use crate::observer::Observer;
use crate::teller::Teller;

/// UDP port of the numbered flows; the way back has the next one.
const PORT: u16 = 5000;
/// Packets a second, each way.
const RATE: u32 = 1000;
/// How long they are sent.
const TALK: Duration = Duration::from_secs(5);
/// From the first packet to the first that goes straight.
const SWITCH: Duration = Duration::from_millis(100);
/// The same where the spokes have to agree on keys first.
const SWITCH_WITH_IKE: Duration = Duration::from_millis(250);
/// Bytes of a ping's IP packet.
const PING: usize = 84;

/// Tells it. Errors are of what the story needs; what it claims is checked with the teller.
pub(crate) fn tell(
    cloud: &mut Cloud,
    phase: Phase,
    protection: Protection,
    teller: &mut Teller,
) -> Result<()> {
    teller.chapter(&format!("A hub, then a spoke (DMVPN phase {})", phase.number()));
    teller.tell("underlay 203.0.113.0/24, overlay 10.255.0.0/24, LANs 192.168.{1,11,12}.0/24");
    match protection {
        Protection::Ikev2 => teller.tell(
            "tunnels are protected by ESP with AES-GCM; IKEv2 agrees on keys, with certificates of an authority that is made for this run",
        ),
        Protection::StaticKeys => teller.tell(&format!(
            "tunnels are protected by ESP with AES-GCM; {} static keys are made for this run, two for each pair of nodes",
            2 * cloud.pairs.len()
        )),
        Protection::None => teller.tell("tunnels are in the clear"),
    }
    for node in [HUB, SPOKE1] {
        start(cloud, node, teller)?;
    }
    register(cloud, SPOKE1, teller)?;
    unregistered(cloud, protection, teller)?;

    teller.chapter("The other spoke comes");
    start(cloud, SPOKE2, teller)?;
    register(cloud, SPOKE2, teller)?;

    talk(cloud, phase, protection, teller)?;
    stopped(cloud, teller)?;
    tables(cloud, protection, teller)?;
    cloud.check_alive()
}

fn start(cloud: &mut Cloud, index: usize, teller: &Teller) -> Result<()> {
    cloud.start_dataplane(index).with_context(|| cloud.nodes[index].logs())?;
    let node = &mut cloud.nodes[index];
    node.start_controlplane().with_context(|| node.logs())?;
    let id = |p: &Option<tests::process::Process>| p.as_ref().map_or(0, tests::process::Process::id);
    teller.tell(&format!(
        "{} is up: data plane (process {}) and control plane (process {}) at {}",
        node.name,
        id(&node.dataplane),
        id(&node.controlplane),
        node.nbma
    ));
    Ok(())
}

fn register(cloud: &mut Cloud, spoke: usize, teller: &Teller) -> Result<()> {
    cloud.wait_registered(spoke)?;
    let node = &cloud.nodes[spoke];
    teller.tell(&format!("{} is registered: {} is at {}", node.name, node.tunnel, node.nbma));
    Ok(())
}

/// A host behind the hub calls one behind a spoke that nobody knows yet.
fn unregistered(cloud: &Cloud, protection: Protection, teller: &mut Teller) -> Result<()> {
    teller.chapter("A spoke that has not registered");
    let to = cloud.nodes[SPOKE2].host.address();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true)?;
    let ping = ["-n", "-c", "3", "-i", "0.5", "-W", "1", &to.to_string()];
    let output = cloud.nodes[HUB].host.namespace.output("ping", &ping)?;
    let frames = capture.finish()?;
    let leaked = match protection {
        // Nobody else sends anything of that size now.
        Protection::Ikev2 => trail::sealed_legs(&frames, PING).len(),
        _ => trail::inner_packets_to(&cloud.keys().read(&frames), to.into()),
    };
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer = words.lines().find(|l| l.contains("Unreachable")).unwrap_or("no answer");
    let refused = answer.contains("Destination Host Unreachable") && answer.contains("192.168.1.1");
    teller.check(refused, &format!("{to} is told to be unreachable by the hub"), answer);
    teller.check(leaked == 0, "and nothing for it is on the underlay", &format!("{leaked} packets"));
    Ok(())
}

/// A thousand packets a second each way between the spokes' hosts, from the first ARP request on.
fn talk(cloud: &mut Cloud, phase: Phase, protection: Protection, teller: &mut Teller) -> Result<()> {
    teller.chapter(&format!(
        "The spokes' hosts talk: {RATE} packets a second each way for {} s",
        TALK.as_secs()
    ));
    let mut observer = Observer::start(cloud, PORT)?;
    let there = Stream::start(cloud.flow(SPOKE1, SPOKE2, PORT, RATE))?;
    let back = Stream::start(cloud.flow(SPOKE2, SPOKE1, PORT + 1, RATE))?;
    while there.elapsed() < TALK {
        observer.tell_news(&cloud.nodes, teller);
        cloud.check_alive()?;
        sleep(Duration::from_millis(20));
    }
    back.stop();
    let tallies = [there.finish()?, back.finish()?];
    observer.tell_news(&cloud.nodes, teller);
    let frames = observer.finish()?;

    for tally in &tallies {
        teller.check(tally.is_whole(), "nothing is lost, nothing comes twice", &tally.to_string());
    }
    let opened = cloud.keys().open(&frames);
    if protection == Protection::StaticKeys {
        let seen = format!("{} packets, {} of them do not", opened.sealed, opened.closed);
        teller.check(
            opened.sealed > 0 && opened.closed == 0,
            "every ESP packet opens with the keys of this run, and is authentic",
            &seen,
        );
    }
    for (spokes, port) in [((SPOKE1, SPOKE2), PORT), ((SPOKE2, SPOKE1), PORT + 1)] {
        let [from, to] = [spokes.0, spokes.1].map(|spoke| IpAddr::from(cloud.nodes[spoke].host.address()));
        let [a, hub, b] = [spokes.0, HUB, spokes.1].map(|node| IpAddr::from(cloud.nodes[node].nbma));
        let (way, switch) = match protection {
            Protection::Ikev2 => {
                (Way::of_sealed(&trail::sealed_legs(&frames, FLOW), a, hub, b), SWITCH_WITH_IKE)
            }
            _ => (Way::of(&trail::steps(&opened.frames, (from, to), port), a, hub, b), SWITCH),
        };
        judge_way(phase, way, switch, &format!("{from} → {to}"), spokes.0 == SPOKE2, teller);
    }
    Ok(())
}

/// Bytes of an IP packet of the numbered flows.
pub(crate) const FLOW: usize = 28 + PAYLOAD;

fn judge_way(
    phase: Phase,
    way: Result<Way>,
    switch: Duration,
    flow: &str,
    is_second: bool,
    teller: &mut Teller,
) {
    let seen = way.as_ref().map_or_else(|error| format!("{error:#}"), ToString::to_string);
    let claim = match phase {
        Phase::One => "every packet goes by the hub".to_owned(),
        Phase::Two | Phase::Three => {
            format!("packets go by the hub, and straight within {} ms of the first", switch.as_millis())
        }
    };
    let holds = way.is_ok_and(|way| match phase {
        Phase::One => way.direct == 0 && way.relayed > 0,
        // The second flow may find the way prepared by the first.
        _ => (way.relayed > 0 || is_second) && way.first_direct_after.is_some_and(|after| after <= switch),
    });
    teller.check(holds, &format!("{flow}, on the underlay: {claim}"), &seen);
}

/// It was the data planes that forwarded, and nothing else.
fn stopped(cloud: &mut Cloud, teller: &mut Teller) -> Result<()> {
    teller.chapter("All data planes are stopped");
    signal(cloud, Signal::SIGSTOP)?;
    let stream = Stream::start(cloud.flow(SPOKE1, SPOKE2, PORT + 2, 100))?;
    sleep(Duration::from_secs(1));
    let arrived = stream.arrived();
    signal(cloud, Signal::SIGCONT)?;
    stream.finish()?;
    teller.check(
        arrived == 0,
        "nothing passes",
        &format!("{arrived} of 100 packets arrived within a second"),
    );
    let began = Instant::now();
    let to = cloud.nodes[SPOKE2].host.address();
    let again =
        wait::until_true("traffic", Duration::from_secs(10), || cloud.pings(SPOKE1, to).unwrap_or(false));
    let seen = format!("{} ms after they go on", began.elapsed().as_millis());
    teller.check(again.is_ok(), "and then traffic passes again", &seen);
    Ok(())
}

fn signal(cloud: &Cloud, signal: Signal) -> Result<()> {
    cloud.nodes.iter().filter_map(|n| n.dataplane.as_ref()).try_for_each(|p| p.signal(signal))
}

/// All that was on the underlay while anything ran.
pub(crate) fn underlay(census: &Census, protection: Protection, teller: &mut Teller) {
    teller.chapter("The underlay, from before the first start until after the last exit");
    teller.tell(&census.to_string());
    let [gre, others] = [Kind::Gre, Kind::Other].map(|kind| census.count(kind));
    let carried = format!("protocol 50: {} packets, protocol 47: {gre}", census.count(Kind::Esp));
    let shown = frames(census.shown());
    if protection == Protection::None {
        let claim = "tunnels went in the clear, as was asked for";
        teller.check(gre > 0 && census.esp() == 0, claim, &carried);
        let claim = "and frames show addresses of the overlay and the LANs, and what hosts say";
        teller.check(census.shown() > 0, claim, &shown);
        return;
    }
    let claim = "tunnels went as ESP, and never in the clear";
    teller.check(gre == 0 && census.esp() > 0, claim, &carried);
    teller.check(others == 0, "nothing else was there but IKE's ports, ARP and ICMP", &frames(others));
    let claim = "no frame shows an address of the overlay or of a LAN, or what hosts say";
    teller.check(census.shown() == 0, claim, &shown);
    let claim = "no SA uses an IV twice, and their sequence numbers go up";
    teller.check(census.is_fresh(), claim, &format!("{} SAs", census.sas()));
    if let Err(fault) = census.check() {
        println!("{fault:#}");
    }
}

fn frames(count: u64) -> String {
    format!("{count} frames")
}

fn tables(cloud: &Cloud, protection: Protection, teller: &Teller) -> Result<()> {
    let of_ike = [(HUB, "show ike"), (SPOKE1, "show ike --detail"), (SPOKE1, "show sa")];
    let of_ike = of_ike.into_iter().filter(|_| protection == Protection::Ikev2);
    let of_all = [
        (HUB, "show dmvpn"),
        (HUB, "show nhrp"),
        (SPOKE1, "show dmvpn"),
        (SPOKE1, "show nhrp"),
        (SPOKE1, "show nhs"),
        (SPOKE1, "show adjacency"),
        (SPOKE1, "show drops"),
    ];
    for (index, words) in of_all.into_iter().chain(of_ike) {
        let node = &cloud.nodes[index];
        teller.chapter(&format!("{}: nave {words}", node.name));
        print!("{}", node.nave(words)?);
    }
    Ok(())
}
