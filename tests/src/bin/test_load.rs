//! A load for `tests/run --cluster`: idempotent calls, other calls and one-way requests at a steady rate, while the node that the
//! client is connected to is killed.
//!
//! ```text
//!  test_load SECONDS CLIENT_URIS WORKER_URIS [CLIENT_URIS WORKER_URIS]
//!  stdout: `answered N` each second, and a report     stdin: the line `killed`, once the node is killed
//! ```
//!
//! Each pair is a load of its own, at the same time as the others; they must not share a vhost. N is that of the slowest. The queue is
//! declared over the client's first URI, so that its node leads it. The exit status is 0 only when every idempotent call was answered,
//! every request that was answered or confirmed was executed, and no other one failed that began after the kill.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, Write},
    process::ExitCode,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rpc_core::{CallError, Connection, ConnectionOptions, QueueKind, WorkerPool, service};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

#[service(name = "load")]
trait Load {
    #[rpc(idempotent)]
    async fn again(&self, n: u32) -> u32;
    async fn once(&self, n: u32) -> u32;
    #[rpc(oneway)]
    async fn note(&self, n: u32);
}

/// How often each request was executed, by its kind and number.
#[derive(Debug, Clone, Default)]
struct Executions(Arc<Mutex<HashMap<(Kind, u32), u32>>>);

impl Executions {
    fn add(&self, kind: Kind, n: u32) {
        *self.0.lock().expect("no handler panics").entry((kind, n)).or_default() += 1;
    }

    fn of(&self, kind: Kind, n: u32) -> u32 {
        self.0.lock().expect("no handler panics").get(&(kind, n)).copied().unwrap_or_default()
    }
}

impl Load for Executions {
    async fn again(&self, n: u32) -> u32 {
        self.add(Kind::Again, n);
        n
    }

    async fn once(&self, n: u32) -> u32 {
        self.add(Kind::Once, n);
        n
    }

    async fn note(&self, n: u32) {
        self.add(Kind::Note, n);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Again,
    Once,
    Note,
}

/// The end of one request.
struct End {
    kind: Kind,
    n: u32,
    began: Instant,
    took: Duration,
    outcome: Result<(), CallError>,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [seconds, uris @ ..] = &arguments[..] else { return Err("SECONDS is missing".into()) };
    let duration = Duration::from_secs(seconds.parse()?);
    let (loads, []) = uris.as_chunks() else { return Err("write pairs of CLIENT_URIS and WORKER_URIS".into()) };
    let killed = Arc::new(OnceLock::new());
    let at_kill = Arc::clone(&killed);
    // Blocks in a read; ends with the process.
    std::thread::spawn(move || {
        if std::io::stdin().lock().lines().map_while(Result::ok).any(|line| line == "killed") {
            // It is said once.
            at_kill.get_or_init(Instant::now);
        }
    });
    let answered: Vec<_> = loads.iter().map(|_| Arc::<AtomicUsize>::default()).collect();
    let mut running = JoinSet::new();
    for ([client, workers], answered) in loads.iter().cloned().zip(&answered) {
        let answered = Arc::clone(answered);
        running.spawn(async move {
            let outcome = run(&client, &workers, duration, &answered).await;
            // Those that go on are to be heard.
            answered.store(usize::MAX, Relaxed);
            outcome.map(|(ends, executions)| (client, ends, executions)).map_err(|error| error.to_string())
        });
    }
    let mut say = interval(Duration::from_secs(1));
    let mut is_good = !loads.is_empty();
    loop {
        tokio::select! {
            ended = running.join_next() => match ended {
                None => break,
                Some(ended) => {
                    let (client, ends, executions) = ended??;
                    println!("-- {client}");
                    is_good &= report(&ends, &executions, killed.get().copied());
                }
            },
            _ = say.tick() => {
                println!("answered {}", answered.iter().map(|answered| answered.load(Relaxed)).min().unwrap_or_default());
                std::io::stdout().flush()?;
            }
        }
    }
    Ok(ExitCode::from(u8::from(!is_good)))
}

/// One load, from its declarations to the end of its pools.
async fn run(
    client: &str,
    workers: &str,
    duration: Duration,
    answered: &Arc<AtomicUsize>,
) -> Result<(Vec<End>, Executions), rpc_core::Error> {
    let executions = Executions::default();
    let client = connect(client).await?;
    pool(&client, &executions).declare().await?;
    let mut pools = Vec::new();
    for _ in 0..2 {
        let connection = connect(workers).await?;
        pools.push(pool(&connection, &executions).start().await?);
    }
    let ends = load(&LoadClient::new(&client), duration, answered).await;
    // Some of the confirmed ones may still be executed.
    let is_executed = |end: &&End| end.outcome.is_err() || executions.of(end.kind, end.n) > 0;
    for _ in 0..200 {
        if ends.iter().all(|end| is_executed(&end)) {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    for pool in pools {
        pool.shutdown(Duration::from_secs(5)).await?;
    }
    Ok((ends, executions))
}

async fn connect(uris: &str) -> Result<Connection, rpc_core::Error> {
    let uris: Vec<_> = uris.split(',').collect();
    Connection::open_any(&uris, ConnectionOptions::default().reconnect_delay_max(Duration::from_secs(1))).await
}

fn pool(connection: &Connection, executions: &Executions) -> WorkerPool {
    WorkerPool::new(connection).serve(LoadServer::new(executions.clone())).queue_kind(QueueKind::Quorum)
}

async fn load(client: &LoadClient, duration: Duration, answered: &Arc<AtomicUsize>) -> Vec<End> {
    let (mut requests, mut ends) = (JoinSet::new(), Vec::new());
    let mut pace = interval(Duration::from_millis(25));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begin = Instant::now();
    for n in 0.. {
        pace.tick().await;
        if begin.elapsed() >= duration {
            break;
        }
        let kind = [Kind::Again, Kind::Once, Kind::Again, Kind::Note][n as usize % 4];
        let (client, answered) = (client.clone(), Arc::clone(answered));
        requests.spawn(async move {
            let began = Instant::now();
            // Longer than a cluster needs, shorter than its node is away.
            let limit = Duration::from_secs(20);
            let outcome = match kind {
                Kind::Again => client.again(n).timeout(limit).await.map(|answer| assert_eq!(answer, n)),
                Kind::Once => client.once(n).timeout(limit).await.map(|answer| assert_eq!(answer, n)),
                Kind::Note => client.note(n).timeout(limit).await,
            };
            answered.fetch_add(usize::from(outcome.is_ok()), Relaxed);
            End { kind, n, began, took: began.elapsed(), outcome }
        });
    }
    while let Ok(Some(end)) = timeout(Duration::from_secs(30), requests.join_next()).await {
        ends.push(end.expect("no request panics"));
    }
    ends
}

/// Whether nothing was lost.
fn report(ends: &[End], executions: &Executions, killed: Option<Instant>) -> bool {
    let mut is_good = killed.is_some();
    for kind in [Kind::Again, Kind::Once, Kind::Note] {
        let of_kind = || ends.iter().filter(|end| end.kind == kind);
        let mut errors = BTreeMap::<String, usize>::new();
        let (mut failed, mut late, mut unexecuted, mut twice, mut longest) = (0, 0, 0, 0, Duration::ZERO);
        for end in of_kind() {
            let executed = executions.of(kind, end.n);
            longest = longest.max(end.took);
            twice += usize::from(executed > 1);
            match &end.outcome {
                Ok(()) => unexecuted += usize::from(executed == 0),
                Err(error) => {
                    failed += 1;
                    let is_late = killed.is_none_or(|killed| end.began > killed + KILL_IS_FELT);
                    late += usize::from(is_late);
                    let is_wrong = executed > 0 && !error.maybe_executed();
                    is_good &= !is_wrong;
                    let wrong = if is_wrong { ", although it was executed" } else { "" };
                    *errors.entry(format!("{}{wrong}", error.code())).or_default() += 1;
                }
            }
        }
        let all = of_kind().count();
        println!(
            "{kind:?}: {all}, failed {failed}, of those begun after the kill {late}, confirmed and not executed {unexecuted}, \
             executed twice {twice}, longest {} ms, {errors:?}",
            longest.as_millis()
        );
        is_good &= late == 0 && unexecuted == 0 && (kind != Kind::Again || failed == 0) && all > 0;
    }
    is_good
}

/// A call that begins before the loss of its connection is noticed is one of those in flight at the kill.
const KILL_IS_FELT: Duration = Duration::from_secs(1);
