//! What stood in the spool and what came out at the sink: numbers of records, added up.
//!
//! Pure. A frame is owed from the moment at which it stood in the spool: what a killed process has written is with the
//! kernel, and the next one makes it durable before it counts on it. It is forgotten once all of it is at the sink.

use crate::demo::numbers::{Numbers, Seen};
use crate::spool::{LaneId, SkipRow};
use std::collections::BTreeMap;

/// The books of one run.
#[derive(Debug)]
pub struct Books {
    numbers: Numbers,
    received: u64,
    twice: u64,
    unknown: u64,
    /// Frames of which not all is at the sink, and their records' numbers.
    owed: BTreeMap<(LaneId, u64), Vec<u64>>,
    rows: Vec<SkipRow>,
}

impl Books {
    /// Nothing yet, of a mesh with so many exporters.
    pub fn new(exporters: usize) -> Self {
        let (owed, rows) = (BTreeMap::new(), Vec::new());
        Self { numbers: Numbers::new(exporters), received: 0, twice: 0, unknown: 0, owed, rows }
    }

    /// A record is at the sink; `None` if it has no number.
    pub fn at_sink(&mut self, number: Option<u64>) {
        self.received += 1;
        match number.map_or(Seen::Unknown, |number| self.numbers.see(number)) {
            Seen::First => {}
            Seen::Again => self.twice += 1,
            Seen::Unknown => self.unknown += 1,
        }
    }

    /// A frame stands in the spool, with these records.
    pub fn in_spool(&mut self, lane: LaneId, seq: u64, records: Vec<u64>) {
        self.owed.insert((lane, seq), records);
    }

    /// The spool's rows: batches that will never be sent.
    pub fn given_up(&mut self, rows: Vec<SkipRow>) {
        for row in rows {
            let known =
                self.rows.iter().any(|old| (old.lane, old.from, old.to) == (row.lane, row.from, row.to));
            if !known {
                self.rows.push(row);
            }
        }
    }

    /// Forgets frames that are at the sink.
    pub fn settle(&mut self) {
        let numbers = &self.numbers;
        self.owed.retain(|_, records| records.iter().any(|number| !numbers.has(*number)));
    }

    /// Records at the sink, those that came again among them.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Records that came again.
    pub fn twice(&self) -> u64 {
        self.twice
    }

    /// Records without a number of this run.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Records that stood in the spool and are neither at the sink nor given up by a row.
    pub fn owed(&self) -> u64 {
        let missing =
            |records: &[u64]| records.iter().filter(|number| !self.numbers.has(**number)).count() as u64;
        let owed = self.owed.iter().filter(|((lane, seq), _)| !self.is_given_up(*lane, *seq));
        owed.map(|(_, records)| missing(records)).sum()
    }

    fn is_given_up(&self, lane: LaneId, seq: u64) -> bool {
        self.rows.iter().any(|row| row.lane == lane && row.from <= seq && seq <= row.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::skip::Reason;

    const LANE: LaneId = LaneId([1; 16]);

    #[test]
    fn owed_is_what_stood_in_the_spool_and_is_nowhere() {
        let mut books = Books::new(1);
        books.in_spool(LANE, 1, vec![0, 1, 2]);
        books.in_spool(LANE, 2, vec![3, 4]);
        books.in_spool(LANE, 3, vec![5]);
        [0, 1, 2, 3].into_iter().for_each(|number| books.at_sink(Some(number)));
        books.settle();
        assert_eq!((books.owed.len(), books.owed()), (2, 2));
        let row = |from, to| SkipRow {
            lane: LANE,
            from,
            to,
            reason: Reason::Dropped,
            records_per_seq: Vec::new(),
            counts_per_exporter: Vec::new(),
            digest: None,
        };
        books.given_up(vec![row(3, 4)]);
        books.given_up(vec![row(3, 4)]);
        assert_eq!((books.owed(), books.rows.len()), (1, 1));
        books.at_sink(Some(4));
        assert_eq!((books.owed(), books.received(), books.twice(), books.unknown()), (0, 5, 0, 0));
        books.at_sink(Some(4));
        books.at_sink(None);
        assert_eq!((books.received(), books.twice(), books.unknown()), (7, 1, 1));
    }
}
