//! Exporters and a collector that are not ours: softflowd, pmacctd, fprobe and nfcapd of Debian's packages, and a
//! tee that gives every one of an exporter's datagrams to several receivers.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::process::{Process, find_tool, flowproxy_command, run_tool};
use super::{loopback_socket, wait_until};

/// The first of `tools` that this machine lacks.
pub fn missing(tools: &[&'static str]) -> Option<&'static str> {
    tools.iter().find(|tool| find_tool(tool).is_none()).copied()
}

fn tool(name: &str) -> Command {
    Command::new(find_tool(name).unwrap_or_else(|| panic!("{name} is not installed")))
}

/// Passes datagrams on to all its targets as they come and counts them.
pub struct Tee {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Tee {
    /// Takes datagrams at `socket` and sends each to every one of `targets`, from one socket on loopback.
    pub fn start(socket: UdpSocket, targets: Vec<SocketAddr>) -> Self {
        let address = socket.local_addr().expect("the tee's address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let out = loopback_socket();
        let thread = std::thread::spawn(move || pass_on(&socket, &out, &targets, &stopped));
        Tee { address, stop, thread }
    }

    /// Ends once nothing has come for a while; gives how many datagrams passed.
    pub fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the tee's thread")
    }
}

fn pass_on(socket: &UdpSocket, out: &UdpSocket, targets: &[SocketAddr], stop: &AtomicBool) -> u64 {
    const QUIET: Duration = Duration::from_millis(300);
    socket.set_read_timeout(Some(QUIET)).expect("read timeout");
    let mut buffer = vec![0; 65_535];
    let mut count = 0;
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                for target in targets {
                    out.send_to(&buffer[..length], target).expect("send to loopback");
                }
                count += 1;
            }
            Err(_) if stop.load(Ordering::Relaxed) => return count,
            Err(_) => {}
        }
    }
}

/// A flow as every collector shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub source: String,
    pub destination: String,
    /// Source and destination port; for ICMP 0, as collectors differ in where they put type and code.
    pub ports: (u64, u64),
    pub protocol: u64,
    pub packets: u64,
    pub octets: u64,
}

impl Seen {
    fn new(addresses: [&str; 2], ports: (u64, u64), protocol: u64, counts: [u64; 2]) -> Self {
        const ICMP: [u64; 2] = [1, 58];
        let text = |address: &str| address.parse::<std::net::IpAddr>().expect("an IP address").to_string();
        let ports = if ICMP.contains(&protocol) { (0, 0) } else { ports };
        let [packets, octets] = counts;
        Seen { source: text(addresses[0]), destination: text(addresses[1]), ports, protocol, packets, octets }
    }

    /// A record of the far end's JSON lines.
    pub fn from_json(record: &Value) -> Self {
        let text =
            |names: [&str; 2]| names.iter().find_map(|name| record[*name].as_str()).unwrap_or_default();
        let number = |name: &str| record[name].as_u64().unwrap_or_default();
        Seen::new(
            [
                text(["sourceIPv4Address", "sourceIPv6Address"]),
                text(["destinationIPv4Address", "destinationIPv6Address"]),
            ],
            (number("sourceTransportPort"), number("destinationTransportPort")),
            number("protocolIdentifier"),
            [number("packetDeltaCount"), number("octetDeltaCount")],
        )
    }
}

/// Counts of packets and bytes over flows.
pub fn sums(flows: &[Seen]) -> (usize, u64, u64) {
    (flows.len(), flows.iter().map(|flow| flow.packets).sum(), flows.iter().map(|flow| flow.octets).sum())
}

/// nfcapd, storing what it receives in a folder.
pub struct Nfcapd {
    process: Process,
    folder: PathBuf,
    pub address: SocketAddr,
}

impl Nfcapd {
    pub fn start(folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).expect("folder for nfcapd");
        let address = loopback_socket().local_addr().expect("a free UDP port");
        let mut command = tool("nfcapd");
        command.args(["-b", "127.0.0.1", "-t", "3600", "-p", &address.port().to_string(), "-w"]).arg(&folder);
        let process = Process::start(&mut command, &folder.with_extension("log"));
        wait_until("nfcapd's socket", || kernel_queue(address.port()).is_some());
        Nfcapd { process, folder, address }
    }

    /// Waits until nfcapd has read what was sent, ends it and gives what it stored.
    pub fn finish(self) -> Vec<Seen> {
        wait_until("nfcapd to read its socket", || kernel_queue(self.address.port()) == Some(0));
        // It stores the datagrams that it has read before it looks at the signal.
        self.process.terminate();
        let mut command = tool("nfdump");
        command.args(["-q", "-N", "-6", "-o", "fmt:%sa|%da|%sp|%dp|%pr|%pkt|%byt", "-R"]).arg(&self.folder);
        let mut flows: Vec<Seen> = run_tool(&mut command).lines().filter_map(nfdump_line).collect();
        flows.sort();
        flows
    }
}

fn nfdump_line(line: &str) -> Option<Seen> {
    let parts: Vec<&str> = line.split('|').map(str::trim).collect();
    let [source, destination, source_port, destination_port, protocol, packets, octets] = parts[..] else {
        return None;
    };
    // ICMP shows type and code as a decimal fraction in the destination port.
    let number = |text: &str| text.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    Some(Seen::new(
        [source, destination],
        (number(source_port), number(destination_port)),
        number(protocol),
        [number(packets), number(octets)],
    ))
}

/// Bytes that wait in the kernel for the socket on this UDP port; `None` if nobody is bound to it.
fn kernel_queue(port: u16) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/udp").expect("/proc/net/udp");
    let local = format!("0100007F:{port:04X}");
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&local))?;
    let (_, waiting) = line.split_whitespace().nth(4)?.split_once(':')?;
    u64::from_str_radix(waiting, 16).ok()
}

/// Lets softflowd meter a capture and export to `target` as `version`; ends when all is exported.
pub fn softflowd(folder: &Path, capture: &Path, target: SocketAddr, version: &str) {
    softflowd_over("udp", folder, capture, target, version);
}

/// The same over a connection.
pub fn softflowd_over_tcp(folder: &Path, capture: &Path, target: SocketAddr, version: &str) {
    softflowd_over("tcp", folder, capture, target, version);
}

fn softflowd_over(transport: &str, folder: &Path, capture: &Path, target: SocketAddr, version: &str) {
    let mut command = tool("softflowd");
    command.args(["-d", "-a", "-c", "none", "-t", "maxlife=1h", "-P", transport, "-v", version]);
    command.args(["-n", &target.to_string(), "-p"]).arg(folder.join("softflowd.pid"));
    run_tool(command.arg("-r").arg(capture));
}

/// Lets pmacctd's probe meter a capture and export to `target` as `version`; ends when all is exported.
pub fn pmacctd(folder: &Path, capture: &Path, target: SocketAddr, version: &str) {
    let config = folder.join(format!("pmacctd-{version}.conf"));
    let text = format!(
        "daemonize: false\npcap_savefile: {}\nplugins: nfprobe\n\
         aggregate: src_host, dst_host, src_port, dst_port, proto, tos, tcpflags\n\
         nfprobe_receiver: {target}\nnfprobe_version: {version}\nnfprobe_timeouts: maxlife=3600\n",
        capture.display(),
    );
    std::fs::write(&config, text).expect("pmacctd's config");
    // At the capture's end its two processes stop each other; the one that is watched ends with 0 or with 1, by which
    // of them was faster. Whether all was exported shows in nfcapd's counts.
    let output = tool("pmacctd").arg("-f").arg(&config).stdin(Stdio::null()).output().expect("pmacctd");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Exporting flows to"), "pmacctd: {}\n{said}", output.status);
}

/// A network namespace of the test's own with a veth pair, for an exporter that meters a live interface.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// `None` if this machine or user may not make one.
    pub fn create() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("flowproxy-test-{}-{number}", std::process::id());
        let made =
            tool("ip").args(["netns", "add", &name]).output().is_ok_and(|output| output.status.success());
        if !made {
            return None;
        }
        let namespace = Namespace { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace.ip(&["link", "add", "out0", "type", "veth", "peer", "name", "in0"]);
        namespace.ip(&["link", "set", "out0", "up"]);
        namespace.ip(&["link", "set", "in0", "up"]);
        Some(namespace)
    }

    /// Runs `ip` on it and gives what it printed.
    pub fn ip(&self, arguments: &[&str]) -> String {
        run_tool(tool("ip").args(["-n", &self.name]).args(arguments))
    }

    /// The program under test, to be started in the namespace with a /sys of its own.
    pub fn flowproxy(&self) -> Command {
        let mut command = tool("ip");
        command.args(["netns", "exec", &self.name]).arg(flowproxy_command().get_program());
        command
    }

    /// A command that runs in the namespace.
    pub fn command(&self, name: &str) -> Command {
        let program = find_tool(name).unwrap_or_else(|| panic!("{name} is not installed"));
        let mut command = tool("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `body` on a thread in the namespace; the processes that it starts are there too.
    pub fn enter(&self, body: impl FnOnce() + Send) {
        let file = std::fs::File::open(format!("/run/netns/{}", self.name)).expect("the namespace's file");
        let ended = std::thread::scope(|scope| {
            let inside = move || {
                enter(&file);
                body();
            };
            scope.spawn(inside).join()
        });
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    }

    /// A UDP socket on the namespace's own loopback, read from outside of it.
    pub fn loopback_socket(&self) -> UdpSocket {
        let file = std::fs::File::open(format!("/run/netns/{}", self.name)).expect("the namespace's file");
        // A thread of its own enters the namespace and ends; the socket stays in it.
        std::thread::spawn(move || {
            enter(&file);
            loopback_socket()
        })
        .join()
        .expect("a socket in the namespace")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = tool("ip").args(["netns", "del", &self.name]).output();
    }
}

/// Moves the calling thread into a network namespace.
#[allow(unsafe_code, reason = "std has no call for it")]
fn enter(namespace: &std::fs::File) {
    use std::os::fd::AsRawFd;
    // SAFETY: setns takes a descriptor, which `namespace` keeps open, and no pointers.
    let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(entered, 0, "setns: {}", std::io::Error::last_os_error());
}

/// Lets fprobe meter `capture` live, replayed by tcpreplay in a namespace, and export v5 to `target`; ends when
/// `is_complete` says that all has come.
pub fn fprobe(
    namespace: &Namespace,
    folder: &Path,
    capture: &Path,
    target: SocketAddr,
    is_complete: impl FnMut() -> bool,
) {
    let mut command = namespace.command("fprobe");
    // Flows idle for 2 s are exported; the queue holds the whole capture, as fprobe drops what does not fit.
    command.args(["-i", "in0", "-f", "src net 198.18.0.0/15", "-n", "5", "-s", "1", "-d", "2", "-e", "60"]);
    command.args([
        "-q",
        "20000",
        "-B",
        "4096",
        "-l",
        &format!("2:{}", std::process::id()),
        &target.to_string(),
    ]);
    let log = folder.join("fprobe.log");
    let process = Process::start(&mut command, &log);
    wait_until("fprobe to look at its interface", || process.log().contains("collector #1"));
    run_tool(namespace.command("tcpreplay").args(["-i", "out0", "--pps", "2000"]).arg(capture));
    wait_until("fprobe to export all packets", is_complete);
    process.terminate();
}
