//! What passes between a session and the commit: an order, and what became of it.

use crate::batch::Digest;
use crate::collector::lane::{LaneId, Mark};
use crate::proto::{self, Codec};
use bytes::Bytes;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// A batch that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its number.
    pub seq: u64,
    /// Digest of the batch before it; `None` for the first.
    pub previous: Option<Digest>,
    /// How the payload is packed; `None` when it says something that we do not know.
    pub codec: Option<Codec>,
    /// Bytes of the payload once expanded.
    pub plain_size: u32,
    /// The payload; empty when it is over the limit.
    pub payload: Bytes,
    /// It is over the limits that we announced.
    pub too_large: bool,
}

/// A skip that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The numbers.
    pub numbers: RangeInclusive<u64>,
    /// Why.
    pub reason: proto::skip::Reason,
    /// Records of each number; empty if unknown.
    pub records_per_seq: Vec<u32>,
    /// Records of all of them by exporter, added up; 0 if unknown.
    pub records: u64,
    /// The same, each; those whose address is none are left out.
    pub counts_per_exporter: Vec<(IpAddr, u64)>,
    /// Digest of the last batch skipped, where known.
    pub digest: Option<Digest>,
}

/// What the commit is asked to do with a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Say where the lane stands; adopt it when it is not known.
    Open {
        /// The mark of an unknown lane.
        acked_seq: u64,
        /// The number that its next batch will get.
        next_seq: u64,
        /// It still grows.
        current: bool,
    },
    /// Commit a batch.
    Batch(Batch),
    /// Move over numbers.
    Skip(Skip),
    /// Note that the client forgets the lane.
    Close,
}

/// Work for the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// On one lane; answered by one [`Outcome`].
    Lane {
        /// The client's number for it.
        lane: u32,
        /// Its name.
        id: LaneId,
        /// What to do.
        task: Task,
    },
    /// Numbers that writers have reached; not answered.
    Heard(Vec<(LaneId, u64)>),
}

impl Order {
    /// Bytes that came with the order, about.
    pub fn bytes(&self) -> usize {
        match self {
            Order::Lane { task: Task::Batch(batch), .. } => batch.payload.len(),
            Order::Lane { task: Task::Skip(skip), .. } => {
                size_of_val(skip.records_per_seq.as_slice())
                    + size_of_val(skip.counts_per_exporter.as_slice())
            }
            Order::Heard(lanes) => lanes.len() * size_of::<(LaneId, u64)>(),
            Order::Lane { .. } => 0,
        }
    }
}

/// What became of an order; all of it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The client's number for the lane.
    pub lane: u32,
    /// What happened.
    pub result: Answer,
}

/// See [`Outcome`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The lane is open.
    Opened {
        /// There was a mark.
        known: bool,
        /// Where it stands.
        mark: Mark,
    },
    /// A batch or skip was taken, or was there already (`moved` is false).
    Marked {
        /// Where the lane stands.
        mark: Mark,
        /// The order moved the mark.
        moved: bool,
    },
    /// A batch or skip above the next number was dropped.
    Gap {
        /// The lane's mark.
        committed_seq: u64,
    },
    /// A batch was refused for good.
    Rejected(Rejection),
    /// The lane could not be opened: a limit of the store.
    Refused {
        /// In words.
        text: String,
    },
    /// The lane is closed.
    Closed,
}

/// Why a batch was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its number.
    pub seq: u64,
    /// The kind of reason.
    pub reason: proto::reject::Reason,
    /// In words.
    pub text: String,
}
