//! What of one stream an operator should know: stores and lanes that do not fit together. Pure.
//!
//! | what is seen | what it means |
//! |---|---|
//! | Hello names another mark store | the proxy has delivered elsewhere: two stores in one list, or ours is new |
//! | the mark of an opened lane is below what its proxy knows to be acked | our store went back: it is older than what it acked |
//! | a batch follows another one than ours | two writers have used one lane |

use super::lane::LaneId;
use super::session::{Answer, Order, Outcome, Task};
use crate::proto::reject::Reason;
use std::collections::BTreeMap;

/// Something that needs an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The proxy has delivered to a collector with this mark store, in hex.
    OtherStore(String),
    /// Our store went back.
    MarkWentBack {
        /// The lane.
        lane: LaneId,
        /// The mark now.
        committed_seq: u64,
        /// What was acked before.
        acked_seq: u64,
    },
    /// Two writers have used one lane.
    Forked {
        /// The batch that does not follow ours.
        seq: u64,
    },
}

impl std::fmt::Display for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OtherStore(store) => write!(
                f,
                "The proxy has delivered to a collector with another mark store, {store}, and waits for that one"
            ),
            Self::MarkWentBack { lane, committed_seq, acked_seq } => write!(
                f,
                "The mark store is older than what was acked: lane {lane} went back from {acked_seq} to {committed_seq}; what the proxy still has comes again"
            ),
            Self::Forked { seq } => {
                write!(f, "Two writers have used one lane: batch {seq} does not follow ours")
            }
        }
    }
}

/// Watches one stream.
#[derive(Debug, Default)]
pub struct Watch {
    /// Lanes that are being opened, and what their proxy knows to be acked.
    opening: BTreeMap<u32, (LaneId, u64)>,
}

impl Watch {
    /// A Hello that names the store `theirs`.
    pub fn hello(&self, theirs: &[u8], ours: &[u8; 16]) -> Option<Alarm> {
        let is_other = !theirs.is_empty() && theirs != ours;
        is_other.then(|| Alarm::OtherStore(theirs.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// An order goes to the commit.
    pub fn submitted(&mut self, order: &Order) {
        if let Order::Lane { lane, id, task: Task::Open { acked_seq, .. } } = order {
            self.opening.insert(*lane, (*id, *acked_seq));
        }
    }

    /// What became of an order.
    pub fn answered(&mut self, outcome: &Outcome) -> Option<Alarm> {
        match &outcome.result {
            Answer::Opened { known, mark } => {
                let (lane, acked_seq) = self.opening.remove(&outcome.lane)?;
                let committed_seq = mark.committed_seq;
                let is_behind = *known && committed_seq < acked_seq;
                is_behind.then_some(Alarm::MarkWentBack { lane, committed_seq, acked_seq })
            }
            Answer::Rejected(rejection) if rejection.reason == Reason::Forked => {
                Some(Alarm::Forked { seq: rejection.seq })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::lane::Mark;
    use crate::collector::session::Rejection;

    const LANE: LaneId = LaneId([7; 16]);

    fn opened(acked_seq: u64, known: bool, committed_seq: u64) -> Option<Alarm> {
        let mut watch = Watch::default();
        let task = Task::Open { acked_seq, next_seq: 100, current: true };
        watch.submitted(&Order::Lane { lane: 1, id: LANE, task });
        let result = Answer::Opened { known, mark: Mark::adopted(committed_seq) };
        watch.answered(&Outcome { lane: 1, result })
    }

    #[test]
    fn row_23_a_mark_below_what_was_acked_is_an_alarm() {
        let alarm = Alarm::MarkWentBack { lane: LANE, committed_seq: 4, acked_seq: 9 };
        assert_eq!(opened(9, true, 4), Some(alarm));
        assert_eq!(opened(9, true, 9), None);
        assert_eq!(opened(9, true, 12), None);
        assert_eq!(opened(9, false, 9), None, "adopted");
    }

    #[test]
    fn row_22_another_store_is_an_alarm() {
        let watch = Watch::default();
        assert_eq!(watch.hello(b"", &[1; 16]), None);
        assert_eq!(watch.hello(&[1; 16], &[1; 16]), None);
        assert_eq!(watch.hello(&[0xab, 1], &[1; 16]), Some(Alarm::OtherStore("ab01".to_owned())));
    }

    #[test]
    fn row_13_a_fork_is_an_alarm() {
        let rejected = |reason| {
            let result = Answer::Rejected(Rejection { seq: 3, reason, text: String::new() });
            Watch::default().answered(&Outcome { lane: 1, result })
        };
        assert_eq!(rejected(Reason::Forked), Some(Alarm::Forked { seq: 3 }));
        assert_eq!(rejected(Reason::Malformed), None);
    }
}
