//! What differs between NetFlow v9 and IPFIX outside of templates: headers, set ids, what sequence numbers count.

/// The protocol that a [`Packer`](super::Packer) writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 3954.
    NetflowV9,
    /// RFC 7011.
    Ipfix,
}

/// What a header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// Bytes of the whole datagram.
    pub(super) bytes: u16,
    /// Records of every kind in it, templates among them.
    pub(super) records: u16,
    /// Of the whole second in `seconds`, milliseconds since the boot.
    pub(super) uptime: u32,
    /// Since 1970.
    pub(super) seconds: u32,
    pub(super) sequence: u32,
    pub(super) domain: u32,
}

impl Version {
    pub(super) fn header_bytes(self) -> usize {
        match self {
            Version::NetflowV9 => 20,
            Version::Ipfix => 16,
        }
    }

    pub(super) fn template_set(self) -> u16 {
        match self {
            Version::NetflowV9 => 0,
            Version::Ipfix => 2,
        }
    }

    pub(super) fn options_template_set(self) -> u16 {
        match self {
            Version::NetflowV9 => 1,
            Version::Ipfix => 3,
        }
    }

    /// What the next datagram's sequence number is ahead by, after one with so many data and options records.
    pub(super) fn sequence_step(self, data_records: u32) -> u32 {
        match self {
            // RFC 3954 5.1: export packets.
            Version::NetflowV9 => 1,
            // RFC 7011 3.1: Data Records, those of options among them; templates do not increase it.
            Version::Ipfix => data_records,
        }
    }

    pub(super) fn write_header(self, header: Header, to: &mut Vec<u8>) {
        match self {
            Version::NetflowV9 => {
                to.extend_from_slice(&9u16.to_be_bytes());
                to.extend_from_slice(&header.records.to_be_bytes());
                to.extend_from_slice(&header.uptime.to_be_bytes());
            }
            Version::Ipfix => {
                to.extend_from_slice(&10u16.to_be_bytes());
                to.extend_from_slice(&header.bytes.to_be_bytes());
            }
        }
        to.extend_from_slice(&header.seconds.to_be_bytes());
        to.extend_from_slice(&header.sequence.to_be_bytes());
        to.extend_from_slice(&header.domain.to_be_bytes());
    }
}
