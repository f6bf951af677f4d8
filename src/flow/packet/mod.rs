//! The headers of a sampled packet: from the frame's first byte to the transport's.
//!
//! ```text
//! Ethernet II | 802.3 LLC/SNAP   tags 802.1Q, 802.1ad   PPPoE   MPLS labels   IPv4 | IPv6   TCP | UDP | SCTP | ICMP
//! ```
//!
//! Samples hold the first bytes of a packet only. Whatever the bytes reach to is given, and a header that is cut
//! gives those of its fields that are whole; nothing is read past the end, and nothing is allocated.
//!
//! | if | then |
//! |---|---|
//! | there are more tags than two | the outermost and the innermost are kept |
//! | there are more MPLS labels than ten | the first ten are kept, and the packet below the last is read |
//! | what the labels carry is neither IPv4 nor IPv6 | nothing below the labels is read (RFC 4928 section 3) |
//! | the packet is a fragment and not the first | it has no ports: its bytes are the middle of a payload |
//! | IPv6 has more than eight extension headers | nothing below the eighth is read |
//! | it is a tunnel (GRE, IP in IP, VXLAN) | the outer packet is read, not the inner one |

mod network;

pub use network::{Addresses, Fragment, Icmp, Ip, Ports};

use network::ip;

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The destination's MAC address (IEEE 802.3).
    Ethernet,
    /// PPP's protocol, with or without address and control before it (RFC 1661, RFC 1662).
    Ppp,
    /// An IP header of either version.
    Ip,
    /// An MPLS label (RFC 3032).
    Mpls,
}

/// What a frame's headers say. `None` is: not there, not reached, or not known to this parser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Both MAC addresses as on the wire: destination, then source.
    pub macs: Option<[u8; 12]>,
    /// What the frame carries below its tags: the EtherType.
    pub ethertype: Option<u16>,
    /// The outermost tag.
    pub outer: Option<Tag>,
    /// The innermost tag of two and more.
    pub inner: Option<Tag>,
    /// MPLS labels.
    pub labels: Labels,
    /// The IP header.
    pub ip: Option<Ip>,
    /// Ports of TCP, UDP, UDP-Lite, DCCP and SCTP.
    pub ports: Option<Ports>,
    /// TCP's flags in the low 9 bits, the reserved ones above.
    pub tcp_flags: Option<u16>,
    /// ICMP and ICMPv6.
    pub icmp: Option<Icmp>,
}

/// An 802.1Q or 802.1ad tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// VLAN id, 12 bits.
    pub id: u16,
    /// Priority code point, 3 bits.
    pub priority: u8,
}

/// Most labels that are kept: as many as IPFIX has elements for (70 to 79).
pub const MAX_LABELS: usize = 10;

/// A stack of MPLS labels, the top first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    entries: [[u8; 3]; MAX_LABELS],
    count: usize,
}

impl Labels {
    /// Label, experimental bits and bottom of stack of each: the first 3 bytes of RFC 3032's 4.
    pub fn entries(&self) -> &[[u8; 3]] {
        self.entries.get(..self.count).unwrap_or(&[])
    }

    fn push(&mut self, entry: [u8; 3]) {
        if let Some(place) = self.entries.get_mut(self.count) {
            *place = entry;
            self.count += 1;
        }
    }
}

/// Reads the headers of a frame that may be cut anywhere.
pub fn parse(link: Link, frame: &[u8]) -> Packet {
    let mut packet = Packet::default();
    let mut rest = Rest(frame);
    // Each reader fills in what it found and gives up at the frame's end.
    let _end = match link {
        Link::Ethernet => ethernet(&mut packet, &mut rest),
        Link::Ppp => ppp(&mut packet, &mut rest),
        Link::Ip => ip(&mut packet, &mut rest),
        Link::Mpls => mpls(&mut packet, &mut rest),
    };
    packet
}

/// What has not been read of a frame.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }
}

mod ethertype {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const IPV6: u16 = 0x86dd;
    pub(super) const MPLS: u16 = 0x8847;
    pub(super) const MPLS_UPSTREAM: u16 = 0x8848;
    pub(super) const PPPOE_SESSION: u16 = 0x8864;
    pub(super) const CUSTOMER_TAG: u16 = 0x8100;
    pub(super) const SERVICE_TAG: u16 = 0x88a8;
    /// Service tags of devices older than 802.1ad.
    pub(super) const OLD_SERVICE_TAGS: [u16; 2] = [0x9100, 0x9200];
    /// Below it is a length (IEEE 802.3 section 3.2.6).
    pub(super) const LEAST: u16 = 0x0600;
}

fn ethernet(packet: &mut Packet, rest: &mut Rest) -> Option<()> {
    packet.macs = Some(rest.take()?);
    let mut kind = rest.u16()?;
    while is_tag(kind) {
        let [high, low] = rest.take()?;
        let tag = Tag { id: u16::from_be_bytes([high & 0x0f, low]), priority: high >> 5 };
        match packet.outer {
            None => packet.outer = Some(tag),
            Some(_) => packet.inner = Some(tag),
        }
        kind = rest.u16()?;
    }
    if kind < ethertype::LEAST {
        kind = snap(rest)?;
    }
    packet.ethertype = Some(kind);
    match kind {
        ethertype::IPV4 | ethertype::IPV6 => ip(packet, rest),
        ethertype::MPLS | ethertype::MPLS_UPSTREAM => mpls(packet, rest),
        ethertype::PPPOE_SESSION => {
            // Version and type, code, session, length (RFC 2516 section 4).
            rest.skip(6)?;
            ppp(packet, rest)
        }
        _ => None,
    }
}

fn is_tag(kind: u16) -> bool {
    matches!(kind, ethertype::CUSTOMER_TAG | ethertype::SERVICE_TAG)
        || ethertype::OLD_SERVICE_TAGS.contains(&kind)
}

/// The EtherType in an LLC header with SNAP (RFC 1042); other LLC has none.
fn snap(rest: &mut Rest) -> Option<u16> {
    const LLC_SNAP: [u8; 3] = [0xaa, 0xaa, 0x03];
    /// Of RFC 1042, and the bridge tunnel's of 802.1H.
    const ORGANIZATIONS: [[u8; 3]; 2] = [[0, 0, 0], [0, 0, 0xf8]];
    if rest.take()? != LLC_SNAP || !ORGANIZATIONS.contains(&rest.take()?) {
        return None;
    }
    rest.u16()
}

fn ppp(packet: &mut Packet, rest: &mut Rest) -> Option<()> {
    const ADDRESS_AND_CONTROL: [u8; 2] = [0xff, 0x03];
    if rest.0.starts_with(&ADDRESS_AND_CONTROL) {
        rest.skip(ADDRESS_AND_CONTROL.len())?;
    }
    let [first] = rest.take()?;
    // An odd first byte is the whole protocol: its leading zero was left out (RFC 1661 section 6.5).
    let protocol = match first & 1 {
        1 => u16::from(first),
        _ => u16::from_be_bytes([first, rest.take::<1>()?[0]]),
    };
    match protocol {
        0x0021 | 0x0057 => ip(packet, rest),
        0x0281 | 0x0283 => mpls(packet, rest),
        _ => None,
    }
}

fn mpls(packet: &mut Packet, rest: &mut Rest) -> Option<()> {
    loop {
        let [first, second, third, _ttl] = rest.take()?;
        packet.labels.push([first, second, third]);
        let is_bottom = third & 1 == 1;
        if is_bottom {
            return ip(packet, rest);
        }
    }
}

#[cfg(test)]
mod tests;
