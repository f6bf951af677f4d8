//! Every option: its type, unit, default and check. The only door: nothing else reads the environment or a file of
//! settings.
//!
//! A config is a TOML file; over it lie environment variables: `FLOWPROXY__UPLINK__ENDPOINT` sets `endpoint` in
//! `[uplink]`, lists are separated by commas. Variables that do not begin with `FLOWPROXY__` are not looked at.
//! Relative paths start at the file's folder, wherever they are given. The table of options is [`options`].
//!
//! All faults are told at once, each with its place, key, value and what is allowed: a key that does not exist is
//! a fault like a value that cannot be.
//!
//! | module | what it does |
//! |---|---|
//! | [`options`] | the table |
//! | `layers` | file and environment become one value per key, with its place |
//! | `parse` | a value becomes a size, an address, a span of time |
//! | `fields` | takes values by key and gathers faults |
//! | `secret`, `snmp` | what is asked of devices, and with which secrets; each is read here, once |
//! | `proxy`, `collector` | the structs, and what has to hold between options |

mod collector;
mod fault;
mod fields;
mod layers;
pub mod options;
mod parse;
mod proxy;
mod secret;
mod snmp;

pub use collector::{Collector, Jsonl, Sinks, Udp};
pub use fault::{Fault, Faults, Place};
pub use options::Role;
pub use parse::size_text;
pub use proxy::{ADMIN as PROXY_ADMIN, Batch, Decode, Enrich, Limit, Listen, Proxy, Spool, Uplink};
pub use secret::Secret;
pub use snmp::{Access, Authentication, Digest, Privacy, Snmp};

use fields::Fields;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The PEM files of one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The CA that the other end's certificate comes from.
    pub ca: PathBuf,
    /// Our certificate and its intermediates.
    pub cert: PathBuf,
    /// Our private key.
    pub key: PathBuf,
}

/// The files that a config names, be it sound or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `Tls` and `Enrich`")]
pub struct Named {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub static_file: Option<PathBuf>,
    pub asn: Option<PathBuf>,
    pub country: Option<PathBuf>,
}

/// Where state is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Loopback, unless the operator allowed others.
    pub listen: SocketAddr,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long to wait until everything has gone on its way.
    pub deadline: Duration,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Level or filter as `tracing_subscriber::EnvFilter` reads it.
    pub filter: String,
}

/// An endpoint as the operator wrote it: a `Uri` shows a path of "/" that was not there.
pub fn endpoint_text(endpoint: &http::Uri) -> String {
    endpoint.to_string().trim_end_matches('/').to_owned()
}

/// A config of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Config {
    /// For `flowproxy run`.
    Proxy(Box<Proxy>),
    /// For `flowproxy collect`.
    Collector(Box<Collector>),
}

/// Reads a proxy's config from `file` and this process's environment.
pub fn proxy(file: &Path) -> Result<Proxy, Faults> {
    read(Role::Proxy, file, &environment(), proxy::build)
}

/// Reads a collector's config from `file` and this process's environment.
pub fn collector(file: &Path) -> Result<Collector, Faults> {
    read(Role::Collector, file, &environment(), collector::build)
}

/// Reads a config of either kind, told apart by its keys.
pub fn either(file: &Path) -> Result<Config, Faults> {
    let variables = environment();
    match role(&layers::outline(file, &variables)).unwrap_or(Role::Proxy) {
        Role::Proxy => {
            read(Role::Proxy, file, &variables, proxy::build).map(|it| Config::Proxy(Box::new(it)))
        }
        Role::Collector => read(Role::Collector, file, &variables, collector::build)
            .map(|it| Config::Collector(Box::new(it))),
    }
}

/// Whose config a file is; `None` where its keys do not tell.
pub fn role_of(file: &Path) -> Option<Role> {
    role(&layers::outline(file, &environment()))
}

/// Whose config a file is, and the files that it names, whatever else is wrong with it.
pub fn named(file: &Path) -> (Role, Named) {
    let variables = environment();
    let role = role(&layers::outline(file, &variables)).unwrap_or(Role::Proxy);
    let is_option = |key: &str| options::find(role, key).is_some();
    let Ok((given, _)) =
        layers::read(file, &variables, is_option, |key| options::is_list_of_sections(role, key))
    else {
        return (role, Named::default());
    };
    let mut fields = Fields::new(role, file, given, Vec::new());
    let [ca, cert, key] = ["tls.ca", "tls.cert", "tls.key"].map(|key| fields.path(key));
    let [static_file, asn, country] = ["enrich.static", "enrich.asn", "enrich.country"].map(|key| {
        let path = (role == Role::Proxy).then(|| fields.path_if_given(key));
        path.flatten().flatten()
    });
    (role, Named { ca, cert, key, static_file, asn, country })
}

fn environment() -> Vec<(OsString, OsString)> {
    std::env::vars_os().collect()
}

fn read<T>(
    role: Role,
    file: &Path,
    variables: &[(OsString, OsString)],
    build: impl Fn(&mut Fields) -> Option<T>,
) -> Result<T, Faults> {
    let is_option = |key: &str| options::find(role, key).is_some();
    let is_list = |key: &str| options::is_list_of_sections(role, key);
    let (given, faults) = layers::read(file, variables, is_option, is_list).map_err(Faults)?;
    let mut fields = Fields::new(role, file, given, faults).in_environment(variables);
    match build(&mut fields) {
        Some(config) if fields.is_sound() => Ok(config),
        _ => Err(Faults(fields.into_faults())),
    }
}

/// Whose config has these top-level names, if that is plain; the flag says which of them are sections.
fn role(outline: &[(String, bool)]) -> Option<Role> {
    let points = |(name, is_section): &(String, bool)| match name.as_str() {
        "listen" if !is_section => -1,
        "sink" | "allow" => -1,
        "listen" | "limit" | "decode" | "enrich" | "uplink" | "spool" | "batch" => 1,
        _ => 0,
    };
    match outline.iter().map(points).sum::<i32>() {
        ..0 => Some(Role::Collector),
        0 => None,
        1.. => Some(Role::Proxy),
    }
}

fn tls(fields: &mut Fields) -> Option<Tls> {
    let (ca, cert, key) = (fields.path("tls.ca"), fields.path("tls.cert"), fields.path("tls.key"));
    Some(Tls { ca: ca?, cert: cert?, key: key? })
}

fn admin(fields: &mut Fields, default: SocketAddr) -> Option<Admin> {
    let allow_remote = fields.flag("admin.allow_remote");
    let listen = fields.address("admin.listen", default)?;
    if !listen.ip().to_canonical().is_loopback() && !allow_remote? {
        let wrong = "is not loopback: everyone who can connect could read it".to_owned();
        fields.refuse("admin.listen", wrong, "127.0.0.1 or [::1], or admin.allow_remote = true");
    }
    Some(Admin { listen })
}

fn shutdown(fields: &mut Fields) -> Option<Shutdown> {
    Some(Shutdown { deadline: fields.span("shutdown.deadline")? })
}

fn log(fields: &mut Fields) -> Option<Log> {
    Some(Log { filter: fields.filter("log.filter")? })
}

/// Would two sockets take each other's traffic? A wildcard address covers every other of its family; two ports 0
/// are two ports.
fn same_address(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| a == b || (a.is_unspecified() && a.is_ipv4() == b.is_ipv4());
    let (x, y) = (a.ip().to_canonical(), b.ip().to_canonical());
    a.port() == b.port() && a.port() != 0 && (covers(x, y) || covers(y, x))
}

#[cfg(test)]
mod tests;
