//! Each cause by the facts that make it, and its sentence.

use super::*;
use crate::proto::SamplingSource;
use crate::shard::facts::{Awaited, Limited, Met, Sequence};

/// 2026-11-23 14:30:00 UTC.
const NOW: u64 = 1_795_444_200_000;
const MINUTE: u64 = 60_000;

fn well() -> Facts {
    Facts {
        first_seen: NOW - 90 * MINUTE,
        last_seen: NOW - 100,
        address_last_seen: NOW - 100,
        datagrams: 500,
        records: 9_000,
        templates: 2,
        sampling_rate: 100,
        sampling_source: SamplingSource::Options,
        names_sampler: true,
        ..Facts::new(2055, Speaks::Flow(Protocol::NetflowV9), 7)
    }
}

fn met(fault: Fault, times: u64, ago: u64) -> Met {
    Met { fault, times, last: NOW - ago }
}

fn said(facts: &Facts) -> (String, Weight) {
    let cause = Cause::of(facts, NOW);
    (cause.to_string(), cause.weight())
}

#[test]
fn nothing_wrong_is_one_word() {
    assert_eq!(said(&well()), ("ok".into(), Weight::Well));
    let raw = Facts { speaks: Speaks::Raw, records: 0, templates: 0, ..well() };
    assert_eq!(said(&raw), ("forwarded unread".into(), Weight::Well));
}

fn wait(template: u16, sets: usize, ago: u64) -> Awaited {
    Awaited { template, sets, since: NOW - ago, given_up: false }
}

#[test]
fn a_template_that_is_awaited_is_told_with_what_is_held() {
    let one = Facts { awaited: vec![wait(256, 41, 27 * MINUTE + 50_000)], ..well() };
    let (text, weight) = said(&one);
    assert_eq!(
        text,
        "template 256 not seen yet, 41 sets held since 14:02:10 UTC; exporters resend theirs every 1 to 30 minutes"
    );
    assert_eq!(weight, Weight::Wrong);
    let some =
        Facts { awaited: vec![wait(256, 1, MINUTE), wait(300, 5, 2 * MINUTE), wait(301, 1, 0)], ..one };
    let some = Facts { faults: vec![met(Fault::NoTemplate, 3, MINUTE)], ..some };
    assert!(
        said(&some).0.starts_with(
            "template 300 and 2 others not seen yet, 7 sets held since 14:28:00 UTC and 3 given up; "
        ),
        "{:?}",
        said(&some)
    );
    let given_up = Facts { awaited: vec![], ..some };
    assert_eq!(
        said(&given_up).0,
        "some of it not read: no template is known for the set (3 times, last at 14:29:00 UTC)"
    );
}

#[test]
fn a_template_that_was_given_up_is_not_one_that_was_never_seen() {
    let facts = Facts { awaited: vec![Awaited { given_up: true, ..wait(256, 4, MINUTE) }], ..well() };
    let text = "template 256 given up to make room, 4 sets held since 14:29:00 UTC; too many templates are sent here: \
                let listen.allow name your exporters alone";
    assert_eq!(said(&facts), (text.into(), Weight::Wrong));
    assert_eq!(Cause::of(&facts, NOW).label(), "template_given_up");
}

#[test]
fn a_connection_that_was_closed_is_told_with_the_time() {
    let closed = Facts { closed: NOW - MINUTE, last_seen: NOW - 2 * MINUTE, ..well() };
    let closed = Facts { address_last_seen: NOW - 2 * MINUTE, ..closed };
    assert_eq!(said(&closed), ("its connection was closed at 14:29:00 UTC".into(), Weight::Odd));
    let elsewhere = Facts { address_last_seen: NOW, ..closed.clone() };
    assert_eq!(said(&elsewhere).1, Weight::Gone);
    let long_ago = Facts { closed: NOW - 11 * MINUTE, address_last_seen: NOW - 11 * MINUTE, ..closed };
    assert_eq!((said(&long_ago).1, Cause::all(&long_ago, NOW).count()), (Weight::Wrong, 1));
}

#[test]
fn what_cannot_be_read_is_told_while_it_is_news() {
    let unknown = Facts {
        speaks: Speaks::Unknown,
        version: 4_660,
        faults: vec![met(Fault::ShortHeader, 1, 2 * MINUTE), met(Fault::UnknownVersion, 7, MINUTE)],
        ..well()
    };
    assert_eq!(said(&unknown), ("unreadable: version 4660 is of no protocol known".into(), Weight::Wrong));
    let over_tcp = Facts { version: 9, ..unknown.clone() };
    let text = "unreadable: NetFlow v9 is not taken over TCP, send it by UDP or send IPFIX";
    assert_eq!(said(&over_tcp), (text.into(), Weight::Wrong));
    let short = Facts { faults: vec![met(Fault::ShortHeader, 1, MINUTE)], ..unknown };
    assert_eq!(said(&short).0, "unreadable: the datagram ends inside its header");

    let faulty = Facts { faults: vec![met(Fault::SetLength, 12, MINUTE)], ..well() };
    let text = "the set's length does not fit the datagram (12 times, last at 14:29:00 UTC)";
    assert_eq!(said(&faulty), (format!("some of it not read: {text}"), Weight::Wrong));
    let all = Facts { records: 0, ..faulty.clone() };
    assert_eq!(said(&all).0, format!("no records: {text}"));
    let long_ago = Facts { faults: vec![met(Fault::SetLength, 12, 11 * MINUTE)], ..faulty };
    assert_eq!(said(&long_ago).0, "ok");
}

#[test]
fn what_we_do_not_take_comes_first() {
    let limits = Limits { datagrams: Some(200), bytes: None };
    let limited = Limited { datagrams: 1_500, last: NOW - 59_000, limits };
    let facts = Facts { limited, skew_ms: 5_000_000, ..well() };
    assert_eq!(said(&facts), ("limited to 200 datagrams/s, 1500 datagrams not taken".into(), Weight::Wrong));
    let both = Limits { bytes: Some(65_536), ..limits };
    assert_eq!(both.to_string(), "200 datagrams/s and 65536 bytes/s");
    let over = Facts { limited: Limited { last: NOW - 60_000, ..limited }, ..well() };
    assert_eq!(said(&over).0, "ok");
    let refused = Facts { speaks: Speaks::Refused, ..facts };
    assert_eq!(said(&refused), ("refused by listen.allow".into(), Weight::Wrong));
}

#[test]
fn silence_is_told_of_an_address_and_not_of_its_old_ports() {
    let silent = NOW - 25 * MINUTE;
    let facts = Facts { last_seen: silent, address_last_seen: silent, ..well() };
    assert_eq!(said(&facts), ("silent for 25 min, last heard at 14:05:00 UTC".into(), Weight::Wrong));
    let gone = Facts { address_last_seen: NOW, ..facts };
    assert_eq!(said(&gone), ("sends no more since 14:05:00 UTC, another port does".into(), Weight::Gone));
    let before = Facts { datagrams: 0, records: 0, last_seen: 0, address_last_seen: 0, ..well() };
    assert_eq!(said(&before), ("not heard since the restart; its templates are kept".into(), Weight::Odd));
    assert_eq!(Cause::all(&before, NOW).count(), 1);
    let elsewhere = Facts { address_last_seen: NOW, ..before };
    assert_eq!(said(&elsewhere).1, Weight::Gone);
}

#[test]
fn clocks_are_told_by_their_difference() {
    let by = |skew_ms| said(&Facts { skew_ms, ..well() }).0;
    assert_eq!(by(-(2 * 60 + 13) * 60_000), "clock is 2 h 13 min behind");
    assert_eq!(by(75_000), "clock is 1 min 15 s ahead");
    assert_eq!(by(-3 * 86_400_000), "clock is 3 d 0 h behind");
    assert_eq!(by(-59_000), "ok");
    assert_eq!(by(100 - NOW as i64), "clock is not set: it says 1970-01-01");
}

#[test]
fn sampling_without_a_rate_is_told() {
    let facts = Facts { sampling_rate: 0, ..well() };
    assert_eq!(said(&facts), ("sampled, but no rate announced".into(), Weight::Odd));
    assert_eq!(said(&Facts { names_sampler: false, ..facts }).0, "ok");
}

#[test]
fn sequences_tell_loss_unless_they_stand_still() {
    let still = Sequence { unit: "datagrams", stands_still: true, ..Sequence::default() };
    let facts = Facts { sequence: still, ..well() };
    assert_eq!(said(&facts).0, "sends v9 with sequence always 0: loss cannot be seen");
    assert_eq!(said(&Facts { datagrams: 2, ..facts }).0, "ok", "that is too early to say");
    let sequence = Sequence { unit: "records", missing: 300, ..Sequence::default() };
    let lossy = Facts { sequence, ..well() };
    assert_eq!(said(&lossy).0, "3.2 % lost on the way here (300 of 9300 records)");
    let limited = Limited { datagrams: 300, last: NOW - 3_600_000, limits: Limits::default() };
    assert_eq!(said(&Facts { limited, ..lossy }).0, "ok", "those are missing because we did not take them");
    let few = Facts { sequence: Sequence { missing: 9, ..sequence }, records: 20, ..well() };
    assert_eq!(said(&few).0, "ok");
}

#[test]
fn what_is_still_to_come_is_told() {
    let none = Facts { records: 0, sampling_rate: 0, ..well() };
    assert_eq!(said(&none).0, "templates only, no data yet");
    assert_eq!(said(&Facts { options: 3, ..none.clone() }).0, "options only, no flow records yet");
    assert_eq!(said(&Facts { templates: 0, ..none }).0, "datagrams with no records and no templates in them");
    assert_eq!(said(&Facts { restored: 2, ..well() }).0, "decoded by templates kept from before the restart");
    let lent = Facts { templates: 0, provisional: 40, ..well() };
    assert_eq!(said(&lent).0, "decoded by templates heard from another port of its address");
    // Each set waits a little for a template of its own port; only what waits longer has none.
    let on_its_way = Facts { awaited: vec![wait(256, 5, 5_000)], ..lent.clone() };
    assert_eq!(said(&on_its_way).0, "decoded by templates heard from another port of its address");
    let waiting = Facts { awaited: vec![wait(256, 5, MINUTE)], ..lent };
    assert!(said(&waiting).0.starts_with("template 256 not seen yet, 5 sets held"));
}

#[test]
fn all_causes_are_told_in_order() {
    let facts = Facts { skew_ms: -600_000, sampling_rate: 0, restored: 1, ..well() };
    let labels: Vec<_> = Cause::all(&facts, NOW).map(|cause| cause.label()).collect();
    assert_eq!(labels, ["no_rate", "clock_skewed", "restored_templates"]);
}
