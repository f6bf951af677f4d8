//! One sender of an address: what is counted of it, and when it was told of to those who ask devices.

use super::facts::{Facts, Limited, Met, Speaks};
use super::moment::Moment;
use super::senders::Key;
use super::totals::{Share, Totals};
use crate::batch;
use crate::flow::Exporter;
use crate::wire::Sender;
use std::net::IpAddr;

/// How often a sender is told of while it sends, in milliseconds.
const TELL_INTERVAL: u64 = 60_000;

/// One sender.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) key: Key,
    pub(super) datagrams: u64,
    pub(super) records: u64,
    pub(super) options: u64,
    pub(super) faults: Vec<Met>,
    pub(super) version: u16,
    pub(super) sequence: u32,
    pub(super) boot_time: u64,
    pub(super) first_seen: u64,
    pub(super) last_seen: u64,
    pub(super) agent: Option<IpAddr>,
    /// When it was last told of to those who ask devices; 0 if never.
    pub(super) told_of: u64,
    /// When its connection was closed, if it was.
    pub(super) closed: u64,
    /// The label of the cause that was last logged.
    pub(super) told: Option<&'static str>,
}

impl Own {
    /// Not heard yet.
    pub(super) fn new(key: Key, now: u64) -> Own {
        Own {
            key,
            datagrams: 0,
            records: 0,
            options: 0,
            faults: Vec::new(),
            version: 0,
            sequence: 0,
            boot_time: 0,
            first_seen: now,
            last_seen: now,
            agent: None,
            told_of: 0,
            closed: 0,
            told: None,
        }
    }

    /// Adds what a datagram, or a held set, had.
    pub(super) fn add(&mut self, share: &Share, now: u64) {
        self.records += share.records;
        self.options += share.options;
        for fault in &share.faults {
            match self.faults.iter_mut().find(|met| met.fault == *fault) {
                Some(met) => (met.times, met.last) = (met.times + 1, now),
                None => self.faults.push(Met { fault: *fault, times: 1, last: now }),
            }
        }
    }

    /// Whose names are asked for, and whether its exporter has started anew, if that is due to be told.
    pub(super) fn seen(
        &mut self,
        exporter: Exporter,
        share: &Share,
        now: u64,
    ) -> Option<(batch::Sender, bool)> {
        if !matches!(self.key.speaks, Speaks::Flow(_)) {
            return None;
        }
        let is_due = self.told_of == 0 || now - self.told_of >= TELL_INTERVAL;
        if !is_due && self.agent == share.agent && !share.has_restarted {
            return None;
        }
        (self.agent, self.told_of) = (share.agent, now);
        let sender = batch::Sender { exporter, domain: self.key.domain, agent: share.agent };
        Some((sender, share.has_restarted))
    }

    /// What is shown of it; `told` is what the decoder knows.
    pub(super) fn facts(
        &self,
        address: &Totals,
        limited: Limited,
        told: Option<Sender<'_>>,
        now: Moment,
    ) -> Facts {
        let shown = |met: &Met| Met { last: now.unix_of(met.last), ..*met };
        let mut facts = Facts {
            agent: self.agent,
            first_seen: now.unix_of(self.first_seen),
            last_seen: now.unix_of(self.last_seen),
            address_last_seen: now.unix_of(address.last_seen),
            closed: now.unix_of(self.closed),
            datagrams: self.datagrams,
            records: self.records,
            options: self.options,
            faults: self.faults.iter().map(shown).collect(),
            version: self.version,
            boot_time: self.boot_time,
            limited: Limited { last: now.unix_of(limited.last), ..limited },
            ..Facts::new(self.key.port, self.key.speaks, self.key.domain)
        };
        facts.sequence.last = self.sequence;
        if let Some(sender) = told {
            facts.add(sender, now);
        }
        facts
    }
}
