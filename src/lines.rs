//! Log lines at a limited rate, for what the network can cause as often as it likes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Writes a line like tracing's macro of that level, at the limit of its own place in the code; `left_out` says how
/// many were left out before it.
macro_rules! limited {
    ($level:ident, $($line:tt)+) => {{
        static LINES: $crate::lines::Lines = $crate::lines::Lines::new();
        if let Some(left_out) = LINES.next() {
            tracing::$level!(left_out, $($line)+);
        }
    }};
}
pub(crate) use limited;

/// Lines of one kind in one [`PERIOD`].
const LINES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(10);

/// The limit of one kind of line; a static beside the line that it limits.
#[derive(Debug)]
pub(crate) struct Lines(Mutex<State>);

#[derive(Debug)]
struct State {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Lines {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(State { since: None, lines: 0, left_out: 0 }))
    }

    /// Whether a line may be written now; if so, how many were left out before it.
    pub(crate) fn next(&self) -> Option<u64> {
        self.next_at(Instant::now())
    }

    fn next_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.is_none_or(|since| now.saturating_duration_since(since) >= PERIOD) {
            state.since = Some(now);
            state.lines = 0;
        }
        if state.lines >= LINES {
            state.left_out += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told_later() {
        let lines = Lines::new();
        let now = Instant::now();
        for _ in 0..LINES {
            assert_eq!(lines.next_at(now), Some(0));
        }
        assert_eq!(lines.next_at(now), None);
        assert_eq!(lines.next_at(now + PERIOD / 2), None);
        assert_eq!(lines.next_at(now + PERIOD), Some(2));
        assert_eq!(lines.next_at(now + PERIOD), Some(0));
    }
}
