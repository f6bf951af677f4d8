//! What the tests of whole processes share: a folder with certificates and configs, the two ends of
//! flowproxy as real processes, and how to ask them.
//!
//! Everything stays on loopback, ports are free ones, and only processes started here are ended, by pid.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod captures;
pub mod clock;
pub mod corpus;
pub mod datagrams;
pub mod far_end;
pub mod frames;
pub mod ledger;
pub mod pcap;
pub mod probes;
pub mod process;
pub mod relay;
pub mod rig;
pub mod silent;
pub mod snmpd;

use std::io::Write;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// How long a test waits for something that must come before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `probe` gives a value; fails the test with `what` if none comes.
pub fn wait_for<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    wait_with(PATIENCE, what, probe)
}

/// The same for what takes longer by itself.
pub fn wait_with<T>(patience: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < patience, "waited {patience:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `condition` holds; fails the test with `what` if it never does.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Whether this run may leave out what the machine lacks. `.ci/run` sets FLOWPROXY_CI and may not.
pub fn may_skip() -> bool {
    std::env::var_os("FLOWPROXY_CI").is_none()
}

/// Says past the test runner's capture that a test was left out, and why.
///
/// # Panics
/// In `.ci/run`, where everything that a test needs must be there.
pub fn skipped(test: &str, why: &str) {
    assert!(may_skip(), "{test} must run here: {why}");
    say(&format!("skipped: {test}: {why}\n"));
}

/// Says something past the test runner's capture.
pub fn note(text: &str) {
    say(&format!("note: {text}\n"));
}

fn say(line: &str) {
    // In one piece, as tests run side by side.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// A socket on a free port of `127.0.0.1`.
pub fn loopback_socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("a free UDP port on loopback")
}

/// A small seeded generator of numbers (xorshift64*), so that every run of a test sees the same.
pub struct Numbers(u64);

impl Numbers {
    pub fn from_seed(seed: u64) -> Self {
        Numbers(seed.max(1))
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound
    }
}
