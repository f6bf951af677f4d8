//! `flowproxy demo --chaos`: the demo's proxy and collector as processes of their own, killed, stopped, cut and
//! stalled at random while the mesh talks.
//!
//! ```text
//! generator --UDP--> proxy (process) --spool--> relay ==TLS==> collector (process) --JSONL files-->
//!                                       |                                                       |
//!                                 spool_reader ------------------> books <---------------- sink_reader
//! ```
//!
//! Both are this program, started as `flowproxy demo-part`: `run` and `collect` with configs in the demo's folder, and an
//! ear for the demo ([`inside`]). Nobody asks them what they lost: every record has a number, and the books hold those
//! that stood in the spool's files and those that came out of the sink's.
//!
//! | if | then |
//! |---|---|
//! | a record stood in a frame of the spool and is neither at the sink nor in a skip row | it is lost: the demo fails |
//! | a record is at the sink again | it came twice: the demo fails |
//! | a record was sent and never stood in the spool | it was cut: a kill took what was not on the disk yet, or nobody listened |
//! | a part ends by itself, fails at its end, or hangs | the demo ends, and says so |
//! | the time is up | all faults are mended, what is in the spool arrives, both parts end in order |
//! | the demo fails | its folder stays, for who wants to know why |

pub mod books;
pub mod inside;
pub mod mishap;
mod part;
mod play;
mod relay;
mod sink_reader;
mod spool_reader;

use super::summary::Summary;
use super::throw_away::{self, ThrowAway};
use super::{Options, SITES, generator_settings};
use crate::config::Tls;
use crate::generator::{self, Generator};
use books::Books;
use part::{Part, Recipe};
use play::{Play, Readers, Site};
use relay::Relay;
use sink_reader::SinkReader;
use spool_reader::SpoolReader;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// What goes wrong in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chaos {
    /// Of the course of faults.
    pub seed: u64,
    /// This program.
    pub program: PathBuf,
}

/// Why the demo did not start.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Its certificates.
    #[error(transparent)]
    Files(#[from] throw_away::Fault),
    /// Its mesh.
    #[error("the mesh does not start: {0}")]
    Mesh(#[from] generator::Fault),
    /// A port, a file, a process.
    #[error("the demo's parts do not start: {0}")]
    System(#[from] io::Error),
}

/// Runs it until its time is up or `stop` is cancelled, and waits for what is in the spool to arrive.
///
/// # Errors
/// When one of its parts cannot be started at all. What goes wrong later is in the summary.
pub async fn run(options: &Options, chaos: &Chaos, stop: CancellationToken) -> Result<Summary, Fault> {
    let files = ThrowAway::new()?;
    let ports = Ports::find()?;
    let relay = Relay::start(ports.collector).await?;
    let (proxy, collector) = write_configs(&files, &ports, relay.address())?;
    let generator = Generator::new(&generator_settings(options.rate, ports.udp))?;
    let dir = files.path();
    let readers = Readers {
        books: Books::new(SITES),
        spool: SpoolReader::new(dir.join(SPOOL)),
        sink: SinkReader::new(dir.join(SINK)),
    };
    let recipe = |name, role: &str, config: &Path| Recipe {
        name,
        program: chaos.program.clone(),
        arguments: ["demo-part".into(), role.into(), config.into()].into(),
        log: dir.join(format!("{role}.log")),
    };
    let site = Site {
        collector: Part::start(recipe("the collector", "collector", &collector))?,
        proxy: Part::start(recipe("the proxy", "proxy", &proxy))?,
        relay,
        admin: ports.admin,
    };
    let mut summary = Play::new(site, readers, options.show, chaos.seed).run(options, generator, stop).await;
    if !summary.is_whole()
        && let Some(outcome) = &mut summary.chaos
    {
        outcome.kept = Some(files.keep());
    }
    Ok(summary)
}

const SPOOL: &str = "spool";
const SINK: &str = "out/flows.jsonl";

/// Ports of loopback that nobody has now. Parts that start again must find theirs, so they cannot be any.
struct Ports {
    udp: SocketAddr,
    admin: SocketAddr,
    collector: SocketAddr,
}

impl Ports {
    fn find() -> io::Result<Self> {
        let anywhere = (Ipv4Addr::LOCALHOST, 0);
        let (admin, collector) = (TcpListener::bind(anywhere)?, TcpListener::bind(anywhere)?);
        Ok(Self {
            udp: UdpSocket::bind(anywhere)?.local_addr()?,
            admin: admin.local_addr()?,
            collector: collector.local_addr()?,
        })
    }
}

/// Writes what `run` and `collect` read; gives where.
fn write_configs(files: &ThrowAway, ports: &Ports, relay: SocketAddr) -> io::Result<(PathBuf, PathBuf)> {
    let dir = files.path();
    let (proxy, collector) = files.tls();
    let (udp, admin, listen) = (ports.udp, ports.admin, ports.collector);
    let proxy = format!(
        "[listen]\nudp = [\"{udp}\"]\n\n[uplink]\nendpoint = \"https://{relay}\"\n\n{}\n[spool]\ndir = \"{SPOOL}\"\n\
         max_bytes = \"1GiB\"\n\n[admin]\nlisten = \"{admin}\"\n\n[shutdown]\ndeadline = \"2s\"\n",
        tls(dir, proxy),
    );
    // Small files, so that they are rotated now and then.
    let collector = format!(
        "listen = \"{listen}\"\n\n{}\n[state]\ndir = \"state\"\n\n[sink.jsonl]\npath = \"{SINK}\"\n\
         max_bytes = \"8MiB\"\n\n[admin]\nlisten = \"127.0.0.1:0\"\n\n[shutdown]\ndeadline = \"2s\"\n",
        tls(dir, collector),
    );
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).map(|()| path)
    };
    Ok((write("proxy.toml", &proxy)?, write("collector.toml", &collector)?))
}

/// Files in the demo's folder are told by their names in it.
fn tls(dir: &Path, of: &Tls) -> String {
    let name = |path: &Path| path.strip_prefix(dir).unwrap_or(path).display().to_string();
    format!("[tls]\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n", name(&of.ca), name(&of.cert), name(&of.key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configs_are_what_run_and_collect_read() {
        let files = ThrowAway::new().unwrap();
        let ports = Ports::find().unwrap();
        let relay = SocketAddr::from(([127, 0, 0, 1], 4_440));
        let (proxy, collector) = write_configs(&files, &ports, relay).unwrap();
        let proxy = crate::config::proxy(&proxy).unwrap();
        assert_eq!(proxy.listen.udp, [ports.udp]);
        assert_eq!(proxy.uplink.endpoints, ["https://127.0.0.1:4440"]);
        assert_eq!(proxy.spool.dir, files.path().join(SPOOL));
        let collector = crate::config::collector(&collector).unwrap();
        assert_eq!(collector.sinks.jsonl.unwrap().path, files.path().join(SINK));
    }
}
