//! Files and folders in memory, each as it is now and as the medium has it.
//!
//! | what | durable by |
//! |---|---|
//! | a file's bytes and size | fsync or fdatasync of the file |
//! | a name in a folder: made, gone, renamed | fsync of the folder; a rename over two folders by that of either |
//!
//! A failed fsync forgets what was to be written, as Linux may: the file reads as before, a later fsync
//! succeeds, and the medium never gets it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use fuser::Errno;

use super::losses::Losses;
use crate::support::Numbers;

/// The top folder's inode.
pub const ROOT: u64 = 1;
/// What a file takes on the medium comes in blocks of so many bytes.
pub const BLOCK_BYTES: u64 = 4096;
/// The medium writes so many bytes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// Paths of files and their bytes.
pub type Image = BTreeMap<String, Vec<u8>>;

/// What goes wrong, until it is set otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// So many fsyncs from now on answer EIO,
    pub failing_syncs: u32,
    /// those of files whose names begin like this.
    pub failing_names: &'static str,
    /// Writes answer EIO.
    pub writes_fail: bool,
    /// Everything that would change something answers EROFS.
    pub read_only: bool,
    /// fallocate answers EOPNOTSUPP.
    pub no_fallocate: bool,
    /// No more than this may be taken; beyond it is ENOSPC.
    pub room_bytes: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            failing_syncs: 0,
            failing_names: "",
            writes_fail: false,
            read_only: false,
            no_fallocate: false,
            room_bytes: 1 << 30,
        }
    }
}

/// A change of a file that is not durable.
#[derive(Debug)]
enum Change {
    Bytes { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Length(bytes) => to.resize(*bytes as usize, 0),
            Change::Bytes { offset, bytes } => {
                let (start, end) = (*offset as usize, *offset as usize + bytes.len());
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[start..end].copy_from_slice(bytes);
            }
        }
    }

    /// What of a write is on the medium when the power fails in its middle: up to the border of a sector, or
    /// from there on.
    fn tear(&self, numbers: &mut Numbers) -> Option<Change> {
        let Change::Bytes { offset, bytes } = self else { return None };
        let end = offset + bytes.len() as u64;
        let first = (offset + 1).next_multiple_of(SECTOR_BYTES);
        let borders = (end.saturating_sub(first)).div_ceil(SECTOR_BYTES);
        if borders == 0 {
            return None;
        }
        let border = first + SECTOR_BYTES * numbers.below(borders as usize) as u64;
        let (before, after) = bytes.split_at((border - offset) as usize);
        Some(match numbers.below(4) {
            0 => Change::Bytes { offset: border, bytes: after.to_vec() },
            _ => Change::Bytes { offset: *offset, bytes: before.to_vec() },
        })
    }
}

#[derive(Debug, Default)]
pub struct File {
    pub now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Which blocks are taken.
    blocks: Vec<bool>,
    opened: u32,
}

#[derive(Debug, Default)]
pub struct Folder {
    pub now: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
}

#[derive(Debug)]
pub enum Content {
    File(File),
    Folder(Folder),
}

#[derive(Debug)]
pub struct Node {
    pub content: Content,
    pub mode: u16,
    pub changed: SystemTime,
}

impl Node {
    fn new(content: Content, mode: u32) -> Self {
        Self { content, mode: (mode & 0o7777) as u16, changed: SystemTime::now() }
    }

    fn as_folder(&self) -> Option<&Folder> {
        if let Content::Folder(folder) = &self.content { Some(folder) } else { None }
    }

    fn is_open(&self) -> bool {
        matches!(&self.content, Content::File(file) if file.opened > 0)
    }

    pub fn blocks(&self) -> u64 {
        match &self.content {
            Content::File(file) => file.blocks.iter().filter(|taken| **taken).count() as u64,
            Content::Folder(_) => 0,
        }
    }
}

/// Names that change together: folder, name, inode if it is one from then on.
type NameChange = Vec<(u64, String, Option<u64>)>;

/// All of it.
#[derive(Debug)]
pub struct Files {
    pub faults: Faults,
    /// Files whose names were removed or given to others, as they were on the medium then: (name, bytes).
    pub gone: Vec<(String, Vec<u8>)>,
    nodes: BTreeMap<u64, Node>,
    names: Vec<NameChange>,
    next_inode: u64,
}

impl Default for Files {
    fn default() -> Self {
        let root = Node::new(Content::Folder(Folder::default()), 0o755);
        let nodes = BTreeMap::from([(ROOT, root)]);
        Self { faults: Faults::default(), gone: Vec::new(), nodes, names: Vec::new(), next_inode: ROOT + 1 }
    }
}

impl Files {
    pub fn node(&self, inode: u64) -> Result<&Node, Errno> {
        self.nodes.get(&inode).ok_or(Errno::ENOENT)
    }

    pub fn folder(&self, inode: u64) -> Result<&Folder, Errno> {
        match &self.node(inode)?.content {
            Content::Folder(folder) => Ok(folder),
            Content::File(_) => Err(Errno::ENOTDIR),
        }
    }

    pub fn find(&self, folder: u64, name: &str) -> Result<u64, Errno> {
        self.folder(folder)?.now.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn folder_mut(&mut self, inode: u64) -> Result<&mut Folder, Errno> {
        match self.nodes.get_mut(&inode).map(|node| &mut node.content) {
            Some(Content::Folder(folder)) => Ok(folder),
            Some(Content::File(_)) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn file_mut(&mut self, inode: u64) -> Result<&mut File, Errno> {
        let node = self.nodes.get_mut(&inode).ok_or(Errno::ENOENT)?;
        match &mut node.content {
            Content::File(file) => Ok(file),
            Content::Folder(_) => Err(Errno::EISDIR),
        }
    }

    fn may_change(&self) -> Result<(), Errno> {
        if self.faults.read_only { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// Bytes that are taken: by what has a name now or is open.
    pub fn used_bytes(&self) -> u64 {
        let mut named = BTreeSet::from([ROOT]);
        for folder in self.nodes.values().filter_map(Node::as_folder) {
            named.extend(folder.now.values());
        }
        let taken = |(inode, node): &(&u64, &Node)| named.contains(*inode) || node.is_open();
        self.nodes.iter().filter(taken).map(|(_, node)| node.blocks()).sum::<u64>() * BLOCK_BYTES
    }

    /// Whether everything is durable that was not forgotten, but for `positions`: they are synced only before something
    /// goes by them.
    pub fn is_clean(&self) -> bool {
        let positions = |content: &Content| match content {
            Content::Folder(folder) => folder.now.get("positions").copied(),
            Content::File(_) => None,
        };
        let left_out: BTreeSet<u64> =
            self.nodes.values().filter_map(|node| positions(&node.content)).collect();
        let changes = |file: &File| !file.pending.is_empty() && file.now != file.durable;
        let dirty = |node: &Node| matches!(&node.content, Content::File(file) if changes(file));
        self.names.is_empty()
            && !self.nodes.iter().any(|(inode, node)| dirty(node) && !left_out.contains(inode))
    }

    pub fn open(&mut self, inode: u64) -> Result<(), Errno> {
        self.file_mut(inode)?.opened += 1;
        Ok(())
    }

    pub fn release(&mut self, inode: u64) {
        if let Ok(file) = self.file_mut(inode) {
            file.opened = file.opened.saturating_sub(1);
        }
        self.sweep();
    }

    pub fn read(&self, inode: u64, offset: u64, bytes: usize) -> Result<&[u8], Errno> {
        let Content::File(file) = &self.node(inode)?.content else { return Err(Errno::EISDIR) };
        let start = file.now.len().min(offset as usize);
        Ok(&file.now[start..file.now.len().min(start + bytes)])
    }

    pub fn write(&mut self, inode: u64, offset: u64, bytes: Vec<u8>) -> Result<u32, Errno> {
        self.may_change()?;
        if self.faults.writes_fail {
            return Err(Errno::EIO);
        }
        let written = bytes.len() as u32;
        self.take_blocks(inode, offset, offset + u64::from(written))?;
        self.change(inode, Change::Bytes { offset, bytes })?;
        Ok(written)
    }

    pub fn allocate(&mut self, inode: u64, offset: u64, bytes: u64, keeps_size: bool) -> Result<(), Errno> {
        self.may_change()?;
        if self.faults.no_fallocate {
            return Err(Errno::EOPNOTSUPP);
        }
        let end = offset + bytes;
        self.take_blocks(inode, offset, end)?;
        if !keeps_size && (self.file_mut(inode)?.now.len() as u64) < end {
            self.change(inode, Change::Length(end))?;
        }
        Ok(())
    }

    pub fn set_len(&mut self, inode: u64, bytes: u64) -> Result<(), Errno> {
        self.may_change()?;
        let file = self.file_mut(inode)?;
        file.blocks.truncate(bytes.div_ceil(BLOCK_BYTES) as usize);
        self.change(inode, Change::Length(bytes))
    }

    pub fn set_mode(&mut self, inode: u64, mode: u32) -> Result<(), Errno> {
        self.may_change()?;
        self.nodes.get_mut(&inode).ok_or(Errno::ENOENT)?.mode = (mode & 0o7777) as u16;
        Ok(())
    }

    fn change(&mut self, inode: u64, change: Change) -> Result<(), Errno> {
        let file = self.file_mut(inode)?;
        change.apply(&mut file.now);
        file.pending.push(change);
        self.nodes.get_mut(&inode).ok_or(Errno::ENOENT)?.changed = SystemTime::now();
        Ok(())
    }

    fn take_blocks(&mut self, inode: u64, from: u64, to: u64) -> Result<(), Errno> {
        let free = self.faults.room_bytes.saturating_sub(self.used_bytes()) / BLOCK_BYTES;
        let file = self.file_mut(inode)?;
        let wanted = (from / BLOCK_BYTES) as usize..to.div_ceil(BLOCK_BYTES) as usize;
        let taken = |block: &usize| file.blocks.get(*block).copied().unwrap_or_default();
        if wanted.clone().filter(|block| !taken(block)).count() as u64 > free {
            return Err(Errno::ENOSPC);
        }
        if file.blocks.len() < wanted.end {
            file.blocks.resize(wanted.end, false);
        }
        file.blocks[wanted].fill(true);
        Ok(())
    }

    /// fsync and fdatasync.
    pub fn sync(&mut self, inode: u64) -> Result<(), Errno> {
        let read_only = self.faults.read_only;
        let named = self.name_of(inode).is_none_or(|name| name.starts_with(self.faults.failing_names));
        let fails = named && self.faults.failing_syncs > 0;
        self.faults.failing_syncs -= u32::from(fails);
        let file = self.file_mut(inode)?;
        let pending = std::mem::take(&mut file.pending);
        if fails || (read_only && !pending.is_empty()) {
            return Err(Errno::EIO);
        }
        pending.iter().for_each(|change| change.apply(&mut file.durable));
        Ok(())
    }

    /// fsync of a folder.
    pub fn sync_folder(&mut self, folder: u64) -> Result<(), Errno> {
        self.folder(folder)?;
        if self.faults.failing_syncs > 0 && self.faults.failing_names.is_empty() {
            self.faults.failing_syncs -= 1;
            return Err(Errno::EIO);
        }
        let touches = |change: &NameChange| change.iter().any(|(of, ..)| *of == folder);
        let (durable, pending) = std::mem::take(&mut self.names).into_iter().partition(touches);
        self.names = pending;
        self.keep_names(durable);
        self.sweep();
        Ok(())
    }

    fn keep_names(&mut self, changes: Vec<NameChange>) {
        for (folder, name, inode) in changes.into_iter().flatten() {
            let Ok(folder) = self.folder_mut(folder) else { continue };
            match inode {
                Some(inode) => folder.durable.insert(name, inode),
                None => folder.durable.remove(&name),
            };
        }
    }

    fn rename_all(&mut self, change: NameChange) -> Result<(), Errno> {
        self.may_change()?;
        for (folder, name, inode) in &change {
            let folder = self.folder_mut(*folder)?;
            let before = match inode {
                Some(inode) => folder.now.insert(name.clone(), *inode),
                None => folder.now.remove(name),
            };
            if let Some(Content::File(file)) = before.and_then(|it| self.nodes.get(&it)).map(|it| &it.content)
            {
                self.gone.push((name.clone(), file.durable.clone()));
            }
        }
        self.names.push(change);
        self.sweep();
        Ok(())
    }

    pub fn make(&mut self, folder: u64, name: &str, content: Content, mode: u32) -> Result<u64, Errno> {
        self.may_change()?;
        if self.folder(folder)?.now.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.nodes.insert(inode, Node::new(content, mode));
        self.rename_all(vec![(folder, name.to_owned(), Some(inode))])?;
        Ok(inode)
    }

    pub fn link(&mut self, inode: u64, folder: u64, name: &str) -> Result<(), Errno> {
        if self.folder(folder)?.now.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.rename_all(vec![(folder, name.to_owned(), Some(inode))])
    }

    pub fn remove(&mut self, folder: u64, name: &str) -> Result<(), Errno> {
        self.find(folder, name)?;
        self.rename_all(vec![(folder, name.to_owned(), None)])
    }

    pub fn remove_folder(&mut self, folder: u64, name: &str) -> Result<(), Errno> {
        let inode = self.find(folder, name)?;
        if !self.folder(inode)?.now.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.remove(folder, name)
    }

    pub fn rename(&mut self, from: (u64, &str), to: (u64, &str)) -> Result<(), Errno> {
        let inode = self.find(from.0, from.1)?;
        if from != to {
            self.rename_all(vec![(from.0, from.1.to_owned(), None), (to.0, to.1.to_owned(), Some(inode))])?;
        }
        Ok(())
    }

    /// Lets go of what has no name, now, on the medium or on its way there, and is not open.
    fn sweep(&mut self) {
        let mut named = BTreeSet::from([ROOT]);
        for folder in self.nodes.values().filter_map(Node::as_folder) {
            named.extend(folder.now.values().chain(folder.durable.values()));
        }
        named.extend(self.names.iter().flatten().filter_map(|(.., inode)| *inode));
        self.nodes.retain(|inode, node| named.contains(inode) || node.is_open());
    }

    /// What is surely on the medium.
    pub fn durable(&self) -> Image {
        self.image(|folder| &folder.durable, |file| &file.durable)
    }

    /// What a reader sees.
    pub fn now(&self) -> Image {
        self.image(|folder| &folder.now, |file| &file.now)
    }

    fn image(
        &self,
        names: impl Fn(&Folder) -> &BTreeMap<String, u64>,
        bytes: impl Fn(&File) -> &Vec<u8>,
    ) -> Image {
        let mut image = Image::new();
        let mut folders = vec![(String::new(), ROOT)];
        while let Some((above, inode)) = folders.pop() {
            let Ok(folder) = self.folder(inode) else { continue };
            for (name, inode) in names(folder) {
                let path = format!("{above}{name}");
                match self.nodes.get(inode).map(|node| &node.content) {
                    Some(Content::File(file)) => drop(image.insert(path, bytes(file).clone())),
                    Some(Content::Folder(_)) => folders.push((format!("{path}/"), *inode)),
                    None => {}
                }
            }
        }
        image
    }

    /// The power fails.
    pub fn cut(&mut self, losses: &mut Losses) {
        let names = std::mem::take(&mut self.names);
        let names = names.into_iter().filter(|_| losses.keep()).collect();
        self.keep_names(names);
        for node in self.nodes.values_mut() {
            match &mut node.content {
                Content::Folder(folder) => folder.now.clone_from(&folder.durable),
                Content::File(file) => {
                    let last = file.pending.len().saturating_sub(1);
                    for (place, change) in std::mem::take(&mut file.pending).into_iter().enumerate() {
                        let tears = losses.tears && (place == last || losses.numbers.below(4) == 0);
                        if let Some(torn) = tears.then(|| change.tear(&mut losses.numbers)).flatten() {
                            torn.apply(&mut file.durable);
                            losses.tears = false;
                        } else if losses.keep() {
                            change.apply(&mut file.durable);
                        }
                    }
                    file.now.clone_from(&file.durable);
                    file.blocks = vec![true; file.now.len().div_ceil(BLOCK_BYTES as usize)];
                    file.opened = 0;
                }
            }
        }
        self.sweep();
    }

    /// A name of an inode.
    fn name_of(&self, inode: u64) -> Option<&str> {
        let folders = self.nodes.values().filter_map(Node::as_folder);
        let mut names = folders.flat_map(|folder| &folder.now);
        names.find(|(_, named)| **named == inode).map(|(name, _)| name.as_str())
    }
}
