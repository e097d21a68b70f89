//! A bundled broker as a process, for tests that kill brokers: prints `listening on <uri>`, ends with its stdin.

use std::io::{Read, Write};

use rpc_core::broker::Broker;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).ok_or("usage: test_broker PORT")?.parse()?;
    let broker = Broker::builder().port(port).start().await?;
    writeln!(std::io::stdout().lock(), "listening on {}", broker.uri())?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    broker.shutdown().await;
    Ok(())
}
