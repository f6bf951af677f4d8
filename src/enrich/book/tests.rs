//! Who is believed about what: the order of sources, and the device that is asked.

use super::*;
use crate::enrich::StaticFile;

fn table(interfaces: &[(u32, &str, &str, u64)]) -> Arc<Table> {
    let entry = |&(index, name, description, speed): &(u32, &str, &str, u64)| {
        (index, Entry { name: name.into(), description: description.into(), speed, told: 0 })
    };
    Arc::new(Table { interfaces: interfaces.iter().map(entry).collect(), told: 1_000 })
}

fn sender(address: &str, agent: Option<&str>) -> Sender {
    let exporter = Exporter { address: address.parse().unwrap(), port: 9 };
    Sender { exporter, domain: 7, agent: agent.map(|agent| agent.parse().unwrap()) }
}

fn told(view: &mut View, sender: &Sender) -> Vec<(u32, String, String, u64, InterfaceSource)> {
    let tell = |(index, text): (u32, InterfaceText)| {
        (index, text.name.to_string(), text.description.to_string(), text.speed, text.source)
    };
    view.interfaces(sender).into_iter().map(tell).collect()
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
    book.set_last_known(here.exporter.address, Some(table(&[(1, "l1", "last", 1), (6, "l6", "", 0)])));
    book.set_host(Host { table: table(&[(1, "n1", "", 0), (5, "n5", "", 0)]), addresses: HashSet::new() });
    assert_eq!(told(&mut view, &here)[0], row(1, "n1", "last", 1, Netlink));
    book.set_snmp(here.exporter.address, Some(table(&[(1, "s1", "snmp", 2), (4, "s4", "", 0)])));
    assert_eq!(told(&mut view, &here)[0], row(1, "s1", "snmp", 2, Snmp));
    book.set_options((here.exporter, 7), Some(table(&[(1, "o1", "", 0), (3, "o3", "", 0)])));
    assert_eq!(told(&mut view, &here)[0], row(1, "o1", "snmp", 2, Options));
    book.set_operator(operator(
        "[[exporter]]\naddress = '127.0.0.1'\ninterfaces.1.description = 'said'\ninterfaces.2.name = 'a2'\n\
         interfaces.9.speed = 5",
    ));
    let expected = [
        row(1, "o1", "said", 2, Options),
        row(2, "a2", "", 0, Static),
        row(3, "o3", "", 0, Options),
        row(4, "s4", "", 0, Snmp),
        row(5, "n5", "", 0, Netlink),
        row(6, "l6", "", 0, LastKnown),
    ];
    assert_eq!(told(&mut view, &here), expected);
    assert_eq!(view.interface(&here, 1).unwrap().source, Options);
    assert_eq!(view.interface(&here, 9), None, "no source has its name");
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
