//! Export protocols: datagrams in, rows of records out.
//!
//! Pure: bytes and time in, values out; no socket, clock, log or metric. One file a protocol:
//!
//! | file | what | source |
//! |---|---|---|
//! | `cursor.rs` | the one checked reader of wire bytes | |
//! | `template.rs` | what templates are checked for and compile to | RFC 3954 5.2, RFC 7011 8 |
//! | `domain.rs` | what exporters have told, bounded; `generations.rs` is how it forgets | |
//! | `saved.rs` | what of that outlives the process, as bytes | `proto/flowproxy/state/v1/` |
//! | `rate.rs` | how many templates an exporter may change | |
//! | `hold.rs` | data whose template has not been heard | RFC 3954 9, RFC 7011 9 |
//! | `v1.rs`, `v5.rs`, `v7.rs`; `fixed.rs` is what they share | NetFlow v1, v5 and v7 | Cisco, "NetFlow Export Datagram Format" |
//! | `v9.rs` | NetFlow v9 | RFC 3954 |
//! | `ipfix.rs` | IPFIX | RFC 7011 |
//! | `lists.rs` | which templates lists inside records name | RFC 6313 |
//! | `options.rs` | what options records tell | RFC 3954 6.1, RFC 7011 4 |
//! | `sampling.rs` | which sampling rate records are subject to | |
//! | `sequence.rs` | what sequence numbers tell | RFC 7011 10.3.2 |
//! | `track.rs` | what is known of senders without being told | |
//! | `sflow/` | sFlow v5 | sFlow.org, "sFlow Version 5" |
//! | `sets.rs` | what v9 and IPFIX share: walking data sets, and what becomes of held ones | |
//!
//! | if | then |
//! |---|---|
//! | a datagram's header cannot be read | the [`Fault`] is returned, and nothing of it was given to the [`Output`] |
//! | a set or template cannot be read | a fault is told with its place; the next set goes on |
//! | a data set's template is not known | it is held until it comes, is found at another port of the address, or the hold is over |
//!
//! Nothing here copies a record but the hold: rows go to the output as slices of the datagram.

mod cursor;
mod domain;
mod fault;
mod fixed;
mod generations;
mod hold;
mod ipfix;
mod lists;
mod options;
mod rate;
mod sampling;
mod saved;
mod sequence;
mod sets;
mod sflow;
mod template;
mod track;
mod v1;
mod v5;
mod v7;
mod v9;

pub use domain::{Change, DomainKey, Domains, TEMPLATE_COST};
pub use fault::Fault;
pub use hold::HoldLimits;
pub use ipfix::message_length;
pub use options::{ApplicationId, DomainState, Text};
pub use rate::ChangeLimits;
pub use sampling::NetworkRate;
pub use saved::{KeyBytes, Restored, Saved};
pub use sequence::{Sequence, Step, Unit, missing_between};
pub use sflow::{Record, Records, Sample, Source};
pub use template::Template;
pub use track::{Sender, Track, Wait};

use crate::flow::list::Named;
use crate::flow::{Exporter, Layout, Run};
use crate::proto::{BootQuality, Protocol, SamplingSource, TemplateSource};
use cursor::Cursor;
use hold::Hold;
use rate::Changes;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use track::{Notes, Onset, Tracks};

/// A datagram's circumstances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Who sent it.
    pub exporter: Exporter,
    /// When it was received, in milliseconds since 1970.
    pub received: u64,
    /// The same moment by a clock that is never set, in milliseconds from any start: what ages are told by.
    pub elapsed: u64,
    /// A number that the caller knows it by.
    pub number: u64,
}

impl Arrival {
    /// A run of which no more is known than this.
    fn run(&self, protocol: Protocol) -> Run {
        Run {
            exporter: self.exporter,
            agent: None,
            protocol,
            domain: 0,
            template: 0,
            sequence: 0,
            export_time: 0,
            uptime: 0,
            received: self.received,
            boot_time: 0,
            boot_quality: BootQuality::Unknown,
            sampling_rate: 0,
            sampling_source: SamplingSource::Unknown,
            template_source: TemplateSource::Heard,
        }
    }
}

/// Where something lies in its datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the datagram's start.
    pub offset: usize,
    /// Bytes of it.
    pub bytes: usize,
}

/// A template or options template as it was heard.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// Whose it is.
    pub key: &'a DomainKey,
    /// Its id.
    pub id: u16,
    /// Its fields.
    pub layout: &'a Arc<Layout>,
    /// What of it is new.
    pub change: Change,
}

/// Templates that their exporter withdraws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// The template's id, or the set's own for all of its kind.
    pub id: u16,
    /// An options template.
    pub options: bool,
    /// How many templates it was for.
    pub count: usize,
    /// They are forgotten.
    pub obeyed: bool,
}

/// What a decoder tells of a datagram.
///
/// Each set of a datagram is told by [`begun`](Output::begun) and ends in exactly one of [`set`](Output::set),
/// [`fault`](Output::fault) and, if it is a sample of sFlow, [`unknown_sample`](Output::unknown_sample); a held one does
/// so later, between two calls of [`resume`](Output::resume). What stands where a set should, and is none that can be
/// told from the next, begins and ends in a fault like one.
pub trait Output {
    /// The datagram in hand has a header that can be read, and this is what it says of all that follows; after
    /// [`resume`](Output::resume) the same of the held set's datagram.
    fn header(&mut self, _run: &Run) {}

    /// A set begins.
    fn begun(&mut self) {}

    /// `count` records of one template lie back to back in `rows`, all of them of `run`.
    ///
    /// `ends` is empty when the layout has a stride; else it has the end of each record in `rows`.
    fn records(&mut self, run: &Run, template: &Template, rows: &[u8], ends: &[u32], count: u32);

    /// The templates that lists inside the records told next name, known or not; told before them, and only if there
    /// are any.
    fn lists(&mut self, _named: &[Named]) {}

    /// A set was not read whole, for the reason given first in it: the bytes at `place` were not understood. What could
    /// be read of it was, and the next set goes on.
    fn fault(&mut self, fault: Fault, place: Place);

    /// A template or options template was heard.
    fn template(&mut self, _heard: &Heard<'_>) {}

    /// Templates were withdrawn by their exporter.
    fn withdrawn(&mut self, _withdrawal: &Withdrawal) {}

    /// A set was read whole. The records of NetFlow v1, v5 and v7 are one set, each sample of sFlow is one.
    fn set(&mut self);

    /// The exporter of the datagram in hand has started anew since the last one: after all of it was read.
    fn restarted(&mut self) {}

    /// A sample of sFlow gives a record, as it came. The record itself comes with [`records`](Output::records), at the
    /// datagram's end at the latest; samples and their records come in the same order.
    fn sample(&mut self, _sample: &Sample<'_>) {}

    /// A sample of sFlow is of a kind not known, and was left out; its exporter is not to blame. It comes before the
    /// records of those before it.
    fn unknown_sample(&mut self, _sample: Record<'_>, _place: Place) {}

    /// A set is held until its template comes.
    fn held(&mut self, _place: Place) {}

    /// What follows belongs to a held set of the datagram that arrived so; `None`: to the datagram in hand again.
    fn resume(&mut self, _held: Option<&Arrival>) {}

    /// What the datagram's sequence number says, after all of it was read: of so many `unit`s. What a sample's says,
    /// of samples, comes behind the sample.
    fn sequence(&mut self, _unit: Unit, _step: Step) {}
}

/// Caps of what the network can fill.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// (exporter, protocol, domain) triples whose state is kept.
    pub domains: usize,
    /// Templates of one domain.
    pub templates_per_domain: usize,
    /// Fields of all templates together, each template counted as [`TEMPLATE_COST`] more: what bounds the table's
    /// memory, to some 20 bytes each.
    pub fields: usize,
    /// Senders of which is kept when they were heard and what is missing of them.
    pub senders: usize,
    /// Data without a template.
    pub hold: HoldLimits,
    /// New and changed templates of one address.
    pub changes: ChangeLimits,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            domains: 10_000,
            templates_per_domain: 4_096,
            fields: 2_000_000,
            senders: 20_000,
            hold: HoldLimits::default(),
            changes: ChangeLimits::default(),
        }
    }
}

/// What is set for a decoder.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Forget a template when its exporter withdraws it. Over UDP a withdrawal is easily forged or late, and
    /// RFC 7011 8.4 has none there: the default is to report it only.
    pub obey_withdrawals: bool,
    /// Sampling rates for exporters that do not tell theirs.
    pub network_rates: Arc<[NetworkRate]>,
    /// Caps of its tables.
    pub limits: Limits,
}

/// Reads datagrams of every protocol known, with the state that their exporters build up.
#[derive(Debug)]
pub struct Decoder {
    settings: Settings,
    domains: Domains,
    hold: Hold,
    tracks: Tracks,
    notes: Notes,
    changes: Changes,
    fixed: Fixed,
    samples: sflow::Samples,
    ends: Vec<u32>,
    named: Vec<Named>,
}

/// The templates of protocols that have none.
#[derive(Debug)]
struct Fixed {
    v1: v1::Layouts,
    v5: Template,
    v7: Template,
}

impl Decoder {
    /// A decoder that has heard nothing yet.
    pub fn new(settings: Settings) -> Decoder {
        let mut domains = Domains::new(settings.limits);
        domains.set_rates(&settings.network_rates);
        Decoder {
            domains,
            hold: Hold::new(settings.limits.hold),
            tracks: Tracks::new(settings.limits.senders),
            notes: Notes::default(),
            changes: Changes::new(settings.limits.changes),
            fixed: Fixed { v1: v1::Layouts::default(), v5: v5::template(), v7: v7::template() },
            samples: sflow::Samples::default(),
            ends: Vec::new(),
            named: Vec::new(),
            settings,
        }
    }

    /// Notes from now on which domains change, for [`Decoder::take_changed`].
    pub fn note_changes(&mut self) {
        self.domains.note_changes();
    }

    /// The domains that have changed since the last call, those that were forgotten among them.
    pub fn take_changed(&mut self) -> HashSet<DomainKey> {
        self.domains.take_changed()
    }

    /// A domain as it can be put back after the next start; `None` when it has told nothing, or is forgotten.
    pub fn saved(&self, key: &DomainKey) -> Option<Saved> {
        saved::save(&self.domains, key)
    }

    /// Puts back what a domain had told before the last start: used, and marked, until it is heard again. What was
    /// used longest ago is to be put back first: it goes first when there is too much.
    pub fn restore(&mut self, key: DomainKey, saved: &Saved) -> Restored {
        saved::restore(&mut self.domains, key, saved)
    }

    /// What a domain has told in options records.
    pub fn state(&self, key: &DomainKey) -> Option<&DomainState> {
        self.domains.state(key).map(|(state, _)| state)
    }

    /// Reads one datagram.
    ///
    /// # Errors
    /// When the header cannot be read, nothing of the datagram was given to `output`.
    pub fn datagram(
        &mut self,
        arrival: &Arrival,
        bytes: &[u8],
        output: &mut impl Output,
    ) -> Result<(), Fault> {
        self.changes.advance(arrival.elapsed);
        self.domains.advance(arrival.received, arrival.elapsed);
        let mut cursor = Cursor::new(bytes);
        match cursor.u16().map_err(|_| Fault::ShortHeader)? {
            1 => v1::datagram(self, arrival, cursor, output),
            5 => v5::datagram(self, arrival, cursor, output),
            7 => v7::datagram(self, arrival, cursor, output),
            9 => v9::datagram(self, arrival, cursor, output),
            10 => ipfix::datagram(self, arrival, cursor, output),
            sflow::VERSION_HIGH => sflow::datagram(self, arrival, cursor, output),
            _ => Err(Fault::UnknownVersion),
        }
    }

    /// Takes note of what a datagram that was read says of its exporter's start.
    fn started(&mut self, onset: Onset, run: &Run, output: &mut impl Output) {
        let key = DomainKey { exporter: run.exporter, protocol: run.protocol, domain: run.domain };
        let restarted = match onset {
            Onset::Anew => {
                self.domains.restarted(key.exporter);
                true
            }
            Onset::First => self.domains.heard_again(&key, run),
            Onset::Same => false,
        };
        if restarted || self.notes.has_restarted {
            output.restarted();
        }
    }

    /// Notes from now on of which domains other names are known, for [`Decoder::take_named`].
    pub fn note_names(&mut self) {
        self.domains.note_names();
    }

    /// How many things have got another name since the last call.
    pub fn take_renamed(&mut self) -> u64 {
        self.domains.take_renamed()
    }

    /// The domains of which other names are known than at the last call, or known from later on; those that were
    /// forgotten among them.
    pub fn take_named(&mut self) -> HashSet<DomainKey> {
        self.domains.take_named()
    }

    /// Looks what has become of held sets as time goes by; to be called about every second. `elapsed` is as in
    /// [`Arrival::elapsed`].
    pub fn tick(&mut self, elapsed: u64, output: &mut impl Output) {
        sets::find_at_other_ports(self, elapsed, output);
        sets::give_up_overdue(self, elapsed, output);
    }

    /// Nothing more comes: what is held is given up.
    pub fn end(&mut self, output: &mut impl Output) {
        sets::give_up_all(self, output);
    }

    /// What exporters have told, for status.
    pub fn domains(&self) -> &Domains {
        &self.domains
    }

    /// What data is held for: the domain, the template's id, how many sets, and when the first of them came.
    pub fn awaited(&self) -> impl Iterator<Item = (&DomainKey, u16, usize, &Arrival)> {
        self.hold.awaited().map(|((key, id), sets, first)| (key, *id, sets, first))
    }

    /// Whom it has heard, or knows from before, in no order. Looks through all tables: meant for status, not for
    /// every datagram.
    pub fn senders(&self) -> impl Iterator<Item = Sender<'_>> {
        let mut awaited: HashMap<DomainKey, Vec<Wait>> = HashMap::new();
        for (key, id, sets, first) in self.awaited() {
            let (since, given_up) = (first.elapsed, self.domains.was_given_up(key, id));
            awaited.entry(*key).or_default().push(Wait { id, sets, since, given_up });
        }
        let silent = self.domains.keys().filter(|key| self.tracks.get(key).is_none());
        let all = self.tracks.iter().map(|(key, track)| (*key, Some(track)));
        all.chain(silent.map(|key| (*key, None))).map(move |(key, track)| {
            let (templates, restored) = self.domains.templates_of(&key);
            let awaited = awaited.remove(&key).unwrap_or_default();
            let (boot_time, rates, interfaces) =
                self.domains.state(&key).map_or((0, 0, 0), |(state, basis)| {
                    (basis.boot_time(), state.rate_count(), state.interfaces.len())
                });
            Sender { key, track, templates, restored, awaited, boot_time, rates, interfaces }
        })
    }

    /// Sets held, and the bytes that they count.
    pub fn held(&self) -> (usize, usize) {
        (self.hold.len(), self.hold.bytes())
    }
}

#[cfg(test)]
mod tests;
