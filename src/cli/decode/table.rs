//! Text for people: a line for each datagram, and indented below it what it holds.
//!
//! ```text
//! datagram 2  192.0.2.1:50000 > 198.51.100.1:2055  2026-11-25T01:16:26.376Z  netflow-v9 domain 0  96 bytes
//!   data, template 256
//!     sourceIPv4Address       198.51.100.7
//!     octetDeltaCount         9340
//! ```
//!
//! Values are those of the JSON lines, but that times are written as such, and that vendors' elements have their names
//! and types where we know them. What an exporter sends as text cannot move the terminal's cursor: control characters are
//! escaped.

use super::header::Header;
use super::lists;
use super::show::{Datagram, Fault, FileEnd, Record, Show, Template, UnknownSample, title};
use crate::batch::read::Group;
use crate::cli::counted;
use crate::flow::element::Type;
use crate::flow::json::{self, Format};
use crate::flow::list::Kind;
use crate::flow::record::{kind_name, protocol_name, template_source_name};
use crate::flow::{Exporter, Field, SFLOW, time};
use crate::proto::TemplateSource;
use crate::wire::{Step, Unit};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;
use std::io::{self, Write};

/// Names are padded to this, or to the longest of their record if that is less.
const MOST_NAME_CHARS: usize = 40;

/// Values are padded to this where bytes follow.
const VALUE_CHARS: usize = 28;

/// Digits of bytes that are shown of one value; `--raw` shows all.
const MOST_HEX_CHARS: usize = 128;

/// Records of sFlow that travel whole.
const SFLOW_RECORD: Field = Field { enterprise: SFLOW, element: 1, width: Field::VARIABLE };

/// Derived keys that are milliseconds since 1970.
const TIME_KEYS: [&str; 2] = ["flowStartMilliseconds", "flowEndMilliseconds"];

pub(super) struct Table<'a, W> {
    out: &'a mut W,
    with_raw: bool,
    /// The datagram whose line was written last.
    current: u64,
    fields: Vec<u8>,
}

impl<'a, W: Write> Table<'a, W> {
    pub(super) fn new(out: &'a mut W, file: Option<&str>, with_raw: bool) -> Self {
        if let Some(file) = file {
            // What cannot be written now cannot be later: that is told then.
            let _ = writeln!(out, "file {file}");
        }
        Table { out, with_raw, current: 0, fields: Vec::new() }
    }

    /// Says whose it is that follows, if that is not the datagram in hand.
    fn of_datagram(&self, number: u64) -> String {
        if number == self.current { String::new() } else { format!(" of datagram {number}, held until now") }
    }

    /// A field: its name, the lines of its value, and its bytes behind the first of those.
    fn row(&mut self, name: &str, width: usize, lines: &[String], bytes: &str) -> io::Result<()> {
        let (value, more) = lines.split_first().map_or(("", lines), |(first, more)| (first.as_str(), more));
        match (value, bytes) {
            ("", "") => writeln!(self.out, "    {name}"),
            (value, "") => writeln!(self.out, "    {name:<width$}  {value}"),
            (value, bytes) => writeln!(self.out, "    {name:<width$}  {value:<VALUE_CHARS$}  {bytes}"),
        }?;
        more.iter().try_for_each(|line| writeln!(self.out, "    {:width$}  {line}", ""))
    }
}

impl<W: Write> Show for Table<'_, W> {
    fn datagram(&mut self, datagram: &Datagram) -> io::Result<()> {
        let Datagram { number, exporter, destination, received, bytes, header, .. } = *datagram;
        self.current = number;
        let way = if is_known(exporter) {
            format!("{} > {}  ", end_text(exporter), end_text(destination))
        } else {
            String::new()
        };
        let mut at = Vec::new();
        time::write_rfc3339_millis(&mut at, received);
        let at = String::from_utf8_lossy(&at);
        let protocol = header.map_or("unknown".to_owned(), header_text);
        writeln!(self.out, "datagram {number}  {way}{at}  {protocol}  {bytes} bytes")
    }

    fn template(&mut self, template: &Template) -> io::Result<()> {
        let kind = if template.is_options { "options template" } else { "template" };
        if template.layout.is_none() {
            return writeln!(self.out, "  {kind} {} is withdrawn", template.id);
        }
        let (scope, fields) = template.parts();
        let is_v9 = template.layout.as_ref().is_some_and(|layout| layout.v9_scopes());
        let named = |is_scope: bool, field: &Field| {
            let name = title(is_scope && is_v9, *field);
            (if is_scope { format!("scope {name}") } else { name }, *field)
        };
        let rows: Vec<(String, Field)> = scope
            .iter()
            .map(|field| named(true, field))
            .chain(fields.iter().map(|field| named(false, field)))
            .collect();
        let width = width(rows.iter().map(|(name, _)| name.as_str()));
        let number_text = |field: &Field| match field.enterprise {
            0 => field.element.to_string(),
            enterprise => format!("{enterprise}.{}", field.element),
        };
        let number_width = rows.iter().map(|(_, field)| number_text(field).len()).max().unwrap_or(0);
        writeln!(self.out, "  {kind} {}, {} fields", template.id, rows.len())?;
        for (name, field) in rows {
            let number = number_text(&field);
            let length =
                if field.width == Field::VARIABLE { "variable".to_owned() } else { field.width.to_string() };
            writeln!(self.out, "    {name:<width$}  {number:>number_width$}  {length}")?;
        }
        Ok(())
    }

    fn record(&mut self, record: &Record<'_>) -> io::Result<()> {
        let whose = self.of_datagram(record.datagram);
        let source = match record.run.template_source {
            TemplateSource::Heard => String::new(),
            source => format!(" ({})", template_source_name(source)),
        };
        let template = match record.run.template {
            0 => String::new(),
            template => format!(", template {template}{source}"),
        };
        writeln!(self.out, "  {}{template}{whose}", kind_name(record.group.kind).replace('_', " "))?;
        self.fields.clear();
        record.write_fields(&mut self.fields);
        // It is our own JSON: it can be read.
        let Pairs(pairs) = serde_json::from_slice(&self.fields).unwrap_or_default();
        let rows: Vec<(&str, Vec<String>, String)> =
            pairs.iter().map(|(key, value)| row(record, key, value, self.with_raw)).collect();
        let width = width(rows.iter().map(|(name, ..)| *name));
        for (name, lines, bytes) in &rows {
            self.row(name, width, lines, bytes)?;
        }
        Ok(())
    }

    fn unknown_sample(&mut self, sample: &UnknownSample) -> io::Result<()> {
        let UnknownSample { enterprise, format, offset, bytes, .. } = sample;
        let count = bytes.len();
        writeln!(
            self.out,
            "  unknown sample of enterprise {enterprise}, format {format}: {count} bytes at byte {offset}, not decoded"
        )?;
        if self.with_raw && count > 0 { writeln!(self.out, "    {}", hex(bytes)) } else { Ok(()) }
    }

    fn fault(&mut self, fault: &Fault) -> io::Result<()> {
        let whose = self.of_datagram(fault.datagram);
        let (reason, text) = (fault.reason(), fault.text());
        writeln!(
            self.out,
            "  fault at byte {}{whose}: {text} ({reason}, {} bytes)",
            fault.offset, fault.bytes
        )
    }

    fn sequence(&mut self, _datagram: &Datagram, unit: Unit, step: Step) -> io::Result<()> {
        let text = match step {
            Step::Gap(missing) => format!("{missing} {unit} before this are missing"),
            Step::Late(late) => format!("late: {late} of the missing {unit}"),
            Step::Duplicate => "was there before".to_owned(),
            Step::Reset => "begins anew".to_owned(),
            Step::Dropped(lost) => format!("{lost} {unit} more were lost by the exporter itself"),
        };
        writeln!(self.out, "  sequence: {text}")
    }

    fn end(&mut self, end: &FileEnd<'_>) -> io::Result<()> {
        if let Some(text) = end.undescribed() {
            writeln!(self.out, "fault: {text}")?;
        }
        match end.error.filter(|_| !end.is_told_beside) {
            Some(error) => writeln!(self.out, "fault: {error}"),
            None if end.flow == 0 && end.error.is_none() => {
                writeln!(self.out, "{}", without_flow(end.counts.packets))
            }
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn without_flow(packets: u64) -> String {
    match packets {
        0 => "no packets in the file".to_owned(),
        packets => {
            let packets = counted(packets, "packet", "packets");
            format!("no flow datagrams in {packets}; --summary tells what is there")
        }
    }
}

/// A field as it is shown: its name, the lines of its value, and if asked for its bytes.
fn row<'a>(
    record: &'a Record<'_>,
    key: &'a str,
    value: &Value,
    with_raw: bool,
) -> (&'a str, Vec<String>, String) {
    let Record { group, unpacked, place, index, .. } = *record;
    let Some(columns) = unpacked.columns(place, key) else {
        let value = if TIME_KEYS.contains(&key) { time_text(value) } else { plain(value) };
        return (key, vec![value], String::new());
    };
    let element_type = columns.field.element_type().filter(|_| !columns.is_scope);
    let lines = match element_type {
        _ if columns.field == SFLOW_RECORD => each_line(value, |value| sflow_record(&plain(value))),
        Some(_) if Kind::of(columns.field).is_some() => lists::lines(value),
        Some(Type::OctetArray) | None => each_line(value, |value| shortened(plain(value))),
        Some(Type::DateTimeSeconds | Type::DateTimeMilliseconds) => vec![each(value, time_text)],
        Some(known) if columns.field.element().is_none() => {
            vec![by_type(known, group, &columns.places, index)]
        }
        _ => vec![plain(value)],
    };
    let bytes = |&column: &usize| hex(group.value(column, index));
    let bytes =
        if with_raw { columns.places.iter().map(bytes).collect::<Vec<_>>().join(" ") } else { String::new() };
    (&columns.title, lines, bytes)
}

/// The values of a vendor's element, whose type the JSON lines do not go by.
fn by_type(known: Type, group: &Group, columns: &[usize], index: usize) -> String {
    let text = |&column: &usize| {
        let mut out = Vec::new();
        json::write_value(&mut out, Format::from(known), group.value(column, index));
        serde_json::from_slice(&out).map_or(String::new(), |value| match known {
            Type::DateTimeSeconds | Type::DateTimeMilliseconds => time_text(&value),
            _ => plain(&value),
        })
    };
    columns.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// A record of sFlow that travels whole, `<data format><bytes>`, with its enterprise and format as numbers.
fn sflow_record(hex: &str) -> String {
    let Some((data_format, content)) = hex.split_at_checked(8) else { return hex.to_owned() };
    let content = shortened(content.to_owned());
    match u32::from_str_radix(data_format, 16).map(|number| (number >> 12, number & 0xfff)) {
        Ok((0, format)) => format!("{format}: {content}"),
        Ok((enterprise, format)) => format!("{enterprise}.{format}: {content}"),
        Err(_) => hex.to_owned(),
    }
}

/// Bytes in hexadecimal digits, the first of them if they are many.
fn shortened(hex: String) -> String {
    match hex.split_at_checked(MOST_HEX_CHARS) {
        Some((first, rest)) if !rest.is_empty() => format!("{first}... ({} bytes)", hex.len() / 2),
        _ => hex,
    }
}

/// The value or, of an array, each of its values, on a line each if they are long.
fn each_line(value: &Value, text: impl Fn(&Value) -> String) -> Vec<String> {
    let lines: Vec<String> = match value {
        Value::Array(values) => values.iter().map(text).collect(),
        value => vec![text(value)],
    };
    if lines.iter().map(String::len).sum::<usize>() > MOST_NAME_CHARS {
        lines
    } else {
        vec![lines.join(", ")]
    }
}

/// The value or, of an array, each of its values.
fn each(value: &Value, text: fn(&Value) -> String) -> String {
    match value {
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(", "),
        value => text(value),
    }
}

/// A value without JSON's quotes. Control characters are escaped.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => escaped(text),
        Value::Array(values) if !values.iter().any(|value| value.is_object() || value.is_array()) => {
            each(value, plain)
        }
        value => escaped(&value.to_string()),
    }
}

pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Milliseconds since 1970 as RFC 3339.
fn time_text(value: &Value) -> String {
    let Some(milliseconds) = value.as_number().and_then(|number| number.to_string().parse::<i128>().ok())
    else {
        return plain(value);
    };
    let mut out = Vec::new();
    time::write_rfc3339(&mut out, milliseconds.saturating_mul(1_000_000), 3);
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether it is said who it is: IPFIX files do not.
pub(super) fn is_known(end: Exporter) -> bool {
    !end.address.is_unspecified() || end.port != 0
}

/// An address with its port.
pub(super) fn end_text(end: Exporter) -> String {
    std::net::SocketAddr::new(end.address, end.port).to_string()
}

/// Protocol and domain.
pub(super) fn header_text(header: Header) -> String {
    format!("{} domain {}", protocol_name(header.protocol), header.domain)
}

pub(super) fn width<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0).min(MOST_NAME_CHARS)
}

/// An object's keys and values in the order written.
#[derive(Default)]
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Order;
        impl<'de> Visitor<'de> for Order {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_stay_in_order_and_text_is_tame() {
        let Pairs(pairs) = serde_json::from_str(r#"{"b":1,"a":["x","y"],"c":"\u001b[2J"}"#).unwrap();
        let shown: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
        assert_eq!(shown, ["b=1", "a=x, y", "c=\\u{1b}[2J"]);
    }

    #[test]
    fn times_are_text() {
        assert_eq!(time_text(&Value::from(1_795_569_386_226_u64)), "2026-11-25T01:16:26.226Z");
        assert_eq!(
            each(&serde_json::json!([0, 1]), time_text),
            "1970-01-01T00:00:00.000Z, 1970-01-01T00:00:00.001Z"
        );
        assert_eq!(time_text(&Value::from("0001")), "0001");
    }
}
