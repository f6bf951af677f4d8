//! The records in segment files as they lie on a medium: all of every frame whose checksum holds, whatever is
//! around it.

use flowproxy::batch::{Kind, read};
use flowproxy::spool::frame::{SEGMENT_HEADER_BYTES, Seed, SegmentHeader, check};

use super::Cut;

/// octetDeltaCount, which holds a record's number.
const OCTETS: u16 = 1;

/// The numbers of all records that a power cut must have left: those in frames that were on the medium, also of
/// segments that had gone from it before.
pub fn promised(cut: &Cut) -> Vec<u32> {
    let gone = cut.gone.iter().map(|(name, bytes)| (name.as_str(), bytes));
    let all = cut.durable.iter().map(|(path, bytes)| (path.as_str(), bytes)).chain(gone);
    let segments = all.filter(|(path, _)| path.ends_with(".fsp") && !path.contains("quarantine/"));
    segments.flat_map(|(_, bytes)| numbers_in(bytes)).collect()
}

/// The numbers of the records in a segment.
pub fn numbers_in(segment: &[u8]) -> Vec<u32> {
    let Ok(header) = SegmentHeader::decode(segment) else { return Vec::new() };
    let seed = Seed::new(header.lane, header.first_seq);
    let (mut numbers, mut at) = (Vec::new(), SEGMENT_HEADER_BYTES);
    while at < segment.len() {
        let Ok(frame) = check(&segment[at..], seed) else {
            at += 8;
            continue;
        };
        let payload = at + frame.frame_bytes();
        if frame.kind == Kind::Records {
            // Notes end where the payload begins; the padding behind it is no part of it.
            let start = at + flowproxy::spool::frame::FRAME_HEADER_BYTES + frame.notes_bytes;
            let bytes = &segment[start..start + frame.payload_bytes];
            let batch = read::open(frame.codec, frame.plain_size, bytes).expect("a batch in a good frame");
            numbers.extend(numbers_of(&batch));
        }
        at = payload;
    }
    numbers
}

/// The numbers of the records in a batch.
pub fn numbers_of(batch: &read::Batch) -> Vec<u32> {
    let mut numbers = Vec::new();
    for group in &batch.groups {
        let columns = group.columns.iter();
        let octets = columns.filter(|column| column.field.element == OCTETS && column.field.enterprise == 0);
        for column in octets {
            numbers.extend((0..group.records()).map(|record| {
                let value = column.value(record).iter();
                value.fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
            }));
        }
    }
    numbers
}
