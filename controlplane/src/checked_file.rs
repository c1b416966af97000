//! A file that is written whole or not at all, and believed whole or not at all.
//!
//! JSON, in one object: `{"version": 1, "checksum": "<16 hex digits>", "state": {...}}`. The checksum is FNV-1a (64 bits) over
//! the compact text of `state` with keys in order of the alphabet: it finds damage, not malice; the file's mode (0600) keeps
//! others out. It is written to a temporary file beside it, synced, and renamed, so that there is always one whole file. A
//! damaged one is moved aside, never half believed.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The version that is written, and the only one that is read.
const VERSION: u64 = 1;

/// Why a file is not believed.
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

/// Why a file could not be used at all.
#[derive(Debug, thiserror::Error)]
#[error("state file {}: {problem}", path.display())]
pub struct Unusable {
    path: PathBuf,
    problem: io::Error,
}

/// What was found.
#[derive(Debug)]
pub enum Found<T> {
    /// What was written last.
    State(T),
    /// There is no file: the first life.
    Nothing,
    /// A damaged file. It was moved to this path.
    Damaged(Damage, PathBuf),
}

/// Where something is kept.
#[derive(Debug, Clone)]
pub struct CheckedFile {
    path: PathBuf,
}

impl CheckedFile {
    /// Nothing is read or written yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Keeps other processes from having it, until what is returned is dropped.
    ///
    /// # Errors
    /// Another process has it; or the file beside it that is locked cannot be made.
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

    /// Reads the file; `check` says whether what is whole can be.
    ///
    /// # Errors
    /// It is there and cannot be read, or is damaged and cannot be moved aside.
    pub fn load<T: DeserializeOwned>(
        &self,
        check: impl Fn(&T) -> Result<(), Damage>,
    ) -> Result<Found<T>, Unusable> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(self.unusable(error)),
        };
        match parse(&bytes).and_then(|state| check(&state).map(|()| state)) {
            Ok(state) => Ok(Found::State(state)),
            Err(damage) => {
                let aside = self.beside(".damaged");
                fs::rename(&self.path, &aside).map_err(|e| self.unusable(e))?;
                Ok(Found::Damaged(damage, aside))
            }
        }
    }

    /// Writes the file: after this what it holds survives a crash of the machine.
    ///
    /// # Errors
    /// It cannot be written; the old one is as it was.
    pub fn save(&self, state: &impl Serialize) -> Result<(), Unusable> {
        self.write(state).map_err(|e| self.unusable(e))
    }

    fn write(&self, state: &impl Serialize) -> io::Result<()> {
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

    /// The path with this behind it.
    #[must_use]
    pub fn beside(&self, ending: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(ending);
        path.into()
    }

    fn unusable(&self, problem: io::Error) -> Unusable {
        Unusable { path: self.path.clone(), problem }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Damage> {
    let mut whole: Value = serde_json::from_slice(bytes).map_err(Damage::Json)?;
    let version = whole.get("version").cloned().unwrap_or_default();
    if version != VERSION {
        return Err(Damage::Version(version.to_string()));
    }
    let state = whole.get_mut("state").map(Value::take).unwrap_or_default();
    if whole.get("checksum").and_then(Value::as_str) != Some(&checksum(&state)) {
        return Err(Damage::Checksum);
    }
    serde_json::from_value(state).map_err(|e| Damage::Senseless(e.to_string()))
}

/// FNV-1a, 64 bits.
fn checksum(state: &Value) -> String {
    let text = state.to_string();
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}
