//! What options records tell: sampling rates, when the exporter started, what its interfaces are called.
//!
//! Which fields of an options template tell something is worked out once, when it is compiled ([`Reader`]). What its
//! records tell becomes part of the state of their domain ([`DomainState`]), where `sampling.rs` finds it.
//!
//! | in the record | told |
//! |---|---|
//! | a rate: 34, 50, (305 + 306) / 305, 310 / 309, the first that is there and not 0 | by what comes next |
//! | ... and a sampler's id: 48, 302 | the sampler's |
//! | a sampler's id and an interface, with or without a rate | which sampler is on the interface |
//! | ... the id is 0, and no sampler 0 was told | that none is |
//! | ... else an interface: 10, 14, NetFlow v9's scope Interface | the interface's |
//! | ... else | of what the scope says: the system, or a part of it such as a line card |
//! | 160 | when the exporter started |
//! | 82, 83, and an interface | its name and description |
//! | 96, 94, and an application: 95 | its name and description |
//! | 236, and a VRF: 234, 235 | its name |
//! | 84, 335, and a sampler's id | its name |
//!
//! Numbers may have any width up to 8 bytes; 0 and empty text tell nothing, but for a rate: where the fields for it
//! are 0, the rate told before is taken back. What is told replaces what was told of the same thing; when there are too
//! many things, new ones are refused, and counted. Another name takes the description with it. A start of the exporter
//! takes the names of interfaces and VRFs back: they may have other numbers now.

mod names;

pub use names::{ApplicationId, Text};

pub(super) use names::Room;

use crate::flow::list::take_value;
use crate::flow::{Field, Layout};
use names::MOST_INTERFACES;
use std::collections::BTreeMap;

/// Samplers of one domain.
const MOST_SAMPLERS: usize = 256;
/// Parts of one domain's system with a rate.
const MOST_PARTS: usize = 64;
/// NetFlow v9's scope types (RFC 3954 6.1).
const SCOPE_SYSTEM: u16 = 1;
const SCOPE_INTERFACE: u16 = 2;
/// Scopes that are the exporter as a whole, whatever their value: its addresses, and the exporting process.
const WHOLE: [u16; 3] = [130, 131, 144];

/// What one domain has told in options records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainState {
    /// Sampling rates by sampler id: one packet in so many.
    pub samplers: BTreeMap<u64, u32>,
    /// Sampling rates by interface.
    pub interface_rates: BTreeMap<u32, u32>,
    /// Ids of samplers by the interface that they are bound to; their rates, if told, are among those of samplers.
    pub interface_samplers: BTreeMap<u32, u64>,
    /// Sampling rates of the system or parts of it, by a number made of their scope.
    pub rates: BTreeMap<u64, u32>,
    /// When the exporter started, in milliseconds since 1970; 0 if it did not tell.
    pub boot_time: u64,
    /// Interfaces by number (SNMP's ifIndex).
    pub interfaces: BTreeMap<u32, Text>,
    /// Applications by the id that stands for them in records.
    pub applications: BTreeMap<ApplicationId, Text>,
    /// Names of VRFs by id.
    pub vrfs: BTreeMap<u32, Text>,
    /// Names of samplers by id.
    pub sampler_names: BTreeMap<u64, Text>,
    /// When the exporter had started that told the names, as its header says, in milliseconds since 1970; 0 if that
    /// does not say.
    pub named_boot: u64,
}

/// What is told counts like fields of templates, some 20 bytes each. A rate may stand in the tables of its address too.
const RATE_COST: usize = 6;

/// What came of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The state is not as it was.
    pub(super) changed: bool,
    /// What rates and times follow from is not as it was.
    pub(super) sampling_changed: bool,
    /// There was no room for it.
    pub(super) refused: bool,
    /// It told a name, be it known.
    pub(super) named: bool,
    /// How many things have another name than before.
    pub(super) renamed: u32,
    /// By it the exporter has started anew.
    pub(super) restarted: bool,
}

impl Outcome {
    pub(super) fn add(&mut self, other: Outcome) {
        self.changed |= other.changed;
        self.sampling_changed |= other.sampling_changed;
        self.refused |= other.refused;
        self.named |= other.named;
        self.renamed += other.renamed;
        self.restarted |= other.restarted;
    }
}

impl DomainState {
    /// What it counts against the limit of the table of domains.
    pub(super) fn cost(&self) -> usize {
        let rates = self.rate_count() + self.interface_samplers.len();
        rates * RATE_COST + self.names_cost()
    }

    /// How many rates it has.
    pub(super) fn rate_count(&self) -> usize {
        self.samplers.len() + self.interface_rates.len() + self.rates.len()
    }

    /// Have interfaces rates or samplers of their own, so that what samplers have is not everyone's?
    pub(super) fn is_by_interface(&self) -> bool {
        !self.interface_rates.is_empty() || !self.interface_samplers.is_empty()
    }

    /// How many things it has told, beside the time of the start.
    fn len(&self) -> usize {
        self.rate_count() + self.interface_samplers.len() + self.names_len()
    }

    /// Takes out what no record could have told: how many things that were.
    pub(super) fn check(&mut self) -> usize {
        let before = self.len();
        check(&mut self.samplers, MOST_SAMPLERS, |rate| *rate != 0);
        check(&mut self.interface_rates, MOST_INTERFACES, |rate| *rate != 0);
        self.interface_samplers.remove(&0);
        check(&mut self.interface_samplers, MOST_INTERFACES, |_| true);
        check(&mut self.rates, MOST_PARTS, |rate| *rate != 0);
        self.check_names();
        before - self.len()
    }

    /// Takes over what a record told, and keeps `cost` what [`DomainState::cost`] gives.
    fn tell(&mut self, told: &Told<'_>, cost: &mut usize, room: Room) -> Outcome {
        let mut outcome = match told.change() {
            None => Outcome::default(),
            Some(rate) => match (told.sampler, told.interface) {
                (Some(sampler), _) => set(&mut self.samplers, MOST_SAMPLERS, sampler, rate, cost),
                (None, Some(interface)) => {
                    set(&mut self.interface_rates, MOST_INTERFACES, interface, rate, cost)
                }
                (None, None) => set(&mut self.rates, MOST_PARTS, told.scope.0, rate, cost),
            },
        };
        if let (Some(sampler), Some(interface)) = (told.sampler, told.interface) {
            let id = Some(sampler).filter(|id| *id != 0 || self.samplers.contains_key(id));
            outcome.add(set(&mut self.interface_samplers, MOST_INTERFACES, interface, id, cost));
        }
        if told.boot != 0 && told.boot != self.boot_time {
            outcome.restarted =
                self.boot_time != 0 && told.boot > self.boot_time.saturating_add(names::BOOT_SLACK);
            self.boot_time = told.boot;
            (outcome.changed, outcome.sampling_changed) = (true, true);
        }
        outcome.add(self.name(told, cost, room));
        outcome
    }
}

fn check<K: Ord, V>(map: &mut BTreeMap<K, V>, most: usize, is_sound: impl Fn(&V) -> bool) {
    let mut left = most;
    map.retain(|_, value| {
        let keeps = left > 0 && is_sound(value);
        left -= usize::from(keeps);
        keeps
    });
}

/// Puts in what was told for the key, or takes out what it had.
fn set<K: Ord, V: PartialEq>(
    map: &mut BTreeMap<K, V>,
    most: usize,
    key: K,
    told: Option<V>,
    cost: &mut usize,
) -> Outcome {
    let Some(value) = told else {
        let changed = map.remove(&key).is_some();
        *cost = cost.saturating_sub(if changed { RATE_COST } else { 0 });
        return Outcome { changed, sampling_changed: changed, ..Outcome::default() };
    };
    let is_full = map.len() >= most;
    if let Some(known) = map.get_mut(&key) {
        let changed = *known != value;
        *known = value;
        return Outcome { changed, sampling_changed: changed, ..Outcome::default() };
    }
    if is_full {
        return Outcome { refused: true, ..Outcome::default() };
    }
    map.insert(key, value);
    *cost += RATE_COST;
    Outcome { changed: true, sampling_changed: true, ..Outcome::default() }
}

/// What a field of an options record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Nothing of interest here.
    Other,
    /// What the record is about, beside an interface or sampler.
    Scope(u16),
    Sampler,
    Interface,
    Interval,
    RandomInterval,
    PacketInterval,
    PacketSpace,
    Size,
    Population,
    Boot,
    Name,
    Description,
    Application,
    ApplicationName,
    ApplicationDescription,
    Vrf,
    VrfName,
    SamplerName,
}

impl Role {
    fn of(field: Field) -> Role {
        if field.enterprise != 0 {
            return Role::Other;
        }
        match field.element {
            10 | 14 => Role::Interface,
            34 => Role::Interval,
            48 | 302 => Role::Sampler,
            50 => Role::RandomInterval,
            82 => Role::Name,
            83 => Role::Description,
            84 | 335 => Role::SamplerName,
            94 => Role::ApplicationDescription,
            95 => Role::Application,
            96 => Role::ApplicationName,
            160 => Role::Boot,
            234 | 235 => Role::Vrf,
            236 => Role::VrfName,
            305 => Role::PacketInterval,
            306 => Role::PacketSpace,
            309 => Role::Size,
            310 => Role::Population,
            _ => Role::Other,
        }
    }

    fn of_scope(field: Field, is_v9: bool) -> Role {
        match (is_v9, field.element, Role::of(field)) {
            (true, SCOPE_INTERFACE, _) => Role::Interface,
            // Some exporters of NetFlow v9 put elements where scope types belong.
            (_, _, role @ (Role::Interface | Role::Sampler | Role::Application | Role::Vrf)) => role,
            (_, element, _) => Role::Scope(element),
        }
    }

    /// Is there no rate where this is 0?
    fn is_of_rate(self) -> bool {
        use Role::{Interval, PacketInterval, Population, RandomInterval, Size};
        matches!(self, Interval | RandomInterval | PacketInterval | Size | Population)
    }

    /// Does a template with this field tell anything, whatever its others are?
    fn tells(self) -> bool {
        !matches!(
            self,
            Role::Other | Role::Scope(_) | Role::Sampler | Role::Interface | Role::Application | Role::Vrf
        )
    }
}

/// Reads the records of one options template.
#[derive(Debug)]
pub(super) struct Reader {
    /// Of each field.
    roles: Vec<Role>,
    is_v9: bool,
}

impl Reader {
    /// A reader for records of this layout; `None` if they tell nothing.
    pub(super) fn new(layout: &Layout) -> Option<Reader> {
        let is_v9 = layout.v9_scopes();
        let roles = layout.fields().iter().enumerate().map(|(place, placed)| {
            if place < layout.scope_columns() {
                Role::of_scope(placed.field, is_v9)
            } else {
                Role::of(placed.field)
            }
        });
        let roles: Vec<Role> = roles.collect();
        let binds = roles.contains(&Role::Sampler) && roles.contains(&Role::Interface);
        (binds || roles.iter().any(|role| role.tells())).then_some(Reader { roles, is_v9 })
    }

    /// Takes over what the record in `row` tells; keeps `cost` the state's. What is not named yet may be
    /// refused a name: see [`Room`].
    pub(super) fn read(
        &self,
        layout: &Layout,
        mut row: &[u8],
        state: &mut DomainState,
        cost: &mut usize,
        room: Room,
    ) -> Outcome {
        let mut told = Told::default();
        for (placed, role) in layout.fields().iter().zip(&self.roles) {
            let Some(value) = take_value(&mut row, placed.field.width) else { break };
            told.take(*role, value, self.is_v9);
        }
        state.tell(&told, cost, room)
    }
}

/// What one record tells.
#[derive(Debug, Default)]
struct Told<'a> {
    sampler: Option<u64>,
    interface: Option<u32>,
    scope: Scope,
    interval: u64,
    random_interval: u64,
    packet_interval: u64,
    packet_space: u64,
    /// There is a field for the space, be it 0.
    tells_space: bool,
    /// A field for a rate is there, and 0.
    tells_no_rate: bool,
    size: u64,
    population: u64,
    boot: u64,
    name: &'a [u8],
    description: &'a [u8],
    /// As it stands in records; empty if there is none.
    application: &'a [u8],
    application_name: &'a [u8],
    application_description: &'a [u8],
    vrf: Option<u32>,
    vrf_name: &'a [u8],
    sampler_name: &'a [u8],
}

impl<'a> Told<'a> {
    /// Takes a field's value. Of several fields with the same role the first that is not 0 counts.
    fn take(&mut self, role: Role, value: &'a [u8], is_v9: bool) {
        let told = || number(value).filter(|number| *number != 0);
        let slot = match role {
            Role::Other => return,
            Role::Scope(element) => {
                let is_whole = if is_v9 { element == SCOPE_SYSTEM } else { WHOLE.contains(&element) };
                return self.scope.add(element, if is_whole { &[] } else { value });
            }
            Role::Sampler => {
                self.sampler = self.sampler.filter(|id| *id != 0).or_else(|| number(value));
                return;
            }
            Role::Interface => {
                self.interface = self.interface.or(told().and_then(|number| number.try_into().ok()));
                return;
            }
            Role::Name => return take_text(&mut self.name, value),
            Role::Description => return take_text(&mut self.description, value),
            Role::Application => return take_text(&mut self.application, value),
            Role::ApplicationName => return take_text(&mut self.application_name, value),
            Role::ApplicationDescription => return take_text(&mut self.application_description, value),
            Role::Vrf => {
                self.vrf = self.vrf.or(number(value).and_then(|number| number.try_into().ok()));
                return;
            }
            Role::VrfName => return take_text(&mut self.vrf_name, value),
            Role::SamplerName => return take_text(&mut self.sampler_name, value),
            Role::Interval => &mut self.interval,
            Role::RandomInterval => &mut self.random_interval,
            Role::PacketInterval => &mut self.packet_interval,
            Role::PacketSpace => {
                self.tells_space = true;
                &mut self.packet_space
            }
            Role::Size => &mut self.size,
            Role::Population => &mut self.population,
            Role::Boot => &mut self.boot,
        };
        if *slot == 0 {
            *slot = told().unwrap_or(0);
            self.tells_no_rate |= role.is_of_rate() && number(value) == Some(0);
        }
    }

    /// What the record says of a rate: `Some(None)` takes back what was told before.
    fn change(&self) -> Option<Option<u32>> {
        let rate = self.rate();
        (rate.is_some() || self.tells_no_rate).then_some(rate)
    }

    /// One packet in so many.
    fn rate(&self) -> Option<u32> {
        let whole = [self.interval, self.random_interval].into_iter().find(|rate| *rate != 0);
        let spaced = || {
            let packets = u128::from(self.packet_interval) + u128::from(self.packet_space);
            nearest(packets, self.packet_interval).filter(|_| self.tells_space)
        };
        let drawn = || nearest(u128::from(self.population), self.size);
        let rate = whole.or_else(spaced).or_else(drawn)?;
        u32::try_from(rate).ok().filter(|rate| *rate != 0)
    }
}

/// The quotient, to the nearest whole number.
fn nearest(whole: u128, part: u64) -> Option<u64> {
    let part = u128::from(part);
    ((whole + part / 2).checked_div(part)?).try_into().ok()
}

fn take_text<'a>(slot: &mut &'a [u8], value: &'a [u8]) {
    if slot.is_empty() {
        *slot = value;
    }
}

/// An unsigned number of any width; `None` if it is more than 64 bits can hold, or nothing.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    let significant = value.iter().position(|byte| *byte != 0).map_or(0, |zeros| value.len() - zeros);
    if value.is_empty() || significant > 8 {
        return None;
    }
    Some(value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// A number for what a scope says: equal scopes have equal ones, in every release.
#[derive(Clone, Copy, Debug)]
struct Scope(u64);

impl Default for Scope {
    fn default() -> Scope {
        Scope(0xcbf2_9ce4_8422_2325)
    }
}

impl Scope {
    /// FNV-1a, 64 bits.
    fn add(&mut self, element: u16, value: &[u8]) {
        for byte in element.to_be_bytes().iter().chain(value) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::RecordKind;
    use proptest::prelude::*;

    /// A layout of options records and what reads them.
    fn reader(is_v9: bool, scope: usize, fields: &[(u16, u16)]) -> (Layout, Reader) {
        let fields: Vec<Field> =
            fields.iter().map(|&(element, width)| Field { enterprise: 0, element, width }).collect();
        let layout = Layout::packed(RecordKind::Options, scope, is_v9, &fields);
        let reader = Reader::new(&layout).unwrap();
        (layout, reader)
    }

    fn tell(state: &mut DomainState, (layout, reader): &(Layout, Reader), row: &[u8]) -> Outcome {
        let mut cost = state.cost();
        let room = Room { most_cost: usize::MAX, now: 1 };
        let outcome = reader.read(layout, row, state, &mut cost, room);
        assert_eq!(cost, state.cost());
        outcome
    }

    fn names(state: &DomainState) -> Vec<(u32, &str, &str)> {
        state.interfaces.iter().map(|(index, text)| (*index, &*text.name, &*text.description)).collect()
    }

    #[test]
    fn quirk_72_interfaces_are_told_by_scope_or_by_element() {
        let mut state = DomainState::default();
        let by_v9_scope = reader(true, 1, &[(2, 4), (82, 4), (83, 4)]);
        assert!(tell(&mut state, &by_v9_scope, b"\0\0\0\x03eth0up\0\0").changed);
        assert!(!tell(&mut state, &by_v9_scope, b"\0\0\0\x03eth0up\0\0").changed, "it is known");
        let by_scope = reader(false, 1, &[(10, 4), (82, Field::VARIABLE)]);
        assert!(tell(&mut state, &by_scope, b"\0\0\x01\x04\x03lo1").changed);
        // As IOS-XR does: a system, and the interface beside the names.
        let by_element = reader(true, 1, &[(1, 4), (14, 2), (83, 3)]);
        assert!(tell(&mut state, &by_element, b"\0\0\0\0\0\x05abc").changed);
        assert!(tell(&mut state, &by_element, b"\0\0\0\0\0\x03xyz").changed);
        assert_eq!(names(&state), [(3, "eth0", "xyz"), (5, "", "abc"), (260, "lo1", "")]);
        assert_eq!(tell(&mut state, &by_element, b"\0\0\0\0\0\0abc"), Outcome::default(), "no interface");
        assert_eq!(tell(&mut state, &by_element, b"\0\0\0\0\0\x07\0bc"), Outcome::default(), "no text");
        assert_eq!(state.interfaces.len(), 3);
    }

    #[test]
    fn applications_vrfs_and_samplers_have_names() {
        let mut state = DomainState::default();
        let applications = reader(true, 1, &[(1, 4), (95, 4), (96, 6), (94, 8)]);
        assert!(tell(&mut state, &applications, b"\0\0\0\0\x01\0\0\x08egp\0\0\0exterior").changed);
        let vrfs = reader(false, 1, &[(234, 4), (236, 8), (234, 4), (235, 4)]);
        assert!(tell(&mut state, &vrfs, b"\x60\0\0\x01default\0\x60\0\0\x01\x60\0\0\x01").changed);
        let samplers = reader(false, 1, &[(302, 4), (84, 8), (310, 4), (309, 4)]);
        assert!(tell(&mut state, &samplers, b"\0\0\0\x07sampler \0\0\0\x0a\0\0\0\x01").changed);
        let id: ApplicationId = [1, 0, 0, 8].into();
        assert_eq!(state.applications[&id], Text::kept("egp", "exterior"));
        assert_eq!(state.vrfs[&0x6000_0001], Text::kept("default", ""));
        assert_eq!((&state.sampler_names[&7], state.samplers[&7]), (&Text::kept("sampler", ""), 10));
        assert_eq!(state.check(), 0);
    }

    #[test]
    fn another_name_takes_the_description_with_it() {
        let mut state = DomainState::default();
        let both = reader(false, 1, &[(10, 1), (82, 4), (83, 6)]);
        let name = reader(false, 1, &[(10, 1), (82, 4)]);
        tell(&mut state, &both, b"\x01eth0uplink");
        assert_eq!(tell(&mut state, &name, b"\x01eth0").renamed, 0);
        assert_eq!(names(&state), [(1, "eth0", "uplink")]);
        assert_eq!(tell(&mut state, &name, b"\x01eth9").renamed, 1);
        assert_eq!(names(&state), [(1, "eth9", "")]);
    }

    #[test]
    fn long_text_is_cut_and_wrong_text_is_marked() {
        let mut state = DomainState::default();
        let of = reader(false, 1, &[(10, 1), (82, 600)]);
        let row = [&[1][..], "é".repeat(300).as_bytes()].concat();
        assert!(tell(&mut state, &of, &row).changed);
        assert!(!tell(&mut state, &of, &row).changed);
        assert_eq!(*state.interfaces[&1].name, "é".repeat(128));
        assert!(tell(&mut state, &of, &[[2].as_slice(), &[0xff; 600]].concat()).changed);
        assert!(state.interfaces[&2].name.len() <= names::MOST_TEXT);
        assert!(state.interfaces[&2].name.starts_with('\u{fffd}'));
    }

    #[test]
    fn a_domain_tells_no_more_than_its_tables_hold() {
        let mut state = DomainState::default();
        let samplers = reader(false, 1, &[(144, 1), (48, 4), (50, 4)]);
        let interfaces = reader(false, 1, &[(10, 4), (82, 8), (34, 4)]);
        let parts = reader(false, 1, &[(141, 4), (34, 4)]);
        let (mut refused, mut cost) = ([0; 3], 0);
        for id in 1..20_000_u32 {
            let id = id.to_be_bytes();
            let rows = [
                (&samplers, [&[0][..], &id, &id].concat()),
                (&interfaces, [&id[..], b"ethernet", &id].concat()),
                (&parts, [id, id].concat()),
            ];
            for (place, ((layout, reader), row)) in rows.iter().enumerate() {
                let room = Room { most_cost: usize::MAX, now: 1 };
                let outcome = reader.read(layout, row, &mut state, &mut cost, room);
                refused[place] += usize::from(outcome.refused);
            }
        }
        assert_eq!(cost, state.cost());
        assert_eq!(refused, [19_999 - MOST_SAMPLERS, 19_999 - MOST_INTERFACES, 19_999 - MOST_PARTS]);
        assert_eq!(state.interfaces.len(), MOST_INTERFACES);
        assert_eq!(state.rate_count(), MOST_SAMPLERS + MOST_INTERFACES + MOST_PARTS);
        // What is known is told anew all the same.
        assert!(tell(&mut state, &samplers, &[0, 0, 0, 0, 1, 0, 0, 0, 9]).sampling_changed);
    }

    #[test]
    fn templates_that_tell_nothing_have_no_reader() {
        let layout = |fields: &[(u16, u16)]| {
            let fields: Vec<Field> =
                fields.iter().map(|&(element, width)| Field { enterprise: 0, element, width }).collect();
            Reader::new(&Layout::packed(RecordKind::Options, 1, true, &fields)).is_some()
        };
        assert!(!layout(&[(2, 4), (10, 4)]));
        // Scope types of NetFlow v9 are no elements, nor are those of an enterprise.
        assert!(!layout(&[(34, 4), (95, 4)]));
        let field = |enterprise| [Field { enterprise, element: 34, width: 4 }];
        let of = |enterprise| Reader::new(&Layout::packed(RecordKind::Options, 0, false, &field(enterprise)));
        assert!(of(0).is_some() && of(9).is_none());
    }

    proptest! {
        #[test]
        fn any_record_is_taken(
            is_v9: bool,
            scope in 0usize..3,
            fields in prop::collection::vec((prop::sample::select(vec![1u16, 2, 10, 34, 48, 50, 82, 83, 84, 94, 95, 96, 144, 160, 234, 236, 305, 306, 309, 310]),
                prop_oneof![0u16..20, Just(Field::VARIABLE)]), 1..8),
            row: Vec<u8>,
        ) {
            let fields: Vec<Field> =
                fields.iter().map(|&(element, width)| Field { enterprise: 0, element, width }).collect();
            let layout = Layout::packed(RecordKind::Options, scope.min(fields.len()), is_v9, &fields);
            if let Some(reader) = Reader::new(&layout) {
                let mut state = DomainState::default();
                tell(&mut state, &(layout, reader), &row);
            }
        }
    }
}
