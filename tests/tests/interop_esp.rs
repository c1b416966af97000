//! ESP of the Linux kernel, in spokes of Linux and FRR in virtual machines, with a Nave hub: static keys on both sides, so that nothing
//! is tried but the packets themselves. `make test-interop` runs this.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::process::Command;

use tests::capture::{self, Capture, Frame};
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports};
use tests::guest::Guest;
use tests::node::{Node, program};
use tests::vm::Vm;
use tests::{lock, trail};

/// How a spoke is protected.
#[derive(Debug, Clone, Copy)]
struct Protection {
    /// Of the spoke: its addresses end in it.
    number: u8,
    /// Of the key.
    bits: usize,
    esn: bool,
    /// ESP in UDP, port 4500 on both sides.
    udp: bool,
}

/// Spokes with each key length, with ESN and without; those of some numbers in UDP.
fn spokes(udp: [bool; 4]) -> [Protection; 4] {
    let spoke = |number, bits, esn, udp| Protection { number, bits, esn, udp };
    let [a, b, c, d] = udp;
    [spoke(13, 128, false, a), spoke(14, 128, true, b), spoke(15, 256, false, c), spoke(16, 256, true, d)]
}

impl Protection {
    /// SPI of what the hub gets, or sends.
    fn spi(self, to_hub: bool) -> u32 {
        0x0100_0000 | u32::from(self.number) << 4 | u32::from(to_hub)
    }

    /// Key and salt in hexadecimal digits: another one in each direction.
    fn key(self, to_hub: bool) -> String {
        let first = self.number << 1 | u8::from(to_hub);
        (0..(self.bits / 8 + 4) as u8).fold(String::from("0x"), |mut text, at| {
            let _ = write!(text, "{:02x}", first.wrapping_add(at.wrapping_mul(29)));
            text
        })
    }

    /// What the spoke's kernel is told: SAs, and that GRE needs them.
    fn commands(self, mode: &str, spoke: IpAddr, hub: IpAddr) -> String {
        let Self { number, esn, udp, .. } = self;
        let (version, length) = if spoke.is_ipv4() { (4, 32) } else { (6, 128) };
        let mut text = format!("modprobe -a xfrm_user esp{version} gcm seqiv\n");
        if udp {
            // A socket whose datagrams are ESP (UDP_ENCAP, UDP_ENCAP_ESPINUDP), as an IKE daemon has one.
            let _ = writeln!(
                text,
                "socat -u UDP{version}-RECV:4500,setsockopt-socket=17:100:i2 /dev/null </dev/null &"
            );
        }
        let replay = if esn { "replay-window 128 flag esn" } else { "replay-window 32" };
        let any = if version == 4 { "0.0.0.0" } else { "::" };
        let encap = if udp { format!("encap espinudp 4500 4500 {any}") } else { String::new() };
        for (to_hub, direction) in [(true, "out"), (false, "in")] {
            let (from, to) = if to_hub { (spoke, hub) } else { (hub, spoke) };
            let (spi, key) = (self.spi(to_hub), self.key(to_hub));
            let _ = write!(
                text,
                "ip xfrm state add src {from} dst {to} proto esp spi {spi:#x} reqid {number} mode {mode} {replay} \
                 aead 'rfc4106(gcm(aes))' {key} 128 {encap}\n\
                 ip xfrm policy add src {from}/{length} dst {to}/{length} proto gre dir {direction} \
                 tmpl src {from} dst {to} proto esp reqid {number} mode {mode}\n"
            );
        }
        text
    }

    /// The same for the hub's configuration.
    fn peer(self, spoke: IpAddr) -> toml::Table {
        let sa = |to_hub| {
            format!("{{ spi = {}, key = \"{}\", esn = {} }}", self.spi(to_hub), self.key(to_hub), self.esn)
        };
        let port = if self.udp { 4500 } else { 0 };
        let text = format!(
            "remote = \"{spoke}\"\nport = {port}\ninbound = {}\noutbound = {}\n",
            sa(true),
            sa(false)
        );
        text.parse().unwrap()
    }

    /// Lines of a dissector's table.
    fn sas(self, family: &str) -> String {
        let line = |to_hub| {
            let (spi, key) = (self.spi(to_hub), self.key(to_hub));
            format!(
                r#""{family}","*","*","{spi:#010x}","AES-GCM with 16 octet ICV [RFC4106]","{key}","NULL","""#
            )
        };
        format!("{}\n{}\n", line(true), line(false))
    }
}

/// A cloud with a hub whose tunnel is protected, each spoke by its own keys, and which relays between spokes, as they have none for each
/// other. Nothing runs yet.
fn cloud(mode: &str, spokes: &[Protection]) -> Cloud {
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let hub = &mut cloud.nodes[HUB];
    for spoke in spokes {
        let number = spoke.number;
        let route = format!("prefix = \"192.168.{number}.0/24\"\nnext_hop = \"10.255.0.{number}\"");
        hub.add("routes", &route).unwrap();
    }
    add_profile(hub, mode, spokes.iter().map(|spoke| spoke.peer([203, 0, 113, spoke.number].into())));
    let tunnel = hub.config["tunnels"][0].as_table_mut().unwrap();
    tunnel.insert("protection".to_owned(), "lab".into());
    tunnel["nhrp"].as_table_mut().unwrap().remove("redirect");
    cloud
}

/// Gives a node a profile `lab` with these peers.
fn add_profile(node: &mut Node, mode: &str, peers: impl Iterator<Item = toml::Table>) {
    let mut profile: toml::Table = format!("name = \"lab\"\nmode = \"{mode}\"").parse().unwrap();
    profile.insert("static".to_owned(), toml::Value::Array(peers.map(toml::Value::Table).collect()));
    node.config.insert("profiles".to_owned(), toml::Value::Array(vec![profile.into()]));
}

/// The address of a node in the IPv6 underlay.
fn in_ipv6(number: u8) -> IpAddr {
    format!("2001:db8:113::{number}").parse().unwrap()
}

/// The same over IPv6, where nhrpd does not go: each spoke has a tunnel of its own, whose GRE key is its number, and no NHRP.
fn cloud_over_ipv6(spokes: &[Protection]) -> Cloud {
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let hub = &mut cloud.nodes[HUB];
    for list in ["routes", "tunnels"] {
        hub.config.insert(list.to_owned(), toml::Value::Array(Vec::new()));
    }
    let wan = hub.config["interfaces"][0].as_table_mut().unwrap();
    wan.insert("addresses".to_owned(), vec![format!("{}/64", in_ipv6(1))].into());
    for spoke in spokes {
        let number = spoke.number;
        let tunnel = format!(
            "name = \"tunnel{number}\"\nmode = \"gre\"\nsource = \"wan\"\ndestination = \"{}\"\nkey = {number}\n\
             mtu = 1360\nprotection = \"lab\"\naddresses = [\"10.254.{number}.1/24\"]\n",
            in_ipv6(number)
        );
        hub.add("tunnels", &tunnel).unwrap();
        let route = format!("prefix = \"192.168.{number}.0/24\"\nnext_hop = \"10.254.{number}.2\"");
        hub.add("routes", &route).unwrap();
    }
    add_profile(hub, "transport", spokes.iter().map(|spoke| spoke.peer(in_ipv6(spoke.number))));
    cloud
}

/// The protocol number of an IP frame, and the UDP ports if it is one of UDP.
fn protocol(frame: &Frame) -> Option<(u8, [u16; 2])> {
    let ip = &frame.bytes[14..];
    let (protocol, upper) = match &frame.bytes[12..14] {
        [8, 0] => (ip[9], ip.get(usize::from(ip[0] & 15) * 4..)?),
        [0x86, 0xdd] => (ip[6], ip.get(40..)?),
        _ => return None,
    };
    Some((protocol, [[0, 1], [2, 3]].map(|[high, low]| u16::from_be_bytes([upper[high], upper[low]]))))
}

/// What is to be on the wire.
struct Wire<'a> {
    /// Of IP outside.
    family: &'a str,
    /// Transport or tunnel mode.
    mode: &'a str,
    /// What is inside, to the hub and from it, in each SA.
    inner: [Vec<&'a str>; 2],
    /// Of the tunnels, in bytes.
    mtu: u16,
}

/// Nothing but ESP of these spokes and what finds neighbours, each packet authentic, with what is to be inside.
fn assert_protected(cloud: &Cloud, frames: &[Frame], wire: &Wire, spokes: &[Protection]) {
    assert!(frames.iter().all(|frame| trail::gre(frame).is_none()), "GRE in the clear");
    let wanted = |udp| spokes.iter().any(|spoke| spoke.udp == udp);
    for (protocol, ports) in frames.iter().filter_map(protocol) {
        let expected = match protocol {
            50 => wanted(false),
            17 => wanted(true) && ports == [4500, 4500],
            ICMPV6 => matches!(ports[0] >> 8, 130..=143),
            // Multicast listeners say who they are behind a hop-by-hop header.
            0 => ports[0] >> 8 == u16::from(ICMPV6),
            _ => false,
        };
        assert!(expected, "protocol {protocol}, {ports:?}");
    }
    let [file, table] = ["underlay.pcap", "underlay.esp_sa"].map(|name| cloud.directory().join(name));
    capture::save(&file, frames).unwrap();
    fs::write(&table, spokes.iter().map(|spoke| spoke.sas(wire.family)).collect::<String>()).unwrap();
    let mut decode = Command::new(program("nave").unwrap());
    let output = decode.args(["decode", "--check", "--esp-sa"]).args([&table, &file]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    for spoke in spokes {
        for (to_hub, inner) in [true, false].into_iter().zip(&wire.inner) {
            let udp = if spoke.udp { "UDP 4500 > 4500, " } else { "" };
            let sealed = |what: &str| {
                let mut blocks = said.split("\n\n");
                let spi = format!("{udp}ESP {} SPI {:#010x} sequence ", wire.mode, spoke.spi(to_hub));
                blocks.any(|b| {
                    b.contains(&spi)
                        && b.contains(what)
                        && b.contains(", GRE key ")
                        && b.contains(" extended, ") == spoke.esn
                })
            };
            let missing: Vec<_> = inner.iter().filter(|what| !sealed(what)).collect();
            assert!(missing.is_empty(), "{spoke:?}, to the hub {to_hub}: no {missing:?} in\n{said}");
        }
    }
}

/// Finds neighbours and says who listens.
const ICMPV6: u8 = 58;

/// Spokes with a kind of ESP register with the hub and reach its LAN and each other by it.
fn are_at_home(mode: &str, spokes: [Protection; 4]) {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud(mode, &spokes);
    cloud.start_node(HUB).unwrap();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let guests = spokes.map(|spoke| {
        let mut guest = Guest::spoke(&cloud, spoke.number);
        guest.setup = Some(spoke.commands(mode, guest.nbma.into(), cloud.nodes[HUB].nbma.into()));
        guest
    });
    let vms = Vm::boot(&cloud, guests).unwrap();
    for vm in &vms {
        let registered = vm.wait_registered(&cloud.nodes[HUB], vm.nbma);
        registered.unwrap_or_else(|e| panic!("{e:#}\n{}", seen(&cloud, vm)));
    }
    let things = [["registration-request", "echo request"], ["registration-reply", "echo reply"]];
    let wire = Wire { family: "IPv4", mode, inner: things.map(Vec::from), mtu: 1400 };
    reach_each_other(&cloud, capture, &wire, &spokes, &vms);
    cloud.check_alive().unwrap();
}

/// Each reaches the hub's LAN, is reached from there, and reaches the next one; then large packets do.
fn reach_each_other(cloud: &Cloud, capture: Capture, wire: &Wire, spokes: &[Protection], vms: &[Vm]) {
    let host = &cloud.nodes[HUB].host;
    for (at, vm) in vms.iter().enumerate() {
        vm.ping(host.address()).unwrap_or_else(|e| panic!("{e:#}\n{}", seen(cloud, vm)));
        assert!(host.pings(vm.lan).unwrap(), "{}", seen(cloud, vm));
        // From one SA into another.
        vm.ping(vms[(at + 1) % vms.len()].lan).unwrap_or_else(|e| panic!("{e:#}\n{}", seen(cloud, vm)));
    }
    let frames = capture.finish().unwrap();
    assert_protected(cloud, &frames, wire, spokes);
    // As large as the tunnel takes, whole.
    for vm in vms {
        let (size, to) = (wire.mtu - 28, host.address());
        let command = format!("ping -M do -s {size} -c 3 -i 0.2 -I {} {to}", vm.lan);
        let (status, output) = vm.run(&command).unwrap();
        assert_eq!(status, 0, "{output}\n{}", seen(cloud, vm));
    }
}

/// What both sides know.
fn seen(cloud: &Cloud, vm: &Vm) -> String {
    let (_, kernel) = vm.run("ip xfrm state; ip neigh; grep -v '\\s0$' /proc/net/xfrm_stat").unwrap();
    let show = |words| cloud.nodes[HUB].nave(words).unwrap_or_else(|error| format!("{error:#}"));
    let told = ["show sa", "show adjacency", "show nhrp --traffic", "show counters", "show drops"].map(show);
    format!("{kernel}\n{}\n{}", told.join("\n"), cloud.nodes[HUB].logs())
}

/// Input: four spokes whose kernel does ESP in transport mode around GRE, keys of 128 and 256 bits, with ESN and without. Output: they
/// register, and pings go both ways and from spoke to spoke; on the wire is ESP and nothing else, all of it authentic.
#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn spokes_with_the_kernel_s_esp_are_at_home_with_a_nave_hub() {
    are_at_home("transport", spokes([false; 4]));
}

/// The same, ESP in UDP.
#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn spokes_with_the_kernel_s_esp_in_udp_are_at_home_with_a_nave_hub() {
    are_at_home("transport", spokes([true; 4]));
}

/// The same in tunnel mode, of some in UDP.
#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn spokes_with_the_kernel_s_esp_in_tunnel_mode_are_at_home_with_a_nave_hub() {
    are_at_home("tunnel", spokes([false, true, true, false]));
}

/// The same over IPv6, native and in UDP, through a tunnel each.
#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn spokes_with_the_kernel_s_esp_over_ipv6_reach_the_lan_of_a_nave_hub() {
    let _turn = lock::take_turn().unwrap();
    let spokes = spokes([false, true, true, false]);
    let mut cloud = cloud_over_ipv6(&spokes);
    cloud.start_node(HUB).unwrap();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let guests = spokes.map(|spoke| {
        let (number, own, hub) = (spoke.number, in_ipv6(spoke.number), in_ipv6(1));
        let mut guest = Guest::spoke(&cloud, number);
        (guest.server, guest.routes) = (None, Vec::new());
        let commands = spoke.commands("transport", own, hub);
        guest.setup = Some(format!(
            "modprobe ip6_gre\nip -6 addr add {own}/64 dev eth0 nodad\n{commands}\
             ip link add tunnel1 type ip6gre local {own} remote {hub} key {number} encaplimit none hoplimit 64\n\
             ip addr add 10.254.{number}.2/24 dev tunnel1\nip link set tunnel1 mtu 1360 up\n\
             ip route add 192.168.0.0/16 dev tunnel1\n"
        ));
        guest
    });
    let vms = Vm::boot(&cloud, guests).unwrap();
    let inner = [vec!["echo request"], vec!["echo reply"]];
    let wire = Wire { family: "IPv6", mode: "transport", inner, mtu: 1360 };
    reach_each_other(&cloud, capture, &wire, &spokes, &vms);
    cloud.check_alive().unwrap();
}
