//! Reads a spool while another process writes it, and after that process was killed: every frame, once.
//!
//! Segments stay open here, so that what was written last is seen also when their names are gone.

use super::books::Books;
use crate::batch::read::{self, Batch};
use crate::flow;
use crate::generator::encoder::element;
use crate::proto::RecordKind;
use crate::spool::frame::{
    FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, Seed, SegmentHeader, check,
};
use crate::spool::{self, LaneId};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const SUFFIX: &str = "fsp";

/// A spool's folder, and how far it is read.
#[derive(Debug)]
pub struct SpoolReader {
    dir: PathBuf,
    segments: HashMap<PathBuf, Segment>,
}

#[derive(Debug)]
struct Segment {
    file: File,
    lane: LaneId,
    seed: Seed,
    /// Where the next frame begins.
    at: u64,
}

impl SpoolReader {
    /// Nothing read yet. The folder may not be there.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, segments: HashMap::new() }
    }

    /// Enters what has come since the last time.
    ///
    /// # Errors
    /// Those of the disk; a frame that is whole and yet cannot be read.
    pub fn read(&mut self, books: &mut Books) -> io::Result<()> {
        let names = names(&self.dir)?;
        for path in &names {
            if !self.segments.contains_key(path)
                && let Some(segment) = Segment::open(path)?
            {
                self.segments.insert(path.clone(), segment);
            }
        }
        for segment in self.segments.values_mut() {
            while let Some((seq, records)) = segment.next()? {
                books.in_spool(segment.lane, seq, records);
            }
        }
        self.segments.retain(|path, _| names.contains(path));
        books.given_up(spool::skip_rows(&self.dir)?);
        Ok(())
    }
}

/// The segments in a folder.
fn names(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|it| it == SUFFIX)).collect())
}

impl Segment {
    /// `None` if it is gone meanwhile, or is none.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        if file.read_exact_at(&mut bytes, 0).is_err() {
            return Ok(None);
        }
        let Ok(header) = SegmentHeader::decode(&bytes) else { return Ok(None) };
        let seed = Seed::new(header.lane, header.first_seq);
        Ok(Some(Self { file, lane: header.lane, seed, at: SEGMENT_HEADER_BYTES as u64 }))
    }

    /// The next frame's number and its records'; `None` if it is not there, not whole yet, or was cut off.
    fn next(&mut self) -> io::Result<Option<(u64, Vec<u64>)>> {
        let mut head = [0; FRAME_HEADER_BYTES];
        if self.file.read_exact_at(&mut head, self.at).is_err() {
            return Ok(None);
        }
        let Ok(header) = FrameHeader::peek(&head) else { return Ok(None) };
        let mut bytes = vec![0; header.frame_bytes()];
        if self.file.read_exact_at(&mut bytes, self.at).is_err() || check(&bytes, self.seed).is_err() {
            return Ok(None);
        }
        let start = FRAME_HEADER_BYTES + header.notes_bytes;
        let payload = bytes.get(start..start + header.payload_bytes).unwrap_or_default();
        let batch = read::open(header.codec, header.plain_size, payload).map_err(io::Error::other)?;
        self.at += bytes.len() as u64;
        Ok(Some((header.seq, numbers(&batch))))
    }
}

/// The numbers of the flows in a batch.
fn numbers(batch: &Batch) -> Vec<u64> {
    let mut numbers = Vec::new();
    for group in batch.groups.iter().filter(|group| group.kind == RecordKind::Data) {
        let is_number = |field: &flow::Field| field.enterprise == 0 && field.element == element::FLOW_ID;
        if let Some(column) = group.columns.iter().find(|column| is_number(&column.field)) {
            let number = |record| column.value(record).iter().fold(0, |it, byte| it << 8 | u64::from(*byte));
            numbers.extend((0..group.records()).map(number));
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = SpoolReader::new(dir.path().join("spool"));
        let mut books = Books::new(1);
        reader.read(&mut books).unwrap();
        assert_eq!(books.owed(), 0);
    }

    #[test]
    fn what_is_no_segment_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("seg-1.fsp"), [0; 100]).unwrap();
        std::fs::write(dir.path().join("LOCK"), "").unwrap();
        let mut reader = SpoolReader::new(dir.path().to_owned());
        reader.read(&mut Books::new(1)).unwrap();
        assert!(reader.segments.is_empty());
    }
}
