//! The hands of one [`Session`]: carries messages between it and the stream, and its outputs to the spool.

use super::connect::{Connection, Death};
use super::link::age;
use super::rate::Limit;
use super::session::{End, Facts, Output, Session};
use super::succession::Signals;
use super::{Live, Uplink};
use crate::clock;
use crate::proto::client_message::Message;
use crate::proto::forward_client::ForwardClient;
use crate::proto::{ClientMessage, ServerMessage};
use crate::spool::{Fetched, LaneId, ReadError};
use crate::tls::Negotiated;
use bytes::Bytes;
use http::Uri;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

mod outputs;

/// Messages that wait for HTTP/2 to take them.
const OUTGOING: usize = 4;
/// The largest message of a collector that is read.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// How long a collector may take to accept the call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for the end of the stream after our goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// The session's clock.
const TICK: Duration = Duration::from_secs(1);
/// How long a collector that we leave may take to ack what is in flight, and how long we wait for a successor
/// before we leave one that is no longer configured.
const LEAVE_TIME: Duration = Duration::from_secs(10);

/// Work on the spool has not come back.
const CUT_OFF: &str = "work on the spool was cut off";

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Everything is delivered and we were asked to stop.
    Finished,
    /// With a goodbye: the collector stops, or is no longer configured.
    Left,
    /// Otherwise; why, in words.
    Failed(String),
    /// The collector refuses one batch after the other.
    Refused(String),
}

type Fetching = oneshot::Receiver<(LaneId, u64, Result<Fetched, ReadError>)>;

/// One connection's machinery.
#[derive(Debug)]
pub(super) struct Drive<'a> {
    uplink: &'a Uplink,
    session: Session,
    endpoint: &'a Uri,
    signals: &'a Signals,
    at: SocketAddr,
    negotiated: Negotiated,
    /// It is our turn and lanes are opened: what is shown of the link is about us.
    leads: bool,
    /// When another connection should take our place.
    old_at: Option<Instant>,
    /// When to go even without a successor; set once the endpoint is no longer configured.
    leave_at: Option<Instant>,
    /// `None` once the stream takes no more.
    outgoing: Option<mpsc::Sender<ClientMessage>>,
    /// What the stream had no room for yet.
    waiting: Option<ClientMessage>,
    /// A read from disk that is under way.
    fetching: Option<Fetching>,
    limit: Option<Limit>,
    max_rate: Option<u64>,
    /// How long the limit wants us to wait.
    pause: Option<Duration>,
    /// The writer's lane, as the session knows it.
    current: Option<LaneId>,
    /// When to stop waiting for acks; set once we stop.
    drain_until: Option<Instant>,
}

impl<'a> Drive<'a> {
    /// From Hello to the end.
    pub(super) async fn run(
        uplink: &'a Uplink,
        connection: Connection,
        endpoint: &'a Uri,
        signals: &'a Signals,
        stop: &CancellationToken,
    ) -> Ended {
        let Connection { channel, at, negotiated, death } = connection;
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        // Before the session looks at the lanes: what is written after that must be heard of, also when the
        // collector is slow to answer.
        let grown = uplink.parts.spool.subscribe();
        let mut drive = Self::new(uplink, (endpoint, at, negotiated), signals, outgoing);
        // A collector may answer the call only when it has read our Hello.
        drive.send_hello();
        let mut client = ForwardClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let call = timeout(CALL_TIMEOUT, client.stream(ReceiverStream::new(messages))).await;
        let mut incoming = match call {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Ended::Failed(explain(&status, &death)),
            Err(_) => return Ended::Failed("the collector did not answer the call in time".to_owned()),
        };
        let ended = drive.go(&mut incoming, grown, &death, stop).await;
        drive.outgoing = None;
        if matches!(ended, Ended::Finished | Ended::Left) {
            let rest = async { while let Ok(Some(_)) = incoming.message().await {} };
            // The Bye is on its way; what else would come does not matter any more.
            let _ = timeout(GOODBYE_TIMEOUT, rest).await;
        }
        ended
    }

    fn new(
        uplink: &'a Uplink,
        (endpoint, at, negotiated): (&'a Uri, SocketAddr, Negotiated),
        signals: &'a Signals,
        outgoing: mpsc::Sender<ClientMessage>,
    ) -> Self {
        let spool = &uplink.parts.spool;
        let facts = Facts {
            instance: uplink.parts.instance,
            software: concat!("flowproxy/", env!("CARGO_PKG_VERSION")).to_owned(),
            mark_store_id: Bytes::from(spool.mark_store_id()),
            rejects_in_a_row: spool.rejects_in_a_row(),
        };
        let lanes = spool.lanes();
        let current = lanes.iter().find(|lane| lane.current).map(|lane| lane.id);
        let max_rate = uplink.parts.live.load().max_rate;
        let now = clock::now();
        Self {
            session: Session::new(facts, lanes, now),
            limit: max_rate.and_then(|rate| Limit::new(rate, now)),
            max_rate,
            uplink,
            endpoint,
            signals,
            at,
            negotiated,
            leads: false,
            old_at: None,
            leave_at: None,
            outgoing: Some(outgoing),
            waiting: None,
            fetching: None,
            pause: None,
            current,
            drain_until: None,
        }
    }

    fn send_hello(&mut self) {
        if let Some(Output::Send(hello)) = self.session.poll() {
            self.send(hello);
        }
    }

    async fn go(
        &mut self,
        incoming: &mut Streaming<ServerMessage>,
        mut grown: watch::Receiver<u64>,
        death: &Death,
        stop: &CancellationToken,
    ) -> Ended {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Some(ended) = self.pump().await {
                return ended;
            }
            if self.session.is_leaving() {
                self.signals.is_leaving.cancel();
            }
            // What is rare comes before what is frequent, so nothing has to wait for long.
            tokio::select! {
                biased;
                () = stop.cancelled(), if self.leads && self.drain_until.is_none() => {
                    let now = clock::now();
                    self.drain_until = Some(now + self.uplink.parts.drain_time);
                    self.session.lanes(self.uplink.parts.spool.lanes(), now);
                    self.session.finish(now);
                }
                () = self.signals.leave.cancelled(), if !self.session.is_leaving() => {
                    let now = clock::now();
                    self.session.leave(now + LEAVE_TIME, now);
                }
                () = self.signals.turn.cancelled(), if self.waits_for_turn() => self.take_turn().await,
                _ = ticks.tick() => self.tick().await,
                has_room = room(self.outgoing.as_ref()), if self.waiting.is_some() => match self.waiting.take() {
                    Some(message) if has_room => self.send(message),
                    _ => self.closed(),
                },
                fetched = read(&mut self.fetching), if self.fetching.is_some() => {
                    self.fetching = None;
                    if let Err(error) = self.take(fetched) {
                        return Ended::Failed(error);
                    }
                }
                () = tokio::time::sleep(self.pause.unwrap_or_default()), if self.pause.is_some() => self.pause = None,
                Ok(()) = grown.changed() => self.session.grown(*grown.borrow_and_update()),
                message = incoming.message() => match message {
                    Ok(Some(message)) => self.session.received(message, clock::now()),
                    Ok(None) => return Ended::Failed("the collector ended the stream".to_owned()),
                    Err(status) => return Ended::Failed(explain(&status, death)),
                },
            }
        }
    }

    /// All that can be done without waiting for anyone but the disk.
    async fn pump(&mut self) -> Option<Ended> {
        loop {
            while self.waiting.is_none() {
                match self.session.poll() {
                    None => break,
                    Some(Output::Send(message)) => {
                        self.count_sent(&message);
                        self.send(message);
                    }
                    Some(Output::End(end)) => return Some(self.ended(end)),
                    Some(output) => {
                        if let Err(reason) = self.carry_out(output).await {
                            return Some(Ended::Failed(reason));
                        }
                    }
                }
            }
            if self.waiting.is_some() || self.fetching.is_some() || self.outgoing.is_none() {
                return None;
            }
            let (lane, seq) = self.session.wanted()?;
            self.pause = self.limit.as_mut().and_then(|limit| limit.wait(clock::now()));
            if self.pause.is_some() {
                return None;
            }
            let spool = &self.uplink.parts.spool;
            match spool.at_hand(lane, seq) {
                Ok(None) => {
                    let spool = spool.clone();
                    let fetch = move || (lane, seq, spool.fetch(lane, seq));
                    self.fetching = Some(self.uplink.machine.apart(fetch));
                    return None;
                }
                Ok(Some(fetched)) => {
                    if let Err(reason) = self.take(Some((lane, seq, Ok(fetched)))) {
                        return Some(Ended::Failed(reason));
                    }
                }
                Err(error) => return Some(Ended::Failed(unreadable(&error))),
            }
        }
    }

    fn take(&mut self, fetched: Option<(LaneId, u64, Result<Fetched, ReadError>)>) -> Result<(), String> {
        let Some((lane, seq, fetched)) = fetched else {
            return Err(CUT_OFF.to_owned());
        };
        let fetched = fetched.map_err(|error| unreadable(&error))?;
        if let (Fetched::Batch(batch), Some(limit)) = (&fetched, &mut self.limit) {
            limit.charge(batch.payload.len());
        }
        self.session.fetched(lane, seq, fetched, clock::now());
        Ok(())
    }

    fn count_sent(&self, message: &ClientMessage) {
        match message.message {
            Some(Message::Batch(_)) => self.uplink.parts.metrics.sent_batches.inc(),
            Some(Message::Skip(_)) => self.uplink.parts.metrics.sent_skips.inc(),
            _ => 0,
        };
    }

    fn send(&mut self, message: ClientMessage) {
        let Some(outgoing) = &self.outgoing else { return };
        let is_batch = matches!(message.message, Some(Message::Batch(_)));
        match outgoing.try_send(message) {
            Ok(()) if is_batch => {
                crash_point!("uplink.send");
            }
            Ok(()) => {}
            Err(TrySendError::Full(message)) => self.waiting = Some(message),
            Err(TrySendError::Closed(_)) => self.closed(),
        }
    }

    /// The stream takes no more: its end, which says why, is about to come in.
    fn closed(&mut self) {
        (self.outgoing, self.waiting) = (None, None);
    }

    async fn tick(&mut self) {
        let now = clock::now();
        self.session.tick(now);
        let lanes = self.uplink.parts.spool.lanes();
        let current = lanes.iter().find(|lane| lane.current).map(|lane| lane.id);
        if current != self.current {
            self.current = current;
            self.session.lanes(lanes, now);
        }
        self.heed(&self.uplink.parts.live.load_full(), now);
        if self.drain_until.is_some_and(|until| now >= until) {
            self.session.leave(now, now);
            self.session.tick(now);
        }
        if self.session.is_heartbeat_due(now) {
            self.heartbeat(now).await;
        }
        if self.leads {
            self.uplink.memory().store.seen(now);
            self.show();
        }
        if self.old_at.is_some_and(|at| now >= at) {
            self.signals.is_old.cancel();
        }
    }

    /// What the operator has changed.
    fn heed(&mut self, live: &Arc<Live>, now: Instant) {
        if live.max_rate != self.max_rate {
            self.max_rate = live.max_rate;
            self.limit = live.max_rate.and_then(|rate| Limit::new(rate, now));
        }
        if !live.endpoints.contains(self.endpoint) {
            self.signals.is_leaving.cancel();
            let leave_at = *self.leave_at.get_or_insert(now + LEAVE_TIME);
            if now >= leave_at && !self.session.is_leaving() {
                self.session.leave(now + LEAVE_TIME, now);
            }
        }
    }

    async fn heartbeat(&mut self, now: Instant) {
        let oldest = match self.session.first_unsent() {
            Some((lane, seq)) => self.uplink.waited(lane, seq).await,
            None => None,
        };
        self.uplink.show_age(oldest);
        self.session.heartbeat(self.uplink.parts.totals.read(), oldest, now);
    }

    fn show(&self) {
        let (load, window) = (self.session.in_flight(), self.session.window());
        let metrics = &self.uplink.parts.metrics;
        metrics.in_flight_batches.set(i64::from(load.batches));
        metrics.in_flight_bytes.set(i64::try_from(load.bytes).unwrap_or(i64::MAX));
        self.uplink.parts.link.send_if_modified(|link| {
            let changed = (link.in_flight, link.window) != (load, window);
            (link.in_flight, link.window) = (load, window);
            changed
        });
    }

    fn ended(&mut self, end: End) -> Ended {
        match end {
            End::Finished => Ended::Finished,
            End::Drained if self.drain_until.is_some() => Ended::Finished,
            End::Drained => Ended::Left,
            End::Rejected(_) => Ended::Refused(end.to_string()),
            End::Silent { .. } | End::Refused(_) | End::Violation(_) => Ended::Failed(end.to_string()),
        }
    }
}

/// Waits until the stream takes another message; false if it never will.
async fn room(outgoing: Option<&mpsc::Sender<ClientMessage>>) -> bool {
    match outgoing {
        Some(outgoing) => outgoing.reserve().await.is_ok(),
        None => false,
    }
}

async fn read(fetching: &mut Option<Fetching>) -> Option<(LaneId, u64, Result<Fetched, ReadError>)> {
    fetching.as_mut()?.await.ok()
}

impl Uplink {
    /// How long the batch has waited since its first datagram was received.
    async fn waited(&self, lane: LaneId, seq: u64) -> Option<Duration> {
        let spool = self.parts.spool.clone();
        match self.machine.apart(move || spool.fetch(lane, seq)).await.ok()?.ok()? {
            Fetched::Batch(batch) => Some(age(batch.received, self.machine.unix_ms())),
            Fetched::Skip(_) | Fetched::Pending => None,
        }
    }
}

fn unreadable(error: &ReadError) -> String {
    format!("the spool cannot be read: {error}")
}

/// Why a stream ended. What the collector said itself comes first; else how the connection died.
fn explain(status: &Status, death: &Death) -> String {
    let (code, text) = (status.code(), status.message());
    match code {
        Code::Unimplemented | Code::NotFound => {
            format!("what listens there speaks gRPC, but is not a flowproxy collector: {text}")
        }
        Code::PermissionDenied | Code::Unauthenticated => format!("the collector does not let us in: {text}"),
        Code::Ok | Code::Unknown | Code::Cancelled | Code::Internal | Code::Unavailable => {
            match death.cause() {
                Some(cause) => cause.to_owned(),
                None => format!("the collector ended the stream: {text}"),
            }
        }
        _ => format!("the collector ended the stream: {text} ({code:?})"),
    }
}
