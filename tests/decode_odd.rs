//! `flowproxy decode` on what is there but cannot be decoded: it is shown and counted, and the file goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use serde_json::{Value, json};
use support::captures::{Files, RAW, decode, flows, lines, octets, of_kind};
use support::datagrams::{Bytes, v5};
use support::frames::{ipv4, pcap, pcapng};
use support::process::flowproxy;

fn text(arguments: &[&str]) -> String {
    String::from_utf8(flowproxy(&[&["decode"], arguments].concat()).stdout).unwrap()
}

/// A datagram of sFlow: a counter sample between two samples of other makers.
fn samples() -> Vec<u8> {
    let counters = Bytes::default().u32(2).u32(3).u32(1).u32(2_000).u32(4).raw(&[9, 9, 9, 9]).0;
    let vendor =
        |bytes: &[u8]| Bytes::default().u32(4_300 << 12 | 1_002).u32(bytes.len() as u32).raw(bytes).0;
    let start = Bytes::default().u32(5).u32(1).raw(&[192, 0, 2, 1]).u32(4).u32(1).u32(1_000).u32(3);
    let start = start.raw(&vendor(&[0xab; 12])).u32(2).u32(counters.len() as u32).raw(&counters);
    start.raw(&vendor(&[])).0
}

#[test]
fn samples_of_unknown_kinds_are_shown_and_counted() {
    let files = Files::new();
    let file = files.write("sflow.pcap", &pcap(RAW, &[ipv4(&samples())]));
    let lines_of_it = decode(&file);
    let unknown = of_kind(&lines_of_it, "unknown_sample");
    let expected = json!({
        "kind": "unknown_sample", "datagram": 1, "exporter": "192.0.2.1", "port": 50_000, "protocol": "sflow-v5",
        "domain": 4, "offset": 36, "bytes": 12, "enterprise": 4_300, "format": 1_002,
        "raw": [[1_002, 4_300, "ab".repeat(12)]],
    });
    assert_eq!((unknown.len(), unknown[0]), (2, &expected));
    assert_eq!((of_kind(&lines_of_it, "counter_sample").len(), lines_of_it.len()), (1, 3));
    let plain = lines(&flowproxy(&["decode", "--format", "json", &file]));
    assert!(plain.iter().all(|line| line.get("raw").is_none()));

    let line = "  unknown sample of enterprise 4300, format 1002: 12 bytes at byte 36, not decoded\n";
    assert!(text(&[&file]).contains(line), "{}", text(&[&file]));
    let with_raw = text(&["--raw", &file]);
    assert!(with_raw.contains(&format!("{line}    {}\n", "ab".repeat(12))), "{with_raw}");

    let summary = lines(&flowproxy(&["decode", "--summary", "--format", "json", &file]));
    assert_eq!((&summary[0]["unknownSamples"], &summary[0]["counterSamples"]), (&json!(2), &json!(1)));
    assert_eq!(summary[0]["faults"], json!({}));
    let summary = text(&["--summary", &file]);
    assert!(summary.contains("    unknown samples    2\n"), "{summary}");
}

#[test]
fn packets_of_interfaces_not_described_are_a_fault_of_the_file() {
    let files = Files::new();
    let packet = |number| ipv4(&v5(number, &flows(number..number + 1)));
    let packets = [(0, packet(1)), (3, packet(2)), (9, packet(3)), (0, packet(4))];
    let file = files.write("f.pcapng", &pcapng(&[RAW as u16], &packets));
    let all = decode(&file);
    assert_eq!(octets(&all), [1, 4]);
    let said = "2 packets are of interfaces that the file does not describe: they could not be read";
    let expected = json!({"kind": "fault", "reason": "undescribed_interface", "text": said});
    assert_eq!(of_kind(&all, "fault"), [&expected]);
    assert!(text(&[&file]).ends_with(&format!("fault: {said}\n")), "{}", text(&[&file]));
    let summary: Value =
        lines(&flowproxy(&["decode", "--summary", "--format", "json", &file])).pop().unwrap();
    assert_eq!((&summary["undescribedInterface"], &summary["packets"]), (&json!(2), &json!(4)));
    let summary = text(&["--summary", &file]);
    assert!(summary.contains("  packets of undescribed interfaces    2\n"), "{summary}");
}
