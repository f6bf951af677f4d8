//! Notices that the disk does not come back: one that stalls gives no error.

use super::state::locked;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A call that takes longer is a stall.
const PATIENCE: Duration = Duration::from_secs(5);

/// The calls that are under way, of all threads. Cheap to clone; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Mutex<UnderWay>>);

#[derive(Debug, Default)]
struct UnderWay {
    /// When each began, by its number: the first one is the oldest.
    begun: BTreeMap<u64, Instant>,
    /// Calls so far.
    count: u64,
}

/// One call; it is over when this is dropped.
struct Call<'a> {
    calls: &'a Calls,
    number: u64,
}

impl Calls {
    /// Makes a call under watch.
    pub fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        let _under_way = self.begin(Instant::now());
        call()
    }

    fn begin(&self, now: Instant) -> Call<'_> {
        let mut under_way = locked(&self.0);
        under_way.count += 1;
        let number = under_way.count;
        under_way.begun.insert(number, now);
        Call { calls: self, number }
    }

    /// Whether a call has been under way for longer than a disk takes.
    pub fn are_stalled(&self, now: Instant) -> bool {
        let under_way = locked(&self.0);
        let oldest = under_way.begun.first_key_value();
        oldest.is_some_and(|(_, begun)| now.saturating_duration_since(*begun) >= PATIENCE)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        locked(&self.calls.0).begun.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_back_is_a_stall_until_it_does() {
        let (calls, now) = (Calls::default(), Instant::now());
        assert!(!calls.are_stalled(now + PATIENCE), "nothing is under way");
        let first = calls.begin(now);
        assert!(!calls.are_stalled(now + PATIENCE - Duration::from_millis(1)));
        assert!(calls.are_stalled(now + PATIENCE));
        let second = calls.begin(now + PATIENCE);
        drop(first);
        assert!(!calls.are_stalled(now + PATIENCE), "the other has just begun");
        assert!(calls.are_stalled(now + 2 * PATIENCE));
        drop(second);
        assert!(!calls.are_stalled(now + 2 * PATIENCE));
        assert!(calls.during(|| calls.are_stalled(Instant::now() + PATIENCE)));
        assert!(locked(&calls.0).begun.is_empty());
    }
}
