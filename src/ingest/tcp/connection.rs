//! One connection: bytes in, whole messages out.

use super::queue::{Closed, Content, Delivery, Outbox, SessionId};
use super::{Allows, BUFFER_BYTES, LAST_READS, LOOK_INTERVAL, Metrics};
use crate::flow::Exporter;
use crate::lines::limited;
use crate::places::Place;
use crate::wire::{self, Fault};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// When the proxy stops, an exporter that sends nothing for so long has nothing under way.
const QUIET: Duration = Duration::from_millis(100);

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The exporter closed it.
    Closed,
    /// It broke, or the exporter is not there any more.
    Failed(io::ErrorKind),
    /// What came is no IPFIX message.
    Malformed(Fault),
    /// Its address may not send any more.
    NotAllowed,
    /// The proxy stops.
    Stopped,
}

impl End {
    /// The counter's label: one of [`Metrics::ENDED`].
    fn label(self, is_incomplete: bool) -> &'static str {
        match self {
            End::Malformed(_) => "malformed",
            End::NotAllowed => Metrics::NOT_ALLOWED,
            _ if is_incomplete => "incomplete",
            End::Closed => "closed",
            End::Failed(_) => "failed",
            End::Stopped => "stopped",
        }
    }
}

/// A connection's way to the shard. The shard hears of its end when it is dropped, however that comes.
#[derive(Debug)]
pub(super) struct Line {
    session: SessionId,
    exporter: Exporter,
    outbox: Outbox,
    place: Option<Place>,
}

impl Line {
    pub(super) fn new(session: SessionId, exporter: Exporter, outbox: Outbox, place: Place) -> Line {
        Line { session, exporter, outbox, place: Some(place) }
    }

    async fn messages(&self, bytes: &[u8]) -> Result<(), Closed> {
        self.outbox.messages(self.session, self.exporter, bytes).await
    }

    fn put(&self, content: Content) {
        // When the shard is gone so is the proxy, or it is about to say why.
        let _ = self.outbox.put(Delivery { session: self.session, exporter: self.exporter, content });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let place = self.place.take();
        self.put(Content::End(place));
    }
}

/// A connection that may come in.
pub struct Connection {
    stream: TcpStream,
    line: Line,
    allows: Allows,
    metrics: Metrics,
    /// Begins with a message, of which not all may be there.
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, line: Line, allows: Allows, metrics: Metrics) -> Connection {
        Connection { stream, line, allows, metrics, buffer: Vec::with_capacity(BUFFER_BYTES) }
    }

    /// Reads until the exporter closes, may not send any more, what comes is no IPFIX, or some time after `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let end = match self.read_until(&stop).await {
            End::Stopped => self.read_last().await,
            end => end,
        };
        if let End::Malformed(fault) = end {
            let start = self.buffer.first_chunk().copied().unwrap_or_default();
            self.line.put(Content::Broken { fault, start });
        }
        let label = end.label(!self.buffer.is_empty());
        self.metrics.ended.add(label, 1);
        let exporter = self.line.exporter;
        let (address, port, left) = (exporter.address, exporter.port, self.buffer.len());
        match end {
            End::Malformed(fault) => {
                limited!(warn, exporter = %address, port, reason = %fault, "What an exporter sends is no IPFIX; its connection is closed");
            }
            End::NotAllowed => {
                limited!(warn, exporter = %address, port, "An exporter's address is not in listen.allow any more; its connection is closed");
            }
            End::Failed(error) => {
                limited!(info, exporter = %address, port, %error, incomplete_bytes = left, "An exporter's connection has failed");
            }
            End::Closed | End::Stopped => {
                limited!(info, exporter = %address, port, incomplete_bytes = left, "An exporter's connection is closed");
            }
        }
    }

    async fn read_until(&mut self, stop: &CancellationToken) -> End {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let read = tokio::select! {
                biased;
                () = stop.cancelled() => return End::Stopped,
                _ = look.tick() => match (self.allows)(self.line.exporter.address) {
                    true => continue,
                    false => return End::NotAllowed,
                },
                read = self.stream.read_buf(&mut self.buffer) => read,
            };
            if let Some(end) = self.take(read).await {
                return end;
            }
        }
    }

    /// Closes our end and reads what the exporter has under way: RFC 7011 10.4.4, "SHOULD continue to read IPFIX
    /// Messages until the Exporting Process has closed its end", within bounds.
    async fn read_last(&mut self) -> End {
        // An exporter that is gone already is found out by the reads.
        let _ = self.stream.shutdown().await;
        let until = tokio::time::Instant::now() + LAST_READS;
        while tokio::time::Instant::now() < until {
            let read = tokio::time::timeout(QUIET, self.stream.read_buf(&mut self.buffer)).await;
            let Ok(read) = read else { break };
            match self.take(read).await {
                None => {}
                Some(End::Malformed(fault)) => return End::Malformed(fault),
                Some(_) => break,
            }
        }
        End::Stopped
    }

    /// Hands over the messages that a read has completed; says if it was the last read.
    async fn take(&mut self, read: io::Result<usize>) -> Option<End> {
        match read {
            Ok(0) => return Some(End::Closed),
            Ok(bytes) => drop(self.metrics.bytes.inc_by(bytes as u64)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return None,
            Err(error) => return Some(End::Failed(error.kind())),
        }
        let (count, length, fault) = whole_messages(&self.buffer);
        if let Some(messages) = self.buffer.get(..length).filter(|messages| !messages.is_empty()) {
            self.metrics.messages.inc_by(count);
            if self.line.messages(messages).await.is_err() {
                return Some(End::Stopped);
            }
            self.buffer.drain(..length);
        }
        fault.map(End::Malformed)
    }
}

/// How many whole messages `bytes` begins with, how long they are together, and what is wrong with what follows.
fn whole_messages(bytes: &[u8]) -> (u64, usize, Option<Fault>) {
    let (mut count, mut whole) = (0, 0);
    while let Some(rest) = bytes.get(whole..) {
        match wire::message_length(rest) {
            Ok(Some(length)) if length <= rest.len() => {
                count += 1;
                whole += length;
            }
            Ok(_) => break,
            Err(fault) => return (count, whole, Some(fault)),
        }
    }
    (count, whole, None)
}
