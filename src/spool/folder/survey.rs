//! One segment file: what is in it, and what is wrong with it.

use super::{Damage, Error, LaneFound, Tally, named};
use crate::batch;
use crate::spool::LaneId;
use crate::spool::frame::{FOOTER_BYTES, Fault, Footer, SEGMENT_HEADER_BYTES, Seed, SegmentHeader};
use crate::spool::read::{self, Frame, Walk};
use crate::storage::{Mode, Storage, StorageFile};
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

const FOOTER_MAGIC: &[u8] = b"FLOWEND\0";

/// How closely is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Headers and footers.
    Headers,
    /// Every byte.
    Whole,
}

/// A segment file.
#[derive(Clone, Debug)]
pub struct SegmentFound {
    /// Its name in the folder.
    pub name: String,
    /// Its lane.
    pub lane: LaneId,
    /// The number it begins with.
    pub first_seq: u64,
    /// Its last number; `first_seq - 1` if there is no frame in it.
    pub last_seq: u64,
    /// When it was made, in milliseconds since 1970; `None` if its header is damaged.
    pub created: Option<u64>,
    /// It has its footer.
    pub sealed: bool,
    /// The file's size.
    pub file_bytes: u64,
    /// All good frames.
    pub held: Tally,
    /// The earliest time of reception in it, in milliseconds since 1970.
    pub oldest_received: u64,
    /// Where its frames end.
    pub end: u64,
    /// Bytes of a frame at its end whose writing was cut off, or is going on.
    pub torn_bytes: u64,
    /// Numbers between its good frames.
    pub missing: Vec<RangeInclusive<u64>>,
}

impl SegmentFound {
    fn header(&self) -> SegmentHeader {
        SegmentHeader {
            lane: self.lane,
            first_seq: self.first_seq,
            created: self.created.unwrap_or_default(),
        }
    }
}

/// An open segment, and where to tell its damage.
struct Looking<'a> {
    file: Arc<dyn StorageFile>,
    path: &'a Path,
    name: &'a str,
    damages: &'a mut Vec<Damage>,
}

impl Looking<'_> {
    fn damage(&mut self, offset: u64, what: impl Into<String>) {
        self.damages.push(Damage { file: self.name.to_owned(), offset, what: what.into() });
    }

    /// The header; the name stands in for one that is damaged. The time is `None` then.
    fn header(&mut self) -> Result<Option<(SegmentHeader, Option<u64>)>, Error> {
        let header = match read::segment_header(self.file.as_ref()) {
            Err(error) if read::is_media_fault(&error) => Err(Fault::Short),
            header => header.map_err(Error::io(self.path))?,
        };
        let name = named(self.name);
        match header {
            Ok(header) => {
                if name.is_some_and(|name| name != (header.lane, header.first_seq)) {
                    let (lane, first_seq) = (header.lane, header.first_seq);
                    self.damage(0, format!("its name is not that of lane {lane} from {first_seq} on"));
                }
                Ok(Some((header, Some(header.created))))
            }
            Err(Fault::Newer(version)) => Err(Error::Newer { path: self.path.to_owned(), version }),
            Err(fault) => {
                self.damage(0, format!("segment header: {fault}"));
                let header = |(lane, first_seq)| SegmentHeader { lane, first_seq, created: 0 };
                Ok(name.filter(|(_, first_seq)| *first_seq > 0).map(|name| (header(name), None)))
            }
        }
    }

    fn footer(&mut self, header: &SegmentHeader) -> Result<Option<Footer>, Error> {
        let footer = read::footer(self.file.as_ref(), header).map_err(Error::io(self.path))?;
        if footer.is_none() {
            let len = self.file.len().map_err(Error::io(self.path))?;
            let mut bytes = [0; FOOTER_BYTES];
            let at = len.saturating_sub(FOOTER_BYTES as u64);
            if self.file.read_at(&mut bytes, at).is_ok() && bytes.starts_with(FOOTER_MAGIC) {
                self.damage(at, "footer: wrong checksum");
            }
        }
        Ok(footer)
    }
}

/// Looks a segment through. `None` if it has gone, or nothing says whose it is.
pub fn survey(
    storage: &dyn Storage,
    dir: &Path,
    name: &str,
    depth: Depth,
    damages: &mut Vec<Damage>,
) -> Result<Option<SegmentFound>, Error> {
    let path = dir.join(name);
    let file = match storage.open(&path, Mode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(Error::io(&path))?,
    };
    let mut looking = Looking { file, path: &path, name, damages };
    let Some((header, created)) = looking.header()? else { return Ok(None) };
    let footer = looking.footer(&header)?;
    let file_bytes = looking.file.len().map_err(Error::io(&path))?;
    let mut found = SegmentFound {
        name: name.to_owned(),
        lane: header.lane,
        first_seq: header.first_seq,
        last_seq: header.first_seq - 1,
        created,
        sealed: footer.is_some(),
        file_bytes,
        held: Tally::default(),
        oldest_received: 0,
        end: SEGMENT_HEADER_BYTES as u64,
        torn_bytes: 0,
        missing: Vec::new(),
    };
    match footer {
        Some(footer) if depth == Depth::Headers => {
            let bytes = footer.end - SEGMENT_HEADER_BYTES as u64;
            found.held = Tally { batches: footer.frames, records: footer.records, bytes };
            found.last_seq = footer.last_seq;
            found.oldest_received = footer.oldest_received;
            found.end = footer.end;
        }
        footer => walk(&mut looking, &header, footer, depth, &mut found).map_err(Error::io(&path))?,
    }
    Ok(Some(found))
}

/// Goes over all frames.
fn walk(
    looking: &mut Looking<'_>,
    header: &SegmentHeader,
    footer: Option<Footer>,
    depth: Depth,
    found: &mut SegmentFound,
) -> io::Result<()> {
    let file = looking.file.clone();
    let limit = footer.map_or(found.file_bytes, |footer| footer.end);
    let mut walk = Walk::new(file.as_ref(), header, limit, true);
    let mut sums = Footer::default();
    let mut before = None;
    let damages = looking.damages.len();
    while let Some(one) = walk.next()? {
        let seq = one.header.seq;
        for range in walk.damaged.drain(..) {
            looking.damage(range.start, numbers(found.last_seq + 1, seq - 1, range.end - range.start));
            found.missing.push(found.last_seq + 1..=seq - 1);
            before = None;
        }
        if depth == Depth::Whole {
            let frame = Frame::read(
                file.as_ref(),
                Seed::new(header.lane, header.first_seq),
                one.offset,
                one.header.frame_bytes(),
            )?;
            for what in frame.map(|frame| faults(&frame, before)).unwrap_or_default() {
                looking.damage(one.offset, format!("batch {seq}: {what}"));
            }
        }
        before = Some(one.header.digest);
        sums.oldest_received = match sums.frames {
            0 => one.header.received,
            _ => sums.oldest_received.min(one.header.received),
        };
        sums.frames += 1;
        sums.records += u64::from(one.header.records);
        sums.last_seq = seq;
        sums.frames_crc = crc32c::crc32c_append(sums.frames_crc, &one.header.crc.to_le_bytes());
        found.last_seq = seq;
        found.held.bytes += one.header.frame_bytes() as u64;
    }
    sums.end = walk.offset;
    found.held = Tally { batches: sums.frames, records: sums.records, ..found.held };
    (found.oldest_received, found.end) = (sums.oldest_received, sums.end);
    match footer {
        None => found.torn_bytes = walk.torn_bytes()?,
        Some(footer) if sums.end < footer.end => {
            let (from, to) = (found.last_seq + 1, footer.last_seq);
            looking.damage(sums.end, numbers(from, to, footer.end - sums.end));
            found.missing.push(from..=to);
            found.last_seq = to.max(found.last_seq);
        }
        Some(footer) if footer != sums && looking.damages.len() == damages => {
            looking.damage(footer.end, "footer: it does not fit the frames before it");
        }
        Some(_) => {}
    }
    Ok(())
}

fn numbers(from: u64, to: u64, bytes: u64) -> String {
    if from >= to {
        format!("{bytes} bytes are no frame: batch {from} is damaged")
    } else {
        format!("{bytes} bytes are no frame: batches {from} to {to} are damaged")
    }
}

/// What is wrong with a frame whose checksum is right.
fn faults(frame: &Frame, before: Option<batch::Digest>) -> Vec<String> {
    let mut faults = Vec::new();
    let stored = frame.batch(LaneId::default());
    if stored.digest != batch::digest(stored.codec, stored.plain_size, &stored.payload) {
        faults.push("its digest is not that of its payload".to_owned());
    }
    if before.is_some() && stored.previous_digest != before {
        faults.push("it does not follow the batch before it".to_owned());
    }
    if let Err(fault) = frame.notes() {
        faults.push(format!("its notes: {fault}"));
    }
    faults
}

/// What of a segment up to `last_seq` waits to be sent.
pub fn tally(
    storage: &dyn Storage,
    dir: &Path,
    segment: &SegmentFound,
    lane: &LaneFound,
    last_seq: u64,
) -> Result<Tally, Error> {
    let is_whole = last_seq == segment.last_seq
        && segment.first_seq > lane.acked_seq
        && !lane.rows.iter().any(|row| row.from <= last_seq && segment.first_seq <= row.to);
    if is_whole || last_seq <= lane.acked_seq {
        return Ok(if is_whole { segment.held } else { Tally::default() });
    }
    let path = dir.join(&segment.name);
    let file = match storage.open(&path, Mode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Tally::default()),
        file => file.map_err(Error::io(&path))?,
    };
    let mut tally = Tally::default();
    let mut walk = Walk::new(file.as_ref(), &segment.header(), segment.end, false);
    while let Some(found) = walk.next().map_err(Error::io(&path))? {
        if found.header.seq <= last_seq && lane.is_unacked(found.header.seq) {
            tally.batches += 1;
            tally.records += u64::from(found.header.records);
            tally.bytes += found.header.frame_bytes() as u64;
        }
    }
    Ok(tally)
}

/// See [`super::Folder::batches`].
pub fn batches<E>(
    storage: &dyn Storage,
    dir: &Path,
    segment: &SegmentFound,
    is_in_use: bool,
    damages: &mut Vec<Damage>,
    each: &mut dyn FnMut(Frame) -> Result<(), E>,
) -> Result<Result<(), E>, Error> {
    let path = dir.join(&segment.name);
    let file = match storage.open(&path, Mode::Read) {
        // Its batches were acked meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_in_use => return Ok(Ok(())),
        file => file.map_err(Error::io(&path))?,
    };
    let header = segment.header();
    let seed = Seed::new(header.lane, header.first_seq);
    let mut looking = Looking { file: file.clone(), path: &path, name: &segment.name, damages };
    let mut walk = Walk::new(file.as_ref(), &header, segment.end, true);
    let mut next_seq = header.first_seq;
    while let Some(found) = walk.next().map_err(Error::io(&path))? {
        let seq = found.header.seq;
        for range in walk.damaged.drain(..) {
            looking.damage(range.start, numbers(next_seq, seq - 1, range.end - range.start));
        }
        next_seq = seq + 1;
        let frame = Frame::read(file.as_ref(), seed, found.offset, found.header.frame_bytes());
        match frame.map_err(Error::io(&path))? {
            Ok(frame) => {
                if let Err(error) = each(frame) {
                    return Ok(Err(error));
                }
            }
            Err(fault) => looking.damage(found.offset, format!("batch {seq}: {fault}")),
        }
    }
    if walk.offset < segment.end {
        looking.damage(walk.offset, numbers(next_seq, segment.last_seq, segment.end - walk.offset));
    }
    Ok(Ok(()))
}
