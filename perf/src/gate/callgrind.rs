//! What callgrind counted: by function, and by the file that a line is from, wherever it was inlined.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

use super::{Counted, valgrind};
use crate::lane::DISTINCT;
use crate::scenario::Kind;

/// Least that is told by itself, in instructions per packet: all below is one entry.
const LEAST: f64 = 0.05;
/// The entry of all that is below.
const REST: &str = "(rest)";
/// What was counted before this is called is forgotten; counting begins there and ends where it returns …
const COUNTED: &str = concat!(env!("CARGO_CRATE_NAME"), "::lane::Lane::run_counted");
/// … but for these: the portable provider of AES-GCM at work. (Whole names with a star at the end at most: callgrind finds no others
/// where there are several.)
const CIPHER: &str = "aead::libraries::aes_gcm_*";

/// Runs a scenario under callgrind.
///
/// # Errors
/// It does not run, or packets came out wrong.
pub(super) fn count(kind: Kind) -> anyhow::Result<Counted> {
    let file = std::env::temp_dir().join(format!("nave-perf-{}-{}", std::process::id(), kind.name()));
    let mut command = valgrind()?;
    command.args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no", "--quiet"]);
    command.arg(format!("--callgrind-out-file={}", file.display()));
    command.arg(format!("--zero-before={COUNTED}"));
    command.args([format!("--toggle-collect={COUNTED}"), format!("--toggle-collect={CIPHER}")]);
    command.arg(std::env::current_exe()?).args(["counted", "--scenario", kind.name()]);
    match kind {
        Kind::Ipv6 => command.args(["--size", "70"]),
        _ if kind.is_protected() => command.args(["--aead", "aes-gcm"]),
        _ => &mut command,
    };
    let output = command.output().context("valgrind")?;
    let text = std::fs::read_to_string(&file);
    let _ = std::fs::remove_file(&file);
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let counted = parse(&text.with_context(|| file.display().to_string())?, DISTINCT as f64)?;
    ensure!(counted.instructions > 0.0, "nothing was counted: {COUNTED} was not called");
    Ok(counted)
}

/// Reads what callgrind wrote, without compressed names and positions, and divides it by the number of packets.
fn parse(text: &str, packets: f64) -> anyhow::Result<Counted> {
    let (mut functions, mut files) = (BTreeMap::new(), BTreeMap::new());
    let (mut function, mut file) = (String::new(), String::new());
    let mut of_call = false;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = plain(name);
        } else if let Some(name) = ["fl=", "fi=", "fe="].iter().find_map(|key| line.strip_prefix(key)) {
            file = name.to_owned();
        } else if line.starts_with("calls=") {
            of_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            // Behind `calls=` what the called one took, which stands with that one.
            if std::mem::take(&mut of_call) {
                continue;
            }
            let count = line.split(' ').nth(1).and_then(|count| count.parse::<f64>().ok());
            let count = count.with_context(|| format!("callgrind's line {line:?}"))?;
            *functions.entry(function.clone()).or_default() += count;
            *files.entry(source(&file)).or_default() += count;
        }
    }
    let instructions = functions.values().sum::<f64>() / packets;
    let (functions, files) = (shared(functions, packets), shared(files, packets));
    Ok(Counted { instructions: round(instructions), functions, files })
}

/// Per packet, what is very little in one entry.
fn shared(counts: BTreeMap<String, f64>, packets: f64) -> BTreeMap<String, f64> {
    let mut shares: BTreeMap<String, f64> = BTreeMap::new();
    for (name, count) in counts {
        let share = count / packets;
        *shares.entry(if share < LEAST { REST.into() } else { name }).or_default() += share;
    }
    shares.values_mut().for_each(|share| *share = round(*share));
    shares
}

/// To thousandths: what is committed shall be readable.
fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// A function without the hash of its instance, and without the number that callgrind gives to what is called in a circle.
fn plain(name: &str) -> String {
    let name = name.split('\'').next().unwrap_or(name);
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            path.into()
        }
        _ => name.into(),
    }
}

/// A source file from where its crate or library begins: the same wherever it was built.
fn source(path: &str) -> String {
    let ours = ["dataplane/", "wire/src/", "model/src/", "perf/src/"];
    if let Some(at) = ours.iter().filter_map(|root| path.rfind(&format!("/{root}"))).min() {
        return path[at + 1..].into();
    }
    if let Some((_, behind)) = path.split_once("/registry/src/") {
        // Without the name of the registry.
        return behind.split_once('/').map_or(behind, |(_, behind)| behind).into();
    }
    if let Some((_, behind)) = path.split_once("/library/") {
        return behind.into();
    }
    path.rsplit('/').next().unwrap_or(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: a file as callgrind writes it. Output: what was counted in each function and file, not what calls took.
    #[test]
    fn each_line_counts_for_its_function_and_file_and_calls_count_for_the_called() {
        let text = "version: 1\nevents: Ir\n\
            fl=/w/dataplane/forwarding/src/worker.rs\nfn=forwarding::worker::breathe::h0123456789abcdef\n10 400\n\
            fi=/w/dataplane/dpdk/src/mbuf.rs\n7 100\n\
            cfi=/w/dataplane/forwarding/src/stage/classify.rs\ncfn=forwarding::stage::classify::run\ncalls=4 30\n12 2000\n\
            fe=/w/dataplane/forwarding/src/worker.rs\n11 100\n\n\
            fl=/w/dataplane/forwarding/src/stage/classify.rs\nfn=forwarding::stage::classify::run\n30 2000\n\
            fl=/build/glibc/string/memcpy.S\nfn=memcpy\n5 1\n";
        let counted = parse(text, 10.0).unwrap();
        assert_eq!(counted.instructions, 260.1);
        let functions: Vec<_> =
            counted.functions.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(
            functions,
            [
                ("forwarding::stage::classify::run", 200.0),
                ("forwarding::worker::breathe", 60.0),
                ("memcpy", 0.1)
            ]
        );
        let files: Vec<_> = counted.files.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(
            files,
            [
                ("dataplane/dpdk/src/mbuf.rs", 10.0),
                ("dataplane/forwarding/src/stage/classify.rs", 200.0),
                ("dataplane/forwarding/src/worker.rs", 50.0),
                ("memcpy.S", 0.1)
            ]
        );
    }

    #[test]
    fn what_is_very_little_is_one_entry() {
        let text = "fl=/x/a.rs\nfn=a\n1 1000\nfn=b\n1 2\nfn=c\n1 2\n";
        let counted = parse(text, 100.0).unwrap();
        assert_eq!(counted.functions.get("(rest)"), Some(&0.04));
        assert_eq!((counted.functions.len(), counted.instructions), (2, 10.04));
    }

    #[test]
    fn files_of_others_begin_where_their_library_does() {
        let registry = "/root/.cargo/registry/src/index.crates.io-1/zerocopy-0.8/src/lib.rs";
        assert_eq!(source(registry), "zerocopy-0.8/src/lib.rs");
        assert_eq!(source("/rustc/0123abcd/library/core/src/slice/mod.rs"), "core/src/slice/mod.rs");
    }
}
