//! Every prefix, every flipped bit, and bytes of another segment.

use super::super::Stored;
use super::*;
use bytes::Bytes;

const LANE: LaneId = LaneId([0xA1; 16]);

fn shares() -> Vec<Share> {
    let share = |address: &str, port, records| Share {
        exporter: Exporter { address: address.parse().unwrap(), port },
        records,
        domain: 7,
        sequence: 0xFFFF_FFF0,
        last_records: records / 2,
    };
    vec![share("192.0.2.1", 2055, 20), share("2001:db8::5", 9995, 5)]
}

fn batch(payload: &[u8]) -> Stored {
    Stored {
        lane: LANE,
        seq: 3,
        kind: Kind::Records,
        records: 25,
        codec: Codec::Zstd,
        plain_size: 999,
        payload: Bytes::copy_from_slice(payload),
        digest: [1; 16],
        previous_digest: Some([2; 16]),
        received: 1_700_000_000_123,
    }
}

fn totals() -> Totals {
    Totals { batches: 3, records: 70, dropped_records: 4 }
}

fn whole(batch: &Stored, seed: Seed) -> Vec<u8> {
    let mut out = Vec::new();
    let encoded = encode(&mut out, seed, batch, &totals(), &shares());
    assert_eq!(encoded.head_bytes, out.len());
    out.extend_from_slice(&batch.payload);
    out.resize(out.len() + encoded.padding_bytes, 0);
    assert_eq!(out.len(), frame_bytes(&shares(), batch.payload.len()));
    out
}

#[test]
fn a_frame_comes_back() {
    let seed = Seed::new(LANE, 1);
    for len in 0..20 {
        let payload: Vec<u8> = (0..len).collect();
        let one = batch(&payload);
        let bytes = whole(&one, seed);
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let header = check(&bytes, seed).unwrap();
        assert_eq!((header.seq, header.records, header.received), (3, 25, one.received));
        assert_eq!((header.kind, header.codec, header.plain_size), (one.kind, one.codec, 999));
        assert_eq!((header.digest, header.previous_digest), (one.digest, one.previous_digest));
        let notes_end = FRAME_HEADER_BYTES + header.notes_bytes;
        assert_eq!(&bytes[notes_end..notes_end + header.payload_bytes], payload);
        let notes = Notes::decode(&bytes[FRAME_HEADER_BYTES..notes_end]).unwrap();
        assert_eq!(notes, Notes { totals: totals(), shares: shares() });
    }
}

#[test]
fn the_layout_is_the_documented_one() {
    let mut one = batch(b"payload!");
    one.previous_digest = None;
    one.kind = Kind::Raw;
    let bytes = whole(&one, Seed::new(LANE, 1));
    assert_eq!(bytes[..4], [0xF5, 0x0A, 2, 0]);
    assert_eq!(bytes[8..16], 3_u64.to_le_bytes());
    assert_eq!(bytes[16..20], 25_u32.to_le_bytes());
    assert_eq!(bytes[20..28], one.received.to_le_bytes());
    assert_eq!(bytes[32..36], 999_u32.to_le_bytes());
    assert_eq!(bytes[40..48], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[48..64], [1; 16]);
    assert_eq!(bytes[64..80], [0; 16]);
    let notes_bytes = 3 * 8 + 24 + 20 + 32 + 2 * 4;
    assert_eq!(&bytes[80 + notes_bytes..][..8], b"payload!");
}

#[test]
fn no_prefix_passes() {
    let seed = Seed::new(LANE, 1);
    let bytes = whole(&batch(b"some payload"), seed);
    for len in 0..bytes.len() {
        assert_eq!(check(&bytes[..len], seed), Err(Fault::Short), "{len} bytes");
    }
}

#[test]
fn no_flipped_bit_passes() {
    let seed = Seed::new(LANE, 1);
    let good = whole(&batch(b"some payload"), seed);
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(check(&bad, seed).is_err(), "bit {bit}");
    }
}

#[test]
fn frames_of_other_segments_do_not_pass() {
    let bytes = whole(&batch(b"some payload"), Seed::new(LANE, 1));
    for other in [Seed::new(LANE, 2), Seed::new(LaneId([0xA2; 16]), 1), Seed::new(LaneId([0; 16]), 1)] {
        assert_eq!(check(&bytes, other), Err(Fault::Checksum));
    }
}

#[test]
fn impossible_lengths_are_refused_before_anything_is_read() {
    let mut bytes = whole(&batch(b"some payload"), Seed::new(LANE, 1));
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(FrameHeader::peek(&bytes), Err(Fault::Field));
    bytes[4..8].copy_from_slice(&10_u32.to_le_bytes());
    assert_eq!(FrameHeader::peek(&bytes), Err(Fault::Field), "notes longer than all");
}

#[test]
fn notes_of_unknown_kind_are_passed_over() {
    let mut bytes = vec![99, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3];
    put_notes(&mut bytes, &totals(), &shares());
    assert_eq!(Notes::decode(&bytes).unwrap(), Notes { totals: totals(), shares: shares() });
    for len in 1..11 {
        assert!(Notes::decode(&bytes[..len]).is_err());
    }
}

#[test]
fn segment_headers_come_back_or_are_refused() {
    let header = SegmentHeader { lane: LANE, first_seq: 77, created: 5 };
    let good = header.encode();
    assert_eq!(good.len(), SEGMENT_HEADER_BYTES);
    assert_eq!(SegmentHeader::decode(&good), Ok(header));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
    }
    for len in 0..good.len() {
        assert!(SegmentHeader::decode(&good[..len]).is_err());
    }
    let mut newer = good.clone();
    newer[8] = 9;
    let crc = crc32c::crc32c(&newer[..60]);
    newer[60..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(SegmentHeader::decode(&newer), Err(Fault::Newer(9)));
}

#[test]
fn footers_come_back_or_are_refused() {
    let footer = Footer { last_seq: 9, frames: 8, records: 7, end: 6, oldest_received: 5, frames_crc: 4 };
    let seed = Seed::new(LANE, 2);
    let good = footer.encode(seed);
    assert_eq!(good.len(), FOOTER_BYTES);
    assert_eq!(Footer::decode(&good, seed), Ok(footer));
    assert_eq!(Footer::decode(&good, Seed::new(LANE, 3)), Err(Fault::Checksum));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Footer::decode(&bad, seed).is_err(), "bit {bit}");
    }
}
