//! What the table keeps, and what it gives up under a flood.

use super::ports::MOST_PORTS;
use super::*;
use crate::flow::Field;
use crate::proto::RecordKind;
use crate::wire::options::Reader;

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
    let all = domains.map.values().flat_map(|domain| domain.templates.iter());
    all.map(|(_, known)| cost(known.template.layout())).sum()
}

#[test]
fn the_same_template_again_is_not_new() {
    let mut domains = Domains::new(Limits::default());
    assert_eq!(domains.heard(key(1), 256, layout(1)), Change::New);
    assert_eq!(domains.heard(key(1), 256, layout(1)), Change::Same);
    assert_eq!(domains.heard(key(1), 256, layout(2)), Change::Changed);
    assert_eq!((domains.templates(), domains.books.room.fields()), (1, 2 + TEMPLATE_COST));
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
        assert!(domains.len() <= 100 && domains.books.room.fields() <= limits.fields);
        assert_eq!(domains.books.room.fields(), weight(&domains));
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
    assert_eq!((domains.templates(), domains.books.room.fields()), (0, 0));
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
fn only_what_reads_records_is_in_use() {
    let mut domains = Domains::new(Limits::default());
    domains.note_changes();
    domains.books.hour = 1_000;
    domains.heard(key(1), 256, layout(1));
    domains.take_changed();
    domains.heard(key(1), 256, layout(1));
    assert!(domains.reading(&key(1), 257).is_none());
    assert_eq!((domains.last_used(&key(1)), domains.take_changed().len()), (0, 0));
    for (hour, noted) in [(1_000, 1_000), (1_005, 1_000), (1_006, 1_006)] {
        domains.books.hour = hour;
        assert!(domains.reading(&key(1), 256).is_some());
        assert_eq!(domains.last_used(&key(1)), noted);
        assert_eq!(domains.take_changed().len(), usize::from(hour != 1_005));
    }
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

/// Domains for a hundred, as hostile addresses would fill them.
fn small() -> Domains {
    let limits = Limits { domains: 100, fields: 100 * (2 + TEMPLATE_COST), ..Limits::default() };
    Domains::new(limits)
}

/// A few exporters that tell their templates once and send now and then.
fn genuine(domains: &mut Domains) -> Vec<DomainKey> {
    let keys: Vec<DomainKey> = (1..=5).map(|host| key_of([192, 0, 2, host], 2055)).collect();
    for key in &keys {
        domains.heard(*key, 256, layout(1));
        domains.heard(*key, 257, layout(2));
    }
    keys
}

fn assert_known(domains: &Domains, keys: &[DomainKey]) {
    let known = keys.iter().filter(|key| domains.templates_of(key).0 == 2).count();
    assert_eq!(known, keys.len());
}

#[test]
fn addresses_that_fill_the_table_push_out_their_own_alone() {
    for hostile in [1, 3] {
        let mut domains = small();
        let keys = genuine(&mut domains);
        for port in 1..2_000 {
            for host in 1..=hostile {
                domains.heard(key_of([203, 0, 113, host], port), 256, layout(1));
            }
            assert!(domains.len() <= 100);
        }
        assert_known(&domains, &keys);
        assert!(domains.evicted() > 1_800);
    }
}

#[test]
fn an_address_of_large_domains_pushes_out_its_own_alone() {
    let mut domains = small();
    let keys = genuine(&mut domains);
    for id in 256..3_000 {
        domains.heard(key_of([203, 0, 113, 1], 1 + id % 3), id, layout(id));
    }
    assert_known(&domains, &keys);
}

#[test]
fn addresses_that_come_once_push_out_none_that_was_read() {
    let mut domains = small();
    let keys = genuine(&mut domains);
    domains.advance(0, 5_000);
    for key in &keys {
        *domains.reading(key, 256).unwrap().has_read = true;
    }
    for number in 0..50_000_u32 {
        let [_, a, b, c] = number.to_be_bytes();
        let once = key_of([10, a, b, c], 9);
        domains.heard(once, 256, layout(1));
        if let Some(reading) = domains.reading(&once, 256) {
            *reading.has_read = true;
        }
        assert!(domains.len() <= 100);
    }
    assert_known(&domains, &keys);
    // Who is new has some time to be read.
    let new = key_of([192, 0, 2, 99], 9);
    domains.heard(new, 256, layout(1));
    for number in 0..20_u32 {
        let [_, a, b, c] = number.to_be_bytes();
        domains.heard(key_of([11, a, b, c], 9), 256, layout(1));
    }
    assert!(domains.knows(&new));
}

#[test]
fn of_those_that_were_read_the_one_used_longest_ago_goes() {
    let mut domains = small();
    for second in 0..300_u64 {
        let key = key_of([10, 0, (second >> 8) as u8, second as u8], 9);
        domains.advance(0, second * 10_000);
        domains.heard(key, 256, layout(1));
        domains.advance(0, second * 10_000 + 5_000);
        *domains.reading(&key, 256).unwrap().has_read = true;
        assert!(domains.reading(&key_of([10, 0, 0, 0], 9), 256).is_some(), "{second}");
    }
    assert!(!domains.knows(&key_of([10, 0, 0, 1], 9)));
    assert!(domains.was_given_up(&key_of([10, 0, 0, 1], 9), 256));
    assert!(!domains.was_given_up(&key_of([10, 0, 0, 1], 9), 257));
    domains.heard(key_of([10, 0, 0, 1], 9), 256, layout(1));
    assert!(!domains.was_given_up(&key_of([10, 0, 0, 1], 9), 256), "known again");
    assert!(domains.knows(&key_of([10, 0, 1, 0], 9)));
}

#[test]
fn what_two_ports_told_apart_is_forgotten_in_time() {
    let mut domains = Domains::new(Limits::default());
    domains.heard(key(1), 256, layout(1));
    domains.heard(key(3), 256, layout(2));
    domains.heard(key(3), 256, layout(1));
    domains.advance(0, 3_599_999);
    assert!(domains.candidate(&key(2), 256).is_none());
    domains.advance(0, 3_600_000);
    assert!(domains.candidate(&key(2), 256).is_some());
    domains.heard(key(3), 256, layout(2));
    domains.advance(0, 9_000_000);
    assert!(domains.candidate(&key(2), 256).is_none(), "they still tell it apart");
}

#[test]
fn a_crowd_of_ports_is_forgotten_in_time() {
    let mut domains = Domains::new(Limits { domains: 200, ..Limits::default() });
    for port in 1..=MOST_PORTS as u16 + 1 {
        domains.heard(key(port), 256, layout(1));
    }
    assert!(domains.candidate(&key(900), 256).is_none());
    domains.advance(0, 3_600_000);
    assert!(domains.candidate(&key(900), 256).is_none(), "they are still there");
    for host in 2..=250 {
        domains.heard(key_of([192, 0, 2, host], 1), 256, layout(1));
    }
    domains.heard(key(1), 256, layout(1));
    assert!(domains.candidate(&key(900), 256).is_some());
}

#[test]
fn names_of_interfaces_leave_templates_their_room() {
    let mut domains = Domains::new(Limits { fields: 400, ..Limits::default() });
    for id in 256..266 {
        domains.heard(key(1), id, layout(id));
    }
    let field = |element, width| Field { enterprise: 0, element, width };
    let names = Layout::packed(RecordKind::Options, 1, false, &[field(10, 4), field(82, 8)]);
    let reader = Reader::new(&names).unwrap();
    let rows: Vec<Vec<u8>> = (1..5_000_u32).map(|id| [&id.to_be_bytes()[..], b"ethernet"].concat()).collect();
    let run = crate::wire::Arrival { exporter: key(1).exporter, received: 0, elapsed: 0, number: 0 }
        .run(Protocol::NetflowV9);
    domains.tell(&key(1), &run, &reader, &names, rows.iter().map(Vec::as_slice));
    let named = domains.map[&key(1)].state.interfaces.len();
    assert!((10..100).contains(&named), "{named}");
    domains.heard(key(1), 300, layout(300));
    for id in (256..266).chain([300]) {
        assert_eq!(domains.change(&key(1), id, &layout(id)), Change::Same, "template {id}");
    }
}
