//! The store on a real disk: what is there after it was opened again, and every way in which it may be damaged.

use super::*;
use crate::flow::Exporter;
use crate::proto::Protocol;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

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
fn what_was_handed_over_is_there_after_a_restart_worth_least_first() {
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
    assert_eq!(ports(&rows), [3, 1, 2]);
    assert_eq!(rows[0].saved, saved(40, 7).unwrap());
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
fn there_is_a_bound_in_number_and_in_bytes_and_what_is_worth_most_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = store(dir.path(), &Metrics::default());
    store.write(&(0..500).map(|port| (key(port), saved(u32::from(port), 9))).collect()).unwrap();
    drop(store);
    let (mut store, rows) = self::store(dir.path(), &Metrics::default());
    assert!((90..=100).contains(&rows.len()), "{}", rows.len());
    assert_eq!(*ports(&rows).last().unwrap(), 1);
    assert!(ports(&rows).iter().all(|port| (1..=100).contains(port)), "not the one that decodes nothing");
    store
        .write(&(1..9).map(|port| (key(port), saved(1_000 + 2 * u32::from(port), 300_000))).collect())
        .unwrap();
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

fn key_at(address: u32, port: u16) -> DomainKey {
    DomainKey { exporter: Exporter { address: std::net::Ipv4Addr::from(address).into(), port }, ..key(port) }
}

/// Addresses that tell once, and one address that tells much, whether or not they send records too.
#[test]
fn a_flood_pushes_out_nobody_who_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = store(dir.path(), &Metrics::default());
    let genuine: Vec<DomainKey> = (1..=20).map(|host| key_at(host, 2055)).collect();
    for used in [100, 106] {
        store.write(&genuine.iter().map(|key| (*key, saved(used, 9))).collect()).unwrap();
    }
    for wave in 0..300 {
        let forged = (0..50).map(|host| key_at(0x0a00_0000 + wave * 50 + host, 2055));
        let loud = (0..50).map(|port| key_at(0x0b00_0000, (wave * 50 + port) as u16));
        // Some of them decode, all of them look newer.
        let flood = forged.chain(loud).enumerate();
        store.write(&flood.map(|(n, key)| (key, saved(111 * (n as u32 % 2), 9))).collect()).unwrap();
        if wave == 150 {
            store.write(&genuine.iter().map(|key| (*key, None)).collect()).unwrap();
            store.write(&genuine.iter().map(|key| (*key, saved(106, 9))).collect()).unwrap();
        }
    }
    drop(store);
    let (_, rows) = self::store(dir.path(), &Metrics::default());
    let kept: std::collections::HashSet<DomainKey> = rows.iter().map(|row| row.key).collect();
    assert!(rows.len() <= 100);
    let lost: Vec<_> = genuine.iter().filter(|key| !kept.contains(key)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(
        rows[rows.len() - 20..].iter().all(|row| genuine.contains(&row.key)),
        "what is worth most comes last"
    );
}

/// A folder that was no folder at the start: what is in it when it is one stays, and newer states of the same win.
#[test]
fn what_could_not_be_read_at_the_start_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (deep, away) = (dir.path().join("deep"), dir.path().join("away"));
    let (mut first, _) = store(dir.path(), &Metrics::default());
    first.write(&(1..=90).map(|port| (key(port), saved(100, 9))).collect()).unwrap();
    drop(first);
    std::fs::rename(&deep, &away).unwrap();
    std::fs::write(&deep, "a file where a folder has to be").unwrap();
    let (mut late, rows) = store(dir.path(), &Metrics::default());
    assert!(rows.is_empty());
    let batch = Batch::from([(key(1), saved(111, 5)), (key(2), None), (key(200), saved(111, 5))]);
    late.write(&batch).unwrap_err();
    std::fs::remove_file(&deep).unwrap();
    std::fs::rename(&away, &deep).unwrap();
    late.write(&batch).unwrap();
    drop(late);
    let (_, rows) = store(dir.path(), &Metrics::default());
    assert_eq!(rows.len(), 91);
    let of = |port| rows.iter().find(|row| row.key == key(port)).map(|row| row.saved.used);
    assert_eq!((of(1), of(2), of(3), of(200)), (Some(111), Some(100), Some(100), Some(111)));
}

#[test]
fn a_folder_that_is_of_no_use_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    assert!(probe(&dir.path().join("not/yet/there")).is_ok());
    assert!(!dir.path().join("not").exists(), "nothing is made");
    assert!(probe(dir.path()).is_ok());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for place in [file.clone(), file.join("below")] {
        let text = probe(&place).unwrap_err().to_string();
        assert!(text.contains(&format!("[state] dir {}", place.display())), "{text}");
        assert!(text.contains("has to be a folder") && text.contains("own"), "{text}");
    }
    let kept = settings(dir.path());
    drop(store(dir.path(), &Metrics::default()));
    let [database, _] = store::paths(&kept.dir);
    assert!(probe(&kept.dir).is_ok());
    std::fs::remove_file(&database).unwrap();
    std::os::unix::fs::symlink("/dev/null", &database).unwrap();
    assert!(probe(&kept.dir).unwrap_err().to_string().contains("exporters.redb"));
}
