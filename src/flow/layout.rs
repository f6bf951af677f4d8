//! Layouts: the fields of a record and where they lie in its row.

use super::{Field, list};
use crate::proto::RecordKind;
use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A field and where it begins in the record, in bytes. In layouts of variable length the offset holds only up
/// to the first field of variable length; rows of those are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Placed {
    /// The field.
    pub field: Field,
    /// Bytes from the start of the record.
    pub offset: usize,
}

/// A note beside a layout: (the batch's number, the place of its group there), (0, 0) at first. Whoever gathers
/// records keeps it, to spare itself a look-up a set.
pub type Slot = Cell<(u64, usize)>;

/// The fields of a record, compiled once from a template: what a batch's groups are keyed by.
///
/// Two templates of any ids and exporters with the same fields have equal layouts.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    kind: RecordKind,
    scope_columns: usize,
    v9_scopes: bool,
    fields: Vec<Placed>,
    stride: Option<usize>,
    least: usize,
    has_lists: bool,
    hash: u64,
}

impl Layout {
    /// A layout of fields that lie back to back, as templates describe them.
    ///
    /// `scope_columns` of the leading fields are scope; `v9_scopes` says that those are NetFlow v9 scope types.
    pub fn packed(kind: RecordKind, scope_columns: usize, v9_scopes: bool, fields: &[Field]) -> Layout {
        let mut offset = 0usize;
        let mut variable = false;
        let mut placed = Vec::with_capacity(fields.len());
        for &field in fields {
            placed.push(Placed { field, offset });
            if field.width == Field::VARIABLE {
                variable = true;
                offset = offset.saturating_add(1);
            } else {
                offset = offset.saturating_add(usize::from(field.width));
            }
        }
        Layout::new(kind, scope_columns, v9_scopes, placed, (!variable).then_some(offset), offset)
    }

    /// A layout with gaps: rows of `stride` bytes of which only the fields matter (NetFlow v5's pads).
    ///
    /// Fields must lie within the stride and have fixed widths.
    pub fn fixed(kind: RecordKind, fields: Vec<Placed>, stride: usize) -> Layout {
        debug_assert!(fields.iter().all(|p| p.offset + usize::from(p.field.width) <= stride));
        Layout::new(kind, 0, false, fields, Some(stride), stride)
    }

    fn new(
        kind: RecordKind,
        scope_columns: usize,
        v9_scopes: bool,
        fields: Vec<Placed>,
        stride: Option<usize>,
        least: usize,
    ) -> Layout {
        let mut hasher = DefaultHasher::new();
        (kind as i32, scope_columns, v9_scopes, &fields, stride).hash(&mut hasher);
        let mut of_elements = fields.iter().skip(if v9_scopes { scope_columns } else { 0 });
        let has_lists = of_elements.any(|placed| list::Kind::of(placed.field).is_some());
        Layout { kind, scope_columns, v9_scopes, fields, stride, least, has_lists, hash: hasher.finish() }
    }

    /// Flow records, options, samples.
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// How many leading fields are the scope of options records.
    pub fn scope_columns(&self) -> usize {
        self.scope_columns
    }

    /// The scope fields' elements are NetFlow v9 scope types (RFC 3954 section 6.1).
    pub fn v9_scopes(&self) -> bool {
        self.v9_scopes
    }

    /// The fields in the template's order.
    pub fn fields(&self) -> &[Placed] {
        &self.fields
    }

    /// Bytes of every record; `None` when they vary.
    pub fn stride(&self) -> Option<usize> {
        self.stride
    }

    /// Bytes of the shortest record that the layout can describe.
    pub fn least(&self) -> usize {
        self.least
    }

    /// A field's element is a list (RFC 6313).
    pub fn has_lists(&self) -> bool {
        self.has_lists
    }

    /// A hash over all that makes layouts equal.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}
