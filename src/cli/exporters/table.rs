//! All exporters: a line a sender, those of which something is wrong first, and of each the sentence at the end.

use super::details;
use super::rows::{Exporter, Sender, Status, Weight};
use crate::cli::counted;
use crate::shard::cause::span;
use std::fmt::Write;
use std::net::IpAddr;

const COLUMNS: usize = 12;
/// The place of the name, which is shown if any sender has one.
const NAME: usize = 1;
/// The columns; the sentence has no width.
const HEAD: [&str; COLUMNS] = [
    "EXPORTER",
    "NAME",
    "PROTOCOL",
    "DOMAIN",
    "SEEN",
    "DATAGRAMS",
    "RECORDS",
    "TEMPLATES",
    "HELD",
    "RATE",
    "MISSING",
    "WHY",
];
/// Those of them that are numbers stand to the right.
const RIGHT: [bool; COLUMNS] = [false, false, false, true, true, true, true, true, true, true, true, false];

/// The table, and what is not in it.
pub(super) fn text(status: &Status) -> String {
    let mut senders: Vec<(&Exporter, &Sender)> = Vec::new();
    for exporter in &status.exporters {
        senders.extend(exporter.senders.iter().map(|sender| (exporter, sender)));
    }
    let gone = senders.iter().filter(|(_, sender)| sender.weight == Weight::Gone).count();
    senders.retain(|(_, sender)| sender.weight != Weight::Gone);
    senders.sort_by_key(|(exporter, sender)| {
        (sender.weight, exporter.address.parse::<IpAddr>().ok(), sender.port, sender.domain)
    });
    let lines: Vec<[String; COLUMNS]> =
        senders.iter().map(|(exporter, sender)| line(exporter, sender, status.now)).collect();
    let mut text = String::new();
    if lines.is_empty() {
        text.push_str("Nobody has sent anything since the proxy started.\n");
    } else {
        table(&mut text, &lines);
    }
    notes(&mut text, status, gone as u64);
    text
}

fn line(exporter: &Exporter, sender: &Sender, now: u64) -> [String; COLUMNS] {
    let or_dash = |there: bool, text: String| if there { text } else { "-".to_owned() };
    let sequence = &sender.sequence;
    [
        exporter.end(sender.port),
        sender.name.clone(),
        sender.protocol.clone(),
        sender.domain.to_string(),
        or_dash(sender.last_seen > 0, format!("{} ago", span(now.saturating_sub(sender.last_seen)))),
        sender.datagrams.to_string(),
        sender.records.to_string(),
        sender.templates.known.to_string(),
        sender.sets_held.to_string(),
        or_dash(sender.sampling.rate > 0, format!("{} {}", sender.sampling.rate, sender.sampling.source)),
        or_dash(!sequence.unit.is_empty() && !sequence.stands_still, sequence.missing.to_string()),
        sender.cause.clone(),
    ]
}

fn table(text: &mut String, lines: &[[String; COLUMNS]]) {
    let head = HEAD.map(str::to_owned);
    let width = |column: usize| {
        let cells = std::iter::once(&head).chain(lines).filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let has_names = lines.iter().any(|line| line.get(NAME).is_some_and(|name| !name.is_empty()));
    for line in std::iter::once(&head).chain(lines) {
        let mut row = String::new();
        for (column, ((cell, width), is_right)) in line.iter().zip(&widths).zip(RIGHT).enumerate() {
            if column == NAME && !has_names {
                continue;
            }
            let _ = if is_right { write!(row, "{cell:>width$}  ") } else { write!(row, "{cell:<width$}  ") };
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
}

/// What the table leaves out.
fn notes(text: &mut String, status: &Status, gone: u64) {
    if gone > 0 {
        let ports = counted(gone, "port that sends", "ports that send");
        let _ = writeln!(
            text,
            "({ports} no more while another of its address does: name the address to see them)"
        );
    }
    for exporter in &status.exporters {
        if exporter.senders_not_shown > 0 {
            let senders = counted(exporter.senders_not_shown, "more sender", "more senders");
            let _ = writeln!(text, "({senders} of {})", exporter.address);
        }
        if let Some(alike) = details::alike(exporter) {
            let _ = writeln!(text, "{alike}");
        }
        if exporter.address == "other" {
            let datagrams = counted(exporter.datagrams, "datagram", "datagrams");
            let _ = writeln!(text, "({datagrams} of exporters that were heard longer ago than these)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    pub(super) fn sender(port: u16, weight: &str, cause: &str) -> serde_json::Value {
        json!({
            "port": port, "protocol": "netflow-v9", "domain": 7, "state": "ok", "weight": weight, "cause": cause,
            "also": [], "first_seen": 1_000, "last_seen": 58_000, "datagrams": 12, "records": 340, "options": 0,
            "faults": {}, "templates": { "known": 2, "restored": 0 }, "provisional_records": 0, "sets_held": 0,
            "awaited": [], "sampling": { "rate": 100, "source": "options" },
            "sequence": { "unit": "datagrams", "missing": 3, "late": 0, "duplicates": 0, "resets": 0,
                "stands_still": false },
            "clock_skew_ms": 0, "boot_time": 0, "name": "", "site": "", "labels": {}, "agent": null, "device": "192.0.2.1",
            "interfaces": [], "interfaces_not_shown": 0,
            "other_names": [], "other_names_not_shown": 0,
        })
    }

    fn exporter(address: &str, senders: &[serde_json::Value], not_shown: u64) -> serde_json::Value {
        json!({
            "address": address, "datagrams": 12, "limited": 0, "ports_not_told_apart": 0,
            "senders_not_shown": not_shown, "senders": senders,
        })
    }

    #[test]
    fn what_is_wrong_comes_first_and_columns_stand_under_each_other() {
        let well =
            exporter("192.0.2.1", &[sender(2055, "well", "ok"), sender(2056, "gone", "sends no more")], 0);
        let wrong = exporter("2001:db8::1", &[sender(9, "wrong", "template 256 not seen yet")], 4);
        let status = json!({
            "now": 60_000, "exporters": [well, wrong, exporter("other", &[], 0)], "ledger": { "exporters": [] },
        });
        let text = text(&serde_json::from_value(status).unwrap());
        let expected = "\
EXPORTER         PROTOCOL    DOMAIN     SEEN  DATAGRAMS  RECORDS  TEMPLATES  HELD         RATE  MISSING  WHY
[2001:db8::1]:9  netflow-v9       7  2 s ago         12      340          2     0  100 options        3  template 256 not seen yet
192.0.2.1:2055   netflow-v9       7  2 s ago         12      340          2     0  100 options        3  ok
(1 port that sends no more while another of its address does: name the address to see them)
(4 more senders of 2001:db8::1)
(12 datagrams of exporters that were heard longer ago than these)
";
        assert_eq!(text, expected);
    }

    #[test]
    fn names_have_a_column_where_there_are_any() {
        let mut named = sender(1, "well", "ok");
        named["name"] = "r1".into();
        let mut shared = exporter("127.0.0.1", &[named, sender(2, "well", "ok")], 0);
        shared["ports_not_told_apart"] = 3.into();
        let status = json!({ "now": 60_000, "exporters": [shared], "ledger": { "exporters": [] } });
        let text = text(&serde_json::from_value(status).unwrap());
        assert!(text.starts_with("EXPORTER     NAME  PROTOCOL"), "{text}");
        assert!(text.contains("\n127.0.0.1:1  r1    netflow-v9"), "{text}");
        assert!(text.contains("\n127.0.0.1:2        netflow-v9"), "{text}");
        assert!(text.contains("\n(3 ports of 127.0.0.1 send at the same time"), "{text}");
    }

    #[test]
    fn nobody_is_said_to_be_there() {
        let status =
            serde_json::from_value(json!({ "now": 1, "exporters": [], "ledger": { "exporters": [] } }))
                .unwrap();
        assert_eq!(text(&status), "Nobody has sent anything since the proxy started.\n");
    }
}
