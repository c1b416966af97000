//! What a capture of the underlay means: which way each inner packet went, and which NHRP messages passed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::capture::Frame;
use crate::esp;
use crate::traffic::PAYLOAD;

/// GRE protocol type of NHRP (RFC 2332 has LLC/SNAP; this is what everybody sends).
pub const NHRP: u16 = 0x2001;

/// A GRE packet on the underlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outer<'a> {
    /// When.
    pub at: Duration,
    /// Its sender.
    pub source: IpAddr,
    /// Its receiver.
    pub destination: IpAddr,
    /// GRE key.
    pub key: Option<u32>,
    /// GRE protocol type.
    pub protocol: u16,
    /// What it carries.
    pub payload: &'a [u8],
}

/// An IP packet: source, destination, protocol, payload. `None` if it is none, or a later fragment.
pub(crate) fn ip(bytes: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    match bytes.first()? >> 4 {
        4 => ipv4(bytes),
        6 => ipv6(bytes),
        _ => None,
    }
}

fn ipv4(bytes: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    let header = usize::from(bytes.first()? & 15) * 4;
    let fragment = u16::from_be_bytes([*bytes.get(6)?, *bytes.get(7)?]) & 0x1fff;
    if header < 20 || fragment != 0 {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?).into());
    let payload = bytes.get(header..total.min(bytes.len()))?;
    Some((address(12)?, address(16)?, bytes[9], payload))
}

/// Of extension headers only that of fragments is known.
fn ipv6(bytes: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    let address =
        |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?).into());
    let end = 40 + usize::from(u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?]));
    let (mut protocol, mut at) = (bytes[6], 40);
    if protocol == 44 {
        let fragment = u16::from_be_bytes([*bytes.get(42)?, *bytes.get(43)?]) & !7;
        if fragment != 0 {
            return None;
        }
        (protocol, at) = (bytes[40], 48);
    }
    Some((address(8)?, address(24)?, protocol, bytes.get(at..end.min(bytes.len()))?))
}

/// The GRE packet in an Ethernet frame, if there is one.
#[must_use]
pub fn gre(frame: &Frame) -> Option<Outer<'_>> {
    let bytes = frame.bytes.get(14..)?;
    if !matches!(frame.bytes[12..14], [8, 0] | [0x86, 0xdd]) {
        return None;
    }
    let (source, destination, 47, gre) = ip(bytes)? else { return None };
    let flags = u16::from_be_bytes([*gre.first()?, *gre.get(1)?]);
    let protocol = u16::from_be_bytes([*gre.get(2)?, *gre.get(3)?]);
    let (checksum, keyed) = (flags & 0x8000 != 0, flags & 0x2000 != 0);
    let mut at = if checksum { 8 } else { 4 };
    let mut key = None;
    if keyed {
        key = Some(u32::from_be_bytes(gre.get(at..at + 4)?.try_into().ok()?));
        at += 4;
    }
    if flags & 0x1000 != 0 {
        at += 4;
    }
    Some(Outer { at: frame.at, source, destination, key, protocol, payload: gre.get(at..)? })
}

/// One inner packet of a numbered flow on the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub at: Duration,
    /// From which node.
    pub source: IpAddr,
    /// To which.
    pub destination: IpAddr,
    /// The packet's number in its flow.
    pub number: u64,
}

/// The inner packets from `ends.0` to `ends.1`, UDP port `port`, in order of time.
#[must_use]
pub fn steps(frames: &[Frame], ends: (IpAddr, IpAddr), port: u16) -> Vec<Step> {
    let number = |outer: &Outer<'_>| {
        let (source, destination, 17, udp) = ip(outer.payload)? else { return None };
        let right = (source, destination) == ends && udp.get(2..4)? == port.to_be_bytes();
        let payload = udp.get(8..)?;
        (right && payload.len() == PAYLOAD).then_some(u64::from_be_bytes(payload[..8].try_into().ok()?))
    };
    let step = |frame| {
        let outer = gre(frame)?;
        let number = number(&outer)?;
        Some(Step { at: outer.at, source: outer.source, destination: outer.destination, number })
    };
    frames.iter().filter_map(step).collect()
}

/// From and to which node inner packets of any kind from `ends.0` to `ends.1` went, in order of time.
#[must_use]
pub fn legs(frames: &[Frame], ends: (IpAddr, IpAddr)) -> Vec<(Duration, IpAddr, IpAddr)> {
    let leg = |frame| {
        let outer = gre(frame)?;
        let (source, destination, _, _) = ip(outer.payload)?;
        ((source, destination) == ends).then_some((outer.at, outer.source, outer.destination))
    };
    frames.iter().filter_map(leg).collect()
}

/// Follows what passed between two LAN addresses, each given with the NBMA address of its node, both ways: it began by way of the
/// hub and ended directly, and went no other way.
///
/// # Errors
/// It did not.
pub fn by_the_hub_then_direct(frames: &[Frame], hub: IpAddr, ends: [(IpAddr, IpAddr); 2]) -> Result<()> {
    let [left, right] = ends;
    for ((source, from), (destination, to)) in [(left, right), (right, left)] {
        let legs: Vec<_> = legs(frames, (source, destination)).into_iter().map(|(_, a, b)| (a, b)).collect();
        let way = || format!("{source} → {destination} went {legs:?}");
        ensure!(legs.first() == Some(&(from, hub)), "it does not begin by the hub: {}", way());
        ensure!(legs.last() == Some(&(from, to)), "it does not end directly: {}", way());
        let known = |leg| [(from, hub), (hub, to), (from, to)].contains(leg);
        ensure!(legs.iter().all(known), "it goes astray: {}", way());
    }
    Ok(())
}

/// From and to which node ESP went that holds an inner packet of this many bytes, behind GRE with a key: for who has not the keys. Others of
/// that size are among them, with up to three bytes less or more.
#[must_use]
pub fn sealed_legs(frames: &[Frame], inner: usize) -> Vec<(Duration, IpAddr, IpAddr)> {
    // Of GRE there are 8 bytes; padding length and next header are 2 (RFC 4303 §2.4).
    let text = (8 + inner + 2).next_multiple_of(4);
    let sealed = frames.iter().filter_map(esp::packet).filter(|esp| esp.text.len() == text);
    sealed.map(|esp| (esp.at, esp.source, esp.destination)).collect()
}

/// How many packets to `destination` passed inside GRE.
#[must_use]
pub fn inner_packets_to(frames: &[Frame], destination: IpAddr) -> usize {
    let to = |f: &&Frame| gre(f).and_then(|o| ip(o.payload)).is_some_and(|(_, d, _, _)| d == destination);
    frames.iter().filter(to).count()
}

/// An NHRP message on the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// When.
    pub at: Duration,
    /// From which node.
    pub source: IpAddr,
    /// To which.
    pub destination: IpAddr,
    /// `ar$op.type`: 1 resolution request … 8 traffic indication.
    pub kind: u8,
    /// Its size in bytes.
    pub size: usize,
}

impl Message {
    /// The kind in words.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.kind {
            1 => "resolution request",
            2 => "resolution reply",
            3 => "registration request",
            4 => "registration reply",
            5 => "purge request",
            6 => "purge reply",
            7 => "error indication",
            8 => "traffic indication",
            _ => "unknown message",
        }
    }
}

/// The NHRP messages in order of time.
#[must_use]
pub fn nhrp(frames: &[Frame]) -> Vec<Message> {
    let message = |frame| {
        let Outer { at, source, destination, payload, protocol: NHRP, .. } = gre(frame)? else { return None };
        Some(Message { at, source, destination, kind: *payload.get(17)?, size: payload.len() })
    };
    frames.iter().filter_map(message).collect()
}

/// Which way a flow went between two spokes: by the hub, then straight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Packets that went by the hub.
    pub relayed: usize,
    /// Packets that went straight.
    pub direct: usize,
    /// From the first packet on the underlay to the first that went straight.
    pub first_direct_after: Option<Duration>,
}

impl Way {
    /// Follows a flow from the node at `from` over `hub` to the node at `to`.
    ///
    /// # Errors
    /// A packet went anywhere else, went twice, only half the way, or back by the hub after one had gone straight.
    pub fn of(steps: &[Step], from: IpAddr, hub: IpAddr, to: IpAddr) -> Result<Self> {
        let mut packets: BTreeMap<u64, Vec<(IpAddr, IpAddr)>> = BTreeMap::new();
        for step in steps {
            packets.entry(step.number).or_default().push((step.source, step.destination));
        }
        let (mut relayed, mut direct) = (0, 0);
        for (number, legs) in &packets {
            let straight = legs[..] == [(from, to)];
            ensure!(
                straight || legs[..] == [(from, hub), (hub, to)],
                "packet {number} went {}",
                legs.iter().map(|(a, b)| format!("{a} → {b}")).collect::<Vec<_>>().join(", ")
            );
            ensure!(
                straight || direct == 0,
                "packet {number} went by the hub after {direct} had gone straight"
            );
            *(if straight { &mut direct } else { &mut relayed }) += 1;
        }
        let first = steps.first().context("none of the flow's packets is on the underlay")?;
        let switch = steps.iter().find(|s| (s.source, s.destination) == (from, to));
        Ok(Self { relayed, direct, first_direct_after: switch.map(|s| s.at.saturating_sub(first.at)) })
    }

    /// As [`Way::of`], of packets that cannot be read ([`sealed_legs`]): as many as went to the hub went on from there, and none went there
    /// after one had gone straight.
    ///
    /// # Errors
    /// It is not so.
    pub fn of_sealed(
        legs: &[(Duration, IpAddr, IpAddr)],
        from: IpAddr,
        hub: IpAddr,
        to: IpAddr,
    ) -> Result<Self> {
        let on = |a: IpAddr, b: IpAddr| legs.iter().filter(move |leg| (leg.1, leg.2) == (a, b));
        let (relayed, went_on, direct) = (on(from, hub).count(), on(hub, to).count(), on(from, to).count());
        ensure!(relayed == went_on, "{relayed} went to the hub, {went_on} went on from there");
        let switch = on(from, to).next().map(|leg| leg.0);
        let back = on(from, hub).filter(|leg| switch.is_some_and(|at| leg.0 > at)).count();
        ensure!(back == 0, "{back} packets went by the hub after one had gone straight");
        let first = on(from, hub).next().map(|leg| leg.0).or(switch);
        let first = first.context("none of the flow's packets is on the underlay")?;
        Ok(Self { relayed, direct, first_direct_after: switch.map(|at| at.saturating_sub(first)) })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by the hub, {} direct", self.relayed, self.direct)?;
        if let Some(after) = self.first_direct_after {
            write!(f, ", the first direct one {:.1} ms after the first", after.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    const HUB: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    const LEFT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
    const RIGHT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 12);
    const ENDS: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(192, 168, 11, 10), Ipv4Addr::new(192, 168, 12, 10));

    fn captured(millis: u64, legs: (Ipv4Addr, Ipv4Addr), number: u64) -> Frame {
        let mut payload = [0; PAYLOAD];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        let inner = frame::ipv4(ENDS, 17, 64, &frame::udp(5000, 5000, &payload));
        let outer = frame::ipv4(legs, 47, 255, &frame::gre(Some(42), 0x0800, &inner));
        let bytes = frame::ethernet([2; 6], [4; 6], 0x0800, &outer);
        Frame { at: Duration::from_millis(millis), length: bytes.len(), bytes }
    }

    fn way(legs: &[(Ipv4Addr, Ipv4Addr, u64)]) -> Result<Way> {
        let frames: Vec<_> = legs.iter().zip(0..).map(|(&(a, b, n), at)| captured(at, (a, b), n)).collect();
        let ends = (ENDS.0.into(), ENDS.1.into());
        Way::of(&steps(&frames, ends, 5000), LEFT.into(), HUB.into(), RIGHT.into())
    }

    #[test]
    fn by_the_hub_first_then_straight() {
        let legs = [(LEFT, HUB, 0), (HUB, RIGHT, 0), (LEFT, HUB, 1), (LEFT, RIGHT, 2), (HUB, RIGHT, 1)];
        let expected = Way { relayed: 2, direct: 1, first_direct_after: Some(Duration::from_millis(3)) };
        assert_eq!(way(&legs).unwrap(), expected);
        assert_eq!(way(&legs[..2]).unwrap().first_direct_after, None);
    }

    #[test]
    fn any_other_way_is_refused() {
        assert!(way(&[]).is_err());
        assert!(way(&[(LEFT, HUB, 0)]).is_err(), "half the way");
        assert!(way(&[(LEFT, RIGHT, 0), (LEFT, RIGHT, 0)]).is_err(), "twice");
        assert!(way(&[(LEFT, RIGHT, 0), (LEFT, HUB, 1), (HUB, RIGHT, 1)]).is_err(), "back to the hub");
        assert!(way(&[(RIGHT, LEFT, 0)]).is_err(), "backwards");
    }

    /// Input: the same packets, sealed. Output: the same way, and the same faults but for those that only their numbers show.
    #[test]
    fn of_what_is_sealed_the_way_is_seen_by_size() {
        let sa = esp::Sa::new(0x0100_0001, &[7; 20], true).unwrap();
        let sealed = |millis: u64, legs: (Ipv4Addr, Ipv4Addr), payload: usize| {
            let inner = frame::ipv4(ENDS, 17, 64, &frame::udp(5000, 5000, &vec![0; payload]));
            let packet = sa.seal(1, esp::GRE, &frame::gre(Some(42), 0x0800, &inner)).unwrap();
            let bytes = frame::ethernet([2; 6], [4; 6], 0x0800, &frame::ipv4(legs, esp::ESP, 64, &packet));
            Frame { at: Duration::from_millis(millis), length: bytes.len(), bytes }
        };
        let way = |legs: &[((Ipv4Addr, Ipv4Addr), usize)]| {
            let frames: Vec<_> =
                legs.iter().zip(0..).map(|(&(legs, size), at)| sealed(at, legs, size)).collect();
            Way::of_sealed(&sealed_legs(&frames, 28 + PAYLOAD), LEFT.into(), HUB.into(), RIGHT.into())
        };
        let (to_hub, from_hub, straight) =
            (((LEFT, HUB), PAYLOAD), ((HUB, RIGHT), PAYLOAD), ((LEFT, RIGHT), PAYLOAD));
        let legs = [((LEFT, HUB), 8), to_hub, from_hub, to_hub, straight, ((RIGHT, LEFT), PAYLOAD), from_hub];
        let expected = Way { relayed: 2, direct: 1, first_direct_after: Some(Duration::from_millis(3)) };
        assert_eq!(way(&legs).unwrap(), expected);
        assert!(way(&[((LEFT, HUB), 8)]).is_err(), "nothing of that size");
        assert!(way(&[to_hub]).is_err(), "half the way");
        assert!(way(&[straight, to_hub, from_hub]).is_err(), "back to the hub");
    }

    #[test]
    fn both_ways_begin_by_the_hub_and_end_directly() {
        let ends = [(ENDS.0.into(), LEFT.into()), (ENDS.1.into(), RIGHT.into())];
        let follow = |frames: &[Frame]| by_the_hub_then_direct(frames, HUB.into(), ends);
        let there = [(LEFT, HUB), (HUB, RIGHT), (LEFT, RIGHT)].map(|legs| captured(0, legs, 0));
        assert!(follow(&there).is_err(), "nothing came back");
        let back = [(RIGHT, HUB), (HUB, LEFT), (RIGHT, LEFT)].map(|legs| {
            let mut frame = captured(0, legs, 0);
            let at = frame.length - PAYLOAD - 8 - 8; // Of the inner source and destination.
            frame.bytes[at..at + 4].copy_from_slice(&ENDS.1.octets());
            frame.bytes[at + 4..at + 8].copy_from_slice(&ENDS.0.octets());
            frame
        });
        let both = [&there[..], &back[..]].concat();
        follow(&both).unwrap();
        assert!(follow(&both[1..]).is_err(), "no beginning");
        assert!(follow(&both[..5]).is_err(), "no end");
        let astray = [&both[..], &[captured(0, (HUB, LEFT), 0), captured(0, (LEFT, RIGHT), 0)]].concat();
        assert!(follow(&astray).is_err());
    }

    #[test]
    fn inner_packets_are_found_by_destination() {
        let frames = [captured(0, (LEFT, HUB), 0), captured(1, (HUB, RIGHT), 0)];
        assert_eq!(inner_packets_to(&frames, ENDS.1.into()), 2);
        assert_eq!(inner_packets_to(&frames, ENDS.0.into()), 0);
    }
}
