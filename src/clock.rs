//! The monotonic clock of asynchronous code.

use std::time::Instant;

/// The time by the clock that tokio's timers go by. It is the system's, but in a runtime whose time is simulated.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
