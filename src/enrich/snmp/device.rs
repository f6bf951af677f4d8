//! One device: when it is asked next, and whether its numbers still stand for the same interfaces. No clock and no socket.

use super::credential::Credential;
use super::error::Error;
use super::reading::System;
use crate::enrich::Table;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest that a device which fails is left alone.
const LONGEST: Duration = Duration::from_secs(3_600);
/// The least after a credential was refused: what locks accounts counts tries in minutes.
const REFUSED: Duration = Duration::from_secs(15 * 60);
/// After so many failures in a row a device is only probed: one request, not sent again.
const PROBED_AFTER: u32 = 8;
/// Without flow for so long, a device is forgotten.
const IDLE: Duration = Duration::from_secs(3_600);
/// The least time between two readings that a restart asks for.
const LEAST: Duration = Duration::from_secs(1);

/// How the last reading went.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) at: Instant,
    pub(super) system: System,
    pub(super) table: Arc<Table>,
}

/// What is kept of a device.
#[derive(Debug)]
pub(super) struct Device {
    /// When flow last came from it.
    pub(super) seen: Instant,
    /// When it is asked next.
    pub(super) due: Instant,
    /// It is being asked.
    pub(super) is_asked: bool,
    /// It started anew while it was being asked.
    pub(super) again: bool,
    /// Failures in a row.
    pub(super) failures: u32,
    pub(super) failed: Option<Error>,
    /// The credential that it took.
    pub(super) takes: Option<Arc<Credential>>,
    pub(super) told: Option<Told>,
}

impl Device {
    /// Asked at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            seen: now,
            due: now,
            is_asked: false,
            again: false,
            failures: 0,
            failed: None,
            takes: None,
            told: None,
        }
    }

    /// Nothing of it has come for long.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        !self.is_asked && now.saturating_duration_since(self.seen) > IDLE
    }

    /// It fails so often that one request is enough to see whether it still does.
    pub(super) fn is_probed(&self) -> bool {
        self.failures >= PROBED_AFTER
    }

    /// It has started anew: what it told does not hold.
    pub(super) fn restarted(&mut self, now: Instant) {
        let last = self.told.take().map(|told| told.at);
        self.again = self.is_asked;
        if self.failures == 0 {
            self.due = self.due.min(last.map_or(now, |last| now.max(last + LEAST)));
        }
    }

    /// A reading was whole. `share` from 0 to 1 says where in a tenth around `interval` the next one is.
    pub(super) fn read(&mut self, told: Told, takes: Arc<Credential>, (interval, share): (Duration, f64)) {
        self.due = told.at + interval.mul_f64(0.9 + 0.2 * share);
        (self.failures, self.failed, self.is_asked) = (0, None, false);
        (self.takes, self.told) = (Some(takes), Some(told));
        if std::mem::take(&mut self.again) {
            self.due = self.due.min(self.told.as_ref().map_or(self.due, |told| told.at + LEAST));
        }
    }

    /// A reading failed at `now`. `share` as in [`Device::read`].
    pub(super) fn fail(&mut self, error: Error, now: Instant, (interval, share): (Duration, f64)) {
        let doubled = 2_u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let first = match &error {
            Error::Restarted => LEAST,
            error if error.is_of_credential() => interval.max(REFUSED),
            _ => interval,
        };
        let longest = LONGEST.max(interval);
        let wait = first.saturating_mul(doubled).min(longest);
        let wait = if self.is_probed() { longest } else { wait };
        self.due = now + wait.mul_f64(0.9 + 0.2 * share);
        (self.failed, self.is_asked, self.again) = (Some(error), false, false);
    }

    /// How it can be seen, by what the device says of itself at `now`, that it has started anew since the last reading.
    pub(super) fn started_anew(&self, system: &System, now: Instant) -> bool {
        let Some(told) = &self.told else { return false };
        if let (Some(before), Some(boots)) = (told.system.boots, system.boots)
            && boots != before
        {
            return true;
        }
        let (Some(before), Some(uptime)) = (told.system.uptime, system.uptime) else { return false };
        let elapsed = now.saturating_duration_since(told.at).as_millis() / 10;
        // 497 days are over, and it has run on.
        let has_wrapped = u128::from(before) + elapsed + u128::from(CLOCK_ERROR) > u128::from(u32::MAX)
            && u128::from(uptime) <= elapsed + u128::from(CLOCK_ERROR);
        uptime < before && !has_wrapped
    }

    /// Whether a number stands for another name than at the last reading.
    pub(super) fn is_renamed(&self, table: &Table) -> bool {
        let Some(told) = &self.told else { return false };
        let renamed = |(index, entry): (&u32, &crate::enrich::Entry)| {
            told.table.interfaces.get(index).is_some_and(|before| before.name != entry.name)
        };
        table.interfaces.iter().any(renamed)
    }
}

/// How far a device's clock and ours may be apart over a reading's time, in hundredths of a second.
const CLOCK_ERROR: u32 = 60_000;

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
