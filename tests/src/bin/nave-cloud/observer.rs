//! Who sees what happens, from outside (the underlay's capture) and from inside (`nave watch` on each node).

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use tests::capture::{Capture, Frame};
use tests::cloud::{BRIDGE, Cloud, HUB, SPOKE1, SPOKE2};
use tests::esp::Keyring;
use tests::node::Node;
use tests::{ike, trail};

use crate::story::FLOW;
use crate::teller::Teller;

/// Watches a numbered flow between the spokes' hosts.
pub(crate) struct Observer {
    capture: Capture,
    watches: Vec<Child>,
    events: Receiver<Value>,
    seen: usize,
    told: BTreeSet<String>,
    /// When the flow's first packet was on the underlay.
    first: Option<Duration>,
    ends: (IpAddr, IpAddr),
    port: u16,
    /// What is protected it opens.
    keys: Keyring,
}

impl Observer {
    /// Starts the capture and the watches.
    pub(crate) fn start(cloud: &Cloud, port: u16) -> Result<Self> {
        let (sender, events) = mpsc::channel();
        let mut watches = Vec::new();
        for node in &cloud.nodes {
            let mut watch = node.watch()?;
            let output = watch.stdout.take().context("a watch without output")?;
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if let Ok(event) = serde_json::from_str(&line) {
                        let _ = sender.send(event);
                    }
                }
            });
            watches.push(watch);
        }
        let ends = [SPOKE1, SPOKE2].map(|spoke| cloud.nodes[spoke].host.address().into()).into();
        let capture = Capture::start(&cloud.internet, BRIDGE, |_| true)?;
        let (told, keys) = (BTreeSet::new(), cloud.keys().clone());
        Ok(Self { capture, watches, events, seen: 0, told, first: None, ends, port, keys })
    }

    /// Tells what is new, in order of time.
    pub(crate) fn tell_news(&mut self, nodes: &[Node], teller: &Teller) {
        let frames = self.capture.frames_after(self.seen);
        self.seen += frames.len();
        let mut news = self.of_ike(nodes, &frames);
        news.extend(self.of_sealed(nodes, &frames));
        let frames = self.keys.read(&frames);
        news.extend(self.of_packets(nodes, &frames));
        for message in trail::nhrp(&frames) {
            let (from, to) = (name(nodes, message.source), name(nodes, message.destination));
            let text = format!("{from} → {to}: NHRP {}", message.name());
            if self.told.insert(text.clone()) {
                news.push((message.at, format!("{text}, {} bytes", message.size)));
            }
        }
        while let Ok(event) = self.events.try_recv() {
            news.extend(sentence(&event));
        }
        news.sort();
        for (at, text) in news {
            teller.tell_at(at, &text);
        }
    }

    /// The first packet of the flow on each leg.
    fn of_packets(&mut self, nodes: &[Node], frames: &[Frame]) -> Vec<(Duration, String)> {
        let hub = nodes[HUB].nbma;
        let mut news = Vec::new();
        for step in trail::steps(frames, self.ends, self.port) {
            let first = *self.first.get_or_insert(step.at);
            let (from, to) = (name(nodes, step.source), name(nodes, step.destination));
            let leg = format!("{from} → {to}");
            if !self.told.insert(leg.clone()) {
                continue;
            }
            let after = step.at.saturating_sub(first).as_secs_f64() * 1e3;
            let how = match (step.source == hub, step.destination == hub) {
                (false, false) => format!("goes direct, {after:.1} ms after the first"),
                _ => "goes by the hub".to_owned(),
            };
            news.push((
                step.at,
                format!("{leg}: packet {} of {} → {} {how}", step.number, self.ends.0, self.ends.1),
            ));
        }
        news
    }

    /// The first of each message that spokes exchange about their keys.
    fn of_ike(&mut self, nodes: &[Node], frames: &[Frame]) -> Vec<(Duration, String)> {
        let mut news = Vec::new();
        for message in frames.iter().filter_map(ike::message) {
            let [from, to] = [message.source, message.destination].map(|end| name(nodes, end.ip()));
            let what = if message.is_response { "response" } else { "request" };
            let text = format!("{from} → {to}: {} {what}", message.name());
            if self.told.insert(text.clone()) {
                news.push((message.at, format!("{text}, {} bytes", message.bytes.len())));
            }
        }
        news
    }

    /// Where nobody has the keys: the first packet of the flow's size on each leg.
    fn of_sealed(&mut self, nodes: &[Node], frames: &[Frame]) -> Vec<(Duration, String)> {
        let hub = nodes[HUB].nbma;
        let mut news = Vec::new();
        if !self.keys.is_empty() {
            return news;
        }
        for (at, source, destination) in trail::sealed_legs(frames, FLOW) {
            let first = *self.first.get_or_insert(at);
            let leg = format!("{} → {}", name(nodes, source), name(nodes, destination));
            if !self.told.insert(leg.clone()) {
                continue;
            }
            let after = at.saturating_sub(first).as_secs_f64() * 1e3;
            let how = match (source == hub, destination == hub) {
                (false, false) => format!("goes direct, {after:.1} ms after the first"),
                _ => "goes by the hub".to_owned(),
            };
            news.push((at, format!("{leg}: ESP of the size of the flows' packets {how}")));
        }
        news
    }

    /// Ends it; all that was captured.
    pub(crate) fn finish(mut self) -> Result<Vec<Frame>> {
        for watch in &mut self.watches {
            watch.kill()?;
            watch.wait()?;
        }
        self.capture.finish()
    }
}

fn name(nodes: &[Node], nbma: IpAddr) -> String {
    nodes.iter().find(|n| n.nbma == nbma).map_or_else(|| nbma.to_string(), |n| n.name.clone())
}

/// An event of `nave watch --json` in words, if it is part of the story.
fn sentence(event: &Value) -> Option<(Duration, String)> {
    let field = |name: &str| event[name].as_str().unwrap_or("?").to_owned();
    let what = match event["event"].as_str()? {
        "redirect-sent" => format!("tells {} of a better way to {}", field("to"), field("destination")),
        "redirect-received" => format!("hears of a better way to {}", field("destination")),
        "resolution-sent" => format!("asks who has {}", field("destination")),
        "resolution-answered" => format!("answers {}: {} is here", field("client"), field("prefix")),
        "resolved" => format!("knows that {} is at {}", field("next_hop"), field("nbma")),
        "unresolved" => format!("gets no answer for {}", field("destination")),
        "shortcut-up" => format!("takes the shortcut: {} via {}", field("prefix"), field("next_hop")),
        "ike-up" => format!("trusts {} ({})", field("identity"), field("suite")),
        "ike-failed" => format!("does not trust {}: {}", field("remote"), field("reason")),
        "shortcut-down" => format!("gives up the shortcut to {}", field("prefix")),
        _ => return None,
    };
    Some((Duration::from_micros(event["time_us"].as_u64()?), format!("{} {what}", field("node"))))
}
