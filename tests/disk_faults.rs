//! Disks that are full, fail or stall under the real processes. Numbers in names are rows of the fault table.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod fuse;
mod support;

use fuse::files::Faults;
use fuse::load::{
    COLLECTOR_ON_DISK, Load, assert_balance, at_far_end, counts, feed, numbered, proxy, proxy_config,
    wait_drained, written,
};
use fuse::{Disk, Kind, Losses, NO_FUSE};
use support::relay::Relay;
use support::rig::{End, Rig};
use support::{PATIENCE, loopback_socket, skipped, wait_until};

const WRITTEN: &str = "flowproxy_spool_written_records_total";
const SKIPPED: &str = "flowproxy_spool_skipped_records_total";
const DISK_ERRORS: &str = "flowproxy_spool_disk_errors_total";
const COMMITTED: &str = "flowproxy_records_committed_total";

fn disk(rig: &Rig, test: &str) -> Option<Disk> {
    let disk = Disk::mount(&rig.path("disk"));
    if disk.is_none() {
        skipped(test, NO_FUSE);
    }
    disk
}

fn wait_ready(end: &End, ready: bool) {
    let code = if ready { 200 } else { 503 };
    wait_until(&format!("/readyz {code}"), || end.get("/readyz").0 == code);
}

/// Full: no more than what is taken now.
fn fill(disk: &Disk) {
    let used = disk.used_bytes();
    disk.set(|faults| faults.room_bytes = used);
}

/// Records of another 40 messages until `done`; gives the last number.
fn feed_until(proxy: &End, mut last: u32, what: &str, mut done: impl FnMut() -> bool) -> u32 {
    wait_until(what, || {
        feed(proxy, last + 1..=last + 40);
        last += 40;
        done()
    });
    last
}

/// The disk fills up while nobody takes anything: the oldest goes, counted exactly, and the process goes on.
fn full_on_append(no_fallocate: bool) {
    let rig = Rig::new();
    let Some(disk) = disk(&rig, "a full disk") else { return };
    disk.set(|faults| (faults.no_fallocate, faults.room_bytes) = (no_fallocate, 64 << 20));
    let proxy = proxy(&rig);
    feed(&proxy, 1..=2_000);
    proxy.wait_spooled(2_000);
    fill(&disk);
    let last = feed_until(&proxy, 2_000, "a segment to be dropped", || proxy.metric(SKIPPED) > 0);
    // Readiness may fail meanwhile; nothing of it is for ever.
    disk.set(|faults| faults.room_bytes = 64 << 20);
    wait_ready(&proxy, true);
    feed(&proxy, last + 1..=last + 10);
    let all = u64::from(last + 10);
    proxy.wait_spooled(all);
    let _collector = rig.jsonl_collector();
    wait_drained(&proxy);
    let (seen, skipped) = (at_far_end(&rig), proxy.metric(SKIPPED));
    assert_balance(&seen, last + 1..=last + 10, "lost or twice");
    assert_eq!(seen.len() as u64 + skipped, all, "at the far end + dropped = received");
    proxy.assert_ledger();
}

#[test]
fn row_14_full_disk_on_append() {
    full_on_append(false);
}

#[test]
fn row_14_full_disk_on_append_without_fallocate() {
    full_on_append(true);
}

/// Somebody else has taken all the room: nothing can be admitted, what is there is sent, and it goes on by itself.
#[test]
fn row_14_full_disk_of_others() {
    let rig = Rig::new();
    let Some(disk) = disk(&rig, "a disk full of other things") else { return };
    let proxy = proxy(&rig);
    feed(&proxy, 1..=100);
    proxy.wait_spooled(100);
    disk.set(|faults| faults.room_bytes = 0);
    let last = feed_until(&proxy, 100, "no room", || proxy.get("/readyz").0 == 503);
    assert_eq!(proxy.get("/healthz").0, 200);
    let _collector = rig.jsonl_collector();
    let skipped = || proxy.metric(SKIPPED);
    // Sending goes on.
    wait_until("what was there at the far end", || proxy.metric(COMMITTED) + skipped() >= 100);
    disk.set(|faults| *faults = Faults::default());
    wait_ready(&proxy, true);
    proxy.wait_spooled(u64::from(last));
    wait_drained(&proxy);
    let seen = at_far_end(&rig);
    assert_balance(&seen, [], "twice");
    assert_eq!(seen.len() as u64 + skipped(), u64::from(last), "at the far end + dropped = received");
}

/// Acks free the room: positions are written in place, and removing needs none.
#[test]
fn row_15_full_disk_on_deletes_and_state_writes() {
    let rig = Rig::new();
    let Some(disk) = disk(&rig, "deletes on a full disk") else { return };
    disk.set(|faults| faults.room_bytes = 64 << 20);
    let proxy = proxy(&rig);
    feed(&proxy, 1..=4_000);
    proxy.wait_spooled(4_000);
    fill(&disk);
    let full = disk.used_bytes();
    let _collector = rig.jsonl_collector();
    wait_drained(&proxy);
    // Two stay, to be written over.
    wait_until("segments to go", || disk.used_bytes() <= full - (1 << 20));
    assert_balance(&at_far_end(&rig), 1..=4_000, "lost or twice");
    // In the room that was freed.
    feed(&proxy, 4_001..=5_000);
    wait_ready(&proxy, true);
    proxy.wait_metric(COMMITTED, 5_000);
    assert_balance(&at_far_end(&rig), 1..=5_000, "lost or twice");
}

/// A failed fsync forgets what it was to write. Nothing of that may be counted on.
#[test]
fn row_16_fsync_fails_once() {
    let rig = Rig::new();
    let Some(mut disk) = disk(&rig, "an fsync that fails once") else { return };
    let running = proxy(&rig);
    feed(&running, 1..=100);
    running.wait_spooled(100);
    disk.set(|faults| (faults.failing_syncs, faults.failing_names) = (1, "seg-"));
    feed(&running, 101..=200);
    running.wait_metric(DISK_ERRORS, 1);
    running.wait_spooled(200);
    wait_until("a clean disk", || disk.is_clean());
    assert_eq!(running.get("/readyz").0, 200);
    disk.power_cut(running.process, Losses::all());
    let running = proxy(&rig);
    let _collector = rig.jsonl_collector();
    wait_drained(&running);
    assert_balance(&at_far_end(&rig), 1..=200, "lost or twice");
}

/// Nothing is taken in, what is there is sent, readiness fails; it goes on by itself once the disk works.
fn failing_for_good(set: impl FnOnce(&mut Faults)) {
    let rig = Rig::new();
    let Some(disk) = disk(&rig, "a disk that fails for good") else { return };
    let proxy = proxy(&rig);
    // It has been there, so that its mark store is known.
    let collector = rig.jsonl_collector();
    feed(&proxy, 1..=50);
    proxy.wait_metric(COMMITTED, 50);
    collector.process.kill();
    feed(&proxy, 51..=300);
    proxy.wait_spooled(300);
    wait_until("a clean disk", || disk.is_clean());
    disk.set(set);
    feed(&proxy, 301..=400);
    wait_ready(&proxy, false);
    assert_eq!(proxy.get("/healthz").0, 200);
    let errors = proxy.metric(DISK_ERRORS);
    assert!(errors > 0);
    wait_until("more errors", || proxy.metric(DISK_ERRORS) > errors);
    let _collector = rig.jsonl_collector();
    wait_until("what was there at the far end", || {
        let seen = at_far_end(&rig);
        (1..=300).all(|number| seen.contains_key(&number))
    });
    disk.set(|faults| *faults = Faults::default());
    wait_ready(&proxy, true);
    feed(&proxy, 401..=500);
    proxy.wait_metric(COMMITTED, 500);
    wait_drained(&proxy);
    assert_balance(&at_far_end(&rig), 1..=500, "lost or twice");
    proxy.assert_ledger();
}

#[test]
fn row_17_writes_and_fsyncs_fail_for_good() {
    failing_for_good(|faults| (faults.failing_syncs, faults.writes_fail) = (u32::MAX, true));
}

#[test]
fn row_17_fsyncs_fail_for_good() {
    failing_for_good(|faults| faults.failing_syncs = u32::MAX);
}

#[test]
fn row_17_read_only() {
    failing_for_good(|faults| faults.read_only = true);
}

/// Before the first batch ever goes, the name of the collector's store must be on the disk: a proxy that could not tell it
/// from another later might send twice. It is told what the link waits for, and that goes by itself.
#[test]
fn row_17_a_disk_that_fails_before_the_first_connection() {
    let rig = Rig::new();
    let Some(disk) = disk(&rig, "a disk that fails before the first connection") else { return };
    let proxy = proxy(&rig);
    feed(&proxy, 1..=50);
    proxy.wait_spooled(50);
    wait_until("a clean disk", || disk.is_clean());
    disk.set(|faults| (faults.failing_syncs, faults.writes_fail) = (u32::MAX, true));
    let collector = rig.jsonl_collector();
    let told = "does not take the name of the collector's store";
    wait_until("the reason in /status", || proxy.status()["link"].to_string().contains(told));
    let log = proxy.process.log();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains(told)), "{log}");
    assert_eq!((proxy.metric(COMMITTED), proxy.metric("flowproxy_uplink_sent_batches_total")), (0, 0));
    disk.set(|faults| *faults = Faults::default());
    proxy.wait_metric(COMMITTED, 50);
    wait_drained(&proxy);
    assert_balance(&at_far_end(&rig), 1..=50, "lost or twice");
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

/// Resident memory of a process, in bytes.
fn resident_bytes(end: &End) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", end.process.pid())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a size") << 10
}

/// Seconds that the disk stalls: `FLOWPROXY_STALL_SECONDS`.
fn stall_seconds() -> u64 {
    std::env::var("FLOWPROXY_STALL_SECONDS").map_or(2, |text| text.parse().expect("seconds"))
}

#[test]
fn row_18_stalled_disk_stops_no_reader() {
    /// Queue (32 MiB), what is kept for the uplink (16 MiB), the batches being made and packed, and what the
    /// allocator keeps.
    const MOST_BYTES: u64 = 160 << 20;
    let rig = Rig::new();
    let Some(disk) = disk(&rig, "a disk that stalls") else { return };
    let _collector = rig.jsonl_collector();
    let config = proxy_config(&rig).replace("max_bytes = \"8MiB\"", "max_bytes = \"512MiB\"");
    let proxy = rig.start("run", "proxy.toml", &config.replace("max_records = 2", "max_records = 500"));
    proxy.wait_healthy();
    feed(&proxy, 1..=100);
    proxy.wait_metric(COMMITTED, 100);
    let before = resident_bytes(&proxy);
    let stall = disk.stall();
    let uptime = || proxy.status()["uptime_seconds"].as_u64().expect("seconds");
    let until = uptime() + stall_seconds();
    let (socket, to) = (loopback_socket(), proxy.udp());
    let dropped = || proxy.metric("flowproxy_records_dropped_total");
    let mut last = 100;
    // The readers take everything, until the room for it is used up, and after that.
    while dropped() == 0 || uptime() < until {
        let some: Vec<Vec<u8>> = (last + 1..=last + 1_000).map(numbered).collect();
        proxy.feed(&socket, to, &some);
        last += 1_000;
        let grown = resident_bytes(&proxy).saturating_sub(before);
        assert!(grown < MOST_BYTES, "{grown} bytes more than before, after {last} records");
        assert!(last < 1_000_000, "nothing is dropped, and {grown} bytes more are taken");
    }
    // Who sends it flow is told by then, and that it goes on by itself.
    wait_ready(&proxy, false);
    let (_, why) = proxy.get("/readyz");
    assert!(why.contains("has not answered"), "{why}");
    proxy.wait_metric("flowproxy_spool_stalled", 1);
    assert!(proxy.process.log().contains("No batch can be written"), "{}", proxy.process.log());
    assert_eq!(proxy.get("/healthz").0, 200);
    drop(stall);
    wait_ready(&proxy, true);
    wait_until("no stall", || proxy.metric("flowproxy_spool_stalled") == 0);
    assert!(proxy.process.log().contains("answers again"), "{}", proxy.process.log());
    wait_until("the spool's queue to be empty", || {
        proxy.metric(WRITTEN) + proxy.metric("flowproxy_records_dropped_total") == u64::from(last)
    });
    wait_drained(&proxy);
    let (seen, dropped) = (at_far_end(&rig), dropped());
    assert_balance(&seen, 1..=100, "lost or twice");
    assert_eq!(seen.len() as u64 + dropped, u64::from(last), "at the far end + dropped = received");
    proxy.assert_ledger();
    support::note(&format!("{last} records while the disk stalled, {dropped} of them dropped"));
}

/// The collector's disk does not work: nothing is acked or rejected, readiness fails, and it goes on by itself.
fn collector_stalls(name: &str, break_it: impl FnOnce(&Disk), mend: impl FnOnce(&Disk)) {
    let rig = Rig::new();
    let Some(mut disk) = disk(&rig, name) else { return };
    let collector = rig.collector(COLLECTOR_ON_DISK);
    // Room for all that comes meanwhile.
    let config = proxy_config(&rig).replace("disk/spool", "spool").replace("8MiB", "512MiB");
    let proxy = rig.start("run", "proxy.toml", &config);
    proxy.wait_healthy();
    feed(&proxy, 1..=100);
    proxy.wait_metric(COMMITTED, 100);
    break_it(&disk);
    // Should the test fail, the processes can end.
    let answers = disk.answers_at_last();
    let load = Load::start(proxy.udp(), 101);
    wait_ready(&collector, false);
    assert_eq!(collector.get("/healthz").0, 200);
    let committed = proxy.metric(COMMITTED);
    let spooled = proxy.metric(WRITTEN);
    wait_until("more in the spool", || proxy.metric(WRITTEN) > spooled + 100);
    assert_eq!(proxy.metric(COMMITTED), committed, "nothing is acked");
    assert_eq!(collector.metric("flowproxy_collector_rejected_batches_total"), 0);
    mend(&disk);
    wait_ready(&collector, true);
    let last = load.stop() - 1;
    proxy.wait_spooled(u64::from(last));
    wait_drained(&proxy);
    assert_eq!(proxy.metric(COMMITTED), u64::from(last));
    // Also on the medium.
    drop(answers);
    disk.power_cut(collector.process, Losses::all());
    drop(rig.collector(COLLECTOR_ON_DISK));
    assert_balance(&counts(&written(&disk.now())), 1..=last, "lost or twice");
}

#[test]
fn row_31_collector_on_a_full_disk() {
    let mend = |disk: &Disk| disk.set(|faults| *faults = Faults::default());
    collector_stalls("a collector on a full disk", fill, mend);
}

#[test]
fn row_31_collector_whose_fsyncs_fail() {
    let break_it = |disk: &Disk| disk.set(|faults| faults.failing_syncs = u32::MAX);
    let mend = |disk: &Disk| disk.set(|faults| *faults = Faults::default());
    collector_stalls("a collector whose fsyncs fail", break_it, mend);
}

#[test]
fn row_31_collector_whose_file_fails() {
    let break_it =
        |disk: &Disk| disk.set(|faults| (faults.failing_syncs, faults.failing_names) = (u32::MAX, "flows"));
    let mend = |disk: &Disk| disk.set(|faults| *faults = Faults::default());
    collector_stalls("a collector whose file fails", break_it, mend);
}

#[test]
fn row_31_collector_on_a_stalled_disk() {
    let break_it = |disk: &Disk| disk.stall().keep();
    collector_stalls("a collector on a stalled disk", break_it, Disk::go_on);
}

/// Killed again and again while the disk does not take the note of the batch being decoded, which by then is no more.
#[test]
fn row_27_a_batch_is_not_refused_for_kills_while_the_disk_stalls() {
    let rig = Rig::new();
    let Some(disk) = disk(&rig, "kills of a collector with a stalled disk") else { return };
    let endpoint = rig.endpoint();
    let (_, port) = endpoint.rsplit_once(':').expect("a port");
    let relay = Relay::start(([127, 0, 0, 1], port.parse().expect("a port")).into());
    let ordinary = proxy_config(&rig).replace("disk/spool", "spool").replace(&endpoint, &relay.endpoint());
    let proxy = rig.start("run", "proxy.toml", &ordinary);
    proxy.wait_healthy();
    let mut collector = rig.collector(COLLECTOR_ON_DISK);
    feed(&proxy, 1..=2);
    proxy.wait_metric(COMMITTED, 2);
    relay.stall(true);
    feed(&proxy, 3..=4);
    for _ in 0..4 {
        // The first one names the batch, the second one would say that it is decoded.
        let stall = disk.stall_at(Kind::Write, 1);
        relay.stall(false);
        assert!(stall.wait(PATIENCE), "the note");
        stall.keep();
        relay.stall(true);
        disk.kill(collector.process);
        relay.cut();
        collector = rig.collector(COLLECTOR_ON_DISK);
        let log = collector.process.log();
        assert!(log.contains("died while it decoded this batch"), "{log}");
    }
    relay.stall(false);
    wait_drained(&proxy);
    assert_balance(&counts(&written(&disk.now())), 1..=4, "lost or twice");
    assert_eq!(proxy.metric("flowproxy_uplink_rejected_batches_total"), 0);
    assert_eq!(proxy.metric(SKIPPED), 0);
}
