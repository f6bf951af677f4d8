//! What the collector says, and what a session makes of it.

use super::lane::{Stage, Unproven};
use super::outputs::{End, Note, Output, Rejection};
use super::{Load, MAX_GAPS, MAX_REJECTS, MAX_WINDOW, Phase, Session, VERSION};
use crate::batch::Digest;
use crate::proto::{self, Ack, Opened, Reject, Welcome, error::Code, reject};
use crate::spool::Fetched;
use std::time::{Duration, Instant};

/// Errors of one gap may still be on their way for this long after the lane went back.
const GAP_ECHO: Duration = Duration::from_secs(1);

impl Session {
    pub(super) fn welcomed(&mut self, welcome: Welcome) {
        if welcome.version != VERSION {
            return self.violated("it chose a protocol version that we did not offer");
        }
        self.set_window(welcome.window);
        self.limits = welcome.limits.unwrap_or_default();
        self.phase = Phase::Judging;
        self.outputs.push_back(Output::Store(welcome.mark_store_id));
    }

    /// forward.proto, `Window`: the last one heard holds.
    fn set_window(&mut self, window: Option<proto::Window>) {
        if let Some(window) = window {
            self.window = Load {
                batches: window.batches.min(MAX_WINDOW.batches),
                bytes: window.bytes.min(MAX_WINDOW.bytes),
            };
        }
    }

    /// The lane that a message speaks of; of one that is closed by now there is nothing to say any more.
    fn place(&mut self, wire: u32) -> Option<usize> {
        if wire == 0 || wire >= self.next_wire {
            self.violated("it speaks of a lane that was never opened");
            return None;
        }
        self.lanes.iter().position(|lane| lane.wire == wire)
    }

    pub(super) fn opened(&mut self, opened: Opened) {
        self.set_window(opened.window);
        let Some(place) = self.place(opened.lane) else { return };
        let Some(lane) = self.lanes.get_mut(place) else { return };
        if lane.stage != Stage::Opening {
            return self.violated("a second Opened for one lane");
        }
        let digest = Digest::try_from(opened.digest.as_ref()).ok();
        lane.opened_digest = digest.map(|digest| (opened.digest_seq, digest));
        if !opened.known && lane.view.acked_seq > 0 {
            let note = Note::Adopted { lane: lane.id(), acked_seq: lane.view.acked_seq };
            self.outputs.push_back(Output::Note(note));
        }
        match lane.opened_digest {
            // Before it is believed: what it says to have must be what we have.
            Some((digest_seq, digest))
                if (lane.view.oldest_seq..lane.view.next_seq).contains(&digest_seq) =>
            {
                let committed_seq = opened.committed_seq;
                lane.stage = Stage::Checking(Unproven { committed_seq, digest_seq, digest });
            }
            _ => self.believe_opened(place, opened.committed_seq),
        }
    }

    pub(super) fn believe_opened(&mut self, place: usize, committed_seq: u64) {
        let Some(lane) = self.lanes.get_mut(place) else { return };
        lane.stage = Stage::Open;
        let (id, acked_seq) = (lane.id(), lane.view.acked_seq);
        if committed_seq >= acked_seq {
            self.believe(place, committed_seq);
            // After it: from here on a full spool may drop what is not acked.
            self.outputs.push_back(Output::Opened(id));
            return;
        }
        self.outputs.push_back(Output::Opened(id));
        let Some(lane) = self.lanes.get_mut(place) else { return };
        lane.committed_seq = committed_seq;
        lane.send_seq = committed_seq.saturating_add(1);
        self.note(Note::MarkWentBack { lane: id, committed_seq, acked_seq });
    }

    pub(super) fn acked(&mut self, ack: Ack) {
        self.set_window(ack.window);
        let Some(place) = self.place(ack.lane) else { return };
        let Some(lane) = self.lanes.get(place) else { return };
        match lane.stage {
            Stage::Opening => return self.violated("an Ack before Opened"),
            // It comes again: nothing was sent on this connection yet.
            Stage::Checking(_) | Stage::Stopped => return,
            Stage::Open => {}
        }
        if ack.committed_seq <= lane.committed_seq {
            return;
        }
        let ours = lane.in_flight(ack.digest_seq).map(|batch| batch.digest);
        let theirs = Digest::try_from(ack.digest.as_ref()).ok();
        if let (Some(ours), Some(theirs)) = (ours, theirs)
            && ours != theirs
        {
            return self.fork(place, ack.digest_seq);
        }
        let Some(lane) = self.lanes.get_mut(place) else { return };
        // Sent by a connection before this one, or by another writer.
        if let Some(digest) = theirs
            && (lane.send_seq..lane.view.next_seq).contains(&ack.digest_seq)
        {
            let (committed_seq, digest_seq) = (ack.committed_seq, ack.digest_seq);
            lane.unproven = Some(Unproven { committed_seq, digest_seq, digest });
            return;
        }
        self.believe(place, ack.committed_seq);
    }

    /// The spool has been asked for the batch whose digest a mark came with.
    pub(super) fn looked_up(&mut self, place: usize, mark: Unproven, fetched: Fetched) {
        let Some(lane) = self.lanes.get_mut(place) else { return };
        lane.unproven = None;
        match fetched {
            Fetched::Batch(stored) if stored.digest != mark.digest => self.fork(place, mark.digest_seq),
            // One that is gone tells nothing.
            _ if matches!(lane.stage, Stage::Checking(_)) => self.believe_opened(place, mark.committed_seq),
            _ => self.believe(place, mark.committed_seq),
        }
    }

    pub(super) fn rejected(&mut self, reject: Reject, now: Instant) {
        let Some(place) = self.place(reject.lane) else { return };
        let Some(lane) = self.lanes.get(place) else { return };
        // One that we have answered already, or that speaks of something never sent.
        if lane.stage != Stage::Open || lane.in_flight(reject.seq).is_none() {
            return;
        }
        match reject.reason() {
            reject::Reason::Forked => self.fork(place, reject.seq),
            reason => self.set_aside(place, reject.seq, reason, reject.text, now),
        }
    }

    /// The batch will never be taken: it gets a skip row and the lane goes on from there.
    pub(super) fn set_aside(
        &mut self,
        place: usize,
        seq: u64,
        reason: reject::Reason,
        text: String,
        now: Instant,
    ) {
        let Some(lane) = self.lanes.get_mut(place) else { return };
        let rejection = Rejection { lane: lane.id(), seq, reason, text };
        let wire = lane.wire;
        lane.rewind(seq);
        lane.rewound_at = Some(now);
        self.drop_held(wire);
        self.facts.rejects_in_a_row = self.facts.rejects_in_a_row.saturating_add(1);
        if self.facts.rejects_in_a_row >= MAX_REJECTS {
            return self.end(End::Rejected(rejection));
        }
        self.outputs.push_back(Output::Rejected(rejection));
    }

    pub(super) fn errored(&mut self, error: proto::Error, now: Instant) {
        if error.code() == Code::Twin {
            // Once is enough; a collector may say it as often as it likes.
            if !std::mem::replace(&mut self.twin_told, true) {
                self.note(Note::Twin);
            }
            return;
        }
        if error.code() != Code::Gap {
            let code = error.code().as_str_name();
            return self.end(End::Refused(format!("{} ({code})", error.text)));
        }
        let Some(place) = self.place(error.lane) else { return };
        let Some(lane) = self.lanes.get_mut(place) else { return };
        let is_ahead = error.committed_seq >= lane.send_seq;
        if lane.stage != Stage::Open || error.committed_seq < lane.committed_seq || is_ahead {
            return;
        }
        if lane.rewound_at.is_some_and(|at| now.saturating_duration_since(at) < GAP_ECHO) {
            lane.gap_again = Some(error.committed_seq);
        } else {
            self.go_back(place, error.committed_seq, now);
        }
    }

    /// Lanes that have seen a gap again and made no progress since go back once more.
    pub(super) fn go_back_again(&mut self, now: Instant) {
        for place in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get(place) else { return };
            let due = lane.rewound_at.is_none_or(|at| now.saturating_duration_since(at) >= GAP_ECHO);
            if let Some(committed_seq) = lane.gap_again
                && due
            {
                self.go_back(place, committed_seq, now);
            }
        }
    }

    /// The lane is sent anew from what the collector said to have. Only an Ack makes that durable.
    fn go_back(&mut self, place: usize, committed_seq: u64, now: Instant) {
        let Some(lane) = self.lanes.get_mut(place) else { return };
        lane.gaps += 1;
        if lane.gaps > MAX_GAPS {
            return self.violated("CODE_GAP again and again for numbers that were sent");
        }
        let wire = lane.wire;
        lane.gap_again = None;
        lane.rewound_at = Some(now);
        lane.rewind(committed_seq.saturating_add(1));
        self.drop_held(wire);
    }
}
