//! What is shown is what was counted, a row an exporter.

use super::*;
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
    assert_eq!(total["spool"]["committed"], 7);
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
        (&rows[0]["address"], &rows[0]["records"], &rows[0]["committed"]),
        (&json!("0.0.0.1"), &json!(7), &json!(7))
    );
    assert_eq!((&rows[1]["address"], &rows[1]["records"]), (&json!("0.0.0.2"), &json!(0)));
    assert_eq!((&rows[2]["address"], &rows[2]["records"]), (&json!("other"), &json!(7)));
}

#[test]
fn rows_are_bounded_and_lose_no_count() {
    let many = MOST_EXPORTERS as u32 + 50;
    let rows = (0..many).map(|number| heard(number, u64::from(number) + 1)).collect();
    let rows = per_exporter(rows, (0..many).map(tally).collect());
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), MOST_EXPORTERS + 1);
    let sum = |key: &str| rows.iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("records"), sum("committed")), (7 * u64::from(many), 7 * u64::from(many)));
    assert_eq!(rows.last().unwrap()["records"], 7 * 50);
}
