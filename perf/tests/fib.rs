//! `nave-perf fib` as a user runs it: every table of both families answers as the oracle does, and what it says of them makes sense.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output};

use serde_json::Value;

fn fib(arguments: &[&str]) -> Output {
    let arguments = [&["fib", "--passes", "1"], arguments].concat();
    Command::new(env!("CARGO_BIN_EXE_nave-perf")).args(arguments).output().unwrap()
}

/// Input: few routes. Output: all tables of both families, verified, with every figure; ours in every way, the others in theirs.
#[test]
fn every_table_answers_rightly() {
    let output = fib(&["--routes", "10,2000", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((output.status.code(), &report["verified"]), (Some(0), &Value::Bool(true)), "{text}");
    let tables = report["tables"].as_array().unwrap();
    let names: Vec<_> =
        tables.iter().map(|t| (t["routes"].as_u64().unwrap(), t["table"].as_str().unwrap())).collect();
    let wanted = [["nave", "rte_lpm", "rte_fib"], ["nave", "rte_lpm6", "rte_fib6"]];
    let wanted = wanted.iter().flat_map(|family| {
        [10, 2000].into_iter().flat_map(move |routes| family.iter().map(move |name| (routes, *name)))
    });
    assert_eq!(names, wanted.collect::<Vec<_>>());
    for table in tables {
        let modes: Vec<&str> = table["cycles"].as_object().unwrap().keys().map(String::as_str).collect();
        match table["table"].as_str().unwrap() {
            "nave" => assert_eq!(modes, ["bulk-128", "bulk-32", "early-128", "early-32", "single"]),
            _ => assert_eq!(modes, ["bulk-128", "bulk-32", "single"]),
        }
        for figure in ["memory_bytes", "insert_cycles", "insert_seconds", "delete_cycles", "put_back_cycles"]
        {
            assert!(table[figure].as_f64().unwrap() > 0.0, "{figure} of {table}");
        }
        for mode in modes {
            let of = |figure: &str| table[figure][mode].as_f64().unwrap();
            assert!(of("cycles") >= of("cycles_min") && of("cycles_min") > 0.0, "{table}");
            assert!(table["routes"] != 10 || of("over_fewest") == 0.0, "{table}");
        }
    }
}

#[test]
fn what_is_not_asked_for_is_not_measured() {
    let output = fib(&["--routes", "50", "--family", "ipv6", "--tables", "nave"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(" nave ")).count(), 1, "{text}");
    assert!(!text.contains("rte_") && !text.contains("ipv4"), "{text}");
    assert!(text.ends_with("verified: every answer of every table\n"), "{text}");
}

#[test]
fn flags_that_mean_nothing_are_refused() {
    for (arguments, named) in
        [(["--routes", "0"], "0"), (["--tables", "linux"], "linux"), (["--passes", "0"], "0")]
    {
        let output =
            Command::new(env!("CARGO_BIN_EXE_nave-perf")).arg("fib").args(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text.contains(named), "{arguments:?}: {text}");
    }
}
