//! Why a file could not be read, and where.

use std::io;

/// What standard input is called where a file's name would stand.
pub(super) const STANDARD_INPUT: &str = "standard input";

/// Why a file could not be read, or not to its end.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum Error {
    #[error("{file}: {}", why_not_opened(error))]
    Open { file: String, error: io::Error },
    #[error("{file}: at byte {offset}: {error}")]
    Read { file: String, offset: u64, error: io::Error },
    #[error("{file}: it is empty")]
    Empty { file: String },
    #[error(
        "{file}: it is compressed with {with}; expand it first: {expand} {} | flowproxy decode -",
        if file == STANDARD_INPUT { "FILE" } else { file }
    )]
    Compressed { file: String, with: &'static str, expand: &'static str },
    #[error(
        "{file}: it is a file of nfdump, with flows that it decoded itself: give a capture of the exporters' packets"
    )]
    Decoded { file: String },
    #[error(
        "{file}: neither pcap nor pcapng nor IPFIX messages: it begins with {first}; editcap -F pcap (Wireshark) converts other captures"
    )]
    Format { file: String, first: String },
    #[error(
        "{file}: at byte {offset}: the file ends inside {what}; it was cut or is still being written; all before it was read"
    )]
    Ended { file: String, offset: u64, what: &'static str },
    #[error("{file}: at byte {offset}: {text}; the file is damaged from there on; all before it was read")]
    Damaged { file: String, offset: u64, text: String },
}

impl Error {
    /// A word for it.
    pub fn label(&self) -> &'static str {
        match self {
            Error::Open { .. } => "file_open",
            Error::Read { .. } => "file_read",
            Error::Empty { .. } | Error::Compressed { .. } | Error::Decoded { .. } | Error::Format { .. } => {
                "file_format"
            }
            Error::Ended { .. } => "file_ended",
            Error::Damaged { .. } => "file_damaged",
        }
    }

    /// Where in the file, in bytes, if it could be read at all.
    pub fn offset(&self) -> Option<u64> {
        match self {
            Error::Read { offset, .. } | Error::Ended { offset, .. } | Error::Damaged { offset, .. } => {
                Some(*offset)
            }
            _ => None,
        }
    }
}

fn why_not_opened(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        _ => error.to_string(),
    }
}
