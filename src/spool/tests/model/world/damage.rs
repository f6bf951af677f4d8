//! Damage to the disk of a world, and the frames that it hits.

use super::{DIR, World, pick};
use crate::batch::Digest;
use crate::spool::LaneId;
use crate::spool::frame::{self, ALIGNMENT, SEGMENT_HEADER_BYTES, Seed, SegmentHeader};
use crate::spool::segment::parse_name;
use crate::storage::Storage;
use std::path::{Path, PathBuf};

/// A good frame in a segment file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub lane: LaneId,
    pub seq: u64,
    pub digest: Digest,
    pub start: usize,
    pub end: usize,
}

/// All good frames in a file, wherever they stand.
pub(super) fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut found = Vec::new();
    let Ok(header) = SegmentHeader::decode(bytes) else { return found };
    let seed = Seed::new(header.lane, header.first_seq);
    let mut start = SEGMENT_HEADER_BYTES;
    while start < bytes.len() {
        let Ok(frame) = frame::check(&bytes[start..], seed) else {
            start += ALIGNMENT;
            continue;
        };
        let end = start + frame.frame_bytes();
        found.push(Frame { lane: header.lane, seq: frame.seq, digest: frame.digest, start, end });
        start = end;
    }
    found
}

pub(super) fn is_segment(path: &Path) -> bool {
    path.parent() == Some(Path::new(DIR)) && parse_name(path.file_name().unwrap().to_str().unwrap()).is_some()
}

impl World {
    pub(super) fn segments(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.disk.files();
        files.into_iter().map(|(_, path, bytes)| (path, bytes)).filter(|(path, _)| is_segment(path)).collect()
    }

    /// The bytes `from..to` of a segment are not what they were.
    pub(super) fn excuse(&mut self, path: &Path, bytes: &[u8], from: usize, to: usize) {
        let (id, first_seq) = parse_name(path.file_name().unwrap().to_str().unwrap()).unwrap();
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let whole = from < SEGMENT_HEADER_BYTES;
        if whole {
            lane.bad_segments.insert(first_seq);
        }
        let hit = frames(bytes).into_iter().filter(|frame| whole || (frame.start < to && from < frame.end));
        lane.excused.extend(hit.map(|frame| frame.seq));
    }

    pub(super) fn cut_off(&mut self, file: u8, place: u16, zeros: bool) {
        self.kill();
        let segments = self.segments();
        let Some(at) = pick(segments.len(), file) else { return };
        let (path, bytes) = &segments[at];
        let from = usize::from(place) * bytes.len() / 65536;
        self.excuse(path, bytes, from, bytes.len());
        let len = bytes.len();
        self.disk.damage(path, |bytes| {
            bytes.truncate(from);
            bytes.resize(if zeros { len } else { from }, 0);
        });
    }

    pub(super) fn flip(&mut self, file: u8, place: u16, bit: u8) {
        let in_dir = |path: &PathBuf| path.parent() == Some(Path::new(DIR));
        let files: Vec<_> = self.disk.files().into_iter().filter(|(_, path, _)| in_dir(path)).collect();
        let Some(at) = pick(files.len(), file) else { return };
        let (_, path, bytes) = &files[at];
        let at = usize::from(place) * bytes.len() / 65536;
        if is_segment(path) {
            self.excuse(path, bytes, at, at + 1);
        }
        self.positions_damaged |= path.ends_with("positions");
        self.skips_damaged |= path.ends_with("skips");
        self.disk.damage(path, |bytes| {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        });
    }

    pub(super) fn delete(&mut self, file: u8) {
        let segments = self.segments();
        let Some(at) = pick(segments.len(), file) else { return };
        let (path, bytes) = &segments[at];
        if self.disk.remove(path).is_ok() {
            // For good: what a start has called lost would be back after a power cut.
            self.disk.sync_dir(Path::new(DIR)).unwrap();
            self.excuse(path, bytes, 0, bytes.len());
        }
    }
}
