//! Long courses of everything, by seed, against a table of what was sent.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;

/// What must be true of the spool.
#[derive(Default)]
struct Book {
    /// Records and size of each batch, by lane and number.
    sent: BTreeMap<(LaneId, u64), (u32, usize)>,
    /// How far each lane is acked.
    acked: BTreeMap<LaneId, u64>,
    /// Numbers that were given as skipped once, and must stay so.
    skipped: BTreeSet<(LaneId, u64)>,
    batches: u32,
}

impl Book {
    /// Looks at everything above the acked: each number is there as it was sent, or is skipped for good.
    fn check(&mut self, spool: &Spool) {
        for view in spool.lanes() {
            let acked = self.acked.get(&view.id).copied().unwrap_or(0);
            assert!(view.acked_seq <= acked, "nothing is acked by itself");
            let given = self.sent.range((view.id, 0)..=(view.id, u64::MAX)).count() as u64;
            assert!(view.next_seq <= given + 1);
            let view = LaneView { acked_seq: acked, ..view };
            if view.next_seq <= acked {
                continue;
            }
            for (seq, fetched) in all(spool, &view) {
                match fetched {
                    Fetched::Batch(_) => {
                        assert!(!self.skipped.contains(&(view.id, seq)), "{seq} is back");
                        let (records, bytes) = self.sent[&(view.id, seq)];
                        assert_sent(&fetched, &sealed(records, bytes));
                    }
                    Fetched::Skip(row) => {
                        assert_eq!(row.reason, Reason::Dropped, "{row:?}");
                        self.skipped.extend((row.from..=row.to).map(|seq| (view.id, seq)));
                    }
                    Fetched::Pending => unreachable!(),
                }
            }
            spool.opened(view.id);
        }
    }

    fn store(&mut self, running: &Running, random: &mut StdRng) {
        let view = running.lane();
        let batches: Vec<_> = (0..random.random_range(1..40))
            .map(|_| {
                self.batches += 1;
                sealed(self.batches, random.random_range(0..60_000))
            })
            .collect();
        for (place, batch) in batches.iter().enumerate() {
            let number = view.next_seq + place as u64;
            self.sent.insert((view.id, number), (batch.records, batch.payload.len()));
        }
        running.store(&batches);
    }

    fn ack(&mut self, running: &Running, random: &mut StdRng) {
        let lanes = running.spool.lanes();
        let view = &lanes[random.random_range(0..lanes.len())];
        let acked = self.acked.entry(view.id).or_insert(0);
        if view.next_seq > *acked + 1 {
            *acked = random.random_range(*acked + 1..view.next_seq);
            running.spool.acked(view.id, *acked);
        }
        if *acked + 1 == view.next_seq && !view.current {
            assert!(running.spool.close(view.id));
        }
    }
}

#[test]
fn nothing_is_lost_over_many_starts() {
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut dir = folder();
        let mut book = Book::default();
        let mut running = Running::start(settings(dir.path()));
        for _ in 0..40 {
            match random.random_range(0..12) {
                0..5 => book.store(&running, &mut random),
                5..9 => book.ack(&running, &mut random),
                9 => book.check(&running.spool),
                10 => {
                    dir = running.kill(dir.path());
                    running = Running::start(settings(dir.path()));
                    assert_eq!(running.spool.recovered().torn_bytes, 0, "seed {seed}");
                }
                _ => {
                    drop(running.end());
                    running = Running::start(settings(dir.path()));
                }
            }
            assert!(running.spool.usage().disk_bytes <= 8 << 20);
        }
        book.check(&running.spool);
    }
}
