//! The client's messages, made from the spool's nouns.

use super::lane::Lane;
use super::{Facts, VERSION};
use crate::proto::{self, Codec, Counters, client_message::Message};
use crate::spool::{LaneView, SkipRow, Stored};
use bytes::Bytes;
use std::time::Duration;

pub(super) fn hello(facts: &Facts) -> Message {
    Message::Hello(proto::Hello {
        versions: vec![VERSION],
        codecs: vec![Codec::Plain as i32, Codec::Zstd as i32],
        mark_store_id: facts.mark_store_id.clone(),
        instance: Bytes::copy_from_slice(&facts.instance),
        software: facts.software.clone(),
    })
}

pub(super) fn open(wire: u32, view: &LaneView) -> Message {
    Message::Open(proto::Open {
        lane: wire,
        lane_id: Bytes::copy_from_slice(&view.id.0),
        current: view.current,
        oldest_seq: view.oldest_seq,
        next_seq: view.next_seq,
        acked_seq: view.acked_seq,
    })
}

pub(super) fn batch(wire: u32, stored: Stored) -> Message {
    Message::Batch(proto::Batch {
        lane: wire,
        seq: stored.seq,
        previous_digest: digest(stored.previous_digest.as_ref()),
        codec: stored.codec as i32,
        plain_size: stored.plain_size,
        payload: stored.payload,
    })
}

pub(super) fn skip(wire: u32, row: SkipRow) -> Message {
    let count = |(address, records): (std::net::IpAddr, u64)| proto::ExporterCount {
        address: match address.to_canonical() {
            SkipRow::OTHERS => Bytes::new(),
            std::net::IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
            std::net::IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
        },
        records,
    };
    Message::Skip(proto::Skip {
        lane: wire,
        from: row.from,
        to: row.to,
        reason: row.reason as i32,
        records_per_seq: row.records_per_seq,
        counts_per_exporter: row.counts_per_exporter.into_iter().map(count).collect(),
        digest: digest(row.digest.as_ref()),
    })
}

pub(super) fn heartbeat(counters: Counters, lanes: &[Lane], oldest_unsent: Option<Duration>) -> Message {
    let next = |lane: &Lane| proto::LaneNext { lane: lane.wire, next_seq: lane.view.next_seq };
    Message::Heartbeat(proto::Heartbeat {
        counters: Some(Box::new(counters)),
        lanes: lanes.iter().map(next).collect(),
        oldest_unsent_age: oldest_unsent
            .map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX).max(1)),
    })
}

fn digest(digest: Option<&crate::batch::Digest>) -> Bytes {
    digest.map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(digest))
}
