//! `flowproxy spool` on what a real proxy has left, whole and damaged by hand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use support::captures::lines;
use support::datagrams::numbered;
use support::loopback_socket;
use support::process::flowproxy;
use support::rig::{End, Rig};
use tempfile::TempDir;

const FLOWS_EACH: usize = 20;
/// See the head of src/spool/mod.rs.
const SEGMENT_HEADER_BYTES: usize = 64;
const FRAME_HEADER_BYTES: usize = 80;
const LEN_AT: usize = 4;
const LISTEN: &str = "udp = [\"127.0.0.1:0\"]\nraw = [\"127.0.0.1:0\"]";

fn spool(arguments: &[&str]) -> Output {
    flowproxy(&[&["spool"], arguments].concat())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Three batches of records and one of raw datagrams, each in the spool before the next is sent; nobody takes them.
fn fill(proxy: &End, raw: &[Vec<u8>]) {
    for (batch, datagrams) in numbered(1, 1201, FLOWS_EACH).chunks(20).enumerate() {
        proxy.feed(&loopback_socket(), proxy.udp(), datagrams);
        proxy.wait_metric("flowproxy_spool_written_batches_total", batch as u64 + 1);
    }
    proxy.feed(&loopback_socket(), proxy.logged_address("raw"), raw);
    proxy.wait_metric("flowproxy_spool_written_batches_total", 4);
}

/// Every file below a folder: name, size and bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// The files of a folder in another, one of them changed.
fn copy(dir: &Path, prefix: &str, change: impl Fn(&mut Vec<u8>)) -> (TempDir, PathBuf) {
    let copy = tempfile::tempdir().unwrap();
    let mut changed = None;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let to = copy.path().join(path.file_name().unwrap());
        if path.is_dir() {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        if to.file_name().unwrap().to_str().unwrap().starts_with(prefix) {
            change(&mut bytes);
            changed = Some(to.clone());
        }
        std::fs::write(to, bytes).unwrap();
    }
    (copy, changed.unwrap())
}

/// Where the frames of a segment begin.
fn offsets(bytes: &[u8]) -> Vec<usize> {
    let mut at = SEGMENT_HEADER_BYTES;
    let mut found = Vec::new();
    while bytes[at..].starts_with(&[0xf5, 0x0a]) {
        found.push(at);
        let len = u32::from_le_bytes(bytes[at + LEN_AT..at + LEN_AT + 4].try_into().unwrap());
        at += (FRAME_HEADER_BYTES + len as usize).next_multiple_of(8);
    }
    found
}

#[test]
fn a_spool_is_shown_checked_and_exported_and_never_changed() {
    let rig = Rig::new();
    let raw: Vec<Vec<u8>> = numbered(1, 201, FLOWS_EACH);
    let proxy = rig.proxy_listening(LISTEN);
    fill(&proxy, &raw);
    let dir = rig.path("spool");

    // While the proxy runs on it.
    let shown: Value = serde_json::from_slice(&spool(&["inspect", text(&dir), "--json"]).stdout).unwrap();
    assert_eq!(shown["in_use_by"], u64::from(proxy.process.pid()), "{shown:#}");
    assert_eq!(shown["unacked"]["batches"], 4);
    assert_eq!(shown["lanes"][0]["segments"][0]["state"], "growing");
    let checked = spool(&["verify", text(&dir)]);
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
    assert!(said(&checked).contains("has it in use"), "{}", said(&checked));
    assert!(proxy.process.terminate().success());

    let before = files(&dir);
    let config = rig.path("proxy.toml");
    // The config names its spool relative to the folder it lies in.
    let shown = spool(&["inspect", "-c", text(&config)]);
    let shown_text = said(&shown);
    assert_eq!(shown.status.code(), Some(0), "{shown_text}");
    for part in [
        "in use           no",
        "mark store       none yet",
        "4 batches, 1210 records",
        "sealed",
        "next batch       5",
    ] {
        assert!(shown_text.contains(part), "{part} in\n{shown_text}");
    }
    let checked = spool(&["verify", text(&dir)]);
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
    assert!(said(&checked).contains("4 batches read in 1 segment of 1 lane: whole"), "{}", said(&checked));

    let exported = spool(&["export", text(&dir)]);
    assert_eq!(exported.status.code(), Some(0), "{}", said(&exported));
    assert!(
        String::from_utf8_lossy(&exported.stderr)
            .contains("1200 records in 3 batches; 1 batch of raw datagrams left out")
    );
    let capture = rig.path("raw.pcap");
    let written = spool(&["export", text(&dir), "--raw", "-o", text(&capture)]);
    assert_eq!(written.status.code(), Some(0), "{}", said(&written));
    let decoded = lines(&flowproxy(&["decode", "--format", "json", text(&capture)]));
    assert_eq!(decoded.iter().filter(|line| line["kind"] == "data").count(), 10 * FLOWS_EACH);
    // An existing file stays, and nothing is written into the spool.
    assert_eq!(spool(&["export", text(&dir), "-o", text(&capture)]).status.code(), Some(1));
    assert_eq!(spool(&["export", text(&dir), "-o", text(&dir.join("x"))]).status.code(), Some(1));
    let lengths = spool(&["export", text(&dir), "--raw=lengths"]).stdout;
    let expected: Vec<u8> =
        raw.iter().flat_map(|one| [&(one.len() as u32).to_be_bytes(), one.as_slice()].concat()).collect();
    assert_eq!(lengths, expected);
    let lane = shown_text.split("lane ").nth(1).unwrap().split(',').next().unwrap();
    let part = spool(&["export", text(&dir), "--lane", &lane[..8], "--from", "2", "--to", "2"]);
    assert_eq!(lines(&part).len(), 400);
    assert_eq!(spool(&["export", text(&dir), "--lane", "nothing"]).status.code(), Some(2));
    assert!(files(&dir) == before, "the folder was changed");

    // What is sent later is the same text.
    let collector = rig.jsonl_collector();
    let proxy = rig.proxy_listening(LISTEN);
    rig.wait_data_records(1200);
    assert_eq!(rig.text(), String::from_utf8(exported.stdout).unwrap());
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
    let shown: Value = serde_json::from_slice(&spool(&["inspect", text(&dir), "--json"]).stdout).unwrap();
    assert_eq!(shown["unacked"]["batches"], 0, "{shown:#}");
    assert!(shown["mark_store_id"].as_str().is_some_and(|id| !id.is_empty()), "{shown:#}");
}

#[test]
fn a_damaged_spool_is_told_by_file_and_byte_and_the_rest_comes_out() {
    let rig = Rig::new();
    let proxy = rig.proxy_listening(LISTEN);
    fill(&proxy, &numbered(1, 41, FLOWS_EACH));
    assert!(proxy.process.terminate().success());
    let dir = rig.path("spool");

    let second = |bytes: &[u8]| offsets(bytes)[1];
    let (damaged, segment) = copy(&dir, "seg-", |bytes| {
        let at = second(bytes) + 300;
        bytes[at] ^= 1;
    });
    let at = second(&std::fs::read(&segment).unwrap());
    let checked = spool(&["verify", text(damaged.path())]);
    assert_eq!(checked.status.code(), Some(1), "{}", said(&checked));
    let line = format!("{}: at byte {at}: ", segment.display());
    assert!(
        said(&checked).contains(&line) && said(&checked).contains("batch 2 is damaged"),
        "{}",
        said(&checked)
    );
    let exported = spool(&["export", text(damaged.path())]);
    assert_eq!(exported.status.code(), Some(1), "{}", String::from_utf8_lossy(&exported.stderr));
    assert_eq!(lines(&exported).len(), 800);
    assert!(String::from_utf8_lossy(&exported.stderr).contains("800 records in 2 batches"));

    // A header: the name says whose frames they are.
    let (damaged, segment) = copy(&dir, "seg-", |bytes| bytes[20] ^= 1);
    let checked = spool(&["verify", text(damaged.path())]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(
        said(&checked).contains(&format!("{}: at byte 0: segment header", segment.display())),
        "{}",
        said(&checked)
    );
    assert_eq!(lines(&spool(&["export", text(damaged.path())])).len(), 1200);

    // The footer, and positions.
    for (prefix, back, what) in [("seg-", 30, "footer"), ("positions", 131_072 - 10, "positions")] {
        let (damaged, _) = copy(&dir, prefix, |bytes| {
            let at = bytes.len() - back;
            bytes[at] ^= 1;
        });
        let checked = spool(&["verify", text(damaged.path())]);
        assert_eq!(checked.status.code(), Some(1), "{prefix}: {}", said(&checked));
        assert!(said(&checked).contains(what), "{}", said(&checked));
    }

    // A segment that has gone, which positions know of.
    let (damaged, segment) = copy(&dir, "seg-", |_| {});
    std::fs::remove_file(segment).unwrap();
    let checked = spool(&["verify", text(damaged.path())]);
    assert_eq!(checked.status.code(), Some(1), "{}", said(&checked));
    assert!(said(&checked).contains("batches 1 to 4 of lane"), "{}", said(&checked));
}

#[test]
fn what_is_no_spool_cannot_be_read() {
    let empty = tempfile::tempdir().unwrap();
    for command in ["inspect", "verify", "export"] {
        let output = spool(&[command, text(empty.path())]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("there is no spool in this folder"), "{}", said(&output));
        let output = spool(&[command, text(&empty.path().join("nowhere"))]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert_eq!(spool(&[command]).status.code(), Some(2));
    }
}
