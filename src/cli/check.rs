//! `flowproxy check`: reads a config and the files it names, starts nothing.

use super::{ConfigFile, Failure};
use crate::config::{self, Collector, Config, Proxy, Role, size_text};
use crate::enrich::StaticFile;
use crate::enrich::lookup::{self, Databases};
use crate::enrich::snmp::check as snmp;
use crate::keeper;
use crate::tls;
use std::net::IpAddr;
use std::path::Path;

/// What is checked.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Ask devices for their interfaces too, once, with the credentials of [[enrich.snmp]]
    #[arg(long)]
    snmp: bool,
    /// The devices to ask; without them those that a network of one address names
    #[arg(value_name = "ADDRESS", requires = "snmp")]
    devices: Vec<IpAddr>,
}

/// Prints what would run, and what devices say.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let file = &arguments.file.config;
    print!("{}", check(file)?);
    if !arguments.snmp {
        return Ok(());
    }
    let refused = |wrong: &str| Failure::Refused(format!("{}: {wrong}", file.display()));
    let Config::Proxy(proxy) = config::either(file)? else {
        return Err(refused("only a proxy asks devices, and this is the config of a collector"));
    };
    let credentials = &proxy.enrich.snmp;
    let devices = match &arguments.devices[..] {
        [] => snmp::named(credentials),
        devices => devices.to_vec(),
    };
    if credentials.is_empty() {
        return Err(refused("there is no [[enrich.snmp]] in it, so that no device is asked"));
    }
    if devices.is_empty() {
        return Err(refused(
            "no network in it is of one address: say which devices, `check --snmp -c FILE ADDRESS..`",
        ));
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::other)?;
    let answers = runtime.block_on(snmp::ask(credentials, &devices));
    let (found, failed): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.said.is_ok());
    found.iter().for_each(|answer| println!("{answer}"));
    // Where credentials are tried one after the other, one that is taken makes up for those before it.
    let is_open = |answer: &&snmp::Answer| !found.iter().any(|other| other.device == answer.device);
    failed.iter().filter(|answer| !is_open(answer)).for_each(|answer| println!("{answer}"));
    let open: Vec<_> = failed.iter().filter(is_open).map(ToString::to_string).collect();
    if open.is_empty() { Ok(()) } else { Err(Failure::Refused(open.join("\n"))) }
}

/// What is wrong with the files that a config names, whatever else is wrong with it.
fn unusable(file: &Path) -> Vec<String> {
    let (role, named) = config::named(file);
    let end = if role == Role::Proxy { tls::End::Client } else { tls::End::Server };
    let tls = tls::faults(end, named.ca.as_deref(), named.cert.as_deref(), named.key.as_deref());
    let names = named.static_file.and_then(|path| StaticFile::read(&path, 0).err());
    let paths = lookup::Paths { asn: named.asn, country: named.country };
    let lookup = Databases::open(&paths, &lookup::Metrics::new()).err();
    let told = tls.iter().map(ToString::to_string).chain(names.iter().map(ToString::to_string));
    told.chain(lookup.iter().map(ToString::to_string)).collect()
}

/// Where `run` and `collect` meet the first fault of a config, or of the files that it names: all of them.
pub(super) fn all_of(file: &Path, first: Failure) -> Failure {
    let of_config = match &first {
        Failure::Config(faults) => Some(faults.to_string()),
        Failure::Tls(_) | Failure::StaticFile(_) | Failure::Lookup(_) => None,
        _ => return first,
    };
    let unusable = unusable(file);
    if unusable.is_empty() {
        return first;
    }
    let told: Vec<_> = of_config.into_iter().chain(unusable).collect();
    Failure::Refused(told.join("\n"))
}

/// Everything that is wrong, or in a few lines what would run.
pub fn check(file: &Path) -> Result<String, Failure> {
    let config = config::either(file);
    let unusable = unusable(file);
    let config = match config {
        Ok(config) if unusable.is_empty() => config,
        config => {
            let told = config.err().into_iter().map(|faults| faults.to_string());
            let told: Vec<_> = told.chain(unusable).collect();
            return Err(Failure::Refused(told.join("\n")));
        }
    };
    match config {
        Config::Proxy(proxy) => {
            tls::load_client(&(&proxy.tls).into())?;
            keeper::probe(&proxy.state_dir()).map_err(|error| Failure::Refused(error.to_string()))?;
            Ok(of_proxy(file, &proxy))
        }
        Config::Collector(collector) => {
            tls::load_server(&(&collector.tls).into())?;
            Ok(of_collector(file, &collector))
        }
    }
}

fn of_proxy(file: &Path, proxy: &Proxy) -> String {
    let mut text = format!("{}: ok, the config of a proxy\n", file.display());
    let mut say = |what: &str, value: String| text.push_str(&format!("  {what:<12} {value}\n"));
    for address in &proxy.listen.udp {
        say("decodes", format!("udp {address}"));
    }
    for address in &proxy.listen.tcp {
        say("decodes", format!("tcp {address}"));
    }
    for address in &proxy.listen.raw {
        say("relays", format!("udp {address}"));
    }
    if let Some(path) = &proxy.enrich.static_file {
        say("names", path.display().to_string());
    }
    for path in proxy.enrich.asn.iter().chain(&proxy.enrich.country) {
        say("looks up", path.display().to_string());
    }
    say("shards", proxy.listen.shards.to_string());
    for endpoint in &proxy.uplink.endpoints {
        say("sends to", config::endpoint_text(endpoint));
    }
    say("spool", format!("{}, at most {}", proxy.spool.dir.display(), size_text(proxy.spool.max_bytes)));
    say("state", proxy.state_dir().display().to_string());
    say("certificate", proxy.tls.cert.display().to_string());
    say("admin", format!("http://{}", proxy.admin.listen));
    text
}

fn of_collector(file: &Path, collector: &Collector) -> String {
    let mut text = format!("{}: ok, the config of a collector\n", file.display());
    let mut say = |what: &str, value: String| text.push_str(&format!("  {what:<12} {value}\n"));
    say("listens", collector.listen.to_string());
    if let Some(jsonl) = &collector.sinks.jsonl {
        say("sink", format!("jsonl {}", jsonl.path.display()));
    }
    for address in collector.sinks.udp.iter().flat_map(|udp| &udp.to) {
        say("sink", format!("udp {address}"));
    }
    if collector.sinks.null {
        say("sink", "null".to_owned());
    }
    say("marks", collector.state_dir.display().to_string());
    say("certificate", collector.tls.cert.display().to_string());
    say("admin", format!("http://{}", collector.admin.listen));
    text
}
