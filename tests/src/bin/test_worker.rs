//! A worker process for tests that kill workers: serves a `Probe`, prints `ready`, and `begun <question>` for each
//! request it starts on. With `--gate closed` no handler ends before the line `go` on stdin. With `--redis URL` it has a store of
//! answers there, and prints and answers the numbers of its claims, too. It ends with its stdin.

use std::{
    io::{BufRead, Write},
    sync::Arc,
    time::Duration,
};

use rpc_core::{
    Connection, ConnectionOptions, WorkerPool,
    dedupe::{RedisStore, StoreOptions},
};
use rpc_tests::{Answers, Named, probe};
use tokio::sync::{oneshot, watch};

probe!("probe");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::from_arguments(std::env::args().skip(1))?;
    let Options { uri, service, name, delay, concurrency, is_gated, redis, lease } = options;
    let (gate, is_open) = watch::channel(!is_gated);
    let (at_end, end) = oneshot::channel();
    // Blocks in a read; ends with the process.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line == "go" {
                gate.send_replace(true);
            }
        }
        // Nobody is told when the pool could not be started.
        _ = at_end.send(());
    });
    let answers = Answers::with(move |asked| {
        let (name, mut is_open) = (name.clone(), is_open.clone());
        async move {
            let token = asked.token.map(|token| format!(" {token}")).unwrap_or_default();
            say(&format!("begun {}{token}", asked.question));
            tokio::time::sleep(delay).await;
            // The sender goes only when the process does.
            drop(is_open.wait_for(|is_open| *is_open).await);
            let redelivered = if asked.is_redelivered { " (redelivered)" } else { "" };
            format!("{name}: {}{token}{redelivered}", asked.question)
        }
    });
    // Tests wait for it.
    let options = ConnectionOptions::default().reconnect_delay_max(Duration::from_millis(200));
    let connection = Connection::open_with(&uri, options).await?;
    let pool = WorkerPool::new(&connection).serve(Named::new(&service, ProbeServer::new(answers)));
    let pool = match redis {
        None => pool,
        Some(url) => {
            // A machine under load is no reason for a store to be away.
            let limit = Duration::from_secs(20);
            let store = RedisStore::new(&url)?.limit(limit);
            pool.dedupe_store(StoreOptions::new(Arc::new(store)).lease(lease).limit(limit))
        }
    };
    let serving = pool.concurrency(concurrency).start().await?;
    let stopped = serving.run_until_signal(Duration::from_secs(10));
    say("ready");
    tokio::select! {
        report = stopped => {
            let report = report?;
            say(&format!("answered {}, aborted {}", report.stats.answered, report.aborted));
        }
        // Also when the sender is dropped unused.
        _ = end => {}
    }
    Ok(())
}

struct Options {
    uri: String,
    service: String,
    name: String,
    delay: Duration,
    concurrency: usize,
    is_gated: bool,
    redis: Option<String>,
    lease: Duration,
}

impl Options {
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            uri: String::new(),
            service: String::new(),
            name: "worker".to_owned(),
            delay: Duration::ZERO,
            concurrency: 4,
            is_gated: false,
            redis: None,
            lease: Duration::from_secs(5),
        };
        while let Some(option) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{option} needs a value"))?;
            match option.as_str() {
                "--uri" => options.uri = value,
                "--service" => options.service = value,
                "--name" => options.name = value,
                "--delay-ms" => {
                    options.delay = Duration::from_millis(value.parse().map_err(|_| "--delay-ms: a number")?);
                }
                "--redis" => options.redis = Some(value),
                "--lease-ms" => {
                    options.lease = Duration::from_millis(value.parse().map_err(|_| "--lease-ms: a number")?);
                }
                "--concurrency" => options.concurrency = value.parse().map_err(|_| "--concurrency: a number")?,
                "--gate" => options.is_gated = value == "closed",
                _ => return Err(format!("unknown option {option}")),
            }
        }
        Ok(options)
    }
}

/// Prints a line at once, also into a pipe.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody may be reading any more; then there is nobody to tell.
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}
