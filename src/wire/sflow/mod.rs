//! sFlow version 5 (sFlow.org, "sFlow Version 5", <https://sflow.org/sflow_version_5.txt>; drop samples: "sFlow Dropped
//! Packet Notification Structures", <https://sflow.org/sflow_drops.txt>).
//!
//! ```text
//! datagram   0 version = 5   4 agent's address type   8 agent (4 or 16)   . sub-agent   . sequence   . uptime (ms)
//!            . count of samples   { data format, length, sample } ...
//! flow 1     0 sequence  4 source id  8 rate  12 pool  16 drops  20 input  24 output  28 count of records
//! flow 3     0 sequence  4 class  8 index  12 rate  16 pool  20 drops  24 input: format, value  32 output: format, value  40 count
//! counter 2  0 sequence  4 source id  8 count            counter 4  0 sequence  4 class  8 index  12 count
//! drop 5     0 sequence  4 class  8 index  12 drops  16 input  20 output  24 reason  28 count
//! ```
//!
//! | file | what |
//! |---|---|
//! | `start.rs`, `sample.rs` | how a sample begins, and its records, one after the other |
//! | `structures.rs` | what is in flow records |
//! | `flow.rs`, `counters.rs` | from records to a row |
//! | `parts.rs`, `rows.rs` | the columns of rows, their layouts, and the way to the output |
//! | `sequences.rs` | what the sequence numbers tell |
//! | `reasons.rs` | why packets were discarded |
//!
//! Each sample is a set: it gives one row and is told as read, or as a fault. A record has the run's sampling rate,
//! since that changes from sample to sample; runs of samples with one rate are one run.
//!
//! | if | then |
//! |---|---|
//! | a sample's length is more than what is left | the records that are there are taken; it is a fault, and the end |
//! | a record does not fit its sample | those before it are taken, and it is a fault; with none before it there is no row |
//! | a sample is of a kind not known here | it is told as unknown, which is no fault |
//! | there are more or fewer samples than the header's count | those there are, up to the count, are taken; it is a fault |
//! | a sample's length is no multiple of four, no sample can begin behind it, and one can behind zeros up to such a multiple | those are padding |
//! | zeros follow the last sample | they are padding |

mod counters;
mod flow;
mod parts;
mod reasons;
mod rows;
mod sample;
mod sequences;
mod start;
mod structures;

pub use sample::{Record, Records, Sample, Source};

use super::cursor::{Cursor, Short};
use super::track::{DataNotes, Notes, Onset};
use super::{Arrival, Decoder, Fault, Output, Place};
use crate::flow::Run;
use crate::proto::{Protocol, RecordKind, SamplingSource};
use rows::Rows;
use sequences::Sequences;
use start::Start;
use structures::Address;

/// The high half of the version field.
pub(super) const VERSION_HIGH: u16 = 0;
const VERSION_LOW: u16 = 5;

/// What stays from datagram to datagram.
#[derive(Debug, Default)]
pub(super) struct Samples {
    rows: Rows,
    notes: Notes,
    sequences: Sequences,
}

impl Samples {
    /// Takes note of a sample that gave a row.
    fn note(&mut self, start: &Start) {
        self.notes.records += 1;
        if start.rate > 0 {
            let (sampling_rate, sampling_source) = (start.rate, SamplingSource::Sample);
            let (carries_rate, names_sampler) = (false, false);
            self.notes.data = Some(DataNotes { sampling_rate, sampling_source, carries_rate, names_sampler });
        }
    }
}

/// What belongs to a datagram: whose it is, and its run.
#[derive(Debug)]
struct Head {
    agent: Address,
    run: Run,
    samples: u32,
}

/// Reads a datagram of whose version the first half has been read.
pub(super) fn datagram(
    decoder: &mut Decoder,
    arrival: &Arrival,
    mut cursor: Cursor<'_>,
    output: &mut impl Output,
) -> Result<(), Fault> {
    let head = head(arrival, &mut cursor)?;
    output.header(&head.run);
    let state = &mut decoder.samples;
    state.notes = Notes::default();
    state.sequences.datagram(head.agent, &head.run, arrival);
    let mut left = head.samples;
    while left > 0 {
        match next(state, &head, &mut cursor, left - 1, output) {
            Next::Read => left -= 1,
            Next::None => break,
            Next::Cut => left = 0,
        }
    }
    state.rows.flush(&head.run, output);
    if left > 0 || cursor.rest().iter().any(|byte| *byte != 0) {
        output.begun();
        output.fault(Fault::Count, Place { offset: cursor.at(), bytes: cursor.left() });
    }
    let (steps, restarted) = (state.sequences.steps(), state.sequences.has_restarted());
    if decoder.tracks.samples(arrival, &head.run, &state.notes, steps, restarted, output) == Onset::Anew {
        output.restarted();
    }
    Ok(())
}

fn head(arrival: &Arrival, cursor: &mut Cursor<'_>) -> Result<Head, Fault> {
    let short = |Short| Fault::ShortHeader;
    if cursor.u16().map_err(short)? != VERSION_LOW {
        return Err(Fault::UnknownVersion);
    }
    let agent = Address::read(cursor).map_err(short)?.ok_or(Fault::AgentAddress)?;
    let numbers = |cursor: &mut Cursor<'_>| {
        let (sub_agent, sequence) = (cursor.u32()?, cursor.u32()?);
        Ok((sub_agent, sequence, cursor.u32()?, cursor.u32()?))
    };
    let (sub_agent, sequence, uptime, samples) = numbers(cursor).map_err(short)?;
    let run =
        Run { agent: agent.ip(), domain: sub_agent, sequence, uptime, ..arrival.run(Protocol::SflowV5) };
    Ok(Head { agent, run, samples })
}

/// What became of the next sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Read,
    /// It reaches past the end, and so nothing is behind it.
    Cut,
    /// There is none.
    None,
}

/// Reads the next sample, behind which `after` others are said to come.
fn next(
    state: &mut Samples,
    head: &Head,
    cursor: &mut Cursor<'_>,
    after: u32,
    output: &mut impl Output,
) -> Next {
    const HEADER_BYTES: usize = 8;
    let Some((format, length, rest)) = sample::header(cursor.rest()) else { return Next::None };
    output.begun();
    let content = Content { rest, length: length.min(rest.len()), after };
    let is_short = length > rest.len();
    let read = match Start::read(format, content.cursor()) {
        Ok(Some((start, records))) => sample(state, head, &start, content, records, output),
        Ok(None) => Read { bytes: content.length, end: End::Unknown },
        Err(Short) => Read { bytes: content.length, end: End::Broken { unread: content.length } },
    };
    let at = cursor.at() + HEADER_BYTES;
    let behind = rest.get(read.bytes..).unwrap_or(&[]);
    let padding = behind.len() - sample::padded(read.bytes, behind, can_begin).unwrap_or(behind).len();
    // All of it is there: the header was read, and no sample is longer than the rest.
    let _taken = cursor.take(HEADER_BYTES + read.bytes + padding);
    match read.end {
        End::Broken { unread } => {
            let fault = if is_short { Fault::SampleLength } else { Fault::SampleRecord };
            output.fault(fault, Place { offset: at + read.bytes - unread, bytes: unread });
        }
        _ if is_short => output.fault(Fault::SampleLength, Place { offset: at, bytes: read.bytes }),
        End::Whole => output.set(),
        End::Unknown => {
            let unknown = Record::new(format, rest.get(..read.bytes).unwrap_or(&[]));
            output.unknown_sample(unknown, Place { offset: at, bytes: read.bytes });
        }
    }
    if is_short { Next::Cut } else { Next::Read }
}

/// The rest of a datagram may be samples: the next is there whole.
fn can_begin(rest: &[u8]) -> bool {
    sample::header(rest).is_some_and(|(format, length, rest)| format != 0 && length <= rest.len())
}

/// Where a sample lies.
#[derive(Clone, Copy, Debug)]
struct Content<'a> {
    /// From its first byte to the datagram's end.
    rest: &'a [u8],
    /// Its length as it says, or as far as there are bytes.
    length: usize,
    /// Samples that are said to follow.
    after: u32,
}

impl<'a> Content<'a> {
    fn cursor(&self) -> Cursor<'a> {
        Cursor::new(self.rest.get(..self.length).unwrap_or(&[]))
    }

    /// The same, as long as its last record needs, where the sample's length is at fault and not the record's.
    fn lengthened(self, records: &Records<'_>) -> Option<Content<'a>> {
        let length = self.length.checked_add(records.lacking()?)?;
        let can_follow = |length: usize| {
            let rest = self.rest.get(length..)?;
            let follows = match self.after {
                0 => rest.is_empty(),
                _ => {
                    let (format, length, rest) = sample::header(rest)?;
                    Start::kind(format).is_some() && (Start::LEAST..=rest.len()).contains(&length)
                }
            };
            follows.then_some(())
        };
        (can_follow(self.length).is_none() && can_follow(length).is_some())
            .then_some(Content { length, ..self })
    }
}

/// How far a sample was read.
#[derive(Clone, Copy, Debug)]
struct Read {
    /// Bytes to the next sample.
    bytes: usize,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Whole,
    /// So many of its last bytes were not.
    Broken {
        unread: usize,
    },
    Unknown,
}

/// Reads a sample's records, which begin at byte `records` of it, and gives its row.
fn sample(
    state: &mut Samples,
    head: &Head,
    start: &Start,
    mut content: Content<'_>,
    records: usize,
    output: &mut impl Output,
) -> Read {
    loop {
        let region = content.rest.get(records..content.length).unwrap_or(&[]);
        let all = Records::new(start.kind, region, start.count);
        let mut row = state.rows.row();
        let walked = match start.kind {
            RecordKind::CounterSample => {
                let (found, walked) = counters::Found::read(all, &mut row);
                start.put(&head.agent, &mut row);
                found.put(&mut row);
                walked
            }
            kind => {
                let (found, walked) = flow::Found::read(all, &mut row);
                start.put(&head.agent, &mut row);
                found.put(&mut row, kind == RecordKind::DropSample);
                walked
            }
        };
        if let Some(longer) = content.lengthened(&walked) {
            content = longer;
            continue;
        }
        let is_whole = walked.left() == 0 && row.lost() == 0;
        if walked.left() < start.count || start.count == 0 {
            let sample = start.told(all);
            state.sequences.sample(&sample);
            output.sample(&sample);
            row.finish(start.kind, start.rate, &head.run, output);
            state.note(start);
        }
        let end = if is_whole { End::Whole } else { End::Broken { unread: walked.rest().len() } };
        return Read { bytes: content.length, end };
    }
}

#[cfg(test)]
mod tests;
