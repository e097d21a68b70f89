//! The guide's chapter "Who may do what": its recipes are enough for each role, and no more. The users `caller`, `intruder`,
//! `worker` and `operator` of `parity/definitions.json` have them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::{
    BasicProperties, Channel, ConnectionProperties, ErrorKind, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeBindOptions,
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
        QueuePurgeOptions,
    },
    types::FieldTable,
};
use rpc_core::{CallError, Connection, Error, WorkerPool};
use rpc_tests::{Stage, eventually, on_both_brokers};

on_both_brokers!(
    the_recipe_of_each_role_is_enough,
    a_worker_without_its_queue_is_told_what_is_missing,
    a_hostile_caller_can_only_call,
    a_hostile_worker_reaches_no_other_service,
    forged_cancels_stop_no_call,
);

/// A user as a stranger, who speaks AMQP.
struct Hostile(lapin::Connection);

impl Hostile {
    async fn connect(stage: &Stage, user: &str) -> Self {
        let uri = stage.uri_as(user, "");
        let uri = uri.split('?').next().unwrap();
        Self(lapin::Connection::connect(uri, ConnectionProperties::default()).await.unwrap())
    }

    /// The broker closes the channel of the attempt with this code.
    async fn is_refused(&self, what: &str, reply_code: u16, attempt: impl AsyncFnOnce(&Channel) -> lapin::Result<()>) {
        let channel = self.0.create_channel().await.unwrap();
        match attempt(&channel).await {
            Ok(()) => panic!("{what}: allowed"),
            Err(error) => match error.kind() {
                ErrorKind::ProtocolError(amqp) => assert_eq!(amqp.get_id(), reply_code, "{what}: {error}"),
                _ => panic!("{what}: {error}"),
            },
        }
    }

    /// Publishes; the confirm tells whether the channel lived.
    async fn publish(
        channel: &Channel,
        exchange: &str,
        routing_key: &str,
        properties: BasicProperties,
    ) -> lapin::Result<()> {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let options = BasicPublishOptions::default();
        channel.basic_publish(exchange.into(), routing_key.into(), options, b"x", properties).await?.await.map(drop)
    }
}

const REFUSED: u16 = 403;

/// Serves `$service` as `worker` on queues that `operator` has declared; the handle and the requests that began.
macro_rules! served {
    ($stage:expr, $server:expr) => {{
        // The first pool is not started: it removes what an earlier run left.
        drop($stage.pool($server).await);
        let operator = Connection::open(&$stage.uri_as("operator", "")).await.unwrap();
        WorkerPool::new(&operator).serve($server).declare().await.unwrap();
        operator.close().await.unwrap();
        let worker = Connection::open(&$stage.uri_as("worker", "")).await.unwrap();
        WorkerPool::new(&worker).serve($server).start().await.unwrap()
    }};
}

async fn the_recipe_of_each_role_is_enough(stage: &Stage) {
    #[rpc_core::service(name = "roles-enough")]
    trait Shop {
        async fn buy(&self, pieces: u32) -> u32;
        async fn wait(&self);
        #[rpc(oneway)]
        async fn note(&self);
        #[rpc(queue = "slow")]
        async fn report(&self) -> u32;
    }
    #[derive(Clone, Default)]
    struct Shelf {
        notes: Arc<AtomicUsize>,
        waiting: Arc<AtomicUsize>,
    }
    /// Counts the handlers that are alive.
    struct Waiting(Arc<AtomicUsize>);
    impl Drop for Waiting {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    impl Shop for Shelf {
        async fn buy(&self, pieces: u32) -> u32 {
            pieces
        }
        async fn wait(&self) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let _waiting = Waiting(Arc::clone(&self.waiting));
            std::future::pending().await
        }
        async fn note(&self) {
            self.notes.fetch_add(1, Ordering::SeqCst);
        }
        async fn report(&self) -> u32 {
            7
        }
    }
    let shelf = Shelf::default();
    let pool = served!(stage, ShopServer::new(shelf.clone()));
    let caller = Connection::open(&stage.uri_as("caller", "")).await.unwrap();
    let client = ShopClient::new(&caller);
    assert_eq!(client.buy(3).await.unwrap(), 3);
    assert_eq!(client.report().await.unwrap(), 7);
    client.note().await.unwrap();
    eventually(Duration::from_secs(5), "the note arrives", async || shelf.notes.load(Ordering::SeqCst) == 1).await;

    assert!(client.client().ping("roles-enough").await.unwrap().is_some());

    let call = tokio::spawn(client.wait().into_future());
    eventually(Duration::from_secs(5), "it runs", async || shelf.waiting.load(Ordering::SeqCst) == 1).await;
    call.abort();
    eventually(Duration::from_secs(5), "its cancel arrives", async || shelf.waiting.load(Ordering::SeqCst) == 0).await;

    pool.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn a_worker_without_its_queue_is_told_what_is_missing(stage: &Stage) {
    #[rpc_core::service(name = "roles-missing")]
    trait Shop {
        async fn buy(&self) -> u32;
    }
    struct Shelf;
    impl Shop for Shelf {
        async fn buy(&self) -> u32 {
            1
        }
    }
    drop(stage.pool(ShopServer::new(Shelf)).await);
    let operator = Connection::open(&stage.uri_as("operator", "")).await.unwrap();
    // The exchanges alone.
    #[rpc_core::service(name = "roles-other")]
    trait Other {
        async fn other(&self) -> u32;
    }
    impl Other for Shelf {
        async fn other(&self) -> u32 {
            1
        }
    }
    drop(stage.pool(OtherServer::new(Shelf)).await);
    WorkerPool::new(&operator).serve(OtherServer::new(Shelf)).declare().await.unwrap();
    let worker = Connection::open(&stage.uri_as("worker", "")).await.unwrap();
    let refused = WorkerPool::new(&worker).serve(ShopServer::new(Shelf)).start().await.unwrap_err();
    assert!(matches!(refused, Error::Refused { reply_code: REFUSED, .. }), "{refused}");
    // The caller is told that there is no such service, as ever.
    let caller = Connection::open(&stage.uri_as("caller", "")).await.unwrap();
    let error = ShopClient::new(&caller).buy().await.unwrap_err();
    assert!(matches!(error, CallError::NoSuchService { .. }), "{error}");
}

async fn a_hostile_caller_can_only_call(stage: &Stage) {
    #[rpc_core::service(name = "roles-hostile")]
    trait Shop {
        async fn buy(&self, pieces: u32) -> u32;
    }
    struct Shelf;
    impl Shop for Shelf {
        async fn buy(&self, pieces: u32) -> u32 {
            pieces
        }
    }
    let _pool = served!(stage, ShopServer::new(Shelf));
    let caller = Connection::open(&stage.uri_as("caller", "")).await.unwrap();
    let client = ShopClient::new(&caller);
    assert_eq!(client.buy(1).await.unwrap(), 1);

    let hostile = Hostile::connect(stage, "intruder").await;
    let table = FieldTable::default;
    let own = "rpc.reply.intruder.1";
    for queue in ["rpc.evil", "rpc.roles-hostile", "rpc.reply.caller.1", "rpc.reply.intruderx", "rpc.control.1", "evil"]
    {
        let what = format!("declare {queue}");
        let declare = async |channel: &Channel| {
            channel.queue_declare(queue.into(), QueueDeclareOptions::default(), table()).await.map(drop)
        };
        hostile.is_refused(&what, REFUSED, declare).await;
        let delete =
            async |channel: &Channel| channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.map(drop);
        hostile.is_refused(&format!("delete {queue}"), REFUSED, delete).await;
    }
    // Its own queue, which it may have, on the exchanges of others.
    for exchange in
        ["rpc", "rpc.other", "rpc.nested", "rpc.cancel", "rpc.srv", "rpc.dead", "amq.topic", "amq.rabbitmq.trace"]
    {
        let bind = async |channel: &Channel| {
            let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
            channel.queue_declare(own.into(), options, table()).await.expect("its own reply queue");
            let key = "roles-hostile.buy";
            channel.queue_bind(own.into(), exchange.into(), key.into(), QueueBindOptions::default(), table()).await
        };
        hostile.is_refused(&format!("bind to {exchange}"), REFUSED, bind).await;
        let unbind = async |channel: &Channel| {
            channel.queue_unbind("rpc.roles-hostile".into(), exchange.into(), "roles-hostile.buy".into(), table()).await
        };
        hostile.is_refused(&format!("unbind from {exchange}"), REFUSED, unbind).await;
        let delete =
            async |channel: &Channel| channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await;
        hostile.is_refused(&format!("delete {exchange}"), REFUSED, delete).await;
    }
    for exchange in ["rpc", "rpc.nested", "rpc.cancel", "rpc.srv", "rpc.evil", "rpc.reply.intruder.1/.."] {
        let declare = async |channel: &Channel| {
            let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
            channel.exchange_declare(exchange.into(), ExchangeKind::Direct, options, table()).await
        };
        // Names below its reply queues are its own, exchanges as well.
        if !exchange.starts_with("rpc.reply.intruder.") {
            hostile.is_refused(&format!("declare exchange {exchange}"), REFUSED, declare).await;
        }
        let bind = async |channel: &Channel| {
            let options = ExchangeBindOptions::default();
            channel.exchange_bind(exchange.into(), "rpc".into(), "roles-hostile.buy".into(), options, table()).await
        };
        hostile.is_refused(&format!("bind exchange {exchange} to rpc"), REFUSED, bind).await;
    }
    let others = [
        "rpc.roles-hostile",
        "rpc.roles-hostile.nested.calls",
        "rpc.roles-hostile.dead",
        "rpc.reply.caller.1",
        "rpc.control.worker.1",
    ];
    for queue in others {
        let consume = async |channel: &Channel| {
            channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), table()).await.map(drop)
        };
        hostile.is_refused(&format!("consume {queue}"), REFUSED, consume).await;
        let get = async |channel: &Channel| channel.basic_get(queue.into(), BasicGetOptions::default()).await.map(drop);
        hostile.is_refused(&format!("get from {queue}"), REFUSED, get).await;
        let purge =
            async |channel: &Channel| channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.map(drop);
        hostile.is_refused(&format!("purge {queue}"), REFUSED, purge).await;
        // Past the exchange `rpc`: replies of others, requests without a right to call.
        let publish = async |channel: &Channel| Hostile::publish(channel, "", queue, BasicProperties::default()).await;
        hostile.is_refused(&format!("publish to {queue}"), REFUSED, publish).await;
    }
    for exchange in ["rpc.other", "rpc.dead", "amq.topic", "amq.direct"] {
        let publish = async |channel: &Channel| {
            Hostile::publish(channel, exchange, "roles-hostile.buy", BasicProperties::default()).await
        };
        hostile.is_refused(&format!("publish to {exchange}"), REFUSED, publish).await;
    }
    let as_another = async |channel: &Channel| {
        let properties = BasicProperties::default().with_user_id("caller".into());
        Hostile::publish(channel, "rpc", "roles-hostile.buy", properties).await
    };
    hostile.is_refused("call as another user", 406, as_another).await;

    for n in 0..20 {
        assert_eq!(client.buy(n).await.unwrap(), n);
    }
}

async fn a_hostile_worker_reaches_no_other_service(stage: &Stage) {
    #[rpc_core::service(name = "private-hostile")]
    trait Bank {
        async fn pay(&self, cents: u32) -> u32;
    }
    struct Vault;
    impl Bank for Vault {
        async fn pay(&self, cents: u32) -> u32 {
            cents
        }
    }
    let _pool = stage.pool(BankServer::new(Vault)).await.start().await.unwrap();
    let hostile = Hostile::connect(stage, "worker").await;
    let table = FieldTable::default;
    let own = "rpc.control.worker.hostile";
    for exchange in ["rpc", "rpc.other", "rpc.nested"] {
        let bind = async |channel: &Channel| {
            let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
            channel.queue_declare(own.into(), options, table()).await.expect("its own control queue");
            let key = "private-hostile.pay";
            channel.queue_bind(own.into(), exchange.into(), key.into(), QueueBindOptions::default(), table()).await
        };
        hostile.is_refused(&format!("bind to {exchange}"), REFUSED, bind).await;
        let delete =
            async |channel: &Channel| channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await;
        hostile.is_refused(&format!("delete {exchange}"), REFUSED, delete).await;
        let publish = async |channel: &Channel| {
            Hostile::publish(channel, exchange, "private-hostile.pay", BasicProperties::default()).await
        };
        hostile.is_refused(&format!("call through {exchange}"), REFUSED, publish).await;
    }
    for queue in ["rpc.private-hostile", "rpc.private-hostile.nested.calls"] {
        let consume = async |channel: &Channel| {
            channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), table()).await.map(drop)
        };
        hostile.is_refused(&format!("serve {queue}"), REFUSED, consume).await;
        let delete =
            async |channel: &Channel| channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.map(drop);
        hostile.is_refused(&format!("delete {queue}"), REFUSED, delete).await;
    }
}

/// Knowing a reply queue is not enough to cancel its calls: their correlation_ids cannot be guessed.
async fn forged_cancels_stop_no_call(stage: &Stage) {
    #[rpc_core::service(name = "roles-cancel")]
    trait Shop {
        async fn buy(&self, ctx: &rpc_core::Context, pieces: u32) -> Asked;
    }
    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Asked {
        pieces: u32,
    }
    struct Shelf(tokio::sync::mpsc::UnboundedSender<String>);
    impl Shop for Shelf {
        async fn buy(&self, ctx: &rpc_core::Context, pieces: u32) -> Asked {
            drop(self.0.send(ctx.reply_to().unwrap_or_default().to_owned()));
            Asked { pieces }
        }
    }
    let (sender, mut reply_queues) = tokio::sync::mpsc::unbounded_channel();
    let sender = Arc::new(Shelf(sender));
    let _pool = served!(stage, ShopServer::from_arc(Arc::clone(&sender)));
    let caller = Connection::open(&stage.uri_as("caller", "")).await.unwrap();
    let client = ShopClient::new(&caller);
    client.buy(0).await.unwrap();
    let reply_to = reply_queues.recv().await.unwrap();

    let hostile = Hostile::connect(stage, "intruder").await;
    let channel = hostile.0.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let properties = BasicProperties::default()
        .with_type("rpc.cancel".into())
        .with_content_type("text/plain".into())
        .with_reply_to(reply_to.into());
    for block in 0..16_u64 {
        let lines: Vec<_> = (block * 512..(block + 1) * 512).map(|id| id.to_string()).collect();
        let body = lines.join("\n");
        let options = BasicPublishOptions::default();
        channel
            .basic_publish("rpc.cancel".into(), "roles-cancel".into(), options, body.as_bytes(), properties.clone())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    for n in 0..50 {
        assert_eq!(client.buy(n).timeout(Duration::from_secs(5)).await.unwrap().pieces, n);
    }
}
