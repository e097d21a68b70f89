//! A service, its server and its client in one program.
//!
//! ```sh
//! cargo run -p rpc-examples --example hello
//! ```

use std::time::Duration;

use rpc_core::{Connection, WorkerPool, service};
use rpc_examples::{ExampleBroker, Failure};

/// Greetings.
#[service]
trait Greeter {
    /// Greets `name`.
    async fn hello(&self, name: String) -> String;
}

struct Polite;

impl Greeter for Polite {
    async fn hello(&self, name: String) -> String {
        format!("Hello, {name}!")
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let broker = ExampleBroker::from_env().await?;
    let connection = Connection::open(broker.uri()).await?;
    let pool = WorkerPool::new(&connection).serve(GreeterServer::new(Polite)).start().await?;
    let greeter = GreeterClient::new(&connection);
    println!("{}", greeter.hello("world".to_owned()).await?);
    pool.shutdown(Duration::from_secs(5)).await?;
    broker.stop().await;
    Ok(())
}
