//! What the keeper counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The keeper's metrics. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Transactions made durable.
    pub writes: Counter,
    /// Domains written in them, gone ones among them.
    pub written_domains: Counter,
    /// Transactions that failed; what was in them is tried again.
    pub write_failures: Counter,
    /// Databases that could not be read and were set aside.
    pub set_aside: Counter,
    /// 1 while the database takes what is written.
    pub writable: Gauge,
}

impl Metrics {
    /// Puts all of them into `into`, each under its name.
    pub fn register(&self, into: &mut Registry) {
        let counters = [
            ("state_writes", "Transactions of the state of exporters", &self.writes),
            ("state_written_domains", "Domains written in them", &self.written_domains),
            ("state_write_failures", "Transactions that failed, to be tried again", &self.write_failures),
            ("state_set_aside", "State databases that could not be read", &self.set_aside),
        ];
        for (name, help, counter) in counters {
            into.register(name, help, counter.clone());
        }
        into.register("state_writable", "1 while state can be written", self.writable.clone());
    }
}
