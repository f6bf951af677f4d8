//! How often is written when much changes all the time: a small box's flash has to last.

use std::time::{Duration, Instant};

/// Between two transactions, and before the first: what changes together is written together.
pub(super) const INTERVAL: Duration = Duration::from_secs(3);
/// The longest that much of it makes the interval.
const LONGEST: Duration = Duration::from_secs(300);
/// Bytes that may be written at that interval, after a silence.
const BURST_BYTES: i64 = 64 << 20;
/// Bytes a second, from then on: some 5 GiB a day.
const BYTES_PER_SECOND: i64 = 64 << 10;
/// What a transaction writes beside the states in it, in bytes, roughly.
const TRANSACTION_BYTES: i64 = 32 << 10;

/// What has been written lately.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes that may still be written at the shortest interval; below zero is a debt.
    level: i64,
    at: Instant,
    /// When the slow lane was last written.
    slow_at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Pace {
        Pace { level: BURST_BYTES, at: now, slow_at: now }
    }

    /// A transaction has written states of so many bytes; `is_slow` if some of them could wait.
    pub(super) fn wrote(&mut self, bytes: usize, is_slow: bool, now: Instant) {
        let passed = i64::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(i64::MAX);
        let paid = passed.saturating_mul(BYTES_PER_SECOND) / 1_000;
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX).saturating_add(TRANSACTION_BYTES);
        self.level = self.level.saturating_add(paid).min(BURST_BYTES).saturating_sub(bytes);
        self.at = now;
        if is_slow {
            self.slow_at = now;
        }
    }

    /// Is what can wait to be written now?
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let interval = self.interval();
        interval == INTERVAL || now.saturating_duration_since(self.slow_at) >= interval
    }

    /// How long to gather what can wait before its next transaction.
    fn interval(&self) -> Duration {
        let debt = u64::try_from(-self.level.min(0)).unwrap_or(0);
        Duration::from_secs(debt / BYTES_PER_SECOND as u64).clamp(INTERVAL, LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_written_soon_and_much_for_long_is_spread() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut written = 0_u64;
        let day = now + Duration::from_secs(86_400);
        while now < day {
            now += pace.interval();
            pace.wrote(2_000, true, now);
        }
        assert_eq!(pace.interval(), INTERVAL, "a domain that changes all the time");
        let (start, day) = (now, now + Duration::from_secs(86_400));
        while now < day {
            now += pace.interval();
            pace.wrote(4 << 20, true, now);
            written += 4 << 20;
        }
        assert!(written < 6 << 30, "{written} in {:?}", now - start);
        assert!(pace.interval() > Duration::from_secs(60));
        pace.wrote(1 << 30, true, now);
        pace.wrote(100, false, now + INTERVAL);
        assert!(
            !pace.is_due(now + INTERVAL) && pace.is_due(now + LONGEST),
            "what cannot wait puts nothing off"
        );
        assert_eq!(pace.interval(), LONGEST);
        pace.wrote(0, true, now + Duration::from_secs(86_400));
        assert_eq!(pace.interval(), INTERVAL);
    }
}
