//! What came of it: the last words of the demo, as text and as the one JSON line.

use super::tally;
use super::view::{Link, amount, per_record, thousands};
use crate::generator::export::Totals;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
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
    /// What the faults came to, of a demo with faults.
    pub chaos: Option<Outcome>,
}

/// What the faults of a demo came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Of their course.
    pub seed: u64,
    /// How many there were.
    pub faults: u64,
    /// Records that stood in the spool and are neither at the sink nor in a skip row.
    pub lost: u64,
    /// Records that were sent and never stood in the spool.
    pub cut: u64,
    /// Where the demo's files are, if they were kept.
    pub kept: Option<PathBuf>,
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
    #[serde(flatten)]
    faults: Option<Faults>,
}

#[derive(Serialize)]
struct Faults {
    cut: u64,
    seed: u64,
    faults: u64,
}

impl Summary {
    /// Sent less received; below zero when records came twice and none was lost. Of a demo with faults what was in
    /// the spool and is gone.
    pub fn lost(&self) -> i64 {
        match &self.chaos {
            Some(outcome) => outcome.lost.cast_signed(),
            None => self.sent.records.wrapping_sub(self.received.records).cast_signed(),
        }
    }

    /// Every record arrived, once, and with the values it had. Of a demo with faults: what was in the spool did.
    pub fn is_whole(&self) -> bool {
        let (sent, received) = (self.sent, self.received);
        if let Some(outcome) = &self.chaos {
            return (outcome.lost, received.twice, received.unknown) == (0, 0, 0) && self.trouble.is_none();
        }
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
            faults: self.chaos.as_ref().map(|chaos| Faults {
                cut: chaos.cut,
                seed: chaos.seed,
                faults: chaos.faults,
            }),
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
        match &self.chaos {
            Some(outcome) => self.chaos_lines(text, outcome)?,
            None => self.arrival_lines(text)?,
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
        let verdict = match (self.is_whole(), &self.chaos) {
            (true, None) => "every record arrived exactly once",
            (false, None) => "what was sent is not what arrived",
            (true, Some(_)) => "every record that stood in the spool arrived exactly once",
            (false, Some(_)) => "what stood in the spool is not what arrived",
        };
        write!(text, "  result    {verdict}")
    }
}

impl Summary {
    fn arrival_lines(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, received) = (self.sent, self.received);
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
        Ok(())
    }

    fn chaos_lines(&self, text: &mut fmt::Formatter<'_>, outcome: &Outcome) -> fmt::Result {
        writeln!(text, "  faults    {}, by seed {}", thousands(outcome.faults), outcome.seed)?;
        writeln!(
            text,
            "  received  {} records: {} lost, {} came twice",
            thousands(self.received.records),
            thousands(outcome.lost),
            thousands(self.received.twice),
        )?;
        writeln!(
            text,
            "  cut       {} records, before they stood in the spool: killed with the proxy, or sent while there was none",
            thousands(outcome.cut),
        )?;
        match &outcome.kept {
            Some(dir) => writeln!(text, "  files     {}", dir.display()),
            None => Ok(()),
        }
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
            chaos: None,
        }
    }

    fn through_faults() -> Summary {
        let outcome = Outcome { seed: 7, faults: 31, lost: 0, cut: 1_234, kept: None };
        let mut summary = Summary { chaos: Some(outcome), ..whole() };
        summary.received.records -= 1_234;
        summary
    }

    #[test]
    fn faults_add_to_the_line_and_cuts_are_no_losses() {
        let line = through_faults().json();
        assert!(line.contains(r#""lost":0,"twice":0,"#), "{line}");
        assert!(line.ends_with(r#""seconds":10.004,"cut":1234,"seed":7,"faults":31}"#), "{line}");
        assert!(through_faults().is_whole());
        let mut lost = through_faults();
        lost.chaos.as_mut().unwrap().lost = 1;
        assert!(!lost.is_whole() && lost.json().contains(r#""lost":1,"#));
        let mut twice = through_faults();
        twice.received.twice = 1;
        assert!(!twice.is_whole());
        let text = through_faults().to_string();
        assert!(text.contains("  cut       1,234 records, before they stood in the spool"), "{text}");
        assert!(text.ends_with("every record that stood in the spool arrived exactly once"), "{text}");
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
