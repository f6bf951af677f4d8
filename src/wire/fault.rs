//! What can be wrong with a datagram, a set or a template.

use thiserror::Error;

/// A fault of what an exporter sent. Its label names the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Fault {
    /// The datagram ends inside its header.
    #[error("the datagram ends inside its header")]
    ShortHeader,
    /// The version field is of no protocol known.
    #[error("the version is of no protocol known")]
    UnknownVersion,
    /// An IPFIX message says that it is shorter than its header.
    #[error("the message's length is shorter than its header")]
    MessageLength,
    /// An IPFIX message says that it is longer than the datagram; the sets that are there are read.
    #[error("the message ends before its length says")]
    CutMessage,
    /// Bytes behind an IPFIX message that are neither padding nor another message.
    #[error("something lies behind the message that is none")]
    TrailingBytes,
    /// An sFlow agent's address is of no family known.
    #[error("the agent's address is of no family known")]
    AgentAddress,
    /// A header of NetFlow v1, v5, v7 or sFlow promises other records or samples than the datagram holds; those that are there are taken.
    #[error("the header's count does not fit the datagram")]
    Count,
    /// A set says that it is shorter than its header or longer than what is left.
    #[error("the set's length does not fit the datagram")]
    SetLength,
    /// A set id that the protocol reserves.
    #[error("the set's id is reserved")]
    ReservedSet,
    /// A data set whose template has not been heard, for as long as the set was held.
    #[error("no template is known for the set")]
    NoTemplate,
    /// A data set whose template has not been heard, and there was no room to hold it, or no longer.
    #[error("no template is known for the set, and there is no room to hold it")]
    HoldFull,
    /// A record of variable length runs over the end of its set; those before it are taken.
    #[error("a record runs over the end of its set")]
    RecordLength,
    /// An sFlow sample says that it is longer than what is left; records of it that are there are taken.
    #[error("the sample's length does not fit the datagram")]
    SampleLength,
    /// A record runs over the end of its sFlow sample, or there are more of them than are kept; others are taken.
    #[error("the sample's records do not fit it")]
    SampleRecord,
    /// A template ends before its fields do.
    #[error("the template ends before its fields do")]
    ShortTemplate,
    /// A template with an id below 256.
    #[error("the template's id is below 256")]
    TemplateId,
    /// A template without fields, or of fields without bytes.
    #[error("the template describes records of no bytes")]
    EmptyTemplate,
    /// More fields than the cap, more of them without bytes, or records longer than a datagram can be.
    #[error("the template is over the limits")]
    LargeTemplate,
    /// An IPFIX options template without scope fields (RFC 7011 3.4.2.2), or with more of them than fields.
    #[error("the options template has no scope fields, or more of them than fields")]
    Scope,
    /// A template that is new or changed, from an address that has told too many of those.
    #[error("the exporter tells more new or changed templates than it may")]
    TemplateRate,
}

impl Fault {
    /// Every fault, for counters to be registered at start.
    pub const ALL: [Fault; 20] = [
        Fault::ShortHeader,
        Fault::UnknownVersion,
        Fault::MessageLength,
        Fault::CutMessage,
        Fault::TrailingBytes,
        Fault::AgentAddress,
        Fault::Count,
        Fault::SetLength,
        Fault::ReservedSet,
        Fault::NoTemplate,
        Fault::HoldFull,
        Fault::RecordLength,
        Fault::SampleLength,
        Fault::SampleRecord,
        Fault::ShortTemplate,
        Fault::TemplateId,
        Fault::EmptyTemplate,
        Fault::LargeTemplate,
        Fault::Scope,
        Fault::TemplateRate,
    ];

    /// The counter's label.
    pub fn label(self) -> &'static str {
        match self {
            Fault::ShortHeader => "short_header",
            Fault::UnknownVersion => "unknown_version",
            Fault::MessageLength => "message_length",
            Fault::CutMessage => "cut_message",
            Fault::TrailingBytes => "trailing_bytes",
            Fault::AgentAddress => "agent_address",
            Fault::Count => "count",
            Fault::SetLength => "set_length",
            Fault::ReservedSet => "reserved_set",
            Fault::NoTemplate => "no_template",
            Fault::HoldFull => "hold_full",
            Fault::RecordLength => "record_length",
            Fault::SampleLength => "sample_length",
            Fault::SampleRecord => "sample_record",
            Fault::ShortTemplate => "short_template",
            Fault::TemplateId => "template_id",
            Fault::EmptyTemplate => "empty_template",
            Fault::LargeTemplate => "large_template",
            Fault::Scope => "scope",
            Fault::TemplateRate => "template_rate",
        }
    }
}
