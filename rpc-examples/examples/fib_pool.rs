//! A worker pool under load: many calls in flight, every answer checked, rate, latency and balance at the end.
//!
//! ```sh
//! cargo run --release -p rpc-examples --example fib_pool
//! cargo run --release -p rpc-examples --example fib_pool -- --workers 4 --requests 20000 --in-flight 64 --n 20
//! cargo run --release -p rpc-examples --example fib_pool -- --queue-kind quorum --url amqp://node-1,amqp://node-2
//! ```
//!
//! Exit codes: 0 every call was answered correctly, 1 one was not (stderr says why), 2 wrong arguments, 130 interrupted.

use std::sync::{Arc, atomic::AtomicI64, atomic::Ordering::Relaxed};
use std::{process::ExitCode, time::Duration, time::Instant};

use clap::{Parser, ValueEnum, value_parser};
use rpc_core::{Client, ClientOptions, PoolHandle, QueueKind, WorkerPool};
use rpc_examples::fibonacci::{Calculator, FibonacciClient, FibonacciServer, MAX_N_RECURSIVE, iterative};
use rpc_examples::{BrokerArgs, ExampleBroker, Failure, Tally};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Interval, interval};

/// Computes Fibonacci numbers on a pool of workers over AMQP; reports rate, latency and balance
#[derive(Parser)]
struct Args {
    /// Workers, each with its own connection and computing one number at a time [default: one per core]
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u16).range(1..=1000))]
    workers: Option<u16>,
    /// Requests a worker holds: the one it computes and those waiting behind it
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = value_parser!(u16).range(1..))]
    prefetch: u16,
    /// Calls to make
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = value_parser!(i64).range(1..))]
    requests: i64,
    /// Calls waiting for their answer at any time
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = value_parser!(u32).range(1..=100_000))]
    in_flight: u32,
    /// The number to compute, by the recursive definition: 27 takes about 0.5 ms, each further one 1.6 times longer
    #[arg(long, default_value_t = 27, value_parser = value_parser!(u32).range(..=i64::from(MAX_N_RECURSIVE)))]
    n: u32,
    /// Calls begun in a second at most [default: each as soon as an earlier one is answered]
    #[arg(long, value_name = "CALLS", value_parser = value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// The kind of the service's queue; quorum queues are replicated over a RabbitMQ cluster
    #[arg(long, value_enum, default_value_t = Kind::Classic)]
    queue_kind: Kind,
    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Classic,
    Quorum,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let Args { workers, prefetch, requests, in_flight, n, rate, queue_kind, broker } = Args::parse();
    let queue_kind = match queue_kind {
        Kind::Classic => QueueKind::Classic,
        Kind::Quorum => QueueKind::Quorum,
    };
    let workers = workers.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let broker = broker.broker().await?;
    println!("{requests} calls of fib({n}), {in_flight} in flight, {workers} workers, prefetch {prefetch}, {broker}");
    let mut pools = Vec::new();
    for nth in 0..workers {
        pools.push(start_worker(&broker, nth, prefetch, queue_kind).await?);
    }

    let options = ClientOptions::default().max_in_flight(in_flight as usize);
    let client = Client::with_options(&broker.connect(workers).await?, options);
    let pace = rate.map(|rate| Arc::new(Mutex::new(interval(Duration::from_secs(1) / rate))));
    let left = Arc::new(AtomicI64::new(requests));
    let (outcomes, inbox) = mpsc::channel(in_flight as usize);
    for _ in 0..in_flight {
        let fibonacci = FibonacciClient::from_client(client.clone());
        tokio::spawn(keep_calling(fibonacci, n, Arc::clone(&left), pace.clone(), outcomes.clone()));
    }
    drop(outcomes);

    let mut tally = Tally::start(requests as u64)?;
    let outcome = tally.gather(inbox, || left.store(0, Relaxed)).await;
    tally.report(&pools.iter().map(|pool| pool.stats().received).collect::<Vec<_>>());
    for pool in pools {
        pool.shutdown(Duration::from_secs(10)).await?;
    }
    broker.stop().await;
    outcome
}

async fn start_worker(
    broker: &ExampleBroker,
    nth: usize,
    prefetch: u16,
    queue_kind: QueueKind,
) -> Result<PoolHandle, Failure> {
    let connection = broker.connect(nth).await?;
    let pool = WorkerPool::new(&connection).serve(FibonacciServer::new(Calculator)).queue_kind(queue_kind);
    Ok(pool.concurrency(1).prefetch(prefetch).start().await?)
}

type Outcome = Result<Duration, Failure>;

/// One of the calls in flight: as soon as it is answered, it is made again.
async fn keep_calling(
    fibonacci: FibonacciClient,
    n: u32,
    left: Arc<AtomicI64>,
    pace: Option<Arc<Mutex<Interval>>>,
    outcomes: mpsc::Sender<Outcome>,
) {
    while left.fetch_sub(1, Relaxed) > 0 {
        if let Some(pace) = &pace {
            pace.lock().await.tick().await;
        }
        let called_at = Instant::now();
        let outcome = match fibonacci.fib_recursive(n).await {
            Ok(answer) if answer == iterative(n) => Ok(called_at.elapsed()),
            Ok(answer) => Err(Failure::new(format!("fib({n}) was answered {answer}, which is wrong"))),
            Err(error) => Err(error.into()),
        };
        if outcomes.send(outcome).await.is_err() {
            return;
        }
    }
}
