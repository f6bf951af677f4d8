//! Reads values, strictly: a number is not a text, 1.7 is not 2, and a span of time has a unit.
//!
//! Each function's error is what is wrong, without what is allowed; [`Form::allowed`](super::options::Form) adds that.

use super::layers::Given;
use http::Uri;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A result whose error completes the sentence "KEY = VALUE ...".
pub type Parsed<T> = Result<T, String>;

const SIZES: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];
const SPANS_MS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A whole number.
pub fn number(given: &Given, min: u64, max: u64) -> Parsed<u64> {
    let value = match given {
        Given::Number(value) => u64::try_from(*value).map_err(|_| "is negative".to_owned())?,
        Given::Plain(text) => digits(text)?,
        other => return Err(other.is_a()),
    };
    within(value, min, max)
}

/// Bytes, as a number or as text with a unit.
pub fn size(given: &Given, min: u64, max: u64) -> Parsed<u64> {
    let value = match given {
        Given::Number(value) => u64::try_from(*value).map_err(|_| "is negative".to_owned())?,
        Given::Text(text) | Given::Plain(text) => size_of(text)?,
        other => return Err(other.is_a()),
    };
    within(value, min, max)
}

/// Bytes per second; the text may end in "/s".
pub fn rate(given: &Given, min: u64) -> Parsed<u64> {
    match given {
        Given::Text(text) | Given::Plain(text) => {
            let text = text.strip_suffix("/s").unwrap_or(text);
            size(&Given::Plain(text.to_owned()), min, u64::MAX)
        }
        other => size(other, min, u64::MAX),
    }
}

/// A span of time: a whole number and its unit.
pub fn span(given: &Given, min_ms: u64, max_ms: u64) -> Parsed<Duration> {
    let text = match given {
        Given::Text(text) | Given::Plain(text) => text,
        Given::Number(_) => return Err("has no unit".to_owned()),
        other => return Err(other.is_a()),
    };
    let (number, unit) = split_unit(text)?;
    let factor = SPANS_MS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let factor =
        factor.ok_or_else(|| if unit.is_empty() { "has no unit".to_owned() } else { no_unit(unit) })?;
    let ms = digits(number)?.checked_mul(factor).ok_or_else(too_large)?;
    within(ms, min_ms, max_ms).map(Duration::from_millis)
}

/// true or false.
pub fn flag(given: &Given) -> Parsed<bool> {
    match given {
        Given::Flag(value) => Ok(*value),
        Given::Plain(text) if text == "true" => Ok(true),
        Given::Plain(text) if text == "false" => Ok(false),
        Given::Plain(_) => Err("is neither".to_owned()),
        other => Err(other.is_a()),
    }
}

/// Text that is not empty.
pub fn text(given: &Given) -> Parsed<String> {
    match given {
        Given::Text(text) | Given::Plain(text) if text.is_empty() => Err("is empty".to_owned()),
        Given::Text(text) | Given::Plain(text) => Ok(text.clone()),
        other => Err(other.is_a()),
    }
}

/// One of `words`.
pub fn word(given: &Given, words: &[&'static str]) -> Parsed<&'static str> {
    let text = text(given)?;
    if ["md5", "des", "3des"].contains(&text.as_str()) {
        return Err("is broken, and not used here: give the device's user a better one".to_owned());
    }
    let found = words.iter().find(|word| **word == text);
    found.copied().ok_or_else(|| "is none of the words for it".to_owned())
}

/// An IP address with a port.
pub fn address(given: &Given) -> Parsed<SocketAddr> {
    let text = text(given)?;
    text.parse().map_err(|_| match text.parse::<std::net::IpAddr>() {
        Ok(_) => "has no port".to_owned(),
        Err(_) => "is not an IP address with a port".to_owned(),
    })
}

/// A list of addresses.
pub fn addresses(given: &Given, any_port: bool) -> Parsed<Vec<SocketAddr>> {
    let one = |item: &Given| {
        let address = address(item)?;
        if address.port() == 0 && !any_port { Err("has port 0".to_owned()) } else { Ok(address) }
    };
    list(given, one)
}

/// A list of endpoints, at least one.
pub fn endpoints(given: &Given) -> Parsed<Vec<Uri>> {
    let endpoints = list(given, endpoint)?;
    if endpoints.is_empty() { Err("is empty".to_owned()) } else { Ok(endpoints) }
}

/// A list of names, at least one.
pub fn names(given: &Given) -> Parsed<Vec<String>> {
    let names = list(given, text)?;
    if names.is_empty() { Err("is empty".to_owned()) } else { Ok(names) }
}

/// A list of networks, at least one. An address alone is a network of one.
pub fn networks(given: &Given) -> Parsed<Vec<IpNet>> {
    let networks = list(given, network)?;
    if networks.is_empty() { Err("is empty: nobody could send".to_owned()) } else { Ok(networks) }
}

/// A list of networks with sampling rates, at least one; no network twice.
pub fn network_rates(given: &Given) -> Parsed<Vec<(IpNet, u32)>> {
    let rates = list(given, network_rate)?;
    let mut networks = rates.iter().map(|(network, _)| network).enumerate();
    match networks.find(|(place, network)| rates.iter().take(*place).any(|(other, _)| other == *network)) {
        Some((_, twice)) => Err(format!("names {twice} twice")),
        None if rates.is_empty() => Err("is empty".to_owned()),
        None => Ok(rates),
    }
}

fn network_rate(given: &Given) -> Parsed<(IpNet, u32)> {
    let text = text(given)?;
    let (network, rate) = text.split_once('=').ok_or_else(|| "has no rate".to_owned())?;
    let network = network_of(network.trim())?;
    let rate =
        within(digits(rate.trim()).map_err(|wrong| format!("has a rate that {wrong}"))?, 1, u32::MAX.into());
    let rate = rate.map_err(|wrong| format!("has a rate that {wrong}"))?;
    Ok((network, u32::try_from(rate).unwrap_or(u32::MAX)))
}

fn network(given: &Given) -> Parsed<IpNet> {
    network_of(&text(given)?)
}

fn network_of(text: &str) -> Parsed<IpNet> {
    let alone = text.parse::<IpAddr>().map(IpNet::from);
    let network = alone
        .or_else(|_| text.parse::<IpNet>())
        .map_err(|_| "is neither an IP address nor a network such as 10.0.0.0/8".to_owned())?;
    let is_mapped = matches!(network.addr(), IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    if is_mapped {
        return Err("is IPv4 written as IPv6: write it as IPv4".to_owned());
    }
    match network.trunc() {
        whole if whole == network => Ok(network),
        whole => Err(format!("is an address within a network: did you mean {whole}?")),
    }
}

/// A log filter.
pub fn filter(given: &Given) -> Parsed<String> {
    let text = text(given)?;
    match tracing_subscriber::EnvFilter::builder().parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("is not a log filter ({error})")),
    }
}

/// An empty section, or true.
pub fn section(given: &Given) -> Parsed<bool> {
    match given {
        Given::Section(keys) if keys.is_empty() => Ok(true),
        Given::Section(keys) => Err(format!("has options ({})", keys.join(", "))),
        other => flag(other),
    }
}

/// Bytes as the largest unit that divides them.
pub fn size_text(bytes: u64) -> String {
    let units = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1_u64 << 10)];
    let unit = units.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| bytes.to_string(), |(name, factor)| format!("{} {name}", bytes / factor))
}

/// Milliseconds as the largest unit that divides them.
pub fn span_text(ms: u64) -> String {
    let unit = SPANS_MS.iter().find(|(_, factor)| ms > 0 && ms.is_multiple_of(*factor));
    unit.map_or_else(|| format!("{ms}ms"), |(name, factor)| format!("{}{name}", ms / factor))
}

fn endpoint(given: &Given) -> Parsed<Uri> {
    let uri: Uri = text(given)?.parse().map_err(|error| format!("is not a URL ({error})"))?;
    if uri.scheme_str() != Some("https") {
        return Err("does not begin with https://: there is no way to send unencrypted".to_owned());
    }
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    if authority.contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err("has more than a host and a port".to_owned());
    }
    match uri.port_u16() {
        None => Err("has no port".to_owned()),
        Some(0) => Err("has port 0".to_owned()),
        Some(_) => Ok(uri),
    }
}

fn list<T>(given: &Given, one: impl Fn(&Given) -> Parsed<T>) -> Parsed<Vec<T>> {
    match given {
        Given::List(items) => each(items, one),
        Given::Plain(text) if text.contains(',') => {
            let items: Vec<_> = text.split(',').map(|item| Given::Plain(item.trim().to_owned())).collect();
            each(&items, one)
        }
        alone => one(alone).map(|value| vec![value]),
    }
}

/// All items, or what is wrong with each that is wrong.
fn each<T>(items: &[Given], one: impl Fn(&Given) -> Parsed<T>) -> Parsed<Vec<T>> {
    let (mut values, mut wrongs) = (Vec::new(), Vec::new());
    for item in items {
        match one(item) {
            Ok(value) => values.push(value),
            Err(wrong) => wrongs.push(format!("{} {wrong}", item.as_toml())),
        }
    }
    if wrongs.is_empty() { Ok(values) } else { Err(format!("is wrong: {}", wrongs.join(", "))) }
}

fn size_of(text: &str) -> Parsed<u64> {
    let (number, unit) = split_unit(text)?;
    let factor = if unit.is_empty() {
        1
    } else {
        SIZES
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor)
            .ok_or_else(|| no_unit(unit))?
    };
    digits(number)?.checked_mul(factor).ok_or_else(too_large)
}

/// The number, which is not empty, and its unit, which may be.
fn split_unit(text: &str) -> Parsed<(&str, &str)> {
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = number.trim_end_matches(' ');
    if number.is_empty() { Err("is not a whole number".to_owned()) } else { Ok((number, unit)) }
}

fn digits(text: &str) -> Parsed<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is not a whole number".to_owned());
    }
    text.parse().map_err(|_| too_large())
}

fn within(value: u64, min: u64, max: u64) -> Parsed<u64> {
    match value {
        value if value < min => Err("is too small".to_owned()),
        value if value > max => Err(too_large()),
        value => Ok(value),
    }
}

fn too_large() -> String {
    "is too large".to_owned()
}

fn no_unit(unit: &str) -> String {
    format!("has a unit that does not exist here ({unit})")
}
