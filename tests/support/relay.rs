//! A TCP relay of the test's own between the two ends: it delays, stalls, half-closes and cuts when it is told to.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Default)]
struct Shared {
    /// The relay ends.
    over: AtomicBool,
    /// Nothing passes.
    stalled: AtomicBool,
    /// How long each piece waits, in milliseconds.
    delay_ms: AtomicU64,
    /// Connections that came.
    count: AtomicUsize,
    /// Both sockets of each connection: the client's and the server's.
    open: Mutex<Vec<(TcpStream, TcpStream)>>,
}

/// See the module. Dropping it cuts all connections.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Relay {
    /// Passes what comes to a free port on to `target`.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free TCP port on loopback");
        let address = listener.local_addr().expect("the relay's address");
        let shared = Arc::new(Shared::default());
        let taken = Arc::clone(&shared);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if taken.over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(far) = TcpStream::connect(target) else { continue };
                taken.count.fetch_add(1, Ordering::Relaxed);
                pass_on(&taken, &near, &far);
                pass_on(&taken, &far, &near);
                taken.open.lock().expect("the relay's connections").push((near, far));
            }
        });
        Relay { address, shared }
    }

    /// Where the proxy reaches the collector through it.
    pub fn endpoint(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Connections that came so far.
    pub fn connections(&self) -> usize {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Every piece waits for so long from now on.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
    }

    /// Nothing passes any more, and nothing is closed; or all passes again.
    pub fn stall(&self, stalled: bool) {
        self.shared.stalled.store(stalled, Ordering::Relaxed);
    }

    /// Ends all connections.
    pub fn cut(&self) {
        for (near, far) in self.shared.open.lock().expect("the relay's connections").drain(..) {
            let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
        }
    }

    /// The client of all connections hears that the server will say no more; its own way stays open.
    pub fn half_close(&self) {
        for (near, _) in self.shared.open.lock().expect("the relay's connections").iter() {
            let _ = near.shutdown(Shutdown::Write);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn pass_on(shared: &Arc<Shared>, from: &TcpStream, to: &TcpStream) {
    let (shared, mut from) = (Arc::clone(shared), from.try_clone().expect("a socket's second handle"));
    let mut to = to.try_clone().expect("a socket's second handle");
    std::thread::spawn(move || {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            while shared.stalled.load(Ordering::Relaxed) && !shared.over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
            std::thread::sleep(Duration::from_millis(shared.delay_ms.load(Ordering::Relaxed)));
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Read), to.shutdown(Shutdown::Write));
    });
}
