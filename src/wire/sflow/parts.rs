//! The columns of samples' rows: parts that are there or not, each with its fields.
//!
//! A row has its parts in the order of [`Part`], and its shape is the set of them: rows of one shape have one layout.

use crate::flow::{Field, SFLOW};

/// A record that travels whole.
pub(super) const RECORD: Field = own(1, Field::VARIABLE);

const fn iana(element: u16, width: u16) -> Field {
    Field { enterprise: 0, element, width }
}

const fn own(element: u16, width: u16) -> Field {
    Field { enterprise: SFLOW, element, width }
}

/// Makes [`Part`] of a table: each part with its fields in the order of their bytes.
macro_rules! parts {
    ($($part:ident: $($space:ident($element:literal, $width:literal)),+ $(,)?;)+) => {
        /// Fields that come together. The order is that of the columns.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub(super) enum Part {
            $($part,)+
        }

        impl Part {
            /// Every part, in order.
            pub(super) const ALL: &[Part] = &[$(Part::$part,)+];

            /// Its fields, in the order of their bytes.
            pub(super) fn fields(self) -> &'static [Field] {
                match self {
                    $(Part::$part => const { &[$($space($element, $width),)+] },)+
                }
            }
        }
    };
}

parts! {
    AgentV4: iana(130, 4);
    AgentV6: iana(131, 16);
    Source: own(2, 4), own(3, 4), own(4, 4);
    Pool: own(5, 4);
    Drops: own(6, 4);
    Interfaces: iana(10, 4), iana(14, 4);
    InputFormat: own(7, 4);
    OutputFormat: own(8, 4);
    Reason: own(9, 4);
    ForwardingStatus: iana(89, 1);
    Packets: iana(2, 4);
    Octets: iana(1, 4);
    DroppedPackets: iana(133, 4);
    DroppedOctets: iana(132, 4);
    Header: own(10, 4), iana(352, 4), own(11, 4);
    FrameLength: iana(352, 4);
    Macs: iana(80, 6), iana(56, 6);
    EtherType: iana(256, 2);
    OuterTag: iana(243, 2), iana(244, 1);
    InnerTag: iana(245, 2), iana(246, 1);
    Label1: iana(70, 3);
    Label2: iana(71, 3);
    Label3: iana(72, 3);
    Label4: iana(73, 3);
    Label5: iana(74, 3);
    Label6: iana(75, 3);
    Label7: iana(76, 3);
    Label8: iana(77, 3);
    Label9: iana(78, 3);
    Label10: iana(79, 3);
    Ipv4: iana(8, 4), iana(12, 4);
    Ipv6: iana(27, 16), iana(28, 16);
    Protocol: iana(4, 1);
    Tos: iana(5, 1);
    Ttl: iana(192, 1);
    FlowLabel: iana(31, 4);
    Fragment: iana(54, 4), iana(88, 2), iana(197, 1);
    Ports: iana(7, 2), iana(11, 2);
    TcpFlags: iana(6, 2);
    IcmpV4: iana(32, 2);
    IcmpV6: iana(139, 2);
    SourceVlan: iana(58, 2);
    SourcePriority: own(12, 4);
    DestinationVlan: iana(59, 2);
    DestinationPriority: own(13, 4);
    NextHopV4: iana(15, 4);
    NextHopV6: iana(62, 16);
    MasksV4: iana(9, 1), iana(13, 1);
    MasksV6: iana(29, 1), iana(30, 1);
    BgpNextHopV4: iana(18, 4);
    BgpNextHopV6: iana(63, 16);
    Gateway: own(14, 4), iana(16, 4), iana(129, 4), iana(128, 4), iana(17, 4), own(15, 4);
    NatV4: iana(225, 4), iana(226, 4);
    NatV6: iana(281, 16), iana(282, 16);
    NatPorts: iana(227, 2), iana(228, 2);
    InterfaceCounters:
        own(101, 4), own(102, 4), own(103, 8), own(104, 4), own(105, 4), own(106, 8), own(107, 4),
        own(108, 4), own(109, 4), own(110, 4), own(111, 4), own(112, 4), own(113, 8), own(114, 4),
        own(115, 4), own(116, 4), own(117, 4), own(118, 4), own(119, 4),
    ;
    EthernetCounters:
        own(201, 4), own(202, 4), own(203, 4), own(204, 4), own(205, 4), own(206, 4), own(207, 4),
        own(208, 4), own(209, 4), own(210, 4), own(211, 4), own(212, 4), own(213, 4),
    ;
    VlanCounters: iana(58, 4), own(501, 8), own(502, 4), own(503, 4), own(504, 4), own(505, 4);
    Processor: own(1001, 4), own(1002, 4), own(1003, 4), own(1004, 8), own(1005, 8);
}

impl Part {
    /// Its bit in a shape.
    pub(super) const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// Bytes of its fields.
    pub(super) fn width(self) -> usize {
        self.fields().iter().map(|field| usize::from(field.width)).sum()
    }
}

/// Labels' parts, the top's first.
pub(super) const LABELS: [Part; 10] = [
    Part::Label1,
    Part::Label2,
    Part::Label3,
    Part::Label4,
    Part::Label5,
    Part::Label6,
    Part::Label7,
    Part::Label8,
    Part::Label9,
    Part::Label10,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_a_bit_in_a_shape() {
        assert!(Part::ALL.len() <= 64, "parts");
    }

    #[test]
    fn every_field_has_a_name() {
        for field in Part::ALL.iter().flat_map(|part| part.fields()).chain([&RECORD]) {
            assert!(field.element().is_some(), "{field:?}");
        }
    }

    #[test]
    fn counters_are_as_wide_as_on_the_wire() {
        let widths = [Part::InterfaceCounters, Part::EthernetCounters, Part::VlanCounters, Part::Processor];
        assert_eq!(widths.map(Part::width), [88, 52, 28, 28]);
    }
}
