//! The mesh: repeatable, plausible, heavy-tailed.

use super::hosts::CORE;
use super::services::MAX_DOUBLINGS;
use super::*;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

const NOW: u64 = 1_795_442_400_000;

fn mesh(seed: u64) -> Mesh {
    Mesh::new(&Settings { seed, sites: 4, ipv6_percent: 10 })
}

fn flows(mesh: &mut Mesh, n: usize) -> Vec<(usize, Flow)> {
    (0..n).map(|_| mesh.next_flow(NOW)).collect()
}

#[test]
fn a_seed_gives_the_same_flows() {
    let first = flows(&mut mesh(42), 2_000);
    assert_eq!(first, flows(&mut mesh(42), 2_000));
    assert_ne!(first, flows(&mut mesh(43), 2_000));
    let later: Vec<u64> =
        (0..2_000).scan(mesh(42), |mesh, _| Some(mesh.next_flow(NOW + 5).1.first)).collect();
    assert!(first.iter().zip(later).all(|((_, flow), later)| flow.first + 5 == later));
}

#[test]
fn splitmix64_is_what_the_paper_says() {
    let mut random = Random(1_234_567);
    let numbers = [random.next(), random.next(), random.next()];
    assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
}

#[test]
fn flows_make_sense() {
    let mut mesh = mesh(1);
    let known: HashSet<IpAddr> =
        mesh.hosts().iter().flat_map(|host| [host.address(false), host.address(true)]).collect();
    for (exporter, flow) in flows(&mut mesh, 50_000) {
        assert!(exporter < mesh.sites().len());
        assert!(known.contains(&flow.source) && known.contains(&flow.destination), "{flow:?}");
        assert_ne!(flow.source, flow.destination);
        assert_eq!(flow.source.is_ipv4(), flow.destination.is_ipv4());
        assert_ne!(flow.input, flow.output, "{flow:?}");
        assert!((WAN..=CORE).contains(&flow.input) && (WAN..=CORE).contains(&flow.output));
        assert!(flow.first <= flow.last && flow.last <= NOW - 1_000 && flow.first >= NOW - 63_000);
        assert!(flow.packets >= 1 && flow.bytes / flow.packets >= 40, "{flow:?}");
        assert!(flow.bytes / flow.packets <= 1_500, "{flow:?}");
        assert_eq!(flow.tcp_flags != 0, flow.protocol == TCP);
        match flow.protocol {
            ICMP => assert!(flow.icmp == ECHO.0 || flow.icmp == ECHO.1),
            ICMPV6 => assert!(flow.icmp == ECHO_V6.0 || flow.icmp == ECHO_V6.1),
            _ => assert!(flow.icmp == 0 && flow.source_port != 0 && flow.destination_port != 0),
        }
    }
}

#[test]
fn a_conversation_has_two_flows() {
    let mut mesh = mesh(5);
    let mut answered = 0;
    for _ in 0..5_000 {
        let (exporter, there) = mesh.next_flow(NOW);
        if there.tcp_flags == TCP_SYN {
            continue;
        }
        let (same, back) = mesh.next_flow(NOW);
        assert_eq!(exporter, same);
        assert_eq!((back.source, back.destination), (there.destination, there.source));
        assert_eq!((back.input, back.output), (there.output, there.input));
        answered += 1;
    }
    assert!(answered > 4_800);
}

#[test]
fn few_flows_carry_most_bytes_and_none_overflows() {
    let mut bytes: Vec<u64> =
        flows(&mut mesh(9), 100_000).iter().map(|(_, flow)| u64::from(flow.bytes)).collect();
    bytes.sort_unstable();
    let total: u64 = bytes.iter().sum();
    let top: u64 = bytes.iter().rev().take(1_000).sum();
    assert!(top * 2 > total, "the largest hundredth has {top} of {total}");
    let most = SERVICES.iter().map(|service| service.bytes.0.max(service.bytes.1)).max().unwrap();
    let data = u64::from(most) << (MAX_DOUBLINGS + 1);
    assert!(data <= u64::from(u32::MAX));
    // Against the data of the other way there are acknowledgements, in fewer bytes.
    for service in SERVICES {
        let packets = data / u64::from(service.packet_bytes);
        assert!(service.protocol != TCP || data + packets * u64::from(ACK_BYTES) / 2 <= u32::MAX.into());
    }
}

#[test]
fn every_service_and_both_families_are_seen() {
    let flows = flows(&mut mesh(3), 20_000);
    let ports: HashSet<u16> = flows.iter().map(|(_, flow)| flow.destination_port).collect();
    for service in SERVICES.iter().filter(|service| service.protocol != ICMP) {
        assert!(ports.contains(&service.port), "{service:?}");
    }
    let ipv6 = flows.iter().filter(|(_, flow)| flow.source.is_ipv6()).count();
    assert!((1_000..3_000).contains(&ipv6), "{ipv6} of 20,000");
    let mut exporters: HashMap<usize, u32> = HashMap::new();
    for (exporter, _) in &flows {
        *exporters.entry(*exporter).or_default() += 1;
    }
    assert_eq!(exporters.len(), 4);
}

#[test]
fn names_and_addresses_are_unique() {
    let mesh = Mesh::new(&Settings { seed: 0, sites: MAX_SITES, ipv6_percent: 0 });
    let names: HashSet<&str> = mesh.hosts().iter().map(|host| host.name.as_str()).collect();
    let addresses: HashSet<IpAddr> =
        mesh.hosts().iter().flat_map(|host| [host.address(false), host.address(true)]).collect();
    assert_eq!((names.len(), addresses.len()), (mesh.hosts().len(), 2 * mesh.hosts().len()));
}
