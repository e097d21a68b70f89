//! A client of a broker that is broken, malicious or frozen: each call ends by its deadline, in hundreds of scenarios.
//!
//! ```text
//!  scenarios.rs: moment × script ──► broker.rs, one for each scenario ◄── connection, three calls ──► Ending ──► counts
//! ```

mod bound;
mod broker;
mod mechanisms;
mod scenarios;
mod stuck;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use broker::Scripted;
use rpc_core::{CallError, Connection, ConnectionOptions, service};
use rpc_tests::framework_uri;
use scenarios::Scenario;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

#[service(name = "hostile-broker")]
trait Victim {
    async fn ask(&self, question: String) -> String;
    #[rpc(idempotent)]
    async fn ask_again(&self, question: String) -> String;
    #[rpc(oneway)]
    async fn tell(&self, question: String);
}

#[test]
fn every_call_ends_by_its_deadline_whatever_the_broker_does() {
    count_panics();
    let is_lapin = std::env::var("RPC_TEST_TRANSPORT").is_ok_and(|transport| transport == "lapin");
    let mut scenarios = scenarios::all();
    if is_lapin {
        // A thread for each connection: a third of them takes as long as all do over our own transport.
        let third = scenarios.into_iter().step_by(3);
        scenarios = third.filter(|scenario| !scenario.ends_lapin()).collect();
    }
    let count = scenarios.len();
    assert!(count >= 100, "{count} scenarios");
    // A client that does not yield must not stop the broker, and the reverse.
    let (brokers, clients) = (runtime("broker"), runtime("client"));
    let began = Instant::now();
    let results = clients.block_on(run_all(scenarios, brokers.handle()));
    brokers.shutdown_background();
    clients.shutdown_background();
    let panics = PANICS.load(Ordering::Relaxed);
    let counts = counts(&results);
    println!("{count} scenarios, {:.1} s, {panics} panics:\n{counts}", began.elapsed().as_secs_f64());
    let bad: Vec<_> = results.iter().filter(|result| result.is_bad()).map(ToString::to_string).collect();
    assert!(bad.is_empty(), "not by the deadline:\n  {}\n", bad.join("\n  "));
    assert_eq!(panics, 0, "their messages are above");
    let missed: Vec<_> = results.iter().filter(|result| !result.is_played).map(ToString::to_string).collect();
    // A machine that is busy with other tests may not open a connection in time, twice.
    assert!(missed.len() * 100 <= count, "never played:\n  {}\n", missed.join("\n  "));
    assert!(results[0].endings.iter().all(|ending| *ending == Ending::Over("answered")), "{}", results[0]);
}

/// The proof that the counts above can be other than zero.
#[tokio::test]
async fn a_call_that_is_late_or_hangs_or_panics_is_counted_as_that() {
    let (limits, margin) = (Duration::from_millis(10), Duration::from_millis(10));
    let patience = Duration::from_millis(500);
    let late = tokio::time::sleep(Duration::from_millis(100));
    assert_eq!(
        judge(limits, margin, patience, async {
            late.await;
            "answered"
        })
        .await,
        Ending::Late("answered")
    );
    assert_eq!(judge(limits, margin, patience, std::future::pending()).await, Ending::Hung);
    assert_eq!(judge(limits, margin, patience, async { panic!("on purpose, to be counted") }).await, Ending::Panicked);
    assert_eq!(judge(patience, margin, patience, async { "answered" }).await, Ending::Over("answered"));
}

fn runtime(name: &str) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().thread_name(format!("{THREADS} {name}"));
    builder.build().expect("the operating system gives threads")
}

/// Counts the panics of this test's threads and of lapin's, which end no test.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let other = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = thread::current();
            if thread.name().is_some_and(|name| name.starts_with(THREADS) || name.contains("lapin")) {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            other(panic);
        }));
    });
}

static PANICS: AtomicUsize = AtomicUsize::new(0);
const THREADS: &str = "hostile-broker";

/// How something ended that has a limit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    /// In time: `answered`, or the code of its error.
    Over(&'static str),
    Late(&'static str),
    Hung,
    Panicked,
}

/// A scenario, and the endings of the calls in it, or of the attempt to connect.
struct Outcome {
    name: String,
    is_played: bool,
    endings: Vec<Ending>,
}

impl Outcome {
    fn is_late(&self) -> bool {
        self.endings.iter().any(|ending| matches!(ending, Ending::Late(_)))
    }

    fn is_bad(&self) -> bool {
        self.endings.is_empty() || self.endings.iter().any(|ending| !matches!(ending, Ending::Over(_)))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.name, self.endings)
    }
}

fn counts(results: &[Outcome]) -> String {
    let mut counts = BTreeMap::new();
    for ending in results.iter().flat_map(|result| &result.endings) {
        *counts.entry(ending.clone()).or_insert(0) += 1;
    }
    let lines: Vec<_> = counts.iter().map(|(ending, count)| format!("{count:6} {ending:?}")).collect();
    lines.join("\n")
}

async fn run_all(scenarios: Vec<Scenario>, brokers: &Handle) -> Vec<Outcome> {
    let places = Arc::new(Semaphore::new(AT_ONCE as usize));
    let outcomes = Arc::new(Mutex::new(BTreeMap::new()));
    let mut running = JoinSet::new();
    for (at, scenario) in scenarios.into_iter().enumerate() {
        let (places, outcomes, brokers) = (Arc::clone(&places), Arc::clone(&outcomes), brokers.clone());
        running.spawn(async move {
            let weight = if scenario.is_flood() { AT_ONCE / 4 } else { 1 };
            let place = places.acquire_many(weight).await.expect("it is never closed");
            let mut outcome = run(&scenario, &brokers).await;
            drop(place);
            if outcome.is_late() || !outcome.is_played {
                // The machine may be the reason: once more, with no other scenario beside it.
                let _all = places.acquire_many(AT_ONCE).await.expect("it is never closed");
                outcome = run(&scenario, &brokers).await;
            }
            outcomes.lock().expect("no task panics while it holds the lock").insert(at, outcome);
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("the calls run in tasks of their own");
    }
    let outcomes = std::mem::take(&mut *outcomes.lock().expect("all tasks have ended"));
    outcomes.into_values().collect()
}

async fn run(scenario: &Scenario, brokers: &Handle) -> Outcome {
    let starting = scenario.clone();
    let broker = brokers.spawn(async move { Scripted::start(&starting).await }).await.expect("it starts");
    let uri = framework_uri(broker.uri());
    // The client lives to the end, too: it opens by itself what it has lost.
    let opened = connect(&uri).await.map(|connection| VictimClient::new(&connection));
    let endings = match &opened {
        Ok(client) => call(client.clone()).await,
        Err(ending) => vec![ending.clone()],
    };
    // A client on a slow machine comes to the moment after its calls have ended.
    let has_come = || scenario.at == "never" || broker.has_departed();
    let played = async {
        while !has_come() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let is_played = timeout(LIMIT * 2, played).await.is_ok();
    drop(opened);
    Outcome { name: scenario.name.clone(), is_played, endings }
}

async fn connect(uri: &str) -> Result<Connection, Ending> {
    let options = ConnectionOptions::default()
        .connect_timeout(LIMIT)
        .reconnect_delay_initial(Duration::from_millis(10))
        .reconnect_delay_max(Duration::from_millis(20));
    let opened = Arc::new(Mutex::new(None));
    let (uri, place) = (uri.to_owned(), Arc::clone(&opened));
    let opening = async move {
        match Connection::open_with(&uri, options).await {
            Ok(connection) => {
                *place.lock().expect("nothing panics while it holds the lock") = Some(connection);
                "opened"
            }
            Err(_) => "not opened",
        }
    };
    let ending = judge(LIMIT, MARGIN, PATIENCE, opening).await;
    let opened = opened.lock().expect("nothing panics while it holds the lock").take();
    opened.filter(|_| ending == Ending::Over("opened")).ok_or(ending)
}

/// All kinds of calls at once.
async fn call(client: VictimClient) -> Vec<Ending> {
    let (ask, ask_again, tell) = (client.clone(), client.clone(), client);
    let (first, second, third) = tokio::join!(
        judge(LIMIT, MARGIN, PATIENCE, async move { answer(ask.ask(String::new()).timeout(LIMIT).await) }),
        judge(LIMIT, MARGIN, PATIENCE, async move { answer(ask_again.ask_again(String::new()).timeout(LIMIT).await) }),
        judge(LIMIT, MARGIN, PATIENCE, async move { ended(tell.tell(String::new()).timeout(LIMIT).await) }),
    );
    vec![first, second, third]
}

fn answer(outcome: Result<String, CallError>) -> &'static str {
    ended(outcome.map(|answer| assert_eq!(answer, "ok", "no other answer is taken for the call's")))
}

fn ended(outcome: Result<(), CallError>) -> &'static str {
    outcome.err().map_or("answered", |error| code(&error))
}

/// The family of an error: codes of peers are any text.
fn code(error: &CallError) -> &'static str {
    match error {
        CallError::Timeout { .. } => "timeout",
        CallError::Disconnected { .. } => "disconnected",
        CallError::BadReply { .. } => "bad_reply",
        CallError::NoSuchService { .. } => "no_such_service",
        CallError::Topology { .. } => "topology",
        CallError::Overloaded { .. } => "overloaded",
        _ => "another error",
    }
}

async fn judge(
    limit: Duration,
    margin: Duration,
    patience: Duration,
    future: impl Future<Output = &'static str> + Send + 'static,
) -> Ending {
    let began = Instant::now();
    let task = tokio::spawn(future);
    match timeout(limit + patience, task).await {
        Err(_) => Ending::Hung,
        Ok(Err(_)) => Ending::Panicked,
        Ok(Ok(outcome)) if began.elapsed() > limit + margin => Ending::Late(outcome),
        Ok(Ok(outcome)) => Ending::Over(outcome),
    }
}

/// The deadline of a call, and the limit of an attempt to connect.
const LIMIT: Duration = Duration::from_millis(500);
/// For a machine that has more to do.
const MARGIN: Duration = Duration::from_millis(700);
/// After which something counts as hung.
const PATIENCE: Duration = Duration::from_secs(5);
/// Scenarios.
const AT_ONCE: u32 = 48;
