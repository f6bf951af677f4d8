//! Lists inside fields (RFC 6313) as JSON.
//!
//! | type | JSON |
//! |---|---|
//! | basicList | `{"semantic":"allOf","field":"destinationTransportPort","values":[80,443]}` |
//! | subTemplateList | `{"semantic":"allOf","template":300,"records":[{"protocolIdentifier":6},...]}` |
//! | subTemplateMultiList | `{"semantic":"allOf","lists":[{"template":300,"records":[...]},...]}` |
//!
//! Values are written as those of a record are, records are objects of their fields by name, arrays where an element
//! is repeated; lists may lie in lists.
//!
//! | if | then |
//! |---|---|
//! | the proxy did not know a template, or its records do not come out even | `"octets"` with hexadecimal digits stands for `"records"` |
//! | the semantic has no name | it is a number |
//! | a list is not well formed, too deep ([`MAX_DEPTH`]), or beyond [`MAX_VALUES`] | all of it is hexadecimal digits |

use super::{Form, json};
use crate::batch::read::ListTable;
use crate::flow::Field;
use crate::flow::list::{self, Kind, MAX_DEPTH, Part, take_value};
use std::cell::Cell;

/// Values that the lists of one batch may come to: a byte of a list can be a value with a name of fifty.
const MAX_VALUES: usize = 1 << 20;

/// How many values may still be written.
pub(super) struct Budget(Cell<usize>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Cell::new(MAX_VALUES))
    }

    fn take(&self) -> Option<()> {
        self.0.set(self.0.get().checked_sub(1)?);
        Some(())
    }
}

/// Writes the lists of a run's records.
pub(super) struct Lists<'a> {
    /// The templates that they name, if any of them is known.
    pub(super) table: Option<&'a ListTable>,
    pub(super) budget: &'a Budget,
}

impl Lists<'_> {
    /// Appends the value of a field that holds a list.
    pub(super) fn write(&self, out: &mut Vec<u8>, kind: Kind, value: &[u8]) {
        self.write_at(out, kind, value, 1);
    }

    /// `depth` is 1 for a list in a record.
    fn write_at(&self, out: &mut Vec<u8>, kind: Kind, value: &[u8], depth: usize) {
        let start = out.len();
        let written = match kind {
            _ if depth > MAX_DEPTH => None,
            Kind::Basic => self.basic(out, value, depth),
            Kind::SubTemplate => self.sub_template(out, value, depth),
            Kind::SubTemplateMulti => self.sub_template_multi(out, value, depth),
        };
        if written.is_none() {
            out.truncate(start);
            json::write_hex(out, value);
        }
    }

    fn basic(&self, out: &mut Vec<u8>, value: &[u8], depth: usize) -> Option<()> {
        let list = list::basic(value)?;
        write_semantic(out, list.semantic);
        out.extend_from_slice(b",\"field\":");
        json::write_text(out, &list.field.name());
        out.extend_from_slice(b",\"values\":[");
        let form = Form::of(list.field);
        let mut rest = list.values;
        while !rest.is_empty() {
            let value = take_value(&mut rest, list.field.width)?;
            self.value(out, form, value, depth)?;
            out.push(if rest.is_empty() { b']' } else { b',' });
        }
        if list.values.is_empty() {
            out.push(b']');
        }
        out.push(b'}');
        Some(())
    }

    fn sub_template(&self, out: &mut Vec<u8>, value: &[u8], depth: usize) -> Option<()> {
        let list = list::sub_template(value)?;
        write_semantic(out, list.semantic);
        out.push(b',');
        self.part(out, list.part, depth);
        out.push(b'}');
        Some(())
    }

    fn sub_template_multi(&self, out: &mut Vec<u8>, value: &[u8], depth: usize) -> Option<()> {
        let list = list::sub_template_multi(value)?;
        write_semantic(out, list.semantic);
        out.extend_from_slice(b",\"lists\":[");
        for (place, part) in list.parts().enumerate() {
            self.budget.take()?;
            out.extend_from_slice(if place == 0 { b"{" } else { b",{" });
            self.part(out, part, depth);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
        Some(())
    }

    fn part(&self, out: &mut Vec<u8>, part: Part<'_>, depth: usize) {
        out.extend_from_slice(b"\"template\":");
        json::write_number(out, u64::from(part.template));
        let start = out.len();
        let fields = self.table.and_then(|table| table.fields(part.template));
        if fields.and_then(|fields| self.records(out, fields, part.records, depth)).is_none() {
            out.truncate(start);
            out.extend_from_slice(b",\"octets\":");
            json::write_hex(out, part.records);
        }
    }

    /// Records back to back; the reader of batches has seen to it that a template has none of no bytes.
    fn records(&self, out: &mut Vec<u8>, fields: &[Field], records: &[u8], depth: usize) -> Option<()> {
        let keys = Key::all(fields);
        let mut rest = records;
        let mut values = Vec::with_capacity(fields.len());
        out.extend_from_slice(b",\"records\":[");
        while !rest.is_empty() {
            let before = rest.len();
            values.clear();
            for field in fields {
                values.push(take_value(&mut rest, field.width)?);
            }
            if rest.len() == before {
                return None;
            }
            self.record(out, &keys, &values, depth)?;
            if !rest.is_empty() {
                out.push(b',');
            }
        }
        out.push(b']');
        Some(())
    }

    fn record(&self, out: &mut Vec<u8>, keys: &[Key], values: &[&[u8]], depth: usize) -> Option<()> {
        for (place, key) in keys.iter().enumerate() {
            out.push(if place == 0 { b'{' } else { b',' });
            json::write_text(out, &key.name);
            out.push(b':');
            for (nth, column) in key.columns.iter().enumerate() {
                if key.columns.len() > 1 {
                    out.push(if nth == 0 { b'[' } else { b',' });
                }
                self.value(out, key.form, values.get(*column)?, depth)?;
            }
            if key.columns.len() > 1 {
                out.push(b']');
            }
        }
        out.push(b'}');
        Some(())
    }

    fn value(&self, out: &mut Vec<u8>, form: Form, value: &[u8], depth: usize) -> Option<()> {
        self.budget.take()?;
        match form {
            Form::Value(format) => json::write_value(out, format, value),
            Form::List(kind) => self.write_at(out, kind, value, depth + 1),
        }
        Some(())
    }
}

/// One key of a record in a list.
struct Key {
    name: String,
    form: Form,
    /// Places of its values in the template: several if the element is repeated.
    columns: Vec<usize>,
}

impl Key {
    fn all(fields: &[Field]) -> Vec<Key> {
        let mut keys: Vec<Key> = Vec::new();
        let mut seen: Vec<(u32, u16)> = Vec::new();
        for (column, field) in fields.iter().enumerate() {
            let same = seen.iter().position(|seen| *seen == (field.enterprise, field.element));
            match same.and_then(|place| keys.get_mut(place)) {
                Some(key) => key.columns.push(column),
                None => {
                    seen.push((field.enterprise, field.element));
                    keys.push(Key { name: field.name(), form: Form::of(*field), columns: vec![column] });
                }
            }
        }
        keys
    }
}

fn write_semantic(out: &mut Vec<u8>, semantic: u8) {
    out.extend_from_slice(b"{\"semantic\":");
    match list::semantic_name(semantic) {
        Some(name) => json::write_text(out, name),
        None => json::write_number(out, u64::from(semantic)),
    }
}
