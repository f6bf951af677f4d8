//! What a collector counts. Labels are fixed sets.

use crate::metrics::Labelled;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The collector's counters. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Connections open now, handshakes under way among them.
    pub connections: Gauge,
    /// Connections that came.
    pub accepted: Counter,
    /// Connections refused, by [`Metrics::REFUSED`].
    pub refused: Labelled,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: Counter,
    /// Failures to accept a connection, such as too many open files.
    pub accept_errors: Counter,
    /// Streams of proxies open now.
    pub streams: Gauge,
    /// Bytes of batch payloads that came, whatever became of them.
    pub received_bytes: Counter,
    /// Batches committed, by [`Metrics::KINDS`].
    pub batches: Labelled,
    /// Records committed.
    pub records: Counter,
    /// Raw datagrams committed.
    pub datagrams: Counter,
    /// Batches committed that no sink takes, by [`Metrics::KINDS`].
    pub unwanted: Labelled,
    /// Batches and skips that were there already.
    pub duplicates: Counter,
    /// Batches and skips dropped because something before them was missing.
    pub gaps: Counter,
    /// Batches refused for good, by [`Metrics::REJECTED`].
    pub rejected: Labelled,
    /// Records and datagrams that proxies skipped, by [`Metrics::SKIPPED`], as far as their number is known.
    pub skipped: Labelled,
    /// Batches that proxies skipped, by [`Metrics::SKIPPED`].
    pub skipped_batches: Labelled,
    /// Batches that lanes lacked when they were closed: lost with their disk.
    pub lost_batches: Counter,
    /// Two live connections of one identity whose processes differ and both write: a copied disk or key.
    pub twins: Counter,
    /// Lanes of which a proxy knows more to be committed than this store does.
    pub marks_went_back: Counter,
    /// Lanes adopted: their marks were not known.
    pub adopted: Counter,
    /// Bytes written by sinks.
    pub sink_bytes: Counter,
    /// Durable transactions of the mark store.
    pub commits: Counter,
    /// fsyncs of sink files.
    pub fsyncs: Counter,
    /// Failures of store or sinks; each is tried again.
    pub failures: Counter,
    /// 1 while store or sinks do not work.
    pub stalled: Gauge,
}

impl Metrics {
    /// Why a connection is refused.
    pub const REFUSED: [&str; 5] = ["connections", "address", "identity", "not_allowed", "streams"];
    /// What batches hold.
    pub const KINDS: [&str; 2] = ["records", "raw"];
    /// Why a batch is rejected.
    pub const REJECTED: [&str; 4] = ["malformed", "too_large", "forked", "poison"];
    /// Why batches are skipped.
    pub const SKIPPED: [&str; 6] = ["unknown", "dropped", "damaged", "lost", "rejected", "already_acked"];

    /// All at zero, belonging to no registry yet.
    pub fn new() -> Self {
        Self {
            connections: Gauge::default(),
            accepted: Counter::default(),
            refused: Labelled::new("reason", &Self::REFUSED),
            handshakes_failed: Counter::default(),
            accept_errors: Counter::default(),
            streams: Gauge::default(),
            received_bytes: Counter::default(),
            batches: Labelled::new("kind", &Self::KINDS),
            records: Counter::default(),
            datagrams: Counter::default(),
            unwanted: Labelled::new("kind", &Self::KINDS),
            duplicates: Counter::default(),
            gaps: Counter::default(),
            rejected: Labelled::new("reason", &Self::REJECTED),
            skipped: Labelled::new("reason", &Self::SKIPPED),
            skipped_batches: Labelled::new("reason", &Self::SKIPPED),
            lost_batches: Counter::default(),
            twins: Counter::default(),
            marks_went_back: Counter::default(),
            adopted: Counter::default(),
            sink_bytes: Counter::default(),
            commits: Counter::default(),
            fsyncs: Counter::default(),
            failures: Counter::default(),
            stalled: Gauge::default(),
        }
    }

    /// Puts all of them into `into`, each under its name.
    pub fn register(&self, into: &mut Registry) {
        let counters = [
            ("collector_accepted_connections", "Connections that came", &self.accepted),
            ("collector_failed_handshakes", "TLS handshakes that failed", &self.handshakes_failed),
            ("collector_accept_errors", "Failures to accept a connection", &self.accept_errors),
            ("collector_received_bytes", "Bytes of batch payloads that came", &self.received_bytes),
            ("collector_committed_records", "Records committed", &self.records),
            ("collector_committed_datagrams", "Raw datagrams committed", &self.datagrams),
            ("collector_duplicates", "Batches and skips that were there already", &self.duplicates),
            ("collector_gaps", "Batches and skips dropped after a gap", &self.gaps),
            ("collector_lost_batches", "Batches lost with their proxy's disk", &self.lost_batches),
            ("collector_twins", "Identities seen writing from two processes", &self.twins),
            ("collector_marks_went_back", "Marks lower than their proxies know", &self.marks_went_back),
            ("collector_adopted_lanes", "Lanes whose marks were not known", &self.adopted),
            ("collector_sink_bytes", "Bytes written by sinks", &self.sink_bytes),
            ("collector_store_commits", "Durable transactions of the mark store", &self.commits),
            ("collector_sink_fsyncs", "fsyncs of sink files", &self.fsyncs),
            ("collector_failures", "Failures of store or sinks, tried again", &self.failures),
        ];
        for (name, help, counter) in counters {
            into.register(name, help, counter.clone());
        }
        let gauges = [
            ("collector_connections", "Connections open now", &self.connections),
            ("collector_streams", "Streams of proxies open now", &self.streams),
            ("collector_stalled", "1 while store or sinks do not work", &self.stalled),
        ];
        for (name, help, gauge) in gauges {
            into.register(name, help, gauge.clone());
        }
        let labelled = [
            ("collector_refused_connections", "Connections refused, by reason", &self.refused),
            ("collector_committed_batches", "Batches committed, by kind", &self.batches),
            ("collector_unwanted_batches", "Batches committed that no sink takes", &self.unwanted),
            ("collector_rejected_batches", "Batches refused for good, by reason", &self.rejected),
            ("collector_skipped_records", "Records skipped by proxies, by reason", &self.skipped),
            ("collector_skipped_batches", "Batches skipped by proxies, by reason", &self.skipped_batches),
        ];
        for (name, help, counters) in labelled {
            counters.register(into, name, help);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
