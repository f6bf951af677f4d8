//! Bad input at a running proxy: it is counted by reason, nothing crashes, and good flow goes on beside it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use std::net::UdpSocket;

use support::datagrams::{self, Bytes, Flow, numbered};
use support::rig::{End, Rig};
use support::{Numbers, loopback_socket};

/// Mutated datagrams of a run; `.ci/long` asks for more.
const MUTATIONS: usize = 4_000;
const SEED: u64 = 0x5eed_0009;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Good flow still comes out, from a sender of its own.
fn assert_still_works(rig: &Rig, proxy: &End) {
    let socket = loopback_socket();
    const FIRST: u32 = 0x7000_0000;
    proxy.feed(&socket, proxy.udp(), &numbered(FIRST, FIRST + 60, 20));
    // The sender's port stands in each line; there may be too many lines to read each as JSON again and again.
    let from_here = format!("\"exporterPort\":{},", socket.local_addr().unwrap().port());
    support::wait_until("good flow after bad input", || rig.text().matches(&from_here).count() == 60);
    assert_eq!(proxy.get("/healthz").0, 200);
}

/// Sends one datagram and gives how much these counters together rose by it.
fn rise(proxy: &End, from: &UdpSocket, datagram: &[u8], counters: &[&str]) -> u64 {
    let sum = || counters.iter().map(|name| proxy.metric(name)).sum::<u64>();
    let before = sum();
    proxy.feed(from, proxy.udp(), &[datagram.to_vec()]);
    support::wait_for("the counter", || Some(sum()).filter(|now| *now > before)) - before
}

#[test]
fn every_kind_of_bad_datagram_is_counted() {
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let socket = loopback_socket();
    let good = datagrams::v9_flows(1, &[Flow::numbered(5)]);
    let mut lying_v5 = datagrams::v5(1, &[Flow::numbered(1)]);
    lying_v5[3] = 30;
    let unreadable: [(&str, Vec<u8>); 6] = [
        ("empty", vec![]),
        ("one byte", vec![9]),
        ("wrong magic", vec![0x12, 0x34, 0, 0, 0, 0, 0, 0]),
        ("v9 header cut", good[..19].to_vec()),
        ("v5 header cut", lying_v5[..23].to_vec()),
        ("IPFIX length below its header", Bytes::default().u16(10).u16(15).u32(0).u32(0).u32(0).0),
    ];
    for (what, datagram) in unreadable {
        let risen = rise(&proxy, &socket, &datagram, &["flowproxy_datagrams_unreadable_total"]);
        assert_eq!(risen, 1, "{what}");
    }
    let zero_fields = datagrams::template(256, &[]);
    let zero_width = datagrams::template(256, &[(1, 0), (2, 0)]);
    let set_too_long = Bytes::default().u16(256).u16(400).raw(&[0; 8]).0;
    let set_length_1 = Bytes::default().u16(256).u16(1).0;
    let unknown_template = datagrams::set(999, &[0; 40]);
    let sets: [(&str, Vec<u8>); 5] = [
        ("template without fields", datagrams::set(0, &zero_fields)),
        ("template of size zero", datagrams::set(0, &zero_width)),
        ("set over the datagram", set_too_long),
        ("set shorter than its header", set_length_1),
        ("data of an unknown template", unknown_template),
    ];
    for (place, (what, set)) in sets.into_iter().enumerate() {
        let datagram = datagrams::v9(place as u32, 7, 1, &[set]);
        // Data may wait for its template.
        let risen =
            rise(&proxy, &socket, &datagram, &["flowproxy_sets_undecoded_total", "flowproxy_sets_held"]);
        assert!(risen >= 1, "{what}");
    }
    assert_still_works(&rig, &proxy);
    proxy.assert_ledger();
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

/// One bad set does not take the others of its datagram with it.
#[test]
fn the_set_after_a_bad_one_goes_on() {
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let good = datagrams::v9_flows(1, &[Flow::numbered(1), Flow::numbered(2)])[20..].to_vec();
    let bad =
        [datagrams::set(0, &datagrams::template(300, &[(1, 0)])), datagrams::set(301, &[1, 2, 3])].concat();
    let datagram = datagrams::v9(1, 7, 5, &[bad, good]);
    proxy.feed(&loopback_socket(), proxy.udp(), &[datagram]);
    assert_eq!(rig.wait_data_records(2).len(), 2);
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

/// A datagram changed in a few places: bytes set, bits turned, lengths made extreme, its end cut or copied.
fn mutate(numbers: &mut Numbers, mut datagram: Vec<u8>) -> Vec<u8> {
    for _ in 0..1 + numbers.below(6) {
        let place = numbers.below(datagram.len().max(1));
        match numbers.below(6) {
            0 => datagram.truncate(place),
            1 => datagram.extend_from_within(place..),
            2 if place + 2 <= datagram.len() => {
                let extreme: [u16; 6] = [0, 1, 3, 4, 0x7fff, 0xffff];
                datagram[place..place + 2].copy_from_slice(&extreme[numbers.below(6)].to_be_bytes());
            }
            3 if !datagram.is_empty() => datagram[place] ^= 1 << numbers.below(8),
            _ if !datagram.is_empty() => datagram[place] = numbers.next() as u8,
            _ => {}
        }
    }
    datagram.truncate(60_000);
    datagram
}

/// Datagrams of every form that the mutations start from.
fn originals() -> Vec<Vec<u8>> {
    let flows: Vec<Flow> = (1..6).map(Flow::numbered).collect();
    let options = Bytes::default().u16(301).u16(4).u16(4).u16(2).u16(4).u16(82).u16(10).u16(0).0;
    let name = Bytes::default().u32(5).raw(b"Gi0/0/1\0\0\0").raw(&[0; 2]).0;
    let variable =
        Bytes::default().u16(400).u16(3).u16(8).u16(4).u16(96).u16(65_535).u16(0x8001).u16(2).u32(35_632).0;
    let values = Bytes::default().raw(&[192, 0, 2, 1]).u8(4).raw(b"http").u16(1).0;
    let ipfix_options = Bytes::default().u16(500).u16(2).u16(1).u16(149).u16(4).u16(41).u16(8).0;
    vec![
        datagrams::v5(1, &flows),
        datagrams::v9_flows(2, &flows),
        datagrams::ipfix_flows(3, &flows),
        datagrams::v9(4, 7, 2, &[datagrams::set(1, &options), datagrams::set(301, &name)]),
        datagrams::ipfix(5, 11, &[datagrams::set(2, &variable), datagrams::set(400, &values)]),
        datagrams::ipfix(6, 11, &[datagrams::set(3, &ipfix_options), datagrams::set(500, &[0; 12])]),
        datagrams::ipfix(7, 11, &[datagrams::set(2, &Bytes::default().u16(400).u16(0).0)]),
    ]
}

#[test]
fn seeded_mutations_do_no_harm() {
    let seed = setting("FLOWPROXY_MUTATION_SEED", SEED);
    let count = setting("FLOWPROXY_MUTATIONS", MUTATIONS as u64) as usize;
    support::note(&format!("{count} mutations of seed {seed}"));
    let rig = Rig::new();
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let (originals, mut numbers) = (originals(), Numbers::from_seed(seed));
    let sockets = [loopback_socket(), loopback_socket(), loopback_socket()];
    for round in 0..count.div_ceil(200) {
        let some: Vec<Vec<u8>> =
            (0..200).map(|place| mutate(&mut numbers, originals[place % originals.len()].clone())).collect();
        proxy.feed(&sockets[round % sockets.len()], proxy.udp(), &some);
    }
    assert_still_works(&rig, &proxy);
    assert_eq!(proxy.metric("flowproxy_datagrams_received_total"), count.div_ceil(200) as u64 * 200 + 3);
    // All that was decoded comes out, or the far end would have refused a batch.
    let decoded = proxy.metric("flowproxy_records_decoded_total");
    proxy.wait_metric("flowproxy_records_committed_total", decoded);
    proxy.assert_ledger();
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
    assert_eq!(rig.records().len() as u64, decoded);
}
