//! What is shown of many.

use super::*;
use crate::proto::Protocol;
use crate::shard::facts::Speaks;
use std::net::Ipv4Addr;

const NOW: u64 = 1_795_444_200_000;

fn row(host: u32, senders: usize) -> ExporterRow {
    let last_seen = NOW - 100_000 + u64::from(host);
    let facts = Facts {
        first_seen: NOW - 100_000,
        last_seen,
        address_last_seen: last_seen,
        records: 3,
        ..Facts::new(9, Speaks::Flow(Protocol::NetflowV9), 0)
    };
    ExporterRow {
        address: (host > 0).then(|| Ipv4Addr::from(host).into()),
        port: 9,
        totals: Totals { datagrams: 2, first_seen: NOW - 100_000, last_seen, ..Totals::default() },
        senders: vec![facts; senders],
    }
}

#[test]
fn exporters_heard_last_have_their_rows() {
    let rows = shown((0..MOST_ADDRESSES as u32 + 6).map(|host| row(host, 1)).collect(), MOST_ADDRESSES);
    assert_eq!(rows.len(), MOST_ADDRESSES + 1);
    assert_eq!(rows[0].totals.last_seen, NOW - 100_000 + MOST_ADDRESSES as u64 + 5);
    let other = rows.last().unwrap();
    assert_eq!((other.address, other.totals.datagrams, other.senders.len()), (None, 12, 0));
    assert_eq!(row_json(other, &mut 1, NOW)["address"], "other");
}

#[test]
fn few_exporters_need_no_row_for_others() {
    assert_eq!(shown(vec![row(1, 1), row(2, 1)], 9).len(), 2);
    assert!(shown(Vec::new(), 9).is_empty());
    assert_eq!(shown(vec![row(0, 0)], 9).len(), 1);
}

#[test]
fn an_address_of_two_shards_has_one_row() {
    let rows = shown(vec![row(1, 1), row(2, 1), row(1, 2)], 9);
    assert_eq!(rows.len(), 2);
    let one = rows.iter().find(|row| row.senders.len() == 3).unwrap();
    assert_eq!(one.totals.datagrams, 4);
}

#[test]
fn senders_are_bounded_and_those_that_are_wrong_come_first() {
    let mut first = row(1, 64);
    first.senders[40].skew_ms = 86_400_000;
    let many: Vec<ExporterRow> = std::iter::once(first).chain((2..100).map(|host| row(host, 64))).collect();
    let json = json(many, NOW);
    let rows = json.as_array().unwrap();
    let shown: usize = rows.iter().map(|row| row["senders"].as_array().unwrap().len()).sum();
    let left_out: u64 = rows.iter().map(|row| row["senders_not_shown"].as_u64().unwrap()).sum();
    assert_eq!((shown, left_out), (MOST_SENDERS, 99 * 64 - MOST_SENDERS as u64));

    let mut few = row(1, 3);
    few.senders[2].skew_ms = 86_400_000;
    let json = row_json(&few, &mut 10, NOW);
    assert_eq!(json["senders"][0]["state"], "clock_skewed");
    assert_eq!(json["senders"][0]["cause"], "clock is 1 d 0 h ahead");
    assert_eq!(json["senders"][1]["weight"], "well");
}
