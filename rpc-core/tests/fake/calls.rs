//! Arguments, results, errors and options of calls.

use std::{sync::Arc, time::Duration};

use rpc_core::{CallError, Client, ClientOptions, Codec, FakePool, HeaderValue, RetryPolicy, service};
use serde::{Deserialize, Serialize};

use super::*;

#[tokio::test]
async fn arguments_and_results_are_encoded_and_decoded() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Parcel {
        weight_g: u32,
        #[serde(skip)]
        cached: bool,
    }
    #[service]
    trait Post {
        async fn send(&self, parcel: Parcel) -> Parcel;
    }
    struct Office;
    impl Post for Office {
        async fn send(&self, parcel: Parcel) -> Parcel {
            assert!(!parcel.cached, "it does not travel");
            Parcel { cached: true, ..parcel }
        }
    }
    let sent = PostClient::fake(Office).send(Parcel { weight_g: 7, cached: true }).await.unwrap();
    assert_eq!(sent, Parcel { weight_g: 7, cached: false });
}

#[tokio::test]
async fn errors_are_those_of_a_real_client() {
    let clerk = Clerk::with(|question, _| async move {
        match &*question {
            "closed" => Err(Refused::Closed),
            "busy" => Err(Refused::Busy { waiting: 3 }),
            "panic" => panic!("for a test"),
            _ => Ok(question),
        }
    });
    let client = DeskClient::fake(clerk);
    assert_eq!(client.ask("who?".to_owned()).await.unwrap(), "who?");
    let error = client.ask("closed".to_owned()).await.unwrap_err();
    assert_eq!(parts(&error), ("closed", true, false));
    assert!(matches!(error, CallError::Service { error: Refused::Closed, .. }), "{error:?}");
    let error = client.ask("busy".to_owned()).await.unwrap_err();
    assert_eq!((parts(&error), error.retry_after()), (("busy", true, true), Some(Duration::from_secs(2))));
    assert!(matches!(error, CallError::Service { error: Refused::Busy { waiting: 3 }, .. }), "{error:?}");
    let error = client.ask("panic".to_owned()).await.unwrap_err();
    assert_eq!(parts(&error), ("internal", true, false));
    assert_eq!(error.to_string(), "desk.ask: internal error of the worker: the handler panicked: for a test");
    let error = client.crunch("panic".to_owned()).await.unwrap_err();
    assert_eq!(error.code(), "internal");
    assert_eq!(client.crunch("on a thread".to_owned()).await.unwrap(), "on a thread");
}

#[tokio::test]
async fn a_service_that_is_not_there_takes_no_call() {
    #[service(name = "stock")]
    trait Stock {
        #[rpc(idempotent)]
        async fn count(&self) -> u32;
        #[rpc(oneway)]
        async fn note(&self);
    }
    let client = Client::fake(DeskServer::new(Clerk::echo().0));
    let stock = StockClient::from_client(client.clone());
    for error in [stock.count().await.unwrap_err(), stock.note().await.unwrap_err()] {
        assert_eq!(parts(&error), ("no_such_service", false, true), "{error:?}");
    }
    assert_eq!(client.stats().returned, 2);
    assert_eq!(client.ping("stock").await.unwrap(), None);
    assert_eq!(client.ping("desk").await.unwrap().unwrap().version, 1);
}

#[tokio::test]
async fn callers_of_another_version_are_refused_and_old_names_are_served() {
    mod new {
        use super::*;
        #[service(name = "versioned", version = 2)]
        pub(super) trait New {
            async fn count(&self) -> u32;
            async fn missing(&self) -> u32;
        }
    }
    #[service(name = "versioned")]
    trait Old {
        #[rpc(alias = "tally")]
        async fn count(&self) -> u32;
    }
    #[service(name = "versioned")]
    trait Older {
        async fn tally(&self) -> u32;
        async fn missing(&self) -> u32;
    }
    struct Shelf;
    impl Old for Shelf {
        async fn count(&self) -> u32 {
            9
        }
    }
    let client = Client::fake(OldServer::new(Shelf));
    let error = new::NewClient::from_client(client.clone()).count().await.unwrap_err();
    assert_eq!(parts(&error), ("bad_version", false, false), "{error:?}");
    let older = OlderClient::from_client(client);
    assert_eq!(older.tally().await.unwrap(), 9);
    assert_eq!(parts(&older.missing().await.unwrap_err()), ("no_such_method", false, false));
}

#[tokio::test]
async fn a_bare_queue_is_served_too() {
    #[service(queue = "rpc_queue", codec = "text")]
    trait Tutorial {
        async fn fib(&self, n: u32) -> u64;
    }
    struct Cpu;
    impl Tutorial for Cpu {
        async fn fib(&self, n: u32) -> u64 {
            u64::from(n) + 25
        }
    }
    assert_eq!(TutorialClient::fake(Cpu).fib(30).await.unwrap(), 55);
    assert_eq!(Codec::Text.content_type(), "text/plain");
}

#[tokio::test]
async fn options_of_a_call_reach_the_handler() {
    let clerk = Clerk::with(|_, ctx| async move {
        let tenant = ctx.header("tenant").and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
        let left = ctx.remaining().map_or(0, |left| left.as_secs());
        let id = if ctx.message_id() == Some("mine") { "mine" } else { "other" };
        let has_id = ctx.message_id().is_some();
        Ok(format!("{tenant} {left} {id} {has_id} {:?} {} {}", ctx.priority(), ctx.attempt(), ctx.routing_key()))
    });
    let client = DeskClient::fake(clerk);
    let call = client.ask(String::new()).header("tenant", "blue").idempotency_key("mine").priority(4);
    let seen = call.timeout(Duration::from_millis(7_900)).await.unwrap();
    assert_eq!(seen, "blue 7 mine true Some(4) 1 desk.ask");
    let plain = client.plain(String::new()).without_timeout().await.unwrap();
    assert_eq!(plain, " 0 other true None 1 desk.plain", "an idempotent call has a message_id");
    assert!(client.ask(String::new()).without_timeout().await.unwrap().contains("other false"));
    // Rules of a real client.
    let error = client.ask(String::new()).header("CC", "elsewhere").await.unwrap_err();
    assert_eq!(parts(&error), ("bad_request", false, false));
    let long = "n".repeat(256);
    let error = client.ask(String::new()).header(long, 1).await.unwrap_err();
    assert_eq!(parts(&error), ("bad_request", false, false));
    let error = client.ask(String::new()).header("much", "x".repeat(140_000)).await.unwrap_err();
    assert_eq!(parts(&error), ("bad_request", false, false));
    let small = FakePool::new().serve(DeskServer::new(Clerk::echo().0));
    let small = DeskClient::from_client(small.client_with(ClientOptions::default().max_body_bytes(10)));
    let error = small.ask("x".repeat(11)).await.unwrap_err();
    assert_eq!(parts(&error), ("payload_too_large", false, false));
}

#[tokio::test]
async fn the_context_is_that_of_a_request() {
    let clerk = Clerk::with(|_, ctx| async move {
        assert!(ctx.reply_to().is_some() && !ctx.redelivered() && !ctx.is_cancelled() && ctx.user_id().is_none());
        assert_eq!(ctx.header("flag"), Some(HeaderValue::Bool(true)));
        assert_eq!(ctx.header("bytes"), Some(HeaderValue::Bytes(vec![1, 2])));
        assert_eq!(ctx.header("rpc-deadline").is_some(), ctx.remaining().is_some());
        assert!(ctx.extensions().is_empty());
        Ok(String::new())
    });
    let call = DeskClient::fake(clerk).ask(String::new());
    call.header("flag", true).header("bytes", vec![1_u8, 2]).await.unwrap();
}

#[tokio::test]
async fn a_dyn_trait_is_called_and_served() {
    #[service(client_impls_trait, dyn_trait)]
    trait Stock {
        async fn count(&self, article: String) -> Result<u32, CallFailed>;
    }
    #[derive(Debug, thiserror::Error, Serialize, Deserialize)]
    #[error("{0}")]
    struct CallFailed(String);
    impl From<CallError> for CallFailed {
        fn from(error: CallError) -> Self {
            Self(error.code().to_owned())
        }
    }
    struct Shelf(u32);
    impl Stock for Shelf {
        async fn count(&self, article: String) -> Result<u32, CallFailed> {
            Ok(self.0 + article.len() as u32)
        }
    }
    let served: Arc<dyn DynStock> = Arc::new(Shelf(3));
    let log = Log::default();
    let noted = log.clone();
    let client = StockClient::fake(served).layer(rpc_core::layer::from_fn(
        move |request: rpc_core::layer::Request, next: rpc_core::layer::Next| {
            noted.note(request.method());
            next.run(request)
        },
    ));
    let called: Box<dyn DynStock> = Box::new(client);
    assert_eq!(DynStock::count(&*called, "nut".to_owned()).await.unwrap(), 6);
    assert_eq!(log.take(), ["count"]);
}

#[tokio::test]
async fn calls_are_counted_as_by_a_real_client() {
    let clerk = Clerk::with(|question, _| async move {
        match &*question {
            "" => Err(Refused::Closed),
            _ => Ok(question),
        }
    });
    let client = DeskClient::fake(clerk);
    client.ask("x".to_owned()).await.unwrap();
    client.ask(String::new()).await.unwrap_err();
    client.client().ready().await.unwrap();
    assert!(client.client().is_ready());
    let stats = client.client().stats();
    let ask = stats.methods.iter().find(|method| method.method == "ask").unwrap();
    assert_eq!((ask.calls, ask.running, stats.in_flight, ask.ended_with("ok")), (2, 0, 0, 1));
    assert_eq!(ask.errors, [("closed", 1)], "by the code of the service's own");
}

#[tokio::test]
async fn a_code_that_the_callers_own_type_lacks_counts_as_a_stranger() {
    mod older {
        use super::*;
        #[derive(Debug, thiserror::Error, Serialize, Deserialize, ServiceError)]
        pub(super) enum Refused {
            #[error("moved")]
            Moved,
        }
        #[service(name = "desk")]
        pub(super) trait Older {
            async fn ask(&self, question: String) -> Result<String, Refused>;
        }
    }
    let clerk = Clerk::with(|_, _| async { Err(Refused::Closed) });
    let client = older::OlderClient::from_client(Client::fake(DeskServer::new(clerk)));
    let error = client.ask(String::new()).await.unwrap_err();
    assert!(matches!(error, CallError::UnknownError { .. }) && error.code() == "closed", "{error:?}");
    assert_eq!(client.client().stats().methods[0].errors, [("_OTHER", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_the_client_sends_a_call_again() {
    let log = Log::default();
    let noting = log.clone();
    let clerk = Clerk::with(move |question, ctx| {
        noting.note(format!("{} {}", ctx.attempt(), ctx.message_id().is_some()));
        let is_last = ctx.attempt() == 3;
        async move { if is_last { Ok(question) } else { Err(Refused::Busy { waiting: 1 }) } }
    });
    let pool = || FakePool::new().serve(DeskServer::new(clerk.clone()));
    let options = ClientOptions::default().retry(RetryPolicy::default()).timeout(Duration::from_secs(60));
    let client = DeskClient::from_client(pool().client_with(options));
    client.ask(String::new()).await.unwrap_err();
    assert_eq!(log.take(), ["1 true"], "it may have been executed, and is not idempotent");
    let begun_at = tokio::time::Instant::now();
    assert_eq!(client.look("x".to_owned()).await.unwrap(), "x");
    assert_eq!(log.take(), ["1 true", "2 true", "3 true"]);
    assert!(begun_at.elapsed() >= Duration::from_secs(4), "the service asks for 2 s each time");
    assert_eq!(client.client().stats().retried, 2);
    // Of one call.
    let plain = DeskClient::from_client(pool().client());
    plain.look(String::new()).await.unwrap_err();
    log.take();
    plain.look(String::new()).timeout(Duration::from_secs(60)).retry(RetryPolicy::default()).await.unwrap();
    assert_eq!(log.take().len(), 3);
}
