//! `flowproxy collect`: the collector and its admin port, until a signal ends them.

use super::signals::{Signals, Wish};
use super::{Failure, check, logging};
use crate::admin::{self, LastReload, Subject};
use crate::collector::sinks::{self, Sink};
use crate::collector::{self, Metrics, View};
use crate::config::{self, Collector, Faults, Role};
use crate::{metrics, tls};
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// How long what hangs may hold up the process's end.
const LAST_MOMENTS: Duration = Duration::from_secs(1);

/// Runs it. Batches go also to `others`.
pub fn collect(file: &Path, flags: &logging::Flags, others: Vec<Box<dyn Sink>>) -> Result<(), Failure> {
    let refused = |faults| check::all_of(file, Failure::config(file, Role::Collector, faults));
    let config = config::collector(file).map_err(refused)?;
    let log = logging::start(flags, &config.log.filter)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::other)?;
    let result = runtime.block_on(until_stopped(file, config, &log, others));
    runtime.shutdown_timeout(LAST_MOMENTS);
    result
}

async fn until_stopped(
    file: &Path,
    mut config: Collector,
    log: &logging::Log,
    others: Vec<Box<dyn Sink>>,
) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    let started = start(&config, others).await;
    let (mut running, facts) = started.map_err(|failure| check::all_of(file, failure))?;
    loop {
        tokio::select! {
            wish = signals.next() => match wish {
                Wish::Stop => break,
                Wish::Reload => match reload(&running, &config, config::collector(file)) {
                    Ok(new) => {
                        tracing::info!(changed = ?config.differences(&new), "The config was read again");
                        log.set(&new.log.filter);
                        facts.reload.note(unix_ms(), None);
                        config = new;
                    }
                    Err(fault) => {
                        tracing::error!("The new config is refused; the old one stays in effect");
                        fault.lines().for_each(|fault| tracing::error!(fault, "In the new config"));
                        facts.reload.note(unix_ms(), Some(fault));
                    }
                },
            },
            () = running.stopped() => return Err(Failure::Other("the collector could not go on".to_owned())),
        }
    }
    tracing::info!("Stopping");
    tokio::select! {
        () = running.stop() => Ok(()),
        () = signals.another_stop() => {
            Err(Failure::Other("ended at once by a second signal; what was not acknowledged comes again".to_owned()))
        }
    }
}

/// Starts collector and admin port.
async fn start(
    config: &Collector,
    others: Vec<Box<dyn Sink>>,
) -> Result<(collector::Running, Arc<Facts>), Failure> {
    let metrics = Metrics::new();
    let mut registry = metrics::registry();
    metrics.register(&mut registry);
    let mut settings = settings(config)?;
    settings.sinks.others = others;
    let listener = admin::bind(config.admin.listen).await.map_err(Failure::other)?;
    let admin = listener.local_addr().map_err(Failure::other)?;
    let stop = CancellationToken::new();
    let running = collector::start(settings, metrics, stop.clone()).await.map_err(Failure::other)?;
    let facts = Arc::new(Facts { view: running.view(), registry, admin, reload: LastReload::default() });
    let serving = admin::serve(listener, Arc::clone(&facts) as Arc<dyn Subject>, stop);
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "The admin port has ended");
        }
    });
    tracing::info!(%admin, "Answering /metrics, /healthz, /readyz and /status");
    Ok((running, facts))
}

fn settings(config: &Collector) -> Result<collector::Settings, Failure> {
    let tls = tls::load_server(&(&config.tls).into())?;
    let mut settings = collector::Settings::new(config.listen, tls, &config.state_dir);
    settings.allow = config.allow.iter().cloned().collect();
    settings.drain_time = config.shutdown.deadline;
    let sinks = &config.sinks;
    settings.sinks.jsonl = sinks.jsonl.as_ref().map(|jsonl| sinks::jsonl::Settings {
        path: jsonl.path.clone(),
        max_bytes: jsonl.max_bytes,
        max_age: jsonl.max_age,
    });
    settings.sinks.udp =
        sinks.udp.as_ref().map(|udp| sinks::udp::Settings { to: udp.to.clone(), max_rate: udp.max_rate });
    settings.sinks.null = sinks.null;
    Ok(settings)
}

/// Takes a config that was read again, all of it or nothing; the error says why nothing.
fn reload(
    running: &collector::Running,
    old: &Collector,
    read: Result<Collector, Faults>,
) -> Result<Collector, String> {
    let new = read.map_err(|faults| faults.to_string())?;
    let fixed = old.needing_restart(&new);
    if !fixed.is_empty() {
        return Err(format!(
            "{} cannot change while the collector runs: it needs a restart",
            fixed.join(", ")
        ));
    }
    let files = tls::Files::from(&new.tls);
    let tls = tls::load_server(&files).map_err(|first| tls::told(tls::End::Server, &files, &first))?;
    running.set_tls(tls);
    Ok(new)
}

/// What the admin port tells.
#[derive(Debug)]
struct Facts {
    view: View,
    registry: Registry,
    admin: SocketAddr,
    reload: LastReload,
}

impl Subject for Facts {
    fn metrics(&self) -> String {
        metrics::text(&self.registry)
    }

    fn alive(&self) -> Result<(), String> {
        // Socket and mark store were opened before the admin port answered.
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        self.view.ready()
    }

    fn status(&self) -> serde_json::Value {
        let mut status = serde_json::json!(self.view.status());
        if let Some(status) = status.as_object_mut() {
            let started = status.get("started").and_then(serde_json::Value::as_u64).unwrap_or_default();
            status.insert("uptime_seconds".to_owned(), (unix_ms().saturating_sub(started) / 1_000).into());
            status.insert("admin".to_owned(), self.admin.to_string().into());
            status.insert("reload".to_owned(), self.reload.to_json());
        }
        status
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::issue;

    fn written(folder: &Path, more: &str) -> Result<Collector, Faults> {
        let file = folder.join("collector.toml");
        let tls = "[tls]\nca = 'ca.pem'\ncert = 'collector.pem'\nkey = 'collector.key'\n";
        let text =
            format!("listen = '127.0.0.1:0'\n{tls}[admin]\nlisten = '127.0.0.1:0'\n[sink.null]\n{more}");
        std::fs::write(&file, text).unwrap();
        config::collector(&file)
    }

    #[tokio::test]
    async fn it_runs_shows_itself_and_takes_or_refuses_a_new_config() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        issue::ca(folder).unwrap();
        let dns = ["localhost".to_owned()];
        let subject = issue::Subject { name: "collector", server: true, dns: &dns, ips: &[] };
        issue::issue(folder, &subject, folder).unwrap();
        let config = written(folder, "").unwrap();
        let (running, facts) = start(&config, Vec::new()).await.unwrap();

        assert_eq!(facts.ready(), Ok(()));
        assert_eq!(facts.alive(), Ok(()));
        assert!(facts.metrics().contains("flowproxy_collector_committed_records_total 0"));
        let status = facts.status();
        assert_eq!(status["role"], "collector");
        assert_eq!(status["listen"], running.address().to_string());
        assert_eq!(status["admin"], facts.admin.to_string());
        assert!(status["reload"].is_null());

        let fault = reload(&running, &config, written(folder, "[shutdown]\ndeadline = 'now'\n")).unwrap_err();
        assert!(fault.contains("shutdown.deadline = \"now\""), "{fault}");
        let fault = reload(&running, &config, written(folder, "[state]\ndir = 'other'\n")).unwrap_err();
        assert!(fault.contains("state.dir cannot change while the collector runs"), "{fault}");
        let new = reload(&running, &config, written(folder, "[log]\nfilter = 'warn'\n")).unwrap();
        assert_eq!(new.log.filter, "warn");
        std::fs::write(folder.join("collector.key"), "half").unwrap();
        let fault = reload(&running, &config, written(folder, "")).unwrap_err();
        assert!(fault.contains("collector.key"), "{fault}");
        running.stop().await;
    }
}
