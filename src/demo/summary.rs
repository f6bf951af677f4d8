//! What came of it: the last words of the demo, as text and as the one JSON line.

use super::tally;
use super::view::{Link, amount, per_record, thousands};
use crate::generator::export::Totals;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// The outcome, counted by both ends on their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How long the mesh talked.
    pub elapsed: Duration,
    /// The generator's count.
    pub sent: Totals,
    /// Bytes of its datagrams, UDP payload.
    pub udp_bytes: u64,
    /// Datagrams that its sockets did not take; not in `sent`.
    pub unsent_datagrams: u64,
    /// The sink's count.
    pub received: tally::Counts,
    /// The last connection, and the bytes of all.
    pub link: Link,
    /// What went wrong in the proxy or the collector, if anything did.
    pub trouble: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    records_sent: u64,
    records_received: u64,
    lost: i64,
    twice: u64,
    wire_bytes: u64,
    tls: &'a str,
    key_exchange: &'a str,
    seconds: f64,
}

impl Summary {
    /// Sent less received; below zero when records came twice and none was lost.
    pub fn lost(&self) -> i64 {
        self.sent.records.wrapping_sub(self.received.records).cast_signed()
    }

    /// Every record arrived, once, and with the values it had.
    pub fn is_whole(&self) -> bool {
        let (sent, received) = (self.sent, self.received);
        (sent.records, sent.packets, sent.bytes) == (received.records, received.packets, received.bytes)
            && (received.twice, received.unknown) == (0, 0)
            && self.trouble.is_none()
    }

    /// One JSON object, without a line feed.
    pub fn json(&self) -> String {
        let line = Line {
            records_sent: self.sent.records,
            records_received: self.received.records,
            lost: self.lost(),
            twice: self.received.twice,
            wire_bytes: self.link.wire_bytes,
            tls: &self.link.tls,
            key_exchange: &self.link.key_exchange,
            seconds: (self.elapsed.as_secs_f64() * 1_000.0).round() / 1_000.0,
        };
        // Numbers and two strings: there is nothing in it that JSON cannot say.
        serde_json::to_string(&line).unwrap_or_default()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, received) = (self.sent, self.received);
        let per_second = sent.records * 1_000 / u64::try_from(self.elapsed.as_millis()).unwrap_or(1).max(1);
        writeln!(text, "flowproxy demo ran for {:.1} s", self.elapsed.as_secs_f64())?;
        writeln!(
            text,
            "  sent      {} records, {} a second, in {} datagrams of NetFlow v9",
            thousands(sent.records),
            thousands(per_second),
            thousands(sent.datagrams)
        )?;
        writeln!(
            text,
            "  received  {} records in {} batches: {} lost, {} came twice",
            thousands(received.records),
            thousands(received.batches),
            self.lost(),
            thousands(received.twice),
        )?;
        let flows = |bytes, packets| format!("{} in {} packets", amount(bytes), thousands(packets));
        let (told, heard) = (flows(sent.bytes, sent.packets), flows(received.bytes, received.packets));
        if (sent.bytes, sent.packets) == (received.bytes, received.packets) {
            writeln!(text, "  flows     {told}, the same at both ends")?;
        } else {
            writeln!(text, "  flows     {told} sent, {heard} received")?;
        }
        writeln!(
            text,
            "  wire      {} over TLS {} ({}): {} bytes a record, against {} over UDP",
            amount(self.link.wire_bytes),
            self.link.tls,
            self.link.key_exchange,
            per_record(self.link.wire_bytes, received.records),
            per_record(self.udp_bytes, sent.records),
        )?;
        if self.unsent_datagrams > 0 {
            writeln!(text, "  unsent    {} datagrams, not counted", thousands(self.unsent_datagrams))?;
        }
        if received.unknown > 0 {
            writeln!(text, "  unknown   {} records are none of the mesh's", thousands(received.unknown))?;
        }
        if let Some(trouble) = &self.trouble {
            writeln!(text, "  trouble   {trouble}")?;
        }
        let verdict = if self.is_whole() {
            "every record arrived exactly once"
        } else {
            "what was sent is not what arrived"
        };
        write!(text, "  result    {verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Summary {
        Summary {
            elapsed: Duration::from_millis(10_004),
            sent: Totals { records: 200_000, packets: 1_000_000, bytes: 5_000_000_000, datagrams: 7_000 },
            udp_bytes: 12_200_000,
            unsent_datagrams: 0,
            received: tally::Counts {
                records: 200_000,
                options: 20,
                packets: 1_000_000,
                bytes: 5_000_000_000,
                batches: 25,
                ..Default::default()
            },
            link: Link {
                connected: false,
                tls: "1.3".to_owned(),
                key_exchange: "X25519MLKEM768".to_owned(),
                wire_bytes: 3_300_000,
            },
            trouble: None,
        }
    }

    #[test]
    fn the_line_is_the_contract() {
        assert_eq!(
            whole().json(),
            r#"{"records_sent":200000,"records_received":200000,"lost":0,"twice":0,"wire_bytes":3300000,"tls":"1.3","key_exchange":"X25519MLKEM768","seconds":10.004}"#
        );
    }

    #[test]
    fn only_what_arrived_once_and_right_is_whole() {
        assert!(whole().is_whole());
        let cases: [fn(&mut Summary); 6] = [
            |summary| summary.received.records -= 1,
            |summary| summary.received.twice = 1,
            |summary| summary.received.unknown = 1,
            |summary| summary.received.bytes += 1,
            |summary| summary.received.packets -= 1,
            |summary| summary.trouble = Some("the proxy ended early".to_owned()),
        ];
        for spoil in cases {
            let mut summary = whole();
            spoil(&mut summary);
            assert!(!summary.is_whole(), "{summary}");
            assert!(summary.to_string().ends_with("what was sent is not what arrived"));
        }
        let mut more = whole();
        more.received.records += 2;
        assert_eq!(more.lost(), -2);
    }

    #[test]
    fn the_text_has_all_figures() {
        assert_eq!(
            whole().to_string(),
            "flowproxy demo ran for 10.0 s\n  \
             sent      200,000 records, 19,992 a second, in 7,000 datagrams of NetFlow v9\n  \
             received  200,000 records in 25 batches: 0 lost, 0 came twice\n  \
             flows     5.0 GB in 1,000,000 packets, the same at both ends\n  \
             wire      3.3 MB over TLS 1.3 (X25519MLKEM768): 16.5 bytes a record, against 61.0 over UDP\n  \
             result    every record arrived exactly once"
        );
    }
}
