//! The rig: a temporary folder with a CA, a proxy and a collector as real processes, and the records that
//! come out of the far end.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::process::{Process, flowproxy, flowproxy_command};
use super::{wait_for, wait_until};

/// The name in the proxy's certificate.
pub const PROXY_NAME: &str = "site-1.example";

/// A folder of configs, certificates, spool and output; the ends are started and stopped over it.
pub struct Rig {
    dir: TempDir,
    collector_port: u16,
}

impl Rig {
    /// Makes the folder with a CA and a certificate for each end.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let certs = dir.path().join("certs");
        let certs = certs.to_str().expect("a path in UTF-8");
        let server = ["--server", "--dns", "localhost", "--ip", "127.0.0.1"];
        certificate(&["ca", "--out", certs]);
        certificate(&[&["issue", "--ca", certs, "--name", "collector"], server.as_slice()].concat());
        certificate(&["issue", "--ca", certs, "--name", PROXY_NAME]);
        Rig { dir, collector_port: free_tcp_port() }
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Where the collector is reached.
    pub fn endpoint(&self) -> String {
        format!("https://localhost:{}", self.collector_port)
    }

    /// The same as an address.
    pub fn collector_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.collector_port))
    }

    /// Starts a collector with these sinks (TOML tables) and waits until it is healthy.
    pub fn collector(&self, sinks: &str) -> End {
        let end = self.start("collect", "collector.toml", &self.collector_config(sinks));
        end.wait_healthy();
        end
    }

    /// The text of a collector's config with these sinks.
    pub fn collector_config(&self, sinks: &str) -> String {
        format!(
            "listen = \"127.0.0.1:{}\"\n\n{}\n[admin]\nlisten = \"127.0.0.1:0\"\n\n{sinks}",
            self.collector_port,
            tls("collector"),
        )
    }

    /// Starts a collector that writes `out/flows.jsonl`.
    pub fn jsonl_collector(&self) -> End {
        self.collector("[sink.jsonl]\npath = \"out/flows.jsonl\"\n")
    }

    /// Starts a proxy that listens as `listen` says (the lines of that table) and waits until it is healthy.
    pub fn proxy_listening(&self, listen: &str) -> End {
        self.proxy_to(listen, &self.endpoint())
    }

    /// The same with another far end. Names of this machine's interfaces are in no record.
    pub fn proxy_to(&self, listen: &str, endpoint: &str) -> End {
        let config = format!("{}\n[enrich]\nnetlink = false\n", self.proxy_config(listen, endpoint));
        let end = self.start("run", "proxy.toml", &config);
        end.wait_healthy();
        end
    }

    /// Starts a proxy with one UDP listener and waits until it is healthy.
    pub fn proxy(&self) -> End {
        self.proxy_listening("udp = [\"127.0.0.1:0\"]")
    }

    /// The text of a proxy's config.
    pub fn proxy_config(&self, listen: &str, endpoint: &str) -> String {
        format!(
            "[listen]\n{listen}\nshards = 1\n\n[uplink]\nendpoint = \"{endpoint}\"\n\n{}\n\
             [spool]\ndir = \"spool\"\n\n[batch]\nmax_delay = \"50ms\"\n\n[admin]\nlisten = \"127.0.0.1:0\"\n",
            tls(PROXY_NAME),
        )
    }

    /// Writes `config` to `file` and starts `flowproxy COMMAND -c file`, without waiting for anything.
    pub fn start(&self, command: &str, file: &str, config: &str) -> End {
        self.start_with(command, file, config, &[])
    }

    /// The same with variables of its environment set.
    pub fn start_with(&self, command: &str, file: &str, config: &str, environment: &[(&str, &OsStr)]) -> End {
        let mut program = flowproxy_command();
        program.envs(environment.iter().copied());
        self.start_as(program, command, file, config)
    }

    /// The same with `program` before the arguments.
    pub fn start_as(&self, mut program: Command, command: &str, file: &str, config: &str) -> End {
        let path = self.path(file);
        std::fs::write(&path, config).expect("config file");
        // A config of another name is another process, with a log of its own.
        let log = path.with_extension(format!("{command}.log"));
        program.arg(command).arg("-c").arg(&path);
        End { process: Process::start(&mut program, &log) }
    }

    /// All that the far end has written, in order: rotated files first, then the live one. Read once more if one was
    /// rotated meanwhile: it would be there twice, or not at all.
    pub fn text(&self) -> String {
        let rotated = || files_in(&self.path("out"), "flows-");
        wait_for("a moment without a rotation", || {
            let before = rotated();
            let files = before.iter().cloned().chain([self.path("out/flows.jsonl")]);
            let text = files.filter_map(|file| std::fs::read_to_string(file).ok()).collect();
            (rotated() == before).then_some(text)
        })
    }

    /// The same as records. A last line that is still being written is left out.
    pub fn records(&self) -> Vec<Value> {
        complete_lines(&self.text())
    }

    /// Waits until the far end has written at least `count` records of kind "data" and gives all of that kind.
    pub fn wait_data_records(&self, count: usize) -> Vec<Value> {
        wait_for(&format!("{count} records at the far end, {} there", self.records().len()), || {
            let records = data_records(self.records());
            (records.len() >= count).then_some(records)
        })
    }
}

/// The flow records among `records`.
pub fn data_records(records: Vec<Value>) -> Vec<Value> {
    records.into_iter().filter(|record| record["kind"] == "data").collect()
}

fn complete_lines(text: &str) -> Vec<Value> {
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse =
        |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
    complete.lines().map(parse).collect()
}

fn files_in(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("folder entry").path());
    let has_prefix =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let mut files: Vec<PathBuf> = paths.filter(has_prefix).collect();
    files.sort();
    files
}

fn tls(name: &str) -> String {
    format!("[tls]\nca = \"certs/ca.pem\"\ncert = \"certs/{name}.pem\"\nkey = \"certs/{name}.key\"\n")
}

fn certificate(arguments: &[&str]) {
    let output = flowproxy(&[&["certs"], arguments].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "certs {arguments:?}: {}\n{errors}", output.status);
}

/// A port that nobody listens on, below those that the system gives out by itself, and another one at each call.
pub fn free_tcp_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 18_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let from = std::process::id().wrapping_mul(101);
    for _ in 0..COUNT {
        let place = from.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + place).expect("a port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free TCP port from {FIRST} on");
}

/// One end, running.
pub struct End {
    pub process: Process,
}

impl End {
    /// An address that the process has logged as the field `name`.
    pub fn logged_address(&self, name: &str) -> SocketAddr {
        wait_for(&format!("{name} in the log"), || self.try_logged_address(name))
    }

    fn try_logged_address(&self, name: &str) -> Option<SocketAddr> {
        let log = self.process.log();
        let (_, after) = log.split_once(&format!(" {name}="))?;
        after.split_whitespace().next()?.parse().ok()
    }

    /// Where metrics and health are.
    pub fn admin(&self) -> SocketAddr {
        self.logged_address("admin")
    }

    /// Where the proxy takes flow.
    pub fn udp(&self) -> SocketAddr {
        self.logged_address("udp")
    }

    /// Status code and body of an admin page; `None` while nobody answers.
    pub fn try_get(&self, page: &str) -> Option<(u16, String)> {
        get(self.try_logged_address("admin")?, page)
    }

    /// Status code and body of an admin page.
    pub fn get(&self, page: &str) -> (u16, String) {
        get(self.admin(), page).unwrap_or_else(|| panic!("no answer to {page}"))
    }

    pub fn wait_healthy(&self) {
        wait_until("a healthy process", || self.try_get("/healthz").is_some_and(|(status, _)| status == 200));
    }

    /// The process's /status.
    pub fn status(&self) -> Value {
        let (code, body) = self.get("/status");
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).expect("/status is JSON")
    }

    /// The value of a metric, added up over its labels.
    ///
    /// # Panics
    /// If there is no metric of that name.
    pub fn metric(&self, name: &str) -> u64 {
        let (_, body) = self.get("/metrics");
        let of_name = samples(&body).filter(|(series, _)| series.split('{').next() == Some(name));
        let values: Vec<u64> = of_name.map(|(_, value)| value).collect();
        assert!(!values.is_empty(), "no metric {name}");
        values.iter().sum()
    }

    /// The terms of the proxy's ledger add up, in total and over its exporters: everything that was read from the sockets
    /// is somewhere. To be asked when nothing comes in.
    pub fn assert_ledger(&self) {
        let mut faults = Vec::new();
        // Something may be on its way from one term to the next, and shards show their rows once a second.
        for _ in 0..200 {
            faults = super::ledger::faults(&self.status()["ledger"]);
            if faults.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the ledger does not add up: {}", faults.join("; "));
    }

    /// Waits until a metric has reached `value`.
    pub fn wait_metric(&self, name: &str, value: u64) {
        wait_until(&format!("{name} at {value}, now {}", self.metric(name)), || self.metric(name) >= value);
    }

    /// Waits until so many records have come into the spool and are in its files, but for those that were acked before:
    /// they need not be written.
    pub fn wait_spooled(&self, records: u64) {
        self.wait_metric("flowproxy_spool_numbered_records_total", records);
        wait_until(&format!("{records} records written or acked"), || {
            self.metric("flowproxy_spool_written_records_total") >= records
                || self.metric("flowproxy_spool_unacked_batches") == 0
        });
    }

    /// Sends datagrams to the proxy's UDP port from one socket, slowly enough that the kernel drops none.
    pub fn feed(&self, from: &std::net::UdpSocket, to: SocketAddr, datagrams: &[Vec<u8>]) {
        let before = self.metric("flowproxy_datagrams_received_total");
        let mut sent = 0;
        for some in datagrams.chunks(64) {
            for datagram in some {
                from.send_to(datagram, to).expect("send to loopback");
            }
            sent += some.len() as u64;
            self.wait_metric("flowproxy_datagrams_received_total", before + sent);
        }
    }
}

fn samples(body: &str) -> impl Iterator<Item = (&str, u64)> {
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        Some((series, value.parse::<f64>().ok()? as u64))
    })
}

fn get(address: SocketAddr, page: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
