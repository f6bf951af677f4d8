//! The spool against a queue in memory: any row of what can happen to it, on a disk that forgets and fails.
//!
//! [`world::World`] does each step to both and compares them. What must hold after every step:
//!
//! * what is fetched is what was appended, in its order, each number once and for ever;
//! * what counts as durable stands in a file that a power cut would leave;
//! * what a start finds in the folder it gives out, or has a row for it;
//! * a row outlives every crash; those of dropped and refused batches say exactly what was in them;
//! * a loss is declared only of what was damaged, or of what was in no file when the process died;
//! * nothing is dropped that was sent; the budget holds.
//!
//! `FLOWPROXY_MODEL_CASES=N` runs as many rows of steps as that, `FLOWPROXY_MODEL_SEED=N` others.

mod world;

use crate::storage::memory::Cut;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use world::World;

/// Rows of steps in an ordinary test run.
const CASES: u32 = 250;
const STEPS: usize = 60;

/// A step. Places are fractions of what there is to choose from.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Batches of so many bytes are handed in, and the writer has its turn.
    Append { batches: u8, bytes: u16 },
    /// Time passes, and the writer has its turn.
    Pass { millis: u16 },
    /// All that is left is looked up.
    Look,
    /// Some of a lane is handed out for sending.
    Send { lane: u8, count: u8 },
    /// The collector has opened a lane anew.
    Opened { lane: u8 },
    /// A lane is acked up to a place.
    Ack { lane: u8, upto: u8 },
    /// A batch is refused.
    Reject { lane: u8, place: u8 },
    /// A lane that is acked is done with.
    Close { lane: u8 },
    /// Another writer has used a lane.
    SetAside { lane: u8 },
    /// Fresh batches get another lane.
    NewLane,
    /// The writer ends in order; another process follows.
    End,
    /// The process is killed; another follows.
    Kill,
    /// The power fails; a process follows.
    PowerCut { cut: Cut, seed: u64 },
    /// The process is killed, and the end of a segment is not there, or zeros.
    CutOff { file: u8, place: u16, zeros: bool },
    /// A bit of some file flips.
    Flip { file: u8, place: u16, bit: u8 },
    /// A segment is deleted.
    Delete { file: u8 },
    /// The next writes fail with EIO.
    FailWrites(u8),
    /// The next syncs fail with EIO.
    FailSyncs(u8),
    /// Nothing can be changed.
    ReadOnly,
    /// So many more bytes fit on the disk.
    Full { left: u16 },
    /// The disk works again.
    Mend,
}

fn step() -> impl Strategy<Value = Step> {
    let cut = prop_oneof![Just(Cut::Nothing), Just(Cut::Everything), Just(Cut::Some)];
    let lane = any::<u8>;
    prop_oneof![
        24 => (1..8u8, 0..1600u16).prop_map(|(batches, bytes)| Step::Append { batches, bytes }),
        12 => prop_oneof![Just(1), Just(20), Just(1100)].prop_map(|millis| Step::Pass { millis }),
        6 => Just(Step::Look),
        6 => (lane(), 1..9u8).prop_map(|(lane, count)| Step::Send { lane, count }),
        2 => lane().prop_map(|lane| Step::Opened { lane }),
        8 => (lane(), any::<u8>()).prop_map(|(lane, upto)| Step::Ack { lane, upto }),
        3 => (lane(), any::<u8>()).prop_map(|(lane, place)| Step::Reject { lane, place }),
        3 => lane().prop_map(|lane| Step::Close { lane }),
        1 => lane().prop_map(|lane| Step::SetAside { lane }),
        2 => Just(Step::NewLane),
        1 => Just(Step::End),
        3 => Just(Step::Kill),
        4 => (cut, any::<u64>()).prop_map(|(cut, seed)| Step::PowerCut { cut, seed }),
        1 => (any::<u8>(), any::<u16>(), any::<bool>())
            .prop_map(|(file, place, zeros)| Step::CutOff { file, place, zeros }),
        2 => (any::<u8>(), any::<u16>(), 0..8u8)
            .prop_map(|(file, place, bit)| Step::Flip { file, place, bit }),
        1 => any::<u8>().prop_map(|file| Step::Delete { file }),
        2 => (1..4u8).prop_map(Step::FailWrites),
        2 => (1..4u8).prop_map(Step::FailSyncs),
        1 => Just(Step::ReadOnly),
        1 => (0..20_000u16).prop_map(|left| Step::Full { left }),
        3 => Just(Step::Mend),
    ]
}

/// Does these steps; panics where spool and queue differ.
fn run(steps: &[Step]) {
    let mut world = World::new();
    for step in steps {
        world.step(*step);
    }
    world.settle();
}

#[test]
fn the_spool_is_a_queue_whatever_fails() {
    let number = |name: &str, or: u32| std::env::var(name).map_or(or, |text| text.parse().unwrap());
    let cases = number("FLOWPROXY_MODEL_CASES", CASES);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let seed = [number("FLOWPROXY_MODEL_SEED", 1).to_le_bytes(); 8].concat();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let steps = prop::collection::vec(step(), 1..STEPS);
    let ran = TestRunner::new_with_rng(config, rng).run(&steps, |steps| {
        run(&steps);
        Ok(())
    });
    if let Err(failed) = ran {
        panic!("{failed}");
    }
}

/// Found by the test above, each shrunk.
mod found {
    use super::Step::*;
    use super::*;

    #[test]
    fn what_was_acked_and_never_written_is_not_called_lost() {
        run(&[
            FailWrites(2),
            Append { batches: 6, bytes: 0 },
            FailWrites(2),
            Append { batches: 1, bytes: 0 },
            Ack { lane: 0, upto: 37 },
            Kill,
        ]);
    }

    #[test]
    fn a_segment_that_somebody_deleted_does_not_keep_room_from_being_made() {
        run(&[
            Append { batches: 1, bytes: 481 },
            Append { batches: 6, bytes: 1521 },
            NewLane,
            Append { batches: 7, bytes: 1177 },
            Delete { file: 64 },
            Append { batches: 5, bytes: 1009 },
            Append { batches: 4, bytes: 313 },
            NewLane,
            Append { batches: 2, bytes: 553 },
            Send { lane: 0, count: 3 },
            Append { batches: 7, bytes: 1073 },
            Append { batches: 2, bytes: 793 },
            Append { batches: 6, bytes: 1113 },
        ]);
    }

    #[test]
    fn nothing_is_left_in_the_spool_of_a_lane_that_is_set_aside() {
        run(&[
            Append { batches: 1, bytes: 0 },
            Append { batches: 4, bytes: 661 },
            Ack { lane: 0, upto: 214 },
            Append { batches: 1, bytes: 357 },
            Append { batches: 3, bytes: 989 },
            FailWrites(1),
            Ack { lane: 0, upto: 205 },
            ReadOnly,
            SetAside { lane: 0 },
            Mend,
            Append { batches: 5, bytes: 637 },
            Append { batches: 1, bytes: 0 },
        ]);
    }

    #[test]
    fn a_power_cut_brings_nothing_back_of_a_lane_that_was_done_with() {
        run(&[
            Append { batches: 1, bytes: 0 },
            Append { batches: 4, bytes: 661 },
            Ack { lane: 0, upto: 214 },
            Append { batches: 1, bytes: 357 },
            Append { batches: 3, bytes: 989 },
            FailWrites(1),
            Ack { lane: 0, upto: 205 },
            Full { left: 0 },
            SetAside { lane: 0 },
            Mend,
            Append { batches: 5, bytes: 637 },
            PowerCut { cut: Cut::Nothing, seed: 0 },
        ]);
    }

    #[test]
    fn what_a_power_cut_brings_back_has_the_numbers_that_it_was_given() {
        run(&[
            FailWrites(2),
            FailSyncs(2),
            Append { batches: 4, bytes: 181 },
            Ack { lane: 0, upto: 52 },
            FailWrites(2),
            Append { batches: 1, bytes: 0 },
            Full { left: 0 },
            Kill,
            PowerCut { cut: Cut::Some, seed: 1_603_021_290_455_776_301 },
        ]);
    }

    #[test]
    fn a_row_of_what_was_dropped_is_not_taken_for_one_of_a_lane_that_is_done_with() {
        run(&[
            Append { batches: 1, bytes: 597 },
            Full { left: 0 },
            Pass { millis: 20 },
            FailSyncs(2),
            Append { batches: 6, bytes: 373 },
            CutOff { file: 0, place: 0, zeros: false },
            PowerCut { cut: Cut::Nothing, seed: 0 },
        ]);
    }

    #[test]
    fn a_row_that_was_never_durable_may_go_while_its_batch_is_there() {
        run(&[
            Append { batches: 2, bytes: 109 },
            Pass { millis: 20 },
            Append { batches: 1, bytes: 1421 },
            FailSyncs(3),
            Append { batches: 3, bytes: 453 },
            Full { left: 0 },
            Ack { lane: 0, upto: 37 },
            End,
            PowerCut { cut: Cut::Nothing, seed: 0 },
        ]);
    }

    #[test]
    fn a_deleted_segment_takes_nothing_with_it_that_is_still_in_memory() {
        run(&[
            Append { batches: 3, bytes: 1165 },
            FailWrites(3),
            Append { batches: 1, bytes: 0 },
            Delete { file: 0 },
            Look,
            Look,
        ]);
    }

    #[test]
    fn nothing_is_left_in_the_spool_of_a_lane_that_is_closed() {
        run(&[
            Append { batches: 1, bytes: 0 },
            Append { batches: 4, bytes: 797 },
            ReadOnly,
            NewLane,
            Ack { lane: 0, upto: 214 },
            Close { lane: 0 },
        ]);
    }

    #[test]
    fn a_file_that_was_given_up_and_removed_may_go_at_a_power_cut() {
        run(&[
            Append { batches: 5, bytes: 1165 },
            Append { batches: 1, bytes: 0 },
            End,
            CutOff { file: 0, place: 32768, zeros: false },
            Append { batches: 1, bytes: 0 },
            Flip { file: 183, place: 3584, bit: 0 },
            FailSyncs(2),
            Append { batches: 3, bytes: 1109 },
            Reject { lane: 128, place: 64 },
            PowerCut { cut: Cut::Everything, seed: 0 },
        ]);
    }

    #[test]
    fn what_was_acked_may_be_called_lost_when_all_that_stood_behind_it_has_gone_too() {
        run(&[
            Append { batches: 3, bytes: 797 },
            Append { batches: 4, bytes: 933 },
            CutOff { file: 0, place: 22158, zeros: true },
            NewLane,
            End,
            End,
            Append { batches: 6, bytes: 0 },
            Ack { lane: 128, upto: 37 },
            Append { batches: 1, bytes: 0 },
            PowerCut { cut: Cut::Some, seed: 16_637_039_573_822_052_487 },
            CutOff { file: 0, place: 0, zeros: false },
        ]);
    }

    #[test]
    fn what_a_start_called_lost_and_could_not_write_down_is_written_down_later() {
        run(&[
            Append { batches: 3, bytes: 29 },
            Append { batches: 2, bytes: 341 },
            Append { batches: 6, bytes: 317 },
            Append { batches: 4, bytes: 0 },
            Pass { millis: 20 },
            FailSyncs(1),
            Append { batches: 3, bytes: 589 },
            Pass { millis: 1 },
            Append { batches: 1, bytes: 1557 },
            FailWrites(1),
            CutOff { file: 128, place: 1760, zeros: false },
            Append { batches: 1, bytes: 0 },
            FailWrites(1),
        ]);
    }

    #[test]
    fn what_a_failing_disk_was_left_with_at_the_end_is_synced_by_the_next_start() {
        run(&[
            Append { batches: 1, bytes: 0 },
            Pass { millis: 20 },
            Append { batches: 1, bytes: 0 },
            FailWrites(3),
            End,
            FailWrites(1),
        ]);
    }

    #[test]
    fn what_was_acked_and_went_at_a_power_cut_counts_for_nothing_when_it_is_dropped() {
        run(&[
            Append { batches: 2, bytes: 933 },
            Append { batches: 1, bytes: 117 },
            Ack { lane: 0, upto: 192 },
            FailWrites(1),
            PowerCut { cut: Cut::Some, seed: 83_067_839_565_472_916 },
            Append { batches: 1, bytes: 0 },
            Close { lane: 0 },
            Append { batches: 5, bytes: 133 },
            Append { batches: 7, bytes: 245 },
            Full { left: 0 },
            Append { batches: 1, bytes: 0 },
            Append { batches: 1, bytes: 0 },
            Append { batches: 1, bytes: 0 },
            Append { batches: 1, bytes: 0 },
            Append { batches: 2, bytes: 1101 },
        ]);
    }

    #[test]
    fn a_row_goes_only_behind_a_position_that_is_durable() {
        run(&[
            Append { batches: 2, bytes: 0 },
            Reject { lane: 0, place: 0 },
            NewLane,
            Pass { millis: 1 },
            Append { batches: 1, bytes: 0 },
            FailSyncs(3),
            Ack { lane: 128, upto: 128 },
            Ack { lane: 0, upto: 86 },
            CutOff { file: 0, place: 3520, zeros: true },
            Full { left: 0 },
            Append { batches: 1, bytes: 0 },
            PowerCut { cut: Cut::Nothing, seed: 0 },
            Append { batches: 1, bytes: 0 },
        ]);
    }

    #[test]
    fn what_has_been_moved_of_a_lane_that_is_set_aside_is_durable() {
        run(&[
            Append { batches: 1, bytes: 765 },
            SetAside { lane: 0 },
            Full { left: 7128 },
            Append { batches: 4, bytes: 837 },
            FailWrites(2),
            SetAside { lane: 0 },
        ]);
    }
}
