//! Writes a group's run columns (batch.proto, `RunField`).

use super::builder::RunOf;
use super::numbers;
use crate::proto::{Column, RunField};

/// (field, width in bytes, value).
type RunColumn = (RunField, u32, fn(&RunOf) -> u64);

const COLUMNS: [RunColumn; 15] = [
    (RunField::Records, 4, |of| u64::from(of.records)),
    (RunField::Exporter, 4, |of| u64::from(of.exporter)),
    (RunField::Domain, 4, |of| u64::from(of.run.domain)),
    (RunField::Template, 2, |of| u64::from(of.run.template)),
    (RunField::Protocol, 1, |of| of.run.protocol as u64),
    (RunField::Sequence, 4, |of| u64::from(of.run.sequence)),
    (RunField::ExportTime, 8, |of| of.run.export_time),
    (RunField::Uptime, 4, |of| u64::from(of.run.uptime)),
    (RunField::ReceiveTime, 8, |of| of.run.received),
    (RunField::BootTime, 8, |of| of.run.boot_time),
    (RunField::BootQuality, 1, |of| of.run.boot_quality as u64),
    (RunField::SamplingRate, 4, |of| u64::from(of.run.sampling_rate)),
    (RunField::SamplingSource, 1, |of| of.run.sampling_source as u64),
    (RunField::TemplateSource, 1, |of| of.run.template_source as u64),
    (RunField::Lists, 4, |of| u64::from(of.lists)),
];

/// Appends the columns' planes to `body`; a column that is 0 throughout is left out.
pub(super) fn columns(
    runs: &[RunOf],
    values: &mut Vec<u64>,
    body: &mut Vec<u8>,
    cuts: &mut Vec<usize>,
) -> Vec<Column> {
    let mut columns = Vec::with_capacity(COLUMNS.len());
    for (field, width, value) in COLUMNS {
        values.clear();
        values.extend(runs.iter().map(value));
        if values.iter().all(|value| *value == 0) {
            continue;
        }
        let written = numbers::write(values, body, cuts);
        columns.push(Column {
            element: field as u32,
            width,
            planes: written.planes,
            base: written.base.into(),
            ..Default::default()
        });
    }
    columns
}
