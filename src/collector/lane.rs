//! What a collector knows of one lane, and what it makes of the next number. Pure.
//!
//! | what comes, with the mark at m | verdict |
//! |---|---|
//! | batch m + 1 | taken, unless its `previous_digest` is not that of the batch at m: two writers, one lane |
//! | batch m or lower | a duplicate: acked again |
//! | batch above m + 1 | a gap: dropped until m + 1 comes |
//! | skip whose part above m begins at m + 1 | that part is taken |
//! | skip that ends at m or lower | a duplicate |
//! | skip that begins above m + 1 | a gap |

use crate::batch::Digest;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;

/// Names a lane: one writer's life (forward.proto, LANES).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub [u8; 16]);

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// In a skip: all exporters together that have no entry of their own.
pub const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// How far a lane is committed or skipped, and the last batch of which the digest is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Everything up to here is committed or skipped.
    pub committed_seq: u64,
    /// The number that `digest` belongs to; 0 when none is known.
    pub digest_seq: u64,
    /// The digest of that batch; zeros when none is known.
    pub digest: Digest,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one.
    Take,
    /// It is there already.
    Duplicate,
    /// Something before it is missing.
    Gap,
    /// It follows another batch than the one that is there.
    Forked,
}

/// What to do with a skip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkipVerdict {
    /// These numbers are skipped now.
    Take(RangeInclusive<u64>),
    /// All of it is below the mark.
    Duplicate,
    /// Something before it is missing.
    Gap,
}

impl Mark {
    /// The mark of a lane that this store has not seen, of which everything up to `acked_seq` is known to be
    /// committed elsewhere.
    pub fn adopted(acked_seq: u64) -> Self {
        Self { committed_seq: acked_seq, ..Self::default() }
    }

    /// The digest at `digest_seq`; `None` when none is known.
    pub fn known_digest(&self) -> Option<Digest> {
        (self.digest_seq != 0).then_some(self.digest)
    }

    /// Judges batch `seq`, which says that it follows a batch with digest `previous`.
    pub fn judge(&self, seq: u64, previous: Option<Digest>) -> Verdict {
        if seq <= self.committed_seq {
            return Verdict::Duplicate;
        }
        if seq - self.committed_seq > 1 {
            return Verdict::Gap;
        }
        let known = self.known_digest().filter(|_| self.digest_seq == self.committed_seq);
        match known {
            Some(digest) if previous != Some(digest) => Verdict::Forked,
            _ => Verdict::Take,
        }
    }

    /// Moves to batch `seq`, which has been judged [`Verdict::Take`].
    pub fn take(&mut self, seq: u64, digest: Digest) {
        *self = Self { committed_seq: seq, digest_seq: seq, digest };
    }

    /// Judges a skip of `numbers` and moves over what is taken of it. `digest` is that of the last of them.
    pub fn skip(&mut self, numbers: &RangeInclusive<u64>, digest: Option<Digest>) -> SkipVerdict {
        if *numbers.end() <= self.committed_seq {
            return SkipVerdict::Duplicate;
        }
        let next = self.committed_seq.saturating_add(1);
        if *numbers.start() > next {
            return SkipVerdict::Gap;
        }
        self.committed_seq = *numbers.end();
        if let Some(digest) = digest {
            self.digest_seq = self.committed_seq;
            self.digest = digest;
        }
        SkipVerdict::Take(next..=*numbers.end())
    }
}

/// A lane as the mark store keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// How far it is.
    pub mark: Mark,
    /// The highest number that its writer has said would come next; 0 if it never said.
    pub next_seq: u64,
    /// When it was last opened, in milliseconds since 1970.
    pub opened_ms: u64,
    /// When it was closed, in milliseconds since 1970; 0 while it is not.
    pub closed_ms: u64,
}

impl Row {
    /// Numbers that were given to batches and never came: lost with their disk, if the lane is done.
    pub fn missing(&self) -> u64 {
        self.next_seq.saturating_sub(1).saturating_sub(self.mark.committed_seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = [1; 16];
    const B: Digest = [2; 16];

    #[test]
    fn numbers_are_taken_in_order_and_once() {
        let mut mark = Mark::default();
        assert_eq!(mark.judge(1, None), Verdict::Take);
        assert_eq!(mark.judge(2, None), Verdict::Gap);
        mark.take(1, A);
        assert_eq!(mark.judge(1, None), Verdict::Duplicate);
        assert_eq!(mark.judge(2, Some(A)), Verdict::Take);
        assert_eq!(mark.judge(u64::MAX, Some(A)), Verdict::Gap);
    }

    #[test]
    fn a_batch_that_follows_another_one_is_a_fork() {
        let mut mark = Mark::default();
        mark.take(1, A);
        assert_eq!(mark.judge(2, Some(B)), Verdict::Forked);
        assert_eq!(mark.judge(2, None), Verdict::Forked);
        assert_eq!(mark.judge(3, Some(B)), Verdict::Gap);
    }

    #[test]
    fn without_a_digest_at_the_mark_any_batch_follows() {
        assert_eq!(Mark::adopted(7).judge(8, Some(B)), Verdict::Take);
        let mut mark = Mark::default();
        mark.take(1, A);
        assert_eq!(mark.skip(&(2..=3), None), SkipVerdict::Take(2..=3));
        assert_eq!((mark.digest_seq, mark.known_digest()), (1, Some(A)));
        assert_eq!(mark.judge(4, Some(B)), Verdict::Take);
    }

    #[test]
    fn of_a_skip_the_part_above_the_mark_is_taken() {
        let mut mark = Mark::adopted(5);
        assert_eq!(mark.skip(&(1..=5), Some(A)), SkipVerdict::Duplicate);
        assert_eq!(mark.skip(&(7..=9), Some(A)), SkipVerdict::Gap);
        assert_eq!(mark.skip(&(2..=9), Some(A)), SkipVerdict::Take(6..=9));
        assert_eq!(mark.judge(10, Some(B)), Verdict::Forked);
        assert_eq!(mark.judge(10, Some(A)), Verdict::Take);
    }

    #[test]
    fn what_is_missing_lies_between_the_mark_and_the_next_number() {
        let mut row = Row { next_seq: 10, ..Row::default() };
        assert_eq!(row.missing(), 9);
        row.mark = Mark::adopted(9);
        assert_eq!(row.missing(), 0);
        assert_eq!(Row::default().missing(), 0);
    }
}
