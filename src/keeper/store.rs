//! The database: opened, set aside when it is no use, written in whole transactions.

use super::mailbox::Batch;
use super::{Metrics, OpenError, Row, Settings};
use crate::wire::{DomainKey, KeyBytes, Saved};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageError, TableDefinition};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::AssertUnwindSafe;
use std::path::Path;

const DOMAINS: TableDefinition<'_, KeyBytes, (u32, &[u8])> = TableDefinition::new("domains");

const NAME: &str = "exporters.redb";

/// What is set aside; an earlier one makes room for it.
const ASIDE: &str = "exporters.redb.aside";

/// Pages that redb may keep in memory, in bytes.
const CACHE_BYTES: usize = 1 << 20;

/// The database, and what is in it.
#[derive(Debug)]
pub(super) struct Store {
    settings: Settings,
    metrics: Metrics,
    /// `None` after a failure, until it is opened again.
    database: Option<Database>,
    /// Bytes of all saved forms in it.
    bytes: u64,
    /// Counts the databases that were begun anew.
    season: u64,
}

impl Store {
    pub(super) fn new(settings: Settings, metrics: Metrics) -> Store {
        Store { settings, metrics, database: None, bytes: 0, season: 0 }
    }

    pub(super) fn season(&self) -> u64 {
        self.season
    }

    /// Opens it for the first time; what is in it, what was used longest ago first. When that fails there is nothing
    /// in it, and the next write tries again.
    ///
    /// # Errors
    /// When another process has it.
    pub(super) fn open(&mut self) -> Result<Vec<Row>, OpenError> {
        match self.reopen() {
            Ok(mut rows) => {
                rows.sort_by_key(|row| row.saved.used);
                self.metrics.writable.set(1);
                Ok(rows)
            }
            Err(redb::Error::DatabaseAlreadyOpen) => {
                Err(OpenError::Locked { dir: self.settings.dir.clone() })
            }
            Err(error) => {
                let dir = self.settings.dir.display();
                tracing::error!(%dir, %error, "What exporters told cannot be read: starting without; trying on");
                Ok(Vec::new())
            }
        }
    }

    /// Opens it, and another one in its place if it is no use.
    fn reopen(&mut self) -> Result<Vec<Row>, redb::Error> {
        make_folder(&self.settings.dir)?;
        let path = self.settings.dir.join(NAME);
        let (database, rows) = match open(&path) {
            Err(error) if is_no_use(&error) => {
                tracing::error!(file = %path.display(), %error, "What exporters told cannot be read: set aside as {ASIDE}");
                std::fs::rename(&path, self.settings.dir.join(ASIDE))?;
                self.metrics.set_aside.inc();
                self.season += 1;
                open(&path)?
            }
            other => other?,
        };
        // Names in the folder outlive a power cut.
        std::fs::File::open(&self.settings.dir)?.sync_all()?;
        self.bytes = rows.iter().map(|row| row.saved.bytes.len() as u64).sum();
        self.database = Some(database);
        Ok(rows)
    }

    /// Makes all of the batch durable, or nothing of it. redb refuses everything after an I/O error until it is opened
    /// anew, so an error closes it.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), redb::Error> {
        if self.database.is_none() {
            self.reopen()?;
        }
        let Some(database) = self.database.take() else { return Err(redb::Error::DatabaseClosed) };
        self.bytes = guarded(|| write(&database, batch, &self.settings, self.bytes))?;
        self.database = Some(database);
        Ok(())
    }
}

/// Is the file itself at fault, and not the disk or another process?
fn is_no_use(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. } => true,
        redb::Error::Io(error) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

/// Opens the database at `path`, made if it is not there, and reads it.
fn open(path: &Path) -> Result<(Database, Vec<Row>), redb::Error> {
    // Nobody else may read it, and it is nobody else's file that is written.
    const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(NO_FOLLOW);
    options.open(path)?;
    guarded(|| {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        // The file is small. What was altered behind redb's back is found, and not trusted.
        builder.set_check_integrity_on_open(true);
        let database = builder.create(path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(DOMAINS)?;
        transaction.commit()?;
        let rows = read(&database)?;
        Ok((database, rows))
    })
}

/// Runs what reads a file that may hold anything: a panic over it is damage, too.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    let panicked = |_| Err(redb::Error::Corrupted("the database could not be read".to_owned()));
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked)
}

/// All rows whose keys are keys.
fn read(database: &Database) -> Result<Vec<Row>, redb::Error> {
    let table = database.begin_read()?.open_table(DOMAINS)?;
    let mut rows = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let (used, bytes) = value.value();
        if let Some(key) = DomainKey::from_bytes(&key.value()) {
            rows.push(Row { key, saved: Saved { used, bytes: bytes.to_vec() } });
        }
    }
    Ok(rows)
}

/// One transaction; tells the bytes of all saved forms after it, which were `bytes` before.
fn write(database: &Database, batch: &Batch, settings: &Settings, bytes: u64) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let mut left = bytes;
    {
        let mut table = transaction.open_table(DOMAINS)?;
        for (key, saved) in batch {
            let key = key.to_bytes();
            let before = match saved {
                Some(saved) => {
                    left += saved.bytes.len() as u64;
                    table.insert(key, (saved.used, saved.bytes.as_slice()))?
                }
                None => table.remove(key)?,
            };
            left = left.saturating_sub(before.map_or(0, |row| row.value().1.len() as u64));
        }
        while table.len()? > settings.max_domains as u64 || left > settings.max_bytes {
            let removed = remove_oldest(&mut table)?;
            if removed == 0 {
                break;
            }
            left = left.saturating_sub(removed);
        }
    }
    transaction.commit()?;
    Ok(left)
}

/// Removes what was used longest ago: a sixteenth, so that it is seldom looked for. Tells its bytes.
fn remove_oldest(table: &mut redb::Table<'_, KeyBytes, (u32, &'static [u8])>) -> Result<u64, StorageError> {
    let mut ages = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        ages.push((value.value().0, key.value()));
    }
    ages.sort_unstable();
    let mut removed = 0;
    for (_, key) in ages.iter().take((ages.len() / 16).max(1)) {
        let row = table.remove(key)?;
        removed += row.map_or(0, |row| row.value().1.len() as u64);
    }
    Ok(removed)
}

/// Makes the folder, and those above it, as far as they are not there; its name outlives a power cut.
fn make_folder(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(above)?.sync_all()
}

/// For the tests: where the database lies, and what is set aside.
#[cfg(test)]
pub(super) fn paths(dir: &Path) -> [std::path::PathBuf; 2] {
    [dir.join(NAME), dir.join(ASIDE)]
}
