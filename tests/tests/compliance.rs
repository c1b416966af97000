//! docs/compliance/nhrp.md goes through RFC 2332, and names tests that exist.
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

/// The cells of a row.
fn cells(row: &str) -> Vec<&str> {
    row.trim_start_matches("| ").trim_end_matches(" |").split(" | ").collect()
}

/// Input: the rows of both tables. Output: each clause has tests that exist, or does not apply and says why; each fault of others has
/// tests; and no section is left out.
#[test]
fn every_clause_and_every_fault_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("docs/compliance/nhrp.md")).unwrap();
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
    let missing: Vec<_> = SECTIONS.iter().filter(|s| !sections.contains(**s)).collect();
    assert!(missing.is_empty(), "sections without a clause: {missing:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(counts.0 >= 80 && counts.1 >= 20, "{counts:?}: was the form of the tables changed?");
}
