//! A disk that fails when told to.

use crate::storage::{Disk, Entry, Found, Mode, Room, Storage, StorageFile};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What fails from now on.
#[derive(Debug, Default)]
pub struct Faults {
    /// So many more syncs of files fail with EIO.
    pub failing_syncs: AtomicU64,
    /// So many more appends to segments fail with EIO.
    pub failing_writes: AtomicU64,
    /// No room for new files.
    pub full: AtomicBool,
    /// No file may be changed or removed.
    pub read_only: AtomicBool,
    /// Reads of segments that touch this offset fail with EIO; 0 is none.
    pub bad_sector: AtomicU64,
    /// What was synced, renamed and removed, in order.
    pub log: Mutex<Vec<String>>,
}

impl Faults {
    fn take(count: &AtomicU64) -> bool {
        count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    fn note(&self, what: &str, path: &Path) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        self.log.lock().unwrap().push(format!("{what} {name}"));
    }

    fn changing(&self) -> io::Result<()> {
        if self.read_only.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(())
    }
}

/// [`Disk`] behind its faults.
#[derive(Debug, Default)]
pub struct Faulty(pub Arc<Faults>);

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn StorageFile>,
    path: std::path::PathBuf,
    faults: Arc<Faults>,
}

impl Storage for Faulty {
    fn create_dir(&self, dir: &Path, permissions: u32) -> io::Result<()> {
        Disk.create_dir(dir, permissions)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        Disk.list(dir)
    }

    fn look(&self, path: &Path) -> io::Result<Option<Found>> {
        Disk.look(path)
    }

    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn StorageFile>> {
        if mode != Mode::Read {
            self.0.changing()?;
        }
        let file = Disk.open(path, mode)?;
        Ok(Arc::new(FaultyFile { file, path: path.to_owned(), faults: self.0.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.changing()?;
        self.0.note("name", to);
        Disk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.changing()?;
        Disk.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.changing()?;
        self.0.note("remove", path);
        Disk.remove(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.changing()?;
        Disk.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.sync_dir(dir)
    }

    fn room(&self, dir: &Path) -> io::Result<Room> {
        Disk.room(dir)
    }
}

impl StorageFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bad = self.faults.bad_sector.load(Ordering::SeqCst);
        let segment = self.path.to_string_lossy().contains("seg-");
        if bad > 0 && segment && (offset..offset + buf.len() as u64).contains(&bad) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.faults.changing()?;
        let appends = self.path.ends_with("unfinished.new") && offset > 0;
        if appends && Faults::take(&self.faults.failing_writes) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.file.write_at(parts, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.faults.changing()?;
        if self.faults.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.allocate(bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.faults.changing()?;
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.changing()?;
        if Faults::take(&self.faults.failing_syncs) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.faults.note("sync", &self.path);
        self.file.sync()
    }

    fn inode(&self) -> io::Result<u64> {
        self.file.inode()
    }

    fn lock(&self) -> io::Result<()> {
        self.file.lock()
    }
}
