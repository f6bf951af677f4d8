//! A window that moves over a file: bytes come in at its end and are used up at its start.

use std::io::{self, Read};

/// Bytes that are read at once, and that the window has at first.
const CHUNK_BYTES: usize = 256 << 10;

pub(super) struct Window {
    input: Box<dyn Read>,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes still to be skipped that have not been read.
    skipping: usize,
    offset: u64,
    is_ended: bool,
}

impl Window {
    pub(super) fn new(input: Box<dyn Read>) -> Window {
        Window {
            input,
            bytes: vec![0; CHUNK_BYTES],
            start: 0,
            end: 0,
            skipping: 0,
            offset: 0,
            is_ended: false,
        }
    }

    /// What is in the window.
    pub(super) fn data(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Where in the file that begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Nothing more comes from the file.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Bytes to be skipped that have not come yet.
    pub(super) fn skipping(&self) -> usize {
        self.skipping
    }

    /// Moves the start on, beyond the end if need be.
    pub(super) fn skip(&mut self, bytes: usize) {
        let here = bytes.min(self.end - self.start);
        self.start += here;
        self.skipping += bytes - here;
        self.offset += bytes as u64;
    }

    /// Reads once from the file, so that the window may come to hold `wanted` bytes.
    pub(super) fn fill(&mut self, wanted: usize) -> io::Result<()> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted, 0);
        }
        let room = self.bytes.get_mut(self.end..).unwrap_or_default();
        let read = loop {
            match self.input.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.is_ended = read == 0;
        self.end += read;
        let skipped = self.skipping.min(self.end - self.start);
        self.start += skipped;
        self.skipping -= skipped;
        Ok(())
    }
}
