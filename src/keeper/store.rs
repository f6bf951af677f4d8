//! The database: opened, set aside when it is no use, written in whole transactions.

use super::mailbox::Batch;
use super::rank::{self, Ranked};
use super::{Metrics, OpenError, ProbeError, Row, Settings};
use crate::wire::{DomainKey, KeyBytes, Saved};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageError, TableDefinition};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::AssertUnwindSafe;
use std::path::Path;

const DOMAINS: TableDefinition<'_, KeyBytes, (u32, &[u8])> = TableDefinition::new("domains");

/// When a domain first decoded a record, in hours since 1970, and whether its shard has given it up since. What never
/// has decoded one has no row.
const USES: TableDefinition<'_, KeyBytes, (u32, bool)> = TableDefinition::new("uses");

type Domains<'t> = redb::Table<'t, KeyBytes, (u32, &'static [u8])>;
type Uses<'t> = redb::Table<'t, KeyBytes, (u32, bool)>;

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
    /// What it held at the start was given back then.
    is_read: bool,
}

impl Store {
    pub(super) fn new(settings: Settings, metrics: Metrics) -> Store {
        Store { settings, metrics, database: None, bytes: 0, season: 0, is_read: false }
    }

    pub(super) fn season(&self) -> u64 {
        self.season
    }

    /// Opens it for the first time; what is in it, what would go first in front. When that fails there is nothing
    /// in it, and the next write tries again.
    ///
    /// # Errors
    /// When another process has it.
    pub(super) fn open(&mut self) -> Result<Vec<Row>, OpenError> {
        match self.reopen() {
            Ok(rows) => {
                self.metrics.writable.set(1);
                self.is_read = true;
                Ok(rows)
            }
            Err(redb::Error::DatabaseAlreadyOpen) => {
                Err(OpenError::Locked { dir: self.settings.dir.clone() })
            }
            Err(error) => {
                let dir = self.settings.dir.display();
                tracing::error!(%dir, %error, "What exporters told cannot be read: starting without it. What they tell from now on is kept once that works");
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
            let found = self.reopen()?.len();
            if !std::mem::replace(&mut self.is_read, true) && found > 0 {
                tracing::warn!(
                    domains = found,
                    "What exporters had told before the start can be read now; it is put back at the next start"
                );
            }
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
    options().create(true).truncate(false).open(path)?;
    guarded(|| {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        // The file is small. What was altered behind redb's back is found, and not trusted.
        builder.set_check_integrity_on_open(true);
        let database = builder.create(path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(DOMAINS)?;
        take_back(&mut transaction.open_table(USES)?)?;
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

/// All rows whose keys are keys, what would go first in front.
fn read(database: &Database) -> Result<Vec<Row>, redb::Error> {
    let transaction = database.begin_read()?;
    let (domains, uses) = (transaction.open_table(DOMAINS)?, transaction.open_table(USES)?);
    let mut rows = Vec::new();
    for domain in rank::sort(ranked(&domains, &uses)?) {
        let (Some(key), Some(row)) = (DomainKey::from_bytes(&domain.key), domains.get(domain.key)?) else {
            continue;
        };
        let (used, bytes) = row.value();
        rows.push(Row { key, saved: Saved { used, bytes: bytes.to_vec() } });
    }
    Ok(rows)
}

/// What is read at a start is a shard's again, until it is given up anew.
fn take_back(uses: &mut Uses<'_>) -> Result<(), StorageError> {
    let mut left = Vec::new();
    for entry in uses.iter()? {
        let (key, value) = entry?;
        if let (since, true) = value.value() {
            left.push((key.value(), since));
        }
    }
    for (key, since) in left {
        uses.insert(key, (since, false))?;
    }
    Ok(())
}

fn ranked(
    domains: &impl ReadableTable<KeyBytes, (u32, &'static [u8])>,
    uses: &impl ReadableTable<KeyBytes, (u32, bool)>,
) -> Result<Vec<Ranked>, StorageError> {
    let mut all = Vec::new();
    for entry in domains.iter()? {
        let (key, value) = entry?;
        let (key, used) = (key.value(), value.value().0);
        let (since, is_left) = uses.get(key)?.map_or((used, false), |row| row.value());
        all.push(Ranked { key, used, since, is_left });
    }
    Ok(all)
}

/// One transaction; tells the bytes of all saved forms after it, which were `bytes` before.
fn write(database: &Database, batch: &Batch, settings: &Settings, bytes: u64) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let mut left = bytes;
    {
        let (mut domains, mut uses) = (transaction.open_table(DOMAINS)?, transaction.open_table(USES)?);
        for (key, saved) in batch {
            let key = key.to_bytes();
            let removed = match saved {
                Some(saved) => {
                    left += saved.bytes.len() as u64;
                    put(&mut domains, &mut uses, key, saved)?
                }
                None => give_up(&mut domains, &mut uses, key)?,
            };
            left = left.saturating_sub(removed);
        }
        if domains.len()? > settings.max_domains as u64 || left > settings.max_bytes {
            left = left.saturating_sub(make_room(&mut domains, &mut uses, settings, left)?);
        }
    }
    transaction.commit()?;
    Ok(left)
}

/// Puts in what is newer; tells the bytes of what was there. What has once decoded records is not told from scratch
/// when its shard had given it up.
fn put(
    domains: &mut Domains<'_>,
    uses: &mut Uses<'_>,
    key: KeyBytes,
    saved: &Saved,
) -> Result<u64, StorageError> {
    let (used_before, bytes) = domains.get(key)?.map_or((0, 0), |row| (row.value().0, row.value().1.len()));
    let used = saved.used.max(used_before);
    let before = uses.get(key)?.map(|row| row.value());
    let first = if used_before == 0 { used } else { used_before };
    let since = before.map_or(first, |(since, _)| since);
    if used != 0 && before != Some((since, false)) {
        uses.insert(key, (since, false))?;
    }
    domains.insert(key, (used, saved.bytes.as_slice()))?;
    Ok(bytes as u64)
}

/// A shard has given the domain up: it stays only if it has decoded records. Tells the bytes removed.
fn give_up(domains: &mut Domains<'_>, uses: &mut Uses<'_>, key: KeyBytes) -> Result<u64, StorageError> {
    let used = domains.get(key)?.map_or(0, |row| row.value().0);
    if used == 0 {
        return remove(domains, uses, key);
    }
    let since = uses.get(key)?.map_or(used, |row| row.value().0);
    uses.insert(key, (since, true))?;
    Ok(0)
}

fn remove(domains: &mut Domains<'_>, uses: &mut Uses<'_>, key: KeyBytes) -> Result<u64, StorageError> {
    uses.remove(key)?;
    Ok(domains.remove(key)?.map_or(0, |row| row.value().1.len() as u64))
}

/// Removes what goes first, and a sixteenth of the domains at least, so that it is seldom looked for. Tells its bytes.
fn make_room(
    domains: &mut Domains<'_>,
    uses: &mut Uses<'_>,
    settings: &Settings,
    bytes: u64,
) -> Result<u64, StorageError> {
    let order = rank::sort(ranked(domains, uses)?);
    let (count, mut removed) = (order.len(), 0);
    let most = settings.max_domains - settings.max_domains / 16;
    for (place, domain) in order.iter().enumerate() {
        if count - place <= most && bytes.saturating_sub(removed) <= settings.max_bytes {
            break;
        }
        removed += remove(domains, uses, domain.key)?;
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

/// Looks whether the database could be kept in a folder; makes and changes nothing that stays.
pub(super) fn probe(dir: &Path) -> Result<(), ProbeError> {
    // What is not there yet is made at the start, below what is.
    let there = dir.ancestors().find(|above| above.symlink_metadata().is_ok());
    let there = there.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unusable = |source| ProbeError::Folder { dir: dir.to_owned(), source };
    if !there.metadata().map_err(unusable)?.is_dir() {
        return Err(unusable(io::ErrorKind::NotADirectory.into()));
    }
    std::fs::read_dir(there).map_err(unusable)?;
    write_in(there).map_err(unusable)?;
    let file = dir.join(NAME);
    match options().open(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ProbeError::File { file, source: error })
        }
        _ => Ok(()),
    }
}

/// Makes a file and removes it.
fn write_in(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!(".flowproxy-check-{}", std::process::id()));
    options().create_new(true).open(&path)?;
    std::fs::remove_file(path)
}

/// Nobody else may read it, and it is nobody else's file that is written.
fn options() -> std::fs::OpenOptions {
    const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(NO_FOLLOW);
    options
}

/// For the tests: where the database lies, and what is set aside.
#[cfg(test)]
pub(super) fn paths(dir: &Path) -> [std::path::PathBuf; 2] {
    [dir.join(NAME), dir.join(ASIDE)]
}
