//! Which credential is for which device.

use super::error::Error;
use crate::config::{Access, Digest, Privacy, Snmp};
use async_snmp::{Auth, AuthProtocol, MasterKeys, PrivProtocol, UsmConfig};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

/// One `[[enrich.snmp]]`. Its keys are made once, for that takes a megabyte of hashing.
pub(super) struct Credential {
    pub(super) settings: Snmp,
    keys: OnceLock<[Option<MasterKeys>; 2]>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// How much of a user's security a session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// All of it.
    Whole,
    /// Signed, but not encrypted: to tell a wrong password of privacy from one of authentication.
    Signed,
    /// Its name alone: to tell a wrong name from wrong passwords.
    Named,
}

impl Credential {
    fn new(settings: &Snmp) -> Self {
        Self { settings: settings.clone(), keys: OnceLock::new() }
    }

    /// Is it a user's, with version 3?
    pub(super) fn is_user(&self) -> bool {
        matches!(self.settings.access, Access::User { .. })
    }

    /// Is what it sends encrypted?
    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.settings.access, Access::User { privacy: Some(_), .. })
    }

    /// What it is, without what is secret.
    pub(super) fn words(&self) -> String {
        let version = if self.is_user() { "SNMPv3" } else { "SNMPv2c" };
        format!("{version}, port {}", self.settings.port)
    }

    /// As the library takes it. Takes some milliseconds the first time for a user.
    ///
    /// # Errors
    /// The library does not take the passwords.
    pub(super) fn auth(&self, level: Level) -> Result<Auth, Error> {
        let name = match &self.settings.access {
            Access::Community(community) => return Ok(Auth::v2c(community.reveal())),
            Access::User { name, .. } => name,
        };
        if level == Level::Named {
            return Ok(Auth::usm(name));
        }
        let [whole, signed] = self.keys.get_or_init(|| {
            let signed = self.signing();
            [signed.clone().and_then(|keys| self.encrypting(keys)), signed]
        });
        let keys = if level == Level::Whole { whole } else { signed };
        let refused = || Error::Local("the passwords make no keys".to_owned());
        let keys = keys.clone().ok_or_else(refused)?;
        let user = UsmConfig::new(name.clone()).with_master_keys(keys).map_err(|_| refused())?;
        Ok(Auth::Usm(user))
    }

    fn signing(&self) -> Option<MasterKeys> {
        let Access::User { authentication, .. } = &self.settings.access else { return None };
        let digest = match authentication.digest {
            Digest::Sha1 => AuthProtocol::Sha1,
            Digest::Sha224 => AuthProtocol::Sha224,
            Digest::Sha256 => AuthProtocol::Sha256,
            Digest::Sha384 => AuthProtocol::Sha384,
            Digest::Sha512 => AuthProtocol::Sha512,
        };
        MasterKeys::new(digest, authentication.password.reveal()).ok()
    }

    fn encrypting(&self, keys: MasterKeys) -> Option<MasterKeys> {
        let Access::User { privacy: Some((privacy, password)), .. } = &self.settings.access else {
            return Some(keys);
        };
        let cipher = match privacy {
            Privacy::Aes128 => PrivProtocol::Aes128,
            Privacy::Aes192 => PrivProtocol::Aes192Blumenthal,
            Privacy::Aes256 => PrivProtocol::Aes256Blumenthal,
            Privacy::Aes192Cisco => PrivProtocol::Aes192Reeder,
            Privacy::Aes256Cisco => PrivProtocol::Aes256Reeder,
        };
        keys.with_privacy(cipher, password.reveal()).ok()
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Credentials(Vec<Arc<Credential>>);

impl Credentials {
    /// Of a config; those that `before` has too keep their keys, and who was found to take them.
    pub(super) fn new(settings: &[Snmp], before: &Self) -> Self {
        let one = |settings: &Snmp| {
            let same = before.0.iter().find(|credential| credential.settings == *settings);
            same.map_or_else(|| Arc::new(Credential::new(settings)), Arc::clone)
        };
        Self(settings.iter().map(one).collect())
    }

    /// Nobody is asked.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those for a device, in the order in which they are tried: that of the smallest network it is in, the first of them
    /// in the config; others behind it where either says so.
    pub(super) fn of(&self, device: IpAddr) -> Vec<Arc<Credential>> {
        let device = device.to_canonical();
        let mut all: Vec<_> = self
            .0
            .iter()
            .filter_map(|credential| {
                let networks = credential.settings.networks.iter();
                let smallest = networks.filter(|network| network.contains(&device)).map(|it| it.prefix_len());
                Some((smallest.max()?, credential))
            })
            .collect();
        all.sort_by_key(|(prefix, _)| std::cmp::Reverse(*prefix));
        let tries = all.first().is_some_and(|(_, first)| first.settings.is_tried);
        let tried = |(place, (_, credential)): (usize, &(u8, &Arc<Credential>))| {
            (place == 0 || tries || credential.settings.is_tried).then(|| Arc::clone(credential))
        };
        all.iter().enumerate().filter_map(tried).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use std::time::Duration;

    fn entry(network: &str, port: u16, is_tried: bool) -> Snmp {
        Snmp {
            networks: vec![network.parse().unwrap()],
            port,
            access: Access::Community(Secret::new(b"public").unwrap()),
            interval: Duration::from_secs(300),
            timeout: Duration::from_secs(2),
            retries: 2,
            is_tried,
        }
    }

    fn ports(entries: &[Snmp], device: &str) -> Vec<u16> {
        let credentials = Credentials::new(entries, &Credentials::default());
        credentials.of(device.parse().unwrap()).iter().map(|credential| credential.settings.port).collect()
    }

    #[test]
    fn the_smallest_network_gives_the_only_credential() {
        let entries = [
            entry("0.0.0.0/0", 1, false),
            entry("10.0.0.0/8", 2, false),
            entry("10.1.0.0/16", 3, false),
            entry("10.1.0.0/16", 4, false),
        ];
        assert_eq!(ports(&entries, "10.1.2.3"), [3]);
        assert_eq!(ports(&entries, "10.2.2.3"), [2]);
        assert_eq!(ports(&entries, "192.0.2.1"), [1]);
        assert_eq!(ports(&entries, "::ffff:192.0.2.1"), [1]);
        assert!(ports(&entries, "2001:db8::1").is_empty());
    }

    #[test]
    fn others_are_tried_only_where_that_is_said() {
        let entries =
            [entry("0.0.0.0/0", 1, true), entry("10.0.0.0/8", 2, false), entry("10.1.0.0/16", 3, false)];
        assert_eq!(ports(&entries, "10.1.2.3"), [3, 1]);
        let entries =
            [entry("0.0.0.0/0", 1, false), entry("10.0.0.0/8", 2, false), entry("10.1.0.0/16", 3, true)];
        assert_eq!(ports(&entries, "10.1.2.3"), [3, 2, 1]);
    }
}
