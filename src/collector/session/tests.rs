use super::*;
use crate::proto::client_message::Message as Client;

const LIMITS: Limits = Limits { lanes: 2, payload_bytes: 100, plain_bytes: 200 };
const WINDOW: Window = Window { batches: 8, bytes: 1000 };
const DIGEST: Digest = [7; 16];

struct Bench {
    session: Session,
    at: Conditions,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let at = Conditions { now, stalled: false, window: WINDOW };
        Self { session: Session::new(LIMITS, [9; 16], now), at }
    }

    /// With Hello done and lane 1 open with its mark at 0.
    fn open() -> Self {
        let mut bench = Self::new();
        bench.message(Client::Hello(hello()));
        bench.message(Client::Open(open(1, 1)));
        bench.outcome(Answer::Opened { known: false, mark: Mark::default() });
        bench
    }

    fn message(&mut self, message: Client) -> Vec<Action> {
        self.session.on_message(Some(message), &self.at)
    }

    fn outcome(&mut self, result: Answer) -> Vec<Action> {
        self.session.on_outcome(Outcome { lane: 1, result }, &self.at)
    }

    fn after(&mut self, time: Duration) -> Vec<Action> {
        self.at.now += time;
        let mut actions = Vec::new();
        self.session.on_time(&self.at, &mut actions);
        actions
    }
}

fn hello() -> proto::Hello {
    proto::Hello { versions: vec![1, 2], instance: vec![3; 16].into(), ..proto::Hello::default() }
}

fn open(lane: u32, id: u8) -> proto::Open {
    proto::Open {
        lane,
        lane_id: vec![id; 16].into(),
        current: true,
        oldest_seq: 1,
        next_seq: 1,
        acked_seq: 0,
    }
}

fn batch(seq: u64) -> proto::Batch {
    proto::Batch { lane: 1, seq, plain_size: 3, payload: vec![0; 3].into(), ..proto::Batch::default() }
}

fn marked(seq: u64) -> Answer {
    let mark = Mark { committed_seq: seq, digest_seq: seq, digest: DIGEST };
    Answer::Marked { mark, moved: true }
}

fn error_code(actions: &[Action]) -> Option<Code> {
    actions.iter().find_map(|action| match action {
        Action::Send(Message::Error(error)) => Some(error.code()),
        _ => None,
    })
}

fn acks(actions: &[Action]) -> Vec<(u64, u32)> {
    let acks = actions.iter().filter_map(|action| match action {
        Action::Send(Message::Ack(ack)) => Some((ack.committed_seq, ack.window.unwrap().batches)),
        _ => None,
    });
    acks.collect()
}

#[test]
fn hello_is_answered_by_welcome() {
    let actions = Bench::new().message(Client::Hello(hello()));
    assert!(matches!(&actions[0], Action::Greeted { instance, .. } if *instance == [3; 16]));
    let Action::Send(Message::Welcome(welcome)) = &actions[1] else { panic!("{actions:?}") };
    assert_eq!(welcome.mark_store_id, vec![9; 16]);
    assert_eq!(welcome.window, Some(WINDOW));
    assert_eq!(welcome.limits.unwrap().payload_bytes, 100);
}

#[test]
fn anything_before_hello_or_a_second_hello_ends_the_stream() {
    let actions = Bench::new().message(Client::Bye(proto::Bye {}));
    assert_eq!(error_code(&actions), Some(Code::Protocol));
    assert!(actions.contains(&Action::End));
    assert_eq!(error_code(&Bench::open().message(Client::Hello(hello()))), Some(Code::Protocol));
}

#[test]
fn no_version_in_common_ends_the_stream() {
    let actions = Bench::new().message(Client::Hello(proto::Hello { versions: vec![2], ..hello() }));
    assert_eq!(error_code(&actions), Some(Code::Version));
}

#[test]
fn a_message_of_an_unknown_kind_ends_the_stream() {
    let mut bench = Bench::open();
    let actions = bench.session.on_message(None, &bench.at);
    assert_eq!(error_code(&actions), Some(Code::Protocol));
}

#[test]
fn broken_fields_end_the_stream() {
    let broken = [
        Client::Open(proto::Open { lane_id: vec![1; 15].into(), ..open(2, 2) }),
        Client::Open(proto::Open { next_seq: 0, ..open(2, 2) }),
        Client::Open(proto::Open { acked_seq: 1, ..open(2, 2) }),
        Client::Open(open(1, 2)),
        Client::Open(open(2, 1)),
        Client::Batch(proto::Batch { lane: 9, ..batch(1) }),
        Client::Batch(batch(0)),
        Client::Batch(batch(u64::MAX)),
        Client::Batch(proto::Batch { previous_digest: vec![1; 3].into(), ..batch(1) }),
        Client::Skip(proto::Skip { lane: 1, from: 2, to: 1, ..proto::Skip::default() }),
        Client::Skip(proto::Skip {
            lane: 1,
            from: 1,
            to: 1,
            counts_per_exporter: vec![proto::ExporterCount::default(); 65_537],
            ..proto::Skip::default()
        }),
        Client::Skip(proto::Skip {
            lane: 1,
            from: 1,
            to: 1,
            records_per_seq: vec![1, 2],
            ..Default::default()
        }),
        Client::Close(proto::Close { lane: 5 }),
        Client::Heartbeat(proto::Heartbeat {
            lanes: vec![proto::LaneNext::default(); 3],
            ..Default::default()
        }),
    ];
    for message in broken {
        let actions = Bench::open().message(message.clone());
        assert_eq!(error_code(&actions), Some(Code::Protocol), "{message:?}");
        assert!(actions.contains(&Action::End));
    }
}

#[test]
fn lanes_are_limited() {
    let mut bench = Bench::open();
    assert_eq!(error_code(&bench.message(Client::Open(open(2, 2)))), None);
    assert_eq!(error_code(&bench.message(Client::Open(open(3, 3)))), Some(Code::Limit));
}

#[test]
fn a_batch_becomes_an_order_with_its_bytes() {
    let actions = Bench::open().message(Client::Batch(batch(1)));
    let [Action::Submit(order @ Order::Lane { lane: 1, id, task: Task::Batch(batch) })] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!((*id, batch.seq, batch.codec), (LaneId([1; 16]), 1, Some(Codec::Plain)));
    assert_eq!(order.bytes(), 3);
}

#[test]
fn a_batch_over_the_limits_is_marked_so_and_its_payload_let_go() {
    for oversized in [
        proto::Batch { payload: vec![0; 101].into(), ..batch(1) },
        proto::Batch { plain_size: 201, ..batch(1) },
    ] {
        let actions = Bench::open().message(Client::Batch(oversized));
        let [Action::Submit(Order::Lane { task: Task::Batch(batch), .. })] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert!(batch.too_large && batch.payload.is_empty());
    }
}

#[test]
fn the_first_ack_goes_at_once_and_the_next_ones_together() {
    let mut bench = Bench::open();
    for seq in 1..=3 {
        bench.message(Client::Batch(batch(seq)));
    }
    assert_eq!(acks(&bench.outcome(marked(1))), [(1, 8)]);
    assert_eq!(acks(&bench.outcome(marked(2))), []);
    assert_eq!(acks(&bench.outcome(marked(3))), []);
    assert_eq!(bench.session.deadline(), Some(bench.at.now + ACK_INTERVAL));
    assert_eq!(acks(&bench.after(ACK_INTERVAL)), [(3, 8)]);
    assert_eq!(bench.session.deadline(), None);
}

#[test]
fn a_gap_is_told_once_until_the_mark_moves() {
    let mut bench = Bench::open();
    for seq in [2, 3, 1, 4] {
        bench.message(Client::Batch(batch(seq)));
    }
    assert_eq!(error_code(&bench.outcome(Answer::Gap { committed_seq: 0 })), Some(Code::Gap));
    assert_eq!(bench.outcome(Answer::Gap { committed_seq: 0 }), []);
    bench.outcome(marked(1));
    assert_eq!(error_code(&bench.outcome(Answer::Gap { committed_seq: 1 })), Some(Code::Gap));
    assert!(!bench.session.is_ending());
}

#[test]
fn a_reject_comes_after_the_acks_before_it() {
    let mut bench = Bench::open();
    for seq in 1..=3 {
        bench.message(Client::Batch(batch(seq)));
    }
    bench.outcome(marked(1));
    bench.outcome(marked(2));
    let reason = proto::reject::Reason::Malformed;
    let actions = bench.outcome(Answer::Rejected(Rejection { seq: 3, reason, text: "why".into() }));
    assert_eq!(acks(&actions[..1]), [(2, 8)]);
    assert!(matches!(&actions[1], Action::Send(Message::Reject(reject)) if reject.seq == 3));
}

#[test]
fn a_stall_is_told_at_once_and_every_ten_seconds_and_so_is_its_end() {
    let mut bench = Bench::open();
    bench.message(Client::Batch(batch(1)));
    bench.at.stalled = true;
    assert_eq!(acks(&bench.after(Duration::ZERO)), [(0, 0)]);
    assert_eq!(acks(&bench.after(Duration::from_secs(1))), []);
    assert_eq!(acks(&bench.after(Duration::from_secs(9))), [(0, 0)]);
    bench.at.stalled = false;
    assert_eq!(acks(&bench.after(Duration::ZERO)), [(0, 8)]);
    assert_eq!(acks(&bench.outcome(marked(1))), []);
    assert_eq!(acks(&bench.after(ACK_INTERVAL)), [(1, 8)]);
}

#[test]
fn a_client_with_something_in_flight_hears_something_every_ten_seconds() {
    let mut bench = Bench::open();
    bench.message(Client::Batch(batch(1)));
    assert_eq!(bench.session.deadline(), Some(bench.at.now + SILENCE));
    assert_eq!(acks(&bench.after(SILENCE)), [(0, 8)]);
}

#[test]
fn silence_is_no_busy_wait_while_no_lane_is_open() {
    let mut bench = Bench::new();
    bench.message(Client::Hello(hello()));
    bench.message(Client::Open(open(1, 1)));
    assert_eq!(bench.after(SILENCE), []);
    assert_eq!(bench.session.deadline(), Some(bench.at.now + SILENCE));
}

#[test]
fn bye_waits_for_what_is_under_way() {
    let mut bench = Bench::open();
    bench.message(Client::Batch(batch(1)));
    assert_eq!(bench.message(Client::Bye(proto::Bye {})), []);
    let actions = bench.outcome(marked(1));
    assert_eq!(acks(&actions), [(1, 8)]);
    assert_eq!(actions.last(), Some(&Action::End));
}

#[test]
fn a_closed_lane_can_be_opened_again() {
    let mut bench = Bench::open();
    let actions = bench.message(Client::Close(proto::Close { lane: 1 }));
    assert!(matches!(&actions[..], [Action::Submit(Order::Lane { task: Task::Close, .. })]));
    assert_eq!(bench.outcome(Answer::Closed), []);
    assert_eq!(error_code(&bench.message(Client::Open(open(1, 1)))), None);
}

#[test]
fn a_heartbeat_tells_what_open_lanes_have_reached() {
    let lanes = vec![proto::LaneNext { lane: 1, next_seq: 5 }, proto::LaneNext { lane: 4, next_seq: 6 }];
    let actions = Bench::open().message(Client::Heartbeat(proto::Heartbeat { lanes, ..Default::default() }));
    assert_eq!(actions[0], Action::Submit(Order::Heard(vec![(LaneId([1; 16]), 5)])));
}

#[test]
fn a_limit_of_the_store_ends_the_stream() {
    let mut bench = Bench::new();
    bench.message(Client::Hello(hello()));
    bench.message(Client::Open(open(1, 1)));
    let actions = bench.outcome(Answer::Refused { text: "full".into() });
    assert_eq!(error_code(&actions), Some(Code::Limit));
    assert!(actions.contains(&Action::End));
}
