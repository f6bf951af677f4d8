//! The structures of flow records (sFlow version 5, "Flow Data Types"), read from their bytes.
//!
//! ```text
//! sampled_header     0 protocol  4 frame length  8 stripped  12 header's length  16 header
//! sampled_ethernet   0 length  4 source MAC, 2 pad  12 destination MAC, 2 pad  20 type
//! sampled_ipv4       0 length  4 protocol   8 source  12 destination  16 ports, 4 + 4  24 TCP flags  28 tos
//! sampled_ipv6       0 length  4 protocol   8 source  24 destination  40 ports, 4 + 4  48 TCP flags  52 priority
//! extended_switch    0 source VLAN  4 its priority  8 destination VLAN  12 its priority
//! extended_router    0 next hop  . source mask  . destination mask
//! extended_gateway   0 next hop  . as  . source as  . source peer as  . path segments  . communities  . localpref
//! extended_nat       0 source  . destination
//! extended_nat_port  0 source  4 destination
//! address            0 type: 0 unknown, 1 IPv4, 2 IPv6  4 the address: 0, 4 or 16 bytes
//! ```
//!
//! A structure that ends before its fields do is not read: its record travels whole.

use crate::flow::packet::{self, Addresses, Ip, Link, Packet, Ports};
use crate::wire::cursor::{Cursor, Short};
use std::net::IpAddr;

/// An address of any family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Address {
    Unknown,
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Address {
    /// Reads the type and the address.
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Option<Address>, Short> {
        Ok(Some(match cursor.u32()? {
            0 => Address::Unknown,
            1 => Address::V4(cursor.array()?),
            2 => Address::V6(cursor.array()?),
            _ => return Ok(None),
        }))
    }

    /// The address, unless it says no more than that there is none.
    pub(super) fn ip(self) -> Option<IpAddr> {
        let address = match self {
            Address::Unknown => return None,
            Address::V4(octets) => IpAddr::from(octets),
            Address::V6(octets) => IpAddr::from(octets).to_canonical(),
        };
        (!address.is_unspecified()).then_some(address)
    }
}

/// Reads an address where a type that is not known ends the reading too.
fn address(cursor: &mut Cursor<'_>) -> Option<Address> {
    Address::read(cursor).ok().flatten()
}

/// A sampled header, and what was read in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// Protocol, frame length and stripped bytes as on the wire.
    pub(super) head: [u8; 12],
    pub(super) packet: Packet,
    /// Headers of this protocol are not known here.
    pub(super) is_foreign: bool,
}

impl Header {
    pub(super) fn read(bytes: &[u8]) -> Option<Header> {
        let (head, rest) = bytes.split_first_chunk::<12>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let frame = rest.get(..u32::from_be_bytes(*length) as usize).unwrap_or(rest);
        let [a, b, c, d, ..] = *head;
        let link = link(u32::from_be_bytes([a, b, c, d]));
        let packet = link.map(|link| packet::parse(link, frame)).unwrap_or_default();
        Some(Header { head: *head, packet, is_foreign: link.is_none() })
    }

    pub(super) fn frame_length(&self) -> [u8; 4] {
        let [_, _, _, _, a, b, c, d, ..] = self.head;
        [a, b, c, d]
    }
}

fn link(header_protocol: u32) -> Option<Link> {
    match header_protocol {
        1 => Some(Link::Ethernet),
        // PPP, and PPP over SONET.
        7 | 14 => Some(Link::Ppp),
        11 | 12 => Some(Link::Ip),
        13 => Some(Link::Mpls),
        _ => None,
    }
}

/// A sampled Ethernet frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ethernet {
    pub(super) length: [u8; 4],
    /// Destination, then source.
    pub(super) macs: [u8; 12],
    pub(super) kind: u16,
}

impl Ethernet {
    /// Some devices leave the pads out: 20 bytes for 24.
    pub(super) fn read(bytes: &[u8]) -> Option<Ethernet> {
        let is_padded = match bytes.len() {
            20 => false,
            24 => true,
            _ => return None,
        };
        let mut cursor = Cursor::new(bytes);
        let length = cursor.array().ok()?;
        let mut mac = || {
            let mac: [u8; 6] = cursor.array().ok()?;
            cursor.take(if is_padded { 2 } else { 0 }).ok()?;
            Some(mac)
        };
        let (source, destination) = (mac()?, mac()?);
        let mut macs = [0; 12];
        for (to, from) in macs.iter_mut().zip(destination.iter().chain(&source)) {
            *to = *from;
        }
        Some(Ethernet { length, macs, kind: u16::try_from(cursor.u32().ok()?).ok()? })
    }
}

/// A sampled IP header of either version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SampledIp {
    length: u32,
    protocol: u8,
    addresses: Addresses,
    ports: Ports,
    tcp_flags: u16,
    tos: u8,
}

impl SampledIp {
    pub(super) fn read_v4(bytes: &[u8]) -> Option<SampledIp> {
        Self::read(bytes, |cursor| Some(Addresses::V4(cursor.array().ok()?)))
    }

    pub(super) fn read_v6(bytes: &[u8]) -> Option<SampledIp> {
        Self::read(bytes, |cursor| Some(Addresses::V6(cursor.array().ok()?)))
    }

    /// A value that is too large for its field, or bytes left over, and the record travels whole.
    fn read(bytes: &[u8], addresses: impl FnOnce(&mut Cursor<'_>) -> Option<Addresses>) -> Option<SampledIp> {
        let mut cursor = Cursor::new(bytes);
        let sampled = SampledIp {
            length: cursor.u32().ok()?,
            protocol: cursor.u32().ok()?.try_into().ok()?,
            addresses: addresses(&mut cursor)?,
            ports: Ports {
                source: cursor.u32().ok()?.try_into().ok()?,
                destination: cursor.u32().ok()?.try_into().ok()?,
            },
            tcp_flags: cursor.u32().ok()?.try_into().ok()?,
            tos: cursor.u32().ok()?.try_into().ok()?,
        };
        (cursor.left() == 0).then_some(sampled)
    }

    /// Fills in what the packet does not say yet; true when they do not disagree.
    pub(super) fn fill(&self, packet: &mut Packet) -> bool {
        let is_v6 = matches!(self.addresses, Addresses::V6(_));
        let is_header_there = packet.ip.is_some();
        let ip = packet.ip.get_or_insert(Ip::new(is_v6));
        if *ip.addresses.get_or_insert(self.addresses) != self.addresses {
            return false;
        }
        let length = Some(self.length).filter(|length| *length > 0);
        let does_length_agree = ip.total_length.is_none_or(|known| Some(known) == length);
        ip.total_length = ip.total_length.or(length);
        does_length_agree
            && *ip.protocol.get_or_insert(self.protocol) == self.protocol
            && *ip.tos.get_or_insert(self.tos) == self.tos
            && self.fill_transport(packet, is_header_there)
    }

    fn fill_transport(&self, packet: &mut Packet, is_header_there: bool) -> bool {
        const TCP: u8 = 6;
        const NONE: Ports = Ports { source: 0, destination: 0 };
        // ICMP and later fragments have no ports, and their records zeros.
        let do_ports_agree = match packet.ports {
            None if is_header_there && self.ports == NONE => true,
            None if packet.icmp.is_some() => false,
            _ => *packet.ports.get_or_insert(self.ports) == self.ports,
        };
        let do_flags_agree = match packet.tcp_flags {
            None if self.protocol != TCP || packet.ports.is_none() => self.tcp_flags == 0,
            _ => *packet.tcp_flags.get_or_insert(self.tcp_flags) == self.tcp_flags,
        };
        do_ports_agree && do_flags_agree
    }
}

/// What a router did with the packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Router {
    pub(super) next_hop: Address,
    /// Source and destination mask, in bits.
    pub(super) masks: [u8; 2],
}

impl Router {
    pub(super) fn read(bytes: &[u8]) -> Option<Router> {
        let mut cursor = Cursor::new(bytes);
        let next_hop = address(&mut cursor)?;
        let source = u8::try_from(cursor.u32().ok()?).ok()?;
        let destination = u8::try_from(cursor.u32().ok()?).ok()?;
        (cursor.left() == 0).then_some(Router { next_hop, masks: [source, destination] })
    }
}

/// What BGP knows of the packet's way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gateway {
    pub(super) next_hop: Address,
    /// The gateway's own AS, the source's, the source's peer's.
    pub(super) own: u32,
    pub(super) source: u32,
    pub(super) source_peer: u32,
    /// The first AS on the way; 0 without a path, and for a set of several.
    pub(super) destination_peer: u32,
    /// The last AS on the way; 0 as before.
    pub(super) destination: u32,
    pub(super) local_preference: u32,
    /// There is no more to the record than this.
    pub(super) is_whole: bool,
}

impl Gateway {
    /// Counts are followed only as far as there are bytes.
    pub(super) fn read(bytes: &[u8]) -> Option<Gateway> {
        let mut cursor = Cursor::new(bytes);
        let next_hop = address(&mut cursor)?;
        let (own, source, source_peer) = (cursor.u32().ok()?, cursor.u32().ok()?, cursor.u32().ok()?);
        let segments = cursor.u32().ok()?;
        let mut ends = None;
        for _ in 0..segments {
            let (first, last) = segment(&mut cursor)?;
            ends = Some((ends.map_or(first, |(known, _)| known), last));
        }
        let communities = cursor.u32().ok()?;
        cursor.take((communities as usize).checked_mul(4)?).ok()?;
        let local_preference = cursor.u32().ok()?;
        let (destination_peer, destination) = ends.unwrap_or_default();
        let is_whole = segments == 0 && communities == 0 && cursor.left() == 0;
        Some(Gateway {
            next_hop,
            own,
            source,
            source_peer,
            destination_peer,
            destination,
            local_preference,
            is_whole,
        })
    }
}

/// First and last AS of a path's segment.
fn segment(cursor: &mut Cursor<'_>) -> Option<(u32, u32)> {
    const SET: u32 = 1;
    let kind = cursor.u32().ok()?;
    let count = cursor.u32().ok()? as usize;
    let numbers = cursor.take(count.checked_mul(4)?).ok()?;
    // Which AS of a set it is, nobody knows.
    if kind == SET && count > 1 {
        return Some((0, 0));
    }
    let number = |bytes: Option<&[u8; 4]>| bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes));
    Some((number(numbers.first_chunk()), number(numbers.last_chunk())))
}

/// Addresses after translation.
pub(super) fn nat(bytes: &[u8]) -> Option<Addresses> {
    let mut cursor = Cursor::new(bytes);
    let addresses = match (address(&mut cursor)?, address(&mut cursor)?) {
        (Address::V4(source), Address::V4(destination)) => {
            let mut both = [0; 8];
            both.iter_mut().zip(source.iter().chain(&destination)).for_each(|(to, from)| *to = *from);
            Addresses::V4(both)
        }
        (Address::V6(source), Address::V6(destination)) => {
            let mut both = [0; 32];
            both.iter_mut().zip(source.iter().chain(&destination)).for_each(|(to, from)| *to = *from);
            Addresses::V6(both)
        }
        _ => return None,
    };
    (cursor.left() == 0).then_some(addresses)
}

/// Ports after translation.
pub(super) fn nat_ports(bytes: &[u8]) -> Option<[u8; 4]> {
    match *bytes {
        [0, 0, a, b, 0, 0, c, d] => Some([a, b, c, d]),
        _ => None,
    }
}
