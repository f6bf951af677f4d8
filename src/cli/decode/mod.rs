//! `flowproxy decode`: captures in, what is in them out, by the proxy's own decoder.
//!
//! ```text
//! capture --flow datagrams--> wire::Decoder --> gather (batch) --in the order decoded--> json | table | summary
//! ```
//!
//! | if | then |
//! |---|---|
//! | a datagram is flow (see `header`) | it gets the file's next number, from 1 |
//! | its data has no template yet | it is held, without age, and shown once the template came, under its own number |
//! | the file ends with data held | a template of another port of its address is tried; what remains is a fault `no_template` |
//! | templates are withdrawn | in IPFIX files they are forgotten, in captures of UDP only told |
//! | several files are named | each starts anew, with fresh templates; JSON lines carry `file` |
//! | a file cannot be read to its end | what is before is shown, then a fault; the next file follows; exit code 1 |
//! | output and errors go to one terminal | what could not be read is told once, as an error, and not in the text |
//! | the reader of our output goes away | we end, without an error |

mod gather;
mod header;
mod json;
mod lists;
mod show;
mod summary;
mod table;

use super::Failure;
use crate::capture::{Capture, Next};
use crate::wire::{Arrival, ChangeLimits, Decoder, HoldLimits, Limits, Settings};
use gather::Gather;
use show::{Datagram, FileEnd, Show};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// What is typed behind `decode`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Files to read, pcap, pcapng or IPFIX (RFC 5655); - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How it is shown: for people, or one JSON object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Show each field's bytes too, in hexadecimal digits
    #[arg(long)]
    raw: bool,
    /// Show no records but who sent what: counts, faults, sampling, time span
    #[arg(long)]
    summary: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Text
    #[default]
    Table,
    /// JSON lines
    Json,
}

/// Data that waits for its template takes at most four times this, and one exporter's at most this, in bytes.
const HELD_BYTES: usize = 32 << 20;

/// Why a file was not shown to its end.
#[derive(Debug)]
enum Stop {
    /// Our output cannot be written.
    Output(io::Error),
    /// A batch of ours cannot be read back.
    Batch(crate::batch::read::Error),
}

/// Shows every file; tells all that could not be read.
pub fn decode(arguments: &Arguments) -> Result<(), Failure> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let is_told_beside = io::stdout().is_terminal() && io::stderr().is_terminal();
    match decode_to(arguments, &mut out, is_told_beside) {
        Ok(failures) if failures.is_empty() => Ok(()),
        Ok(failures) => Err(Failure::Other(failures.join("\n"))),
        // Whoever read us has seen enough.
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Stop::Output(error)) => Err(Failure::Other(format!("standard output: {error}"))),
        Err(Stop::Batch(error)) => Err(Failure::Other(format!("a batch cannot be read back: {error}"))),
    }
}

/// Shows every file; gives what could not be read, which text leaves to whoever tells that if `is_told_beside`.
fn decode_to(arguments: &Arguments, out: &mut impl Write, is_told_beside: bool) -> Result<Vec<String>, Stop> {
    let mut failures = Vec::new();
    for (place, path) in arguments.files.iter().enumerate() {
        if place > 0 && arguments.format == Format::Table {
            writeln!(out).map_err(Stop::Output)?;
        }
        let file = path.display().to_string();
        let named = (arguments.files.len() > 1).then_some(file.as_str());
        let mut show: Box<dyn Show + '_> = match (arguments.summary, arguments.format) {
            (true, Format::Table) => Box::new(summary::Summary::new(&mut *out, file.clone(), false)),
            (true, Format::Json) => Box::new(summary::Summary::new(&mut *out, file.clone(), true)),
            (false, Format::Table) => Box::new(table::Table::new(&mut *out, named, arguments.raw)),
            (false, Format::Json) => Box::new(json::Lines::new(&mut *out, named, arguments.raw)),
        };
        failures.extend(one_file(path, &mut *show, is_told_beside)?);
    }
    out.flush().map_err(Stop::Output)?;
    Ok(failures)
}

/// Shows a file; why not to its end.
fn one_file(path: &Path, show: &mut dyn Show, is_told_beside: bool) -> Result<Option<String>, Stop> {
    let mut capture = match Capture::open(path) {
        Ok(capture) => capture,
        Err(error) => {
            show.end(&FileEnd { error: Some(&error), is_told_beside, ..FileEnd::default() })
                .map_err(Stop::Output)?;
            return Ok(Some(error.to_string()));
        }
    };
    let mut decoder = Decoder::new(settings(capture.format()));
    let mut gather = Gather::new(show);
    let (mut number, mut others, mut clock) = (0, 0, Clock::default());
    let failure = loop {
        match capture.read() {
            Ok(Next::Datagram(datagram)) if header::is_flow(&datagram) => {
                number += 1;
                let elapsed = clock.at(datagram.received);
                let arrival =
                    Arrival { exporter: datagram.exporter, received: datagram.received, elapsed, number };
                gather.datagram(Datagram::new(number, &datagram));
                if let Err(fault) = decoder.datagram(&arrival, datagram.bytes, &mut gather) {
                    gather.unreadable(fault);
                }
                gather.datagram_ends()?;
            }
            Ok(Next::Datagram(_)) => others += 1,
            Ok(Next::Dry) => gather.flush()?,
            Ok(Next::End) => break None,
            Err(error) => break Some(error),
        }
    };
    decoder.tick(clock.at(u64::MAX / 2), &mut gather);
    decoder.end(&mut gather);
    gather.flush()?;
    let end = FileEnd {
        format: Some(capture.format()),
        counts: capture.counts(),
        flow: number,
        others,
        error: failure.as_ref(),
        is_told_beside,
    };
    show.end(&end).map_err(Stop::Output)?;
    Ok(failure.map(|error| error.to_string()))
}

/// Data waits for its template for as long as the file goes on. In an IPFIX file withdrawals take effect, as in any
/// stream whose order is sure (RFC 7011 8.1).
fn settings(format: crate::capture::Format) -> Settings {
    let hold = HoldLimits { max_bytes: 4 * HELD_BYTES, max_age: u64::MAX };
    let changes = ChangeLimits { burst: u32::MAX, ..ChangeLimits::default() };
    let limits = Limits { hold, changes, ..Limits::default() };
    Settings { obey_withdrawals: format == crate::capture::Format::Ipfix, limits, ..Settings::default() }
}

/// The capture's time as a clock that never goes back.
#[derive(Debug, Default)]
struct Clock {
    now: u64,
}

impl Clock {
    fn at(&mut self, received: u64) -> u64 {
        self.now = self.now.max(received);
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cut.pcap");
        std::fs::write(&file, [0xa1, 0xb2, 0xc3, 0xd4, 0, 2]).unwrap();
        let files = vec![folder.path().join("missing"), file];
        for (format, summary) in
            [(Format::Table, false), (Format::Table, true), (Format::Json, false), (Format::Json, true)]
        {
            let arguments = Arguments { files: files.clone(), format, raw: false, summary };
            let faults = |is_told_beside: bool| {
                let mut out = Vec::new();
                let failures = decode_to(&arguments, &mut out, is_told_beside).unwrap();
                assert_eq!(failures.len(), 2);
                let out = String::from_utf8(out).unwrap();
                failures.iter().filter(|failure| out.contains(*failure)).count()
            };
            let told = if format == Format::Json { 2 } else { 0 };
            assert_eq!((faults(false), faults(true)), (2, told), "{format:?} {summary}");
        }
    }
}
