//! Information elements: what a field is called and how its bytes are read.
//!
//! The table itself is `elements`; this is its form, the look-up, and the names of fields that are not in it.

use super::Field;
use super::elements::ELEMENTS;

/// The enterprise number that marks the reverse direction of an IANA element (RFC 5103 section 6.1).
pub const REVERSE: u32 = 29_305;

/// One information element of IANA's registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// Its number.
    pub id: u16,
    /// Its name, in camel case.
    pub name: &'static str,
    /// How its bytes are read.
    pub element_type: Type,
    /// What kind of quantity it is.
    pub semantics: Semantics,
    /// Of what; empty if it counts nothing.
    pub units: &'static str,
}

/// The abstract data types (RFC 7012 section 3.1, RFC 6313, RFC 9740).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the registry's own words")]
pub enum Type {
    OctetArray,
    Unsigned8,
    Unsigned16,
    Unsigned32,
    Unsigned64,
    Unsigned256,
    Signed32,
    Float64,
    Boolean,
    MacAddress,
    String,
    DateTimeSeconds,
    DateTimeMilliseconds,
    DateTimeMicroseconds,
    DateTimeNanoseconds,
    Ipv4Address,
    Ipv6Address,
    BasicList,
    SubTemplateList,
    SubTemplateMultiList,
}

/// What kind of quantity a value is (RFC 7012 section 3.2, RFC 6313, RFC 8038).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the registry's own words")]
pub enum Semantics {
    Default,
    Quantity,
    TotalCounter,
    DeltaCounter,
    Identifier,
    Flags,
    List,
    SnmpCounter,
    SnmpGauge,
}

impl Type {
    /// Bytes of a value that is sent in full; `None` if that varies.
    pub const fn length(self) -> Option<u16> {
        Some(match self {
            Self::Unsigned8 | Self::Boolean => 1,
            Self::Unsigned16 => 2,
            Self::Unsigned32 | Self::Signed32 | Self::DateTimeSeconds | Self::Ipv4Address => 4,
            Self::MacAddress => 6,
            Self::Unsigned64 | Self::Float64 => 8,
            Self::DateTimeMilliseconds | Self::DateTimeMicroseconds | Self::DateTimeNanoseconds => 8,
            Self::Ipv6Address => 16,
            Self::Unsigned256 => 32,
            Self::OctetArray | Self::String => return None,
            Self::BasicList | Self::SubTemplateList | Self::SubTemplateMultiList => return None,
        })
    }
}

/// The element of this number in IANA's registry.
pub fn find(id: u16) -> Option<&'static Element> {
    ELEMENTS.binary_search_by_key(&id, |element| element.id).ok().and_then(|place| ELEMENTS.get(place))
}

impl Field {
    /// The registry's element that tells how the field is read: its own, or the one whose reverse direction it is.
    pub fn element(self) -> Option<&'static Element> {
        if matches!(self.enterprise, 0 | REVERSE) { find(self.element) } else { None }
    }

    /// What the field is called: the registry's name, `reverse<Name>` for the reverse direction, `ie<ID>` for
    /// elements that the registry does not have, `e<PEN>.<ID>` for those of enterprises.
    pub fn name(self) -> String {
        match (self.enterprise, self.element()) {
            (0, Some(element)) => element.name.to_owned(),
            (0, None) => format!("ie{}", self.element),
            (_, Some(element)) => {
                let (first, rest) = element.name.split_at_checked(1).unwrap_or_default();
                format!("reverse{}{rest}", first.to_ascii_uppercase())
            }
            (enterprise, None) => format!("e{enterprise}.{}", self.element),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn name(enterprise: u32, element: u16) -> String {
        Field { enterprise, element, width: 4 }.name()
    }

    #[test]
    fn the_table_is_sorted_and_its_names_are_unique() {
        assert!(ELEMENTS.is_sorted_by(|a, b| a.id < b.id));
        let names = ELEMENTS.iter().map(|element| element.name.to_owned());
        let reverse = ELEMENTS.iter().map(|element| name(REVERSE, element.id));
        let all: HashSet<String> = names.chain(reverse).collect();
        assert_eq!(all.len(), 2 * ELEMENTS.len());
        assert!(all.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric())));
    }

    #[test]
    fn known_elements() {
        let octets = Element {
            id: 1,
            name: "octetDeltaCount",
            element_type: Type::Unsigned64,
            semantics: Semantics::DeltaCounter,
            units: "octets",
        };
        assert_eq!(find(1), Some(&octets));
        for (id, name, element_type) in [
            (8, "sourceIPv4Address", Type::Ipv4Address),
            (22, "flowStartSysUpTime", Type::Unsigned32),
            (27, "sourceIPv6Address", Type::Ipv6Address),
            (56, "sourceMacAddress", Type::MacAddress),
            (82, "interfaceName", Type::String),
            (152, "flowStartMilliseconds", Type::DateTimeMilliseconds),
            (154, "flowStartMicroseconds", Type::DateTimeMicroseconds),
            (276, "dataRecordsReliability", Type::Boolean),
            (291, "basicList", Type::BasicList),
            (434, "mibObjectValueInteger", Type::Signed32),
            (515, "ipv6ExtensionHeadersFull", Type::Unsigned256),
        ] {
            let element = find(id).unwrap();
            assert_eq!((element.name, element.element_type), (name, element_type), "{id}");
        }
        // Reserved, for NetFlow v9 only, withdrawn, unassigned.
        for id in [0, 97, 416, 40_000, u16::MAX] {
            assert_eq!(find(id), None);
        }
    }

    #[test]
    fn names() {
        assert_eq!(name(0, 1), "octetDeltaCount");
        assert_eq!(name(REVERSE, 1), "reverseOctetDeltaCount");
        assert_eq!(name(0, 40_000), "ie40000");
        assert_eq!(name(REVERSE, 40_000), "e29305.40000");
        assert_eq!(name(9, 12_235), "e9.12235");
    }
}
