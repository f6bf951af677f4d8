//! Certificates, identities and the handshake: the one place that knows rustls, rcgen and x509-parser.
//!
//! Both ends speak TLS 1.3 only, show a certificate and verify the other's; there is no switch to turn any
//! of that off. Key exchange is post-quantum where the other end can (X25519MLKEM768 comes first). Nothing
//! is resumed and nothing is sent early: each connection is judged by the certificates that hold when it is
//! made.
//!
//! One CA signs both ends ([`Files::ca`]). What it trusts is checked when the files are read, so that a
//! wrong file is a sentence at start and not a failed handshake later.

mod identity;
pub mod issue;
mod load;
mod stream;

pub use identity::{Identity, IdentityError};
pub use load::{End, Error, Fault, Files, Role, faults, load_client, load_server, told, valid_from};
pub use rustls::{ClientConfig, ServerConfig};
pub use stream::{
    Accepted, ClientStream, ConnectError, Connected, Negotiated, ServerStream, accept, connect, explain,
};

use std::sync::Arc;

/// HTTP/2 as ALPN names it (RFC 7301, RFC 9113 section 3.2).
const ALPN: &[u8] = b"h2";

/// The cryptography that both ends use: named here, never taken from a process-wide default.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests;
