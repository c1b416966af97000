//! Journals: an engine does again what its journal says. The golden ones are of this engine as it is; a change that makes it say or do
//! something else shows here, line by line. `NAVE_BLESS=1 cargo test -p nhrp journal` writes them anew.

use std::path::PathBuf;

use nhrp::journal::{Difference, Handled, Line, What, replay};
use nhrp::{Action, Event, Input};
use wire::nhrp::{Body, CieCode, Message, MessageType};

use crate::net::*;

/// The golden journal of this name; written from `record` if that is wanted.
fn golden(name: &str, record: impl FnOnce() -> Vec<String>) -> Vec<String> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.jsonl"));
    if std::env::var_os("NAVE_BLESS").is_some() {
        std::fs::write(&file, record().join("\n") + "\n").unwrap();
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    match replay(lines.iter().map(String::as_str)) {
        Ok(handled) => assert!(handled > 3, "{name}: {handled} inputs"),
        Err(difference) => panic!("{name}.jsonl {difference}"),
    }
    lines
}

fn handled(lines: &[String]) -> Vec<Handled> {
    let lines = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter_map(|line| match line {
            Line::Handled(handled) => Some(handled),
            _ => None,
        })
        .collect()
}

fn sent(lines: &[String]) -> Vec<Message> {
    let actions = handled(lines).into_iter().flat_map(|h| h.actions);
    actions
        .filter_map(|action| match action {
            Action::Send { bytes, .. } => Some(Message::decode(&bytes).unwrap()),
            _ => None,
        })
        .collect()
}

fn received(lines: &[String]) -> Vec<Message> {
    let inputs = handled(lines).into_iter().map(|h| h.input);
    inputs
        .filter_map(|input| match input {
            Input::Packet { bytes, .. } => Some(Message::decode(&bytes).unwrap()),
            _ => None,
        })
        .collect()
}

fn types(messages: &[Message]) -> Vec<MessageType> {
    messages.iter().map(Message::message_type).collect()
}

/// A cloud of so many hubs and spokes; one node keeps a journal.
fn recorded(hubs: usize, spokes: usize, node: usize) -> Net {
    let setup = Setup { authentication: Some("secret".to_owned()), ..Setup::default() };
    let mut net = Net::idle_with_hubs(hubs, spokes, &setup);
    net.record(node);
    net.start_all();
    net
}

fn journal_of(mut net: Net, node: usize) -> Vec<String> {
    net.nodes[node].journal.take().unwrap()
}

/// It registers, is told of a better way, resolves it, and is asked itself.
#[test]
fn golden_first_minute_of_a_spoke() {
    let lines = golden("spoke-first-minute", || {
        let mut net = recorded(1, 2, 1);
        net.run(seconds(1));
        net.converse(1, 2, millis(300));
        net.run(seconds(58));
        journal_of(net, 1)
    });
    let (sent, received) = (types(&sent(&lines)), types(&received(&lines)));
    assert_eq!(sent[..2], [MessageType::RegistrationRequest, MessageType::ResolutionRequest]);
    for kind in [MessageType::RegistrationReply, MessageType::TrafficIndication, MessageType::ResolutionReply]
    {
        assert!(received.contains(&kind), "{kind:?}");
    }
    assert!(sent.contains(&MessageType::ResolutionReply));
}

/// Two clients register; it redirects them, and passes their requests on.
#[test]
fn golden_hub_under_a_shortcut() {
    let lines = golden("hub-shortcut", || {
        let mut net = recorded(1, 2, 0);
        net.run(seconds(1));
        net.converse(1, 2, millis(300));
        journal_of(net, 0)
    });
    let sent = types(&sent(&lines));
    for kind in
        [MessageType::RegistrationReply, MessageType::TrafficIndication, MessageType::ResolutionRequest]
    {
        assert_eq!(sent.iter().filter(|k| **k == kind).count(), 2, "{kind:?}");
    }
}

/// A spoke's LAN is gone: whom it told is told.
#[test]
fn golden_purge() {
    let record = |node| {
        move || {
            let mut net = recorded(1, 2, node);
            net.run(seconds(1));
            net.converse(1, 2, millis(300));
            net.nodes[2].rib.0.remove(&lan(2));
            net.routes_changed(2, &[lan(2)]);
            net.run(seconds(1));
            journal_of(net, node)
        }
    };
    let says = golden("purge-sent", record(2));
    let hears = golden("purge-received", record(1));
    assert!(types(&sent(&says)).contains(&MessageType::PurgeRequest));
    assert!(types(&received(&says)).contains(&MessageType::PurgeReply));
    assert!(types(&received(&hears)).contains(&MessageType::PurgeRequest));
    assert!(types(&sent(&hears)).contains(&MessageType::PurgeReply));
}

/// Somebody else wants a client's unique address: refused with code 14.
#[test]
fn golden_second_registration_of_a_unique_address() {
    let lines = golden("nak-14", || {
        let mut net = recorded(1, 1, 0);
        net.run(seconds(1));
        // The same node under another NBMA address, without a word of the old one.
        net.kill(1);
        net.nodes[1].tunnel.nbma = Some(nbma(7));
        net.restart_without_snapshot(1);
        net.run(seconds(6));
        journal_of(net, 0)
    });
    let codes: Vec<_> = sent(&lines)
        .iter()
        .filter_map(|m| match &m.body {
            Body::Exchange { entries, .. } if m.message_type() == MessageType::RegistrationReply => {
                Some(entries[0].code)
            }
            _ => None,
        })
        .collect();
    assert_eq!(codes[..2], [CieCode::SUCCESS, CieCode(14)]);
}

/// The first of two servers falls silent: the way leads by the other one.
#[test]
fn golden_fail_over_between_servers() {
    let lines = golden("fail-over", || {
        let mut net = recorded(2, 2, 2);
        net.run(seconds(1));
        net.kill(0);
        net.run(seconds(300));
        net.restart_without_snapshot(0);
        net.run(seconds(100));
        journal_of(net, 2)
    });
    let events: Vec<_> = handled(&lines)
        .into_iter()
        .flat_map(|h| h.actions)
        .filter_map(|action| match action {
            Action::Event(event @ (Event::ServerUp { refresh: false, .. } | Event::ServerDown { .. })) => {
                Some(event)
            }
            _ => None,
        })
        .collect();
    let is_up = |event: &Event| matches!(event, Event::ServerUp { .. });
    assert_eq!(events.iter().map(is_up).collect::<Vec<_>>(), [true, true, false, true], "{events:?}");
}

/// A node that is told something else, or does something else, is found out at that line.
#[test]
fn a_journal_that_does_not_fit_is_named_by_its_line() {
    let mut net = recorded(1, 2, 1);
    net.run(seconds(1));
    net.converse(1, 2, millis(300));
    let lines = journal_of(net, 1);
    let replayed = |lines: &[String]| replay(lines.iter().map(String::as_str));
    assert_eq!(replayed(&lines), Ok(lines.len() - 1));
    assert_eq!(replayed(&lines[1..]), Err(Difference { line: 1, what: What::NotOpened }));

    let has = |with: &str| lines.iter().position(|line| line.contains(with)).unwrap();
    // Another packet was sent.
    let asked = has(r#""resolution-sent""#);
    let mut other = lines.clone();
    let at = other[asked].rfind(r#""bytes":"#).unwrap();
    other[asked].replace_range(at + 9..at + 13, "0002");
    let difference = replayed(&other).unwrap_err();
    assert_eq!(difference.line, asked + 1);
    assert!(matches!(difference.what, What::Action { recorded: Some(_), made: Some(_), .. }), "{difference}");
    // Something was not done.
    let mut fewer = lines.clone();
    let mut line: Line = serde_json::from_str(&fewer[asked]).unwrap();
    if let Line::Handled(handled) = &mut line {
        handled.actions.pop();
    }
    fewer[asked] = line.to_text().unwrap();
    let difference = replayed(&fewer).unwrap_err();
    assert_eq!(difference.line, asked + 1);
    assert!(matches!(difference.what, What::Action { recorded: None, made: Some(_), .. }), "{difference}");
    // The routes were not asked, or were asked something else.
    for (was, is) in
        [(r#""of":"192.168.2.9""#, r#""of":"192.168.2.8""#), (r#""routes":[{"#, r#""nothing":[{"#)]
    {
        let mut astray = lines.clone();
        let line = has(was);
        astray[line] = astray[line].replacen(was, is, 1);
        let difference = replayed(&astray).unwrap_err();
        assert_eq!(difference.line, line + 1);
        assert!(matches!(difference.what, What::Routes(_)), "{difference}");
    }
    // Not of this program.
    let mut unread = lines.clone();
    unread[0] = unread[0].replace(r#""version":1"#, r#""version":2"#);
    assert!(matches!(replayed(&unread), Err(Difference { line: 1, what: What::Unreadable(_) })));
    unread[0] = lines[0].clone();
    unread[3].truncate(20);
    assert!(matches!(replayed(&unread), Err(Difference { line: 4, what: What::Unreadable(_) })));
}
