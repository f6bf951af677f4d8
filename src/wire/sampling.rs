//! Which sampling rate records are subject to, and when their exporter started, by what its options records told.
//!
//! A rate in the record itself is found at the far end, and is right before these. For the others, in this order:
//!
//! | the record | its rate |
//! |---|---|
//! | names a sampler: 48 or 302, not 0 | that sampler's, never another's |
//! | names sampler 0, or has no such field | that told of sampler 0, if named; else of the sampler that is bound to its interface, or of that interface itself; else of the system; else that of the samplers, as below |
//! | is subject to none of those | the datagram header's (NetFlow v5), else the one that the operator set for its address |
//!
//! Without a field for a sampler, the samplers' rate is the one that all of them have. With one that is 0 there must be
//! a single sampler, and none may have been named by a record of the domain: some routers (Cisco 7600) write 0 for
//! their only sampler, but where others are named, 0 says that the record was not sampled. Where interfaces have rates
//! or samplers of their own, those without are not sampled either, and the samplers' rate is not theirs.
//!
//! A record's interface is the one where its packets were seen: the ingress interface (10), but the egress interface
//! (14) where the direction (61) is 1. One whose sampler's rate is not known has no other's, be it the system's.
//!
//! Several different rates of which none is meant more than another are none.
//!
//! A domain that has told no rate takes what others of its address and protocol have told: those of its port (Cisco
//! 9300 tells the rate under another source id), or if those told none, those of every port (some send options from a
//! port of their own), but not on this host, where ports are all that tells exporters apart. If two of them differ,
//! none is taken. What was restored from before the last start counts only where nothing was told since. The same holds
//! for the time of the start. All this is worked out when something is told ([`Shared`], [`Basis`]), not by record.

use super::domain::{Books, DomainKey};
use super::options::{DomainState, number};
use crate::flow::list::take_value;
use crate::flow::{Field, Layout, Run};
use crate::proto::{BootQuality, Protocol, SamplingSource};
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Samplers of one address among which one is looked for that another domain has told; at an address with more, each
/// domain has its own only.
const MOST_SHARED: usize = 1_024;

/// flowDirection (61) of a flow that was metered where it leaves.
const EGRESS: u64 = 1;

/// A sampling rate that the operator set for a network, for records whose rate is not known otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkRate {
    /// The exporters' network.
    pub network: IpNet,
    /// One packet in so many is sampled; not 0.
    pub rate: u32,
}

/// The rates that the operator set, by network; of several the smallest network's counts.
#[derive(Debug, Default)]
pub(super) struct NetworkRates {
    /// Rates by network, for each length of a prefix, longest first.
    lengths: Vec<(u8, HashMap<IpNet, u32>)>,
}

impl NetworkRates {
    pub(super) fn new(rates: &[NetworkRate]) -> NetworkRates {
        let mut by_length: BTreeMap<u8, HashMap<IpNet, u32>> = BTreeMap::new();
        for NetworkRate { network, rate } in rates {
            by_length.entry(network.prefix_len()).or_default().insert(network.trunc(), *rate);
        }
        NetworkRates { lengths: by_length.into_iter().rev().collect() }
    }

    /// The rate for an address; 0 if there is none.
    pub(super) fn of(&self, address: IpAddr) -> u32 {
        let rate = self.lengths.iter().find_map(|(length, rates)| {
            let network = IpNet::new(address, *length).ok()?;
            rates.get(&network.trunc())
        });
        rate.copied().unwrap_or(0)
    }
}

/// One value that all who tell any agree on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Agreed<T> {
    #[default]
    Untold,
    One(T),
    /// Different ones were told.
    Several,
}

impl<T: Copy + PartialEq> Agreed<T> {
    fn of(values: impl IntoIterator<Item = T>) -> Agreed<T> {
        values.into_iter().fold(Agreed::Untold, |agreed, value| agreed.and(Agreed::One(value)))
    }

    fn and(self, other: Agreed<T>) -> Agreed<T> {
        match (self, other) {
            (Agreed::Untold, any) | (any, Agreed::Untold) => any,
            (Agreed::One(one), Agreed::One(other)) if one == other => self,
            _ => Agreed::Several,
        }
    }

    /// This, or what the other has if nothing was told here.
    fn or(self, other: Agreed<T>) -> Agreed<T> {
        if matches!(self, Agreed::Untold) { other } else { self }
    }

    fn one(self) -> Option<T> {
        if let Agreed::One(value) = self { Some(value) } else { None }
    }
}

/// The rates of records of a domain that come by no interface with a rate of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rates {
    /// Of those without a field for a sampler.
    unnamed: Agreed<u32>,
    /// Of those that name sampler 0.
    zero: Agreed<u32>,
    /// Of the same, where other records name another.
    zero_beside_others: Agreed<u32>,
}

impl Rates {
    /// What one domain has told.
    fn of(state: &DomainState) -> Rates {
        let system = Agreed::of(state.rates.values().copied());
        let samplers = match state.is_by_interface() {
            false => Agreed::of(state.samplers.values().copied()),
            true => Agreed::Several,
        };
        let only = if state.samplers.len() > 1 { Agreed::Several } else { samplers };
        let zero = Agreed::of(state.samplers.get(&0).copied()).or(system);
        Rates { unnamed: system.or(samplers), zero: zero.or(only), zero_beside_others: zero }
    }

    fn and(self, other: Rates) -> Rates {
        Rates {
            unnamed: self.unnamed.and(other.unnamed),
            zero: self.zero.and(other.zero),
            zero_beside_others: self.zero_beside_others.and(other.zero_beside_others),
        }
    }

    fn or(self, other: Rates) -> Rates {
        Rates {
            unnamed: self.unnamed.or(other.unnamed),
            zero: self.zero.or(other.zero),
            zero_beside_others: self.zero_beside_others.or(other.zero_beside_others),
        }
    }
}

/// What several domains have told, where they agree.
#[derive(Clone, Debug, Default)]
struct Told {
    rates: Rates,
    samplers: BTreeMap<u64, Agreed<u32>>,
    boot_time: Agreed<u64>,
}

impl Told {
    fn add(&mut self, state: &DomainState) {
        self.rates = self.rates.and(Rates::of(state));
        for (id, rate) in &state.samplers {
            let known = self.samplers.entry(*id).or_default();
            *known = known.and(Agreed::One(*rate));
        }
        if state.boot_time != 0 {
            self.boot_time = self.boot_time.and(Agreed::One(state.boot_time));
        }
    }

    /// This, and what the other has of what was not told here.
    fn or(mut self, other: Told) -> Told {
        self.rates = self.rates.or(other.rates);
        self.boot_time = self.boot_time.or(other.boot_time);
        for (id, rate) in other.samplers {
            self.samplers.entry(id).or_insert(rate);
        }
        self
    }
}

/// What the domains of one address have told, for those of them that have told nothing.
#[derive(Debug, Default)]
pub(super) struct Shared {
    of_ports: HashMap<(Protocol, u16), Told>,
    of_protocols: HashMap<Protocol, Told>,
}

impl Shared {
    /// Of the domains given, each with whether its state was restored and nothing told since.
    pub(super) fn new<'a>(
        domains: impl Iterator<Item = (DomainKey, &'a DomainState, bool)> + Clone,
    ) -> Shared {
        let telling = domains.filter(|(_, state, _)| state.rate_count() > 0 || state.boot_time != 0);
        let samplers: usize = telling.clone().map(|(_, state, _)| state.samplers.len()).sum();
        let mut told = Shared::default();
        let mut restored = Shared::default();
        for (key, state, was_restored) in telling {
            let into = if was_restored { &mut restored } else { &mut told };
            into.of_ports.entry((key.protocol, key.exporter.port)).or_default().add(state);
            into.of_protocols.entry(key.protocol).or_default().add(state);
        }
        told.or(restored, samplers <= MOST_SHARED)
    }

    fn or(mut self, other: Shared, with_samplers: bool) -> Shared {
        for (key, restored) in other.of_ports {
            let told = self.of_ports.remove(&key).unwrap_or_default();
            self.of_ports.insert(key, told.or(restored));
        }
        for (key, restored) in other.of_protocols {
            let told = self.of_protocols.remove(&key).unwrap_or_default();
            self.of_protocols.insert(key, told.or(restored));
        }
        if !with_samplers {
            let all = self.of_ports.values_mut().chain(self.of_protocols.values_mut());
            all.for_each(|told| told.samplers.clear());
        }
        self
    }

    /// What others have told that a domain may take: of its port, then of its address.
    fn around(&self, key: &DomainKey) -> impl Iterator<Item = &Told> {
        let of_port = self.of_ports.get(&(key.protocol, key.exporter.port));
        let of_address = self.of_protocols.get(&key.protocol);
        of_port.into_iter().chain(of_address.filter(|_| !key.exporter.address.is_loopback()))
    }

    fn rates(&self, key: &DomainKey) -> Rates {
        self.around(key).fold(Rates::default(), |rates, told| rates.or(told.rates))
    }

    fn boot_time(&self, key: &DomainKey) -> Agreed<u64> {
        self.around(key).fold(Agreed::Untold, |time, told| time.or(told.boot_time))
    }

    fn sampler(&self, key: &DomainKey, id: u64) -> Option<u32> {
        self.around(key).find_map(|told| told.samplers.get(&id))?.one()
    }
}

/// What holds for a domain's records whatever is in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Basis {
    rates: Rates,
    /// The operator's; 0 for none.
    set: u32,
    /// 0 if not told.
    boot_time: u64,
    /// The domain has told rates of its own, or which samplers its interfaces have.
    has_own: bool,
    /// Some interfaces have rates or samplers of their own.
    by_interface: bool,
}

impl Basis {
    /// For the domain of this key: what it has told itself, what others of its address have, what the operator set.
    pub(super) fn new(
        key: &DomainKey,
        own: Option<&DomainState>,
        shared: Option<&Shared>,
        set: u32,
    ) -> Basis {
        let by_interface = own.is_some_and(DomainState::is_by_interface);
        let has_own = by_interface || own.is_some_and(|own| own.rate_count() > 0);
        let rates = match own.filter(|_| has_own) {
            Some(own) => Rates::of(own),
            None => shared.map(|shared| shared.rates(key)).unwrap_or_default(),
        };
        let own_boot = own.map_or(0, |own| own.boot_time);
        let boot_of_others = || shared.and_then(|shared| shared.boot_time(key).one()).unwrap_or(0);
        let boot_time = if own_boot != 0 { own_boot } else { boot_of_others() };
        Basis { rates, set, boot_time, has_own, by_interface }
    }

    /// When the exporter started, as it told; 0 if it did not.
    pub(super) fn boot_time(&self) -> u64 {
        self.boot_time
    }

    /// Puts into the run what holds for all records of a set.
    pub(super) fn apply(&self, run: &mut Run) {
        self.sample(run, self.rates.unnamed.one());
        if self.boot_time != 0 {
            run.boot_time = self.boot_time;
            run.boot_quality = BootQuality::Exporter;
        }
    }

    /// Puts the rate into the run, or what comes next if none was told.
    fn sample(&self, run: &mut Run, told: Option<u32>) {
        (run.sampling_rate, run.sampling_source) = match (told, self.set) {
            (Some(rate), _) => (rate, SamplingSource::Options),
            (None, 0) => (0, SamplingSource::Unknown),
            (None, set) => (set, SamplingSource::Static),
        };
    }
}

/// Where a template's records say how they were sampled.
#[derive(Debug, Default)]
pub(super) struct SampledBy {
    sampler: Option<usize>,
    ingress: Option<usize>,
    egress: Option<usize>,
    direction: Option<usize>,
    /// They have fields for a rate of their own.
    pub(super) carries_rate: bool,
}

impl SampledBy {
    pub(super) fn new(layout: &Layout) -> SampledBy {
        let place = |elements: &[u16]| {
            let is_one = |field: Field| field.enterprise == 0 && elements.contains(&field.element);
            layout.fields().iter().position(|placed| is_one(placed.field))
        };
        let both = |one, other| place(&[one]).is_some() && place(&[other]).is_some();
        SampledBy {
            sampler: place(&[48, 302]),
            ingress: place(&[10]),
            egress: place(&[14]),
            direction: place(&[61]),
            carries_rate: place(&[34]).is_some() || both(305, 306) || both(309, 310),
        }
    }

    fn names_interface(&self) -> bool {
        self.ingress.is_some() || self.egress.is_some()
    }

    /// They have a field that names a sampler.
    pub(super) fn names_sampler(&self) -> bool {
        self.sampler.is_some()
    }
}

/// Finds the rate of each record of a set.
#[derive(Debug)]
pub(super) struct ByRecord<'a> {
    pub(super) key: &'a DomainKey,
    pub(super) basis: &'a Basis,
    pub(super) own: Option<&'a DomainState>,
    pub(super) books: &'a Books,
    /// A record of the domain has named a sampler; set when one does.
    pub(super) names_samplers: &'a mut bool,
}

impl ByRecord<'_> {
    /// Is there anything in the records that decides it?
    pub(super) fn is_needed(&self, by: &SampledBy) -> bool {
        by.sampler.is_some() || (self.basis.by_interface && by.names_interface())
    }

    /// The bytes that decide a record's rate: of its sampler and its interface.
    pub(super) fn deciding<'r>(&self, layout: &Layout, by: &SampledBy, row: &'r [u8]) -> [&'r [u8]; 2] {
        let of = |place: Option<usize>| place.and_then(|place| value(layout, row, place)).unwrap_or_default();
        let interface = match self.basis.by_interface {
            true if number(of(by.direction)) == Some(EGRESS) => of(by.egress),
            true => of(by.ingress),
            false => &[],
        };
        [of(by.sampler), interface]
    }

    /// Puts the rate that these bytes decide into the run.
    pub(super) fn apply(&mut self, run: &mut Run, [sampler, interface]: [&[u8]; 2]) {
        let told = match number(sampler) {
            Some(id) if id != 0 => {
                *self.names_samplers = true;
                self.sampler(id)
            }
            zero => self.of_interface(interface, zero.is_some()),
        };
        self.basis.sample(run, told);
    }

    fn sampler(&self, id: u64) -> Option<u32> {
        match self.own.filter(|own| !own.samplers.is_empty()) {
            Some(own) => own.samplers.get(&id).copied(),
            None => self.books.shared(self.key)?.sampler(self.key, id),
        }
    }

    /// The rate of a record that names no sampler, or 0.
    fn of_interface(&self, interface: &[u8], is_zero: bool) -> Option<u32> {
        let own = self.own.filter(|_| self.basis.has_own);
        let zero = own.and_then(|own| own.samplers.get(&0)).filter(|_| is_zero);
        let interface = number(interface).and_then(|interface| u32::try_from(interface).ok());
        let of_interface = || own?.interface_rates.get(&interface?).copied();
        // Where others are named, 0 says that the record is not the sampler's that is on the interface.
        let bound = || own?.interface_samplers.get(&interface?).filter(|_| !is_zero || !*self.names_samplers);
        let found = match zero {
            Some(zero) => Some(*zero),
            None => match bound() {
                Some(id) => return self.sampler(*id).or_else(of_interface),
                None => of_interface(),
            },
        };
        found.or_else(|| match is_zero {
            true if *self.names_samplers => self.basis.rates.zero_beside_others.one(),
            true => self.basis.rates.zero.one(),
            false => self.basis.rates.unnamed.one(),
        })
    }
}

/// The value of a field of a row.
fn value<'r>(layout: &Layout, mut row: &'r [u8], place: usize) -> Option<&'r [u8]> {
    if layout.stride().is_some() {
        let placed = layout.fields().get(place)?;
        return row.get(placed.offset..)?.get(..usize::from(placed.field.width));
    }
    let before = layout.fields().get(..=place)?.iter();
    before.fold(None, |_, placed| take_value(&mut row, placed.field.width))
}

#[cfg(test)]
mod tests;
