//! pcapng (draft-ietf-opsawg-pcapng): blocks, of which some describe interfaces and some hold packets.
//!
//! ```text
//! block      4 type   4 length of the block   content ...   4 length again
//! section header (0x0a0d0d0a)   says the byte order; interfaces are numbered anew in each section
//! interface description (1)     link type, snap length; options: resolution and offset of times
//! enhanced packet (6)           interface, time, lengths, packet
//! simple packet (3)             length, packet: of the first interface, without a time
//! packet (2, obsolete)          as the enhanced one, with an interface of two bytes
//! ```
//!
//! Other blocks are skipped, and so are packets of an interface that no block describes, which are counted.

use super::{Damage, Item, MAX_ITEM_BYTES, Packet};
use pcap_parser::pcapng::{
    EnhancedPacketBlock, InterfaceDescriptionBlock, OptionCode, SimplePacketBlock,
    parse_enhancedpacketblock_be, parse_enhancedpacketblock_le, parse_interfacedescriptionblock_be,
    parse_interfacedescriptionblock_le, parse_sectionheaderblock, parse_simplepacketblock_be,
    parse_simplepacketblock_le,
};
use std::ops::Range;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Type, length and byte order magic: what must be there to know a block's length.
const START_BYTES: usize = 12;
/// Where packets begin in their blocks.
const ENHANCED_OFFSET: usize = 28;
const SIMPLE_OFFSET: usize = 12;
/// Interfaces of one section that are kept; a file that describes more is none of a capture.
const MAX_INTERFACES: usize = 65_536;

/// What is known of the section in hand.
#[derive(Default)]
pub(super) struct Reader {
    is_big_endian: bool,
    interfaces: Vec<Interface>,
    /// The time of the packet before, for those without one.
    time: u64,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u16,
    snap_bytes: usize,
    /// The unit of times: 10 or 2 to the power of this is one second.
    resolution: u8,
    offset_seconds: i64,
}

impl Interface {
    /// Milliseconds since 1970 of a time in the interface's units.
    fn milliseconds(&self, time: u64) -> u64 {
        let time = u128::from(time) * 1_000;
        let exponent = u32::from(self.resolution & 0x7f);
        let units = if self.resolution & 0x80 == 0 {
            10u128.checked_pow(exponent)
        } else {
            1u128.checked_shl(exponent)
        };
        let since = units.map_or(0, |units| time / units);
        let milliseconds = i128::try_from(since)
            .unwrap_or(i128::MAX)
            .saturating_add(i128::from(self.offset_seconds) * 1_000);
        milliseconds.clamp(0, i128::from(u64::MAX)) as u64
    }
}

impl Reader {
    pub(super) fn item(&mut self, data: &[u8]) -> Result<Item, Damage> {
        if data.len() < START_BYTES {
            return Ok(Item::Need { bytes: START_BYTES, what: "a block" });
        }
        let is_section = self.u32(data, 0) == SECTION_HEADER;
        if is_section {
            self.is_big_endian = match data.get(8..12) {
                Some([0x1a, 0x2b, 0x3c, 0x4d]) => true,
                Some([0x4d, 0x3c, 0x2b, 0x1a]) => false,
                _ => return Err("a section header without a byte order".to_owned()),
            };
        }
        let (kind, length) = (self.u32(data, 0), self.u32(data, 4) as usize);
        if length < START_BYTES {
            return Err(format!("a block of {length} bytes"));
        }
        let is_read = matches!(
            kind,
            SECTION_HEADER | INTERFACE_DESCRIPTION | OBSOLETE_PACKET | SIMPLE_PACKET | ENHANCED_PACKET
        );
        if !is_read {
            return Ok(Item::Skip(length));
        }
        if length > MAX_ITEM_BYTES {
            return Err(format!("a block of {length} bytes"));
        }
        let Some(block) = data.get(..length) else {
            return Ok(Item::Need { bytes: length, what: "a block" });
        };
        self.block(kind, block)
    }

    fn block(&mut self, kind: u32, block: &[u8]) -> Result<Item, Damage> {
        let damaged = |what: &str| format!("{what} of {} bytes that does not hold together", block.len());
        let skip = Ok(Item::Skip(block.len()));
        match kind {
            SECTION_HEADER => {
                parse_sectionheaderblock(block).map_err(|_| damaged("a section header"))?;
                self.interfaces.clear();
                skip
            }
            INTERFACE_DESCRIPTION => {
                let parse = if self.is_big_endian {
                    parse_interfacedescriptionblock_be
                } else {
                    parse_interfacedescriptionblock_le
                };
                let (_, interface) = parse(block).map_err(|_| damaged("an interface description"))?;
                if self.interfaces.len() == MAX_INTERFACES {
                    return Err(format!("more than {MAX_INTERFACES} interfaces"));
                }
                self.interfaces.push(self.interface(&interface));
                skip
            }
            SIMPLE_PACKET => {
                let parse =
                    if self.is_big_endian { parse_simplepacketblock_be } else { parse_simplepacketblock_le };
                let (_, packet) = parse(block).map_err(|_| damaged("a packet"))?;
                Ok(self.simple(&packet))
            }
            ENHANCED_PACKET => {
                let parse = if self.is_big_endian {
                    parse_enhancedpacketblock_be
                } else {
                    parse_enhancedpacketblock_le
                };
                let (_, packet) = parse(block).map_err(|_| damaged("a packet"))?;
                Ok(self.enhanced(&packet))
            }
            _ => self.obsolete(block).ok_or_else(|| damaged("a packet")),
        }
    }

    fn interface(&self, block: &InterfaceDescriptionBlock<'_>) -> Interface {
        let offset = block.options.iter().find(|option| option.code == OptionCode::IfTsoffset);
        let offset = offset.and_then(|option| <[u8; 8]>::try_from(option.value()).ok());
        let in_order =
            |bytes| if self.is_big_endian { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) };
        Interface {
            link: block.linktype.0 as u16,
            snap_bytes: block.snaplen as usize,
            resolution: block.if_tsresol,
            offset_seconds: offset.map_or(0, in_order),
        }
    }

    fn simple(&self, packet: &SimplePacketBlock<'_>) -> Item {
        let Some(&interface) = self.interfaces.first() else {
            return Item::Undescribed(packet.block_len1 as usize);
        };
        let original = packet.origlen as usize;
        let snap = if interface.snap_bytes == 0 { usize::MAX } else { interface.snap_bytes };
        let here = original.min(snap).min(packet.data.len());
        let bytes = SIMPLE_OFFSET..SIMPLE_OFFSET + here;
        self.packet(packet.block_len1, bytes, original, interface, self.time)
    }

    fn enhanced(&mut self, packet: &EnhancedPacketBlock<'_>) -> Item {
        let Some(&interface) = self.interfaces.get(packet.if_id as usize) else {
            return Item::Undescribed(packet.block_len1 as usize);
        };
        self.time = interface.milliseconds(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low));
        let here = (packet.caplen as usize).min(packet.data.len());
        let bytes = ENHANCED_OFFSET..ENHANCED_OFFSET + here;
        self.packet(packet.block_len1, bytes, packet.origlen as usize, interface, self.time)
    }

    /// The packet of an obsolete block; `None` if it is longer than the block.
    fn obsolete(&mut self, block: &[u8]) -> Option<Item> {
        let two: [u8; 2] = block.get(8..10)?.try_into().ok()?;
        let place = if self.is_big_endian { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) };
        let here = self.u32(block, 20) as usize;
        let end = ENHANCED_OFFSET.checked_add(here).filter(|end| *end + 4 <= block.len())?;
        let Some(&interface) = self.interfaces.get(usize::from(place)) else {
            return Some(Item::Undescribed(block.len()));
        };
        self.time =
            interface.milliseconds(u64::from(self.u32(block, 12)) << 32 | u64::from(self.u32(block, 16)));
        let original = self.u32(block, 24) as usize;
        Some(self.packet(block.len() as u32, ENHANCED_OFFSET..end, original, interface, self.time))
    }

    fn packet(
        &self,
        block: u32,
        bytes: Range<usize>,
        original: usize,
        interface: Interface,
        time: u64,
    ) -> Item {
        Item::Packet(Packet { block: block as usize, bytes, original, link: interface.link, time })
    }

    /// A number of four bytes; 0 where there are none.
    fn u32(&self, data: &[u8], at: usize) -> u32 {
        let four = data.get(at..at + 4).and_then(|four| four.try_into().ok()).unwrap_or_default();
        if self.is_big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
    }
}
