//! The fuzz targets' entries inside `cargo test`: the seeds, every shorter prefix of every datagram, and seeded
//! mutations. `FLOWPROXY_MUTATIONS` is how many of each entry, `FLOWPROXY_MUTATION_SEED` where they begin.
//!
//! With the corpus (see `support/corpus.rs`) also the prefixes and mutations of its datagrams.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test"
)]

#[path = "../fuzz/entries.rs"]
mod entries;

use entries::{seeds, witness::Witness};
use flowproxy::capture::{Capture, Next};
use flowproxy::flow::Exporter;
use flowproxy::wire::{Arrival, Decoder, Settings};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Of each entry.
const MUTATIONS: u64 = 3_000;
const SEED: u64 = 0x5eed_0010;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs an entry; when it panics, the input is told.
fn run(name: &str, entry: fn(&[u8]), data: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| entry(data))) {
        let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{name} broke at {hex}");
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn seeds_keep_all_promises() {
    for (name, entry) in entries::ALL {
        let seeds = seeds::of(name);
        assert!(!seeds.is_empty());
        seeds.iter().for_each(|seed| run(name, entry, seed));
    }
}

#[test]
fn every_shorter_prefix_of_every_seed_keeps_all_promises() {
    for (name, entry) in entries::ALL {
        for seed in seeds::of(name).iter().filter(|seed| seed.len() < 2_000) {
            (0..seed.len()).for_each(|length| run(name, entry, &seed[..length]));
        }
    }
}

#[test]
fn mutations_keep_all_promises() {
    let seed = setting("FLOWPROXY_MUTATION_SEED", SEED);
    for (name, entry) in entries::ALL {
        let mut rng = StdRng::seed_from_u64(seed);
        let seeds = seeds::of(name);
        for _ in 0..setting("FLOWPROXY_MUTATIONS", MUTATIONS) {
            run(name, entry, &mutated(&mut rng, &seeds));
        }
    }
}

/// One of the seeds with a few changes.
fn mutated(rng: &mut StdRng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[rng.random_range(0..seeds.len())].clone();
    for _ in 0..rng.random_range(1..6) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..8) {
            0 => bytes[at] = rng.random(),
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes[at] = [0, 1, 4, 127, 128, 255][rng.random_range(0..6usize)],
            3 => bytes[at] = bytes[at].wrapping_add([1, 255][rng.random_range(0..2usize)]),
            4 => bytes.truncate(at),
            // A stretch again, somewhere else.
            5 => {
                let end = (at + rng.random_range(1..64)).min(bytes.len());
                let stretch = bytes[at..end].to_vec();
                let to = rng.random_range(0..=bytes.len());
                bytes.splice(to..to, stretch);
            }
            6 => {
                let end = (at + rng.random_range(1..16)).min(bytes.len());
                bytes.drain(at..end);
            }
            // The rest of another.
            _ => {
                let other = &seeds[rng.random_range(0..seeds.len())];
                bytes.truncate(at);
                bytes.extend(&other[at.min(other.len())..]);
            }
        }
    }
    bytes
}

/// The corpus' captures, if it is there.
fn captures() -> Vec<PathBuf> {
    let named = std::env::var_os("FLOWPROXY_CORPUS").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"));
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut captures: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "pcap")).collect();
    captures.sort();
    captures
}

fn datagrams(capture: &Path) -> Vec<(Exporter, u64, Vec<u8>)> {
    let mut capture = Capture::open(capture).unwrap();
    let mut datagrams = Vec::new();
    loop {
        match capture.read().unwrap() {
            Next::Datagram(found) => datagrams.push((found.exporter, found.received, found.bytes.to_vec())),
            Next::Dry => {}
            Next::End => return datagrams,
        }
    }
}

/// Each capture at one decoder: every datagram, after it each of its shorter prefixes, and mutations of it.
#[test]
fn the_corpus_keeps_all_promises_whole_cut_and_mutated() {
    let captures = captures();
    if captures.is_empty() {
        eprintln!("skipped: no $FLOWPROXY_CORPUS or ../shared/corpus");
    }
    let mut rng = StdRng::seed_from_u64(setting("FLOWPROXY_MUTATION_SEED", SEED));
    for capture in captures {
        let mut decoder = Decoder::new(Settings::default());
        let mut witness = Witness::default();
        for (number, (exporter, received, bytes)) in (0..).zip(datagrams(&capture)) {
            let arrival = Arrival { exporter, received, elapsed: number, number };
            witness.datagram(&mut decoder, &arrival, &bytes);
            for length in 0..bytes.len() {
                witness.datagram(&mut decoder, &arrival, &bytes[..length]);
            }
            witness.read_back();
            for _ in 0..20 {
                let mutated = mutated(&mut rng, std::slice::from_ref(&bytes));
                witness.datagram(&mut decoder, &arrival, &mutated);
            }
            witness.read_back();
        }
        witness.end(&mut decoder);
    }
}

/// `cargo test --test mutations -- --ignored` puts the seeds where cargo-fuzz looks for them.
#[test]
#[ignore = "writes into fuzz/corpus"]
fn write_seeds() {
    for (name, _) in entries::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        fs::create_dir_all(&folder).unwrap();
        for (n, seed) in seeds::of(name).iter().enumerate() {
            fs::write(folder.join(format!("seed-{n:02}")), seed).unwrap();
        }
    }
}
