//! Calls that are given up: what runs is stopped, what waits is skipped, and the workers stay free.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::BasicProperties;
use rpc_core::{Client, ClientOptions, service};
use rpc_tests::{Answers, Stage, eventually, on_both_brokers, probe, within};
use tokio::time::sleep;

on_both_brokers!(
    a_dropped_call_stops_its_handler,
    a_call_that_timed_out_in_the_queue_stops_its_handler_soon_after,
    a_dropped_call_that_is_queued_is_skipped,
    a_dropped_call_that_waits_at_its_worker_is_skipped_at_once,
    a_method_without_cancel_runs_to_its_end,
    a_thread_is_not_stopped_but_one_not_begun_is_skipped,
    ten_thousand_dropped_calls_make_few_messages,
    a_pool_skips_twenty_thousand_dropped_calls,
    a_completed_call_sends_no_cancel,
    a_program_without_the_framework_can_cancel,
    giving_up_a_call_stops_the_handlers_of_the_calls_that_its_handler_made,
);

/// How many handlers have begun, and how many have come to their end.
#[derive(Clone, Default)]
struct Count {
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Count {
    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    /// Answers with the question; those that begin with "slow" take a while.
    fn answers(&self, slow: Duration) -> Answers {
        let count = self.clone();
        Answers::with(move |asked| {
            let count = count.clone();
            async move {
                count.begun.fetch_add(1, Ordering::SeqCst);
                if asked.question.starts_with("slow") {
                    sleep(slow).await;
                }
                count.ended.fetch_add(1, Ordering::SeqCst);
                asked.question
            }
        })
    }
}

const HOUR: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_secs(5);

async fn a_dropped_call_stops_its_handler(stage: &Stage) {
    probe!("cancel-running");
    let count = Count::default();
    let pool = stage.pool(ProbeServer::new(count.answers(HOUR))).await.concurrency(1).start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let call = tokio::spawn(client.ask("slow".to_owned()).timeout(HOUR).into_future());
    eventually(SOON, "the handler runs", async || count.begun() == 1).await;
    call.abort();
    eventually(SOON, "it is stopped", async || pool.stats().cancelled == 1).await;
    // The only handler is free again, and so is the request's place in the prefetch count.
    assert_eq!(within(SOON, "the next answer", client.ask("next".to_owned()).into_future()).await.unwrap(), "next");
    assert_eq!((count.begun(), count.ended()), (2, 1));
    let report = pool.shutdown(SOON).await.unwrap();
    assert_eq!(report.aborted, 0);
    let queue = stage.raw().await.queue("rpc.cancel-running").await.unwrap();
    assert_eq!(queue.ready, 0, "the request is done with");
}

async fn a_call_that_timed_out_in_the_queue_stops_its_handler_soon_after(stage: &Stage) {
    probe!("cancel-deadline");
    let count = Count::default();
    let pool = stage.pool(ProbeServer::new(count.answers(Duration::from_secs(3)))).await.concurrency(1).prefetch(1);
    let pool = pool.start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let first = tokio::spawn(client.ask("slow".to_owned()).into_future());
    eventually(SOON, "the first runs", async || count.begun() == 1).await;
    // It spends 3 s in the queue and begins with a budget of 4.5 s, by the worker's clock, of which its caller has
    // 1.5 s left: as much as its handler has left then.
    let second = client.ask("slow too".to_owned()).timeout(Duration::from_millis(4_500));
    assert_eq!(second.await.unwrap_err().code(), "timeout");
    first.await.unwrap().unwrap();
    eventually(SOON, "the second is stopped", async || pool.stats().cancelled == 1).await;
    assert_eq!(count.ended(), 1);
}

async fn a_dropped_call_that_is_queued_is_skipped(stage: &Stage) {
    probe!("cancel-queued");
    let count = Count::default();
    let pool = stage.pool(ProbeServer::new(count.answers(Duration::from_millis(500)))).await.concurrency(1).prefetch(1);
    let pool = pool.start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    // Before the first call, which is short.
    let raw = stage.raw().await;
    let first = tokio::spawn(client.ask("slow".to_owned()).into_future());
    eventually(SOON, "the first runs", async || count.begun() == 1).await;
    let queued = tokio::spawn(client.ask("queued".to_owned()).timeout(HOUR).into_future());
    let is_queued = async || raw.queue("rpc.cancel-queued").await.unwrap().ready == 1;
    eventually(SOON, "the second is queued", is_queued).await;
    queued.abort();
    assert_eq!(first.await.unwrap().unwrap(), "slow");
    assert_eq!(client.ask("third".to_owned()).await.unwrap(), "third");
    assert_eq!((count.begun(), pool.stats().expired), (2, 1), "the queued one was never begun");
}

async fn a_dropped_call_that_waits_at_its_worker_is_skipped_at_once(stage: &Stage) {
    probe!("cancel-held");
    let count = Count::default();
    let pool =
        stage.pool(ProbeServer::new(count.answers(HOUR))).await.concurrency(1).prefetch(2).start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let _first = tokio::spawn(client.ask("slow".to_owned()).timeout(HOUR).into_future());
    eventually(SOON, "the first runs", async || count.begun() == 1).await;
    let held = tokio::spawn(client.ask("held".to_owned()).timeout(HOUR).into_future());
    eventually(SOON, "the second waits at the worker", async || pool.stats().received == 2).await;
    held.abort();
    eventually(SOON, "its place is free", async || pool.stats().expired == 1).await;
    let _third = tokio::spawn(client.ask("third".to_owned()).timeout(HOUR).into_future());
    eventually(SOON, "the third has taken it", async || pool.stats().received == 3).await;
    assert_eq!((count.begun(), pool.stats().cancelled), (1, 0));
}

#[service(name = "cancel-never")]
trait Till {
    #[rpc(no_cancel)]
    async fn pay(&self, milliseconds: u64);
}

#[service(name = "cancel-threads")]
trait Mill {
    #[rpc(blocking)]
    async fn compute(&self, milliseconds: u64);
}

impl Till for Count {
    async fn pay(&self, milliseconds: u64) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(milliseconds)).await;
        self.ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl Mill for Count {
    async fn compute(&self, milliseconds: u64) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(milliseconds));
        self.ended.fetch_add(1, Ordering::SeqCst);
    }
}

async fn a_method_without_cancel_runs_to_its_end(stage: &Stage) {
    let count = Count::default();
    let pool = stage.pool(TillServer::new(count.clone())).await.concurrency(1).prefetch(2);
    let pool = pool.start().await.unwrap();
    let client = TillClient::new(&stage.connect().await);
    let calls: Vec<_> = (0..2).map(|_| tokio::spawn(client.pay(200).timeout(HOUR).into_future())).collect();
    eventually(SOON, "one runs, one waits", async || pool.stats().received == 2 && count.begun() == 1).await;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    eventually(SOON, "both have ended", async || count.ended() == 2).await;
    assert_eq!((pool.stats().cancelled, pool.stats().expired), (0, 0));
}

async fn a_thread_is_not_stopped_but_one_not_begun_is_skipped(stage: &Stage) {
    let count = Count::default();
    let pool = stage.pool(MillServer::new(count.clone())).await.concurrency(1).prefetch(2);
    let pool = pool.start().await.unwrap();
    let client = MillClient::new(&stage.connect().await);
    let calls: Vec<_> = (0..2).map(|_| tokio::spawn(client.compute(2_000).timeout(HOUR).into_future())).collect();
    eventually(SOON, "one runs, one waits", async || pool.stats().received == 2 && count.begun() == 1).await;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    eventually(SOON, "the second is skipped", async || pool.stats().expired == 1).await;
    eventually(SOON, "the first has ended", async || pool.stats().answered == 1).await;
    assert_eq!((count.begun(), count.ended(), pool.stats().cancelled), (1, 1, 0));
}

/// Hears the cancels for `service` as a worker would.
async fn overhear(stage: &Stage, service: &str) -> rpc_tests::raw::Deliveries {
    let raw = stage.raw().await;
    let queue = raw.exclusive_queue().await;
    raw.bind(&queue, "rpc.cancel", service).await;
    raw.consume(&queue, 1_000).await
}

/// Waits until that many calls are named in cancels. Returns in how many messages.
async fn all_are_named(cancels: &mut rpc_tests::raw::Deliveries, calls: usize) -> usize {
    let (mut named, mut messages) = (0, 0);
    while named < calls {
        let cancel = cancels.next().await;
        named += std::str::from_utf8(&cancel.data).unwrap().lines().count();
        messages += 1;
    }
    assert_eq!(named, calls);
    messages
}

async fn ten_thousand_dropped_calls_make_few_messages(stage: &Stage) {
    probe!("cancel-many");
    const CALLS: usize = 10_000;
    // Nobody serves: everything stays in the queue.
    stage.fresh("rpc.cancel-many").await;
    let pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let options = ClientOptions::default().max_in_flight(CALLS);
    let client = Client::with_options(&stage.connect().await, options);
    let probe = ProbeClient::from_client(client.clone());
    probe.ask("the queue is there".to_owned()).await.unwrap();
    pool.shutdown(SOON).await.unwrap();
    let mut cancels = overhear(stage, "cancel-many").await;
    let calls: Vec<_> =
        (0..CALLS).map(|_| tokio::spawn(probe.ask(String::new()).timeout(HOUR).into_future())).collect();
    let raw = stage.raw().await;
    let are_queued = async || raw.queue("rpc.cancel-many").await.unwrap().ready as usize == CALLS;
    eventually(Duration::from_secs(20), "all are queued", are_queued).await;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    let messages = all_are_named(&mut cancels, CALLS).await;
    assert!(messages <= 400, "{messages} messages");
    // A worker that comes now has heard nothing of it: the bound is what it costs, not what it knows.
    assert_eq!(client.in_flight(), 0);
}

async fn a_pool_skips_twenty_thousand_dropped_calls(stage: &Stage) {
    probe!("cancel-skipped");
    const CALLS: usize = 20_000;
    let count = Count::default();
    let pool = stage.pool(ProbeServer::new(count.answers(HOUR))).await.concurrency(1).prefetch(100);
    let pool = pool.start().await.unwrap();
    let options = ClientOptions::default().max_in_flight(CALLS + 1);
    let probe = ProbeClient::from_client(Client::with_options(&stage.connect().await, options));
    let first = tokio::spawn(probe.ask("slow".to_owned()).timeout(HOUR).into_future());
    eventually(SOON, "the pool is busy", async || count.begun() == 1).await;
    let mut cancels = overhear(stage, "cancel-skipped").await;
    let calls: Vec<_> =
        (0..CALLS).map(|_| tokio::spawn(probe.ask(String::new()).timeout(HOUR).into_future())).collect();
    let raw = stage.raw().await;
    let are_sent = async || raw.queue("rpc.cancel-skipped").await.unwrap().ready as usize > CALLS - 100;
    eventually(Duration::from_secs(20), "all are queued, or wait at the pool", are_sent).await;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    all_are_named(&mut cancels, CALLS).await;
    // Its cancel is behind the others.
    first.abort();
    eventually(SOON, "the running one is stopped", async || pool.stats().cancelled == 1).await;
    let are_skipped = async || pool.stats().expired == CALLS as u64;
    eventually(Duration::from_secs(20), "the others are skipped", are_skipped).await;
    assert_eq!(within(SOON, "an answer", probe.ask("next".to_owned()).into_future()).await.unwrap(), "next");
    assert_eq!(count.begun(), 2);
}

async fn a_completed_call_sends_no_cancel(stage: &Stage) {
    probe!("cancel-none");
    let count = Count::default();
    let _pool = stage.pool(ProbeServer::new(count.answers(HOUR))).await.start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    client.ask("the exchange is there".to_owned()).await.unwrap();
    let mut cancels = overhear(stage, "cancel-none").await;
    for n in 0..50 {
        client.ask(n.to_string()).await.unwrap();
    }
    let last = tokio::spawn(client.ask("slow".to_owned()).into_future());
    eventually(SOON, "it runs", async || count.begun() == 52).await;
    last.abort();
    let cancel = cancels.next().await;
    let kind = rpc_tests::raw::kind(&cancel);
    assert_eq!((kind, std::str::from_utf8(&cancel.data).unwrap().lines().count()), (Some("rpc.cancel"), 1));
}

async fn a_program_without_the_framework_can_cancel(stage: &Stage) {
    probe!("cancel-foreign");
    let count = Count::default();
    let pool = stage.pool(ProbeServer::new(count.answers(HOUR))).await.start().await.unwrap();
    let raw = stage.raw().await;
    let replies = raw.exclusive_queue().await;
    let request = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_reply_to(replies.as_str().into())
        .with_correlation_id("any text".into());
    raw.publish("rpc", "cancel-foreign.ask", request, br#"{"question": "slow"}"#).await;
    eventually(SOON, "it runs", async || count.begun() == 1).await;
    let cancel = BasicProperties::default().with_reply_to(replies.into());
    raw.publish("rpc.cancel", "cancel-foreign", cancel.clone(), b"another\n\nany text").await;
    eventually(SOON, "it is stopped", async || pool.stats().cancelled == 1).await;
    // A cancel message without a readable request cancels nothing.
    raw.publish("rpc.cancel", "cancel-foreign", BasicProperties::default(), b"any text").await;
    raw.publish("rpc.cancel", "cancel-foreign", cancel, b"\xFF\xFE").await;
    let client = ProbeClient::new(&stage.connect().await);
    assert_eq!(client.ask("alive".to_owned()).await.unwrap(), "alive");
}

async fn giving_up_a_call_stops_the_handlers_of_the_calls_that_its_handler_made(stage: &Stage) {
    #[service(name = "cancel-inner")]
    trait Inner {
        async fn wait(&self);
    }
    #[service(name = "cancel-outer")]
    trait Outer {
        async fn ask(&self, from_a_task: bool, ctx: &rpc_core::Context);
    }
    struct Waits;
    impl Inner for Waits {
        async fn wait(&self) {
            std::future::pending().await
        }
    }
    struct Asks(InnerClient);
    impl Outer for Asks {
        async fn ask(&self, from_a_task: bool, ctx: &rpc_core::Context) {
            let call = self.0.wait().into_future();
            if from_a_task {
                let ctx = ctx.clone();
                let task = rpc_core::spawn(async move {
                    tokio::select! {
                        ended = call => drop(ended),
                        () = ctx.cancelled() => {}
                    }
                });
                task.await.unwrap();
            } else {
                drop(call.await);
            }
        }
    }
    let connection = stage.connect().await;
    let inner = stage.pool(InnerServer::new(Waits)).await.start().await.unwrap();
    let asks = Asks(InnerClient::new(&connection));
    let outer = stage.pool(OuterServer::new(asks)).await.start().await.unwrap();
    let client = OuterClient::new(&connection);
    for (cancelled, from_a_task) in [(1, false), (2, true)] {
        let call = tokio::spawn(client.ask(from_a_task).timeout(HOUR).into_future());
        eventually(SOON, "the nested call's handler runs", async || inner.stats().received == cancelled).await;
        call.abort();
        eventually(SOON, "the outer handler is stopped", async || outer.stats().cancelled == cancelled).await;
        eventually(SOON, "the nested one is stopped", async || inner.stats().cancelled == cancelled).await;
    }
}
