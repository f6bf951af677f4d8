//! Follows the collector's JSONL files as any reader may: whole lines, each once, over rotations and restarts.
//!
//! A full file that is read to its end is removed: however long the demo runs, there is little on the disk.

use super::books::Books;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;
/// The key of the record's number, and what marks a flow record.
const NUMBER: &str = "\"flowId\":";
const FLOW: &str = "\"kind\":\"data\"";

/// The folder of the sink, and how far each file in it is read, by inode: names change.
#[derive(Debug)]
pub struct SinkReader {
    live: PathBuf,
    read: HashMap<u64, u64>,
}

impl SinkReader {
    /// Nothing read yet. `live` is the file that is being written; it may not be there.
    pub fn new(live: PathBuf) -> Self {
        Self { live, read: HashMap::new() }
    }

    /// Enters what has come since the last time.
    ///
    /// # Errors
    /// Those of the disk; what the sink must not do.
    pub fn read(&mut self, books: &mut Books) -> io::Result<()> {
        for path in self.files()? {
            let file = match File::open(&path) {
                // It has got its last name meanwhile, and is found by that the next time.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let inode = file.metadata()?.ino();
            let at = self.read.entry(inode).or_default();
            follow(&file, at, books)?;
            if path != self.live && is_at_its_end(&file, &path, *at)? {
                std::fs::remove_file(&path)?;
                self.read.remove(&inode);
            }
        }
        Ok(())
    }

    /// The sink's files, the live one last.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let dir = self.live.parent().unwrap_or(Path::new(""));
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
        let is_set_aside = |path: &&PathBuf| {
            path.file_name().is_some_and(|it| it.as_encoded_bytes().starts_with(b"orphan-"))
        };
        if let Some(orphan) = paths.iter().find(is_set_aside) {
            return Err(io::Error::other(format!("the collector has set {} aside", orphan.display())));
        }
        let mut paths: Vec<PathBuf> = paths.into_iter().filter(|path| *path != self.live).collect();
        paths.sort();
        paths.push(self.live.clone());
        Ok(paths)
    }
}

/// Whether nothing is behind what was read of a full file, which must end with a line.
fn is_at_its_end(file: &File, path: &Path, at: u64) -> io::Result<bool> {
    // By its name, too: between listing and opening, another file may have got it.
    let found = std::fs::metadata(path)?;
    Ok(found.ino() == file.metadata()?.ino() && found.len() == at)
}

/// Reads whole lines from `at` on.
fn follow(file: &File, at: &mut u64, books: &mut Books) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let held = bytes.len();
        bytes.resize(held + READ_BYTES, 0);
        let read = file.read_at(bytes.get_mut(held..).unwrap_or_default(), *at + held as u64)?;
        bytes.truncate(held + read);
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = std::str::from_utf8(bytes.get(..whole).unwrap_or_default()).map_err(io::Error::other)?;
        text.lines().filter(|line| line.contains(FLOW)).for_each(|line| books.at_sink(number(line)));
        *at += whole as u64;
        bytes.drain(..whole);
        if read == 0 {
            return Ok(());
        }
    }
}

/// The number of the record in a line.
fn number(line: &str) -> Option<u64> {
    let (_, after) = line.split_once(NUMBER)?;
    let end = after.find(|it: char| !it.is_ascii_digit()).unwrap_or(after.len());
    after.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64) -> String {
        format!("{{\"kind\":\"data\",\"flowId\":{number},\"octetDeltaCount\":1}}\n")
    }

    #[test]
    fn lines_are_read_once_over_a_rotation_and_a_cut_off_line() {
        let dir = tempfile::tempdir().unwrap();
        let live = dir.path().join("flows.jsonl");
        let mut reader = SinkReader::new(live.clone());
        let mut books = Books::new(1);
        reader.read(&mut books).unwrap();
        let (first, second) = (line(1), line(2));
        std::fs::write(&live, format!("{first}{}", &second[..9])).unwrap();
        reader.read(&mut books).unwrap();
        assert_eq!(books.received(), 1);
        // What was cut off is written again at its place; then the file is full.
        std::fs::OpenOptions::new()
            .write(true)
            .open(&live)
            .unwrap()
            .write_all_at(second.as_bytes(), first.len() as u64)
            .unwrap();
        let full = dir.path().join("flows-20261123T140000Z-00000001.jsonl");
        std::fs::rename(&live, &full).unwrap();
        std::fs::write(&live, "{\"kind\":\"options\"}\n".to_owned() + &line(3)).unwrap();
        reader.read(&mut books).unwrap();
        assert_eq!((books.received(), books.twice(), books.unknown()), (3, 0, 0));
        assert!(!full.exists() && live.exists());
        reader.read(&mut books).unwrap();
        assert_eq!(books.received(), 3);
    }

    #[test]
    fn what_the_sink_sets_aside_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("orphan-1-flows.jsonl"), "").unwrap();
        let fault = SinkReader::new(dir.path().join("flows.jsonl")).read(&mut Books::new(1)).unwrap_err();
        assert!(fault.to_string().contains("orphan-1"), "{fault}");
    }
}
