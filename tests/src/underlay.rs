//! Other underlays than one network of IPv4: addresses of IPv6, a router in between. Both are made before the cloud is started.
//!
//! ```text
//!   hub, spoke1 ── br0 ── near ┌──────────┐ far ── br1 ── spoke2           router: namespace P-router
//!     203.0.113.0/24     .254  │  router  │ .254      198.51.100.0/24
//!     2001:db8:113::/64  ::fe  └──────────┘ ::fe      2001:db8:198::/64
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::Result;

use crate::cloud::{BRIDGE, Cloud, hextet};
use crate::netns::Namespace;

/// The bridge behind the router.
pub const FAR_BRIDGE: &str = "br1";

/// One side of the router.
struct Side {
    name: &'static str,
    bridge: &'static str,
    v4: &'static str,
    v6: &'static str,
}

const NEAR: Side = Side { name: "near", bridge: BRIDGE, v4: "203.0.113", v6: "2001:db8:113:" };
const FAR: Side = Side { name: "far", bridge: FAR_BRIDGE, v4: "198.51.100", v6: "2001:db8:198:" };

impl Side {
    /// The network, and the router's address in it.
    fn prefix_and_router(&self, ipv6: bool) -> (String, String) {
        if ipv6 {
            (format!("{}:/64", self.v6), format!("{}:fe", self.v6))
        } else {
            (format!("{}.0/24", self.v4), format!("{}.254", self.v4))
        }
    }
}

impl Cloud {
    /// Gives the nodes underlay addresses of IPv6 in place of those of IPv4.
    ///
    /// # Errors
    /// A configuration is not like those of `examples/cloud`.
    pub fn number_in_ipv6(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            let own = node.nbma6;
            node.edit(|text| {
                let text = text.replace("203.0.113.", "2001:db8:113::");
                text.replace(&format!("{own}/24"), &format!("{own}/64"))
            })?;
        }
        Ok(())
    }

    /// Whether the underlay is of IPv6.
    #[must_use]
    pub fn is_over_ipv6(&self) -> bool {
        self.nodes.iter().any(|node| node.config.to_string().contains("2001:db8:113:"))
    }

    /// Puts a node into a network of its own, behind a router that lets packets of up to `mtu` bytes pass either way and tells
    /// senders of larger ones: all of them, as often as they ask. The node's addresses and everybody's routes are changed
    /// accordingly.
    ///
    /// # Errors
    /// The router cannot be made.
    pub fn put_behind_router(&mut self, index: usize, mtu: u16) -> Result<()> {
        let ipv6 = self.is_over_ipv6();
        self.internet.ip(&format!("link add {FAR_BRIDGE} type bridge mcast_snooping 0 forward_delay 0"))?;
        self.internet.ip(&format!("link set {FAR_BRIDGE} up"))?;
        self.router = Some(Arc::new(self.make_router(mtu)?));
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let (other, own) = if number == index { (&NEAR, &FAR) } else { (&FAR, &NEAR) };
            if number == index {
                node.bridge = FAR_BRIDGE.to_owned();
                let (old, old6) = (node.nbma, node.nbma6);
                node.nbma = Ipv4Addr::new(198, 51, 100, node.host.number);
                node.nbma6 = Ipv6Addr::from([0x2001, 0xdb8, 0x198, 0, 0, 0, 0, hextet(node.host.number)]);
                let (new, new6) = (node.nbma, node.nbma6);
                node.edit(|text| {
                    let text = text.replace(&format!("\"{old}/"), &format!("\"{new}/"));
                    text.replace(&format!("\"{old6}/"), &format!("\"{new6}/"))
                })?;
            }
            let (prefix, next_hop) = (other.prefix_and_router(ipv6).0, own.prefix_and_router(ipv6).1);
            node.add("routes", &format!("prefix = \"{prefix}\"\nnext_hop = \"{next_hop}\""))?;
        }
        Ok(())
    }

    fn make_router(&self, mtu: u16) -> Result<Namespace> {
        let router = Namespace::add(&self.guardian(), &format!("{}-router", self.prefix))?;
        router.allow_ipv6()?;
        for (key, on) in [
            ("ipv4/ip_forward", true),
            ("ipv6/conf/all/forwarding", true),
            ("ipv4/conf/all/send_redirects", false),
            ("ipv4/icmp_ratelimit", false),
            ("ipv6/icmp/ratelimit", false),
        ] {
            router.switch(key, on)?;
        }
        for side in [&NEAR, &FAR] {
            let Side { name, bridge, v4, v6 } = side;
            let wire = format!("type veth peer name {name} netns {}", router.name());
            self.internet.ip(&format!("link add router-{name} {wire}"))?;
            self.internet.ip(&format!("link set router-{name} master {bridge} up"))?;
            router.ip(&format!("link set {name} up"))?;
            router.ip(&format!("addr add {v4}.254/24 dev {name}"))?;
            router.ip(&format!("addr add {v6}:fe/64 dev {name} nodad"))?;
            // On the route and not on the link: a link would swallow what is larger and comes from the other side.
            let to = format!("dev {name} proto kernel mtu lock {mtu}");
            router.ip(&format!("route replace {v4}.0/24 src {v4}.254 scope link {to}"))?;
            router.ip(&format!("route replace {v6}:/64 metric 256 {to}"))?;
        }
        Ok(router)
    }
}
