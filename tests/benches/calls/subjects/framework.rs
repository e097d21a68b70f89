//! rpc-core, as its users have it.

use rpc_core::{AckPolicy, Connection, ConnectionOptions, PoolHandle, Transport, WorkerPool, service};

use super::{ID, Id, PREFETCH};
use crate::{Result, load};

/// The echo.
#[service(name = "bench")]
trait Bench {
    /// Gives its argument back.
    async fn echo(&self, id: Id) -> Id;
}

/// The service's name, and the first word of its routing key.
pub(super) const SERVICE: &str = "bench";
pub(super) const ROUTING_KEY: &str = "bench.echo";

struct Echo;

impl Bench for Echo {
    async fn echo(&self, id: Id) -> Id {
        id
    }
}

#[derive(Clone)]
pub(crate) struct Caller(BenchClient);

impl load::Caller for Caller {
    async fn call(&self) -> Result<()> {
        if self.0.echo(ID).await? == ID { Ok(()) } else { Err("a wrong answer".into()) }
    }
}

pub(crate) async fn client(url: &str, transport: Transport) -> Result<Caller> {
    let client = rpc_core::Client::new(&connect(url, transport).await?);
    client.ready().await?;
    Ok(Caller(BenchClient::from_client(client)))
}

pub(crate) async fn worker(url: &str, transport: Transport, ack_policy: AckPolicy) -> Result<()> {
    let pool = pool(url, transport, ack_policy).await?;
    load::until_stopped().await?;
    pool.shutdown(std::time::Duration::from_secs(5)).await?;
    Ok(())
}

pub(crate) async fn pool(url: &str, transport: Transport, ack_policy: AckPolicy) -> Result<PoolHandle> {
    let connection = connect(url, transport).await?;
    let pool = WorkerPool::new(&connection).serve(BenchServer::new(Echo));
    Ok(pool.concurrency(PREFETCH.into()).prefetch(PREFETCH).ack_policy(ack_policy).start().await?)
}

async fn connect(url: &str, transport: Transport) -> Result<Connection> {
    Ok(Connection::open_with(url, ConnectionOptions::default().transport(transport)).await?)
}
