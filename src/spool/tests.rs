//! The spool as its neighbours see it, on a real folder.

use super::*;
use crate::batch::{Sealed, Share};
use crate::flow::Exporter;
use std::collections::BTreeMap;
use std::path::Path;
use std::thread::JoinHandle;

/// A batch of `records` records with a payload of `bytes` bytes, told apart by `records`.
pub fn sealed(records: u32, bytes: usize) -> Sealed {
    let payload: Vec<u8> =
        (0..bytes).map(|n| (n as u32).wrapping_mul(31).wrapping_add(records) as u8).collect();
    let address = IpAddr::from([192, 0, 2, (records % 3) as u8]);
    let share = Share { exporter: Exporter { address, port: 2055 }, records, domain: 1, sequence: records };
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

/// A small budget, so that segments are 1 MiB.
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
        let metrics = Metrics::default();
        let (spool, writer, sender) = open(settings, metrics.clone()).unwrap();
        Self { spool, sender, thread: std::thread::spawn(|| writer.run()), metrics }
    }

    fn send(&self, batches: impl IntoIterator<Item = Sealed>) {
        for batch in batches {
            let mut batch = Some(batch);
            while let Some(one) = batch.take() {
                batch = self.sender.try_send(one).err();
                std::thread::yield_now();
            }
        }
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
}

/// What is in the folder, as far as it is a segment.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("seg-")).collect();
    found.sort();
    found
}

/// Everything that the spool gives out of a lane above `acked`, by first number.
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

#[test]
fn batches_come_back_with_their_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(settings(dir.path()));
    let batches: Vec<_> = (1..=50).map(|n| sealed(n, 100_000)).collect();
    running.send(batches.clone());
    let spool = running.end();
    let view = *spool.lanes().last().unwrap();
    assert_eq!((view.next_seq, view.oldest_seq, view.acked_seq), (51, 1, 0));
    let found = all(&spool, &view);
    let mut previous = None;
    for (batch, fetched) in batches.iter().zip(found.values()) {
        assert_sent(fetched, batch);
        let Fetched::Batch(stored) = fetched else { unreachable!() };
        assert_eq!(stored.previous_digest, previous);
        previous = Some(batch.digest);
    }
    assert_eq!(found.len(), 50);
}
