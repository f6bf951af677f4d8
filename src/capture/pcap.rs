//! pcap (draft-ietf-opsawg-pcap): a header, then packets of one link type.
//!
//! ```text
//! header, 24 bytes   magic   version   zone   precision   snap length   link type (low 16 bits)
//! packet             4 seconds   4 micro- or nanoseconds   4 bytes here   4 bytes on the wire   packet
//! ```

use super::{Damage, Item, MAX_ITEM_BYTES, Packet};
use pcap_parser::pcap::{PcapHeader, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_header};

const HEADER_BYTES: usize = 24;
const PACKET_HEADER_BYTES: usize = 16;
/// Where a packet's header says how many bytes follow it.
const LENGTH_OFFSET: usize = 8;

/// Reads packets once the header has come.
#[derive(Default)]
pub(super) struct Reader {
    header: Option<PcapHeader>,
}

impl Reader {
    pub(super) fn item(&mut self, data: &[u8]) -> Result<Item, Damage> {
        let Some(header) = &self.header else {
            if data.len() < HEADER_BYTES {
                return Ok(Item::Need { bytes: HEADER_BYTES, what: "the file's header" });
            }
            let (_, header) = parse_pcap_header(data).map_err(|_| "no pcap header".to_owned())?;
            self.header = Some(header);
            return Ok(Item::Skip(HEADER_BYTES));
        };
        packet(header, data)
    }
}

fn packet(header: &PcapHeader, data: &[u8]) -> Result<Item, Damage> {
    let need = |bytes| Ok(Item::Need { bytes, what: "a packet" });
    let Some(length) = data.get(LENGTH_OFFSET..LENGTH_OFFSET + 4) else { return need(PACKET_HEADER_BYTES) };
    let length: [u8; 4] = length.try_into().unwrap_or_default();
    let length = if header.is_bigendian() { u32::from_be_bytes(length) } else { u32::from_le_bytes(length) };
    let length = length as usize;
    if length > MAX_ITEM_BYTES {
        return Err(format!("a packet of {length} bytes"));
    }
    let block = PACKET_HEADER_BYTES + length;
    if data.len() < block {
        return need(block);
    }
    let parse = if header.is_bigendian() { parse_pcap_frame_be } else { parse_pcap_frame };
    let (_, frame) = parse(data).map_err(|_| "no packet".to_owned())?;
    let milliseconds = frame.ts_usec / if header.is_nanosecond_precision() { 1_000_000 } else { 1_000 };
    Ok(Item::Packet(Packet {
        block,
        bytes: PACKET_HEADER_BYTES..block,
        original: frame.origlen as usize,
        link: (header.network.0 & 0xffff) as u16,
        time: u64::from(frame.ts_sec) * 1_000 + u64::from(milliseconds),
    }))
}
