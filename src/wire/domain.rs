//! What exporters have told, by (address, port, protocol, observation domain): a bounded table.
//!
//! A template has no age limit: some exporters send theirs once. When the table is full, `room` says which domain
//! goes; of one domain's templates those used longest ago do (`generations`). Only what tells something makes an
//! entry; data for which nothing is known does not.
//!
//! | a template is | its records |
//! |---|---|
//! | heard by this very key | as they are |
//! | restored: heard by this key before the last start, not since | used at once, marked |
//! | heard from another port of the address, no other fields ever heard for the id there, and the set fits it | used after a wait, marked provisional: [`Domains::candidate`] |

mod given_up;
mod ports;
mod room;
mod told;

use super::Limits;
use super::generations::Generations;
use super::options::DomainState;
use super::sampling::{Basis, ByRecord, NetworkRates};
use super::template::Template;
use super::track::Starts;
use crate::flow::{Exporter, Layout};
use crate::proto::Protocol;
use given_up::GivenUp;
use ports::Address;
use room::{Room, Scarce, Seat};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// What a template takes beside its fields, in fields.
pub const TEMPLATE_COST: usize = 12;

/// How much newer the last record of a domain must be to be noted, in hours: so that use alone changes little.
const USE_STEP: u32 = 6;

const HOUR_MS: u64 = 3_600_000;

/// Uses of a domain are noted once a minute, and when so small a part of the table is new since the last one.
const MINUTE_MS: u64 = 60_000;
const PART: usize = 64;

/// What comes to the same second as the first that was heard may all be forged at once.
const SECOND_MS: u64 = 1_000;

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
    /// When it last decoded a record, to [`USE_STEP`], in hours since 1970; 0 if it never has.
    used: u32,
    state: DomainState,
    /// What the state counts against the limit.
    cost: usize,
    /// When its names were last noted as told, in milliseconds.
    named_at: u64,
    /// The state is from before the last start, and nothing was told since.
    is_restored: bool,
    /// Starts that its options have told of.
    starts: Starts,
    /// What follows from it and from what others have told.
    basis: Basis,
    /// A record has named a sampler.
    names_samplers: bool,
    /// What its templates count.
    width: usize,
    /// What of that was put in since the last turn of its templates.
    heard: usize,
    /// Tells it from others of its address.
    number: u64,
    /// When it was first heard, and last used, by the clock that is never set, in milliseconds.
    made: u64,
    last: u64,
    /// Records of it have been read.
    has_read: bool,
    seat: Seat,
    /// What [`Books::entries`] was when its seat was last noted.
    noted: u64,
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

    /// When it last decoded a record, in hours since 1970; 0 if it never has.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// Records of it have been read, and it was there again later: it was not made up by one who only sends.
    fn is_read(&self) -> bool {
        self.seat.is_read || (self.has_read && self.last / SECOND_MS > self.made / SECOND_MS)
    }

    /// A template of it, for use.
    fn known(&mut self, key: &DomainKey, id: u16, books: &mut Books) -> Option<&Known> {
        self.keep(key, id, books);
        self.templates.peek(&id)
    }

    /// Notes the use of a template; others may have to go for that.
    fn keep(&mut self, key: &DomainKey, id: u16, books: &mut Books) {
        let (was_read, mut lost) = (self.is_read(), 0);
        self.templates.get(&id, &mut |id, gone: Known| {
            lost += cost(gone.template.layout());
            books.template_gone(*key, id, was_read);
        });
        if lost > 0 {
            self.width -= lost;
            books.weigh(key, self);
        }
    }

    /// Gives up the templates that were not used since the last turn; says if there were any.
    fn turn(&mut self, key: &DomainKey, books: &mut Books) -> bool {
        let (was_read, mut lost) = (self.is_read(), 0);
        self.templates.turn(&mut |id, gone| {
            lost += cost(gone.template.layout());
            books.template_gone(*key, id, was_read);
        });
        self.heard = 0;
        self.width -= lost;
        books.weigh(key, self);
        lost > 0
    }
}

/// What the records of a set are read by.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) known: &'a Known,
    pub(super) sampling: ByRecord<'a>,
    /// To be set when a record was read.
    pub(super) has_read: &'a mut bool,
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
    room: Room,
    /// Domains and templates put in so far.
    entries: u64,
    /// So many of them may pass before a use is noted again.
    step: u64,
    evicted: u64,
    given_up: GivenUp,
    /// The wall clock, in hours since 1970.
    hour: u32,
    /// A clock that is never set, in milliseconds.
    elapsed: u64,
    /// Things told that there was no room for.
    refused: u64,
    addresses: HashMap<IpAddr, Address>,
    /// Domains that are not any more as they were when this was last taken; `None` when nobody asks.
    changed: Option<HashSet<DomainKey>>,
    /// Domains whose names were told, changed or forgotten since that was last asked; `None` when nobody asks.
    named: Option<HashSet<DomainKey>>,
    /// Things that have got another name.
    renamed: u64,
}

impl Books {
    fn gone(&mut self, key: DomainKey, domain: &Domain) {
        self.room.leave(key, domain.seat);
        for (id, _) in domain.templates.iter() {
            self.template_gone(key, *id, domain.is_read());
        }
        if let Some(address) = self.addresses.get_mut(&key.exporter.address) {
            address.keys.remove(&domain.number);
            if address.keys.is_empty() {
                self.addresses.remove(&key.exporter.address);
            }
        }
        self.note(key);
        if domain.state.has_names() {
            self.note_named(key);
        }
    }

    fn template_gone(&mut self, key: DomainKey, id: u16, was_read: bool) {
        self.given_up.put((key, id), was_read);
        self.evicted += 1;
    }

    /// The domain is used.
    fn used(&mut self, key: &DomainKey, domain: &mut Domain) {
        let is_due = self.elapsed / MINUTE_MS != domain.last / MINUTE_MS
            || self.entries.saturating_sub(domain.noted) > self.step;
        domain.last = self.elapsed;
        if is_due {
            domain.noted = self.entries;
            self.room.touch(*key, &mut domain.seat);
        }
    }

    /// The domain decodes a record.
    fn decodes(&mut self, key: &DomainKey, domain: &mut Domain) {
        if self.hour.abs_diff(domain.used) >= USE_STEP {
            domain.used = self.hour;
            self.note(*key);
        }
    }

    /// What the domain counts is another.
    fn weigh(&mut self, key: &DomainKey, domain: &mut Domain) {
        self.room.weigh(*key, &mut domain.seat, domain.width + domain.cost);
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
    map: HashMap<DomainKey, Domain>,
    books: Books,
    set: NetworkRates,
    /// An address whose domains have told something that has not been worked into the basis of the others.
    stale: Option<IpAddr>,
}

impl Domains {
    pub(super) fn new(limits: Limits) -> Domains {
        Domains {
            limits,
            map: HashMap::new(),
            books: Books { step: (limits.domains / PART) as u64, ..Books::default() },
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

    /// Time has come to `received`, in milliseconds since 1970, and `elapsed` (see [`super::Arrival::elapsed`]).
    pub(super) fn advance(&mut self, received: u64, elapsed: u64) {
        self.books.hour = u32::try_from(received / HOUR_MS).unwrap_or(u32::MAX);
        self.books.elapsed = elapsed;
    }

    /// A domain that has told something. To look at it is no use of it.
    pub(super) fn peek(&self, key: &DomainKey) -> Option<&Domain> {
        self.map.get(key)
    }

    /// A domain, made if it has told nothing yet, and used.
    fn enter(&mut self, key: DomainKey) {
        let Domains { map, books, .. } = self;
        if let Some(domain) = map.get_mut(&key) {
            return books.used(&key, domain);
        }
        while self.map.len() >= self.limits.domains.max(1) && self.give_up(Scarce::Domains) {}
        let basis = self.basis(&key);
        let Domains { map, books, limits, .. } = self;
        books.entries += 1;
        let domain = Domain {
            templates: Generations::new(limits.templates_per_domain),
            used: 0,
            state: DomainState::default(),
            cost: 0,
            named_at: 0,
            is_restored: false,
            starts: Starts::default(),
            basis,
            names_samplers: false,
            width: 0,
            heard: 0,
            number: books.entries,
            made: books.elapsed,
            last: books.elapsed,
            has_read: false,
            seat: books.room.enter(key),
            noted: books.entries,
        };
        books.addresses.entry(key.exporter.address).or_default().keys.insert(domain.number, key);
        map.insert(key, domain);
    }

    /// The template that is known by the id.
    pub(super) fn template(&mut self, key: &DomainKey, id: u16) -> Option<&Known> {
        let Domains { map, books, .. } = self;
        let domain = map.get_mut(key)?;
        books.used(key, domain);
        domain.known(key, id, books)
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
        let known = self.map.get_mut(key).and_then(|domain| domain.templates.peek_mut(&id));
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

    /// A domain that was put back last decoded a record then, in hours since 1970.
    pub(super) fn was_used(&mut self, key: &DomainKey, hour: u32) {
        if let Some(domain) = self.map.get_mut(key) {
            domain.used = hour;
            self.books.room.touch(*key, &mut domain.seat);
            if hour != 0 {
                self.books.room.is_read(*key, &mut domain.seat);
            }
        }
    }

    fn insert(&mut self, key: DomainKey, id: u16, layout: Layout, restored: bool) {
        let width = cost(&layout);
        self.withdraw(&key, id);
        self.make_room(width);
        self.enter(key);
        let Domains { map, books, limits, .. } = self;
        let Some(domain) = map.get_mut(&key) else { return };
        books.entries += 1;
        books.given_up.known_again(&(key, id));
        domain.heard += width;
        if domain.heard > limits.fields / 2 {
            domain.turn(&key, books);
        }
        domain.width += width;
        let was_read = domain.is_read();
        let known = Known { template: Template::new(layout), restored };
        let mut lost = 0;
        domain.templates.insert(id, known, &mut |id, gone| {
            lost += cost(gone.template.layout());
            books.template_gone(key, id, was_read);
        });
        domain.width -= lost;
        books.weigh(&key, domain);
    }

    /// Gives up what has to go for `width` fields more.
    fn make_room(&mut self, width: usize) {
        while self.books.room.fields() + width > self.limits.fields && self.give_up(Scarce::Fields) {}
    }

    /// Gives up a domain, or templates of it that were not used lately if it is fields that are wanted. False if there
    /// is nothing more.
    fn give_up(&mut self, scarce: Scarce) -> bool {
        let Domains { map, books, limits, .. } = self;
        let limit = match scarce {
            Scarce::Domains => limits.domains,
            Scarce::Fields => limits.fields,
        };
        let Some(key) = books.room.first(scarce, limit) else { return false };
        let Some(domain) = map.get_mut(&key) else { return false };
        if domain.is_read() != domain.seat.is_read {
            books.room.is_read(key, &mut domain.seat);
            return true;
        }
        if scarce == Scarce::Fields && domain.turn(&key, books) {
            return true;
        }
        if let Some(gone) = map.remove(&key) {
            books.gone(key, &gone);
        }
        true
    }

    /// Forgets a template.
    pub(super) fn withdraw(&mut self, key: &DomainKey, id: u16) {
        let Domains { map, books, .. } = self;
        let Some(domain) = map.get_mut(key) else { return };
        if let Some(gone) = domain.templates.remove(&id) {
            domain.width -= cost(gone.template.layout());
            books.weigh(key, domain);
            books.note(*key);
        }
    }

    /// Forgets every options template of a domain, or every other one; tells how many.
    pub(super) fn withdraw_all(&mut self, key: &DomainKey, options: bool) -> usize {
        let Some(domain) = self.map.get(key) else { return 0 };
        let meant =
            domain.templates.iter().filter(|(_, k)| (k.template.layout().scope_columns() > 0) == options);
        let ids: Vec<u16> = meant.map(|(id, _)| *id).collect();
        ids.iter().for_each(|id| self.withdraw(key, *id));
        ids.len()
    }

    /// Whose they are, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &DomainKey> {
        self.map.keys()
    }

    /// Is anything known of the domain?
    pub fn knows(&self, key: &DomainKey) -> bool {
        self.map.contains_key(key)
    }

    /// When a domain last decoded a record, in hours since 1970, give or take some; 0 if it never has or is not known.
    pub fn last_used(&self, key: &DomainKey) -> u32 {
        self.map.get(key).map_or(0, Domain::used)
    }

    /// Domains known.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Nothing has been heard.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Templates known, of all domains.
    pub fn templates(&self) -> usize {
        self.map.values().map(|domain| domain.templates.len()).sum()
    }

    /// Templates of one domain, and how many of them were restored and not heard since.
    pub(super) fn templates_of(&self, key: &DomainKey) -> (usize, usize) {
        let Some(domain) = self.map.get(key) else { return (0, 0) };
        let restored = domain.templates.iter().filter(|(_, known)| known.restored).count();
        (domain.templates.len(), restored)
    }

    /// Rates and interfaces told that there was no room for.
    pub fn refused(&self) -> u64 {
        self.books.refused
    }

    /// Was a template of this id given up, not long ago, to make room for others?
    pub(super) fn was_given_up(&self, key: &DomainKey, id: u16) -> bool {
        self.books.given_up.has(&(*key, id))
    }

    /// Templates given up at a limit so far.
    pub fn evicted(&self) -> u64 {
        self.books.evicted
    }
}

/// What a template counts against the limit.
fn cost(layout: &Layout) -> usize {
    layout.fields().len() + TEMPLATE_COST
}

#[cfg(test)]
mod tests;
