//! What a shard's decoder has told, put back at the start and handed over to the keeper as it changes.

use crate::keeper::{Row, Sender};
use crate::metrics::Ingest;
use crate::wire::{Decoder, DomainKey};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Bytes handed over in one go: what is packed for it delays the next read.
const BYTES_A_TICK: usize = 4 << 20;

/// How long the end waits for a keeper that is busy writing, and how often it looks.
const LAST_WAIT: Duration = Duration::from_secs(4);
const LAST_NAP: Duration = Duration::from_millis(5);

/// Puts back what was kept; `rows` are those of this shard, what is worth least first.
pub(super) fn restore(decoder: &mut Decoder, rows: &[Row], sender: Sender, metrics: &Ingest) -> Keeping {
    // What there is no room for is forgotten by the keeper, too.
    decoder.note_changes();
    for row in rows {
        let restored = decoder.restore(row.key, &row.saved);
        metrics.templates_restored.inc_by(restored.templates as u64);
        metrics.state_refused.inc_by(restored.refused as u64);
    }
    let given = rows.iter().map(|row| row.key).collect();
    Keeping { season: sender.season(), sender, marked: HashSet::new(), given }
}

/// The way to the keeper.
#[derive(Debug)]
pub(super) struct Keeping {
    sender: Sender,
    /// Domains that the keeper has to be told of.
    marked: HashSet<DomainKey>,
    /// Domains that the keeper has: those it need be told of when they are forgotten.
    given: HashSet<DomainKey>,
    season: u64,
}

impl Keeping {
    /// Hands over what has changed. What there is no room for waits for the next call, about a second later.
    pub(super) fn hand_over(&mut self, decoder: &mut Decoder) {
        self.give(decoder, BYTES_A_TICK);
    }

    /// Hands over all that has changed, at the end, as fast as the keeper writes it. A disk that takes longer than
    /// [`LAST_WAIT`] loses the rest.
    pub(super) fn hand_over_all(&mut self, decoder: &mut Decoder) {
        self.hand_over_until(decoder, Instant::now() + LAST_WAIT);
    }

    fn hand_over_until(&mut self, decoder: &mut Decoder, until: Instant) {
        self.sender.hurry();
        self.give(decoder, usize::MAX);
        while !self.marked.is_empty() && Instant::now() < until {
            std::thread::sleep(LAST_NAP);
            self.give(decoder, usize::MAX);
        }
    }

    fn give(&mut self, decoder: &mut Decoder, most_bytes: usize) {
        self.marked.extend(decoder.take_changed());
        let season = self.sender.season();
        if season != self.season {
            self.season = season;
            self.marked.extend(decoder.domains().keys());
        }
        // What was forgotten before the keeper knew it is nothing to it: a flood leaves no marks behind.
        let given = &self.given;
        self.marked.retain(|key| given.contains(key) || decoder.domains().knows(key));
        let mut order: Vec<DomainKey> = self.marked.iter().copied().collect();
        order.sort_unstable_by_key(|key| self.urgency(decoder, key));
        let mut bytes = 0;
        for key in order {
            if bytes > most_bytes {
                break;
            }
            let saved = decoder.saved(&key);
            bytes += saved.as_ref().map_or(0, |saved| saved.bytes.len());
            let is_known = saved.is_some();
            // What is in use may find room where the rest does not.
            if self.sender.put(key, saved) {
                self.marked.remove(&key);
                if is_known {
                    self.given.insert(key)
                } else {
                    self.given.remove(&key)
                };
            } else if decoder.domains().last_used(&key) == 0 {
                break;
            }
        }
    }

    /// Who is told of first: those gone, for they make room; then those that decode, and of them the keeper's own.
    fn urgency(&self, decoder: &Decoder, key: &DomainKey) -> (bool, bool, bool) {
        let domains = decoder.domains();
        (domains.knows(key), domains.last_used(key) == 0, !self.given.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Exporter;
    use crate::keeper;
    use crate::proto::Protocol;
    use crate::wire::{self, Arrival, Heard, Limits, Output, Place, Template};

    struct Nothing;

    impl Output for Nothing {
        fn records(&mut self, _: &crate::flow::Run, _: &Template, _: &[u8], _: &[u32], _: u32) {}
        fn fault(&mut self, _: wire::Fault, _: Place) {}
        fn template(&mut self, _: &Heard<'_>) {}
        fn set(&mut self) {}
    }

    fn exporter(port: u16) -> Exporter {
        Exporter { address: [127, 0, 0, 1].into(), port }
    }

    fn from(address: u32) -> Exporter {
        Exporter { address: std::net::Ipv4Addr::from(address).into(), port: 2055 }
    }

    /// A v9 datagram of one set.
    fn send(decoder: &mut Decoder, exporter: Exporter, set: &[u8]) {
        let datagram = [&[0, 9, 0, 1][..], &[0; 16], set].concat();
        let arrival = Arrival { exporter, received: 1_700_000_000_000, elapsed: 0, number: 0 };
        decoder.datagram(&arrival, &datagram, &mut Nothing).unwrap();
    }

    /// A template of one field.
    fn tell_from(decoder: &mut Decoder, exporter: Exporter, element: u8) {
        send(decoder, exporter, &[0, 0, 0, 12, 1, 0, 0, 1, 0, element, 0, 4]);
    }

    fn tell(decoder: &mut Decoder, port: u16, element: u8) {
        tell_from(decoder, exporter(port), element);
    }

    fn key(port: u16) -> DomainKey {
        DomainKey { exporter: exporter(port), protocol: Protocol::NetflowV9, domain: 0 }
    }

    fn open(dir: &std::path::Path) -> (keeper::Keeper, Sender, Vec<Row>) {
        let settings = keeper::Settings { dir: dir.to_owned(), max_domains: 100, max_bytes: 1 << 20 };
        keeper::open(settings, keeper::Metrics::default()).unwrap()
    }

    /// However slow the machine that the test runs on.
    fn hand_over_all(keeping: &mut Keeping, decoder: &mut Decoder) {
        keeping.hand_over_until(decoder, Instant::now() + Duration::from_secs(3600));
    }

    #[test]
    fn the_end_hands_over_more_than_the_keeper_takes_at_once() {
        const DOMAINS: u16 = 25_000;
        let dir = tempfile::tempdir().unwrap();
        let settings = keeper::Settings {
            dir: dir.path().to_owned(),
            max_domains: usize::from(DOMAINS),
            max_bytes: 1 << 30,
        };
        let (keeper, sender, rows) = keeper::open(settings.clone(), keeper::Metrics::default()).unwrap();
        let changes = wire::ChangeLimits { burst: u32::MAX, ..wire::ChangeLimits::default() };
        let limits = Limits { domains: 2 * usize::from(DOMAINS), changes, ..Limits::default() };
        let mut decoder = Decoder::new(wire::Settings { limits, ..Default::default() });
        let mut keeping = restore(&mut decoder, &rows, sender, &Ingest::new());
        (1..=DOMAINS).for_each(|port| tell(&mut decoder, port, 8));
        let writer = std::thread::spawn(move || keeper.run());
        hand_over_all(&mut keeping, &mut decoder);
        drop(keeping);
        writer.join().unwrap();
        let (_keeper, _sender, rows) = keeper::open(settings, keeper::Metrics::default()).unwrap();
        assert_eq!(rows.len(), usize::from(DOMAINS));
    }

    #[test]
    fn what_was_told_is_there_after_a_restart_and_what_is_forgotten_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            wire::Settings { limits: Limits { domains: 4, ..Limits::default() }, ..Default::default() };
        let (keeper, sender, rows) = open(dir.path());
        let (mut decoder, metrics) = (Decoder::new(settings.clone()), Ingest::new());
        let mut keeping = restore(&mut decoder, &rows, sender, &metrics);
        for port in 1..=20 {
            tell(&mut decoder, port, 8);
            keeping.hand_over(&mut decoder);
        }
        let known: HashSet<DomainKey> = decoder.domains().keys().copied().collect();
        drop(keeping);
        keeper.run();

        let (_keeper, sender, rows) = open(dir.path());
        assert_eq!(rows.iter().map(|row| row.key).collect::<HashSet<_>>(), known);
        let mut decoder = Decoder::new(settings);
        let mut keeping = restore(&mut decoder, &rows, sender, &metrics);
        assert_eq!(metrics.templates_restored.get(), known.len() as u64);
        tell(&mut decoder, 20, 8);
        keeping.marked.extend(decoder.take_changed());
        assert_eq!(keeping.marked, HashSet::new(), "nothing is new");
    }

    #[test]
    fn a_full_mailbox_is_no_loss() {
        let dir = tempfile::tempdir().unwrap();
        let (_keeper, sender, rows) = open(dir.path());
        // Another shard has filled it.
        let large = wire::Saved { used: 0, bytes: vec![0; 16 << 20] };
        assert!(sender.put(key(9), Some(large)));
        let (mut decoder, metrics) = (Decoder::new(wire::Settings::default()), Ingest::new());
        let mut keeping = restore(&mut decoder, &rows, sender.clone(), &metrics);
        tell(&mut decoder, 1, 8);
        keeping.hand_over(&mut decoder);
        assert_eq!(keeping.marked, HashSet::from([key(1)]));
        assert!(sender.put(key(9), None));
        hand_over_all(&mut keeping, &mut decoder);
        assert_eq!(keeping.marked, HashSet::new());
    }

    /// Tens of thousands of forged addresses, each with a template and every third with a record.
    #[test]
    fn a_flood_of_forged_addresses_takes_nothing_from_who_is_in_use() {
        const GENUINE: u16 = 20;
        let dir = tempfile::tempdir().unwrap();
        let settings =
            wire::Settings { limits: Limits { domains: 100, ..Limits::default() }, ..Default::default() };
        let (keeper, sender, rows) = open(dir.path());
        let mut decoder = Decoder::new(settings.clone());
        let mut keeping = restore(&mut decoder, &rows, sender, &Ingest::new());
        let writer = std::thread::spawn(move || keeper.run());
        let read = |decoder: &mut Decoder, address: u32| {
            let set = [1, 0, 0, 8, 0, 0, 0, 7];
            send(decoder, from(address), &set);
        };
        for host in 0..u32::from(GENUINE) {
            tell_from(&mut decoder, from(host), 8);
            read(&mut decoder, host);
        }
        hand_over_all(&mut keeping, &mut decoder);
        for forged in 0..40_000 {
            let address = 0x0a00_0000 + forged;
            tell_from(&mut decoder, from(address), 8);
            if forged % 3 == 0 {
                read(&mut decoder, address);
            }
            if forged % 20 == 0 {
                (0..u32::from(GENUINE)).for_each(|host| read(&mut decoder, host));
            }
            if forged % 500 == 0 {
                keeping.hand_over(&mut decoder);
                assert!(keeping.given.len() + keeping.marked.len() < 1_000, "few marks are left behind");
            }
        }
        hand_over_all(&mut keeping, &mut decoder);
        drop(keeping);
        writer.join().unwrap();

        let (_keeper, sender, rows) = open(dir.path());
        assert!(rows.len() <= 100);
        let mut decoder = Decoder::new(settings);
        let _keeping = restore(&mut decoder, &rows, sender, &Ingest::new());
        let key = |host| DomainKey { exporter: from(host), protocol: Protocol::NetflowV9, domain: 0 };
        let lost: Vec<u32> =
            (0..u32::from(GENUINE)).filter(|host| !decoder.domains().knows(&key(*host))).collect();
        assert_eq!(lost, Vec::<u32>::new());
    }
}
