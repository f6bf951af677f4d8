//! What a shard reads from TCP: messages of many connections, with a decoder for each.
//!
//! A connection is a transport session, and templates belong to their session (RFC 7011 8): a decoder of its own
//! knows no other connection's, and takes what it knows with it when the connection ends. Over TCP an exporter sends
//! each template once, so no connection may push out another's either: each has its own, smaller limits.

use super::intake::Intake;
use super::naming::{Naming, has_names};
use super::{Clock, Context, Source, State};
use crate::ingest::Datagram;
use crate::ingest::tcp::{Content, Delivery, Inbox, Received, SessionId};
use crate::metrics::Ingest;
use crate::wire::{self, ChangeLimits, Decoder, HoldLimits};
use std::collections::HashMap;
use std::time::Duration;

/// Deliveries that one read takes at most.
const MOST_DELIVERIES: usize = 64;

/// What one connection may fill. All of them together ([`CONNECTIONS`](crate::ingest::tcp::CONNECTIONS)) come to what
/// a UDP shard's one decoder may fill, and twice that in fields.
const LIMITS: wire::Limits = wire::Limits {
    domains: 256,
    templates_per_domain: 4_096,
    fields: 16_384,
    senders: 256,
    // An address gets a quarter, and a connection has one address: the longest message, with what it costs to hold it.
    hold: HoldLimits { max_bytes: 272 << 10, max_age: 35 * 60 * 1000 },
    // Nothing of it is written to disk, an exporter changes no templates but its own, and one that was not taken would
    // not come again.
    changes: ChangeLimits { burst: u32::MAX, per_second: u32::MAX },
};

pub(super) struct Tcp {
    inbox: Inbox,
    settings: wire::Settings,
    decoders: HashMap<SessionId, Decoder>,
    naming: Naming,
    /// What came while it waited.
    next: Option<Delivery>,
    is_over: bool,
    /// Templates given up by connections that have ended.
    evicted: u64,
    /// What they refused in options.
    refused: u64,
}

impl Tcp {
    pub(super) fn new(inbox: Inbox, context: &Context) -> Tcp {
        let mut settings = context.wire.clone();
        // RFC 7011 8.1: withdrawals are for transports that keep what is sent in order.
        settings.obey_withdrawals = true;
        settings.limits = LIMITS;
        Tcp {
            inbox,
            settings,
            decoders: HashMap::new(),
            naming: Naming::new(context.names.clone()),
            next: None,
            is_over: false,
            evicted: 0,
            refused: 0,
        }
    }

    fn keep(&mut self, received: Received) {
        match received {
            Received::Delivery(delivery) => self.next = Some(delivery),
            Received::Nothing => {}
            Received::Over => self.is_over = true,
        }
    }

    fn take(&mut self, delivery: Delivery, clock: &Clock, intake: &mut Intake) {
        let Delivery { session, exporter, content } = delivery;
        let now = clock.now();
        match content {
            Content::Messages(messages) => {
                let settings = self.settings.clone();
                let decoder = self.decoders.entry(session).or_insert_with(|| {
                    let mut decoder = Decoder::new(settings);
                    decoder.note_names();
                    decoder
                });
                for bytes in messages.iter() {
                    let message = Datagram { exporter, bytes, truncated: false };
                    intake.message(&message, now, decoder);
                }
            }
            Content::Broken { fault, start } => intake.unreadable(exporter, fault, &start, now),
            Content::End(_place) => {
                if let Some(decoder) = self.decoders.remove(&session) {
                    self.forget(decoder, clock, intake);
                }
                intake.senders().closed(exporter, now);
            }
        }
    }

    fn forget(&mut self, mut decoder: Decoder, clock: &Clock, intake: &mut Intake) {
        settle(intake);
        self.naming.hand_over_all(&mut decoder, clock.now());
        self.naming.ended(&decoder, clock.now());
        intake.end(&mut decoder);
        self.evicted += decoder.domains().evicted();
        self.refused += decoder.domains().refused();
    }
}

/// Waits until restarts of exporters are handed over: this shard may.
fn settle(intake: &mut Intake) {
    while !intake.settle_names() {
        std::thread::yield_now();
    }
}

impl Source for Tcp {
    const CAN_WAIT: bool = true;

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn read(&mut self, clock: &Clock, intake: &mut Intake) -> usize {
        let mut taken = 0;
        // What one delivery seals fits into the half of the spool's queue that is left when it is behind.
        while taken < MOST_DELIVERIES && !intake.is_behind() {
            if self.next.is_none() {
                let received = self.inbox.take();
                self.keep(received);
            }
            let Some(delivery) = self.next.take() else { break };
            self.take(delivery, clock, intake);
            taken += 1;
        }
        intake.flush_counts();
        taken
    }

    fn pause(&mut self, taken: usize, longest: Duration) {
        if taken == 0 && self.next.is_none() && !self.is_over {
            let received = self.inbox.wait(longest);
            self.keep(received);
        }
    }

    fn tick(&mut self, clock: &Clock, intake: &mut Intake, _metrics: &Ingest) {
        settle(intake);
        for decoder in self.decoders.values_mut() {
            intake.tick(decoder, clock.now());
            self.naming.hand_over_all(decoder, clock.now());
        }
        let decoders = &self.decoders;
        let names = |key: &_| decoders.values().any(|decoder| has_names(decoder, key));
        self.naming.forget(clock.now(), names);
    }

    /// Door and connections are gone: each has told its end.
    fn end(&mut self, clock: &Clock, intake: &mut Intake) {
        for (_, decoder) in std::mem::take(&mut self.decoders) {
            self.forget(decoder, clock, intake);
        }
    }

    fn decoders(&self) -> impl Iterator<Item = &Decoder> {
        self.decoders.values()
    }

    fn state(&self) -> State {
        let gone = State { evicted: self.evicted, refused: self.refused, ..State::default() };
        self.decoders.values().fold(gone, |state, decoder| state + decoder)
    }
}

#[cfg(test)]
mod tests;
