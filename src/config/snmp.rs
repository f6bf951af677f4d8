//! `[[enrich.snmp]]`: which devices are asked for the names of their interfaces, and with which secrets.

use super::fields::Fields;
use super::options::{Absent, Form, Role, Row, row};
use super::secret::{self, Secret};
use ipnet::IpNet;
use std::time::Duration;

/// The section, which may stand several times.
pub(super) const SECTION: &str = "enrich.snmp";

/// What RFC 3414 (11.2) demands of passwords.
const LEAST_PASSWORD: usize = 8;

use Absent::{Is, Off, Required};
use Form::{Flag, Networks, Number, Path, Span, Text, Word};

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DIGESTS: &[&str] = &["sha1", "sha224", "sha256", "sha384", "sha512"];
const PRIVACIES: &[&str] = &["aes128", "aes192", "aes256", "aes192c", "aes256c"];

const fn option(key: &'static str, form: Form, default: Absent, meaning: &'static str) -> Row {
    row(key, form, default, meaning).of(Role::Proxy).live()
}

/// The options of each such section.
pub(super) const ROWS: &[Row] = &[
    option("enrich.snmp[].networks", Networks, Required, "the devices that are asked with this credential"),
    option("enrich.snmp[].version", Word(&["2c", "3"]), Required, "version of SNMP"),
    option("enrich.snmp[].community_file", Path, Off("none"), "with 2c: file with the community"),
    option("enrich.snmp[].community_env", Text, Off("none"), "or the variable with it"),
    option("enrich.snmp[].user", Text, Off("none"), "with 3: the user"),
    option(
        "enrich.snmp[].auth",
        Word(DIGESTS),
        Off("none"),
        "with 3: how messages are signed: sha1, sha224, sha256, sha384, sha512",
    ),
    option("enrich.snmp[].auth_file", Path, Off("none"), "with 3: file with the password for that"),
    option("enrich.snmp[].auth_env", Text, Off("none"), "or the variable with it"),
    option(
        "enrich.snmp[].privacy",
        Word(PRIVACIES),
        Off("nothing is encrypted"),
        "with 3: how messages are encrypted: aes128, aes192, aes256 (keys extended as Blumenthal's draft says), \
         aes192c, aes256c (as Reeder's says and Cisco does)",
    ),
    option("enrich.snmp[].privacy_file", Path, Off("none"), "with 3: file with the password for that"),
    option("enrich.snmp[].privacy_env", Text, Off("none"), "or the variable with it"),
    option("enrich.snmp[].port", Number { min: 1, max: 65_535 }, Is("161"), "UDP port of the devices"),
    option(
        "enrich.snmp[].interval",
        Span { min_ms: SECOND, max_ms: 24 * HOUR },
        Is("5m"),
        "time from one reading of a device's tables to the next",
    ),
    option(
        "enrich.snmp[].timeout",
        Span { min_ms: 50, max_ms: 60 * SECOND },
        Is("2s"),
        "how long a device may take for an answer before it is asked again",
    ),
    option(
        "enrich.snmp[].retries",
        Number { min: 0, max: 10 },
        Is("2"),
        "how often it is asked again before the reading has failed",
    ),
    option(
        "enrich.snmp[].try",
        Flag,
        Is("false"),
        "try this credential too where that of a smaller network, or one further up, fails; wrong ones raise alarms and \
         may lock accounts",
    ),
];

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snmp {
    /// Whom it is for.
    pub networks: Vec<IpNet>,
    /// UDP port of the devices.
    pub port: u16,
    /// What proves that we may ask.
    pub access: Access,
    /// From one walk of a device to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How often a request is sent again.
    pub retries: u32,
    /// Tried after others that are for the device too.
    pub is_tried: bool,
}

/// What proves that we may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// SNMPv2c.
    Community(Secret),
    /// SNMPv3.
    User {
        /// Its name.
        name: String,
        /// How messages are signed.
        authentication: Authentication,
        /// How they are encrypted; `None`: they are not.
        privacy: Option<(Privacy, Secret)>,
    },
}

/// A digest and the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// The digest.
    pub digest: Digest,
    /// The password.
    pub password: Secret,
}

/// HMAC of RFC 3414 (SHA-1) and RFC 7860 (the others).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names")]
pub enum Digest {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// AES in CFB mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// RFC 3826.
    Aes128,
    /// Key extended by draft-blumenthal-aes-usm-04.
    Aes192,
    /// Key extended by draft-blumenthal-aes-usm-04.
    Aes256,
    /// Key extended by draft-reeder-snmpv3-usm-3desede-00, as Cisco does.
    Aes192Cisco,
    /// Key extended by draft-reeder-snmpv3-usm-3desede-00, as Cisco does.
    Aes256Cisco,
}

/// Takes all sections out of `fields`; `None` after a fault.
pub(super) fn build(fields: &mut Fields) -> Option<Vec<Snmp>> {
    let all: Vec<_> = (0..fields.sections(SECTION)).map(|number| one(fields, number)).collect();
    all.into_iter().collect()
}

fn one(fields: &mut Fields, number: usize) -> Option<Snmp> {
    let key = |name: &str| format!("{SECTION}[{number}].{name}");
    let networks = fields.networks(&key("networks"));
    let version = fields.word(&key("version"));
    let community = secret::take(fields, &key("community"), 1);
    let user = fields.text_if_given(&key("user"));
    let digest = digest(fields, &key("auth"));
    let password = secret::take(fields, &key("auth"), LEAST_PASSWORD);
    let privacy = fields.word_if_given(&key("privacy"));
    let encryption = secret::take(fields, &key("privacy"), LEAST_PASSWORD);
    let port = fields.number(&key("port"), 0);
    let interval = fields.span(&key("interval"));
    let timeout = fields.span(&key("timeout"));
    let retries = fields.number(&key("retries"), 0);
    let is_tried = fields.flag(&key("try"));
    let access = match version? {
        "2c" => {
            let foreign = ["user", "auth", "auth_file", "auth_env", "privacy", "privacy_file", "privacy_env"];
            refuse_all(fields, &foreign.map(key), "belongs to version \"3\"");
            let community = present(fields, &key("community_file"), community?);
            Access::Community(community?)
        }
        _ => {
            let foreign = ["community_file", "community_env"].map(key);
            refuse_all(fields, &foreign, "belongs to version \"2c\"");
            let name = present(fields, &key("user"), user?);
            let digest = present(fields, &key("auth"), digest?);
            let password = present(fields, &key("auth_file"), password?);
            let privacy = match (privacy?, encryption?) {
                (None, None) => None,
                (Some(word), Some(password)) => Some((privacy_of(word), password)),
                (Some(_), None) => return present(fields, &key("privacy_file"), None),
                (None, Some(_)) => return present(fields, &key("privacy"), None),
            };
            let authentication = Authentication { digest: digest?, password: password? };
            Access::User { name: name?, authentication, privacy }
        }
    };
    Some(Snmp {
        networks: networks??,
        port: u16::try_from(port?).ok()?,
        access,
        interval: interval?,
        timeout: timeout?,
        retries: u32::try_from(retries?).ok()?,
        is_tried: is_tried?,
    })
}

/// What is given, or a fault.
fn present<T>(fields: &mut Fields, key: &str, given: Option<T>) -> Option<T> {
    if given.is_none() {
        fields.missing(key, "is missing", "see the table of options in the README");
    }
    given
}

fn refuse_all(fields: &mut Fields, keys: &[String], wrong: &str) {
    for key in keys.iter().filter(|key| fields.is_given(key)).cloned().collect::<Vec<_>>() {
        fields.refuse(&key, wrong.to_owned(), "not with this version");
    }
}

fn digest(fields: &mut Fields, key: &str) -> Option<Option<Digest>> {
    let word = fields.word_if_given(key)?;
    Some(word.map(|word| match word {
        "sha1" => Digest::Sha1,
        "sha224" => Digest::Sha224,
        "sha384" => Digest::Sha384,
        "sha512" => Digest::Sha512,
        _ => Digest::Sha256,
    }))
}

fn privacy_of(word: &str) -> Privacy {
    match word {
        "aes192" => Privacy::Aes192,
        "aes256" => Privacy::Aes256,
        "aes192c" => Privacy::Aes192Cisco,
        "aes256c" => Privacy::Aes256Cisco,
        _ => Privacy::Aes128,
    }
}
