//! The commit on a real store and real files. A crash is a drop: nothing is finished, and what a power cut
//! would take is taken away by hand.

use super::*;
use crate::collector::lane::LaneId;
use crate::collector::marks::{Redb, StoreError};
use crate::collector::session::{Batch, Rejection};
use crate::collector::sinks::{SinkError, Taken};
use crate::collector::tests::{identity, protocols, raw_batch, record_batch};
use crate::collector::trial::Verdict;
use crate::proto::Codec;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver};

/// 2026-11-23 14:00:00 UTC
const NOW_MS: u64 = 1_795_442_400_000;
static PASSED_MS: AtomicU64 = AtomicU64::new(0);

fn now() -> u64 {
    NOW_MS
}

fn later() -> u64 {
    NOW_MS + PASSED_MS.load(Ordering::Relaxed)
}

/// A collector's folders; commits come and go.
struct Home {
    dir: tempfile::TempDir,
    settings: jsonl::Settings,
}

struct Bench {
    commit: Commit,
    reply: UnboundedSender<Outcome>,
    outcomes: UnboundedReceiver<Outcome>,
    health: watch::Receiver<Health>,
    identity: Identity,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = jsonl::Settings::new(dir.path().join("out/flows.jsonl"));
        Self { dir, settings }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn start(&self) -> Bench {
        self.start_with(Vec::new(), |store| Box::new(store))
    }

    /// A child that another test of this process starts has the lock of a store that was just closed until it runs its
    /// own program.
    fn store(&self) -> Redb {
        let begun = std::time::Instant::now();
        loop {
            match Redb::open(&self.state()) {
                Err(StoreError::Locked { .. }) if begun.elapsed().as_secs() < 60 => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }

    fn start_with(&self, sinks: Vec<Box<dyn Sink>>, wrap: impl FnOnce(Redb) -> Box<dyn MarkStore>) -> Bench {
        let mut store = self.store();
        let deaths = Deaths::open(&crate::storage::Disk, &self.state(), &mut store).unwrap();
        let file = jsonl::recover(Arc::new(crate::storage::Disk), self.settings.clone(), &mut store, NOW_MS)
            .unwrap();
        let (health_in, health) = watch::channel(Health::default());
        let commit = Commit::new(Parts {
            store: wrap(store),
            file: Some(file),
            sinks,
            deaths,
            trial: Box::new(|_, _, _| Verdict::Kills),
            lanes_per_identity: 100,
            metrics: Metrics::new(),
            registry: Registry::default(),
            health: health_in,
            clock: now,
            patience: Box::new(|| false),
        });
        let (reply, outcomes) = mpsc::unbounded_channel();
        Bench { commit, reply, outcomes, health, identity: identity("edge-1") }
    }

    /// Names of the files beside the live one.
    fn names(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.out()).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn read(&self, name: &str) -> Vec<u64> {
        protocols(&std::fs::read_to_string(self.out().join(name)).unwrap())
    }

    /// The records in all files that readers are meant to read, in order.
    fn records(&self) -> Vec<u64> {
        let mut names = self.names();
        names.retain(|name| name.starts_with("flows-"));
        names.push("flows.jsonl".to_owned());
        names.iter().flat_map(|name| self.read(name)).collect()
    }

    fn live_bytes(&self) -> u64 {
        std::fs::metadata(&self.settings.path).unwrap().len()
    }
}

impl Bench {
    fn order(&mut self, tasks: Vec<Task>) -> Result<Vec<Answer>, Abandoned> {
        let mut requests = tasks.into_iter().map(|task| Request {
            identity: self.identity.clone(),
            order: Order::Lane { lane: 1, id: LaneId([1; 16]), task },
            reply: self.reply.clone(),
            permit: None,
        });
        let first = requests.next().unwrap();
        self.commit.group(first, || requests.next())?;
        Ok(std::iter::from_fn(|| self.outcomes.try_recv().ok()).map(|outcome| outcome.result).collect())
    }

    fn one(&mut self, task: Task) -> Answer {
        self.order(vec![task]).unwrap().remove(0)
    }

    fn open(&mut self) -> (bool, u64) {
        match self.one(Task::Open { acked_seq: 0, next_seq: 1, current: true }) {
            Answer::Opened { known, mark } => (known, mark.committed_seq),
            other => panic!("{other:?}"),
        }
    }

    /// Commits batches with one record each, whose protocol is the number, in one group.
    fn records(&mut self, numbers: std::ops::RangeInclusive<u8>) {
        let last = u64::from(*numbers.end());
        let answers = self.order(numbers.map(record).collect()).unwrap();
        assert!(
            matches!(answers.last(), Some(Answer::Marked { mark, moved: true }) if mark.committed_seq == last)
        );
    }
}

fn batch(seq: u64, previous: Option<Bytes>, payload: Bytes) -> Task {
    let previous = previous.map(|bytes| batch::digest(Codec::Plain, bytes.len() as u32, &bytes));
    let plain_size = payload.len() as u32;
    Task::Batch(Batch { seq, previous, codec: Some(Codec::Plain), plain_size, payload, too_large: false })
}

fn record(number: u8) -> Task {
    let previous = (number > 1).then(|| record_batch(&[number - 1]));
    batch(number.into(), previous, record_batch(&[number]))
}

fn seqs(answers: &[Answer]) -> Vec<(u64, bool)> {
    let marked = answers.iter().map(|answer| match answer {
        Answer::Marked { mark, moved } => (mark.committed_seq, *moved),
        other => panic!("{other:?}"),
    });
    marked.collect()
}

fn reason(answer: &Answer) -> Reason {
    match answer {
        Answer::Rejected(Rejection { reason, .. }) => *reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn records_are_written_once_and_the_mark_outlives_a_crash() {
    let home = Home::new();
    let mut bench = home.start();
    assert_eq!(bench.open(), (false, 0));
    let answers = bench.order(vec![record(1), record(2), record(1), record(2), record(3)]).unwrap();
    assert_eq!(seqs(&answers), [(1, true), (2, true), (2, false), (2, false), (3, true)]);
    assert_eq!(bench.commit.parts.metrics.records.get(), 3);
    assert_eq!(bench.commit.parts.metrics.duplicates.get(), 2);
    assert_eq!((bench.commit.parts.metrics.commits.get(), bench.commit.parts.metrics.fsyncs.get()), (1, 1));
    drop(bench);
    let mut bench = home.start();
    assert_eq!(bench.open(), (true, 3));
    assert_eq!(seqs(&[bench.one(record(3))]), [(3, false)]);
    assert_eq!(home.records(), [1, 2, 3]);
}

#[test]
fn what_is_above_the_mark_is_dropped_until_the_next_one_comes() {
    let home = Home::new();
    let mut bench = home.start();
    bench.open();
    let answers = bench.order(vec![record(2), record(1), record(3)]).unwrap();
    assert_eq!(answers[0], Answer::Gap { committed_seq: 0 });
    assert_eq!(answers[2], Answer::Gap { committed_seq: 1 });
    bench.records(2..=3);
    assert_eq!(home.records(), [1, 2, 3]);
}

#[test]
fn bad_batches_are_rejected_and_leave_the_mark() {
    let home = Home::new();
    let mut bench = home.start();
    bench.open();
    assert_eq!(reason(&bench.one(batch(1, None, vec![0xff; 9].into()))), Reason::Malformed);
    let Task::Batch(good) = record(1) else { unreachable!() };
    let too_large = Batch { too_large: true, payload: Bytes::new(), ..good.clone() };
    assert_eq!(reason(&bench.one(Task::Batch(too_large))), Reason::TooLarge);
    assert_eq!(reason(&bench.one(Task::Batch(Batch { codec: None, ..good }))), Reason::Malformed);
    bench.records(1..=1);
    let other = Some(record_batch(&[9]));
    assert_eq!(reason(&bench.one(batch(2, other, record_batch(&[2])))), Reason::Forked);
    for label in ["too_large", "forked"] {
        assert_eq!(bench.commit.parts.metrics.rejected.get(label), 1);
    }
    assert_eq!(bench.commit.parts.metrics.rejected.get("malformed"), 2);
    bench.records(2..=2);
    assert_eq!(home.records(), [1, 2]);
}

#[test]
fn a_skip_moves_the_mark_and_counts_what_it_takes() {
    let home = Home::new();
    let mut bench = home.start();
    bench.open();
    bench.records(1..=2);
    let skip = Skip {
        numbers: 1..=4,
        reason: SkipReason::Dropped,
        records_per_seq: vec![10, 20, 30, 40],
        records: 100,
        counts_per_exporter: Vec::new(),
        digest: None,
    };
    assert_eq!(seqs(&[bench.one(Task::Skip(skip.clone()))]), [(4, true)]);
    assert_eq!(bench.commit.parts.metrics.skipped.get("dropped"), 70);
    assert_eq!(bench.commit.parts.metrics.skipped_batches.get("dropped"), 2);
    assert_eq!(seqs(&[bench.one(Task::Skip(skip.clone()))]), [(4, false)]);
    let above = Skip { numbers: 6..=7, ..skip };
    assert_eq!(bench.one(Task::Skip(above)), Answer::Gap { committed_seq: 4 });
    drop(bench);
    assert_eq!(home.start().open(), (true, 4));
}

#[test]
fn sums_of_what_a_proxy_says_that_it_skipped_end_at_the_highest_number() {
    let home = Home::new();
    let mut bench = home.start();
    let identity = bench.identity.clone();
    let registry = bench.commit.parts.registry.clone();
    let _member = registry.join(&identity, ([127, 0, 0, 1], 1).into(), 8, 0).unwrap();
    bench.open();
    let address = std::net::IpAddr::from([192, 0, 2, 1]);
    for number in 1..=2 {
        let skip = Skip {
            numbers: number..=number,
            reason: SkipReason::Dropped,
            records_per_seq: Vec::new(),
            records: u64::MAX,
            counts_per_exporter: vec![(address, u64::MAX), (address, u64::MAX)],
            digest: None,
        };
        bench.one(Task::Skip(skip));
    }
    let proxy = registry.proxies(0).remove(0);
    assert_eq!((proxy.skipped["dropped"].batches, proxy.skipped["dropped"].records), (2, u64::MAX));
    assert_eq!(proxy.exporters[0].skipped, u64::MAX);
}

#[test]
fn an_adopted_mark_is_durable_before_it_is_told() {
    let home = Home::new();
    let mut bench = home.start();
    let open = || Task::Open { acked_seq: 7, next_seq: 9, current: false };
    assert!(matches!(bench.one(open()), Answer::Opened { known: false, mark } if mark.committed_seq == 7));
    drop(bench);
    let open = Task::Open { acked_seq: 8, next_seq: 9, current: false };
    let answer = home.start().one(open);
    assert!(matches!(answer, Answer::Opened { known: true, mark } if mark.committed_seq == 7));
}

#[test]
fn the_last_group_is_written_again_where_a_crash_cut_it_off() {
    let home = Home::new();
    let mut bench = home.start();
    bench.open();
    bench.records(1..=2);
    let before = home.live_bytes();
    bench.records(3..=5);
    let after = std::fs::read(&home.settings.path).unwrap();
    drop(bench);
    for kept in [before, before + 1, after.len() as u64 - 1, after.len() as u64] {
        let file = std::fs::OpenOptions::new().write(true).open(&home.settings.path).unwrap();
        file.set_len(kept).unwrap();
        drop(file);
        drop(home.start());
        assert_eq!(std::fs::read(&home.settings.path).unwrap(), after, "cut at {kept}");
    }
    assert_eq!(home.names(), ["flows.jsonl"]);
    let mut bench = home.start();
    bench.open();
    bench.records(6..=6);
    assert_eq!(home.records(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_full_file_gets_its_last_name_once() {
    let mut home = Home::new();
    home.settings.max_bytes = 1;
    let mut bench = home.start();
    bench.open();
    for number in 1..=3 {
        bench.records(number..=number);
    }
    let full = ["flows-20261123T140000Z-00000001.jsonl", "flows-20261123T140000Z-00000002.jsonl"];
    assert_eq!(home.names(), [full[0], full[1], "flows.jsonl"]);
    assert_eq!((home.read(full[0]), home.read(full[1])), (vec![1], vec![2]));
    bench.commit.stop();
    drop(bench);
    // Shipped and deleted files change nothing.
    std::fs::remove_file(home.out().join(full[1])).unwrap();
    drop(home.start());
    assert_eq!(home.names(), [full[0], "flows.jsonl"]);
    assert_eq!(home.records(), [1, 3]);
}

#[test]
fn a_rename_that_a_crash_prevented_is_done_at_start() {
    let mut home = Home::new();
    home.settings.max_bytes = 1;
    let mut bench = home.start();
    bench.open();
    bench.records(1..=1);
    bench.records(2..=2);
    drop(bench);
    let full = home.out().join("flows-20261123T140000Z-00000001.jsonl");
    std::fs::rename(&full, &home.settings.path).unwrap();
    drop(home.start());
    assert_eq!(home.names(), ["flows-20261123T140000Z-00000001.jsonl", "flows.jsonl"]);
    assert_eq!((home.records(), home.read("flows.jsonl")), (vec![1, 2], vec![2]));
    // And the other half: renamed, but the next file not made.
    std::fs::remove_file(&home.settings.path).unwrap();
    drop(home.start());
    assert_eq!(home.records(), [1, 2]);
}

/// A full file may be shipped and deleted as soon as it has its name. A file made later may get its inode's number.
#[test]
fn the_next_file_is_not_taken_for_the_full_one_whose_inode_it_got() {
    let mut home = Home::new();
    home.settings.max_bytes = 1;
    let mut bench = home.start();
    bench.open();
    bench.records(1..=1);
    bench.records(2..=2);
    drop(bench);
    // The crash came between the rename and the next file.
    let (live, freed) = (&home.settings.path, home.dir.path().join("freed"));
    std::fs::rename(home.out().join("flows-20261123T140000Z-00000001.jsonl"), &freed).unwrap();
    std::fs::remove_file(live).unwrap();
    drop(home.start());
    assert_eq!(home.records(), [2]);
    // Another one comes before the next group.
    std::fs::copy(live, &freed).unwrap();
    std::fs::rename(&freed, live).unwrap();
    drop(home.start());
    assert_eq!((home.names(), home.records()), (vec!["flows.jsonl".to_owned()], vec![2]));
}

#[test]
fn a_file_ends_by_age_also_when_nothing_comes() {
    let mut home = Home::new();
    home.settings.max_age = Duration::from_secs(60);
    let mut bench = home.start();
    bench.commit.parts.clock = later;
    bench.commit.idle().unwrap();
    bench.open();
    bench.records(1..=1);
    bench.commit.idle().unwrap();
    assert_eq!(home.names(), ["flows.jsonl"]);
    PASSED_MS.store(60_000, Ordering::Relaxed);
    bench.commit.idle().unwrap();
    bench.commit.idle().unwrap();
    assert_eq!(home.names(), ["flows-20261123T140000Z-00000001.jsonl", "flows.jsonl"]);
    assert_eq!(home.live_bytes(), 0);
    bench.records(2..=2);
    drop(bench);
    drop(home.start());
    assert_eq!(home.records(), [1, 2]);
}

#[test]
fn a_store_without_marks_never_appends_to_a_file_it_finds() {
    let home = Home::new();
    std::fs::create_dir_all(home.out()).unwrap();
    std::fs::write(&home.settings.path, "somebody's\n").unwrap();
    std::fs::write(home.out().join("flows-20200101T000000Z-00000041.jsonl"), "").unwrap();
    let mut bench = home.start();
    bench.open();
    bench.records(1..=1);
    drop(bench);
    let orphan = "orphan-20261123T140000Z-flows.jsonl";
    assert_eq!(home.names(), ["flows-20200101T000000Z-00000041.jsonl", "flows.jsonl", orphan]);
    assert_eq!(std::fs::read_to_string(home.out().join(orphan)).unwrap(), "somebody's\n");
    assert_eq!(home.records(), [1]);
    let mut store = home.store();
    assert_eq!(store.file().unwrap().unwrap().0.number, 42);
}

/// Sets the store back to where it was after batch 2, lets the proxy send again, and looks at what is there.
fn set_back(max_bytes: u64, clean: bool) -> (Home, Vec<u64>) {
    let mut home = Home::new();
    home.settings.max_bytes = max_bytes;
    let mut bench = home.start();
    bench.open();
    bench.records(1..=1);
    bench.records(2..=2);
    if clean {
        bench.commit.stop();
    }
    drop(bench);
    let (store, backup) = (home.state().join("marks.redb"), home.dir.path().join("backup"));
    std::fs::copy(&store, &backup).unwrap();
    let mut bench = home.start();
    bench.open();
    for number in 3..=5 {
        bench.records(number..=number);
    }
    drop(bench);
    std::fs::copy(&backup, &store).unwrap();
    let mut bench = home.start();
    assert_eq!(bench.open(), (true, 2));
    bench.records(3..=6);
    drop(bench);
    drop(home.start());
    let records = home.records();
    (home, records)
}

#[test]
fn a_store_that_was_set_back_sets_younger_bytes_aside() {
    for clean in [true, false] {
        let (home, records) = set_back(1 << 30, clean);
        assert_eq!(records, [1, 2, 3, 4, 5, 6]);
        let orphans: Vec<String> =
            home.names().into_iter().filter(|name| name.starts_with("orphan")).collect();
        assert_eq!(orphans, ["orphan-20261123T140000Z-flows.jsonl"]);
        assert_eq!(home.read(&orphans[0]), [1, 2, 3, 4, 5]);
    }
}

#[test]
fn a_store_that_was_set_back_sets_younger_files_aside() {
    for clean in [true, false] {
        let (home, records) = set_back(1, clean);
        assert_eq!(records, [1, 2, 3, 4, 5, 6]);
        let names = home.names();
        let orphans = names.iter().filter(|name| name.starts_with("orphan")).flat_map(|name| home.read(name));
        let mut orphans: Vec<u64> = orphans.collect();
        orphans.sort_unstable();
        assert_eq!(orphans, [3, 4, 5]);
    }
}

#[test]
fn a_file_that_was_moved_away_is_not_written_again_after_a_clean_stop() {
    let home = Home::new();
    let mut bench = home.start();
    bench.open();
    bench.records(1..=2);
    bench.commit.stop();
    drop(bench);
    std::fs::rename(&home.settings.path, home.dir.path().join("moved")).unwrap();
    let mut bench = home.start();
    bench.open();
    bench.records(3..=3);
    drop(bench);
    assert_eq!(home.records(), [3]);
}

/// Commits two records, lets somebody loose on the live file, commits two more.
fn meddle(home: &Home, with: impl FnOnce(&Path)) {
    let mut bench = home.start();
    bench.open();
    bench.records(1..=1);
    bench.records(2..=2);
    with(&home.settings.path);
    bench.records(3..=3);
    bench.records(4..=4);
    drop(bench);
    drop(home.start());
}

#[test]
fn what_follows_a_file_that_was_moved_or_removed_meanwhile_stands_in_a_new_one() {
    let home = Home::new();
    let moved = home.dir.path().join("moved");
    meddle(&home, |file| std::fs::rename(file, &moved).unwrap());
    assert_eq!(protocols(&std::fs::read_to_string(moved).unwrap()), [1, 2]);
    assert_eq!(home.records(), [3, 4]);

    let home = Home::new();
    meddle(&home, |file| std::fs::remove_file(file).unwrap());
    assert_eq!(home.records(), [3, 4]);

    let home = Home::new();
    let moved = home.dir.path().join("moved");
    meddle(&home, |file| {
        std::fs::rename(file, &moved).unwrap();
        std::fs::write(file, "").unwrap();
    });
    assert_eq!(protocols(&std::fs::read_to_string(moved).unwrap()), [1, 2]);
    assert_eq!(home.records(), [3, 4]);
}

#[test]
fn a_file_that_was_cut_meanwhile_is_finished_and_never_filled_with_zeros() {
    let home = Home::new();
    meddle(&home, |file| std::fs::write(file, "").unwrap());
    assert_eq!(home.records(), [3, 4]);
    assert_eq!(home.names(), ["flows.jsonl"]);

    let home = Home::new();
    meddle(&home, |file| {
        let half = std::fs::metadata(file).unwrap().len() / 2;
        std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(half).unwrap();
    });
    assert_eq!(home.records(), [1, 3, 4]);
    assert_eq!(home.names(), ["flows-20261123T140000Z-00000001.jsonl", "flows.jsonl"]);
}

#[test]
fn a_file_that_was_removed_to_make_room_on_a_full_disk_is_begun_anew() {
    let home = Home::new();
    let mut bench = home.start();
    bench.open();
    bench.records(1..=2);
    // Whoever stands in the way of the file makes every write fail, as a full disk does.
    let (file, other) = (home.settings.path.clone(), home.out().join("other"));
    std::fs::rename(&file, &other).unwrap();
    std::fs::create_dir(&file).unwrap();
    let (live, mut turns) = (file.clone(), 0);
    bench.commit.parts.patience = Box::new(move || {
        turns += 1;
        if turns == 2 {
            std::fs::remove_dir(&live).unwrap();
        }
        true
    });
    bench.records(3..=4);
    bench.records(5..=5);
    drop(bench);
    drop(home.start());
    assert_eq!(home.records(), [3, 4, 5]);
}

#[test]
fn a_file_that_was_replaced_when_it_is_full_is_not_given_the_full_ones_name() {
    let mut home = Home::new();
    home.settings.max_bytes = 1;
    let moved = home.dir.path().join("moved");
    meddle(&home, |file| {
        std::fs::rename(file, &moved).unwrap();
        std::fs::write(file, "").unwrap();
    });
    assert_eq!(protocols(&std::fs::read_to_string(moved).unwrap()), [2]);
    assert_eq!(home.records(), [1, 3, 4]);
}

#[test]
fn a_file_that_lost_its_end_is_finished_and_the_last_group_kept() {
    let home = Home::new();
    let mut bench = home.start();
    bench.open();
    bench.records(1..=1);
    let one = home.live_bytes();
    bench.records(2..=2);
    bench.records(3..=3);
    drop(bench);
    let file = std::fs::OpenOptions::new().write(true).open(&home.settings.path).unwrap();
    file.set_len(one).unwrap();
    drop(file);
    let mut bench = home.start();
    bench.open();
    bench.records(4..=4);
    drop(bench);
    drop(home.start());
    assert_eq!(home.records(), [1, 3, 4]);
    assert_eq!(home.names(), ["flows-20261123T140000Z-00000001.jsonl", "flows.jsonl"]);
}

#[test]
fn another_path_begins_anew_and_leaves_the_old_file_whole() {
    let mut home = Home::new();
    let mut bench = home.start();
    bench.open();
    bench.records(1..=2);
    drop(bench);
    let file = std::fs::OpenOptions::new().write(true).open(&home.settings.path).unwrap();
    file.set_len(3).unwrap();
    drop(file);
    home.settings.path = home.out().join("other.jsonl");
    let mut bench = home.start();
    bench.open();
    bench.records(3..=3);
    drop(bench);
    drop(home.start());
    assert_eq!(home.names(), ["flows-20261123T140000Z-00000001.jsonl", "other.jsonl"]);
    assert_eq!(home.read("flows-20261123T140000Z-00000001.jsonl"), [1, 2]);
    assert_eq!(home.read("other.jsonl"), [3]);
}

#[test]
fn a_sink_that_is_no_longer_set_is_brought_to_its_end() {
    let home = Home::new();
    let mut bench = home.start();
    bench.open();
    bench.records(1..=2);
    drop(bench);
    let file = std::fs::OpenOptions::new().write(true).open(&home.settings.path).unwrap();
    file.set_len(0).unwrap();
    drop(file);
    for _ in 0..2 {
        let mut store = home.store();
        jsonl::retire(Arc::new(crate::storage::Disk), &mut store, NOW_MS).unwrap();
        assert_eq!(home.names(), ["flows-20261123T140000Z-00000001.jsonl"]);
    }
    assert_eq!(home.read("flows-20261123T140000Z-00000001.jsonl"), [1, 2]);
    let mut bench = home.start();
    bench.open();
    bench.records(3..=3);
    assert_eq!(home.records(), [1, 2, 3]);
}

#[test]
fn a_live_file_has_one_writer() {
    let home = Home::new();
    let _bench = home.start();
    let mut other = Redb::open(&home.dir.path().join("other")).unwrap();
    let second = jsonl::recover(Arc::new(crate::storage::Disk), home.settings.clone(), &mut other, NOW_MS);
    assert!(matches!(second, Err(jsonl::FileError::Locked { .. })), "{second:?}");
    assert_eq!(home.names(), ["flows.jsonl"]);
}

/// What a crash may have left of the last group's file steps: the rename undone, the next file not made, the
/// text cut off anywhere.
fn undo_some(home: &Home, rng: &mut StdRng) {
    let mut store = home.store();
    let Some((row, _)) = store.file().unwrap() else { return };
    let live = &home.settings.path;
    if let Some(full) = row.previous.clone().filter(|_| rng.random_bool(0.5)) {
        let name = format!("flows-20261123T140000Z-{:08}.jsonl", full.number);
        std::fs::remove_file(live).unwrap();
        if rng.random_bool(0.5) {
            std::fs::rename(home.out().join(name), live).unwrap();
        }
    } else if !row.done && live.exists() {
        let file = std::fs::OpenOptions::new().write(true).open(live).unwrap();
        file.set_len(rng.random_range(row.offset..=row.end())).unwrap();
    }
}

/// One life after another: groups, full files, clean stops, crashes at any step, the store set back.
fn live_and_die(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut home = Home::new();
    home.settings.max_bytes = *[1, 700, 2_000].choose(&mut rng).unwrap();
    let (store, backup) = (home.state().join("marks.redb"), home.dir.path().join("backup"));
    for _ in 0..12 {
        let fail = Arc::new(AtomicBool::new(false));
        let told = fail.clone();
        let after = rng.random_bool(0.7);
        let mut bench =
            home.start_with(Vec::new(), move |store| Box::new(Flaky { store, fail: told, after }));
        let mark = bench.open().1;
        assert_eq!(home.records(), (1..=mark).collect::<Vec<u64>>(), "seed {seed}");
        let mut next = u8::try_from(mark).unwrap() + 1;
        for _ in 0..rng.random_range(0..4) {
            let last = next + rng.random_range(0..3);
            bench.records(next..=last);
            next = last + 1;
        }
        match rng.random_range(0..3) {
            0 => bench.commit.stop(),
            1 => {}
            _ => {
                fail.store(true, Ordering::Relaxed);
                assert_eq!(bench.order(vec![record(next)]), Err(Abandoned));
            }
        }
        let given_up = fail.load(Ordering::Relaxed);
        drop(bench);
        if !given_up {
            undo_some(&home, &mut rng);
        }
        match rng.random_range(0..6) {
            0 => drop(std::fs::copy(&store, &backup).unwrap()),
            1 if backup.exists() => drop(std::fs::copy(&backup, &store).unwrap()),
            _ => {}
        }
    }
}

#[test]
fn readers_see_each_record_once_whatever_happens() {
    let seeds = std::env::var("FLOWPROXY_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(15);
    (0..seeds).for_each(live_and_die);
}

/// Keeps what it gets; fails while told to.
struct Memory {
    got: Arc<Mutex<Vec<(u64, Kind)>>>,
    works: Arc<AtomicBool>,
}

impl Sink for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn takes(&self, _: Kind) -> bool {
        true
    }

    fn write(&mut self, group: &[Taken]) -> Result<u64, SinkError> {
        if !self.works.load(Ordering::Relaxed) {
            return Err(SinkError { sink: "memory", text: "full".into() });
        }
        self.got.lock().unwrap().extend(group.iter().map(|taken| (taken.seq, taken.batch.kind())));
        Ok(1)
    }
}

#[test]
fn nothing_is_answered_while_a_sink_does_not_work() {
    let home = Home::new();
    let (got, works) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let memory = Memory { got: Arc::clone(&got), works: works.clone() };
    let mut bench = home.start_with(vec![Box::new(memory)], |store| Box::new(store));
    bench.open();
    assert_eq!(bench.order(vec![record(1)]), Err(Abandoned));
    assert!(bench.health.borrow().stalled.as_ref().unwrap().contains("full"));
    assert_eq!(home.live_bytes(), 0);
    // It works again at the third try.
    let mut tries = 0;
    let again = works.clone();
    bench.commit.parts.patience = Box::new(move || {
        tries += 1;
        again.store(tries == 2, Ordering::Relaxed);
        true
    });
    bench.commit.lanes = Lanes::new(10);
    bench.records(1..=1);
    assert_eq!(*bench.health.borrow(), Health::default());
    assert_eq!(*got.lock().unwrap(), [(1, Kind::Records)]);
    let raw = batch(2, Some(record_batch(&[1])), raw_batch(&[b"a", b"b"]));
    assert_eq!(seqs(&[bench.one(raw)]), [(2, true)]);
    assert_eq!(bench.commit.parts.metrics.datagrams.get(), 2);
    assert_eq!(home.records(), [1]);
}

#[test]
fn a_batch_that_no_sink_takes_is_committed_and_counted() {
    let home = Home::new();
    let mut bench = home.start();
    bench.open();
    assert_eq!(seqs(&[bench.one(batch(1, None, raw_batch(&[b"x"])))]), [(1, true)]);
    assert_eq!(bench.commit.parts.metrics.unwanted.get("raw"), 1);
    assert_eq!(bench.commit.parts.metrics.batches.get("raw"), 1);
    drop(bench);
    assert_eq!(home.start().open(), (true, 1));
}

/// A store whose commits fail while told to, before or after they are durable.
struct Flaky {
    store: Redb,
    fail: Arc<AtomicBool>,
    after: bool,
}

impl MarkStore for Flaky {
    fn id(&self) -> [u8; 16] {
        self.store.id()
    }
    fn lane(&mut self, key: &LaneKey) -> Result<Option<lane::Row>, StoreError> {
        self.store.lane(key)
    }
    fn lanes_of(&mut self, identity: &Identity) -> Result<Vec<(LaneId, lane::Row)>, StoreError> {
        self.store.lanes_of(identity)
    }
    fn commit(&mut self, change: &Change) -> Result<(), StoreError> {
        if self.fail.load(Ordering::Relaxed) {
            if self.after {
                self.store.commit(change)?;
            }
            return Err(StoreError::Row { dir: PathBuf::new(), row: "disk full" });
        }
        self.store.commit(change)
    }
    fn file(&mut self) -> Result<Option<(jsonl::FileRow, Vec<crate::collector::marks::Redo>)>, StoreError> {
        self.store.file()
    }
    fn count_death(&mut self, batch: &crate::collector::marks::BatchKey) -> Result<(), StoreError> {
        self.store.count_death(batch)
    }
    fn deaths(&mut self) -> Result<Vec<(crate::collector::marks::BatchKey, u32)>, StoreError> {
        self.store.deaths()
    }
}

#[test]
fn a_store_that_fails_holds_the_group_up_and_nothing_is_twice() {
    for after in [false, true] {
        let home = Home::new();
        let fail = Arc::new(AtomicBool::new(false));
        let told = fail.clone();
        let mut bench =
            home.start_with(Vec::new(), move |store| Box::new(Flaky { store, fail: told, after }));
        bench.open();
        bench.records(1..=1);
        fail.store(true, Ordering::Relaxed);
        let works = fail.clone();
        bench.commit.parts.patience = Box::new(move || {
            works.store(false, Ordering::Relaxed);
            true
        });
        bench.records(2..=3);
        assert_eq!(bench.commit.parts.metrics.failures.get(), 1);
        assert_eq!(home.records(), [1, 2, 3]);
    }
}

#[test]
fn a_group_given_up_after_its_transaction_is_written_at_the_next_start() {
    let home = Home::new();
    let fail = Arc::new(AtomicBool::new(false));
    let told = fail.clone();
    let mut bench =
        home.start_with(Vec::new(), move |store| Box::new(Flaky { store, fail: told, after: true }));
    bench.open();
    bench.records(1..=1);
    fail.store(true, Ordering::Relaxed);
    assert_eq!(bench.order(vec![record(2)]), Err(Abandoned));
    drop(bench);
    assert_eq!(home.records(), [1]);
    let mut bench = home.start();
    assert_eq!(home.records(), [1, 2]);
    assert_eq!(bench.open(), (true, 2));
    assert_eq!(seqs(&[bench.one(record(2))]), [(2, false)]);
    assert_eq!(home.records(), [1, 2]);
}

#[test]
fn a_file_that_can_not_be_written_holds_the_group_up() {
    let mut home = Home::new();
    home.settings.max_bytes = 1;
    let mut bench = home.start();
    bench.open();
    bench.records(1..=1);
    // The name of the full file is taken: never over another.
    let taken = home.out().join("flows-20261123T140000Z-00000001.jsonl");
    std::fs::write(&taken, "").unwrap();
    let file = taken.clone();
    bench.commit.parts.patience = Box::new(move || {
        std::fs::remove_file(Path::new(&file)).unwrap();
        true
    });
    bench.records(2..=2);
    assert_eq!(home.records(), [1, 2]);
    assert_eq!(bench.commit.parts.metrics.failures.get(), 1);
}

/// The bench after the collector was killed `times` times while the first batch was noted.
fn blamed(home: &Home, times: u32) -> Bench {
    let payload = record_batch(&[1]);
    let key = crate::collector::marks::BatchKey {
        identity: "edge-1".to_owned(),
        lane: LaneId([1; 16]),
        seq: 1,
        digest: batch::digest(Codec::Plain, payload.len() as u32, &payload),
    };
    for _ in 0..times {
        let mut bench = home.start();
        bench.commit.parts.deaths.begin(&key).unwrap();
    }
    let mut bench = home.start();
    bench.open();
    bench
}

#[test]
fn row_27_a_batch_that_killed_the_collector_three_times_and_its_trial_is_rejected() {
    let home = Home::new();
    let mut bench = blamed(&home, 3);
    assert_eq!(reason(&bench.one(record(1))), Reason::Poison);
    let skip = Skip {
        numbers: 1..=1,
        reason: SkipReason::Rejected,
        records_per_seq: vec![1],
        records: 1,
        counts_per_exporter: Vec::new(),
        digest: None,
    };
    bench.one(Task::Skip(skip));
    assert_eq!(bench.commit.parts.store.deaths().unwrap(), []);
    assert_eq!(bench.commit.parts.metrics.rejected.get("poison"), 1);
}

#[test]
fn row_27_a_batch_that_is_blamed_for_the_kills_of_others_is_taken() {
    for (times, is_taken) in [(2, true), (3, true), (9, true), (10, false)] {
        let home = Home::new();
        let mut bench = blamed(&home, times);
        bench.commit.parts.trial = Box::new(move |codec, plain_size, payload| {
            assert!(times >= 3);
            assert_eq!(
                (codec, plain_size as usize, payload),
                (Codec::Plain, payload.len(), &*record_batch(&[1]))
            );
            Verdict::Lives
        });
        let answer = bench.one(record(1));
        if is_taken {
            assert_eq!(seqs(&[answer]), [(1, true)], "{times} deaths");
            assert_eq!(bench.commit.parts.store.deaths().unwrap(), []);
        } else {
            assert_eq!(reason(&answer), Reason::Poison);
        }
    }
}

#[test]
fn closing_a_lane_counts_what_was_lost_with_its_disk() {
    let home = Home::new();
    let mut bench = home.start();
    bench.open();
    bench.records(1..=2);
    let heard = Order::Heard(vec![(LaneId([1; 16]), 6)]);
    let (identity, reply) = (bench.identity.clone(), bench.reply.clone());
    bench.commit.group(Request { identity, order: heard, reply, permit: None }, || None).unwrap();
    assert_eq!(bench.one(Task::Close), Answer::Closed);
    assert_eq!(bench.commit.parts.metrics.lost_batches.get(), 3);
    bench.commit.stop();
    drop(bench);
    let mut store = home.store();
    let row = store.lane(&(identity_of_bench(), LaneId([1; 16]))).unwrap().unwrap();
    assert_eq!((row.closed_ms, row.next_seq), (NOW_MS, 6));
}

fn identity_of_bench() -> Identity {
    identity("edge-1")
}
