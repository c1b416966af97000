//! `nave-perf spokes` and `nave-perf soak` as a user runs them, with the data plane of the same build (`cargo build --bins` first, as for the
//! black-box tests). They want root: the data plane's twins are in a network namespace of their own.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;

use serde_json::Value;

fn run(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_nave-perf")).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap()
}

fn number(report: &Value, field: &str) -> f64 {
    report[field].as_f64().unwrap_or_else(|| panic!("{field} of {report}"))
}

/// Input: 300 spokes that come twice, while packets to 64 others run. Output: every packet came back, opened and right; figures of time and
/// memory; how the times were taken.
#[test]
fn packets_run_while_spokes_come() {
    let report = run(&["spokes", "--json", "--spokes", "300", "--seconds", "1", "--rounds", "2"]);
    assert_eq!(report["verified"], true);
    assert_eq!(report["rounds"].as_array().unwrap().len(), 2);
    assert_eq!(report["rounds"][0], report["seconds"]);
    assert_eq!(report["steps"], 300 * 4);
    assert!(number(&report, "seconds") > 0.0 && number(&report, "renewal_seconds") > 0.0, "{report}");
    for phase in ["before", "during"] {
        let of = |field| number(&report[phase], field);
        assert!(of("sent") > 0.0 && of("sent") == of("received") && of("lost") == 0.0, "{report}");
        assert!(of("p50_us") > 0.0 && of("p50_us") <= of("max_us"), "{report}");
        assert!(of("away_p999_us") > 0.0 && of("away_p999_us") <= of("away_max_us"), "{report}");
        assert!(
            ["ahead", "nice", "ordinary"].contains(&report[phase]["sender"].as_str().unwrap()),
            "{report}"
        );
    }
}

/// Input: six seconds of full load with 100 spokes, each SA renewed every two, routes and spokes that go and come. Output: all of that
/// happened; no packet lost or wrong, none dropped.
#[test]
fn nothing_is_lost_while_everything_changes() {
    let arguments = ["soak", "--json", "--minutes", "0.13", "--spokes", "100", "--rekey-seconds", "2"];
    let report = run(&arguments);
    assert_eq!(report["verified"], true, "{report}");
    assert_eq!(report["drops"], Value::Array(Vec::new()), "{report}");
    for happened in ["renewed", "churned", "visited"] {
        assert!(number(&report, happened) > 10.0, "{happened}: {report}");
    }
    let packets = &report["packets"];
    assert!(number(packets, "sent") > 10_000.0 && packets["sent"] == packets["received"], "{report}");
}
