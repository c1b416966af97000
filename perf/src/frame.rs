//! The packets: how each is made, and what must come out.

use std::net::IpAddr;

use anyhow::{Context as _, bail, ensure};
use model::sa::SaMode;
use wire::{IntoBytes, esp, ethernet, gre, ipv4, ipv6, udp};

use crate::peers::{Peers, push_text};
use crate::scenario::{Family, GATEWAY, KEY, SENDER, Scenario, TUNNEL_TTL, nbma, own_nbma, sender};

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
    /// Bytes of its frame in the clear.
    pub(crate) size: usize,
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
        let payload = (self.size - ethernet::LEN).checked_sub(headers).context("no room for headers")?;
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

    /// The frame as it arrives; the peers seal it if the tunnel is protected.
    pub(crate) fn arrival(
        &self,
        scenario: &Scenario,
        peers: Option<&mut Peers>,
        out: &mut Vec<u8>,
    ) -> anyhow::Result<()> {
        out.clear();
        let kind = scenario.kind;
        let in_tunnel = kind.arrives_in_tunnel();
        let from = if in_tunnel { GATEWAY } else { SENDER };
        let to = scenario.macs[usize::from(kind.in_port())];
        let family = if in_tunnel { scenario.outer } else { scenario.inner };
        out.extend(ethernet::Header::new(to.0, from.0, protocol_type(family)).as_bytes());
        if !in_tunnel {
            return self.inner(scenario, TTL, out);
        }
        let ends = Ends { from: nbma(scenario.outer, self.from), to: own_nbma(scenario.outer), ttl: TTL };
        let payload = self.payload(scenario, &ends, TTL, 0)?;
        let Some((esp, peers)) = scenario.esp.zip(peers) else {
            out.extend(self.outer(scenario, &ends, ipv4::GRE, payload.len())?.bytes());
            out.extend(payload);
            return Ok(());
        };
        let mut packet = Vec::with_capacity(payload.len() + 64);
        peers.seal(self.from, &payload, &mut packet)?;
        let outer = self.outer(scenario, &ends, esp.protocol(), esp.udp_len() + packet.len())?;
        out.extend(outer.bytes());
        if esp.is_udp {
            let mut header = udp_header(esp.port(self.from), udp::IKE_NAT, packet.len())?;
            // RFC 3948 §2.1: over IPv4 there is none.
            if let Ip::V6(ip) = &outer {
                header.fill_checksum_v6(ip, &packet);
            }
            out.extend(header.as_bytes());
        }
        out.extend(packet);
        Ok(())
    }

    /// Checks every byte of the frame that left. One that was sealed has been opened and has this ESP header; opening it has checked its
    /// integrity check value.
    pub(crate) fn check_departure(
        &self,
        scenario: &Scenario,
        port: u16,
        header: Option<esp::Header>,
        frame: &[u8],
    ) -> anyhow::Result<()> {
        let kind = scenario.kind;
        ensure!(port == kind.out_port(), "left by port {port}");
        let mut wanted = Vec::with_capacity(frame.len());
        let to = scenario.next_station(self.route);
        let in_tunnel = kind.leaves_in_tunnel();
        let family = if in_tunnel { scenario.outer } else { scenario.inner };
        let link = ethernet::Header::new(to.0, scenario.macs[usize::from(port)].0, protocol_type(family));
        wanted.extend(link.as_bytes());
        if in_tunnel {
            self.departure(scenario, header, frame, &mut wanted)?;
        } else {
            self.inner(scenario, TTL - 1, &mut wanted)?;
        }
        let opened = frame.len().saturating_sub(if header.is_some() { esp::ICV } else { 0 });
        let frame = &frame[..opened];
        if frame == wanted {
            return Ok(());
        }
        let at = frame.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
        bail!("{} bytes, {} wanted, the first difference at {at}: {frame:02x?}", frame.len(), wanted.len())
    }

    /// The outer packet that is wanted, what its sender may choose being as in the frame.
    fn departure(
        &self,
        scenario: &Scenario,
        header: Option<esp::Header>,
        frame: &[u8],
        wanted: &mut Vec<u8>,
    ) -> anyhow::Result<()> {
        let spoke = scenario.spoke_of(self.route);
        let ends = Ends { from: own_nbma(scenario.outer), to: nbma(scenario.outer, spoke), ttl: TUNNEL_TTL };
        let choices = frame.get(ethernet::LEN..).unwrap_or_default();
        let label = if scenario.outer == Family::Ipv6 { ipv6::parse(choices)?.0.flow_label() } else { 0 };
        let payload = self.payload(scenario, &ends, TTL - 1, label)?;
        let Some((esp, header)) = scenario.esp.zip(header) else {
            let outer = self.outer(scenario, &ends, ipv4::GRE, payload.len())?;
            wanted.extend(outer.with_choices_of(choices)?.bytes());
            wanted.extend(payload);
            return Ok(());
        };
        let mut text = Vec::with_capacity(payload.len() + 8);
        push_text(&mut text, &payload, esp.next_header(scenario.outer));
        let len = esp::LEN + text.len() + esp::ICV;
        let outer = self.outer(scenario, &ends, esp.protocol(), esp.udp_len() + len)?;
        wanted.extend(outer.with_choices_of(choices)?.bytes());
        if esp.is_udp {
            let mut header = udp_header(udp::IKE_NAT, esp.port(spoke), len)?.as_bytes().to_vec();
            // Over IPv6 it was right before the packet was opened ([`esp_at`]).
            if scenario.outer == Family::Ipv6 {
                header[6..].copy_from_slice(choices.get(46..48).context("no UDP header")?);
            }
            wanted.extend(header);
        }
        wanted.extend(header.as_bytes());
        wanted.extend(text);
        Ok(())
    }

    /// What is behind the outer header, or encrypted: GRE and the inner packet, in tunnel mode an IP header in front, of IPv6 with the outer
    /// one's flow label.
    fn payload(&self, scenario: &Scenario, ends: &Ends, ttl: u8, label: u32) -> anyhow::Result<Vec<u8>> {
        let mut gre = Vec::with_capacity(2048);
        gre.extend(gre::Keyed::new(protocol_type(scenario.inner), KEY).as_bytes());
        self.inner(scenario, ttl, &mut gre)?;
        if scenario.esp.is_none_or(|esp| esp.mode != SaMode::Tunnel) {
            return Ok(gre);
        }
        let header = Ip::new(ends.from, ends.to, ipv4::GRE, ends.ttl, gre.len())?;
        // No router sees it.
        let header = match header {
            Ip::V4(ip) => Ip::V4(ip.with_flags(ipv4::DONT_FRAGMENT)),
            Ip::V6(ip) => Ip::V6(ip.with_flow_label(label)),
        };
        Ok([header.bytes(), &gre].concat())
    }

    /// The outer header in front of so many bytes. The don't-fragment bit is the inner one's: 0; for inner IPv6 it is set on what is larger
    /// than any link has to take.
    fn outer(&self, scenario: &Scenario, ends: &Ends, protocol: u8, len: usize) -> anyhow::Result<Ip> {
        let made = Ip::new(ends.from, ends.to, protocol, ends.ttl, len)?;
        let is_large = self.size - ethernet::LEN > ipv6::MIN_MTU;
        Ok(match made {
            Ip::V4(ip) if scenario.inner == Family::Ipv6 && is_large => {
                Ip::V4(ip.with_flags(ipv4::DONT_FRAGMENT))
            }
            made => made,
        })
    }
}

/// Where an outer packet comes from and goes to.
struct Ends {
    from: IpAddr,
    to: IpAddr,
    ttl: u8,
}

fn udp_header(from: u16, to: u16, payload: usize) -> anyhow::Result<udp::Header> {
    udp::Header::new(from, to, payload).context("packet too long")
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

pub(crate) fn ip_len(family: Family) -> usize {
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

/// Where in a frame that leaves, or arrives, in the tunnel its outer header ends, and ESP begins if the tunnel is protected.
fn tunnel_at(scenario: &Scenario) -> usize {
    ethernet::LEN + ip_len(scenario.outer) + scenario.esp.map_or(0, |esp| esp.udp_len())
}

/// The ESP packet in a frame that left.
///
/// # Errors
/// There is none, or the checksum of the datagram that it is in is wrong. Over IPv4 there may be none; whether it is 0 is for
/// [`Way::check_departure`].
pub(crate) fn esp_of<'a>(scenario: &Scenario, frame: &'a mut [u8]) -> anyhow::Result<&'a mut [u8]> {
    if scenario.esp.is_some_and(|esp| esp.is_udp) && scenario.outer == Family::Ipv6 {
        let (ip, datagram) = ipv6::parse(frame.get(ethernet::LEN..).context("no IP header")?)?;
        let (header, payload) = udp::parse(datagram)?;
        let mut right = *header;
        right.fill_checksum_v6(ip, payload);
        ensure!(right == *header, "a datagram with checksum {:#x}", header.checksum());
    }
    frame.get_mut(tunnel_at(scenario)..).context("no ESP packet")
}

/// Number of the packet in a frame that left, wherever in the frame its payload is.
pub(crate) fn index_of(scenario: &Scenario, frame: &[u8]) -> Option<u32> {
    let inner = if scenario.kind.leaves_in_tunnel() {
        let esp = scenario.esp.map_or(0, |esp| esp::LEN + esp.inner_len(scenario.outer));
        tunnel_at(scenario) + esp + gre::len(Some(KEY))
    } else {
        ethernet::LEN
    };
    let at = inner + ip_len(scenario.inner) + udp::LEN;
    frame.get(at..)?.first_chunk().map(|index| u32::from_be_bytes(*index))
}

/// Smallest frame with a packet of the family: headers and numbers.
pub(crate) fn least_size(family: Family) -> usize {
    (ethernet::LEN + ip_len(family) + udp::LEN + NUMBERS).max(64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::destinations::Destinations;
    use crate::scenario::{Kind, PORTS};
    use crate::size::Size;

    fn way(family: Family) -> Way {
        let to = match family {
            Family::Ipv4 => "20.0.12.9".parse().unwrap(),
            Family::Ipv6 => "2a00:0:c::9".parse().unwrap(),
        };
        Way { index: 7, pass: 3, size: least_size(family), from: 5, to, route: 12 }
    }

    fn scenario(kind: Kind, inner: Family, outer: Family) -> Scenario {
        let destinations = Arc::new(Destinations::new(inner, 20, false));
        let size = Size::Bytes(least_size(inner));
        let macs = PORTS.map(|(_, mac)| mac);
        Scenario { kind, inner, outer, spokes: 10, destinations, size, esp: None, macs, mtu: 9000 }
    }

    #[test]
    fn frames_have_the_sizes_of_the_scenarios() {
        use Family::{Ipv4, Ipv6};
        let len = |kind, inner, outer| {
            let mut out = Vec::new();
            way(inner).arrival(&scenario(kind, inner, outer), None, &mut out).unwrap();
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
            way.check_departure(&scenario, 1, None, &frame).unwrap();
            assert_eq!(index_of(&scenario, &frame), Some(7));
            assert!(way.check_departure(&scenario, 0, None, &frame).is_err());
            for at in 0..frame.len() {
                frame[at] ^= 1;
                assert!(way.check_departure(&scenario, 1, None, &frame).is_err(), "byte {at}");
                frame[at] ^= 1;
            }
            assert!(way.check_departure(&scenario, 1, None, &frame[..frame.len() - 1]).is_err());
        }
    }
}
