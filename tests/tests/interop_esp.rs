//! ESP of the Linux kernel, in spokes of Linux and FRR in virtual machines, with a Nave hub: static keys on both sides, so that nothing
//! is tried but the packets themselves. `make test-interop` runs this.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use tests::capture::{self, Capture, Frame};
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports};
use tests::guest::Guest;
use tests::node::program;
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
    fn commands(self, mode: &str, spoke: Ipv4Addr, hub: Ipv4Addr) -> String {
        let Self { number, esn, udp, .. } = self;
        let mut text = "modprobe -a xfrm_user esp4 gcm seqiv\n".to_owned();
        if udp {
            // A socket whose datagrams are ESP (UDP_ENCAP, UDP_ENCAP_ESPINUDP), as an IKE daemon has one.
            text += "socat -u UDP4-RECV:4500,setsockopt-socket=17:100:i2 /dev/null </dev/null &\n";
        }
        let replay = if esn { "replay-window 128 flag esn" } else { "replay-window 32" };
        let encap = if udp { "encap espinudp 4500 4500 0.0.0.0" } else { "" };
        for (to_hub, direction) in [(true, "out"), (false, "in")] {
            let (from, to) = if to_hub { (spoke, hub) } else { (hub, spoke) };
            let (spi, key) = (self.spi(to_hub), self.key(to_hub));
            let _ = write!(
                text,
                "ip xfrm state add src {from} dst {to} proto esp spi {spi:#x} reqid {number} mode {mode} {replay} \
                 aead 'rfc4106(gcm(aes))' {key} 128 {encap}\n\
                 ip xfrm policy add src {from}/32 dst {to}/32 proto gre dir {direction} \
                 tmpl src {from} dst {to} proto esp reqid {number} mode {mode}\n"
            );
        }
        text
    }

    /// The same for the hub's configuration.
    fn peer(self, spoke: Ipv4Addr) -> toml::Table {
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
    fn sas(self) -> String {
        let line = |to_hub| {
            let (spi, key) = (self.spi(to_hub), self.key(to_hub));
            format!(r#""IPv4","*","*","{spi:#010x}","AES-GCM with 16 octet ICV [RFC4106]","{key}","NULL","""#)
        };
        format!("{}\n{}\n", line(true), line(false))
    }
}

/// A cloud with a hub whose tunnel is protected, each spoke by its own keys, and which relays between spokes, as they have none for each
/// other. Nothing runs yet.
fn cloud(mode: &str, spokes: &[Protection]) -> Cloud {
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let hub = &mut cloud.nodes[HUB];
    let mut profile: toml::Table = format!("name = \"lab\"\nmode = \"{mode}\"").parse().unwrap();
    let mut peers = Vec::new();
    for spoke in spokes {
        let number = spoke.number;
        let route = format!("prefix = \"192.168.{number}.0/24\"\nnext_hop = \"10.255.0.{number}\"");
        hub.add("routes", &route).unwrap();
        peers.push(toml::Value::Table(spoke.peer(Ipv4Addr::new(203, 0, 113, number))));
    }
    profile.insert("static".to_owned(), toml::Value::Array(peers));
    hub.config.insert("profiles".to_owned(), toml::Value::Array(vec![profile.into()]));
    let tunnel = hub.config["tunnels"][0].as_table_mut().unwrap();
    tunnel.insert("protection".to_owned(), "lab".into());
    tunnel["nhrp"].as_table_mut().unwrap().remove("redirect");
    cloud
}

/// The protocol number of an IPv4 frame, and the UDP ports.
fn protocol(frame: &Frame) -> Option<(u8, [u16; 2])> {
    let ip = frame.bytes.get(14..).filter(|_| frame.bytes[12..14] == [8, 0])?;
    let udp = ip.get(usize::from(ip[0] & 15) * 4..)?;
    Some((ip[9], [[0, 1], [2, 3]].map(|[high, low]| u16::from_be_bytes([udp[high], udp[low]]))))
}

/// Nothing but ESP of these spokes and what it is needs, each packet authentic, with NHRP and pings in it.
fn assert_protected(cloud: &Cloud, frames: &[Frame], mode: &str, spokes: &[Protection]) {
    assert!(frames.iter().all(|frame| trail::gre(frame).is_none()), "GRE in the clear");
    let wanted = |udp| spokes.iter().any(|spoke| spoke.udp == udp);
    for (protocol, ports) in frames.iter().filter_map(protocol) {
        let expected = match protocol {
            50 => wanted(false),
            17 => wanted(true) && ports == [4500, 4500],
            _ => false,
        };
        assert!(expected, "protocol {protocol}, {ports:?}");
    }
    let [file, table] = ["underlay.pcap", "underlay.esp_sa"].map(|name| cloud.directory().join(name));
    capture::save(&file, frames).unwrap();
    fs::write(&table, spokes.iter().map(|spoke| spoke.sas()).collect::<String>()).unwrap();
    let mut decode = Command::new(program("nave").unwrap());
    let output = decode.args(["decode", "--check", "--esp-sa"]).args([&table, &file]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    for spoke in spokes {
        for to_hub in [true, false] {
            let udp = if spoke.udp { "UDP 4500 > 4500, " } else { "" };
            let sealed = |what: &str| {
                let mut blocks = said.split("\n\n");
                let spi = format!("{udp}ESP {mode} SPI {:#010x} sequence ", spoke.spi(to_hub));
                blocks.any(|b| {
                    b.contains(&spi)
                        && b.contains(what)
                        && b.contains(", GRE key 42")
                        && b.contains(" extended, ") == spoke.esn
                })
            };
            let (registration, ping) = if to_hub {
                ("registration-request", "echo request")
            } else {
                ("registration-reply", "echo reply")
            };
            assert!(sealed(registration) && sealed(ping), "{spoke:?}, to the hub {to_hub}:\n{said}");
        }
    }
}

/// Spokes with a kind of ESP register with the hub and reach its LAN and each other by it; then large packets do.
fn are_at_home(mode: &str, spokes: [Protection; 4]) {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud(mode, &spokes);
    cloud.start_node(HUB).unwrap();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let guests = spokes.map(|spoke| {
        let mut guest = Guest::spoke(&cloud, spoke.number);
        guest.setup = Some(spoke.commands(mode, guest.nbma, cloud.nodes[HUB].nbma));
        guest
    });
    let vms = Vm::boot(&cloud, guests).unwrap();
    let seen = |vm: &Vm| {
        let (_, kernel) = vm.run("ip xfrm state; ip neigh; grep -v '\\s0$' /proc/net/xfrm_stat").unwrap();
        let show = |words| cloud.nodes[HUB].nave(words).unwrap_or_else(|error| format!("{error:#}"));
        let told =
            ["show sa", "show adjacency", "show nhrp --traffic", "show counters", "show drops"].map(show);
        format!("{kernel}\n{}\n{}", told.join("\n"), cloud.nodes[HUB].logs())
    };
    for vm in &vms {
        vm.wait_registered(&cloud.nodes[HUB], vm.nbma).unwrap_or_else(|e| panic!("{e:#}\n{}", seen(vm)));
    }
    let host = &cloud.nodes[HUB].host;
    for (at, vm) in vms.iter().enumerate() {
        vm.ping(host.address()).unwrap_or_else(|e| panic!("{e:#}\n{}", seen(vm)));
        assert!(host.pings(vm.lan).unwrap(), "{}", seen(vm));
        // From one SA into another.
        vm.ping(vms[(at + 1) % vms.len()].lan).unwrap_or_else(|e| panic!("{e:#}\n{}", seen(vm)));
    }
    let frames = capture.finish().unwrap();
    assert_protected(&cloud, &frames, mode, &spokes);
    // As large as the tunnel takes, 1400 bytes, whole.
    for vm in &vms {
        let to = host.address();
        let (status, output) = vm.run(&format!("ping -M do -s 1372 -c 3 -i 0.2 -I {} {to}", vm.lan)).unwrap();
        assert_eq!(status, 0, "{output}\n{}", seen(vm));
    }
    cloud.check_alive().unwrap();
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
