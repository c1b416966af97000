//! Every promise of SPECIFICATION.md names tests that exist.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

/// Input: the table rows of SPECIFICATION.md. Output: each ends in `file` `test`, `test`; …, and each file has each test.
#[test]
fn every_promise_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("SPECIFICATION.md")).unwrap();
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| ")).collect();
    let promises: Vec<_> =
        rows.iter().filter(|row| !row.starts_with("| promise") && !row.starts_with("| ---")).collect();
    assert!(promises.len() >= 30, "{} promises: was the table's form changed?", promises.len());
    let mut faults = Vec::new();
    for promise in promises {
        let tests = promise.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let (mut file, mut named) = (None, 0);
        for word in tests.split('`').skip(1).step_by(2) {
            if word.ends_with(".rs") {
                file = Some(word);
                continue;
            }
            let Some(file) = file else {
                faults.push(format!("{word}: of which file?"));
                continue;
            };
            named += 1;
            match fs::read_to_string(root.join(file)) {
                Ok(source) if has_test(&source, word) => {}
                Ok(_) => faults.push(format!("{file} has no test {word}")),
                Err(error) => faults.push(format!("{file}: {error}")),
            }
        }
        if named == 0 {
            faults.push(format!("no test: {promise}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Whether the source has a function of this name under a test attribute.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let is_it = |line: &str| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with('('))
    };
    let at = lines.iter().position(|line| is_it(line));
    at.is_some_and(|at| {
        lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).any(|line| line.contains("test"))
    })
}

/// Input: sources with and without the test. Output: only a test of exactly that name counts.
#[test]
fn a_test_is_one_only_with_its_attribute_and_its_name() {
    assert!(has_test("#[test]\nfn good() {", "good"));
    assert!(has_test("#[tokio::test]\n#[ignore]\nasync fn good() {", "good"));
    assert!(!has_test("fn good() {", "good"));
    assert!(!has_test("#[test]\nfn good_enough() {", "good"));
}
