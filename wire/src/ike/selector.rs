//! Traffic selectors (RFC 7296 §3.13.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+-------------------------------+
//! | type: 7 or 8  | IP protocol   | length of all this            |
//! +---------------+---------------+-------------------------------+
//! | first port                    | last port                     |
//! +-------------------------------+-------------------------------+
//! | first address, last address                                   |
//! +---------------------------------------------------------------+
//! ```

use std::net::IpAddr;

use crate::Malformed;
use crate::reader::Reader;

use super::fitting;
use super::proposal::{ended, part};

/// Types of selectors: ranges of IPv4 and of IPv6 addresses.
const IPV4: u8 = 7;
const IPV6: u8 = 8;

/// Packets that an SA is for: a range of addresses, of ports, and a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// A range of addresses; both ends of one family.
    Addresses {
        /// IP protocol; 0: any.
        protocol: u8,
        /// First and last port; 0 and 65535: all.
        ports: (u16, u16),
        /// First and last address.
        addresses: (IpAddr, IpAddr),
    },
    /// Of a type that is not known.
    Unknown {
        /// Its type.
        kind: u8,
        /// IP protocol.
        protocol: u8,
        /// The rest.
        data: Vec<u8>,
    },
}

impl Selector {
    /// One address, one protocol, all ports.
    #[must_use]
    pub const fn host(address: IpAddr, protocol: u8) -> Self {
        Self::Addresses { protocol, ports: (0, u16::MAX), addresses: (address, address) }
    }
}

impl Selector {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kind = reader.u8("TS Type")?;
        let protocol = reader.u8("IP Protocol ID")?;
        let mut reader = part(reader, "Selector Length", 4)?;
        if kind != IPV4 && kind != IPV6 {
            return Ok(Self::Unknown { kind, protocol, data: reader.rest().to_vec() });
        }
        let ports = (reader.u16("Start Port")?, reader.u16("End Port")?);
        let mut address = |field| {
            if kind == IPV4 {
                reader.array::<4>(field).map(IpAddr::from)
            } else {
                reader.array::<16>(field).map(IpAddr::from)
            }
        };
        let addresses = (address("Starting Address")?, address("Ending Address")?);
        ended(&reader, "Selector Length")?;
        Ok(Self::Addresses { protocol, ports, addresses })
    }

    fn encode(&self) -> Vec<u8> {
        let (kind, protocol, data) = match self {
            Self::Addresses { protocol, ports, addresses } => {
                let mut data = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                let kind = match *addresses {
                    (IpAddr::V4(first), last) => {
                        // Ends of two families make no range: it is the first end alone.
                        let last = if let IpAddr::V4(last) = last { last } else { first };
                        data.extend(first.octets());
                        data.extend(last.octets());
                        IPV4
                    }
                    (IpAddr::V6(first), last) => {
                        let last = if let IpAddr::V6(last) = last { last } else { first };
                        data.extend(first.octets());
                        data.extend(last.octets());
                        IPV6
                    }
                };
                (kind, *protocol, data)
            }
            Self::Unknown { kind, protocol, data } => (*kind, *protocol, data.clone()),
        };
        let length = u16::try_from(data.len() + 4).unwrap_or(u16::MAX);
        let mut out = vec![kind, protocol];
        out.extend(length.to_be_bytes());
        out.extend(data);
        out
    }
}

/// Reads the body of a traffic selector payload.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Selector>, Malformed> {
    let mut reader = Reader::new(bytes);
    let count = reader.u8("Number of TSs")?;
    let _reserved = reader.array::<3>("RESERVED")?;
    let selectors = (0..count).map(|_| Selector::decode(&mut reader)).collect::<Result<_, _>>()?;
    ended(&reader, "Payload Length")?;
    Ok(selectors)
}

/// Writes one. What is longer than a payload can be, or beyond 255, is left out.
pub(super) fn encode(selectors: &[Selector], out: &mut Vec<u8>) {
    let selectors = selectors.iter().map(Selector::encode);
    let selectors = fitting(selectors, u8::MAX.into(), 0, 4);
    out.extend([selectors.len() as u8, 0, 0, 0]);
    selectors.into_iter().for_each(|selector| out.extend(selector));
}
