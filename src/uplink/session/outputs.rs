//! What a session is told at its start, and what it tells its driver.

use crate::proto::{ClientMessage, reject};
use crate::spool::LaneId;
use std::ops::RangeInclusive;

/// What the process brings to each of its connections.
#[derive(Clone, Debug)]
pub struct Facts {
    /// 16 random bytes, made at the start of the process.
    pub instance: [u8; 16],
    /// Name and version of the software.
    pub software: String,
    /// The mark store last delivered to; empty at first.
    pub mark_store_id: bytes::Bytes,
    /// Rejects since a batch was last committed.
    pub rejects_in_a_row: u32,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this.
    Send(ClientMessage),
    /// The collector keeps its marks in this store: `Session::store_taken` if that is right. Nothing is
    /// sent before.
    Store(bytes::Bytes),
    /// The collector has opened this lane, nothing of it was sent on this connection yet.
    Opened(LaneId),
    /// Everything up to a number is committed.
    Acked(Acked),
    /// Two writers have used this lane, or its end is lost: move what is not acked of it out of the way.
    SetAside(LaneId),
    /// Set this batch aside and write its skip row, both durable.
    Rejected(Rejection),
    /// The lane is acked to its end and closed at the collector.
    Closed(LaneId),
    /// For the log and the state shown.
    Note(Note),
    /// It is over: end the stream.
    End(End),
}

/// What an ack says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The lane.
    pub lane: LaneId,
    /// Its mark.
    pub seq: u64,
    /// Batches that this took out of flight.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Raw datagrams in them.
    pub raw: u64,
    /// Numbers that are committed too and were sent by a connection before this one; empty mostly.
    pub unseen: RangeInclusive<u64>,
}

/// A batch that the collector will never take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The lane.
    pub lane: LaneId,
    /// The batch.
    pub seq: u64,
    /// Why.
    pub reason: reject::Reason,
    /// Why, in the collector's words.
    pub text: String,
}

/// Something that an operator should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The collector has no mark of this lane and begins where we say; it is another collector's lane, or
    /// the collector lost its store.
    Adopted {
        /// The lane.
        lane: LaneId,
        /// Where it begins.
        acked_seq: u64,
    },
    /// The collector's mark is lower than what it acked before: its store is older than what it had taken.
    MarkWentBack {
        /// The lane.
        lane: LaneId,
        /// The mark now.
        committed_seq: u64,
        /// What was acked before.
        acked_seq: u64,
    },
    /// The collector has other bytes under our number: two writers have used one lane.
    Forked {
        /// The lane.
        lane: LaneId,
        /// The number.
        seq: u64,
    },
    /// The collector's mark is past the last batch that we ever numbered in this lane.
    PastEnd {
        /// The lane.
        lane: LaneId,
        /// The mark.
        committed_seq: u64,
        /// Our last batch.
        last_seq: u64,
    },
    /// Another live process writes under our identity.
    Twin,
    /// The spool has nothing at a number that an old lane must have.
    Unreadable {
        /// The lane.
        lane: LaneId,
        /// The number.
        seq: u64,
    },
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// We were asked to finish and everything is acked.
    #[error("all is delivered")]
    Finished,
    /// The collector is about to stop.
    #[error("the collector is about to stop")]
    Drained,
    /// Nothing came while something was awaited.
    #[error("the collector said nothing for {} s while {awaited}", super::WATCHDOG.as_secs())]
    Silent {
        /// What was awaited.
        awaited: &'static str,
    },
    /// The collector ended the session and said why.
    #[error("the collector ended the stream: {0}")]
    Refused(String),
    /// The collector broke a rule of forward.proto.
    #[error("the collector broke the protocol: {0}")]
    Violation(&'static str),
    /// The collector refuses one batch after the other.
    #[error("the collector refused {MAX} batches in a row, the last one: {}", .0.text, MAX = super::MAX_REJECTS)]
    Rejected(Rejection),
}
