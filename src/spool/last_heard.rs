//! What exporters counted up to in the spool's last batches: with what comes first after the start it says what the
//! restart has lost. Read once, from the end of the newest lane, and used up by the first datagram of each exporter.

use super::frame::Seed;
use super::read::{Frame, Walk};
use super::state::{Lane, locked};
use crate::batch::Kind;
use crate::flow::Exporter;
use crate::storage::{Mode, Storage};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

/// Segments that are looked through, from the end of the newest lane.
const SEGMENTS: usize = 2;
/// Exporters and domains that are remembered.
const MOST: usize = 20_000;

/// The last datagram of an exporter that is in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// Its header's sequence number.
    pub sequence: u32,
    /// Records that it had in its batch.
    pub records: u32,
}

/// The last datagrams, by exporter and domain. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub struct LastHeard(Arc<Mutex<HashMap<(Exporter, u32), Last>>>);

impl LastHeard {
    /// What is known of an exporter and domain; once.
    pub fn take(&self, exporter: Exporter, domain: u32) -> Option<Last> {
        let mut known = locked(&self.0);
        if known.is_empty() { None } else { known.remove(&(exporter, domain)) }
    }

    /// Reads them from the end of the newest lane that holds something.
    pub(super) fn read(storage: &dyn Storage, lanes: &[Lane]) -> Self {
        let mut known = HashMap::new();
        if let Some(lane) = lanes.iter().rev().find(|lane| !lane.segments.is_empty()) {
            let skipped = lane.segments.len().saturating_sub(SEGMENTS);
            for segment in lane.segments.iter().skip(skipped) {
                if let Err(error) = look_through(storage, lane, segment, &mut known) {
                    tracing::warn!(%error, "What was heard last before the start could not be read");
                }
            }
        }
        Self(Arc::new(Mutex::new(known)))
    }
}

fn look_through(
    storage: &dyn Storage,
    lane: &Lane,
    segment: &super::state::Segment,
    known: &mut HashMap<(Exporter, u32), Last>,
) -> io::Result<()> {
    let file = storage.open(&segment.path, Mode::Read)?;
    let header = super::frame::SegmentHeader { lane: lane.id, first_seq: segment.first_seq, created: 0 };
    let seed = Seed::new(lane.id, segment.first_seq);
    let mut walk = Walk::new(file.as_ref(), &header, segment.end, false);
    while let Some(found) = walk.next()? {
        if found.header.kind == Kind::Raw {
            continue;
        }
        let bytes = found.header.frame_bytes();
        let Ok(frame) = Frame::read(file.as_ref(), seed, found.offset, bytes)? else { continue };
        for share in frame.notes().unwrap_or_default().shares {
            let key = (share.exporter, share.domain);
            if known.len() < MOST || known.contains_key(&key) {
                known.insert(key, Last { sequence: share.sequence, records: share.last_records });
            }
        }
    }
    Ok(())
}
