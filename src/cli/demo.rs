//! `flowproxy demo`: all three ends in one process, with nothing to set up.

use super::signals::{Signals, Wish};
use super::{Failure, logging};
use crate::demo::{self, Options, Show};
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
    let running = demo::run(&options, stop.clone());
    tokio::pin!(running);
    let summary = loop {
        tokio::select! {
            ended = &mut running => break ended.map_err(Failure::other)?,
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
    if summary.is_whole() { Ok(()) } else { Err(Failure::Other("the demo has failed".to_owned())) }
}
