//! `flowproxy demo`: all three ends in one process, with nothing to set up; with `--chaos` in three, of which two die.

use super::signals::{Signals, Wish};
use super::{Failure, collect, logging, run};
use crate::demo::chaos::{self, Chaos, inside};
use crate::demo::summary::Summary;
use crate::demo::{self, Options, Show};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Unless told otherwise only what is wrong is logged: the table or the lines say the rest. That no router
/// reaches the demo is not wrong.
const LOG: &str = "warn,flowproxy::proxy=error";
/// How long what hangs may hold up the process's end.
const LAST_MOMENTS: Duration = Duration::from_secs(1);

/// What to show.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Arguments {
    /// End after so many seconds; without it Ctrl-C does
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Flow records a second
    #[arg(long, value_name = "R", default_value_t = demo::DEFAULT_RATE, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Print the outcome as one line of JSON
    #[arg(long)]
    json: bool,
    /// Kill, stop, cut and stall proxy, collector and link at random; exit code 0 only if nothing is lost that was in
    /// the spool, and nothing comes twice
    #[arg(long)]
    chaos: bool,
    /// The course of the faults; any if it is not given
    #[arg(long, value_name = "N", requires = "chaos")]
    seed: Option<u64>,
}

/// What a part of the demo is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Proxy,
    Collector,
}

/// A part of the demo.
#[derive(Clone, Debug, clap::Args)]
pub struct PartArguments {
    role: Role,
    config: PathBuf,
}

/// Runs a proxy or a collector as `run` and `collect` do, for a demo that is at the other end of stdin.
pub fn part(part: &PartArguments, flags: &logging::Flags) -> Result<(), Failure> {
    let gate = inside::listen().map_err(Failure::other)?;
    match part.role {
        Role::Proxy => run::run(&part.config, flags),
        Role::Collector => collect::collect(&part.config, flags, vec![Box::new(gate)]),
    }
}

/// Runs it and prints what came of it.
pub fn demo(arguments: Arguments, flags: &logging::Flags) -> Result<(), Failure> {
    logging::start(flags, LOG)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::other)?;
    let result = runtime.block_on(until_stopped(arguments));
    runtime.shutdown_timeout(LAST_MOMENTS);
    result
}

async fn until_stopped(arguments: Arguments) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    let options = Options {
        length: arguments.seconds.map(Duration::from_secs),
        rate: arguments.rate,
        // With --json stdout is for the one line.
        show: if arguments.json { Show::Lines } else { Show::Table },
    };
    let stop = CancellationToken::new();
    let running = play(&options, arguments, stop.clone());
    tokio::pin!(running);
    let summary = loop {
        tokio::select! {
            ended = &mut running => break ended?,
            wish = signals.next() => match wish {
                Wish::Reload => {}
                Wish::Stop if stop.is_cancelled() => {
                    return Err(Failure::Other("ended at once by a second signal".to_owned()));
                }
                Wish::Stop => stop.cancel(),
            },
        }
    };
    if arguments.json {
        println!("{}", summary.json());
    } else {
        println!("{summary}");
    }
    if summary.is_whole() {
        return Ok(());
    }
    let kept = summary.chaos.and_then(|outcome| outcome.kept);
    let kept = kept.map_or_else(String::new, |dir| format!("; its files are in {}", dir.display()));
    Err(Failure::Other(format!("the demo has failed{kept}")))
}

async fn play(options: &Options, arguments: Arguments, stop: CancellationToken) -> Result<Summary, Failure> {
    if !arguments.chaos {
        return demo::run(options, stop).await.map_err(Failure::other);
    }
    let program = std::env::current_exe().map_err(Failure::other)?;
    // Short enough to be typed.
    let seed = arguments.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    chaos::run(options, &Chaos { seed, program }, stop).await.map_err(Failure::other)
}
