//! A node to be, where a cloud is not one of the examples: its name, its number, and a configuration made of a few words.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::cloud::TUNNEL;

/// A node to be. Its number stands in its addresses: 203.0.113.`number` on the underlay, 192.168.`number`.1 on its LAN.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u8,
    /// Its configuration, without the paths of a run.
    pub config: Table,
}

impl Site {
    /// One with a port to the underlay, one to a LAN, and a multipoint tunnel with this address.
    ///
    /// # Errors
    /// The address is none.
    pub fn new(name: &str, number: u8, tunnel: &str) -> Result<Self> {
        let config = format!(
            r#"
            [node]
            name = "{name}"
            [[interfaces]]
            name = "wan"
            addresses = ["203.0.113.{number}/24"]
            [[interfaces]]
            name = "lan"
            addresses = ["192.168.{number}.1/24"]
            [[tunnels]]
            name = "{TUNNEL}"
            mode = "gre-multipoint"
            source = "wan"
            key = 42
            mtu = 1400
            addresses = ["{tunnel}"]
            [tunnels.nhrp]
            network_id = 1
            authentication = "wheel"
            holding_time = 600
            "#
        );
        Ok(Self { name: name.to_owned(), number, config: config.parse()? })
    }

    /// Its address on the tunnel.
    #[must_use]
    pub fn tunnel(&self) -> Option<Ipv4Addr> {
        let addresses = self.config.get("tunnels")?.get(0)?.get("addresses")?.as_array()?;
        let hosts = addresses.iter().filter_map(|text| text.as_str()?.split('/').next());
        hosts.filter_map(|host| host.parse().ok()).next()
    }

    /// What is under `nhrp` of its tunnel, with this too.
    ///
    /// # Errors
    /// The words are no TOML.
    pub fn nhrp(mut self, words: &str) -> Result<Self> {
        let more: Table = words.parse().with_context(|| words.to_owned())?;
        let tunnel = self.config.get_mut("tunnels").and_then(|tunnels| tunnels.get_mut(0));
        let nhrp = tunnel.and_then(|tunnel| tunnel.get_mut("nhrp")).and_then(Value::as_table_mut);
        nhrp.context("no nhrp")?.extend(more);
        Ok(self)
    }

    /// With a route by this address, wherever that is.
    ///
    /// # Errors
    /// What was there under `routes` is no list.
    pub fn route(mut self, prefix: &str, next_hop: impl Into<IpAddr>) -> Result<Self> {
        let route = [("prefix", prefix.to_owned()), ("next_hop", next_hop.into().to_string())];
        let route: Table =
            route.map(|(name, text)| (name.to_owned(), Value::from(text))).into_iter().collect();
        let routes = self.config.entry("routes").or_insert_with(|| Value::Array(Vec::new()));
        routes.as_array_mut().context("routes")?.push(route.into());
        Ok(self)
    }
}
