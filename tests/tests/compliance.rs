//! docs/compliance goes through RFC 2332 (nhrp.md) and RFC 7296 (ike.md), and names tests that exist.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tests::named::faults;

/// Sections of RFC 2332 with clauses that a node can keep or break.
const SECTIONS: [&str; 25] = [
    "2.2", "3", "4", "5", "5.1", "5.2.0.1", "5.2.1", "5.2.2", "5.2.3", "5.2.4", "5.2.5", "5.2.6", "5.2.7",
    "5.3", "5.3.1", "5.3.2", "5.3.3", "5.3.4", "5.3.4.1", "5.3.4.2", "5.3.5", "6.1", "6.2.1", "6.3", "6.4",
];

/// Sections of RFC 7296 with clauses that a node can keep or break.
const IKE_SECTIONS: [&str; 71] = [
    "1.2", "1.3", "1.3.1", "1.3.2", "1.3.3", "1.4", "1.4.1", "1.5", "2", "2.1", "2.2", "2.3", "2.4", "2.5",
    "2.6", "2.6.1", "2.7", "2.8", "2.8.1", "2.8.2", "2.8.3", "2.9", "2.9.1", "2.9.2", "2.10", "2.11", "2.12",
    "2.13", "2.14", "2.15", "2.16", "2.17", "2.18", "2.19", "2.20", "2.21", "2.21.1", "2.21.2", "2.21.3",
    "2.21.4", "2.22", "2.23", "2.23.1", "2.24", "2.25", "2.25.1", "2.25.2", "3.1", "3.2", "3.3", "3.3.1",
    "3.3.2", "3.3.3", "3.3.4", "3.3.5", "3.3.6", "3.4", "3.5", "3.6", "3.7", "3.8", "3.9", "3.10", "3.11",
    "3.12", "3.13", "3.14", "3.15", "3.16", "4", "5",
];

/// The cells of a row.
fn cells(row: &str) -> Vec<&str> {
    row.trim_start_matches("| ").trim_end_matches(" |").split(" | ").collect()
}

/// Input: the rows of both tables. Output: each clause has tests that exist, or does not apply and says why; each fault of others has
/// tests; and no section is left out.
#[test]
fn every_clause_and_every_fault_has_its_test() {
    check("nhrp.md", &SECTIONS, (80, 20));
}

/// Input: the rows of both tables. Output: each clause has tests that exist, or does not apply and says why, and no section is left out.
#[test]
fn every_clause_of_ike_has_its_test() {
    check("ike.md", &IKE_SECTIONS, (90, 0));
}

/// The tables of a document: these sections at least, so many clauses and faults of others.
fn check(document: &str, wanted: &[&str], least: (usize, usize)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("docs/compliance").join(document)).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ")).map(cells);
    let rows: Vec<_> = rows.filter(|c| !matches!(c[0], "§" | "where" | "---")).collect();
    let (mut wrong, mut sections, mut counts) = (Vec::new(), BTreeSet::new(), (0, 0));
    for row in rows {
        match row[..] {
            [section, clause, here, tests] => {
                counts.0 += 1;
                sections.extend(section.split(", ").map(str::to_owned));
                if tests == "—" {
                    let why = here.strip_prefix("does not apply: ");
                    if why.is_none_or(|why| why.len() < 20) {
                        wrong.push(format!("§{section} {clause}: neither a test nor a reason"));
                    }
                } else {
                    wrong
                        .extend(faults(root, tests).into_iter().map(|f| format!("§{section} {clause}: {f}")));
                }
            }
            [place, fault, tests] => {
                counts.1 += 1;
                wrong.extend(faults(root, tests).into_iter().map(|f| format!("{place}, {fault}: {f}")));
            }
            _ => wrong.push(format!("{row:?}: how many cells is that?")),
        }
    }
    let missing: Vec<_> = wanted.iter().filter(|s| !sections.contains(**s)).collect();
    assert!(missing.is_empty(), "sections without a clause: {missing:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(counts.0 >= least.0 && counts.1 >= least.1, "{counts:?}: was the form of the tables changed?");
}
