//! `spool export`: batches of a folder as JSON lines, or their raw datagrams.

use super::pcap;
use super::{Place, file};
use crate::batch::read::{self, Batch};
use crate::cli::{Failure, counted};
use crate::spool::Stored;
use crate::spool::folder::{Damage, Depth, Folder, LaneFound, SegmentFound};
use crate::storage::Disk;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// What is typed behind `export`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Only this lane; the first digits of its name do
    #[arg(long, value_name = "LANE")]
    lane: Option<String>,
    /// From this batch on, acknowledged, skipped or not [default: what is neither]
    #[arg(long, value_name = "NUMBER")]
    from: Option<u64>,
    /// Up to this batch
    #[arg(long, value_name = "NUMBER")]
    to: Option<u64>,
    /// Raw datagrams instead of records
    #[arg(long, value_enum, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "pcap")]
    raw: Option<Form>,
    /// Write to this new file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// How datagrams are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// A capture of IP packets, with headers made anew
    Pcap,
    /// Each after its length in 4 bytes, the highest first
    Lengths,
}

/// What came out, and what did not.
#[derive(Debug, Default)]
struct Count {
    batches: u64,
    records: u64,
    /// Raw ones where records were asked for, or the other way round.
    others: u64,
    unreadable: u64,
}

/// Why the output ended early.
#[derive(Debug)]
struct Stop(io::Error);

/// Does it. Damage is told at the end, when all else is out.
pub(super) fn export(arguments: &Arguments) -> Result<(), Failure> {
    let folder = arguments.place.read(Depth::Headers)?;
    let lanes = chosen(&folder, arguments.lane.as_deref())?;
    let (name, mut out): (_, Box<dyn Write>) = match &arguments.output {
        None => ("standard output".to_owned(), Box::new(io::stdout().lock())),
        Some(path) => (path.display().to_string(), Box::new(new_file(&folder, path)?)),
    };
    let mut out = BufWriter::with_capacity(1 << 16, &mut out);
    let mut damages = Vec::new();
    let mut count = Count::default();
    let written = write(arguments, &folder, &lanes, &mut out, &mut damages, &mut count)?;
    match written.and_then(|()| out.flush().map_err(Stop)) {
        Err(Stop(error)) if error.kind() == io::ErrorKind::BrokenPipe && arguments.output.is_none() => {
            return Ok(());
        }
        Err(Stop(error)) => return Err(Failure::Other(format!("{name}: {error}"))),
        Ok(()) => {}
    }
    verdict(arguments, &folder, &damages, &count)
}

/// The lanes that are asked for.
fn chosen<'a>(folder: &'a Folder, wanted: Option<&str>) -> Result<Vec<&'a LaneFound>, Failure> {
    let Some(wanted) = wanted else { return Ok(folder.lanes.iter().collect()) };
    let lanes: Vec<_> =
        folder.lanes.iter().filter(|lane| lane.id.to_string().starts_with(&wanted.to_lowercase())).collect();
    let told = match lanes.len() {
        1 => return Ok(lanes),
        0 => format!("{}: there is no lane {wanted}", folder.dir.display()),
        _ => format!("{}: several lanes begin with {wanted}: give more digits", folder.dir.display()),
    };
    Err(Failure::Unreadable(told))
}

/// A new file, anywhere but in the folder.
fn new_file(folder: &Folder, path: &Path) -> Result<File, Failure> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let real = |path: &Path| path.canonicalize();
    if let (Ok(above), Ok(dir)) = (real(above), real(&folder.dir))
        && above.starts_with(&dir)
    {
        return Err(Failure::Other(format!(
            "{}: is in the spool, in which this command writes nothing; give a place outside",
            path.display()
        )));
    }
    File::create_new(path).map_err(|error| Failure::Other(format!("{}: {error}", path.display())))
}

fn write(
    arguments: &Arguments,
    folder: &Folder,
    lanes: &[&LaneFound],
    out: &mut impl Write,
    damages: &mut Vec<Damage>,
    count: &mut Count,
) -> Result<Result<(), Stop>, Failure> {
    if arguments.raw == Some(Form::Pcap)
        && let Err(error) = out.write_all(&pcap::file_header())
    {
        return Ok(Err(Stop(error)));
    }
    for lane in lanes {
        // A number may stand in two segments: the disk failed between, and it was written again.
        let mut done = 0;
        for segment in folder.segments.iter().filter(|segment| segment.lane == lane.id) {
            if !may_hold(arguments, lane, segment) {
                continue;
            }
            let (mut found, mut unreadable) = (Vec::new(), Vec::new());
            let each = |stored: Stored| {
                let seq = stored.seq;
                if seq <= done || !is_wanted(arguments, lane, seq) {
                    return Ok(());
                }
                done = seq;
                match read::open(stored.codec, stored.plain_size, &stored.payload) {
                    Ok(batch) => one(arguments.raw, &batch, out, count),
                    Err(error) => {
                        count.unreadable += 1;
                        unreadable.push(format!("batch {seq} of lane {}: {error}", lane.id));
                        Ok(())
                    }
                }
            };
            let written = folder.batches(&Disk, segment, &mut found, each).map_err(Failure::unreadable)?;
            found.extend(unreadable.into_iter().map(|what| Damage {
                file: segment.name.clone(),
                offset: 0,
                what,
            }));
            damages.extend(found);
            if written.is_err() {
                return Ok(written);
            }
        }
    }
    Ok(Ok(()))
}

fn is_wanted(arguments: &Arguments, lane: &LaneFound, seq: u64) -> bool {
    let is_below = arguments.to.is_none_or(|to| seq <= to);
    match arguments.from {
        Some(from) => seq >= from && is_below,
        None => lane.is_unacked(seq) && is_below,
    }
}

/// Without reading it: numbers of the segment are wanted.
fn may_hold(arguments: &Arguments, lane: &LaneFound, segment: &SegmentFound) -> bool {
    let from = arguments.from.unwrap_or(lane.acked_seq + 1);
    segment.last_seq >= from && arguments.to.is_none_or(|to| segment.first_seq <= to)
}

fn one(raw: Option<Form>, batch: &Batch, out: &mut impl Write, count: &mut Count) -> Result<(), Stop> {
    let is_raw = batch.datagrams().len() > 0;
    if is_raw != raw.is_some() {
        count.others += 1;
        return Ok(());
    }
    count.batches += 1;
    count.records += batch.records();
    let mut bytes = Vec::new();
    match raw {
        None => crate::flow::record::write_lines(&mut bytes, batch),
        Some(Form::Pcap) => batch.datagrams().for_each(|datagram| pcap::packet(&mut bytes, &datagram)),
        Some(Form::Lengths) => {
            for datagram in batch.datagrams() {
                let length = u32::try_from(datagram.bytes.len()).unwrap_or(u32::MAX);
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(datagram.bytes);
            }
        }
    }
    out.write_all(&bytes).map_err(Stop)
}

/// Tells what came out on standard error, and what is damaged as a failure.
fn verdict(arguments: &Arguments, folder: &Folder, damages: &[Damage], count: &Count) -> Result<(), Failure> {
    let (one, many) = if arguments.raw.is_some() { ("datagram", "datagrams") } else { ("record", "records") };
    let came =
        format!("{} in {}", counted(count.records, one, many), counted(count.batches, "batch", "batches"));
    let others = match (count.others, arguments.raw) {
        (0, _) => String::new(),
        (others, None) => {
            format!("; {} of raw datagrams left out: see --raw", counted(others, "batch", "batches"))
        }
        (others, Some(_)) => format!("; {} of records left out", counted(others, "batch", "batches")),
    };
    let in_use = match folder.in_use_by {
        Some(pid) => format!("; process {pid} has the spool in use and goes on writing and sending"),
        None => String::new(),
    };
    let mut all: Vec<&Damage> = folder.damages.iter().collect();
    // Both looks may have come by the same place.
    all.extend(damages.iter().filter(|damage| !folder.damages.contains(damage)));
    let told: Vec<String> = all
        .iter()
        .map(|damage| format!("{}: at byte {}: {}", file(folder, &damage.file), damage.offset, damage.what))
        .collect();
    let summary = format!("{}: {came}{others}{in_use}", folder.dir.display());
    if told.is_empty() {
        eprintln!("{summary}");
        return Ok(());
    }
    let left_out = counted(told.len() as u64, "damage", "damages");
    Err(Failure::Other(format!("{}\n{summary}; {left_out}", told.join("\n"))))
}
