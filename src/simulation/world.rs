//! Proxies, links and a collector, driven step by step by one seed.

use super::edge::Edge;
use super::far::Far;
use super::link::Link;
use super::oracle::{Committed, Oracle};
use super::segments;
use super::store::{Death, Store};
use super::{CLOCK, clock, identity, new_lane};
use crate::batch::Digest;
use crate::proto::ServerMessage;
use crate::proto::server_message::Message;
use crate::storage::memory::{Cut, Memory};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Steps in which things go wrong, and the most that may pass until all is well again.
const STEPS: usize = 600;
const REST: usize = 60_000;

/// What may go wrong in a world.
#[derive(Clone, Copy, Debug, Default)]
struct Troubles {
    kills: bool,
    power: bool,
    links: bool,
    disks: bool,
    backups: bool,
    clones: bool,
    far_backups: bool,
    damage: bool,
    poison: bool,
}

/// See the module.
pub struct World {
    rng: StdRng,
    troubles: Troubles,
    begun: Instant,
    now: Instant,
    edges: Vec<Edge>,
    far: Far,
    links: BTreeMap<u64, Link>,
    last_link: u64,
    oracle: Oracle,
    /// When nothing more goes wrong.
    calm: bool,
    poisoned: u32,
    edge_backup: Option<(usize, Memory)>,
    far_backup: Option<(Memory, Store, Committed)>,
    /// What happened last, for a failed seed.
    pub log: Vec<String>,
    /// How much went wrong.
    pub faults: u32,
}

impl World {
    /// A world of this seed, in which nothing runs yet.
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        CLOCK.with(|clock| clock.set((1_795_442_400_000, seed << 32)));
        let troubles = Troubles {
            kills: rng.random_bool(0.6),
            power: rng.random_bool(0.6),
            links: rng.random_bool(0.7),
            disks: rng.random_bool(0.4),
            backups: rng.random_bool(0.2),
            clones: rng.random_bool(0.15),
            far_backups: rng.random_bool(0.15),
            damage: rng.random_bool(0.15),
            poison: rng.random_bool(0.2),
        };
        let edges = (0..rng.random_range(1..3)).map(|place| Edge::new(place, Memory::default())).collect();
        let now = Instant::now();
        let mut oracle = Oracle::default();
        oracle.damaged = troubles.damage || troubles.backups;
        Self {
            rng,
            troubles,
            begun: now,
            now,
            edges,
            far: Far::new(Memory::default(), Store::default()),
            links: BTreeMap::new(),
            last_link: 0,
            oracle,
            calm: false,
            poisoned: 0,
            edge_backup: None,
            far_backup: None,
            log: vec![format!("seed {seed}, {troubles:?}")],
            faults: 0,
        }
    }

    /// Lets things go wrong for a while, then lets all be delivered, and adds up.
    pub fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
        }
        self.calm = true;
        self.heal();
        for rest in 0.. {
            assert!(rest < REST, "what is spooled is never delivered: {:?}", self.stand());
            self.step();
            if self.edges.iter().all(Edge::is_delivered)
                && self.edges.iter().all(|edge| edge.lanes().len() <= 1)
            {
                break;
            }
        }
        let aside: BTreeSet<Digest> =
            self.edges.iter().flat_map(|edge| segments::aside(&edge.disk)).collect();
        self.oracle.settle(&self.far.disk, &aside);
    }

    /// How many batches there were.
    pub fn made(&self) -> usize {
        self.oracle.made()
    }

    fn stand(&self) -> Vec<String> {
        self.edges.iter().map(|edge| format!("{:?}", edge.lanes())).collect()
    }

    fn log(&mut self, what: String) {
        tracing::info!("{what}");
        if self.log.len() > 400 {
            self.log.drain(1..200);
        }
        self.log.push(format!("{:?} {what}", self.now - self.begun));
    }

    fn heal(&mut self) {
        self.log("all is well from now on".to_owned());
        for edge in &mut self.edges {
            edge.disk.fail(|faults| *faults = Default::default());
        }
        self.far.disk.fail(|faults| *faults = Default::default());
        self.links.values_mut().for_each(|link| link.silent_until = None);
    }

    fn step(&mut self) {
        self.pass_time();
        if !self.calm && self.rng.random_bool(0.04) {
            self.trouble();
        }
        match self.rng.random_range(0..10) {
            0 | 1 => self.make(),
            2 | 3 => self.write(),
            4 | 5 => self.pump(),
            6 => self.arrive_up(),
            7 => self.commit(),
            8 => self.arrive_down(),
            _ => self.keep_up(),
        }
    }

    fn pass_time(&mut self) {
        let ms = match self.rng.random_range(0..100) {
            0 => self.rng.random_range(1_000..5_000),
            1 if !self.calm => self.rng.random_range(5_000..100_000),
            _ => self.rng.random_range(0..40),
        };
        self.now += Duration::from_millis(ms);
        CLOCK.with(|clock| clock.set((clock.get().0 + ms, clock.get().1)));
        if ms > 900 {
            self.tick();
        }
    }

    fn tick(&mut self) {
        for edge in &mut self.edges {
            edge.tick(self.now);
        }
        let links: Vec<u64> = self.links.keys().copied().collect();
        for number in links {
            self.with_link(number, |world, link| world.far.tick(link, world.now));
        }
    }

    /// Does something at the collector's end of a link and sends what comes of it.
    fn with_link(&mut self, number: u64, work: impl FnOnce(&mut Self, &mut Link) -> Vec<Message>) {
        let Some(mut link) = self.links.remove(&number) else { return };
        let messages = work(self, &mut link);
        for message in messages {
            self.far.check(number, &message, &self.oracle);
            let again =
                matches!(message, Message::Ack(_)) && self.troubles.links && self.rng.random_bool(0.1);
            let last = link.down.back().map_or(self.now, |(at, _)| *at);
            let at = last.max(self.now) + Duration::from_millis(self.rng.random_range(0..30));
            for _ in 0..=u32::from(again) {
                link.down.push_back((at, ServerMessage { message: Some(message.clone()) }));
            }
        }
        self.links.insert(number, link);
    }

    fn edge(&mut self) -> usize {
        self.rng.random_range(0..self.edges.len())
    }

    fn make(&mut self) {
        let place = self.edge();
        if self.calm {
            let full = self.rng.random_bool(0.3);
            if full && self.edges[place].is_up() {
                self.edges[place].close();
            }
            return;
        }
        if !self.edges[place].is_up() {
            return;
        }
        let poison = self.troubles.poison && self.poisoned < 2 && self.rng.random_bool(0.03);
        self.poisoned += u32::from(poison);
        let filler = self.rng.random_range(0..900);
        let (id, batch) = self.oracle.make(place, poison, filler);
        if !self.edges[place].offer(id, batch) {
            self.oracle.refused(id);
        }
    }

    fn write(&mut self) {
        let place = self.edge();
        self.edges[place].write(self.now, &mut self.oracle);
    }

    fn pump(&mut self) {
        let Some(number) = self.links.keys().copied().choose(&mut self.rng) else { return };
        let Some(link) = self.links.get_mut(&number) else { return };
        let (now, rng) = (self.now, &mut self.rng);
        let ended = self.edges[link.edge].pump(link, now, |link, message| {
            let last = link.up.back().map_or(now, |(at, _)| *at);
            link.up.push_back((last.max(now) + Duration::from_millis(rng.random_range(0..30)), message));
        });
        if let Some(end) = ended {
            link.edge_done = true;
            self.log(format!("link {number} ends at the proxy: {end:?}"));
        }
    }

    fn arrive_up(&mut self) {
        let Some(number) = self.links.keys().copied().choose(&mut self.rng) else { return };
        for _ in 0..self.rng.random_range(1..4) {
            self.with_link(number, |world, link| match link.arrived_up(world.now) {
                Some(message) => world.far.hear(link, Some(message), world.now),
                None if link.edge_done && link.up.is_empty() => world.far.hear(link, None, world.now),
                None => Vec::new(),
            });
        }
    }

    fn commit(&mut self) {
        let most = self.rng.random_range(1..8);
        if !self.far.commit(most, &mut self.oracle) {
            return self.far_dies("in a commit");
        }
        self.answer();
    }

    fn answer(&mut self) {
        let links: Vec<u64> = self.links.keys().copied().collect();
        for number in links {
            self.with_link(number, |world, link| world.far.answer(link, world.now));
        }
    }

    fn arrive_down(&mut self) {
        let Some(number) = self.links.keys().copied().choose(&mut self.rng) else { return };
        let Some(link) = self.links.get_mut(&number) else { return };
        if let Some(message) = link.arrived_down(self.now) {
            self.edges[link.edge].hear(number, message, self.now);
        } else if link.down.is_empty() && link.far_done {
            self.drop_link(number);
        }
    }

    fn drop_link(&mut self, number: u64) {
        if let Some(link) = self.links.remove(&number) {
            self.edges[link.edge].disconnected(number);
            self.far.disconnected(number);
        }
    }

    /// Starts what is down, connects what is not, looks at the files.
    fn keep_up(&mut self) {
        if !self.far.is_up() {
            self.far.start(clock);
        }
        let place = self.edge();
        if !self.edges[place].is_up() {
            // A sync that fails at the start leaves found frames to the kernel: a power cut after that may take
            // them, and they are declared lost. That is no fault of the spool, so it is left out here.
            self.edges[place].disk.fail(|faults| faults.failing_syncs = 0);
            let instance = self.rng.random();
            let set = |settings: &mut crate::spool::Settings| {
                (settings.clock, settings.new_lane) = (clock, new_lane);
            };
            self.edges[place].start(instance, set, &self.oracle);
        }
        let links = self.edges[place].links().len();
        let more = links == 0 || (links == 1 && self.rng.random_bool(0.02));
        if self.edges[place].is_up() && self.far.is_up() && more {
            self.last_link += 1;
            let number = self.last_link;
            self.links.insert(number, Link::new(number, place));
            self.edges[place].connect(number, self.now);
            self.far.accept(number, identity(self.edges[place].identity), self.now);
        } else if links == 2 && self.rng.random_bool(0.5) {
            let first = self.edges[place].links()[0];
            self.edges[place].leave(first, self.now);
        }
        if self.rng.random_bool(0.1) {
            self.oracle.look(&self.far.disk);
        }
    }

    /// Something goes wrong, of what may in this world.
    fn trouble(&mut self) {
        let troubles = self.troubles;
        let may = [
            (troubles.kills, 0),
            (troubles.kills, 1),
            (troubles.power, 2),
            (troubles.power, 3),
            (troubles.links, 4),
            (troubles.links, 5),
            (troubles.disks, 6),
            (troubles.disks, 7),
            (troubles.backups, 8),
            (troubles.clones, 9),
            (troubles.far_backups, 10),
            (troubles.damage, 11),
            (troubles.kills || troubles.power, 12),
            (true, 13),
        ];
        let may: Vec<u32> = may.iter().filter(|(may, _)| *may).map(|(_, what)| *what).collect();
        let place = self.edge();
        self.faults += 1;
        match may.choose(&mut self.rng).copied().unwrap_or_default() {
            0 => self.edge_dies(place, None),
            1 => self.far_dies("by a kill"),
            2 => self.edge_loses_power(place),
            3 => self.far_loses_power(),
            4 => self.cut_a_link(),
            5 => self.silence_a_link(),
            6 => self.edge_disk_fails(place),
            7 => self.far.disk.fail(|faults| (faults.failing_syncs, faults.failing_writes) = (1, 1)),
            8 => self.back_up_or_restore_edge(place),
            9 => self.clone_edge(place),
            10 => self.back_up_or_restore_far(),
            11 => self.damage(place),
            12 => {
                let death = if self.rng.random_bool(0.5) { Death::Before } else { Death::After };
                self.log(format!("the collector is to die {death:?} its next change"));
                self.far.store.die(death);
            }
            _ => self.edges[place].new_lane(),
        }
    }

    fn edge_dies(&mut self, place: usize, held: Option<BTreeSet<Digest>>) {
        self.log(format!("proxy {place} dies"));
        for link in self.edges[place].links() {
            self.drop_link(link);
        }
        let edge = &mut self.edges[place];
        edge.die();
        edge.disk.kill();
        // What a failed sync left with the kernel is found by the next start, and a power cut takes it later.
        self.oracle.damaged |= edge.disk.has_failed();
        let held = held.unwrap_or_else(|| segments::held(&edge.disk));
        self.oracle.excuse(place, &held);
    }

    fn edge_loses_power(&mut self, place: usize) {
        let held = segments::durable(&self.edges[place].disk);
        self.edge_dies(place, Some(held));
        let cut = self.some_cut();
        self.edges[place].disk.cut(cut, &mut self.rng);
        self.log(format!("proxy {place} lost its power: {cut:?}"));
    }

    fn some_cut(&mut self) -> Cut {
        *[Cut::Nothing, Cut::Everything, Cut::Some].choose(&mut self.rng).unwrap()
    }

    fn far_dies(&mut self, how: &str) {
        self.log(format!("the collector dies {how}"));
        let links: Vec<u64> = self.links.keys().copied().collect();
        links.into_iter().for_each(|link| self.drop_link(link));
        self.far.die();
        self.far.disk.kill();
        self.far.disk.fail(|faults| *faults = Default::default());
    }

    fn far_loses_power(&mut self) {
        self.far_dies("with its power");
        let cut = self.some_cut();
        self.far.disk.cut(cut, &mut self.rng);
        self.oracle.forget_seen();
    }

    fn cut_a_link(&mut self) {
        let Some(number) = self.links.keys().copied().choose(&mut self.rng) else { return };
        self.log(format!("link {number} is cut"));
        self.drop_link(number);
    }

    fn silence_a_link(&mut self) {
        let (now, ms) = (self.now, self.rng.random_range(100..90_000));
        let Some(link) = self.links.values_mut().choose(&mut self.rng) else { return };
        link.silent_until = Some(now + Duration::from_millis(ms));
    }

    fn edge_disk_fails(&mut self, place: usize) {
        let how = self.rng.random_range(0..4);
        self.log(format!("the disk of proxy {place} fails: {how}"));
        let capacity = self.rng.random_range(0..60_000);
        self.edges[place].disk.fail(|faults| match how {
            0 => faults.failing_syncs = 1,
            1 => faults.failing_writes = 1,
            2 => faults.capacity = capacity,
            _ => (faults.capacity, faults.failing_syncs) = (0, 0),
        });
    }

    fn back_up_or_restore_edge(&mut self, place: usize) {
        match self.edge_backup.take() {
            None => self.edge_backup = Some((place, self.edges[place].disk.copy())),
            Some((place, backup)) => {
                let held = segments::held(&backup);
                self.edge_dies(place, Some(BTreeSet::new()));
                self.oracle.excuse(place, &held);
                let identity = self.edges[place].identity;
                self.edges[place] = Edge::new(identity, backup);
                self.log(format!("proxy {place} is set back to its backup"));
            }
        }
    }

    fn clone_edge(&mut self, place: usize) {
        if self.edges.len() < 4 {
            let disk = self.edges[place].disk.copy();
            let identity = self.edges[place].identity;
            self.edges.push(Edge::new(identity, disk));
            self.log(format!("proxy {place} is cloned"));
        }
    }

    fn back_up_or_restore_far(&mut self) {
        match self.far_backup.take() {
            None => {
                self.answer();
                let committed = self.oracle.backup();
                self.far_backup = Some((self.far.disk.copy(), self.far.store.copy(), committed));
            }
            Some((disk, store, committed)) => {
                self.far_dies("to be set back to its backup");
                self.far = Far::new(disk, store);
                self.oracle.restore(&committed);
            }
        }
    }

    /// A bit of a segment flips, or a segment goes, while the proxy is down.
    fn damage(&mut self, place: usize) {
        self.edge_dies(place, None);
        let files = self.edges[place].disk.files();
        let segments =
            files.into_iter().filter(|(_, path, _)| path.to_string_lossy().starts_with("/spool/seg-"));
        let Some((_, path, bytes)) = segments.choose(&mut self.rng) else { return };
        self.log(format!("{} is damaged", path.display()));
        let held = segments::digests([bytes.as_slice()]);
        let at = self.rng.random_range(0..bytes.len().max(1));
        let gone = self.rng.random_bool(0.3);
        self.edges[place].disk.damage(&path, |bytes| match bytes.get_mut(at) {
            _ if gone => bytes.clear(),
            Some(byte) => *byte ^= 1 << (at % 8),
            None => {}
        });
        self.oracle.may_lose(&held);
    }
}
