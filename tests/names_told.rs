//! Names that exporters tell of their interfaces, in the collector's lines: as they are told, after a restart of the proxy,
//! and after a restart of an exporter that numbers its interfaces anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test"
)]

mod support;

use serde_json::Value;
use std::net::UdpSocket;
use support::datagrams::{self, Bytes, UPTIME_MS};
use support::rig::{End, Rig};
use support::{loopback_socket, wait_for};

/// Interfaces that this host has not.
const IN: u32 = 4_242_001;
const OUT: u32 = 4_242_002;

/// An exporter of NetFlow v9: its octets tell its flows apart.
struct Exporter {
    socket: UdpSocket,
    sequence: u32,
    uptime_ms: u32,
    octets: u32,
}

impl Exporter {
    fn new() -> Self {
        Self { socket: loopback_socket(), sequence: 0, uptime_ms: UPTIME_MS, octets: 0 }
    }

    fn send(&mut self, proxy: &End, sets: &[Vec<u8>]) {
        self.sequence += 1;
        let mut datagram = datagrams::v9(self.sequence, 7, 1, sets);
        datagram[4..8].copy_from_slice(&self.uptime_ms.to_be_bytes());
        proxy.feed(&self.socket, proxy.udp(), &[datagram]);
    }

    /// The templates: interfaces by scope with name and description, and a flow.
    fn tell_templates(&mut self, proxy: &End) {
        let options = Bytes::default().u16(257).u16(4).u16(8);
        let options = options.u16(2).u16(4).u16(82).u16(8).u16(83).u16(8).u16(0);
        let flows = datagrams::template(256, &[(10, 4), (14, 4), (1, 4)]);
        self.send(proxy, &[datagrams::set(1, &options.0), datagrams::set(0, &flows)]);
    }

    fn tell(&mut self, proxy: &End, index: u32, name: &str, description: &str) {
        let text = |text: &str| [text.as_bytes(), &[0; 8][text.len()..]].concat();
        let record = Bytes::default().u32(index).raw(&text(name)).raw(&text(description));
        self.send(proxy, &[datagrams::set(257, &record.0)]);
    }

    /// Sends flows until the line of one of them is as it should be; that line.
    fn flow_until(&mut self, rig: &Rig, proxy: &End, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let first = self.octets + 1;
        wait_for(what, || {
            self.octets += 1;
            let record = Bytes::default().u32(IN).u32(OUT).u32(self.octets);
            self.send(proxy, &[datagrams::set(256, &record.0)]);
            let mine = |record: &Value| record["octetDeltaCount"].as_u64() >= Some(first.into());
            rig.records().into_iter().filter(mine).find(|record| is_so(record))
        })
    }
}

fn ingress(record: &Value) -> Option<&str> {
    record["ingressInterfaceName"].as_str()
}

#[test]
fn an_exporter_names_its_interfaces_and_the_proxy_knows_them_after_its_restart() {
    let rig = Rig::new();
    let (_collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let mut exporter = Exporter::new();
    exporter.tell_templates(&proxy);
    exporter.tell(&proxy, IN, "eth0", "uplink");
    exporter.tell(&proxy, OUT, "eth1", "");
    let named = |record: &Value| ingress(record) == Some("eth0") && !record["egressInterfaceName"].is_null();
    let record = exporter.flow_until(&rig, &proxy, "names at the far end", named);
    assert_eq!(record["egressInterfaceName"], "eth1");
    assert_eq!(record["ingressInterfaceDescription"], "uplink");
    assert!(proxy.process.terminate().success());

    let proxy = rig.proxy();
    let record = exporter.flow_until(&rig, &proxy, "names that were kept", named);
    assert_eq!(record["ingressInterfaceDescription"], "uplink");
    assert!(proxy.get("/metrics").1.lines().any(|line| {
        line.starts_with("flowproxy_names_found_total{source=\"last_known\"} ") && !line.ends_with(" 0")
    }));
    // Told again it is what the exporter says now.
    exporter.tell(&proxy, IN, "eth9", "");
    let renamed = |record: &Value| ingress(record) == Some("eth9");
    let record = exporter.flow_until(&rig, &proxy, "the new name", renamed);
    assert_eq!(record["ingressInterfaceDescription"], Value::Null, "of the interface before");
    assert!(proxy.process.terminate().success());
}

#[test]
fn an_exporter_that_starts_anew_with_other_numbers_gets_no_old_names() {
    let rig = Rig::new();
    let (_collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let mut exporter = Exporter::new();
    exporter.tell_templates(&proxy);
    exporter.tell(&proxy, IN, "eth0", "uplink");
    exporter.tell(&proxy, OUT, "eth1", "lan");
    let named = |record: &Value| ingress(record) == Some("eth0") && !record["egressInterfaceName"].is_null();
    exporter.flow_until(&rig, &proxy, "the first names", named);

    exporter.uptime_ms = 1_000;
    let last_before = exporter.octets;
    let unnamed = |record: &Value| ingress(record).is_none();
    exporter.flow_until(&rig, &proxy, "a flow without a name", unnamed);
    exporter.tell(&proxy, IN, "eth1", "");
    let renamed = |record: &Value| ingress(record) == Some("eth1");
    let record = exporter.flow_until(&rig, &proxy, "the new name", renamed);
    assert_eq!(record["egressInterfaceName"], Value::Null, "{record}");
    assert_eq!(record["ingressInterfaceDescription"], Value::Null, "{record}");
    let after =
        rig.records().into_iter().filter(|it| it["octetDeltaCount"].as_u64() > Some(last_before.into()));
    for record in after {
        assert_ne!(ingress(&record), Some("eth0"), "{record}");
        assert!(record["egressInterfaceName"].is_null(), "{record}");
    }
    assert!(proxy.process.terminate().success());
}
