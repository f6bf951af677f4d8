//! What there is to show, and who shows it.

use super::header::{self, Header};
use crate::batch::read::{Batch, Group, Run};
use crate::capture::{self, Counts, Error, Format};
use crate::flow::json::{unsigned_64, write_display};
use crate::flow::record::{Records, field_key};
use crate::flow::{Exporter, Field, Layout};
use crate::proto::RecordKind;
use crate::wire::{self, Step, Unit};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// A flow datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram {
    /// Its number in the file, from 1.
    pub(super) number: u64,
    pub(super) exporter: Exporter,
    pub(super) destination: Exporter,
    /// When it was captured, in milliseconds since 1970.
    pub(super) received: u64,
    pub(super) bytes: usize,
    /// Bytes at its end that the capture does not hold.
    pub(super) missing: usize,
    /// What its header says, if it is one.
    pub(super) header: Option<Header>,
}

impl Datagram {
    pub(super) fn new(number: u64, datagram: &capture::Datagram<'_>) -> Datagram {
        Datagram {
            number,
            exporter: datagram.exporter,
            destination: datagram.destination,
            received: datagram.received,
            bytes: datagram.bytes.len() + datagram.missing,
            missing: datagram.missing,
            header: header::read(datagram.bytes),
        }
    }
}

/// A template or options template, or the withdrawal of one.
#[derive(Clone, Debug)]
pub(super) struct Template {
    /// What told it.
    pub(super) datagram: Datagram,
    pub(super) id: u16,
    pub(super) is_options: bool,
    /// `None` when it is withdrawn.
    pub(super) layout: Option<Arc<Layout>>,
}

impl Template {
    /// Its scope and its other fields.
    pub(super) fn parts(&self) -> (Vec<Field>, Vec<Field>) {
        let Some(layout) = &self.layout else { return Default::default() };
        let fields = layout.fields().iter().map(|placed| placed.field);
        let scope = fields.clone().take(layout.scope_columns()).collect();
        (scope, fields.skip(layout.scope_columns()).collect())
    }
}

/// A sample of sFlow of a kind that is not known.
#[derive(Clone, Debug)]
pub(super) struct UnknownSample {
    pub(super) datagram: Datagram,
    /// Where it is in the datagram, behind its format and length.
    pub(super) offset: usize,
    pub(super) enterprise: u32,
    pub(super) format: u32,
    pub(super) bytes: Box<[u8]>,
}

/// What was wrong with a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) datagram: u64,
    pub(super) exporter: Exporter,
    pub(super) header: Option<Header>,
    pub(super) offset: usize,
    pub(super) bytes: usize,
    pub(super) what: What,
}

/// What is wrong.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// What the exporter sent.
    Sent(wire::Fault),
    /// The capture, which lacks so many bytes.
    Cut(usize),
}

impl Fault {
    /// The reason's label.
    pub(super) fn reason(&self) -> &'static str {
        match self.what {
            What::Sent(fault) => fault.label(),
            What::Cut(_) => "cut",
        }
    }

    /// What is wrong, in words.
    pub(super) fn text(&self) -> String {
        match self.what {
            What::Sent(fault) => fault.to_string(),
            What::Cut(missing) => {
                format!(
                    "the capture lacks the last {missing} bytes of the datagram: its snap length was too short"
                )
            }
        }
    }
}

/// A batch that was read again, with what is worked out once for all its records.
pub(super) struct Unpacked<'a> {
    pub(super) batch: &'a Batch,
    pub(super) records: &'a Records<'a>,
    /// The columns behind each key of a record's object, by group.
    keys: Vec<HashMap<String, Columns>>,
}

/// The columns of one element.
#[derive(Debug)]
pub(super) struct Columns {
    /// What it is called for people.
    pub(super) title: String,
    pub(super) field: Field,
    /// A scope of NetFlow v9, and no element.
    pub(super) is_scope: bool,
    pub(super) places: Vec<usize>,
}

impl<'a> Unpacked<'a> {
    pub(super) fn new(batch: &'a Batch, records: &'a Records<'a>) -> Unpacked<'a> {
        Unpacked { batch, records, keys: batch.groups.iter().map(columns).collect() }
    }

    /// The columns behind a key of the objects of a group's records; `None` if what it names is derived.
    pub(super) fn columns(&self, group: usize, key: &str) -> Option<&Columns> {
        self.keys.get(group)?.get(key)
    }
}

fn columns(group: &Group) -> HashMap<String, Columns> {
    let mut keys: HashMap<String, Columns> = HashMap::new();
    for (place, column) in group.columns.iter().enumerate() {
        let (field, is_scope) = (column.field, group.v9_scopes && place < group.scope_columns);
        let begin = || Columns { title: title(is_scope, field), field, is_scope, places: Vec::new() };
        keys.entry(field_key(is_scope, field)).or_insert_with(begin).places.push(place);
    }
    keys
}

/// What a field is called for people.
pub(super) fn title(is_v9_scope: bool, field: Field) -> String {
    if is_v9_scope { field_key(true, field) } else { field.title() }
}

/// The records of a sample of sFlow as they came: format, enterprise, bytes.
pub(super) type Sampled = Vec<(u32, u32, Box<[u8]>)>;

/// One record.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    /// The number of its datagram.
    pub(super) datagram: u64,
    pub(super) unpacked: &'a Unpacked<'a>,
    pub(super) group: &'a Group,
    /// The group's place in the batch.
    pub(super) place: usize,
    pub(super) run: &'a Run,
    /// The record's place in the group.
    pub(super) index: usize,
    /// The sample that it was made of, if it was.
    pub(super) sample: Option<&'a Sampled>,
}

/// Elements of interfaces, and sFlow's own words for them.
const INTERFACES: [(u16, &str); 2] = [(10, "input"), (14, "output")];

impl<'a> Record<'a> {
    pub(super) fn exporter(&self) -> Exporter {
        self.unpacked.batch.exporter(self.run.exporter)
    }

    /// Appends the object of its fields. A flow sample always has a rate, be it 0, and its interfaces also by sFlow's own
    /// words.
    pub(super) fn write_fields(&self, out: &mut Vec<u8>) {
        self.unpacked.records.write_fields(out, self.place, self.run, self.index);
        if self.group.kind != RecordKind::FlowSample || out.pop() != Some(b'}') {
            return;
        }
        for (element, word) in INTERFACES {
            let value = self.values().find(|(field, _)| (field.enterprise, field.element) == (0, element));
            if let Some(value) = value.and_then(|(_, bytes)| unsigned_64(bytes)) {
                write_display(out, format_args!(",\"{word}\":{value}"));
            }
        }
        if self.sampling().is_none() {
            out.extend_from_slice(b",\"samplingRate\":0");
        }
        out.push(b'}');
    }

    /// One packet in so many was sampled, and who says so.
    pub(super) fn sampling(&self) -> Option<(f64, &'static str)> {
        self.unpacked.records.sampling(self.place, self.run, self.index)
    }

    /// Its fields and their bytes, in the order of its template.
    pub(super) fn values(&self) -> impl Iterator<Item = (Field, &'a [u8])> + use<'a> {
        let (group, index) = (self.group, self.index);
        group.columns.iter().enumerate().map(move |(place, column)| (column.field, group.value(place, index)))
    }
}

/// How a file ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FileEnd<'a> {
    /// `None` if it could not be opened.
    pub(super) format: Option<Format>,
    pub(super) counts: Counts,
    /// Flow datagrams.
    pub(super) flow: u64,
    /// UDP datagrams that are no flow.
    pub(super) others: u64,
    pub(super) error: Option<&'a Error>,
    /// Standard error tells it too, and whoever reads us sees both.
    pub(super) is_told_beside: bool,
}

impl FileEnd<'_> {
    /// That packets could not be read for want of what describes their interface, if so.
    pub(super) fn undescribed(&self) -> Option<String> {
        let packets = match self.counts.undescribed {
            0 => return None,
            1 => "1 packet is of an interface".to_owned(),
            count => format!("{count} packets are of interfaces"),
        };
        let they = if self.counts.undescribed == 1 { "it" } else { "they" };
        Some(format!("{packets} that the file does not describe: {they} could not be read"))
    }
}

/// Who shows it: each call is given what comes next of the file.
pub(super) trait Show {
    fn datagram(&mut self, datagram: &Datagram) -> io::Result<()>;
    fn template(&mut self, template: &Template) -> io::Result<()>;
    fn record(&mut self, record: &Record<'_>) -> io::Result<()>;
    fn unknown_sample(&mut self, sample: &UnknownSample) -> io::Result<()>;
    fn fault(&mut self, fault: &Fault) -> io::Result<()>;
    /// What the sequence number of a datagram says.
    fn sequence(&mut self, datagram: &Datagram, unit: Unit, step: Step) -> io::Result<()>;
    /// The file is at its end.
    fn end(&mut self, end: &FileEnd<'_>) -> io::Result<()>;
    /// What was shown so far must be seen now.
    fn flush(&mut self) -> io::Result<()>;
}
