//! Batches that a collector dies of. After three deaths a batch is tried by a process of its own
//! ([`super::trial`]) and rejected if that dies too; after ten it is rejected at once.
//!
//! Before a batch is decoded its name is written into the file `decoding` in the state folder, and blanked
//! once the group is decoded. A process that dies in between leaves the name; the next start finds it and
//! counts one death in the mark store, durably. The file is not synced: what a process has written outlives
//! it without that, so a batch costs one small write and no wait. Only a power cut can lose the name, and the
//! power does not fail because of a batch. A panic needs no death: it is caught and the batch is rejected.
//!
//! The note may name a batch that nobody died of: the process may be killed for other reasons, and while a
//! write of the note waits for a disk that stalls, the batch named is not even being decoded.

use super::marks::{BatchKey, MarkStore, StoreError};
use crate::storage::{Mode, Storage, StorageFile};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// From this many deaths on a batch is decoded only after somebody else has.
const SUSPECT: u32 = 3;
/// From this many on it is rejected, whatever a trial says: also who tries it may take the collector along.
const DEADLY: u32 = 10;
/// The length of the note, in bytes: an identity has at most 253.
const NOTE_BYTES: usize = 512;

/// Who died of what.
#[derive(Debug)]
pub struct Deaths {
    note: Arc<dyn StorageFile>,
    /// The note is not blank.
    noted: bool,
    counts: HashMap<BatchKey, u32>,
}

impl Deaths {
    /// Reads what the last process left in `dir` and counts it in `store`.
    ///
    /// # Errors
    /// When the file or the store does not work.
    pub fn open(storage: &dyn Storage, dir: &Path, store: &mut dyn MarkStore) -> Result<Self, StoreError> {
        let fault = |source| StoreError::Folder { dir: dir.to_owned(), source };
        let note = storage.open(&dir.join("decoding"), Mode::Keep).map_err(fault)?;
        let mut text = [0; NOTE_BYTES];
        let bytes = note.read_at(&mut text, 0).map_err(fault)?;
        if let Some(batch) = text.get(..bytes).and_then(parse) {
            let BatchKey { identity, lane, seq, .. } = &batch;
            tracing::error!(%identity, %lane, seq, "The collector died while it decoded this batch");
            store.count_death(&batch)?;
        }
        let counts = store.deaths()?.into_iter().collect();
        let mut deaths = Self { note, noted: true, counts };
        deaths.end().map_err(fault)?;
        Ok(deaths)
    }

    /// The batch has been blamed too often to be decoded untried.
    pub fn is_suspect(&self, batch: &BatchKey) -> bool {
        self.counts.get(batch).is_some_and(|count| *count >= SUSPECT)
    }

    /// The batch has been blamed too often to be decoded or tried again.
    pub fn is_deadly(&self, batch: &BatchKey) -> bool {
        self.counts.get(batch).is_some_and(|count| *count >= DEADLY)
    }

    /// The batch is about to be decoded.
    ///
    /// # Errors
    /// When the note can not be written.
    pub fn begin(&mut self, batch: &BatchKey) -> io::Result<()> {
        let BatchKey { identity, lane, seq, digest } = batch;
        let digest = u128::from_be_bytes(*digest);
        let text = format!("{identity} {lane} {seq} {digest:032x}");
        self.noted = true;
        let text = format!("{text:<width$}\n", width = NOTE_BYTES - 1);
        self.note.write_at(&mut [IoSlice::new(text.as_bytes())], 0)
    }

    /// All that was begun is decoded.
    ///
    /// # Errors
    /// When the note can not be blanked.
    pub fn end(&mut self) -> io::Result<()> {
        if self.noted {
            self.note.write_at(&mut [IoSlice::new(&[b' '; NOTE_BYTES])], 0)?;
            self.noted = false;
        }
        Ok(())
    }

    /// The lane's mark has passed `seq`: its batches up to there are of no more interest. Gives those that
    /// the store still holds.
    pub fn forget(&mut self, identity: &str, lane: super::lane::LaneId, seq: u64) -> Vec<BatchKey> {
        if self.counts.is_empty() {
            return Vec::new();
        }
        let done = |batch: &BatchKey| batch.identity == identity && batch.lane == lane && batch.seq <= seq;
        let gone: Vec<BatchKey> = self.counts.keys().filter(|batch| done(batch)).cloned().collect();
        for batch in &gone {
            self.counts.remove(batch);
        }
        gone
    }
}

fn parse(note: &[u8]) -> Option<BatchKey> {
    let mut words = std::str::from_utf8(note).ok()?.split_ascii_whitespace();
    let identity = words.next()?.to_owned();
    let lane = super::lane::LaneId(u128::from_str_radix(words.next()?, 16).ok()?.to_be_bytes());
    let seq = words.next()?.parse().ok()?;
    let digest = u128::from_str_radix(words.next()?, 16).ok()?.to_be_bytes();
    Some(BatchKey { identity, lane, seq, digest })
}

#[cfg(test)]
mod tests {
    use super::super::lane::LaneId;
    use super::super::marks::{Change, Redb};
    use super::*;
    use crate::storage::Disk;

    #[test]
    fn the_third_death_makes_a_batch_suspect_and_the_tenth_deadly() {
        let dir = tempfile::tempdir().unwrap();
        let batch = BatchKey { identity: "edge-1".into(), lane: LaneId([0xab; 16]), seq: 7, digest: [5; 16] };
        for died in 0..10 {
            let mut store = Redb::open(dir.path()).unwrap();
            let mut deaths = Deaths::open(&Disk, dir.path(), &mut store).unwrap();
            assert_eq!(deaths.is_suspect(&batch), died >= 3, "after {died} deaths");
            assert!(!deaths.is_deadly(&batch), "after {died} deaths");
            deaths.begin(&batch).unwrap();
        }
        let mut store = Redb::open(dir.path()).unwrap();
        let mut deaths = Deaths::open(&Disk, dir.path(), &mut store).unwrap();
        assert!(deaths.is_deadly(&batch));
        assert!(!deaths.is_deadly(&BatchKey { digest: [6; 16], ..batch.clone() }));
        let gone = deaths.forget("edge-1", batch.lane, 7);
        assert_eq!(gone, [batch]);
        store.commit(&Change { survived: gone, ..Change::default() }).unwrap();
        assert_eq!(store.deaths().unwrap(), []);
    }

    #[test]
    fn what_was_decoded_is_no_death() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Redb::open(dir.path()).unwrap();
        let mut deaths = Deaths::open(&Disk, dir.path(), &mut store).unwrap();
        let batch =
            BatchKey { identity: "a".repeat(253), lane: LaneId([1; 16]), seq: u64::MAX, digest: [9; 16] };
        deaths.begin(&batch).unwrap();
        assert_eq!(parse(&std::fs::read(dir.path().join("decoding")).unwrap()), Some(batch));
        deaths.end().unwrap();
        drop(deaths);
        Deaths::open(&Disk, dir.path(), &mut store).unwrap();
        assert_eq!(store.deaths().unwrap(), []);
    }
}
