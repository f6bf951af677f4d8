//! What the uplink asks of the machine that it runs on: the network, the time of day, chance, and threads that
//! may block. A simulation has a machine of its own; all else of the uplink is the same there.

use rand::Rng;
use socket2::{SockRef, TcpKeepalive};
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Sent bytes that nobody has acknowledged for so long end the connection.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// TCP's own probes, for when HTTP/2 is silent.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// A byte stream to a collector.
pub trait Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Debug + Send + Unpin> Stream for S {}

/// A [`Stream`] of whichever network.
pub type Socket = Box<dyn Stream>;

/// What takes its time.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// See the module.
pub trait Machine: Debug + Send + Sync {
    /// The addresses of a name, by the resolver's order.
    fn look_up<'a>(&'a self, host: &'a str, port: u16) -> Later<'a, io::Result<Vec<SocketAddr>>>;

    /// A connection to this address.
    fn connect(&self, at: SocketAddr) -> Later<'_, io::Result<Socket>>;

    /// Milliseconds since 1970.
    fn unix_ms(&self) -> u64;

    /// A random number from 0 to 1.
    fn chance(&self) -> f64;

    /// Does the work where it may block.
    fn block(&self, work: Box<dyn FnOnce() + Send>);
}

impl dyn Machine {
    /// Does the work where it may block, and gives what comes of it; an error if it was cut off.
    pub fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (done, result) = oneshot::channel();
        self.block(Box::new(move || {
            // Nobody waits for it any more when this fails.
            let _ = done.send(work());
        }));
        result
    }
}

/// This machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Machine for System {
    fn look_up<'a>(&'a self, host: &'a str, port: u16) -> Later<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }

    fn connect(&self, at: SocketAddr) -> Later<'_, io::Result<Socket>> {
        Box::pin(async move {
            let socket = TcpStream::connect(at).await?;
            set_up(&socket)?;
            Ok(Box::new(socket) as Socket)
        })
    }

    fn unix_ms(&self) -> u64 {
        super::link::now_ms()
    }

    fn chance(&self) -> f64 {
        rand::rng().random()
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) {
        drop(tokio::task::spawn_blocking(work));
    }
}

fn set_up(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let probes = TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE / 3);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))
}
