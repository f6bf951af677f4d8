//! The folder `quarantine`: bytes that could not be read and batches that were refused, kept for people.
//! Bounded: the oldest files go first. Nothing in the program reads it.

use crate::storage::{Mode, Storage, StorageFile};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};

const DIR: &str = "quarantine";
/// Files kept.
const MAX_FILES: usize = 256;
/// Bytes kept. A file that is larger is kept alone.
const MAX_BYTES: u64 = 128 << 20;

/// Where quarantined files of the spool in `dir` lie.
pub fn path(dir: &Path) -> PathBuf {
    dir.join(DIR)
}

/// Writes a file of these parts, durable when it returns.
///
/// # Errors
/// Those of the disk.
pub fn put(storage: &dyn Storage, dir: &Path, name: &str, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    let dir = path(dir);
    storage.create_dir(&dir, 0o700)?;
    make_room(storage, &dir, parts.iter().map(|part| part.len() as u64).sum())?;
    let file = storage.open(&dir.join(dated(name)), Mode::Create)?;
    file.write_at(parts, 0)?;
    file.sync()?;
    storage.sync_dir(&dir)
}

/// Copies part of a file, as far as it can be read.
///
/// # Errors
/// Those of the disk on writing.
pub fn copy(
    storage: &dyn Storage,
    dir: &Path,
    name: &str,
    from: &dyn StorageFile,
    range: Range<u64>,
) -> io::Result<()> {
    let len = range.end.saturating_sub(range.start).min(MAX_BYTES);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    let read = from.read_at(&mut bytes, range.start).unwrap_or(0);
    bytes.truncate(read);
    put(storage, dir, name, &mut [IoSlice::new(&bytes)])
}

/// Moves a file here.
///
/// # Errors
/// Those of the disk.
pub fn take(storage: &dyn Storage, dir: &Path, name: &str, bytes: u64) -> io::Result<()> {
    let to = path(dir);
    storage.create_dir(&to, 0o700)?;
    make_room(storage, &to, bytes)?;
    storage.rename(&dir.join(name), &to.join(dated(name)))?;
    storage.sync_dir(&to)?;
    storage.sync_dir(dir)
}

/// A file's name here: the time in front, so that names are in order of age.
fn dated(name: &str) -> String {
    format!("{:013}-{name}", super::now_ms())
}

/// Removes the oldest files until one of that many bytes may be added.
fn make_room(storage: &dyn Storage, dir: &Path, bytes: u64) -> io::Result<()> {
    let mut files: Vec<(String, u64)> = storage
        .list(dir)?
        .into_iter()
        .filter_map(|entry| entry.file_bytes.map(|bytes| (entry.name, bytes)))
        .collect();
    files.sort();
    let mut held: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let mut count = files.len();
    for (name, file_bytes) in files {
        if count < MAX_FILES && held.saturating_add(bytes) <= MAX_BYTES {
            break;
        }
        storage.remove(&dir.join(name))?;
        held -= file_bytes;
        count -= 1;
    }
    Ok(())
}
