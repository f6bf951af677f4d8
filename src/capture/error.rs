//! Why a file could not be read, and where.

use std::io;

/// Why a file could not be read, or not to its end.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum Error {
    #[error("{file}: {error}")]
    Open { file: String, error: io::Error },
    #[error("{file}: at byte {offset}: {error}")]
    Read { file: String, offset: u64, error: io::Error },
    #[error("{file}: the file is empty")]
    Empty { file: String },
    #[error("{file}: the file is compressed; expand it first, as with: gzip -dc {file} | flowproxy decode -")]
    Compressed { file: String },
    #[error("{file}: neither pcap nor pcapng nor IPFIX messages: it begins with {first}")]
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
            Error::Empty { .. } | Error::Compressed { .. } | Error::Format { .. } => "file_format",
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
