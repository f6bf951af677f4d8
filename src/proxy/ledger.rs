//! The loss ledger: what became of all that was received, in total and per exporter; for `/status` and the heartbeat.
//!
//! ```text
//! datagrams received = accepted + refused + limited + truncated + unreadable (reason)
//! sets received      = decoded + held + undecoded (reason) + unknown samples
//! records decoded    = dropped (reason) + open + batched
//! raw accepted       = dropped (reason) + open + batched
//! batched, both      = waiting + dropped in the spool (reason) + numbered
//! numbered + recovered = committed + found committed + skipped (reason, set aside among them) + unacked
//! ```
//!
//! Each term is counted where it happens and none is a difference; they are read one after the other, so that they add
//! up only while nothing comes. Each number in the JSON is one counter's, so that a counter that does not count is a
//! number that is missing in a sum. From the spool's queue on records and raw datagrams are counted together. What
//! sequence numbers say is an estimate and in no sum; nor is `aside_deleted`, as what was set aside is among the skipped,
//! also when it is deleted later.

use super::exporters;
use super::status::Counters;
use crate::metrics::{Ingest, Labelled};
use crate::proto;
use crate::shard::{ByUnit, ExporterRow, Totals};
use crate::spool::ExporterTally;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::net::IpAddr;

/// Exporters with a row of their own, those heard last; the others share one.
const MOST_EXPORTERS: usize = 1_000;

/// All of it.
pub(super) fn json(counters: &Counters, rows: Vec<ExporterRow>) -> Value {
    json!({ "total": total(counters), "exporters": per_exporter(rows, counters.spool.exporters.rows()) })
}

fn total(counters: &Counters) -> Value {
    let (ingest, spool, uplink) = (&counters.ingest, &counters.spool, &counters.uplink);
    json!({
        "datagrams": {
            "received": ingest.datagrams_received.get(),
            "refused": ingest.datagrams_refused.get(),
            "limited": ingest.datagrams_limited.get(),
            "accepted": ingest.datagrams_accepted.get(),
            "truncated": ingest.datagrams_truncated.get(),
            "unreadable": ingest.datagrams_unreadable.all(),
            "dropped_by_kernel": ingest.datagrams_dropped_by_kernel.get(),
        },
        "sets": {
            "received": ingest.sets_received.get(),
            "decoded": ingest.sets_decoded.get(),
            "held": ingest.sets_held.get(),
            "undecoded": ingest.sets_undecoded.all(),
            "undecoded_bytes": ingest.set_bytes_undecoded.get(),
            "unknown_samples": ingest.samples_unknown.get(),
        },
        "records": {
            "decoded": ingest.records_decoded.get(),
            "by_kind": ingest.records_by_kind.all(),
            "dropped": ingest.records_dropped.all(),
            "open": ingest.records_open.get(),
            "batched": ingest.records_batched.get(),
        },
        "raw_datagrams": {
            "accepted": ingest.raw_accepted.get(),
            "dropped": ingest.raw_dropped.all(),
            "open": ingest.raw_open.get(),
            "batched": ingest.raw_batched.get(),
        },
        "spool": {
            "waiting": spool.waiting_records.get(),
            "dropped": spool.dropped_records.all(),
            "numbered": spool.numbered_records.get(),
            "recovered": spool.recovered_records.get(),
            "committed": {
                "records": uplink.committed_records.get(),
                "raw_datagrams": uplink.committed_raw.get(),
            },
            "found_committed": spool.found_committed_records.get(),
            "skipped": spool.skipped_records.all(),
            "aside_deleted": spool.aside_deleted_records.get(),
            "unacked": spool.unacked_records.get(),
        },
        "batches": {
            "numbered": spool.numbered_batches.get(),
            "recovered": spool.recovered_batches.get(),
            "committed": uplink.committed_batches.get(),
            "found_committed": spool.found_committed_batches.get(),
            "skipped": spool.skipped_batches.all(),
            "aside_deleted": spool.aside_deleted_batches.get(),
            "unacked": spool.unacked_batches.get(),
        },
        "estimates": {
            "missing_by_sequence": ingest.missing_net(),
            "late": ingest.sequence_late.all(),
            "duplicate_datagrams": ingest.sequence_duplicates.get(),
            "resets": ingest.sequence_resets.get(),
            "samples_dropped_by_exporter": ingest.samples_dropped_by_exporter.get(),
            "lost_in_restart": ingest.restart_missing.all(),
        },
    })
}

/// The totals that the heartbeat carries.
pub(super) fn counters(counters: &Counters) -> proto::Counters {
    let (ingest, spool, uplink) = (&counters.ingest, &counters.spool, &counters.uplink);
    let sum = |labelled: &Labelled| labelled.all().values().sum();
    let gauge = |value: i64| u64::try_from(value).unwrap_or(0);
    proto::Counters {
        datagrams_received: ingest.datagrams_received.get(),
        datagrams_accepted: ingest.datagrams_accepted.get(),
        datagrams_refused: ingest.datagrams_refused.get(),
        datagrams_limited: ingest.datagrams_limited.get(),
        datagrams_truncated: ingest.datagrams_truncated.get(),
        datagrams_unreadable: sum(&ingest.datagrams_unreadable),
        datagrams_dropped_by_kernel: ingest.datagrams_dropped_by_kernel.get(),
        sets_received: ingest.sets_received.get(),
        sets_decoded: ingest.sets_decoded.get(),
        sets_held: gauge(ingest.sets_held.get()),
        sets_undecoded: sum(&ingest.sets_undecoded),
        samples_unknown: ingest.samples_unknown.get(),
        records_decoded: ingest.records_decoded.get(),
        records_open: gauge(ingest.records_open.get()),
        records_dropped: ingest.records_dropped_total() + spool.all_dropped_records(),
        records_batched: ingest.records_batched.get(),
        raw_accepted: ingest.raw_accepted.get(),
        raw_open: gauge(ingest.raw_open.get()),
        raw_dropped: sum(&ingest.raw_dropped),
        raw_batched: ingest.raw_batched.get(),
        spool_waiting: gauge(spool.waiting_records.get()),
        spool_dropped: spool.all_dropped_records(),
        numbered: spool.numbered_records.get(),
        recovered: spool.recovered_records.get(),
        records_committed: uplink.committed_records.get(),
        raw_committed: uplink.committed_raw.get(),
        found_committed: spool.found_committed_records.get(),
        records_skipped: sum(&spool.skipped_records),
        unacked: gauge(spool.unacked_records.get()),
        missing_by_sequence: ingest.missing_net().values().sum(),
        lost_in_restart: sum(&ingest.restart_missing),
    }
}

/// A row an exporter, joined from what shards and spool count of it.
fn per_exporter(rows: Vec<ExporterRow>, tallies: Vec<(Option<IpAddr>, ExporterTally)>) -> Value {
    let mut tallies: HashMap<Option<IpAddr>, ExporterTally> = tallies.into_iter().collect();
    let mut shown: Vec<(Option<IpAddr>, Totals)> =
        exporters::shown(rows, MOST_EXPORTERS).into_iter().map(|row| (row.address, row.totals)).collect();
    let mut other = shown.pop_if(|(address, _)| address.is_none()).map(|(_, totals)| totals);
    let mut other_tally = tallies.remove(&None);
    let mut json: Vec<Value> = shown
        .into_iter()
        .map(|(address, totals)| row(address, &totals, &tallies.remove(&address).unwrap_or_default()))
        .collect();
    // Those of whom there is nothing but what earlier starts have left, and those for whom there is no row.
    for (address, tally) in tallies {
        if json.len() < MOST_EXPORTERS {
            json.push(row(address, &Totals::default(), &tally));
        } else {
            other_tally.get_or_insert_default().add(&tally);
        }
    }
    if other.is_some() || other_tally.is_some() {
        let totals = other.get_or_insert_default();
        json.push(row(None, totals, &other_tally.unwrap_or_default()));
    }
    json.into()
}

fn row(address: Option<IpAddr>, totals: &Totals, tally: &ExporterTally) -> Value {
    let sets = &totals.sets;
    let mut net = ByUnit::default();
    for (net, (missing, late)) in net.iter_mut().zip(totals.missing.iter().zip(&totals.late)) {
        *net = missing.saturating_sub(*late);
    }
    json!({
        "address": address.map_or_else(|| "other".to_owned(), |address| address.to_string()),
        "datagrams": {
            "accepted": totals.accepted,
            "refused": totals.refused,
            "limited": totals.limited,
            "truncated": totals.truncated,
            "unreadable": totals.unreadable,
        },
        "sets": {
            "received": sets.begun,
            "decoded": sets.decoded,
            "held": sets.held,
            "undecoded": sets.undecoded,
            "unknown_samples": sets.unknown,
        },
        "records": { "data": totals.records, "options": totals.options },
        "raw_datagrams": totals.raw,
        "dropped": { "queue_full": totals.dropped, "in_spool": tally.dropped },
        "numbered": tally.batched,
        "committed": tally.committed,
        "skipped": tally.skipped,
        "of_earlier_starts": { "committed": tally.committed_of_before, "skipped": tally.skipped_of_before },
        "estimates": {
            "missing_by_sequence": by_unit(&net),
            "late": by_unit(&totals.late),
            "lost_in_restart": by_unit(&totals.restart_missing),
        },
    })
}

/// Only what is not 0: most exporters count one thing.
fn by_unit(numbers: &ByUnit) -> Value {
    let named = Ingest::UNITS.into_iter().zip(numbers).filter(|(_, number)| **number > 0);
    let map: Map<String, Value> = named.map(|(unit, number)| (unit.to_owned(), (*number).into())).collect();
    map.into()
}

/// The ledger of a part of a proxy, for the part's own tests.
#[cfg(test)]
pub(crate) fn of_parts(ingest: &Ingest, spool: &crate::spool::Metrics, rows: Vec<ExporterRow>) -> Value {
    json(&Counters { ingest: ingest.clone(), spool: spool.clone(), ..Counters::default() }, rows)
}

#[cfg(test)]
mod tests;
