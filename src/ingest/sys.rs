//! The system calls that have no safe wrapper which keeps what we need: recvmmsg into fixed buffers with the
//! truncation flag, the drop counter of SO_MEMINFO, the steering program, poll.
//!
//! Why unsafe: one call that takes 64 datagrams is what makes the rate (a call a datagram costs about as much as all
//! of decoding and packing). Every pointer given to the kernel is into memory that the call's arguments
//! borrow, with the length of that memory beside it.
#![expect(unsafe_code, reason = "system calls without a safe wrapper; the argument stands at each")]

use crate::flow::Exporter;
use libc::{c_int, c_void, iovec, mmsghdr, sock_filter, sock_fprog, socklen_t};
use socket2::Socket;
use std::io;
use std::mem::{size_of, size_of_val, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::time::Duration;

/// Datagrams that one call takes at most.
pub const BATCH: usize = 64;

/// Bytes of the largest datagram, rounded up.
const DATAGRAM_BYTES: usize = 65_536;

/// From one buffer to the next: not a multiple of 4,096, or the starts of all datagrams would share a few lines of
/// the first cache.
const STRIDE: usize = DATAGRAM_BYTES + 1_600;

/// Bytes of a sockaddr_in6, the larger of the two addresses that can come.
const NAME_BYTES: usize = size_of::<libc::sockaddr_in6>();

/// A datagram as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub exporter: Exporter,
    /// What it holds.
    pub bytes: &'a [u8],
    /// It was longer than the buffer.
    pub truncated: bool,
}

/// Buffers for one call's datagrams.
#[derive(Debug)]
pub struct Receiver {
    buffers: Vec<u8>,
    names: Vec<[u8; NAME_BYTES]>,
    /// Length and flags of each datagram of the last call.
    taken: Vec<(usize, c_int)>,
}

impl Default for Receiver {
    fn default() -> Receiver {
        Receiver::new()
    }
}

impl Receiver {
    /// Room for [`BATCH`] datagrams of any size. Only pages that were written to take memory.
    pub fn new() -> Receiver {
        Receiver {
            buffers: vec![0; BATCH * STRIDE],
            names: vec![[0; NAME_BYTES]; BATCH],
            taken: Vec::with_capacity(BATCH),
        }
    }

    /// Takes what the socket has, without waiting; 0 if it has nothing.
    ///
    /// # Errors
    /// What recvmmsg(2) says, but neither that there is nothing nor that it was interrupted.
    pub fn receive(&mut self, listener: &super::Listener) -> io::Result<usize> {
        self.taken.clear();
        let mut slices: [iovec; BATCH] = [iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
        for (slice, buffer) in slices.iter_mut().zip(self.buffers.chunks_exact_mut(STRIDE)) {
            *slice = iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: DATAGRAM_BYTES };
        }
        // SAFETY: mmsghdr is a C struct of integers and pointers, for which all zero bytes are a valid value.
        let mut headers: [mmsghdr; BATCH] = unsafe { zeroed() };
        for ((header, slice), name) in headers.iter_mut().zip(&mut slices).zip(&mut self.names) {
            header.msg_hdr.msg_name = name.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = NAME_BYTES as socklen_t;
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
        }
        let socket = listener.socket.as_raw_fd();
        let wait = libc::MSG_DONTWAIT;
        // SAFETY: `headers` has BATCH entries; each points to one iovec and one name that live until the call
        // returns, with their true lengths; `self` is borrowed mutably, so nobody else reads the buffers.
        let count =
            unsafe { libc::recvmmsg(socket, headers.as_mut_ptr(), BATCH as u32, wait as _, ptr::null_mut()) };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            };
        };
        let taken = headers.iter().take(count);
        self.taken.extend(taken.map(|header| (header.msg_len as usize, header.msg_hdr.msg_flags)));
        Ok(count)
    }

    /// The datagrams of the last call, in the order received.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        let rows = self.taken.iter().zip(&self.names).zip(self.buffers.chunks_exact(STRIDE));
        rows.filter_map(|((&(length, flags), name), buffer)| {
            let bytes = buffer.get(..length.min(DATAGRAM_BYTES))?;
            Some(Datagram { exporter: exporter(name)?, bytes, truncated: flags & libc::MSG_TRUNC != 0 })
        })
    }
}

/// Reads a sockaddr_in or sockaddr_in6: family (host order), port, then the address at 4 or 8.
fn exporter(name: &[u8; NAME_BYTES]) -> Option<Exporter> {
    let (family, rest) = name.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let address = match c_int::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(*rest.first_chunk::<4>()?)),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?)).to_canonical(),
        _ => return None,
    };
    Some(Exporter { address, port: u16::from_be_bytes(*port) })
}

/// Asks for a receive buffer, past the limit of net.core.rmem_max where that is permitted; tells what the kernel
/// granted, which is up to twice as much.
pub(super) fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<usize> {
    let wanted = c_int::try_from(bytes).unwrap_or(c_int::MAX / 2);
    if set_option(socket, libc::SO_RCVBUFFORCE, &wanted).is_err() {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.recv_buffer_size()
}

/// Makes the kernel choose among the sockets of the group by the program's verdict.
pub(super) fn attach_steering(socket: &Socket, steps: &[sock_filter], last: sock_filter) -> io::Result<()> {
    let mut program: Vec<sock_filter> = steps.to_vec();
    program.push(last);
    let program = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set_option(socket, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

fn set_option<T>(socket: &Socket, name: c_int, value: &T) -> io::Result<()> {
    let value_bytes = size_of_val(value) as socklen_t;
    let value: *const T = value;
    // SAFETY: the pointer is to a live T and the length is T's; the kernel only reads, and copies what T points to
    // (the steering program, alive in the caller) before it returns.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, value.cast::<c_void>(), value_bytes)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Datagrams dropped at the socket since it was made (SO_MEMINFO, SK_MEMINFO_DROPS); wraps around.
pub(super) fn dropped(socket: &Socket) -> io::Result<u32> {
    const DROPS: usize = 8;
    let mut words = [0u32; 16];
    let mut length = size_of_val(&words) as socklen_t;
    // SAFETY: the pointer is to `words` and `length` says how many bytes that has; the kernel writes no more.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast::<c_void>(),
            &mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(words.get(DROPS).copied().unwrap_or(0)) }
}

/// Waits until one of the sockets can be read or the time is up.
pub(super) fn wait(sockets: &[RawFd], timeout: Duration) -> io::Result<()> {
    let mut polled: Vec<libc::pollfd> =
        sockets.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    let milliseconds = c_int::try_from(timeout.as_micros().div_ceil(1_000)).unwrap_or(c_int::MAX);
    // SAFETY: the pointer is to `polled` and the count is its length.
    let result = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, milliseconds) };
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()).or_else(|error| match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            _ => Err(error),
        }),
    }
}
