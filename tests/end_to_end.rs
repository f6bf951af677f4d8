//! The main job with both ends as real processes: hand-written datagrams go in over UDP, exactly their records come
//! out of the far end, whatever is restarted or killed between.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::datagrams::{self, Bytes, EXPORT_SECONDS, Flow, UPTIME_MS, numbered};
use support::rig::{End, PROXY_NAME, Rig, data_records};
use support::{loopback_socket, wait_until};

/// How many flows the datagrams of the counting tests carry.
const FLOWS_EACH: usize = 20;

/// The numbers of `Flow::numbered` in the far end's records, with how often each came.
fn numbers_at_far_end(rig: &Rig) -> BTreeMap<u64, usize> {
    let mut seen = BTreeMap::new();
    for record in data_records(rig.records()) {
        *seen.entry(record["octetDeltaCount"].as_u64().expect("octets")).or_default() += 1;
    }
    seen
}

/// Every flow numbered `from..to` is at the far end once, and nothing else.
fn assert_each_once(rig: &Rig, from: u32, to: u32) {
    let expected: BTreeMap<u64, usize> = (from..to).map(|number| (u64::from(number), 1)).collect();
    let seen = numbers_at_far_end(rig);
    let missing = expected.keys().filter(|number| !seen.contains_key(number)).count();
    let twice = seen.values().filter(|times| **times > 1).count();
    assert_eq!((missing, twice), (0, 0), "missing and twice, of {}", expected.len());
    assert_eq!(seen, expected);
}

fn send(proxy: &End, from: u32, to: u32) {
    proxy.feed(&loopback_socket(), proxy.udp(), &numbered(from, to, FLOWS_EACH));
}

/// Ends both in the order of the data's way; both must end well.
fn stop(proxy: End, collector: End) {
    assert!(proxy.process.terminate().success(), "the proxy ends cleanly");
    assert!(collector.process.terminate().success(), "the collector ends cleanly");
}

/// Waits until the proxy's spool has what it received: nothing is left in open batches.
fn wait_spooled(proxy: &End, records: u64) {
    proxy.wait_spooled(records);
}

/// The fields of `expected` are in `record` with these values.
fn assert_holds(record: &Value, expected: &Value) {
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&record[name], value, "{name} in {record}");
    }
}

#[test]
fn netflow_v5_comes_out_exactly() {
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let flows = [
        Flow { source: [192, 0, 2, 10], destination: [198, 51, 100, 1], packets: 17, octets: 4_000_000_000 },
        Flow { source: [203, 0, 113, 5], destination: [192, 0, 2, 10], packets: 1, octets: 40 },
    ];
    let socket = loopback_socket();
    proxy.feed(&socket, proxy.udp(), &[datagrams::v5(1, &flows)]);
    rig.wait_data_records(2);
    stop(proxy, collector);
    let records = rig.records();
    assert_eq!(records.len(), 2);
    let boot = u64::from(EXPORT_SECONDS) * 1_000 - u64::from(UPTIME_MS);
    let common = json!({
        "protocol": "netflow-v5", "kind": "data", "observationDomainId": 258, "templateId": 0,
        "ipNextHopIPv4Address": "192.0.2.1", "ingressInterface": 3, "egressInterface": 7,
        "flowStartSysUpTime": UPTIME_MS - 5_000, "flowEndSysUpTime": UPTIME_MS - 1_000,
        "flowStartMilliseconds": boot + u64::from(UPTIME_MS) - 5_000,
        "flowEndMilliseconds": boot + u64::from(UPTIME_MS) - 1_000,
        "sourceTransportPort": 443, "destinationTransportPort": 50_123, "tcpControlBits": 0x1b,
        "protocolIdentifier": 6, "ipClassOfService": 16, "bgpSourceAsNumber": 64_500,
        "bgpDestinationAsNumber": 64_501, "sourceIPv4PrefixLength": 24, "destinationIPv4PrefixLength": 16,
        "samplingRate": 100,
    });
    let addresses = ["192.0.2.10", "203.0.113.5"].into_iter().zip(["198.51.100.1", "192.0.2.10"]);
    for ((record, flow), (source, destination)) in records.iter().zip(&flows).zip(addresses) {
        assert_holds(record, &common);
        let own = json!({
            "exporter": "127.0.0.1", "exporterPort": socket.local_addr().unwrap().port(), "sequence": 1,
            "sourceIPv4Address": source, "destinationIPv4Address": destination,
            "packetDeltaCount": flow.packets, "octetDeltaCount": flow.octets,
        });
        assert_holds(record, &own);
        assert!(record["receivedAt"].as_str().is_some_and(|text| text.ends_with('Z')), "{record}");
    }
}

#[test]
fn netflow_v9_with_options_comes_out_exactly() {
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    // Template 300: source and destination IPv6 address, octets in 8 bytes, MAC, protocol; one byte of padding in the set.
    let template = datagrams::template(300, &[(27, 16), (28, 16), (1, 8), (56, 6), (4, 1)]);
    let address = |last| [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let record =
        Bytes::default().raw(&address(1)).raw(&address(2)).u64(1 << 40).raw(&[2, 0, 0x5e, 0x10, 0, 0xff]);
    let data = record.u8(17).raw(&[0; 1]).0;
    // Options template 301: 4 bytes of scope fields (Interface, 4 bytes wide), 4 bytes of options (82, 10 bytes wide).
    let options = Bytes::default().u16(301).u16(4).u16(4).u16(2).u16(4).u16(82).u16(10).u16(0).0;
    let name = Bytes::default().u32(5).raw(b"Gi0/0/1\0\0\0").raw(&[0; 2]).0;
    let sets = [
        datagrams::set(0, &template),
        datagrams::set(1, &options),
        datagrams::set(300, &data),
        datagrams::set(301, &name),
    ];
    proxy.feed(&loopback_socket(), proxy.udp(), &[datagrams::v9(9, 77, 4, &sets)]);
    wait_until("both records", || rig.records().len() == 2);
    stop(proxy, collector);
    let records = rig.records();
    let of_kind =
        |kind: &str| records.iter().find(|record| record["kind"] == kind).expect("a record of each kind");
    assert_holds(
        of_kind("data"),
        &json!({
            "protocol": "netflow-v9", "observationDomainId": 77, "templateId": 300,
            "sourceIPv6Address": "2001:db8::1", "destinationIPv6Address": "2001:db8::2",
            "octetDeltaCount": 1_u64 << 40, "sourceMacAddress": "02:00:5e:10:00:ff", "protocolIdentifier": 17,
        }),
    );
    assert_holds(
        of_kind("options"),
        &json!({ "protocol": "netflow-v9", "observationDomainId": 77, "templateId": 301, "scopeInterface": 5,
            "interfaceName": "Gi0/0/1" }),
    );
}

#[test]
fn ipfix_with_variable_length_and_enterprise_fields_comes_out_exactly() {
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    // Template 400: source address, variable applicationName (96), enterprise 35632 element 1 in 2 bytes, reverse octets
    // (enterprise 29305 element 1), unassigned element 32000 in 3 bytes, flowStartMilliseconds (152), mplsTopLabelStackSection
    // (70) twice.
    let template = Bytes::default().u16(400).u16(8).u16(8).u16(4).u16(96).u16(65_535);
    let template = template.u16(0x8001).u16(2).u32(35_632).u16(0x8001).u16(4).u32(29_305);
    let template = template.u16(32_000).u16(3).u16(152).u16(8).u16(70).u16(3).u16(70).u16(3).0;
    let long = "x".repeat(300);
    let tail = |bytes: Bytes| {
        let bytes = bytes.u16(0xbeef).u32(777).raw(&[1, 2, 3]).u64(1_795_442_399_123);
        bytes.raw(&[0, 1, 2]).raw(&[0, 3, 4])
    };
    let short = tail(Bytes::default().raw(&[192, 0, 2, 1]).u8(4).raw(b"http"));
    let both = tail(short.raw(&[192, 0, 2, 2]).u8(255).u16(300).raw(long.as_bytes())).0;
    let sets = [datagrams::set(2, &template), datagrams::set(400, &both)];
    proxy.feed(&loopback_socket(), proxy.udp(), &[datagrams::ipfix(1, 4_000_000_001, &sets)]);
    rig.wait_data_records(2);
    stop(proxy, collector);
    let records = rig.records();
    assert_eq!(records.len(), 2);
    for (record, (address, name)) in records.iter().zip([("192.0.2.1", "http"), ("192.0.2.2", &long)]) {
        assert_holds(
            record,
            &json!({
                "protocol": "ipfix", "kind": "data", "observationDomainId": 4_000_000_001_u32, "templateId": 400,
                "sourceIPv4Address": address, "applicationName": name, "e35632.1": "beef",
                "reverseOctetDeltaCount": 777, "ie32000": "010203",
                "flowStartMilliseconds": 1_795_442_399_123_u64, "mplsTopLabelStackSection": ["000102", "000304"],
            }),
        );
    }
}

#[test]
fn proxy_terminated_and_killed_between() {
    let rig = Rig::new();
    let collector = rig.jsonl_collector();
    let proxy = rig.proxy();
    send(&proxy, 1, 1_001);
    // SIGTERM with data on its way: it drains.
    assert!(proxy.process.terminate().success());
    let proxy = rig.proxy();
    send(&proxy, 1_001, 2_001);
    proxy.wait_metric("flowproxy_records_committed_total", 1_000);
    proxy.process.kill();
    let proxy = rig.proxy();
    send(&proxy, 2_001, 3_001);
    rig.wait_data_records(3_000);
    stop(proxy, collector);
    assert_each_once(&rig, 1, 3_001);
}

#[test]
fn collector_terminated_and_killed_between() {
    let rig = Rig::new();
    let collector = rig.jsonl_collector();
    let proxy = rig.proxy();
    send(&proxy, 1, 1_001);
    assert!(collector.process.terminate().success());
    send(&proxy, 1_001, 2_001);
    let collector = rig.jsonl_collector();
    send(&proxy, 2_001, 3_001);
    // SIGKILL with data on its way: what was not acknowledged is sent again.
    collector.process.kill();
    send(&proxy, 3_001, 4_001);
    let collector = rig.jsonl_collector();
    rig.wait_data_records(4_000);
    stop(proxy, collector);
    assert_each_once(&rig, 1, 4_001);
}

#[test]
fn link_down_from_the_start() {
    let rig = Rig::new();
    let proxy = rig.proxy();
    send(&proxy, 1, 1_001);
    assert!(proxy.process.terminate().success(), "it ends cleanly with the link down");
    let proxy = rig.proxy();
    send(&proxy, 1_001, 2_001);
    wait_spooled(&proxy, 1_000);
    proxy.process.kill();
    let proxy = rig.proxy();
    assert_eq!(proxy.get("/healthz").0, 200, "healthy whatever the link does");
    let collector = rig.jsonl_collector();
    send(&proxy, 2_001, 3_001);
    rig.wait_data_records(3_000);
    stop(proxy, collector);
    assert_each_once(&rig, 1, 3_001);
}

#[test]
fn raw_datagrams_are_relayed_byte_for_byte_and_in_order() {
    let rig = Rig::new();
    let targets = [loopback_socket(), loopback_socket()];
    let to = targets.each_ref().map(|socket| format!("\"{}\"", socket.local_addr().unwrap())).join(", ");
    let collector = rig.collector(&format!("[sink.udp]\nto = [{to}]\n"));
    let proxy = rig.proxy_listening("raw = [\"127.0.0.1:0\"]");
    let mut sent = numbered(1, 401, FLOWS_EACH);
    // Whatever it is: nobody reads it.
    sent.extend([vec![0], b"not flow at all".to_vec(), vec![0xff; 1_400], vec![7; 9_000]]);
    let raw = proxy.logged_address("raw");
    proxy.feed(&loopback_socket(), raw, &sent);
    for socket in &targets {
        socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let mut buffer = vec![0; 65_535];
        for datagram in &sent {
            let length = socket.recv(&mut buffer).expect("a relayed datagram");
            assert_eq!(&buffer[..length], datagram);
        }
    }
    stop(proxy, collector);
}

#[test]
fn records_and_raw_through_several_sinks() {
    let rig = Rig::new();
    let target = loopback_socket();
    let to = target.local_addr().unwrap();
    let collector = rig.collector(&format!(
        "[sink.jsonl]\npath = \"out/flows.jsonl\"\n\n[sink.udp]\nto = [\"{to}\"]\n\n[sink.null]\n"
    ));
    let proxy = rig.proxy_listening("udp = [\"127.0.0.1:0\"]\nraw = [\"127.0.0.1:0\"]");
    let raw = proxy.logged_address("raw");
    let said = collector.process.log();
    for sink in
        ["Sink jsonl", "out/flows.jsonl", "Sink udp", &to.to_string(), "may go out twice", "Sink null"]
    {
        assert!(said.contains(sink), "{sink} in\n{said}");
    }
    send(&proxy, 1, 201);
    proxy.feed(&loopback_socket(), raw, &[b"one".to_vec(), b"two".to_vec()]);
    rig.wait_data_records(200);
    target.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut buffer = [0; 16];
    for expected in [b"one", b"two"] {
        let length = target.recv(&mut buffer).expect("a relayed datagram");
        assert_eq!(&buffer[..length], expected);
    }
    stop(proxy, collector);
    assert_each_once(&rig, 1, 201);
}

#[test]
fn ipv6_exporters_are_named() {
    let Ok(socket) = std::net::UdpSocket::bind("[::1]:0") else {
        return support::skipped("ipv6_exporters_are_named", "this machine has no IPv6 on loopback");
    };
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy_listening("udp = [\"[::1]:0\"]"));
    proxy.feed(&socket, proxy.udp(), &numbered(1, 41, FLOWS_EACH));
    for record in rig.wait_data_records(40) {
        assert_eq!(record["exporter"], "::1");
    }
    stop(proxy, collector);
}

#[test]
fn identity_and_link_are_shown() {
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    send(&proxy, 1, 101);
    rig.wait_data_records(100);
    wait_until("the collector to name the proxy", || {
        collector.status().to_string().contains(PROXY_NAME) || collector.process.log().contains(PROXY_NAME)
    });
    stop(proxy, collector);
}
