//! net-snmp's agent with a config of the test's own, and flow that names interfaces.

use super::datagrams::{Bytes, ipfix, set, template};
use super::process::{Process, find_tool};
use super::rig::{End, Rig};
use super::{skipped, wait_for, wait_until};
use serde_json::Value;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;

/// Who may ask it. Only `public` and `flow` see interfaces.
const ACCESS: &str = "\
rocommunity public
rocommunity6 public
view system included .1.3.6.1.2.1.1
rocommunity blind default -V system
createUser flow SHA-256 \"authpassword\" AES \"privpassword\"
rouser flow priv
createUser narrow SHA-256 \"authpassword\" AES \"privpassword\"
rouser narrow priv -V system
createUser stranger SHA-256 \"authpassword\" AES \"privpassword\"
sysName router.example
";

/// An agent at 127.0.0.1 and ::1, ended with the test.
pub struct Snmpd {
    _process: Process,
    pub port: u16,
}

impl Snmpd {
    /// Starts it in `folder`; `None` after the test has been said to be skipped, where it is not installed.
    pub fn start(test: &str, folder: &Path) -> Option<Self> {
        let Some(program) = find_tool("snmpd") else {
            skipped(test, "snmpd is not installed (Debian package snmpd)");
            return None;
        };
        let port = free_udp_port();
        let config = folder.join("snmpd.conf");
        let listen = format!("agentAddress udp:127.0.0.1:{port},udp6:[::1]:{port}\n");
        std::fs::write(&config, format!("{listen}{ACCESS}")).expect("snmpd.conf");
        let mut command = Command::new(program);
        // In the foreground, its log to us, this config and no other, as whatever user we are.
        command.args(["-f", "-Lo", "-r", "-C", "-c"]).arg(&config);
        command.env("SNMP_PERSISTENT_DIR", folder.join("snmpd")).env("MIBS", "");
        let mut process = Process::start(&mut command, &folder.join("snmpd.log"));
        wait_until("snmpd listens", || {
            assert!(process.is_running(), "snmpd has ended: {}", process.log());
            process.log().contains("NET-SNMP version")
        });
        Some(Self { _process: process, port })
    }
}

/// A port that is free over IPv4 and IPv6.
pub fn free_udp_port() -> u16 {
    wait_for("a free UDP port", || {
        let four = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = four.local_addr().expect("its address").port();
        UdpSocket::bind((Ipv6Addr::LOCALHOST, port)).is_ok().then_some(port)
    })
}

/// Index and name of every interface that this host has, as the kernel says.
pub fn host_interfaces() -> Vec<(u32, String)> {
    let folders = std::fs::read_dir("/sys/class/net").expect("/sys/class/net");
    let one = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let index = std::fs::read_to_string(entry.path().join("ifindex")).ok()?;
        Some((index.trim().parse().ok()?, entry.file_name().to_string_lossy().into_owned()))
    };
    folders.filter_map(one).collect()
}

/// An exporter that says over IPFIX between which interfaces its flow went.
pub struct Exporter {
    socket: UdpSocket,
    to: SocketAddr,
    sequence: u32,
}

impl Exporter {
    /// One at the proxy's own address, with a port of its own.
    pub fn to(proxy: &End) -> Self {
        let to = proxy.udp();
        let socket = UdpSocket::bind(SocketAddr::new(to.ip(), 0)).expect("a socket");
        Self { socket, to, sequence: 0 }
    }

    /// Sends one record; its octets are its number, from 1 on.
    pub fn send(&mut self, ingress: u32, egress: u32) {
        let fields = [(8, 4), (12, 4), (10, 4), (14, 4), (1, 4)];
        let record = Bytes::default().raw(&[192, 0, 2, 1]).raw(&[198, 51, 100, 1]).u32(ingress).u32(egress);
        let record = record.u32(self.sequence + 1).0;
        let message = ipfix(self.sequence, 7, &[set(2, &template(256, &fields)), set(256, &record)]);
        self.socket.send_to(&message, self.to).expect("send to loopback");
        self.sequence += 1;
    }

    /// Sends until a record arrives for which `wanted` holds, and gives it.
    pub fn until(
        &mut self,
        (rig, what): (&Rig, &str),
        (ingress, egress): (u32, u32),
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        wait_for(what, || {
            self.send(ingress, egress);
            rig.records().into_iter().rev().find(|record| wanted(record))
        })
    }
}

/// The text of a proxy's config that asks devices with these sections, and does not ask this host's kernel.
pub fn config(rig: &Rig, listen: &str, sections: &str) -> String {
    format!("{}\n[enrich]\nnetlink = false\n{sections}", rig.proxy_config(listen, &rig.endpoint()))
}

/// Starts it with secrets in its environment.
pub fn proxy(rig: &Rig, config: &str) -> End {
    let secrets = SECRETS.map(|(name, value)| (name, value.as_ref()));
    let end = rig.start_with("run", "proxy.toml", config, &secrets);
    end.wait_healthy();
    end
}

/// Variables for `community_env` and the like.
pub const SECRETS: [(&str, &str); 7] = [
    ("PUBLIC", "public\n"),
    ("BLIND", "blind"),
    ("PRIVATE", "private"),
    ("AUTH", "authpassword\r\n"),
    ("PRIVACY", "privpassword"),
    ("WRONG", "wrongpassword"),
    ("LONGER", "a password of the fixture"),
];
