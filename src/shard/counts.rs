//! What closes a batch, and what a shard counts on its own before it adds it to what all share.

use crate::batch::Effort;
use crate::metrics::Ingest;

/// What closes a batch; the label of its counter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Close {
    Records,
    Bytes,
    Age,
    End,
}

impl Close {
    /// A batch that is full before its time comes under load.
    pub(super) fn effort(self) -> Effort {
        match self {
            Close::Records | Close::Bytes => Effort::Fast,
            Close::Age | Close::End => Effort::Small,
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Close::Records => "records",
            Close::Bytes => "bytes",
            Close::Age => "age",
            Close::End => "end",
        }
    }
}

/// Counts of one call's datagrams; added to the shared counters once a call.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) received: u64,
    pub(super) bytes: u64,
    pub(super) refused: u64,
    pub(super) limited: u64,
    pub(super) accepted: u64,
    pub(super) raw: u64,
    pub(super) begun: u64,
    pub(super) sets: u64,
    pub(super) held: i64,
    /// In the order of [`Ingest::KINDS`].
    pub(super) records: [u64; 5],
    /// In the order of [`Ingest::TEMPLATE_SOURCES`].
    pub(super) sources: [u64; 3],
}

impl Counts {
    pub(super) fn add_to(self, metrics: &Ingest) {
        metrics.datagrams_received.inc_by(self.received);
        metrics.bytes_received.inc_by(self.bytes);
        metrics.datagrams_refused.inc_by(self.refused);
        metrics.datagrams_limited.inc_by(self.limited);
        metrics.datagrams_accepted.inc_by(self.accepted);
        metrics.raw_accepted.inc_by(self.raw);
        metrics.sets_received.inc_by(self.begun);
        metrics.sets_decoded.inc_by(self.sets);
        metrics.sets_held.inc_by(self.held);
        metrics.count_decoded(self.records);
        metrics.count_template_sources(self.sources);
    }
}
