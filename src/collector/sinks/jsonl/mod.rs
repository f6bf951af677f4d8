//! Records as JSON lines in files that only grow, each record once.
//!
//! The file at `path` is being written. When it is full by size or age it is renamed once, never over another
//! file, to `<stem>-<start, UTC>-<number, 8 digits>.<extension>`, such as
//! `flows-20261123T140000Z-00000007.jsonl`; numbers only grow. Nothing else in the folder begins with the
//! stem: what is set aside is called `orphan-...`.
//!
//! # The commit
//!
//! The mark store keeps one [`FileRow`]: which file is written, where the last group of batches begins in it
//! and what its text is (length, CRC). A group is committed in three steps, and acked after the third:
//!
//! 1. the transaction: the marks, the row, and the payloads that the group's text is rendered from;
//! 2. if the row says so, the rotation: the full file is renamed, the next one made;
//! 3. the text is written at its offset and synced.
//!
//! # After a crash
//!
//! | if the crash came | then at start |
//! |---|---|
//! | before the transaction | nothing: the proxy sends the batches again |
//! | before the rename | the rename is done, then the text is written |
//! | before or in the write | the text is written again at its offset; a reader that follows the file sees no byte change |
//! | after it | the text is there, maybe no further than the kernel: it is written over itself and synced |
//!
//! | if at start | then |
//! |---|---|
//! | the store is new and a file is there | it is renamed `orphan-...`: nothing is appended to it |
//! | the file is longer than the last group's end, or younger files are there: the store was set back | all bytes younger than the store are set aside as `orphan-...`, the older ones stay under their names, a new file begins; said as an error |
//! | the file is shorter than it was, or gone | what is there is finished, a new file begins with the last group; said as an error unless nothing was under way |
//! | the text would be another (newer software) and was cut off by the crash | the cut part is taken off, the file finished, the group begins a new one |
//!
//! | if, while it runs | then |
//! |---|---|
//! | the file was moved, removed, cut or replaced by somebody | the next group is not written there: what a start would do is done, so that the group begins a new file; said as an error |
//!
//! An fsync that failed is never repeated on the same descriptor: the file is opened again, the whole group
//! written again, then synced.

mod names;
mod recover;

use crate::collector::marks::{MarkStore, StoreError};
use crate::storage::StorageFile;
use names::Names;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use recover::{recover, retire};

/// What the JSONL sink is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file that is being written.
    pub path: PathBuf,
    /// A file is full when the next group would take it over this.
    pub max_bytes: u64,
    /// A file is full when its first record is older than this.
    pub max_age: Duration,
}

impl Settings {
    /// 1 GiB or an hour, whichever comes first.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_bytes: 1 << 30, max_age: Duration::from_secs(3600) }
    }
}

/// Why the sink does not work.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file or its folder does not work.
    #[error("{} can not be written: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A full file can not be renamed, since its name is taken.
    #[error("{} is there already; move it away, the full file gets that name", path.display())]
    Taken {
        /// The name.
        path: PathBuf,
    },
    /// The live file is not the one that was written, or has not all that was written to it.
    #[error("{} was moved, removed, cut or replaced while it was being written", path.display())]
    Astray {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else writes the file.
    #[error("{} is being written by another collector", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The path has no file name.
    #[error("\"{}\" is not the path of a file", path.display())]
    Name {
        /// The path.
        path: PathBuf,
    },
    /// The mark store does not work.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where the sink stands; durable in the mark store.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileRow {
    /// The file being written.
    pub path: PathBuf,
    /// Its number.
    pub number: u64,
    /// When its first group was committed, in milliseconds since 1970; 0 while it is empty.
    pub started_ms: u64,
    /// Where the last group begins in it.
    pub offset: u64,
    /// Bytes of the last group's text.
    pub group_bytes: u64,
    /// CRC32C of that text.
    pub group_crc: u32,
    /// The text is known to be written: a clean stop.
    pub done: bool,
    /// The file's inode; 0 while it is not known.
    pub inode: u64,
    /// The file before it, when the last transaction was a rotation.
    pub previous: Option<Full>,
}

/// A file that is full.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Full {
    /// Its number.
    pub number: u64,
    /// When its first group was committed, in milliseconds since 1970.
    pub started_ms: u64,
    /// Its inode; 0 if it is not known.
    pub inode: u64,
}

impl FileRow {
    /// As stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From what [`FileRow::to_bytes`] made; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Where the last group ends.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.group_bytes)
    }

    /// Nothing of the last group can be missing in the file.
    fn is_done(&self) -> bool {
        self.done || self.group_bytes == 0
    }

    /// The next file, after this one.
    fn next(&self, path: &Path, number: u64) -> Self {
        let previous = Full { number: self.number, started_ms: self.started_ms, inode: self.inode };
        let previous = (self.end() > 0).then_some(previous);
        Self { path: path.to_owned(), number, previous, ..Self::default() }
    }

    fn with_group(self, text: &[u8], now_ms: u64) -> Self {
        let started_ms = if self.end() == 0 { now_ms } else { self.started_ms };
        let (group_bytes, group_crc) = (text.len() as u64, crc32c::crc32c(text));
        Self { started_ms, offset: self.end(), group_bytes, group_crc, done: false, ..self }
    }
}

/// The file being written.
#[derive(Debug)]
pub struct File {
    settings: Settings,
    names: Names,
    /// As it is durable in the store.
    row: FileRow,
    /// The number of the file that lies at `path`.
    number_at_path: u64,
    /// `None` until it is first written, and after a failure.
    open: Option<Arc<dyn StorageFile>>,
    /// The inode of the file at `path`; 0 until it is opened.
    inode: u64,
    /// The file at `path` is not that one any more.
    astray: bool,
}

impl File {
    fn new(settings: Settings, names: Names, row: FileRow) -> Self {
        let number_at_path = row.number;
        Self { settings, names, row, number_at_path, open: None, inode: 0, astray: false }
    }

    /// The row that makes `text` the next group. Nothing is changed yet.
    pub fn plan(&self, text: &[u8], now_ms: u64) -> FileRow {
        let end = self.row.end();
        let full = end > 0 && end.saturating_add(text.len() as u64) > self.settings.max_bytes;
        let base = if full || self.is_old(now_ms) {
            self.rotated()
        } else {
            FileRow { previous: None, ..self.row.clone() }
        };
        base.with_group(text, now_ms)
    }

    /// The row that ends a file which is full by age, if it is.
    pub fn plan_rotation(&self, now_ms: u64) -> Option<FileRow> {
        self.is_old(now_ms).then(|| self.rotated())
    }

    /// The row that says that nothing is under way: for a clean stop.
    pub fn plan_stop(&self) -> FileRow {
        FileRow { previous: None, done: true, ..self.row.clone() }
    }

    /// Does what `row`, which is durable in the store by now, says: rotates if it must, writes the group's
    /// `text` and syncs. After an error it may be called again with the same arguments.
    ///
    /// # Errors
    /// When the file can not be renamed, made, written or synced. After [`FileError::Astray`] only
    /// [`File::begin_again`] helps.
    pub fn apply(&mut self, row: &FileRow, text: &[u8]) -> Result<(), FileError> {
        let full = row.previous.as_ref().filter(|full| full.number == self.number_at_path);
        self.look_for(if full.is_some() { self.row.end() } else { row.offset })?;
        if let Some(full) = full {
            (self.open, self.inode) = (None, 0);
            crash_point!("sink.rotate.before");
            self.names.finish(full.number, full.started_ms)?;
            crash_point!("sink.rotate");
            self.number_at_path = row.number;
        }
        let written = self.write(row.offset, text);
        match written {
            Ok(inode) => {
                self.row = FileRow { inode, ..row.clone() };
                Ok(())
            }
            Err(error) => {
                self.open = None;
                Err(error)
            }
        }
    }

    /// Does what a start would do, once somebody has meddled with the file: what the last durable row says
    /// stands in a file then.
    ///
    /// # Errors
    /// As for [`File::apply`]; it may be called again.
    pub fn begin_again(&mut self, store: &mut dyn MarkStore, now_ms: u64) -> Result<(), FileError> {
        self.open = None;
        *self = recover(self.names.disk(), self.settings.clone(), store, now_ms)?;
        Ok(())
    }

    /// Sees to it that the file at the path is the one that was written, with all of its first `bytes` bytes.
    fn look_for(&mut self, bytes: u64) -> Result<(), FileError> {
        if !self.astray {
            let found = self.names.look(self.names.live())?;
            self.astray = match found {
                Some(found) => found.bytes < bytes || (self.inode != 0 && self.inode != found.inode),
                None => bytes > 0 || self.open.is_some(),
            };
            if self.astray {
                let file = self.names.live().display();
                tracing::error!(%file, "Somebody has moved, removed, cut or replaced the file while it was being written");
            }
        }
        if self.astray { Err(FileError::Astray { path: self.settings.path.clone() }) } else { Ok(()) }
    }

    /// Makes the live file when it is not there, so that a wrong path shows at start.
    ///
    /// # Errors
    /// When it can not be made, or another collector writes it.
    pub fn prepare(&mut self) -> Result<(), FileError> {
        self.row.inode = self.write(self.row.end(), &[])?;
        Ok(())
    }

    fn write(&mut self, offset: u64, text: &[u8]) -> Result<u64, FileError> {
        let fault = |source| FileError::Io { path: self.settings.path.clone(), source };
        if self.open.is_none() {
            self.open = Some(self.names.open_live()?);
        }
        let Some(file) = &self.open else { return Ok(0) };
        self.inode = file.inode().map_err(fault)?;
        if !text.is_empty() {
            file.write_at(&mut [IoSlice::new(text)], offset).map_err(fault)?;
            crash_point!("sink.write");
            file.sync().map_err(fault)?;
            crash_point!("sink.sync");
        }
        Ok(self.inode)
    }

    fn rotated(&self) -> FileRow {
        self.row.next(&self.settings.path, self.row.number.saturating_add(1))
    }

    fn is_old(&self, now_ms: u64) -> bool {
        let age = u128::from(now_ms.saturating_sub(self.row.started_ms));
        self.row.end() > 0 && age >= self.settings.max_age.as_millis()
    }
}
