//! Asks devices once, and says in a sentence what came of it.

use super::credential::{Credential, Credentials, Level};
use super::error::Error;
use super::metrics::Metrics;
use super::reading::{self, Reading};
use super::rounds::READING_TIME;
use super::session::{self, Session};
use crate::config;
use std::net::IpAddr;
use std::sync::Arc;

/// What a credential has brought at a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who was asked.
    pub device: IpAddr,
    /// With what: version and port; empty if there is no credential for it.
    pub by: String,
    /// What it said.
    pub said: Result<Found, Error>,
}

/// Who a device is, and how many interfaces it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// sysName; empty if not told.
    pub name: String,
    /// Its interfaces.
    pub interfaces: usize,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { device, by, said } = self;
        match said {
            Ok(Found { name, interfaces }) => {
                let name = if name.is_empty() { "a device that does not tell its name" } else { name };
                write!(f, "{device} ({by}): found {name}, with {interfaces} interfaces")
            }
            Err(error) if by.is_empty() => write!(f, "{device}: {error}"),
            Err(error) => write!(f, "{device} ({by}): {error}"),
        }
    }
}

/// The devices that networks of one address name.
pub fn named(settings: &[config::Snmp]) -> Vec<IpAddr> {
    let networks = settings.iter().flat_map(|entry| &entry.networks);
    let mut named = Vec::new();
    for network in networks.filter(|network| network.prefix_len() == network.max_prefix_len()) {
        if !named.contains(&network.addr()) {
            named.push(network.addr());
        }
    }
    named
}

/// Asks each device with the credentials for it, in the order of a running proxy, until one is taken: an answer for each
/// that was used.
pub async fn ask(settings: &[config::Snmp], devices: &[IpAddr]) -> Vec<Answer> {
    let credentials = Credentials::new(settings, &Credentials::default());
    let mut answers = Vec::new();
    for device in devices.iter().map(IpAddr::to_canonical) {
        let candidates = credentials.of(device);
        if candidates.is_empty() {
            let said = Err(Error::Local("it is in no network of [[enrich.snmp]]".to_owned()));
            answers.push(Answer { device, by: String::new(), said });
        }
        for credential in candidates {
            let said = once(&credential, device).await;
            let is_last = !matches!(&said, Err(error) if error.asks_for_another());
            answers.push(Answer { device, by: credential.words(), said });
            if is_last {
                break;
            }
        }
    }
    answers
}

async fn once(credential: &Arc<Credential>, device: IpAddr) -> Result<Found, Error> {
    let metrics = Metrics::default();
    let reading = async {
        let retries = credential.settings.retries;
        let session = Session::open(credential, device, (Level::Whole, retries), &metrics).await?;
        let system = reading::system(&session).await?;
        reading::interfaces(&session, system).await
    };
    let read = tokio::time::timeout(READING_TIME, reading).await;
    match read.unwrap_or(Err(Error::TooSlow(READING_TIME.as_secs()))) {
        Ok(Reading { system, interfaces, .. }) => {
            Ok(Found { name: system.name, interfaces: interfaces.len() })
        }
        Err(error) => Err(session::explain(error, credential, device, &metrics).await),
    }
}
