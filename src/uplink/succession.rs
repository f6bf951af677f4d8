//! One connection after the other, and the moment in which there are two.
//!
//! A connection that is old, that its collector asks to end or that is no longer configured gets a successor
//! before it goes: the new one is made and welcomed while the old one still sends; then the old one sends
//! nothing new and hears its last acks; then the new one opens the lanes, which begin after all that is acked.
//!
//! | if | then |
//! |---|---|
//! | the successor cannot be made | the old connection goes on, a later attempt follows; when it has been asked to end, there is none |
//! | the old connection breaks meanwhile | it is the successor's turn at once, without waiting |
//! | the old collector does not ack in time | it is left all the same: what was in flight goes again, and the mark lets each batch pass once |
//! | the collector refuses three batches in a row | the successor is dropped too: the wait holds for both |

use super::backoff::Backoff;
use super::drive::{Drive, Ended};
use super::link::State;
use super::{Live, REFUSED_WAIT, Uplink, WORKED_AFTER, connect};
use crate::clock;
use http::Uri;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a connection and whoever keeps it tell each other; each is said once.
#[derive(Clone, Debug, Default)]
pub(super) struct Signals {
    /// The connection has reached its age.
    pub(super) is_old: CancellationToken,
    /// It cannot stay: asked to end by the collector, or no longer configured.
    pub(super) is_leaving: CancellationToken,
    /// A collector with our marks has welcomed it.
    pub(super) is_welcome: CancellationToken,
    /// Nobody sends before it any more: it may open lanes.
    pub(super) turn: CancellationToken,
    /// Its successor waits: send nothing new, hear the last acks, go.
    pub(super) leave: CancellationToken,
}

impl Signals {
    async fn wants_successor(&self) {
        tokio::select! {
            () = self.is_old.cancelled() => {}
            () = self.is_leaving.cancelled() => {}
        }
    }
}

/// A connection, from its making to its end.
struct Attempt<'a> {
    endpoint: Uri,
    signals: Signals,
    course: Pin<Box<dyn Future<Output = Ended> + Send + 'a>>,
}

impl Uplink {
    /// Connects again and again until `stop`, and then until all is delivered or the last attempt has failed.
    pub(super) async fn keep_connected(&self, stop: &CancellationToken) {
        let (mut turn, mut successor) = (0, None);
        loop {
            let last = stop.is_cancelled();
            let first = match successor.take() {
                Some(successor) => Some(successor),
                None => self.first_attempt(turn, stop),
            };
            let Some(mut first) = first else { return };
            first.signals.turn.cancel();
            let (ended, next) = self.to_its_end(&mut first, &mut turn, stop).await;
            if next.is_none() {
                self.parts.metrics.connected.set(0);
            }
            let wait = match ended {
                Ended::Finished => return,
                Ended::Left if next.is_some() => Duration::ZERO,
                Ended::Left => self.memory().backoff.failed(self.machine.chance()),
                Ended::Failed(reason) => self.failed(&first.endpoint, reason),
                Ended::Refused(reason) => {
                    self.alarm(&reason);
                    self.failed(&first.endpoint, reason).max(REFUSED_WAIT)
                }
            };
            successor = next.filter(|_| wait < REFUSED_WAIT);
            if successor.is_some() {
                continue;
            }
            turn += 1;
            if last || (stop.is_cancelled() && self.is_delivered()) {
                return;
            }
            tracing::debug!(?wait, "Next attempt");
            tokio::select! {
                biased;
                () = stop.cancelled() => if self.is_delivered() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Drives a connection to its end, and beside it the making of its successor, which is given back.
    async fn to_its_end<'a>(
        &'a self,
        first: &mut Attempt<'a>,
        turn: &mut usize,
        stop: &'a CancellationToken,
    ) -> (Ended, Option<Attempt<'a>>) {
        let mut next: Option<Attempt<'a>> = None;
        let mut backoff = Backoff::default();
        let (mut pause, mut gives_up) = (None, false);
        loop {
            let may_try = next.is_none() && pause.is_none() && !gives_up && !stop.is_cancelled();
            let is_welcome = next.as_ref().map(|next| next.signals.is_welcome.clone());
            tokio::select! {
                biased;
                ended = &mut first.course => return (ended, next),
                () = first.signals.wants_successor(), if may_try => {
                    next = self.successor(first, turn, backoff.failures() == 0, stop);
                    gives_up = next.is_none();
                }
                () = cancelled(is_welcome.as_ref()), if !first.signals.leave.is_cancelled() => {
                    tracing::info!("The next connection is there; this one goes when its last acks have come");
                    first.signals.leave.cancel();
                }
                ended = course(next.as_mut()) => {
                    let wait = backoff.failed(self.machine.chance());
                    tracing::warn!(?wait, ?ended, "The next connection cannot be made yet; this one goes on");
                    (next, pause) = (None, Some(wait));
                }
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => pause = None,
            }
        }
    }

    /// The attempt that follows `old`. An old connection goes back to the first endpoint of the list; one that
    /// its collector ends goes to the next, and has none when that is the same.
    fn successor<'a>(
        &'a self,
        old: &Attempt<'a>,
        turn: &mut usize,
        is_first_try: bool,
        stop: &'a CancellationToken,
    ) -> Option<Attempt<'a>> {
        let is_leaving = old.signals.is_leaving.is_cancelled();
        *turn = if is_leaving || !is_first_try { *turn + 1 } else { 0 };
        let next = self.attempt(*turn, stop)?;
        (!is_leaving || next.endpoint != old.endpoint).then_some(next)
    }

    fn first_attempt<'a>(&'a self, turn: usize, stop: &'a CancellationToken) -> Option<Attempt<'a>> {
        let attempt = self.attempt(turn, stop)?;
        self.parts.link.send_modify(|link| {
            link.turn(State::Connecting);
            link.endpoint = attempt.endpoint.to_string();
        });
        Some(attempt)
    }

    /// `None` if there is no endpoint at all.
    fn attempt<'a>(&'a self, turn: usize, stop: &'a CancellationToken) -> Option<Attempt<'a>> {
        let live = self.parts.live.load_full();
        let endpoint = live.endpoints.get(turn.checked_rem(live.endpoints.len())?)?.clone();
        let signals = Signals::default();
        let course = Box::pin(self.course(endpoint.clone(), live, signals.clone(), stop));
        Some(Attempt { endpoint, signals, course })
    }

    async fn course(
        &self,
        endpoint: Uri,
        live: Arc<Live>,
        signals: Signals,
        stop: &CancellationToken,
    ) -> Ended {
        let (machine, traffic) = (self.machine.as_ref(), &self.parts.metrics.traffic);
        match connect::connect(machine, &endpoint, live.tls.clone(), traffic).await {
            Err(error) => Ended::Failed(error.to_string()),
            Ok(connection) => {
                let begun = clock::now();
                let ended = Drive::run(self, connection, &endpoint, &signals, stop).await;
                if clock::now().duration_since(begun) >= WORKED_AFTER {
                    self.memory().backoff.worked();
                }
                ended
            }
        }
    }

    fn failed(&self, endpoint: &Uri, reason: String) -> Duration {
        let (wait, failures) = {
            let backoff = &mut self.memory().backoff;
            (backoff.failed(self.machine.chance()), backoff.failures())
        };
        self.parts.metrics.failures.inc();
        tracing::warn!(%endpoint, failures, "No link: {reason}");
        self.parts.link.send_modify(|link| {
            link.turn(State::BackingOff);
            link.last_error = Some(reason);
        });
        wait
    }
}

async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// Drives the successor, if there is one.
async fn course(next: Option<&mut Attempt<'_>>) -> Ended {
    match next {
        Some(next) => (&mut next.course).await,
        None => std::future::pending().await,
    }
}
