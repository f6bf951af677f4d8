//! What is shown is what was counted, a row an exporter.

use super::*;
use crate::ledger_equations::{LISTS, leaves, places};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from(number).into()
}

fn heard(number: u32, last_seen: u64) -> ExporterRow {
    let totals = Totals { records: 7, accepted: 2, first_seen: 1, last_seen, ..Totals::default() };
    ExporterRow { address: Some(address(number)), port: 9, totals, senders: Vec::new() }
}

fn tally(number: u32) -> (Option<IpAddr>, ExporterTally) {
    (Some(address(number)), ExporterTally { batched: 7, committed: 7, ..ExporterTally::default() })
}

#[test]
fn the_total_shows_what_was_counted() {
    let of = Counters::default();
    of.ingest.count_decoded([5, 1, 0, 0, 0]);
    of.ingest.records_dropped.add("queue_full", 2);
    of.uplink.committed_raw.inc_by(3);
    of.uplink.committed_records.inc_by(4);
    let total = json(&of, Vec::new())["total"].clone();
    assert_eq!(total["records"]["decoded"], 6);
    assert_eq!(total["records"]["dropped"]["queue_full"], 2);
    assert_eq!(total["spool"]["committed"], json!({ "records": 4, "raw_datagrams": 3 }));
    assert_eq!((counters(&of).records_dropped, counters(&of).raw_committed), (2, 3));
}

#[test]
fn what_shards_and_spool_count_of_an_exporter_is_one_row() {
    let mut other = heard(9, 3);
    other.address = None;
    let rows = per_exporter(vec![heard(1, 5), other], vec![tally(1), tally(2)]);
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(
        (&rows[0]["address"], &rows[0]["records"]["data"], &rows[0]["committed"]),
        (&json!("0.0.0.1"), &json!(7), &json!(7))
    );
    assert_eq!((&rows[1]["address"], &rows[1]["records"]["data"]), (&json!("0.0.0.2"), &json!(0)));
    assert_eq!((&rows[2]["address"], &rows[2]["records"]["data"]), (&json!("other"), &json!(7)));
}

#[test]
fn rows_are_bounded_and_lose_no_count() {
    let many = MOST_EXPORTERS as u32 + 50;
    let rows = (0..many).map(|number| heard(number, u64::from(number) + 1)).collect();
    let rows = per_exporter(rows, (0..many).map(tally).collect());
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), MOST_EXPORTERS + 1);
    let sum = |place: &str| rows.iter().map(|row| row.pointer(place).unwrap().as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("/records/data"), sum("/committed")), (7 * u64::from(many), 7 * u64::from(many)));
    assert_eq!(rows.last().unwrap()["records"]["data"], 7 * 50);
}

/// Gives numbers of which none is another one or the sum of a few.
struct Apart(u64);

impl Apart {
    /// Odd: two make an even one, three make more than there are.
    fn next(&mut self) -> u64 {
        self.0 += 2;
        self.0
    }

    fn label(&mut self, all: &Labelled) {
        for value in all.all().into_keys() {
            all.add(value, self.next());
        }
    }
}

/// All that the total is made of, each something else.
fn filled(apart: &mut Apart) -> Counters {
    let of = Counters::default();
    let Counters { ingest, spool, uplink, .. } = &of;
    let counters = [
        &ingest.datagrams_received,
        &ingest.datagrams_refused,
        &ingest.datagrams_limited,
        &ingest.datagrams_accepted,
        &ingest.datagrams_truncated,
        &ingest.datagrams_dropped_by_kernel,
        &ingest.sets_received,
        &ingest.sets_decoded,
        &ingest.set_bytes_undecoded,
        &ingest.samples_unknown,
        &ingest.records_decoded,
        &ingest.records_batched,
        &ingest.raw_accepted,
        &ingest.raw_batched,
        &spool.numbered_records,
        &spool.recovered_records,
        &spool.found_committed_records,
        &spool.numbered_batches,
        &spool.recovered_batches,
        &spool.found_committed_batches,
        &uplink.committed_records,
        &uplink.committed_raw,
        &uplink.committed_batches,
    ];
    for counter in counters {
        counter.inc_by(apart.next());
    }
    let gauges = [
        &ingest.sets_held,
        &ingest.records_open,
        &ingest.raw_open,
        &spool.waiting_records,
        &spool.unacked_records,
        &spool.unacked_batches,
    ];
    for gauge in gauges {
        gauge.set(apart.next() as i64);
    }
    let labelled = [
        &ingest.datagrams_unreadable,
        &ingest.sets_undecoded,
        &ingest.records_by_kind,
        &ingest.records_dropped,
        &ingest.raw_dropped,
        &spool.dropped_records,
        &spool.skipped_records,
        &spool.skipped_batches,
    ];
    labelled.into_iter().for_each(|all| apart.label(all));
    of
}

fn filled_row(apart: &mut Apart) -> (ExporterRow, (Option<IpAddr>, ExporterTally)) {
    let mut row = heard(1, 5);
    let totals = &mut row.totals;
    let mut next = || apart.next();
    *totals = Totals {
        accepted: next(),
        refused: next(),
        limited: next(),
        truncated: next(),
        unreadable: next(),
        records: next(),
        options: next(),
        raw: next(),
        dropped: next(),
        sets: crate::shard::Sets {
            begun: next(),
            decoded: next(),
            held: next() as i64,
            undecoded: next(),
            unknown: next(),
        },
        ..*totals
    };
    let tally = ExporterTally {
        batched: next(),
        dropped: next(),
        committed: next(),
        skipped: next(),
        committed_of_before: next(),
        skipped_of_before: next(),
    };
    (row, (Some(address(1)), tally))
}

/// A number that is more than one counter, or a copy, would hide one that does not count.
#[test]
fn each_number_is_one_counter() {
    let mut apart = Apart(1_001);
    let of = filled(&mut apart);
    let (row, tally) = filled_row(&mut apart);
    let total = json(&of, Vec::new())["total"].clone();
    let rows = per_exporter(vec![row], vec![tally]);
    let ledger = json!({ "total": total, "exporters": rows });
    let mut seen = BTreeSet::new();
    for place in places(&ledger) {
        let value = match place.strip_prefix("/exporters") {
            Some(in_row) => rows[0].pointer(in_row),
            None => ledger.pointer(&place),
        };
        let value = value.unwrap().as_u64().unwrap();
        assert!(value % 2 == 1 && (1_003..=apart.0).contains(&value), "{place}: {value} is no counter's");
        assert!(seen.insert(value), "{place}: {value} is another one's");
    }
}

/// All numbers but estimates, the kernel's, bytes beside their sets, and what is among the skipped already are in an
/// equation; and there is a list for each.
#[test]
fn each_number_is_in_an_equation_and_in_a_list() {
    let (row, tally) = filled_row(&mut Apart(1_001));
    let rows = per_exporter(vec![row], vec![tally]);
    let ledger = json!({ "total": json(&Counters::default(), Vec::new())["total"], "exporters": rows });
    let in_equations = places(&ledger);
    let mut all = BTreeSet::new();
    leaves(&ledger["total"], "/total", &mut all);
    leaves(&rows[0], "/exporters", &mut all);
    all.retain(|place| !place.contains("/estimates/"));
    let beside = [
        "/total/datagrams/dropped_by_kernel",
        "/total/sets/undecoded_bytes",
        "/total/spool/aside_deleted",
        "/total/batches/aside_deleted",
    ];
    beside.iter().for_each(|place| assert!(all.remove(*place), "{place}"));
    assert_eq!(all, in_equations);
    let listed: BTreeSet<String> =
        LISTS.iter().flat_map(|list| list.iter()).map(ToString::to_string).collect();
    assert_eq!(listed, in_equations);
}
