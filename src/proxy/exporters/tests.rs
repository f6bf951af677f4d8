//! What is shown of many.

use super::*;
use crate::batch::SenderText;
use crate::enrich::{Book, Entry, Table};
use crate::proto::Protocol;
use crate::shard::facts::Speaks;
use std::net::Ipv4Addr;
use std::sync::Arc;

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

fn page(names: &mut View) -> Page<'_> {
    Page { names, senders: 10, interfaces: 10, of_each: 10, now: NOW }
}

/// A book in which each of so many addresses has so many interfaces.
fn book(hosts: u32, interfaces: u32) -> Book {
    let entry = |index| (index, Entry { name: format!("eth{index}").into(), ..Entry::default() });
    let table = Arc::new(Table { interfaces: (1..=interfaces).map(entry).collect(), told: NOW });
    let book = Book::new();
    for host in 1..=hosts {
        book.set_snmp(Ipv4Addr::from(host).into(), Some(Arc::clone(&table)));
    }
    book
}

fn interfaces(row: &Value) -> (usize, u64) {
    let senders = row["senders"].as_array().unwrap();
    let shown = senders.iter().map(|sender| sender["interfaces"].as_array().unwrap().len()).sum();
    (shown, senders.iter().map(|sender| sender["interfaces_not_shown"].as_u64().unwrap()).sum())
}

#[test]
fn interfaces_are_bounded_but_where_one_exporter_is_asked_for() {
    let book = book(200, 50);
    let rows: Vec<ExporterRow> = (1..=200).map(|host| row(host, 1)).collect();
    let all = json(rows.clone(), &mut book.view(), NOW);
    let shown: Vec<(usize, u64)> = all.as_array().unwrap().iter().map(interfaces).collect();
    assert_eq!(shown[0], (names::OF_EACH, 50 - names::OF_EACH as u64));
    assert_eq!(shown[199], (0, 50), "there is no room for the last ones");
    assert_eq!(shown.iter().map(|(shown, _)| shown).sum::<usize>(), names::OF_ALL);
    let one = one(rows, "0.0.0.7", &mut book.view(), NOW).unwrap();
    assert_eq!((one.as_array().unwrap().len(), interfaces(&one[0])), (1, (50, 0)));
    let first = &one[0]["senders"][0]["interfaces"][0];
    assert_eq!(
        (&first["index"], &first["name"], &first["source"]),
        (&1.into(), &"eth1".into(), &"snmp".into())
    );
}

#[test]
fn an_exporter_is_asked_for_by_address_or_name() {
    let book = Book::new();
    let named = SenderText { name: "r 1/ü".to_owned(), ..SenderText::default() };
    book.set_device_name(Ipv4Addr::from(2).into(), Some(Arc::new(named)));
    let find = |wanted: &str| {
        let rows = (1..=3).map(|host| row(host, 2)).collect();
        let rows = one(rows, wanted, &mut book.view(), NOW)?;
        Some(
            rows.as_array()?
                .iter()
                .map(|row| row["address"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(find("0.0.0.3").unwrap(), ["0.0.0.3"]);
    assert_eq!(find("::ffff:0.0.0.3").unwrap(), ["0.0.0.3"]);
    assert_eq!(find("r 1/ü").unwrap(), ["0.0.0.2"]);
    assert_eq!(find("0.0.0.4"), None);
    assert_eq!(find("r2"), None);
    assert_eq!(find(""), None);
}

#[test]
fn exporters_heard_last_have_their_rows() {
    let rows = shown((0..MOST_ADDRESSES as u32 + 6).map(|host| row(host, 1)).collect(), MOST_ADDRESSES);
    assert_eq!(rows.len(), MOST_ADDRESSES + 1);
    assert_eq!(rows[0].totals.last_seen, NOW - 100_000 + MOST_ADDRESSES as u64 + 5);
    let other = rows.last().unwrap();
    assert_eq!((other.address, other.totals.datagrams, other.senders.len()), (None, 12, 0));
    let mut names = Book::new().view();
    assert_eq!(row_json(other, &mut page(&mut names))["address"], "other");
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
    let json = json(many, &mut Book::new().view(), NOW);
    let rows = json.as_array().unwrap();
    let shown: usize = rows.iter().map(|row| row["senders"].as_array().unwrap().len()).sum();
    let left_out: u64 = rows.iter().map(|row| row["senders_not_shown"].as_u64().unwrap()).sum();
    assert_eq!((shown, left_out), (MOST_SENDERS, 99 * 64 - MOST_SENDERS as u64));

    let mut few = row(1, 3);
    few.senders[2].skew_ms = 86_400_000;
    let json = row_json(&few, &mut page(&mut Book::new().view()));
    assert_eq!(json["senders"][0]["state"], "clock_skewed");
    assert_eq!(json["senders"][0]["cause"], "clock is 1 d 0 h ahead");
    assert_eq!(json["senders"][1]["weight"], "well");
}
