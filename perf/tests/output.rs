//! What `--write-output` keeps, read by somebody else: Wireshark's dissector decrypts it with the keys beside it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of a test's own; it goes with all that is in it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nave-perf-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Has `nave-perf` write what came out, and the dissector say of each frame what is in these fields.
fn dissected(folder: &Folder, arguments: &[&str], fields: &[&str]) -> Vec<Vec<String>> {
    let file = folder.0.join("out.pcap");
    let perf = Command::new(env!("CARGO_BIN_EXE_nave-perf"))
        .args(arguments)
        .arg("--write-output")
        .arg(&file)
        .output()
        .unwrap();
    assert!(perf.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&perf.stderr));
    let keys = folder.0.join("out.pcap.esp_sa");
    if keys.exists() {
        let profile = folder.0.join(".config/wireshark");
        fs::create_dir_all(&profile).unwrap();
        fs::copy(&keys, profile.join("esp_sa")).unwrap();
    }
    tshark(&folder.0, &file, fields)
}

fn tshark(home: &Path, file: &Path, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.env("HOME", home).env_remove("XDG_CONFIG_HOME").arg("-r").arg(file);
    command.args(["-o", "esp.enable_encryption_decode:TRUE", "-T", "fields"]);
    let fields = fields.iter().flat_map(|field| ["-e", field]);
    let output = command.args(fields).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Input: a hub's work, sealed for 20 spokes. Output: 1,024 frames, in each the inner packet of the scenario, one hop older, which nobody
/// finds without the right keys.
#[test]
fn somebody_else_decrypts_what_came_out() {
    let folder = Folder::new("sealed");
    let relay = ["graph", "--scenario", "relay", "--size", "90", "--spokes", "20", "--packets", "1"];
    let fields = ["esp.spi", "gre.key", "ip.ttl", "udp.srcport", "udp.dstport", "udp.length"];
    let frames = dissected(&folder, &relay, &fields);
    assert_eq!(frames.len(), 1024);
    let mut spis: Vec<&str> = frames.iter().map(|frame| frame[0].as_str()).collect();
    spis.sort_unstable();
    spis.dedup();
    assert_eq!(spis.len(), 20, "{spis:?}");
    for frame in &frames {
        // Outer and inner header: what the tunnel sends, and a packet that one router has seen.
        assert_eq!(frame[1..], ["0x6e617665", "255,63", "1000", "2000", "56"], "{frame:?}");
    }
    // Without the keys there is nothing but ESP.
    fs::remove_file(folder.0.join(".config/wireshark/esp_sa")).unwrap();
    let closed = tshark(&folder.0, &folder.0.join("out.pcap"), &fields);
    assert!(closed.iter().all(|frame| frame[1].is_empty() && frame[2] == "255"), "{:?}", closed[0]);
}

/// Input: the clear path. Output: as many frames, and no keys beside them.
#[test]
fn what_came_out_in_the_clear_is_written_without_keys() {
    let folder = Folder::new("clear");
    let encap = ["graph", "--scenario", "encap", "--spokes", "3", "--packets", "1"];
    let frames = dissected(&folder, &encap, &["gre.key", "ip.ttl", "frame.len"]);
    assert_eq!(frames.len(), 1024);
    assert!(frames.iter().all(|frame| *frame == ["0x6e617665", "255,63", "92"]), "{:?}", frames[0]);
    assert!(!folder.0.join("out.pcap.esp_sa").exists());
}
