//! What the file may say, whatever form it has; and what is wrong with it.

use super::{Identity, MOST_EXPORTERS, MOST_INTERFACES};
use crate::config::{Fault, Faults, Place};
use crate::enrich::table::{self, Entry};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Bytes of an exporter's name, a site, an interface's name, a label's key: what a batch has room for.
pub(super) const MOST_TEXT: usize = 128;
/// Bytes of a description, or a label's value.
pub(super) const MOST_DESCRIPTION: usize = 256;
/// Bytes of an exporter's name, site and labels together.
pub(super) const MOST_OF_EXPORTER: usize = 1_024;
/// Labels of one entry.
pub(super) const MOST_LABELS: usize = 32;
/// A petabit per second.
pub(super) const MOST_SPEED: u64 = 1_000_000_000_000_000;
/// Faults that are shown one by one.
const MOST_FAULTS: usize = 100;

/// One entry as the operator wrote it. What it leaves out is empty.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) identity: Identity,
    pub(super) device: Option<IpAddr>,
    pub(super) name: String,
    pub(super) site: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) interfaces: HashMap<u32, Entry>,
}

impl Written {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            identity,
            device: None,
            name: String::new(),
            site: String::new(),
            labels: BTreeMap::new(),
            interfaces: HashMap::new(),
        }
    }
}

/// What is wrong with a value, and what would be right.
pub(super) type Refused = (String, String);

/// An exporter's address.
pub(super) fn address(given: &str) -> Result<IpAddr, Refused> {
    let allowed = || "an IP address such as \"192.0.2.7\" or \"2001:db8::7\"".to_owned();
    let address: IpAddr = given.parse().map_err(|_| ("is no IP address".to_owned(), allowed()))?;
    let address = address.to_canonical();
    if address.is_unspecified() || address.is_multicast() {
        return Err(("is nobody's address".to_owned(), allowed()));
    }
    Ok(address)
}

/// Text that is there.
pub(super) fn text(given: &str, most_bytes: usize) -> Result<&str, Refused> {
    let refused = |wrong: &str| {
        Err((wrong.to_owned(), format!("text of 1 to {most_bytes} bytes without control characters")))
    };
    let given = given.trim();
    if given.is_empty() {
        refused("is empty")
    } else if given.len() > most_bytes {
        refused("is too long")
    } else if given.contains(char::is_control) {
        refused("has control characters in it")
    } else {
        Ok(given)
    }
}

/// A whole number, both ends inclusive; `None` is one that is too large for any.
pub(super) fn number(given: Option<i128>, min: u64, max: u64) -> Result<u64, Refused> {
    let refused = |wrong: &str| Err((wrong.to_owned(), format!("a whole number from {min} to {max}")));
    match given {
        Some(value) if value < i128::from(min) => refused("is too small"),
        Some(value) if value <= i128::from(max) => u64::try_from(value).or_else(|_| refused("is too large")),
        _ => refused("is too large"),
    }
}

/// A number written as text, as an ifIndex is as a key.
pub(super) fn digits(given: &str, min: u64, max: u64) -> Result<u64, Refused> {
    let is_plain = !given.is_empty() && given.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain || (given.len() > 1 && given.starts_with('0')) {
        return Err(("is no number".to_owned(), format!("a whole number from {min} to {max}")));
    }
    number(given.parse().ok(), min, max)
}

/// Caps on the whole file.
pub(super) fn bounds(exporters: usize, interfaces: usize, findings: &mut Findings) {
    if exporters > MOST_EXPORTERS {
        findings.whole(format!("has {exporters} entries"), format!("{MOST_EXPORTERS} exporters"));
    }
    if interfaces > MOST_INTERFACES {
        findings
            .whole(format!("has {interfaces} interfaces"), format!("{MOST_INTERFACES} interfaces in all"));
    }
}

/// Takes one interface more into an entry.
pub(super) fn add_interface(entry: &mut Written, index: u32, interface: Entry) -> Result<(), Refused> {
    if interface == Entry::default() {
        return Err(("says nothing".to_owned(), "a name, a description, a speed".to_owned()));
    }
    let taken = entry.interfaces.len();
    if taken > table::MOST_INTERFACES {
        // The first that is too many has been told of.
        return Ok(());
    }
    match entry.interfaces.insert(index, interface) {
        None if taken == table::MOST_INTERFACES => Err((
            "is one too many".to_owned(),
            format!("{} interfaces of one exporter", table::MOST_INTERFACES),
        )),
        None => Ok(()),
        Some(_) => Err(("is there twice".to_owned(), "each interface of an exporter once".to_owned())),
    }
}

/// What is wrong with a file, gathered.
#[derive(Debug)]
pub(super) struct Findings {
    file: PathBuf,
    faults: Vec<Fault>,
    more: usize,
}

impl Findings {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), faults: Vec::new(), more: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// About the file as a whole.
    pub(super) fn whole(&mut self, wrong: String, allowed: String) {
        self.push(Fault {
            place: Place::File(self.file.clone()),
            key: String::new(),
            value: None,
            wrong,
            allowed,
        });
    }

    /// About a key, and the value given for it, if that is to be shown.
    pub(super) fn at(&mut self, line: usize, key: &str, value: Option<&str>, (wrong, allowed): Refused) {
        let place = Place::Line(self.file.clone(), line);
        self.push(Fault { place, key: key.to_owned(), value: value.map(shortened), wrong, allowed });
    }

    fn push(&mut self, fault: Fault) {
        if self.faults.len() < MOST_FAULTS { self.faults.push(fault) } else { self.more += 1 }
    }

    /// In the order of the file.
    pub(super) fn into_faults(mut self) -> Faults {
        self.faults.sort_by_key(|fault| match fault.place {
            Place::Line(_, line) => line,
            _ => 0,
        });
        if self.more > 0 {
            let wrong = format!("has {} more faults", self.more);
            let place = Place::File(self.file);
            self.faults.push(Fault {
                place,
                key: String::new(),
                value: None,
                wrong,
                allowed: "none".to_owned(),
            });
        }
        Faults(self.faults)
    }
}

/// A value for a fault's text: one line, not long.
fn shortened(value: &str) -> String {
    const MOST: usize = 60;
    let line: String =
        value.chars().map(|char| if char.is_control() { ' ' } else { char }).take(MOST).collect();
    if value.chars().count() > MOST { line + "..." } else { line }
}
