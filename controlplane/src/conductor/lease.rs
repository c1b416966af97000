//! Leases of sequence numbers: no key ever seals two packets with one number, whatever dies and comes again.
//!
//! AES-GCM with one key and one nonce for two packets gives away what is in both, and the key of the ICV (RFC 4106 §2; NIST SP 800-38D §8).
//! The nonce of a packet is its sequence number, and the data plane that counts it forgets it when it dies. So it counts within a lease,
//! and of each key it is recorded on disk up to where leases went, before one is given:
//!
//! ```text
//!   wanted ── ask ──▶ asked ── Record, fsync, Recorded ──▶ held ── put ──▶ data plane
//!                       ▲                                    │
//!                       └──── low, extended; a new life ─────┘
//! ```
//!
//! A lease begins behind everything that was recorded of its key, so that no two have a number in common. Where the record of a key that
//! has been in use is lost, nobody knows where that was, and the key is refused; so it is when its numbers are all leased. A record is
//! of the key itself, by a hash: the same key under another name, SPI or peer goes on where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use model::program::{Key, OutboundSa};
use model::sa::{Lease, Lifetimes, Protection, SaKey, SaMode, Spi};
use model::time::Instant;
use model::{NbmaAddr, WorkerId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Sequence numbers of a lease. A data plane says when half of one is used, once a second: this is enough for 2 million packets a second.
const LEASE: u64 = 1 << 22;
/// The longest lease: one that an SA of high rate gets. Without ESN a key has 64 of them.
const MOST: u64 = 1 << 26;
/// An SA that wants more within this time after it got some gets twice as many.
const SOON: Duration = Duration::from_secs(4);
/// A record that could not be written is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// Which key: the first 16 bytes of a SHA-256. Nobody gets a key from it, and no two keys have the same one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// Of a key and its salt.
    #[must_use]
    pub fn of(key: &SaKey) -> Self {
        let digest =
            Sha256::new().chain_update(b"nave sequence lease\0").chain_update(key.keymat()).finalize();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Self(first)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Fingerprint {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number
            .map(|number| Self(number.to_be_bytes()))
            .ok_or_else(|| format!("`{text}` is not a fingerprint"))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(32);
        // Writing to a string does not fail.
        let _ = write!(text, "{self}");
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What is recorded of keys, for ever: one that is not configured any more may be again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// The last sequence number that was leased of each key.
    pub bounds: BTreeMap<Fingerprint, u64>,
    /// Keys that have been in use, nobody knows how far.
    pub lost: BTreeSet<Fingerprint>,
}

impl Recorded {
    /// Every key that has been in use.
    pub fn keys(&self) -> BTreeSet<Fingerprint> {
        self.bounds.keys().chain(&self.lost).copied().collect()
    }

    /// These may have been in use, and nobody knows how far.
    pub fn lose(&mut self, keys: impl IntoIterator<Item = Fingerprint>) {
        for key in keys {
            self.bounds.remove(&key);
            self.lost.insert(key);
        }
    }
}

/// An outbound SA without the worker that seals and the numbers that it may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealer {
    pub(crate) protection: Protection,
    /// The inbound SPI of the same peer, whose field names the worker.
    pub(crate) inbound: Spi,
    pub(crate) spi: Spi,
    pub(crate) mode: SaMode,
    pub(crate) key: SaKey,
    pub(crate) esn: bool,
    pub(crate) lifetimes: Lifetimes,
}

impl Sealer {
    /// Who seals, of so many workers.
    pub(crate) fn worker(&self, workers: u16) -> WorkerId {
        WorkerId(self.inbound.worker() % workers.max(1))
    }

    fn sa(&self, worker: WorkerId, lease: Lease) -> OutboundSa {
        OutboundSa {
            protection: self.protection,
            worker,
            spi: self.spi,
            mode: self.mode,
            key: self.key.clone(),
            esn: self.esn,
            lease,
            lifetimes: self.lifetimes,
        }
    }

    /// The last number that its packets can have (RFC 4303 §2.2, §2.2.1): then it ends.
    fn end(&self) -> u64 {
        if self.esn { u64::MAX } else { u32::MAX.into() }
    }
}

/// Why an SA is not given to the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The record of its key is lost.
    Lost,
    /// All numbers of its key have been leased.
    Spent,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => {
                "its key has been in use, and the record of its sequence numbers is lost; give it a new key"
            }
            Self::Spent => "no sequence numbers are left of its key; give it a new key",
        })
    }
}

/// An outbound SA that has a lease, or will.
#[derive(Debug)]
struct Sa {
    sealer: Sealer,
    fingerprint: Fingerprint,
    /// What the data plane was given.
    held: Option<Lease>,
    /// What it gets when that is recorded.
    asked: Option<Lease>,
    /// When it asked last, and for how many.
    last_asked: (Instant, u64),
    /// It was said that it gets no more.
    is_end_told: bool,
}

/// What is to be done about the leases.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This SA is in the program.
    Put(OutboundSa),
    /// This one is not.
    Remove(Key),
    /// This one is refused.
    Refuse(Protection, Spi, Refusal),
}

/// All leases.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// What is on disk.
    recorded: Recorded,
    /// What will be: never less.
    leased: Recorded,
    sas: BTreeMap<Key, Sa>,
    refused: BTreeMap<Key, (Sealer, Refusal)>,
    /// Number of the last record that was wanted.
    number: u64,
    /// What is being written.
    writing: Option<Recorded>,
    /// When to write what could not be written.
    again_at: Option<Instant>,
}

impl Leases {
    /// What is on disk.
    pub(crate) fn new(recorded: Recorded) -> Self {
        Self { leased: recorded.clone(), recorded, ..Self::default() }
    }

    /// Every key that has been in use.
    pub(crate) fn keys(&self) -> BTreeSet<Fingerprint> {
        self.leased.keys()
    }

    /// The data plane may not be the one that was given these: each gets another lease.
    pub(crate) fn forget(&mut self) -> Vec<Step> {
        self.refused.clear();
        std::mem::take(&mut self.sas).into_keys().map(Step::Remove).collect()
    }

    /// These are wanted now, with so many workers.
    pub(crate) fn want(&mut self, now: Instant, sealers: &[Sealer], workers: u16, steps: &mut Vec<Step>) {
        let wanted: BTreeMap<Key, &Sealer> = sealers
            .iter()
            .map(|sealer| (Key::OutboundSa(sealer.protection, sealer.worker(workers)), sealer))
            .collect();
        let is_other = |key: &Key, had: &Sealer| {
            let what = |sealer: &Sealer| (sealer.spi, sealer.mode, sealer.esn, sealer.key.clone());
            wanted.get(key).is_none_or(|now| what(now) != what(had))
        };
        self.sas.retain(|key, sa| {
            // One that another takes the place of carries packets until that one has its lease.
            if !wanted.contains_key(key) {
                steps.push(Step::Remove(*key));
            }
            !is_other(key, &sa.sealer)
        });
        self.refused.retain(|key, (had, _)| !is_other(key, had));
        for (key, sealer) in wanted {
            if let Some(sa) = self.sas.get_mut(&key) {
                if sa.sealer != *sealer {
                    sa.sealer = sealer.clone();
                    steps.extend(put(&key, sa));
                }
                continue;
            }
            if self.refused.contains_key(&key) {
                continue;
            }
            let fingerprint = Fingerprint::of(&sealer.key);
            match self.lease(fingerprint, sealer.end(), LEASE) {
                Ok(lease) => {
                    let sa = Sa {
                        sealer: sealer.clone(),
                        fingerprint,
                        held: None,
                        asked: Some(lease),
                        last_asked: (now, LEASE),
                        is_end_told: false,
                    };
                    self.sas.insert(key, sa);
                }
                Err(refusal) => {
                    steps.push(Step::Remove(key));
                    steps.push(Step::Refuse(sealer.protection, sealer.spi, refusal));
                    self.refused.insert(key, (sealer.clone(), refusal));
                }
            }
        }
    }

    /// The data plane uses this SA at a number, and more than half of its lease is gone.
    pub(crate) fn low(&mut self, now: Instant, key: Key, spi: Spi, next: u64, steps: &mut Vec<Step>) {
        // What it says may be older than what it was given since.
        let is_news = |sa: &&Sa| {
            sa.sealer.spi == spi && sa.asked.is_none() && sa.held.is_some_and(|held| next >= held.first)
        };
        let Some(sa) = self.sas.get(&key).filter(is_news) else { return };
        let (at, many) = sa.last_asked;
        let many = if now.since(at) < SOON { (many * 2).min(MOST) } else { LEASE };
        let lease = self.lease(sa.fingerprint, sa.sealer.end(), many);
        let Some(sa) = self.sas.get_mut(&key) else { return };
        match lease {
            Ok(lease) => (sa.asked, sa.last_asked) = (Some(lease), (now, many)),
            // It goes on to the end of what it has.
            Err(_) if sa.is_end_told => {}
            Err(refusal) => {
                sa.is_end_told = true;
                steps.push(Step::Refuse(sa.sealer.protection, spi, refusal));
            }
        }
    }

    /// The numbers behind all that were ever leased of a key.
    fn lease(&mut self, key: Fingerprint, end: u64, many: u64) -> Result<Lease, Refusal> {
        if self.leased.lost.contains(&key) {
            return Err(Refusal::Lost);
        }
        let bound = self.leased.bounds.get(&key).copied().unwrap_or(0);
        if bound >= end {
            return Err(Refusal::Spent);
        }
        let last = bound.saturating_add(many).min(end);
        self.leased.bounds.insert(key, last);
        Ok(Lease { first: bound + 1, last })
    }

    /// What is to be written now, and its number: one at a time.
    pub(crate) fn record(&mut self, now: Instant) -> Option<(u64, Recorded)> {
        if self.writing.is_some() || self.leased == self.recorded || self.again_at.is_some_and(|at| now < at)
        {
            return None;
        }
        self.again_at = None;
        self.number += 1;
        self.writing = Some(self.leased.clone());
        Some((self.number, self.leased.clone()))
    }

    /// The record of that number is on disk: what it covers may be given. Whether it has keys that had none.
    pub(crate) fn recorded(&mut self, number: u64, steps: &mut Vec<Step>) -> bool {
        let Some(recorded) = self.writing.take_if(|_| number == self.number) else { return false };
        let are_new = recorded.bounds.len() > self.recorded.bounds.len();
        self.recorded = recorded;
        for (key, sa) in &mut self.sas {
            let bound = self.recorded.bounds.get(&sa.fingerprint).copied().unwrap_or(0);
            if let Some(lease) = sa.asked.take_if(|asked| asked.last <= bound) {
                sa.held = Some(lease);
                steps.extend(put(key, sa));
            }
        }
        are_new
    }

    /// The record of that number is not on disk, or nobody knows whether it is.
    pub(crate) fn unrecorded(&mut self, now: Instant, number: u64) {
        if self.writing.take_if(|_| number == self.number).is_some() {
            self.again_at = Some(now + AGAIN);
        }
    }

    /// Whether an SA waits for its first lease.
    pub(crate) fn is_waiting(&self) -> bool {
        self.sas.values().any(|sa| sa.held.is_none())
    }

    /// When to write what could not be written.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.again_at
    }

    /// What is refused, and why.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (Key, &Sealer, Refusal)> {
        self.refused.iter().map(|(key, (sealer, refusal))| (*key, sealer, *refusal))
    }
}

/// The step that has an SA in the program, if it has a lease.
fn put(key: &Key, sa: &Sa) -> Option<Step> {
    let Key::OutboundSa(_, worker) = key else { return None };
    Some(Step::Put(sa.sealer.sa(*worker, sa.held?)))
}

/// Where the peer of an inbound SA is, that was configured elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) from: (NbmaAddr, u16),
    pub(crate) to: (NbmaAddr, u16),
}
