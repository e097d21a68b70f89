//! Layers around calls, on both sides.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rpc_core::{
    CallError, Client, DedupeOptions, HeaderValue, OtherError, TimeoutStage,
    layer::{self, BoxError, Next, Request, Response, RpcLayer},
};
use rpc_tests::{Stage, eventually, on_both_brokers, within};
use tokio::time::sleep;

use self::desk::{Clerk, Log, Refused, answering, changing, desk};

pub(crate) mod desk;
mod stacks;

on_both_brokers!(
    the_first_layer_is_the_outermost_on_either_side,
    headers_and_values_of_layers_reach_the_handler,
    a_layer_answers_with_a_code_of_its_own,
    a_refused_oneway_request_is_dead_lettered_with_the_code,
    arguments_and_results_can_be_replaced,
    attempts_of_a_layer_share_deadline_and_message_id,
    the_deadline_holds_around_the_whole_stack,
    a_dropped_call_cancels_its_handler_behind_layers,
    a_panic_in_a_layer_hurts_its_own_call_only,
    remembered_answers_stay_behind_the_layers,
    an_error_of_a_layer_says_whether_the_call_was_executed,
    a_dyn_client_has_the_layers_of_its_client,
);

async fn the_first_layer_is_the_outermost_on_either_side(stage: &Stage) {
    desk!("layers-order");
    let log = Log::default();
    let noting = log.clone();
    let clerk = Clerk::with(move |question, _| {
        noting.note("handler");
        async move { if question == "closed" { Err(Refused::Closed) } else { Ok(question) } }
    });
    let pool = stage.pool(DeskServer::new(clerk)).await.layer(log.layer("w1")).layer(log.layer("w2"));
    let _pool = pool.start().await.unwrap();
    let plain = DeskClient::new(&stage.connect().await);
    let client = plain.layer(log.layer("c1")).layer(log.layer("c2"));
    assert_eq!(client.ask("who?".to_owned()).await.unwrap(), "who?");
    let inwards = ["c1 ask", "c2 ask", "w1 ask", "w2 ask", "handler"];
    assert_eq!(log.take(), [&inwards[..], &["w2 ok", "w1 ok", "c2 ok", "c1 ok"]].concat());
    let error = client.ask("closed".to_owned()).await.unwrap_err();
    assert!(matches!(error, CallError::Service { error: Refused::Closed, .. }), "{error:?}");
    assert_eq!(log.take(), [&inwards[..], &["w2 service", "w1 service", "c2 service", "c1 service"]].concat());
    // The client before has no layers.
    plain.ask("who?".to_owned()).await.unwrap();
    assert_eq!(log.take(), ["w1 ask", "w2 ask", "handler", "w2 ok", "w1 ok"]);
    client.tell("note".to_owned()).await.unwrap();
    eventually(SOON, "the note is taken", async || log.len() == 9).await;
    let mut events = log.take();
    events.sort();
    let mut expected =
        ["c1 tell", "c2 tell", "w1 tell", "w2 tell", "handler", "w2 ok", "w1 ok", "c2 ok", "c1 ok"].map(str::to_owned);
    expected.sort();
    assert_eq!(events, expected);
}

async fn headers_and_values_of_layers_reach_the_handler(stage: &Stage) {
    desk!("layers-values");
    struct User(String);
    let clerk = Clerk::with(|_, ctx| async move {
        let header = |name| ctx.header(name).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
        let user = ctx.extensions().get::<User>().map(|user| user.0.clone()).unwrap_or_default();
        Ok(format!("{user} {} {} {}", header("tenant"), header("stage"), header("gone")))
    });
    let authenticate = changing(|request| {
        let user = request.header("user").and_then(HeaderValue::as_str).unwrap_or("nobody").to_owned();
        request.extensions_mut().insert(User(user));
        request.set_header("stage", "worker");
        assert!(request.remove_header("gone").is_some());
        assert!(request.context().is_some() && request.remaining().is_some());
    });
    let _pool = stage.pool(DeskServer::new(clerk)).await.layer(authenticate).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await).layer(changing(|request| {
        assert!(request.context().is_none() && !request.is_idempotent() && !request.is_oneway());
        request.set_header("user", "ada");
        request.set_header("gone", "still here");
        request.set_header("stage", "client");
    }));
    let call = client.ask(String::new()).header("tenant", "blue").header("user", "eve");
    assert_eq!(call.await.unwrap(), "ada blue worker ");
    // A layer's headers are under the rules of the caller's.
    let wrong = client.layer(changing(|request| request.set_header("CC", "elsewhere")));
    let error = wrong.ask(String::new()).await.unwrap_err();
    assert!(matches!(error, CallError::BadRequest { .. }) && !error.maybe_executed(), "{error:?}");
}

async fn a_layer_answers_with_a_code_of_its_own(stage: &Stage) {
    desk!("layers-refuse");
    let (clerk, count) = Clerk::echo();
    let limit = answering(|request| match request.method() {
        "ask" => Response::refuse("unauthenticated", "no token"),
        _ => Response::failed(OtherError::new("rate_limited", "10 a second").retry_after(Duration::from_millis(1_500))),
    });
    let _pool = stage.pool(DeskServer::new(clerk)).await.layer(limit).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await);
    for client in [client.clone(), client.layer(Log::default().layer("through"))] {
        let error = client.ask("x".to_owned()).await.unwrap_err();
        assert_eq!((error.code(), error.maybe_executed(), error.is_retryable()), ("unauthenticated", false, false));
        assert_eq!(error.to_string(), "layers-refuse.ask: unauthenticated: no token");
        // Also a method that returns no `Result`.
        let error = client.plain("x".to_owned()).await.unwrap_err();
        assert_eq!((error.code(), error.maybe_executed(), error.is_retryable()), ("rate_limited", false, true));
        let CallError::Other { error, .. } = error else { panic!("{error:?}") };
        assert_eq!(error.retry_after, Some(Duration::from_millis(1_500)));
    }
    // In the client nothing is sent.
    let refusing = client.layer(answering(|_| Response::refuse("breaker_open", "too many errors")));
    for error in [refusing.plain(String::new()).await.unwrap_err(), refusing.tell(String::new()).await.unwrap_err()] {
        assert_eq!((error.code(), error.maybe_executed()), ("breaker_open", false));
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

async fn a_refused_oneway_request_is_dead_lettered_with_the_code(stage: &Stage) {
    desk!("layers-letters");
    const DEAD: &str = "rpc.layers-letters.dead";
    stage.fresh(DEAD).await;
    let (clerk, count) = Clerk::echo();
    let refuse = answering(|_| Response::refuse("permission_denied", "ada may not"));
    let pool = stage.pool(DeskServer::new(clerk)).await.layer(refuse).start().await.unwrap();
    DeskClient::new(&stage.connect().await).tell("note".to_owned()).await.unwrap();
    eventually(SOON, "it is dead-lettered", async || pool.stats().dead_lettered == 1).await;
    let mut letters = stage.raw().await.consume(DEAD, 1).await;
    let letter = letters.next().await;
    let headers = letter.properties.headers().clone().unwrap();
    let text = |name: &str| headers.inner().get(name).and_then(|value| value.as_long_string().map(ToString::to_string));
    assert_eq!(text("rpc-dead-reason").as_deref(), Some("permission_denied"));
    assert_eq!(text("rpc-dead-message").as_deref(), Some("ada may not"));
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

async fn arguments_and_results_can_be_replaced(stage: &Stage) {
    desk!("layers-bodies");
    let (clerk, _) = Clerk::echo();
    let reversed = layer::from_fn(|mut request: Request, next: Next| async move {
        let swapped = replaced(request.body(), b"client", b"worker");
        request.set_body(swapped);
        let response = next.run(request).await?;
        let Some(body) = response.body() else { return Ok(response) };
        let mut answer = Response::ok(replaced(body, b"worker", b"answer"));
        answer.set_header("seen-by", "layer");
        answer.set_header("rpc-code", "forged");
        Ok(answer)
    });
    let _pool = stage.pool(DeskServer::new(clerk)).await.layer(reversed).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await);
    let headers = Log::default();
    let seen = headers.clone();
    let changed = client.layer(layer::from_fn(move |mut request: Request, next: Next| {
        let seen = seen.clone();
        async move {
            let swapped = replaced(request.body(), b"caller", b"client");
            request.set_body(swapped);
            let response = next.run(request).await?;
            seen.note(response.header("seen-by").and_then(HeaderValue::as_str).unwrap_or("none"));
            Ok(response)
        }
    }));
    assert_eq!(changed.ask("the caller".to_owned()).await.unwrap(), "the answer");
    assert_eq!(changed.plain("the caller".to_owned()).await.unwrap(), "the answer");
    assert_eq!(headers.take(), ["layer", "layer"]);
    // A body that is none is refused by the worker.
    let broken = client.layer(changing(|request| request.set_body(&b"\xc1"[..])));
    let error = broken.ask(String::new()).await.unwrap_err();
    assert!(matches!(error, CallError::BadRequest { .. }), "{error:?}");
}

/// Of the same length, as the codec has lengths.
fn replaced(body: &[u8], from: &[u8; 6], to: &[u8; 6]) -> Vec<u8> {
    let mut body = body.to_vec();
    if let Some(at) = body.windows(6).position(|window| window == from) {
        body[at..at + 6].copy_from_slice(to);
    }
    body
}

async fn attempts_of_a_layer_share_deadline_and_message_id(stage: &Stage) {
    desk!("layers-attempts");
    let log = Log::default();
    let noting = log.clone();
    let clerk = Clerk::with(move |_, ctx| {
        let id = ctx.message_id().unwrap_or("none").to_owned();
        noting.note(format!("{} {id}", ctx.attempt()));
        let is_last = ctx.attempt() == 3;
        async move { if is_last { Ok(id) } else { Err(Refused::Closed) } }
    });
    let _pool = stage.pool(DeskServer::new(clerk)).await.start().await.unwrap();
    let deadlines = Log::default();
    let again = {
        let deadlines = deadlines.clone();
        layer::from_fn(move |request: Request, next: Next| {
            let deadlines = deadlines.clone();
            async move {
                loop {
                    deadlines.note(format!("{:?} {}", request.deadline(), request.attempt()));
                    let response = next.clone().run(request.clone()).await?;
                    if response.code() != "service" {
                        return Ok(response);
                    }
                }
            }
        })
    };
    let client = DeskClient::new(&stage.connect().await).layer(again);
    let id = client.ask(String::new()).await.unwrap();
    assert_eq!(log.take(), [1, 2, 3].map(|attempt| format!("{attempt} {id}")));
    let seen = deadlines.take();
    assert!(seen.iter().enumerate().all(|(at, seen)| seen.ends_with(&format!(" {}", at + 1))), "{seen:?}");
    let deadline = |seen: &str| seen.rsplit_once(' ').unwrap().0.to_owned();
    assert!(seen.iter().all(|other| deadline(other) == deadline(&seen[0])), "{seen:?}");
    let mine = client.ask(String::new()).idempotency_key("mine").await.unwrap();
    assert_eq!(mine, "mine");
}

async fn the_deadline_holds_around_the_whole_stack(stage: &Stage) {
    desk!("layers-deadline");
    let (clerk, count) = Clerk::echo();
    let _pool = stage.pool(DeskServer::new(clerk)).await.start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await);
    let limit = Duration::from_millis(200);
    // Before the core is called.
    let stuck = client.layer(layer::from_fn(|_, _| std::future::pending()));
    // The limit has no place, so the stack is never ready.
    let never_ready = client.layer(tower::limit::ConcurrencyLimitLayer::new(0));
    for client in [stuck, never_ready] {
        let error =
            within(SOON, "the deadline", client.ask(String::new()).timeout(limit).into_future()).await.unwrap_err();
        assert!(matches!(error, CallError::Timeout { stage: TimeoutStage::Layer, .. }), "{error:?}");
        assert!(!error.maybe_executed());
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
    // After it.
    let stuck_after = client.layer(layer::from_fn(|request, next: Next| async move {
        next.run(request).await?;
        std::future::pending().await
    }));
    let error =
        within(SOON, "the deadline", stuck_after.ask(String::new()).timeout(limit).into_future()).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { stage: TimeoutStage::Unknown, .. }), "{error:?}");
    assert!(error.maybe_executed() && count.load(Ordering::SeqCst) == 1);
    let free = client.layer(changing(|request| assert_eq!(request.deadline(), None)));
    free.ask(String::new()).without_timeout().await.unwrap();
}

async fn a_dropped_call_cancels_its_handler_behind_layers(stage: &Stage) {
    desk!("layers-cancel");
    let log = Log::default();
    let noting = log.clone();
    let clerk = Clerk::with(move |question, ctx| {
        let noting = noting.clone();
        async move {
            noting.note("begun");
            let cancelled = noting.clone();
            tokio::spawn(async move {
                ctx.cancelled().await;
                cancelled.note("cancelled");
            });
            sleep(Duration::from_secs(60)).await;
            Ok(question)
        }
    });
    let _pool = stage.pool(DeskServer::new(clerk)).await.layer(Log::default().layer("w")).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await);
    let through = client.layer(Log::default().layer("c"));
    let buffered = client.layer(tower::buffer::BufferLayer::new(8));
    for client in [through, buffered] {
        let call = tokio::spawn(client.ask(String::new()).into_future());
        eventually(SOON, "the handler begins", async || log.len() > 0).await;
        call.abort();
        eventually(SOON, "the handler is cancelled", async || log.len() == 2).await;
        assert_eq!(log.take(), ["begun", "cancelled"]);
    }
}

async fn a_panic_in_a_layer_hurts_its_own_call_only(stage: &Stage) {
    desk!("layers-panic");
    let (clerk, count) = Clerk::echo();
    let panics = || {
        layer::from_fn(|request: Request, next: Next| async move {
            assert!(request.header("panic").is_none(), "as the test asks");
            let response = next.run(request).await?;
            Ok(response)
        })
    };
    let pool = stage.pool(DeskServer::new(clerk)).await.layer(panics()).start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await);
    let error = client.ask(String::new()).header("panic", true).await.unwrap_err();
    assert!(matches!(error, CallError::Internal { .. }), "{error:?}");
    assert_eq!(client.ask("well".to_owned()).await.unwrap(), "well");
    // In the client it is the caller's own panic.
    let layered = client.layer(panics());
    let panicked = tokio::spawn(layered.ask(String::new()).header("panic", true).into_future()).await.unwrap_err();
    assert!(panicked.is_panic());
    assert_eq!(layered.ask("well".to_owned()).await.unwrap(), "well");
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let stats = pool.stats();
    assert_eq!((stats.received, stats.answered), (3, 3), "{stats:?}");
}

async fn remembered_answers_stay_behind_the_layers(stage: &Stage) {
    desk!("layers-dedupe");
    let (clerk, count) = Clerk::echo();
    let guard = layer::from_fn(|request: Request, next: Next| async move {
        match request.header("token") {
            Some(_) => next.run(request).await,
            None => Ok(Response::refuse("unauthenticated", "no token")),
        }
    });
    let pool = stage.pool(DeskServer::new(clerk)).await.layer(guard).dedupe(DedupeOptions::default());
    let pool = pool.start().await.unwrap();
    let client = DeskClient::new(&stage.connect().await);
    let ask = || client.ask("secret".to_owned()).idempotency_key("7");
    assert_eq!(ask().await.unwrap_err().code(), "unauthenticated");
    assert_eq!(ask().header("token", 1).await.unwrap(), "secret");
    assert_eq!(ask().header("token", 1).await.unwrap(), "secret");
    assert_eq!(ask().await.unwrap_err().code(), "unauthenticated", "the answer is not for everybody");
    assert_eq!((count.load(Ordering::SeqCst), pool.stats().deduplicated), (1, 1));
}

async fn an_error_of_a_layer_says_whether_the_call_was_executed(stage: &Stage) {
    desk!("layers-errors");
    let (clerk, count) = Clerk::echo();
    let fail = |is_after: bool| {
        layer::from_fn(move |request: Request, next: Next| async move {
            if is_after {
                next.run(request).await?;
            }
            Err::<Response, BoxError>("the cache is down".into())
        })
    };
    let client = DeskClient::new(&stage.connect().await);
    let _pool = stage.pool(DeskServer::new(clerk.clone())).await.start().await.unwrap();
    for is_after in [false, true] {
        let error = client.layer(fail(is_after)).ask(String::new()).await.unwrap_err();
        assert!(matches!(error, CallError::Layer { .. }) && error.maybe_executed() == is_after, "{error:?}");
        assert_eq!((error.code(), error.is_retryable()), ("layer", false));
        assert!(format!("{error:#}").ends_with(": the cache is down"), "{error:#}");
    }
    // An earlier attempt may have been executed, whatever the last one says.
    let gives_up = client.layer(layer::from_fn(|request: Request, next: Next| async move {
        next.run(request).await?;
        Ok(Response::refuse("breaker_open", "no more"))
    }));
    let error = gives_up.ask(String::new()).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_executed()), ("breaker_open", true));
    assert_eq!(count.load(Ordering::SeqCst), 2);
    // The first request of a client waits for its channel: it is known not to have been executed all the same.
    mod nobody {
        super::desk!("layers-nobody");
    }
    let fresh = nobody::DeskClient::new(&stage.connect().await).layer(Log::default().layer("c"));
    for call in [fresh.plain(String::new()), fresh.plain(String::new())] {
        let error = call.await.unwrap_err();
        assert!(matches!(error, CallError::NoSuchService { .. }) && !error.maybe_executed(), "{error:?}");
    }
    // In a pool.
    desk_of_failing_layers(stage, clerk, fail(false), fail(true)).await;
}

async fn desk_of_failing_layers(stage: &Stage, clerk: Clerk, before: impl RpcLayer, after: impl RpcLayer) {
    mod before {
        crate::layers::desk::desk!("layers-fail-before");
    }
    mod after {
        crate::layers::desk::desk!("layers-fail-after");
    }
    let client = Client::new(&stage.connect().await);
    for queue in ["rpc.layers-fail-before", "rpc.layers-fail-after"] {
        stage.fresh(queue).await;
    }
    let pool = rpc_core::WorkerPool::new(&stage.connect().await)
        .serve_with(before::DeskServer::new(clerk.clone()), before)
        .serve_with(after::DeskServer::new(clerk), after);
    let _pool = pool.start().await.unwrap();
    let error = before::DeskClient::from_client(client.clone()).ask(String::new()).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_executed()), ("layer", false), "{error:?}");
    let error = after::DeskClient::from_client(client).ask(String::new()).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_executed()), ("layer", true), "{error:?}");
}

async fn a_dyn_client_has_the_layers_of_its_client(stage: &Stage) {
    #[rpc_core::service(name = "layers-dyn", client_impls_trait, dyn_trait)]
    trait Echo {
        async fn echo(&self, text: String) -> Result<String, Refused>;
    }
    struct Loud;
    impl Echo for Loud {
        async fn echo(&self, text: String) -> Result<String, Refused> {
            Ok(text.to_uppercase())
        }
    }
    let _pool = stage.pool(EchoServer::new(Loud)).await.start().await.unwrap();
    let log = Log::default();
    let client: Arc<dyn DynEcho> = Arc::new(EchoClient::new(&stage.connect().await).layer(log.layer("c")));
    assert_eq!(Echo::echo(&client, "a".to_owned()).await.unwrap(), "A");
    assert_eq!(log.take(), ["c echo", "c ok"]);
    let refusing = EchoClient::new(&stage.connect().await).layer(answering(|_| Response::refuse("closed", "")));
    let client: Arc<dyn DynEcho> = Arc::new(refusing);
    assert_eq!(Echo::echo(&client, "a".to_owned()).await, Err(Refused::Call("closed".to_owned())));
}

/// For what should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);
