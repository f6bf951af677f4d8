//! The store on a real disk: what is there after it was opened again, and every way in which it may be damaged.

use super::*;
use crate::flow::Exporter;
use crate::proto::Protocol;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::Path;

fn key(port: u16) -> DomainKey {
    let exporter = Exporter { address: [127, 0, 0, 1].into(), port };
    DomainKey { exporter, protocol: Protocol::NetflowV9, domain: 3 }
}

fn saved(used: u32, bytes: usize) -> Option<Saved> {
    Some(Saved { used, bytes: vec![used as u8; bytes] })
}

fn settings(dir: &Path) -> Settings {
    Settings { dir: dir.join("deep/state"), max_domains: 100, max_bytes: 1 << 20 }
}

fn store(dir: &Path, metrics: &Metrics) -> (Store, Vec<Row>) {
    let mut store = Store::new(settings(dir), metrics.clone());
    let rows = store.open().unwrap();
    (store, rows)
}

fn ports(rows: &[Row]) -> Vec<u16> {
    rows.iter().map(|row| row.key.exporter.port).collect()
}

#[test]
fn what_was_handed_over_is_there_after_a_restart_longest_unused_first() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::default();
    let (keeper, sender, rows) = open(settings(dir.path()), metrics.clone()).unwrap();
    assert!(rows.is_empty());
    for (port, used) in [(1, 30), (2, 10), (3, 20), (4, 5)] {
        assert!(sender.put(key(port), saved(used, 9)));
    }
    assert!(sender.put(key(4), None));
    assert!(sender.put(key(3), saved(40, 7)));
    drop(sender);
    keeper.run();
    assert_eq!((metrics.writes.get(), metrics.written_domains.get()), (1, 4), "in one transaction");
    let (_, rows) = store(dir.path(), &metrics);
    assert_eq!(ports(&rows), [2, 1, 3]);
    assert_eq!(rows[2].saved, saved(40, 7).unwrap());
}

#[test]
fn a_store_in_use_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let _first = store(dir.path(), &Metrics::default());
    let mut second = Store::new(settings(dir.path()), Metrics::default());
    let error = second.open().unwrap_err();
    assert!(error.to_string().contains("deep/state is in use by another process"), "{error}");
}

#[test]
fn there_is_a_bound_in_number_and_in_bytes_and_what_was_used_last_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = store(dir.path(), &Metrics::default());
    store.write(&(0..500).map(|port| (key(port), saved(u32::from(port), 9))).collect()).unwrap();
    drop(store);
    let (mut store, rows) = self::store(dir.path(), &Metrics::default());
    assert!((90..=100).contains(&rows.len()), "{}", rows.len());
    assert_eq!(*ports(&rows).last().unwrap(), 499);
    assert!(ports(&rows).iter().all(|port| *port >= 400));
    store.write(&(1..9).map(|port| (key(port), saved(1_000 + u32::from(port), 300_000))).collect()).unwrap();
    drop(store);
    let (_, rows) = self::store(dir.path(), &Metrics::default());
    assert_eq!(ports(&rows), [6, 7, 8], "three of them are a megabyte");
}

#[test]
fn what_cannot_be_read_is_set_aside_and_all_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::default();
    let [file, aside] = store::paths(&settings(dir.path()).dir);
    drop(store(dir.path(), &metrics));
    for (round, damage) in
        [&b"not a database, but longer than one page of it".repeat(200)[..], b"x"].into_iter().enumerate()
    {
        std::fs::write(&file, damage).unwrap();
        let (mut store, rows) = store(dir.path(), &metrics);
        assert!(rows.is_empty());
        assert_eq!(std::fs::read(&aside).unwrap(), damage);
        assert_eq!((store.season(), metrics.set_aside.get()), (1, round as u64 + 1));
        store.write(&Batch::from([(key(1), saved(1, 9))])).unwrap();
    }
    assert_eq!(ports(&store(dir.path(), &metrics).1), [1]);
}

/// Whatever bytes change, the store opens: with what was in it, with less, or anew.
#[test]
fn no_damage_keeps_it_from_opening() {
    let mut numbers = StdRng::seed_from_u64(5);
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::default();
    let [file, _] = store::paths(&settings(dir.path()).dir);
    let (mut store, _) = store(dir.path(), &metrics);
    store.write(&(0..90).map(|port| (key(port), saved(u32::from(port), 500))).collect()).unwrap();
    drop(store);
    let sound = std::fs::read(&file).unwrap();
    for round in 0..60 {
        let mut damaged = sound.clone();
        match round % 3 {
            0 => damaged.truncate(numbers.random_range(0..sound.len())),
            1 => {
                let place = numbers.random_range(0..sound.len());
                damaged[place] ^= 1 << numbers.random_range(0..8);
            }
            _ => {
                let place = numbers.random_range(0..sound.len() - 4_096);
                numbers.fill(&mut damaged[place..place + 4_096]);
            }
        }
        std::fs::write(&file, damaged).unwrap();
        let (mut store, rows) = self::store(dir.path(), &metrics);
        assert!(rows.len() <= 90);
        store.write(&Batch::from([(key(1_000), saved(9, 9))])).unwrap();
        drop(store);
        assert!(ports(&self::store(dir.path(), &metrics).1).contains(&1_000), "round {round}");
    }
    assert!(metrics.set_aside.get() > 10);
}

/// Folders where nothing can be written stop nothing; once they can, all is written.
#[test]
fn a_disk_that_fails_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::default();
    std::fs::write(dir.path().join("deep"), "a file where a folder has to be").unwrap();
    let (mut store, rows) = store(dir.path(), &metrics);
    assert!(rows.is_empty());
    let batch = Batch::from([(key(1), saved(1, 9))]);
    store.write(&batch).unwrap_err();
    assert_eq!(metrics.writable.get(), 0);
    std::fs::remove_file(dir.path().join("deep")).unwrap();
    store.write(&batch).unwrap();
    drop(store);
    assert_eq!(ports(&self::store(dir.path(), &metrics).1), [1]);
}
