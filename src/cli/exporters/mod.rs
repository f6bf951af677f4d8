//! `flowproxy exporters`: who sends to a running proxy, and why nothing arrives of whom. Asks its admin port.

mod details;
mod rows;
mod table;

use super::Failure;
use crate::{admin, config};
use rows::{Exporter, Status};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// What is asked for.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// One exporter, with all that is known of it and its interfaces: its name, its address, or a host name that leads to it
    #[arg(value_name = "NAME|ADDRESS")]
    exporter: Option<String>,
    /// Where the proxy's admin port is [default: 127.0.0.1:9441]
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config", value_parser = host_and_port)]
    admin: Option<String>,
    /// The proxy's config file, which says where its admin port is
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON: the exporters as in /status
    #[arg(long)]
    json: bool,
}

/// Asks, and prints what comes.
pub fn exporters(arguments: &Arguments) -> Result<(), Failure> {
    let text = text(arguments)?;
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Ok(()),
        // Whoever read us has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::Other(format!("standard output: {error}"))),
    }
}

fn text(arguments: &Arguments) -> Result<String, Failure> {
    let address = admin_address(arguments)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::other)?;
    let answer = runtime.block_on(admin::get(&address, "/status")).map_err(|error| no_answer(&error))?;
    let status: Value = serde_json::from_slice(&answer)
        .map_err(|error| Failure::Other(format!("what {address} answers is no /status: {error}")))?;
    match status.get("role").and_then(Value::as_str) {
        Some("proxy") => {}
        Some(role) => {
            return Err(Failure::Other(format!(
                "{address} is the admin port of a {role}: exporters send to a proxy, whose admin port is another"
            )));
        }
        None => return Err(Failure::Other(format!("what {address} answers is no /status of flowproxy"))),
    }
    let mut status = status;
    if let Some(wanted) = arguments.exporter.as_deref() {
        let exporters = runtime.block_on(named(&address, wanted))?;
        if exporters.is_empty() {
            return Err(not_heard(wanted));
        }
        if let Some(shown) = status.get_mut("exporters") {
            *shown = Value::Array(exporters);
        }
    }
    if arguments.json {
        let shown = status.get("exporters").unwrap_or(&Value::Null);
        return serde_json::to_string_pretty(shown).map(|text| text + "\n").map_err(Failure::other);
    }
    let status: Status = serde_json::from_value(status)
        .map_err(|error| Failure::Other(format!("{address} is of another version of flowproxy: {error}")))?;
    Ok(if arguments.exporter.is_some() { details::text(&status) } else { table::text(&status) })
}

/// All that the proxy at `address` knows of exporters that it calls so, that have that address, or that a host name
/// leads to.
async fn named(address: &str, wanted: &str) -> Result<Vec<Value>, Failure> {
    let found = one(address, wanted).await?;
    if !found.is_empty() || wanted.parse::<IpAddr>().is_ok() {
        return Ok(found);
    }
    let addresses = (wanted, 0).to_socket_addrs().map_err(|error| {
        Failure::Other(format!("no exporter is called {wanted}, and no host is known by that name: {error}"))
    })?;
    let addresses: BTreeSet<IpAddr> = addresses.map(|address| address.ip().to_canonical()).collect();
    let mut exporters = Vec::new();
    for exporter in addresses {
        exporters.extend(one(address, &exporter.to_string()).await?);
    }
    Ok(exporters)
}

/// Exporters by one name or address.
async fn one(address: &str, wanted: &str) -> Result<Vec<Value>, Failure> {
    let mut path = "/exporters/".to_owned();
    for byte in wanted.bytes() {
        match byte {
            b'.' | b'-' | b'_' | b'~' => path.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => path.push(byte.into()),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    match admin::get(address, &path).await {
        Ok(answer) => serde_json::from_slice(&answer)
            .map_err(|error| Failure::Other(format!("what {address} answers is no exporter: {error}"))),
        Err(admin::AskError::Missing { .. }) => Ok(Vec::new()),
        Err(error) => Err(no_answer(&error)),
    }
}

fn not_heard(name: &str) -> Failure {
    Failure::Other(format!(
        "{name} has not been heard since the proxy started: look at what it sends to, at the way between, and at \
         listen.udp in the proxy's config; `tcpdump -n udp and host {name}` on this host shows whether anything comes"
    ))
}

/// Where the admin port is.
fn admin_address(arguments: &Arguments) -> Result<String, Failure> {
    let Some(file) = &arguments.config else {
        return Ok(arguments.admin.clone().unwrap_or_else(|| config::PROXY_ADMIN.to_string()));
    };
    let config = config::proxy(file).map_err(|faults| match config::role_of(file) {
        Some(config::Role::Collector) => Failure::Refused(format!(
            "{}: is the config of a collector; exporters send to a proxy: give the config of that",
            file.display()
        )),
        _ => Failure::Config(faults),
    })?;
    let listen = config.admin.listen;
    if listen.port() == 0 {
        let file = file.display();
        return Err(Failure::Other(format!(
            "admin.listen in {file} takes any free port; the proxy's log says which (admin=...): give it with --admin"
        )));
    }
    Ok(listen.to_string())
}

/// What can be connected to; the error says what is wrong with it.
fn host_and_port(given: &str) -> Result<String, String> {
    let wrong = match given.rsplit_once(':') {
        _ if given.contains("://") => "it is a URL".to_owned(),
        None => "the port is missing".to_owned(),
        Some(("", _)) => "the host is missing".to_owned(),
        Some((host, _)) if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) => {
            "an IPv6 address stands in brackets, with the port behind them".to_owned()
        }
        Some((_, port)) if !port.parse::<u16>().is_ok_and(|port| port > 0) => format!("{port} is no port"),
        Some(_) => return Ok(given.to_owned()),
    };
    Err(format!("{wrong}; give host and port of the proxy's admin port, as 127.0.0.1:9441"))
}

fn no_answer(error: &admin::AskError) -> Failure {
    let hint = match error {
        admin::AskError::Unreachable { .. } => {
            "; is flowproxy running? admin.listen in its config says where it answers (-c FILE or --admin HOST:PORT)"
        }
        _ => "",
    };
    Failure::Other(format!("{error}{hint}"))
}

impl Exporter {
    /// What it is called in texts.
    fn end(&self, port: u16) -> String {
        match self.address.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, port).to_string(),
            Err(_) => self.address.clone(),
        }
    }
}
