//! The file in TOML. Lines come from the places of keys.

use super::Identity;
use super::rules::{self, Findings, MOST_DESCRIPTION, MOST_LABELS, MOST_SPEED, MOST_TEXT, Refused, Written};
use crate::enrich::table::Entry;
use std::collections::HashMap;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

const KEYS: &str = "address, port, domain, device, name, site, labels, interfaces";
const INTERFACE_KEYS: &str = "name, description, speed";

type Key<'a> = Spanned<DeString<'a>>;
type Value<'a> = Spanned<DeValue<'a>>;

/// Its entries that could be read.
pub(super) fn read(text: &str, findings: &mut Findings) -> Vec<Written> {
    let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut reader = Reader { text, starts, findings };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = reader.line(error.span().map_or(0, |span| span.start));
        let refused =
            (format!("is not TOML: {}", error.message()), "a TOML file (https://toml.io)".to_owned());
        reader.findings.at(line, "", None, refused);
    }
    if errors.is_empty() { reader.root(table.get_ref()) } else { Vec::new() }
}

struct Reader<'a> {
    text: &'a str,
    /// Where lines start.
    starts: Vec<usize>,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    /// The line of a byte, from 1.
    fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    fn refuse(&mut self, path: &str, key: &Key<'_>, value: &Value<'_>, refused: Refused) {
        let is_plain = !matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_));
        let text = self.text;
        let shown = text.get(value.span()).filter(|_| is_plain);
        let line = self.line(key.span().start);
        self.findings.at(line, path, shown, refused);
    }

    fn unknown(&mut self, path: &str, key: &Key<'_>, value: &Value<'_>, allowed: &str) {
        self.refuse(path, key, value, ("does not exist".to_owned(), allowed.to_owned()));
    }

    fn root(&mut self, table: &DeTable<'_>) -> Vec<Written> {
        let mut entries = Vec::new();
        // The line that each identity was first met on.
        let mut met: HashMap<Identity, usize> = HashMap::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            if name != "exporter" {
                self.unknown(name, key, value, "[[exporter]]");
                continue;
            }
            let DeValue::Array(items) = value.get_ref() else {
                self.refuse(name, key, value, (is_a(value), "[[exporter]] for each exporter".to_owned()));
                continue;
            };
            for item in items {
                let line = self.line(item.span().start);
                let DeValue::Table(table) = item.get_ref() else {
                    self.findings.at(
                        line,
                        name,
                        None,
                        (is_a(item), "[[exporter]] for each exporter".to_owned()),
                    );
                    continue;
                };
                let Some(entry) = self.entry(line, table) else { continue };
                match met.get(&entry.identity) {
                    Some(first) => {
                        let wrong =
                            format!("is of the same address, port and domain as the one in line {first}");
                        self.findings.at(line, name, None, (wrong, "each exporter once".to_owned()));
                    }
                    None => {
                        met.insert(entry.identity, line);
                        entries.push(entry);
                    }
                }
            }
        }
        entries
    }

    fn entry(&mut self, line: usize, table: &DeTable<'_>) -> Option<Written> {
        let mut address = None;
        // Where the address is wrong, the rest is looked at all the same.
        let nobody = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let mut entry = Written::new(Identity { address: nobody, port: None, domain: None });
        if !table.keys().any(|key| key.get_ref() == "address") {
            let refused = ("has no address".to_owned(), "address = \"192.0.2.7\" in each".to_owned());
            self.findings.at(line, "exporter", None, refused);
        }
        for (key, value) in table {
            let name: &str = key.get_ref();
            let path = format!("exporter.{name}");
            let taken = match name {
                "address" => {
                    text(value, MOST_TEXT).and_then(rules::address).map(|given| address = Some(given))
                }
                "port" => number(value, 1, u16::MAX.into())
                    .map(|port| entry.identity.port = u16::try_from(port).ok()),
                "domain" => number(value, 0, u32::MAX.into())
                    .map(|domain| entry.identity.domain = u32::try_from(domain).ok()),
                "device" => {
                    text(value, MOST_TEXT).and_then(rules::address).map(|given| entry.device = Some(given))
                }
                "name" => text(value, MOST_TEXT).map(|given| given.clone_into(&mut entry.name)),
                "site" => text(value, MOST_TEXT).map(|given| given.clone_into(&mut entry.site)),
                "labels" => section(value).map(|table| self.labels(table, &mut entry)),
                "interfaces" => section(value).map(|table| self.interfaces(table, &mut entry)),
                _ => Err(("does not exist".to_owned(), KEYS.to_owned())),
            };
            if let Err(refused) = taken {
                self.refuse(&path, key, value, refused);
            }
        }
        entry.identity.address = address?;
        Some(entry)
    }

    fn labels(&mut self, table: &DeTable<'_>, entry: &mut Written) {
        for (key, value) in table {
            let path = format!("exporter.labels.{}", key.get_ref());
            let label = rules::text(key.get_ref(), MOST_TEXT).and_then(|name| Ok((name, label(value)?)));
            let taken = label.and_then(|(name, value)| {
                entry.labels.insert(name.to_owned(), value);
                if entry.labels.len() > MOST_LABELS {
                    return Err(("is one too many".to_owned(), format!("{MOST_LABELS} labels")));
                }
                Ok(())
            });
            if let Err(refused) = taken {
                self.refuse(&path, key, value, refused);
            }
        }
    }

    fn interfaces(&mut self, table: &DeTable<'_>, entry: &mut Written) {
        for (key, value) in table {
            let path = format!("exporter.interfaces.{}", key.get_ref());
            let index = rules::digits(key.get_ref(), 1, u32::MAX.into());
            let taken = index.and_then(|index| {
                let (interface, is_sound) = self.interface(&path, section(value)?);
                let index = u32::try_from(index).unwrap_or(u32::MAX);
                if is_sound { rules::add_interface(entry, index, interface) } else { Ok(()) }
            });
            if let Err(refused) = taken {
                self.refuse(&path, key, value, refused);
            }
        }
    }

    /// An interface, and whether nothing is wrong with it.
    fn interface(&mut self, path: &str, table: &DeTable<'_>) -> (Entry, bool) {
        let (mut entry, mut is_sound) = (Entry::default(), true);
        for (key, value) in table {
            let taken = match key.get_ref().as_ref() {
                "name" => text(value, MOST_TEXT).map(|given| entry.name = given.into()),
                "description" => text(value, MOST_DESCRIPTION).map(|given| entry.description = given.into()),
                "speed" => number(value, 0, MOST_SPEED).map(|speed| entry.speed = speed),
                _ => Err(("does not exist".to_owned(), INTERFACE_KEYS.to_owned())),
            };
            if let Err(refused) = taken {
                is_sound = false;
                self.refuse(&format!("{path}.{}", key.get_ref()), key, value, refused);
            }
        }
        (entry, is_sound)
    }
}

fn text<'a>(value: &'a Value<'_>, most_bytes: usize) -> Result<&'a str, Refused> {
    match value.get_ref() {
        DeValue::String(text) => rules::text(text, most_bytes),
        _ => Err((is_a(value), "text".to_owned())),
    }
}

/// A label's value: text, or what is as good as text.
fn label(value: &Value<'_>) -> Result<String, Refused> {
    match value.get_ref() {
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Boolean(flag) => Ok(flag.to_string()),
        _ => text(value, MOST_DESCRIPTION).map(str::to_owned),
    }
}

fn number(value: &Value<'_>, min: u64, max: u64) -> Result<u64, Refused> {
    match value.get_ref() {
        DeValue::Integer(number) => {
            rules::number(i128::from_str_radix(number.as_str(), number.radix()).ok(), min, max)
        }
        _ => Err((is_a(value), format!("a whole number from {min} to {max}"))),
    }
}

fn section<'a, 'b>(value: &'a Value<'b>) -> Result<&'a DeTable<'b>, Refused> {
    match value.get_ref() {
        DeValue::Table(table) => Ok(table),
        _ => Err((is_a(value), "a section".to_owned())),
    }
}

fn is_a(value: &Value<'_>) -> String {
    let kind = match value.get_ref() {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true/false",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    };
    format!("is {kind}")
}
