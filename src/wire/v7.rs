//! NetFlow v7, of Catalyst switches (Cisco, "NetFlow Export Datagram Format", version 7).
//!
//! ```text
//! header, 24 bytes                                record, 52 bytes
//!  0 version = 7        2 count                    0 to 35 as in v5, see `v5.rs`
//!  4 sysUptime (ms)                               36 flags: which fields the switch does not know
//!  8 unix_secs         12 unix_nsecs              37 tcp_flags  38 prot  39 tos
//! 16 flow_sequence (counts flows)                 40 src_as     42 dst_as
//! 20 reserved                                     44 src_mask   45 dst_mask   46 flags
//!                                                 48 router_sc: the router that the switch spares
//! ```
//!
//! The flags and router_sc have no information element and are left out.

use super::cursor::{Cursor, Short};
use super::template::Template;
use super::{Arrival, Decoder, Fault, Output};
use super::{fixed, v5};
use crate::flow::Run;
use crate::proto::Protocol;

const RECORD_BYTES: usize = 52;

/// The layout that every v7 record has.
pub(super) fn template() -> Template {
    fixed::template(&v5::FIELDS, RECORD_BYTES)
}

/// Reads a datagram whose version has been read.
pub(super) fn datagram(
    decoder: &mut Decoder,
    arrival: &Arrival,
    mut cursor: Cursor<'_>,
    output: &mut impl Output,
) -> Result<(), Fault> {
    let (count, mut run) = header(arrival, &mut cursor).map_err(|Short| Fault::ShortHeader)?;
    decoder.domains.rate_set(&mut run);
    fixed::records(&decoder.fixed.v7, &mut decoder.tracks, arrival, &run, count, cursor, output);
    Ok(())
}

fn header(arrival: &Arrival, cursor: &mut Cursor<'_>) -> Result<(usize, Run), Short> {
    let (count, run) = fixed::times(Protocol::NetflowV7, arrival, cursor)?;
    let sequence = cursor.u32()?;
    let _reserved = cursor.u32()?;
    Ok((count, Run { sequence, ..run }))
}
