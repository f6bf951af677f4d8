//! Batches: records and datagrams gathered, sealed into one compressed payload, and read again.
//!
//! Pure: no socket, clock, log or metric. The payload's form is `proto/flowproxy/v1/batch.proto`.

mod addresses;
mod builder;
mod cells;
mod columns;
mod dictionary;
mod interfaces;
mod lists;
mod names;
mod numbers;
mod pack;
pub mod read;
mod relations;
mod room;
mod runs;
mod senders;
mod transpose;
mod walk;

pub use builder::{Builder, Limits, RawBuilder};
pub use names::{AddressText, InterfaceText, Names, NoNames, Sender, SenderText};
pub use pack::{Effort, Packer};

use crate::flow::Exporter;
use crate::proto::Codec;
use bytes::Bytes;

/// The first 16 bytes of SHA-256 over a batch's codec, plain size and payload (forward.proto, `Batch`).
pub type Digest = [u8; 16];

/// What a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Decoded records.
    Records,
    /// Datagrams, unread.
    Raw,
}

/// A batch that is finished: its bytes are not touched again until the far end reads them.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Records or raw datagrams.
    pub kind: Kind,
    /// How many records, or for raw batches datagrams.
    pub records: u32,
    /// How `payload` is packed.
    pub codec: Codec,
    /// Bytes of the payload once expanded.
    pub plain_size: u32,
    /// A `Payload` of batch.proto, packed by `codec`.
    pub payload: Bytes,
    /// Over codec, plain size and payload.
    pub digest: Digest,
    /// When the first datagram in it was received, in milliseconds since 1970.
    pub received: u64,
    /// What each exporter has in it.
    pub shares: Vec<Share>,
}

/// One exporter's part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Who sent it.
    pub exporter: Exporter,
    /// Its records, or for raw batches datagrams.
    pub records: u32,
    /// Observation domain of its last datagram in the batch; 0 for raw batches.
    pub domain: u32,
    /// Header sequence number of its last datagram in the batch; 0 for raw batches.
    pub sequence: u32,
    /// Records of that datagram in the batch.
    pub last_records: u32,
}

/// The digest that names a batch's bytes (forward.proto, `Batch.previous_digest`).
pub fn digest(codec: Codec, plain_size: u32, payload: &[u8]) -> Digest {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(&[codec as i32 as u8]);
    context.update(&plain_size.to_be_bytes());
    context.update(payload);
    let mut short = Digest::default();
    for (to, from) in short.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    short
}

#[cfg(test)]
mod tests;
