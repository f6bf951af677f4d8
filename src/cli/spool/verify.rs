//! `spool verify`: what is damaged, a line each.

use super::file;
use crate::cli::{Failure, counted};
use crate::spool::folder::Folder;
use std::fmt::Write;

/// All damage, then what was read.
pub(super) fn text(folder: &Folder) -> String {
    let mut text = String::new();
    for damage in &folder.damages {
        let _ = writeln!(text, "{}: at byte {}: {}", file(folder, &damage.file), damage.offset, damage.what);
    }
    for segment in folder.segments.iter().filter(|segment| segment.torn_bytes > 0) {
        let what = match folder.in_use_by {
            Some(_) => "are being written",
            None => "are of a frame whose writing was cut off: no damage, it never counted as durable",
        };
        let path = file(folder, &segment.name);
        let torn = counted(segment.torn_bytes, "byte", "bytes");
        let _ = writeln!(text, "{path}: at byte {}: {torn} {what}", segment.end);
    }
    let sum = |count: fn(&crate::spool::folder::SegmentFound) -> u64| folder.segments.iter().map(count).sum();
    let _ = writeln!(
        text,
        "{}: {} read in {} of {}: {}",
        folder.dir.display(),
        counted(sum(|segment| segment.held.batches), "batch", "batches"),
        counted(folder.segments.len() as u64, "segment", "segments"),
        counted(folder.lanes.len() as u64, "lane", "lanes"),
        if folder.damages.is_empty() { "whole" } else { "damaged" },
    );
    if let Some(pid) = folder.in_use_by {
        let _ = writeln!(text, "(process {pid} has it in use; what it wrote meanwhile may be left out)");
    }
    text
}

/// Damage is a failure.
pub(super) fn verdict(folder: &Folder) -> Result<(), Failure> {
    match folder.damages.len() as u64 {
        0 => Ok(()),
        count => {
            Err(Failure::Other(format!("{}: {}", folder.dir.display(), counted(count, "damage", "damages"))))
        }
    }
}
