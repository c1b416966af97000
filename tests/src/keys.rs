//! Static keys for a cloud, made for one run: each pair of nodes has its own, and each direction another. For keys that IKE agrees on: [`crate::ike`].

use std::net::IpAddr;

use anyhow::{Context, Result};
use clap::ValueEnum;
use toml::{Table, Value};

use crate::cloud::Cloud;
use crate::esp::{self, Keyring, Sa};
use crate::node::Node;

/// What the profile is called on every node.
pub const PROFILE: &str = "lab";

/// How the tunnels of a cloud are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protection {
    /// By ESP with keys that IKEv2 agrees on, with certificates made for the run.
    Ikev2,
    /// By ESP with static keys, made for the run.
    StaticKeys,
    /// Not at all: everything can be read on the underlay.
    None,
}

/// The SAs of two nodes.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The underlay address of each, as the other sees it.
    pub ends: [IpAddr; 2],
    /// The UDP port of each, as the other sees it; 0: ESP is not in UDP.
    pub ports: [u16; 2],
    /// To the first, and to the second.
    pub sas: [Sa; 2],
}

impl Pair {
    /// Two nodes at these addresses. Each SPI is as a node would choose it: this slot of the first worker, and a random generation.
    ///
    /// # Errors
    /// No random bytes.
    pub fn new(ends: [IpAddr; 2], slots: [u32; 2]) -> Result<Self> {
        Ok(Self { ends, ports: [0; 2], sas: [Self::sa(slots[0])?, Self::sa(slots[1])?] })
    }

    fn sa(slot: u32) -> Result<Sa> {
        let [generation] = esp::random::<1>()?;
        Self::keyed(u32::from(generation.max(1)) << 24 | slot)
    }

    fn keyed(spi: u32) -> Result<Sa> {
        Sa::new(spi, &esp::random::<36>()?, true)
    }

    /// Gives both SAs new keys, and leaves them their SPIs.
    ///
    /// # Errors
    /// No random bytes.
    pub fn change_keys(&mut self) -> Result<()> {
        for sa in &mut self.sas {
            *sa = Self::keyed(sa.spi)?;
        }
        Ok(())
    }

    /// Gives both new SAs, with SPIs that they have not had.
    ///
    /// # Errors
    /// No random bytes.
    pub fn renew(&mut self) -> Result<()> {
        for sa in &mut self.sas {
            let old = sa.spi;
            while sa.spi == old {
                *sa = Self::sa(old & 0x3ffff)?;
            }
        }
        Ok(())
    }

    /// What one of them is told of the other: an element of `profiles.static`.
    #[must_use]
    pub fn entry(&self, end: usize) -> Table {
        let sa = |sa: &Sa| {
            let fields =
                [("spi", i64::from(sa.spi).into()), ("key", sa.digits().into()), ("esn", sa.esn.into())];
            Value::Table(
                fields.into_iter().map(|(name, value): (&str, Value)| (name.to_owned(), value)).collect(),
            )
        };
        let other = 1 - end;
        let mut entry = Table::new();
        entry.insert("remote".to_owned(), self.ends[other].to_string().into());
        if self.ports[other] != 0 {
            entry.insert("port".to_owned(), i64::from(self.ports[other]).into());
        }
        entry.insert("inbound".to_owned(), sa(&self.sas[end]));
        entry.insert("outbound".to_owned(), sa(&self.sas[other]));
        entry
    }
}

impl Node {
    /// Has the packets of its tunnels protected by the profile, before the control plane is started, or applied. What is in that is another's
    /// business.
    ///
    /// # Errors
    /// It has no tunnel.
    pub fn protect(&mut self) -> Result<()> {
        for tunnel in self.config.get_mut("tunnels").and_then(Value::as_array_mut).context("no tunnels")? {
            tunnel.as_table_mut().context("a tunnel")?.insert("protection".to_owned(), PROFILE.into());
        }
        Ok(())
    }

    /// Its peers with static keys.
    ///
    /// # Errors
    /// Its profiles are not those that are made here.
    pub fn statics(&mut self) -> Result<&mut Vec<Value>> {
        if !self.config.contains_key("profiles") {
            self.add("profiles", &format!("name = \"{PROFILE}\"\nstatic = []"))?;
        }
        let profile = self.config.get_mut("profiles").and_then(|profiles| profiles.get_mut(0));
        let peers = profile.and_then(|profile| profile.get_mut("static"));
        peers.and_then(Value::as_array_mut).context("no static keys")
    }

    /// Takes the keys with a peer away: at this address, with this UDP port if ESP with it is in UDP.
    ///
    /// # Errors
    /// As [`Node::statics`].
    pub fn forget_keys(&mut self, remote: IpAddr, port: u16) -> Result<()> {
        let remote = remote.to_string();
        self.statics()?.retain(|peer| {
            let its_port = peer.get("port").and_then(Value::as_integer).unwrap_or(0);
            peer.get("remote").and_then(Value::as_str) != Some(&remote) || its_port != i64::from(port)
        });
        Ok(())
    }
}

impl Cloud {
    /// Protects all tunnels before anything is started: every two nodes have keys with each other.
    ///
    /// # Errors
    /// No random bytes, or a configuration that is not like those of `examples/cloud`.
    pub fn protect(&mut self) -> Result<()> {
        self.protect_by(|_| {})
    }

    /// As [`Cloud::protect`], with ESP in UDP, from port 4500 to port 4500.
    ///
    /// # Errors
    /// As [`Cloud::protect`].
    pub fn protect_in_udp(&mut self) -> Result<()> {
        self.protect_by(|pair| pair.ports = [esp::NAT_PORT; 2])
    }

    /// As [`Cloud::protect`], with something done to the SAs of each pair.
    ///
    /// # Errors
    /// As [`Cloud::protect`].
    pub fn protect_by(&mut self, change: impl Fn(&mut Pair)) -> Result<()> {
        let over_ipv6 = self.is_over_ipv6();
        let ends: Vec<IpAddr> = self
            .nodes
            .iter()
            .map(|node| if over_ipv6 { node.nbma6.into() } else { node.nbma.into() })
            .collect();
        let mut slots = 1..;
        for (first, one) in ends.iter().enumerate() {
            for (second, other) in ends.iter().enumerate().skip(first + 1) {
                let slots = [slots.next().context("slots")?, slots.next().context("slots")?];
                let mut pair = Pair::new([*one, *other], slots)?;
                change(&mut pair);
                self.give(&pair, [first, second])?;
                self.pairs.insert((first, second), pair);
            }
        }
        for node in &mut self.nodes {
            node.statics()?;
            node.protect()?;
        }
        Ok(())
    }

    /// Has two nodes know the keys of a pair, in place of those that they had with each other.
    ///
    /// # Errors
    /// As [`Node::statics`].
    pub fn give(&mut self, pair: &Pair, nodes: [usize; 2]) -> Result<()> {
        for (end, node) in nodes.into_iter().enumerate() {
            self.nodes[node].forget_keys(pair.ends[1 - end], pair.ports[1 - end])?;
            self.nodes[node].statics()?.push(pair.entry(end).into());
        }
        pair.sas.iter().for_each(|sa| self.keys.add(sa.clone()));
        Ok(())
    }

    /// The keys of the run, if there are any.
    #[must_use]
    pub fn keys(&self) -> &Keyring {
        &self.keys
    }
}
