//! The names of the JSONL sink's files.

use super::FileError;
use crate::storage::{Found, Mode, Storage, StorageFile};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The names that belong to one live path, on the disk where they are.
#[derive(Clone, Debug)]
pub(super) struct Names {
    storage: Arc<dyn Storage>,
    live: PathBuf,
    folder: PathBuf,
    stem: String,
    /// With its dot; empty if the path has none.
    extension: String,
}

impl Names {
    /// # Errors
    /// When the path does not end in a name.
    pub(super) fn of(storage: Arc<dyn Storage>, live: &Path) -> Result<Self, FileError> {
        let text = |part: Option<&OsStr>| part.and_then(OsStr::to_str).map(str::to_owned);
        let stem = text(live.file_stem()).ok_or_else(|| FileError::Name { path: live.to_owned() })?;
        let extension = text(live.extension()).map(|end| format!(".{end}")).unwrap_or_default();
        let folder = live.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).to_owned();
        Ok(Self { storage, live: live.to_owned(), folder, stem, extension })
    }

    /// The disk.
    pub(super) fn storage(&self) -> &dyn Storage {
        self.storage.as_ref()
    }

    /// The same, to keep.
    pub(super) fn disk(&self) -> Arc<dyn Storage> {
        self.storage.clone()
    }

    /// The file being written.
    pub(super) fn live(&self) -> &Path {
        &self.live
    }

    /// The folder of all of them.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a full file is called.
    pub(super) fn finished(&self, number: u64, started_ms: u64) -> PathBuf {
        let Self { stem, extension, .. } = self;
        self.folder.join(format!("{stem}-{}-{number:08}{extension}", stamp(started_ms)))
    }

    /// Whether something has that name.
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) fn is_taken(&self, path: &Path) -> Result<bool, FileError> {
        Ok(self.look(path)?.is_some())
    }

    /// What lies at a path.
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) fn look(&self, path: &Path) -> Result<Option<Found>, FileError> {
        self.storage.look(path).map_err(|source| FileError::Io { path: path.to_owned(), source })
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        self.storage.rename(from, to).map_err(|source| FileError::Io { path: from.to_owned(), source })
    }

    /// Opens the file at the live path, makes it when it is not there, and locks it.
    ///
    /// # Errors
    /// Those of the disk; another collector writes it.
    pub(super) fn open_live(&self) -> Result<Arc<dyn StorageFile>, FileError> {
        let fault = |source| FileError::Io { path: self.live.clone(), source };
        let file = self.storage.open(&self.live, Mode::Live).map_err(fault)?;
        crash_point!("sink.open");
        match file.lock() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(FileError::Locked { path: self.live.clone() });
            }
            Err(source) => return Err(fault(source)),
        }
        self.storage.sync_dir(&self.folder).map_err(fault)?;
        crash_point!("sink.open.folder");
        Ok(file)
    }

    /// A name, not taken, for what is set aside of `file`.
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) fn orphan(&self, file: &Path, now_ms: u64) -> Result<PathBuf, FileError> {
        let name = file.file_name().and_then(OsStr::to_str).unwrap_or("file");
        let stamp = stamp(now_ms);
        let mut path = self.folder.join(format!("orphan-{stamp}-{name}"));
        let mut more = 1;
        while self.is_taken(&path)? {
            more += 1;
            path = self.folder.join(format!("orphan-{stamp}-{more}-{name}"));
        }
        Ok(path)
    }

    /// All full files in the folder, by number. With `set_aside` those called `orphan-...` too.
    ///
    /// # Errors
    /// When the folder can not be read.
    pub(super) fn list(&self, set_aside: bool) -> Result<Vec<(u64, PathBuf)>, FileError> {
        let fault = |source| FileError::Io { path: self.folder.clone(), source };
        let mut found = Vec::new();
        for entry in self.storage.list(&self.folder).map_err(fault)? {
            let name = entry.name.as_str();
            if set_aside || name.starts_with(&self.stem) {
                found.extend(self.number_of(name).map(|number| (number, self.folder.join(name))));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Gives the live file its last name.
    ///
    /// # Errors
    /// When that name is taken, or the rename fails. A live file that is gone is no error: somebody moved it.
    pub(super) fn finish(&self, number: u64, started_ms: u64) -> Result<(), FileError> {
        let finished = self.finished(number, started_ms);
        if self.is_taken(&finished)? {
            return Err(FileError::Taken { path: finished });
        }
        match self.storage.rename(&self.live, &finished) {
            Ok(()) => {
                crash_point!("sink.rotate.rename");
                self.sync()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = self.live.display();
                tracing::warn!(%file, "The file is full and should be renamed, but somebody has moved it");
                Ok(())
            }
            Err(source) => Err(FileError::Io { path: self.live.clone(), source }),
        }
    }

    /// Makes renames durable.
    ///
    /// # Errors
    /// When the folder can not be synced.
    pub(super) fn sync(&self) -> Result<(), FileError> {
        self.storage
            .sync_dir(&self.folder)
            .map_err(|source| FileError::Io { path: self.folder.clone(), source })
    }

    /// The number in `...<stem>-<stamp>-<number><extension>`.
    fn number_of(&self, name: &str) -> Option<u64> {
        let (front, number) = name.strip_suffix(&self.extension)?.rsplit_once('-')?;
        let (stem, stamp) = front.rsplit_once('-')?;
        let is_stamp = stamp.len() == 16 && stamp.ends_with('Z') && stamp.contains('T');
        let is_number = number.len() >= 8 && number.bytes().all(|byte| byte.is_ascii_digit());
        (stem.ends_with(&self.stem) && is_stamp && is_number).then(|| number.parse().ok())?
    }
}

/// A time as it stands in names: 20261123T140000Z.
fn stamp(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).strftime("%Y%m%dT%H%M%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Disk;

    #[test]
    fn full_files_are_named_by_start_and_number() {
        let names = Names::of(Arc::new(Disk), Path::new("out/flows.jsonl")).unwrap();
        // 2026-11-23 14:00:00 UTC
        let finished = names.finished(7, 1_795_442_400_000);
        assert_eq!(finished, Path::new("out/flows-20261123T140000Z-00000007.jsonl"));
        assert_eq!(names.number_of("flows-20261123T140000Z-00000007.jsonl"), Some(7));
        assert_eq!(names.number_of("flows-20261123T140000Z-100000007.jsonl"), Some(100_000_007));
        for other in [
            "flows.jsonl",
            "flows-20261123T140000Z-0000007.jsonl",
            "flows-old-00000007.jsonl",
            "flows-20261123T140000Z-00000007.csv",
        ] {
            assert_eq!(names.number_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_path_without_folder_or_extension_will_do() {
        let names = Names::of(Arc::new(Disk), Path::new("flows")).unwrap();
        assert_eq!(names.folder(), Path::new("."));
        assert_eq!(names.number_of("flows-20261123T140000Z-00000001"), Some(1));
        assert!(Names::of(Arc::new(Disk), Path::new("/")).is_err());
    }
}
