//! Who sent what: one row for each exporter, protocol and domain, and what else is in the file.

use super::header::Header;
use super::show::{Datagram, Fault, FileEnd, Record, Show, Template, UnknownSample};
use super::table::{end_text, is_known};
use crate::cli::counted;
use crate::flow::record::protocol_name;
use crate::flow::{Exporter, time};
use crate::proto::{Protocol, RecordKind, TemplateSource};
use crate::wire::{Step, Unit};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Rows that are kept; whoever comes later shares one.
const MOST_ROWS: usize = 10_000;

/// What a line of a file is about is padded to this.
const FILE_WHAT_CHARS: usize = 36;

/// Sampling rates of one row that are kept.
const MOST_RATES: usize = 16;

/// Whom a row is of: exporter, protocol, domain. `None` is of all for whom there was no room.
type Key = Option<(Exporter, &'static str, u32)>;

#[derive(Debug, Default)]
struct Row {
    datagrams: u64,
    bytes: u64,
    templates: u64,
    options_templates: u64,
    withdrawals: u64,
    records: u64,
    options: u64,
    samples: u64,
    counters: u64,
    drops: u64,
    unknown_samples: u64,
    /// Of all those, read by a template of another port.
    provisional: u64,
    faults: BTreeMap<&'static str, u64>,
    /// By rate as text and its source: records.
    rates: BTreeMap<(String, &'static str), u64>,
    order: Order,
    first: Option<u64>,
    last: u64,
}

/// What sequence numbers say.
#[derive(Debug, Default)]
struct Order {
    gaps: u64,
    /// By what is counted.
    missing: BTreeMap<&'static str, u64>,
    late: u64,
    duplicates: u64,
    resets: u64,
    /// Samples that the exporter says it has lost itself.
    lost_there: u64,
}

pub(super) struct Summary<'a, W> {
    out: &'a mut W,
    file: String,
    as_json: bool,
    rows: BTreeMap<Key, Row>,
}

impl<'a, W: Write> Summary<'a, W> {
    pub(super) fn new(out: &'a mut W, file: String, as_json: bool) -> Self {
        Summary { out, file, as_json, rows: BTreeMap::new() }
    }

    fn row(&mut self, exporter: Exporter, header: Option<Header>) -> &mut Row {
        let Header { protocol, domain } = header.unwrap_or(Header { protocol: Protocol::Unknown, domain: 0 });
        let key = Some((exporter, protocol_name(protocol), domain));
        let is_full = self.rows.len() >= MOST_ROWS && !self.rows.contains_key(&key);
        self.rows.entry(if is_full { None } else { key }).or_default()
    }

    fn text(&mut self, end: &FileEnd<'_>) -> io::Result<()> {
        let format = end.format.map_or(String::new(), |format| format!(": {}", format.name()));
        writeln!(self.out, "{}{format}", self.file)?;
        if end.counts.packets == 0 && end.error.is_none() {
            writeln!(self.out, "  no packets")?;
        }
        for (what, count) in of_file(end).into_iter().filter(|(_, count)| *count > 0) {
            writeln!(self.out, "  {what:<FILE_WHAT_CHARS$} {count}")?;
        }
        for (key, row) in &self.rows {
            let name = match key {
                Some((exporter, protocol, domain)) if !is_known(*exporter) => {
                    format!("{protocol} domain {domain}")
                }
                Some((exporter, protocol, domain)) => {
                    format!("{} {protocol} domain {domain}", end_text(*exporter))
                }
                None => "all others".to_owned(),
            };
            writeln!(self.out, "\n  {name}")?;
            for (what, value) in row.lines() {
                writeln!(self.out, "    {what:<18} {value}")?;
            }
        }
        match end.error.filter(|_| !end.is_told_beside) {
            Some(error) => writeln!(self.out, "fault: {error}"),
            None => Ok(()),
        }
    }

    fn json(&mut self, end: &FileEnd<'_>) -> io::Result<()> {
        for (key, row) in &self.rows {
            let mut line = Map::from_iter([
                ("kind".to_owned(), json!("summary")),
                ("file".to_owned(), json!(self.file)),
            ]);
            if let Some((exporter, protocol, domain)) = key {
                line.insert("exporter".to_owned(), json!(exporter.address));
                line.insert("port".to_owned(), json!(exporter.port));
                line.insert("protocol".to_owned(), json!(protocol));
                line.insert("domain".to_owned(), json!(domain));
            }
            line.extend(row.json());
            writeln!(self.out, "{}", Value::Object(line))?;
        }
        let counts = &end.counts;
        let line = json!({
            "kind": "file_summary",
            "file": self.file,
            "format": end.format.map(|format| format.name()),
            "packets": counts.packets,
            "flowDatagrams": end.flow,
            "otherUdp": end.others,
            "notUdp": counts.not_udp,
            "notIp": counts.not_ip,
            "unknownLink": counts.unknown_link,
            "undescribedInterface": counts.undescribed,
            "malformed": counts.malformed,
            "cut": counts.cut,
            "fragments": counts.fragments,
            "reassembled": counts.reassembled,
            "incomplete": counts.incomplete,
            "refused": counts.refused,
            "fault": end.error.map(ToString::to_string),
        });
        writeln!(self.out, "{line}")
    }
}

/// What there is in a file.
fn of_file(end: &FileEnd<'_>) -> [(&'static str, u64); 12] {
    let counts = &end.counts;
    [
        ("flow datagrams", end.flow),
        ("other UDP datagrams", end.others),
        ("other IP packets", counts.not_udp),
        ("packets without IP", counts.not_ip),
        ("packets of an unknown link type", counts.unknown_link),
        ("packets of undescribed interfaces", counts.undescribed),
        ("packets with unreadable headers", counts.malformed),
        ("datagrams cut by the capture", counts.cut),
        ("fragments", counts.fragments),
        ("datagrams put together from them", counts.reassembled),
        ("datagrams with fragments missing", counts.incomplete),
        ("datagrams whose fragments do not fit", counts.refused),
    ]
}

impl Row {
    fn counts(&self) -> [(&'static str, u64); 11] {
        [
            ("datagrams", self.datagrams),
            ("bytes", self.bytes),
            ("templates", self.templates),
            ("options templates", self.options_templates),
            ("withdrawals", self.withdrawals),
            ("records", self.records),
            ("options records", self.options),
            ("flow samples", self.samples),
            ("counter samples", self.counters),
            ("drop samples", self.drops),
            ("unknown samples", self.unknown_samples),
        ]
    }

    /// What is worth a line.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if let Some(first) = self.first {
            lines.push(("time", format!("{} to {}", time_text(first), time_text(self.last))));
        }
        lines.extend(
            self.counts()
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(what, count)| (what, count.to_string())),
        );
        if self.provisional > 0 {
            lines.push((
                "provisional",
                format!("{}, by a template of another port", counted(self.provisional, "record", "records")),
            ));
        }
        for ((rate, source), records) in &self.rates {
            lines.push((
                "sampling",
                format!("1 in {rate}, from {source}, {}", counted(*records, "record", "records")),
            ));
        }
        for (unit, missing) in &self.order.missing {
            lines.push((
                "sequence",
                format!("{missing} {unit} are missing, in {}", counted(self.order.gaps, "gap", "gaps")),
            ));
        }
        for (count, what) in [
            (self.order.late, "came late"),
            (self.order.duplicates, "came twice"),
            (self.order.resets, if self.order.resets == 1 { "new start" } else { "new starts" }),
            (self.order.lost_there, "samples lost by the exporter itself"),
        ] {
            if count > 0 {
                lines.push(("sequence", format!("{count} {what}")));
            }
        }
        for (reason, count) in &self.faults {
            lines.push(("faults", format!("{count} {reason}")));
        }
        lines
    }

    fn json(&self) -> Map<String, Value> {
        let rates: Vec<_> = self
            .rates
            .iter()
            .map(|((rate, source), records)| {
                json!({ "rate": rate.parse::<f64>().ok(), "source": source, "records": records })
            })
            .collect();
        let mut object = Map::new();
        for (what, count) in self.counts() {
            object.insert(camel_case(what), json!(count));
        }
        object.insert("provisional".to_owned(), json!(self.provisional));
        let Order { gaps, missing, late, duplicates, resets, lost_there } = &self.order;
        let order = json!({
            "gaps": gaps,
            "missing": missing,
            "late": late,
            "duplicates": duplicates,
            "resets": resets,
            "lostByExporter": lost_there,
        });
        object.insert("sequence".to_owned(), order);
        object.insert("faults".to_owned(), json!(self.faults));
        object.insert("sampling".to_owned(), Value::Array(rates));
        object.insert("first".to_owned(), json!(self.first.map(time_text)));
        object.insert("last".to_owned(), json!(self.first.map(|_| time_text(self.last))));
        object
    }
}

fn camel_case(words: &str) -> String {
    let mut key = String::new();
    let mut is_start = false;
    for c in words.chars() {
        match c {
            ' ' => is_start = true,
            c if is_start => {
                key.push(c.to_ascii_uppercase());
                is_start = false;
            }
            c => key.push(c),
        }
    }
    key
}

fn time_text(milliseconds: u64) -> String {
    let mut out = Vec::new();
    time::write_rfc3339_millis(&mut out, milliseconds);
    String::from_utf8_lossy(&out).into_owned()
}

impl<W: Write> Show for Summary<'_, W> {
    fn datagram(&mut self, datagram: &Datagram) -> io::Result<()> {
        let row = self.row(datagram.exporter, datagram.header);
        row.datagrams += 1;
        row.bytes += datagram.bytes as u64;
        row.first = Some(row.first.map_or(datagram.received, |first| first.min(datagram.received)));
        row.last = row.last.max(datagram.received);
        Ok(())
    }

    fn template(&mut self, template: &Template) -> io::Result<()> {
        let row = self.row(template.datagram.exporter, template.datagram.header);
        match (template.layout.is_some(), template.is_options) {
            (false, _) => row.withdrawals += 1,
            (true, true) => row.options_templates += 1,
            (true, false) => row.templates += 1,
        }
        Ok(())
    }

    fn record(&mut self, record: &Record<'_>) -> io::Result<()> {
        let (protocol, domain) = (record.run.protocol, record.run.domain);
        let sampling = record.sampling();
        let row = self.row(record.exporter(), Some(Header { protocol, domain }));
        match record.group.kind {
            RecordKind::Data => row.records += 1,
            RecordKind::Options => row.options += 1,
            RecordKind::FlowSample => row.samples += 1,
            RecordKind::CounterSample => row.counters += 1,
            RecordKind::DropSample => row.drops += 1,
        }
        row.provisional += u64::from(record.run.template_source == TemplateSource::Provisional);
        if let Some((rate, source)) = sampling {
            let key = (rate.to_string(), source);
            if row.rates.len() < MOST_RATES || row.rates.contains_key(&key) {
                *row.rates.entry(key).or_default() += 1;
            }
        }
        Ok(())
    }

    fn unknown_sample(&mut self, sample: &UnknownSample) -> io::Result<()> {
        self.row(sample.datagram.exporter, sample.datagram.header).unknown_samples += 1;
        Ok(())
    }

    fn fault(&mut self, fault: &Fault) -> io::Result<()> {
        *self.row(fault.exporter, fault.header).faults.entry(fault.reason()).or_default() += 1;
        Ok(())
    }

    fn sequence(&mut self, datagram: &Datagram, unit: Unit, step: Step) -> io::Result<()> {
        let order = &mut self.row(datagram.exporter, datagram.header).order;
        match step {
            Step::Gap(missing) => {
                order.gaps += 1;
                *order.missing.entry(unit.label()).or_default() += u64::from(missing);
            }
            Step::Late(late) => {
                order.late += u64::from(late);
                let missing = order.missing.entry(unit.label()).or_default();
                *missing = missing.saturating_sub(u64::from(late));
            }
            Step::Duplicate => order.duplicates += 1,
            Step::Reset => order.resets += 1,
            Step::Dropped(lost) => order.lost_there += u64::from(lost),
        }
        Ok(())
    }

    fn end(&mut self, end: &FileEnd<'_>) -> io::Result<()> {
        if self.as_json { self.json(end) } else { self.text(end) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
