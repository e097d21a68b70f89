//! Users are checked: workers check the user of a request and of a cancel, clients that of a reply. The users are those of
//! `parity/definitions.json`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::{BasicProperties, options::BasicRejectOptions};
use rpc_core::{AckPolicy, CallError, ClientOptions, Connection, DedupeOptions, Dispatch, QueueKind, WorkerPool};
use rpc_tests::{Stage, eventually, on_both_brokers, raw, within};

on_both_brokers!(
    workers_and_callers_check_each_others_users,
    a_cancel_counts_from_the_user_of_its_call_alone,
    answers_from_memory_are_one_users,
    every_kind_of_reply_names_its_worker,
);

/// Declares the queues of a service as `operator`.
async fn declared(stage: &Stage, server: impl Dispatch + Clone) {
    // It is not started: it removes what an earlier run left.
    drop(stage.pool(server.clone()).await);
    let operator = Connection::open(&stage.uri_as("operator", "")).await.unwrap();
    WorkerPool::new(&operator).serve(server).declare().await.unwrap();
}

/// Permissions do not say who may call which service; workers do, and callers take the replies of workers that they trust.
async fn workers_and_callers_check_each_others_users(stage: &Stage) {
    #[rpc_core::service(name = "roles-users")]
    trait Shop {
        async fn buy(&self, ctx: &rpc_core::Context) -> String;
        #[rpc(oneway)]
        async fn note(&self);
    }
    #[derive(Clone, Default)]
    struct Shelf(Arc<AtomicUsize>);
    impl Shop for Shelf {
        async fn buy(&self, ctx: &rpc_core::Context) -> String {
            self.0.fetch_add(1, Ordering::SeqCst);
            ctx.user_id().unwrap_or_default().to_owned()
        }
        async fn note(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let shelf = Shelf::default();
    let served = || ShopServer::new(shelf.clone());
    // Without the options nothing is sent and nothing is checked.
    declared(stage, ShopServer::new(shelf.clone())).await;
    let worker = Connection::open(&stage.uri_as("worker", "")).await.unwrap();
    let open = WorkerPool::new(&worker).serve(served()).start().await.unwrap();
    let caller = Connection::open(&stage.uri_as("caller", "")).await.unwrap();
    assert_eq!(ShopClient::new(&caller).buy().await.unwrap(), "");
    open.shutdown(SOON).await.unwrap();

    let pool = WorkerPool::new(&worker).serve(served()).users(["caller"]).send_user_id(true).start().await.unwrap();
    let named = ClientOptions::default().send_user_id(true);
    let client = ShopClient::with_options(&caller, named.clone().reply_users(["worker"]));
    for _ in 0..50 {
        // Long enough for a method to become quick, which takes another way to its handler.
        assert_eq!(client.buy().await.unwrap(), "caller");
    }
    client.note().await.unwrap();
    let begun = || shelf.0.load(Ordering::SeqCst);
    eventually(SOON, "the note arrives", async || begun() == 52).await;

    let intruder = Connection::open(&stage.uri_as("intruder", "")).await.unwrap();
    for refused in [ShopClient::with_options(&intruder, named.clone()), ShopClient::new(&caller)] {
        let error = refused.buy().await.unwrap_err();
        assert_eq!(
            (error.code(), error.maybe_executed(), error.is_retryable()),
            ("forbidden", false, false),
            "{error}"
        );
        refused.note().await.unwrap();
    }
    eventually(SOON, "all are counted", async || pool.stats().forbidden == 4).await;
    // Another user than the one whose replies the caller takes.
    let distrustful = ShopClient::with_options(&caller, named.reply_users(["another"]));
    let error = distrustful.buy().timeout(Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    let stats = pool.shutdown(SOON).await.unwrap().stats;
    assert_eq!((begun(), stats.dead_lettered, stats.oneway_failed), (53, 0, 0), "no refused request was executed");
}

/// Even with the reply_to and the correlation_id of a call, which are secret.
async fn a_cancel_counts_from_the_user_of_its_call_alone(stage: &Stage) {
    #[rpc_core::service(name = "roles-whose")]
    trait Shop {
        async fn wait(&self);
    }
    struct Shelf;
    impl Shop for Shelf {
        async fn wait(&self) {
            std::future::pending().await
        }
    }
    declared(stage, ShopServer::new(Shelf)).await;
    let worker = Connection::open(&stage.uri_as("worker", "")).await.unwrap();
    let pool = WorkerPool::new(&worker).serve(ShopServer::new(Shelf)).users(["caller"]).start().await.unwrap();

    let peer = async |user| {
        let uri = stage.uri_as(user, "");
        raw::Peer::connect(uri.split('?').next().unwrap()).await
    };
    let (caller, intruder) = (peer("caller").await, peer("intruder").await);
    let of = |user: Option<&str>| {
        let properties = BasicProperties::default().with_reply_to("rpc.reply.caller.1".into());
        match user {
            Some(user) => properties.with_user_id(user.into()),
            None => properties,
        }
    };
    let cancel = |user| of(user).with_type("rpc.cancel".into());
    let ask = async |id: &str| {
        let properties = of(Some("caller")).with_correlation_id(id.into());
        caller.publish("rpc", "roles-whose.wait", properties, &[0x80]).await;
    };
    ask("running").await;
    eventually(SOON, "it runs", async || pool.stats().received == 1).await;
    for (sender, user) in [(&intruder, Some("intruder")), (&intruder, None)] {
        sender.publish("rpc.cancel", "roles-whose", cancel(user), b"running\nlater").await;
    }
    // The worker takes cancels in their order: when this one has stopped its call, the ones before it have had their effect.
    ask("last").await;
    eventually(SOON, "it runs", async || pool.stats().received == 2).await;
    for _ in 0..2 {
        ask("later").await;
    }
    eventually(SOON, "they arrive", async || pool.stats().received == 4).await;
    caller.publish("rpc.cancel", "roles-whose", cancel(Some("caller")), b"last").await;
    eventually(SOON, "it is stopped", async || pool.stats().cancelled == 1).await;
    assert_eq!((pool.stats().expired, pool.stats().received), (0, 4), "the others run");
    caller.publish("rpc.cancel", "roles-whose", cancel(Some("caller")), b"running").await;
    eventually(SOON, "it is stopped", async || pool.stats().cancelled == 2).await;
}

/// A key that another user chooses, too, does not give it this user's answer.
async fn answers_from_memory_are_one_users(stage: &Stage) {
    #[rpc_core::service(name = "roles-memory")]
    trait Shop {
        async fn buy(&self, ctx: &rpc_core::Context) -> String;
    }
    struct Shelf(AtomicUsize);
    impl Shop for Shelf {
        async fn buy(&self, ctx: &rpc_core::Context) -> String {
            format!("{} {}", self.0.fetch_add(1, Ordering::SeqCst), ctx.user_id().unwrap_or_default())
        }
    }
    let pool = stage.pool(ShopServer::new(Shelf(AtomicUsize::new(0)))).await.dedupe(DedupeOptions::default());
    let pool = pool.start().await.unwrap();
    let mut answers = Vec::new();
    for user in ["caller", "intruder", "caller"] {
        let connection = Connection::open(&stage.uri_as(user, "")).await.unwrap();
        let client = ShopClient::with_options(&connection, ClientOptions::default().send_user_id(true));
        answers.push(client.buy().idempotency_key("order 7").await.unwrap());
    }
    assert_eq!(answers, ["0 caller", "1 intruder", "0 caller"]);
    pool.shutdown(SOON).await.unwrap();
}

/// A client that takes the replies of one user gets them whatever way they take.
async fn every_kind_of_reply_names_its_worker(stage: &Stage) {
    #[rpc_core::service(name = "users-replies")]
    trait Shop {
        async fn text(&self, bytes: usize) -> String;
        async fn fail(&self) -> Result<u32, String>;
        async fn panic(&self) -> u32;
    }
    struct Shelf;
    impl Shop for Shelf {
        async fn text(&self, bytes: usize) -> String {
            "x".repeat(bytes)
        }
        async fn fail(&self) -> Result<u32, String> {
            Err("sold out".to_owned())
        }
        async fn panic(&self) -> u32 {
            panic!("a broken shelf")
        }
    }
    let client = || async {
        let options = ClientOptions::default().reply_users(["guest"]);
        ShopClient::with_options(&stage.connect().await, options)
    };
    for ack_policy in [AckPolicy::AfterReply, AckPolicy::AfterConfirmedReply, AckPolicy::BeforeHandler] {
        let pool = stage.pool(ShopServer::new(Shelf)).await.ack_policy(ack_policy).send_user_id(true);
        let pool = pool.start().await.unwrap();
        let client = client().await;
        // The large one travels on a channel of its own.
        for bytes in [1, 200_000] {
            assert_eq!(client.text(bytes).await.unwrap().len(), bytes);
        }
        assert_eq!(client.fail().await.unwrap_err().code(), "service");
        assert_eq!(client.panic().await.unwrap_err().code(), "internal");
        pool.shutdown(SOON).await.unwrap();
    }
    // The broker itself dead-letters a request, and a worker notifies its caller.
    stage.raw().await.delete_queue("rpc.users-replies").await;
    for queue in ["rpc.users-replies.dead", "rpc.users-replies.dead.callers"] {
        stage.fresh(queue).await;
    }
    stage.raw().await.delete_queue("rpc.users-replies.nested.calls").await;
    let pool = async || {
        let pool = stage.pool(ShopServer::new(Shelf)).await.send_user_id(true);
        pool.queue_kind(QueueKind::Quorum).delivery_limit(1).start().await.unwrap()
    };
    pool().await.shutdown(SOON).await.unwrap();
    let rival = stage.raw().await;
    let mut requests = rival.consume("rpc.users-replies", 1).await;
    let call = tokio::spawn(client().await.text(1).timeout(Duration::from_secs(30)).into_future());
    for _ in 0..2 {
        requests.next().await.reject(BasicRejectOptions { requeue: true }).await.unwrap();
    }
    let pool = pool().await;
    assert_eq!(within(SOON, "the caller is told", call).await.unwrap().unwrap_err().code(), "abandoned");
    pool.shutdown(SOON).await.unwrap();
}

const SOON: Duration = Duration::from_secs(10);
