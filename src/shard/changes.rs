//! The log of what becomes of senders: one line a change of state, so many a minute, then one line for the rest.

use super::cause::{Cause, Weight};
use super::facts::Facts;
use crate::wire::Heard;
use std::net::IpAddr;

/// Lines a minute; a flood of forged senders makes no more of them.
const MOST_LINES: u64 = 20;
const MINUTE_MS: u64 = 60_000;

/// Counts lines, so that they stay few. Time is passed in, in milliseconds of a clock that is never set.
#[derive(Debug, Default)]
pub(super) struct Changes {
    since: u64,
    logged: u64,
    left_out: u64,
}

impl Changes {
    /// Logs that a sender of this address was first heard, or that its state is another now.
    pub(super) fn log(&mut self, address: IpAddr, facts: &Facts, cause: &Cause, is_new: bool, elapsed: u64) {
        self.summarize(elapsed);
        if !self.has_room() {
            return;
        }
        let (port, domain, protocol) = (facts.port, facts.domain, facts.speaks.name());
        let what = if is_new { "An exporter was heard" } else { "An exporter's state has changed" };
        match cause.weight() {
            Weight::Wrong => tracing::warn!(exporter = %address, port, protocol, domain, "{what}: {cause}"),
            _ => tracing::info!(exporter = %address, port, protocol, domain, "{what}: {cause}"),
        }
    }

    /// Logs that a template's id has got other fields: rare with real exporters, and what a forged one would do.
    pub(super) fn redefined(&mut self, heard: &Heard<'_>, elapsed: u64) {
        self.summarize(elapsed);
        if !self.has_room() {
            return;
        }
        let exporter = heard.key.exporter;
        tracing::warn!(
            exporter = %exporter.address,
            port = exporter.port,
            domain = heard.key.domain,
            template = heard.id,
            "An exporter has changed the fields of a template"
        );
    }

    /// Says how many lines were left out in the minute that is over; to be called about every second.
    pub(super) fn summarize(&mut self, elapsed: u64) {
        if let Some(left_out) = self.turn(elapsed) {
            tracing::warn!(
                left_out,
                "More exporters were heard or changed than are logged in a minute: `flowproxy exporters` shows them"
            );
        }
    }

    /// Begins the next minute when it is time; tells what was left out in the last one.
    fn turn(&mut self, elapsed: u64) -> Option<u64> {
        if elapsed.saturating_sub(self.since) < MINUTE_MS {
            return None;
        }
        (self.since, self.logged) = (elapsed, 0);
        Some(std::mem::take(&mut self.left_out)).filter(|left_out| *left_out > 0)
    }

    fn has_room(&mut self) -> bool {
        let has_room = self.logged < MOST_LINES;
        if has_room {
            self.logged += 1
        } else {
            self.left_out += 1
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_has_few_lines_and_one_for_the_rest() {
        let mut changes = Changes::default();
        let logged = (0..1_000).filter(|_| changes.has_room()).count() as u64;
        assert_eq!(logged, MOST_LINES);
        assert_eq!(changes.turn(MINUTE_MS - 1), None);
        assert_eq!(changes.turn(MINUTE_MS), Some(1_000 - MOST_LINES));
        assert!(changes.has_room());
        assert_eq!(changes.turn(2 * MINUTE_MS), None, "nothing was left out");
    }
}
