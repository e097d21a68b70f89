//! Handlers that call handlers: none of them keeps the others from running.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rpc_core::{CallError, Connection, WorkerPool, service};
use rpc_tests::{Stage, on_both_brokers, within};
use tokio::time::Instant;

on_both_brokers!(
    two_services_of_one_pool_call_each_other,
    a_handler_calls_its_own_service_at_concurrency_one,
    two_pools_call_each_other_at_concurrency_one,
    a_call_that_is_nested_too_deep_is_refused_at_once,
    handlers_that_run_stay_within_the_concurrency,
    a_task_of_a_handler_calls_its_service,
    handlers_whose_user_may_not_publish_nested_requests_call_all_the_same,
);

/// Counts handlers between two waits.
#[derive(Clone, Default)]
struct Running {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Running {
    /// Works for a moment, without a wait.
    fn work(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(2));
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

macro_rules! chain {
    ($name:literal) => {
        #[service(name = $name)]
        trait Chain {
            async fn leaf(&self) -> u32;
            /// Calls itself until `levels` is 0, and returns how many levels there were.
            #[rpc(timeout = "30s")]
            async fn down(&self, levels: u32) -> Result<u32, String>;
            #[rpc(timeout = "30s", blocking)]
            async fn thread(&self, levels: u32) -> Result<u32, String>;
            #[rpc(timeout = "30s", queue = "apart")]
            async fn fan(&self, leaves: u32) -> u32;
            #[rpc(timeout = "30s")]
            async fn spawned(&self) -> u32;
        }

        #[derive(Clone, Default)]
        struct Link {
            next: Arc<OnceLock<ChainClient>>,
            running: Running,
        }

        impl Link {
            fn next(&self) -> ChainClient {
                self.next.get().expect("it is set before the first call").clone()
            }
        }

        /// The code and how long it took, of a call that failed.
        fn failure(error: &CallError<String>, begin: Instant) -> String {
            match error {
                CallError::Service { error, .. } => error.clone(),
                error => format!("{} {}", error.code(), begin.elapsed().as_millis()),
            }
        }

        impl Chain for Link {
            async fn leaf(&self) -> u32 {
                self.running.work();
                1
            }
            async fn down(&self, levels: u32) -> Result<u32, String> {
                self.running.work();
                if levels == 0 {
                    return Ok(0);
                }
                let begin = Instant::now();
                let below = self.next().down(levels - 1).await.map_err(|error| failure(&error, begin))?;
                self.running.work();
                Ok(below + 1)
            }
            async fn thread(&self, levels: u32) -> Result<u32, String> {
                self.running.work();
                if levels == 0 {
                    return Ok(0);
                }
                let begin = Instant::now();
                let below = self.next().thread(levels - 1).await.map_err(|error| failure(&error, begin))?;
                self.running.work();
                Ok(below + 1)
            }
            async fn fan(&self, leaves: u32) -> u32 {
                let calls: Vec<_> = (0..leaves).map(|_| rpc_core::spawn(self.next().leaf().into_future())).collect();
                let mut sum = self.next().leaf().await.unwrap();
                for call in calls {
                    sum += call.await.unwrap().unwrap();
                }
                sum
            }
            async fn spawned(&self) -> u32 {
                let next = self.next();
                rpc_core::spawn(async move { next.leaf().await.unwrap() + next.leaf().await.unwrap() }).await.unwrap()
            }
        }
    };
}

async fn two_services_of_one_pool_call_each_other(stage: &Stage) {
    #[service(name = "nested-outer")]
    trait Outer {
        #[rpc(timeout = "20s")]
        async fn go(&self, n: u32) -> u32;
    }
    #[service(name = "nested-inner")]
    trait Inner {
        #[rpc(timeout = "20s")]
        async fn leaf(&self, n: u32) -> u32;
    }
    struct Caller(InnerClient);
    impl Outer for Caller {
        async fn go(&self, n: u32) -> u32 {
            self.0.leaf(n).await.unwrap() + self.0.leaf(n).await.unwrap()
        }
    }
    struct Leaf;
    impl Inner for Leaf {
        async fn leaf(&self, n: u32) -> u32 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            n
        }
    }
    for concurrency in [4, 1] {
        for queue in ["rpc.nested-inner", "rpc.nested-inner.nested.calls"] {
            stage.fresh(queue).await;
        }
        let inner = InnerClient::new(&stage.connect().await);
        let pool = stage.pool(OuterServer::new(Caller(inner))).await.serve(InnerServer::new(Leaf));
        let pool = pool.concurrency(concurrency).start().await.unwrap();
        let client = OuterClient::new(&stage.connect().await);
        let calls: Vec<_> = (0..16).map(|n| tokio::spawn(client.go(n).into_future())).collect();
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(within(LIMIT, "an answer", call).await.unwrap().unwrap() as usize, 2 * n);
        }
        pool.shutdown(LIMIT).await.unwrap();
    }
}

async fn a_handler_calls_its_own_service_at_concurrency_one(stage: &Stage) {
    chain!("nested-own");
    let link = Link::default();
    let pool = stage.pool(ChainServer::new(link.clone())).await.concurrency(1).start().await.unwrap();
    let client = ChainClient::new(&stage.connect().await);
    assert!(link.next.set(client.clone()).is_ok());
    let calls: Vec<_> = (0..6)
        .map(|n| {
            let call = if n % 2 == 0 { client.down(5) } else { client.thread(5) };
            tokio::spawn(call.into_future())
        })
        .collect();
    for call in calls {
        assert_eq!(within(LIMIT, "an answer", call).await.unwrap().unwrap(), 5);
    }
    assert_eq!(link.running.most.load(Ordering::SeqCst), 1);
    pool.shutdown(LIMIT).await.unwrap();
}

async fn two_pools_call_each_other_at_concurrency_one(stage: &Stage) {
    chain!("nested-pools");
    let link = Link::default();
    let connection = stage.connect().await;
    let first = stage.pool(ChainServer::new(link.clone())).await.concurrency(1).start().await.unwrap();
    let second = WorkerPool::new(&connection).serve(ChainServer::new(link.clone())).concurrency(1);
    let second = second.start().await.unwrap();
    let client = ChainClient::new(&stage.connect().await);
    assert!(link.next.set(client.clone()).is_ok());
    let calls: Vec<_> = (0..8).map(|_| tokio::spawn(client.down(4).into_future())).collect();
    for call in calls {
        assert_eq!(within(LIMIT, "an answer", call).await.unwrap().unwrap(), 4);
    }
    first.shutdown(LIMIT).await.unwrap();
    second.shutdown(LIMIT).await.unwrap();
}

async fn a_call_that_is_nested_too_deep_is_refused_at_once(stage: &Stage) {
    chain!("nested-deep");
    let link = Link::default();
    let pool = stage.pool(ChainServer::new(link.clone())).await.concurrency(1).start().await.unwrap();
    let client = ChainClient::new(&stage.connect().await);
    assert!(link.next.set(client.clone()).is_ok());
    assert_eq!(client.down(16).await.unwrap(), 16);
    for call in [client.down(17), client.thread(17)] {
        let CallError::Service { error, .. } = call.await.unwrap_err() else { panic!("the innermost handler's error") };
        let (code, took_ms) = error.split_once(' ').expect("a code and a time");
        assert_eq!(code, "overloaded");
        assert!(took_ms.parse::<u64>().unwrap() < 50, "{error}");
    }
    pool.shutdown(LIMIT).await.unwrap();
}

async fn handlers_that_run_stay_within_the_concurrency(stage: &Stage) {
    chain!("nested-bound");
    let link = Link::default();
    stage.fresh("rpc.nested-bound.apart").await;
    let pool = stage.pool(ChainServer::new(link.clone())).await.concurrency(2).start().await.unwrap();
    let client = ChainClient::new(&stage.connect().await);
    assert!(link.next.set(client.clone()).is_ok());
    let fans: Vec<_> = (0..4).map(|_| tokio::spawn(client.fan(20).into_future())).collect();
    let downs: Vec<_> = (0..8).map(|_| tokio::spawn(client.down(3).into_future())).collect();
    for fan in fans {
        assert_eq!(within(LIMIT, "an answer", fan).await.unwrap().unwrap(), 21);
    }
    for down in downs {
        assert_eq!(within(LIMIT, "an answer", down).await.unwrap().unwrap(), 3);
    }
    assert!(link.running.most.load(Ordering::SeqCst) <= 2);
    pool.shutdown(LIMIT).await.unwrap();
}

async fn a_task_of_a_handler_calls_its_service(stage: &Stage) {
    chain!("nested-task");
    let link = Link::default();
    let pool = stage.pool(ChainServer::new(link.clone())).await.concurrency(1).start().await.unwrap();
    let client = ChainClient::new(&stage.connect().await);
    assert!(link.next.set(client.clone()).is_ok());
    assert_eq!(within(LIMIT, "an answer", client.spawned().into_future()).await.unwrap(), 2);
    pool.shutdown(LIMIT).await.unwrap();
}

async fn handlers_whose_user_may_not_publish_nested_requests_call_all_the_same(stage: &Stage) {
    #[service(name = "nested-plain")]
    trait Plain {
        #[rpc(timeout = "20s")]
        async fn go(&self, bytes: usize) -> Result<usize, String>;
        #[rpc(timeout = "20s")]
        async fn leaf(&self, text: String) -> usize;
    }
    #[derive(Clone, Default)]
    struct Relay {
        next: Arc<OnceLock<PlainClient>>,
        leaves: Arc<AtomicUsize>,
    }
    impl Plain for Relay {
        async fn go(&self, bytes: usize) -> Result<usize, String> {
            let next = self.next.get().expect("it is set before the first call");
            next.leaf("x".repeat(bytes)).await.map_err(|error| error.to_string())
        }
        async fn leaf(&self, text: String) -> usize {
            self.leaves.fetch_add(1, Ordering::SeqCst);
            text.len()
        }
    }
    let relay = Relay::default();
    let pool = stage.pool(PlainServer::new(relay.clone())).await.start().await.unwrap();
    // It may publish to `rpc` alone.
    let connection = Connection::open(&stage.uri_as("plain", "")).await.unwrap();
    assert!(relay.next.set(PlainClient::new(&connection)).is_ok());
    let client = PlainClient::new(&stage.connect().await);
    for round in 0..3 {
        // Large ones travel with a confirm, on another channel. Fewer than the prefetch count: all wait in one queue.
        let sizes = (0..8).map(|n| if n % 2 == 0 { n } else { 5_000 * n });
        let calls: Vec<_> = sizes.map(|bytes| (bytes, tokio::spawn(client.go(bytes).into_future()))).collect();
        for (bytes, call) in calls {
            assert_eq!(within(LIMIT, "an answer", call).await.unwrap().unwrap(), bytes, "round {round}");
        }
    }
    assert_eq!(relay.leaves.load(Ordering::SeqCst), 24, "each ran once");
    pool.shutdown(LIMIT).await.unwrap();
}

const LIMIT: Duration = Duration::from_secs(30);
