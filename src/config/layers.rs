//! The layers of a config: the file, and over it the environment. What comes out is one value per key, as it was
//! given, with the place it was given at; nothing is converted yet.
//!
//! The merging is the `config` crate's. That crate, left to itself, rounds 1.7 to 2, takes "12" for 12, and names
//! neither file nor line; so its values are taken untyped and read by [`super::parse`], and lines come from a
//! second look at the file with `toml`.

use super::fault::{Fault, Place};
use ::config::{ConfigError, Map, Source, Value, ValueKind};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Environment variables that begin so are ours.
const PREFIX: &str = "FLOWPROXY__";

/// A value as it was given.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// Text in the file.
    Text(String),
    /// From the environment or a default, where everything is text.
    Plain(String),
    /// A whole number in the file.
    Number(i128),
    /// A number with a fraction in the file.
    Float(f64),
    /// true or false in the file.
    Flag(bool),
    /// A list in the file.
    List(Vec<Given>),
    /// A section, with the names in it.
    Section(Vec<String>),
}

impl Given {
    /// As TOML writes it.
    pub fn as_toml(&self) -> String {
        match self {
            Self::Text(text) | Self::Plain(text) => toml::Value::String(text.clone()).to_string(),
            Self::Number(value) => value.to_string(),
            Self::Float(value) => toml::Value::Float(*value).to_string(),
            Self::Flag(value) => value.to_string(),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(Self::as_toml).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Section(keys) => format!("{{ {} }}", keys.join(", ")),
        }
    }

    /// What is wrong when another kind of value is wanted.
    pub fn is_a(&self) -> String {
        let kind = match self {
            Self::Text(_) | Self::Plain(_) => "text",
            Self::Number(_) => "a number",
            Self::Float(_) => "a number with a fraction",
            Self::Flag(_) => "true/false",
            Self::List(_) => "a list",
            Self::Section(_) => "a section",
        };
        format!("is {kind}")
    }

    fn from_value(value: Value) -> Self {
        let variable = value.origin().is_some_and(|origin| origin.starts_with(PREFIX));
        match value.kind {
            ValueKind::Nil => Self::Plain(String::new()),
            ValueKind::Boolean(value) => Self::Flag(value),
            ValueKind::I64(value) => Self::Number(value.into()),
            ValueKind::I128(value) => Self::Number(value),
            ValueKind::U64(value) => Self::Number(value.into()),
            ValueKind::U128(value) => Self::Number(i128::try_from(value).unwrap_or(i128::MAX)),
            ValueKind::Float(value) => Self::Float(value),
            ValueKind::String(text) if variable => Self::Plain(text),
            ValueKind::String(text) => Self::Text(text),
            ValueKind::Array(items) => Self::List(items.into_iter().map(Self::from_value).collect()),
            ValueKind::Table(table) => Self::Section(table.into_keys().collect()),
        }
    }
}

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The value.
    pub given: Given,
    /// Where it was given.
    pub place: Place,
}

/// Values by their keys.
pub type Found = BTreeMap<String, Placed>;

/// Every key that was given, to its value. `is_leaf` says which keys are options, so that a section in the place
/// of a value is seen; `is_list` which sections may stand several times: `key[0].name` is in the first of them. Beside it
/// the variables that could not be read.
pub fn read(
    file: &Path,
    variables: &[(OsString, OsString)],
    is_leaf: impl Fn(&str) -> bool,
    is_list: impl Fn(&str) -> bool,
) -> Result<(Found, Vec<Fault>), Vec<Fault>> {
    let whole = |wrong: String, allowed: &str| Fault {
        place: Place::File(file.to_owned()),
        key: String::new(),
        value: None,
        wrong,
        allowed: allowed.to_owned(),
    };
    let text = std::fs::read_to_string(file)
        .map_err(|error| vec![whole(format!("cannot be read: {error}"), "a readable TOML file")])?;
    let lines = lines(file, &text)?;
    let (mut variables, faults) = Variables::new(variables);
    let unknown = variables.split_off(&is_leaf);
    let layers = ::config::Config::builder()
        .add_source(::config::File::from_str(&text, ::config::FileFormat::Toml))
        .add_source(variables)
        .build()
        .map_err(|error| vec![whole(format!("cannot be read: {error}"), "a TOML file")])?;
    let mut found = Found::new();
    flatten("", layers.cache, (&is_leaf, &is_list), &mut |key, value: Value| {
        let place = match (value.origin(), lines.get(&key)) {
            (Some(variable), _) => Place::Variable(variable.to_owned()),
            (None, Some(line)) => Place::Line(file.to_owned(), *line),
            (None, None) => Place::File(file.to_owned()),
        };
        found.insert(key, Placed { given: Given::from_value(value), place });
    });
    found.extend(unknown.0.into_iter().map(|(name, value)| {
        (key_of(&name), Placed { given: Given::Plain(value), place: Place::Variable(name) })
    }));
    Ok((found, faults))
}

/// The options that are given, whoever's they are: the top-level names of the file and the keys of the variables.
/// For telling the roles apart; faults are [`read`]'s.
pub fn outline(file: &Path, variables: &[(OsString, OsString)]) -> Vec<(String, bool)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let (table, _) = DeTable::parse_recoverable(&text);
    let is_section = |value: &DeValue<'_>| matches!(value, DeValue::Table(_));
    let names = table.get_ref().iter().map(|(name, value)| {
        let name: &str = name.get_ref();
        (name.to_owned(), is_section(value.get_ref()))
    });
    let variables =
        variables.iter().filter_map(|(name, _)| name.to_str()).filter(|name| name.starts_with(PREFIX));
    let variables = variables.map(|name| {
        let key = key_of(name);
        let section = key.split('.').next().unwrap_or_default().to_owned();
        let is_section = section != key;
        (section, is_section)
    });
    names.chain(variables).collect()
}

/// The key that a variable of ours sets.
fn key_of(variable: &str) -> String {
    variable.strip_prefix(PREFIX).unwrap_or(variable).to_lowercase().replace("__", ".")
}

fn flatten(
    prefix: &str,
    value: Value,
    (is_leaf, is_list): (&impl Fn(&str) -> bool, &impl Fn(&str) -> bool),
    each: &mut impl FnMut(String, Value),
) {
    let is_table = |value: &Value| matches!(value.kind, ValueKind::Table(_));
    match value.kind {
        ValueKind::Array(items) if !items.is_empty() && items.iter().all(is_table) && is_list(prefix) => {
            for (number, item) in items.into_iter().enumerate() {
                flatten(&format!("{prefix}[{number}]"), item, (is_leaf, is_list), each);
            }
        }
        ValueKind::Table(table) if prefix.is_empty() || (!is_leaf(prefix) && !table.is_empty()) => {
            for (name, value) in table {
                let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
                flatten(&key, value, (is_leaf, is_list), each);
            }
        }
        _ => each(prefix.to_owned(), value),
    }
}

/// The line of every key in the file; or what is wrong with the file as TOML, all of it.
fn lines(file: &Path, text: &str) -> Result<BTreeMap<String, usize>, Vec<Fault>> {
    let line_at = |offset: usize| text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    let fault = |offset: Option<usize>, wrong: String, allowed: &str| Fault {
        place: offset.map_or_else(
            || Place::File(file.to_owned()),
            |offset| Place::Line(file.to_owned(), line_at(offset)),
        ),
        key: String::new(),
        value: None,
        wrong,
        allowed: allowed.to_owned(),
    };
    let (table, mut errors) = DeTable::parse_recoverable(text);
    errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
    if !errors.is_empty() {
        let faults = errors.iter().map(|error| {
            let wrong = format!("is not TOML: {}", error.message());
            fault(error.span().map(|span| span.start), wrong, "a TOML file (https://toml.io)")
        });
        return Err(faults.collect());
    }
    let (mut lines, mut strange) = (BTreeMap::new(), Vec::new());
    walk("", table.get_ref(), &mut |key, name, offset| {
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
            lines.insert(key, line_at(offset));
        } else {
            let wrong = format!("has a key that cannot be one of ours: {name:?}");
            strange.push(fault(Some(offset), wrong, "names of letters, digits and _"));
        }
    });
    if strange.is_empty() { Ok(lines) } else { Err(strange) }
}

fn walk(prefix: &str, table: &DeTable<'_>, each: &mut impl FnMut(String, &str, usize)) {
    for (name, value) in table {
        let text: &str = name.get_ref();
        let key = if prefix.is_empty() { text.to_owned() } else { format!("{prefix}.{text}") };
        match value.get_ref() {
            DeValue::Table(inner) => walk(&key, inner, each),
            DeValue::Array(items) => {
                for (number, item) in items.iter().enumerate() {
                    if let DeValue::Table(inner) = item.get_ref() {
                        walk(&format!("{key}[{number}]"), inner, each);
                    }
                }
            }
            _ => {}
        }
        each(key, text, name.span().start);
    }
}

/// The environment as a source for the `config` crate; each value's origin is its variable.
#[derive(Clone, Debug)]
struct Variables(Vec<(String, String)>);

impl Variables {
    /// Takes those that begin with [`PREFIX`]; beside them those that could not be read.
    fn new(all: &[(OsString, OsString)]) -> (Self, Vec<Fault>) {
        let (mut ours, mut faults) = (Vec::new(), Vec::new());
        for (name, value) in all {
            let shown = name.to_string_lossy().into_owned();
            let Some(key) = shown.strip_prefix(PREFIX) else { continue };
            let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
            let fault = |wrong: &str, allowed: &str| Fault {
                place: Place::Variable(shown.clone()),
                key: String::new(),
                value: None,
                wrong: wrong.to_owned(),
                allowed: allowed.to_owned(),
            };
            if !key.bytes().all(plain) || key.split("__").any(str::is_empty) {
                faults.push(fault("names no option", "FLOWPROXY__SECTION__NAME, in capitals"));
            } else if let Some(value) = value.to_str() {
                ours.push((shown.clone(), value.to_owned()));
            } else {
                faults.push(fault("is not UTF-8", "UTF-8 text"));
            }
        }
        ours.sort();
        (Self(ours), faults)
    }

    /// Takes out those that set no option: merged, they could push aside one that the file sets.
    fn split_off(&mut self, is_leaf: &impl Fn(&str) -> bool) -> Self {
        let (known, unknown) =
            std::mem::take(&mut self.0).into_iter().partition(|(name, _)| is_leaf(&key_of(name)));
        self.0 = known;
        Self(unknown)
    }
}

impl Source for Variables {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let entry = |(name, value): &(String, String)| (key_of(name), Value::new(Some(name), value.clone()));
        Ok(self.0.iter().map(entry).collect())
    }
}
