//! IKEv2 of a capture, decrypted with the keys of a table.

mod cipher;
mod message;
mod table;

use std::collections::{BTreeMap, HashMap, VecDeque};

use wire::Malformed;
use wire::ike::{self, Header, Payload, Sealed};

use super::table::BadLine;
use cipher::Closed;
use table::Sa;

pub(super) use message::Message;

/// Messages whose fragments are kept at a time: the oldest goes.
const FRAGMENTED: usize = 256;

/// IKE SAs, and the fragments that wait for others.
pub(super) struct Ike {
    sas: Vec<Sa>,
    fragmented: HashMap<Key, Fragmented>,
    order: VecDeque<Key>,
    /// Messages that went before they were whole.
    gone: Vec<(u64, String)>,
}

/// What the fragments of a message have in common: the SPIs, who sends, the number, and how many they are.
type Key = ([u64; 2], bool, bool, u32, u16);

/// A message in fragments.
#[derive(Default)]
struct Fragmented {
    /// The frame that had the first that came, and what it is part of.
    frame: u64,
    what: String,
    first: u8,
    parts: BTreeMap<u16, Vec<u8>>,
    /// It was put together: what comes of it now comes again.
    is_whole: bool,
}

/// A message that was read, and what `--check` finds in it.
pub(super) struct Read {
    pub(super) message: Message,
    pub(super) opened: Opening,
    pub(super) findings: Vec<String>,
}

/// What became of what is encrypted in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// Nothing is.
    Clear,
    Decrypted,
    /// No SA of the table has its SPIs.
    Unknown,
    Refused,
}

impl Ike {
    pub(super) fn read_table(text: &str) -> Result<Self, BadLine> {
        let sas = table::read(text)?;
        Ok(Self { sas, fragmented: HashMap::new(), order: VecDeque::new(), gone: Vec::new() })
    }

    /// Reads a message, and decrypts what is encrypted in it.
    pub(super) fn read(&mut self, frame: u64, bytes: &[u8]) -> Result<Read, Malformed> {
        let read = ike::Message::decode(bytes)?;
        let what = message::what(&read.header);
        let mut message = Message::new(&read, bytes.len());
        let mut findings = Vec::new();
        let written = match &read.sealed {
            None => ike::encode(read.header, &read.payloads),
            // What stands in the clear before what is encrypted has no place there (RFC 7296 §3.14): it is not written.
            Some(Sealed { first, fragment, body, .. }) => {
                [&ike::encode_front(read.header, *first, *fragment, body.len()), *body].concat()
            }
        };
        findings.extend(difference(bytes, &written).map(|how| format!("{what}: {how}")));
        let Some(sealed) = read.sealed else {
            return Ok(Read { message, opened: Opening::Clear, findings });
        };
        let (opened, says) = match self.open(&read.header, &sealed) {
            None => (Opening::Unknown, "no SA of the table has its SPIs".to_owned()),
            Some(Tried { lines, text: Err(closed) }) => {
                let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
                (Opening::Refused, format!("{closed} with the keys of line {}", lines.join(", ")))
            }
            Some(Tried { lines, text: Ok(chain) }) => {
                let line = lines.last().copied().unwrap_or_default();
                let inside = self.inside(frame, &read.header, &sealed, chain);
                match inside {
                    Err(problem) => {
                        findings.push(format!("{what}: it is authentic, but {problem}"));
                        message.fault = Some(problem);
                    }
                    Ok(inside) => {
                        message.pieces = inside.pieces;
                        message.add(&inside.payloads);
                        findings.extend(inside.difference.map(|how| format!("{what}, decrypted: {how}")));
                    }
                }
                (Opening::Decrypted, format!("decrypted with the keys of line {line}"))
            }
        };
        if opened != Opening::Decrypted {
            findings.push(format!("{what}: {says}"));
        }
        message.sealed_says(&sealed, says);
        Ok(Read { message, opened, findings })
    }

    /// By the lines of the table that have its SPIs, one after the other; `None` if none has.
    fn open(&self, header: &Header, sealed: &Sealed<'_>) -> Option<Tried> {
        let spis = [header.initiator_spi, header.responder_spi];
        let mut lines = Vec::new();
        let mut closed = None;
        for sa in self.sas.iter().filter(|sa| sa.spis == spis) {
            lines.push(sa.line);
            let [initiator, responder] = &sa.keys;
            let keys = if header.is_initiator { initiator } else { responder };
            match sa.cipher.open(keys, sealed) {
                Ok(text) => return Some(Tried { lines, text: Ok(text) }),
                Err(why) => closed = Some(why),
            }
        }
        closed.map(|why| Tried { lines, text: Err(why) })
    }

    /// The payloads of what was decrypted; of a fragment, when it is the last one that was missing.
    fn inside(
        &mut self,
        frame: u64,
        header: &Header,
        sealed: &Sealed<'_>,
        chain: Vec<u8>,
    ) -> Result<Inside, String> {
        let (first, chain, pieces) = match sealed.fragment {
            None => (sealed.first, chain, None),
            Some((number, of)) => {
                let spis = [header.initiator_spi, header.responder_spi];
                let key = (spis, header.is_initiator, header.is_response, header.message_id, of);
                let whole = self.add(key, frame, header, number, (sealed.first, chain));
                let Some((first, chain)) = whole else { return Ok(Inside::default()) };
                (first, chain, Some(of))
            }
        };
        let payloads = ike::decode_payloads(first, &chain).map_err(|malformed| malformed.to_string())?;
        let (_, written) = ike::encode_payloads(&payloads);
        let difference = difference(&chain, &written);
        Ok(Inside { payloads, pieces, difference })
    }

    /// Takes a fragment; the whole of which it was the last that was missing: the type of its first payload, and its payloads.
    fn add(
        &mut self,
        key: Key,
        frame: u64,
        header: &Header,
        number: u16,
        (first, part): (u8, Vec<u8>),
    ) -> Option<(u8, Vec<u8>)> {
        if !self.fragmented.contains_key(&key) {
            self.order.push_back(key);
            if self.order.len() > FRAGMENTED
                && let Some(oldest) = self.order.pop_front()
                && let Some(old) = self.fragmented.remove(&oldest)
                && !old.is_whole
            {
                self.gone.push((old.frame, old.what));
            }
            let what = message::what(header);
            self.fragmented.insert(key, Fragmented { frame, what, ..Fragmented::default() });
        }
        let fragmented = self.fragmented.get_mut(&key)?;
        if fragmented.is_whole {
            return None;
        }
        if number == 1 {
            fragmented.first = first;
        }
        fragmented.parts.insert(number, part);
        if fragmented.parts.len() < key.4.into() {
            return None;
        }
        fragmented.is_whole = true;
        let parts = std::mem::take(&mut fragmented.parts);
        Some((fragmented.first, parts.into_values().flatten().collect()))
    }

    /// Messages that were never whole: the frame of their first fragment, and what is known of each.
    pub(super) fn incomplete(&mut self) -> Vec<(u64, String)> {
        let mut all = std::mem::take(&mut self.gone);
        let left = self.order.iter().filter_map(|key| self.fragmented.get(key));
        all.extend(left.filter(|one| !one.is_whole).map(|one| (one.frame, one.what.clone())));
        all
    }
}

/// Lines of the table that were tried, and the text by the last of them.
struct Tried {
    lines: Vec<usize>,
    text: Result<Vec<u8>, Closed>,
}

/// What was in an encrypted payload.
#[derive(Default)]
struct Inside {
    payloads: Vec<Payload>,
    /// How many fragments it came in.
    pieces: Option<u16>,
    /// How it would be written otherwise.
    difference: Option<String>,
}

/// Where bytes would be written otherwise than they came.
fn difference(came: &[u8], written: &[u8]) -> Option<String> {
    let at = (0..came.len().max(written.len())).find(|at| came.get(*at) != written.get(*at))?;
    let byte = |bytes: &[u8]| bytes.get(at).map_or_else(|| "none".to_owned(), |b| format!("{b:02x}"));
    Some(format!("byte {at} is {} and would be written as {}", byte(came), byte(written)))
}
