//! What the files of `[profiles.ike]` hold: certificates, keys, authorities. Read when the node starts and with each configuration, before
//! that is put in force: one that cannot be read refuses the whole.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use ike::Credentials;
use model::config::Config;
use model::config::check::Fault;

use crate::conductor::AllCredentials;

/// More than any list of revoked certificates has.
const LARGEST: u64 = 64 << 20;

/// Reads the files of all profiles.
///
/// # Errors
/// The first that cannot be read or makes no sense, with the path of the field that names it.
pub fn load(config: &Config) -> Result<AllCredentials, Fault> {
    let mut all = AllCredentials::new();
    for (n, profile) in config.profiles.iter().enumerate() {
        let Some(ike) = &profile.ike else { continue };
        let credentials = Credentials::load(ike, &read).map_err(|bad| Fault {
            path: format!("profiles[{n}].ike.{}", bad.field),
            problem: format!("{}: {}", bad.file.display(), bad.problem),
        })?;
        all.insert(profile.name, Arc::new(credentials));
    }
    Ok(all)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // Of what has no end there is no use.
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("is not a file"));
    }
    // Room for all from the beginning: a vector that grows leaves copies of keys behind.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(LARGEST)).unwrap_or(0) + 1);
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("has more than {LARGEST} bytes")));
    }
    Ok(bytes)
}
