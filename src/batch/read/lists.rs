//! The tables of templates that lists inside records name (batch.proto, `ListTable`).

use super::Error;
use crate::flow::Field;
use crate::proto;

/// The templates that the lists of some runs name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListTable {
    /// By id.
    templates: Vec<(u16, Vec<Field>)>,
}

impl ListTable {
    /// The fields of a record of the template; at least one of them is not of width 0. `None` if the proxy did not know
    /// the template.
    pub fn fields(&self, id: u16) -> Option<&[Field]> {
        let place = self.templates.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.templates.get(place).map(|(_, fields)| fields.as_slice())
    }
}

pub(super) fn read(tables: Vec<proto::ListTable>) -> Result<Vec<ListTable>, Error> {
    let read_table = |(place, table): (usize, proto::ListTable)| {
        let read = |template: proto::ListTemplate| {
            let id = template.id;
            read_template(template).ok_or(Error::ListTemplate { table: place, id })
        };
        let mut templates = table.templates.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        templates.sort_by_key(|(id, _)| *id);
        let twice = templates.array_windows().find(|[(one, _), (other, _)]| one == other);
        match twice {
            Some([(id, _), _]) => Err(Error::ListTemplate { table: place, id: u32::from(*id) }),
            None => Ok(ListTable { templates }),
        }
    };
    tables.into_iter().enumerate().map(read_table).collect()
}

fn read_template(template: proto::ListTemplate) -> Option<(u16, Vec<Field>)> {
    let field = |field: proto::ListField| {
        Some(Field {
            enterprise: field.enterprise,
            element: u16::try_from(field.element).ok()?,
            width: u16::try_from(field.width).ok()?,
        })
    };
    let fields: Vec<Field> = template.fields.into_iter().map(field).collect::<Option<_>>()?;
    let id = u16::try_from(template.id).ok().filter(|id| *id >= 256)?;
    // Records of no bytes would have no end.
    fields.iter().any(|field| field.width != 0).then_some((id, fields))
}
