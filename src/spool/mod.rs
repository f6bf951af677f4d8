//! The spool: every batch lies on disk until it is acknowledged.
//!
//! Shards put sealed batches into a bounded queue ([`Sender`]). One thread ([`Writer`]) numbers them, appends
//! them to segment files and makes groups of them durable. The uplink ([`Spool`]) reads them back in order and
//! says what is acked. What a collector does with a batch, and who speaks to it, is the uplink's.
//!
//! # Files
//!
//! ```text
//! <dir>/LOCK                                    held by flock as long as the spool is open
//! <dir>/seg-<lane_id, 32 hex>-<first_seq, 16 hex>.fsp       a segment: frames of one lane
//! <dir>/positions                               how far each lane is acked: see positions.rs
//! <dir>/skips                                   numbers that will never be sent: see skips.rs
//! <dir>/quarantine/                             damaged bytes and refused batches; bounded
//! <dir>/forked-<time>/                          what was set aside of a lane that had two writers: see aside.rs
//! <dir>/state/                                  the keeper's, if it was given no other place
//! <dir>/spare-<n>.old, unfinished.new           blocks to write over, a segment being made; removed at start
//! ```
//! Folders have mode 0700, files 0600; symbolic links are not followed. Integers are little-endian, CRC is
//! CRC32C, times are milliseconds since 1970.
//!
//! ```text
//! segment header, 64 B:
//!   "FLOWSEG\0" | version u16 | header bytes u16 | 0 u32 | lane_id 16 B | first_seq u64 | created u64 | 0 12 B | CRC u32
//! frame, at a multiple of 8 B, at most 4 MiB:
//!    0 magic F5 0A | kind u8 (1 records, 2 raw) | flags u8 (1: has previous_digest) | len u32 (notes + payload)
//!    8 seq u64
//!   16 records u32 | received u64
//!   28 CRC u32 | plain_size u32 | notes_len u32 | codec u8 | 0 7 B
//!   48 digest 16 B | previous_digest 16 B
//!   80 notes | payload | zeros up to a multiple of 8
//! notes, sections: tag u8 | 0 3 B | len u32 | body; unknown tags are passed over
//!   1 totals of the lane: batches u64 | records u64 | records dropped before they were numbered u64
//!   2 shares: family u8 (4, 6) | 0 | port u16 | records u32 | domain u32 | last sequence u32 | address 4 or 16 B
//!   3 records of the last datagram of each share u32
//! footer of a sealed segment, the last 64 B of the file:
//!   "FLOWEND\0" | last_seq u64 | frames u64 | records u64 | end u64 | oldest received u64 | CRC of the frames' CRCs u32
//!   | 0 8 B | CRC u32
//! ```
//! A frame's CRC covers all of it but itself, and like the footer's starts from the CRC of lane_id and the
//! segment's first_seq: bytes of an earlier use of the same blocks never pass. A segment is 32 MiB, an eighth
//! of `max_bytes` if that is less.
//!
//! # What always holds
//!
//! 1. (lane_id, seq) names the same bytes for ever. Each start makes a new lane; old lanes are never appended to.
//! 2. A frame is on disk before its number counts as durable, and so are its segment's name and header.
//! 3. A segment goes only after a durable position or a durable skip row speaks for all that was in it. Before one is
//!    dropped the positions are written: rows of a lane that they do not name are of a lane that was closed.
//! 4. A skip row goes from memory only after a durable position has passed it, from the file later.
//! 5. Memory is bounded by `queue_bytes`, `memory_bytes`, one group of commits and four segment indexes.
//! 6. Nothing that is read back from the disk is trusted beyond its checksum.
//!
//! # If something happens
//!
//! | if | then |
//! |---|---|
//! | the process is killed | what was written is there; the last segment has no footer and is read through at the next start |
//! | then power is lost | what the start after the kill has found was made durable by it, before it counted |
//! | power is lost | frames since the last commit (`commit_interval`, 1 MiB) may be missing: the lane ends at its last good frame |
//! | the last frame is cut off | its bytes are counted and left; its number was never durable. Alone in its segment, it goes to quarantine |
//! | a segment was being made | `unfinished.new` is removed |
//! | a crash comes between unlink and anything else | the position was durable before: the next start goes on |
//! | a crash comes while a lane is set aside | the next start takes it together from both folders and goes on: whole, in one folder, counted once |
//! | a frame is damaged, others follow | found by magic, CRC and order of numbers on the grid of 8 B; the bytes are copied to quarantine, the numbers become `Skip{damaged}` |
//! | a segment's header is damaged | the file goes to quarantine, its numbers become `Skip{lost}` |
//! | the medium cannot read some bytes (EIO) | a frame there counts as damaged; a segment whose header is there is left out, its numbers become `Skip{lost}` |
//! | a segment has gone | `Skip{lost}` for what was not acked of it |
//! | one slot of `positions` is damaged | the other one holds; acked batches are sent again, the collector's mark filters them |
//! | both are | lanes are found from segments; as above |
//! | a skip row is damaged | its numbers become `Skip{lost}` |
//! | a write or an fdatasync fails | that file is never synced again: it ends at its last durable frame, another is begun, what was not durable is written again |
//! | that fails too, or the disk is full | no batch is taken from the queue (the shards count what does not go in); reading goes on; tried again every second |
//! | the budget is used up | spare files go, then what was set aside (counted), then the oldest unsent segment of the oldest lane, its row durable first |
//! | another process has the folder | the start is refused |
//! | the format is newer | the start is refused, nothing is touched |

use crate::batch::{Digest, Kind};
use crate::proto::{Codec, skip::Reason};
use bytes::Bytes;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod aside;
mod budget;
mod counted;
mod cursor;
mod face;
mod fetch;
pub mod folder;
pub mod frame;
mod last_heard;
mod metrics;
mod open;
mod positions;
mod quarantine;
mod queue;
mod read;
mod recount;
mod segment;
mod skips;
mod stall;
mod state;
mod tally;
mod writer;

pub use face::Spool;
pub use last_heard::LastHeard;
pub use metrics::Metrics;
#[cfg(test)]
pub(crate) use open::open_in_segments;
pub use queue::Sender;
pub use tally::Exporter as ExporterTally;
pub use tally::{Committed, Count, Exporters};
pub use writer::Writer;

/// Names a lane: one writer's life (forward.proto, LANES).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub [u8; 16]);

impl LaneId {
    /// A new name, by the system's random numbers.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Reads 32 hexadecimal digits.
    fn from_hex(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| digits)?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What the spool is asked to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The spool's folder; made when it is not there.
    pub dir: PathBuf,
    /// The most that segments may take on disk; at least 8 MiB. From two segments (64 MiB, or a quarter of
    /// it) below, the oldest batches are dropped.
    pub max_bytes: u64,
    /// How long a batch may wait for its fdatasync.
    pub commit_interval: Duration,
    /// Payload that may wait between shards and writer.
    pub queue_bytes: usize,
    /// Payload that is kept in memory for the uplink when it is already durable.
    pub memory_bytes: usize,
    /// No segment is added that would leave less than this free on the file system; `None` means the smaller
    /// of 1 GiB and a twentieth of it.
    pub keep_free_bytes: Option<u64>,
    /// Says the time that is written into files, in milliseconds since 1970.
    pub clock: fn() -> u64,
    /// Names a new lane; never twice the same.
    pub new_lane: fn() -> LaneId,
}

impl Settings {
    /// The defaults, in this folder.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            max_bytes: 8 << 30,
            commit_interval: Duration::from_millis(10),
            queue_bytes: 32 << 20,
            memory_bytes: 16 << 20,
            keep_free_bytes: None,
            clock: now_ms,
            new_lane: LaneId::random,
        }
    }
}

/// A lane as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneView {
    /// Its name.
    pub id: LaneId,
    /// The running writer's own.
    pub current: bool,
    /// The oldest batch on disk that is not acked; `next_seq` if there is none.
    pub oldest_seq: u64,
    /// The number that the next batch gets, or would have got.
    pub next_seq: u64,
    /// Up to here everything is known to be acked.
    pub acked_seq: u64,
}

/// A numbered batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its lane.
    pub lane: LaneId,
    /// Its number in the lane.
    pub seq: u64,
    /// Records or raw datagrams.
    pub kind: Kind,
    /// How many.
    pub records: u32,
    /// As in [`crate::batch::Sealed`].
    pub codec: Codec,
    /// As in [`crate::batch::Sealed`].
    pub plain_size: u32,
    /// As in [`crate::batch::Sealed`].
    pub payload: Bytes,
    /// As in [`crate::batch::Sealed`].
    pub digest: Digest,
    /// That of the batch written before in this lane; `None` for the first.
    pub previous_digest: Option<Digest>,
    /// As in [`crate::batch::Sealed`].
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
    /// Records of each exporter address, and of [`SkipRow::OTHERS`]; empty if unknown.
    pub counts_per_exporter: Vec<(IpAddr, u64)>,
    /// Digest of the last batch skipped, where known.
    pub digest: Option<Digest>,
}

impl SkipRow {
    /// Stands for all exporters together that a row has no room for.
    pub const OTHERS: IpAddr = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);

    /// A row of which no more is known.
    fn new(lane: LaneId, from: u64, to: u64, reason: Reason) -> Self {
        let (records_per_seq, counts_per_exporter) = (Vec::new(), Vec::new());
        Self { lane, from, to, reason, records_per_seq, counts_per_exporter, digest: None }
    }

    /// All records in it, as far as they are known.
    pub fn records(&self) -> u64 {
        if self.records_per_seq.is_empty() {
            return self.counts_per_exporter.iter().map(|(_, records)| records).sum();
        }
        self.records_per_seq.iter().map(|records| u64::from(*records)).sum()
    }

    /// The part from a number on. Counts per exporter hold for the whole only, and a part has none.
    fn cut_to(&self, seq: u64) -> Self {
        if seq <= self.from {
            return self.clone();
        }
        let passed = usize::try_from(seq - self.from).unwrap_or(usize::MAX);
        let records_per_seq = self.records_per_seq.get(passed..).unwrap_or_default().to_vec();
        let counts_per_exporter = Vec::new();
        Self { from: seq, records_per_seq, counts_per_exporter, ..*self }
    }
}

/// What stands at a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The batch.
    Batch(Stored),
    /// Nothing will be sent for this number and maybe some after it. It begins with the number asked for.
    Skip(SkipRow),
    /// Not written yet.
    Pending,
}

/// What was found at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Lanes of earlier starts that are not done with.
    pub lanes: usize,
    /// Batches in them that are neither acked nor skipped.
    pub batches: u64,
    /// Records in them, where known.
    pub records: u64,
    /// Bytes of frames whose writing was cut off.
    pub torn_bytes: u64,
    /// Ranges of numbers declared lost at this start.
    pub lost_ranges: u64,
    /// Numbers in them.
    pub lost_batches: u64,
    /// Segment files that went to quarantine.
    pub quarantined_files: u64,
    /// No slot of `positions` could be read.
    pub positions_damaged: bool,
}

/// How much lies in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What its segments take on disk, with what is reserved for them.
    pub disk_bytes: u64,
    /// Payload held in memory for the uplink.
    pub memory_bytes: u64,
    /// Batches that are neither acked nor skipped.
    pub batches: u64,
    /// About when the oldest of them was received, in milliseconds since 1970; `None` if nothing waits on disk.
    pub oldest_received: Option<u64>,
}

/// Why the spool did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the spool {} is in use by another process; give each flowproxy a folder of its own", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// `max_bytes` is too small.
    #[error("a spool of {max_bytes} bytes is too small: it needs at least {least_bytes}")]
    TooSmall {
        /// What was asked for.
        max_bytes: u64,
        /// What must be.
        least_bytes: u64,
    },
    /// Written by a newer version.
    #[error(
        "{file} in the spool has format version {version}, newer than this program reads: \
             run the newer one until the spool is empty"
    )]
    Newer {
        /// The file's name.
        file: String,
        /// Its version.
        version: u16,
    },
    /// The disk.
    #[error("the spool {} cannot be opened: {source}", dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a number could not be looked up or refused. The same may be asked again.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such lane, or not any more.
    #[error("the spool has no lane {0}")]
    UnknownLane(LaneId),
    /// The number is acked, or not given yet.
    #[error("batch {seq} of lane {lane} is not one that waits for its ack")]
    NotUnacked {
        /// The lane.
        lane: LaneId,
        /// The number.
        seq: u64,
    },
    /// The disk.
    #[error("the spool's disk: {0}")]
    Io(#[from] io::Error),
}

/// Opens the spool, making its folder if need be, and begins a new lane.
///
/// # Errors
/// [`OpenError`]; damage in the folder is none.
pub fn open(settings: Settings, metrics: Metrics) -> Result<(Spool, Writer, Sender), OpenError> {
    open::open(Arc::new(crate::storage::Disk), settings, metrics)
}

/// There is no room on the disk.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The skip rows that a spool's folder holds, those among them that were passed and not yet removed. Changes nothing;
/// the spool may be open meanwhile.
///
/// # Errors
/// Those of the disk, other than that there are none.
pub fn skip_rows(dir: &std::path::Path) -> io::Result<Vec<SkipRow>> {
    let storage: Arc<dyn crate::storage::Storage> = Arc::new(crate::storage::Disk);
    Ok(skips::SkipsFile::open(&storage, dir)?.1)
}

/// The clock, for what is written into files.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
