//! The collector: everything of it but its threads, on a disk and a mark store in memory.

use super::keys::keys;
use super::machine::Listener;
use super::notes::{Notes, now_ms};
use crate::collector::assembly::{Assembled, Kit, Turns};
use crate::collector::commit::Request;
use crate::collector::session::{Answer, Outcome, Task};
use crate::collector::{Health, Limits};
use crate::simulation::oracle::Lane;
use crate::simulation::store::{Death, Store};
use crate::simulation::{clock, far, witness};
use crate::storage::memory::{Cut, Memory};
use arc_swap::ArcSwap;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The longest that a commit takes.
const LONGEST_COMMIT_MS: u64 = 40;
/// How long streams may go on once it stops.
const DRAIN_TIME: Duration = Duration::from_secs(3);
/// Small, so that it limits something.
const LIMITS: fn() -> Limits = || Limits { window_batches: 24, window_bytes: 128 << 10, ..Limits::default() };

/// An order that is on its way through the commit.
#[derive(Debug)]
struct Given {
    lane: Lane,
    task: Task,
    outcome: UnboundedReceiver<Outcome>,
    reply: UnboundedSender<Outcome>,
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    given: VecDeque<Given>,
    stop: CancellationToken,
    /// The next commit takes that much longer.
    stall: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Collector {
    disk: Arc<Memory>,
    store: Store,
    notes: Arc<Notes>,
    state: Mutex<State>,
}

impl Collector {
    /// One that does not run.
    pub fn new(seed: u64, notes: Arc<Notes>) -> Self {
        let (rng, stop) = (StdRng::seed_from_u64(seed), CancellationToken::new());
        let state = State { rng, given: VecDeque::new(), stop, stall: Duration::ZERO };
        Self { disk: Arc::default(), store: Store::default(), notes, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process, from its start to its end in order.
    pub async fn live(self: Arc<Self>) -> turmoil::Result {
        self.disk.kill();
        self.store.reopen();
        let (stop, alone) = (CancellationToken::new(), CancellationToken::new());
        {
            let mut state = self.state();
            (state.stop, state.stall) = (stop.clone(), Duration::ZERO);
            state.given.clear();
        }
        let dies = self.store.clone();
        let patience = Box::new(move || !dies.is_dead());
        let (health, _) = watch::channel(Health::default());
        let parts = far::open(&self.disk, &self.store, clock, health, patience).expect("the disk works");
        let kit = Kit {
            listener: Listener::bind().await?,
            tls: Arc::new(ArcSwap::new(keys().server.clone())),
            allow: BTreeSet::new(),
            limits: LIMITS(),
            drain_time: DRAIN_TIME,
            parts,
            stop,
            alone,
        };
        let Assembled { door, service, mut turns, supervisor } = kit.assemble();
        let (seen, requests) = mpsc::channel(1024);
        let orders = std::mem::replace(&mut turns.requests, requests);
        let (done, ended) = oneshot::channel();
        let commit = async {
            self.commit(turns).await;
            let _ = done.send(());
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = supervisor.run(door, service, async { ended.await.is_ok() }) => {}
            () = self.see(orders, seen) => {}
            () = commit => {}
        }
        Ok(())
    }

    /// Looks at orders before the commit gets them.
    async fn see(&self, mut orders: mpsc::Receiver<Request>, seen: mpsc::Sender<Request>) {
        while let Some(mut request) = orders.recv().await {
            if let Some((lane, task)) = witness::task(&request.order) {
                let (answers, outcome) = mpsc::unbounded_channel();
                let reply = std::mem::replace(&mut request.reply, answers);
                self.state().given.push_back(Given { lane, task, outcome, reply });
            }
            if seen.send(request).await.is_err() {
                break;
            }
        }
        std::future::pending().await
    }

    /// The commit's thread.
    async fn commit(&self, mut turns: Turns) {
        loop {
            let next = turns.next().await;
            let delay = {
                let mut state = self.state();
                let ms = state.rng.random_range(0..LONGEST_COMMIT_MS);
                std::mem::take(&mut state.stall) + Duration::from_millis(ms)
            };
            sleep(delay).await;
            let goes_on = turns.work(next);
            self.pass_answers_on();
            if self.store.is_dead() {
                let tasks: Vec<(Lane, Task)> =
                    self.state().given.iter().map(|given| (given.lane, given.task.clone())).collect();
                witness::find_out(&self.store, &tasks, &mut self.notes.oracle());
                // The world finds it dead at the end of this step.
                std::future::pending::<()>().await;
            }
            if !goes_on {
                return;
            }
        }
    }

    /// Answers are acks soon: what they say must be so.
    fn pass_answers_on(&self) {
        let mut oracle = self.notes.oracle();
        let mut marks = BTreeMap::new();
        let mut state = self.state();
        while let Some(given) = state.given.front_mut() {
            let Ok(outcome) = given.outcome.try_recv() else { break };
            witness::note(&mut oracle, given.lane, &given.task, &outcome.result);
            if let Answer::Marked { mark, .. } | Answer::Opened { mark, .. } = &outcome.result {
                self.notes.trace(now_ms(), (given.lane, mark.committed_seq));
                marks.insert(given.lane, mark.committed_seq);
            }
            // Its stream may be gone.
            let _ = given.reply.send(outcome);
            state.given.pop_front();
        }
        for (lane, mark) in marks {
            oracle.acked(lane, mark, &self.disk);
        }
    }

    /// It is to stop in order.
    pub fn stop(&self) {
        self.state().stop.cancel();
    }

    /// The next commit takes that long.
    pub fn stall(&self, time: Duration) {
        self.state().stall = time;
    }

    /// It is to die with its next change.
    pub fn die(&self, death: Death) {
        self.store.die(death);
    }

    /// It has died of a change.
    pub fn is_dead(&self) -> bool {
        self.store.is_dead()
    }

    /// The power went.
    pub fn cut(&self, cut: Cut) {
        let mut state = self.state();
        self.disk.cut(cut, &mut state.rng);
        self.notes.oracle().forget_seen();
    }

    /// What is on its disk.
    pub fn disk(&self) -> &Memory {
        &self.disk
    }
}
