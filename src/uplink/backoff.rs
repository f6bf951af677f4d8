//! How long to wait before the next attempt: full jitter, so that the proxies of a restarted collector come
//! back spread out.
//!
//! Pure: the chance is passed in, waiting is the caller's.

use std::time::Duration;

/// The longest first wait.
const FIRST: Duration = Duration::from_millis(500);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(60);

/// Counts the failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// One more failure: how long to wait now. `chance` is a random number from 0 to 1.
    ///
    /// The wait is a random part of the smaller of 60 s and 0.5 s * 2^n, n being the failures in a row before this one.
    pub fn failed(&mut self, chance: f64) -> Duration {
        let doubled = FIRST.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let part = if chance.is_finite() { chance.clamp(0.0, 1.0) } else { 0.0 };
        doubled.min(LONGEST).mul_f64(part)
    }

    /// It works: the next failure is the first one again.
    pub fn worked(&mut self) {
        self.failures = 0;
    }

    /// Failures since it last worked.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_when_it_works() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..9).map(|_| backoff.failed(1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        backoff.worked();
        assert_eq!(backoff.failures(), 0);
        assert_eq!(backoff.failed(1.0), FIRST);
    }

    #[test]
    fn the_whole_span_is_used_and_nothing_outside_it() {
        let mut backoff = Backoff { failures: 3 };
        assert_eq!(backoff.failed(0.0), Duration::ZERO);
        assert_eq!(backoff.failed(0.25), Duration::from_secs(2));
        assert_eq!(backoff.failed(7.0), Duration::from_secs(16));
        assert_eq!(backoff.failed(f64::NAN), Duration::ZERO);
    }

    #[test]
    fn a_very_long_outage_overflows_nothing() {
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.failed(1.0), LONGEST);
    }
}
