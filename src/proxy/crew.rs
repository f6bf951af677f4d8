//! The threads and tasks of a proxy, each of which tells its end, however it comes.

use std::io;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// All that run, and how many of them are threads.
#[derive(Debug)]
pub(super) struct Crew {
    told: mpsc::UnboundedSender<String>,
    pub(super) threads: usize,
    pub(super) tasks: JoinSet<()>,
}

impl Crew {
    /// Nobody yet, and where the names of those come out that have ended.
    pub(super) fn new() -> (Crew, mpsc::UnboundedReceiver<String>) {
        let (told, ended) = mpsc::unbounded_channel();
        (Crew { told, threads: 0, tasks: JoinSet::new() }, ended)
    }

    fn ending(&self, name: &str) -> Ending {
        Ending { name: name.to_owned(), told: self.told.clone() }
    }

    /// Starts a thread of this name.
    ///
    /// # Errors
    /// The system gives none.
    pub(super) fn thread(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let ending = self.ending(name);
        let body = move || {
            let _ending = ending;
            work();
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
        self.threads += 1;
        Ok(())
    }

    /// Starts a task of this name.
    pub(super) fn task(&mut self, name: &str, work: impl Future<Output = ()> + Send + 'static) {
        let ending = self.ending(name);
        self.tasks.spawn(async move {
            let _ending = ending;
            work.await;
        });
    }
}

/// Tells that a thread or task has ended.
struct Ending {
    name: String,
    told: mpsc::UnboundedSender<String>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Nobody listens any more once the proxy has been stopped.
        let _ = self.told.send(std::mem::take(&mut self.name));
    }
}
