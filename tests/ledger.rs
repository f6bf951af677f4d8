//! The loss ledger adds up, in total and over the exporters, whatever becomes of a datagram, at a kill and after it, and
//! no term of it can be left out. What comes out of the far end is the oracle. What the spool's disk can cost is in
//! `ledger_spool.rs`, and the equations after each fault of the table are asked for by the tests of those.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use serde_json::Value;
use std::net::{SocketAddr, UdpSocket};
use support::datagrams::{self, Bytes, Flow};
use support::ledger::{
    OF_A_RESTART, OF_A_STOP, OF_COMMITS, OF_DATAGRAMS, OF_FOUND, OF_OPEN_BATCHES, assert_needed, term,
};
use support::relay::Relay;
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
    term(&ledger(proxy), &format!("/total{place}"))
}

/// What one exporter's row has.
fn of(proxy: &End, address: &str, place: &str) -> i64 {
    let ledger = ledger(proxy);
    let rows = ledger["exporters"].as_array().unwrap();
    rows.iter().find(|row| row["address"] == address).map_or(0, |row| term(row, place))
}

/// What cannot be read, of each protocol's header.
fn unreadable() -> Vec<Vec<u8>> {
    let ipfix_of_15_bytes = Bytes::default().u16(10).u16(15).raw(&[0; 12]).0;
    let agent_of_no_family = Bytes::default().u32(5).u32(9).raw(&[0; 20]).0;
    vec![v5(9)[..20].to_vec(), vec![0x12; 40], ipfix_of_15_bytes, agent_of_no_family]
}

/// sFlow with these samples, each its format and its content.
fn sflow(samples: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let head = Bytes::default().u32(5).u32(1).raw(&[192, 0, 2, 1]).u32(7).u32(42).u32(1_000);
    let head = head.u32(samples.len() as u32);
    let framed = |bytes: Bytes, (format, content): &(u32, Vec<u8>)| {
        bytes.u32(*format).u32(content.len() as u32).raw(content)
    };
    samples.iter().fold(head, framed).0
}

/// Words of a sample before its records, how many those are said to be, and one of them.
fn sample(words: usize, records: u32) -> Vec<u8> {
    let start = Bytes((0..words).flat_map(|_| 1_u32.to_be_bytes()).collect());
    start.u32(records).u32(1_001).u32(16).raw(&[0; 16]).0
}

/// Sets and samples that cannot be read whole, one of each reason that needs only one datagram.
fn undecodable() -> Vec<Vec<u8>> {
    let mut cut = datagrams::ipfix(1, 11, &[datagrams::set(2, &datagrams::template(256, &[(1, 4)]))]);
    cut[2..4].copy_from_slice(&1_000_u16.to_be_bytes());
    let trailing = [datagrams::ipfix(2, 11, &[]), vec![1, 2, 3, 4, 5]].concat();
    let mut count = v5(9);
    count[3] = 2;
    let too_long = Bytes::default().u16(256).u16(400).raw(&[0; 8]).0;
    let variable = datagrams::template(400, &[(96, 65_535)]);
    let overrun = [datagrams::set(2, &variable), datagrams::set(400, &[200, 1, 2, 3])];
    let mut short_sample = sflow(&[(9, vec![1; 4])]);
    let length = short_sample.len() - 8;
    short_sample[length..length + 4].copy_from_slice(&5_u32.to_be_bytes());
    let scopes = Bytes::default().u16(500).u16(2).u16(0).u16(149).u16(4).u16(41).u16(8).0;
    let templates = [
        datagrams::template(300, &[(8, 4), (12, 4)])[..8].to_vec(),
        datagrams::template(100, &[(8, 4)]),
        datagrams::template(300, &[(8, 0)]),
        datagrams::template(300, &[(8, 40_000), (12, 40_000)]),
    ];
    let mut all = vec![
        cut,
        trailing,
        count,
        datagrams::v9(1, 7, 1, &[too_long]),
        datagrams::v9(2, 7, 1, &[datagrams::set(7, &[1; 8])]),
        datagrams::ipfix(3, 11, &overrun),
        short_sample,
        sflow(&[(1, sample(7, 3))]),
        datagrams::ipfix(4, 11, &[datagrams::set(3, &scopes)]),
    ];
    all.extend(templates.map(|template| datagrams::v9(3, 7, 1, &[datagrams::set(0, &template)])));
    all
}

/// Records of every kind but flows, and a sample of a kind that nobody knows.
fn of_every_kind() -> Vec<Vec<u8>> {
    let options = Bytes::default().u16(301).u16(4).u16(4).u16(2).u16(4).u16(82).u16(8).0;
    let interface = Bytes::default().u32(5).raw(b"Gi0/0/1\0").0;
    vec![
        datagrams::v9(9, 7, 2, &[datagrams::set(1, &options), datagrams::set(301, &interface)]),
        sflow(&[(1, sample(7, 1)), (2, sample(2, 1)), (5, sample(7, 1)), (4_300 << 12 | 1, vec![7; 8])]),
    ]
}

/// More new templates than an address may tell at once.
fn too_many_templates() -> Vec<u8> {
    let templates = (0..4_200).map(|id| datagrams::template(1_000 + id, &[(8, 4)]));
    datagrams::v9(1, 7, 4_200, &[datagrams::set(0, &templates.collect::<Vec<_>>().concat())])
}

/// Sets without a template, more than are held for an address.
fn too_much_to_hold() -> Vec<Vec<u8>> {
    (0..66).map(|number| datagrams::v9(number, 7, 1, &[datagrams::set(300, &[1; 65_000])])).collect()
}

/// The config of a proxy that takes everything, some addresses excepted, and closes no batch by its age.
fn taking_all(rig: &Rig, endpoint: &str) -> String {
    let listen = "udp = [\"127.0.0.1:0\"]\nraw = [\"127.0.0.1:0\"]\nallow = [\"127.0.0.0/24\"]";
    let config = rig.proxy_config(listen, endpoint).replace("\"50ms\"", "\"1h\"");
    format!("{config}[limit]\ndatagrams = 200\n[shutdown]\ndeadline = \"1m\"\n")
}

/// Everything that can happen to a datagram and its sets, a link that is down, and an end in order.
#[test]
fn what_can_become_of_a_datagram() {
    let rig = Rig::new();
    let relay = Relay::start(rig.collector_address());
    let config = taking_all(&rig, &relay.endpoint());
    let proxy = rig.start("run", "proxy.toml", &config);
    proxy.wait_healthy();
    let at = |host: u8| UdpSocket::bind(SocketAddr::from(([127, 0, 0, host], 0))).unwrap();
    let (socket, other) = (loopback_socket(), UdpSocket::bind("127.0.1.9:0").unwrap());
    proxy.feed(&at(7), proxy.logged_address("raw"), &[b"unread".to_vec()]);
    send(&proxy, &socket, 1..400);
    proxy.assert_ledger();
    assert_needed(&ledger(&proxy), OF_OPEN_BATCHES);

    // What is open is closed by its age from now on.
    std::fs::write(rig.path("proxy.toml"), config.replace("\"1h\"", "\"50ms\"")).unwrap();
    proxy.process.signal("HUP");
    send(&proxy, &other, 1..4);
    for datagrams in [unreadable(), undecodable(), of_every_kind(), vec![v5(500)]] {
        proxy.feed(&at(7), proxy.udp(), &datagrams);
    }
    proxy.feed(&at(8), proxy.udp(), &[too_many_templates()]);
    let holder = at(9);
    too_much_to_hold().chunks(2).for_each(|some| proxy.feed(&holder, proxy.udp(), some));
    let spooled = || total(&proxy, "/spool/unacked") == total(&proxy, "/records/decoded") + 1;
    wait_until("all that is numbered", spooled);
    proxy.assert_ledger();
    assert_needed(&ledger(&proxy), OF_DATAGRAMS);
    assert_eq!(of(&proxy, "127.0.1.9", "/datagrams/refused"), 3);
    assert_eq!(of(&proxy, "127.0.0.7", "/datagrams/unreadable"), unreadable().len() as i64);
    assert_eq!(of(&proxy, "127.0.0.9", "/sets/held") + of(&proxy, "127.0.0.9", "/sets/undecoded"), 66);
    assert!(of(&proxy, "127.0.0.1", "/datagrams/limited") > 0);

    let collector = rig.jsonl_collector();
    wait_until("all committed", || total(&proxy, "/spool/unacked") == 0);
    proxy.assert_ledger();
    assert_needed(&ledger(&proxy), OF_COMMITS);
    let decoded = total(&proxy, "/records/decoded");
    assert_eq!(rig.records().len() as i64, decoded);
    assert_eq!(of(&proxy, "127.0.0.1", "/committed") + of(&proxy, "127.0.0.7", "/committed"), decoded + 1);
    let seen = collector.status();
    let proxies = seen["proxies"].as_array().unwrap();
    let exporters = proxies[0]["exporters"].as_array().unwrap();
    let committed: i64 = exporters.iter().map(|row| row["committed"].as_i64().unwrap()).sum();
    assert_eq!(committed, decoded + 1);

    // It waits for acks of what came last, and tells meanwhile what became of what it held.
    relay.stall(true);
    send(&proxy, &at(10), 1..20);
    proxy.process.signal("TERM");
    wait_until("what was held to be given up", || total(&proxy, "/sets/held") == 0);
    proxy.assert_ledger();
    assert_needed(&ledger(&proxy), OF_A_STOP);
    relay.stall(false);
    let mut process = proxy.process;
    assert!(process.wait().success());
    assert_eq!(rig.records().len() as i64, decoded + 19);
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
    let collector = rig.jsonl_collector();
    wait_until("all committed", || total(&proxy, "/spool/unacked") == 0);
    proxy.assert_ledger();
    assert_needed(&ledger(&proxy), OF_A_RESTART);
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

/// What was acked when the process was killed is found to be acked, though nothing of it was on the disk.
#[test]
fn acked_and_not_noted_is_found() {
    let rig = Rig::new();
    let proxy = rig.proxy();
    let socket = loopback_socket();
    // Two batches at least: the one at the mark is looked up to be compared, and counts as sent.
    for (from, to) in [(0, 20), (20, 40)] {
        send(&proxy, &socket, from..to);
        wait_until("all written", || proxy.metric("flowproxy_spool_written_records_total") == u64::from(to));
    }
    let (positions, before) = (rig.path("spool/positions"), rig.path("positions-before"));
    std::fs::copy(&positions, &before).unwrap();
    let collector = rig.jsonl_collector();
    wait_until("all committed", || total(&proxy, "/spool/unacked") == 0);
    proxy.process.kill();
    // The position of an ack is written within a second: that it was not is as well as before.
    std::fs::copy(&before, &positions).unwrap();

    let proxy = rig.proxy();
    wait_until("all found", || total(&proxy, "/spool/unacked") == 0);
    send(&proxy, &socket, 40..50);
    wait_until("the rest committed", || {
        total(&proxy, "/spool/committed") + total(&proxy, "/spool/found_committed") == 50
    });
    proxy.assert_ledger();
    assert_needed(&ledger(&proxy), OF_FOUND);
    assert_eq!(total(&proxy, "/spool/recovered"), 40);
    assert_eq!(data_records(rig.records()).len(), 50);
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}
