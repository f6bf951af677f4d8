//! Row 13 of the fault table, a running machine that there is twice: real processes that draw the same chance, and so
//! write the same lane, as a machine and its snapshot do.
//!
//! A snapshot brings back the memory of the process with the disk. What it brings back of a proxy that has just started is
//! what another process has that starts on a copy of the disk and draws the same random bytes: the same lane from its
//! first batch on, and the same instance. So the two are one machine and its snapshot, taken right after the start.

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
use std::path::Path;
use std::process::Command;

use fuse::load::{assert_balance, at_far_end, feed, proxy_config, wait_drained};
use fuse::segments::numbers_in;
use support::clock::Chance;
use support::process::run_tool;
use support::relay::Relay;
use support::rig::{End, Rig};
use support::{skipped, wait_for, wait_until};

const SKIPPED: &str = "flowproxy_spool_skipped_records_total";
const SET_ASIDE: &str = "flowproxy_uplink_lanes_set_aside_total";

/// A disk with a lane that was never delivered, and a copy of it; and the chance of both machines.
fn machine(rig: &Rig) -> Option<Chance> {
    let chance = Chance::new(&rig.path("chance"), "13");
    if chance.is_none() {
        skipped("a snapshot", "no library can be preloaded here");
        return None;
    }
    let before = rig.start("run", "proxy.toml", &proxy_config(rig));
    before.wait_healthy();
    feed(&before, 1..=100);
    before.wait_spooled(100);
    stop(before);
    std::fs::create_dir(rig.path("copy")).unwrap();
    run_tool(Command::new("cp").arg("-a").arg(rig.path("disk/spool")).arg(rig.path("copy")));
    chance
}

fn start(rig: &Rig, folder: &str, chance: &Chance, endpoint: &str, more: &str) -> End {
    let config = proxy_config(rig).replace(&rig.endpoint(), endpoint);
    let config = config.replace("disk/spool", &format!("{folder}/spool"));
    let config = config.replace("[uplink]\n", &format!("[uplink]\n{more}"));
    let end = rig.start_with("run", &format!("{folder}.toml"), &config, &chance.environment());
    end.wait_healthy();
    end
}

fn stop(end: End) {
    assert!(end.process.terminate().success(), "it ends cleanly");
}

/// The lane that it writes; between two it has none for a moment.
fn lane(proxy: &End) -> String {
    wait_for("a lane of its own", || {
        let lanes = proxy.status()["spool"]["lanes"].clone();
        let current = lanes.as_array().expect("lanes").iter().find(|lane| lane["current"] == true);
        current.map(|lane| lane["id"].to_string())
    })
}

fn alarm(proxy: &End) -> String {
    proxy.status()["link"]["alarm"].as_str().unwrap_or_default().to_owned()
}

/// The numbers that lie in the folders set aside in a spool.
fn set_aside(spool: &Path) -> BTreeSet<u32> {
    let entries = |folder: &Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let folders =
        entries(spool).filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("forked-"));
    let files: Vec<_> = folders.collect::<Vec<_>>().iter().flat_map(|folder| entries(folder)).collect();
    let segments = files.iter().filter(|path| path.extension().is_some_and(|it| it == "fsp"));
    segments.flat_map(|path| numbers_in(&std::fs::read(path).unwrap())).collect()
}

/// The machine has gone on and delivered 150 batches of its lane; then its snapshot is resumed instead, and makes so many
/// batches of the same numbers before it reaches the collector.
fn snapshot(records: u32, expected: &str) {
    let rig = Rig::new();
    let Some(chance) = machine(&rig) else { return };
    let collector = rig.jsonl_collector();
    let first = start(&rig, "disk", &chance, &rig.endpoint(), "");
    let forked = lane(&first);
    feed(&first, 1_001..=1_300);
    wait_drained(&first);
    first.process.kill();
    stop(collector);

    let resumed = start(&rig, "copy", &chance, &rig.endpoint(), "");
    assert_eq!(lane(&resumed), forked, "two writers of one lane");
    feed(&resumed, 2_001..=2_000 + records);
    resumed.wait_spooled(records.into());
    let collector = rig.jsonl_collector();
    wait_until("the alarm", || alarm(&resumed).contains(expected));
    wait_until("another lane", || lane(&resumed) != forked);
    feed(&resumed, 3_001..=3_100);
    resumed.wait_spooled(u64::from(records) + 100);
    wait_drained(&resumed);

    let seen = at_far_end(&rig);
    assert_balance(&seen, (1..=100).chain(1_001..=1_300).chain(3_001..=3_100), "lost or twice");
    assert_eq!(seen.len(), 500, "nothing of the second writer is taken for the first one's");
    assert_eq!(set_aside(&rig.path("copy/spool")), (2_001..=2_000 + records).collect());
    assert_eq!((resumed.metric(SET_ASIDE), resumed.metric(SKIPPED)), (1, records.into()));
    resumed.assert_ledger();
    stop(resumed);
    stop(collector);
}

#[test]
fn row_13_a_snapshot_that_has_written_more_than_the_machine_finds_another_digest() {
    snapshot(400, "has had two writers");
}

#[test]
fn row_13_a_snapshot_that_has_written_less_finds_a_mark_past_its_end() {
    snapshot(60, "what is unacked is set aside");
}

/// Machine and snapshot both run on, both connected. What the second one writes of the lane that the first has delivered
/// is set aside when the first ack speaks of it.
#[test]
fn row_13_a_machine_and_its_snapshot_both_run_on() {
    both_run_on("", |relay, second| {
        relay.stall(false);
        feed(second, 2_001..=2_300);
        300
    });
}

/// The same when that ack speaks of a batch that the second one has, but has not sent yet: its bytes are looked up before
/// it is believed.
#[test]
fn row_13_a_snapshot_that_sends_slowly_looks_up_what_an_ack_speaks_of() {
    both_run_on("max_rate = \"10KiB\"\n", |relay, second| {
        feed(second, 2_001..=2_300);
        second.wait_spooled(300);
        relay.stall(false);
        300
    });
}

/// `tell` gives the second one its records, as many as it says, and an end to the stall of its link.
fn both_run_on(more: &str, tell: impl FnOnce(&Relay, &End) -> u32) {
    let rig = Rig::new();
    let Some(chance) = machine(&rig) else { return };
    let collector = rig.jsonl_collector();
    let relay = Relay::start(rig.collector_address());
    let first = start(&rig, "disk", &chance, &rig.endpoint(), "");
    let second = start(&rig, "copy", &chance, &relay.endpoint(), more);
    wait_drained(&first);
    wait_drained(&second);
    let forked = lane(&first);
    assert_eq!(lane(&second), forked, "two writers of one lane");
    feed(&first, 1_001..=1_200);
    wait_drained(&first);
    relay.stall(true);
    let last = 2_000 + tell(&relay, &second);
    wait_until("the alarm", || alarm(&second).contains("set aside"));
    wait_until("another lane", || lane(&second) != forked);
    feed(&first, 3_001..=3_100);
    feed(&second, 4_001..=4_050);
    second.wait_spooled(u64::from(last) - 2_000 + 50);
    wait_drained(&first);
    wait_drained(&second);

    let (seen, aside) = (at_far_end(&rig), set_aside(&rig.path("copy/spool")));
    let whole = (1..=100).chain(1_001..=1_200).chain(3_001..=3_100).chain(4_001..=4_050);
    assert_balance(&seen, whole, "lost or twice");
    let lost: Vec<u32> = (2_001..=last).filter(|it| seen.contains_key(it) == aside.contains(it)).collect();
    assert!(lost.is_empty(), "neither delivered nor set aside, or both: {lost:?}");
    assert!(aside.contains(&2_001));
    assert_eq!(second.metric(SKIPPED), aside.len() as u64, "none of them is taken for acked");
    assert_eq!((first.metric(SET_ASIDE), second.metric(SET_ASIDE)), (0, 1));
    first.assert_ledger();
    second.assert_ledger();
    stop(first);
    stop(second);
    stop(collector);
}
