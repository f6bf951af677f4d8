//! What domains tell in options records: into their state, and from there into the basis of their records and of those
//! of the other domains of their address.

use super::ports::MOST_PORTS;
use super::{Books, Domain, DomainKey, Domains, Reading};
use crate::flow::{Layout, Run};
use crate::proto::SamplingSource;
use crate::wire::options::{DomainState, Outcome, Reader};
use crate::wire::sampling::{Basis, ByRecord, NetworkRate, NetworkRates, Shared};

impl Books {
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

    /// Takes over what options records of a domain tell.
    pub(in crate::wire) fn tell<'r>(
        &mut self,
        key: &DomainKey,
        reader: &Reader,
        layout: &Layout,
        rows: impl Iterator<Item = &'r [u8]>,
    ) {
        // The templates need the other half: over TCP they do not come again.
        let most_named = self.limits.fields / 2;
        let Some(domain) = self.map.get_mut(key) else { return };
        let mut sum =
            Outcome { sampling_changed: std::mem::take(&mut domain.is_restored), ..Outcome::default() };
        for row in rows {
            let outcome = reader.read(layout, row, &mut domain.state, &mut domain.cost, most_named);
            sum.changed |= outcome.changed;
            sum.sampling_changed |= outcome.sampling_changed;
            self.books.refused += u64::from(outcome.refused);
        }
        self.has_told(key, sum);
    }

    /// Puts back what a domain told before the last start.
    pub(in crate::wire) fn restore_state(&mut self, key: DomainKey, state: DomainState) {
        self.enter(key);
        let Some(domain) = self.map.get_mut(&key) else { return };
        (domain.cost, domain.state, domain.is_restored) = (state.cost(), state, true);
        // It is kept as it is: nothing has changed.
        self.has_told(&key, Outcome { sampling_changed: true, ..Outcome::default() });
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
