//! Captures of flow datagrams, written by hand: packets of each link layer, fragments, pcap and pcapng.

use super::datagrams::Bytes;

/// Ports of every datagram here.
pub const PORTS: (u16, u16) = (50_000, 2_055);
/// Who sends them.
pub const SENDER_V4: [u8; 4] = [192, 0, 2, 1];
/// Who sends them over IPv6: 2001:db8::1.
pub const SENDER_V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// When the first packet was captured, in seconds since 1970; each of the others is a millisecond later.
pub const START_SECONDS: u32 = 1_795_442_401;

const ETHER_IPV4: u16 = 0x0800;
const ETHER_IPV6: u16 = 0x86dd;

/// A UDP header with its payload. The checksum of 0 says that there is none.
pub fn udp(payload: &[u8]) -> Vec<u8> {
    Bytes::default().u16(PORTS.0).u16(PORTS.1).u16(8 + payload.len() as u16).u16(0).raw(payload).0
}

/// IPv4 with a UDP datagram or, by the fields for it, a fragment of one.
fn ipv4_part(id: u16, flags_and_offset: u16, part: &[u8]) -> Vec<u8> {
    let start = Bytes::default().u8(0x45).u8(0).u16(20 + part.len() as u16).u16(id).u16(flags_and_offset);
    start.u8(64).u8(17).u16(0).raw(&SENDER_V4).raw(&[198, 51, 100, 1]).raw(part).0
}

/// An IPv4 packet with a UDP datagram.
pub fn ipv4(payload: &[u8]) -> Vec<u8> {
    ipv4_part(1, 0, &udp(payload))
}

/// An IPv6 packet.
fn ipv6_packet(next: u8, part: &[u8]) -> Vec<u8> {
    let start = Bytes::default().u32(0x6000_0000).u16(part.len() as u16).u8(next).u8(64).raw(&SENDER_V6);
    start.raw(&[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]).raw(part).0
}

/// An IPv6 packet with a UDP datagram.
pub fn ipv6(payload: &[u8]) -> Vec<u8> {
    ipv6_packet(17, &udp(payload))
}

/// The pieces of a datagram: offset, whether more follow, bytes.
fn pieces(datagram: &[u8], bytes_each: usize) -> Vec<(usize, bool, &[u8])> {
    let count = datagram.len().div_ceil(bytes_each);
    let pieces = datagram.chunks(bytes_each).enumerate();
    pieces.map(|(place, piece)| (place * bytes_each, place + 1 < count, piece)).collect()
}

/// IPv4 packets with a UDP datagram in fragments of so many bytes, a multiple of 8.
pub fn ipv4_fragments(id: u16, payload: &[u8], bytes_each: usize) -> Vec<Vec<u8>> {
    let datagram = udp(payload);
    let fragment = |(offset, more, piece): (usize, bool, &[u8])| {
        ipv4_part(id, u16::from(more) << 13 | (offset / 8) as u16, piece)
    };
    pieces(&datagram, bytes_each).into_iter().map(fragment).collect()
}

/// IPv6 packets with a UDP datagram in fragments of so many bytes, a multiple of 8.
pub fn ipv6_fragments(id: u32, payload: &[u8], bytes_each: usize) -> Vec<Vec<u8>> {
    let datagram = udp(payload);
    let fragment = |(offset, more, piece): (usize, bool, &[u8])| {
        let header = Bytes::default().u8(17).u8(0).u16(offset as u16 | u16::from(more)).u32(id);
        ipv6_packet(44, &header.raw(piece).0)
    };
    pieces(&datagram, bytes_each).into_iter().map(fragment).collect()
}

fn ether_type(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 6 { ETHER_IPV6 } else { ETHER_IPV4 }
}

/// Ethernet with tags, each of (type, VLAN).
pub fn ethernet(tags: &[(u16, u16)], packet: &[u8]) -> Vec<u8> {
    let start = Bytes::default().raw(&[2, 0, 0, 0, 0, 1]).raw(&[2, 0, 0, 0, 0, 2]);
    let tagged = tags.iter().fold(start, |bytes, (kind, vlan)| bytes.u16(*kind).u16(*vlan));
    tagged.u16(ether_type(packet)).raw(packet).0
}

/// Linux cooked capture.
pub fn cooked(packet: &[u8]) -> Vec<u8> {
    // to us, Ethernet, an address of 6 bytes
    let start = Bytes::default().u16(0).u16(1).u16(6).raw(&[2, 0, 0, 0, 0, 1, 0, 0]);
    start.u16(ether_type(packet)).raw(packet).0
}

/// Linux cooked capture, version 2.
pub fn cooked_2(packet: &[u8]) -> Vec<u8> {
    let start = Bytes::default().u16(ether_type(packet)).u16(0).u32(3).u16(1).u8(0).u8(6);
    start.raw(&[2, 0, 0, 0, 0, 1, 0, 0]).raw(packet).0
}

/// A pcap of frames, big-endian, in microseconds.
pub fn pcap(link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let header = Bytes::default().u32(0xa1b2_c3d4).u16(2).u16(4).u32(0).u32(0).u32(65_535).u32(link);
    let frame = |bytes: Bytes, (place, frame): (usize, &Vec<u8>)| {
        let (seconds, millis) = (START_SECONDS + place as u32 / 1_000, place as u32 % 1_000);
        let length = frame.len() as u32;
        bytes.u32(seconds).u32(millis * 1_000).u32(length).u32(length).raw(frame)
    };
    frames.iter().enumerate().fold(header, frame).0
}

fn block(kind: u32, content: &[u8]) -> Vec<u8> {
    let padded = content.len().next_multiple_of(4);
    let length = padded as u32 + 12;
    let start = Bytes::default().u32(kind).u32(length).raw(content);
    start.raw(&vec![0; padded - content.len()]).u32(length).0
}

/// A pcapng of one section: an interface for each link type, and frames of those, big-endian, in microseconds.
pub fn pcapng(links: &[u16], frames: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let header = Bytes::default().u32(0x1a2b_3c4d).u16(1).u16(0).u64(u64::MAX);
    let mut out = block(0x0a0d_0d0a, &header.0);
    for link in links {
        out.extend(block(1, &Bytes::default().u16(*link).u16(0).u32(65_535).0));
    }
    for (place, (interface, frame)) in frames.iter().enumerate() {
        let time = u64::from(START_SECONDS) * 1_000_000 + place as u64 * 1_000;
        let length = frame.len() as u32;
        out.extend(block(
            6,
            &Bytes::default().u32(*interface).u64(time).u32(length).u32(length).raw(frame).0,
        ));
    }
    out
}
