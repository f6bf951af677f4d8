//! One world: a spool on a disk in memory, and what it must hold.

mod aside;
mod checks;
mod damage;

use super::Step;
use crate::batch::{Digest, Sealed};
use crate::proto::skip::Reason;
use crate::spool::{
    Fetched, LaneId, LaneView, Metrics, OpenError, Sender, Settings, SkipRow, Spool, Writer, open_in_segments,
};
use crate::storage::memory::{Cut, Faults, Memory};
use damage::{Frame, frames, is_segment};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Small, so that a few batches fill one.
const SEGMENT_BYTES: u64 = 4096;
const MAX_BYTES: u64 = 12 * SEGMENT_BYTES;
const DIR: &str = "/spool";

thread_local! {
    /// Milliseconds since 1970, and the last lane's name.
    static CLOCK: Cell<(u64, u128)> = const { Cell::new((0, 0)) };
}

fn clock() -> u64 {
    CLOCK.get().0
}

fn new_lane() -> LaneId {
    let (now, last) = CLOCK.get();
    CLOCK.set((now, last + 1));
    // In no order, as random names are.
    LaneId((last + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
}

fn is_aside(path: &Path) -> bool {
    path.parent().and_then(Path::file_name).is_some_and(|name| name.to_str().unwrap().starts_with("forked-"))
}

/// A batch with bytes of its own.
fn sealed(number: u32, filler: usize) -> Sealed {
    let mut batch = super::super::sealed(number, filler);
    let payload = [&number.to_be_bytes(), batch.payload.as_ref()].concat();
    batch.plain_size = payload.len() as u32;
    batch.digest = crate::batch::digest(batch.codec, batch.plain_size, &payload);
    batch.payload = payload.into();
    batch
}

/// One of so many, by a fraction.
fn pick(of: usize, place: u8) -> Option<usize> {
    (of > 0).then(|| usize::from(place) * of / 256)
}

/// What is known of a lane.
#[derive(Debug, Default)]
struct Lane {
    /// By number, from 1 on; all that ever got one.
    batches: Vec<Digest>,
    /// The number after the last that the spool knows of. A power cut may bring back what was never durable, given up on
    /// a failing disk and removed: it grows then.
    next_seq: u64,
    /// Up to here it was acked once.
    acked: u64,
    /// Up to here it was sent since it was opened.
    sent: u64,
    /// The number after the last that a start has found something of: a frame, a row, or its place in the positions.
    found_next: u64,
    /// These may be lost: they were damaged, or in no file when the process died.
    excused: BTreeSet<u64>,
    /// These were acked, and in no file when the process died: what is acked need not be synced.
    acked_unkept: BTreeSet<u64>,
    /// First numbers of segments that are damaged as a whole, with what comes into them later.
    bad_segments: BTreeSet<u64>,
    /// What its rows have said before.
    reasons: BTreeMap<u64, Reason>,
    closed: bool,
    /// It is set aside, or to be; what was unacked of it and in its files then.
    aside: Option<BTreeSet<u64>>,
}

#[derive(Debug)]
struct Life {
    spool: Spool,
    writer: Writer,
    sender: Option<Sender>,
    metrics: Metrics,
    /// Batches that lay in folders of what is set aside when it began.
    aside_before: u64,
    /// Those that were deleted, at the last look.
    aside_deleted: u64,
    /// Lanes of earlier lives.
    older: BTreeSet<LaneId>,
    /// What was found at the start is on the disk.
    written_down: bool,
    ended: bool,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    disk: Arc<Memory>,
    now: Instant,
    life: Option<Life>,
    made: u32,
    batches: BTreeMap<Digest, Sealed>,
    /// Handed in and without a number yet, in order.
    offered: VecDeque<Digest>,
    lanes: BTreeMap<LaneId, Lane>,
    /// Rows that stood when the last process died.
    rows: Vec<SkipRow>,
    positions_damaged: bool,
    skips_damaged: bool,
    /// The disk may fail in this step.
    trouble: bool,
}

impl World {
    /// An empty disk.
    pub fn new() -> Self {
        CLOCK.set((1_795_442_400_000, 0));
        Self {
            disk: Arc::new(Memory::default()),
            now: Instant::now(),
            life: None,
            made: 0,
            batches: BTreeMap::new(),
            offered: VecDeque::new(),
            lanes: BTreeMap::new(),
            rows: Vec::new(),
            positions_damaged: false,
            skips_damaged: false,
            trouble: false,
        }
    }

    /// Does one step, and looks.
    pub fn step(&mut self, step: Step) {
        self.trouble = self.is_in_trouble();
        self.start();
        match step {
            Step::Append { batches, bytes } => self.append(batches, bytes),
            Step::Pass { millis } => self.pass(millis),
            Step::Look => self.look(),
            Step::Send { lane, count } => self.send(lane, count),
            Step::Opened { lane } => self.opened(lane),
            Step::Ack { lane, upto } => self.ack(lane, upto),
            Step::Reject { lane, place } => self.reject(lane, place),
            Step::Close { lane } => self.close(lane),
            Step::SetAside { lane } => self.set_aside(lane),
            Step::NewLane => self.spool().new_lane(),
            Step::End => self.end(),
            Step::Kill => self.kill(),
            Step::PowerCut { cut, seed } => self.cut(cut, seed),
            Step::CutOff { file, place, zeros } => self.cut_off(file, place, zeros),
            Step::Flip { file, place, bit } => self.flip(file, place, bit),
            Step::Delete { file } => self.delete(file),
            Step::FailWrites(count) => self.disk.fail(|faults| faults.failing_writes = count.into()),
            Step::FailSyncs(count) => self.disk.fail(|faults| faults.failing_syncs = count.into()),
            Step::ReadOnly => self.disk.fail(|faults| faults.read_only = true),
            Step::Full { left } => {
                let used: usize = self.disk.files().iter().map(|(_, _, bytes)| bytes.len()).sum();
                self.disk.fail(|faults| faults.capacity = used as u64 + u64::from(left));
            }
            Step::Mend => self.disk.fail(|faults| *faults = Faults::default()),
        }
        self.check();
    }

    /// At the end, on a disk that works: all that was handed in has its number and is durable, and outlives
    /// an orderly end.
    pub fn settle(&mut self) {
        self.trouble = self.is_in_trouble();
        self.start();
        self.disk.fail(|faults| *faults = Faults::default());
        self.trouble = false;
        for _ in 0..8 {
            self.pass(1100);
            self.check();
        }
        assert!(self.spool().writable(), "the disk works, and the spool takes nothing");
        assert!(self.offered.is_empty(), "not everything that was handed in has a number");
        self.look();
        self.end();
        self.start();
        self.look();
        self.check();
    }

    fn life(&self) -> &Life {
        self.life.as_ref().unwrap()
    }

    fn spool(&self) -> &Spool {
        &self.life().spool
    }

    fn is_in_trouble(&self) -> bool {
        let mut now = Faults::default();
        self.disk.fail(|faults| now = faults.clone());
        now.read_only || now.capacity > 0 || now.failing_syncs > 0 || now.failing_writes > 0
    }

    fn lane(&mut self, id: LaneId) -> &mut Lane {
        self.lanes.get_mut(&id).expect("a lane that the spool made")
    }

    /// There is none when the writer's own was set aside and the disk lets it begin no other.
    fn chosen(&self, lane: u8) -> Option<LaneView> {
        let lanes = self.spool().lanes();
        lanes.get(pick(lanes.len(), lane)?).copied()
    }

    /// Where the spool stands in a lane, rows or not.
    fn acked(&self, id: LaneId) -> u64 {
        self.spool().shared.state().lane(id).map_or(0, |lane| lane.acked_seq)
    }

    fn append(&mut self, batches: u8, bytes: u16) {
        for _ in 0..batches {
            self.made += 1;
            let batch = sealed(self.made, bytes.into());
            let Some(sender) = &self.life().sender else { return };
            if sender.try_send(batch.clone()).is_ok() {
                self.offered.push_back(batch.digest);
                self.batches.insert(batch.digest, batch);
            }
        }
        self.turn();
    }

    fn pass(&mut self, millis: u16) {
        self.now += Duration::from_millis(millis.into());
        let (now, lane) = CLOCK.get();
        CLOCK.set((now + u64::from(millis), lane));
        self.turn();
    }

    fn turn(&mut self) {
        let now = self.now;
        self.write(|writer| writer.step(now));
    }

    /// The writer does something. Batches may get numbers of its lane and be set aside with it at once.
    fn write(&mut self, work: impl FnOnce(&mut Writer) -> bool) -> bool {
        let life = self.life.as_mut().unwrap();
        if life.ended {
            return true;
        }
        let numbered = life.metrics.numbered_batches.get();
        let current = life.spool.shared.state().current().map(|lane| lane.id);
        let is_last = work(&mut life.writer);
        let numbered = life.metrics.numbered_batches.get() - numbered;
        let state = life.spool.shared.state();
        let fresh = state.lanes.iter().filter(|lane| !life.older.contains(&lane.id));
        let known = |id| self.lanes.get(id).map_or(0, |known| known.batches.len() as u64);
        let seen: u64 = fresh.map(|lane| lane.next_seq - 1 - known(&lane.id)).sum();
        let current = current.filter(|_| numbered > seen);
        drop(state);
        if let Some(current) = current {
            let unseen = self.offered.drain(..usize::try_from(numbered - seen).unwrap());
            self.lanes.entry(current).or_default().batches.extend(unseen);
        }
        self.learn();
        is_last
    }

    /// Batches get their numbers in the order in which they were handed in.
    fn learn(&mut self) {
        let Some(life) = &self.life else { return };
        let state = life.spool.shared.state();
        for lane in state.lanes.iter().filter(|lane| !life.older.contains(&lane.id)) {
            let known = self.lanes.entry(lane.id).or_default();
            while known.batches.len() as u64 + 1 < lane.next_seq {
                known.batches.push(self.offered.pop_front().expect("a number for each batch"));
            }
            known.next_seq = lane.next_seq;
            for segment in lane.segments.iter().filter(|one| known.bad_segments.contains(&one.first_seq)) {
                known.excused.extend(segment.first_seq..=segment.last_seq);
            }
        }
    }

    fn send(&mut self, lane: u8, count: u8) {
        let Some(view) = self.chosen(lane) else { return };
        let mut seq = self.lane(view.id).sent.max(self.acked(view.id)) + 1;
        for _ in 0..count {
            let Some(fetched) = self.fetch(view.id, seq) else { return };
            seq = match fetched {
                Fetched::Batch(_) => seq + 1,
                Fetched::Skip(row) => row.to + 1,
                Fetched::Pending => return,
            };
            self.lane(view.id).sent = seq - 1;
        }
    }

    fn opened(&mut self, lane: u8) {
        let Some(LaneView { id, .. }) = self.chosen(lane) else { return };
        self.spool().opened(id);
        self.lane(id).sent = 0;
    }

    /// A mark never stands within a row.
    fn ack(&mut self, lane: u8, upto: u8) {
        let Some(view) = self.chosen(lane) else { return };
        let acked = self.acked(view.id);
        let Some(more) = pick(usize::try_from(view.next_seq - acked).unwrap(), upto) else { return };
        let mut seq = acked + more as u64;
        if let Some(row) = self.spool().shared.state().lane(view.id).and_then(|lane| lane.row(seq)) {
            seq = row.to;
        }
        self.spool().acked(view.id, seq);
        let lane = self.lane(view.id);
        lane.acked = lane.acked.max(seq);
        self.turn();
    }

    fn reject(&mut self, lane: u8, place: u8) {
        let Some(view) = self.chosen(lane) else { return };
        let acked = self.acked(view.id);
        let Some(at) = pick(usize::try_from(view.next_seq - acked - 1).unwrap(), place) else { return };
        let seq = acked + 1 + at as u64;
        match self.spool().reject(view.id, seq) {
            Ok(row) => {
                assert!(row.from <= seq && seq <= row.to, "{row:?} for {seq}");
                self.check_row(&row);
            }
            Err(error) => assert!(self.trouble, "{error}"),
        }
    }

    fn close(&mut self, lane: u8) {
        let Some(LaneView { id, .. }) = self.chosen(lane) else { return };
        if self.spool().close(id) {
            self.lane(id).closed = true;
            self.turn();
        }
    }

    /// What was unacked of the lane and in its files is in a folder of its own once the lane has gone.
    fn set_aside(&mut self, lane: u8) {
        let Some(LaneView { id, .. }) = self.chosen(lane) else { return };
        self.pass(20);
        let kept: BTreeSet<u64> = {
            let mut state = self.spool().shared.state();
            let Some(lane) = state.lane(id) else { return };
            let files = self.disk.files();
            let held = files.iter().filter(|(_, path, _)| is_segment(path));
            let held = held.flat_map(|(_, _, bytes)| frames(bytes)).filter(|frame| frame.lane == id);
            let unacked = held.map(|frame| frame.seq).filter(|seq| *seq > lane.acked_seq);
            unacked.filter(|seq| lane.row(*seq).is_none()).collect()
        };
        self.lane(id).aside = Some(kept);
        self.spool().set_aside(id);
        self.turn();
    }

    fn end(&mut self) {
        self.life.as_mut().unwrap().sender = None;
        let now = self.now;
        for _ in 0..3 {
            if self.write(|writer| writer.step(now)) {
                break;
            }
        }
        self.write(|writer| {
            writer.finish();
            true
        });
        self.life.as_mut().unwrap().ended = true;
        self.kill();
    }

    fn kill(&mut self) {
        self.die(false, |disk| disk.files().into_iter().map(|(_, path, bytes)| (path, bytes)).collect());
        self.disk.kill();
    }

    fn cut(&mut self, cut: Cut, seed: u64) {
        self.die(true, |disk| disk.durable().into_iter().collect());
        self.disk.cut(cut, &mut StdRng::seed_from_u64(seed));
    }

    /// The process goes; `left` is what it leaves for sure.
    fn die(&mut self, is_cut: bool, left: impl Fn(&Memory) -> Vec<(PathBuf, Vec<u8>)>) {
        let Some(life) = self.life.take() else { return };
        self.rows = life.spool.shared.state().rows();
        // What a start has read and could not write down again may be no further than the kernel: rows whose sync failed in
        // the life before, and whose batches are still there.
        let written_down = life.written_down || life.spool.shared.journal().skips.is_whole();
        for row in self.rows.iter().filter(|row| !written_down && row.reason == Reason::Lost) {
            // The next start may find what this one did not: a frame that a failed sync left in a file before.
            let reasons = &mut self.lanes.get_mut(&row.lane).expect("a lane that the spool made").reasons;
            reasons.retain(|seq, _| *seq < row.from || row.to < *seq);
        }
        self.rows.retain(|row| written_down || (!is_cut && row.reason != Reason::Lost));
        drop(life);
        self.offered.clear();
        let files = left(&self.disk);
        let held = |files: Vec<(PathBuf, Vec<u8>)>| {
            let held = files.into_iter().filter(|(path, _)| is_segment(path) || is_aside(path));
            let held = held.flat_map(|(_, bytes)| frames(&bytes)).map(|frame| (frame.lane, frame.seq));
            held.collect::<BTreeSet<(LaneId, u64)>>()
        };
        // A file that was given up and removed may be there still, or not.
        let now = self.disk.files().into_iter().map(|(_, path, bytes)| (path, bytes)).collect();
        let held: BTreeSet<_> = held(files).intersection(&held(now)).copied().collect();
        for (id, lane) in &mut self.lanes {
            let numbers = lane.acked + 1..=lane.batches.len() as u64;
            let with_row =
                |seq: u64| self.rows.iter().any(|row| row.lane == *id && row.from <= seq && seq <= row.to);
            let is_kept = |seq: &u64| held.contains(&(*id, *seq)) || with_row(*seq);
            lane.excused.extend(numbers.filter(|seq| !is_kept(seq)));
            lane.acked_unkept.extend((1..=lane.acked).filter(|seq| !is_kept(seq)));
        }
    }

    /// A process starts, if none runs. It must, on a disk that works.
    fn start(&mut self) {
        if self.life.is_some() {
            return;
        }
        let found: Vec<Frame> = {
            let files = self.disk.files();
            let held = files.iter().filter(|(_, path, _)| is_segment(path));
            held.flat_map(|(_, _, bytes)| frames(bytes)).collect()
        };
        let metrics = Metrics::default();
        let open = || {
            let settings = Settings {
                max_bytes: MAX_BYTES,
                commit_interval: Duration::from_millis(20),
                queue_bytes: 16 << 10,
                memory_bytes: 2 << 10,
                keep_free_bytes: Some(0),
                clock,
                new_lane,
                ..Settings::new(PathBuf::from(DIR))
            };
            open_in_segments(self.disk.clone(), settings, SEGMENT_BYTES, metrics.clone())
        };
        let (spool, writer, sender) = open().unwrap_or_else(|error| {
            assert!(matches!(error, OpenError::Io { .. }) && self.trouble, "{error}");
            self.disk.fail(|faults| *faults = Faults::default());
            open().expect("a disk that works")
        });
        let mut older: BTreeSet<LaneId> = spool.shared.state().lanes.iter().map(|lane| lane.id).collect();
        older.retain(|lane| Some(*lane) != spool.lanes().last().map(|view| view.id));
        let written_down = metrics.disk_errors.get() == 0;
        self.life = Some(Life {
            spool,
            writer,
            sender: Some(sender),
            metrics,
            aside_before: 0,
            aside_deleted: 0,
            older,
            written_down,
            ended: false,
        });
        self.take_stock(&found);
    }
}
