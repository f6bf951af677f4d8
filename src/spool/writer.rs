//! The one thread that writes: numbers batches, appends them, makes groups of them durable, opens and seals
//! segments, and does the work that acks leave behind.
//!
//! A batch has its number, and may be sent, before it is on disk. What is not durable yet stays in
//! `unsynced`, so that a file that fails can be left and its tail written again to another one.

use super::frame::{FOOTER_BYTES, MAX_FRAME_BYTES, SegmentHeader, Totals, frame_bytes};
use super::metrics::Metrics;
use super::queue::Wake;
use super::read::Index;
use super::segment::{Growing, Numbered};
use super::state::{GrowingView, Lane, Segment, Shared, State};
use super::tally::Count;
use super::{LaneId, Stored, aside, budget, is_full};
use crate::batch::{Digest, Sealed};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A commit does not wait for its time when this much is not durable.
const COMMIT_BYTES: usize = 1 << 20;
/// Positions are written that long after they changed, if nothing asks for them earlier.
const SETTLE_AFTER: Duration = Duration::from_secs(1);
/// A disk that takes nothing is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Frames in one write; each takes three of the 1,024 parts that the kernel allows.
const WRITE_FRAMES: usize = 256;

/// The one thread that writes.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    growing: Option<Growing>,
    /// Numbered and not durable. The first `written` of them are in `growing`.
    unsynced: Vec<Numbered>,
    written: usize,
    /// Up to here batches are counted as written.
    counted_seq: u64,
    totals: Totals,
    previous_digest: Option<Digest>,
    commit_at: Option<Instant>,
    settle_at: Option<Instant>,
    retry_at: Option<Instant>,
    /// The time, as it was when the turn began.
    now: Instant,
    /// Taken from the queue and not numbered yet.
    group: Vec<Sealed>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            growing: None,
            unsynced: Vec::new(),
            written: 0,
            counted_seq: 0,
            totals: Totals::default(),
            previous_digest: None,
            commit_at: None,
            settle_at: None,
            retry_at: None,
            now: Instant::now(),
            group: Vec::new(),
        }
    }

    /// Works until all [`super::Sender`]s are dropped and what they sent is durable. Blocks its thread.
    /// What the disk does not take by then is counted as dropped.
    pub fn run(mut self) {
        loop {
            let deadline = [self.commit_at, self.settle_at, self.retry_at].into_iter().flatten().min();
            let wake = self.wait(deadline);
            self.now = Instant::now();
            if self.work(wake) {
                break;
            }
        }
        self.finish();
    }

    /// What [`Writer::run`] does in one turn, without waiting, at a time of the caller's choice. True when
    /// the last thing to do is [`Writer::finish`].
    #[cfg(test)]
    pub(crate) fn step(&mut self, now: Instant) -> bool {
        let wake = self.wait(Some(Instant::now()));
        self.now = now;
        self.work(wake)
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Wake {
        self.shared.queue.wait(deadline, self.retry_at.is_none(), &mut self.group)
    }

    /// True when there is nothing more to wait for.
    fn work(&mut self, wake: Wake) -> bool {
        if !self.group.is_empty() {
            self.number();
            self.push_out();
        }
        if wake.poked {
            self.look_around();
        }
        self.do_what_is_due();
        wake.closed || (self.retry_at.is_some() && self.shared.queue.is_closed())
    }

    fn do_what_is_due(&mut self) {
        let now = self.now;
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.retry_at) {
            self.push_out();
        }
        if due(self.commit_at) || self.written_bytes() >= COMMIT_BYTES {
            self.commit();
        }
        if due(self.settle_at) {
            self.settle(false);
        }
    }

    fn written_bytes(&self) -> usize {
        self.unsynced.iter().take(self.written).map(|one| one.batch.payload.len()).sum()
    }

    /// Gives batches their numbers. From here on they may be sent.
    fn number(&mut self) {
        let shared = self.shared.clone();
        let mut state = shared.state();
        if state.switch {
            drop(state);
            self.switch();
            state = shared.state();
        }
        let State { lanes, recent, .. } = &mut *state;
        let Some(lane) = lanes.last_mut() else { return };
        for sealed in self.group.drain(..) {
            if frame_bytes(&sealed.shares, sealed.payload.len()) > MAX_FRAME_BYTES {
                shared.metrics.count_dropped(Metrics::TOO_LARGE, &sealed);
                tracing::warn!(bytes = sealed.payload.len(), "A batch is too large for the spool");
                continue;
            }
            self.totals.batches += 1;
            self.totals.records += u64::from(sealed.records);
            self.totals.dropped_records = shared.metrics.all_dropped_records();
            let one = Numbered {
                totals: self.totals,
                shares: Arc::new(sealed.shares),
                batch: Stored {
                    lane: lane.id,
                    seq: lane.next_seq,
                    kind: sealed.kind,
                    records: sealed.records,
                    codec: sealed.codec,
                    plain_size: sealed.plain_size,
                    payload: sealed.payload,
                    digest: sealed.digest,
                    previous_digest: self.previous_digest.replace(sealed.digest),
                    received: sealed.received,
                },
            };
            lane.next_seq += 1;
            lane.total = Some(self.totals.records);
            lane.unacked.add(Count { batches: 1, records: u64::from(one.batch.records) });
            shared.metrics.count_numbered(&one);
            recent.push(one.clone());
            self.unsynced.push(one);
        }
        let next_seq = lane.next_seq;
        drop(state);
        shared.next_seq.send_replace(next_seq);
    }

    /// Writes what is numbered; on trouble once more to another segment, then only after a while.
    fn push_out(&mut self) {
        self.forget_acked();
        let mut result = self.write();
        if let Err(error) = &result {
            self.leave_segment(error);
            result = self.write();
        }
        match result {
            Ok(()) => self.set_stuck(false),
            Err(error) => {
                self.leave_segment(&error);
                self.set_stuck(true);
            }
        }
        if self.written > 0 && self.commit_at.is_none() {
            self.commit_at = Some(self.now + self.shared.settings.commit_interval);
        }
    }

    fn set_stuck(&mut self, stuck: bool) {
        self.retry_at = stuck.then(|| self.now + RETRY_AFTER);
        let before = std::mem::replace(&mut self.shared.state().stuck, stuck);
        match (before, stuck) {
            (false, true) => tracing::error!("The spool takes no more batches until the disk does"),
            (true, false) => tracing::info!("The spool takes batches again"),
            _ => {}
        }
    }

    /// What is acked need not be written, as long as none of it is.
    fn forget_acked(&mut self) {
        if self.written == 0 && !self.unsynced.is_empty() {
            let acked = self.acked_seq();
            self.unsynced.retain(|one| one.batch.seq > acked);
        }
    }

    fn acked_seq(&self) -> u64 {
        self.shared.state().current().map_or(0, |lane| lane.acked_seq)
    }

    /// Appends all that is numbered, over as many segments as it needs.
    fn write(&mut self) -> io::Result<()> {
        while let Some(next) = self.unsynced.get(self.written) {
            let (seq, bytes) = (next.batch.seq, next.frame_bytes());
            if self.growing.as_ref().is_some_and(|growing| growing.room_bytes() < bytes as u64) {
                self.seal()?;
                continue;
            }
            if self.growing.is_none() {
                self.open_segment(seq, bytes)?;
            }
            self.append()?;
        }
        Ok(())
    }

    /// Appends by one write as many frames as the segment has room for.
    fn append(&mut self) -> io::Result<()> {
        let Some(growing) = &mut self.growing else { return Ok(()) };
        let waiting = self.unsynced.get(self.written..).unwrap_or_default();
        let mut bytes = 0;
        let fitting = waiting.iter().take(WRITE_FRAMES).take_while(|one| {
            bytes += one.frame_bytes() as u64;
            bytes <= growing.room_bytes()
        });
        let count = fitting.count().max(1);
        let group = waiting.get(..count).unwrap_or(waiting);
        let start = growing.footer.end;
        let written = growing.append(group)?;
        let metrics = &self.shared.metrics;
        metrics.written_bytes.inc_by(written);
        let mut state = self.shared.state();
        let view = state.current().and_then(|lane| lane.segments.back_mut());
        let Some(view) = view else { return Ok(()) };
        let mut offset = start;
        for one in group {
            if one.batch.seq > self.counted_seq {
                self.counted_seq = one.batch.seq;
                metrics.written_batches.inc();
                metrics.written_records.inc_by(u64::from(one.batch.records));
            }
            if let Some(growing) = &mut view.growing {
                growing.index.push(one.batch.seq, offset, one.frame_bytes());
            }
            offset += one.frame_bytes() as u64;
        }
        view.last_seq = growing.footer.last_seq;
        view.end = growing.footer.end;
        view.oldest_received = growing.footer.oldest_received;
        self.written += count;
        Ok(())
    }

    /// Makes what is written durable, unless all of it is acked.
    fn commit(&mut self) {
        self.commit_at = None;
        let acked = self.acked_seq();
        if self.unsynced.iter().take(self.written).all(|one| one.batch.seq <= acked) {
            self.unsynced.drain(..self.written);
            self.written = 0;
            return;
        }
        if let Err(error) = self.sync() {
            self.leave_segment(&error);
            self.push_out();
            if let Err(error) = self.sync() {
                self.leave_segment(&error);
                self.set_stuck(true);
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some(growing) = &self.growing else { return Ok(()) };
        growing.file.sync()?;
        crash_point!("spool.sync");
        self.shared.metrics.syncs.inc();
        self.is_durable();
        Ok(())
    }

    /// All that is written is durable, also what did not wait for it because it was acked.
    fn is_durable(&mut self) {
        self.unsynced.drain(..self.written);
        self.written = 0;
        let last_seq = self.growing.as_ref().map_or(0, |growing| growing.footer.last_seq);
        let mut state = self.shared.state();
        if let Some(lane) = state.current() {
            lane.durable_next = lane.durable_next.max(last_seq + 1);
        }
        state.trim(self.shared.settings.memory_bytes);
    }

    /// Acked numbers need be in no file. Then a position must say so before a segment begins behind them, or the
    /// next start would call them lost.
    fn speak_for_acked(&self, first_seq: u64) -> io::Result<()> {
        let is_known = |lane: &mut Lane| first_seq <= lane.durable_next.max(lane.position + 1);
        let known = self.shared.state().current().is_none_or(is_known);
        if known { Ok(()) } else { budget::settle(&self.shared, true) }
    }

    fn open_segment(&mut self, first_seq: u64, frame_bytes: usize) -> io::Result<()> {
        self.speak_for_acked(first_seq)?;
        let shared = &self.shared;
        let least = (super::frame::SEGMENT_HEADER_BYTES + frame_bytes + FOOTER_BYTES) as u64;
        let capacity = shared.segment_bytes.max(least);
        let lane = shared.state().current().map_or(LaneId::default(), |lane| lane.id);
        let header = SegmentHeader { lane, first_seq, created: (shared.settings.clock)() };
        let growing = loop {
            budget::make_room(shared, capacity)?;
            let spare = shared.state().spares.pop();
            let spare = spare.as_ref().map(|spare| spare.path.as_path());
            match Growing::create(shared.storage.as_ref(), &shared.settings.dir, header, capacity, spare) {
                Ok(growing) => break growing,
                Err(error) if is_full(&error) && budget::drop_oldest(shared)? => {}
                Err(error) => return Err(error),
            }
        };
        let view = GrowingView { file: growing.file.clone(), index: Index::new(first_seq) };
        let mut state = shared.state();
        if let Some(lane) = state.current() {
            lane.segments.push_back(Segment {
                first_seq,
                last_seq: first_seq - 1,
                path: growing.path.clone(),
                disk_bytes: capacity,
                end: growing.footer.end,
                oldest_received: u64::MAX,
                growing: Some(view),
                going: false,
            });
        }
        drop(state);
        self.growing = Some(growing);
        Ok(())
    }

    /// Ends the segment: footer, sync. What comes next begins another.
    fn seal(&mut self) -> io::Result<()> {
        let Some(growing) = &self.growing else { return Ok(()) };
        growing.seal()?;
        self.shared.metrics.syncs.inc();
        let disk_bytes = growing.footer.end + FOOTER_BYTES as u64;
        self.is_durable();
        self.growing = None;
        let mut state = self.shared.state();
        state.dirty = true;
        if let Some(view) = state.current().and_then(|lane| lane.segments.back_mut()) {
            view.growing = None;
            view.disk_bytes = disk_bytes;
        }
        drop(state);
        self.settle_at = Some(self.now);
        Ok(())
    }

    /// The disk failed under the segment. It is left as it is, without a further sync: after a failed one the
    /// kernel may call pages clean that never reached the disk. What is not durable is to be written anew.
    fn leave_segment(&mut self, error: &io::Error) {
        if !is_full(error) {
            self.shared.metrics.disk_errors.inc();
        }
        if self.retry_at.is_none() {
            tracing::warn!(%error, "Writing to the spool failed");
        }
        self.written = 0;
        let Some(growing) = self.growing.take() else { return };
        let mut state = self.shared.state();
        let Some(lane) = state.current() else { return };
        let durable = lane.durable_next - 1;
        if durable < growing.header.first_seq {
            lane.segments.pop_back();
            drop(state);
            // Should it stay: a start reads it only up to where the next segment begins.
            let _ = self.shared.storage.remove(&growing.path);
        } else if let Some(view) = lane.segments.back_mut() {
            view.growing = None;
            view.last_seq = durable;
        }
    }

    /// Begins another lane, once all of the old one is durable.
    fn switch(&mut self) {
        if self.written < self.unsynced.len() {
            return;
        }
        if let Err(error) = self.seal() {
            self.leave_segment(&error);
            self.push_out();
            if self.seal().is_err() || !self.unsynced.is_empty() {
                return;
            }
        }
        let lane = Lane::new((self.shared.settings.new_lane)(), (self.shared.settings.clock)());
        tracing::info!(lane = %lane.id, "The spool begins a new lane");
        let mut state = self.shared.state();
        state.switch = false;
        state.lanes.push(lane);
        state.recent.clear();
        drop(state);
        self.totals = Totals::default();
        self.previous_digest = None;
        self.counted_seq = 0;
        self.commit_at = None;
        self.shared.next_seq.send_replace(1);
    }

    /// Something in the state has changed that is the writer's to act on.
    fn look_around(&mut self) {
        let (switch, forked, frees, dirty) = {
            let state = self.shared.state();
            let forked = state.lanes.iter().any(|lane| lane.forked);
            (state.switch, forked, state.frees(), state.dirty)
        };
        if switch {
            self.switch();
        }
        if frees || forked {
            self.settle(false);
        } else if dirty && self.settle_at.is_none() {
            self.settle_at = Some(self.now + SETTLE_AFTER);
        }
        if self.retry_at.is_some() {
            self.push_out();
        }
    }

    fn settle(&mut self, durable: bool) {
        self.settle_at = None;
        // Each by itself: on a full disk there may be no room for a folder before what is acked has gone.
        let settled = budget::settle(&self.shared, durable);
        let moved = aside::set_aside(&self.shared);
        if let Err(error) = &settled {
            self.shared.metrics.disk_errors.inc();
            tracing::warn!(%error, "The spool's positions could not be written");
        }
        if let Err(error) = &moved {
            self.shared.metrics.disk_errors.inc();
            tracing::warn!(%error, "A lane could not be set aside yet");
        }
        if settled.is_err() || moved.is_err() || self.shared.state().dirty {
            self.settle_at = Some(self.now + SETTLE_AFTER);
        }
    }

    pub(crate) fn finish(&mut self) {
        self.push_out();
        // The disk may take again what it did not take a moment ago.
        while self.retry_at.is_none() {
            self.wait(Some(self.now));
            if self.group.is_empty() {
                break;
            }
            self.number();
            self.push_out();
        }
        if let Err(error) = self.seal() {
            self.leave_segment(&error);
            self.push_out();
            if let Err(error) = self.seal() {
                self.leave_segment(&error);
            }
        }
        let left = self.shared.queue.end();
        left.iter().for_each(|batch| self.shared.metrics.count_dropped(Metrics::DISK, batch));
        {
            let mut state = self.shared.state();
            state.ended = true;
            state.stuck = false;
            state.ended_unsynced = !self.unsynced.is_empty();
            if state.ended_unsynced
                && let Some(lane) = state.current()
            {
                // Numbered and never written: the next start books them as lost, if it can know.
                lane.durable_next = lane.next_seq;
            }
        }
        self.settle(true);
    }
}
