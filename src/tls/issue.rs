//! A small CA for the first day and for tests: `flowproxy certs`, and the demo's throw-away certificates.
//!
//! Keys are ECDSA P-256, in files of mode 600. No file is ever written over.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a CA is valid.
const CA_LIFE: Duration = DAY.saturating_mul(3650);
/// How long a certificate is valid.
const LEAF_LIFE: Duration = DAY.saturating_mul(397);
/// Certificates begin this much before they are made: hosts whose clock is behind can use them at once.
const CLOCK_SLACK: Duration = Duration::from_secs(60 * 60);

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of that name is there.
    #[error("{} exists already and is not written over; move it away, or choose another folder or name", .0.display())]
    Exists(PathBuf),
    /// There is no CA in the folder.
    #[error("{} is not there; make a CA first with `flowproxy certs ca --out {}`", dir.join(file).display(), dir.display())]
    NoCa {
        /// The folder.
        dir: PathBuf,
        /// The file of the CA's two that is missing.
        file: &'static str,
    },
    /// The disk or its rights.
    #[error("{}: {source}", file.display())]
    Io {
        /// What could not be read or written.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A name that can not stand in a certificate, or not as a file.
    #[error("\"{0}\" can not be a name: it must be a DNS name of letters, digits, \"-\" and \".\"")]
    Name(String),
    /// More names than one would make the client's identity doubtful.
    #[error(
        "a client certificate has exactly one DNS name, which is the proxy's identity; --dns and --ip go with --server"
    )]
    ClientNames,
    /// The CA's files are damaged or do not belong together.
    #[error("the CA in {} can not be used: {reason}", dir.display())]
    Ca {
        /// Its folder.
        dir: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// Where a certificate and its key were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM, mode 600.
    pub key: PathBuf,
}

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// A DNS name: the proxy's identity, or the collector's first name.
    pub name: &'a str,
    /// For a collector: may serve, and carry `dns` and `ips` too.
    pub server: bool,
    /// More DNS names of a collector.
    pub dns: &'a [String],
    /// Addresses of a collector.
    pub ips: &'a [IpAddr],
}

/// Makes a CA, valid for 10 years: `ca.pem` and `ca.key` in `dir`, which is made if it is not there.
///
/// # Errors
/// When one of the files exists or can not be written.
pub fn ca(dir: &Path) -> Result<Issued, Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    let serial = serial();
    // A CA of its own name: two of them are told apart in a bundle and in error messages.
    let short: String = serial.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("flowproxy CA {short}"));
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_life(&mut params, CA_LIFE);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    std::fs::create_dir_all(dir).map_err(|source| Error::Io { file: dir.to_owned(), source })?;
    write_pair(dir, "ca", &certificate.pem(), &key.serialize_pem())
}

/// Issues a certificate, valid for 397 days, from the CA in `ca_dir`: `NAME.pem` and `NAME.key` in `dir`.
///
/// # Errors
/// When the CA can not be read, a name is not usable, or one of the files exists or can not be written.
pub fn issue(ca_dir: &Path, subject: &Subject<'_>, dir: &Path) -> Result<Issued, Error> {
    let issuer = issuer(ca_dir)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.subject_alt_names = alternative_names(subject)?;
    params.distinguished_name.push(DnType::CommonName, subject.name);
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if subject.server {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    set_life(&mut params, LEAF_LIFE);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    write_pair(dir, subject.name, &certificate.pem(), &key.serialize_pem())
}

fn issuer(dir: &Path) -> Result<Issuer<'static, KeyPair>, Error> {
    let read = |name: &'static str| {
        let file = dir.join(name);
        std::fs::read_to_string(&file).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::NoCa { dir: dir.to_owned(), file: name },
            _ => Error::Io { file, source },
        })
    };
    let (certificate, key) = (read("ca.pem")?, read("ca.key")?);
    let unusable = |what: &str, error: rcgen::Error| Error::Ca {
        dir: dir.to_owned(),
        reason: format!("{what}: {error}"),
    };
    let key = KeyPair::from_pem(&key).map_err(|error| unusable("ca.key", error))?;
    let public = key.public_key_raw().to_vec();
    if !holds_key(&certificate, &public) {
        return Err(Error::Ca {
            dir: dir.to_owned(),
            reason: "ca.pem and ca.key do not belong together".to_owned(),
        });
    }
    Issuer::from_ca_cert_pem(&certificate, key).map_err(|error| unusable("ca.pem", error))
}

/// Whether the first certificate of the PEM text is that of this public key.
fn holds_key(pem: &str, public: &[u8]) -> bool {
    x509_parser::pem::parse_x509_pem(pem.as_bytes()).is_ok_and(|(_, section)| {
        section
            .parse_x509()
            .is_ok_and(|certificate| certificate.public_key().subject_public_key.data.as_ref() == public)
    })
}

fn alternative_names(subject: &Subject<'_>) -> Result<Vec<SanType>, Error> {
    let more_dns = subject.dns.iter().filter(|name| *name != subject.name);
    if !subject.server && (more_dns.clone().next().is_some() || !subject.ips.is_empty()) {
        return Err(Error::ClientNames);
    }
    let mut names = Vec::with_capacity(1 + subject.dns.len() + subject.ips.len());
    for name in std::iter::once(subject.name).chain(more_dns.map(String::as_str)) {
        if !is_dns_name(name) {
            return Err(Error::Name(name.to_owned()));
        }
        names.push(SanType::DnsName(name.try_into()?));
    }
    names.extend(subject.ips.iter().copied().map(SanType::IpAddress));
    Ok(names)
}

/// A DNS name (RFC 1123 section 2.1), which is also a file name that stays in its folder.
fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn serial() -> [u8; 16] {
    let mut serial: [u8; 16] = rand::random();
    // RFC 5280 section 4.1.2.2: positive; the second highest bit keeps its length the same in all of them.
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

fn set_life(params: &mut CertificateParams, life: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SLACK).into();
    params.not_after = (now + life).into();
}

fn write_pair(dir: &Path, name: &str, certificate: &str, key: &str) -> Result<Issued, Error> {
    let issued = Issued { cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) };
    if issued.cert.exists() {
        return Err(Error::Exists(issued.cert));
    }
    write_new(&issued.key, key, 0o600)?;
    write_new(&issued.cert, certificate, 0o644)?;
    Ok(issued)
}

fn write_new(file: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let write = || {
        let mut open = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
        open.write_all(text.as_bytes())?;
        open.sync_all()
    };
    write().map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => Error::Exists(file.to_owned()),
        _ => Error::Io { file: file.to_owned(), source },
    })
}
