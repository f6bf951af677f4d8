//! The runs of a group: what belongs to a datagram, once for all its records.

use super::Places;
use super::body::{Body, MAX_WIDTH, Number};
use super::group::GroupError;
use crate::proto::{self, BootQuality, Encoding, Protocol, RunField, SamplingSource, TemplateSource};

/// Consecutive records of a group that came in one datagram by one template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// How many.
    pub records: u32,
    /// Place in `Batch::exporters`.
    pub exporter: usize,
    /// IPFIX observation domain, NetFlow v9 source id, NetFlow v5 engine type and id.
    pub domain: u32,
    /// Template id; 0 for protocols without templates.
    pub template: u16,
    /// How the records came.
    pub protocol: Protocol,
    /// The header's sequence number.
    pub sequence: u32,
    /// The header's export time, in milliseconds since 1970; 0 if it has none.
    pub export_time: u64,
    /// The header's uptime, in milliseconds; 0 if it has none.
    pub uptime: u32,
    /// When the proxy took the datagram, in milliseconds since 1970.
    pub receive_time: u64,
    /// When the exporter started, in milliseconds since 1970; nothing if [`BootQuality::Unknown`].
    pub boot_time: u64,
    /// How good that is.
    pub boot_quality: BootQuality,
    /// One packet in this many was sampled; 0 if unknown.
    pub sampling_rate: u64,
    /// Who says so.
    pub sampling_source: SamplingSource,
    /// How the proxy knew the template.
    pub template_source: TemplateSource,
    /// Place of the list table, from 1; 0 if there is none: see `Batch::lists`.
    pub lists: usize,
}

/// Reads the run columns, `runs` values each.
pub(super) fn read(
    columns: &[proto::Column],
    runs: usize,
    records: usize,
    places: Places,
    body: &mut Body,
) -> Result<Vec<Run>, GroupError> {
    let mut read = vec![Run::default(); runs];
    let mut seen = Vec::new();
    for column in columns {
        let width = column.width as usize;
        if column.encoding != Encoding::Planes as i32 || width > MAX_WIDTH {
            return Err(GroupError::RunColumn { element: column.element });
        }
        let numbers = body.numbers(column, runs)?;
        let field = i32::try_from(column.element).ok().and_then(|element| RunField::try_from(element).ok());
        let Some(field) = field else { continue };
        if seen.contains(&field) {
            return Err(GroupError::RunColumnTwice { element: column.element });
        }
        seen.push(field);
        let values = numbers.values::<u128>().into_iter().map(|value| value.modulo(width));
        for (place, (run, value)) in read.iter_mut().zip(values).enumerate() {
            let too_much = GroupError::RunValue { run: place, element: column.element, value };
            set(run, field, value).ok_or(too_much)?;
        }
    }
    check(&read, records, places)?;
    Ok(read)
}

/// Sets a field of a run; `None` if the value does not fit.
fn set(run: &mut Run, field: RunField, value: u128) -> Option<()> {
    let enumerator = i32::try_from(value);
    match field {
        RunField::Unknown => {}
        RunField::Records => run.records = value.try_into().ok()?,
        RunField::Exporter => run.exporter = u32::try_from(value).ok()? as usize,
        RunField::Domain => run.domain = value.try_into().ok()?,
        RunField::Template => run.template = value.try_into().ok()?,
        RunField::Protocol => run.protocol = known(enumerator),
        RunField::Sequence => run.sequence = value.try_into().ok()?,
        RunField::ExportTime => run.export_time = value.try_into().ok()?,
        RunField::Uptime => run.uptime = value.try_into().ok()?,
        RunField::ReceiveTime => run.receive_time = value.try_into().ok()?,
        RunField::BootTime => run.boot_time = value.try_into().ok()?,
        RunField::BootQuality => run.boot_quality = known(enumerator),
        RunField::SamplingRate => run.sampling_rate = value.try_into().ok()?,
        RunField::SamplingSource => run.sampling_source = known(enumerator),
        RunField::TemplateSource => run.template_source = known(enumerator),
        RunField::Lists => run.lists = u32::try_from(value).ok()? as usize,
    }
    Some(())
}

/// The enum's value, or its `Unknown` for one that a later version of the contract has added.
fn known<E, T: TryFrom<i32> + Default>(value: Result<i32, E>) -> T {
    value.ok().and_then(|value| T::try_from(value).ok()).unwrap_or_default()
}

fn check(runs: &[Run], records: usize, places: Places) -> Result<(), GroupError> {
    for (place, run) in runs.iter().enumerate() {
        if run.exporter >= places.exporters {
            return Err(GroupError::RunExporter { run: place, exporter: run.exporter as u32 });
        }
        if run.lists > places.list_tables {
            return Err(GroupError::RunLists { run: place, lists: run.lists });
        }
    }
    let found = runs.iter().map(|run| u64::from(run.records)).sum();
    if found != records as u64 || runs.iter().any(|run| run.records == 0) {
        return Err(GroupError::RunRecords { records, found });
    }
    Ok(())
}
