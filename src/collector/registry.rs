//! Who is connected and what came of it: what `/status` shows, and the limit of connections per identity.

use super::lane::{LaneId, Row};
use super::ledger::{Exporter, Exporters, Given, Tally, Totals};
use crate::proto::Counters;
use crate::tls::Identity;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Identities that facts are kept of; of those that are not connected, the one heard of the longest ago goes.
const MAX_PROXIES: usize = 4096;
/// Lanes that are shown per identity, the last opened ones.
const MAX_LANES: usize = 16;
/// A lane not opened for so long while its identity is connected is lost with its disk, in milliseconds.
const LOST_AFTER_MS: u64 = 24 * 3600 * 1000;

/// What `/status` says of proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Proxy {
    /// What its certificate says.
    pub identity: String,
    /// Its streams open now.
    pub streams: usize,
    /// Where the last one came from.
    pub address: String,
    /// Name and version of its software.
    pub software: String,
    /// When its last stream began, in milliseconds since 1970.
    pub connected_since: u64,
    /// When it was last heard of, in milliseconds since 1970.
    pub last_heard: u64,
    /// Batches committed since the collector's start.
    pub batches_committed: u64,
    /// Records committed since the collector's start.
    pub records_committed: u64,
    /// Raw datagrams committed since the collector's start.
    pub datagrams_committed: u64,
    /// What it gave up since the collector's start, by reason.
    pub skipped: BTreeMap<&'static str, Given>,
    /// What came of each of its exporters since the collector's start.
    pub exporters: Vec<Exporter>,
    /// Milliseconds that its oldest unsent batch has waited, as it last said.
    pub oldest_unsent_age: u64,
    /// Something about it that needs an operator, the last one, until the collector's next start.
    pub alarm: Option<String>,
    /// Its own totals, as it last said.
    pub totals: Option<Totals>,
    /// Its lanes, the last opened ones.
    pub lanes: Vec<Lane>,
}

/// What `/status` says of a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lane {
    /// Its name, in hex.
    pub lane_id: String,
    /// Its mark.
    pub committed_seq: u64,
    /// The number that would come next at its proxy.
    pub next_seq: u64,
    /// When it was last opened, in milliseconds since 1970.
    pub opened: u64,
    /// When it was closed, in milliseconds since 1970; 0 while it is not.
    pub closed: u64,
    /// Batches that will never come: they were lost with their disk.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Known {
    facts: Proxy,
    exporters: Exporters,
    lanes: BTreeMap<LaneId, Row>,
}

#[derive(Debug)]
struct Stream {
    identity: Identity,
    instance: Option<[u8; 16]>,
    /// The turn in which it opened a lane that it writes.
    writes: Option<u64>,
    /// Another process writes beside it; whether that was told.
    twin: Option<bool>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    turn: u64,
    streams: BTreeMap<u64, Stream>,
    proxies: BTreeMap<Identity, Known>,
    /// Rows of exporters, of all proxies.
    exporters: usize,
}

/// The table. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Mutex<Inner>>);

/// One stream's place in the table; leaves it when dropped.
#[derive(Debug)]
pub struct Member {
    registry: Registry,
    number: u64,
    identity: Identity,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing here can leave the table half changed, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a stream; `None` when its identity has `limit` of them already.
    pub fn join(
        &self,
        identity: &Identity,
        address: SocketAddr,
        limit: usize,
        now_ms: u64,
    ) -> Option<Member> {
        let mut inner = self.lock();
        if inner.streams.values().filter(|stream| stream.identity == *identity).count() >= limit {
            return None;
        }
        let number = inner.next;
        inner.next += 1;
        inner
            .streams
            .insert(number, Stream { identity: identity.clone(), instance: None, writes: None, twin: None });
        inner.make_room(identity);
        let facts = &mut inner.proxies.entry(identity.clone()).or_default().facts;
        facts.identity = identity.to_string();
        facts.address = address.to_string();
        facts.streams += 1;
        facts.connected_since = now_ms;
        facts.last_heard = now_ms;
        Some(Member { registry: self.clone(), number, identity: identity.clone() })
    }

    /// Streams open now.
    pub fn streams(&self) -> usize {
        self.lock().streams.len()
    }

    /// Adds what was committed of an identity.
    pub(super) fn committed(&self, identity: &Identity, tally: &Tally) {
        let mut inner = self.lock();
        let Inner { proxies, exporters, .. } = &mut *inner;
        let Some(known) = proxies.get_mut(identity) else { return };
        known.facts.batches_committed += tally.record_batches + tally.raw_batches;
        known.facts.records_committed += tally.records;
        known.facts.datagrams_committed += tally.datagrams;
        for (address, records) in &tally.exporters {
            known.exporters.row(*address, exporters).committed += records;
        }
        for (reason, given) in &tally.skipped {
            known.facts.skipped.entry(reason).or_default().add(given);
        }
        for (address, records) in &tally.exporters_skipped {
            let row = known.exporters.row(*address, exporters);
            row.skipped = row.skipped.saturating_add(*records);
        }
    }

    /// A lane stands there now; `None`: it is forgotten.
    pub fn lane(&self, identity: &Identity, lane: LaneId, row: Option<Row>) {
        let mut inner = self.lock();
        let Some(known) = inner.proxies.get_mut(identity) else { return };
        match row {
            Some(row) => drop(known.lanes.insert(lane, row)),
            None => drop(known.lanes.remove(&lane)),
        }
        if known.lanes.len() > MAX_LANES {
            let oldest = known.lanes.iter().min_by_key(|(_, row)| row.opened_ms).map(|(lane, _)| *lane);
            oldest.and_then(|lane| known.lanes.remove(&lane));
        }
    }

    /// Some lane of the identity is shown.
    pub fn has_lanes(&self, identity: &Identity) -> bool {
        self.lock().proxies.get(identity).is_some_and(|known| !known.lanes.is_empty())
    }

    /// Everything, by identity.
    pub fn proxies(&self, now_ms: u64) -> Vec<Proxy> {
        let inner = self.lock();
        let proxies = inner.proxies.values().map(|known| {
            let connected = known.facts.streams > 0;
            let lanes = known.lanes.iter().map(|(id, row)| shown(*id, row, connected, now_ms)).collect();
            Proxy { lanes, exporters: known.exporters.shown(), ..known.facts.clone() }
        });
        proxies.collect()
    }
}

fn shown(id: LaneId, row: &Row, connected: bool, now_ms: u64) -> Lane {
    let forgotten = connected && now_ms.saturating_sub(row.opened_ms) > LOST_AFTER_MS;
    Lane {
        lane_id: id.to_string(),
        committed_seq: row.mark.committed_seq,
        next_seq: row.next_seq,
        opened: row.opened_ms,
        closed: row.closed_ms,
        lost: if row.closed_ms != 0 || forgotten { row.missing() } else { 0 },
    }
}

impl Inner {
    fn make_room(&mut self, identity: &Identity) {
        if self.proxies.len() < MAX_PROXIES || self.proxies.contains_key(identity) {
            return;
        }
        let idle = self.proxies.iter().filter(|(_, known)| known.facts.streams == 0);
        let oldest =
            idle.min_by_key(|(_, known)| known.facts.last_heard).map(|(identity, _)| identity.clone());
        let gone = oldest.and_then(|identity| self.proxies.remove(&identity));
        self.exporters -= gone.map_or(0, |known| known.exporters.len());
    }
}

impl Member {
    /// The proxy has said Hello.
    pub fn greeted(&self, instance: [u8; 16], software: String) {
        let mut inner = self.registry.lock();
        if let Some(stream) = inner.streams.get_mut(&self.number) {
            stream.instance = Some(instance);
        }
        if let Some(known) = inner.proxies.get_mut(&self.identity) {
            known.facts.software = software;
        }
    }

    /// The proxy has opened a lane that it writes.
    pub fn writes(&self) {
        let mut inner = self.registry.lock();
        inner.turn += 1;
        let turn = inner.turn;
        if let Some(stream) = inner.streams.get_mut(&self.number) {
            stream.writes.get_or_insert(turn);
        }
    }

    /// The proxy speaks. True, once, if another process of its identity writes beside it. That an older one has a
    /// stream says nothing: it may be what is left of a host that lost its power. It must speak after this one has
    /// begun to write.
    pub fn is_twin(&self) -> bool {
        let mut inner = self.registry.lock();
        let Some(me) = inner.streams.get(&self.number) else { return false };
        let Some(since) = me.writes else { return false };
        let instance = me.instance;
        let follows = |other: &Stream| {
            other.identity == self.identity
                && other.instance != instance
                && other.writes.is_some_and(|writes| writes > since)
        };
        let mut is_followed = false;
        for other in inner.streams.values_mut().filter(|other| follows(other)) {
            other.twin.get_or_insert(false);
            is_followed = true;
        }
        let Some(me) = inner.streams.get_mut(&self.number) else { return false };
        if is_followed {
            me.twin.get_or_insert(false);
        }
        me.twin.as_mut().is_some_and(|told| !std::mem::replace(told, true))
    }

    /// Something needs an operator.
    pub fn alarm(&self, text: String) {
        if let Some(known) = self.registry.lock().proxies.get_mut(&self.identity) {
            known.facts.alarm = Some(text);
        }
    }

    /// The proxy has given its totals.
    pub fn heartbeat(&self, counters: Counters, oldest_unsent_age: u64, now_ms: u64) {
        let mut inner = self.registry.lock();
        let Some(known) = inner.proxies.get_mut(&self.identity) else { return };
        known.facts.last_heard = now_ms;
        known.facts.oldest_unsent_age = oldest_unsent_age;
        known.facts.totals = Some(Totals::from(counters));
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        inner.streams.remove(&self.number);
        if let Some(known) = inner.proxies.get_mut(&self.identity) {
            known.facts.streams = known.facts.streams.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::lane::Mark;
    use crate::collector::tests::identity;

    const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    #[test]
    fn streams_of_an_identity_are_limited() {
        let registry = Registry::default();
        let a = registry.join(&identity("a"), ADDRESS, 1, 0).unwrap();
        assert!(registry.join(&identity("a"), ADDRESS, 1, 0).is_none());
        assert!(registry.join(&identity("b"), ADDRESS, 1, 0).is_some());
        drop(a);
        assert!(registry.join(&identity("a"), ADDRESS, 1, 0).is_some());
        assert_eq!(registry.streams(), 0);
        assert_eq!(registry.proxies(0).len(), 2);
    }

    #[test]
    fn two_writing_processes_of_one_identity_are_twins() {
        let registry = Registry::default();
        let join = || registry.join(&identity("a"), ADDRESS, 8, 0).unwrap();
        let (first, again, twin) = (join(), join(), join());
        for (member, instance) in [(&first, 1), (&again, 1), (&twin, 2)] {
            member.greeted([instance; 16], String::new());
        }
        first.writes();
        again.writes();
        assert!(!first.is_twin() && !again.is_twin());
        twin.writes();
        // What it follows may be what is left of a host that lost its power.
        assert!(!twin.is_twin());
        assert!(first.is_twin());
        assert!(twin.is_twin());
        assert!(!first.is_twin() && !twin.is_twin(), "each is told once");
        drop((first, again));
        let next = join();
        next.greeted([3; 16], String::new());
        next.writes();
        drop(twin);
        assert!(!next.is_twin());
    }

    #[test]
    fn what_is_missing_counts_as_lost_once_the_lane_is_closed_or_forgotten() {
        let registry = Registry::default();
        let _member = registry.join(&identity("a"), ADDRESS, 8, 0).unwrap();
        let row = Row { mark: Mark::adopted(4), next_seq: 8, opened_ms: 100, closed_ms: 0 };
        registry.lane(&identity("a"), LaneId([1; 16]), Some(row));
        let lost = |now| registry.proxies(now)[0].lanes[0].lost;
        assert_eq!(lost(200), 0);
        assert_eq!(lost(101 + LOST_AFTER_MS), 3);
        registry.lane(&identity("a"), LaneId([1; 16]), Some(Row { closed_ms: 300, ..row }));
        assert_eq!(lost(300), 3);
        registry.lane(&identity("a"), LaneId([1; 16]), None);
        assert!(registry.proxies(300)[0].lanes.is_empty());
    }

    #[test]
    fn lanes_shown_are_bounded() {
        let registry = Registry::default();
        let _member = registry.join(&identity("a"), ADDRESS, 8, 0).unwrap();
        for lane in 0..=MAX_LANES as u8 {
            let row = Row { opened_ms: lane.into(), ..Row::default() };
            registry.lane(&identity("a"), LaneId([lane; 16]), Some(row));
        }
        let lanes = registry.proxies(0).remove(0).lanes;
        assert_eq!(lanes.len(), MAX_LANES);
        assert!(lanes.iter().all(|lane| lane.opened != 0));
    }
}
