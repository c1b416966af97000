//! Tests that a document names: a cell of a table is `file` `test`, `test`; `file` `test` .. with paths from the root of the tree.

use std::fs;
use std::path::Path;

/// What is wrong with a cell: a file or a test that there is not, or no test at all.
#[must_use]
pub fn faults(root: &Path, cell: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut file, mut named) = (None, 0);
    for word in cell.split('`').skip(1).step_by(2) {
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
        faults.push("no test".to_owned());
    }
    faults
}

/// Whether the source has a function of this name under a test attribute.
#[must_use]
pub fn has_test(source: &str, name: &str) -> bool {
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
