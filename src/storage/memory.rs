//! A disk in memory that knows what a power cut takes: what was written and not synced, names that were not
//! synced with their folder. It fails when told to.
//!
//! At a cut each change that was not synced is kept, dropped or torn by itself, as write-back might have had
//! it. After a sync that failed, what was to be synced is never durable unless it is written again (Linux
//! calls such pages clean). A process that is killed loses nothing but its open files.

use super::{Entry, Found, Mode, Room, Storage, StorageFile};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A write is torn at a multiple of this.
const SECTOR_BYTES: usize = 512;
const EIO: i32 = 5;

/// What fails from now on.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// So many more syncs of files fail.
    pub failing_syncs: u32,
    /// So many more writes fail.
    pub failing_writes: u32,
    /// Nothing may be changed.
    pub read_only: bool,
    /// So many more changes, syncs of files among them, and then none.
    pub changes_left: Option<u64>,
    /// The most bytes that files may take; 0: no limit.
    pub capacity: u64,
}

/// How a cut treats what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All of it is gone.
    Nothing,
    /// All of it had been written back.
    Everything,
    /// Each change by itself.
    Some,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => write(to, *offset, bytes),
            Change::Len(bytes) => to.resize(*bytes, 0),
        }
    }
}

fn write(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if to.len() < offset + bytes.len() {
        to.resize(offset + bytes.len(), 0);
    }
    to[offset..offset + bytes.len()].copy_from_slice(bytes);
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    locked_in: Option<u64>,
}

#[derive(Clone, Debug)]
enum Naming {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, u64),
}

impl Naming {
    fn is_in(&self, dir: &Path) -> bool {
        let within = |path: &PathBuf| path.parent() == Some(dir);
        match self {
            Naming::Link(path, _) | Naming::Unlink(path) => within(path),
            Naming::Rename(from, to, _) => within(from) || within(to),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Naming::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Naming::Unlink(path) => {
                names.remove(path);
            }
            Naming::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    /// Open files of an earlier life are dead.
    life: u64,
    inodes: BTreeMap<u64, Inode>,
    last_inode: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<Naming>,
    dirs: BTreeSet<PathBuf>,
    faults: Faults,
    /// A sync of a file has failed.
    failed: bool,
}

impl State {
    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.pending_names.push(naming);
    }

    fn used(&self) -> u64 {
        let held: BTreeSet<u64> = self.names.values().copied().collect();
        held.iter().filter_map(|inode| self.inodes.get(inode)).map(|inode| inode.now.len() as u64).sum()
    }

    fn changing(&mut self) -> io::Result<()> {
        if self.faults.read_only || self.faults.changes_left == Some(0) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.faults.changes_left = self.faults.changes_left.map(|left| left - 1);
        Ok(())
    }

    fn fits(&self, inode: u64, bytes: u64) -> io::Result<()> {
        let grows = bytes.saturating_sub(self.inodes.get(&inode).map_or(0, |inode| inode.now.len() as u64));
        if grows > 0 && self.faults.capacity > 0 && self.used() + grows > self.faults.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn inode_of(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn forget_nameless(&mut self) {
        let held: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|number, _| held.contains(number));
    }
}

/// The disk.
#[derive(Debug, Default)]
pub struct Memory(Arc<Mutex<State>>);

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what fails.
    pub fn fail(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
    }

    /// Whether a sync has failed since the last power cut.
    pub fn has_failed(&self) -> bool {
        self.state().failed
    }

    /// The process died; the machine did not.
    pub fn kill(&self) {
        let mut state = self.state();
        state.life += 1;
        state.inodes.values_mut().for_each(|inode| inode.locked_in = None);
    }

    /// The power fails. What fails otherwise is over too.
    pub fn cut(&self, cut: Cut, rng: &mut impl Rng) {
        let mut state = self.state();
        let state = &mut *state;
        state.life += 1;
        state.failed = false;
        state.faults = Faults { capacity: state.faults.capacity, ..Faults::default() };
        let kept = |rng: &mut dyn rand::RngCore| match cut {
            Cut::Nothing => false,
            Cut::Everything => true,
            Cut::Some => rng.random_bool(0.5),
        };
        for inode in state.inodes.values_mut() {
            for change in std::mem::take(&mut inode.pending) {
                match change {
                    Change::Write { offset, bytes } if cut == Cut::Some && rng.random_bool(0.2) => {
                        let sectors = bytes.len() / SECTOR_BYTES + 1;
                        let torn = rng.random_range(0..sectors) * SECTOR_BYTES;
                        write(&mut inode.durable, offset, &bytes[..torn]);
                    }
                    change if kept(rng) => change.apply(&mut inode.durable),
                    _ => {}
                }
            }
            inode.now = inode.durable.clone();
            inode.locked_in = None;
        }
        for naming in std::mem::take(&mut state.pending_names) {
            if kept(rng) {
                naming.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        state.forget_nameless();
    }

    /// Another disk with all that is on this one now, as a backup takes it.
    pub fn copy(&self) -> Self {
        let mut state = self.state().clone();
        for inode in state.inodes.values_mut() {
            inode.durable = inode.now.clone();
            inode.pending.clear();
            inode.locked_in = None;
        }
        state.pending_names.clear();
        state.durable_names = state.names.clone();
        state.faults = Faults::default();
        state.forget_nameless();
        Self(Arc::new(Mutex::new(state)))
    }

    /// The bytes of all files that a power cut would leave whatever it took: by name.
    pub fn durable(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state();
        let file = |(path, inode): (&PathBuf, &u64)| {
            let bytes = state.inodes.get(inode).map(|inode| inode.durable.clone()).unwrap_or_default();
            (path.clone(), bytes)
        };
        state.durable_names.iter().map(file).collect()
    }

    /// All files as a reader sees them now: inode, name, bytes.
    pub fn files(&self) -> Vec<(u64, PathBuf, Vec<u8>)> {
        let state = self.state();
        let bytes = |inode: &u64| state.inodes.get(inode).map(|inode| inode.now.clone()).unwrap_or_default();
        state.names.iter().map(|(path, inode)| (*inode, path.clone(), bytes(inode))).collect()
    }

    /// Damages a file: `change` gets its bytes.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let Ok(number) = state.inode_of(path) else { return };
        let Some(inode) = state.inodes.get_mut(&number) else { return };
        change(&mut inode.now);
        inode.durable = inode.now.clone();
        inode.pending.clear();
    }
}

impl Storage for Memory {
    fn create_dir(&self, dir: &Path, _: u32) -> io::Result<()> {
        let mut state = self.state();
        if !state.dirs.contains(dir) {
            state.changing()?;
            state.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let state = self.state();
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let files = state.names.iter().filter(|(path, _)| path.parent() == Some(dir)).map(|(path, inode)| {
            let bytes = state.inodes.get(inode).map_or(0, |inode| inode.now.len() as u64);
            Entry { name: name(path), file_bytes: Some(bytes) }
        });
        let dirs = state.dirs.iter().filter(|path| path.parent() == Some(dir));
        Ok(files.chain(dirs.map(|path| Entry { name: name(path), file_bytes: None })).collect())
    }

    fn look(&self, path: &Path) -> io::Result<Option<Found>> {
        let state = self.state();
        let found = state.names.get(path).and_then(|number| Some((*number, state.inodes.get(number)?)));
        Ok(found.map(|(inode, held)| Found { bytes: held.now.len() as u64, inode }))
    }

    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn StorageFile>> {
        let mut state = self.state();
        if !matches!(mode, Mode::Read | Mode::ReadLinked) {
            state.changing()?;
        }
        let number = match state.inode_of(path) {
            Ok(number) => number,
            Err(_) if matches!(mode, Mode::Create | Mode::Keep | Mode::Live) => {
                state.last_inode += 1;
                let number = state.last_inode;
                state.inodes.insert(number, Inode::default());
                state.name(Naming::Link(path.to_owned(), number));
                number
            }
            Err(error) => return Err(error),
        };
        if mode == Mode::Create
            && let Some(inode) = state.inodes.get_mut(&number)
        {
            inode.now.clear();
            inode.pending.push(Change::Len(0));
        }
        let locks = AtomicBool::new(false);
        Ok(Arc::new(MemoryFile { state: self.0.clone(), life: state.life, number, locks }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.changing()?;
        let number = state.inode_of(from)?;
        state.name(Naming::Rename(from.to_owned(), to.to_owned(), number));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.changing()?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = state.inode_of(from)?;
        state.name(Naming::Link(to.to_owned(), number));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.changing()?;
        state.inode_of(path)?;
        state.name(Naming::Unlink(path.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.changing()?;
        if state.names.keys().any(|path| path.parent() == Some(dir)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.dirs.remove(dir);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let state = &mut *state;
        let (synced, pending) =
            std::mem::take(&mut state.pending_names).into_iter().partition(|n| n.is_in(dir));
        state.pending_names = pending;
        let synced: Vec<Naming> = synced;
        synced.iter().for_each(|naming| naming.apply(&mut state.durable_names));
        Ok(())
    }

    fn room(&self, _: &Path) -> io::Result<Room> {
        let state = self.state();
        let total = if state.faults.capacity > 0 { state.faults.capacity } else { 1 << 40 };
        Ok(Room { free: total.saturating_sub(state.used()), total })
    }
}

#[derive(Debug)]
struct MemoryFile {
    state: Arc<Mutex<State>>,
    life: u64,
    number: u64,
    locks: AtomicBool,
}

impl MemoryFile {
    fn with<T>(&self, work: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.life != self.life {
            return Err(io::Error::other("the process that opened this file is dead"));
        }
        work(&mut state, self.number)
    }

    fn inode(state: &mut State, number: u64) -> io::Result<&mut Inode> {
        state.inodes.get_mut(&number).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&self, change: Change) -> io::Result<()> {
        self.with(|state, number| {
            let inode = Self::inode(state, number)?;
            change.apply(&mut inode.now);
            inode.pending.push(change);
            Ok(())
        })
    }
}

impl StorageFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|state, number| {
            let bytes = &Self::inode(state, number)?.now;
            let there = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            let read = there.len().min(buf.len());
            buf[..read].copy_from_slice(&there[..read]);
            Ok(read)
        })
    }

    fn write_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.with(|state, number| {
            state.changing()?;
            state.fits(number, offset + bytes.len() as u64)?;
            if state.faults.failing_writes > 0 {
                state.faults.failing_writes -= 1;
                return Err(io::Error::from_raw_os_error(EIO));
            }
            Ok(())
        })?;
        self.change(Change::Write { offset: usize::try_from(offset).unwrap(), bytes })
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        if self.len()? < bytes { self.set_len(bytes) } else { Ok(()) }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.with(|state, number| {
            state.changing()?;
            state.fits(number, bytes)
        })?;
        self.change(Change::Len(usize::try_from(bytes).unwrap()))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|state, number| Ok(Self::inode(state, number)?.now.len() as u64))
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, number| {
            state.changing()?;
            let fails = state.faults.failing_syncs > 0;
            state.faults.failing_syncs -= u32::from(fails);
            let pending = std::mem::take(&mut Self::inode(state, number)?.pending);
            if fails {
                state.failed = true;
                return Err(io::Error::from_raw_os_error(EIO));
            }
            let inode = Self::inode(state, number)?;
            pending.iter().for_each(|change| change.apply(&mut inode.durable));
            Ok(())
        })
    }

    fn inode(&self) -> io::Result<u64> {
        Ok(self.number)
    }

    fn lock(&self) -> io::Result<()> {
        self.with(|state, number| {
            let life = state.life;
            let inode = Self::inode(state, number)?;
            match inode.locked_in {
                Some(held) if held == life => Err(io::ErrorKind::WouldBlock.into()),
                _ => {
                    inode.locked_in = Some(life);
                    self.locks.store(true, Ordering::Relaxed);
                    Ok(())
                }
            }
        })
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if self.locks.load(Ordering::Relaxed) {
            let _ = self.with(|state, number| {
                Self::inode(state, number)?.locked_in = None;
                Ok(())
            });
        }
    }
}
