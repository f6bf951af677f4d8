//! Interface tables as sources give them.

use std::collections::HashMap;
use std::sync::Arc;

/// Interfaces of one table. What a source tells beyond that is left out, and counted.
pub const MOST_INTERFACES: usize = 16_384;

/// One interface, as one source tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its name (ifName); empty if that was not told.
    pub name: Arc<str>,
    /// What people call it (ifAlias, or ifDescr where that says more than the name); empty if not told.
    pub description: Arc<str>,
    /// Bits per second; 0 if not told.
    pub speed: u64,
    /// When it was last told, in milliseconds since 1970; 0: when its table was.
    pub told: u64,
}

impl Entry {
    /// Takes from another what this one leaves out.
    pub fn fill(&mut self, other: &Self) {
        if self.name.is_empty() {
            self.name = Arc::clone(&other.name);
        }
        if self.description.is_empty() {
            self.description = Arc::clone(&other.description);
        }
        if self.speed == 0 {
            self.speed = other.speed;
        }
    }
}

/// What one source tells of one exporter. Never changed: a source makes a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Interfaces by ifIndex.
    pub interfaces: HashMap<u32, Entry>,
    /// When the source was last asked, or told it, in milliseconds since 1970.
    pub told: u64,
}
