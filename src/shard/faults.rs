//! The log of what was wrong with datagrams, and of templates that changed, at a limited rate: one line a fault and
//! interval, with how many more there were.

use crate::flow::Exporter;
use crate::wire::{Fault, Heard};
use std::collections::HashMap;

const INTERVAL_MS: u64 = 10_000;

/// Remembers when each kind of fault was last logged.
#[derive(Debug, Default)]
pub(super) struct FaultLog {
    /// (when, not logged since); one entry a kind of fault.
    logged: HashMap<Fault, (u64, u64)>,
}

impl FaultLog {
    /// Logs the fault, or counts it for the next line of its kind. `now` is in milliseconds since 1970.
    pub(super) fn log(&mut self, fault: Fault, exporter: Exporter, now: u64) {
        let (last, silent) = self.logged.entry(fault).or_insert((0, 0));
        // A clock that was set back does not silence the log for longer than an interval.
        if now.abs_diff(*last) < INTERVAL_MS {
            *silent += 1;
            return;
        }
        tracing::warn!(
            exporter = %exporter.address,
            port = exporter.port,
            reason = fault.label(),
            more = *silent,
            "{fault}"
        );
        (*last, *silent) = (now, 0);
    }
}

/// Remembers when a changed template was last logged.
#[derive(Debug, Default)]
pub(super) struct ChangeLog {
    /// When, and not logged since.
    logged: (u64, u64),
}

impl ChangeLog {
    /// Logs that a template's id has got other fields: rare with real exporters, and what a forged one would do. `now`
    /// is in milliseconds since 1970.
    pub(super) fn log(&mut self, heard: &Heard<'_>, now: u64) {
        let (last, silent) = &mut self.logged;
        if now.abs_diff(*last) < INTERVAL_MS {
            *silent += 1;
            return;
        }
        tracing::warn!(
            exporter = %heard.key.exporter.address,
            port = heard.key.exporter.port,
            domain = heard.key.domain,
            template = heard.id,
            more = *silent,
            "An exporter has changed the fields of a template"
        );
        (*last, *silent) = (now, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_interval_and_kind() {
        let exporter = Exporter { address: [127, 0, 0, 1].into(), port: 1 };
        let mut log = FaultLog::default();
        for now in [100_000, 100_001, 109_999] {
            log.log(Fault::NoTemplate, exporter, now);
        }
        assert_eq!(log.logged.get(&Fault::NoTemplate), Some(&(100_000, 2)));
        log.log(Fault::NoTemplate, exporter, 110_000);
        assert_eq!(log.logged.get(&Fault::NoTemplate), Some(&(110_000, 0)));
    }
}
