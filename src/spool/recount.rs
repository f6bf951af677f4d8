//! What a start finds of earlier ones, counted: by the running totals in a lane's first and last frames, so that the
//! time it takes does not grow with the backlog.

use super::SkipRow;
use super::frame::{Notes, Seed, SegmentHeader};
use super::read::{Found, Frame, Walk};
use super::state::{Lane, Segment};
use super::tally::Count;
use crate::storage::{Mode, Storage};
use std::io;

/// A sound frame's number, its records, and those of the lane up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Total {
    seq: u64,
    records: u64,
    total: u64,
}

impl Total {
    fn before(self) -> u64 {
        self.total.saturating_sub(self.records)
    }
}

/// Counts what a lane holds that is neither acked nor skipped.
pub fn recount(storage: &dyn Storage, lane: &mut Lane) {
    lane.is_of_before = true;
    lane.counted_seq = lane.acked_seq;
    let acked = lane.acked_seq;
    let rows: u64 = lane.rows.iter().map(|row| row.to - row.from.max(acked + 1) + 1).sum();
    lane.unacked.batches = (lane.next_seq - 1 - acked).saturating_sub(rows);
    let held = || lane.segments.iter().filter(|segment| segment.last_seq > acked);
    let first = held().next().and_then(|segment| first(storage, lane, segment, acked + 1));
    let last = held().next_back().and_then(|segment| last(storage, lane, segment));
    let (Some(first), Some(last)) = (first, last) else {
        (lane.total, lane.is_unsure) = (None, true);
        return;
    };
    let is_next = (first.seq == acked + 1).then(|| first.before());
    let passed = is_next.or_else(|| Some(exactly(storage, lane, acked)?.total));
    lane.is_unsure = passed.is_none() || last.seq + 1 < lane.next_seq;
    lane.total = Some(last.total);
    lane.passed = passed.map(|total| (acked, total));
    let from = if passed.is_some() { acked + 1 } else { first.seq };
    // What rows between the two say is in the totals, too.
    let rows = lane.rows.iter().filter(|row| (from..=last.seq).contains(&row.from));
    let skipped: u64 = rows.map(|row| around(storage, lane, row).unwrap_or_else(|| row.records())).sum();
    lane.unacked.records =
        last.total.saturating_sub(passed.unwrap_or(first.before())).saturating_sub(skipped);
}

/// Records of a row, by the frames next to it.
fn around(storage: &dyn Storage, lane: &Lane, row: &SkipRow) -> Option<u64> {
    let after = exactly(storage, lane, row.to.checked_add(1)?)?;
    let of_before = match row.from.checked_sub(1)? {
        0 => 0,
        before => exactly(storage, lane, before)?.total,
    };
    after.before().checked_sub(of_before)
}

/// The frame of a number, if it is there and sound.
fn exactly(storage: &dyn Storage, lane: &Lane, seq: u64) -> Option<Total> {
    first(storage, lane, lane.segment(seq)?, seq).filter(|found| found.seq == seq)
}

/// Records between two segments that follow each other with a gap; `None` if the frames at its ends do not tell.
pub fn missing(storage: &dyn Storage, lane: &Lane, before: &Segment, after: &Segment) -> Option<u64> {
    let last = last(storage, lane, before).filter(|last| last.seq == before.last_seq)?;
    let first = first(storage, lane, after, after.first_seq).filter(|first| first.seq == after.first_seq)?;
    first.before().checked_sub(last.total)
}

/// The first sound frame from a number on.
fn first(storage: &dyn Storage, lane: &Lane, segment: &Segment, from: u64) -> Option<Total> {
    let frames = frames(storage, lane, segment).ok()?;
    frames
        .iter()
        .filter(|found| found.header.seq >= from)
        .find_map(|found| total(storage, lane, segment, found))
}

/// The last sound frame.
fn last(storage: &dyn Storage, lane: &Lane, segment: &Segment) -> Option<Total> {
    let frames = frames(storage, lane, segment).ok()?;
    let within = frames.iter().rev().filter(|found| found.header.seq <= segment.last_seq);
    within.into_iter().find_map(|found| total(storage, lane, segment, found))
}

fn frames(storage: &dyn Storage, lane: &Lane, segment: &Segment) -> io::Result<Vec<Found>> {
    let file = storage.open(&segment.path, Mode::Read)?;
    let header = SegmentHeader { lane: lane.id, first_seq: segment.first_seq, created: 0 };
    let mut walk = Walk::new(file.as_ref(), &header, segment.end, false);
    let mut frames = Vec::new();
    while let Some(found) = walk.next()? {
        frames.push(found);
    }
    Ok(frames)
}

fn total(storage: &dyn Storage, lane: &Lane, segment: &Segment, found: &Found) -> Option<Total> {
    let file = storage.open(&segment.path, Mode::Read).ok()?;
    let seed = Seed::new(lane.id, segment.first_seq);
    let frame = Frame::read(file.as_ref(), seed, found.offset, found.header.frame_bytes()).ok()?.ok()?;
    let Notes { totals, .. } = frame.notes().ok()?;
    Some(Total { seq: found.header.seq, records: u64::from(found.header.records), total: totals.records })
}

/// Takes out of a lane what is declared lost at the start.
pub fn take(lane: &mut Lane, batches: u64, records: u64) {
    let Count { batches: left, records: held } = lane.unacked;
    lane.unacked = Count { batches: left.saturating_sub(batches), records: held.saturating_sub(records) };
}
