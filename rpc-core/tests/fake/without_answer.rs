//! Calls that end before their handler does, and one-way calls.

use std::{sync::Arc, time::Duration};

use rpc_core::{CallError, FakePool, TimeoutStage, service};
use tokio::{sync::Notify, time::sleep};

use super::*;

/// Notes when a handler begins, when its call is cancelled, and when it ends by itself.
fn slow(log: &Log) -> Clerk {
    let log = log.clone();
    Clerk::with(move |question, ctx| {
        let log = log.clone();
        async move {
            log.note("begun");
            let cancelled = log.clone();
            tokio::spawn(async move {
                ctx.cancelled().await;
                cancelled.note("cancelled");
            });
            sleep(Duration::from_secs(5)).await;
            log.note("ended");
            Ok(question)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_late_is_stopped_at_the_deadline() {
    let log = Log::default();
    let client = DeskClient::fake(slow(&log));
    let limit = Duration::from_millis(100);
    for client in [client.clone(), client.layer(rpc_core::layer::TraceLayer::new())] {
        let error = client.plain(String::new()).timeout(limit).await.unwrap_err();
        assert_eq!(parts(&error), ("timeout", true, true));
        let CallError::Timeout { stage: TimeoutStage::Running, after, .. } = error else { panic!("{error:?}") };
        assert_eq!(after, limit);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(log.take(), ["begun", "cancelled"]);
    }
}

#[tokio::test]
async fn a_call_without_time_does_not_begin() {
    let (clerk, count) = Clerk::echo();
    let error = DeskClient::fake(clerk).plain(String::new()).timeout(Duration::ZERO).await.unwrap_err();
    assert_eq!(parts(&error), ("timeout", false, true));
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_cancels_its_handler_unless_the_method_forbids_that() {
    let log = Log::default();
    let client = DeskClient::fake(slow(&log));
    let limit = Duration::from_millis(100);
    let dropped = tokio::time::timeout(limit, client.plain(String::new()).into_future()).await;
    assert!(dropped.is_err());
    sleep(Duration::from_secs(10)).await;
    assert_eq!(log.take(), ["begun", "cancelled"]);
    let dropped = tokio::time::timeout(limit, client.keep(String::new()).without_timeout().into_future()).await;
    assert!(dropped.is_err());
    sleep(Duration::from_secs(10)).await;
    assert_eq!(log.take(), ["begun", "ended"]);
    assert_eq!(client.client().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_oneway_call_resolves_once_its_handler_has_ended_or_waits() {
    let log = Log::default();
    let noting = log.clone();
    let clerk = Clerk::with(move |note, ctx| {
        let noting = noting.clone();
        async move {
            assert!(ctx.message_id().is_some() && ctx.remaining().is_none() && ctx.reply_to().is_none());
            match &*note {
                "wait" => sleep(Duration::from_secs(60)).await,
                "panic" => panic!("for a test"),
                "refuse" => return Err(Refused::Closed),
                _ => {}
            }
            noting.note(note);
            Ok(String::new())
        }
    });
    let client = DeskClient::fake(clerk);
    client.tell("at once".to_owned()).await.unwrap();
    assert_eq!(log.take(), ["at once"]);
    client.tell("panic".to_owned()).await.unwrap();
    client.tell("refuse".to_owned()).await.unwrap();
    client.tell("wait".to_owned()).timeout(Duration::from_secs(1)).await.unwrap();
    assert!(log.take().is_empty());
    sleep(Duration::from_secs(61)).await;
    assert_eq!(log.take(), ["wait"]);
}

#[tokio::test(start_paused = true)]
async fn handlers_without_a_caller_end_with_the_last_client() {
    struct Held(Log);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.note("dropped");
        }
    }
    let log = Log::default();
    let noting = log.clone();
    let clerk = Clerk::with(move |_, _| {
        let held = Held(noting.clone());
        async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok(String::new())
        }
    });
    let client = DeskClient::fake(clerk);
    let another = client.clone();
    client.tell(String::new()).await.unwrap();
    drop(client);
    settle().await;
    assert!(log.take().is_empty());
    drop(another);
    settle().await;
    assert_eq!(log.take(), ["dropped"]);
}

#[tokio::test]
async fn a_shutdown_ends_the_calls_in_flight_and_later_ones() {
    let begun = Arc::new(Notify::new());
    let begins = Arc::clone(&begun);
    let clerk = Clerk::with(move |_, _| {
        begins.notify_one();
        std::future::pending()
    });
    let client = DeskClient::fake(clerk);
    let call = tokio::spawn(client.plain(String::new()).into_future());
    begun.notified().await;
    assert_eq!(client.client().in_flight(), 1);
    client.client().shutdown();
    assert_eq!(parts(&call.await.unwrap().unwrap_err()), ("shutdown", true, false));
    assert_eq!(parts(&client.plain(String::new()).await.unwrap_err()), ("shutdown", false, false));
    assert!(!client.client().is_ready() && client.client().ready().await.is_err());
    assert!(client.client().ping("desk").await.is_err());
}

#[tokio::test]
async fn nested_calls_inherit_deadline_headers_and_depth() {
    #[service(name = "outer")]
    trait Outer {
        async fn go(&self, left: u32) -> String;
    }
    struct Forwards(std::sync::OnceLock<OuterClient>);
    impl Outer for Arc<Forwards> {
        async fn go(&self, left: u32) -> String {
            let client = self.0.get().unwrap();
            let call = if left == 0 { return "bottom".to_owned() } else { client.go(left - 1) };
            match call.timeout(Duration::from_secs(3_600)).await {
                Ok(answer) => answer,
                Err(error) => error.to_string(),
            }
        }
    }
    let outer = Arc::new(Forwards(std::sync::OnceLock::new()));
    let client = OuterClient::fake(Arc::clone(&outer));
    outer.0.set(client.clone()).unwrap();
    assert_eq!(client.go(10).await.unwrap(), "bottom");
    let too_deep = client.go(100).await.unwrap();
    assert!(too_deep.contains("calls are nested 16 deep already"), "{too_deep}");
}

#[tokio::test(start_paused = true)]
async fn a_handlers_calls_carry_on_its_deadline_and_its_trace() {
    #[service(name = "front")]
    trait Front {
        async fn go(&self) -> String;
    }
    struct Through(DeskClient);
    impl Front for Through {
        async fn go(&self) -> String {
            self.0.plain(String::new()).await.unwrap_or_else(|error| error.code().to_owned())
        }
    }
    let clerk = Clerk::with(|_, ctx| async move {
        let parent = ctx.header("traceparent").and_then(|value| value.as_str().map(str::to_owned));
        Ok(format!("{} {:?}", parent.unwrap_or_default(), ctx.remaining()))
    });
    let desk = DeskClient::from_client(FakePool::new().serve(DeskServer::new(clerk)).client());
    let front = FrontClient::fake(Through(desk));
    let limit = Duration::from_secs(2);
    let seen = front.go().header("traceparent", "of a test").timeout(limit).await.unwrap();
    assert_eq!(seen, "of a test Some(2s)");
}
