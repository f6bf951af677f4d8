//! Where the log goes and how much of it: stderr, as text or as JSON lines.
//!
//! What counts, first to last: `--log`, the environment variable `RUST_LOG`, the config's `log.filter`. Only the last
//! can change while the process runs.

use super::Failure;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// The flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// What is logged: a level, or a filter such as info,flowproxy::uplink=debug
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// Log as JSON lines
    #[arg(long, global = true)]
    log_json: bool,
}

impl Flags {
    /// The filter that no config can change.
    fn fixed(&self, variable: Option<String>) -> Option<String> {
        self.log.clone().or(variable.filter(|text| !text.is_empty()))
    }
}

/// The log, running.
#[derive(Debug)]
pub struct Log {
    /// `None` when a flag or RUST_LOG decides.
    filter: Option<reload::Handle<EnvFilter, Registry>>,
}

impl Log {
    /// Takes another `log.filter` from the config, unless a flag or RUST_LOG decides.
    pub fn set(&self, filter: &str) {
        let changed = self.filter.as_ref().map(|handle| handle.reload(EnvFilter::new(quiet(filter))));
        if let Some(Err(error)) = changed {
            tracing::warn!(%error, "The log's filter could not be changed");
        }
    }
}

/// The filter, without a library that writes a line for each odd datagram of a device, and at its finest what is in them;
/// unless it is named.
fn quiet(filter: &str) -> String {
    const LIBRARY: &str = "async_snmp";
    match filter.trim() {
        named if named.contains(LIBRARY) => named.to_owned(),
        "" => format!("error,{LIBRARY}=off"),
        other => format!("{other},{LIBRARY}=off"),
    }
}

/// Starts it, once a process.
pub fn start(arguments: &Flags, configured: &str) -> Result<Log, Failure> {
    let fixed = arguments.fixed(std::env::var("RUST_LOG").ok());
    let text = fixed.as_deref().unwrap_or(configured);
    EnvFilter::builder().parse(text).map_err(|error| {
        Failure::Other(format!("--log or RUST_LOG \"{text}\" is not a log filter: {error}"))
    })?;
    let (filter, handle) = reload::Layer::new(EnvFilter::new(quiet(text)));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    if arguments.log_json {
        registry.with(lines.json()).try_init().map_err(Failure::other)?;
    } else {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
        registry.with(lines.with_ansi(colours)).try_init().map_err(Failure::other)?;
    }
    Ok(Log { filter: fixed.is_none().then_some(handle) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_for_snmp_is_heard_only_by_its_name() {
        for (filter, used) in [
            ("", "error,async_snmp=off"),
            ("trace", "trace,async_snmp=off"),
            ("info,async_snmp=debug", "info,async_snmp=debug"),
        ] {
            assert_eq!(quiet(filter), used);
            EnvFilter::builder().parse(used).unwrap();
        }
    }

    #[test]
    fn the_flag_comes_before_the_variable() {
        let flag = Flags { log: Some("debug".into()), log_json: false };
        assert_eq!(flag.fixed(Some("warn".into())).as_deref(), Some("debug"));
        assert_eq!(Flags::default().fixed(Some("warn".into())).as_deref(), Some("warn"));
        assert_eq!(Flags::default().fixed(Some(String::new())), None);
        assert_eq!(Flags::default().fixed(None), None);
    }
}
