//! One JSON object a line: for programs. The keys are a contract.
//!
//! ```text
//! {"datagram":1,"exporter":"192.0.2.1","port":2055,"protocol":"netflow-v9","domain":0,"template":256,
//!  "kind":"data","raw":[[element,enterprise,"hex"],...],"fields":{...}}
//! {"kind":"template","datagram":1,...,"template":256,"fields":[[element,enterprise,length],...]}
//! {"kind":"options_template",...,"scope":[[element,enterprise,length],...],"fields":[...]}
//! {"kind":"unknown_sample",...,"offset":36,"bytes":12,"enterprise":4300,"format":1002,"raw":[[format,enterprise,"hex"]]}
//! {"kind":"fault","datagram":1,...,"offset":20,"bytes":48,"reason":"no_template","text":"..."}
//! ```
//!
//! `raw` is there if asked for; of a sample of sFlow it is its records, `[format, enterprise, "hex"]`. `fields` is what the
//! collector writes of a record, without what belongs to its datagram; a flow sample's has `input` and `output` beside it.
//! A fault without `datagram` is of the file; its offset is then in the file. A withdrawn template has no fields.

use super::header::Header;
use super::show::{Datagram, Fault, FileEnd, Record, Show, Template, UnknownSample};
use crate::flow::json::{write_display, write_hex, write_number, write_text};
use crate::flow::record::{kind_name, protocol_name, template_source_name};
use crate::flow::{Exporter, Field};
use crate::proto::TemplateSource;
use crate::wire::{Step, Unit};
use std::io::{self, Write};

pub(super) struct Lines<'a, W> {
    out: &'a mut W,
    /// `"file":"...",` or nothing.
    file: Vec<u8>,
    with_raw: bool,
    line: Vec<u8>,
}

impl<'a, W: Write> Lines<'a, W> {
    pub(super) fn new(out: &'a mut W, file: Option<&str>, with_raw: bool) -> Self {
        let mut named = Vec::new();
        if let Some(file) = file {
            named.extend_from_slice(b"\"file\":");
            write_text(&mut named, file);
            named.push(b',');
        }
        Lines { out, file: named, with_raw, line: Vec::new() }
    }

    /// Begins a line: its opening brace and the file.
    fn begin(&mut self) {
        self.line.clear();
        self.line.push(b'{');
        self.line.extend_from_slice(&self.file);
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        write_text(&mut self.line, text);
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        write_number(&mut self.line, number);
    }

    fn key(&mut self, key: &str) {
        if !matches!(self.line.last(), Some(b'{' | b',')) {
            self.line.push(b',');
        }
        write_text(&mut self.line, key);
        self.line.push(b':');
    }

    fn sender(&mut self, exporter: Exporter, header: Option<Header>) {
        self.key("exporter");
        self.line.push(b'"');
        write_display(&mut self.line, exporter.address);
        self.line.push(b'"');
        self.number("port", u64::from(exporter.port));
        if let Some(Header { protocol, domain }) = header {
            self.text("protocol", protocol_name(protocol));
            self.number("domain", u64::from(domain));
        }
    }

    fn layout(&mut self, key: &str, fields: &[Field]) {
        self.key(key);
        self.line.push(b'[');
        for (place, field) in fields.iter().enumerate() {
            if place > 0 {
                self.line.push(b',');
            }
            write_display(
                &mut self.line,
                format_args!("[{},{},{}]", field.element, field.enterprise, field.width),
            );
        }
        self.line.push(b']');
    }

    /// One part of `raw`.
    fn raw(&mut self, element: u32, enterprise: u32, bytes: &[u8]) {
        if self.line.last() == Some(&b']') {
            self.line.push(b',');
        }
        write_display(&mut self.line, format_args!("[{element},{enterprise},"));
        write_hex(&mut self.line, bytes);
        self.line.push(b']');
    }

    fn finish(&mut self) -> io::Result<()> {
        self.line.extend_from_slice(b"}\n");
        self.out.write_all(&self.line)
    }
}

impl<W: Write> Show for Lines<'_, W> {
    fn datagram(&mut self, _datagram: &Datagram) -> io::Result<()> {
        Ok(())
    }

    fn template(&mut self, template: &Template) -> io::Result<()> {
        self.begin();
        self.text("kind", if template.is_options { "options_template" } else { "template" });
        self.number("datagram", template.datagram.number);
        self.sender(template.datagram.exporter, template.datagram.header);
        self.number("template", u64::from(template.id));
        let (scope, fields) = template.parts();
        if template.is_options {
            self.layout("scope", &scope);
        }
        self.layout("fields", &fields);
        self.finish()
    }

    fn record(&mut self, record: &Record<'_>) -> io::Result<()> {
        self.begin();
        self.number("datagram", record.datagram);
        let (protocol, domain) = (record.run.protocol, record.run.domain);
        self.sender(record.exporter(), Some(Header { protocol, domain }));
        self.number("template", u64::from(record.run.template));
        if record.run.template_source != TemplateSource::Heard {
            self.text("templateSource", template_source_name(record.run.template_source));
        }
        self.text("kind", kind_name(record.group.kind));
        if self.with_raw {
            self.key("raw");
            self.line.push(b'[');
            match record.sample {
                Some(sample) => {
                    for (format, enterprise, bytes) in sample {
                        self.raw(*format, *enterprise, bytes);
                    }
                }
                None => {
                    for (field, value) in record.values() {
                        self.raw(u32::from(field.element), field.enterprise, value);
                    }
                }
            }
            self.line.push(b']');
        }
        self.key("fields");
        record.write_fields(&mut self.line);
        self.finish()
    }

    fn unknown_sample(&mut self, sample: &UnknownSample) -> io::Result<()> {
        self.begin();
        self.text("kind", "unknown_sample");
        self.number("datagram", sample.datagram.number);
        self.sender(sample.datagram.exporter, sample.datagram.header);
        self.number("offset", sample.offset as u64);
        self.number("bytes", sample.bytes.len() as u64);
        self.number("enterprise", u64::from(sample.enterprise));
        self.number("format", u64::from(sample.format));
        if self.with_raw {
            self.key("raw");
            self.line.push(b'[');
            self.raw(sample.format, sample.enterprise, &sample.bytes);
            self.line.push(b']');
        }
        self.finish()
    }

    fn fault(&mut self, fault: &Fault) -> io::Result<()> {
        self.begin();
        self.text("kind", "fault");
        self.number("datagram", fault.datagram);
        self.sender(fault.exporter, fault.header);
        self.number("offset", fault.offset as u64);
        self.number("bytes", fault.bytes as u64);
        self.text("reason", fault.reason());
        self.text("text", &fault.text());
        self.finish()
    }

    /// Gaps are in the summary: they are estimates, and of no one record.
    fn sequence(&mut self, _datagram: &Datagram, _unit: Unit, _step: Step) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self, end: &FileEnd<'_>) -> io::Result<()> {
        if let Some(text) = end.undescribed() {
            self.begin();
            self.text("kind", "fault");
            self.text("reason", "undescribed_interface");
            self.text("text", &text);
            self.finish()?;
        }
        let Some(error) = end.error else { return Ok(()) };
        self.begin();
        self.text("kind", "fault");
        if let Some(offset) = error.offset() {
            self.number("offset", offset);
        }
        self.text("reason", error.label());
        self.text("text", &error.to_string());
        self.finish()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
