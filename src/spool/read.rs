//! Reads segment files: header and footer, one frame, and a walk over all frames that gets past damage.

use super::frame::{
    self, ALIGNMENT, FOOTER_BYTES, FRAME_HEADER_BYTES, Fault, Footer, FrameHeader, MAX_FRAME_BYTES, Notes,
    SEGMENT_HEADER_BYTES, Seed, SegmentHeader,
};
use super::{LaneId, Stored};
use crate::storage::StorageFile;
use bytes::Bytes;
use std::io;
use std::ops::Range;

/// Read at once while only headers are looked at.
const HEADER_WINDOW_BYTES: usize = 8 << 10;
/// Read at once while checksums are made.
const CHECK_WINDOW_BYTES: usize = 256 << 10;
/// How often a segment's size may be read in the search for the next good frame after damage. Bytes that
/// look like headers but are not could otherwise make the search as long as they like.
const SEARCH_FACTOR: u64 = 16;

/// What is read at once where the disk cannot read.
const UNREADABLE_BYTES: usize = 4 << 10;

/// Whether the medium failed to give bytes back that it once took (EIO): damage, and no passing trouble.
pub fn is_media_fault(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// The header of a segment file.
///
/// # Errors
/// Outer: the disk's. Inner: what is wrong with the bytes.
pub fn segment_header(file: &dyn StorageFile) -> io::Result<Result<SegmentHeader, Fault>> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let read = file.read_at(&mut bytes, 0)?;
    Ok(SegmentHeader::decode(bytes.get(..read).unwrap_or_default()))
}

/// The footer of a segment file, if it is sealed.
///
/// # Errors
/// The disk's.
pub fn footer(file: &dyn StorageFile, header: &SegmentHeader) -> io::Result<Option<Footer>> {
    let Some(at) = file.len()?.checked_sub(FOOTER_BYTES as u64) else { return Ok(None) };
    let mut bytes = [0; FOOTER_BYTES];
    match file.read_at(&mut bytes, at) {
        Err(error) if is_media_fault(&error) => return Ok(None),
        read => read?,
    };
    let footer = Footer::decode(&bytes, Seed::new(header.lane, header.first_seq));
    Ok(footer.ok().filter(|footer| footer.end == at && footer.last_seq >= header.first_seq))
}

/// A frame's batch and notes, still as bytes.
#[derive(Clone, Debug)]
pub struct Frame {
    /// What its header says.
    pub header: FrameHeader,
    /// All of it.
    bytes: Bytes,
}

impl Frame {
    /// Reads and checks the frame that stands at `offset` and is at most `len` bytes long.
    ///
    /// # Errors
    /// Outer: the disk's. Inner: what is wrong with the bytes; those that cannot be read count as missing.
    pub fn read(
        file: &dyn StorageFile,
        seed: Seed,
        offset: u64,
        len: usize,
    ) -> io::Result<Result<Self, Fault>> {
        let mut bytes = vec![0; len.min(MAX_FRAME_BYTES)];
        let read = match file.read_at(&mut bytes, offset) {
            Err(error) if is_media_fault(&error) => 0,
            read => read?,
        };
        bytes.truncate(read);
        Ok(frame::check(&bytes, seed).map(|header| Self { header, bytes: bytes.into() }))
    }

    /// The batch; its payload shares this frame's memory.
    pub fn batch(&self, lane: LaneId) -> Stored {
        let header = &self.header;
        let start = FRAME_HEADER_BYTES + header.notes_bytes;
        Stored {
            lane,
            seq: header.seq,
            kind: header.kind,
            records: header.records,
            codec: header.codec,
            plain_size: header.plain_size,
            payload: self.bytes.slice(start..start + header.payload_bytes),
            digest: header.digest,
            previous_digest: header.previous_digest,
            received: header.received,
        }
    }

    /// What it says beside the batch.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn notes(&self) -> Result<Notes, Fault> {
        let end = FRAME_HEADER_BYTES + self.header.notes_bytes;
        Notes::decode(self.bytes.get(FRAME_HEADER_BYTES..end).ok_or(Fault::Short)?)
    }
}

/// A frame that a walk came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What its header says.
    pub header: FrameHeader,
    /// Where it stands.
    pub offset: u64,
}

/// Walks over a segment's frames, in their order.
#[derive(Debug)]
pub struct Walk<'a> {
    file: &'a dyn StorageFile,
    seed: Seed,
    /// Whether every frame's checksum is made, or only those of frames that are next to damage.
    check_all: bool,
    /// Where the next frame should begin; at the end, where the last good one ended.
    pub offset: u64,
    /// The number that the next frame should have.
    pub next_seq: u64,
    /// Where frames end at the latest.
    limit: u64,
    /// Bytes between good frames that are no frames.
    pub damaged: Vec<Range<u64>>,
    window: Vec<u8>,
    window_at: u64,
    search_bytes_left: u64,
}

impl<'a> Walk<'a> {
    /// Begins at a segment's first frame. `limit` is where its frames end at the latest: the footer's `end`,
    /// else the file's size.
    pub fn new(file: &'a dyn StorageFile, header: &SegmentHeader, limit: u64, check_all: bool) -> Self {
        Self {
            file,
            seed: Seed::new(header.lane, header.first_seq),
            check_all,
            offset: SEGMENT_HEADER_BYTES as u64,
            next_seq: header.first_seq,
            limit,
            damaged: Vec::new(),
            window: Vec::new(),
            window_at: 0,
            search_bytes_left: limit.saturating_mul(SEARCH_FACTOR),
        }
    }

    /// The next frame. A frame that is not the one expected, or is damaged, makes it look for the next good
    /// one on the grid of frame beginnings.
    ///
    /// # Errors
    /// The disk's.
    pub fn next(&mut self) -> io::Result<Option<Found>> {
        let start = self.offset;
        if let Ok(header) = self.header_at(start)?
            && header.seq == self.next_seq
            && (self.is_followed(start, &header)? || self.good(start, &header)?)
        {
            return Ok(Some(self.step(start, header)));
        }
        let mut at = start + ALIGNMENT as u64;
        while at + FRAME_HEADER_BYTES as u64 <= self.limit {
            if let Ok(header) = self.header_at(at)?
                && header.seq >= self.next_seq
                && header.seq - self.next_seq <= (at - start) / FRAME_HEADER_BYTES as u64
            {
                let Some(left) = self.search_bytes_left.checked_sub(header.frame_bytes() as u64) else {
                    return Ok(None);
                };
                self.search_bytes_left = left;
                if self.good(at, &header)? {
                    self.damaged.push(start..at);
                    return Ok(Some(self.step(at, header)));
                }
            }
            at += ALIGNMENT as u64;
        }
        Ok(None)
    }

    /// After the last frame: the bytes of a frame whose writing was cut off, 0 if there is none.
    ///
    /// # Errors
    /// The disk's.
    pub fn torn_bytes(&mut self) -> io::Result<u64> {
        let left = self.limit.saturating_sub(self.offset);
        if left < FRAME_HEADER_BYTES as u64 {
            return Ok(left);
        }
        let bytes = self.bytes_at(self.offset, FRAME_HEADER_BYTES)?;
        Ok(match FrameHeader::peek(bytes) {
            Ok(header) if header.seq == self.next_seq => left.min(header.frame_bytes() as u64),
            _ => 0,
        })
    }

    fn step(&mut self, offset: u64, header: FrameHeader) -> Found {
        self.offset = offset + header.frame_bytes() as u64;
        self.next_seq = header.seq + 1;
        Found { header, offset }
    }

    /// A header whose frame ends within the segment.
    fn header_at(&mut self, offset: u64) -> io::Result<Result<FrameHeader, Fault>> {
        let limit = self.limit;
        let header = FrameHeader::peek(self.bytes_at(offset, FRAME_HEADER_BYTES)?);
        Ok(header.and_then(|header| match offset + header.frame_bytes() as u64 <= limit {
            true => Ok(header),
            false => Err(Fault::Short),
        }))
    }

    /// Whether a frame may be passed without its checksum: the next one begins where it ends.
    fn is_followed(&mut self, offset: u64, header: &FrameHeader) -> io::Result<bool> {
        let end = offset + header.frame_bytes() as u64;
        if self.check_all || end == self.limit {
            return Ok(!self.check_all);
        }
        Ok(self.header_at(end)?.is_ok_and(|next| next.seq == header.seq + 1))
    }

    fn good(&mut self, offset: u64, header: &FrameHeader) -> io::Result<bool> {
        let seed = self.seed;
        let bytes = self.bytes_at(offset, header.frame_bytes())?;
        Ok(frame::check(bytes, seed).is_ok())
    }

    /// `len` bytes from `offset` on, fewer at the end of the file.
    fn bytes_at(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let held = self.window_at..self.window_at + self.window.len() as u64;
        if !(held.contains(&offset) && offset + len as u64 <= held.end) {
            let least = if self.check_all { CHECK_WINDOW_BYTES } else { HEADER_WINDOW_BYTES };
            self.window.resize(len.max(least), 0);
            self.window_at = offset;
            match self.file.read_at(&mut self.window, offset) {
                Ok(read) => self.window.truncate(read),
                Err(error) if is_media_fault(&error) => {
                    self.window.clear();
                    self.window.resize(UNREADABLE_BYTES, 0);
                }
                Err(error) => {
                    self.window.clear();
                    return Err(error);
                }
            }
        }
        let start = usize::try_from(offset - self.window_at).unwrap_or(usize::MAX);
        let end = start.saturating_add(len).min(self.window.len());
        Ok(self.window.get(start..end).unwrap_or_default())
    }
}

/// Where each frame of a segment stands.
#[derive(Clone, Debug)]
pub struct Index {
    first_seq: u64,
    /// By number from `first_seq` on; [`Index::MISSING`] where there is no good frame.
    offsets: Vec<u32>,
    /// Bytes that are no frames.
    pub damaged: Vec<Range<u64>>,
    /// Where the last frame ends.
    end: u64,
}

/// What an [`Index`] says about a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The frame begins at `offset` and is at most `len` bytes long.
    Frame {
        /// From the start of the file.
        offset: u64,
        /// In bytes.
        len: usize,
    },
    /// There is no good frame for this number and those up to `last_seq`.
    Damaged {
        /// The last of them.
        last_seq: u64,
    },
}

impl Index {
    const MISSING: u32 = u32::MAX;

    /// An index without frames.
    pub fn new(first_seq: u64) -> Self {
        Self { first_seq, offsets: Vec::new(), damaged: Vec::new(), end: SEGMENT_HEADER_BYTES as u64 }
    }

    /// Takes up a frame; frames come in the order of their numbers.
    pub fn push(&mut self, seq: u64, offset: u64, frame_bytes: usize) {
        let place = usize::try_from(seq.saturating_sub(self.first_seq)).unwrap_or(usize::MAX);
        if place >= self.offsets.len() {
            self.offsets.resize(place, Self::MISSING);
            self.offsets.push(u32::try_from(offset).unwrap_or(Self::MISSING));
            self.end = offset + frame_bytes as u64;
        }
    }

    /// Finds all frames of a segment by their headers.
    ///
    /// # Errors
    /// The disk's.
    pub fn of(file: &dyn StorageFile, header: &SegmentHeader, limit: u64) -> io::Result<Self> {
        let mut index = Self::new(header.first_seq);
        let mut walk = Walk::new(file, header, limit, false);
        while let Some(found) = walk.next()? {
            index.push(found.header.seq, found.offset, found.header.frame_bytes());
        }
        if walk.offset < limit {
            walk.damaged.push(walk.offset..limit);
        }
        index.damaged = walk.damaged;
        Ok(index)
    }

    /// Where the frame of a number stands, of a segment whose last number is `last_seq`.
    pub fn place(&self, seq: u64, last_seq: u64) -> Place {
        let at = usize::try_from(seq.saturating_sub(self.first_seq)).unwrap_or(usize::MAX);
        let rest = self.offsets.get(at..).unwrap_or_default();
        let known = |offset: &u32| *offset != Self::MISSING;
        match rest.split_first() {
            Some((offset, after)) if known(offset) => {
                let offset = u64::from(*offset);
                let end = after.iter().find(|next| known(next)).map_or(self.end, |next| u64::from(*next));
                let len = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
                Place::Frame { offset, len }
            }
            _ => match rest.iter().position(known) {
                Some(good) => Place::Damaged { last_seq: (seq + good as u64 - 1).min(last_seq) },
                None => Place::Damaged { last_seq },
            },
        }
    }
}
