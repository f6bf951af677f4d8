//! Whom a batch's records came from: the payload's exporter table, with a row for each sender, and the shares, one for
//! each address and port.

use super::Share;
use super::builder::{EXPORTERS, message};
use super::names::{Names, Sender};
use super::room::Room;
use crate::flow::Exporter;
use crate::proto;
use bytes::Bytes;
use std::collections::HashMap;
use std::net::IpAddr;

/// Bytes that a row takes in the payload beside its names, at most.
const SENDER_BYTES: usize = 32;

/// See the module. Places are those of the exporter table.
#[derive(Debug, Default)]
pub(super) struct Senders {
    rows: Vec<Row>,
    shares: Vec<Share>,
    index: HashMap<Sender, u32>,
    share_index: HashMap<Exporter, usize>,
    last: Option<(Sender, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    sender: Sender,
    share: usize,
}

impl Senders {
    /// Counts records of one datagram, and tells the sender's place.
    pub(super) fn add(&mut self, sender: Sender, records: u32, sequence: u32) -> u32 {
        let place = match self.last {
            Some((last, place)) if last == sender => place,
            _ => self.place(sender),
        };
        self.last = Some((sender, place));
        let share = self.rows.get(place as usize).and_then(|row| self.shares.get_mut(row.share));
        if let Some(share) = share {
            let is_same = (share.domain, share.sequence) == (sender.domain, sequence);
            share.last_records = if is_same { share.last_records + records } else { records };
            share.records += records;
            share.domain = sender.domain;
            share.sequence = sequence;
        }
        place
    }

    fn place(&mut self, sender: Sender) -> u32 {
        *self.index.entry(sender).or_insert_with(|| {
            let exporter = sender.exporter;
            let share = *self.share_index.entry(exporter).or_insert_with(|| {
                self.shares.push(Share { exporter, records: 0, domain: 0, sequence: 0, last_records: 0 });
                self.shares.len() - 1
            });
            self.rows.push(Row { sender, share });
            (self.rows.len() - 1) as u32
        })
    }

    /// The sender at this place.
    pub(super) fn get(&self, place: u32) -> Option<&Sender> {
        self.rows.get(place as usize).map(|row| &row.sender)
    }

    /// Bytes of the table in the payload, at most.
    pub(super) fn bytes(&self) -> usize {
        self.rows.len() * SENDER_BYTES
    }

    /// Appends the table, with what is known of the senders.
    pub(super) fn encode(&self, names: &mut dyn Names, room: &mut Room, plain: &mut Vec<u8>) {
        for row in &self.rows {
            let Exporter { address, port } = row.sender.exporter;
            let address = match address {
                IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
                IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
            };
            let mut exporter = proto::Exporter { address, port: u32::from(port), ..Default::default() };
            if let Some(text) = names.sender(&row.sender) {
                room.name(&mut exporter, &text);
            }
            message(EXPORTERS, &exporter, plain);
        }
    }

    /// What each exporter has.
    pub(super) fn shares(&self) -> Vec<Share> {
        self.shares.clone()
    }

    /// Begins the next batch.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.shares.clear();
        self.index.clear();
        self.share_index.clear();
        self.last = None;
    }
}
