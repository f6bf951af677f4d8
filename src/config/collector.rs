//! The collector's config.

use super::fields::Fields;
use super::{Admin, Log, Shutdown, Tls, same_address};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// What `flowproxy collect` does.
#[derive(Clone, Debug, PartialEq)]
pub struct Collector {
    /// Where proxies connect.
    pub listen: SocketAddr,
    /// `[tls]`
    pub tls: Tls,
    /// `[sink.*]`; at least one.
    pub sinks: Sinks,
    /// The folder that marks are kept in.
    pub state_dir: PathBuf,
    /// `[admin]`
    pub admin: Admin,
    /// `[shutdown]`
    pub shutdown: Shutdown,
    /// `[log]`
    pub log: Log,
}

/// Where records and raw datagrams go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sinks {
    /// Records as JSON lines.
    pub jsonl: Option<Jsonl>,
    /// Raw datagrams, each to every address.
    pub udp: Option<Vec<SocketAddr>>,
    /// Everything, counted and not kept.
    pub null: bool,
}

/// The file of JSON lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jsonl {
    /// The file that is being written.
    pub path: PathBuf,
    /// Bytes that rename it.
    pub max_bytes: u64,
    /// Age that renames it.
    pub max_age: Duration,
}

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4440);
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9442);

/// Takes the collector's config out of `fields`; `None` if there is a fault that leaves a hole in it.
pub(super) fn build(fields: &mut Fields) -> Option<Collector> {
    let listen = fields.address("listen", LISTEN);
    let tls = super::tls(fields);
    let sinks = sinks(fields);
    let state_dir = fields.path("state.dir");
    let admin = super::admin(fields, ADMIN);
    let shutdown = super::shutdown(fields);
    let log = super::log(fields);
    let (listen, admin) = (listen?, admin?);
    if same_address(listen, admin.listen) {
        let wrong = format!("takes {}, where proxies connect ({listen})", admin.listen);
        fields.refuse("admin.listen", wrong, "another address or port than listen");
    }
    let (shutdown, log) = (shutdown?, log?);
    Some(Collector { listen, tls: tls?, sinks: sinks?, state_dir: state_dir?, admin, shutdown, log })
}

fn sinks(fields: &mut Fields) -> Option<Sinks> {
    if !["sink.jsonl", "sink.udp", "sink.null"].iter().any(|sink| fields.is_given(sink)) {
        let allowed = "one or several of [sink.jsonl], [sink.udp] and [sink.null]";
        fields.missing("sink", "says nowhere to write to", allowed);
    }
    let jsonl = jsonl(fields);
    let udp = udp(fields);
    let null = fields.section("sink.null");
    Some(Sinks { jsonl: jsonl?, udp: udp?, null: null? })
}

fn jsonl(fields: &mut Fields) -> Option<Option<Jsonl>> {
    let max_bytes = fields.size("sink.jsonl.max_bytes", || 0);
    let max_age = fields.span("sink.jsonl.max_age");
    if !fields.is_given("sink.jsonl") {
        return Some(None);
    }
    if !fields.is_given("sink.jsonl.path") {
        fields.missing("sink.jsonl.path", "is missing", "a file such as \"out/flows.jsonl\"");
    }
    let path = fields.path("sink.jsonl.path")?;
    if path.file_name().is_none() || path.is_dir() {
        fields.refuse("sink.jsonl.path", "is a folder".to_owned(), "a file such as \"out/flows.jsonl\"");
    }
    Some(Some(Jsonl { path, max_bytes: max_bytes?, max_age: max_age? }))
}

fn udp(fields: &mut Fields) -> Option<Option<Vec<SocketAddr>>> {
    if !fields.is_given("sink.udp") {
        return Some(None);
    }
    let to = fields.addresses("sink.udp.to")?;
    if to.is_empty() {
        let allowed = "at least one address, such as [\"127.0.0.1:2055\"]";
        fields.missing("sink.udp.to", "says nowhere to send to", allowed);
    }
    Some(Some(to))
}
