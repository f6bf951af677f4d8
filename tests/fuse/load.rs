//! Load with a number in every record, and what of it came out at the far end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::files::Image;
use crate::support::datagrams::{Bytes, ipfix, set, template};
use crate::support::rig::{End, Rig};
use crate::support::{Numbers, loopback_socket, wait_until};

/// Bytes of a record that cannot be packed.
const NOISE_BYTES: u16 = 1_200;
/// ipHeaderPacketSection, of octets.
const PACKET_SECTION: u16 = 313;
const OCTETS: u16 = 1;

/// An IPFIX message with its template and one record: the number, and noise to fill the disk with.
pub fn numbered(number: u32) -> Vec<u8> {
    let mut noise = Numbers::from_seed(u64::from(number) + 1);
    let noise: Vec<u8> = (0..NOISE_BYTES / 8).flat_map(|_| noise.next().to_be_bytes()).collect();
    let record = Bytes::default().u32(number).raw(&noise).0;
    let template = template(256, &[(OCTETS, 4), (PACKET_SECTION, NOISE_BYTES)]);
    ipfix(number, 5, &[set(2, &template), set(256, &record)])
}

/// Sends numbered records from one socket until it is stopped: about 800 in a second, 1 MB.
pub struct Load {
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU32>,
    /// Where to; nowhere while it pauses.
    target: Arc<Mutex<Option<SocketAddr>>>,
    thread: Option<JoinHandle<u32>>,
}

impl Load {
    /// Begins with the number `from`.
    pub fn start(to: SocketAddr, from: u32) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            next: Arc::new(AtomicU32::new(from)),
            target: Arc::new(Mutex::new(Some(to))),
            thread: None,
        };
        let (stop, told, target) = (load.stop.clone(), load.next.clone(), load.target.clone());
        load.thread = Some(std::thread::spawn(move || {
            let socket = loopback_socket();
            let mut next = from;
            while !stop.load(Ordering::Relaxed) {
                // A pause waits for what is being sent.
                if let Some(to) = *target.lock().expect("a target") {
                    for _ in 0..4 {
                        // Nobody may listen any more.
                        let _ = socket.send_to(&numbered(next), to);
                        next += 1;
                        told.store(next, Ordering::Relaxed);
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            next
        }));
        load
    }

    /// Nothing is sent after this, until it is aimed again.
    pub fn pause(&self) {
        *self.target.lock().expect("a target") = None;
    }

    /// Goes on to this address, from the same socket.
    pub fn aim(&self, to: SocketAddr) {
        *self.target.lock().expect("a target") = Some(to);
    }

    /// The number that comes next, now.
    pub fn sent(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    /// Gives the number that comes next.
    pub fn stop(mut self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("a thread").join().expect("load")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// How often each number is at the far end.
pub fn at_far_end(rig: &Rig) -> BTreeMap<u32, usize> {
    counts(&rig.text())
}

/// Sends the records with these numbers and waits until the proxy has taken them in.
pub fn feed(proxy: &End, numbers: std::ops::RangeInclusive<u32>) {
    let datagrams: Vec<Vec<u8>> = numbers.map(numbered).collect();
    proxy.feed(&loopback_socket(), proxy.udp(), &datagrams);
}

/// Waits until nothing is left in the spool but the running lane, all of it acked; then the ledger adds up. To be asked
/// when nothing comes in.
pub fn wait_drained(proxy: &End) {
    let mut status = serde_json::Value::Null;
    wait_until("all that is in the spool to be acked", || {
        status = proxy.status();
        let spool = &status["spool"];
        spool["batches"] == 0 && spool["lanes"].as_array().is_some_and(|lanes| lanes.len() == 1)
    });
    assert_eq!(status["spool"]["lanes"][0]["current"], true, "{status}");
    proxy.assert_ledger();
}

/// The proxy's config with its spool on the disk: small segments, many batches and no long wait for them.
pub fn proxy_config(rig: &Rig) -> String {
    let config = rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    let config = config.replace("dir = \"spool\"", "dir = \"disk/spool\"\nmax_bytes = \"8MiB\"");
    config.replace("max_delay = \"50ms\"", "max_delay = \"5ms\"\nmax_records = 2")
}

/// A proxy whose spool lies on the disk.
pub fn proxy(rig: &Rig) -> End {
    let end = rig.start("run", "proxy.toml", &proxy_config(rig));
    end.wait_healthy();
    end
}

/// Marks and file of the collector on the disk.
pub const COLLECTOR_ON_DISK: &str =
    "[state]\ndir = \"disk/state\"\n\n[sink.jsonl]\npath = \"disk/out/flows.jsonl\"\n";

/// All that such a collector has written, of an image of the disk: full files first, in their order.
pub fn written(image: &Image) -> String {
    let files = image.iter().filter(|(path, _)| path.starts_with("out/flows"));
    files.map(|(_, bytes)| String::from_utf8_lossy(bytes)).collect()
}

/// How often each number is in a text of JSON lines. A last line without its end is left out.
pub fn counts(text: &str) -> BTreeMap<u32, usize> {
    const KEY: &str = "\"octetDeltaCount\":";
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut seen = BTreeMap::new();
    for line in complete.lines() {
        let (_, after) = line.split_once(KEY).unwrap_or_else(|| panic!("no number in {line}"));
        let end = after.find(|it: char| !it.is_ascii_digit()).unwrap_or(after.len());
        *seen.entry(after[..end].parse().expect("a number")).or_default() += 1;
    }
    seen
}

/// Every one of `promised` is there, and nothing twice.
pub fn assert_balance(seen: &BTreeMap<u32, usize>, promised: impl IntoIterator<Item = u32>, what: &str) {
    let twice: Vec<&u32> = seen.iter().filter(|(_, times)| **times > 1).map(|(number, _)| number).collect();
    let missing: Vec<u32> = promised.into_iter().filter(|number| !seen.contains_key(number)).collect();
    assert!(twice.is_empty() && missing.is_empty(), "{what}: missing {missing:?}, twice {twice:?}");
}
