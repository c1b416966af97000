//! The house keeps its shape: who may import whom, who may be unsafe, what nobody may be called.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// Each crate's layer. A crate imports from lower layers only.
const LAYERS: [(&str, u8); 17] = [
    ("wire", 0),
    ("dpdk-sys", 0),
    ("memory", 0),
    ("aead", 0),
    ("twin", 0),
    ("model", 1),
    ("dpdk", 1),
    ("forwarding", 2),
    ("nhrp", 2),
    ("ike", 2),
    ("proto", 2),
    ("dataplane", 3),
    ("controlplane", 3),
    ("ctl", 3),
    ("perf", 4),
    ("tests", 4),
    ("fuzz", 4),
];

/// No clocks, no sockets, no runtime: time and packets come in as arguments.
const PURE: [&str; 5] = ["wire", "model", "forwarding", "nhrp", "ike"];

/// What a pure crate may not even reach through others.
const IMPURE: [&str; 6] = ["tokio", "tonic", "hyper", "mio", "socket2", "rtnetlink"];

/// Where `unsafe` is. Everywhere else it is denied or forbidden.
const UNSAFE: [&str; 5] = ["dpdk-sys", "dpdk", "memory", "aead", "twin"];

/// All that both processes may have in common.
const SHARED: [&str; 4] = ["wire", "twin", "model", "proto"];

/// Words that say nothing about a thing.
const EMPTY_WORDS: [&str; 10] =
    ["Manager", "Handler", "Helper", "Util", "Utils", "Info", "Data", "Context", "Base", "Impl"];

/// Words of the glossary as they are not to be spelled, and as they are.
const MISSPELT: [(&str, &str); 4] = [
    ("nexthop", "next_hop"),
    ("neighbor", "neighbour"),
    ("shortcut_route", "shortcut"),
    ("hold_time", "holding_time"),
];

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).exec().unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(n, _)| *n == name).map(|(_, layer)| *layer)
}

/// All that a package is linked with, itself included (without what only its tests need).
fn closure<'m>(metadata: &'m Metadata, package: &'m Package) -> BTreeSet<&'m str> {
    let resolve = metadata.resolve.as_ref().unwrap();
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|n| (&n.id, n)).collect();
    let (mut seen, mut next) = (BTreeSet::new(), vec![&package.id]);
    while let Some(id) = next.pop() {
        if !seen.insert(id) {
            continue;
        }
        let linked =
            |d: &&cargo_metadata::NodeDep| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal);
        next.extend(nodes[id].deps.iter().filter(linked).map(|d| &d.pkg));
    }
    seen.into_iter().map(|id| metadata[id].name.as_str()).collect()
}

#[test]
fn a_crate_imports_from_lower_layers_only() {
    let metadata = metadata();
    let mut faults = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let Some(own) = layer(name) else {
            faults.push(format!("{name} has no layer: give it one in LAYERS and in docs/architecture.md"));
            continue;
        };
        for dependency in &package.dependencies {
            let Some(other) = layer(&dependency.name).filter(|_| dependency.path.is_some()) else { continue };
            // Tests may borrow from their own layer, but nobody imports layer 4.
            let allowed = match dependency.kind {
                DependencyKind::Development => other < 4,
                _ => other < own,
            };
            if !allowed {
                faults.push(format!("{name} (layer {own}) imports {} (layer {other})", dependency.name));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(metadata.workspace_packages().len(), LAYERS.len(), "LAYERS names a crate that is not there");
}

#[test]
fn a_folder_has_the_name_of_its_crate() {
    for package in metadata().workspace_packages() {
        let folder = package.manifest_path.parent().and_then(|p| p.file_name());
        assert_eq!(folder, Some(package.name.as_str()));
    }
}

#[test]
fn the_processes_share_the_contract_and_no_more() {
    let metadata = metadata();
    let ours = |name: &str| {
        let package = metadata.workspace_packages().into_iter().find(|p| p.name.as_str() == name).unwrap();
        let names = closure(&metadata, package).into_iter().filter(|n| layer(n).is_some());
        names.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let common: BTreeSet<_> = ours("dataplane").intersection(&ours("controlplane")).cloned().collect();
    let allowed = SHARED.map(str::to_owned).into();
    assert!(common.is_subset(&allowed), "both processes contain {:?}", common.difference(&allowed));
}

#[test]
fn pure_crates_reach_no_clock_and_no_socket() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        if PURE.contains(&name) {
            let reached = closure(&metadata, package);
            let impure: Vec<_> = IMPURE.iter().filter(|i| reached.contains(**i)).collect();
            assert!(impure.is_empty(), "{name} is linked with {impure:?}");
        }
    }
}

#[test]
fn unsafe_stays_where_it_is_allowed() {
    for package in metadata().workspace_packages() {
        let name = package.name.as_str();
        let folder = package.manifest_path.parent().unwrap().as_std_path().to_owned();
        let sources = own_sources(&folder);
        let text = |path: &PathBuf| fs::read_to_string(path).unwrap();
        if !UNSAFE.contains(&name) {
            for path in &sources {
                let lifted = text(path)
                    .lines()
                    .any(|l| l.trim_start().starts_with("#") && l.contains("allow(unsafe_code"));
                assert!(!lifted, "{} lifts the ban on unsafe code", path.display());
            }
        }
        if !UNSAFE.contains(&name) && layer(name) < Some(3) {
            let library = text(&folder.join("src/lib.rs"));
            let forbids = library.lines().any(|l| l == "#![forbid(unsafe_code)]");
            assert!(forbids, "{name}: `#![forbid(unsafe_code)]` is missing at its root");
        }
    }
}

#[test]
fn nothing_is_called_what_says_nothing() {
    let mut faults = Vec::new();
    for path in sources(&root()) {
        // This file has to name them.
        if path.ends_with("tests/tests/architecture.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (line, number) in text.lines().zip(1..) {
            if let Some(fault) = definition(line).and_then(fault_of_name) {
                let path = path.strip_prefix(root()).unwrap();
                faults.push(format!("{}:{number}: {fault}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The kind and name of what a line defines.
fn definition(line: &str) -> Option<(&str, &str)> {
    let mut words = line.trim_start().split(|c: char| c.is_whitespace() || c == '(').filter(|w| {
        !w.is_empty()
            && !w.starts_with("pub")
            && !matches!(*w, "const" | "async" | "unsafe" | "crate)" | "super)")
    });
    let kind = words.next()?;
    if !matches!(kind, "fn" | "struct" | "enum" | "trait" | "type" | "mod" | "union") {
        return None;
    }
    let name = words.next()?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    Some((kind, &name[..end]))
}

fn fault_of_name((kind, name): (&str, &str)) -> Option<String> {
    // Words of a type's name apart, so that `NextHop` is two.
    let snake = camel_words(name).join("_").to_lowercase();
    if let Some((wrong, right)) = MISSPELT.iter().find(|(wrong, _)| snake.contains(wrong)) {
        return Some(format!("{kind} {name}: the word is `{right}`, not `{wrong}`"));
    }
    if kind == "fn" {
        let idle = ["get_", "process_"].iter().find(|p| name.starts_with(**p))?;
        return Some(format!("fn {name}: `{idle}` says nothing"));
    }
    let word =
        camel_words(name).into_iter().find(|w| EMPTY_WORDS.iter().any(|e| e.eq_ignore_ascii_case(w)))?;
    Some(format!("{kind} {name}: `{word}` says nothing"))
}

fn camel_words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for c in name.chars() {
        match words.last_mut() {
            Some(word) if !c.is_uppercase() && c != '_' => word.push(c),
            _ if c == '_' => words.push(String::new()),
            _ => words.push(c.into()),
        }
    }
    words
}

/// A crate's source files, without those of crates in folders below.
fn own_sources(folder: &Path) -> Vec<PathBuf> {
    let below = |p: &PathBuf| {
        let inner = p.ancestors().skip(1).take_while(|a| *a != folder);
        inner.into_iter().any(|a| a.join("Cargo.toml").exists())
    };
    sources(folder).into_iter().filter(|p| !below(p)).collect()
}

/// Every source file below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut next) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                next.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn the_test_sees_faults() {
    assert_eq!(definition("    pub(crate) async fn get_it(&self) {"), Some(("fn", "get_it")));
    assert_eq!(definition("pub struct PeerInfo<T> {"), Some(("struct", "PeerInfo")));
    assert_eq!(definition("pub const fn idle() -> u8 {"), Some(("fn", "idle")));
    assert_eq!(definition("let fn_name = 3;"), None);
    for bad in [
        ("struct", "PeerInfo"),
        ("trait", "BaseTable"),
        ("fn", "get_it"),
        ("mod", "utils"),
        ("fn", "nexthop_of"),
        ("struct", "NexthopShow"),
    ] {
        assert!(fault_of_name(bad).is_some(), "{bad:?}");
    }
    for good in [
        ("struct", "Dataplane"),
        ("struct", "Database"),
        ("fn", "target_of"),
        ("fn", "next_hop"),
        ("struct", "NextHop"),
        ("mod", "model"),
    ] {
        assert_eq!(fault_of_name(good), None);
    }
}
