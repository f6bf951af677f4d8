//! From an IP header to the UDP payload (RFC 791, RFC 8200, RFC 768), or to a fragment of it.
//!
//! Lengths in the headers are honoured: what a link layer fills up is not the datagram's. Where fewer bytes are there
//! than a header says, the rest is `missing`.

use super::Unread;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const UDP: u8 = 17;
const UDP_HEADER_BYTES: usize = 8;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Both addresses of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

/// A UDP datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Udp<'a> {
    /// From, to.
    pub(super) ports: (u16, u16),
    pub(super) payload: &'a [u8],
    /// Bytes at the end of the payload that are not there.
    pub(super) missing: usize,
    /// Bytes from the payload's start to the end of what was read.
    pub(super) after: usize,
}

/// A fragment of an IP packet's payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'a> {
    pub(super) ends: Ends,
    pub(super) id: u32,
    /// What the whole payload begins with.
    pub(super) protocol: u8,
    pub(super) offset: usize,
    pub(super) is_last: bool,
    pub(super) bytes: &'a [u8],
    /// The capture lacks its end.
    pub(super) is_cut: bool,
}

/// What a packet holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Read<'a> {
    Udp { ends: Ends, udp: Udp<'a> },
    Fragment(Fragment<'a>),
}

/// Reads a packet of which the capture lacks the last `cut` bytes.
pub(super) fn read(packet: &[u8], cut: usize) -> Result<Read<'_>, Unread> {
    match packet.first().ok_or(Unread::Malformed)? >> 4 {
        4 => ipv4(packet, cut),
        6 => ipv6(packet, cut),
        _ => Err(Unread::NotIp),
    }
}

fn ipv4(packet: &[u8], cut: usize) -> Result<Read<'_>, Unread> {
    let header: &[u8; 20] = packet.first_chunk().ok_or(Unread::Malformed)?;
    let &[first, _, t1, t2, i1, i2, f1, f2, _, protocol, _, _, s1, s2, s3, s4, d1, d2, d3, d4] = header;
    let header_bytes = usize::from(first & 15) * 4;
    let total = match usize::from(u16::from_be_bytes([t1, t2])) {
        // A card that cuts large sends into packets leaves the length to be filled in.
        0 => packet.len() + cut,
        total => total,
    };
    if header_bytes < header.len() || total < header_bytes {
        return Err(Unread::Malformed);
    }
    let payload = packet.get(header_bytes..total.min(packet.len())).ok_or(Unread::Malformed)?;
    let missing = total.saturating_sub(packet.len());
    let ends = Ends {
        source: Ipv4Addr::new(s1, s2, s3, s4).into(),
        destination: Ipv4Addr::new(d1, d2, d3, d4).into(),
    };
    let flags = u16::from_be_bytes([f1, f2]);
    let (has_more, offset) = (flags & 0x2000 != 0, usize::from(flags & 0x1fff) * 8);
    if protocol != UDP {
        return Err(Unread::NotUdp);
    }
    if has_more || offset > 0 {
        let id = u32::from(u16::from_be_bytes([i1, i2]));
        let (is_last, is_cut) = (!has_more, missing > 0);
        return Ok(Read::Fragment(Fragment { ends, id, protocol, offset, is_last, bytes: payload, is_cut }));
    }
    udp(payload, missing).map(|udp| Read::Udp { ends, udp })
}

fn ipv6(packet: &[u8], cut: usize) -> Result<Read<'_>, Unread> {
    let (header, rest) = packet.split_first_chunk::<40>().ok_or(Unread::Malformed)?;
    let (start, addresses) = header.split_first_chunk::<8>().ok_or(Unread::Malformed)?;
    let (source, destination) = addresses.split_first_chunk::<16>().ok_or(Unread::Malformed)?;
    let destination: [u8; 16] = destination.try_into().map_err(|_| Unread::Malformed)?;
    let &[_, _, _, _, l1, l2, next, _] = start;
    let length = match usize::from(u16::from_be_bytes([l1, l2])) {
        0 => rest.len() + cut,
        length => length,
    };
    let payload = rest.get(..length.min(rest.len())).ok_or(Unread::Malformed)?;
    let missing = length.saturating_sub(rest.len());
    let ends =
        Ends { source: Ipv6Addr::from(*source).into(), destination: Ipv6Addr::from(destination).into() };
    let (next, payload) = extensions(next, payload)?;
    if next != FRAGMENT {
        return transport(next, payload, missing).map(|udp| Read::Udp { ends, udp });
    }
    let (header, bytes) = payload.split_first_chunk::<8>().ok_or(Unread::Malformed)?;
    let &[protocol, _, o1, o2, i1, i2, i3, i4] = header;
    if !matches!(protocol, UDP | ROUTING | AUTHENTICATION | DESTINATION_OPTIONS) {
        return Err(Unread::NotUdp);
    }
    let field = u16::from_be_bytes([o1, o2]);
    let (has_more, offset) = (field & 1 != 0, usize::from(field & 0xfff8));
    if !has_more && offset == 0 {
        // An atomic fragment (RFC 6946): a whole datagram.
        return transport(protocol, bytes, missing).map(|udp| Read::Udp { ends, udp });
    }
    let id = u32::from_be_bytes([i1, i2, i3, i4]);
    Ok(Read::Fragment(Fragment {
        ends,
        id,
        protocol,
        offset,
        is_last: !has_more,
        bytes,
        is_cut: missing > 0,
    }))
}

/// Walks IPv6's extension headers: what comes after them, and from where. Each is longer than nothing.
fn extensions(mut next: u8, mut bytes: &[u8]) -> Result<(u8, &[u8]), Unread> {
    loop {
        let units = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => 8,
            AUTHENTICATION => 4,
            _ => return Ok((next, bytes)),
        };
        let &[after, length, ..] = bytes else { return Err(Unread::Malformed) };
        // In units beyond the first 8 bytes, the authentication header's beyond the first 8 of units of 4.
        let length = 8 + usize::from(length) * units;
        next = after;
        bytes = bytes.get(length..).ok_or(Unread::Malformed)?;
    }
}

/// The UDP datagram behind `protocol`, which may be an extension header of IPv6.
pub(super) fn transport(protocol: u8, bytes: &[u8], missing: usize) -> Result<Udp<'_>, Unread> {
    let (next, bytes) = extensions(protocol, bytes)?;
    if next != UDP {
        return Err(Unread::NotUdp);
    }
    udp(bytes, missing)
}

fn udp(bytes: &[u8], missing: usize) -> Result<Udp<'_>, Unread> {
    let (header, rest) = bytes.split_first_chunk::<UDP_HEADER_BYTES>().ok_or(Unread::Malformed)?;
    let &[s1, s2, d1, d2, l1, l2, _, _] = header;
    let length = match usize::from(u16::from_be_bytes([l1, l2])) {
        0 => rest.len() + missing,
        length => length.checked_sub(UDP_HEADER_BYTES).ok_or(Unread::Malformed)?,
    };
    Ok(Udp {
        ports: (u16::from_be_bytes([s1, s2]), u16::from_be_bytes([d1, d2])),
        payload: rest.get(..length.min(rest.len())).unwrap_or_default(),
        missing: length.saturating_sub(rest.len()),
        after: rest.len(),
    })
}
