//! Templates: the checks on what is heard, and what it compiles to.

use super::Fault;
use super::options::Reader;
use super::sampling::SampledBy;
use crate::flow::{Field, Layout, Slot};
use crate::proto::RecordKind;
use std::sync::Arc;

/// Fields of one template; more are refused.
pub(super) const MAX_FIELDS: usize = 256;

/// Fields of no bytes in one template; more are refused. A datagram of 64 KiB would else describe sixteen million
/// fields, and cost time and memory for each.
pub(super) const MAX_EMPTY_FIELDS: usize = 8;

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    layout: Arc<Layout>,
    slot: Slot,
    sampled_by: SampledBy,
    reader: Option<Arc<Reader>>,
}

impl Template {
    pub(super) fn new(layout: Layout) -> Template {
        let is_options = layout.kind() == RecordKind::Options;
        Template {
            sampled_by: if is_options { SampledBy::default() } else { SampledBy::new(&layout) },
            reader: Reader::new(&layout).filter(|_| is_options).map(Arc::new),
            layout: Arc::new(layout),
            slot: Slot::default(),
        }
    }

    /// Where its records say how they were sampled.
    pub(super) fn sampled_by(&self) -> &SampledBy {
        &self.sampled_by
    }

    /// How to read what its records tell, if they are options records that tell something.
    pub(super) fn reader(&self) -> Option<&Arc<Reader>> {
        self.reader.as_ref()
    }

    /// The fields of its records.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// A note that an output may keep here, to spare itself a look-up a set.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }
}

/// Checks the fields of a template and compiles them.
///
/// # Errors
/// No fields, too many of them or of those without bytes, or records of no bytes or of more than a datagram can hold.
pub(super) fn compile(
    kind: RecordKind,
    scope_columns: usize,
    v9_scopes: bool,
    fields: &[Field],
) -> Result<Layout, Fault> {
    let empty = fields.iter().filter(|field| field.width == 0).count();
    if fields.len() > MAX_FIELDS || (empty > MAX_EMPTY_FIELDS && empty < fields.len()) {
        return Err(Fault::LargeTemplate);
    }
    let layout = Layout::packed(kind, scope_columns, v9_scopes && scope_columns > 0, fields);
    if layout.least() == 0 {
        return Err(Fault::EmptyTemplate);
    }
    if layout.least() > usize::from(u16::MAX) {
        return Err(Fault::LargeTemplate);
    }
    Ok(layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_of_hardly_any_bytes_costs_no_more_than_its_bytes() {
        let field = |width| Field { enterprise: 0, element: 1, width };
        let with_empty = |count| [vec![field(0); count], vec![field(1)]].concat();
        let compile = |fields: &[Field]| compile(RecordKind::Data, 0, false, fields);
        assert!(compile(&with_empty(MAX_EMPTY_FIELDS)).is_ok());
        assert_eq!(compile(&with_empty(MAX_EMPTY_FIELDS + 1)).unwrap_err(), Fault::LargeTemplate);
    }

    /// So NetFlow v9's data records and IPFIX's share a group.
    #[test]
    fn templates_without_a_scope_are_alike_whatever_their_protocol() {
        let fields = [Field { enterprise: 0, element: 1, width: 4 }];
        let compile = |v9_scopes| compile(RecordKind::Data, 0, v9_scopes, &fields).unwrap();
        assert_eq!(compile(true), compile(false));
    }
}
