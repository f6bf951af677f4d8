//! The collector's commit: one thread writes for all lanes of all connections.
//!
//! It takes the orders at hand as one group, judges and decodes them in the order they came, and makes the
//! group durable in these steps:
//!
//! 1. sinks other than the JSONL file get the batches;
//! 2. one transaction of the mark store: all marks, the file's row, what the file's text is rendered from;
//! 3. the JSONL file is rotated if need be, written and synced;
//! 4. the answers go to the sessions, which make acks of them.
//!
//! While one group is being written the next one gathers, so fsyncs are shared by all that came meanwhile.
//!
//! | if | then |
//! |---|---|
//! | a step fails | nothing is answered; the step is tried again every second until it works or the collector stops |
//! | a step does not come back | nothing is answered; [`super::stuck`] tells it |
//! | somebody has moved, cut or replaced the file | step 3 does what a start would do |
//! | the process dies before 2 | the proxies send the batches again; sinks of step 1 get them twice |
//! | the process dies after 2 | the next start writes the file's part again (see [`super::sinks::jsonl`]) |
//! | a batch can not be decoded, or decoding it panics | it is rejected, its mark does not move |
//! | decoding kills the process | see [`super::deaths`] |

mod group;
mod lanes;

use super::deaths::Deaths;
use super::ledger::Given;
use super::marks::{Change, LaneKey, MarkStore};
use super::metrics::Metrics;
use super::registry::Registry;
use super::session::{Answer, Order, Outcome, Skip, Task};
use super::sinks::{Sink, jsonl};
use super::trial::Trial;
use super::{lane, session};
use crate::batch::{self, Kind};
use crate::lines::limited;
use crate::proto::reject::Reason;
use crate::proto::skip::Reason as SkipReason;
use crate::tls::Identity;
use group::Group;
pub(super) use group::open_and_render;
use lanes::{Lanes, Opening};
use std::fmt::Display;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// How long changes that need no transaction of their own may wait for one, in milliseconds.
const LAZY_MS: u64 = 60_000;

/// An order and where its outcome goes.
#[derive(Debug)]
pub struct Request {
    /// Whose it is.
    pub identity: Identity,
    /// What to do.
    pub order: Order,
    /// Where the outcome goes; `Heard` has none.
    pub reply: UnboundedSender<Outcome>,
    /// The bytes that it takes of the collector's memory; given back when the group is done.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// Whether store and sinks work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why not, while they do not.
    pub stalled: Option<String>,
}

/// The collector stops while something does not work: what is not durable is given up, unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abandoned;

/// What the commit works with.
pub struct Parts {
    /// Where marks live.
    pub store: Box<dyn MarkStore>,
    /// The JSONL file, if there is one.
    pub file: Option<jsonl::File>,
    /// The other sinks.
    pub sinks: Vec<Box<dyn Sink>>,
    /// Batches that the collector died of.
    pub deaths: Deaths,
    /// Decodes those of them that have been blamed too often elsewhere.
    pub trial: Trial,
    /// Lanes that one identity may have in the store.
    pub lanes_per_identity: usize,
    /// What is counted.
    pub metrics: Metrics,
    /// What `/status` shows.
    pub registry: Registry,
    /// Whether it works.
    pub health: watch::Sender<Health>,
    /// Milliseconds since 1970.
    pub clock: fn() -> u64,
    /// Waits a moment before something is tried again; false when it should not be.
    pub patience: Box<dyn FnMut() -> bool + Send>,
}

/// See the module.
pub struct Commit {
    parts: Parts,
    lanes: Lanes,
    committed_ms: u64,
    unwanted_told: [bool; 2],
}

impl Commit {
    /// Nothing at hand.
    pub fn new(parts: Parts) -> Self {
        let lanes = Lanes::new(parts.lanes_per_identity);
        let committed_ms = (parts.clock)();
        Self { parts, lanes, committed_ms, unwanted_told: [false; 2] }
    }

    /// Commits `first` and what `more` gives at once, as one group, and answers.
    ///
    /// # Errors
    /// When it had to be given up.
    pub fn group(
        &mut self,
        first: Request,
        mut more: impl FnMut() -> Option<Request>,
    ) -> Result<(), Abandoned> {
        let mut group = Group::default();
        let mut next = Some(first);
        while let Some(request) = next {
            self.take(request, &mut group)?;
            next = if group.is_full() { None } else { more() };
        }
        self.finish(group)
    }

    /// Does what time has made due: ends a file that is old, makes lazy changes durable.
    ///
    /// # Errors
    /// When it had to be given up.
    pub fn idle(&mut self) -> Result<(), Abandoned> {
        let now_ms = (self.parts.clock)();
        let rotation = self.parts.file.as_ref().and_then(|file| file.plan_rotation(now_ms));
        let lazy = self.lanes.has_changes() && now_ms.saturating_sub(self.committed_ms) >= LAZY_MS;
        if rotation.is_none() && !lazy {
            return Ok(());
        }
        let lanes = self.lanes.changes();
        let file = rotation.clone().map(|row| (row, Vec::new()));
        self.make_durable(&Change { lanes, file, ..Change::default() })?;
        rotation.map_or(Ok(()), |row| self.write_file(&row, &[]))
    }

    /// Notes that nothing is under way. Called last, when the last group was finished.
    pub fn stop(&mut self) {
        let file = self.parts.file.as_ref().map(|file| (file.plan_stop(), Vec::new()));
        let change = Change { lanes: self.lanes.changes(), file, ..Change::default() };
        let ended = self.parts.deaths.end();
        let stored = if change.is_empty() { Ok(()) } else { self.parts.store.commit(&change) };
        if let Err(error) = stored {
            tracing::warn!(%error, "The last notes could not be made; the next start does without");
        }
        if let Err(error) = ended {
            tracing::warn!(%error, "The note of the batch being decoded could not be blanked");
        }
    }

    fn take(&mut self, request: Request, group: &mut Group) -> Result<(), Abandoned> {
        let Request { identity, order, reply, permit } = request;
        group.permits.extend(permit);
        let (lane, id, task) = match order {
            Order::Lane { lane, id, task } => (lane, id, task),
            Order::Heard(lanes) => {
                for (lane, next_seq) in lanes {
                    self.lanes.heard(&(identity.clone(), lane), next_seq);
                }
                return Ok(());
            }
        };
        let key = (identity, id);
        let result = match task {
            Task::Open { acked_seq, next_seq, .. } => self.open(&key, acked_seq, next_seq, group)?,
            Task::Batch(batch) => self.batch(&key, batch, group)?,
            Task::Skip(skip) => self.skip(&key, &skip, group)?,
            Task::Close => self.close(&key)?,
        };
        group.replies.push((reply, Outcome { lane, result }));
        Ok(())
    }

    fn open(
        &mut self,
        key: &LaneKey,
        acked_seq: u64,
        next_seq: u64,
        group: &mut Group,
    ) -> Result<Answer, Abandoned> {
        let now_ms = (self.parts.clock)();
        let numbers = (acked_seq, next_seq);
        let opening = self.until_done(|me| me.lanes.open(me.parts.store.as_mut(), key, numbers, now_ms))?;
        let (identity, lane) = key;
        self.show_lanes(identity)?;
        let (known, row) = match opening {
            Opening::Known(row) => (true, row),
            Opening::Adopted(row) => {
                self.parts.metrics.adopted.inc();
                limited!(info, %identity, %lane, acked_seq, "A new lane begins here");
                group.must |= row.mark.committed_seq > 0;
                (false, row)
            }
            Opening::Full => {
                limited!(warn, %identity, %lane, "This identity has too many lanes; the new one is refused");
                let text = format!("this identity may have {} lanes", self.parts.lanes_per_identity);
                return Ok(Answer::Refused { text });
            }
        };
        self.parts.registry.lane(identity, *lane, Some(row));
        Ok(Answer::Opened { known, mark: row.mark })
    }

    /// Shows the lanes of an identity that nobody has named since the start, too: those of a disk that was lost are
    /// named by nobody.
    fn show_lanes(&mut self, identity: &Identity) -> Result<(), Abandoned> {
        if self.parts.registry.has_lanes(identity) {
            return Ok(());
        }
        for (lane, row) in self.until_done(|me| me.parts.store.lanes_of(identity))? {
            self.parts.registry.lane(identity, lane, Some(row));
        }
        Ok(())
    }

    fn batch(
        &mut self,
        key: &LaneKey,
        batch: session::Batch,
        group: &mut Group,
    ) -> Result<Answer, Abandoned> {
        self.parts.metrics.received_bytes.inc_by(batch.payload.len() as u64);
        let mut row = self.until_done(|me| me.lanes.row(me.parts.store.as_mut(), key))?;
        let verdict = row.mark.judge(batch.seq, batch.previous);
        match verdict {
            lane::Verdict::Duplicate => {
                self.parts.metrics.duplicates.inc();
                return Ok(Answer::Marked { mark: row.mark, moved: false });
            }
            lane::Verdict::Gap => {
                self.parts.metrics.gaps.inc();
                return Ok(Answer::Gap { committed_seq: row.mark.committed_seq });
            }
            lane::Verdict::Forked => {
                let text = "the batch before it is another one here: two writers have used this lane";
                return Ok(self.reject(key, group::reject(batch.seq, Reason::Forked, text)));
            }
            lane::Verdict::Take => {}
        }
        let seq = batch.seq;
        let digest = match batch.codec {
            Some(codec) => batch::digest(codec, batch.plain_size, &batch.payload),
            None => batch::Digest::default(),
        };
        if let Err(rejection) = self.decode(key, batch, digest, group) {
            return Ok(self.reject(key, rejection));
        }
        row.mark.take(seq, digest);
        self.move_mark(key, row, group);
        Ok(Answer::Marked { mark: row.mark, moved: true })
    }

    fn reject(&mut self, (identity, lane): &LaneKey, rejection: session::Rejection) -> Answer {
        let session::Rejection { seq, reason, text } = &rejection;
        let label = match reason {
            Reason::TooLarge => "too_large",
            Reason::Forked => "forked",
            Reason::Poison => "poison",
            Reason::Malformed | Reason::Unknown => "malformed",
        };
        self.parts.metrics.rejected.add(label, 1);
        limited!(error, %identity, %lane, seq, reason = label, text, "A batch is rejected");
        Answer::Rejected(rejection)
    }

    fn skip(&mut self, key: &LaneKey, skip: &Skip, group: &mut Group) -> Result<Answer, Abandoned> {
        let mut row = self.until_done(|me| me.lanes.row(me.parts.store.as_mut(), key))?;
        match row.mark.skip(&skip.numbers, skip.digest) {
            lane::SkipVerdict::Duplicate => {
                self.parts.metrics.duplicates.inc();
                Ok(Answer::Marked { mark: row.mark, moved: false })
            }
            lane::SkipVerdict::Gap => {
                self.parts.metrics.gaps.inc();
                Ok(Answer::Gap { committed_seq: row.mark.committed_seq })
            }
            lane::SkipVerdict::Take(numbers) => {
                let label = skip_label(skip.reason);
                let (batches, records) = group::skipped(skip, &numbers);
                let is_whole = numbers.start() == skip.numbers.start();
                group.skipped(&key.0, label, Given { batches, records }, skip, is_whole);
                self.parts.metrics.skipped_batches.add(label, batches);
                self.parts.metrics.skipped.add(label, records);
                let (identity, lane) = key;
                limited!(warn, %identity, %lane, ?numbers, records, reason = label, "Batches will not come");
                self.move_mark(key, row, group);
                Ok(Answer::Marked { mark: row.mark, moved: true })
            }
        }
    }

    fn move_mark(&mut self, key: &LaneKey, row: lane::Row, group: &mut Group) {
        let (identity, lane) = key;
        self.lanes.set(key, row);
        group.must = true;
        group.moved.insert(key.clone(), row);
        group.survived.extend(self.parts.deaths.forget(identity.as_str(), *lane, row.mark.committed_seq));
    }

    fn close(&mut self, key: &LaneKey) -> Result<Answer, Abandoned> {
        let now_ms = (self.parts.clock)();
        let (lost, row) = self.until_done(|me| me.lanes.close(me.parts.store.as_mut(), key, now_ms))?;
        let (identity, lane) = key;
        if lost > 0 {
            self.parts.metrics.lost_batches.inc_by(lost);
            limited!(warn, %identity, %lane, batches = lost, "A lane was closed; batches were lost with its disk");
        }
        self.parts.registry.lane(identity, *lane, row);
        Ok(Answer::Closed)
    }

    fn finish(&mut self, group: Group) -> Result<(), Abandoned> {
        let ended = self.parts.deaths.end();
        if let Err(error) = ended {
            tracing::warn!(%error, "The note of the batch being decoded could not be blanked");
        }
        crash_point!("collector.take");
        self.deliver(&group)?;
        crash_point!("collector.deliver");
        let now_ms = (self.parts.clock)();
        let file = self.parts.file.as_ref().filter(|_| !group.text.is_empty());
        let row = file.map(|file| file.plan(&group.text, now_ms));
        if group.must || row.is_some() {
            let file = row.clone().map(|row| (row, group.redo.clone()));
            let (lanes, survived) = (self.lanes.changes(), group.survived.clone());
            self.make_durable(&Change { lanes, file, survived })?;
        }
        if let Some(row) = &row {
            self.write_file(row, &group.text)?;
        }
        crash_point!("collector.ack");
        self.answer(group);
        crash_point!("collector.acked");
        Ok(())
    }

    fn deliver(&mut self, group: &Group) -> Result<(), Abandoned> {
        if group.taken.is_empty() {
            return Ok(());
        }
        for index in 0..self.parts.sinks.len() {
            let bytes = self.until_done(|me| {
                let sink = me.parts.sinks.get_mut(index);
                sink.map_or(Ok(0), |sink| sink.write(&group.taken))
            })?;
            self.parts.metrics.sink_bytes.inc_by(bytes);
        }
        Ok(())
    }

    fn make_durable(&mut self, change: &Change) -> Result<(), Abandoned> {
        self.until_done(|me| me.parts.store.commit(change))?;
        self.lanes.stored();
        self.committed_ms = (self.parts.clock)();
        self.parts.metrics.commits.inc();
        Ok(())
    }

    fn write_file(&mut self, row: &jsonl::FileRow, text: &[u8]) -> Result<(), Abandoned> {
        self.until_done(|me| {
            let Parts { file: Some(file), store, clock, .. } = &mut me.parts else { return Ok(()) };
            match file.apply(row, text) {
                Err(jsonl::FileError::Astray { .. }) => file.begin_again(store.as_mut(), clock()),
                applied => applied,
            }
        })?;
        self.parts.metrics.sink_bytes.inc_by(text.len() as u64);
        self.parts.metrics.fsyncs.inc();
        Ok(())
    }

    /// The group is durable: counts it and lets everybody know.
    fn answer(&mut self, group: Group) {
        for ((identity, lane), row) in &group.moved {
            self.parts.registry.lane(identity, *lane, Some(*row));
        }
        for (identity, tally) in &group.tallies {
            let metrics = &self.parts.metrics;
            metrics.records.inc_by(tally.records);
            metrics.datagrams.inc_by(tally.datagrams);
            metrics.batches.add("records", tally.record_batches);
            metrics.batches.add("raw", tally.raw_batches);
            self.parts.registry.committed(identity, tally);
        }
        for (reply, outcome) in group.replies {
            // Its session may be gone; the mark is durable all the same.
            let _ = reply.send(outcome);
        }
    }

    /// Tries until it works.
    fn until_done<T, E: Display>(
        &mut self,
        mut work: impl FnMut(&mut Self) -> Result<T, E>,
    ) -> Result<T, Abandoned> {
        let mut failed = false;
        loop {
            let error = match work(self) {
                Ok(done) => {
                    if failed {
                        tracing::info!("Store and sinks work again");
                        self.parts.metrics.stalled.set(0);
                        self.parts.health.send_replace(Health::default());
                    }
                    return Ok(done);
                }
                Err(error) => error.to_string(),
            };
            self.parts.metrics.failures.inc();
            if !failed {
                tracing::error!(error, "Nothing can be committed; tried again every second");
            }
            failed = true;
            self.parts.metrics.stalled.set(1);
            self.parts.health.send_replace(Health { stalled: Some(error) });
            if !(self.parts.patience)() {
                return Err(Abandoned);
            }
        }
    }

    /// Whether some sink takes batches of this kind; said once if none does.
    fn note_unwanted(&mut self, kind: Kind) {
        let label = group::label(kind);
        self.parts.metrics.unwanted.add(label, 1);
        let [records, raw] = &mut self.unwanted_told;
        let told = if kind == Kind::Records { records } else { raw };
        if !std::mem::replace(told, true) {
            tracing::warn!(
                kind = label,
                "No sink takes batches of this kind: they are committed and not kept"
            );
        }
    }
}

fn skip_label(reason: SkipReason) -> &'static str {
    match reason {
        SkipReason::Unknown => "unknown",
        SkipReason::Dropped => "dropped",
        SkipReason::Damaged => "damaged",
        SkipReason::Lost => "lost",
        SkipReason::Rejected => "rejected",
        SkipReason::AlreadyAcked => "already_acked",
    }
}

#[cfg(test)]
mod tests;
