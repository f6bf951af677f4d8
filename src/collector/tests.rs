//! What the collector's tests share, and the collector as a whole.

use super::lane::LaneId;
use super::sinks::Taken;
use crate::batch::read;
use crate::proto::{self, Codec};
use crate::tls::Identity;
use bytes::Bytes;
use prost::Message as _;

/// An identity as a certificate names it.
pub(super) fn identity(name: &str) -> Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    Identity::from_certificate(params.self_signed(&key).unwrap().der()).unwrap()
}

/// A payload that holds these datagrams.
pub(super) fn raw_batch(datagrams: &[&[u8]]) -> Bytes {
    let exporter = proto::Exporter { address: vec![192, 0, 2, 1].into(), port: 9, ..Default::default() };
    let datagram = |bytes: &&[u8]| proto::Datagram {
        exporter: 0,
        port: 9995,
        received: 1_795_442_400_000,
        bytes: Bytes::copy_from_slice(bytes),
    };
    let datagrams = datagrams.iter().map(datagram).collect();
    let payload = proto::Payload { exporters: vec![exporter], datagrams, ..Default::default() };
    payload.encode_to_vec().into()
}

/// A batch as sinks get it.
pub(super) fn taken(seq: u64, payload: Bytes) -> Taken {
    let plain_size = payload.len() as u32;
    let batch = read::open(Codec::Plain, plain_size, &payload).unwrap();
    Taken {
        identity: identity("edge-1"),
        lane: LaneId([1; 16]),
        seq,
        records: batch.records(),
        batch,
        codec: Codec::Plain,
        plain_size,
        payload,
    }
}
