//! A lane that is set aside, through failures of the disk, crashes and power cuts at every step.

use super::*;
use crate::spool::folder::{self, Depth};
use crate::storage::memory::{Cut, Faults, Memory};
use rand::SeedableRng;
use rand::rngs::StdRng;

const DIR: &str = "/spool";
const SEGMENT_BYTES: u64 = 8 << 10;
/// Batches of the lane that is set aside; the first two are acked, the fifth is refused.
const BATCHES: u32 = 12;
/// What is left of it: batches, records.
const LEFT: (u64, u64) = (9, (3 + 12) * 10 / 2 - 5);

/// What follows when the disk has failed.
#[derive(Clone, Copy, Debug)]
enum Then {
    Retry,
    Kill,
    PowerCut(Cut),
}

struct Life {
    spool: Spool,
    writer: Writer,
    sender: Sender,
    metrics: Metrics,
    now: Instant,
}

impl Life {
    fn start(disk: &Arc<Memory>) -> Self {
        let metrics = Metrics::default();
        let settings = Settings {
            max_bytes: 32 * SEGMENT_BYTES,
            commit_interval: Duration::ZERO,
            keep_free_bytes: Some(0),
            clock: || 1_795_442_400_000,
            ..Settings::new(PathBuf::from(DIR))
        };
        let opened = open_in_segments(disk.clone(), settings, SEGMENT_BYTES, metrics.clone()).unwrap();
        let (spool, writer, sender) = opened;
        Self { spool, writer, sender, metrics, now: Instant::now() }
    }

    /// So many batches of 2 kB.
    fn store(&mut self, numbers: std::ops::RangeInclusive<u32>) {
        for number in numbers {
            self.sender.try_send(sealed(number, 2000)).unwrap();
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.now += Duration::from_secs(2);
        self.writer.step(self.now);
    }

    fn aside(&self) -> (u64, u64) {
        let (batches, records) = (&self.metrics.skipped_batches, &self.metrics.skipped_records);
        (batches.get(Metrics::ASIDE), records.get(Metrics::ASIDE))
    }

    fn deleted(&self) -> (u64, u64) {
        (self.metrics.aside_deleted_batches.get(), self.metrics.aside_deleted_records.get())
    }

    /// What this process has found or numbered became something.
    fn assert_ledger(&self) {
        let metrics = &self.metrics;
        let sum = |labelled: &crate::metrics::Labelled| labelled.all().values().sum::<u64>() as i64;
        let (numbered, found) = (metrics.numbered_batches.get(), metrics.recovered_batches.get());
        let left = metrics.unacked_batches.get() + sum(&metrics.skipped_batches);
        let acked = if numbered > 0 { 2 } else { 0 };
        assert_eq!((numbered + found) as i64, left + acked);
    }
}

fn folders(disk: &Memory) -> Vec<PathBuf> {
    let entries = disk.list(Path::new(DIR)).unwrap().into_iter();
    let aside = entries.filter(|entry| entry.file_bytes.is_none() && entry.name.starts_with("forked-"));
    aside.map(|entry| Path::new(DIR).join(entry.name)).collect()
}

/// A lane of four segments of which something was acked and refused, and the writer's own behind it.
fn with_a_lane(disk: &Arc<Memory>) -> (Life, LaneId) {
    let mut life = Life::start(disk);
    life.store(1..=BATCHES);
    let lane = life.spool.lanes()[0].id;
    for seq in 1..=2 {
        life.spool.fetch(lane, seq).unwrap();
    }
    life.spool.acked(lane, 2);
    life.spool.reject(lane, 5).unwrap();
    life.spool.new_lane();
    life.turn();
    assert_eq!(life.spool.lanes().len(), 2);
    (life, lane)
}

/// All that waits in a folder is whole.
fn assert_whole(disk: &Memory, dir: &Path, lane: LaneId) {
    let found = folder::read(disk, dir, Depth::Whole).unwrap();
    assert_eq!(found.damages, []);
    let [one] = found.lanes.as_slice() else { panic!("{found:?}") };
    assert_eq!((one.id, one.acked_seq, one.next_seq), (lane, 2, u64::from(BATCHES) + 1));
    assert_eq!((one.unacked.batches, one.unacked.records), LEFT);
    assert_eq!(one.rows.len(), 1);
}

/// The disk takes so many more changes while the lane is set aside. False if those were enough.
fn fails_after(changes: u64, then: Then) -> bool {
    let disk = Arc::new(Memory::default());
    let (mut life, lane) = with_a_lane(&disk);
    disk.fail(|faults| faults.changes_left = Some(changes));
    life.spool.set_aside(lane);
    life.turn();
    let mut enough = false;
    disk.fail(|faults| enough = faults.changes_left > Some(0));
    disk.fail(|faults| *faults = Faults::default());
    let mut rng = StdRng::seed_from_u64(changes);
    match then {
        Then::Retry => {}
        Then::Kill => disk.kill(),
        Then::PowerCut(cut) => disk.cut(cut, &mut rng),
    }
    if !matches!(then, Then::Retry) {
        drop(life);
        // The tool does not call missing what is in the folder already.
        let found = folder::read(disk.as_ref(), Path::new(DIR), Depth::Whole).unwrap();
        assert_eq!(found.damages, []);
        let in_both = found.lanes.iter().filter(|one| one.id == lane && one.unacked.batches < LEFT.0);
        assert!(in_both.clone().all(|one| one.moving_to.is_some()), "{found:?}");
        life = Life::start(&disk);
        // Who has not begun does not know of it; the uplink would find it again.
        life.spool.set_aside(lane);
    }
    life.turn();
    assert!(life.spool.lanes().iter().all(|view| view.id != lane));
    let folders = folders(&disk);
    assert_eq!(folders.len(), 1, "{folders:?}");
    assert_whole(&disk, &folders[0], lane);
    let left: Vec<_> = disk.files().into_iter().map(|(_, path, _)| path).collect();
    let is_left = |path: &&PathBuf| {
        path.parent() == Some(Path::new(DIR)) && path.to_string_lossy().contains(&lane.to_string())
    };
    assert_eq!(left.iter().find(is_left), None);
    // A process that finds nothing of the lane any more has nothing to count.
    let found = life.metrics.recovered_batches.get();
    assert!(found == 0 || found == LEFT.0, "{found}");
    if found > 0 || matches!(then, Then::Retry) {
        assert_eq!(life.aside(), LEFT);
        let of_exporters: u64 =
            life.metrics.exporters.rows().iter().map(|(_, row)| row.skipped + row.skipped_of_before).sum();
        assert_eq!(of_exporters, if found > 0 { LEFT.1 } else { LEFT.1 + 5 });
    }
    life.assert_ledger();
    assert_eq!(life.metrics.skipped_batches.get("lost"), 0);
    !enough
}

#[test]
fn a_lane_comes_whole_into_one_folder_and_is_counted_once_wherever_the_disk_fails() {
    let cuts = [Cut::Nothing, Cut::Everything, Cut::Some].map(Then::PowerCut);
    for then in [Then::Retry, Then::Kill].into_iter().chain(cuts) {
        let mut changes = 0;
        while fails_after(changes, then) {
            changes += 1;
        }
        assert!(changes > 8, "{then:?}: {changes}");
    }
}

/// The uplink may set a lane aside while the budget drops a segment of it.
#[test]
fn a_row_written_while_its_lane_is_set_aside_goes_with_it() {
    let disk = Arc::new(Memory::default());
    let (mut life, lane) = with_a_lane(&disk);
    life.spool.set_aside(lane);
    {
        let mut journal = life.spool.shared.journal();
        let row = SkipRow { records_per_seq: vec![3], ..SkipRow::new(lane, 3, 3, Reason::Dropped) };
        crate::spool::fetch::add_row(&life.spool.shared, &mut journal, row).unwrap();
    }
    life.turn();
    assert_eq!(life.metrics.skipped_batches.get("dropped"), 1);
    assert_eq!(life.aside(), (LEFT.0 - 1, LEFT.1 - 3));
    assert_eq!(folder::read(disk.as_ref(), &folders(&disk)[0], Depth::Whole).unwrap().lanes[0].rows.len(), 2);
    life.assert_ledger();
}

#[test]
fn a_folder_that_cannot_be_made_does_not_keep_what_is_acked_from_going() {
    let disk = Arc::new(Memory::default());
    let (mut life, first) = with_a_lane(&disk);
    life.store(1..=8);
    let second = life.spool.lanes()[1].id;
    let used: usize = disk.files().iter().map(|(_, _, bytes)| bytes.len()).sum();
    disk.fail(|faults| faults.capacity = used as u64);
    let before = life.spool.usage().disk_bytes;
    life.spool.set_aside(first);
    life.spool.acked(second, 6);
    life.turn();
    assert_eq!(folders(&disk).len(), 1, "tried");
    assert_eq!(life.aside(), (0, 0));
    assert!(life.spool.usage().disk_bytes < before || !life.spool.shared.state().spares.is_empty());
}

#[test]
fn a_lane_for_whose_folder_there_is_no_room_goes_before_fresh_batches_are_refused() {
    let disk = Arc::new(Memory::default());
    let (mut life, lane) = with_a_lane(&disk);
    let used: usize = disk.files().iter().map(|(_, _, bytes)| bytes.len()).sum();
    disk.fail(|faults| faults.capacity = used as u64);
    life.spool.set_aside(lane);
    life.store(1..=8);
    assert!(life.spool.writable());
    assert_eq!(life.spool.lanes()[0].next_seq, 9);
    let dropped = (life.metrics.skipped_batches.get("dropped"), life.metrics.skipped_records.get("dropped"));
    assert!(dropped.0 >= 5);
    assert_eq!((dropped.0 + life.aside().0, dropped.1 + life.aside().1), LEFT);
    life.assert_ledger();
}

#[test]
fn what_was_set_aside_and_goes_for_the_byte_budget_is_counted() {
    let disk = Arc::new(Memory::default());
    let (mut life, lane) = with_a_lane(&disk);
    life.spool.set_aside(lane);
    life.turn();
    assert_eq!((life.aside(), life.deleted()), (LEFT, (0, 0)));
    life.store(1..=100);
    assert_eq!((life.aside(), life.deleted()), (LEFT, LEFT));
    assert_eq!(folders(&disk), [] as [PathBuf; 0]);
}

#[test]
fn what_an_earlier_start_has_set_aside_is_counted_when_it_goes_even_in_two_tries() {
    for changes in 0.. {
        let disk = Arc::new(Memory::default());
        let (mut life, lane) = with_a_lane(&disk);
        life.spool.set_aside(lane);
        life.turn();
        drop(life);
        disk.kill();
        let life = Life::start(&disk);
        assert_eq!(life.metrics.recovered_batches.get(), 0);
        disk.fail(|faults| faults.changes_left = Some(changes));
        let gone = crate::spool::budget::drop_oldest(&life.spool.shared);
        disk.fail(|faults| *faults = Faults::default());
        assert!(gone.is_ok() || crate::spool::budget::drop_oldest(&life.spool.shared).unwrap());
        assert_eq!((life.aside(), life.deleted()), ((0, 0), LEFT), "after {changes}");
        if gone.is_ok() {
            assert!(changes > 4);
            return;
        }
    }
}

#[test]
fn a_backup_put_back_beside_a_folder_of_the_same_lane_overwrites_nothing() {
    let disk = Arc::new(Memory::default());
    let (mut life, lane) = with_a_lane(&disk);
    let backup: Vec<_> = disk
        .files()
        .into_iter()
        .filter(|(_, path, _)| path.to_string_lossy().contains(&lane.to_string()))
        .collect();
    life.spool.set_aside(lane);
    life.turn();
    drop(life);
    disk.kill();
    for (_, path, bytes) in &backup {
        disk.open(path, crate::storage::Mode::Create)
            .unwrap()
            .write_at(&mut [std::io::IoSlice::new(bytes)], 0)
            .unwrap();
    }
    let mut life = Life::start(&disk);
    assert_eq!(life.spool.lanes()[0].id, lane);
    life.spool.set_aside(lane);
    life.turn();
    let folders = folders(&disk);
    assert_eq!(folders.len(), 2);
    assert_whole(&disk, &folders[0], lane);
    assert_eq!(life.aside().0, u64::from(BATCHES) - 1, "nothing says any more that two were acked");
}
