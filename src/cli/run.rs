//! `flowproxy run`: the proxy, until a signal ends it.

use super::signals::{Signals, Wish};
use super::{Failure, check, logging, panics};
use crate::{config, proxy};
use std::path::Path;

/// Runs it.
pub fn run(file: &Path, flags: &logging::Flags) -> Result<(), Failure> {
    let refused = |faults| check::all_of(file, Failure::config(file, config::Role::Proxy, faults));
    let config = config::proxy(file).map_err(refused)?;
    let log = logging::start(flags, &config.log.filter)?;
    panics::log();
    // What is not done by the shards' and the writer's own threads is little: one thread carries it.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::other)?;
    let result = runtime.block_on(until_stopped(file, config, &log));
    runtime.shutdown_background();
    result
}

async fn until_stopped(file: &Path, config: config::Proxy, log: &logging::Log) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    let mut running = proxy::start(config).await.map_err(|error| check::all_of(file, error.into()))?;
    loop {
        tokio::select! {
            wish = signals.next() => match wish {
                Wish::Stop => break,
                Wish::Reload => {
                    if running.reload(config::proxy(file)) {
                        log.set(&running.config().log.filter);
                    }
                }
            },
            what = running.failed() => return Err(Failure::Other(what)),
        }
    }
    tokio::select! {
        () = running.stop() => Ok(()),
        () = signals.another_stop() => Err(Failure::Other(
            "ended at once by a second signal; what was not acknowledged is in the spool".to_owned(),
        )),
    }
}
