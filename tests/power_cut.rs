//! Power cuts of the real processes: their files lie on a disk that loses what was not synced, and the disk and
//! the process end at the same moment. Numbers in names are rows of the fault table.
//!
//! What was promised is read from the medium as it was at the cut: every record in a frame that was durable then
//! must come out once. `FLOWPROXY_POWER_CUTS` says how many rounds there are (10), `FLOWPROXY_POWER_CUT_SEED`
//! repeats one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod fuse;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::ops::RangeInclusive;
use std::process::Command;
use std::time::Duration;

use fuse::files::Image;
use fuse::load::{
    COLLECTOR_ON_DISK, Load, assert_balance, at_far_end, counts, feed, proxy, proxy_config, wait_drained,
    written,
};
use fuse::segments::{numbers_in, promised};
use fuse::{Disk, Kind, Losses, NO_FUSE};
use support::process::Process;
use support::rig::{End, Rig};
use support::{Numbers, PATIENCE, skipped, wait_until};

/// The value of one series of a metric.
fn labelled(end: &End, series: &str) -> u64 {
    let (_, metrics) = end.get("/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("no {series}")).trim().parse().expect("a count")
}

fn disk(rig: &Rig, test: &str) -> Option<Disk> {
    let disk = Disk::mount(&rig.path("disk"));
    if disk.is_none() {
        skipped(test, NO_FUSE);
    }
    disk
}

fn rounds() -> usize {
    std::env::var("FLOWPROXY_POWER_CUTS").map_or(10, |text| text.parse().expect("a number of power cuts"))
}

fn seed() -> u64 {
    let given = std::env::var("FLOWPROXY_POWER_CUT_SEED").ok();
    given.map_or_else(rand::random, |text| text.parse().expect("a seed"))
}

/// A place for a cut: before which request, or `None` for any moment.
fn place(numbers: &mut Numbers) -> Option<(Kind, usize)> {
    let place = |kind, bound, numbers: &mut Numbers| Some((kind, numbers.below(bound)));
    match numbers.below(6) {
        0 => None,
        1 => place(Kind::Write, 400, numbers),
        2 => place(Kind::Sync, 60, numbers),
        // A segment a second: made, sealed, made a spare.
        3 => place(Kind::Names, 6, numbers),
        4 => place(Kind::SyncFolder, 4, numbers),
        _ => place(Kind::Sync, 4, numbers),
    }
}

/// Waits for the cut's place, at most for a moment.
fn wait_for_place(disk: &Disk, place: Option<(Kind, usize)>, moment: Duration) {
    match place {
        Some((kind, passing)) => {
            let stall = disk.stall_at(kind, passing);
            stall.wait(moment);
            stall.keep();
        }
        None => std::thread::sleep(moment),
    }
}

/// The disk itself: what the other tests rest on.
#[test]
fn the_disk_loses_what_was_not_synced() {
    let rig = Rig::new();
    let Some(mut disk) = disk(&rig, "the disk itself") else { return };
    let at = |name: &str| rig.path("disk").join(name);
    let put = |name: &str, bytes: &[u8], synced: bool| {
        let mut file = File::options().append(true).create(true).open(at(name)).unwrap();
        file.write_all(bytes).unwrap();
        if synced {
            file.sync_data().unwrap();
        }
        file
    };
    let sync_folder = || File::open(rig.path("disk")).unwrap().sync_all().unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    for name in ["kept", "renamed", "removed", "folder/unnamed"] {
        put(name, b"one", true);
    }
    put("empty", b"lost", false);
    sync_folder();
    put("kept", b"two", true);
    put("kept", b"lost", false);
    put("unnamed", b"lost", true);
    std::fs::rename(at("renamed"), at("elsewhere")).unwrap();
    std::fs::remove_file(at("removed")).unwrap();
    let locked = put("kept", b"", false);
    locked.try_lock().unwrap();
    assert!(File::open(at("kept")).unwrap().try_lock().is_err(), "flock holds");
    assert_eq!(std::fs::read(at("kept")).unwrap(), b"onetwolost");
    drop(locked);

    let mut sleep = Command::new("sleep");
    let process = Process::start(sleep.arg("60"), &rig.path("sleep.log"));
    disk.power_cut(process, Losses::all());
    let mut names: Vec<_> =
        std::fs::read_dir(rig.path("disk")).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["empty", "folder", "kept", "removed", "renamed"]);
    assert_eq!(std::fs::read(at("kept")).unwrap(), b"onetwo");
    assert_eq!(std::fs::read(at("removed")).unwrap(), b"one");
    assert_eq!(std::fs::read(at("empty")).unwrap(), b"");
    assert_eq!(std::fs::read_dir(at("folder")).unwrap().count(), 0);

    // A failed fsync forgets, and the next one says nothing.
    disk.set(|faults| faults.failing_syncs = 1);
    let file = put("kept", b"three", false);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    disk.set(|faults| faults.room_bytes = 64 << 10);
    let full = put("empty", &[7; 32 << 10], false).write_all(&[7; 64 << 10]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    disk.set(|faults| faults.read_only = true);
    assert_eq!(File::create(at("new")).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(disk.now()["kept"], b"onetwothree");
    assert_eq!(disk.durable()["kept"], b"onetwo");
}

#[test]
fn row_02_05_06_07_power_cuts_of_the_proxy_under_load() {
    let rig = Rig::new();
    let Some(mut disk) = disk(&rig, "power cuts of the proxy") else { return };
    let collector = rig.jsonl_collector();
    let (mut next, mut owed) = (1, BTreeSet::new());
    let seed = seed();
    let mut running = proxy(&rig);
    for round in 0..rounds() {
        let what = format!("round {round}, FLOWPROXY_POWER_CUT_SEED={seed}");
        eprintln!("{what}");
        let mut numbers = Numbers::from_seed(seed.wrapping_add(round as u64));
        let load = Load::start(running.udp(), next);
        let moment = Duration::from_millis(300 + numbers.below(1_200) as u64);
        wait_for_place(&disk, place(&mut numbers), moment);
        if numbers.below(4) == 0 {
            disk.kill(running.process);
        } else {
            owed.extend(promised(&disk.power_cut(running.process, Losses::by(&mut numbers))));
        }
        next = load.stop();
        if numbers.below(3) == 0 {
            // Once more while it starts.
            let starting = rig.start("run", "proxy.toml", &proxy_config(&rig));
            let kind = [Kind::Write, Kind::Sync, Kind::Names, Kind::SyncFolder][numbers.below(4)];
            wait_for_place(&disk, Some((kind, numbers.below(5))), Duration::from_millis(300));
            owed.extend(promised(&disk.power_cut(starting.process, Losses::by(&mut numbers))));
        }
        running = proxy(&rig);
        wait_drained(&running);
        assert_balance(&at_far_end(&rig), owed.iter().copied(), &what);
    }
    // Numbers may be damaged that were not durable; none is missing that should be there.
    assert_eq!(labelled(&collector, "flowproxy_collector_skipped_batches_total{reason=\"lost\"}"), 0);
    let seen = at_far_end(&rig).len();
    support::note(&format!(
        "{} records sent, {} durable at a cut, {seen} at the far end",
        next - 1,
        owed.len()
    ));
    assert!(running.process.terminate().success());
    assert!(collector.process.terminate().success());
}

/// Brings the collector, waits until the proxy has nothing more, and gives what is there.
fn deliver(rig: &Rig, proxy: &End) -> (End, BTreeMap<u32, usize>) {
    let collector = rig.jsonl_collector();
    wait_drained(proxy);
    (collector, at_far_end(rig))
}

fn once(numbers: RangeInclusive<u32>) -> BTreeMap<u32, usize> {
    numbers.map(|number| (number, 1)).collect()
}

fn lane(proxy: &End) -> String {
    let lanes = proxy.status()["spool"]["lanes"].clone();
    lanes.as_array().expect("lanes").last().expect("a lane")["id"].to_string()
}

/// Waits until so many records are written and everything is on the medium.
fn wait_durable(disk: &Disk, proxy: &End, records: u64) {
    proxy.wait_spooled(records);
    wait_until("a clean disk", || disk.is_clean());
}

#[test]
fn row_02_power_cut_between_write_and_fsync() {
    let rig = Rig::new();
    let Some(mut disk) = disk(&rig, "a power cut between write and fsync") else { return };
    let running = proxy(&rig);
    let before = lane(&running);
    feed(&running, 1..=100);
    wait_durable(&disk, &running, 100);
    let stall = disk.stall_at(Kind::Sync, 0);
    feed(&running, 101..=140);
    assert!(stall.wait(PATIENCE), "an fsync");
    stall.keep();
    let cut = disk.power_cut(running.process, Losses::all());
    let segments = |image: &Image| {
        image
            .iter()
            .filter(|(path, _)| path.ends_with(".fsp"))
            .flat_map(|(_, bytes)| numbers_in(bytes))
            .count()
    };
    assert_eq!(segments(&cut.durable), 100);
    assert!(segments(&cut.seen) > 100, "something was written");

    let running = proxy(&rig);
    assert_ne!(lane(&running), before, "no number is used again");
    feed(&running, 141..=150);
    let (_collector, seen) = deliver(&rig, &running);
    assert_eq!(seen, once(1..=100).into_iter().chain(once(141..=150)).collect());
}

#[test]
fn row_03_power_cut_after_send_and_commit_before_fsync() {
    let rig = Rig::new();
    let Some(mut disk) = disk(&rig, "a power cut before an fsync, after the commit") else { return };
    let collector = rig.jsonl_collector();
    let running = proxy(&rig);
    feed(&running, 1..=50);
    wait_durable(&disk, &running, 50);
    running.wait_metric("flowproxy_records_committed_total", 50);
    let stall = disk.stall_at(Kind::Sync, 0);
    feed(&running, 51..=60);
    // Sending does not wait for the disk.
    wait_until("what is not durable at the far end", || at_far_end(&rig).contains_key(&51));
    stall.keep();
    disk.power_cut(running.process, Losses::all());

    let running = proxy(&rig);
    feed(&running, 61..=70);
    running.wait_metric("flowproxy_records_committed_total", 10);
    wait_drained(&running);
    let seen = at_far_end(&rig);
    assert_balance(&seen, (1..=51).chain(61..=70), "lost or twice");
    assert_eq!(collector.metric("flowproxy_collector_skipped_batches_total"), 0);
    assert_eq!(running.metric("flowproxy_uplink_rejected_batches_total"), 0);
}

#[test]
fn row_07_power_cut_tears_the_last_write() {
    let rig = Rig::new();
    let Some(mut disk) = disk(&rig, "a power cut that tears a write") else { return };
    let (mut next, mut torn_bytes) = (1, 0);
    let mut owed = BTreeSet::new();
    let mut running = proxy(&rig);
    // What is torn may be another write than the frames', or torn at its beginning.
    for seed in 1..=50 {
        if seed > 5 && torn_bytes > 0 {
            break;
        }
        feed(&running, next..=next + 9);
        wait_durable(&disk, &running, 10);
        owed.extend(next..=next + 9);
        let stall = disk.stall_at(Kind::Sync, 0);
        feed(&running, next + 10..=next + 19);
        assert!(stall.wait(PATIENCE), "an fsync");
        stall.keep();
        disk.power_cut(running.process, Losses::torn(seed));
        next += 20;
        running = proxy(&rig);
        torn_bytes += running.status()["spool"]["found_at_start"]["torn_bytes"].as_u64().expect("a number");
    }
    assert!(torn_bytes > 0);
    let (_collector, seen) = deliver(&rig, &running);
    assert_balance(&seen, owed, "lost or twice");
}

/// What the killed process had written is with the kernel, and is counted on by the next one.
#[test]
fn row_02_power_cut_after_a_kill() {
    let rig = Rig::new();
    let Some(mut disk) = disk(&rig, "a power cut after a kill") else { return };
    let running = proxy(&rig);
    feed(&running, 1..=10);
    wait_durable(&disk, &running, 10);
    let stall = disk.stall_at(Kind::Sync, 0);
    feed(&running, 11..=20);
    assert!(stall.wait(PATIENCE), "an fsync");
    stall.keep();
    disk.kill(running.process);
    let running = proxy(&rig);
    let found = running.status()["spool"]["found_at_start"]["records"].as_u64().expect("a number");
    assert!(found > 10, "{found} records found");
    disk.power_cut(running.process, Losses::all());
    let running = proxy(&rig);
    let (_collector, seen) = deliver(&rig, &running);
    assert_eq!(seen.len() as u64, found);
    assert_balance(&seen, 1..=10, "lost or twice");
}

#[test]
fn row_04_power_cuts_of_the_collector_under_load() {
    let rig = Rig::new();
    let Some(mut disk) = disk(&rig, "power cuts of the collector") else { return };
    let seed = seed();
    // Rotates now and then.
    let config = format!("{COLLECTOR_ON_DISK}max_bytes = \"1MiB\"\n");
    let mut collector = rig.collector(&config);
    let ordinary = proxy_config(&rig).replace("disk/spool", "spool").replace("\"8MiB\"", "\"256MiB\"");
    let proxy = rig.start("run", "proxy.toml", &ordinary);
    proxy.wait_healthy();
    let mut load = Load::start(proxy.udp(), 1);
    for round in 0..rounds() {
        let what = format!("round {round}, FLOWPROXY_POWER_CUT_SEED={seed}");
        eprintln!("{what}");
        if round % 5 == 4 {
            // Hardly anything gets through between cuts: what has gathered goes first.
            let next = load.stop();
            wait_drained(&proxy);
            load = Load::start(proxy.udp(), next);
        }
        let mut numbers = Numbers::from_seed(seed.wrapping_add(round as u64));
        let moment = Duration::from_millis(300 + numbers.below(1_200) as u64);
        wait_for_place(&disk, place(&mut numbers), moment);
        if numbers.below(4) == 0 {
            disk.kill(collector.process);
        } else {
            let cut = disk.power_cut(collector.process, Losses::by(&mut numbers));
            collector = rig.collector(&config);
            let (before, after) = (written(&cut.seen), written(&disk.now()));
            assert!(after.starts_with(&before), "{what}: a reader saw what is not there any more");
            continue;
        }
        if numbers.below(2) == 0 {
            let starting = rig.start("collect", "collector.toml", &rig.collector_config(&config));
            let kind = [Kind::Write, Kind::Sync, Kind::Names, Kind::SyncFolder][numbers.below(4)];
            wait_for_place(&disk, Some((kind, numbers.below(5))), Duration::from_millis(300));
            disk.power_cut(starting.process, Losses::by(&mut numbers));
        }
        collector = rig.collector(&config);
    }
    let next = load.stop();
    // What is acked at once need not be written.
    proxy.wait_metric("flowproxy_batch_records_total", u64::from(next - 1));
    wait_drained(&proxy);
    let seen = counts(&written(&disk.now()));
    assert_balance(&seen, [], &format!("FLOWPROXY_POWER_CUT_SEED={seed}"));
    // Also a batch that was under decoding at several cuts is taken.
    let skipped = proxy.metric("flowproxy_spool_skipped_records_total");
    // Acked is committed: nothing that the proxy has let go is missing.
    let all = u64::from(next - 1);
    assert_eq!(
        (seen.len() as u64, skipped),
        (all, 0),
        "at the far end = received; FLOWPROXY_POWER_CUT_SEED={seed}"
    );
    support::note(&format!("{all} records"));
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

/// The killed collector's last group is in the file as far as the kernel goes, and the next group begins another.
#[test]
fn row_04_power_cut_of_the_collector_after_a_kill() {
    let rig = Rig::new();
    let Some(mut disk) = disk(&rig, "a power cut of the collector after a kill") else { return };
    let config = format!("{COLLECTOR_ON_DISK}max_bytes = \"64KiB\"\n");
    let ordinary = proxy_config(&rig).replace("disk/spool", "spool");
    // A batch is a group of 27 KB.
    let ordinary = ordinary.replace("max_records = 2", "max_records = 10").replace("\"5ms\"", "\"1s\"");
    let proxy = rig.start("run", "proxy.toml", &ordinary);
    proxy.wait_healthy();
    let mut next = 1;
    let mut batch = |proxy: &End| {
        feed(proxy, next..=next + 9);
        next += 10;
    };
    let everything = |disk: &Disk, last| counts(&written(&disk.now())).len() == last;
    for passing in 0..4 {
        let collector = rig.collector(&config);
        batch(&proxy);
        wait_drained(&proxy);
        let stall = disk.stall_at(Kind::Sync, passing);
        batch(&proxy);
        // Fewer fsyncs than that: nothing to cut in.
        stall.wait(Duration::from_secs(1));
        stall.keep();
        disk.kill(collector.process);
        let collector = rig.collector(&config);
        batch(&proxy);
        wait_drained(&proxy);
        wait_until("all of it", || everything(&disk, 30 * (passing + 1)));
        disk.power_cut(collector.process, Losses::all());
        drop(rig.collector(&config));
        assert_balance(
            &counts(&written(&disk.now())),
            1..=30 * (passing as u32 + 1),
            &format!("fsync {passing}"),
        );
    }
}
