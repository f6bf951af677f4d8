//! What a session's outputs mean for the spool, the metrics and the log.

use super::{CUT_OFF, Drive, unreadable};
use crate::clock;
use crate::spool::{LaneId, Spool};
use crate::uplink::link::State;
use crate::uplink::session::{Acked, Note, Output, Rejection};
use crate::uplink::store::Verdict;
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long to wait for the lane of what is fresh: a disk may stall.
const NEW_LANE_TIME: Duration = Duration::from_secs(2);
/// With so many lanes there is none made for that.
const MAX_LANES_FOR_FRESH: usize = 16;

impl Drive<'_> {
    pub(super) async fn carry_out(&mut self, output: Output) -> Result<(), String> {
        let spool = &self.uplink.parts.spool;
        match output {
            Output::Send(_) | Output::End(_) => {}
            Output::Store(id) => self.judge_store(id).await?,
            Output::Opened(lane) => spool.opened(lane),
            Output::Acked(acked) => self.acked(acked).await,
            Output::Closed(lane) => drop(spool.close(lane)),
            Output::SetAside(lane) => {
                spool.set_aside(lane);
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
        let verdict = self.uplink.memory().store.judge(&known, &id, clock::now());
        match verdict {
            Verdict::Ours | Verdict::First => {}
            Verdict::Refused(wait) => {
                let text = format!(
                    "{} keeps its marks in another store than the collector that we delivered to before",
                    self.endpoint
                );
                self.uplink.alarm(&text);
                let wait = wait.as_secs();
                return Err(format!("{text}; it is taken if that one is not heard of for {wait} s more"));
            }
            Verdict::Instead => self
                .uplink
                .alarm("Another mark store was taken for good: what was unacked may be at both collectors"),
        }
        if verdict != Verdict::Ours {
            let kept = self.uplink.machine.apart(move || spool.set_mark_store_id(&id)).await;
            let refused = |error| {
                format!(
                    "the spool's disk does not take the name of the collector's store, which must be on it before a batch is sent: {error}"
                )
            };
            kept.map_err(|_| CUT_OFF)?.map_err(refused)?;
        }
        self.uplink.memory().store.seen(clock::now());
        self.uplink.parts.metrics.connections.inc();
        tracing::info!(endpoint = %self.endpoint, "The collector has welcomed us");
        self.signals.is_welcome.cancel();
        if self.signals.turn.is_cancelled() {
            self.take_turn().await;
        }
        Ok(())
    }

    /// The collector has welcomed us, and a connection before us still sends.
    pub(super) fn waits_for_turn(&self) -> bool {
        !self.leads && self.signals.is_welcome.is_cancelled()
    }

    /// Nobody sends before us: from here on lanes are opened, with what was acked up to now.
    pub(super) async fn take_turn(&mut self) {
        self.leads = true;
        self.uplink.parts.metrics.connected.set(1);
        self.uplink.parts.link.send_modify(|link| {
            link.turn(State::Connected);
            link.endpoint = self.endpoint.to_string();
            link.address = Some(self.at.to_string());
            link.tls = Some(self.negotiated.version);
            link.key_exchange = Some(self.negotiated.key_exchange.clone());
            link.last_error = None;
        });
        self.give_fresh_batches_a_lane().await;
        let (spool, now) = (&self.uplink.parts.spool, clock::now());
        self.session.refresh(spool.lanes(), spool.rejects_in_a_row(), now);
        self.session.store_taken(now);
        let age = self.uplink.parts.live.load().max_connection_age;
        self.old_at = now.checked_add(spread(age, self.uplink.machine.chance()));
    }

    async fn give_fresh_batches_a_lane(&mut self) {
        let spool = &self.uplink.parts.spool;
        let fresh_after = self.uplink.parts.live.load().fresh_after;
        let lanes = spool.lanes();
        let behind = lanes.iter().find(|lane| lane.current && lane.acked_seq + 1 < lane.next_seq);
        let Some(lane) = behind.filter(|_| lanes.len() < MAX_LANES_FOR_FRESH) else { return };
        if self.uplink.waited(lane.id, lane.acked_seq + 1).await.is_some_and(|age| age >= fresh_after) {
            tracing::info!("Fresh batches get a lane of their own, the backlog goes beside it");
            let begun = spool.subscribe();
            spool.new_lane();
            // Else the backlog would go as what is fresh, and fill the window, until the new lane is heard of.
            if timeout(NEW_LANE_TIME, other_lane(spool, lane.id, begun)).await.is_err() {
                tracing::warn!("The spool has not begun another lane yet; the backlog goes first");
            }
        }
    }

    async fn acked(&mut self, acked: Acked) {
        crash_point!("uplink.ack");
        let spool = self.uplink.parts.spool.clone();
        let Acked { lane, seq, .. } = acked;
        let committed = if spool.must_look_up(lane, seq) {
            self.uplink.machine.apart(move || spool.acked(lane, seq)).await.unwrap_or_default()
        } else {
            spool.acked(lane, seq)
        };
        let metrics = &self.uplink.parts.metrics;
        metrics.committed_batches.inc_by(committed.batches);
        metrics.committed_records.inc_by(committed.records);
        metrics.committed_raw.inc_by(committed.raw);
        if committed.batches > 0 {
            self.uplink.memory().backoff.worked();
        }
        crash_point!("uplink.acked");
    }

    async fn rejected(&mut self, rejection: Rejection) -> Result<(), String> {
        let Rejection { lane, seq, reason, text } = rejection;
        tracing::error!(%lane, seq, reason = reason.as_str_name(), text,
            "The collector refused a batch; it goes to quarantine");
        self.uplink.parts.metrics.rejected_batches.inc();
        let spool = self.uplink.parts.spool.clone();
        let kept = self.uplink.machine.apart(move || spool.reject(lane, seq)).await;
        kept.map_err(|_| CUT_OFF)?.map(|_| ()).map_err(|error| unreadable(&error))
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
                "The collector has lane {lane} up to {committed_seq}, we only up to {last_seq}: its end was lost with the power, or this disk is an older copy; what is unacked is set aside"
            )),
            Note::Twin => self.uplink.alarm(
                "Another live process writes under our identity: this disk was copied, or a key is shared",
            ),
            Note::Unreadable { lane, seq } => self.uplink.alarm(&format!(
                "The spool has lost batch {seq} of lane {lane}; the lane rests until the next connection"
            )),
        }
    }
}

/// Waits until the writer has left the lane `old`.
async fn other_lane(spool: &Spool, old: LaneId, mut grown: watch::Receiver<u64>) {
    while spool.lanes().iter().any(|lane| lane.current && lane.id == old) {
        if grown.changed().await.is_err() {
            return;
        }
    }
}

/// Give or take a fifth, so that connections made at once do not end at once. `chance` is from 0 to 1.
fn spread(age: Duration, chance: f64) -> Duration {
    age.mul_f64(0.8 + 0.4 * chance)
}
