//! Takes connections: limits, handshake, who it is.
//!
//! Our own loop instead of tonic's, whose handshakes are without limit and time, and which spins on an error
//! like "too many open files". Here at most [`MAX_HANDSHAKES`] are under way, each at most
//! [`HANDSHAKE_TIME`]; a failing accept waits [`BACK_OFF`]; connections are limited in number, in all and per
//! address; and a connection can be cut at once ([`Connection`] ends when its token is cancelled).

use super::lines::limited;
use super::metrics::Metrics;
use crate::tls::{self, Identity, IdentityError, ServerStream};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// Handshakes under way at once; further connections wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 256;
/// The longest a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Pause after a failure to accept.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Where connections come from and what they must prove.
pub struct Door {
    /// The socket.
    pub listener: TcpListener,
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
pub struct Connection {
    stream: ServerStream<TcpStream>,
    peer: Peer,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Place,
}

impl Door {
    /// Accepts until `stop` is cancelled, and gives what has passed its handshake to `passed`.
    pub async fn run(self, passed: mpsc::Sender<io::Result<Connection>>, stop: CancellationToken) {
        let places = Places::new(&self);
        let permits = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let mut handshakes = JoinSet::new();
        loop {
            let next = async {
                let permit = permits.clone().acquire_owned().await;
                (permit, self.listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
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
            let Some(place) = places.take(address.ip()) else { continue };
            let handshake = self.handshake(socket, address, place, passed.clone());
            handshakes.spawn(async move {
                let _permit = permit;
                handshake.await;
            });
        }
    }

    fn handshake(
        &self,
        socket: TcpStream,
        address: SocketAddr,
        place: Place,
        passed: mpsc::Sender<io::Result<Connection>>,
    ) -> impl Future<Output = ()> + use<> {
        let (tls, metrics, cut) = (self.tls.load_full(), self.metrics.clone(), self.cut.clone());
        async move {
            // Acks are small and must not wait for more.
            let _ = socket.set_nodelay(true);
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

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Who may still come in.
#[derive(Clone, Debug)]
struct Places {
    taken: Arc<Mutex<Taken>>,
    limit: usize,
    limit_per_address: usize,
    metrics: Metrics,
}

/// One connection's place; given back when dropped.
struct Place {
    places: Places,
    address: IpAddr,
}

impl Places {
    fn new(door: &Door) -> Self {
        Self {
            taken: Arc::default(),
            limit: door.connections,
            limit_per_address: door.connections_per_address,
            metrics: door.metrics.clone(),
        }
    }

    fn take(&self, address: IpAddr) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = taken.by_address.get(&address).copied().unwrap_or_default();
        let refused = if taken.all >= self.limit {
            Some("connections")
        } else {
            (of_address >= self.limit_per_address).then_some("address")
        };
        if let Some(reason) = refused {
            self.metrics.refused.add(reason, 1);
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, of_address + 1);
        self.metrics.connections.inc();
        Some(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(of_address) = taken.by_address.get_mut(&self.address) {
            *of_address = of_address.saturating_sub(1);
            if *of_address == 0 {
                taken.by_address.remove(&self.address);
            }
        }
        self.places.metrics.connections.dec();
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
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

impl AsyncWrite for Connection {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn places(limit: usize, limit_per_address: usize) -> Places {
        Places { taken: Arc::default(), limit, limit_per_address, metrics: Metrics::new() }
    }

    #[test]
    fn places_are_limited_in_all_and_per_address_and_given_back() {
        let (a, b, c): (IpAddr, IpAddr, IpAddr) = ([1; 4].into(), [2; 4].into(), [3; 4].into());
        let places = places(3, 2);
        let first = places.take(a).unwrap();
        let _second = places.take(a).unwrap();
        assert!(places.take(a).is_none());
        let _third = places.take(b).unwrap();
        assert!(places.take(c).is_none());
        assert_eq!(places.metrics.refused.get("address"), 1);
        assert_eq!(places.metrics.refused.get("connections"), 1);
        drop(first);
        let _fourth = places.take(c).unwrap();
        assert_eq!(places.metrics.connections.get(), 3);
        assert_eq!(places.taken.lock().unwrap().by_address[&a], 1);
    }
}
