//! Row 29 of the fault table: hosts that come up in 1970, and clocks that jump, with both ends as real processes whose
//! wall clock the test sets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use support::clock::Clock;
use support::datagrams::numbered;
use support::rig::{End, Rig, data_records};
use support::{loopback_socket, skipped, wait_until};

const COMMITTED: &str = "flowproxy_records_committed_total";
const FAILURES: &str = "flowproxy_uplink_failures_total";

fn clock(rig: &Rig, test: &str) -> Option<Clock> {
    let clock = Clock::new(&rig.path("."));
    if clock.is_none() {
        skipped(test, "no library can be preloaded here");
    }
    clock
}

fn proxy(rig: &Rig, clock: &Clock) -> End {
    let config = rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    let proxy = rig.start_with("run", "proxy.toml", &config, &clock.environment());
    proxy.wait_healthy();
    proxy
}

fn send(proxy: &End, from: u32, to: u32) {
    proxy.feed(&loopback_socket(), proxy.udp(), &numbered(from, to, 20));
}

fn number(record: &Value) -> u64 {
    record["octetDeltaCount"].as_u64().expect("octets")
}

/// Each of the flows `1..=count` is at the far end once.
fn assert_each_once(rig: &Rig, proxy: &End, count: u32) -> Vec<Value> {
    proxy.wait_metric(COMMITTED, count.into());
    let records = data_records(rig.records());
    let mut seen = BTreeMap::new();
    for record in &records {
        *seen.entry(number(record)).or_insert(0) += 1;
    }
    assert_eq!(seen, (1..=count).map(|number| (number.into(), 1)).collect());
    proxy.assert_ledger();
    records
}

fn link_fault(proxy: &End) -> String {
    proxy.status()["link"].to_string()
}

#[test]
fn row_29_boot_in_1970_takes_flow_and_connects_once_the_clock_is_set() {
    let rig = Rig::new();
    let Some(clock) = clock(&rig, "a boot in 1970") else { return };
    clock.set(Duration::from_secs(60));
    let collector = rig.jsonl_collector();
    let proxy = proxy(&rig, &clock);
    let told = "This host's clock is not set";
    assert_eq!(proxy.process.log().matches(told).count(), 1, "{}", proxy.process.log());
    let (code, why) = proxy.get("/readyz");
    assert!(code == 503 && why.contains("clock"), "{code} {why}");
    send(&proxy, 1, 401);
    proxy.wait_spooled(400);
    // The other end's certificate is looked at, by this clock, at each attempt.
    wait_until("an attempt that fails by the clock", || link_fault(&proxy).contains("our clock says 1970"));
    assert_eq!(proxy.metric(COMMITTED), 0);

    clock.shift(0);
    let (ready, connected) = (proxy.get("/readyz").0, 400);
    assert_eq!(ready, 200);
    proxy.wait_metric(COMMITTED, connected);
    send(&proxy, 401, 801);
    for record in assert_each_once(&rig, &proxy, 800) {
        let received = record["receivedAt"].as_str().expect("a time");
        let early = number(&record) <= 400;
        assert_eq!(received.starts_with("1970-01-01T00:01"), early, "{record}");
        assert_eq!(record["receivedAtQuality"] == "clockNotSet", early, "{record}");
    }
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

#[test]
fn row_29_clocks_that_jump_cost_nothing() {
    const HOUR: i64 = 3_600;
    let rig = Rig::new();
    let Some(clock) = clock(&rig, "a clock that jumps") else { return };
    let far = Clock::new(&rig.path("far")).unwrap();
    let sinks = "[sink.jsonl]\npath = \"out/flows.jsonl\"\n";
    let start_collector = || {
        let config = rig.collector_config(sinks);
        let end = rig.start_with("collect", "collector.toml", &config, &far.environment());
        end.wait_healthy();
        end
    };
    let mut collector = start_collector();
    let proxy = proxy(&rig, &clock);
    let mut next = 1;
    let mut more = |proxy: &End| {
        send(proxy, next, next + 200);
        next += 200;
        u64::from(next) - 1
    };
    for (ours, theirs) in [(HOUR, 0), (-HOUR, 0), (0, HOUR), (HOUR, -HOUR), (0, 0)] {
        clock.shift(ours);
        far.shift(theirs);
        more(&proxy);
        assert_eq!(proxy.get("/healthz").0, 200);
    }
    proxy.wait_metric(COMMITTED, more(&proxy));
    assert_eq!(proxy.metric(FAILURES), 0, "a connection stays when clocks jump");

    // Off while certificates are looked at: not valid yet, and not valid any more.
    for (off, why) in [(-48 * HOUR, "is not valid before"), (24 * 365 * 40 * HOUR, "expired on")] {
        assert!(collector.process.terminate().success());
        clock.shift(off);
        collector = start_collector();
        let all = more(&proxy);
        wait_until("a refusal for the time", || link_fault(&proxy).contains(why));
        clock.shift(0);
        proxy.wait_metric(COMMITTED, all);
    }
    assert_each_once(&rig, &proxy, next - 1);
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}
