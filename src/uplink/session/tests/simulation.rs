//! The session against a model of the collector, over connections that break anywhere.

use super::*;
use std::collections::HashMap;

/// Chance by seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// The far end by forward.proto: marks and what was written, which outlive connections.
#[derive(Default)]
struct Collector {
    marks: HashMap<LaneId, u64>,
    written: HashMap<LaneId, Vec<u64>>,
    skipped: Vec<(LaneId, u64, Reason)>,
    poison: Option<(LaneId, u64)>,
    /// Lanes of this connection.
    lanes: HashMap<u32, LaneId>,
    /// Lanes that wait for what they miss.
    gap: HashMap<LaneId, bool>,
    in_flight: u64,
}

const WINDOW: Window = Window { batches: 8, bytes: 3000 };

impl Collector {
    fn take(&mut self, message: Message, dice: &mut Dice) -> Option<Server> {
        match message {
            Message::Hello(_) => {
                self.lanes.clear();
                self.gap.clear();
                Some(Server::Welcome(Welcome { version: 1, window: Some(WINDOW), ..Welcome::default() }))
            }
            Message::Open(open) => {
                let id = LaneId(open.lane_id.as_ref().try_into().unwrap());
                self.lanes.insert(open.lane, id);
                let known = self.marks.contains_key(&id);
                let mark = *self.marks.entry(id).or_insert(open.acked_seq);
                Some(Server::Opened(Opened {
                    lane: open.lane,
                    known,
                    committed_seq: mark,
                    ..Opened::default()
                }))
            }
            Message::Batch(batch) => self.batch(&batch, dice),
            Message::Skip(skip) => self.skip(&skip),
            Message::Close(_) | Message::Heartbeat(_) | Message::Bye(_) => None,
        }
    }

    fn batch(&mut self, batch: &proto::Batch, dice: &mut Dice) -> Option<Server> {
        let (lane, id) = (batch.lane, self.lanes[&batch.lane]);
        let mark = self.marks[&id];
        if batch.seq <= mark {
            return Some(Server::Ack(Ack { lane, committed_seq: mark, ..Ack::default() }));
        }
        if batch.seq > mark + 1 {
            let code = error::Code::Gap as i32;
            let once = !self.gap.insert(id, true).unwrap_or(false);
            let text = String::new();
            return once.then_some(Server::Error(proto::Error { code, lane, committed_seq: mark, text }));
        }
        self.gap.insert(id, false);
        if self.poison == Some((id, batch.seq)) {
            let (reason, text) = (reject::Reason::Malformed as i32, String::new());
            return Some(Server::Reject(Reject { lane, seq: batch.seq, reason, text }));
        }
        self.marks.insert(id, batch.seq);
        self.written.entry(id).or_default().push(batch.seq);
        // Acks are coalesced: one may stand for several, but the last in flight gets its own.
        self.in_flight += 1;
        let due = self.in_flight.is_multiple_of(4) || dice.roll(2) == 0;
        due.then_some(Server::Ack(Ack {
            lane,
            committed_seq: batch.seq,
            window: Some(WINDOW),
            ..Ack::default()
        }))
    }

    fn skip(&mut self, skip: &proto::Skip) -> Option<Server> {
        let (lane, id) = (skip.lane, self.lanes[&skip.lane]);
        let mark = self.marks[&id];
        if skip.from <= mark + 1 && skip.to > mark {
            self.skipped.extend((mark + 1..=skip.to).map(|seq| (id, seq, skip.reason())));
            self.marks.insert(id, skip.to);
            self.gap.insert(id, false);
        }
        Some(Server::Ack(Ack { lane, committed_seq: self.marks[&id], ..Ack::default() }))
    }

    fn ack_all(&self) -> Vec<Server> {
        let ack = |(lane, id): (&u32, &LaneId)| {
            Server::Ack(Ack {
                lane: *lane,
                committed_seq: self.marks[id],
                window: Some(WINDOW),
                ..Ack::default()
            })
        };
        self.lanes.iter().map(ack).collect()
    }
}

/// The spool's side of it: next number, acked, rows, per lane.
struct Books {
    views: Vec<LaneView>,
    rows: Vec<SkipRow>,
}

impl Books {
    fn fetch(&self, lane: LaneId, seq: u64) -> Fetched {
        let row = self.rows.iter().find(|row| row.lane == lane && (row.from..=row.to).contains(&seq));
        match row {
            Some(row) => Fetched::Skip(row.clone()),
            None => Fetched::Batch(stored(lane, seq, 100 + (seq as usize * 37) % 900)),
        }
    }

    fn view(&mut self, id: LaneId) -> &mut LaneView {
        self.views.iter_mut().find(|view| view.id == id).unwrap()
    }
}

/// One connection: until the dice break it or the session ends it. Whether it ended by itself.
fn connection(books: &mut Books, collector: &mut Collector, dice: &mut Dice, breaks: bool) -> bool {
    let mut now = Instant::now();
    let mut session = Session::new(facts(), books.views.clone(), now);
    session.finish(now);
    let mut to_collector: VecDeque<Message> = VecDeque::new();
    let mut to_proxy: VecDeque<Server> = VecDeque::new();
    for _ in 0..20_000 {
        while let Some(output) = session.poll() {
            match output {
                Output::Send(message) => to_collector.extend(message.message),
                Output::Store(_) => session.store_taken(now),
                Output::Acked(Acked { lane, seq, .. }) => {
                    let view = books.view(lane);
                    view.acked_seq = view.acked_seq.max(seq);
                    view.oldest_seq = view.acked_seq + 1;
                }
                Output::Closed(lane) => books.views.retain(|view| view.id != lane),
                Output::Rejected(one) => books.rows.push(row(one.lane, one.seq, one.seq, Reason::Rejected)),
                Output::SetAside(_) => panic!("no lane lost its end"),
                Output::Opened(_) | Output::Note(_) => {}
                Output::End(end) => {
                    assert_eq!(end, End::Finished);
                    return true;
                }
            }
        }
        let load = session.in_flight();
        assert!(load.batches <= WINDOW.batches);
        assert!(load.bytes <= WINDOW.bytes || load.batches == 1, "{load:?}");
        if breaks && dice.roll(60) == 0 {
            return false;
        }
        now += Duration::from_millis(dice.roll(200));
        match dice.roll(8) {
            0..3 => {
                if let Some((lane, seq)) = session.wanted() {
                    session.fetched(lane, seq, books.fetch(lane, seq), now);
                }
            }
            3..5 => {
                if let Some(message) = to_collector.pop_front() {
                    to_proxy.extend(collector.take(message, dice));
                }
            }
            5 => session.tick(now),
            6 if to_collector.is_empty() => to_proxy.extend(collector.ack_all()),
            _ => {
                if let Some(message) = to_proxy.pop_front() {
                    session.received(ServerMessage { message: Some(message) }, now);
                }
            }
        }
    }
    panic!("it does not come to an end")
}

#[test]
fn every_batch_is_written_once_in_order_whatever_breaks() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let mut books = Books {
            views: vec![view(OLDER, 1, 12, 0), view(OLD, 1, 20, 0), view(OWN, 1, 30, 0)],
            rows: vec![row(OLD, 4, 6, Reason::Dropped)],
        };
        let mut collector = Collector { poison: Some((OWN, 1 + dice.roll(29))), ..Collector::default() };
        for round in 0.. {
            if connection(&mut books, &mut collector, &mut dice, round < 30) {
                break;
            }
        }
        for (id, last) in [(OLDER, 11), (OLD, 19), (OWN, 29)] {
            let mut seqs = collector.written[&id].clone();
            assert!(seqs.is_sorted(), "seed {seed}");
            let given_up = collector.skipped.iter().filter(|(lane, ..)| *lane == id);
            seqs.extend(given_up.map(|(_, seq, _)| *seq));
            seqs.sort_unstable();
            assert_eq!(seqs, (1..=last).collect::<Vec<_>>(), "seed {seed}");
        }
        let poison = collector.poison.unwrap();
        assert!(collector.skipped.contains(&(poison.0, poison.1, Reason::Rejected)), "seed {seed}");
        assert_eq!(collector.skipped.len(), 4, "seed {seed}");
        assert_eq!(books.views.len(), 1, "seed {seed}: old lanes are closed");
    }
}
