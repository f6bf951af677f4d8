//! What a domain has told, as bytes that outlive the process.
//!
//! ```text
//! 0 version = 1    1 crc32c of the key's bytes and the body, big-endian    5 body: proto flowproxy.state.v1.Domain
//! ```
//!
//! | if | then |
//! |---|---|
//! | the version is another, the CRC does not fit, or the body is no such message | all of it is refused, counted as one |
//! | a template in it, a rate or a name would be refused from the network | it is left out and counted; the others are taken |
//! | there are more templates than the tables hold | the first of them go, as they were used longest ago |
//!
//! Who keeps the bytes, and where, is not said here.

use super::domain::{DomainKey, Domains};
use super::options::{ApplicationId, DomainState, Text};
use super::template::{MAX_FIELDS, compile};
use crate::flow::{Exporter, Field, Layout};
use crate::proto::{Protocol, RecordKind, state};
use prost::Message;
use std::net::{IpAddr, Ipv6Addr};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;

/// The first id that a template may have.
const FIRST_TEMPLATE: u16 = 256;

/// Numbers in the saved form for each field.
const FIELD_NUMBERS: usize = 3;

/// The most that is read of one domain, in bytes: what the tables' limit of fields comes to, and some more.
const MAX_BYTES: usize = 32 << 20;

/// A [`DomainKey`] as bytes: address (IPv4 as mapped), port, protocol, domain, big-endian.
pub type KeyBytes = [u8; 23];

impl DomainKey {
    /// The key as bytes.
    pub fn to_bytes(&self) -> KeyBytes {
        let address = match self.exporter.address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let [a, b] = self.exporter.port.to_be_bytes();
        let [.., protocol] = (self.protocol as i32).to_be_bytes();
        let [c, d, e, f] = self.domain.to_be_bytes();
        let mut bytes = [0; 23];
        let (first, rest) = bytes.split_at_mut(16);
        first.copy_from_slice(&address.octets());
        rest.copy_from_slice(&[a, b, protocol, c, d, e, f]);
        bytes
    }

    /// The key that gave these bytes; `None` if no key gives them.
    pub fn from_bytes(bytes: &KeyBytes) -> Option<DomainKey> {
        let (address, rest) = bytes.split_first_chunk::<16>()?;
        let [a, b, protocol, c, d, e, f] = *rest.first_chunk::<7>()?;
        let exporter =
            Exporter { address: Ipv6Addr::from(*address).to_canonical(), port: u16::from_be_bytes([a, b]) };
        let protocol = Protocol::try_from(i32::from(protocol)).ok()?;
        Some(DomainKey { exporter, protocol, domain: u32::from_be_bytes([c, d, e, f]) })
    }
}

/// What is kept of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// When it last decoded a record, in hours since 1970, give or take some hours; 0 if it never has.
    pub used: u32,
    /// Its state.
    pub bytes: Vec<u8>,
}

/// What was put back of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Templates taken.
    pub templates: usize,
    /// Entries that could not be read, or that no exporter may tell.
    pub refused: usize,
}

/// The saved form of a domain, if it is known.
pub(super) fn save(domains: &Domains, key: &DomainKey) -> Option<Saved> {
    let domain = domains.peek(key)?;
    let templates = domain.layouts().map(|(id, layout)| template(id, layout)).collect();
    let body = message(templates, domain.state());
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.encoded_len());
    bytes.push(VERSION);
    bytes.extend([0; 4]);
    // A vector grows: there is always room.
    let _ = body.encode(&mut bytes);
    if let Some((header, body)) = bytes.split_at_mut_checked(HEADER_BYTES)
        && let Some(place) = header.last_chunk_mut::<4>()
    {
        *place = checksum(key, body).to_be_bytes();
    }
    Some(Saved { used: domain.used(), bytes })
}

fn message(templates: Vec<state::Template>, told: &DomainState) -> state::Domain {
    let interface = |(index, text): (&u32, &Text)| state::Interface {
        index: *index,
        name: text.name.to_string(),
        description: text.description.to_string(),
    };
    let application = |(id, text): (&ApplicationId, &Text)| state::Application {
        id: id.to_vec().into(),
        name: text.name.to_string(),
        description: text.description.to_string(),
    };
    state::Domain {
        templates,
        samplers: told.samplers.iter().map(|(id, rate)| (*id, *rate)).collect(),
        interface_rates: told.interface_rates.iter().map(|(index, rate)| (*index, *rate)).collect(),
        interface_samplers: told.interface_samplers.iter().map(|(index, id)| (*index, *id)).collect(),
        rates: told.rates.iter().map(|(scope, rate)| (*scope, *rate)).collect(),
        boot_time: told.boot_time,
        interfaces: told.interfaces.iter().map(interface).collect(),
        applications: told.applications.iter().map(application).collect(),
        vrfs: told.vrfs.iter().map(|(id, text)| (*id, text.name.to_string())).collect(),
        sampler_names: told.sampler_names.iter().map(|(id, text)| (*id, text.name.to_string())).collect(),
        named_boot: told.named_boot,
    }
}

fn template(id: u16, layout: &Layout) -> state::Template {
    let numbers = |field: Field| [u32::from(field.element), u32::from(field.width), field.enterprise];
    state::Template {
        id: u32::from(id),
        options: layout.kind() == RecordKind::Options,
        scope: layout.scope_columns() as u32,
        v9_scopes: layout.v9_scopes(),
        fields: layout.fields().iter().flat_map(|placed| numbers(placed.field)).collect(),
    }
}

/// Puts back what was saved.
pub(super) fn restore(domains: &mut Domains, key: DomainKey, saved: &Saved) -> Restored {
    let Some(body) = body(&key, &saved.bytes) else { return Restored { templates: 0, refused: 1 } };
    let mut restored = Restored::default();
    for template in &body.templates {
        match layout(template) {
            Some((id, layout)) => {
                domains.restore(key, id, layout);
                restored.templates += 1;
            }
            None => restored.refused += 1,
        }
    }
    let mut told = told(body);
    restored.refused += told.check();
    if told != DomainState::default() {
        domains.restore_state(key, told);
    }
    domains.was_used(&key, saved.used);
    restored
}

fn told(body: state::Domain) -> DomainState {
    let interface = |it: state::Interface| (it.index, Text::kept(&it.name, &it.description));
    let application = |it: state::Application| (it.id.to_vec().into(), Text::kept(&it.name, &it.description));
    DomainState {
        samplers: body.samplers.into_iter().collect(),
        interface_rates: body.interface_rates.into_iter().collect(),
        interface_samplers: body.interface_samplers.into_iter().collect(),
        rates: body.rates.into_iter().collect(),
        boot_time: body.boot_time,
        interfaces: body.interfaces.into_iter().map(interface).collect(),
        applications: body.applications.into_iter().map(application).collect(),
        vrfs: body.vrfs.iter().map(|(id, name)| (*id, Text::kept(name, ""))).collect(),
        sampler_names: body.sampler_names.iter().map(|(id, name)| (*id, Text::kept(name, ""))).collect(),
        named_boot: body.named_boot,
    }
}

fn body(key: &DomainKey, bytes: &[u8]) -> Option<state::Domain> {
    let (version, rest) = bytes.split_first().filter(|_| bytes.len() <= MAX_BYTES)?;
    let (sum, body) = rest.split_first_chunk::<4>()?;
    if *version != VERSION || checksum(key, body).to_be_bytes() != *sum {
        return None;
    }
    state::Domain::decode(body).ok()
}

fn checksum(key: &DomainKey, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&key.to_bytes()), body)
}

/// A template by the rules for those from the network.
fn layout(saved: &state::Template) -> Option<(u16, Layout)> {
    let id = u16::try_from(saved.id).ok().filter(|id| *id >= FIRST_TEMPLATE)?;
    let (numbers, left) = saved.fields.as_chunks::<FIELD_NUMBERS>();
    let scope = usize::try_from(saved.scope).ok()?;
    if !left.is_empty() || numbers.len() > MAX_FIELDS || scope > numbers.len() {
        return None;
    }
    let fields = numbers.iter().map(|[element, width, enterprise]| {
        let (element, width) = (u16::try_from(*element).ok()?, u16::try_from(*width).ok()?);
        Some(Field { enterprise: *enterprise, element, width })
    });
    let fields: Vec<Field> = fields.collect::<Option<_>>()?;
    let kind = if saved.options { RecordKind::Options } else { RecordKind::Data };
    if scope > 0 && !saved.options {
        return None;
    }
    Some((id, compile(kind, scope, saved.v9_scopes, &fields).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Limits;

    fn key(port: u16) -> DomainKey {
        let exporter = Exporter { address: [192, 0, 2, 1].into(), port };
        DomainKey { exporter, protocol: Protocol::NetflowV9, domain: 0xfffe_fdfc }
    }

    fn field(element: u16, width: u16) -> Field {
        Field { enterprise: u32::from(element % 2) * 0x1000_0000, element, width }
    }

    /// A domain with a template, one of variable length, and an options template with v9 scopes.
    fn told() -> Domains {
        let mut domains = Domains::new(Limits::default());
        domains.advance(1_700_000_000_000, 0);
        let fields = [field(8, 4), field(1, 8), field(7, 2)];
        domains.learn(key(1), 256, compile(RecordKind::Data, 0, false, &fields).unwrap());
        assert!(domains.reading(&key(1), 256).is_some());
        let fields = [field(82, Field::VARIABLE), field(0x7fff, 4)];
        domains.learn(key(1), 65_535, compile(RecordKind::Data, 0, true, &fields).unwrap());
        let fields = [field(1, 4), field(34, 4), field(2, 0)];
        domains.learn(key(1), 300, compile(RecordKind::Options, 1, true, &fields).unwrap());
        let mut told = DomainState { boot_time: 1_690_000_000_123, ..DomainState::default() };
        told.samplers.extend([(0, 100), (u64::MAX, u32::MAX)]);
        told.interface_rates.insert(7, 500);
        told.interface_samplers.insert(8, u64::MAX);
        told.rates.insert(1 << 60, 1_000);
        let text = Text::kept("xe-0/0/1", "übers Eck");
        told.interfaces.insert(7, text);
        told.applications.insert([13, 0, 0, 80].into(), Text::kept("http", "Hypertext"));
        told.vrfs.insert(0x6000_0001, Text::kept("blue", ""));
        told.sampler_names.insert(3, Text::kept("every tenth", ""));
        told.named_boot = 1_690_000_000_000;
        domains.restore_state(key(1), told);
        domains
    }

    fn layouts(domains: &Domains, key: &DomainKey) -> Vec<(u16, String)> {
        let mut all: Vec<_> =
            domains.peek(key).unwrap().layouts().map(|(id, layout)| (id, format!("{layout:?}"))).collect();
        all.sort();
        all
    }

    #[test]
    fn a_domain_comes_back_as_it_was() {
        let told = told();
        let saved = save(&told, &key(1)).unwrap();
        assert_eq!(saved.used, 472_222);
        let mut domains = Domains::new(Limits::default());
        assert_eq!(restore(&mut domains, key(1), &saved), Restored { templates: 3, refused: 0 });
        assert_eq!(layouts(&domains, &key(1)), layouts(&told, &key(1)));
        assert_eq!(domains.peek(&key(1)).unwrap().used(), saved.used);
        assert_eq!(domains.peek(&key(1)).unwrap().state(), told.peek(&key(1)).unwrap().state());
        assert!(domains.template(&key(1), 300).is_some_and(|known| known.restored));
        assert_eq!(save(&told, &key(2)), None);
    }

    #[test]
    fn keys_come_back_and_others_are_told() {
        for address in ["192.0.2.1", "2001:db8::1"] {
            for protocol in [Protocol::NetflowV9, Protocol::Ipfix] {
                let exporter = Exporter { address: address.parse().unwrap(), port: 0xfedc };
                let key = DomainKey { exporter, protocol, domain: 77 };
                assert_eq!(DomainKey::from_bytes(&key.to_bytes()), Some(key));
            }
        }
        let mut bytes = key(1).to_bytes();
        bytes[18] = 0xff;
        assert_eq!(DomainKey::from_bytes(&bytes), None);
    }

    /// No byte can change, or be missing, without notice; nor can one domain's state be given to another.
    #[test]
    fn damage_is_refused() {
        let saved = save(&told(), &key(1)).unwrap();
        let mut domains = Domains::new(Limits::default());
        let refused = Restored { templates: 0, refused: 1 };
        for place in 0..saved.bytes.len() {
            let mut damaged = saved.clone();
            damaged.bytes[place] ^= 0x10;
            assert_eq!(restore(&mut domains, key(1), &damaged), refused, "byte {place}");
            damaged.bytes.truncate(place);
            assert_eq!(restore(&mut domains, key(1), &damaged), refused, "the first {place} bytes");
        }
        assert_eq!(restore(&mut domains, key(2), &saved), refused);
        assert!(domains.is_empty());
    }

    fn sealed(body: &state::Domain) -> Saved {
        let body = body.encode_to_vec();
        let sum = checksum(&key(1), &body).to_be_bytes();
        Saved { used: 1, bytes: [&[VERSION], &sum[..], &body[..]].concat() }
    }

    #[test]
    fn what_no_exporter_may_tell_is_left_out_and_the_rest_is_taken() {
        let good = state::Template { id: 256, fields: vec![8, 4, 0], ..Default::default() };
        let bad = [
            state::Template { id: 255, ..good.clone() },
            state::Template { id: 65_536, ..good.clone() },
            state::Template { fields: vec![], ..good.clone() },
            state::Template { fields: vec![8, 4], ..good.clone() },
            state::Template { fields: vec![8, 0, 0], ..good.clone() },
            state::Template { fields: vec![8, 65_536, 0], ..good.clone() },
            state::Template { fields: vec![65_536, 4, 0], ..good.clone() },
            state::Template { fields: [8, 4, 0].repeat(257), ..good.clone() },
            state::Template { fields: [8, 40_000, 0].repeat(2), ..good.clone() },
            state::Template { scope: 1, ..good.clone() },
            state::Template { scope: 2, options: true, ..good.clone() },
            state::Template { scope: u32::MAX, options: true, ..good.clone() },
        ];
        let interface =
            |index, name: &str| state::Interface { index, name: name.into(), ..Default::default() };
        let told = state::Domain {
            samplers: (1..=320).map(|id| (id, 100)).collect(),
            interface_samplers: [(0, 1), (7, 1)].into(),
            rates: (1..=3).map(|scope| (scope, 0)).collect(),
            interfaces: vec![interface(1, &"x".repeat(257)), interface(2, ""), interface(3, "eth0")],
            ..Default::default()
        };
        let templates = bad.iter().cloned().chain([good.clone()]).chain(bad.iter().cloned()).collect();
        let mut domains = Domains::new(Limits::default());
        let restored = restore(&mut domains, key(1), &sealed(&state::Domain { templates, ..told }));
        assert_eq!(restored, Restored { templates: 1, refused: 2 * bad.len() + 64 + 3 + 2 + 1 });
        assert_eq!(domains.templates(), 1);
        let state = domains.peek(&key(1)).unwrap().state();
        assert_eq!((state.samplers.len(), state.rates.len(), state.interfaces.len()), (256, 0, 1));
    }

    #[test]
    fn more_than_the_tables_hold_leaves_what_was_used_last() {
        let limits = Limits { templates_per_domain: 10, ..Limits::default() };
        let mut domains = Domains::new(limits);
        let good = |id| state::Template { id, fields: vec![8, 4, 0], ..Default::default() };
        let saved =
            sealed(&state::Domain { templates: (256..300).map(good).collect(), ..Default::default() });
        restore(&mut domains, key(1), &saved);
        assert!(domains.templates() <= 10);
        assert!(domains.template(&key(1), 299).is_some() && domains.template(&key(1), 256).is_none());
    }
}
