//! Row 27 of the fault table with real processes: batches in a spool that no collector can read.
//!
//! No proxy makes such a batch. A spool is filled by one, and some of its batches get other bytes: with good checksums and
//! digests, so that only the collector finds fault with them.

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

use flowproxy::batch::digest;
use flowproxy::spool::Stored;
use flowproxy::spool::frame::{
    FRAME_HEADER_BYTES, Notes, SEGMENT_HEADER_BYTES, Seed, SegmentHeader, check, encode,
};
use fuse::load::{assert_balance, at_far_end, feed, proxy, proxy_config, wait_drained};
use support::relay::Relay;
use support::rig::{End, Rig};
use support::wait_until;

const COMMITTED: &str = "flowproxy_records_committed_total";
const REJECTED: &str = "flowproxy_uplink_rejected_batches_total";
const SKIPPED: &str = "flowproxy_spool_skipped_batches_total";
const SKIPPED_THERE: &str = "flowproxy_collector_skipped_batches_total";
const RECORDS: u32 = 40;

/// What is in a spool after that.
#[derive(Default)]
struct Spoiled {
    /// Numbers of the records in good batches.
    left: Vec<u32>,
    /// Bad batches.
    bad: u64,
    /// All batches.
    batches: u64,
}

/// Fills a spool with numbered records in many batches, and gives those other bytes of which `is_bad` says so by their number.
fn spoiled(rig: &Rig, is_bad: impl Fn(u64) -> bool) -> Spoiled {
    let running = proxy(rig);
    feed(&running, 1..=RECORDS);
    running.wait_spooled(RECORDS.into());
    stop(running);
    let mut spoiled = Spoiled::default();
    for segment in segments(&rig.path("disk/spool")) {
        let bytes = rewritten(&std::fs::read(&segment).unwrap(), &is_bad, &mut spoiled);
        std::fs::write(&segment, bytes).unwrap();
    }
    assert!(spoiled.bad > 0 && spoiled.batches >= u64::from(RECORDS) / 2);
    spoiled
}

fn segments(spool: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|it| it == "fsp")).collect()
}

/// A segment with those batches replaced, without its footer: as if its writer had been killed.
fn rewritten(segment: &[u8], is_bad: &impl Fn(u64) -> bool, spoiled: &mut Spoiled) -> Vec<u8> {
    let header = SegmentHeader::decode(segment).unwrap();
    let seed = Seed::new(header.lane, header.first_seq);
    let (mut out, mut at) = (segment[..SEGMENT_HEADER_BYTES].to_vec(), SEGMENT_HEADER_BYTES);
    let mut previous_digest = None;
    while let Ok(frame) = check(&segment[at..], seed) {
        let notes = at + FRAME_HEADER_BYTES;
        let start = notes + frame.notes_bytes;
        let Notes { totals, shares } = Notes::decode(&segment[notes..start]).unwrap();
        let mut payload = segment[start..start + frame.payload_bytes].to_vec();
        if is_bad(frame.seq) {
            spoiled.bad += 1;
            payload = format!("batch {} is no message of any kind", frame.seq).into_bytes();
        } else {
            let alone = [&segment[..SEGMENT_HEADER_BYTES], &segment[at..at + frame.frame_bytes()]].concat();
            spoiled.left.extend(fuse::segments::numbers_in(&alone));
        }
        let batch = Stored {
            lane: header.lane,
            seq: frame.seq,
            kind: frame.kind,
            records: frame.records,
            codec: frame.codec,
            plain_size: frame.plain_size,
            digest: digest(frame.codec, frame.plain_size, &payload),
            payload: payload.into(),
            previous_digest,
            received: frame.received,
        };
        let encoded = encode(&mut out, seed, &batch, &totals, &shares);
        out.extend_from_slice(&batch.payload);
        out.resize(out.len() + encoded.padding_bytes, 0);
        previous_digest = Some(batch.digest);
        spoiled.batches += 1;
        at += frame.frame_bytes();
    }
    out
}

fn stop(end: End) {
    assert!(end.process.terminate().success(), "it ends cleanly");
}

fn quarantined(rig: &Rig) -> usize {
    std::fs::read_dir(rig.path("disk/spool/quarantine")).map_or(0, Iterator::count)
}

fn alarm(proxy: &End) -> String {
    proxy.status()["link"]["alarm"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn row_27_a_batch_that_no_collector_can_read_is_kept_and_its_lane_goes_on() {
    let rig = Rig::new();
    let Spoiled { left, bad, .. } = spoiled(&rig, |seq| seq % 7 == 3);
    let (collector, proxy) = (rig.jsonl_collector(), proxy(&rig));
    feed(&proxy, 101..=120);
    proxy.wait_metric(COMMITTED, left.len() as u64 + 20);
    wait_drained(&proxy);
    assert_balance(&at_far_end(&rig), left.iter().copied().chain(101..=120), "lost or twice");
    assert_eq!(at_far_end(&rig).len(), left.len() + 20);
    assert!(bad >= 3);
    assert_eq!((proxy.metric(REJECTED), quarantined(&rig) as u64), (bad, bad));
    assert_eq!((proxy.metric(SKIPPED), collector.metric(SKIPPED_THERE)), (bad, bad));
    assert_eq!(alarm(&proxy), "", "good ones came between");
    proxy.assert_ledger();
    stop(proxy);
    stop(collector);
}

/// After the third refusal in a row nothing more is given up: the fault may be the collector's.
#[test]
fn row_27_a_collector_that_refuses_everything_does_not_drain_the_spool() {
    let rig = Rig::new();
    let Spoiled { batches, .. } = spoiled(&rig, |_| true);
    let (collector, running) = (rig.jsonl_collector(), proxy(&rig));
    wait_until("the alarm", || alarm(&running).contains("refuse"));
    let kept = batches - 2;
    assert_eq!((running.metric(SKIPPED), quarantined(&rig)), (2, 2));
    assert_eq!(running.status()["spool"]["batches"], kept);
    running.process.kill();

    // The refusals in a row outlive the process.
    let again = proxy(&rig);
    wait_until("the alarm", || alarm(&again).contains("refuse"));
    assert_eq!((again.metric(SKIPPED), quarantined(&rig)), (0, 2));
    assert_eq!(again.status()["spool"]["batches"], kept);
    assert!(at_far_end(&rig).is_empty());
    again.assert_ledger();
    stop(again);
    stop(collector);
}

/// The link breaks as soon as the collector has refused a batch, before or after its word of it has come.
#[test]
fn row_27_the_link_breaks_right_after_a_reject() {
    for is_heard in [false, true] {
        let rig = Rig::new();
        let Spoiled { left, .. } = spoiled(&rig, |seq| seq == 5);
        let collector = rig.jsonl_collector();
        let relay = Relay::start(rig.collector_address());
        let config = proxy_config(&rig).replace(&rig.endpoint(), &relay.endpoint());
        let proxy = rig.start("run", "proxy.toml", &config);
        proxy.wait_healthy();
        wait_until("the refusal", || match is_heard {
            false => collector.metric("flowproxy_collector_rejected_batches_total") > 0,
            true => proxy.metric(REJECTED) > 0,
        });
        relay.cut();
        feed(&proxy, 101..=120);
        proxy.wait_metric(COMMITTED, 20);
        wait_drained(&proxy);
        assert_balance(&at_far_end(&rig), left.into_iter().chain(101..=120), "lost or twice");
        assert_eq!((proxy.metric(SKIPPED), quarantined(&rig), collector.metric(SKIPPED_THERE)), (1, 1, 1));
        proxy.assert_ledger();
        stop(proxy);
        stop(collector);
    }
}
