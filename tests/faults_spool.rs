//! Faults of the spool and of the processes at either end of it, with the row of the fault table in each name: real
//! processes on an ordinary disk. What a disk itself does wrong is in `disk_faults`, power cuts are in `power_cut`.
//!
//! `FLOWPROXY_KILLS` says how many rounds the loops of kills have (10), `FLOWPROXY_KILL_SEED` repeats one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod fuse;
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fuse::load::{Load, assert_balance, at_far_end, feed, proxy, proxy_config, wait_drained};
use fuse::segments::numbers_in;
use serde_json::Value;
use support::clock::Clock;
use support::process::run_tool;
use support::rig::{End, Rig};
use support::{Numbers, note, skipped, wait_until};

const WRITTEN: &str = "flowproxy_spool_written_records_total";
const RECEIVED: &str = "flowproxy_datagrams_received_total";
const SKIPPED: &str = "flowproxy_spool_skipped_records_total";
const KERNEL: &str = "flowproxy_kernel_dropped_datagrams_total";

fn rounds() -> usize {
    std::env::var("FLOWPROXY_KILLS").map_or(10, |text| text.parse().expect("a number of kills"))
}

fn seed() -> u64 {
    let given = std::env::var("FLOWPROXY_KILL_SEED").ok();
    let seed = given.map_or_else(rand::random, |text| text.parse().expect("a seed"));
    note(&format!("FLOWPROXY_KILL_SEED={seed}"));
    seed
}

/// The segments of a spool, in the order of their names.
fn segments(spool: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(spool).expect("the spool").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|it| it == "fsp")).collect();
    found.sort();
    found
}

/// The numbers of all records that lie in a spool.
fn spooled(spool: &Path) -> BTreeSet<u32> {
    segments(spool).iter().flat_map(|path| numbers_in(&std::fs::read(path).expect("a segment"))).collect()
}

fn stop(end: End) {
    assert!(end.process.terminate().success(), "it ends cleanly");
}

fn labelled(end: &End, name: &str, reason: &str) -> u64 {
    let series = format!("{name}{{reason=\"{reason}\"}} ");
    let (_, metrics) = end.get("/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&series).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {series}")).trim().parse().expect("a count")
}

/// A spool of the ordinary size, in many small batches.
fn roomy_proxy(rig: &Rig) -> End {
    let config = proxy_config(rig).replace("\"8MiB\"", "\"256MiB\"");
    let end = rig.start("run", "proxy.toml", &config);
    end.wait_healthy();
    end
}

/// What the process shows of its estimates: records of IPFIX that a restart has lost.
fn lost_in_restart(end: &End) -> u64 {
    let shown = end.status()["ledger"]["total"]["estimates"]["lost_in_restart"]["records"].clone();
    shown.as_u64().expect("a number")
}

/// Waits until so many records are safe from a kill: what is acked at once need not be written.
fn wait_safe(end: &End, records: u64) {
    end.wait_metric("flowproxy_batch_records_total", records);
    wait_until("records that are written or acked", || {
        let in_memory =
            end.metric("flowproxy_spool_waiting_records") + end.metric("flowproxy_spool_unacked_records");
        end.metric(WRITTEN) >= records || in_memory == 0
    });
}

/// One exporter over all lives, with its numbers as its sequence. What a kill costs lay in memory, or came while nobody
/// listened: of each life the numbers at the far end are the first ones without a gap, all that were written are among
/// them, and what is missing between two lives is booked by the later one, to the record where all was written. Every third life has time
/// to write all that came: it loses nothing.
#[test]
fn row_01_kill_9_of_the_proxy_under_load() {
    let rig = Rig::new();
    let collector = rig.jsonl_collector();
    let (seed, spool) = (seed(), rig.path("disk/spool"));
    let (mut first, mut lost, mut most) = (1, 0, 0);
    let mut running = proxy(&rig);
    let load = Load::start(running.udp(), first);
    for round in 0..rounds() {
        let what = format!("round {round}, FLOWPROXY_KILL_SEED={seed}");
        let mut numbers = Numbers::from_seed(seed.wrapping_add(round as u64));
        std::thread::sleep(Duration::from_millis(100 + numbers.below(600) as u64));
        running.wait_spooled(1);
        let at_leisure = round % 3 == 2;
        if at_leisure {
            load.pause();
            wait_safe(&running, (load.sent() - first).into());
        }
        let written = running.metric(WRITTEN) as u32;
        running.process.kill();
        let in_memory = load.sent() - first - written;
        load.pause();
        let kept = spooled(&spool);
        running = proxy(&rig);
        wait_drained(&running);
        let seen = at_far_end(&rig);
        assert_balance(&seen, (first..first + written).chain(kept), &what);
        let life: Vec<u32> = seen.range(first..).map(|(number, _)| *number).collect();
        let end = first + life.len() as u32;
        assert!(
            life.iter().copied().eq(first..end),
            "{what}: a gap in what was sent from {first} on: {life:?}"
        );
        // The next life hears this one first.
        first = load.sent();
        let missing = first - end;
        assert!(!at_leisure || missing == 0, "{what}: {missing} lost that had time to be written");
        load.aim(running.udp());
        running.wait_spooled(1);
        // What was acked before it was written is in no frame that tells of it, and is booked too.
        let unwritten = (life.len() as u32).saturating_sub(written);
        let booked = lost_in_restart(&running);
        assert!(
            (missing..=missing + unwritten).contains(&(booked as u32)),
            "{what}: lost between {end} and {first}, booked {booked}"
        );
        (lost, most) = (lost + missing, most.max(in_memory));
    }
    load.pause();
    wait_safe(&running, (load.sent() - first).into());
    wait_drained(&running);
    running.assert_ledger();
    let (sent, seen) = (load.stop() - 1, at_far_end(&rig));
    assert_balance(&seen, first..=sent, "the last life");
    assert_eq!(seen.len() as u32 + lost, sent, "at the far end + booked as lost = sent");
    assert_eq!(labelled(&collector, "flowproxy_collector_skipped_batches_total", "lost"), 0);
    note(&format!("{sent} records sent, {lost} of them lost, at most {most} in memory at a kill"));
    stop(running);
    stop(collector);
}

/// Nothing is lost and nothing is there twice, and who reads the file sees it grow only.
#[test]
fn row_01_kill_9_of_the_collector_under_load() {
    let rig = Rig::new();
    let seed = seed();
    let mut collector = rig.jsonl_collector();
    let proxy = roomy_proxy(&rig);
    let load = Load::start(proxy.udp(), 1);
    for round in 0..rounds() {
        let mut numbers = Numbers::from_seed(seed.wrapping_add(round as u64));
        std::thread::sleep(Duration::from_millis(100 + numbers.below(600) as u64));
        collector.process.kill();
        let before = rig.text();
        if numbers.below(3) == 0 {
            // Once more while it starts.
            let config = rig.collector_config("[sink.jsonl]\npath = \"out/flows.jsonl\"\n");
            let starting = rig.start("collect", "collector.toml", &config);
            std::thread::sleep(Duration::from_millis(numbers.below(200) as u64));
            starting.process.kill();
        }
        collector = rig.jsonl_collector();
        assert!(rig.text().starts_with(&before), "round {round}, FLOWPROXY_KILL_SEED={seed}: a byte changed");
    }
    let last = load.stop() - 1;
    proxy.wait_metric(RECEIVED, last.into());
    proxy.wait_spooled(last.into());
    wait_drained(&proxy);
    let seen = at_far_end(&rig);
    assert_balance(&seen, 1..=last, &format!("FLOWPROXY_KILL_SEED={seed}"));
    assert_eq!((seen.len() as u32, proxy.metric(SKIPPED), proxy.metric(KERNEL)), (last, 0, 0));
    let twice = collector.metric("flowproxy_collector_duplicates_total");
    note(&format!("{last} records, {twice} batches came twice to the last collector"));
    stop(proxy);
    stop(collector);
}

/// Fills the spool over several segments while nobody takes anything, and stops.
fn filled(rig: &Rig, count: u32) -> PathBuf {
    let running = proxy(rig);
    feed(&running, 1..=count);
    running.wait_spooled(count.into());
    stop(running);
    rig.path("disk/spool")
}

fn numbers_of(segment: &Path) -> Vec<u32> {
    numbers_in(&std::fs::read(segment).expect("a segment"))
}

/// Starts both ends and waits until all is delivered; gives them.
fn deliver(rig: &Rig) -> (End, End) {
    let (collector, running) = (rig.jsonl_collector(), proxy(rig));
    wait_drained(&running);
    (collector, running)
}

/// Where a frame begins whose first record has this number, and its length in bytes.
fn frame_of(segment: &[u8], number: u32) -> usize {
    use flowproxy::spool::frame::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, Seed, SegmentHeader, check};
    let header = SegmentHeader::decode(segment).expect("a segment");
    let seed = Seed::new(header.lane, header.first_seq);
    let mut at = SEGMENT_HEADER_BYTES;
    loop {
        let frame = check(&segment[at..], seed).expect("a good frame");
        let end = at + frame.frame_bytes();
        let mut alone = segment[..SEGMENT_HEADER_BYTES].to_vec();
        alone.extend_from_slice(&segment[at..end]);
        if numbers_in(&alone).contains(&number) {
            assert!(end - at > FRAME_HEADER_BYTES);
            return at;
        }
        at = end;
    }
}

/// Flips bits in frames of a segment, each so many bytes behind the begin of the frame of a number.
fn flip(segment: &Path, places: [(u32, usize); 2]) {
    let mut bytes = std::fs::read(segment).unwrap();
    for at in places.map(|(number, place)| frame_of(&bytes, number) + place) {
        bytes[at] ^= 0x40;
    }
    std::fs::write(segment, bytes).unwrap();
}

/// A bit of a payload, a bit of a length, and both slots of the positions at once.
#[test]
fn row_08_09_10_flipped_bits_cost_their_batches_and_lost_positions_cost_nothing() {
    let rig = Rig::new();
    let spool = filled(&rig, 2_500);
    let sealed = &segments(&spool)[1];
    let numbers = numbers_of(sealed);
    // The second highest byte of a length: a frame that long would be far larger than any.
    flip(sealed, [(numbers[100], 6), (numbers[200], 300)]);
    std::fs::write(spool.join("positions"), [0xAA; 200_000]).unwrap();
    let (collector, running) = deliver(&rig);
    let seen = at_far_end(&rig);
    let missing: Vec<u32> = (1..=2_500).filter(|number| !seen.contains_key(number)).collect();
    assert_balance(&seen, [], "twice");
    assert!((2..=4).contains(&missing.len()), "{missing:?}");
    assert!(missing.contains(&numbers[100]) && missing.contains(&numbers[200]), "{missing:?}");
    assert_eq!(labelled(&running, "flowproxy_spool_skipped_batches_total", "damaged"), 2);
    assert_eq!(labelled(&collector, "flowproxy_collector_skipped_batches_total", "damaged"), 2);
    assert!(std::fs::read_dir(spool.join("quarantine")).unwrap().count() >= 2, "copies of the damaged bytes");
    let log = running.process.log();
    let is_alarm = |line: &&str| line.contains("ERROR") && line.contains("REASON_DAMAGED");
    assert_eq!(log.lines().filter(is_alarm).count(), 2, "{log}");
    stop(running);
    stop(collector);
}

#[test]
fn row_11_a_segment_deleted_while_stopped_is_declared_lost() {
    let rig = Rig::new();
    let spool = filled(&rig, 2_500);
    let gone = segments(&spool).remove(1);
    let deleted = numbers_of(&gone);
    std::fs::remove_file(gone).unwrap();
    let (collector, running) = deliver(&rig);
    let left = (1..=2_500).filter(|number| !deleted.contains(number));
    let seen = at_far_end(&rig);
    assert_balance(&seen, left, "lost or twice");
    assert_eq!(seen.len() + deleted.len(), 2_500);
    assert!(labelled(&collector, "flowproxy_collector_skipped_batches_total", "lost") > 0);
    assert_eq!(running.status()["spool"]["batches"], 0);
    stop(running);
    stop(collector);
}

#[test]
fn row_11_a_segment_deleted_while_running_is_declared_lost() {
    let rig = Rig::new();
    let spool = filled(&rig, 2_500);
    // The process that wrote it would have it in memory.
    let running = proxy(&rig);
    let gone = segments(&spool).remove(1);
    let deleted = numbers_of(&gone);
    std::fs::remove_file(gone).unwrap();
    let collector = rig.jsonl_collector();
    feed(&running, 2_501..=2_600);
    wait_drained(&running);
    let left = (1..=2_600).filter(|number| !deleted.contains(number));
    let seen = at_far_end(&rig);
    assert_balance(&seen, left, "lost or twice");
    assert_eq!(seen.len() + deleted.len(), 2_600);
    assert!(labelled(&collector, "flowproxy_collector_skipped_batches_total", "lost") > 0);
    stop(running);
    stop(collector);
}

fn copy_folder(from: &Path, to: &Path) {
    run_tool(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// Kept of the spool is its first day; its second day was partly delivered when the disk was lost; on its third day,
/// with the old spool again, nobody can be reached for 1,000 batches.
#[test]
fn row_12_a_spool_restored_from_a_backup_delivers_all_that_is_fresh() {
    let rig = Rig::new();
    let (spool, backup) = (filled(&rig, 100), rig.path("backup"));
    copy_folder(&spool, &backup);
    // Its lane is delivered, then another one in part: slowly, so that the end comes in the middle.
    let (collector, running) = deliver(&rig);
    stop(collector);
    feed(&running, 101..=400);
    running.wait_spooled(300);
    stop(running);
    let slow = proxy_config(&rig).replace("[uplink]\n", "[uplink]\nmax_rate = \"20KiB\"\n");
    let collector = rig.jsonl_collector();
    let running = rig.start("run", "proxy.toml", &slow);
    running.wait_metric("flowproxy_records_committed_total", 20);
    running.process.kill();
    let before = at_far_end(&rig).len();
    assert!((120..400).contains(&before), "{before}");
    stop(collector);

    std::fs::remove_dir_all(&spool).unwrap();
    copy_folder(&backup, &spool);
    let running = proxy(&rig);
    feed(&running, 1_001..=3_000);
    running.wait_spooled(2_000);
    assert!(running.metric("flowproxy_spool_written_batches_total") >= 1_000);
    let clock = Clock::new(&rig.path("clock"));
    let environment = clock.as_ref().map(Clock::environment);
    let sinks = "[sink.jsonl]\npath = \"out/flows.jsonl\"\n";
    let config = rig.collector_config(sinks);
    let collector =
        rig.start_with("collect", "collector.toml", &config, environment.as_ref().map_or(&[], |it| it));
    collector.wait_healthy();
    wait_drained(&running);
    let seen = at_far_end(&rig);
    assert_balance(&seen, (1..=100).chain(1_001..=3_000), "lost or twice");
    assert_eq!(seen.range(1_001..).count(), 2_000);
    // The lane that was lost with its disk is closed by nobody: after a day it is shown as lost.
    let lost = || {
        let lanes = collector.status()["proxies"][0]["lanes"].clone();
        let lost = |lane: &Value| lane["lost"].as_u64().expect("a number");
        lanes.as_array().expect("lanes").iter().map(lost).sum::<u64>()
    };
    assert_eq!(lost(), 0);
    match clock {
        Some(clock) => {
            clock.shift(25 * 3_600);
            assert!(lost() > 0, "{}", collector.status());
        }
        None => skipped("what is lost with a disk", "no library can be preloaded here"),
    }
    stop(running);
    stop(collector);
}

/// A machine was copied with its disk, and both copies run under one certificate.
#[test]
fn row_13_a_cloned_disk_delivers_its_old_lanes_once_and_both_fresh_ones_whole() {
    let rig = Rig::new();
    let spool = filled(&rig, 500);
    std::fs::create_dir(rig.path("clone")).unwrap();
    copy_folder(&spool, &rig.path("clone/spool"));
    let first = proxy(&rig);
    let config = proxy_config(&rig).replace("disk/spool", "clone/spool");
    let second = rig.start("run", "clone.toml", &config);
    second.wait_healthy();
    feed(&first, 1_001..=1_200);
    feed(&second, 2_001..=2_200);
    let collector = rig.jsonl_collector();
    for (end, from) in [(&first, 1_201), (&second, 2_201)] {
        feed(end, from..=from + 99);
    }
    wait_drained(&first);
    wait_drained(&second);
    let all = (1..=500).chain(1_001..=1_300).chain(2_001..=2_300);
    let seen = at_far_end(&rig);
    assert_balance(&seen, all, "lost or twice");
    assert_eq!(seen.len(), 1_100);
    wait_until("the twins", || collector.metric("flowproxy_collector_twins_total") > 0);
    wait_until("the alarm", || collector.status().to_string().contains("a copied disk or a shared key"));
    // Both are told, once both have spoken.
    let told = |end: &End| end.status()["link"].to_string().contains("Another live process");
    wait_until("the alarm at a proxy", || told(&first) && told(&second));
    stop(first);
    stop(second);
    stop(collector);
}

/// Memory that a process has in use, in bytes.
fn resident(end: &End) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", end.process.pid())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("kB") * 1_024
}

/// The collector is away until the budget is used up again and again; what is dropped meanwhile is counted to the record.
#[test]
fn row_19_the_cap_is_reached_while_the_collector_is_away() {
    const RATE: u64 = 2 << 20;
    let rig = Rig::new();
    let config = proxy_config(&rig).replace("[uplink]\n", "[uplink]\nmax_rate = \"2MiB\"\n");
    let config = config.replace("max_records = 2", "max_records = 50").replace("\"5ms\"", "\"50ms\"");
    let running = rig.start("run", "proxy.toml", &config);
    running.wait_healthy();
    let mut last = 0;
    let mut more = |count: u32| {
        feed(&running, last + 1..=last + count);
        last += count;
        running.wait_spooled(last.into());
        last
    };
    more(7_500);
    assert!(running.metric(SKIPPED) > 0, "the cap was reached");
    // The first rounds fill what is then used again.
    more(5_000);
    let before = resident(&running);
    let last = more(4_000);
    let after = resident(&running);
    // What came meanwhile is more.
    assert!(after < before + (4 << 20), "memory grows while the spool is full: {before}, then {after} bytes");
    let usage = running.status()["spool"].clone();
    assert!(usage["disk_bytes"].as_u64() <= usage["max_bytes"].as_u64(), "{usage}");

    let since = Instant::now();
    let collector = rig.jsonl_collector();
    wait_drained(&running);
    let took = since.elapsed();
    let (seen, dropped) = (at_far_end(&rig), running.metric(SKIPPED));
    assert_balance(&seen, seen.keys().next().copied().unwrap()..=last, "lost or twice");
    assert_eq!(seen.len() as u64 + dropped, u64::from(last), "at the far end + dropped = received");
    assert_eq!(labelled(&running, SKIPPED, "dropped"), dropped);
    assert_eq!(labelled(&collector, "flowproxy_collector_skipped_records_total", "dropped"), dropped);
    // 1.2 KB each; the bucket may begin full.
    let least = Duration::from_secs((seen.len() as u64 * 1_200 / RATE).saturating_sub(1));
    assert!(took >= least, "{} records in {took:?}, faster than `max_rate`", seen.len());
    running.assert_ledger();
    stop(running);
    stop(collector);
}
