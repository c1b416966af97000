//! A cloud whose keys IKEv2 agrees on: each node has a certificate of one authority, which is made for the run, and believes those of it. And
//! what everybody sees of IKE's messages (RFC 7296 §3.1).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::capture::Frame;
use crate::cloud::{BRIDGE, Cloud};
use crate::keys::PROFILE;
use crate::node::Node;
use crate::pki::{self, Authority, Files, Issued, KeyKind};
use crate::{esp, trail};

/// UDP port of IKE; where a NAT may be on the way it is [`esp::NAT_PORT`].
pub const PORT: u16 = 500;
/// Bytes of the header.
pub const HEADER: usize = 28;

/// A message as everybody sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// When.
    pub at: Duration,
    /// From where.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// SPI of its SA's initiator, and of the responder.
    pub spis: [u64; 2],
    /// Exchange type.
    pub exchange: u8,
    /// It answers.
    pub is_response: bool,
    /// Message ID.
    pub id: u32,
    /// All of it, header and all.
    pub bytes: &'a [u8],
}

impl Message<'_> {
    /// The exchange in words.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.exchange {
            34 => "IKE_SA_INIT",
            35 => "IKE_AUTH",
            36 => "CREATE_CHILD_SA",
            37 => "INFORMATIONAL",
            43 => "IKE_INTERMEDIATE",
            _ => "unknown exchange",
        }
    }
}

/// The message in an Ethernet frame, if there is one.
#[must_use]
pub fn message(frame: &Frame) -> Option<Message<'_>> {
    if frame.bytes.len() < frame.length || !matches!(frame.bytes.get(12..14)?, [8, 0] | [0x86, 0xdd]) {
        return None;
    }
    let (source, destination, 17, udp) = trail::ip(&frame.bytes[14..])? else { return None };
    let ports = esp::udp_ports(udp)?;
    let payload = udp.get(8..)?;
    let bytes = if ports.0 == PORT || ports.1 == PORT {
        payload
    } else if ports.0 == esp::NAT_PORT || ports.1 == esp::NAT_PORT {
        payload.strip_prefix(&[0; 4])?
    } else {
        return None;
    };
    let header = bytes.get(..HEADER)?;
    let spi = |at: usize| header[at..at + 8].try_into().map(u64::from_be_bytes).ok();
    Some(Message {
        at: frame.at,
        source: SocketAddr::new(source, ports.0),
        destination: SocketAddr::new(destination, ports.1),
        spis: [spi(0)?, spi(8)?],
        exchange: header[18],
        is_response: header[19] & 0x20 != 0,
        id: u32::from_be_bytes(header[20..24].try_into().ok()?),
        bytes,
    })
}

/// An algorithm that is proposed: type, number, and key length in bits (RFC 7296 §3.3.2).
pub type Transform = (u8, u16, Option<u16>);

/// AES-GCM with 256 bits, HMAC-SHA2-384 and this key exchange: what every node here takes.
#[must_use]
pub fn good_offer(group: u16) -> Vec<Transform> {
    vec![(1, 20, Some(256)), (2, 6, None), (4, group, None)]
}

/// A payload behind its generic header (RFC 7296 §3.2).
#[must_use]
pub fn payload(next: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + body.len()).unwrap_or(u16::MAX);
    [&[next, flags][..], &length.to_be_bytes(), body].concat()
}

/// A whole message: header and these bytes, of which the first payload has this type.
#[must_use]
pub fn whole(spis: [u64; 2], first: u8, exchange: u8, flags: u8, id: u32, payloads: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + payloads.len()).unwrap_or(u32::MAX);
    let spis = spis.map(u64::to_be_bytes).concat();
    [&spis[..], &[first, 0x20, exchange, flags], &id.to_be_bytes(), &length.to_be_bytes(), payloads].concat()
}

/// Payload types.
const SA: u8 = 33;
const KE: u8 = 34;
const NONCE: u8 = 40;
const NOTIFY: u8 = 41;

/// The payloads of an IKE_SA_INIT request: SA with one proposal, KE, Nonce. The last one says that `behind` follows.
#[must_use]
pub fn init_payloads(offer: &[Transform], group: u16, public: &[u8], nonce: &[u8], behind: u8) -> Vec<u8> {
    let last = offer.len().saturating_sub(1);
    let transform = |(at, &(kind, id, bits)): (usize, &Transform)| {
        let attribute = bits.map_or(Vec::new(), |bits| [&[0x80, 14][..], &bits.to_be_bytes()].concat());
        let length = u16::try_from(8 + attribute.len()).unwrap_or(u16::MAX);
        let more = if at == last { 0 } else { 3 };
        let fixed = [&[more, 0][..], &length.to_be_bytes(), &[kind, 0], &id.to_be_bytes()].concat();
        [fixed, attribute].concat()
    };
    let transforms = offer.iter().enumerate().map(transform).collect::<Vec<_>>().concat();
    let length = u16::try_from(8 + transforms.len()).unwrap_or(u16::MAX);
    let count = u8::try_from(offer.len()).unwrap_or(u8::MAX);
    let proposal = [&[0, 0][..], &length.to_be_bytes(), &[1, 1, 0, count], &transforms].concat();
    let key = [&group.to_be_bytes()[..], &[0, 0], public].concat();
    [payload(KE, 0, &proposal), payload(NONCE, 0, &key), payload(behind, 0, nonce)].concat()
}

/// An IKE_SA_INIT request.
#[must_use]
pub fn init(spi: u64, offer: &[Transform], group: u16, public: &[u8], nonce: &[u8]) -> Vec<u8> {
    whole([spi, 0], SA, 34, 8, 0, &init_payloads(offer, group, public, nonce, 0))
}

/// Types of the payloads of a message in the clear, and of its notifications their types.
#[must_use]
pub fn payloads(message: &[u8]) -> (Vec<u8>, Vec<u16>) {
    let (mut types, mut notifications) = (Vec::new(), Vec::new());
    let (mut next, mut at) = (message.get(16).copied().unwrap_or(0), HEADER);
    while next != 0 {
        let Some(header) = message.get(at..at + 4) else { break };
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        types.push(next);
        if let Some(&[high, low]) = message.get(at + 6..at + 8).filter(|_| next == NOTIFY) {
            notifications.push(u16::from_be_bytes([high, low]));
        }
        (next, at) = (header[0], at + length.max(4));
    }
    (types, notifications)
}

/// Somebody with sockets on the underlay: 203.0.113.67, UDP ports 500 and 4500.
#[derive(Debug)]
pub struct Stranger {
    socket: UdpSocket,
    nat: UdpSocket,
}

impl Stranger {
    /// Its address.
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 67);

    /// Puts it on the underlay of a cloud.
    ///
    /// # Errors
    /// It is there already.
    pub fn come(cloud: &Cloud) -> Result<Self> {
        cloud.internet.ip(&format!("addr add {}/24 dev {BRIDGE}", Self::ADDRESS))?;
        let bind = |port| cloud.internet.run(|| UdpSocket::bind((Self::ADDRESS, port)))?.context("a socket");
        let (socket, nat) = (bind(PORT)?, bind(esp::NAT_PORT)?);
        socket.set_read_timeout(Some(Duration::from_millis(400)))?;
        Ok(Self { socket, nat })
    }

    /// Says something to port 500.
    ///
    /// # Errors
    /// The kernel does not send it.
    pub fn say(&self, to: Ipv4Addr, bytes: &[u8]) -> Result<()> {
        self.socket.send_to(bytes, (to, PORT)).map(drop).context("sending")
    }

    /// Says something to port 4500, as it is.
    ///
    /// # Errors
    /// The kernel does not send it.
    pub fn say_to_nat_port(&self, to: Ipv4Addr, bytes: &[u8]) -> Result<()> {
        self.nat.send_to(bytes, (to, esp::NAT_PORT)).map(drop).context("sending")
    }

    /// What comes to port 500 next, if anything does within 400 ms.
    #[must_use]
    pub fn hear(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        let (length, _) = self.socket.recv_from(&mut buffer).ok()?;
        buffer.truncate(length);
        Some(buffer)
    }

    /// Says something, and hears what is said to that: to a message with this initiator's SPI.
    ///
    /// # Errors
    /// The kernel does not send it.
    pub fn ask(&self, to: Ipv4Addr, message: &[u8]) -> Result<Option<Vec<u8>>> {
        self.say(to, message)?;
        Ok(std::iter::from_fn(|| self.hear()).find(|answer| answer.get(..8) == message.get(..8)))
    }
}

impl Node {
    /// Its profile of IKE (`[profiles.ike]`), which is made if there is none, to be changed before the control plane is started, or applied.
    ///
    /// # Errors
    /// Its profiles are not those that are made here.
    pub fn ike(&mut self) -> Result<&mut Table> {
        if !self.config.contains_key("profiles") {
            self.add("profiles", &format!("name = \"{PROFILE}\"\n[ike]\n"))?;
        }
        let profile = self.config.get_mut("profiles").and_then(|profiles| profiles.get_mut(0));
        let ike = profile.and_then(|profile| profile.get_mut("ike")).and_then(Value::as_table_mut);
        ike.context("no profile of IKE")
    }

    /// Sets fields of its profile of IKE.
    ///
    /// # Errors
    /// The words are no TOML.
    pub fn set_ike(&mut self, words: &str) -> Result<()> {
        let fields: Table = words.parse().with_context(|| words.to_owned())?;
        self.ike()?.extend(fields);
        Ok(())
    }

    /// Has its tunnels protected by keys that IKE agrees on, before the control plane is started, or applied: it shows this certificate.
    ///
    /// # Errors
    /// Files cannot be written, or it has no tunnel.
    pub fn certify(&mut self, authority: &Authority, own: &Issued) -> Result<()> {
        let directory = self.directory.join("pki");
        let [root, revoked] = authority.write(&directory, &[])?;
        self.show_certificate(own)?;
        let ike = self.ike()?;
        ike.insert("authorities".to_owned(), vec![text(&root)].into());
        ike.insert("revocation_lists".to_owned(), vec![text(&revoked)].into());
        ike.insert("peers".to_owned(), vec![format!("*.{}", pki::DOMAIN)].into());
        ike.insert("registers".to_owned(), "certified".into());
        self.protect()
    }

    /// Gives it another certificate of its own.
    ///
    /// # Errors
    /// Files cannot be written.
    pub fn show_certificate(&mut self, own: &Issued) -> Result<()> {
        let directory = self.directory.join("pki");
        std::fs::create_dir_all(&directory)?;
        let Files { certificate, private_key } = own.write(&directory, "own")?;
        let ike = self.ike()?;
        ike.insert("certificate".to_owned(), text(&certificate).into());
        ike.insert("private_key".to_owned(), text(&private_key).into());
        Ok(())
    }

    /// What its profile of IKE says, to be given back ([`Node::set_profile`]).
    #[must_use]
    pub fn clone_ike(&self) -> Table {
        let ike = self.config.get("profiles").and_then(|profiles| profiles.get(0)).and_then(|p| p.get("ike"));
        ike.and_then(Value::as_table).cloned().unwrap_or_default()
    }

    /// Has its profile of IKE say exactly this.
    pub fn set_profile(&mut self, ike: &Table) {
        let profile = self.config.get_mut("profiles").and_then(|profiles| profiles.get_mut(0));
        if let Some(profile) = profile.and_then(Value::as_table_mut) {
            profile.insert("ike".to_owned(), ike.clone().into());
        }
    }

    /// The addresses that its certificate names: those of its tunnel.
    #[must_use]
    pub fn certified_addresses(&self) -> Vec<IpAddr> {
        let mut addresses = vec![IpAddr::from(self.tunnel)];
        if self.is_dual_stack() {
            addresses.push(self.tunnel6.into());
        }
        addresses
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl Cloud {
    /// Protects all tunnels before anything is started, by keys that IKE agrees on: who has a certificate of the authority that is made here
    /// is let in, and may register the addresses that it names.
    ///
    /// # Errors
    /// No random bytes, or a configuration that is not like those of `examples/cloud`.
    pub fn protect_by_ike(&mut self) -> Result<Authority> {
        let authority = Authority::root("authority", KeyKind::P256)?;
        for node in &mut self.nodes {
            let own = authority.issue(&node.name, &node.certified_addresses(), KeyKind::P256)?;
            node.certify(&authority, &own)?;
        }
        Ok(authority)
    }
}
