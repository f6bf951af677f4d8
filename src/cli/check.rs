//! `flowproxy check`: reads a config and the files it names, starts nothing.

use super::Failure;
use crate::config::{self, Collector, Config, Proxy, Role, size_text};
use crate::enrich::StaticFile;
use crate::keeper;
use crate::tls;
use std::path::Path;

/// What is wrong with the files that a config names, whatever else is wrong with it.
fn unusable(file: &Path) -> Vec<String> {
    let (role, named) = config::named(file);
    let end = if role == Role::Proxy { tls::End::Client } else { tls::End::Server };
    let tls = tls::faults(end, named.ca.as_deref(), named.cert.as_deref(), named.key.as_deref());
    let names = named.static_file.and_then(|path| StaticFile::read(&path, 0).err());
    tls.iter().map(ToString::to_string).chain(names.iter().map(ToString::to_string)).collect()
}

/// Where `run` and `collect` meet the first fault of a config, or of the files that it names: all of them.
pub(super) fn all_of(file: &Path, first: Failure) -> Failure {
    let of_config = match &first {
        Failure::Config(faults) => Some(faults.to_string()),
        Failure::Tls(_) | Failure::StaticFile(_) => None,
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
