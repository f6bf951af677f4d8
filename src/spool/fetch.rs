//! What stands at a number: from memory, from a segment, from the rows, or nothing any more. And refusals.
//!
//! Called by the uplink. Reads the disk, and writes to it only when it finds damage or is told of a Reject.

use super::frame::{self, Seed, SegmentHeader};
use super::read::{Frame, Index, Place};
use super::segment::Numbered;
use super::state::{Journal, Lane, ReadSegment, Segment, Shared, locked};
use super::tally::{self, Given};
use super::{Fetched, LaneId, ReadError, SkipRow, quarantine};
use crate::proto::skip::Reason;
use crate::storage::{Mode, StorageFile};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Old segments that are kept open with their index.
const OPENED_SEGMENTS: usize = 4;

/// Where to look, found under the lock.
enum Look {
    Done(Fetched),
    /// The budget is at this segment.
    Wait,
    /// In this segment.
    Disk(Looked),
    /// Nowhere; up to this number there is nothing either.
    Nothing {
        to: u64,
    },
}

/// What must be known of a segment to read from it.
struct Looked {
    lane: LaneId,
    first_seq: u64,
    last_seq: u64,
    path: PathBuf,
    end: u64,
    /// In the writer's own: the place is known.
    growing: Option<(Arc<dyn StorageFile>, Place)>,
}

impl Looked {
    fn new(lane: LaneId, segment: &Segment, seq: u64) -> Self {
        let growing = segment.growing.as_ref();
        Self {
            lane,
            first_seq: segment.first_seq,
            last_seq: segment.last_seq,
            path: segment.path.clone(),
            end: segment.end,
            growing: growing.map(|view| (view.file.clone(), view.index.place(seq, segment.last_seq))),
        }
    }
}

/// What a segment gave.
enum Taken {
    Frame(Frame),
    /// No good frame up to `to`; what to keep of the bytes.
    Damaged {
        to: u64,
        file: Arc<dyn StorageFile>,
        ranges: Vec<Range<u64>>,
    },
    /// The file is not there.
    Missing,
}

/// Looks a number up.
///
/// # Errors
/// [`ReadError`]; the number may be asked for again.
pub fn fetch(shared: &Shared, lane: LaneId, seq: u64) -> Result<Fetched, ReadError> {
    loop {
        let segment = match look(shared, lane, seq)? {
            Look::Done(fetched) => return Ok(fetched),
            Look::Wait => {
                drop(shared.journal());
                continue;
            }
            Look::Nothing { to } => return lost(shared, lane, seq, to, Reason::Lost),
            Look::Disk(segment) => segment,
        };
        match take(shared, &segment, seq)? {
            Taken::Frame(frame) => {
                if let Some(of) = shared.state().lane(lane) {
                    tally::give(of, seq, given(&frame));
                }
                return Ok(Fetched::Batch(frame.batch(lane)));
            }
            // Between look and read it may have been acked or dropped, and its blocks written over.
            _ if !still_there(shared, &segment) => continue,
            Taken::Missing => {
                forget(shared, &segment);
                return lost(shared, lane, seq, segment.last_seq, Reason::Lost);
            }
            Taken::Damaged { to, file, ranges } => {
                for range in ranges {
                    keep_damaged(shared, &segment, file.as_ref(), range);
                }
                return lost(shared, lane, seq, to, Reason::Damaged);
            }
        }
    }
}

/// The same, if that needs no disk.
///
/// # Errors
/// No such lane.
pub fn at_hand(shared: &Shared, lane: LaneId, seq: u64) -> Result<Option<Fetched>, ReadError> {
    Ok(match look(shared, lane, seq)? {
        Look::Done(fetched) => Some(fetched),
        Look::Wait | Look::Disk(_) | Look::Nothing { .. } => None,
    })
}

fn look(shared: &Shared, id: LaneId, seq: u64) -> Result<Look, ReadError> {
    let mut state = shared.state();
    let current = state.current().is_some_and(|lane| lane.id == id);
    let fresh = if current { state.recent.get(seq).cloned() } else { None };
    // What a failing disk has not taken yet is in no segment, and no more lost for that.
    let held = state.recent.front().map(|one| one.batch.seq).filter(|first| current && *first > seq);
    let lane = state.lane(id).ok_or(ReadError::UnknownLane(id))?;
    if let Some(row) = lane.row(seq) {
        return Ok(Look::Done(Fetched::Skip(row.cut_to(seq))));
    }
    if seq >= lane.next_seq {
        return Ok(Look::Done(Fetched::Pending));
    }
    if let Some(Numbered { batch, totals, shares }) = fresh {
        lane.sent_seq = lane.sent_seq.max(seq);
        let (kind, records, total) = (batch.kind, batch.records, totals.records);
        tally::give(lane, seq, Given { kind, records, total, shares });
        return Ok(Look::Done(Fetched::Batch(batch)));
    }
    Ok(match lane.segment(seq) {
        Some(segment) if segment.going => Look::Wait,
        Some(segment) => {
            let segment = Looked::new(id, segment, seq);
            lane.sent_seq = lane.sent_seq.max(seq);
            Look::Disk(segment)
        }
        None => Look::Nothing { to: held.unwrap_or(u64::MAX).min(lane.next_present(seq)) - 1 },
    })
}

/// What is remembered of a batch that is read from the disk to be sent.
fn given(frame: &Frame) -> Given {
    let (header, notes) = (&frame.header, frame.notes().unwrap_or_default());
    let (total, shares) = (notes.totals.records, Arc::new(notes.shares));
    Given { kind: header.kind, records: header.records, total, shares }
}

/// Numbers with neither frame nor row: acked, or lost from now on.
fn lost(shared: &Shared, id: LaneId, seq: u64, to: u64, reason: Reason) -> Result<Fetched, ReadError> {
    let mut journal = shared.journal();
    let acked = {
        let mut state = shared.state();
        let lane = state.lane(id).ok_or(ReadError::UnknownLane(id))?;
        if let Some(row) = lane.row(seq) {
            return Ok(Fetched::Skip(row.cut_to(seq)));
        }
        lane.acked_seq.max(lane.position)
    };
    let mut row = SkipRow::new(id, seq, to, reason);
    if seq <= acked {
        row.to = to.min(acked);
        row.reason = Reason::AlreadyAcked;
        return Ok(Fetched::Skip(row));
    }
    // What the rows behind already say stays theirs.
    if let Some(lane) = shared.state().lane(id)
        && let Some((_, end)) = lane.without_rows(seq, to).first()
    {
        row.to = *end;
    }
    tracing::error!(lane = %id, from = row.from, to = row.to, reason = reason.as_str_name(),
        "Batches in the spool cannot be sent");
    // As before a row of what is dropped: the lane has to be named.
    let positions = shared.state().positions();
    journal.positions.write(&positions, true)?;
    add_row(shared, &mut journal, row.clone())?;
    Ok(Fetched::Skip(row))
}

/// Makes a row durable, then known.
///
/// # Errors
/// Those of the disk; then the row does not hold.
pub fn add_row(shared: &Shared, journal: &mut Journal, row: SkipRow) -> Result<(), io::Error> {
    let mut kept = row.clone();
    kept.counts_per_exporter = super::budget::bounded(kept.counts_per_exporter);
    let all = || {
        let mut rows = shared.state().rows();
        rows.push(kept.clone());
        rows
    };
    journal.skips.add(std::slice::from_ref(&kept), all)?;
    // The lane may have been set aside while the row was written; then the row goes with it.
    let counted = shared.state().lane_not_closed(row.lane).map_or(0, |lane| lane.counted_seq);
    let above = (row.to > counted).then(|| row.cut_to(counted + 1));
    let records = above.as_ref().map(|above| {
        tally::between(shared, above.lane, above.from, above.to).unwrap_or_else(|| above.records())
    });
    if let Some(lane) = shared.state().lane_not_closed(row.lane) {
        if let (Some(above), Some(records)) = (&above, records) {
            tally::skipped(shared, lane, above, records);
        }
        lane.add_row(kept);
    }
    Ok(())
}

fn still_there(shared: &Shared, segment: &Looked) -> bool {
    let mut state = shared.state();
    let Some(lane) = state.lane(segment.lane) else { return false };
    lane.segments.iter().any(|other| other.first_seq == segment.first_seq && !other.going)
}

fn forget(shared: &Shared, segment: &Looked) {
    tracing::error!(file = %segment.path.display(), "A segment of the spool has gone");
    if let Some(lane) = shared.state().lane(segment.lane) {
        lane.segments.retain(|other| other.first_seq != segment.first_seq);
    }
}

fn take(shared: &Shared, segment: &Looked, seq: u64) -> Result<Taken, io::Error> {
    let (file, place, damaged) = match &segment.growing {
        Some((file, place)) => (file.clone(), place.clone(), Vec::new()),
        None => {
            let Some(opened) = opened(shared, segment)? else { return Ok(Taken::Missing) };
            let place = opened.index.place(seq, segment.last_seq);
            (opened.file.clone(), place, opened.index.damaged.clone())
        }
    };
    let (offset, len) = match place {
        Place::Frame { offset, len } => (offset, len),
        Place::Damaged { last_seq } => return Ok(Taken::Damaged { to: last_seq, file, ranges: damaged }),
    };
    let seed = Seed::new(segment.lane, segment.first_seq);
    match Frame::read(file.as_ref(), seed, offset, len)? {
        Ok(frame) if frame.header.seq == seq => Ok(Taken::Frame(frame)),
        _ => {
            let range = offset..offset + len as u64;
            Ok(Taken::Damaged { to: seq, file, ranges: vec![range] })
        }
    }
}

/// A segment's file and index, from the few that are kept, or from the disk. `None` if there is no file.
fn opened(shared: &Shared, segment: &Looked) -> io::Result<Option<Arc<ReadSegment>>> {
    {
        let mut opened = locked(&shared.opened);
        if let Some(place) = opened.iter().position(|one| one.path == segment.path)
            && let Some(one) = opened.remove(place)
        {
            opened.push_back(one.clone());
            return Ok(Some(one));
        }
    }
    let file = match shared.storage.open(&segment.path, Mode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let header = SegmentHeader { lane: segment.lane, first_seq: segment.first_seq, created: 0 };
    let index = Index::of(file.as_ref(), &header, segment.end)?;
    let one = Arc::new(ReadSegment { path: segment.path.clone(), file, index });
    let mut opened = locked(&shared.opened);
    opened.push_back(one.clone());
    if opened.len() > OPENED_SEGMENTS {
        opened.pop_front();
    }
    Ok(Some(one))
}

fn keep_damaged(shared: &Shared, segment: &Looked, file: &dyn StorageFile, range: Range<u64>) {
    let id = segment.lane;
    let name = format!("damaged-{id}-{:016x}-at-{}", segment.first_seq, range.start);
    let storage = shared.storage.as_ref();
    if let Err(error) = quarantine::copy(storage, &shared.settings.dir, &name, file, range) {
        tracing::warn!(%error, name, "Damaged bytes of the spool could not be copied to quarantine");
    }
}

/// The collector refused this batch for good: keeps a copy in quarantine and writes its row, both durable.
///
/// # Errors
/// [`ReadError`]; nothing has changed then, but for the count of rejects.
pub fn reject(shared: &Shared, id: LaneId, seq: u64) -> Result<SkipRow, ReadError> {
    {
        let mut state = shared.state();
        let lane = state.lane(id).ok_or(ReadError::UnknownLane(id))?;
        if let Some(row) = lane.row(seq) {
            return Ok(row.clone());
        }
        if seq <= lane.acked_seq || seq >= lane.next_seq {
            return Err(ReadError::NotUnacked { lane: id, seq });
        }
    }
    let Some(batch) = with_notes(shared, id, seq)? else {
        return match fetch(shared, id, seq)? {
            Fetched::Skip(row) => Ok(row),
            Fetched::Batch(_) | Fetched::Pending => Err(ReadError::NotUnacked { lane: id, seq }),
        };
    };
    keep_rejected(shared, &batch)?;
    let mut row = SkipRow::new(id, seq, seq, Reason::Rejected);
    row.records_per_seq = vec![batch.batch.records];
    row.counts_per_exporter = super::budget::per_exporter(batch.shares.iter());
    row.digest = Some(batch.batch.digest);
    let mut journal = shared.journal();
    // What was acked below need not be on disk as a frame. The row shows that its number was given, so the position
    // has to say by then that it was acked.
    let positions = shared.state().positions();
    journal.positions.write(&positions, true)?;
    add_row(shared, &mut journal, row.clone())?;
    let positions = {
        let mut state = shared.state();
        state.rejects = state.rejects.saturating_add(1);
        state.positions()
    };
    journal.positions.write(&positions, true)?;
    Ok(row)
}

/// A batch with what its frame says beside it; `None` if it is not there as it should be.
pub fn with_notes(shared: &Shared, id: LaneId, seq: u64) -> Result<Option<Numbered>, ReadError> {
    let segment = {
        let mut state = shared.state();
        let current = state.current().is_some_and(|lane| lane.id == id);
        if current && let Some(one) = state.recent.get(seq) {
            return Ok(Some(one.clone()));
        }
        let found = state.lane(id).and_then(|lane| Lane::segment(lane, seq));
        let Some(segment) = found else { return Ok(None) };
        Looked::new(id, segment, seq)
    };
    let Taken::Frame(frame) = take(shared, &segment, seq)? else { return Ok(None) };
    let notes = frame.notes().unwrap_or_default();
    Ok(Some(Numbered { batch: frame.batch(id), totals: notes.totals, shares: Arc::new(notes.shares) }))
}

/// The copy is a segment of one frame, so that whatever reads segments reads it.
fn keep_rejected(shared: &Shared, one: &Numbered) -> io::Result<()> {
    let (lane, seq) = (one.batch.lane, one.batch.seq);
    let header = SegmentHeader { lane, first_seq: seq, created: (shared.settings.clock)() }.encode();
    let mut head = Vec::new();
    let encoded = frame::encode(&mut head, Seed::new(lane, seq), &one.batch, &one.totals, &one.shares);
    let padding = vec![0; encoded.padding_bytes];
    let mut parts = [header.as_slice(), &head, &one.batch.payload, &padding].map(IoSlice::new);
    let name = format!("rejected-{lane}-{seq:016x}.fsp");
    quarantine::put(shared.storage.as_ref(), &shared.settings.dir, &name, &mut parts)
}

/// The digest of a batch, as far as it is known without reading the disk.
pub fn digest(shared: &Shared, id: LaneId, seq: u64) -> Option<crate::batch::Digest> {
    let mut state = shared.state();
    let current = state.current().is_some_and(|lane| lane.id == id);
    if current && let Some(one) = state.recent.get(seq) {
        return Some(one.batch.digest);
    }
    let lane = state.lane(id)?;
    if let Some((last, digest)) = lane.last_acked
        && last == seq
    {
        return Some(digest);
    }
    lane.row(seq).filter(|row| row.to == seq).and_then(|row| row.digest)
}
