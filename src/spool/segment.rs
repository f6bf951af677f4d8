//! A segment file that grows: made, appended to, sealed. And the names of segment files.

use super::frame::{self, FOOTER_BYTES, Footer, SEGMENT_HEADER_BYTES, Seed, SegmentHeader, Totals};
use super::{LaneId, Stored};
use crate::batch::Share;
use crate::storage::{Mode, Storage, StorageFile};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PREFIX: &str = "seg-";
const SUFFIX: &str = ".fsp";
/// A segment is made under this name, and gets its own when its header is durable.
pub const UNFINISHED_NAME: &str = "unfinished.new";

/// The name of the file that holds the segment of `lane` that begins with `first_seq`.
pub fn file_name(lane: LaneId, first_seq: u64) -> String {
    format!("{PREFIX}{lane}-{first_seq:016x}{SUFFIX}")
}

/// The lane and first number that a segment file's name says, if it is one.
pub fn parse_name(name: &str) -> Option<(LaneId, u64)> {
    let (lane, first_seq) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('-')?;
    if first_seq.len() != 16 {
        return None;
    }
    Some((LaneId::from_hex(lane)?, u64::from_str_radix(first_seq, 16).ok()?))
}

/// A batch with its number, and what its frame says beside it.
#[derive(Clone, Debug)]
pub struct Numbered {
    /// The batch.
    pub batch: Stored,
    /// The lane's totals, this batch included.
    pub totals: Totals,
    /// What each exporter has in it.
    pub shares: Arc<Vec<Share>>,
}

impl Numbered {
    /// What its frame takes on disk.
    pub fn frame_bytes(&self) -> usize {
        frame::frame_bytes(&self.shares, self.batch.payload.len())
    }
}

/// A segment that is being written.
#[derive(Debug)]
pub struct Growing {
    /// The open file, also read by the uplink.
    pub file: Arc<dyn StorageFile>,
    /// Where it stands.
    pub path: PathBuf,
    /// What its header says.
    pub header: SegmentHeader,
    /// What its footer would say now.
    pub footer: Footer,
    /// Bytes reserved for it on disk.
    pub capacity: u64,
    seed: Seed,
    /// Headers and notes of one write, kept for its room.
    heads: Vec<u8>,
    encoded: Vec<frame::Encoded>,
}

impl Growing {
    /// Makes a segment file of `capacity` bytes, durable with its name. Takes over the blocks of `spare`, a
    /// file that is not needed any more: writing over blocks costs less than having new ones made, and the
    /// seed of the checksums keeps what lies in them from being read.
    ///
    /// # Errors
    /// Those of the disk; out of space is found here and not at a later write.
    pub fn create(
        storage: &dyn Storage,
        dir: &Path,
        header: SegmentHeader,
        capacity: u64,
        spare: Option<&Path>,
    ) -> io::Result<Self> {
        let unfinished = dir.join(UNFINISHED_NAME);
        let file = match spare {
            Some(spare) => {
                storage.rename(spare, &unfinished)?;
                storage.open(&unfinished, Mode::Write)?
            }
            None => storage.open(&unfinished, Mode::Create)?,
        };
        crash_point!("spool.segment.open");
        let path = dir.join(file_name(header.lane, header.first_seq));
        let made = file.allocate(capacity).and_then(|()| {
            file.write_at(&mut [IoSlice::new(&header.encode())], 0)?;
            crash_point!("spool.segment.header");
            file.sync()?;
            crash_point!("spool.segment.sync");
            storage.rename(&unfinished, &path)?;
            crash_point!("spool.segment.rename");
            storage.sync_dir(dir)
        });
        crash_point!("spool.segment.folder");
        if let Err(error) = made {
            // Whichever name it has got, nothing of worth is in it.
            let _ = storage.remove(&unfinished);
            return Err(error);
        }
        let footer = Footer { end: SEGMENT_HEADER_BYTES as u64, ..Footer::default() };
        let seed = Seed::new(header.lane, header.first_seq);
        Ok(Self { file, path, header, footer, capacity, seed, heads: Vec::new(), encoded: Vec::new() })
    }

    /// Bytes of frames that still go in.
    pub fn room_bytes(&self) -> u64 {
        self.capacity.saturating_sub(self.footer.end + FOOTER_BYTES as u64)
    }

    /// Appends frames by one write. Nothing is durable before [`StorageFile::sync`].
    ///
    /// # Errors
    /// Those of the disk. Nothing is counted as written then.
    pub fn append(&mut self, group: &[Numbered]) -> io::Result<u64> {
        self.heads.clear();
        self.encoded.clear();
        let mut footer = self.footer;
        for one in group {
            let encoded = frame::encode(&mut self.heads, self.seed, &one.batch, &one.totals, &one.shares);
            self.encoded.push(encoded);
            footer.last_seq = one.batch.seq;
            footer.oldest_received = match footer.frames {
                0 => one.batch.received,
                _ => footer.oldest_received.min(one.batch.received),
            };
            footer.frames += 1;
            footer.records += u64::from(one.batch.records);
            footer.frames_crc = crc32c::crc32c_append(footer.frames_crc, &encoded.crc.to_le_bytes());
            footer.end += one.frame_bytes() as u64;
        }
        let mut parts = Vec::with_capacity(3 * group.len());
        let mut heads = self.heads.as_slice();
        for (one, encoded) in group.iter().zip(&self.encoded) {
            let (head, rest) = heads.split_at_checked(encoded.head_bytes).unwrap_or_default();
            heads = rest;
            parts.push(IoSlice::new(head));
            parts.push(IoSlice::new(&one.batch.payload));
            parts.push(IoSlice::new(padding(encoded.padding_bytes)));
        }
        self.file.write_at(&mut parts, self.footer.end)?;
        crash_point!("spool.append");
        let written = footer.end - self.footer.end;
        self.footer = footer;
        Ok(written)
    }

    /// Writes the footer, makes all of it durable and gives the room behind it back.
    ///
    /// # Errors
    /// Those of the disk; the file is then not to be synced again.
    pub fn seal(&self) -> io::Result<()> {
        let footer = self.footer.encode(self.seed);
        self.file.write_at(&mut [IoSlice::new(&footer)], self.footer.end)?;
        crash_point!("spool.seal.footer");
        self.file.set_len(self.footer.end + FOOTER_BYTES as u64)?;
        crash_point!("spool.seal.cut");
        self.file.sync()?;
        crash_point!("spool.seal.sync");
        Ok(())
    }
}

/// That many zero bytes, fewer than a frame's alignment.
fn padding(bytes: usize) -> &'static [u8] {
    const ZEROS: [u8; frame::ALIGNMENT] = [0; frame::ALIGNMENT];
    ZEROS.get(..bytes).unwrap_or(&[])
}
