//! A sample: whose it is, and the records in it.
//!
//! ```text
//! record   0 data format (enterprise * 4096 + format)   4 length   8 bytes
//! ```
//!
//! | if | then |
//! |---|---|
//! | a record says that it is longer than what is left of its sample | it and those after it are not read |
//! | the last record runs over its sample's end, and where it ends the next sample begins while none begins at the sample's own end | the record is taken whole (seen: a sample's length 4 too low) |
//! | a record of a known structure says that it is shorter than that, no record can begin behind it, and one can behind the whole structure | it is taken whole (seen: Ethernet frame of 20 for 24, extended switch of 6 for 16) |
//! | a record's length is no multiple of four, no record can begin behind it, and one can behind zeros up to such a multiple | those are padding |
//! | bytes are left behind the last record | they are padding (seen: a sample's length 4 too high) |

use crate::proto::RecordKind;

/// Bits of a data format that are the format.
const FORMAT_BITS: u32 = 12;

/// The sFlow data source that a sample is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// 0 ifIndex, 1 VLAN, 2 entPhysicalEntry, 3 logical entity.
    pub class: u32,
    /// Which of that class.
    pub index: u32,
}

/// A sample that gives a record.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Flow, counters or drop.
    pub kind: RecordKind,
    /// Counts the samples of this kind and source.
    pub sequence: u32,
    /// Where it was taken.
    pub source: Source,
    /// Samples that the device has lost so far; counter samples have none.
    pub drops: Option<u32>,
    /// Its records, in wire order.
    pub records: Records<'a>,
}

/// A record of a sample, or a sample of a kind not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Whose structure it is; 0 is sFlow's own.
    pub enterprise: u32,
    /// Which structure.
    pub format: u32,
    /// The structure.
    pub bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// What stands behind a data format.
    pub(super) fn new(data_format: u32, bytes: &'a [u8]) -> Record<'a> {
        let (enterprise, format) = (data_format >> FORMAT_BITS, data_format & ((1 << FORMAT_BITS) - 1));
        Record { enterprise, format, bytes }
    }

    /// Enterprise and format as on the wire.
    pub(super) fn data_format(&self) -> u32 {
        self.enterprise << FORMAT_BITS | self.format
    }
}

/// Walks over the records of a sample; ends before the first that does not fit.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    kind: RecordKind,
    rest: &'a [u8],
    left: u32,
}

impl<'a> Records<'a> {
    pub(super) fn new(kind: RecordKind, rest: &'a [u8], count: u32) -> Records<'a> {
        Records { kind, rest, left: count }
    }

    /// Records that are promised and not yet walked over.
    pub(super) fn left(&self) -> u32 {
        self.left
    }

    /// Bytes not yet walked over.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Bytes of the record to come that it needs beyond what is there, if it is the last and that is its fault.
    pub(super) fn lacking(&self) -> Option<usize> {
        let (_, length, rest) = header(self.rest)?;
        (self.left == 1).then(|| length.checked_sub(rest.len())).flatten()
    }
}

/// A data format, the length that follows it and what is behind that.
pub(super) fn header(bytes: &[u8]) -> Option<(u32, usize, &[u8])> {
    let (format, bytes) = bytes.split_first_chunk()?;
    let (length, bytes) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*format), u32::from_be_bytes(*length) as usize, bytes))
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let left = self.left.checked_sub(1)?;
        let (data_format, length, rest) = header(self.rest)?;
        let mut cut = rest.split_at_checked(length);
        if length < least(self.kind, data_format) && cut.is_some_and(|(_, rest)| !can_begin(rest, left)) {
            let whole = rest.split_at_checked(least(self.kind, data_format));
            cut = whole.filter(|(_, rest)| can_begin(rest, left)).or(cut);
        }
        let (bytes, rest) = cut?;
        let rest = padded(length, rest, |rest| can_begin(rest, left)).unwrap_or(rest);
        (self.rest, self.left) = (rest, left);
        Some(Record::new(data_format, bytes))
    }
}

/// What follows the zeros that align `length` bytes to four (RFC 4506 4.10), if nothing can begin without them.
pub(super) fn padded(length: usize, rest: &[u8], can_begin: impl Fn(&[u8]) -> bool) -> Option<&[u8]> {
    let (padding, rest_padded) = rest.split_at_checked(length.wrapping_neg() % 4)?;
    let is_padding = !padding.is_empty() && padding.iter().all(|byte| *byte == 0);
    (is_padding && !can_begin(rest) && can_begin(rest_padded)).then_some(rest_padded)
}

/// The rest of a sample may be the `left` records that are to come. There is no format 0 of sFlow's own: what looks like
/// it is padding.
fn can_begin(rest: &[u8], left: u32) -> bool {
    match left {
        0 => rest.is_empty(),
        _ => header(rest).is_some_and(|(format, length, rest)| format != 0 && length <= rest.len()),
    }
}

/// Bytes of structures that are always as long.
fn least(kind: RecordKind, data_format: u32) -> usize {
    match (kind, data_format) {
        (RecordKind::CounterSample, 1) => 88,
        (RecordKind::CounterSample, 2) => 52,
        (RecordKind::CounterSample, 5 | 1001) => 28,
        (RecordKind::FlowSample | RecordKind::DropSample, 2) => 24,
        (RecordKind::FlowSample | RecordKind::DropSample, 3) => 32,
        (RecordKind::FlowSample | RecordKind::DropSample, 4) => 56,
        (RecordKind::FlowSample | RecordKind::DropSample, 1001) => 16,
        _ => 0,
    }
}
