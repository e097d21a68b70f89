//! Policies and operator policies of RabbitMQ over the queues of the framework: the outcomes of the calls, and of their requests.
//!
//! The policies are those of the vhost `policies` in `parity/definitions.json`, each for the queues of one service, or for the reply
//! and control queues of one user. The bundled broker has no policies. One test sets policies with `rabbitmqctl`, which `tests/run`
//! names in `RPC_TEST_RABBITMQ_CTL`, while a pool serves.

use std::{
    future::Future,
    pin::Pin,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rpc_core::{CallError, Connection, PoolHandle, QueueKind, WorkerPool, service};
use rpc_tests::{Stage, Target, eventually, raw, run, within};
use tokio::{sync::Semaphore, time::sleep};

use crate::kill_points::world::World;

/// Registers cases, once: on RabbitMQ.
macro_rules! on_rabbitmq {
    ($($(#[$attribute:meta])* $case:ident),+ $(,)?) => {
        mod rabbitmq {
            $(#[test]
            $(#[$attribute])*
            fn $case() {
                super::run(super::Target::RabbitMq, super::$case);
            })+
        }
    };
}

on_rabbitmq!(
    requests_older_than_a_message_ttl_are_lost,
    requests_older_than_an_operators_message_ttl_are_lost,
    a_full_queue_that_drops_its_head_loses_the_oldest_requests,
    a_full_queue_that_rejects_loses_unconfirmed_requests_and_reports_the_others,
    an_operators_max_length_below_the_services_reports_overload,
    an_operators_delivery_limit_ends_a_call_and_the_letter_goes_where_the_framework_wants_it,
    requests_that_expire_go_to_the_policys_dead_letter_exchange_from_classic_queues_alone,
    a_queue_that_expires_without_workers_is_no_service_until_one_comes,
    a_dead_letter_queue_that_expires_is_declared_again,
    reply_and_control_queues_work_under_policies_that_take_messages,
    a_reply_queue_that_takes_nothing_makes_calls_time_out_that_ran_once,
    #[ignore = "needs rabbitmqctl; `tests/run` has it"]
    policies_that_are_set_while_a_pool_serves_hold_from_then_on,
);

/// `hold` waits until it is released.
#[derive(Clone)]
struct Shelf {
    begun: Arc<AtomicUsize>,
    notes: Arc<AtomicUsize>,
    release: Arc<Semaphore>,
}

impl Shelf {
    fn new() -> Self {
        Self { begun: Arc::default(), notes: Arc::default(), release: Arc::new(Semaphore::new(0)) }
    }

    /// Handlers of calls that have begun, and of one-way requests.
    fn executed(&self) -> (usize, usize) {
        (self.begun.load(Ordering::SeqCst), self.notes.load(Ordering::SeqCst))
    }
}

type Ending<T> = Pin<Box<dyn Future<Output = Result<T, CallError>> + Send>>;

/// A service, whatever its name.
struct Shop {
    name: &'static str,
    pool: fn(&Connection, Shelf) -> WorkerPool,
    client: fn(&Connection) -> Box<dyn Calls>,
}

/// The calls of a service. They are sent when they are first polled.
trait Calls {
    fn hold(&self) -> Ending<()>;
    fn ask(&self, n: usize, timeout: Duration) -> Ending<usize>;
    fn again(&self, n: usize, timeout: Duration) -> Ending<usize>;
    fn note(&self, timeout: Duration) -> Ending<()>;
}

/// Declares a service of that name where it stands: its [`Shop`] is `SHOP`.
macro_rules! shop {
    ($name:literal $(, max_length = $max:literal)?) => {
        #[service(name = $name $(, max_length = $max)?)]
        trait Counter {
            #[rpc(timeout = "20s")]
            async fn hold(&self);
            async fn ask(&self, n: usize) -> usize;
            #[rpc(idempotent)]
            async fn again(&self, n: usize) -> usize;
            #[rpc(oneway)]
            async fn note(&self);
        }
        impl Counter for Shelf {
            async fn hold(&self) {
                self.begun.fetch_add(1, Ordering::SeqCst);
                self.release.acquire().await.unwrap().forget();
            }
            async fn ask(&self, n: usize) -> usize {
                self.begun.fetch_add(1, Ordering::SeqCst);
                n
            }
            async fn again(&self, n: usize) -> usize {
                self.begun.fetch_add(1, Ordering::SeqCst);
                n
            }
            async fn note(&self) {
                self.notes.fetch_add(1, Ordering::SeqCst);
            }
        }
        impl Calls for CounterClient {
            fn hold(&self) -> Ending<()> {
                Box::pin(CounterClient::hold(self).into_future())
            }
            fn ask(&self, n: usize, timeout: Duration) -> Ending<usize> {
                Box::pin(CounterClient::ask(self, n).timeout(timeout).into_future())
            }
            fn again(&self, n: usize, timeout: Duration) -> Ending<usize> {
                Box::pin(CounterClient::again(self, n).timeout(timeout).into_future())
            }
            fn note(&self, timeout: Duration) -> Ending<()> {
                Box::pin(CounterClient::note(self).timeout(timeout).into_future())
            }
        }
        const SHOP: Shop = Shop {
            name: $name,
            pool: |connection, shelf| WorkerPool::new(connection).serve(CounterServer::new(shelf)),
            client: |connection| Box::new(CounterClient::new(connection)),
        };
    };
}

impl Shop {
    /// Starts a pool with one slot. A second one declares the queues that are there.
    async fn serve(&self, stage: &Stage, kind: QueueKind, shelf: &Shelf) -> PoolHandle {
        let pool = (self.pool)(&connect(stage).await, shelf.clone());
        pool.queue_kind(kind).concurrency(1).prefetch(1).start().await.unwrap()
    }

    async fn client(&self, stage: &Stage) -> Box<dyn Calls> {
        (self.client)(&connect(stage).await)
    }

    fn queue(&self, end: &str) -> String {
        format!("rpc.{}{end}", self.name)
    }

    /// Removes what an earlier run or the other kind of queue has left.
    async fn clear(&self, stage: &Stage) {
        let raw = peer(stage).await;
        for end in ["", ".nested.calls", ".dead", ".dead.callers"] {
            raw.delete_queue(&self.queue(end)).await;
        }
    }
}

/// The endings of requests that waited while a handler held the only slot, and what ran of them.
struct Waited {
    asks: Vec<Result<usize, CallError>>,
    note: Result<(), CallError>,
    executed: (usize, usize),
}

/// Calls a service whose only slot is held for 0.4 s. A call and a one-way request have been
/// executed before, so that the broker confirms calls no longer. All that can run has run at the end.
async fn wait_behind_one(stage: &Stage, shop: &Shop, kind: QueueKind) -> Waited {
    shop.clear(stage).await;
    let shelf = Shelf::new();
    let first = shop.serve(stage, kind, &shelf).await;
    let client = shop.client(stage).await;
    client.ask(0, SOON).await.unwrap();
    client.note(SOON).await.unwrap();
    eventually(SOON, "the note is executed", async || shelf.executed() == (1, 1)).await;
    let hold = tokio::spawn(client.hold());
    eventually(SOON, "the slot is held", async || shelf.executed().0 == 2).await;
    let mut asks = Vec::new();
    for n in 0..ASKS {
        asks.push(tokio::spawn(client.ask(n, WAIT)));
        // So that the requests are in the queue in this order.
        sleep(Duration::from_millis(10)).await;
    }
    let note = tokio::spawn(client.note(WAIT));
    sleep(Duration::from_millis(400)).await;
    shelf.release.add_permits(1);
    within(SOON, "the end of the holder", hold).await.unwrap().unwrap();
    let (mut endings, limit) = (Vec::new(), WAIT + Duration::from_secs(1));
    for ask in asks {
        endings.push(within(limit, "the end of a call", ask).await.unwrap());
    }
    let note = within(limit, "the end of a one-way request", note).await.unwrap();
    let second = shop.serve(stage, kind, &shelf).await;
    // The queue is in order: what was before this one has run.
    client.ask(0, SOON).await.unwrap();
    for pool in [first, second] {
        pool.shutdown(SOON).await.unwrap();
    }
    let (begun, notes) = shelf.executed();
    shop.clear(stage).await;
    // Without the first ones, the holder and the last one.
    Waited { asks: endings, note, executed: (begun - 3, notes - 1) }
}

fn assert_timed_out<T: std::fmt::Debug>(outcome: &Result<T, CallError>) {
    let error = outcome.as_ref().unwrap_err();
    // The client cannot know that the broker has dropped the request.
    assert_eq!((error.code(), error.maybe_executed()), ("timeout", true), "{error:?}");
}

fn assert_overloaded<T: std::fmt::Debug>(outcome: &Result<T, CallError>) {
    let error = outcome.as_ref().unwrap_err();
    assert_eq!((error.code(), error.maybe_executed(), error.is_retryable()), ("overloaded", false, true), "{error:?}");
}

async fn requests_older_than_a_message_ttl_are_lost(stage: &Stage) {
    shop!("policies-ttl");
    lost_by_age(stage, &SHOP, &KINDS).await;
}

async fn requests_older_than_an_operators_message_ttl_are_lost(stage: &Stage) {
    shop!("policies-operator-ttl");
    lost_by_age(stage, &SHOP, &[QueueKind::Quorum]).await;
}

async fn lost_by_age(stage: &Stage, shop: &Shop, kinds: &[QueueKind]) {
    for kind in kinds {
        let waited = wait_behind_one(stage, shop, *kind).await;
        waited.asks.iter().for_each(assert_timed_out);
        assert!(waited.note.is_ok(), "{:?}: the broker has confirmed it, and loses it afterwards", waited.note);
        assert_eq!(waited.executed, (0, 0), "{kind:?}");
    }
}

async fn a_full_queue_that_drops_its_head_loses_the_oldest_requests(stage: &Stage) {
    shop!("policies-drop");
    for kind in KINDS {
        let Waited { asks, note, executed } = wait_behind_one(stage, &SHOP, kind).await;
        let (last, lost) = asks.split_last().unwrap();
        lost.iter().for_each(assert_timed_out);
        assert_eq!(*last.as_ref().unwrap(), ASKS - 1, "{kind:?}: there was room for the last two requests");
        assert!(note.is_ok(), "{note:?}");
        assert_eq!(executed, (1, 1), "{kind:?}");
    }
}

async fn a_full_queue_that_rejects_loses_unconfirmed_requests_and_reports_the_others(stage: &Stage) {
    shop!("policies-reject");
    for kind in KINDS {
        let Waited { asks, note, executed } = wait_behind_one(stage, &SHOP, kind).await;
        let answered = asks.iter().filter(|ask| ask.is_ok()).count();
        // A quorum queue notices a little later that it is full.
        assert!((2..ASKS).contains(&answered), "{kind:?}: {asks:?}");
        asks.iter().filter(|ask| ask.is_err()).for_each(assert_timed_out);
        // One-way requests are confirmed.
        assert_overloaded(&note);
        assert_eq!(executed, (answered, 0), "{kind:?}");
    }
}

/// The service's own overflow, `reject-publish`, stays; the length is the smaller one.
async fn an_operators_max_length_below_the_services_reports_overload(stage: &Stage) {
    shop!("policies-operator-bound", max_length = 6);
    for kind in KINDS {
        let Waited { asks, note, executed } = wait_behind_one(stage, &SHOP, kind).await;
        let answered = asks.iter().filter(|ask| ask.is_ok()).count();
        assert!((1..ASKS).contains(&answered), "{kind:?}: {asks:?}");
        asks.iter().filter(|ask| ask.is_err()).for_each(assert_overloaded);
        assert_overloaded(&note);
        assert_eq!(executed, (answered, 0), "{kind:?}");
    }
}

async fn an_operators_delivery_limit_ends_a_call_and_the_letter_goes_where_the_framework_wants_it(stage: &Stage) {
    shop!("policies-limit");
    SHOP.clear(stage).await;
    let raw = peer(stage).await;
    let operators = raw.exclusive_queue().await;
    raw.bind(&operators, "amq.fanout", "policies-limit.hold").await;
    let shelf = Shelf::new();
    let mut worker = SHOP.serve(stage, QueueKind::Quorum, &shelf).await;
    let hold = tokio::spawn(SHOP.client(stage).await.hold());
    // The pool's own limit is 20, the operator's 1.
    for round in 1..=2 {
        eventually(SOON, "the handler runs", async || shelf.executed().0 == round).await;
        drop(worker);
        worker = SHOP.serve(stage, QueueKind::Quorum, &shelf).await;
    }
    let error = within(SOON, "the caller is told", hold).await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.maybe_executed()), ("abandoned", true), "{error:?}");
    let dead = SHOP.queue(".dead");
    let is_kept = async || raw.queue(&dead).await.unwrap().ready == 1;
    eventually(SOON, "the letter is where the framework wants it", is_kept).await;
    // The policy names another exchange, over which the queue's own argument wins.
    assert_eq!((shelf.executed().0, raw.queue(&operators).await.unwrap().ready), (2, 0));
    worker.shutdown(SOON).await.unwrap();
    SHOP.clear(stage).await;
}

async fn requests_that_expire_go_to_the_policys_dead_letter_exchange_from_classic_queues_alone(stage: &Stage) {
    shop!("policies-letters");
    for (kind, letters) in [(QueueKind::Quorum, 0), (QueueKind::Classic, 1)] {
        SHOP.clear(stage).await;
        let raw = peer(stage).await;
        let operators = raw.exclusive_queue().await;
        raw.bind(&operators, "amq.fanout", "").await;
        let shelf = Shelf::new();
        SHOP.serve(stage, kind, &shelf).await.shutdown(SOON).await.unwrap();
        assert_timed_out(&SHOP.client(stage).await.ask(1, Duration::from_millis(200)).await);
        let queue = SHOP.queue("");
        eventually(SOON, "it has expired", async || raw.queue(&queue).await.unwrap().ready == 0).await;
        if letters > 0 {
            let is_there = async || raw.queue(&operators).await.unwrap().ready == letters;
            eventually(SOON, "the operator has it", is_there).await;
        }
        let worker = SHOP.serve(stage, kind, &shelf).await;
        SHOP.client(stage).await.ask(2, SOON).await.unwrap();
        let ready = raw.queue(&operators).await.unwrap().ready;
        assert_eq!((ready, shelf.executed().0), (letters, 1), "{kind:?}");
        if letters > 0 {
            let letter = raw.consume(&operators, 1).await.next().await;
            assert_eq!(*letter.properties.expiration(), None);
            raw.publish("rpc", letter.routing_key.as_str(), letter.properties, &letter.data).await;
            eventually(SOON, "a letter that is published again runs", async || shelf.executed().0 == 2).await;
        }
        worker.shutdown(SOON).await.unwrap();
        SHOP.clear(stage).await;
    }
}

async fn a_queue_that_expires_without_workers_is_no_service_until_one_comes(stage: &Stage) {
    shop!("policies-expires");
    for kind in KINDS {
        SHOP.clear(stage).await;
        let (shelf, client) = (Shelf::new(), SHOP.client(stage).await);
        let worker = SHOP.serve(stage, kind, &shelf).await;
        client.ask(0, SOON).await.unwrap();
        worker.shutdown(SOON).await.unwrap();
        assert_timed_out(&client.ask(1, WAIT).await);
        // RabbitMQ looks at quorum queues every five seconds, and takes their bindings away one by one.
        let is_no_service = async || {
            let (ask, again, note) = tokio::join!(client.ask(2, WAIT), client.again(3, WAIT), client.note(WAIT));
            let mut errors = [ask.err(), again.err(), note.err()].into_iter();
            errors.all(|error| error.is_some_and(|error| error.code() == "no_such_service" && !error.maybe_executed()))
        };
        eventually(SOON, "no method has a queue", is_no_service).await;
        let worker = SHOP.serve(stage, kind, &shelf).await;
        assert_eq!(client.ask(4, SOON).await.unwrap(), 4);
        assert_eq!(shelf.executed().0, 2, "nothing that was lost came back");
        worker.shutdown(SOON).await.unwrap();
        SHOP.clear(stage).await;
    }
}

async fn a_dead_letter_queue_that_expires_is_declared_again(stage: &Stage) {
    shop!("policies-expires-dead");
    SHOP.clear(stage).await;
    let raw = peer(stage).await;
    let worker = SHOP.serve(stage, QueueKind::Classic, &Shelf::new()).await;
    let dead = SHOP.queue(".dead");
    for letters in 1..=2 {
        let oneway = lapin::BasicProperties::default().with_type("rpc.oneway".into());
        raw.publish("rpc", "policies-expires-dead.unknown", oneway, b"").await;
        eventually(SOON, "it is kept", async || worker.stats().dead_lettered == letters).await;
        assert_eq!(raw.queue(&dead).await.unwrap().ready, 1, "the letter before it was lost with its queue");
        // No condition to wait for: a look at the queue counts as use.
        sleep(Duration::from_secs(1)).await;
        assert!(raw.queue(&dead).await.is_none());
    }
    assert_eq!(worker.stats().dead_letters_lost, 0);
    worker.shutdown(SOON).await.unwrap();
    SHOP.clear(stage).await;
}

/// The user's name is in the names of its reply and control queues, by which the policies know them.
async fn connect_as(stage: &Stage, user: &str) -> Connection {
    Connection::open(&stage.uri_as(user, "policies")).await.unwrap()
}

async fn reply_and_control_queues_work_under_policies_that_take_messages(stage: &Stage) {
    shop!("policies-replies");
    SHOP.clear(stage).await;
    // message-ttl 0; max-length 1; expires 200 ms; a dead-letter exchange.
    for user in ["caller", "intruder", "operator", "shop"] {
        let shelf = Shelf::new();
        let pool = (SHOP.pool)(&connect_as(stage, user).await, shelf.clone()).start().await.unwrap();
        let client = (SHOP.client)(&connect_as(stage, user).await);
        client.ask(0, SOON).await.unwrap();
        sleep(Duration::from_millis(300)).await;
        let calls: Vec<_> = (0..50).map(|n| tokio::spawn(client.ask(n, SOON))).collect();
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap().unwrap(), n, "{user}");
        }
        let hold = tokio::spawn(client.hold());
        eventually(SOON, "it runs", async || shelf.executed().0 == 52).await;
        hold.abort();
        eventually(SOON, "the cancel arrives", async || pool.stats().cancelled == 1).await;
        pool.shutdown(SOON).await.unwrap();
    }
    SHOP.clear(stage).await;
}

/// RabbitMQ rejects what is above a max-length of 0 although a consumer waits.
async fn a_reply_queue_that_takes_nothing_makes_calls_time_out_that_ran_once(stage: &Stage) {
    shop!("policies-mute");
    SHOP.clear(stage).await;
    let shelf = Shelf::new();
    let pool = (SHOP.pool)(&connect_as(stage, "plain").await, shelf.clone()).start().await.unwrap();
    let client = (SHOP.client)(&connect_as(stage, "plain").await);
    let (ask, again, note) = tokio::join!(client.ask(1, WAIT), client.again(2, WAIT), client.note(WAIT));
    assert_timed_out(&ask);
    assert_timed_out(&again);
    note.unwrap();
    eventually(SOON, "the note is executed", async || shelf.executed().1 == 1).await;
    assert_eq!(shelf.executed(), (2, 1), "each once");
    pool.shutdown(SOON).await.unwrap();
    SHOP.clear(stage).await;
}

/// Under an operator policy as well: the stricter value counts.
async fn policies_that_are_set_while_a_pool_serves_hold_from_then_on(stage: &Stage) {
    shop!("policies-live");
    let Some(World::RabbitMq { ctl, .. }) = World::rabbitmq() else {
        println!("skipped: no rabbitmqctl");
        return;
    };
    SHOP.clear(stage).await;
    let shelf = Shelf::new();
    let first = SHOP.serve(stage, QueueKind::Classic, &shelf).await;
    let client = SHOP.client(stage).await;
    client.ask(0, SOON).await.unwrap();
    client.note(SOON).await.unwrap();
    let policies = Policies { ctl };
    assert!(policies.run("set_policy", &["live", PATTERN, r#"{"max-length": 2, "overflow": "reject-publish"}"#]));
    assert!(policies.run("set_operator_policy", &["live", PATTERN, r#"{"max-length": 1}"#]));
    let hold = tokio::spawn(client.hold());
    eventually(SOON, "the slot is held", async || shelf.executed().0 == 2).await;
    let (taken, queue) = (tokio::spawn(client.ask(1, SOON)), SHOP.queue(""));
    let raw = peer(stage).await;
    eventually(SOON, "one waits", async || raw.queue(&queue).await.unwrap().ready == 1).await;
    assert_overloaded(&client.note(WAIT).await);
    let second = SHOP.serve(stage, QueueKind::Classic, &shelf).await;
    assert_eq!(within(SOON, "the second pool has it", taken).await.unwrap().unwrap(), 1);
    second.shutdown(SOON).await.unwrap();
    drop(policies);
    let calls: Vec<_> = (0..ASKS).map(|n| tokio::spawn(client.ask(n, SOON))).collect();
    eventually(SOON, "all wait", async || raw.queue(&queue).await.unwrap().ready as usize == ASKS).await;
    shelf.release.add_permits(1);
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(within(SOON, "an answer", call).await.unwrap().unwrap(), n);
    }
    hold.await.unwrap().unwrap();
    first.shutdown(SOON).await.unwrap();
    SHOP.clear(stage).await;
}

/// Clears what it sets, also when the case fails.
struct Policies {
    ctl: String,
}

impl Policies {
    /// Runs a command of rabbitmqctl; returns whether it succeeded.
    fn run(&self, command: &str, arguments: &[&str]) -> bool {
        let mut ctl = Command::new(&self.ctl);
        ctl.args([command, "-p", "policies", "--silent"]).args(arguments).stdin(Stdio::null());
        ctl.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Policies {
    fn drop(&mut self) {
        for command in ["clear_policy", "clear_operator_policy"] {
            if !self.run(command, &["live"]) {
                println!("a policy stays: {command} failed");
            }
        }
    }
}

async fn connect(stage: &Stage) -> Connection {
    Connection::open(&stage.uri_on("policies")).await.unwrap()
}

async fn peer(stage: &Stage) -> raw::Peer {
    raw::Peer::connect(&stage.broker_uri_on("policies")).await
}

const KINDS: [QueueKind; 2] = [QueueKind::Classic, QueueKind::Quorum];
const PATTERN: &str = r"^rpc\.policies-live(\.|$)";
const ASKS: usize = 6;
/// The timeout of calls that wait, longer than each policy's.
const WAIT: Duration = Duration::from_millis(800);
const SOON: Duration = Duration::from_secs(10);
