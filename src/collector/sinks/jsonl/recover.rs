//! What the JSONL sink does at start: brings files and store together again. The table at the head of
//! [`super`] is its plan.

use super::names::Names;
use super::{File, FileError, FileRow, Full, Settings};
use crate::collector::marks::{Change, MarkStore, Redo};
use crate::storage::{Found, Mode, Storage, StorageFile};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// What is copied at once, in bytes.
const COPY_BYTES: usize = 1 << 20;

/// Opens the sink and brings the file to what the store says.
///
/// # Errors
/// When the store or the files do not work, or another collector writes them.
pub(crate) fn recover(
    storage: Arc<dyn Storage>,
    settings: Settings,
    store: &mut dyn MarkStore,
    now_ms: u64,
) -> Result<File, FileError> {
    let names = Names::of(storage.clone(), &settings.path)?;
    make_folder(&names)?;
    let row = match store.file()? {
        Some((row, redo)) if row.path == settings.path => {
            Recovery::new(&names, store, now_ms).run(row, &redo)?
        }
        Some((row, redo)) => {
            let row = finish_elsewhere(storage, row, &redo, store, now_ms)?;
            begin(&settings, &names, store, row.number, now_ms)?
        }
        None => begin(&settings, &names, store, 0, now_ms)?,
    };
    let mut file = File::new(settings, names, row);
    file.prepare()?;
    Ok(file)
}

/// Finishes what a JSONL sink has left that is no longer configured.
///
/// # Errors
/// When the store or the files do not work.
pub(crate) fn retire(
    storage: Arc<dyn Storage>,
    store: &mut dyn MarkStore,
    now_ms: u64,
) -> Result<(), FileError> {
    let Some((row, redo)) = store.file()? else { return Ok(()) };
    if row.end() == 0 && row.previous.is_none() {
        return Ok(());
    }
    let row = finish_elsewhere(storage, row, &redo, store, now_ms)?;
    keep(store, row.next(&row.path, row.number.saturating_add(1)))?;
    Ok(())
}

fn make_folder(names: &Names) -> Result<(), FileError> {
    let fault = |source| FileError::Io { path: names.folder().to_owned(), source };
    names.storage().create_dir(names.folder(), 0o750).map_err(fault)
}

/// Makes the row durable; it has no group under way.
fn keep(store: &mut dyn MarkStore, row: FileRow) -> Result<FileRow, FileError> {
    store.commit(&Change { file: Some((row.clone(), Vec::new())), ..Change::default() })?;
    Ok(row)
}

/// Brings the file of `row` to its end and gives it its last name.
fn finish_elsewhere(
    storage: Arc<dyn Storage>,
    row: FileRow,
    redo: &[Redo],
    store: &mut dyn MarkStore,
    now_ms: u64,
) -> Result<FileRow, FileError> {
    let names = Names::of(storage, &row.path)?;
    make_folder(&names)?;
    let row = Recovery::new(&names, store, now_ms).run(row, redo)?;
    if row.end() > 0 {
        names.finish(row.number, row.started_ms)?;
    }
    Ok(row)
}

/// A first file at this path, numbered above all that are there and above `above`.
fn begin(
    settings: &Settings,
    names: &Names,
    store: &mut dyn MarkStore,
    above: u64,
    now_ms: u64,
) -> Result<FileRow, FileError> {
    let live = names.look(names.live())?;
    if live.is_some_and(|live| live.bytes > 0) {
        drop(names.open_live()?);
        let orphan = names.orphan(names.live(), now_ms)?;
        names.rename(names.live(), &orphan)?;
        let (file, orphan) = (names.live().display(), orphan.display());
        tracing::warn!(%file, %orphan, "This mark store knows nothing of the file that is there; it is set aside");
    }
    let highest = highest(names)?.max(above);
    let row =
        FileRow { path: settings.path.clone(), number: highest.saturating_add(1), ..FileRow::default() };
    keep(store, row)
}

fn highest(names: &Names) -> Result<u64, FileError> {
    Ok(names.list(true)?.last().map_or(0, |(number, _)| *number))
}

struct Recovery<'a> {
    names: &'a Names,
    store: &'a mut dyn MarkStore,
    now_ms: u64,
}

impl<'a> Recovery<'a> {
    fn new(names: &'a Names, store: &'a mut dyn MarkStore, now_ms: u64) -> Self {
        Self { names, store, now_ms }
    }

    /// Gives the row that holds from now on: the live file's bytes are those up to its end.
    fn run(&mut self, mut row: FileRow, redo: &[Redo]) -> Result<FileRow, FileError> {
        if let Some(full) = row.previous.take() {
            self.finish_rotation(&full)?;
            // Who takes the full file away frees its inode, and a file to come may get the same: the next start must
            // not take that one for it.
            let file = Some((row.clone(), redo.to_vec()));
            self.store.commit(&Change { file, ..Change::default() })?;
        }
        let live = self.names.look(self.names.live())?;
        if live.is_some() {
            drop(self.names.open_live()?);
        }
        let younger = self.names.list(false)?.iter().any(|(number, _)| *number >= row.number);
        let ours = live.is_none_or(|live| self.is_ours(live, &row));
        if younger || !ours {
            return self.set_aside(&row, redo, live);
        }
        match live {
            Some(live) if live.bytes == row.end() && row.is_done() => Ok(row),
            Some(live) if live.bytes >= row.offset && !row.is_done() => self.redo(&row, redo),
            None if row.offset == 0 && !row.is_done() => self.redo(&row, redo),
            None if row.end() == 0 => Ok(row),
            None if row.is_done() => keep(self.store, row.next(&row.path, row.number.saturating_add(1))),
            found => self.give_up(&row, redo, found),
        }
    }

    /// If the crash came between the transaction and the rename, the live file is still the full one.
    fn finish_rotation(&self, full: &Full) -> Result<(), FileError> {
        let live = self.names.look(self.names.live())?;
        let done = self.names.is_taken(&self.names.finished(full.number, full.started_ms))?;
        if !done && live.is_some_and(|live| live.inode == full.inode) {
            self.names.finish(full.number, full.started_ms)?;
        }
        // The rename may be no further than the kernel.
        self.names.sync()
    }

    /// Whether the file at the live path is the one that the row means, and holds nothing younger.
    fn is_ours(&self, live: Found, row: &FileRow) -> bool {
        let known = row.inode == 0 || row.inode == live.inode || self.holds_group(row);
        known && live.bytes <= row.end()
    }

    /// The last group stands in the live file, whole. There must be one for this to mean anything.
    fn holds_group(&self, row: &FileRow) -> bool {
        if row.group_bytes == 0 {
            return false;
        }
        let text = read(self.names, self.names.live(), row.offset, row.group_bytes);
        text.is_ok_and(|text| text.len() as u64 == row.group_bytes && crc32c::crc32c(&text) == row.group_crc)
    }

    fn redo(&mut self, row: &FileRow, redo: &[Redo]) -> Result<FileRow, FileError> {
        let fault = |source| FileError::Io { path: self.names.live().to_owned(), source };
        let text = render(redo);
        let same = crc32c::crc32c(&text) == row.group_crc && text.len() as u64 == row.group_bytes;
        let there = self.holds_group(row);
        if !same && !there {
            return self.give_up(row, redo, self.names.look(self.names.live())?);
        }
        let file = self.names.open_live()?;
        if same {
            // Also when it is there: an earlier sync may have failed, and only what is written anew is synced.
            file.write_at(&mut [IoSlice::new(&text)], row.offset).map_err(fault)?;
        }
        crash_point!("sink.redo.write");
        file.sync().map_err(fault)?;
        crash_point!("sink.redo.sync");
        if !there {
            let (path, bytes) = (self.names.live().display(), text.len());
            tracing::info!(file = %path, bytes, "The last group of before the stop is written again");
        }
        Ok(row.clone())
    }

    /// The file can not be continued: what is there of it is finished, and the last group begins a new one.
    fn give_up(&mut self, row: &FileRow, redo: &[Redo], live: Option<Found>) -> Result<FileRow, FileError> {
        let file = self.names.live().display();
        let (found, expected) = (live.map_or(0, |live| live.bytes), row.offset);
        tracing::error!(%file, found, expected, "The file does not end where it did; a new one begins");
        if let Some(live) = live {
            let fault = |source| FileError::Io { path: self.names.live().to_owned(), source };
            let good = if row.is_done() { live.bytes } else { live.bytes.min(row.offset) };
            let open = self.names.open_live()?;
            open.set_len(good).map_err(fault)?;
            open.sync().map_err(fault)?;
            drop(open);
            if good > 0 {
                self.names.finish(row.number, row.started_ms)?;
            }
        }
        self.begin_with_group(row, redo, row.number.saturating_add(1))
    }

    fn begin_with_group(&mut self, row: &FileRow, redo: &[Redo], number: u64) -> Result<FileRow, FileError> {
        let next = FileRow { path: row.path.clone(), number, ..FileRow::default() };
        if row.is_done() {
            return keep(self.store, next);
        }
        let text = render(redo);
        let next = next.with_group(&text, self.now_ms);
        let file = Some((next.clone(), redo.to_vec()));
        self.store.commit(&Change { file, ..Change::default() })?;
        self.redo(&next, redo)
    }

    /// The store was set back, or somebody put another file there. Whatever is younger than the store is set
    /// aside whole; what the store knows stays, or is copied back, under its name; a new file begins.
    fn set_aside(&mut self, row: &FileRow, redo: &[Redo], live: Option<Found>) -> Result<FileRow, FileError> {
        let finished = self.names.list(false)?;
        // One more than is known is left out: the file at the live path may have had that number.
        let next = highest(self.names)?.max(row.number).saturating_add(2);
        let kept = self.names.finished(row.number, row.started_ms);
        let younger = finished.iter().any(|(number, _)| *number > row.number);
        let live_is_row =
            live.is_some_and(|live| !younger && row.inode == live.inode) || self.holds_group(row);
        let source = if self.names.is_taken(&kept)? {
            Some(kept.clone())
        } else {
            live_is_row.then(|| row.path.clone())
        };
        if let Some(source) = source.as_deref().filter(|_| row.end() > 0) {
            self.cut_back(source, &kept, row, redo)?;
        }
        let young = finished.into_iter().filter(|(number, path)| *number >= row.number && *path != kept);
        let live = live.filter(|live| live.bytes > 0).map(|_| row.path.clone());
        for path in young.map(|(_, path)| path).chain(live) {
            let orphan = self.names.orphan(&path, self.now_ms)?;
            self.names.rename(&path, &orphan)?;
            let (file, orphan) = (path.display(), orphan.display());
            tracing::error!(%file, %orphan, "The file is younger than the mark store, which was set back; it is set aside");
        }
        self.names.sync()?;
        if source.is_none() && !younger {
            return self.begin_with_group(row, redo, next);
        }
        keep(self.store, FileRow { path: row.path.clone(), number: next, ..FileRow::default() })
    }

    /// Makes `kept` the bytes of `source` up to the last group's end. A full file that is longer stays beside
    /// it as an orphan.
    fn cut_back(&self, source: &Path, kept: &Path, row: &FileRow, redo: &[Redo]) -> Result<(), FileError> {
        let fault = |source| FileError::Io { path: kept.to_owned(), source };
        let bytes = self.names.look(source)?.map_or(0, |found| found.bytes);
        if source == kept && bytes == row.end() {
            return Ok(());
        }
        let part = self.names.folder().join("orphan-part");
        let committed = self.committed(source, row, redo);
        committed.and_then(|text| copy(self.names, source, row.offset, &text, &part)).map_err(fault)?;
        if source == kept {
            let orphan = self.names.orphan(kept, self.now_ms)?;
            self.names.storage().link(kept, &orphan).map_err(fault)?;
        }
        self.names.rename(&part, kept)?;
        self.names.sync()
    }

    /// The last group's text: as it stands in `source` if it is whole there, else rendered.
    fn committed(&self, source: &Path, row: &FileRow, redo: &[Redo]) -> io::Result<Vec<u8>> {
        let there = read(self.names, source, row.offset, row.group_bytes)?;
        let whole = there.len() as u64 == row.group_bytes && crc32c::crc32c(&there) == row.group_crc;
        Ok(if whole { there } else { render(redo) })
    }
}

/// Up to `bytes` bytes of a file from `offset` on; less when it ends before.
fn read(names: &Names, path: &Path, offset: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let file = names.storage().open(path, Mode::ReadLinked)?;
    let there = file.len()?.saturating_sub(offset).min(bytes);
    let mut text = vec![0; usize::try_from(there).unwrap_or(0)];
    let read = file.read_at(&mut text, offset)?;
    text.truncate(read);
    Ok(text)
}

/// Writes the first `offset` bytes of `source` and `text` after them to `to`, synced.
fn copy(names: &Names, source: &Path, offset: u64, text: &[u8], to: &Path) -> io::Result<()> {
    let from = names.storage().open(source, Mode::ReadLinked)?;
    let file = names.storage().open(to, Mode::Create)?;
    copy_part(from.as_ref(), file.as_ref(), offset)?;
    file.write_at(&mut [IoSlice::new(text)], offset)?;
    file.sync()
}

fn copy_part(from: &dyn StorageFile, to: &dyn StorageFile, bytes: u64) -> io::Result<()> {
    let mut part = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < bytes {
        let most = usize::try_from(bytes - at).unwrap_or(COPY_BYTES).min(COPY_BYTES);
        let read = from.read_at(part.get_mut(..most).unwrap_or_default(), at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_at(&mut [IoSlice::new(part.get(..read).unwrap_or_default())], at)?;
        at += read as u64;
    }
    Ok(())
}

/// The text of the group. What can not be read any more is left out and told.
fn render(redo: &[Redo]) -> Vec<u8> {
    let mut text = Vec::new();
    for part in redo {
        if let Err(error) = crate::collector::sinks::render_payload(part, &mut text) {
            tracing::error!(%error, "A committed batch can not be rendered again by this version");
        }
    }
    text
}
