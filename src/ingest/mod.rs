//! The sockets that exporters send to: for UDP one group a listening address, one socket of each for every shard;
//! for TCP see [`tcp`].
//!
//! All UDP sockets of an address share its port (SO_REUSEPORT), and a small program in the kernel chooses among them by
//! the source address alone: so one exporter's datagrams, from whatever port, always meet the same shard. What
//! the datagrams say is `shard`'s and `wire`'s.
//!
//! | if | then |
//! |---|---|
//! | the port is taken, also by another flowproxy | start fails and names it; nothing is taken from who has it |
//! | the kernel grants a smaller receive buffer | a warning names both sizes and the sysctl |
//! | a socket's buffer overflows | the kernel drops; counted from SO_MEMINFO, also when no datagram follows |
//! | a datagram is longer than 65,535 bytes | cannot be in UDP; were it cut, it is counted and not read |

mod bind;
mod steering;
mod sys;
pub mod tcp;

pub use bind::{BindError, Settings, Transport, bind};
pub use steering::shard_of;
pub use sys::{BATCH, Datagram, Receiver};

use socket2::Socket;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// What is done with what a socket receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Decoded.
    Flow,
    /// Forwarded unread.
    Raw,
}

/// One shard's socket of one listening address.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// What is done with its datagrams.
    pub usage: Use,
    /// Where it listens.
    pub local: SocketAddr,
    dropped: u32,
}

impl Listener {
    /// Datagrams that the kernel dropped at this socket since the last call.
    pub fn newly_dropped(&mut self) -> u64 {
        // An error leaves the count where it is; the next look will have it.
        let Ok(total) = sys::dropped(&self.socket) else { return 0 };
        let new = total.wrapping_sub(self.dropped);
        self.dropped = total;
        u64::from(new)
    }
}

/// One shard's sockets, one for each listening address.
#[derive(Debug)]
pub struct Sockets {
    /// In the order of the settings: flow first, then raw.
    pub listeners: Vec<Listener>,
    /// Bytes of receive buffer granted to each.
    pub receive_buffer: usize,
}

impl Sockets {
    /// Waits until a socket has something or the time is up.
    ///
    /// # Errors
    /// What poll(2) says, but never an interruption.
    pub fn wait(&self, timeout: Duration) -> io::Result<()> {
        let sockets: Vec<_> = self.listeners.iter().map(|listener| listener.socket.as_raw_fd()).collect();
        sys::wait(&sockets, timeout)
    }

    /// How long the reader may rest after a short read and the buffers still hold what comes meanwhile: at the
    /// rate of small datagrams that a gigabit link carries, half of the buffer.
    pub fn rest(&self) -> Duration {
        // What the kernel charges for a datagram of up to 1,500 bytes.
        const CHARGED_BYTES: usize = 2_304;
        const DATAGRAMS_PER_MS: usize = 100;
        const LONGEST: Duration = Duration::from_millis(10);
        let holds = self.receive_buffer / CHARGED_BYTES / 2;
        Duration::from_micros((holds * 1_000 / DATAGRAMS_PER_MS) as u64).min(LONGEST)
    }
}

#[cfg(test)]
mod tests;
