//! `nave-perf report` as a user runs it, on the results that are committed.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;
use std::process::{Command, Output};

fn report(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nave-perf")).arg("report").args(arguments).output().unwrap()
}

/// Every file of results: each line of each is one that a command wrote, and every run among them was right.
#[test]
fn the_committed_results_make_a_table_and_a_page() {
    let results = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("results");
    for machine in std::fs::read_dir(results).unwrap().map(|entry| entry.unwrap().path()) {
        if !machine.is_dir() {
            continue;
        }
        let files = std::fs::read_dir(&machine).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> = files.map(|file| file.to_str().unwrap().to_owned()).collect();
        let page = std::env::temp_dir().join(format!("nave-report-{}.html", std::process::id()));
        let mut arguments: Vec<&str> =
            files.iter().map(String::as_str).filter(|file| file.ends_with(".jsonl")).collect();
        arguments.extend(["--html", page.to_str().unwrap()]);
        let output = report(&arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said} {text}", machine.display());
        assert!(text.contains("of must") && text.lines().any(|line| line.starts_with("gre-relay")), "{text}");
        let html = std::fs::read_to_string(&page).unwrap();
        assert!(html.contains("<svg") && html.ends_with("</html>\n"));
        std::fs::remove_file(page).unwrap();
    }
}

#[test]
fn what_is_no_result_is_refused_with_its_line() {
    let file = std::env::temp_dir().join(format!("nave-report-{}.jsonl", std::process::id()));
    std::fs::write(&file, "{\"scenario\": \"ipv4\"}\n\nno JSON\n").unwrap();
    let output = report(&[file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("line 3"), "{said}");
    assert_eq!(report(&["/nowhere/at/all"]).status.code(), Some(1));
    assert_eq!(report(&[]).status.code(), Some(2));
}
