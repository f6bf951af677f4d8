//! Files that are cut, flipped, deleted, or not ours.

use super::super::frame::{FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES};
use super::*;

/// Stores batches and leaves what a killed process leaves.
fn killed(batches: &[Sealed]) -> (TempDir, LaneId) {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    running.store(batches);
    let lane = running.lane().id;
    (running.kill(dir.path()), lane)
}

/// Where the frames of a segment stand.
fn offsets(path: &Path) -> Vec<usize> {
    let bytes = std::fs::read(path).unwrap();
    let mut at = SEGMENT_HEADER_BYTES;
    let mut found = Vec::new();
    while let Ok(header) = FrameHeader::peek(&bytes[at..]) {
        found.push(at);
        at += header.frame_bytes();
    }
    found.push(at);
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn row_07_the_last_frame_is_cut_at_every_byte() {
    let batches = [sealed(1, 30), sealed(2, 0), sealed(3, 21)];
    let (good, lane) = killed(&batches);
    let path = &segments(good.path())[0];
    let name = path.file_name().unwrap();
    let bytes = std::fs::read(path).unwrap();
    let offsets = offsets(path);
    let (start, end) = (offsets[2], offsets[3]);
    const PADDING: usize = 7;
    for zeros in [false, true] {
        // A cut in the padding leaves the frame whole when zeros follow.
        for cut in start..end - if zeros { PADDING } else { 0 } {
            let dir = folder();
            let mut torn = bytes[..cut].to_vec();
            if zeros {
                torn.resize(bytes.len(), 0);
            }
            std::fs::write(dir.path().join(name), torn).unwrap();
            let (spool, _writer, _sender) = open(settings(dir.path()), Metrics::default()).unwrap();
            let view = spool.lanes()[0];
            assert_eq!((view.id, view.next_seq), (lane, 3), "cut at {cut}");
            assert_holds(&spool, &view, &batches[..2]);
            let torn_bytes = spool.recovered().torn_bytes;
            match zeros {
                false => assert_eq!(torn_bytes, (cut - start) as u64),
                // Of a header that is not whole nothing can be told.
                true => {
                    assert_eq!(torn_bytes, if cut < start + 65 { torn_bytes } else { (end - start) as u64 })
                }
            }
            assert_eq!(spool.recovered().lost_ranges, 0);
        }
    }
}

#[test]
fn a_cut_off_number_that_was_durable_is_declared_lost() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    running.store(&large(1..=25));
    let lane = running.lane().id;
    // The position that this ack brings about also says which numbers were given.
    running.spool.acked(lane, 1);
    until(|| !running.spool.shared.state().dirty);
    let image = running.kill(dir.path());
    let last = segments(image.path()).pop().unwrap();
    let bytes = std::fs::read(&last).unwrap();
    std::fs::write(&last, &bytes[..offsets(&last)[1] + 50]).unwrap();
    let again = Running::start(settings(image.path()));
    assert_eq!(again.spool.recovered().torn_bytes, 50);
    let row = skipped(&again.spool, lane, 22);
    assert_eq!((row.to, row.reason), (25, Reason::Lost));
    assert_sent(&again.spool.fetch(lane, 21).unwrap(), &sealed(21, 100_000));
}

#[test]
fn row_08_09_a_flipped_bit_costs_one_batch() {
    for sealed_segment in [true, false] {
        for (place, what) in [(0, "magic"), (5, "length"), (9, "number"), (40, "codec"), (300, "payload")] {
            let (dir, lane) = killed(&large(1..=15));
            let path = &segments(dir.path())[usize::from(!sealed_segment)];
            let hit = if sealed_segment { 4 } else { 12 };
            let first = if sealed_segment { 1 } else { 11 };
            flip(path, offsets(path)[hit - first] + place);
            let running = Running::start(settings(dir.path()));
            let view = running.spool.lanes()[0];
            assert_eq!(view.next_seq, 16, "{what}");
            let found = all(&running.spool, &view);
            assert_eq!(found.len(), 15);
            for (seq, fetched) in &found {
                if *seq != hit as u64 {
                    assert_sent(fetched, &sealed(*seq as u32, 100_000));
                    continue;
                }
                let Fetched::Skip(row) = fetched else { panic!("{what} in {seq}: {fetched:?}") };
                assert_eq!((row.to, row.reason), (row.from, Reason::Damaged), "{what}");
            }
            assert_eq!(running.metrics.skipped_batches.get("damaged"), 1);
            assert!(!files(&dir.path().join("quarantine"), "").is_empty(), "{what}");
            // It stays so, and is counted once.
            let image = running.kill(dir.path());
            let again = Running::start(settings(image.path()));
            assert_eq!(skipped(&again.spool, lane, hit as u64).reason, Reason::Damaged);
            assert_eq!(again.metrics.skipped_batches.get("damaged"), 0);
        }
    }
}

#[test]
fn row_11_a_segment_is_deleted_while_stopped() {
    let (dir, lane) = killed(&large(1..=35));
    std::fs::remove_file(&segments(dir.path())[1]).unwrap();
    let running = Running::start(settings(dir.path()));
    let row = skipped(&running.spool, lane, 11);
    assert_eq!((row.from, row.to, row.reason), (11, 20, Reason::Lost));
    let recovered = running.spool.recovered();
    assert_eq!((recovered.lost_ranges, recovered.lost_batches, recovered.batches), (1, 10, 25));
    assert_eq!(running.metrics.skipped_batches.get("lost"), 10);
    assert_sent(&running.spool.fetch(lane, 10).unwrap(), &sealed(10, 100_000));
    assert_sent(&running.spool.fetch(lane, 21).unwrap(), &sealed(21, 100_000));
    // Known now: the next start declares nothing.
    let image = running.kill(dir.path());
    let again = Running::start(settings(image.path()));
    assert_eq!(again.spool.recovered().lost_ranges, 0);
    assert_eq!(skipped(&again.spool, lane, 15).from, 15);
}

#[test]
fn row_11_a_segment_is_deleted_while_running() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    running.store(&large(1..=35));
    let lane = running.lane().id;
    std::fs::remove_file(&segments(dir.path())[1]).unwrap();
    let found = all(&running.spool, &running.lane());
    let Fetched::Skip(row) = &found[&11] else { panic!() };
    assert_eq!((row.to, row.reason), (20, Reason::Lost));
    assert_eq!(found.len(), 26);
    running.spool.acked(lane, 30);
    until(|| segments(dir.path()).len() == 1);
}

#[test]
fn a_segment_with_a_damaged_header_goes_to_quarantine() {
    let (dir, lane) = killed(&large(1..=25));
    flip(&segments(dir.path())[0], 20);
    let running = Running::start(settings(dir.path()));
    assert_eq!(running.spool.recovered().quarantined_files, 1);
    assert_eq!(files(&dir.path().join("quarantine"), "").len(), 1);
    let row = skipped(&running.spool, lane, 1);
    assert_eq!((row.from, row.to, row.reason), (1, 10, Reason::Lost));
    assert_sent(&running.spool.fetch(lane, 11).unwrap(), &sealed(11, 100_000));
}

#[test]
fn a_segment_under_another_name_is_not_believed() {
    let (dir, lane) = killed(&large(1..=5));
    let path = segments(dir.path()).remove(0);
    std::fs::rename(&path, dir.path().join(super::super::segment::file_name(lane, 9))).unwrap();
    let running = Running::start(settings(dir.path()));
    assert_eq!(running.spool.recovered().quarantined_files, 1);
}

#[test]
fn a_segment_that_is_a_link_is_not_followed() {
    let (other, lane) = killed(&large(1..=5));
    let dir = folder();
    let path = &segments(other.path())[0];
    std::os::unix::fs::symlink(path, dir.path().join(path.file_name().unwrap())).unwrap();
    let running = Running::start(settings(dir.path()));
    assert!(running.spool.lanes().iter().all(|view| view.id != lane));
}

#[test]
fn a_newer_format_is_left_alone() {
    let (dir, _) = killed(&large(1..=5));
    let path = &segments(dir.path())[0];
    let mut bytes = std::fs::read(path).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(path, &bytes).unwrap();
    let error = open(settings(dir.path()), Metrics::default()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { version: 2, .. }), "{error}");
    assert_eq!(std::fs::read(path).unwrap(), bytes);
}

#[test]
fn row_10_without_positions_everything_is_sent_again() {
    let dir = folder();
    let running = Running::start(settings(dir.path()));
    running.store(&large(1..=25));
    let lane = running.lane().id;
    running.spool.acked(lane, 15);
    until(|| segments(dir.path()).len() == 2);
    let image = running.kill(dir.path());
    std::fs::write(image.path().join("positions"), [0xAA; 200_000]).unwrap();
    let again = Running::start(settings(image.path()));
    assert!(again.spool.recovered().positions_damaged);
    let view = again.spool.lanes()[0];
    assert_eq!((view.acked_seq, view.next_seq), (0, 26));
    // What is not there may have been acked; the collector's mark knows.
    assert_eq!(skipped(&again.spool, lane, 1).reason, Reason::Lost);
    assert_sent(&again.spool.fetch(lane, 11).unwrap(), &sealed(11, 100_000));
}

#[test]
fn row_06_half_made_files_are_removed() {
    let dir = folder();
    for name in ["unfinished.new", "spare-3.old"] {
        std::fs::write(dir.path().join(name), [1; 100]).unwrap();
    }
    std::fs::write(dir.path().join("notes.txt"), "kept").unwrap();
    let _open = open(settings(dir.path()), Metrics::default()).unwrap();
    assert!(files(dir.path(), "unfinished").is_empty() && files(dir.path(), "spare").is_empty());
    assert!(dir.path().join("notes.txt").exists());
}

#[test]
fn row_09_every_header_byte_may_be_anything() {
    // A frame of its own segment: only its header is played with, one byte at a time.
    let (dir, lane) = killed(&[sealed(1, 20), sealed(2, 20), sealed(3, 20)]);
    let path = &segments(dir.path())[0];
    let good = std::fs::read(path).unwrap();
    let start = offsets(path)[1];
    for at in start..start + FRAME_HEADER_BYTES {
        let copy = folder();
        let mut bad = good.clone();
        bad[at] = bad[at].wrapping_add(0x81);
        std::fs::write(copy.path().join(path.file_name().unwrap()), bad).unwrap();
        let (spool, _writer, _sender) = open(settings(copy.path()), Metrics::default()).unwrap();
        assert_eq!(skipped(&spool, lane, 2).reason, Reason::Damaged, "byte {}", at - start);
        assert_sent(&spool.fetch(lane, 3).unwrap(), &sealed(3, 20));
    }
}
