//! What devices told before the last start: one file in `[state] dir`, read before anything is answered, and written anew
//! as a whole as what they tell changes.
//!
//! ```text
//! names.last   0 version = 1   then for each device:   length, crc32c (4 bytes each, big-endian), proto flowproxy.state.v1.Device
//! ```
//!
//! It is no table of the keeper's database: all of it is read once and changes seldom, so that a file replaced whole is
//! atomic with nothing to recover, and a disk that hangs here holds nothing else up. The keeper's lock on the folder holds
//! for it, too. What exporters tell in options data is among the keeper's.
//!
//! | if | then |
//! |---|---|
//! | something has changed | it is durable within some seconds; with much of it, one byte is written for each 1/65,536 of a second that has passed |
//! | nothing has changed | it is written once an hour, for the ages in it |
//! | the process is killed while it is written | the file before is there, whole |
//! | the disk is full, fails or hangs | logged once, counted, tried again; nothing waits for it |
//! | the file is damaged, or of another version | what is whole before the damage is used, and it is set aside as `names.last.aside` |
//! | a device has not told anything for 90 days | it is forgotten |

use super::book::{Book, MOST_BYTES};
use super::metrics::Metrics;
use super::table::{Entry, MOST_INTERFACES, Table};
use crate::batch::SenderText;
use crate::clock;
use crate::proto::state;
use prost::Message;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

const FILE: &str = "names.last";
/// What it is written as before it takes the file's place.
const NEW: &str = "names.last.new";
const ASIDE: &str = "names.last.aside";
const VERSION: u8 = 1;
/// Bytes of one device, at the most.
const MOST_OF_A_DEVICE: usize = 16 << 20;
/// How often it is looked whether something has changed.
const TICK: Duration = Duration::from_secs(2);
/// Bytes that are written a second, over time.
const BYTES_A_SECOND: u64 = 64 << 10;
/// What has failed is tried again after this.
const RETRY: Duration = Duration::from_secs(30);
/// How old the times in it may get.
const MOST_LAG: Duration = Duration::from_secs(3600);
/// How old names may get, in milliseconds.
const MOST_AGE: u64 = 90 * 24 * 3_600_000;

/// See the module.
#[derive(Debug)]
pub struct LastKnown {
    dir: PathBuf,
    book: Book,
    metrics: Metrics,
    /// The book's season that is on disk.
    written: u64,
    is_failing: bool,
}

type Devices = Vec<(IpAddr, Arc<SenderText>, Arc<Table>)>;

impl LastKnown {
    /// Puts what `dir` holds into the book.
    pub fn read(dir: &Path, book: Book) -> LastKnown {
        let metrics = book.metrics.clone();
        let path = dir.join(FILE);
        let oldest = unix_ms().saturating_sub(MOST_AGE);
        let mut devices = 0;
        let result = read(&path, |(device, name, table)| {
            if table.told >= oldest {
                devices += 1;
                book.set_last_known(device, Some(Arc::new(table)));
                let text = SenderText { name, ..SenderText::default() };
                book.set_device_name(device, Some(Arc::new(text)).filter(|text| !text.name.is_empty()));
            }
        });
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                metrics.last_known_set_aside.inc();
                tracing::error!(%error, file = %path.display(), devices, "Names known before cannot all be read: set aside as {ASIDE}");
                if let Err(error) = fs::rename(&path, dir.join(ASIDE)) {
                    tracing::error!(%error, "It could not be set aside");
                }
            }
        }
        if devices > 0 {
            tracing::info!(
                devices,
                "Names that devices told before the start are used until they tell them again"
            );
        }
        let written = book.season();
        LastKnown { dir: dir.to_owned(), book, metrics, written, is_failing: false }
    }

    /// Writes what changes until `stop` is cancelled, and then what is left.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut due = clock::now();
        let mut last = clock::now();
        loop {
            let is_over = tokio::time::timeout(TICK, stop.cancelled()).await.is_ok();
            let now = clock::now();
            let is_changed = self.book.season() != self.written;
            if is_changed && (is_over || now >= due) || now >= last + MOST_LAG {
                due = self.write(now).await;
                last = now;
            }
            if is_over {
                return;
            }
        }
    }

    /// Writes all of it; when it may be done again.
    async fn write(&mut self, now: Instant) -> Instant {
        let season = self.book.season();
        let (dir, devices) = (self.dir.clone(), self.book.devices());
        let writing = tokio::task::spawn_blocking(move || write(&dir, &devices));
        let result = writing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let was_failing = std::mem::replace(&mut self.is_failing, result.is_err());
        match result {
            Ok(bytes) => {
                self.written = season;
                self.metrics.last_known_writes.inc();
                if was_failing {
                    tracing::info!("What devices are called is kept again");
                }
                now + Duration::from_secs(bytes / BYTES_A_SECOND)
            }
            Err(error) => {
                self.metrics.last_known_failures.inc();
                if !was_failing {
                    tracing::error!(%error, "What devices are called cannot be kept for the next start; trying on");
                }
                now + RETRY
            }
        }
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn read(path: &Path, mut take: impl FnMut((IpAddr, String, Table))) -> io::Result<()> {
    let file = File::open(path)?;
    let mut left = file.metadata()?.len();
    if left > 2 * MOST_BYTES as u64 {
        return Err(damaged("it is too long"));
    }
    let mut reader = BufReader::new(file);
    let mut version = [0];
    reader.read_exact(&mut version)?;
    if version != [VERSION] {
        return Err(damaged("it is of another version"));
    }
    left -= 1;
    while left > 0 {
        let (mut length, mut sum) = ([0; 4], [0; 4]);
        reader.read_exact(&mut length)?;
        reader.read_exact(&mut sum)?;
        let length = u32::from_be_bytes(length) as usize;
        left = left
            .checked_sub(8 + length as u64)
            .filter(|_| length <= MOST_OF_A_DEVICE)
            .ok_or_else(|| damaged("it ends too early"))?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if crc32c::crc32c(&body).to_be_bytes() != sum {
            return Err(damaged("a checksum does not fit"));
        }
        take(unpack(&body).ok_or_else(|| damaged("there is no device where one should be"))?);
    }
    Ok(())
}

fn unpack(body: &[u8]) -> Option<(IpAddr, String, Table)> {
    let device = state::Device::decode(body).ok()?;
    let entry = |it: state::Known| {
        let (name, description) = (it.name.into(), it.description.into());
        (it.index, Entry { name, description, speed: it.speed, told: it.told })
    };
    let interfaces = device.interfaces.into_iter().take(MOST_INTERFACES).map(entry).collect();
    let address = device.address.parse().ok()?;
    Some((address, device.name, Table { interfaces, told: device.told }))
}

fn pack((address, text, table): &(IpAddr, Arc<SenderText>, Arc<Table>)) -> Vec<u8> {
    let known = |(index, entry): (&u32, &Entry)| state::Known {
        index: *index,
        name: entry.name.to_string(),
        description: entry.description.to_string(),
        speed: entry.speed,
        told: entry.told,
    };
    let device = state::Device {
        address: address.to_string(),
        name: text.name.clone(),
        told: table.told,
        interfaces: table.interfaces.iter().map(known).collect(),
    };
    device.encode_to_vec()
}

/// Writes the file anew, durably, and tells its size.
fn write(dir: &Path, devices: &Devices) -> io::Result<u64> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let new = dir.join(NEW);
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let mut writer = BufWriter::new(file);
    writer.write_all(&[VERSION])?;
    let mut bytes = 1;
    for device in devices {
        let body = pack(device);
        let Ok(length) = u32::try_from(body.len()) else { continue };
        writer.write_all(&length.to_be_bytes())?;
        writer.write_all(&crc32c::crc32c(&body).to_be_bytes())?;
        writer.write_all(&body)?;
        bytes += 8 + u64::from(length);
    }
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()?;
    fs::rename(&new, dir.join(FILE))?;
    File::open(dir)?.sync_all()?;
    Ok(bytes)
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Names, Sender};
    use crate::flow::Exporter;
    use crate::proto::InterfaceSource;

    const DEVICE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn table(name: &str) -> Arc<Table> {
        let entry = Entry { name: name.into(), description: "uplink".into(), speed: 7, told: 0 };
        Arc::new(Table { interfaces: [(1, entry)].into(), told: unix_ms() - 90_000 })
    }

    /// A book of a device that has told its interface, on disk.
    async fn kept(dir: &Path) {
        let book = Book::new();
        let last_known = LastKnown::read(dir, book.clone());
        book.set_snmp(DEVICE, Some(table("eth1")));
        let text = SenderText { name: "r1".to_owned(), ..SenderText::default() };
        book.set_device_name(DEVICE, Some(Arc::new(text)));
        let stop = CancellationToken::new();
        stop.cancel();
        last_known.run(stop).await;
    }

    #[tokio::test]
    async fn what_a_device_told_is_there_after_a_restart_with_its_age() {
        let dir = tempfile::tempdir().unwrap();
        kept(dir.path()).await;
        let book = Book::new();
        let last_known = LastKnown::read(dir.path(), book.clone());
        let sender = Sender { exporter: Exporter { address: DEVICE, port: 1 }, domain: 0, agent: None };
        let mut view = book.view();
        let text = view.interface_anew(&sender, 1).unwrap();
        assert_eq!((&*text.name, &*text.description, text.speed), ("eth1", "uplink", 7));
        assert_eq!((text.source, text.age >= 90), (InterfaceSource::LastKnown, true));
        assert_eq!(view.sender(&sender).unwrap().name, "r1");
        // What does not hold any more does not come back either.
        view.saw(&sender, true);
        view.hand_over();
        assert_eq!(view.interface_anew(&sender, 1), None);
        let stop = CancellationToken::new();
        stop.cancel();
        last_known.run(stop).await;
        let book = Book::new();
        let _last_known = LastKnown::read(dir.path(), book.clone());
        assert_eq!(book.view().interface_anew(&sender, 1), None);
    }

    #[tokio::test]
    async fn a_damaged_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        kept(dir.path()).await;
        let whole = fs::read(dir.path().join(FILE)).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(dir.path().join(FILE), &bytes).unwrap();
            let book = Book::new();
            LastKnown::read(dir.path(), book.clone());
            assert_eq!((book.metrics.last_known_set_aside.get(), book.devices().len()), (1, 0), "byte {at}");
            assert_eq!(fs::read(dir.path().join(ASIDE)).unwrap(), bytes);
            fs::write(dir.path().join(FILE), &whole[..at]).unwrap();
            let book = Book::new();
            LastKnown::read(dir.path(), book.clone());
            assert_eq!(book.devices().len(), 0, "the first {at} bytes");
        }
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let book = Book::new();
        let last_known = LastKnown::read(&file.join("below"), book.clone());
        book.set_snmp(DEVICE, Some(table("eth1")));
        let stop = CancellationToken::new();
        stop.cancel();
        last_known.run(stop).await;
        assert_eq!(book.metrics.last_known_failures.get(), 1);
    }
}
