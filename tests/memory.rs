//! The proxy's memory stays under the bound that the README names, with everything that fills it at once: the
//! collector away, the disk stalled, more exporters, templates and data without templates than the tables hold.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test"
)]

mod fuse;
mod support;

use fuse::load::proxy_config;
use fuse::{Disk, NO_FUSE};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use support::datagrams::{Flow, set, template, v9, v9_flows};
use support::rig::{End, Rig};
use support::{loopback_socket, note, skipped};

/// "Limits" in the README, for one shard without TCP.
const BOUND_BYTES: u64 = 224 << 20;

/// Addresses of this machine that exporters send from.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x7f01_0000 + number)
}

fn socket_at(number: u32) -> UdpSocket {
    UdpSocket::bind((address(number), 0)).expect("an address of loopback")
}

/// The most memory that the process has had, in bytes.
fn peak_bytes(end: &End) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", end.process.pid())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a size") << 10
}

fn shown(end: &End, what: &str) {
    note(&format!("{what}: {} MiB", peak_bytes(end) >> 20));
}

/// More exporters than there are rows, each with a template and records.
fn many_exporters(proxy: &End, to: SocketAddr) {
    const AT_ONCE: u32 = 150;
    let received = || proxy.metric("flowproxy_datagrams_received_total");
    for first in (0..12_000).step_by(AT_ONCE as usize) {
        let before = received();
        for number in first..first + AT_ONCE {
            let flows = [Flow::numbered(number), Flow::numbered(number + 1)];
            socket_at(number).send_to(&v9_flows(0, &flows), to).expect("send to loopback");
        }
        proxy.wait_metric("flowproxy_datagrams_received_total", before + u64::from(AT_ONCE));
    }
}

/// More fields in templates than the table takes, from some addresses of many.
fn many_templates(proxy: &End, to: SocketAddr) {
    let fields: Vec<(u16, u16)> = (0..250).map(|element| (1 + element, 4)).collect();
    for exporter in 0..60 {
        let socket = socket_at(20_000 + exporter);
        let datagrams: Vec<Vec<u8>> = (0..20_u16)
            .map(|datagram| {
                let templates: Vec<u8> =
                    (0..8).flat_map(|n| template(256 + datagram * 8 + n, &fields)).collect();
                v9(datagram.into(), 1, 8, &[set(0, &templates)])
            })
            .collect();
        proxy.feed(&socket, to, &datagrams);
    }
}

/// More data without a template than is held.
fn much_to_hold(proxy: &End, to: SocketAddr) {
    let data = set(300, &[7; 8_000]);
    for exporter in 0..20 {
        let socket = socket_at(21_000 + exporter);
        let datagrams: Vec<Vec<u8>> =
            (0..150).map(|sequence| v9(sequence, 2, 1, std::slice::from_ref(&data))).collect();
        proxy.feed(&socket, to, &datagrams);
    }
}

/// Records that no packing makes smaller: their second field is a string of random bytes.
const LARGE: [(u16, u16); 2] = [(1, 4), (94, 1_380)];

const LARGE_BYTES: usize = 5 * 1_384;

fn large(number: u32) -> Vec<u8> {
    let mut random = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::new();
    while bytes.len() < LARGE_BYTES {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        bytes.extend(random.to_be_bytes());
    }
    v9(number, 3, 5, &[set(256, &bytes[..LARGE_BYTES])])
}

#[test]
fn memory_stays_under_its_bound_whatever_comes() {
    let rig = Rig::new();
    let Some(disk) = Disk::mount(&rig.path("disk")) else {
        return skipped("memory under its bound", NO_FUSE);
    };
    // Nobody listens at the endpoint.
    let config = proxy_config(&rig).replace("max_bytes = \"8MiB\"", "max_bytes = \"512MiB\"");
    let proxy = rig.start("run", "proxy.toml", &config.replace("max_records = 2", "max_records = 4000"));
    proxy.wait_healthy();
    let to = proxy.udp();
    shown(&proxy, "at the start");
    many_exporters(&proxy, to);
    shown(&proxy, "12,000 exporters");
    many_templates(&proxy, to);
    shown(&proxy, "2,400,000 fields in templates");
    much_to_hold(&proxy, to);
    shown(&proxy, "24 MB without templates");
    let stall = disk.stall();
    let dropped = || proxy.metric("flowproxy_records_dropped_total");
    let (socket, mut number) = (loopback_socket(), 0);
    proxy.feed(&socket, to, &[v9(0, 3, 1, &[set(0, &template(256, &LARGE))])]);
    while dropped() == 0 {
        let some: Vec<Vec<u8>> = (number + 1..=number + 320).map(large).collect();
        proxy.feed(&socket, to, &some);
        number += 320;
        assert!(number < 50_000, "nothing is dropped");
    }
    shown(&proxy, &format!("{number} large datagrams while the disk stalled"));
    let peak = peak_bytes(&proxy);
    assert!(peak <= BOUND_BYTES, "{} MiB", peak >> 20);
    drop(stall);
    assert_eq!(proxy.get("/healthz").0, 200);
}
