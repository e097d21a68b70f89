//! Brokers that do not answer a method: what waits for it tries again, and nothing else waits with it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rpc_core::{Client, Connection, PoolHandle, WorkerPool};
use rpc_tests::{
    Answers, Named, NamedProbe, Stage, eventually, on_both_brokers, probe,
    proxy::{Direction, Method, Proxy},
    within,
};
use tokio::{task::JoinSet, time::Instant};

on_both_brokers!(
    a_lane_tries_again_whichever_method_is_not_answered,
    a_start_tries_again_when_a_declaration_is_not_answered,
    a_pool_serves_without_its_control_queue_until_it_is_there,
    a_queue_that_cannot_be_bound_again_is_served_meanwhile,
    a_broker_that_ignores_the_prefetch_count_fills_no_memory,
);

mod unnamed {
    rpc_tests::probe!("unanswered");
}

/// A service of its own, behind a proxy.
struct Site {
    proxy: Proxy,
    connection: Connection,
    service: String,
}

impl Site {
    async fn new(stage: &Stage, service: &str) -> Self {
        stage.fresh(&format!("rpc.{service}")).await;
        stage.fresh(&format!("rpc.{service}.nested.calls")).await;
        let proxy = Proxy::start(stage.uri()).await;
        let connection = Connection::open(proxy.uri()).await.unwrap();
        Self { proxy, connection, service: service.to_owned() }
    }

    /// The name of the service's queue as it travels: no other queue's contains it.
    fn queue(&self) -> String {
        let name = format!("rpc.{}", self.service);
        format!("{}{name}", char::from(u8::try_from(name.len()).unwrap()))
    }

    async fn serve(&self) -> PoolHandle {
        let server = unnamed::ProbeServer::new(Answers::echo());
        WorkerPool::new(&self.connection).serve(Named::new(&self.service, server)).start().await.unwrap()
    }

    /// Waits until the pool answers.
    async fn answers(&self, client: &Client) {
        let call = NamedProbe::new(client.clone(), &self.service).ask("question", true).timeout(LONG);
        assert_eq!(call.await.unwrap(), "question");
    }
}

async fn a_lane_tries_again_whichever_method_is_not_answered(stage: &Stage) {
    let client = stage.client().await;
    let mut sites = JoinSet::new();
    for method in
        [Method::OpenChannel, Method::DeclareExchange, Method::DeclareQueue, Method::Bind, Method::Qos, Method::Consume]
    {
        let site = Site::new(stage, &format!("unanswered-lane-{}", method as usize)).await;
        let client = client.clone();
        sites.spawn(async move {
            let _pool = site.serve().await;
            // These do not say which of the pool's two lanes they are of, or whether of its control queue.
            let (words, times) = match method {
                Method::OpenChannel | Method::Qos => (String::new(), 3),
                Method::DeclareExchange => ("rpc.other".to_owned(), 2),
                _ => (site.queue(), 1),
            };
            site.proxy.lose(method, &words, times);
            site.proxy.cut();
            site.proxy.has_lost_all().await;
            site.answers(&client).await;
        });
    }
    while let Some(site) = sites.join_next().await {
        site.unwrap();
    }
}

async fn a_start_tries_again_when_a_declaration_is_not_answered(stage: &Stage) {
    let site = Site::new(stage, "unanswered-start").await;
    site.proxy.lose(Method::DeclareQueue, &site.queue(), 1);
    let _pool = site.serve().await;
    site.answers(&stage.client().await).await;
}

async fn a_pool_serves_without_its_control_queue_until_it_is_there(stage: &Stage) {
    probe!("unanswered-control");
    let site = Site::new(stage, "unanswered-control").await;
    site.proxy.lose(Method::DeclareQueue, "rpc.control.", usize::MAX);
    let answers = Answers::with(async |asked| match asked.question.as_str() {
        "slow" => std::future::pending().await,
        _ => asked.question,
    });
    let began = Instant::now();
    let pool = WorkerPool::new(&site.connection).serve(ProbeServer::new(answers)).start().await.unwrap();
    assert!(began.elapsed() < SOON, "a start waits no longer than for the rest of it: {:?}", began.elapsed());
    let client = ProbeClient::new(&stage.connect().await);
    assert_eq!(client.ask("quick".to_owned()).await.unwrap(), "quick");
    site.proxy.lose_nothing();
    // Declared again after 10 s: from then on calls that are dropped are cancelled.
    eventually(LONG, "a handler is stopped", async || {
        let slow = client.ask("slow".to_owned()).timeout(Duration::from_secs(1)).into_future();
        assert!(tokio::time::timeout(Duration::from_millis(200), slow).await.is_err());
        pool.stats().cancelled > 0
    })
    .await;
    within(SOON, "the shutdown", pool.shutdown(Duration::ZERO)).await.unwrap();
}

async fn a_queue_that_cannot_be_bound_again_is_served_meanwhile(stage: &Stage) {
    let site = Site::new(stage, "unanswered-bound").await;
    let client = stage.client().await;
    site.serve().await.shutdown(SOON).await.unwrap();
    site.proxy.lose(Method::Bind, &site.queue(), 1);
    let began = Instant::now();
    let pool = site.serve().await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    site.proxy.has_lost_all().await;
    site.answers(&client).await;
    // Its queue is bound when the broker answers: from here on requests reach it by the new binding alone.
    let raw = stage.raw().await;
    raw.unbind(&format!("rpc.{}", site.service), "rpc", &format!("{}.ask", site.service)).await;
    eventually(LONG, "the queue is bound again", async || {
        let call = NamedProbe::new(client.clone(), &site.service).ask("question", false).timeout(SOON);
        call.await.is_ok()
    })
    .await;
    within(SOON, "the shutdown", pool.shutdown(SOON)).await.unwrap();
}

async fn a_broker_that_ignores_the_prefetch_count_fills_no_memory(stage: &Stage) {
    probe!("unanswered-prefetch");
    const CALLS: usize = 1_000;
    let site = Site::new(stage, "unanswered-prefetch").await;
    let running = Arc::new(AtomicUsize::new(0));
    let (most, now) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&running));
    let highest = Arc::clone(&most);
    let answers = Answers::with(move |_| {
        let (now, highest) = (Arc::clone(&now), Arc::clone(&highest));
        async move {
            highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::future::pending().await
        }
    });
    let pool = || WorkerPool::new(&site.connection).serve(ProbeServer::new(answers.clone())).concurrency(1);
    pool().declare().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let calls: JoinSet<_> = (0..CALLS).map(|_| client.ask(String::new()).timeout(LONG).into_future()).collect();
    let queue = format!("rpc.{}", site.service);
    let raw = stage.raw().await;
    let are_queued = async || raw.queue(&queue).await.unwrap().ready == CALLS as u32;
    eventually(SOON, "the requests are queued", are_queued).await;
    site.proxy.ignore_prefetch();
    let pool = pool().start().await.unwrap();
    // Its two lanes and its control queue; then the lane whose broker delivers a thousand requests, time and again.
    site.proxy.has_passed(Direction::ToBroker, Method::Consume, 3 + 2).await;
    assert!(pool.stats().received < 5 * CALLS as u64 / 2, "{:?}", pool.stats());
    assert!(most.load(Ordering::SeqCst) <= 3, "one handler at a time, in each life of the lane");
    drop((pool, calls));
}

const SOON: Duration = Duration::from_secs(8);
const LONG: Duration = Duration::from_secs(40);
