//! Places where a test may end the process: each step after which a crash must lose nothing.
//!
//! Only with the cargo feature `crash-points`; without it nothing of this is compiled. `FLOWPROXY_CRASH_POINT=spool.sync`
//! aborts the process when it first comes by the place called so, `spool.sync:3` at the third time.
//! `tests/crash_points.rs` knows them all. `FLOWPROXY_CRASH_BATCH` is the digest, in hexadecimal, of a batch that aborts every
//! process that decodes it for a sink.

use crate::batch::Digest;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const VARIABLE: &str = "FLOWPROXY_CRASH_POINT";
const DEADLY_VARIABLE: &str = "FLOWPROXY_CRASH_BATCH";

/// The place to end at.
#[derive(Debug)]
struct Armed {
    name: String,
    /// How often it is still to be passed by; the last time is not passed.
    left: AtomicU32,
}

impl Armed {
    /// Reads `name` or `name:nth`.
    fn parse(text: &str) -> Self {
        let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
        Self { name: name.to_owned(), left: AtomicU32::new(nth.parse().unwrap_or(1)) }
    }

    fn is_reached(&self, name: &str) -> bool {
        self.name == name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// The process is at this place.
pub fn reach(name: &str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| std::env::var(VARIABLE).ok().map(|text| Armed::parse(&text)));
    if armed.as_ref().is_some_and(|armed| armed.is_reached(name)) {
        std::process::abort();
    }
}

/// A batch is being decoded for a sink.
pub fn decoding(digest: &Digest) {
    static DEADLY: OnceLock<Option<String>> = OnceLock::new();
    let deadly = DEADLY.get_or_init(|| std::env::var(DEADLY_VARIABLE).ok());
    if deadly.as_ref().is_some_and(|deadly| *deadly == hex(digest)) {
        std::process::abort();
    }
}

fn hex(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_named_in_hexadecimal() {
        assert_eq!(hex(&[0xA0; 16]), "a0".repeat(16));
    }

    #[test]
    fn it_is_reached_once_and_at_the_right_time() {
        let armed = Armed::parse("spool.sync:3");
        let reached: Vec<bool> = (0..5).map(|_| armed.is_reached("spool.sync")).collect();
        assert_eq!(reached, [false, false, true, false, false]);
        let armed = Armed::parse("spool.sync");
        assert!(!armed.is_reached("spool.append"));
        assert!(armed.is_reached("spool.sync"));
    }
}
