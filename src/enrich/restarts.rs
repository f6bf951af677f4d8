//! When exporters have started anew: numbers may stand for other interfaces since.

use crate::flow::Exporter;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

/// Starts that are remembered, of exporters and of devices.
const MOST: usize = 10_000;

/// The last start of each, in milliseconds since 1970.
#[derive(Clone, Debug, Default)]
pub(super) struct Restarts {
    exporters: HashMap<Exporter, u64>,
    devices: HashMap<IpAddr, u64>,
}

impl Restarts {
    /// These and those that started `now`.
    pub(super) fn with(&self, exporters: &[(Exporter, IpAddr)], now: u64) -> Restarts {
        let mut all = self.clone();
        for (exporter, device) in exporters {
            note(&mut all.exporters, *exporter, now);
            note(&mut all.devices, *device, now);
        }
        all
    }

    /// When an exporter last started, as far as that was seen; else 0.
    pub(super) fn of_exporter(&self, exporter: &Exporter) -> u64 {
        self.exporters.get(exporter).copied().unwrap_or(0)
    }

    /// The same of a device.
    pub(super) fn of_device(&self, device: &IpAddr) -> u64 {
        self.devices.get(device).copied().unwrap_or(0)
    }
}

/// When there are too many, the half of them goes that started longest ago: what their exporters told before is gone.
fn note<K: Copy + Eq + Hash>(starts: &mut HashMap<K, u64>, key: K, now: u64) {
    if starts.len() >= MOST {
        let mut times: Vec<u64> = starts.values().copied().collect();
        let (_, median, _) = times.select_nth_unstable(MOST / 2);
        let median = *median;
        starts.retain(|_, time| *time > median);
    }
    starts.insert(key, now);
}
