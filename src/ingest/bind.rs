//! Binds the listening addresses of UDP, and says why one could not be had, of UDP or TCP.

use super::{Listener, Sockets, Use, steering, sys};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, SocketAddr};
use std::{fmt, io};
use thiserror::Error;

/// What to listen on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where flow comes in, whatever protocol.
    pub udp: Vec<SocketAddr>,
    /// Where datagrams come in that are forwarded unread.
    pub raw: Vec<SocketAddr>,
    /// Sockets of each address, at least 1.
    pub shards: usize,
    /// Bytes of receive buffer to ask for, for each socket.
    pub receive_buffer: usize,
}

/// What an address is listened on for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Connections.
    Tcp,
}

impl Transport {
    /// What makes ss(8) show the listeners of it with their processes.
    fn ss_options(self) -> &'static str {
        match self {
            Transport::Udp => "-lunp",
            Transport::Tcp => "-ltnp",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        })
    }
}

/// Why a listening address could not be had.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody has the port.
    #[error(
        "cannot listen on {address}: {transport} port {} is taken by another process (`ss {} sport = {}` shows which); \
         stop it or listen elsewhere",
        .address.port(), .transport.ss_options(), .address.port()
    )]
    Taken {
        /// The address wanted.
        address: SocketAddr,
        /// What it was wanted for.
        transport: Transport,
    },
    /// No interface of this host has the address.
    #[error("cannot listen on {address}: this host has no such address")]
    NoSuchAddress {
        /// The address wanted.
        address: SocketAddr,
    },
    /// Ports below 1024 need a capability.
    #[error("cannot listen on {address}: not permitted; ports below 1024 need CAP_NET_BIND_SERVICE")]
    NotPermitted {
        /// The address wanted.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address wanted.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl BindError {
    pub(super) fn new(address: SocketAddr, transport: Transport, source: io::Error) -> BindError {
        match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { address, transport },
            io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress { address },
            io::ErrorKind::PermissionDenied => BindError::NotPermitted { address },
            _ => BindError::Other { address, source },
        }
    }
}

/// Binds every address and deals the sockets out, one of each to a shard. Without an address there are no shards.
///
/// # Errors
/// The first address that cannot be had.
pub fn bind(settings: &Settings) -> Result<Vec<Sockets>, BindError> {
    if settings.udp.is_empty() && settings.raw.is_empty() {
        return Ok(Vec::new());
    }
    let shards = settings.shards.max(1);
    let mut dealt: Vec<Sockets> =
        (0..shards).map(|_| Sockets { listeners: Vec::new(), receive_buffer: usize::MAX }).collect();
    let flow = settings.udp.iter().map(|address| (*address, Use::Flow));
    let raw = settings.raw.iter().map(|address| (*address, Use::Raw));
    for (address, usage) in flow.chain(raw) {
        let group = group(address, settings, shards)
            .map_err(|error| BindError::new(address, Transport::Udp, error))?;
        for (shard, (socket, local, granted)) in dealt.iter_mut().zip(group) {
            shard.listeners.push(Listener { socket, usage, local, dropped: 0 });
            shard.receive_buffer = shard.receive_buffer.min(granted);
        }
    }
    warn_of_small_buffers(settings, &dealt);
    Ok(dealt)
}

/// The sockets of one address in the shards' order, each with its real address and granted buffer.
fn group(
    address: SocketAddr,
    settings: &Settings,
    shards: usize,
) -> io::Result<Vec<(Socket, SocketAddr, usize)>> {
    // A socket that may share its port gets in beside another flowproxy without a word: one that may not is
    // refused, and finds the port when 0 was asked for.
    let probe = socket(address, settings)?;
    probe.bind(&address.into())?;
    let local = local(&probe)?;
    drop(probe);
    let mut sockets = Vec::with_capacity(shards);
    for _ in 0..shards {
        let socket = socket(address, settings)?;
        socket.set_reuse_port(true)?;
        let granted = sys::set_receive_buffer(&socket, settings.receive_buffer)?;
        socket.bind(&local.into())?;
        sockets.push((socket, local, granted));
    }
    if let (Some((first, ..)), true) = (sockets.first(), shards > 1) {
        sys::attach_steering(first, &steering::program(shards as u32), steering::VERDICT)?;
    }
    Ok(sockets)
}

fn socket(address: SocketAddr, settings: &Settings) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if let IpAddr::V6(ip) = address.ip() {
        // [::] takes IPv4 too, unless that has a line of its own.
        let other = settings.udp.iter().chain(&settings.raw);
        let mut beside = other.filter(|other| other.is_ipv4() && other.port() == address.port());
        socket.set_only_v6(!ip.is_unspecified() || beside.next().is_some())?;
    }
    Ok(socket)
}

fn local(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("a socket without an IP address"))
}

fn warn_of_small_buffers(settings: &Settings, dealt: &[Sockets]) {
    let asked = settings.receive_buffer;
    let granted = dealt.iter().map(|sockets| sockets.receive_buffer).min().unwrap_or(0);
    // The kernel doubles what is asked for, for its own bookkeeping, and reports the double.
    let usable = granted / 2;
    if usable < asked {
        tracing::warn!(
            asked,
            granted = usable,
            "the kernel grants a smaller receive buffer than asked for: raise it with `sysctl net.core.rmem_max={asked}` \
             or give the process CAP_NET_ADMIN, or bursts may be dropped"
        );
    } else {
        tracing::info!(asked, granted = usable, "receive buffer of each socket");
    }
}
