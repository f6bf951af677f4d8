//! Lists inside a field (RFC 6313): their bytes, cut up.
//!
//! ```text
//! basicList (291)             0 semantic    1 element, high bit: enterprise    3 length    5 enterprise if so
//!                             values back to back; each with its own length in front if the length is 65535
//! subTemplateList (292)       0 semantic    1 template id    3 records
//! subTemplateMultiList (293)  0 semantic    1 parts: 0 template id    2 length, this header included    4 records
//! ```
//!
//! A list says nothing of its own length: that is the field's. The records are of a template that the exporter has sent
//! apart; who has it cuts them with [`take_value`], field by field. Nothing here allocates, and each step takes at
//! least a byte or ends.
//!
//! | if | then |
//! |---|---|
//! | a list ends inside its header, or a part inside its length | it is no list |
//! | values of no bytes stand in a basicList | none of them: it is no list unless its content is empty |

use super::element::Type;
use super::{Field, Layout};
use std::sync::Arc;

/// How deep lists in lists are followed.
pub const MAX_DEPTH: usize = 8;

/// A template that a list names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its id.
    pub id: u16,
    /// What the exporter said it is; `None` if that is not known.
    pub layout: Option<Arc<Layout>>,
}

/// What kind of list a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 6313's own words")]
pub enum Kind {
    Basic,
    SubTemplate,
    SubTemplateMulti,
}

impl Kind {
    /// The kind that the field's element has; `None` if it is no list.
    pub fn of(field: Field) -> Option<Kind> {
        match field.element_type()? {
            Type::BasicList => Some(Kind::Basic),
            Type::SubTemplateList => Some(Kind::SubTemplate),
            Type::SubTemplateMultiList => Some(Kind::SubTemplateMulti),
            _ => None,
        }
    }
}

/// The name of a list's semantic (RFC 6313 section 4.4); `None` if it has none.
pub fn semantic_name(semantic: u8) -> Option<&'static str> {
    Some(match semantic {
        0 => "noneOf",
        1 => "exactlyOneOf",
        2 => "oneOrMoreOf",
        3 => "allOf",
        4 => "ordered",
        255 => "undefined",
        _ => return None,
    })
}

/// A basicList: values of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basic<'a> {
    /// How the values go together.
    pub semantic: u8,
    /// What each value is.
    pub field: Field,
    /// The values, back to back: none, or of some width.
    pub values: &'a [u8],
}

/// A subTemplateList: records of one template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubTemplate<'a> {
    /// How the records go together.
    pub semantic: u8,
    /// Their template and bytes.
    pub part: Part<'a>,
}

/// A subTemplateMultiList: records of several templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubTemplateMulti<'a> {
    /// How the records go together.
    pub semantic: u8,
    /// The parts, one after the other.
    rest: &'a [u8],
}

/// Records of one template inside a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The template's id.
    pub template: u16,
    /// The records, back to back.
    pub records: &'a [u8],
}

const ENTERPRISE_BIT: u16 = 0x8000;
const PART_HEADER_BYTES: usize = 4;

/// Reads the value of a basicList.
pub fn basic(value: &[u8]) -> Option<Basic<'_>> {
    let mut rest = value;
    let semantic = take::<1>(&mut rest)?[0];
    let element = u16::from_be_bytes(take(&mut rest)?);
    let width = u16::from_be_bytes(take(&mut rest)?);
    let enterprise = match element & ENTERPRISE_BIT {
        0 => 0,
        _ => u32::from_be_bytes(take(&mut rest)?),
    };
    let field = Field { enterprise, element: element & !ENTERPRISE_BIT, width };
    (width != 0 || rest.is_empty()).then_some(Basic { semantic, field, values: rest })
}

/// Reads the value of a subTemplateList.
pub fn sub_template(value: &[u8]) -> Option<SubTemplate<'_>> {
    let mut rest = value;
    let semantic = take::<1>(&mut rest)?[0];
    let template = u16::from_be_bytes(take(&mut rest)?);
    Some(SubTemplate { semantic, part: Part { template, records: rest } })
}

/// Reads the value of a subTemplateMultiList; `None` also if its parts do not fill it.
pub fn sub_template_multi(value: &[u8]) -> Option<SubTemplateMulti<'_>> {
    let (&semantic, rest) = value.split_first()?;
    let list = SubTemplateMulti { semantic, rest };
    let taken: usize = list.parts().map(|part| PART_HEADER_BYTES + part.records.len()).sum();
    (taken == rest.len()).then_some(list)
}

impl<'a> SubTemplateMulti<'a> {
    /// Its parts, in order; none after one that does not fit.
    pub fn parts(&self) -> impl Iterator<Item = Part<'a>> + use<'a> {
        let mut rest = self.rest;
        std::iter::from_fn(move || {
            let template = u16::from_be_bytes(take(&mut rest)?);
            let length = usize::from(u16::from_be_bytes(take(&mut rest)?));
            let (records, after) = rest.split_at_checked(length.checked_sub(PART_HEADER_BYTES)?)?;
            rest = after;
            Some(Part { template, records })
        })
    }
}

/// Takes a field's value from the front, its length too if that is in front of it (RFC 7011 section 7).
pub fn take_value<'a>(rest: &mut &'a [u8], width: u16) -> Option<&'a [u8]> {
    let length = match width {
        Field::VARIABLE => match take::<1>(rest)?[0] {
            255 => usize::from(u16::from_be_bytes(take(rest)?)),
            short => usize::from(short),
        },
        fixed => usize::from(fixed),
    };
    let (value, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(value)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_basic_list() {
        // allOf, destinationTransportPort in two bytes: 80, 443.
        let list = basic(&[3, 0, 11, 0, 2, 0, 80, 1, 187]).unwrap();
        let field = Field { enterprise: 0, element: 11, width: 2 };
        assert_eq!(list, Basic { semantic: 3, field, values: &[0, 80, 1, 187] });
        // ordered, element 40 of CERT in variable length: "a", "".
        let list = basic(&[4, 0x80, 40, 255, 255, 0, 0, 0x1a, 0xd7, 1, b'a', 0]).unwrap();
        assert_eq!(list.field, Field { enterprise: 6_871, element: 40, width: Field::VARIABLE });
        let mut rest = list.values;
        assert_eq!(take_value(&mut rest, list.field.width), Some(b"a".as_slice()));
        assert_eq!(take_value(&mut rest, list.field.width), Some(b"".as_slice()));
        assert_eq!(take_value(&mut rest, list.field.width), None);
    }

    #[test]
    fn lists_of_records() {
        let list = sub_template(&[1, 1, 44, 9, 8]).unwrap();
        assert_eq!(list, SubTemplate { semantic: 1, part: Part { template: 300, records: &[9, 8] } });
        let list = sub_template_multi(&[3, 1, 44, 0, 6, 9, 8, 1, 45, 0, 4]).unwrap();
        let parts: Vec<_> = list.parts().collect();
        let expected = [Part { template: 300, records: &[9, 8] }, Part { template: 301, records: &[] }];
        assert_eq!((list.semantic, parts.as_slice()), (3, expected.as_slice()));
        assert_eq!(sub_template_multi(&[3]).unwrap().parts().count(), 0);
    }

    #[test]
    fn what_is_no_list() {
        for length in 0..5 {
            assert_eq!(basic(&[3, 0, 11, 0, 2][..length]), None);
        }
        assert_eq!(basic(&[3, 0x80, 11, 0, 2, 0, 0, 0]), None);
        // Values of no bytes, without end.
        assert_eq!(basic(&[3, 0, 11, 0, 0, 1]), None);
        assert!(basic(&[3, 0, 11, 0, 0]).is_some());
        assert_eq!(sub_template(&[3, 1]), None);
        // A part that ends inside its header, one shorter than that, one longer than the list.
        for part in [&[1, 44, 0][..], &[1, 44, 0, 3], &[1, 44, 0, 6, 1]] {
            assert_eq!(sub_template_multi(&[&[3], part].concat()), None);
        }
    }

    #[test]
    fn lengths_in_front_of_values() {
        let long = [&[255, 1, 0][..], &[7; 256]].concat();
        let mut rest = long.as_slice();
        assert_eq!(take_value(&mut rest, Field::VARIABLE).unwrap().len(), 256);
        for short in [&[][..], &[2, 1], &[255, 0], &[255, 0, 2, 1]] {
            assert_eq!(take_value(&mut &short[..], Field::VARIABLE), None);
        }
        assert_eq!(take_value(&mut [1].as_slice(), 2), None);
    }

    #[test]
    fn fields_that_hold_lists() {
        let kind = |enterprise, element| Kind::of(Field { enterprise, element, width: 9 });
        assert_eq!(kind(0, 291), Some(Kind::Basic));
        assert_eq!(kind(0, 292), Some(Kind::SubTemplate));
        assert_eq!(kind(29_305, 293), Some(Kind::SubTemplateMulti));
        assert_eq!(kind(6_871, 554), Some(Kind::SubTemplate));
        assert_eq!((kind(0, 1), kind(9, 291)), (None, None));
    }
}
