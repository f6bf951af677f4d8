//! Flow samples and drop samples: from their records to one row.
//!
//! | if | then |
//! |---|---|
//! | a record's structure is not known, not whole, or was there before in the sample | it travels whole |
//! | a gateway record has a path or communities | it is mapped and travels whole too |
//! | sampled IP or Ethernet stands beside a sampled header | it fills in what the header does not reach to; if it disagrees, it travels whole |
//! | a VLAN is over 4095 | it has no column; but for 0xffffffff, which means unknown, the record travels whole |
//! | a mask is over 255 | the record travels whole |

use super::parts::{LABELS, Part};
use super::rows::Row;
use super::sample::{Record, Records};
use super::structures::{Address, Ethernet, Gateway, Header, Router, SampledIp, nat, nat_ports};
use crate::flow::packet::{Addresses, Fragment, Packet, Tag};

/// What the records of a sample say.
#[derive(Debug, Default)]
pub(super) struct Found<'a> {
    header: Option<Header>,
    ethernet: Option<(Ethernet, Record<'a>)>,
    ip: Option<(SampledIp, Record<'a>)>,
    switch: Option<[u8; 16]>,
    router: Option<Router>,
    gateway: Option<Gateway>,
    nat: Option<Addresses>,
    nat_ports: Option<[u8; 4]>,
}

/// Takes `read` if the place is free.
fn fill<T>(place: &mut Option<T>, read: Option<T>) -> bool {
    match read {
        Some(read) if place.is_none() => {
            *place = Some(read);
            true
        }
        _ => false,
    }
}

impl<'a> Found<'a> {
    /// Reads the records; tells also how far that went.
    pub(super) fn read(mut records: Records<'a>, row: &mut Row<'_>) -> (Found<'a>, Records<'a>) {
        let mut found = Found::default();
        for record in &mut records {
            if !found.take(record) {
                row.keep(&record);
            }
        }
        (found, records)
    }

    /// True when nothing of the record is left to travel.
    fn take(&mut self, record: Record<'a>) -> bool {
        if record.enterprise != 0 {
            return false;
        }
        let bytes = record.bytes;
        match record.format {
            1 => {
                let header = Header::read(bytes);
                fill(&mut self.header, header) && header.is_some_and(|header| !header.is_foreign)
            }
            2 => fill(&mut self.ethernet, Ethernet::read(bytes).map(|read| (read, record))),
            3 => fill(&mut self.ip, SampledIp::read_v4(bytes).map(|read| (read, record))),
            4 => fill(&mut self.ip, SampledIp::read_v6(bytes).map(|read| (read, record))),
            1001 => {
                let switch = bytes.try_into().ok();
                fill(&mut self.switch, switch) && switch.is_some_and(|switch| has_only_vlans(&switch))
            }
            1002 => fill(&mut self.router, Router::read(bytes)),
            1003 => {
                let gateway = Gateway::read(bytes);
                fill(&mut self.gateway, gateway) && gateway.is_some_and(|gateway| gateway.is_whole)
            }
            1007 => fill(&mut self.nat, nat(bytes)),
            1020 => fill(&mut self.nat_ports, nat_ports(bytes)),
            _ => false,
        }
    }

    /// Puts everything into the row.
    pub(super) fn put(&self, row: &mut Row<'_>, is_dropped: bool) {
        let mut packet = self.header.map(|header| header.packet).unwrap_or_default();
        if let Some((ethernet, record)) = &self.ethernet
            && !self.fill_ethernet(ethernet, &mut packet)
        {
            row.keep(record);
        }
        if let Some((ip, record)) = &self.ip
            && !ip.fill(&mut packet)
        {
            row.keep(record);
        }
        put_counts(row, &packet, is_dropped);
        if let Some(header) = self.header {
            row.put(Part::Header, header.head);
        } else if let Some((ethernet, _)) = self.ethernet {
            row.put(Part::FrameLength, ethernet.length);
        }
        put_link(row, &packet);
        put_network(row, &packet);
        put_transport(row, &packet);
        self.put_extended(row, &packet);
    }

    /// True when the frame and the header do not disagree.
    fn fill_ethernet(&self, ethernet: &Ethernet, packet: &mut Packet) -> bool {
        let length = self.header.map_or(ethernet.length, |header| header.frame_length());
        length == ethernet.length
            && *packet.macs.get_or_insert(ethernet.macs) == ethernet.macs
            && *packet.ethertype.get_or_insert(ethernet.kind) == ethernet.kind
    }

    fn put_extended(&self, row: &mut Row<'_>, packet: &Packet) {
        if let Some(switch) = self.switch {
            put_switch(row, switch);
        }
        if let Some(router) = self.router {
            put_router(row, router, packet);
        }
        if let Some(gateway) = self.gateway {
            put_gateway(row, gateway);
        }
        match self.nat {
            Some(Addresses::V4(both)) => row.put(Part::NatV4, both),
            Some(Addresses::V6(both)) => row.put(Part::NatV6, both),
            None => {}
        }
        if let Some(ports) = self.nat_ports {
            row.put(Part::NatPorts, ports);
        }
    }
}

fn put_counts(row: &mut Row<'_>, packet: &Packet, is_dropped: bool) {
    let (packets, octets) = match is_dropped {
        true => (Part::DroppedPackets, Part::DroppedOctets),
        false => (Part::Packets, Part::Octets),
    };
    row.put_numbers(packets, [1]);
    if let Some(length) = packet.ip.and_then(|ip| ip.total_length) {
        row.put_numbers(octets, [length]);
    }
}

fn put_link(row: &mut Row<'_>, packet: &Packet) {
    if let Some(macs) = packet.macs {
        row.put(Part::Macs, macs);
    }
    if let Some(kind) = packet.ethertype {
        row.put(Part::EtherType, kind.to_be_bytes());
    }
    for (part, tag) in [(Part::OuterTag, packet.outer), (Part::InnerTag, packet.inner)] {
        if let Some(Tag { id, priority }) = tag {
            let [high, low] = id.to_be_bytes();
            row.put(part, [high, low, priority]);
        }
    }
    for (part, label) in LABELS.into_iter().zip(packet.labels.entries()) {
        row.put(part, *label);
    }
}

fn put_network(row: &mut Row<'_>, packet: &Packet) {
    let Some(ip) = packet.ip else { return };
    match ip.addresses {
        Some(Addresses::V4(both)) => row.put(Part::Ipv4, both),
        Some(Addresses::V6(both)) => row.put(Part::Ipv6, both),
        None => {}
    }
    for (part, byte) in [(Part::Protocol, ip.protocol), (Part::Tos, ip.tos), (Part::Ttl, ip.ttl)] {
        if let Some(byte) = byte {
            row.put(part, [byte]);
        }
    }
    if let Some(label) = ip.flow_label {
        row.put_numbers(Part::FlowLabel, [label]);
    }
    if let Some(Fragment { id, offset, flags }) = ip.fragment {
        let ([a, b, c, d], [e, f]) = (id.to_be_bytes(), offset.to_be_bytes());
        row.put(Part::Fragment, [a, b, c, d, e, f, flags]);
    }
}

fn put_transport(row: &mut Row<'_>, packet: &Packet) {
    if let Some(ports) = packet.ports {
        let ([a, b], [c, d]) = (ports.source.to_be_bytes(), ports.destination.to_be_bytes());
        row.put(Part::Ports, [a, b, c, d]);
    }
    if let Some(flags) = packet.tcp_flags {
        row.put(Part::TcpFlags, flags.to_be_bytes());
    }
    if let (Some(icmp), Some(ip)) = (packet.icmp, packet.ip) {
        row.put(if ip.is_v6 { Part::IcmpV6 } else { Part::IcmpV4 }, [icmp.kind, icmp.code]);
    }
}

/// The column of a VLAN; there is none for a number that is no VLAN's.
fn vlan(number: [u8; 4]) -> Option<[u8; 2]> {
    match number {
        [0, 0, high @ 0..=0x0f, low] => Some([high, low]),
        _ => None,
    }
}

/// VLANs, or the number that means unknown.
fn has_only_vlans(switch: &[u8; 16]) -> bool {
    let [a, b, c, d, _, _, _, _, e, f, g, h, ..] = *switch;
    [[a, b, c, d], [e, f, g, h]].into_iter().all(|number| number == [0xff; 4] || vlan(number).is_some())
}

fn put_switch(row: &mut Row<'_>, switch: [u8; 16]) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = switch;
    if let Some(vlan) = vlan([a, b, c, d]) {
        row.put(Part::SourceVlan, vlan);
    }
    row.put(Part::SourcePriority, [e, f, g, h]);
    if let Some(vlan) = vlan([i, j, k, l]) {
        row.put(Part::DestinationVlan, vlan);
    }
    row.put(Part::DestinationPriority, [m, n, o, p]);
}

/// Masks are of the packet's family; when the packet does not say, of the next hop's.
fn put_router(row: &mut Row<'_>, router: Router, packet: &Packet) {
    match router.next_hop {
        Address::V4(address) => row.put(Part::NextHopV4, address),
        Address::V6(address) => row.put(Part::NextHopV6, address),
        Address::Unknown => {}
    }
    let is_v6 = packet.ip.map_or(matches!(router.next_hop, Address::V6(_)), |ip| ip.is_v6);
    row.put(if is_v6 { Part::MasksV6 } else { Part::MasksV4 }, router.masks);
}

fn put_gateway(row: &mut Row<'_>, gateway: Gateway) {
    match gateway.next_hop {
        Address::V4(address) => row.put(Part::BgpNextHopV4, address),
        Address::V6(address) => row.put(Part::BgpNextHopV6, address),
        Address::Unknown => {}
    }
    row.put_numbers(
        Part::Gateway,
        [
            gateway.own,
            gateway.source,
            gateway.source_peer,
            gateway.destination_peer,
            gateway.destination,
            gateway.local_preference,
        ],
    );
}
