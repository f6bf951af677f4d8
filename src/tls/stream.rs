//! The handshake at either end, what came of it, and its failures in words.

use super::load::date;
use super::{ALPN, Identity, IdentityError};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, CommonState, ServerConfig};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// A collector's end of a connection.
pub type ServerStream<S> = tokio_rustls::server::TlsStream<S>;
/// A proxy's end of a connection.
pub type ClientStream<S> = tokio_rustls::client::TlsStream<S>;

/// What both ends agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// TLS version: "1.3".
    pub version: &'static str,
    /// Key exchange group, as the IANA registry names it, such as "X25519MLKEM768".
    pub key_exchange: String,
}

/// A connection that a collector has accepted.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The plain text inside.
    pub stream: ServerStream<S>,
    /// What was agreed on.
    pub negotiated: Negotiated,
    /// Whom the verified client certificate names, or why it names nobody.
    pub identity: Result<Identity, IdentityError>,
}

/// A connection that a proxy has made. In TLS 1.3 the collector judges our certificate only after this: its
/// verdict shows at the first read.
#[derive(Debug)]
pub struct Connected<S> {
    /// The plain text inside.
    pub stream: ClientStream<S>,
    /// What was agreed on.
    pub negotiated: Negotiated,
}

/// Why a handshake that we began failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host is neither a DNS name nor an IP address.
    #[error("\"{0}\" is neither a DNS name nor an IP address")]
    Host(String),
    /// The other end, its certificate, or the connection.
    #[error("{}", explain(.0, "the collector"))]
    Handshake(#[from] io::Error),
    /// It speaks TLS and something else than HTTP/2 inside.
    #[error("what listens there speaks TLS, but not HTTP/2 (ALPN h2): it is not a flowproxy collector")]
    NotHttp2,
}

/// Takes a client's handshake.
///
/// # Errors
/// What the connection or the client's certificate failed by; [`explain`] puts it in words.
pub async fn accept<S>(config: Arc<ServerConfig>, socket: S) -> io::Result<Accepted<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = tokio_rustls::TlsAcceptor::from(config).accept(socket).await?;
    let state = stream.get_ref().1;
    if state.alpn_protocol() != Some(ALPN) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the client did not offer HTTP/2 (ALPN h2)"));
    }
    let negotiated = negotiated(state);
    let leaf = state.peer_certificates().and_then(|chain| chain.first());
    let identity = leaf.ok_or(IdentityError::Nothing).and_then(|der| Identity::from_certificate(der));
    Ok(Accepted { stream, negotiated, identity })
}

/// Makes the handshake with a collector that must prove to be `host` (a DNS name or an IP address).
///
/// # Errors
/// When the connection fails, the collector's certificate is refused, or it does not speak HTTP/2.
pub async fn connect<S>(
    config: Arc<ClientConfig>,
    host: &str,
    socket: S,
) -> Result<Connected<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::Host(host.to_owned()))?;
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, socket).await?;
    let state = stream.get_ref().1;
    if state.alpn_protocol() != Some(ALPN) {
        return Err(ConnectError::NotHttp2);
    }
    let negotiated = negotiated(state);
    Ok(Connected { stream, negotiated })
}

fn negotiated(state: &CommonState) -> Negotiated {
    let version = match state.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
        _ => "unknown",
    };
    let group = state.negotiated_key_exchange_group();
    let key_exchange = group.map_or_else(|| "unknown".to_owned(), |group| format!("{:?}", group.name()));
    Negotiated { version, key_exchange }
}

/// A failed handshake, read or write in the words of a network engineer. `other` names the other end, such
/// as "the collector".
pub fn explain(error: &io::Error, other: &str) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => explain_alert(*alert, other),
        Some(rustls::Error::InvalidCertificate(fault)) => explain_certificate(fault, other),
        Some(rustls::Error::NoCertificatesPresented) => format!("{other} showed no certificate"),
        Some(rustls::Error::InvalidMessage(_)) => format!("{other} does not speak TLS there"),
        Some(rustls::Error::PeerIncompatible(reason)) => {
            format!("{other} and we have no TLS parameters in common (TLS 1.3 is required): {reason:?}")
        }
        Some(fault) => format!("TLS with {other} failed: {fault}"),
        None => explain_socket(error, other),
    }
}

fn explain_socket(error: &io::Error, other: &str) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => format!("{other} closed the connection"),
        io::ErrorKind::ConnectionReset => format!("{other} reset the connection"),
        io::ErrorKind::TimedOut => format!("{other} did not answer in time"),
        _ => format!("the connection to {other} failed: {error}"),
    }
}

/// RFC 8446 section 6.2 says when each alert is sent.
fn explain_alert(alert: AlertDescription, other: &str) -> String {
    let meaning = match alert {
        AlertDescription::UnknownCA => "it is not signed by a CA that it trusts",
        AlertDescription::CertificateExpired => "it is expired, or one of the two clocks is wrong",
        AlertDescription::CertificateRevoked => "it is revoked",
        AlertDescription::CertificateRequired => "it got none",
        AlertDescription::UnsupportedCertificate => "it is of a kind or for a purpose that it does not take",
        AlertDescription::BadCertificate => {
            "it is not for the name that it asked for, or it is damaged; its log says which"
        }
        AlertDescription::DecryptError => "its signature is wrong",
        AlertDescription::CertificateUnknown => "see its log for the reason",
        AlertDescription::AccessDenied => "the name in it is not allowed",
        AlertDescription::ProtocolVersion => return format!("{other} does not speak TLS 1.3"),
        AlertDescription::NoApplicationProtocol => return format!("{other} does not speak HTTP/2 there"),
        AlertDescription::UnrecognisedName => {
            return format!("{other} does not know the name that we asked for");
        }
        _ => return format!("{other} ended the TLS connection: {alert:?}"),
    };
    format!("{other} refused our certificate: {alert:?}: {meaning}")
}

fn explain_certificate(fault: &CertificateError, other: &str) -> String {
    match fault {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("the certificate of {other} is not signed by the CA that we trust (tls.ca)")
        }
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the certificate of {other} expired on {}; our clock says {}",
            date(*not_after),
            date(*time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the certificate of {other} is not valid before {}; our clock says {}",
            date(*not_before),
            date(*time)
        ),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the certificate of {other} is not for the name {}, but for: {}",
            expected.to_str(),
            presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", ")
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("the certificate of {other} may not be used at its end of TLS")
        }
        fault => format!("the certificate of {other} is refused: {fault}"),
    }
}

/// A subject alternative name without the kind that the verifier writes around it: `DnsName("a.example")`,
/// `IpAddress(192.0.2.1)`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"'))
}
