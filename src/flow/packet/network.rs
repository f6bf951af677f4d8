//! IP and what lies above it, as far as a flow record tells of it.

use super::{Packet, Rest};

/// An IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// IPv6, else IPv4.
    pub is_v6: bool,
    /// Type of service, or traffic class.
    pub tos: Option<u8>,
    /// IPv6's flow label, 20 bits.
    pub flow_label: Option<u32>,
    /// Bytes of the whole packet from its IP header on. Not there when the header says 0: a packet that a network
    /// card will cut (IPv4) or a jumbogram (IPv6).
    pub total_length: Option<u32>,
    /// IPv4 always has it, IPv6 when it is a fragment.
    pub fragment: Option<Fragment>,
    /// Time to live, or hop limit.
    pub ttl: Option<u8>,
    /// What the packet carries; in IPv6 below the extension headers.
    pub protocol: Option<u8>,
    /// Source and destination.
    pub addresses: Option<Addresses>,
}

impl Ip {
    /// A header of which no more is known than its version.
    pub fn new(is_v6: bool) -> Ip {
        Ip {
            is_v6,
            tos: None,
            flow_label: None,
            total_length: None,
            fragment: None,
            ttl: None,
            protocol: None,
            addresses: None,
        }
    }
}

/// Both addresses as on the wire: source, then destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Two of 4 bytes.
    V4([u8; 8]),
    /// Two of 16 bytes.
    V6([u8; 32]),
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The packet's identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// In units of 8 bytes.
    pub offset: u16,
    /// As element 197 has them: 0x40 do not fragment, 0x20 more fragments.
    pub flags: u8,
}

/// Ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Of the sender.
    pub source: u16,
    /// Of the receiver.
    pub destination: u16,
}

/// The head of an ICMP or ICMPv6 message; which of them says the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
}

mod protocol {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ICMP: u8 = 1;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const DCCP: u8 = 33;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const ICMPV6: u8 = 58;
    pub(super) const DESTINATION_OPTIONS: u8 = 60;
    pub(super) const SCTP: u8 = 132;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const UDP_LITE: u8 = 136;
}

/// Extension headers that are walked over.
const MAX_EXTENSIONS: usize = 8;

/// Reads an IP header of the version that it says itself.
pub(super) fn ip(packet: &mut Packet, rest: &mut Rest) -> Option<()> {
    match rest.0.first()? >> 4 {
        4 => ipv4(packet, rest),
        6 => ipv6(packet, rest),
        _ => None,
    }
}

/// RFC 791 section 3.1.
///
/// ```text
/// 0 version, words  1 tos   2 total length   4 identification   6 flags, fragment offset
/// 8 ttl             9 protocol   10 checksum   12 source   16 destination   20 options
/// ```
fn ipv4(packet: &mut Packet, rest: &mut Rest) -> Option<()> {
    let ip = packet.ip.insert(Ip::new(false));
    let [first, tos] = rest.take()?;
    ip.tos = Some(tos);
    ip.total_length = Some(u32::from(rest.u16()?)).filter(|length| *length > 0);
    let id = u32::from(rest.u16()?);
    let place = rest.u16()?;
    let offset = place & 0x1fff;
    ip.fragment = Some(Fragment { id, offset, flags: (place >> 8) as u8 & 0xe0 });
    let [ttl, protocol] = rest.take()?;
    (ip.ttl, ip.protocol) = (Some(ttl), Some(protocol));
    let [_, _] = rest.take()?;
    ip.addresses = Some(Addresses::V4(rest.take()?));
    let options = usize::from(first & 0x0f).checked_sub(5)? * 4;
    rest.skip(options)?;
    if offset > 0 {
        return None;
    }
    transport(packet, protocol, rest)
}

/// RFC 8200 section 3.
///
/// ```text
/// 0 version, traffic class, flow label   4 payload length   6 next header   7 hop limit   8 source   24 destination
/// ```
fn ipv6(packet: &mut Packet, rest: &mut Rest) -> Option<()> {
    const HEADER_BYTES: u32 = 40;
    let ip = packet.ip.insert(Ip::new(true));
    let first = rest.take().map(u32::from_be_bytes)?;
    ip.tos = Some((first >> 20) as u8);
    ip.flow_label = Some(first & 0x000f_ffff);
    let payload = u32::from(rest.u16()?);
    ip.total_length = (payload > 0).then_some(HEADER_BYTES + payload);
    let [next, hop_limit] = rest.take()?;
    (ip.ttl, ip.protocol) = (Some(hop_limit), Some(next));
    ip.addresses = Some(Addresses::V6(rest.take()?));
    let protocol = extensions(ip, next, rest)?;
    transport(packet, protocol, rest)
}

/// Walks over IPv6's extension headers (RFC 8200 section 4, RFC 4302 section 2.2); gives the protocol below them
/// unless that is out of reach or the middle of a packet. `ip.protocol` is the last one seen.
fn extensions(ip: &mut Ip, mut next: u8, rest: &mut Rest) -> Option<u8> {
    for _ in 0..MAX_EXTENSIONS {
        let bytes = match next {
            protocol::FRAGMENT => 0,
            // In words of 4 bytes, less 2.
            protocol::AUTHENTICATION => usize::from(*rest.0.get(1)?) * 4 + 8,
            // In units of 8 bytes, less the first.
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS | protocol::MOBILITY => {
                usize::from(*rest.0.get(1)?) * 8 + 8
            }
            _ => return Some(next),
        };
        let before = next;
        next = *rest.0.first()?;
        ip.protocol = Some(next);
        if before == protocol::FRAGMENT {
            let [_, _, high, low, id @ ..]: [u8; 8] = rest.take()?;
            let place = u16::from_be_bytes([high, low]);
            let flags = if place & 1 == 1 { 0x20 } else { 0 };
            ip.fragment = Some(Fragment { id: u32::from_be_bytes(id), offset: place >> 3, flags });
            if place >> 3 > 0 {
                return None;
            }
        } else {
            rest.skip(bytes)?;
        }
    }
    None
}

fn transport(packet: &mut Packet, protocol: u8, rest: &mut Rest) -> Option<()> {
    match protocol {
        protocol::TCP => {
            ports(packet, rest)?;
            // Sequence and acknowledgement (RFC 9293 section 3.1).
            rest.skip(8)?;
            packet.tcp_flags = Some(rest.u16()? & 0x0fff);
        }
        protocol::UDP | protocol::UDP_LITE | protocol::SCTP | protocol::DCCP => ports(packet, rest)?,
        protocol::ICMP | protocol::ICMPV6 => {
            let [kind, code] = rest.take()?;
            packet.icmp = Some(Icmp { kind, code });
        }
        _ => {}
    }
    Some(())
}

fn ports(packet: &mut Packet, rest: &mut Rest) -> Option<()> {
    let [a, b, c, d] = rest.take()?;
    let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    packet.ports = Some(Ports { source, destination });
    Some(())
}
