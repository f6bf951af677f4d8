//! What the uplink counts. `crate::metrics` gives the counters their names.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// Bytes of TCP payload, TLS and all that is in it. Cheap to clone; clones share counters.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Written to sockets.
    pub sent_bytes: Counter,
    /// Read from sockets.
    pub received_bytes: Counter,
}

/// The uplink's counters, all since the process began. Cheap to clone; clones share counters.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Bytes to and from collectors.
    pub traffic: Traffic,
    /// Whether a collector has welcomed us and takes batches: 1, else 0.
    pub connected: Gauge,
    /// Connections that a collector has welcomed.
    pub connections: Counter,
    /// Attempts and connections that ended otherwise than by a goodbye.
    pub failures: Counter,
    /// Batches sent, those that are sent again among them.
    pub sent_batches: Counter,
    /// Skips sent.
    pub sent_skips: Counter,
    /// Batches that are sent and not acked.
    pub in_flight_batches: Gauge,
    /// Their payload's bytes.
    pub in_flight_bytes: Gauge,
    /// Batches acknowledged by a collector.
    pub committed_batches: Counter,
    /// Records in them.
    pub committed_records: Counter,
    /// Raw datagrams in them.
    pub committed_raw: Counter,
    /// Batches that a collector refused.
    pub rejected_batches: Counter,
    /// Lanes set aside because another writer had used them or their end was lost.
    pub lanes_set_aside: Counter,
    /// Marks that a collector showed lower than it had acked before.
    pub marks_went_back: Counter,
}
