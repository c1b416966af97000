//! `nave` as it is run: against a Management service in this process, on a socket of its own.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use model::config::check::Fault;
use model::config::diff::Change;
use model::ike::Identity;
use model::observe::{CaptureRequest, Captured, Direction, Reason, Tap, TraceRequest, TraceStep};
use model::program::{Hop, Owner, Path as Way, Route};
use model::sa::Protection;
use model::state::counters::{Counter, ErrorCounter, MessageCounter};
use model::state::dmvpn::{Dmvpn, Peer, PeerAttributes, PeerState, Tunnel};
use model::state::event::{Event, Happening};
use model::state::explain::{Candidate, Explanation};
use model::state::ike::{IkeSa, IkeState, Role};
use model::state::nhrp::{Cache, Entry, EntryFlags, EntryType};
use model::state::routes::{RibRoute, Routes};
use model::state::{Drops, IkeSas, NhrpTraffic, Show, State, What};
use model::{InterfaceName, TableId, WorkerId};
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgReader;
use pcap_file::pcapng::blocks::Block;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use proto::server::{self, Management};
use proto::{Access, Applied, Apply, Clear, Status, Stream};

/// A node with one tunnel.
struct Node;

fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

/// A server that does not answer IKE.
fn waiting() -> IkeSa {
    IkeSa {
        protection: Protection {
            profile: "branch".parse().unwrap(),
            table: TableId(0),
            local: "203.0.113.2".parse().unwrap(),
            remote: "203.0.113.1".parse().unwrap(),
            port: 0,
        },
        identity: None,
        proof: None,
        addresses: vec![],
        role: Role::Initiator,
        state: IkeState::Waiting,
        suite: None,
        spi_initiator: 0,
        spi_responder: 0,
        age: Duration::from_secs(30),
        rekey_in: Some(Duration::from_secs(4)),
        heard: None,
        nat_here: false,
        nat_there: false,
        server: true,
        retransmissions: 3,
        failure: Some("it does not answer".to_owned()),
        children: vec![],
    }
}

/// A peer that is up.
fn peer(n: u8) -> Peer {
    Peer {
        entries: 1,
        nbma: Some(format!("203.0.113.{n}").parse().unwrap()),
        protocol: format!("10.0.0.{n}").parse().unwrap(),
        state: PeerState::Up,
        since: Duration::from_secs(62),
        attributes: PeerAttributes { dynamic: true, ..PeerAttributes::default() },
        nhs: false,
        reason: None,
        expires_in: Some(Duration::from_secs(517)),
        link: Some(Hop { interface: name("wan"), next_hop: "203.0.113.254".parse().unwrap() }),
        prefixes: vec![format!("10.0.0.{n}/32").parse().unwrap()],
    }
}

fn message(tunnel: &str) -> MessageCounter {
    MessageCounter { tunnel: name(tunnel), message: "resolution-request".into(), sent: 3, received: 4 }
}

fn dmvpn() -> Dmvpn {
    let down = Peer {
        nbma: None,
        state: PeerState::Nhrp,
        attributes: PeerAttributes { incomplete: true, ..PeerAttributes::default() },
        reason: Some("no answer to 3 resolution requests".into()),
        link: None,
        ..peer(3)
    };
    Dmvpn(vec![Tunnel {
        name: name("tunnel0"),
        hub: true,
        spoke: false,
        network_id: 1,
        addresses: vec!["10.0.0.1/24".parse().unwrap()],
        source_interface: name("wan"),
        source: Some("203.0.113.1".parse().unwrap()),
        key: Some(42),
        mtu: 1400,
        fallback: None,
        replicas: vec!["203.0.113.2".parse().unwrap()],
        peers: vec![peer(2), down],
    }])
}

fn cache() -> Cache {
    Cache(vec![Entry {
        tunnel: name("tunnel0"),
        prefix: "10.0.0.2/32".parse().unwrap(),
        next_hop: "10.0.0.2".parse().unwrap(),
        entry_type: EntryType::Dynamic,
        flags: EntryFlags { registered: true, unique: true, used: true, ..EntryFlags::default() },
        nbma: Some("203.0.113.2".parse().unwrap()),
        claimed_nbma: Some("192.168.0.2".parse().unwrap()),
        created: Duration::from_secs(83),
        expires_in: Some(Duration::from_secs(517)),
        mtu: 1400,
    }])
}

fn routes() -> Routes {
    let prefix = "10.9.0.0/16".parse().unwrap();
    let route = Route { table: TableId(0), prefix, path: Way::Unreachable, expires_in: None };
    Routes(vec![
        RibRoute { route: route.clone(), owner: Owner::Config, best: true },
        RibRoute {
            route: Route {
                prefix: "10.8.0.0/16".parse().unwrap(),
                path: Way::Attached(name("lan")),
                ..route
            },
            owner: Owner::Netlink,
            best: true,
        },
    ])
}

/// Two nodes of a packet's way.
fn steps(packet: u32) -> [TraceStep; 2] {
    let rx = TraceStep {
        packet,
        worker: WorkerId(0),
        node: "rx".into(),
        time_us: 1_000_002,
        interface: None,
        table: TableId(0),
        destination: None,
        adjacency: None,
        offset: 0,
        reason: None,
        len: 60,
        bytes: vec![2, 0],
        lost: 0,
    };
    let drop = TraceStep {
        node: "drop".into(),
        interface: Some(name("wan0")),
        reason: Some(Reason { name: "runt".into(), sentence: "Too short.".into() }),
        ..rx.clone()
    };
    [rx, drop]
}

fn captured(n: u64) -> Captured {
    Captured {
        worker: WorkerId(0),
        time_us: 1_700_000_000_000_001 + n,
        interface: Some(name(if n.is_multiple_of(2) { "wan0" } else { "wan0.7" })),
        direction: Some(if n.is_multiple_of(2) { Direction::In } else { Direction::Out }),
        reason: None,
        len: 1514,
        bytes: vec![u8::try_from(n % 256).unwrap(); 15],
        lost: if n == 2 { 5 } else { 0 },
    }
}

#[proto::async_trait]
impl Management for Node {
    async fn apply(&self, Apply { text, dry_run }: Apply) -> Result<Applied, Status> {
        if text.contains("holding_time = 0") {
            let path = "tunnels[0].nhrp.holding_time".into();
            return Ok(Err(Fault { path, problem: "0 is not allowed".into() }));
        }
        let change = |before: &str, after: &str| Change {
            path: "node.name".into(),
            before: Some(before.into()),
            after: Some(after.into()),
        };
        Ok(Ok(if dry_run { vec![change("\"a\"", "\"dry\"")] } else { vec![change("\"a\"", "\"b\"")] }))
    }

    async fn show(&self, Show { what, filter }: Show) -> Result<State, Status> {
        Ok(match what {
            What::Dmvpn => State::Dmvpn(dmvpn()),
            What::Nhrp => State::Nhrp(cache()),
            What::Routes => State::Routes(routes()),
            What::NhrpTraffic => State::NhrpTraffic(NhrpTraffic {
                messages: ["tunnel0", "tunnel1"].map(message).into(),
                errors: vec![ErrorCounter {
                    tunnel: name("tunnel0"),
                    code: 11,
                    name: "authentication failure".into(),
                    sent: 2,
                    received: 1,
                }],
                rejects: vec![Counter {
                    name: "authentication".into(),
                    sentence: "the authentication extension is wrong".into(),
                    count: 5,
                }],
            }),
            What::Drops => State::Drops(Drops(vec![Counter {
                name: "ttl".into(),
                sentence: "time to live ended here".into(),
                count: 3,
            }])),
            What::Explain if filter.table == Some(TableId(9)) => {
                return Err(Status::invalid_argument("table: there is no table 9; there are 0"));
            }
            What::Explain => {
                let route = Candidate {
                    prefix: "10.0.0.0/8".parse().unwrap(),
                    owner: Owner::Config,
                    origin: "static".into(),
                    path: Some(Way::Blackhole),
                    chosen: true,
                    why: "the longest prefix".into(),
                };
                let nothing = Explanation::nothing(filter.table.unwrap(), filter.address.unwrap());
                State::Explanation(Box::new(Explanation { routes: vec![route], ..nothing }))
            }
            What::Ike => State::Ike(IkeSas(vec![waiting()])),
            What::Ports => return Err(Status::unavailable("the data plane is away: connection refused")),
            other => State::empty(other),
        })
    }

    async fn watch(&self, tunnel: Option<InterfaceName>) -> Result<Stream<Event>, Status> {
        let tunnel = tunnel.unwrap_or(name("tunnel0"));
        let mut time_us = 3_661_000_001;
        Ok(Box::pin(
            futures::stream::repeat_with(move || {
                time_us += 1;
                let nhs = "10.0.0.1".parse().unwrap();
                Ok(Event {
                    time_us,
                    node: "s1".into(),
                    what: Happening::ServerUp { tunnel, nhs, refresh: false },
                })
            })
            .then(|event| async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                event
            }),
        ))
    }

    async fn clear(&self, clear: Clear) -> Result<u64, Status> {
        Ok(match clear {
            Clear::Nhrp { tunnel, address } => {
                7 + u64::from(tunnel.is_some()) + 10 * u64::from(address.is_some())
            }
            Clear::Ike { peer: Identity::Fqdn(name) } if name == "hub.example" => 2,
            Clear::Ike { peer: Identity::Address(_) } => 1,
            Clear::Ike { .. } => 0,
        })
    }

    async fn trace(
        &self,
        TraceRequest { packets, address }: TraceRequest,
    ) -> Result<Stream<TraceStep>, Status> {
        if address.is_some() {
            return Err(Status::resource_exhausted("there is a trace already"));
        }
        Ok(Box::pin(futures::stream::iter((1..=packets.get()).flat_map(steps).map(Ok))))
    }

    async fn capture(&self, request: CaptureRequest) -> Result<Stream<Captured>, Status> {
        let CaptureRequest { at, packets, snap, .. } = request;
        if snap.is_some_and(|snap| snap.get() != 15) {
            return Err(Status::invalid_argument("snap: not of this test"));
        }
        match at {
            Tap::Port(port) if port == "wan" => match packets {
                Some(packets) => {
                    Ok(Box::pin(futures::stream::iter((0..u64::from(packets.get())).map(captured).map(Ok))))
                }
                // One, and no more until nobody listens.
                None => {
                    let first = futures::stream::iter([Ok(captured(0))]);
                    Ok(Box::pin(first.chain(futures::stream::pending())))
                }
            },
            Tap::Node(node) if node == "drop" => {
                let [_, TraceStep { reason, .. }] = steps(1);
                let of = move |n| Captured { direction: None, reason: reason.clone(), ..captured(n) };
                Ok(Box::pin(futures::stream::iter((0..3).map(of).map(Ok))))
            }
            other => Err(Status::invalid_argument(format!("at: there is no {other}; there are wan"))),
        }
    }
}

/// A served node; its thread ends with this process.
struct Served(PathBuf);

impl Served {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nave-ctl-{test}-{}.sock", std::process::id()));
        let served = path.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let serving =
                server::serve_management(&served, Access::default(), Arc::new(Node), std::future::pending());
            runtime.block_on(serving).unwrap();
        });
        while UnixStream::connect(&path).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Self(path)
    }

    fn nave(&self, arguments: &[&str]) -> Output {
        nave(&self.0, arguments).output().unwrap()
    }

    /// What it prints; it must succeed.
    fn prints(&self, arguments: &[&str]) -> String {
        let output = self.nave(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn prints_json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.prints(arguments)).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn nave(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nave"));
    command.arg("--socket").arg(socket).args(arguments);
    command
}

fn fails(output: &Output) -> (Option<i32>, String) {
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    (output.status.code(), String::from_utf8(output.stderr.clone()).unwrap())
}

#[test]
fn show_dmvpn_looks_as_engineers_know_it_and_says_what_a_peer_lacks() {
    let node = Served::new("dmvpn");
    let table = node.prints(&["show", "dmvpn"]);
    assert!(table.starts_with("Legend: Attrb --> S - Static, D - Dynamic, I - Incomplete\n"));
    let body = "
Interface: tunnel0, NHRP Details
Type:Hub, NHRP Peers:2

 # Ent  Peer NBMA Addr Peer Tunnel Add State  UpDn Tm Attrb
 ----- --------------- --------------- ----- -------- -----
     1     203.0.113.2        10.0.0.2    UP 00:01:02     D
     1         UNKNOWN        10.0.0.3  NHRP 00:01:02     I  no answer to 3 resolution requests
";
    assert!(table.ends_with(body), "{table}");
    let detail = node.prints(&["show", "dmvpn", "--detail"]);
    for line in [
        "Source addr: 203.0.113.1 (wan), MTU 1400 bytes",
        "Tunnel addr: 10.0.0.1/24, key 42, network id 1",
        "Multicast goes to: 203.0.113.2",
        "       Target Network: 10.0.0.2/32",
        "       Underlay: via 203.0.113.254 on wan; expires 00:08:37",
        "       Underlay: no underlay path; expires 00:08:37",
    ] {
        assert!(detail.lines().any(|l| l == line), "{line} is not in\n{detail}");
    }
    let one = node.prints(&["show", "dmvpn", "10.0.0.2"]);
    assert!(one.contains("203.0.113.2") && !one.contains("10.0.0.3"), "{one}");
    let json = node.prints_json(&["show", "dmvpn", "--json"]);
    assert_eq!(json[0]["peers"][1]["state"], "nhrp");
    assert_eq!(json[0]["peers"][0]["since"], 62.0);
    let back: Dmvpn = serde_json::from_value(json).unwrap();
    assert_eq!(back, dmvpn());
}

#[test]
fn show_nhrp_has_three_views() {
    let node = Served::new("nhrp");
    assert_eq!(
        node.prints(&["show", "nhrp", "--detail"]),
        "10.0.0.2/32 via 10.0.0.2\n   tunnel0 created 00:01:23, expire 00:08:37\n   \
         Type: dynamic, Flags: registered unique used\n   NBMA address: 203.0.113.2\n   \
         Claimed NBMA address: 192.168.0.2\n   MTU: 1400 bytes\n"
    );
    assert_eq!(
        node.prints(&["show", "nhrp", "--brief"]),
        "Target       Via       NBMA         Type     Tunnel\n10.0.0.2/32  10.0.0.2  203.0.113.2  dynamic  tunnel0\n"
    );
    let table = node.prints(&["show", "nhrp"]);
    assert!(table.contains("00:01:23  00:08:37  registered unique used"), "{table}");
    assert_eq!(node.prints(&["show", "nhrp", "--tunnel", "other"]), "no NHRP entries\n");
    let json = node.prints_json(&["--json", "show", "nhrp"]);
    assert_eq!((&json[0]["type"], &json[0]["flags"]["unique"]), (&"dynamic".into(), &true.into()));
    let output = node.nave(&["show", "nhrp", "--brief", "--detail"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn show_nhrp_traffic_counts_messages_errors_and_rejects_by_tunnel() {
    let node = Served::new("traffic");
    assert_eq!(
        node.prints(&["show", "nhrp", "--traffic"]),
        "\
Tunnel   Message             Sent  Received
tunnel0  resolution-request     3         4
tunnel1  resolution-request     3         4

Tunnel   Error indication        Code  Sent  Received
tunnel0  authentication failure    11     2         1

Reject          Count  Meaning
authentication      5  the authentication extension is wrong
"
    );
    let one = node.prints_json(&["--json", "show", "nhrp", "--traffic", "--tunnel", "tunnel1"]);
    assert_eq!((&one["messages"][0]["tunnel"], &one["messages"][0]["sent"]), (&"tunnel1".into(), &3.into()));
    assert_eq!((&one["messages"][1], &one["errors"]), (&serde_json::Value::Null, &serde_json::json!([])));
    assert_eq!(one["rejects"][0]["count"], 5);
    assert_eq!(node.nave(&["show", "nhrp", "--traffic", "--detail"]).status.code(), Some(2));
    assert_eq!(node.nave(&["show", "nhrp", "--traffic", "10.0.0.1"]).status.code(), Some(2));
}

#[test]
fn every_noun_is_shown_as_table_and_as_json() {
    let node = Served::new("nouns");
    for noun in ["nhs", "fib", "adjacency", "workers", "counters", "program"] {
        let table = node.prints(&["show", noun]);
        assert!(table.starts_with("no") && table.ends_with('\n'), "{noun}: {table}");
        let json = node.prints_json(&["show", noun, "--json"]);
        assert!(if noun == "counters" { json.is_object() } else { json.is_array() }, "{noun}: {json}");
    }
    assert_eq!(
        node.prints(&["show", "drops"]),
        "Reason  Count  Meaning\nttl         3  time to live ended here\n"
    );
    let routes = node.prints(&["show", "routes"]);
    assert!(routes.contains("0  *  10.9.0.0/16  unreachable      config   never"), "{routes}");
    let of_owner = node.prints(&["show", "routes", "--owner", "netlink"]);
    assert!(of_owner.contains("attached to lan") && !of_owner.contains("10.9.0.0"), "{of_owner}");
    let of_address = node.prints_json(&["show", "routes", "--json", "10.9.1.1"]);
    assert_eq!(of_address[0]["path"], "unreachable");
    assert_eq!(of_address.as_array().unwrap().len(), 1);
    let away = fails(&node.nave(&["show", "ports"]));
    assert_eq!(away, (Some(1), "nave: the data plane is away: connection refused\n".into()));
}

#[test]
fn ike_is_shown_as_a_table_and_whole() {
    let node = Served::new("ike");
    let table = node.prints(&["show", "ike"]);
    assert!(table.contains("waiting") && table.contains("203.0.113.1: it does not answer"), "{table}");
    assert!(node.prints(&["show", "ike", "--detail"]).contains("next attempt in 00:00:04"));
    assert_eq!(node.prints_json(&["show", "ike", "--json"])[0]["state"], "waiting");
}

#[test]
fn apply_prints_what_changes_and_refuses_with_the_path() {
    let node = Served::new("apply");
    let file = std::env::temp_dir().join(format!("nave-ctl-apply-{}.toml", std::process::id()));
    std::fs::write(&file, "[node]\nname = \"b\"\n").unwrap();
    let text = file.to_str().unwrap();
    let applied =
        "applied, until nave-controlplane starts again or reads its file; write it into the file to keep it";
    assert_eq!(node.prints(&["apply", text]), format!("~ node.name = \"a\" -> \"b\"\n{applied}\n"));
    let dry = node.prints(&["apply", text, "--dry-run"]);
    assert_eq!(dry, "~ node.name = \"a\" -> \"dry\"\nnot applied: this was a dry run\n");
    let json = node.prints_json(&["apply", text, "--json", "--dry-run"]);
    assert_eq!(json["applied"], false);
    assert_eq!(json["changes"][0]["path"], "node.name");

    std::fs::write(&file, "holding_time = 0").unwrap();
    let refused = fails(&node.nave(&["apply", text]));
    let sentence = format!("nave: {text}: tunnels[0].nhrp.holding_time: 0 is not allowed\n");
    assert_eq!(refused, (Some(1), sentence));
    let output = node.nave(&["apply", text, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["fault"]["path"], "tunnels[0].nhrp.holding_time");
    std::fs::remove_file(&file).unwrap();
    let (code, sentence) = fails(&node.nave(&["apply", text]));
    assert_eq!(code, Some(1));
    assert!(sentence.starts_with(&format!("nave: {text}: No such file")), "{sentence}");

    let mut child =
        nave(&node.0, &["apply", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"").unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
}

#[test]
fn clear_says_how_many() {
    let node = Served::new("clear");
    assert_eq!(node.prints(&["clear", "nhrp"]), "7 NHRP entries cleared\n");
    assert_eq!(node.prints(&["clear", "nhrp", "10.0.0.2"]), "17 NHRP entries cleared\n");
    let json = node.prints_json(&["clear", "nhrp", "10.0.0.2", "--tunnel", "tunnel0", "--json"]);
    assert_eq!(json["cleared"], 18);
    assert_eq!(node.nave(&["clear", "nhrp", "10.0.0"]).status.code(), Some(2));
    assert_eq!(node.prints(&["clear", "ike", "203.0.113.1"]), "1 IKE SA cleared\n");
    assert_eq!(node.prints(&["clear", "ike", "hub.example"]), "2 IKE SAs cleared\n");
    assert_eq!(node.prints(&["clear", "ike", "CN=nobody"]), "0 IKE SAs cleared\n");
    assert_eq!(node.nave(&["clear", "ike"]).status.code(), Some(2), "nobody ends all of them by a slip");
}

#[test]
fn watch_prints_each_event_at_once_and_ends_when_nobody_reads() {
    let node = Served::new("watch");
    for (arguments, line) in [
        (&["watch"][..], "01:01:01.000002 s1 tunnel0: server 10.0.0.1 accepted our registration"),
        (
            &["watch", "--json", "--tunnel", "t1"][..],
            r#"{"time_us":3661000002,"node":"s1","event":"server-up","tunnel":"t1","nhs":"10.0.0.1","refresh":false}"#,
        ),
    ] {
        let mut child =
            nave(&node.0, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), line);
        lines.next().unwrap().unwrap();
        // The pipe is closed: the next line ends it, without a word.
        drop(lines);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
    }
}

#[test]
fn trace_prints_a_line_for_each_node_and_bytes_where_they_changed() {
    let node = Served::new("trace");
    let one = |n: u32| {
        format!(
            "00:00:01.000002 #{n} rx          worker 0 table 0 header at 0 of 60 bytes\n    0000  02 00\n\
             00:00:01.000002 #{n} drop        worker 0 by wan0 table 0 header at 0 of 60 bytes (runt: Too short.)\n"
        )
    };
    assert_eq!(node.prints(&["trace"]), one(1));
    assert_eq!(node.prints(&["trace", "-n", "2"]), one(1) + &one(2));
    let json = node.prints(&["--json", "trace"]);
    let back: Vec<TraceStep> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(back, steps(1));
    assert!(json.contains(r#""reason":{"name":"runt","#), "{json}");
    let busy = fails(&node.nave(&["trace", "--address", "10.0.0.1"]));
    assert_eq!(busy, (Some(1), "nave: there is a trace already\n".into()));
    assert_eq!(node.nave(&["trace", "-n", "0"]).status.code(), Some(2));
}

/// A packet's interface, time in nanoseconds, length, bytes and options.
type Packet = (u32, u128, u32, Vec<u8>, Vec<EnhancedPacketOption<'static>>);

/// Name of each interface, and the packets.
#[derive(Debug, Default, PartialEq)]
struct Pcapng {
    interfaces: Vec<String>,
    packets: Vec<Packet>,
}

impl Pcapng {
    fn read(bytes: &[u8]) -> Self {
        let mut reader = PcapNgReader::new(bytes).unwrap();
        let mut all = Self::default();
        while let Some(block) = reader.next_block() {
            match block.unwrap().into_owned() {
                Block::InterfaceDescription(block) => {
                    assert_eq!(block.linktype, DataLink::ETHERNET);
                    assert!(block.options.contains(&InterfaceDescriptionOption::IfTsResol(9)));
                    all.interfaces.extend(block.options.into_iter().filter_map(|option| match option {
                        InterfaceDescriptionOption::IfName(name) => Some(name.into_owned()),
                        _ => None,
                    }));
                }
                Block::EnhancedPacket(block) => all.packets.push((
                    block.interface_id,
                    block.timestamp.as_nanos(),
                    block.original_len,
                    block.data.into_owned(),
                    block.options,
                )),
                other => panic!("{other:?}"),
            }
        }
        all
    }
}

#[test]
fn capture_writes_pcapng_with_names_times_directions_and_reasons() {
    use EnhancedPacketOption::{Comment, DropCount, Flags};
    let node = Served::new("capture");
    let file = std::env::temp_dir().join(format!("nave-ctl-capture-{}.pcapng", std::process::id()));
    let output = node.nave(&["capture", "--port", "wan", "-c", "3", "-w", file.to_str().unwrap()]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "3 packets captured, 5 packets lost\n");
    let options = [vec![Flags(1)], vec![Flags(2)], vec![Flags(1), DropCount(5)]];
    let packets = (0_u8..).zip(options).map(|(n, options)| {
        (0, 1_700_000_000_000_001_000 + 1000 * u128::from(n), 1514, vec![n; 15], options)
    });
    let wan = Pcapng { interfaces: vec!["wan".into()], packets: packets.collect() };
    assert_eq!(Pcapng::read(&std::fs::read(&file).unwrap()), wan);
    std::fs::remove_file(&file).unwrap();

    let bytes = node.nave(&["capture", "--node", "drop", "--snap", "15", "-w", "-"]).stdout;
    let dropped = Pcapng::read(&bytes);
    assert_eq!(dropped.interfaces, ["wan0", "wan0.7"]);
    let seen: Vec<_> = dropped.packets.iter().map(|packet| (packet.0, packet.4[0].clone())).collect();
    let why = || Comment("runt: Too short.".into());
    assert_eq!(seen, [(0, why()), (1, why()), (0, why())]);

    let text = node.prints(&["capture", "--port", "wan", "-c", "1"]);
    assert!(text.contains(" in  wan0 1514 bytes\n    0000  00 00"), "{text}");
    let json = node.prints(&["capture", "--port", "wan", "-c", "2", "--json"]);
    let back: Vec<Captured> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(back, [captured(0), captured(1)]);
}

#[test]
fn a_capture_that_is_interrupted_leaves_a_whole_file_and_one_that_is_refused_none() {
    let node = Served::new("interrupt");
    let file = std::env::temp_dir().join(format!("nave-ctl-interrupt-{}.pcapng", std::process::id()));
    let text = file.to_str().unwrap();
    let child =
        nave(&node.0, &["capture", "--port", "wan", "-w", text]).stderr(Stdio::piped()).spawn().unwrap();
    let packets = || Pcapng::read(&std::fs::read(&file).unwrap_or_default()).packets.len();
    // The file is whole after each packet, and not there before the first block.
    while std::fs::metadata(&file).map_or(0, |file| file.len()) == 0 || packets() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "1 packet captured, 0 packets lost\n");
    assert_eq!((output.status.code(), packets()), (Some(0), 1));
    std::fs::remove_file(&file).unwrap();

    let (code, sentence) = fails(&node.nave(&["capture", "--port", "dmz", "-w", text]));
    assert_eq!((code, &*sentence), (Some(1), "nave: at: there is no port dmz; there are wan\n"));
    assert!(!file.exists());
    for usage in [
        &["capture"][..],
        &["capture", "--port", "a", "--node", "b"],
        &["capture", "--port", "a", "--snap", "0"],
    ] {
        assert_eq!(node.nave(usage).status.code(), Some(2), "{usage:?}");
    }
}

#[test]
fn explain_says_which_route_and_why() {
    let node = Served::new("explain");
    let text = node.prints(&["explain", "10.9.1.1"]);
    assert!(text.starts_with("10.9.1.1 in table 0: blackhole\n\n"), "{text}");
    assert!(text.contains("*  10.0.0.0/8  blackhole  config  static  the longest prefix\n"), "{text}");
    let json = node.prints_json(&["explain", "2001:db8::1", "--table", "7", "--json"]);
    assert_eq!((&json["table"], &json["address"]), (&7.into(), &"2001:db8::1".into()));
    assert_eq!(serde_json::from_value::<Explanation>(json).unwrap().chosen().unwrap().origin, "static");
    let refused = fails(&node.nave(&["explain", "10.9.1.1", "--table", "9"]));
    assert_eq!(refused, (Some(1), "nave: table: there is no table 9; there are 0\n".into()));
    let (code, usage) = fails(&node.nave(&["explain", "10.9.1"]));
    assert_eq!(code, Some(2));
    assert!(usage.contains("invalid value '10.9.1' for '<ADDRESS>'"), "{usage}");
}

#[test]
fn without_a_node_it_says_which_socket_and_what_to_start() {
    let output = nave(Path::new("/nonexistent/nave.sock"), &["show", "dmvpn"]).output().unwrap();
    let (code, sentence) = fails(&output);
    assert_eq!(code, Some(1));
    assert!(sentence.starts_with("nave: /nonexistent/nave.sock: No such file or directory"), "{sentence}");
    assert!(sentence.contains("Is nave-controlplane running?"), "{sentence}");
    for usage in [&["show", "everything"][..], &[], &["show", "fib", "--owner", "me"]] {
        let output = nave(Path::new("/nonexistent/nave.sock"), usage).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{usage:?}");
    }
}
