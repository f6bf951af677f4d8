//! How the link to the collector stands, for `/status` and the demo.

use super::session::Load;
use serde::Serialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The link as it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Link {
    /// What it is about.
    pub state: State,
    /// Since when, in milliseconds since 1970.
    pub since: u64,
    /// The collector that it is about, as configured.
    pub endpoint: String,
    /// The collector's address, while connected.
    pub address: Option<String>,
    /// The TLS version of the connection, while connected: "1.3".
    pub tls: Option<&'static str>,
    /// Its key exchange group, such as "X25519MLKEM768".
    pub key_exchange: Option<String>,
    /// Why the last connection or attempt ended; stays until the next one is welcomed.
    pub last_error: Option<String>,
    /// Something that needs an operator, until the next start.
    pub alarm: Option<String>,
    /// What is sent and not acked.
    pub in_flight: Load,
    /// The collector's window.
    pub window: Load,
    /// How long the oldest batch that is not sent yet has waited, in milliseconds; looked at
    /// every few seconds.
    pub oldest_unsent_ms: Option<u64>,
}

/// What the link is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A connection is being made.
    #[default]
    Connecting,
    /// The collector has welcomed us.
    Connected,
    /// Waiting before the next attempt.
    BackingOff,
    /// Ended on our side.
    Stopped,
}

impl Link {
    /// At the start.
    pub fn new() -> Self {
        Self {
            state: State::default(),
            since: now_ms(),
            endpoint: String::new(),
            address: None,
            tls: None,
            key_exchange: None,
            last_error: None,
            alarm: None,
            in_flight: Load::default(),
            window: Load::default(),
            oldest_unsent_ms: None,
        }
    }

    /// From now on it is about something else. What belongs to a connection is forgotten.
    pub(super) fn turn(&mut self, state: State) {
        if self.state != state {
            (self.state, self.since) = (state, now_ms());
        }
        if state != State::Connected {
            (self.address, self.tls, self.key_exchange) = (None, None, None);
            (self.in_flight, self.window) = (Load::default(), Load::default());
        }
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

/// The clock, for what is shown.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How long ago that was, both in milliseconds since 1970; nothing when the clock was set back since.
pub(super) fn age(since_ms: u64, now_ms: u64) -> Duration {
    Duration::from_millis(now_ms.saturating_sub(since_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_29_a_clock_that_is_set_back_makes_no_age() {
        const HOUR_MS: u64 = 3_600_000;
        let now = now_ms();
        assert_eq!(age(now - 5, now), Duration::from_millis(5));
        assert_eq!(age(now, now - HOUR_MS), Duration::ZERO);
        assert_eq!(age(now, 0), Duration::ZERO, "booted in 1970");
    }
}
