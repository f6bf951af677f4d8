//! The disk of this machine.

use super::{Entry, Found, Mode, Room, Storage, StorageFile};
use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};
use rustix::io::Errno;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Storage for Disk {
    fn create_dir(&self, dir: &Path, permissions: u32) -> io::Result<()> {
        if dir.as_os_str().is_empty() || dir.is_dir() {
            return Ok(());
        }
        let above = dir.parent().unwrap_or(Path::new(""));
        self.create_dir(above, permissions)?;
        match DirBuilder::new().mode(permissions).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !dir.is_dir() => Err(error),
            _ => self.sync_dir(above),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let file_bytes = if kind.is_file() { Some(entry.metadata()?.len()) } else { None };
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(Entry { name, file_bytes });
            }
        }
        Ok(entries)
    }

    fn look(&self, path: &Path) -> io::Result<Option<Found>> {
        match std::fs::metadata(path) {
            Ok(found) => Ok(Some(Found { bytes: found.len(), inode: found.ino() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn StorageFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(!matches!(mode, Mode::Read | Mode::ReadLinked));
        options.create(matches!(mode, Mode::Create | Mode::Keep | Mode::Live)).truncate(mode == Mode::Create);
        options.mode(if mode == Mode::Live { 0o640 } else { 0o600 });
        if !matches!(mode, Mode::Live | Mode::ReadLinked) {
            options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        }
        Ok(Arc::new(DiskFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir)?.sync_all()
    }

    fn room(&self, dir: &Path) -> io::Result<Room> {
        let found = statvfs(dir)?;
        let unit = if found.f_frsize == 0 { found.f_bsize } else { found.f_frsize };
        Ok(Room { free: found.f_bavail.saturating_mul(unit), total: found.f_blocks.saturating_mul(unit) })
    }
}

/// A file of [`Disk`].
#[derive(Debug)]
struct DiskFile(File);

impl StorageFile for DiskFile {
    fn read_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<usize> {
        let mut taken = 0;
        while !buf.is_empty() {
            match self.0.read_at(buf, offset) {
                Ok(0) => break,
                Ok(read) => {
                    taken += read;
                    offset += read as u64;
                    buf = buf.get_mut(read..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    fn write_at(&self, mut parts: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        while parts.iter().any(|part| !part.is_empty()) {
            match rustix::io::pwritev(&self.0, parts, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut parts, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            // Not every file system can; then the size alone is set, and ENOSPC may come at a write.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) if self.len()? < bytes => self.set_len(bytes),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn inode(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.ino())
    }

    fn lock(&self) -> io::Result<()> {
        self.0.try_lock().map_err(io::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_down_to_the_last_one() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        Disk.create_dir(&deep, 0o700).unwrap();
        Disk.create_dir(&deep, 0o700).unwrap();
        assert!(deep.is_dir());
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(Disk.create_dir(&dir.path().join("file/below"), 0o700).is_err());
        assert!(Disk.create_dir(&dir.path().join("file"), 0o700).is_err());
    }
}
