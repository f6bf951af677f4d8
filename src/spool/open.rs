//! The start: takes the folder for this process, finds out what lies in it, begins a new lane.
//!
//! Only segments without a footer are read through. Nothing that is found stops the start, but for a format
//! that is newer than this program; what cannot be read goes to quarantine.

use super::counted::Counted;
use super::frame::{Fault, Footer, SegmentHeader};
use super::metrics::Metrics;
use super::positions::{self, PositionsFile};
use super::queue::{Queue, Sender};
use super::read::{self, Walk};
use super::recount::{self, recount};
use super::segment::{UNFINISHED_NAME, parse_name};
use super::skips::{self, SkipsFile};
use super::stall::Calls;
use super::state::{AsideView, Journal, Lane, Segment, Shared, State};
use super::writer::Writer;
use super::{LaneId, LastHeard, OpenError, Recovered, Settings, SkipRow, Spool, aside, quarantine, tally};
use crate::proto::skip::Reason;
use crate::storage::{Entry, Mode, Storage, StorageFile};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const LOCK_NAME: &str = "LOCK";
/// The largest segment file; offsets in it fit 32 bits.
const MAX_SEGMENT_BYTES: u64 = 32 << 20;
const MIN_SEGMENT_BYTES: u64 = 1 << 20;
/// Segments that the budget must have room for.
const MIN_SEGMENTS: u64 = 8;

/// Bytes of a segment under a budget of `max_bytes`: 32 MiB, or an eighth of a budget below 256 MiB.
fn segment_bytes(max_bytes: u64) -> u64 {
    (max_bytes / MIN_SEGMENTS).min(MAX_SEGMENT_BYTES) & !4095
}

/// Opens the spool on `storage`.
pub fn open(
    storage: Arc<dyn Storage>,
    settings: Settings,
    metrics: Metrics,
) -> Result<(Spool, Writer, Sender), OpenError> {
    let segment_bytes = segment_bytes(settings.max_bytes);
    if segment_bytes < MIN_SEGMENT_BYTES {
        let least = MIN_SEGMENTS * MIN_SEGMENT_BYTES;
        return Err(OpenError::TooSmall { max_bytes: settings.max_bytes, least_bytes: least });
    }
    open_in_segments(storage, settings, segment_bytes, metrics)
}

/// As [`open`], with segments of that many bytes.
pub fn open_in_segments(
    storage: Arc<dyn Storage>,
    settings: Settings,
    segment_bytes: u64,
    metrics: Metrics,
) -> Result<(Spool, Writer, Sender), OpenError> {
    let calls = Calls::default();
    let storage: Arc<dyn Storage> =
        Arc::new(Counted { storage, metrics: metrics.clone(), calls: calls.clone() });
    let dir = settings.dir.clone();
    let failed = |source| OpenError::Io { dir: dir.clone(), source };
    storage.create_dir(&dir, 0o700).map_err(failed)?;
    let lock = take_lock(storage.as_ref(), &dir)?;
    let mut finds = Finds::new(storage.clone(), &dir);
    finds.look_through().map_err(failed)?;
    if let Some((file, version)) = finds.newer.take() {
        return Err(OpenError::Newer { file, version });
    }
    let positions = PositionsFile::open(&storage, &dir).map_err(failed)?;
    finds.make_durable(&positions.positions);
    let (skips, mut rows) = SkipsFile::open(&storage, &dir).map_err(failed)?;
    rows.extend(finds.rows_aside);
    let mut journal = Journal { positions: positions.file, skips };
    let mut recovered = Recovered { positions_damaged: positions.damaged, ..finds.recovered };
    let aside = finds.aside.into();
    let mut lanes = join(finds.lanes, &positions.positions.lanes, rows);
    for lane in &mut lanes {
        recount(storage.as_ref(), lane);
        metrics.recovered_batches.inc_by(lane.unacked.batches);
        metrics.recovered_records.inc_by(lane.unacked.records);
        declare_lost(storage.as_ref(), lane, &metrics, &mut recovered);
    }
    lanes.retain(|lane| lane.next_seq > 1);
    recovered.lanes = lanes.len();
    let last_heard = LastHeard::read(storage.as_ref(), &lanes);
    lanes.push(Lane::new((settings.new_lane)(), (settings.clock)()));
    let state = State {
        lanes,
        mark_store_id: positions.positions.mark_store_id,
        rejects: positions.positions.rejects,
        dirty: true,
        aside,
        ..State::default()
    };
    let unacked = tally::unacked(&state);
    recovered.records = unacked.records;
    metrics.unacked_batches.inc_by(unacked.batches as i64);
    metrics.unacked_records.inc_by(unacked.records as i64);
    write_down(&mut journal, &state, &metrics);
    tracing::info!(
        folder = %dir.display(),
        lanes = recovered.lanes,
        batches = recovered.batches,
        torn_bytes = recovered.torn_bytes,
        lost_batches = recovered.lost_batches,
        quarantined_files = recovered.quarantined_files,
        "The spool is open"
    );
    let queue = Arc::new(Queue::new(settings.queue_bytes, metrics.waiting_records.clone()));
    let sender = Sender::new(queue.clone());
    let shared = Arc::new(Shared {
        storage,
        calls,
        settings,
        segment_bytes,
        metrics,
        recovered,
        last_heard,
        queue,
        next_seq: tokio::sync::watch::Sender::new(1),
        state: Mutex::new(state),
        journal: Mutex::new(journal),
        opened: Mutex::new(VecDeque::new()),
        lock,
    });
    shared.queue.poke();
    Ok((Spool { shared: shared.clone() }, Writer::new(shared), sender))
}

/// Takes the folder for this process alone.
fn take_lock(storage: &dyn Storage, dir: &Path) -> Result<Arc<dyn StorageFile>, OpenError> {
    let failed = |source| OpenError::Io { dir: dir.to_owned(), source };
    let file = storage.open(&dir.join(LOCK_NAME), Mode::Keep).map_err(failed)?;
    match file.lock() {
        Ok(()) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(OpenError::Locked { dir: dir.to_owned() })
        }
        Err(source) => Err(failed(source)),
    }
}

/// What was made of the start must hold for the next one too; a disk that takes nothing does not keep it
/// from going on: the writer tries again. The positions go first: rows that they have passed are left out of the file.
fn write_down(journal: &mut Journal, state: &State, metrics: &Metrics) {
    let rows = state.rows();
    let written = journal.positions.write(&state.positions(), true);
    let written = written.and_then(|()| journal.skips.rewrite(&rows));
    if let Err(error) = written {
        metrics.disk_errors.inc();
        tracing::error!(%error, "What was found in the spool could not be written down");
    }
}

/// Lanes from what segments, positions and rows say, oldest first.
fn join(
    mut lanes: BTreeMap<LaneId, Lane>,
    positions: &[positions::LanePosition],
    rows: Vec<SkipRow>,
) -> Vec<Lane> {
    for position in positions {
        let lane = lanes.entry(position.lane).or_insert_with(|| Lane::new(position.lane, position.created));
        lane.created = lane.created.min(position.created);
        // Once it is to be set aside nothing more is acked of it: its folder says where it stood.
        if !lane.forked {
            lane.stands_at(position);
        }
    }
    for row in rows {
        if !positions.is_empty() && !lanes.contains_key(&row.lane) {
            // Before a segment is dropped the positions name its lane: this one has been closed since.
            continue;
        }
        let lane = lanes.entry(row.lane).or_insert_with(|| Lane::new(row.lane, 0));
        lane.next_seq = lane.next_seq.max(row.to + 1);
        if row.to > lane.acked_seq {
            let parts = lane.without_rows(row.from, row.to);
            for (from, to) in parts {
                // Whole but for damage to the file; then its sums would be too high.
                let same = (from, to) == (row.from, row.to);
                lane.add_row(if same { row.clone() } else { SkipRow::new(row.lane, from, to, row.reason) });
            }
        }
    }
    let mut lanes: Vec<Lane> = lanes.into_values().collect();
    for lane in &mut lanes {
        lane.durable_next = lane.next_seq;
    }
    lanes.sort_by_key(|lane| (lane.created, lane.id));
    lanes
}

/// Numbers above the position for which there is neither a frame nor a row.
fn declare_lost(storage: &dyn Storage, lane: &mut Lane, metrics: &Metrics, recovered: &mut Recovered) {
    let mut at = lane.acked_seq + 1;
    let mut missing = Vec::new();
    let mut before: Option<&Segment> = None;
    for segment in &lane.segments {
        if segment.first_seq > at {
            let gap = before.and_then(|before| recount::missing(storage, lane, before, segment));
            missing.extend(gaps(lane, at, segment.first_seq - 1, gap.unwrap_or(0)));
        }
        at = at.max(segment.last_seq + 1);
        before = Some(segment);
    }
    if at < lane.next_seq {
        missing.extend(gaps(lane, at, lane.next_seq - 1, 0));
    }
    for (from, to, records) in missing {
        let row = SkipRow::new(lane.id, from, to, Reason::Lost);
        tracing::error!(lane = %lane.id, from, to, records, "Batches that had a number are not in the spool");
        metrics.count_skipped(&row, records);
        // More than the recount could see behind damage.
        metrics.recovered_records.inc_by(records.saturating_sub(lane.unacked.records));
        recount::take(lane, to - from + 1, records);
        recovered.lost_ranges += 1;
        recovered.lost_batches += to - from + 1;
        lane.add_row(row);
    }
    let skipped: u64 = lane.rows.iter().map(|row| row.to - row.from.max(lane.acked_seq + 1) + 1).sum();
    recovered.batches += (lane.next_seq - 1 - lane.acked_seq).saturating_sub(skipped);
}

/// The parts of a gap that have no row, each with its records: all that rows do not speak for count with the first.
fn gaps(lane: &Lane, from: u64, to: u64, records: u64) -> Vec<(u64, u64, u64)> {
    let rows = lane.rows.iter().filter(|row| row.to >= from && row.from <= to);
    let mut left = records.saturating_sub(rows.map(SkipRow::records).sum());
    let parts = lane.without_rows(from, to).into_iter();
    parts.map(|(from, to)| (from, to, std::mem::take(&mut left))).collect()
}

/// What is found in the folder.
struct Finds<'a> {
    storage: Arc<dyn Storage>,
    dir: &'a Path,
    lanes: BTreeMap<LaneId, Lane>,
    /// The last segment of each lane, and its last number.
    ends: Vec<(LaneId, u64, PathBuf)>,
    aside: Vec<AsideView>,
    /// Rows of lanes that were being set aside, as their folders have them.
    rows_aside: Vec<SkipRow>,
    recovered: Recovered,
    /// A file of a format that is newer than this program, and its version.
    newer: Option<(String, u16)>,
}

impl<'a> Finds<'a> {
    fn new(storage: Arc<dyn Storage>, dir: &'a Path) -> Self {
        let recovered = Recovered::default();
        let (lanes, ends) = (BTreeMap::new(), Vec::new());
        let (aside, rows_aside) = (Vec::new(), Vec::new());
        Self { storage, dir, lanes, ends, aside, rows_aside, recovered, newer: None }
    }

    fn look_through(&mut self) -> io::Result<()> {
        let mut entries = self.storage.list(self.dir)?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let found = aside::find(self.storage.as_ref(), self.dir, &entries)?;
        if !found.is_empty() {
            // One that was moved in part may be under both names no more.
            entries = self.storage.list(self.dir)?;
        }
        let mut segments = Vec::new();
        for entry in entries {
            if parse_name(&entry.name).is_some() {
                let header = self.check_header(&entry)?;
                segments.extend(header.map(|header| (self.dir.join(&entry.name), header)));
            } else if entry.name == UNFINISHED_NAME || entry.name.starts_with("spare-") {
                self.storage.remove(&self.dir.join(&entry.name))?;
            }
        }
        for found in found {
            segments.extend(self.take_up(found));
        }
        segments.sort_by_key(|(_, header)| (header.lane, header.first_seq));
        for (place, (path, header)) in segments.iter().enumerate() {
            let next = segments.get(place + 1).map(|(_, next)| next).filter(|next| next.lane == header.lane);
            self.survey(path, header, next.map(|next| next.first_seq - 1))?;
        }
        Ok(())
    }

    /// A folder of what was set aside. Gives the segments of a lane that has not come whole into it yet.
    fn take_up(&mut self, found: aside::Found) -> Vec<(PathBuf, SegmentHeader)> {
        let aside::Found { dir, segments, unfinished } = found;
        let Some(position) = unfinished else {
            // Segments alone, as in the spool itself.
            let disk_bytes = segments.iter().filter_map(|segment| segment.file_bytes).sum();
            self.aside.push(AsideView { dir, disk_bytes });
            return Vec::new();
        };
        tracing::warn!(lane = %position.lane, folder = %dir.display(), "A lane was being set aside: it goes on");
        let lane = Lane::new(position.lane, position.created);
        let lane = self.lanes.entry(position.lane).or_insert(lane);
        lane.stands_at(&position);
        (lane.forked, lane.aside_dir) = (true, Some(dir.clone()));
        match skips::read(self.storage.as_ref(), &dir) {
            Ok(read) => self.rows_aside.extend(read.rows),
            Err(error) => tracing::warn!(%error, "The skip rows of what is set aside cannot be read"),
        }
        let header = |segment: Entry| {
            let path = dir.join(&segment.name);
            let file = self.storage.open(&path, Mode::Read).ok()?;
            let header = read::segment_header(file.as_ref()).ok()?.ok()?;
            let is_so = parse_name(&segment.name) == Some((header.lane, header.first_seq));
            is_so.then_some((path, header))
        };
        segments.into_iter().filter_map(header).collect()
    }

    /// The header of a segment file. A file without a sound one goes to quarantine.
    fn check_header(&mut self, entry: &Entry) -> io::Result<Option<SegmentHeader>> {
        let Some(bytes) = entry.file_bytes else {
            tracing::warn!(name = entry.name, "Not a file, and so not taken for a segment");
            return Ok(None);
        };
        let file = self.storage.open(&self.dir.join(&entry.name), Mode::Read)?;
        let header = match read::segment_header(file.as_ref()) {
            Err(error) if read::is_media_fault(&error) => {
                // It stays where it is: another start, or another controller, may read it.
                tracing::error!(name = entry.name, %error, "A segment's header cannot be read: left out");
                return Ok(None);
            }
            header => header?,
        };
        match header {
            Ok(header) if parse_name(&entry.name) == Some((header.lane, header.first_seq)) => {
                return Ok(Some(header));
            }
            Err(Fault::Newer(version)) => {
                self.newer = Some((entry.name.clone(), version));
                return Ok(None);
            }
            Ok(_) => tracing::error!(name = entry.name, "A segment is not what its name says: quarantine"),
            Err(fault) => tracing::error!(name = entry.name, %fault, "A segment's header: quarantine"),
        }
        self.put_away(&entry.name, bytes);
        Ok(None)
    }

    fn put_away(&mut self, name: &str, bytes: u64) {
        self.recovered.quarantined_files += 1;
        if let Err(error) = quarantine::take(self.storage.as_ref(), self.dir, name, bytes) {
            tracing::error!(name, %error, "A segment could not be moved to quarantine");
        }
    }

    /// Takes up a segment: what its footer says, or what reading it through gives. It ends before the next.
    fn survey(&mut self, path: &Path, header: &SegmentHeader, last_seq: Option<u64>) -> io::Result<()> {
        let file = self.storage.open(path, Mode::Read)?;
        let footer = match read::footer(file.as_ref(), header)? {
            Some(footer) => footer,
            None => {
                let (footer, torn_bytes) = scan(file.as_ref(), header)?;
                self.recovered.torn_bytes += torn_bytes;
                if torn_bytes > 0 {
                    tracing::warn!(file = %path.display(), torn_bytes, "The last write was cut off");
                }
                // What was reserved behind is given back. Should that fail, it only takes room.
                let file = self.storage.open(path, Mode::Write)?;
                let _ = file.set_len(footer.end + torn_bytes);
                footer
            }
        };
        if footer.frames == 0 {
            // Nothing was ever durable in it. A first frame that was cut off is kept for people.
            let is_kept = path.parent() != Some(self.dir);
            if !is_kept && file.len()? > footer.end {
                self.put_away(&super::segment::file_name(header.lane, header.first_seq), file.len()?);
            } else if !is_kept {
                let _ = self.storage.remove(path);
            }
            return Ok(());
        }
        if last_seq.is_none() {
            self.ends.push((header.lane, footer.last_seq, path.to_owned()));
        }
        let lane = self.lanes.entry(header.lane).or_insert_with(|| Lane::new(header.lane, header.created));
        let last_seq = footer.last_seq.min(last_seq.unwrap_or(u64::MAX));
        lane.next_seq = lane.next_seq.max(last_seq + 1);
        lane.segments.push_back(Segment {
            first_seq: header.first_seq,
            last_seq,
            disk_bytes: file.len()?,
            path: path.to_owned(),
            end: footer.end,
            oldest_received: footer.oldest_received,
            growing: None,
            going: false,
        });
        Ok(())
    }

    /// The last frames of a lane may be no further than the kernel: who wrote them was killed before the
    /// fdatasync. They count from here on. Of lanes that a start has found before, the positions say so.
    fn make_durable(&self, positions: &positions::Positions) {
        let synced = positions.lanes.iter().filter(|_| !positions.unsynced);
        let synced: BTreeMap<LaneId, u64> = synced.map(|lane| (lane.lane, lane.next_seq)).collect();
        let known = |lane: &LaneId| synced.get(lane).copied().unwrap_or(1);
        let moved = |path: &Path| path.parent() != Some(self.dir);
        let new = self.ends.iter().filter(|(lane, last, path)| moved(path) || known(lane) <= *last);
        let new: Vec<&Path> = new.map(|(_, _, path)| path.as_path()).collect();
        let dirs: BTreeSet<&Path> = new.iter().map(|path| path.parent().unwrap_or(self.dir)).collect();
        let files = new.iter().map(|path| self.storage.open(path, Mode::Write).and_then(|file| file.sync()));
        let synced = files.chain(dirs.into_iter().map(|dir| self.storage.sync_dir(dir)));
        if let Err(error) = synced.fold(Ok(()), io::Result::and) {
            tracing::error!(folder = %self.dir.display(), %error, "What was found may not outlive a power cut");
        }
    }
}

/// Reads a segment through: what its footer would say, and the bytes of a frame that was cut off.
fn scan(file: &dyn StorageFile, header: &SegmentHeader) -> io::Result<(Footer, u64)> {
    let mut footer = Footer { last_seq: header.first_seq - 1, ..Footer::default() };
    let mut walk = Walk::new(file, header, file.len()?, true);
    while let Some(found) = walk.next()? {
        footer.last_seq = found.header.seq;
        footer.records += u64::from(found.header.records);
        footer.oldest_received = match footer.frames {
            0 => found.header.received,
            _ => footer.oldest_received.min(found.header.received),
        };
        footer.frames += 1;
    }
    footer.end = walk.offset;
    Ok((footer, walk.torn_bytes()?))
}
