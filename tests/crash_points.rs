//! The process ends at each step of both commits, of the proxy and of the collector, while two proxies send: nothing
//! comes twice, and what was in the spool arrives.
//!
//! Needs the feature `crash-points` (`src/crash.rs`): `cargo test --features crash-points --test crash_points`.
//! `FLOWPROXY_CRASH_ROUNDS` says how often at each step (1), `FLOWPROXY_CRASH_SEED` repeats a run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod fuse;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Instant;

use flowproxy::batch::{Digest, read};
use flowproxy::spool::frame::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, Seed, SegmentHeader, check};
use flowproxy::spool::{self, LaneId};
use fuse::load::{Load, assert_balance, counts, numbered, wait_drained};
use support::process::{Process, flowproxy, flowproxy_command};
use support::rig::{End, PROXY_NAME, Rig};
use support::{Numbers, PATIENCE, wait_until};

/// A step, and the most often that it is passed before the process ends there.
type Point = (&'static str, usize);

/// Of a proxy that takes flow and delivers it.
const WORKING: [Point; 17] = [
    ("spool.segment.open", 3),
    ("spool.segment.header", 3),
    ("spool.segment.sync", 3),
    ("spool.segment.rename", 3),
    ("spool.segment.folder", 3),
    ("spool.append", 200),
    ("spool.sync", 100),
    ("spool.seal.footer", 2),
    ("spool.seal.cut", 2),
    ("spool.seal.sync", 2),
    ("spool.position.write", 3),
    ("spool.position.sync", 2),
    ("spool.unlink.before", 2),
    ("spool.spare", 2),
    ("uplink.send", 200),
    ("uplink.ack", 50),
    ("uplink.acked", 50),
];
/// Of a proxy that starts in a folder in which it left batches.
const STARTING: [Point; 5] = [
    ("spool.skips.write", 1),
    ("spool.skips.sync", 1),
    ("spool.skips.rename", 1),
    ("spool.skips.folder", 1),
    ("spool.unlink", 1),
];
/// Of a proxy that starts in a new folder.
const BEGINNING: [Point; 4] = [
    ("spool.positions.write", 1),
    ("spool.positions.sync", 1),
    ("spool.positions.rename", 1),
    ("spool.positions.folder", 1),
];
/// Of a proxy whose spool is full.
const FULL: [Point; 5] = [
    ("spool.skip.write", 2),
    ("spool.skip.sync", 2),
    ("spool.drop.rows", 2),
    ("spool.drop.position", 2),
    ("spool.drop.unlink", 2),
];
/// Of a collector.
const COLLECTING: [Point; 13] = [
    ("collector.take", 50),
    ("collector.deliver", 50),
    ("collector.mark.before", 50),
    ("collector.mark", 50),
    ("collector.ack", 50),
    ("collector.acked", 50),
    ("sink.write", 50),
    ("sink.sync", 50),
    ("sink.rotate.before", 2),
    ("sink.rotate.rename", 2),
    ("sink.rotate", 2),
    ("sink.open", 3),
    ("sink.open.folder", 3),
];
/// Of a collector that starts after it ended between its marks and its file.
const RECOVERING: [Point; 2] = [("sink.redo.write", 1), ("sink.redo.sync", 1)];

const COLLECTOR: &str =
    "[state]\ndir = \"state\"\n\n[sink.jsonl]\npath = \"out/flows.jsonl\"\nmax_bytes = \"1MiB\"\n";
const OTHER_NAME: &str = "site-2.example";
/// The other proxy's records are numbered from here on.
const OTHER_NUMBERS: u32 = 1 << 31;
const ABORTED: i32 = 6;
const POINT: &str = "FLOWPROXY_CRASH_POINT";
/// Its digest in hexadecimal: whoever decodes this batch for a sink dies.
const BATCH: &str = "FLOWPROXY_CRASH_BATCH";

fn rounds() -> usize {
    std::env::var("FLOWPROXY_CRASH_ROUNDS").map_or(1, |text| text.parse().expect("a number of rounds"))
}

fn seed() -> u64 {
    let given = std::env::var("FLOWPROXY_CRASH_SEED").ok();
    given.map_or_else(rand::random, |text| text.parse().expect("a seed"))
}

/// Runs `play` so often for each of the points; it is told the point as the variable wants it.
fn at_each(points: &[Point], mut play: impl FnMut(&mut Site, &str, &str)) {
    let seed = seed();
    for (place, (name, most)) in points.iter().enumerate() {
        let begun = Instant::now();
        let mut site = Site::new();
        for round in 0..rounds() {
            let mut numbers = Numbers::from_seed(seed.wrapping_add((place * 1_000 + round) as u64));
            let point = format!("{name}:{}", 1 + numbers.below(*most));
            play(&mut site, &point, &format!("{point}, round {round}, FLOWPROXY_CRASH_SEED={seed}"));
        }
        site.finish(name);
        support::note(&format!("{name}: {} times in {:.1} s", rounds(), begun.elapsed().as_secs_f64()));
    }
}

/// A proxy: where it listens and where its files are.
struct Proxy {
    name: &'static str,
    udp: SocketAddr,
    spool: String,
    next: u32,
}

impl Proxy {
    fn new(name: &'static str, next: u32) -> Self {
        // It may be started over and over: always at the same port, which nobody has now.
        let free = UdpSocket::bind("127.0.0.1:0").expect("a free UDP port");
        Self { name, udp: free.local_addr().expect("its address"), spool: format!("spool-{name}"), next }
    }

    /// Starts it, without waiting for anything.
    fn start(&self, rig: &Rig, point: Option<&str>) -> End {
        let config = rig.proxy_config(&format!("udp = [\"{}\"]", self.udp), &rig.endpoint());
        let spool = format!("dir = \"{}\"\nmax_bytes = \"8MiB\"", self.spool);
        let config = config.replace("dir = \"spool\"", &spool).replace(PROXY_NAME, self.name);
        let config = config.replace("max_delay = \"50ms\"", "max_delay = \"5ms\"\nmax_records = 2");
        start(rig, "run", self.name, &config, point.map(|point| (POINT, point)))
    }

    /// Starts it and waits until it works.
    fn started(&self, rig: &Rig) -> End {
        let end = self.start(rig, None);
        end.wait_healthy();
        end
    }

    /// Plays until the process ends at the point, with or without records being sent.
    fn crash(&mut self, rig: &Rig, point: &str, what: &str) {
        let load = Load::start(self.udp, self.next);
        let mut end = self.start(rig, Some(point));
        assert_eq!(end.process.wait().signal(), Some(ABORTED), "{what}\n{}", end.process.log());
        self.next = load.stop();
    }
}

/// Starts one end, with a variable that says where or of what it is to die.
fn start(rig: &Rig, command: &str, name: &str, config: &str, variable: Option<(&str, &str)>) -> End {
    let file = rig.path(&format!("{name}.toml"));
    std::fs::write(&file, config).expect("config file");
    let mut starting = flowproxy_command();
    starting.arg(command).arg("-c").arg(&file);
    starting.envs(variable);
    End { process: Process::start(&mut starting, &rig.path(&format!("{name}.log"))) }
}

/// A proxy that is let alone, and what it is sent.
struct Alone {
    end: End,
    load: Load,
    first: u32,
}

impl Alone {
    fn start(rig: &Rig, proxy: &Proxy) -> Self {
        Self { end: proxy.started(rig), load: Load::start(proxy.udp, proxy.next), first: proxy.next }
    }
}

/// Two proxies, one of which is let alone, and a place for their collector.
struct Site {
    rig: Rig,
    victim: Proxy,
    alone: Vec<Alone>,
    collector: Option<End>,
    /// Records that stood in the victim's spool when it ended.
    owed: BTreeSet<u32>,
}

impl Site {
    fn new() -> Self {
        let rig = Rig::new();
        let certs = rig.path("certs");
        let made =
            flowproxy(&["certs", "issue", "--ca", certs.to_str().expect("UTF-8"), "--name", OTHER_NAME]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let victim = Proxy::new(PROXY_NAME, 1);
        let mut site = Self { rig, victim, alone: Vec::new(), collector: None, owed: BTreeSet::new() };
        // Who starts without a collector waits before he tries again.
        site.with_collector();
        site.alone.push(Alone::start(&site.rig, &Proxy::new(OTHER_NAME, OTHER_NUMBERS)));
        site
    }

    fn collector(&self, variable: Option<(&str, &str)>) -> End {
        start(&self.rig, "collect", "collector", &self.rig.collector_config(COLLECTOR), variable)
    }

    /// The collector, if it does not run already.
    fn with_collector(&mut self) {
        if self.collector.is_none() {
            let end = self.collector(None);
            end.wait_healthy();
            self.collector = Some(end);
        }
    }

    fn far_end(&self) -> BTreeMap<u32, usize> {
        counts(&self.text())
    }

    /// All that the far end has written, read at a moment at which no file got its last name.
    fn text(&self) -> String {
        let files = || {
            let entries = std::fs::read_dir(self.rig.path("out")).into_iter().flatten();
            entries.map(|entry| entry.expect("folder entry").file_name()).collect::<BTreeSet<_>>()
        };
        loop {
            let before = files();
            let text = self.rig.text();
            if before == files() {
                return text;
            }
        }
    }

    /// What is in the victim's spool is owed from now on, but for what its rows give up.
    fn note_owed(&mut self) {
        let dir = self.rig.path(&self.victim.spool);
        let rows = spool::skip_rows(&dir).expect("rows");
        for Frame { lane, seq, numbers, .. } in frames_in(&dir) {
            let skipped = rows.iter().any(|row| row.lane == lane && row.from <= seq && seq <= row.to);
            if !skipped {
                self.owed.extend(numbers);
            }
        }
    }

    /// Starts the victim, waits until it has delivered all it has, adds up.
    fn deliver(&mut self, what: &str) {
        self.with_collector();
        let end = self.victim.started(&self.rig);
        wait_drained(&end);
        assert_balance(&self.far_end(), self.owed.iter().copied(), what);
        assert!(end.process.terminate().success(), "{what}");
    }

    /// Nothing that proxies were sent that were let alone is missing or there twice.
    fn finish(mut self, what: &str) {
        self.with_collector();
        let stop = |Alone { end, load, first }: Alone| (end, first, load.stop());
        let alone: Vec<_> = std::mem::take(&mut self.alone).into_iter().map(stop).collect();
        for (end, first, next) in alone {
            let sent = u64::from(next - first);
            end.wait_metric("flowproxy_datagrams_received_total", sent);
            wait_until("the last batch", || end.metric("flowproxy_spool_numbered_records_total") == sent);
            wait_drained(&end);
            let seen = self.far_end();
            let missing = (first..next).filter(|number| !seen.contains_key(number)).count() as u64;
            // What a dying connection delivered last may be counted as given up too.
            let dropped = dropped(&end);
            assert!(missing <= dropped, "{what}: {missing} missing, {dropped} dropped");
        }
        assert_balance(&self.far_end(), self.owed, what);
    }
}

/// Records that a full spool has given up.
fn dropped(proxy: &End) -> u64 {
    proxy.metric("flowproxy_spool_skipped_records_total")
}

/// A good frame, and the records' numbers in it.
struct Frame {
    lane: LaneId,
    seq: u64,
    digest: Digest,
    numbers: Vec<u32>,
}

/// Every good frame in a spool.
fn frames_in(dir: &Path) -> Vec<Frame> {
    let mut frames = Vec::new();
    for entry in std::fs::read_dir(dir).expect("the spool's folder") {
        let path = entry.expect("folder entry").path();
        if path.extension().is_none_or(|extension| extension != "fsp") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a segment");
        let Ok(header) = SegmentHeader::decode(&bytes) else { continue };
        let seed = Seed::new(header.lane, header.first_seq);
        let mut at = SEGMENT_HEADER_BYTES;
        while let Some(Ok(frame)) = bytes.get(at..).map(|rest| check(rest, seed)) {
            let start = at + FRAME_HEADER_BYTES + frame.notes_bytes;
            let payload = &bytes[start..start + frame.payload_bytes];
            let batch = read::open(frame.codec, frame.plain_size, payload).expect("a batch in a good frame");
            let numbers = fuse::segments::numbers_of(&batch);
            frames.push(Frame { lane: header.lane, seq: frame.seq, digest: frame.digest, numbers });
            at += frame.frame_bytes();
        }
    }
    frames
}

#[test]
fn a_proxy_at_work_ends_at_each_step() {
    at_each(&WORKING, |site, point, what| {
        let (rig, victim) = (&site.rig, &mut site.victim);
        victim.crash(rig, point, what);
        site.note_owed();
        site.deliver(what);
    });
}

#[test]
fn a_proxy_ends_at_each_step_of_its_start() {
    at_each(&STARTING, |site, point, what| {
        // It leaves something behind first; little, or its segment would be kept to be written over.
        site.collector.take().into_iter().for_each(|end| end.process.kill());
        site.victim.crash(&site.rig, "spool.sync:10", what);
        site.note_owed();
        site.with_collector();
        site.victim.crash(&site.rig, point, what);
        site.note_owed();
        site.deliver(what);
    });
    at_each(&BEGINNING, |site, point, what| {
        site.victim.spool += "-";
        site.victim.crash(&site.rig, point, what);
        site.note_owed();
        site.deliver(what);
    });
}

#[test]
fn a_proxy_with_a_full_spool_ends_at_each_step_of_dropping() {
    at_each(&FULL, |site, point, what| {
        site.collector.take().into_iter().for_each(|end| end.process.kill());
        let mut end = site.victim.start(&site.rig, Some(point));
        // Faster than the other load, so that this spool is full first.
        let begun = Instant::now();
        let socket = support::loopback_socket();
        while end.process.is_running() {
            assert!(begun.elapsed() < PATIENCE, "{what}: never came by");
            for _ in 0..8 {
                let _ = socket.send_to(&numbered(site.victim.next), site.victim.udp);
                site.victim.next += 1;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert_eq!(end.process.wait().signal(), Some(ABORTED), "{what}\n{}", end.process.log());
        site.note_owed();
        site.deliver(what);
        // What was given up stays given up.
        let owed = std::mem::take(&mut site.owed);
        assert_balance(&site.far_end(), owed, what);
    });
}

/// Lets the collector end at `points`, one start after the other, and work again; what a reader had seen stays.
fn collector_ends(site: &mut Site, points: &[&str], what: &str) {
    if site.alone.len() == 1 {
        site.alone.push(Alone::start(&site.rig, &site.victim));
    }
    site.collector.take().into_iter().for_each(|end| end.process.kill());
    for point in points {
        let mut end = site.collector(Some((POINT, point)));
        assert_eq!(end.process.wait().signal(), Some(ABORTED), "{what}\n{}", end.process.log());
    }
    let before = site.text();
    site.with_collector();
    assert!(site.text().starts_with(&before), "{what}: a reader saw what is not there any more");
    let collector = site.collector.as_ref().expect("it runs");
    wait_until("batches committed", || collector.metric("flowproxy_collector_committed_records_total") > 10);
}

#[test]
fn a_collector_at_work_ends_at_each_step() {
    at_each(&COLLECTING, |site, point, what| collector_ends(site, &[point], what));
}

#[test]
fn a_collector_ends_at_each_step_of_its_start() {
    at_each(&RECOVERING, |site, point, what| {
        for ended_at in ["collector.mark:5", "sink.write:5", "sink.rotate.rename"] {
            collector_ends(site, &[ended_at, point, point], what);
        }
    });
}

#[test]
fn row_27_a_batch_that_kills_its_collector_again_and_again_is_refused_and_its_lane_goes_on() {
    let mut site = Site::new();
    let what = "a deadly batch";
    site.collector.take().into_iter().for_each(|end| end.process.kill());
    site.victim.crash(&site.rig, "spool.sync:20", what);
    site.note_owed();
    let frames = frames_in(&site.rig.path(&site.victim.spool));
    let deadly = &frames[frames.len() / 2];
    let digest: String = deadly.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let victim = site.victim.started(&site.rig);
    let refused = || victim.metric("flowproxy_uplink_rejected_batches_total");
    let mut deaths = 0;
    let mut collector = site.collector(Some((BATCH, &digest)));
    wait_until("the batch is refused", || {
        if !collector.process.is_running() {
            assert_eq!(collector.process.wait().signal(), Some(ABORTED), "{}", collector.process.log());
            deaths += 1;
            collector = site.collector(Some((BATCH, &digest)));
        }
        refused() > 0
    });
    assert_eq!(deaths, 3, "and the fourth time a process of its own dies");
    site.collector = Some(collector);
    wait_drained(&victim);
    assert_eq!(refused(), 1);
    let quarantine = site.rig.path(&site.victim.spool).join("quarantine");
    assert_eq!(std::fs::read_dir(quarantine).expect("the quarantine").count(), 1);
    assert!(deadly.numbers.iter().all(|number| site.owed.remove(number)));
    let seen = site.far_end();
    assert!(deadly.numbers.iter().all(|number| !seen.contains_key(number)));
    assert!(victim.process.terminate().success());
    site.finish(what);
}

#[test]
fn no_step_is_left_out() {
    let mut named = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("sources") {
            let path = entry.expect("folder entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source");
            let calls = text.split("crash_point!(\"").skip(1);
            named.extend(calls.filter_map(|call| call.split('"').next()).map(str::to_owned));
        }
    }
    let all = [&WORKING[..], &STARTING, &BEGINNING, &FULL, &COLLECTING, &RECOVERING].concat();
    let tried: BTreeSet<String> = all.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(named, tried);
}
