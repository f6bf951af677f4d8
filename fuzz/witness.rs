//! Watches a decoder at work and panics when it breaks one of its promises.
//!
//! | promise | where |
//! |---|---|
//! | each set of a datagram ends in exactly one of set, fault and held | [`Witness::datagram`], counted by a walk of its own |
//! | a datagram that is refused gives nothing | [`Witness::datagram`] |
//! | rows are whole records of their layout | [`whole_records`] |
//! | records, values and bytes given are bounded by the bytes taken | [`Witness::datagram`], [`VALUES_PER_BYTE`] |
//! | what is held is bounded | [`Witness::held_is_bounded`] |
//! | records are read by a template of their own exporter, or are marked | [`Witness::is_own_template`] |
//! | what is decoded comes out of a batch again, to the byte, and as JSON | [`Witness::read_back`] |

use flowproxy::batch::{Builder, Effort, Limits, NoNames, Packer, read};
use flowproxy::flow::list::Named;
use flowproxy::flow::record::write_lines;
use flowproxy::flow::{Exporter, Field, Layout, Run};
use flowproxy::proto::{Codec, Protocol, TemplateSource};
use flowproxy::wire::{Arrival, Decoder, Fault, Heard, Output, Place, Record, Sample, Template};
use std::collections::HashMap;
use std::sync::Arc;

/// The most values (records times fields) that a datagram gives for each of its bytes, and of those that were held: a
/// template may have eight fields of no bytes beside each one that has some.
pub const VALUES_PER_BYTE: usize = 9;

/// The most bytes of rows that a datagram gives for each of its bytes, and of those that were held: rows of sFlow's
/// samples are made of what is in their records.
pub const BYTES_PER_BYTE: usize = 3;

/// As in the product; a batch over them is read back.
const BATCH: Limits = Limits { max_records: 8_192, max_bytes: 4 << 20 };

/// The most records of a group (batch.proto).
const MOST_RECORDS: usize = 65_536;

/// Whose template it is: exporter, protocol, domain, id.
type Key = (Exporter, Protocol, u32, u16);

/// Records of one layout, as the decoder gave them.
#[derive(Debug)]
struct Given {
    layout: Arc<Layout>,
    rows: Vec<u8>,
    /// Where each record ends in `rows`.
    ends: Vec<usize>,
}

/// What belongs to the datagram in hand.
#[derive(Debug, Default)]
struct InHand {
    run: Option<Run>,
    endings: usize,
    values: usize,
    row_bytes: usize,
    calls: usize,
    /// sFlow's samples that were told, and the records of them that came.
    samples: usize,
    rows_of_samples: usize,
}

/// A decoder's output with a memory.
#[derive(Debug, Default)]
pub struct Witness {
    builder: Builder,
    given: Vec<Given>,
    by_layout: HashMap<u64, Vec<usize>>,
    heard: HashMap<Key, Arc<Layout>>,
    lists: Vec<Named>,
    in_hand: InHand,
    /// Whose held set is being read.
    resumed: Option<Arrival>,
    sets_held: usize,
    bytes_held: usize,
}

impl Witness {
    /// Lets the decoder read a datagram, and checks what it told of it.
    pub fn datagram(&mut self, decoder: &mut Decoder, arrival: &Arrival, bytes: &[u8]) {
        self.in_hand = InHand::default();
        let held = self.bytes_held;
        match decoder.datagram(arrival, bytes, self) {
            Err(_) => assert_eq!(self.in_hand.calls, 0, "a datagram that is refused gives nothing"),
            Ok(()) => self.each_set_ended(bytes),
        }
        let taken = bytes.len() + held;
        assert!(self.in_hand.values <= VALUES_PER_BYTE * taken, "{} values", self.in_hand.values);
        assert!(self.in_hand.row_bytes <= BYTES_PER_BYTE * taken, "{} bytes of rows", self.in_hand.row_bytes);
        self.held_is_bounded(decoder);
    }

    /// Lets time go by.
    pub fn tick(&mut self, decoder: &mut Decoder, elapsed: u64) {
        self.in_hand = InHand::default();
        decoder.tick(elapsed, self);
        assert_eq!(self.in_hand.endings, 0, "no datagram is in hand");
        self.held_is_bounded(decoder);
    }

    /// Ends the decoder: nothing is held any more.
    pub fn end(&mut self, decoder: &mut Decoder) {
        decoder.end(self);
        assert_eq!(decoder.held(), (0, 0));
        self.held_is_bounded(decoder);
    }

    /// sFlow's samples may be longer than they say, so of them it is known only how many there can be.
    fn each_set_ended(&self, bytes: &[u8]) {
        match *bytes {
            [0, 0, ..] => assert!(self.in_hand.endings <= 1 + bytes.len() / 8, "{}", self.in_hand.endings),
            _ => assert_eq!(self.in_hand.endings, endings(bytes)),
        }
        assert!(self.in_hand.rows_of_samples == self.in_hand.samples, "each sample that is told has a row");
    }

    fn held_is_bounded(&mut self, decoder: &Decoder) {
        let (sets, bytes) = decoder.held();
        assert_eq!(sets, self.sets_held, "held sets end, or are still held");
        assert!(bytes <= flowproxy::wire::Limits::default().hold.max_bytes);
        self.bytes_held = bytes;
    }

    /// Lays out what was gathered, reads it again, and compares each value; writes it as JSON.
    pub fn read_back(&mut self) {
        let records: usize = self.given.iter().map(|given| given.ends.len()).sum();
        // Packing is zstd's and slow: a part of the batches takes it.
        let batch = if records % 16 == 5 {
            self.builder.seal(&mut Packer::new(), Effort::Small, &mut NoNames).map(|sealed| {
                assert_eq!(sealed.records as usize, records);
                read::open(sealed.codec, sealed.plain_size, &sealed.payload)
            })
        } else {
            self.builder.lay_out(&mut NoNames).map(|(plain, cuts)| {
                assert!(cuts.is_sorted() && cuts.last().is_none_or(|cut| *cut <= plain.len()));
                read::open(Codec::Plain, plain.len() as u32, plain)
            })
        };
        let Some(batch) = batch else { return assert_eq!(records, 0) };
        let batch = batch.expect("a batch that can be read");
        assert_eq!(batch.groups.len(), self.given.len());
        for (group, given) in batch.groups.iter().zip(&self.given) {
            same(group, given);
        }
        write_json(&batch);
        self.given.clear();
        self.by_layout.clear();
    }

    /// The records of a set join those of their layout.
    fn give(&mut self, layout: &Arc<Layout>, rows: &[u8], ends: impl Iterator<Item = usize>) {
        let places = self.by_layout.entry(layout.hash()).or_default();
        let known = places.iter().copied().find(|place| self.given[*place].layout == *layout);
        let place = known.unwrap_or_else(|| {
            self.given.push(Given { layout: Arc::clone(layout), rows: Vec::new(), ends: Vec::new() });
            places.push(self.given.len() - 1);
            self.given.len() - 1
        });
        let given = &mut self.given[place];
        let base = given.rows.len();
        given.rows.extend_from_slice(rows);
        given.ends.extend(ends.map(|end| base + end));
    }

    fn is_own_template(&self, run: &Run, layout: &Arc<Layout>) {
        if !matches!(run.protocol, Protocol::NetflowV9 | Protocol::Ipfix) {
            return;
        }
        let key = (run.exporter, run.protocol, run.domain, run.template);
        match run.template_source {
            TemplateSource::Heard | TemplateSource::Restored => {
                assert_eq!(self.heard.get(&key), Some(layout), "{key:?}");
            }
            TemplateSource::Provisional => {
                assert!(!run.exporter.address.is_loopback(), "a guess on the loopback interface");
                assert!(self.resumed.is_some(), "a guess without patience");
            }
        }
    }
}

impl Output for Witness {
    fn header(&mut self, run: &Run) {
        self.in_hand.calls += 1;
        self.in_hand.run = Some(*run);
    }

    fn records(&mut self, run: &Run, template: &Template, rows: &[u8], ends: &[u32], count: u32) {
        self.in_hand.calls += 1;
        let layout = template.layout();
        let ends_of_records = whole_records(layout, rows, ends, count);
        self.is_own_template(run, layout);
        if run.protocol == Protocol::SflowV5 {
            self.in_hand.rows_of_samples += count as usize;
        }
        if let Some(arrival) = &self.resumed {
            assert_eq!((run.exporter, run.received), (arrival.exporter, arrival.received));
        }
        self.in_hand.values += count as usize * layout.fields().len().max(1);
        self.in_hand.row_bytes += rows.len();
        if self.builder.records() + count as usize > MOST_RECORDS || self.builder.is_full(&BATCH) {
            self.read_back();
        }
        self.builder.push_with_lists(run, layout, template.slot(), rows, ends, count, &self.lists);
        self.lists.clear();
        self.give(layout, rows, ends_of_records.into_iter());
    }

    fn lists(&mut self, named: &[Named]) {
        self.lists = named.to_vec();
    }

    fn fault(&mut self, _: Fault, place: Place) {
        self.in_hand.calls += 1;
        assert!(place.offset + place.bytes <= 1 << 16, "{place:?}");
        self.ending();
    }

    fn template(&mut self, heard: &Heard<'_>) {
        self.in_hand.calls += 1;
        let run = self.in_hand.run.expect("a header comes first");
        let fields: Vec<Field> = heard.layout.fields().iter().map(|placed| placed.field).collect();
        let layout = heard.layout;
        let copy = Layout::packed(layout.kind(), layout.scope_columns(), layout.v9_scopes(), &fields);
        assert!(copy.least() > 0);
        self.heard.insert((run.exporter, run.protocol, run.domain, heard.id), Arc::new(copy));
    }

    fn set(&mut self) {
        self.in_hand.calls += 1;
        self.ending();
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        self.in_hand.calls += 1;
        self.in_hand.samples += 1;
        assert!(sample.records.map(|record| record.bytes.len()).sum::<usize>() <= 1 << 16);
    }

    fn unknown_sample(&mut self, _sample: Record<'_>, place: Place) {
        self.in_hand.calls += 1;
        assert!(place.offset + place.bytes <= 1 << 16, "{place:?}");
        self.ending();
    }

    fn held(&mut self, _: Place) {
        assert!(self.resumed.is_none(), "what was held is not held again");
        self.in_hand.calls += 1;
        self.sets_held += 1;
        self.in_hand.endings += 1;
    }

    fn resume(&mut self, held: Option<&Arrival>) {
        self.resumed = held.copied();
    }
}

impl Witness {
    fn ending(&mut self) {
        match self.resumed {
            Some(_) => self.sets_held = self.sets_held.checked_sub(1).expect("a set that was held"),
            None => self.in_hand.endings += 1,
        }
    }
}

/// How many sets a datagram has, by a reader of its own; a tail that is no set counts as one, and so do an IPFIX
/// message that is cut and what lies behind one.
fn endings(bytes: &[u8]) -> usize {
    let u16_at = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    match u16_at(0) {
        9 => sets(bytes, 20, bytes.len()).0,
        10 => {
            let (mut at, mut all) = (0, 0);
            loop {
                let end = at + u16_at(at + 2);
                let (read, stop) = sets(bytes, at + 16, end.min(bytes.len()));
                all += read + usize::from(end > bytes.len());
                let Some(stop) = stop.filter(|_| end <= bytes.len()) else { return all };
                at = end.max(stop);
                let behind = &bytes[at..];
                if behind.iter().all(|byte| *byte == 0) {
                    return all;
                }
                let is_message =
                    behind.len() >= 4 && u16_at(at) == 10 && (16..=behind.len()).contains(&u16_at(at + 2));
                if !is_message {
                    return all + 1;
                }
            }
        }
        _ => 1,
    }
}

/// The sets from `at` on that begin before `end`, and where the last one stops if nothing was wrong.
fn sets(bytes: &[u8], mut at: usize, end: usize) -> (usize, Option<usize>) {
    let u16_at = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let can_begin = |at: usize| at + 4 <= bytes.len() && (4..=bytes.len() - at).contains(&u16_at(at + 2));
    let is_v9 = u16_at(0) == 9;
    let mut sets = 0;
    while at < end && (is_v9 || end - at >= 4) {
        let aligned = at.next_multiple_of(4);
        if !can_begin(at) && can_begin(aligned) && bytes[at..aligned].iter().all(|byte| *byte == 0) {
            at = aligned;
        }
        if bytes.len() - at < 4 {
            let is_fault = bytes[at..].iter().any(|byte| *byte != 0);
            return (sets + usize::from(is_fault), (!is_fault).then_some(at));
        }
        let (id, length) = (u16_at(at), u16_at(at + 2));
        if (id, length) == (0, 0) {
            return (sets, bytes[at..].iter().all(|byte| *byte == 0).then_some(at));
        }
        sets += 1;
        if !can_begin(at) {
            return (sets, None);
        }
        at += length;
    }
    (sets, Some(at))
}

/// Checks that rows are whole records; gives where each ends.
fn whole_records(layout: &Layout, rows: &[u8], ends: &[u32], count: u32) -> Vec<usize> {
    let count = count as usize;
    assert!(count > 0 && layout.least() > 0, "records of no bytes");
    if let Some(stride) = layout.stride() {
        assert_eq!((rows.len(), ends), (count * stride, &[][..]));
        return (1..=count).map(|record| record * stride).collect();
    }
    let ends: Vec<usize> = ends.iter().map(|end| *end as usize).collect();
    assert_eq!((ends.len(), ends.last()), (count, Some(&rows.len())));
    let mut start = 0;
    for end in &ends {
        assert!(start < *end);
        let fields = cut(layout, &rows[start..*end]);
        assert_eq!(fields.len(), layout.fields().len());
        start = *end;
    }
    ends
}

/// A record's fields, by a reader of its own that panics when they do not fill the row.
fn cut<'a>(layout: &Layout, row: &'a [u8]) -> Vec<&'a [u8]> {
    if layout.stride().is_some() {
        let field = |(offset, width): (usize, u16)| &row[offset..offset + usize::from(width)];
        return layout.fields().iter().map(|placed| field((placed.offset, placed.field.width))).collect();
    }
    let mut rest = row;
    let mut fields = Vec::with_capacity(layout.fields().len());
    for placed in layout.fields() {
        let (head, length) = match (placed.field.width, rest) {
            (Field::VARIABLE, [255, high, low, ..]) => (3, usize::from(u16::from_be_bytes([*high, *low]))),
            (Field::VARIABLE, [short, ..]) => (1, usize::from(*short)),
            (width, _) => (0, usize::from(width)),
        };
        let (field, after) = rest[head..].split_at(length);
        fields.push(field);
        rest = after;
    }
    assert!(rest.is_empty(), "a record ends with its last field");
    fields
}

/// The group has the layout and the values that were given.
fn same(group: &read::Group, given: &Given) {
    let layout = &given.layout;
    assert_eq!(group.kind, layout.kind());
    assert_eq!(group.scope_columns, layout.scope_columns());
    assert_eq!(group.v9_scopes, layout.v9_scopes());
    let fields: Vec<Field> = layout.fields().iter().map(|placed| placed.field).collect();
    let columns: Vec<Field> = group.columns.iter().map(|column| column.field).collect();
    assert_eq!(columns, fields);
    assert_eq!(group.records(), given.ends.len());
    assert_eq!(group.runs().iter().map(|run| run.records as usize).sum::<usize>(), given.ends.len());
    let mut start = 0;
    for (record, end) in given.ends.iter().enumerate() {
        for (column, value) in cut(layout, &given.rows[start..*end]).into_iter().enumerate() {
            assert_eq!(group.value(column, record), value, "column {column} of {fields:?}, record {record}");
        }
        start = *end;
    }
}

/// A line of JSON a record; the first few are read again.
pub fn write_json(batch: &read::Batch) {
    const READ: usize = 32;
    let mut lines = Vec::new();
    write_lines(&mut lines, batch);
    let text = std::str::from_utf8(&lines).expect("JSON is UTF-8");
    let expected = batch.groups.iter().map(|group| group.records()).sum::<usize>();
    assert_eq!(text.lines().count(), expected);
    for line in text.lines().take(READ) {
        assert!(line.starts_with('{'));
        serde_json::from_str::<serde::de::IgnoredAny>(line).expect("a line of JSON");
    }
}
