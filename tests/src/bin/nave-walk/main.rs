//! Makes the blocks of docs/walk.md: a phase 3 cloud is brought up on this machine, one packet is sent by way of the hub and one by
//! the shortcut, and what `nave trace`, `nave capture` and `nave explain` say of them goes between the marks. The rest of the
//! file is written by hand, and stays.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use ::tests::cloud::{Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use ::tests::node::Node;
use ::tests::{tshark, wait};

/// Makes the blocks of docs/walk.md anew, from a run of the demonstration cloud on this machine.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The file: text with blocks between `<!-- made: NAME -->` and `<!-- end -->`.
    #[arg(default_value_os_t = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/walk.md"))]
    file: PathBuf,
    /// Write it there, and leave the file as it is.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// What the names of the cloud's namespaces, and of its folder in /run, begin with.
    #[arg(long, default_value = "nave-walk")]
    name: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let text = fs::read_to_string(&args.file).with_context(|| args.file.display().to_string())?;
    let mut cloud = Cloud::lay(&args.name, Phase::Three, Ports::Tap)?;
    cloud.start()?;
    let blocks = run(&cloud).with_context(|| cloud.logs())?;
    cloud.stop()?;
    let made = fill(&text, &blocks)?;
    let to = args.to.unwrap_or(args.file);
    fs::write(&to, made).with_context(|| to.display().to_string())
}

/// How long after its start a command sees what passes.
const ARMED: Duration = Duration::from_millis(700);

/// The blocks by name.
fn run(cloud: &Cloud) -> Result<BTreeMap<&'static str, String>> {
    let [hub, spoke1, spoke2] = [HUB, SPOKE1, SPOKE2].map(|node| &cloud.nodes[node]);
    let to = spoke2.host.address();
    // Hosts and nodes know each other's Ethernet addresses: nothing waits.
    for spoke in [SPOKE1, SPOKE2] {
        ensure!(cloud.pings(spoke, cloud.nodes[spoke].host.router())?, "a host does not reach its node");
    }
    // Who listens sends nothing back.
    let listener = spoke2.host.namespace.run(|| UdpSocket::bind((to, 4001)))??;
    let mut blocks = BTreeMap::new();
    blocks.insert("explained-first", explain(spoke1, to)?);

    let file = cloud.directory().join("wan.pcapng");
    let capture = begin(spoke1, &format!("capture --port wan -w {}", file.display()))?;
    let trace = format!("trace -n 1 --address {to}");
    let traces = [("relayed-spoke1", spoke1), ("relayed-hub", hub), ("relayed-spoke2", spoke2)]
        .map(|(name, node)| begin(node, &trace).map(|child| (name, child)));
    sleep(ARMED);
    send(cloud)?;
    for trace in traces {
        let (name, child) = trace?;
        blocks.insert(name, without_times(&end(child)?));
    }

    wait::until_true("the shortcut", Duration::from_secs(5), || {
        spoke1.nave("show fib").is_ok_and(|fib| fib.contains("192.168.12.0/24"))
    })?;
    sleep(ARMED);
    let traces = [("direct-spoke1", spoke1), ("direct-spoke2", spoke2)]
        .map(|(name, node)| begin(node, &trace).map(|child| (name, child)));
    sleep(ARMED);
    send(cloud)?;
    for trace in traces {
        let (name, child) = trace?;
        blocks.insert(name, without_times(&end(child)?));
    }
    blocks.insert("explained-then", explain(spoke1, to)?);

    kill(Pid::from_raw(i32::try_from(capture.id())?), Signal::SIGINT)?;
    end(capture)?;
    blocks.insert("captured", captured(&file)?);
    listener.set_read_timeout(Some(Duration::from_secs(1)))?;
    for _ in 0..2 {
        listener.recv(&mut [0; 16]).context("a packet has not arrived")?;
    }
    Ok(blocks)
}

/// `nave` with these words, which goes on by itself.
fn begin(node: &Node, words: &str) -> Result<Child> {
    let mut command = node.nave_command()?;
    command.args(words.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("running nave")
}

/// What it printed.
fn end(mut child: Child) -> Result<String> {
    let ended = wait::until("nave's end", Duration::from_secs(10), || {
        ensure!(child.try_wait()?.is_some(), "it goes on");
        Ok(())
    });
    if ended.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ended.with_context(|| words.clone())?;
    ensure!(output.status.success(), "nave: {}: {words}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Four bytes from the first spoke's host to the second's.
fn send(cloud: &Cloud) -> Result<()> {
    let [from, to] = [SPOKE1, SPOKE2].map(|spoke| &cloud.nodes[spoke].host);
    let socket = from.namespace.run(|| UdpSocket::bind((from.address(), 4000)))??;
    socket.send_to(b"nave", (to.address(), 4001))?;
    Ok(())
}

fn explain(node: &Node, to: std::net::Ipv4Addr) -> Result<String> {
    Ok(without_times(&node.nave(&format!("explain {to}"))?))
}

/// What GRE packets the port sent and received, in tshark's words.
fn captured(file: &Path) -> Result<String> {
    let names =
        ["_ws.col.Source", "_ws.col.Destination", "_ws.col.Protocol", "frame.len", "_ws.col.Info", "gre"];
    let packets = tshark::fields(&fs::read(file)?, &names)?;
    let mut text = String::new();
    for packet in packets {
        let [source, destination, protocol, length, what, gre] = &packet[..] else { continue };
        // Source and destination are those of the inner header, where there is one.
        if !gre.is_empty() {
            text += &format!("{source:<15} {destination:<15} {protocol:<5} {length:>4} bytes  {what}\n");
        }
    }
    ensure!(!text.is_empty(), "the port has seen no tunnel packet");
    Ok(text)
}

/// The text without what is different in each run: times of day and durations.
fn without_times(text: &str) -> String {
    let is_time = |word: &str| {
        let word = word.trim_end_matches([',', ')', ';']);
        let digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit() || c == '.');
        // 12:34:56.789, 00:09:51
        let clock = word.split(':').count() == 3 && word.split(':').all(digits);
        let stamp = word.contains('T') && word.ends_with('Z') && word.contains(':');
        clock || stamp
    };
    let line = |line: &str| {
        let kept = line.trim_end();
        match kept.split_once(' ') {
            Some((first, rest)) if is_time(first) => rest.trim_start().to_owned(),
            _ => kept
                .split(' ')
                .map(|word| if is_time(word) { "…" } else { word })
                .collect::<Vec<_>>()
                .join(" "),
        }
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

const BEGIN: &str = "<!-- made: ";
const END: &str = "<!-- end -->";

/// The text with the blocks in their places.
fn fill(text: &str, blocks: &BTreeMap<&'static str, String>) -> Result<String> {
    let mut made = String::new();
    let mut left: Vec<_> = blocks.keys().copied().collect();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        made += line;
        made.push('\n');
        let Some(name) = line.strip_prefix(BEGIN) else { continue };
        let name = name.trim_end_matches(" -->");
        let block = blocks.get(name).with_context(|| format!("no block is called {name}"))?;
        left.retain(|other| *other != name);
        ensure!(lines.by_ref().any(|line| line == END), "block {name} has no end");
        made += &format!("```\n{}```\n{END}\n", block);
    }
    ensure!(left.is_empty(), "the file has no place for {}", left.join(", "));
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_between_their_marks_and_the_rest_stays() {
        let text = "# A\n<!-- made: x -->\nold\n```\n<!-- end -->\nwords\n";
        let blocks = BTreeMap::from([("x", "new\n".to_owned())]);
        let made = fill(text, &blocks).unwrap();
        assert_eq!(made, "# A\n<!-- made: x -->\n```\nnew\n```\n<!-- end -->\nwords\n");
        assert_eq!(fill(&made, &blocks).unwrap(), made, "again: the same");
        assert!(fill("# A\n", &blocks).is_err(), "no place for it");
        assert!(fill("<!-- made: y -->\n<!-- end -->\n", &blocks).is_err());
        assert!(fill("<!-- made: x -->\n", &blocks).is_err(), "no end");
    }

    #[test]
    fn times_are_left_out() {
        assert_eq!(without_times("12:00:01.5 #1 rx   at\n   00 11\n"), "#1 rx   at\n   00 11\n");
        assert_eq!(without_times("expires in 00:09:51, used"), "expires in … used\n");
    }
}
