//! The control plane as a process on real sockets: registration through gRPC, kills on both sides, a clean stop, management
//! beside stalled clients and a stalled data plane.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::process::*;
use common::*;
use controlplane::kernel::{Notice, Order};
use futures::StreamExt;
use model::observe::{CaptureRequest, Tap, TraceRequest};
use model::program::{Key, Object};
use model::report::Report;
use model::state::event::Happening;
use model::state::{Explanation, Filter, Show, State, What};
use proto::{Apply, Clear};

const SOON: Duration = Duration::from_secs(30);

/// Why packets to an address go where they go.
async fn explain(
    process: &ControlplaneProcess,
    address: &str,
    table: Option<u32>,
) -> Result<Explanation, proto::client::Error> {
    let filter =
        Filter { address: address.parse().ok(), table: table.map(model::TableId), ..Filter::default() };
    match process.management.show(Show { what: What::Explain, filter }).await? {
        State::Explanation(explanation) => Ok(*explanation),
        other => panic!("{other:?}"),
    }
}

/// A hub and a spoke, each both processes.
struct Pair {
    underlay: Underlay,
    folders: [Folder; 2],
    dataplanes: [DataplaneProcess; 2],
    controlplanes: [ControlplaneProcess; 2],
}

impl Pair {
    async fn new(test: &str) -> Self {
        let underlay = Underlay::default();
        let folders = ["hub", "spoke1"].map(|n| Folder::new(&format!("{test}-{n}"), &example(3, n)));
        let dataplanes = [
            DataplaneProcess::start(&folders[0], 10, &underlay),
            DataplaneProcess::start(&folders[1], 11, &underlay),
        ];
        let controlplanes =
            [ControlplaneProcess::start(&folders[0]).await, ControlplaneProcess::start(&folders[1]).await];
        let pair = Self { underlay, folders, dataplanes, controlplanes };
        wait("the registration", || pair.is_registered()).await;
        pair
    }

    fn is_registered(&self) -> bool {
        is_registered(&self.dataplanes[0])
    }
}

fn is_registered(hub: &DataplaneProcess) -> bool {
    hub.served.program.lock().unwrap().bound("10.255.0.11").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_registers_is_managed_and_stops_cleanly() {
    let Pair { folders, dataplanes, controlplanes: [hub, spoke], .. } = Pair::new("manage").await;
    let management = &hub.management;
    let State::Dmvpn(dmvpn) = management.show(What::Dmvpn.into()).await.unwrap() else { panic!() };
    assert!(dmvpn.0[0].peers.iter().any(|p| p.protocol == protocol("10.255.0.11")), "{dmvpn}");
    let State::Ports(_) = management.show(What::Ports.into()).await.unwrap() else { panic!() };
    let State::Counters(counters) = management.show(What::Counters.into()).await.unwrap() else { panic!() };
    assert!(counters.messages.iter().any(|m| m.message == "registration-request" && m.received > 0));

    // Packets are observed where they are: the data plane's words are passed on.
    let request = TraceRequest { packets: 2.try_into().unwrap(), address: None };
    let steps: Vec<_> = management.trace(request).await.unwrap().collect().await;
    assert_eq!(steps.into_iter().map(|step| step.unwrap().packet).collect::<Vec<_>>(), [1, 2]);
    let at = Tap::Node("nowhere".to_owned());
    let request = CaptureRequest { at, packets: None, snap: None, address: None };
    let refused = management.capture(request).await.err().unwrap();
    assert_eq!(refused.code(), Some(proto::Code::InvalidArgument));
    assert_eq!(refused.to_string(), "at: there is no node nowhere");

    let explanation = explain(&hub, "10.255.0.11", None).await.unwrap();
    assert!(explanation.hops.iter().any(|way| way.peer.is_some()), "{explanation}");
    assert_eq!(explanation.away, None);
    for (address, table, sentence) in
        [("", None, "address: missing"), ("10.0.0.1", Some(9), "table: there is no table 9; there are 0")]
    {
        let refused = explain(&hub, address, table).await.unwrap_err();
        assert_eq!((refused.code(), &*refused.to_string()), (Some(proto::Code::InvalidArgument), sentence));
    }

    // Configuration as a transaction: looked at, refused, made so.
    let mut events = management.watch(None).await.unwrap();
    let text = folders[0].config(&example(3, "hub"));
    let apply = |text: String, dry_run| management.apply(Apply { text, dry_run });
    let slower = text.replace("holding_time = 600", "holding_time = 300");
    let changes = apply(slower.clone(), true).await.unwrap().unwrap();
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0].path, "tunnels[tunnel0].nhrp.holding_time");
    assert_eq!(
        apply(slower.clone(), false).await.unwrap().unwrap(),
        changes,
        "the dry run had changed nothing"
    );
    assert_eq!(apply(slower, false).await.unwrap().unwrap(), []);
    let fault =
        apply(text.replace("holding_time = 600", "holding_time = 0"), false).await.unwrap().unwrap_err();
    assert_eq!(fault.path, "tunnels[0].nhrp.holding_time");
    let event = tokio::time::timeout(SOON, events.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((event.node.as_str(), event.what), ("hub", Happening::ConfigApplied { changes: 1 }));

    // The file again: first broken, then good.
    folders[0].write("[node");
    hub.reload.send(()).await.unwrap();
    folders[0].write(&example(3, "hub").replace("mtu = 1400", "mtu = 1300"));
    hub.reload.send(()).await.unwrap();
    let applied = async {
        loop {
            let what = events.next().await.unwrap().unwrap().what;
            if let Happening::ConfigApplied { changes } = what
                && changes > 0
            {
                return changes;
            }
        }
    };
    assert_eq!(tokio::time::timeout(SOON, applied).await.unwrap(), 2, "MTU, and the holding time back");

    let cleared = management.clear(Clear::Nhrp { tunnel: None, address: None }).await.unwrap();
    assert_eq!(cleared, 1);
    wait("the end of the binding", || !is_registered(&dataplanes[0])).await;

    let [hub_state, spoke_state] = folders.each_ref().map(|f| f.path.join("state.json"));
    let orders = std::sync::Arc::clone(&spoke.orders);
    spoke.stop().await;
    hub.stop().await;
    for dataplane in &dataplanes {
        assert!(dataplane.served.program.lock().unwrap().program().is_empty(), "nothing of ours stays");
    }
    assert!(matches!(orders.lock().unwrap().last(), Some(Order::Stop { remove_twins: true })));
    assert!(hub_state.exists() && spoke_state.exists());
    assert!(!folders[0].path.join("controlplane.sock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_control_plane_comes_back_and_a_killed_data_plane_is_programmed_again() {
    let Pair { underlay, folders, dataplanes, controlplanes: [hub, spoke] } = Pair::new("kill").await;
    let [hub_dataplane, spoke_dataplane] = dataplanes;
    let state = folders[0].path.join("state.json");
    wait("the state file", || std::fs::read_to_string(&state).is_ok_and(|s| s.contains("10.255.0.11"))).await;
    let before = hub_dataplane.served.program.lock().unwrap().program();
    hub.kill(&folders[0]).await;
    // While it is away, nobody can register again.
    spoke.kill(&folders[1]).await;
    hub_dataplane.served.program.lock().unwrap().removed.clear();

    let hub = ControlplaneProcess::start(&folders[0]).await;
    let mut events = hub.management.watch(None).await.unwrap();
    let up = async {
        while !matches!(events.next().await.unwrap().unwrap().what, Happening::DataplaneUp { .. }) {}
    };
    // It may have been up before anybody watched.
    let _ = tokio::time::timeout(Duration::from_secs(1), up).await;
    // This kernel forgets its neighbours, which the real one does not, and is asked for them again.
    wait("the program", || hub_dataplane.served.program.lock().unwrap().program() == before).await;
    {
        let program = hub_dataplane.served.program.lock().unwrap();
        let removed = program.removed.iter().filter(|(key, _)| !matches!(key, Key::Neighbour(_)));
        assert_eq!(removed.count(), 0, "nothing was ever away: {:?}", program.removed);
    }
    let epochs = hub_dataplane.served.epochs.lock().unwrap().clone();
    assert!(epochs.windows(2).all(|e| e[0] <= e[1]) && epochs.first() < epochs.last(), "{epochs:?}");

    // Now the data plane: the next one knows nothing, and is told within a moment.
    hub_dataplane.kill().await;
    let again = DataplaneProcess::start(&folders[0], 12, &underlay);
    let began = Instant::now();
    wait("the program", || again.served.program.lock().unwrap().program() == before).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    hub.stop().await;
    drop(spoke_dataplane);
}

/// As if every registration had come in the last moment before the kill.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_and_not_saved_forwards_on() {
    let Pair { folders, dataplanes, controlplanes: [hub, spoke], .. } = Pair::new("unsaved").await;
    let [hub_dataplane, _spoke_dataplane] = &dataplanes;
    let before = hub_dataplane.served.program.lock().unwrap().program();
    hub.kill(&folders[0]).await;
    // While it is away, nobody can register again.
    spoke.kill(&folders[1]).await;
    std::fs::remove_file(folders[0].path.join("state.json")).unwrap();
    hub_dataplane.served.program.lock().unwrap().removed.clear();

    let hub = ControlplaneProcess::start(&folders[0]).await;
    let peers = async {
        loop {
            let State::Nhrp(nhrp) = hub.management.show(What::Nhrp.into()).await.unwrap() else { panic!() };
            if nhrp.0.iter().any(|e| e.next_hop == "10.255.0.11".parse().unwrap()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), peers).await.unwrap();
    // The resync.
    tokio::time::sleep(Duration::from_millis(300)).await;
    {
        let program = hub_dataplane.served.program.lock().unwrap();
        let removed = program.removed.iter().filter(|(key, _)| !matches!(key, Key::Neighbour(_)));
        assert_eq!(removed.count(), 0, "nothing was ever away: {:?}", program.removed);
        assert!(
            before.keys().all(|at| matches!(at.0, Key::Neighbour(_)) || program.program().contains_key(at))
        );
    }
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_file_is_moved_aside() {
    let folder = Folder::new("damage", &example(3, "hub"));
    std::fs::write(folder.path.join("state.json"), "{\"version\":1,\"check").unwrap();
    let process = ControlplaneProcess::start(&folder).await;
    process.management.show(What::Nhrp.into()).await.unwrap();
    assert!(folder.path.join("state.json.damaged").exists());
    process.stop().await;
    assert!(std::fs::read_to_string(folder.path.join("state.json")).unwrap().contains("checksum"));
}

/// Input: a control plane with a static key that is killed, its file of leases damaged, and its configuration given another key. Output: what
/// is programmed is in the file; each life goes on behind the last; with the damage the key is refused, in the next life as well, and
/// another one is not.
#[tokio::test(flavor = "multi_thread")]
async fn leases_outlive_a_control_plane_and_a_key_without_a_record_is_refused() {
    let text = protected("hub", &[("203.0.113.11", 0, 1)]);
    let folder = Folder::new("leases", &text);
    let dataplane = DataplaneProcess::start(&folder, 20, &Underlay::default());
    let program = Arc::clone(&dataplane.served.program);
    let lease = || {
        let program = program.lock().unwrap().program();
        program.into_values().find_map(|object| match object {
            Object::OutboundSa(sa) => Some((sa.lease.first, sa.lease.last)),
            _ => None,
        })
    };
    let file = folder.path.join("state.json.leases");
    let recorded = |last: u64| std::fs::read_to_string(&file).unwrap().contains(&last.to_string());
    for life in 1..=3 {
        let process = ControlplaneProcess::start(&folder).await;
        wait("the next lease", || lease() == Some((((life - 1) << 22) + 1, life << 22))).await;
        assert!(recorded(life << 22));
        process.kill(&folder).await;
    }
    std::fs::write(&file, "{\"version\":1,\"check").unwrap();
    for _ in 0..2 {
        let process = ControlplaneProcess::start(&folder).await;
        wait("the end of the SA", || lease().is_none()).await;
        // Known from the greeting on.
        let sas = loop {
            match process.management.show(What::Sa.into()).await {
                Ok(State::Sa(sas)) if !sas.0.is_empty() => break sas,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        assert_eq!((sas.0.len(), lease()), (1, None));
        assert!(sas.0[0].refused.as_ref().unwrap().contains("give it a new key"), "{sas}");
        assert!(folder.path.join("state.json.leases.damaged").exists());
        process.kill(&folder).await;
    }
    let process = ControlplaneProcess::start(&folder).await;
    let key = "00000003".repeat(5);
    assert!(text.contains(&key));
    let apply = Apply { text: folder.config(&text.replace(&key, &"00000777".repeat(5))), dry_run: false };
    let changes = process.management.apply(apply).await.unwrap().unwrap();
    let told: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["~ profiles[lab].static[203.0.113.11].outbound.key changed"]);
    wait("the new key", || lease() == Some((1, 1 << 22))).await;
    let State::Sa(sas) = process.management.show(What::Sa.into()).await.unwrap() else { panic!() };
    assert_eq!(sas.0.len(), 0, "{sas}");
    process.stop().await;
    assert_eq!(lease(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn management_answers_without_a_data_plane() {
    let folder = Folder::new("alone", &example(3, "hub"));
    let process = ControlplaneProcess::start(&folder).await;
    for what in [What::Dmvpn, What::Nhrp, What::Nhs, What::Routes] {
        process.management.show(what.into()).await.unwrap();
    }
    let refused = process.management.show(What::Fib.into()).await.unwrap_err();
    assert_eq!(refused.code(), Some(proto::Code::Unavailable));
    assert!(refused.to_string().starts_with("the data plane is away"), "{refused}");
    let State::Counters(counters) = process.management.show(What::Counters.into()).await.unwrap() else {
        panic!()
    };
    assert!(counters.others.iter().any(|c| c.name == "data-plane-away"));
    // Its own part of an explanation it has.
    let explanation = explain(&process, "10.255.0.99", None).await.unwrap();
    assert!(explanation.chosen().is_some(), "{explanation}");
    assert!(explanation.away.unwrap().starts_with("the data plane is away"));
    let request = TraceRequest { packets: 1.try_into().unwrap(), address: None };
    let refused = process.management.trace(request).await.err().unwrap();
    assert_eq!(refused.code(), Some(proto::Code::Unavailable));
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_watcher_and_a_stalled_data_plane_stall_nobody_else() {
    let folder = Folder::new("stall", &example(3, "hub"));
    let dataplane = DataplaneProcess::start(&folder, 20, &Underlay::default());
    let process = ControlplaneProcess::start(&folder).await;
    let program = &dataplane.served.program;
    wait("the program", || program.lock().unwrap().program().len() > 5).await;

    // One watcher does not read, the other does.
    let mut stalled = process.management.watch(None).await.unwrap();
    let mut reader = process.management.watch(None).await.unwrap();
    // More than all buffers on the way can hold.
    let count = 150_000;
    let reading = tokio::spawn(async move {
        let (mut seen, mut missed) = (0, 0);
        while seen + missed < count {
            match reader.next().await.unwrap().unwrap().what {
                Happening::Port { .. } => seen += 1,
                Happening::Missed { events } => missed += events,
                _ => {}
            }
        }
        seen
    });
    let flap = |n: u64| Report::Port {
        port: "wan".to_owned(),
        mac: model::Mac([2, 0, 0, 0, 0, 3]),
        up: n % 2 == 1,
        mtu: 1500,
    };
    for n in 0..count {
        dataplane.served.report(flap(n)).await;
    }
    let seen = tokio::time::timeout(Duration::from_secs(30), reading).await.unwrap().unwrap();
    assert!(seen > 0);
    let asked = Instant::now();
    process.management.show(What::Dmvpn.into()).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1));
    // The stalled one is told what it lost, when it comes back to reading.
    let missed = async {
        loop {
            if let Happening::Missed { events } = stalled.next().await.unwrap().unwrap().what {
                return events;
            }
        }
    };
    assert!(tokio::time::timeout(SOON, missed).await.unwrap() > 0);

    // The data plane takes batches and answers none: more changes come than may wait.
    dataplane.served.stalls.store(true, Ordering::Relaxed);
    let address = |n: u32| std::net::Ipv4Addr::from(0xc0a8_0100 + n % 200 + 2).to_string();
    for n in 0..5000 {
        let mac = Some(model::Mac([2, 0, 0, 0, (n / 200) as u8, n as u8]));
        process.notice(Notice::Neighbour { hop: hop("lan", &address(n)), mac }).await;
    }
    let asked = Instant::now();
    process.management.show(What::Nhrp.into()).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1));
    // When it goes on, it gets what is so now.
    dataplane.served.stalls.store(false, Ordering::Relaxed);
    let last = Key::Neighbour(hop("lan", &address(4999)));
    let is_last = || {
        let program = program.lock().unwrap().program();
        let neighbour = program.iter().find(|((key, _), _)| *key == last).map(|(_, object)| object.clone());
        matches!(neighbour, Some(model::program::Object::Neighbour(n)) if n.mac.0[4] == 24)
    };
    wait("the last neighbour", is_last).await;
    process.stop().await;
}

/// Over two lives of the process: what its engine did in them follows from the file alone, and nobody else may read it.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_kept_replays_and_is_private() {
    let underlay = Underlay::default();
    let folders = ["hub", "spoke1"].map(|n| Folder::new(&format!("journal-{n}"), &example(3, n)));
    let dataplane = DataplaneProcess::start(&folders[0], 10, &underlay);
    let _peer = DataplaneProcess::start(&folders[1], 11, &underlay);
    let journal = folders[0].path.join("hub.jsonl");
    let hub = ControlplaneProcess::start_with(&folders[0], Some(journal.clone())).await;
    let _spoke = ControlplaneProcess::start(&folders[1]).await;
    wait("the registration", || is_registered(&dataplane)).await;
    hub.kill(&folders[0]).await;
    let hub = ControlplaneProcess::start_with(&folders[0], Some(journal.clone())).await;
    let has_begun = || std::fs::read_to_string(&journal).unwrap().matches(r#""configure""#).count() == 2;
    wait("the second life", has_begun).await;
    hub.stop().await;

    let text = std::fs::read_to_string(&journal).unwrap();
    let handled = nhrp::journal::replay(text.lines()).unwrap_or_else(|difference| panic!("{difference}"));
    assert!(handled >= 4, "{handled}");
    assert_eq!(text.matches(r#"{"opened":"#).count(), 2, "two lives");
    assert!(text.contains(r#""registered""#) && text.contains(r#""shutdown""#), "from first to last");

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&journal), 0o600);
    std::fs::set_permissions(&journal, Permissions::from_mode(0o640)).unwrap();
    let refused = controlplane::journal_file::JournalFile::open(&journal).unwrap_err().to_string();
    assert!(refused.contains("0600"), "{refused}");
}

/// A network namespace with the addresses of the underlay on its loopback; gone afterwards.
struct Site(String);

impl Site {
    fn new(addresses: &[&str]) -> Self {
        let site = Self(format!("nave-cp-ike-{}", std::process::id()));
        twin::make_netns(&site.0).unwrap();
        site.ip("link set lo up");
        for address in addresses {
            site.ip(&format!("addr add {address}/32 dev lo"));
        }
        site
    }

    fn ip(&self, words: &str) {
        let done =
            std::process::Command::new("ip").args(["-n", &self.0]).args(words.split(' ')).status().unwrap();
        assert!(done.success(), "ip {words}");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = twin::remove_netns(&self.0);
    }
}

/// A node whose underlay is in a namespace, protected by IKE with a secret in a file.
fn by_ike(node: &str, site: &Site, secret: &Path) -> String {
    let text = example(3, node).replacen("name = \"wan\"", "name = \"wan\"\ntable = 1", 1).replacen(
        "source = \"wan\"",
        "source = \"wan\"\nunderlay_table = 1\nprotection = \"branch\"",
        1,
    );
    format!(
        "{text}\n[[tables]]\nid = 1\nnetns = {:?}\n[[profiles]]\nname = \"branch\"\n[profiles.ike]\n\
         identity = \"{node}.example\"\n[[profiles.ike.psk]]\nfile = {secret:?}\n",
        site.0
    )
}

/// Input: a hub and a spoke with a secret in a file, on UDP sockets of a namespace. Output: they are protected and registered, the operator
/// sees who they are; a file that is not there refuses a configuration whole; another secret at one end is an event with its reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_pair_is_protected_by_real_sockets() {
    let site = Site::new(&["203.0.113.1", "203.0.113.11"]);
    let underlay = Underlay::default();
    let folders = ["hub", "spoke1"].map(|n| Folder::new(&format!("ike-{n}"), ""));
    let secrets = [0, 1].map(|n: usize| folders[n].path.join("secret"));
    for (n, node) in ["hub", "spoke1"].into_iter().enumerate() {
        std::fs::write(&secrets[n], "a secret of both\n").unwrap();
        folders[n].write(&by_ike(node, &site, &secrets[n]));
        controlplane::shell::read_config(&folders[n].path.join("nave.toml")).unwrap();
    }
    let dataplanes = [
        DataplaneProcess::start(&folders[0], 10, &underlay),
        DataplaneProcess::start(&folders[1], 11, &underlay),
    ];
    let [hub, spoke] =
        [ControlplaneProcess::start(&folders[0]).await, ControlplaneProcess::start(&folders[1]).await];
    wait("the registration", || is_registered(&dataplanes[0])).await;
    let State::Ike(shown) = spoke.management.show(What::Ike.into()).await.unwrap() else { panic!() };
    let identity = shown.0[0].identity.as_ref().unwrap().to_string();
    assert_eq!((identity.as_str(), shown.0[0].children.len()), ("hub.example", 1), "{shown}");

    // A file that is not there: the whole is refused, and nothing changed.
    let text = folders[1].config(&by_ike("spoke1", &site, Path::new("/nowhere/secret")));
    for dry_run in [true, false] {
        let fault = spoke.management.apply(Apply { text: text.clone(), dry_run }).await.unwrap().unwrap_err();
        assert_eq!(fault.path, "profiles[0].ike.psk[0].file");
        assert!(fault.problem.starts_with("/nowhere/secret: "), "{fault}");
    }
    let cleared = spoke.management.clear(Clear::Ike { peer: "hub.example".parse().unwrap() }).await.unwrap();
    assert_eq!(cleared, 1);

    // The file holds another secret: that is read with the next apply, and counts for who comes from then on.
    std::fs::write(&secrets[1], "KcVq7Tz2hWxm").unwrap();
    let mut events = spoke.management.watch(None).await.unwrap();
    let text = folders[1].config(&by_ike("spoke1", &site, &secrets[1]));
    spoke.management.apply(Apply { text, dry_run: false }).await.unwrap().unwrap();
    spoke.management.clear(Clear::Ike { peer: "203.0.113.1".parse().unwrap() }).await.unwrap();
    let failed = async {
        loop {
            if let Happening::IkeFailed { reason, .. } = events.next().await.unwrap().unwrap().what {
                break reason;
            }
        }
    };
    let reason = tokio::time::timeout(Duration::from_secs(20), failed).await.unwrap();
    assert!(!reason.is_empty() && !reason.contains("KcVq7Tz2hWxm"), "{reason}");
    hub.stop().await;
    spoke.stop().await;
    for dataplane in &dataplanes {
        assert!(dataplane.served.program.lock().unwrap().program().is_empty(), "nothing stays");
    }
}
