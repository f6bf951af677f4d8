//! A token bucket: how many records may leave now so that they leave smoothly.
//!
//! Pure: time passed in.

use std::time::{Duration, Instant};

const NANOS: u128 = 1_000_000_000;

/// Fills at a set rate, up to what the rate gives in `burst`; starts empty.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    rate: u64,
    most: u64,
    /// When the tokens begin that were not taken yet.
    since: Instant,
}

impl TokenBucket {
    /// `rate` tokens a second. Who comes later than `burst` after the last taking loses what would have
    /// come before; one token can always be held.
    pub fn new(rate: u64, burst: Duration, now: Instant) -> TokenBucket {
        let most = u128::from(rate) * burst.as_nanos() / NANOS;
        TokenBucket { rate, most: u64::try_from(most).unwrap_or(u64::MAX).max(1), since: now }
    }

    /// Takes what is there.
    pub fn take(&mut self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.since);
        let tokens = passed.as_nanos() * u128::from(self.rate) / NANOS;
        if tokens > u128::from(self.most) {
            self.since = now;
            return self.most;
        }
        let tokens = u64::try_from(tokens).unwrap_or(u64::MAX);
        // Parts of a token stay: the clock moves on by whole tokens only.
        self.since += self.time_for(tokens);
        tokens
    }

    /// The time that `tokens` take to come.
    fn time_for(&self, tokens: u64) -> Duration {
        let nanos = u128::from(tokens) * NANOS / u128::from(self.rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_rate_however_often_it_is_asked() {
        for (rate, steps, step) in [(50, 10_000, 1), (20_000, 3_333, 3), (999_983, 10_000, 1), (7, 40, 250)] {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(rate, Duration::from_secs(1), start);
            let taken: u64 = (1..=steps).map(|n| bucket.take(start + Duration::from_millis(n * step))).sum();
            let due = rate * steps * step / 1_000;
            // Each taking may round the clock by less than a nanosecond.
            assert!(taken.abs_diff(due) <= 1 + rate * steps / 1_000_000_000, "{taken} of {due}");
        }
    }

    #[test]
    fn no_more_than_the_burst_after_a_pause() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1_000, Duration::from_millis(20), start);
        assert_eq!(bucket.take(start + Duration::from_secs(5)), 20);
        assert_eq!(bucket.take(start + Duration::from_secs(5)), 0);
        assert_eq!(bucket.take(start + Duration::from_millis(5_003)), 3);
    }

    #[test]
    fn slow_rates_hold_one_token() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(2, Duration::from_millis(20), start);
        assert_eq!(bucket.take(start + Duration::from_millis(499)), 0);
        assert_eq!(bucket.take(start + Duration::from_millis(500)), 1);
        assert_eq!(
            TokenBucket::new(0, Duration::from_secs(1), start).take(start + Duration::from_secs(9)),
            0
        );
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1_000, Duration::from_secs(1), start + Duration::from_secs(1));
        assert_eq!(bucket.take(start), 0);
    }
}
