//! A worker process for tests that kill workers: serves a `Probe`, prints `ready`, and `begun <question>` for each
//! request it starts on.

use std::{io::Write, time::Duration};

use rpc_core::{Connection, WorkerPool};
use rpc_tests::{Answers, Named, probe};

probe!("probe");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::from_arguments(std::env::args().skip(1))?;
    let Options { uri, service, name, delay } = options;
    let answers = Answers::with(move |asked| {
        let name = name.clone();
        async move {
            say(&format!("begun {}", asked.question));
            tokio::time::sleep(delay).await;
            let redelivered = if asked.is_redelivered { " (redelivered)" } else { "" };
            format!("{name}: {}{redelivered}", asked.question)
        }
    });
    let connection = Connection::open(&uri).await?;
    let pool = WorkerPool::new(&connection).serve(Named::new(&service, ProbeServer::new(answers)));
    let _serving = pool.concurrency(4).start().await?;
    say("ready");
    std::future::pending().await
}

struct Options {
    uri: String,
    service: String,
    name: String,
    delay: Duration,
}

impl Options {
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options =
            Self { uri: String::new(), service: String::new(), name: "worker".to_owned(), delay: Duration::ZERO };
        while let Some(option) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{option} needs a value"))?;
            match option.as_str() {
                "--uri" => options.uri = value,
                "--service" => options.service = value,
                "--name" => options.name = value,
                "--delay-ms" => {
                    options.delay = Duration::from_millis(value.parse().map_err(|_| "--delay-ms: a number")?);
                }
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
