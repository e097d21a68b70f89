//! Workers that die, are slow, or are full.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rpc_core::AckPolicy;
use rpc_tests::{Answers, Stage, WorkerProcess, eventually, on_both_brokers, probe, within};
use tokio::{sync::Semaphore, time::sleep};

on_both_brokers!(
    a_request_is_redelivered_when_its_worker_is_killed,
    no_call_is_lost_when_one_of_three_workers_is_killed,
    the_prefetch_bound_holds_and_the_rest_stays_in_the_queue,
    a_slow_worker_gets_its_share_and_no_more,
    one_pool_serves_many_services,
    concurrency_bounds_the_handlers_of_all_services_together,
    a_request_acked_before_its_handler_is_lost_with_it,
    requests_acked_before_their_handlers_are_no_more_than_the_prefetch_count,
    a_pool_whose_queue_is_deleted_declares_it_again,
);

const WORKER: &str = env!("CARGO_BIN_EXE_test_worker");

async fn a_request_is_redelivered_when_its_worker_is_killed(stage: &Stage) {
    probe!("workers-killed");
    stage.fresh("rpc.workers-killed").await;
    let worker = async |name: &str, delay| {
        WorkerProcess::spawn(Path::new(WORKER), stage.uri(), "workers-killed", name, delay).await
    };
    let mut first = worker("first", Duration::from_secs(60)).await;
    let client = ProbeClient::new(&stage.connect().await);
    let call = tokio::spawn(client.ask("x".to_owned()).timeout(Duration::from_secs(30)).into_future());
    first.begins("x").await;
    let _second = worker("second", Duration::ZERO).await;
    first.kill();
    let answer = within(Duration::from_secs(15), "the second worker's answer", call).await.unwrap().unwrap();
    assert_eq!(answer, "second: x (redelivered)");
}

async fn no_call_is_lost_when_one_of_three_workers_is_killed(stage: &Stage) {
    probe!("workers-three");
    stage.fresh("rpc.workers-three").await;
    let mut workers = Vec::new();
    for name in ["a", "b", "c"] {
        let delay = Duration::from_millis(20);
        workers.push(WorkerProcess::spawn(Path::new(WORKER), stage.uri(), "workers-three", name, delay).await);
    }
    let client = ProbeClient::new(&stage.connect().await);
    let answered = Arc::new(AtomicUsize::new(0));
    let calls: Vec<_> = (0..300)
        .map(|n| {
            let (call, answered) = (client.ask(n.to_string()).timeout(Duration::from_secs(30)), Arc::clone(&answered));
            tokio::spawn(async move {
                let answer = call.await;
                answered.fetch_add(1, Ordering::SeqCst);
                answer
            })
        })
        .collect();
    eventually(Duration::from_secs(20), "some are answered", async || answered.load(Ordering::SeqCst) >= 50).await;
    workers[0].kill();
    assert!(answered.load(Ordering::SeqCst) < 300, "killed while calls were under way");
    for (n, call) in calls.into_iter().enumerate() {
        let answer = within(Duration::from_secs(30), "an answer", call).await.unwrap().unwrap();
        let answer = answer.strip_suffix(" (redelivered)").unwrap_or(&answer);
        assert_eq!(answer[1..], format!(": {n}"), "the right answer, whoever gave it");
    }
}

async fn the_prefetch_bound_holds_and_the_rest_stays_in_the_queue(stage: &Stage) {
    probe!("workers-prefetch");
    let release = Arc::new(Semaphore::new(0));
    let answers = {
        let release = Arc::clone(&release);
        Answers::with(move |asked| {
            let release = Arc::clone(&release);
            async move {
                release.acquire().await.unwrap().forget();
                asked.question
            }
        })
    };
    let pool = stage.pool(ProbeServer::new(answers)).await.concurrency(2).prefetch(3).start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let calls: Vec<_> = (0..10).map(|n| tokio::spawn(client.ask(n.to_string()).into_future())).collect();
    let raw = stage.raw().await;
    let ready = async || raw.queue("rpc.workers-prefetch").await.unwrap().ready;
    eventually(Duration::from_secs(5), "three are held, seven wait", async || {
        pool.stats().received == 3 && ready().await == 7
    })
    .await;
    // One answer makes room for exactly one more.
    release.add_permits(1);
    eventually(Duration::from_secs(5), "a fourth is delivered", async || pool.stats().received == 4).await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!((pool.stats().received, ready().await), (4, 6));
    release.add_permits(9);
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap(), n.to_string());
    }
}

async fn a_slow_worker_gets_its_share_and_no_more(stage: &Stage) {
    probe!("workers-fair");
    let released = Arc::new(Semaphore::new(0));
    let slow = Arc::new(AtomicUsize::new(0));
    let slow_answers = {
        let (released, slow) = (Arc::clone(&released), Arc::clone(&slow));
        Answers::with(move |asked| {
            slow.fetch_add(1, Ordering::SeqCst);
            let released = Arc::clone(&released);
            async move {
                released.acquire().await.unwrap().forget();
                asked.question
            }
        })
    };
    let pool = async |answers| {
        let pool = stage.pool(ProbeServer::new(answers)).await;
        pool.concurrency(1).prefetch(1).start().await.unwrap()
    };
    let _slow_pool = pool(slow_answers).await;
    let _fast_pool = pool(Answers::echo()).await;
    let client = ProbeClient::new(&stage.connect().await);
    let ask = |n: usize| tokio::spawn(client.ask(n.to_string()).timeout(Duration::from_secs(50)).into_future());
    let calls: Vec<_> = (0..110).map(ask).collect();
    let answered = || calls.iter().filter(|call| call.is_finished()).count();
    // All but the one that the slow worker holds.
    eventually(Duration::from_secs(30), "the fast worker answers the others", async || answered() == 109).await;
    assert_eq!(slow.load(Ordering::SeqCst), 1);
    released.add_permits(110);
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap(), n.to_string());
    }
}

async fn one_pool_serves_many_services(stage: &Stage) {
    mod first {
        rpc_tests::probe!("workers-many-1");
        pub(super) use {ProbeClient as Client, ProbeServer as Server};
    }
    mod second {
        rpc_tests::probe!("workers-many-2");
        pub(super) use {ProbeClient as Client, ProbeServer as Server};
    }
    probe!("workers-many-3");
    for queue in ["rpc.workers-many-2", "rpc.workers-many-3"] {
        stage.fresh(queue).await;
    }
    let named = |name: &'static str| Answers::with(move |asked| async move { format!("{name}: {}", asked.question) });
    let pool = stage.pool(first::Server::new(named("first"))).await;
    let pool = pool.serve(second::Server::new(named("second"))).serve(ProbeServer::new(named("third")));
    let pool = pool.start().await.unwrap();
    let client = stage.client().await;
    assert_eq!(first::Client::from_client(client.clone()).ask("x".to_owned()).await.unwrap(), "first: x");
    assert_eq!(second::Client::from_client(client.clone()).ask("x".to_owned()).await.unwrap(), "second: x");
    assert_eq!(ProbeClient::from_client(client).ask("x".to_owned()).await.unwrap(), "third: x");
    assert_eq!(pool.stats().answered, 3);
    pool.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn concurrency_bounds_the_handlers_of_all_services_together(stage: &Stage) {
    mod other {
        rpc_tests::probe!("workers-bound-2");
        pub(super) use {ProbeClient as Client, ProbeServer as Server};
    }
    probe!("workers-bound-1");
    #[derive(Default)]
    struct Running {
        now: usize,
        most: usize,
    }
    let running = Arc::new(Mutex::new(Running::default()));
    let answers = {
        let running = Arc::clone(&running);
        Answers::with(move |asked| {
            let running = Arc::clone(&running);
            async move {
                {
                    let mut running = running.lock().unwrap();
                    running.now += 1;
                    running.most = running.most.max(running.now);
                }
                sleep(Duration::from_millis(20)).await;
                running.lock().unwrap().now -= 1;
                asked.question
            }
        })
    };
    stage.fresh("rpc.workers-bound-2").await;
    let pool = stage.pool(ProbeServer::new(answers.clone())).await.serve(other::Server::new(answers));
    let _pool = pool.concurrency(3).prefetch(20).start().await.unwrap();
    let client = stage.client().await;
    let (one, two) = (ProbeClient::from_client(client.clone()), other::Client::from_client(client));
    let calls: Vec<_> = (0..40)
        .map(|n: usize| {
            let call = if n.is_multiple_of(2) { one.ask(n.to_string()) } else { two.ask(n.to_string()) };
            tokio::spawn(call.into_future())
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(running.lock().unwrap().most, 3);
}

async fn a_pool_whose_queue_is_deleted_declares_it_again(stage: &Stage) {
    probe!("workers-deleted");
    let pool = stage.pool(ProbeServer::new(Answers::echo())).await.start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    let raw = stage.raw().await;
    for round in 1..=3 {
        assert_eq!(client.ask(round.to_string()).await.unwrap(), round.to_string());
        // The broker cancels the consumer (basic.cancel).
        raw.delete_queue("rpc.workers-deleted").await;
        let is_there = async || raw.queue("rpc.workers-deleted").await.is_some_and(|queue| queue.consumers == 1);
        eventually(Duration::from_secs(10), "the pool consumes again", is_there).await;
    }
    assert_eq!(client.ask("again".to_owned()).await.unwrap(), "again");
    let report = pool.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!((report.aborted, report.stats.answered), (0, 4));
}

async fn a_request_acked_before_its_handler_is_lost_with_it(stage: &Stage) {
    probe!("workers-at-most-once");
    let count = Arc::new(AtomicUsize::new(0));
    let answers = {
        let count = Arc::clone(&count);
        Answers::with(move |asked| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                if asked.question == "hang" {
                    std::future::pending::<()>().await;
                }
                asked.question
            }
        })
    };
    let pool = async || {
        let pool = stage.pool(ProbeServer::new(answers.clone())).await;
        pool.ack_policy(AckPolicy::BeforeHandler).start().await.unwrap()
    };
    let first = pool().await;
    let client = ProbeClient::new(&stage.connect().await);
    assert_eq!(client.ask("fine".to_owned()).await.unwrap(), "fine");
    let hanging = tokio::spawn(client.ask("hang".to_owned()).timeout(Duration::from_secs(3)).into_future());
    eventually(Duration::from_secs(5), "it hangs", async || count.load(Ordering::SeqCst) == 2).await;
    // Its ack went out before the handler began; a question behind it on the same channel proves that it arrived.
    assert_eq!(client.ask("next".to_owned()).await.unwrap(), "next");
    drop(first);
    let _second = pool().await;
    assert_eq!(hanging.await.unwrap().unwrap_err().code(), "timeout");
    assert_eq!(count.load(Ordering::SeqCst), 3, "never executed again");
}

async fn requests_acked_before_their_handlers_are_no_more_than_the_prefetch_count(stage: &Stage) {
    mod asked {
        rpc_tests::probe!("workers-begun-asked");
    }
    probe!("workers-begun");
    const PREFETCH: usize = 4;
    const CALLS: usize = 20;
    // Nobody serves it, so handlers wait for its answers, and leave their slot.
    stage.pool(asked::ProbeServer::new(Answers::echo())).await.declare().await.unwrap();
    let nested = asked::ProbeClient::new(&stage.connect().await);
    let (begun, answering) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let answers = {
        let (begun, answering) = (Arc::clone(&begun), Arc::clone(&answering));
        Answers::with(move |asked| {
            begun.fetch_add(1, Ordering::SeqCst);
            let (nested, answering) = (nested.clone(), answering.load(Ordering::SeqCst));
            async move {
                match answering {
                    true => asked.question,
                    false => nested.ask(asked.question).await.unwrap_or_default(),
                }
            }
        })
    };
    let pool = async || {
        let pool = stage.pool(ProbeServer::new(answers.clone())).await.ack_policy(AckPolicy::BeforeHandler);
        pool.prefetch(PREFETCH as u16).concurrency(1).start().await.unwrap()
    };
    let first = pool().await;
    let client = ProbeClient::new(&stage.connect().await);
    let patience = Duration::from_secs(8);
    let calls: Vec<_> =
        (0..CALLS).map(|_| tokio::spawn(client.ask("x".to_owned()).timeout(patience).into_future())).collect();
    let raw = stage.raw().await;
    let queue = async || raw.queue("rpc.workers-begun").await.map_or(0, |queue| queue.ready as usize);
    let are_begun = async || begun.load(Ordering::SeqCst) == PREFETCH && queue().await == CALLS - 2 * PREFETCH;
    eventually(patience, "as many begin as may, as many wait, and the rest stays in the queue", are_begun).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(begun.load(Ordering::SeqCst), PREFETCH);
    // Those that had begun are lost, and those that waited are not.
    answering.store(true, Ordering::SeqCst);
    drop(first);
    let _second = pool().await;
    let mut answered = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(answer) => answered += usize::from(answer == "x"),
            Err(error) => assert_eq!(error.code(), "timeout"),
        }
    }
    assert_eq!(answered, CALLS - PREFETCH);
}
