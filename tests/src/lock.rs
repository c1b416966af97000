//! One heavy test at a time, in this process and in others: a cloud wants the cores for itself.

use std::fs::File;

use anyhow::{Context, Result};

/// The turn, until dropped.
#[derive(Debug)]
pub struct Turn {
    _file: File,
}

/// Waits for its turn.
///
/// # Errors
/// The lock file cannot be made.
pub fn take_turn() -> Result<Turn> {
    let path = std::env::temp_dir().join("nave-tests.lock");
    let file =
        File::options().create(true).append(true).open(&path).with_context(|| path.display().to_string())?;
    file.lock().context("waiting for other tests")?;
    Ok(Turn { _file: file })
}
