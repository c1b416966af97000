//! The spokes of a protected tunnel, as one worker meets them: the other end of each SA. Another provider than the graph's seals what arrives and
//! opens what left, so that two implementations have to agree on every byte.

use anyhow::{Context as _, bail, ensure};
use model::sa::Direction;
use wire::{IntoBytes, esp};

use crate::esp::{Child, Esp};
use crate::scenario::{Family, Scenario};

/// See the module.
pub(crate) struct Peers {
    esp: Esp,
    outer: Family,
    worker: u16,
    /// Whether packets may be missing between those that are opened.
    loses: bool,
    /// By spoke: what seals what arrives, and what opens what left. Empty if nothing does.
    sealing: Vec<Option<End>>,
    opening: Vec<Option<End>>,
}

/// The far end of an SA.
#[derive(Debug)]
pub(crate) struct End {
    key: aead::Key,
    salt: [u8; 4],
    spi: u32,
    /// The next sequence number.
    next: u64,
}

/// Who does the work of the spokes while this one does the graph's.
pub(crate) fn other(provider: aead::Provider) -> aead::Provider {
    if provider == aead::Provider::Ring { aead::Provider::AesGcm } else { aead::Provider::Ring }
}

impl End {
    fn new(esp: &Esp, direction: Direction, worker: u16, spoke: u32) -> anyhow::Result<Self> {
        let key = esp.key(direction, worker, spoke)?;
        Ok(Self {
            key: aead::Key::new(other(esp.provider), key.key())?,
            salt: key.salt(),
            spi: esp.spi(direction, worker, spoke)?.value(),
            next: 1,
        })
    }

    /// That of a child SA which is renewed.
    pub(crate) fn of_child(esp: &Esp, direction: Direction, child: Child) -> anyhow::Result<Self> {
        let key = esp.child_key(direction, child)?;
        let spi = esp.child_spi(direction, child)?.value();
        Ok(Self { key: aead::Key::new(other(esp.provider), key.key())?, salt: key.salt(), spi, next: 1 })
    }

    /// A packet with this IV and the next sequence number.
    fn packet<'a>(&'a self, esn: bool, iv: u64, text: &'a mut [u8]) -> aead::Packet<'a> {
        aead::Packet { key: &self.key, salt: self.salt, iv, sequence: self.next, spi: self.spi, esn, text }
    }
}

impl Peers {
    /// The spokes as a worker meets them; `None` if the tunnel is not protected.
    pub(crate) fn new(scenario: &Scenario, worker: u16) -> anyhow::Result<Option<Self>> {
        let Some(esp) = scenario.esp else { return Ok(None) };
        let ends = |direction, used: bool| {
            let spokes = 0..if used { scenario.spokes } else { 0 };
            spokes
                .map(|spoke| End::new(&esp, direction, worker, spoke).map(Some))
                .collect::<anyhow::Result<Vec<_>>>()
        };
        let (arrives, leaves) = (scenario.kind.arrives_in_tunnel(), scenario.kind.leaves_in_tunnel());
        let (sealing, opening) = (ends(Direction::Inbound, arrives)?, ends(Direction::Outbound, leaves)?);
        Ok(Some(Self { esp, outer: scenario.outer, worker, loses: false, sealing, opening }))
    }

    /// From now on packets may get lost on their way.
    pub(crate) fn allow_loss(&mut self) {
        self.loses = true;
    }

    /// The spokes without any SA: those are installed.
    pub(crate) fn none(scenario: &Scenario) -> Option<Self> {
        let (sealing, opening) = (Vec::new(), Vec::new());
        scenario.esp.map(|esp| Self { esp, outer: scenario.outer, worker: 0, loses: false, sealing, opening })
    }

    /// Installs the far end of an SA with this number: of a spoke by which it seals from now on, or of the slot of an SPI by which what we send
    /// may come.
    pub(crate) fn install(&mut self, direction: Direction, number: u32, end: End) {
        let ends = match direction {
            Direction::Inbound => &mut self.sealing,
            Direction::Outbound => &mut self.opening,
        };
        let number = number as usize;
        if ends.len() <= number {
            ends.resize_with(number + 1, || None);
        }
        ends[number] = Some(end);
    }

    /// Has a spoke seal a payload, which is GRE or in tunnel mode the IP packet around it: the ESP packet, with the next sequence number
    /// of its SA.
    pub(crate) fn seal(&mut self, spoke: u32, payload: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        let end = self.sealing.get_mut(spoke as usize).and_then(Option::as_mut);
        let end = end.context("a spoke that there is none of")?;
        // A counter of its own: nobody may take the one for the other.
        let iv = end.next ^ 0x5a00_0000_0000_0000;
        out.extend(esp::Header::new(end.spi, end.next, iv).as_bytes());
        let start = out.len();
        push_text(out, payload, self.esp.next_header(self.outer));
        out.extend([0; esp::ICV]);
        aead::seal_one(end.packet(self.esp.esn, iv, &mut out[start..]));
        end.next += 1;
        Ok(())
    }

    /// Opens an ESP packet at the spoke whose SPI it has, in place. The sequence number, which is that behind the one of the packet before it
    /// on its SA (where packets may get lost, behind it), and is the IV too: so no IV comes twice.
    ///
    /// # Errors
    /// It is not authentic, or has another number.
    pub(crate) fn open(&mut self, packet: &mut [u8]) -> anyhow::Result<u64> {
        self.open_any(packet).map(|(_, header)| header.iv())
    }

    /// The same; the number of the SA's slot, and the header.
    ///
    /// # Errors
    /// As of [`Self::open`].
    pub(crate) fn open_any(&mut self, packet: &mut [u8]) -> anyhow::Result<(u32, esp::Header)> {
        let (header, text) = esp::parse_mut(packet)?;
        let header = *header;
        let spoke = Esp::spoke(header.spi());
        let end = self.opening.get_mut(spoke as usize).and_then(Option::as_mut);
        let end = end.filter(|end| end.spi == header.spi());
        let Some(end) = end else { bail!("SPI {:#x} is no spoke's", header.spi()) };
        // No run is so long that its numbers have more than 32 bits.
        let sequence = if self.loses { end.next.max(header.sequence().into()) } else { end.next };
        ensure!(
            header == esp::Header::new(end.spi, sequence, sequence),
            "spoke {spoke} has a packet with sequence number {} and IV {}, {sequence} wanted",
            header.sequence(),
            header.iv()
        );
        end.next = sequence;
        ensure!(
            aead::open_one(end.packet(self.esp.esn, sequence, text)),
            "a packet for spoke {spoke} is not authentic"
        );
        end.next = sequence + 1;
        Ok((spoke, header))
    }

    /// How an opened packet to a spoke begins, with this sequence number.
    pub(crate) fn header(&self, spoke: u32, sequence: u64) -> anyhow::Result<esp::Header> {
        let spi = self.esp.spi(Direction::Outbound, self.worker, spoke)?;
        Ok(esp::Header::new(spi.value(), sequence, sequence))
    }
}

/// What is encrypted: the payload, padding that counts from 1 and aligns it to 4 bytes, its length, and what the payload is (RFC 4303 §2.4
/// to §2.6).
pub(crate) fn push_text(out: &mut Vec<u8>, payload: &[u8], next_header: u8) {
    out.extend(payload);
    let pad = (payload.len() + 2).next_multiple_of(4) - payload.len() - 2;
    out.extend((1..=pad).map(|byte| byte as u8));
    out.extend([pad as u8, next_header]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aead::Provider;
    use model::sa::{SaMode, Suite};

    use super::*;
    use crate::destinations::Destinations;
    use crate::scenario::{Kind, PORTS};
    use crate::size::Size;

    fn peers(provider: Provider) -> Peers {
        let (suite, mode) = (Suite::AesGcm128, SaMode::Transport);
        let esp = Esp { suite, mode, is_udp: false, esn: true, window: 1024, provider };
        let destinations = Arc::new(Destinations::new(Family::Ipv4, 20, false));
        let (kind, size) = (Kind::Relay, Size::Bytes(64));
        let (inner, outer) = (Family::Ipv4, Family::Ipv4);
        let (esp, macs) = (Some(esp), PORTS.map(|(_, mac)| mac));
        let scenario = Scenario { kind, inner, outer, spokes: 10, destinations, size, esp, macs, mtu: 9000 };
        Peers::new(&scenario, 0).unwrap().unwrap()
    }

    /// What the graph would send to a spoke: sealed by its provider with the outbound key.
    fn sent(peers: &Peers, provider: Provider, spoke: u32, sequence: u64, iv: u64) -> Vec<u8> {
        let key = peers.esp.key(Direction::Outbound, 0, spoke).unwrap();
        let spi = peers.esp.spi(Direction::Outbound, 0, spoke).unwrap().value();
        let mut packet = esp::Header::new(spi, sequence, iv).as_bytes().to_vec();
        push_text(&mut packet, b"gre", 47);
        packet.extend([0; esp::ICV]);
        let (salt, key) = (key.salt(), aead::Key::new(provider, key.key()).unwrap());
        let text = &mut packet[esp::LEN..];
        aead::seal_one(aead::Packet { key: &key, salt, iv, sequence, spi, esn: true, text });
        packet
    }

    #[test]
    fn a_spoke_opens_what_is_sealed_for_it_once_and_in_order() {
        for provider in [Provider::Ring, Provider::AesGcm] {
            let mut peers = peers(provider);
            let first = sent(&peers, provider, 3, 1, 1);
            let mut opened = first.clone();
            assert_eq!(peers.open(&mut opened).unwrap(), 1);
            assert_eq!(opened[esp::LEN..opened.len() - esp::ICV], *b"gre\x01\x02\x03\x03\x2f");
            assert!(peers.open(&mut first.clone()).is_err(), "the same again");
            for (sequence, iv) in [(3, 3), (2, 1), (2, 3)] {
                assert!(peers.open(&mut sent(&peers, provider, 3, sequence, iv)).is_err(), "{sequence} {iv}");
            }
            let second = sent(&peers, provider, 3, 2, 2);
            for at in 0..second.len() {
                let mut changed = second.clone();
                changed[at] ^= 1;
                assert!(peers.open(&mut changed).is_err(), "byte {at}");
            }
            assert_eq!(peers.open(&mut second.clone()).unwrap(), 2);
            assert_eq!(peers.open(&mut sent(&peers, provider, 4, 1, 1)).unwrap(), 1);
        }
    }

    /// Input: the first, the third and the second packet of a spoke, of which some may get lost. Output: what is behind a gap is opened, with
    /// its own number; what is before it is not.
    #[test]
    fn where_packets_may_be_lost_a_spoke_opens_what_is_behind_a_gap() {
        let mut peers = peers(Provider::Ring);
        peers.allow_loss();
        for (sequence, opens) in [(1, true), (3, true), (2, false), (3, false), (4, true)] {
            let opened = peers.open(&mut sent(&peers, Provider::Ring, 3, sequence, sequence));
            assert_eq!(opened.ok(), opens.then_some(sequence));
        }
    }

    #[test]
    fn what_a_spoke_seals_has_rising_numbers_and_the_inbound_key() {
        let mut peers = peers(Provider::Ring);
        for sequence in 1..4 {
            let mut packet = Vec::new();
            peers.seal(7, b"payload", &mut packet).unwrap();
            let (header, text) = esp::parse_mut(&mut packet).unwrap();
            let spi = peers.esp.spi(Direction::Inbound, 0, 7).unwrap().value();
            assert_eq!((header.spi(), header.sequence()), (spi, sequence));
            let key = peers.esp.key(Direction::Inbound, 0, 7).unwrap();
            let (salt, key) = (key.salt(), aead::Key::new(Provider::Ring, key.key()).unwrap());
            let (iv, sequence) = (header.iv(), sequence.into());
            assert!(aead::open_one(aead::Packet { key: &key, salt, iv, sequence, spi, esn: true, text }));
            assert_eq!(text[..9], *b"payload\x01\x02");
        }
        assert!(peers.seal(10, b"payload", &mut Vec::new()).is_err());
    }
}
