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

#[cfg(test)]
mod tests {
    use super::*;

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
