//! What is counted of connections and what they bring.

use crate::metrics::Labelled;
use crate::places::Full;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Of all listeners together. Cheap to clone; clones share counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Connections open now.
    pub connections: Gauge,
    /// Connections that came.
    pub accepted: Counter,
    /// Those that were closed at once, by [`Metrics::REFUSED`].
    pub refused: Labelled,
    /// Those that have ended since, by [`Metrics::ENDED`].
    pub ended: Labelled,
    /// Failures to accept one.
    pub accept_errors: Counter,
    /// Whole messages received.
    pub messages: Counter,
    /// Bytes received, those of messages that were cut off among them.
    pub bytes: Counter,
}

impl Metrics {
    /// Its address is not on the list.
    pub const NOT_ALLOWED: &str = "not_allowed";
    /// Why a connection is closed at once.
    pub const REFUSED: [&str; 3] = [Full::All.label(), Full::Address.label(), Self::NOT_ALLOWED];
    /// How a connection ended: the exporter closed it; it failed; it was closed by either end, or failed, within a
    /// message; what came was no IPFIX; its address may not send any more; the proxy stopped.
    pub const ENDED: [&str; 6] =
        ["closed", "failed", "incomplete", "malformed", Self::NOT_ALLOWED, "stopped"];

    /// All at zero, belonging to no registry yet.
    pub fn new() -> Metrics {
        Metrics {
            connections: Gauge::default(),
            accepted: Counter::default(),
            refused: Labelled::new("reason", &Self::REFUSED),
            ended: Labelled::new("reason", &Self::ENDED),
            accept_errors: Counter::default(),
            messages: Counter::default(),
            bytes: Counter::default(),
        }
    }

    /// Puts all of them into `into`, each under its name.
    pub fn register(&self, into: &mut Registry) {
        let counter = |into: &mut Registry, name: &str, help: &str, counter: &Counter| {
            into.register(name, help, counter.clone());
        };
        let open = self.connections.clone();
        into.register("tcp_connections", "Connections of exporters open now", open);
        counter(into, "tcp_accepted_connections", "Connections of exporters that came", &self.accepted);
        self.refused.register(into, "tcp_refused_connections", "Those closed at once, by reason");
        self.ended.register(into, "tcp_ended_connections", "Those that have ended, by reason");
        counter(into, "tcp_accept_errors", "Failures to accept one", &self.accept_errors);
        counter(into, "tcp_received_messages", "IPFIX messages received over TCP", &self.messages);
        counter(into, "tcp_received_bytes", "Bytes received over TCP", &self.bytes);
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}
