//! Certificates of both ends, made once.

use crate::tls::issue::{self, Subject};
use crate::tls::{self, ClientConfig, Files, ServerConfig};
use std::sync::{Arc, OnceLock};

/// The proxies' names.
pub const PROXIES: [&str; 2] = ["edge-0", "edge-1"];
/// The collector's.
pub const COLLECTOR: &str = "collector";

/// What both ends show and trust.
pub struct Keys {
    /// The collector's.
    pub server: Arc<ServerConfig>,
    /// The proxies'.
    pub clients: [Arc<ClientConfig>; PROXIES.len()],
}

/// Those of this process.
pub fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        issue::ca(dir.path()).unwrap();
        let files = |name: &str| {
            let subject = Subject { name, server: name == COLLECTOR, dns: &[], ips: &[] };
            let issued = issue::issue(dir.path(), &subject, dir.path()).unwrap();
            Files { ca: dir.path().join("ca.pem"), cert: issued.cert, key: issued.key }
        };
        Keys {
            server: tls::load_server(&files(COLLECTOR)).unwrap(),
            clients: PROXIES.map(|name| tls::load_client(&files(name)).unwrap()),
        }
    })
}
