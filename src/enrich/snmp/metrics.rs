//! What is counted of devices that are asked.

use super::error::Error;
use crate::metrics::Labelled;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The label of a walk that was whole.
const READ: &str = "read";
/// How it was noticed that numbers may stand for other interfaces.
pub(super) const RENUMBERED: [&str; 3] = ["name_changed", "uptime", "flow"];

/// SNMP's metrics. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Walks by how they ended: `read`, or an error's label.
    pub(super) walks: Labelled,
    /// Requests sent, without those sent again; of walks only those that brought rows.
    pub(super) requests: Counter,
    /// Milliseconds that walks took, failed ones among them.
    pub(super) walk_milliseconds: Counter,
    /// Devices that flow comes from and that there is a credential for.
    pub(super) devices: Gauge,
    /// Those of them whose last walk was whole.
    pub(super) devices_read: Gauge,
    /// Devices that there was no room for.
    pub(super) devices_left_out: Counter,
    /// Interfaces that there was no room for.
    pub(super) interfaces_left_out: Counter,
    /// Tables replaced because numbers may stand for other interfaces.
    pub(super) renumbered: Labelled,
}

impl Default for Metrics {
    fn default() -> Self {
        let results: Vec<_> = [READ].into_iter().chain(Error::LABELS).collect();
        Self {
            walks: Labelled::new("result", &results),
            requests: Counter::default(),
            walk_milliseconds: Counter::default(),
            devices: Gauge::default(),
            devices_read: Gauge::default(),
            devices_left_out: Counter::default(),
            interfaces_left_out: Counter::default(),
            renumbered: Labelled::new("by", &RENUMBERED),
        }
    }
}

impl Metrics {
    /// Puts all of them into `into`, each under its name.
    pub fn register(&self, into: &mut Registry) {
        self.walks.register(into, "snmp_walks", "Readings of a device's interfaces, by how they ended");
        let renumbered =
            "Times that a device's numbers may stand for other interfaces, by how it was noticed";
        self.renumbered.register(into, "snmp_renumbered", renumbered);
        let counters = [
            ("snmp_requests", "Requests to devices, without those sent again", &self.requests),
            ("snmp_walk_milliseconds", "Time that readings took", &self.walk_milliseconds),
            ("snmp_devices_left_out", "Times that there was no room for a device", &self.devices_left_out),
            ("snmp_interfaces_left_out", "Interfaces that there was no room for", &self.interfaces_left_out),
        ];
        for (name, help, counter) in counters {
            into.register(name, help, counter.clone());
        }
        into.register("snmp_devices", "Devices that are asked", self.devices.clone());
        into.register("snmp_devices_read", "Those whose last reading was whole", self.devices_read.clone());
    }

    pub(super) fn count_walk(&self, result: Result<(), &Error>) {
        self.walks.add(result.err().map_or(READ, Error::label), 1);
    }
}
