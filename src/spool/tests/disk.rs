//! A disk that fails, fills up, or comes back.

use super::faulty::{Faults, Faulty};
use super::*;
use crate::storage::memory::{Cut, Memory};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use std::sync::atomic::Ordering;

fn start(dir: &Path) -> (Running, Arc<Faults>) {
    let disk = Faulty::default();
    let faults = disk.0.clone();
    (Running::start_on(Arc::new(disk), settings(dir)), faults)
}

#[test]
fn one_failed_sync_costs_nothing() {
    let dir = folder();
    let (running, faults) = start(dir.path());
    running.store(&large(1..=5));
    faults.failing_syncs.store(1, Ordering::SeqCst);
    running.store(&large(6..=8));
    assert_eq!(running.metrics.disk_errors.get(), 1);
    assert_eq!(running.metrics.written_batches.get(), 8, "each counted once");
    // The file whose sync failed is not synced again; the tail is in another one.
    let failed = segments(dir.path()).len();
    assert!(failed >= 2, "{failed} segments");
    assert_holds(&running.spool, &running.lane(), &large(1..=8));
    let image = running.kill(dir.path());
    let again = Running::start(settings(image.path()));
    assert_holds(&again.spool, &again.spool.lanes()[0], &large(1..=8));
}

#[test]
fn a_failed_first_sync_makes_the_segment_anew() {
    let dir = folder();
    let (running, faults) = start(dir.path());
    let numbers = running.spool.subscribe();
    // The sync that makes the segment, then its successor's: both fail; after a while it works.
    faults.failing_syncs.store(2, Ordering::SeqCst);
    running.send(&large(1..=3));
    until(|| *numbers.borrow() == 4);
    assert_holds(&running.spool, &running.lane(), &large(1..=3));
    running.store(&large(4..=5));
    assert!(running.spool.writable());
    assert_holds(&running.spool, &running.lane(), &large(1..=5));
}

#[test]
fn one_failed_write_costs_nothing() {
    let dir = folder();
    let (running, faults) = start(dir.path());
    running.store(&large(1..=5));
    faults.failing_writes.store(1, Ordering::SeqCst);
    running.store(&large(6..=25));
    assert_eq!(running.metrics.disk_errors.get(), 1);
    assert_holds(&running.spool, &running.lane(), &large(1..=25));
    let image = running.kill(dir.path());
    let again = Running::start(settings(image.path()));
    assert_holds(&again.spool, &again.spool.lanes()[0], &large(1..=25));
}

#[test]
fn a_full_disk_stops_admission_and_nothing_else() {
    let dir = folder();
    let (running, faults) = start(dir.path());
    faults.full.store(true, Ordering::SeqCst);
    running.send(&large(1..=1));
    until(|| !running.spool.writable());
    // Batches wait in the queue until it is full; then the shards keep them.
    let mut refused = 0;
    for batch in large(2..=400) {
        refused += u32::from(running.sender.try_send(batch).is_err());
    }
    assert!(refused > 0);
    let lane = running.lane();
    assert_sent(&running.spool.fetch(lane.id, 1).unwrap(), &sealed(1, 100_000));
    faults.full.store(false, Ordering::SeqCst);
    until(|| running.spool.writable() && running.lane().next_seq == u64::from(401 - refused));
}

#[test]
fn a_disk_that_is_read_only_still_gives_what_it_has() {
    let dir = folder();
    let (running, faults) = start(dir.path());
    running.store(&large(1..=15));
    faults.read_only.store(true, Ordering::SeqCst);
    running.send(&large(16..=16));
    until(|| !running.spool.writable());
    let lane = running.lane();
    assert_holds(&running.spool, &lane, &large(1..=16));
    running.spool.acked(lane.id, 12);
    assert!(running.spool.reject(lane.id, 13).is_err());
    assert!(running.spool.set_mark_store_id(&[1]).is_err());
    assert_eq!(running.spool.mark_store_id(), Vec::<u8>::new());
    // Ending does not hang, and says what it could not keep.
    let metrics = running.metrics.clone();
    running.send(&large(17..=18));
    let spool = running.end();
    assert_eq!(metrics.dropped_batches.get(Metrics::DISK), 2);
    assert_sent(&spool.fetch(lane.id, 16).unwrap(), &sealed(16, 100_000));
}

#[test]
fn what_is_acked_need_not_be_written_any_more() {
    let dir = folder();
    let (running, faults) = start(dir.path());
    faults.full.store(true, Ordering::SeqCst);
    running.send(&large(1..=1));
    until(|| !running.spool.writable());
    running.spool.acked(running.lane().id, 1);
    until(|| running.spool.writable());
    assert!(segments(dir.path()).is_empty());
}

#[test]
fn positions_are_durable_before_a_segment_goes() {
    let dir = folder();
    let (running, faults) = start(dir.path());
    running.store(&large(1..=25));
    faults.log.lock().unwrap().clear();
    running.spool.acked(running.lane().id, 15);
    until(|| segments(dir.path()).len() == 2);
    let log = faults.log.lock().unwrap().clone();
    let position = log.iter().position(|entry| entry.starts_with("sync positions")).unwrap();
    let gone = |entry: &String| entry.starts_with("name spare") || entry.starts_with("remove seg");
    assert!(position < log.iter().position(gone).unwrap(), "{log:?}");
}

#[test]
fn rows_are_durable_before_a_segment_goes() {
    let dir = folder();
    let (running, faults) = start(dir.path());
    running.store(&large(1..=70));
    let log = faults.log.lock().unwrap().clone();
    let gone = log.iter().position(|entry| entry.starts_with("remove seg")).unwrap();
    assert!(log[..gone].iter().any(|entry| entry.starts_with("sync skips")), "{log:?}");
}

#[test]
fn a_segment_is_whole_before_it_has_its_name() {
    let dir = folder();
    let (running, faults) = start(dir.path());
    running.store(&large(1..=1));
    let log = faults.log.lock().unwrap().clone();
    let named = log.iter().position(|entry| entry.starts_with("name seg-")).unwrap();
    assert_eq!(log[named - 1], "sync unfinished.new");
}

#[test]
fn a_bad_sector_costs_one_batch() {
    let dir = folder();
    let (running, faults) = start(dir.path());
    running.store(&large(1..=15));
    for bad in [250_000, 100_300] {
        faults.bad_sector.store(bad, Ordering::SeqCst);
        let found = all(&running.spool, &running.lane());
        assert_eq!(found.len(), 15);
        let hit = bad / 100_160 + 1;
        for (seq, fetched) in &found {
            match fetched {
                Fetched::Skip(row) => assert_eq!((row.to, row.reason), (*seq, Reason::Damaged)),
                batch => assert_sent(batch, &sealed(*seq as u32, 100_000)),
            }
        }
        assert!(matches!(found[&hit], Fetched::Skip(_)), "{hit}");
    }
    assert_eq!(running.metrics.skipped_batches.get("damaged"), 2);
}

#[test]
fn a_start_gets_past_a_bad_sector() {
    for bad in [10, 150_000, 1_002_000] {
        let dir = folder();
        let (running, _) = start(dir.path());
        running.store(&large(1..=15));
        let lane = running.lane().id;
        drop(running.end());
        let disk = Faulty::default();
        disk.0.bad_sector.store(bad, Ordering::SeqCst);
        let again = Running::start_on(Arc::new(disk), settings(dir.path()));
        let view = again.spool.lanes()[0];
        assert_eq!((view.id, view.next_seq), (lane, 16), "{bad}");
        let found = all(&again.spool, &view);
        let batches = found.values().filter(|fetched| matches!(fetched, Fetched::Batch(_))).count();
        // Without its header nothing of a segment is believed.
        assert!(if bad < 64 { batches == 0 } else { batches >= 13 }, "{bad}: {batches}");
    }
}

#[test]
fn lanes_that_are_set_aside_at_once_have_folders_of_their_own() {
    let dir = folder();
    let settings = Settings { clock: || 1_795_442_400_000, ..settings(dir.path()) };
    let mut lanes = Vec::new();
    for n in 1..=2 {
        let running = Running::start(settings.clone());
        running.store(&large(n..=n));
        lanes.push(running.lane().id);
        running.end();
    }
    let running = Running::start(settings);
    let journal = running.spool.shared.journal();
    lanes.iter().for_each(|lane| running.spool.set_aside(*lane));
    drop(journal);
    until(|| running.metrics.skipped_batches.get(Metrics::ASIDE) == 2);
    let aside = files(dir.path(), "forked-");
    assert_eq!(aside.len(), 2, "{aside:?}");
    assert!(aside.iter().all(|aside| segments(aside).len() == 1));
}

#[test]
fn a_folder_set_aside_that_somebody_took_away_does_not_keep_room_from_being_made() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    running.store(&large(1..=15));
    running.spool.set_aside(running.lane().id);
    until(|| {
        !files(dir.path(), "forked-").is_empty() && running.metrics.skipped_batches.get(Metrics::ASIDE) > 0
    });
    std::fs::remove_dir_all(&files(dir.path(), "forked-")[0]).unwrap();
    running.store(&large(1..=80));
    assert!(running.spool.writable());
}

/// Small boxes have small flash: each byte and each sync counts, whatever for.
#[test]
fn all_syncs_and_bytes_are_counted() {
    let dir = folder();
    let faults = Arc::new(Faults::default());
    let running = Running::start_on(Arc::new(Faulty(faults.clone())), settings(dir.path()));
    running.store(&large(1..=25));
    let lane = running.lane().id;
    running.spool.reject(lane, 3).unwrap();
    running.spool.acked(lane, 15);
    until(|| running.spool.usage().batches == 10 && !running.spool.shared.state().dirty);
    let metrics = running.metrics.clone();
    running.end();
    let log = faults.log.lock().unwrap().clone();
    let noted = |names: &[&str]| {
        let names = |line: &&String| names.iter().any(|name| line.starts_with(&format!("sync {name}")));
        log.iter().filter(names).count() as u64
    };
    for (label, names) in [
        (Metrics::SEGMENT, &["seg-", "unfinished", "spare-"][..]),
        (Metrics::POSITIONS, &["positions"]),
        (Metrics::SKIPS, &["skips"]),
        (Metrics::OTHER, &["0", "1"]),
    ] {
        assert_eq!(metrics.fsyncs.get(label), noted(names), "{label}: {log:?}");
        assert!(noted(names) > 0, "{label}");
    }
    assert!(metrics.fsyncs.get(Metrics::FOLDER) > 3);
    assert!(metrics.disk_bytes.get() > metrics.written_bytes.get() + 2 * 64 * 1024);
}

/// After a hundred kills in a row with the collector away there are a hundred lanes.
#[test]
fn a_start_syncs_only_what_the_one_before_has_left() {
    let mut dir = folder();
    for lanes in 0..4 {
        let running = Running::start(settings(dir.path()));
        assert_eq!(running.spool.recovered().lanes, lanes);
        assert_eq!(running.metrics.fsyncs.get(Metrics::SEGMENT), lanes.min(1) as u64);
        running.store(&large(1..=2));
        dir = running.kill(dir.path());
    }
}

/// A power cut may take back some of the removals of a lane's files and not others.
#[test]
fn a_closed_lane_does_not_come_back_with_losses() {
    let settings = || Settings { memory_bytes: 0, ..Settings::new(PathBuf::from("/spool")) };
    for seed in 0..8 {
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = Arc::new(Memory::default());
        let running = Running::start_on(disk.clone(), Settings { max_bytes: 8 << 20, ..settings() });
        running.store(&large(1..=35));
        running.end();
        let running = Running::start_on(disk.clone(), Settings { max_bytes: 8 << 20, ..settings() });
        let old = running.spool.lanes()[0];
        for seq in [10, 20, 35] {
            running.spool.acked(old.id, seq);
            until(|| running.spool.shared.state().lane(old.id).is_none_or(|lane| lane.position == seq));
        }
        assert!(running.spool.close(old.id));
        until(|| running.spool.shared.state().lanes.len() == 1);
        // The next positions leave it out.
        running.spool.set_mark_store_id(&[1]).unwrap();
        let thread = running.thread;
        disk.kill();
        disk.cut(Cut::Some, &mut rng);
        drop(running.sender);
        thread.join().unwrap();
        let again = Running::start_on(disk.clone(), settings());
        assert_eq!(again.spool.recovered().lost_batches, 0, "seed {seed}");
        again.end();
    }
}
