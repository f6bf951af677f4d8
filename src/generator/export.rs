//! One exporter: flows in, NetFlow v9 or IPFIX datagrams out, and the count of what was sent.
//!
//! Pure like [`super::encoder`], whose templates it fills. What it sends:
//!
//! | template | records |
//! |---|---|
//! | 256 | flows over IPv4 |
//! | 257 | flows over IPv6 |
//! | 258 | options: sampling (1 in 1), scope System; of IPFIX the observation domain |
//! | 259 | options: name and description of each interface, scope Interface; of IPFIX `ingressInterface` |
//!
//! A flow's times are uptimes in v9, which its collectors know best, and absolute in IPFIX, whose header has no uptime.

use super::encoder::{Datagram, Fault, Packer, Settings, Template, Value, Version, element, scope};
use std::net::IpAddr;

const IPV4_FLOWS: u16 = 256;
const IPV6_FLOWS: u16 = 257;
const SAMPLING: u16 = 258;
const INTERFACES: u16 = 259;

const NAME_BYTES: u16 = 16;
const DESCRIPTION_BYTES: u16 = 32;
/// `SAMPLING_ALGORITHM`: every n-th packet.
const DETERMINISTIC: u64 = 1;

/// What a source saw: one direction of one conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who sent the packets.
    pub source: IpAddr,
    /// Who got them; of the source's address family.
    pub destination: IpAddr,
    /// 0 for protocols without ports.
    pub source_port: u16,
    /// 0 for protocols without ports.
    pub destination_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Type of service.
    pub tos: u8,
    /// All TCP flags seen, or-ed.
    pub tcp_flags: u8,
    /// ICMP type * 256 + code; 0 for other protocols.
    pub icmp: u16,
    /// Packets seen.
    pub packets: u32,
    /// Their bytes, IP headers included.
    pub bytes: u32,
    /// Interface number they came in by.
    pub input: u32,
    /// Interface number they left by.
    pub output: u32,
    /// First packet, milliseconds since 1970.
    pub first: u64,
    /// Last packet, milliseconds since 1970.
    pub last: u64,
}

/// An interface as the options records announce it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// As in [`Flow::input`].
    pub number: u32,
    /// At most 16 bytes are sent.
    pub name: String,
    /// At most 32 bytes are sent.
    pub description: String,
}

/// What was sent. Counts flow records only, no templates and no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Flow records.
    pub records: u64,
    /// Sum of their packets (`IN_PKTS`).
    pub packets: u64,
    /// Sum of their bytes (`IN_BYTES`).
    pub bytes: u64,
    /// Datagrams of every kind.
    pub datagrams: u64,
}

impl Totals {
    /// Adds `other` to these.
    pub fn add(&mut self, other: Totals) {
        self.records += other.records;
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.datagrams += other.datagrams;
    }
}

/// One exporter's state, for the life of the process.
#[derive(Debug)]
pub struct Export {
    packer: Packer,
    version: Version,
    /// The next record's `flowId`, where records are numbered.
    next_number: Option<u64>,
    /// What lies in the open datagram.
    open: Totals,
}

impl Export {
    /// An exporter with these interfaces. With `first_number` every record carries a `flowId` (148): this
    /// one, the next, and so on.
    ///
    /// # Errors
    /// `max_bytes` is too small for a record or a template.
    pub fn new(
        settings: Settings,
        interfaces: &[Interface],
        first_number: Option<u64>,
    ) -> Result<Export, Fault> {
        let (system, interface) = match settings.version {
            Version::NetflowV9 => (scope::SYSTEM, scope::INTERFACE),
            Version::Ipfix => (element::OBSERVATION_DOMAIN, element::INPUT_SNMP),
        };
        // What explains the flows comes before them in a datagram.
        let templates = vec![
            Template::new(SAMPLING)
                .scope(system, 4)
                .field(element::SAMPLING_INTERVAL, 4)
                .field(element::SAMPLING_ALGORITHM, 1),
            Template::new(INTERFACES)
                .scope(interface, 4)
                .field(element::IF_NAME, NAME_BYTES)
                .field(element::IF_DESC, DESCRIPTION_BYTES),
            flow_template(IPV4_FLOWS, settings.version, false, first_number.is_some()),
            flow_template(IPV6_FLOWS, settings.version, true, first_number.is_some()),
        ];
        let mut packer = Packer::new(settings, templates)?;
        let domain = u64::from(settings.domain);
        packer.announce(
            SAMPLING,
            &[Value::Unsigned(domain), Value::Unsigned(1), Value::Unsigned(DETERMINISTIC)],
        )?;
        for interface in interfaces {
            packer.announce(
                INTERFACES,
                &[
                    Value::Unsigned(u64::from(interface.number)),
                    Value::Text(&interface.name),
                    Value::Text(&interface.description),
                ],
            )?;
        }
        Ok(Export { packer, version: settings.version, next_number: first_number, open: Totals::default() })
    }

    /// Adds a flow. `now` is in milliseconds since 1970; `out` gets finished datagrams, each with what it
    /// holds.
    ///
    /// # Errors
    /// Source and destination are of two address families.
    pub fn record(
        &mut self,
        flow: &Flow,
        now: u64,
        out: &mut impl FnMut(Datagram<'_>, Totals),
    ) -> Result<(), Fault> {
        let time = |time: u64| match self.version {
            Version::NetflowV9 => Value::Unsigned(u64::from(self.packer.uptime(time))),
            Version::Ipfix => Value::Unsigned(time),
        };
        let template_id = if flow.source.is_ipv4() { IPV4_FLOWS } else { IPV6_FLOWS };
        let values = [
            Value::Address(flow.source),
            Value::Address(flow.destination),
            Value::Unsigned(u64::from(flow.input)),
            Value::Unsigned(u64::from(flow.output)),
            Value::Unsigned(u64::from(flow.packets)),
            Value::Unsigned(u64::from(flow.bytes)),
            time(flow.first),
            time(flow.last),
            Value::Unsigned(u64::from(flow.source_port)),
            Value::Unsigned(u64::from(flow.destination_port)),
            Value::Unsigned(u64::from(flow.protocol)),
            Value::Unsigned(u64::from(flow.tos)),
            Value::Unsigned(u64::from(flow.tcp_flags)),
            Value::Unsigned(u64::from(flow.icmp)),
            Value::Unsigned(self.next_number.unwrap_or(0)),
        ];
        let used = values.len() - usize::from(self.next_number.is_none());
        let open = &mut self.open;
        let mut out = |datagram: Datagram<'_>| hand_out(open, datagram, out);
        self.packer.record(template_id, values.get(..used).unwrap_or(&values), now, &mut out)?;
        if let Some(number) = &mut self.next_number {
            *number += 1;
        }
        self.open.records += 1;
        self.open.packets += u64::from(flow.packets);
        self.open.bytes += u64::from(flow.bytes);
        Ok(())
    }

    /// Hands out what has waited long enough.
    pub fn poll(&mut self, now: u64, out: &mut impl FnMut(Datagram<'_>, Totals)) {
        let open = &mut self.open;
        self.packer.poll(now, &mut |datagram| hand_out(open, datagram, out));
    }

    /// Hands out what there is.
    pub fn flush(&mut self, now: u64, out: &mut impl FnMut(Datagram<'_>, Totals)) {
        let open = &mut self.open;
        self.packer.flush(now, &mut |datagram| hand_out(open, datagram, out));
    }
}

/// The records added since the last datagram are in the first one that is finished after them.
fn hand_out(open: &mut Totals, datagram: Datagram<'_>, out: &mut impl FnMut(Datagram<'_>, Totals)) {
    let held = Totals { datagrams: 1, ..std::mem::take(open) };
    out(datagram, held);
}

fn flow_template(id: u16, version: Version, ipv6: bool, numbered: bool) -> Template {
    let (source, destination, width) = if ipv6 {
        (element::IPV6_SRC_ADDR, element::IPV6_DST_ADDR, 16)
    } else {
        (element::IPV4_SRC_ADDR, element::IPV4_DST_ADDR, 4)
    };
    let (first, last, time_width) = match version {
        Version::NetflowV9 => (element::FIRST_SWITCHED, element::LAST_SWITCHED, 4),
        Version::Ipfix => (element::FLOW_START_MILLISECONDS, element::FLOW_END_MILLISECONDS, 8),
    };
    let template = Template::new(id)
        .field(source, width)
        .field(destination, width)
        .field(element::INPUT_SNMP, 4)
        .field(element::OUTPUT_SNMP, 4)
        .field(element::IN_PKTS, 4)
        .field(element::IN_BYTES, 4)
        .field(first, time_width)
        .field(last, time_width)
        .field(element::L4_SRC_PORT, 2)
        .field(element::L4_DST_PORT, 2)
        .field(element::PROTOCOL, 1)
        .field(element::SRC_TOS, 1)
        .field(element::TCP_FLAGS, 1)
        .field(element::ICMP_TYPE, 2);
    if numbered { template.field(element::FLOW_ID, 8) } else { template }
}

/// The most that a datagram to `to` may have on a path with this MTU, both in bytes: less the headers of IP
/// (20, IPv6 40) and UDP (8).
pub fn max_bytes(mtu: u16, to: IpAddr) -> u16 {
    const UDP_HEADER: u16 = 8;
    let ip_header = if to.to_canonical().is_ipv4() { 20 } else { 40 };
    mtu.saturating_sub(ip_header + UDP_HEADER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: u64 = 1_795_442_400_000;

    fn export(first_number: Option<u64>) -> Export {
        export_of(Version::NetflowV9, first_number)
    }

    fn export_of(version: Version, first_number: Option<u64>) -> Export {
        let settings = Settings {
            version,
            domain: 1,
            booted: NOW - 1_000_000,
            max_bytes: 1_452,
            max_delay: Duration::from_secs(1),
            template_interval: Duration::from_secs(60),
            template_datagrams: 1_000,
        };
        let wan = Interface { number: 1, name: "wan0".to_owned(), description: "uplink".to_owned() };
        Export::new(settings, &[wan], first_number).unwrap()
    }

    fn flow(source: &str, destination: &str) -> Flow {
        Flow {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            source_port: 40_000,
            destination_port: 443,
            protocol: 6,
            tos: 0,
            tcp_flags: 0x1b,
            icmp: 0,
            packets: 3,
            bytes: 4_000,
            input: 1,
            output: 2,
            first: NOW - 500,
            last: NOW - 100,
        }
    }

    #[test]
    fn totals_are_those_of_the_records_handed_out() {
        let mut export = export(Some(0));
        let (mut sent, mut datagrams) = (Totals::default(), 0);
        let mut out = |datagram: Datagram<'_>, held: Totals| {
            assert_eq!(u64::from(datagram.records), held.records);
            assert_eq!((held.packets, held.bytes), (3 * held.records, 4_000 * held.records));
            assert!(datagram.bytes.len() <= 1_452);
            sent.add(held);
            datagrams += 1;
        };
        for n in 0..500 {
            let flow = if n % 3 == 0 { flow("fd00::1", "fd00::2") } else { flow("10.0.0.1", "10.0.0.2") };
            export.record(&flow, NOW, &mut out).unwrap();
        }
        export.poll(NOW, &mut out);
        export.flush(NOW, &mut out);
        assert_eq!(sent, Totals { records: 500, packets: 1_500, bytes: 2_000_000, datagrams });
    }

    #[test]
    fn families_do_not_mix() {
        let mut export = export(None);
        let mut out = |_: Datagram<'_>, _: Totals| panic!("nothing to send");
        assert!(export.record(&flow("10.0.0.1", "fd00::2"), NOW, &mut out).is_err());
        export.flush(NOW, &mut out);
    }

    #[test]
    fn numbers_are_there_when_asked_for() {
        for (first, bytes) in [(None, 41usize), (Some(7 << 40), 49)] {
            let mut export = export(first);
            let mut seen = Vec::new();
            export.record(&flow("10.0.0.1", "10.0.0.2"), NOW, &mut |_, _| {}).unwrap();
            export.flush(NOW, &mut |datagram, _| seen = datagram.bytes.to_vec());
            let set = 4 + bytes.next_multiple_of(4);
            let record = &seen[seen.len() - set + 4..][..bytes];
            assert_eq!(record[..8], [10, 0, 0, 1, 10, 0, 0, 2]);
            if first.is_some() {
                assert_eq!(record[41..], (7u64 << 40).to_be_bytes());
            }
        }
    }

    #[test]
    fn ipfix_has_absolute_times() {
        let mut export = export_of(Version::Ipfix, None);
        let mut seen = Vec::new();
        export.record(&flow("10.0.0.1", "10.0.0.2"), NOW, &mut |_, _| {}).unwrap();
        export.flush(NOW, &mut |datagram, _| seen = datagram.bytes.to_vec());
        let record = &seen[seen.len() - 52..][..49];
        assert_eq!(record[..8], [10, 0, 0, 1, 10, 0, 0, 2]);
        assert_eq!(record[24..32], (NOW - 500).to_be_bytes());
        assert_eq!(record[32..40], (NOW - 100).to_be_bytes());
    }

    #[test]
    fn the_mtu_is_less_its_headers() {
        assert_eq!(max_bytes(1_500, "192.0.2.1".parse().unwrap()), 1_472);
        assert_eq!(max_bytes(1_500, "2001:db8::1".parse().unwrap()), 1_452);
        assert_eq!(max_bytes(1_500, "::ffff:192.0.2.1".parse().unwrap()), 1_472);
        assert_eq!(max_bytes(20, "192.0.2.1".parse().unwrap()), 0);
    }
}
