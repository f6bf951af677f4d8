//! The link between proxy and collector, in our hands: a relay of TCP that cuts, stalls, delays and closes halves.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What is carried at once, in bytes.
const CARRIED_BYTES: usize = 64 << 10;

/// How the link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// It carries.
    #[default]
    Open,
    /// Connections end, and new ones too.
    Cut,
    /// Nothing passes.
    Stalled,
    /// It carries, later by so much.
    Slow(Duration),
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    condition: Condition,
    /// How often the half towards the collector was closed.
    half_closed: u64,
}

/// The relay; it ends when it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: watch::Sender<State>,
    sent_bytes: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl Relay {
    /// Listens at a free port of loopback and carries to `to`.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (state, sent_bytes) = (watch::Sender::new(State::default()), Arc::new(AtomicU64::new(0)));
        let mut task = JoinSet::new();
        task.spawn(listen(listener, to, state.subscribe(), sent_bytes.clone()));
        Ok(Self { address, state, sent_bytes, _task: task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how the link is.
    pub fn set(&self, condition: Condition) {
        self.state.send_modify(|state| state.condition = condition);
    }

    /// Ends the connections that there are in the direction of the collector; the other one stays.
    pub fn close_half(&self) {
        self.state.send_modify(|state| state.half_closed += 1);
    }

    /// Bytes that were carried to the collector.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }
}

async fn listen(
    listener: TcpListener,
    to: SocketAddr,
    state: watch::Receiver<State>,
    sent_bytes: Arc<AtomicU64>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if state.borrow().condition != Condition::Cut => {
                    connections.spawn(carry(stream, to, state.clone(), sent_bytes.clone()));
                }
                _ => {}
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection until both directions have ended, or it is cut.
async fn carry(
    stream: TcpStream,
    to: SocketAddr,
    mut state: watch::Receiver<State>,
    sent_bytes: Arc<AtomicU64>,
) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    let _ = (stream.set_nodelay(true), far.set_nodelay(true));
    let (from_near, to_near) = stream.into_split();
    let (from_far, to_far) = far.into_split();
    let up = up(from_near, to_far, state.clone(), sent_bytes);
    let down = pass(from_far, to_near, state.clone(), Arc::default());
    let both = async { tokio::join!(up, down) };
    tokio::select! {
        _ = both => {}
        _ = state.wait_for(|state| state.condition == Condition::Cut) => {}
    }
}

/// To the collector, until that half is closed.
async fn up(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    sent_bytes: Arc<AtomicU64>,
) {
    let before = state.borrow().half_closed;
    let passing = pass(from, to, state.clone(), sent_bytes);
    tokio::select! {
        () = passing => {}
        // Both halves are dropped with it: the one to the collector says that nothing more comes.
        _ = state.wait_for(|state| state.half_closed != before) => {}
    }
}

/// One direction, until its end.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    passed_bytes: Arc<AtomicU64>,
) {
    let mut bytes = vec![0; CARRIED_BYTES];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        let Some(condition) = not_stalled(&mut state).await else { return };
        if let Condition::Slow(by) = condition {
            tokio::time::sleep(by).await;
        }
        let part = bytes.get(..read).unwrap_or_default();
        if part.is_empty() || to.write_all(part).await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
        passed_bytes.fetch_add(read as u64, Ordering::Relaxed);
    }
}

/// How the link is, once it is not stalled; `None` if it is gone.
async fn not_stalled(state: &mut watch::Receiver<State>) -> Option<Condition> {
    let state = state.wait_for(|state| state.condition != Condition::Stalled).await;
    state.ok().map(|state| state.condition)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pair() -> (Relay, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::start(listener.local_addr().unwrap()).await.unwrap();
        let near = TcpStream::connect(relay.address()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        (relay, near, far)
    }

    async fn read(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        stream.read_exact(&mut read).await.unwrap();
        read
    }

    #[tokio::test]
    async fn it_carries_both_ways_and_counts_one() {
        let (relay, mut near, mut far) = pair().await;
        near.write_all(b"there").await.unwrap();
        assert_eq!(read(&mut far, 5).await, b"there");
        relay.set(Condition::Slow(Duration::from_millis(1)));
        far.write_all(b"back").await.unwrap();
        assert_eq!(read(&mut near, 4).await, b"back");
        assert_eq!(relay.sent_bytes(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_stalled_comes_later() {
        let (relay, mut near, mut far) = pair().await;
        relay.set(Condition::Stalled);
        near.write_all(b"late").await.unwrap();
        let early = tokio::time::timeout(Duration::from_secs(1), far.read(&mut [0; 4])).await;
        assert!(early.is_err());
        relay.set(Condition::Open);
        assert_eq!(read(&mut far, 4).await, b"late");
    }

    #[tokio::test]
    async fn a_cut_ends_connections_and_refuses_others() {
        let (relay, mut near, mut far) = pair().await;
        relay.set(Condition::Cut);
        assert_eq!(near.read(&mut [0]).await.unwrap_or(0), 0);
        assert_eq!(far.read(&mut [0]).await.unwrap_or(0), 0);
        let mut other = TcpStream::connect(relay.address()).await.unwrap();
        assert_eq!(other.read(&mut [0]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn half_closed_still_carries_back() {
        let (relay, mut near, mut far) = pair().await;
        near.write_all(b"a").await.unwrap();
        assert_eq!(read(&mut far, 1).await, b"a");
        relay.close_half();
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        far.write_all(b"b").await.unwrap();
        assert_eq!(read(&mut near, 1).await, b"b");
    }
}
