//! Every option, in one table: its key, type, limits, default and meaning.
//!
//! Nothing else knows a default. The loader refuses keys that are not here, the README's tables are made from
//! here ([`markdown`]), and a test checks that every row is read and every read key is a row.

use super::parse;
use std::borrow::Cow;
use std::fmt::Write;

/// Which command's config an option belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `flowproxy run`
    Proxy,
    /// `flowproxy collect`
    Collector,
}

impl Role {
    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Collector => "collector",
        }
    }
}

/// What values an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An IP address and a port.
    Address,
    /// A list of addresses; `true` where the port may not be 0.
    Addresses {
        /// Port 0 (any free one) is allowed.
        any_port: bool,
    },
    /// A whole number, both ends inclusive.
    Number {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// Bytes, both ends inclusive.
    Size {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// Bytes per second.
    Rate {
        /// The least.
        min: u64,
    },
    /// A span of time in milliseconds, both ends inclusive.
    Span {
        /// The least.
        min_ms: u64,
        /// The most.
        max_ms: u64,
    },
    /// true or false.
    Flag,
    /// A file or folder; relative ones start at the config file's folder.
    Path,
    /// A list of https endpoints.
    Endpoints,
    /// A list of identities of proxies.
    Names,
    /// A list of IP networks.
    Networks,
    /// A list of IP networks, each with a sampling rate.
    NetworkRates,
    /// A log filter.
    Filter,
    /// An empty section that switches something on.
    Section,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text that is not empty.
    Text,
}

impl Form {
    /// The type's name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Addresses { .. } => "list of addresses",
            Self::Number { .. } => "number",
            Self::Size { .. } => "size",
            Self::Rate { .. } => "rate",
            Self::Span { .. } => "duration",
            Self::Flag => "true/false",
            Self::Path => "path",
            Self::Endpoints => "URL or list of URLs",
            Self::Names => "list of names",
            Self::Networks => "list of networks",
            Self::NetworkRates => "list of networks with rates",
            Self::Filter => "log filter",
            Self::Section => "empty section",
            Self::Word(_) => "word",
            Self::Text => "text",
        }
    }

    /// What is allowed, for a fault's text.
    pub fn allowed(self) -> String {
        match self {
            Self::Address => "an IP address and a port such as \"127.0.0.1:2055\" or \"[::1]:2055\"".into(),
            Self::Addresses { any_port } => {
                let port = if any_port { "; port 0 takes any free one" } else { "; the port is not 0" };
                format!(
                    "a list of IP addresses with ports such as [\"127.0.0.1:2055\", \"[::1]:2055\"]{port}"
                )
            }
            Self::Number { min, max } => format!("a whole number from {min} to {max}"),
            Self::Size { min, max } => format!(
                "bytes from {} to {}, such as 65536, \"500MB\" or \"8GiB\"",
                parse::size_text(min),
                parse::size_text(max)
            ),
            Self::Rate { min } => {
                format!("bytes per second, at least {}, such as \"10MiB\" or 1250000", parse::size_text(min))
            }
            Self::Span { min_ms, max_ms } => format!(
                "a whole number with a unit (ms, s, m, h, d) from {} to {}, such as \"500ms\"",
                parse::span_text(min_ms),
                parse::span_text(max_ms)
            ),
            Self::Flag => "true or false".into(),
            Self::Path => "a path; relative ones start at the config file's folder".into(),
            Self::Endpoints => "\"https://HOST:PORT\" or a list of such".into(),
            Self::Names => "a list of identities such as [\"edge1\", \"edge2.example.net\"]".into(),
            Self::Networks => "a list of networks or addresses such as [\"10.0.0.0/8\", \"2001:db8::/32\", \
                               \"192.0.2.7\"]"
                .into(),
            Self::NetworkRates => {
                "a list of networks or addresses, each with N where one packet in N is sampled, \
                                   such as [\"10.0.0.0/8=1000\", \"192.0.2.7=1\"]"
                    .into()
            }
            Self::Filter => "a level (error, warn, info, debug, trace) or a filter such as \
                             \"info,flowproxy::uplink=debug\""
                .into(),
            Self::Section => "an empty section, or true".into(),
            Self::Word(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
                words.join(", ")
            }
            Self::Text => "text that is not empty".into(),
        }
    }
}

/// What holds when an option is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// This value, written as in an environment variable.
    Is(&'static str),
    /// Found out at the start; the text says how.
    Found(&'static str),
    /// Nothing; the text says what that means.
    Off(&'static str),
    /// It has to be given.
    Required,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Section and name: `batch.max_records`.
    pub key: &'static str,
    /// Whose it is; `None`: of both.
    pub role: Option<Role>,
    /// What values it takes.
    pub form: Form,
    /// What holds when it is not given.
    pub default: Absent,
    /// A SIGHUP changes it in the running process.
    pub live: bool,
    /// What it does, for the tables.
    pub meaning: &'static str,
}

pub(super) const fn row(key: &'static str, form: Form, default: Absent, meaning: &'static str) -> Row {
    Row { key, role: None, form, default, live: false, meaning }
}

impl Row {
    pub(super) const fn of(mut self, role: Role) -> Self {
        self.role = Some(role);
        self
    }

    pub(super) const fn live(mut self) -> Self {
        self.live = true;
        self
    }

    /// Is it an option of `role`?
    pub fn belongs_to(&self, role: Role) -> bool {
        self.role.is_none_or(|of| of == role)
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;

use Absent::{Found, Is, Off, Required};
use Form::{
    Address, Addresses, Endpoints, Filter, Flag, Names, NetworkRates, Networks, Number, Path, Rate, Section,
    Size, Span,
};
use Role::{Collector, Proxy};

/// The table of what stands once in a config.
pub const OPTIONS: &[Row] = &[
    row(
        "listen.udp",
        Addresses { any_port: true },
        Off("none"),
        "UDP addresses that take NetFlow v1, v5, v7, v9, IPFIX and sFlow v5, any of them on each",
    )
    .of(Proxy),
    row(
        "listen.tcp",
        Addresses { any_port: true },
        Off("none"),
        "TCP addresses that take IPFIX; its port is 4739",
    )
    .of(Proxy),
    row(
        "listen.raw",
        Addresses { any_port: true },
        Off("none"),
        "UDP addresses whose datagrams are forwarded unread",
    )
    .of(Proxy),
    row(
        "listen.shards",
        Number { min: 1, max: 256 },
        Found("the cores this process may use"),
        "threads that receive and decode",
    )
    .of(Proxy),
    row(
        "listen.receive_buffer",
        Size { min: 64 * KIB, max: GIB },
        Is("4MiB"),
        "kernel buffer of each socket; what the kernel grants is logged",
    )
    .of(Proxy),
    row(
        "listen.obey_udp_withdrawals",
        Flag,
        Is("false"),
        "let IPFIX template withdrawals over UDP, which anyone can forge, take effect",
    )
    .of(Proxy),
    row(
        "listen.allow",
        Networks,
        Off("everyone"),
        "the exporters that are listened to, by source address; datagrams of others are counted and not read",
    )
    .of(Proxy)
    .live(),
    row(
        "limit.datagrams",
        Number { min: 1, max: 10_000_000 },
        Off("no limit"),
        "datagrams a second that are taken of one address; what is above is counted and not read",
    )
    .of(Proxy)
    .live(),
    row("limit.bytes", Rate { min: 64 * KIB }, Off("no limit"), "the same in bytes of UDP payload")
        .of(Proxy)
        .live(),
    row(
        "decode.sampling",
        NetworkRates,
        Off("none"),
        "sampling rates of exporters that do not tell theirs, by source address; the smallest network's counts",
    )
    .of(Proxy),
    row(
        "enrich.static",
        Path,
        Off("none"),
        "file with names of exporters and their interfaces, in TOML, or in CSV if it ends in `.csv`",
    )
    .of(Proxy)
    .live(),
    row(
        "enrich.netlink",
        Flag,
        Is("true"),
        "name interfaces of exporters on this host (loopback, or an address of it) as its kernel does",
    )
    .of(Proxy)
    .live(),
    row(
        "enrich.asn",
        Path,
        Off("none"),
        "file in MaxMind's format that has autonomous systems by address; gives them to records that have none",
    )
    .of(Proxy)
    .live(),
    row("enrich.country", Path, Off("none"), "file in MaxMind's format that has countries by address")
        .of(Proxy)
        .live(),
    row("uplink.endpoint", Endpoints, Required, "the collector, or several with one mark store")
        .of(Proxy)
        .live(),
    row("uplink.max_rate", Rate { min: 10 * KIB }, Off("no limit"), "the most that is sent").of(Proxy).live(),
    row(
        "uplink.fresh_after",
        Span { min_ms: SECOND, max_ms: DAY },
        Is("60s"),
        "age of the backlog, on connecting, at which fresh batches go beside it with at least half of the window",
    )
    .of(Proxy)
    .live(),
    row(
        "uplink.max_connection_age",
        Span { min_ms: SECOND, max_ms: 366 * DAY },
        Is("4h"),
        "age, give or take a fifth, at which a connection gives way to a new one, which is made before it ends",
    )
    .of(Proxy)
    .live(),
    row("spool.dir", Path, Is("spool"), "where batches lie until they are acknowledged").of(Proxy),
    row(
        "spool.max_bytes",
        Size { min: 8 * MIB, max: 1024 * TIB },
        Found("the smaller of 8 GiB and a quarter of the file system"),
        "the most that the spool takes on disk; beyond it the oldest is dropped, and counted",
    )
    .of(Proxy),
    row(
        "spool.commit_interval",
        Span { min_ms: 1, max_ms: 60 * SECOND },
        Is("10ms"),
        "how long a batch may wait for its fsync",
    )
    .of(Proxy),
    row(
        "state.dir",
        Path,
        Found("`state` in `spool.dir`"),
        "where templates and what else exporters tell is kept, for the next start",
    )
    .of(Proxy),
    row("batch.max_records", Number { min: 1, max: 65_536 }, Is("8192"), "records that close a batch")
        .of(Proxy)
        .live(),
    row(
        "batch.max_bytes",
        Size { min: 64 * KIB, max: 3 * MIB },
        Is("2MiB"),
        "bytes, not yet packed, that close a batch",
    )
    .of(Proxy)
    .live(),
    row("batch.max_delay", Span { min_ms: 1, max_ms: HOUR }, Is("500ms"), "age that closes a batch")
        .of(Proxy)
        .live(),
    row("listen", Address, Is("127.0.0.1:4440"), "where proxies connect").of(Collector),
    row("sink.jsonl.path", Path, Off("no such sink"), "the file that records are written to, as JSON lines")
        .of(Collector),
    row("sink.jsonl.max_bytes", Size { min: 64 * KIB, max: TIB }, Is("1GiB"), "size that renames the file")
        .of(Collector),
    row(
        "sink.jsonl.max_age",
        Span { min_ms: SECOND, max_ms: 366 * DAY },
        Is("1h"),
        "age that renames the file",
    )
    .of(Collector),
    row(
        "sink.udp.to",
        Addresses { any_port: false },
        Off("no such sink"),
        "where raw datagrams are sent on, each to every address",
    )
    .of(Collector),
    row(
        "sink.udp.max_rate",
        Number { min: 1, max: 10_000_000 },
        Is("20000"),
        "datagrams a second to each address",
    )
    .of(Collector),
    row("sink.null", Section, Off("no such sink"), "takes everything, counts it and keeps nothing")
        .of(Collector),
    row(
        "allow.identities",
        Names,
        Off("every proxy whose certificate is of the CA"),
        "the proxies that may connect, by their identities",
    )
    .of(Collector),
    row("state.dir", Path, Is("collector-state"), "where the marks are kept").of(Collector),
    row("tls.ca", Path, Required, "PEM file with the CA that the other end's certificate comes from").live(),
    row("tls.cert", Path, Required, "PEM file with our certificate, and those between it and the CA").live(),
    row("tls.key", Path, Required, "PEM file with our private key").live(),
    row(
        "admin.listen",
        Address,
        Found("127.0.0.1:9441 (proxy), 127.0.0.1:9442 (collector)"),
        "where /metrics, /healthz, /readyz and /status answer, over plain HTTP to everyone who can connect",
    ),
    row("admin.allow_remote", Flag, Is("false"), "let admin.listen be another address than loopback"),
    row(
        "shutdown.deadline",
        Span { min_ms: 0, max_ms: HOUR },
        Is("10s"),
        "how long SIGTERM and Ctrl-C wait until everything has gone on its way",
    ),
    row("log.filter", Filter, Is("info"), "what is logged; --log and RUST_LOG come before it").live(),
];

/// All rows: those of the table, and those of sections that may stand several times, whose keys have `[]` where a number
/// stands for one of them.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    OPTIONS.iter().chain(super::snmp::ROWS)
}

/// The row of a key; `a[3].b` has that of `a[].b`.
pub fn find(role: Role, key: &str) -> Option<&'static Row> {
    let key = without_numbers(key);
    rows().find(|row| row.key == key && row.belongs_to(role))
}

/// May sections of this name stand several times?
pub fn is_list_of_sections(role: Role, key: &str) -> bool {
    let below = |row: &Row| row.key.strip_prefix(key).is_some_and(|rest| rest.starts_with("[]."));
    rows().any(|row| row.belongs_to(role) && below(row))
}

/// The key as it stands in the table: `a[].b` for `a[3].b`.
pub fn without_numbers(key: &str) -> Cow<'_, str> {
    match key.split_once('[').and_then(|(list, rest)| Some((list, rest.split_once(']')?.1))) {
        Some((list, rest)) => Cow::Owned(format!("{list}[]{rest}")),
        None => Cow::Borrowed(key),
    }
}

/// Those of `keys` that a running process cannot change.
pub fn needing_restart(role: Role, mut keys: Vec<&'static str>) -> Vec<&'static str> {
    keys.retain(|key| !find(role, key).is_some_and(|row| row.live));
    keys
}

/// The options of one role as a Markdown table.
pub fn markdown(role: Role) -> String {
    let mut text = String::from("| key | type | default | SIGHUP | meaning |\n|---|---|---|---|---|\n");
    for row in rows().filter(|row| row.belongs_to(role)) {
        let default = match row.default {
            Is(value) => format!("`{value}`"),
            Found(how) => how.to_owned(),
            Off(means) => means.to_owned(),
            Required => "required".to_owned(),
        };
        let live = if row.live { "yes" } else { "no" };
        let (key, form, meaning) = (row.key, row.form.name(), row.meaning);
        let _ = writeln!(text, "| `{key}` | {form} | {default} | {live} | {meaning} |");
    }
    text
}
