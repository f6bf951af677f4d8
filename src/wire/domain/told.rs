//! What domains tell in options records: into their state, and from there into the basis of their records and of those
//! of the other domains of their address.

use super::ports::MOST_PORTS;
use super::{Books, Domain, DomainKey, Domains, Reading};
use crate::flow::{Exporter, Layout, Run};
use crate::proto::{BootQuality, SamplingSource};
use crate::wire::options::{DomainState, Outcome, Reader, Room};
use crate::wire::sampling::{Basis, ByRecord, NetworkRate, NetworkRates, Shared};
use std::collections::HashSet;

/// Names that are told again as they are known are told of so often, in milliseconds.
const NAMED_INTERVAL: u64 = 60_000;

impl Books {
    /// Other names are known of the domain, or known from later on.
    pub(super) fn note_named(&mut self, key: DomainKey) {
        if let Some(named) = &mut self.named {
            named.insert(key);
        }
    }

    /// What the domains of the key's address have told.
    pub(in crate::wire) fn shared(&self, key: &DomainKey) -> Option<&Shared> {
        self.addresses.get(&key.exporter.address)?.shared.as_ref()
    }
}

impl Domains {
    /// Takes the rates that the operator set.
    pub(in crate::wire) fn set_rates(&mut self, rates: &[NetworkRate]) {
        self.set = NetworkRates::new(rates);
    }

    /// The template that is known by the id, and what rates its records may have.
    pub(in crate::wire) fn reading<'a>(&'a mut self, key: &'a DomainKey, id: u16) -> Option<Reading<'a>> {
        let Domains { map, books, .. } = self;
        let domain = map.get_mut(key)?;
        books.used(key, domain);
        domain.keep(key, id, books);
        if domain.templates.peek(&id).is_some() {
            books.decodes(key, domain);
        }
        let Domain { templates, state, basis, names_samplers, has_read, .. } = domain;
        let known = templates.peek(&id)?;
        let sampling = ByRecord { key, basis, own: Some(state), books, names_samplers };
        Some(Reading { known, sampling, has_read })
    }

    /// What holds for records of a key, whether or not it has told anything.
    pub(in crate::wire) fn basis(&self, key: &DomainKey) -> Basis {
        let own = self.map.get(key).map(|domain| &domain.state);
        Basis::new(key, own, self.books.shared(key), self.set.of(key.exporter.address))
    }

    /// Puts the sampling rate into the run that the operator set, if it has none yet.
    pub(in crate::wire) fn rate_set(&self, run: &mut Run) {
        let set = if run.sampling_rate == 0 { self.set.of(run.exporter.address) } else { 0 };
        if set != 0 {
            (run.sampling_rate, run.sampling_source) = (set, SamplingSource::Static);
        }
    }

    /// How to find the rates of records of a key that may have told nothing.
    pub(in crate::wire) fn sampling<'a>(
        &'a self,
        key: &'a DomainKey,
        basis: &'a Basis,
        names_samplers: &'a mut bool,
    ) -> ByRecord<'a> {
        let own = self.map.get(key).map(|domain| &domain.state);
        ByRecord { key, basis, own, books: &self.books, names_samplers }
    }

    /// Takes over what options records of a domain tell; says whether its exporter has started anew by that.
    pub(in crate::wire) fn tell<'r>(
        &mut self,
        key: &DomainKey,
        run: &Run,
        reader: &Reader,
        layout: &Layout,
        rows: impl Iterator<Item = &'r [u8]>,
    ) -> bool {
        // The templates need the other half: over TCP they do not come again.
        let room = Room { most_cost: self.limits.fields / 2, now: self.mark() };
        let was_restored =
            self.map.get_mut(key).is_some_and(|domain| std::mem::take(&mut domain.is_restored));
        let mut has_restarted = was_restored && self.heard_again(key, run);
        let Some(domain) = self.map.get_mut(key) else { return has_restarted };
        let mut sum = Outcome { sampling_changed: was_restored, ..Outcome::default() };
        for row in rows {
            let outcome = reader.read(layout, row, &mut domain.state, &mut domain.cost, room);
            self.books.refused += u64::from(outcome.refused);
            sum.add(outcome);
        }
        self.books.renamed += u64::from(sum.renamed);
        if sum.named && run.boot_quality == BootQuality::Header {
            domain.state.named_after(run.boot_time);
        }
        self.has_told(key, sum);
        let elapsed = self.books.elapsed;
        let starts = self.map.get_mut(key).map(|domain| &mut domain.starts);
        if sum.restarted && starts.is_some_and(|starts| starts.believes(elapsed)) {
            self.restarted(key.exporter);
            has_restarted = true;
        }
        has_restarted
    }

    /// The time as a mark, in milliseconds from 1 on: 0 stands for never.
    fn mark(&self) -> u64 {
        self.books.elapsed + 1
    }

    /// An exporter has started anew: what its numbers stood for they may not stand for any more, unless it has said so
    /// since.
    pub(in crate::wire) fn restarted(&mut self, exporter: Exporter) {
        let now = self.mark();
        let Domains { map, books, .. } = self;
        let Some(address) = books.addresses.get(&exporter.address) else { return };
        let keys: Vec<DomainKey> =
            address.keys.values().filter(|key| key.exporter == exporter).copied().collect();
        for key in keys {
            let Some(domain) = map.get_mut(&key).filter(|domain| domain.state.has_names()) else { continue };
            // Whoever was told of the start asks anew for what holds.
            books.note_named(key);
            if domain.state.restarted(now, &mut domain.cost) {
                books.weigh(&key, domain);
                books.note(key);
            }
        }
    }

    /// The first datagram of a domain since our start may say when its exporter started: was that between?
    pub(in crate::wire) fn heard_again(&mut self, key: &DomainKey, run: &Run) -> bool {
        let says = run.boot_quality == BootQuality::Header;
        let restarted = says && self.map.get(key).is_some_and(|domain| domain.state.is_before(run.boot_time));
        if restarted {
            self.restarted(key.exporter);
        }
        restarted
    }

    /// Notes from now on of which domains other names are known, for [`Domains::take_named`].
    pub(in crate::wire) fn note_names(&mut self) {
        self.books.named.get_or_insert_default();
    }

    /// The domains of which other names are known than when this was last taken, or known from later on; gone ones
    /// among them.
    pub(in crate::wire) fn take_named(&mut self) -> HashSet<DomainKey> {
        self.books.named.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// How many things have got another name since this was last asked.
    pub(in crate::wire) fn take_renamed(&mut self) -> u64 {
        std::mem::take(&mut self.books.renamed)
    }

    /// Puts back what a domain told before the last start.
    pub(in crate::wire) fn restore_state(&mut self, key: DomainKey, state: DomainState) {
        self.enter(key);
        let Some(domain) = self.map.get_mut(&key) else { return };
        (domain.cost, domain.state, domain.is_restored) = (state.cost(), state, true);
        // It is kept as it is: nothing has changed.
        self.has_told(&key, Outcome { sampling_changed: true, ..Outcome::default() });
        self.books.note_named(key);
        self.settle();
    }

    /// Keeps the books after a domain's state has changed.
    fn has_told(&mut self, key: &DomainKey, outcome: Outcome) {
        let Some(domain) = self.map.get_mut(key) else { return };
        if outcome.sampling_changed {
            let set = self.set.of(key.exporter.address);
            domain.basis = Basis::new(key, Some(&domain.state), self.books.shared(key), set);
            self.stale = Some(key.exporter.address);
        }
        if outcome.changed {
            self.books.note(*key);
        }
        let is_due = self.books.elapsed.saturating_sub(domain.named_at) >= NAMED_INTERVAL;
        if outcome.changed || outcome.named && is_due {
            domain.named_at = self.books.elapsed;
            self.books.note_named(*key);
        }
        self.books.weigh(key, domain);
        self.make_room(0);
    }

    /// Works what a domain of an address has told into the basis of the others.
    pub(in crate::wire) fn settle(&mut self) {
        let Some(ip) = self.stale.take() else { return };
        let Some(address) = self.books.addresses.get_mut(&ip) else { return };
        let is_crowd = address.keys.len() > MOST_PORTS;
        if is_crowd && address.shared.is_none() {
            return; // Each goes by what it has told itself, as before.
        }
        address.shared = None;
        if !is_crowd {
            let told = address.keys.values().filter_map(|key| {
                let domain = self.map.get(key)?;
                Some((*key, &domain.state, domain.is_restored))
            });
            address.shared = Some(Shared::new(told));
        }
        let set = self.set.of(ip);
        for key in address.keys.values() {
            if let Some(domain) = self.map.get_mut(key) {
                domain.basis = Basis::new(key, Some(&domain.state), address.shared.as_ref(), set);
            }
        }
    }

    /// What a domain has told, and what follows from that.
    pub(in crate::wire) fn state(&self, key: &DomainKey) -> Option<(&DomainState, &Basis)> {
        self.map.get(key).map(|domain| (&domain.state, &domain.basis))
    }
}
