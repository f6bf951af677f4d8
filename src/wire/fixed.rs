//! What NetFlow v1, v5 and v7 share: times in the header, and records of one layout behind it.
//!
//! A count that promises more records than there are bytes is a fault; the records that are there are taken.

use super::cursor::{Cursor, Short};
use super::template::Template;
use super::track::{DataNotes, Notes, Onset, Tracks};
use super::{Arrival, Fault, Output, Place};
use crate::flow::{Field, Layout, Placed, Run};
use crate::proto::{BootQuality, Protocol, RecordKind};

/// (information element, offset, width) of a record's fields, in wire order.
pub(super) type Row = (u16, usize, u16);

/// The layout of records of so many bytes.
pub(super) fn template(fields: &[Row], record_bytes: usize) -> Template {
    let placed = |&(element, offset, width): &Row| {
        let field = Field { enterprise: 0, element, width };
        Placed { field, offset }
    };
    Template::new(Layout::fixed(RecordKind::Data, fields.iter().map(placed).collect(), record_bytes))
}

/// Reads what the headers have behind the version: count, uptime, seconds and nanoseconds. Gives the count.
pub(super) fn times(
    protocol: Protocol,
    arrival: &Arrival,
    cursor: &mut Cursor<'_>,
) -> Result<(usize, Run), Short> {
    let count = cursor.u16()?;
    let uptime = cursor.u32()?;
    let seconds = cursor.u32()?;
    let nanoseconds = cursor.u32()?;
    let export_time = u64::from(seconds) * 1000 + u64::from(nanoseconds / 1_000_000);
    let run = Run {
        export_time,
        uptime,
        boot_time: export_time.saturating_sub(u64::from(uptime)),
        boot_quality: BootQuality::Header,
        ..arrival.run(protocol)
    };
    Ok((usize::from(count), run))
}

/// Reads the records, and takes note of the sender.
pub(super) fn records(
    template: &Template,
    tracks: &mut Tracks,
    arrival: &Arrival,
    run: &Run,
    count: usize,
    mut cursor: Cursor<'_>,
    output: &mut impl Output,
) {
    output.header(run);
    output.begun();
    let record_bytes = template.layout().least();
    let is_whole = cursor.left() == count * record_bytes;
    let taken = count.min(cursor.left() / record_bytes);
    if let (Ok(rows), true) = (cursor.take(taken * record_bytes), taken > 0) {
        output.records(run, template, rows, &[], taken as u32);
    }
    if is_whole {
        output.set();
    } else {
        output.fault(Fault::Count, Place { offset: cursor.at(), bytes: cursor.left() });
    }
    let data = Some(DataNotes::new(run, false, false));
    let notes = Notes { records: taken as u32, is_part: taken < count, data, ..Notes::default() };
    if tracks.datagram(arrival, run, &notes, output) == Onset::Anew {
        output.restarted();
    }
}

#[cfg(test)]
mod tests {
    use crate::flow::{Exporter, Run};
    use crate::proto::{BootQuality, Protocol};
    use crate::wire::{Arrival, Decoder, Fault, Output, Place, Settings, Template};

    /// What a datagram gave: each record as (element, hex) of its fields.
    #[derive(Debug, Default)]
    struct Got {
        run: Option<Run>,
        records: Vec<Vec<(u16, String)>>,
        faults: Vec<(Fault, usize, usize)>,
        sets: usize,
    }

    impl Output for Got {
        fn records(&mut self, run: &Run, template: &Template, rows: &[u8], ends: &[u32], count: u32) {
            let stride = template.layout().stride().unwrap();
            assert_eq!((rows.len(), ends.len()), (stride * count as usize, 0));
            self.run = Some(*run);
            for row in rows.chunks(stride) {
                let field = |placed: &crate::flow::Placed| {
                    let bytes = &row[placed.offset..placed.offset + usize::from(placed.field.width)];
                    (placed.field.element, bytes.iter().map(|byte| format!("{byte:02x}")).collect())
                };
                self.records.push(template.layout().fields().iter().map(field).collect());
            }
        }
        fn fault(&mut self, fault: Fault, place: Place) {
            self.faults.push((fault, place.offset, place.bytes));
        }
        fn set(&mut self) {
            self.sets += 1;
        }
    }

    /// Hex with comments after `#`.
    fn hex(text: &str) -> Vec<u8> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or(""));
        let digits: String = lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
        (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
    }

    fn decode(bytes: &[u8]) -> Result<Got, Fault> {
        let exporter = Exporter { address: [192, 0, 2, 1].into(), port: 2_055 };
        let arrival = Arrival { exporter, received: 1_700_000_000_000, elapsed: 0, number: 1 };
        let mut got = Got::default();
        Decoder::new(Settings::default()).datagram(&arrival, bytes, &mut got)?;
        Ok(got)
    }

    const V1: &str = "
        0001 0001 00000bb8 65535580 1dcd6500    # version, count, uptime 3 s, 2023-11-14T11:11:28.5
        0a000001 0a000002 0a0000fe 0003 0004    # addresses, next hop, interfaces
        00000005 000002f2 00000064 000003e8     # 5 packets, 754 bytes, first 100 ms, last 1 s
        c000 01bb ffff 06 02 1b                 # ports, pad, protocol, tos, flags
        ff ff ff 00000000                       # pad
    ";

    const V7: &str = "
        0007 0001 00000bb8 65535580 1dcd6500    # version, count, uptime 3 s, 2023-11-14T11:11:28.5
        0000002a 00000000                       # sequence 42, reserved
        0a000001 0a000002 0a0000fe 0003 0004    # addresses, next hop, interfaces
        00000005 000002f2 00000064 000003e8     # 5 packets, 754 bytes, first 100 ms, last 1 s
        c000 01bb ff 1b 06 02                   # ports, flags, TCP flags, protocol, tos
        fde8 0f0f 18 10 ffff                    # AS numbers, masks, flags
        0a0000fd                                # the router spared
    ";

    /// (element, hex) of the fields that both have.
    const SHARED: [(u16, &str); 11] = [
        (8, "0a000001"),
        (12, "0a000002"),
        (15, "0a0000fe"),
        (10, "0003"),
        (14, "0004"),
        (2, "00000005"),
        (1, "000002f2"),
        (22, "00000064"),
        (21, "000003e8"),
        (7, "c000"),
        (11, "01bb"),
    ];

    fn expect(got: &Got, own: &[(u16, &str)]) {
        let expected = SHARED.iter().chain(own).map(|(element, hex)| (*element, (*hex).to_owned()));
        assert_eq!(got.records, [expected.collect::<Vec<_>>()]);
        assert_eq!((got.sets, got.faults.as_slice()), (1, &[][..]));
    }

    #[test]
    fn v1_is_read() {
        let own = [(4, "06"), (5, "02"), (6, "1b")];
        let got = decode(&hex(V1)).unwrap();
        expect(&got, &own);
        let run = got.run.unwrap();
        assert_eq!((run.protocol, run.domain, run.sequence), (Protocol::NetflowV1, 0, 0));
        assert_eq!((run.export_time, run.uptime), (1_699_960_192_500, 3_000));
        assert_eq!((run.boot_time, run.boot_quality), (1_699_960_189_500, BootQuality::Header));
        // As Cisco's table has it.
        let mut long = hex(V1);
        long.extend([0; 4]);
        expect(&decode(&long).unwrap(), &own);
    }

    #[test]
    fn v7_is_read() {
        let got = decode(&hex(V7)).unwrap();
        let own = [(6, "1b"), (4, "06"), (5, "02"), (16, "fde8"), (17, "0f0f"), (9, "18"), (13, "10")];
        expect(&got, &own);
        let run = got.run.unwrap();
        assert_eq!((run.protocol, run.domain, run.sequence), (Protocol::NetflowV7, 0, 42));
        assert_eq!((run.export_time, run.sampling_rate), (1_699_960_192_500, 0));
    }

    #[test]
    fn what_is_there_is_taken() {
        for (text, header) in [(V1, 16), (V7, 24)] {
            let bytes = hex(text);
            for end in 0..bytes.len() {
                match decode(&bytes[..end]) {
                    Err(fault) => {
                        assert_eq!((fault, end < header), (Fault::ShortHeader, true), "{end} bytes")
                    }
                    Ok(got) => assert_eq!(
                        (got.records.len(), got.sets, got.faults),
                        (0, 0, vec![(Fault::Count, header, end - header)])
                    ),
                }
            }
            for count in [2, u16::MAX] {
                let mut long = bytes.clone();
                long[2..4].copy_from_slice(&count.to_be_bytes());
                let got = decode(&long).unwrap();
                assert_eq!((got.records.len(), got.faults), (1, vec![(Fault::Count, bytes.len(), 0)]));
            }
            let mut none = bytes.clone();
            none[3] = 0;
            assert_eq!(decode(&none).unwrap().faults, [(Fault::Count, header, bytes.len() - header)]);
        }
    }
}
