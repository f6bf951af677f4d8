//! The file in CSV (RFC 4180): a header, then one interface a row; a row without `index` is about the exporter alone.
//!
//! ```csv
//! address,port,domain,device,name,site,label.rack,index,interface,description,speed
//! 127.0.0.1,40001,,,r1,paris,12,7,eth1,uplink to Paris,10000000000
//! 127.0.0.1,40001,,,,,,8,eth2,,
//! ```
//!
//! Columns stand in any order, and all but `address` may be missing; an empty cell says nothing. Lines that start
//! with `#` are comments. What several rows say of one exporter has to be the same.

use super::Identity;
use super::rules::{self, Findings, MOST_DESCRIPTION, MOST_LABELS, MOST_SPEED, MOST_TEXT, Refused, Written};
use crate::enrich::table::Entry;
use csv::{ReaderBuilder, StringRecord, Trim};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

const COLUMNS: &str =
    "address, port, domain, device, name, site, index, interface, description, speed, label.KEY";

/// What a column says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Column {
    Address,
    Port,
    Domain,
    Device,
    Name,
    Site,
    Label(String),
    Index,
    Interface,
    Description,
    Speed,
    /// One that does not exist, told already.
    Unknown,
}

/// Its entries that could be read.
pub(super) fn read(text: &str, findings: &mut Findings) -> Vec<Written> {
    let mut reader = ReaderBuilder::new()
        .flexible(true)
        .trim(Trim::All)
        .comment(Some(b'#'))
        .has_headers(false)
        .from_reader(text.as_bytes());
    let mut columns = Vec::new();
    let mut entries = Vec::new();
    let mut places = HashMap::new();
    for row in reader.records() {
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                let line = error.position().map_or(1, csv::Position::line);
                let refused = (format!("is not CSV: {error}"), "CSV (RFC 4180)".to_owned());
                findings.at(usize::try_from(line).unwrap_or(usize::MAX), "", None, refused);
                break;
            }
        };
        let line = row.position().map_or(1, csv::Position::line);
        let line = usize::try_from(line).unwrap_or(usize::MAX);
        if columns.is_empty() {
            columns = header(line, &row, findings);
            if !columns.contains(&Column::Address) {
                break;
            }
            continue;
        }
        let Some(read) = Row::read(line, &row, &columns, findings) else { continue };
        let place = *places.entry(read.entry.identity).or_insert_with(|| {
            entries.push(Written::new(read.entry.identity));
            entries.len() - 1
        });
        if let Some(entry) = entries.get_mut(place) {
            read.add_to(line, entry, findings);
        }
    }
    if columns.is_empty() {
        findings.whole("has no header".to_owned(), format!("columns of {COLUMNS}"));
    }
    entries
}

fn header(line: usize, row: &StringRecord, findings: &mut Findings) -> Vec<Column> {
    let mut met = HashSet::new();
    let columns: Vec<Column> = row
        .iter()
        .map(|name| {
            let column = column(name);
            if column == Column::Unknown {
                findings.at(line, name, None, ("is no column".to_owned(), COLUMNS.to_owned()));
            } else if !met.insert(column.clone()) {
                findings.at(line, name, None, ("is there twice".to_owned(), "each column once".to_owned()));
            }
            column
        })
        .collect();
    if !met.contains(&Column::Address) {
        findings.at(line, "address", None, ("is missing".to_owned(), COLUMNS.to_owned()));
    }
    let labels = met.iter().filter(|column| matches!(column, Column::Label(_))).count();
    if labels > MOST_LABELS {
        findings.at(line, "label", None, (format!("has {labels} columns"), format!("{MOST_LABELS} labels")));
    }
    columns
}

fn column(name: &str) -> Column {
    match name.to_ascii_lowercase().as_str() {
        "address" => Column::Address,
        "port" => Column::Port,
        "domain" => Column::Domain,
        "device" => Column::Device,
        "name" => Column::Name,
        "site" => Column::Site,
        "index" => Column::Index,
        "interface" => Column::Interface,
        "description" => Column::Description,
        "speed" => Column::Speed,
        _ => match name.split_once('.') {
            Some((label, key))
                if label.eq_ignore_ascii_case("label") && rules::text(key, MOST_TEXT).is_ok() =>
            {
                Column::Label(key.trim().to_owned())
            }
            _ => Column::Unknown,
        },
    }
}

/// One row.
struct Row {
    entry: Written,
    index: Option<u32>,
    interface: Entry,
}

impl Row {
    /// Takes a row apart; `None` if something in it is wrong.
    fn read(line: usize, row: &StringRecord, columns: &[Column], findings: &mut Findings) -> Option<Self> {
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let entry = Written::new(Identity { address: nobody, port: None, domain: None });
        let mut read = Self { entry, index: None, interface: Entry::default() };
        let mut is_sound = true;
        if row.len() != columns.len() {
            let refused =
                (format!("has {} cells", row.len()), format!("{}, as the header has", columns.len()));
            findings.at(line, "", None, refused);
            is_sound = false;
        }
        for (cell, column) in row.iter().zip(columns).filter(|(cell, _)| !cell.is_empty()) {
            if let Err(refused) = read.take(column, cell) {
                findings.at(line, &column.name(), Some(cell), refused);
                is_sound = false;
            }
        }
        if is_sound && read.entry.identity.address == nobody {
            findings.at(
                line,
                "address",
                None,
                ("is missing".to_owned(), "an address in each row".to_owned()),
            );
            is_sound = false;
        }
        if is_sound && read.index.is_none() && read.interface != Entry::default() {
            findings.at(line, "index", None, ("is missing".to_owned(), "the interface's ifIndex".to_owned()));
            is_sound = false;
        }
        is_sound.then_some(read)
    }

    fn take(&mut self, column: &Column, cell: &str) -> Result<(), Refused> {
        let Self { entry, index, interface } = self;
        match column {
            Column::Address => rules::address(cell).map(|given| entry.identity.address = given),
            Column::Port => rules::digits(cell, 1, u16::MAX.into())
                .map(|port| entry.identity.port = u16::try_from(port).ok()),
            Column::Domain => rules::digits(cell, 0, u32::MAX.into())
                .map(|domain| entry.identity.domain = u32::try_from(domain).ok()),
            Column::Device => rules::address(cell).map(|given| entry.device = Some(given)),
            Column::Name => rules::text(cell, MOST_TEXT).map(|given| given.clone_into(&mut entry.name)),
            Column::Site => rules::text(cell, MOST_TEXT).map(|given| given.clone_into(&mut entry.site)),
            Column::Label(key) => rules::text(cell, MOST_DESCRIPTION).map(|given| {
                entry.labels.insert(key.clone(), given.to_owned());
            }),
            Column::Index => {
                rules::digits(cell, 1, u32::MAX.into()).map(|given| *index = u32::try_from(given).ok())
            }
            Column::Interface => rules::text(cell, MOST_TEXT).map(|given| interface.name = given.into()),
            Column::Description => {
                rules::text(cell, MOST_DESCRIPTION).map(|given| interface.description = given.into())
            }
            Column::Speed => rules::digits(cell, 0, MOST_SPEED).map(|speed| interface.speed = speed),
            Column::Unknown => Ok(()),
        }
    }

    /// Puts it to what earlier rows say of the exporter.
    fn add_to(self, line: usize, entry: &mut Written, findings: &mut Findings) {
        let mut differs = |key: &str| {
            let wrong = "is another than in an earlier row of this exporter".to_owned();
            findings.at(line, key, None, (wrong, "the same, or nothing".to_owned()));
        };
        for (key, new, old) in
            [("name", self.entry.name, &mut entry.name), ("site", self.entry.site, &mut entry.site)]
        {
            if !new.is_empty() && !old.is_empty() && new != *old {
                differs(key);
            } else if !new.is_empty() {
                *old = new;
            }
        }
        match (self.entry.device, entry.device) {
            (Some(new), Some(old)) if new != old => differs("device"),
            (new, old) => entry.device = old.or(new),
        }
        for (key, new) in self.entry.labels {
            match entry.labels.get(&key) {
                Some(old) if *old != new => differs(&format!("label.{key}")),
                _ => {
                    entry.labels.insert(key, new);
                }
            }
        }
        let Some(index) = self.index else { return };
        if let Err(refused) = rules::add_interface(entry, index, self.interface) {
            findings.at(line, "index", Some(&index.to_string()), refused);
        }
    }
}

impl Column {
    fn name(&self) -> String {
        match self {
            Self::Label(key) => format!("label.{key}"),
            other => format!("{other:?}").to_ascii_lowercase(),
        }
    }
}
