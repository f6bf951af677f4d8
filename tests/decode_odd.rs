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
use support::datagrams::{Bytes, ipfix, set, template, v5};
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

fn told(arguments: &[&str]) -> (i32, String, String) {
    let output = flowproxy(&[&["decode"], arguments].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn files_that_are_no_captures_are_told_with_what_to_do() {
    let files = Files::new();
    for (name, bytes, said) in [
        (
            "gz",
            &b"\x1f\x8b\x08\x00"[..],
            "it is compressed with gzip; expand it first: gzip -dc FILE | flowproxy decode -",
        ),
        (
            "zst",
            b"\x28\xb5\x2f\xfd",
            "it is compressed with zstd; expand it first: zstd -dc FILE | flowproxy decode -",
        ),
        ("xz", b"\xfd7zXZ\0", "it is compressed with xz; expand it first: xz -dc FILE | flowproxy decode -"),
        ("bz2", b"BZh9", "it is compressed with bzip2; expand it first: bzip2 -dc FILE | flowproxy decode -"),
        (
            "lz4",
            b"\x04\x22\x4d\x18",
            "it is compressed with lz4; expand it first: lz4 -dc FILE | flowproxy decode -",
        ),
        (
            "zip",
            b"PK\x03\x04",
            "it is compressed with zip; expand it first: unzip -p FILE | flowproxy decode -",
        ),
        ("empty", b"", "it is empty"),
        (
            "nfcapd",
            b"\x0c\xa5\x02\x00",
            "it is a file of nfdump, with flows that it decoded itself: give a capture of the exporters' packets",
        ),
        (
            "text",
            b"not a",
            "neither pcap nor pcapng nor IPFIX messages: it begins with 6e6f7420; editcap -F pcap (Wireshark) converts other captures",
        ),
    ] {
        let file = files.write(name, bytes);
        let (code, _, errors) = told(&[&file]);
        assert_eq!((code, errors), (1, format!("{file}: {}\n", said.replace("FILE", &file))));
    }
    let missing = files.folder().join("missing").to_str().unwrap().to_owned();
    let (code, _, errors) = told(&[&missing]);
    assert_eq!((code, errors), (1, format!("{missing}: there is no such file\n")));
    let (code, _, errors) = told(&["-"]);
    assert_eq!((code, errors.as_str()), (1, "standard input: it is empty\n"));
}

#[test]
fn captures_without_flow_say_what_is_in_them() {
    let files = Files::new();
    let nothing = files.write("nothing.pcap", &pcap(RAW, &[]));
    assert_eq!(told(&[&nothing]), (0, "no packets in the file\n".to_owned(), String::new()));
    assert_eq!(text(&["--summary", &nothing]), format!("{nothing}: pcap\n  no packets\n"));
    let mut other = ipv4(b"no flow at all");
    other[20..24].copy_from_slice(&[0xc3, 0x50, 0, 53]);
    let other = files.write("other.pcap", &pcap(RAW, &[other]));
    let said = "no flow datagrams in 1 packet; --summary tells what is there\n";
    assert_eq!(told(&[&other]), (0, said.to_owned(), String::new()));
}

#[test]
fn files_stand_apart() {
    let files = Files::new();
    let file = files.write("f.pcap", &pcap(RAW, &[]));
    let each = format!("file {file}\nno packets in the file\n");
    assert_eq!(text(&[&file, &file]), format!("{each}\n{each}"));
    let each = format!("{file}: pcap\n  no packets\n");
    assert_eq!(text(&["--summary", &file, &file]), format!("{each}\n{each}"));
    assert_eq!(text(&["--format", "json", &file, &file]), "");
}

/// Vendors' elements have their names in lists too. An IPFIX file does not say who sent it.
#[test]
fn lists_are_lines() {
    let files = Files::new();
    // YAF's initialTCPFlags (6871, 14) and a sequence number; a list of two ports.
    let inner = Bytes::default().u16(300).u16(2).u16(0x8000 | 14).u16(1).u32(6_871).u16(184).u16(4).0;
    let outer = template(301, &[(4, 1), (292, 65_535), (291, 65_535)]);
    let records = Bytes::default().u8(3).u16(300).u8(2).u32(7).u8(0x12).u32(8).0;
    let ports = Bytes::default().u8(3).u16(11).u16(2).u16(80).u16(443).0;
    let data =
        Bytes::default().u8(6).u8(records.len() as u8).raw(&records).u8(ports.len() as u8).raw(&ports).0;
    let sets = [set(2, &inner), set(2, &outer), set(301, &data)];
    let file = files.write("lists.ipfix", &ipfix(0, 1, &sets));
    let text = text(&[&file]);
    assert!(text.starts_with("datagram 1  2026-11-23T14:00:00.000Z  ipfix domain 1  85 bytes\n"), "{text}");
    let summary = self::text(&["--summary", &file]);
    assert!(summary.contains("\n  ipfix domain 1\n"), "{summary}");
    let expected = "
    protocolIdentifier  6
    subTemplateList     allOf, template 300
                        - cert:initialTCPFlags  2
                          tcpSequenceNumber     7
                        - cert:initialTCPFlags  18
                          tcpSequenceNumber     8
    basicList           allOf of destinationTransportPort: 80, 443
";
    assert!(text.contains(expected), "{text}");
}

/// Of what is long only the start is shown, but to those who ask for bytes.
#[test]
fn records_of_sflow_have_their_format_and_a_line_each() {
    let files = Files::new();
    let record =
        |format: u32, bytes: &[u8]| Bytes::default().u32(format).u32(bytes.len() as u32).raw(bytes).0;
    let counters = Bytes::default().u32(2).u32(3).u32(2).raw(&record(2_000, &[9; 4]));
    let counters = counters.raw(&record(4_413 << 12 | 7, &[0xab; 300])).0;
    let start = Bytes::default().u32(5).u32(1).raw(&[192, 0, 2, 1]).u32(4).u32(1).u32(1_000).u32(1);
    let datagram = start.u32(2).u32(counters.len() as u32).raw(&counters).0;
    let file = files.write("sflow.pcap", &pcap(RAW, &[ipv4(&datagram)]));
    let expected = format!(
        "\n    sflowRecord          2000: 09090909\n                         4413.7: {}... (300 bytes)\n",
        "ab".repeat(64)
    );
    assert!(text(&[&file]).contains(&expected), "{}", text(&[&file]));
    assert!(text(&["--raw", &file]).contains(&"ab".repeat(300)));
}
