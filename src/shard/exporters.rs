//! Who has been heard, for status: one row an address, bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Exporters that have a row of their own; the rest share one.
const MOST_EXPORTERS: usize = 10_000;

/// What one datagram had.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    pub(super) records: u64,
    pub(super) options: u64,
    pub(super) raw: u64,
    pub(super) faults: u64,
}

/// What an exporter has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExporterRow {
    /// Its address; `None` is all those for whom there was no row left.
    pub address: Option<IpAddr>,
    /// The source port of its last datagram.
    pub port: u16,
    /// Datagrams received from it.
    pub datagrams: u64,
    /// Flow records decoded.
    pub records: u64,
    /// Options records decoded.
    pub options: u64,
    /// Datagrams taken to be forwarded unread.
    pub raw: u64,
    /// Datagrams, sets and templates that could not be read.
    pub faults: u64,
    /// When its first datagram came, in milliseconds since 1970.
    pub first_seen: u64,
    /// When its last one did.
    pub last_seen: u64,
}

impl ExporterRow {
    fn new(address: Option<IpAddr>, now: u64) -> ExporterRow {
        ExporterRow {
            address,
            port: 0,
            datagrams: 0,
            records: 0,
            options: 0,
            raw: 0,
            faults: 0,
            first_seen: now,
            last_seen: now,
        }
    }
}

/// A shard's exporters as of the last second, for whoever shows them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ExporterView(Arc<Mutex<Vec<ExporterRow>>>);

impl ExporterView {
    /// The rows, in no order.
    pub fn rows(&self) -> Vec<ExporterRow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The shard's own table.
#[derive(Debug, Default)]
pub(super) struct Exporters {
    rows: HashMap<IpAddr, ExporterRow>,
    other: Option<ExporterRow>,
}

impl Exporters {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Counts a datagram; `now` is in milliseconds since 1970.
    pub(super) fn heard(&mut self, exporter: crate::flow::Exporter, now: u64, heard: Share) {
        let full = self.rows.len() >= MOST_EXPORTERS;
        let row = if full && !self.rows.contains_key(&exporter.address) {
            self.other.get_or_insert(ExporterRow::new(None, now))
        } else {
            let new = || ExporterRow::new(Some(exporter.address), now);
            self.rows.entry(exporter.address).or_insert_with(new)
        };
        row.port = exporter.port;
        row.datagrams += 1;
        row.records += heard.records;
        row.options += heard.options;
        row.raw += heard.raw;
        row.faults += heard.faults;
        row.last_seen = now;
    }

    /// Shows the table as it is.
    pub(super) fn publish(&self, view: &ExporterView) {
        let mut shown = view.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.clear();
        shown.extend(self.rows.values());
        shown.extend(&self.other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Exporter;

    #[test]
    fn past_the_cap_exporters_share_a_row() {
        let mut exporters = Exporters::default();
        let heard = Share { records: 3, ..Share::default() };
        for host in 0..MOST_EXPORTERS as u32 + 5 {
            let exporter = Exporter { address: std::net::Ipv4Addr::from(host).into(), port: 9 };
            exporters.heard(exporter, 1_000, heard);
        }
        let view = ExporterView::default();
        exporters.publish(&view);
        let rows = view.rows();
        assert_eq!(rows.len(), MOST_EXPORTERS + 1);
        let other = rows.iter().find(|row| row.address.is_none()).unwrap();
        assert_eq!((other.datagrams, other.records), (5, 15));
        assert_eq!(rows.iter().map(|row| row.records).sum::<u64>(), 3 * (MOST_EXPORTERS as u64 + 5));
    }
}
