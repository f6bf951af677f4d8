//! Elements of sFlow: what its samples say and IANA's registry has no element for.
//!
//! They stand under sFlow's own enterprise number; the numbers within it are this program's. Names are those of the
//! structures of the sFlow version 5 specification (<https://sflow.org/sflow_version_5.txt>) and of the dropped packet
//! notification structures (<https://sflow.org/sflow_drops.txt>), in camel case.

use super::element::Semantics::*;
use super::element::Type::*;
use super::element::{Element, Semantics, Type};

/// The enterprise number of sFlow's own MIB.
pub const SFLOW: u32 = 14_706;

const fn row(id: u16, name: &'static str, element_type: Type, semantics: Semantics) -> Element {
    Element { id, name, element_type, semantics, units: "" }
}

/// The element of this number.
pub(super) fn find(id: u16) -> Option<&'static Element> {
    ELEMENTS.binary_search_by_key(&id, |element| element.id).ok().and_then(|place| ELEMENTS.get(place))
}

/// All of them, by id.
pub(super) const ELEMENTS: &[Element] = &[
    // A record whole: its data format (enterprise * 4096 + format) in 4 bytes, then its bytes.
    row(1, "sflowRecord", OctetArray, Default),
    // flow_sample, counters_sample, discarded_packet.
    row(2, "sampleSequence", Unsigned32, Identifier),
    row(3, "sourceIdClass", Unsigned32, Identifier),
    row(4, "sourceIdIndex", Unsigned32, Identifier),
    row(5, "samplePool", Unsigned32, TotalCounter),
    row(6, "drops", Unsigned32, TotalCounter),
    // What elements 10 and 14 hold: 0 an ifIndex, 1 a reason for the packet's discard, 2 a number of interfaces.
    row(7, "inputFormat", Unsigned32, Identifier),
    row(8, "outputFormat", Unsigned32, Identifier),
    row(9, "reason", Unsigned32, Identifier),
    // sampled_header.
    row(10, "headerProtocol", Unsigned32, Identifier),
    row(11, "stripped", Unsigned32, Quantity),
    // extended_switch.
    row(12, "srcPriority", Unsigned32, Identifier),
    row(13, "dstPriority", Unsigned32, Identifier),
    // extended_gateway.
    row(14, "gatewayAs", Unsigned32, Identifier),
    row(15, "localpref", Unsigned32, Quantity),
    // if_counters.
    row(101, "ifIndex", Unsigned32, Identifier),
    row(102, "ifType", Unsigned32, Identifier),
    row(103, "ifSpeed", Unsigned64, SnmpGauge),
    row(104, "ifDirection", Unsigned32, Identifier),
    row(105, "ifStatus", Unsigned32, Flags),
    row(106, "ifInOctets", Unsigned64, SnmpCounter),
    row(107, "ifInUcastPkts", Unsigned32, SnmpCounter),
    row(108, "ifInMulticastPkts", Unsigned32, SnmpCounter),
    row(109, "ifInBroadcastPkts", Unsigned32, SnmpCounter),
    row(110, "ifInDiscards", Unsigned32, SnmpCounter),
    row(111, "ifInErrors", Unsigned32, SnmpCounter),
    row(112, "ifInUnknownProtos", Unsigned32, SnmpCounter),
    row(113, "ifOutOctets", Unsigned64, SnmpCounter),
    row(114, "ifOutUcastPkts", Unsigned32, SnmpCounter),
    row(115, "ifOutMulticastPkts", Unsigned32, SnmpCounter),
    row(116, "ifOutBroadcastPkts", Unsigned32, SnmpCounter),
    row(117, "ifOutDiscards", Unsigned32, SnmpCounter),
    row(118, "ifOutErrors", Unsigned32, SnmpCounter),
    row(119, "ifPromiscuousMode", Unsigned32, Identifier),
    // ethernet_counters.
    row(201, "dot3StatsAlignmentErrors", Unsigned32, SnmpCounter),
    row(202, "dot3StatsFCSErrors", Unsigned32, SnmpCounter),
    row(203, "dot3StatsSingleCollisionFrames", Unsigned32, SnmpCounter),
    row(204, "dot3StatsMultipleCollisionFrames", Unsigned32, SnmpCounter),
    row(205, "dot3StatsSQETestErrors", Unsigned32, SnmpCounter),
    row(206, "dot3StatsDeferredTransmissions", Unsigned32, SnmpCounter),
    row(207, "dot3StatsLateCollisions", Unsigned32, SnmpCounter),
    row(208, "dot3StatsExcessiveCollisions", Unsigned32, SnmpCounter),
    row(209, "dot3StatsInternalMacTransmitErrors", Unsigned32, SnmpCounter),
    row(210, "dot3StatsCarrierSenseErrors", Unsigned32, SnmpCounter),
    row(211, "dot3StatsFrameTooLongs", Unsigned32, SnmpCounter),
    row(212, "dot3StatsInternalMacReceiveErrors", Unsigned32, SnmpCounter),
    row(213, "dot3StatsSymbolErrors", Unsigned32, SnmpCounter),
    // vlan_counters.
    row(501, "octets", Unsigned64, SnmpCounter),
    row(502, "ucastPkts", Unsigned32, SnmpCounter),
    row(503, "multicastPkts", Unsigned32, SnmpCounter),
    row(504, "broadcastPkts", Unsigned32, SnmpCounter),
    row(505, "discards", Unsigned32, SnmpCounter),
    // processor; parts of a percent, in hundredths.
    row(1001, "cpu5s", Unsigned32, SnmpGauge),
    row(1002, "cpu1m", Unsigned32, SnmpGauge),
    row(1003, "cpu5m", Unsigned32, SnmpGauge),
    row(1004, "totalMemory", Unsigned64, SnmpGauge),
    row(1005, "freeMemory", Unsigned64, SnmpGauge),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Field;
    use crate::flow::elements;
    use std::collections::HashSet;

    #[test]
    fn the_table_is_sorted_and_its_names_are_keys_of_their_own() {
        assert!(ELEMENTS.is_sorted_by(|a, b| a.id < b.id));
        let both = ELEMENTS.iter().chain(elements::ELEMENTS);
        let names: HashSet<&str> = both.map(|element| element.name).collect();
        assert_eq!(names.len(), ELEMENTS.len() + elements::ELEMENTS.len());
        assert!(ELEMENTS.iter().all(|element| element.name.bytes().all(|byte| byte.is_ascii_alphanumeric())));
    }

    #[test]
    fn names() {
        let field = |element| Field { enterprise: SFLOW, element, width: 4 };
        assert_eq!((field(5).name(), field(5).title()), ("samplePool".to_owned(), "samplePool".to_owned()));
        assert_eq!(field(1).element_type(), Some(OctetArray));
        assert_eq!(field(9_999).name(), "e14706.9999");
        assert_eq!(field(9_999).element_type(), None);
    }
}
