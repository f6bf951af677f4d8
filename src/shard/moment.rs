//! A point in time by two clocks: one that people set, and one that only goes on.

/// When something was received.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    /// By the wall clock, in milliseconds since 1970.
    pub(super) unix_ms: u64,
    /// By a clock that is never set, in milliseconds since the shard's start.
    pub(super) elapsed_ms: u64,
}

impl Moment {
    /// When this is, for what keeps times: steps of the wall clock make no age of them wrong. Never 0.
    pub(super) fn mark(self) -> u64 {
        self.elapsed_ms + 1
    }

    /// What the wall clock, as it is set now, would have said at a mark; 0 for no mark.
    pub(super) fn unix_of(self, mark: u64) -> u64 {
        if mark == 0 { 0 } else { self.unix_ms.saturating_sub(self.mark().saturating_sub(mark)).max(1) }
    }
}
