//! Exports of real devices through both ends: no crash, every datagram accounted for, and the records that another
//! decoder, tshark, finds in them.
//!
//! Without the corpus (see `support/corpus.rs`) the tests say "skipped".

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;
use support::corpus::{Case, Fields, Played, cases, corpus, play};
use support::far_end::{FarEnd, NO_PYTHON, python};
use support::rig::Rig;
use support::{note, skipped, wait_until};

/// Also in `.ci/run`, which says so itself.
const NO_CORPUS: &str = "no $FLOWPROXY_CORPUS or ../shared/corpus";

#[test]
fn every_capture_goes_through_both_ends() {
    let Some(folder) = corpus() else {
        return note(&format!("skipped: every_capture_goes_through_both_ends: {NO_CORPUS}"));
    };
    let cases = cases(&folder);
    assert!(!cases.is_empty(), "cases in {}", folder.display());
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let played = play(&cases, &proxy);
    let decoded = proxy.metric("flowproxy_records_decoded_total");
    wait_until(&format!("{decoded} records at the far end"), || rig.records().len() as u64 >= decoded);
    assert_eq!(proxy.metric("flowproxy_datagrams_received_total"), played.datagrams, "datagrams received");
    assert_eq!(proxy.get("/healthz").0, 200);
    proxy.assert_ledger();
    assert!(proxy.process.terminate().success(), "the proxy ends cleanly");
    assert!(collector.process.terminate().success(), "the collector ends cleanly");
    let records = rig.records();
    assert_eq!(records.len() as u64, decoded, "decoded at the proxy and written at the far end");
    assert_counts(&cases, &played, &records);
}

/// Every case has as many data and options records as the golden; differences are told all at once.
fn assert_counts(cases: &[Case], played: &Played, records: &[Value]) {
    let mut counts = vec![[0, 0]; cases.len()];
    for record in records {
        let exporter: IpAddr = record["exporter"].as_str().expect("exporter").parse().expect("an address");
        counts[played.senders[&exporter]][usize::from(record["kind"] == "options")] += 1;
    }
    let mut wrong = 0;
    for (case, counts) in cases.iter().zip(counts) {
        let wanted = [false, true].map(|options| {
            let of_kind = || case.records.iter().filter(move |record| record.is_options == options);
            of_kind().filter(|record| !record.is_late).count()..=of_kind().count()
        });
        if !(wanted[0].contains(&counts[0]) && wanted[1].contains(&counts[1])) {
            note(&format!("{}: {counts:?} data and options records, wanted {wanted:?}", case.name));
            wrong += 1;
        }
    }
    assert_eq!(wrong, 0, "cases with other counts than the golden's");
}

/// What the Python far end reads in our batches is, field by field and byte by byte, what tshark read in the captures.
#[test]
fn a_stranger_finds_every_field_of_every_capture() {
    const TEST: &str = "a_stranger_finds_every_field_of_every_capture";
    let Some(folder) = corpus() else {
        return note(&format!("skipped: {TEST}: {NO_CORPUS}"));
    };
    let Some(python) = python() else {
        return skipped(TEST, NO_PYTHON);
    };
    let (cases, rig) = (cases(&folder), Rig::new());
    let far_end = FarEnd::start(&rig, &python, &[]);
    let proxy = far_end.proxy(&rig, "udp = [\"127.0.0.1:0\"]");
    let played = play(&cases, &proxy);
    let decoded = proxy.metric("flowproxy_records_decoded_total");
    let mut found: Vec<Vec<Fields>> = cases.iter().map(|_| Vec::new()).collect();
    for record in far_end.wait_lines("fields", decoded as usize) {
        let address =
            u32::from_str_radix(record["exporter"][0].as_str().expect("hex"), 16).expect("an IPv4 address");
        found[played.senders[&IpAddr::from(Ipv4Addr::from(address))]].push(fields(&record));
    }
    let wrong = cases.iter().zip(found).filter(|(case, found)| !has_golden_records(case, found)).count();
    assert_eq!(wrong, 0, "cases with other records than the golden's");
    assert!(proxy.process.terminate().success(), "the proxy ends cleanly");
}

fn fields(record: &Value) -> Fields {
    let fields = record["fields"].as_array().expect("fields").iter();
    let number = |value: &Value| value.as_u64().expect("a number");
    fields
        .map(|field| (number(&field[0]), number(&field[1]), field[2].as_str().expect("hex").to_owned()))
        .collect()
}

/// All of the golden's records were found, and no others but such whose template came late.
fn has_golden_records(case: &Case, found: &[Fields]) -> bool {
    // How often each record was found, less how often it should be.
    let mut surplus: BTreeMap<&Fields, i64> = BTreeMap::new();
    for record in found {
        *surplus.entry(record).or_default() += 1;
    }
    for record in case.records.iter().filter(|record| !record.is_late) {
        *surplus.entry(&record.fields).or_default() -= 1;
    }
    let missing = surplus.values().filter(|times| **times < 0).count();
    for late in case.records.iter().filter(|record| record.is_late) {
        surplus.entry(&late.fields).and_modify(|times| *times -= i64::from(*times > 0));
    }
    let extra = surplus.values().filter(|times| **times > 0).count();
    if missing + extra > 0 {
        note(&format!("{}: {missing} records missing, {extra} that the golden has not", case.name));
    }
    missing + extra == 0
}
