//! `flowproxy decode` against others: the collector's lines, tshark, and the corpus of real exporters.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::captures::{COOKED, ETHERNET, Files, RAW, decode, octets, of_kind, three};
use support::corpus::corpus;
use support::datagrams::{self, numbered};
use support::frames::{self, cooked, ethernet, ipv4, pcap, pcapng};
use support::process::{find_tool, run_tool};
use support::rig::Rig;
use support::{loopback_socket, note, skipped, wait_until};

/// What `decode` shows of a record is what the collector writes of it, beside what belongs to its datagram.
#[test]
fn fields_are_those_of_the_collector() {
    const RUN_KEYS: [&str; 9] = [
        "exporter",
        "exporterPort",
        "protocol",
        "kind",
        "observationDomainId",
        "templateId",
        "receivedAt",
        "exportedAt",
        "sequence",
    ];
    let (rig, files) = (Rig::new(), Files::new());
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let datagrams: Vec<_> =
        (0..3).map(|place| datagrams::v9_router(place, place * 20..place * 20 + 20)).chain(three()).collect();
    let socket = loopback_socket();
    for datagram in &datagrams {
        socket.send_to(datagram, proxy.udp()).unwrap();
    }
    wait_until("all records at the far end", || rig.records().len() == 60 + 89);
    let packets: Vec<_> = datagrams.iter().map(|datagram| ipv4(datagram)).collect();
    let decoded = decode(&files.write("f.pcap", &pcap(RAW, &packets)));
    let mut balance: BTreeMap<String, i64> = BTreeMap::new();
    for line in of_kind(&decoded, "data") {
        *balance.entry(line["fields"].to_string()).or_default() += 1;
    }
    for mut record in rig.records() {
        record.as_object_mut().unwrap().retain(|key, _| !RUN_KEYS.contains(&key.as_str()));
        *balance.entry(record.to_string()).or_default() -= 1;
    }
    balance.retain(|_, count| *count != 0);
    assert_eq!(balance, BTreeMap::new());
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

/// tshark finds the same flows in the same captures, whatever they are wrapped in.
#[test]
fn tshark_reads_the_same() {
    const TEST: &str = "tshark_reads_the_same";
    let Some(tshark) = find_tool("tshark") else { return skipped(TEST, "tshark is not installed") };
    let files = Files::new();
    let datagrams = numbered(1, 271, 30);
    let mut frames: Vec<(u32, Vec<u8>)> = Vec::new();
    for (place, datagram) in datagrams.iter().enumerate() {
        match place % 3 {
            0 => frames.extend(
                frames::ipv4_fragments(place as u16, datagram, 512)
                    .into_iter()
                    .map(|part| (0, ethernet(&[(0x8100, 7)], &part))),
            ),
            1 => frames.extend(
                frames::ipv6_fragments(place as u32, datagram, 256).into_iter().rev().map(|part| (1, part)),
            ),
            _ => frames.push((2, cooked(&ipv4(datagram)))),
        }
    }
    let file = files.write("f.pcapng", &pcapng(&[ETHERNET as u16, RAW as u16, COOKED as u16], &frames));
    let fields = ["-T", "fields", "-e", "cflow.octets", "-E", "occurrence=a"];
    let text = run_tool(
        Command::new(tshark)
            .args(["-n", "-r", &file, "-d", "udp.port==2055,cflow", "-Y", "cflow"])
            .args(fields),
    );
    let theirs: Vec<u64> = text.split([',', '\n']).filter_map(|octets| octets.trim().parse().ok()).collect();
    assert_eq!(octets(&decode(&file)), theirs);
    assert_eq!(theirs, (1..271).collect::<Vec<_>>());
}

/// Captures of real exporters: what we find is what tshark found, but for cases in which tshark is wrong.
#[test]
fn the_corpus_compares() {
    const TEST: &str = "the_corpus_compares";
    let Some(script) = corpus().map(|folder| folder.join("compare.py")).filter(|script| script.is_file())
    else {
        return note(&format!("skipped: {TEST}: no $FLOWPROXY_CORPUS or ../shared/corpus"));
    };
    let Some(python) = find_tool("python3") else { return skipped(TEST, "python3 is not installed") };
    let exceptions = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus-exceptions.json");
    let output = Command::new(python)
        .arg(script)
        .args([PathBuf::from(env!("CARGO_BIN_EXE_flowproxy")), "--exceptions".into(), exceptions])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
