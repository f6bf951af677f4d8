//! The domains of one address: whether its ports tell the same, so that one may lend another its template.

use super::{DomainKey, Domains};
use crate::flow::Layout;
use crate::proto::Protocol;
use crate::wire::sampling::Shared;
use crate::wire::template::Template;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Domains of one address among which a template is looked for; at an address with more, ports mean nothing.
pub(super) const MOST_PORTS: usize = 64;

/// How long it is remembered that ports told different things, after that was last seen, in milliseconds.
const MEMORY_MS: u64 = 3_600_000;

/// The domains of one address.
#[derive(Debug, Default)]
pub(super) struct Address {
    /// By their numbers.
    pub(super) keys: BTreeMap<u64, DomainKey>,
    /// (protocol, domain, template id) for which two ports have told different fields, and until when that counts.
    conflicts: HashMap<(Protocol, u32, u16), u64>,
    /// Until when too many ports to compare count as many.
    crowded: u64,
    /// What its domains have told, for each other.
    pub(super) shared: Option<Shared>,
}

impl Address {
    /// There are, or were not long before `now`, too many ports or conflicts to compare.
    fn is_crowded(&self, now: u64) -> bool {
        self.keys.len() > MOST_PORTS || now < self.crowded
    }

    /// Looks whether there are too many.
    fn count(&mut self, now: u64) {
        if self.conflicts.len() > MOST_PORTS {
            self.conflicts.retain(|_, until| now < *until);
        }
        if self.keys.len() > MOST_PORTS || self.conflicts.len() > MOST_PORTS {
            self.crowded = now.saturating_add(MEMORY_MS);
        }
    }
}

impl Domains {
    /// Notes when another port of the address tells other fields by the id.
    pub(super) fn compare_ports(&mut self, key: &DomainKey, id: u16) {
        let now = self.books.elapsed;
        let Some(address) = self.books.addresses.get_mut(&key.exporter.address) else { return };
        address.count(now);
        if address.is_crowded(now) {
            return;
        }
        // What was heard before the last start was told as well.
        let told = |key: &DomainKey| Some(self.map.get(key)?.templates.peek(&id)?.template.layout());
        let own = told(key);
        let of_the_domain = address.keys.values().filter(|other| is_same_domain(other, key));
        if of_the_domain.filter_map(told).any(|other| Some(other) != own) {
            let until = now.saturating_add(MEMORY_MS);
            address.conflicts.insert((key.protocol, key.domain, id), until);
        }
    }

    /// A template from another port of the address that may be the one for a set of `key` and `id`: the only one
    /// that was told there by the id, and never on this host, where several exporters share an address.
    pub(in crate::wire) fn candidate(&self, key: &DomainKey, id: u16) -> Option<&Template> {
        let (ip, now) = (key.exporter.address, self.books.elapsed);
        let address = self.books.addresses.get(&ip).filter(|_| !ip.is_loopback())?;
        let contested = address.conflicts.get(&(key.protocol, key.domain, id));
        if contested.is_some_and(|until| now < *until) || address.is_crowded(now) {
            return None;
        }
        let others = address
            .keys
            .values()
            .filter(|other| is_same_domain(other, key) && other.exporter != key.exporter);
        let mut heard = others.filter_map(|other| {
            let known = self.map.get(other)?.templates.peek(&id)?;
            (!known.restored).then_some(&known.template)
        });
        let first = heard.next()?;
        let is_same = |layout: &Arc<Layout>| layout == first.layout();
        heard.all(|other| is_same(other.layout())).then_some(first)
    }
}

fn is_same_domain(one: &DomainKey, other: &DomainKey) -> bool {
    (one.protocol, one.domain) == (other.protocol, other.domain)
}
