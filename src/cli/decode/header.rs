//! What tells a flow datagram from others, and what its header says of it.
//!
//! | protocol | bytes of the header | domain at |
//! |---|---|---|
//! | NetFlow v1, v5, v7 | 16, 24, 24 | v5: 20 (two bytes) |
//! | NetFlow v9 | 20 | 16 |
//! | IPFIX | 16 | 12 |
//! | sFlow v5 | 28, or 40 when the agent's address is IPv6 | the sub-agent, at 12 or 24 |
//!
//! Datagrams to or from a port that flow is known to use are taken for flow whatever is in them; at other ports the
//! version must be one of these, and the length one that holds what the header counts.

use crate::capture;
use crate::proto::Protocol;

/// Ports that exporters use by default, or that their manuals name.
const FLOW_PORTS: [u16; 10] = [2055, 2056, 4739, 6343, 9555, 9991, 9992, 9993, 9995, 9996];

const V1_HEADER_BYTES: usize = 16;
const V1_RECORD_BYTES: usize = 48;
const V5_HEADER_BYTES: usize = 24;
const V5_RECORD_BYTES: usize = 48;
const V7_RECORD_BYTES: usize = 52;
const V9_HEADER_BYTES: usize = 20;
const IPFIX_HEADER_BYTES: usize = 16;
const SFLOW_HEADER_BYTES: usize = 28;

/// What a datagram's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) protocol: Protocol,
    /// Observation domain, source id, engine, sub-agent.
    pub(super) domain: u32,
}

/// The datagram is to be decoded.
pub(super) fn is_flow(datagram: &capture::Datagram<'_>) -> bool {
    let is_known = |port| FLOW_PORTS.contains(&port);
    is_known(datagram.destination.port) || is_known(datagram.exporter.port) || looks_like_flow(datagram)
}

fn looks_like_flow(datagram: &capture::Datagram<'_>) -> bool {
    let (bytes, length) = (datagram.bytes, datagram.bytes.len() + datagram.missing);
    // The count of other traffic would hardly fit its length.
    let is_whole = |header: usize, record: usize| {
        let count = usize::from(u16_at(bytes, 2).unwrap_or(0));
        count > 0 && length >= header + count * record
    };
    match read(bytes).map(|header| header.protocol) {
        Some(Protocol::NetflowV1) => is_whole(V1_HEADER_BYTES, V1_RECORD_BYTES),
        Some(Protocol::NetflowV5) => is_whole(V5_HEADER_BYTES, V5_RECORD_BYTES),
        Some(Protocol::NetflowV7) => is_whole(V5_HEADER_BYTES, V7_RECORD_BYTES),
        Some(Protocol::NetflowV9) => length >= V9_HEADER_BYTES,
        Some(Protocol::Ipfix) => u16_at(bytes, 2)
            .map(usize::from)
            .is_some_and(|says| (IPFIX_HEADER_BYTES..=length).contains(&says)),
        Some(Protocol::SflowV5) => length >= SFLOW_HEADER_BYTES && matches!(u32_at(bytes, 4), Some(1 | 2)),
        Some(Protocol::Unknown) | None => false,
    }
}

/// Reads the header, as far as it is of a version that we know.
pub(super) fn read(bytes: &[u8]) -> Option<Header> {
    if u32_at(bytes, 0)? == 5 {
        let sub_agent_at = if u32_at(bytes, 4) == Some(2) { 24 } else { 12 };
        return Some(Header {
            protocol: Protocol::SflowV5,
            domain: u32_at(bytes, sub_agent_at).unwrap_or(0),
        });
    }
    let domain = |at: usize| u32_at(bytes, at).unwrap_or(0);
    let (protocol, domain) = match u16_at(bytes, 0)? {
        1 => (Protocol::NetflowV1, 0),
        5 => (Protocol::NetflowV5, u32::from(u16_at(bytes, 20).unwrap_or(0))),
        7 => (Protocol::NetflowV7, 0),
        9 => (Protocol::NetflowV9, domain(16)),
        10 => (Protocol::Ipfix, domain(12)),
        _ => return None,
    };
    Some(Header { protocol, domain })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Exporter;

    fn is_flow_at(port: u16, start: &[u8], length: usize) -> bool {
        let mut bytes = start.to_vec();
        bytes.resize(length, 0);
        let end = |port| Exporter { address: [192, 0, 2, 1].into(), port };
        let (exporter, destination) = (end(50_000), end(port));
        is_flow(&capture::Datagram { exporter, destination, received: 0, missing: 0, bytes: &bytes })
    }

    #[test]
    fn known_ports_are_enough() {
        assert!(is_flow_at(2055, b"anything", 8));
        assert!(!is_flow_at(53, b"anything", 8));
    }

    #[test]
    fn elsewhere_version_and_length_must_fit() {
        for (start, length, is_flow) in [
            (&[0, 1, 0, 1][..], 16 + 52, true),
            (&[0, 1, 0, 2], 16 + 2 * 48, true),
            (&[0, 1, 0, 1], 60, false),
            (&[0, 1, 1, 0], 500, false),
            (&[0, 5, 0, 2], 24 + 2 * 48, true),
            (&[0, 5, 0, 2], 24 + 2 * 48 + 3, true),
            (&[0, 5, 0, 0], 24 + 48, false),
            (&[0, 7, 0, 1], 24 + 52, true),
            (&[0, 9], 20, true),
            (&[0, 9], 19, false),
            (&[0, 10, 0, 40], 40, true),
            (&[0, 10, 0, 41], 40, false),
            (&[0, 10, 0, 4], 40, false),
            (&[0, 0, 0, 5, 0, 0, 0, 1], 28, true),
            (&[0, 0, 0, 5, 0, 0, 0, 3], 28, false),
            (&[0, 11], 100, false),
            (&[0], 1, false),
        ] {
            assert_eq!(is_flow_at(53, start, length), is_flow, "{start:?} {length}");
        }
    }
}
