//! What is committed together, and how a batch gets into it.

use super::Commit;
use crate::batch::{self, Digest, Kind};
use crate::collector::lane::Row;
use crate::collector::ledger::{Given, Tally};
use crate::collector::marks::{BatchKey, LaneKey, Redo};
use crate::collector::session::{self, Outcome, Rejection, Skip};
use crate::collector::sinks::Taken;
use crate::collector::trial::Verdict;
use crate::lines::limited;
use crate::proto::Codec;
use crate::proto::reject::Reason;
use crate::tls::Identity;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

/// A group takes no more batches once it has this much of one of these.
const MAX_PAYLOAD_BYTES: usize = 8 << 20;
const MAX_TEXT_BYTES: usize = 16 << 20;
const MAX_BATCHES: u64 = 256;
const MAX_ANSWERS: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// It needs a transaction.
    pub(super) must: bool,
    /// Batches that sinks other than the file take.
    pub(super) taken: Vec<Taken>,
    /// The file's part.
    pub(super) text: Vec<u8>,
    /// What `text` is rendered from.
    pub(super) redo: Vec<Redo>,
    /// Lanes whose marks moved.
    pub(super) moved: BTreeMap<LaneKey, Row>,
    pub(super) tallies: BTreeMap<Identity, Tally>,
    pub(super) survived: Vec<BatchKey>,
    pub(super) replies: Vec<(UnboundedSender<Outcome>, Outcome)>,
    pub(super) permits: Vec<OwnedSemaphorePermit>,
    payload_bytes: usize,
    batches: u64,
}

impl Group {
    pub(super) fn is_full(&self) -> bool {
        self.payload_bytes >= MAX_PAYLOAD_BYTES
            || self.text.len() >= MAX_TEXT_BYTES
            || self.batches >= MAX_BATCHES
            || self.replies.len() >= MAX_ANSWERS
    }

    fn count(&mut self, identity: &Identity, read: &batch::read::Batch, payload_bytes: usize) {
        let records = read.records();
        self.payload_bytes += payload_bytes;
        self.batches += 1;
        let tally = self.tallies.entry(identity.clone()).or_default();
        for (address, records) in read.counts() {
            *tally.exporters.entry(address).or_default() += records;
        }
        match read.kind() {
            Kind::Records => {
                tally.record_batches += 1;
                tally.records += records;
            }
            Kind::Raw => {
                tally.raw_batches += 1;
                tally.datagrams += records;
            }
        }
    }
}

impl Group {
    /// Counts what a proxy has given up: the part of a skip that is taken, which may be all of it.
    pub(super) fn skipped(
        &mut self,
        identity: &Identity,
        reason: &'static str,
        given: Given,
        skip: &Skip,
        is_whole: bool,
    ) {
        let tally = self.tallies.entry(identity.clone()).or_default();
        tally.skipped.entry(reason).or_default().add(&given);
        // Of a part it is not known whose they are, and what was acked before is not lost.
        let is_lost = skip.reason != crate::proto::skip::Reason::AlreadyAcked;
        for (address, records) in skip.counts_per_exporter.iter().filter(|_| is_whole && is_lost) {
            let sum = tally.exporters_skipped.entry(*address).or_default();
            *sum = sum.saturating_add(*records);
        }
    }
}

impl Commit {
    /// Reads the batch into the group.
    pub(super) fn decode(
        &mut self,
        (identity, lane): &LaneKey,
        batch: session::Batch,
        digest: Digest,
        group: &mut Group,
    ) -> Result<(), Rejection> {
        let seq = batch.seq;
        if batch.too_large {
            return Err(reject(seq, Reason::TooLarge, "it is larger than the limits in Welcome"));
        }
        let Some(codec) = batch.codec else {
            return Err(reject(seq, Reason::Malformed, "its codec is not known"));
        };
        let key = BatchKey { identity: identity.to_string(), lane: *lane, seq, digest };
        if self.parts.deaths.is_deadly(&key) {
            return Err(reject(
                seq,
                Reason::Poison,
                "the collector died again and again while it decoded this batch",
            ));
        }
        if let Err(error) = self.parts.deaths.begin(&key) {
            tracing::warn!(%error, "The batch being decoded could not be noted");
        }
        if self.parts.deaths.is_suspect(&key) {
            let verdict = (self.parts.trial)(codec, batch.plain_size, &batch.payload);
            let (identity, lane) = (&key.identity, &key.lane);
            limited!(warn, %identity, %lane, seq, ?verdict, "A batch that is blamed for deaths was tried apart");
            if verdict != Verdict::Lives {
                return Err(reject(
                    seq,
                    Reason::Poison,
                    "the collector died three times while it decoded this batch",
                ));
            }
        }
        let read = read_and_render(codec, &batch, self.parts.file.is_some(), &mut group.text)?;
        let (kind, records) = (read.kind(), read.records());
        let wanted = self.parts.sinks.iter().any(|sink| sink.takes(kind));
        let written = self.parts.file.is_some() && kind == Kind::Records;
        if !wanted && !written {
            self.note_unwanted(kind);
        }
        group.count(identity, &read, batch.payload.len());
        if written {
            let payload = batch.payload.clone();
            group.redo.push(Redo { codec: codec.into(), plain_size: batch.plain_size, payload });
        }
        if wanted {
            let (identity, lane, plain_size, payload) =
                (identity.clone(), *lane, batch.plain_size, batch.payload);
            group.taken.push(Taken { identity, lane, seq, records, batch: read, codec, plain_size, payload });
        }
        Ok(())
    }
}

/// Opens the batch and, for the file, appends its records to `text`, which stays as it was when that fails.
fn read_and_render(
    codec: Codec,
    batch: &session::Batch,
    has_file: bool,
    text: &mut Vec<u8>,
) -> Result<batch::read::Batch, Rejection> {
    let text_before = text.len();
    let read = std::panic::catch_unwind(AssertUnwindSafe(|| {
        open_and_render(codec, batch.plain_size, &batch.payload, has_file, text)
    }));
    match read {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(error)) => {
            let reason = if error.is_too_large() { Reason::TooLarge } else { Reason::Malformed };
            Err(reject(batch.seq, reason, &error.to_string()))
        }
        Err(_) => {
            text.truncate(text_before);
            Err(reject(batch.seq, Reason::Malformed, "the collector could not decode it (a panic, caught)"))
        }
    }
}

/// Opens a batch and, if that is wanted, appends its records to `text`.
///
/// # Errors
/// When it is no batch.
pub fn open_and_render(
    codec: Codec,
    plain_size: u32,
    payload: &Bytes,
    is_wanted: bool,
    text: &mut Vec<u8>,
) -> Result<batch::read::Batch, batch::read::Error> {
    #[cfg(feature = "crash-points")]
    crate::crash::decoding(&batch::digest(codec, plain_size, payload));
    let read = batch::read::open(codec, plain_size, payload)?;
    if is_wanted && read.kind() == Kind::Records {
        crate::flow::record::write_lines(text, &read);
    }
    Ok(read)
}

pub(super) fn reject(seq: u64, reason: Reason, text: &str) -> Rejection {
    Rejection { seq, reason, text: text.to_owned() }
}

pub(super) fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Records => "records",
        Kind::Raw => "raw",
    }
}

/// Batches and, as far as they are known, records of the part of a skip that was taken. `already_acked`
/// counts no records: they are not lost.
pub(super) fn skipped(skip: &Skip, taken: &RangeInclusive<u64>) -> (u64, u64) {
    let before = taken.start() - skip.numbers.start();
    let batches = (taken.end() - taken.start()).saturating_add(1);
    if skip.reason == crate::proto::skip::Reason::AlreadyAcked {
        return (batches, 0);
    }
    let before = usize::try_from(before).unwrap_or(usize::MAX);
    let records = if skip.records_per_seq.is_empty() {
        if before == 0 { skip.records } else { 0 }
    } else {
        skip.records_per_seq.iter().skip(before).map(|records| u64::from(*records)).sum()
    };
    (batches, records)
}
