//! Which worker a packet is for, where a port has fewer receive queues than there are workers.
//!
//! | packet | by |
//! | --- | --- |
//! | ESP, also in UDP (port 4500) | the worker that its SPI names ([`model::sa::Spi`]): it has the SA, so nothing is handed off |
//! | GRE | addresses of what is in it: one peer's flows spread over all workers |
//! | TCP | addresses and ports |
//! | other IP, any fragment | addresses |
//! | all else (ARP) | the first worker |
//!
//! Packets of one flow come to one worker, and so leave in the order in which they came. UDP is spread without its ports, as cards do it
//! unless told otherwise: a flow whose larger packets come in fragments would be two flows. Either direction of a flow may have another
//! worker: nothing is kept of flows.

use model::sa::Spi;
use wire::{esp, ethernet, gre, ipv4, ipv6, udp};

use crate::tables::spread;

/// The number of the worker, of so many, that a frame is for.
#[must_use]
pub fn worker_for(frame: &[u8], workers: usize) -> usize {
    if workers < 2 {
        return 0;
    }
    match flow_of(frame) {
        Flow::Sa(spi) => (spi >> 18) as usize & (Spi::WORKERS - 1),
        // The upper half: in a product the lower bits are mixed least.
        Flow::Hash(hash) => spread(hash),
        Flow::None => 0,
    }
    .rem_euclid(workers)
}

/// What tells a packet's flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Sa(u32),
    Hash(u64),
    None,
}

fn flow_of(frame: &[u8]) -> Flow {
    let Some((link, mut rest)) = frame.split_first_chunk::<{ ethernet::LEN }>() else { return Flow::None };
    let mut ethertype = u16::from_be_bytes([link[12], link[13]]);
    if ethertype == ethernet::VLAN
        && let Some(([_, _, high, low], behind)) = rest.split_first_chunk()
    {
        (ethertype, rest) = (u16::from_be_bytes([*high, *low]), behind);
    }
    match ethertype {
        ethernet::IPV4 => v4(rest),
        ethernet::IPV6 => v6(rest),
        _ => Flow::None,
    }
}

fn v4(packet: &[u8]) -> Flow {
    let Some(header) = packet.first_chunk::<{ ipv4::LEN }>() else { return Flow::None };
    let part = u16::from_be_bytes([header[6], header[7]]) & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET_MASK);
    let addresses = addresses_v4(header);
    if part != 0 {
        return Flow::Hash(addresses);
    }
    let payload = packet.get(usize::from(header[0] & 15) * 4..).unwrap_or_default();
    upper(header[9], payload, addresses)
}

/// A packet with extension headers is spread by its addresses.
fn v6(packet: &[u8]) -> Flow {
    let Some((header, payload)) = packet.split_first_chunk::<{ ipv6::LEN }>() else { return Flow::None };
    upper(header[6], payload, addresses_v6(header))
}

fn upper(protocol: u8, payload: &[u8], addresses: u64) -> Flow {
    let spi = |at: usize| payload.get(at..)?.first_chunk().map(|spi| u32::from_be_bytes(*spi));
    let found = match protocol {
        ipv4::ESP => spi(0).map(Flow::Sa),
        ipv4::UDP if payload.get(2..4) == Some(&udp::IKE_NAT.to_be_bytes()) => {
            // IKE begins with zeros, a keepalive is one byte (RFC 3948 §2.2, §2.3).
            spi(udp::LEN).filter(|spi| spi.to_be_bytes() != esp::NON_ESP_MARKER).map(Flow::Sa)
        }
        ipv4::GRE => inner(payload).map(Flow::Hash),
        ipv4::TCP => payload.first_chunk().map(|ports| {
            let ports = u64::from(u32::from_be_bytes(*ports));
            Flow::Hash(addresses ^ ports.rotate_left(47))
        }),
        _ => None,
    };
    found.unwrap_or(Flow::Hash(addresses))
}

/// The addresses of what is in GRE; `None`: it is not IP, or not all of it is there.
fn inner(payload: &[u8]) -> Option<u64> {
    let (fields, packet) = gre::parse(payload).ok()?;
    match fields.protocol {
        gre::IPV4 => packet.first_chunk().map(addresses_v4),
        gre::IPV6 => packet.first_chunk().map(addresses_v6),
        _ => None,
    }
}

fn addresses_v4(header: &[u8; ipv4::LEN]) -> u64 {
    let (_, addresses) = header.split_at(12);
    addresses.first_chunk().map_or(0, |addresses| u64::from_be_bytes(*addresses))
}

fn addresses_v6(header: &[u8; ipv6::LEN]) -> u64 {
    let words = header[8..].chunks_exact(8).filter_map(|word| word.first_chunk());
    // Rotated: the same network at both ends must not cancel itself.
    words.fold(0, |hash, word| (hash ^ u64::from_be_bytes(*word)).rotate_left(13))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;

    fn frame(packet: &[u8]) -> Vec<u8> {
        [ethernet::Header::new([2; 6], [4; 6], ethernet::IPV4).as_bytes(), packet].concat()
    }

    fn packet(from: u32, to: u32, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = ipv4::Header::new(from.into(), to.into(), protocol, 64, payload.len()).unwrap();
        [header.as_bytes(), payload].concat()
    }

    /// GRE with a key around an inner packet, whatever is in that.
    fn tunnelled(from: u32, to: u32) -> Vec<u8> {
        let keyed = gre::Keyed::new(gre::IPV4, 7);
        frame(&packet(9, 10, ipv4::GRE, &[keyed.as_bytes(), &packet(from, to, ipv4::UDP, &[0; 8])].concat()))
    }

    #[test]
    fn esp_comes_to_the_worker_that_its_spi_names_in_udp_too() {
        for (worker, workers, wanted) in [(0, 2, 0), (1, 2, 1), (5, 3, 2), (63, 64, 63), (7, 1, 0)] {
            let spi = Spi::of(worker, 77, 200).unwrap().value();
            let esp = [&spi.to_be_bytes()[..], &[0; 28]].concat();
            let in_udp = [&[0x23, 0x28, 0x11, 0x94, 0, 40, 0, 0][..], &esp].concat();
            for (protocol, payload) in [(ipv4::ESP, &esp), (ipv4::UDP, &in_udp)] {
                assert_eq!(worker_for(&frame(&packet(1, 2, protocol, payload)), workers), wanted);
            }
        }
    }

    #[test]
    fn ike_beside_esp_in_udp_goes_by_its_addresses() {
        let ike = [&[0x11, 0x94, 0x11, 0x94, 0, 40, 0, 0, 0, 0, 0, 0][..], &[9; 28]].concat();
        let keepalive = [0x11, 0x94, 0x11, 0x94, 0, 9, 0, 0, 0xff];
        let by_addresses = flow_of(&frame(&packet(1, 2, ipv4::UDP, &[0; 8])));
        assert!(matches!(by_addresses, Flow::Hash(_)));
        for payload in [&ike[..], &keepalive] {
            assert_eq!(flow_of(&frame(&packet(1, 2, ipv4::UDP, payload))), by_addresses);
        }
    }

    #[test]
    fn what_a_peer_tunnels_is_spread_over_all_workers_and_each_flow_to_one() {
        for workers in [2, 3, 16] {
            let mut counts = vec![0; workers];
            for flow in 0..4000 {
                let frame = tunnelled(0x0a00_0000 + flow % 50, 0x1400_0000 + (flow << 8));
                counts[worker_for(&frame, workers)] += 1;
                assert_eq!(worker_for(&frame, workers), worker_for(&frame.clone(), workers));
            }
            let fair = 4000 / workers;
            assert!(counts.iter().all(|count| (fair / 2..fair * 2).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn fragments_of_a_packet_stay_together() {
        let mut whole = packet(0x0a00_0001, 0x1400_0001, ipv4::TCP, &[5; 32]);
        whole[6] = 0x20;
        let mut rest = packet(0x0a00_0001, 0x1400_0001, ipv4::TCP, &[6; 32]);
        rest[7] = 4;
        assert_eq!(flow_of(&frame(&whole)), flow_of(&frame(&rest)));
    }

    #[test]
    fn a_tag_changes_nothing_and_arp_is_the_first_workers() {
        let plain = frame(&packet(1, 2, ipv4::TCP, &[1; 20]));
        let tagged = [&plain[..12], &[0x81, 0, 0, 5], &plain[12..]].concat();
        assert_eq!(flow_of(&plain), flow_of(&tagged));
        let arp = ethernet::Header::new([0xff; 6], [4; 6], ethernet::ARP);
        assert_eq!(worker_for(&[arp.as_bytes(), &[0; 28]].concat(), 5), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Input: any bytes, and any behind a header that says what they are. Output: one of the workers.
        #[test]
        fn any_frame_is_for_a_worker_that_there_is(
            bytes in prop::collection::vec(any::<u8>(), 0..120),
            kind in prop::sample::select(vec![ethernet::IPV4, ethernet::IPV6, ethernet::VLAN, ethernet::ARP]),
            protocol in prop::sample::select(vec![ipv4::ESP, ipv4::GRE, ipv4::UDP, ipv4::TCP]),
            workers in 1_usize..70,
        ) {
            prop_assert!(worker_for(&bytes, workers) < workers);
            let mut frame = [ethernet::Header::new([2; 6], [4; 6], kind).as_bytes(), &bytes].concat();
            if let Some(place) = frame.get_mut(23) {
                *place = protocol;
            }
            prop_assert!(worker_for(&frame, workers) < workers);
        }
    }
}
