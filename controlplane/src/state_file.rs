//! The state file: what a node must know again after a restart. How it is written, and when it is believed: [`crate::checked_file`].

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use model::Epoch;
use serde::{Deserialize, Serialize};

use crate::checked_file::{CheckedFile, Damage, Found, Unusable};
use crate::conductor::Kept;

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// This life of the process.
    pub epoch: Epoch,
    /// When it was written, in microseconds since 1970-01-01 UTC: holding times went on since then.
    pub saved_at: u64,
    /// What the conductor keeps.
    pub kept: Kept,
}

/// Where the state is kept.
#[derive(Debug, Clone)]
pub struct StateFile(CheckedFile);

impl StateFile {
    /// Nothing is read or written yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(CheckedFile::new(path))
    }

    /// Keeps other processes from being the same node, until the file is dropped: they would take the data plane from us.
    ///
    /// # Errors
    /// As [`CheckedFile::lock`].
    pub fn lock(&self) -> Result<File, Unusable> {
        self.0.lock()
    }

    /// Reads the file. `now`: microseconds since 1970-01-01 UTC; what is kept has aged by the time that the file lay.
    ///
    /// # Errors
    /// As [`CheckedFile::load`].
    pub fn load(&self, now: u64) -> Result<Found<State>, Unusable> {
        Ok(match self.0.load(check)? {
            Found::State(state) => Found::State(age(state, now)),
            other => other,
        })
    }

    /// Writes the file: after this the state survives a crash of the machine.
    ///
    /// # Errors
    /// It cannot be written; the old one is as it was.
    pub fn save(&self, state: &State) -> Result<(), Unusable> {
        self.0.save(state)
    }
}

/// The checksum says that it is what was written; this says that what was written can be.
fn check(state: &State) -> Result<(), Damage> {
    let senseless = |what: String| Err(Damage::Senseless(what));
    if state.epoch.0 == 0 || state.epoch.0 == u64::MAX {
        return senseless(format!("epoch {}", state.epoch.0));
    }
    for tunnel in state.kept.nhrp.iter().flat_map(|snapshot| &snapshot.tunnels) {
        for binding in &tunnel.bindings {
            if binding.remaining > binding.holding_time.duration() {
                return senseless(format!(
                    "{} {}: more remains than its holding time",
                    tunnel.name, binding.address
                ));
            }
            if binding.address.0.is_unspecified() || binding.nbma.0.is_unspecified() {
                return senseless(format!("{}: a binding without an address", tunnel.name));
            }
        }
        for shortcut in &tunnel.shortcuts {
            if shortcut.remaining > shortcut.holding_time.duration() {
                return senseless(format!(
                    "{} {}: more remains than its holding time",
                    tunnel.name, shortcut.prefix
                ));
            }
        }
    }
    Ok(())
}

/// If the clock went back meanwhile, no time passed: nobody knows how much did.
fn age(mut state: State, now: u64) -> State {
    let away = Duration::from_micros(now.saturating_sub(state.saved_at));
    state.kept.nhrp = state.kept.nhrp.map(|snapshot| snapshot.aged(away));
    state
}

/// The epoch of a new life.
///
/// Without the last one's it is the time, in seconds: larger than any number of restarts, so that a data plane which saw
/// earlier lives still listens.
#[must_use]
pub fn next_epoch(last: Option<Epoch>, now: u64) -> Epoch {
    last.map_or(Epoch((now / 1_000_000).max(1)), |last| Epoch(last.0 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::time::HoldingTime;
    use nhrp::snapshot::{RememberedBinding, RememberedTunnel};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// A folder of its own for each test, gone afterwards.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("nave-state-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> StateFile {
            StateFile::new(&self.0.join("state.json"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn binding(address: &str, remaining: u64) -> RememberedBinding {
        RememberedBinding {
            address: address.parse().unwrap(),
            nbma: "203.0.113.11".parse().unwrap(),
            port: None,
            identity: None,
            claimed: None,
            registered: true,
            unique: true,
            authoritative: true,
            implicit: false,
            mtu: 1400,
            holding_time: HoldingTime(600),
            remaining: Duration::from_secs(remaining),
            age: Duration::from_secs(5),
        }
    }

    fn state(bindings: Vec<RememberedBinding>) -> State {
        let tunnel = RememberedTunnel {
            name: "tunnel0".parse().unwrap(),
            bindings,
            shortcuts: Vec::new(),
            servers: vec![],
            told: vec![],
        };
        let nhrp = Some(nhrp::Snapshot { request_id: 4711, tunnels: vec![tunnel] });
        let ports = [("wan".to_owned(), "02:00:00:00:00:01".parse().unwrap())].into();
        State { epoch: Epoch(7), saved_at: 1_000_000_000, kept: Kept { ports, nhrp, ..Kept::default() } }
    }

    #[test]
    fn what_was_saved_comes_back_older() {
        let folder = Folder::new("back");
        let file = folder.file();
        assert!(matches!(file.load(0).unwrap(), Found::Nothing));
        file.save(&state(vec![binding("10.255.0.11", 600), binding("10.255.0.12", 20)])).unwrap();
        let mode = fs::metadata(folder.0.join("state.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "no temporary file stays");

        let Found::State(found) = file.load(1_030_000_000).unwrap() else { panic!() };
        assert_eq!((found.epoch, found.kept.ports.len()), (Epoch(7), 1));
        let snapshot = found.kept.nhrp.unwrap();
        assert_eq!(snapshot.request_id, 4711);
        let left = &snapshot.tunnels[0].bindings;
        assert_eq!(left.len(), 1, "the other one's holding time ended meanwhile");
        assert_eq!(left[0].remaining, Duration::from_secs(570));

        // The clock went back: nothing aged.
        let Found::State(found) = file.load(5).unwrap() else { panic!() };
        assert_eq!(found.kept.nhrp.unwrap().tunnels[0].bindings[1].remaining, Duration::from_secs(20));
    }

    #[test]
    fn damage_is_refused_and_moved_aside() {
        let folder = Folder::new("damage");
        let file = folder.file();
        let path = folder.0.join("state.json");
        file.save(&state(vec![binding("10.255.0.11", 600)])).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        // As if another program had written it whole.
        let signed = |state: &State| {
            file.save(state).unwrap();
            fs::read_to_string(&path).unwrap()
        };
        let table: Vec<(&str, String, &str)> = vec![
            ("empty", String::new(), "not JSON"),
            ("cut", good[..good.len() / 2].to_owned(), "not JSON"),
            ("binary", "\0\0\0\0".to_owned(), "not JSON"),
            ("no object", "[]".to_owned(), "version is null"),
            ("version", good.replace("\"version\":1", "\"version\":2"), "version is 2"),
            ("no checksum", good.replace("checksum", "cheksum"), "checksum"),
            ("one digit", good.replace("4711", "4712"), "checksum"),
            ("no state", good.replace("\"state\"", "\"other\""), "checksum"),
            ("epoch 0", signed(&State { epoch: Epoch(0), ..state(vec![]) }), "epoch 0"),
            ("time", signed(&state(vec![binding("10.255.0.11", 601)])), "more remains"),
            ("address", signed(&state(vec![binding("0.0.0.0", 1)])), "without an address"),
        ];
        for (name, text, sentence) in table {
            fs::write(&path, text).unwrap();
            let Found::Damaged(damage, aside) = file.load(1_000_000_000).unwrap() else { panic!("{name}") };
            assert!(damage.to_string().contains(sentence), "{name}: {damage}");
            assert!(aside.exists() && !path.exists(), "{name}");
            assert!(matches!(file.load(0).unwrap(), Found::Nothing), "{name}: the next start is a first one");
        }
    }

    #[test]
    fn a_directory_in_its_place_is_an_error_and_not_damage() {
        let folder = Folder::new("directory");
        fs::create_dir(folder.0.join("state.json")).unwrap();
        let error = folder.file().load(0).unwrap_err().to_string();
        assert!(error.contains("state.json"), "{error}");
        assert!(folder.file().save(&state(vec![])).is_err());
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = Folder::new("lock");
        let lock = folder.file().lock().unwrap();
        let second = folder.file().lock().unwrap_err().to_string();
        assert!(second.contains("another nave-controlplane runs with it"), "{second}");
        drop(lock);
        folder.file().lock().unwrap();
    }

    #[test]
    fn epochs_only_grow() {
        assert_eq!(next_epoch(Some(Epoch(7)), 0), Epoch(8));
        assert_eq!(next_epoch(None, 1_790_000_000_000_000), Epoch(1_790_000_000));
        assert_eq!(next_epoch(None, 0), Epoch(1));
    }
}
