//! The gRPC service: carries messages between a stream, its session and the commit.
//!
//! No task is spawned for a stream: its answer is a [`Stream`] that drives the session while it is polled, so
//! a client that does not read is not read from either, and a stream that is dropped takes all with it.

use super::accept::Peer;
use super::alarms::{Alarm, Watch};
use super::commit::{Health, Request};
use super::metrics::Metrics;
use super::registry::{Member, Registry};
use super::session::{Action, Conditions, Limits, Order, Outcome, Session, Task};
use crate::clock;
use crate::lines::limited;
use crate::proto::forward_server::Forward;
use crate::proto::{self, ClientMessage, ServerMessage, Window, client_message, server_message::Message};
use crate::tls::Identity;
use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};

/// How long a stream may live without a Hello.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Messages that wait for the client to read.
const WAITING_ANSWERS: usize = 64;
/// What an order costs of the memory budget at least, in bytes.
const MIN_COST: usize = 1024;

/// What all streams share.
pub struct Shared {
    /// Where orders go.
    pub orders: mpsc::Sender<Request>,
    /// Bytes of orders that may be on their way to the commit, as permits.
    pub budget: Arc<Semaphore>,
    /// What may be in flight over all streams.
    pub window: Window,
    /// What one stream may do.
    pub limits: Limits,
    /// Names the mark store.
    pub mark_store_id: [u8; 16],
    /// Identities that may come; empty: all that the CA has signed.
    pub allow: BTreeSet<String>,
    /// Streams of one identity.
    pub streams_per_identity: usize,
    /// Who is connected.
    pub registry: Registry,
    /// What is counted.
    pub metrics: Metrics,
    /// Whether store and sinks work.
    pub health: watch::Receiver<Health>,
    /// Cancelled when the collector begins to stop.
    pub drain: CancellationToken,
    /// How long streams may go on after that.
    pub drain_time: Duration,
    /// Cancelled when streams must end.
    pub cut: CancellationToken,
    /// Milliseconds since 1970.
    pub clock: fn() -> u64,
}

impl Shared {
    /// What one stream may have in flight: its share, and never too little to go on.
    fn share(&self) -> Window {
        let streams = u32::try_from(self.registry.streams()).unwrap_or(u32::MAX).max(1);
        let batches = (self.window.batches / streams).max(1);
        Window { batches, bytes: (self.window.bytes / u64::from(streams)).max(64 << 10) }
    }
}

/// The service.
#[derive(Clone)]
pub struct Service(Arc<Shared>);

impl Service {
    /// For streams that share this.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    fn authorize(&self, peer: Option<&Peer>) -> Result<(Identity, Peer), Status> {
        let Some(peer) = peer else { return Err(Status::internal("the connection is not known")) };
        let refuse = |reason: &'static str, text: String| {
            self.0.metrics.refused.add(reason, 1);
            limited!(warn, address = %peer.address, text, "A proxy is refused");
            Status::permission_denied(text)
        };
        let identity = peer.identity.clone().map_err(|error| refuse("identity", error.to_string()))?;
        if !self.0.allow.is_empty() && !self.0.allow.contains(identity.as_str()) {
            return Err(refuse("not_allowed", format!("{identity} is not on this collector's list")));
        }
        Ok((identity, peer.clone()))
    }
}

#[tonic::async_trait]
impl Forward for Service {
    type StreamStream = Answers;

    async fn stream(
        &self,
        request: tonic::Request<Streaming<ClientMessage>>,
    ) -> Result<Response<Answers>, Status> {
        let (identity, peer) = self.authorize(request.extensions().get::<Peer>())?;
        let shared = self.0.clone();
        let (answer, answers) = mpsc::channel(WAITING_ANSWERS);
        let limit = shared.streams_per_identity;
        let Some(member) = shared.registry.join(&identity, peer.address, limit, (shared.clock)()) else {
            shared.metrics.refused.add("streams", 1);
            limited!(warn, %identity, address = %peer.address, "This identity has too many streams");
            // There is room for one message in a new channel.
            let _ = answer.try_send(Ok(limit_reached(limit)));
            return Ok(Response::new(Answers { driver: None, answers }));
        };
        shared.metrics.streams.inc();
        limited!(info, %identity, address = %peer.address, "A proxy has connected");
        let driver = Driver::new(shared, identity, member, request.into_inner(), answer);
        Ok(Response::new(Answers { driver: Some(Box::pin(driver.run())), answers }))
    }
}

fn limit_reached(limit: usize) -> ServerMessage {
    let text = format!("this identity may have {limit} streams");
    let code = proto::error::Code::Limit.into();
    let error = proto::Error { code, text, ..proto::Error::default() };
    ServerMessage { message: Some(Message::Error(error)) }
}

/// The answers of one stream; polling them drives it.
pub struct Answers {
    driver: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    answers: mpsc::Receiver<Result<ServerMessage, Status>>,
}

impl Stream for Answers {
    type Item = Result<ServerMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            self.driver = None;
        }
        self.answers.poll_recv(cx)
    }
}

type Place = (OwnedSemaphorePermit, mpsc::OwnedPermit<Request>);
type Waiting = Pin<Box<dyn Future<Output = Option<Place>> + Send>>;

enum Event {
    Message(Result<Option<ClientMessage>, Status>),
    Outcome(Outcome),
    Place(Option<Place>),
    Drain,
    Time,
    Cut,
}

struct Driver {
    shared: Arc<Shared>,
    session: Session,
    watch: Watch,
    identity: Identity,
    member: Member,
    incoming: Streaming<ClientMessage>,
    answer: mpsc::Sender<Result<ServerMessage, Status>>,
    reply: mpsc::UnboundedSender<Outcome>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    health: watch::Receiver<Health>,
    /// Orders that wait for room; no message is read meanwhile.
    parked: VecDeque<Order>,
    waiting: Option<Waiting>,
    hello_by: Option<Instant>,
    drained: bool,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.metrics.streams.dec();
        limited!(info, identity = %self.identity, "A proxy's stream has ended");
    }
}

impl Driver {
    fn new(
        shared: Arc<Shared>,
        identity: Identity,
        member: Member,
        incoming: Streaming<ClientMessage>,
        answer: mpsc::Sender<Result<ServerMessage, Status>>,
    ) -> Self {
        let now = clock::now();
        let (reply, outcomes) = mpsc::unbounded_channel();
        let session = Session::new(shared.limits, shared.mark_store_id, now);
        let health = shared.health.clone();
        let hello_by = Some(now + HELLO_TIME);
        let (parked, waiting, drained) = (VecDeque::new(), None, false);
        Self {
            shared,
            session,
            watch: Watch::default(),
            identity,
            member,
            incoming,
            answer,
            reply,
            outcomes,
            health,
            parked,
            waiting,
            hello_by,
            drained,
        }
    }

    async fn run(mut self) {
        loop {
            let event = self.next().await;
            let actions = self.step(event);
            for action in actions {
                if !self.act(action).await {
                    return;
                }
            }
        }
    }

    async fn next(&mut self) -> Event {
        let deadline = self.session.deadline().into_iter().chain(self.hello_by).min();
        let reading = self.parked.is_empty() && !self.session.is_ending();
        if self.waiting.is_none() && !self.parked.is_empty() {
            self.waiting = self.parked.front().map(|order| wait_for_place(&self.shared, order));
        }
        tokio::select! {
            biased;
            () = self.shared.cut.cancelled() => Event::Cut,
            () = self.shared.drain.cancelled(), if !self.drained => Event::Drain,
            Some(outcome) = self.outcomes.recv() => Event::Outcome(outcome),
            place = wait(self.waiting.as_mut()) => Event::Place(place),
            message = self.incoming.message(), if reading => Event::Message(message),
            // The commit has gone when this fails, and the cut comes next.
            Ok(()) = self.health.changed() => Event::Time,
            () = sleep_until(deadline) => Event::Time,
        }
    }

    fn conditions(&self) -> Conditions {
        let stalled = self.health.borrow().stalled.is_some();
        Conditions { now: clock::now(), stalled, window: self.shared.share() }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let at = self.conditions();
        match event {
            Event::Message(Ok(Some(ClientMessage { message }))) => {
                if let Some(client_message::Message::Hello(hello)) = &message {
                    self.alarm(self.watch.hello(&hello.mark_store_id, &self.shared.mark_store_id));
                }
                self.session.on_message(message, &at)
            }
            Event::Message(Ok(None)) => self.session.on_end(&at),
            Event::Message(Err(status)) => {
                limited!(info, identity = %self.identity, reason = status.message(), "The stream broke");
                vec![Action::End]
            }
            Event::Outcome(outcome) => {
                let alarm = self.watch.answered(&outcome);
                self.alarm(alarm);
                self.session.on_outcome(outcome, &at)
            }
            Event::Place(Some((permit, place))) => {
                self.waiting = None;
                if let Some(order) = self.parked.pop_front() {
                    place.send(self.request(order, Some(permit)));
                }
                Vec::new()
            }
            Event::Place(None) | Event::Cut => vec![Action::End],
            Event::Drain => {
                self.drained = true;
                self.session.on_drain(self.shared.drain_time, &at)
            }
            Event::Time if self.hello_by.is_some_and(|by| at.now >= by) => vec![Action::End],
            Event::Time => {
                let mut actions = Vec::new();
                self.session.on_time(&at, &mut actions);
                actions
            }
        }
    }

    /// False when the stream is over.
    async fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Send(message) => self.send(message).await,
            Action::Submit(order) => {
                self.watch.submitted(&order);
                if matches!(order, Order::Lane { task: Task::Open { current: true, .. }, .. }) {
                    self.member.writes();
                }
                self.submit(order);
                true
            }
            Action::Greeted { instance, software } => {
                self.hello_by = None;
                limited!(info, identity = %self.identity, software, "A proxy says hello");
                self.member.greeted(instance, software);
                true
            }
            Action::Heartbeat { counters, oldest_unsent_age_ms } => {
                self.member.heartbeat(*counters, oldest_unsent_age_ms, (self.shared.clock)());
                if self.member.is_twin() { self.tell_twin().await } else { true }
            }
            Action::End => false,
        }
    }

    /// False when the stream is over.
    async fn send(&mut self, message: Message) -> bool {
        if let Message::Error(error) = &message {
            let (code, text) = (error.code().as_str_name(), &error.text);
            limited!(warn, identity = %self.identity, code, text, "An error is told to a proxy");
        }
        let cut = self.shared.cut.clone();
        tokio::select! {
            () = cut.cancelled() => false,
            sent = self.answer.send(Ok(ServerMessage { message: Some(message) })) => sent.is_ok(),
        }
    }

    fn alarm(&self, alarm: Option<Alarm>) {
        let Some(alarm) = alarm else { return };
        if matches!(alarm, Alarm::MarkWentBack { .. }) {
            self.shared.metrics.marks_went_back.inc();
        }
        limited!(error, identity = %self.identity, "{alarm}");
        self.member.alarm(alarm.to_string());
    }

    /// Two live processes write under one identity. False when the stream is over.
    async fn tell_twin(&mut self) -> bool {
        const TEXT: &str = "Two live processes write under one identity: a copied disk or a shared key";
        self.shared.metrics.twins.inc();
        let identity = &self.identity;
        limited!(error, %identity, "{TEXT}");
        self.member.alarm(TEXT.to_owned());
        let code = proto::error::Code::Twin.into();
        self.send(Message::Error(proto::Error { code, text: TEXT.to_owned(), ..proto::Error::default() }))
            .await
    }

    /// Hands the order on at once if there is room, else parks it.
    fn submit(&mut self, order: Order) {
        if self.parked.is_empty()
            && let Ok(permit) = self.shared.budget.clone().try_acquire_many_owned(cost(&order))
            && let Ok(place) = self.shared.orders.clone().try_reserve_owned()
        {
            place.send(self.request(order, Some(permit)));
        } else {
            self.parked.push_back(order);
        }
    }

    fn request(&self, order: Order, permit: Option<OwnedSemaphorePermit>) -> Request {
        Request { identity: self.identity.clone(), order, reply: self.reply.clone(), permit }
    }
}

fn cost(order: &Order) -> u32 {
    u32::try_from(order.bytes().max(MIN_COST)).unwrap_or(u32::MAX)
}

fn wait_for_place(shared: &Shared, order: &Order) -> Waiting {
    let (budget, orders, cost) = (shared.budget.clone(), shared.orders.clone(), cost(order));
    Box::pin(async move {
        let permit = budget.acquire_many_owned(cost).await.ok()?;
        let place = orders.reserve_owned().await.ok()?;
        Some((permit, place))
    })
}

async fn wait(waiting: Option<&mut Waiting>) -> Option<Place> {
    match waiting {
        Some(waiting) => waiting.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
