//! IPFIX over TCP with both ends as real processes: messages go in over connections, exactly their records come out of
//! the far end, whatever else comes to the port and whoever restarts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use support::datagrams::{self, Bytes, Flow};
use support::rig::{End, Rig, data_records, free_tcp_port};
use support::{loopback_socket, skipped, wait_until};

const ON_TCP: &str = "tcp = [\"127.0.0.1:0\"]";

/// Octets and packets: what a session announces once.
const FIELDS: [(u16, u16); 2] = [(1, 4), (2, 4)];

/// The messages of one session: the template once, then records numbered by their octets.
fn session(domain: u32, template: u16, numbers: std::ops::Range<u32>) -> Vec<u8> {
    let mut stream =
        datagrams::ipfix(0, domain, &[datagrams::set(2, &datagrams::template(template, &FIELDS))]);
    for (place, number) in numbers.enumerate() {
        let record = Bytes::default().u32(number).u32(1).0;
        stream.extend(datagrams::ipfix(place as u32, domain, &[datagrams::set(template, &record)]));
    }
    stream
}

fn connect(to: SocketAddr) -> TcpStream {
    TcpStream::connect(to).expect("a connection to the proxy")
}

/// How often each number has come out of the far end.
fn numbers(rig: &Rig) -> BTreeMap<u64, usize> {
    let mut seen = BTreeMap::new();
    for record in data_records(rig.records()) {
        *seen.entry(record["octetDeltaCount"].as_u64().expect("octets")).or_default() += 1;
    }
    seen
}

fn assert_each_once(rig: &Rig, from: u64, to: u64) {
    assert_eq!(numbers(rig), (from..to).map(|number| (number, 1)).collect());
}

fn stop(proxy: End, collector: End) {
    assert!(proxy.process.terminate().success(), "the proxy ends cleanly");
    assert!(collector.process.terminate().success(), "the collector ends cleanly");
}

#[test]
fn sessions_side_by_side_come_out_exactly() {
    let rig = Rig::new();
    let (collector, proxy) =
        (rig.jsonl_collector(), rig.proxy_listening(&format!("{ON_TCP}\nudp = [\"127.0.0.1:0\"]")));
    let tcp = proxy.logged_address("tcp");
    // All of them with one domain and one template id, from one address.
    let senders: Vec<_> = (0..8_u32)
        .map(|place| {
            std::thread::spawn(move || {
                let mut client = connect(tcp);
                client.write_all(&session(9, 300, place * 1_000 + 1..place * 1_000 + 1_001)).unwrap();
                client.local_addr().unwrap().port()
            })
        })
        .collect();
    let ports: Vec<u64> = senders.into_iter().map(|sender| u64::from(sender.join().unwrap())).collect();
    let beside: Vec<Flow> = (8_001..8_021).map(Flow::numbered).collect();
    proxy.feed(&loopback_socket(), proxy.udp(), &[datagrams::ipfix_flows(1, &beside)]);
    for record in rig.wait_data_records(8_020) {
        let (octets, port) = (record["octetDeltaCount"].as_u64().unwrap(), &record["exporterPort"]);
        assert_eq!((&record["protocol"], &record["exporter"]), (&"ipfix".into(), &"127.0.0.1".into()));
        if octets <= 8_000 {
            assert_eq!(port, ports[(octets as usize - 1) / 1_000]);
        }
    }
    assert_each_once(&rig, 1, 8_021);
    proxy.assert_ledger();
    assert_eq!(proxy.metric("flowproxy_tcp_received_messages_total"), 8 * 1_001);
    wait_until("all connections to be closed", || proxy.metric("flowproxy_tcp_connections") == 0);
    assert_eq!(proxy.status()["listen"]["tcp"][0], tcp.to_string());
    stop(proxy, collector);
    assert_each_once(&rig, 1, 8_021);
}

#[test]
fn rubbish_and_silence_beside_a_good_exporter() {
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy_listening(ON_TCP));
    let tcp = proxy.logged_address("tcp");
    let mut good = connect(tcp);
    let stream = session(1, 300, 1..1_001);
    let (first, second) = stream.split_at(stream.len() / 2);
    good.write_all(first).unwrap();
    let silent: Vec<TcpStream> = (0..5).map(|_| connect(tcp)).collect();
    let mut half = connect(tcp);
    half.write_all(&[0, 10, 0xff, 0xff, 1]).unwrap();
    let rubbish: [&[u8]; 4] =
        [b"\x16\x03\x01\x02\0", b"GET / HTTP/1.0\r\n\r\n", &[0, 9, 0, 1], &[0, 10, 0, 3]];
    for bytes in rubbish {
        let mut bad = connect(tcp);
        bad.write_all(bytes).unwrap();
        bad.set_read_timeout(Some(support::PATIENCE)).unwrap();
        assert!(!matches!(bad.read(&mut [0; 1]), Ok(1..)), "it is closed");
    }
    // As many as one address may have: the rest is turned away.
    let more: Vec<TcpStream> = (0..20).map(|_| connect(tcp)).collect();
    wait_until("too many connections to be refused", || {
        proxy.metric("flowproxy_tcp_refused_connections_total") > 0
    });
    assert!(proxy.metric("flowproxy_tcp_connections") <= 16);
    good.write_all(second).unwrap();
    rig.wait_data_records(1_000);
    assert_eq!(proxy.metric("flowproxy_datagrams_unreadable_total"), rubbish.len() as u64);
    proxy.assert_ledger();
    let log = proxy.process.log();
    assert_eq!(log.matches("sends is no IPFIX; its connection is closed").count(), rubbish.len(), "{log}");
    drop((silent, half, more, good));
    wait_until("half a message to be counted", || {
        let (_, metrics) = proxy.get("/metrics");
        metrics.contains("flowproxy_tcp_ended_connections_total{reason=\"incomplete\"} 1\n")
    });
    stop(proxy, collector);
    assert_each_once(&rig, 1, 1_001);
}

#[test]
fn an_exporter_comes_back_after_a_restart() {
    let rig = Rig::new();
    let collector = rig.jsonl_collector();
    let listen = format!("tcp = [\"127.0.0.1:{}\"]", free_tcp_port());
    let mut at = 1;
    for _ in 0..3 {
        // The port is free again although the connection of before lingers there.
        let proxy = rig.proxy_listening(&listen);
        let mut client = connect(proxy.logged_address("tcp"));
        client.write_all(&session(1, 300, at..at + 500)).unwrap();
        at += 500;
        // With data under way and the connection open: all of it is read, then our end is closed.
        assert!(proxy.process.terminate().success());
        let left = client.read(&mut [0; 1]);
        assert!(!matches!(left, Ok(1..)), "it is closed");
    }
    rig.wait_data_records(1_500);
    assert!(collector.process.terminate().success());
    assert_each_once(&rig, 1, 1_501);
}

#[test]
fn ipv6_exporters_are_named() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return skipped("ipv6_exporters_are_named", "this machine has no IPv6 on loopback");
    }
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy_listening("tcp = [\"[::1]:0\"]"));
    connect(proxy.logged_address("tcp")).write_all(&session(1, 300, 1..11)).unwrap();
    for record in rig.wait_data_records(10) {
        assert_eq!(record["exporter"], "::1");
    }
    stop(proxy, collector);
}
