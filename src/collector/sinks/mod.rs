//! Where a collector writes. One file a sink; what they share is here.
//!
//! | sink | takes | after a crash |
//! |---|---|---|
//! | [`jsonl`] | records | each record once: its text is part of the commit |
//! | [`udp`] | raw datagrams | the last group may be sent twice |
//! | [`Null`] | both | counts only |
//! | any other [`Sink`] | what it says | the last group may come twice |
//!
//! Several may be set at once; each gets everything that it takes. A batch that none takes is committed and
//! counted all the same.

pub mod jsonl;
pub mod udp;

use super::lane::LaneId;
use super::marks::Redo;
use crate::batch::{Kind, read};
use crate::proto::Codec;
use crate::tls::Identity;
use bytes::Bytes;

/// A batch that is about to be committed.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The proxy that sent it.
    pub identity: Identity,
    /// Its lane.
    pub lane: LaneId,
    /// Its number in the lane.
    pub seq: u64,
    /// How many records, or for raw batches datagrams.
    pub records: u64,
    /// What it holds.
    pub batch: read::Batch,
    /// How `payload` is packed.
    pub codec: Codec,
    /// Bytes of the payload once expanded.
    pub plain_size: u32,
    /// As it came.
    pub payload: Bytes,
}

/// Why a sink does not work at present.
#[derive(Debug, thiserror::Error)]
#[error("sink {sink}: {text}")]
pub struct SinkError {
    /// Which sink.
    pub sink: &'static str,
    /// In words.
    pub text: String,
}

/// A place where batches go. Called from the commit's thread; it may block, and holds up everything then.
pub trait Sink: Send {
    /// What it is called in the log.
    fn name(&self) -> &'static str;

    /// Whether batches of this kind mean anything to it.
    fn takes(&self, kind: Kind) -> bool;

    /// Takes a group of batches, of all kinds, before their marks are durable: after a crash the last group
    /// comes again. Gives the bytes written.
    ///
    /// # Errors
    /// When it can not take them now. It is called again with the same group until it can.
    fn write(&mut self, group: &[Taken]) -> Result<u64, SinkError>;
}

/// Takes everything and keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Null;

impl Sink for Null {
    fn name(&self) -> &'static str {
        "null"
    }

    fn takes(&self, _: Kind) -> bool {
        true
    }

    fn write(&mut self, _: &[Taken]) -> Result<u64, SinkError> {
        Ok(0)
    }
}

/// Appends the records of a committed payload as JSON lines.
///
/// # Errors
/// When the payload can not be read; it could be read when it was committed, by the software of then.
pub(super) fn render_payload(part: &Redo, text: &mut Vec<u8>) -> Result<(), read::Error> {
    let codec = Codec::try_from(part.codec).unwrap_or(Codec::Plain);
    let batch = read::open(codec, part.plain_size, &part.payload)?;
    crate::flow::record::write_lines(text, &batch);
    Ok(())
}
