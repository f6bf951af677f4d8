//! Sees what the commit is asked and what it answers, and tells the oracle.

use super::oracle::{Lane, Oracle};
use super::store::Store;
use crate::batch::Digest;
use crate::collector::session::{Answer, Batch, Order, Task};

/// What an order asks for, if it is answered.
pub fn task(order: &Order) -> Option<(Lane, Task)> {
    match order {
        Order::Lane { id, task, .. } => Some((id.0, task.clone())),
        Order::Heard(_) => None,
    }
}

fn digest(batch: &Batch) -> Digest {
    let codec = batch.codec.expect("a batch that was taken");
    crate::batch::digest(codec, batch.plain_size, &batch.payload)
}

/// What an outcome means to the oracle.
pub fn note(oracle: &mut Oracle, lane: Lane, task: &Task, answer: &Answer) {
    match (task, answer) {
        (Task::Open { .. }, Answer::Opened { known, mark }) => {
            oracle.opened(lane, *known, mark.committed_seq)
        }
        (Task::Batch(batch), Answer::Marked { mark, moved: true }) => {
            oracle.taken(lane, batch.seq, digest(batch), mark.committed_seq);
        }
        (Task::Skip(skip), Answer::Marked { mark, moved: true }) => {
            oracle.skipped(lane, skip, mark.committed_seq);
        }
        _ => {}
    }
}

/// The collector died with a group in its hands: what of it is there?
pub fn find_out(store: &Store, tasks: &[(Lane, Task)], oracle: &mut Oracle) {
    for (lane, task) in tasks {
        let Some(mark) = store.mark(*lane) else { continue };
        match task {
            Task::Open { acked_seq, .. } if oracle.mark(*lane) == 0 && 0 < *acked_seq => {
                oracle.opened(*lane, false, *acked_seq);
            }
            Task::Batch(batch) if batch.seq == oracle.mark(*lane) + 1 && batch.seq <= mark => {
                oracle.taken(*lane, batch.seq, digest(batch), batch.seq);
            }
            Task::Skip(skip) if oracle.mark(*lane) < *skip.numbers.end() && *skip.numbers.end() <= mark => {
                oracle.skipped(*lane, skip, *skip.numbers.end());
            }
            _ => {}
        }
    }
}
