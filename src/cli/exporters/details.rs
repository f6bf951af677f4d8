//! One exporter: all that is known of each of its senders.

use super::rows::{Device, Exporter, Interface, LedgerRow, OtherName, Sender, Status};
use crate::cli::counted;
use crate::flow::time;
use crate::shard::cause::span;
use std::fmt::Write;

/// A paragraph a sender, the worst first.
pub(super) fn text(status: &Status) -> String {
    let mut text = String::new();
    for exporter in &status.exporters {
        for sender in &exporter.senders {
            if !text.is_empty() {
                text.push('\n');
            }
            paragraph(&mut text, exporter, sender, status.now);
        }
        if let Some(alike) = alike(exporter) {
            let _ = writeln!(text, "\n{alike}");
        }
        if let Some(row) = status.ledger.exporters.iter().find(|row| row.address == exporter.address) {
            let _ = writeln!(text, "\n{}", ledger(row));
        }
        if exporter.senders_not_shown > 0 {
            let senders = counted(exporter.senders_not_shown, "more sender", "more senders");
            let _ = writeln!(text, "\n({senders} of {})", exporter.address);
        }
    }
    text
}

fn paragraph(text: &mut String, exporter: &Exporter, sender: &Sender, now: u64) {
    let (end, protocol, domain) = (exporter.end(sender.port), &sender.protocol, sender.domain);
    let _ = writeln!(text, "{end} {protocol} domain {domain}: {}", sender.cause);
    let mut say = |what: &str, value: &str| {
        let _ = writeln!(text, "  {what:<12} {value}");
    };
    for cause in &sender.also {
        say("also", cause);
    }
    for (what, value) in names(exporter, sender) {
        say(what, &value);
    }
    for told in sender.snmp.iter().flat_map(|device| snmp(device, now)) {
        say("snmp", &told);
    }
    if sender.last_seen > 0 {
        let (first, last) = (instant(sender.first_seen), instant(sender.last_seen));
        say(
            "heard",
            &format!("first {first}, last {last} ({} ago)", span(now.saturating_sub(sender.last_seen))),
        );
    }
    let limited = match exporter.limited {
        0 => String::new(),
        limited => format!(", and {limited} of the address not taken"),
    };
    say("datagrams", &format!("{}{limited}", sender.datagrams));
    say("records", &records(sender));
    say("templates", &templates(sender));
    for awaited in &sender.awaited {
        let sets = counted(awaited.sets, "set", "sets");
        say(
            "awaited",
            &format!("template {}: {sets} held since {}", awaited.template, instant(awaited.since)),
        );
    }
    say("sampling", &sampling(sender));
    say("sequence", &sequence(sender));
    say("clock", &clock(sender.clock_skew_ms));
    if sender.boot_time > 0 {
        say("started", &instant(sender.boot_time));
    }
    let faults: Vec<String> =
        sender.faults.iter().map(|(reason, times)| format!("{reason} {times}")).collect();
    say("faults", if faults.is_empty() { "none".to_owned() } else { faults.join(", ") }.as_str());
    say("state", &sender.state);
    let count = sender.interfaces.len() as u64 + sender.interfaces_not_shown;
    say("interfaces", &if count == 0 { "none known by name".to_owned() } else { count.to_string() });
    interfaces(text, &sender.interfaces);
    if sender.interfaces_not_shown > 0 {
        let _ = writeln!(text, "    ({} more)", sender.interfaces_not_shown);
    }
    for OtherName { kind, id, name } in &sender.other_names {
        let _ = writeln!(text, "  {kind:<12} {id}  {name}");
    }
    if sender.other_names_not_shown > 0 {
        let _ = writeln!(text, "    ({} more)", sender.other_names_not_shown);
    }
}

/// What the sender is called, and whose names it goes by.
fn names(exporter: &Exporter, sender: &Sender) -> Vec<(&'static str, String)> {
    let labels: Vec<String> = sender.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let agent = sender.agent.clone().unwrap_or_default();
    let device = if sender.device == exporter.address { String::new() } else { sender.device.clone() };
    let all = [
        ("name", sender.name.clone()),
        ("site", sender.site.clone()),
        ("labels", labels.join(", ")),
        ("agent", agent),
        ("device", device),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// When the device told its interfaces last, and why it did not since.
fn snmp(device: &Device, now: u64) -> Vec<String> {
    let Device { interfaces, up, read, by, failed, failed_at, failures } = device;
    let ago = |at: u64| span(now.saturating_sub(at));
    let read = (*read > 0).then(|| {
        let interfaces = counted(*interfaces, "interface", "interfaces");
        format!("{interfaces} read {} ago by {by}, {up} of them up", ago(*read))
    });
    let failed = failed.as_ref().map(|error| {
        let times = counted(*failures, "time", "times in a row");
        format!("last walk failed: {error} ({times}, {} ago)", ago(*failed_at))
    });
    read.into_iter().chain(failed).collect()
}

/// A line an interface.
fn interfaces(text: &mut String, interfaces: &[Interface]) {
    let width = |of: fn(&Interface) -> usize| interfaces.iter().map(of).max().unwrap_or(0);
    let (indexes, names) = (width(|it| it.index.to_string().len()), width(|it| it.name.chars().count()));
    for Interface { index, name, description, speed: bits, source, age } in interfaces {
        let said = format!("{}, {} ago", source.replace('_', " "), span(age * 1_000));
        let line =
            format!("    {index:>indexes$}  {name:<names$}  {:<10}  {said:<24}  {description}", speed(*bits));
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// Bits per second as people say it.
fn speed(bits: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1_000_000_000_000, "Tbit/s"), (1_000_000_000, "Gbit/s"), (1_000_000, "Mbit/s"), (1_000, "kbit/s")];
    match UNITS.iter().find(|(unit, _)| bits >= *unit) {
        None if bits == 0 => "-".to_owned(),
        None => format!("{bits} bit/s"),
        Some((unit, name)) if bits.is_multiple_of(*unit) => format!("{} {name}", bits / unit),
        Some((unit, name)) => format!("{:.1} {name}", bits as f64 / *unit as f64),
    }
}

/// That nothing tells the address's exporters apart.
pub(super) fn alike(exporter: &Exporter) -> Option<String> {
    (exporter.ports_not_told_apart > 1).then(|| {
        format!(
            "({} ports of {} send at the same time and have no names that tell them apart: enrich.static can give \
             each its own)",
            exporter.ports_not_told_apart, exporter.address
        )
    })
}

/// What became of what the address has sent.
fn ledger(row: &LedgerRow) -> String {
    let LedgerRow { address, numbered, committed, skipped, .. } = row;
    let dropped: u64 = row.dropped.values().sum();
    let lost = row.estimates.lost_in_restart.iter();
    let lost: String =
        lost.map(|(unit, lost)| format!("; about {lost} {unit} lost in our restart")).collect();
    format!(
        "Of {address} since the start: {numbered} records spooled, {committed} of them committed, {skipped} given up; \
         {dropped} dropped before{lost}"
    )
}

fn records(sender: &Sender) -> String {
    let mut text = format!("{} and {} of options", sender.records, sender.options);
    if sender.provisional_records > 0 {
        let _ = write!(text, "; {} by templates of another port", sender.provisional_records);
    }
    text
}

fn templates(sender: &Sender) -> String {
    let restored = match sender.templates.restored {
        0 => String::new(),
        restored => format!(", {restored} of them from before the restart"),
    };
    format!("{} known{restored}", sender.templates.known)
}

fn sampling(sender: &Sender) -> String {
    match (sender.sampling.rate, sender.sampling.source.as_str()) {
        (0, _) => "no rate known".to_owned(),
        (rate, source) => format!("1 packet in {rate} (known from: {source})"),
    }
}

fn sequence(sender: &Sender) -> String {
    let sequence = &sender.sequence;
    if sequence.unit.is_empty() {
        return "none".to_owned();
    }
    if sequence.stands_still {
        return "always the same".to_owned();
    }
    format!(
        "{} {} missing, {} late; {} twice; {}",
        sequence.missing,
        sequence.unit,
        sequence.late,
        counted(sequence.duplicates, "datagram", "datagrams"),
        counted(sequence.resets, "new start", "new starts")
    )
}

fn clock(skew_ms: i64) -> String {
    match skew_ms.unsigned_abs() {
        0..2_000 => "as ours".to_owned(),
        away => format!("{} {}", span(away), if skew_ms < 0 { "behind" } else { "ahead" }),
    }
}

/// RFC 3339 to the second.
fn instant(unix_ms: u64) -> String {
    let mut text = Vec::new();
    time::write_rfc3339_millis(&mut text, unix_ms);
    let text = String::from_utf8_lossy(&text);
    format!("{}Z", text.get(..19).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_stand_under_each_other() {
        let interface = |index, name: &str, description: &str, speed, source: &str, age| Interface {
            index,
            name: name.to_owned(),
            description: description.to_owned(),
            speed,
            source: source.to_owned(),
            age,
        };
        let mut text = String::new();
        interfaces(
            &mut text,
            &[
                interface(7, "eth1", "uplink to Paris", 10_000_000_000, "static", 12),
                interface(1_000, "GigabitEthernet0/1", "", 0, "last_known", 7_200),
                interface(1_001, "é", "x", 2_500_000_000, "snmp", 0),
            ],
        );
        let expected = [
            "       7  eth1                10 Gbit/s   static, 12 s ago          uplink to Paris",
            "    1000  GigabitEthernet0/1  -           last known, 2 h 0 min ago",
            "    1001  é                   2.5 Gbit/s  snmp, 0 s ago             x",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        assert_eq!(
            (speed(100_000_000), speed(64_000), speed(9)),
            ("100 Mbit/s".into(), "64 kbit/s".into(), "9 bit/s".into())
        );
    }
}
