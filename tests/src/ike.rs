//! A cloud whose keys IKEv2 agrees on: each node has a certificate of one authority, which is made for the run, and believes those of it.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::cloud::Cloud;
use crate::keys::PROFILE;
use crate::node::Node;
use crate::pki::{self, Authority, Files, Issued, KeyKind};

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

fn text(path: &PathBuf) -> String {
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
