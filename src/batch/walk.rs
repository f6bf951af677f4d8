//! Reads some fields of a group's rows in place, row by row.

use super::builder::Group;
use crate::flow::list::take_value;
use crate::flow::{Field, Placed};

/// Calls `visit` for each record and each of the columns in `wanted`, which ascend: with the sender's place, the
/// column's place in `wanted`, and the field.
pub(super) fn fields(group: &Group, wanted: &[usize], mut visit: impl FnMut(u32, usize, &[u8])) {
    if wanted.is_empty() {
        return;
    }
    let placed = |column: &usize| group.layout.fields().get(*column).copied();
    match group.layout.stride() {
        Some(stride) => {
            let columns: Vec<Placed> = wanted.iter().filter_map(placed).collect();
            let mut rows = group.rows.chunks_exact(stride.max(1));
            for run in &group.runs {
                for row in rows.by_ref().take(run.records as usize) {
                    for (place, Placed { field, offset }) in columns.iter().enumerate() {
                        let bytes = row.get(*offset..*offset + usize::from(field.width));
                        visit(run.exporter, place, bytes.unwrap_or(&[]));
                    }
                }
            }
        }
        None => {
            let steps = steps(group, wanted);
            let (mut ends, mut start) = (group.ends.iter(), 0);
            for run in &group.runs {
                for &end in ends.by_ref().take(run.records as usize) {
                    let row = group.rows.get(start..end as usize).unwrap_or(&[]);
                    walk(row, &steps, |place, field| visit(run.exporter, place, field));
                    start = end as usize;
                }
            }
        }
    }
}

/// The way through a row of variable length.
#[derive(Clone, Copy, Debug)]
enum Step {
    Skip(usize),
    SkipVariable,
    /// The width.
    Visit(u16),
}

fn steps(group: &Group, wanted: &[usize]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut wanted = wanted.iter().peekable();
    for (column, placed) in group.layout.fields().iter().enumerate() {
        if wanted.peek().is_none() {
            break;
        }
        let width = placed.field.width;
        match steps.last_mut() {
            _ if wanted.next_if(|next| **next == column).is_some() => steps.push(Step::Visit(width)),
            _ if width == Field::VARIABLE => steps.push(Step::SkipVariable),
            Some(Step::Skip(bytes)) => *bytes += usize::from(width),
            _ => steps.push(Step::Skip(usize::from(width))),
        }
    }
    steps
}

/// Rows were walked once when they were decoded, so they fit their layout; one that did not would end early.
fn walk(row: &[u8], steps: &[Step], mut visit: impl FnMut(usize, &[u8])) {
    let (mut rest, mut place) = (row, 0);
    for step in steps {
        match *step {
            Step::Skip(bytes) => rest = rest.get(bytes..).unwrap_or(&[]),
            Step::SkipVariable => {
                let _ = take_value(&mut rest, Field::VARIABLE);
            }
            Step::Visit(width) => {
                if let Some(field) = take_value(&mut rest, width) {
                    visit(place, field);
                }
                place += 1;
            }
        }
    }
}
