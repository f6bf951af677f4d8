//! Both ends of the delivery in one deterministic world: the real spool, sessions and commit, on disks and links
//! in memory that fail by a seed. After every step the invariants must hold; at the end every batch that was
//! ever taken in must have come to exactly one end.
//!
//! | invariant | where it is checked |
//! |---|---|
//! | I0 a lane and number name the same bytes for ever | [`oracle::Oracle::number`] |
//! | I1 a batch is committed at most once | [`oracle::Oracle::taken`], [`oracle::Oracle::look`] |
//! | I2 a batch that was made durable is committed, skipped or set aside in the end | [`oracle::Oracle::settle`], `Edge::start` |
//! | I3 the mark passes nothing that is not in the sink, skipped or adopted; what is acked outlives a power cut | [`oracle::Oracle::taken`], [`oracle::Oracle::skipped`], [`oracle::Oracle::acked`] |
//! | I4 nothing above the mark goes without a durable skip row | as I2: a loss is declared only where a test damaged something |
//! | I5 nothing fresh is taken for a duplicate | [`oracle::Oracle::settle`] |
//! | I6 memory is bounded | `Edge::write` |
//! | I7 no batch is both delivered and counted as lost; the ledger adds up | [`oracle::Oracle::settle`], `Life::assert_ledger` |
//!
//! A seed that fails is printed with what happened last; `FLOWPROXY_SEED=N cargo test --lib simulation::every` runs it
//! alone, `FLOWPROXY_SEEDS=N` as many as that.
//!
//! Links and the drivers of both ends are the simulation's here, which makes a seed cheap. [`stack`] has fewer seeds and
//! the real ones: all that a process is made of, over a simulated network, before the same oracle.

mod batches;
mod edge;
mod far;
mod link;
mod oracle;
mod segments;
mod spooled;
mod stack;
mod store;
mod witness;
mod world;

use crate::spool::LaneId;
use crate::tls::Identity;
use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use world::World;

/// Seeds in an ordinary test run.
const SEEDS: u64 = 2000;
/// Beyond those, seeds that have found something among a hundred thousand.
const FOUND: [u64; 6] = [8_227, 37_076, 53_090, 56_249, 60_671, 61_280];

thread_local! {
    /// Milliseconds since 1970, and the last lane's name.
    static CLOCK: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

fn clock() -> u64 {
    CLOCK.with(|clock| clock.get().0)
}

fn new_lane() -> LaneId {
    CLOCK.with(|clock| {
        let (now, last) = clock.get();
        clock.set((now, last + 1));
        // In no order, as random names are.
        LaneId((u128::from(last + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_be_bytes())
    })
}

/// The identity of a proxy.
fn identity(place: usize) -> Identity {
    static IDENTITIES: OnceLock<Vec<Identity>> = OnceLock::new();
    let make = |place: usize| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![format!("edge-{place}")]).unwrap();
        Identity::from_certificate(params.self_signed(&key).unwrap().der()).unwrap()
    };
    IDENTITIES.get_or_init(|| (0..4).map(make).collect())[place].clone()
}

/// Batches and faults of the world of this seed; `None` if it failed.
fn run(seed: u64) -> Option<(usize, u32)> {
    let mut world = World::new(seed);
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    if ran.is_err() {
        eprintln!("{}\nseed {seed} failed", world.log.join("\n"));
        return None;
    }
    Some((world.made(), world.faults))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// What comes of each of these seeds, with as many threads as there are processors.
fn on_all_threads<T: Send>(seeds: &[u64], run: impl Fn(u64) -> T + Copy + Send) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let of = |thread: usize| seeds.iter().skip(thread).step_by(threads).copied();
    std::thread::scope(|scope| {
        let work = |thread: usize| move || of(thread).map(run).collect::<Vec<_>>();
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(work(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn every_batch_comes_to_one_end_whatever_fails() {
    if let Some(seed) = number("FLOWPROXY_SEED") {
        let _ = tracing_subscriber::fmt().with_test_writer().without_time().with_ansi(false).try_init();
        assert!(run(seed).is_some());
        return;
    }
    let below = number("FLOWPROXY_SEEDS").unwrap_or(SEEDS);
    let seeds: Vec<u64> = (0..below).chain(FOUND.into_iter().filter(|seed| *seed >= below)).collect();
    let (mut passed, mut batches, mut faults) = (0, 0, 0);
    for (made, failed) in on_all_threads(&seeds, run).into_iter().flatten() {
        (batches, faults, passed) = (batches + made, faults + failed, passed + 1);
    }
    println!("{passed} of {} seeds passed, {batches} batches, {faults} faults", seeds.len());
    assert_eq!(passed, seeds.len());
}
