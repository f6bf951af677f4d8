use super::*;
use crate::batch::Kind;
use crate::proto::{Ack, Codec, Drain, Opened, Reject, Welcome, Window, error, reject, skip::Reason};
use crate::spool::SkipRow;
use bytes::Bytes;
use server_message::Message as Server;

const OWN: LaneId = LaneId([1; 16]);
const OLD: LaneId = LaneId([2; 16]);
const OLDER: LaneId = LaneId([3; 16]);
const WIDE: Window = Window { batches: 100, bytes: 1 << 20 };

fn facts() -> Facts {
    Facts { instance: [9; 16], software: "test".to_owned(), mark_store_id: Bytes::new(), rejects_in_a_row: 0 }
}

fn view(id: LaneId, oldest_seq: u64, next_seq: u64, acked_seq: u64) -> LaneView {
    LaneView { id, current: id == OWN, oldest_seq, next_seq, acked_seq }
}

fn digest(seq: u64) -> [u8; 16] {
    let mut digest = [0xd0; 16];
    digest[8..].copy_from_slice(&seq.to_be_bytes());
    digest
}

fn stored(lane: LaneId, seq: u64, bytes: usize) -> Stored {
    Stored {
        lane,
        seq,
        kind: Kind::Records,
        records: 10,
        codec: Codec::Plain,
        plain_size: bytes as u32,
        payload: Bytes::from(vec![0; bytes]),
        digest: digest(seq),
        previous_digest: (seq > 1).then(|| digest(seq - 1)),
        received: 0,
    }
}

/// What a test sees go out, in short.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Hello,
    Open(u32, LaneId),
    Batch(u32, u64),
    Skip(u32, u64, u64, Reason),
    Close(u32),
    Heartbeat(Vec<(u32, u64)>),
    Bye,
    Acked(LaneId, u64),
    Did(Output),
}

/// A session, its clock, and a spool that answers by rules.
struct Bench {
    session: Session,
    now: Instant,
    batch_bytes: usize,
    /// Rows instead of batches.
    rows: Vec<SkipRow>,
    fetches: Vec<(LaneId, u64)>,
}

impl Bench {
    fn new(lanes: Vec<LaneView>) -> Self {
        Self::with(facts(), lanes)
    }

    fn with(facts: Facts, lanes: Vec<LaneView>) -> Self {
        let now = Instant::now();
        let session = Session::new(facts, lanes, now);
        Self { session, now, batch_bytes: 100, rows: Vec::new(), fetches: Vec::new() }
    }

    /// One that is open, each lane with the mark given.
    fn open(lanes: Vec<LaneView>, window: Window) -> Self {
        let marks: Vec<u64> = lanes.iter().map(|lane| lane.acked_seq).collect();
        let mut bench = Self::new(lanes);
        bench.welcome(window);
        for (lane, mark) in (1..).zip(marks) {
            bench.say(Server::Opened(Opened { lane, known: true, committed_seq: mark, ..Opened::default() }));
        }
        bench
    }

    fn say(&mut self, message: Server) {
        self.session.received(ServerMessage { message: Some(message) }, self.now);
    }

    fn welcome(&mut self, window: Window) {
        self.say(Server::Welcome(Welcome { version: 1, window: Some(window), ..Welcome::default() }));
        self.session.store_taken(self.now);
    }

    fn ack(&mut self, lane: u32, committed_seq: u64) {
        self.say(Server::Ack(Ack { lane, committed_seq, ..Ack::default() }));
    }

    fn gap(&mut self, lane: u32, committed_seq: u64) {
        let code = error::Code::Gap as i32;
        self.say(Server::Error(proto::Error { code, lane, committed_seq, text: String::new() }));
    }

    fn reject(&mut self, lane: u32, seq: u64, reason: reject::Reason) {
        let text = "no".to_owned();
        self.say(Server::Reject(Reject { lane, seq, reason: reason as i32, text }));
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.session.tick(self.now);
    }

    /// Runs until nothing moves, and says what went out.
    fn run(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        loop {
            while let Some(output) = self.session.poll() {
                if let Output::Rejected(rejection) = &output {
                    self.rows.push(row(rejection.lane, rejection.seq, rejection.seq, Reason::Rejected));
                }
                seen.extend(self.seen(output));
            }
            let Some((lane, seq)) = self.session.wanted() else { return seen };
            assert!(self.fetches.len() < 10_000, "the session turns on the spot");
            self.fetches.push((lane, seq));
            let row = self.rows.iter().find(|row| row.lane == lane && (row.from..=row.to).contains(&seq));
            let fetched = match row {
                Some(row) => Fetched::Skip(row.clone()),
                None => Fetched::Batch(stored(lane, seq, self.batch_bytes)),
            };
            self.session.fetched(lane, seq, fetched, self.now);
        }
    }

    fn seen(&self, output: Output) -> Option<Seen> {
        let Output::Send(message) = output else {
            return match output {
                Output::Store(_) | Output::Opened(_) => None,
                Output::Acked(acked) => Some(Seen::Acked(acked.lane, acked.seq)),
                output => Some(Seen::Did(output)),
            };
        };
        Some(match message.message.unwrap() {
            Message::Hello(_) => Seen::Hello,
            Message::Open(open) => Seen::Open(open.lane, LaneId(open.lane_id.as_ref().try_into().unwrap())),
            Message::Batch(batch) => Seen::Batch(batch.lane, batch.seq),
            Message::Skip(skip) => Seen::Skip(skip.lane, skip.from, skip.to, skip.reason()),
            Message::Close(close) => Seen::Close(close.lane),
            Message::Heartbeat(beat) => {
                Seen::Heartbeat(beat.lanes.iter().map(|next| (next.lane, next.next_seq)).collect())
            }
            Message::Bye(_) => Seen::Bye,
        })
    }

    /// Only the batches and skips of `run`.
    fn data(&mut self) -> Vec<Seen> {
        let is_data = |seen: &Seen| matches!(seen, Seen::Batch(..) | Seen::Skip(..));
        self.run().into_iter().filter(is_data).collect()
    }
}

fn row(lane: LaneId, from: u64, to: u64, reason: Reason) -> SkipRow {
    SkipRow {
        lane,
        from,
        to,
        reason,
        records_per_seq: Vec::new(),
        counts_per_exporter: Vec::new(),
        digest: None,
    }
}

fn batches(lane: u32, seqs: std::ops::RangeInclusive<u64>) -> Vec<Seen> {
    seqs.map(|seq| Seen::Batch(lane, seq)).collect()
}

fn acked(lane: LaneId, seq: u64) -> Seen {
    Seen::Acked(lane, seq)
}

fn forked(seq: u64) -> Vec<Seen> {
    vec![Seen::Did(Output::Note(Note::Forked { lane: OWN, seq })), Seen::Did(Output::SetAside(OWN))]
}

#[test]
fn the_course_of_a_connection() {
    let mut bench = Bench::new(vec![view(OWN, 1, 3, 0)]);
    assert_eq!(bench.run(), [Seen::Hello]);
    bench.say(Server::Welcome(Welcome { version: 1, window: Some(WIDE), ..Welcome::default() }));
    assert_eq!(bench.run(), [], "nothing is opened before the store is judged");
    bench.session.store_taken(bench.now);
    assert_eq!(bench.run(), [Seen::Open(1, OWN)]);
    bench.say(Server::Opened(Opened { lane: 1, ..Opened::default() }));
    let mut expected = vec![acked(OWN, 0)];
    expected.extend(batches(1, 1..=2));
    assert_eq!(bench.run(), expected);
    bench.session.grown(4);
    assert_eq!(bench.run(), batches(1, 3..=3));
    bench.ack(1, 3);
    assert_eq!(bench.run(), [acked(OWN, 3)]);
    assert_eq!(bench.session.in_flight(), Load::default());
}

#[test]
fn hello_and_open_carry_what_the_contract_says() {
    let mut bench = Bench::with(
        Facts { mark_store_id: Bytes::from_static(b"store"), ..facts() },
        vec![view(OWN, 5, 9, 4)],
    );
    let Some(Output::Send(ClientMessage { message: Some(Message::Hello(hello)) })) = bench.session.poll()
    else {
        panic!("Hello comes first")
    };
    assert_eq!(hello.versions, [1]);
    assert_eq!(hello.codecs, [Codec::Plain as i32, Codec::Zstd as i32]);
    assert_eq!(hello.mark_store_id.as_ref(), b"store");
    assert_eq!(hello.instance.as_ref(), [9; 16]);
    bench.welcome(WIDE);
    assert!(matches!(bench.session.poll(), Some(Output::Store(_))));
    let Some(Output::Send(ClientMessage { message: Some(Message::Open(open)) })) = bench.session.poll()
    else {
        panic!("Open follows")
    };
    assert!(open.current);
    assert_eq!((open.oldest_seq, open.next_seq, open.acked_seq), (5, 9, 4));
}

#[test]
fn a_reconnect_goes_on_after_the_mark() {
    let mut bench = Bench::new(vec![view(OWN, 1, 10, 3)]);
    bench.welcome(WIDE);
    bench.run();
    bench.say(Server::Opened(Opened { lane: 1, known: true, committed_seq: 6, ..Opened::default() }));
    let mut expected = vec![acked(OWN, 6)];
    expected.extend(batches(1, 7..=9));
    assert_eq!(bench.run(), expected);
}

#[test]
fn row_24_the_window_of_batches_holds() {
    let mut bench = Bench::open(vec![view(OWN, 1, 100, 0)], Window { batches: 3, bytes: 1 << 20 });
    assert_eq!(bench.data(), batches(1, 1..=3));
    bench.ack(1, 2);
    assert_eq!(bench.data(), batches(1, 4..=5));
    bench.say(Server::Ack(Ack {
        lane: 1,
        committed_seq: 5,
        window: Some(Window { batches: 0, bytes: 1 << 20 }),
        ..Ack::default()
    }));
    assert_eq!(bench.data(), [], "0 batches: send nothing, also with nothing in flight");
    bench.say(Server::Ack(Ack { lane: 1, committed_seq: 5, window: Some(WIDE), ..Ack::default() }));
    assert_eq!(bench.data(), batches(1, 6..=99), "the last window heard holds, also of an old mark");
}

#[test]
fn the_window_of_bytes_holds_but_one_batch_may_always_go() {
    let mut bench = Bench::open(vec![view(OWN, 1, 100, 0)], Window { batches: 100, bytes: 250 });
    assert_eq!(bench.data(), batches(1, 1..=2), "a third of 100 bytes would be over 250");
    assert_eq!(bench.session.in_flight(), Load { batches: 2, bytes: 200 });
    let before = bench.fetches.len();
    assert_eq!(bench.data(), []);
    assert_eq!(bench.fetches.len(), before, "what was held back is not fetched again");
    bench.ack(1, 1);
    assert_eq!(bench.data(), batches(1, 3..=3));

    let mut narrow = Bench::open(vec![view(OWN, 1, 100, 0)], Window { batches: 100, bytes: 1 });
    assert_eq!(narrow.data(), batches(1, 1..=1));
    narrow.ack(1, 1);
    assert_eq!(narrow.data(), batches(1, 2..=2));
}

#[test]
fn row_24_acks_that_come_again_or_late_change_nothing() {
    let mut bench = Bench::open(vec![view(OWN, 1, 10, 0)], WIDE);
    bench.run();
    bench.ack(1, 5);
    bench.ack(1, 5);
    bench.ack(1, 2);
    assert_eq!(bench.run(), [acked(OWN, 5)]);
    assert_eq!(bench.session.in_flight().batches, 4);
}

#[test]
fn an_ack_past_what_this_connection_sent_moves_on() {
    let mut bench = Bench::open(vec![view(OWN, 1, 100, 0)], Window { batches: 2, bytes: 1 << 20 });
    assert_eq!(bench.data(), batches(1, 1..=2));
    bench.ack(1, 40);
    assert_eq!(bench.data(), batches(1, 41..=42), "a connection before this one had sent them");
}

#[test]
fn a_gap_is_filled_from_the_mark() {
    let mut bench = Bench::open(vec![view(OWN, 1, 6, 0)], WIDE);
    assert_eq!(bench.data(), batches(1, 1..=5));
    bench.ack(1, 1);
    bench.gap(1, 2);
    assert_eq!(bench.data(), batches(1, 3..=5), "2 is said to be there, and stays in flight for its ack");
    assert_eq!(bench.session.in_flight().batches, 4);

    bench.gap(1, 2);
    assert_eq!(bench.data(), [], "the same gap at once is an echo of what was sent before");
    bench.wait(Duration::from_millis(500));
    assert_eq!(bench.data(), []);
    bench.wait(Duration::from_millis(600));
    assert_eq!(bench.data(), batches(1, 3..=5), "but not when nothing has moved since");
    bench.gap(1, 2);
    bench.ack(1, 5);
    bench.wait(Duration::from_secs(5));
    assert_eq!(bench.data(), []);
}

#[test]
fn a_collector_that_loses_every_batch_is_left() {
    let mut bench = Bench::open(vec![view(OWN, 1, 3, 0)], WIDE);
    for _ in 0..=MAX_GAPS {
        bench.run();
        bench.gap(1, 0);
        bench.now += Duration::from_secs(2);
    }
    assert!(matches!(bench.run().last(), Some(Seen::Did(Output::End(End::Violation(_))))));
}

#[test]
fn row_23_a_mark_that_went_back_gets_what_is_left_and_is_told_the_rest() {
    let mut bench = Bench::new(vec![view(OWN, 10, 12, 9)]);
    bench.rows = vec![row(OWN, 5, 7, Reason::AlreadyAcked)];
    bench.welcome(WIDE);
    bench.run();
    bench.say(Server::Opened(Opened { lane: 1, known: true, committed_seq: 4, ..Opened::default() }));
    let note = Note::MarkWentBack { lane: OWN, committed_seq: 4, acked_seq: 9 };
    let mut expected = vec![Seen::Did(Output::Note(note)), Seen::Skip(1, 5, 7, Reason::AlreadyAcked)];
    expected.extend(batches(1, 8..=11));
    assert_eq!(bench.run(), expected);
    bench.ack(1, 11);
    assert_eq!(bench.run(), [acked(OWN, 11)]);
}

#[test]
fn row_22_a_collector_that_does_not_know_the_lane_begins_where_we_say() {
    let mut bench = Bench::new(vec![view(OWN, 5, 7, 4)]);
    bench.welcome(WIDE);
    bench.run();
    bench.say(Server::Opened(Opened { lane: 1, known: false, committed_seq: 4, ..Opened::default() }));
    let mut expected =
        vec![Seen::Did(Output::Note(Note::Adopted { lane: OWN, acked_seq: 4 })), acked(OWN, 4)];
    expected.extend(batches(1, 5..=6));
    assert_eq!(bench.run(), expected);
}

#[test]
fn rows_travel_in_their_place_and_do_not_fill_the_window() {
    let mut bench = Bench::open(vec![view(OWN, 1, 8, 0)], Window { batches: 3, bytes: 1 << 20 });
    bench.rows = vec![row(OWN, 2, 5, Reason::Dropped)];
    let expected =
        [Seen::Batch(1, 1), Seen::Skip(1, 2, 5, Reason::Dropped), Seen::Batch(1, 6), Seen::Batch(1, 7)];
    assert_eq!(bench.data(), expected);
    bench.ack(1, 5);
    assert_eq!(bench.session.in_flight().batches, 2);
}

#[test]
fn a_row_carries_its_counts_and_canonical_addresses() {
    let mut bench = Bench::open(vec![view(OWN, 1, 3, 0)], WIDE);
    bench.rows = vec![SkipRow {
        records_per_seq: vec![7, 8],
        counts_per_exporter: vec![
            ("::ffff:192.0.2.1".parse().unwrap(), 15),
            ("2001:db8::1".parse().unwrap(), 1),
        ],
        digest: Some(digest(2)),
        ..row(OWN, 1, 2, Reason::Dropped)
    }];
    let (lane, seq) = bench.session.wanted().unwrap();
    while bench.session.poll().is_some() {}
    bench.session.fetched(lane, seq, Fetched::Skip(bench.rows[0].clone()), bench.now);
    let Some(Output::Send(ClientMessage { message: Some(Message::Skip(skip)) })) = bench.session.poll()
    else {
        panic!("the row is sent")
    };
    assert_eq!(skip.records_per_seq, [7, 8]);
    let addresses: Vec<usize> = skip.counts_per_exporter.iter().map(|count| count.address.len()).collect();
    assert_eq!(addresses, [4, 16]);
    assert_eq!(skip.digest.as_ref(), digest(2));
}

#[test]
fn old_lanes_drain_oldest_first_and_are_closed() {
    let lanes = vec![view(OLDER, 1, 3, 0), view(OLD, 1, 2, 0), view(OWN, 1, 1, 0)];
    let mut bench = Bench::new(lanes);
    bench.welcome(WIDE);
    let opens = [Seen::Open(1, OWN), Seen::Open(2, OLDER), Seen::Open(3, OLD)];
    assert_eq!(bench.run()[1..], opens);
    for lane in 1..=3 {
        bench.say(Server::Opened(Opened { lane, ..Opened::default() }));
    }
    assert_eq!(bench.data(), [Seen::Batch(2, 1), Seen::Batch(2, 2), Seen::Batch(3, 1)]);
    bench.ack(2, 2);
    assert_eq!(bench.run(), [acked(OLDER, 2), Seen::Close(2), Seen::Did(Output::Closed(OLDER))]);
    bench.ack(2, 2);
    assert_eq!(bench.run(), [], "an ack may cross our Close");
}

#[test]
fn a_lane_that_is_acked_already_is_closed_at_opened() {
    let mut bench = Bench::open(vec![view(OWN, 1, 1, 0), view(OLD, 4, 4, 3)], WIDE);
    let seen = bench.run();
    assert!(seen.contains(&Seen::Close(2)) && seen.contains(&Seen::Did(Output::Closed(OLD))), "{seen:?}");
}

#[test]
fn many_old_lanes_are_opened_a_few_at_a_time() {
    let id = |n: u8| LaneId([n; 16]);
    let mut lanes: Vec<LaneView> = (10..60).map(|n| view(id(n), 1, 2, 0)).collect();
    lanes.push(view(OWN, 1, 1, 0));
    let mut bench = Bench::new(lanes);
    bench.welcome(WIDE);
    let (mut opening, mut open, mut closed, mut most) = (VecDeque::new(), 0, 0, 0);
    loop {
        for seen in bench.run() {
            match seen {
                Seen::Open(lane, _) => {
                    opening.push_back(lane);
                    open += 1;
                }
                Seen::Close(_) => {
                    open -= 1;
                    closed += 1;
                }
                _ => {}
            }
        }
        most = most.max(open);
        let Some(lane) = opening.pop_front() else { break };
        bench.say(Server::Opened(Opened { lane, ..Opened::default() }));
        if lane > 1 {
            assert_eq!(bench.data(), batches(lane, 1..=1));
            bench.ack(lane, 1);
        }
    }
    assert_eq!((closed, most), (50, MAX_LANES_AT_WORK));
}

#[test]
fn the_fresh_lane_gets_half_of_what_is_sent_and_old_ones_the_rest() {
    let mut bench =
        Bench::open(vec![view(OWN, 1, 100, 0), view(OLD, 1, 100, 0)], Window { batches: 1, bytes: 1 << 20 });
    let (mut marks, mut sent) = ([0, 0, 0], [0_usize; 3]);
    for _ in 0..40 {
        let Some(Seen::Batch(lane, seq)) = bench.data().pop() else { panic!("one goes each time") };
        sent[lane as usize] += 1;
        marks[lane as usize] = seq;
        bench.ack(lane, seq);
    }
    assert_eq!(sent, [0, 20, 20]);

    bench.ack(1, 99);
    let rest: Vec<Seen> = (0..5)
        .map(|_| {
            let sent = bench.data().pop().unwrap();
            let Seen::Batch(lane, seq) = sent else { panic!("a batch") };
            bench.ack(lane, seq);
            sent
        })
        .collect();
    assert_eq!(
        rest,
        batches(2, marks[2] + 1..=marks[2] + 5),
        "all goes to the old lane once the other is empty"
    );
}

#[test]
fn old_lanes_leave_half_of_the_window_to_batches_that_come_later() {
    let mut bench =
        Bench::open(vec![view(OWN, 1, 1, 0), view(OLD, 1, 100, 0)], Window { batches: 8, bytes: 1 << 20 });
    assert_eq!(bench.data(), batches(2, 1..=4));
    bench.session.grown(10);
    assert_eq!(bench.data(), batches(1, 1..=4), "no ack was needed for them");
    bench.ack(2, 4);
    let sent = bench.data();
    assert_eq!(sent.len(), 4);
    assert_eq!(sent.iter().filter(|one| matches!(one, Seen::Batch(1, _))).count(), 2, "{sent:?}");

    let mut bytes =
        Bench::open(vec![view(OWN, 1, 1, 0), view(OLD, 1, 100, 0)], Window { batches: 100, bytes: 800 });
    assert_eq!(bytes.data(), batches(2, 1..=4), "of 100 bytes each");

    bytes.session.finish(bytes.now);
    assert_eq!(bytes.data(), batches(2, 5..=8), "nothing fresh comes any more");
}

#[test]
fn a_session_that_waited_for_its_turn_begins_after_what_was_acked_meanwhile() {
    let now = Instant::now();
    let mut session = Session::new(facts(), vec![view(OWN, 1, 5, 0)], now);
    let welcome = Welcome { version: 1, window: Some(WIDE), ..Welcome::default() };
    session.received(ServerMessage { message: Some(Server::Welcome(welcome)) }, now);
    session.grown(9);
    session.refresh(vec![view(OWN, 8, 9, 7), view(OLD, 1, 3, 0)], 2, now);
    session.store_taken(now);
    let opens = std::iter::from_fn(|| session.poll()).filter_map(|output| match output {
        Output::Send(ClientMessage { message: Some(Message::Open(open)) }) => {
            Some((open.oldest_seq, open.next_seq, open.acked_seq))
        }
        _ => None,
    });
    assert_eq!(opens.collect::<Vec<_>>(), [(8, 9, 7), (1, 3, 0)]);
}

#[test]
fn row_27_a_refused_batch_is_set_aside_and_the_lane_goes_on() {
    let mut bench = Bench::open(vec![view(OWN, 1, 6, 0)], WIDE);
    bench.run();
    bench.reject(1, 2, reject::Reason::Malformed);
    bench.gap(1, 1);
    let rejection = Rejection { lane: OWN, seq: 2, reason: reject::Reason::Malformed, text: "no".to_owned() };
    let mut expected = vec![Seen::Did(Output::Rejected(rejection)), Seen::Skip(1, 2, 2, Reason::Rejected)];
    expected.extend(batches(1, 3..=5));
    assert_eq!(bench.run(), expected);
    bench.reject(1, 2, reject::Reason::Malformed);
    assert_eq!(bench.run(), [], "it has its row by now");
    bench.ack(1, 5);
    assert_eq!(bench.run(), [acked(OWN, 5)]);
    assert_eq!(bench.session.facts.rejects_in_a_row, 0);
}

#[test]
fn row_27_the_third_refusal_in_a_row_sets_nothing_aside() {
    let mut bench = Bench::open(vec![view(OWN, 1, 9, 0)], WIDE);
    bench.run();
    for seq in 1..=2 {
        bench.reject(1, seq, reject::Reason::Malformed);
        bench.run();
        bench.ack(1, seq);
    }
    assert_eq!(bench.session.facts.rejects_in_a_row, 2, "a Skip that is acked is no batch that is taken");
    bench.reject(1, 3, reject::Reason::Malformed);
    let seen = bench.run();
    assert!(matches!(seen.last(), Some(Seen::Did(Output::End(End::Rejected(_))))), "{seen:?}");
    assert!(!seen.iter().any(|seen| matches!(seen, Seen::Did(Output::Rejected(_)))));

    let carried = Facts { rejects_in_a_row: bench.session.facts.rejects_in_a_row, ..facts() };
    let mut next = Bench::with(carried, vec![view(OWN, 1, 9, 2)]);
    next.welcome(WIDE);
    next.say(Server::Opened(Opened { lane: 1, known: true, committed_seq: 2, ..Opened::default() }));
    assert_eq!(next.data(), batches(1, 3..=8), "the same batch is tried again");
    next.reject(1, 3, reject::Reason::Malformed);
    assert!(matches!(next.run().last(), Some(Seen::Did(Output::End(End::Rejected(_))))));
}

#[test]
fn a_batch_that_is_too_large_for_the_collector_is_not_sent() {
    let mut bench = Bench::new(vec![view(OWN, 1, 3, 0)]);
    let limits = Some(Limits { payload_bytes: 99, plain_bytes: 0 });
    bench.say(Server::Welcome(Welcome { version: 1, window: Some(WIDE), limits, ..Welcome::default() }));
    bench.session.store_taken(bench.now);
    bench.say(Server::Opened(Opened { lane: 1, ..Opened::default() }));
    assert_eq!(bench.data(), [Seen::Skip(1, 1, 1, Reason::Rejected), Seen::Skip(1, 2, 2, Reason::Rejected)]);
}

#[test]
fn row_13_another_digest_than_ours_is_never_taken_for_an_ack() {
    // At Opened: the batch is read back before the mark is believed.
    let mut bench = Bench::new(vec![view(OWN, 1, 9, 0)]);
    bench.welcome(WIDE);
    bench.run();
    let opened = |digest: [u8; 16]| {
        let digest = Bytes::copy_from_slice(&digest);
        Server::Opened(Opened {
            lane: 1,
            known: true,
            committed_seq: 4,
            digest_seq: 3,
            digest,
            ..Opened::default()
        })
    };
    bench.say(opened(digest(77)));
    assert_eq!(bench.run(), forked(3));
    assert_eq!(bench.fetches, [(OWN, 3)]);

    let mut bench = Bench::new(vec![view(OWN, 1, 6, 0)]);
    bench.welcome(WIDE);
    bench.run();
    bench.say(opened(digest(3)));
    assert_eq!(bench.run(), [acked(OWN, 4), Seen::Batch(1, 5)]);

    // At an Ack.
    let ack = |digest: [u8; 16]| {
        let digest = Bytes::copy_from_slice(&digest);
        Server::Ack(Ack { lane: 1, committed_seq: 5, digest_seq: 5, digest, ..Ack::default() })
    };
    bench.say(ack(digest(99)));
    assert_eq!(bench.run(), forked(5));
    bench.say(ack(digest(5)));
    bench.session.grown(20);
    assert_eq!(bench.run(), [], "it rests");
}

#[test]
fn row_13_an_ack_of_what_was_not_sent_here_is_looked_up_before_it_is_believed() {
    let narrow = Window { batches: 1, bytes: 1 << 20 };
    let ack = |seq: u64, digest: [u8; 16]| {
        let digest = Bytes::copy_from_slice(&digest);
        Server::Ack(Ack { lane: 1, committed_seq: seq, digest_seq: seq, digest, ..Ack::default() })
    };
    let open = || {
        let mut bench = Bench::open(vec![view(OWN, 1, 9, 0)], narrow);
        assert_eq!(bench.data(), batches(1, 1..=1));
        bench.fetches.clear();
        bench
    };
    let mut bench = open();
    bench.say(ack(5, digest(99)));
    assert_eq!(bench.run(), forked(5));
    assert_eq!(bench.fetches, [(OWN, 5)]);

    // Sent by a connection before this one, and one that comes while that is looked up.
    let mut bench = open();
    bench.say(ack(5, digest(5)));
    bench.say(ack(6, digest(6)));
    assert_eq!(bench.run(), [acked(OWN, 6), Seen::Batch(1, 7)]);
    assert_eq!(bench.fetches, [(OWN, 6), (OWN, 7)]);
    bench.say(ack(7, digest(7)));
    assert_eq!(bench.run(), [acked(OWN, 7), Seen::Batch(1, 8)]);

    // A batch that is gone tells nothing.
    let mut bench = open();
    bench.rows = vec![row(OWN, 4, 5, Reason::Dropped)];
    bench.say(ack(5, digest(99)));
    assert_eq!(bench.run(), [acked(OWN, 5), Seen::Batch(1, 6)]);
}

#[test]
fn row_13_a_twin_is_told_and_the_stream_goes_on() {
    let mut bench = Bench::open(vec![view(OWN, 1, 3, 0)], WIDE);
    bench.run();
    let (code, text) = (error::Code::Twin as i32, "two".to_owned());
    let twin = Server::Error(proto::Error { code, text, ..proto::Error::default() });
    bench.say(twin.clone());
    assert_eq!(bench.run(), [Seen::Did(Output::Note(Note::Twin))]);
    // Who says so without end fills neither memory nor log.
    (0..3).for_each(|_| bench.say(twin.clone()));
    assert_eq!(bench.run(), []);
    bench.ack(1, 1);
    assert_eq!(bench.run(), [acked(OWN, 1)]);
}

#[test]
fn row_13_the_batch_before_tells_a_fork_when_it_is_no_longer_there() {
    let mut bench = Bench::new(vec![view(OWN, 5, 9, 4)]);
    bench.welcome(WIDE);
    bench.run();
    let digest = Bytes::from_static(&[0xee; 16]);
    let (known, committed_seq, digest_seq) = (true, 4, 4);
    bench.say(Server::Opened(Opened { lane: 1, known, committed_seq, digest_seq, digest, window: None }));
    assert_eq!(bench.run(), [vec![acked(OWN, 4)], forked(4)].concat());
}

#[test]
fn a_mark_past_our_own_lanes_end_is_not_believed() {
    let mut bench = Bench::new(vec![view(OWN, 1, 3, 0)]);
    bench.welcome(WIDE);
    bench.run();
    bench.say(Server::Opened(Opened { lane: 1, known: true, committed_seq: 3, ..Opened::default() }));
    let note = Note::PastEnd { lane: OWN, committed_seq: 3, last_seq: 2 };
    assert_eq!(bench.run(), [Seen::Did(Output::Note(note)), Seen::Did(Output::SetAside(OWN))]);
}

#[test]
fn an_old_lane_that_lost_its_end_is_set_aside_and_closed() {
    let mut bench = Bench::new(vec![view(OWN, 1, 1, 0), view(OLD, 1, 3, 0)]);
    bench.welcome(WIDE);
    bench.run();
    bench.say(Server::Opened(Opened { lane: 2, known: true, committed_seq: 9, ..Opened::default() }));
    let note = Note::PastEnd { lane: OLD, committed_seq: 9, last_seq: 2 };
    let expected = [Seen::Did(Output::Note(note)), Seen::Close(2), Seen::Did(Output::SetAside(OLD))];
    assert_eq!(bench.run(), expected);
}

#[test]
fn a_forked_reject_stops_the_lane_and_sets_nothing_aside() {
    let mut bench = Bench::open(vec![view(OWN, 1, 3, 0)], WIDE);
    bench.run();
    bench.reject(1, 1, reject::Reason::Forked);
    assert_eq!(bench.run(), forked(1));
    assert_eq!(bench.session.in_flight(), Load::default());
}

#[test]
fn row_20_60_s_of_silence_end_it_only_while_something_is_awaited() {
    let mut greeting = Bench::new(vec![view(OWN, 1, 1, 0)]);
    greeting.run();
    greeting.wait(Duration::from_secs(60));
    assert!(matches!(greeting.run().last(), Some(Seen::Did(Output::End(End::Silent { .. })))));

    let mut bench = Bench::open(vec![view(OWN, 1, 1, 0)], WIDE);
    bench.run();
    bench.wait(Duration::from_secs(3600));
    assert_eq!(bench.run(), [], "nothing is awaited");
    bench.session.grown(3);
    assert_eq!(bench.data(), batches(1, 1..=2));
    bench.wait(Duration::from_secs(59));
    assert_eq!(bench.run(), [], "the hour before does not count");
    bench.ack(1, 1);
    bench.wait(Duration::from_secs(59));
    assert_eq!(bench.run(), [acked(OWN, 1)], "any message is a sign of life");
    bench.wait(Duration::from_secs(1));
    assert!(matches!(bench.run().last(), Some(Seen::Did(Output::End(End::Silent { .. })))));
}

#[test]
fn heartbeats_tell_every_lanes_next_number() {
    let mut bench = Bench::open(vec![view(OWN, 1, 5, 0), view(OLD, 1, 3, 0)], WIDE);
    bench.run();
    assert!(!bench.session.is_heartbeat_due(bench.now));
    bench.wait(Duration::from_secs(10));
    assert!(bench.session.is_heartbeat_due(bench.now));
    bench.session.heartbeat(Counters::default(), Some(Duration::ZERO), bench.now);
    assert_eq!(bench.run(), [Seen::Heartbeat(vec![(1, 5), (2, 3)])]);
    assert!(!bench.session.is_heartbeat_due(bench.now));
}

#[test]
fn row_25_a_drain_waits_for_what_is_in_flight_and_sends_nothing_new() {
    let mut bench = Bench::open(vec![view(OWN, 1, 3, 0)], WIDE);
    bench.run();
    bench.say(Server::Drain(Drain { deadline: 5000 }));
    bench.session.grown(10);
    assert_eq!(bench.run(), []);
    bench.ack(1, 2);
    assert_eq!(bench.run(), [acked(OWN, 2), Seen::Bye, Seen::Did(Output::End(End::Drained))]);

    let mut late = Bench::open(vec![view(OWN, 1, 3, 0)], WIDE);
    late.run();
    late.say(Server::Drain(Drain { deadline: 5000 }));
    late.wait(Duration::from_secs(4));
    assert_eq!(late.run(), []);
    late.wait(Duration::from_secs(1));
    assert_eq!(late.run(), [Seen::Bye, Seen::Did(Output::End(End::Drained))]);
}

#[test]
fn finishing_delivers_everything_first() {
    let mut bench =
        Bench::open(vec![view(OWN, 1, 4, 0), view(OLD, 1, 2, 0)], Window { batches: 2, bytes: 1 << 20 });
    bench.session.finish(bench.now);
    bench.run();
    for (lane, seq) in [(1, 1), (2, 1), (1, 2)] {
        bench.ack(lane, seq);
        assert!(!bench.run().contains(&Seen::Bye));
    }
    bench.ack(1, 3);
    assert_eq!(bench.run(), [acked(OWN, 3), Seen::Bye, Seen::Did(Output::End(End::Finished))]);
    assert!(bench.session.wanted().is_none());
}

#[test]
fn a_collector_that_breaks_the_rules_is_left() {
    type Act = fn(&mut Bench);
    let acts: [(&str, Act); 7] = [
        ("a second Welcome", |bench| bench.welcome(WIDE)),
        ("an Ack for no lane", |bench| bench.ack(7, 1)),
        ("an Ack for lane 0", |bench| bench.ack(0, 1)),
        ("a gap in no lane", |bench| bench.gap(7, 1)),
        ("a Reject for no lane", |bench| bench.reject(7, 1, reject::Reason::Unknown)),
        ("Opened for no lane", |bench| bench.say(Server::Opened(Opened { lane: 7, ..Opened::default() }))),
        ("Opened twice", |bench| bench.say(Server::Opened(Opened { lane: 1, ..Opened::default() }))),
    ];
    for (name, act) in acts {
        let mut bench = Bench::open(vec![view(OWN, 1, 3, 0)], WIDE);
        bench.run();
        act(&mut bench);
        let seen = bench.run();
        assert!(matches!(seen.last(), Some(Seen::Did(Output::End(End::Violation(_))))), "{name}: {seen:?}");
        bench.ack(1, 2);
        assert_eq!(bench.run(), [], "{name}: it is over");
    }
    let mut early = Bench::new(vec![view(OWN, 1, 3, 0)]);
    early.ack(1, 1);
    assert!(matches!(early.run().last(), Some(Seen::Did(Output::End(End::Violation(_))))));
    let mut version = Bench::new(vec![view(OWN, 1, 3, 0)]);
    version.say(Server::Welcome(Welcome { version: 2, ..Welcome::default() }));
    assert!(matches!(version.run().last(), Some(Seen::Did(Output::End(End::Violation(_))))));
}

#[test]
fn an_error_of_the_collector_is_told_in_its_words() {
    let mut bench = Bench::open(vec![view(OWN, 1, 1, 0)], WIDE);
    bench.run();
    let code = error::Code::Limit as i32;
    let text = "no more than 8 connections".to_owned();
    bench.say(Server::Error(proto::Error { code, text, ..proto::Error::default() }));
    let Some(Seen::Did(Output::End(end))) = bench.run().pop() else { panic!("it ends") };
    assert_eq!(end.to_string(), "the collector ended the stream: no more than 8 connections (CODE_LIMIT)");
}

#[test]
fn messages_of_a_later_version_are_passed_over() {
    let mut bench = Bench::open(vec![view(OWN, 1, 2, 0)], WIDE);
    bench.run();
    bench.session.received(ServerMessage { message: None }, bench.now);
    assert_eq!(bench.run(), []);
}

#[test]
fn a_number_that_is_not_written_yet_is_waited_for() {
    let mut bench = Bench::open(vec![view(OWN, 1, 3, 0)], WIDE);
    while bench.session.poll().is_some() {}
    let (lane, seq) = bench.session.wanted().unwrap();
    bench.session.fetched(lane, seq, Fetched::Pending, bench.now);
    assert_eq!(bench.session.wanted(), None);
    bench.session.grown(3);
    assert_eq!(bench.data(), batches(1, 1..=2));
}

#[test]
fn a_window_beyond_reason_is_cut() {
    let mut bench = Bench::open(vec![view(OWN, 1, 1, 0)], Window { batches: u32::MAX, bytes: u64::MAX });
    assert_eq!(bench.session.window(), MAX_WINDOW);
    bench.session.grown(100_000);
    assert_eq!(bench.data().len(), MAX_WINDOW.batches as usize);
}

#[test]
fn acks_count_what_was_taken_and_name_what_this_connection_did_not_send() {
    let mut bench = Bench::new(vec![view(OWN, 3, 10, 2)]);
    bench.welcome(WIDE);
    bench.run();
    let acked = |bench: &mut Bench| {
        std::iter::from_fn(|| bench.session.poll()).find_map(|output| match output {
            Output::Acked(acked) => Some(acked),
            _ => None,
        })
    };
    bench.say(Server::Opened(Opened { lane: 1, known: true, committed_seq: 5, ..Opened::default() }));
    let first = acked(&mut bench).unwrap();
    assert_eq!((first.batches, first.unseen), (0, 3..=5));
    bench.rows = vec![row(OWN, 7, 7, Reason::Damaged)];
    bench.run();
    bench.ack(1, 8);
    let second = acked(&mut bench).unwrap();
    assert_eq!((second.batches, second.records, second.raw), (2, 20, 0));
    assert!(second.unseen.is_empty());
}

#[test]
fn what_was_acked_before_a_mark_went_back_is_not_counted_again() {
    let mut bench = Bench::new(vec![view(OWN, 1, 6, 4)]);
    bench.welcome(WIDE);
    bench.run();
    bench.say(Server::Opened(Opened { lane: 1, known: true, committed_seq: 1, ..Opened::default() }));
    bench.run();
    bench.ack(1, 5);
    let Some(Output::Acked(acked)) = bench.session.poll() else { panic!("an ack") };
    assert_eq!((acked.batches, acked.records), (1, 10));
    assert!(acked.unseen.is_empty());
}

/// Once it is opened, a full spool may drop what was not sent since: not what the collector has just said to have.
#[test]
fn what_the_collector_has_is_acked_before_the_lane_counts_as_opened() {
    let mut bench = Bench::new(vec![view(OWN, 3, 10, 2)]);
    bench.welcome(WIDE);
    bench.run();
    bench.say(Server::Opened(Opened { lane: 1, known: true, committed_seq: 5, ..Opened::default() }));
    let outputs = std::iter::from_fn(|| bench.session.poll());
    let order: Vec<&str> = outputs
        .filter_map(|output| match output {
            Output::Acked(_) => Some("acked"),
            Output::Opened(_) => Some("opened"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["acked", "opened"]);
}

#[test]
fn a_lane_that_the_writer_begins_later_is_opened_and_the_old_one_closed() {
    let mut bench = Bench::open(vec![view(OWN, 1, 3, 0)], WIDE);
    bench.run();
    let was_own = LaneView { current: false, ..view(OWN, 1, 4, 0) };
    let new = LaneView { current: true, ..view(OLD, 1, 2, 0) };
    bench.session.lanes(vec![was_own, new], bench.now);
    assert_eq!(bench.run(), [Seen::Open(2, OLD), Seen::Batch(1, 3)]);
    bench.session.grown(3);
    bench.say(Server::Opened(Opened { lane: 2, ..Opened::default() }));
    assert_eq!(bench.data(), batches(2, 1..=2));
    bench.ack(1, 3);
    assert_eq!(bench.run(), [acked(OWN, 3), Seen::Close(1), Seen::Did(Output::Closed(OWN))]);
}

/// The lane that was current, too, has its place behind those that are older.
#[test]
fn old_lanes_drain_oldest_first_when_a_new_one_is_begun() {
    let was_own = LaneView { current: false, ..view(OWN, 1, 4, 0) };
    let new = LaneView { current: true, ..view(OLDER, 1, 1, 0) };
    let views = vec![view(OLD, 1, 4, 0), was_own, new];
    // Before the lanes are opened.
    let mut bench = Bench::new(vec![view(OLD, 1, 4, 0), view(OWN, 1, 4, 0)]);
    bench.say(Server::Welcome(Welcome { version: 1, window: Some(WIDE), ..Welcome::default() }));
    bench.run();
    bench.session.refresh(views.clone(), 0, bench.now);
    bench.session.store_taken(bench.now);
    assert_eq!(bench.run(), [Seen::Open(1, OLDER), Seen::Open(2, OLD), Seen::Open(3, OWN)]);

    // After that.
    let narrow = Window { batches: 1, bytes: 1 << 20 };
    let mut bench = Bench::open(vec![view(OLD, 1, 4, 0), view(OWN, 1, 4, 0)], narrow);
    assert_eq!(bench.data(), batches(1, 1..=1));
    bench.session.lanes(views, bench.now);
    bench.say(Server::Opened(Opened { lane: 3, ..Opened::default() }));
    bench.ack(1, 1);
    assert_eq!(bench.data(), batches(2, 1..=1));
}

#[test]
fn a_forked_lane_goes_when_the_spool_has_moved_it_and_the_new_one_is_opened() {
    let mut bench = Bench::open(vec![view(OWN, 1, 3, 0)], WIDE);
    bench.run();
    bench.reject(1, 2, reject::Reason::Forked);
    bench.run();
    bench.session.lanes(vec![LaneView { current: true, ..view(OLD, 1, 2, 0) }], bench.now);
    assert_eq!(bench.run(), [Seen::Open(2, OLD)]);
    bench.ack(1, 1);
    assert_eq!(bench.run(), [], "late words about it are passed over");
}

#[test]
fn leaving_a_collector_sends_nothing_new() {
    let mut bench = Bench::open(vec![view(OWN, 1, 3, 0)], WIDE);
    bench.run();
    bench.session.leave(bench.now + Duration::from_secs(9), bench.now);
    bench.session.grown(10);
    assert_eq!(bench.run(), []);
    bench.ack(1, 2);
    assert_eq!(bench.run(), [acked(OWN, 2), Seen::Bye, Seen::Did(Output::End(End::Drained))]);
}

mod simulation;
