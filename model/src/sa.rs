//! Security associations (RFC 4301 §4.1) as they are named and given to the data plane.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use wire::esp;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::address::{NotA, serde_as_text};
use crate::{InterfaceName, NbmaAddr, TableId};

/// A security parameter index: 256 and up (RFC 4303 §2.1). One that we choose says where its SA lives:
///
/// ```text
///  31        24 23      18 17                 0
/// +------------+----------+--------------------+
/// | generation |  worker  |        slot        |
/// +------------+----------+--------------------+
/// ```
///
/// The generation is random and not 0, so that a number comes again as late as can be. Of an SPI that somebody else chose the
/// data plane reads the same fields: any is good, but two with one slot are not at home in one data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Spi(u32);

impl Spi {
    /// The smallest.
    pub const FIRST: Self = Self(256);
    /// Slots of a worker.
    pub const SLOTS: usize = 1 << 18;
    /// Workers that the field can name.
    pub const WORKERS: usize = 1 << 6;

    /// `None` for 0, which stands for IKE where ESP is in UDP (RFC 3948 §2.2), and for what is reserved (RFC 4303 §2.1).
    #[must_use]
    pub const fn new(spi: u32) -> Option<Self> {
        if spi < 256 { None } else { Some(Self(spi)) }
    }

    /// One of ours; `None` if a field is out of its range, or the generation is 0.
    #[must_use]
    pub const fn of(worker: u16, slot: u32, generation: u8) -> Option<Self> {
        if worker as usize >= Self::WORKERS || slot as usize >= Self::SLOTS || generation == 0 {
            return None;
        }
        Some(Self((generation as u32) << 24 | (worker as u32) << 18 | slot))
    }

    /// As a number.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// The field that names the worker: 0 to 63. The worker is this modulo the number of workers.
    #[must_use]
    pub const fn worker(self) -> u16 {
        (self.0 >> 18 & (Self::WORKERS as u32 - 1)) as u16
    }

    /// What the SPIs of one worker of so many have in common: the bits of them that tell it, and what these are. Where the number is not a
    /// power of two, those that we choose: of SPIs that somebody else chose some name the worker by another number.
    #[must_use]
    pub const fn bits_of(worker: u16, workers: u16) -> SpiBits {
        let all = if workers.is_power_of_two() && workers as usize <= Self::WORKERS {
            workers as u32 - 1
        } else {
            Self::WORKERS as u32 - 1
        };
        SpiBits { mask: all << 18, value: (worker as u32 & all) << 18 }
    }

    /// The place among its worker's inbound SAs.
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.0 & (Self::SLOTS as u32 - 1)
    }

    /// The field that tells lives of a slot apart.
    #[must_use]
    pub const fn generation(self) -> u8 {
        (self.0 >> 24) as u8
    }
}

/// A part of all SPIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpiBits {
    /// The bits that count.
    pub mask: u32,
    /// What they are.
    pub value: u32,
}

impl SpiBits {
    /// Whether an SPI is one of these.
    #[must_use]
    pub const fn has(self, spi: Spi) -> bool {
        spi.0 & self.mask == self.value
    }
}

impl TryFrom<u32> for Spi {
    type Error = NotA;
    fn try_from(spi: u32) -> Result<Self, NotA> {
        Self::new(spi).ok_or_else(|| NotA::new(&spi.to_string(), "an SPI (256 to 4294967295)"))
    }
}

impl From<Spi> for u32 {
    fn from(spi: Spi) -> Self {
        spi.0
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("0x{:08x}", self.0))
    }
}

/// What an SA seals with: AES in Galois/counter mode with an ICV of 16 bytes (RFC 4106).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Suite {
    /// A key of 128 bits.
    #[serde(rename = "aes128gcm16")]
    AesGcm128,
    /// A key of 256 bits.
    #[serde(rename = "aes256gcm16")]
    AesGcm256,
}

impl Suite {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::AesGcm128, Self::AesGcm256];

    /// Length of the key in bytes, without salt.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::AesGcm128 => 16,
            Self::AesGcm256 => 32,
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AesGcm128 => "aes128gcm16",
            Self::AesGcm256 => "aes256gcm16",
        })
    }
}

/// The key of one SA and its salt (RFC 4106 §8.1: KEYMAT is the key and four bytes of salt). Erased when it goes. It is
/// shown nowhere: formatted or serialized it is a word in its place.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SaKey {
    /// Key and salt; the rest is zero.
    bytes: [u8; 36],
    #[zeroize(skip)]
    suite: Suite,
}

impl SaKey {
    /// Of KEYMAT: 20 or 36 bytes, the last four of which are the salt; `None` for any other length.
    #[must_use]
    pub fn new(keymat: &[u8]) -> Option<Self> {
        let suite = Suite::ALL.into_iter().find(|suite| suite.key_len() + 4 == keymat.len())?;
        let mut bytes = [0; 36];
        bytes[..keymat.len()].copy_from_slice(keymat);
        Some(Self { bytes, suite })
    }

    /// What stands for a key of this suite where none is shown: zeros.
    #[must_use]
    pub const fn blank(suite: Suite) -> Self {
        Self { bytes: [0; 36], suite }
    }

    /// Which suite the length stands for.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The key without salt.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.bytes[..self.suite.key_len()]
    }

    /// The salt.
    #[must_use]
    pub fn salt(&self) -> [u8; 4] {
        let mut salt = [0; 4];
        salt.copy_from_slice(&self.bytes[self.suite.key_len()..][..4]);
        salt
    }

    /// Key and salt, for the contract between the processes alone.
    #[must_use]
    pub fn keymat(&self) -> &[u8] {
        &self.bytes[..self.suite.key_len() + 4]
    }
}

impl fmt::Debug for SaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SaKey({}, hidden)", self.suite)
    }
}

impl Serialize for SaKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("hidden")
    }
}

impl<'de> Deserialize<'de> for SaKey {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("keys are not read from where they are shown"))
    }
}

/// The name of a protection profile: as an interface's, 1 to 15 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileName(InterfaceName);

impl FromStr for ProfileName {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        let name = text.parse();
        name.map(Self)
            .map_err(|_| NotA::new(text, "a profile's name (1 to 15 letters, digits, dots, dashes)"))
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

serde_as_text!(ProfileName);

/// What ESP stands around (RFC 4303 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SaMode {
    /// The GRE packet, behind the one IP header.
    #[default]
    Transport,
    /// An IP packet of its own, from and to the same addresses, with the GRE packet in it.
    Tunnel,
}

impl fmt::Display for SaMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Transport => "transport",
            Self::Tunnel => "tunnel",
        })
    }
}

/// What ESP puts around a GRE packet, and what that takes: the one place where sizes of protected packets are reckoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Encapsulation {
    /// What ESP stands around.
    pub mode: SaMode,
    /// Of which IP the outer header is, and the inner one of tunnel mode.
    pub is_ipv6: bool,
    /// Whether it is in UDP (RFC 3948).
    pub is_udp: bool,
}

impl Encapsulation {
    /// Length in bytes of an IP header without options.
    const fn ip(self) -> usize {
        if self.is_ipv6 { 40 } else { 20 }
    }

    /// Bytes in front of the GRE packet that are encrypted with it: the inner IP header of tunnel mode.
    #[must_use]
    pub const fn inner(self) -> usize {
        match self.mode {
            SaMode::Transport => 0,
            SaMode::Tunnel => self.ip(),
        }
    }

    /// Bytes in front of the GRE packet: outer IP header, UDP header, SPI, sequence number and IV, inner IP header.
    #[must_use]
    pub const fn front(self) -> usize {
        self.ip() + if self.is_udp { UDP } else { 0 } + esp::LEN + self.inner()
    }

    /// Length in bytes of the outer packet around a GRE packet of so many: with padding, trailer and ICV.
    #[must_use]
    pub const fn packet_len(self, gre: usize) -> usize {
        self.front() - self.inner() + esp::text_len(self.inner() + gre) + esp::ICV
    }

    /// The longest GRE packet in bytes whose outer packet is not longer than `mtu`; 0 if there is none.
    #[must_use]
    pub const fn most(self, mtu: usize) -> usize {
        let text =
            mtu.saturating_sub(self.front() - self.inner() + esp::ICV) / esp::ALIGNMENT * esp::ALIGNMENT;
        text.saturating_sub(esp::TRAILER + self.inner())
    }
}

/// Length in bytes of a UDP header.
const UDP: usize = 8;

/// Whose SAs: one peer of one profile. All tunnels with this source and profile share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Protection {
    /// The profile of the tunnels.
    pub profile: ProfileName,
    /// The FIB table of outer packets: their `underlay_table`.
    pub table: TableId,
    /// Our NBMA address: their source.
    pub local: NbmaAddr,
    /// The peer's.
    pub remote: NbmaAddr,
    /// The peer's UDP port where ESP is encapsulated (RFC 3948; ours is 4500); 0: it is not, and is protocol 50.
    pub port: u16,
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} to {}", self.profile, self.local, self.remote)?;
        if self.port != 0 { write!(f, " port {}", self.port) } else { Ok(()) }
    }
}

/// How much an SA carries; `None`: that is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    /// Bytes of what is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
}

/// Lifetimes of an SA (RFC 4301 §4.4.2.1). Those in time are the control plane's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifetimes {
    /// It is told that these have been reached, and the SA goes on.
    #[serde(default)]
    pub soft: Amount,
    /// The SA carries no more.
    #[serde(default)]
    pub hard: Amount,
}

/// The sequence numbers that one installation of an outbound SA may use: `last` has been recorded where it outlives both
/// processes before this is told, and no other installation of the same key has been or will be given any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The first, 1 and up: where a data plane starts that does not run the SA already.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// Which way an SA goes, as seen from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// To us.
    Inbound,
    /// From us.
    Outbound,
}

/// Which of its [`Lifetimes`] an SA has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reached {
    /// It is to be replaced.
    Soft,
    /// It has ended.
    Hard,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_spi_says_where_its_sa_lives() {
        let spi = Spi::of(63, 0x3ffff, 1).unwrap();
        assert_eq!((spi.value(), spi.worker(), spi.slot(), spi.generation()), (0x01ff_ffff, 63, 0x3ffff, 1));
        assert_eq!([Spi::of(64, 0, 1), Spi::of(0, 1 << 18, 1), Spi::of(0, 0, 0)], [None; 3]);
        assert_eq!((Spi::new(255), Spi::new(256).map(Spi::slot)), (None, Some(256)));
        assert_eq!(Spi::of(0, 5, 0xab).unwrap().to_string(), "0xab000005");
    }

    #[test]
    fn the_bits_of_workers_part_all_spis_that_name_them() {
        for workers in 1..=64_u16 {
            for named in 0..64_u16 {
                let spi = Spi::of(named, 0x2_5555, 0xe7).unwrap();
                let of: Vec<_> =
                    (0..workers).filter(|worker| Spi::bits_of(*worker, workers).has(spi)).collect();
                let is_one = named < workers || workers.is_power_of_two();
                assert_eq!(of, if is_one { vec![named % workers] } else { vec![] }, "{named} of {workers}");
            }
        }
    }

    /// Input: every length of a GRE packet and of an MTU, in each form. Output: sizes as RFC 4303 §2 draws them, and the largest
    /// that fits fits, and the next one does not.
    #[test]
    fn what_fits_is_what_the_sum_of_the_fields_says() {
        for (mode, is_ipv6, is_udp, front) in [
            (SaMode::Transport, false, false, 20 + 16),
            (SaMode::Transport, false, true, 20 + 8 + 16),
            (SaMode::Transport, true, false, 40 + 16),
            (SaMode::Tunnel, false, false, 20 + 16 + 20),
            (SaMode::Tunnel, true, true, 40 + 8 + 16 + 40),
        ] {
            let around = Encapsulation { mode, is_ipv6, is_udp };
            assert_eq!(around.front(), front);
            for gre in 4..2100 {
                let pad = (0..4).find(|pad| (gre + pad + 2) % 4 == 0).unwrap();
                assert_eq!(around.packet_len(gre), front + gre + pad + 2 + 16, "{around:?} {gre}");
            }
            for mtu in 576..1600 {
                let most = around.most(mtu);
                assert!(
                    around.packet_len(most) <= mtu && around.packet_len(most + 1) > mtu,
                    "{around:?} {mtu}"
                );
            }
            assert_eq!(around.most(front + 16), 0);
        }
        let usual = Encapsulation { mode: SaMode::Transport, is_ipv6: false, is_udp: true };
        assert_eq!(usual.most(1500), 1438, "1434 of them behind a GRE header without key");
    }

    #[test]
    fn a_key_is_shown_nowhere() {
        let keymat: Vec<u8> = (100..136).collect();
        let key = SaKey::new(&keymat).unwrap();
        assert_eq!(
            (key.suite(), key.key(), key.salt()),
            (Suite::AesGcm256, &keymat[..32], [132, 133, 134, 135])
        );
        assert_eq!(key.keymat(), keymat);
        let shown = format!("{key:?} {}", serde_json::to_string(&key).unwrap());
        assert_eq!(shown, "SaKey(aes256gcm16, hidden) \"hidden\"");
        assert!(serde_json::from_str::<SaKey>("\"hidden\"").is_err());
        assert!([0, 16, 19, 21, 32, 35, 37].iter().all(|len| SaKey::new(&[1; 37][..*len]).is_none()));
        assert_eq!(SaKey::new(&[7; 20]).unwrap().suite(), Suite::AesGcm128);
    }
}
