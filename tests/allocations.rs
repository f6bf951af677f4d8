//! From datagram to gathered records nothing is allocated, once the buffers have grown: counted by an allocator of our
//! own. Sealing a batch may allocate, a bounded number of times.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test"
)]

#[path = "../fuzz/seeds.rs"]
mod seeds;

use flowproxy::batch::{Builder, Effort, NoNames, Packer};
use flowproxy::flow::list::Named;
use flowproxy::flow::{Exporter, Run};
use flowproxy::generator::encoder::Version;
use flowproxy::wire::{Arrival, Decoder, Fault, Output, Place, Settings, Template};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which counts what each thread asks it for.
struct Counting;

thread_local! {
    /// Allocations and reallocations of this thread. Neither made nor destroyed by code that allocates.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no cell any more; it is not the one that is watched.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every method hands its arguments to `System` unchanged and returns what that returns, so the contract of
// `GlobalAlloc` holds as it does for `System`. The counter neither allocates nor unwinds.
#[allow(unsafe_code, reason = "an allocator is unsafe by its trait; this one adds a count to the system's")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `System`'s contract, which is ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread allocates in `what`.
fn allocations(what: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    what();
    COUNT.get() - before
}

/// What a shard does with records.
#[derive(Default)]
struct Gather {
    builder: Builder,
    lists: Vec<Named>,
    records: u64,
}

impl Output for Gather {
    fn records(&mut self, run: &Run, template: &Template, rows: &[u8], ends: &[u32], count: u32) {
        self.builder.push_with_lists(run, template.layout(), template.slot(), rows, ends, count, &self.lists);
        self.lists.clear();
        self.records += u64::from(count);
    }

    fn lists(&mut self, named: &[Named]) {
        self.lists.extend_from_slice(named);
    }

    fn fault(&mut self, fault: Fault, place: Place) {
        panic!("{fault} at {place:?}");
    }

    fn set(&mut self) {}
}

/// Batches until the buffers have grown, and those that are watched.
const WARM_UP: u64 = 3;
const WATCHED: u64 = 3;
/// Of one batch; ten seconds at 200 a second.
const DATAGRAMS: u64 = 2_000;

/// The most allocations of one seal, whatever it holds; columns have two, groups and the batch some.
const MOST_OF_A_SEAL: u64 = 400;

/// The first datagrams are heard once, then `next` changes one of the others and it is heard again and again.
fn nothing_is_allocated(name: &str, first: &[Vec<u8>], mut datagrams: Vec<Vec<u8>>, sequence_at: usize) {
    let mut decoder = Decoder::new(Settings::default());
    decoder.note_changes();
    let mut gather = Gather::default();
    let mut packer = Packer::new();
    let exporter = Exporter { address: [192, 0, 2, 1].into(), port: 2055 };
    let mut number = 0u64;
    let mut hear = |decoder: &mut Decoder, gather: &mut Gather, bytes: &[u8]| {
        number += 1;
        let arrival =
            Arrival { exporter, received: 1_700_000_000_000 + 5 * number, elapsed: 5 * number, number };
        decoder.datagram(&arrival, bytes, gather).expect("a header");
    };
    first.iter().for_each(|bytes| hear(&mut decoder, &mut gather, bytes));
    let mut sequence = 0u32;
    for batch in 0..WARM_UP + WATCHED {
        let records = gather.records;
        let hearing = allocations(|| {
            for n in 0..DATAGRAMS {
                let which = n as usize % datagrams.len();
                datagrams[which][sequence_at..sequence_at + 4].copy_from_slice(&sequence.to_be_bytes());
                sequence += 1;
                hear(&mut decoder, &mut gather, &datagrams[which]);
            }
        });
        assert!(gather.records - records >= DATAGRAMS, "{name}: {} records", gather.records - records);
        let sealing = allocations(|| drop(gather.builder.seal(&mut packer, Effort::Fast, &mut NoNames)));
        if batch >= WARM_UP {
            assert_eq!(hearing, 0, "{name}: {DATAGRAMS} datagrams");
            assert!(sealing <= MOST_OF_A_SEAL, "{name}: {sealing} allocations of a seal");
        }
    }
}

/// The seeds that our encoder makes, and those of them that begin with data; `header_bytes` is where sets begin.
fn with_data(version: Version, header_bytes: usize) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    const FIRST_DATA_SET: u16 = 256;
    let all = seeds::exported(version);
    let set = |bytes: &[u8]| u16::from_be_bytes([bytes[header_bytes], bytes[header_bytes + 1]]);
    let data = all.iter().filter(|bytes| set(bytes) >= FIRST_DATA_SET).cloned().collect();
    (all, data)
}

#[test]
fn fixed_formats() {
    nothing_is_allocated("v1", &[], seeds::of("v1"), 8);
    nothing_is_allocated("v5", &[], seeds::of("v5"), 16);
    nothing_is_allocated("v7", &[], seeds::of("v7"), 16);
}

#[test]
fn v9() {
    let (all, data) = with_data(Version::NetflowV9, 20);
    nothing_is_allocated("v9", &all, data, 12);
}

#[test]
fn ipfix() {
    let (all, data) = with_data(Version::Ipfix, 16);
    nothing_is_allocated("ipfix", &all, data, 8);
}

#[test]
fn sflow() {
    nothing_is_allocated("sflow", &[], seeds::of("sflow").split_off(6), 16);
}
