//! One lane on one connection: where it stands at the collector and what of it is in flight.

use super::outputs::Acked;
use crate::batch::{Digest, Kind};
use crate::spool::{LaneId, LaneView};
use std::collections::VecDeque;
use std::time::Instant;

/// The most messages of one lane in flight, whatever window the collector gives.
const MAX_IN_FLIGHT: usize = 4096;

/// How far the opening of a lane has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Open is sent, Opened not here.
    Opening,
    /// Opened is here and names a batch that we have: it is believed once our bytes have that digest.
    Checking(Unproven),
    /// Batches go.
    Open,
    /// Nothing more is sent: its bytes at the collector are not ours, or the spool lost its way.
    Stopped,
}

/// A mark that is believed once our bytes of one of its batches have this digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unproven {
    pub committed_seq: u64,
    pub digest_seq: u64,
    pub digest: Digest,
}

/// A Batch or Skip that is sent and not acked. The payload stays with the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub from: u64,
    pub to: u64,
    /// `None`: a Skip.
    pub batch: Option<SentBatch>,
}

/// What is remembered of a batch in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SentBatch {
    pub payload_bytes: u64,
    pub kind: Kind,
    pub records: u32,
    pub digest: Digest,
}

/// How much is in flight. Skips do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Load {
    /// Batches.
    pub batches: u32,
    /// Their payload's bytes.
    pub bytes: u64,
}

impl Load {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            batches: self.batches.saturating_add(other.batches),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// A lane.
#[derive(Debug)]
pub(super) struct Lane {
    /// Its number on this connection.
    pub wire: u32,
    /// As the spool said when the lane was opened; `next_seq` grows.
    pub view: LaneView,
    pub stage: Stage,
    /// The mark, as far as it is believed.
    pub committed_seq: u64,
    /// What is sent next.
    pub send_seq: u64,
    /// The collector's last batch with its bytes, as Opened named it.
    pub opened_digest: Option<(u64, Digest)>,
    /// An Ack of batches that this connection has not sent.
    pub unproven: Option<Unproven>,
    /// CODE_GAP since the mark last moved.
    pub gaps: u32,
    /// When it was last sent anew from a number.
    pub rewound_at: Option<Instant>,
    /// The mark in a CODE_GAP that came so soon after that, that it may speak of what was sent before.
    pub gap_again: Option<u64>,
    in_flight: VecDeque<Sent>,
    load: Load,
}

impl Lane {
    pub fn new(wire: u32, view: LaneView) -> Self {
        Self {
            wire,
            view,
            stage: Stage::Opening,
            committed_seq: view.acked_seq,
            send_seq: view.acked_seq.saturating_add(1),
            opened_digest: None,
            unproven: None,
            gaps: 0,
            rewound_at: None,
            gap_again: None,
            in_flight: VecDeque::new(),
            load: Load::default(),
        }
    }

    pub fn id(&self) -> LaneId {
        self.view.id
    }

    /// The last number that was ever given in it; 0 if none.
    pub fn last_seq(&self) -> u64 {
        self.view.next_seq.saturating_sub(1)
    }

    pub fn has_unsent(&self) -> bool {
        self.stage == Stage::Open
            && self.send_seq < self.view.next_seq
            && self.in_flight.len() < MAX_IN_FLIGHT
    }

    /// The mark that is not believed yet.
    pub fn to_prove(&self) -> Option<Unproven> {
        match self.stage {
            Stage::Checking(mark) => Some(mark),
            Stage::Open => self.unproven,
            Stage::Opening | Stage::Stopped => None,
        }
    }

    /// Whether there is nothing left to wait for.
    pub fn is_done(&self) -> bool {
        match self.stage {
            Stage::Open => self.committed_seq >= self.last_seq(),
            Stage::Stopped => true,
            Stage::Opening | Stage::Checking(_) => false,
        }
    }

    pub fn load(&self) -> Load {
        self.load
    }

    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The batch of that number, if it is in flight.
    pub fn in_flight(&self, seq: u64) -> Option<SentBatch> {
        let place = self.in_flight.binary_search_by_key(&seq, |sent| sent.from).ok()?;
        self.in_flight.get(place)?.batch
    }

    pub fn sent(&mut self, sent: Sent) {
        self.send_seq = sent.to.saturating_add(1);
        if let Some(batch) = sent.batch {
            self.load.batches = self.load.batches.saturating_add(1);
            self.load.bytes = self.load.bytes.saturating_add(batch.payload_bytes);
        }
        self.in_flight.push_back(sent);
    }

    /// The mark has come to `seq`: what that says. Numbers that were acked before, to a collector whose mark
    /// has gone back since, are not counted again.
    pub fn acked(&mut self, seq: u64) -> Acked {
        let counted = self.view.acked_seq;
        let unseen = self.send_seq.max(counted.saturating_add(1))..=seq;
        let mut acked = Acked { lane: self.view.id, seq, batches: 0, records: 0, raw: 0, unseen };
        while let Some(sent) = self.in_flight.pop_front_if(|sent| sent.to <= seq) {
            self.subtract(sent);
            let Some(batch) = sent.batch.filter(|_| sent.from > counted) else { continue };
            acked.batches += 1;
            match batch.kind {
                Kind::Records => acked.records += u64::from(batch.records),
                Kind::Raw => acked.raw += u64::from(batch.records),
            }
        }
        self.committed_seq = seq;
        self.send_seq = self.send_seq.max(seq.saturating_add(1));
        self.gaps = 0;
        self.gap_again = None;
        self.unproven = self.unproven.filter(|unproven| unproven.committed_seq > seq);
        acked
    }

    /// Back to `seq`: it and all after it are sent again.
    pub fn rewind(&mut self, seq: u64) {
        while let Some(sent) = self.in_flight.pop_back_if(|sent| sent.to >= seq) {
            self.subtract(sent);
        }
        self.send_seq = seq;
    }

    fn subtract(&mut self, sent: Sent) {
        if let Some(batch) = sent.batch {
            self.load.batches = self.load.batches.saturating_sub(1);
            self.load.bytes = self.load.bytes.saturating_sub(batch.payload_bytes);
        }
    }
}
