//! Packs a plain payload into one zstd frame.
//!
//! zstd keeps one Huffman table a block, and mixed planes spoil it: so the block is closed after each plane.
//! At its fast levels a block of at most 1,024 literals takes over the table of the block before, however ill
//! it fits: so only once the open block holds more than that. Any zstd library reads the frame.
//!
//! Looking for matches between records is worth about 9 % of the bytes of real flow and costs a tenth of all that a
//! shard does. So it is done where batches are closed by age: there the processor is idle. Batches that fill up
//! before come under load, and are packed by their bytes' frequencies alone.

use crate::proto::Codec;
use bytes::Bytes;
use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ParamSwitch};

/// Bytes that the open block must hold before it is closed at a cut.
const THIN_BYTES: usize = 1_024;

/// What a batch's packing may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// As small as is cheap: with matches.
    Small,
    /// As fast as is small: without.
    Fast,
}

impl Effort {
    /// zstd's level: 1 looks everywhere for matches, -50 skips ever further where it finds none.
    fn level(self) -> i32 {
        match self {
            Effort::Small => 1,
            Effort::Fast => -50,
        }
    }
}

/// A compressor with its buffers.
pub struct Packer {
    context: CCtx<'static>,
    out: Vec<u8>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl Default for Packer {
    fn default() -> Packer {
        Packer::new()
    }
}

impl Packer {
    /// A compressor with a small match table, which stays in the first cache, and matches of at least 7 bytes:
    /// shorter ones cost more in planes than they save. At negative levels zstd leaves literals as they are unless
    /// told to pack them.
    pub fn new() -> Packer {
        let mut context = CCtx::create();
        let literals = CParameter::LiteralCompressionMode(ParamSwitch::Enable);
        for parameter in [CParameter::HashLog(10), CParameter::MinMatch(7), literals] {
            // Both are within zstd's documented bounds; were they refused, its defaults would do.
            let _ = context.set_parameter(parameter);
        }
        Packer { context, out: Vec::new() }
    }

    /// Packs `plain`, closing a block at each of `cuts` (ascending offsets). What does not shrink stays plain.
    pub fn pack(&mut self, plain: &[u8], cuts: &[usize], effort: Effort) -> (Codec, Bytes) {
        let _ = self.context.set_parameter(CParameter::CompressionLevel(effort.level()));
        match self.compress(plain, cuts) {
            Some(size) if size < plain.len() => {
                (Codec::Zstd, Bytes::copy_from_slice(self.out.get(..size).unwrap_or(&[])))
            }
            _ => (Codec::Plain, Bytes::copy_from_slice(plain)),
        }
    }

    /// Compresses into `out`; `None` when zstd fails, as for want of memory.
    fn compress(&mut self, plain: &[u8], cuts: &[usize]) -> Option<usize> {
        // Each closed block may cost its header beyond the bound for one stretch.
        self.out.clear();
        self.out.reserve(zstd_safe::compress_bound(plain.len()) + 16 * cuts.len());
        self.context.reset(zstd_safe::ResetDirective::SessionOnly).ok()?;
        self.context.set_pledged_src_size(Some(plain.len() as u64)).ok()?;
        let mut output = OutBuffer::around(&mut self.out);
        let mut from = 0;
        for &cut in cuts {
            if cut - from > THIN_BYTES && cut < plain.len() {
                feed(&mut self.context, &mut output, plain.get(from..cut)?, ZSTD_EndDirective::ZSTD_e_flush)?;
                from = cut;
            }
        }
        feed(&mut self.context, &mut output, plain.get(from..)?, ZSTD_EndDirective::ZSTD_e_end)?;
        Some(output.pos())
    }
}

fn feed(
    context: &mut CCtx<'static>,
    output: &mut OutBuffer<'_, Vec<u8>>,
    bytes: &[u8],
    then: ZSTD_EndDirective,
) -> Option<()> {
    let mut input = InBuffer::around(bytes);
    loop {
        let before = (input.pos, output.pos());
        let left = context.compress_stream2(output, &mut input, then).ok()?;
        if left == 0 && input.pos == bytes.len() {
            return Some(());
        }
        if (input.pos, output.pos()) == before {
            return None; // no room: cannot be with the bound above
        }
    }
}
