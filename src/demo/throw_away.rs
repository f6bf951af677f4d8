//! What the demo needs on disk and throws away at its end: a CA with two certificates, a spool, a mark store.

use crate::collector::{self, sinks::Sink};
use crate::config::{self, Admin, Batch, Decode, Enrich, Limit, Listen, Log, Shutdown, Spool, Tls, Uplink};
use crate::tls;
use crate::tls::issue::{self, Issued, Subject};
use http::Uri;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Any free port of loopback.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// What the proxy asks of the kernel for each socket, in bytes.
const RECEIVE_BUFFER: usize = 4 << 20;
const SPOOL_BYTES: u64 = 1 << 30;
/// How long each end may take to finish what it has begun.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why there is nothing to start with.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No folder.
    #[error("cannot make a folder in {}: {source}", dir.display())]
    Folder {
        /// Where it should have been.
        dir: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// No certificates.
    #[error(transparent)]
    Certificates(#[from] issue::Error),
    /// Certificates that are of no use.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The collector's address makes no URI.
    #[error("{address} makes no address to connect to: {source}")]
    Endpoint {
        /// Of the collector.
        address: SocketAddr,
        /// What is wrong with it.
        source: http::uri::InvalidUri,
    },
}

/// The folder and what was made in it; dropping it removes both.
#[derive(Debug)]
pub struct ThrowAway {
    dir: TempDir,
    proxy: Tls,
    collector: Tls,
}

impl ThrowAway {
    /// Makes the folder, the CA and both certificates.
    ///
    /// # Errors
    /// When one of them cannot be made.
    pub fn new() -> Result<ThrowAway, Fault> {
        let made = tempfile::Builder::new().prefix("flowproxy-demo-").tempdir();
        let dir = made.map_err(|source| Fault::Folder { dir: std::env::temp_dir(), source })?;
        let certs = dir.path().join("certs");
        let ca = issue::ca(&certs)?;
        let proxy = Subject { name: "demo-proxy", server: false, dns: &[], ips: &[] };
        let ips = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let collector = Subject { name: "localhost", server: true, dns: &[], ips: &ips };
        let issue = |subject| issue::issue(&certs, &subject, &certs).map(|issued| files(&ca, issued));
        Ok(ThrowAway { proxy: issue(proxy)?, collector: issue(collector)?, dir })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What proxy and collector are known by.
    pub fn tls(&self) -> (&Tls, &Tls) {
        (&self.proxy, &self.collector)
    }

    /// Does not remove the folder, and says where it is.
    pub fn keep(self) -> PathBuf {
        self.dir.keep()
    }

    /// A collector on a free port that writes to `sink` only.
    ///
    /// # Errors
    /// When its certificate cannot be used.
    pub fn collector(&self, sink: Box<dyn Sink>) -> Result<collector::Settings, Fault> {
        let Tls { ca, cert, key } = self.collector.clone();
        let tls = tls::load_server(&tls::Files { ca, cert, key })?;
        let mut settings = collector::Settings::new(ANYWHERE, tls, self.path().join("collector-state"));
        settings.sinks.others.push(sink);
        Ok(settings)
    }

    /// A proxy on a free port that sends to the collector at `to`.
    ///
    /// # Errors
    /// When `to` makes no URI.
    pub fn proxy(&self, to: SocketAddr) -> Result<config::Proxy, Fault> {
        let endpoint: Uri =
            format!("https://{to}").parse().map_err(|source| Fault::Endpoint { address: to, source })?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(config::Proxy {
            listen: Listen {
                udp: vec![ANYWHERE],
                tcp: Vec::new(),
                raw: Vec::new(),
                shards: cores.min(2),
                receive_buffer: RECEIVE_BUFFER,
                obey_udp_withdrawals: false,
                allow: None,
            },
            limit: Limit::default(),
            decode: Decode::default(),
            // The mesh's interfaces are not this host's.
            enrich: Enrich::default(),
            uplink: Uplink {
                endpoints: vec![endpoint],
                max_rate: None,
                fresh_after: Duration::from_secs(60),
                max_connection_age: Duration::from_secs(4 * 3600),
            },
            tls: self.proxy.clone(),
            spool: Spool {
                dir: self.path().join("spool"),
                max_bytes: SPOOL_BYTES,
                commit_interval: Duration::from_millis(10),
            },
            state_dir: None,
            batch: Batch::default(),
            admin: Admin { listen: ANYWHERE },
            shutdown: Shutdown { deadline: DEADLINE },
            log: log(),
        })
    }
}

fn files(ca: &Issued, own: Issued) -> Tls {
    Tls { ca: ca.cert.clone(), cert: own.cert, key: own.key }
}

/// The demo sets its own log before anything starts.
fn log() -> Log {
    Log { filter: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::sinks::Null;

    #[test]
    fn both_ends_can_use_what_is_made_and_nothing_is_left() {
        let made = ThrowAway::new().unwrap();
        let collector = made.collector(Box::new(Null)).unwrap();
        let proxy = made.proxy(SocketAddr::from(([127, 0, 0, 1], 4_440))).unwrap();
        let Tls { ca, cert, key } = proxy.tls;
        tls::load_client(&tls::Files { ca, cert, key }).unwrap();
        assert_eq!(proxy.uplink.endpoints, ["https://127.0.0.1:4440"]);
        let path = made.path().to_owned();
        assert!(collector.state_dir.starts_with(&path) && proxy.spool.dir.starts_with(&path));
        drop(made);
        assert!(!path.exists());
    }
}
