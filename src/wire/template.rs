//! Templates: what they compile to, and the bounded table of those that were heard.
//!
//! A template is known by (exporter address and port, protocol, observation domain, id) and has no age limit:
//! some exporters send theirs once. When the table is full, what was used longest ago goes: domains and
//! templates each live in two generations, the used one is moved to the young generation, and when that is
//! half the cap the old one is dropped. So no look-up ever searches, whatever the network sends.

use super::Fault;
use crate::flow::{Exporter, Field, Layout, Slot};
use crate::proto::Protocol;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Caps of what the network can fill.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// (exporter, protocol, domain) triples whose state is kept.
    pub domains: usize,
    /// Templates of one domain.
    pub templates_per_domain: usize,
    /// Fields of all templates together, each template counted as [`TEMPLATE_COST`] more: what bounds the table's
    /// memory, to some 20 bytes each.
    pub fields: usize,
}

/// What a template takes beside its fields, in fields.
pub const TEMPLATE_COST: usize = 12;

impl Default for Limits {
    fn default() -> Limits {
        Limits { domains: 10_000, templates_per_domain: 4_096, fields: 2_000_000 }
    }
}

/// Fields of one template; more are refused.
pub(super) const MAX_FIELDS: usize = 256;

/// Fields of no bytes in one template; more are refused. A datagram of 64 KiB would else describe sixteen million
/// fields, and cost time and memory for each.
pub(super) const MAX_EMPTY_FIELDS: usize = 8;

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    layout: Arc<Layout>,
    slot: Slot,
}

impl Template {
    pub(super) fn new(layout: Layout) -> Template {
        Template { layout: Arc::new(layout), slot: Slot::default() }
    }

    /// The fields of its records.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// A note that an output may keep here, to spare itself a look-up a set.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }
}

/// Whose state it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DomainKey {
    /// Address and port.
    pub exporter: Exporter,
    /// NetFlow v9 and IPFIX number their templates apart.
    pub protocol: Protocol,
    /// NetFlow v9 source id, IPFIX observation domain.
    pub domain: u32,
}

/// A map that forgets what was used longest ago, roughly: entries of the old generation that were not used
/// since go all at once.
#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    cap: usize,
}

impl<K: Copy + Eq + Hash, V> Generations<K, V> {
    fn new(cap: usize) -> Self {
        Generations { young: HashMap::new(), old: HashMap::new(), cap: cap.max(2) }
    }

    /// The entry, moved to the young generation; gives `dropped` what had to go for that.
    fn get(&mut self, key: &K, dropped: &mut impl FnMut(V)) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let value = self.old.remove(key)?;
            self.make_room(dropped);
            self.young.insert(*key, value);
        }
        self.young.get_mut(key)
    }

    /// Puts an entry in; gives `dropped` what had to go.
    fn insert(&mut self, key: K, value: V, dropped: &mut impl FnMut(V)) {
        if let Some(value) = self.old.remove(&key).into_iter().chain(self.young.remove(&key)).next() {
            dropped(value);
        }
        self.make_room(dropped);
        self.young.insert(key, value);
    }

    fn make_room(&mut self, dropped: &mut impl FnMut(V)) {
        if self.young.len() >= self.cap / 2 {
            let gone = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            gone.into_values().for_each(dropped);
        }
    }

    /// The entry where it is.
    fn find(&mut self, key: &K) -> Option<&mut V> {
        self.young.get_mut(key).or_else(|| self.old.get_mut(key))
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    fn values(&self) -> impl Iterator<Item = &V> {
        self.young.values().chain(self.old.values())
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// The templates of one domain.
#[derive(Debug)]
struct Domain {
    templates: Generations<u16, Template>,
}

/// The table of all templates heard.
#[derive(Debug)]
pub struct Templates {
    limits: Limits,
    domains: Generations<DomainKey, Domain>,
    /// What all templates here count against the limit.
    fields: usize,
    /// What was put in since the last rotation.
    heard: usize,
    evicted: u64,
}

impl Templates {
    pub(super) fn new(limits: Limits) -> Templates {
        Templates { limits, domains: Generations::new(limits.domains), fields: 0, heard: 0, evicted: 0 }
    }

    /// The template that was heard for the id.
    pub(super) fn get(&mut self, key: &DomainKey, id: u16) -> Option<&Template> {
        let Templates { domains, fields, evicted, .. } = self;
        let mut evict = |gone: &Template| {
            *fields = fields.saturating_sub(cost(&gone.layout));
            *evicted += 1;
        };
        let domain = domains.get(key, &mut |gone| gone.templates.values().for_each(&mut evict))?;
        let template = domain.templates.get(&id, &mut |gone| evict(&gone))?;
        Some(template)
    }

    /// Keeps a template; true when it is not what was known by its id.
    pub(super) fn insert(&mut self, key: DomainKey, id: u16, layout: Layout) -> bool {
        if self.get(&key, id).is_some_and(|template| **template.layout() == layout) {
            return false;
        }
        self.withdraw(&key, id);
        let width = cost(&layout);
        if self.heard + width > self.limits.fields / 2 || self.fields + width > self.limits.fields {
            self.rotate();
        }
        if self.fields + width > self.limits.fields {
            self.rotate();
        }
        self.heard += width;
        self.fields += width;
        let Templates { domains, fields, evicted, limits, .. } = self;
        let mut evict = |gone: &Template| {
            *fields = fields.saturating_sub(cost(&gone.layout));
            *evicted += 1;
        };
        if domains.get(&key, &mut |gone| gone.templates.values().for_each(&mut evict)).is_none() {
            let templates = Generations::new(limits.templates_per_domain);
            domains
                .insert(key, Domain { templates }, &mut |gone| gone.templates.values().for_each(&mut evict));
        }
        if let Some(domain) = domains.find(&key) {
            domain.templates.insert(id, Template::new(layout), &mut |gone| evict(&gone));
        }
        true
    }

    /// Drops the old generation and makes the young one old.
    fn rotate(&mut self) {
        self.evicted += self.domains.old.values().map(|domain| domain.templates.len() as u64).sum::<u64>();
        self.domains.old = std::mem::take(&mut self.domains.young);
        self.fields = self.domains.values().map(weight).sum();
        self.heard = 0;
    }

    /// Forgets a template.
    pub(super) fn withdraw(&mut self, key: &DomainKey, id: u16) {
        let domain = self.domains.find(key);
        if let Some(gone) = domain.and_then(|domain| domain.templates.remove(&id)) {
            self.fields = self.fields.saturating_sub(cost(&gone.layout));
        }
    }

    /// Forgets every template of a domain for which `kind` says so.
    pub(super) fn withdraw_all(&mut self, key: &DomainKey, options: bool) -> usize {
        let Some(domain) = self.domains.find(key) else { return 0 };
        let is_meant = |template: &Template| (template.layout.scope_columns() > 0) == options;
        let meant = |map: &HashMap<u16, Template>| {
            map.iter().filter(|(_, t)| is_meant(t)).map(|(id, _)| *id).collect::<Vec<_>>()
        };
        let ids: Vec<u16> =
            meant(&domain.templates.young).into_iter().chain(meant(&domain.templates.old)).collect();
        for id in &ids {
            self.withdraw(key, *id);
        }
        ids.len()
    }

    /// Domains known.
    pub fn domains(&self) -> usize {
        self.domains.len()
    }

    /// Templates known, of all domains.
    pub fn len(&self) -> usize {
        self.domains.values().map(|domain| domain.templates.len()).sum()
    }

    /// Templates given up at a limit so far.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Nothing has been heard.
    pub fn is_empty(&self) -> bool {
        self.domains.len() == 0
    }
}

/// What a template counts against the limit.
fn cost(layout: &Layout) -> usize {
    layout.fields().len() + TEMPLATE_COST
}

/// What all its templates count.
fn weight(domain: &Domain) -> usize {
    domain.templates.values().map(|template| cost(&template.layout)).sum()
}

/// Checks the fields of a template and compiles them.
///
/// # Errors
/// No fields, too many of them or of those without bytes, or records of no bytes or of more than a datagram can hold.
pub(super) fn compile(
    kind: crate::proto::RecordKind,
    scope_columns: usize,
    v9_scopes: bool,
    fields: &[Field],
) -> Result<Layout, Fault> {
    let empty = fields.iter().filter(|field| field.width == 0).count();
    if fields.len() > MAX_FIELDS || (empty > MAX_EMPTY_FIELDS && empty < fields.len()) {
        return Err(Fault::LargeTemplate);
    }
    let layout = Layout::packed(kind, scope_columns, v9_scopes, fields);
    if layout.least() == 0 {
        return Err(Fault::EmptyTemplate);
    }
    if layout.least() > usize::from(u16::MAX) {
        return Err(Fault::LargeTemplate);
    }
    Ok(layout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::RecordKind;

    fn key(port: u16) -> DomainKey {
        let exporter = Exporter { address: [127, 0, 0, 1].into(), port };
        DomainKey { exporter, protocol: Protocol::NetflowV9, domain: 0 }
    }

    fn layout(element: u16) -> Layout {
        let field = Field { enterprise: 0, element, width: 4 };
        Layout::packed(RecordKind::Data, 0, false, &[field, field])
    }

    #[test]
    fn the_same_template_again_is_not_new() {
        let mut templates = Templates::new(Limits::default());
        assert!(templates.insert(key(1), 256, layout(1)));
        assert!(!templates.insert(key(1), 256, layout(1)));
        assert!(templates.insert(key(1), 256, layout(2)));
        assert_eq!((templates.len(), templates.fields), (1, 2 + TEMPLATE_COST));
    }

    #[test]
    fn a_flood_stays_under_every_cap_and_spares_what_is_used() {
        let limits = Limits { domains: 100, templates_per_domain: 10, fields: 150 * (2 + TEMPLATE_COST) / 2 };
        let mut templates = Templates::new(limits);
        templates.insert(key(0), 256, layout(1));
        for port in 1..5_000 {
            for id in 256..290 {
                templates.insert(key(port), id, layout(id));
            }
            assert!(templates.get(&key(0), 256).is_some(), "port {port}");
            assert!(templates.domains() <= 100 && templates.fields <= limits.fields);
            assert_eq!(templates.fields, templates.domains.values().map(weight).sum::<usize>());
        }
    }

    #[test]
    fn a_template_of_hardly_any_bytes_costs_no_more_than_its_bytes() {
        let field = |width| Field { enterprise: 0, element: 1, width };
        let with_empty = |count| [vec![field(0); count], vec![field(1)]].concat();
        let compile = |fields: &[Field]| compile(RecordKind::Data, 0, false, fields);
        assert!(compile(&with_empty(MAX_EMPTY_FIELDS)).is_ok());
        assert_eq!(compile(&with_empty(MAX_EMPTY_FIELDS + 1)).unwrap_err(), Fault::LargeTemplate);
    }

    #[test]
    fn withdrawals_forget_one_or_all_of_a_kind() {
        let mut templates = Templates::new(Limits::default());
        let field = Field { enterprise: 0, element: 1, width: 4 };
        for id in 256..260 {
            templates.insert(key(1), id, layout(id));
        }
        templates.insert(key(1), 300, Layout::packed(RecordKind::Options, 1, false, &[field, field]));
        templates.withdraw(&key(1), 256);
        assert_eq!(templates.len(), 4);
        assert_eq!(templates.withdraw_all(&key(1), false), 3);
        assert_eq!(templates.withdraw_all(&key(1), true), 1);
        assert_eq!((templates.len(), templates.fields), (0, 0));
    }
}
