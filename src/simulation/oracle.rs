//! Knows every batch that was ever made and what became of it, and finds what must not be.

use super::batches::{Id, ids_in, sealed};
use crate::batch::{Digest, Sealed};
use crate::collector::session::Skip;
use crate::proto::skip::Reason;
use crate::storage::memory::Memory;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A lane's name, as both ends have it.
pub type Lane = [u8; 16];

/// What a number has come to at the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Taken(Id),
    Skipped(Reason),
    Adopted,
}

/// What the collector is known to have made durable. It goes back when the collector is restored.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    fates: BTreeMap<(Lane, u64), Fate>,
    marks: BTreeMap<Lane, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Made {
    edge: usize,
    digest: Digest,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Oracle {
    made: BTreeMap<Id, Made>,
    by_digest: BTreeMap<Digest, Id>,
    numbers: BTreeMap<(Lane, u64), Id>,
    committed: Committed,
    /// No promise was given for these: they were in memory at a crash, or on a disk that is gone.
    excused: BTreeSet<Id>,
    /// What the last look at the sink's files found in them.
    seen: BTreeMap<u64, Vec<u8>>,
    /// Bytes of batches were damaged or removed on purpose: a loss may be declared.
    pub damaged: bool,
}

impl Oracle {
    /// A new batch of this proxy.
    pub fn make(&mut self, edge: usize, poison: bool, filler: usize) -> (Id, Sealed) {
        let id = Id(self.made.len() as u64 + 1);
        let batch = sealed(id, poison, filler);
        self.made.insert(id, Made { edge, digest: batch.digest });
        self.by_digest.insert(batch.digest, id);
        (id, batch)
    }

    /// The proxy gave this batch back, or counted it as dropped before it had a number.
    pub fn refused(&mut self, id: Id) {
        self.excused.insert(id);
    }

    /// I0: a number names the same bytes for ever.
    pub fn number(&mut self, lane: Lane, seq: u64, id: Id) {
        let before = self.numbers.insert((lane, seq), id);
        assert!(before.is_none_or(|before| before == id), "I0: {seq} was {before:?} and is {id:?}");
    }

    fn id(&self, digest: &Digest) -> Id {
        *self.by_digest.get(digest).expect("bytes that nobody made")
    }

    /// The collector took a batch: its mark stood right below.
    pub fn taken(&mut self, lane: Lane, seq: u64, digest: Digest, mark: u64) {
        let id = self.id(&digest);
        self.number(lane, seq, id);
        let before = self.committed.marks.insert(lane, mark);
        assert_eq!((before.unwrap_or(0) + 1, mark), (seq, seq), "I3: the mark moved otherwise");
        let fate = self.committed.fates.insert((lane, seq), Fate::Taken(id));
        assert_eq!(fate, None, "I1: {seq} was taken before");
    }

    /// The collector took a skip: all up to the mark.
    pub fn skipped(&mut self, lane: Lane, skip: &Skip, mark: u64) {
        let (numbers, reason) = (&skip.numbers, skip.reason);
        let before = self.committed.marks.insert(lane, mark).unwrap_or(0);
        assert!(*numbers.start() <= before + 1 && mark == *numbers.end(), "I3: the mark moved otherwise");
        assert!(
            skip.records_per_seq.iter().all(|records| *records <= 1),
            "each batch has one record: {skip:?}"
        );
        // A power cut may take one write that was not synced and leave the next one behind it.
        let is_excused = |seq| self.numbers.get(&(lane, seq)).is_some_and(|id| self.excused.contains(id));
        let may_be_damaged = self.damaged || (before + 1..=mark).all(is_excused);
        assert!(reason != Reason::Damaged || may_be_damaged, "I2: {skip:?}");
        assert!(reason != Reason::Lost || self.damaged, "I2: {skip:?}");
        for seq in before + 1..=mark {
            let fate = self.committed.fates.insert((lane, seq), Fate::Skipped(reason));
            assert_eq!(fate, None, "I4: {seq} is skipped and was there");
        }
    }

    /// Where the lane stands at the collector.
    pub fn mark(&self, lane: Lane) -> u64 {
        self.committed.marks.get(&lane).copied().unwrap_or(0)
    }

    /// The collector opened the lane with this mark.
    pub fn opened(&mut self, lane: Lane, known: bool, mark: u64) {
        let before = self.committed.marks.get(&lane).copied();
        if known {
            assert_eq!(before.unwrap_or(mark), mark, "I3: the mark moved by itself");
            return;
        }
        assert!(before.unwrap_or(0) == 0, "a lane with a mark is not known any more");
        self.committed.marks.insert(lane, mark);
        for seq in 1..=mark {
            self.committed.fates.insert((lane, seq), Fate::Adopted);
        }
    }

    /// What is said to be committed must outlive a power cut of this moment: each batch up to `mark` stands in
    /// a file, durably.
    pub fn acked(&self, lane: Lane, mark: u64, disk: &Memory) {
        let fates = self.committed.fates.range((lane, 0)..=(lane, mark));
        let ids: Vec<Id> =
            fates.filter_map(|(_, fate)| if let Fate::Taken(id) = fate { Some(*id) } else { None }).collect();
        let Some(last) = ids.last() else { return };
        let files = disk.durable();
        let holds = files.iter().any(|(path, text)| is_sink(path) && ids_in(text).contains(last));
        assert!(holds, "I3: batch {last:?} was acked and a power cut would take it");
    }

    /// The proxy died or lost its power; `disk` holds what was promised to stay: what else it has made and is
    /// not at the collector may be lost.
    pub fn excuse(&mut self, edge: usize, held: &BTreeSet<Digest>) {
        for (id, made) in &self.made {
            if made.edge == edge && !held.contains(&made.digest) {
                self.excused.insert(*id);
            }
        }
    }

    /// These were damaged on purpose.
    pub fn may_lose(&mut self, digests: &BTreeSet<Digest>) {
        let ids = digests.iter().filter_map(|digest| self.by_digest.get(digest).copied());
        self.excused.extend(ids);
    }

    /// For [`Oracle::restore`].
    pub fn backup(&self) -> Committed {
        self.committed.clone()
    }

    /// The collector is set back: what it had since then may be lost.
    pub fn restore(&mut self, committed: &Committed) {
        let ids = self.committed.fates.keys().filter_map(|number| self.numbers.get(number));
        self.excused.extend(ids);
        self.committed = committed.clone();
        self.seen.clear();
    }

    /// The sink's files as they are now: each record once, and no byte that a reader has seen has changed.
    pub fn look(&mut self, disk: &Memory) -> BTreeSet<Id> {
        let mut ids = BTreeSet::new();
        let mut seen = BTreeMap::new();
        for (inode, path, text) in disk.files() {
            if !is_sink(&path) {
                continue;
            }
            for id in ids_in(&text) {
                assert!(ids.insert(id), "I1: {id:?} stands in the files twice");
            }
            let before = self.seen.get(&inode).map_or(&[][..], Vec::as_slice);
            let whole = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            assert!(text.starts_with(&before[..whole]), "a reader saw bytes change in {}", path.display());
            seen.insert(inode, text);
        }
        self.seen = seen;
        ids
    }

    /// A power cut of the collector took bytes that were not durable: who saw them saw what was not committed.
    pub fn forget_seen(&mut self) {
        self.seen.clear();
    }

    /// At the end, when all is delivered: every batch has come to exactly one end.
    pub fn settle(&mut self, disk: &Memory, aside: &BTreeSet<Digest>) {
        let sink = self.look(disk);
        let mut fates: BTreeMap<Id, Vec<Reason>> = BTreeMap::new();
        for ((lane, seq), fate) in &self.committed.fates {
            let id = self.numbers.get(&(*lane, *seq)).copied();
            if let (Fate::Skipped(reason), Some(id)) = (fate, id) {
                fates.entry(id).or_default().push(*reason);
            }
        }
        for (id, made) in &self.made {
            let skipped = fates.get(id).map_or(&[][..], Vec::as_slice);
            let lost = skipped.iter().any(|reason| *reason != Reason::AlreadyAcked);
            let excused = self.excused.contains(id) || aside.contains(&made.digest);
            assert!(!(sink.contains(id) && lost), "I7: {id:?} is in the files and counted as {skipped:?}");
            let there = sink.contains(id) || !skipped.is_empty() || excused;
            assert!(there, "I2: {id:?} of proxy {} is gone; {}", made.edge, self.whereabouts(*id));
        }
    }

    fn whereabouts(&self, id: Id) -> String {
        let number = self.numbers.iter().find(|(_, other)| **other == id).map(|(number, _)| *number);
        let Some((lane, seq)) = number else { return "it never had a number".to_owned() };
        let fate = self.committed.fates.get(&(lane, seq));
        let lane_id = crate::spool::LaneId(lane);
        format!("it is {seq} of lane {lane_id}, which stands at {}: {fate:?}", self.mark(lane))
    }

    /// How many batches were made.
    pub fn made(&self) -> usize {
        self.made.len()
    }
}

/// Files that readers are meant to read.
fn is_sink(path: &Path) -> bool {
    path.parent() == Some(Path::new("/far/out"))
        && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("flows"))
}
