//! Takes values out of the layers, typed by the table of options, and gathers what is wrong on the way.

use super::fault::{Fault, Place};
use super::layers::{Given, Placed};
use super::options::{self, Absent, Form, Role, Row};
use super::parse::{self, Parsed};
use http::Uri;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The values of one config, while it is read. Each method returns `None` after it has noted a fault.
#[derive(Debug)]
pub struct Fields {
    role: Role,
    file: PathBuf,
    base: PathBuf,
    given: BTreeMap<String, Placed>,
    variables: Vec<(OsString, OsString)>,
    faults: Vec<Fault>,
    #[cfg(test)]
    pub(super) asked: std::collections::BTreeSet<String>,
}

impl Fields {
    /// Over what was given; relative paths start at the folder of `file`. Keys that are no option are faults, beside
    /// those that are known already.
    pub fn new(role: Role, file: &Path, given: BTreeMap<String, Placed>, mut faults: Vec<Fault>) -> Self {
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let base = absolute.parent().map(Path::to_owned).unwrap_or_default();
        let unknown = given.iter().filter(|(key, placed)| {
            options::find(role, key).is_none() && !is_empty_section(role, key, placed)
        });
        faults.extend(unknown.map(|(key, placed)| unknown_key(role, key, placed)));
        Self {
            role,
            file: file.to_owned(),
            base,
            given,
            variables: Vec::new(),
            faults,
            #[cfg(test)]
            asked: std::collections::BTreeSet::new(),
        }
    }

    /// Beside it the environment, for options that name a variable.
    pub fn in_environment(mut self, variables: &[(OsString, OsString)]) -> Self {
        self.variables = variables.to_vec();
        self
    }

    /// A variable of the environment, whatever its name.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
    }

    /// How many sections of this name stand in the config, of those that may stand several times.
    pub fn sections(&self, key: &str) -> usize {
        let number = |given: &String| {
            let (number, _) = given.strip_prefix(key)?.strip_prefix('[')?.split_once(']')?;
            number.parse::<usize>().ok()
        };
        self.given.keys().filter_map(number).max().map_or(0, |last| last + 1)
    }

    /// All faults, in the order of the file, then those of the environment.
    pub fn into_faults(mut self) -> Vec<Fault> {
        self.faults.sort_by_key(|fault| match &fault.place {
            Place::File(_) => (0, 0, String::new()),
            Place::Line(_, line) => (1, *line, String::new()),
            Place::Variable(name) => (2, 0, name.clone()),
        });
        self.faults
    }

    /// No fault so far.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    /// Is the key, or one below it, given?
    pub fn is_given(&self, key: &str) -> bool {
        let below = |given: &String| given.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
        self.given.contains_key(key) || self.given.keys().any(below)
    }

    /// A number, or `found` when it is not given and the table says that it is found out.
    pub fn number(&mut self, key: &str, found: u64) -> Option<u64> {
        let Form::Number { min, max } = self.form(key) else { return None };
        self.take(key, Some(found), |given| parse::number(given, min, max))
    }

    /// Bytes, or `found`.
    pub fn size(&mut self, key: &str, found: impl FnOnce() -> u64) -> Option<u64> {
        let Form::Size { min, max } = self.form(key) else { return None };
        let found = if self.is_given(key) { None } else { Some(found()) };
        self.take(key, found, |given| parse::size(given, min, max))
    }

    /// Bytes per second, where the option is off unless it is given.
    pub fn rate(&mut self, key: &str) -> Option<Option<u64>> {
        let Form::Rate { min } = self.form(key) else { return None };
        self.take(key, Some(None), |given| parse::rate(given, min).map(Some))
    }

    /// A span of time.
    pub fn span(&mut self, key: &str) -> Option<Duration> {
        let Form::Span { min_ms, max_ms } = self.form(key) else { return None };
        self.take(key, None, |given| parse::span(given, min_ms, max_ms))
    }

    /// true or false.
    pub fn flag(&mut self, key: &str) -> Option<bool> {
        self.take(key, None, parse::flag)
    }

    /// A path, from the config file's folder on.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        let base = self.base.clone();
        self.take(key, None, |given| parse::text(given).map(|text| base.join(text)))
    }

    /// The same, where it need not be given.
    pub fn path_if_given(&mut self, key: &str) -> Option<Option<PathBuf>> {
        let base = self.base.clone();
        self.take(key, Some(None), |given| parse::text(given).map(|text| Some(base.join(text))))
    }

    /// An address, or `found`.
    pub fn address(&mut self, key: &str, found: SocketAddr) -> Option<SocketAddr> {
        self.take(key, Some(found), parse::address)
    }

    /// Addresses; none when they are not given.
    pub fn addresses(&mut self, key: &str) -> Option<Vec<SocketAddr>> {
        let Form::Addresses { any_port } = self.form(key) else { return None };
        self.take(key, Some(Vec::new()), |given| parse::addresses(given, any_port))
    }

    /// Endpoints.
    pub fn endpoints(&mut self, key: &str) -> Option<Vec<Uri>> {
        self.take(key, None, parse::endpoints)
    }

    /// Names; none when they are not given.
    pub fn names(&mut self, key: &str) -> Option<Vec<String>> {
        self.take(key, Some(Vec::new()), parse::names)
    }

    /// A number, where the option is off unless it is given.
    pub fn number_if_given(&mut self, key: &str) -> Option<Option<u64>> {
        let Form::Number { min, max } = self.form(key) else { return None };
        self.take(key, Some(None), |given| parse::number(given, min, max).map(Some))
    }

    /// Networks; `None` inside when they are not given.
    pub fn networks(&mut self, key: &str) -> Option<Option<Vec<IpNet>>> {
        self.take(key, Some(None), |given| parse::networks(given).map(Some))
    }

    /// Networks with sampling rates; none when they are not given.
    pub fn network_rates(&mut self, key: &str) -> Option<Vec<(IpNet, u32)>> {
        self.take(key, Some(Vec::new()), parse::network_rates)
    }

    /// A log filter.
    pub fn filter(&mut self, key: &str) -> Option<String> {
        self.take(key, None, parse::filter)
    }

    /// A word, where it need not be given.
    pub fn word_if_given(&mut self, key: &str) -> Option<Option<&'static str>> {
        let Form::Word(words) = self.form(key) else { return None };
        self.take(key, Some(None), |given| parse::word(given, words).map(Some))
    }

    /// A word.
    pub fn word(&mut self, key: &str) -> Option<&'static str> {
        let Form::Word(words) = self.form(key) else { return None };
        self.take(key, None, |given| parse::word(given, words))
    }

    /// Text, where it need not be given.
    pub fn text_if_given(&mut self, key: &str) -> Option<Option<String>> {
        self.take(key, Some(None), |given| parse::text(given).map(Some))
    }

    /// Whether an empty section is there.
    pub fn section(&mut self, key: &str) -> Option<bool> {
        self.take(key, Some(false), parse::section)
    }

    /// Notes that a key is missing, under a condition that the table cannot say.
    pub fn missing(&mut self, key: &str, wrong: &str, allowed: &str) {
        let place = self.place_of(key);
        let (wrong, allowed) = (wrong.to_owned(), allowed.to_owned());
        self.faults.push(Fault { place, key: key.to_owned(), value: None, wrong, allowed });
    }

    /// Where a key that is not given could stand: at its section, if that may stand several times.
    fn place_of(&self, key: &str) -> Place {
        let file = || Place::File(self.file.clone());
        let Some((section, _)) = key.split_once(']') else { return file() };
        let beside = self
            .given
            .iter()
            .filter(|(given, _)| given.strip_prefix(section).is_some_and(|rest| rest.starts_with(']')));
        let line = |place: &Place| if let Place::Line(_, line) = place { *line } else { usize::MAX };
        let first = beside.map(|(_, placed)| &placed.place).min_by_key(|place| line(place));
        first.cloned().unwrap_or_else(file)
    }

    /// Notes that a value is wrong beside the others.
    pub fn refuse(&mut self, key: &str, wrong: String, allowed: &str) {
        let placed = self.given.get(key);
        let place = placed.map_or_else(|| Place::File(self.file.clone()), |placed| placed.place.clone());
        let value = placed.map(|placed| placed.given.as_toml());
        self.faults.push(Fault { place, key: key.to_owned(), value, wrong, allowed: allowed.to_owned() });
    }

    fn form(&self, key: &str) -> Form {
        options::find(self.role, key).map_or(Form::Flag, |row| row.form)
    }

    fn take<T>(&mut self, key: &str, found: Option<T>, parse: impl Fn(&Given) -> Parsed<T>) -> Option<T> {
        #[cfg(test)]
        self.asked.insert(options::without_numbers(key).into_owned());
        let row = options::find(self.role, key)?;
        match (self.given.get(key), row.default) {
            (Some(placed), _) => match parse(&placed.given) {
                Ok(value) => Some(value),
                Err(wrong) => {
                    self.refuse(key, wrong, &row.form.allowed());
                    None
                }
            },
            (None, Absent::Is(value)) => parse(&Given::Plain(value.to_owned())).ok(),
            (None, Absent::Required) => {
                self.missing(key, "is missing", &row.form.allowed());
                None
            }
            (None, Absent::Found(_) | Absent::Off(_)) => found,
        }
    }
}

/// A section of ours with nothing in it, as when all its lines are commented out.
fn is_empty_section(role: Role, key: &str, placed: &Placed) -> bool {
    let key = options::without_numbers(key);
    let below = |row: &Row| row.key.strip_prefix(&*key).is_some_and(|rest| rest.starts_with('.'));
    let is_ours = options::rows().any(|row| row.belongs_to(role) && below(row));
    is_ours && placed.given == Given::Section(Vec::new())
}

fn unknown_key(role: Role, key: &str, placed: &Placed) -> Fault {
    if options::is_list_of_sections(role, key) {
        let allowed = format!("[[{key}]], as often as needed");
        let (place, wrong) = (placed.place.clone(), "is no list of sections".to_owned());
        return Fault { place, key: key.to_owned(), value: None, wrong, allowed };
    }
    let (whole, key) = (key, &*options::without_numbers(key));
    let ours = || options::rows().filter(|row| row.belongs_to(role));
    let other = options::rows().find(|row| row.key == key);
    let section = |key: &str| key.rsplit_once('.').map(|(section, _)| section.to_owned()).unwrap_or_default();
    let near = ours().max_by(|a, b| nearness(a, key).total_cmp(&nearness(b, key)));
    let wrong = match (other.and_then(|row| row.role), near) {
        (Some(role), _) => format!("belongs to the config of a {}", role.label()),
        (None, Some(row)) if nearness(row, key) > 0.6 => format!("does not exist; did you mean {}?", row.key),
        _ => "does not exist".to_owned(),
    };
    let mut allowed: Vec<_> =
        ours().map(|row| row.key).filter(|other| section(other) == section(key)).collect();
    if allowed.is_empty() || section(key).is_empty() {
        allowed = ours().map(|row| row.key).collect();
    }
    // What stands where a secret's file is to be named may be the secret.
    let is_secret = key.starts_with(super::snmp::SECTION);
    Fault {
        place: placed.place.clone(),
        key: whole.to_owned(),
        value: (!is_secret).then(|| placed.given.as_toml()),
        wrong,
        allowed: allowed.join(", "),
    }
}

/// How much a row's key looks like `key`: 1 is the same. The last name counts most: sections are forgotten more
/// often than misspelt.
fn nearness(row: &Row, key: &str) -> f64 {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let whole = strsim::normalized_damerau_levenshtein(row.key, key);
    whole.max(0.95 * strsim::normalized_damerau_levenshtein(&last(row.key), &last(key)))
}
