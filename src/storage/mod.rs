//! What the spool and the collector's files ask of a disk, as a thin trait; [`Disk`] is the real one. Tests put
//! a failing one between, or one in memory that forgets at a power cut what was not synced.
//!
//! Nothing here knows what the bytes mean.

mod disk;
#[cfg(test)]
pub(crate) mod memory;

pub use disk::Disk;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// How a file is opened. Where it does not say so, symbolic links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To read; it must be there.
    Read,
    /// To read and write; it must be there.
    Write,
    /// To read and write; made with mode 0600 if it is not there, emptied if it is.
    Create,
    /// To read and write; made with mode 0600 if it is not there, left as it is otherwise.
    Keep,
    /// To read; it must be there. A symbolic link leads to it.
    ReadLinked,
    /// As [`Mode::Keep`], but for others to read: made with mode 0640, and a symbolic link leads to it.
    Live,
}

/// What lies at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// A regular file's size in bytes.
    pub bytes: u64,
    /// Tells it apart from all files beside it, whatever their names: the inode's number.
    pub inode: u64,
}

/// One thing found in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the folder; entries whose names are not UTF-8 are not listed.
    pub name: String,
    /// A regular file's size in bytes; `None` for anything else.
    pub file_bytes: Option<u64>,
}

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What an ordinary user may still write.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// A place to keep files. Every call blocks.
pub trait Storage: Debug + Send + Sync {
    /// Makes a folder with these permissions, and what lies above it, each durable in the one above.
    fn create_dir(&self, dir: &Path, permissions: u32) -> io::Result<()>;
    /// What a folder holds, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// What lies at a path; `None` if nothing does. Symbolic links are followed.
    fn look(&self, path: &Path) -> io::Result<Option<Found>>;
    /// Opens a file.
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn StorageFile>>;
    /// Gives a file another name, in the place of what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name, where none is.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// How much room the file system of a folder has.
    fn room(&self, dir: &Path) -> io::Result<Room>;
}

/// An open file. Every call blocks.
pub trait StorageFile: Debug + Send + Sync {
    /// Reads until `buf` is full or the file ends; says how much.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `parts`, one after the other.
    fn write_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes sure that the file has this size and that its blocks are there.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Cuts or lengthens the file.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// The file's size.
    fn len(&self) -> io::Result<u64>;
    /// Makes what was written durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// The inode's number.
    fn inode(&self) -> io::Result<u64>;
    /// Takes the file for this process alone as long as it is open; `WouldBlock` when another has it.
    fn lock(&self) -> io::Result<()>;
}
