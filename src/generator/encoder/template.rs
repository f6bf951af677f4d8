//! What a record's fields are, and a record's values in their form on the wire.

use super::Fault;
use crate::flow::Field;
use std::net::IpAddr;

/// What each field takes in a template, in bytes.
const FIELD_BYTES: u16 = 4;

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

    /// Adds a scope field, which makes it an options template. Scopes come before the fields.
    #[must_use]
    pub fn scope(mut self, scope: u16, width: u16) -> Template {
        self.fields.insert(self.scopes, Field { enterprise: 0, element: scope, width });
        self.scopes += 1;
        self
    }

    /// Adds a field of `width` bytes.
    #[must_use]
    pub fn field(mut self, element: u16, width: u16) -> Template {
        self.fields.push(Field { enterprise: 0, element, width });
        self
    }

    pub(super) fn is_options(&self) -> bool {
        self.scopes > 0
    }

    pub(super) fn record_bytes(&self) -> usize {
        self.fields.iter().map(|field| usize::from(field.width)).sum()
    }

    /// The template as a record of a template set (section 5.2) or an options template set (section 6.1).
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(6 + 4 * self.fields.len());
        bytes.extend_from_slice(&self.id.to_be_bytes());
        let count = u16::try_from(self.fields.len()).unwrap_or(u16::MAX);
        if self.is_options() {
            // Lengths in bytes here, a count of fields below.
            let scopes = u16::try_from(self.scopes).unwrap_or(u16::MAX);
            bytes.extend_from_slice(&scopes.saturating_mul(FIELD_BYTES).to_be_bytes());
            bytes.extend_from_slice(&count.saturating_sub(scopes).saturating_mul(FIELD_BYTES).to_be_bytes());
        } else {
            bytes.extend_from_slice(&count.to_be_bytes());
        }
        for field in &self.fields {
            bytes.extend_from_slice(&field.element.to_be_bytes());
            bytes.extend_from_slice(&field.width.to_be_bytes());
        }
        bytes
    }

    /// Appends a record; on a fault `to` is as it was.
    pub(super) fn write_record(&self, values: &[Value<'_>], to: &mut Vec<u8>) -> Result<(), Fault> {
        if values.len() != self.fields.len() {
            return Err(Fault::ValueCount { id: self.id, fields: self.fields.len(), values: values.len() });
        }
        let before = to.len();
        for (field, value) in self.fields.iter().zip(values) {
            if !value.write(usize::from(field.width), to) {
                to.truncate(before);
                return Err(Fault::ValueWidth { id: self.id, element: field.element, width: field.width });
            }
        }
        Ok(())
    }
}

/// One field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, big-endian in the field's width.
    Unsigned(u64),
    /// An address; the field has 4 or 16 bytes.
    Address(IpAddr),
    /// Text, zero bytes after it; what is longer than the field is cut at a character.
    Text(&'a str),
    /// Bytes, exactly as many as the field has.
    Bytes(&'a [u8]),
}

impl Value<'_> {
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
