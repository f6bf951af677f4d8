//! The table of exporters stays small and loses no count.

use super::*;
use crate::flow;
use std::net::Ipv4Addr;

fn share(number: u32, records: u32) -> Share {
    let exporter = flow::Exporter { address: Ipv4Addr::from(number).into(), port: 9 };
    Share { exporter, records, domain: 0, sequence: 0, last_records: 0 }
}

fn sum(exporters: &Exporters) -> Exporter {
    let mut sum = Exporter::default();
    exporters.rows().iter().for_each(|(_, row)| sum.add(row));
    sum
}

#[test]
fn past_the_cap_rows_of_which_nothing_is_under_way_make_room() {
    let exporters = Exporters::default();
    let most = MOST_EXPORTERS as u32;
    for number in 0..most {
        exporters.batched(&[share(number, 2)]);
    }
    exporters.committed(&[share(0, 2), share(1, 2), share(2, 2)], false);
    assert_eq!(exporters.rows().len(), MOST_EXPORTERS);
    exporters.batched(&[share(most, 5)]);
    let rows = exporters.rows();
    assert_eq!(
        rows.len(),
        MOST_EXPORTERS - 1,
        "the three settled ones share a row, and the new one has its own"
    );
    assert!(
        rows.iter().any(|(address, row)| *address == Some(Ipv4Addr::from(most).into()) && row.batched == 5)
    );
    assert_eq!(
        sum(&exporters),
        Exporter { batched: 2 * u64::from(most) + 5, committed: 6, ..Exporter::default() }
    );
}

#[test]
fn what_is_under_way_stays_in_its_row() {
    let exporters = Exporters::default();
    let most = MOST_EXPORTERS as u32;
    for number in 0..most {
        exporters.batched(&[share(number, 2)]);
    }
    exporters.batched(&[share(most, 5)]);
    exporters.committed(&[share(7, 2)], false);
    // The row of 7 could go now, but the shared row has something under way, which might be the next one's, too.
    exporters.batched(&[share(most + 1, 5)]);
    exporters.committed(&[share(most, 5), share(most + 1, 5)], false);
    let other = exporters.rows().into_iter().find(|(address, _)| address.is_none()).unwrap().1;
    assert_eq!(other, Exporter { batched: 10, committed: 10, ..Exporter::default() });
}

#[test]
fn batches_of_before_are_counted_apart() {
    let exporters = Exporters::default();
    exporters.batched(&[share(1, 9)]);
    exporters.committed(&[share(1, 4)], true);
    exporters.skipped([(Ipv4Addr::from(1).into(), 3)].iter(), true);
    exporters.skipped([(Ipv4Addr::from(1).into(), 9)].iter(), false);
    let expected = Exporter {
        batched: 9,
        skipped: 9,
        committed_of_before: 4,
        skipped_of_before: 3,
        ..Exporter::default()
    };
    // Nobody of that address had a row when the first of these came.
    assert_eq!(sum(&exporters), expected);
}
