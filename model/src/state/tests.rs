//! One of each thing that is shown: its table, its JSON and back, what filters admit, and big tables in parts.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::adjacency::{Adjacency, AdjacencyKind};
use super::counters::{Counter, ErrorCounter, MessageCounter, NodeCounter};
use super::fib::FibEntry;
use super::ike::{Child, IkeSa, IkeState, Role};
use super::nhrp::{Entry, EntryFlags, EntryType};
use super::nhs::{Server, ServerState};
use super::ports::OffloadState::{Refused, Unused, Used};
use super::ports::{Offload, OffloadKind, Port, Traffic};
use super::program::Programmed;
use super::routes::RibRoute;
use super::sa::Sa;
use super::workers::{Idle, Worker};
use super::*;
use crate::program::{Binding, Hop, Object, OuterDf, Path, Route, TcpMss, Tunnel, TunnelMode};
use crate::sa::{Direction, Protection, Reached, SaMode, Spi, Suite};
use crate::{Mac, Prefix, WorkerId};

fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

fn hop() -> Hop {
    Hop { interface: name("wan"), next_hop: "203.0.113.254".parse().unwrap() }
}

fn route(prefix: &str, path: Path) -> Route {
    Route { table: TableId(0), prefix: prefix.parse().unwrap(), path, expires_in: None }
}

fn routes() -> Routes {
    let shortcut = Route {
        expires_in: Some(Duration::from_secs(90_000)),
        ..route("192.168.3.0/24", Path::Via(Hop { interface: name("tunnel0"), ..hop() }))
    };
    Routes(vec![
        RibRoute { route: shortcut, owner: Owner::Nhrp, best: true },
        RibRoute {
            route: route("10.0.0.0/24", Path::Attached(name("lan"))),
            owner: Owner::Config,
            best: false,
        },
        RibRoute {
            route: route("10.0.0.1/32", Path::Receive(name("lan"))),
            owner: Owner::Netlink,
            best: true,
        },
        RibRoute { route: route("10.9.0.0/16", Path::Blackhole), owner: Owner::Ike, best: true },
    ])
}

fn fib() -> Fib {
    let entry = |adjacency, r: RibRoute| FibEntry {
        table: r.route.table,
        prefix: r.route.prefix,
        path: r.route.path,
        owner: r.owner,
        adjacency,
    };
    Fib((0..).zip(routes().0).map(|(n, r)| entry(n, r)).collect())
}

fn sas() -> Sas {
    let sa = |direction, spi, remote: &str, port| Sa {
        direction,
        spi: Spi::new(spi).unwrap(),
        protection: Protection {
            profile: "lab".parse().unwrap(),
            table: TableId(0),
            local: "203.0.113.1".parse().unwrap(),
            remote: remote.parse().unwrap(),
            port,
        },
        mode: SaMode::Transport,
        suite: Suite::AesGcm128,
        esn: true,
        worker: WorkerId(1),
        packets: 5,
        bytes: 4242,
        sequence: 7,
        leased: None,
        replayed: 0,
        bad_icv: 0,
        reached: None,
        refused: None,
        age: None,
        rekey_in: None,
    };
    let inbound = Sa { replayed: 2, ..sa(Direction::Inbound, 0x0104_00a1, "203.0.113.2", 0) };
    let outbound = sa(Direction::Outbound, 0xb1ee, "203.0.113.2", 0);
    let outbound = Sa { leased: Some(4_194_304), reached: Some(Reached::Soft), ..outbound };
    let refused = Some("its record is lost; give it a new key".to_owned());
    let lost = Sa { refused, packets: 0, bytes: 0, ..sa(Direction::Outbound, 0xc1ee, "203.0.113.3", 4500) };
    Sas(vec![inbound, outbound, Sa { sequence: 0, esn: false, ..lost }])
}

fn ike() -> IkeSas {
    let protection = sas().0[0].protection;
    let child = Child {
        inbound: Spi::new(0x0104_00a1).unwrap(),
        outbound: Spi::new(0xb1ee).unwrap(),
        suite: "aes256gcm16-esn".parse().unwrap(),
        worker: WorkerId(1),
        age: Duration::from_secs(61),
        rekey_in: Some(Duration::from_secs(3500)),
    };
    let up = IkeSa {
        protection: Protection { port: 4500, ..protection },
        identity: Some("berlin.branch.example".parse().unwrap()),
        proof: Some("ECDSA P-256, CN=berlin".to_owned()),
        addresses: vec!["10.0.0.2".parse().unwrap()],
        role: Role::Responder,
        state: IkeState::Up,
        suite: Some("aes256gcm16-prfsha384-x25519".parse().unwrap()),
        spi_initiator: 0x0102_0304_0506_0708,
        spi_responder: 1,
        age: Duration::from_secs(3600),
        rekey_in: Some(Duration::from_secs(80_000)),
        heard: Some(Duration::from_secs(2)),
        nat_here: false,
        nat_there: true,
        server: false,
        retransmissions: 0,
        failure: None,
        children: vec![child],
    };
    let waiting = IkeSa {
        protection: Protection { remote: "203.0.113.9".parse().unwrap(), ..protection },
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
    };
    IkeSas(vec![up, waiting])
}

fn adjacencies() -> Adjacencies {
    let midchain = Adjacency {
        index: 7,
        kind: AdjacencyKind::Midchain,
        interface: Some(name("tunnel0")),
        next_hop: Some("10.0.0.2".parse().unwrap()),
        nbma: Some("203.0.113.2".parse().unwrap()),
        stacked_on: Some(3),
        fallback: Some(5),
        rewrite: vec![0x45, 0, 0xff],
        expires_in: Some(Duration::from_millis(1500)),
        stale: true,
        packets: 10,
        bytes: 640,
        mtu: 1400,
        members: vec![],
        multicast: false,
        spis: [0xb1ee, 0xc1ee].map(|spi| Spi::new(spi).unwrap()).to_vec(),
    };
    let drop = Adjacency {
        index: 0,
        kind: AdjacencyKind::Drop,
        interface: None,
        next_hop: None,
        nbma: None,
        stacked_on: None,
        fallback: None,
        rewrite: vec![],
        expires_in: None,
        stale: false,
        packets: 0,
        bytes: 0,
        mtu: 0,
        members: vec![],
        multicast: false,
        spis: vec![],
    };
    let replica = Adjacency {
        index: 9,
        next_hop: None,
        fallback: None,
        expires_in: None,
        stale: false,
        packets: 4,
        bytes: 272,
        multicast: true,
        ..midchain.clone()
    };
    Adjacencies(vec![drop, midchain, replica])
}

fn ports() -> Ports {
    Ports(vec![Port {
        name: "port0".into(),
        driver: "net_tap".into(),
        interface: Some(name("wan")),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        up: true,
        mtu: 1500,
        queues: 2,
        rx: Traffic { packets: 3, bytes: 180, errors: 1 },
        tx: Traffic::default(),
        offloads: [Used, Unused, Refused, Unused]
            .into_iter()
            .zip(OffloadKind::ALL)
            .map(|(state, kind)| Offload { kind, state })
            .collect(),
    }])
}

fn workers() -> Workers {
    Workers(vec![Worker {
        id: WorkerId(1),
        core: 3,
        idle: Idle::Adaptive,
        breaths: 1000,
        busy_breaths: 10,
        rx_packets: 40,
        tx_packets: 39,
        dropped: 1,
        handed_in: 7,
        handed_off: 5,
        busy_cycles: 4000,
        generation: 12,
        aead: "vaes256".into(),
    }])
}

fn counters() -> Counters {
    let counter =
        |name: &str, count| Counter { name: name.into(), sentence: format!("what {name} means"), count };
    Counters {
        nodes: vec![NodeCounter { node: "classify".into(), bursts: 2, packets: 64, cycles: 640 }],
        messages: vec![MessageCounter {
            tunnel: name("tunnel0"),
            message: "registration-request".into(),
            sent: 4,
            received: 0,
        }],
        rejects: vec![counter("bad-checksum", 1)],
        others: vec![counter("rx", 64)],
    }
}

fn traffic() -> NhrpTraffic {
    let Counters { messages, mut rejects, .. } = counters();
    rejects.push(Counter { name: "loop".into(), sentence: "what loop means".into(), count: 0 });
    let error = |tunnel, sent| ErrorCounter {
        tunnel: name(tunnel),
        code: 15,
        name: "hop count exceeded".into(),
        sent,
        received: 2,
    };
    NhrpTraffic { messages, errors: vec![error("tunnel0", 1), error("tunnel1", 0)], rejects }
}

fn cache() -> Cache {
    Cache(vec![Entry {
        tunnel: name("tunnel0"),
        prefix: "192.168.3.0/24".parse().unwrap(),
        next_hop: "10.0.0.3".parse().unwrap(),
        entry_type: EntryType::Cached,
        flags: EntryFlags { authoritative: true, ..EntryFlags::default() },
        nbma: None,
        claimed_nbma: None,
        created: Duration::from_secs(61),
        expires_in: None,
        mtu: 0,
    }])
}

fn servers() -> Servers {
    Servers(vec![Server {
        tunnel: name("tunnel0"),
        protocol: Some("10.0.0.1".parse().unwrap()),
        nbma: Some("203.0.113.1".parse().unwrap()),
        name: Some("hub.example".to_owned()),
        priority: 1,
        cluster: 2,
        state: ServerState::Responding,
        since: Duration::from_secs(5),
        requests: 3,
        replies: 2,
        refusals: 1,
        refusal: Some("unique address already registered".into()),
        next_request: Some(Duration::from_secs(195)),
    }])
}

fn program() -> Program {
    let tunnel = Tunnel {
        name: name("tunnel0"),
        mode: TunnelMode::Multipoint,
        source: "203.0.113.2".parse().unwrap(),
        source_interface: name("wan"),
        key: Some(42),
        mtu: 1400,
        ttl: 255,
        network_id: 1,
        redirect: true,
        table: TableId(0),
        underlay_table: TableId(0),
        outer_df: OuterDf::Copy,
        tcp_mss: TcpMss::Auto,
        netns: None,
        protection: None,
    };
    let binding = Binding {
        tunnel: name("tunnel0"),
        next_hop: "10.0.0.3".parse().unwrap(),
        nbma: "203.0.113.3".parse().unwrap(),
        link: Some(hop()),
        expires_in: Some(Duration::from_secs(60)),
        port: 0,
    };
    Program(vec![
        Programmed { owner: Owner::Config, object: Object::Tunnel(tunnel), stale: false },
        Programmed { owner: Owner::Nhrp, object: Object::Binding(binding), stale: true },
    ])
}

#[test]
fn tables_line_up_and_say_what_is_there() {
    assert_eq!(
        routes().to_string(),
        "\
Table     Prefix          Path                          Owner    Expires
    0  *  192.168.3.0/24  via 203.0.113.254 on tunnel0  nhrp     1d01h
    0     10.0.0.0/24     attached to lan               config   never
    0  *  10.0.0.1/32     receive on lan                netlink  never
    0  *  10.9.0.0/16     blackhole                     ike      never
"
    );
    assert_eq!(
        adjacencies().to_string(),
        "\
Index  Kind                  Interface  Next hop  NBMA         Stack  Fallback   MTU  SPI                    Expires   Packets  Bytes  Rewrite
    0  drop                  -          -         -                -         -     -  -                      never           0      0
    7  midchain (stale)      tunnel0    10.0.0.2  203.0.113.2      3         5  1400  0x0000b1ee,0x0000c1ee  00:00:01       10    640  4500ff
    9  midchain (multicast)  tunnel0    -         203.0.113.2      3         -  1400  0x0000b1ee,0x0000c1ee  never           4    272  4500ff
"
    );
    assert_eq!(
        ports().to_string(),
        "\
Port   Interface  Driver   MAC                Link   MTU  Queues  Rx packets  Rx bytes  Rx errors  Tx packets  Tx bytes  Tx errors  Offloads (unused)
port0  wan        net_tap  02:00:00:00:00:01  up    1500       2           3       180          1           0         0          0  rss (ipv4-checksum) (inline-crypto)
"
    );
    assert_eq!(
        workers().to_string(),
        "\
Worker  Core  Idle      Breaths  Busy  Rx packets  Tx packets  Dropped  Handed in  Handed off  Cycles/packet  Generation  AEAD
     1     3  adaptive     1000    10          40          39        1          7           5            100          12  vaes256
"
    );
    assert_eq!(
        counters().to_string(),
        "\
Node      Packets  Bursts  Packets/burst  Cycles/packet
classify       64       2             32             10

NHRP message          Tunnel   Sent  Received
registration-request  tunnel0     4         0

NHRP reject   Count  Meaning
bad-checksum      1  what bad-checksum means

Counter  Count  Meaning
rx          64  what rx means
"
    );
    assert_eq!(
        traffic().to_string(),
        "\
Tunnel   Message               Sent  Received
tunnel0  registration-request     4         0

Tunnel   Error indication    Code  Sent  Received
tunnel0  hop count exceeded    15     1         2
tunnel1  hop count exceeded    15     0         2

Reject        Count  Meaning
bad-checksum      1  what bad-checksum means
"
    );
    let nothing = NhrpTraffic::default().to_string();
    assert_eq!(nothing, "no tunnel\n\nno error indication\n\nnothing was rejected\n");
    assert_eq!(
        servers().to_string(),
        "\
Tunnel   NHS       NBMA         Name         Priority  Cluster  State       Since     Requests  Replies  Refusals  Next      Refused
tunnel0  10.0.0.1  203.0.113.1  hub.example         1        2  responding  00:00:05         3        2         1  00:03:15  unique address already registered
"
    );
    assert_eq!(
        cache().to_string(),
        "\
Target          Via       NBMA  Tunnel   Type    Created   Expires  Flags
192.168.3.0/24  10.0.0.3  -     tunnel0  cached  00:01:01  never    authoritative
"
    );
    assert_eq!(
        sas().to_string(),
        "\
Way  SPI         Profile  Local        Remote       Port  Mode       Suite        ESN  Worker  Packets  Bytes  Sequence   Leased  Replayed  Bad ICV  Age  Rekey in  State
in   0x010400a1  lab      203.0.113.1  203.0.113.2     -  transport  aes128gcm16  yes       1        5   4242         7        -         2        0  -    -         up
out  0x0000b1ee  lab      203.0.113.1  203.0.113.2     -  transport  aes128gcm16  yes       1        5   4242         7  4194304         -        -  -    -         soft lifetime reached
out  0x0000c1ee  lab      203.0.113.1  203.0.113.3  4500  transport  aes128gcm16  no        1        0      0         0        -         -        -  -    -         refused
0x0000c1ee to 203.0.113.3: its record is lost; give it a new key
"
    );
    assert_eq!(
        ike().to_string(),
        "\
Profile  Local        Remote       Port  Identity               Role       State    Suite                         Children  Age       Rekey in  Heard
lab      203.0.113.1  203.0.113.2  4500  berlin.branch.example  responder  up       aes256gcm16-prfsha384-x25519         1  01:00:00  22:13:20  00:00:02
lab      203.0.113.1  203.0.113.9     -  -                      initiator  waiting  -                                    0  00:00:30  00:00:04  -
203.0.113.9: it does not answer
"
    );
    assert_eq!(
        State::Ike(ike()).view(View::Detail).to_string(),
        "\
lab 203.0.113.1 to 203.0.113.2 port 4500: up, we are responder
    Identity: berlin.branch.example, proved by ECDSA P-256, CN=berlin
    Certified addresses: 10.0.0.2
    Suite: aes256gcm16-prfsha384-x25519; SPIs 0102030405060708, 0000000000000001
    Age 01:00:00; rekey in 22:13:20; last heard 00:00:02 ago; retransmissions 0
    NAT: in front of the peer
    Child: in 0x010400a1, out 0x0000b1ee, aes256gcm16-esn, worker 1; age 00:01:01; rekey in 00:58:20

lab 203.0.113.1 to 203.0.113.9: waiting, we are initiator, a server of ours
    Identity: -
    Suite: -; SPIs 0000000000000000, 0000000000000000
    Age 00:00:30; next attempt in 00:00:04; not heard of; retransmissions 3
    NAT: none
    Last failure: it does not answer
"
    );
    let mut all = sas();
    all.0[1].leased = Some(u64::MAX - 1);
    assert!(all.to_string().contains("         7     all  "), "{all}");
    let mut timed = sas();
    timed.add_times(&ike());
    let times: Vec<_> = timed.0.iter().map(|sa| (sa.age, sa.rekey_in)).collect();
    let known = (Some(Duration::from_secs(61)), Some(Duration::from_secs(3500)));
    assert_eq!(times, [known, known, (None, None)]);
    let text = program().to_string();
    assert!(text.contains("multipoint, from 203.0.113.2 (wan), key 42, network id 1"), "{text}");
    assert!(
        text.contains(
            "10.0.0.3 on tunnel0  nhrp (stale)  00:01:00  at 203.0.113.3, via 203.0.113.254 on wan"
        ),
        "{text}"
    );
}

#[test]
fn json_reads_back_as_it_was_written() {
    fn back<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(thing: &T) {
        let text = serde_json::to_string(thing).unwrap();
        assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), thing, "{text}");
    }
    back(&routes());
    back(&fib());
    back(&adjacencies());
    back(&ports());
    back(&workers());
    back(&counters());
    back(&traffic());
    back(&cache());
    back(&servers());
    back(&program());
    back(&sas());
    back(&ike());
    let json = serde_json::to_value(State::Adjacency(adjacencies())).unwrap();
    assert_eq!((&json[1]["rewrite"], &json[1]["expires_in"]), (&"4500ff".into(), &1.5.into()));
    let odd = json[1].to_string().replace("4500ff", "4500f");
    assert!(serde_json::from_str::<Adjacency>(&odd).is_err());
}

/// How much of it the filter leaves.
fn left(mut state: State, filter: Filter) -> usize {
    state.retain(&filter);
    let json = serde_json::to_value(&state).unwrap();
    // Counters are no list; a filter selects their messages.
    json.as_array().or_else(|| json["messages"].as_array()).unwrap().len()
}

#[test]
fn a_filter_leaves_what_has_all_that_is_set() {
    let all = Filter::default();
    let by = |text: &str| Filter { interface: Some(name(text)), ..all };
    let with = |text: &str| Filter { address: Some(text.parse().unwrap()), ..all };
    let of = |owner| Filter { owner: Some(owner), ..all };
    let table = |n| Filter { table: Some(TableId(n)), ..all };

    let rib = || State::Routes(routes());
    let seen = [all, by("lan"), with("10.0.0.1"), of(Owner::Ike), table(0), table(1)].map(|f| left(rib(), f));
    assert_eq!(seen, [4, 2, 2, 1, 4, 0]);
    let seen = [by("tunnel0"), with("192.168.3.9"), of(Owner::Nhrp)].map(|f| left(State::Fib(fib()), f));
    assert_eq!(seen, [1, 1, 1]);
    assert_eq!(left(rib(), Filter { interface: Some(name("lan")), ..of(Owner::Netlink) }), 1);
    let seen = [by("tunnel0"), with("203.0.113.2"), with("10.0.0.9")];
    assert_eq!(seen.map(|f| left(State::Adjacency(adjacencies()), f)), [2, 2, 0]);
    let seen = [by("wan"), by("port0"), by("lan"), table(9)].map(|f| left(State::Ports(ports()), f));
    assert_eq!(seen, [1, 1, 0, 1]);
    assert_eq!([by("tunnel0"), by("lan")].map(|f| left(State::Counters(counters()), f)), [1, 0]);
    assert_eq!([by("tunnel0"), by("lan")].map(|f| left(State::NhrpTraffic(traffic()), f)), [1, 0]);
    let mut of_one = traffic();
    of_one.retain(&by("tunnel1"));
    assert_eq!((of_one.messages.len(), of_one.errors.len(), of_one.rejects.len()), (0, 1, 2));
    let seen =
        [with("192.168.3.7"), with("10.0.0.3"), with("10.0.0.4")].map(|f| left(State::Nhrp(cache()), f));
    assert_eq!(seen, [1, 1, 0]);
    assert_eq!([with("203.0.113.1"), by("x")].map(|f| left(State::Nhs(servers()), f)), [1, 0]);
    let seen = [of(Owner::Nhrp), with("203.0.113.3"), with("203.0.113.2"), table(1)];
    assert_eq!(seen.map(|f| left(State::Program(program()), f)), [1, 1, 1, 1]);
    assert_eq!(left(State::Workers(workers()), by("lan")), 1);
    let seen = [all, with("203.0.113.3"), with("203.0.113.1"), table(9)].map(|f| left(State::Sa(sas()), f));
    assert_eq!(seen, [3, 1, 3, 0]);
    let seen = [all, with("203.0.113.9"), with("10.0.0.2"), table(9)].map(|f| left(State::Ike(ike()), f));
    assert_eq!(seen, [2, 1, 1, 0]);
}

#[test]
fn parts_join_to_the_whole_in_order() {
    let entry = |n: u32| FibEntry {
        prefix: Prefix::host(std::net::Ipv4Addr::from(n).into()),
        adjacency: n,
        ..fib().0[3].clone()
    };
    for len in [0, 1, 4096, 4097, 10_000] {
        let whole = State::Fib(Fib((0..len).map(entry).collect()));
        let parts = whole.clone().parts();
        assert_eq!(parts.len(), (len as usize).div_ceil(4096).max(1));
        let mut joined = State::empty(What::Fib);
        for part in parts {
            joined.join(part).unwrap();
        }
        assert_eq!(joined, whole);
    }
    let refused = State::empty(What::Fib).join(State::empty(What::Nhs)).unwrap_err();
    assert_eq!(refused.what(), What::Nhs);
    assert!(What::ALL.iter().all(|&what| State::empty(what).what() == what));
}
