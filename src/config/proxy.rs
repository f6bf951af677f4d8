//! The proxy's config.

use super::fields::Fields;
use super::{Admin, Log, Shutdown, Snmp, Tls, same_address};
use http::Uri;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What `flowproxy run` does.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    /// `[listen]`
    pub listen: Listen,
    /// `[limit]`
    pub limit: Limit,
    /// `[decode]`
    pub decode: Decode,
    /// `[enrich]`
    pub enrich: Enrich,
    /// `[uplink]`
    pub uplink: Uplink,
    /// `[tls]`
    pub tls: Tls,
    /// `[spool]`
    pub spool: Spool,
    /// `[state] dir`, if it is given: see [`Proxy::state_dir`].
    pub state_dir: Option<PathBuf>,
    /// `[batch]`
    pub batch: Batch,
    /// `[admin]`
    pub admin: Admin,
    /// `[shutdown]`
    pub shutdown: Shutdown,
    /// `[log]`
    pub log: Log,
}

impl Proxy {
    /// Where what exporters have told is kept.
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| self.spool.dir.join("state"))
    }

    /// The options in which `other` differs, by their keys in [`super::options::OPTIONS`].
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let (a, b) = (self, other);
        let all = [
            ("listen.udp", a.listen.udp != b.listen.udp),
            ("listen.tcp", a.listen.tcp != b.listen.tcp),
            ("listen.raw", a.listen.raw != b.listen.raw),
            ("listen.shards", a.listen.shards != b.listen.shards),
            ("listen.receive_buffer", a.listen.receive_buffer != b.listen.receive_buffer),
            ("listen.obey_udp_withdrawals", a.listen.obey_udp_withdrawals != b.listen.obey_udp_withdrawals),
            ("listen.allow", a.listen.allow != b.listen.allow),
            ("limit.datagrams", a.limit.datagrams != b.limit.datagrams),
            ("limit.bytes", a.limit.bytes != b.limit.bytes),
            ("decode.sampling", a.decode != b.decode),
            ("enrich.static", a.enrich.static_file != b.enrich.static_file),
            ("enrich.netlink", a.enrich.netlink != b.enrich.netlink),
            ("enrich.asn", a.enrich.asn != b.enrich.asn),
            ("enrich.country", a.enrich.country != b.enrich.country),
            ("uplink.endpoint", a.uplink.endpoints != b.uplink.endpoints),
            ("uplink.max_rate", a.uplink.max_rate != b.uplink.max_rate),
            ("uplink.fresh_after", a.uplink.fresh_after != b.uplink.fresh_after),
            ("uplink.max_connection_age", a.uplink.max_connection_age != b.uplink.max_connection_age),
            ("tls.ca", a.tls.ca != b.tls.ca),
            ("tls.cert", a.tls.cert != b.tls.cert),
            ("tls.key", a.tls.key != b.tls.key),
            ("spool.dir", a.spool.dir != b.spool.dir),
            ("spool.max_bytes", a.spool.max_bytes != b.spool.max_bytes),
            ("spool.commit_interval", a.spool.commit_interval != b.spool.commit_interval),
            ("state.dir", a.state_dir != b.state_dir),
            ("enrich.snmp[].networks", a.enrich.snmp != b.enrich.snmp),
            ("batch.max_records", a.batch.max_records != b.batch.max_records),
            ("batch.max_bytes", a.batch.max_bytes != b.batch.max_bytes),
            ("batch.max_delay", a.batch.max_delay != b.batch.max_delay),
            ("admin.listen", a.admin != b.admin),
            ("shutdown.deadline", a.shutdown != b.shutdown),
            ("log.filter", a.log != b.log),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// Those of the differences that only a restart can bring into effect.
    pub fn needing_restart(&self, other: &Self) -> Vec<&'static str> {
        super::options::needing_restart(super::Role::Proxy, self.differences(other))
    }
}

/// Where flow comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Addresses whose datagrams are decoded.
    pub udp: Vec<SocketAddr>,
    /// Addresses that take IPFIX over TCP.
    pub tcp: Vec<SocketAddr>,
    /// Addresses whose datagrams are forwarded unread.
    pub raw: Vec<SocketAddr>,
    /// Threads that receive.
    pub shards: usize,
    /// Bytes of kernel buffer to ask for, each socket.
    pub receive_buffer: usize,
    /// Template withdrawals over UDP take effect.
    pub obey_udp_withdrawals: bool,
    /// Networks that exporters may be in; `None` is everyone.
    pub allow: Option<Vec<IpNet>>,
}

/// What is taken of one source address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Datagrams a second.
    pub datagrams: Option<u64>,
    /// Bytes of UDP payload a second.
    pub bytes: Option<u64>,
}

/// How flow is decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decode {
    /// Sampling rates for exporters that do not tell theirs: one packet in so many, by network.
    pub sampling: Vec<(IpNet, u32)>,
}

/// Where names beside numbers come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enrich {
    /// The operator's names of exporters and interfaces; `None` is no such file.
    pub static_file: Option<PathBuf>,
    /// This host's kernel is asked about interfaces of exporters on this host.
    pub netlink: bool,
    /// Autonomous systems by address, in MaxMind's format; `None` is no look-up.
    pub asn: Option<PathBuf>,
    /// Countries by address, in MaxMind's format; `None` is no look-up.
    pub country: Option<PathBuf>,
    /// Devices that are asked for the names of their interfaces, in the order of the file.
    pub snmp: Vec<Snmp>,
}

/// Where flow goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Collectors of one mark store, each `https://HOST:PORT`; at least one.
    pub endpoints: Vec<Uri>,
    /// The most that is sent, in bytes per second.
    pub max_rate: Option<u64>,
    /// The age of the backlog at which fresh batches go beside it.
    pub fresh_after: Duration,
    /// The age at which a connection gives way to another, give or take a fifth.
    pub max_connection_age: Duration,
}

/// Where batches wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// The folder.
    pub dir: PathBuf,
    /// The most that it takes on disk.
    pub max_bytes: u64,
    /// How long a batch may wait for its fsync.
    pub commit_interval: Duration,
}

/// What closes a batch: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Records, at most 65,536.
    pub max_records: usize,
    /// Bytes before packing.
    pub max_bytes: usize,
    /// Age of its first record.
    pub max_delay: Duration,
}

impl Default for Batch {
    #[expect(clippy::expect_used, reason = "a test reads every default of the table")]
    fn default() -> Self {
        let mut fields =
            Fields::new(super::Role::Proxy, Path::new(""), std::collections::BTreeMap::new(), vec![]);
        batch(&mut fields).expect("the table's defaults can be read")
    }
}

const GIB: u64 = 1 << 30;
/// Where a proxy's admin port is unless its config says otherwise.
pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9441);

/// Takes the proxy's config out of `fields`; `None` if there is a fault that leaves a hole in it.
pub(super) fn build(fields: &mut Fields) -> Option<Proxy> {
    let listen = listen(fields);
    let limit = limit(fields);
    let decode = fields.network_rates("decode.sampling").map(|sampling| Decode { sampling });
    let enrich = enrich(fields);
    let uplink = uplink(fields);
    let tls = super::tls(fields);
    let spool = spool(fields);
    let state_dir = fields.path_if_given("state.dir");
    let batch = batch(fields);
    let admin = super::admin(fields, ADMIN);
    let shutdown = super::shutdown(fields);
    let log = super::log(fields);
    Some(Proxy {
        listen: listen?,
        limit: limit?,
        decode: decode?,
        enrich: enrich?,
        uplink: uplink?,
        tls: tls?,
        spool: spool?,
        state_dir: state_dir?,
        batch: batch?,
        admin: admin?,
        shutdown: shutdown?,
        log: log?,
    })
}

fn listen(fields: &mut Fields) -> Option<Listen> {
    if !["listen.udp", "listen.tcp", "listen.raw"].iter().any(|key| fields.is_given(key)) {
        let allowed =
            "listen.udp = [\"127.0.0.1:2055\"], listen.tcp = [...], listen.raw = [...], or several of them";
        fields.missing("listen", "says nowhere to listen", allowed);
    }
    let udp = fields.addresses("listen.udp");
    let tcp = fields.addresses("listen.tcp");
    let raw = fields.addresses("listen.raw");
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(256));
    let shards = fields.number("listen.shards", cores as u64);
    let receive_buffer = fields.size("listen.receive_buffer", || 0);
    let obey_udp_withdrawals = fields.flag("listen.obey_udp_withdrawals");
    let allow = fields.networks("listen.allow");
    let (udp, tcp, raw) = (udp?, tcp?, raw?);
    distinct(fields, &[("listen.udp", &udp), ("listen.raw", &raw)]);
    distinct(fields, &[("listen.tcp", &tcp)]);
    Some(Listen {
        udp,
        tcp,
        raw,
        shards: usize::try_from(shards?).ok()?,
        receive_buffer: usize::try_from(receive_buffer?).ok()?,
        obey_udp_withdrawals: obey_udp_withdrawals?,
        allow: allow?,
    })
}

fn limit(fields: &mut Fields) -> Option<Limit> {
    let (datagrams, bytes) = (fields.number_if_given("limit.datagrams"), fields.rate("limit.bytes"));
    Some(Limit { datagrams: datagrams?, bytes: bytes? })
}

fn enrich(fields: &mut Fields) -> Option<Enrich> {
    let static_file = fields.path_if_given("enrich.static");
    let netlink = fields.flag("enrich.netlink");
    let (asn, country) = (fields.path_if_given("enrich.asn"), fields.path_if_given("enrich.country"));
    let snmp = super::snmp::build(fields);
    Some(Enrich { static_file: static_file?, netlink: netlink?, asn: asn?, country: country?, snmp: snmp? })
}

/// Refuses two sockets of one transport on one address.
fn distinct(fields: &mut Fields, lists: &[(&'static str, &[SocketAddr])]) {
    let all: Vec<_> = lists.iter().flat_map(|(key, list)| list.iter().map(|one| (*key, *one))).collect();
    let keys: Vec<_> = lists.iter().map(|(key, _)| *key).collect();
    for (place, (key, address)) in all.iter().enumerate() {
        let earlier = all.iter().take(place).find(|(_, earlier)| same_address(*earlier, *address));
        if let Some((other, earlier)) = earlier {
            let wrong = format!("takes {address}, which {other} takes already ({earlier})");
            fields.refuse(key, wrong, &format!("each address and port once, in {}", keys.join(" or in ")));
        }
    }
}

fn uplink(fields: &mut Fields) -> Option<Uplink> {
    let endpoints = fields.endpoints("uplink.endpoint");
    let max_rate = fields.rate("uplink.max_rate");
    let fresh_after = fields.span("uplink.fresh_after");
    let max_connection_age = fields.span("uplink.max_connection_age");
    let endpoints = endpoints?;
    let twice =
        endpoints.iter().enumerate().find(|(place, uri)| endpoints.iter().take(*place).any(|e| e == *uri));
    if let Some((_, uri)) = twice {
        fields.refuse("uplink.endpoint", format!("names {uri} twice"), "each endpoint once");
    }
    Some(Uplink {
        endpoints,
        max_rate: max_rate?,
        fresh_after: fresh_after?,
        max_connection_age: max_connection_age?,
    })
}

fn spool(fields: &mut Fields) -> Option<Spool> {
    let dir = fields.path("spool.dir");
    let quarter =
        || dir.as_deref().and_then(file_system_bytes).map_or(8 * GIB, |bytes| (bytes / 4).min(8 * GIB));
    let max_bytes = fields.size("spool.max_bytes", quarter);
    let commit_interval = fields.span("spool.commit_interval");
    Some(Spool { dir: dir?, max_bytes: max_bytes?, commit_interval: commit_interval? })
}

fn batch(fields: &mut Fields) -> Option<Batch> {
    let max_records = fields.number("batch.max_records", 0);
    let max_bytes = fields.size("batch.max_bytes", || 0);
    let max_delay = fields.span("batch.max_delay");
    Some(Batch {
        max_records: usize::try_from(max_records?).ok()?,
        max_bytes: usize::try_from(max_bytes?).ok()?,
        max_delay: max_delay?,
    })
}

/// The size of the file system that `dir` lies on, or will lie on once it is made.
fn file_system_bytes(dir: &Path) -> Option<u64> {
    let dir = std::path::absolute(dir).ok()?;
    let there = dir.ancestors().find(|dir| dir.exists())?;
    let facts = rustix::fs::statvfs(there).ok()?;
    facts.f_blocks.checked_mul(facts.f_frsize)
}
