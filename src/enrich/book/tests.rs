//! Who is believed about what: the order of sources, and the device that is asked.

use super::*;
use crate::batch::{InterfaceText, Names};
use crate::enrich::{Entry, StaticFile};
use std::collections::BTreeMap;

fn table(interfaces: &[(u32, &str, &str, u64)]) -> Arc<Table> {
    let entry = |&(index, name, description, speed): &(u32, &str, &str, u64)| {
        (index, Entry { name: name.into(), description: description.into(), speed, told: 0 })
    };
    Arc::new(Table { interfaces: interfaces.iter().map(entry).collect(), told: 1_000 })
}

const DOMAIN: (Protocol, u32) = (Protocol::Ipfix, 7);

fn options(interfaces: &[(u32, &str, &str, u64)]) -> Told {
    Told {
        protocol: DOMAIN.0,
        domain: DOMAIN.1,
        interfaces: table(interfaces),
        kept: Arc::default(),
        applications: BTreeMap::new(),
        vrfs: BTreeMap::new(),
        samplers: BTreeMap::new(),
    }
}

fn sender(address: &str, agent: Option<&str>) -> Sender {
    let exporter = Exporter { address: address.parse().unwrap(), port: 9 };
    Sender { exporter, domain: 7, agent: agent.map(|agent| agent.parse().unwrap()) }
}

fn told(view: &mut View, sender: &Sender) -> Vec<(u32, String, String, u64, InterfaceSource)> {
    let tell = |(index, text): (u32, InterfaceText)| {
        (index, text.name.to_string(), text.description.to_string(), text.speed, text.source)
    };
    view.interfaces(sender, usize::MAX).0.into_iter().map(tell).collect()
}

fn operator(text: &str) -> Option<Arc<dyn Operator>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("i.toml");
    std::fs::write(&path, text).unwrap();
    Some(Arc::new(StaticFile::read(&path, 1_000).unwrap()))
}

fn row(
    index: u32,
    name: &str,
    description: &str,
    speed: u64,
    source: InterfaceSource,
) -> (u32, String, String, u64, InterfaceSource) {
    (index, name.to_owned(), description.to_owned(), speed, source)
}

#[test]
fn the_first_source_with_a_name_gives_it_and_gaps_are_filled_in_the_same_order() {
    use InterfaceSource::{LastKnown, Netlink, Options, Snmp, Static};
    let book = Book::new();
    let mut view = book.view();
    let here = sender("127.0.0.1", None);
    assert_eq!(told(&mut view, &here), []);
    book.set_last_known(here.exporter.address, Some(table(&[(1, "e1", "last", 1), (6, "l6", "", 0)])));
    book.set_host(Host { table: table(&[(1, "e1", "", 0), (5, "n5", "", 0)]), addresses: HashSet::new() });
    assert_eq!(told(&mut view, &here)[0], row(1, "e1", "last", 1, Netlink));
    assert_eq!(told(&mut view, &here)[2], row(6, "l6", "", 0, LastKnown));
    // A device that answers says itself what holds: what was known of it before goes.
    book.set_snmp(here.exporter.address, Some(table(&[(1, "e1", "snmp", 2), (4, "s4", "", 0)])));
    assert_eq!(told(&mut view, &here)[0], row(1, "e1", "snmp", 2, Snmp));
    book.set_options(here.exporter, DOMAIN, Some(options(&[(1, "e1", "", 0), (3, "o3", "", 0)])));
    assert_eq!(told(&mut view, &here)[0], row(1, "e1", "snmp", 2, Options));
    book.set_operator(operator(
        "[[exporter]]\naddress = '127.0.0.1'\ninterfaces.1.description = 'said'\ninterfaces.2.name = 'a2'\n\
         interfaces.9.speed = 5",
    ));
    let expected = [
        row(1, "e1", "said", 2, Options),
        row(2, "a2", "", 0, Static),
        row(3, "o3", "", 0, Options),
        row(4, "s4", "", 0, Snmp),
        row(5, "n5", "", 0, Netlink),
    ];
    assert_eq!(told(&mut view, &here), expected);
    let (first, count) = view.interfaces(&here, 2);
    assert_eq!((first.iter().map(|(index, _)| *index).collect::<Vec<_>>(), count), (vec![1, 2], 5));
    assert_eq!(view.interfaces(&here, 0), (Vec::new(), 5));
    assert_eq!(view.interface_anew(&here, 1).unwrap().source, Options);
    assert_eq!(view.interface_anew(&here, 9), None, "no source has its name");
    let elsewhere = sender("192.0.2.1", None);
    assert_eq!(told(&mut view, &elsewhere), [], "this host's interfaces are not those of others");
}

#[test]
fn the_device_is_whom_the_operator_says_or_the_agent_or_the_source() {
    let book = Book::new();
    let mut view = book.view();
    let device = |view: &mut View, address, agent| view.device(&sender(address, agent)).to_string();
    assert_eq!(device(&mut view, "192.0.2.1", None), "192.0.2.1");
    assert_eq!(device(&mut view, "192.0.2.1", Some("10.0.0.1")), "10.0.0.1");
    for nobody in ["0.0.0.0", "127.0.0.1", "::1", "::"] {
        assert_eq!(device(&mut view, "192.0.2.1", Some(nobody)), "192.0.2.1");
    }
    assert_eq!(device(&mut view, "127.0.0.1", Some("127.0.0.2")), "127.0.0.2");
    book.set_operator(operator("[[exporter]]\naddress = '10.0.0.1'\ndevice = '10.9.9.9'"));
    assert_eq!(device(&mut view, "192.0.2.1", Some("10.0.0.1")), "10.9.9.9");
    assert_eq!(device(&mut view, "192.0.2.1", Some("10.0.0.2")), "10.0.0.2");
}

#[test]
fn what_a_device_calls_itself_stands_in_for_a_name_that_the_operator_leaves_out() {
    let book = Book::new();
    let mut view = book.view();
    let sender = sender("192.0.2.1", None);
    assert_eq!(view.sender(&sender), None);
    let own = SenderText { name: "own".to_owned(), ..SenderText::default() };
    book.set_device_name(sender.exporter.address, Some(Arc::new(own)));
    assert_eq!(view.sender(&sender).unwrap().name, "own");
    book.set_operator(operator("[[exporter]]\naddress = '192.0.2.1'\nsite = 'paris'"));
    let text = view.sender(&sender).unwrap();
    assert_eq!((text.name.as_str(), text.site.as_str()), ("own", "paris"));
    book.set_operator(operator("[[exporter]]\naddress = '192.0.2.1'\nname = 'r1'"));
    let text = view.sender(&sender).unwrap();
    assert_eq!((text.name.as_str(), text.site.as_str()), ("r1", ""));
}

fn missing(book: &Book) -> Vec<(&'static str, u64)> {
    book.metrics.missing.all().into_iter().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn what_is_missing_is_counted_by_its_reason() {
    let book = Book::new();
    let mut view = book.view();
    let sender = sender("192.0.2.1", None);
    let device = sender.exporter.address;
    assert_eq!(view.interface_anew(&sender, 1), None);
    assert_eq!(missing(&book), [("no_source", 1)]);
    book.set_asked(device, Some(Asked::Waiting));
    assert_eq!(view.interface_anew(&sender, 1), None);
    book.set_asked(device, Some(Asked::NoAnswer));
    assert_eq!(view.interface_anew(&sender, 1), None);
    assert_eq!(missing(&book), [("no_answer", 1), ("no_source", 1), ("waiting", 1)]);
    book.set_snmp(device, Some(table(&[(2, "s2", "", 0)])));
    assert_eq!(view.interface_anew(&sender, 1), None);
    assert_eq!(book.metrics.missing.get("not_listed"), 1);
    assert_eq!(view.interface_anew(&sender, 2).unwrap().source, InterfaceSource::Snmp);
    assert_eq!(book.metrics.found.get("snmp"), 1);
}

#[test]
fn what_was_told_before_an_exporter_started_anew_is_not_used_after() {
    let book = Book::new();
    let mut view = book.view();
    let sender = sender("192.0.2.1", None);
    let device = sender.exporter.address;
    book.set_options(sender.exporter, DOMAIN, Some(options(&[(1, "o1", "", 0)])));
    book.set_snmp(device, Some(table(&[(1, "s1", "", 0), (2, "s2", "", 0)])));
    book.set_operator(operator("[[exporter]]\naddress = '192.0.2.1'\ninterfaces.3.name = 'a3'"));
    let count = |view: &mut View| told(view, &sender).len();
    assert_eq!(count(&mut view), 3);
    view.saw(&sender, true);
    view.hand_over();
    assert_eq!(told(&mut view, &sender), [row(3, "a3", "", 0, InterfaceSource::Static)]);
    assert_eq!(view.interface_anew(&sender, 2), None);
    assert_eq!(book.metrics.missing.get("restarted"), 1);
    assert!(book.devices().is_empty(), "nor is it kept");
    book.set_options(sender.exporter, DOMAIN, Some(options(&[(1, "new1", "", 0)])));
    assert_eq!(view.interface_anew(&sender, 1).unwrap().name, "new1".into());
    let anew = Table { told: u64::MAX, ..Table::clone(&table(&[(2, "new2", "", 0)])) };
    book.set_snmp(device, Some(Arc::new(anew)));
    assert_eq!(view.interface_anew(&sender, 2).unwrap().name, "new2".into());
}

#[test]
fn nothing_is_filled_in_from_who_calls_it_otherwise() {
    let book = Book::new();
    let mut view = book.view();
    let sender = sender("192.0.2.1", None);
    book.set_last_known(sender.exporter.address, Some(table(&[(1, "old", "uplink", 5), (2, "b", "lan", 6)])));
    book.set_options(sender.exporter, DOMAIN, Some(options(&[(1, "new", "", 0), (2, "b", "", 0)])));
    use InterfaceSource::Options;
    assert_eq!(told(&mut view, &sender), [row(1, "new", "", 0, Options), row(2, "b", "lan", 6, Options)]);
    let elsewhere = Sender { domain: 99, ..sender };
    assert_eq!(
        view.interface_anew(&elsewhere, 1).unwrap().name,
        "new".into(),
        "of its exporter's other domain"
    );
    book.set_operator(operator("[[exporter]]\naddress = '192.0.2.1'\ndomain = 99\nname = 'another'\n"));
    assert_eq!(view.interface_anew(&elsewhere, 1).unwrap().name, "old".into(), "the operator tells it apart");
    let other = Sender { exporter: Exporter { port: 10, ..sender.exporter }, ..sender };
    assert_eq!(
        view.interface_anew(&other, 1).unwrap().name,
        "old".into(),
        "of its device, not of its neighbour"
    );
}

#[test]
fn who_tells_of_options_does_not_wait_for_who_is_changing_the_book() {
    let book = Book::new();
    let sender = sender("192.0.2.1", None);
    let changing = book.account();
    assert!(
        !book.set_options(sender.exporter, DOMAIN, Some(options(&[(1, "a", "", 0)]))),
        "to be tried again"
    );
    drop(changing);
    assert!(book.set_options(sender.exporter, DOMAIN, Some(options(&[(1, "a", "", 0)]))));
    assert_eq!(told(&mut book.view(), &sender).len(), 1);
}

#[test]
fn other_names_at_the_same_numbers_are_counted_and_what_does_not_fit_is_refused() {
    let book = Book::new();
    let device = [192, 0, 2, 1].into();
    book.set_snmp(device, Some(table(&[(1, "a", "", 0), (2, "b", "", 0)])));
    let season = book.season();
    book.set_snmp(device, Some(table(&[(1, "a", "", 0), (2, "b", "", 0)])));
    assert_eq!(book.season(), season, "nothing is new");
    book.set_snmp(device, Some(table(&[(1, "b", "", 0), (2, "b", "", 0), (3, "c", "", 0)])));
    assert_eq!(book.metrics.renumbered.get(), 1);
    assert_ne!(book.season(), season);
    let address = |number: usize| std::net::Ipv4Addr::from(number as u32).into();
    for number in 1..=MOST_TABLES {
        book.set_snmp(address(number), Some(table(&[(1, "a", "", 0)])));
    }
    assert_eq!(book.metrics.refused.get(), 1);
    book.set_snmp(address(1), None);
    book.set_snmp(address(MOST_TABLES), Some(table(&[(1, "a", "", 0)])));
    assert_eq!(book.metrics.refused.get(), 1);
    let long = "x".repeat(MOST_BYTES);
    book.set_snmp(device, Some(table(&[(1, "a", &long, 0)])));
    assert_eq!((book.metrics.refused.get(), book.snmp.get(&device)), (2, None), "nor is the old one used");
    for (device, table) in book.snmp.all() {
        assert_eq!(table.interfaces.len(), 1);
        book.set_snmp(device, None);
    }
    assert_eq!((book.metrics.bytes.get(), book.account().tables), (0, [0; 5]));
}

/// What the gauges of the names' metrics show of a source: tables, and interfaces in them.
fn extent(book: &Book, source: Source) -> (i64, i64) {
    let mut registry = prometheus_client::registry::Registry::default();
    book.metrics.register(&mut registry);
    let mut shown = String::new();
    prometheus_client::encoding::text::encode(&mut shown, &registry).unwrap();
    let value = |name: &str| {
        let start = format!("{name}{{source=\"{}\"}} ", source.label());
        shown.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
    };
    (value("names_tables"), value("names_interfaces"))
}

#[test]
fn the_operators_tables_are_counted_as_those_of_the_other_sources() {
    let book = Book::new();
    book.set_operator(operator(
        "[[exporter]]\naddress = '10.0.0.1'\ninterfaces.1.name = 'a'\ninterfaces.2.name = 'b'\n\
         [[exporter]]\naddress = '10.0.0.2'\nname = 'r2'\n",
    ));
    assert_eq!(extent(&book, Source::Static), (1, 2));
    book.set_operator(operator("[[exporter]]\naddress = '10.0.0.1'\ninterfaces.1.name = 'a'\n"));
    assert_eq!(extent(&book, Source::Static), (1, 1));
    book.set_operator(None);
    assert_eq!(extent(&book, Source::Static), (0, 0));
}

#[test]
fn this_hosts_names_are_not_used_for_another_device_that_a_sender_on_this_host_speaks_for() {
    let book = Book::new();
    let mut view = book.view();
    let own = "192.0.2.8".parse().unwrap();
    book.set_host(Host { table: table(&[(4, "eth0", "", 0)]), addresses: HashSet::from([own]) });
    for (address, agent) in [
        ("127.0.0.1", None),
        ("127.0.0.1", Some("127.0.0.2")),
        ("127.0.0.1", Some("192.0.2.8")),
        ("192.0.2.8", None),
    ] {
        assert_eq!(told(&mut view, &sender(address, agent)).len(), 1, "{address} {agent:?}");
    }
    assert_eq!(told(&mut view, &sender("127.0.0.1", Some("10.0.0.5"))), []);
    assert_eq!(told(&mut view, &sender("10.0.0.5", Some("192.0.2.8"))), []);
    book.set_operator(operator("[[exporter]]\naddress = '127.0.0.1'\nport = 9\ndevice = '10.0.0.5'\n"));
    assert_eq!(told(&mut view, &sender("127.0.0.1", None)), []);
}
