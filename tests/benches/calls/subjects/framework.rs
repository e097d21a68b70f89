//! rpc-core, as its users have it.

use std::sync::Arc;

use rpc_core::{
    __private::{Handler, MethodDescriptor, Request, ServiceDescriptor},
    Client, Codec, Connection, Dispatch, PoolHandle, WorkerPool,
};

use super::{ID, Id, PREFETCH};
use crate::{Result, load};

#[derive(serde::Serialize, serde::Deserialize)]
struct EchoArguments {
    id: Id,
}

static ECHO: ServiceDescriptor = ServiceDescriptor {
    name: SERVICE,
    version: 1,
    queue: None,
    codec: Codec::MessagePack,
    methods: &[MethodDescriptor::new("echo", ROUTING_KEY)],
};

/// The service's name, and the first word of its routing key.
pub(super) const SERVICE: &str = "bench";
pub(super) const ROUTING_KEY: &str = "bench.echo";

struct Echo;
struct EchoServer(Arc<Echo>);

impl Echo {
    async fn echo(&self, id: Id) -> Id {
        id
    }
}

impl Dispatch for EchoServer {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &ECHO
    }

    fn dispatch(&self, request: Request) -> Handler {
        let echo = Arc::clone(&self.0);
        Box::pin(async move {
            match request.arguments() {
                Ok(EchoArguments { id }) => request.reply(&echo.echo(id).await),
                Err(response) => response,
            }
        })
    }
}

#[derive(Clone)]
pub(crate) struct Caller(Client);

impl load::Caller for Caller {
    async fn call(&self) -> Result<()> {
        let id: Id = self.0.__call(&ECHO, 0, &EchoArguments { id: ID }).await?;
        if id == ID { Ok(()) } else { Err("a wrong answer".into()) }
    }
}

pub(crate) async fn client(url: &str) -> Result<Caller> {
    let client = Client::new(&Connection::open(url).await?);
    client.ready().await?;
    Ok(Caller(client))
}

pub(crate) async fn worker(url: &str) -> Result<()> {
    let pool = pool(url).await?;
    load::until_stopped().await?;
    pool.shutdown(std::time::Duration::from_secs(5)).await?;
    Ok(())
}

pub(crate) async fn pool(url: &str) -> Result<PoolHandle> {
    let connection = Connection::open(url).await?;
    let pool = WorkerPool::new(&connection).serve(EchoServer(Arc::new(Echo)));
    Ok(pool.concurrency(PREFETCH.into()).prefetch(PREFETCH).start().await?)
}
