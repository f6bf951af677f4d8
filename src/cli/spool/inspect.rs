//! `spool inspect`: the folder as text or JSON.

use super::{file, hex, reason};
use crate::cli::{Failure, counted};
use crate::shard::cause::span;
use crate::spool::SkipRow;
use crate::spool::folder::{Beside, Folder, LaneFound, SegmentFound, Tally};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// For people.
pub(super) fn text(folder: &Folder) -> String {
    let now = now_ms();
    let mut text = format!("{}\n", folder.dir.display());
    let mut say = |what: &str, value: String| {
        let _ = writeln!(text, "  {what:<16} {value}");
    };
    match folder.in_use_by {
        Some(pid) => say("in use", format!("by process {pid}: what stands here goes on changing")),
        None => say("in use", "no".to_owned()),
    }
    match &folder.positions {
        None => say("positions", "none: nothing is known to be acknowledged".to_owned()),
        Some(positions) => {
            let store = &positions.mark_store_id;
            say("mark store", if store.is_empty() { "none yet".to_owned() } else { hex(store) });
            say("rejects in a row", positions.rejects.to_string());
        }
    }
    say("unacknowledged", tally(&total(folder)));
    let sizes: u64 = folder.segments.iter().map(|segment| segment.file_bytes).sum();
    say("segments", format!("{}, {}", folder.segments.len(), bytes(sizes)));
    for beside in folder.aside.iter().chain(&folder.quarantine) {
        say(&beside.name, format!("{}, {}", counted(beside.files, "file", "files"), bytes(beside.bytes)));
    }
    for lane in &folder.lanes {
        lane_text(&mut text, folder, lane, now);
    }
    for damage in &folder.damages {
        let _ = writeln!(text, "{}: at byte {}: {}", file(folder, &damage.file), damage.offset, damage.what);
    }
    text
}

fn lane_text(text: &mut String, folder: &Folder, lane: &LaneFound, now: u64) {
    let begun = match lane.created {
        Some(created) => format!("begun {} ago", span(now.saturating_sub(created))),
        None => "begun nobody knows when".to_owned(),
    };
    let _ = writeln!(text, "\nlane {}, {begun}", lane.id);
    let mut say = |what: &str, value: String| {
        let _ = writeln!(text, "  {what:<16} {value}");
    };
    say("next batch", lane.next_seq.to_string());
    say("acknowledged to", lane.acked_seq.to_string());
    say("unacknowledged", tally(&lane.unacked));
    if let Some(folder) = &lane.moving_to {
        say("being set aside", format!("the rest of it is in {folder}"));
    }
    for row in &lane.rows {
        say("skipped", row_text(row));
    }
    for gap in &lane.missing {
        say("missing", range(*gap.start(), *gap.end()));
    }
    for segment in folder.segments.iter().filter(|segment| segment.lane == lane.id) {
        say("segment", segment_text(segment, now));
    }
}

fn segment_text(segment: &SegmentFound, now: u64) -> String {
    let state = if segment.sealed { "sealed" } else { "growing" };
    if segment.held.batches == 0 {
        return format!("from {}, {state}, no batch, {}", segment.first_seq, bytes(segment.file_bytes));
    }
    let mut text = format!(
        "{}, {state}, {}, oldest received {} ago",
        range(segment.first_seq, segment.last_seq),
        tally(&segment.held),
        span(now.saturating_sub(segment.oldest_received))
    );
    if segment.torn_bytes > 0 {
        let _ = write!(text, ", then {} of a frame that is not whole", bytes(segment.torn_bytes));
    }
    text
}

fn row_text(row: &SkipRow) -> String {
    let records = match row.records_per_seq.is_empty() && row.counts_per_exporter.is_empty() {
        true => "records not known".to_owned(),
        false => counted(row.records(), "record", "records"),
    };
    format!("{}, {}, {records}", range(row.from, row.to), reason(row.reason))
}

fn range(from: u64, to: u64) -> String {
    if from == to { from.to_string() } else { format!("{from} to {to}") }
}

fn tally(tally: &Tally) -> String {
    let batches = counted(tally.batches, "batch", "batches");
    format!("{batches}, {}, {}", counted(tally.records, "record", "records"), bytes(tally.bytes))
}

fn bytes(bytes: u64) -> String {
    counted(bytes, "byte", "bytes")
}

fn total(folder: &Folder) -> Tally {
    let mut sum = Tally::default();
    for lane in &folder.lanes {
        sum.batches += lane.unacked.batches;
        sum.records += lane.unacked.records;
        sum.bytes += lane.unacked.bytes;
    }
    sum
}

/// For programs.
pub(super) fn json(folder: &Folder) -> Result<String, Failure> {
    let positions = folder.positions.as_ref();
    let value = json!({
        "folder": folder.dir.display().to_string(),
        "in_use_by": folder.in_use_by,
        "positions": positions.is_some(),
        "mark_store_id": positions.map(|positions| hex(&positions.mark_store_id)),
        "rejects_in_a_row": positions.map(|positions| positions.rejects),
        "unacked": tally_json(&total(folder)),
        "lanes": folder.lanes.iter().map(|lane| lane_json(folder, lane)).collect::<Vec<_>>(),
        "rows_in_file": folder.rows,
        "aside": folder.aside.iter().map(beside_json).collect::<Vec<_>>(),
        "quarantine": folder.quarantine.as_ref().map(beside_json),
        "damages": folder.damages.iter().map(|damage| json!({
            "file": damage.file, "offset": damage.offset, "what": damage.what,
        })).collect::<Vec<_>>(),
    });
    serde_json::to_string_pretty(&value).map(|text| text + "\n").map_err(Failure::other)
}

fn lane_json(folder: &Folder, lane: &LaneFound) -> Value {
    let segments = folder.segments.iter().filter(|segment| segment.lane == lane.id);
    json!({
        "id": lane.id.to_string(),
        "created": lane.created,
        "oldest_seq": lane.oldest_seq,
        "next_seq": lane.next_seq,
        "acked_seq": lane.acked_seq,
        "unacked": tally_json(&lane.unacked),
        "moving_to": lane.moving_to,
        "skipped": lane.rows.iter().map(row_json).collect::<Vec<_>>(),
        "missing": lane.missing.iter().map(|gap| [*gap.start(), *gap.end()]).collect::<Vec<_>>(),
        "segments": segments.map(segment_json).collect::<Vec<_>>(),
    })
}

fn segment_json(segment: &SegmentFound) -> Value {
    json!({
        "file": segment.name,
        "state": if segment.sealed { "sealed" } else { "growing" },
        "first_seq": segment.first_seq,
        "last_seq": segment.last_seq,
        "held": tally_json(&segment.held),
        "file_bytes": segment.file_bytes,
        "oldest_received": (segment.held.batches > 0).then_some(segment.oldest_received),
        "torn_bytes": segment.torn_bytes,
    })
}

fn row_json(row: &SkipRow) -> Value {
    let exporters = row.counts_per_exporter.iter();
    json!({
        "from": row.from,
        "to": row.to,
        "reason": reason(row.reason),
        "records": row.records(),
        "records_per_seq": row.records_per_seq,
        "records_per_exporter": exporters
            .map(|(address, records)| (address.to_string(), json!(records)))
            .collect::<serde_json::Map<_, _>>(),
    })
}

fn tally_json(tally: &Tally) -> Value {
    json!({ "batches": tally.batches, "records": tally.records, "bytes": tally.bytes })
}

fn beside_json(beside: &Beside) -> Value {
    json!({ "name": beside.name, "files": beside.files, "bytes": beside.bytes })
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
