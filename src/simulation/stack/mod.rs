//! The second layer of the simulation: two proxies and a collector on a network in which time, delays and failures
//! come by a seed. What runs is the real thing from the spool's queue to the sink's file: spool and writer, uplink
//! with its connections and their succession, gRPC, HTTP/2, TLS 1.3 with certificates of both ends, accept loop,
//! service, sessions and commit. Disks and the mark store are those of the first layer, and the oracle is the same.
//!
//! What goes wrong: kills and power cuts of either end, the collector dead before or after a change of its mark store,
//! stops in order (the collector's Drain, the proxy's last sending), partitions of both directions or of one,
//! connections on which nothing comes for a while, slow networks, a commit that stalls, a clock that jumps, batches
//! that no collector can read. Then all is well and everything must be delivered, a few times over; in the end the oracle
//! adds up. The ledger of each proxy is added up all the while.
//!
//! | in place of | there is | so that |
//! |---|---|---|
//! | the threads of writer and commit, reads that block | tasks that take their turns after delays by the seed | a seed decides who is first |
//! | TCP | turmoil's byte streams; a partition loses segments for good | only the ends can find out that a connection is dead |
//! | the system's clocks and chance | simulated time, the seed | hours pass in no time |
//!
//! A seed that fails is printed with what happened last; `FLOWPROXY_STACK_SEED=N cargo test --lib simulation::stack`
//! runs it alone with the log of both ends, `FLOWPROXY_STACK_SEEDS=N` as many as that.

mod collector;
mod keys;
mod machine;
mod notes;
mod proxy;
mod world;

use super::number;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use world::World;

/// Seeds in an ordinary test run.
const SEEDS: u64 = 50;

/// What came of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome {
    batches: usize,
    faults: u32,
    connections: u64,
    took: Duration,
    /// Of all that was noted, with its time.
    trace: u64,
}

/// Runs the world of this seed; `None` if it failed.
fn run(seed: u64) -> Option<Outcome> {
    let mut world = World::new(seed);
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    if ran.is_err() {
        eprintln!("{}\nseed {seed} failed", world.story());
        return None;
    }
    Some(world.outcome())
}

#[test]
fn every_batch_comes_to_one_end_over_the_whole_stack() {
    if let Some(seed) = number("FLOWPROXY_STACK_SEED") {
        let _ = tracing_subscriber::fmt()
            .with_env_filter("info,turmoil=warn")
            .with_test_writer()
            .without_time()
            .with_ansi(false)
            .try_init();
        println!("{:?}", run(seed).unwrap());
        return;
    }
    let seeds = number("FLOWPROXY_STACK_SEEDS").unwrap_or(SEEDS);
    let outcomes = super::on_all_threads(&(0..seeds).collect::<Vec<_>>(), run);
    let passed: Vec<Outcome> = outcomes.into_iter().flatten().collect();
    let sum = |of: fn(&Outcome) -> u64| passed.iter().map(of).sum::<u64>();
    println!(
        "{} of {seeds} seeds passed: {} batches, {} faults, {} connections in {} simulated seconds",
        passed.len(),
        sum(|outcome| outcome.batches as u64),
        sum(|outcome| outcome.faults.into()),
        sum(|outcome| outcome.connections),
        sum(|outcome| outcome.took.as_secs()),
    );
    assert_eq!(passed.len() as u64, seeds);
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    for seed in [1, 2] {
        assert_eq!(run(seed).unwrap(), run(seed).unwrap(), "seed {seed}");
    }
}
