//! Flow of real exporters, none of them ours: what comes out of the far end is what nfcapd stores of the very same
//! datagrams, flow by flow, and what the exporter metered.
//!
//! Needs Debian's softflowd, pmacct, fprobe, nfdump, tcpreplay and iproute2; without them the tests say "skipped".

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use std::net::SocketAddr;
use std::path::Path;

use support::pcap::{Traffic, write_traffic};
use support::probes::{self, Namespace, Nfcapd, Seen, Tee, sums};
use support::rig::{End, Rig};
use support::{loopback_socket, skipped, wait_until};

/// Lets an exporter meter a capture: folder for its files, capture, where to export to, protocol version.
type Exporter = fn(&Path, &Path, SocketAddr, &str);

const TRAFFIC: Traffic = Traffic { packets: 6_000, flows: 700, with_ipv6: true };

#[test]
fn softflowd_in_v5() {
    compare_with_nfcapd("softflowd_in_v5", "softflowd", probes::softflowd, "5");
}

#[test]
fn softflowd_in_v9() {
    compare_with_nfcapd("softflowd_in_v9", "softflowd", probes::softflowd, "9");
}

#[test]
fn softflowd_in_ipfix() {
    compare_with_nfcapd("softflowd_in_ipfix", "softflowd", probes::softflowd, "10");
}

#[test]
fn pmacctd_in_v5() {
    compare_with_nfcapd("pmacctd_in_v5", "pmacctd", probes::pmacctd, "5");
}

#[test]
fn pmacctd_in_v9() {
    compare_with_nfcapd("pmacctd_in_v9", "pmacctd", probes::pmacctd, "9");
}

#[test]
fn pmacctd_in_ipfix() {
    compare_with_nfcapd("pmacctd_in_ipfix", "pmacctd", probes::pmacctd, "10");
}

/// One exporter's datagrams go to nfcapd and to us; both must have seen the same flows. Version 5 knows no IPv6,
/// so there the capture has none.
fn compare_with_nfcapd(test: &str, exporter: &'static str, run: Exporter, version: &str) {
    if let Some(tool) = probes::missing(&[exporter, "nfcapd", "nfdump"]) {
        return skipped(test, &format!("{tool} is not installed"));
    }
    let rig = Rig::new();
    let capture = rig.path("traffic.pcap");
    let octets = write_traffic(&capture, &Traffic { with_ipv6: version != "5", ..TRAFFIC });
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let nfcapd = Nfcapd::start(rig.path("nfcapd"));

    let tee = Tee::start(loopback_socket(), vec![nfcapd.address, proxy.udp()]);
    run(&rig.path(""), &capture, tee.address, version);
    let datagrams = tee.finish();

    let theirs = nfcapd.finish();
    assert_eq!(sums(&theirs).1, TRAFFIC.packets as u64, "{exporter} and nfcapd account for every packet");
    assert_eq!(sums(&theirs).2, octets as u64, "{exporter} and nfcapd account for every byte");
    proxy.wait_metric("flowproxy_datagrams_received_total", datagrams);
    assert_same(&rig, &theirs);
    finish(collector, proxy);
    assert_same(&rig, &theirs);
}

/// Waits until the far end has as many flows as nfcapd and compares them one by one.
fn assert_same(rig: &Rig, theirs: &[Seen]) {
    let records = rig.wait_data_records(theirs.len());
    let mut ours: Vec<Seen> = records.iter().map(Seen::from_json).collect();
    ours.sort();
    assert_eq!(sums(&ours), sums(theirs), "flows, packets and bytes");
    assert_eq!(ours, theirs, "every flow");
}

/// What softflowd meters of a capture comes over TCP as it comes over UDP, where nfcapd shows it.
#[test]
fn softflowd_in_ipfix_over_tcp() {
    if let Some(tool) = probes::missing(&["softflowd", "nfcapd", "nfdump"]) {
        return skipped("softflowd_in_ipfix_over_tcp", &format!("{tool} is not installed"));
    }
    let rig = Rig::new();
    let capture = rig.path("traffic.pcap");
    let octets = write_traffic(&capture, &TRAFFIC);
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy_listening("tcp = [\"127.0.0.1:0\"]"));
    let nfcapd = Nfcapd::start(rig.path("nfcapd"));
    probes::softflowd(&rig.path(""), &capture, nfcapd.address, "10");
    let theirs = nfcapd.finish();
    assert_eq!(sums(&theirs).2, octets as u64, "softflowd and nfcapd account for every byte");

    probes::softflowd_over_tcp(&rig.path(""), &capture, proxy.logged_address("tcp"), "10");
    assert_same(&rig, &theirs);
    proxy.assert_ledger();
    finish(collector, proxy);
    assert_same(&rig, &theirs);
}

fn finish(collector: End, proxy: End) {
    assert!(proxy.process.terminate().success(), "the proxy ends cleanly");
    assert!(collector.process.terminate().success(), "the collector ends cleanly");
}

#[test]
fn fprobe_in_v5_from_a_live_interface() {
    const TEST: &str = "fprobe_in_v5_from_a_live_interface";
    if let Some(tool) = probes::missing(&["fprobe", "tcpreplay", "ip", "nfcapd", "nfdump"]) {
        return skipped(TEST, &format!("{tool} is not installed"));
    }
    let Some(namespace) = Namespace::create() else {
        return skipped(TEST, "no right to make a network namespace");
    };
    let rig = Rig::new();
    let capture = rig.path("traffic.pcap");
    write_traffic(&capture, &Traffic { with_ipv6: false, ..TRAFFIC });
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let nfcapd = Nfcapd::start(rig.path("nfcapd"));

    let tee = Tee::start(namespace.loopback_socket(), vec![nfcapd.address, proxy.udp()]);
    let packets = || rig.records().iter().map(|record| Seen::from_json(record).packets).sum::<u64>();
    probes::fprobe(&namespace, &rig.path(""), &capture, tee.address, || packets() == TRAFFIC.packets as u64);
    tee.finish();

    let theirs = nfcapd.finish();
    assert_eq!(sums(&theirs).1, TRAFFIC.packets as u64, "fprobe and nfcapd account for every packet");
    assert_same(&rig, &theirs);
    finish(collector, proxy);
}

/// Through the raw relay nfcapd gets what it would have got directly.
#[test]
fn nfcapd_behind_the_raw_relay_stores_the_same() {
    const TEST: &str = "nfcapd_behind_the_raw_relay_stores_the_same";
    if let Some(tool) = probes::missing(&["softflowd", "nfcapd", "nfdump"]) {
        return skipped(TEST, &format!("{tool} is not installed"));
    }
    for version in ["5", "9", "10"] {
        let rig = Rig::new();
        let capture = rig.path("traffic.pcap");
        write_traffic(&capture, &TRAFFIC);
        let (direct, relayed) = (Nfcapd::start(rig.path("direct")), Nfcapd::start(rig.path("relayed")));
        let collector = rig.collector(&format!("[sink.udp]\nto = [\"{}\"]\n", relayed.address));
        let proxy = rig.proxy_listening("raw = [\"127.0.0.1:0\"]");

        let tee = Tee::start(loopback_socket(), vec![direct.address, proxy.logged_address("raw")]);
        probes::softflowd(&rig.path(""), &capture, tee.address, version);
        let datagrams = tee.finish();
        wait_until("all datagrams relayed", || {
            collector.metric("flowproxy_collector_committed_datagrams_total") >= datagrams
        });
        finish(collector, proxy);

        let (direct, relayed) = (direct.finish(), relayed.finish());
        assert!(!direct.is_empty(), "nfcapd fed directly stores flows");
        assert_eq!(sums(&relayed), sums(&direct), "version {version}: flows, packets and bytes");
        assert_eq!(relayed, direct, "version {version}: every flow");
    }
}
