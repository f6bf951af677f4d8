//! Tells of addresses that many exporters share without names of their own: nobody can say later whose records were whose.
//!
//! Which ports of an address are exporters at the same time: those heard again after the last of them began. A port that
//! was given up for another one, as some exporters do at each start or even each datagram, is none of them.

use super::Facts;
use crate::batch::{Names, Sender};
use crate::enrich::View;
use crate::flow::Exporter;
use crate::shard::ExporterRow;
use crate::shard::facts::{self, Speaks};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// So many ports of an address under one name, or none, are told of.
pub(super) const MANY: usize = 4;
/// How often it looks.
const TICK: Duration = Duration::from_secs(5);
/// How long a port counts after it was heard last, in milliseconds.
const RECENT_MS: u64 = 10 * 60 * 1_000;
/// Addresses that are remembered as told of.
const MOST_TOLD: usize = 10_000;

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Addresses that many exporters share without names of their own.
    pub addresses: Gauge,
}

impl Metrics {
    /// Under its name.
    pub fn register(&self, registry: &mut Registry) {
        let text = "Addresses that several exporters share without names that tell them apart";
        registry.register("exporters_sharing_addresses", text, self.addresses.clone());
    }
}

/// Watches until `end` is cancelled.
pub(super) async fn watch(facts: Arc<Facts>, end: CancellationToken) {
    let (mut told, mut names) = (HashSet::new(), facts.book.view());
    while tokio::time::timeout(TICK, end.cancelled()).await.is_err() {
        names.refresh();
        let shared = look(&facts.exporter_rows(), &mut names);
        facts.counters.sharing.addresses.set(i64::try_from(shared.len()).unwrap_or(i64::MAX));
        for (address, ports) in shared {
            if told.len() < MOST_TOLD && told.insert(address) {
                tracing::warn!(
                    %address, ports,
                    "Exporters share this address and have no names that tell them apart: give each a name by its port or \
                     domain in the file of enrich.static"
                );
            }
        }
    }
}

/// Addresses that many exporters share, with how many ports those are.
fn look(rows: &[ExporterRow], names: &mut View) -> Vec<(IpAddr, usize)> {
    let shared = rows.iter().filter_map(|row| {
        let ports = alike(row, names);
        row.address.filter(|_| ports >= MANY).map(|address| (address, ports))
    });
    shared.collect()
}

/// How many ports of an address send at the same time under one name, or under none; 0 if no two do.
pub(super) fn alike(row: &ExporterRow, names: &mut View) -> usize {
    let Some(address) = row.address else { return 0 };
    let is_recent = |facts: &&facts::Facts| {
        matches!(facts.speaks, Speaks::Flow(_)) && facts.last_seen + RECENT_MS > row.totals.last_seen
    };
    let senders: Vec<&facts::Facts> = row.senders.iter().filter(is_recent).collect();
    // When each port was first heard, and last.
    let mut ports: HashMap<u16, (u64, u64)> = HashMap::new();
    for facts in &senders {
        let (first, last) = ports.entry(facts.port).or_insert((facts.first_seen, facts.last_seen));
        (*first, *last) = ((*first).min(facts.first_seen), (*last).max(facts.last_seen));
    }
    let newest = ports.values().map(|(first, _)| *first).max().unwrap_or(0);
    ports.retain(|_, (_, last)| *last >= newest);
    if ports.len() < 2 {
        return 0;
    }
    let mut by_name: HashMap<String, HashSet<u16>> = HashMap::new();
    for facts in senders.into_iter().filter(|facts| ports.contains_key(&facts.port)) {
        let exporter = Exporter { address, port: facts.port };
        let sender = Sender { exporter, domain: facts.domain, agent: facts.agent };
        let name = names.sender(&sender).map(|text| text.name.clone()).unwrap_or_default();
        by_name.entry(name).or_default().insert(facts.port);
    }
    by_name.values().map(HashSet::len).filter(|ports| *ports > 1).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::Book;
    use crate::proto::Protocol;
    use crate::shard::Totals;

    const NOW: u64 = 1_795_444_200_000;

    fn row(spans: &[(u16, u64, u64)]) -> ExporterRow {
        let facts = |&(port, first, last): &(u16, u64, u64)| facts::Facts {
            first_seen: NOW + first,
            last_seen: NOW + last,
            ..facts::Facts::new(port, Speaks::Flow(Protocol::Ipfix), 7)
        };
        let senders: Vec<_> = spans.iter().map(facts).collect();
        let last_seen = senders.iter().map(|facts| facts.last_seen).max().unwrap();
        let totals = Totals { last_seen, ..Totals::default() };
        ExporterRow { address: "127.0.0.1".parse().ok(), port: 1, totals, senders }
    }

    #[test]
    fn ports_that_send_at_the_same_time_are_counted() {
        let mut names = Book::new().view();
        assert_eq!(alike(&row(&[(1, 0, 100), (2, 50, 90), (3, 60, 80), (4, 70, 90)]), &mut names), 4);
        assert_eq!(alike(&row(&[(1, 0, 10), (2, 20, 30), (3, 40, 50), (4, 60, 70)]), &mut names), 0);
        assert_eq!(alike(&row(&[(1, 0, 10)]), &mut names), 0);
        assert_eq!(alike(&row(&[(1, 0, 10), (1, 5, 10)]), &mut names), 0, "two domains of one port");
        let long_ago = 11 * 60 * 1_000;
        assert_eq!(alike(&row(&[(1, 0, 10), (2, 0, long_ago), (3, 5, long_ago)]), &mut names), 2);
    }

    #[test]
    fn names_tell_them_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("i.csv");
        std::fs::write(&path, "address,port,name\n127.0.0.1,1,r1\n127.0.0.1,2,r2\n127.0.0.1,3,r3\n").unwrap();
        let book = Book::new();
        let mut names = book.view();
        let spans: Vec<(u16, u64, u64)> = (1..=4).map(|port| (port, 0, 10)).collect();
        let rows = [row(&spans)];
        assert_eq!(look(&rows, &mut names), [("127.0.0.1".parse().unwrap(), 4)]);
        book.set_operator(Some(Arc::new(crate::enrich::StaticFile::read(&path, 0).unwrap())));
        assert_eq!(alike(&rows[0], &mut names), 0);
        assert_eq!(look(&rows, &mut names), []);
    }
}
