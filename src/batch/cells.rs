//! Access to the fields of gathered rows, column by column.

use super::builder::Group;
use super::numbers::Number;
use super::transpose::Planes;
use crate::flow::Field;

/// Where the fields of rows of variable length lie: (start, end) in the rows, column by column.
#[derive(Debug, Default)]
pub(super) struct Spans {
    spans: Vec<(u32, u32)>,
    records: usize,
}

impl Spans {
    /// Walks the rows of a group without a stride. Its rows were walked once when they were decoded, so they fit
    /// their layout; a row that did not would give empty fields.
    pub(super) fn walk(&mut self, group: &Group) {
        self.records = group.records;
        self.spans.clear();
        self.spans.resize(group.records * group.layout.fields().len(), (0, 0));
        let mut start = 0;
        for (record, &end) in group.ends.iter().enumerate() {
            let mut at = start;
            for (column, placed) in group.layout.fields().iter().enumerate() {
                let (head, length) = match placed.field.width {
                    Field::VARIABLE => prefix(group.rows.get(at..).unwrap_or(&[])),
                    width => (0, usize::from(width)),
                };
                at += head;
                if let Some(span) = self.spans.get_mut(column * self.records + record) {
                    *span = (at as u32, (at + length) as u32);
                }
                at += length;
            }
            start = end as usize;
        }
    }

    fn column(&self, column: usize) -> &[(u32, u32)] {
        self.spans.get(column * self.records..(column + 1) * self.records).unwrap_or(&[])
    }
}

/// (bytes of the prefix, length it says); RFC 7011 7.
fn prefix(bytes: &[u8]) -> (usize, usize) {
    match bytes {
        [255, high, low, ..] => (3, usize::from(u16::from_be_bytes([*high, *low]))),
        [short, ..] => (1, usize::from(*short)),
        [] => (0, 0),
    }
}

/// The fields of one column, one for each record.
pub(super) fn column<'a>(
    group: &'a Group,
    spans: &'a Spans,
    column: usize,
) -> impl Iterator<Item = &'a [u8]> + Clone {
    let placed = group.layout.fields().get(column);
    let (offset, width) = placed.map_or((0, 0), |placed| (placed.offset, usize::from(placed.field.width)));
    let strided = group.layout.stride().map(|stride| {
        let rows = group.rows.get(offset..).unwrap_or(&[]);
        rows.chunks(stride.max(1)).map(move |row| row.get(..width).unwrap_or(&[])).take(group.records)
    });
    let walked = match group.layout.stride() {
        Some(_) => &[],
        None => spans.column(column),
    };
    let field = |span: &(u32, u32)| group.rows.get(span.0 as usize..span.1 as usize).unwrap_or(&[]);
    strided.into_iter().flatten().chain(walked.iter().map(field))
}

/// Loads a column that is no wider than `T` into `to` as integers: from the planes, where rows have a stride.
pub(super) fn load<T: Number>(group: &Group, planes: &Planes, spans: &Spans, index: usize, to: &mut Vec<T>) {
    to.clear();
    let Some(placed) = group.layout.fields().get(index) else { return };
    if group.layout.stride().is_none() {
        let number = |field: &[u8]| {
            let weighed = field.iter().rev().zip(0..).map(|(byte, k)| T::weighed(*byte, k));
            weighed.fold(T::default(), T::union)
        };
        to.extend(column(group, spans, index).map(number));
        return;
    }
    let width = usize::from(placed.field.width);
    let bytes = (0..width).map(|k| (k as u32, placed.offset + width - 1 - k));
    // The bytes that do not vary are those of the first row.
    let base = bytes
        .clone()
        .filter(|(_, byte)| planes.plane(*byte).is_none())
        .fold(T::default(), |base, (k, byte)| {
            base.union(T::weighed(group.rows.get(byte).copied().unwrap_or(0), k))
        });
    to.resize(group.records, base);
    for (k, byte) in bytes {
        for (value, byte) in to.iter_mut().zip(planes.plane(byte).unwrap_or(&[])) {
            *value = value.union(T::weighed(*byte, k));
        }
    }
}

/// Loads a column of at most 16 bytes into `to` as integers.
pub(super) fn load_wide(group: &Group, spans: &Spans, index: usize, to: &mut Vec<u128>) {
    to.clear();
    let Some(placed) = group.layout.fields().get(index) else { return };
    match (group.layout.stride(), placed.field.width) {
        (Some(stride), 16) => {
            let rows = group.rows.get(placed.offset..).unwrap_or(&[]);
            to.extend(fixed::<16>(rows, stride).map(u128::from_be_bytes));
        }
        _ => to.extend(
            column(group, spans, index)
                .map(|field| field.iter().fold(0u128, |value, byte| value << 8 | u128::from(*byte))),
        ),
    }
}

/// The `N` bytes at the start of each stretch of `stride` bytes.
fn fixed<const N: usize>(rows: &[u8], stride: usize) -> impl Iterator<Item = [u8; N]> {
    rows.chunks(stride.max(1)).filter_map(|row| row.first_chunk::<N>().copied())
}
