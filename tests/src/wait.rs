//! Waiting with a deadline and a reason.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks every 20 ms until there is an answer.
///
/// # Errors
/// What `ask` failed with last, if the deadline passes.
pub fn until<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        let error = match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if start.elapsed() > deadline {
            return Err(error.context(format!("{what}: not within {deadline:?}")));
        }
        sleep(Duration::from_millis(20));
    }
}

/// Asks every 20 ms until it is so.
///
/// # Errors
/// The deadline passes.
pub fn until_true(what: &str, deadline: Duration, mut ask: impl FnMut() -> bool) -> Result<()> {
    until(what, deadline, || if ask() { Ok(()) } else { bail!("it is not so") })
}
