//! Counts what the spool asks of its disk, whatever for: small boxes have small flash, which wears. And watches that it
//! answers.

use super::metrics::Metrics;
use super::stall::Calls;
use super::{positions, skips};
use crate::storage::{Entry, Found, Mode, Room, Storage, StorageFile};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// A disk, and where to count.
#[derive(Debug)]
pub struct Counted {
    /// The disk.
    pub storage: Arc<dyn Storage>,
    /// Bytes and fsyncs are counted here.
    pub metrics: Metrics,
    /// What it has been asked and has not answered.
    pub calls: Calls,
}

#[derive(Debug)]
struct CountedFile {
    file: Arc<dyn StorageFile>,
    of: &'static str,
    metrics: Metrics,
    calls: Calls,
}

/// What a file is, as a label.
fn label(path: &Path) -> &'static str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match name.strip_suffix(".new").unwrap_or(name) {
        positions::NAME => Metrics::POSITIONS,
        skips::NAME => Metrics::SKIPS,
        "unfinished" => Metrics::SEGMENT,
        name if super::segment::parse_name(name).is_some() => Metrics::SEGMENT,
        _ => Metrics::OTHER,
    }
}

impl Storage for Counted {
    fn create_dir(&self, dir: &Path, permissions: u32) -> io::Result<()> {
        self.calls.during(|| self.storage.create_dir(dir, permissions))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.calls.during(|| self.storage.list(dir))
    }

    fn look(&self, path: &Path) -> io::Result<Option<Found>> {
        self.calls.during(|| self.storage.look(path))
    }

    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.calls.during(|| self.storage.open(path, mode))?;
        let (metrics, calls) = (self.metrics.clone(), self.calls.clone());
        Ok(Arc::new(CountedFile { file, of: label(path), metrics, calls }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.calls.during(|| self.storage.rename(from, to))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.calls.during(|| self.storage.link(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.calls.during(|| self.storage.remove(path))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.calls.during(|| self.storage.remove_dir(dir))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.metrics.fsyncs.add(Metrics::FOLDER, 1);
        self.calls.during(|| self.storage.sync_dir(dir))
    }

    fn room(&self, dir: &Path) -> io::Result<Room> {
        self.calls.during(|| self.storage.room(dir))
    }
}

impl StorageFile for CountedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.calls.during(|| self.file.read_at(buf, offset))
    }

    fn write_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        self.calls.during(|| self.file.write_at(parts, offset))?;
        self.metrics.disk_bytes.inc_by(bytes);
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.calls.during(|| self.file.allocate(bytes))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.calls.during(|| self.file.set_len(bytes))
    }

    fn len(&self) -> io::Result<u64> {
        self.calls.during(|| self.file.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.metrics.fsyncs.add(self.of, 1);
        self.calls.during(|| self.file.sync())
    }

    fn inode(&self) -> io::Result<u64> {
        self.calls.during(|| self.file.inode())
    }

    fn lock(&self) -> io::Result<()> {
        self.calls.during(|| self.file.lock())
    }
}
