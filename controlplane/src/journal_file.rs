//! The journal's file: what the NHRP engine is told and does, a line of JSON for each ([`nhrp::journal`]).
//!
//! It may hold the text of the authentication extension, so nobody but its owner may read it: mode 0600 when it is made, and one that
//! others may read is refused. It is written on behind what is there, each life of the process with a first line of its own, and grows
//! for as long as it is kept.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nhrp::journal::Line;

/// The file.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    /// `None`: it could not be written, and is not kept any more.
    file: Option<BufWriter<File>>,
}

impl JournalFile {
    /// Opens it.
    ///
    /// # Errors
    /// It cannot be written, or others may read it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            return Err(io::Error::other(
                "others may read it; it can hold the authentication text, so its mode must be 0600",
            ));
        }
        Ok(Self { path: path.to_owned(), file: Some(BufWriter::new(file)) })
    }

    /// Writes a line. If that fails the node goes on without a journal: a gap in it would be worth nothing.
    pub fn write(&mut self, line: &Line) {
        let written = line.to_text().map_err(io::Error::from);
        self.attempt(|file| writeln!(file, "{}", written?));
    }

    /// What was written is in the file.
    pub fn flush(&mut self) {
        self.attempt(Write::flush);
    }

    fn attempt(&mut self, what: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = what(file) {
            tracing::error!("journal {}: {error}; it ends here", self.path.display());
            self.file = None;
        }
    }
}
