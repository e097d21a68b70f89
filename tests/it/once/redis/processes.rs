//! Workers in processes of their own, which are killed while each request is sent ten times.
//!
//! ```text
//!  callers ──► broker ──► four workers ──► Redis
//! ```
//!
//! Each worker prints what it begins, with the number of its claim: the time of the claim in microseconds, by Redis' clock.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use rpc_core::{
    Client, ClientOptions,
    dedupe::{DedupeStore, Entry, Key, RedisStore},
};
use rpc_tests::{NamedProbe, RedisProcess, Stage, WorkerProcess, on_both_brokers, within};
use tokio::{sync::Semaphore, task::JoinSet, time::sleep};

on_both_brokers!(each_request_is_executed_once_although_workers_are_killed);

async fn each_request_is_executed_once_although_workers_are_killed(stage: &Stage) {
    let Some(redis) = RedisProcess::start().await else { return };
    stage.fresh(&format!("rpc.{SERVICE}")).await;
    stage.fresh(&format!("rpc.{SERVICE}.nested.calls")).await;
    let mut crew =
        Crew { uri: stage.uri().to_owned(), url: redis.url(), workers: Vec::new(), begun: HashMap::new(), kills: 0 };
    for _ in 0..WORKERS {
        crew.hire().await;
    }
    let options = ClientOptions::default().timeout(Duration::from_secs(50));
    let probe = NamedProbe::new(Client::with_options(&stage.connect().await, options), SERVICE);
    let calls = tokio::spawn(call_all(probe));
    let store = super::store(&redis);
    // How often the worker of each request was killed after it had begun, before its answer was kept.
    let mut orphaned: HashMap<usize, usize> = HashMap::new();
    while !calls.is_finished() {
        sleep(Duration::from_millis(200)).await;
        // By chance no request was lost so far.
        if crew.kills >= KILLS_MAX && !orphaned.is_empty() {
            continue;
        }
        for number in crew.kill_the_oldest(&store).await {
            *orphaned.entry(number).or_default() += 1;
        }
        crew.hire().await;
    }
    let answers = within(Duration::from_secs(5), "all answers", calls).await.unwrap();
    crew.dismiss();
    println!("{} kills, {} requests lost their worker: {orphaned:?}", crew.kills, orphaned.len());
    for (number, answer) in answers.iter().enumerate() {
        let tokens = &crew.begun[&number];
        let expected = 1 + orphaned.get(&number).copied().unwrap_or_default();
        assert_eq!(tokens.len(), expected, "executions of {number}: {tokens:?}");
        for pair in tokens.windows(2) {
            // Redis expires keys by the millisecond.
            let apart = Duration::from_micros(pair[1] - pair[0] + 2_000);
            assert!(apart >= LEASE, "{number} ran again while it was claimed: {pair:?}");
        }
        let last = tokens.last().unwrap();
        assert!(answer.contains(&format!(": {number} {last}")), "{number}: {answer}, {tokens:?}");
    }
    assert!(crew.kills > 2 && !orphaned.is_empty(), "{} kills, {orphaned:?}", crew.kills);
}

/// Sends each request ten times; the answer to each, which is the same for all ten.
async fn call_all(probe: NamedProbe) -> Vec<String> {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut calls = JoinSet::new();
    // Five at once, five when they have been answered.
    for _ in 0..2 {
        for call in 0..KEYS * 5 {
            let number = call / 5;
            let place = Arc::clone(&in_flight).acquire_owned().await.unwrap();
            let call = probe.ask(&number.to_string(), false).idempotency_key(message_id(number));
            calls.spawn(async move {
                let answer = call.await;
                drop(place);
                (number, answer)
            });
        }
    }
    let mut answers: Vec<Option<String>> = vec![None; KEYS];
    while let Some(ended) = calls.join_next().await {
        let (number, answer) = ended.unwrap();
        let answer = answer.unwrap_or_else(|error| panic!("{number}: {error:#}"));
        // A request that came again says so, wherever it was executed.
        let answer = answer.trim_end_matches(" (redelivered)").to_owned();
        assert_eq!(*answers[number].get_or_insert_with(|| answer.clone()), answer, "one answer to {number}");
    }
    answers.into_iter().map(Option::unwrap).collect()
}

/// The workers.
struct Crew {
    uri: String,
    url: String,
    /// The oldest first.
    workers: Vec<WorkerProcess>,
    /// The claims of each request that was begun, by those that are gone.
    begun: HashMap<usize, Vec<u64>>,
    kills: usize,
}

impl Crew {
    async fn hire(&mut self) {
        let program = Path::new(env!("CARGO_BIN_EXE_test_worker"));
        let name = format!("worker {}", self.kills + self.workers.len());
        let worker =
            WorkerProcess::spawn_storing(program, [&self.uri, SERVICE, &name, &self.url], HANDLER, LEASE).await;
        self.workers.push(worker);
    }

    /// Ends a worker with SIGKILL; returns the requests that it had begun and whose answers it has not kept.
    async fn kill_the_oldest(&mut self, store: &RedisStore) -> Vec<usize> {
        let mut worker = self.workers.remove(0);
        worker.kill();
        self.kills += 1;
        // Redis carries out the last command of the worker meanwhile.
        sleep(Duration::from_millis(500)).await;
        let mut orphaned = Vec::new();
        for (number, token) in self.note(&worker) {
            let key = Key::new(SERVICE, "ask", None, message_id(number).as_bytes());
            let entry = store.read(&key).await.unwrap();
            let is_its_answer = |reply: &[u8]| String::from_utf8_lossy(reply).contains(&token.to_string());
            match entry {
                Some(Entry::Completed(reply)) if is_its_answer(&reply) => {}
                Some(_) | None => orphaned.push(number),
            }
        }
        orphaned
    }

    fn dismiss(&mut self) {
        for mut worker in std::mem::take(&mut self.workers) {
            worker.kill();
            self.note(&worker);
        }
        for tokens in self.begun.values_mut() {
            tokens.sort_unstable();
        }
    }

    /// Notes all that a worker has begun: the requests, and the numbers of its claims.
    fn note(&mut self, worker: &WorkerProcess) -> Vec<(usize, u64)> {
        let begun: Vec<(usize, u64)> = worker
            .all_begun()
            .iter()
            .map(|line| {
                let (number, token) = line.split_once(' ').expect("a number and a claim");
                (number.parse().unwrap(), token.parse().unwrap())
            })
            .collect();
        for (number, token) in &begun {
            self.begun.entry(*number).or_default().push(*token);
        }
        begun
    }
}

fn message_id(number: usize) -> String {
    format!("order {number}")
}

const SERVICE: &str = "once-processes";
const WORKERS: usize = 4;
const KEYS: usize = 1_000;
/// Calls at once.
const IN_FLIGHT: usize = 96;
/// How long a handler takes: some workers are killed while the requests are executed, however long a new one takes to start.
const HANDLER: Duration = Duration::from_millis(150);
/// Longer than a worker stands still on a machine under load.
const LEASE: Duration = Duration::from_secs(3);
/// Each holds up some requests for as long as their claims last.
const KILLS_MAX: usize = 8;
