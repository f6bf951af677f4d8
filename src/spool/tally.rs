//! The spool's part of the loss ledger: what became of numbered batches, in total and per exporter.
//!
//! ```text
//! numbered + recovered = committed + found committed + skipped (reason) + set aside + unacked
//! ```
//! in batches, and in records (raw datagrams, in raw batches). Each batch is counted once in each of its terms: when it
//! gets its number, when it is acked, when its skip row is durable, when it is set aside. `recovered` is what the start
//! has found of earlier ones; what of it turns out to be acked without having been sent by this process is `found
//! committed`. What a damaged or lost batch held is known from the running totals in the frames around it.

use super::fetch;
use super::state::{Lane, Shared, State, locked};
use super::{LaneId, SkipRow};
use crate::batch::{Kind, Share};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

/// Addresses with a row of their own.
const MOST_EXPORTERS: usize = 10_000;

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Batches.
    pub batches: u64,
    /// Records, and raw datagrams, in them.
    pub records: u64,
}

impl Count {
    pub(super) fn add(&mut self, more: Count) {
        self.batches += more.batches;
        self.records += more.records;
    }

    fn take(&mut self, less: Count) {
        self.batches = self.batches.saturating_sub(less.batches);
        self.records = self.records.saturating_sub(less.records);
    }
}

/// What an ack has committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Batches that this process has given out.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Raw datagrams in them.
    pub raw: u64,
}

/// A batch that was given out to be sent, as long as it is not acked.
#[derive(Clone, Debug)]
pub struct Given {
    /// What it holds.
    pub kind: Kind,
    /// How many.
    pub records: u32,
    /// Records of the lane up to it and with it.
    pub total: u64,
    /// What each exporter has in it.
    pub shares: Arc<Vec<Share>>,
}

/// What became of an exporter's records, and raw datagrams, from the spool's queue on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exporter {
    /// In batches that have got a number.
    pub batched: u64,
    /// In batches that got none: too large, or the disk took nothing up to the end.
    pub dropped: u64,
    /// In those of the batches that are acked.
    pub committed: u64,
    /// In those of the batches that will never be sent, and in those that are set aside.
    pub skipped: u64,
    /// Acked, in batches of earlier starts.
    pub committed_of_before: u64,
    /// Never to be sent, in batches of earlier starts.
    pub skipped_of_before: u64,
}

impl Exporter {
    fn is_settled(&self) -> bool {
        self.batched == self.committed + self.skipped
    }

    /// Adds what was counted of another.
    pub fn add(&mut self, other: &Exporter) {
        self.batched += other.batched;
        self.dropped += other.dropped;
        self.committed += other.committed;
        self.skipped += other.skipped;
        self.committed_of_before += other.committed_of_before;
        self.skipped_of_before += other.skipped_of_before;
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    counts: Exporter,
    /// The turn in which it was used last.
    used: u64,
}

#[derive(Debug, Default)]
struct Table {
    rows: HashMap<IpAddr, Row>,
    other: Exporter,
    /// Batches that were numbered.
    turn: u64,
}

/// A row an address; bounded. Cheap to clone; clones share it.
///
/// When it is full those that are not in it share a row. Rows of which nothing is under way make room, those used
/// longest ago first, but only while nothing of the shared row is under way either: an exporter's batch is counted in
/// the same row from its number to its end.
#[derive(Clone, Debug, Default)]
pub struct Exporters(Arc<Mutex<Table>>);

impl Exporters {
    /// The rows, and what all others share, which has no address.
    pub fn rows(&self) -> Vec<(Option<IpAddr>, Exporter)> {
        let table = locked(&self.0);
        let other = (table.other != Exporter::default()).then_some((None, table.other));
        table.rows.iter().map(|(address, row)| (Some(*address), row.counts)).chain(other).collect()
    }

    /// What a batch holds has got a number.
    pub(super) fn batched(&self, shares: &[Share]) {
        let mut table = locked(&self.0);
        table.turn += 1;
        for share in shares {
            table.row(share.exporter.address).batched += u64::from(share.records);
        }
    }

    /// What a batch holds gets no number.
    pub(super) fn dropped(&self, shares: &[Share]) {
        let mut table = locked(&self.0);
        for share in shares {
            table.row(share.exporter.address).dropped += u64::from(share.records);
        }
    }

    fn committed(&self, shares: &[Share], is_of_before: bool) {
        let mut table = locked(&self.0);
        for share in shares {
            let row = table.known(share.exporter.address);
            let term = if is_of_before { &mut row.committed_of_before } else { &mut row.committed };
            *term += u64::from(share.records);
        }
    }

    fn skipped<'a>(&self, counts: impl Iterator<Item = &'a (IpAddr, u64)>, is_of_before: bool) {
        let mut table = locked(&self.0);
        for (address, records) in counts {
            let row = table.known(*address);
            let term = if is_of_before { &mut row.skipped_of_before } else { &mut row.skipped };
            *term += records;
        }
    }
}

impl Table {
    /// The address's row, made if there is room.
    fn row(&mut self, address: IpAddr) -> &mut Exporter {
        if !self.rows.contains_key(&address) && (self.rows.len() < MOST_EXPORTERS || self.make_room()) {
            self.rows.insert(address, Row::default());
        }
        self.known(address)
    }

    /// The row in which the address is counted.
    fn known(&mut self, address: IpAddr) -> &mut Exporter {
        match self.rows.get_mut(&address) {
            Some(row) => {
                row.used = self.turn;
                &mut row.counts
            }
            None => &mut self.other,
        }
    }

    /// Lets the half of the rows with nothing under way that were used longest ago share one. False if that may not be.
    fn make_room(&mut self) -> bool {
        if !self.other.is_settled() {
            return false;
        }
        let settled = self.rows.values().filter(|row| row.counts.is_settled());
        let mut used: Vec<u64> = settled.map(|row| row.used).collect();
        if used.is_empty() {
            return false;
        }
        let middle = (used.len() - 1) / 2;
        let median = *used.select_nth_unstable(middle).1;
        let Table { rows, other, .. } = self;
        rows.retain(|_, row| {
            let stays = row.used > median || !row.counts.is_settled();
            if !stays {
                other.add(&row.counts);
            }
            stays
        });
        true
    }
}

/// Notes that a batch is given out to be sent.
pub fn give(lane: &mut Lane, seq: u64, given: Given) {
    if seq > lane.counted_seq {
        lane.given.insert(seq, given);
    }
}

/// Numbers up to `seq` that are not counted and were not given out by this process; empty mostly.
pub fn not_given(lane: &Lane, seq: u64) -> Vec<(u64, u64)> {
    let mut at = lane.counted_seq.max(lane.acked_seq) + 1;
    let mut parts = Vec::new();
    for given in lane.given.range(at..=seq.max(at)).map(|(given, _)| *given) {
        if given > seq {
            break;
        }
        if given > at {
            parts.extend(lane.without_rows(at, given - 1));
        }
        at = given + 1;
    }
    if at <= seq {
        parts.extend(lane.without_rows(at, seq));
    }
    parts
}

/// Counts what is acked up to `seq`; `found` is what [`not_given`] comes to.
pub fn acked(shared: &Shared, lane: &mut Lane, seq: u64, found: Count) -> Committed {
    let rest = lane.given.split_off(&seq.saturating_add(1));
    let given = std::mem::replace(&mut lane.given, rest);
    let mut committed = Committed::default();
    for (seq, batch) in given {
        if seq <= lane.counted_seq || lane.row(seq).is_some() {
            continue;
        }
        committed.batches += 1;
        match batch.kind {
            Kind::Records => committed.records += u64::from(batch.records),
            Kind::Raw => committed.raw += u64::from(batch.records),
        }
        shared.metrics.exporters.committed(&batch.shares, lane.is_of_before);
        lane.passed = Some((seq, batch.total));
    }
    lane.counted_seq = lane.counted_seq.max(seq);
    shared.metrics.found_committed_batches.inc_by(found.batches);
    shared.metrics.found_committed_records.inc_by(found.records);
    let (batches, records) = (committed.batches, committed.records + committed.raw);
    leave(shared, lane, Count { batches: batches + found.batches, records: records + found.records });
    committed
}

/// Counts the part of a durable row that was not committed before the collector's mark went back.
pub fn skipped(shared: &Shared, lane: &mut Lane, row: &SkipRow, records: u64) {
    lane.given.retain(|seq, _| !(row.from..=row.to).contains(seq));
    shared.metrics.count_skipped(row, records);
    shared.metrics.exporters.skipped(row.counts_per_exporter.iter(), lane.is_of_before);
    leave(shared, lane, Count { batches: row.to - row.from + 1, records });
}

/// Counts what is left of a lane as set aside: so many `batches` can be read, with these records of each exporter. The
/// rest is damaged.
pub fn set_aside(shared: &Shared, lane: &mut Lane, batches: u64, counts: &[(IpAddr, u64)]) -> Count {
    let readable = Count { batches, records: counts.iter().map(|(_, records)| records).sum() };
    let left = Count {
        batches: lane.unacked.batches.max(readable.batches),
        records: lane.unacked.records.max(readable.records),
    };
    let damaged =
        Count { batches: left.batches - readable.batches, records: left.records - readable.records };
    for (reason, count) in [(super::Metrics::ASIDE, readable), ("damaged", damaged)] {
        shared.metrics.skipped_batches.add(reason, count.batches);
        shared.metrics.skipped_records.add(reason, count.records);
    }
    shared.metrics.exporters.skipped(counts.iter(), lane.is_of_before);
    leave(shared, lane, left);
    readable
}

/// The lane has come to its end. Records that are left then were in batches that were damaged or lost together with all
/// that told how many they had.
pub fn closed(shared: &Shared, lane: &mut Lane) {
    let left = lane.unacked;
    shared.metrics.skipped_records.add("lost", left.records);
    leave(shared, lane, left);
}

fn leave(shared: &Shared, lane: &mut Lane, less: Count) {
    let before = lane.unacked;
    if lane.is_unsure {
        shared.metrics.recovered_records.inc_by(less.records.saturating_sub(before.records));
    }
    lane.unacked.take(less);
    shared.metrics.unacked_batches.dec_by(before.batches.saturating_sub(lane.unacked.batches) as i64);
    shared.metrics.unacked_records.dec_by(before.records.saturating_sub(lane.unacked.records) as i64);
}

/// Records in a lane's batches from one number to another, as the totals in the frames around them say.
pub fn between(shared: &Shared, id: LaneId, from: u64, to: u64) -> Option<u64> {
    let before = total_before(shared, id, from)?;
    total_before(shared, id, to.saturating_add(1))?.checked_sub(before)
}

/// Records in all batches of a lane below a number.
fn total_before(shared: &Shared, id: LaneId, seq: u64) -> Option<u64> {
    {
        let mut state = shared.state();
        let lane = state.lane(id)?;
        if seq == 1 {
            return Some(0);
        }
        if seq >= lane.next_seq {
            return lane.total;
        }
        if let Some((passed, total)) = lane.passed
            && passed + 1 == seq
        {
            return Some(total);
        }
    }
    if let Ok(Some(at)) = fetch::with_notes(shared, id, seq) {
        return at.totals.records.checked_sub(u64::from(at.batch.records));
    }
    fetch::with_notes(shared, id, seq - 1).ok().flatten().map(|before| before.totals.records)
}

/// What all lanes still hold, to be shown.
pub fn unacked(state: &State) -> Count {
    let mut sum = Count::default();
    state.lanes.iter().for_each(|lane| sum.add(lane.unacked));
    sum
}

#[cfg(test)]
mod tests;
