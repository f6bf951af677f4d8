//! Records into datagrams: room, order, repetition and header.

use super::version::Header;
use super::{Fault, Template, Value, Version};
use std::time::Duration;

const SET_HEADER_BYTES: usize = 4;
/// Sets are padded to this.
const ALIGNMENT: usize = 4;
/// Lower set ids are the standard's (RFC 3954 5.2, RFC 7011 3.3.2).
const FIRST_TEMPLATE_ID: u16 = 256;

/// How a [`Packer`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is written.
    pub version: Version,
    /// The header's source id or observation domain.
    pub domain: u32,
    /// When the exporter booted, milliseconds since 1970; uptimes count from here.
    pub booted: u64,
    /// The most that a datagram may have: the path's MTU less the IP and UDP headers.
    pub max_bytes: u16,
    /// The longest that a record waits for others; looked at by [`Packer::poll`].
    pub max_delay: Duration,
    /// Templates are repeated when the last ones are this old ...
    pub template_interval: Duration,
    /// ... or were this many datagrams ago.
    pub template_datagrams: u32,
}

/// A finished datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// What goes into UDP.
    pub bytes: &'a [u8],
    /// Flow records in it; templates and options are not counted.
    pub records: u32,
}

/// A set that grows until the datagram is handed out.
#[derive(Debug)]
struct OpenSet {
    id: u16,
    /// What its length is a multiple of.
    alignment: usize,
    body: Vec<u8>,
    records: u16,
}

impl OpenSet {
    fn new(id: u16, alignment: usize) -> OpenSet {
        OpenSet { id, alignment, body: Vec::new(), records: 0 }
    }

    /// What the set takes in a datagram if its body has `more_bytes` than now.
    fn bytes(&self, more_bytes: usize) -> usize {
        match self.body.len() + more_bytes {
            0 => 0,
            body_bytes => SET_HEADER_BYTES + body_bytes.next_multiple_of(self.alignment),
        }
    }

    /// Adds a record; gives what the datagram grew by.
    fn add(&mut self, record: &[u8]) -> usize {
        let grown = self.bytes(record.len()) - self.bytes(0);
        self.body.extend_from_slice(record);
        self.records += 1;
        grown
    }
}

/// What is repeated: templates, then options records, each with the place of its set in [`Packer::sets`].
#[derive(Debug)]
struct Announcement {
    set: usize,
    record: Vec<u8>,
}

/// Collects records of one observation domain into datagrams.
///
/// Every `now` is in milliseconds since 1970 and should never go back. What is finished goes to `out`, in
/// order.
#[derive(Debug)]
pub struct Packer {
    settings: Settings,
    templates: Vec<Template>,
    /// Template set, options template set, then one for each of `templates`, in its order.
    sets: Vec<OpenSet>,
    announcements: Vec<Announcement>,
    announced_at: Option<u64>,
    datagrams_since: u32,
    sequence: u32,
    /// When the open datagram's first record came.
    opened_at: u64,
    /// Bytes of the open datagram, if it were handed out now.
    open_bytes: usize,
    open_records: u32,
    datagram: Vec<u8>,
    /// The record in hand.
    record: Vec<u8>,
}

/// Places in [`Packer::sets`].
const TEMPLATES_AT: usize = 0;
const OPTIONS_TEMPLATES_AT: usize = 1;
const RECORDS_AT: usize = 2;

impl Packer {
    /// A packer that knows `templates`.
    ///
    /// # Errors
    /// A template that cannot be sent.
    pub fn new(settings: Settings, templates: Vec<Template>) -> Result<Packer, Fault> {
        let version = settings.version;
        let most = most_bytes(&settings);
        let mut sets = vec![
            OpenSet::new(version.template_set(), ALIGNMENT),
            OpenSet::new(version.options_template_set(), ALIGNMENT),
        ];
        let mut announcements = Vec::with_capacity(templates.len());
        for template in &templates {
            let id = template.id;
            if id < FIRST_TEMPLATE_ID {
                return Err(Fault::TemplateId { id });
            }
            if sets.iter().any(|set| set.id == id) {
                return Err(Fault::TemplateTwice { id });
            }
            sets.push(OpenSet::new(id, alignment(template, version, most)?));
            let record = template.encode(version);
            if record.len() > most {
                return Err(Fault::TemplateBytes { id });
            }
            let set = if template.is_options() { OPTIONS_TEMPLATES_AT } else { TEMPLATES_AT };
            announcements.push(Announcement { set, record });
        }
        Ok(Packer {
            settings,
            templates,
            sets,
            announcements,
            announced_at: None,
            datagrams_since: 0,
            sequence: 0,
            opened_at: 0,
            open_bytes: version.header_bytes(),
            open_records: 0,
            datagram: Vec::with_capacity(usize::from(settings.max_bytes)),
            record: Vec::new(),
        })
    }

    /// Adds an options record that is sent after the templates, every time they are.
    ///
    /// # Errors
    /// No such options template, or values that do not fit it.
    pub fn announce(&mut self, template_id: u16, values: &[Value<'_>]) -> Result<(), Fault> {
        let (set, template) = self.template(template_id, true)?;
        let mut record = Vec::with_capacity(template.least_bytes());
        template.write_record(values, &mut record)?;
        self.fits(template_id, record.len())?;
        self.announcements.push(Announcement { set, record });
        Ok(())
    }

    /// Adds a flow record.
    ///
    /// # Errors
    /// No such template, or values that do not fit it.
    pub fn record(
        &mut self,
        template_id: u16,
        values: &[Value<'_>],
        now: u64,
        out: &mut impl FnMut(Datagram<'_>),
    ) -> Result<(), Fault> {
        let mut record = std::mem::take(&mut self.record);
        let result = self.write(template_id, values, &mut record, now, out);
        self.record = record;
        result
    }

    fn write(
        &mut self,
        template_id: u16,
        values: &[Value<'_>],
        record: &mut Vec<u8>,
        now: u64,
        out: &mut impl FnMut(Datagram<'_>),
    ) -> Result<(), Fault> {
        let (at, template) = self.template(template_id, false)?;
        template.write_record(values, record)?;
        self.fits(template_id, record.len())?;
        self.make_room(at, record.len(), now, out);
        if self.open_bytes == self.settings.version.header_bytes() {
            self.opened_at = now;
            if self.is_announcement_due(now) {
                self.write_announcements(now, out);
                self.make_room(at, record.len(), now, out);
            }
        }
        self.add(at, record);
        self.open_records += 1;
        Ok(())
    }

    /// Whether a record can be sent at all: those of variable length differ.
    fn fits(&self, id: u16, bytes: usize) -> Result<(), Fault> {
        let most = most_bytes(&self.settings);
        if bytes > most { Err(Fault::RecordBytes { id, bytes, least: 1, most }) } else { Ok(()) }
    }

    fn add(&mut self, at: usize, record: &[u8]) {
        if let Some(set) = self.sets.get_mut(at) {
            self.open_bytes += set.add(record);
        }
    }

    /// Hands out the open datagram if its first record has waited for `max_delay`.
    pub fn poll(&mut self, now: u64, out: &mut impl FnMut(Datagram<'_>)) {
        let waited = Duration::from_millis(now.saturating_sub(self.opened_at));
        if self.open_records > 0 && waited >= self.settings.max_delay {
            self.finish(now, out);
        }
    }

    /// Hands out the open datagram, if it has records.
    pub fn flush(&mut self, now: u64, out: &mut impl FnMut(Datagram<'_>)) {
        if self.open_records > 0 {
            self.finish(now, out);
        }
    }

    /// The exporter's uptime at `time` (milliseconds since 1970), for the elements 21 and 22. It wraps
    /// after 49.7 days, as the header's does; 0 before the boot.
    pub fn uptime(&self, time: u64) -> u32 {
        // The wrap is the protocol's: uptimes are compared modulo 2^32.
        (time.saturating_sub(self.settings.booted) & u64::from(u32::MAX)) as u32
    }

    fn template(&self, id: u16, options: bool) -> Result<(usize, &Template), Fault> {
        let found = self.templates.iter().enumerate().find(|(_, template)| template.id == id);
        let (place, template) = found.ok_or(Fault::NoTemplate { id })?;
        if template.is_options() != options {
            return Err(Fault::OtherKind { id });
        }
        Ok((place + RECORDS_AT, template))
    }

    fn is_announcement_due(&self, now: u64) -> bool {
        self.datagrams_since >= self.settings.template_datagrams
            || self.announced_at.is_none_or(|at| {
                Duration::from_millis(now.saturating_sub(at)) >= self.settings.template_interval
            })
    }

    /// Puts templates and options into the open datagram, and hands out those that get full.
    fn write_announcements(&mut self, now: u64, out: &mut impl FnMut(Datagram<'_>)) {
        self.announced_at = Some(now);
        self.datagrams_since = 0;
        let announcements = std::mem::take(&mut self.announcements);
        for Announcement { set, record } in &announcements {
            self.make_room(*set, record.len(), now, out);
            self.add(*set, record);
        }
        self.announcements = announcements;
    }

    /// Hands out the open datagram if `bytes` more in the set at `at` would not fit.
    fn make_room(&mut self, at: usize, bytes: usize, now: u64, out: &mut impl FnMut(Datagram<'_>)) {
        let more = self.sets.get(at).map_or(0, |set| set.bytes(bytes) - set.bytes(0));
        if self.open_bytes + more > usize::from(self.settings.max_bytes) {
            self.finish(now, out);
        }
    }

    /// Writes header and sets, hands the datagram out and begins the next.
    fn finish(&mut self, now: u64, out: &mut impl FnMut(Datagram<'_>)) {
        let seconds = now / 1_000;
        let version = self.settings.version;
        let data_records = self.sets.iter().skip(RECORDS_AT).map(|set| u32::from(set.records)).sum();
        let header = Header {
            // At most `max_bytes`, which is a u16.
            bytes: u16::try_from(self.open_bytes).unwrap_or(u16::MAX),
            records: self.sets.iter().fold(0, |sum: u16, set| sum.saturating_add(set.records)),
            uptime: self.uptime(seconds * 1_000),
            // The field is 32 bits wide; it wraps in 2106.
            seconds: (seconds & u64::from(u32::MAX)) as u32,
            sequence: self.sequence,
            domain: self.settings.domain,
        };
        self.datagram.clear();
        version.write_header(header, &mut self.datagram);
        for set in self.sets.iter_mut().filter(|set| !set.body.is_empty()) {
            let bytes = set.bytes(0);
            let end = self.datagram.len() + bytes;
            let length = u16::try_from(bytes).unwrap_or(u16::MAX);
            self.datagram.extend_from_slice(&set.id.to_be_bytes());
            self.datagram.extend_from_slice(&length.to_be_bytes());
            self.datagram.append(&mut set.body);
            self.datagram.resize(end, 0);
            set.records = 0;
        }
        out(Datagram { bytes: &self.datagram, records: self.open_records });
        self.sequence = self.sequence.wrapping_add(version.sequence_step(data_records));
        self.datagrams_since = self.datagrams_since.saturating_add(1);
        self.open_bytes = version.header_bytes();
        self.open_records = 0;
        self.opened_at = now;
    }
}

/// The most that a record can have.
fn most_bytes(settings: &Settings) -> usize {
    let headers = settings.version.header_bytes() + SET_HEADER_BYTES;
    usize::from(settings.max_bytes).saturating_sub(headers) / ALIGNMENT * ALIGNMENT
}

/// What the sets of a template's records are padded to: up to 3 bytes follow the last one, and a shorter record would
/// be read out of them.
fn alignment(template: &Template, version: Version, most: usize) -> Result<usize, Fault> {
    let (id, bytes) = (template.id, template.least_bytes());
    if let Some(field) = template.misfit(version) {
        return Err(Fault::FieldForm { id, element: field.element });
    }
    let least = match version {
        Version::NetflowV9 => ALIGNMENT,
        Version::Ipfix => 1,
    };
    if bytes < least || bytes > most {
        return Err(Fault::RecordBytes { id, bytes, least, most });
    }
    Ok(if bytes < ALIGNMENT { 1 } else { ALIGNMENT })
}
