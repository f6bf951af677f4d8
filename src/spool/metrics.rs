//! What the spool counts.

use crate::metrics::Labelled;
use crate::proto::skip::Reason;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// The spool's counters, all since the process began. Records are datagrams in raw batches. Cheap to clone;
/// clones share counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Bytes of frames written to segments.
    pub written_bytes: Counter,
    /// Batches numbered and written, each once.
    pub written_batches: Counter,
    /// Records, and raw datagrams, in them.
    pub written_records: Counter,
    /// fdatasync calls on segments for the sake of batches.
    pub syncs: Counter,
    /// Bytes written to all files of the spool: segments with what is beside frames, positions, skip rows, quarantine.
    pub disk_bytes: Counter,
    /// All fdatasync and fsync calls, of files and folders, by [`Metrics::SYNCED`].
    pub fsyncs: Labelled,
    /// Calls that the disk refused.
    pub disk_errors: Counter,
    /// Batches dropped before they got a number, by [`Metrics::DROPPED`].
    pub dropped_batches: Labelled,
    /// Records, and raw datagrams, in them.
    pub dropped_records: Labelled,
    /// Numbers that will not be sent any more, by [`Metrics::SKIPPED`].
    pub skipped_batches: Labelled,
    /// Records, and raw datagrams, in them, where they are known.
    pub skipped_records: Labelled,
}

impl Metrics {
    /// A segment.
    pub const SEGMENT: &str = "segment";
    /// The file `positions`.
    pub const POSITIONS: &str = "positions";
    /// The file `skips`.
    pub const SKIPS: &str = "skips";
    /// A folder: names of files.
    pub const FOLDER: &str = "folder";
    /// Any other file: what goes to quarantine.
    pub const OTHER: &str = "other";
    /// What is synced.
    pub const SYNCED: [&str; 5] = [Self::SEGMENT, Self::POSITIONS, Self::SKIPS, Self::FOLDER, Self::OTHER];
    /// Larger than a frame may be.
    pub const TOO_LARGE: &str = "too_large";
    /// The disk took nothing up to the process's end.
    pub const DISK: &str = "disk";
    /// Why batches were dropped before they got a number.
    pub const DROPPED: [&str; 2] = [Self::TOO_LARGE, Self::DISK];
    /// Set aside: another writer had used the lane.
    pub const ASIDE: &str = "aside";
    /// Why numbered batches are not sent any more: the reasons of a Skip that count as lost, and set aside.
    pub const SKIPPED: [&str; 5] = ["dropped", "damaged", "lost", "rejected", Self::ASIDE];

    /// Puts all of them into `into`, each under its name.
    pub fn register(&self, into: &mut Registry) {
        let counters = [
            ("spool_written_bytes", "Bytes of frames written to segments", &self.written_bytes),
            ("spool_written_batches", "Batches numbered and written", &self.written_batches),
            ("spool_written_records", "Records and raw datagrams in them", &self.written_records),
            ("spool_syncs", "fdatasync calls for the sake of batches", &self.syncs),
            ("spool_disk_written_bytes", "Bytes written to all files of the spool", &self.disk_bytes),
            ("spool_disk_errors", "Calls that the disk refused", &self.disk_errors),
        ];
        for (name, help, counter) in counters {
            into.register(name, help, counter.clone());
        }
        let labelled = [
            ("spool_fsyncs", "All fdatasync and fsync calls of the spool, by what is synced", &self.fsyncs),
            ("spool_dropped_batches", "Batches dropped before a number, by reason", &self.dropped_batches),
            ("spool_dropped_records", "Records and raw datagrams in them", &self.dropped_records),
            ("spool_skipped_batches", "Batches that will not be sent, by reason", &self.skipped_batches),
            (
                "spool_skipped_records",
                "Records and raw datagrams in them, where known",
                &self.skipped_records,
            ),
        ];
        for (name, help, counters) in labelled {
            counters.register(into, name, help);
        }
    }

    /// Counts batches that got no number.
    pub fn count_dropped(&self, reason: &'static str, batches: u64, records: u64) {
        self.dropped_batches.add(reason, batches);
        self.dropped_records.add(reason, records);
    }

    /// All records dropped before they got a number.
    pub fn all_dropped_records(&self) -> u64 {
        Self::DROPPED.iter().map(|reason| self.dropped_records.get(reason)).sum()
    }

    /// Counts the numbers of a skip row.
    pub fn count_skipped(&self, row: &super::SkipRow) {
        let reason = match row.reason {
            Reason::Dropped => "dropped",
            Reason::Damaged => "damaged",
            Reason::Lost => "lost",
            Reason::Rejected => "rejected",
            Reason::AlreadyAcked | Reason::Unknown => return,
        };
        self.skipped_batches.add(reason, row.to - row.from + 1);
        self.skipped_records.add(reason, row.records());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            written_bytes: Counter::default(),
            written_batches: Counter::default(),
            written_records: Counter::default(),
            syncs: Counter::default(),
            disk_bytes: Counter::default(),
            fsyncs: Labelled::new("of", &Self::SYNCED),
            disk_errors: Counter::default(),
            dropped_batches: Labelled::new("reason", &Self::DROPPED),
            dropped_records: Labelled::new("reason", &Self::DROPPED),
            skipped_batches: Labelled::new("reason", &Self::SKIPPED),
            skipped_records: Labelled::new("reason", &Self::SKIPPED),
        }
    }
}
