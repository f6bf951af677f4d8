//! The loss ledger adds up, in total and over the exporters, whatever happens to the proxy, and no term of it can be left
//! out. Each record has a number that no other has: what comes out of the far end is the oracle.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use serde_json::Value;
use std::net::UdpSocket;
use support::datagrams::{self, Flow};
use support::ledger::{assert_needed, term};
use support::rig::{End, Rig, data_records};
use support::{loopback_socket, wait_until};

/// NetFlow v5 with one flow of this number, which is also its place in the sequence.
fn v5(number: u32) -> Vec<u8> {
    datagrams::v5(number, &[Flow::numbered(number)])
}

fn send(proxy: &End, from: &UdpSocket, numbers: std::ops::Range<u32>) {
    let many: Vec<Vec<u8>> = numbers.map(v5).collect();
    proxy.feed(from, proxy.udp(), &many);
}

fn ledger(proxy: &End) -> Value {
    proxy.status()["ledger"].clone()
}

fn total(proxy: &End, place: &str) -> i64 {
    term(&ledger(proxy)["total"], place)
}

/// What one exporter's row has.
fn of(proxy: &End, address: &str, place: &str) -> i64 {
    let ledger = ledger(proxy);
    let rows = ledger["exporters"].as_array().unwrap();
    rows.iter().find(|row| row["address"] == address).map_or(0, |row| term(row, place))
}

/// Everything that can happen to a datagram and its sets, and a link that is down.
#[test]
fn no_term_can_be_left_out() {
    let rig = Rig::new();
    let config = rig.proxy_config(
        "udp = [\"127.0.0.1:0\"]\nraw = [\"127.0.0.1:0\"]\nallow = [\"127.0.0.0/24\"]",
        &rig.endpoint(),
    );
    let proxy = rig.start("run", "proxy.toml", &format!("{config}[limit]\ndatagrams = 200\n"));
    proxy.wait_healthy();
    let (socket, other) = (loopback_socket(), UdpSocket::bind("127.0.1.9:0").unwrap());
    send(&proxy, &other, 1..4);
    send(&proxy, &socket, 1..400);
    let slow = UdpSocket::bind("127.0.0.7:0").unwrap();
    let cut = v5(9)[..20].to_vec();
    let no_template = datagrams::v9(1, 7, 1, &[datagrams::set(300, &[1; 8])]);
    let bad_set = datagrams::v9(2, 7, 1, &[datagrams::set(7, &[1; 8])]);
    proxy.feed(&slow, proxy.udp(), &[cut, no_template, bad_set, v5(500)]);
    proxy.feed(&slow, proxy.logged_address("raw"), &[b"unread".to_vec()]);
    wait_until("all that is numbered", || {
        total(&proxy, "/spool/unacked") == total(&proxy, "/records/decoded") + 1
    });
    proxy.assert_ledger();
    let places = [
        "/datagrams/received",
        "/datagrams/accepted",
        "/datagrams/refused",
        "/datagrams/limited",
        "/datagrams/unreadable",
        "/sets/received",
        "/sets/decoded",
        "/sets/held",
        "/sets/undecoded",
        "/records/decoded",
        "/records/batched",
        "/raw_datagrams/accepted",
        "/raw_datagrams/batched",
        "/spool/numbered",
        "/spool/unacked",
        "/batches/numbered",
        "/batches/unacked",
    ];
    assert_needed(&ledger(&proxy), &places);
    assert_eq!(of(&proxy, "127.0.1.9", "/datagrams/refused"), 3);
    assert_eq!(of(&proxy, "127.0.0.7", "/sets/held"), 1);
    assert!(of(&proxy, "127.0.0.1", "/datagrams/limited") > 0);

    let collector = rig.jsonl_collector();
    wait_until("all committed", || total(&proxy, "/spool/unacked") == 0);
    proxy.assert_ledger();
    assert_needed(&ledger(&proxy), &["/spool/committed", "/batches/committed"]);
    let decoded = total(&proxy, "/records/decoded");
    assert_eq!(data_records(rig.records()).len() as i64, decoded);
    assert_eq!(of(&proxy, "127.0.0.1", "/committed") + of(&proxy, "127.0.0.7", "/committed"), decoded + 1);
    let seen = collector.status();
    let proxies = seen["proxies"].as_array().unwrap();
    let exporters = proxies[0]["exporters"].as_array().unwrap();
    let committed: i64 = exporters.iter().map(|row| term(row, "/committed")).sum();
    assert_eq!(committed, decoded + 1);
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

/// kill -9 with the link down: what was spooled is recovered, and what was not is told as an estimate.
#[test]
fn after_a_kill_what_was_spooled_is_recovered_and_the_rest_is_told() {
    let rig = Rig::new();
    let proxy = rig.proxy();
    let socket = loopback_socket();
    send(&proxy, &socket, 0..100);
    wait_until("all in the spool", || total(&proxy, "/spool/unacked") == 100);
    proxy.assert_ledger();
    proxy.process.kill();

    let proxy = rig.proxy();
    proxy.assert_ledger();
    assert_eq!((total(&proxy, "/spool/recovered"), total(&proxy, "/spool/unacked")), (100, 100));
    // Seven came while nobody listened.
    send(&proxy, &socket, 107..120);
    wait_until("all in the spool", || total(&proxy, "/spool/unacked") == 113);
    proxy.assert_ledger();
    assert_eq!(total(&proxy, "/estimates/lost_in_restart/flows"), 7);
    wait_until("the exporter's row", || of(&proxy, "127.0.0.1", "/estimates/lost_in_restart") == 7);
    assert_needed(&ledger(&proxy), &["/spool/recovered", "/batches/recovered"]);

    let collector = rig.jsonl_collector();
    wait_until("all committed", || total(&proxy, "/spool/unacked") == 0);
    proxy.assert_ledger();
    assert_eq!(of(&proxy, "127.0.0.1", "/of_earlier_starts/committed"), 100);
    assert_eq!(of(&proxy, "127.0.0.1", "/committed"), 13);
    assert_eq!(data_records(rig.records()).len(), 113);
    collector.process.kill();

    // The collector dies and comes back: nothing is counted twice.
    send(&proxy, &socket, 120..150);
    let collector = rig.jsonl_collector();
    wait_until("all committed", || total(&proxy, "/spool/committed") == 143);
    proxy.assert_ledger();
    assert_eq!(data_records(rig.records()).len(), 143);
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}
