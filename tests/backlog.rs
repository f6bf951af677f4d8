//! A backlog beside fresh flow: real processes, the order at the far end, the rate, and what an operator is shown.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod fuse;
mod support;

use std::time::{Duration, Instant};

use flowproxy::proto::Window;
use fuse::load::{assert_balance, counts, feed, proxy_config, wait_drained};
use serde_json::Value;
use support::rig::{End, Rig};
use support::silent::Silent;
use support::{note, wait_until};

const SENT_BYTES: &str = "flowproxy_uplink_sent_bytes_total";
/// Records in a batch, and bytes of one: noise that cannot be packed.
const EACH: usize = 2;
const RECORD_BYTES: u64 = 1_200;

/// Old after a second, and slow: 64 KiB are 27 batches.
fn config(rig: &Rig, max_rate: &str) -> String {
    let config = proxy_config(rig).replace("\"8MiB\"", "\"256MiB\"");
    config.replace("[uplink]\n", &format!("[uplink]\nfresh_after = \"1s\"\nmax_rate = \"{max_rate}\"\n"))
}

fn start(rig: &Rig, max_rate: &str) -> End {
    let end = rig.start("run", "proxy.toml", &config(rig, max_rate));
    end.wait_healthy();
    end
}

fn stop(end: End) {
    assert!(end.process.terminate().success(), "it ends cleanly");
}

fn oldest_unsent_ms(proxy: &End) -> u64 {
    proxy.status()["link"]["oldest_unsent_ms"].as_u64().unwrap_or(0)
}

fn lanes(proxy: &End) -> usize {
    proxy.status()["spool"]["lanes"].as_array().expect("lanes").len()
}

/// The numbers at the far end in their order, each with the time at which it was received.
fn order(rig: &Rig) -> Vec<(u32, String)> {
    let number = |record: &Value| record["octetDeltaCount"].as_u64().expect("a number") as u32;
    let received = |record: &Value| record["receivedAt"].as_str().expect("a time").to_owned();
    rig.records().iter().map(|record| (number(record), received(record))).collect()
}

/// The lane for what is fresh is there before anything of the backlog goes, which gets half of the window: what comes later
/// finds room, though nothing is acked.
#[test]
fn a_backlog_leaves_half_of_the_window_to_fresh_flow() {
    const WINDOW: Window = Window { batches: 8, bytes: 1 << 20 };
    let rig = Rig::new();
    let proxy = start(&rig, "100MiB");
    feed(&proxy, 1..=100);
    proxy.wait_spooled(100);
    wait_until("the age of the backlog", || oldest_unsent_ms(&proxy) >= 1_000);
    let silent = Silent::start(&rig, WINDOW);
    wait_until("the backlog's lane", || silent.opens().len() == 2);
    let lanes: Vec<_> = silent.opens().iter().map(|open| (open.lane, open.current, open.next_seq)).collect();
    assert!(matches!(lanes[..], [(1, true, 1), (2, false, 51..)]), "{lanes:?}");
    wait_until("its half of the window", || silent.batches() == 4);
    feed(&proxy, 101..=200);
    wait_until("the other half", || silent.batches() == 8);
    assert_eq!((silent.batches_of(1), silent.batches_of(2)), (4, 4));
    proxy.process.kill();
}

/// Two lives without a link leave 600 and 900 records. When it comes, fresh ones do not wait behind them, and do not stop
/// them either: they go in turn. Then the limit goes, without a restart, and the rest comes, oldest first.
#[test]
fn fresh_flow_goes_beside_a_backlog_which_drains_oldest_first() {
    const OLD: u32 = 1_500;
    const FRESH: std::ops::Range<u32> = 2_001..2_301;
    let rig = Rig::new();
    let before = start(&rig, "64KiB");
    feed(&before, 1..=600);
    before.wait_spooled(600);
    stop(before);
    let proxy = start(&rig, "64KiB");
    feed(&proxy, 601..=OLD);
    proxy.wait_spooled(900);
    wait_until("the age of the backlog", || oldest_unsent_ms(&proxy) >= 1_000);
    assert_eq!(lanes(&proxy), 2);

    let (since, collector) = (Instant::now(), rig.jsonl_collector());
    wait_until("a lane for what is fresh", || lanes(&proxy) == 3);
    feed(&proxy, FRESH.start..=FRESH.end - 1);
    proxy.wait_spooled(1_200);
    // From here on there is something fresh to send until the last of it is sent.
    let (begun, in_flight) = (rig.records().len(), proxy.metric("flowproxy_uplink_in_flight_batches"));
    let shown = oldest_unsent_ms(&proxy);
    assert!(shown >= 1_000, "{shown} ms: the backlog is the oldest");
    wait_until("all that is fresh", || {
        let text = rig.text();
        FRESH.len() == counts(&text).range(FRESH).count()
    });
    let seen = order(&rig);
    let (bytes, took) = (proxy.metric(SENT_BYTES), since.elapsed());
    assert!(seen.len() < 1_500, "the backlog had drained before");
    let is_fresh = |place: &usize| FRESH.contains(&seen[*place].0);
    let last = (0..seen.len()).rfind(is_fresh).unwrap();
    let fresh = (begun..=last).filter(is_fresh).count();
    let old = (begun..=last).filter(|place| !is_fresh(place)).count();
    note(&format!(
        "{fresh} fresh and {old} old records in turn, {} before, {bytes} bytes in {took:?}",
        begun
    ));
    // What is in flight already may all be old, and is looked at once a second.
    let slack = (in_flight as usize + 30) * EACH;
    assert!(fresh >= 50, "{fresh} of them came too early to tell");
    assert!(old <= fresh + slack, "{old} old records beside {fresh} fresh ones");
    assert!(old + slack >= fresh, "{old} old records beside {fresh} fresh ones");
    let least = Duration::from_secs((seen.len() as u64 * RECORD_BYTES / (64 << 10)).saturating_sub(1));
    assert!(took >= least, "{} records in {took:?}, faster than `max_rate`", seen.len());

    std::fs::write(rig.path("proxy.toml"), config(&rig, "100MiB")).unwrap();
    proxy.process.signal("HUP");
    wait_drained(&proxy);
    wait_until("no backlog", || oldest_unsent_ms(&proxy) == 0);
    let seen = order(&rig);
    assert_balance(&counts(&rig.text()), (1..=OLD).chain(FRESH), "lost or twice");
    assert_eq!(seen.len(), OLD as usize + FRESH.len());
    let of = |fresh: bool| seen.iter().filter(move |(number, _)| FRESH.contains(number) == fresh);
    assert!(of(false).map(|(number, _)| *number).eq(1..=OLD), "oldest first, over both lanes");
    assert!(of(true).map(|(number, _)| *number).eq(FRESH));
    // When they were received, not when they were sent.
    assert!(of(false).map(|(_, at)| at).is_sorted());
    assert!(of(false).map(|(_, at)| at).max() < of(true).map(|(_, at)| at).min());
    proxy.assert_ledger();
    stop(proxy);
    stop(collector);
}
