//! Which templates the lists inside records name (RFC 6313): the far end, which has not heard them, needs them to
//! read the lists.
//!
//! The lists of one set are walked, those inside lists too, to [`MAX_DEPTH`]; templates are told once a set, and
//! [`MAX_NAMED`] of them at most. A list that is not well formed names nothing from there on; its value travels as it
//! came. Every step takes at least a byte of the set, at each depth, or ends.

use crate::flow::list::{self, Kind, MAX_DEPTH, Named, Part, take_value};
use crate::flow::{Field, Layout};
use std::sync::Arc;

/// Templates that the lists of one set may name; beyond them none is looked up.
const MAX_NAMED: usize = 64;

/// The templates that lists in the records of a set name: `named` is what is there already.
///
/// `content` holds records of the layout, back to back, and may end in padding. `template` looks up what an id stands for.
pub(super) fn find(
    layout: &Layout,
    content: &[u8],
    template: &mut dyn FnMut(u16) -> Option<Arc<Layout>>,
    named: &mut Vec<Named>,
) {
    if layout.has_lists() {
        Search { template, named }.records(layout, content, 0);
    }
}

struct Search<'a> {
    template: &'a mut dyn FnMut(u16) -> Option<Arc<Layout>>,
    named: &'a mut Vec<Named>,
}

impl Search<'_> {
    /// Records of a layout, which has no record of no bytes.
    fn records(&mut self, layout: &Layout, content: &[u8], depth: usize) {
        let mut rest = content;
        while rest.len() >= layout.least() {
            for placed in layout.fields() {
                let Some(value) = take_value(&mut rest, placed.field.width) else { return };
                self.value(placed.field, value, depth);
            }
        }
    }

    fn value(&mut self, field: Field, value: &[u8], depth: usize) {
        let Some(kind) = Kind::of(field).filter(|_| depth < MAX_DEPTH) else { return };
        match kind {
            Kind::Basic => {
                if let Some(list) = list::basic(value) {
                    self.values(list.field, list.values, depth + 1);
                }
            }
            Kind::SubTemplate => {
                if let Some(list) = list::sub_template(value) {
                    self.part(list.part, depth + 1);
                }
            }
            Kind::SubTemplateMulti => {
                let list = list::sub_template_multi(value);
                for part in list.iter().flat_map(|list| list.parts()) {
                    self.part(part, depth + 1);
                }
            }
        }
    }

    /// The values of a basicList, in which other lists may lie.
    fn values(&mut self, field: Field, values: &[u8], depth: usize) {
        let mut rest = values;
        while Kind::of(field).is_some() && !rest.is_empty() {
            let Some(value) = take_value(&mut rest, field.width) else { return };
            self.value(field, value, depth);
        }
    }

    fn part(&mut self, part: Part<'_>, depth: usize) {
        let known = self.named.iter().find(|named| named.id == part.template);
        let layout = match known {
            Some(known) => known.layout.clone(),
            None if self.named.len() >= MAX_NAMED => return,
            None => {
                let layout = (self.template)(part.template);
                self.named.push(Named { id: part.template, layout: layout.clone() });
                layout
            }
        };
        if let Some(layout) = layout.filter(|layout| layout.has_lists()) {
            self.records(&layout, part.records, depth);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::RecordKind;
    use std::collections::HashMap;

    fn layout(fields: &[(u16, u16)]) -> Arc<Layout> {
        let fields: Vec<Field> =
            fields.iter().map(|&(element, width)| Field { enterprise: 0, element, width }).collect();
        Arc::new(Layout::packed(RecordKind::Data, 0, false, &fields))
    }

    /// The ids that are named, those known to be so positive.
    fn named(layout: &Layout, known: &[(u16, Arc<Layout>)], content: &[u8]) -> Vec<(u16, bool)> {
        let known: HashMap<u16, Arc<Layout>> = known.iter().cloned().collect();
        let mut named = Vec::new();
        find(layout, content, &mut |id| known.get(&id).cloned(), &mut named);
        named.into_iter().map(|named| (named.id, named.layout.is_some())).collect()
    }

    const VARIABLE: u16 = Field::VARIABLE;

    #[test]
    fn lists_of_records_name_their_templates_once() {
        let flat = layout(&[(4, 1)]);
        let records = layout(&[(1, 1), (292, VARIABLE), (293, VARIABLE)]);
        let record = [
            &[9][..],
            // allOf of template 300, two records.
            &[5, 3, 1, 44, 6, 17],
            // allOf: one record of 300, one of 301, which is not known.
            &[11, 3, 1, 44, 0, 5, 6, 1, 45, 0, 5, 1],
        ]
        .concat();
        let content = [record.clone(), record, vec![0, 0]].concat();
        assert_eq!(named(&records, &[(300, flat.clone())], &content), [(300, true), (301, false)]);
        // No template is looked for where the layout has no lists.
        assert_eq!(named(&flat, &[], &content), []);
    }

    #[test]
    fn lists_in_lists() {
        let flat = layout(&[(4, 1)]);
        let nested = layout(&[(292, VARIABLE)]);
        // A basicList of subTemplateLists of variable length: of 300, whose record is a list of 301.
        let inner = [3, 1, 45, 6];
        let middle = [&[3, 1, 44, inner.len() as u8][..], &inner].concat();
        let outer = [&[3, 1, 36, 255, 255, middle.len() as u8][..], &middle].concat();
        let content = [&[outer.len() as u8][..], &outer].concat();
        let known = [(300, nested.clone()), (301, flat)];
        assert_eq!(named(&layout(&[(291, VARIABLE)]), &known, &content), [(300, true), (301, true)]);
        // A template that names itself: followed to the bounded depth, told once.
        let mut deep = vec![3, 1, 44];
        for _ in 0..30 {
            deep = [&[3, 1, 44, deep.len() as u8][..], &deep].concat();
        }
        let content = [&[deep.len() as u8][..], &deep].concat();
        assert_eq!(named(&nested, &[(300, nested.clone())], &content), [(300, true)]);
    }

    #[test]
    fn no_more_are_looked_up_than_the_cap() {
        let mut content = vec![255, 1, 1, 3];
        for id in 300..364_u16 {
            content.extend_from_slice(&[&id.to_be_bytes()[..], &[0, 4]].concat());
        }
        let multi = layout(&[(293, VARIABLE)]);
        let ids = named(&multi, &[], &[content.clone(), content].concat());
        assert_eq!(ids.len(), MAX_NAMED);
        let mut many = vec![255, 4, 1, 3];
        for id in 300..556_u16 {
            many.extend_from_slice(&[&id.to_be_bytes()[..], &[0, 4]].concat());
        }
        assert_eq!(named(&multi, &[], &many).len(), MAX_NAMED);
    }

    #[test]
    fn every_shorter_prefix_ends() {
        let flat = layout(&[(4, 1)]);
        let records = layout(&[(291, VARIABLE), (292, 4), (293, VARIABLE)]);
        let content =
            [&[8, 3, 1, 36, 0, 4, 3, 1, 44][..], &[3, 1, 44, 6], &[11, 3, 1, 44, 0, 5, 6, 1, 45, 0, 5, 1]]
                .concat();
        for length in 0..content.len() {
            named(&records, &[(300, flat.clone())], &content[..length]);
        }
        assert_eq!(named(&records, &[(300, flat)], &content), [(300, true), (301, false)]);
    }
}
