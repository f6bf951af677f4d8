//! How much names may take: of the payload, and of every record once it is written out.
//!
//! A collector takes 4 MiB of payload, 8 MiB of it expanded, and 64 MiB of records written out (batch.proto). Records
//! are within that without names: 3 MiB (`batch.max_bytes` at most), the datagram that filled the batch, and less
//! than 40 MiB written out. [`MOST_BYTES`] and [`MOST_WRITTEN`] come on top of it and stay below, whatever names are
//! known: what there is no room for is cut, or left out.

use super::names::{InterfaceText, SenderText};
use crate::proto;

/// Bytes that names take in a payload at most.
const MOST_BYTES: usize = 512 << 10;

/// Bytes that names take beside a batch's records once they are written out, at most.
const MOST_WRITTEN: usize = 20 << 20;

/// Bytes of single texts, and of all that is said of a sender or an interface.
const MOST_NAME: usize = 128;
const MOST_DESCRIPTION: usize = 256;
const MOST_OF_SENDER: usize = 1_024;
const MOST_OF_INTERFACE: usize = MOST_NAME + MOST_DESCRIPTION;

/// Labels in a payload (batch.proto).
const MOST_LABELS: usize = 65_536;

/// Key and length of a message, at most.
const HEAD_BYTES: usize = 4;

/// What is left for the names of one batch.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    of_sender: usize,
    of_interface: usize,
    labels: usize,
    left_out: usize,
}

impl Room {
    /// For a batch of so many records, each of which has at most so many interfaces.
    pub(super) fn new(records: usize, ends: usize) -> Room {
        let each = MOST_WRITTEN / records.max(1);
        Room {
            bytes: MOST_BYTES,
            of_sender: (each / 2).min(MOST_OF_SENDER),
            of_interface: (each / 2 / ends.max(1)).min(MOST_OF_INTERFACE),
            labels: MOST_LABELS,
            left_out: 0,
        }
    }

    /// Takes room for a message of so many bytes; otherwise it is left out, and counted.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        self.take_part(bytes + HEAD_BYTES)
    }

    /// Takes room for so many bytes in a message; otherwise they are left out, and counted.
    pub(super) fn take_part(&mut self, bytes: usize) -> bool {
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.unwrap_or(self.bytes);
        self.left_out += usize::from(left.is_none());
        left.is_some()
    }

    /// Puts as much of the text into the message as there is room for.
    pub(super) fn name(&mut self, exporter: &mut proto::Exporter, text: &SenderText) {
        let mut left = self.of_sender;
        let mut take = |text: &str| {
            let text = cut(text, left.min(MOST_NAME)).to_owned();
            left -= text.len();
            text
        };
        let (name, site) = (take(&text.name), take(&text.site));
        let mut bytes = name.len() + site.len();
        let mut labels = Vec::new();
        for (key, value) in &text.labels {
            let (key, value) = (cut(key, MOST_NAME), cut(value, MOST_DESCRIPTION));
            let label = key.len() + value.len();
            if label <= left && labels.len() < self.labels {
                left -= label;
                bytes += label + 3 * HEAD_BYTES;
                labels.push((key.to_owned(), value.to_owned()));
            } else {
                self.left_out += 1;
            }
        }
        if self.take(bytes + 2 * HEAD_BYTES) {
            self.labels -= labels.len();
            exporter.name = name;
            exporter.site = site;
            exporter.labels = labels.into_iter().collect();
        }
    }

    /// The message of an interface, as long as there is room for it.
    pub(super) fn interface(&self, exporter: u32, index: u32, text: &InterfaceText) -> proto::Interface {
        let name = cut(&text.name, self.of_interface.min(MOST_NAME));
        let description = cut(&text.description, (self.of_interface - name.len()).min(MOST_DESCRIPTION));
        proto::Interface {
            exporter,
            index,
            name: name.to_owned(),
            description: description.to_owned(),
            speed: text.speed,
            source: text.source as i32,
            age: text.age,
        }
    }

    /// How much there was no room for: senders, labels, interfaces and addresses.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }
}

/// The text up to so many bytes.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or("")
}
