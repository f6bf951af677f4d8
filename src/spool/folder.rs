//! A spool's folder as it lies there, read for people: at any time, with or without a proxy on it. Nothing in it is
//! changed and its lock is not taken. Folders of what was set aside and `quarantine` are read the same way.
//!
//! | if | then |
//! |---|---|
//! | a proxy runs on it | the last frame of a growing segment may be half written, and numbers after it are its own: neither is damage |
//! | a segment goes while we read | it is left out; positions and rows are read after the segments, and speak for it |
//! | a segment's header is damaged | the name says whose frames are in it |
//! | a lane was being set aside when its proxy ended | what is in its folder already is not missing here |
//! | there is no `positions` (a new folder, `quarantine`) | nothing is taken for acked or missing |

mod survey;

pub use survey::{Depth, SegmentFound};

use super::frame::Fault;
use super::positions::{self, Positions, Slot};
use super::read::Frame;
use super::segment::parse_name;
use super::{LaneId, SkipRow, Stored, skips};
use crate::storage::{Entry, Storage};
use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

const LOCK_NAME: &str = "LOCK";
const SUFFIX: &str = ".fsp";

/// Why a folder cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing in it.
    #[error("{}: there is no spool in this folder", dir.display())]
    NoSpool {
        /// The folder.
        dir: PathBuf,
    },
    /// Written by a newer version.
    #[error("{}: format version {version} is newer than this program reads", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
    /// The disk.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file's name in the folder; the folder's own for what is in no file.
    pub file: String,
    /// Where, in bytes from its start.
    pub offset: u64,
    /// What is wrong, in words.
    pub what: String,
}

/// How many batches, and what is in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Batches.
    pub batches: u64,
    /// Records and raw datagrams in them.
    pub records: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// Files in a folder beside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// The folder's name.
    pub name: String,
    /// Files in it.
    pub files: u64,
    /// Their sizes.
    pub bytes: u64,
}

/// A lane, from segments, positions and rows.
#[derive(Clone, Debug)]
pub struct LaneFound {
    /// Its name.
    pub id: LaneId,
    /// When it began, in milliseconds since 1970; `None` if nothing says so.
    pub created: Option<u64>,
    /// The oldest number in its segments; `next_seq` if there is none.
    pub oldest_seq: u64,
    /// The number after the last one that is known.
    pub next_seq: u64,
    /// Up to here all is acked, as far as `positions` says.
    pub acked_seq: u64,
    /// What is in its segments, neither acked nor skipped.
    pub unacked: Tally,
    /// Its rows that the position has not passed, by number.
    pub rows: Vec<SkipRow>,
    /// Numbers that are neither acked, nor in a segment, nor skipped.
    pub missing: Vec<RangeInclusive<u64>>,
    /// The folder that holds some of it already, if it is being set aside.
    pub moving_to: Option<String>,
}

impl LaneFound {
    /// Whether a number waits to be sent.
    pub fn is_unacked(&self, seq: u64) -> bool {
        seq > self.acked_seq && !self.rows.iter().any(|row| row.from <= seq && seq <= row.to)
    }
}

/// What lies in the folder.
#[derive(Debug)]
pub struct Folder {
    /// The folder.
    pub dir: PathBuf,
    /// The process that has it open.
    pub in_use_by: Option<u32>,
    /// Lanes, oldest first.
    pub lanes: Vec<LaneFound>,
    /// Segment files, by lane and number.
    pub segments: Vec<SegmentFound>,
    /// What `positions` says; `None` if there is none that can be read.
    pub positions: Option<Positions>,
    /// Rows in the file, with those that the position has passed.
    pub rows: u64,
    /// Folders of what was set aside.
    pub aside: Vec<Beside>,
    /// Lanes that those folders are of, each with its folder's name.
    moving: BTreeMap<LaneId, String>,
    /// The folder `quarantine`.
    pub quarantine: Option<Beside>,
    /// All that is not as it was written, as far as was looked.
    pub damages: Vec<Damage>,
}

/// Reads a folder.
///
/// # Errors
/// [`Error`]; damage is none.
pub fn read(storage: &dyn Storage, dir: &Path, depth: Depth) -> Result<Folder, Error> {
    let mut entries = storage.list(dir).map_err(Error::io(dir))?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let is_file = |entry: &Entry, name: &str| entry.file_bytes.is_some() && entry.name == name;
    let is_segment = |entry: &Entry| entry.file_bytes.is_some() && entry.name.ends_with(SUFFIX);
    let ours = [LOCK_NAME, positions::NAME, skips::NAME];
    if !entries.iter().any(|entry| is_segment(entry) || ours.iter().any(|name| is_file(entry, name))) {
        return Err(Error::NoSpool { dir: dir.to_owned() });
    }
    let mut folder = Folder {
        dir: dir.to_owned(),
        in_use_by: holder(storage, &dir.join(LOCK_NAME)),
        lanes: Vec::new(),
        segments: Vec::new(),
        positions: None,
        rows: 0,
        aside: Vec::new(),
        moving: BTreeMap::new(),
        quarantine: None,
        damages: Vec::new(),
    };
    for entry in &entries {
        if is_segment(entry) {
            let found = survey::survey(storage, dir, &entry.name, depth, &mut folder.damages)?;
            folder.segments.extend(found);
        } else if entry.file_bytes.is_none() {
            folder.look_beside(storage, entry)?;
        }
    }
    folder.segments.sort_by_key(|segment| (segment.lane, segment.first_seq));
    folder.read_positions(storage)?;
    let rows = folder.read_rows(storage)?;
    folder.join(rows);
    folder.count(storage)?;
    folder.tell_missing();
    Ok(folder)
}

impl Folder {
    fn look_beside(&mut self, storage: &dyn Storage, entry: &Entry) -> Result<(), Error> {
        let is_aside = entry.name.starts_with("forked-");
        if !is_aside && entry.name != "quarantine" {
            return Ok(());
        }
        let dir = self.dir.join(&entry.name);
        let files = match storage.list(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            files => files.map_err(Error::io(&dir))?,
        };
        let sizes = || files.iter().filter_map(|file| file.file_bytes);
        let beside = Beside { name: entry.name.clone(), files: sizes().count() as u64, bytes: sizes().sum() };
        if is_aside {
            let of = positions::newest(storage, &dir).ok().flatten().unwrap_or_default();
            self.moving.extend(of.lanes.iter().map(|position| (position.lane, entry.name.clone())));
            self.aside.push(beside);
        } else {
            self.quarantine = Some(beside);
        }
        Ok(())
    }

    fn damage(&mut self, file: &str, offset: u64, what: String) {
        self.damages.push(Damage { file: file.to_owned(), offset, what });
    }

    /// The newer of the two slots holds. One of them may be about to be written.
    fn read_positions(&mut self, storage: &dyn Storage) -> Result<(), Error> {
        let path = self.dir.join(positions::NAME);
        let Some(slots) = positions::read(storage, &self.dir).map_err(Error::io(&path))? else {
            return Ok(());
        };
        let in_use = self.in_use_by.is_some();
        let is_bad = |slot: &(u64, Slot)| matches!(slot.1, Slot::Bad(_));
        let torn_by_its_writer = in_use && slots.iter().filter(|slot| is_bad(slot)).count() == 1;
        let mut newest = 0;
        for (offset, slot) in slots {
            match slot {
                Slot::Unused => {}
                Slot::Bad(Fault::Newer(version)) => return Err(Error::Newer { path, version }),
                Slot::Bad(fault) if !torn_by_its_writer => {
                    self.damage(positions::NAME, offset, format!("positions: {fault}"));
                }
                Slot::Bad(_) => {}
                Slot::Good(generation, found) => {
                    for lane in found.lanes.iter().filter(|lane| lane.next_seq <= lane.acked_seq) {
                        let (id, acked, next) = (lane.lane, lane.acked_seq, lane.next_seq);
                        let what = format!("lane {id} is acked to {acked}, and its next batch is {next}");
                        self.damages.push(Damage { file: positions::NAME.to_owned(), offset, what });
                    }
                    if generation >= newest {
                        newest = generation;
                        self.positions = Some(found);
                    }
                }
            }
        }
        Ok(())
    }

    fn read_rows(&mut self, storage: &dyn Storage) -> Result<Vec<SkipRow>, Error> {
        let path = self.dir.join(skips::NAME);
        let read = skips::read(storage, &self.dir).map_err(Error::io(&path))?;
        for range in read.damaged {
            // A row that is being written is at the end.
            if self.in_use_by.is_none() || range.end < read.bytes {
                let bytes = range.end - range.start;
                self.damage(skips::NAME, range.start, format!("{bytes} bytes are no skip row"));
            }
        }
        for row in &read.rows {
            let (numbers, counts) = (row.to - row.from + 1, row.records_per_seq.len() as u64);
            if counts > 0 && counts != numbers {
                let what = format!(
                    "the row of {} to {} of lane {} has counts of {counts}",
                    row.from, row.to, row.lane
                );
                self.damage(skips::NAME, 0, what);
            }
        }
        self.rows = read.rows.len() as u64;
        Ok(read.rows)
    }

    /// Lanes, as a start would join them.
    fn join(&mut self, rows: Vec<SkipRow>) {
        let mut lanes: BTreeMap<LaneId, LaneFound> = BTreeMap::new();
        let new = |id: LaneId, created: Option<u64>| LaneFound {
            id,
            created,
            oldest_seq: 0,
            next_seq: 1,
            acked_seq: 0,
            unacked: Tally::default(),
            rows: Vec::new(),
            missing: Vec::new(),
            moving_to: self.moving.get(&id).cloned(),
        };
        for segment in &self.segments {
            let lane = lanes.entry(segment.lane).or_insert_with(|| new(segment.lane, segment.created));
            lane.created = lane.created.into_iter().chain(segment.created).min();
            lane.next_seq = lane.next_seq.max(segment.last_seq + 1);
        }
        for position in self.positions.iter().flat_map(|positions| &positions.lanes) {
            let lane = lanes.entry(position.lane).or_insert_with(|| new(position.lane, None));
            lane.created = Some(lane.created.unwrap_or(u64::MAX).min(position.created));
            lane.acked_seq = position.acked_seq;
            lane.next_seq = lane.next_seq.max(position.next_seq);
        }
        for row in rows {
            let Some(lane) = lanes.get_mut(&row.lane).filter(|lane| row.to > lane.acked_seq) else {
                continue;
            };
            lane.next_seq = lane.next_seq.max(row.to + 1);
            // Of rows that say the same the one that was written first is exact.
            if !lane.rows.iter().any(|other| other.from <= row.from && row.to <= other.to) {
                lane.rows.push(row);
            }
        }
        self.lanes = lanes.into_values().collect();
        for lane in &mut self.lanes {
            lane.rows.sort_by_key(|row| row.from);
        }
        self.lanes.sort_by_key(|lane| (lane.created, lane.id));
    }

    /// Fills in what depends on the frames.
    fn count(&mut self, storage: &dyn Storage) -> Result<(), Error> {
        let has_positions = self.positions.is_some();
        for lane in &mut self.lanes {
            let held: Vec<&SegmentFound> =
                self.segments.iter().filter(|segment| segment.lane == lane.id).collect();
            lane.oldest_seq = held.first().map_or(lane.next_seq, |segment| segment.first_seq);
            let mut at = lane.acked_seq + 1;
            let mut gaps = Vec::new();
            for (place, segment) in held.iter().enumerate() {
                let next = held.get(place + 1).map_or(u64::MAX, |next| next.first_seq);
                let last_seq = segment.last_seq.min(next - 1);
                let tally = survey::tally(storage, &self.dir, segment, lane, last_seq)?;
                lane.unacked.batches += tally.batches;
                lane.unacked.records += tally.records;
                lane.unacked.bytes += tally.bytes;
                gaps.push(at..=segment.first_seq.saturating_sub(1));
                gaps.extend(segment.missing.iter().map(|gap| *gap.start()..=(*gap.end()).min(last_seq)));
                at = at.max(last_seq + 1);
            }
            // What a running proxy has numbered since may be in no file that we have seen.
            if self.in_use_by.is_none() {
                gaps.push(at..=lane.next_seq - 1);
            }
            if has_positions && lane.moving_to.is_none() {
                lane.missing = gaps.into_iter().flat_map(|gap| uncovered(lane, gap)).collect();
            }
        }
        Ok(())
    }

    fn tell_missing(&mut self) {
        let mut told = Vec::new();
        for lane in &self.lanes {
            for gap in &lane.missing {
                let what = match (gap.start(), gap.end()) {
                    (from, to) if from == to => format!("batch {from} of lane {}", lane.id),
                    (from, to) => format!("batches {from} to {to} of lane {}", lane.id),
                };
                told.push(what + " can be read from no segment, and no skip row says why");
            }
        }
        for what in told {
            self.damage(".", 0, what);
        }
    }

    /// Gives every good frame of a segment, in order, each checked whole; tells what is between them.
    ///
    /// # Errors
    /// Outer: the segment's; inner: those of `each`, at the first of which it ends.
    pub fn batches<E>(
        &self,
        storage: &dyn Storage,
        segment: &SegmentFound,
        damages: &mut Vec<Damage>,
        mut each: impl FnMut(Stored) -> Result<(), E>,
    ) -> Result<Result<(), E>, Error> {
        let take = &mut |frame: Frame| each(frame.batch(segment.lane));
        survey::batches(storage, &self.dir, segment, self.in_use_by.is_some(), damages, take)
    }
}

/// The parts of a gap above the ack for which there is no row.
fn uncovered(lane: &LaneFound, gap: RangeInclusive<u64>) -> Vec<RangeInclusive<u64>> {
    let (from, end) = (*gap.start().max(&(lane.acked_seq + 1)), *gap.end());
    let mut at = from;
    let mut parts = Vec::new();
    for row in lane.rows.iter().filter(|row| row.to >= from && row.from <= end) {
        if row.from > at {
            parts.push(at..=row.from - 1);
        }
        at = at.max(row.to + 1);
    }
    if at <= end {
        parts.push(at..=end);
    }
    parts
}

/// The process that holds the lock, without touching it: a lock of ours, however short, could keep a proxy from
/// starting. `/proc/locks` says who has locked which inode of which device.
fn holder(storage: &dyn Storage, lock: &Path) -> Option<u32> {
    let inode = storage.look(lock).ok()??.inode;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let device = device(lock)?;
    let wanted = format!("{device}:{inode}");
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip_while(|word| *word != "FLOCK");
        let (pid, place) = (words.nth(3)?, words.next()?);
        if place == wanted { pid.parse().ok() } else { None }
    })
}

/// A file's device as `/proc/locks` writes it.
fn device(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(path).ok()?.dev();
    Some(format!("{:02x}:{:02x}", rustix::fs::major(device), rustix::fs::minor(device)))
}

/// The lane and first number that a file's name says; quarantined ones have the time in front.
fn named(name: &str) -> Option<(LaneId, u64)> {
    let from = |prefix: &str| name.find(prefix).and_then(|at| name.get(at + prefix.len()..));
    let rest = from("seg-").or_else(|| from("rejected-"))?;
    parse_name(&format!("seg-{rest}"))
}
