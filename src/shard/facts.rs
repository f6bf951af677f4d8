//! What is known of one sender, in one place: what it sent, what it told, what is missing.

use super::admission::Limits;
use super::moment::Moment;
use crate::flow::record::protocol_name;
use crate::proto::{Protocol, SamplingSource};
use crate::wire::{Fault, Sender, Wait};
use std::net::IpAddr;

/// What a sender's datagrams are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Speaks {
    /// Flow, by this protocol.
    Flow(Protocol),
    /// Anything: they are forwarded unread.
    Raw,
    /// Nothing that we know.
    Unknown,
    /// Not looked at: the sender is not allowed.
    Refused,
}

impl Speaks {
    /// As in JSON and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Speaks::Flow(protocol) => protocol_name(protocol),
            Speaks::Raw => "raw",
            Speaks::Unknown => "unknown",
            Speaks::Refused => "refused",
        }
    }
}

/// How often one fault was met. Times are in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Which one.
    pub fault: Fault,
    /// How often.
    pub times: u64,
    /// When it was met last.
    pub last: u64,
}

/// What was not taken because its address sends too much. Times are in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limited {
    /// Datagrams of the address that were not taken.
    pub datagrams: u64,
    /// When the last of them came.
    pub last: u64,
    /// By which limits.
    pub limits: Limits,
}

/// Data that waits for its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The template's id.
    pub template: u16,
    /// Sets held.
    pub sets: usize,
    /// When the first of them came, in milliseconds since 1970.
    pub since: u64,
    /// The template was known once, and was given up to make room for others.
    pub given_up: bool,
}

/// What sequence numbers have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// What the numbers count: "flows", "datagrams", "records" or "samples"; empty when nothing is known.
    pub unit: &'static str,
    /// How many of those are missing, those that came late not among them.
    pub missing: u64,
    /// How many came late.
    pub late: u64,
    /// Datagrams that came twice.
    pub duplicates: u64,
    /// How often the numbers began anew.
    pub resets: u64,
    /// The last datagram's number.
    pub last: u32,
    /// The number is always the same: nothing can be said of what is missing.
    pub stands_still: bool,
}

/// The facts. Times are in milliseconds since 1970, 0 when there is none.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The source port.
    pub port: u16,
    /// What it sends.
    pub speaks: Speaks,
    /// IPFIX observation domain, NetFlow v9 source id and the like; 0 where there is none.
    pub domain: u32,
    /// The agent that its last datagrams name; `None` for other protocols than sFlow.
    pub agent: Option<IpAddr>,
    /// When its first datagram came.
    pub first_seen: u64,
    /// When its last one did.
    pub last_seen: u64,
    /// When the last one of its address did, from whatever port.
    pub address_last_seen: u64,
    /// When its connection was closed; 0 if it was not, or has none.
    pub closed: u64,
    /// Datagrams taken; refused ones where it is not allowed.
    pub datagrams: u64,
    /// Flow records decoded.
    pub records: u64,
    /// Options records decoded.
    pub options: u64,
    /// What could not be read, by fault.
    pub faults: Vec<Met>,
    /// The first two bytes of the last datagram of which nothing could be read.
    pub version: u16,
    /// What was not taken of its address.
    pub limited: Limited,
    /// Templates known, options templates among them.
    pub templates: usize,
    /// Those of them that were heard before our last start, and not since.
    pub restored: usize,
    /// Records whose template was another port's.
    pub provisional: u64,
    /// What waits for templates, by template id.
    pub awaited: Vec<Awaited>,
    /// One packet in this many is sampled; 0 if unknown.
    pub sampling_rate: u32,
    /// Where the rate comes from.
    pub sampling_source: SamplingSource,
    /// Its records name a sampler.
    pub names_sampler: bool,
    /// Loss before us.
    pub sequence: Sequence,
    /// How far its clock is ahead of ours, in milliseconds.
    pub skew_ms: i64,
    /// When it started.
    pub boot_time: u64,
}

impl Facts {
    /// Of a sender of which nothing is known yet.
    pub fn new(port: u16, speaks: Speaks, domain: u32) -> Facts {
        Facts {
            port,
            speaks,
            domain,
            agent: None,
            first_seen: 0,
            last_seen: 0,
            address_last_seen: 0,
            closed: 0,
            datagrams: 0,
            records: 0,
            options: 0,
            faults: Vec::new(),
            version: 0,
            limited: Limited::default(),
            templates: 0,
            restored: 0,
            provisional: 0,
            awaited: Vec::new(),
            sampling_rate: 0,
            sampling_source: SamplingSource::Unknown,
            names_sampler: false,
            sequence: Sequence::default(),
            skew_ms: 0,
            boot_time: 0,
        }
    }

    /// Adds what the decoder knows.
    pub(super) fn add(&mut self, sender: Sender<'_>, now: Moment) {
        self.templates = sender.templates;
        self.restored = sender.restored;
        if sender.boot_time != 0 {
            self.boot_time = sender.boot_time;
        }
        let awaited = sender.awaited.iter();
        let shown = |wait: &Wait| {
            let waited = now.elapsed_ms.saturating_sub(wait.since);
            let since = now.unix_ms.saturating_sub(waited);
            Awaited { template: wait.id, sets: wait.sets, since, given_up: wait.given_up }
        };
        self.awaited = awaited.map(shown).collect();
        self.awaited.sort_unstable_by_key(|awaited| awaited.template);
        let Some(track) = sender.track else { return };
        self.provisional = track.provisional;
        self.sampling_rate = track.sampling_rate;
        self.sampling_source = track.sampling_source;
        self.names_sampler = track.names_sampler;
        self.skew_ms = track.skew;
        self.sequence = Sequence {
            unit: track.unit.label(),
            missing: track.missing.saturating_sub(track.late),
            late: track.late,
            duplicates: track.duplicates,
            resets: track.resets,
            last: self.sequence.last,
            stands_still: track.sequence_stands_still(),
        };
    }

    /// How often these faults were met.
    pub fn times(&self, faults: &[Fault]) -> u64 {
        self.faults.iter().filter(|met| faults.contains(&met.fault)).map(|met| met.times).sum()
    }

    /// Sets that wait for a template.
    pub fn held(&self) -> usize {
        self.awaited.iter().map(|awaited| awaited.sets).sum()
    }
}
