//! The file `skips`: the numbers that will never be sent, each row durable before what it stands for goes.
//!
//! ```text
//! row:  magic F5 5C | version u8 | 0 u8 | body bytes u32 | body | CRC32C u32 of all before
//! body: lane_id 16 B | from u64 | to u64 | reason u8 | digest known u8 | digest 16 B
//!       | count u32, records per number u32 each
//!       | count u32, each: family u8 (4 or 6), address 4 or 16 B, records u64
//! ```
//! Rows are appended, over zeros that keep room for some more: on a full disk the oldest batches can go only
//! when their row is written. Those that the position has passed stay in the file until it is written anew
//! without them; whoever reads it leaves them out. A row that cannot be read is passed over.

use super::cursor::Cursor;
use super::frame::Fault;
use super::{LaneId, SkipRow, is_full};
use crate::proto::skip::Reason;
use crate::storage::{Mode, Storage, StorageFile};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file's name.
pub const NAME: &str = "skips";
/// The file is made under this name.
pub const NEW_NAME: &str = "skips.new";
const MAGIC: [u8; 2] = [0xF5, 0x5C];
const VERSION: u8 = 1;
/// The file is written anew when this much of it is rows that nobody needs, and more than half.
const SPARE_BYTES: u64 = 256 << 10;
/// Zeros that are kept behind the rows.
const RESERVE_BYTES: u64 = 64 << 10;

fn encode(out: &mut Vec<u8>, row: &SkipRow) {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, 0]);
    let body_bytes = 16
        + 8
        + 8
        + 2
        + 16
        + 4
        + 4 * row.records_per_seq.len()
        + 4
        + row
            .counts_per_exporter
            .iter()
            .map(|(address, _)| if address.is_ipv4() { 13 } else { 25 })
            .sum::<usize>();
    out.extend_from_slice(&(body_bytes as u32).to_le_bytes());
    out.extend_from_slice(&row.lane.0);
    out.extend_from_slice(&row.from.to_le_bytes());
    out.extend_from_slice(&row.to.to_le_bytes());
    out.push(row.reason as i32 as u8);
    out.push(u8::from(row.digest.is_some()));
    out.extend_from_slice(&row.digest.unwrap_or_default());
    out.extend_from_slice(&(row.records_per_seq.len() as u32).to_le_bytes());
    for records in &row.records_per_seq {
        out.extend_from_slice(&records.to_le_bytes());
    }
    out.extend_from_slice(&(row.counts_per_exporter.len() as u32).to_le_bytes());
    for (address, records) in &row.counts_per_exporter {
        match address {
            IpAddr::V4(address) => {
                out.push(4);
                out.extend_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                out.push(6);
                out.extend_from_slice(&address.octets());
            }
        }
        out.extend_from_slice(&records.to_le_bytes());
    }
    let crc = crc32c::crc32c(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Reads the row at the front of `bytes`; says also how many bytes it takes.
fn decode(bytes: &[u8]) -> Result<(SkipRow, usize), Fault> {
    let mut cursor = Cursor::new(bytes);
    if cursor.array()? != MAGIC {
        return Err(Fault::Magic);
    }
    let version = cursor.u8()?;
    cursor.u8()?;
    let body_bytes = cursor.u32()? as usize;
    let mut body = Cursor::new(cursor.slice(body_bytes)?);
    let covered = bytes.get(..bytes.len() - cursor.left()).ok_or(Fault::Short)?;
    if cursor.u32()? != crc32c::crc32c(covered) {
        return Err(Fault::Checksum);
    }
    if version > VERSION {
        return Err(Fault::Newer(u16::from(version)));
    }
    let lane = LaneId(body.array()?);
    let (from, to) = (body.u64()?, body.u64()?);
    let reason = Reason::try_from(i32::from(body.u8()?)).map_err(|_| Fault::Field)?;
    let digest_known = body.u8()? != 0;
    let digest = body.array()?;
    let records = body.u32()?;
    let records_per_seq = (0..records).map(|_| body.u32()).collect::<Result<Vec<_>, _>>()?;
    let exporters = body.u32()?;
    let counts_per_exporter = (0..exporters).map(|_| count(&mut body)).collect::<Result<Vec<_>, _>>()?;
    if from == 0 || to < from {
        return Err(Fault::Field);
    }
    let digest = digest_known.then_some(digest);
    let row = SkipRow { lane, from, to, reason, records_per_seq, counts_per_exporter, digest };
    Ok((row, bytes.len() - cursor.left()))
}

fn count(body: &mut Cursor<'_>) -> Result<(IpAddr, u64), Fault> {
    let address = match body.u8()? {
        4 => IpAddr::from(body.array::<4>()?),
        6 => IpAddr::from(body.array::<16>()?),
        _ => return Err(Fault::Field),
    };
    Ok((address, body.u64()?))
}

/// What is in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// All rows, in the order they were written.
    pub rows: Vec<SkipRow>,
    /// Bytes that are no rows.
    pub damaged: Vec<Range<u64>>,
    /// Where the zeros begin that keep room for more.
    pub bytes: u64,
}

/// Reads the file; one that is not there is empty.
///
/// # Errors
/// Those of the disk, other than that there is no file.
pub fn read(storage: &dyn Storage, dir: &Path) -> io::Result<Read> {
    let file = match storage.open(&dir.join(NAME), Mode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::default()),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut found = Read { bytes: used as u64, ..Read::default() };
    let mut at = 0;
    // The last bytes of a row may be zeros too, and so the rest is not cut there.
    while let Some(rest) = bytes.get(at..).filter(|_| at < used) {
        match decode(rest) {
            Ok((row, used)) => {
                found.rows.push(row);
                at += used;
            }
            Err(_) => {
                let place = at as u64;
                match found.damaged.last_mut().filter(|range| range.end == place) {
                    Some(range) => range.end += 1,
                    None => found.damaged.push(place..place + 1),
                }
                at += 1;
            }
        }
    }
    Ok(found)
}

/// The open file.
#[derive(Debug)]
pub struct SkipsFile {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    /// `None` until it is made, and after a failure: then it is written anew.
    file: Option<Arc<dyn StorageFile>>,
    /// Of rows.
    bytes: u64,
    /// Of rows and the zeros behind them.
    reserved: u64,
}

impl SkipsFile {
    /// Reads all rows, in the order they were written. The file is made at the first write.
    ///
    /// # Errors
    /// Those of the disk, other than that there is no file.
    pub fn open(storage: &Arc<dyn Storage>, dir: &Path) -> io::Result<(Self, Vec<SkipRow>)> {
        let this = Self { storage: storage.clone(), dir: dir.to_owned(), file: None, bytes: 0, reserved: 0 };
        let rows = read(storage.as_ref(), dir)?.rows;
        Ok((this, rows))
    }

    /// Adds rows; they are on disk when it returns. `all` gives every row that is still needed, with the new
    /// ones among them, for when the file is written anew.
    ///
    /// # Errors
    /// Those of the disk. The next call writes a new file then.
    pub fn add(&mut self, new: &[SkipRow], all: impl Fn() -> Vec<SkipRow>) -> io::Result<()> {
        let Some(file) = self.file.clone() else { return self.rewrite(&all()) };
        let mut bytes = Vec::new();
        for row in new {
            encode(&mut bytes, row);
        }
        let written = file.write_at(&mut [IoSlice::new(&bytes)], self.bytes);
        if written.as_ref().is_err_and(is_full) {
            // The file is as good as before: the next row is written over what there is of this one.
            return written;
        }
        crash_point!("spool.skip.write");
        let result = written.and_then(|()| file.sync());
        crash_point!("spool.skip.sync");
        match result {
            Ok(()) => self.bytes += bytes.len() as u64,
            Err(_) => self.file = None,
        }
        result
    }

    /// Makes the room behind the rows whole again, if there is any on the disk.
    pub fn reserve(&mut self) {
        let (from, to) = (self.reserved.max(self.bytes), self.bytes + RESERVE_BYTES);
        let Some(file) = self.file.as_ref().filter(|_| from + RESERVE_BYTES / 2 < to) else { return };
        let zeros = vec![0; usize::try_from(to - from).unwrap_or(0)];
        if file.write_at(&mut [IoSlice::new(&zeros)], from).is_ok() {
            self.reserved = to;
        }
    }

    /// Whether all rows are in it: none was left out by a write that failed.
    pub fn is_whole(&self) -> bool {
        self.file.is_some()
    }

    /// Writes the file anew if a write to it failed.
    ///
    /// # Errors
    /// Those of the disk; the old file holds then.
    pub fn mend(&mut self, all: impl Fn() -> Vec<SkipRow>) -> io::Result<()> {
        if self.is_whole() { Ok(()) } else { self.rewrite(&all()) }
    }

    /// Writes the file anew if rows that are not needed any more take too much of it.
    ///
    /// # Errors
    /// Those of the disk; the old file holds then.
    pub fn shrink(&mut self, all: impl Fn() -> Vec<SkipRow>) -> io::Result<()> {
        if self.file.is_none() || self.bytes <= SPARE_BYTES {
            return Ok(());
        }
        let rows = all();
        let mut bytes = Vec::new();
        for row in &rows {
            encode(&mut bytes, row);
        }
        if self.bytes.saturating_sub(bytes.len() as u64) <= SPARE_BYTES.max(self.bytes / 2) {
            return Ok(());
        }
        self.rewrite(&rows)
    }

    /// Writes the file anew with these rows, durable before it takes the old one's place.
    ///
    /// # Errors
    /// Those of the disk; the old file holds then.
    pub fn rewrite(&mut self, rows: &[SkipRow]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for row in rows {
            encode(&mut bytes, row);
        }
        let used = bytes.len();
        bytes.resize(used + RESERVE_BYTES as usize, 0);
        let new = self.dir.join(NEW_NAME);
        let file = self.storage.open(&new, Mode::Create)?;
        if let Err(error) = file.write_at(&mut [IoSlice::new(&bytes)], 0) {
            // On a full disk it must not take the room that is missing.
            let _ = self.storage.remove(&new);
            return Err(error);
        }
        crash_point!("spool.skips.write");
        file.sync()?;
        crash_point!("spool.skips.sync");
        self.file = None;
        self.storage.rename(&new, &self.dir.join(NAME))?;
        crash_point!("spool.skips.rename");
        self.storage.sync_dir(&self.dir)?;
        crash_point!("spool.skips.folder");
        (self.bytes, self.reserved) = (used as u64, bytes.len() as u64);
        self.file = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Disk;

    fn row(from: u64, to: u64) -> SkipRow {
        SkipRow {
            lane: LaneId([from as u8; 16]),
            from,
            to,
            reason: Reason::Dropped,
            records_per_seq: (from..=to).map(|seq| seq as u32 * 10).collect(),
            counts_per_exporter: vec![
                ("192.0.2.1".parse().unwrap(), 5),
                ("2001:db8::1".parse().unwrap(), u64::MAX),
            ],
            digest: from.is_multiple_of(2).then_some([9; 16]),
        }
    }

    fn read(dir: &Path) -> Vec<SkipRow> {
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        SkipsFile::open(&storage, dir).unwrap().1
    }

    #[test]
    fn rows_come_back_and_damage_costs_one_row() {
        let dir = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        let mut file = SkipsFile::open(&storage, dir.path()).unwrap().0;
        let rows = [row(1, 3), row(4, 4), row(6, 9)];
        for (count, one) in rows.iter().enumerate() {
            file.add(std::slice::from_ref(one), || rows[..=count].to_vec()).unwrap();
        }
        assert_eq!(read(dir.path()), rows);
        let path = dir.path().join(NAME);
        let mut good = std::fs::read(&path).unwrap();
        let mut lens = Vec::new();
        for one in &rows {
            let mut bytes = Vec::new();
            encode(&mut bytes, one);
            lens.push(bytes.len());
        }
        let zeros = good.split_off(lens.iter().sum());
        assert!(zeros.len() as u64 > RESERVE_BYTES / 2 && zeros.iter().all(|byte| *byte == 0));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            std::fs::write(&path, &bad).unwrap();
            let hit = if at < lens[0] {
                0
            } else if at < lens[0] + lens[1] {
                1
            } else {
                2
            };
            let expected: Vec<_> =
                rows.iter().enumerate().filter(|(n, _)| *n != hit).map(|(_, row)| row.clone()).collect();
            assert_eq!(read(dir.path()), expected, "byte {at}");
            std::fs::write(&path, &good[..at]).unwrap();
            assert_eq!(read(dir.path()), rows[..hit], "cut at {at}");
        }
    }

    #[test]
    fn passed_rows_go_when_they_are_many() {
        let dir = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        let mut file = SkipsFile::open(&storage, dir.path()).unwrap().0;
        for _ in 0..60 {
            file.add(&[row(1, 3000)], || vec![row(1, 3000)]).unwrap();
        }
        let before = file.bytes;
        file.shrink(|| vec![row(1, 1)]).unwrap();
        assert!(file.bytes < before / 100);
        file.reserve();
        assert_eq!(file.reserved, file.bytes + RESERVE_BYTES);
        // What is added later has its room made whole again.
        file.add(&[row(2, 12_000)], || unreachable!()).unwrap();
        file.reserve();
        assert_eq!(file.reserved, file.bytes + RESERVE_BYTES);
        assert_eq!(std::fs::metadata(dir.path().join(NAME)).unwrap().len(), file.reserved);
        assert_eq!(read(dir.path()), [row(1, 1), row(2, 12_000)]);
    }
}
