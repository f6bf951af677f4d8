//! Secrets: read from a file or a variable, and never shown.

use super::fields::Fields;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// The most that a file of a secret may hold.
const MOST_BYTES: usize = 4_096;

/// Bytes that are in no log, no status and no `Debug` text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// The bytes, without the end of line that an editor puts behind them; `None` if there are no others.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        (!bytes.is_empty()).then(|| Self(bytes.into()))
    }

    /// The bytes, to use them.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Takes the secret that `{name}_file` or `{name}_env` names: `None` after a fault has been noted, `None` inside if
/// neither is given. One shorter than `least` bytes is a fault.
pub(super) fn take(fields: &mut Fields, name: &str, least: usize) -> Option<Option<Secret>> {
    let (in_file, in_variable) = (format!("{name}_file"), format!("{name}_env"));
    let file = fields.path_if_given(&in_file);
    let variable = fields.text_if_given(&in_variable);
    let (key, secret) = match (file?, variable?) {
        (None, None) => return Some(None),
        (Some(_), Some(_)) => {
            fields.refuse(&in_variable, format!("stands beside {in_file}"), "one of the two");
            return None;
        }
        (Some(file), None) => {
            let secret = std::fs::read(&file).map_err(|error| format!("cannot be read: {error}"));
            (in_file, secret)
        }
        (None, Some(variable)) if variable.starts_with("FLOWPROXY__") => {
            let wrong = "begins with FLOWPROXY__, as variables of options do".to_owned();
            fields.refuse(&in_variable, wrong, "the name of another variable");
            return None;
        }
        (None, Some(variable)) => {
            let value = fields.variable(&variable).map(|value| value.as_bytes().to_vec());
            (in_variable, value.ok_or_else(|| "is not set".to_owned()))
        }
    };
    let allowed = "a file, or with _env a variable, with the secret in it";
    let wrong = match secret.map(|bytes| (bytes.len(), Secret::new(&bytes))) {
        Err(wrong) => wrong,
        Ok((_, None)) => "holds no secret: it is empty".to_owned(),
        Ok((length, _)) if length > MOST_BYTES => format!("holds {length} bytes, which is no secret"),
        Ok((_, Some(secret))) if secret.0.len() < least => {
            format!("holds a password shorter than {least} bytes, which SNMPv3 does not allow")
        }
        Ok((_, Some(secret))) => return Some(Some(secret)),
    };
    fields.refuse(&key, wrong, allowed);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_line_is_no_part_of_it() {
        for text in ["public", "public\n", "public\r\n"] {
            assert_eq!(Secret::new(text.as_bytes()).unwrap().reveal(), b"public");
        }
        assert_eq!(Secret::new(b" a b \n").unwrap().reveal(), b" a b ");
        for text in ["", "\n", "\r\n"] {
            assert!(Secret::new(text.as_bytes()).is_none());
        }
    }

    #[test]
    fn it_is_not_shown() {
        let shown = format!("{:?}", Some(Secret::new(b"hunter22")));
        assert_eq!(shown, "Some(Some(Secret(..)))");
    }
}
