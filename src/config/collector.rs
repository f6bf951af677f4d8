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
    /// Identities of the proxies that may connect; empty: every one that the CA has signed.
    pub allow: Vec<String>,
    /// The folder that marks are kept in.
    pub state_dir: PathBuf,
    /// `[admin]`
    pub admin: Admin,
    /// `[shutdown]`
    pub shutdown: Shutdown,
    /// `[log]`
    pub log: Log,
}

impl Collector {
    /// The options in which `other` differs, by their keys in [`super::options::OPTIONS`].
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let (a, b) = (self, other);
        let jsonl = |of: &Self| of.sinks.jsonl.clone();
        let udp = |of: &Self| of.sinks.udp.clone();
        let all = [
            ("listen", a.listen != b.listen),
            ("tls.ca", a.tls.ca != b.tls.ca),
            ("tls.cert", a.tls.cert != b.tls.cert),
            ("tls.key", a.tls.key != b.tls.key),
            ("sink.jsonl.path", jsonl(a).map(|it| it.path) != jsonl(b).map(|it| it.path)),
            ("sink.jsonl.max_bytes", jsonl(a).map(|it| it.max_bytes) != jsonl(b).map(|it| it.max_bytes)),
            ("sink.jsonl.max_age", jsonl(a).map(|it| it.max_age) != jsonl(b).map(|it| it.max_age)),
            ("sink.udp.to", udp(a).map(|it| it.to) != udp(b).map(|it| it.to)),
            ("sink.udp.max_rate", udp(a).map(|it| it.max_rate) != udp(b).map(|it| it.max_rate)),
            ("sink.null", a.sinks.null != b.sinks.null),
            ("allow.identities", a.allow != b.allow),
            ("state.dir", a.state_dir != b.state_dir),
            ("admin.listen", a.admin != b.admin),
            ("shutdown.deadline", a.shutdown != b.shutdown),
            ("log.filter", a.log != b.log),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// Those of the differences that only a restart can bring into effect.
    pub fn needing_restart(&self, other: &Self) -> Vec<&'static str> {
        super::options::needing_restart(super::Role::Collector, self.differences(other))
    }
}

/// Where records and raw datagrams go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sinks {
    /// Records as JSON lines.
    pub jsonl: Option<Jsonl>,
    /// Raw datagrams, each to every address.
    pub udp: Option<Udp>,
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

/// Where raw datagrams go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Every datagram goes to each of these; at least one.
    pub to: Vec<SocketAddr>,
    /// Datagrams a second to each.
    pub max_rate: u32,
}

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4440);
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9442);

/// Takes the collector's config out of `fields`; `None` if there is a fault that leaves a hole in it.
pub(super) fn build(fields: &mut Fields) -> Option<Collector> {
    let listen = fields.address("listen", LISTEN);
    let tls = super::tls(fields);
    let sinks = sinks(fields);
    let allow = fields.names("allow.identities");
    let state_dir = fields.path("state.dir");
    let admin = super::admin(fields, ADMIN);
    let shutdown = super::shutdown(fields);
    let log = super::log(fields);
    let (listen, admin) = (listen?, admin?);
    if same_address(listen, admin.listen) {
        let wrong = format!("takes {}, where proxies connect ({listen})", admin.listen);
        fields.refuse("admin.listen", wrong, "another address or port than listen");
    }
    let (sinks, allow, state_dir) = (sinks?, allow?, state_dir?);
    Some(Collector { listen, tls: tls?, sinks, allow, state_dir, admin, shutdown: shutdown?, log: log? })
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

fn udp(fields: &mut Fields) -> Option<Option<Udp>> {
    let max_rate = fields.number("sink.udp.max_rate", 0);
    if !fields.is_given("sink.udp") {
        return Some(None);
    }
    let to = fields.addresses("sink.udp.to")?;
    if to.is_empty() {
        let allowed = "at least one address, such as [\"127.0.0.1:2055\"]";
        fields.missing("sink.udp.to", "says nowhere to send to", allowed);
    }
    Some(Some(Udp { to, max_rate: u32::try_from(max_rate?).ok()? }))
}
