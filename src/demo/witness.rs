//! The demo's sink: it keeps nothing but the tally.

use super::tally::{Counts, Tally, View};
use crate::batch::Kind;
use crate::collector::sinks::{Sink, SinkError, Taken};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A sink that counts, and the way to see what it has counted. Cheap to clone; clones share the tally.
#[derive(Clone, Debug)]
pub struct Witness(Arc<Mutex<Tally>>);

impl Witness {
    /// Nothing counted yet, of a mesh with so many exporters.
    pub fn new(exporters: usize) -> Witness {
        Witness(Arc::new(Mutex::new(Tally::new(exporters))))
    }

    /// Sums only.
    pub fn counts(&self) -> Counts {
        self.tally().counts()
    }

    /// All that is shown.
    pub fn view(&self) -> View {
        self.tally().view()
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Counts are right between any two records.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Witness {
    fn name(&self) -> &'static str {
        "demo"
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::Records
    }

    fn write(&mut self, group: &[Taken]) -> Result<u64, SinkError> {
        let mut tally = self.tally();
        for taken in group {
            tally.add(&taken.batch);
        }
        Ok(0)
    }
}
