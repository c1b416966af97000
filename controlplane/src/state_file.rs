//! The state file: what a node must know again after a restart.
//!
//! JSON, in one object: `{"version": 1, "checksum": "<16 hex digits>", "state": {...}}`. The checksum is FNV-1a (64 bits) over
//! the compact text of `state` with keys in order of the alphabet: it finds damage, not malice; the file's mode (0600) keeps
//! others out. It is written to a temporary file beside it, synced, and renamed, so that there is always one whole file. A
//! damaged one is moved aside, never half believed.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::Epoch;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::conductor::Kept;

/// The version that is written, and the only one that is read.
const VERSION: u64 = 1;

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

/// Why a state file is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// Not JSON, or cut short.
    #[error("it is not JSON: {0}")]
    Json(serde_json::Error),
    /// No number where the version should be, or one of another program.
    #[error("its version is {0}, this program reads {VERSION}")]
    Version(String),
    /// Something in it changed.
    #[error("its checksum is wrong")]
    Checksum,
    /// It is whole, and does not mean anything here.
    #[error("its content makes no sense: {0}")]
    Senseless(String),
}

/// Why a state file could not be used at all.
#[derive(Debug, thiserror::Error)]
#[error("state file {}: {problem}", path.display())]
pub struct Unusable {
    path: PathBuf,
    problem: io::Error,
}

/// What was found.
#[derive(Debug)]
pub enum Found {
    /// The state of the last life.
    State(State),
    /// There is no file: the first life.
    Nothing,
    /// A damaged file. It was moved to this path.
    Damaged(Damage, PathBuf),
}

/// Where the state is kept.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// Nothing is read or written yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Keeps other processes from being the same node, until the file is dropped: they would take the data plane from us.
    ///
    /// # Errors
    /// Another process has it; or the file beside the state that is locked cannot be made.
    pub fn lock(&self) -> Result<File, Unusable> {
        let lock = || {
            fs::create_dir_all(self.directory())?;
            let mut options = File::options();
            options.write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(self.beside(".lock"))?;
            match file.try_lock() {
                Ok(()) => Ok(file),
                Err(TryLockError::Error(error)) => Err(error),
                Err(TryLockError::WouldBlock) => {
                    Err(io::Error::other("another nave-controlplane runs with it"))
                }
            }
        };
        lock().map_err(|e| self.unusable(e))
    }

    /// Reads the file. `now`: microseconds since 1970-01-01 UTC; what is kept has aged by the time that the file lay.
    ///
    /// # Errors
    /// It is there and cannot be read, or is damaged and cannot be moved aside.
    pub fn load(&self, now: u64) -> Result<Found, Unusable> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(self.unusable(error)),
        };
        match parse(&bytes) {
            Ok(state) => Ok(Found::State(age(state, now))),
            Err(damage) => {
                let aside = self.beside(".damaged");
                fs::rename(&self.path, &aside).map_err(|e| self.unusable(e))?;
                Ok(Found::Damaged(damage, aside))
            }
        }
    }

    /// Writes the file: after this the state survives a crash of the machine.
    ///
    /// # Errors
    /// It cannot be written; the old one is as it was.
    pub fn save(&self, state: &State) -> Result<(), Unusable> {
        self.write(state).map_err(|e| self.unusable(e))
    }

    fn write(&self, state: &State) -> io::Result<()> {
        let state = serde_json::to_value(state)?;
        let whole = serde_json::json!({
            "version": VERSION,
            "checksum": checksum(&state),
            "state": state,
        });
        fs::create_dir_all(self.directory())?;
        let new = self.beside(".new");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(whole.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(self.directory())?.sync_all()
    }

    fn directory(&self) -> &Path {
        self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(ending);
        path.into()
    }

    fn unusable(&self, problem: io::Error) -> Unusable {
        Unusable { path: self.path.clone(), problem }
    }
}

fn parse(bytes: &[u8]) -> Result<State, Damage> {
    let mut whole: Value = serde_json::from_slice(bytes).map_err(Damage::Json)?;
    let version = whole.get("version").cloned().unwrap_or_default();
    if version != VERSION {
        return Err(Damage::Version(version.to_string()));
    }
    let state = whole.get_mut("state").map(Value::take).unwrap_or_default();
    if whole.get("checksum").and_then(Value::as_str) != Some(&checksum(&state)) {
        return Err(Damage::Checksum);
    }
    let state: State = serde_json::from_value(state).map_err(|e| Damage::Senseless(e.to_string()))?;
    check(&state)?;
    Ok(state)
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

/// FNV-1a, 64 bits.
fn checksum(state: &Value) -> String {
    let text = state.to_string();
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
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
    use std::os::unix::fs::PermissionsExt;

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
        State { epoch: Epoch(7), saved_at: 1_000_000_000, kept: Kept { ports, nhrp } }
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
