//! A part of the demo as a process of its own: started, killed, stopped in order, started again.

use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a part may take to end in order.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of its log, what is shown when it fails.
const SHOWN_BYTES: usize = 1_000;

/// How a process is started.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Its name in words: "the proxy".
    pub name: &'static str,
    /// The program.
    pub program: PathBuf,
    /// What it is told.
    pub arguments: Vec<OsString>,
    /// Where it writes what it has to say.
    pub log: PathBuf,
}

#[derive(Debug)]
enum State {
    Running(Child),
    /// It was asked to end, then; to be started so long after its end, if at all.
    Stopping {
        child: Child,
        asked: Instant,
        away: Option<Duration>,
    },
    /// To be started then; `None`: not any more.
    Gone(Option<Instant>),
}

/// The part.
#[derive(Debug)]
pub struct Part {
    recipe: Recipe,
    state: State,
}

impl Part {
    /// Starts it.
    ///
    /// # Errors
    /// When the system has no process for it.
    pub fn start(recipe: Recipe) -> io::Result<Self> {
        let child = spawn(&recipe)?;
        Ok(Self { recipe, state: State::Running(child) })
    }

    /// It runs and was not asked to end.
    pub fn is_at_work(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    /// There is a process.
    pub fn is_there(&self) -> bool {
        !matches!(self.state, State::Gone(_))
    }

    /// kill -9; it is started again after `away`. Its end is waited for.
    ///
    /// # Errors
    /// When the system does not do it.
    pub fn kill(&mut self, away: Duration, now: Instant) -> io::Result<()> {
        if let State::Running(child) | State::Stopping { child, .. } = &mut self.state {
            child.kill()?;
            child.wait()?;
            self.state = State::Gone(Some(now + away));
        }
        Ok(())
    }

    /// SIGTERM; it is started again `away` after its end, if at all.
    ///
    /// # Errors
    /// When the system does not do it.
    pub fn stop(&mut self, away: Option<Duration>, now: Instant) -> io::Result<()> {
        self.state = match std::mem::replace(&mut self.state, State::Gone(None)) {
            State::Running(child) => {
                let sent = kill_process(Pid::from_child(&child), Signal::TERM);
                self.state = State::Stopping { child, asked: now, away };
                return sent.map_err(io::Error::from);
            }
            State::Stopping { child, asked, .. } => State::Stopping { child, asked, away },
            State::Gone(_) => State::Gone(away.map(|away| now + away)),
        };
        Ok(())
    }

    /// Says something to it.
    pub fn tell(&mut self, line: &str) {
        if let State::Running(child) = &mut self.state
            && let Some(input) = &mut child.stdin
        {
            // If it has ended, that is seen elsewhere.
            let _ = writeln!(input, "{line}");
        }
    }

    /// Looks after it: notices its end, starts it again when it is time. True when it was started.
    ///
    /// # Errors
    /// In words: it has ended by itself, does not end, or cannot be started.
    pub fn tend(&mut self, now: Instant) -> Result<bool, String> {
        let name = self.recipe.name;
        match &mut self.state {
            State::Running(child) => {
                if let Some(status) = ended(child, name)? {
                    self.state = State::Gone(None);
                    return Err(format!("{name} has ended by itself ({status}): {}", self.last_words()));
                }
            }
            State::Stopping { child, asked, away } => match ended(child, name)? {
                // One that was about to start has no ear for SIGTERM yet, and ends by it.
                Some(status) if status.success() || status.signal() == Some(Signal::TERM.as_raw()) => {
                    self.state = State::Gone(away.map(|away| now + away));
                }
                Some(status) => {
                    self.state = State::Gone(None);
                    return Err(format!("{name} was stopped and failed ({status}): {}", self.last_words()));
                }
                None if now.saturating_duration_since(*asked) > PATIENCE => {
                    return Err(format!("{name} does not end: {}", self.last_words()));
                }
                None => {}
            },
            State::Gone(Some(at)) if now >= *at => {
                let child = spawn(&self.recipe).map_err(|error| format!("{name} does not start: {error}"))?;
                self.state = State::Running(child);
                return Ok(true);
            }
            State::Gone(_) => {}
        }
        Ok(false)
    }

    /// If there is no process, the next look after it starts one.
    pub fn start_again(&mut self, now: Instant) {
        if let State::Gone(at) = &mut self.state {
            *at = Some(now);
        }
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = std::fs::read(&self.recipe.log).unwrap_or_default();
        let end = log.get(log.len().saturating_sub(SHOWN_BYTES)..).unwrap_or_default();
        String::from_utf8_lossy(end).into_owned()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let State::Running(child) | State::Stopping { child, .. } = &mut self.state {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

fn ended(child: &mut Child, name: &str) -> Result<Option<ExitStatus>, String> {
    child.try_wait().map_err(|error| format!("{name} cannot be waited for: {error}"))
}

/// In a process group of its own: Ctrl-C is for the demo, which ends its parts in order.
fn spawn(recipe: &Recipe) -> io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(&recipe.log)?;
    let mut command = Command::new(&recipe.program);
    command.args(&recipe.arguments).process_group(0);
    command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).spawn()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn start(dir: &Path, script: &str) -> Part {
        let arguments = ["-c".into(), script.into()].into();
        let recipe = Recipe { name: "the part", program: "sh".into(), arguments, log: dir.join("log") };
        Part::start(recipe).unwrap()
    }

    /// Looks after it until something happens.
    fn tend(part: &mut Part, now: Instant, until: impl Fn(&Part) -> bool) -> Result<(), String> {
        while !until(part) {
            part.tend(now)?;
            std::thread::yield_now();
        }
        Ok(())
    }

    #[test]
    fn killed_it_comes_back_when_it_is_time() {
        let (dir, now) = (tempfile::tempdir().unwrap(), Instant::now());
        let mut part = start(dir.path(), "read line");
        part.kill(Duration::from_secs(1), now).unwrap();
        assert_eq!((part.is_there(), part.tend(now)), (false, Ok(false)));
        assert_eq!(part.tend(now + Duration::from_secs(1)), Ok(true));
        assert!(part.is_at_work());
    }

    #[test]
    fn stopped_it_may_stay_away() {
        let (dir, now) = (tempfile::tempdir().unwrap(), Instant::now());
        let mut part = start(dir.path(), "trap 'exit 0' TERM; echo ready; while :; do read line; done");
        let log = dir.path().join("log");
        tend(&mut part, now, |_| std::fs::read_to_string(&log).unwrap() == "ready\n").unwrap();
        part.stop(Some(Duration::ZERO), now).unwrap();
        assert!(part.is_there() && !part.is_at_work());
        part.stop(None, now).unwrap();
        part.tell("nobody listens any more");
        tend(&mut part, now, |part| !part.is_there()).unwrap();
        assert_eq!(part.tend(now + PATIENCE), Ok(false));
        part.start_again(now);
        assert_eq!(part.tend(now), Ok(true));
    }

    #[test]
    fn stopped_before_it_listens_it_comes_back() {
        let (dir, now) = (tempfile::tempdir().unwrap(), Instant::now());
        let mut part = start(dir.path(), "read line");
        part.stop(Some(Duration::ZERO), now).unwrap();
        tend(&mut part, now, Part::is_at_work).unwrap();
    }

    #[test]
    fn its_own_end_is_told_with_its_last_words() {
        let (dir, now) = (tempfile::tempdir().unwrap(), Instant::now());
        let mut part = start(dir.path(), "read line; echo out of $line; exit 3");
        part.tell("luck");
        let trouble = tend(&mut part, now, |_| false).unwrap_err();
        assert!(trouble.starts_with("the part has ended by itself (exit status: 3)"), "{trouble}");
        assert!(trouble.ends_with("out of luck\n"), "{trouble}");
    }
}
