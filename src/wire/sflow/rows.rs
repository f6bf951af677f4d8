//! Rows of samples on their way to the output: gathered while they have one shape, and the layouts of those shapes.

use super::parts::{Part, RECORD};
use super::sample::Record;
use crate::flow::{Layout, Run};
use crate::proto::{RecordKind, SamplingSource};
use crate::wire::{Output, Template};
use std::collections::HashMap;

/// Layouts that are kept; when there are more, all are compiled anew. Devices send some ten shapes.
const MAX_LAYOUTS: usize = 512;

/// Records of one sample that travel whole; more are a fault.
pub(super) const MAX_WHOLE: usize = 64;

/// What rows of one layout have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    kind: RecordKind,
    /// Bits of the parts that are there.
    parts: u64,
    /// How many records travel whole.
    whole: usize,
}

impl Shape {
    fn layout(self) -> Layout {
        let parts = Part::ALL.iter().filter(|part| self.parts & part.bit() != 0);
        let mut fields: Vec<_> = parts.flat_map(|part| part.fields()).copied().collect();
        fields.extend(std::iter::repeat_n(RECORD, self.whole));
        Layout::packed(self.kind, 0, false, &fields)
    }
}

/// Rows of one shape and sampling rate, and the layouts known. Its buffers stay from datagram to datagram.
#[derive(Debug, Default)]
pub(super) struct Rows {
    layouts: HashMap<Shape, Template>,
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// What the rows before the one in hand have in common, and their sampling rate.
    gathered: Option<(Shape, u32)>,
    /// Records of the row in hand that travel whole, as fields of variable length.
    whole: Vec<u8>,
    count_whole: usize,
    /// Records of the row in hand that were one too many.
    lost: usize,
}

impl Rows {
    /// Begins a row.
    pub(super) fn row(&mut self) -> Row<'_> {
        self.bytes.truncate(self.finished());
        self.whole.clear();
        (self.count_whole, self.lost) = (0, 0);
        Row { parts: 0, rows: self }
    }

    /// Bytes of the rows that are finished.
    fn finished(&self) -> usize {
        self.ends.last().map_or(0, |end| *end as usize)
    }

    /// Hands over what is gathered.
    pub(super) fn flush(&mut self, run: &Run, output: &mut impl Output) {
        if let Some((shape, rate)) = self.gathered.take() {
            self.hand_over(shape, rate, run, output);
        }
        self.bytes.clear();
        self.ends.clear();
    }

    fn hand_over(&mut self, shape: Shape, rate: u32, run: &Run, output: &mut impl Output) {
        if self.layouts.len() >= MAX_LAYOUTS && !self.layouts.contains_key(&shape) {
            self.layouts.clear();
        }
        let template = self.layouts.entry(shape).or_insert_with(|| Template::new(shape.layout()));
        let sampling_source = if rate > 0 { SamplingSource::Sample } else { SamplingSource::Unknown };
        let run = Run { sampling_rate: rate, sampling_source, ..*run };
        let rows = self.bytes.get(..self.ends.last().map_or(0, |end| *end as usize)).unwrap_or(&[]);
        let ends = if shape.whole > 0 { self.ends.as_slice() } else { &[] };
        output.records(&run, template, rows, ends, self.ends.len() as u32);
    }
}

/// The row in hand. One that is dropped unfinished leaves no trace.
pub(super) struct Row<'a> {
    rows: &'a mut Rows,
    parts: u64,
}

impl Row<'_> {
    /// Puts a part's bytes behind those of the parts before it.
    pub(super) fn put<const N: usize>(&mut self, part: Part, bytes: [u8; N]) {
        debug_assert_eq!(part.width(), N, "{part:?}");
        debug_assert!(self.parts < part.bit(), "{part:?} comes after its place");
        self.parts |= part.bit();
        self.rows.bytes.extend_from_slice(&bytes);
    }

    /// Puts a part that is all numbers of 4 bytes.
    pub(super) fn put_numbers<const N: usize>(&mut self, part: Part, numbers: [u32; N]) {
        debug_assert_eq!(part.width(), N * 4, "{part:?}");
        debug_assert!(self.parts < part.bit(), "{part:?} comes after its place");
        self.parts |= part.bit();
        for number in numbers {
            self.rows.bytes.extend_from_slice(&number.to_be_bytes());
        }
    }

    /// Lets a record travel whole, unless there are too many.
    pub(super) fn keep(&mut self, record: &Record<'_>) {
        const FORMAT_BYTES: usize = 4;
        let length = record.bytes.len() + FORMAT_BYTES;
        let (Ok(long), true) = (u16::try_from(length), self.rows.count_whole < MAX_WHOLE) else {
            self.rows.lost += 1;
            return;
        };
        let whole = &mut self.rows.whole;
        match u8::try_from(length) {
            Ok(short) if short < 255 => whole.push(short),
            _ => {
                whole.push(255);
                whole.extend_from_slice(&long.to_be_bytes());
            }
        }
        whole.extend_from_slice(&record.data_format().to_be_bytes());
        whole.extend_from_slice(record.bytes);
        self.rows.count_whole += 1;
    }

    /// Records that were too many.
    pub(super) fn lost(&self) -> usize {
        self.rows.lost
    }

    /// Ends the row. Rows before it that are of another shape or rate are handed over.
    pub(super) fn finish(self, kind: RecordKind, rate: u32, run: &Run, output: &mut impl Output) {
        let Row { rows, parts } = self;
        rows.bytes.extend_from_slice(&rows.whole);
        let shape = Shape { kind, parts, whole: rows.count_whole };
        if let Some((before, rate_before)) = rows.gathered.filter(|known| *known != (shape, rate)) {
            rows.hand_over(before, rate_before, run, output);
            rows.bytes.drain(..rows.finished());
            rows.ends.clear();
        }
        rows.gathered = Some((shape, rate));
        rows.ends.push(rows.bytes.len() as u32);
    }
}
