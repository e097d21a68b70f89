//! Methods so quick that they are served without a task: nothing else may change for them.

use std::{collections::HashSet, sync::Arc, time::Duration};

use rpc_core::CallError;
use rpc_tests::{Answers, Stage, eventually, on_both_brokers, probe, within};
use tokio::sync::Notify;

on_both_brokers!(
    a_quick_method_that_waits_for_once_holds_nobody_up,
    a_quick_method_that_panics_or_computes_for_long_is_answered,
    a_quick_method_that_waits_is_stopped_at_the_callers_deadline,
    a_quick_method_shares_a_task_unless_the_pool_gives_every_handler_one,
);

/// More than enough to be taken for quick.
const WARM_UP: usize = 300;

/// Answers at once, unless the question says otherwise; `release` ends a wait.
fn mostly_quick(release: &Arc<Notify>) -> Answers {
    let release = Arc::clone(release);
    Answers::with(move |asked| answer(asked.question, Arc::clone(&release)))
}

async fn answer(question: String, released: Arc<Notify>) -> String {
    match question.as_str() {
        "wait" => released.notified().await,
        "wait for ever" => std::future::pending().await,
        "panic" => panic!("as asked"),
        "compute" => std::thread::sleep(Duration::from_millis(300)),
        _ => {}
    }
    question
}

async fn a_quick_method_that_waits_for_once_holds_nobody_up(stage: &Stage) {
    probe!("quick-waits");
    let release = Arc::new(Notify::new());
    let pool = stage.pool(ProbeServer::new(mostly_quick(&release))).await.start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    for _ in 0..3 {
        for _ in 0..WARM_UP {
            client.ask("x".to_owned()).await.unwrap();
        }
        let received = pool.stats().received;
        let waiting = tokio::spawn(client.ask("wait".to_owned()).timeout(Duration::from_secs(50)).into_future());
        eventually(Duration::from_secs(10), "it is there", async || pool.stats().received > received).await;
        for _ in 0..WARM_UP {
            // If it waited for the other one, it would wait until its deadline.
            client.ask("x".to_owned()).await.unwrap();
        }
        assert!(!waiting.is_finished());
        release.notify_one();
        assert_eq!(waiting.await.unwrap().unwrap(), "wait");
    }
    assert!(pool.shutdown(Duration::from_secs(5)).await.is_ok());
}

async fn a_quick_method_that_panics_or_computes_for_long_is_answered(stage: &Stage) {
    probe!("quick-panics");
    let _pool = stage.pool(ProbeServer::new(mostly_quick(&Arc::default()))).await.start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    for _ in 0..WARM_UP {
        client.ask("x".to_owned()).await.unwrap();
    }
    for _ in 0..3 {
        let error = client.ask("panic".to_owned()).await.unwrap_err();
        assert!(matches!(&error, CallError::Internal { message, .. } if message.contains("as asked")), "{error}");
        assert_eq!(client.ask("compute".to_owned()).await.unwrap(), "compute");
        assert_eq!(client.ask("x".to_owned()).await.unwrap(), "x");
    }
}

async fn a_quick_method_that_waits_is_stopped_at_the_callers_deadline(stage: &Stage) {
    probe!("quick-deadline");
    let pool = stage.pool(ProbeServer::new(mostly_quick(&Arc::default()))).await.start().await.unwrap();
    let client = ProbeClient::new(&stage.connect().await);
    for _ in 0..WARM_UP {
        client.ask("x".to_owned()).await.unwrap();
    }
    let call = client.ask("wait for ever".to_owned()).timeout(Duration::from_millis(300));
    assert_eq!(call.await.unwrap_err().code(), "timeout");
    // The handler is gone, or the shutdown would wait for it.
    within(Duration::from_secs(5), "the shutdown", pool.shutdown(Duration::from_secs(4))).await.unwrap();
}

/// Answers with the id of the task it is polled in.
fn task_ids() -> Answers {
    Answers::with(async |_| tokio::task::id().to_string())
}

async fn a_quick_method_shares_a_task_unless_the_pool_gives_every_handler_one(stage: &Stage) {
    probe!("quick-task-ids");
    let client = ProbeClient::new(&stage.connect().await);
    let ids = async |calls: usize| {
        let mut ids = Vec::new();
        for _ in 0..calls {
            ids.push(client.ask(String::new()).await.unwrap());
        }
        ids
    };
    let pool = stage.pool(ProbeServer::new(task_ids())).await.inline(false).start().await.unwrap();
    let seen = ids(WARM_UP).await;
    let different: HashSet<_> = seen.iter().collect();
    assert_eq!(different.len(), seen.len(), "two handlers had one task");
    pool.shutdown(Duration::from_secs(5)).await.unwrap();

    let pool = stage.pool(ProbeServer::new(task_ids())).await.start().await.unwrap();
    eventually(Duration::from_secs(20), "two handlers in a row are polled in one task", async || {
        ids(WARM_UP).await.windows(2).any(|pair| pair[0] == pair[1])
    })
    .await;
    pool.shutdown(Duration::from_secs(5)).await.unwrap();
}
