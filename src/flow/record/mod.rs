//! A record at the far end: a row of fields with what belongs to its run, as one line of JSON.
//!
//! ```text
//! {"exporter":"192.0.2.1", ... ,"sequence":17,   what belongs to the run
//!  "sourceIPv4Address":"198.51.100.7", ...       the record's fields, in the order of its template
//!  "flowStartMilliseconds":1790000000000, ...}   what follows from both
//! ```
//!
//! | if | then |
//! |---|---|
//! | an element stands in the template several times | one key, an array in the template's order |
//! | an element's name is one of the keys that every line begins with (145, 149) | its key is `ie<ID>` |
//! | the field is a scope of NetFlow v9 | `scopeSystem`, `scopeInterface`, ..., and `scope<N>` for unknown types |
//! | the record has the element that would be derived | the record's own stays, nothing is derived |
//! | the proxy did not hear the template from this exporter's port since its start | `templateSource` says how it knew it: `restored`, `provisional` |
//! | the proxy's clock was not set when the datagram came | `receivedAtQuality` is `clockNotSet` |
//!
//! `exporterName`, `site` and `labels` (an object) are there as far as they are known; what else is known beside a record's
//! numbers says `names`. No key is twice in a line. The same batch gives the same bytes. How a value is written says
//! [`json`]; what is derived, and from what, says `derived`; what lists look like, `lists`.

mod derived;
mod lists;
mod names;
mod packets;

use super::Field;
use super::json::{self, Format};
use super::list::Kind;
use super::time;
use crate::batch::read::{Batch, Column, Group, Run, Source};
use crate::proto::{Protocol, RecordKind, SamplingSource, TemplateSource};
use derived::Derivation;
use lists::{Budget, Lists};
use names::{Known, Names, Naming, is_as_number};
use std::collections::HashMap;

/// The keys of a line that no element of a record may take.
const RUN_KEYS: [&str; 14] = [
    "exporter",
    "exporterPort",
    "exporterName",
    "site",
    "labels",
    "protocol",
    "kind",
    "observationDomainId",
    "templateId",
    "templateSource",
    "receivedAt",
    "receivedAtQuality",
    "exportedAt",
    "sequence",
];

/// What scope types of NetFlow v9 are called (RFC 3954 section 6.1), from type 1 on.
const V9_SCOPES: [&str; 5] =
    ["scopeSystem", "scopeInterface", "scopeLineCard", "scopeCache", "scopeTemplate"];

/// Appends one line of JSON, with its line feed, for each record of a batch: by group, in the order received.
/// A raw batch gives none.
pub fn write_lines(out: &mut Vec<u8>, batch: &Batch) {
    let context = Context::new(batch);
    for group in &batch.groups {
        let line = Line::new(group, batch);
        let mut head = Vec::new();
        let mut first = 0;
        for run in group.runs() {
            head.clear();
            if let Some(source) = batch.exporters.get(run.exporter) {
                write_head(&mut head, source, group.kind, run);
            }
            let end = first + run.records as usize;
            for record in first..end {
                out.extend_from_slice(&head);
                line.write(out, group, run, record, &context);
                out.extend_from_slice(b"}\n");
            }
            first = end;
        }
    }
}

/// What all records of a batch share.
struct Context<'a> {
    known: Known<'a>,
    budget: Budget,
}

impl<'a> Context<'a> {
    fn new(batch: &'a Batch) -> Self {
        let names = Names::new(&batch.interfaces);
        Self { known: Known { batch, names }, budget: Budget::new() }
    }
}

/// The records of a batch one by one, without what belongs to the run: for who has another head for them.
pub struct Records<'a> {
    context: Context<'a>,
    lines: Vec<Line>,
}

impl<'a> Records<'a> {
    /// Works out how the records of the batch are written.
    pub fn new(batch: &'a Batch) -> Self {
        let lines = batch.groups.iter().map(|group| Line::new(group, batch)).collect();
        Self { context: Context::new(batch), lines }
    }

    /// Appends one object of JSON: the fields of a record of the group, which came in `run`, and what follows from
    /// both, with the keys and values that they have in [`write_lines`].
    pub fn write_fields(&self, out: &mut Vec<u8>, group: usize, run: &Run, record: usize) {
        let start = out.len();
        if let (Some(line), Some(group)) = (self.lines.get(group), self.context.known.batch.groups.get(group))
        {
            line.write(out, group, run, record, &self.context);
        }
        match out.get_mut(start) {
            Some(comma) => *comma = b'{',
            None => out.push(b'{'),
        }
        out.push(b'}');
    }

    /// One packet in so many was sampled, and where that is from, if it is known of the record.
    pub fn sampling(&self, group: usize, run: &Run, record: usize) -> Option<(f64, &'static str)> {
        let (line, group) = (self.lines.get(group)?, self.context.known.batch.groups.get(group)?);
        let rate = line.derivation.rate(group, run, record)?;
        Some((rate.packets as f64 / rate.taken as f64, rate.source))
    }
}

/// The key that a field has in its record's object; `is_scope` for scopes of NetFlow v9.
pub fn field_key(is_scope: bool, field: Field) -> String {
    naming(!is_scope, field).0
}

/// How the records of a group are written: worked out once.
struct Line {
    entries: Vec<Entry>,
    derivation: Derivation,
    naming: Naming,
}

/// How the values of a field are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Value(Format),
    List(Kind),
}

impl Form {
    /// The registry's; lists are lists, whoever's element they are.
    fn of(field: Field) -> Self {
        match (Kind::of(field), field.element()) {
            (Some(kind), _) => Self::List(kind),
            (None, Some(element)) => Self::Value(element.element_type.into()),
            (None, None) => Self::Value(Format::Octets),
        }
    }
}

/// One key of a line.
struct Entry {
    /// `,"name":`, and the value if all records have the same.
    text: Vec<u8>,
    form: Form,
    /// Where the values are; more than one column if the element is repeated, none if the text has the value.
    columns: Vec<usize>,
    /// 16 or 17: another value may be written where the record's is 0.
    as_number: Option<u16>,
}

impl Entry {
    fn new(group: &Group, column: usize, field: Field) -> Self {
        let (name, form) = naming(is_element(group, column), field);
        let is_as_number = is_element(group, column) && is_as_number(field);
        let as_number = is_as_number.then_some(field.element);
        Self { text: key(&name), form, columns: vec![column], as_number }
    }

    /// Writes another value than the record's.
    fn write_instead(&self, out: &mut Vec<u8>, number: u32) {
        out.extend_from_slice(&self.text);
        json::write_number(out, u64::from(number));
    }

    /// Writes the value at once if all records have the same.
    fn settle(&mut self, group: &Group) {
        if let (&[column], Form::Value(format)) = (self.columns.as_slice(), self.form)
            && let Some(value) = group.columns.get(column).and_then(Column::constant)
        {
            json::write_value(&mut self.text, format, value);
            self.columns.clear();
        }
    }

    fn write(&self, out: &mut Vec<u8>, group: &Group, record: usize, lists: &Lists) {
        out.extend_from_slice(&self.text);
        let is_repeated = self.columns.len() > 1;
        for (place, &column) in self.columns.iter().enumerate() {
            if is_repeated {
                out.push(if place == 0 { b'[' } else { b',' });
            }
            let value = group.value(column, record);
            match self.form {
                Form::Value(format) => json::write_value(out, format, value),
                Form::List(kind) => lists.write(out, kind, value),
            }
        }
        if is_repeated {
            out.push(b']');
        }
    }
}

impl Line {
    fn new(group: &Group, batch: &Batch) -> Self {
        let has_addresses = !batch.addresses.is_empty();
        let mut entries: Vec<Entry> = Vec::new();
        let mut places = HashMap::new();
        for (column, field) in group.columns.iter().map(|column| column.field).enumerate() {
            let place = *places
                .entry((is_element(group, column), field.enterprise, field.element))
                .or_insert(entries.len());
            match entries.get_mut(place) {
                Some(entry) => entry.columns.push(column),
                None => entries.push(Entry::new(group, column, field)),
            }
        }
        for entry in &mut entries {
            if entry.as_number.is_none() || !has_addresses {
                entry.settle(group);
            }
        }
        let naming = Naming::new(group, has_addresses);
        Self { entries, derivation: Derivation::new(group), naming }
    }

    fn write(&self, out: &mut Vec<u8>, group: &Group, run: &Run, record: usize, context: &Context) {
        let lists = Lists { table: context.known.batch.lists(run), budget: &context.budget };
        for entry in &self.entries {
            let number = entry
                .as_number
                .and_then(|element| self.naming.as_number(element, group, record, &context.known));
            match number {
                Some(number) => entry.write_instead(out, number),
                None => entry.write(out, group, record, &lists),
            }
        }
        self.derivation.write(out, group, run, record);
        self.naming.write(out, group, run, record, &context.known);
    }
}

/// The column is an information element, and not a scope type of NetFlow v9.
fn is_element(group: &Group, place: usize) -> bool {
    !group.v9_scopes || place >= group.scope_columns
}

/// A field's name in the line and how its values are written.
fn naming(is_element: bool, field: Field) -> (String, Form) {
    if !is_element {
        let known = usize::from(field.element).checked_sub(1).and_then(|place| V9_SCOPES.get(place));
        return match known {
            Some(name) if field.enterprise == 0 => ((*name).to_owned(), Form::Value(Format::Unsigned)),
            _ => (format!("scope{}", field.element), Form::Value(Format::Octets)),
        };
    }
    let (name, form) = (field.name(), Form::of(field));
    if RUN_KEYS.contains(&name.as_str()) { (format!("ie{}", field.element), form) } else { (name, form) }
}

/// `,"name":`
fn key(name: &str) -> Vec<u8> {
    let mut key = vec![b','];
    json::write_text(&mut key, name);
    key.push(b':');
    key
}

/// Appends what belongs to a run, from the line's opening brace on.
fn write_head(out: &mut Vec<u8>, source: &Source, kind: RecordKind, run: &Run) {
    out.extend_from_slice(b"{\"exporter\":\"");
    json::write_display(out, source.exporter.address);
    out.extend_from_slice(b"\",\"exporterPort\":");
    json::write_number(out, u64::from(source.exporter.port));
    write_labels(out, source);
    out.extend_from_slice(b",\"protocol\":");
    json::write_text(out, protocol_name(run.protocol));
    out.extend_from_slice(b",\"kind\":");
    json::write_text(out, kind_name(kind));
    out.extend_from_slice(b",\"observationDomainId\":");
    json::write_number(out, u64::from(run.domain));
    out.extend_from_slice(b",\"templateId\":");
    json::write_number(out, u64::from(run.template));
    if run.template_source != TemplateSource::Heard {
        out.extend_from_slice(b",\"templateSource\":");
        json::write_text(out, template_source_name(run.template_source));
    }
    out.extend_from_slice(b",\"receivedAt\":\"");
    time::write_rfc3339_millis(out, run.receive_time);
    out.push(b'"');
    if !time::is_of_a_set_clock(run.receive_time) {
        out.extend_from_slice(b",\"receivedAtQuality\":\"clockNotSet\"");
    }
    if run.export_time != 0 {
        out.extend_from_slice(b",\"exportedAt\":\"");
        time::write_rfc3339_millis(out, run.export_time);
        out.push(b'"');
    }
    out.extend_from_slice(b",\"sequence\":");
    json::write_number(out, u64::from(run.sequence));
}

/// What the exporter is called, as far as that is known.
fn write_labels(out: &mut Vec<u8>, source: &Source) {
    for (key, text) in [("exporterName", &source.name), ("site", &source.site)] {
        if !text.is_empty() {
            out.extend_from_slice(&self::key(key));
            json::write_text(out, text);
        }
    }
    for (place, (key, value)) in source.labels.iter().enumerate() {
        out.extend_from_slice(if place == 0 { b",\"labels\":{" } else { b"," });
        json::write_text(out, key);
        out.push(b':');
        json::write_text(out, value);
    }
    if !source.labels.is_empty() {
        out.push(b'}');
    }
}

/// The name of a protocol in lines and texts.
pub fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Unknown => "unknown",
        Protocol::NetflowV1 => "netflow-v1",
        Protocol::NetflowV5 => "netflow-v5",
        Protocol::NetflowV7 => "netflow-v7",
        Protocol::NetflowV9 => "netflow-v9",
        Protocol::Ipfix => "ipfix",
        Protocol::SflowV5 => "sflow-v5",
    }
}

/// The name of a kind of record in lines and texts.
pub fn kind_name(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Data => "data",
        RecordKind::Options => "options",
        RecordKind::FlowSample => "flow_sample",
        RecordKind::CounterSample => "counter_sample",
        RecordKind::DropSample => "drop_sample",
    }
}

/// The name of where a template is from.
pub fn template_source_name(source: TemplateSource) -> &'static str {
    match source {
        TemplateSource::Heard => "heard",
        TemplateSource::Restored => "restored",
        TemplateSource::Provisional => "provisional",
    }
}

/// The name of where a rate comes from.
pub fn sampling_name(source: SamplingSource) -> &'static str {
    match source {
        SamplingSource::Unknown => "unknown",
        SamplingSource::Record => "record",
        SamplingSource::Options => "options",
        SamplingSource::Header => "header",
        SamplingSource::Sample => "sample",
        SamplingSource::Static => "static",
    }
}

#[cfg(test)]
mod tests;
