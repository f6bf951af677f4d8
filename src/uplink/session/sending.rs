//! What goes next, and whether the window has room for it.

use super::Session;
use super::lane::{Lane, Load, Sent, SentBatch, Stage};
use super::messages;
use crate::proto::reject;
use crate::spool::{SkipRow, Stored};
use std::time::Instant;

impl Session {
    /// The fresh lane and the old ones in turn, by bytes.
    pub(super) fn next_lane(&self) -> Option<&Lane> {
        let (fresh, old) = self.with_unsent();
        match (fresh, old.filter(|_| self.has_room_for_old())) {
            (Some(fresh), Some(old)) => Some(if self.lead > 0 { old } else { fresh }),
            (fresh, old) => fresh.or(old),
        }
    }

    fn with_unsent(&self) -> (Option<&Lane>, Option<&Lane>) {
        let find =
            |current: bool| self.lanes.iter().find(|lane| lane.view.current == current && lane.has_unsent());
        (find(true), find(false))
    }

    /// forward.proto, `Window`: with nothing in flight one batch may always go, whatever its size.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let load = self.in_flight();
        self.window.batches > 0
            && (load.batches == 0
                || load.batches < self.window.batches
                    && load.bytes.saturating_add(bytes) <= self.window.bytes)
    }

    /// Old lanes take half of the window at most while fresh batches may come: those find room at once then,
    /// however slowly the link takes what is in flight.
    fn has_room_for_old(&self) -> bool {
        let fresh_may_come =
            !self.finishing && self.lanes.iter().any(|lane| lane.view.current && lane.stage == Stage::Open);
        let old = self.lanes.iter().filter(|lane| !lane.view.current).map(Lane::load);
        let load = old.fold(Load::default(), Load::plus);
        let half = Load { batches: (self.window.batches / 2).max(1), bytes: (self.window.bytes / 2).max(1) };
        !fresh_may_come || load.batches < half.batches && load.bytes < half.bytes
    }

    /// Whether the collector would refuse the batch for its size; a limit of 0 is none.
    fn is_too_large(&self, stored: &Stored) -> bool {
        let over = |limit: u32, bytes: usize| limit > 0 && bytes > limit as usize;
        over(self.limits.payload_bytes, stored.payload.len())
            || over(self.limits.plain_bytes, stored.plain_size as usize)
    }

    /// Sends the batch, or holds it until the window has room.
    pub(super) fn offer(&mut self, place: usize, stored: Stored, now: Instant) {
        let bytes = stored.payload.len() as u64;
        let both = matches!(self.with_unsent(), (Some(_), Some(_))) && self.has_room_for_old();
        let Some(lane) = self.lanes.get_mut(place) else { return };
        if let Some((seq, digest)) = lane.opened_digest
            && seq.checked_add(1) == Some(stored.seq)
            && stored.previous_digest.is_some_and(|previous| previous != digest)
        {
            return self.fork(place, seq);
        }
        let wire = lane.wire;
        if self.is_too_large(&stored) {
            let text = "it is larger than the collector said that it takes".to_owned();
            return self.set_aside(place, stored.seq, reject::Reason::TooLarge, text, now);
        }
        if !self.has_room(bytes) {
            self.held = Some((wire, stored));
            return;
        }
        let signed = i64::try_from(bytes).unwrap_or(i64::MAX);
        let Some(lane) = self.lanes.get_mut(place) else { return };
        self.lead = match (both, lane.view.current) {
            (false, _) => 0,
            (true, true) => self.lead.saturating_add(signed),
            (true, false) => self.lead.saturating_sub(signed),
        };
        let batch = SentBatch {
            payload_bytes: bytes,
            kind: stored.kind,
            records: stored.records,
            digest: stored.digest,
        };
        lane.sent(Sent { from: stored.seq, to: stored.seq, batch: Some(batch) });
        self.send(messages::batch(wire, stored));
    }

    pub(super) fn skip(&mut self, place: usize, row: SkipRow) {
        let Some(lane) = self.lanes.get_mut(place) else { return };
        let from = row.from.min(lane.send_seq);
        let to = row.to.max(lane.send_seq);
        lane.sent(Sent { from, to, batch: None });
        let wire = lane.wire;
        self.send(messages::skip(wire, row));
    }
}
