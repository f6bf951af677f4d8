//! The mark store: what a collector must never forget, in one redb database in `[state] dir`.
//!
//! | table | key | value |
//! |---|---|---|
//! | `store` | name | `id`: the 16 bytes that name this store, made once; `file`: where the JSONL sink stands |
//! | `lanes` | identity, lane_id | committed_seq, digest_seq, digest, next_seq heard, opened, closed |
//! | `redo` | place in the last group | codec, plain size, payload: what renders the last group again |
//! | `deaths` | identity, lane_id, seq | digest, how often the collector died while it decoded that batch |
//!
//! One transaction ([`Change`]) moves all marks of a group, the file's row and the group's payloads together,
//! and is durable when it returns. The redo keeps payloads and not rendered text: they are a twentieth of it
//! and already packed. What they render to is checked by length and CRC in the file's row.

use super::lane::{LaneId, Mark, Row};
use super::sinks::jsonl::FileRow;
use crate::batch::Digest;
use crate::storage::{Disk, Storage};
use crate::tls::Identity;
use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::path::{Path, PathBuf};

type LaneRow = (u64, u64, [u8; 16], u64, u64, u64);
type DeathKey<'a> = (&'a str, [u8; 16], u64);

const STORE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("store");
const LANES: TableDefinition<'_, (&str, [u8; 16]), LaneRow> = TableDefinition::new("lanes");
const REDO: TableDefinition<'_, u32, (i32, u32, &[u8])> = TableDefinition::new("redo");
const DEATHS: TableDefinition<'_, DeathKey<'_>, ([u8; 16], u32)> = TableDefinition::new("deaths");

/// Pages that redb may keep in memory, in bytes.
const CACHE_BYTES: usize = 16 << 20;

/// A lane's full name: lanes of one identity are out of another's reach.
pub type LaneKey = (Identity, LaneId);

/// Names a batch that the collector died of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchKey {
    /// Whose it is, as text.
    pub identity: String,
    /// Its lane.
    pub lane: LaneId,
    /// Its number.
    pub seq: u64,
    /// Its digest: another batch of that number is another batch.
    pub digest: Digest,
}

/// What the last group's records are rendered from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redo {
    /// How the payload is packed.
    pub codec: i32,
    /// Bytes of the payload once expanded.
    pub plain_size: u32,
    /// A batch's payload.
    pub payload: Bytes,
}

/// What becomes durable together.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Lanes as they are from now on; `None` keeps no row.
    pub lanes: Vec<(LaneKey, Option<Row>)>,
    /// Where the JSONL sink stands from now on, and what its last group is rendered from.
    pub file: Option<(FileRow, Vec<Redo>)>,
    /// Batches that no longer count as deadly.
    pub survived: Vec<BatchKey>,
}

impl Change {
    /// Nothing to make durable.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.file.is_none() && self.survived.is_empty()
    }
}

/// Why the store does not work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder can not be made or entered.
    #[error("the state folder {} can not be used: {source}", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error(
        "the state folder {} is in use by another collector; give each its own [state] dir",
        dir.display()
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The database does not work.
    #[error("the mark store in {} does not work: {source}", dir.display())]
    Database {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// A row can not be read.
    #[error("the mark store in {} holds a row `{row}` that can not be read", dir.display())]
    Row {
        /// The folder.
        dir: PathBuf,
        /// Its name.
        row: &'static str,
    },
}

/// Where marks live. One writer uses it; all methods block.
pub trait MarkStore: Send {
    /// Names the store.
    fn id(&self) -> [u8; 16];
    /// The row of a lane.
    ///
    /// # Errors
    /// When the store does not work.
    fn lane(&mut self, key: &LaneKey) -> Result<Option<Row>, StoreError>;
    /// All rows of an identity.
    ///
    /// # Errors
    /// When the store does not work.
    fn lanes_of(&mut self, identity: &Identity) -> Result<Vec<(LaneId, Row)>, StoreError>;
    /// Makes the change durable, all of it or nothing. After an error it may be durable or not; the same
    /// change may be made again.
    ///
    /// # Errors
    /// When the store does not work.
    fn commit(&mut self, change: &Change) -> Result<(), StoreError>;
    /// Where the JSONL sink stands and what its last group is rendered from.
    ///
    /// # Errors
    /// When the store does not work.
    fn file(&mut self) -> Result<Option<(FileRow, Vec<Redo>)>, StoreError>;
    /// Counts one more death of the batch and makes that durable.
    ///
    /// # Errors
    /// When the store does not work.
    fn count_death(&mut self, batch: &BatchKey) -> Result<(), StoreError>;
    /// Batches that the collector died of, and how often.
    ///
    /// # Errors
    /// When the store does not work.
    fn deaths(&mut self) -> Result<Vec<(BatchKey, u32)>, StoreError>;
}

/// [`MarkStore`] in a redb database.
#[derive(Debug)]
pub struct Redb {
    dir: PathBuf,
    /// `None` after a failure, until it is opened again.
    database: Option<Database>,
    id: [u8; 16],
}

impl Redb {
    /// Opens the store in `dir`; makes both when they are not there.
    ///
    /// # Errors
    /// When the folder or the database can not be used, or another process uses it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let fault = |source| StoreError::Folder { dir: dir.to_owned(), source };
        Disk.create_dir(dir, 0o700).map_err(fault)?;
        let mut store = Self { dir: dir.to_owned(), database: None, id: [0; 16] };
        let database = builder().create(store.path()).map_err(|error| store.fault(error.into()))?;
        store.database = Some(database);
        store.id = store.run(first_use)?.ok_or(StoreError::Row { dir: dir.to_owned(), row: "id" })?;
        Disk.sync_dir(dir).map_err(fault)?;
        Ok(store)
    }

    fn path(&self) -> PathBuf {
        self.dir.join("marks.redb")
    }

    fn fault(&self, source: redb::Error) -> StoreError {
        match source {
            redb::Error::DatabaseAlreadyOpen => StoreError::Locked { dir: self.dir.clone() },
            source => StoreError::Database { dir: self.dir.clone(), source: Box::new(source) },
        }
    }

    /// Runs `work`, opening the database first when it is not open. redb refuses everything after an I/O
    /// error until it is opened anew, so an error closes it. It must be there then: a new one has no marks.
    fn run<T>(&mut self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => builder().open(self.path()).map_err(|error| self.fault(error.into()))?,
        };
        let value = work(&database).map_err(|error| self.fault(error))?;
        self.database = Some(database);
        Ok(value)
    }

    fn row_fault(&self, row: &'static str) -> StoreError {
        StoreError::Row { dir: self.dir.clone(), row }
    }
}

fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes all tables and the store's id; gives the id, `None` if it is not 16 bytes.
fn first_use(database: &Database) -> Result<Option<[u8; 16]>, redb::Error> {
    let transaction = database.begin_write()?;
    let id = {
        let mut store = transaction.open_table(STORE)?;
        let found = store.get("id")?.map(|id| id.value().try_into().ok());
        match found {
            Some(id) => id,
            None => {
                let id: [u8; 16] = rand::random();
                store.insert("id", id.as_slice())?;
                Some(id)
            }
        }
    };
    transaction.open_table(LANES)?;
    transaction.open_table(REDO)?;
    transaction.open_table(DEATHS)?;
    transaction.commit()?;
    Ok(id)
}

impl MarkStore for Redb {
    fn id(&self) -> [u8; 16] {
        self.id
    }

    fn lane(&mut self, (identity, lane): &LaneKey) -> Result<Option<Row>, StoreError> {
        self.run(|database| {
            let lanes = database.begin_read()?.open_table(LANES)?;
            let row = lanes.get((identity.as_str(), lane.0))?;
            Ok(row.map(|row| unpack(row.value())))
        })
    }

    fn lanes_of(&mut self, identity: &Identity) -> Result<Vec<(LaneId, Row)>, StoreError> {
        self.run(|database| {
            let lanes = database.begin_read()?.open_table(LANES)?;
            let range = lanes.range((identity.as_str(), [0; 16])..=(identity.as_str(), [0xff; 16]))?;
            let rows = range.map(|entry| {
                let (key, row) = entry?;
                Ok((LaneId(key.value().1), unpack(row.value())))
            });
            rows.collect()
        })
    }

    fn commit(&mut self, change: &Change) -> Result<(), StoreError> {
        let file = change.file.as_ref().map(|(row, redo)| (row.to_bytes(), redo));
        self.run(|database| {
            let transaction = database.begin_write()?;
            {
                let mut lanes = transaction.open_table(LANES)?;
                for ((identity, lane), row) in &change.lanes {
                    let key = (identity.as_str(), lane.0);
                    match row {
                        Some(row) => drop(lanes.insert(key, pack(row))?),
                        None => drop(lanes.remove(key)?),
                    }
                }
                let mut deaths = transaction.open_table(DEATHS)?;
                for batch in &change.survived {
                    deaths.remove((batch.identity.as_str(), batch.lane.0, batch.seq))?;
                }
            }
            if let Some((row, redo)) = file {
                transaction.open_table(STORE)?.insert("file", row.as_slice())?;
                let mut table = transaction.open_table(REDO)?;
                table.retain(|_, _| false)?;
                for (place, part) in (0..).zip(redo) {
                    table.insert(place, (part.codec, part.plain_size, part.payload.as_ref()))?;
                }
            }
            crash_point!("collector.mark.before");
            transaction.commit()?;
            crash_point!("collector.mark");
            Ok(())
        })
    }

    fn file(&mut self) -> Result<Option<(FileRow, Vec<Redo>)>, StoreError> {
        let found = self.run(|database| {
            let transaction = database.begin_read()?;
            let store = transaction.open_table(STORE)?;
            let Some(row) = store.get("file")? else { return Ok(None) };
            let mut redo = Vec::new();
            for entry in transaction.open_table(REDO)?.iter()? {
                let (_, value) = entry?;
                let (codec, plain_size, payload) = value.value();
                redo.push(Redo { codec, plain_size, payload: Bytes::copy_from_slice(payload) });
            }
            Ok(Some((FileRow::from_bytes(row.value()), redo)))
        })?;
        match found {
            None => Ok(None),
            Some((Some(row), redo)) => Ok(Some((row, redo))),
            Some((None, _)) => Err(self.row_fault("file")),
        }
    }

    fn count_death(&mut self, batch: &BatchKey) -> Result<(), StoreError> {
        self.run(|database| {
            let transaction = database.begin_write()?;
            {
                let mut deaths = transaction.open_table(DEATHS)?;
                let key = (batch.identity.as_str(), batch.lane.0, batch.seq);
                let found = deaths.get(key)?.map(|row| row.value());
                let before =
                    found.filter(|(digest, _)| *digest == batch.digest).map_or(0, |(_, count)| count);
                deaths.insert(key, (batch.digest, before.saturating_add(1)))?;
            }
            transaction.commit()?;
            Ok(())
        })
    }

    fn deaths(&mut self) -> Result<Vec<(BatchKey, u32)>, StoreError> {
        self.run(|database| {
            let deaths = database.begin_read()?.open_table(DEATHS)?;
            let rows = deaths.iter()?.map(|entry| {
                let (key, row) = entry?;
                let (identity, lane, seq) = key.value();
                let (digest, count) = row.value();
                Ok((BatchKey { identity: identity.to_owned(), lane: LaneId(lane), seq, digest }, count))
            });
            rows.collect()
        })
    }
}

fn pack(row: &Row) -> LaneRow {
    let Row { mark, next_seq, opened_ms, closed_ms } = row;
    (mark.committed_seq, mark.digest_seq, mark.digest, *next_seq, *opened_ms, *closed_ms)
}

fn unpack((committed_seq, digest_seq, digest, next_seq, opened_ms, closed_ms): LaneRow) -> Row {
    Row { mark: Mark { committed_seq, digest_seq, digest }, next_seq, opened_ms, closed_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(lane: u8) -> LaneKey {
        (crate::collector::tests::identity("edge-1"), LaneId([lane; 16]))
    }

    fn row(seq: u64) -> Row {
        let mark = Mark { committed_seq: seq, digest_seq: seq, digest: [seq as u8; 16] };
        Row { mark, next_seq: seq + 1, opened_ms: 5, closed_ms: 0 }
    }

    #[test]
    fn marks_are_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("deep/state");
        let mut store = Redb::open(&state).unwrap();
        let id = store.id();
        store.commit(&Change { lanes: vec![(key(1), Some(row(9)))], ..Change::default() }).unwrap();
        store.commit(&Change { lanes: vec![(key(2), Some(row(3)))], ..Change::default() }).unwrap();
        drop(store);
        let mut store = Redb::open(&state).unwrap();
        assert_eq!(store.id(), id);
        assert_eq!(store.lane(&key(1)).unwrap(), Some(row(9)));
        assert_eq!(store.lane(&key(3)).unwrap(), None);
        assert_eq!(store.lanes_of(&key(1).0).unwrap().len(), 2);
        let other = crate::collector::tests::identity("edge-2");
        assert_eq!(store.lanes_of(&other).unwrap(), []);
        store.commit(&Change { lanes: vec![(key(2), None)], ..Change::default() }).unwrap();
        assert_eq!(store.lanes_of(&key(1).0).unwrap(), [(LaneId([1; 16]), row(9))]);
    }

    #[test]
    fn a_folder_in_use_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let _store = Redb::open(dir.path()).unwrap();
        assert!(matches!(Redb::open(dir.path()), Err(StoreError::Locked { .. })));
    }

    #[test]
    fn deaths_are_counted_by_batch() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Redb::open(dir.path()).unwrap();
        let batch = BatchKey { identity: "a".into(), lane: LaneId([1; 16]), seq: 4, digest: [1; 16] };
        store.count_death(&batch).unwrap();
        store.count_death(&batch).unwrap();
        assert_eq!(store.deaths().unwrap(), [(batch.clone(), 2)]);
        let other = BatchKey { digest: [2; 16], ..batch.clone() };
        store.count_death(&other).unwrap();
        assert_eq!(store.deaths().unwrap(), [(other, 1)]);
        store.commit(&Change { survived: vec![batch], ..Change::default() }).unwrap();
        assert_eq!(store.deaths().unwrap(), []);
    }

    #[test]
    fn the_file_row_and_its_redo_are_kept_together() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Redb::open(dir.path()).unwrap();
        assert!(store.file().unwrap().is_none());
        let part = |byte| Redo { codec: 1, plain_size: 9, payload: vec![byte; 3].into() };
        let file = FileRow { number: 7, offset: 10, ..FileRow::default() };
        let change = Change { file: Some((file.clone(), vec![part(1), part(2)])), ..Change::default() };
        store.commit(&change).unwrap();
        assert_eq!(store.file().unwrap(), Some((file.clone(), vec![part(1), part(2)])));
        let change = Change { file: Some((file.clone(), vec![part(3)])), ..Change::default() };
        store.commit(&change).unwrap();
        assert_eq!(store.file().unwrap(), Some((file, vec![part(3)])));
    }
}
