//! The file of leases, beside the state file: how far the sequence numbers of each outbound key have been given away.
//!
//! It is a file of its own since it is written before keys are programmed, and the state when there is time. The state names the keys
//! as well, so that one file says what the other has lost.

use std::collections::BTreeSet;
use std::path::Path;

use crate::checked_file::{CheckedFile, Found, Unusable};
use crate::conductor::{Fingerprint, Recorded};

/// Where leases are kept. How: [`crate::checked_file`].
#[derive(Debug, Clone)]
pub struct LeaseFile(CheckedFile);

impl LeaseFile {
    /// Beside this state file. Nothing is read or written yet.
    #[must_use]
    pub fn new(state_file: &Path) -> Self {
        Self(CheckedFile::new(&CheckedFile::new(state_file).beside(".leases")))
    }

    /// Reads the file.
    ///
    /// # Errors
    /// As [`CheckedFile::load`].
    pub fn load(&self) -> Result<Found<Recorded>, Unusable> {
        self.0.load(|_| Ok(()))
    }

    /// Writes the file: after this it survives a crash of the machine.
    ///
    /// # Errors
    /// As [`CheckedFile::save`].
    pub fn save(&self, recorded: &Recorded) -> Result<(), Unusable> {
        self.0.save(recorded)
    }
}

/// What is known of leases when a life begins, from what was found of them and of the state, that names the keys which have been in use;
/// `configured` are those of the configuration.
///
/// A key that may have been in use, and of which no record is left, is lost:
///
/// | leases | state | lost |
/// | --- | --- | --- |
/// | there | there | what the state names and the leases do not have |
/// | there | none, damaged | nothing: the leases have every key |
/// | none | there | what the state names |
/// | none | none | nothing: the first life |
/// | none | damaged | what is configured |
/// | damaged | any | what the state names, and what is configured |
#[must_use]
pub fn resume(
    leases: &Found<Recorded>,
    named: &Found<BTreeSet<Fingerprint>>,
    configured: &BTreeSet<Fingerprint>,
) -> Recorded {
    let mut recorded = match leases {
        Found::State(recorded) => recorded.clone(),
        Found::Nothing | Found::Damaged(..) => Recorded::default(),
    };
    if let Found::State(named) = named {
        let known = recorded.keys();
        recorded.lose(named.difference(&known).copied());
    }
    match (leases, named) {
        (Found::Damaged(..), _) | (Found::Nothing, Found::Damaged(..)) => {
            recorded.lose(configured.iter().copied());
        }
        _ => {}
    }
    recorded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checked_file::Damage;
    use model::sa::SaKey;

    fn key(n: u8) -> Fingerprint {
        Fingerprint::of(&SaKey::new(&[n; 20]).unwrap())
    }

    fn damaged<T>() -> Found<T> {
        Found::Damaged(Damage::Checksum, "aside".into())
    }

    /// Input: each pair of what can be found; key 1 is recorded and named, 2 is named, 3 and 1 are configured. Output: the table.
    #[test]
    fn a_key_that_may_have_been_in_use_without_a_record_is_lost() {
        let found = || Found::State(Recorded { bounds: [(key(1), 99)].into(), lost: [key(9)].into() });
        let named = || Found::State(BTreeSet::from([key(1), key(2)]));
        let configured = BTreeSet::from([key(1), key(3)]);
        let lost = |leases: Found<Recorded>, named: Found<BTreeSet<Fingerprint>>| {
            let mut recorded = resume(&leases, &named, &configured);
            // What was lost once stays so.
            let is_kept = matches!(leases, Found::State(_));
            assert_eq!(recorded.lost.remove(&key(9)), is_kept);
            assert_eq!(recorded.bounds.contains_key(&key(1)), is_kept);
            let mut lost: Vec<u8> = (1..9).filter(|n| recorded.lost.contains(&key(*n))).collect();
            assert_eq!(recorded.lost.len(), lost.len());
            lost.sort_unstable();
            lost
        };
        assert_eq!(lost(found(), named()), [2]);
        assert_eq!(lost(found(), Found::Nothing), [0; 0]);
        assert_eq!(lost(found(), damaged()), [0; 0]);
        assert_eq!(lost(Found::Nothing, named()), [1, 2]);
        assert_eq!(lost(Found::Nothing, Found::Nothing), [0; 0]);
        assert_eq!(lost(Found::Nothing, damaged()), [1, 3]);
        assert_eq!(lost(damaged(), named()), [1, 2, 3]);
        assert_eq!(lost(damaged(), Found::Nothing), [1, 3]);
        assert_eq!(lost(damaged(), damaged()), [1, 3]);
    }

    #[test]
    fn what_is_recorded_comes_back_and_has_no_key_in_it() {
        let folder = std::env::temp_dir().join(format!("nave-leases-{}", std::process::id()));
        let file = LeaseFile::new(&folder.join("state.json"));
        assert!(matches!(file.load().unwrap(), Found::Nothing));
        let recorded = Recorded { bounds: [(key(0xab), u64::MAX)].into(), lost: [key(2)].into() };
        file.save(&recorded).unwrap();
        let text = std::fs::read_to_string(folder.join("state.json.leases")).unwrap();
        assert!(!text.contains("abab"), "{text}");
        let Found::State(back) = file.load().unwrap() else { panic!("{text}") };
        assert_eq!(back, recorded);
        std::fs::write(folder.join("state.json.leases"), text.replace("18446744073709551615", "1")).unwrap();
        assert!(matches!(file.load().unwrap(), Found::Damaged(..)));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
