//! Link layers: what stands before the IP header, by the capture's link type
//! (<https://www.tcpdump.org/linktypes.html>).
//!
//! | type | what | before the IP header |
//! |---|---|---|
//! | 0, 108 | BSD loopback | 4 bytes address family, in the byte order of the host or of the network |
//! | 1 | Ethernet | 12 bytes addresses, tags of 4 bytes (802.1Q, 802.1ad), 2 bytes type |
//! | 12, 14, 101, 228, 229 | raw IP | nothing |
//! | 113 | Linux cooked | 16 bytes, type at 14; tags may follow |
//! | 276 | Linux cooked, version 2 | 20 bytes, type at 0; tags may follow |

use super::Unread;

const ETHER_IPV4: u16 = 0x0800;
const ETHER_IPV6: u16 = 0x86dd;
const TAG_BYTES: usize = 4;

/// What follows the link layer: an IPv4 or IPv6 packet, as its type says.
pub(super) fn network(link: u16, frame: &[u8]) -> Result<&[u8], Unread> {
    match link {
        0 | 108 => loopback(frame),
        1 => ether(frame, 12, 14),
        12 | 14 | 101 | 228 | 229 => Ok(frame),
        113 => ether(frame, 14, 16),
        276 => ether(frame, 0, 20),
        _ => Err(Unread::UnknownLink),
    }
}

/// The packet behind an Ethernet type that stands at `type_at`, and behind the tags that follow the header.
fn ether(frame: &[u8], type_at: usize, header: usize) -> Result<&[u8], Unread> {
    let mut ether_type = u16_at(frame, type_at).ok_or(Unread::Malformed)?;
    let mut at = header;
    // 802.1Q, 802.1ad, and what was used before that.
    while matches!(ether_type, 0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300) {
        ether_type = u16_at(frame, at + 2).ok_or(Unread::Malformed)?;
        at += TAG_BYTES;
    }
    match ether_type {
        ETHER_IPV4 | ETHER_IPV6 => frame.get(at..).ok_or(Unread::Malformed),
        _ => Err(Unread::NotIp),
    }
}

fn loopback(frame: &[u8]) -> Result<&[u8], Unread> {
    let family: [u8; 4] = frame.get(..4).and_then(|four| four.try_into().ok()).ok_or(Unread::Malformed)?;
    // 2 is IPv4 everywhere; IPv6 has another number on each system.
    let is_ip = |family| matches!(family, 2 | 10 | 24 | 28 | 30);
    if is_ip(u32::from_be_bytes(family)) || is_ip(u32::from_le_bytes(family)) {
        return frame.get(4..).ok_or(Unread::Malformed);
    }
    Err(Unread::NotIp)
}

fn u16_at(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..at + 2).and_then(|two| two.try_into().ok()).map(u16::from_be_bytes)
}
