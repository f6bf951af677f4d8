//! What a session's outputs mean for the spool, the metrics and the log.

use super::{Drive, unreadable, waited};
use crate::batch::Kind;
use crate::spool::{Fetched, LaneId, Spool};
use crate::uplink::link::State;
use crate::uplink::session::{Acked, Note, Output, Rejection};
use bytes::Bytes;
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;

/// A collector with another mark store is taken when none has shown the old one for so long.
const STORE_PATIENCE: Duration = Duration::from_secs(600);
/// The backlog's age at which fresh batches get a lane of their own.
const FRESH_AFTER: Duration = Duration::from_secs(60);
/// With so many lanes there is none made for that.
const MAX_LANES_FOR_FRESH: usize = 16;
/// How many batches, acked unseen, are looked up to be counted: no more can have been in flight.
const MAX_LOOKED_UP: u64 = 4096;

impl Drive<'_> {
    pub(super) async fn carry_out(&mut self, output: Output) -> Result<(), String> {
        let spool = &self.uplink.parts.spool;
        match output {
            Output::Send(_) | Output::End(_) => {}
            Output::Store(id) => self.judge_store(id).await?,
            Output::Opened(lane) => spool.opened(lane),
            Output::Acked(acked) => self.acked(acked).await,
            Output::Closed(lane) => {
                spool.close(lane);
                self.uplink.sent.remove(&lane);
            }
            Output::SetAside(lane) => {
                spool.set_aside(lane);
                self.uplink.sent.remove(&lane);
                self.uplink.parts.metrics.lanes_set_aside.inc();
            }
            Output::Rejected(rejection) => self.rejected(rejection).await?,
            Output::Note(note) => self.note(note),
        }
        Ok(())
    }

    /// The collector's marks must be in the store that we delivered to before: another one would get again
    /// what is unacked here and committed there.
    async fn judge_store(&mut self, id: Bytes) -> Result<(), String> {
        let spool = self.uplink.parts.spool.clone();
        let known = spool.mark_store_id();
        if known != id.as_ref() {
            let missed = self.uplink.store_seen_at.elapsed();
            if !known.is_empty() && missed < STORE_PATIENCE {
                let wait = STORE_PATIENCE.saturating_sub(missed).as_secs();
                return Err(format!(
                    "{} keeps its marks in another store than the collector that we delivered to before; it is taken if that one is not heard of for {wait} s more",
                    self.endpoint
                ));
            }
            if !known.is_empty() {
                self.uplink.alarm(
                    "Another mark store was taken for good: what was unacked may be at both collectors",
                );
            }
            let kept = spawn_blocking(move || spool.set_mark_store_id(&id)).await;
            kept.map_err(|error| error.to_string())?.map_err(|error| format!("the spool's disk: {error}"))?;
        }
        self.uplink.store_seen_at = Instant::now();
        self.uplink.parts.metrics.connections.inc();
        self.uplink.parts.metrics.connected.set(1);
        self.uplink.parts.link.send_modify(|link| {
            link.turn(State::Connected);
            link.last_error = None;
        });
        tracing::info!(endpoint = %self.endpoint, "The collector has welcomed us");
        self.give_fresh_batches_a_lane().await;
        self.session.store_taken(Instant::now());
        Ok(())
    }

    async fn give_fresh_batches_a_lane(&mut self) {
        let spool = &self.uplink.parts.spool;
        let lanes = spool.lanes();
        let behind = lanes.iter().find(|lane| lane.current && lane.acked_seq + 1 < lane.next_seq);
        let Some(lane) = behind.filter(|_| lanes.len() < MAX_LANES_FOR_FRESH) else { return };
        if waited(spool, lane.id, lane.acked_seq + 1).await.is_some_and(|age| age >= FRESH_AFTER) {
            tracing::info!("Fresh batches get a lane of their own, the backlog goes beside it");
            spool.new_lane();
        }
    }

    async fn acked(&mut self, acked: Acked) {
        let metrics = &self.uplink.parts.metrics;
        let (mut batches, mut records, mut raw) = (acked.batches, acked.records, acked.raw);
        let sent = self.uplink.sent.get(&acked.lane).copied().unwrap_or_default();
        let (from, to) = (*acked.unseen.start(), sent.min(*acked.unseen.end()));
        if from <= to {
            let spool = self.uplink.parts.spool.clone();
            let counted = spawn_blocking(move || count(&spool, acked.lane, from, to)).await;
            let more = counted.unwrap_or_default();
            (batches, records, raw) = (batches + more.0, records + more.1, raw + more.2);
        }
        metrics.committed_batches.inc_by(batches);
        metrics.committed_records.inc_by(records);
        metrics.committed_raw.inc_by(raw);
        if batches > 0 {
            self.uplink.backoff.worked();
        }
        self.uplink.parts.spool.acked(acked.lane, acked.seq);
    }

    async fn rejected(&mut self, rejection: Rejection) -> Result<(), String> {
        let Rejection { lane, seq, reason, text } = rejection;
        tracing::error!(%lane, seq, reason = reason.as_str_name(), text,
            "The collector refused a batch; it goes to quarantine");
        self.uplink.parts.metrics.rejected_batches.inc();
        let spool = self.uplink.parts.spool.clone();
        let kept = spawn_blocking(move || spool.reject(lane, seq)).await;
        kept.map_err(|error| error.to_string())?.map(|_| ()).map_err(|error| unreadable(&error))
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Adopted { lane, acked_seq } => {
                tracing::warn!(%lane, acked_seq, "The collector did not know this lane and begins after what was acked");
            }
            Note::MarkWentBack { lane, committed_seq, acked_seq } => {
                self.uplink.parts.spool.went_back(lane, committed_seq);
                self.uplink.parts.metrics.marks_went_back.inc();
                self.uplink.alarm(&format!(
                    "The collector has lost what it had acked of lane {lane}: its mark went back from {acked_seq} to {committed_seq}; what is left is sent again"
                ));
            }
            Note::Forked { lane, seq } => self.uplink.alarm(&format!(
                "Lane {lane} has had two writers: the collector has another batch {seq}; what is unacked is set aside"
            )),
            Note::PastEnd { lane, committed_seq, last_seq } => self.uplink.alarm(&format!(
                "The collector has lane {lane} up to {committed_seq}, we only up to {last_seq}; what is unacked is set aside"
            )),
            Note::Unreadable { lane, seq } => self.uplink.alarm(&format!(
                "The spool has lost batch {seq} of lane {lane}; the lane rests until the next connection"
            )),
        }
    }
}

/// Batches, records and raw datagrams from one number to another.
fn count(spool: &Spool, lane: LaneId, from: u64, to: u64) -> (u64, u64, u64) {
    let (mut batches, mut records, mut raw) = (0, 0, 0);
    for seq in from..=to.min(from.saturating_add(MAX_LOOKED_UP)) {
        if let Ok(Fetched::Batch(batch)) = spool.fetch(lane, seq) {
            batches += 1;
            match batch.kind {
                Kind::Records => records += u64::from(batch.records),
                Kind::Raw => raw += u64::from(batch.records),
            }
        }
    }
    (batches, records, raw)
}
