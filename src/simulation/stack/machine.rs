//! What both ends have of a simulated machine: the network, the time of day, chance, work that takes its time.

use crate::collector::accept::Listen;
use crate::uplink::machine::{Later, Machine, Socket};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use turmoil::net::{TcpListener, TcpStream};

/// The port that the collector listens at.
pub const PORT: u16 = 4740;
/// The longest that a disk takes for what may block.
const LONGEST_WORK_MS: u64 = 60;

/// A proxy's.
#[derive(Debug)]
pub struct Simulated(Mutex<StdRng>);

impl Simulated {
    /// With its own chance.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    fn random<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Machine for Simulated {
    fn look_up<'a>(&'a self, host: &'a str, port: u16) -> Later<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(vec![SocketAddr::new(turmoil::lookup(host), port)]) })
    }

    fn connect(&self, at: SocketAddr) -> Later<'_, io::Result<Socket>> {
        Box::pin(async move { Ok(Box::new(TcpStream::connect(at).await?) as Socket) })
    }

    fn unix_ms(&self) -> u64 {
        crate::simulation::clock()
    }

    fn chance(&self) -> f64 {
        self.random(Rng::random)
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) {
        let delay = self.random(|rng| Duration::from_millis(rng.random_range(0..LONGEST_WORK_MS)));
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            work();
        });
    }
}

/// The collector's socket.
pub struct Listener(TcpListener);

impl Listener {
    /// Listens at [`PORT`].
    pub async fn bind() -> io::Result<Self> {
        TcpListener::bind(("0.0.0.0", PORT)).await.map(Self)
    }
}

impl Listen for Listener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }
}
