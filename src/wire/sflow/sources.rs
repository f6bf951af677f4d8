//! Sequence numbers of samples: each source of an agent counts its flow samples, its counter samples and its drops apart.

use super::Head;
use super::start::Start;
use super::structures::Address;
use crate::flow::Exporter;
use crate::proto::RecordKind;
use crate::wire::generations::Generations;
use crate::wire::{Sequence, Source, Step};

/// Sources whose count is kept; those heard longest ago go first, and begin anew when they are heard again.
const MAX_SOURCES: usize = 32_768;

/// Whose samples are counted. Devices behind one address have agents of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    exporter: Exporter,
    agent: Address,
    sub_agent: u32,
    kind: RecordKind,
    source: Source,
}

/// The counts.
#[derive(Debug)]
pub(super) struct Sources(Generations<Key, Sequence>);

impl Default for Sources {
    fn default() -> Sources {
        Sources(Generations::new(MAX_SOURCES))
    }
}

impl Sources {
    /// Takes the number of a sample; tells what it says of samples that have not come, or came late. Duplicates and new
    /// starts are the datagrams' to tell.
    pub(super) fn take(&mut self, head: &Head, start: &Start) -> Option<Step> {
        let (kind, source) = (start.kind, start.source);
        let key =
            Key { exporter: head.run.exporter, agent: head.agent, sub_agent: head.run.domain, kind, source };
        let sequence = self.0.get_or_insert_with(key, Sequence::default);
        let step = sequence.take(start.sequence, Some(1), false);
        step.filter(|step| matches!(step, Step::Gap(_) | Step::Late(_)))
    }
}
