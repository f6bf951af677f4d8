//! What follows from a record and its run: absolute times, the sampling rate, the headers of a sampled packet.
//!
//! | key | from, the first that is there |
//! |---|---|
//! | `flowStartMilliseconds` | 154, 156 (NTP format), 150 (seconds), 158 (microseconds before the export time), 22 (uptime) |
//! | `flowEndMilliseconds` | 155, 157, 151, 159, 21 |
//! | `timeQuality`, only beside a time from 21 or 22 | `exporter`: the exporter said when it started (160 in the record, or the run's boot time); `header`: export time less uptime; `export`: neither is known, so the flow ended at the export time |
//! | `samplingRate`, `samplingSource`, not in options and counters | `record`: 34, 50, (305 + 306) / 305, 310 / 309; else the run's |
//! | what the headers of a sampled packet say | 315, 104, 313, 316: `packets` |

use super::packets::Section;
use super::{is_element, sampling_name};
use crate::batch::read::{Group, Run};
use crate::flow::json::{self, unsigned, unsigned_64};
use crate::flow::time;
use crate::proto::{BootQuality, RecordKind};
use std::collections::HashMap;

/// One end of a flow: the key, its element, and the elements that it follows from, best first.
struct End {
    key: &'static [u8],
    element: u16,
    sources: [(u16, Via); 5],
}

/// How a time follows from a field.
#[derive(Clone, Copy)]
enum Via {
    NtpMicros,
    NtpNanos,
    Seconds,
    /// Microseconds before the export time.
    Before,
    Uptime,
}

const START: End = End {
    key: b",\"flowStartMilliseconds\":",
    element: 152,
    sources: [
        (154, Via::NtpMicros),
        (156, Via::NtpNanos),
        (150, Via::Seconds),
        (158, Via::Before),
        (22, Via::Uptime),
    ],
};

const END: End = End {
    key: b",\"flowEndMilliseconds\":",
    element: 153,
    sources: [
        (155, Via::NtpMicros),
        (157, Via::NtpNanos),
        (151, Via::Seconds),
        (159, Via::Before),
        (21, Via::Uptime),
    ],
};

/// What can be derived for the records of a group, and from which columns: worked out once.
pub(super) struct Derivation {
    start: Vec<(usize, Via)>,
    end: Vec<(usize, Via)>,
    end_uptime: Option<usize>,
    boot: Option<usize>,
    /// The records may carry a rate, or be subject to the run's.
    is_sampled: bool,
    /// 34 and 50: one packet in so many.
    intervals: Vec<usize>,
    interval_and_space: Option<(usize, usize)>,
    size_and_population: Option<(usize, usize)>,
    section: Option<Section>,
}

/// A time in milliseconds since 1970, and what says how good it is, if it comes from an uptime.
type Time = (i128, Option<&'static str>);

impl Derivation {
    pub(super) fn new(group: &Group) -> Self {
        let mut columns = HashMap::new();
        for (place, column) in group.columns.iter().enumerate() {
            if column.field.enterprise == 0 && is_element(group, place) {
                columns.entry(column.field.element).or_insert(place);
            }
        }
        let column = |element: u16| columns.get(&element).copied();
        let sources = |end: &End| match column(end.element) {
            Some(_) => Vec::new(),
            None => end.sources.iter().filter_map(|&(element, via)| Some((column(element)?, via))).collect(),
        };
        Self {
            start: sources(&START),
            end: sources(&END),
            end_uptime: column(21),
            boot: column(160),
            is_sampled: !matches!(group.kind, RecordKind::Options | RecordKind::CounterSample),
            intervals: [34, 50].into_iter().filter_map(column).collect(),
            interval_and_space: column(305).zip(column(306)),
            size_and_population: column(309).zip(column(310)),
            section: Section::of(&columns),
        }
    }

    /// Appends what is known, each as `,"key":value`.
    pub(super) fn write(&self, out: &mut Vec<u8>, group: &Group, run: &Run, record: usize) {
        let row = Row { derivation: self, group, run, record };
        if let Some(section) = &self.section {
            section.write(out, group, record);
        }
        let mut quality = None;
        for (end, sources) in [(&START, &self.start), (&END, &self.end)] {
            let time = sources.iter().find_map(|&(column, via)| row.time(column, via));
            // What lies before 1970 is no time that a flow had.
            if let Some((milliseconds, time_quality)) = time.filter(|time| time.0 >= 0) {
                out.extend_from_slice(end.key);
                json::write_display(out, milliseconds);
                quality = quality.or(time_quality);
            }
        }
        if let Some(quality) = quality {
            out.extend_from_slice(b",\"timeQuality\":");
            json::write_text(out, quality);
        }
        row.write_sampling(out);
    }
}

/// One packet in `packets / taken` was sampled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) packets: u128,
    pub(super) taken: u128,
    pub(super) source: &'static str,
}

impl Derivation {
    /// The rate at which a record was sampled, if it is known.
    pub(super) fn rate(&self, group: &Group, run: &Run, record: usize) -> Option<Rate> {
        Row { derivation: self, group, run, record }.rate()
    }
}

/// One record.
struct Row<'a> {
    derivation: &'a Derivation,
    group: &'a Group,
    run: &'a Run,
    record: usize,
}

impl Row<'_> {
    fn number(&self, column: usize) -> Option<u64> {
        unsigned_64(self.group.value(column, self.record))
    }

    /// The low 32 bits: some exporters send uptimes in eight bytes.
    fn uptime(&self, column: usize) -> Option<u32> {
        self.number(column).map(|uptime| uptime as u32)
    }

    fn time(&self, column: usize, via: Via) -> Option<Time> {
        let value = self.number(column)?;
        let ntp = || (self.group.value(column, self.record).len() == 8 && value != 0).then_some(value);
        Some(match via {
            Via::NtpMicros => (time::from_ntp_micros(ntp()?).div_euclid(1000), None),
            Via::NtpNanos => (time::from_ntp(ntp()?).div_euclid(1_000_000), None),
            Via::Seconds => (i128::from(value) * 1000, None),
            Via::Before if self.run.export_time == 0 => return None,
            Via::Before => {
                let microseconds = i128::from(self.run.export_time) * 1000 - i128::from(value);
                (microseconds.div_euclid(1000), None)
            }
            Via::Uptime => self.uptime_time(value as u32)?,
        })
    }

    /// A time less than a turn of the exporter's clock away: its own, else ours if that was set. Any other would put the
    /// flow at another turn.
    fn near(&self) -> Option<u64> {
        let received = Some(self.run.receive_time).filter(|&time| time::is_of_a_set_clock(time));
        Some(self.run.export_time).filter(|&time| time != 0).or(received)
    }

    /// When the exporter's uptime was this.
    fn uptime_time(&self, uptime: u32) -> Option<Time> {
        let near = self.near()?;
        let own_boot = self.derivation.boot.and_then(|column| self.number(column)).filter(|&boot| boot != 0);
        let (boot, quality) = match (own_boot, self.run.boot_quality) {
            (Some(boot), _) => (boot, "exporter"),
            (None, BootQuality::Exporter) => (self.run.boot_time, "exporter"),
            (None, BootQuality::Header) => (self.run.boot_time, "header"),
            (None, BootQuality::Unknown) => {
                // The flow's end is all that can be placed; its length is known.
                let end = self.derivation.end_uptime.and_then(|column| self.uptime(column))?;
                let since = time::uptime_difference(uptime, end);
                return Some((i128::from(near) + i128::from(since), Some("export")));
            }
        };
        Some((time::from_uptime(boot, uptime, near), Some(quality)))
    }

    fn write_sampling(&self, out: &mut Vec<u8>) {
        let Some(Rate { packets, taken, source }) = self.rate() else { return };
        out.extend_from_slice(b",\"samplingRate\":");
        if packets % taken == 0 {
            json::write_display(out, packets / taken);
        } else {
            json::write_display(out, packets as f64 / taken as f64);
        }
        out.extend_from_slice(b",\"samplingSource\":");
        json::write_text(out, source);
    }

    fn rate(&self) -> Option<Rate> {
        if !self.derivation.is_sampled {
            return None;
        }
        let of_run = || {
            let rate = self.run.sampling_rate;
            let source = sampling_name(self.run.sampling_source);
            (rate != 0).then_some(Rate { packets: u128::from(rate), taken: 1, source })
        };
        let own = self.own_rate().map(|(packets, taken)| Rate { packets, taken, source: "record" });
        own.or_else(of_run)
    }

    /// The rate that the record itself carries, as a fraction: packets there were, packets that were taken.
    fn own_rate(&self) -> Option<(u128, u128)> {
        let derivation = self.derivation;
        let wide =
            |column: usize| unsigned(self.group.value(column, self.record)).filter(|&value| value != 0);
        let pair = |(one, other): (usize, usize)| Some((self.number(one)?, self.number(other)?));
        if let Some(interval) = derivation.intervals.iter().find_map(|&column| wide(column)) {
            return Some((interval, 1));
        }
        let spaced = derivation.interval_and_space.and_then(pair).filter(|(interval, _)| *interval != 0);
        if let Some((interval, space)) = spaced {
            return Some((u128::from(interval) + u128::from(space), u128::from(interval)));
        }
        let drawn = derivation.size_and_population.and_then(pair);
        let (size, population) = drawn.filter(|(size, population)| *size != 0 && *population != 0)?;
        Some((u128::from(population), u128::from(size)))
    }
}
