//! Whether a configuration makes sense.

use super::Config;

/// What is wrong, and where: `tunnels[2].nhrp.holding_time: 0 is not allowed`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct Fault {
    /// Path of the field in the file.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Config {
    /// Reads a file's text and checks it.
    ///
    /// # Errors
    /// The first fault, with its path.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        toml::from_str(text).map_err(|error| Fault {
            path: "file".to_owned(),
            problem: error.to_string().trim_end().to_owned(),
        })
    }
}
