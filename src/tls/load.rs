//! Reads CA, certificate and key files into what the two ends need, and says in one sentence what is wrong.

use super::{ALPN, provider};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
use std::fmt;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The largest file that is read: bundles of a few hundred certificates fit, a wrong file does not.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where the certificates lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// PEM: the CA (or several, while one takes the other's place) that signs both ends.
    pub ca: PathBuf,
    /// PEM: this end's certificate first, then the intermediate ones if there are any.
    pub cert: PathBuf,
    /// PEM: the private key of the first certificate in `cert`, unencrypted.
    pub key: PathBuf,
}

/// Which of the three files a fault is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// [`Files::ca`].
    Ca,
    /// [`Files::cert`].
    Cert,
    /// [`Files::key`].
    Key,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Ca => "CA certificate",
            Role::Cert => "certificate",
            Role::Key => "private key",
        })
    }
}

/// A file that can not be used.
#[derive(Debug, thiserror::Error)]
#[error("{role} {}: {fault}", file.display())]
pub struct Error {
    /// Which of the three files.
    pub role: Role,
    /// Its path.
    pub file: PathBuf,
    /// What is wrong with it and what to do.
    pub fault: Fault,
}

/// What is wrong with a file. Each text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No such file.
    #[error("there is no such file; correct the path, or make it with `flowproxy certs`")]
    Missing,
    /// The file is there and can not be read.
    #[error("it can not be read ({0}); check its owner and mode")]
    Unreadable(std::io::Error),
    /// More than a megabyte.
    #[error("it is larger than 1 MiB, which no certificate or key is; correct the path")]
    TooLarge,
    /// A PEM section that begins and does not end, or whose base64 is broken.
    #[error("it is cut short or damaged ({0}); write the whole file again")]
    Damaged(String),
    /// No PEM section of the kind that is looked for.
    #[error("there is no {0} in it; it must be PEM text with {1}")]
    Nothing(Role, &'static str),
    /// The key needs a password.
    #[error("the key is encrypted with a password; decrypt it first (openssl pkey -in ... -out ...)")]
    Encrypted,
    /// PEM around bytes that are no X.509 certificate or no usable private key.
    #[error("its content is not a valid {0} ({1}); write the whole file again")]
    Malformed(Role, String),
    /// None of the certificates may sign others.
    #[error("it holds a certificate that is not a CA's; give the CA's own certificate (ca.pem)")]
    NotCa,
    /// The key belongs to another certificate.
    #[error("it does not belong to the certificate in {}; give the key that was made with it", .0.display())]
    OtherCertificate(PathBuf),
    /// The certificate's time is over.
    #[error("it expired on {0}; issue a new one, or correct this host's clock")]
    Expired(String),
    /// The certificate's time has not come.
    #[error("it is not valid before {}; correct this host's clock, or issue a new one", date(*.from))]
    NotYetValid {
        /// When its time begins.
        from: UnixTime,
        /// This host's clock.
        now: UnixTime,
    },
    /// The extended key usage does not name what this end does.
    #[error("it may not be used by a TLS {0}, only by a {1}; issue one for this end{2}")]
    Purpose(&'static str, &'static str, &'static str),
    /// Not signed by the CA given beside it.
    #[error("it is not signed by the CA in {}; give the CA that signed it, or issue a new one", .0.display())]
    OtherCa(PathBuf),
    /// Anything else that a verifier has against it.
    #[error("it is refused by our own check ({0}); issue a new one")]
    Refused(String),
}

/// Which side of the handshake a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The collector's.
    Server,
    /// The proxy's.
    Client,
}

/// The three files, read and checked for one end.
struct Loaded {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// What a collector needs: TLS 1.3 only, a client certificate signed by the CA required, HTTP/2, no tickets.
///
/// # Errors
/// When a file is missing, unreadable or damaged, when they do not belong together, or when the certificate
/// can not serve as a server's now.
pub fn load_server(files: &Files) -> Result<Arc<ServerConfig>, Error> {
    let Loaded { provider, roots, chain, key } = load(files, End::Server)?;
    let refused = |error: &dyn fmt::Display| files.fault(Role::Ca, Fault::Refused(error.to_string()));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| refused(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| refused(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| refused(&error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// What a proxy needs: TLS 1.3 only, the collector's certificate and name verified, HTTP/2, no resumption.
///
/// A certificate whose time has not come by a clock that is plainly not set yet is taken, with a line in the log:
/// small computers come up in 1970 or at the time of their last image, and flow must not wait until the network has
/// told them the time. Until then each handshake fails by the certificates' times, which both ends check, and
/// [`valid_from`] says when that ends.
///
/// # Errors
/// As [`load_server`], for the client's end.
pub fn load_client(files: &Files) -> Result<Arc<ClientConfig>, Error> {
    let Loaded { provider, roots, chain, key } = load(files, End::Client)?;
    let refused = |error: &dyn fmt::Display| files.fault(Role::Ca, Fault::Refused(error.to_string()));
    let verifier: Arc<dyn ServerCertVerifier> =
        WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| refused(&error))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| refused(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(|error| refused(&error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// When the time of the first certificate in a file begins.
///
/// # Errors
/// When the file can not be read or holds none.
pub fn valid_from(cert: &Path) -> Result<SystemTime, Error> {
    let fault = |fault| Error { role: Role::Cert, file: cert.to_owned(), fault };
    let chain = certificates(cert, Role::Cert).map_err(fault)?;
    let begin = chain.first().and_then(|leaf| {
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
        u64::try_from(parsed.validity().not_before.timestamp()).ok()
    });
    // Before 1970 is always.
    Ok(UNIX_EPOCH + Duration::from_secs(begin.unwrap_or_default()))
}

/// Everything that is wrong with the files, each by itself and beside the others. A file that is `None` is not looked
/// at.
pub fn faults(end: End, ca: Option<&Path>, cert: Option<&Path>, key: Option<&Path>) -> Vec<Error> {
    let named = |path: Option<&Path>| path.map(Path::to_owned).unwrap_or_default();
    let files = Files { ca: named(ca), cert: named(cert), key: named(key) };
    let mut found = Vec::new();
    let mut note = |role, fault| found.push(files.fault(role, fault));
    let ca = ca.and_then(|path| roots(path).map_err(|fault| note(Role::Ca, fault)).ok());
    let chain =
        cert.and_then(|path| certificates(path, Role::Cert).map_err(|fault| note(Role::Cert, fault)).ok());
    let key = key.and_then(|path| private_key(path).map_err(|fault| note(Role::Key, fault)).ok());
    let provider = provider();
    let Some(chain) = chain else { return found };
    if let Some(roots) = ca {
        let verdict = verify(&chain, &roots, &provider, end, &files);
        found.extend(verdict.err().map(|fault| files.fault(Role::Cert, fault)));
    }
    if let Some(key) = key {
        found.extend(belong_together(&chain, &key, &provider, &files).err());
    }
    found
}

/// All that is wrong with files of which one fault has been met, a line each.
pub fn told(end: End, files: &Files, first: &Error) -> String {
    let all = faults(end, Some(&files.ca), Some(&files.cert), Some(&files.key));
    match all.as_slice() {
        [] => first.to_string(),
        all => all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

impl Files {
    fn fault(&self, role: Role, fault: Fault) -> Error {
        let file = match role {
            Role::Ca => &self.ca,
            Role::Cert => &self.cert,
            Role::Key => &self.key,
        };
        Error { role, file: file.clone(), fault }
    }
}

fn load(files: &Files, end: End) -> Result<Loaded, Error> {
    let provider = provider();
    let roots = roots(&files.ca).map_err(|fault| files.fault(Role::Ca, fault))?;
    let chain = certificates(&files.cert, Role::Cert).map_err(|fault| files.fault(Role::Cert, fault))?;
    let key = private_key(&files.key).map_err(|fault| files.fault(Role::Key, fault))?;
    belong_together(&chain, &key, &provider, files)?;
    match verify(&chain, &roots, &provider, end, files) {
        Err(Fault::NotYetValid { from, now }) if end == End::Client && is_unset(now, from) => {
            let (clock, valid_from) = (date(now), date(from));
            tracing::error!(%clock, %valid_from, "This host's clock is not set: flow is taken and kept, and the link waits for the time");
        }
        verdict => verdict.map_err(|fault| files.fault(Role::Cert, fault))?,
    }
    warn_if_open_to_all(&files.key);
    Ok(Loaded { provider, roots, chain, key })
}

fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    let fault = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Fault::Missing,
        _ => Fault::Unreadable(error),
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(fault)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(fault)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Fault::TooLarge);
    }
    Ok(bytes)
}

fn certificates(path: &Path, role: Role) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let bytes = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(damaged)?;
    if chain.is_empty() {
        return Err(Fault::Nothing(role, "a line -----BEGIN CERTIFICATE-----"));
    }
    for der in &chain {
        x509_parser::parse_x509_certificate(der)
            .map_err(|error| Fault::Malformed(role, error.to_string()))?;
    }
    Ok(chain)
}

fn roots(path: &Path) -> Result<Arc<RootCertStore>, Fault> {
    let mut roots = RootCertStore::empty();
    for der in certificates(path, Role::Ca)? {
        let (_, parsed) = x509_parser::parse_x509_certificate(&der)
            .map_err(|error| Fault::Malformed(Role::Ca, error.to_string()))?;
        if !parsed.is_ca() {
            return Err(Fault::NotCa);
        }
        roots.add(der).map_err(|error| Fault::Malformed(Role::Ca, error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Fault> {
    let bytes = read(path)?;
    match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if bytes.windows(9).any(|part| part == b"ENCRYPTED") => {
            Err(Fault::Encrypted)
        }
        Err(pem::Error::NoItemsFound) => Err(Fault::Nothing(Role::Key, "a line -----BEGIN PRIVATE KEY-----")),
        Err(error) => Err(damaged(error)),
    }
}

fn damaged(error: pem::Error) -> Fault {
    Fault::Damaged(match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no -----END line".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a -----BEGIN line is broken".to_owned(),
        pem::Error::Base64Decode(_) => "its base64 is broken".to_owned(),
        other => other.to_string(),
    })
}

fn belong_together(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    provider: &CryptoProvider,
    files: &Files,
) -> Result<(), Error> {
    match CertifiedKey::from_der(chain.to_vec(), key.clone_key(), provider) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(files.fault(Role::Key, Fault::OtherCertificate(files.cert.clone())))
        }
        Err(rustls::Error::InvalidCertificate(error)) => {
            Err(files.fault(Role::Cert, Fault::Malformed(Role::Cert, error.to_string())))
        }
        Err(error) => Err(files.fault(Role::Key, Fault::Malformed(Role::Key, error.to_string()))),
    }
}

/// Judges our own certificate as the other end will, but for the name.
fn verify(
    chain: &[CertificateDer<'static>],
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    end: End,
    files: &Files,
) -> Result<(), Fault> {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(Fault::Nothing(Role::Cert, "a line -----BEGIN CERTIFICATE-----"));
    };
    let now = UnixTime::now();
    let verdict = match end {
        End::Server => ParsedCertificate::try_from(leaf).and_then(|parsed| {
            let algorithms = provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)
        }),
        End::Client => WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))
            .and_then(|verifier| verifier.verify_client_cert(leaf, intermediates, now).map(|_| ())),
    };
    verdict.map_err(|error| match error {
        rustls::Error::InvalidCertificate(error) => judged(error, end, files),
        other => Fault::Refused(other.to_string()),
    })
}

fn judged(error: CertificateError, end: End, files: &Files) -> Fault {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => Fault::Expired(date(not_after)),
        CertificateError::NotValidYetContext { not_before: from, time: now } => {
            Fault::NotYetValid { from, now }
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => match end {
            End::Server => Fault::Purpose("server", "client", " (`flowproxy certs issue --server`)"),
            End::Client => Fault::Purpose("client", "server", " (`flowproxy certs issue` without --server)"),
        },
        // A CA of the same name with another key shows as a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Fault::OtherCa(files.ca.clone()),
        other => Fault::Refused(other.to_string()),
    }
}

/// A clock that says `now` has not been set: it stands before this program was written, or by years before a
/// certificate's time. By less it may be right, and the certificate wrong.
fn is_unset(now: UnixTime, valid_from: UnixTime) -> bool {
    const YEAR_SECONDS: u64 = 365 * 24 * 60 * 60;
    let is_old = !crate::flow::time::is_of_a_set_clock(now.as_secs().saturating_mul(1_000));
    is_old || now.as_secs().saturating_add(YEAR_SECONDS) < valid_from.as_secs()
}

/// As RFC 3339 text.
pub(super) fn date(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| format!("{} s after 1970", time.as_secs()), |stamp| stamp.to_string())
}

fn warn_if_open_to_all(key: &Path) {
    if let Ok(facts) = std::fs::metadata(key) {
        let mode = facts.permissions().mode() & 0o777;
        if mode & 0o007 != 0 {
            let mode = format!("{mode:03o}");
            tracing::warn!(file = %key.display(), mode, "every user of this host may open the private key; set its mode to 600");
        }
    }
}
