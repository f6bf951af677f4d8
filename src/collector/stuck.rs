//! Notices that the commit does not come back: a disk that stalls gives no error. It is told as a failure is,
//! so that readiness fails and proxies are given no window, until the commit comes back.

use super::commit::Health;
use super::metrics::Metrics;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A commit that takes longer is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often that is looked for.
const TICK: Duration = Duration::from_secs(1);
/// What is told.
const TEXT: &str = "store or sinks have not answered for 5 s";

/// The commit under watch. Cheap to clone; clones are one.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    begun: Arc<Mutex<Option<Instant>>>,
    health: watch::Sender<Health>,
    metrics: Metrics,
}

impl Watched {
    /// Nothing is under way.
    pub(super) fn new(health: watch::Sender<Health>, metrics: Metrics) -> Self {
        Self { begun: Arc::default(), health, metrics }
    }

    fn begun(&self) -> MutexGuard<'_, Option<Instant>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a part of the commit's work under watch.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        *self.begun() = Some(Instant::now());
        let done = work();
        *self.begun() = None;
        self.health.send_if_modified(|health| {
            let told = health.stalled.as_deref() == Some(TEXT);
            if told {
                health.stalled = None;
                self.metrics.stalled.set(0);
                tracing::info!("Store and sinks answer again");
            }
            told
        });
        done
    }

    /// Watches until `end` is cancelled.
    pub(super) async fn run(self, end: CancellationToken) {
        while tokio::time::timeout(TICK, end.cancelled()).await.is_err() {
            self.look(Instant::now());
        }
    }

    fn look(&self, now: Instant) {
        // Held until it is told, so that it is not told of what has just come back.
        let begun = self.begun();
        if begun.is_none_or(|begun| now.saturating_duration_since(begun) < PATIENCE) {
            return;
        }
        self.health.send_if_modified(|health| {
            let news = health.stalled.is_none();
            if news {
                health.stalled = Some(TEXT.to_owned());
                self.metrics.stalled.set(1);
                tracing::error!("Nothing can be committed: {TEXT}");
            }
            news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_back_is_told_until_it_does() {
        let (sender, health) = watch::channel(Health::default());
        let watched = Watched::new(sender, Metrics::new());
        let later = || Instant::now() + PATIENCE;
        watched.look(later());
        assert_eq!(health.borrow().stalled, None);
        watched.during(|| {
            watched.look(Instant::now());
            assert_eq!(health.borrow().stalled, None);
            watched.look(later());
            assert_eq!(health.borrow().stalled.as_deref(), Some(TEXT));
            assert_eq!(watched.metrics.stalled.get(), 1);
        });
        assert_eq!(health.borrow().stalled, None);
        assert_eq!(watched.metrics.stalled.get(), 0);
    }

    #[test]
    fn a_failure_that_is_told_stays() {
        let failed = Health { stalled: Some("disk full".to_owned()) };
        let (sender, health) = watch::channel(failed.clone());
        let watched = Watched::new(sender, Metrics::new());
        watched.during(|| watched.look(Instant::now() + PATIENCE));
        assert_eq!(*health.borrow(), failed);
    }
}
