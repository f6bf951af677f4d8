//! What goes from the disk: segments that are acked, and the oldest ones when the budget is used up. What is set aside
//! is in aside.rs.
//!
//! The order is always the same: what says that it may go is durable, then it goes.

use super::fetch::add_row;
use super::frame::SegmentHeader;
use super::positions::Positions;
use super::read::{Frame, Walk};
use super::state::{Journal, Lane, Segment, Shared, Spare, State, locked};
use super::{LaneId, SkipRow, aside, tally};
use crate::batch::Share;
use crate::proto::skip::Reason;
use crate::storage::Mode;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// Freed files that are kept to be written over.
const MAX_SPARES: usize = 2;
/// Rows of dropped batches that one lane has. More are drawn together.
const MAX_ROWS: usize = 16;
/// Numbers of which a lane's rows keep the records of each. Of more there are sums alone.
const MAX_DETAILS: usize = 64 << 10;

/// Addresses of which a row keeps the records of each: who sends can forge as many as he likes, and a row is to stay
/// small in memory, on disk and in its message.
const MAX_ADDRESSES: usize = 10_000;

/// Keeps the addresses with the most records and adds the others up under [`SkipRow::OTHERS`].
pub fn bounded(mut counts: Vec<(IpAddr, u64)>) -> Vec<(IpAddr, u64)> {
    if counts.len() <= MAX_ADDRESSES {
        return counts;
    }
    counts.sort_by_key(|(address, records)| (*address == SkipRow::OTHERS, std::cmp::Reverse(*records)));
    let others = counts.split_off(MAX_ADDRESSES);
    counts.push((SkipRow::OTHERS, others.iter().map(|(_, records)| records).sum()));
    counts.sort_unstable();
    counts
}

/// Records of each address.
pub fn per_exporter<'a>(shares: impl Iterator<Item = &'a Share>) -> Vec<(IpAddr, u64)> {
    let mut counts = BTreeMap::new();
    for share in shares {
        *counts.entry(share.exporter.address).or_insert(0) += u64::from(share.records);
    }
    counts.into_iter().collect()
}

/// Writes positions if they are newer than the file, and lets go of what they allow: acked segments, passed
/// rows, closed lanes. Durable only if something goes by it, or if `durable` asks for it.
///
/// # Errors
/// Those of the disk; nothing has gone then that must not.
pub fn settle(shared: &Shared, durable: bool) -> io::Result<()> {
    let mut journal = shared.journal();
    let (positions, passing) = {
        let mut state = shared.state();
        if !state.dirty && !durable {
            return Ok(());
        }
        state.dirty = false;
        let passing = state.frees();
        (state.positions(), passing)
    };
    let is_whole = journal.skips.is_whole();
    if let Err(error) = journal.positions.write(&positions, durable || passing || !is_whole) {
        shared.state().dirty = true;
        return Err(error);
    }
    // A disk that was full or failing has left rows out, as those of what a start found missing. It may be full still:
    // room comes from what goes below.
    if let Err(error) = journal.skips.mend(|| shared.state().rows()) {
        shared.metrics.disk_errors.inc();
        tracing::warn!(%error, "The spool's skip rows could not be written");
        shared.state().dirty = true;
    }
    if !durable && !passing {
        return Ok(());
    }
    let (freed, rows_went) = release(shared, &positions);
    for (lane, segment) in freed {
        if let Err(error) = discard(shared, &segment) {
            tracing::warn!(%error, file = %segment.path.display(), "A segment that is not needed stays on disk");
            keep_of_closed(shared, lane, segment);
        }
    }
    if rows_went {
        journal.skips.shrink(|| shared.state().rows())?;
    }
    forget_closed(shared)
}

/// Takes out of the state what durable positions have passed.
fn release(shared: &Shared, positions: &Positions) -> (Vec<(LaneId, Segment)>, bool) {
    let mut state = shared.state();
    let state = &mut *state;
    let mut freed = Vec::new();
    let mut rows_went = false;
    for lane in &mut state.lanes {
        let Some(written) = positions.lanes.iter().find(|written| written.lane == lane.id) else { continue };
        lane.position = lane.position.max(written.acked_seq);
        // After the mark went back, what is left is sent again and stays until it is acked again.
        let passed = lane.position.min(lane.acked_seq);
        let rows = lane.rows.len();
        lane.rows.retain(|row| row.to > passed);
        rows_went |= lane.rows.len() < rows;
        while lane.segments.front().is_some_and(|front| {
            front.growing.is_none() && !front.going && (front.last_seq <= passed || lane.closed)
        }) {
            freed.extend(lane.segments.pop_front().map(|segment| (lane.id, segment)));
        }
    }
    // The next write leaves out those that are forgotten by then.
    state.dirty |= state.lanes.iter().any(|lane| lane.closed);
    (freed, rows_went)
}

/// A closed lane is kept as long as there is a file of it, which is tried again. One of another lane is let go again at
/// the next start.
fn keep_of_closed(shared: &Shared, lane: LaneId, segment: Segment) {
    let mut state = shared.state();
    if let Some(lane) = state.lanes.iter_mut().find(|other| other.id == lane && other.closed) {
        lane.segments.push_front(segment);
    }
}

/// Forgets closed lanes of which nothing is left. Only when it is durable that their files are gone may positions leave
/// a lane out: a file that came back after a power cut would tell of numbers of which nothing says that they were acked.
fn forget_closed(shared: &Shared) -> io::Result<()> {
    let is_done = |lane: &Lane| lane.closed && lane.segments.is_empty();
    let done: Vec<LaneId> =
        shared.state().lanes.iter().filter(|lane| is_done(lane)).map(|lane| lane.id).collect();
    for lane in &done {
        aside::remove_left(shared, *lane)?;
    }
    if done.is_empty() {
        return Ok(());
    }
    let mut state = shared.state();
    state.lanes.iter_mut().filter(|lane| is_done(lane)).for_each(|lane| tally::closed(shared, lane));
    state.lanes.retain(|lane| !is_done(lane));
    Ok(())
}

/// Removes a segment's file, or keeps it to be written over.
fn discard(shared: &Shared, segment: &Segment) -> io::Result<()> {
    crash_point!("spool.unlink.before");
    locked(&shared.opened).retain(|opened| opened.path != segment.path);
    let whole = segment.disk_bytes >= shared.segment_bytes / 4 * 3;
    let number = {
        let mut state = shared.state();
        let tight = state.disk_bytes() + 2 * shared.segment_bytes > shared.settings.max_bytes;
        if whole && !tight && state.spares.len() < MAX_SPARES { Some(state.next_spare()) } else { None }
    };
    if let Some(number) = number {
        let path = shared.settings.dir.join(format!("spare-{number}.old"));
        if shared.storage.rename(&segment.path, &path).is_ok() {
            crash_point!("spool.spare");
            shared.state().spares.push(Spare { path, disk_bytes: segment.disk_bytes });
            return Ok(());
        }
    }
    remove(shared, &segment.path)?;
    crash_point!("spool.unlink");
    Ok(())
}

/// Makes room: removes a spare file, else what was set aside first, else drops the oldest segment of the
/// oldest lane of which nothing was sent since that lane was opened at the collector; but of a lane that waits to be set
/// aside first. False if there is none.
///
/// # Errors
/// Those of the disk; nothing has gone then.
pub fn drop_oldest(shared: &Shared) -> io::Result<bool> {
    let mut journal = shared.journal();
    let spare = shared.state().spares.pop();
    if let Some(spare) = spare {
        remove(shared, &spare.path)?;
        return Ok(true);
    }
    if aside::delete_oldest(shared)? {
        return Ok(true);
    }
    let Some((lane, segment, acked)) = choose(&mut shared.state()) else { return Ok(false) };
    let result = drop_segment(shared, &mut journal, lane, &segment, acked);
    let mut state = shared.state();
    if let Some(lane) = state.lanes.iter_mut().find(|other| other.id == lane) {
        match &result {
            Ok(()) => lane.segments.retain(|other| other.first_seq != segment.first_seq),
            Err(_) => lane.segments.iter_mut().for_each(|other| other.going = false),
        }
    }
    result.map(|()| true)
}

/// Marks the segment that is to go, so that nobody sends of it meanwhile. Lanes that are to be set aside come first.
fn choose(state: &mut State) -> Option<(LaneId, Segment, u64)> {
    let mut lanes: Vec<&mut Lane> = state.lanes.iter_mut().filter(|lane| !lane.closed).collect();
    lanes.sort_by_key(|lane| !lane.forked);
    for lane in lanes {
        let (acked, sent) = (lane.acked_seq, if lane.forked { 0 } else { lane.sent_seq });
        let id = lane.id;
        let unsent = |segment: &&mut Segment| {
            segment.growing.is_none() && segment.last_seq > acked && segment.first_seq > sent
        };
        if let Some(segment) = lane.segments.iter_mut().find(unsent) {
            segment.going = true;
            return Some((id, segment.clone(), acked));
        }
    }
    None
}

fn drop_segment(
    shared: &Shared,
    journal: &mut Journal,
    lane: LaneId,
    segment: &Segment,
    acked: u64,
) -> io::Result<()> {
    // A row speaks for what was not acked; what was acked of the segment, or before it, has only the position. And a start
    // takes rows of a lane that no position names for those of one that is done with: they come after it.
    let positions = shared.state().positions();
    journal.positions.write(&positions, true)?;
    crash_point!("spool.drop.position");
    let from = segment.first_seq.max(acked + 1);
    let parts = match shared.state().lane_not_closed(lane) {
        Some(lane) => lane.without_rows(from, segment.last_seq),
        None => Vec::new(),
    };
    let mut rows: Vec<_> =
        parts.iter().map(|(from, to)| SkipRow::new(lane, *from, *to, Reason::Dropped)).collect();
    if let Err(error) = count(shared, lane, segment, &mut rows) {
        tracing::warn!(%error, "What is in a segment that is dropped cannot be counted");
    }
    for row in rows {
        tracing::warn!(%lane, from = row.from, to = row.to, records = row.records(),
            "The spool or its disk is full: the oldest batches are dropped");
        add_row(shared, journal, row)?;
    }
    crash_point!("spool.drop.rows");
    draw_together(shared, lane);
    locked(&shared.opened).retain(|opened| opened.path != segment.path);
    remove(shared, &segment.path)?;
    crash_point!("spool.drop.unlink");
    if let Err(error) = journal.skips.shrink(|| shared.state().rows()) {
        tracing::warn!(%error, "The spool's skip rows could not be written anew; the file stays as long as it is");
    }
    journal.skips.reserve();
    Ok(())
}

/// Removes a file; somebody may have done so.
pub fn remove(shared: &Shared, path: &Path) -> io::Result<()> {
    match shared.storage.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Fills in what the rows' batches hold, from the segment's frames.
fn count(shared: &Shared, lane: LaneId, segment: &Segment, rows: &mut [SkipRow]) -> io::Result<()> {
    let file = shared.storage.open(&segment.path, Mode::Read)?;
    let header = SegmentHeader { lane, first_seq: segment.first_seq, created: 0 };
    let seed = super::frame::Seed::new(lane, segment.first_seq);
    let mut walk = Walk::new(file.as_ref(), &header, segment.end, false);
    let mut counts: Vec<BTreeMap<IpAddr, u64>> = vec![BTreeMap::new(); rows.len()];
    while let Some(found) = walk.next()? {
        let seq = found.header.seq;
        let Some(place) = rows.iter().position(|row| row.from <= seq && seq <= row.to) else { continue };
        let (Some(row), Some(counts)) = (rows.get_mut(place), counts.get_mut(place)) else { continue };
        let frame = Frame::read(file.as_ref(), seed, found.offset, found.header.frame_bytes())?;
        // What a damaged one says of itself is not believed: it would have been skipped as damaged.
        let Ok(frame) = frame else { continue };
        row.records_per_seq.resize(usize::try_from(seq - row.from).unwrap_or(0), 0);
        row.records_per_seq.push(found.header.records);
        row.digest = (seq == row.to).then_some(found.header.digest);
        let notes = frame.notes().unwrap_or_default();
        for (address, records) in per_exporter(notes.shares.iter()) {
            *counts.entry(address).or_insert(0) += records;
        }
    }
    for (row, counts) in rows.iter_mut().zip(counts) {
        row.counts_per_exporter = counts.into_iter().collect();
    }
    Ok(())
}

/// A long outage drops without end: rows behind the first that follow each other become one, and give up the
/// records of each number where these are too many. Their sums stay exact.
fn draw_together(shared: &Shared, lane: LaneId) {
    let mut state = shared.state();
    let Some(lane) = state.lane_not_closed(lane) else { return };
    let mut details: usize = lane.rows.iter().map(|row| row.records_per_seq.len()).sum();
    for row in lane.rows.iter_mut().skip(1) {
        if details <= MAX_DETAILS {
            break;
        }
        details -= row.records_per_seq.len();
        row.records_per_seq = Vec::new();
    }
    while lane.rows.len() > MAX_ROWS {
        let pairs = lane.rows.windows(2).skip(1);
        let joins = |pair: &[SkipRow]| match pair {
            [a, b] => a.reason == Reason::Dropped && b.reason == a.reason && a.to + 1 == b.from,
            _ => false,
        };
        let Some(place) = pairs.into_iter().position(joins) else { return };
        let second = lane.rows.remove(place + 2);
        let Some(first) = lane.rows.get_mut(place + 1) else { return };
        // Damage may have left out those at the end of either.
        let numbers = |row: &SkipRow| usize::try_from(row.to - row.from + 1).unwrap_or(usize::MAX);
        let (of_first, of_second) = (numbers(first), numbers(&second));
        let mut records = second.records_per_seq;
        if first.records_per_seq.is_empty() || records.is_empty() {
            first.records_per_seq = Vec::new();
        } else {
            first.records_per_seq.resize(of_first, 0);
            records.resize(of_second, 0);
            first.records_per_seq.append(&mut records);
        }
        first.to = second.to;
        first.digest = second.digest;
        let mut counts: BTreeMap<_, _> = first.counts_per_exporter.drain(..).collect();
        for (address, records) in second.counts_per_exporter {
            *counts.entry(address).or_insert(0) += records;
        }
        first.counts_per_exporter = bounded(counts.into_iter().collect());
    }
}

/// Sees to it that another segment of `capacity` bytes may be made.
///
/// # Errors
/// [`io::ErrorKind::StorageFull`] if it may not; those of the disk.
pub fn make_room(shared: &Shared, capacity: u64) -> io::Result<()> {
    let max_bytes = shared.settings.max_bytes;
    let soft_bytes = max_bytes.saturating_sub(2 * shared.segment_bytes);
    let mut room_was_thin = false;
    loop {
        let (used, growth) = {
            let state = shared.state();
            let spare = state.spares.last().map_or(0, |spare| spare.disk_bytes);
            (state.disk_bytes(), capacity.saturating_sub(spare))
        };
        let over = used + growth > soft_bytes;
        // One goes for one that comes: others may fill the disk, and all that is kept here would go for it.
        let thin = growth > 0 && !room_was_thin && is_thin(shared, growth);
        if !over && !thin {
            return Ok(());
        }
        room_was_thin |= thin;
        if drop_oldest(shared)? {
            continue;
        }
        if thin || used + growth > max_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        return Ok(());
    }
}

/// Whether `growth` bytes more would leave less free than is to be kept.
fn is_thin(shared: &Shared, growth: u64) -> bool {
    const KEEP_BYTES: u64 = 1 << 30;
    let Ok(room) = shared.storage.room(&shared.settings.dir) else { return false };
    let keep = shared.settings.keep_free_bytes.unwrap_or(KEEP_BYTES.min(room.total / 20));
    room.free < keep.saturating_add(growth)
}
