//! Lanes that are set aside: two writers have used them, or their end was lost. What is unacked of such a lane goes
//! whole into one folder, a spool that can be looked into, and is counted once.
//!
//! ```text
//! 1  `skips` and then `positions` of this lane alone are made in the folder, durable: from here on a start goes on
//! 2  its segments are moved; both folders are synced
//! 3  the spool's `positions` are written without the lane, durable: it is set aside and counted
//! ```
//!
//! | if | then |
//! |---|---|
//! | the disk fails | the next try uses the same folder; nothing is counted before 3 |
//! | a crash comes before 1 | the lane is as before, and the uplink finds again what is wrong with it; the start removes the folder |
//! | a crash comes before 3 | the start takes the lane together from both folders, sent no more, and goes on |
//! | the byte budget is used up | the folder set aside first is deleted, counted |
//! | there is no room for a folder | the lane's segments are dropped one by one, before those of others, as the budget drops any |
//! | a folder holds other segments of the same names as the spool (a backup was put back) | it stays as it is; the lane in the spool is one like any other |

use super::LaneId;
use super::budget::{per_exporter, remove};
use super::folder::{self, Depth};
use super::frame::{Seed, SegmentHeader};
use super::positions::{self, LanePosition, Positions, PositionsFile};
use super::read::{Frame, Walk};
use super::segment::parse_name;
use super::skips::{self, SkipsFile};
use super::state::{AsideView, Journal, Lane, Segment, Shared, locked};
use super::tally::{self, Count};
use crate::storage::{Entry, Mode, Storage};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

const PREFIX: &str = "forked-";

/// Moves what is unacked of forked lanes, other than the writer's own, into folders of their own.
///
/// # Errors
/// Those of the disk; it may be tried again.
pub fn set_aside(shared: &Shared) -> io::Result<()> {
    let mut journal = shared.journal();
    while let Some(lane) = waiting(shared) {
        if !lane.segments.is_empty() {
            let dir = folder(shared, &lane);
            prepare(shared, &lane, &dir)?;
            move_segments(shared, &lane, &dir)?;
        }
        remove_left(shared, lane.id)?;
        forget(shared, &mut journal, lane.id)?;
    }
    Ok(())
}

/// A lane that is to be set aside.
fn waiting(shared: &Shared) -> Option<Lane> {
    let state = shared.state();
    let (_, old) = state.lanes.split_last()?;
    old.iter().find(|lane| lane.forked).cloned()
}

/// The lane's folder; one in which there is nothing yet, at the first try.
fn folder(shared: &Shared, lane: &Lane) -> PathBuf {
    if let Some(dir) = &lane.aside_dir {
        return dir.clone();
    }
    let mut state = shared.state();
    let mut time = (shared.settings.clock)();
    loop {
        let dir = shared.settings.dir.join(format!("{PREFIX}{time:013}"));
        let others = state.lanes.iter().filter_map(|lane| lane.aside_dir.as_ref());
        if !state.aside.iter().map(|aside| &aside.dir).chain(others).any(|taken| *taken == dir) {
            let known = state.lanes.iter_mut().find(|other| other.id == lane.id);
            known.into_iter().for_each(|lane| lane.aside_dir = Some(dir.clone()));
            return dir;
        }
        time += 1;
    }
}

/// Makes the folder, and says in it whose it is.
fn prepare(shared: &Shared, lane: &Lane, dir: &Path) -> io::Result<()> {
    shared.storage.create_dir(dir, 0o700)?;
    SkipsFile::open(&shared.storage, dir)?.0.rewrite(&lane.rows)?;
    let position = LanePosition {
        lane: lane.id,
        created: lane.created,
        next_seq: lane.durable_next.max(lane.acked_seq + 1),
        acked_seq: lane.acked_seq,
    };
    let mut positions = PositionsFile::open(&shared.storage, dir)?.file;
    positions.write(&Positions { lanes: vec![position], ..Positions::default() }, true)?;
    shared.storage.sync_dir(&shared.settings.dir)
}

fn move_segments(shared: &Shared, lane: &Lane, dir: &Path) -> io::Result<()> {
    for segment in lane.segments.iter().filter(|segment| segment.path.parent() != Some(dir)) {
        let Some(name) = segment.path.file_name() else { continue };
        let path = dir.join(name);
        match shared.storage.rename(&segment.path, &path) {
            // Somebody took it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        locked(&shared.opened).retain(|opened| opened.path != segment.path);
        let mut state = shared.state();
        let segments =
            state.lanes.iter_mut().filter(|other| other.id == lane.id).flat_map(|lane| &mut lane.segments);
        segments
            .filter(|moved| moved.first_seq == segment.first_seq)
            .for_each(|moved| moved.path = path.clone());
    }
    shared.storage.sync_dir(dir)
}

/// Removes what is left of a lane that is done with, or has moved: segments that were given up when the disk failed under them, and
/// could not be removed then. The next start would take the lane up again for them, and for those of which a power cut
/// takes back that they are gone.
pub fn remove_left(shared: &Shared, lane: LaneId) -> io::Result<()> {
    let dir = &shared.settings.dir;
    for entry in shared.storage.list(dir)? {
        if parse_name(&entry.name).is_some_and(|(of, _)| of == lane) {
            remove(shared, &dir.join(&entry.name))?;
        }
    }
    shared.storage.sync_dir(dir)
}

/// Takes the lane out of the spool and counts it.
fn forget(shared: &Shared, journal: &mut Journal, id: LaneId) -> io::Result<()> {
    let (lane, positions) = {
        let state = shared.state();
        let Some(lane) = state.lanes.iter().find(|lane| lane.id == id).cloned() else { return Ok(()) };
        let mut positions = state.positions();
        positions.lanes.retain(|position| position.lane != id);
        (lane, positions)
    };
    let (mut counts, mut batches) = (BTreeMap::new(), 0);
    for segment in &lane.segments {
        if let Err(error) = add_unacked(shared, &lane, segment, &mut counts, &mut batches) {
            tracing::warn!(%error, "What is set aside cannot all be read");
        }
    }
    journal.positions.write(&positions, true)?;
    let counts: Vec<_> = counts.into_iter().collect();
    let mut state = shared.state();
    let known = state.lanes.iter_mut().find(|lane| lane.id == id);
    let left = known.map(|lane| tally::set_aside(shared, lane, batches, &counts)).unwrap_or_default();
    state.lanes.retain(|lane| lane.id != id);
    let is_in = |dir: &PathBuf| lane.segments.iter().any(|segment| segment.path.parent() == Some(dir));
    let dir = lane.aside_dir.as_ref().filter(|dir| is_in(dir));
    if let Some(dir) = dir {
        let disk_bytes = lane.segments.iter().map(|segment| segment.disk_bytes).sum();
        state.aside.push_back(AsideView { dir: dir.clone(), disk_bytes });
    }
    drop(state);
    let Count { batches, records } = left;
    tracing::error!(lane = %id, batches, records, folder = dir.map(|dir| dir.display().to_string()),
        "This lane has had another writer, or has lost its end: what was not acked of it is set aside");
    Ok(())
}

/// Adds what can be read in a segment above the acked ones: the records of each exporter, and the batches.
fn add_unacked(
    shared: &Shared,
    lane: &Lane,
    segment: &Segment,
    counts: &mut BTreeMap<IpAddr, u64>,
    batches: &mut u64,
) -> io::Result<()> {
    let file = shared.storage.open(&segment.path, Mode::Read)?;
    let header = SegmentHeader { lane: lane.id, first_seq: segment.first_seq, created: 0 };
    let seed = Seed::new(lane.id, segment.first_seq);
    let mut walk = Walk::new(file.as_ref(), &header, segment.end, false);
    while let Some(found) = walk.next()? {
        let seq = found.header.seq;
        if seq <= lane.acked_seq || seq > segment.last_seq || lane.row(seq).is_some() {
            continue;
        }
        let frame = Frame::read(file.as_ref(), seed, found.offset, found.header.frame_bytes())?;
        let Some(notes) = frame.ok().and_then(|frame| frame.notes().ok()) else { continue };
        *batches += 1;
        for (address, records) in per_exporter(notes.shares.iter()) {
            *counts.entry(address).or_insert(0) += records;
        }
    }
    Ok(())
}

/// Deletes what was set aside first. False if there is none.
///
/// # Errors
/// Those of the disk; it may be tried again.
pub fn delete_oldest(shared: &Shared) -> io::Result<bool> {
    let Some(AsideView { dir, .. }) = shared.state().aside.front().cloned() else { return Ok(false) };
    let before = held(shared.storage.as_ref(), &dir);
    let deleted = delete_folder(shared, &dir);
    let left = if deleted.is_ok() { Count::default() } else { held(shared.storage.as_ref(), &dir) };
    let Count { batches, records } = Count {
        batches: before.batches.saturating_sub(left.batches),
        records: before.records.saturating_sub(left.records),
    };
    shared.metrics.aside_deleted_batches.inc_by(batches);
    shared.metrics.aside_deleted_records.inc_by(records);
    deleted?;
    shared.state().aside.pop_front();
    tracing::error!(folder = %dir.display(), batches, records, "The spool is full: what was set aside is deleted");
    Ok(true)
}

/// What can be read in a folder, and waits there.
fn held(storage: &dyn Storage, dir: &Path) -> Count {
    let mut sum = Count::default();
    match folder::read(storage, dir, Depth::Headers) {
        Ok(found) => found.lanes.iter().for_each(|lane| {
            sum.add(Count { batches: lane.unacked.batches, records: lane.unacked.records });
        }),
        Err(error) => tracing::warn!(%error, "What was set aside cannot be counted"),
    }
    sum
}

/// Segments first: what counts them stands in the other files.
fn delete_folder(shared: &Shared, dir: &Path) -> io::Result<()> {
    let mut files = match shared.storage.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        files => files?,
    };
    files.sort_by_key(|file| parse_name(&file.name).is_none());
    for file in files {
        remove(shared, &dir.join(file.name))?;
    }
    shared.storage.remove_dir(dir)
}

/// Removes a folder in which there is no segment, as far as it is ours and the disk lets it.
fn clear(storage: &dyn Storage, dir: &Path) {
    for name in [positions::NAME, positions::NEW_NAME, skips::NAME, skips::NEW_NAME] {
        let _ = storage.remove(&dir.join(name));
    }
    let _ = storage.remove_dir(dir);
}

/// A folder as a start finds it.
#[derive(Debug)]
pub struct Found {
    /// Where it stands.
    pub dir: PathBuf,
    /// Segment files in it.
    pub segments: Vec<Entry>,
    /// The lane that was being set aside in it when the process died.
    pub unfinished: Option<LanePosition>,
}

/// All folders among the spool's `entries`, the oldest first. Those that never came to hold anything are removed.
///
/// # Errors
/// Those of the disk.
pub fn find(storage: &dyn Storage, dir: &Path, entries: &[Entry]) -> io::Result<Vec<Found>> {
    let is_aside = |entry: &&Entry| entry.file_bytes.is_none() && entry.name.starts_with(PREFIX);
    let mut found = Vec::new();
    let mut named = None;
    for entry in entries.iter().filter(is_aside) {
        let aside = dir.join(&entry.name);
        let segments = segments(storage.list(&aside)?);
        let own = positions::newest(storage, &aside).ok().flatten();
        if segments.is_empty() && own.is_none() {
            clear(storage, &aside);
            continue;
        }
        let named = match &mut named {
            Some(named) => named,
            None => named.insert(positions::newest(storage, dir)?.unwrap_or_default()),
        };
        let is_named = |lane: LaneId| named.lanes.iter().any(|position| position.lane == lane);
        let is_here = |lane: LaneId| {
            entries.iter().filter_map(|entry| parse_name(&entry.name)).any(|(other, _)| other == lane)
        };
        let own = own.and_then(|own| own.lanes.first().copied());
        let is_unfinished = own.filter(|own| is_named(own.lane) || is_here(own.lane));
        let unfinished = match is_unfinished {
            Some(own) if !collide(storage, dir, &aside, entries, &segments)? => Some(own),
            _ => None,
        };
        found.push(Found { dir: aside, segments, unfinished });
    }
    Ok(found)
}

fn segments(entries: Vec<Entry>) -> Vec<Entry> {
    entries
        .into_iter()
        .filter(|entry| entry.file_bytes.is_some() && parse_name(&entry.name).is_some())
        .collect()
}

/// Whether the spool has other segments of the same names. A file that a power cut has left under both is no other.
fn collide(
    storage: &dyn Storage,
    dir: &Path,
    aside: &Path,
    entries: &[Entry],
    segments: &[Entry],
) -> io::Result<bool> {
    for segment in segments.iter().filter(|segment| entries.iter().any(|entry| entry.name == segment.name)) {
        let (old, new) = (dir.join(&segment.name), aside.join(&segment.name));
        let inode = |path: &Path| Ok::<_, io::Error>(storage.look(path)?.map(|found| found.inode));
        if inode(&old)? != inode(&new)? {
            return Ok(true);
        }
        storage.remove(&old)?;
    }
    Ok(false)
}
