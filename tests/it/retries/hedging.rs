//! Second requests while the first one is late.

use super::*;

on_both_brokers!(
    a_worker_that_stalls_at_times_does_not_make_the_slowest_calls_slow,
    the_slower_request_is_cancelled_and_both_have_one_message_id,
);

mod stalling {
    super::stock!("retries-hedge");
}

/// How long a call takes with a worker that stalls.
const STALL: Duration = Duration::from_millis(400);

async fn a_worker_that_stalls_at_times_does_not_make_the_slowest_calls_slow(stage: &Stage) {
    let requests = Arc::<AtomicUsize>::default();
    let mut pools = Vec::new();
    for worker in 0..4 {
        let (own, all) = (AtomicUsize::new(0), Arc::clone(&requests));
        let shelf = Shelf::with(move |_| {
            all.fetch_add(1, Ordering::SeqCst);
            // One in fifteen of the fourth worker: one in sixty of all.
            let stalls = worker == 3 && own.fetch_add(1, Ordering::SeqCst) % 15 == 14;
            async move {
                sleep(if stalls { STALL } else { Duration::from_millis(5) }).await;
                Ok(5)
            }
        });
        pools.push(stage.pool(stalling::StockServer::new(shelf)).await.start().await.unwrap());
    }
    let connection = stage.connect().await;
    let plain = stalling::StockClient::with_options(&connection, retrying(RetryPolicy::default()));
    let hedging = stalling::StockClient::with_options(&connection, retrying(RetryPolicy::default().hedge(true)));
    let without = slowest_hundredth(&plain).await;
    assert_eq!(requests.swap(0, Ordering::SeqCst), CALLS);
    assert!(without >= STALL, "{without:?}");
    // It learns how long calls take.
    slowest_hundredth(&hedging).await;
    requests.store(0, Ordering::SeqCst);
    let with = slowest_hundredth(&hedging).await;
    let further = requests.load(Ordering::SeqCst) - CALLS;
    println!("p99 without {without:?}, with {with:?}, {further} second requests");
    assert!(with <= without / 2, "without {without:?}, with {with:?}");
    assert!((1..=CALLS / 20 + 10).contains(&further), "{further}");
}

const CALLS: usize = 1_200;
const CALLERS: usize = 6;

/// The time that 99 % of the calls are not longer than.
async fn slowest_hundredth(client: &stalling::StockClient) -> Duration {
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut times = Vec::with_capacity(CALLS / CALLERS);
                for _ in 0..CALLS / CALLERS {
                    let begun_at = Instant::now();
                    assert_eq!(client.count().await.unwrap(), 5);
                    times.push(begun_at.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::with_capacity(CALLS);
    for caller in callers {
        times.extend(caller.await.unwrap());
    }
    times.sort();
    times[CALLS * 99 / 100]
}

async fn the_slower_request_is_cancelled_and_both_have_one_message_id(stage: &Stage) {
    stock!("retries-hedge-cancel");
    let log = Log::default();
    let noting = log.clone();
    let is_stuck = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let sticks = Arc::clone(&is_stuck);
    let shelf = Shelf::with(move |ctx| {
        let noting = noting.clone();
        let id = ctx.message_id().unwrap_or("none").to_owned();
        if sticks.load(Ordering::SeqCst) {
            noting.note(format!("{} {id}", ctx.attempt()));
        }
        let is_stuck = ctx.attempt() == 1 && sticks.load(Ordering::SeqCst);
        async move {
            if is_stuck {
                tokio::spawn(async move {
                    ctx.cancelled().await;
                    noting.note(format!("cancelled {id}"));
                });
                sleep(Duration::from_secs(60)).await;
            }
            Ok(5)
        }
    });
    let _pool = stage.pool(StockServer::new(shelf)).await.start().await.unwrap();
    let client = StockClient::with_options(&stage.connect().await, retrying(RetryPolicy::default().hedge(true)));
    for _ in 0..120 {
        assert_eq!(client.count().await.unwrap(), 5);
    }
    is_stuck.store(true, Ordering::SeqCst);
    let answer = within(SOON, "the second request", client.count().without_timeout().into_future()).await;
    assert_eq!(answer.unwrap(), 5);
    eventually(SOON, "the first one is cancelled", async || log.len() == 3).await;
    let seen = log.take();
    let id = seen[0].strip_prefix("1 ").expect("the first request");
    assert!(id != "none");
    assert_eq!(seen, [format!("1 {id}"), format!("2 {id}"), format!("cancelled {id}")]);
    // A method that is not idempotent is never sent twice.
    let error = client.take().timeout(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error:?}");
    assert_eq!(log.take().iter().filter(|seen| !seen.starts_with("cancelled")).count(), 1);
}
