//! Who has been heard, for status and log: a row an address, and in it a row for each of its senders. Bounded.
//!
//! A sender is what keeps a sequence of its own: (address, port, protocol, observation domain). What is counted of
//! it here is what the shard sees; what it told and what is missing is the decoder's, and put beside it when the
//! table is shown. Its times are marks of a clock that is never set ([`Moment::mark`]), and are shown by the wall clock
//! as it is set then.
//!
//! | if | then |
//! |---|---|
//! | there are too many addresses or senders in all | the half of the addresses heard longest ago share one row from then on |
//! | an address has too many senders, as when it takes a new port for each datagram | the one heard longest ago is told by its address's row only |
//! | senders that are not allowed are many | those heard longest ago share the row of the others |

use super::admission::Limits;
use super::bucket::Bucket;
use super::cause::{Cause, Weight};
use super::changes::Changes;
use super::facts::{Facts, Limited, Speaks};
use super::moment::Moment;
use super::own::Own;
use super::totals::{Share, Totals};
use crate::batch;
use crate::flow::{Exporter, Run};
use crate::spool::LastHeard;
use crate::wire::{self, DomainKey, Heard, Sender, Unit};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Addresses that have a row of their own.
const MOST_ADDRESSES: usize = 10_000;
/// Senders that have one, of all addresses.
const MOST_SENDERS: usize = 20_000;
/// Senders of one address that have one.
const MOST_OF_AN_ADDRESS: usize = 64;
/// Refused addresses that have one.
const MOST_REFUSED: usize = 1_000;

/// Whose a datagram is, beside its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) port: u16,
    pub(super) speaks: Speaks,
    pub(super) domain: u32,
}

impl Key {
    /// By what its header said.
    pub(super) fn of(run: &Run) -> Key {
        Key { port: run.exporter.port, speaks: Speaks::Flow(run.protocol), domain: run.domain }
    }
}

/// What an address has sent.
#[derive(Clone, Debug)]
pub struct ExporterRow {
    /// The address; `None` is all those for whom there was no row left.
    pub address: Option<IpAddr>,
    /// The source port of its last datagram.
    pub port: u16,
    /// All of its senders together.
    pub totals: Totals,
    /// Each of its senders, in no order.
    pub senders: Vec<Facts>,
}

/// A shard's exporters as of the last second, for whoever shows them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ExporterView(Arc<Mutex<Vec<ExporterRow>>>);

impl ExporterView {
    /// The rows, in no order.
    pub fn rows(&self) -> Vec<ExporterRow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, rows: Vec<ExporterRow>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = rows;
    }
}

/// One address.
#[derive(Debug, Default)]
struct Address {
    totals: Totals,
    port: u16,
    senders: Vec<Own>,
    datagrams: Bucket,
    bytes: Bucket,
    limited: Limited,
}

impl Address {
    /// The sender's row, made when there is none; true if that made one more.
    fn sender(&mut self, key: Key, now: u64) -> (&mut Own, bool) {
        let mut is_more = false;
        let place = self.senders.iter().position(|own| own.key == key).unwrap_or_else(|| {
            let oldest = self.senders.iter().enumerate().min_by_key(|(_, own)| own.last_seen);
            if let (Some((place, _)), MOST_OF_AN_ADDRESS..) = (oldest, self.senders.len()) {
                self.senders.swap_remove(place);
            } else {
                is_more = true;
            }
            self.senders.push(Own::new(key, now));
            self.senders.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "the place was found or pushed just now")]
        (&mut self.senders[place], is_more)
    }
}

/// Those who are not allowed, of one address.
#[derive(Clone, Copy, Debug)]
struct Refused {
    port: u16,
    datagrams: u64,
    first_seen: u64,
    last_seen: u64,
    told: bool,
}

impl Refused {
    /// Its times are marks.
    fn totals(&self) -> Totals {
        let Refused { datagrams, first_seen, last_seen, .. } = *self;
        Totals { refused: datagrams, first_seen, last_seen, ..Totals::default() }
    }
}

/// The shard's own table.
#[derive(Debug, Default)]
pub(super) struct Senders {
    addresses: HashMap<IpAddr, Address>,
    /// Senders in all addresses.
    count: usize,
    /// Those for whom there is no row any more.
    others: Totals,
    refused: HashMap<IpAddr, Refused>,
    changes: Changes,
    /// Of the datagram that was heard last.
    newly_seen: Option<(batch::Sender, bool)>,
    /// The sequence numbers of the spool's last batches, until the first after our start has come.
    before: LastHeard,
}

impl Senders {
    /// Nobody heard, but for what the spool's last batches say.
    pub(super) fn new(before: LastHeard) -> Senders {
        Senders { before, ..Senders::default() }
    }

    /// Addresses that have a row.
    pub(super) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Counts a datagram that was refused.
    pub(super) fn refused(&mut self, exporter: Exporter, now: Moment) {
        let now = now.mark();
        if self.refused.len() >= MOST_REFUSED && !self.refused.contains_key(&exporter.address) {
            self.forget_refused();
        }
        let new = Refused { port: 0, datagrams: 0, first_seen: now, last_seen: now, told: false };
        let row = self.refused.entry(exporter.address).or_insert(new);
        (row.port, row.last_seen) = (exporter.port, now);
        row.datagrams += 1;
    }

    /// Lets the half of those who are not allowed that were heard longest ago go.
    fn forget_refused(&mut self) {
        let Senders { refused, others, .. } = self;
        let median = median(refused.iter().map(|(address, row)| (row.last_seen, *address)));
        refused.retain(|address, row| {
            let is_kept = (row.last_seen, *address) > median;
            if !is_kept {
                others.add(&row.totals());
            }
            is_kept
        });
    }

    /// Counts a datagram that was longer than the buffer.
    pub(super) fn truncated(&mut self, exporter: Exporter, now: Moment) {
        let totals = &mut self.address(exporter.address, now.mark()).totals;
        totals.truncated += 1;
        totals.last_seen = now.mark();
    }

    /// Counts what a batch held that the spool's queue has not taken.
    pub(super) fn dropped(&mut self, shares: &[batch::Share]) {
        for share in shares {
            let totals = match self.addresses.get_mut(&share.exporter.address) {
                Some(address) => &mut address.totals,
                None => &mut self.others,
            };
            totals.dropped += u64::from(share.records);
        }
    }

    /// May the address send so many bytes more? If not the datagram is counted.
    pub(super) fn within(&mut self, exporter: Exporter, bytes: usize, limits: Limits, now: Moment) -> bool {
        let address = self.address(exporter.address, now.mark());
        let bytes = bytes as u64;
        let has = |bucket: &mut Bucket, amount, rate: Option<u64>| {
            rate.is_none_or(|rate| bucket.has(amount, rate, now.elapsed_ms))
        };
        let is_within =
            has(&mut address.datagrams, 1, limits.datagrams) & has(&mut address.bytes, bytes, limits.bytes);
        if is_within {
            address.datagrams.take(1);
            address.bytes.take(bytes);
        } else {
            address.limited = Limited { datagrams: address.limited.datagrams + 1, last: now.mark(), limits };
            address.totals.limited += 1;
            address.totals.last_seen = now.mark();
        }
        is_within
    }

    /// Counts a datagram and what it had. Tells what was lost in our restart, as its sequence number says.
    pub(super) fn heard(
        &mut self,
        exporter: Exporter,
        key: Key,
        share: &Share,
        now: Moment,
    ) -> Option<(Unit, u32)> {
        let (now, before) = (now.mark(), self.before.clone());
        let address = self.address(exporter.address, now);
        let (own, is_more) = address.sender(key, now);
        let is_first = own.datagrams == 0;
        own.add(share, now);
        own.datagrams += 1;
        (own.sequence, own.last_seen) = (share.sequence, now);
        (own.version, own.boot_time, own.closed) = (share.version, share.boot_time, 0);
        let newly_seen = own.seen(exporter, share, now);
        let totals = &mut address.totals;
        totals.datagrams += 1;
        totals.raw += u64::from(key.speaks == Speaks::Raw);
        totals.last_seen = now;
        totals.add_share(share);
        let lost = is_first.then(|| lost_in_restart(&before, exporter, key, share.sequence)).flatten();
        if let Some((unit, missing)) = lost
            && let Some(sum) = totals.restart_missing.get_mut(unit as usize)
        {
            *sum += u64::from(missing);
        }
        address.port = exporter.port;
        self.newly_seen = newly_seen;
        self.count += usize::from(is_more);
        if self.count > MOST_SENDERS {
            self.make_room();
        }
        lost
    }

    /// Whose the datagram heard last was, and whether its exporter has started anew, if that is due to be told: with its
    /// first datagram, when it restarts, and now and then.
    pub(super) fn newly_seen(&mut self) -> Option<(batch::Sender, bool)> {
        self.newly_seen.take()
    }

    /// Counts what came of a set that was held: no datagram of its own.
    pub(super) fn resumed(&mut self, address: IpAddr, key: Key, share: &Share, now: Moment) {
        match self.addresses.get_mut(&address) {
            Some(address) => {
                address.totals.add_share(share);
                if let Some(own) = address.senders.iter_mut().find(|own| own.key == key) {
                    own.add(share, now.mark());
                }
            }
            None => self.others.add_share(share),
        }
    }

    /// The exporter's connection is closed.
    pub(super) fn closed(&mut self, exporter: Exporter, now: Moment) {
        let Some(address) = self.addresses.get_mut(&exporter.address) else { return };
        for own in address.senders.iter_mut().filter(|own| own.key.port == exporter.port) {
            own.closed = now.mark();
        }
    }

    /// Logs that a template has got other fields.
    pub(super) fn redefined(&mut self, heard: &Heard<'_>, now: Moment) {
        self.changes.redefined(heard, now.elapsed_ms);
    }

    fn address(&mut self, address: IpAddr, now: u64) -> &mut Address {
        if self.addresses.len() >= MOST_ADDRESSES && !self.addresses.contains_key(&address) {
            self.make_room();
        }
        self.addresses.entry(address).or_insert_with(|| {
            let totals = Totals { first_seen: now, last_seen: now, ..Totals::default() };
            Address { totals, ..Address::default() }
        })
    }

    /// Lets the half of the addresses that were heard longest ago share a row.
    fn make_room(&mut self) {
        let Senders { addresses, count, others, .. } = self;
        let median = median(addresses.iter().map(|(address, row)| (row.totals.last_seen, *address)));
        addresses.retain(|address, row| {
            let is_kept = (row.totals.last_seen, *address) > median;
            if !is_kept {
                *count -= row.senders.len();
                others.add(&row.totals);
            }
            is_kept
        });
    }

    /// Shows the table as it is, with what the decoder knows of `told`, and logs what has changed.
    pub(super) fn publish<'a>(
        &mut self,
        told: impl Iterator<Item = Sender<'a>>,
        view: &ExporterView,
        now: Moment,
    ) {
        let mut told: HashMap<DomainKey, Sender<'a>> = told.map(|sender| (sender.key, sender)).collect();
        let Senders { addresses, changes, .. } = self;
        let mut rows: Vec<ExporterRow> = Vec::with_capacity(addresses.len());
        for (ip, address) in addresses {
            let senders = address.senders.iter().map(|own| {
                own.facts(
                    &address.totals,
                    address.limited,
                    domain_key(*ip, own.key).and_then(|key| told.remove(&key)),
                    now,
                )
            });
            let senders: Vec<Facts> = senders.collect();
            for (own, facts) in address.senders.iter_mut().zip(&senders) {
                tell(changes, *ip, facts, &mut own.told, now);
            }
            rows.push(ExporterRow {
                address: Some(*ip),
                port: address.port,
                totals: address.totals.shown(now),
                senders,
            });
        }
        not_heard(&mut rows, told, now);
        self.publish_refused(&mut rows, now);
        if self.others.last_seen > 0 {
            rows.push(ExporterRow {
                address: None,
                port: 0,
                totals: self.others.shown(now),
                senders: Vec::new(),
            });
        }
        self.changes.summarize(now.elapsed_ms);
        view.show(rows);
    }

    fn publish_refused(&mut self, rows: &mut Vec<ExporterRow>, now: Moment) {
        for (address, refused) in &mut self.refused {
            let (first_seen, last_seen) = (now.unix_of(refused.first_seen), now.unix_of(refused.last_seen));
            let facts = Facts {
                first_seen,
                last_seen,
                address_last_seen: last_seen,
                datagrams: refused.datagrams,
                ..Facts::new(refused.port, Speaks::Refused, 0)
            };
            if !std::mem::replace(&mut refused.told, true) {
                self.changes.log(*address, &facts, &Cause::Refused, true, now.elapsed_ms);
            }
            rows.push(ExporterRow {
                address: Some(*address),
                port: refused.port,
                totals: Totals { first_seen, last_seen, ..refused.totals() },
                senders: vec![facts],
            });
        }
    }
}

/// Logs a sender's cause when it is another than was last logged.
fn tell(changes: &mut Changes, address: IpAddr, facts: &Facts, told: &mut Option<&'static str>, now: Moment) {
    let cause = Cause::of(facts, now.unix_ms);
    let label = Some(cause.label());
    if *told == label {
        return;
    }
    let before = std::mem::replace(told, label);
    // A port that is used no more is no news: its address goes on from another.
    if cause.weight() != Weight::Gone {
        changes.log(address, facts, &cause, before.is_none(), now.elapsed_ms);
    }
}

/// Adds senders of which only is known what they told before our start.
fn not_heard(rows: &mut Vec<ExporterRow>, told: HashMap<DomainKey, Sender<'_>>, now: Moment) {
    let mut places: HashMap<IpAddr, usize> = HashMap::new();
    if !told.is_empty() {
        places = rows.iter().enumerate().filter_map(|(place, row)| Some((row.address?, place))).collect();
    }
    for (key, sender) in told {
        // One that was heard and has no row here any more is among the others.
        if sender.track.is_some() || sender.templates == 0 {
            continue;
        }
        let ip = key.exporter.address;
        let mut facts = Facts::new(key.exporter.port, Speaks::Flow(key.protocol), key.domain);
        facts.add(sender, now);
        let place = *places.entry(ip).or_insert_with(|| {
            let (port, totals) = (key.exporter.port, Totals::default());
            rows.push(ExporterRow { address: Some(ip), port, totals, senders: Vec::new() });
            rows.len() - 1
        });
        if let Some(row) = rows.get_mut(place) {
            facts.address_last_seen = row.totals.last_seen;
            row.senders.push(facts);
        }
    }
}

/// What the sequence numbers on both sides of our start say was lost between.
fn lost_in_restart(before: &LastHeard, exporter: Exporter, key: Key, first: u32) -> Option<(Unit, u32)> {
    let Speaks::Flow(protocol) = key.speaks else { return None };
    let last = before.take(exporter, key.domain)?;
    wire::missing_between(protocol, (last.sequence, last.records), first)
}

fn domain_key(address: IpAddr, key: Key) -> Option<DomainKey> {
    let Speaks::Flow(protocol) = key.speaks else { return None };
    Some(DomainKey { exporter: Exporter { address, port: key.port }, protocol, domain: key.domain })
}

/// What half of the rows are not above.
fn median(rows: impl Iterator<Item = (u64, IpAddr)>) -> (u64, IpAddr) {
    let mut rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return (0, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }
    let middle = (rows.len() - 1) / 2;
    *rows.select_nth_unstable(middle).1
}

#[cfg(test)]
mod tests;
