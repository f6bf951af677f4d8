//! A mark store in memory: a change is there whole or not at all, and durable when it is there. It dies with
//! its collector before or after a change when told to.

use crate::collector::lane::{LaneId, Row};
use crate::collector::marks::{BatchKey, Change, LaneKey, MarkStore, Redo, StoreError};
use crate::collector::sinks::jsonl::FileRow;
use crate::tls::Identity;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// When the collector dies at its next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Nothing of it is there.
    Before,
    /// It is there, what follows was not done.
    After,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    lanes: BTreeMap<LaneKey, Row>,
    file: Option<(FileRow, Vec<Redo>)>,
    deaths: BTreeMap<BatchKey, u32>,
    /// The collector is to die; it is dead once this is `None` again and `dead` is set.
    death: Option<Death>,
    dead: bool,
}

/// The store; a clone is the same one.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Mutex<Inner>>);

impl Store {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The collector is to die at the next change.
    pub fn die(&self, death: Death) {
        self.inner().death = Some(death);
    }

    /// Whether it died of that.
    pub fn is_dead(&self) -> bool {
        self.inner().dead
    }

    /// Where a lane stands, whoever it belongs to.
    pub fn mark(&self, lane: [u8; 16]) -> Option<u64> {
        let inner = self.inner();
        let row = inner.lanes.iter().find(|((_, id), _)| id.0 == lane);
        row.map(|(_, row)| row.mark.committed_seq)
    }

    /// Another process opens the store.
    pub fn reopen(&self) {
        let mut inner = self.inner();
        (inner.death, inner.dead) = (None, false);
    }

    /// Another store with all that is in this one now.
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.inner().clone())))
    }
}

fn dead() -> StoreError {
    StoreError::Row { dir: PathBuf::from("/far"), row: "the process is dead" }
}

impl MarkStore for Store {
    fn id(&self) -> [u8; 16] {
        [7; 16]
    }

    fn lane(&mut self, key: &LaneKey) -> Result<Option<Row>, StoreError> {
        Ok(self.inner().lanes.get(key).copied())
    }

    fn lanes_of(&mut self, identity: &Identity) -> Result<Vec<(LaneId, Row)>, StoreError> {
        let inner = self.inner();
        let lanes = inner.lanes.iter().filter(|((of, _), _)| of == identity);
        Ok(lanes.map(|((_, lane), row)| (*lane, *row)).collect())
    }

    fn commit(&mut self, change: &Change) -> Result<(), StoreError> {
        let mut inner = self.inner();
        let death = inner.death.take();
        inner.dead |= death.is_some();
        if death == Some(Death::Before) {
            return Err(dead());
        }
        for (key, row) in &change.lanes {
            match row {
                Some(row) => inner.lanes.insert(key.clone(), *row),
                None => inner.lanes.remove(key),
            };
        }
        if let Some(file) = &change.file {
            inner.file = Some(file.clone());
        }
        for batch in &change.survived {
            inner.deaths.remove(batch);
        }
        if death == Some(Death::After) { Err(dead()) } else { Ok(()) }
    }

    fn file(&mut self) -> Result<Option<(FileRow, Vec<Redo>)>, StoreError> {
        Ok(self.inner().file.clone())
    }

    fn count_death(&mut self, batch: &BatchKey) -> Result<(), StoreError> {
        *self.inner().deaths.entry(batch.clone()).or_default() += 1;
        Ok(())
    }

    fn deaths(&mut self) -> Result<Vec<(BatchKey, u32)>, StoreError> {
        Ok(self.inner().deaths.iter().map(|(batch, count)| (batch.clone(), *count)).collect())
    }
}
