//! The bytes of a segment: header, frames, notes, footer. Pure: bytes in, values out, and back.
//!
//! All integers are little-endian. The pictures stand at the head of [`super`]. A frame's checksum is CRC32C
//! over everything in it but itself, started from [`Seed`], so that bytes left by an earlier use of the same
//! disk blocks never pass for a frame of this segment.

use super::LaneId;
use super::cursor::Cursor;
use crate::batch::{Digest, Kind, Share};
use crate::flow::Exporter;
use crate::proto::Codec;
use std::net::IpAddr;

/// Bytes of a segment's header, at its beginning.
pub const SEGMENT_HEADER_BYTES: usize = 64;
/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 80;
/// Bytes of a sealed segment's footer, at its end.
pub const FOOTER_BYTES: usize = 64;
/// The largest frame with its padding.
pub const MAX_FRAME_BYTES: usize = 4 << 20;
/// Frames begin at multiples of this.
pub const ALIGNMENT: usize = 8;
/// The version that this code writes, and the newest that it reads.
pub const VERSION: u16 = 1;

const SEGMENT_MAGIC: [u8; 8] = *b"FLOWSEG\0";
const FOOTER_MAGIC: [u8; 8] = *b"FLOWEND\0";
const FRAME_MAGIC: [u8; 2] = [0xF5, 0x0A];
/// Where a frame header's checksum stands, and what comes after it.
const CRC_AT: usize = 28;
const CRC_END: usize = CRC_AT + 4;
const FLAG_PREVIOUS: u8 = 1;
const KIND_RECORDS: u8 = 1;
const KIND_RAW: u8 = 2;
const NOTE_TOTALS: u8 = 1;
const NOTE_SHARES: u8 = 2;
const NOTE_LAST: u8 = 3;

/// What is wrong with bytes that should be a segment header, a frame or a footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There are fewer bytes than the thing has.
    #[error("cut short")]
    Short,
    /// It does not begin as it must.
    #[error("wrong magic number")]
    Magic,
    /// Written by a newer version of this program.
    #[error("format version {0} is newer than this program's {VERSION}")]
    Newer(u16),
    /// A field has a value that it cannot have.
    #[error("impossible field")]
    Field,
    /// The checksum does not fit.
    #[error("wrong checksum")]
    Checksum,
}

/// Where a segment's checksums start from: its lane and first number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// The seed of the segment of `lane` that begins with `first_seq`.
    pub fn new(lane: LaneId, first_seq: u64) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(&lane.0), &first_seq.to_le_bytes()))
    }
}

/// The first 64 bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The lane that all its frames belong to.
    pub lane: LaneId,
    /// The number of its first frame.
    pub first_seq: u64,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
}

impl SegmentHeader {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(SEGMENT_HEADER_BYTES as u16).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.lane.0);
        out.extend_from_slice(&self.first_seq.to_le_bytes());
        out.extend_from_slice(&self.created.to_le_bytes());
        out.extend_from_slice(&[0; 12]);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Reads it from the front of `bytes`.
    ///
    /// # Errors
    /// What is wrong with them; [`Fault::Newer`] only if the rest is sound.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let (covered, _) = bytes.split_at_checked(SEGMENT_HEADER_BYTES - 4).ok_or(Fault::Short)?;
        let mut cursor = Cursor::new(bytes);
        if cursor.array()? != SEGMENT_MAGIC {
            return Err(Fault::Magic);
        }
        let version = cursor.u16()?;
        let header_len = cursor.u16()?;
        cursor.slice(4)?;
        let lane = LaneId(cursor.array()?);
        let first_seq = cursor.u64()?;
        let created = cursor.u64()?;
        cursor.slice(12)?;
        if cursor.u32()? != crc32c::crc32c(covered) {
            return Err(Fault::Checksum);
        }
        if version > VERSION {
            return Err(Fault::Newer(version));
        }
        if usize::from(header_len) != SEGMENT_HEADER_BYTES || first_seq == 0 {
            return Err(Fault::Field);
        }
        Ok(Self { lane, first_seq, created })
    }
}

/// The last 64 bytes of a sealed segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footer {
    /// The number of its last frame.
    pub last_seq: u64,
    /// How many frames.
    pub frames: u64,
    /// Records (datagrams, in raw batches) in all of them.
    pub records: u64,
    /// Where the last frame ends and the footer begins, in bytes from the start of the segment.
    pub end: u64,
    /// The earliest time of reception in it, in milliseconds since 1970.
    pub oldest_received: u64,
    /// CRC32C over the frames' checksums, in their order.
    pub frames_crc: u32,
}

impl Footer {
    /// Its bytes, for a segment of that seed.
    pub fn encode(&self, seed: Seed) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(&FOOTER_MAGIC);
        for value in [self.last_seq, self.frames, self.records, self.end, self.oldest_received] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(&self.frames_crc.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&crc32c::crc32c_append(seed.0, &out).to_le_bytes());
        out
    }

    /// Reads it from exactly 64 bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8], seed: Seed) -> Result<Self, Fault> {
        let (covered, _) = bytes.split_at_checked(FOOTER_BYTES - 4).ok_or(Fault::Short)?;
        let mut cursor = Cursor::new(bytes);
        if cursor.array()? != FOOTER_MAGIC {
            return Err(Fault::Magic);
        }
        let footer = Self {
            last_seq: cursor.u64()?,
            frames: cursor.u64()?,
            records: cursor.u64()?,
            end: cursor.u64()?,
            oldest_received: cursor.u64()?,
            frames_crc: cursor.u32()?,
        };
        cursor.slice(8)?;
        if cursor.u32()? != crc32c::crc32c_append(seed.0, covered) {
            return Err(Fault::Checksum);
        }
        Ok(footer)
    }
}

/// The first 80 bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Records or raw datagrams.
    pub kind: Kind,
    /// Its number in the lane.
    pub seq: u64,
    /// How many records or datagrams.
    pub records: u32,
    /// When the first datagram in it was received, in milliseconds since 1970.
    pub received: u64,
    /// CRC32C over the rest of the frame.
    pub crc: u32,
    /// Bytes of the payload once expanded.
    pub plain_size: u32,
    /// Bytes of notes between header and payload.
    pub notes_bytes: usize,
    /// Bytes of payload after the notes.
    pub payload_bytes: usize,
    /// How the payload is packed.
    pub codec: Codec,
    /// Names the batch's bytes.
    pub digest: Digest,
    /// That of the batch written before in the lane.
    pub previous_digest: Option<Digest>,
}

impl FrameHeader {
    /// Reads a header, and checks that its fields are possible. The checksum is [`check`]'s.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn peek(bytes: &[u8]) -> Result<Self, Fault> {
        let mut cursor = Cursor::new(bytes.get(..FRAME_HEADER_BYTES).ok_or(Fault::Short)?);
        if cursor.array()? != FRAME_MAGIC {
            return Err(Fault::Magic);
        }
        let kind = match cursor.u8()? {
            KIND_RECORDS => Kind::Records,
            KIND_RAW => Kind::Raw,
            _ => return Err(Fault::Field),
        };
        let flags = cursor.u8()?;
        let body_bytes = cursor.u32()? as usize;
        let seq = cursor.u64()?;
        let records = cursor.u32()?;
        let received = cursor.u64()?;
        let crc = cursor.u32()?;
        let plain_size = cursor.u32()?;
        let notes_bytes = cursor.u32()? as usize;
        let codec = Codec::try_from(i32::from(cursor.u8()?)).map_err(|_| Fault::Field)?;
        cursor.zeros(7)?;
        let digest = cursor.array()?;
        let previous: Digest = cursor.array()?;
        let payload_bytes = body_bytes.checked_sub(notes_bytes).ok_or(Fault::Field)?;
        if body_bytes > MAX_FRAME_BYTES - FRAME_HEADER_BYTES || flags > FLAG_PREVIOUS || seq == 0 {
            return Err(Fault::Field);
        }
        let previous_digest = (flags == FLAG_PREVIOUS).then_some(previous);
        Ok(Self {
            kind,
            seq,
            records,
            received,
            crc,
            plain_size,
            notes_bytes,
            payload_bytes,
            codec,
            digest,
            previous_digest,
        })
    }

    /// Header, notes and payload, without padding.
    fn used_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.notes_bytes + self.payload_bytes
    }

    /// The whole frame with its padding.
    pub fn frame_bytes(&self) -> usize {
        self.used_bytes().next_multiple_of(ALIGNMENT)
    }
}

/// Checks a whole frame, which begins at the front of `bytes`.
///
/// # Errors
/// What is wrong with it.
pub fn check(bytes: &[u8], seed: Seed) -> Result<FrameHeader, Fault> {
    let header = FrameHeader::peek(bytes)?;
    let frame = bytes.get(..header.frame_bytes()).ok_or(Fault::Short)?;
    let (used, padding) = frame.split_at_checked(header.used_bytes()).ok_or(Fault::Short)?;
    let (before, rest) = used.split_at_checked(CRC_AT).ok_or(Fault::Short)?;
    let after = rest.get(CRC_END - CRC_AT..).ok_or(Fault::Short)?;
    if crc32c::crc32c_append(crc32c::crc32c_append(seed.0, before), after) != header.crc {
        return Err(Fault::Checksum);
    }
    if padding.iter().any(|byte| *byte != 0) {
        return Err(Fault::Field);
    }
    Ok(header)
}

/// Running totals of a lane, as they stood when a frame was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Batches numbered in the lane, this one included.
    pub batches: u64,
    /// Records or datagrams in them.
    pub records: u64,
    /// Records or datagrams that were dropped since the lane began, before they were numbered.
    pub dropped_records: u64,
}

/// What a frame says beside its batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The lane's totals.
    pub totals: Totals,
    /// What each exporter has in the batch.
    pub shares: Vec<Share>,
}

impl Notes {
    /// Reads them. Sections of unknown tag are passed over.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let mut notes = Self::default();
        let mut cursor = Cursor::new(bytes);
        while !cursor.is_empty() {
            let tag = cursor.u8()?;
            cursor.slice(3)?;
            let len = cursor.u32()? as usize;
            let mut section = Cursor::new(cursor.slice(len)?);
            match tag {
                NOTE_TOTALS => {
                    notes.totals = Totals {
                        batches: section.u64()?,
                        records: section.u64()?,
                        dropped_records: section.u64()?,
                    }
                }
                NOTE_SHARES => {
                    while !section.is_empty() {
                        notes.shares.push(share(&mut section)?);
                    }
                }
                NOTE_LAST => {
                    for share in &mut notes.shares {
                        share.last_records = section.u32()?;
                    }
                }
                _ => {}
            }
        }
        Ok(notes)
    }
}

fn share(section: &mut Cursor<'_>) -> Result<Share, Fault> {
    let family = section.u8()?;
    section.slice(1)?;
    let port = section.u16()?;
    let records = section.u32()?;
    let domain = section.u32()?;
    let sequence = section.u32()?;
    let address = match family {
        4 => IpAddr::from(section.array::<4>()?),
        6 => IpAddr::from(section.array::<16>()?),
        _ => return Err(Fault::Field),
    };
    Ok(Share { exporter: Exporter { address, port }, records, domain, sequence, last_records: 0 })
}

fn put_notes(out: &mut Vec<u8>, totals: &Totals, shares: &[Share]) {
    out.extend_from_slice(&[NOTE_TOTALS, 0, 0, 0]);
    out.extend_from_slice(&24_u32.to_le_bytes());
    for value in [totals.batches, totals.records, totals.dropped_records] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    let bytes: usize = shares.iter().map(share_bytes).sum();
    out.extend_from_slice(&[NOTE_SHARES, 0, 0, 0]);
    out.extend_from_slice(&(bytes as u32).to_le_bytes());
    for share in shares {
        out.extend_from_slice(&[if share.exporter.address.is_ipv4() { 4 } else { 6 }, 0]);
        out.extend_from_slice(&share.exporter.port.to_le_bytes());
        for value in [share.records, share.domain, share.sequence] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        match share.exporter.address {
            IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
        }
    }
    out.extend_from_slice(&[NOTE_LAST, 0, 0, 0]);
    out.extend_from_slice(&(4 * shares.len() as u32).to_le_bytes());
    for share in shares {
        out.extend_from_slice(&share.last_records.to_le_bytes());
    }
}

fn share_bytes(share: &Share) -> usize {
    if share.exporter.address.is_ipv4() { 20 } else { 32 }
}

/// The bytes that a frame with these notes and a payload of that length takes, padding included.
pub fn frame_bytes(shares: &[Share], payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + notes_bytes(shares) + payload_bytes).next_multiple_of(ALIGNMENT)
}

/// Three sections' heads, the totals, the shares, the records of their last datagrams.
fn notes_bytes(shares: &[Share]) -> usize {
    3 * 8 + 24 + shares.iter().map(|share| share_bytes(share) + 4).sum::<usize>()
}

/// What [`encode`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Bytes of header and notes, put at the end of `out`. The payload goes after them.
    pub head_bytes: usize,
    /// Zero bytes that go after the payload.
    pub padding_bytes: usize,
    /// The frame's checksum.
    pub crc: u32,
}

/// Puts header and notes of a frame at the end of `out`. The payload is not copied: the caller writes it
/// between them and the padding.
pub fn encode(
    out: &mut Vec<u8>,
    seed: Seed,
    batch: &super::Stored,
    totals: &Totals,
    shares: &[Share],
) -> Encoded {
    let start = out.len();
    let frame_bytes = frame_bytes(shares, batch.payload.len());
    let notes_bytes = notes_bytes(shares);
    out.extend_from_slice(&FRAME_MAGIC);
    out.push(match batch.kind {
        Kind::Records => KIND_RECORDS,
        Kind::Raw => KIND_RAW,
    });
    out.push(if batch.previous_digest.is_some() { FLAG_PREVIOUS } else { 0 });
    out.extend_from_slice(&((notes_bytes + batch.payload.len()) as u32).to_le_bytes());
    out.extend_from_slice(&batch.seq.to_le_bytes());
    out.extend_from_slice(&batch.records.to_le_bytes());
    out.extend_from_slice(&batch.received.to_le_bytes());
    let before = crc32c::crc32c_append(seed.0, out.get(start..).unwrap_or_default());
    out.extend_from_slice(&[0; CRC_END - CRC_AT]);
    let after = out.len();
    out.extend_from_slice(&batch.plain_size.to_le_bytes());
    out.extend_from_slice(&(notes_bytes as u32).to_le_bytes());
    out.push(batch.codec as i32 as u8);
    out.extend_from_slice(&[0; 7]);
    out.extend_from_slice(&batch.digest);
    out.extend_from_slice(&batch.previous_digest.unwrap_or_default());
    put_notes(out, totals, shares);
    let head = crc32c::crc32c_append(before, out.get(after..).unwrap_or_default());
    let crc = crc32c::crc32c_append(head, &batch.payload);
    if let Some(place) = out.get_mut(after - 4..after) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    let head_bytes = out.len() - start;
    Encoded { head_bytes, padding_bytes: frame_bytes - head_bytes - batch.payload.len(), crc }
}

#[cfg(test)]
mod tests;
