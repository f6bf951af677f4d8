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
    /// Samples of sFlow that have not come, by the sequence numbers of their sources, late ones among them.
    pub samples_missing: u64,
    /// How many of those have come late.
    pub samples_late: u64,
    /// Samples that the exporter says it has lost itself since the first of theirs came.
    pub samples_dropped: u64,
    sequence: Sequence,
    uptime: Uptime,
    starts: Starts,
    /// The sequence number that came last.
    last: u32,
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
            samples_missing: 0,
            samples_late: 0,
            samples_dropped: 0,
            sequence: match protocol {
                Protocol::Ipfix => Sequence::default(),
                _ => Sequence::beside_uptime(),
            },
            uptime: Uptime::default(),
            starts: Starts::default(),
            last: 0,
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
    /// When the first of them came, by the clock of [`Arrival::elapsed`].
    pub since: u64,
    /// The template was known, and was given up to make room for others.
    pub given_up: bool,
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
    /// An options record told that the exporter has started anew.
    pub(super) has_restarted: bool,
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

/// What a datagram says of its exporter's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Onset {
    /// It is the first of its sender that was heard: what it says must be held against what is known from before.
    First,
    /// The exporter has started anew since the last one.
    Anew,
    /// The same as before.
    Same,
}

/// Starts in a row, each so soon after the one before, in milliseconds, that are no starts: several exporters that send
/// as one, or an uptime that is none.
const MOST_STARTS: u8 = 3;
const SOON: u64 = 600_000;

/// The starts of an exporter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Starts {
    in_a_row: u8,
    last: u64,
}

impl Starts {
    /// Takes note of one; says whether it is to be believed.
    pub(super) fn believes(&mut self, elapsed: u64) -> bool {
        let is_soon = self.in_a_row > 0 && elapsed.saturating_sub(self.last) < SOON;
        self.in_a_row = if is_soon { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = elapsed;
        self.in_a_row <= MOST_STARTS
    }
}

impl Tracks {
    /// An empty table of at most `cap` senders.
    pub(super) fn new(cap: usize) -> Tracks {
        Tracks(Generations::new(cap))
    }

    /// Takes note of a datagram that was read, whose header said `run`.
    pub(super) fn datagram(
        &mut self,
        arrival: &Arrival,
        run: &Run,
        notes: &Notes,
        output: &mut impl Output,
    ) -> Onset {
        let track = self.note(arrival, run, notes);
        let restarted = track.uptime.advance(run, arrival);
        let last = std::mem::replace(&mut track.last, run.sequence);
        let count = match track.unit {
            Unit::Flows | Unit::Records => (!notes.is_part).then_some(notes.records),
            Unit::Datagrams | Unit::Samples => Some(1),
        };
        let mut is_new = restarted;
        // NetFlow v1 has no sequence number.
        if run.protocol != Protocol::NetflowV1
            && let Some(step) = track.sequence.take(run.sequence, count, restarted)
        {
            track.count(step);
            output.sequence(track.unit, step);
            // IPFIX has no uptime. A number that goes on far ahead is what an outage leaves.
            is_new |= step == Step::Reset && run.protocol == Protocol::Ipfix && run.sequence < last;
        }
        track.start(is_new, arrival)
    }

    /// Takes note of a datagram of samples, whose sequence numbers have been counted.
    pub(super) fn samples(
        &mut self,
        arrival: &Arrival,
        run: &Run,
        notes: &Notes,
        steps: &SampleSteps,
        has_restarted: bool,
        output: &mut impl Output,
    ) -> Onset {
        let track = self.note(arrival, run, notes);
        if let Some(step) = steps.datagram {
            track.count(step);
            output.sequence(Unit::Datagrams, step);
        }
        let samples =
            [Step::Gap(steps.missing), Step::Late(steps.late), Step::Dropped(steps.dropped)].into_iter();
        for step in samples.filter(|step| step.amount() > 0) {
            track.count_samples(step);
            output.sequence(Unit::Samples, step);
        }
        track.start(has_restarted, arrival)
    }

    fn note(&mut self, arrival: &Arrival, run: &Run, notes: &Notes) -> &mut Track {
        let key = DomainKey { exporter: run.exporter, protocol: run.protocol, domain: run.domain };
        let track = self.0.get_or_insert_with(key, || Track::new(key.protocol, arrival));
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
        track
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
    fn start(&mut self, is_new: bool, arrival: &Arrival) -> Onset {
        match is_new {
            true if self.starts.believes(arrival.elapsed) => Onset::Anew,
            false if self.datagrams == 1 => Onset::First,
            _ => Onset::Same,
        }
    }

    fn count(&mut self, step: Step) {
        match step {
            Step::Gap(missing) => self.missing += u64::from(missing),
            Step::Late(late) => self.late += u64::from(late),
            Step::Duplicate => self.duplicates += 1,
            Step::Reset => self.resets += 1,
            Step::Dropped(_) => {}
        }
    }

    fn count_samples(&mut self, step: Step) {
        match step {
            Step::Gap(missing) => self.samples_missing += u64::from(missing),
            Step::Late(late) => self.samples_late += u64::from(late),
            Step::Dropped(dropped) => self.samples_dropped += u64::from(dropped),
            Step::Duplicate | Step::Reset => {}
        }
    }
}

/// What the sequence numbers of a datagram of samples say: its own, and those of all its samples.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SampleSteps {
    pub(super) datagram: Option<Step>,
    pub(super) missing: u32,
    pub(super) late: u32,
    pub(super) dropped: u32,
}

/// An exporter's uptime beside our own clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Uptime {
    /// The two when they were last seen together.
    last: Option<(u32, u64)>,
}

impl Uptime {
    /// Takes a datagram's uptime. Has it not gone on as our clock has? An exporter that starts anew may well show more
    /// uptime than before, modulo its clock's 32 bits.
    pub(super) fn advance(&mut self, run: &Run, arrival: &Arrival) -> bool {
        let Some((uptime, elapsed)) = self.last.replace((run.uptime, arrival.elapsed)) else { return false };
        let ours = arrival.elapsed.wrapping_sub(elapsed) as u32;
        let theirs = run.uptime.wrapping_sub(uptime);
        let has_uptime = uptime != 0 || run.uptime != 0;
        has_uptime && (theirs.wrapping_sub(ours) as i32).unsigned_abs() > UPTIME_SLACK
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Exporter;
    use crate::wire::{Decoder, Fault, Limits, Place, Settings, Template};

    /// The steps of sequence numbers, each with its unit.
    #[derive(Default)]
    struct Steps(Vec<(Unit, Step)>);

    impl Output for Steps {
        fn records(&mut self, _: &Run, _: &Template, _: &[u8], _: &[u32], _: u32) {}
        fn fault(&mut self, _: Fault, _: Place) {}
        fn set(&mut self) {}
        fn sequence(&mut self, unit: Unit, step: Step) {
            self.0.push((unit, step));
        }
    }

    struct Bench {
        decoder: Decoder,
        elapsed: u64,
        port: u16,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { decoder: Decoder::new(Settings::default()), elapsed: 0, port: 1 }
        }

        fn send(&mut self, bytes: &[u8]) -> Vec<(Unit, Step)> {
            let exporter = Exporter { address: [192, 0, 2, 1].into(), port: self.port };
            let arrival = Arrival {
                exporter,
                received: 1_700_000_000_000 + self.elapsed,
                elapsed: self.elapsed,
                number: 0,
            };
            let mut steps = Steps::default();
            self.decoder.datagram(&arrival, bytes, &mut steps).unwrap();
            steps.0
        }

        fn track(&self) -> &Track {
            self.decoder.senders().next().unwrap().track.unwrap()
        }
    }

    fn numbers(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    fn v5(sequence: u32, uptime: u32, flows: u16) -> Vec<u8> {
        let head = [&[0, 5][..], &flows.to_be_bytes(), &numbers(&[uptime, 1_700_000_000, 0, sequence, 0])];
        [head.concat(), vec![1; 48 * usize::from(flows)]].concat()
    }

    fn v9(sequence: u32, uptime: u32, sets: &[u8]) -> Vec<u8> {
        [&[0, 9, 0, 1][..], &numbers(&[uptime, 1_700_000_000, sequence, 7]), sets].concat()
    }

    fn ipfix(sequence: u32, sets: &[u8]) -> Vec<u8> {
        let length = (16 + sets.len() as u16).to_be_bytes();
        [&[0, 10][..], &length, &numbers(&[1_700_000_000, sequence, 7]), sets].concat()
    }

    fn ipfix_data(records: u8) -> Vec<u8> {
        [&[1, 0, 0, 4 + records][..], &vec![7; records.into()]].concat()
    }

    /// Template 256 and options template 257, of one byte each.
    const TEMPLATES: [u8; 32] = [
        0, 2, 0, 12, 1, 0, 0, 1, 0, 1, 0, 1, // template
        0, 3, 0, 20, 1, 1, 0, 1, 0, 1, 0, 144, 0, 1, 0, 0, 0, 0, 0, 0, // options template, padding
    ];

    #[test]
    fn quirk_58_v5_counts_flows() {
        let mut bench = Bench::new();
        assert_eq!(bench.send(&v5(u32::MAX - 29, 0, 30)), []);
        assert_eq!(bench.send(&v5(0, 0, 30)), []);
        assert_eq!(bench.send(&v5(90, 0, 10)), [(Unit::Flows, Step::Gap(60))]);
        assert_eq!(bench.send(&v5(60, 0, 30)), [(Unit::Flows, Step::Late(30))]);
        assert_eq!(bench.send(&v5(90, 0, 10)), [(Unit::Flows, Step::Duplicate)]);
        let track = bench.track();
        assert_eq!((track.missing, track.late, track.duplicates, track.records), (60, 30, 1, 110));
    }

    #[test]
    fn quirk_58_v9_counts_datagrams() {
        let mut bench = Bench::new();
        for sequence in 0..10 {
            assert_eq!(bench.send(&v9(sequence, 0, &[])), []);
        }
        assert_eq!(bench.send(&v9(12, 0, &[])), [(Unit::Datagrams, Step::Gap(2))]);
    }

    #[test]
    fn quirk_58_ipfix_counts_data_records_options_among_them_and_no_templates() {
        let mut bench = Bench::new();
        assert_eq!(bench.send(&ipfix(0, &TEMPLATES)), []);
        assert_eq!(bench.send(&ipfix(0, &ipfix_data(5))), []);
        let options = [1, 1, 0, 7, 1, 2, 3];
        assert_eq!(bench.send(&ipfix(5, &[&options[..], &ipfix_data(2), &TEMPLATES].concat())), []);
        assert_eq!(bench.send(&ipfix(10, &ipfix_data(1))), []);
        assert_eq!(bench.send(&ipfix(14, &ipfix_data(1))), [(Unit::Records, Step::Gap(3))]);
        assert_eq!(bench.track().records, 12);
    }

    #[test]
    fn what_is_held_or_broken_in_ipfix_makes_no_gap() {
        let mut bench = Bench::new();
        assert_eq!(bench.send(&ipfix(0, &ipfix_data(5))), []);
        assert_eq!(bench.send(&ipfix(5, &ipfix_data(5))), []);
        assert_eq!(bench.send(&ipfix(10, &TEMPLATES)), [], "held sets are read now, the number stays");
        assert_eq!(bench.track().records, 10);
        assert_eq!(bench.send(&ipfix(10, &ipfix_data(5))), []);
        assert_eq!(bench.send(&ipfix(15, &[0, 9, 0, 200])), [], "a set that runs over the end");
        assert_eq!(bench.send(&ipfix(40, &ipfix_data(5))), []);
        assert_eq!(bench.send(&ipfix(46, &ipfix_data(5))), [(Unit::Records, Step::Gap(1))]);
    }

    #[test]
    fn quirk_59_numbers_that_are_always_0_say_nothing_and_are_shown() {
        let mut bench = Bench::new();
        for _ in 0..50 {
            assert_eq!(bench.send(&v9(0, 0, &[])), []);
        }
        assert!(bench.track().sequence_stands_still());
        assert_eq!((bench.track().missing, bench.track().duplicates), (0, 0));
    }

    #[test]
    fn quirk_59_ports_and_domains_have_their_own_sequences() {
        let mut bench = Bench::new();
        for sequence in 0..10 {
            for port in 1..5 {
                bench.port = port;
                assert_eq!(bench.send(&v9(sequence + 1_000 * u32::from(port), 0, &[])), []);
                assert_eq!(bench.send(&ipfix(77, &[])), []);
            }
        }
    }

    #[test]
    fn an_exporter_that_starts_anew_makes_no_gap() {
        let mut bench = Bench::new();
        let forty_days = 3_456_000_000;
        assert_eq!(bench.send(&v9(5_000, forty_days, &[])), []);
        bench.elapsed += 1_000;
        assert_eq!(bench.send(&v9(5_001, forty_days + 1_000, &[])), []);
        bench.elapsed += 30_000;
        assert_eq!(bench.send(&v9(0, 2_000, &[])), [(Unit::Datagrams, Step::Reset)]);
        bench.elapsed += 1_000;
        assert_eq!(bench.send(&v9(1, 3_000, &[])), []);
        // One whose number goes on, and jumps.
        bench.elapsed += 120_000;
        assert_eq!(bench.send(&v9(500, 20, &[])), [(Unit::Datagrams, Step::Reset)]);
        // The uptime's own turn is no new start.
        bench.port = 2;
        assert_eq!(bench.send(&v9(7, u32::MAX - 500, &[])), []);
        bench.elapsed += 1_000;
        assert_eq!(bench.send(&v9(9, 499, &[])), [(Unit::Datagrams, Step::Gap(1))]);
    }

    #[test]
    fn a_flood_of_senders_pushes_out_no_template_and_is_bounded() {
        let limits = Limits { senders: 100, ..Limits::default() };
        let mut bench = Bench::new();
        bench.decoder = Decoder::new(Settings { limits, ..Settings::default() });
        bench.send(&ipfix(0, &TEMPLATES));
        for port in 2..5_000 {
            bench.port = port;
            bench.send(&v9(0, 0, &[]));
            assert!(bench.decoder.senders().count() <= 101);
        }
        assert_eq!(bench.decoder.domains().templates(), 2);
        let of_templates = bench.decoder.senders().find(|sender| sender.key.exporter.port == 1).unwrap();
        assert_eq!((of_templates.templates, of_templates.track.is_none()), (2, true));
    }

    #[test]
    fn the_skew_is_what_the_exporter_s_clock_is_ahead() {
        let mut bench = Bench::new();
        bench.elapsed = 90_000;
        bench.send(&v9(0, 0, &[]));
        assert_eq!(bench.track().skew, -90_000);
        bench.elapsed = 0;
        let mut ahead = v9(1, 0, &[]);
        ahead[8..12].copy_from_slice(&1_700_000_005_u32.to_be_bytes());
        bench.send(&ahead);
        assert_eq!(bench.track().skew, 5_000);
    }
}
