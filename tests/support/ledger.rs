//! The equations of the loss ledger, over what `/status` shows as `ledger`, and the proof that no term can be missing.
//!
//! A place is a JSON pointer into `total`, or one into each row of `exporters`, whose sum it is then. Each number there
//! is one counter's (`each_number_is_one_counter`, of the crate's own tests), and is read nowhere else in the ledger: a
//! counter that does not count is a 0 in its place. So each place is set to 0 where a test has brought something into it,
//! and the equations must notice ([`assert_needed`]). `tests/ledger.rs` holds that the lists of places here are all that
//! there are.

use serde_json::Value;
use std::collections::BTreeSet;

type Equation = (&'static [&'static str], &'static [&'static str]);

/// What the left sides come to, the right sides do. An object is the sum of what is in it.
const EQUATIONS: [Equation; 24] = [
    (
        &["/total/datagrams/received"],
        &[
            "/total/datagrams/accepted",
            "/total/datagrams/refused",
            "/total/datagrams/limited",
            "/total/datagrams/truncated",
            "/total/datagrams/unreadable",
        ],
    ),
    (
        &["/total/sets/received"],
        &["/total/sets/decoded", "/total/sets/held", "/total/sets/undecoded", "/total/sets/unknown_samples"],
    ),
    (&["/total/records/decoded"], &["/total/records/by_kind"]),
    (
        &["/total/records/decoded"],
        &["/total/records/dropped", "/total/records/open", "/total/records/batched"],
    ),
    (
        &["/total/raw_datagrams/accepted"],
        &["/total/raw_datagrams/dropped", "/total/raw_datagrams/open", "/total/raw_datagrams/batched"],
    ),
    (
        &["/total/records/batched", "/total/raw_datagrams/batched"],
        &["/total/spool/waiting", "/total/spool/dropped", "/total/spool/numbered"],
    ),
    (
        &["/total/spool/numbered", "/total/spool/recovered"],
        &[
            "/total/spool/committed",
            "/total/spool/found_committed",
            "/total/spool/skipped",
            "/total/spool/unacked",
        ],
    ),
    (
        &["/total/batches/numbered", "/total/batches/recovered"],
        &[
            "/total/batches/committed",
            "/total/batches/found_committed",
            "/total/batches/skipped",
            "/total/batches/unacked",
        ],
    ),
    // Exporters together have what the total has.
    (&["/exporters/datagrams/accepted"], &["/total/datagrams/accepted"]),
    (&["/exporters/datagrams/refused"], &["/total/datagrams/refused"]),
    (&["/exporters/datagrams/limited"], &["/total/datagrams/limited"]),
    (&["/exporters/datagrams/truncated"], &["/total/datagrams/truncated"]),
    (&["/exporters/datagrams/unreadable"], &["/total/datagrams/unreadable"]),
    (&["/exporters/sets/received"], &["/total/sets/received"]),
    (&["/exporters/sets/decoded"], &["/total/sets/decoded"]),
    (&["/exporters/sets/held"], &["/total/sets/held"]),
    (&["/exporters/sets/undecoded"], &["/total/sets/undecoded"]),
    (&["/exporters/sets/unknown_samples"], &["/total/sets/unknown_samples"]),
    (&["/exporters/records"], &["/total/records/decoded"]),
    (&["/exporters/raw_datagrams"], &["/total/raw_datagrams/accepted"]),
    (
        &["/exporters/dropped"],
        &[
            "/total/records/dropped/queue_full",
            "/total/raw_datagrams/dropped/queue_full",
            "/total/spool/dropped",
        ],
    ),
    (&["/exporters/numbered"], &["/total/spool/numbered"]),
    (&["/exporters/committed", "/exporters/of_earlier_starts/committed"], &["/total/spool/committed"]),
    // Whose the records were in a batch that is damaged or lost nobody can say.
    (
        &["/exporters/skipped", "/exporters/of_earlier_starts/skipped"],
        &["/total/spool/skipped/dropped", "/total/spool/skipped/rejected", "/total/spool/skipped/aside"],
    ),
];

/// What datagrams can come to: `what_can_become_of_a_datagram`.
pub const OF_OPEN_BATCHES: &[&str] = &["/total/records/open", "/total/raw_datagrams/open"];
pub const OF_DATAGRAMS: &[&str] = &[
    "/total/datagrams/received",
    "/total/datagrams/accepted",
    "/total/datagrams/refused",
    "/total/datagrams/limited",
    "/total/datagrams/unreadable/short_header",
    "/total/datagrams/unreadable/unknown_version",
    "/total/datagrams/unreadable/message_length",
    "/total/datagrams/unreadable/agent_address",
    "/total/sets/received",
    "/total/sets/decoded",
    "/total/sets/held",
    "/total/sets/undecoded/cut_message",
    "/total/sets/undecoded/trailing_bytes",
    "/total/sets/undecoded/count",
    "/total/sets/undecoded/set_length",
    "/total/sets/undecoded/reserved_set",
    "/total/sets/undecoded/hold_full",
    "/total/sets/undecoded/record_length",
    "/total/sets/undecoded/sample_length",
    "/total/sets/undecoded/sample_record",
    "/total/sets/undecoded/short_template",
    "/total/sets/undecoded/template_id",
    "/total/sets/undecoded/empty_template",
    "/total/sets/undecoded/large_template",
    "/total/sets/undecoded/scope",
    "/total/sets/undecoded/template_rate",
    "/total/sets/unknown_samples",
    "/total/records/decoded",
    "/total/records/by_kind/flow",
    "/total/records/by_kind/options",
    "/total/records/by_kind/sample",
    "/total/records/by_kind/counter",
    "/total/records/by_kind/drop",
    "/total/records/batched",
    "/total/raw_datagrams/accepted",
    "/total/raw_datagrams/batched",
    "/total/spool/numbered",
    "/total/spool/unacked",
    "/total/batches/numbered",
    "/total/batches/unacked",
    "/exporters/datagrams/accepted",
    "/exporters/datagrams/refused",
    "/exporters/datagrams/limited",
    "/exporters/datagrams/unreadable",
    "/exporters/sets/received",
    "/exporters/sets/decoded",
    "/exporters/sets/held",
    "/exporters/sets/undecoded",
    "/exporters/sets/unknown_samples",
    "/exporters/records/data",
    "/exporters/records/options",
    "/exporters/raw_datagrams",
    "/exporters/numbered",
];
pub const OF_COMMITS: &[&str] = &[
    "/total/spool/committed/records",
    "/total/spool/committed/raw_datagrams",
    "/total/batches/committed",
    "/exporters/committed",
];
pub const OF_A_STOP: &[&str] = &["/total/sets/undecoded/no_template"];

/// What starts find: `after_a_kill_what_was_spooled_is_recovered_and_the_rest_is_told`, `acked_and_not_noted_is_found`.
pub const OF_A_RESTART: &[&str] =
    &["/total/spool/recovered", "/total/batches/recovered", "/exporters/of_earlier_starts/committed"];
pub const OF_FOUND: &[&str] = &["/total/spool/found_committed", "/total/batches/found_committed"];

/// What the spool's disk can cost: `tests/ledger_spool.rs`.
pub const OF_A_STALL: &[&str] = &[
    "/total/spool/waiting",
    "/total/records/dropped/queue_full",
    "/total/raw_datagrams/dropped/queue_full",
    "/exporters/dropped/queue_full",
];
pub const OF_A_FAILED_DISK: &[&str] = &["/total/spool/dropped/disk", "/exporters/dropped/in_spool"];
pub const OF_A_FULL_SPOOL: &[&str] =
    &["/total/spool/skipped/dropped", "/total/batches/skipped/dropped", "/exporters/skipped"];
pub const OF_A_HURT_SPOOL: &[&str] = &[
    "/total/spool/skipped/damaged",
    "/total/spool/skipped/lost",
    "/total/spool/skipped/rejected",
    "/total/batches/skipped/damaged",
    "/total/batches/skipped/lost",
    "/total/batches/skipped/rejected",
    "/exporters/of_earlier_starts/skipped",
];
pub const OF_A_LOST_END: &[&str] = &["/total/spool/skipped/aside", "/total/batches/skipped/aside"];

/// What no test can make a whole process do, as it takes a fault of ours or a datagram that no network of today carries:
/// the crate's own tests bring something into these (`src/shard/intake/tests.rs`, `src/spool/tests/course.rs`).
pub const WITHIN_THE_CRATE: &[&str] = &[
    "/total/datagrams/truncated",
    "/total/datagrams/unreadable/panic",
    "/total/sets/undecoded/panic",
    "/total/records/dropped/panic",
    "/total/spool/dropped/too_large",
    "/exporters/datagrams/truncated",
];

/// All of those lists.
pub const LISTS: [&[&str]; 12] = [
    OF_OPEN_BATCHES,
    OF_DATAGRAMS,
    OF_COMMITS,
    OF_A_STOP,
    OF_A_RESTART,
    OF_FOUND,
    OF_A_STALL,
    OF_A_FAILED_DISK,
    OF_A_FULL_SPOOL,
    OF_A_HURT_SPOOL,
    OF_A_LOST_END,
    WITHIN_THE_CRATE,
];

const ROWS: &str = "/exporters/";

/// What the place comes to.
pub fn term(ledger: &Value, place: &str) -> i64 {
    values(ledger, place).iter().map(|value| sum(value)).sum()
}

fn values<'a>(ledger: &'a Value, place: &str) -> Vec<&'a Value> {
    let at = |of: &'a Value, place: &str| of.pointer(place).unwrap_or_else(|| panic!("no {place} in {of}"));
    match place.strip_prefix(ROWS) {
        Some(in_row) => rows(ledger).iter().map(|row| at(row, &format!("/{in_row}"))).collect(),
        None => vec![at(ledger, place)],
    }
}

fn rows(ledger: &Value) -> &Vec<Value> {
    ledger["exporters"].as_array().expect("rows of exporters")
}

fn sum(value: &Value) -> i64 {
    match value {
        Value::Object(parts) => parts.values().map(sum).sum(),
        value => value.as_i64().unwrap_or_else(|| panic!("no number: {value}")),
    }
}

/// The equations that do not hold.
pub fn faults(ledger: &Value) -> Vec<String> {
    let side = |places: &[&str]| places.iter().map(|place| term(ledger, place)).sum::<i64>();
    let shown = |places: &[&str]| {
        let terms = places.iter().map(|place| format!("{place} {}", term(ledger, place)));
        terms.collect::<Vec<_>>().join(" + ")
    };
    let broken = EQUATIONS.iter().filter(|(whole, parts)| side(whole) != side(parts));
    broken.map(|(whole, parts)| format!("{} is not {}", shown(whole), shown(parts))).collect()
}

/// The ledger adds up, each of these places has something in it, and without any one of them it does not add up.
pub fn assert_needed(ledger: &Value, places: &[&str]) {
    assert_eq!(faults(ledger), Vec::<String>::new());
    for place in places {
        assert_ne!(term(ledger, place), 0, "{place} in {ledger:#}");
        let mut without = ledger.clone();
        match place.strip_prefix(ROWS) {
            Some(in_row) => {
                let rows = without["exporters"].as_array_mut().expect("rows of exporters");
                rows.iter_mut().for_each(|row| disable(row, &format!("/{in_row}")));
            }
            None => disable(&mut without, place),
        }
        assert!(!faults(&without).is_empty(), "{place} is in no sum");
    }
}

fn disable(of: &mut Value, place: &str) {
    let term = of.pointer_mut(place).expect("a term");
    assert!(term.is_i64() || term.is_u64(), "{place} is more than one counter");
    *term = 0.into();
}

/// The places of all numbers that the equations speak of. There must be a row in it.
pub fn places(ledger: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for place in EQUATIONS.iter().flat_map(|(whole, parts)| whole.iter().chain(*parts)) {
        leaves(values(ledger, place).first().expect("a row"), place, &mut found);
    }
    found
}

/// The places of all numbers in a value.
pub fn leaves(value: &Value, place: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(parts) => {
            parts.iter().for_each(|(key, value)| leaves(value, &format!("{place}/{key}"), found));
        }
        Value::Number(_) => drop(found.insert(place.to_owned())),
        _ => {}
    }
}
