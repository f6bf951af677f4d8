//! Raw datagrams as a capture: pcap with packets of IP, whose headers are made anew. A datagram's sender is the
//! exporter; where it was sent to is known by its port alone, and the address is that of this host.

use crate::batch::read::Datagram;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// LINKTYPE_RAW: packets begin with their IP header (draft-ietf-opsawg-pcaplinktype).
const LINK_RAW: u32 = 101;
const MAGIC: u32 = 0xa1b2_c3d4;
const SNAP_BYTES: u32 = 1 << 18;
const UDP: u8 = 17;
const UDP_HEADER_BYTES: usize = 8;
const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
const TTL: u8 = 64;

/// The first bytes of the file (draft-ietf-opsawg-pcap).
pub(super) fn file_header() -> [u8; 24] {
    let mut out = [0; 24];
    let fields = [MAGIC, 2 | 4 << 16, 0, 0, SNAP_BYTES, LINK_RAW];
    for (place, value) in out.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    out
}

/// Appends one packet.
pub(super) fn packet(out: &mut Vec<u8>, datagram: &Datagram<'_>) {
    let packet = match datagram.exporter.address {
        IpAddr::V4(from) => ipv4(from, datagram),
        IpAddr::V6(from) => ipv6(from, datagram),
    };
    let seconds = u32::try_from(datagram.received / 1000).unwrap_or(u32::MAX);
    let micros = (datagram.received % 1000) as u32 * 1000;
    let bytes = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    for value in [seconds, micros, bytes, bytes] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    out.extend_from_slice(&packet);
}

/// RFC 791 section 3.1.
fn ipv4(from: Ipv4Addr, datagram: &Datagram<'_>) -> Vec<u8> {
    let to = Ipv4Addr::LOCALHOST;
    let total = IPV4_HEADER_BYTES + UDP_HEADER_BYTES + datagram.bytes.len();
    let mut header = vec![0x45, 0];
    header.extend_from_slice(&length(total));
    header.extend_from_slice(&[0, 0, 0, 0, TTL, UDP, 0, 0]);
    header.extend_from_slice(&from.octets());
    header.extend_from_slice(&to.octets());
    let sum = checksum(&[&header]);
    if let Some(place) = header.get_mut(10..12) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    header.extend(udp(&[&from.octets(), &to.octets()], datagram));
    header
}

/// RFC 8200 section 3.
fn ipv6(from: Ipv6Addr, datagram: &Datagram<'_>) -> Vec<u8> {
    let to = Ipv6Addr::LOCALHOST;
    let mut header = vec![0x60, 0, 0, 0];
    header.extend_from_slice(&length(UDP_HEADER_BYTES + datagram.bytes.len()));
    header.extend_from_slice(&[UDP, TTL]);
    header.extend_from_slice(&from.octets());
    header.extend_from_slice(&to.octets());
    debug_assert_eq!(header.len(), IPV6_HEADER_BYTES);
    header.extend(udp(&[&from.octets(), &to.octets()], datagram));
    header
}

/// RFC 768; the checksum covers the addresses too.
fn udp(addresses: &[&[u8]], datagram: &Datagram<'_>) -> Vec<u8> {
    let bytes = length(UDP_HEADER_BYTES + datagram.bytes.len());
    let mut out = Vec::with_capacity(UDP_HEADER_BYTES + datagram.bytes.len());
    out.extend_from_slice(&datagram.exporter.port.to_be_bytes());
    out.extend_from_slice(&datagram.port.to_be_bytes());
    out.extend_from_slice(&bytes);
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(datagram.bytes);
    let mut parts = addresses.to_vec();
    let pseudo = [[0, UDP], bytes].concat();
    parts.extend([pseudo.as_slice(), &out]);
    // A sum of 0 is written as its other form: 0 says that there is none.
    let sum = match checksum(&parts) {
        0 => 0xffff,
        sum => sum,
    };
    if let Some(place) = out.get_mut(6..8) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    out
}

/// What came by UDP fits.
fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

/// RFC 1071; every part but the last is of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u64::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Exporter;

    /// The sum over a whole header, its checksum included, is 0.
    #[test]
    fn checksums_are_right() {
        for (address, ip) in [("192.0.2.1", IPV4_HEADER_BYTES), ("2001:db8::1", IPV6_HEADER_BYTES)] {
            let exporter = Exporter { address: address.parse().unwrap(), port: 2055 };
            let datagram = Datagram { exporter, port: 9995, received: 1_795_442_400_123, bytes: b"odd" };
            let mut out = Vec::new();
            packet(&mut out, &datagram);
            let (head, packet) = out.split_at(16);
            assert_eq!(head[..8], [1_795_442_400_u32.to_le_bytes(), 123_000_u32.to_le_bytes()].concat());
            let (header, udp) = packet.split_at(ip);
            assert_eq!(udp[..6], [2055_u16.to_be_bytes(), 9995_u16.to_be_bytes(), [0, 11]].concat());
            let addresses = if ip == IPV4_HEADER_BYTES { &header[12..20] } else { &header[8..40] };
            assert_eq!(checksum(&[addresses, &[0, UDP, 0, 11], udp]), 0);
            assert!(ip == IPV6_HEADER_BYTES || checksum(&[header]) == 0);
        }
    }
}
