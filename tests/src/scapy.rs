//! ESP of scapy: an implementation that shares nothing with ours, not even the library that does the arithmetic.
//!
//! It runs in a Python environment of its own below the target directory, which is made once, of exact versions from PyPI.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

const REQUIREMENTS: &str = include_str!("scapy/requirements.txt");
const PROGRAM: &str = include_str!("scapy/esp.py");

/// An environment with scapy in it.
#[derive(Debug)]
pub struct Scapy {
    python: PathBuf,
}

impl Scapy {
    /// Finds the environment below `folder`, or makes it: wants python3 with `venv`, and PyPI.
    ///
    /// # Errors
    /// One of them is not there: a sentence that says which.
    pub fn install(folder: &Path) -> Result<Self> {
        let home = folder.join("scapy");
        fs::create_dir_all(&home)?;
        // Tests of several programs may want it at once.
        let lock = File::create(home.join("lock"))?;
        lock.lock().context("waiting for another test to install scapy")?;
        let (python, installed) = (home.join("bin/python"), home.join("installed.txt"));
        if fs::read_to_string(&installed).is_ok_and(|text| text == REQUIREMENTS) && python.exists() {
            return Ok(Self { python });
        }
        let output = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home).output();
        let output = output.context("scapy wants python3, which cannot be run")?;
        ensure!(
            output.status.success(),
            "scapy wants python3 with venv (the package python3-venv of Debian): {}",
            last_line(&output)
        );
        let wanted = home.join("requirements.txt");
        fs::write(&wanted, REQUIREMENTS)?;
        let output = Command::new(&python)
            .args(["-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"])
            .arg("--requirement")
            .arg(&wanted)
            .output()
            .context("running pip")?;
        ensure!(
            output.status.success(),
            "pip could not install scapy and cryptography from PyPI (can it be reached?): {}",
            last_line(&output)
        );
        fs::write(&installed, REQUIREMENTS)?;
        Ok(Self { python })
    }

    /// What scapy answers to each case, in order.
    ///
    /// # Errors
    /// Its program ends early; what it said is in the error.
    pub fn answers(&self, cases: &[Value]) -> Result<Vec<Value>> {
        let mut child = Command::new(&self.python)
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("running scapy")?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let lines: String = cases.iter().map(|case| format!("{case}\n")).collect();
        // It answers while it is asked.
        let asked = thread::spawn(move || stdin.write_all(lines.as_bytes()));
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "scapy: {}: {said}", output.status);
        asked.join().ok().context("asking scapy")?.with_context(|| format!("scapy: {said}"))?;
        let answers = String::from_utf8(output.stdout)?;
        let answers = answers.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        ensure!(answers.len() == cases.len(), "scapy answered {} of {} cases", answers.len(), cases.len());
        Ok(answers)
    }
}

fn last_line(output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    said.trim_end().lines().next_back().unwrap_or("it said nothing").to_owned()
}
