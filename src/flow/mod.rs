//! The nouns of flow: who sent records, by which protocol, of which layout.
//!
//! Pure: no socket, clock, log or metric. Reading bytes off the wire is `wire`'s, columns are `batch`'s.

use std::net::IpAddr;

/// A sender of flow: its address (IPv4-mapped IPv6 addresses are IPv4 here) and source port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Exporter {
    /// The source address of its datagrams, or of its connection.
    pub address: IpAddr,
    /// The source port of its datagrams, or of its connection.
    pub port: u16,
}

/// One field of a record, as a template names it (RFC 7011 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// Private enterprise number; 0 is IANA's registry.
    pub enterprise: u32,
    /// Information element (in scope fields of NetFlow v9 the scope type).
    pub element: u16,
    /// Bytes on the wire; [`Field::VARIABLE`] when each record says so itself.
    pub width: u16,
}

impl Field {
    /// The width of fields of variable length (RFC 7011 section 7).
    pub const VARIABLE: u16 = 65_535;
}

pub mod element;
pub mod interface;
pub mod json;
pub mod list;
pub mod packet;
pub mod record;
pub mod time;

mod elements;
mod layout;
mod run;
mod sflow_elements;
mod vendor_elements;

pub use layout::{Layout, Placed, Slot};
pub use run::Run;
pub use sflow_elements::SFLOW;
