//! What the spool counts.

use super::segment::Numbered;
use super::tally::Exporters;
use crate::batch::Sealed;
use crate::metrics::Labelled;
use crate::proto::skip::Reason;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
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
    /// The disk takes nothing, or does not answer: 1, else 0.
    pub stalled: Gauge,
    /// Records in batches that were handed over and have no number yet.
    pub waiting_records: Gauge,
    /// Batches that have got a number.
    pub numbered_batches: Counter,
    /// Records in them.
    pub numbered_records: Counter,
    /// Batches of earlier starts that were found neither acked nor skipped.
    pub recovered_batches: Counter,
    /// Records in them.
    pub recovered_records: Counter,
    /// Batches that turned out to be acked without having been sent by this process.
    pub found_committed_batches: Counter,
    /// Records in them.
    pub found_committed_records: Counter,
    /// Batches that are neither acked, nor skipped, nor set aside.
    pub unacked_batches: Gauge,
    /// Records in them.
    pub unacked_records: Gauge,
    /// The same per exporter.
    pub exporters: Exporters,
    /// Batches dropped before they got a number, by [`Metrics::DROPPED`].
    pub dropped_batches: Labelled,
    /// Records, and raw datagrams, in them.
    pub dropped_records: Labelled,
    /// Numbers that will not be sent any more, by [`Metrics::SKIPPED`].
    pub skipped_batches: Labelled,
    /// Records, and raw datagrams, in them, where they are known.
    pub skipped_records: Labelled,
    /// Batches that were set aside, by this process or one before, and deleted when the byte budget was used up.
    pub aside_deleted_batches: Counter,
    /// Records in them, where they are known.
    pub aside_deleted_records: Counter,
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
        let counters = [
            ("spool_numbered_batches", "Batches that have got a number", &self.numbered_batches),
            ("spool_numbered_records", "Records and raw datagrams in them", &self.numbered_records),
            (
                "spool_recovered_batches",
                "Batches of earlier starts found neither acked nor skipped",
                &self.recovered_batches,
            ),
            ("spool_recovered_records", "Records and raw datagrams in them", &self.recovered_records),
            (
                "spool_found_committed_batches",
                "Batches found to be acked that an earlier start has sent",
                &self.found_committed_batches,
            ),
            (
                "spool_found_committed_records",
                "Records and raw datagrams in them",
                &self.found_committed_records,
            ),
        ];
        for (name, help, counter) in counters {
            into.register(name, help, counter.clone());
        }
        let gauges = [
            ("spool_stalled", "1 while the spool's disk is full, fails or does not answer", &self.stalled),
            (
                "spool_waiting_records",
                "Records and raw datagrams without a number yet",
                &self.waiting_records,
            ),
            ("spool_unacked_batches", "Batches neither acked nor given up", &self.unacked_batches),
            ("spool_unacked_records", "Records and raw datagrams in them", &self.unacked_records),
        ];
        for (name, help, gauge) in gauges {
            into.register(name, help, gauge.clone());
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
        let deleted = [
            (
                "spool_aside_deleted_batches",
                "Batches set aside and then deleted to make room",
                &self.aside_deleted_batches,
            ),
            (
                "spool_aside_deleted_records",
                "Records and raw datagrams in them, where known",
                &self.aside_deleted_records,
            ),
        ];
        for (name, help, counter) in deleted {
            into.register(name, help, counter.clone());
        }
    }

    /// Counts a batch that gets no number.
    pub(super) fn count_dropped(&self, reason: &'static str, batch: &Sealed) {
        self.dropped_batches.add(reason, 1);
        self.dropped_records.add(reason, u64::from(batch.records));
        self.waiting_records.dec_by(i64::from(batch.records));
        self.exporters.dropped(&batch.shares);
    }

    /// Counts a batch that has got its number.
    pub(super) fn count_numbered(&self, one: &Numbered) {
        let records = i64::from(one.batch.records);
        self.numbered_batches.inc();
        self.numbered_records.inc_by(u64::from(one.batch.records));
        self.unacked_batches.inc();
        self.unacked_records.inc_by(records);
        self.waiting_records.dec_by(records);
        self.exporters.batched(&one.shares);
    }

    /// All records dropped before they got a number.
    pub fn all_dropped_records(&self) -> u64 {
        Self::DROPPED.iter().map(|reason| self.dropped_records.get(reason)).sum()
    }

    /// Counts the numbers of a skip row, with so many records.
    pub(super) fn count_skipped(&self, row: &super::SkipRow, records: u64) {
        let reason = match row.reason {
            Reason::Dropped => "dropped",
            Reason::Damaged => "damaged",
            Reason::Lost => "lost",
            Reason::Rejected => "rejected",
            Reason::AlreadyAcked | Reason::Unknown => return,
        };
        self.skipped_batches.add(reason, row.to - row.from + 1);
        self.skipped_records.add(reason, records);
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
            stalled: Gauge::default(),
            waiting_records: Gauge::default(),
            numbered_batches: Counter::default(),
            numbered_records: Counter::default(),
            recovered_batches: Counter::default(),
            recovered_records: Counter::default(),
            found_committed_batches: Counter::default(),
            found_committed_records: Counter::default(),
            unacked_batches: Gauge::default(),
            unacked_records: Gauge::default(),
            exporters: Exporters::default(),
            dropped_batches: Labelled::new("reason", &Self::DROPPED),
            dropped_records: Labelled::new("reason", &Self::DROPPED),
            skipped_batches: Labelled::new("reason", &Self::SKIPPED),
            skipped_records: Labelled::new("reason", &Self::SKIPPED),
            aside_deleted_batches: Counter::default(),
            aside_deleted_records: Counter::default(),
        }
    }
}
