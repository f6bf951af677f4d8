//! Row 22 of the fault table: collectors that share a mark store, and such that have another one; real processes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod fuse;
mod support;

use std::ffi::OsStr;

use fuse::load::{Load, assert_balance, at_far_end, counts, feed, proxy_config, wait_drained};
use support::clock::Clock;
use support::rig::{End, Rig, free_tcp_port};
use support::{skipped, wait_until};

const COMMITTED: &str = "flowproxy_records_committed_total";
const SKIPPED: &str = "flowproxy_collector_skipped_batches_total";
const DUPLICATES: &str = "flowproxy_collector_duplicates_total";
/// As long as another store must wait, and more.
const TEN_MINUTES: i64 = 601;

/// A place that a collector can be started at, and where its marks and its file are.
struct Site {
    port: u16,
    config: String,
    name: &'static str,
    out: String,
}

impl Site {
    fn new(rig: &Rig, name: &'static str, folder: &str) -> Self {
        let port = free_tcp_port();
        let sinks = format!(
            "[state]\ndir = \"{folder}/state\"\n\n[sink.jsonl]\npath = \"{folder}/out/flows.jsonl\"\n"
        );
        let listen = format!("127.0.0.1:{}", rig.collector_address().port());
        let config = rig.collector_config(&sinks).replace(&listen, &format!("127.0.0.1:{port}"));
        Self { port, config, name, out: format!("{folder}/out/flows.jsonl") }
    }

    fn start(&self, rig: &Rig) -> End {
        let end = self.start_only(rig);
        end.wait_healthy();
        end
    }

    fn start_only(&self, rig: &Rig) -> End {
        rig.start("collect", self.name, &self.config)
    }

    fn text(&self, rig: &Rig) -> String {
        std::fs::read_to_string(rig.path(&self.out)).unwrap_or_default()
    }
}

/// A proxy that has these in its list, in this order.
fn proxy_to(rig: &Rig, sites: &[&Site], environment: &[(&str, &OsStr)]) -> End {
    let list: Vec<String> = sites.iter().map(|site| format!("\"https://localhost:{}\"", site.port)).collect();
    let config = proxy_config(rig).replace("\"8MiB\"", "\"256MiB\"");
    let config = config.replace(&format!("\"{}\"", rig.endpoint()), &format!("[{}]", list.join(", ")));
    let end = rig.start_with("run", "proxy.toml", &config, environment);
    end.wait_healthy();
    end
}

fn stop(end: End) {
    assert!(end.process.terminate().success(), "it ends cleanly");
}

fn alarm(proxy: &End) -> String {
    proxy.status()["link"]["alarm"].as_str().unwrap_or_default().to_owned()
}

/// What it shows of its only proxy.
fn alarm_at(collector: &End) -> String {
    collector.status()["proxies"][0]["alarm"].as_str().unwrap_or_default().to_owned()
}

/// One is killed or stopped, the other one takes over with the same store and file, and back again.
#[test]
fn row_22_two_collectors_in_turn_on_one_mark_store() {
    let rig = Rig::new();
    let sites = [Site::new(&rig, "one.toml", "far"), Site::new(&rig, "other.toml", "far")];
    let mut running = sites[0].start(&rig);
    let proxy = proxy_to(&rig, &[&sites[0], &sites[1]], &[]);
    let load = Load::start(proxy.udp(), 1);
    for round in 1..=6 {
        let before = proxy.metric(COMMITTED);
        wait_until("acks", || proxy.metric(COMMITTED) > before + 100);
        let next = &sites[round % 2];
        // The store has one owner at a time.
        let mut second = next.start_only(&rig);
        assert!(!second.process.wait().success(), "round {round}: both on one store");
        assert!(second.process.log().contains("far/state"), "{}", second.process.log());
        if round % 3 == 0 {
            stop(running);
        } else {
            running.process.kill();
        }
        running = next.start(&rig);
    }
    let last = load.stop() - 1;
    proxy.wait_spooled(last.into());
    wait_drained(&proxy);
    assert_balance(&counts(&sites[0].text(&rig)), 1..=last, "lost or twice");
    assert_eq!((proxy.metric(COMMITTED), running.metric(SKIPPED)), (u64::from(last), 0));
    let log = proxy.process.log();
    assert!(!log.contains("did not know this lane"), "each resumes where the other one was: {log}");
    assert_eq!((alarm(&proxy).as_str(), alarm_at(&running).as_str()), ("", ""));
    stop(proxy);
    stop(running);
}

/// A blank one is refused while the old one may come back; after ten minutes it is taken, and begins after what was acked:
/// it counts nothing as lost that it never saw.
#[test]
fn row_22_a_blank_collector_takes_over_after_ten_minutes() {
    let rig = Rig::new();
    let Some(clock) = Clock::new(&rig.path("clock")) else {
        return skipped("ten minutes without a store", "no library can be preloaded here");
    };
    let (old, blank) = (Site::new(&rig, "old.toml", "old"), Site::new(&rig, "blank.toml", "blank"));
    let collector = old.start(&rig);
    let proxy = proxy_to(&rig, &[&old, &blank], &clock.environment());
    feed(&proxy, 1..=100);
    proxy.wait_metric(COMMITTED, 100);
    collector.process.kill();
    feed(&proxy, 101..=200);
    let collector = blank.start(&rig);
    wait_until("the alarm", || alarm(&proxy).contains("another store"));
    wait_until("the alarm of the collector", || alarm_at(&collector).contains("another mark store"));
    assert_eq!((proxy.metric(COMMITTED), blank.text(&rig).as_str()), (100, ""), "nothing goes there");

    clock.leap(TEN_MINUTES);
    proxy.wait_metric(COMMITTED, 200);
    assert!(alarm(&proxy).contains("Another mark store was taken for good"), "{}", alarm(&proxy));
    feed(&proxy, 201..=300);
    wait_drained(&proxy);
    let seen = counts(&blank.text(&rig));
    assert_balance(&seen, 101..=300, "lost or twice");
    assert_eq!(seen.len(), 200, "what was acked does not come again");
    assert_eq!((collector.metric(SKIPPED), collector.metric(DUPLICATES)), (0, 0), "no false loss");
    let lanes = collector.status()["proxies"][0]["lanes"].clone();
    assert!(lanes.as_array().unwrap().iter().all(|lane| lane["lost"] == 0), "{lanes}");
    proxy.assert_ledger();
    stop(proxy);

    // From now on it is the blank one's.
    let proxy = proxy_to(&rig, &[&old, &blank], &clock.environment());
    feed(&proxy, 301..=400);
    proxy.wait_metric(COMMITTED, 100);
    assert_eq!(alarm(&proxy), "");
    assert_balance(&counts(&blank.text(&rig)), 101..=400, "lost or twice");
    stop(proxy);
    stop(collector);
}

/// Both are there, with a store each, and the proxy has delivered to the first: the second gets nothing, however often the
/// first one is away, and both ends say so.
#[test]
fn row_22_two_stores_in_one_list_are_refused_and_told() {
    let rig = Rig::new();
    let Some(clock) = Clock::new(&rig.path("clock")) else {
        return skipped("two stores in one list", "no library can be preloaded here");
    };
    let (first, second) = (Site::new(&rig, "first.toml", "first"), Site::new(&rig, "second.toml", "second"));
    let (mut collector, other) = (first.start(&rig), second.start(&rig));
    let proxy = proxy_to(&rig, &[&first, &second], &clock.environment());
    feed(&proxy, 1..=100);
    proxy.wait_metric(COMMITTED, 100);
    let mut last = 100;
    for round in 1..=3 {
        collector.process.kill();
        feed(&proxy, last + 1..=last + 100);
        last += 100;
        let refused = "keeps its marks in another store";
        wait_until("a refusal", || proxy.status()["link"]["last_error"].to_string().contains(refused));
        assert_eq!(proxy.metric(COMMITTED), u64::from(last) - 100);
        collector = first.start(&rig);
        proxy.wait_metric(COMMITTED, last.into());
        // More than ten minutes in all, but never so long without the first one.
        clock.leap(i64::from(round) * 400);
    }
    assert!(alarm(&proxy).contains("another store"), "{}", alarm(&proxy));
    assert!(alarm_at(&other).contains("another mark store"), "{}", alarm_at(&other));
    assert_balance(&counts(&first.text(&rig)), 1..=last, "lost or twice");
    assert_eq!(second.text(&rig), "");
    assert_eq!(other.status()["proxies"][0]["lanes"], serde_json::json!([]), "no lane was opened there");
    assert!(at_far_end(&rig).is_empty());
    stop(proxy);
    stop(collector);
    stop(other);
}
