//! flowproxy carries flow records (NetFlow, IPFIX, sFlow) from the devices of a site to a remote collector: over one
//! TLS 1.3 gRPC stream, kept on disk until acknowledged, none lost and none twice.
//!
//! # The data's way
//!
//! ```text
//! exporters --UDP, TCP--> ingest --> shard (wire > batch) --> spool --> uplink ==TLS==> collector --> sinks
//! captures ---------> capture > cli::decode (wire > batch) --> text
//! ```
//!
//! The `mod` lines below stand in that order.
//!
//! # Layers
//!
//! | layer | modules | may use |
//! |---|---|---|
//! | pure: bytes and time in, values out; no socket, clock, log, metric | `proto`, `flow`, `wire`, `batch`, `spool::frame`, `spool::cursor`, `uplink::session`, `uplink::backoff`, `uplink::rate`, `uplink::store`, `collector::session`, `collector::alarms`, `collector::lane`, `shard::admission`, `shard::bucket`, `shard::moment`, `shard::facts`, `shard::cause`; the values `spool::LaneId`, `spool::LaneView`, `spool::Fetched`, `spool::Stored`, `spool::SkipRow` | each other |
//! | outside world | `places`, `lines`, `clock`, `crash`, `storage`, `ingest`, `keeper`, `capture`, `enrich`, `spool`, `uplink`, `tls`, `collector`, `generator`, `admin`, `config`, `metrics` | the pure ones |
//! | assembly | `shard`, `proxy`, `demo`, `cli` | all |
//!
//! `tests/layers.rs` reads this table and checks who imports whom. `simulation` is for tests alone: both ends of the
//! delivery in one deterministic world.
//!
//! # Words
//!
//! exporter (sends us flow) · observation domain · template · options template · set · record · datagram ·
//! layout (the fields of a record and where they lie) · group (records of one layout) · run (records of one
//! datagram in a group) · batch · segment · frame · sequence · mark (what the collector has made durable) ·
//! lane (one writer's life) · position (what the proxy knows to be acked) · ack · window · proxy (the edge
//! end) · collector (the far end) · sink (where the collector writes) · source (what the generator reads) ·
//! shard · keeper (keeps what exporters tell over a restart) · spool · uplink.

/// A place where a test may end the process. Nothing without the feature `crash-points`: see `src/crash.rs`.
macro_rules! crash_point {
    ($name:literal) => {
        #[cfg(feature = "crash-points")]
        $crate::crash::reach($name);
    };
}

#[cfg(feature = "crash-points")]
mod crash;

mod clock;
pub mod config;
pub mod proto;

pub mod flow;
pub mod wire;

pub mod batch;
pub mod capture;
pub mod enrich;
pub mod ingest;
pub mod keeper;
#[cfg(test)]
#[path = "../tests/support/ledger.rs"]
#[allow(dead_code, missing_docs, reason = "tests of whole processes use the rest of it")]
mod ledger_equations;
pub mod shard;

pub mod spool;

pub mod tls;
pub mod uplink;

pub mod collector;

pub mod generator;

pub mod admin;
pub mod cli;
pub mod demo;
mod lines;
pub mod metrics;
pub mod places;
pub mod proxy;
#[cfg(test)]
mod simulation;
mod storage;
