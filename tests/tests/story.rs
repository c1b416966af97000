//! The demonstration: its claims hold in every phase, on both kinds of ports, protected by IKE and by static keys and in the clear, and it leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use tests::{cloud, lock, node, wait};

/// What the cloud of this name made and is still there: namespaces, directories, DPDK's files, processes.
fn traces(name: &str) -> BTreeSet<String> {
    let mut traces = BTreeSet::new();
    for folder in ["/run/netns", "/run", "/var/run/dpdk"] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(name) {
                traces.insert(entry.path().display().to_string());
            }
        }
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(name) {
            traces.insert(format!("{}: {command}", process.path().display()));
        }
    }
    traces
}

/// The demonstration under a name that no other has, and that name.
fn cloud() -> (Command, String) {
    let name = format!("{}-", cloud::test_prefix());
    let mut command = Command::new(node::program("nave-cloud").unwrap());
    command.args(["--name", &name]);
    (command, name)
}

fn tell(phase: &str, ports: &str, protection: &str) {
    let _turn = lock::take_turn().unwrap();
    let (mut command, name) = cloud();
    let words = ["--once", "--phase", phase, "--ports", ports, "--protection", protection];
    let story = command.args(words).output().unwrap();
    let text = String::from_utf8_lossy(&story.stdout);
    println!("{text}{}", String::from_utf8_lossy(&story.stderr));
    assert!(story.status.success(), "phase {phase} on {ports}, {protection}: {}", story.status);
    assert!(text.contains("claims hold"));
    assert_eq!(traces(&name), BTreeSet::new(), "something is left behind");
}

#[test]
fn phase_1_stays_by_the_hub() {
    tell("1", "tap", "ikev2");
}

#[test]
fn phase_2_goes_direct() {
    tell("2", "tap", "ikev2");
}

#[test]
fn phase_3_goes_direct() {
    tell("3", "tap", "ikev2");
}

#[test]
fn phase_3_goes_direct_on_packet_sockets() {
    tell("3", "af_packet", "ikev2");
}

#[test]
fn phase_3_goes_direct_with_static_keys() {
    tell("3", "tap", "static-keys");
}

#[test]
fn phase_3_goes_direct_in_the_clear() {
    tell("3", "tap", "none");
}

/// A test that fails shall not leave its cloud to stay.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal when the cloud says this, and looks for what is left.
fn end_by(signal: Signal, when: &str) {
    let _turn = lock::take_turn().unwrap();
    let (mut command, name) = cloud();
    let mut cloud = Killed(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(cloud.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(when)), "it never says {when}");
    assert!(traces(&name).len() > 10, "{:?}", traces(&name));
    kill(Pid::from_raw(cloud.0.id().try_into().unwrap()), signal).unwrap();
    lines.for_each(drop);
    let status = cloud.0.wait().unwrap();
    // Whoever is killed cannot wait for the end of the cleaning.
    let patience = Duration::from_secs(if signal == Signal::SIGKILL { 15 } else { 0 });
    wait::until_true("everything is gone", patience, || traces(&name).is_empty())
        .unwrap_or_else(|e| panic!("{e:#}: {:#?}", traces(&name)));
    assert_eq!(status.success(), when == STAYING, "{status}");
}

/// What the cloud says when its story is told.
const STAYING: &str = "stays up until Ctrl-C";

#[test]
fn a_killed_cloud_leaves_nothing_behind() {
    end_by(Signal::SIGKILL, "hosts talk");
}

#[test]
fn an_interrupted_story_leaves_nothing_behind() {
    end_by(Signal::SIGINT, "hosts talk");
}

#[test]
fn ctrl_c_ends_the_stay() {
    end_by(Signal::SIGINT, STAYING);
}
