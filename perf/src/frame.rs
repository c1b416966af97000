//! The packets: how each is made, and what must come out.

use std::net::IpAddr;

use anyhow::{Context as _, bail, ensure};
use wire::{IntoBytes, ethernet, gre, ipv4, ipv6, udp};

use crate::scenario::{Family, GATEWAY, KEY, PORTS, SENDER, Scenario, TUNNEL_TTL, nbma, own_nbma, sender};

/// Time to live of an inner packet as it arrives.
const TTL: u8 = 64;
/// Bytes of number and pass in the payload.
const NUMBERS: usize = 8;

/// One packet's way, chosen at random before each pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    /// Its number in the pass: in the payload.
    pub(crate) index: u32,
    /// The pass: in the payload as well, so that nothing old counts.
    pub(crate) pass: u32,
    /// The spoke that sends it, if it arrives in GRE.
    pub(crate) from: u32,
    /// Where it is sent to, and the number of the route that this is in.
    pub(crate) to: IpAddr,
    pub(crate) route: u32,
}

impl Way {
    /// The inner packet with this time to live. Its payload is number, pass, and a pattern that depends on both.
    fn inner(&self, scenario: &Scenario, ttl: u8, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let headers = ip_len(scenario.inner) + udp::LEN;
        let payload = (scenario.size - ethernet::LEN).checked_sub(headers).context("no room for headers")?;
        ensure!(payload >= NUMBERS, "no room for numbers");
        let ip = Ip::new(sender(scenario.inner, self.from), self.to, ipv4::UDP, ttl, payload + udp::LEN)?;
        let mut header = udp::Header::new(1000, 2000, payload).context("packet too long")?;
        let start = out.len();
        out.extend(ip.bytes());
        out.extend([0; udp::LEN]);
        out.extend(self.index.to_be_bytes());
        out.extend(self.pass.to_be_bytes());
        let seed = self.index ^ self.pass;
        out.resize(start + headers + payload, seed as u8 ^ (seed >> 8) as u8);
        match &ip {
            Ip::V4(ip) => header.fill_checksum(ip, &out[start + headers..]),
            Ip::V6(ip) => header.fill_checksum_v6(ip, &out[start + headers..]),
        }
        out[start + headers - udp::LEN..start + headers].copy_from_slice(header.as_bytes());
        Ok(())
    }

    /// The frame as it arrives.
    pub(crate) fn arrival(&self, scenario: &Scenario, out: &mut Vec<u8>) -> anyhow::Result<()> {
        out.clear();
        let kind = scenario.kind;
        let in_tunnel = kind.arrives_in_tunnel();
        let from = if in_tunnel { GATEWAY } else { SENDER };
        let to = PORTS[usize::from(kind.in_port())].1;
        let family = if in_tunnel { scenario.outer } else { scenario.inner };
        out.extend(ethernet::Header::new(to.0, from.0, protocol_type(family)).as_bytes());
        if in_tunnel {
            let (from, to) = (nbma(scenario.outer, self.from), own_nbma(scenario.outer));
            push_gre(out, &outer(from, to, TTL, scenario)?, scenario);
        }
        self.inner(scenario, TTL, out)
    }

    /// Checks every byte of the frame that left.
    pub(crate) fn check_departure(&self, scenario: &Scenario, port: u16, frame: &[u8]) -> anyhow::Result<()> {
        let kind = scenario.kind;
        ensure!(port == kind.out_port(), "left by port {port}");
        let mut wanted = Vec::with_capacity(frame.len());
        let to = scenario.next_station(self.route);
        let family = if kind.leaves_in_tunnel() { scenario.outer } else { scenario.inner };
        let link = ethernet::Header::new(to.0, PORTS[usize::from(port)].1.0, protocol_type(family));
        wanted.extend(link.as_bytes());
        if kind.leaves_in_tunnel() {
            let to = nbma(scenario.outer, scenario.spoke_of(self.route));
            let outer = outer(own_nbma(scenario.outer), to, TUNNEL_TTL, scenario)?;
            let outer = outer.with_choices_of(frame.get(ethernet::LEN..).unwrap_or_default())?;
            push_gre(&mut wanted, &outer, scenario);
        }
        self.inner(scenario, TTL - 1, &mut wanted)?;
        if frame == wanted {
            return Ok(());
        }
        let at = frame.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
        bail!("{} bytes, {} wanted, the first difference at {at}: {frame:02x?}", frame.len(), wanted.len())
    }
}

/// An IP header.
enum Ip {
    V4(ipv4::Header),
    V6(ipv6::Header),
}

impl Ip {
    /// Without the don't-fragment bit.
    fn new(from: IpAddr, to: IpAddr, protocol: u8, ttl: u8, payload: usize) -> anyhow::Result<Self> {
        let made = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                ipv4::Header::new(from, to, protocol, ttl, payload).map(Self::V4)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                ipv6::Header::new(from, to, protocol, ttl, payload).map(Self::V6)
            }
            _ => bail!("{from} sends to {to}"),
        };
        made.context("packet too long")
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::V4(ip) => ip.as_bytes(),
            Self::V6(ip) => ip.as_bytes(),
        }
    }

    /// With what its sender is free to choose as it is in `packet`: the identification, to which the checksum has to fit; the flow
    /// label, but not 0.
    fn with_choices_of(self, packet: &[u8]) -> anyhow::Result<Self> {
        Ok(match self {
            Self::V4(ip) => Self::V4(ip.with_id(ipv4::parse(packet)?.0.id())),
            Self::V6(ip) => {
                let label = ipv6::parse(packet)?.0.flow_label();
                ensure!(label != 0, "without a flow label");
                Self::V6(ip.with_flow_label(label))
            }
        })
    }
}

/// The outer header of a packet, which is the outer packet's without the length of that header. The don't-fragment bit is the inner
/// one's: 0; for inner IPv6 it is set on what is larger than any link has to take.
fn outer(from: IpAddr, to: IpAddr, ttl: u8, scenario: &Scenario) -> anyhow::Result<Ip> {
    let inner = scenario.size - ethernet::LEN;
    let made = Ip::new(from, to, ipv4::GRE, ttl, inner + gre::len(Some(KEY)))?;
    Ok(match made {
        Ip::V4(ip) if scenario.inner == Family::Ipv6 && inner > ipv6::MIN_MTU => {
            Ip::V4(ip.with_flags(ipv4::DONT_FRAGMENT))
        }
        made => made,
    })
}

fn push_gre(out: &mut Vec<u8>, outer: &Ip, scenario: &Scenario) {
    out.extend(outer.bytes());
    out.extend(gre::Keyed::new(protocol_type(scenario.inner), KEY).as_bytes());
}

fn ip_len(family: Family) -> usize {
    match family {
        Family::Ipv4 => ipv4::LEN,
        Family::Ipv6 => ipv6::LEN,
    }
}

/// The family in an Ethernet or GRE header.
fn protocol_type(family: Family) -> u16 {
    match family {
        Family::Ipv4 => ethernet::IPV4,
        Family::Ipv6 => ethernet::IPV6,
    }
}

/// Number of the packet in a frame that left, wherever in the frame its payload is.
pub(crate) fn index_of(scenario: &Scenario, frame: &[u8]) -> Option<u32> {
    let tunnel =
        if scenario.kind.leaves_in_tunnel() { ip_len(scenario.outer) + gre::len(Some(KEY)) } else { 0 };
    let at = ethernet::LEN + tunnel + ip_len(scenario.inner) + udp::LEN;
    frame.get(at..)?.first_chunk().map(|index| u32::from_be_bytes(*index))
}

/// Smallest and largest frame that there is a packet for.
pub(crate) const SIZES: std::ops::RangeInclusive<u64> = 64..=1800;

/// Smallest frame with a packet of the family: headers and numbers.
pub(crate) fn least_size(family: Family) -> usize {
    (ethernet::LEN + ip_len(family) + udp::LEN + NUMBERS).max(64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::destinations::Destinations;
    use crate::scenario::Kind;

    fn way(family: Family) -> Way {
        let to = match family {
            Family::Ipv4 => "20.0.12.9".parse().unwrap(),
            Family::Ipv6 => "2a00:0:c::9".parse().unwrap(),
        };
        Way { index: 7, pass: 3, from: 5, to, route: 12 }
    }

    fn scenario(kind: Kind, inner: Family, outer: Family) -> Scenario {
        let destinations = Arc::new(Destinations::new(inner, 20, false));
        Scenario { kind, inner, outer, spokes: 10, destinations, size: least_size(inner) }
    }

    #[test]
    fn frames_have_the_sizes_of_the_scenarios() {
        use Family::{Ipv4, Ipv6};
        let len = |kind, inner, outer| {
            let mut out = Vec::new();
            way(inner).arrival(&scenario(kind, inner, outer), &mut out).unwrap();
            out.len()
        };
        assert_eq!((len(Kind::Ipv4, Ipv4, Ipv4), len(Kind::Encap, Ipv4, Ipv4)), (64, 64));
        assert_eq!((len(Kind::Decap, Ipv4, Ipv4), len(Kind::GreRelay, Ipv4, Ipv4)), (92, 92));
        assert_eq!((len(Kind::Ipv6, Ipv6, Ipv6), len(Kind::Decap, Ipv6, Ipv6)), (70, 118));
        assert_eq!((len(Kind::Decap, Ipv6, Ipv4), len(Kind::Decap, Ipv4, Ipv6)), (98, 112));
    }

    #[test]
    fn any_changed_byte_is_found() {
        for (kind, family) in [(Kind::Ipv4, Family::Ipv4), (Kind::Ipv6, Family::Ipv6)] {
            let (scenario, way) = (scenario(kind, family, family), way(family));
            let mut frame = Vec::new();
            let link = ethernet::Header::new([2, 3, 0, 0, 0, 2], PORTS[1].1.0, protocol_type(family));
            frame.extend(link.as_bytes());
            way.inner(&scenario, TTL - 1, &mut frame).unwrap();
            way.check_departure(&scenario, 1, &frame).unwrap();
            assert_eq!(index_of(&scenario, &frame), Some(7));
            assert!(way.check_departure(&scenario, 0, &frame).is_err());
            for at in 0..frame.len() {
                frame[at] ^= 1;
                assert!(way.check_departure(&scenario, 1, &frame).is_err(), "byte {at}");
                frame[at] ^= 1;
            }
            assert!(way.check_departure(&scenario, 1, &frame[..frame.len() - 1]).is_err());
        }
    }
}
