//! One packet from a host behind spoke1 to a host behind spoke2, by the hub: what each data plane's graph does with it, node by
//! node. The addresses are those of the demonstration cloud; the bytes are real. docs/walk.md explains the output.
//!
//! `cargo run -p forwarding --example walk`
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/lab/mod.rs"]
mod lab;

use forwarding::{Command, TraceOrder};
use lab::{
    TestNode, attached, binding, fallback, frame, hop, interface, neighbour, port_mac, receive, station,
    tunnel, udp, via,
};
use model::program::Object;
use wire::ethernet;

/// Node 1 is the hub, 2 and 3 are the spokes. Every node: `wan` on p0, `lan` on p1, `tunnel0` with key 42.
fn node(number: u8, nbma: &str, overlay: &str, lan: &str, peers: &[(&str, &str, u8)]) -> TestNode {
    let mut node = TestNode::new(number, 2);
    let mut tunnel0 = tunnel("tunnel0", nbma, "wan", Some(42));
    tunnel0.redirect = number == 1;
    node.put([
        interface("wan", "p0", false),
        interface("lan", "p1", true),
        Object::Tunnel(tunnel0),
        receive(&format!("{nbma}/32"), "wan"),
        receive(&format!("{overlay}/32"), "tunnel0"),
        receive(&format!("{lan}.1/32"), "lan"),
        attached("203.0.113.0/24", "wan"),
        attached("10.255.0.0/24", "tunnel0"),
        attached(&format!("{lan}.0/24"), "lan"),
        neighbour("lan", &format!("{lan}.10"), station(number)),
    ]);
    for (overlay, nbma, peer) in peers {
        node.put([
            neighbour("wan", nbma, port_mac(*peer, 0)),
            binding("tunnel0", overlay, nbma, Some(hop("wan", nbma))),
        ]);
    }
    node
}

/// The frame goes in by a port; its walk is printed, and what goes out by a port is given back.
fn walk(who: &str, node: &mut TestNode, into: usize, arriving: &[u8], out: usize) -> Vec<u8> {
    node.ports.commands.push_back(Command::Trace(TraceOrder { packets: 1, only: None }));
    node.receive(into, arriving);
    println!("== {who}");
    for step in node.worker.take_trace() {
        println!("{step}");
    }
    for (punt, bytes) in node.punted() {
        println!("   besides: {punt:?}, {} bytes", bytes.len());
    }
    println!();
    node.sent(out).pop().expect("the packet goes on")
}

fn main() {
    let hub_peer = ("10.255.0.1", "203.0.113.1", 1);
    let spoke1_peer = ("10.255.0.11", "203.0.113.11", 2);
    let spoke2_peer = ("10.255.0.12", "203.0.113.12", 3);
    let mut hub = node(1, "203.0.113.1", "10.255.0.1", "192.168.1", &[spoke1_peer, spoke2_peer]);
    hub.put([
        via("192.168.11.0/24", "tunnel0", "10.255.0.11"),
        via("192.168.12.0/24", "tunnel0", "10.255.0.12"),
    ]);
    let mut spoke1 = node(2, "203.0.113.11", "10.255.0.11", "192.168.11", &[hub_peer]);
    let mut spoke2 = node(3, "203.0.113.12", "10.255.0.12", "192.168.12", &[hub_peer]);
    for spoke in [&mut spoke1, &mut spoke2] {
        spoke.put([via("192.168.0.0/16", "tunnel0", "10.255.0.1"), fallback("tunnel0", "10.255.0.1")]);
    }

    let packet = udp("192.168.11.10", "192.168.12.10", b"nave");
    let arriving = frame(port_mac(2, 1), station(2), ethernet::IPV4, &packet);
    let sent = walk("spoke1: from its LAN into the tunnel", &mut spoke1, 1, &arriving, 0);
    let relayed = walk("hub: out of the tunnel and into it again, with a redirect", &mut hub, 0, &sent, 0);
    walk("spoke2: out of the tunnel to its LAN", &mut spoke2, 0, &relayed, 1);
}
