//! Layers on both sides of a client whose services are in the same process, those of ours among them.

use std::time::Duration;

use rpc_core::{
    CallError, Client, ClientOptions, FakePool, HeaderValue, OtherError, RetryPolicy, TimeoutStage,
    layer::{
        self, AuthLayer, Authenticator, BreakerState, Caller, CircuitBreaker, Denied, Next, Request, Response,
        RetryLayer, RpcLayer, Token, TokenLayer,
    },
};

use super::*;

impl Log {
    /// A layer that notes when a request goes in, and how it comes out.
    fn layer(&self, name: &'static str) -> impl RpcLayer + use<> {
        let log = self.clone();
        layer::from_fn(move |request: Request, next: Next| {
            let log = log.clone();
            async move {
                log.note(format!("{name} {}", request.method()));
                let response = next.run(request).await?;
                log.note(format!("{name} {}", response.code()));
                Ok(response)
            }
        })
    }
}

/// Refuses the first calls.
fn refusing(times: usize, refusal: fn() -> Response) -> impl RpcLayer {
    let left = Arc::new(AtomicUsize::new(times));
    layer::from_fn(move |request: Request, next: Next| {
        let is_refused =
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left: usize| left.checked_sub(1)).is_ok();
        async move { if is_refused { Ok(refusal()) } else { next.run(request).await } }
    })
}

fn overloaded() -> Response {
    Response::failed(OtherError::new("overloaded", "for a test").retryable(true))
}

#[tokio::test]
async fn layers_of_both_sides_stand_in_their_order() {
    let log = Log::default();
    let pool = FakePool::new().layer(log.layer("w1")).layer(log.layer("w2"));
    let client = pool.serve_with(DeskServer::new(Clerk::echo().0), log.layer("own")).client();
    let client = client.layer(log.layer("c1")).layer(log.layer("c2"));
    DeskClient::from_client(client.clone()).ask("who?".to_owned()).await.unwrap();
    let inwards = ["c1 ask", "c2 ask", "w1 ask", "w2 ask", "own ask"];
    assert_eq!(log.take(), [&inwards[..], &["own ok", "w2 ok", "w1 ok", "c2 ok", "c1 ok"]].concat());
    DeskClient::from_client(client).tell("note".to_owned()).await.unwrap();
    assert_eq!(log.take().len(), 10);
}

#[tokio::test]
async fn layers_read_and_change_requests_and_answers() {
    struct User(&'static str);
    let clerk = Clerk::with(|question, ctx| async move {
        let user = ctx.extensions().get::<User>().map_or("nobody", |user| user.0);
        Ok(format!("{user} {} {question}", ctx.header("stage").is_some()))
    });
    let of_pool = layer::from_fn(|mut request: Request, next: Next| async move {
        assert!(request.context().is_some() && request.remaining().is_some() && request.message_id().is_some());
        request.extensions_mut().insert(User("ada"));
        let mut response = next.run(request).await?;
        response.set_header("seen-by", "pool");
        Ok(response)
    });
    let of_client = layer::from_fn(|mut request: Request, next: Next| async move {
        assert!(request.context().is_none() && request.attempt() == 1);
        request.extensions_mut().insert(User("of the client alone"));
        request.set_header("stage", "client");
        let swapped = request.body().iter().map(|byte| if *byte == b'a' { b'b' } else { *byte }).collect::<Vec<_>>();
        request.set_body(swapped);
        let response = next.run(request).await?;
        assert_eq!(response.header("seen-by").and_then(HeaderValue::as_str), Some("pool"));
        Ok(response)
    });
    let client = FakePool::new().layer(of_pool).serve(DeskServer::new(clerk)).client().layer(of_client);
    assert_eq!(DeskClient::from_client(client).ask("aha".to_owned()).await.unwrap(), "ada true bhb");
}

#[tokio::test]
async fn a_layer_that_answers_or_fails_says_whether_the_call_was_executed() {
    let (clerk, count) = Clerk::echo();
    let refuse = layer::from_fn(|request: Request, next: Next| async move {
        match request.method() {
            "ask" => Ok(Response::refuse("permission_denied", "ada may not")),
            "plain" => Err("broken".into()),
            "look" => {
                next.run(request).await?;
                Err("broken behind the handler".into())
            }
            _ => panic!("for a test"),
        }
    });
    let client = DeskClient::from_client(FakePool::new().layer(refuse).serve(DeskServer::new(clerk)).client());
    let error = client.ask(String::new()).await.unwrap_err();
    assert_eq!(parts(&error), ("permission_denied", false, false));
    assert_eq!(parts(&client.plain(String::new()).await.unwrap_err()), ("layer", false, false));
    assert_eq!(parts(&client.look(String::new()).await.unwrap_err()), ("layer", true, false));
    assert_eq!(parts(&client.keep(String::new()).await.unwrap_err()), ("internal", true, false));
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let stuck = client.layer(layer::from_fn(|_, _| std::future::pending()));
    let error = stuck.ask(String::new()).timeout(Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { stage: TimeoutStage::Layer, .. }), "{error:?}");
    assert!(!error.maybe_executed());
}

#[tokio::test(start_paused = true)]
async fn a_retry_layer_calls_again_until_the_service_has_room() {
    let log = Log::default();
    let noting = log.clone();
    let clerk = Clerk::with(move |question, ctx| {
        noting.note(format!("attempt {}", ctx.attempt()));
        async move { Ok(question) }
    });
    let pool = || FakePool::new().serve(DeskServer::new(clerk.clone()));
    let client = pool().layer(refusing(2, overloaded)).client().layer(RetryLayer::new(RetryPolicy::default()));
    assert_eq!(DeskClient::from_client(client.clone()).ask("x".to_owned()).await.unwrap(), "x");
    assert_eq!(log.take(), ["attempt 3"]);
    assert_eq!(client.stats().retried, 2);
    // By the client's own options.
    let options = ClientOptions::default().retry(RetryPolicy::default());
    let client = pool().layer(refusing(2, overloaded)).client_with(options);
    DeskClient::from_client(client).ask("x".to_owned()).await.unwrap();
    assert_eq!(log.take(), ["attempt 3"]);
}

struct Users;

struct User(String);

#[async_trait::async_trait]
impl Authenticator for Users {
    type Identity = User;

    async fn authenticate(&self, token: &str, request: &Request) -> Result<User, Denied> {
        match token.strip_prefix("of ") {
            Some("guest") if request.method() != "ask" => Err(Denied::permission_denied("guests only ask")),
            Some(name) => Ok(User(name.to_owned())),
            None => Err(Denied::unauthenticated("the token is unknown")),
        }
    }

    fn caller(&self, user: &User) -> Caller {
        Caller::new(&*user.0)
    }
}

#[tokio::test]
async fn tokens_are_sent_checked_and_hidden_from_the_handler() {
    let clerk = Clerk::with(|_, ctx| async move {
        assert!(ctx.header("authorization").is_none() && ctx.extensions().get::<Caller>().is_some());
        Ok(ctx.extensions().get::<User>().unwrap().0.clone())
    });
    let client = FakePool::new().layer(AuthLayer::new(Users)).serve(DeskServer::new(clerk)).client();
    let with = |token: &'static str| DeskClient::from_client(client.layer(TokenLayer::new(Token::new(token))));
    assert_eq!(with("of ada").ask(String::new()).await.unwrap(), "ada");
    assert_eq!(parts(&with("of guest").plain(String::new()).await.unwrap_err()), ("permission_denied", false, false));
    let error = with("?").ask(String::new()).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_executed()), ("unauthenticated", false));
    let error = DeskClient::from_client(client).ask(String::new()).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_executed()), ("unauthenticated", false));
}

#[tokio::test(start_paused = true)]
async fn a_circuit_opens_over_failures_and_closes_again() {
    let (clerk, count) = Clerk::echo();
    let breaker = CircuitBreaker::new();
    let pool = FakePool::new().layer(refusing(20, || Response::failed(OtherError::new("internal", "for a test"))));
    let client = DeskClient::from_client(pool.serve(DeskServer::new(clerk)).client().layer(breaker.clone()));
    for _ in 0..20 {
        assert_eq!(client.plain(String::new()).await.unwrap_err().code(), "internal");
    }
    assert_eq!(breaker.state("desk"), BreakerState::Open);
    assert_eq!(parts(&client.plain(String::new()).await.unwrap_err()), ("circuit_open", false, true));
    tokio::time::sleep(Duration::from_secs(5)).await;
    client.plain(String::new()).await.unwrap();
    assert_eq!((breaker.state("desk"), count.load(Ordering::SeqCst)), (BreakerState::Closed, 1));
}

#[cfg(feature = "tower")]
#[tokio::test(start_paused = true)]
async fn a_timeout_of_towers_further_in_is_a_timeout_for_a_circuit_breaker_too() {
    let breaker = CircuitBreaker::new();
    let late = Clerk::with(|_, _| std::future::pending());
    let client = DeskClient::fake(late)
        .layer(breaker.clone())
        .layer(tower::timeout::TimeoutLayer::new(Duration::from_millis(100)));
    for _ in 0..20 {
        assert_eq!(breaker.state("desk"), BreakerState::Closed);
        assert_eq!(parts(&client.plain(String::new()).await.unwrap_err()), ("timeout", true, true));
    }
    assert_eq!(breaker.state("desk"), BreakerState::Open);
    // The errors of a service leave it closed, whatever their codes.
    let breaker = CircuitBreaker::new();
    let refusing = Clerk::with(|_, _| async { Err(Refused::Busy { waiting: 1 }) });
    let client = DeskClient::fake(refusing).layer(breaker.clone());
    for _ in 0..30 {
        assert_eq!(client.ask(String::new()).await.unwrap_err().code(), "busy");
    }
    assert_eq!(breaker.state("desk"), BreakerState::Closed);
}

#[tokio::test]
async fn layers_of_tower_stand_on_either_side() {
    let clerk = Clerk::with(|question, _| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(question)
    });
    let limit = || tower::ServiceBuilder::new().layer(tower::load_shed::LoadShedLayer::new()).concurrency_limit(1);
    let of_pool = FakePool::new().layer(limit()).serve(DeskServer::new(clerk.clone())).client();
    let of_client = Client::fake(DeskServer::new(clerk)).layer(limit());
    for client in [of_pool, of_client] {
        let client = DeskClient::from_client(client);
        let (first, second) = tokio::join!(
            client.plain("first".to_owned()).into_future(),
            client.plain("second".to_owned()).into_future()
        );
        assert_eq!(first.unwrap(), "first");
        let error = second.unwrap_err();
        #[cfg(feature = "tower")]
        assert_eq!(parts(&error), ("overloaded", false, true));
        assert!(!error.maybe_executed());
        client.plain("third".to_owned()).await.unwrap();
        let buffered = client.layer(tower::buffer::BufferLayer::new(4));
        buffered.plain("buffered".to_owned()).await.unwrap();
    }
}
