//! Numbers of interfaces in records: which fields have them, and which numbers are no ifIndex.

use super::{Field, SFLOW};
use crate::proto::RecordKind;

/// A field that has the number of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// ingressInterface, 10.
    Ingress,
    /// egressInterface, 14.
    Egress,
    /// ingressPhysicalInterface, 252.
    PhysicalIngress,
    /// egressPhysicalInterface, 253.
    PhysicalEgress,
    /// sFlow's ifIndex: whose counters the record has.
    Counted,
}

impl End {
    /// What the field is; `None` if it has no interface.
    pub fn of(field: Field) -> Option<End> {
        match (field.enterprise, field.element) {
            (0, 10) => Some(End::Ingress),
            (0, 14) => Some(End::Egress),
            (0, 252) => Some(End::PhysicalIngress),
            (0, 253) => Some(End::PhysicalEgress),
            (SFLOW, 101) => Some(End::Counted),
            _ => None,
        }
    }

    /// The element of sFlow that says, where it stands beside this one, that the number is no ifIndex.
    pub fn format(self) -> Option<(u32, u16)> {
        match self {
            End::Ingress => Some((SFLOW, 7)),
            End::Egress => Some((SFLOW, 8)),
            _ => None,
        }
    }

    /// How many different ones the fields have.
    pub fn count(fields: impl Iterator<Item = Field>) -> usize {
        let ends = fields.filter_map(End::of).fold(0u8, |ends, end| ends | 1 << end as u8);
        ends.count_ones() as usize
    }
}

/// A number that stands where an ifIndex does, and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// 0, or a format of sFlow's that nobody has defined.
    Unknown,
    /// sFlow's 0x3FFFFFFF: the device itself.
    Internal,
    /// sFlow's format 2: so many interfaces.
    Multiple,
    /// sFlow's format 1: thrown away, for this reason.
    Discarded,
}

/// sFlow version 5, "interface": the device itself sent or took the packet.
const INTERNAL: u64 = 0x3fff_ffff;

impl Special {
    /// What a number says in records of the kind; `None`: it is an ifIndex.
    ///
    /// `format` is what the field that [`End::format`] names has, if there is one. Only of samples do large numbers
    /// mean anything: elsewhere, and where an expanded sample says so, they are those of large devices.
    pub fn of(kind: RecordKind, number: u64, format: Option<u64>) -> Option<Special> {
        let format = format.filter(|_| is_of_sflow(kind)).unwrap_or(0);
        match (format, number) {
            (0, 0) => Some(Special::Unknown),
            (0, INTERNAL) if is_of_sflow(kind) => Some(Special::Internal),
            (0, _) => None,
            (1, _) => Some(Special::Discarded),
            (2, _) => Some(Special::Multiple),
            _ => Some(Special::Unknown),
        }
    }

    /// What is written for it where an interface's name would be.
    pub fn word(self) -> &'static str {
        match self {
            Special::Unknown => "unknown",
            Special::Internal => "internal",
            Special::Multiple => "multiple",
            Special::Discarded => "discarded",
        }
    }
}

fn is_of_sflow(kind: RecordKind) -> bool {
    matches!(kind, RecordKind::FlowSample | RecordKind::CounterSample | RecordKind::DropSample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_special_in_samples_alone() {
        let data = |number| Special::of(RecordKind::Data, number, None);
        assert_eq!(data(0), Some(Special::Unknown));
        assert_eq!([INTERNAL, 0x8000_0002, 0x4000_0102].map(data), [None; 3]);
        let sample = |number, format| Special::of(RecordKind::FlowSample, number, format);
        assert_eq!(sample(INTERNAL, None), Some(Special::Internal));
        assert_eq!(sample(0x8000_0002, Some(2)), Some(Special::Multiple));
        assert_eq!(sample(0x4000_0102, Some(1)), Some(Special::Discarded));
        assert_eq!(sample(0x102, Some(3)), Some(Special::Unknown));
        // An expanded sample's index has all bits.
        assert_eq!(sample(0x9600_0063, None), None);
        assert_eq!(Special::of(RecordKind::Data, 7, Some(2)), None);
    }

    #[test]
    fn ends_count_once() {
        let field = |enterprise, element| Field { enterprise, element, width: 4 };
        let fields = [field(0, 10), field(0, 14), field(0, 10), field(9, 14), field(0, 8), field(SFLOW, 101)];
        assert_eq!(End::count(fields.into_iter()), 3);
    }
}
