//! What differs between two configurations, field by field.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Value;

use super::Config;

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
        let (before, after) = (leaves(self), leaves(new));
        let mut paths: Vec<_> = before.keys().chain(after.keys()).collect();
        paths.sort_unstable();
        paths.dedup();
        let change = |path: &String| {
            let (before, after) = (before.get(path).cloned(), after.get(path).cloned());
            (before != after).then(|| Change { path: path.clone(), before, after })
        };
        paths.into_iter().filter_map(change).collect()
    }
}

/// Every field that is not a table or a list of tables, by path.
fn leaves(config: &Config) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    // Every type in there is one that TOML has; the checker's test writes and reads a configuration with every field.
    if let Ok(value) = Value::try_from(config) {
        collect(String::new(), &value, &mut leaves);
    }
    leaves
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
/// by protocol address.
fn name_of(element: &Value) -> Option<String> {
    if let Some(prefix) = element.get("prefix").and_then(Value::as_str) {
        let table = element.get("table").and_then(Value::as_integer).unwrap_or(0);
        return Some(if table == 0 { prefix.to_owned() } else { format!("{prefix} in {table}") });
    }
    if let Some(id) = element.get("id").and_then(Value::as_integer) {
        return Some(id.to_string());
    }
    let name = element.get("name").or_else(|| element.get("protocol"))?;
    name.as_str().map(str::to_owned)
}
