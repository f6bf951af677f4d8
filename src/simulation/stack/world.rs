//! The network with all that runs on it, step by step, and what goes wrong by the seed.

use super::Outcome;
use super::collector::Collector;
use super::keys::{COLLECTOR, PROXIES, keys};
use super::notes::Notes;
use super::proxy::{Habits, Proxy};
use crate::batch::Digest;
use crate::simulation::store::Death;
use crate::simulation::{CLOCK, segments};
use crate::storage::memory::Cut;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use turmoil::Sim;

/// The network moves on by this.
const TICK: Duration = Duration::from_millis(10);
/// How often things go wrong for a while and all is well again, and how long they go wrong.
const ROUNDS: u32 = 3;
const TROUBLE: Duration = Duration::from_secs(20);
/// The most that may pass after that until all is delivered: the longest waits of an uplink, one after the other.
const REST: Duration = Duration::from_secs(400);
/// Once all is delivered, proxies end within this: a moment for the writer, one for the goodbye.
const LAST_MOMENTS: Duration = Duration::from_secs(10);
/// The most that the network takes for a segment once all is well.
const CALM_LATENCY_MS: u64 = 50;
/// Between two things that go wrong, on average.
const PEACE: Duration = Duration::from_secs(4);

/// What may go wrong in a world.
#[derive(Clone, Copy, Debug)]
struct Troubles {
    kills: bool,
    power: bool,
    deaths: bool,
    stops: bool,
    partitions: bool,
    silence: bool,
    slowness: bool,
    stalls: bool,
    jumps: bool,
}

/// What ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// The process is started again.
    Down,
    /// The link works again, and what was held on it comes.
    Cut,
}

/// See the module.
pub struct World {
    sim: Sim<'static>,
    rng: StdRng,
    troubles: Troubles,
    notes: Arc<Notes>,
    proxies: Vec<Arc<Proxy>>,
    collector: Arc<Collector>,
    /// What is to end, when, and on which host: its process, or its link to the collector.
    ends: Vec<(Duration, Until, &'static str)>,
    /// The most that the network takes for a segment.
    latency_ms: u64,
    faults: u32,
    /// Nothing goes wrong any more.
    calm: bool,
    /// Proxies that have ended stay so.
    over: bool,
}

impl World {
    /// A world of this seed, at its beginning.
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        CLOCK.with(|clock| clock.set((1_795_442_400_000, seed << 32)));
        let troubles = Troubles {
            kills: rng.random_bool(0.6),
            power: rng.random_bool(0.5),
            deaths: rng.random_bool(0.5),
            stops: rng.random_bool(0.5),
            partitions: rng.random_bool(0.6),
            silence: rng.random_bool(0.5),
            slowness: rng.random_bool(0.3),
            stalls: rng.random_bool(0.4),
            jumps: rng.random_bool(0.2),
        };
        let habits = Habits {
            max_rate: rng.random_bool(0.3).then(|| rng.random_range(2_000..20_000)),
            max_connection_age: Duration::from_secs(if rng.random_bool(0.5) {
                rng.random_range(10..120)
            } else {
                86_400
            }),
            fresh_after: Duration::from_secs(rng.random_range(2..60)),
            poison: rng.random_bool(0.3),
            max_bytes: if rng.random_bool(0.3) { 48 << 10 } else { 1 << 20 },
            pause_ms: rng.random_range(150..1_200),
        };
        let notes = Arc::new(Notes::default());
        notes.tell(0, &format!("seed {seed}, {troubles:?}, {habits:?}"));
        keys();
        let proxy = |place| Arc::new(Proxy::new(place, rng.random(), habits.clone(), notes.clone()));
        let proxies: Vec<Arc<Proxy>> = (0..PROXIES.len()).map(proxy).collect();
        let collector = Arc::new(Collector::new(rng.random(), notes.clone()));
        let sim = network(&mut rng, &collector, &proxies);
        let mut world = Self {
            latency_ms: rng.random_range(5..300),
            sim,
            rng,
            troubles,
            notes,
            proxies,
            collector,
            ends: Vec::new(),
            faults: 0,
            calm: false,
            over: false,
        };
        PROXIES.iter().for_each(|host| world.change_latency(host));
        world
    }

    /// Lets things go wrong for a while, then lets all be delivered, a few times, and adds up.
    pub fn run(&mut self) {
        for _ in 0..ROUNDS {
            self.be_calm(false);
            self.latency_ms = self.rng.random_range(5..300);
            let end = self.sim.elapsed() + TROUBLE;
            while self.sim.elapsed() < end {
                self.step();
                if self.rng.random_bool(TICK.div_duration_f64(PEACE)) {
                    self.trouble();
                }
            }
            self.heal();
            self.until(REST, "what is spooled is never delivered", |world| {
                world.proxies.iter().all(|proxy| proxy.is_delivered())
            });
            self.tell("all is delivered");
        }
        self.over = true;
        self.proxies.iter().for_each(|proxy| proxy.stop());
        self.until(LAST_MOMENTS, "a proxy does not end", |world| {
            PROXIES.iter().all(|name| !world.sim.is_host_running(*name))
        });
        let aside: BTreeSet<Digest> =
            self.proxies.iter().flat_map(|proxy| segments::aside(proxy.disk())).collect();
        self.notes.oracle().settle(self.collector.disk(), &aside);
    }

    fn until(&mut self, most: Duration, otherwise: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = self.sim.elapsed() + most;
        while !done(self) {
            assert!(self.sim.elapsed() < deadline, "{otherwise}: {:#?}", self.stand());
            self.step();
        }
    }

    /// What came of it.
    pub fn outcome(&self) -> Outcome {
        Outcome {
            batches: self.notes.oracle().made(),
            faults: self.faults,
            connections: self.proxies.iter().map(|proxy| proxy.connections()).sum(),
            took: self.sim.elapsed(),
            trace: self.notes.traced(),
        }
    }

    /// What happened last.
    pub fn story(&self) -> String {
        self.notes.lines()
    }

    fn stand(&self) -> Vec<String> {
        self.proxies.iter().map(|proxy| proxy.stand()).collect()
    }

    fn ms(&self) -> u128 {
        self.sim.elapsed().as_millis()
    }

    fn tell(&self, what: &str) {
        self.notes.tell(self.ms(), what);
    }

    fn step(&mut self) {
        if self.rng.random_bool(0.05) {
            let host = self.proxies[self.rng.random_range(0..self.proxies.len())].name();
            self.change_latency(host);
        }
        self.sim.step().expect("a host has panicked");
        let ms = TICK.as_millis() as u64;
        CLOCK.with(|clock| clock.set((clock.get().0 + ms, clock.get().1)));
        self.proxies.iter().for_each(|proxy| proxy.assert_ledger());
        if self.collector.is_dead() && self.sim.is_host_running(COLLECTOR) {
            self.tell("the collector dies of a change");
            self.crash(COLLECTOR);
            self.down(COLLECTOR);
        }
        self.notice_ends();
        let now = self.sim.elapsed();
        let (due, left) = std::mem::take(&mut self.ends).into_iter().partition(|(at, ..)| *at <= now);
        self.ends = left;
        let due: Vec<(Duration, Until, &'static str)> = due;
        due.into_iter().for_each(|(_, until, host)| self.end(until, host));
        if self.rng.random_bool(0.01) {
            self.notes.oracle().look(self.collector.disk());
        }
    }

    /// A link has one latency at a time: if it were drawn for each segment, the order in which tasks of one instant send
    /// would decide who draws what, and that order is not in the seed's hands.
    fn change_latency(&mut self, host: &'static str) {
        let ms = self.rng.random_range(1..=self.latency_ms);
        self.sim.set_link_latency(host, COLLECTOR, Duration::from_millis(ms));
    }

    /// Processes that have ended in order.
    fn notice_ends(&mut self) {
        let hosts = PROXIES.iter().chain([&COLLECTOR]);
        for host in hosts {
            let planned = self.ends.iter().any(|(_, until, other)| *until == Until::Down && other == host);
            if planned || self.sim.is_host_running(*host) {
                continue;
            }
            if let Some(proxy) = self.proxies.iter().find(|proxy| proxy.name() == *host) {
                proxy.ended();
                if self.over {
                    continue;
                }
            }
            self.tell(&format!("{host} has ended in order"));
            self.down(host);
        }
    }

    /// The process starts again after a while.
    fn down(&mut self, host: &'static str) {
        let most_ms = if self.rng.random_bool(0.2) { 20_000 } else { 2_000 };
        let ms = if self.calm { 0 } else { self.rng.random_range(0..most_ms) };
        self.ends.push((self.sim.elapsed() + Duration::from_millis(ms), Until::Down, host));
    }

    fn end(&mut self, until: Until, host: &'static str) {
        match until {
            Until::Down => {
                self.tell(&format!("{host} starts"));
                self.sim.bounce(host);
            }
            Until::Cut => {
                self.tell(&format!("the link of {host} works again"));
                self.sim.release(host, COLLECTOR);
            }
        }
    }

    /// All that is down starts, all links work, nothing goes wrong any more.
    fn heal(&mut self) {
        self.tell("all is well from now on");
        self.be_calm(true);
        self.collector.stall(Duration::ZERO);
        self.latency_ms = CALM_LATENCY_MS;
        self.proxies.clone().iter().for_each(|proxy| self.change_latency(proxy.name()));
        let ends = std::mem::take(&mut self.ends);
        ends.into_iter().for_each(|(_, until, host)| self.end(until, host));
    }

    fn be_calm(&mut self, calm: bool) {
        self.calm = calm;
        self.proxies.iter().for_each(|proxy| proxy.calm(calm));
    }

    /// Something goes wrong, of what may in this world.
    fn trouble(&mut self) {
        let troubles = self.troubles;
        let may = [
            (troubles.kills, 0),
            (troubles.kills, 1),
            (troubles.power, 2),
            (troubles.power, 3),
            (troubles.deaths, 4),
            (troubles.stops, 5),
            (troubles.stops, 6),
            (troubles.partitions, 7),
            (troubles.partitions, 8),
            (troubles.silence, 9),
            (troubles.slowness, 10),
            (troubles.stalls, 11),
            (troubles.jumps, 12),
            (true, 13),
        ];
        let may: Vec<u32> = may.iter().filter(|(may, _)| *may).map(|(_, what)| *what).collect();
        let what = may.choose(&mut self.rng).copied().unwrap_or_default();
        let proxy = self.proxies[self.rng.random_range(0..self.proxies.len())].clone();
        let host = if matches!(what, 1 | 3 | 5) { COLLECTOR } else { proxy.name() };
        if !self.sim.is_host_running(host) {
            return;
        }
        self.faults += 1;
        match what {
            0 | 1 => self.kill(host),
            2 | 3 => self.lose_power(host),
            4 => {
                let death = if self.rng.random_bool(0.5) { Death::Before } else { Death::After };
                self.tell(&format!("the collector is to die {death:?} its next change"));
                self.collector.die(death);
            }
            5 => {
                self.tell("the collector is to stop");
                self.collector.stop();
            }
            6 => {
                self.tell(&format!("{host} is to stop"));
                proxy.stop();
            }
            7..=9 => self.cut_link(host, what),
            10 => {
                self.latency_ms = self.rng.random_range(10..3_000);
                self.tell(&format!("the network takes up to {} ms", self.latency_ms));
            }
            11 => {
                let ms = self.rng.random_range(1_000..90_000);
                self.tell(&format!("the commit stalls for {ms} ms"));
                self.collector.stall(Duration::from_millis(ms));
            }
            12 => self.jump(),
            _ => {
                self.tell(&format!("{host} begins a new lane"));
                proxy.new_lane();
            }
        }
    }

    fn crash(&mut self, host: &'static str) {
        self.sim.crash(host);
    }

    fn kill(&mut self, host: &'static str) {
        self.tell(&format!("{host} is killed"));
        self.crash(host);
        if let Some(proxy) = self.proxies.iter().find(|proxy| proxy.name() == host) {
            proxy.killed();
        }
        self.down(host);
    }

    /// A machine without power says goodbye to nobody.
    fn lose_power(&mut self, host: &'static str) {
        let cut = *[Cut::Nothing, Cut::Everything, Cut::Some].choose(&mut self.rng).expect("there are some");
        self.tell(&format!("{host} loses its power: {cut:?}"));
        let others: Vec<&'static str> = if host == COLLECTOR { PROXIES.to_vec() } else { vec![COLLECTOR] };
        others.iter().for_each(|other| self.sim.partition(host, *other));
        self.crash(host);
        others.iter().for_each(|other| self.sim.repair(host, *other));
        let cut_links = |(_, until, proxy): &(Duration, Until, &'static str)| {
            *until == Until::Cut && (host == COLLECTOR || *proxy == host)
        };
        self.ends.retain(|end| !cut_links(end));
        match self.proxies.iter().find(|proxy| proxy.name() == host) {
            Some(proxy) => proxy.cut(cut),
            None => self.collector.cut(cut),
        }
        self.down(host);
    }

    fn cut_link(&mut self, host: &'static str, how: u32) {
        if self.ends.iter().any(|(_, until, other)| *until == Until::Cut && *other == host) {
            return;
        }
        let how = match (how, self.rng.random_range(0..3)) {
            (9, _) => {
                self.sim.hold(host, COLLECTOR);
                "is silent"
            }
            (_, 0) => {
                self.sim.partition_oneway(host, COLLECTOR);
                "carries nothing up"
            }
            (_, 1) => {
                self.sim.partition_oneway(COLLECTOR, host);
                "carries nothing down"
            }
            _ => {
                self.sim.partition(host, COLLECTOR);
                "is cut"
            }
        };
        let most_ms = if self.rng.random_bool(0.3) { 45_000 } else { 3_000 };
        let ms = self.rng.random_range(50..most_ms);
        self.tell(&format!("the link of {host} {how} for {ms} ms"));
        self.ends.push((self.sim.elapsed() + Duration::from_millis(ms), Until::Cut, host));
    }

    fn jump(&mut self) {
        const HOUR_MS: u64 = 3_600_000;
        let forward = self.rng.random_bool(0.5);
        self.tell(if forward { "the clocks jump an hour ahead" } else { "the clocks jump an hour back" });
        CLOCK.with(|clock| {
            let (now, last) = clock.get();
            clock.set((if forward { now + HOUR_MS } else { now - HOUR_MS }, last));
        });
    }
}

fn network(rng: &mut StdRng, collector: &Arc<Collector>, proxies: &[Arc<Proxy>]) -> Sim<'static> {
    let mut sim = turmoil::Builder::new()
        .rng_seed(rng.random())
        .tick_duration(TICK)
        .simulation_duration(Duration::MAX)
        .tcp_capacity(1024)
        .build();
    let it = collector.clone();
    sim.host(COLLECTOR, move || it.clone().live());
    for proxy in proxies {
        let it = proxy.clone();
        sim.host(proxy.name(), move || it.clone().live());
    }
    sim
}
