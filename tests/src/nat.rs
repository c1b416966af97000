//! A router with NAT between the underlay and a network behind it: the kernel's own, told what to do by nft.
//!
//! ```text
//!   everybody ── br0 ── wan ┌────────┐ br-inside ── 10.1.0.N/24, machines behind it      router: namespace P-natN
//!     203.0.113.0/24    .N  │ router │ 10.1.0.1
//!                           └────────┘
//! ```

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::cloud::{BRIDGE, Cloud};
use crate::netns::Namespace;

/// What it does to addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// The machine with this number inside has the outer address for itself, for what comes and what goes.
    OneToOne(u8),
    /// All inside leave from the one outer address. What comes from outside passes only as an answer, as with any router at home.
    /// GRE has no ports: of two inside that speak to one outside, the router can let only the first pass.
    Masquerade,
}

/// The router.
#[derive(Debug)]
pub struct NatRouter {
    /// Its address on the underlay, which those behind it are seen with.
    pub outside: Ipv4Addr,
    /// Where it is, with the bridge of the inside.
    pub namespace: Arc<Namespace>,
}

impl NatRouter {
    /// Its address inside.
    pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
    /// How long a flow may be silent until it is forgotten. Others take minutes.
    pub const MEMORY: Duration = Duration::from_secs(8);
    /// The bridge of the inside, in its namespace.
    pub const BRIDGE: &'static str = "br-inside";

    /// Sets one up, 203.0.113.`number` on the underlay.
    ///
    /// # Errors
    /// No `nft`, or a kernel without NAT or that does not track GRE.
    pub fn add(cloud: &Cloud, number: u8, nat: Nat) -> Result<Self> {
        let outside = Ipv4Addr::new(203, 0, 113, number);
        let namespace = Namespace::add(&cloud.guardian(), &format!("{}-nat{number}", cloud.prefix))?;
        namespace.switch("bridge/bridge-nf-call-iptables", false)?;
        namespace.switch("ipv4/ip_forward", true)?;
        let bridge = Self::BRIDGE;
        namespace.ip(&format!("link add {bridge} type bridge mcast_snooping 0 forward_delay 0"))?;
        namespace.ip(&format!("addr add {}/24 dev {bridge}", Self::GATEWAY))?;
        namespace.ip(&format!("link set {bridge} up"))?;
        let port = format!("nat{number}");
        cloud.internet.ip(&format!("link add {port} type veth peer name wan netns {}", namespace.name()))?;
        cloud.internet.ip(&format!("link set {port} master {BRIDGE} up"))?;
        namespace.ip(&format!("addr add {outside}/24 dev wan"))?;
        namespace.ip("link set wan up")?;
        let router = Self { outside, namespace: Arc::new(namespace) };
        router.namespace.check("nft", &[&router.rules(nat)])?;
        for timeout in ["timeout", "timeout_stream"] {
            let setting = format!("net.netfilter.nf_conntrack_gre_{timeout}={}", Self::MEMORY.as_secs());
            router.namespace.check("sysctl", &["-qw", &setting])?;
        }
        Ok(router)
    }

    fn rules(&self, nat: Nat) -> String {
        let outside = self.outside;
        let translation = match nat {
            Nat::OneToOne(number) => {
                let inside = self.inside(number);
                format!(
                    "chain in {{ type nat hook prerouting priority dstnat; iifname wan ip daddr {outside} dnat to {inside}; }}
                     chain out {{ type nat hook postrouting priority srcnat; oifname wan ip saddr {inside} snat to {outside}; }}"
                )
            }
            // Without the filter, what nobody asked for would go to the router itself, and leave a connection behind that is in
            // the way of the same flow from inside.
            Nat::Masquerade => {
                "chain out { type nat hook postrouting priority srcnat; oifname wan masquerade; }
                chain unasked { type filter hook input priority filter; iifname wan ip protocol gre drop; }"
                    .to_owned()
            }
        };
        format!("table ip nat {{\n{translation}\n}}")
    }

    /// The address of a machine inside.
    #[must_use]
    pub fn inside(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 1, 0, number)
    }
}
