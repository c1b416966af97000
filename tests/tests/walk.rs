//! docs/walk.md is what a run prints: made again, its blocks have the same shape.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::{cloud, lock, node};

/// Nodes of the graph that a text names at the beginning of its lines, behind the packet's number; and how many blocks it has.
fn shape(text: &str) -> (Vec<String>, usize) {
    let node = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().filter(|first| first.starts_with('#') && first.len() > 1)?;
        // Headings have one `#` more than digits behind it.
        let first = line.trim_start_matches('#').chars().next()?;
        first.is_ascii_digit().then(|| words.next().unwrap_or("").to_owned())
    };
    (text.lines().filter_map(node).collect(), text.matches("<!-- made: ").count())
}

/// Input: docs/walk.md and the program that makes it. Output: five walks by the nodes that stand in the file.
#[test]
fn the_walk_in_the_documentation_is_that_of_a_run() {
    let _turn = lock::take_turn().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/walk.md");
    let made = std::env::temp_dir().join(format!("nave-walk-{}.md", std::process::id()));
    let mut command = Command::new(node::program("nave-walk").unwrap());
    let output =
        command.args(["--name", &cloud::test_prefix(), "--to"]).arg(&made).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [old, new] = [&file, &made].map(|path| shape(&fs::read_to_string(path).unwrap()));
    fs::remove_file(&made).unwrap();
    assert_eq!(new.1, 8);
    assert!(new.0.len() > 20, "{new:?}");
    assert_eq!(old, new, "`make walk` makes it anew");
}
