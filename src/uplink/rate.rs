//! A limit of bytes a second.
//!
//! Pure: time is passed in. A batch goes when the account is not overdrawn and is charged whole, so the size
//! of one batch does not matter and the mean is exact.

use std::time::{Duration, Instant};

/// What may be saved up while nothing is sent.
const LONGEST_CREDIT: Duration = Duration::from_millis(250);

/// The account of what may be sent.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    bytes_per_second: f64,
    /// Bytes left; negative: overdrawn.
    left: f64,
    counted_at: Instant,
}

impl Limit {
    /// A limit that begins with an empty account; `None` when 0 stands for "no limit".
    pub fn new(bytes_per_second: u64, now: Instant) -> Option<Self> {
        (bytes_per_second > 0).then_some(Self {
            bytes_per_second: bytes_per_second as f64,
            left: 0.0,
            counted_at: now,
        })
    }

    /// How long to wait until something may be sent; `None`: now.
    pub fn wait(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.counted_at).as_secs_f64();
        self.counted_at = now;
        let most = self.bytes_per_second * LONGEST_CREDIT.as_secs_f64();
        self.left = (self.left + passed * self.bytes_per_second).min(most);
        let missing = -self.left / self.bytes_per_second;
        (missing > 0.0).then(|| Duration::try_from_secs_f64(missing).unwrap_or(Duration::MAX))
    }

    /// Books bytes that are sent.
    pub fn charge(&mut self, bytes: usize) {
        self.left -= bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_kept_whatever_the_size() {
        let start = Instant::now();
        for size in [1, 999, 1000, 30_000] {
            let mut now = start;
            let mut limit = Limit::new(10_000, now).unwrap();
            let mut sent = 0;
            while now < start + Duration::from_secs(100) {
                match limit.wait(now) {
                    Some(wait) => now += wait,
                    None => {
                        limit.charge(size);
                        sent += size;
                    }
                }
            }
            assert!((990_000..=1_000_000 + 2 * size).contains(&sent), "{sent} in pieces of {size}");
        }
    }

    #[test]
    fn a_pause_saves_up_a_quarter_of_a_second_at_most() {
        let start = Instant::now();
        let mut limit = Limit::new(1000, start).unwrap();
        let later = start + Duration::from_secs(3600);
        assert_eq!(limit.wait(later), None);
        limit.charge(250);
        assert_eq!(limit.wait(later), None);
        limit.charge(1);
        assert!(limit.wait(later).is_some());
    }

    #[test]
    fn zero_is_no_limit() {
        assert!(Limit::new(0, Instant::now()).is_none());
    }
}
