//! The ordinary course: numbers, acks, starts, budget, refusals, lanes.

use super::*;
use std::os::unix::fs::PermissionsExt;

#[test]
fn batches_come_back_with_their_numbers() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    let batches = large(1..=25);
    running.store(&batches);
    let view = running.lane();
    assert_eq!((view.current, view.next_seq, view.oldest_seq, view.acked_seq), (true, 26, 1, 0));
    assert_holds(&running.spool, &view, &batches);
    let mut previous = None;
    for fetched in all(&running.spool, &view).values() {
        let Fetched::Batch(stored) = fetched else { unreachable!() };
        assert_eq!(stored.previous_digest, previous);
        previous = Some(stored.digest);
    }
    assert_eq!(running.metrics.written_batches.get(), 25);
    assert_eq!(running.metrics.written_records.get(), (1..=25).sum::<u64>());
    assert_eq!(segments(dir.path()).len(), 3);
}

#[test]
fn memory_and_disk_give_the_same() {
    let dir = folder();
    let fresh = Running::start(Settings { memory_bytes: 16 << 20, ..settings(dir.path()) });
    let batches = large(1..=12);
    fresh.store(&batches);
    let view = fresh.lane();
    let from_memory = all(&fresh.spool, &view);
    assert_eq!(fresh.spool.usage().memory_bytes, 1_200_000);
    drop(fresh.end());
    let again = Running::start(settings(dir.path()));
    let old = again.spool.lanes()[0];
    assert_eq!(all(&again.spool, &old), from_memory);
}

#[test]
fn the_number_is_shown_before_the_batch_is_durable() {
    let dir = folder();
    let never = Duration::from_secs(3600);
    let running = Running::start(Settings { commit_interval: never, ..settings(dir.path()) });
    let numbers = running.spool.subscribe();
    running.send(&[sealed(1, 10)]);
    until(|| *numbers.borrow() == 2);
    assert_sent(&running.spool.fetch(running.lane().id, 1).unwrap(), &sealed(1, 10));
    assert_eq!(running.metrics.syncs.get(), 0);
    // The end of all senders makes it durable.
    let metrics = running.metrics.clone();
    let spool = running.end();
    assert!(metrics.syncs.get() > 0);
    drop(spool);
    let again = Running::start(settings(dir.path()));
    assert_eq!(again.spool.recovered().batches, 1);
}

#[test]
fn what_is_acked_first_is_not_synced() {
    let dir = folder();
    let long = Duration::from_millis(200);
    let running = Running::start(Settings { commit_interval: long, ..settings(dir.path()) });
    let numbers = running.spool.subscribe();
    running.send(&[sealed(1, 10)]);
    until(|| *numbers.borrow() == 2);
    running.spool.acked(running.lane().id, 1);
    running.send(&[sealed(2, 10)]);
    until(|| *numbers.borrow() == 3);
    running.spool.acked(running.lane().id, 2);
    let lane = running.lane().id;
    let waits = || running.spool.shared.state().lane(lane).unwrap().durable_next;
    assert_eq!((running.metrics.syncs.get(), waits()), (0, 1));
}

#[test]
fn a_start_keeps_what_is_not_acked_and_begins_a_lane() {
    let dir = folder();
    let batches = large(1..=25);
    for killed in [false, true] {
        let running = Running::start(settings(dir.path()));
        let before = running.spool.lanes().len();
        running.store(&batches);
        let view = running.lane();
        running.spool.acked(view.id, 12);
        until(|| running.spool.shared.state().lane(view.id).unwrap().position == 12);
        let image = if killed {
            running.kill(dir.path())
        } else {
            drop(running.end());
            image(dir.path())
        };
        let again = Running::start(settings(image.path()));
        let lanes = again.spool.lanes();
        assert_eq!(lanes.len(), before + 1);
        assert!(lanes[before].current && lanes[before].id != view.id);
        let old = lanes[before - 1];
        assert_eq!((old.id, old.current), (view.id, false));
        assert_eq!((old.oldest_seq, old.next_seq, old.acked_seq), (13, 26, 12));
        for seq in 13..=25 {
            assert_sent(&again.spool.fetch(old.id, seq).unwrap(), &batches[seq as usize - 1]);
        }
        assert_eq!(again.spool.recovered().torn_bytes, 0);
        assert_eq!(again.spool.recovered().lost_ranges, 0);
        assert_eq!(again.spool.recovered().batches, 13 * before as u64);
        assert_eq!(again.spool.usage().batches, 13 * before as u64);
        // What was acked and is gone is said to be acked, not lost.
        assert_eq!(skipped(&again.spool, old.id, 1).reason, Reason::AlreadyAcked);
    }
}

#[test]
fn acks_remove_segments_and_blocks_are_used_again() {
    let dir = folder();
    let running = Running::start(Settings { max_bytes: 16 << 20, ..settings(dir.path()) });
    let lane = running.lane().id;
    for round in 0..10_u32 {
        let first = round * 20 + 1;
        running.store(&large(first..=first + 19));
        running.spool.acked(lane, u64::from(first) + 19);
        until(|| segments(dir.path()).len() == 1);
        assert!(files(dir.path(), "spare-").len() <= 2);
    }
    let last = large(201..=205);
    running.store(&last);
    until(|| !running.spool.shared.state().dirty);
    let view = running.lane();
    assert_eq!((view.oldest_seq, view.next_seq, view.acked_seq), (201, 206, 200));
    // The last segment lies over older ones; what is left of those must not come back.
    let image = running.kill(dir.path());
    let again = Running::start(settings(image.path()));
    let old = again.spool.lanes()[0];
    assert_eq!((old.acked_seq, old.next_seq), (200, 206));
    assert_holds(&again.spool, &old, &last);
    assert_eq!(again.spool.recovered().lost_ranges, 0);
}

#[test]
fn a_drained_spool_is_empty() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    running.store(&large(1..=15));
    let view = running.lane();
    let spool = running.end();
    assert!(!spool.writable());
    assert_holds(&spool, &view, &large(1..=15));
    spool.acked(view.id, 15);
    assert_eq!(segments(dir.path()), Vec::<PathBuf>::new());
    drop(spool);
    let again = Running::start(settings(dir.path()));
    let old = again.spool.lanes()[0];
    assert_eq!((old.acked_seq, old.next_seq, old.oldest_seq), (15, 16, 16));
    assert!(again.spool.close(old.id));
    assert!(!again.spool.close(again.lane().id), "the writer's own");
    assert_eq!(again.spool.lanes().len(), 1);
    until(|| !again.spool.shared.state().dirty);
    drop(again.end());
    assert_eq!(Running::start(settings(dir.path())).spool.lanes().len(), 1);
}

#[test]
fn row_19_a_full_spool_drops_its_oldest_and_says_exactly_what() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    let view = running.lane();
    running.store(&large(1..=10));
    // The first segment was sent of: it stays until the lane is opened anew.
    assert!(matches!(running.spool.fetch(view.id, 1).unwrap(), Fetched::Batch(_)));
    running.store(&large(11..=200));
    assert!(matches!(running.spool.fetch(view.id, 1).unwrap(), Fetched::Batch(_)));
    let found = all(&running.spool, &running.lane());
    let mut next = 1;
    let mut dropped = 0;
    for (seq, fetched) in &found {
        assert_eq!(*seq, next, "no number is left out");
        match fetched {
            Fetched::Skip(row) => {
                assert_eq!(row.reason, Reason::Dropped);
                let numbers = row.from..=row.to;
                let records: u64 = numbers.clone().sum();
                assert_eq!(row.records(), records);
                let mut exporters = BTreeMap::new();
                for n in numbers {
                    *exporters.entry(IpAddr::from([192, 0, 2, (n % 3) as u8])).or_insert(0) += n;
                }
                assert_eq!(row.counts_per_exporter, exporters.into_iter().collect::<Vec<_>>());
                assert_eq!(row.digest, Some(sealed(row.to as u32, 100_000).digest));
                dropped += records;
                next = row.to + 1;
            }
            _ => next += 1,
        }
    }
    assert_eq!(next, 201);
    assert!(dropped > 0);
    assert_eq!(running.metrics.skipped_records.get("dropped"), dropped);
    assert!(running.spool.usage().disk_bytes <= 8 << 20);
    // The rows hold over a start, whatever is cut out of them.
    let row = skipped(&running.spool, view.id, 15);
    assert_eq!((row.from, row.records()), (15, (15..=row.to).sum()));
    let image = running.kill(dir.path());
    let again = Running::start(settings(image.path()));
    assert_eq!(all(&again.spool, &again.spool.lanes()[0]), found);
    assert_eq!(again.spool.recovered().lost_ranges, 0);
}

#[test]
fn opening_a_lane_anew_lets_its_first_segment_go() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    let lane = running.lane().id;
    running.store(&large(1..=10));
    assert!(matches!(running.spool.fetch(lane, 1).unwrap(), Fetched::Batch(_)));
    running.spool.opened(lane);
    running.store(&large(11..=100));
    assert_eq!(skipped(&running.spool, lane, 1).reason, Reason::Dropped);
}

#[test]
fn row_19_a_long_outage_keeps_few_rows() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    let lane = running.lane().id;
    for round in 0..4_u32 {
        running.store(&large(round * 100 + 1..=round * 100 + 100));
    }
    let rows = running.spool.shared.state().rows();
    assert!(rows.len() <= 16, "{} rows", rows.len());
    let last = rows.last().unwrap().to;
    assert_eq!(rows.iter().map(SkipRow::records).sum::<u64>(), (1..=last).sum::<u64>());
    assert_eq!(running.metrics.skipped_records.get("dropped"), (1..=last).sum::<u64>());
    running.spool.acked(lane, last);
    until(|| running.spool.shared.state().rows().is_empty());
}

#[test]
fn the_oldest_batch_that_waits_is_not_taken_for_an_acked_one_before_it() {
    let dir = folder();
    let in_memory = Settings { memory_bytes: 16 << 20, ..settings(dir.path()) };
    for settings in [settings(dir.path()), in_memory] {
        let running = Running::start(settings.clone());
        let lane = running.lane().id;
        running.store(&large(1..=15));
        let oldest = |spool: &Spool| {
            spool.look_for_oldest();
            spool.usage().oldest_received
        };
        assert_eq!(oldest(&running.spool), Some(1_700_000_000_001));
        running.spool.acked(lane, 12);
        assert_eq!(oldest(&running.spool), Some(1_700_000_000_013));
        drop(running.end());
        let again = Running::start(settings);
        assert_eq!(oldest(&again.spool), Some(1_700_000_000_013));
        again.spool.acked(lane, 15);
        assert_eq!(oldest(&again.spool), None);
        drop(again.end());
    }
}

/// A batch of 100 kB with one record each of 1,200 addresses, from a number on.
fn crowded(first: u32) -> Sealed {
    let mut batch = sealed(1_200, 100_000);
    let share = batch.shares[0];
    let with = |n: u32| {
        let address = IpAddr::from((10 << 24 | (first + n)).to_be_bytes());
        Share { exporter: Exporter { address, port: 2055 }, records: 1, ..share }
    };
    batch.shares = (0..1_200).map(with).collect();
    batch
}

#[test]
fn row_19_what_is_said_of_dropped_batches_is_bounded_however_many_send() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    let batches: Vec<_> = (0..700).map(|n| crowded(n * 1_200)).collect();
    running.store(&batches);
    let rows = running.spool.shared.state().rows();
    for row in &rows {
        assert!(row.counts_per_exporter.len() <= 10_001, "{} addresses", row.counts_per_exporter.len());
        assert_eq!(row.records(), 1_200 * (row.to + 1 - row.from));
        let counts = row.counts_per_exporter.iter().map(|(_, records)| records);
        assert_eq!(counts.sum::<u64>(), row.records());
    }
    let dropped = running.metrics.skipped_records.get("dropped");
    assert_eq!(rows.iter().map(SkipRow::records).sum::<u64>(), dropped);
    let told = running.metrics.exporters.rows().iter().map(|(_, counts)| counts.skipped).sum::<u64>();
    assert_eq!(told, dropped);
    let bytes = std::fs::metadata(dir.path().join("skips")).unwrap().len();
    assert!(bytes < 5 << 20, "{bytes} bytes of rows");
    let image = running.kill(dir.path());
    let again = Running::start(settings(image.path()));
    assert_eq!(again.spool.shared.state().rows().iter().map(SkipRow::records).sum::<u64>(), dropped);
}

#[test]
fn row_19_rows_that_become_one_keep_the_records_of_each_number() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    running.store(&large(1..=400));
    let rows = running.spool.shared.state().rows();
    let long = rows.iter().max_by_key(|row| row.to - row.from).unwrap();
    let records: Vec<u32> = (long.from..=long.to).map(|seq| seq as u32).collect();
    assert!(records.len() > 20);
    assert_eq!(long.records_per_seq, records);
}

#[test]
fn a_refused_batch_is_kept_aside_and_skipped_for_good() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    running.store(&large(1..=3));
    let lane = running.lane().id;
    let row = running.spool.reject(lane, 2).unwrap();
    assert_eq!((row.from, row.to, row.reason), (2, 2, Reason::Rejected));
    assert_eq!((row.records_per_seq.as_slice(), row.records()), ([2].as_slice(), 2));
    assert_eq!(row.counts_per_exporter, [(IpAddr::from([192, 0, 2, 2]), 2)]);
    assert_eq!(running.spool.reject(lane, 2).unwrap(), row, "again, and not counted");
    assert_eq!(running.spool.rejects_in_a_row(), 1);
    assert_eq!(running.metrics.skipped_batches.get("rejected"), 1);
    let kept = files(&dir.path().join("quarantine"), "");
    assert!(kept.len() == 1 && std::fs::read(&kept[0]).unwrap().len() > 100_000);
    let image = running.kill(dir.path());
    let again = Running::start(settings(image.path()));
    assert_eq!(again.spool.rejects_in_a_row(), 1);
    assert_eq!(again.spool.lanes()[0].acked_seq, 0);
    assert_eq!(skipped(&again.spool, lane, 2), row);
    // Only a committed batch ends the series.
    again.spool.acked(lane, 1);
    assert_eq!(again.spool.rejects_in_a_row(), 0);
    assert!(matches!(again.spool.reject(lane, 1), Err(ReadError::NotUnacked { .. })));
    assert!(matches!(again.spool.reject(lane, 9), Err(ReadError::NotUnacked { .. })));
}

#[test]
fn the_mark_may_go_back() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    let lane = running.lane().id;
    running.store(&large(1..=25));
    running.spool.acked(lane, 15);
    until(|| segments(dir.path()).len() == 2);
    running.spool.went_back(lane, 3);
    let row = skipped(&running.spool, lane, 4);
    assert_eq!((row.to, row.reason), (10, Reason::AlreadyAcked));
    assert_sent(&running.spool.fetch(lane, 11).unwrap(), &sealed(11, 100_000));
    running.store(&large(26..=45));
    assert_sent(&running.spool.fetch(lane, 11).unwrap(), &sealed(11, 100_000));
}

#[test]
fn a_new_lane_on_request() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    running.spool.new_lane();
    running.store(&large(1..=3));
    let first = running.lane().id;
    running.spool.new_lane();
    until(|| running.lane().id != first);
    running.store(&large(4..=5));
    let lanes = running.spool.lanes();
    assert_eq!(lanes.len(), 2);
    assert_holds(&running.spool, &lanes[0], &large(1..=3));
    assert_holds(&running.spool, &lanes[1], &large(4..=5));
    let Fetched::Batch(batch) = running.spool.fetch(lanes[1].id, 1).unwrap() else { panic!() };
    assert_eq!(batch.previous_digest, None);
}

#[test]
fn row_13_a_forked_lane_is_set_aside_and_counted() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    running.store(&large(1..=25));
    let first = running.lane().id;
    running.spool.acked(first, 2);
    running.spool.set_aside(first);
    assert!(running.spool.lanes().iter().all(|lane| lane.id != first));
    running.send(&large(30..=31));
    until(|| running.spool.lanes().len() == 1 && running.lane().next_seq == 3);
    until(|| running.metrics.skipped_batches.get(Metrics::ASIDE) == 23);
    assert_eq!(running.metrics.skipped_records.get(Metrics::ASIDE), (3..=25).sum::<u64>());
    assert_holds(&running.spool, &running.lane(), &large(30..=31));
    assert!(matches!(running.spool.fetch(first, 3), Err(ReadError::UnknownLane(_))));
    // The folder is a spool in itself.
    let aside = files(dir.path(), "forked-");
    assert_eq!(aside.len(), 1);
    let old = Running::start(settings(&aside[0]));
    let view = old.spool.lanes()[0];
    assert_eq!((view.id, view.acked_seq, view.next_seq), (first, 2, 26));
    assert_sent(&old.spool.fetch(first, 25).unwrap(), &sealed(25, 100_000));
}

#[test]
fn one_process_only() {
    let dir = folder();
    let first = open(settings(dir.path()), Metrics::default()).unwrap();
    let second = open(settings(dir.path()), Metrics::default()).unwrap_err();
    assert!(matches!(second, OpenError::Locked { .. }));
    assert!(second.to_string().contains("in use by another process"));
    drop(first);
    open(settings(dir.path()), Metrics::default()).unwrap();
}

#[test]
fn folders_and_files_are_private() {
    let dir = folder();
    let deep = dir.path().join("a/b");
    let running = Running::start(settings(&deep));
    running.store(&large(1..=1));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&deep), mode(&dir.path().join("a"))), (0o700, 0o700));
    for file in files(&deep, "") {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn the_mark_store_is_remembered() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    assert_eq!(running.spool.mark_store_id(), Vec::<u8>::new());
    running.spool.set_mark_store_id(&[7; 16]).unwrap();
    let image = running.kill(dir.path());
    assert_eq!(Running::start(settings(image.path())).spool.mark_store_id(), vec![7; 16]);
}

#[test]
fn budgets_that_are_too_small_are_refused() {
    let dir = folder();
    let small = Settings { max_bytes: 1 << 20, ..settings(dir.path()) };
    assert!(matches!(open(small, Metrics::default()), Err(OpenError::TooSmall { .. })));
}

#[test]
fn too_large_a_batch_is_counted() {
    let dir = folder();
    let running = Running::start(Settings { max_bytes: 64 << 20, ..settings(dir.path()) });
    running.send(&[sealed(7, 5 << 20)]);
    running.store(&[sealed(8, 3 << 20), sealed(9, 3 << 20)]);
    assert_eq!(running.metrics.dropped_records.get(Metrics::TOO_LARGE), 7);
    assert_holds(&running.spool, &running.lane(), &[sealed(8, 3 << 20), sealed(9, 3 << 20)]);
}

#[test]
fn what_no_frame_can_hold_is_counted_and_costs_nothing_else() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    let ingest = crate::metrics::Ingest::new();
    let batches = [sealed(1, 100), sealed(2, frame::MAX_FRAME_BYTES), sealed(3, 100)];
    for batch in &batches {
        ingest.count_decoded([u64::from(batch.records), 0, 0, 0, 0]);
        ingest.records_batched.inc_by(u64::from(batch.records));
    }
    running.send(&batches);
    until(|| running.lane().next_seq == 3);
    let heard = |batch: &Sealed| {
        let totals = crate::shard::Totals { records: u64::from(batch.records), ..Default::default() };
        let address = Some(batch.shares[0].exporter.address);
        crate::shard::ExporterRow { address, port: 2055, totals, senders: Vec::new() }
    };
    let rows = batches.iter().map(heard).collect();
    let ledger = crate::proxy::ledger_of_parts(&ingest, &running.metrics, rows);
    let needed = ["/total/spool/dropped/too_large", "/exporters/dropped/in_spool"];
    crate::ledger_equations::assert_needed(&ledger, &needed);
    assert_eq!(ledger["total"]["spool"]["dropped"]["too_large"], 2);
}
