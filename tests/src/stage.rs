//! Where a case runs: one broker, and what the case has put on it.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Mutex,
    time::Duration,
};

use rpc_core::{Client, Connection, Dispatch, WorkerPool, broker::Broker};
use tokio::time::timeout;

use crate::{Expectations, address_of, definitions, raw, version_at, with_parameter};

/// The broker a case runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A bundled broker, started for the case in this process.
    Bundled,
    /// The RabbitMQ at `RPC_TEST_RABBITMQ_URL`, shared with the other cases.
    RabbitMq,
}

impl Target {
    /// Its URI; `None` for a RabbitMQ that is not there.
    async fn open(self) -> Option<(String, Option<Broker>)> {
        match self {
            Self::Bundled => {
                let broker = definitions::broker().start().await.expect("the bundled broker starts");
                Some((broker.uri().to_string(), Some(broker)))
            }
            Self::RabbitMq => std::env::var(RABBITMQ_URL).ok().map(|uri| (uri, None)),
        }
    }
}

/// The surroundings of a case: a broker, and a record of the entities to delete from it afterwards.
#[derive(Debug)]
pub struct Stage {
    target: Target,
    broker_uri: String,
    uri: String,
    /// Queues to delete at the end.
    queues: Mutex<Vec<String>>,
}

impl Stage {
    /// Which broker it is. For what a test prints; assertions are the same on both.
    pub fn target(&self) -> Target {
        self.target
    }

    /// The broker's URI, for connections of the framework.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The broker's URI, for everybody else.
    pub fn broker_uri(&self) -> &str {
        &self.broker_uri
    }

    /// The expectations that hold for its version.
    pub fn expects(&self) -> Expectations {
        Expectations::of(&version_at(&self.broker_uri))
    }

    /// The broker's URI for another user of `parity/definitions.json` on a vhost, by default `/`.
    pub fn uri_as(&self, user: &str, vhost: &str) -> String {
        let address = address_of(&self.broker_uri);
        framework_uri(&match vhost {
            "" => format!("amqp://{user}:{user}@{address}"),
            vhost => format!("amqp://{user}:{user}@{address}/{vhost}"),
        })
    }

    /// The broker's URI on another vhost of `parity/definitions.json`, for connections of the framework.
    pub fn uri_on(&self, vhost: &str) -> String {
        framework_uri(&self.broker_uri_on(vhost))
    }

    /// The same for everybody else.
    pub fn broker_uri_on(&self, vhost: &str) -> String {
        format!("{}/{vhost}", self.broker_uri)
    }

    /// A connection of the framework.
    pub async fn connect(&self) -> Connection {
        Connection::open(&self.uri).await.expect("the broker is reachable")
    }

    /// An untyped client on a connection of its own.
    pub async fn client(&self) -> Client {
        Client::new(&self.connect().await)
    }

    /// A connection that knows nothing of the framework.
    pub async fn raw(&self) -> raw::Peer {
        raw::Peer::connect(&self.broker_uri).await
    }

    /// A pool for `service`, on a connection of its own and on queues nobody has used before.
    pub async fn pool(&self, service: impl Dispatch) -> WorkerPool {
        for queue in queues_of(&service) {
            self.fresh(&queue).await;
        }
        WorkerPool::new(&self.connect().await).serve(service)
    }

    /// Removes what an earlier run left in `queue`, and the queue itself at the end of the case. The first call for
    /// a name counts: a second worker must not remove the queue of the first one.
    pub async fn fresh(&self, queue: &str) {
        {
            let mut queues = self.queues.lock().expect("no case panics while it holds the lock");
            if queues.iter().any(|known| known == queue) {
                return;
            }
            queues.push(queue.to_owned());
        }
        self.raw().await.delete_queue(queue).await;
    }

    async fn clean_up(&self) {
        let queues = std::mem::take(&mut *self.queues.lock().expect("the case is over"));
        if queues.is_empty() {
            return;
        }
        let raw = self.raw().await;
        for queue in queues {
            raw.delete_queue(&queue).await;
        }
    }
}

/// The URI with the transport that `RPC_TEST_TRANSPORT` names: every connection of the framework is to go over it.
pub fn framework_uri(uri: &str) -> String {
    match std::env::var("RPC_TEST_TRANSPORT") {
        Ok(transport) => with_parameter(uri, &format!("transport={transport}")),
        Err(_) => uri.to_owned(),
    }
}

fn queues_of(service: &impl Dispatch) -> Vec<String> {
    let descriptor = service.descriptor();
    if let Some(queue) = descriptor.queue {
        return vec![queue.to_owned()];
    }
    let own = descriptor.methods.iter().filter_map(|method| method.queue);
    let mut queues: Vec<_> = own.map(|queue| format!("rpc.{}.{queue}", descriptor.name)).collect();
    queues.push(format!("rpc.{}", descriptor.name));
    queues.push(format!("rpc.{}.nested.calls", descriptor.name));
    queues
}

/// Runs a case on a broker, in a runtime of its own. Called by [`on_both_brokers!`](crate::on_both_brokers).
///
/// # Panics
/// When the case does, or is not over after a minute.
pub fn run(target: Target, case: impl AsyncFnOnce(&Stage)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the operating system gives threads");
    runtime.block_on(async {
        let Some((uri, broker)) = target.open().await else {
            println!("skipped: {RABBITMQ_URL} is not set");
            return;
        };
        let stage = Stage { target, uri: framework_uri(&uri), broker_uri: uri, queues: Mutex::default() };
        let outcome = {
            let case = catch_unwind(case(&stage));
            timeout(CASE_LIMIT, case).await
        };
        // Also after a failure: the next run is to start clean.
        let cleaned = timeout(CLEAN_UP_LIMIT, catch_unwind(stage.clean_up())).await;
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => panic!("the case is not over after {CASE_LIMIT:?}"),
        }
        match cleaned {
            Ok(Ok(())) => {}
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => panic!("cleaning up is not over after {CLEAN_UP_LIMIT:?}"),
        }
        if let Some(broker) = broker {
            broker.shutdown().await;
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
}

async fn catch_unwind<F: Future>(future: F) -> Result<F::Output, Box<dyn std::any::Any + Send>> {
    let mut future = std::pin::pin!(future);
    // A case that panicked is not polled again.
    std::future::poll_fn(|cx| match std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(panic)),
    })
    .await
}

const RABBITMQ_URL: &str = "RPC_TEST_RABBITMQ_URL";
/// The longest case takes a few seconds on an idle machine.
const CASE_LIMIT: Duration = Duration::from_secs(60);
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(20);
