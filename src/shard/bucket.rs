//! A token bucket: so much a second on the average, and a second's worth at once.

/// What of one kind, datagrams or bytes, an address may still send. Time is passed in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// What has been taken out and not yet run in again, in thousandths.
    taken: u64,
    /// When it was last looked at, in milliseconds.
    at: u64,
}

impl Bucket {
    /// Is there room for `amount` at `now` (milliseconds of a clock that is never set) when `rate` runs in each
    /// second?
    pub(super) fn has(&mut self, amount: u64, rate: u64, now: u64) -> bool {
        let run_in = now.saturating_sub(self.at).saturating_mul(rate);
        self.taken = self.taken.saturating_sub(run_in);
        self.at = now;
        // One that is larger than the bucket passes when it is full, or it never would.
        self.taken == 0
            || self.taken.saturating_add(amount.saturating_mul(1_000)) <= rate.saturating_mul(1_000)
    }

    /// Takes it out.
    pub(super) fn take(&mut self, amount: u64) {
        self.taken = self.taken.saturating_add(amount.saturating_mul(1_000));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many single ones pass of `count` that come every `every` milliseconds from `from` on.
    fn passed(bucket: &mut Bucket, rate: u64, from: u64, every: u64, count: u64) -> u64 {
        let passes = |place: u64| {
            let is_taken = bucket.has(1, rate, from + place * every);
            if is_taken {
                bucket.take(1);
            }
            u64::from(is_taken)
        };
        (0..count).map(passes).sum()
    }

    #[test]
    fn a_second_s_worth_at_once_then_the_rate() {
        let mut bucket = Bucket::default();
        assert_eq!(passed(&mut bucket, 100, 5_000, 0, 1_000), 100);
        assert_eq!(passed(&mut bucket, 100, 5_000, 1, 10_000), 999, "100 a second for 10 seconds");
        assert_eq!(passed(&mut bucket, 100, 60_000, 0, 1_000), 100, "full again, and no more than that");
    }

    #[test]
    fn who_stays_below_the_rate_never_notices() {
        let mut bucket = Bucket::default();
        assert_eq!(passed(&mut bucket, 100, 0, 10, 10_000), 10_000);
        assert_eq!(passed(&mut bucket, 1, 1_000_000, 1_000, 100), 100);
    }

    #[test]
    fn what_is_larger_than_the_bucket_passes_when_nothing_else_has() {
        let mut bucket = Bucket::default();
        assert!(bucket.has(5_000, 1_000, 1));
        bucket.take(5_000);
        assert!(!bucket.has(1, 1_000, 4_000));
        assert!(bucket.has(5_000, 1_000, 5_001));
    }

    #[test]
    fn a_clock_far_ahead_does_no_harm() {
        let mut bucket = Bucket::default();
        assert!(bucket.has(u64::MAX, u64::MAX, u64::MAX));
        bucket.take(u64::MAX);
        assert!(!bucket.has(1, 1, 0));
    }
}
