//! What a batch says beside the numbers of its records: the names of interfaces, and where addresses belong.
//!
//! | key | from |
//! |---|---|
//! | `ingressInterfaceName`, `ingressInterfaceDescription`, `ingressInterfaceSpeed` (bits per second) | the batch's interface table by 10 |
//! | `egressInterfaceName`, ... | by 14 |
//! | `ingressPhysicalInterfaceName`, ..., `egressPhysicalInterfaceName`, ... | by 252, 253 |
//! | `interfaceName`, `interfaceDescription`, in counters | by sFlow's `ifIndex`, unless the record has 82, 83 itself |
//! | `sourceCountry`, `destinationCountry` | the batch's address table by 8, 27 and 12, 28 |
//! | `bgpSourceAsNumber`, `bgpDestinationAsNumber` | the record's own 16, 17; where it has none or 0, the batch's address table, and then `bgpSourceAsNumberSource`, `bgpDestinationAsNumberSource` are `lookup` |
//!
//! A number that is no ifIndex has a word for a name, and nothing else: `unknown` (0), and in samples of sFlow `internal`,
//! `multiple` and `discarded`. Options records are about the exporter: they have no names beside their numbers.

use super::is_element;
use crate::batch::AddressText;
use crate::batch::read::{Batch, Group, Interface, Run};
use crate::flow::Field;
use crate::flow::interface::{End, Special};
use crate::flow::json::{self, unsigned_64};
use crate::proto::RecordKind;
use std::collections::HashMap;
use std::net::IpAddr;

/// Interfaces as JSON text, by exporter and ifIndex.
pub(super) struct Names(HashMap<(usize, u64), Text>);

/// Each is empty if unknown.
struct Text {
    name: Vec<u8>,
    description: Vec<u8>,
    speed: Vec<u8>,
}

impl Names {
    pub(super) fn new(interfaces: &[Interface]) -> Self {
        let written = |text: &str| {
            let mut written = Vec::new();
            if !text.is_empty() {
                json::write_text(&mut written, text);
            }
            written
        };
        let text = |interface: &Interface| {
            let mut speed = Vec::new();
            if interface.speed != 0 {
                json::write_number(&mut speed, interface.speed);
            }
            let (name, description) = (written(&interface.name), written(&interface.description));
            ((interface.exporter, u64::from(interface.index)), Text { name, description, speed })
        };
        Self(interfaces.iter().map(text).collect())
    }
}

/// What a field with an interface's number gives beside it.
struct Place {
    column: usize,
    /// Of the field that says that the number is something else, if there is one.
    format: Option<usize>,
    /// `,"...Name":`, description, speed; empty where the record has that itself.
    keys: [&'static str; 3],
}

/// What the ends of a flow give: its addresses' columns, best first, and the keys.
struct Belonging {
    addresses: Vec<usize>,
    country: &'static str,
    /// The record's own AS number.
    as_number: Option<usize>,
    /// That is not there several times.
    is_as_looked_up: bool,
    as_keys: [&'static str; 2],
}

/// What may be written for the records of a group, and from which columns: worked out once.
pub(super) struct Naming {
    kind: RecordKind,
    places: Vec<Place>,
    belongings: [Belonging; 2],
}

/// Elements of autonomous systems: their values are written here where addresses are looked up.
const AS_NUMBERS: [u16; 2] = [16, 17];

/// The field is such a number.
pub(super) fn is_as_number(field: Field) -> bool {
    field.enterprise == 0 && AS_NUMBERS.contains(&field.element)
}

const KEYS: [(End, [&str; 3]); 5] = [
    (
        End::Ingress,
        [",\"ingressInterfaceName\":", ",\"ingressInterfaceDescription\":", ",\"ingressInterfaceSpeed\":"],
    ),
    (
        End::Egress,
        [",\"egressInterfaceName\":", ",\"egressInterfaceDescription\":", ",\"egressInterfaceSpeed\":"],
    ),
    (
        End::PhysicalIngress,
        [
            ",\"ingressPhysicalInterfaceName\":",
            ",\"ingressPhysicalInterfaceDescription\":",
            ",\"ingressPhysicalInterfaceSpeed\":",
        ],
    ),
    (
        End::PhysicalEgress,
        [
            ",\"egressPhysicalInterfaceName\":",
            ",\"egressPhysicalInterfaceDescription\":",
            ",\"egressPhysicalInterfaceSpeed\":",
        ],
    ),
    // Counters have the speed themselves.
    (End::Counted, [",\"interfaceName\":", ",\"interfaceDescription\":", ""]),
];

impl Naming {
    /// Of a group; `has_addresses` says whether the batch has an address table.
    pub(super) fn new(group: &Group, has_addresses: bool) -> Self {
        let mut columns = HashMap::new();
        for (place, column) in group.columns.iter().enumerate() {
            if is_element(group, place) {
                columns.entry((column.field.enterprise, column.field.element)).or_insert(place);
            }
        }
        let is_named = group.kind != RecordKind::Options;
        let iana = |element: u16| columns.get(&(0, element)).copied().filter(|_| is_named);
        let mut places = Vec::new();
        for (place, column) in group.columns.iter().enumerate() {
            let Some(end) = End::of(column.field).filter(|_| is_named) else { continue };
            let is_first = columns.get(&(column.field.enterprise, column.field.element)) == Some(&place);
            let keys = KEYS.iter().find(|(of, _)| *of == end).filter(|_| is_first);
            let Some(&(_, mut keys)) = keys else { continue };
            if end == End::Counted {
                for (key, own) in keys.iter_mut().zip([82, 83]) {
                    *key = if iana(own).is_some() { "" } else { *key };
                }
            }
            let format = end.format().and_then(|key| columns.get(&key).copied());
            places.push(Place { column: place, format, keys });
        }
        let all = |elements: [u16; 2]| match has_addresses {
            true => elements.into_iter().filter_map(iana).collect(),
            false => Vec::new(),
        };
        let count = |element: u16| {
            let fields = group.columns.iter().map(|column| (column.field.enterprise, column.field.element));
            fields.filter(|field| *field == (0, element)).count()
        };
        let source = Belonging {
            addresses: all([8, 27]),
            country: ",\"sourceCountry\":\"",
            as_number: iana(16),
            is_as_looked_up: count(16) <= 1,
            as_keys: [",\"bgpSourceAsNumber\":", ",\"bgpSourceAsNumberSource\":\"lookup\""],
        };
        let destination = Belonging {
            addresses: all([12, 28]),
            country: ",\"destinationCountry\":\"",
            as_number: iana(17),
            is_as_looked_up: count(17) <= 1,
            as_keys: [",\"bgpDestinationAsNumber\":", ",\"bgpDestinationAsNumberSource\":\"lookup\""],
        };
        Self { kind: group.kind, places, belongings: [source, destination] }
    }

    /// Appends what is known of a record, each as `,"key":value`.
    pub(super) fn write(&self, out: &mut Vec<u8>, group: &Group, run: &Run, record: usize, known: &Known) {
        let number = |column: usize| unsigned_64(group.value(column, record));
        for Place { column, format, keys } in &self.places {
            let Some(index) = number(*column) else { continue };
            let [name, ..] = keys;
            if let Some(special) = Special::of(self.kind, index, format.and_then(number)) {
                if !name.is_empty() {
                    out.extend_from_slice(name.as_bytes());
                    json::write_text(out, special.word());
                }
            } else if let Some(text) = known.names.0.get(&(run.exporter, index)) {
                for (key, value) in keys.iter().zip([&text.name, &text.description, &text.speed]) {
                    if !key.is_empty() && !value.is_empty() {
                        out.extend_from_slice(key.as_bytes());
                        out.extend_from_slice(value);
                    }
                }
            }
        }
        for belonging in &self.belongings {
            belonging.write(out, group, record, known);
        }
    }

    /// The AS number to write instead of a record's own 0.
    pub(super) fn as_number(&self, element: u16, group: &Group, record: usize, known: &Known) -> Option<u32> {
        let place = AS_NUMBERS.iter().position(|as_number| *as_number == element)?;
        let belonging = self.belongings.get(place)?;
        belonging.looked_up(group, record, known).map(|text| text.as_number).filter(|number| *number != 0)
    }
}

impl Belonging {
    /// Templates may have addresses of both families, one of them zero: the first that is known.
    fn text(&self, group: &Group, record: usize, known: &Known) -> Option<AddressText> {
        let address = |column: &usize| {
            let bytes = group.value(*column, record);
            if let Ok(four) = <[u8; 4]>::try_from(bytes) {
                return Some(IpAddr::from(four));
            }
            <[u8; 16]>::try_from(bytes).ok().map(|sixteen| IpAddr::from(sixteen).to_canonical())
        };
        let addresses = self.addresses.iter().filter_map(address);
        addresses.filter_map(|address| known.batch.addresses.get(&address).copied()).next()
    }

    /// Where the record's address belongs, if it does not say the AS number itself.
    fn looked_up(&self, group: &Group, record: usize, known: &Known) -> Option<AddressText> {
        let own = self.as_number.and_then(|column| unsigned_64(group.value(column, record)));
        if !self.is_as_looked_up || own.is_some_and(|number| number != 0) {
            return None;
        }
        self.text(group, record, known)
    }

    fn write(&self, out: &mut Vec<u8>, group: &Group, record: usize, known: &Known) {
        let Some(text) = self.text(group, record, known) else { return };
        if text.country != [0; 2] {
            out.extend_from_slice(self.country.as_bytes());
            out.extend_from_slice(&text.country);
            out.push(b'"');
        }
        if text.as_number == 0 || self.looked_up(group, record, known).is_none() {
            return;
        }
        let [key, source] = self.as_keys;
        if self.as_number.is_none() {
            out.extend_from_slice(key.as_bytes());
            json::write_number(out, u64::from(text.as_number));
        }
        out.extend_from_slice(source.as_bytes());
    }
}

/// What a batch's tables say.
pub(super) struct Known<'a> {
    pub(super) batch: &'a Batch,
    pub(super) names: Names,
}
