//! The demonstration: its claims hold in every phase and on both kinds of ports, and it leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use tests::{lock, node, wait};

/// What a cloud makes: namespaces, directories, DPDK's files, processes.
fn traces() -> BTreeSet<String> {
    let mut traces = BTreeSet::new();
    for folder in ["/run/netns", "/run", "/var/run/dpdk"] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("nave") {
                traces.insert(format!("{folder}/{name}"));
            }
        }
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if name.starts_with("nave") {
            traces.insert(format!("{} {}", process.path().display(), name.trim()));
        }
    }
    let pages = |line: &&str| line.starts_with("HugePages_");
    traces.extend(fs::read_to_string("/proc/meminfo").unwrap().lines().filter(pages).map(str::to_owned));
    traces
}

fn tell(phase: &str, ports: &str) {
    let _turn = lock::take_turn().unwrap();
    let before = traces();
    let story = Command::new(node::program("nave-cloud").unwrap())
        .args(["--once", "--phase", phase, "--ports", ports])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&story.stdout);
    println!("{text}{}", String::from_utf8_lossy(&story.stderr));
    assert!(story.status.success(), "phase {phase} on {ports}: {}", story.status);
    assert!(text.contains("claims hold"));
    assert_eq!(traces(), before, "something is left behind");
}

#[test]
fn phase_1_stays_by_the_hub() {
    tell("1", "tap");
}

#[test]
fn phase_2_goes_direct() {
    tell("2", "tap");
}

#[test]
fn phase_3_goes_direct() {
    tell("3", "tap");
}

#[test]
fn phase_3_goes_direct_on_packet_sockets() {
    tell("3", "af_packet");
}

/// Ends the cloud while it stays up, or while it tells its story, and looks for what is left.
fn end_by(signal: Signal, after: Duration) {
    let _turn = lock::take_turn().unwrap();
    let before = traces();
    let mut cloud = Command::new(node::program("nave-cloud").unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    assert!(traces().len() > before.len(), "the cloud had made nothing yet");
    kill(Pid::from_raw(cloud.id().try_into().unwrap()), signal).unwrap();
    cloud.wait().unwrap();
    wait::until_true("everything is gone", Duration::from_secs(15), || traces() == before)
        .unwrap_or_else(|e| panic!("{e:#}: {:?}", traces().difference(&before)));
}

#[test]
fn a_killed_cloud_leaves_nothing_behind() {
    end_by(Signal::SIGKILL, Duration::from_secs(5));
}

#[test]
fn an_interrupted_story_leaves_nothing_behind() {
    end_by(Signal::SIGINT, Duration::from_secs(5));
}

#[test]
fn ctrl_c_ends_the_stay() {
    end_by(Signal::SIGINT, Duration::from_secs(40));
}
