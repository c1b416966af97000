//! Prints the story, with the time in front, and keeps count of what held.

use std::time::Duration;

use tests::traffic::wall_clock;

/// The story's voice.
#[derive(Debug)]
pub(crate) struct Teller {
    start: Duration,
    held: usize,
    failed: Vec<String>,
}

impl Teller {
    pub(crate) fn new() -> Self {
        Self { start: wall_clock(), held: 0, failed: Vec::new() }
    }

    /// A heading.
    pub(crate) fn chapter(&self, title: &str) {
        println!("\n── {title}");
    }

    /// Something that happens now.
    pub(crate) fn tell(&self, what: &str) {
        self.tell_at(wall_clock(), what);
    }

    /// Something that happened at that time of the wall clock.
    pub(crate) fn tell_at(&self, at: Duration, what: &str) {
        let millis = at.saturating_sub(self.start).as_secs_f64() * 1e3;
        println!("{millis:>10.1} ms  {what}");
    }

    /// A claim: whether it holds, and what was seen.
    pub(crate) fn check(&mut self, holds: bool, claim: &str, seen: &str) {
        let mark = if holds { "  ok  " } else { " FAIL " };
        println!("{mark}        {claim}: {seen}");
        if holds {
            self.held += 1;
        } else {
            self.failed.push(claim.to_owned());
        }
    }

    /// The end; whether all claims held.
    pub(crate) fn sum_up(&self) -> bool {
        self.chapter("Sum");
        let total = self.held + self.failed.len();
        println!("{} of {total} claims hold", self.held);
        for claim in &self.failed {
            println!("does not hold: {claim}");
        }
        self.failed.is_empty() && self.held > 0
    }
}
