//! IPFIX over TCP (RFC 7011 10.4): connections accepted, cut into whole messages, handed to the shard that decodes them.
//!
//! ```text
//! Door --accepts--> Connection (a task each)  --Outbox, bounded by bytes-->  Inbox (the shard's thread)
//! ```
//!
//! A connection is one transport session: its templates are its own and end with it. Messages are told apart by the
//! length in their headers alone (10.4.3).
//!
//! | if | then |
//! |---|---|
//! | the shard is slower than the senders, or waits for a spool that is behind | reading stops when [`QUEUE_BYTES`] wait for it: TCP slows the senders, nothing is lost |
//! | what comes is no IPFIX message: another version, or a length below the header's | the connection is closed (9.1): where the next message begins cannot be known; counted by its reason |
//! | a set inside a message cannot be read | counted as with UDP; the connection goes on |
//! | an exporter closes, or is cut off, within a message | that message is lost; counted as `incomplete` |
//! | an exporter sends nothing | the connection stays; keepalive finds out whether the exporter is still there |
//! | its address may not send, or there are too many connections, in all or from one address | the new one is closed at once, and counted |
//! | `listen.allow` no longer names its address | the connection is closed within [`LOOK_INTERVAL`], and counted |
//! | the proxy stops | those that wait are the last to be accepted, our end is closed (10.4.4), and what is under way is still read, for [`LAST_READS`] at most |
//!
//! A connection takes [`BUFFER_BYTES`], whatever it sends.

mod connection;
mod metrics;
mod queue;

pub use connection::Connection;
pub use metrics::Metrics;
pub use queue::{Content, Delivery, Inbox, Messages, Outbox, Received, SessionId, queue};

use super::BindError;
use super::bind::Transport;
use crate::flow::Exporter;
use crate::lines::limited;
use crate::places::{Full, Place, Places};
use connection::Line;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Connections at a time, in all.
pub const CONNECTIONS: usize = 256;
/// Connections at a time from one address.
pub const CONNECTIONS_PER_ADDRESS: usize = 16;
/// What a connection reads into: more than the longest message.
pub const BUFFER_BYTES: usize = 65_536;
/// What may wait for the shard, of all connections together.
pub const QUEUE_BYTES: usize = 4 << 20;
/// How long a connection still reads when the proxy stops.
pub const LAST_READS: Duration = Duration::from_secs(1);

/// How often a connection looks whether its exporter may still send.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 256;
/// Pause after a failure to accept, most likely for want of descriptors.
const BACK_OFF: Duration = Duration::from_millis(50);
/// After so long without a word the kernel asks whether the exporter is there, and again, until it gives it up.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// Binds every address. Needs a tokio runtime.
///
/// # Errors
/// The first address that cannot be had.
pub fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    let one = |address: &SocketAddr| {
        listen(*address, addresses).map_err(|error| BindError::new(*address, Transport::Tcp, error))
    };
    addresses.iter().map(one).collect()
}

fn listen(address: SocketAddr, all: &[SocketAddr]) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let IpAddr::V6(ip) = address.ip() {
        // [::] takes IPv4 too, unless that has a line of its own.
        let beside = all.iter().any(|other| other.is_ipv4() && other.port() == address.port());
        socket.set_only_v6(!ip.is_unspecified() || beside)?;
    }
    // Connections of an earlier life that linger do not keep the port; another listener does.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Says of an address whether it may send.
pub type Allows = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Takes connections at all listening addresses.
pub struct Door {
    listeners: Vec<TcpListener>,
    /// The listener that is asked first.
    turn: usize,
    allows: Allows,
    places: Places,
    outbox: Outbox,
    metrics: Metrics,
    sessions: u64,
}

impl Door {
    /// Over listeners from [`bind`], for exporters that `allows` names; what connections receive goes to `outbox`.
    pub fn new(listeners: Vec<TcpListener>, allows: Allows, outbox: Outbox, metrics: Metrics) -> Door {
        let places = Places::new(CONNECTIONS, CONNECTIONS_PER_ADDRESS, metrics.connections.clone());
        Door { listeners, turn: 0, allows, places, outbox, metrics, sessions: 0 }
    }

    /// Waits for the next connection that may come in; it is to be [run](Connection::run). May be dropped while it
    /// waits, and called again.
    pub async fn next(&mut self) -> Connection {
        loop {
            match poll_fn(|cx| self.poll_accept(cx)).await {
                Ok((stream, peer)) => {
                    if let Some(connection) = self.admit(stream, peer) {
                        return connection;
                    }
                }
                Err(error) => {
                    self.metrics.accept_errors.inc();
                    limited!(warn, %error, "A connection of an exporter could not be accepted");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    /// A connection that is waiting already, if there is one; it is asked for at the kernel itself, of which the
    /// runtime may not have heard yet.
    pub fn waiting(&mut self) -> Option<Connection> {
        loop {
            let (socket, peer) =
                self.listeners.iter().find_map(|listener| SockRef::from(listener).accept().ok())?;
            let peer = peer.as_socket();
            let stream = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket.into()));
            if let (Ok(stream), Some(peer)) = (stream, peer)
                && let Some(connection) = self.admit(stream, peer)
            {
                return Some(connection);
            }
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let count = self.listeners.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            let Some(listener) = self.listeners.get(at) else { continue };
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                self.turn = at + 1;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }

    fn place(&self, address: IpAddr) -> Result<Place, &'static str> {
        if !(self.allows)(address) {
            return Err(Metrics::NOT_ALLOWED);
        }
        self.places.take(address).map_err(Full::label)
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) -> Option<Connection> {
        let exporter = Exporter { address: peer.ip().to_canonical(), port: peer.port() };
        self.metrics.accepted.inc();
        let place = match self.place(exporter.address) {
            Ok(place) => place,
            Err(reason) => {
                self.metrics.refused.add(reason, 1);
                limited!(warn, exporter = %exporter.address, port = exporter.port, reason, "A connection is refused");
                return None;
            }
        };
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_TIME)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&keepalive) {
            tracing::debug!(%error, %peer, "keepalive could not be set");
        }
        limited!(info, exporter = %exporter.address, port = exporter.port, "An exporter has connected");
        self.sessions += 1;
        let line = Line::new(SessionId(self.sessions), exporter, self.outbox.clone(), place);
        Some(Connection::new(stream, line, Arc::clone(&self.allows), self.metrics.clone()))
    }
}

#[cfg(test)]
mod tests;
