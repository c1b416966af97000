//! IKEv2 with strongSwan 5.9.8 and 6.0.1, in virtual machines whose kernel does ESP around GRE: a table of cells, each a peer with an address and
//! algorithms of its own, all of one machine at once. Who begins, what the hub proves itself by, who rekeys and how it ends differ by phase.
//! `make test-interop` runs this.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::census::Lookout;
use tests::cloud::{self, Cloud, HUB, Phase, Ports};
use tests::guest::{Guest, Suite};
use tests::pki::{Authority, KeyKind};
use tests::swan::{Connection, Proof, Swan};
use tests::vm::Vm;
use tests::{lock, wait};

/// A peer: what it proposes, and what strongSwan calls what is agreed on.
#[derive(Debug, Clone, Copy)]
struct Cell {
    /// Of the IKE SA.
    ike: (&'static str, &'static str),
    /// Of the child SA.
    esp: (&'static str, &'static str),
    /// Its key; without one it has the pre-shared one.
    key: Option<KeyKind>,
    /// It says that it is behind a NAT.
    encap: bool,
}

const fn cell(
    ike: (&'static str, &'static str),
    esp: (&'static str, &'static str),
    key: Option<KeyKind>,
    encap: bool,
) -> Cell {
    Cell { ike, esp, key, encap }
}

const GCM256_ESN: (&str, &str) = ("aes256gcm16-esn", "AES_GCM_16-256/ESN");
const GCM256: (&str, &str) = ("aes256gcm16-noesn", "AES_GCM_16-256");
const GCM128_ESN: (&str, &str) = ("aes128gcm16-esn", "AES_GCM_16-128/ESN");
const GCM128: (&str, &str) = ("aes128gcm16-noesn", "AES_GCM_16-128");
/// With a key exchange of its own whenever it is rekeyed.
const GCM256_ESN_PFS: (&str, &str) = ("aes256gcm16-ecp256-esn", "AES_GCM_16-256/ESN");

/// Each group, each cipher, integrity and pseudo-random function, each key of ESP with ESN and without, and each kind of proof, native and in UDP.
const CELLS: [Cell; 10] = [
    cell(
        ("aes256gcm16-prfsha384-x25519", "AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519"),
        GCM256_ESN,
        None,
        false,
    ),
    cell(("aes128gcm16-prfsha256-ecp256", "AES_GCM_16-128/PRF_HMAC_SHA2_256/ECP_256"), GCM128, None, true),
    cell(("aes256gcm16-prfsha512-ecp384", "AES_GCM_16-256/PRF_HMAC_SHA2_512/ECP_384"), GCM256, None, false),
    cell(
        ("aes256gcm16-prfsha384-ecp256", "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_256"),
        GCM256,
        Some(KeyKind::P256),
        false,
    ),
    cell(
        ("aes128gcm16-prfsha256-ecp384", "AES_GCM_16-128/PRF_HMAC_SHA2_256/ECP_384"),
        GCM128_ESN,
        Some(KeyKind::P384),
        false,
    ),
    cell(
        ("aes256gcm16-prfsha384-ecp521", "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_521"),
        GCM128,
        Some(KeyKind::Rsa),
        false,
    ),
    cell(
        ("aes256-sha256-prfsha256-modp2048", "AES_CBC-256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048"),
        GCM256_ESN,
        Some(KeyKind::Rsa),
        true,
    ),
    cell(
        ("aes256-sha384-prfsha384-x25519", "AES_CBC-256/HMAC_SHA2_384_192/PRF_HMAC_SHA2_384/CURVE_25519"),
        GCM128_ESN,
        Some(KeyKind::Ed25519),
        false,
    ),
    cell(
        ("aes128gcm16-prfsha256-x25519", "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519"),
        GCM256_ESN_PFS,
        Some(KeyKind::P256),
        false,
    ),
    cell(
        ("aes256gcm16-prfsha384-x25519", "AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519"),
        GCM256_ESN,
        Some(KeyKind::P256),
        true,
    ),
];

/// The first cell's number: its addresses end in it.
const FIRST: u8 = 101;
const PSK: &str = "what both of us have heard of before";

/// The cells with their numbers.
fn cells() -> impl Iterator<Item = (u8, Cell)> {
    (FIRST..).zip(CELLS)
}

fn nbma(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, number)
}

fn tunnel(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 255, 0, number)
}

fn name(number: u8) -> String {
    format!("peer{number}")
}

/// All peers of a machine, and what they prove themselves with; the hub by this.
fn peers(authority: &Authority, hub: Ipv4Addr, proof: &Proof) -> Swan {
    let mut swan = Swan::believing(authority);
    swan.psk = Some(PSK.to_owned());
    for (number, cell) in cells() {
        let name = name(number);
        let own = match cell.key {
            None => Proof::Psk,
            Some(kind) => {
                swan = swan.with(&name, &authority.issue(&name, &[tunnel(number).into()], kind).unwrap());
                Proof::Certificate(name.clone())
            }
        };
        swan.connections.push(Connection {
            name,
            local: nbma(number),
            remote: Some(hub),
            ike: cell.ike.0.to_owned(),
            esp: cell.esp.0.to_owned(),
            own,
            peer: proof.clone(),
            encap: cell.encap,
            trap: false,
            more: "unique = replace\n dpd_delay = 30".to_owned(),
        });
    }
    swan
}

/// Commands that give a machine the addresses of all cells, and a tunnel to the hub from each.
fn tunnels(hub: (Ipv4Addr, Ipv4Addr)) -> String {
    let (hub, inner) = hub;
    // What speaks without being asked would do so in the clear before there is an SA.
    let quiet =
        "for family in all default; do sysctl -qw net.ipv6.conf.$family.disable_ipv6=1; done\n".to_owned();
    cells().fold(quiet, |mut text, (number, _)| {
        let (nbma, tunnel) = (nbma(number), tunnel(number));
        let _ = write!(
            text,
            "ip addr add {nbma}/24 dev eth0\n\
             ip link add gre{number} type gre local {nbma} remote {hub} key 42 ttl 64 dev eth0\n\
             ip addr add {tunnel}/32 dev gre{number}\nip link set gre{number} mtu 1380 up\n\
             sysctl -qw net.ipv4.conf.gre{number}.rp_filter=0\n\
             ip route add {inner}/32 dev gre{number} metric {number}\n"
        );
        text
    })
}

/// An IKE SA as strongSwan shows it, with its child SAs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    name: String,
    is_initiator: bool,
    /// SPIs of both.
    spis: String,
    algorithms: String,
    /// Mode and algorithms, SPI of what comes in, and of what goes out.
    children: Vec<(String, String, String)>,
}

/// All that are established, and of them the children that are installed.
fn shown(vm: &Vm) -> Result<Vec<Shown>> {
    let text = vm.swanctl("--list-sas")?;
    let mut all = Vec::<Shown>::new();
    let mut is_listed = false;
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match (line.starts_with(' '), &words[..]) {
            (false, [name, _, state, _, initiator, responder, ..]) => {
                is_listed = *state == "ESTABLISHED,";
                if is_listed {
                    all.push(Shown {
                        name: name.trim_end_matches(':').to_owned(),
                        is_initiator: initiator.ends_with('*'),
                        spis: format!("{initiator} {responder}").replace('*', ""),
                        algorithms: String::new(),
                        children: Vec::new(),
                    });
                }
            }
            (true, [algorithms]) if is_listed && algorithms.contains("/PRF_") => {
                all.last_mut().context("an SA")?.algorithms = (*algorithms).to_owned();
            }
            (true, [_, _, "reqid", _, "INSTALLED,", mode, algorithms]) if is_listed => {
                let what = format!("{mode} {algorithms}");
                all.last_mut().context("an SA")?.children.push((what, String::new(), String::new()));
            }
            (true, ["in", spi, ..]) if is_listed => {
                if let Some(child) = all.last_mut().and_then(|sa| sa.children.last_mut()) {
                    child.1 = spi.trim_end_matches(',').to_owned();
                }
            }
            (true, ["out", spi, ..]) if is_listed => {
                if let Some(child) = all.last_mut().and_then(|sa| sa.children.last_mut()) {
                    child.2 = spi.trim_end_matches(',').to_owned();
                }
            }
            _ => {}
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Waits until each cell has exactly one IKE SA with one child, each with its algorithms. (One may stand beside its successor for a moment.)
fn wait_all_up(vm: &Vm, within: Duration, numbers: &[u8]) -> Vec<Shown> {
    wait::until("one IKE SA and one child for each", within, || {
        let all = shown(vm)?;
        let names: Vec<_> = all.iter().map(|sa| sa.name.clone()).collect();
        let wanted: Vec<_> = numbers.iter().copied().map(name).collect();
        ensure!(names == wanted, "{names:?}");
        for (number, cell) in cells().filter(|(number, _)| numbers.contains(number)) {
            let name = name(number);
            let sa = all.iter().find(|sa| sa.name == name).context("none")?;
            ensure!(sa.algorithms == cell.ike.1, "{name}: {} instead of {}", sa.algorithms, cell.ike.1);
            let mode = if cell.encap { "TRANSPORT-in-UDP," } else { "TRANSPORT," };
            let children: Vec<_> = sa.children.iter().map(|child| child.0.clone()).collect();
            // Of a key exchange of its own it is told after the first rekeying.
            let is_right = |what: &String| {
                what.strip_prefix(mode).and_then(|rest| rest.strip_prefix(" ESP:")).is_some_and(|what| {
                    what == cell.esp.1 || (cell.esp == GCM256_ESN_PFS && what == "AES_GCM_16-256/ECP_256/ESN")
                })
            };
            ensure!(children.len() == 1 && children.iter().all(is_right), "{name}: {children:?}");
        }
        Ok(all)
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", vm.swan_log()))
}

/// Each cell pings the hub twenty times a second for so long.
fn begin_pings(vm: &Vm, hub: Ipv4Addr, seconds: u32, numbers: &[u8]) {
    let command = numbers.iter().fold(String::from("rm -f /tmp/ping.*\n"), |mut text, number| {
        let count = seconds * 20;
        let _ = writeln!(
            text,
            "ping -q -i 0.05 -c {count} -W 2 -I gre{number} {hub} >/tmp/ping.{number} 2>&1 </dev/null &"
        );
        text
    });
    vm.run(&command).unwrap();
}

/// Waits until all pings have ended: each was answered.
fn all_answered(vm: &Vm, within: Duration, numbers: &[u8]) {
    wait::until("the end of all pings", within, || {
        ensure!(vm.run("pgrep -x ping")?.0 != 0, "some still run");
        Ok(())
    })
    .unwrap();
    let (_, said) = vm.run("cd /tmp; grep . ping.* | grep -e transmitted -e loss").unwrap();
    let whole = said.lines().filter(|line| line.contains(" 0% packet loss")).count();
    assert_eq!(whole, numbers.len(), "{said}\n{}", vm.swan_log());
}

/// Few pings, of which each is answered, the first after the SA is up too.
fn each_pings(vm: &Vm, hub: Ipv4Addr, numbers: &[u8]) {
    begin_pings(vm, hub, 1, numbers);
    all_answered(vm, Duration::from_secs(20), numbers);
}

fn initiate(vm: &Vm, numbers: &[u8]) {
    for &number in numbers {
        vm.swanctl(&format!("--initiate --child {} --timeout 10", name(number)))
            .unwrap_or_else(|e| panic!("{number}: {e:#}"));
    }
}

/// Both SAs of each are rekeyed by strongSwan while all ping, children twice; nothing is lost. All SPIs are new in the end.
fn rekeyed_by_strongswan(vm: &Vm, hub: Ipv4Addr, numbers: &[u8]) {
    let before = wait_all_up(vm, Duration::from_secs(5), numbers);
    begin_pings(vm, hub, 15, numbers);
    for what in ["child", "ike", "child"] {
        for &number in numbers {
            vm.swanctl(&format!("--rekey --{what} {}", name(number))).unwrap();
        }
        std::thread::sleep(Duration::from_secs(2)); // Between two rekeyings, so that the second is one of new SAs.
    }
    all_answered(vm, Duration::from_secs(40), numbers);
    let after = wait_all_up(vm, Duration::from_secs(10), numbers);
    for (before, after) in before.iter().zip(&after) {
        assert!(
            before.spis != after.spis && before.children[0].1 != after.children[0].1,
            "{before:?} {after:?}"
        );
        assert_ne!(before.children[0].2, after.children[0].2);
    }
}

/// The cells alone, to see that they are what strongSwan can do: 6.0.1 begins with 5.9.8, and rekeys.
#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn strongswan_6_and_5_agree_on_every_cell() {
    let _turn = lock::take_turn().unwrap();
    let cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let authority = Authority::root("authority", KeyKind::P256).unwrap();
    let hub = (cloud.nodes[HUB].nbma, cloud.nodes[HUB].tunnel);
    let mut swan = peers(&authority, hub.0, &Proof::Certificate(String::new()));
    let own = authority.issue("hub", &[IpAddr::from(hub.1)], KeyKind::P256).unwrap();
    let mut theirs = Guest::station(&cloud, "swan6", 61, Suite::Trixie, swan.clone());
    theirs.setup = Some(tunnels(hub));
    // The other end of each.
    for connection in &mut swan.connections {
        connection.remote = Some(std::mem::replace(&mut connection.local, hub.0));
        std::mem::swap(&mut connection.own, &mut connection.peer);
        if connection.own != Proof::Psk {
            connection.own = Proof::Certificate("hub".to_owned());
        }
    }
    let neighbours =
        cells().fold(String::from("ip route add 10.255.0.0/24 dev gre1\n"), |mut text, (number, _)| {
            let _ = writeln!(text, "ip neigh add {} lladdr {} dev gre1", tunnel(number), nbma(number));
            text
        });
    let mut ours = Guest::station(&cloud, "swan5", 1, Suite::Bookworm, swan.with("hub", &own));
    ours.setup = Some(neighbours);
    let [peer, hub_vm] = Vm::boot(&cloud, [theirs, ours]).unwrap();
    let all: Vec<u8> = cells().map(|(number, _)| number).collect();
    initiate(&peer, &all);
    let up = wait_all_up(&peer, Duration::from_secs(10), &all);
    assert!(up.iter().all(|sa| sa.is_initiator), "{up:?}");
    each_pings(&peer, hub.1, &all);
    rekeyed_by_strongswan(&peer, hub.1, &all);
    assert_eq!(shown(&hub_vm).unwrap().len(), all.len());
}

/// The hub: it takes what every cell proposes, and lets in whoever has a certificate, or the pre-shared key and one of these addresses.
fn hub(cloud: &mut Cloud, authority: &Authority) {
    let hub = &mut cloud.nodes[HUB];
    let own = authority.issue("hub", &hub.certified_addresses(), KeyKind::P256).unwrap();
    hub.certify(authority, &own).unwrap();
    let mut proposals: Vec<_> = cells().map(|(_, cell)| cell.ike.0).collect();
    proposals.sort_unstable();
    proposals.dedup();
    let esp = "[\"aes256gcm16-esn\", \"aes128gcm16-esn\", \"aes256gcm16\", \"aes128gcm16\", \"aes256gcm16-esn-ecp256\"]";
    hub.set_ike(&format!(
        "peers = [\"*.cloud.example\", \"203.0.113.0/24\"]\nregisters = \"anything\"\nproposals = {proposals:?}\nesp = {esp}\n\
         psk = [{{ secret = \"{PSK}\" }}]"
    ))
    .unwrap();
}

/// The hub knows where each cell is, and so wants to be protected with it.
fn know_all(cloud: &mut Cloud) {
    let maps = cells().map(|(number, _)| {
        let pair = [("protocol", tunnel(number)), ("nbma", nbma(number))];
        let map = pair.into_iter().map(|(key, address)| (key.to_owned(), address.to_string().into()));
        toml::Value::Table(map.collect())
    });
    let maps = toml::Value::Array(maps.collect());
    cloud.nodes[HUB].nhrp().unwrap().insert("map".to_owned(), maps);
    cloud.nodes[HUB].apply().unwrap();
}

/// What the hub has with the cells, in any state but waiting.
fn at_hub(cloud: &Cloud) -> Vec<serde_json::Value> {
    let sas = cloud.nodes[HUB].nave_json("show ike").unwrap();
    sas.as_array().unwrap().iter().filter(|sa| sa["state"] != "waiting").cloned().collect()
}

fn seen(cloud: &Cloud, vm: &Vm) -> String {
    let show = |words: &str| cloud.nodes[HUB].nave(words).unwrap_or_else(|error| format!("{error:#}"));
    let told = ["show ike --detail", "show sa", "show drops", "show counters"].map(show);
    format!("{}\n{}\n{}", vm.swan_log(), told.join("\n"), cloud.nodes[HUB].logs())
}

/// A packet from the hub to each, which wants an SA.
fn want_all(cloud: &Cloud, all: &[u8]) {
    let to = all.iter().map(|number| tunnel(*number).to_string()).collect::<Vec<_>>().join(" ");
    let ping = format!("for to in {to}; do ping -c 1 -W 1 $to & done; wait");
    cloud.nodes[HUB].namespace.output("sh", &["-c", &ping]).unwrap();
}

/// The hub ends all IKE SAs; packets want each back, and now the hub has begun it.
fn begun_by_the_hub(cloud: &Cloud, vm: &Vm, all: &[u8]) -> Vec<Shown> {
    for &number in all {
        cloud.nodes[HUB].nave(&format!("clear ike {}", nbma(number))).unwrap();
    }
    wait::until("the hub to begin", Duration::from_secs(30), || {
        want_all(cloud, all);
        let names: Vec<_> = shown(vm)?.into_iter().filter(|sa| !sa.is_initiator).map(|sa| sa.name).collect();
        ensure!(names == all.iter().copied().map(name).collect::<Vec<_>>(), "{names:?}");
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", seen(cloud, vm)));
    wait_all_up(vm, Duration::from_secs(15), all)
}

/// Input: the table, with a Nave hub. Output: with strongSwan as the initiator and then with the hub, the hub by a certificate of ECDSA, of RSA, and
/// by a pre-shared key: each is up with its algorithms; both kinds of SA are rekeyed, by either side, while all ping twenty times a second, and no
/// ping is lost; an SA that one side deletes is gone at the other; a machine that vanishes is noticed, and found again. Nothing is ever in the clear.
fn every_cell(suite: Suite) {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let authority = Authority::root("authority", KeyKind::P256).unwrap();
    hub(&mut cloud, &authority);
    let (there, inner) = (cloud.nodes[HUB].nbma, cloud.nodes[HUB].tunnel);
    let lookout = Lookout::start(&cloud).unwrap();
    cloud.start_node(HUB).unwrap();
    let swan = peers(&authority, there, &Proof::Certificate(String::new()));
    let mut guest = Guest::station(&cloud, "swan", 61, suite, swan);
    guest.setup = Some(tunnels((there, inner)));
    let [vm] = Vm::boot(&cloud, [guest]).unwrap();
    let all: Vec<u8> = cells().map(|(number, _)| number).collect();

    // strongSwan begins, and deletes, and begins.
    initiate(&vm, &all);
    wait_all_up(&vm, Duration::from_secs(10), &all);
    assert_eq!(at_hub(&cloud).len(), all.len(), "{}", seen(&cloud, &vm));
    for &number in &all {
        vm.swanctl(&format!("--terminate --ike {}", name(number))).unwrap();
    }
    wait::until_true("that the hub has none any more", Duration::from_secs(10), || at_hub(&cloud).is_empty())
        .unwrap_or_else(|e| panic!("{e:#}\n{}", seen(&cloud, &vm)));
    initiate(&vm, &all);
    know_all(&mut cloud);
    assert!(wait_all_up(&vm, Duration::from_secs(10), &all).iter().all(|sa| sa.is_initiator));
    each_pings(&vm, inner, &all);
    rekeyed_by_strongswan(&vm, inner, &all);

    // The hub begins, and rekeys.
    let addresses = cloud.nodes[HUB].certified_addresses();
    let own = authority.issue("hub", &addresses, KeyKind::Rsa).unwrap();
    cloud.nodes[HUB].show_certificate(&own).unwrap();
    cloud.nodes[HUB].set_ike("lifetime = 22\nchild_lifetime = 10").unwrap();
    cloud.nodes[HUB].apply().unwrap();
    let before = begun_by_the_hub(&cloud, &vm, &all);
    begin_pings(&vm, inner, 45, &all);
    all_answered(&vm, Duration::from_secs(59), &all);
    let after = wait_all_up(&vm, Duration::from_secs(10), &all);
    for (before, after) in before.iter().zip(&after) {
        assert!(
            before.spis != after.spis && before.children[0].1 != after.children[0].1,
            "{before:?} {after:?}"
        );
    }

    // By a pre-shared key, and a machine that vanishes.
    vm.load(&peers(&authority, there, &Proof::Psk)).unwrap();
    let ike = cloud.nodes[HUB].ike().unwrap();
    for field in ["certificate", "private_key", "lifetime", "child_lifetime"] {
        ike.remove(field);
    }
    cloud.nodes[HUB].set_ike("identity = \"hub.cloud.example\"\ndead_peer_detection = 2").unwrap();
    cloud.nodes[HUB].apply().unwrap();
    begun_by_the_hub(&cloud, &vm, &all);
    each_pings(&vm, inner, &all);
    vm.run("ip link set eth0 down").unwrap();
    let is_up = |sa: &serde_json::Value| sa["state"] == "up";
    wait::until_true("its death", Duration::from_secs(50), || !at_hub(&cloud).iter().any(is_up))
        .unwrap_or_else(|e| panic!("{e:#}\n{}", seen(&cloud, &vm)));
    vm.run("ip link set eth0 up").unwrap();
    wait::until("that it is found again", Duration::from_secs(90), || {
        want_all(&cloud, &all);
        let up = at_hub(&cloud).iter().filter(|sa| is_up(sa)).count();
        ensure!(up == all.len(), "{up}");
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", seen(&cloud, &vm)));
    cloud.check_alive().unwrap();
    cloud.stop().unwrap();
    lookout.finish().unwrap().check().unwrap();
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn strongswan_5_in_every_cell() {
    every_cell(Suite::Bookworm);
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn strongswan_6_in_every_cell() {
    every_cell(Suite::Trixie);
}
