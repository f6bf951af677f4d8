//! What is known of senders without being told: when they were heard, how much they sent, what is missing.
//!
//! A table of its own beside `domain.rs`, bounded: senders of which nothing can be decoded have a row here, and push
//! out no template.

use super::domain::DomainKey;
use super::generations::Generations;
use super::sequence::{Sequence, Step, Unit};
use super::{Arrival, Output};
use crate::flow::Run;
use crate::proto::{Protocol, SamplingSource};

/// What the datagrams of one sender, protocol and domain have shown.
#[derive(Clone, Debug)]
pub struct Track {
    /// When the first datagram was received, in milliseconds since 1970.
    pub first_seen: u64,
    /// When the last one was.
    pub last_seen: u64,
    /// Datagrams whose header could be read.
    pub datagrams: u64,
    /// Records decoded, of every kind, held ones that were decoded later among them.
    pub records: u64,
    /// Those of them whose template was another port's.
    pub provisional: u64,
    /// How far the exporter's clock was ahead of ours, in milliseconds, by the last datagram that had a time.
    pub skew: i64,
    /// The sampling rate that the last data records were given, one packet in this many; 0 if none is known.
    pub sampling_rate: u32,
    /// Where it came from.
    pub sampling_source: SamplingSource,
    /// The last data records have fields for a rate of their own.
    pub carries_rate: bool,
    /// They have a field that names a sampler.
    pub names_sampler: bool,
    /// What the sequence number counts.
    pub unit: Unit,
    /// How many of those have not come, by the sequence numbers, late ones among them.
    pub missing: u64,
    /// How many of the missing have come late.
    pub late: u64,
    /// Datagrams that came twice.
    pub duplicates: u64,
    /// How often the sequence began anew.
    pub resets: u64,
    sequence: Sequence,
    uptime: u32,
    elapsed: u64,
}

impl Track {
    fn new(protocol: Protocol, arrival: &Arrival) -> Track {
        Track {
            first_seen: arrival.received,
            last_seen: arrival.received,
            datagrams: 0,
            records: 0,
            provisional: 0,
            skew: 0,
            sampling_rate: 0,
            sampling_source: SamplingSource::Unknown,
            carries_rate: false,
            names_sampler: false,
            unit: match protocol {
                Protocol::NetflowV5 | Protocol::NetflowV7 => Unit::Flows,
                Protocol::Ipfix => Unit::Records,
                _ => Unit::Datagrams,
            },
            missing: 0,
            late: 0,
            duplicates: 0,
            resets: 0,
            sequence: Sequence::default(),
            uptime: 0,
            elapsed: arrival.elapsed,
        }
    }

    /// The sequence number is always the same: nothing can be said of what is missing.
    pub fn sequence_stands_still(&self) -> bool {
        self.sequence.stands_still()
    }
}

/// What is known of one sender, for whoever shows it.
#[derive(Clone, Debug)]
pub struct Sender<'a> {
    /// Who it is.
    pub key: DomainKey,
    /// What its datagrams have shown; `None` if it was not heard since the start (or long ago), and only what it told
    /// is known.
    pub track: Option<&'a Track>,
    /// Templates known, options templates among them.
    pub templates: usize,
    /// Those of them that were restored and not heard since.
    pub restored: usize,
    /// Data that waits for its template, by template id.
    pub awaited: Vec<Wait>,
    /// When the exporter started, as it told: in milliseconds since 1970, 0 if unknown.
    pub boot_time: u64,
    /// Sampling rates that it told.
    pub rates: usize,
    /// Interfaces that it told a name or description of.
    pub interfaces: usize,
}

/// Data that waits for a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The template's id.
    pub id: u16,
    /// How many sets wait.
    pub sets: usize,
    /// When the first of them was received, in milliseconds since 1970.
    pub since: u64,
}

/// What a datagram had, gathered while it is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notes {
    /// Records decoded of it.
    pub(super) records: u32,
    /// There were more, of which nobody knows how many.
    pub(super) is_part: bool,
    /// Of the last data set, if there was one.
    pub(super) data: Option<DataNotes>,
}

/// How data records were sampled.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataNotes {
    pub(super) sampling_rate: u32,
    pub(super) sampling_source: SamplingSource,
    pub(super) carries_rate: bool,
    pub(super) names_sampler: bool,
}

impl DataNotes {
    pub(super) fn new(run: &Run, carries_rate: bool, names_sampler: bool) -> DataNotes {
        let Run { sampling_rate, sampling_source, .. } = *run;
        DataNotes { sampling_rate, sampling_source, carries_rate, names_sampler }
    }
}

/// By how much an uptime may differ from our own clock before the exporter has started anew, in milliseconds.
const UPTIME_SLACK: u32 = 60_000;

/// The table.
#[derive(Debug)]
pub(super) struct Tracks(Generations<DomainKey, Track>);

impl Tracks {
    /// An empty table of at most `cap` senders.
    pub(super) fn new(cap: usize) -> Tracks {
        Tracks(Generations::new(cap))
    }

    /// Takes note of a datagram that was read, whose header said `run`.
    pub(super) fn datagram(&mut self, arrival: &Arrival, run: &Run, notes: &Notes, output: &mut impl Output) {
        let key = DomainKey { exporter: run.exporter, protocol: run.protocol, domain: run.domain };
        let track = self.track(key, arrival);
        track.last_seen = arrival.received;
        track.datagrams += 1;
        track.records += u64::from(notes.records);
        if run.export_time != 0 {
            track.skew = run.export_time.wrapping_sub(arrival.received) as i64;
        }
        if let Some(data) = notes.data {
            track.sampling_rate = data.sampling_rate;
            track.sampling_source = data.sampling_source;
            track.carries_rate = data.carries_rate;
            track.names_sampler = data.names_sampler;
        }
        let restarted = track.has_restarted(run, arrival);
        (track.uptime, track.elapsed) = (run.uptime, arrival.elapsed);
        let count = match track.unit {
            Unit::Flows | Unit::Records => (!notes.is_part).then_some(notes.records),
            Unit::Datagrams | Unit::Samples => Some(1),
        };
        if key.protocol == Protocol::NetflowV1 {
            return; // It has no sequence number.
        }
        if let Some(step) = track.sequence.take(run.sequence, count, restarted) {
            track.count(step);
            output.sequence(track.unit, step);
        }
    }

    fn track(&mut self, key: DomainKey, arrival: &Arrival) -> &mut Track {
        self.0.get_or_insert_with(key, || Track::new(key.protocol, arrival))
    }

    /// Takes note of records of a held set.
    pub(super) fn resumed(&mut self, key: &DomainKey, records: u32, is_provisional: bool) {
        if let Some(track) = self.0.peek_mut(key) {
            track.records += u64::from(records);
            track.provisional += if is_provisional { u64::from(records) } else { 0 };
        }
    }

    /// What is known of a sender.
    pub(super) fn get(&self, key: &DomainKey) -> Option<&Track> {
        self.0.peek(key)
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&DomainKey, &Track)> {
        self.0.iter()
    }
}

impl Track {
    fn count(&mut self, step: Step) {
        match step {
            Step::Gap(missing) => self.missing += u64::from(missing),
            Step::Late(late) => self.late += u64::from(late),
            Step::Duplicate => self.duplicates += 1,
            Step::Reset => self.resets += 1,
        }
    }

    /// The exporter's uptime has not gone on as our clock has. An exporter that starts anew may well show more uptime
    /// than before, modulo its clock's 32 bits.
    fn has_restarted(&self, run: &Run, arrival: &Arrival) -> bool {
        let ours = arrival.elapsed.wrapping_sub(self.elapsed) as u32;
        let theirs = run.uptime.wrapping_sub(self.uptime);
        let has_uptime = self.uptime != 0 || run.uptime != 0;
        self.datagrams > 1 && has_uptime && (theirs.wrapping_sub(ours) as i32).unsigned_abs() > UPTIME_SLACK
    }
}
