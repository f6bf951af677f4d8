//! IPFIX files (RFC 5655): messages back to back, as an exporter would send them.
//!
//! ```text
//! message   0 version = 10   2 length   4 export time (s)   8 sequence   12 observation domain   sets ...
//! ```

use super::{Damage, Item};

const VERSION: u16 = 10;
const HEADER_BYTES: usize = 16;

pub(super) fn item(data: &[u8]) -> Result<Item, Damage> {
    let &[v1, v2, l1, l2, t1, t2, t3, t4, ..] = data else {
        return Ok(Item::Need { bytes: HEADER_BYTES, what: "a message" });
    };
    let version = u16::from_be_bytes([v1, v2]);
    if version != VERSION {
        return Err(format!("a message of version {version}, which is not IPFIX"));
    }
    let bytes = usize::from(u16::from_be_bytes([l1, l2]));
    if bytes < HEADER_BYTES {
        return Err(format!("a message of {bytes} bytes, less than its header"));
    }
    if data.len() < bytes {
        return Ok(Item::Need { bytes, what: "a message" });
    }
    let exported = u64::from(u32::from_be_bytes([t1, t2, t3, t4])) * 1_000;
    Ok(Item::Message { bytes, exported })
}
