//! Who a certificate says that its holder is.

use std::fmt;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;

/// The longest identity that is taken, in bytes: as long as a DNS name may be.
const MAX_BYTES: usize = 253;

/// A proxy's name: the only URI of its certificate's subject alternative names, else the only DNS name
/// (forward.proto, WHO). 1 to 253 bytes of printable ASCII without spaces. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(Arc<str>);

/// Why a certificate names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not X.509, or its names can not be read.
    #[error("the certificate can not be read")]
    Malformed,
    /// Several URIs, or no URI and several DNS names.
    #[error("the certificate has {count} {kind} as subject alternative names; it must have exactly one")]
    Several {
        /// "URIs" or "DNS names".
        kind: &'static str,
        /// How many.
        count: usize,
    },
    /// Neither a URI nor a DNS name.
    #[error("the certificate has no URI and no DNS name as subject alternative name")]
    Nothing,
    /// Empty, too long, or with bytes that are not printable.
    #[error("the certificate's name is empty, longer than 253 bytes or not printable ASCII")]
    Unusable,
}

impl Identity {
    /// Reads the identity off a certificate (DER) that has been verified.
    ///
    /// # Errors
    /// When the certificate names nobody, or more than one.
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) =
            x509_parser::parse_x509_certificate(der).map_err(|_| IdentityError::Malformed)?;
        let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Malformed)?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let dns = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(dns) => Some(*dns),
            _ => None,
        });
        match only(uris, "URIs") {
            Err(IdentityError::Nothing) => only(dns, "DNS names"),
            decided => decided,
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn only<'a>(mut names: impl Iterator<Item = &'a str>, kind: &'static str) -> Result<Identity, IdentityError> {
    let name = names.next().ok_or(IdentityError::Nothing)?;
    match names.count() {
        0 if name.is_empty()
            || name.len() > MAX_BYTES
            || !name.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Err(IdentityError::Unusable)
        }
        0 => Ok(Identity(name.into())),
        more => Err(IdentityError::Several { kind, count: more + 1 }),
    }
}
