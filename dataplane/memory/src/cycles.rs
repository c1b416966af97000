//! The clock that costs are measured with.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A counter that only grows: the time stamp counter on x86-64 (reference cycles: its rate is constant, the core's is
/// not), nanoseconds since the first call elsewhere. Not ordered with the instructions around it: measure bursts.
#[inline(always)]
#[must_use]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: `rdtsc` reads a register; every x86-64 processor has it.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: OnceLock<Instant> = OnceLock::new();
        u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Rate of [`cycles`] per second, measured against the monotonic clock for 20 ms at the first call.
#[must_use]
pub fn cycles_per_second() -> u64 {
    static RATE: OnceLock<u64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (started, from) = (Instant::now(), cycles());
        while started.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let (elapsed, counted) = (started.elapsed().as_nanos(), u128::from(cycles() - from));
        u64::try_from(counted * 1_000_000_000 / elapsed).unwrap_or(u64::MAX)
    })
}

/// A clock that costs one look at the counter: for limits and waits of about a second, which [`cycles_per_second`] is
/// exact enough for (the system's clock is ordered with what stands around it and drains the processor's pipeline).
/// It goes on from where it is when the counter jumps back, as it may when a virtual machine moves.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: u64,
    /// Microseconds per cycle, times 2^64.
    scale: u64,
}

impl Clock {
    /// Starts at zero now.
    #[must_use]
    pub fn start() -> Self {
        let scale = (1_000_000_u128 << 64) / u128::from(cycles_per_second().max(1_000_001));
        Self { start: cycles(), scale: u64::try_from(scale).unwrap_or(u64::MAX) }
    }

    /// Microseconds since its start.
    #[inline(always)]
    #[must_use]
    pub fn microseconds(&self) -> u64 {
        let product = u128::from(cycles().wrapping_sub(self.start)) * u128::from(self.scale);
        (product >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_keeps_time() {
        let (started, clock) = (Instant::now(), Clock::start());
        std::thread::sleep(Duration::from_millis(50));
        let (shown, before) = (clock.microseconds(), started.elapsed().as_micros() as f64);
        assert!((0.5..1.1).contains(&(shown as f64 / before)), "{shown} µs of {before}");
        assert!(clock.microseconds() >= shown);
    }

    #[test]
    fn a_second_has_its_cycles() {
        let rate = cycles_per_second() as f64;
        let (started, from) = (Instant::now(), cycles());
        std::thread::sleep(Duration::from_millis(50));
        let (counted, elapsed) = ((cycles() - from) as f64, started.elapsed().as_secs_f64());
        let measured = counted / elapsed;
        assert!((0.9..1.1).contains(&(measured / rate)), "{measured} against {rate}");
    }
}
