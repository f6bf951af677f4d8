//! What `/status` tells of exporters: a row an address, with its senders, what they and their interfaces are called, and why
//! of each nothing may arrive. Bounded; `/exporters/NAME` has all of those that are called so, or have that address.

use super::sharing;
use crate::batch::{Names, Sender};
use crate::enrich::View;
use crate::flow::Exporter;
use crate::flow::record::sampling_name;
use crate::shard::cause::Cause;
use crate::shard::facts::Facts;
use crate::shard::{ExporterRow, Totals};
use serde_json::{Map, Value, json};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

mod names;

/// Addresses with a row of their own, those heard last; the others share one.
const MOST_ADDRESSES: usize = 1_000;
/// Senders shown, of all those addresses.
const MOST_SENDERS: usize = 4_000;

/// The rows of all shards as JSON, at `now` (milliseconds since 1970).
pub(super) fn json(rows: Vec<ExporterRow>, names: &mut View, now: u64) -> Value {
    let mut page =
        Page { names, senders: MOST_SENDERS, interfaces: names::OF_ALL, of_each: names::OF_EACH, now };
    shown(rows, MOST_ADDRESSES).iter().map(|row| row_json(row, &mut page)).collect()
}

/// The rows of an address, or with the senders that have a name, with all interfaces; `None` if there are none.
pub(super) fn one(rows: Vec<ExporterRow>, wanted: &str, names: &mut View, now: u64) -> Option<Value> {
    let address = wanted.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    let mut rows = merged(rows.into_iter().filter(|row| row.address.is_some()).collect());
    rows.retain_mut(|row| {
        if address.is_none() {
            let Some(of) = row.address else { return false };
            row.senders.retain(|facts| {
                names.sender(&sender(of, facts)).is_some_and(|text| !wanted.is_empty() && text.name == wanted)
            });
        }
        address.map_or_else(|| !row.senders.is_empty(), |address| row.address == Some(address))
    });
    rows.sort_by_key(|row| Reverse(row.totals.last_seen));
    rows.truncate(MOST_ADDRESSES);
    let mut page =
        Page { names, senders: MOST_SENDERS, interfaces: names::OF_ONE, of_each: names::OF_ONE, now };
    (!rows.is_empty()).then(|| rows.iter().map(|row| row_json(row, &mut page)).collect())
}

/// What may still be shown, and what is asked for it.
struct Page<'a> {
    names: &'a mut View,
    /// Senders.
    senders: usize,
    /// Interfaces.
    interfaces: usize,
    /// Interfaces of one sender.
    of_each: usize,
    /// In milliseconds since 1970.
    now: u64,
}

/// Whom names go by.
fn sender(address: IpAddr, facts: &Facts) -> Sender {
    Sender { exporter: Exporter { address, port: facts.port }, domain: facts.domain, agent: facts.agent }
}

/// The rows heard last, so many at the most, and one for all others, which is the last.
pub(super) fn shown(rows: Vec<ExporterRow>, most: usize) -> Vec<ExporterRow> {
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for row in rows {
        if row.address.is_some() { own.push(row) } else { others.push(row) }
    }
    own = merged(own);
    own.sort_by_key(|row| Reverse(row.totals.last_seen));
    others.extend(own.split_off(own.len().min(most)));
    let others = others.iter().map(|row| row.totals).reduce(|mut sum, totals| {
        sum.add(&totals);
        sum
    });
    own.extend(others.map(|totals| ExporterRow { address: None, port: 0, totals, senders: Vec::new() }));
    own
}

/// One row an address: over UDP and over TCP it is met in different shards.
fn merged(rows: Vec<ExporterRow>) -> Vec<ExporterRow> {
    let mut places: HashMap<Option<IpAddr>, usize> = HashMap::new();
    let mut merged: Vec<ExporterRow> = Vec::new();
    for row in rows {
        let place = *places.entry(row.address).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(first) => {
                if row.totals.last_seen > first.totals.last_seen {
                    first.port = row.port;
                }
                first.totals.add(&row.totals);
                first.senders.extend(row.senders);
            }
            None => merged.push(row),
        }
    }
    merged
}

fn row_json(row: &ExporterRow, page: &mut Page<'_>) -> Value {
    let now = page.now;
    let mut senders: Vec<(&Facts, Cause)> =
        row.senders.iter().map(|facts| (facts, Cause::of(facts, now))).collect();
    senders.sort_by_key(|(facts, cause)| (cause.weight(), Reverse(facts.last_seen)));
    let count = senders.len();
    senders.truncate(page.senders);
    page.senders -= senders.len();
    let alike = sharing::alike(row, page.names);
    let senders_json: Vec<Value> = senders
        .iter()
        .map(|(facts, cause)| {
            let mut json = sender_json(facts, cause, now);
            if let Some(address) = row.address {
                names::add(&mut json, &sender(address, facts), page);
            }
            json
        })
        .collect();
    let Totals { datagrams, records, options, raw, faults, limited, first_seen, last_seen, .. } = row.totals;
    json!({
        "address": row.address.map_or_else(|| "other".to_owned(), |address| address.to_string()),
        "port": row.port,
        "datagrams": datagrams,
        "records": records,
        "options": options,
        "raw": raw,
        "faults": faults,
        "limited": limited,
        "first_seen": first_seen,
        "last_seen": last_seen,
        "ports_not_told_apart": alike,
        "senders_not_shown": count - senders.len(),
        "senders": senders_json,
    })
}

fn sender_json(facts: &Facts, cause: &Cause, now: u64) -> Value {
    let faults: Map<String, Value> =
        facts.faults.iter().map(|met| (met.fault.label().to_owned(), met.times.into())).collect();
    let awaited = facts.awaited.iter();
    let awaited: Vec<_> = awaited
        .map(|awaited| json!({ "template": awaited.template, "sets": awaited.sets, "since": awaited.since }))
        .collect();
    let also: Vec<_> = Cause::all(facts, now).skip(1).map(|cause| cause.to_string()).collect();
    let sequence = facts.sequence;
    json!({
        "port": facts.port,
        "protocol": facts.speaks.name(),
        "domain": facts.domain,
        "state": cause.label(),
        "weight": cause.weight().label(),
        "cause": cause.to_string(),
        "also": also,
        "first_seen": facts.first_seen,
        "last_seen": facts.last_seen,
        "datagrams": facts.datagrams,
        "records": facts.records,
        "options": facts.options,
        "faults": faults,
        "limited": facts.limited.datagrams,
        "templates": { "known": facts.templates, "restored": facts.restored },
        "provisional_records": facts.provisional,
        "sets_held": facts.held(),
        "awaited": awaited,
        "sampling": { "rate": facts.sampling_rate, "source": sampling_name(facts.sampling_source) },
        "sequence": {
            "unit": sequence.unit,
            "missing": sequence.missing,
            "late": sequence.late,
            "duplicates": sequence.duplicates,
            "resets": sequence.resets,
            "last": sequence.last,
            "stands_still": sequence.stands_still,
        },
        "clock_skew_ms": facts.skew_ms,
        "boot_time": facts.boot_time,
    })
}

#[cfg(test)]
mod tests;
