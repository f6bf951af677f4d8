//! The collector: the real sessions and the real commit, on a disk and a mark store in memory.

use super::link::Link;
use super::oracle::{Lane, Oracle};
use super::store::Store;
use super::witness;
use crate::collector::commit::{Commit, Parts, Request};
use crate::collector::deaths::Deaths;
use crate::collector::registry::Registry;
use crate::collector::session::{Action, Conditions, Limits, Outcome, Session, Task};
use crate::collector::sinks::jsonl;
use crate::collector::trial::Verdict;
use crate::collector::{Health, Metrics};
use crate::proto::client_message::Message as Client;
use crate::proto::server_message::Message;
use crate::proto::{ClientMessage, Window};
use crate::storage::Storage;
use crate::storage::memory::Memory;
use crate::tls::Identity;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::watch;

/// Files are full early.
const FILE_BYTES: u64 = 6_000;
/// A session that hears of a broken step may be tried again so often.
const TRIES: u32 = 3;

#[derive(Debug)]
struct Stream {
    session: Session,
    identity: Identity,
    /// What the commit answered and the session was not told yet.
    outcomes: VecDeque<Outcome>,
    /// The lanes' names by their numbers on this connection.
    lanes: BTreeMap<u32, Lane>,
}

/// An order on its way through the commit.
struct Given {
    link: u64,
    /// `None`: it is not answered.
    task: Option<(Lane, Task)>,
    request: Request,
    outcome: UnboundedReceiver<Outcome>,
}

struct Life {
    commit: Commit,
    streams: BTreeMap<u64, Stream>,
    orders: VecDeque<Given>,
    // Kept: the commit tells it how it stands.
    health: watch::Receiver<Health>,
}

/// See the module.
pub struct Far {
    /// Its disk.
    pub disk: Arc<Memory>,
    /// Its marks.
    pub store: Store,
    life: Option<Life>,
}

fn limits() -> Limits {
    Limits { lanes: 64, payload_bytes: 1 << 20, plain_bytes: 1 << 20 }
}

/// What the commit works with, on this disk and store; `None` when they do not let it.
pub fn open(
    disk: &Arc<Memory>,
    store: &Store,
    clock: fn() -> u64,
    health: watch::Sender<Health>,
    patience: Box<dyn FnMut() -> bool + Send>,
) -> Option<Parts> {
    let mut store = store.clone();
    disk.create_dir(Path::new("/far/state"), 0o700).ok()?;
    let deaths = Deaths::open(disk.as_ref(), Path::new("/far/state"), &mut store).ok()?;
    let settings = jsonl::Settings { max_bytes: FILE_BYTES, ..jsonl::Settings::new("/far/out/flows.jsonl") };
    let file = jsonl::recover(disk.clone(), settings, &mut store, clock()).ok()?;
    Some(Parts {
        store: Box::new(store),
        file: Some(file),
        sinks: Vec::new(),
        deaths,
        trial: Box::new(|_, _, _| Verdict::Lives),
        lanes_per_identity: 1000,
        metrics: Metrics::new(),
        registry: Registry::default(),
        health,
        clock,
        patience,
    })
}

impl Far {
    /// A collector that does not run.
    pub fn new(disk: Memory, store: Store) -> Self {
        Self { disk: Arc::new(disk), store, life: None }
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// The process starts; false when it dies of it.
    pub fn start(&mut self, clock: fn() -> u64) -> bool {
        self.store.reopen();
        let (told, health) = watch::channel(Health::default());
        let (dies, disk) = (self.store.clone(), self.disk.clone());
        let mut tries = 0;
        let patience = Box::new(move || {
            tries += 1;
            if tries % TRIES == 0 {
                disk.fail(|faults| (faults.failing_syncs, faults.failing_writes) = (0, 0));
            }
            !dies.is_dead()
        });
        let Some(parts) = open(&self.disk, &self.store, clock, told, patience) else { return false };
        let commit = Commit::new(parts);
        self.life = Some(Life { commit, streams: BTreeMap::new(), orders: VecDeque::new(), health });
        true
    }

    /// The process is gone.
    pub fn die(&mut self) {
        self.life = None;
    }

    /// A proxy has connected.
    pub fn accept(&mut self, link: u64, identity: Identity, now: Instant) {
        let Some(life) = &mut self.life else { return };
        let session = Session::new(limits(), [7; 16], now);
        let (outcomes, lanes) = (VecDeque::new(), BTreeMap::new());
        life.streams.insert(link, Stream { session, identity, outcomes, lanes });
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, link: u64) {
        if let Some(life) = &mut self.life {
            life.streams.remove(&link);
        }
    }

    /// A message came; `None` when the proxy will send no more.
    pub fn hear(&mut self, link: &mut Link, message: Option<ClientMessage>, at: Instant) -> Vec<Message> {
        let Some(life) = &mut self.life else { return Vec::new() };
        let conditions = life.conditions(at);
        let Some(stream) = life.streams.get_mut(&link.number) else { return Vec::new() };
        let actions = match message {
            Some(message) => {
                if let Some(Client::Open(open)) = &message.message {
                    stream.lanes.insert(open.lane, open.lane_id.as_ref().try_into().unwrap());
                }
                stream.session.on_message(message.message, &conditions)
            }
            None => stream.session.on_end(&conditions),
        };
        life.act(link, actions)
    }

    /// Time passes.
    pub fn tick(&mut self, link: &mut Link, at: Instant) -> Vec<Message> {
        let Some(life) = &mut self.life else { return Vec::new() };
        let conditions = life.conditions(at);
        let Some(stream) = life.streams.get_mut(&link.number) else { return Vec::new() };
        let mut actions = Vec::new();
        stream.session.on_time(&conditions, &mut actions);
        life.act(link, actions)
    }

    /// Commits up to `most` of the orders at hand as one group. False when the process died of it.
    pub fn commit(&mut self, most: usize, oracle: &mut Oracle) -> bool {
        let Some(life) = &mut self.life else { return true };
        let count = most.min(life.orders.len());
        let (mut requests, mut waiting) = (VecDeque::new(), VecDeque::new());
        for given in life.orders.drain(..count) {
            requests.push_back(given.request);
            waiting.push_back((given.link, given.task, given.outcome));
        }
        let Some(first) = requests.pop_front() else { return life.commit.idle().is_ok() };
        let done = life.commit.group(first, || requests.pop_front()).is_ok();
        // A group that is full leaves some for the next one.
        while let Some(request) = requests.pop_back() {
            let (link, task, outcome) = waiting.pop_back().expect("one for each request");
            life.orders.push_front(Given { link, task, request, outcome });
        }
        let tasks: Vec<(Lane, Task)> = waiting.iter().filter_map(|(_, task, _)| task.clone()).collect();
        if !done {
            witness::find_out(&self.store, &tasks, oracle);
            return false;
        }
        for (link, task, mut outcome) in waiting {
            let (Some((lane, task)), Ok(outcome)) = (task, outcome.try_recv()) else { continue };
            witness::note(oracle, lane, &task, &outcome.result);
            if let Some(stream) = life.streams.get_mut(&link) {
                stream.outcomes.push_back(outcome);
            }
        }
        true
    }

    /// What the commit answered, on one link, is told to its session.
    pub fn answer(&mut self, link: &mut Link, at: Instant) -> Vec<Message> {
        let Some(life) = &mut self.life else { return Vec::new() };
        let conditions = life.conditions(at);
        let mut messages = Vec::new();
        loop {
            let Some(stream) = life.streams.get_mut(&link.number) else { return messages };
            let Some(outcome) = stream.outcomes.pop_front() else { return messages };
            let actions = stream.session.on_outcome(outcome, &conditions);
            messages.extend(life.act(link, actions));
        }
    }

    /// What the collector says must be so: to be asked before it is sent.
    pub fn check(&self, link: u64, message: &Message, oracle: &Oracle) {
        let (lane, mark) = match message {
            Message::Ack(ack) => (ack.lane, ack.committed_seq),
            Message::Opened(opened) => (opened.lane, opened.committed_seq),
            _ => return,
        };
        let stream = self.life.as_ref().and_then(|life| life.streams.get(&link));
        if let Some(lane) = stream.and_then(|stream| stream.lanes.get(&lane)) {
            oracle.acked(*lane, mark, &self.disk);
        }
    }
}

impl Life {
    fn conditions(&self, now: Instant) -> Conditions {
        let stalled = self.health.borrow().stalled.is_some();
        Conditions { now, stalled, window: Window { batches: 16, bytes: 16 << 10 } }
    }

    fn act(&mut self, link: &mut Link, actions: Vec<Action>) -> Vec<Message> {
        let mut messages = Vec::new();
        for action in actions {
            match action {
                Action::Send(message) => messages.push(message),
                Action::Submit(order) => {
                    let Some(stream) = self.streams.get(&link.number) else { continue };
                    let (reply, outcome) = mpsc::unbounded_channel();
                    let task = witness::task(&order);
                    let request = Request { identity: stream.identity.clone(), order, reply, permit: None };
                    self.orders.push_back(Given { link: link.number, task, request, outcome });
                }
                Action::Greeted { .. } | Action::Heartbeat { .. } => {}
                Action::End => {
                    self.streams.remove(&link.number);
                    link.far_done = true;
                }
            }
        }
        messages
    }
}
