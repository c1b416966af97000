//! Everything that passes on the underlay, by kind, and whether any of it shows what is the overlay's: an address of a tunnel or of a
//! LAN, or what the hosts say. And of each SA, whether it ever used an IV twice.
//!
//! Four bytes of an address come by chance in a few gigabytes of encrypted text, so in that only a pair of addresses counts, as a packet has
//! them one behind the other, and the planted words; in all else a single address does.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};

use crate::capture::{Frame, Tap};
use crate::cloud::{BRIDGE, Cloud};
use crate::esp;
use crate::traffic::PLANTED;

/// What a frame is, as the outermost headers have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// IP protocol 50.
    Esp,
    /// ESP in UDP, port 4500.
    EspInUdp,
    /// UDP 500, and what is not ESP on 4500.
    Ike,
    /// ARP.
    Arp,
    /// ICMP, ICMPv6 and with it neighbour discovery.
    Icmp,
    /// IP protocol 47: in the clear.
    Gre,
    /// Anything else.
    Other,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Esp => "ESP (protocol 50)",
            Self::EspInUdp => "ESP in UDP 4500",
            Self::Ike => "UDP 500 and 4500",
            Self::Arp => "ARP",
            Self::Icmp => "ICMP and ND",
            Self::Gre => "GRE (protocol 47)",
            Self::Other => "others",
        })
    }
}

/// Of a frame: its kind, and where encrypted text begins in it, if it has any.
fn kind(frame: &[u8]) -> (Kind, Option<usize>) {
    let Some(ethertype) = frame.get(12..14) else { return (Kind::Other, None) };
    let (mut at, mut protocol) = match ethertype {
        [8, 6] => return (Kind::Arp, None),
        [8, 0] if frame.len() >= 34 => (14 + usize::from(frame[14] & 15) * 4, frame[23]),
        [0x86, 0xdd] if frame.len() >= 54 => (54, frame[20]),
        _ => return (Kind::Other, None),
    };
    let mut is_first = ethertype == [0x86, 0xdd] || [frame[20] & 0x1f, frame[21]] == [0, 0];
    // Hop-by-hop options and the fragment header of IPv6 (RFC 8200 §4.3, §4.5).
    while ethertype == [0x86, 0xdd] && matches!(protocol, 0 | 44) {
        let Some(header) = frame.get(at..at + 8) else { return (Kind::Other, None) };
        is_first &= protocol == 0 || [header[2], header[3] & 0xf8] == [0, 0];
        at += if protocol == 0 { 8 + usize::from(header[1]) * 8 } else { 8 };
        protocol = header[0];
    }
    match protocol {
        esp::ESP => (Kind::Esp, Some(if is_first { at + 16 } else { at })),
        esp::GRE => (Kind::Gre, None),
        1 if ethertype == [8, 0] => (Kind::Icmp, None),
        58 if ethertype == [0x86, 0xdd] => (Kind::Icmp, None),
        // Later fragments of a datagram do not say what it is.
        17 if !is_first => (Kind::EspInUdp, Some(at)),
        17 => match frame.get(at..).and_then(esp::udp_ports) {
            Some((500, _) | (_, 500)) => (Kind::Ike, None),
            Some((source, destination)) if [source, destination].contains(&esp::NAT_PORT) => {
                match frame.get(at + 8..at + 12) {
                    Some(spi) if spi != [0; 4] => (Kind::EspInUdp, Some(at + 24)),
                    _ => (Kind::Ike, None),
                }
            }
            _ => (Kind::Other, None),
        },
        _ => (Kind::Other, None),
    }
}

/// What no frame may show.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// Single addresses, as bytes.
    addresses: Vec<Vec<u8>>,
    /// Pairs of them, and words.
    longer: Vec<Vec<u8>>,
}

impl Secrets {
    /// These addresses, all their pairs, and these words.
    #[must_use]
    pub fn new(addresses: &[IpAddr], words: &[&[u8]]) -> Self {
        let bytes = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let addresses: Vec<_> = addresses.iter().map(bytes).collect();
        let pairs = addresses.iter().flat_map(|a| addresses.iter().map(move |b| (a, b)));
        let pairs = pairs.filter(|(a, b)| a.len() == b.len()).map(|(a, b)| [&a[..], &b[..]].concat());
        let longer = pairs.chain(words.iter().map(|word| word.to_vec())).collect();
        Self { addresses, longer }
    }

    /// Tunnel addresses of a cloud's nodes, addresses of their LANs' routers and hosts, and what the hosts' flows say.
    #[must_use]
    pub fn of(cloud: &Cloud) -> Self {
        let mut addresses = Vec::<IpAddr>::new();
        for node in &cloud.nodes {
            addresses.extend([node.tunnel, node.host.address(), node.host.router()].map(IpAddr::from));
            if node.is_dual_stack() {
                addresses.extend([node.tunnel6, node.host.address6(), node.host.router6()].map(IpAddr::from));
            }
        }
        Self::new(&addresses, &[PLANTED])
    }

    /// The first one that stands in a frame.
    fn shown(&self, frame: &[u8], encrypted_from: Option<usize>) -> Option<&[u8]> {
        let open = &frame[..encrypted_from.unwrap_or(frame.len()).min(frame.len())];
        let single = self.addresses.iter().find(|secret| holds(open, secret));
        single.or_else(|| self.longer.iter().find(|secret| holds(frame, secret))).map(Vec::as_slice)
    }
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some((&first, rest)) = wanted.split_first() else { return false };
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|&byte| byte == first) {
        at += found + 1;
        if bytes[at..].starts_with(rest) {
            return true;
        }
    }
    false
}

/// What one SA has sent.
#[derive(Debug, Clone, Default)]
struct Used {
    ivs: HashSet<u64>,
    highest: Option<u32>,
}

/// Everything that passed.
#[derive(Debug, Clone, Default)]
pub struct Census {
    secrets: Secrets,
    kinds: BTreeMap<Kind, u64>,
    /// Frames that show a secret, and the first few of them in words.
    shown: u64,
    examples: Vec<String>,
    /// By SPI and receiver.
    sas: BTreeMap<(IpAddr, u32), Used>,
    repeated: Vec<String>,
    backwards: Vec<String>,
}

/// Examples that are kept of a fault.
const EXAMPLES: usize = 5;
/// A packet that waits for a neighbour after it was sealed may be overtaken. By so many it never is: the smallest replay window would
/// not take it (RFC 4303 §3.4.3), and it is of another life of its sender.
const WINDOW: u32 = 64;

impl Census {
    /// An empty one.
    #[must_use]
    pub fn new(secrets: Secrets) -> Self {
        Self { secrets, ..Self::default() }
    }

    /// Of these frames.
    #[must_use]
    pub fn of(secrets: Secrets, frames: &[Frame]) -> Self {
        let mut census = Self::new(secrets);
        frames.iter().for_each(|frame| census.take(frame));
        census
    }

    /// Takes one more in.
    pub fn take(&mut self, frame: &Frame) {
        let (kind, encrypted_from) = kind(&frame.bytes);
        *self.kinds.entry(kind).or_default() += 1;
        if let Some(secret) = self.secrets.shown(&frame.bytes, encrypted_from) {
            self.shown += 1;
            if self.examples.len() < EXAMPLES {
                self.examples.push(format!("{kind} with {secret:02x?}: {:02x?}", frame.bytes));
            }
        }
        if let Some(esp) = esp::packet(frame) {
            self.take_esp(&esp);
        }
    }

    fn take_esp(&mut self, esp: &esp::Esp<'_>) {
        let used = self.sas.entry((esp.destination, esp.spi)).or_default();
        let seen =
            || format!("0x{:08x} to {}: {} after {:?}", esp.spi, esp.destination, esp.sequence, used.highest);
        let is_repeated = used.ivs.contains(&esp.iv);
        let is_late = used.highest.is_some_and(|highest| highest.saturating_sub(esp.sequence) >= WINDOW);
        for (is_so, list) in [(is_repeated, &mut self.repeated), (is_late, &mut self.backwards)] {
            if is_so && list.len() < EXAMPLES {
                list.push(seen());
            }
        }
        used.ivs.insert(esp.iv);
        used.highest = used.highest.max(Some(esp.sequence));
    }

    /// Frames of a kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).copied().unwrap_or(0)
    }

    /// ESP, in UDP or not.
    #[must_use]
    pub fn esp(&self) -> u64 {
        self.count(Kind::Esp) + self.count(Kind::EspInUdp)
    }

    /// Frames that show a secret.
    #[must_use]
    pub fn shown(&self) -> u64 {
        self.shown
    }

    /// SAs that sealed something.
    #[must_use]
    pub fn sas(&self) -> usize {
        self.sas.len()
    }

    /// Whether no SA used an IV twice, and all sequence numbers went up, but for what was overtaken.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.repeated.is_empty() && self.backwards.is_empty()
    }

    /// Whether nothing was there but ESP, IKE, ARP and ICMP, and ESP was, and nothing shows a secret.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.count(Kind::Gre) == 0 && self.count(Kind::Other) == 0 && self.esp() > 0 && self.shown == 0
    }

    /// Fails unless all is sealed and fresh.
    ///
    /// # Errors
    /// It is not: what there was, with examples.
    pub fn check(&self) -> Result<()> {
        ensure!(self.is_sealed(), "not everything is sealed: {self}\n{}", self.examples.join("\n"));
        ensure!(self.repeated.is_empty(), "an IV was used twice: {}", self.repeated.join("; "));
        ensure!(self.backwards.is_empty(), "sequence numbers went back: {}", self.backwards.join("; "));
        Ok(())
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.kinds.iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
        write!(f, "{}", kinds.join(", "))
    }
}

/// A census that goes on until it is finished.
#[derive(Debug)]
pub struct Lookout {
    census: Arc<Mutex<Census>>,
    tap: Tap,
}

impl Lookout {
    /// Begins with what enters the underlay of a cloud from now on.
    ///
    /// # Errors
    /// No packet socket.
    pub fn start(cloud: &Cloud) -> Result<Self> {
        let census = Arc::new(Mutex::new(Census::new(Secrets::of(cloud))));
        let taken = census.clone();
        let tap = Tap::start(&cloud.internet, BRIDGE, move |frame| {
            taken.lock().map_err(|_| anyhow::anyhow!("census lost"))?.take(&frame);
            Ok(())
        })?;
        Ok(Self { census, tap })
    }

    /// What has passed so far.
    ///
    /// # Errors
    /// It has broken down.
    pub fn so_far(&self) -> Result<Census> {
        let census = self.census.lock().map_err(|_| anyhow::anyhow!("census lost"))?;
        Ok(census.clone())
    }

    /// Ends it after all that is on its way.
    ///
    /// # Errors
    /// There was more than it could look at.
    pub fn finish(self) -> Result<Census> {
        let Self { census, tap } = self;
        let missed = tap.finish()?;
        // Who says that nothing else passed has to have seen everything.
        ensure!(missed == 0, "{missed} frames of the underlay were not looked at");
        let census = census.lock().map_err(|_| anyhow::anyhow!("census lost"))?;
        Ok(census.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::esp::Sa;
    use crate::{frame, trail};

    const ENDS: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(203, 0, 113, 11), Ipv4Addr::new(203, 0, 113, 1));
    const INSIDE: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(192, 168, 11, 10), Ipv4Addr::new(192, 168, 1, 10));

    fn framed(packet: &[u8]) -> Frame {
        let bytes = frame::ethernet([2; 6], [4; 6], 0x0800, packet);
        Frame { at: Duration::ZERO, length: bytes.len(), bytes }
    }

    fn census(frames: &[Frame]) -> Census {
        Census::of(Secrets::new(&[INSIDE.0.into(), INSIDE.1.into()], &[b"planted words"]), frames)
    }

    fn gre() -> Vec<u8> {
        let inner = frame::ipv4(INSIDE, 17, 64, &frame::udp(9, 9, b"planted words"));
        frame::gre(Some(42), 0x0800, &inner)
    }

    fn sealed(sequence: u32) -> Vec<u8> {
        Sa::new(0x0100_0001, &[7; 20], true).unwrap().seal(sequence, esp::GRE, &gre()).unwrap()
    }

    #[test]
    fn esp_is_sealed_and_nothing_else_shows() {
        let native = framed(&frame::ipv4(ENDS, esp::ESP, 64, &sealed(1)));
        let in_udp = framed(&frame::ipv4(ENDS, 17, 64, &frame::udp(4500, 4500, &sealed(2))));
        let ike = framed(&frame::ipv4(ENDS, 17, 64, &frame::udp(500, 500, &[1; 30])));
        let ping = framed(&frame::ipv4(ENDS, 1, 64, &[8, 0, 0, 0]));
        let all = census(&[native.clone(), in_udp, ike, ping]);
        all.check().unwrap();
        let counts = [Kind::Esp, Kind::EspInUdp, Kind::Ike, Kind::Icmp].map(|kind| all.count(kind));
        assert_eq!((counts, all.sas()), ([1; 4], 1));
        assert!(census(&[]).check().is_err(), "nothing was sealed");
        // In the encrypted text one address alone is chance, two are none; before it one is enough.
        let mut chance = native.clone();
        chance.bytes[60..64].copy_from_slice(&INSIDE.0.octets());
        census(&[chance.clone()]).check().unwrap();
        chance.bytes[64..68].copy_from_slice(&INSIDE.1.octets());
        assert_eq!(census(&[chance]).shown(), 1);
        let mut outside = native;
        outside.bytes[30..34].copy_from_slice(&INSIDE.1.octets());
        assert_eq!(census(&[outside]).shown(), 1);
    }

    #[test]
    fn whatever_is_in_the_clear_is_noticed() {
        let esp = framed(&frame::ipv4(ENDS, esp::ESP, 64, &sealed(1)));
        let quoted = [&[3, 4, 0, 0, 0, 0, 5, 0][..], &frame::ipv4(INSIDE, 17, 64, &[0; 8])].concat();
        for (clear, kind, shows) in [
            (frame::ipv4(ENDS, esp::GRE, 64, &gre()), Kind::Gre, 1),
            (frame::ipv4(ENDS, esp::GRE, 64, &frame::gre(None, trail::NHRP, &[])), Kind::Gre, 0),
            (frame::ipv4(INSIDE, 17, 64, &frame::udp(9, 9, &[])), Kind::Other, 1),
            (frame::ipv4(ENDS, 17, 64, &frame::udp(4500, 4500, &gre()[8..])), Kind::EspInUdp, 1),
            (frame::ipv4(ENDS, 17, 64, &frame::udp(4501, 4501, &[1; 20])), Kind::Other, 0),
            (frame::ipv4(ENDS, 1, 64, &quoted), Kind::Icmp, 1),
            // A fragment that is not the first.
            (frame::fragment(&frame::ipv4(ENDS, esp::GRE, 64, &gre()), 32..49, false), Kind::Gre, 1),
            (frame::ipv4(ENDS, esp::ESP, 64, &[&[1; 16][..], b"planted words"].concat()), Kind::Esp, 1),
        ] {
            let all = census(&[esp.clone(), framed(&clear)]);
            assert!(all.check().is_err(), "{kind}");
            assert_eq!((all.count(kind), all.shown()), (1 + u64::from(kind == Kind::Esp), shows), "{kind}");
        }
    }

    #[test]
    fn an_iv_that_comes_again_is_noticed_and_so_is_one_that_is_late() {
        let packet = |sequence| framed(&frame::ipv4(ENDS, esp::ESP, 64, &sealed(sequence)));
        census(&[packet(1), packet(2), packet(7)]).check().unwrap();
        assert!(census(&[packet(1), packet(1)]).check().unwrap_err().to_string().contains("twice"));
        census(&[packet(64), packet(1), packet(65)]).check().unwrap();
        assert!(census(&[packet(65), packet(1)]).check().unwrap_err().to_string().contains("went back"));
        // Each SA counts for itself.
        let other = Sa::new(0x0200_0002, &[8; 20], true).unwrap().seal(1, esp::GRE, &gre()).unwrap();
        census(&[packet(1), framed(&frame::ipv4(ENDS, esp::ESP, 64, &other))]).check().unwrap();
    }
}
