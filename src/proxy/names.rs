//! Where names come from: what is read before the proxy starts, and the sources' tasks beside it.
//!
//! | if | then |
//! |---|---|
//! | a source ends, or panics | it is logged; names that it has given stay, flow and the other sources go on |
//! | the proxy is stopped | sources end after the shards have: what is received last still gets its names |

use super::StartError;
use super::status::Counters;
use crate::config::{self, Faults};
use crate::enrich::book::Operator;
use crate::enrich::lookup::{self, Databases};
use crate::enrich::{Book, LastKnown, StaticFile, netlink, snmp};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long sources get for what they still have to do at the end.
const LAST_TIME: Duration = Duration::from_secs(2);

/// The sources at work.
#[derive(Debug)]
pub(super) struct Sources {
    book: Book,
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    stop: CancellationToken,
}

/// Makes the tables, reads what has to be in them before a record comes, and starts what fills them from then on.
///
/// # Errors
/// When something that the config names cannot be used.
pub(super) async fn start(
    config: &config::Proxy,
    counters: &Counters,
    stop: &CancellationToken,
) -> Result<(Sources, Live), StartError> {
    let mut sources = Sources {
        book: Book::counting(counters.names.clone()),
        tasks: JoinSet::new(),
        names: HashMap::new(),
        stop: stop.clone(),
    };
    sources.book.set_operator(operator(&config.enrich).map_err(StartError::StaticFile)?);
    let last_known = LastKnown::read(&config.state_dir(), sources.book.clone());
    sources.add("last known", last_known.run(stop.clone()));
    let (netlink, is_on) = watch::channel(config.enrich.netlink);
    let host = netlink::Watch::start(sources.book.clone(), counters.netlink.clone(), is_on).await;
    sources.add("netlink", host.run(stop.clone()));
    let (snmp, settings) = watch::channel(config.enrich.snmp.clone());
    let (book, metrics) = (sources.book.clone(), counters.snmp.clone());
    let devices = snmp::Source { book, settings, metrics, board: counters.devices.clone() };
    sources.add("snmp", devices.run(stop.clone()));
    let databases = Databases::open(&look_up_in(&config.enrich), &counters.lookup)?;
    let (lookup, given) = watch::channel(databases);
    sources.add("lookup", lookup::Watch::new(sources.book.clone(), given).run(stop.clone()));
    Ok((sources, Live { netlink, snmp, lookup }))
}

/// What a new config changes in running sources.
#[derive(Debug)]
pub(super) struct Live {
    netlink: watch::Sender<bool>,
    snmp: watch::Sender<Vec<config::Snmp>>,
    lookup: watch::Sender<Databases>,
}

/// What a new config names, open.
#[derive(Debug)]
pub(super) struct New {
    operator: Option<Arc<dyn Operator>>,
    /// `None`: the same files as before, which are followed anyway.
    databases: Option<Databases>,
}

impl Live {
    /// Opens what `config` names.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(super) fn open(&self, config: &config::Enrich, counters: &Counters) -> Result<New, String> {
        let paths = look_up_in(config);
        let is_same = self.lookup.borrow().paths() == paths;
        let databases = (!is_same).then(|| Databases::open(&paths, &counters.lookup)).transpose();
        match (operator(config), databases) {
            (Ok(operator), Ok(databases)) => Ok(New { operator, databases }),
            (operator, databases) => {
                let faults =
                    [operator.err().map(|it| it.to_string()), databases.err().map(|it| it.to_string())];
                Err(faults.into_iter().flatten().collect::<Vec<_>>().join("\n"))
            }
        }
    }

    /// From now on `config` holds.
    pub(super) fn set(&self, config: &config::Enrich, new: New, book: &Book) {
        book.set_operator(new.operator);
        self.netlink.send_replace(config.netlink);
        self.snmp.send_if_modified(|settings| {
            let is_new = *settings != config.snmp;
            settings.clone_from(&config.snmp);
            is_new
        });
        if let Some(databases) = new.databases {
            self.lookup.send_replace(databases);
        }
    }
}

fn look_up_in(config: &config::Enrich) -> lookup::Paths {
    lookup::Paths { asn: config.asn.clone(), country: config.country.clone() }
}

/// Reads the operator's file; `None` if there is none.
fn operator(of: &config::Enrich) -> Result<Option<Arc<dyn Operator>>, Faults> {
    let Some(path) = &of.static_file else { return Ok(None) };
    let file = StaticFile::read(path, super::unix_ms())?;
    let (exporters, interfaces) = (file.exporters(), file.interfaces());
    tracing::info!(path = %path.display(), exporters, interfaces, "Names of exporters and interfaces were read");
    Ok(Some(Arc::new(file)))
}

impl Sources {
    /// What they fill.
    pub(super) fn book(&self) -> &Book {
        &self.book
    }

    /// Starts a source's task, which is to end once `stop` is cancelled.
    fn add(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(work).id();
        self.names.insert(id, name);
    }

    /// Runs until `stop` is cancelled, and a little longer if a source needs it.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = self.tasks.join_next_with_id() => {
                    let (id, error) = match ended {
                        Ok((id, ())) => (id, None),
                        Err(error) => (error.id(), Some(error)),
                    };
                    let source = self.names.remove(&id);
                    tracing::error!(source, error = error.map(|it| it.to_string()), "A source of names has ended");
                }
                else => {
                    stop.cancelled().await;
                    break;
                }
            }
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_TIME, ended).await.is_err() {
            tracing::warn!("A source of names has not ended in time");
        }
    }
}
