//! The commands: what the user typed becomes calls into the library, and what comes back becomes text and an exit code.

mod certs;
mod check;
mod collect;
mod decode;
mod demo;
mod exporters;
pub mod logging;
mod panics;
mod run;
mod signals;
mod spool;
mod try_batch;

use crate::enrich::lookup;
use crate::{config, proxy, tls};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};

/// What the user typed.
#[derive(Debug, Parser)]
#[command(name = "flowproxy", version, about, propagate_version = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: logging::Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch it work: a mesh of hosts, a proxy and a collector in one process, with nothing to set up
    Demo(demo::Arguments),
    /// A part of `demo --chaos`, which starts it
    #[command(hide = true)]
    DemoPart(demo::PartArguments),
    /// Take flow from exporters and forward it to a collector (the proxy)
    Run(ConfigFile),
    /// Take flow from proxies and write it to sinks (the collector)
    Collect(ConfigFile),
    /// Read a config as `run` or `collect` would, and tell everything that is wrong with it
    ///
    /// Exit code: 0 when nothing is; 78 when something is, or with --snmp a device has not told its interfaces.
    Check(check::Arguments),
    /// Show who sends to a running proxy, and why of whom nothing arrives
    ///
    /// Exit code: 0 when the proxy has answered; 1 when it has not, or the exporter has not been heard.
    Exporters(exporters::Arguments),
    /// Show what is in captures of flow: pcap, pcapng and IPFIX files
    ///
    /// Exit code: 0 when all files were read whole, whatever was in them; 1 when one was not; 2 when this was not
    /// understood.
    Decode(decode::Arguments),
    /// Decode a batch from standard input: for a collector that wants to know whether that can be survived
    #[command(hide = true)]
    TryBatch(try_batch::Arguments),
    /// Look into a spool's folder, whether or not a proxy runs on it; nothing in it is changed
    #[command(subcommand)]
    Spool(spool::Command),
    /// Make a small CA, and certificates from it
    #[command(subcommand)]
    Certs(certs::Command),
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The config file; environment variables FLOWPROXY__SECTION__NAME lie over it
    #[arg(short, long = "config", value_name = "FILE")]
    config: PathBuf,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The config cannot be used.
    #[error(transparent)]
    Config(#[from] config::Faults),
    /// A certificate or key that the config names cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The operator's names of exporters and interfaces cannot be used.
    #[error("{0}")]
    StaticFile(config::Faults),
    /// Files to look addresses up in cannot be used.
    #[error(transparent)]
    Lookup(#[from] lookup::Unusable),
    /// A config that is not what was asked for, or all that is wrong with one and the files it names, in words.
    #[error("{0}")]
    Refused(String),
    /// What a command was to read cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<proxy::StartError> for Failure {
    fn from(error: proxy::StartError) -> Self {
        match error {
            proxy::StartError::Tls(error) => Self::Tls(error),
            proxy::StartError::StaticFile(faults) => Self::StaticFile(faults),
            proxy::StartError::Lookup(unusable) => Self::Lookup(unusable),
            other => Self::other(other),
        }
    }
}

impl Failure {
    /// The process's exit code: 78 (EX_CONFIG of sysexits.h) when the operator has to change something that the
    /// config says or names, 2 when there was nothing to read, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Tls(_) | Self::StaticFile(_) | Self::Lookup(_) | Self::Refused(_) => 78,
            Self::Unreadable(_) => 2,
            Self::Other(_) => 1,
        }
    }

    /// What is wrong with the config that a role was given: that it is the other's, if that is plain.
    fn config(file: &Path, role: config::Role, faults: config::Faults) -> Self {
        use config::Role::{Collector, Proxy};
        let text = match (role, config::role_of(file)) {
            (Proxy, Some(Collector)) => {
                "is the config of a collector, and `run` starts a proxy; `flowproxy collect -c FILE` starts the collector"
            }
            (Collector, Some(Proxy)) => {
                "is the config of a proxy, and `collect` starts a collector; `flowproxy run -c FILE` starts the proxy"
            }
            _ => return Self::Config(faults),
        };
        let file = file.display().to_string();
        Self::Refused(format!("{file}: {}", text.replace("FILE", &file)))
    }

    fn unreadable(error: impl std::fmt::Display) -> Self {
        Self::Unreadable(error.to_string())
    }

    fn other(error: impl std::fmt::Display) -> Self {
        Self::Other(error.to_string())
    }
}

/// Does what the user asked for.
pub fn execute(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Demo(options) => demo::demo(options, &arguments.log),
        Command::DemoPart(part) => demo::part(&part, &arguments.log),
        Command::Run(file) => run::run(&file.config, &arguments.log),
        Command::Collect(file) => collect::collect(&file.config, &arguments.log, Vec::new()),
        Command::Check(arguments) => check::run(&arguments),
        Command::Exporters(arguments) => exporters::exporters(&arguments),
        Command::Decode(arguments) => decode::decode(&arguments),
        Command::TryBatch(arguments) => try_batch::try_batch(&arguments),
        Command::Spool(command) => spool::spool(&command),
        Command::Certs(command) => certs::certs(&command).map(|made| print!("{made}")),
    }
}

/// So many of something.
fn counted(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

#[cfg(test)]
mod tests;
