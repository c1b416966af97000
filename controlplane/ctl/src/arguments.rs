//! The command line.

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use model::ike::Identity;
use model::observe::{CaptureRequest, Tap, TraceRequest};
use model::program::Owner;
use model::state::{Filter, View, What};
use model::{InterfaceName, ProtocolAddr, TableId};

/// Shows and changes what a Nave node does.
#[derive(Debug, Parser)]
#[command(name = "nave", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Management socket of the node's nave-controlplane.
    #[arg(long, global = true, value_name = "PATH")]
    #[arg(default_value = "/run/nave/controlplane.sock")]
    pub(crate) socket: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what is known, forwarded and counted.
    #[command(subcommand)]
    Show(Show),
    /// Forget learnt things.
    #[command(subcommand)]
    Clear(Clear),
    /// Make a configuration file the running configuration: all of it, or nothing.
    ///
    /// It lasts until nave-controlplane starts again or reads its own file; write it into that file to keep it.
    Apply {
        /// The file; `-` reads standard input.
        file: PathBuf,
        /// Only check it, and print what it would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// Print events as they happen, one a line.
    Watch {
        /// Only of this tunnel.
        #[arg(long, value_name = "NAME")]
        tunnel: Option<InterfaceName>,
    },
    /// Follow packets through the data plane, from node to node: what each node finds, and why a packet is dropped.
    ///
    /// Prints a line for each node that a packet comes to, and its first bytes where they have changed. Ends when as many packets as
    /// were asked for have gone their way.
    Trace(Trace),
    /// Copy packets at a port or at a node of the data plane, as pcapng for Wireshark or as text.
    ///
    /// At a port they are what the wire has, in both directions. At a node they are what the node finds in the packet's buffer: the
    /// frame as it was received, outer headers and all, without the VLAN tag, until the node `midchain` or `rewrite` has put new headers in
    /// front; an Ethernet header of zeros stands in front of what has none, such as what comes from the kernel by a tunnel's twin. So the
    /// link type is always Ethernet. At the node `drop` the packet's comment says why it is dropped.
    ///
    ///     nave capture --port wan -w - | tshark -r -
    ///
    ///     nave capture --node drop -c 10
    #[command(verbatim_doc_comment)]
    Capture(Capture),
    /// Print every NHRP and GRE message of a capture, pcap or pcapng. No node is needed.
    ///
    /// Frames may be of Ethernet, with VLAN tags, Linux cooked or raw IP; on a tunnel interface they need no GRE. Pieces of packets are
    /// put together. ESP and IKE are named; with the keys of their SAs, they are decrypted. The last lines count what there is.
    ///
    ///     tcpdump -i wan -w - proto gre | nave decode -
    ///
    ///     nave decode --esp-sa esp_sa --check protected.pcap
    ///     nave decode --ike-keys ikev2_decryption_table --check protected.pcap
    #[command(verbatim_doc_comment)]
    Decode(Decode),
    /// Explain why packets to an address go where they go: the routes that compete, the one that is taken and why, its next hop and
    /// what that stands on, and what the data plane has of it.
    Explain(Explain),
    /// Find what costs speed here: huge pages, workers' cores and who shares them, interrupts, frequency, AES-GCM, clock, NUMA, ports,
    /// RSS, idle policy; and say what to do about it. Needs no node, and asks it if there is one. Changes nothing.
    ///
    /// Exit status: 0 nothing costs speed, 1 something does, 2 something costs most of it, or keeps a data plane from starting.
    ///
    ///     nave doctor
    ///     nave doctor --workers 2,3 --device 0000:3b:00.0
    #[command(verbatim_doc_comment)]
    Doctor(Doctor),
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Look at these cores as those of workers of a data plane that does not run yet.
    #[arg(long, value_name = "CORE,…", value_delimiter = ',')]
    pub(crate) workers: Vec<usize>,
    /// Look at this NIC, by its PCI address, as a port of it. May be given several times.
    #[arg(long = "device", value_name = "PCI")]
    pub(crate) devices: Vec<String>,
    /// Look at this folder's proc and sys: those of another machine, or another place where they are mounted.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) root: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// How many packets: the next that arrive, or come from the kernel or the control plane.
    #[arg(short = 'n', long = "packets", value_name = "N", default_value = "1")]
    packets: NonZeroU32,
    /// Only packets with this address: source or destination, in the outer or the inner header.
    #[arg(long)]
    address: Option<IpAddr>,
}

#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Capture {
    #[command(flatten)]
    at: At,
    /// End after so many packets; without it, Ctrl-C ends it.
    #[arg(short = 'c', long = "packets", value_name = "N")]
    packets: Option<NonZeroU32>,
    /// Keep only so many bytes of each packet.
    #[arg(long, value_name = "BYTES")]
    snap: Option<NonZeroU16>,
    /// Only packets with this address: source or destination, in the outer or the inner header.
    #[arg(long)]
    address: Option<IpAddr>,
    /// Write pcapng to this file; `-` writes it to standard output. Without it, packets are printed.
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct At {
    /// At this port, by its name on the data plane's command line (`nave show ports`).
    #[arg(long)]
    port: Option<String>,
    /// At this node of the graph (`nave show counters`).
    #[arg(long)]
    node: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Decode {
    /// The file; `-` reads standard input.
    pub(crate) file: PathBuf,
    /// Write each NHRP message again, as the node would: exit with status 1 if the bytes are not the same, if a checksum of NHRP or GRE
    /// is wrong, or if a message cannot be read; with --esp-sa also unless every ESP packet is authentic; with --ike-keys the same of
    /// each IKE message, and unless every encrypted one is authentic.
    #[arg(long)]
    pub(crate) check: bool,
    /// Decrypt ESP, native or in UDP, in transport or tunnel mode, with the SAs of this table, and print what is inside.
    ///
    /// The table is one of Wireshark ("ESP SAs", file esp_sa), with AES-GCM and an ICV of 16 bytes. A line of it:
    ///
    ///     "IPv4","*","10.0.0.1","0xc23be78f","AES-GCM with 16 octet ICV [RFC4106]","0x<key and salt>","NULL",""
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    pub(crate) esp_sa: Option<PathBuf>,
    /// Decrypt IKEv2, on UDP ports 500 and 4500, in fragments too, with the keys of this table, and print every payload.
    ///
    /// The table is one of Wireshark ("IKEv2 Decryption Table", file ikev2_decryption_table), with AES-GCM and an ICV of 16 bytes, or
    /// AES-CBC and HMAC. A line of it:
    ///
    ///     <SPI of initiator>,<of responder>,<SK_ei>,<SK_er>,"AES-GCM-128 with 16 octet ICV [RFC5282]",,,"NONE [RFC4306]"
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    pub(crate) ike_keys: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The address.
    address: IpAddr,
    /// In this FIB table.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    table: u32,
}

impl Trace {
    /// What to ask for.
    pub(crate) fn request(&self) -> TraceRequest {
        TraceRequest { packets: self.packets, address: self.address }
    }
}

impl Capture {
    /// What to ask for.
    pub(crate) fn request(&self) -> CaptureRequest {
        let At { port, node } = &self.at;
        let at = match (port, node) {
            (Some(port), _) => Tap::Port(port.clone()),
            // One of them is required.
            (None, node) => Tap::Node(node.clone().unwrap_or_default()),
        };
        CaptureRequest { at, packets: self.packets, snap: self.snap, address: self.address }
    }
}

impl Explain {
    /// What to ask for.
    pub(crate) fn request(&self) -> model::state::Show {
        let filter =
            Filter { address: Some(self.address), table: Some(TableId(self.table)), ..Filter::default() };
        model::state::Show { what: What::Explain, filter }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Show {
    /// Peers of each tunnel.
    Dmvpn {
        /// Everything about each tunnel and peer.
        #[arg(long)]
        detail: bool,
        #[command(flatten)]
        only: OfTunnel,
    },
    /// The NHRP cache, or what NHRP has sent and received.
    Nhrp {
        /// Everything about each entry.
        #[arg(long, conflicts_with = "brief")]
        detail: bool,
        /// Addresses and types only.
        #[arg(long)]
        brief: bool,
        /// Messages sent and received by type, error indications by code, and what was not accepted, instead of entries.
        #[arg(long, conflicts_with_all = ["detail", "brief", "address"])]
        traffic: bool,
        #[command(flatten)]
        only: OfTunnel,
    },
    /// Next-hop servers that this node registers with.
    Nhs {
        #[command(flatten)]
        only: OfTunnel,
    },
    /// The RIB: every route of every owner.
    Routes {
        #[command(flatten)]
        only: OfTable,
    },
    /// What forwards: the best route to each prefix.
    Fib {
        #[command(flatten)]
        only: OfTable,
    },
    /// How next hops are reached.
    Adjacency {
        /// Only of this interface or tunnel.
        #[arg(long, value_name = "NAME")]
        interface: Option<InterfaceName>,
        /// Only with this next hop or NBMA address.
        address: Option<IpAddr>,
    },
    /// Ports of the data plane.
    Ports,
    /// Workers of the data plane.
    Workers,
    /// Packets of each node of the graph, NHRP messages, and what was not accepted.
    Counters,
    /// Dropped packets by reason.
    Drops,
    /// Security associations: whose they are, what they carried, and which are refused and why. Keys are shown nowhere.
    Sa {
        /// Only with this NBMA address.
        address: Option<IpAddr>,
    },
    /// IKE SAs, and peers that are wanted and have none: who they are, where they stand, and why it failed.
    Ike {
        /// Everything about each, with its child SAs.
        #[arg(long)]
        detail: bool,
        /// Only with this address.
        address: Option<IpAddr>,
    },
    /// Everything that the data plane was told: interfaces, tunnels, neighbours, bindings, routes, replicas, fall-backs.
    Program {
        #[command(flatten)]
        only: OfTable,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OfTunnel {
    /// Only of this tunnel.
    #[arg(long, value_name = "NAME")]
    tunnel: Option<InterfaceName>,
    /// Only with this address, or a prefix that holds it.
    address: Option<IpAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct OfTable {
    /// Only by this interface or tunnel.
    #[arg(long, value_name = "NAME")]
    interface: Option<InterfaceName>,
    /// Only of this FIB table.
    #[arg(long, value_name = "NUMBER")]
    table: Option<u32>,
    /// Only of this owner.
    #[arg(long, value_parser = owner, value_name = "nhrp|ike|config|netlink")]
    owner: Option<Owner>,
    /// Only what holds for this address.
    address: Option<IpAddr>,
}

fn owner(text: &str) -> Result<Owner, String> {
    match text {
        "nhrp" => Ok(Owner::Nhrp),
        "ike" => Ok(Owner::Ike),
        "config" => Ok(Owner::Config),
        "netlink" => Ok(Owner::Netlink),
        _ => Err("an owner is nhrp, ike, config or netlink".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Clear {
    /// NHRP cache entries that were learnt; they are asked for again when they are wanted.
    Nhrp {
        /// Only of this tunnel.
        #[arg(long, value_name = "NAME")]
        tunnel: Option<InterfaceName>,
        /// Only of this protocol address.
        address: Option<ProtocolAddr>,
    },
    /// IKE SAs with a peer, and their child SAs: the peer is told. If it is still wanted, new ones are made.
    Ike {
        /// Its NBMA address, or its identity.
        peer: Identity,
    },
}

impl From<OfTunnel> for Filter {
    fn from(only: OfTunnel) -> Self {
        Self { interface: only.tunnel, address: only.address, ..Self::default() }
    }
}

impl From<OfTable> for Filter {
    fn from(only: OfTable) -> Self {
        let OfTable { interface, table, owner, address } = only;
        Self { interface, address, table: table.map(TableId), owner }
    }
}

impl Show {
    /// What to ask for, and how much of it to print.
    pub(crate) fn request(self) -> (model::state::Show, View) {
        let all = Filter::default();
        let (what, filter, view) = match self {
            Self::Dmvpn { detail, only } => {
                (What::Dmvpn, only.into(), if detail { View::Detail } else { View::Table })
            }
            Self::Nhrp { traffic: true, only, .. } => (What::NhrpTraffic, only.into(), View::Table),
            Self::Nhrp { detail, brief, only, .. } => {
                let view = match (detail, brief) {
                    (true, _) => View::Detail,
                    (_, true) => View::Brief,
                    _ => View::Table,
                };
                (What::Nhrp, only.into(), view)
            }
            Self::Nhs { only } => (What::Nhs, only.into(), View::Table),
            Self::Routes { only } => (What::Routes, only.into(), View::Table),
            Self::Fib { only } => (What::Fib, only.into(), View::Table),
            Self::Adjacency { interface, address } => {
                (What::Adjacency, Filter { interface, address, ..all }, View::Table)
            }
            Self::Ports => (What::Ports, all, View::Table),
            Self::Workers => (What::Workers, all, View::Table),
            Self::Counters => (What::Counters, all, View::Table),
            Self::Drops => (What::Drops, all, View::Table),
            Self::Sa { address } => (What::Sa, Filter { address, ..all }, View::Table),
            Self::Ike { detail, address } => {
                let view = if detail { View::Detail } else { View::Table };
                (What::Ike, Filter { address, ..all }, view)
            }
            Self::Program { only } => (What::Program, only.into(), View::Table),
        };
        (model::state::Show { what, filter }, view)
    }
}
