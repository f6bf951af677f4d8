//! What must hold of lanes that are set aside: each comes whole into one folder, and all that goes is counted.

use super::damage::{frames, is_segment};
use super::{World, is_aside};
use crate::spool::folder::{self, Depth};
use crate::spool::{LaneId, Metrics};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

impl World {
    /// The number after a lane's last, set aside or not; `None` if the spool knows it no more.
    pub(super) fn next_seq(&self, id: LaneId) -> Option<u64> {
        self.spool().shared.state().lane_not_closed(id).map(|lane| lane.next_seq)
    }

    /// What of a lane lies in folders, by folder.
    fn aside(&self) -> BTreeMap<LaneId, BTreeMap<PathBuf, BTreeSet<u64>>> {
        let mut aside: BTreeMap<LaneId, BTreeMap<PathBuf, BTreeSet<u64>>> = BTreeMap::new();
        for (_, path, bytes) in self.disk.files().into_iter().filter(|(_, path, _)| is_aside(path)) {
            let dir = path.parent().unwrap().to_owned();
            for frame in frames(&bytes) {
                aside.entry(frame.lane).or_default().entry(dir.clone()).or_default().insert(frame.seq);
            }
        }
        aside
    }

    /// Batches in folders that are counted.
    fn counted_aside(&self) -> u64 {
        let aside = self.aside().into_iter().filter(|(id, _)| self.next_seq(*id).is_none());
        let dirs = aside.flat_map(|(_, folders)| folders.into_keys());
        let read = |dir: PathBuf| folder::read(self.disk.as_ref(), &dir, Depth::Headers).unwrap();
        dirs.flat_map(|dir| read(dir).lanes).map(|lane| lane.unacked.batches).sum()
    }

    /// A process that dies before the folder says whose it is takes with it that the lane was to be set aside.
    pub(super) fn take_stock_of_what_is_aside(&mut self) {
        let spool = self.spool().clone();
        for (id, known) in self.lanes.iter_mut().filter(|(_, known)| known.aside.is_some()) {
            if spool.shared.state().lane(*id).is_some() {
                known.aside = None;
            }
        }
        self.life.as_mut().unwrap().aside_before = self.counted_aside();
    }

    pub(super) fn check_aside(&mut self) {
        if self.lanes.values().all(|known| known.aside.is_none()) {
            return;
        }
        let aside = self.aside();
        let files = self.disk.files();
        let life = self.life.as_mut().unwrap();
        let deleted = life.metrics.aside_deleted_batches.get();
        if std::mem::replace(&mut life.aside_deleted, deleted) < deleted {
            // A power cut may bring some of it back.
            for (id, known) in self.lanes.iter_mut().filter(|(_, known)| known.aside.is_some()) {
                let there = aside.get(id).into_iter().flat_map(BTreeMap::values).flatten();
                known.aside = Some(there.copied().collect());
            }
        }
        for (id, known) in &self.lanes {
            let Some(kept) = &known.aside else {
                assert!(!aside.contains_key(id), "{id} lies in a folder, and nobody wanted that");
                continue;
            };
            let folders = aside.get(id);
            assert!(folders.is_none_or(|folders| folders.len() == 1), "{id} is spread: {folders:?}");
            if self.next_seq(*id).is_some() {
                continue;
            }
            let name = id.to_string();
            let left =
                files.iter().find(|(_, path, _)| is_segment(path) && path.to_string_lossy().contains(&name));
            assert!(left.is_none() || self.trouble, "{left:?} is of a lane that is set aside");
            let Some((dir, there)) = folders.and_then(BTreeMap::first_key_value) else { continue };
            let found = folder::read(self.disk.as_ref(), dir, Depth::Headers).unwrap();
            let is_skipped = |seq: &&u64| found.lanes.iter().any(|lane| !lane.is_unacked(**seq));
            let mut gone = kept.difference(there).filter(|seq| !known.excused.contains(seq));
            assert_eq!(gone.find(|seq| !is_skipped(seq)), None, "{id}: {kept:?} became {there:?}");
        }
        let life = self.life();
        let is_damaged = self.lanes.values().any(|known| known.aside.is_some() && !known.excused.is_empty());
        if is_damaged {
            return;
        }
        let counted = life.metrics.skipped_batches.get(Metrics::ASIDE) + life.aside_before;
        assert_eq!(counted, self.counted_aside() + life.metrics.aside_deleted_batches.get());
    }
}
