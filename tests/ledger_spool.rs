//! The loss ledger adds up, and no term of it can be left out, whatever the spool and its disk lose: a disk that stalls or
//! fails, a spool that is full, damaged, partly gone, or older than what was delivered. What comes out of the far end is
//! the oracle.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod fuse;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use flowproxy::spool::Stored;
use flowproxy::spool::frame::{
    FRAME_HEADER_BYTES, FrameHeader, Notes, SEGMENT_HEADER_BYTES, Seed, SegmentHeader, check, encode,
};
use fuse::load::{at_far_end, feed, proxy, proxy_config, wait_drained};
use fuse::segments::numbers_in;
use fuse::{Disk, NO_FUSE};
use serde_json::Value;
use support::ledger::{
    OF_A_FAILED_DISK, OF_A_FULL_SPOOL, OF_A_HURT_SPOOL, OF_A_LOST_END, OF_A_STALL, assert_needed, term,
};
use support::process::run_tool;
use support::relay::Relay;
use support::rig::{End, Rig};
use support::{Numbers, loopback_socket, skipped, wait_until};

fn ledger(proxy: &End) -> Value {
    proxy.status()["ledger"].clone()
}

fn total(proxy: &End, place: &str) -> i64 {
    term(&ledger(proxy), &format!("/total{place}"))
}

fn disk(rig: &Rig, test: &str) -> Option<Disk> {
    let disk = Disk::mount(&rig.path("disk"));
    if disk.is_none() {
        skipped(test, NO_FUSE);
    }
    disk
}

/// Noise: nothing packs it.
fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut numbers = Numbers::from_seed(u64::from(seed) + 1);
    (0..bytes / 8).flat_map(|_| numbers.next().to_be_bytes()).collect()
}

/// The proxy of the disk, with a listener for raw datagrams beside the other.
fn config_with_raw(rig: &Rig, endpoint: &str) -> String {
    let config = proxy_config(rig).replace(&rig.endpoint(), endpoint);
    let config =
        config.replace("udp = [\"127.0.0.1:0\"]", "udp = [\"127.0.0.1:0\"]\nraw = [\"127.0.0.1:0\"]");
    config + "\n[shutdown]\ndeadline = \"1m\"\n"
}

/// What lies in the queue when the disk stalls is waiting, what it has no room for is dropped; what comes after it is
/// neither.
#[test]
fn row_18_what_a_stalled_disk_costs() {
    let rig = Rig::new();
    let Some(disk) = disk(&rig, "the ledger while a disk stalls") else { return };
    let proxy = rig.start("run", "proxy.toml", &config_with_raw(&rig, &rig.endpoint()));
    proxy.wait_healthy();
    feed(&proxy, 1..=50);
    proxy.wait_spooled(50);
    let stall = disk.stall();
    let (socket, raw) = (loopback_socket(), proxy.logged_address("raw"));
    let (mut last, mut sent) = (50, 0_u32);
    let dropped = |of: &str| total(&proxy, &format!("/{of}/dropped"));
    while dropped("records") == 0 || dropped("raw_datagrams") == 0 {
        for _ in 0..20 {
            sent += 1;
            proxy.feed(&socket, raw, &[noise(sent, 60_000)]);
        }
        feed(&proxy, last + 1..=last + 20);
        last += 20;
        assert!(sent < 5_000, "nothing is dropped");
    }
    proxy.assert_ledger();
    assert_needed(&ledger(&proxy), OF_A_STALL);
    drop(stall);
    wait_until("the queue to be empty", || total(&proxy, "/spool/waiting") == 0);
    proxy.assert_ledger();
    let lost = dropped("records");
    let _collector = rig.jsonl_collector();
    wait_drained(&proxy);
    // What was received first went as the spool was full.
    let given_up = proxy.metric("flowproxy_spool_skipped_records_total");
    let raw_committed = total(&proxy, "/spool/committed/raw_datagrams");
    let at_far_end = at_far_end(&rig).len() as i64;
    assert_eq!(total(&proxy, "/spool/committed/records"), at_far_end);
    let all = i64::from(last) + i64::from(sent);
    assert_eq!(at_far_end + raw_committed + lost + dropped("raw_datagrams") + given_up as i64, all);
}

/// What the disk has not taken when the process ends is dropped, and said while the link still sends.
#[test]
fn row_17_what_a_failed_disk_costs_at_the_end() {
    let rig = Rig::new();
    let Some(disk) = disk(&rig, "the ledger when a disk fails for good") else { return };
    let relay = Relay::start(rig.collector_address());
    let proxy = rig.start("run", "proxy.toml", &config_with_raw(&rig, &relay.endpoint()));
    proxy.wait_healthy();
    let collector = rig.jsonl_collector();
    feed(&proxy, 1..=50);
    proxy.wait_metric("flowproxy_records_committed_total", 50);
    wait_until("a clean disk", || disk.is_clean());
    // So that it does not end before it is asked.
    relay.stall(true);
    disk.set(|faults| (faults.failing_syncs, faults.writes_fail) = (u32::MAX, true));
    feed(&proxy, 51..=60);
    wait_until("/readyz 503", || proxy.get("/readyz").0 == 503);
    feed(&proxy, 61..=100);
    wait_until("batches that wait for the disk", || total(&proxy, "/spool/waiting") > 0);
    proxy.process.signal("TERM");
    wait_until("what the disk did not take", || total(&proxy, "/spool/dropped/disk") > 0);
    proxy.assert_ledger();
    assert_needed(&ledger(&proxy), OF_A_FAILED_DISK);
    let lost = total(&proxy, "/spool/dropped/disk");
    relay.stall(false);
    let mut process = proxy.process;
    assert!(process.wait().success());
    // What had its number goes out from memory.
    assert_eq!(at_far_end(&rig).len() as i64 + lost, 100);
    assert!(collector.process.terminate().success());
}

#[test]
fn row_19_what_a_full_spool_costs() {
    let rig = Rig::new();
    let config = proxy_config(&rig).replace("max_records = 2", "max_records = 50");
    let proxy = rig.start("run", "proxy.toml", &config.replace("\"5ms\"", "\"50ms\""));
    proxy.wait_healthy();
    let mut last = 0;
    while proxy.metric("flowproxy_spool_skipped_records_total") == 0 {
        feed(&proxy, last + 1..=last + 500);
        last += 500;
        proxy.wait_spooled(u64::from(last));
    }
    proxy.assert_ledger();
    assert_needed(&ledger(&proxy), OF_A_FULL_SPOOL);
    let collector = rig.jsonl_collector();
    wait_drained(&proxy);
    let given_up = total(&proxy, "/spool/skipped/dropped");
    assert_eq!(at_far_end(&rig).len() as i64 + given_up, i64::from(last));
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

fn segments(spool: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|it| it == "fsp")).collect();
    found.sort();
    found
}

/// The nth frame of a segment: where it begins, its header, and what seeds its checksum.
fn frame(segment: &[u8], nth: usize) -> (usize, FrameHeader, Seed) {
    let header = SegmentHeader::decode(segment).unwrap();
    let seed = Seed::new(header.lane, header.first_seq);
    let mut at = SEGMENT_HEADER_BYTES;
    for _ in 0..nth {
        at += check(&segment[at..], seed).unwrap().frame_bytes();
    }
    (at, check(&segment[at..], seed).unwrap(), seed)
}

/// Makes of a frame's payload what no collector can read; the frame itself is sound.
fn spoil(segment: &mut [u8], nth: usize) {
    let (at, header, seed) = frame(segment, nth);
    let notes_at = at + FRAME_HEADER_BYTES;
    let payload_at = notes_at + header.notes_bytes;
    let notes = Notes::decode(&segment[notes_at..payload_at]).unwrap();
    let lane = SegmentHeader::decode(segment).unwrap().lane;
    let batch = Stored {
        lane,
        seq: header.seq,
        kind: header.kind,
        records: header.records,
        codec: header.codec,
        plain_size: header.plain_size,
        payload: vec![0xff; header.payload_bytes].into(),
        digest: header.digest,
        previous_digest: header.previous_digest,
        received: header.received,
    };
    let mut bytes = Vec::new();
    encode(&mut bytes, seed, &batch, &notes.totals, &notes.shares);
    bytes.extend_from_slice(&batch.payload);
    segment[at..at + bytes.len()].copy_from_slice(&bytes);
    assert_eq!(check(&segment[at..], seed).unwrap().seq, header.seq);
}

/// A batch whose bytes have changed, one that the collector cannot read, and a file that somebody takes away.
#[test]
fn row_08_11_27_what_a_hurt_spool_costs() {
    let rig = Rig::new();
    let running = proxy(&rig);
    feed(&running, 1..=2_500);
    running.wait_spooled(2_500);
    running.process.kill();
    let files = segments(&rig.path("disk/spool"));
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let (damaged, ..) = frame(&bytes, 3);
    bytes[damaged + FRAME_HEADER_BYTES + 300] ^= 0x40;
    std::fs::write(&files[0], bytes).unwrap();
    let mut bytes = std::fs::read(&files[1]).unwrap();
    spoil(&mut bytes, 5);
    std::fs::write(&files[1], bytes).unwrap();
    let taken_away = numbers_in(&std::fs::read(&files[2]).unwrap()).len() as i64;

    let running = proxy(&rig);
    std::fs::remove_file(&files[2]).unwrap();
    let collector = rig.jsonl_collector();
    wait_drained(&running);
    assert_needed(&ledger(&running), OF_A_HURT_SPOOL);
    assert_eq!(total(&running, "/spool/skipped/lost"), taken_away);
    let missing = 2_500 - at_far_end(&rig).len() as i64;
    assert_eq!(total(&running, "/spool/skipped"), missing);
    let told = collector.status()["proxies"][0]["skipped"].clone();
    assert_eq!(told["rejected"]["batches"], 1, "{told}");
    assert!(running.process.terminate().success());
    assert!(collector.process.terminate().success());
}

/// The disk is as it was before its last batches were delivered: what it still has of their lane is set aside.
#[test]
fn row_12_what_a_spool_older_than_the_mark_costs() {
    let rig = Rig::new();
    let running = proxy(&rig);
    feed(&running, 1..=50);
    running.wait_spooled(50);
    let (spool, backup) = (rig.path("disk/spool"), rig.path("backup"));
    run_tool(Command::new("cp").arg("-a").arg(&spool).arg(&backup));
    let collector = rig.jsonl_collector();
    feed(&running, 51..=100);
    running.wait_metric("flowproxy_records_committed_total", 100);
    running.process.kill();
    std::fs::remove_dir_all(&spool).unwrap();
    run_tool(Command::new("cp").arg("-a").arg(&backup).arg(&spool));

    let running = proxy(&rig);
    feed(&running, 101..=110);
    wait_drained(&running);
    assert_needed(&ledger(&running), OF_A_LOST_END);
    assert_eq!((total(&running, "/spool/recovered"), total(&running, "/spool/skipped/aside")), (50, 50));
    assert_eq!(at_far_end(&rig).len(), 110);
    assert!(running.process.terminate().success());
    assert!(collector.process.terminate().success());
}
