//! The spool: every batch lies on disk until it is acknowledged.

use crate::batch::{Digest, Kind, Sealed};
use crate::proto::{Codec, skip::Reason};
use bytes::Bytes;
use std::path::PathBuf;
use std::time::Duration;

/// Names a lane: one writer's life (forward.proto, LANES).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub [u8; 16]);

/// What the spool is asked to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The spool's folder; made when it is not there.
    pub dir: PathBuf,
    /// The most that segments may take on disk.
    pub max_bytes: u64,
    /// How long a batch may wait for its fdatasync.
    pub commit_interval: Duration,
}

/// A lane as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneView {
    /// Its name.
    pub id: LaneId,
    /// The running writer's own.
    pub current: bool,
    /// The oldest batch on disk; `next_seq` if there is none.
    pub oldest_seq: u64,
    /// The number that the next batch gets, or would have got.
    pub next_seq: u64,
    /// Up to here everything is known to be acked.
    pub acked_seq: u64,
}

/// A numbered batch.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its lane.
    pub lane: LaneId,
    /// Its number in the lane.
    pub seq: u64,
    /// Records or raw datagrams.
    pub kind: Kind,
    /// How many.
    pub records: u32,
    /// As in [`Sealed`].
    pub codec: Codec,
    /// As in [`Sealed`].
    pub plain_size: u32,
    /// As in [`Sealed`].
    pub payload: Bytes,
    /// As in [`Sealed`].
    pub digest: Digest,
    /// That of the batch written before in this lane; `None` for the first.
    pub previous_digest: Option<Digest>,
    /// As in [`Sealed`].
    pub received: u64,
}

/// Numbers that will never be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkipRow {
    /// Their lane.
    pub lane: LaneId,
    /// First number, inclusive.
    pub from: u64,
    /// Last number, inclusive.
    pub to: u64,
    /// Why.
    pub reason: Reason,
    /// Records of each number; empty if unknown.
    pub records_per_seq: Vec<u32>,
    /// Records of each exporter address; empty if unknown.
    pub counts_per_exporter: Vec<(std::net::IpAddr, u64)>,
    /// Digest of the last batch skipped, where known.
    pub digest: Option<Digest>,
}

/// What stands at a number.
#[derive(Clone, Debug)]
pub enum Fetched {
    /// The batch.
    Batch(Stored),
    /// Nothing will be sent for this number and maybe some after it.
    Skip(SkipRow),
    /// Not written yet.
    Pending,
}

/// The shared face of the spool: what the uplink reads and reports. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spool {}

/// The one thread that writes.
#[derive(Debug)]
pub struct Writer {}

/// Where shards put finished batches; bounded in bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sender {}

impl Sender {
    /// Takes the batch, or gives it back when the queue is full or the writer has ended.
    pub fn try_send(&self, batch: Sealed) -> Result<(), Sealed> {
        let _ = batch;
        todo!()
    }
}
