//! Faults of the link between the ends and of their processes, with the row of the fault table in each name: real
//! processes, a relay that the test owns in between, a network namespace of its own where packets must vanish.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flowproxy::proto::Window;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use support::datagrams::numbered;
use support::probes::{Namespace, missing};
use support::process::run_tool;
use support::relay::Relay;
use support::rig::{End, PROXY_NAME, Rig, data_records};
use support::silent::Silent;
use support::{Numbers, loopback_socket, note, skipped, wait_until, wait_with};

const LISTEN: &str = "udp = [\"127.0.0.1:0\"]";
const COMMITTED: &str = "flowproxy_records_committed_total";
const SENT: &str = "flowproxy_uplink_sent_batches_total";
const FAILURES: &str = "flowproxy_uplink_failures_total";
const CONNECTIONS: &str = "flowproxy_uplink_connections_total";
const DUPLICATES: &str = "flowproxy_collector_duplicates_total";

/// Sends the flows numbered `from..to`.
fn send(proxy: &End, from: u32, to: u32) {
    proxy.feed(&loopback_socket(), proxy.udp(), &numbered(from, to, 20));
}

/// Waits until the collector has acked so many records, and each of the flows `1..=count` is there once.
fn assert_each_once(rig: &Rig, proxy: &End, count: u32) {
    proxy.wait_metric(COMMITTED, count.into());
    let mut seen = BTreeMap::new();
    for record in data_records(rig.records()) {
        *seen.entry(record["octetDeltaCount"].as_u64().expect("octets")).or_insert(0) += 1;
    }
    let expected: BTreeMap<u64, i32> = (1..=count).map(|number| (number.into(), 1)).collect();
    let missing = expected.keys().filter(|number| !seen.contains_key(number)).count();
    let twice = seen.values().filter(|times| **times > 1).count();
    assert_eq!((missing, twice), (0, 0), "missing and twice, of {count}");
    assert_eq!(seen, expected);
}

fn stop(proxy: End, collector: End) {
    proxy.assert_ledger();
    assert!(proxy.process.terminate().success(), "the proxy ends cleanly");
    assert!(collector.process.terminate().success(), "the collector ends cleanly");
}

fn alarm(proxy: &End) -> String {
    proxy.status()["link"]["alarm"].as_str().unwrap_or_default().to_owned()
}

/// What the collector shows of its first proxy.
fn alarm_at_collector(collector: &End) -> String {
    collector.status()["proxies"][0]["alarm"].as_str().unwrap_or_default().to_owned()
}

/// It lives and takes batches: after 60 s without any word of it while batches wait it is left and tried again, and no
/// more than its window is ever sent to it. Its successor gets everything once.
#[test]
fn row_20_a_collector_that_never_acks_is_left_and_its_window_holds() {
    const WINDOW: Window = Window { batches: 8, bytes: 1 << 20 };
    /// The watchdog's is 60 s.
    const PATIENCE: Duration = Duration::from_secs(120);
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    send(&proxy, 1, 401);
    proxy.wait_metric(COMMITTED, 400);
    assert!(collector.process.terminate().success());
    let silent = Silent::start(&rig, WINDOW);
    let mut next = 401;
    // More batches than its window takes.
    while proxy.metric("flowproxy_spool_written_batches_total") < 40 {
        send(&proxy, next, next + 100);
        next += 100;
        proxy.wait_spooled(u64::from(next) - 1);
    }
    wait_until("a full window", || silent.batches() == WINDOW.batches as usize);
    let failures = proxy.metric(FAILURES);
    wait_with(PATIENCE, "the end of the wait for an ack", || {
        assert!(silent.batches() <= silent.streams() * WINDOW.batches as usize, "the window holds");
        assert!(proxy.metric("flowproxy_uplink_in_flight_batches") <= WINDOW.batches.into());
        (proxy.metric(FAILURES) > failures).then_some(())
    });
    let log = proxy.process.log();
    assert!(log.contains("batches waited for their ack"), "{log}");
    wait_until("another connection", || silent.streams() == 2);
    // By now it is a backlog, which leaves half of the window to fresh flow.
    let both = WINDOW.batches as usize * 3 / 2;
    wait_until("a backlog's half of its window", || silent.batches() == both);
    assert_eq!(proxy.metric(COMMITTED), 400, "nothing is taken for an ack");
    drop(silent);
    let collector = rig.jsonl_collector();
    assert_each_once(&rig, &proxy, next - 1);
    assert_eq!(collector.metric(DUPLICATES), 0);
    proxy.assert_ledger();
    stop(proxy, collector);
}

/// A relay that swallows everything is a collector that says nothing at all: HTTP/2's own question, every 10 s, is
/// not answered within 10 s.
#[test]
fn row_20_a_collector_that_falls_silent_is_left_and_nothing_is_lost() {
    let rig = Rig::new();
    let collector = rig.jsonl_collector();
    let relay = Relay::start(rig.collector_address());
    let proxy = rig.proxy_to(LISTEN, &relay.endpoint());
    send(&proxy, 1, 401);
    proxy.wait_metric(COMMITTED, 400);
    relay.stall(true);
    send(&proxy, 401, 2_001);
    wait_until("the end of the silent connection", || proxy.metric(FAILURES) > 0);
    assert!(proxy.metric("flowproxy_uplink_in_flight_batches") <= 256, "the window holds");
    relay.cut();
    relay.stall(false);
    assert_each_once(&rig, &proxy, 2_000);
    stop(proxy, collector);
}

#[test]
fn row_21_half_open_connection_closes_in_40_s() {
    let why = missing(&["ip", "nft"]).map(|tool| format!("{tool} is not installed"));
    let namespace = if why.is_none() { Namespace::create() } else { None };
    let Some(namespace) = namespace else {
        return skipped("a half-open connection", &why.unwrap_or("no network namespace can be made".into()));
    };
    namespace.enter(|| {
        let rig = Rig::new();
        let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
        send(&proxy, 1, 401);
        proxy.wait_metric(COMMITTED, 400);
        let port = rig.collector_address().port();
        let rules = format!(
            "table ip drops {{ chain input {{ type filter hook input priority 0; tcp dport {port} drop; tcp sport {port} drop; }}; }}"
        );
        run_tool(Command::new("nft").arg(rules));
        let since = Instant::now();
        send(&proxy, 401, 801);
        wait_until("the end of the half-open connection", || proxy.metric(FAILURES) > 0);
        let waited = since.elapsed();
        wait_until("the end of its stream at the collector", || {
            collector.metric("flowproxy_collector_streams") == 0
        });
        note(&format!("half open: left after {waited:?}, by the collector after {:?}", since.elapsed()));
        assert!(waited <= Duration::from_secs(40), "{waited:?}");
        run_tool(Command::new("nft").args(["delete", "table", "ip", "drops"]));
        assert_each_once(&rig, &proxy, 800);
        stop(proxy, collector);
    });
}

#[test]
fn row_22_a_blank_collector_is_refused_and_both_ends_say_so() {
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    send(&proxy, 1, 401);
    proxy.wait_metric(COMMITTED, 400);
    assert!(collector.process.terminate().success());
    let state = rig.path("collector-state");
    std::fs::rename(&state, rig.path("away")).unwrap();
    let blank = rig.jsonl_collector();
    send(&proxy, 401, 801);
    wait_until("the alarm", || alarm(&proxy).contains("another store"));
    wait_until("the alarm of the collector", || alarm_at_collector(&blank).contains("another"));
    assert_eq!(proxy.metric(COMMITTED), 400, "nothing goes there");
    assert!(blank.process.terminate().success());
    std::fs::rename(&state, rig.path("blank")).unwrap();
    std::fs::rename(rig.path("away"), &state).unwrap();
    let collector = rig.jsonl_collector();
    // The blank collector has set the old one's file aside, which it found and did not write; it is the far end's.
    proxy.wait_metric(COMMITTED, 800);
    assert_eq!(collector.metric(DUPLICATES), 0);
    assert_eq!(proxy.metric(SENT), proxy.metric("flowproxy_uplink_committed_batches_total"), "nothing twice");
    stop(proxy, collector);
}

fn copy_folder(from: &Path, to: &Path) {
    run_tool(Command::new("cp").arg("-a").arg(from).arg(to));
}

#[test]
fn row_23_a_collector_restored_from_a_backup_is_told_at_both_ends_and_the_lane_goes_on() {
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    send(&proxy, 1, 401);
    proxy.wait_metric(COMMITTED, 400);
    assert!(collector.process.terminate().success());
    copy_folder(&rig.path("collector-state"), &rig.path("backup"));
    let collector = rig.jsonl_collector();
    send(&proxy, 401, 801);
    proxy.wait_metric(COMMITTED, 800);
    assert!(collector.process.terminate().success());
    std::fs::rename(rig.path("collector-state"), rig.path("away")).unwrap();
    std::fs::rename(rig.path("backup"), rig.path("collector-state")).unwrap();
    let collector = rig.jsonl_collector();
    wait_until("the alarm", || alarm(&proxy).contains("went back"));
    wait_until("the alarm of the collector", || alarm_at_collector(&collector).contains("older than"));
    send(&proxy, 801, 1_201);
    proxy.wait_metric(COMMITTED, 1_200);
    assert_eq!(collector.metric("flowproxy_collector_marks_went_back_total"), 1);
    let numbers: Vec<u64> = data_records(rig.records())
        .iter()
        .map(|record| record["octetDeltaCount"].as_u64().expect("octets"))
        .collect();
    let after = numbers.iter().filter(|number| **number > 800).count();
    assert_eq!(after, 400, "the lane goes on, each once");
    stop(proxy, collector);
}

/// Delays, cuts, half-closes and stalls at random places, by seed.
#[test]
fn row_04_24_each_record_once_over_a_link_that_delays_and_breaks() {
    const ROUNDS: usize = 8;
    let seed = std::env::var("FLOWPROXY_LINK_SEED").map_or_else(|_| rand::random(), |it| it.parse().unwrap());
    note(&format!("FLOWPROXY_LINK_SEED={seed}"));
    let rig = Rig::new();
    let collector = rig.jsonl_collector();
    let relay = Relay::start(rig.collector_address());
    let proxy = rig.proxy_to(LISTEN, &relay.endpoint());
    let mut numbers = Numbers::from_seed(seed);
    let mut next = 1;
    for _ in 0..ROUNDS {
        // The first ack ends the waiting for longer and longer.
        proxy.wait_metric(COMMITTED, u64::from(next) - 1);
        relay.delay(Duration::from_millis(numbers.below(200) as u64));
        let connections = relay.connections();
        // A batch each, as `max_delay` closes it.
        for _ in 0..1 + numbers.below(5) {
            let more = 20 * (1 + numbers.below(20) as u32);
            send(&proxy, next, next + more);
            next += more;
            std::thread::sleep(Duration::from_millis(60));
        }
        match numbers.below(3) {
            0 => relay.half_close(),
            1 => relay.cut(),
            _ => {
                relay.stall(true);
                std::thread::sleep(Duration::from_millis(numbers.below(300) as u64));
                relay.stall(false);
                relay.cut();
            }
        }
        wait_until("another connection", || relay.connections() > connections);
    }
    assert_each_once(&rig, &proxy, next - 1);
    let (sent, duplicates) = (proxy.metric(SENT), collector.metric(DUPLICATES));
    note(&format!("{} connections, {sent} batches sent, {duplicates} twice", relay.connections()));
    stop(proxy, collector);
}

/// The collector asks for the end of the stream under load, again and again.
#[test]
fn row_25_a_drain_loses_nothing_and_nothing_acked_is_sent_again() {
    let rig = Rig::new();
    let first = rig.jsonl_collector();
    let proxy = rig.proxy();
    let address = proxy.udp();
    let over = AtomicBool::new(false);
    let (sent, collector) = std::thread::scope(|scope| {
        let over = &over;
        let load = scope.spawn(move || {
            let (socket, mut next) = (loopback_socket(), 1);
            while !over.load(Ordering::Relaxed) {
                for datagram in numbered(next, next + 40, 20) {
                    socket.send_to(&datagram, address).unwrap();
                }
                next += 40;
                std::thread::sleep(Duration::from_millis(5));
            }
            next - 1
        });
        let mut collector = first;
        for round in 1..=5 {
            let before = proxy.metric(COMMITTED);
            wait_until("acks", || proxy.metric(COMMITTED) > before + 200);
            assert!(collector.process.terminate().success(), "round {round}");
            assert_eq!(proxy.metric(SENT), proxy.metric("flowproxy_uplink_committed_batches_total"));
            collector = rig.jsonl_collector();
        }
        over.store(true, Ordering::Relaxed);
        (load.join().unwrap(), collector)
    });
    assert_each_once(&rig, &proxy, sent);
    assert_eq!(proxy.metric(SENT), proxy.metric("flowproxy_uplink_committed_batches_total"), "nothing twice");
    assert_eq!(collector.metric(DUPLICATES), 0);
    stop(proxy, collector);
}

/// The same for connections that end by their age: the next one is there before the old one goes.
#[test]
fn row_25_an_old_connection_gives_way_under_load() {
    let rig = Rig::new();
    let collector = rig.jsonl_collector();
    let config = rig.proxy_config(LISTEN, &rig.endpoint());
    let config = config.replace("[uplink]\n", "[uplink]\nmax_connection_age = \"1s\"\n");
    let proxy = rig.start("run", "proxy.toml", &config);
    proxy.wait_healthy();
    let mut next = 1;
    while proxy.metric(CONNECTIONS) < 4 {
        send(&proxy, next, next + 200);
        next += 200;
    }
    assert_each_once(&rig, &proxy, next - 1);
    assert_eq!(proxy.metric(SENT), proxy.metric("flowproxy_uplink_committed_batches_total"), "nothing twice");
    assert_eq!((proxy.metric(FAILURES), collector.metric(DUPLICATES)), (0, 0));
    stop(proxy, collector);
}

/// Sends SIGHUP and waits until its outcome is shown; gives the fault, empty if there is none.
fn reload(proxy: &End) -> String {
    let shown = || proxy.status()["reload"].clone();
    let before = shown();
    proxy.process.signal("HUP");
    wait_until("the outcome of a reload", || shown() != before);
    let after = shown();
    after["fault"].as_str().or(after["error"].as_str()).unwrap_or_default().to_owned()
}

/// A pair of the rig's CA for the proxy, out of date.
fn expired_pair(rig: &Rig, cert: &Path, key: &Path) {
    let ca = |name: &str| std::fs::read_to_string(rig.path(&format!("certs/{name}"))).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&ca("ca.pem"), KeyPair::from_pem(&ca("ca.key")).unwrap()).unwrap();
    let mut params = CertificateParams::new([PROXY_NAME.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_after = rcgen::date_time_ymd(2021, 3, 4);
    let own = KeyPair::generate().unwrap();
    std::fs::write(cert, params.signed_by(&own, &issuer).unwrap().pem()).unwrap();
    std::fs::write(key, own.serialize_pem()).unwrap();
}

#[test]
fn row_28_a_bad_pair_is_refused_and_the_old_one_serves_on() {
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    send(&proxy, 1, 201);
    let file = |name: &str| rig.path(&format!("certs/{name}"));
    let (cert, key) = (file("site-1.example.pem"), file("site-1.example.key"));
    let (good_cert, good_key) = (std::fs::read(&cert).unwrap(), std::fs::read(&key).unwrap());
    std::fs::write(&cert, &good_cert[..good_cert.len() / 2]).unwrap();
    let fault = reload(&proxy);
    assert!(fault.contains("site-1.example.pem"), "half written: {fault}");
    std::fs::write(&cert, &good_cert).unwrap();
    std::fs::copy(file("collector.key"), &key).unwrap();
    let fault = reload(&proxy);
    assert!(fault.contains("site-1.example.key"), "not the certificate's: {fault}");
    expired_pair(&rig, &cert, &key);
    let fault = reload(&proxy);
    assert!(fault.contains("site-1.example.pem") && fault.contains("expired on 2021-03-04"), "{fault}");
    // With the files as they are, the old pair still makes connections.
    assert!(collector.process.terminate().success());
    let collector = rig.jsonl_collector();
    send(&proxy, 201, 401);
    proxy.wait_metric(COMMITTED, 400);
    // Nothing begins with such a pair.
    let mut second = rig.start("run", "second.toml", &rig.proxy_config(LISTEN, &rig.endpoint()));
    assert!(!second.process.wait().success());
    assert!(second.process.log().contains("expired on 2021-03-04"), "{}", second.process.log());
    std::fs::write(&cert, &good_cert).unwrap();
    std::fs::write(&key, &good_key).unwrap();
    assert_eq!(reload(&proxy), "");
    send(&proxy, 401, 601);
    assert_each_once(&rig, &proxy, 600);
    stop(proxy, collector);
}

fn open_files(proxy: &End) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", proxy.process.pid())).unwrap().count()
}

#[test]
fn row_30_a_hundred_reloads_lose_no_packet_and_leak_no_file() {
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let good = std::fs::read_to_string(rig.path("proxy.toml")).unwrap();
    send(&proxy, 1, 201);
    proxy.wait_metric(COMMITTED, 200);
    let before = open_files(&proxy);
    let taken = "limit = { datagrams = 1000000 }\n".to_owned() + &good;
    let listed = good.replace("[listen]\n", "[listen]\nallow = [\"127.0.0.0/8\"]\n");
    let moved = good.replace("[spool]\ndir = \"spool\"", "[spool]\ndir = \"elsewhere\"");
    let other_port = good.replace("127.0.0.1:0\"]", "127.0.0.1:1\"]");
    let configs = [&taken, &listed, &good, &moved, &good.replace("50ms", "never"), &good, &other_port];
    let mut next = 201;
    for round in 0..100 {
        std::fs::write(rig.path("proxy.toml"), configs[round % configs.len()]).unwrap();
        proxy.process.signal("HUP");
        send(&proxy, next, next + 40);
        next += 40;
    }
    std::fs::write(rig.path("proxy.toml"), &listed).unwrap();
    assert_eq!(reload(&proxy), "", "another list of exporters is taken");
    std::fs::write(rig.path("proxy.toml"), &other_port).unwrap();
    wait_until("the fault of the last reload", || {
        proxy.process.signal("HUP");
        proxy.status()["reload"].to_string().contains("listen.udp")
    });
    std::fs::write(rig.path("proxy.toml"), &moved).unwrap();
    assert!(reload_text(&proxy).contains("spool.dir"), "another spool needs a restart");
    assert_each_once(&rig, &proxy, next - 1);
    let dropped = proxy.metric("flowproxy_kernel_dropped_datagrams_total");
    assert_eq!(dropped, 0, "no packet is lost");
    wait_until(&format!("{before} open files again, now {}", open_files(&proxy)), || {
        open_files(&proxy) <= before
    });
    stop(proxy, collector);
}

fn reload_text(proxy: &End) -> String {
    reload(proxy);
    proxy.status()["reload"].to_string()
}
