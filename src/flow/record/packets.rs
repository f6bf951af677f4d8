//! What follows from the piece of a packet that a record holds (PSAMP, RFC 5477; also NetFlow-lite).
//!
//! | the record has | it begins with |
//! |---|---|
//! | `dataLinkFrameSection` (315), `layer2packetSectionData` (104) | an Ethernet frame, unless `dataLinkFrameType` (408) is another |
//! | `ipHeaderPacketSection` (313) | an IP header |
//! | `mplsLabelStackSection` (316) | MPLS labels |
//!
//! From the first of them come, each only where the record does not have the element itself:
//!
//! | element | from |
//! |---|---|
//! | 80, 56, 256, 243 to 246 | Ethernet: addresses, type, tags |
//! | 70 to 79 | MPLS labels |
//! | 8, 12, 27, 28, 4, 5, 192, 31, 54, 88, 197 | IP; 4 is what stands below the extension headers |
//! | 7, 11, 6, 32, 139 | TCP, UDP, SCTP; ICMP |
//! | 1, 2 | the length in the IP header, and one packet; not if the record has any of 1, 2, 85, 86 |
//!
//! | if | then |
//! |---|---|
//! | the piece does not begin at the packet's start (409, 102 not 0) | nothing follows from it |
//! | it is cut inside a header | what is whole of it follows, and no more |
//! | the field is longer than the piece (410, 103) | what is behind it is padding |

use super::json;
use crate::batch::read::Group;
use crate::flow::element;
use crate::flow::json::unsigned_64;
use crate::flow::packet::{Addresses, Fragment, Ip, Link, Packet, Tag, parse};
use std::collections::{HashMap, HashSet};

/// Columns that hold a piece of a packet, best first.
const SECTIONS: [(u16, Link); 4] =
    [(315, Link::Ethernet), (104, Link::Ethernet), (313, Link::Ip), (316, Link::Mpls)];

/// dataLinkFrameType of Ethernet (IANA, "dataLinkFrameType").
const ETHERNET: u64 = 1;

/// The piece that a group's records hold, and what they have themselves.
pub(super) struct Section {
    column: usize,
    link: Link,
    /// 409 and 102: where in the packet it begins.
    offsets: Vec<usize>,
    /// 410 and 103: how long it is.
    lengths: Vec<usize>,
    /// 408, if the piece is a frame.
    frame_type: Option<usize>,
    has: HashSet<u16>,
    has_counters: bool,
}

impl Section {
    /// `columns` are the group's first columns of IANA's elements: element and place.
    pub(super) fn of(columns: &HashMap<u16, usize>) -> Option<Self> {
        let place = |element: u16| columns.get(&element).copied();
        let (column, link) =
            SECTIONS.into_iter().find_map(|(element, link)| Some((place(element)?, link)))?;
        Some(Self {
            column,
            link,
            offsets: [409, 102].into_iter().filter_map(place).collect(),
            lengths: [410, 103].into_iter().filter_map(place).collect(),
            frame_type: place(408).filter(|_| link == Link::Ethernet),
            has: columns.keys().copied().collect(),
            has_counters: [1, 2, 85, 86].into_iter().any(|element| columns.contains_key(&element)),
        })
    }

    /// Appends what follows, each as `,"key":value`.
    pub(super) fn write(&self, out: &mut Vec<u8>, group: &Group, record: usize) {
        let number = |column: &usize| unsigned_64(group.value(*column, record)).unwrap_or(0);
        let is_ethernet = self.frame_type.is_none_or(|column| number(&column) == ETHERNET);
        if !is_ethernet || self.offsets.iter().any(|column| number(column) != 0) {
            return;
        }
        let field = group.value(self.column, record);
        let lengths = self.lengths.iter().map(number).filter_map(|length| usize::try_from(length).ok());
        let length =
            lengths.fold(field.len(), |least, length| if length == 0 { least } else { least.min(length) });
        let packet = parse(self.link, field.get(..length).unwrap_or(field));
        let mut line = Line { out, section: self };
        line.link(&packet);
        if let Some(ip) = packet.ip {
            line.network(&ip);
            line.transport(&packet, &ip);
        }
    }
}

/// The end of a record's line.
struct Line<'a> {
    out: &'a mut Vec<u8>,
    section: &'a Section,
}

impl Line<'_> {
    fn put(&mut self, element: u16, bytes: &[u8]) {
        let Some(element) = element::find(element).filter(|found| !self.section.has.contains(&found.id))
        else {
            return;
        };
        self.out.push(b',');
        json::write_text(self.out, element.name);
        self.out.push(b':');
        json::write_value(self.out, element.element_type.into(), bytes);
    }

    /// Two values of the same length, one behind the other.
    fn put_both(&mut self, [first, second]: [u16; 2], both: &[u8]) {
        let (one, other) = both.split_at(both.len() / 2);
        self.put(first, one);
        self.put(second, other);
    }

    fn link(&mut self, packet: &Packet) {
        if let Some(macs) = packet.macs {
            self.put_both([80, 56], &macs);
        }
        if let Some(kind) = packet.ethertype {
            self.put(256, &kind.to_be_bytes());
        }
        for (elements, tag) in [([243, 244], packet.outer), ([245, 246], packet.inner)] {
            if let Some(Tag { id, priority }) = tag {
                self.put(elements[0], &id.to_be_bytes());
                self.put(elements[1], &[priority]);
            }
        }
        for (element, label) in (70..80).zip(packet.labels.entries()) {
            self.put(element, label);
        }
    }

    fn network(&mut self, ip: &Ip) {
        match ip.addresses {
            Some(Addresses::V4(both)) => self.put_both([8, 12], &both),
            Some(Addresses::V6(both)) => self.put_both([27, 28], &both),
            None => {}
        }
        for (element, byte) in [(4, ip.protocol), (5, ip.tos), (192, ip.ttl)] {
            if let Some(byte) = byte {
                self.put(element, &[byte]);
            }
        }
        if let Some(label) = ip.flow_label {
            self.put(31, &label.to_be_bytes());
        }
        if let Some(Fragment { id, offset, flags }) = ip.fragment {
            self.put(54, &id.to_be_bytes());
            self.put(88, &offset.to_be_bytes());
            self.put(197, &[flags]);
        }
        if let Some(length) = ip.total_length.filter(|_| !self.section.has_counters) {
            self.put(1, &length.to_be_bytes());
            self.put(2, &[1]);
        }
    }

    fn transport(&mut self, packet: &Packet, ip: &Ip) {
        if let Some(ports) = packet.ports {
            self.put(7, &ports.source.to_be_bytes());
            self.put(11, &ports.destination.to_be_bytes());
        }
        if let Some(flags) = packet.tcp_flags {
            self.put(6, &flags.to_be_bytes());
        }
        if let Some(icmp) = packet.icmp {
            self.put(if ip.is_v6 { 139 } else { 32 }, &[icmp.kind, icmp.code]);
        }
    }
}
