//! What exporters have told, by (address, port, protocol, observation domain): a bounded table.
//!
//! A template has no age limit: some exporters send theirs once. When the table is full, what was used longest ago
//! goes (`generations`). Only what tells something makes an entry; data for which nothing is known does not.
//!
//! | a template is | its records |
//! |---|---|
//! | heard by this very key | as they are |
//! | restored: heard by this key before the last start, not since | used at once, marked |
//! | heard from another port of the address, no other fields ever heard for the id there, and the set fits it | used after a wait, marked provisional: [`Domains::candidate`] |

mod told;

use super::Limits;
use super::generations::Generations;
use super::options::DomainState;
use super::sampling::{Basis, ByRecord, NetworkRates, Shared};
use super::template::Template;
use crate::flow::{Exporter, Layout};
use crate::proto::Protocol;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// What a template takes beside its fields, in fields.
pub const TEMPLATE_COST: usize = 12;

/// How much newer a domain's last use must be to be noted, in hours: so that use alone changes little.
const USE_STEP: u32 = 6;

const HOUR_MS: u64 = 3_600_000;

/// Domains of one address among which a template is looked for; at an address with more, ports mean nothing.
const MOST_PORTS: usize = 64;

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

/// A template and how it came to be known.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) template: Template,
    /// It was heard before the last start, and not since.
    pub(super) restored: bool,
}

/// What one domain has told.
#[derive(Debug)]
pub(super) struct Domain {
    templates: Generations<u16, Known>,
    /// When it was last used, to [`USE_STEP`], in hours since 1970.
    used: u32,
    state: DomainState,
    /// What the state counts against the limit.
    cost: usize,
    /// The state is from before the last start, and nothing was told since.
    is_restored: bool,
    /// What follows from it and from what others have told.
    basis: Basis,
    /// A record has named a sampler.
    names_samplers: bool,
}

impl Domain {
    /// Its templates, those used longest ago first.
    pub(super) fn layouts(&self) -> impl Iterator<Item = (u16, &Layout)> {
        self.templates.iter().map(|(id, known)| (*id, known.template.layout().as_ref()))
    }

    /// What it has told in options records.
    pub(super) fn state(&self) -> &DomainState {
        &self.state
    }

    /// When it was last used, in hours since 1970.
    pub(super) fn used(&self) -> u32 {
        self.used
    }
}

/// What the records of a set are read by.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) known: &'a Known,
    pub(super) sampling: ByRecord<'a>,
}

/// What a template that was heard changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its id was not known.
    New,
    /// Its id had other fields.
    Changed,
    /// It was known as it is.
    Same,
}

/// What is kept over all domains while they come and go.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// What all templates and states together count against the limit.
    fields: usize,
    /// What was put in since the last turn.
    heard: usize,
    evicted: u64,
    /// The wall clock, in hours since 1970.
    hour: u32,
    /// Things told that there was no room for.
    refused: u64,
    addresses: HashMap<IpAddr, Address>,
    /// Domains that are not any more as they were when this was last taken; `None` when nobody asks.
    changed: Option<HashSet<DomainKey>>,
}

/// The domains of one address.
#[derive(Debug, Default)]
struct Address {
    keys: Vec<DomainKey>,
    /// (protocol, domain, template id) for which two ports have told different fields.
    conflicts: HashSet<(Protocol, u32, u16)>,
    /// There were once too many ports to compare.
    crowded: bool,
    /// What its domains have told, for each other.
    shared: Option<Shared>,
}

impl Books {
    fn gone(&mut self, key: DomainKey, domain: &Domain) {
        for (_, known) in domain.templates.iter() {
            self.template_gone(known);
        }
        self.fields = self.fields.saturating_sub(domain.cost);
        if let Some(address) = self.addresses.get_mut(&key.exporter.address) {
            address.keys.retain(|other| *other != key);
            if address.keys.is_empty() {
                self.addresses.remove(&key.exporter.address);
            }
        }
        self.note(key);
    }

    fn template_gone(&mut self, known: &Known) {
        self.fields = self.fields.saturating_sub(cost(known.template.layout()));
        self.evicted += 1;
    }

    fn used(&mut self, key: &DomainKey, domain: &mut Domain) {
        if self.hour.abs_diff(domain.used) >= USE_STEP {
            domain.used = self.hour;
            self.note(*key);
        }
    }

    fn note(&mut self, key: DomainKey) {
        if let Some(changed) = &mut self.changed {
            changed.insert(key);
        }
    }
}

/// The table.
#[derive(Debug)]
pub struct Domains {
    limits: Limits,
    map: Generations<DomainKey, Domain>,
    books: Books,
    set: NetworkRates,
    /// An address whose domains have told something that has not been worked into the basis of the others.
    stale: Option<IpAddr>,
}

impl Domains {
    pub(super) fn new(limits: Limits) -> Domains {
        Domains {
            limits,
            map: Generations::new(limits.domains),
            books: Books::default(),
            set: NetworkRates::default(),
            stale: None,
        }
    }

    /// Notes from now on which domains change, for [`Domains::take_changed`].
    pub(super) fn note_changes(&mut self) {
        self.books.changed.get_or_insert_default();
    }

    /// The domains that have changed since the last call, gone ones among them.
    pub(super) fn take_changed(&mut self) -> HashSet<DomainKey> {
        self.books.changed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Time has come to `received`, in milliseconds since 1970.
    pub(super) fn advance(&mut self, received: u64) {
        self.books.hour = u32::try_from(received / HOUR_MS).unwrap_or(u32::MAX);
    }

    /// A domain that has told something. To look at it is no use of it.
    pub(super) fn peek(&self, key: &DomainKey) -> Option<&Domain> {
        self.map.peek(key)
    }

    /// A domain, made if it has told nothing yet.
    fn enter(&mut self, key: DomainKey) {
        let Domains { map, books, .. } = self;
        if map.get(&key, &mut |key, gone| books.gone(key, &gone)).is_some() {
            return;
        }
        let basis = self.basis(&key);
        let Domains { map, books, limits, .. } = self;
        let domain = Domain {
            templates: Generations::new(limits.templates_per_domain),
            used: books.hour,
            state: DomainState::default(),
            cost: 0,
            is_restored: false,
            basis,
            names_samplers: false,
        };
        map.insert(key, domain, &mut |key, gone| books.gone(key, &gone));
        books.addresses.entry(key.exporter.address).or_default().keys.push(key);
    }

    /// The template that is known by the id.
    pub(super) fn template(&mut self, key: &DomainKey, id: u16) -> Option<&Known> {
        let Domains { map, books, .. } = self;
        let domain = map.get(key, &mut |key, gone| books.gone(key, &gone))?;
        books.used(key, domain);
        domain.templates.get(&id, &mut |_, gone| books.template_gone(&gone)).map(|known| &*known)
    }

    /// What of a template that was heard would be new.
    pub(super) fn change(&mut self, key: &DomainKey, id: u16, layout: &Layout) -> Change {
        match self.template(key, id) {
            Some(known) if **known.template.layout() == *layout => Change::Same,
            Some(_) => Change::Changed,
            None => Change::New,
        }
    }

    /// A template is heard as it is known.
    pub(super) fn confirm(&mut self, key: &DomainKey, id: u16) {
        let known = self.map.peek_mut(key).and_then(|domain| domain.templates.peek_mut(&id));
        if known.is_some_and(|known| std::mem::take(&mut known.restored)) {
            self.compare_ports(key, id);
        }
    }

    /// Keeps a template that is new or changed.
    pub(super) fn learn(&mut self, key: DomainKey, id: u16, layout: Layout) {
        self.insert(key, id, layout, false);
        self.books.note(key);
        self.compare_ports(&key, id);
    }

    /// Puts back a template that was heard before the last start.
    pub(super) fn restore(&mut self, key: DomainKey, id: u16, layout: Layout) {
        self.insert(key, id, layout, true);
    }

    /// A domain that was put back was last used then, in hours since 1970.
    pub(super) fn was_used(&mut self, key: &DomainKey, hour: u32) {
        if let Some(domain) = self.map.peek_mut(key) {
            domain.used = hour;
        }
    }

    fn insert(&mut self, key: DomainKey, id: u16, layout: Layout, restored: bool) {
        self.withdraw(&key, id);
        self.make_room(cost(&layout));
        self.enter(key);
        let Domains { map, books, .. } = self;
        if let Some(domain) = map.peek_mut(&key) {
            let known = Known { template: Template::new(layout), restored };
            domain.templates.insert(id, known, &mut |_, gone| books.template_gone(&gone));
        }
    }

    fn make_room(&mut self, width: usize) {
        let Domains { map, books, limits, .. } = self;
        if books.heard + width > limits.fields / 2 || books.fields + width > limits.fields {
            map.turn(&mut |key, gone| books.gone(key, &gone));
            books.heard = 0;
        }
        if books.fields + width > limits.fields {
            map.turn(&mut |key, gone| books.gone(key, &gone));
        }
        books.heard += width;
        books.fields += width;
    }

    /// Notes when another port of the address tells other fields by the id.
    fn compare_ports(&mut self, key: &DomainKey, id: u16) {
        let Some(address) = self.books.addresses.get_mut(&key.exporter.address) else { return };
        address.crowded |= address.keys.len() > MOST_PORTS || address.conflicts.len() > MOST_PORTS;
        if address.crowded {
            return;
        }
        // What was heard before the last start was told as well.
        let told = |key: &DomainKey| Some(self.map.peek(key)?.templates.peek(&id)?.template.layout());
        let own = told(key);
        let of_the_domain = address.keys.iter().filter(|other| is_same_domain(other, key));
        if of_the_domain.filter_map(told).any(|other| Some(other) != own) {
            address.conflicts.insert((key.protocol, key.domain, id));
        }
    }

    /// A template from another port of the address that may be the one for a set of `key` and `id`: the only one
    /// that was told there by the id, and never on this host, where several exporters share an address.
    pub(super) fn candidate(&self, key: &DomainKey, id: u16) -> Option<&Template> {
        let ip = key.exporter.address;
        let address = self.books.addresses.get(&ip).filter(|_| !ip.is_loopback())?;
        let is_contested = address.conflicts.contains(&(key.protocol, key.domain, id));
        if is_contested || address.crowded || address.keys.len() > MOST_PORTS {
            return None;
        }
        let others =
            address.keys.iter().filter(|other| is_same_domain(other, key) && other.exporter != key.exporter);
        let mut heard = others.filter_map(|other| {
            let known = self.map.peek(other)?.templates.peek(&id)?;
            (!known.restored).then_some(&known.template)
        });
        let first = heard.next()?;
        heard.all(|other| other.layout() == first.layout()).then_some(first)
    }

    /// Forgets a template.
    pub(super) fn withdraw(&mut self, key: &DomainKey, id: u16) {
        let domain = self.map.peek_mut(key);
        if let Some(gone) = domain.and_then(|domain| domain.templates.remove(&id)) {
            self.books.fields = self.books.fields.saturating_sub(cost(gone.template.layout()));
            self.books.note(*key);
        }
    }

    /// Forgets every options template of a domain, or every other one; tells how many.
    pub(super) fn withdraw_all(&mut self, key: &DomainKey, options: bool) -> usize {
        let Some(domain) = self.map.peek(key) else { return 0 };
        let meant =
            domain.templates.iter().filter(|(_, k)| (k.template.layout().scope_columns() > 0) == options);
        let ids: Vec<u16> = meant.map(|(id, _)| *id).collect();
        ids.iter().for_each(|id| self.withdraw(key, *id));
        ids.len()
    }

    /// Whose they are, those used longest ago first, roughly.
    pub fn keys(&self) -> impl Iterator<Item = &DomainKey> {
        self.map.iter().map(|(key, _)| key)
    }

    /// Is anything known of the domain?
    pub fn knows(&self, key: &DomainKey) -> bool {
        self.map.peek(key).is_some()
    }

    /// Domains known.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Nothing has been heard.
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    /// Templates known, of all domains.
    pub fn templates(&self) -> usize {
        self.map.iter().map(|(_, domain)| domain.templates.len()).sum()
    }

    /// Templates of one domain, and how many of them were restored and not heard since.
    pub(super) fn templates_of(&self, key: &DomainKey) -> (usize, usize) {
        let Some(domain) = self.map.peek(key) else { return (0, 0) };
        let restored = domain.templates.iter().filter(|(_, known)| known.restored).count();
        (domain.templates.len(), restored)
    }

    /// Rates and interfaces told that there was no room for.
    pub fn refused(&self) -> u64 {
        self.books.refused
    }

    /// Templates given up at a limit so far.
    pub fn evicted(&self) -> u64 {
        self.books.evicted
    }
}

fn is_same_domain(one: &DomainKey, other: &DomainKey) -> bool {
    (one.protocol, one.domain) == (other.protocol, other.domain)
}

/// What a template counts against the limit.
fn cost(layout: &Layout) -> usize {
    layout.fields().len() + TEMPLATE_COST
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Field;
    use crate::proto::RecordKind;

    fn key_of(address: [u8; 4], port: u16) -> DomainKey {
        let exporter = Exporter { address: address.into(), port };
        DomainKey { exporter, protocol: Protocol::NetflowV9, domain: 0 }
    }

    fn key(port: u16) -> DomainKey {
        key_of([192, 0, 2, 1], port)
    }

    fn layout(element: u16) -> Layout {
        let field = Field { enterprise: 0, element, width: 4 };
        Layout::packed(RecordKind::Data, 0, false, &[field, field])
    }

    impl Domains {
        fn heard(&mut self, key: DomainKey, id: u16, layout: Layout) -> Change {
            let change = self.change(&key, id, &layout);
            match change {
                Change::Same => self.confirm(&key, id),
                Change::New | Change::Changed => self.learn(key, id, layout),
            }
            change
        }
    }

    fn weight(domains: &Domains) -> usize {
        let all = domains.map.iter().flat_map(|(_, domain)| domain.templates.iter());
        all.map(|(_, known)| cost(known.template.layout())).sum()
    }

    #[test]
    fn the_same_template_again_is_not_new() {
        let mut domains = Domains::new(Limits::default());
        assert_eq!(domains.heard(key(1), 256, layout(1)), Change::New);
        assert_eq!(domains.heard(key(1), 256, layout(1)), Change::Same);
        assert_eq!(domains.heard(key(1), 256, layout(2)), Change::Changed);
        assert_eq!((domains.templates(), domains.books.fields), (1, 2 + TEMPLATE_COST));
    }

    #[test]
    fn a_flood_stays_under_every_cap_and_spares_what_is_used() {
        let limits = Limits {
            domains: 100,
            templates_per_domain: 10,
            fields: 150 * (2 + TEMPLATE_COST) / 2,
            ..Limits::default()
        };
        let mut domains = Domains::new(limits);
        domains.heard(key(0), 256, layout(1));
        for port in 1..5_000 {
            for id in 256..290 {
                domains.heard(key(port), id, layout(id));
            }
            assert!(domains.template(&key(0), 256).is_some(), "port {port}");
            assert!(domains.len() <= 100 && domains.books.fields <= limits.fields);
            assert_eq!(domains.books.fields, weight(&domains));
            let keys: usize = domains.books.addresses.values().map(|address| address.keys.len()).sum();
            assert_eq!(keys, domains.len());
        }
    }

    #[test]
    fn withdrawals_forget_one_or_all_of_a_kind() {
        let mut domains = Domains::new(Limits::default());
        let field = Field { enterprise: 0, element: 1, width: 4 };
        for id in 256..260 {
            domains.heard(key(1), id, layout(id));
        }
        domains.heard(key(1), 300, Layout::packed(RecordKind::Options, 1, false, &[field, field]));
        domains.withdraw(&key(1), 256);
        assert_eq!(domains.templates(), 4);
        assert_eq!(domains.withdraw_all(&key(1), false), 3);
        assert_eq!(domains.withdraw_all(&key(1), true), 1);
        assert_eq!((domains.templates(), domains.books.fields), (0, 0));
    }

    #[test]
    fn another_port_lends_its_template_only_where_no_other_is_told() {
        let mut domains = Domains::new(Limits::default());
        domains.heard(key(1), 256, layout(1));
        assert!(domains.candidate(&key(2), 256).is_some());
        assert!(domains.candidate(&key(2), 257).is_none());
        let other_domain = DomainKey { domain: 1, ..key(2) };
        assert!(domains.candidate(&other_domain, 256).is_none());
        domains.heard(key(3), 256, layout(1));
        assert!(domains.candidate(&key(2), 256).is_some(), "two ports tell the same");
        domains.heard(key(3), 256, layout(2));
        assert!(domains.candidate(&key(2), 256).is_none(), "two ports tell different fields");
        domains.heard(key(3), 256, layout(1));
        assert!(domains.candidate(&key(2), 256).is_none(), "once different, never again");
    }

    #[test]
    fn no_template_is_lent_on_this_host_nor_one_that_was_restored() {
        let mut domains = Domains::new(Limits::default());
        domains.heard(key_of([127, 0, 0, 1], 1), 256, layout(1));
        assert!(domains.candidate(&key_of([127, 0, 0, 1], 2), 256).is_none());
        domains.restore(key(1), 256, layout(1));
        assert!(domains.candidate(&key(2), 256).is_none());
        assert!(domains.template(&key(1), 256).is_some_and(|known| known.restored));
        assert_eq!(domains.heard(key(1), 256, layout(1)), Change::Same);
        assert!(domains.template(&key(1), 256).is_some_and(|known| !known.restored));
        assert!(domains.candidate(&key(2), 256).is_some());
    }

    #[test]
    fn changes_are_noted_once_somebody_asks() {
        let mut domains = Domains::new(Limits { domains: 2, ..Limits::default() });
        domains.heard(key(1), 256, layout(1));
        assert!(domains.take_changed().is_empty());
        domains.note_changes();
        domains.heard(key(1), 256, layout(1));
        assert!(domains.take_changed().is_empty(), "nothing new");
        domains.heard(key(2), 256, layout(1));
        domains.heard(key(3), 256, layout(1));
        let changed = domains.take_changed();
        assert_eq!(changed, HashSet::from([key(1), key(2), key(3)]), "the one that had to go too");
    }
}
