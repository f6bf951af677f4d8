//! What all that runs in one world writes to: the oracle, and the story of what happened.

use crate::simulation::oracle::Oracle;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines that are kept.
const LINES: usize = 400;

/// See the module.
#[derive(Debug, Default)]
pub struct Notes {
    oracle: Mutex<Oracle>,
    story: Mutex<Story>,
}

#[derive(Debug, Default)]
struct Story {
    lines: VecDeque<String>,
    trace: u64,
}

impl Notes {
    /// The oracle.
    pub fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn story(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that a reader of the story wants to know.
    pub fn tell(&self, ms: u128, what: &str) {
        tracing::info!("{what}");
        self.trace(ms, what);
        let mut story = self.story();
        if story.lines.len() == LINES {
            story.lines.pop_front();
        }
        story.lines.push_back(format!("{ms} ms: {what}"));
    }

    /// Something that is the same each time the seed is run; within a millisecond in any order.
    pub fn trace(&self, ms: u128, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        (ms, what).hash(&mut hasher);
        let mut story = self.story();
        story.trace = story.trace.wrapping_add(hasher.finish());
    }

    /// What was traced.
    pub fn traced(&self) -> u64 {
        self.story().trace
    }

    /// The last lines.
    pub fn lines(&self) -> String {
        Vec::from(self.story().lines.clone()).join("\n")
    }
}

/// Milliseconds since the world began, within one of its hosts.
pub fn now_ms() -> u128 {
    turmoil::sim_elapsed().map_or(0, |elapsed| elapsed.as_millis())
}
