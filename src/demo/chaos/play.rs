//! The course of a run: strikes, mends, looks at what is in the spool and at the sink, and adds up at the end.

use super::books::Books;
use super::inside::{FLOW, STALL};
use super::mishap::{Chance, Mishap, Targets};
use super::part::Part;
use super::relay::{Condition, Relay};
use super::sink_reader::SinkReader;
use super::spool_reader::SpoolReader;
use crate::admin;
use crate::demo::summary::{Outcome, Summary};
use crate::demo::view::{self, Link, thousands};
use crate::demo::{Options, Show, tally};
use crate::generator::{Counts, Generator};
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Between two looks.
const TICK: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the proxy may take to start.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long a proxy may take to say how it is.
const STATUS_PATIENCE: Duration = Duration::from_millis(500);
/// How long what is in the spool may take to arrive once nothing goes wrong any more: over what a back-off waits, and
/// over what a connection takes that hangs.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(150);
/// A proxy that ends in order may leave batches in the spool; it is started so often to deliver them.
const DELIVERIES: usize = 3;

/// What is hit.
#[derive(Debug)]
pub struct Site {
    pub collector: Part,
    pub proxy: Part,
    pub relay: Relay,
    /// Where the proxy says how it is.
    pub admin: SocketAddr,
}

/// Who sees what becomes of the records.
#[derive(Debug)]
pub struct Readers {
    pub books: Books,
    pub spool: SpoolReader,
    pub sink: SinkReader,
}

impl Readers {
    fn read(&mut self) -> io::Result<()> {
        self.spool.read(&mut self.books)?;
        self.sink.read(&mut self.books)?;
        self.books.settle();
        Ok(())
    }
}

/// A run.
#[derive(Debug)]
pub struct Play {
    site: Site,
    readers: Arc<Mutex<Readers>>,
    chance: Chance,
    show: Show,
    seed: u64,
    started: Instant,
    counts: Arc<Counts>,
    faults: u64,
    strike_at: Instant,
    /// When the link is mended, if it must be.
    link_until: Option<Instant>,
    /// The same of the sink.
    sink_until: Option<Instant>,
    negotiated: Option<(String, String)>,
    trouble: Option<String>,
}

impl Play {
    /// Nothing has gone wrong yet.
    pub fn new(site: Site, readers: Readers, show: Show, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            site,
            readers: Arc::new(Mutex::new(readers)),
            chance: Chance::new(seed),
            show,
            seed,
            started: now,
            counts: Arc::new(Counts::default()),
            faults: 0,
            strike_at: now,
            link_until: None,
            sink_until: None,
            negotiated: None,
            trouble: None,
        }
    }

    /// From the first record to the sum.
    pub async fn run(mut self, options: &Options, generator: Generator, stop: CancellationToken) -> Summary {
        self.say(&format!("faults by seed {}", self.seed));
        self.wait_for_proxy().await;
        let mesh_stop = stop.child_token();
        let (stopped, counts) = (mesh_stop.clone(), Arc::clone(&self.counts));
        let mesh = tokio::task::spawn_blocking(move || generator.run(&stopped, &counts, || false));
        self.strike_until_time_is_up(options.length, &stop).await;
        mesh_stop.cancel();
        if mesh.await.is_err() {
            self.fail("the mesh has panicked".to_owned());
        }
        let elapsed = self.started.elapsed();
        self.deliver().await;
        self.sum_up(elapsed)
    }

    /// The first templates must not be sent to nobody: they come again only after a while.
    async fn wait_for_proxy(&mut self) {
        let begun = Instant::now();
        while self.trouble.is_none() && self.status().await.is_none() {
            self.tend().await;
            if begun.elapsed() > START_DEADLINE {
                self.fail("the proxy does not answer".to_owned());
            }
            tokio::time::sleep(TICK).await;
        }
        self.started = Instant::now();
        self.strike_at = self.started + self.chance.pause();
    }

    async fn strike_until_time_is_up(&mut self, length: Option<Duration>, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        let mut line_at = self.started + LINE_INTERVAL;
        while self.trouble.is_none() && length.is_none_or(|length| self.started.elapsed() < length) {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.tend().await;
            let now = Instant::now();
            if now >= self.strike_at {
                self.strike(now);
            }
            if now >= line_at {
                line_at = now + LINE_INTERVAL;
                let _ = self.status().await;
                self.show_line();
            }
        }
    }

    /// Looks at what there is, then starts and mends what is due: what a killed proxy has left is seen first.
    async fn tend(&mut self) {
        let readers = Arc::clone(&self.readers);
        let read = move || readers.lock().unwrap_or_else(PoisonError::into_inner).read();
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(format!("spool or sink cannot be read: {error}")),
            Err(_) => self.fail("reading spool or sink has panicked".to_owned()),
        }
        let now = Instant::now();
        for tended in [self.site.collector.tend(now), self.site.proxy.tend(now)] {
            if let Err(trouble) = tended {
                self.fail(trouble);
            }
        }
        if self.link_until.is_some_and(|until| now >= until) {
            self.mend_link();
        }
        if self.sink_until.is_some_and(|until| now >= until) {
            self.mend_sink();
        }
    }

    fn mend_link(&mut self) {
        self.link_until = None;
        self.site.relay.set(Condition::Open);
    }

    fn mend_sink(&mut self) {
        self.sink_until = None;
        self.site.collector.tell(FLOW);
    }

    fn strike(&mut self, now: Instant) {
        let Site { proxy, collector, .. } = &self.site;
        let targets = Targets {
            proxy: proxy.is_there(),
            proxy_at_work: proxy.is_at_work(),
            collector: collector.is_there(),
            collector_at_work: collector.is_at_work(),
            sink: self.sink_until.is_none(),
            link: self.link_until.is_none(),
        };
        let Some(mishap) = self.chance.mishap(&targets) else { return };
        if let Err(error) = self.inflict(mishap, now) {
            self.fail(format!("a fault could not be made: {error}"));
            return;
        }
        self.faults += 1;
        self.strike_at = now + self.chance.pause();
        self.say(&format!("fault {}: {mishap}", self.faults));
    }

    fn inflict(&mut self, mishap: Mishap, now: Instant) -> io::Result<()> {
        let mut link = |condition, lasts| {
            self.site.relay.set(condition);
            self.link_until = Some(now + lasts);
        };
        match mishap {
            Mishap::ProxyKilled(away) => return self.site.proxy.kill(away, now),
            Mishap::ProxyStopped(away) => return self.site.proxy.stop(Some(away), now),
            Mishap::CollectorKilled(away) => {
                self.sink_until = None;
                return self.site.collector.kill(away, now);
            }
            Mishap::CollectorDrained(away) => {
                self.sink_until = None;
                return self.site.collector.stop(Some(away), now);
            }
            Mishap::SinkStalled(lasts) => {
                self.site.collector.tell(STALL);
                self.sink_until = Some(now + lasts);
            }
            Mishap::LinkCut(lasts) => link(Condition::Cut, lasts),
            Mishap::LinkStalled(lasts) => link(Condition::Stalled, lasts),
            Mishap::LinkDelayed { by, lasts } => link(Condition::Slow(by), lasts),
            Mishap::LinkHalfClosed => self.site.relay.close_half(),
        }
        Ok(())
    }

    /// Mends everything, lets arrive what is in the spool, ends both parts in order.
    async fn deliver(&mut self) {
        self.mend_link();
        self.mend_sink();
        self.say("no more faults: what is in the spool arrives");
        let deadline = Instant::now() + ARRIVAL_DEADLINE;
        for _ in 0..DELIVERIES {
            self.wait_for_arrival(deadline).await;
            if let Err(error) = self.site.proxy.stop(None, Instant::now()) {
                self.fail(format!("the proxy cannot be stopped: {error}"));
            }
            self.wait_for_end(|site| &site.proxy).await;
            if self.owed() == 0 || self.trouble.is_some() {
                break;
            }
            self.site.proxy.start_again(Instant::now());
        }
        if let Err(error) = self.site.collector.stop(None, Instant::now()) {
            self.fail(format!("the collector cannot be stopped: {error}"));
        }
        self.wait_for_end(|site| &site.collector).await;
    }

    async fn wait_for_arrival(&mut self, deadline: Instant) {
        loop {
            self.tend().await;
            if self.trouble.is_some() {
                return;
            }
            if self.status().await.is_some_and(|status| is_delivered(&status)) {
                return;
            }
            if Instant::now() >= deadline {
                let seconds = ARRIVAL_DEADLINE.as_secs();
                self.fail(format!("what is in the spool has not arrived within {seconds} s"));
                return;
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Until a part is gone, which was told to end, and what it has left is seen.
    async fn wait_for_end(&mut self, part: impl Fn(&Site) -> &Part) {
        while part(&self.site).is_there() && self.trouble.is_none() {
            self.tend().await;
            tokio::time::sleep(TICK).await;
        }
        self.tend().await;
    }

    /// What the proxy says of itself; `None` if it does not answer.
    async fn status(&mut self) -> Option<Value> {
        let address = self.site.admin.to_string();
        let asked = tokio::time::timeout(STATUS_PATIENCE, admin::get(&address, "/status")).await;
        let status: Value = serde_json::from_slice(&asked.ok()?.ok()?).ok()?;
        let link = status.get("link")?;
        let text = |key| Some(link.get(key)?.as_str()?.to_owned());
        if let (Some(tls), Some(key_exchange)) = (text("tls"), text("key_exchange")) {
            self.negotiated = Some((tls, key_exchange));
        }
        Some(status)
    }

    fn owed(&self) -> u64 {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).books.owed()
    }

    fn show_line(&self) {
        let sent = self.counts.totals().records;
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let books = &readers.books;
        self.say(&format!(
            "sent {}, at the sink {}, in the spool {}, twice {}",
            thousands(sent),
            thousands(books.received()),
            thousands(books.owed()),
            thousands(books.twice()),
        ));
    }

    fn say(&self, text: &str) {
        if self.show != Show::Nothing {
            eprintln!("{} {text}", view::clock(self.started.elapsed()));
        }
    }

    /// The first trouble is the one to tell of.
    fn fail(&mut self, trouble: String) {
        self.say(&trouble);
        self.trouble.get_or_insert(trouble);
    }

    fn sum_up(self, elapsed: Duration) -> Summary {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let books = &readers.books;
        let sent = self.counts.totals();
        let (lost, arrived) = (books.owed(), books.received() - books.twice() - books.unknown());
        let (tls, key_exchange) = self.negotiated.unwrap_or_default();
        let cut = sent.records.saturating_sub(arrived).saturating_sub(lost);
        Summary {
            elapsed,
            sent,
            udp_bytes: self.counts.udp_bytes(),
            unsent_datagrams: self.counts.failed(),
            received: tally::Counts {
                records: books.received(),
                twice: books.twice(),
                unknown: books.unknown(),
                ..tally::Counts::default()
            },
            link: Link { connected: false, tls, key_exchange, wire_bytes: self.site.relay.sent_bytes() },
            trouble: self.trouble,
            chaos: Some(Outcome { seed: self.seed, faults: self.faults, lost, cut, kept: None }),
        }
    }
}

/// Whether all that the proxy has taken in is acked, and no lane of an earlier start is left.
fn is_delivered(status: &Value) -> bool {
    let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64);
    let dropped = status.pointer("/ledger/total/records/dropped").and_then(Value::as_object);
    let dropped: u64 = dropped.into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
    let decoded = number("/ledger/total/records/decoded");
    let batched = number("/ledger/total/records/batched").map(|batched| batched + dropped);
    let lanes = status.pointer("/spool/lanes").and_then(Value::as_array).map(Vec::len);
    decoded == batched && number("/spool/batches") == Some(0) && lanes == Some(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn delivered_is_what_is_acked_to_the_last_lane() {
        let status = |batched: u64, batches: u64, lanes: &[u8]| {
            json!({
                "ledger": { "total": {
                    "records": { "decoded": 10, "batched": batched, "dropped": { "disk": 1, "other": 2 } },
                } },
                "spool": { "batches": batches, "lanes": lanes },
            })
        };
        assert!(is_delivered(&status(7, 0, &[1])));
        assert!(!is_delivered(&status(6, 0, &[1])));
        assert!(!is_delivered(&status(7, 1, &[1])));
        assert!(!is_delivered(&status(7, 0, &[1, 2])));
        assert!(!is_delivered(&json!({})));
    }
}
