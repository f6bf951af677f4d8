//! `flowproxy try-batch`: decodes a batch from standard input. A collector that has died several times asks it.

use super::Failure;
use crate::collector::trial;
use crate::proto::Codec;

/// What the collector says.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The codec's number in the protocol
    codec: i32,
    /// The batch's size once unpacked, in bytes
    plain_size: u32,
}

/// Comes back if the batch is survived.
pub fn try_batch(arguments: &Arguments) -> Result<(), Failure> {
    let codec = Codec::try_from(arguments.codec).map_err(Failure::other)?;
    trial::decode(codec, arguments.plain_size, std::io::stdin().lock()).map_err(Failure::other)
}
