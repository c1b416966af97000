//! strongSwan, as a virtual machine runs it: its connections (swanctl.conf), certificates and keys.

use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;

use crate::pki::{Authority, Issued, write};

/// How somebody proves who he is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// By the pre-shared key.
    Psk,
    /// By a certificate: of this name among those of [`Swan`], if it is its own.
    Certificate(String),
}

/// A connection: one peer, one pair of child SAs around GRE between both.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its name, and its child's.
    pub name: String,
    /// Own address.
    pub local: Ipv4Addr,
    /// The peer's; of anybody who comes, if not given.
    pub remote: Option<Ipv4Addr>,
    /// Algorithms of the IKE SA.
    pub ike: String,
    /// Algorithms of the child SA.
    pub esp: String,
    /// How it proves itself.
    pub own: Proof,
    /// How the peer does.
    pub peer: Proof,
    /// Says that there is a NAT though there is none.
    pub encap: bool,
    /// Begins as soon as a packet wants out.
    pub trap: bool,
    /// Whatever else: settings of the connection.
    pub more: String,
}

impl Connection {
    fn text(&self) -> String {
        let Self { name, local, ike, esp, .. } = self;
        let remote = self.remote.map_or_else(|| "%any".to_owned(), |remote| remote.to_string());
        let yes_or_no = |is: bool| if is { "yes" } else { "no" };
        let own = match &self.own {
            Proof::Psk => "auth = psk".to_owned(),
            // Its identity is the name in it.
            Proof::Certificate(file) => {
                format!("auth = pubkey\n certs = {file}.pem\n id = {file}.{}", crate::pki::DOMAIN)
            }
        };
        let peer = match &self.peer {
            Proof::Psk => "auth = psk",
            Proof::Certificate(_) => "auth = pubkey\n revocation = ifuri",
        };
        format!(
            "{name} {{\n version = 2\n local_addrs = {local}\n remote_addrs = {remote}\n mobike = no\n \
             encap = {}\n proposals = {ike}\n {}\n local {{\n {own}\n }}\n remote {{\n {peer}\n id = %any\n }}\n \
             children {{\n {name} {{\n mode = transport\n local_ts = dynamic[gre]\n remote_ts = dynamic[gre]\n \
             esp_proposals = {esp}\n start_action = {}\n }}\n }}\n}}\n",
            yes_or_no(self.encap),
            self.more,
            if self.trap { "trap" } else { "none" }
        )
    }
}

impl Connection {
    /// As a message of strongSwan's interface has it, without addresses and certificates.
    fn json(&self) -> serde_json::Value {
        let proof = |proof: &Proof| match proof {
            Proof::Psk => serde_json::json!({ "auth": "psk" }),
            Proof::Certificate(name) if name.is_empty() => {
                serde_json::json!({ "auth": "pubkey", "id": "%any", "revocation": "ifuri" })
            }
            Proof::Certificate(name) => {
                serde_json::json!({ "auth": "pubkey", "id": format!("{name}.{}", crate::pki::DOMAIN) })
            }
        };
        let child = serde_json::json!({
            "mode": "transport", "local_ts": ["dynamic[gre]"], "remote_ts": ["dynamic[gre]"], "esp_proposals": [self.esp],
        });
        let mut children = serde_json::Map::new();
        children.insert(self.name.clone(), child);
        serde_json::json!({
            "version": "2", "mobike": "no", "unique": "replace", "proposals": [self.ike],
            "local": proof(&self.own), "remote": proof(&self.peer), "children": children,
        })
    }
}

/// All that it goes by.
#[derive(Debug, Clone, Default)]
pub struct Swan {
    /// Its connections.
    pub connections: Vec<Connection>,
    /// What nhrpd begins by (`tunnel protection vici`), each with the addresses of its own.
    pub pattern: Option<Connection>,
    /// Pre-shared key of everybody.
    pub psk: Option<String>,
    /// PEM of the authority that it believes.
    authority: Option<String>,
    /// Its own certificates: name, chain, private key.
    own: Vec<(String, String, String)>,
}

impl Swan {
    /// One that believes an authority.
    #[must_use]
    pub fn believing(authority: &Authority) -> Self {
        Self { authority: Some(authority.pem()), ..Self::default() }
    }

    /// Gives it a certificate.
    #[must_use]
    pub fn with(mut self, name: &str, issued: &Issued) -> Self {
        self.own.push((name.to_owned(), issued.chain.clone(), issued.private_key.clone()));
        self
    }

    /// Writes everything as swanctl wants it.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        for folder in ["x509", "x509ca", "private"] {
            fs::create_dir_all(directory.join(folder))?;
        }
        if let Some(authority) = &self.authority {
            write(&directory.join("x509ca/authority.pem"), authority)?;
        }
        for (name, chain, private_key) in &self.own {
            write(&directory.join(format!("x509/{name}.pem")), chain)?;
            write(&directory.join(format!("private/{name}.pem")), private_key)?;
        }
        if let Some(pattern) = &self.pattern {
            write(&directory.join("pattern.json"), &pattern.json().to_string())?;
        }
        let mut text = String::from("connections {\n");
        self.connections.iter().for_each(|connection| text += &connection.text());
        text += "}\n";
        if let Some(psk) = &self.psk {
            let _ = writeln!(text, "secrets {{\n ike-all {{\n secret = \"{psk}\"\n }}\n}}");
        }
        write(&directory.join("swanctl.conf"), &text)
    }
}
