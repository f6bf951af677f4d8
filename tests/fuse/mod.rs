//! A disk for whole processes that loses at a power cut what was not synced, fails and stalls on command: a FUSE
//! file system in the memory of the test.
//!
//! It needs root and `/dev/fuse`.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod files;
pub mod load;
mod losses;
pub mod segments;
mod served;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, MountOption};

use crate::support::process::Process;

use files::{Faults, Files, Image};
pub use losses::Losses;
pub use served::Kind;
use served::{Gate, Served, Shared};

/// Why tests of it are skipped.
pub const NO_FUSE: &str = "no /dev/fuse, or not root";

/// What a power cut left behind.
pub struct Cut {
    /// What was surely on the medium.
    pub durable: Image,
    /// What readers had seen.
    pub seen: Image,
    /// Files that had lost their names before, as the medium had them then: (name, bytes).
    pub gone: Vec<(String, Vec<u8>)>,
}

/// The disk, mounted until it is dropped.
pub struct Disk {
    at: PathBuf,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

impl Disk {
    /// Mounts an empty disk in a folder that it makes; `None` if this machine can not.
    pub fn mount(at: &Path) -> Option<Self> {
        OpenOptions::new().read(true).write(true).open("/dev/fuse").ok()?;
        std::fs::create_dir_all(at).expect("a folder to mount at");
        let mut disk =
            Self { at: at.to_owned(), shared: Arc::new(Shared::new(Files::default())), session: None };
        disk.session = Some(mount(at, &disk.shared)?);
        Some(disk)
    }

    /// Changes what goes wrong.
    pub fn set(&self, set: impl FnOnce(&mut Faults)) {
        set(&mut self.shared.lock().files.faults);
    }

    /// Bytes that are taken.
    pub fn used_bytes(&self) -> u64 {
        self.shared.lock().files.used_bytes()
    }

    /// Whether everything is durable, but for `positions`.
    pub fn is_clean(&self) -> bool {
        self.shared.lock().files.is_clean()
    }

    /// What readers see.
    pub fn now(&self) -> Image {
        self.shared.lock().files.now()
    }

    /// What is on the medium.
    pub fn durable(&self) -> Image {
        self.shared.lock().files.durable()
    }

    /// From now on everything waits but names and sizes, until the guard is dropped.
    pub fn stall(&self) -> Stall<'_> {
        self.shared.lock().gate = Gate::Shut;
        Stall(self)
    }

    /// The same, before the request of that kind that comes after `passing` others.
    pub fn stall_at(&self, kind: Kind, passing: usize) -> Stall<'_> {
        self.shared.lock().shut_at = Some((kind, passing));
        Stall(self)
    }

    /// Ends a stall when it is dropped, whoever began it.
    pub fn answers_at_last(&self) -> Stall<'_> {
        Stall(self)
    }

    /// Ends a stall.
    pub fn go_on(&self) {
        let mut inner = self.shared.lock();
        inner.shut_at = None;
        if inner.gate == Gate::Shut {
            inner.gate = Gate::Open;
        }
        for asked in std::mem::take(&mut inner.waiting) {
            asked(Ok(&mut inner.files));
        }
    }

    fn cut(&self, losses: &mut Losses) -> Cut {
        let mut inner = self.shared.lock();
        inner.gate = Gate::Dead;
        for asked in std::mem::take(&mut inner.waiting) {
            asked(Err(fuser::Errno::EIO));
        }
        let (durable, seen) = (inner.files.durable(), inner.files.now());
        let gone = std::mem::take(&mut inner.files.gone);
        inner.files.cut(losses);
        Cut { durable, seen, gone }
    }

    /// The process is killed and the disk goes on: what was not synced stays with the kernel.
    pub fn kill(&self, mut process: Process) {
        process.strike();
        // What waits is of the process, and without effect.
        let mut inner = self.shared.lock();
        (inner.gate, inner.shut_at) = (Gate::Open, None);
        for asked in std::mem::take(&mut inner.waiting) {
            asked(Err(fuser::Errno::EIO));
        }
        drop(inner);
        process.wait();
    }

    /// The power fails for the disk and a process at the same moment: all at once nothing is answered any more,
    /// the process is killed, what was not synced is lost as `losses` say. Then the disk is there again.
    pub fn power_cut(&mut self, mut process: Process, mut losses: Losses) -> Cut {
        self.shared.lock().gate = Gate::Shut;
        process.strike();
        let cut = self.cut(&mut losses);
        process.wait();
        self.unmount();
        let files = std::mem::take(&mut self.shared.lock().files);
        self.shared = Arc::new(Shared::new(files));
        self.session = mount(&self.at, &self.shared);
        assert!(self.session.is_some(), "the disk is not mounted again");
        cut
    }

    fn unmount(&mut self) {
        let Some(session) = self.session.take() else { return };
        let path = self.at.as_os_str();
        // Lazily: somebody may be about to close a file. The session ends with the last one.
        let status = Command::new("umount").arg("--lazy").arg(path).status();
        assert!(status.expect("umount").success(), "umount {}", self.at.display());
        session.join().expect("the end of the file system");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.go_on();
        self.unmount();
    }
}

fn mount(at: &Path, shared: &Arc<Shared>) -> Option<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("flowproxy-test".to_owned()), MountOption::NoAtime];
    fuser::spawn_mount(Served(shared.clone()), at, &config).ok()
}

/// As long as it lives, the disk may answer nothing.
pub struct Stall<'a>(&'a Disk);

impl Stall<'_> {
    /// Waits until something waits for the disk, at most so long; says whether it does.
    pub fn wait(&self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        let mut inner = self.0.shared.lock();
        while inner.waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.0.shared.changed.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        true
    }

    /// Leaves the disk as it is.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        self.0.go_on();
    }
}
