//! What goes wrong, and when: drawn by a seed.
//!
//! Pure. Parts that are hit already are not hit again, but for a proxy that stops, which may be killed at it.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Between two faults, in milliseconds; what is over the half of five seconds is for a moment at which nothing can
/// be hit.
const PAUSE_MS: RangeInclusive<u64> = 800..=2_800;
/// One of three comes right after the one before: what is hit in the middle of something else breaks more.
const SHORT_PAUSE_MS: RangeInclusive<u64> = 20..=500;
/// How long a process is away, the link down, a sink stalled, in milliseconds.
const AWAY_MS: RangeInclusive<u64> = 50..=1_500;
const LASTS_MS: RangeInclusive<u64> = 200..=3_500;
const DELAY_MS: RangeInclusive<u64> = 20..=200;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// kill -9, and a start after so long.
    ProxyKilled(Duration),
    /// SIGTERM, and a start so long after its end.
    ProxyStopped(Duration),
    /// kill -9, and a start after so long.
    CollectorKilled(Duration),
    /// SIGTERM, and a start so long after its end.
    CollectorDrained(Duration),
    /// The collector's sink takes nothing for so long.
    SinkStalled(Duration),
    /// All connections end, and none is made for so long.
    LinkCut(Duration),
    /// Nothing passes for so long.
    LinkStalled(Duration),
    /// Connections end in the direction of the collector only.
    LinkHalfClosed,
    /// Whatever passes takes longer by `by`.
    LinkDelayed {
        /// The delay.
        by: Duration,
        /// For so long.
        lasts: Duration,
    },
}

impl fmt::Display for Mishap {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProxyKilled(away) => write!(text, "the proxy is killed (kill -9), back after {away:?}"),
            Self::ProxyStopped(away) => write!(text, "the proxy is stopped in order, back {away:?} later"),
            Self::CollectorKilled(away) => {
                write!(text, "the collector is killed (kill -9), back after {away:?}")
            }
            Self::CollectorDrained(away) => write!(text, "the collector is drained, back {away:?} later"),
            Self::SinkStalled(lasts) => write!(text, "the collector's sink stalls for {lasts:?}"),
            Self::LinkCut(lasts) => write!(text, "the link is cut for {lasts:?}"),
            Self::LinkStalled(lasts) => write!(text, "the link stalls for {lasts:?}"),
            Self::LinkHalfClosed => write!(text, "the link is closed in one direction"),
            Self::LinkDelayed { by, lasts } => write!(text, "the link is slower by {by:?} for {lasts:?}"),
        }
    }
}

/// What can be hit now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    /// The proxy runs, or stops.
    pub proxy: bool,
    /// The proxy runs and does not stop.
    pub proxy_at_work: bool,
    /// The same of the collector.
    pub collector: bool,
    /// The same of the collector.
    pub collector_at_work: bool,
    /// The sink takes what comes.
    pub sink: bool,
    /// Nothing is wrong with the link.
    pub link: bool,
}

/// The course of faults.
#[derive(Debug)]
pub struct Chance(StdRng);

impl Chance {
    /// The course of a seed.
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// How long until the next fault.
    pub fn pause(&mut self) -> Duration {
        let short = self.0.random_ratio(1, 3);
        self.span(if short { SHORT_PAUSE_MS } else { PAUSE_MS })
    }

    /// A fault of what can be hit; `None` if nothing can.
    pub fn mishap(&mut self, targets: &Targets) -> Option<Mishap> {
        // All are drawn, so that those to come do not hang on what could be hit.
        let (away, lasts, by) = (self.span(AWAY_MS), self.span(LASTS_MS), self.span(DELAY_MS));
        let all = [
            (targets.proxy, Mishap::ProxyKilled(away)),
            (targets.proxy_at_work, Mishap::ProxyStopped(away)),
            (targets.collector, Mishap::CollectorKilled(away)),
            (targets.collector_at_work, Mishap::CollectorDrained(away)),
            (targets.collector_at_work && targets.sink, Mishap::SinkStalled(lasts)),
            (targets.link, Mishap::LinkCut(lasts)),
            (targets.link, Mishap::LinkStalled(lasts)),
            (targets.link, Mishap::LinkHalfClosed),
            (targets.link, Mishap::LinkDelayed { by, lasts }),
        ];
        let possible: Vec<Mishap> = all.into_iter().filter(|(can, _)| *can).map(|(_, it)| it).collect();
        let drawn: usize = self.0.random_range(0..all.len());
        possible.get(drawn * possible.len() / all.len()).copied()
    }

    fn span(&mut self, ms: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.0.random_range(ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::mem::discriminant;

    const ALL: Targets = Targets {
        proxy: true,
        proxy_at_work: true,
        collector: true,
        collector_at_work: true,
        sink: true,
        link: true,
    };
    const NONE: Targets = Targets {
        proxy: false,
        proxy_at_work: false,
        collector: false,
        collector_at_work: false,
        sink: false,
        link: false,
    };

    #[test]
    fn a_seed_gives_the_same_course_and_all_kinds_come() {
        let course = |seed| {
            let mut chance = Chance::new(seed);
            (0..200).map(|_| (chance.pause(), chance.mishap(&ALL).unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(course(7), course(7));
        assert_ne!(course(7), course(8));
        let kinds: HashSet<_> = course(7).iter().map(|(_, mishap)| discriminant(mishap)).collect();
        assert_eq!(kinds.len(), 9);
        assert!(course(7).iter().all(|(pause, _)| *pause < Duration::from_secs(3)));
    }

    #[test]
    fn only_what_can_be_hit_is_hit() {
        let mut chance = Chance::new(1);
        for _ in 0..100 {
            assert_eq!(chance.mishap(&NONE), None);
            let proxy = chance.mishap(&Targets { proxy: true, ..NONE });
            assert!(matches!(proxy, Some(Mishap::ProxyKilled(_))), "{proxy:?}");
            let sink = chance.mishap(&Targets { sink: true, collector: true, ..NONE });
            assert!(matches!(sink, Some(Mishap::CollectorKilled(_))), "{sink:?}");
        }
    }

    #[test]
    fn each_is_said_in_words() {
        let said = Mishap::ProxyKilled(Duration::from_millis(300)).to_string();
        assert_eq!(said, "the proxy is killed (kill -9), back after 300ms");
    }
}
