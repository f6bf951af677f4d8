//! What stands in the segment files of a spool's disk, read without the spool.

use super::oracle::Lane;
use crate::batch::{self, Digest};
use crate::proto::Codec;
use crate::storage::memory::Memory;
use std::collections::BTreeSet;
use std::path::Path;

/// See the head of spool/mod.rs.
const HEADER_BYTES: usize = 64;
const LANE_AT: usize = 16;
const FRAME_HEADER_BYTES: usize = 80;
const LEN_AT: usize = 4;
const PLAIN_SIZE_AT: usize = 32;
const NOTES_LEN_AT: usize = 36;
const SEQ_AT: usize = 8;
const DIGEST_AT: usize = 48;
const MAGIC: [u8; 2] = [0xf5, 0x0a];

/// A frame as it stands in a segment: lane, number, digest.
pub type Frame = (Lane, u64, Digest);

/// The digests of the whole frames in these files.
pub fn digests<'a>(files: impl IntoIterator<Item = &'a [u8]>) -> BTreeSet<Digest> {
    files.into_iter().flat_map(frames).map(|(_, _, digest)| digest).collect()
}

/// The digests of what stands on this disk now.
pub fn held(disk: &Memory) -> BTreeSet<Digest> {
    digests(disk.files().iter().map(|(_, _, bytes)| bytes.as_slice()))
}

/// The digests of what a power cut leaves on this disk, whatever it takes.
pub fn durable(disk: &Memory) -> BTreeSet<Digest> {
    digests(disk.durable().values().map(Vec::as_slice))
}

/// The digests of what was set aside on this disk.
pub fn aside(disk: &Memory) -> BTreeSet<Digest> {
    let files = disk.files();
    let aside = files.iter().filter(|(_, path, _)| in_folder(path, "forked-"));
    digests(aside.map(|(_, _, bytes)| bytes.as_slice()))
}

fn in_folder(path: &Path, prefix: &str) -> bool {
    let folder = path.parent().and_then(Path::file_name);
    folder.is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

/// The frames of a segment file up to the first that is not whole. Gives none for other files.
pub fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut found: Vec<Frame> = Vec::new();
    if !bytes.starts_with(b"FLOWSEG\0") || bytes.len() < HEADER_BYTES {
        return found;
    }
    let lane: Lane = bytes[LANE_AT..LANE_AT + 16].try_into().unwrap();
    let mut rest = &bytes[HEADER_BYTES..];
    while rest.starts_with(&MAGIC) && rest.len() >= FRAME_HEADER_BYTES {
        let number = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let seq = u64::from_le_bytes(rest[SEQ_AT..SEQ_AT + 8].try_into().unwrap());
        let digest: Digest = rest[DIGEST_AT..DIGEST_AT + 16].try_into().unwrap();
        let end = FRAME_HEADER_BYTES + number(LEN_AT) as usize;
        let payload = rest.get(FRAME_HEADER_BYTES + number(NOTES_LEN_AT) as usize..end);
        let whole = payload.map(|payload| batch::digest(Codec::Plain, number(PLAIN_SIZE_AT), payload));
        if whole != Some(digest) || found.last().is_some_and(|(_, last, _)| last + 1 != seq) {
            break;
        }
        found.push((lane, seq, digest));
        rest = rest.get(end.next_multiple_of(8)..).unwrap_or_default();
    }
    found
}
