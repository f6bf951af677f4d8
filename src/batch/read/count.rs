//! Counts the parts of a plain payload before protobuf makes them: an empty message takes two bytes on the
//! wire and a hundred in memory.

use super::Error;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use std::fmt;

/// A part that a payload holds many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Senders.
    Exporters,
    /// Labels, over all exporters.
    Labels,
    /// Interfaces.
    Interfaces,
    /// Record groups.
    Groups,
    /// Dictionaries, columns and run columns, over all groups.
    Columns,
    /// Raw datagrams.
    Datagrams,
    /// Tables of templates that lists name.
    ListTables,
    /// Templates, over all those tables.
    ListTemplates,
    /// Fields, over all those templates.
    ListFields,
    /// Sets of addresses that belong together.
    AddressSets,
    /// Addresses, over all those sets.
    Addresses,
}

impl Part {
    /// The most that a payload may hold.
    pub const fn limit(self) -> usize {
        match self {
            Self::Columns | Self::ListFields => 262_144,
            Self::Addresses => 131_072,
            _ => 65_536,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(match self {
            Self::Exporters => "exporters",
            Self::Labels => "labels",
            Self::Interfaces => "interfaces",
            Self::Groups => "groups",
            Self::Columns => "columns",
            Self::Datagrams => "datagrams",
            Self::ListTables => "list tables",
            Self::ListTemplates => "list templates",
            Self::ListFields => "list fields",
            Self::AddressSets => "address sets",
            Self::Addresses => "addresses",
        })
    }
}

/// Refuses a payload that holds more of a part than [`Part::limit`].
pub(super) fn check(plain: &[u8]) -> Result<(), Error> {
    let mut counts = Counts::default();
    walk(plain, &mut |tag, inner| match tag {
        1 => {
            counts.add(Part::Exporters)?;
            walk(inner, &mut |tag, _| if tag == 5 { counts.add(Part::Labels) } else { Ok(()) })
        }
        2 => counts.add(Part::Interfaces),
        3 => {
            counts.add(Part::Groups)?;
            walk(inner, &mut |tag, _| {
                if matches!(tag, 2 | 3 | 8) { counts.add(Part::Columns) } else { Ok(()) }
            })
        }
        4 => counts.add(Part::Datagrams),
        5 => {
            counts.add(Part::ListTables)?;
            walk(inner, &mut |tag, inner| {
                if tag != 1 {
                    return Ok(());
                }
                counts.add(Part::ListTemplates)?;
                walk(inner, &mut |tag, _| if tag == 2 { counts.add(Part::ListFields) } else { Ok(()) })
            })
        }
        6 => {
            counts.add(Part::AddressSets)?;
            walk(inner, &mut |tag, inner| match tag {
                3 => counts.add_many(Part::Addresses, inner.len() / 4),
                4 => counts.add_many(Part::Addresses, inner.len() / 16),
                _ => Ok(()),
            })
        }
        _ => Ok(()),
    })
}

#[derive(Default)]
struct Counts([usize; 11]);

impl Counts {
    fn add(&mut self, part: Part) -> Result<(), Error> {
        self.add_many(part, 1)
    }

    fn add_many(&mut self, part: Part, more: usize) -> Result<(), Error> {
        if let Some(count) = self.0.get_mut(part as usize) {
            *count += more;
            if *count > part.limit() {
                return Err(Error::Many { part, limit: part.limit() });
            }
        }
        Ok(())
    }
}

/// Takes a field's tag and bytes.
type Visit<'a> = dyn FnMut(u32, &[u8]) -> Result<(), Error> + 'a;

/// Calls `visit` with the tag and the bytes of each length-delimited field of a message.
fn walk(message: &[u8], visit: &mut Visit) -> Result<(), Error> {
    let mut rest = message;
    while rest.has_remaining() {
        let fault = Error::Protobuf { at: message.len() - rest.len() };
        let Ok((tag, wire_type)) = decode_key(&mut rest) else { return Err(fault) };
        if wire_type != WireType::LengthDelimited {
            if skip_field(wire_type, tag, &mut rest, DecodeContext::default()).is_err() {
                return Err(fault);
            }
            continue;
        }
        let length = decode_varint(&mut rest).ok().and_then(|length| usize::try_from(length).ok());
        let Some((inner, after)) = length.and_then(|length| rest.split_at_checked(length)) else {
            return Err(fault);
        };
        visit(tag, inner)?;
        rest = after;
    }
    Ok(())
}
