//! `flowproxy certs`: a CA for the first day.

use super::Failure;
use crate::tls::issue::{self, Issued, Subject};
use std::net::IpAddr;
use std::path::PathBuf;

/// What to make.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a CA: DIR/ca.pem and DIR/ca.key
    Ca {
        /// The folder; made when it is not there
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Make a certificate from it: DIR/NAME.pem and DIR/NAME.key
    Issue {
        /// The CA's folder
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// A DNS name: a proxy's identity, or what the collector is called
        #[arg(long)]
        name: String,
        /// For a collector; without it for a proxy
        #[arg(long)]
        server: bool,
        /// Another DNS name that proxies reach the collector by; may be given several times
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        dns: Vec<String>,
        /// An IP address that proxies reach the collector by; may be given several times
        #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
        ip: Vec<IpAddr>,
        /// Another folder for the certificate and its key
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// Makes it; the text says where it lies.
pub fn certs(command: &Command) -> Result<String, Failure> {
    let Issued { cert, key } = match command {
        Command::Ca { out } => issue::ca(out),
        Command::Issue { ca, name, server, dns, ip, out } => {
            let subject = Subject { name, server: *server, dns, ips: ip };
            issue::issue(ca, &subject, out.as_ref().unwrap_or(ca))
        }
    }
    .map_err(Failure::other)?;
    Ok(format!("{}\n{}\n", cert.display(), key.display()))
}
