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

/// What an interface counts beside its text: its place in a map, and the heads of two texts.
const ENTRY_BYTES: usize = 128;

/// What something with this name and description counts against the limit of the book.
pub(super) fn bytes(name: &str, description: &str) -> usize {
    ENTRY_BYTES + name.len() + description.len()
}

impl Table {
    /// What it counts against the limit of the book.
    pub fn bytes(&self) -> usize {
        self.interfaces.values().map(|entry| bytes(&entry.name, &entry.description)).sum()
    }

    /// An interface that has a name, and when that was told, in milliseconds since 1970.
    pub fn get(&self, index: u32) -> Option<(&Entry, u64)> {
        let entry = self.interfaces.get(&index)?;
        Some((entry, if entry.told == 0 { self.told } else { entry.told }))
    }

    /// Numbers that have another name in `newer`.
    pub fn renamed<'a>(&'a self, newer: &'a Table) -> impl Iterator<Item = (u32, &'a Entry, &'a Entry)> {
        self.interfaces.iter().filter_map(|(index, old)| {
            let new = newer.interfaces.get(index)?;
            let is_other = !old.name.is_empty() && !new.name.is_empty() && old.name != new.name;
            is_other.then_some((*index, old, new))
        })
    }

    /// The same, whenever it was told?
    pub fn says_the_same(&self, other: &Table) -> bool {
        let is_same = |(index, entry): (&u32, &Entry)| {
            other.interfaces.get(index).is_some_and(|other| {
                (&entry.name, &entry.description, entry.speed)
                    == (&other.name, &other.description, other.speed)
            })
        };
        self.interfaces.len() == other.interfaces.len() && self.interfaces.iter().all(is_same)
    }
}
