//! Takes connections: limits, handshake, who it is.
//!
//! Our own loop instead of tonic's, whose handshakes are without limit and time, and which spins on an error
//! like "too many open files". Here at most [`MAX_HANDSHAKES`] are under way, each at most
//! [`HANDSHAKE_TIME`]; a failing accept waits [`BACK_OFF`]; connections are limited in number, in all and per
//! address; and a connection can be cut at once ([`Connection`] ends when its token is cancelled).

use super::metrics::Metrics;
use crate::lines::limited;
use crate::places::{Place, Places};
use crate::tls::{self, Identity, IdentityError, ServerStream};
use arc_swap::ArcSwap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// Handshakes under way at once; further connections wait in the kernel's queue.
pub const MAX_HANDSHAKES: usize = 256;
/// The longest a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Pause after a failure to accept.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Where connections come from. A simulation has a network of its own.
pub trait Listen: Send + Sync + 'static {
    /// What a connection is.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection, and its other end.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, address) = TcpListener::accept(self).await?;
        // Acks are small and must not wait for more.
        let _ = socket.set_nodelay(true);
        Ok((socket, address))
    }
}

/// Where connections come from and what they must prove.
pub struct Door<L> {
    /// The socket.
    pub listener: L,
    /// Certificates; another set may take its place at any time.
    pub tls: Arc<ArcSwap<tls::ServerConfig>>,
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address.
    pub connections_per_address: usize,
    /// What is counted.
    pub metrics: Metrics,
    /// Ends all connections when cancelled.
    pub cut: CancellationToken,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: SocketAddr,
    /// What its verified certificate says.
    pub identity: Result<Identity, IdentityError>,
}

/// A connection of which the handshake is done.
pub struct Connection<S> {
    stream: ServerStream<S>,
    peer: Peer,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Place,
}

impl<L: Listen> Door<L> {
    /// Accepts until `stop` is cancelled, and gives what has passed its handshake to `passed`.
    pub async fn run(self, passed: mpsc::Sender<io::Result<Connection<L::Stream>>>, stop: CancellationToken) {
        let open = self.metrics.connections.clone();
        let places = Places::new(self.connections, self.connections_per_address, open);
        let permits = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let mut handshakes = JoinSet::new();
        loop {
            let next = async {
                let permit = permits.clone().acquire_owned().await;
                (permit, self.listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = handshakes.join_next() => continue,
                next = next => next,
            };
            let (socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.metrics.accept_errors.inc();
                    limited!(warn, %error, "A connection could not be accepted");
                    tokio::time::sleep(BACK_OFF).await;
                    continue;
                }
            };
            self.metrics.accepted.inc();
            let place = match places.take(address.ip()) {
                Ok(place) => place,
                Err(full) => {
                    self.metrics.refused.add(full.label(), 1);
                    continue;
                }
            };
            let handshake = self.handshake(socket, address, place, passed.clone());
            handshakes.spawn(async move {
                let _permit = permit;
                handshake.await;
            });
        }
    }

    fn handshake(
        &self,
        socket: L::Stream,
        address: SocketAddr,
        place: Place,
        passed: mpsc::Sender<io::Result<Connection<L::Stream>>>,
    ) -> impl Future<Output = ()> + use<L> {
        let (tls, metrics, cut) = (self.tls.load_full(), self.metrics.clone(), self.cut.clone());
        async move {
            let accepted = tokio::time::timeout(HANDSHAKE_TIME, tls::accept(tls, socket)).await;
            let failed = match accepted {
                Ok(Ok(accepted)) => {
                    let peer = Peer { address, identity: accepted.identity };
                    let cut = Box::pin(cut.cancelled_owned());
                    let connection = Connection { stream: accepted.stream, peer, cut, _place: place };
                    // Nobody takes it any more when the collector stops.
                    let _ = passed.send(Ok(connection)).await;
                    return;
                }
                Ok(Err(error)) => tls::explain(&error, "the client"),
                Err(_) => "the client took too long".to_owned(),
            };
            metrics.handshakes_failed.inc();
            limited!(info, %address, reason = failed, "A TLS handshake failed");
        }
    }
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
