//! Writes a group: chooses each column's encoding and lays the planes out (batch.proto, `Group`).
//!
//! The rules, from the measured rates of real and generated flow:
//! - addresses of one family share a dictionary when that is smaller than their planes;
//! - what an address decides (AS, mask, next hop, interface) follows it when no record disagrees;
//! - last-switched and its like are a difference to first-switched when that takes fewer bits;
//! - everything else is the planes of the bytes that vary.

use super::builder::{GROUPS, Group};
use super::cells::{self, Spans};
use super::dictionary::{Dictionary, Key};
use super::numbers::{self, Written};
use super::relations::{Ahead, Pair, decided, lean, witness, write_ahead};
use super::runs;
use super::transpose::{self, Planes};
use crate::flow::{Field, Placed};
use crate::proto::{self, Encoding};
use prost::Message;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Elements whose values share the family's dictionary.
const IPV4: [u16; 4] = [8, 12, 225, 226];
const IPV6: [u16; 4] = [27, 28, 281, 282];

/// What the source and the destination address decide.
const BY_SOURCE: [u16; 6] = [9, 10, 16, 29, 44, 128];
const BY_DESTINATION: [u16; 9] = [13, 14, 15, 17, 18, 30, 45, 62, 129];
const SOURCE: [u16; 2] = [8, 27];
const DESTINATION: [u16; 2] = [12, 28];

/// (element, what it is near to): ends and starts, both directions' counters, translated and original ports.
const NEAR: [(u16, u16); 10] = [
    (21, 22),
    (151, 150),
    (153, 152),
    (155, 154),
    (157, 156),
    (159, 158),
    (23, 1),
    (24, 2),
    (227, 7),
    (228, 11),
];

/// Widest field that is written as numbers.
const MAX_NUMBER_BYTES: u16 = 16;
/// Records below which a dictionary is not tried.
const DICTIONARY_RECORDS: usize = 16;
/// Values that a dictionary lists for each record at most: source and destination, before and after translation.
/// Each of its columns is a table of all of them to the reader, so that a template of hundreds of addresses would
/// make a batch that no collector takes.
const MOST_LISTED: usize = 4;

/// What was decided of a column before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Planes,
    Dictionary { of: usize, place: usize },
    Follows { of: usize, ahead: usize },
    Difference { of: usize, ahead: usize },
    Variable,
}

/// The writer's scratch space; stays from batch to batch.
#[derive(Debug)]
pub(super) struct Encoder {
    cuts: Vec<usize>,
    body: Vec<u8>,
    body_cuts: Vec<usize>,
    mask: Vec<u8>,
    planes: Planes,
    spans: Spans,
    choices: Vec<Choice>,
    ahead: Vec<Ahead>,
    ahead_body: Vec<u8>,
    narrow: Dictionary<u32>,
    wide: Dictionary<u128>,
    /// Places in the group's dictionaries, one list a dictionary column.
    places: Vec<Vec<u16>>,
    /// For each value of the dictionary a record that has it in the column of this list of places.
    witnesses: Vec<u32>,
    witnessed: Option<usize>,
    narrow_values: Pair<u32>,
    values: Pair<u64>,
    wide_values: Pair<u128>,
}

impl Default for Encoder {
    fn default() -> Encoder {
        let seed = RandomState::new().build_hasher().finish();
        Encoder {
            cuts: Vec::new(),
            body: Vec::new(),
            body_cuts: Vec::new(),
            mask: Vec::new(),
            planes: Planes::default(),
            spans: Spans::default(),
            choices: Vec::new(),
            ahead: Vec::new(),
            ahead_body: Vec::new(),
            narrow: Dictionary::new(seed),
            wide: Dictionary::new(seed),
            places: Vec::new(),
            witnesses: Vec::new(),
            witnessed: None,
            narrow_values: Pair::default(),
            values: Pair::default(),
            wide_values: Pair::default(),
        }
    }
}

impl Encoder {
    /// Begins a batch.
    pub(super) fn begin(&mut self) {
        self.cuts.clear();
    }

    /// Where the planes of the batch end in the plain payload, ascending.
    pub(super) fn cuts(&self) -> &[usize] {
        &self.cuts
    }

    /// Appends the group to the plain payload.
    pub(super) fn group(&mut self, group: &Group, plain: &mut Vec<u8>) {
        self.body.clear();
        self.body_cuts.clear();
        self.prepare(group);
        let mut header = proto::Group {
            records: group.records as u32,
            kind: group.layout.kind() as i32,
            scope_columns: group.layout.scope_columns() as u32,
            v9_scopes: group.layout.v9_scopes() && group.layout.scope_columns() > 0,
            runs: group.runs.len() as u32,
            ..Default::default()
        };
        let mut used = 0;
        self.dictionary(group, &IPV4, 4, &mut used, &mut header.dictionaries);
        self.dictionary(group, &IPV6, 16, &mut used, &mut header.dictionaries);
        self.choose(group);
        header.columns = (0..group.layout.fields().len()).map(|column| self.column(group, column)).collect();
        header.run_columns =
            runs::columns(&group.runs, &mut self.values.0, &mut self.body, &mut self.body_cuts);
        self.append(&header, plain);
    }

    /// Writes the header and the body as one message of field 3.
    fn append(&mut self, header: &proto::Group, plain: &mut Vec<u8>) {
        use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
        const BODY: u32 = 15;
        const KEY_BYTES: usize = 1;
        let body = self.body.len() as u64;
        let tail = KEY_BYTES + encoded_len_varint(body) + self.body.len();
        encode_key(GROUPS, WireType::LengthDelimited, plain);
        encode_varint((header.encoded_len() + tail) as u64, plain);
        header.encode_raw(plain);
        encode_key(BODY, WireType::LengthDelimited, plain);
        encode_varint(body, plain);
        let start = plain.len();
        plain.extend_from_slice(&self.body);
        self.cuts.push(start);
        self.cuts.extend(self.body_cuts.iter().map(|cut| start + cut));
    }

    /// Learns which bytes vary and makes their planes; walks rows of variable length.
    fn prepare(&mut self, group: &Group) {
        self.choices.clear();
        self.ahead.clear();
        self.ahead_body.clear();
        self.witnessed = None;
        match group.layout.stride() {
            Some(stride) => {
                transpose::varying(&group.rows, stride, &mut self.mask);
                self.planes.make(&group.rows, stride, &self.mask);
            }
            None => self.spans.walk(group),
        }
        let choice = |placed: &Placed| match placed.field.width {
            1..=MAX_NUMBER_BYTES => Choice::Planes,
            _ => Choice::Variable,
        };
        self.choices.extend(group.layout.fields().iter().map(choice));
    }

    /// Whether and in how many bytes the column varies; all of them where that is not known.
    fn varying(&self, group: &Group, placed: &Placed) -> usize {
        let width = usize::from(placed.field.width);
        match group.layout.stride() {
            Some(_) => {
                let mask = self.mask.get(placed.offset..placed.offset + width).unwrap_or(&[]);
                mask.iter().filter(|bits| **bits != 0).count()
            }
            None => width,
        }
    }

    /// Lists the addresses of a family in a dictionary, if that is smaller.
    fn dictionary(
        &mut self,
        group: &Group,
        elements: &[u16; 4],
        width: u16,
        used: &mut usize,
        dictionaries: &mut Vec<proto::Column>,
    ) {
        let is_address = |placed: &Placed| {
            placed.field.enterprise == 0
                && placed.field.width == width
                && elements.contains(&placed.field.element)
        };
        let scopes = group.layout.scope_columns();
        let columns: Vec<usize> = (scopes..group.layout.fields().len())
            .filter(|column| group.layout.fields().get(*column).is_some_and(is_address))
            .collect();
        let varying = columns.iter().filter_map(|column| group.layout.fields().get(*column));
        let varying = varying.map(|placed| self.varying(group, placed)).max().unwrap_or(0);
        let all = group.records * columns.len();
        if group.records < DICTIONARY_RECORDS || varying < 2 {
            return;
        }
        // p*d + (d > 256 ? 2 : 1)*n*c < p*n*c, solved for the most distinct values d that pay.
        let most = (all * (varying - 2) / varying).max((all * (varying - 1) / varying).min(256));
        let most = most.min(group.records * MOST_LISTED).min(65_535);
        while self.places.len() < *used + columns.len() {
            self.places.push(Vec::new());
        }
        let of = dictionaries.len();
        let listed = if width == 4 {
            self.list_narrow(group, &columns, *used, most)
        } else {
            self.list_wide(group, &columns, *used, most)
        };
        if let Some(written) = listed {
            let count = if width == 4 { self.narrow.values().len() } else { self.wide.values().len() };
            dictionaries.push(proto::Column {
                width: u32::from(width),
                planes: written.planes,
                base: written.base.into(),
                count: count as u32,
                ..Default::default()
            });
            for (i, column) in columns.iter().enumerate() {
                if let Some(choice) = self.choices.get_mut(*column) {
                    *choice = Choice::Dictionary { of, place: *used + i };
                }
            }
            *used += columns.len();
        }
    }

    fn list_narrow(&mut self, group: &Group, columns: &[usize], used: usize, most: usize) -> Option<Written> {
        self.narrow.begin(most);
        for (column, places) in columns.iter().zip(self.places.iter_mut().skip(used)) {
            cells::load(group, &self.planes, &self.spans, *column, &mut self.narrow_values.0);
            listed(&mut self.narrow, &self.narrow_values.0, most, places)?;
        }
        Some(numbers::write(self.narrow.values(), &mut self.body, &mut self.body_cuts))
    }

    fn list_wide(&mut self, group: &Group, columns: &[usize], used: usize, most: usize) -> Option<Written> {
        self.wide.begin(most);
        for (column, places) in columns.iter().zip(self.places.iter_mut().skip(used)) {
            cells::load_wide(group, &self.spans, *column, &mut self.wide_values.0);
            listed(&mut self.wide, &self.wide_values.0, most, places)?;
        }
        Some(numbers::write(self.wide.values(), &mut self.body, &mut self.body_cuts))
    }

    /// Chooses for the columns that are no addresses.
    fn choose(&mut self, group: &Group) {
        for column in group.layout.scope_columns()..group.layout.fields().len() {
            let Some(placed) = group.layout.fields().get(column) else { continue };
            if self.choices.get(column) != Some(&Choice::Planes)
                || placed.field.enterprise != 0
                || self.varying(group, placed) == 0
            {
                continue;
            }
            let near = NEAR.iter().find(|near| near.0 == placed.field.element).map(|near| near.1);
            let choice = match near {
                Some(near) => self.difference(group, column, placed, near),
                None => self.follows(group, column, placed),
            };
            if let (Some(choice), Some(slot)) = (choice, self.choices.get_mut(column)) {
                *slot = choice;
            }
        }
    }

    /// A column near another one, if that takes fewer bits than its own planes.
    fn difference(&mut self, group: &Group, column: usize, placed: &Placed, near: u16) -> Option<Choice> {
        if placed.field.width > 8 {
            return None;
        }
        let wanted = Field { element: near, ..placed.field };
        let of = group.layout.fields().iter().position(|other| other.field == wanted)?;
        if self.choices.get(of) != Some(&Choice::Planes) || of < group.layout.scope_columns() {
            return None;
        }
        let (planes, spans) = (&self.planes, &self.spans);
        let width = placed.field.width;
        let load = |column: usize, to: &mut Vec<u32>| cells::load(group, planes, spans, column, to);
        let ahead = if width <= 4 {
            load(column, &mut self.narrow_values.0);
            load(of, &mut self.narrow_values.1);
            lean(&mut self.narrow_values, width, &mut self.ahead, &mut self.ahead_body)?
        } else {
            cells::load(group, planes, spans, column, &mut self.values.0);
            cells::load(group, planes, spans, of, &mut self.values.1);
            lean(&mut self.values, width, &mut self.ahead, &mut self.ahead_body)?
        };
        Some(Choice::Difference { of, ahead })
    }

    /// A column that an address decides, if no record disagrees.
    fn follows(&mut self, group: &Group, column: usize, placed: &Placed) -> Option<Choice> {
        let element = placed.field.element;
        let leads = if BY_SOURCE.contains(&element) {
            SOURCE
        } else if BY_DESTINATION.contains(&element) {
            DESTINATION
        } else {
            return None;
        };
        let (of, place) = group.layout.fields().iter().enumerate().find_map(|(of, other)| {
            let leads = other.field.enterprise == 0 && leads.contains(&other.field.element);
            match self.choices.get(of) {
                Some(Choice::Dictionary { place, .. }) if leads => Some((of, *place)),
                _ => None,
            }
        })?;
        let ahead = self.tabulate(group, column, placed, place)?;
        Some(Choice::Follows { of, ahead })
    }

    /// Writes ahead the table of a column's values by the places of its address; `None` if two records disagree, or
    /// if the table would be longer than the column.
    fn tabulate(&mut self, group: &Group, column: usize, placed: &Placed, place: usize) -> Option<usize> {
        let distinct = self.distinct(group, place);
        if distinct > group.records {
            return None;
        }
        let places = self.places.get(place)?;
        if self.witnessed != Some(place) {
            self.witnessed = Some(place);
            witness(places, distinct, &mut self.witnesses);
        }
        if placed.field.width <= 4 {
            cells::load(group, &self.planes, &self.spans, column, &mut self.narrow_values.0);
            let decides = decided(&mut self.narrow_values, places, &self.witnesses);
            decides.then(|| write_ahead(&self.narrow_values.1, &mut self.ahead, &mut self.ahead_body))
        } else {
            cells::load_wide(group, &self.spans, column, &mut self.wide_values.0);
            let decides = decided(&mut self.wide_values, places, &self.witnesses);
            decides.then(|| write_ahead(&self.wide_values.1, &mut self.ahead, &mut self.ahead_body))
        }
    }

    /// How many values the dictionary lists that the column with this list of places has.
    fn distinct(&self, group: &Group, place: usize) -> usize {
        let is_at = |(_, choice): &(&Placed, &Choice)| matches!(choice, Choice::Dictionary { place: at, .. } if *at == place);
        match group.layout.fields().iter().zip(&self.choices).find(is_at) {
            Some((placed, _)) if placed.field.width == 4 => self.narrow.values().len(),
            _ => self.wide.values().len(),
        }
    }

    /// Writes one column as was chosen.
    fn column(&mut self, group: &Group, index: usize) -> proto::Column {
        let (Some(placed), Some(choice)) = (group.layout.fields().get(index), self.choices.get(index)) else {
            return proto::Column::default();
        };
        let mut column = proto::Column {
            element: u32::from(placed.field.element),
            enterprise: placed.field.enterprise,
            width: u32::from(placed.field.width),
            ..Default::default()
        };
        let written = match *choice {
            Choice::Planes => self.planes_of(group, index, placed),
            Choice::Dictionary { of, place } => {
                column.encoding = Encoding::Dictionary as i32;
                column.of = of as u32;
                let places = self.places.get(place).map_or(&[][..], Vec::as_slice);
                numbers::write(places, &mut self.body, &mut self.body_cuts)
            }
            Choice::Follows { of, ahead } => {
                column.encoding = Encoding::Follows as i32;
                column.of = of as u32;
                self.written_ahead(ahead)
            }
            Choice::Difference { of, ahead } => {
                column.encoding = Encoding::Difference as i32;
                column.of = of as u32;
                self.written_ahead(ahead)
            }
            Choice::Variable => {
                column.encoding = Encoding::Variable as i32;
                self.variable(group, index)
            }
        };
        column.planes = written.planes;
        column.base = written.base.into();
        column
    }

    /// Moves a column's planes to their place in the body.
    fn written_ahead(&mut self, ahead: usize) -> Written {
        let Some(ahead) = self.ahead.get(ahead) else { return Written::default() };
        let start = self.body.len();
        self.body.extend_from_slice(self.ahead_body.get(ahead.start..ahead.end).unwrap_or(&[]));
        self.body_cuts
            .extend((start..self.body.len()).step_by(ahead.plane.max(1)).map(|cut| cut + ahead.plane));
        ahead.written.clone()
    }

    /// A column as it stands: from the planes made of the rows, or loaded where rows vary in length.
    fn planes_of(&mut self, group: &Group, index: usize, placed: &Placed) -> Written {
        let width = usize::from(placed.field.width);
        if group.layout.stride().is_none() {
            cells::load_wide(group, &self.spans, index, &mut self.wide_values.0);
            return numbers::write(&self.wide_values.0, &mut self.body, &mut self.body_cuts);
        }
        let mut planes = 0;
        let mut base = 0u128;
        for k in 0..width {
            let byte = placed.offset + width - 1 - k;
            match self.planes.plane(byte) {
                Some(plane) => {
                    planes |= 1 << k;
                    self.body.extend_from_slice(plane);
                    self.body_cuts.push(self.body.len());
                }
                None => base |= u128::from(group.rows.get(byte).copied().unwrap_or(0)) << (8 * k),
            }
        }
        Written { planes, base: numbers::trimmed(base) }
    }

    /// Lengths, then the values back to back.
    fn variable(&mut self, group: &Group, index: usize) -> Written {
        if group.layout.fields().get(index).is_some_and(|placed| placed.field.width == 0) {
            // All lengths are 0, and there are no values: a hostile template has many such fields.
            self.body_cuts.push(self.body.len());
            return Written::default();
        }
        let lengths = &mut self.narrow_values.0;
        lengths.clear();
        lengths.extend(cells::column(group, &self.spans, index).map(|field| field.len() as u32));
        let written = numbers::write(lengths, &mut self.body, &mut self.body_cuts);
        for field in cells::column(group, &self.spans, index) {
            self.body.extend_from_slice(field);
        }
        self.body_cuts.push(self.body.len());
        written
    }
}

/// The places of a column's values, if they still pay.
fn listed<T: Key>(
    dictionary: &mut Dictionary<T>,
    values: &[T],
    most: usize,
    places: &mut Vec<u16>,
) -> Option<()> {
    places.clear();
    dictionary.places(values, most, places).then_some(())
}
