//! What the uplink counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

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
    /// How long the oldest batch that is not sent has waited.
    pub oldest_unsent_seconds: Gauge,
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

impl Metrics {
    /// Puts all of them into `into`, each under its name.
    pub fn register(&self, into: &mut Registry) {
        let counters = [
            ("uplink_sent_bytes", "Bytes of TCP payload sent to collectors", &self.traffic.sent_bytes),
            ("uplink_received_bytes", "Bytes of TCP payload that came back", &self.traffic.received_bytes),
            ("uplink_connections", "Connections that a collector has welcomed", &self.connections),
            ("uplink_failures", "Attempts and connections that failed", &self.failures),
            ("uplink_sent_batches", "Batches sent, also again", &self.sent_batches),
            ("uplink_sent_skips", "Skips sent", &self.sent_skips),
            ("records_committed", "Records acknowledged by a collector", &self.committed_records),
            ("uplink_committed_batches", "Batches acknowledged by a collector", &self.committed_batches),
            ("uplink_committed_raw_datagrams", "Raw datagrams in them", &self.committed_raw),
            ("uplink_rejected_batches", "Batches that a collector refused", &self.rejected_batches),
            ("uplink_lanes_set_aside", "Lanes that had two writers or lost their end", &self.lanes_set_aside),
            ("uplink_marks_went_back", "Marks lower than acked before", &self.marks_went_back),
        ];
        for (name, help, counter) in counters {
            into.register(name, help, counter.clone());
        }
        let gauges = [
            ("uplink_connected", "1 while a collector takes batches", &self.connected),
            ("uplink_in_flight_batches", "Batches sent and not acked", &self.in_flight_batches),
            ("uplink_in_flight_bytes", "Bytes of payload in them", &self.in_flight_bytes),
            (
                "uplink_oldest_unsent_seconds",
                "How long the oldest batch that is not sent has waited",
                &self.oldest_unsent_seconds,
            ),
        ];
        for (name, help, gauge) in gauges {
            into.register(name, help, gauge.clone());
        }
    }
}
