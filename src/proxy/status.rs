//! What a running proxy tells: health, readiness, and `/status` with the ledger.

use super::{SharingMetrics, devices, exporters, ledger};
use crate::admin::{LastReload, Subject};
use crate::config;
use crate::enrich::{self, Book, lookup, netlink, snmp};
use crate::ingest;
use crate::keeper;
use crate::metrics::{self, Ingest};
use crate::shard::{ExporterRow, ExporterView};
use crate::spool::{self, Spool};
use crate::uplink;
use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
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
    pub(super) names: enrich::Metrics,
    pub(super) sharing: SharingMetrics,
    pub(super) netlink: netlink::Metrics,
    pub(super) snmp: snmp::Metrics,
    /// How asking devices goes, each by itself.
    pub(super) devices: snmp::Board,
    pub(super) lookup: lookup::Metrics,
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
        self.names.register(&mut registry);
        self.sharing.register(&mut registry);
        self.netlink.register(&mut registry);
        self.snmp.register(&mut registry);
        self.lookup.register(&mut registry);
        registry
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
    /// What exporters and interfaces are called.
    pub(super) book: Book,
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
            "stalled": self.spool.is_stalled(),
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

    /// The files that addresses are looked up in.
    fn lookup_json(&self) -> Value {
        let databases = self.book.databases();
        let file = |of: &Arc<lookup::Database>| {
            json!({
                "file": of.kind().label(),
                "path": of.path(),
                "type": of.database_type(),
                "built": of.built() * 1000,
                "bytes": of.bytes(),
            })
        };
        databases.all().map(file).collect()
    }

    pub(super) fn exporter_rows(&self) -> Vec<ExporterRow> {
        self.exporters.iter().flat_map(ExporterView::rows).collect()
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
        if self.spool.is_stalled() {
            return Err(super::stall::TEXT.to_owned());
        }
        if super::unix_ms() < self.valid_from_ms.load(Ordering::Relaxed) {
            return Err("this host's clock is not set: by it our certificate is not valid yet".to_owned());
        }
        Ok(())
    }

    fn exporter(&self, wanted: &str) -> Option<Value> {
        let rows = exporters::one(self.exporter_rows(), wanted, &mut self.book.view(), super::unix_ms())?;
        Some(devices::beside(rows, &self.counters.devices))
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
            "lookup": self.lookup_json(),
            "ledger": ledger::json(&self.counters, self.exporter_rows()),
            "exporters": devices::beside(
                exporters::json(self.exporter_rows(), &mut self.book.view(), super::unix_ms()),
                &self.counters.devices,
            ),
            "reload": self.reload.to_json(),
        })
    }
}
