//! What the uplink, status and readiness may ask of a running spool and tell it.

use super::positions::MAX_MARK_STORE_BYTES;
use super::state::Shared;
use super::tally::{self, Committed, Count};
use super::{Fetched, LaneId, LaneView, LastHeard, ReadError, Recovered, SkipRow, Usage, budget, fetch};
use crate::batch::Digest;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// The shared face of the spool: what the uplink reads and reports. Cheap to clone. Calls may read the disk;
/// those that say "durable" wait for it.
#[derive(Clone, Debug)]
pub struct Spool {
    pub(super) shared: Arc<Shared>,
}

impl Spool {
    /// All lanes that are not done with, oldest first; the writer's own is the last.
    pub fn lanes(&self) -> Vec<LaneView> {
        self.shared.state().views()
    }

    /// What stands at a number. A batch that is given out counts as sent: the byte budget leaves its segment
    /// alone until [`Spool::opened`]. Damage and loss found here become a durable skip row.
    ///
    /// # Errors
    /// [`ReadError`]; it may be asked again.
    pub fn fetch(&self, lane: LaneId, seq: u64) -> Result<Fetched, ReadError> {
        fetch::fetch(&self.shared, lane, seq)
    }

    /// As [`Spool::fetch`], but never reads the disk: `None` if that is needed.
    ///
    /// # Errors
    /// No such lane.
    pub fn at_hand(&self, lane: LaneId, seq: u64) -> Result<Option<Fetched>, ReadError> {
        fetch::at_hand(&self.shared, lane, seq)
    }

    /// The digest of a batch, as far as it is known without reading the disk.
    pub fn digest(&self, lane: LaneId, seq: u64) -> Option<Digest> {
        fetch::digest(&self.shared, lane, seq)
    }

    /// The collector has opened the lane anew: nothing was sent of it since.
    pub fn opened(&self, lane: LaneId) {
        if let Some(lane) = self.shared.state().lane(lane) {
            lane.sent_seq = 0;
        }
    }

    /// Everything up to `seq` is acked. Does not wait for the disk, but where [`Spool::must_look_up`] says so: the
    /// writer writes the position and removes what it frees. Once the writer has ended, this does it when the lane is
    /// acked to its end. Gives what was committed of what this process has given out.
    pub fn acked(&self, lane: LaneId, seq: u64) -> Committed {
        let found = self.found(lane, seq);
        let (poke, settle, committed) = {
            let mut state = self.shared.state();
            let Some(lane) = state.lane(lane) else { return Committed::default() };
            let seq = seq.min(lane.next_seq - 1);
            let before = lane.acked_seq;
            if seq <= before {
                return Committed::default();
            }
            let counted = tally::acked(&self.shared, lane, seq, found);
            lane.acked_seq = seq;
            let committed = !lane.without_rows(before + 1, seq).is_empty();
            let (frees, done) = (lane.frees(), lane.acked_seq + 1 == lane.next_seq);
            if committed {
                state.rejects = 0;
            }
            let was_dirty = std::mem::replace(&mut state.dirty, true);
            state.trim(self.shared.settings.memory_bytes);
            (frees || !was_dirty || state.stuck, state.ended && (frees || done), counted)
        };
        if settle {
            if let Err(error) = budget::settle(&self.shared, true) {
                tracing::warn!(%error, "The spool's positions could not be written");
            }
        } else if poke {
            self.shared.queue.poke();
        }
        committed
    }

    /// Whether an ack up to `seq` speaks of batches that this process never gave out: it reads the disk then, to count
    /// them.
    pub fn must_look_up(&self, lane: LaneId, seq: u64) -> bool {
        self.shared.state().lane(lane).is_some_and(|lane| !tally::not_given(lane, seq).is_empty())
    }

    /// What an ack up to `seq` says of batches that this process never gave out.
    fn found(&self, id: LaneId, seq: u64) -> Count {
        let parts = match self.shared.state().lane(id) {
            Some(lane) => tally::not_given(lane, seq.min(lane.next_seq - 1)),
            None => return Count::default(),
        };
        let count = |(from, to): (u64, u64)| Count {
            batches: to - from + 1,
            records: tally::between(&self.shared, id, from, to).unwrap_or(0),
        };
        let mut found = Count::default();
        parts.into_iter().for_each(|part| found.add(count(part)));
        found
    }

    /// What the lanes hold that is neither acked, nor skipped, nor set aside: batches as numbers and rows say, records as
    /// each lane has counted them.
    #[cfg(test)]
    pub(crate) fn held(&self) -> Count {
        let state = self.shared.state();
        let batches = state.lanes.iter().map(super::state::Lane::uncounted).sum();
        Count { batches, records: tally::unacked(&state).records }
    }

    /// What exporters counted up to in the last batches of the starts before.
    pub fn last_heard(&self) -> LastHeard {
        self.shared.last_heard.clone()
    }

    /// The collector's mark went back to `committed_seq`: what is left above it stays until it is acked again.
    pub fn went_back(&self, lane: LaneId, committed_seq: u64) {
        if let Some(lane) = self.shared.state().lane(lane) {
            lane.acked_seq = lane.acked_seq.min(committed_seq);
        }
    }

    /// The collector refused this batch for good: it goes to quarantine and becomes a skip row, both durable,
    /// and is counted among the rejects in a row. A number that has its row already gets that one, uncounted.
    ///
    /// # Errors
    /// [`ReadError`]; it may be tried again.
    pub fn reject(&self, lane: LaneId, seq: u64) -> Result<SkipRow, ReadError> {
        fetch::reject(&self.shared, lane, seq)
    }

    /// Batches refused since the last one that was committed, over all lanes and starts.
    pub fn rejects_in_a_row(&self) -> u32 {
        self.shared.state().rejects
    }

    /// Forgets a lane that is acked to its end and not the writer's own. False if it is not such a one.
    pub fn close(&self, lane: LaneId) -> bool {
        let closed = {
            let mut state = self.shared.state();
            let current = state.current().is_some_and(|current| current.id == lane);
            let closed = state.lane(lane).filter(|lane| !current && lane.acked_seq + 1 >= lane.next_seq);
            let closed = closed.map(|lane| lane.closed = true).is_some();
            state.dirty |= closed;
            closed
        };
        if closed {
            self.shared.queue.poke();
        }
        closed
    }

    /// Another writer has used this lane: what is not acked of it is moved to a folder of its own and counted,
    /// and the lane is forgotten. If it was the writer's own, batches go to a new lane from now on.
    pub fn set_aside(&self, lane: LaneId) {
        {
            let mut state = self.shared.state();
            let current = state.current().is_some_and(|current| current.id == lane);
            let Some(lane) = state.lane(lane) else { return };
            lane.forked = true;
            state.switch |= current;
            state.dirty = true;
        }
        self.shared.queue.poke();
    }

    /// Asks for a new lane; [`Spool::lanes`] shows it when the writer has begun it. Nothing happens if the
    /// writer's lane holds nothing yet.
    pub fn new_lane(&self) {
        {
            let mut state = self.shared.state();
            let used = state.current().is_some_and(|lane| lane.next_seq > 1);
            state.switch |= used;
        }
        self.shared.queue.poke();
    }

    /// Shows the next number of the writer's lane as soon as a batch has got the one before and can be
    /// fetched; that it is durable comes later. Goes back to 1 with a new lane.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.next_seq.subscribe()
    }

    /// The mark store that was last delivered to; empty if none.
    pub fn mark_store_id(&self) -> Vec<u8> {
        self.shared.state().mark_store_id.clone()
    }

    /// Keeps the id of the mark store; durable when it returns. Ids are cut at 255 bytes.
    ///
    /// # Errors
    /// Those of the disk; the old id holds then.
    pub fn set_mark_store_id(&self, id: &[u8]) -> io::Result<()> {
        let mut journal = self.shared.journal();
        let id = id.get(..MAX_MARK_STORE_BYTES).unwrap_or(id);
        let mut positions = self.shared.state().positions();
        positions.mark_store_id = id.to_vec();
        journal.positions.write(&positions, true)?;
        self.shared.state().mark_store_id = id.to_vec();
        Ok(())
    }

    /// Whether batches are taken: the writer runs and the disk takes what it writes.
    pub fn writable(&self) -> bool {
        let state = self.shared.state();
        !state.stuck && !state.ended
    }

    /// Whether the disk has been asked for something 5 s ago and has not answered.
    pub fn is_stalled(&self) -> bool {
        self.shared.calls.are_stalled(Instant::now())
    }

    /// Finds out when the oldest batch that waits was received, for [`Spool::usage`]. Reads the disk.
    pub fn look_for_oldest(&self) {
        let found = self.shared.state().oldest_unacked().map(|(lane, seq)| (lane.id, seq));
        let Some((id, seq)) = found else { return };
        if let Ok(Some(one)) = fetch::with_notes(&self.shared, id, seq) {
            self.shared.state().oldest = Some((id, seq, one.batch.received));
        }
    }

    /// How much lies in it.
    pub fn usage(&self) -> Usage {
        self.shared.state().usage()
    }

    /// What was found at the start.
    pub fn recovered(&self) -> &Recovered {
        &self.shared.recovered
    }
}
