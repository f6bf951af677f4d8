//! What a collector keeps of the loss ledger: what it committed and what proxies gave up, per proxy and exporter.

use super::lane::OTHERS;
use crate::proto::Counters;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Exporters with a row of their own, over all proxies; the others of a proxy share one of its.
const MOST_EXPORTERS: usize = 10_000;

/// What one proxy has in a group that is committed together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) record_batches: u64,
    pub(super) raw_batches: u64,
    pub(super) records: u64,
    pub(super) datagrams: u64,
    /// Records and raw datagrams of each exporter.
    pub(super) exporters: BTreeMap<IpAddr, u64>,
    /// What it gave up, by reason.
    pub(super) skipped: BTreeMap<&'static str, Given>,
    /// Of each exporter, as far as that is known.
    pub(super) exporters_skipped: BTreeMap<IpAddr, u64>,
}

/// What a proxy gave up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Given {
    /// Batches.
    pub batches: u64,
    /// Records and raw datagrams in them, as far as their number is known.
    pub records: u64,
}

impl Given {
    /// Adds more; a proxy may say what it likes, and the sum ends at the highest number.
    pub(super) fn add(&mut self, more: &Self) {
        self.batches = self.batches.saturating_add(more.batches);
        self.records = self.records.saturating_add(more.records);
    }
}

/// What `/status` says of an exporter of a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exporter {
    /// Its address; "other" for those that have no row of their own.
    pub address: String,
    /// Records and raw datagrams of it that were committed.
    pub committed: u64,
    /// Those that its proxy gave up.
    pub skipped: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) committed: u64,
    pub(super) skipped: u64,
}

/// A proxy's exporters. Bounded with those of all others.
#[derive(Debug, Default)]
pub(super) struct Exporters {
    rows: BTreeMap<IpAddr, Counts>,
    other: Counts,
}

impl Exporters {
    /// The exporter's row. `all` counts those of all proxies.
    pub(super) fn row(&mut self, address: IpAddr, all: &mut usize) -> &mut Counts {
        if address == OTHERS {
            return &mut self.other;
        }
        if !self.rows.contains_key(&address) && *all < MOST_EXPORTERS {
            *all += 1;
            self.rows.insert(address, Counts::default());
        }
        self.rows.get_mut(&address).unwrap_or(&mut self.other)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn shown(&self) -> Vec<Exporter> {
        let own = self.rows.iter().map(|(address, counts)| (address.to_string(), counts));
        let other = (self.other != Counts::default()).then(|| ("other".to_owned(), &self.other));
        own.chain(other)
            .map(|(address, counts)| Exporter {
                address,
                committed: counts.committed,
                skipped: counts.skipped,
            })
            .collect()
    }
}

/// A proxy's own ledger, as it last said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "named and described in forward.proto, Counters")]
pub struct Totals {
    pub datagrams_received: u64,
    pub records_decoded: u64,
    pub records_batched: u64,
    pub records_committed: u64,
    pub records_skipped: u64,
    pub records_dropped: u64,
    pub datagrams_dropped_by_kernel: u64,
    pub datagrams_accepted: u64,
    pub datagrams_refused: u64,
    pub datagrams_limited: u64,
    pub datagrams_truncated: u64,
    pub datagrams_unreadable: u64,
    pub sets_received: u64,
    pub sets_decoded: u64,
    pub sets_held: u64,
    pub sets_undecoded: u64,
    pub samples_unknown: u64,
    pub records_open: u64,
    pub raw_accepted: u64,
    pub raw_dropped: u64,
    pub raw_open: u64,
    pub raw_batched: u64,
    pub spool_waiting: u64,
    pub spool_dropped: u64,
    pub numbered: u64,
    pub recovered: u64,
    pub raw_committed: u64,
    pub found_committed: u64,
    pub unacked: u64,
    pub missing_by_sequence: u64,
    pub lost_in_restart: u64,
}

impl From<Counters> for Totals {
    fn from(counters: Counters) -> Self {
        Self {
            datagrams_received: counters.datagrams_received,
            records_decoded: counters.records_decoded,
            records_batched: counters.records_batched,
            records_committed: counters.records_committed,
            records_skipped: counters.records_skipped,
            records_dropped: counters.records_dropped,
            datagrams_dropped_by_kernel: counters.datagrams_dropped_by_kernel,
            datagrams_accepted: counters.datagrams_accepted,
            datagrams_refused: counters.datagrams_refused,
            datagrams_limited: counters.datagrams_limited,
            datagrams_truncated: counters.datagrams_truncated,
            datagrams_unreadable: counters.datagrams_unreadable,
            sets_received: counters.sets_received,
            sets_decoded: counters.sets_decoded,
            sets_held: counters.sets_held,
            sets_undecoded: counters.sets_undecoded,
            samples_unknown: counters.samples_unknown,
            records_open: counters.records_open,
            raw_accepted: counters.raw_accepted,
            raw_dropped: counters.raw_dropped,
            raw_open: counters.raw_open,
            raw_batched: counters.raw_batched,
            spool_waiting: counters.spool_waiting,
            spool_dropped: counters.spool_dropped,
            numbered: counters.numbered,
            recovered: counters.recovered,
            raw_committed: counters.raw_committed,
            found_committed: counters.found_committed,
            unacked: counters.unacked,
            missing_by_sequence: counters.missing_by_sequence,
            lost_in_restart: counters.lost_in_restart,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn rows_are_bounded_and_lose_no_count() {
        let (mut exporters, mut all) = (Exporters::default(), MOST_EXPORTERS - 2);
        for number in 0..5 {
            exporters.row(Ipv4Addr::from(number).into(), &mut all).committed += 2;
            exporters.row(Ipv4Addr::from(number).into(), &mut all).skipped += 1;
        }
        exporters.row(OTHERS, &mut 0).skipped += 4;
        assert_eq!((exporters.len(), all), (2, MOST_EXPORTERS));
        let shown = exporters.shown();
        assert_eq!(shown.len(), 3);
        assert_eq!(shown[2], Exporter { address: "other".to_owned(), committed: 6, skipped: 7 });
    }
}
