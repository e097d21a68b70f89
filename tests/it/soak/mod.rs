//! Mixed calls for a long time, while connections are cut, stalled, refused and blocked and pools come and go.
//!
//! ```text
//!  callers ── proxies ── broker ── proxies ── pools      chaos: a random fault of a proxy or the broker every second or less
//! ```
//!
//! At the end: no call outlived its deadline, none ended by its grace while the broker counted a consumer, every one-way request that was confirmed was executed, the process has
//! not grown, and tasks, threads and queues are back where they were before the load. `RPC_TEST_SOAK_S` says how long
//! (60 s otherwise, after a beginning of 20 s), `RPC_TEST_SOAK_SEED` repeats the faults of an earlier run, whose seed was printed.

mod broker;
mod chaos;
mod consumers;
mod load;
mod process;
mod random;

use std::{sync::Arc, time::Duration};

use broker::Soaked;
use chaos::Site;
use consumers::Consumers;
use load::{Ledger, Tally};
use process::Memory;
use random::Random;
use rpc_tests::{eventually, within};
use tokio::time::{Instant, sleep_until};

mod bundled {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "alone: it measures its process; `tests/run --soak SECONDS` does"]
    async fn nothing_hangs_is_lost_or_left_behind() {
        super::soak(super::Soaked::bundled().await).await;
    }
}

mod rabbitmq {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "alone: it stops and blocks the node; `tests/run --soak SECONDS` does"]
    async fn nothing_hangs_is_lost_or_left_behind() {
        match super::Soaked::rabbitmq() {
            Some(broker) => super::soak(broker).await,
            None => println!("skipped: no RabbitMQ that this test may stop"),
        }
    }
}

async fn soak(broker: Soaked) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let length = Duration::from_secs(number("RPC_TEST_SOAK_S").unwrap_or(60));
    let seed = number("RPC_TEST_SOAK_SEED").unwrap_or_else(random::seed);
    println!("seed {seed}: RPC_TEST_SOAK_SEED={seed} repeats its faults");

    let ledger = Arc::new(Ledger::new());
    let mut site = Site::open(broker, &ledger).await;
    site.settle().await;
    let queues = site.queues().await;
    let baseline = process::tasks_and_threads();
    let consumers = Arc::new(Consumers::watch(site.uri(), "rpc.soak"));
    let begin = Instant::now();
    let tally = Arc::new(Tally::new(Arc::clone(&consumers)));
    let mut random = Random::new(seed);
    let mut faults = chaos::Count::default();
    let mut warm_up = WARM_UP;
    let mut memory = Memory::new(begin, length);
    // A connection that is stalled for seconds moves a quarter of a minute by more than the tenth that counts; what leaks
    // does so again.
    for attempt in 1..=MEMORY_ATTEMPTS {
        let measured_from = Instant::now() + warm_up;
        let end = measured_from + length;
        memory = Memory::new(measured_from, length);
        let callers: Vec<_> = (0..CALLERS)
            .map(|at| {
                let client = site.client(at);
                let random = Random::new(seed ^ (at as u64 + attempt));
                tokio::spawn(load::call_until(end, client, Arc::clone(&ledger), Arc::clone(&tally), random))
            })
            .collect();
        let mut next_fault = Instant::now();
        while Instant::now() < end {
            let pause = Duration::from_millis(random.between(200, 1_500));
            next_fault = Instant::now().max(next_fault) + pause;
            while Instant::now() < next_fault.min(end) {
                memory.look();
                sleep_until((Instant::now() + Duration::from_millis(250)).min(next_fault)).await;
            }
            site.strike(&mut random, &ledger, &tally, &mut faults).await;
        }
        for caller in callers {
            within(load::DEADLINE_MAX * 2, "every call ends", caller).await.unwrap();
        }
        if memory.growth() <= GROWTH_MAX || length < MEMORY_MATTERS_FROM {
            break;
        }
        println!("{memory}: more than {GROWTH_MAX}, attempt {attempt} of {MEMORY_ATTEMPTS}");
        warm_up = Duration::ZERO;
    }
    println!("{:.1} s until the last call ended\n{tally}\n{faults}", begin.elapsed().as_secs_f64());
    let (looks, unserved) = site.looks_and_unserved();
    println!("{looks} looks for workers, {unserved} attempts ended because there were none");
    assert_eq!(tally.hung(), 0, "calls outlived their deadline");
    assert_eq!(tally.wrong(), Vec::<String>::new(), "no fault explains these");
    eventually(SETTLE_LIMIT, "every confirmed request is executed", async || ledger.lost() == 0).await;
    println!(
        "{} one-way requests confirmed, all executed but {} lost with the broker, {} executions",
        ledger.confirmed(),
        ledger.excused(),
        ledger.executions()
    );
    println!("executed after {:.1} s", begin.elapsed().as_secs_f64());
    site.settle().await;
    println!("connected and empty after {:.1} s", begin.elapsed().as_secs_f64());
    let is_as_before = async || site.queues().await == queues;
    eventually(SETTLE_LIMIT, "no queue is left behind", is_as_before).await;
    consumers.stop();
    let settled = async || process::tasks_and_threads().tasks <= baseline.tasks;
    eventually(SETTLE_LIMIT, "the tasks of the load are gone", settled).await;
    println!("before the load {baseline:?}, after it {:?}; {memory}", process::tasks_and_threads());
    println!("settled after {:.1} s", begin.elapsed().as_secs_f64());
    let threads = async || process::tasks_and_threads().threads <= baseline.threads;
    eventually(SETTLE_LIMIT, "the threads of lost connections are gone", threads).await;
    if length >= MEMORY_MATTERS_FROM {
        assert!(memory.growth() <= GROWTH_MAX, "{memory}, {MEMORY_ATTEMPTS} times in a row");
    }
    site.close().await;
}

const CALLERS: usize = 16;
/// By then buffers and pools of memory have their size.
const WARM_UP: Duration = Duration::from_secs(20);
/// The last quarter of a run over its second.
const GROWTH_MAX: f64 = 1.1;
const MEMORY_ATTEMPTS: u64 = 3;
/// Less says nothing.
const MEMORY_MATTERS_FROM: Duration = Duration::from_secs(60);
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
