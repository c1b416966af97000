//! What a virtual machine is told to be: a hub or a spoke of Linux and FRR, and where it stands.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::cloud::{BRIDGE, Cloud, HUB};
use crate::nat::NatRouter;
use crate::netns::Namespace;
use crate::swan::Swan;

/// The hub as its spokes know it: where it is on the underlay, and its tunnel address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Its NBMA address.
    pub nbma: Ipv4Addr,
    /// Its protocol address.
    pub tunnel: Ipv4Addr,
}

/// What it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Debian 12: strongSwan 5.9.8. Its FRR has no NHRP authentication.
    Bookworm,
    /// Debian 13: FRR 10.3, strongSwan 6.0.1.
    Trixie,
}

impl Suite {
    /// What Debian calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

/// A machine that is to be: addresses by its number, as those of the cloud's own nodes; everything may be changed before it boots.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its name, at most 11 letters.
    pub name: String,
    /// The last octet of its Ethernet address.
    pub number: u8,
    /// Its own address on its underlay.
    pub nbma: Ipv4Addr,
    /// The router of its underlay, if there is one.
    pub gateway: Option<Ipv4Addr>,
    /// Its address on the tunnel.
    pub tunnel: Ipv4Addr,
    /// Its address on its LAN.
    pub lan: Ipv4Addr,
    /// Whom it registers with; nobody: it is the hub.
    pub server: Option<Server>,
    /// What it says to others, and wants to hear from them.
    pub authentication: Option<String>,
    /// Holding time of what it says of itself.
    pub holding_time: u16,
    /// Static routes: a prefix, and the next hop's tunnel address.
    pub routes: Vec<(String, Ipv4Addr)>,
    /// Runs OSPF on the tunnel, multicast and all, and tells it of the LAN.
    pub ospf: bool,
    /// Shell commands that it runs before FRR starts.
    pub setup: Option<String>,
    /// What it is made of.
    pub suite: Suite,
    /// Runs FRR.
    pub frr: bool,
    /// Runs strongSwan with this.
    pub swan: Option<Swan>,
    /// The namespace and bridge that it is plugged into.
    pub(crate) wire: (Arc<Namespace>, &'static str),
}

impl Guest {
    fn numbered(cloud: &Cloud, name: &str, number: u8) -> Self {
        Self {
            name: name.to_owned(),
            number,
            nbma: Ipv4Addr::new(203, 0, 113, number),
            gateway: None,
            tunnel: Ipv4Addr::new(10, 255, 0, number),
            lan: Ipv4Addr::new(192, 168, number, 1),
            server: None,
            authentication: Some("wheel".to_owned()),
            holding_time: 600,
            routes: Vec::new(),
            ospf: false,
            setup: None,
            suite: Suite::Trixie,
            frr: true,
            swan: None,
            wire: (cloud.internet.clone(), BRIDGE),
        }
    }

    /// A spoke of the cloud's hub, whoever plays it; everything else by way of the hub.
    #[must_use]
    pub fn spoke(cloud: &Cloud, number: u8) -> Self {
        let hub = &cloud.nodes[HUB];
        let server = Server { nbma: hub.nbma, tunnel: hub.tunnel };
        let routes = ["192.168.0.0/16", "10.255.0.0/24"].map(|prefix| (prefix.to_owned(), hub.tunnel));
        let spoke = Self::numbered(cloud, &format!("frr{number}"), number);
        Self { server: Some(server), routes: routes.into(), ..spoke }
    }

    /// Nothing but an address on the underlay, and strongSwan.
    #[must_use]
    pub fn station(cloud: &Cloud, name: &str, number: u8, suite: Suite, swan: Swan) -> Self {
        Self { suite, frr: false, swan: Some(swan), ..Self::numbered(cloud, name, number) }
    }

    /// The hub, in place of the cloud's own, which must not run: with routes to the LANs of these spokes, redirects and multicast.
    #[must_use]
    pub fn hub(cloud: &Cloud, spokes: &[u8]) -> Self {
        let route = |&number: &u8| (format!("192.168.{number}.0/24"), Ipv4Addr::new(10, 255, 0, number));
        let hub = Self::numbered(cloud, "frrhub", cloud.nodes[HUB].host.number);
        Self { routes: spokes.iter().map(route).collect(), ..hub }
    }

    /// Says this word, or none.
    #[must_use]
    pub fn saying(mut self, authentication: Option<&str>) -> Self {
        self.authentication = authentication.map(str::to_owned);
        self
    }

    /// Holds for this many seconds.
    #[must_use]
    pub fn holding(mut self, seconds: u16) -> Self {
        self.holding_time = seconds;
        self
    }

    /// Stands behind a NAT.
    #[must_use]
    pub fn behind(mut self, router: &NatRouter) -> Self {
        self.nbma = router.inside(self.number);
        self.gateway = Some(NatRouter::GATEWAY);
        self.wire = (router.namespace.clone(), NatRouter::BRIDGE);
        self
    }

    /// Has its routes from OSPF instead of static ones.
    #[must_use]
    pub fn routing(mut self) -> Self {
        self.ospf = true;
        self.routes.clear();
        self
    }

    /// The variables of `guest/lab-start`.
    pub(crate) fn variables(&self) -> String {
        let yes_or_no = |is: bool| if is { "yes" } else { "no" };
        let mut text = format!(
            "name={}\nnbma={}/24\ntunnel={}\nlan={}/24\ngre_key=42\nmtu=1400\nmulticast=yes\nredirect={}\n",
            self.name,
            self.nbma,
            self.tunnel,
            self.lan,
            yes_or_no(self.server.is_none())
        );
        let _ = writeln!(text, "frr={}", yes_or_no(self.frr));
        if let Some(gateway) = self.gateway {
            let _ = writeln!(text, "gateway={gateway}");
        }
        if self.ospf {
            text += "daemons=ospfd\n";
        }
        text
    }

    /// The configuration of FRR.
    pub(crate) fn frr(&self) -> String {
        let mut lines = vec![
            format!("hostname {}", self.name),
            "log file /run/frr/frr.log".to_owned(),
            "debug nhrp all".to_owned(),
            "nhrp nflog-group 1".to_owned(),
            "nhrp multicast-nflog-group 2".to_owned(),
            "interface gre1".to_owned(),
            " ip nhrp network-id 1".to_owned(),
            format!(" ip nhrp holdtime {}", self.holding_time),
            " ip nhrp mtu 1400".to_owned(),
            " tunnel source eth0".to_owned(),
        ];
        if let Some(connection) = self.swan.as_ref().and_then(|swan| swan.pattern.as_ref()) {
            lines.push(format!(" tunnel protection vici profile {}", connection.name));
        }
        lines.extend(self.authentication.iter().map(|word| format!(" ip nhrp authentication {word}")));
        match self.server {
            None => {
                lines.extend([" ip nhrp redirect", " ip nhrp map multicast dynamic"].map(str::to_owned));
            }
            Some(Server { nbma, tunnel }) => lines.extend([
                format!(" ip nhrp nhs {tunnel} nbma {nbma}"),
                " ip nhrp shortcut".to_owned(),
                format!(" ip nhrp map multicast {nbma}"),
            ]),
        }
        if self.ospf {
            let interface = ["network point-to-multipoint", "hello-interval 1", "dead-interval 8"];
            lines.extend(interface.map(|words| format!(" ip ospf {words}")));
        }
        lines.push("exit".to_owned());
        lines.extend(self.routes.iter().map(|(prefix, next_hop)| format!("ip route {prefix} {next_hop}")));
        if self.ospf {
            lines.extend([
                "interface lan0".to_owned(),
                " ip ospf passive".to_owned(),
                "exit".to_owned(),
                "router ospf".to_owned(),
                format!(" network {}/32 area 0", self.tunnel),
                format!(" network {}/24 area 0", self.lan),
                "exit".to_owned(),
            ]);
        }
        lines.join("\n") + "\n"
    }
}
