//! Looking at packets as they go: a trace follows a few of them from node to node, a capture copies what passes one place.

use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};

use serde::{Deserialize, Serialize};

use crate::state::time::of_day;
use crate::state::{adjacency::hex, count};
use crate::{InterfaceName, TableId, WorkerId};

/// Which packets to follow through the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRequest {
    /// How many: the next that arrive at a port, or come from a kernel twin or the control plane. Of all workers together.
    pub packets: NonZeroU32,
    /// Only such as name this address: as source or destination, in the outer or the inner header.
    #[serde(default)]
    pub address: Option<IpAddr>,
}

/// A packet at a node of the graph, before the node changes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// The packet, numbered from 1 in each trace. Copies and pieces of a packet have its number.
    pub packet: u32,
    /// The worker that walks it.
    pub worker: WorkerId,
    /// The node.
    pub node: String,
    /// When, in microseconds since 1970-01-01 UTC.
    pub time_us: u64,
    /// The interface or tunnel that it came by, so far; `None` while that is not known.
    pub interface: Option<InterfaceName>,
    /// The FIB table that it is looked up in, so far.
    pub table: TableId,
    /// Destination of the IP packet at `offset`, if there is one.
    pub destination: Option<IpAddr>,
    /// Index of its adjacency, as `show adjacency` has it; `None` before the look-up.
    pub adjacency: Option<u32>,
    /// Where in the bytes the current header starts.
    pub offset: u16,
    /// Why it was dropped, at the last of its nodes.
    pub reason: Option<Reason>,
    /// Length in bytes.
    pub len: u32,
    /// Its first bytes.
    #[serde(with = "hex")]
    pub bytes: Vec<u8>,
    /// Steps lost before this one, because they were not taken quickly enough.
    #[serde(default)]
    pub lost: u64,
}

/// Why a packet was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The name that it is counted under.
    pub name: String,
    /// What it means, one sentence.
    pub sentence: String,
}

/// Where packets are captured.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tap {
    /// At a port of the data plane, by its name on the data plane's command line: both directions, as they are on the wire.
    Port(String),
    /// As they come to a node of the graph, by its name in `show counters`.
    Node(String),
}

/// Which packets to copy, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureRequest {
    /// Where.
    pub at: Tap,
    /// How many, of all workers together; `None`: until nobody listens any more.
    #[serde(default)]
    pub packets: Option<NonZeroU32>,
    /// Bytes that are kept of each; `None`: all.
    #[serde(default)]
    pub snap: Option<NonZeroU16>,
    /// As of [`TraceRequest`].
    #[serde(default)]
    pub address: Option<IpAddr>,
}

/// Which way a captured frame went through its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// It came by the port.
    In,
    /// The port sent it.
    Out,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::In, Self::Out];
}

/// A captured packet: always a frame that begins with an Ethernet header. At a node, one with addresses of zeros stands in front of
/// what has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// The worker that had it.
    pub worker: WorkerId,
    /// When, in microseconds since 1970-01-01 UTC.
    pub time_us: u64,
    /// At a port the interface that it belongs to, at a node the one that it came by; `None`: none is programmed, or not known yet.
    pub interface: Option<InterfaceName>,
    /// Which way; `None` at a node.
    pub direction: Option<Direction>,
    /// Why it was dropped, at the node `drop`.
    pub reason: Option<Reason>,
    /// Length of the whole frame in bytes.
    pub len: u32,
    /// The frame, or as much of it as was asked for.
    #[serde(with = "hex")]
    pub bytes: Vec<u8>,
    /// Packets lost before this one, because they were not taken quickly enough.
    #[serde(default)]
    pub lost: u64,
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::Node(node) => write!(f, "node {node}"),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::In => "in",
            Self::Out => "out",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.sentence)
    }
}

impl TraceStep {
    /// All but the bytes, in one line that begins with the time.
    pub fn line(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            let Self { packet, worker, node, interface, table, adjacency, offset, len, .. } = self;
            lost(f, self.lost, "step", "steps")?;
            write!(f, "{} #{packet} {node:<11} worker {}", of_day(self.time_us), worker.0)?;
            if let Some(interface) = interface {
                write!(f, " by {interface}")?;
            }
            write!(f, " table {}", table.0)?;
            if let Some(destination) = self.destination {
                write!(f, " to {destination}")?;
            }
            if let Some(adjacency) = adjacency {
                write!(f, " adjacency {adjacency}")?;
            }
            write!(f, " header at {offset} of {len} bytes")?;
            self.reason.as_ref().map_or(Ok(()), |reason| write!(f, " ({reason})"))
        })
    }
}

impl fmt::Display for TraceStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.line().fmt(f)?;
        dump(f, &self.bytes)
    }
}

impl fmt::Display for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        lost(f, self.lost, "packet", "packets")?;
        write!(f, "{}", of_day(self.time_us))?;
        if let Some(direction) = self.direction {
            write!(f, " {direction:<3}")?;
        }
        if let Some(interface) = self.interface {
            write!(f, " {interface}")?;
        }
        write!(f, " {} bytes", self.len)?;
        if let Some(reason) = &self.reason {
            write!(f, " ({reason})")?;
        }
        dump(f, &self.bytes)
    }
}

fn lost(f: &mut fmt::Formatter<'_>, lost: u64, one: &str, many: &str) -> fmt::Result {
    if lost == 0 { Ok(()) } else { writeln!(f, "… {} lost here", count(lost, one, many)) }
}

/// Lines of sixteen bytes with their offset, as `tshark -x` and `text2pcap` have them.
fn dump(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for (at, chunk) in bytes.chunks(16).enumerate() {
        write!(f, "\n    {:04x} ", at * 16)?;
        chunk.iter().try_for_each(|byte| write!(f, " {byte:02x}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> TraceStep {
        TraceStep {
            packet: 3,
            worker: WorkerId(1),
            node: "drop".to_owned(),
            time_us: 3_661_000_002,
            interface: Some("wan0".parse().unwrap()),
            table: TableId(7),
            destination: Some("10.0.0.2".parse().unwrap()),
            adjacency: Some(5),
            offset: 14,
            reason: Some(Reason { name: "ttl-expired".to_owned(), sentence: "It ended.".to_owned() }),
            len: 60,
            bytes: (0..18).collect(),
            lost: 0,
        }
    }

    #[test]
    fn a_step_says_where_the_packet_is_and_what_it_looks_like() {
        assert_eq!(
            step().to_string(),
            "01:01:01.000002 #3 drop        worker 1 by wan0 table 7 to 10.0.0.2 adjacency 5 header at 14 of 60 bytes \
             (ttl-expired: It ended.)
    0000  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f
    0010  10 11"
        );
        let early = TraceStep {
            node: "rx".to_owned(),
            interface: None,
            destination: None,
            adjacency: None,
            reason: None,
            bytes: vec![],
            lost: 1,
            ..step()
        };
        assert_eq!(
            early.to_string(),
            "… 1 step lost here\n01:01:01.000002 #3 rx          worker 1 table 7 header at 14 of 60 bytes"
        );
    }

    #[test]
    fn a_captured_packet_says_which_way_it_went() {
        let captured = Captured {
            worker: WorkerId(0),
            time_us: 2,
            interface: Some("lan0".parse().unwrap()),
            direction: Some(Direction::In),
            reason: None,
            len: 60,
            bytes: vec![0xab; 2],
            lost: 2,
        };
        assert_eq!(
            captured.to_string(),
            "… 2 packets lost here\n00:00:00.000002 in  lan0 60 bytes\n    0000  ab ab"
        );
    }

    #[test]
    fn json_reads_back_as_it_was_written_and_refuses_zeros() {
        let json = serde_json::to_value(step()).unwrap();
        assert_eq!(json["bytes"], "000102030405060708090a0b0c0d0e0f1011");
        assert_eq!(serde_json::from_value::<TraceStep>(json).unwrap(), step());
        let order: CaptureRequest = serde_json::from_str(r#"{"at":{"port":"wan"},"snap":64}"#).unwrap();
        assert_eq!((order.at.to_string(), order.snap.unwrap().get()), ("port wan".to_owned(), 64));
        assert!(serde_json::from_str::<CaptureRequest>(r#"{"at":{"node":"rx"},"snap":0}"#).is_err());
        assert!(serde_json::from_str::<TraceRequest>(r#"{"packets":0}"#).is_err());
    }
}
