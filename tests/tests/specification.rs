//! Every promise of SPECIFICATION.md names tests that exist.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

use tests::named::{faults as faults_of, has_test};

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
        faults.extend(faults_of(root, tests).into_iter().map(|fault| format!("{fault}: {promise}")));
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Input: sources with and without the test. Output: only a test of exactly that name counts.
#[test]
fn a_test_is_one_only_with_its_attribute_and_its_name() {
    assert!(has_test("#[test]\nfn good() {", "good"));
    assert!(has_test("#[tokio::test]\n#[ignore]\nasync fn good() {", "good"));
    assert!(!has_test("fn good() {", "good"));
    assert!(!has_test("#[test]\nfn good_enough() {", "good"));
}
