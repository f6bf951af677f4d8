//! What must hold in a world: after a start, after every step, and of whatever is looked up.

use super::damage::{Frame, frames, is_segment};
use super::{MAX_BYTES, World, is_aside};
use crate::batch::{Digest, Sealed};
use crate::proto::skip::Reason;
use crate::spool::{Fetched, LaneId, LaneView, ReadError, SkipRow, budget};
use std::collections::BTreeMap;

impl World {
    /// What a start has made of the frames that lay in the folder.
    pub(super) fn take_stock(&mut self, found: &[Frame]) {
        let views = self.spool().lanes();
        let durable = self.durable();
        let current = views.last().unwrap().id;
        assert!(!self.lanes.contains_key(&current), "a name was used twice");
        for view in views.iter().filter(|view| !view.current) {
            let acked = self.acked(view.id);
            let failed = self.disk.has_failed();
            let lane = self.lane(view.id);
            assert!(acked <= lane.acked, "more is acked than ever was: {view:?}, {}", lane.acked);
            assert!(view.next_seq <= lane.batches.len() as u64 + 1, "numbers out of nowhere: {view:?}");
            lane.sent = 0;
            if failed {
                // The kernel shows them, and a power cut will take them.
                let shown = found.iter().filter(|frame| frame.lane == view.id).map(|frame| frame.seq);
                lane.excused.extend(shown.filter(|seq| !durable.contains_key(&(view.id, *seq))));
            }
        }
        for known in &self.spool().clone().shared.state().lanes {
            let lane = self.lanes.entry(known.id).or_default();
            lane.next_seq = known.next_seq;
            lane.found_next = lane.found_next.max(known.next_seq);
        }
        self.take_stock_of_what_is_aside();
        for frame in found {
            let lane = &self.lanes[&frame.lane];
            let view = self.next_seq(frame.lane);
            let is_there = view.is_some_and(|next_seq| frame.seq < next_seq);
            let excused = lane.excused.contains(&frame.seq) || frame.seq <= lane.acked;
            assert!(is_there || excused, "{frame:?} was in the folder, and the start has not seen it");
        }
        self.check_kept_rows(&views);
    }

    /// Rows outlive a crash.
    pub(super) fn check_kept_rows(&mut self, views: &[LaneView]) {
        for row in std::mem::take(&mut self.rows) {
            let lane = &self.lanes[&row.lane];
            let is_aside = lane.aside.is_some() && self.next_seq(row.lane).is_none();
            if self.skips_damaged || self.positions_damaged || lane.closed || is_aside {
                continue;
            }
            let view = views.iter().find(|view| view.id == row.lane);
            let acked = self.acked(row.lane);
            for seq in row.from.max(acked + 1)..=row.to {
                let mut state = self.spool().shared.state();
                let kept =
                    state.lane_not_closed(row.lane).and_then(|lane| lane.row(seq)).map(|row| row.reason);
                assert_eq!(kept, Some(row.reason), "{row:?} in {view:?}");
            }
        }
    }

    /// Numbers for which a power cut would leave a good frame.
    pub(super) fn durable(&self) -> BTreeMap<(LaneId, u64), Digest> {
        let files = self.disk.durable();
        let held = files.iter().filter(|(path, _)| is_segment(path) || is_aside(path));
        let held = held.flat_map(|(_, bytes)| frames(bytes));
        held.map(|frame| ((frame.lane, frame.seq), frame.digest)).collect()
    }

    /// Looks a number up; `None` if the disk does not let it.
    pub(super) fn fetch(&mut self, id: LaneId, seq: u64) -> Option<Fetched> {
        let fetched = match self.spool().fetch(id, seq) {
            Ok(fetched) => fetched,
            Err(ReadError::Io(error)) => {
                assert!(self.trouble, "{error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        match &fetched {
            Fetched::Batch(stored) => {
                assert_eq!((stored.lane, stored.seq), (id, seq));
                let skips_damaged = self.skips_damaged || self.positions_damaged;
                let lane = &self.lanes[&id];
                let at = usize::try_from(seq - 1).unwrap();
                let batch = &self.batches[&lane.batches[at]];
                assert_eq!((&stored.payload, stored.digest), (&batch.payload, batch.digest), "{seq} of {id}");
                assert_eq!((stored.records, stored.received), (batch.records, batch.received));
                let before = at.checked_sub(1).map(|before| lane.batches[before]);
                assert_eq!(stored.previous_digest, before, "before {seq} of {id}");
                let reason = lane.reasons.get(&seq);
                assert!(reason.is_none() || skips_damaged || lane.closed, "{seq} of {id} was {reason:?}");
            }
            Fetched::Skip(row) => {
                assert_eq!((row.lane, row.from), (id, seq));
                self.check_row(row);
            }
            Fetched::Pending => assert_eq!(seq, self.lanes[&id].next_seq),
        }
        Some(fetched)
    }

    /// Whether a row says what is true.
    pub(super) fn check_row(&mut self, row: &SkipRow) {
        let positions_damaged = self.positions_damaged;
        let rows_damaged = positions_damaged || self.skips_damaged;
        let lane = self.lanes.get_mut(&row.lane).unwrap();
        assert!(row.to <= lane.batches.len() as u64, "{row:?} of {} numbers", lane.batches.len());
        for seq in row.from..=row.to {
            let acked = seq <= lane.acked;
            let had_a_row = lane.reasons.contains_key(&seq);
            // DESIGN 6: no fdatasync for frames that were acked before it. DESIGN 5: frames missing above the position, up
            // to the highest of frames, rows and next_seq, are lost. The position follows an ack within a second, and
            // until then a power cut takes acked numbers that stand below something durable: frames behind them in
            // their segment (they are damaged then, or lost if that segment goes later), or the row of a later number
            // that was refused before the ack. The proxy books them too high, which DESIGN 5 allows it; the
            // collector's mark has passed them, and it counts nothing.
            let is_unkept = lane.acked_unkept.contains(&seq);
            let may_be_lost =
                lane.excused.contains(&seq) || (acked && positions_damaged) || (had_a_row && rows_damaged);
            let is_right = match row.reason {
                // What is to be set aside goes first, sent or not.
                Reason::Dropped => had_a_row || seq > lane.sent || lane.aside.is_some(),
                Reason::Damaged => may_be_lost || is_unkept,
                Reason::Lost => may_be_lost || (is_unkept && seq + 1 < lane.found_next),
                Reason::AlreadyAcked => acked,
                Reason::Rejected => true,
                Reason::Unknown => false,
            };
            assert!(is_right, "{row:?} is wrong of {seq}, acked {}, sent {}", lane.acked, lane.sent);
            lane.reasons.insert(seq, row.reason);
        }
        let is_gone = |seq: &u64| lane.excused.contains(seq) || lane.acked_unkept.contains(seq);
        let excused = (row.from..=row.to).any(|seq| is_gone(&seq));
        if !matches!(row.reason, Reason::Dropped | Reason::Rejected) || excused {
            return;
        }
        let range = usize::try_from(row.from - 1).unwrap()..usize::try_from(row.to).unwrap();
        let batches: Vec<&Sealed> = lane.batches[range].iter().map(|digest| &self.batches[digest]).collect();
        if !row.records_per_seq.is_empty() {
            let records: Vec<u32> = batches.iter().map(|batch| batch.records).collect();
            assert_eq!(row.records_per_seq, records, "{row:?}");
        }
        if !row.counts_per_exporter.is_empty() {
            let shares = batches.iter().flat_map(|batch| batch.shares.iter());
            assert_eq!(row.counts_per_exporter, budget::per_exporter(shares), "{row:?}");
        }
    }

    /// Everything that is left is as it was handed in. Looking is not sending.
    pub(super) fn look(&mut self) {
        for view in self.spool().lanes() {
            let mut seq = self.acked(view.id) + 1;
            while seq <= view.next_seq {
                seq = match self.fetch(view.id, seq) {
                    Some(Fetched::Skip(row)) => row.to + 1,
                    Some(_) => seq + 1,
                    None => break,
                };
            }
            let sent = self.lane(view.id).sent;
            if let Some(lane) = self.spool().shared.state().lane(view.id) {
                lane.sent_seq = sent;
            }
        }
    }

    /// What holds after every step.
    pub(super) fn check(&mut self) {
        let durable = self.durable();
        let Some(life) = &self.life else { return };
        let state = life.spool.shared.state();
        let mut rows = Vec::new();
        for lane in state.lanes.iter().filter(|lane| !lane.closed) {
            let known = &self.lanes[&lane.id];
            assert!(lane.rows.windows(2).all(|pair| pair[0].to < pair[1].from), "{:?}", lane.rows);
            let mut last = 0;
            for segment in &lane.segments {
                assert!(segment.first_seq > last && segment.last_seq + 1 >= segment.first_seq, "{segment:?}");
                last = segment.last_seq;
            }
            assert!(last < lane.next_seq && lane.durable_next <= lane.next_seq, "{lane:?}");
            assert_eq!(lane.next_seq, known.next_seq, "{}", lane.id);
            for seq in lane.acked_seq.max(known.acked) + 1..lane.durable_next {
                let there = durable.contains_key(&(lane.id, seq));
                let excused = lane.row(seq).is_some() || known.excused.contains(&seq);
                assert!(there || excused || life.ended, "{seq} of {} is called durable", lane.id);
            }
            rows.extend(lane.rows.iter().cloned());
        }
        drop(state);
        let usage = life.spool.usage();
        assert!(usage.disk_bytes <= MAX_BYTES, "{usage:?}");
        self.check_aside();
        for row in rows {
            self.check_row(&row);
        }
    }
}
