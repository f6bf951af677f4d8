//! What exporters tell of themselves in options data, as shards hand it over.

use super::table::{Entry, Table};
use crate::proto::Protocol;
use crate::wire::{ApplicationId, DomainState, Text};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What one observation domain of an exporter has told.
#[derive(Clone, Debug)]
pub struct Told {
    /// By what protocol.
    pub protocol: Protocol,
    /// Observation domain.
    pub domain: u32,
    /// Interfaces told since the proxy's start.
    pub interfaces: Arc<Table>,
    /// Interfaces told before, and not since.
    pub kept: Arc<Table>,
    /// Applications.
    pub applications: BTreeMap<ApplicationId, Text>,
    /// VRFs by id.
    pub vrfs: BTreeMap<u32, Text>,
    /// Samplers by id.
    pub samplers: BTreeMap<u64, Text>,
}

/// The clocks of a shard, for what is told by a clock that is never set.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// The wall clock, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The clock of [`Text::told`], in milliseconds.
    pub elapsed_ms: u64,
    /// When what was told before the proxy's start was told, as far as that is known, in milliseconds since 1970.
    pub kept_ms: u64,
}

impl Clocks {
    /// What the wall clock, as it is set now, would have said then.
    fn unix_of(self, told: u64) -> u64 {
        self.unix_ms.saturating_sub(self.elapsed_ms.saturating_sub(told.saturating_sub(1)))
    }
}

impl Told {
    /// What the state of a domain tells.
    pub fn new(protocol: Protocol, domain: u32, state: &DomainState, clocks: Clocks) -> Told {
        let (told, kept) = state.interfaces.iter().partition::<Vec<_>, _>(|(_, text)| text.told != 0);
        let table = |of: Vec<(&u32, &Text)>| {
            let entries = of.into_iter().map(|(index, text)| (*index, entry(text, clocks)));
            let interfaces: HashMap<u32, Entry> = entries.collect();
            let last = interfaces.values().map(|entry| entry.told).max().unwrap_or(0);
            Arc::new(Table { interfaces, told: last })
        };
        Told {
            protocol,
            domain,
            interfaces: table(told),
            kept: table(kept),
            applications: state.applications.clone(),
            vrfs: state.vrfs.clone(),
            samplers: state.sampler_names.clone(),
        }
    }

    /// What it counts against the limit of the book.
    pub(super) fn bytes(&self) -> usize {
        let texts = self.applications.values().chain(self.vrfs.values()).chain(self.samplers.values());
        let others: usize = texts.map(|text| super::table::bytes(&text.name, &text.description)).sum();
        self.interfaces.bytes() + self.kept.bytes() + others
    }
}

/// Some exporters tell no interfaceName, and the name as interfaceDescription, which is ifDescr.
fn entry(text: &Text, clocks: Clocks) -> Entry {
    let (name, description) = match text.name.is_empty() {
        true => (Arc::clone(&text.description), Arc::default()),
        false if text.name == text.description => (Arc::clone(&text.name), Arc::default()),
        false => (Arc::clone(&text.name), Arc::clone(&text.description)),
    };
    let told = if text.told == 0 { clocks.kept_ms } else { clocks.unix_of(text.told) };
    Entry { name, description, speed: 0, told: told.max(1) }
}
