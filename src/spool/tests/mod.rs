//! The spool as its neighbours see it, on a real folder.

use super::*;
use crate::batch::{Sealed, Share};
use crate::flow::Exporter;
use crate::storage::{Disk, Storage};
use std::collections::BTreeMap;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Instant;
use tempfile::TempDir;

mod aside;
mod course;
mod damage;
mod disk;
mod faulty;
mod model;
mod seasons;

/// A folder in memory where there is one: these tests sync a lot.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A batch of `records` records with a payload of `bytes` bytes, told apart by `records`.
pub fn sealed(records: u32, bytes: usize) -> Sealed {
    let payload: Vec<u8> =
        (0..bytes).map(|n| (n as u32).wrapping_mul(31).wrapping_add(records) as u8).collect();
    let address = IpAddr::from([192, 0, 2, (records % 3) as u8]);
    let share = Share {
        exporter: Exporter { address, port: 2055 },
        records,
        domain: 1,
        sequence: records,
        last_records: 1,
    };
    Sealed {
        kind: Kind::Records,
        records,
        codec: Codec::Plain,
        plain_size: bytes as u32,
        digest: crate::batch::digest(Codec::Plain, bytes as u32, &payload),
        payload: payload.into(),
        received: 1_700_000_000_000 + u64::from(records),
        shares: vec![share],
    }
}

/// Batches of 100 kB: ten of them fill a segment.
fn large(numbers: std::ops::RangeInclusive<u32>) -> Vec<Sealed> {
    numbers.map(|n| sealed(n, 100_000)).collect()
}

/// A small budget, so that segments are 1 MiB; nothing durable is kept in memory.
fn settings(dir: &Path) -> Settings {
    Settings {
        max_bytes: 8 << 20,
        commit_interval: Duration::from_millis(1),
        memory_bytes: 0,
        keep_free_bytes: Some(0),
        ..Settings::new(dir.to_owned())
    }
}

/// A spool with its writer on a thread.
struct Running {
    spool: Spool,
    sender: Sender,
    thread: JoinHandle<()>,
    metrics: Metrics,
}

impl Running {
    fn start(settings: Settings) -> Self {
        Self::start_on(Arc::new(Disk), settings)
    }

    fn start_on(storage: Arc<dyn Storage>, settings: Settings) -> Self {
        let metrics = Metrics::default();
        let (spool, writer, sender) = super::open::open(storage, settings, metrics.clone()).unwrap();
        Self { spool, sender, thread: std::thread::spawn(|| writer.run()), metrics }
    }

    fn send(&self, batches: &[Sealed]) {
        for batch in batches {
            until(|| self.sender.try_send(batch.clone()).is_ok());
        }
    }

    /// Sends, and waits until all is written and durable.
    fn store(&self, batches: &[Sealed]) {
        let lane = self.lane();
        let next_seq = lane.next_seq + batches.len() as u64;
        self.send(batches);
        until(|| self.spool.shared.state().lane(lane.id).is_some_and(|lane| lane.durable_next == next_seq));
    }

    fn lane(&self) -> LaneView {
        *self.spool.lanes().last().unwrap()
    }

    /// Ends the writer in order.
    fn end(self) -> Spool {
        drop(self.sender);
        self.thread.join().unwrap();
        self.spool
    }

    /// Leaves what a killed process leaves: the files as they are now.
    fn kill(self, dir: &Path) -> TempDir {
        // Nothing is removed meanwhile: a copy is to be of one moment.
        let journal = self.spool.shared.journal();
        let image = image(dir);
        drop(journal);
        self.end();
        image
    }
}

/// Waits for another thread.
fn until(mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(60), "this does not come about");
        std::thread::yield_now();
    }
}

/// A copy of all files.
fn image(dir: &Path) -> TempDir {
    let copy = folder();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

/// The files in a folder whose names begin so, in order.
fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
        .collect();
    found.sort();
    found
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    files(dir, "seg-")
}

/// Everything that the spool gives out of a lane above the acked, by first number.
fn all(spool: &Spool, view: &LaneView) -> BTreeMap<u64, Fetched> {
    let mut found = BTreeMap::new();
    let mut seq = view.acked_seq + 1;
    while seq < view.next_seq {
        let fetched = spool.fetch(view.id, seq).unwrap();
        let next = match &fetched {
            Fetched::Batch(batch) => {
                assert_eq!((batch.lane, batch.seq), (view.id, seq));
                seq + 1
            }
            Fetched::Skip(row) => {
                assert_eq!((row.lane, row.from), (view.id, seq));
                row.to + 1
            }
            Fetched::Pending => panic!("{seq} is below next_seq"),
        };
        found.insert(seq, fetched);
        seq = next;
    }
    assert_eq!(spool.fetch(view.id, view.next_seq).unwrap(), Fetched::Pending);
    found
}

/// The batch of a number, which must be as it was sent.
fn assert_sent(fetched: &Fetched, batch: &Sealed) {
    let Fetched::Batch(stored) = fetched else { panic!("{fetched:?} instead of a batch") };
    assert_eq!(stored.payload, batch.payload);
    assert_eq!((stored.records, stored.digest), (batch.records, batch.digest));
    assert_eq!((stored.kind, stored.codec, stored.plain_size), (batch.kind, batch.codec, batch.plain_size));
    assert_eq!(stored.received, batch.received);
}

/// A lane holds these batches from number 1 on, and nothing else.
fn assert_holds(spool: &Spool, view: &LaneView, batches: &[Sealed]) {
    let found = all(spool, view);
    assert_eq!(found.len(), batches.len());
    for (fetched, batch) in found.values().zip(batches) {
        assert_sent(fetched, batch);
    }
}

/// The row of a number.
fn skipped(spool: &Spool, lane: LaneId, seq: u64) -> SkipRow {
    match spool.fetch(lane, seq).unwrap() {
        Fetched::Skip(row) => row,
        other => panic!("{other:?} instead of a skip row"),
    }
}
