//! From an endpoint to an HTTP/2 connection in TLS, with every failure in the words of a network engineer.
//!
//! The layers, from below: TCP, [`Counted`] (bytes as they go over the network), TLS, [`Inside`] (gives back
//! the byte that was read to learn the collector's verdict, and remembers why the connection died), HTTP/2.

use super::machine::{Machine, Socket};
use super::metrics::Traffic;
use crate::tls::{self, ClientConfig, ClientStream, Negotiated};
use http::Uri;
use hyper_util::rt::TokioIo;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

/// For each address, and again for the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for the collector's first byte.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(5);
/// How many addresses of one name are tried.
const MAX_ADDRESSES: usize = 8;
/// HTTP/2's, also while nothing is sent.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// What the collector may send ahead: bytes of one stream, and of the connection.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name has no address.
    #[error("the name {host} has no address: {reason}")]
    Name {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// TCP.
    #[error("{}", explain_tcp(.at, .source))]
    Tcp {
        /// Where to.
        at: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// TLS, up to the end of our side of the handshake.
    #[error("{fault} (at {at})")]
    Tls {
        /// Where to.
        at: SocketAddr,
        /// What failed.
        fault: tls::ConnectError,
    },
    /// The connection ended right after the handshake: the collector's verdict on our certificate.
    #[error("{} (at {at})", tls::explain(.source, "the collector"))]
    Verdict {
        /// Where to.
        at: SocketAddr,
        /// What came instead of the first byte.
        source: io::Error,
    },
    /// HTTP/2 above TLS.
    #[error("HTTP/2 with the collector at {at} failed: {reason}")]
    Http {
        /// Where to.
        at: SocketAddr,
        /// What failed.
        reason: String,
    },
}

/// Why a connection died, once it has.
#[derive(Clone, Debug, Default)]
pub struct Death(Arc<OnceLock<String>>);

impl Death {
    /// The first failure that was seen, in words.
    pub fn cause(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// A connection that gRPC calls can be made on.
#[derive(Debug)]
pub struct Connection {
    /// For the generated client.
    pub channel: Channel,
    /// The collector's address.
    pub at: SocketAddr,
    /// What TLS agreed on.
    pub negotiated: Negotiated,
    /// Why it ended, when it has.
    pub death: Death,
}

/// Connects to `https://HOST:PORT`. Names are looked up each time.
///
/// # Errors
/// What failed, in words.
pub async fn connect(
    machine: &dyn Machine,
    endpoint: &Uri,
    config: Arc<ClientConfig>,
    traffic: &Traffic,
) -> Result<Connection, Error> {
    let host = endpoint.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let (socket, at) = dial(machine, &host, endpoint.port_u16().unwrap_or(443)).await?;
    let socket = Counted { socket, traffic: traffic.clone() };
    let handshake = timeout(CONNECT_TIMEOUT, tls::connect(config, &host, socket)).await;
    let tls::Connected { stream, negotiated } =
        handshake.unwrap_or_else(|_| Err(timed_out().into())).map_err(|fault| Error::Tls { at, fault })?;
    let death = Death::default();
    let inside = verdict(stream, death.clone()).await.map_err(|source| Error::Verdict { at, source })?;
    let channel = channel(endpoint, inside).await.map_err(|error| Error::Http {
        at,
        reason: death.cause().map_or_else(|| error.to_string(), str::to_owned),
    })?;
    Ok(Connection { channel, at, negotiated, death })
}

fn timed_out() -> io::Error {
    io::Error::from(io::ErrorKind::TimedOut)
}

fn explain_tcp(at: &SocketAddr, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::ConnectionRefused => format!("nothing listens at {at}"),
        io::ErrorKind::TimedOut => format!("{at} did not answer within {} s", CONNECT_TIMEOUT.as_secs()),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            format!("there is no route to {at}")
        }
        io::ErrorKind::PermissionDenied => format!("a firewall of this host forbids to connect to {at}"),
        _ => format!("no connection to {at}: {source}"),
    }
}

/// Looks the name up, as the answer may be another one each time, and tries its addresses in turn.
async fn dial(machine: &dyn Machine, host: &str, port: u16) -> Result<(Socket, SocketAddr), Error> {
    let no_address = |reason: String| Error::Name { host: host.to_owned(), reason };
    let looked_up = timeout(CONNECT_TIMEOUT, machine.look_up(host, port));
    let addresses = looked_up
        .await
        .map_err(|_| no_address("the name servers do not answer".to_owned()))?
        .map_err(|error| no_address(error.to_string()))?;
    let connected = dial_any(machine, addresses.into_iter().take(MAX_ADDRESSES)).await;
    connected.unwrap_or_else(|| Err(no_address("the answer is empty".to_owned())))
}

/// The first address that takes a connection, else the last one's failure; `None` without addresses.
async fn dial_any(
    machine: &dyn Machine,
    addresses: impl Iterator<Item = SocketAddr>,
) -> Option<Result<(Socket, SocketAddr), Error>> {
    let mut last = None;
    for at in addresses {
        let connected = timeout(CONNECT_TIMEOUT, machine.connect(at)).await;
        match connected.unwrap_or_else(|_| Err(timed_out())) {
            Ok(socket) => return Some(Ok((socket, at))),
            Err(source) => last = Some(Err(Error::Tcp { at, source })),
        }
    }
    last
}

/// In TLS 1.3 the collector judges our certificate after our side of the handshake is done. An HTTP/2 server
/// speaks first (RFC 9113 section 3.4), so its first byte says that we are in, and a failure to read it is
/// the true reason, before a write to the closed socket hides it. A server behind a relay that waits for us
/// to speak is not waited for long.
async fn verdict<S>(mut stream: ClientStream<S>, death: Death) -> io::Result<Inside<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = match timeout(VERDICT_TIMEOUT, stream.read_u8()).await {
        Ok(first) => Some(first?),
        Err(_) => None,
    };
    Ok(Inside { first, stream, death })
}

async fn channel(endpoint: &Uri, inside: Inside<Counted<Socket>>) -> Result<Channel, BoxError> {
    // One channel is one connection: when it is gone, so is the channel, and we connect anew ourselves.
    let once = Mutex::new(Some(TokioIo::new(inside)));
    let connector = tower::service_fn(move |_: Uri| {
        let io = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(io.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    let endpoint = Endpoint::from(endpoint.clone())
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    Ok(endpoint.connect_with_connector(connector).await?)
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Counts TCP payload. It must stand below TLS.
#[derive(Debug)]
struct Counted<S> {
    socket: S,
    traffic: Traffic,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        self.traffic.received_bytes.inc_by((buf.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, buf))?;
        self.traffic.sent_bytes.inc_by(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, parts))?;
        self.traffic.sent_bytes.inc_by(written as u64);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// What HTTP/2 reads and writes.
#[derive(Debug)]
struct Inside<S> {
    /// Read before HTTP/2 began.
    first: Option<u8>,
    stream: ClientStream<S>,
    death: Death,
}

impl<S> Inside<S> {
    /// HTTP/2 tells its users that the connection is gone, not why: the first reason is kept here.
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            self.death.0.get_or_init(|| tls::explain(error, "the collector"));
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Inside<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buf.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        Poll::Ready(self.note(read))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Inside<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(self.note(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, parts));
        Poll::Ready(self.note(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(self.note(flushed))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
