//! The table that the demo shows while it runs, and the one line for those without a terminal.
//!
//! Pure: two looks at the counters in, text out.

use super::tally;
use crate::flow::Exporter;
use crate::generator::export::Totals;
use std::collections::HashMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Talkers shown at least and at most.
const TALKERS: RangeInclusive<usize> = 2..=12;
/// All lines but those of sites and talkers.
const OTHER_LINES: usize = 18;
/// Of the longest bar, in characters.
const BAR: u64 = 20;

/// What does not change while the demo runs.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// Name of each host's addresses.
    pub hosts: HashMap<IpAddr, String>,
    /// Site and address of each exporter, in the order of the sites.
    pub exporters: Vec<(&'static str, SocketAddr)>,
    /// Where the proxy takes datagrams.
    pub proxy: Option<SocketAddr>,
    /// Where the collector listens.
    pub collector: Option<SocketAddr>,
}

/// One look at all counters.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Since the mesh began.
    pub elapsed: Duration,
    /// What the mesh has sent.
    pub sent: Totals,
    /// Bytes of its datagrams, UDP payload.
    pub udp_bytes: u64,
    /// What has arrived at the far end.
    pub arrived: tally::View,
    /// What the proxy counts.
    pub ledger: Ledger,
    /// The connection between them.
    pub link: Link,
}

/// The proxy's counters, each counted where it happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Datagrams read from the sockets.
    pub datagrams: u64,
    /// Dropped by the kernel because a socket's buffer was full.
    pub kernel_drops: u64,
    /// Datagrams read but not understood, cut short or given up.
    pub refused: u64,
    /// Records decoded, options among them.
    pub decoded: u64,
    /// Records given up before they had a number.
    pub dropped: u64,
    /// Records in batches that the spool took.
    pub batched: u64,
    /// Records acknowledged by the collector.
    pub committed: u64,
}

/// The uplink's connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether it stands.
    pub connected: bool,
    /// Such as `1.3`; empty before the first connection.
    pub tls: String,
    /// Key exchange group; empty before the first connection.
    pub key_exchange: String,
    /// TCP payload sent.
    pub wire_bytes: u64,
}

/// The table, each line ending in a line feed. It has as many talkers as go into `rows`.
pub fn table(scene: &Scene, now: &Look, before: &Look, rows: usize) -> String {
    let room = rows.saturating_sub(OTHER_LINES + scene.exporters.len());
    let shown = room.clamp(*TALKERS.start(), *TALKERS.end());
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = header(&mut text, scene, now)
        .and_then(|()| records(&mut text, now, before))
        .and_then(|()| exporters(&mut text, scene, now, before))
        .and_then(|()| talkers(&mut text, scene, now, before, shown))
        .and_then(|()| ledger(&mut text, now));
    text
}

/// One line that says how it goes.
pub fn line(now: &Look, before: &Look) -> String {
    let counts = now.arrived.counts;
    format!(
        "{} {} records/s, sent {}, received {}, under way {}, twice {}, {} bytes/record on the wire, {}",
        clock(now.elapsed),
        thousands(rate(counts.records, before.arrived.counts.records, now, before)),
        thousands(now.sent.records),
        thousands(counts.records),
        thousands(now.sent.records.saturating_sub(counts.records)),
        thousands(counts.twice),
        per_record(now.link.wire_bytes, counts.records),
        link(&now.link),
    )
}

fn header(text: &mut String, scene: &Scene, now: &Look) -> std::fmt::Result {
    let place =
        |address: Option<SocketAddr>| address.map_or_else(String::new, |address| format!(" {address}"));
    writeln!(text, "flowproxy demo  {}  (Ctrl-C ends it)", clock(now.elapsed))?;
    writeln!(
        text,
        "{} sites --NetFlow v9--> proxy{} ==TLS==> collector{}",
        scene.exporters.len(),
        place(scene.proxy),
        place(scene.collector),
    )?;
    writeln!(text, "link: {}\n", link(&now.link))
}

fn records(text: &mut String, now: &Look, before: &Look) -> std::fmt::Result {
    let (counts, earlier) = (now.arrived.counts, before.arrived.counts);
    writeln!(text, "{:<24}{:>12}{:>16}", "RECORDS", "per second", "total")?;
    let mut row = |name: &str, value: u64, was: u64| {
        writeln!(text, "{name:<24}{:>12}{:>16}", thousands(rate(value, was, now, before)), thousands(value))
    };
    row("sent by the mesh", now.sent.records, before.sent.records)?;
    row("received at the far end", counts.records, earlier.records)?;
    let under_way = thousands(now.sent.records.saturating_sub(counts.records));
    writeln!(text, "{:<36}{under_way:>16}   (batches, spool, link)", "under way")?;
    writeln!(text, "{:<36}{:>16}", "came twice", thousands(counts.twice))?;
    writeln!(
        text,
        "{:<36}{:>16}   ({} over UDP)\n",
        "bytes per record on the wire",
        per_record(now.link.wire_bytes, counts.records),
        per_record(now.udp_bytes, now.sent.records),
    )
}

fn exporters(text: &mut String, scene: &Scene, now: &Look, before: &Look) -> std::fmt::Result {
    writeln!(text, "{:<24}{:>12}{:>16}", "EXPORTERS", "per second", "records")?;
    for (site, address) in &scene.exporters {
        let exporter = Exporter { address: address.ip().to_canonical(), port: address.port() };
        let of = |look: &Look| look.arrived.exporters.get(&exporter).copied().unwrap_or(0);
        let name = format!("{site} {address}");
        writeln!(
            text,
            "{name:<24}{:>12}{:>16}",
            thousands(rate(of(now), of(before), now, before)),
            thousands(of(now)),
        )?;
    }
    writeln!(text)
}

fn talkers(text: &mut String, scene: &Scene, now: &Look, before: &Look, shown: usize) -> std::fmt::Result {
    writeln!(text, "{:<24}{:>12}{:>16}", "TOP TALKERS", "per second", "bytes sent")?;
    let earlier: HashMap<String, u64> = by_name(scene, &before.arrived).into_iter().collect();
    let top = by_name(scene, &now.arrived);
    let most = top.first().map_or(1, |(_, bytes)| (*bytes).max(1));
    for (name, bytes) in top.iter().take(shown) {
        let was = earlier.get(name).copied().unwrap_or(0);
        let bar = "#".repeat(usize::try_from(bytes * BAR / most).unwrap_or(0).max(1));
        writeln!(
            text,
            "{name:<24}{:>12}{:>16}   {bar}",
            amount(rate(*bytes, was, now, before)),
            amount(*bytes),
        )?;
    }
    writeln!(text)
}

/// Bytes by host, most first; IPv4 and IPv6 together.
fn by_name(scene: &Scene, arrived: &tally::View) -> Vec<(String, u64)> {
    let mut sums: HashMap<String, u64> = HashMap::new();
    for (address, bytes) in &arrived.talkers {
        let name = scene.hosts.get(address).cloned().unwrap_or_else(|| address.to_string());
        *sums.entry(name).or_default() += bytes;
    }
    let mut sorted: Vec<(String, u64)> = sums.into_iter().collect();
    sorted.sort_by(|(name, bytes), (other, more)| more.cmp(bytes).then_with(|| name.cmp(other)));
    sorted
}

fn ledger(text: &mut String, now: &Look) -> std::fmt::Result {
    let ledger = now.ledger;
    writeln!(text, "LEDGER (options records are counted in)")?;
    writeln!(
        text,
        "datagrams: {} read, {} refused, {} dropped by the kernel",
        thousands(ledger.datagrams),
        thousands(ledger.refused),
        thousands(ledger.kernel_drops),
    )?;
    writeln!(
        text,
        "records: {} decoded, {} dropped, {} spooled, {} committed",
        thousands(ledger.decoded),
        thousands(ledger.dropped),
        thousands(ledger.batched),
        thousands(ledger.committed),
    )
}

fn link(link: &Link) -> String {
    match (link.connected, link.tls.is_empty()) {
        (true, _) => format!("TLS {}, key exchange {}", link.tls, link.key_exchange),
        (false, true) => "not connected yet".to_owned(),
        (false, false) => "broken, trying again".to_owned(),
    }
}

/// Difference per second between two looks.
fn rate(value: u64, was: u64, now: &Look, before: &Look) -> u64 {
    let millis = now.elapsed.saturating_sub(before.elapsed).as_millis().max(1);
    let rate = u128::from(value.saturating_sub(was)) * 1_000 / millis;
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Minutes and seconds, hours if there are any.
pub fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours == 0 { format!("{minutes}:{seconds:02}") } else { format!("{hours}:{minutes:02}:{seconds:02}") }
}

/// With one decimal; `-` before the first record.
pub fn per_record(bytes: u64, records: u64) -> String {
    if records == 0 {
        return "-".to_owned();
    }
    let tenths = u128::from(bytes) * 10 / u128::from(records);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest unit that leaves at least 1, with one decimal.
pub fn amount(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let (mut rest, mut unit) = (bytes, "B");
    let mut tenths = 0;
    for larger in UNITS {
        if rest < 1_000 {
            break;
        }
        tenths = rest % 1_000 / 100;
        rest /= 1_000;
        unit = larger;
    }
    format!("{rest}.{tenths} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn scene() -> Scene {
        let exporter = SocketAddr::from(([127, 0, 0, 2], 40_001));
        let hosts =
            [("10.1.1.1", "desk-1.lisbon"), ("fd00::1", "desk-1.lisbon"), ("10.1.3.1", "web-1.lisbon")];
        Scene {
            hosts: hosts.map(|(address, name)| (address.parse().unwrap(), name.to_owned())).into(),
            exporters: vec![("lisbon", exporter)],
            proxy: Some(SocketAddr::from(([127, 0, 0, 1], 2_055))),
            collector: Some(SocketAddr::from(([127, 0, 0, 1], 4_440))),
        }
    }

    fn look(seconds: u64) -> Look {
        let exporter = Exporter { address: IpAddr::from([127, 0, 0, 2]), port: 40_001 };
        let talkers = [("10.1.1.1", 4_000), ("fd00::1", 2_000), ("10.1.3.1", 3_000), ("192.0.2.9", 10)];
        Look {
            elapsed: Duration::from_secs(seconds),
            sent: Totals { records: 20_000 * seconds, ..Totals::default() },
            udp_bytes: 1_220_000 * seconds,
            arrived: tally::View {
                counts: tally::Counts { records: 19_000 * seconds, ..Default::default() },
                exporters: BTreeMap::from([(exporter, 19_000 * seconds)]),
                talkers: talkers
                    .map(|(address, bytes)| (address.parse().unwrap(), bytes * seconds * 1_000))
                    .into(),
            },
            ledger: Ledger { datagrams: 700 * seconds, decoded: 19_500 * seconds, ..Ledger::default() },
            link: Link {
                connected: true,
                tls: "1.3".to_owned(),
                key_exchange: "X25519MLKEM768".to_owned(),
                wire_bytes: 313_500 * seconds,
            },
        }
    }

    #[test]
    fn the_table_says_what_there_is() {
        let text = table(&scene(), &look(75), &look(70), 50);
        for line in [
            "flowproxy demo  1:15  (Ctrl-C ends it)",
            "link: TLS 1.3, key exchange X25519MLKEM768",
            "sent by the mesh              20,000       1,500,000",
            "received at the far end       19,000       1,425,000",
            "under way                                     75,000   (batches, spool, link)",
            "bytes per record on the wire                    16.5   (61.0 over UDP)",
            "lisbon 127.0.0.2:40001        19,000       1,425,000",
            "desk-1.lisbon                 6.0 MB        450.0 MB   ####################",
            "web-1.lisbon                  3.0 MB        225.0 MB   ##########",
            "192.0.2.9                    10.0 kB        750.0 kB   #",
            "datagrams: 52,500 read, 0 refused, 0 dropped by the kernel",
        ] {
            assert!(text.lines().any(|is| is == line), "no line {line:?} in\n{text}");
        }
        assert!(text.lines().all(|line| line.len() <= 79), "fits a terminal\n{text}");
    }

    #[test]
    fn it_fits_the_rows_that_there_are() {
        let many: HashMap<IpAddr, u64> =
            (1..=99).map(|host| (IpAddr::from([10, 0, 0, host]), 1_000)).collect();
        let arrived = tally::View { talkers: many, ..look(5).arrived };
        let look = Look { arrived, ..look(5) };
        for rows in 21..=60 {
            let lines = table(&scene(), &look, &look, rows).lines().count();
            let fixed = OTHER_LINES + scene().exporters.len();
            assert_eq!(lines, rows.min(fixed + TALKERS.end()), "{rows}");
        }
    }

    #[test]
    fn a_first_look_has_no_rates_and_no_link() {
        let text = table(&scene(), &Look::default(), &Look::default(), 24);
        assert!(text.contains("link: not connected yet"), "{text}");
        assert!(
            text.contains("bytes per record on the wire                       -   (- over UDP)"),
            "{text}"
        );
        let broken = Link { connected: false, ..look(1).link };
        assert!(line(&Look { link: broken, ..look(2) }, &look(1)).ends_with("broken, trying again"));
    }

    #[test]
    fn the_line_says_the_same() {
        assert_eq!(
            line(&look(3_675), &look(3_670)),
            "1:01:15 19,000 records/s, sent 73,500,000, received 69,825,000, under way 3,675,000, twice 0, \
             16.5 bytes/record on the wire, TLS 1.3, key exchange X25519MLKEM768"
        );
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        let amounts = [0, 999, 1_000, 1_999, 999_999, 3_210_000_000, u64::MAX].map(amount);
        assert_eq!(amounts, ["0 B", "999 B", "1.0 kB", "1.9 kB", "999.9 kB", "3.2 GB", "18.4 EB"]);
    }
}
