//! Runs: what records of one datagram have in common.

use super::Exporter;
use crate::proto::{BootQuality, Protocol, SamplingSource, TemplateSource};
use std::net::IpAddr;

/// What belongs to a datagram and so to each of its records (batch.proto, `RunField`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Who sent it.
    pub exporter: Exporter,
    /// The agent that an sFlow datagram names, if it names one; `None` for other protocols.
    pub agent: Option<IpAddr>,
    /// How the records came.
    pub protocol: Protocol,
    /// IPFIX observation domain, NetFlow v9 source id, NetFlow v5 engine_type * 256 + engine_id.
    pub domain: u32,
    /// Template id; 0 for protocols without templates.
    pub template: u16,
    /// The header's sequence number, as sent.
    pub sequence: u32,
    /// The header's export time, in milliseconds since 1970.
    pub export_time: u64,
    /// The header's sysUptime, in milliseconds; 0 for IPFIX, which has none.
    pub uptime: u32,
    /// When the datagram was received, in milliseconds since 1970.
    pub received: u64,
    /// When the exporter started, in milliseconds since 1970; 0 if unknown.
    pub boot_time: u64,
    /// Where `boot_time` comes from.
    pub boot_quality: BootQuality,
    /// One packet in this many was sampled; 0 if unknown.
    pub sampling_rate: u32,
    /// Where `sampling_rate` comes from.
    pub sampling_source: SamplingSource,
    /// How the template is known by which the records were read.
    pub template_source: TemplateSource,
}
