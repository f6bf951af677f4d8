//! The lanes that the commit has in its hands: read from the store when first named, written back with the
//! next transaction.

use crate::collector::lane::{Mark, Row};
use crate::collector::marks::{LaneKey, MarkStore, StoreError};
use std::collections::{BTreeSet, HashMap};

/// Lanes kept in memory; the rest is read again when it is named.
const MAX_KNOWN: usize = 65_536;
/// How long the row of a closed lane is kept, in milliseconds: a backup of its proxy may bring it back.
const CLOSED_KEPT_MS: u64 = 400 * 24 * 3600 * 1000;
/// When an identity has too many lanes, open ones that were not opened for so long may go too.
const IDLE_MS: u64 = 30 * 24 * 3600 * 1000;

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    row: Row,
    /// The store has a row for it. Without one the mark is 0.
    stored: bool,
}

/// What opening a lane came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// The store knows it.
    Known(Row),
    /// It is adopted. Durable only after the next transaction, unless its mark is 0.
    Adopted(Row),
    /// The identity has as many lanes as it may, and none can go.
    Full,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lanes {
    known: HashMap<LaneKey, Known>,
    changed: BTreeSet<LaneKey>,
    gone: BTreeSet<LaneKey>,
    /// Rows per identity.
    limit: usize,
}

impl Lanes {
    pub(super) fn new(limit: usize) -> Self {
        Self { known: HashMap::new(), changed: BTreeSet::new(), gone: BTreeSet::new(), limit }
    }

    /// The lane's row; that of a lane with mark 0 when nothing is known of it.
    pub(super) fn row(&mut self, store: &mut dyn MarkStore, key: &LaneKey) -> Result<Row, StoreError> {
        Ok(self.load(store, key)?.row)
    }

    fn load(&mut self, store: &mut dyn MarkStore, key: &LaneKey) -> Result<Known, StoreError> {
        if let Some(known) = self.known.get(key) {
            return Ok(*known);
        }
        let row = if self.gone.contains(key) { None } else { store.lane(key)? };
        let known = Known { row: row.unwrap_or_default(), stored: row.is_some() };
        if self.known.len() >= MAX_KNOWN {
            let changed = &self.changed;
            self.known.retain(|key, _| changed.contains(key));
        }
        self.known.insert(key.clone(), known);
        Ok(known)
    }

    /// Changes the row with the next transaction.
    pub(super) fn set(&mut self, key: &LaneKey, row: Row) {
        self.known.entry(key.clone()).or_default().row = row;
        if row.mark.committed_seq > 0 {
            self.gone.remove(key);
            self.changed.insert(key.clone());
        }
    }

    pub(super) fn open(
        &mut self,
        store: &mut dyn MarkStore,
        key: &LaneKey,
        (acked_seq, next_seq): (u64, u64),
        now_ms: u64,
    ) -> Result<Opening, StoreError> {
        let Known { row, stored } = self.load(store, key)?;
        let known = stored || row.mark.committed_seq > 0;
        if !known && !self.make_room(store, key, now_ms)? {
            return Ok(Opening::Full);
        }
        let mark = if known { row.mark } else { Mark::adopted(acked_seq) };
        let row = Row { mark, next_seq: row.next_seq.max(next_seq), opened_ms: now_ms, closed_ms: 0 };
        self.set(key, row);
        Ok(if known { Opening::Known(row) } else { Opening::Adopted(row) })
    }

    /// Notes that the proxy forgets the lane. Gives how many of its numbers never came, and its row, if one
    /// is kept: there is none for a lane with mark 0.
    pub(super) fn close(
        &mut self,
        store: &mut dyn MarkStore,
        key: &LaneKey,
        now_ms: u64,
    ) -> Result<(u64, Option<Row>), StoreError> {
        let Known { row, stored } = self.load(store, key)?;
        let lost = if row.closed_ms == 0 { row.missing() } else { 0 };
        let row = Row { closed_ms: now_ms, ..row };
        if row.mark.committed_seq > 0 {
            self.set(key, row);
            return Ok((lost, Some(row)));
        }
        self.known.remove(key);
        if stored {
            self.gone.insert(key.clone());
        }
        Ok((lost, None))
    }

    /// The lane's writer has reached `next_seq`.
    pub(super) fn heard(&mut self, key: &LaneKey, next_seq: u64) {
        let Some(known) = self.known.get_mut(key) else { return };
        if next_seq > known.row.next_seq {
            known.row.next_seq = next_seq;
            let row = known.row;
            self.set(key, row);
        }
    }

    /// What the next transaction has to say of lanes.
    pub(super) fn changes(&self) -> Vec<(LaneKey, Option<Row>)> {
        let rows = self.changed.iter().filter_map(|key| Some((key.clone(), Some(self.known.get(key)?.row))));
        rows.chain(self.gone.iter().map(|key| (key.clone(), None))).collect()
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty() || !self.gone.is_empty()
    }

    /// What [`Lanes::changes`] said is durable.
    pub(super) fn stored(&mut self) {
        for key in std::mem::take(&mut self.changed) {
            if let Some(known) = self.known.get_mut(&key) {
                known.stored = true;
            }
        }
        self.gone.clear();
    }

    /// Lets rows of the identity go that are of no more use, and, when it has too many, closed ones and then
    /// idle ones, the oldest first. False when that is not enough.
    fn make_room(
        &mut self,
        store: &mut dyn MarkStore,
        (identity, _): &LaneKey,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let age = |since: u64| now_ms.saturating_sub(since);
        let rows = store.lanes_of(identity)?.into_iter().map(|(lane, row)| ((identity.clone(), lane), row));
        let rows = rows.filter(|(key, _)| !self.gone.contains(key));
        let rows = rows.map(|(key, row)| {
            let row = self.known.get(&key).map_or(row, |known| known.row);
            (key, row)
        });
        let is_old = |row: &Row| row.closed_ms != 0 && age(row.closed_ms) > CLOSED_KEPT_MS;
        let (old, mut rows): (Vec<_>, Vec<_>) = rows.partition(|(_, row)| is_old(row));
        rows.sort_by_key(|(_, row)| (row.closed_ms == 0, row.closed_ms.max(row.opened_ms)));
        let excess = (rows.len() + 1).saturating_sub(self.limit);
        let may_go = |row: &Row| row.closed_ms != 0 || age(row.opened_ms) > IDLE_MS;
        let spare: Vec<_> = rows.into_iter().filter(|(_, row)| may_go(row)).take(excess).collect();
        let enough = spare.len() == excess;
        for (key, _) in old.into_iter().chain(spare) {
            self.known.remove(&key);
            self.changed.remove(&key);
            self.gone.insert(key);
        }
        Ok(enough)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::lane::LaneId;
    use crate::collector::marks::{Change, Redb};
    use crate::collector::tests::identity;

    struct Bench {
        _dir: tempfile::TempDir,
        store: Redb,
        lanes: Lanes,
    }

    impl Bench {
        fn new(limit: usize) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Redb::open(dir.path()).unwrap();
            Self { _dir: dir, store, lanes: Lanes::new(limit) }
        }

        fn open(&mut self, lane: u8, acked_seq: u64, now_ms: u64) -> Opening {
            self.lanes.open(&mut self.store, &key(lane), (acked_seq, acked_seq + 1), now_ms).unwrap()
        }

        fn close(&mut self, lane: u8, now_ms: u64) -> (u64, Option<Row>) {
            self.lanes.close(&mut self.store, &key(lane), now_ms).unwrap()
        }

        fn commit(&mut self) {
            let change = Change { lanes: self.lanes.changes(), ..Change::default() };
            self.store.commit(&change).unwrap();
            self.lanes.stored();
        }

        fn stored(&mut self) -> Vec<u8> {
            let rows = self.store.lanes_of(&identity("a")).unwrap();
            rows.iter().map(|(lane, _)| lane.0[0]).collect()
        }
    }

    fn key(lane: u8) -> LaneKey {
        (identity("a"), LaneId([lane; 16]))
    }

    #[test]
    fn an_adopted_lane_is_known_from_then_on() {
        let mut bench = Bench::new(10);
        assert!(matches!(bench.open(1, 5, 1), Opening::Adopted(row) if row.mark.committed_seq == 5));
        bench.commit();
        bench.lanes = Lanes::new(10);
        assert!(matches!(bench.open(1, 9, 2), Opening::Known(row) if row.mark.committed_seq == 5));
    }

    #[test]
    fn a_lane_with_mark_0_keeps_no_row() {
        let mut bench = Bench::new(10);
        assert!(matches!(bench.open(1, 0, 1), Opening::Adopted(_)));
        bench.lanes.heard(&key(1), 7);
        assert!(!bench.lanes.has_changes());
        assert!(matches!(bench.open(1, 0, 1), Opening::Adopted(_)));
        assert_eq!(bench.close(1, 2), (6, None));
        bench.commit();
        assert_eq!(bench.stored(), [0u8; 0]);
    }

    #[test]
    fn closing_counts_what_never_came_and_opening_takes_it_back() {
        let mut bench = Bench::new(10);
        bench.open(1, 5, 1);
        bench.lanes.heard(&key(1), 9);
        assert_eq!(bench.close(1, 3).0, 3);
        assert_eq!(bench.close(1, 4).0, 0);
        bench.commit();
        assert_eq!(bench.store.lane(&key(1)).unwrap().unwrap().closed_ms, 4);
        bench.open(1, 5, 5);
        bench.commit();
        assert_eq!(bench.store.lane(&key(1)).unwrap().unwrap().closed_ms, 0);
    }

    #[test]
    fn closed_lanes_make_room_the_oldest_first_and_open_ones_only_when_idle() {
        let mut bench = Bench::new(3);
        for lane in 1..=3 {
            bench.open(lane, 5, u64::from(lane));
        }
        bench.close(3, 10);
        bench.close(2, 11);
        bench.commit();
        assert!(matches!(bench.open(4, 5, 12), Opening::Adopted(_)));
        bench.commit();
        assert_eq!(bench.stored(), [1, 2, 4]);
        assert!(matches!(bench.open(5, 5, 13), Opening::Adopted(_)));
        bench.commit();
        assert_eq!(bench.stored(), [1, 4, 5]);
        assert_eq!(bench.open(6, 5, 14), Opening::Full);
        assert!(matches!(bench.open(6, 5, 13 + IDLE_MS), Opening::Adopted(_)));
        bench.commit();
        assert_eq!(bench.stored(), [4, 5, 6]);
    }

    #[test]
    fn closed_rows_go_after_400_days() {
        let mut bench = Bench::new(100);
        bench.open(1, 5, 1);
        bench.close(1, 2);
        bench.commit();
        bench.open(2, 5, 2 + CLOSED_KEPT_MS);
        bench.commit();
        assert_eq!(bench.stored(), [1, 2]);
        bench.open(3, 5, 3 + CLOSED_KEPT_MS);
        bench.commit();
        assert_eq!(bench.stored(), [2, 3]);
    }
}
