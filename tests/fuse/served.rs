//! The file system as the kernel asks for it. Nothing is cached by the kernel: each write comes here at once.

use std::ffi::OsStr;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::files::{BLOCK_BYTES, Content, File, Files, Folder};

/// How long the kernel may rely on what it was told.
const TTL: Duration = Duration::ZERO;
/// fallocate leaves the file's size (linux/falloc.h).
const FALLOC_FL_KEEP_SIZE: i32 = 1;
/// The file system's names are at most so long.
const NAME_BYTES: u32 = 255;

/// What the kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Names and sizes; answered even while the disk stalls.
    Look,
    Read,
    Write,
    /// fsync of a file.
    Sync,
    /// Names are made, removed, changed.
    Names,
    /// fsync of a folder.
    SyncFolder,
}

/// Whether requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// They wait.
    Shut,
    /// The power is off: EIO.
    Dead,
}

/// A request; what it is given says whether it is to be carried out.
type Asked = Box<dyn FnOnce(Result<&mut Files, Errno>) + Send>;

pub struct Inner {
    pub files: Files,
    pub gate: Gate,
    /// The gate shuts before the request of that kind which comes after so many.
    pub shut_at: Option<(Kind, usize)>,
    /// Requests that wait at the gate.
    pub waiting: Vec<Asked>,
}

/// Shared by the kernel's side and the test's.
pub struct Shared {
    inner: Mutex<Inner>,
    /// Something came to wait at the gate.
    pub changed: Condvar,
}

impl Shared {
    pub fn new(files: Files) -> Self {
        let inner = Inner { files, gate: Gate::Open, shut_at: None, waiting: Vec::new() };
        Self { inner: Mutex::new(inner), changed: Condvar::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is mounted.
pub struct Served(pub Arc<Shared>);

impl Served {
    fn pass(&self, kind: Kind, asked: impl FnOnce(Result<&mut Files, Errno>) + Send + 'static) {
        let mut inner = self.0.lock();
        if let Some((at, left)) = &mut inner.shut_at
            && *at == kind
        {
            if *left == 0 {
                inner.shut_at = None;
                inner.gate = Gate::Shut;
            } else {
                *left -= 1;
            }
        }
        match inner.gate {
            Gate::Dead => asked(Err(Errno::EIO)),
            Gate::Shut if kind != Kind::Look => {
                inner.waiting.push(Box::new(asked));
                self.0.changed.notify_all();
            }
            _ => asked(Ok(&mut inner.files)),
        }
    }
}

fn attributes(files: &Files, inode: u64) -> Result<FileAttr, Errno> {
    let node = files.node(inode)?;
    let (kind, size) = match &node.content {
        Content::File(file) => (FileType::RegularFile, file.now.len() as u64),
        Content::Folder(_) => (FileType::Directory, 0),
    };
    Ok(FileAttr {
        ino: INodeNo(inode),
        size,
        blocks: node.blocks() * (BLOCK_BYTES / 512),
        atime: node.changed,
        mtime: node.changed,
        ctime: node.changed,
        crtime: node.changed,
        kind,
        perm: node.mode,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES as u32,
        flags: 0,
    })
}

fn name_of(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

fn answer(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn enter(reply: ReplyEntry, result: Result<FileAttr, Errno>) {
    match result {
        Ok(found) => reply.entry(&TTL, &found, Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Served {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _ = config.set_max_write(1 << 20);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name_of(name);
        self.pass(Kind::Look, move |files| {
            let found = files.and_then(|files| attributes(files, files.find(parent.0, &name)?));
            enter(reply, found);
        });
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.pass(Kind::Look, move |files| match files.and_then(|files| attributes(files, ino.0)) {
            Ok(found) => reply.attr(&TTL, &found),
            Err(error) => reply.error(error),
        });
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = move |files: &mut Files| {
            size.map_or(Ok(()), |size| files.set_len(ino.0, size))?;
            mode.map_or(Ok(()), |mode| files.set_mode(ino.0, mode))?;
            attributes(files, ino.0)
        };
        self.pass(Kind::Write, move |files| match files.and_then(set) {
            Ok(found) => reply.attr(&TTL, &found),
            Err(error) => reply.error(error),
        });
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let name = name_of(name);
        let make = move |files: &mut Files| {
            let made = files.make(parent.0, &name, Content::Folder(Folder::default()), mode & !umask)?;
            attributes(files, made)
        };
        self.pass(Kind::Names, move |files| enter(reply, files.and_then(make)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name_of(name);
        self.pass(Kind::Names, move |files| {
            answer(reply, files.and_then(|files| files.remove(parent.0, &name)));
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name_of(name);
        self.pass(Kind::Names, move |files| {
            answer(reply, files.and_then(|files| files.remove_folder(parent.0, &name)));
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, newname) = (name_of(name), name_of(newname));
        let rename = move |files: &mut Files| {
            if !flags.is_empty() {
                return Err(Errno::EINVAL);
            }
            files.rename((parent.0, &name), (newparent.0, &newname))
        };
        self.pass(Kind::Names, move |files| answer(reply, files.and_then(rename)));
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let newname = name_of(newname);
        let link = move |files: &mut Files| {
            files.link(ino.0, newparent.0, &newname)?;
            attributes(files, ino.0)
        };
        self.pass(Kind::Names, move |files| enter(reply, files.and_then(link)));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let name = name_of(name);
        let make = move |files: &mut Files| {
            let made = files.make(parent.0, &name, Content::File(File::default()), mode & !umask)?;
            files.open(made)?;
            attributes(files, made)
        };
        self.pass(Kind::Names, move |files| match files.and_then(make) {
            Ok(made) => {
                reply.created(&TTL, &made, Generation(0), FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(error) => reply.error(error),
        });
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.pass(Kind::Look, move |files| match files.and_then(|files| files.open(ino.0)) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        });
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.lock().files.release(ino.0);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.pass(Kind::Read, move |files| {
            match files.and_then(|files| files.read(ino.0, offset, size as usize)) {
                Ok(bytes) => reply.data(bytes),
                Err(error) => reply.error(error),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = data.to_vec();
        self.pass(Kind::Write, move |files| match files.and_then(|files| files.write(ino.0, offset, data)) {
            Ok(written) => reply.written(written),
            Err(error) => reply.error(error),
        });
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let allocate = move |files: &mut Files| match mode {
            0 | FALLOC_FL_KEEP_SIZE => files.allocate(ino.0, offset, length, mode != 0),
            _ => Err(Errno::EOPNOTSUPP),
        };
        self.pass(Kind::Write, move |files| answer(reply, files.and_then(allocate)));
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.pass(Kind::Sync, move |files| answer(reply, files.and_then(|files| files.sync(ino.0))));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.pass(Kind::SyncFolder, move |files| {
            answer(reply, files.and_then(|files| files.sync_folder(ino.0)));
        });
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let inner = self.0.lock();
        let folder = match inner.files.folder(ino.0) {
            Ok(_) if inner.gate == Gate::Dead => return reply.error(Errno::EIO),
            Ok(folder) => folder,
            Err(error) => return reply.error(error),
        };
        let dots = [(ino.0, "."), (ino.0, "..")].into_iter();
        let entries = dots.chain(folder.now.iter().map(|(name, inode)| (*inode, name.as_str())));
        for (place, (inode, name)) in entries.enumerate().skip(offset as usize) {
            let kind = match inner.files.folder(inode) {
                Ok(_) => FileType::Directory,
                Err(_) => FileType::RegularFile,
            };
            if reply.add(INodeNo(inode), place as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.pass(Kind::Look, move |files| {
            let files = match files {
                Ok(files) => files,
                Err(error) => return reply.error(error),
            };
            let all = files.faults.room_bytes / BLOCK_BYTES;
            let free = all.saturating_sub(files.used_bytes() / BLOCK_BYTES);
            let unit = BLOCK_BYTES as u32;
            reply.statfs(all, free, free, 1 << 20, 1 << 20, unit, NAME_BYTES, unit);
        });
    }
}
