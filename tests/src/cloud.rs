//! The topology: an underlay, three nodes on it, a host behind each.
//!
//! ```text
//!   host0 ── hub ──────┐            host: namespace P-host0, kernel interface eth0, 192.168.1.10/24
//!        lan      wan  │            node: namespace P-hub; twins wan, lan, tunnel0 and both processes
//!   host1 ── spoke1 ── br0          bridge: namespace P-internet, 203.0.113.0/24
//!   host2 ── spoke2 ───┘            ports: taps made by DPDK and moved to where they belong, or veths whose
//!                                          DPDK ends are in P-hub-ports (the twins live apart from them)
//! ```
//!
//! Before it is started it may be changed: the nodes' configurations, the underlay ([`crate::underlay`]), and a LAN
//! ([`crate::vlan`]). It goes in the clear unless it is protected ([`crate::keys`]).

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::Value;

use crate::esp::Keyring;
use crate::guardian::Guardian;
use crate::keys::Pair;
use crate::netns::Namespace;
use crate::node::{Host, Node};
use crate::site::Site;
use crate::traffic::{Flow, PAYLOAD};
use crate::vlan::VlanSwitch;
use crate::wait;

/// Index of the hub in [`Cloud::nodes`].
pub const HUB: usize = 0;
/// Index of the first spoke.
pub const SPOKE1: usize = 1;
/// Index of the second spoke.
pub const SPOKE2: usize = 2;

/// The bridge in the underlay's namespace.
pub const BRIDGE: &str = "br0";
/// The tunnel on every node.
pub const TUNNEL: &str = "tunnel0";

/// Of DMVPN: the folder of `examples/cloud` that the configurations come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Phase {
    /// Spokes with a point-to-point tunnel to the hub.
    #[value(name = "1")]
    One,
    /// Multipoint tunnels; routes to the other spoke's tunnel address.
    #[value(name = "2")]
    Two,
    /// Multipoint tunnels; everything by the hub until it says better.
    #[value(name = "3")]
    Three,
}

impl Phase {
    /// 1, 2 or 3.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}

/// What the ports of the data planes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ports {
    /// DPDK's net_tap: the port's other end is a tap interface, which lives and dies with the data plane.
    #[value(name = "tap")]
    Tap,
    /// DPDK's net_af_packet on one end of a veth pair, which outlives the data plane.
    #[value(name = "af_packet")]
    AfPacket,
    /// DPDK's net_pcap on one end of a veth pair: of the virtual ones the driver that takes jumbo frames.
    #[value(name = "pcap")]
    Pcap,
}

impl Ports {
    /// What DPDK calls the driver.
    fn driver(self) -> &'static str {
        match self {
            Self::Tap => "net_tap",
            Self::AfPacket => "net_af_packet",
            Self::Pcap => "net_pcap",
        }
    }
}

/// The cloud. Dropped, it stops every process and removes everything.
#[derive(Debug)]
pub struct Cloud {
    /// The underlay.
    pub internet: Arc<Namespace>,
    /// Hub, spoke1, spoke2.
    pub nodes: Vec<Node>,
    /// The router of the underlay, if there is one ([`Cloud::put_behind_router`]).
    pub router: Option<Arc<Namespace>>,
    /// SAs of each two nodes that have keys with each other ([`Cloud::protect`]), by their indices, the lower first.
    pub pairs: BTreeMap<(usize, usize), Pair>,
    pub(crate) keys: Keyring,
    pub(crate) prefix: String,
    ports: Ports,
    directory: PathBuf,
    // Last, so that it cleans up when everything else is gone.
    guardian: Arc<Guardian>,
}

impl Cloud {
    /// Lays wires and writes configurations; starts no process. Names of namespaces begin with `prefix`, `prefix`2 … if a
    /// cloud of that name is there already.
    ///
    /// # Errors
    /// Not root, or a tool is missing.
    pub fn lay(prefix: &str, phase: Phase, ports: Ports) -> Result<Self> {
        Self::lay_example(prefix, &format!("phase{}", phase.number()), ports)
    }

    /// As [`Cloud::lay`], with the configurations of this folder of `examples/cloud`.
    ///
    /// # Errors
    /// As [`Cloud::lay`].
    pub fn lay_example(prefix: &str, example: &str, ports: Ports) -> Result<Self> {
        let site = |(name, number): (&str, u8)| {
            let file = examples().join(format!("{example}/{name}.toml"));
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let config = text.parse().with_context(|| file.display().to_string())?;
            Ok(Site { name: name.to_owned(), number, config })
        };
        let sites = [("hub", 1), ("spoke1", 11), ("spoke2", 12)].into_iter().map(site);
        Self::lay_sites(prefix, &sites.collect::<Result<Vec<_>>>()?, ports)
    }

    /// As [`Cloud::lay`], with these nodes.
    ///
    /// # Errors
    /// As [`Cloud::lay`].
    pub fn lay_sites(prefix: &str, sites: &[Site], ports: Ports) -> Result<Self> {
        let guardian = Guardian::start()?;
        let (prefix, internet) = claim(&guardian, prefix)?;
        let directory = directory_of(&prefix);
        fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        guardian.watch_directory(&directory)?;

        // A wire carries wrong packets too; a bridge that asks the firewall drops them.
        for family in ["iptables", "ip6tables", "arptables"] {
            internet.switch(&format!("bridge/bridge-nf-call-{family}"), false)?;
        }
        internet.ip(&format!("link add {BRIDGE} type bridge mcast_snooping 0 forward_delay 0"))?;
        internet.ip(&format!("link set {BRIDGE} up"))?;
        let internet = Arc::new(internet);
        let mut nodes = Vec::new();
        for (index, site) in sites.iter().enumerate() {
            let (name, number) = (site.name.as_str(), site.number);
            let directory = directory.join(name);
            fs::create_dir_all(&directory)?;
            let add = |suffix: &str| Namespace::add(&guardian, &format!("{prefix}-{suffix}")).map(Arc::new);
            let host = Host { namespace: add(&format!("host{index}"))?, number };
            let cores = std::thread::available_parallelism()?.get();
            // An Ethernet address that is the same in each run, where the driver takes one.
            let port = |name: &str, at: u8| {
                let address = match ports {
                    Ports::Tap => format!(",mac={}", mac(number, at)),
                    Ports::AfPacket => String::new(),
                    Ports::Pcap => ",phy_mac=1".to_owned(),
                };
                format!("{name}={}{at},iface={name}-p{address}", ports.driver())
            };
            guardian.watch_directory(&Path::new("/var/run/dpdk").join(format!("{prefix}-{name}")))?;
            let namespace = add(name)?;
            let config = config(site.config.clone(), &directory, namespace.name());
            for netns in netns_of_tables(&config) {
                guardian.watch_namespace(&netns)?;
            }
            let node = Node {
                name: name.to_owned(),
                namespace,
                ports: (ports != Ports::Tap).then(|| add(&format!("{name}-ports"))).transpose()?,
                nbma: Ipv4Addr::new(203, 0, 113, number),
                nbma6: Ipv6Addr::from([0x2001, 0xdb8, 0x113, 0, 0, 0, 0, hextet(number)]),
                tunnel: site.tunnel().unwrap_or(Ipv4Addr::new(10, 255, 0, number)),
                tunnel6: Ipv6Addr::from([0x2001, 0xdb8, 0xff, 0, 0, 0, 0, hextet(number)]),
                host,
                switch: None,
                config,
                directory,
                bridge: BRIDGE.to_owned(),
                mtu: None,
                port_args: vec![port("wan", 0), port("lan", 1)],
                workers: vec![index % cores],
                offloads: None,
                dataplane: None,
                controlplane: None,
            };
            nodes.push(node);
        }
        let guardian = Arc::new(guardian);
        let (pairs, keys) = (BTreeMap::new(), Keyring::default());
        Ok(Self { internet, nodes, router: None, pairs, keys, prefix, ports, directory, guardian })
    }

    /// Lays the wires and starts everything; returns when both spokes are registered.
    ///
    /// # Errors
    /// Something does not come up; the logs are in the error.
    pub fn up(prefix: &str, phase: Phase, ports: Ports) -> Result<Self> {
        let mut cloud = Self::lay(prefix, phase, ports)?;
        cloud.start()?;
        Ok(cloud)
    }

    /// Makes the LANs, and the ports, as wide as this: before the start, and with [`Ports::Pcap`] only. The hosts are not told what
    /// the overlay takes.
    ///
    /// # Errors
    /// Other ports, or a configuration without `lan`.
    pub fn widen_lans(&mut self, mtu: u16) -> Result<()> {
        ensure!(self.ports == Ports::Pcap, "these ports take no jumbo frames");
        for node in &mut self.nodes {
            node.mtu = Some(mtu);
            let interfaces = node.config.get_mut("interfaces").and_then(toml::Value::as_array_mut);
            let is_lan = |i: &&mut toml::Table| i.get("name").is_some_and(|n| n.as_str() == Some("lan"));
            let lan = interfaces.into_iter().flatten().filter_map(toml::Value::as_table_mut).find(is_lan);
            lan.context("no lan")?.insert("mtu".to_owned(), i64::from(mtu).into());
        }
        Ok(())
    }

    /// Starts every process; returns when both spokes are registered.
    ///
    /// # Errors
    /// As [`Cloud::up`].
    pub fn start(&mut self) -> Result<()> {
        self.start_processes()?;
        for index in [SPOKE1, SPOKE2] {
            self.wait_registered(index)?;
        }
        Ok(())
    }

    /// Starts every process.
    ///
    /// # Errors
    /// As [`Cloud::up`].
    pub fn start_processes(&mut self) -> Result<()> {
        (0..self.nodes.len()).try_for_each(|index| self.start_node(index))
    }

    /// Starts the processes of one node.
    ///
    /// # Errors
    /// They do not come up.
    pub fn start_node(&mut self, index: usize) -> Result<()> {
        self.start_dataplane(index)?;
        self.nodes[index].start_controlplane()
    }

    /// Waits until the hub has a registration of this spoke, and the spoke knows: of every address family and tunnel that the
    /// spoke registers.
    ///
    /// # Errors
    /// Not within 15 seconds; the logs are in the error.
    pub fn wait_registered(&mut self, spoke: usize) -> Result<()> {
        let limit = Duration::from_secs(15);
        let what = format!("registration of {}", self.nodes[spoke].name);
        wait::until(&what, limit, || {
            ensure!(self.is_registered(spoke)?, "the hub does not have it");
            Ok(())
        })
        .with_context(|| self.logs())
    }

    /// Whether the hub has the registrations of this spoke, and the spoke knows.
    ///
    /// # Errors
    /// `nave` fails.
    pub fn is_registered(&self, spoke: usize) -> Result<bool> {
        let node = &self.nodes[spoke];
        let all = |list: Value| list.as_array().cloned().unwrap_or_default();
        let entries = all(self.nodes[HUB].nave_json("show nhrp")?);
        let servers = all(node.nave_json("show nhs")?);
        let known = |client: &str| {
            let of_client = |e: &&Value| e["type"] == "dynamic" && e["next_hop"] == client;
            entries.iter().filter(of_client).count()
        };
        let is_v6 = |server: &Value| server["protocol"].as_str().is_some_and(|text| text.contains(':'));
        let (of_v6, of_v4) = servers.iter().partition::<Vec<&Value>, _>(|server| is_v6(server));
        let accepted = servers.iter().all(|server| server["state"] == "responding");
        let registered =
            known(&node.tunnel.to_string()) >= of_v4.len() && known(&node.tunnel6.to_string()) >= of_v6.len();
        Ok(!servers.is_empty() && accepted && registered)
    }

    /// Starts a node's data plane and connects its ports.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start_dataplane(&mut self, index: usize) -> Result<()> {
        if self.ports == Ports::Tap {
            self.nodes[index].spawn_dataplane()?;
            return self.connect_taps(&self.nodes[index]);
        }
        if !self.internet.has_link(&self.nodes[index].name) {
            self.lay_veths(&self.nodes[index])?;
        }
        self.nodes[index].spawn_dataplane()
    }

    /// A flow from one node's host to another's, over IPv4.
    #[must_use]
    pub fn flow(&self, from: usize, to: usize, port: u16, rate: u32) -> Flow {
        let ends = [from, to].map(|node| self.nodes[node].host.address().into());
        self.flow_between(from, to, ends, port, rate)
    }

    /// A flow from one node's host to another's, over IPv6.
    #[must_use]
    pub fn flow6(&self, from: usize, to: usize, port: u16, rate: u32) -> Flow {
        let ends = [from, to].map(|node| self.nodes[node].host.address6().into());
        self.flow_between(from, to, ends, port, rate)
    }

    fn flow_between(&self, from: usize, to: usize, ends: [IpAddr; 2], port: u16, rate: u32) -> Flow {
        let [from, to] = [from, to].map(|node| self.nodes[node].host.namespace.clone());
        Flow { from, source: ends[0], to, destination: ends[1], port, rate, payload: PAYLOAD }
    }

    /// Whether a host reaches an address: three pings, at least one answered.
    ///
    /// # Errors
    /// No `ping`.
    pub fn pings(&self, from: usize, to: impl Into<IpAddr>) -> Result<bool> {
        self.nodes[from].host.pings(to)
    }

    /// Waits until a node's host is answered by another's.
    ///
    /// # Errors
    /// Not within `patience`: with all that the cloud knows.
    pub fn reach(&self, from: usize, to: usize, patience: Duration) -> Result<()> {
        let address = self.nodes[to].host.address();
        wait::until("a ping", patience, || {
            ensure!(self.pings(from, address)?, "no answer");
            Ok(())
        })
        .with_context(|| format!("{} → {address}\n{}", self.nodes[from].name, self.what_is_known()))
    }

    /// Of each node what `nave` says of its peers, SAs, entries, drops and counters, and the ends of all logs: of a test that fails.
    #[must_use]
    pub fn what_is_known(&self) -> String {
        let questions =
            ["show ike --detail", "show sa", "show nhrp", "show adjacency", "show drops", "show counters"];
        let shown = |node: &Node| {
            let words = questions.map(|words| node.nave(words).unwrap_or_else(|e| e.to_string()));
            format!("--- {}\n{}", node.name, words.join("\n"))
        };
        self.nodes.iter().map(shown).collect::<String>() + &self.logs()
    }

    /// The ends of all logs.
    #[must_use]
    pub fn logs(&self) -> String {
        self.nodes.iter().map(Node::logs).collect()
    }

    /// Fails if a process that was started has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn check_alive(&mut self) -> Result<()> {
        self.nodes.iter_mut().try_for_each(Node::check_alive)
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Who cleans up.
    #[must_use]
    pub fn guardian(&self) -> Arc<Guardian> {
        self.guardian.clone()
    }

    /// Asks every process to end.
    ///
    /// # Errors
    /// One had to be killed.
    pub fn stop(&mut self) -> Result<()> {
        let stopped: Vec<_> = self.nodes.iter_mut().rev().map(Node::stop).collect();
        stopped.into_iter().collect()
    }

    /// DPDK has made the taps in the node's namespace: they go to where their cables would lead. DPDK gives a tap the MAC
    /// address of its port; the far end of the cable needs its own (a bridge does not forward to the address of its own port).
    fn connect_taps(&self, node: &Node) -> Result<()> {
        let limit = Duration::from_secs(5);
        for tap in ["wan-p", "lan-p"] {
            wait::until_true(&format!("tap {tap} of {}", node.name), limit, || node.namespace.has_link(tap))?;
        }
        node.namespace.ip(&format!("link set wan-p netns {} name {}", self.internet.name(), node.name))?;
        let (lan, name) = match &node.switch {
            Some(switch) => (switch.namespace(), VlanSwitch::PORT),
            None => (&*node.host.namespace, "eth0"),
        };
        node.namespace.ip(&format!("link set lan-p netns {} name {name}", lan.name()))?;
        self.connect(node)
    }

    fn lay_veths(&self, node: &Node) -> Result<()> {
        let ports = node.ports.as_ref().context("no namespace for ports")?;
        let far = |end: &str| format!("type veth peer name {end} netns {}", ports.name());
        self.internet.ip(&format!("link add {} {}", node.name, far("wan-p")))?;
        node.host.namespace.ip(&format!("link add eth0 {}", far("lan-p")))?;
        for (at, end, mtu) in [(0, "wan-p", 1500), (1, "lan-p", node.mtu.unwrap_or(1500))] {
            let address = mac(node.host.number, at);
            ports.ip(&format!("link set dev {end} address {address} mtu {mtu} up"))?;
        }
        // A veth leaves checksums and segmentation to hardware that is not there: the data plane would see half-made packets.
        let off = ["-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off"];
        node.host.namespace.check("ethtool", &off)?;
        self.connect(node)
    }

    fn connect(&self, node: &Node) -> Result<()> {
        let (number, wire, bridge) = (node.host.number, &node.name, &node.bridge);
        self.internet
            .ip(&format!("link set dev {wire} address 02:00:00:00:{number:02x}:01 master {bridge} up"))?;
        match &node.switch {
            Some(switch) => switch.connect(),
            None => node.host.settle(node.mtu, node.is_dual_stack()),
        }
    }
}

impl Drop for Cloud {
    /// Where a test fails, its logs are told and kept.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = std::env::temp_dir().join(format!("nave-failed-{}", std::process::id()));
            let copied = Command::new("cp").arg("-r").arg(&self.directory).arg(&kept).status();
            eprintln!("{}", self.logs());
            if copied.is_ok_and(|s| s.success()) {
                eprintln!("files of the cloud are kept in {}", kept.display());
            }
        }
        let _ = self.stop();
    }
}

/// Where the files of a cloud are: never `/run/nave`, which is that of a node of this machine.
fn directory_of(prefix: &str) -> PathBuf {
    PathBuf::from(format!("/run/{prefix}-cloud"))
}

/// The first free one of `prefix`, `prefix`2, … and its underlay namespace, which marks it as taken.
fn claim(guardian: &Guardian, prefix: &str) -> Result<(String, Namespace)> {
    ensure!(nix::unistd::geteuid().is_root(), "this makes network namespaces: it must run as root");
    for number in 1..100 {
        let prefix = if number == 1 { prefix.to_owned() } else { format!("{prefix}{number}") };
        let name = format!("{prefix}-internet");
        if !fs::exists(format!("/run/netns/{name}"))? && !fs::exists(directory_of(&prefix))? {
            let internet = Namespace::add(guardian, &name)?;
            return Ok((prefix, internet));
        }
    }
    anyhow::bail!("a hundred clouds named {prefix} are running")
}

/// A node's configuration with the paths and namespaces of this run in it.
fn config(mut config: toml::Table, directory: &Path, netns: &str) -> toml::Table {
    let mut set = |section: &str, key: &str, file: &str| {
        let table = config.entry(section).or_insert_with(|| toml::Table::new().into());
        if let Some(table) = table.as_table_mut() {
            table.insert(key.to_owned(), directory.join(file).display().to_string().into());
        }
    };
    set("node", "state_file", "state.json");
    set("dataplane", "socket", "dataplane.sock");
    set("management", "socket", "controlplane.sock");
    for table in config.get_mut("tables").and_then(toml::Value::as_array_mut).into_iter().flatten() {
        let own = table.get("netns").and_then(toml::Value::as_str).unwrap_or("table");
        let own = format!("{netns}-{own}");
        if let Some(table) = table.as_table_mut() {
            table.insert("netns".to_owned(), own.into());
        }
    }
    config
}

/// The namespaces of a configuration's tables.
fn netns_of_tables(config: &toml::Table) -> Vec<String> {
    let tables = config.get("tables").and_then(toml::Value::as_array).into_iter().flatten();
    tables.filter_map(|table| Some(table.get("netns")?.as_str()?.to_owned())).collect()
}

/// The Ethernet address of a port: of 0, `wan`, and 1, `lan`.
fn mac(number: u8, port: u8) -> String {
    format!("02:00:00:00:{number:02x}:{:02x}", port + 3)
}

/// The group of an IPv6 address that is written as this number in decimal: 11 as 0x11.
pub(crate) fn hextet(number: u8) -> u16 {
    u16::from(number / 10) << 4 | u16::from(number % 10)
}

/// `examples/cloud` of this tree.
#[must_use]
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/cloud")
}

/// A name for a test's cloud that no other process has.
#[must_use]
pub fn test_prefix() -> String {
    format!("nt{}", std::process::id())
}
