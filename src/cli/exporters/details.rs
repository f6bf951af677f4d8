//! One exporter: all that is known of each of its senders.

use super::rows::{Exporter, LedgerRow, Sender, Status};
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
    say("interfaces", &sender.interfaces.to_string());
    let faults: Vec<String> =
        sender.faults.iter().map(|(reason, times)| format!("{reason} {times}")).collect();
    say("faults", if faults.is_empty() { "none".to_owned() } else { faults.join(", ") }.as_str());
    say("state", &sender.state);
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
