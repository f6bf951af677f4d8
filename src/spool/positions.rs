//! The file `positions`: how far each lane is acked, and what else must be known after a crash.
//!
//! ```text
//! two slots of 64 KiB, written in turn; the sound one of the higher generation holds
//! slot: magic "FLOWPOS\0" | version u16 | flags u16 | body bytes u32 | generation u64 | body | CRC32C u32 of all before
//! body: length u8, mark_store_id | rejects in a row u32
//!       | uplinks u8, each: length u8, name
//!       | lanes u32, each: lane_id 16 B, created u64, next_seq u64, acked_seq u64 per uplink
//! ```
//! Flag 1: the writer ended, and what it had last written may be no further than the kernel.
//! There is one uplink, without a name. A write that is not synced goes into the slot that does not hold the
//! last synced generation, again and again, so that a power cut in the middle of it leaves that one whole.

use super::LaneId;
use super::cursor::Cursor;
use super::frame::Fault;
use crate::storage::{Mode, Storage, StorageFile};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file's name.
pub const NAME: &str = "positions";
/// The file is made under this name.
pub const NEW_NAME: &str = "positions.new";
const MAGIC: [u8; 8] = *b"FLOWPOS\0";
const VERSION: u16 = 1;
const UNSYNCED: u16 = 1;
const SLOT_BYTES: usize = 64 << 10;
const SLOTS: usize = 2;
const LANE_BYTES: usize = 40;
/// Lanes that fit a slot beside the rest.
const MAX_LANES: usize = (SLOT_BYTES - 1024) / LANE_BYTES;
/// The longest id of a mark store that is kept.
pub const MAX_MARK_STORE_BYTES: usize = 255;

/// Where one lane stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanePosition {
    /// The lane.
    pub lane: LaneId,
    /// When it began, in milliseconds since 1970.
    pub created: u64,
    /// The number after its last durable batch.
    pub next_seq: u64,
    /// Up to here all is acked.
    pub acked_seq: u64,
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// The mark store that was last delivered to; empty if none.
    pub mark_store_id: Vec<u8>,
    /// Batches that the collector refused since it last committed one.
    pub rejects: u32,
    /// The writer ended on a disk that did not take what it had: of its last frames some may be seen that no sync has
    /// passed.
    pub unsynced: bool,
    /// All lanes, in no order.
    pub lanes: Vec<LanePosition>,
}

impl Positions {
    fn encode(&self, generation: u64) -> Vec<u8> {
        let id = self.mark_store_id.get(..MAX_MARK_STORE_BYTES).unwrap_or(&self.mark_store_id);
        let mut lanes = self.lanes.clone();
        // Should there be too many, those go without of which the loss says nothing: nothing acked.
        lanes.sort_by_key(|lane| std::cmp::Reverse(lane.acked_seq));
        lanes.truncate(MAX_LANES);
        let mut body = vec![id.len() as u8];
        body.extend_from_slice(id);
        body.extend_from_slice(&self.rejects.to_le_bytes());
        body.extend_from_slice(&[1, 0]);
        body.extend_from_slice(&(lanes.len() as u32).to_le_bytes());
        for lane in lanes {
            body.extend_from_slice(&lane.lane.0);
            for value in [lane.created, lane.next_seq, lane.acked_seq] {
                body.extend_from_slice(&value.to_le_bytes());
            }
        }
        let mut out = Vec::with_capacity(body.len() + 28);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        let flags = if self.unsynced { UNSYNCED } else { 0 };
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&generation.to_le_bytes());
        out.extend_from_slice(&body);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    fn decode(slot: &[u8]) -> Result<(u64, Self), Fault> {
        let mut cursor = Cursor::new(slot);
        if cursor.array()? != MAGIC {
            return Err(Fault::Magic);
        }
        let version = cursor.u16()?;
        let flags = cursor.u16()?;
        let body_bytes = cursor.u32()? as usize;
        let generation = cursor.u64()?;
        let mut body = Cursor::new(cursor.slice(body_bytes)?);
        let covered = slot.get(..slot.len() - cursor.left()).ok_or(Fault::Short)?;
        if cursor.u32()? != crc32c::crc32c(covered) {
            return Err(Fault::Checksum);
        }
        if version > VERSION {
            return Err(Fault::Newer(version));
        }
        let id_bytes = usize::from(body.u8()?);
        let mark_store_id = body.slice(id_bytes)?.to_vec();
        let rejects = body.u32()?;
        let uplinks = usize::from(body.u8()?);
        for _ in 0..uplinks {
            let name_bytes = usize::from(body.u8()?);
            body.slice(name_bytes)?;
        }
        let count = body.u32()?;
        let mut lanes = Vec::new();
        for _ in 0..count {
            let lane = LaneId(body.array()?);
            let (created, next_seq) = (body.u64()?, body.u64()?);
            // What not all uplinks have passed is not passed.
            let mut acked_seq = u64::MAX;
            for _ in 0..uplinks {
                acked_seq = acked_seq.min(body.u64()?);
            }
            if acked_seq == u64::MAX || next_seq == 0 {
                return Err(Fault::Field);
            }
            lanes.push(LanePosition { lane, created, next_seq, acked_seq });
        }
        Ok((generation, Self { mark_store_id, rejects, unsynced: flags & UNSYNCED != 0, lanes }))
    }
}

/// What one slot of the file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Nothing yet.
    Unused,
    /// These positions, of this generation.
    Good(u64, Positions),
    /// Nothing that can be read.
    Bad(Fault),
}

fn read_slots(file: &dyn StorageFile) -> io::Result<Vec<Slot>> {
    let read = |slot: usize| {
        let mut bytes = vec![0; SLOT_BYTES];
        let read = file.read_at(&mut bytes, (slot * SLOT_BYTES) as u64)?;
        bytes.truncate(read);
        Ok(match Positions::decode(&bytes) {
            Ok((generation, positions)) => Slot::Good(generation, positions),
            Err(_) if !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0) => Slot::Unused,
            Err(fault) => Slot::Bad(fault),
        })
    };
    (0..SLOTS).map(read).collect()
}

/// Where the slots of the file begin, and what is in them. Nothing is changed; `None` if there is no file.
///
/// # Errors
/// Those of the disk.
pub fn read(storage: &dyn Storage, dir: &Path) -> io::Result<Option<Vec<(u64, Slot)>>> {
    let file = match storage.open(&dir.join(NAME), Mode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let offsets = (0..SLOTS).map(|slot| (slot * SLOT_BYTES) as u64);
    Ok(Some(offsets.zip(read_slots(file.as_ref())?).collect()))
}

/// What holds of the file in `dir`: `None` if there is none, or no slot of it can be read.
///
/// # Errors
/// Those of the disk.
pub fn newest(storage: &dyn Storage, dir: &Path) -> io::Result<Option<Positions>> {
    let slots = read(storage, dir)?.unwrap_or_default().into_iter();
    let good = slots.filter_map(|(_, slot)| match slot {
        Slot::Good(generation, positions) => Some((generation, positions)),
        Slot::Unused | Slot::Bad(_) => None,
    });
    Ok(good.max_by_key(|(generation, _)| *generation).map(|(_, positions)| positions))
}

/// The open file.
#[derive(Debug)]
pub struct PositionsFile {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    /// `None` after a failure: the file is made anew at the next write.
    file: Option<Arc<dyn StorageFile>>,
    generation: u64,
    synced_slot: usize,
}

/// What was found at the start.
#[derive(Debug)]
pub struct Opened {
    /// The file, to write to.
    pub file: PositionsFile,
    /// What it said; as new if there was none.
    pub positions: Positions,
    /// There was a file, and no slot of it could be read.
    pub damaged: bool,
}

impl PositionsFile {
    /// Reads the file in `dir`, or prepares to make one.
    ///
    /// # Errors
    /// Those of the disk, other than that there is none.
    pub fn open(storage: &Arc<dyn Storage>, dir: &Path) -> io::Result<Opened> {
        let mut this =
            Self { storage: storage.clone(), dir: dir.to_owned(), file: None, generation: 0, synced_slot: 0 };
        let file = match storage.open(&dir.join(NAME), Mode::Write) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Opened { file: this, positions: Positions::default(), damaged: false });
            }
            Err(error) => return Err(error),
        };
        let mut best: Option<(u64, Positions)> = None;
        for (slot, found) in read_slots(file.as_ref())?.into_iter().enumerate() {
            let Slot::Good(generation, found) = found else { continue };
            if best.as_ref().is_none_or(|(best, _)| generation > *best) {
                this.synced_slot = slot;
                best = Some((generation, found));
            }
        }
        let Some((generation, positions)) = best else {
            return Ok(Opened { file: this, positions: Positions::default(), damaged: true });
        };
        this.generation = generation;
        // What was read may be no further than the kernel, and the other slot is the next to be written over. If
        // it cannot be made durable, a new file is made.
        this.file = file.sync().is_ok().then_some(file);
        Ok(Opened { file: this, positions, damaged: false })
    }

    /// Writes all positions; with `durable` they are on disk when it returns.
    ///
    /// # Errors
    /// Those of the disk. The next write makes a new file then.
    pub fn write(&mut self, positions: &Positions, durable: bool) -> io::Result<()> {
        let bytes = positions.encode(self.generation + 1);
        let result = match self.file.clone() {
            Some(file) => self.write_slot(file.as_ref(), &bytes, durable),
            None => self.make(&bytes),
        };
        match result {
            Ok(()) => self.generation += 1,
            Err(_) => self.file = None,
        }
        result
    }

    fn write_slot(&mut self, file: &dyn StorageFile, bytes: &[u8], durable: bool) -> io::Result<()> {
        let slot = SLOTS - 1 - self.synced_slot;
        file.write_at(&mut [IoSlice::new(bytes)], (slot * SLOT_BYTES) as u64)?;
        crash_point!("spool.position.write");
        if durable {
            file.sync()?;
            crash_point!("spool.position.sync");
            self.synced_slot = slot;
        }
        Ok(())
    }

    /// Both slots are written out, so that later writes need no room.
    fn make(&mut self, bytes: &[u8]) -> io::Result<()> {
        let new = self.dir.join(NEW_NAME);
        let file = self.storage.open(&new, Mode::Create)?;
        let mut whole = bytes.to_vec();
        whole.resize(SLOTS * SLOT_BYTES, 0);
        file.write_at(&mut [IoSlice::new(&whole)], 0)?;
        crash_point!("spool.positions.write");
        file.sync()?;
        crash_point!("spool.positions.sync");
        self.storage.rename(&new, &self.dir.join(NAME))?;
        crash_point!("spool.positions.rename");
        self.storage.sync_dir(&self.dir)?;
        crash_point!("spool.positions.folder");
        self.synced_slot = 0;
        self.file = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Disk;

    fn positions(acked_seq: u64) -> Positions {
        let lane = LanePosition { lane: LaneId([7; 16]), created: 1, next_seq: acked_seq + 3, acked_seq };
        Positions {
            mark_store_id: vec![1, 2, 3],
            rejects: 2,
            unsynced: acked_seq % 2 == 1,
            lanes: vec![lane],
        }
    }

    fn storage() -> Arc<dyn Storage> {
        Arc::new(Disk)
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = PositionsFile::open(&storage(), dir.path()).unwrap();
        assert!(!opened.damaged);
        for acked_seq in 1..6 {
            opened.file.write(&positions(acked_seq), acked_seq % 2 == 0).unwrap();
            let again = PositionsFile::open(&storage(), dir.path()).unwrap();
            assert_eq!(again.positions, positions(acked_seq));
        }
    }

    #[test]
    fn unsynced_writes_leave_the_synced_slot_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = PositionsFile::open(&storage(), dir.path()).unwrap().file;
        file.write(&positions(1), true).unwrap();
        file.write(&positions(2), true).unwrap();
        file.write(&positions(3), false).unwrap();
        file.write(&positions(4), false).unwrap();
        let path = dir.path().join(NAME);
        let mut bytes = std::fs::read(&path).unwrap();
        // The second durable write went to slot 1; the others must be in slot 0.
        bytes[..SLOT_BYTES].fill(0xAA);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(PositionsFile::open(&storage(), dir.path()).unwrap().positions, positions(2));
    }

    #[test]
    fn row_10_either_slot_may_be_damaged_and_both() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = PositionsFile::open(&storage(), dir.path()).unwrap().file;
        file.write(&positions(1), true).unwrap();
        file.write(&positions(2), true).unwrap();
        let path = dir.path().join(NAME);
        let good = std::fs::read(&path).unwrap();
        for (slots, expected) in
            [(vec![0], positions(2)), (vec![1], positions(1)), (vec![0, 1], Positions::default())]
        {
            let mut bytes = good.clone();
            for slot in &slots {
                bytes[slot * SLOT_BYTES + 30] ^= 1;
            }
            std::fs::write(&path, &bytes).unwrap();
            let opened = PositionsFile::open(&storage(), dir.path()).unwrap();
            assert_eq!(opened.positions, expected);
            assert_eq!(opened.damaged, slots.len() == 2);
        }
    }

    #[test]
    fn more_lanes_than_fit_keep_the_acked_ones() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = PositionsFile::open(&storage(), dir.path()).unwrap().file;
        let lanes = (0..2 * MAX_LANES as u64)
            .map(|n| LanePosition {
                lane: LaneId(u128::from(n).to_be_bytes()),
                created: n,
                next_seq: n + 1,
                acked_seq: if n % 2 == 0 { 0 } else { n },
            })
            .collect();
        file.write(&Positions { lanes, ..Positions::default() }, true).unwrap();
        let read = PositionsFile::open(&storage(), dir.path()).unwrap().positions;
        assert_eq!(read.lanes.len(), MAX_LANES);
        assert!(read.lanes.iter().all(|lane| lane.acked_seq > 0));
    }
}
