//! The batch's tables of templates that lists inside records name (batch.proto, `ListTable`).

use super::builder::{LIST_TABLES, message};
use crate::flow::list::Named;
use crate::flow::{Exporter, Layout};
use crate::proto::{ListField, ListTable, ListTemplate};
use std::collections::HashMap;

/// Bytes that a template and one of its fields take in the payload, at most.
const TEMPLATE_BYTES: usize = 16;
const FIELD_BYTES: usize = 32;

/// Templates of one table; beyond them another begins.
const MAX_TEMPLATES: usize = 1024;

/// The tables, each with the templates of one domain as they were at one time.
#[derive(Debug, Default)]
pub(super) struct ListTables {
    tables: Vec<Vec<Named>>,
    /// The latest table of each exporter's domain.
    index: HashMap<(Exporter, u32), usize>,
    bytes: usize,
}

impl ListTables {
    /// The place, from 1, of a table in which those templates stand as they are named; 0 if none are.
    ///
    /// A domain's latest table is added to as long as nothing in it says otherwise: neither another template by the same
    /// id nor that the id was unknown.
    pub(super) fn place(&mut self, exporter: Exporter, domain: u32, named: &[Named]) -> u32 {
        if named.iter().all(|named| named.layout.is_none()) {
            return 0;
        }
        let latest = self.index.get(&(exporter, domain)).copied();
        let fits = |place: &usize| self.tables.get(*place).is_some_and(|table| agree(table, named));
        let place = latest.filter(fits).unwrap_or_else(|| {
            self.tables.push(Vec::new());
            self.index.insert((exporter, domain), self.tables.len() - 1);
            self.tables.len() - 1
        });
        if let Some(table) = self.tables.get_mut(place) {
            for new in named {
                if table.iter().all(|old| old.id != new.id) {
                    let fields = new.layout.as_ref().map_or(0, |layout| layout.fields().len());
                    self.bytes += TEMPLATE_BYTES + FIELD_BYTES * fields;
                    table.push(new.clone());
                }
            }
        }
        place as u32 + 1
    }

    /// What they take in the payload, at most.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn encode(&self, plain: &mut Vec<u8>) {
        for table in &self.tables {
            let known = table.iter().filter_map(|named| Some((named.id, named.layout.as_ref()?)));
            let templates = known.map(|(id, layout)| template(id, layout)).collect();
            message(LIST_TABLES, &ListTable { templates }, plain);
        }
    }

    pub(super) fn clear(&mut self) {
        self.tables.clear();
        self.index.clear();
        self.bytes = 0;
    }
}

/// The table has room, and says of each id that it has the same.
fn agree(table: &[Named], named: &[Named]) -> bool {
    let same = |new: &Named| table.iter().all(|old| old.id != new.id || old.layout == new.layout);
    table.len() + named.len() <= MAX_TEMPLATES && named.iter().all(same)
}

fn template(id: u16, layout: &Layout) -> ListTemplate {
    let fields = layout.fields().iter().map(|placed| ListField {
        element: u32::from(placed.field.element),
        enterprise: placed.field.enterprise,
        width: u32::from(placed.field.width),
    });
    ListTemplate { id: u32::from(id), fields: fields.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Field;
    use crate::proto::RecordKind;
    use std::net::IpAddr;
    use std::sync::Arc;

    const EXPORTER: Exporter = Exporter { address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port: 1 };

    fn named(id: u16, width: Option<u16>) -> Named {
        let layout = |width| {
            let field = Field { enterprise: 0, element: 4, width };
            Arc::new(Layout::packed(RecordKind::Data, 0, false, &[field]))
        };
        Named { id, layout: width.map(layout) }
    }

    #[test]
    fn a_domain_has_one_table_until_a_template_changes() {
        let mut tables = ListTables::default();
        assert_eq!(tables.place(EXPORTER, 7, &[]), 0);
        assert_eq!(tables.place(EXPORTER, 7, &[named(300, None)]), 0);
        assert_eq!(tables.place(EXPORTER, 7, &[named(300, Some(1))]), 1);
        assert_eq!(tables.place(EXPORTER, 7, &[named(301, Some(1)), named(302, None)]), 1);
        assert_eq!(tables.place(EXPORTER, 8, &[named(300, Some(1))]), 2);
        // Another template by the same id; one that was unknown before.
        assert_eq!(tables.place(EXPORTER, 7, &[named(300, Some(2))]), 3);
        assert_eq!(tables.place(EXPORTER, 7, &[named(300, Some(2)), named(301, None)]), 3);
        assert_eq!(tables.place(EXPORTER, 7, &[named(301, Some(1))]), 4);
        assert_eq!(tables.place(EXPORTER, 8, &[named(300, Some(1))]), 2);
        let bytes = tables.bytes();
        let mut plain = Vec::new();
        tables.encode(&mut plain);
        assert!(!plain.is_empty() && plain.len() <= bytes, "{} of {bytes}", plain.len());
        tables.clear();
        assert_eq!(tables.bytes(), 0);
        assert_eq!(tables.place(EXPORTER, 8, &[named(300, Some(1))]), 1);
        assert_eq!(tables.bytes(), TEMPLATE_BYTES + FIELD_BYTES);
    }

    #[test]
    fn tables_have_room_for_so_many() {
        let mut tables = ListTables::default();
        for id in 0..1024 {
            assert_eq!(tables.place(EXPORTER, 7, &[named(id, Some(1))]), 1);
        }
        assert_eq!(tables.place(EXPORTER, 7, &[named(2000, Some(1))]), 2);
    }
}
