//! What a record's fields are, and a record's values in their form on the wire.

use super::{Fault, Version};
use crate::flow::Field;
use std::net::IpAddr;

/// What each field takes in a v9 template, in bytes.
const FIELD_BYTES: u16 = 4;
/// In an IPFIX template the element has an enterprise number behind it.
const ENTERPRISE_BIT: u16 = 0x8000;
/// Values of variable length from here on have their length in two more bytes (RFC 7011 7).
const LONG: usize = 255;

/// The fields of a record, in order.
///
/// ```
/// use flowproxy::generator::encoder::{Template, element};
/// let template = Template::new(256).field(element::IN_BYTES, 4).field(element::PROTOCOL, 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub(super) id: u16,
    scopes: usize,
    pub(super) fields: Vec<Field>,
}

impl Template {
    /// A template without fields; `id` is 256 or more.
    pub fn new(id: u16) -> Template {
        Template { id, scopes: 0, fields: Vec::new() }
    }

    /// Adds a scope field, which makes it an options template. Scopes come before the fields. For v9 `scope` is a
    /// scope type, for IPFIX an element.
    #[must_use]
    pub fn scope(self, scope: u16, width: u16) -> Template {
        self.scope_of(Field { enterprise: 0, element: scope, width })
    }

    /// Adds a scope field of any form that IPFIX has.
    #[must_use]
    pub fn scope_of(mut self, field: Field) -> Template {
        self.fields.insert(self.scopes, field);
        self.scopes += 1;
        self
    }

    /// Adds a field of `width` bytes.
    #[must_use]
    pub fn field(self, element: u16, width: u16) -> Template {
        self.field_of(Field { enterprise: 0, element, width })
    }

    /// Adds a field of any form that IPFIX has: of an enterprise, of variable length ([`Field::VARIABLE`]).
    #[must_use]
    pub fn field_of(mut self, field: Field) -> Template {
        self.fields.push(field);
        self
    }

    pub(super) fn is_options(&self) -> bool {
        self.scopes > 0
    }

    /// Bytes of the shortest record.
    pub(super) fn least_bytes(&self) -> usize {
        let least = |field: &Field| if field.width == Field::VARIABLE { 1 } else { usize::from(field.width) };
        self.fields.iter().map(least).sum()
    }

    /// The first field that the protocol has no form for.
    pub(super) fn misfit(&self, version: Version) -> Option<&Field> {
        self.fields.iter().find(|field| match version {
            Version::NetflowV9 => field.enterprise != 0 || field.width == Field::VARIABLE,
            Version::Ipfix => field.element >= ENTERPRISE_BIT,
        })
    }

    /// The template as a record of a template set (RFC 3954 5.2, RFC 7011 3.4.1) or an options template set (6.1,
    /// 3.4.2).
    pub(super) fn encode(&self, version: Version) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(6 + 8 * self.fields.len());
        bytes.extend_from_slice(&self.id.to_be_bytes());
        let count = u16::try_from(self.fields.len()).unwrap_or(u16::MAX);
        let scopes = u16::try_from(self.scopes).unwrap_or(u16::MAX);
        let counts = match (self.is_options(), version) {
            (false, _) => vec![count],
            (true, Version::NetflowV9) => {
                vec![
                    scopes.saturating_mul(FIELD_BYTES),
                    count.saturating_sub(scopes).saturating_mul(FIELD_BYTES),
                ]
            }
            (true, Version::Ipfix) => vec![count, scopes],
        };
        bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
        for field in &self.fields {
            let mark = if field.enterprise == 0 { 0 } else { ENTERPRISE_BIT };
            bytes.extend_from_slice(&(field.element | mark).to_be_bytes());
            bytes.extend_from_slice(&field.width.to_be_bytes());
            if field.enterprise != 0 {
                bytes.extend_from_slice(&field.enterprise.to_be_bytes());
            }
        }
        bytes
    }

    /// Writes a record; on a fault there is none in `to`.
    pub(super) fn write_record(&self, values: &[Value<'_>], to: &mut Vec<u8>) -> Result<(), Fault> {
        to.clear();
        if values.len() != self.fields.len() {
            return Err(Fault::ValueCount { id: self.id, fields: self.fields.len(), values: values.len() });
        }
        for (field, value) in self.fields.iter().zip(values) {
            let fits = match field.width {
                Field::VARIABLE => value.write_variable(to),
                width => value.write(usize::from(width), to),
            };
            if !fits {
                to.clear();
                return Err(Fault::ValueWidth { id: self.id, element: field.element, width: field.width });
            }
        }
        Ok(())
    }
}

/// One field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, big-endian in the field's width; in a field of variable length in as few bytes as hold it.
    Unsigned(u64),
    /// An address; the field has 4 or 16 bytes.
    Address(IpAddr),
    /// Text, zero bytes after it; what is longer than the field is cut at a character. In a field of variable length
    /// it is whole, without zeros.
    Text(&'a str),
    /// Bytes, exactly as many as the field has.
    Bytes(&'a [u8]),
}

impl Value<'_> {
    /// Appends the value and its length before it; false if it is longer than a length can say.
    fn write_variable(self, to: &mut Vec<u8>) -> bool {
        let length = match self {
            Value::Unsigned(number) => (u64::BITS - number.leading_zeros()).div_ceil(8).max(1) as usize,
            Value::Address(IpAddr::V4(_)) => 4,
            Value::Address(IpAddr::V6(_)) => 16,
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
        };
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short), _) if length < LONG => to.push(short),
            (_, Ok(long)) => {
                to.push(u8::MAX);
                to.extend_from_slice(&long.to_be_bytes());
            }
            _ => return false,
        }
        self.write(length, to)
    }

    /// Appends the value in `width` bytes; false, and nothing appended, if it does not fit.
    pub(super) fn write(self, width: usize, to: &mut Vec<u8>) -> bool {
        match self {
            Value::Unsigned(number) => {
                let bytes = number.to_be_bytes();
                let Some(spare) = bytes.len().checked_sub(width) else {
                    to.resize(to.len() + width - bytes.len(), 0);
                    to.extend_from_slice(&bytes);
                    return true;
                };
                let (high, low) = bytes.split_at(spare);
                to.extend_from_slice(low);
                let fits = high.iter().all(|byte| *byte == 0);
                if !fits {
                    to.truncate(to.len() - width);
                }
                fits
            }
            Value::Address(IpAddr::V4(address)) => exactly(&address.octets(), width, to),
            Value::Address(IpAddr::V6(address)) => exactly(&address.octets(), width, to),
            Value::Bytes(bytes) => exactly(bytes, width, to),
            Value::Text(text) => {
                let cut = text.floor_char_boundary(width);
                to.extend(text.bytes().take(cut));
                to.resize(to.len() + width - cut, 0);
                true
            }
        }
    }
}

fn exactly(bytes: &[u8], width: usize, to: &mut Vec<u8>) -> bool {
    let fits = bytes.len() == width;
    if fits {
        to.extend_from_slice(bytes);
    }
    fits
}
