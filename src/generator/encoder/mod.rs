//! Writes NetFlow version 9 (RFC 3954) and IPFIX (RFC 7011): templates, records, datagrams.
//!
//! Pure: values and times in, datagrams out. Sockets and clocks are the parent module's. Three parts:
//! [`Template`] says which fields a record has, [`Value`]s are a record, [`Packer`] makes datagrams of them, of the
//! [`Version`] that it is set to.
//!
//! ```text
//! NetFlow v9                                     IPFIX
//!  0 version = 9                                  0 version = 10
//!  2 count: records of every kind in the          2 length: bytes of the message
//!    datagram, templates among them               4 export time (s)
//!  4 sysUptime (ms since the boot)                8 sequence number: counts data and options records
//!  8 unix_secs                                   12 observation domain
//! 12 sequence number: counts datagrams
//! 16 source id
//! then sets:
//! +-------------------------------+-------------------------------+
//! |            set id             |    length, with the padding   |  v9: 0 templates, 1 options templates
//! +-------------------------------+-------------------------------+  IPFIX: 2 templates, 3 options templates
//! |                        records, padding                       |  256..: records of that template
//! +---------------------------------------------------------------+
//! ```
//!
//! | when | then |
//! |---|---|
//! | first record, the timer, or N datagrams since | the datagram starts with templates and announced options |
//! | nothing to send | nothing is sent, templates neither: they always come with records after them |
//! | a record does not fit | the datagram is handed out, the record opens the next one |
//! | several templates in use | a datagram has one set for each, in the order of the templates |
//! | the oldest record waited `max_delay` | [`Packer::poll`] hands the datagram out |
//! | a record could be as short as the padding (IPFIX) | its set has none: it would be read as records (RFC 7011 3.3.1) |
//! | v9, with what only IPFIX has (enterprise fields, variable length) | the template is refused |
//!
//! v9's two clocks name the same instant: `sysUptime` is that of the whole second in `unix_secs`. A collector that
//! takes one from the other finds the same boot time, to the millisecond, in every datagram.

mod packer;
mod template;
#[cfg(test)]
mod tests;
mod version;

pub use packer::{Datagram, Packer, Settings};
pub use template::{Template, Value};
pub use version::Version;

/// Information elements by their names in RFC 3954 section 8.
pub mod element {
    /// Bytes of the flow, inbound.
    pub const IN_BYTES: u16 = 1;
    /// Packets of the flow, inbound.
    pub const IN_PKTS: u16 = 2;
    /// IP protocol.
    pub const PROTOCOL: u16 = 4;
    /// Type of service of the packet that came in.
    pub const SRC_TOS: u16 = 5;
    /// All TCP flags seen, or-ed.
    pub const TCP_FLAGS: u16 = 6;
    /// Source port.
    pub const L4_SRC_PORT: u16 = 7;
    /// IPv4 source address.
    pub const IPV4_SRC_ADDR: u16 = 8;
    /// Number of the interface in.
    pub const INPUT_SNMP: u16 = 10;
    /// Destination port; type and code of ICMP.
    pub const L4_DST_PORT: u16 = 11;
    /// IPv4 destination address.
    pub const IPV4_DST_ADDR: u16 = 12;
    /// Number of the interface out.
    pub const OUTPUT_SNMP: u16 = 14;
    /// Uptime at the flow's last packet, milliseconds.
    pub const LAST_SWITCHED: u16 = 21;
    /// Uptime at the flow's first packet, milliseconds.
    pub const FIRST_SWITCHED: u16 = 22;
    /// Bytes of the flow, outbound.
    pub const OUT_BYTES: u16 = 23;
    /// Packets of the flow, outbound.
    pub const OUT_PKTS: u16 = 24;
    /// IPv6 source address.
    pub const IPV6_SRC_ADDR: u16 = 27;
    /// IPv6 destination address.
    pub const IPV6_DST_ADDR: u16 = 28;
    /// ICMP type * 256 + code.
    pub const ICMP_TYPE: u16 = 32;
    /// One packet in this many was looked at.
    pub const SAMPLING_INTERVAL: u16 = 34;
    /// 1 every n-th packet, 2 at random.
    pub const SAMPLING_ALGORITHM: u16 = 35;
    /// Short name of an interface.
    pub const IF_NAME: u16 = 82;
    /// Long name of an interface.
    pub const IF_DESC: u16 = 83;
    /// A number that names the flow (IANA `flowId`).
    pub const FLOW_ID: u16 = 148;
    /// The observation domain itself, as a scope of IPFIX (IANA `observationDomainId`).
    pub const OBSERVATION_DOMAIN: u16 = 149;
    /// The flow's first packet, milliseconds since 1970 (IANA `flowStartMilliseconds`).
    pub const FLOW_START_MILLISECONDS: u16 = 152;
    /// The flow's last packet, milliseconds since 1970 (IANA `flowEndMilliseconds`).
    pub const FLOW_END_MILLISECONDS: u16 = 153;
}

/// Scope types of v9's options templates (RFC 3954 section 6.1). IPFIX scopes are elements.
pub mod scope {
    /// The whole exporter.
    pub const SYSTEM: u16 = 1;
    /// One interface, by its number.
    pub const INTERFACE: u16 = 2;
}

/// What the caller got wrong. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Ids below 256 are the standard's.
    #[error("template id {id}: the lowest is 256")]
    TemplateId {
        /// As given.
        id: u16,
    },
    /// Two templates of one id.
    #[error("template {id} is there twice")]
    TemplateTwice {
        /// As given.
        id: u16,
    },
    /// A record could be taken for padding, or does not fit into a datagram.
    #[error("template {id}: a record has {bytes} bytes, allowed are {least} to {most}")]
    RecordBytes {
        /// Of the template.
        id: u16,
        /// Of a record.
        bytes: usize,
        /// The fewest that cannot be padding.
        least: usize,
        /// The most that fit.
        most: usize,
    },
    /// The template itself does not fit into a datagram.
    #[error("template {id} has more fields than fit into a datagram")]
    TemplateBytes {
        /// Of the template.
        id: u16,
    },
    /// A field that the protocol has no form for: in v9 one of an enterprise or of variable length, in IPFIX one whose
    /// element is above 32,767.
    #[error("template {id}: the protocol has no form for element {element}")]
    FieldForm {
        /// Of the template.
        id: u16,
        /// Of the field.
        element: u16,
    },
    /// No such template was given to [`Packer::new`].
    #[error("no template {id}")]
    NoTemplate {
        /// As given.
        id: u16,
    },
    /// Options were written as flow records, or the other way round.
    #[error("template {id} is of the other kind (flow records, options)")]
    OtherKind {
        /// As given.
        id: u16,
    },
    /// Not one value for each field.
    #[error("template {id} has {fields} fields, {values} values were given")]
    ValueCount {
        /// Of the template.
        id: u16,
        /// How many it has.
        fields: usize,
        /// How many came.
        values: usize,
    },
    /// A value that its field cannot hold.
    #[error("template {id}: the value for element {element} does not fit into {width} bytes")]
    ValueWidth {
        /// Of the template.
        id: u16,
        /// Of the field.
        element: u16,
        /// Of the field.
        width: u16,
    },
}
