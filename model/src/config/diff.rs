//! What differs between two configurations, field by field.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Value;

use super::Config;
use super::profile::HIDDEN;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Path of the field; elements of a list that have a name are called by it: `tunnels[tunnel0].nhrp.holding_time`.
    pub path: String,
    /// Value before, as TOML; `None`: it was not there.
    pub before: Option<String>,
    /// Value after; `None`: it is gone.
    pub after: Option<String>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.before, &self.after) {
            (None, Some(after)) => write!(f, "+ {} = {after}", self.path),
            (Some(before), None) => write!(f, "- {} = {before}", self.path),
            (Some(before), Some(after)) if before == after && before == HIDDEN => {
                write!(f, "~ {} changed", self.path)
            }
            (before, after) => {
                let [before, after] = [before, after].map(|v| v.as_deref().unwrap_or("nothing"));
                write!(f, "~ {} = {before} -> {after}", self.path)
            }
        }
    }
}

impl Config {
    /// What changes when `new` takes the place of this one; defaults count as written. In order of path.
    #[must_use]
    pub fn changes_to(&self, new: &Self) -> Vec<Change> {
        let mut keys = Vec::new();
        let (before, after) = (leaves(self, &mut keys), leaves(new, &mut keys));
        let mut paths: Vec<_> = before.keys().chain(after.keys()).collect();
        paths.sort_unstable();
        paths.dedup();
        let change = |path: &String| {
            let (before, after) = (before.get(path).cloned(), after.get(path).cloned());
            (before != after).then(|| Change {
                path: path.clone(),
                before: shown(before),
                after: shown(after),
            })
        };
        paths.into_iter().filter_map(change).collect()
    }
}

/// Every field that is not a table or a list of tables, by path. In the place of a key stands which of `keys` it is, so that keys differ
/// from each other and tell nothing.
fn leaves<'a>(config: &'a Config, keys: &mut Vec<&'a [u8]>) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    // Every type in there is one that TOML has; the checker's test writes and reads a configuration with every field.
    let Ok(mut value) = Value::try_from(config) else { return leaves };
    let mut numbered = |key: &'a [u8]| {
        let known = keys.iter().position(|other| *other == key);
        let number = known.unwrap_or_else(|| {
            keys.push(key);
            keys.len() - 1
        });
        Value::String(format!("{HIDDEN}{number}"))
    };
    for (n, profile) in config.profiles.iter().enumerate() {
        let Some(own) = value.get_mut("profiles").and_then(|all| all.get_mut(n)) else { continue };
        for (m, peer) in profile.statics.iter().enumerate() {
            for (direction, sa) in [("inbound", &peer.inbound), ("outbound", &peer.outbound)] {
                let shown =
                    own.get_mut("static").and_then(|all| all.get_mut(m)?.get_mut(direction)?.get_mut("key"));
                if let Some(shown) = shown {
                    *shown = numbered(sa.key.0.keymat());
                }
            }
        }
        for (m, psk) in profile.ike.iter().flat_map(|ike| &ike.psks).enumerate() {
            let shown = own.get_mut("ike").and_then(|ike| ike.get_mut("psk")?.get_mut(m)?.get_mut("secret"));
            if let (Some(shown), Some(secret)) = (shown, &psk.secret) {
                *shown = numbered(secret.0.as_bytes());
            }
        }
    }
    collect(String::new(), &value, &mut leaves);
    leaves
}

/// A value as it is told: of a key that there is one.
fn shown(value: Option<String>) -> Option<String> {
    let is_key = value.as_ref().is_some_and(|value| value.trim_start_matches('"').starts_with(HIDDEN));
    if is_key { Some(HIDDEN.to_owned()) } else { value }
}

fn collect(path: String, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                let dot = if path.is_empty() { "" } else { "." };
                collect(format!("{path}{dot}{name}"), value, leaves);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_table) => {
            let mut seen = BTreeMap::<String, usize>::new();
            for (n, value) in list.iter().enumerate() {
                let mut name = name_of(value).unwrap_or_else(|| n.to_string());
                // Routes of equal cost are told apart by their order.
                let times = seen.entry(name.clone()).or_default();
                *times += 1;
                if *times > 1 {
                    name = format!("{name} #{times}");
                }
                collect(format!("{path}[{name}]"), value, leaves);
            }
        }
        leaf => {
            leaves.insert(path, leaf.to_string());
        }
    }
}

/// What an element of a list is called: an interface or tunnel by name, a route by prefix and table, a table by number, an NHS or map
/// by protocol address, a peer with static keys by NBMA address and port, a pre-shared key by whose it is.
fn name_of(element: &Value) -> Option<String> {
    if let Some(remote) = element.get("remote").and_then(Value::as_str) {
        let port = element.get("port").and_then(Value::as_integer).unwrap_or(0);
        return Some(if port == 0 { remote.to_owned() } else { format!("{remote} port {port}") });
    }
    if let Some(prefix) = element.get("prefix").and_then(Value::as_str) {
        let table = element.get("table").and_then(Value::as_integer).unwrap_or(0);
        return Some(if table == 0 { prefix.to_owned() } else { format!("{prefix} in {table}") });
    }
    if let Some(id) = element.get("id").and_then(Value::as_integer) {
        return Some(id.to_string());
    }
    let name = element.get("name").or_else(|| element.get("protocol")).or_else(|| element.get("peer"))?;
    name.as_str().map(str::to_owned)
}
