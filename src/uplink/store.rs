//! Which mark store is ours, and when another one is taken in its place.
//!
//! Pure: time is passed in. The store that we delivered to knows what is committed; another one would get again
//! what is unacked here and committed there. So it is taken only when nobody has shown the old one for long.

use std::time::{Duration, Instant};

/// Another store is taken when no endpoint has shown the old one for so long.
const PATIENCE: Duration = Duration::from_secs(600);

/// What to do with a collector that shows a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one that we delivered to.
    Ours,
    /// We have delivered to none yet.
    First,
    /// It is another one, and the old one has been away for long enough.
    Instead,
    /// It is another one; it is taken when the old one stays away for so long.
    Refused(Duration),
}

/// When the store that we delivered to was last shown.
#[derive(Clone, Copy, Debug)]
pub struct StoreWatch {
    seen_at: Instant,
}

impl StoreWatch {
    /// At the start of the process, which is when the waiting begins.
    pub fn new(now: Instant) -> Self {
        Self { seen_at: now }
    }

    /// A collector with our store is there.
    pub fn seen(&mut self, now: Instant) {
        self.seen_at = self.seen_at.max(now);
    }

    /// A collector shows the store `shown`; `known` is the one that we delivered to, empty if none.
    pub fn judge(&self, known: &[u8], shown: &[u8], now: Instant) -> Verdict {
        let missed = now.saturating_duration_since(self.seen_at);
        match PATIENCE.checked_sub(missed).filter(|left| !left.is_zero()) {
            _ if known == shown => Verdict::Ours,
            _ if known.is_empty() => Verdict::First,
            Some(left) => Verdict::Refused(left),
            None => Verdict::Instead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn row_22_another_store_is_taken_after_ten_minutes_without_the_old_one() {
        let start = Instant::now();
        let watch = StoreWatch::new(start);
        assert_eq!(watch.judge(b"", b"b", start), Verdict::First);
        assert_eq!(watch.judge(b"a", b"a", start + HOUR), Verdict::Ours);
        assert_eq!(watch.judge(b"a", b"b", start), Verdict::Refused(PATIENCE));
        let almost = start + PATIENCE - Duration::from_secs(1);
        assert_eq!(watch.judge(b"a", b"b", almost), Verdict::Refused(Duration::from_secs(1)));
        assert_eq!(watch.judge(b"a", b"b", start + PATIENCE), Verdict::Instead);
    }

    #[test]
    fn row_22_the_ten_minutes_begin_when_the_old_one_is_gone_however_long_it_was_there() {
        let start = Instant::now();
        let mut watch = StoreWatch::new(start);
        watch.seen(start + HOUR);
        assert_eq!(watch.judge(b"a", b"b", start + HOUR), Verdict::Refused(PATIENCE));
        watch.seen(start);
        assert_eq!(watch.judge(b"a", b"b", start + HOUR), Verdict::Refused(PATIENCE));
    }
}
