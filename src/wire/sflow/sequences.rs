//! Sequence numbers of sFlow: of datagrams by agent and sub-agent, of samples by their kind and source, and what the
//! agent says it has lost itself.
//!
//! A relay sends for many agents from one port, so the agent is part of the key. The table is bounded; a source that
//! was forgotten begins anew without a gap.

use super::structures::Address;
use super::{Sample, Source};
use crate::flow::{Exporter, Run};
use crate::wire::generations::Generations;
use crate::wire::track::{SampleSteps, Uptime};
use crate::wire::{Arrival, Sequence, Step};

/// Sequences that are kept.
const MOST_SEQUENCES: usize = 32_768;

/// What a sequence counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    exporter: Exporter,
    agent: Address,
    sub_agent: u32,
    /// A kind of sample and its source; `None`: datagrams.
    of: Option<(i32, Source)>,
}

#[derive(Debug, Default)]
struct Count {
    sequence: Sequence,
    /// Of datagrams.
    uptime: Uptime,
    /// What the agent had lost of these samples.
    drops: Option<u32>,
}

/// The table, and what it says of the datagram in hand.
#[derive(Debug)]
pub(super) struct Sequences {
    counts: Generations<Key, Count>,
    datagram: Key,
    has_restarted: bool,
    steps: SampleSteps,
}

impl Default for Sequences {
    fn default() -> Sequences {
        let exporter = Exporter { address: [0; 4].into(), port: 0 };
        Sequences {
            counts: Generations::new(MOST_SEQUENCES),
            datagram: Key { exporter, agent: Address::Unknown, sub_agent: 0, of: None },
            has_restarted: false,
            steps: SampleSteps::default(),
        }
    }
}

impl Sequences {
    /// Takes a datagram's number. Its samples are told next.
    pub(super) fn datagram(&mut self, agent: Address, run: &Run, arrival: &Arrival) {
        self.datagram = Key { exporter: run.exporter, agent, sub_agent: run.domain, of: None };
        let count = self.counts.get_or_insert_with(self.datagram, Count::default);
        self.has_restarted = count.uptime.advance(run, arrival);
        let datagram = count.sequence.take(run.sequence, Some(1), self.has_restarted);
        self.steps = SampleSteps { datagram, ..SampleSteps::default() };
    }

    /// Takes a sample's number.
    pub(super) fn sample(&mut self, sample: &Sample<'_>) {
        let key = Key { of: Some((sample.kind as i32, sample.source)), ..self.datagram };
        let count = self.counts.get_or_insert_with(key, Count::default);
        let step = count.sequence.take(sample.sequence, Some(1), self.has_restarted);
        let steps = &mut self.steps;
        match step {
            // It is older than what was counted last.
            Some(Step::Late(late)) => {
                steps.late = steps.late.saturating_add(late);
                return;
            }
            Some(Step::Duplicate) => return,
            Some(Step::Reset) => count.drops = None,
            Some(Step::Gap(missing)) => steps.missing = steps.missing.saturating_add(missing),
            Some(Step::Dropped(_)) | None => {}
        }
        let Some(drops) = sample.drops else { return };
        let more = drops.wrapping_sub(count.drops.replace(drops).unwrap_or(drops));
        // A count that went back has begun anew.
        if more <= u32::MAX / 2 {
            steps.dropped = steps.dropped.saturating_add(more);
        }
    }

    /// By its uptime the agent has started anew since the last datagram.
    pub(super) fn has_restarted(&self) -> bool {
        self.has_restarted
    }

    /// What the numbers of the datagram and its samples say.
    pub(super) fn steps(&self) -> &SampleSteps {
        &self.steps
    }
}

#[cfg(test)]
mod tests {
    use crate::flow::{Exporter, Run};
    use crate::wire::{Arrival, Decoder, Fault, Output, Place, Settings, Step, Template, Unit};

    #[derive(Default)]
    struct Steps(Vec<(Unit, Step)>);

    impl Output for Steps {
        fn records(&mut self, _: &Run, _: &Template, _: &[u8], _: &[u32], _: u32) {}
        fn fault(&mut self, fault: Fault, _: Place) {
            panic!("{fault}");
        }
        fn set(&mut self) {}
        fn sequence(&mut self, unit: Unit, step: Step) {
            self.0.push((unit, step));
        }
    }

    /// A flow sample: its sequence, source and the agent's drops; a counter sample without drops.
    type Sample = (u32, u32, Option<u32>);

    fn datagram(agent: u32, sequence: u32, samples: &[Sample]) -> Vec<u8> {
        let head = [5, 1, agent, 7, sequence, 1_000, samples.len() as u32];
        let sample = |&(sequence, source, drops): &Sample| match drops {
            Some(drops) => vec![1, 32, sequence, source, 100, 5_000, drops, 1, 2, 0],
            None => vec![2, 12, sequence, source, 0],
        };
        let numbers = head.into_iter().chain(samples.iter().flat_map(sample));
        numbers.flat_map(u32::to_be_bytes).collect()
    }

    struct Bench(Decoder);

    impl Bench {
        fn new() -> Bench {
            Bench(Decoder::new(Settings::default()))
        }

        fn send(&mut self, bytes: &[u8]) -> Vec<(Unit, Step)> {
            let exporter = Exporter { address: [192, 0, 2, 9].into(), port: 6_343 };
            let mut steps = Steps::default();
            let arrival = Arrival { exporter, received: 0, elapsed: 0, number: 0 };
            self.0.datagram(&arrival, bytes, &mut steps).unwrap();
            steps.0
        }
    }

    #[test]
    fn quirk_58_datagrams_and_samples_have_their_own_numbers() {
        let mut bench = Bench::new();
        assert_eq!(bench.send(&datagram(1, 10, &[(100, 3, Some(0)), (7, 4, Some(0)), (9, 3, None)])), []);
        assert_eq!(bench.send(&datagram(1, 11, &[(101, 3, Some(0)), (102, 3, Some(0)), (10, 3, None)])), []);
        let steps = bench.send(&datagram(1, 13, &[(105, 3, Some(0)), (9, 4, Some(0)), (11, 3, None)]));
        assert_eq!(steps, [(Unit::Datagrams, Step::Gap(1)), (Unit::Samples, Step::Gap(3))]);
        let steps = bench.send(&datagram(1, 12, &[(103, 3, Some(0)), (104, 3, Some(0)), (8, 4, Some(0))]));
        assert_eq!(steps, [(Unit::Datagrams, Step::Late(1)), (Unit::Samples, Step::Late(3))]);
        assert_eq!(bench.send(&datagram(1, 12, &[(103, 3, Some(0))])), [(Unit::Datagrams, Step::Duplicate)]);
        let sender = bench.0.senders().next().unwrap();
        let track = sender.track.unwrap();
        assert_eq!((track.missing, track.late, track.duplicates), (1, 1, 1));
        assert_eq!((track.samples_missing, track.samples_late), (3, 3));
    }

    #[test]
    fn what_the_agent_has_lost_is_counted_once_by_source() {
        let mut bench = Bench::new();
        assert_eq!(bench.send(&datagram(1, 1, &[(1, 3, Some(50)), (1, 4, Some(u32::MAX))])), []);
        let steps = bench.send(&datagram(1, 2, &[(2, 3, Some(55)), (2, 4, Some(2)), (3, 3, Some(55))]));
        assert_eq!(steps, [(Unit::Samples, Step::Dropped(8))]);
        assert_eq!(bench.send(&datagram(1, 3, &[(4, 3, Some(1))])), [], "the count has begun anew");
        assert_eq!(bench.send(&datagram(1, 4, &[(5, 3, Some(2))])), [(Unit::Samples, Step::Dropped(1))]);
    }

    #[test]
    fn quirk_52_agents_behind_one_address_have_their_own_numbers() {
        let mut bench = Bench::new();
        for sequence in 1..20 {
            for agent in 1..5 {
                let sample = (sequence + agent, 3, Some(0));
                assert_eq!(bench.send(&datagram(agent, sequence + 1_000 * agent, &[sample])), []);
            }
        }
    }

    #[test]
    fn a_flood_of_sources_stays_under_the_cap() {
        let mut bench = Bench::new();
        for round in 0..500 {
            let samples: Vec<Sample> = (0..150).map(|index| (1, round * 150 + index, Some(0))).collect();
            bench.send(&datagram(1, round, &samples));
        }
        assert!(bench.0.samples.sequences.counts.len() <= super::MOST_SEQUENCES);
    }
}
