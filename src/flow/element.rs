//! Information elements: what a field is called and how its bytes are read.
//!
//! | table | what | shown |
//! |---|---|---|
//! | `elements` | IANA's registry, whole | its names are the keys of JSON lines ([`Field::name`]) |
//! | `sflow_elements` | what sFlow says and IANA's registry has no element for | the same |
//! | `vendor_elements` | elements of enterprises and numbers that vendors use in NetFlow v9, from sources that it names | for people ([`Field::title`]): keys stay `e<PEN>.<ID>` and `ie<ID>`, values digits, but those that are lists ([`Field::element_type`]) |
//!
//! This is their form, the look-up, and the names of fields that are in neither.

use super::Field;
use super::elements::ELEMENTS;
use super::sflow_elements::{self, SFLOW};
use super::vendor_elements::VENDORS;

/// The enterprise number that marks the reverse direction of an IANA element (RFC 5103 section 6.1).
pub const REVERSE: u32 = 29_305;

/// CERT's enterprise number, and what its elements' numbers have more in the reverse direction.
const CERT: u32 = 6_871;
const CERT_REVERSE: u16 = 16_384;

/// ntop's enterprise number, and what its elements' numbers have more in NetFlow v9, which has no such numbers.
const NTOP: u32 = 35_632;
const NTOP_V9: u16 = 57_472;

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

/// A vendor and its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vendor {
    /// Private enterprise number; 0 for numbers that NetFlow v9 exporters use without one.
    pub enterprise: u32,
    /// What stands before its elements' names in [`Field::title`].
    pub label: &'static str,
    /// By number.
    pub elements: &'static [VendorElement],
}

/// One element of a vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VendorElement {
    /// Its number.
    pub id: u16,
    /// Its name, as the vendor's document has it.
    pub name: &'static str,
    /// How its bytes are read.
    pub element_type: Type,
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
    Float32,
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
            Self::Unsigned32 | Self::Signed32 | Self::Float32 | Self::DateTimeSeconds | Self::Ipv4Address => {
                4
            }
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

/// A vendor's element of this number, and whether the field is its reverse direction.
fn find_of_vendor(enterprise: u32, id: u16) -> Option<(&'static Vendor, &'static VendorElement, bool)> {
    let among = |enterprise: u32, id: u16| {
        let place = VENDORS.binary_search_by_key(&enterprise, |vendor| vendor.enterprise).ok()?;
        let vendor = VENDORS.get(place)?;
        let place = vendor.elements.binary_search_by_key(&id, |element| element.id).ok()?;
        Some((vendor, vendor.elements.get(place)?))
    };
    if let Some((vendor, element)) = among(enterprise, id) {
        return Some((vendor, element, false));
    }
    let (vendor, element) = match enterprise {
        0 => among(NTOP, id.checked_sub(NTOP_V9)?)?,
        CERT => among(CERT, id.checked_sub(CERT_REVERSE)?)?,
        _ => return None,
    };
    Some((vendor, element, enterprise == CERT))
}

impl Field {
    /// The element that tells how the field is read: the registry's or sFlow's own, or the one whose reverse
    /// direction it is.
    pub fn element(self) -> Option<&'static Element> {
        match self.enterprise {
            0 | REVERSE => find(self.element),
            SFLOW => sflow_elements::find(self.element),
            _ => None,
        }
    }

    /// What the field is called: the registry's or sFlow's name, `reverse<Name>` for the reverse direction, `ie<ID>`
    /// for elements that the registry does not have, `e<PEN>.<ID>` for those of enterprises.
    pub fn name(self) -> String {
        match (self.enterprise, self.element()) {
            (0 | SFLOW, Some(element)) => element.name.to_owned(),
            (0, None) => format!("ie{}", self.element),
            (_, Some(element)) => reversed(element.name),
            (enterprise, None) => format!("e{enterprise}.{}", self.element),
        }
    }

    /// What the field is called for people to read: the registry's name, else the vendor's as `<vendor>:<name>`,
    /// else its number. It may change when the table of vendors grows; programs go by [`Field::name`].
    pub fn title(self) -> String {
        match (self.element(), find_of_vendor(self.enterprise, self.element)) {
            (None, Some((vendor, element, false))) => format!("{}:{}", vendor.label, element.name),
            (None, Some((vendor, element, true))) => format!("{}:{}", vendor.label, reversed(element.name)),
            _ => self.name(),
        }
    }

    /// How the field's bytes are read, by the registry or the vendor; `None` if neither is known to say.
    pub fn element_type(self) -> Option<Type> {
        let registered = self.element().map(|element| element.element_type);
        let of_vendor = || find_of_vendor(self.enterprise, self.element);
        registered.or_else(|| Some(of_vendor()?.1.element_type))
    }
}

/// The name of an element's reverse direction (RFC 5103 section 6.1).
fn reversed(name: &str) -> String {
    let (first, rest) = name.split_at_checked(1).unwrap_or_default();
    format!("reverse{}{rest}", first.to_ascii_uppercase())
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
        assert_eq!(ELEMENTS.len(), 502);
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
    #[test]
    fn the_table_of_vendors_is_sorted_and_its_names_are_unique() {
        assert!(VENDORS.is_sorted_by(|a, b| a.enterprise < b.enterprise));
        let mut titles = HashSet::new();
        for vendor in VENDORS {
            assert!(vendor.elements.is_sorted_by(|a, b| a.id < b.id), "{}", vendor.label);
            for element in vendor.elements {
                let field = Field { enterprise: vendor.enterprise, element: element.id, width: 1 };
                assert!(field.element().is_none(), "{} is IANA's", field.name());
                assert!(element.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
                assert!(titles.insert(field.title()), "{} is there twice", field.title());
            }
        }
    }

    #[test]
    fn titles() {
        for (enterprise, element, title, element_type) in [
            (0, 1, "octetDeltaCount", Some(Type::Unsigned64)),
            (REVERSE, 1, "reverseOctetDeltaCount", Some(Type::Unsigned64)),
            (9, 12_236, "cisco:clientIPv4Address", Some(Type::Ipv4Address)),
            (637, 93, "nokia:aluNatSubString", Some(Type::String)),
            (2_636, 137, "juniper:commonPropertiesId", Some(Type::Unsigned32)),
            (6_876, 880, "vmware:tenantProtocol", Some(Type::Unsigned8)),
            (6_871, 554, "cert:certToolTombstoneAccessList", Some(Type::SubTemplateList)),
            (6_871, 16_398, "cert:reverseInitialTCPFlags", Some(Type::Unsigned16)),
            (0, 33_001, "netflow9:egressAclId", Some(Type::OctetArray)),
            (0, 56_701, "netflow9:paloAltoAppId", Some(Type::String)),
            (35_632, 118, "ntop:L7_PROTO", Some(Type::Unsigned16)),
            (0, 57_590, "ntop:L7_PROTO", Some(Type::Unsigned16)),
            (0, 40_006, "ie40006", None),
            (9, 1, "e9.1", None),
            (6_871, 9_000, "e6871.9000", None),
            (REVERSE, 40_000, "e29305.40000", None),
        ] {
            let field = Field { enterprise, element, width: 4 };
            assert_eq!((field.title().as_str(), field.element_type()), (title, element_type));
        }
    }
}
