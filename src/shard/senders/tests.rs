//! The table stays small, and loses no count.

use super::*;
use crate::proto::Protocol;
use crate::wire::Fault;

const KEY: Key = Key { port: 9, speaks: Speaks::Flow(Protocol::NetflowV9), domain: 0 };

fn at(ms: u64) -> Moment {
    Moment { unix_ms: 1_000 + ms, elapsed_ms: ms }
}

fn host(number: u32) -> Exporter {
    Exporter { address: std::net::Ipv4Addr::from(number).into(), port: 9 }
}

fn rows(senders: &mut Senders, now: u64) -> Vec<ExporterRow> {
    let view = ExporterView::default();
    senders.publish(std::iter::empty(), &view, at(now));
    view.rows()
}

#[test]
fn past_the_cap_those_heard_longest_ago_share_a_row() {
    let mut senders = Senders::default();
    let share = Share { records: 3, ..Share::default() };
    let many = MOST_ADDRESSES as u32 + 5;
    for number in 0..many {
        senders.heard(host(number), KEY, &share, at(u64::from(number)));
        senders.heard(host(0), KEY, &share, at(u64::from(number)));
    }
    assert!(senders.len() <= MOST_ADDRESSES && senders.count <= MOST_SENDERS);
    let rows = rows(&mut senders, 20_000);
    assert_eq!(rows.len(), senders.len() + 1);
    let other = rows.iter().find(|row| row.address.is_none()).unwrap();
    assert_eq!(other.totals.datagrams, MOST_ADDRESSES as u64 / 2);
    assert_eq!(rows.iter().map(|row| row.totals.records).sum::<u64>(), 2 * 3 * u64::from(many));
    assert!(rows.iter().any(|row| row.address == Some(host(0).address)), "who goes on is not forgotten");
}

#[test]
fn an_address_with_a_new_port_each_time_keeps_few_senders_and_all_counts() {
    let mut senders = Senders::default();
    for port in 1..2_000 {
        senders.heard(host(1), Key { port, ..KEY }, &Share::default(), at(u64::from(port)));
    }
    assert_eq!(senders.count, MOST_OF_AN_ADDRESS);
    let rows = rows(&mut senders, 2_000);
    assert_eq!((rows.len(), rows[0].senders.len()), (1, MOST_OF_AN_ADDRESS));
    assert_eq!(rows[0].totals.datagrams, 1_999);
    assert!(rows[0].senders.iter().all(|facts| facts.port >= 2_000 - MOST_OF_AN_ADDRESS as u16));
}

#[test]
fn many_senders_of_few_addresses_are_bounded_too() {
    let mut senders = Senders::default();
    for number in 0..1_000 {
        for port in 1..65 {
            senders.heard(host(number), Key { port, ..KEY }, &Share::default(), at(u64::from(number)));
        }
    }
    assert!(senders.count <= MOST_SENDERS);
    assert_eq!(senders.count, senders.addresses.values().map(|row| row.senders.len()).sum::<usize>());
    let rows = rows(&mut senders, 1_000);
    assert_eq!(rows.iter().map(|row| row.totals.datagrams).sum::<u64>(), 64_000);
}

#[test]
fn refused_addresses_are_shown_and_bounded() {
    let mut senders = Senders::default();
    for number in 0..MOST_REFUSED as u32 + 10 {
        senders.refused(host(number), at(u64::from(number)));
    }
    let mut rows = rows(&mut senders, 0);
    let counted: u64 = rows.iter().map(|row| row.totals.refused).sum();
    assert_eq!(counted, MOST_REFUSED as u64 + 10);
    rows.retain(|row| row.address.is_some());
    assert!(rows.len() <= MOST_REFUSED);
    assert!(rows.iter().all(|row| row.senders.len() == 1 && row.senders[0].speaks == Speaks::Refused));
    assert_eq!(senders.len(), 0, "they take nobody's place");
}

#[test]
fn faults_are_counted_by_kind_where_they_belong() {
    let mut senders = Senders::default();
    let share = Share { faults: vec![Fault::SetLength, Fault::Scope, Fault::SetLength], ..Share::default() };
    senders.heard(host(1), KEY, &share, at(1));
    senders.resumed(
        host(1).address,
        KEY,
        &Share { faults: vec![Fault::NoTemplate], ..Share::default() },
        at(9),
    );
    let rows = rows(&mut senders, 10);
    let facts = &rows[0].senders[0];
    assert_eq!((rows[0].totals.faults, facts.datagrams), (4, 1));
    assert_eq!(facts.times(&[Fault::SetLength]), 2);
    assert_eq!(facts.faults.last().unwrap().last, 1_009);
}

#[test]
fn a_clock_that_is_set_changes_no_age() {
    for step in [-86_400_000_i64, 86_400_000] {
        let mut senders = Senders::default();
        let start = Moment { unix_ms: 1_795_444_200_000, elapsed_ms: 5_000 };
        let share = Share { faults: vec![Fault::SetLength], ..Share::default() };
        senders.heard(host(1), KEY, &share, start);
        senders.refused(host(2), start);
        let later =
            Moment { unix_ms: start.unix_ms.saturating_add_signed(step) + 30_000, elapsed_ms: 35_000 };
        let view = ExporterView::default();
        senders.publish(std::iter::empty(), &view, later);
        for row in view.rows() {
            let facts = &row.senders[0];
            let times = [row.totals.first_seen, row.totals.last_seen, facts.first_seen, facts.last_seen];
            assert_eq!(times.map(|time| later.unix_ms.wrapping_sub(time)), [30_000; 4]);
            assert_eq!(facts.address_last_seen, facts.last_seen);
            assert!(facts.faults.iter().all(|met| later.unix_ms - met.last == 30_000));
        }
    }
}

#[test]
fn a_closed_connection_is_told_until_its_port_is_heard_again() {
    let mut senders = Senders::default();
    senders.heard(host(1), KEY, &Share::default(), at(1));
    senders.closed(host(1), at(5));
    senders.closed(host(2), at(5));
    let closed = |senders: &mut Senders| rows(senders, 10)[0].senders[0].closed;
    assert_eq!(closed(&mut senders), 1_005);
    senders.heard(host(1), KEY, &Share::default(), at(7));
    assert_eq!(closed(&mut senders), 0);
}
