use super::*;
use crate::{
    codec::Codec,
    service::{MethodDescriptor, ServiceDescriptor},
};

static SERVICE: ServiceDescriptor = ServiceDescriptor {
    name: "s",
    version: 1,
    queue: None,
    codec: Codec::MessagePack,
    max_length: None,
    max_depth: Codec::MAX_DEPTH,
    methods: &[MethodDescriptor::new("m", "s.m")],
};
const QUEUE: &str = "rpc.s";
const GRACE: Duration = Duration::from_millis(250);
const USUAL: Duration = Duration::from_millis(60);

/// A board with a clock.
struct Bench {
    board: Board,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { board: Board::default(), now: Instant::now() }
    }

    fn enter_at(&mut self, method_queue: Option<&'static str>, is_nested: bool) -> u64 {
        let whereabouts = Whereabouts { service: &SERVICE, method_queue, is_nested };
        self.board.enter(whereabouts, GRACE, USUAL, self.now)
    }

    fn enter(&mut self) -> u64 {
        self.enter_at(None, false)
    }

    /// A look at the time that the board wants it.
    fn look(&mut self, queues: &[(&str, Option<[u32; 2]>)], pools: Pools) -> Consequences {
        self.look_in(1, queues, pools)
    }

    fn look_in(&mut self, epoch: u64, queues: &[(&str, Option<[u32; 2]>)], pools: Pools) -> Consequences {
        self.now = self.now.max(self.board.next_look(self.now).unwrap());
        assert_eq!(self.board.queues(), queues.iter().map(|(queue, _)| *queue).collect::<Vec<_>>());
        let counts = |counts: [u32; 2]| QueueCounts { ready: counts[0], consumers: counts[1] };
        let queues = queues.iter().map(|(queue, found)| ((*queue).to_owned(), found.map(counts))).collect();
        self.board.note(Look::Seen(Seen { epoch, asked_at: self.now, queues, pools }), self.now)
    }

    /// One that finds as many ready messages and consumers.
    fn find(&mut self, counts: [u32; 2]) {
        self.look(&[(QUEUE, Some(counts))], Pools::Unknown);
    }

    fn held(&mut self, id: u64) -> Poll<Decision> {
        self.board.poll_held(id, Waker::noop())
    }

    fn is_over(&mut self, id: u64) -> bool {
        self.board.poll_sent(id, Waker::noop()).is_ready()
    }

    /// Looks that find the same, until the call is over; how long that took since the first one.
    fn until_over(&mut self, id: u64, counts: [u32; 2], pools: Pools) -> Duration {
        self.look(&[(QUEUE, Some(counts))], pools);
        let first = self.now;
        while !self.is_over(id) {
            assert!(self.now < first + Duration::from_secs(60), "it does not end");
            self.look(&[(QUEUE, Some(counts))], pools);
        }
        self.now - first
    }
}

#[test]
fn the_first_call_is_held_until_a_look_has_found_a_worker() {
    let mut bench = Bench::new();
    let first = bench.enter();
    assert!(bench.board.is_held(first) && bench.held(first).is_pending());
    assert_eq!(bench.board.next_look(bench.now), Some(bench.now), "it looks at once");
    bench.find([0, 1]);
    assert_eq!(bench.held(first), Poll::Ready(Decision::Send));
    // The next ones are sent at once, until the service has been silent for a second.
    let second = bench.enter();
    assert!(!bench.board.is_held(second));
    bench.board.leave(second, true, bench.now);
    bench.now += SILENCE - INTERVAL_MIN;
    let third = bench.enter();
    assert!(!bench.board.is_held(third));
    bench.now += SILENCE;
    let fourth = bench.enter();
    assert!(bench.board.is_held(fourth));
}

#[test]
fn a_call_that_is_held_ends_when_nobody_was_there_for_its_grace_and_later_ones_at_the_next_look() {
    let mut bench = Bench::new();
    let first = bench.enter();
    let begun_at = bench.now;
    while bench.held(first).is_pending() {
        bench.find([0, 0]);
    }
    assert_eq!((bench.held(first), bench.now - begun_at), (Poll::Ready(Decision::Nobody), GRACE));
    bench.board.leave(first, false, bench.now);
    let second = bench.enter();
    bench.find([0, 0]);
    assert_eq!(bench.held(second), Poll::Ready(Decision::Nobody));
    assert_eq!(bench.now, begun_at + GRACE + INTERVAL_MIN);
    bench.board.leave(second, false, bench.now);
    // A look of long ago counts for nothing.
    bench.now += Duration::from_secs(10);
    let third = bench.enter();
    bench.find([0, 0]);
    assert!(bench.held(third).is_pending());
    bench.find([0, 1]);
    assert_eq!(bench.held(third), Poll::Ready(Decision::Send));
}

#[test]
fn nobody_looks_before_a_call_has_waited_longer_than_usual_in_silence() {
    let mut bench = Bench::new();
    assert_eq!(bench.board.next_look(bench.now), None);
    let (call, other) = (bench.enter(), bench.enter());
    bench.find([0, 1]);
    let sent_at = bench.now;
    assert_eq!(bench.board.next_look(bench.now), Some(sent_at + USUAL));
    bench.now += USUAL / 2;
    bench.board.leave(other, true, bench.now);
    assert_eq!(bench.board.next_look(bench.now), Some(bench.now + USUAL), "another call had its reply");
    bench.find([0, 1]);
    assert_eq!(bench.board.next_look(bench.now), Some(bench.now + INTERVAL_MIN));
    bench.board.leave(call, false, bench.now);
    assert_eq!(bench.board.next_look(bench.now), None);
}

#[test]
fn a_call_that_was_sent_ends_when_nobody_was_there_for_its_grace() {
    let mut bench = Bench::new();
    let call = bench.enter();
    bench.find([0, 1]);
    assert_eq!(bench.until_over(call, [1, 0], Pools::None), GRACE);
    assert_eq!(bench.board.next_look(bench.now), None, "it is decided");
}

#[test]
fn workers_that_come_back_start_its_grace_anew() {
    let mut bench = Bench::new();
    let call = bench.enter();
    bench.find([0, 1]);
    for _ in 0..3 {
        let begun_at = bench.now;
        while bench.now < begun_at + GRACE / 2 {
            bench.find([1, 0]);
            assert!(!bench.is_over(call));
        }
        bench.find([0, 1]);
    }
    assert_eq!(bench.until_over(call, [1, 0], Pools::None), GRACE);
}

#[test]
fn pools_that_drain_and_requests_that_someone_has_end_no_call() {
    let mut bench = Bench::new();
    let call = bench.enter();
    bench.find([0, 1]);
    let cases = [
        (1, Pools::Some, Decision::Nobody),
        // The look may tell nothing: RabbitMQ says the same of a quorum queue whose leader does not answer it.
        (0, Pools::Some, Decision::Send),
        (0, Pools::Unknown, Decision::Nobody),
    ];
    for (ready, pools, of_unsent) in cases {
        for _ in 0..40 {
            bench.look(&[(QUEUE, Some([ready, 0]))], pools);
            assert!(!bench.is_over(call));
        }
        // Whereas one that is not sent needs somebody who consumes.
        let unsent = bench.enter();
        bench.look(&[(QUEUE, Some([ready, 0]))], pools);
        assert_eq!(bench.held(unsent), Poll::Ready(of_unsent));
        bench.board.leave(unsent, false, bench.now);
    }
    // A reply that is on its way has the grace to arrive.
    let last = bench.now;
    bench.until_over(call, [0, 0], Pools::None);
    assert!(bench.now >= last + GRACE);
}

#[test]
fn a_look_that_tells_nothing_is_no_verdict() {
    let unknown: [fn(&mut Bench); 4] = [
        // A quorum queue without a leader, or a pool that drains.
        |bench| drop(bench.look_in(bench.board.epoch, &[(QUEUE, Some([0, 0]))], Pools::Some)),
        |bench| drop(bench.board.note(Look::Unknown, bench.now)),
        |bench| drop(bench.look_in(bench.board.epoch + 1, &[(QUEUE, Some([1, 0]))], Pools::None)),
        |bench| bench.now += Duration::from_secs(10),
    ];
    for disturb in unknown {
        let mut bench = Bench::new();
        let call = bench.enter();
        bench.find([0, 1]);
        for _ in 0..10 {
            let epoch = bench.board.epoch;
            bench.look_in(epoch, &[(QUEUE, Some([1, 0]))], Pools::None);
            bench.now += GRACE - Duration::from_millis(1);
            disturb(&mut bench);
            assert!(!bench.is_over(call));
        }
    }
    // Calls that are held are sent then, and so are the next ones.
    let mut bench = Bench::new();
    let held = bench.enter();
    bench.board.note(Look::Unknown, bench.now);
    assert_eq!(bench.held(held), Poll::Ready(Decision::Send));
    let next = bench.enter();
    assert!(!bench.board.is_held(next));
}

#[test]
fn a_user_who_may_not_look_is_told_once_and_asked_again_a_minute_later() {
    let refused = || Error::Refused { operation: "look".to_owned(), reply_code: 403, reply_text: String::new() };
    let mut bench = Bench::new();
    let call = bench.enter();
    assert!(bench.board.note(Look::Denied(refused()), bench.now).denied.is_some());
    assert_eq!((bench.held(call), bench.board.next_look(bench.now)), (Poll::Ready(Decision::Send), None));
    bench.now += DENIED_FOR - INTERVAL_MIN;
    let call = bench.enter();
    assert!(!bench.board.is_held(call));
    bench.now += INTERVAL_MIN;
    let call = bench.enter();
    assert!(bench.board.is_held(call));
    assert!(bench.board.note(Look::Denied(refused()), bench.now).denied.is_none());
}

#[test]
fn each_queue_counts_for_its_own_calls_and_nested_calls_have_two() {
    let mut bench = Bench::new();
    let (plain, slow, nested) = (bench.enter(), bench.enter_at(Some("slow"), false), bench.enter_at(None, true));
    let look = |bench: &mut Bench, nested: Option<[u32; 2]>| {
        let queues = [(QUEUE, Some([0, 0])), ("rpc.s.nested.calls", nested), ("rpc.s.slow", None)];
        bench.look(&queues, Pools::None)
    };
    let begun_at = bench.now;
    while bench.now < begun_at + GRACE {
        look(&mut bench, Some([0, 1]));
    }
    let decisions = [plain, slow, nested].map(|id| bench.held(id));
    assert_eq!(decisions, [Decision::Nobody, Decision::Nobody, Decision::Send].map(Poll::Ready));
}

#[test]
fn a_service_that_is_deserted_and_one_that_is_back_are_reported_once() {
    let mut bench = Bench::new();
    let (mut deserted, mut served) = (0, 0);
    for consumers in [0, 0, 1, 1, 0, 1] {
        for _ in 0..20 {
            let call = bench.enter();
            let consequences = bench.look(&[(QUEUE, Some([0, consumers]))], Pools::None);
            deserted += consequences.deserted.len();
            served += consequences.served.len();
            bench.board.leave(call, false, bench.now);
            bench.now += Duration::from_millis(50);
            if bench.board.next_look(bench.now).is_none() {
                bench.now += Duration::from_millis(1);
            }
        }
        bench.now += SILENCE;
    }
    assert_eq!((deserted, served), (2, 2));
}

#[test]
fn a_look_says_nothing_to_calls_that_came_meanwhile_for_another_queue() {
    let mut bench = Bench::new();
    let first = bench.enter();
    let asked_at = bench.now;
    let (same, other) = (bench.enter(), bench.enter_at(Some("slow"), false));
    let queues = [(QUEUE.to_owned(), Some(QueueCounts { ready: 0, consumers: 1 }))].into();
    bench.board.note(Look::Seen(Seen { epoch: 1, asked_at, queues, pools: Pools::Unknown }), bench.now);
    let decisions = [first, same].map(|id| bench.held(id));
    assert_eq!(decisions, [Decision::Send; 2].map(Poll::Ready));
    assert!(bench.held(other).is_pending());
    assert_eq!(bench.board.next_look(bench.now), Some(bench.now + INTERVAL_MIN));
}

#[test]
fn a_request_to_a_queue_that_is_missing_is_sent_since_the_broker_returns_it() {
    let mut bench = Bench::new();
    let held = bench.enter();
    bench.look(&[(QUEUE, None)], Pools::None);
    assert_eq!(bench.held(held), Poll::Ready(Decision::Send));
    // One that was sent to it before it was deleted is lost, and the clocks run since the first look.
    assert!(bench.until_over(held, [0, 0], Pools::None) <= GRACE);
}
