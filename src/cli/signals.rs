//! The signals that a running process obeys.

use super::Failure;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGTERM or Ctrl-C: end in order.
    Stop,
    /// SIGHUP: read the config again.
    Reload,
}

/// The signals, caught from now on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches them. Needs a tokio runtime.
    pub fn catch() -> Result<Self, Failure> {
        let of =
            |kind| signal(kind).map_err(|error| Failure::Other(format!("signals cannot be caught: {error}")));
        Ok(Self {
            terminate: of(SignalKind::terminate())?,
            interrupt: of(SignalKind::interrupt())?,
            hangup: of(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// Waits for SIGTERM or Ctrl-C again: the operator does not want to wait.
    pub async fn another_stop(&mut self) {
        while self.next().await != Wish::Stop {}
    }
}
