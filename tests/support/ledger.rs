//! The equations of the loss ledger, over what `/status` shows as `ledger`.

use serde_json::Value;

/// What the left sides come to, the right sides do: places in `ledger.total`. An object is the sum of what is in it.
const EQUATIONS: [(&[&str], &[&str]); 7] = [
    (
        &["/datagrams/received"],
        &[
            "/datagrams/accepted",
            "/datagrams/refused",
            "/datagrams/limited",
            "/datagrams/truncated",
            "/datagrams/unreadable",
        ],
    ),
    (&["/sets/received"], &["/sets/decoded", "/sets/held", "/sets/undecoded", "/sets/unknown_samples"]),
    (&["/records/decoded"], &["/records/dropped", "/records/open", "/records/batched"]),
    (
        &["/raw_datagrams/accepted"],
        &["/raw_datagrams/dropped", "/raw_datagrams/open", "/raw_datagrams/batched"],
    ),
    (
        &["/records/batched", "/raw_datagrams/batched"],
        &["/spool/waiting", "/spool/dropped", "/spool/numbered"],
    ),
    (
        &["/spool/numbered", "/spool/recovered"],
        &["/spool/committed", "/spool/found_committed", "/spool/skipped", "/spool/unacked"],
    ),
    (
        &["/batches/numbered", "/batches/recovered"],
        &["/batches/committed", "/batches/found_committed", "/batches/skipped", "/batches/unacked"],
    ),
];

/// What the rows of exporters come to together: a place in a row, and in the total.
const OVER_EXPORTERS: [(&str, &str); 11] = [
    ("/datagrams/accepted", "/datagrams/accepted"),
    ("/datagrams/refused", "/datagrams/refused"),
    ("/datagrams/limited", "/datagrams/limited"),
    ("/datagrams/truncated", "/datagrams/truncated"),
    ("/datagrams/unreadable", "/datagrams/unreadable"),
    ("/sets/received", "/sets/received"),
    ("/sets/decoded", "/sets/decoded"),
    ("/sets/held", "/sets/held"),
    ("/sets/undecoded", "/sets/undecoded"),
    ("/records", "/records/decoded"),
    ("/numbered", "/spool/numbered"),
];

/// What a term comes to.
pub fn term(of: &Value, place: &str) -> i64 {
    sum(of.pointer(place).unwrap_or_else(|| panic!("no {place} in {of}")))
}

fn sum(value: &Value) -> i64 {
    match value {
        Value::Object(parts) => parts.values().map(sum).sum(),
        value => value.as_i64().unwrap_or_else(|| panic!("no number: {value}")),
    }
}

/// The equations that do not hold.
pub fn faults(ledger: &Value) -> Vec<String> {
    let total = &ledger["total"];
    let mut faults = Vec::new();
    for (whole, parts) in EQUATIONS {
        let side = |places: &[&str]| places.iter().map(|place| term(total, place)).sum::<i64>();
        if side(whole) != side(parts) {
            let shown = |places: &[&str]| {
                let terms = places.iter().map(|place| format!("{place} {}", term(total, place)));
                terms.collect::<Vec<_>>().join(" + ")
            };
            faults.push(format!("{} is not {}", shown(whole), shown(parts)));
        }
    }
    let rows = ledger["exporters"].as_array().expect("rows of exporters");
    for (place, of_total) in OVER_EXPORTERS {
        let rows: i64 = rows.iter().map(|row| term(row, place)).sum();
        if rows != term(total, of_total) {
            faults.push(format!("exporters' {place} {rows} is not {of_total} {}", term(total, of_total)));
        }
    }
    faults
}

/// Each of these places in `ledger.total` has something in it, and without it the ledger does not add up.
pub fn assert_needed(ledger: &Value, places: &[&str]) {
    for place in places {
        assert_ne!(term(&ledger["total"], place), 0, "{place} in {}", ledger["total"]);
        let mut without = ledger.clone();
        disable(without["total"].pointer_mut(place).expect("a term"));
        assert!(!faults(&without).is_empty(), "{place} is in no sum");
    }
}

fn disable(value: &mut Value) {
    match value {
        Value::Object(parts) => parts.values_mut().for_each(disable),
        value => *value = 0.into(),
    }
}
