//! How far a run is, for whoever looks at a terminal.

use std::fmt::Arguments;
use std::io::{IsTerminal as _, Write as _, stderr};

/// One line on standard error that is written again and again, if that is a terminal; it goes with this.
pub(crate) struct Progress {
    is_terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { is_terminal: stderr().is_terminal() }
    }

    /// How far it is now.
    pub(crate) fn tell(&mut self, what: Arguments<'_>) {
        if self.is_terminal {
            // If nobody reads it nothing is lost. The escape sequence clears the rest of the line.
            let _ = write!(stderr(), "\r{what}\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.tell(format_args!("\r"));
    }
}
