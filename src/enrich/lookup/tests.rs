//! With files of the tests' own making. Time does not pass here: the files are looked at by hand.

use super::*;
use crate::batch::Names;
use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use serde::Serialize;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

#[derive(Serialize)]
struct Asn {
    autonomous_system_number: u32,
    autonomous_system_organization: &'static str,
}

#[derive(Serialize)]
struct Country {
    // As in MaxMind's, something else stands before it.
    continent: HashMap<&'static str, &'static str>,
    country: HashMap<&'static str, &'static str>,
}

fn file<T: Serialize>(version: IpVersion, of: &[(&str, T)]) -> Vec<u8> {
    let mut made = maxminddb_writer::Database::default();
    made.metadata.ip_version = version;
    made.metadata.binary_format_major_version = 2;
    made.metadata.database_type = "Test".to_owned();
    made.metadata.build_epoch = 1_700_000_000;
    for (network, value) in of {
        let place = made.insert_value(value).unwrap();
        made.insert_node(network.parse::<IpAddrWithMask>().unwrap(), place);
    }
    made.write_to(Vec::new()).unwrap()
}

/// In a tree of IPv6 addresses, IPv4 lies below `::/96`.
fn asn(number: u32) -> Vec<u8> {
    let value =
        || Asn { autonomous_system_number: number, autonomous_system_organization: "an organization" };
    file(IpVersion::V6, &[("::102:0/112", value()), ("2001:470::/32", value())])
}

fn country(code: &'static str) -> Vec<u8> {
    let value = |code| Country { continent: [("code", "EU")].into(), country: [("iso_code", code)].into() };
    file(IpVersion::V6, &[("::102:0/112", value(code)), ("::103:0/112", value("fr"))])
}

fn paths(folder: &Path) -> Paths {
    Paths { asn: Some(folder.join("asn.mmdb")), country: Some(folder.join("country.mmdb")) }
}

/// A folder with two files, and a book in which they are open.
fn opened() -> (tempfile::TempDir, Book, Databases, Metrics) {
    let (folder, metrics) = (tempfile::tempdir().unwrap(), Metrics::new());
    fs::write(folder.path().join("asn.mmdb"), asn(64_500)).unwrap();
    fs::write(folder.path().join("country.mmdb"), country("DE")).unwrap();
    let databases = Databases::open(&paths(folder.path()), &metrics).unwrap();
    let book = Book::new();
    book.set_databases(databases.clone());
    (folder, book, databases, metrics)
}

fn text(as_number: u32, country: &[u8; 2]) -> Option<AddressText> {
    Some(AddressText { as_number, country: *country })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn addresses_are_found_or_not() {
    let (_folder, book, _, metrics) = opened();
    let mut view = book.view();
    assert!(view.has_addresses());
    // Twice: looked up, and at hand.
    for _ in 0..2 {
        assert_eq!(view.address(ip("1.2.3.4")), text(64_500, b"DE"));
        assert_eq!(view.address(ip("::ffff:1.2.3.4")), text(64_500, b"DE"));
        assert_eq!(view.address(ip("2001:470::1")), text(64_500, &[0, 0]));
        // No two capital letters: no country.
        assert_eq!(view.address(ip("1.3.3.4")), None);
        assert_eq!(view.address(ip("9.9.9.9")), None);
        assert_eq!(view.address(ip("10.0.0.1")), None);
    }
    let of = |results: &Labelled| Outcome::ALL.map(|outcome| results.get(outcome.label()));
    assert_eq!(of(&metrics.asn), [6, 4, 2, 0]);
    assert_eq!(of(&metrics.country), [4, 6, 2, 0]);
    assert_eq!((metrics.asn_built.get(), metrics.country_built.get()), (1_700_000_000, 1_700_000_000));
}

#[test]
fn without_files_nothing_is_looked_up() {
    let mut view = Book::new().view();
    assert!(!view.has_addresses());
    assert_eq!(view.address(ip("1.2.3.4")), None);
}

#[test]
fn a_file_of_ipv4_alone_has_no_ipv6() {
    let folder = tempfile::tempdir().unwrap();
    let value = Asn { autonomous_system_number: 7, autonomous_system_organization: "x" };
    fs::write(folder.path().join("asn.mmdb"), file(IpVersion::V4, &[("1.2.0.0/16", value)])).unwrap();
    let only = Paths { country: None, ..paths(folder.path()) };
    let book = Book::new();
    let metrics = Metrics::new();
    book.set_databases(Databases::open(&only, &metrics).unwrap());
    let mut view = book.view();
    assert_eq!(view.address(ip("1.2.3.4")), text(7, &[0, 0]));
    assert_eq!(view.address(ip("2001:470::1")), None);
    // There is no file that has countries: nothing was asked of it.
    assert_eq!((metrics.asn.get("unknown"), metrics.country.get("unknown")), (1, 0));
}

#[test]
fn all_files_that_cannot_be_used_are_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("asn.mmdb"), country("DE")).unwrap();
    let faults = Databases::open(&paths(folder.path()), &Metrics::new()).unwrap_err();
    assert!(matches!(
        &faults.0[..],
        [(Kind::Asn, _, Error::OtherKind { .. }), (Kind::Country, _, Error::Io(_))]
    ));
    let told = faults.to_string();
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(told.starts_with("enrich.asn = ") && told.contains("\nenrich.country = "), "{told}");
    let whole = asn(1);
    for length in (0..whole.len()).step_by(7) {
        fs::write(folder.path().join("asn.mmdb"), &whole[..length]).unwrap();
        let cut = Database::open(Kind::Asn, &folder.path().join("asn.mmdb"));
        assert!(matches!(cut, Err(Error::Damaged(_))), "{length}: {cut:?}");
    }
}

#[test]
fn a_new_file_is_read_once_it_rests() {
    let (folder, book, databases, metrics) = opened();
    let mut view = book.view();
    assert_eq!(view.address(ip("1.2.3.4")), text(64_500, b"DE"));
    let (state, is_new) = State::new(databases).look();
    assert!(!is_new);
    let new = folder.path().join("new");
    fs::write(&new, country("AT")).unwrap();
    fs::rename(&new, folder.path().join("country.mmdb")).unwrap();
    let (state, is_new) = state.look();
    assert!(!is_new, "it has changed just now");
    // Another one still.
    fs::write(&new, country("CH")).unwrap();
    fs::rename(&new, folder.path().join("country.mmdb")).unwrap();
    let (state, is_new) = state.look();
    assert!(!is_new, "it has changed again");
    let (state, is_new) = state.look();
    assert!(is_new);
    assert_eq!((metrics.swaps.get("country"), metrics.swaps.get("asn")), (1, 0));
    book.set_databases(state.databases.clone());
    // What was at hand is of the old file.
    assert_eq!(view.address(ip("1.2.3.4")), text(64_500, b"CH"));
    assert!(!state.look().1);
}

#[test]
fn a_broken_file_takes_no_place_and_is_told_once() {
    let (folder, _, databases, metrics) = opened();
    let path = folder.path().join("asn.mmdb");
    let mut state = State::new(databases);
    let mut looks = |times: usize| {
        for _ in 0..times {
            let taken = std::mem::replace(&mut state, State::new(Databases::default()));
            let (next, is_new) = taken.look();
            assert!(!is_new);
            state = next;
        }
        metrics.failures.get("asn")
    };
    // Cut in place, as a disk that is full does it.
    let whole = fs::read(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(whole.len() as u64 / 2).unwrap();
    assert_eq!(looks(4), 1);
    fs::remove_file(&path).unwrap();
    assert_eq!(looks(4), 2);
    fs::write(&path, country("DE")).unwrap();
    assert_eq!(looks(4), 3);
    assert_eq!(state.databases.as_number_of("1.2.3.4"), Ok(Some(64_500)));
    // A good one is taken again.
    fs::write(&path, asn(64_501)).unwrap();
    let (state, _) = state.look();
    let (state, is_new) = state.look();
    assert!(is_new);
    assert_eq!(state.databases.as_number_of("1.2.3.4"), Ok(Some(64_501)));
}

impl Databases {
    fn as_number_of(&self, address: &str) -> Result<Option<u32>, database::Damage> {
        self.asn.as_ref().unwrap().as_number(ip(address))
    }
}

#[test]
fn damage_that_a_look_up_meets_is_counted() {
    const KEY: &[u8] = b"autonomous_system_number";
    let (folder, metrics, book) = (tempfile::tempdir().unwrap(), Metrics::new(), Book::new());
    let of = |number| Asn { autonomous_system_number: number, autonomous_system_organization: "x" };
    let mut bytes = file(IpVersion::V6, &[("::102:0/112", of(7)), ("::103:0/112", of(8))]);
    let keys: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(KEY)).collect();
    // What stands before the second's key says now that a map follows, where a text must.
    bytes[keys[1] - 1] = 0xE0;
    let path = folder.path().join("asn.mmdb");
    fs::write(&path, bytes).unwrap();
    assert!(matches!(Database::open(Kind::Asn, &path), Err(Error::Damaged(_))));
    // Behind what is looked at.
    let database = Database::read(Kind::Asn, &path, 1).unwrap();
    book.set_databases(Databases::new(Some(Arc::new(database)), None, metrics.clone()));
    let mut view = book.view();
    assert_eq!(view.address(ip("1.2.3.4")), text(7, &[0, 0]));
    assert_eq!(view.address(ip("1.3.3.4")), None);
    assert_eq!((metrics.asn.get("found"), metrics.asn.get("damaged")), (1, 1));
}
