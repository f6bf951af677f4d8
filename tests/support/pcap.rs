//! Captures: reads the UDP payloads of a pcap file, writes a capture of made-up traffic for real exporters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::Numbers;
use super::datagrams::Bytes;

/// A UDP datagram of a capture.
pub struct Datagram {
    pub source: IpAddr,
    pub source_port: u16,
    pub payload: Vec<u8>,
}

/// The UDP datagrams of a pcap file in the capture's order. Other packets are left out.
///
/// # Panics
/// If the file is not a pcap of Ethernet, raw IP or Linux cooked capture.
pub fn read_udp(file: &Path) -> Vec<Datagram> {
    let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let is_big = matches!(bytes[..4], [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d]);
    let number = |at: usize| {
        let four: [u8; 4] = bytes[at..at + 4].try_into().expect("four bytes");
        if is_big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
    };
    let link_type = number(20) & 0xffff;
    let mut datagrams = Vec::new();
    let mut at = 24;
    while at + 16 <= bytes.len() {
        let length = number(at + 8) as usize;
        let packet = &bytes[at + 16..at + 16 + length];
        datagrams.extend(ip_packet(link_type, packet).and_then(udp_datagram));
        at += 16 + length;
    }
    datagrams
}

/// Strips the link layer.
fn ip_packet(link_type: u32, packet: &[u8]) -> Option<&[u8]> {
    match link_type {
        // Ethernet, with any number of VLAN tags
        1 => {
            let mut at = 12;
            while matches!(packet.get(at..at + 2)?, [0x81, 0] | [0x88, 0xa8]) {
                at += 4;
            }
            packet.get(at + 2..)
        }
        12 | 101 => Some(packet),
        113 => packet.get(16..),
        276 => packet.get(20..),
        other => panic!("link type {other}"),
    }
}

fn udp_datagram(ip: &[u8]) -> Option<Datagram> {
    const UDP: u8 = 17;
    let (protocol, source, udp) = match ip.first()? >> 4 {
        4 => {
            let source: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
            let total = usize::from(u16::from_be_bytes(ip.get(2..4)?.try_into().ok()?));
            (ip[9], IpAddr::from(Ipv4Addr::from(source)), ip.get(usize::from(ip[0] & 15) * 4..total)?)
        }
        6 => {
            let source: [u8; 16] = ip.get(8..24)?.try_into().ok()?;
            (ip[6], IpAddr::from(Ipv6Addr::from(source)), ip.get(40..)?)
        }
        _ => return None,
    };
    if protocol != UDP {
        return None;
    }
    let word = |at: usize| Some(u16::from_be_bytes(udp.get(at..at + 2)?.try_into().ok()?));
    let payload = udp.get(8..usize::from(word(4)?))?.to_vec();
    Some(Datagram { source, source_port: word(0)?, payload })
}

/// What a made-up capture holds.
pub struct Traffic {
    pub packets: usize,
    /// How many flows the packets spread over.
    pub flows: usize,
    /// Whether every fourth flow is IPv6.
    pub with_ipv6: bool,
}

/// Writes a capture of TCP, UDP and ICMP packets between 198.18.0.0/16 and 198.19.0.0/16 (RFC 2544) and, if asked
/// for, 2001:db8:1::/48 and 2001:db8:2::/48. Gives the bytes of all IP packets together.
pub fn write_traffic(file: &Path, traffic: &Traffic) -> usize {
    const MAGIC: u32 = 0xa1b2_c3d4;
    const ETHERNET: u32 = 1;
    let mut numbers = Numbers::from_seed(20_261_123);
    let mut out = Bytes::default().u32(MAGIC).u16(2).u16(4).u32(0).u32(0).u32(65_535).u32(ETHERNET);
    let mut octets = 0;
    for place in 0..traffic.packets {
        // Every flow has at least one packet.
        let flow = if place < traffic.flows { place } else { numbers.below(traffic.flows) };
        let is_ipv6 = traffic.with_ipv6 && flow % 4 == 3;
        let packet = packet(flow, is_ipv6, numbers.below(1_200));
        let milliseconds = 2 * place as u32;
        let ether_type = if is_ipv6 { 0x86dd } else { 0x0800 };
        let frame =
            Bytes::default().raw(&[2, 0, 0, 0, 0, 1]).raw(&[2, 0, 0, 0, 0, 2]).u16(ether_type).raw(&packet).0;
        let length = frame.len() as u32;
        out = out
            .u32(1_795_442_400 + milliseconds / 1_000)
            .u32(milliseconds % 1_000 * 1_000)
            .u32(length)
            .u32(length);
        out = out.raw(&frame);
        octets += packet.len();
    }
    std::fs::write(file, out.0).expect("capture file");
    octets
}

fn packet(flow: usize, is_ipv6: bool, payload_bytes: usize) -> Vec<u8> {
    let [high, low] = (flow as u16).to_be_bytes();
    let port = 1_024 + flow as u16;
    let (protocol, transport) = match flow % 3 {
        0 => (6, Bytes::default().u16(port).u16(443).u32(1).u32(1).u8(0x50).u8(0x18).u16(8_192).u32(0)),
        1 => (17, Bytes::default().u16(port).u16(53).u16(8 + payload_bytes as u16).u16(0)),
        _ if is_ipv6 => (58, Bytes::default().u8(128).u8(0).u16(0).u32(flow as u32)),
        _ => (1, Bytes::default().u8(8).u8(0).u16(0).u32(flow as u32)),
    };
    let body = transport.raw(&vec![0x5a; payload_bytes]).0;
    if is_ipv6 {
        let head = Bytes::default().u32(0x6000_0000).u16(body.len() as u16).u8(protocol).u8(64);
        let source = [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, high, low];
        let destination = [0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, low % 16];
        return head.raw(&source).raw(&destination).raw(&body).0;
    }
    let source = [198, 18, high, low];
    let destination = [198, 19, 0, low % 16];
    let total = 20 + body.len() as u16;
    let head = |sum| {
        let head = Bytes::default().u8(0x45).u8(0).u16(total).u32(0).u8(64).u8(protocol).u16(sum);
        head.raw(&source).raw(&destination)
    };
    let words = head(0).0.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum::<u32>();
    let folded = (words & 0xffff) + (words >> 16);
    head(!(folded as u16)).raw(&body).0
}
