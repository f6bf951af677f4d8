//! What a running proxy tells: health, readiness, and `/status` with the ledger.

use super::exporters;
use crate::admin::{LastReload, Subject};
use crate::config;
use crate::ingest;
use crate::keeper;
use crate::metrics::{self, Ingest};
use crate::proto;
use crate::shard::ExporterView;
use crate::spool::{self, Spool};
use crate::uplink;
use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::watch;

/// What the proxy's parts count.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    pub(super) ingest: Ingest,
    pub(super) tcp: ingest::tcp::Metrics,
    pub(super) spool: spool::Metrics,
    pub(super) keeper: keeper::Metrics,
    pub(super) uplink: uplink::Metrics,
}

impl Counters {
    /// All of them under their names.
    pub(super) fn registry(&self) -> Registry {
        let mut registry = metrics::registry();
        self.ingest.register(&mut registry);
        self.tcp.register(&mut registry);
        self.spool.register(&mut registry);
        self.keeper.register(&mut registry);
        self.uplink.register(&mut registry);
        registry
    }

    /// The totals that the heartbeat carries.
    pub(super) fn totals(&self) -> proto::Counters {
        let (ingest, spool) = (&self.ingest, &self.spool);
        proto::Counters {
            datagrams_received: ingest.datagrams_received.get(),
            records_decoded: ingest.records_decoded.get(),
            records_batched: ingest.records_batched.get(),
            records_committed: self.uplink.committed_records.get(),
            records_skipped: spool.skipped_records.all().values().sum(),
            records_dropped: ingest.records_dropped_total() + spool.all_dropped_records(),
            datagrams_dropped_by_kernel: ingest.datagrams_dropped_by_kernel.get(),
        }
    }

    /// The loss ledger: each term as it was counted, none a difference.
    fn ledger(&self) -> Value {
        let (ingest, spool) = (&self.ingest, &self.spool);
        json!({
            "datagrams": {
                "received": ingest.datagrams_received.get(),
                "refused": ingest.datagrams_refused.get(),
                "limited": ingest.datagrams_limited.get(),
                "accepted": ingest.datagrams_accepted.get(),
                "truncated": ingest.datagrams_truncated.get(),
                "unreadable": ingest.datagrams_unreadable.all(),
                "dropped_by_kernel": ingest.datagrams_dropped_by_kernel.get(),
            },
            "sets": {
                "decoded": ingest.sets_decoded.get(),
                "undecoded": ingest.sets_undecoded.all(),
                "undecoded_bytes": ingest.set_bytes_undecoded.get(),
                "held": ingest.sets_held.get(),
            },
            "records": {
                "decoded": ingest.records_decoded.get(),
                "by_kind": ingest.records_by_kind.all(),
                "dropped": ingest.records_dropped.all(),
                "batched": ingest.records_batched.get(),
            },
            "missing_by_sequence_estimate": {
                "missing": ingest.sequence_missing.all(),
                "late": ingest.sequence_late.all(),
                "duplicate_datagrams": ingest.sequence_duplicates.get(),
                "resets": ingest.sequence_resets.get(),
                "samples_dropped_by_exporter": ingest.samples_dropped_by_exporter.get(),
            },
            "raw_datagrams": {
                "accepted": ingest.raw_accepted.get(),
                "dropped": ingest.raw_dropped.all(),
                "batched": ingest.raw_batched.get(),
            },
            "spool": {
                "written_batches": spool.written_batches.get(),
                "written_records": spool.written_records.get(),
                "dropped_records": spool.dropped_records.all(),
                "skipped_records": spool.skipped_records.all(),
                "skipped_batches": spool.skipped_batches.all(),
            },
            "committed_records": self.uplink.committed_records.get(),
        })
    }
}

/// What is known of a running proxy.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) counters: Counters,
    pub(super) registry: Registry,
    pub(super) config: ArcSwap<config::Proxy>,
    pub(super) spool: Spool,
    pub(super) link: watch::Receiver<uplink::Link>,
    pub(super) exporters: Vec<ExporterView>,
    pub(super) udp: Vec<SocketAddr>,
    pub(super) tcp: Vec<SocketAddr>,
    pub(super) raw: Vec<SocketAddr>,
    /// Those of UDP.
    pub(super) shards: usize,
    pub(super) admin: SocketAddr,
    pub(super) started: Instant,
    pub(super) started_ms: u64,
    /// When our certificate's time begins, in milliseconds since 1970.
    pub(super) valid_from_ms: AtomicU64,
    pub(super) reload: LastReload,
}

impl Facts {
    fn spool_json(&self) -> Value {
        let (usage, found, config) = (self.spool.usage(), self.spool.recovered(), self.config.load());
        let lanes = self.spool.lanes();
        let lanes = lanes.iter().map(|lane| {
            json!({
                "id": lane.id.to_string(),
                "current": lane.current,
                "oldest_seq": lane.oldest_seq,
                "next_seq": lane.next_seq,
                "acked_seq": lane.acked_seq,
            })
        });
        json!({
            "dir": config.spool.dir,
            "writable": self.spool.writable(),
            "max_bytes": config.spool.max_bytes,
            "disk_bytes": usage.disk_bytes,
            "memory_bytes": usage.memory_bytes,
            "batches": usage.batches,
            "oldest_received": usage.oldest_received,
            "rejects_in_a_row": self.spool.rejects_in_a_row(),
            "lanes": lanes.collect::<Vec<_>>(),
            "found_at_start": {
                "lanes": found.lanes,
                "batches": found.batches,
                "records": found.records,
                "torn_bytes": found.torn_bytes,
                "lost_batches": found.lost_batches,
                "quarantined_files": found.quarantined_files,
            },
        })
    }

    fn state_json(&self) -> Value {
        let (keeper, ingest) = (&self.counters.keeper, &self.counters.ingest);
        json!({
            "dir": self.config.load().state_dir(),
            "writable": keeper.writable.get() == 1,
            "writes": keeper.writes.get(),
            "write_failures": keeper.write_failures.get(),
            "set_aside": keeper.set_aside.get(),
            "templates_restored": ingest.templates_restored.get(),
            "refused_entries": ingest.state_refused.get(),
        })
    }

    fn exporters_json(&self) -> Value {
        exporters::json(self.exporters.iter().flat_map(ExporterView::rows).collect(), super::unix_ms())
    }
}

impl Subject for Facts {
    fn metrics(&self) -> String {
        metrics::text(&self.registry)
    }

    fn alive(&self) -> Result<(), String> {
        // Sockets and spool were opened before the admin port answered; the process ends when one of them does.
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        if !self.spool.writable() {
            return Err("the spool takes nothing: its disk is full or fails".to_owned());
        }
        if super::unix_ms() < self.valid_from_ms.load(Ordering::Relaxed) {
            return Err("this host's clock is not set: by it our certificate is not valid yet".to_owned());
        }
        Ok(())
    }

    fn status(&self) -> Value {
        let addresses = |of: &[SocketAddr]| of.iter().map(ToString::to_string).collect::<Vec<_>>();
        json!({
            "role": "proxy",
            "version": env!("CARGO_PKG_VERSION"),
            "now": super::unix_ms(),
            "started": self.started_ms,
            "uptime_seconds": self.started.elapsed().as_secs(),
            "listen": {
                "udp": addresses(&self.udp),
                "tcp": addresses(&self.tcp),
                "raw": addresses(&self.raw),
                "shards": self.shards,
                "tcp_connections": self.counters.tcp.connections.get(),
            },
            "admin": self.admin.to_string(),
            "link": *self.link.borrow(),
            "spool": self.spool_json(),
            "state": self.state_json(),
            "ledger": self.counters.ledger(),
            "exporters": self.exporters_json(),
            "reload": self.reload.to_json(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_shows_what_was_counted() {
        let counters = Counters::default();
        counters.ingest.count_decoded([5, 1, 0, 0, 0]);
        counters.ingest.records_dropped.add("queue_full", 2);
        let ledger = counters.ledger();
        assert_eq!(ledger["records"]["decoded"], 6);
        assert_eq!(ledger["records"]["dropped"]["queue_full"], 2);
        assert_eq!(counters.totals().records_dropped, 2);
    }
}
