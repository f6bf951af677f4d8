//! What the spool knows in memory: lanes, their segments, rows and positions, and the fresh batches.
//!
//! Everything here is short and without input or output; whoever holds [`Shared::state`] does not touch the
//! disk. [`Shared::journal`] serialises what must be durable in order (positions, rows, unlinks) and is
//! taken before the state, never after.

use super::metrics::Metrics;
use super::positions::{LanePosition, Positions, PositionsFile};
use super::queue::Queue;
use super::read::Index;
use super::segment::Numbered;
use super::skips::SkipsFile;
use super::stall::Calls;
use super::tally::{Count, Given};
use super::{LaneId, LaneView, LastHeard, Recovered, Settings, SkipRow, Usage};
use crate::batch::Digest;
use crate::storage::{Storage, StorageFile};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A segment that still takes frames, and where they are.
#[derive(Clone, Debug)]
pub struct GrowingView {
    /// Its open file.
    pub file: Arc<dyn StorageFile>,
    /// Its frames.
    pub index: Index,
}

/// One segment file.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The first number in it.
    pub first_seq: u64,
    /// The last number that is read from it; `first_seq - 1` if there is none yet.
    pub last_seq: u64,
    /// Where it stands.
    pub path: PathBuf,
    /// What it takes on disk.
    pub disk_bytes: u64,
    /// Where its frames end at the latest.
    pub end: u64,
    /// The earliest time of reception in it, in milliseconds since 1970.
    pub oldest_received: u64,
    /// It is the writer's.
    pub growing: Option<GrowingView>,
    /// The budget is about to drop it: reading must wait.
    pub going: bool,
}

/// One lane.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Its name.
    pub id: LaneId,
    /// When it began, in milliseconds since 1970.
    pub created: u64,
    /// Its segments, by number.
    pub segments: VecDeque<Segment>,
    /// Its skip rows that the position has not passed, by number; none overlaps another.
    pub rows: Vec<SkipRow>,
    /// The number that the next batch gets, or would have got.
    pub next_seq: u64,
    /// The number after the last one known to be durable.
    pub durable_next: u64,
    /// Up to here all is acked.
    pub acked_seq: u64,
    /// Up to here all is acked, and that is durable.
    pub position: u64,
    /// The highest number handed out for sending since the lane was last opened at the collector.
    pub sent_seq: u64,
    /// The last batch acked out of memory.
    pub last_acked: Option<(u64, Digest)>,
    /// It is done with: unlink what is left of it and forget it.
    pub closed: bool,
    /// Two writers have used it: what is unacked of it goes into a folder of its own.
    pub forked: bool,
    /// That folder, from the first try on.
    pub aside_dir: Option<PathBuf>,
    /// An earlier start has written it.
    pub is_of_before: bool,
    /// What is neither acked, nor skipped, nor set aside.
    pub unacked: Count,
    /// Damage kept the start from counting its records for sure: there may be more than `unacked` says.
    pub is_unsure: bool,
    /// What was given out to be sent and is not acked.
    pub given: BTreeMap<u64, Given>,
    /// Up to here all is counted as committed or skipped; the mark may have gone back since.
    pub counted_seq: u64,
    /// Records in all of its batches, where known.
    pub total: Option<u64>,
    /// A number, and the records up to it, from which on all is unacked or follows.
    pub passed: Option<(u64, u64)>,
}

impl Lane {
    /// A lane of which nothing is known.
    pub fn new(id: LaneId, created: u64) -> Self {
        Self {
            id,
            created,
            segments: VecDeque::new(),
            rows: Vec::new(),
            next_seq: 1,
            durable_next: 1,
            acked_seq: 0,
            position: 0,
            sent_seq: 0,
            last_acked: None,
            closed: false,
            forked: false,
            aside_dir: None,
            is_of_before: false,
            unacked: Count::default(),
            is_unsure: false,
            given: BTreeMap::new(),
            counted_seq: 0,
            total: Some(0),
            passed: None,
        }
    }

    /// Takes up what a file of positions says of it.
    pub fn stands_at(&mut self, position: &LanePosition) {
        self.acked_seq = self.acked_seq.max(position.acked_seq);
        self.position = self.acked_seq;
        self.next_seq = self.next_seq.max(position.next_seq).max(self.acked_seq + 1);
    }

    /// The uplink has nothing more to do with it.
    pub fn is_gone(&self) -> bool {
        self.closed || self.forked
    }

    /// The segment that should hold a number.
    pub fn segment(&self, seq: u64) -> Option<&Segment> {
        let after = self.segments.partition_point(|segment| segment.first_seq <= seq);
        self.segments.get(after.checked_sub(1)?).filter(|segment| seq <= segment.last_seq)
    }

    /// The row that covers a number.
    pub fn row(&self, seq: u64) -> Option<&SkipRow> {
        let after = self.rows.partition_point(|row| row.from <= seq);
        self.rows.get(after.checked_sub(1)?).filter(|row| seq <= row.to)
    }

    /// Takes up a row whose numbers have none yet.
    pub fn add_row(&mut self, row: SkipRow) {
        let place = self.rows.partition_point(|other| other.from < row.from);
        self.rows.insert(place, row);
    }

    /// The first number above `seq` for which there is a frame or a row.
    pub fn next_present(&self, seq: u64) -> u64 {
        let row = self.rows.iter().map(|row| row.from).find(|from| *from > seq);
        let held = self.segments.iter().filter(|segment| segment.last_seq >= segment.first_seq);
        let frame = held.map(|segment| segment.first_seq).find(|first| *first > seq);
        row.into_iter().chain(frame).min().unwrap_or(self.next_seq).min(self.next_seq)
    }

    /// The parts of `from..=to` for which there is no row.
    pub fn without_rows(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut parts = Vec::new();
        let mut at = from;
        for row in self.rows.iter().filter(|row| row.to >= from && row.from <= to) {
            if row.from > at {
                parts.push((at, row.from - 1));
            }
            at = at.max(row.to + 1);
        }
        if at <= to {
            parts.push((at, to));
        }
        parts
    }

    /// Up to here all is acked, and nothing below is a row that waits to be sent.
    pub fn acked_below_rows(&self) -> u64 {
        let waiting = self.rows.iter().find(|row| row.to > self.acked_seq);
        waiting.map_or(self.acked_seq, |row| self.acked_seq.min(row.from - 1))
    }

    /// Whether a durable position would let something of it go.
    pub fn frees(&self) -> bool {
        let acked = self.acked_seq;
        let sealed = |front: &Segment| front.last_seq <= acked && front.growing.is_none();
        self.rows.first().is_some_and(|row| row.to <= acked) || self.segments.front().is_some_and(sealed)
    }

    /// Numbers for which there is neither an ack nor a row.
    fn unacked(&self) -> u64 {
        self.without_row_above(self.acked_seq)
    }

    /// The same, but for those that were acked before the collector's mark went back.
    #[cfg(test)]
    pub fn uncounted(&self) -> u64 {
        self.without_row_above(self.acked_seq.max(self.counted_seq))
    }

    fn without_row_above(&self, seq: u64) -> u64 {
        let rows = self.rows.iter().filter(|row| row.to > seq);
        let skipped: u64 = rows.map(|row| row.to - row.from.max(seq + 1) + 1).sum();
        (self.next_seq - 1).saturating_sub(seq).saturating_sub(skipped)
    }
}

/// The batches that are still in memory: those of the current lane up to its newest, without a gap.
#[derive(Debug, Default)]
pub struct Recent {
    batches: VecDeque<Numbered>,
    bytes: usize,
}

impl Recent {
    /// Takes up the newest batch.
    pub fn push(&mut self, batch: Numbered) {
        self.bytes += batch.batch.payload.len();
        self.batches.push_back(batch);
    }

    /// The oldest batch.
    pub fn front(&self) -> Option<&Numbered> {
        self.batches.front()
    }

    /// The batch of a number.
    pub fn get(&self, seq: u64) -> Option<&Numbered> {
        let first = self.batches.front()?.batch.seq;
        self.batches.get(usize::try_from(seq.checked_sub(first)?).ok()?)
    }

    /// Lets go of the oldest batch.
    pub fn pop(&mut self) -> Option<Numbered> {
        let batch = self.batches.pop_front()?;
        self.bytes -= batch.batch.payload.len();
        Some(batch)
    }

    /// Bytes of payload held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lets go of all.
    pub fn clear(&mut self) {
        self.batches.clear();
        self.bytes = 0;
    }
}

/// A file whose blocks may be written over.
#[derive(Clone, Debug)]
pub struct Spare {
    /// Where it stands.
    pub path: PathBuf,
    /// What it takes on disk.
    pub disk_bytes: u64,
}

/// A folder with what was set aside of a lane.
#[derive(Clone, Debug)]
pub struct AsideView {
    /// Where it stands.
    pub dir: PathBuf,
    /// What it takes on disk.
    pub disk_bytes: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub struct State {
    /// Lanes, oldest first; the last is the writer's own.
    pub lanes: Vec<Lane>,
    /// Fresh batches of the last lane.
    pub recent: Recent,
    /// The mark store last delivered to.
    pub mark_store_id: Vec<u8>,
    /// Rejects since the last committed batch.
    pub rejects: u32,
    /// Something in `positions` is newer than the file.
    pub dirty: bool,
    /// The writer is to begin a new lane.
    pub switch: bool,
    /// The disk takes nothing at present.
    pub stuck: bool,
    /// The writer has ended.
    pub ended: bool,
    /// It had batches then that no sync has passed.
    pub ended_unsynced: bool,
    /// Files to write over.
    pub spares: Vec<Spare>,
    /// How many there have been.
    pub spares_made: u64,
    /// What was set aside, oldest first.
    pub aside: VecDeque<AsideView>,
    /// A batch that waits, and when it was received: the oldest one when it was looked for last.
    pub oldest: Option<(LaneId, u64, u64)>,
}

impl State {
    /// The writer's own lane.
    pub fn current(&mut self) -> Option<&mut Lane> {
        self.lanes.last_mut()
    }

    /// A lane that is not gone.
    pub fn lane(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.iter_mut().rev().find(|lane| lane.id == id && !lane.is_gone())
    }

    /// The same, set aside or not.
    pub fn lane_not_closed(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.iter_mut().rev().find(|lane| lane.id == id && !lane.closed)
    }

    /// What segments and what lies beside them take on disk.
    pub fn disk_bytes(&self) -> u64 {
        let segments = self.lanes.iter().flat_map(|lane| &lane.segments).map(|segment| segment.disk_bytes);
        let spares = self.spares.iter().map(|spare| spare.disk_bytes);
        segments.chain(spares).chain(self.aside.iter().map(|aside| aside.disk_bytes)).sum()
    }

    /// Lets batches go from memory that are acked, or durable and over the limit.
    pub fn trim(&mut self, memory_bytes: usize) {
        let Some(lane) = self.lanes.last_mut() else { return };
        while let Some(front) = self.recent.front() {
            let seq = front.batch.seq;
            let acked = seq <= lane.acked_seq;
            if !acked && (self.recent.bytes() <= memory_bytes || seq >= lane.durable_next) {
                break;
            }
            if acked {
                lane.last_acked = Some((seq, front.batch.digest));
            }
            self.recent.pop();
        }
    }

    /// Whether durable positions would let something go.
    pub fn frees(&self) -> bool {
        self.lanes.iter().any(|lane| lane.closed || lane.frees())
    }

    /// A number for the name of a spare file that no other has.
    pub fn next_spare(&mut self) -> u64 {
        self.spares_made += 1;
        self.spares_made
    }

    /// What is to be written to `positions`.
    pub fn positions(&self) -> Positions {
        let lanes = self.lanes.iter().map(|lane| LanePosition {
            lane: lane.id,
            created: lane.created,
            next_seq: lane.durable_next.max(lane.acked_seq + 1),
            acked_seq: lane.acked_seq.max(lane.position),
        });
        Positions {
            mark_store_id: self.mark_store_id.clone(),
            rejects: self.rejects,
            unsynced: self.ended_unsynced,
            lanes: lanes.collect(),
        }
    }

    /// All rows that are still needed.
    pub fn rows(&self) -> Vec<SkipRow> {
        self.lanes.iter().flat_map(|lane| lane.rows.iter().cloned()).collect()
    }

    /// How lanes stand, for the uplink.
    pub fn views(&self) -> Vec<LaneView> {
        let current = self.lanes.len().saturating_sub(1);
        let lanes = self.lanes.iter().enumerate().filter(|(_, lane)| !lane.is_gone());
        lanes
            .map(|(place, lane)| {
                let held = lane.segments.iter().find(|segment| segment.last_seq > lane.acked_seq);
                let on_disk = held.map(|segment| segment.first_seq.max(lane.acked_seq + 1));
                let fresh = self.recent.front().filter(|_| place == current).map(|batch| batch.batch.seq);
                LaneView {
                    id: lane.id,
                    current: place == current,
                    oldest_seq: on_disk.into_iter().chain(fresh).min().unwrap_or(lane.next_seq),
                    next_seq: lane.next_seq,
                    acked_seq: lane.acked_below_rows(),
                }
            })
            .collect()
    }

    /// Sums over all lanes.
    pub fn usage(&self) -> Usage {
        let lanes = || self.lanes.iter().filter(|lane| !lane.is_gone());
        Usage {
            disk_bytes: self.disk_bytes(),
            memory_bytes: self.recent.bytes() as u64,
            batches: lanes().map(Lane::unacked).sum(),
            oldest_received: self.oldest_received(),
        }
    }

    /// The oldest batch that is neither acked nor skipped.
    pub fn oldest_unacked(&self) -> Option<(&Lane, u64)> {
        let lanes = self.lanes.iter().filter(|lane| !lane.is_gone());
        lanes.into_iter().find_map(|lane| {
            let parts = lane.without_rows(lane.acked_seq + 1, lane.next_seq - 1);
            parts.first().map(|(from, _)| (lane, *from))
        })
    }

    /// When it was received, of a batch of its segment where it has not been looked for.
    fn oldest_received(&self) -> Option<u64> {
        let (lane, seq) = self.oldest_unacked()?;
        let is_current = self.lanes.last().is_some_and(|last| last.id == lane.id);
        let fresh = self.recent.get(seq).filter(|_| is_current).map(|one| one.batch.received);
        let known = self.oldest.filter(|(id, number, _)| (*id, *number) == (lane.id, seq));
        let about = || lane.segment(seq).map(|segment| segment.oldest_received);
        fresh.or(known.map(|(_, _, received)| received)).or_else(about)
    }
}

/// The files behind [`State`] that say what was acked or given up.
#[derive(Debug)]
pub struct Journal {
    /// `positions`.
    pub positions: PositionsFile,
    /// `skips`.
    pub skips: SkipsFile,
}

/// A segment whose frames have been looked up.
#[derive(Debug)]
pub struct ReadSegment {
    /// Where it stands.
    pub path: PathBuf,
    /// Its open file.
    pub file: Arc<dyn StorageFile>,
    /// Its frames.
    pub index: Index,
}

/// What writer, uplink and status share.
#[derive(Debug)]
pub struct Shared {
    /// The disk.
    pub storage: Arc<dyn Storage>,
    /// What the disk has been asked and has not answered.
    pub calls: Calls,
    /// What was asked for.
    pub settings: Settings,
    /// Bytes of a segment file.
    pub segment_bytes: u64,
    /// What is counted.
    pub metrics: Metrics,
    /// What was found at the start.
    pub recovered: Recovered,
    /// What was heard last before the start.
    pub last_heard: LastHeard,
    /// From shards to writer.
    pub queue: Arc<Queue>,
    /// Says the current lane's next number.
    pub next_seq: watch::Sender<u64>,
    /// See the module's head.
    pub state: Mutex<State>,
    /// See the module's head.
    pub journal: Mutex<Journal>,
    /// Old segments that were read last, the last one at the end.
    pub opened: Mutex<VecDeque<Arc<ReadSegment>>>,
    /// Held as long as the spool is open.
    #[expect(dead_code, reason = "the lock goes when the file is closed")]
    pub lock: Arc<dyn StorageFile>,
}

impl Shared {
    /// The state, for a short time.
    pub fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// The journal, for as long as its files are written.
    pub fn journal(&self) -> MutexGuard<'_, Journal> {
        locked(&self.journal)
    }
}

/// Takes a lock. A thread that panicked in it left the tables as they were between two steps, which is sound.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
