//! The packets: how each is made, and what must come out.

use std::net::Ipv4Addr;

use anyhow::{Context as _, bail, ensure};
use wire::{IntoBytes, ethernet, gre, ipv4, udp};

use crate::scenario::{GATEWAY, KEY, OWN_NBMA, PORTS, SENDER, Scenario, TUNNEL_TTL, nbma, network};

/// Time to live of an inner packet as it arrives.
const TTL: u8 = 64;

/// One packet's way, chosen at random before each pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    /// Its number in the pass: in the payload.
    pub(crate) index: u32,
    /// The pass: in the payload as well, so that nothing old counts.
    pub(crate) pass: u32,
    /// The spoke that sends it, if it arrives in GRE.
    pub(crate) from: u32,
    /// The route that it is sent to, and the host there.
    pub(crate) route: u32,
    pub(crate) host: u8,
}

/// Bytes of headers in front of the payload that carries number and pass.
const INNER: usize = ipv4::LEN + udp::LEN;

impl Way {
    /// The inner packet with this time to live. Its payload is number, pass, and a pattern that depends on both.
    fn inner(&self, scenario: &Scenario, ttl: u8, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let payload = scenario.size - ethernet::LEN - INNER;
        let to = Ipv4Addr::from_bits(network(self.route) + u32::from(self.host));
        // In the cloud's address plan the sender is a host behind the spoke, or on our LAN.
        let from = Ipv4Addr::from_bits(u32::from_be_bytes([192, 168, 1, 0]) + (self.from & 0xff));
        let ip =
            ipv4::Header::new(from, to, ipv4::UDP, ttl, payload + udp::LEN).context("packet too long")?;
        let mut header = udp::Header::new(1000, 2000, payload).context("packet too long")?;
        let start = out.len();
        out.extend(ip.as_bytes());
        out.extend([0; udp::LEN]);
        out.extend(self.index.to_be_bytes());
        out.extend(self.pass.to_be_bytes());
        let seed = self.index ^ self.pass;
        out.resize(start + INNER + payload, seed as u8 ^ (seed >> 8) as u8);
        header.fill_checksum(&ip, &out[start + INNER..]);
        out[start + ipv4::LEN..start + INNER].copy_from_slice(header.as_bytes());
        Ok(())
    }

    /// The frame as it arrives.
    pub(crate) fn arrival(&self, scenario: &Scenario, out: &mut Vec<u8>) -> anyhow::Result<()> {
        out.clear();
        let kind = scenario.kind;
        let from = if kind.arrives_in_tunnel() { GATEWAY } else { SENDER };
        let to = PORTS[usize::from(kind.in_port())].1;
        out.extend(ethernet::Header::new(to.0, from.0, ethernet::IPV4).as_bytes());
        if kind.arrives_in_tunnel() {
            let outer = outer(nbma(self.from), OWN_NBMA, TTL, scenario).context("packet too long")?;
            push_gre(out, &outer);
        }
        self.inner(scenario, TTL, out)
    }

    /// Checks every byte of the frame that left.
    pub(crate) fn check_departure(&self, scenario: &Scenario, port: u16, frame: &[u8]) -> anyhow::Result<()> {
        let kind = scenario.kind;
        ensure!(port == kind.out_port(), "left by port {port}");
        let mut wanted = Vec::with_capacity(frame.len());
        let to = scenario.next_station(self.route);
        wanted.extend(ethernet::Header::new(to.0, PORTS[usize::from(port)].1.0, ethernet::IPV4).as_bytes());
        if kind.leaves_in_tunnel() {
            let to = nbma(scenario.spoke_of(self.route));
            // The sender is free to choose the identification; the checksum has to fit it.
            let (found, _) = ipv4::parse(frame.get(ethernet::LEN..).unwrap_or_default())?;
            let outer = outer(OWN_NBMA, to, TUNNEL_TTL, scenario).context("packet too long")?;
            push_gre(&mut wanted, &outer.with_id(found.id()));
        }
        self.inner(scenario, TTL - 1, &mut wanted)?;
        if frame == wanted {
            return Ok(());
        }
        let at = frame.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
        bail!("{} bytes, {} wanted, the first difference at {at}: {frame:02x?}", frame.len(), wanted.len())
    }
}

fn outer(from: Ipv4Addr, to: Ipv4Addr, ttl: u8, scenario: &Scenario) -> Option<ipv4::Header> {
    let len = scenario.size - ethernet::LEN + gre::len(Some(KEY));
    ipv4::Header::new(from, to, ipv4::GRE, ttl, len)
}

fn push_gre(out: &mut Vec<u8>, outer: &ipv4::Header) {
    out.extend(outer.as_bytes());
    out.extend(gre::Keyed::new(gre::IPV4, KEY).as_bytes());
}

/// Number of the packet in a frame that left, wherever in the frame its payload is.
pub(crate) fn index_of(scenario: &Scenario, frame: &[u8]) -> Option<u32> {
    let tunnel = if scenario.kind.leaves_in_tunnel() { ipv4::LEN + gre::len(Some(KEY)) } else { 0 };
    let at = ethernet::LEN + tunnel + INNER;
    frame.get(at..)?.first_chunk().map(|index| u32::from_be_bytes(*index))
}

/// Smallest and largest frame that there is a packet for.
pub(crate) const SIZES: std::ops::RangeInclusive<u64> = 64..=1800;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Kind;

    const WAY: Way = Way { index: 7, pass: 3, from: 5, route: 12, host: 9 };

    fn scenario(kind: Kind) -> Scenario {
        Scenario { kind, spokes: 10, routes: 20, size: 64 }
    }

    #[test]
    fn frames_have_the_sizes_of_the_scenarios() {
        let len = |kind| {
            let mut out = Vec::new();
            WAY.arrival(&scenario(kind), &mut out).unwrap();
            out.len()
        };
        assert_eq!(
            (len(Kind::Ipv4), len(Kind::Encap), len(Kind::Decap), len(Kind::GreRelay)),
            (64, 64, 92, 92)
        );
    }

    #[test]
    fn any_changed_byte_is_found() {
        let scenario = scenario(Kind::Ipv4);
        let mut frame = Vec::new();
        frame.extend(ethernet::Header::new([2, 3, 0, 0, 0, 2], PORTS[1].1.0, ethernet::IPV4).as_bytes());
        WAY.inner(&scenario, TTL - 1, &mut frame).unwrap();
        WAY.check_departure(&scenario, 1, &frame).unwrap();
        assert_eq!(index_of(&scenario, &frame), Some(7));
        assert!(WAY.check_departure(&scenario, 0, &frame).is_err());
        for at in 0..frame.len() {
            frame[at] ^= 1;
            assert!(WAY.check_departure(&scenario, 1, &frame).is_err(), "byte {at}");
            frame[at] ^= 1;
        }
        assert!(WAY.check_departure(&scenario, 1, &frame[..63]).is_err());
    }
}
