//! A far end that shares nothing with us but `proto/`: a Python server on grpcio and zstandard takes batches from our
//! proxy over TLS and finds in them what was sent.
//!
//! Needs Python with the packages of `tests/far_end/requirements.txt` (`FLOWPROXY_PYTHON`, else `python3`); without
//! them the tests say "skipped".

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use support::datagrams::{self, Bytes, EXPORT_SECONDS, Flow, UPTIME_MS, numbered};
use support::far_end::{FarEnd, NO_PYTHON, python};
use support::rig::{PROXY_NAME, Rig};
use support::{loopback_socket, skipped};

/// A field of a record in hex; in the list they stand as `[enterprise, element, hex]`.
fn field(record: &Value, enterprise: u64, element: u64) -> &Value {
    let fields = record["fields"].as_array().expect("fields");
    let found = fields.iter().find(|field| field[0] == enterprise && field[1] == element);
    &found.unwrap_or_else(|| panic!("no field {enterprise}.{element} in {record}"))[2]
}

/// An IANA element of a record as a number.
fn number(record: &Value, element: u64) -> u64 {
    u64::from_str_radix(field(record, 0, element).as_str().expect("hex"), 16).expect("up to 8 bytes of hex")
}

/// How often each numbered flow came, by its octets.
fn numbers(records: &[Value]) -> BTreeMap<u64, usize> {
    let mut seen = BTreeMap::new();
    for record in records {
        *seen.entry(number(record, 1)).or_default() += 1;
    }
    seen
}

fn each_once(from: u64, to: u64) -> BTreeMap<u64, usize> {
    (from..to).map(|number| (number, 1)).collect()
}

#[test]
fn a_stranger_reads_our_batches() {
    let Some(python) = python() else {
        return skipped("a_stranger_reads_our_batches", NO_PYTHON);
    };
    let rig = Rig::new();
    let far_end = FarEnd::start(&rig, &python, &[]);
    let proxy = far_end.proxy(&rig, "udp = [\"127.0.0.1:0\"]");
    let socket = loopback_socket();
    proxy.feed(&socket, proxy.udp(), &numbered(1, 601, 20));
    let records = far_end.wait_lines("fields", 600);
    assert_eq!(numbers(&records), each_once(1, 601));
    let port = u64::from(socket.local_addr().unwrap().port());
    for record in &records {
        assert_record(record, port);
    }
    assert!(proxy.process.terminate().success());
}

/// A record has the values of its numbered flow and of its datagram's header.
fn assert_record(record: &Value, port: u64) {
    const PROTOCOLS: [u64; 3] = [5, 9, 10];
    let run = |name: &str| record["run"][name].as_u64().unwrap_or(0);
    let number = |element| number(record, element);
    let flow = Flow::numbered(number(1) as u32);
    assert_eq!(record["proxy"], PROXY_NAME);
    assert_eq!(record["kind"], 0, "data");
    assert_eq!(record["exporter"], serde_json::json!(["7f000001", port]));
    assert_eq!(number(2), u64::from(flow.packets));
    assert_eq!(number(8), u64::from(u32::from_be_bytes(flow.source)));
    assert_eq!(number(12), u64::from(u32::from_be_bytes(flow.destination)));
    assert_eq!([number(7), number(11), number(4)], [443, 50_123, 6]);
    assert_eq!(number(22), u64::from(UPTIME_MS - 5_000), "first switched");
    assert_eq!(number(21), u64::from(UPTIME_MS - 1_000), "last switched, written as a difference");
    let protocol = run("RUN_FIELD_PROTOCOL");
    let place = PROTOCOLS.iter().position(|known| *known == protocol).expect("a protocol that was sent");
    assert_eq!(run("RUN_FIELD_DOMAIN"), [258, 7, 11][place]);
    assert_eq!(run("RUN_FIELD_TEMPLATE"), [0, 256, 256][place]);
    assert_eq!(run("RUN_FIELD_EXPORT_TIME"), u64::from(EXPORT_SECONDS) * 1_000);
    assert_eq!(run("RUN_FIELD_UPTIME"), [u64::from(UPTIME_MS), u64::from(UPTIME_MS), 0][place]);
    assert_eq!(run("RUN_FIELD_SEQUENCE") % 3, place as u64, "the datagram's own sequence number");
    assert!(run("RUN_FIELD_RECEIVE_TIME") > 1_700_000_000_000);
}

/// A router's records in batches large enough that every encoding pays.
#[test]
fn a_stranger_reads_every_encoding() {
    let Some(python) = python() else {
        return skipped("a_stranger_reads_every_encoding", NO_PYTHON);
    };
    const RECORDS: u32 = 6_000;
    const PLANES_DICTIONARY_DIFFERENCE_FOLLOWS: [u64; 4] = [0, 1, 2, 3];
    let rig = Rig::new();
    let far_end = FarEnd::start(&rig, &python, &[]);
    let proxy = far_end.proxy(&rig, "udp = [\"127.0.0.1:0\"]");
    let datagrams: Vec<Vec<u8>> =
        (0..RECORDS / 24).map(|place| datagrams::v9_router(place, place * 24..place * 24 + 24)).collect();
    proxy.feed(&loopback_socket(), proxy.udp(), &datagrams);
    let records = far_end.wait_lines("fields", RECORDS as usize);
    assert_eq!(numbers(&records), each_once(0, u64::from(RECORDS)));
    for record in &records {
        let number = |element| number(record, element);
        let [source, destination] = datagrams::router_hosts(number(1) as u32).map(u64::from);
        assert_eq!([number(8), number(12)], [source, destination]);
        assert_eq!(number(15), 0xc000_0200 | destination >> 8 & 7, "next hop");
        assert_eq!([number(16), number(17)], [64_512 + source % 1_000, 64_512 + destination % 1_000]);
        assert_eq!([number(9), number(13)], [16 + source % 9, 16 + destination % 9]);
        assert_eq!(number(21) - number(22), number(1) % 200, "last less first switched");
    }
    let batches = far_end.wait_lines("encodings", 1);
    let used: BTreeSet<u64> = batches
        .iter()
        .flat_map(|line| line["encodings"].as_array().unwrap())
        .filter_map(Value::as_u64)
        .collect();
    assert_eq!(used, BTreeSet::from(PLANES_DICTIONARY_DIFFERENCE_FOLLOWS));
    assert!(proxy.process.terminate().success());
}

#[test]
fn a_stranger_reads_variable_length_and_raw() {
    let Some(python) = python() else {
        return skipped("a_stranger_reads_variable_length_and_raw", NO_PYTHON);
    };
    let rig = Rig::new();
    let far_end = FarEnd::start(&rig, &python, &[]);
    let listen = "udp = [\"127.0.0.1:0\"]\nraw = [\"127.0.0.1:0\"]";
    let proxy = far_end.proxy(&rig, listen);
    // Template 400: source address, variable applicationName, enterprise 35632 element 1 in 20 bytes, element 32000 of 0 bytes.
    let template = Bytes::default().u16(400).u16(4).u16(8).u16(4).u16(96).u16(65_535);
    let template = template.u16(0x8001).u16(20).u32(35_632).u16(32_000).u16(0).0;
    let record = |bytes: Bytes, last: u8, name: &[u8]| {
        bytes.raw(&[192, 0, 2, last]).u8(name.len() as u8).raw(name).raw(&[last; 20])
    };
    let records = record(record(Bytes::default(), 1, b"http"), 2, b"").0;
    let sets = [datagrams::set(2, &template), datagrams::set(400, &records)];
    let socket = loopback_socket();
    proxy.feed(&socket, proxy.udp(), &[datagrams::ipfix(1, 5, &sets)]);
    let raw = [b"first".to_vec(), vec![0xfe; 3_000]];
    proxy.feed(&socket, proxy.logged_address("raw"), &raw);
    let records = far_end.wait_lines("fields", 2);
    for (record, (last, name)) in records.iter().zip([(1_u8, "68747470"), (2, "")]) {
        assert_eq!(number(record, 8), 0xc000_0200 + u64::from(last));
        assert_eq!(field(record, 0, 96), name);
        assert_eq!(field(record, 35_632, 1), &format!("{last:02x}").repeat(20));
        assert_eq!(field(record, 0, 32_000), "");
    }
    let datagrams = far_end.wait_lines("datagram", 2);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let relayed: Vec<&str> = datagrams.iter().filter_map(|line| line["datagram"].as_str()).collect();
    assert_eq!(relayed, [hex(&raw[0]), hex(&raw[1])]);
    assert!(proxy.process.terminate().success());
}

/// The far end ends the stream after some batches without an ack for the last: the proxy connects anew and goes on, and
/// what was committed is not taken twice.
#[test]
fn a_stream_cut_without_an_ack_is_taken_up_again() {
    let Some(python) = python() else {
        return skipped("a_stream_cut_without_an_ack_is_taken_up_again", NO_PYTHON);
    };
    let rig = Rig::new();
    let far_end = FarEnd::start(&rig, &python, &["--cut-after", "2", "5", "6"]);
    let proxy = far_end.proxy(&rig, "udp = [\"127.0.0.1:0\"]");
    let mut next = 1;
    // Batches close after 50 ms, so that every round makes at least one.
    while far_end.lines().iter().filter_map(|line| line["seq"].as_u64()).max().unwrap_or(0) < 8 {
        assert!(next < 20_001, "no progress at the far end after {next} flows");
        proxy.feed(&loopback_socket(), proxy.udp(), &numbered(next, next + 100, 20));
        next += 100;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let records = far_end.wait_lines("fields", next as usize - 1);
    proxy.wait_metric("flowproxy_records_committed_total", u64::from(next) - 1);
    assert_eq!(numbers(&records), each_once(1, u64::from(next)));
    assert!(proxy.process.terminate().success());
    assert_eq!(far_end.wait_lines("fields", 1).len(), records.len(), "nothing twice at the end");
}

/// What comes in while the collector is slow to answer goes out when it has, without anything new to push it.
#[test]
fn a_batch_written_before_the_welcome_is_sent_after_it() {
    let Some(python) = python() else {
        return skipped("a_batch_written_before_the_welcome_is_sent_after_it", NO_PYTHON);
    };
    let rig = Rig::new();
    let gate = rig.path("welcome");
    let far_end = FarEnd::start(&rig, &python, &["--welcome-after", gate.to_str().unwrap()]);
    let proxy = far_end.proxy(&rig, "udp = [\"127.0.0.1:0\"]");
    far_end.wait_lines("hello", 1);
    proxy.feed(&loopback_socket(), proxy.udp(), &numbered(1, 101, 20));
    proxy.wait_spooled(100);
    std::fs::write(gate, "").unwrap();
    assert_eq!(numbers(&far_end.wait_lines("fields", 100)), each_once(1, 101));
    proxy.wait_metric("flowproxy_records_committed_total", 100);
    assert!(proxy.process.terminate().success());
}
