//! Which ends of an attempt are followed by another one.

use super::*;

#[tokio::test(start_paused = true)]
async fn errors_that_pass_are_repeated_unless_that_may_do_harm() {
    let timeout = || failed(CallError::timeout("stock", "count", TimeoutStage::Running, ms(100)));
    let limited = OtherError::new("rate_limited", "").retryable(true);
    let not_executed = |error: OtherError| Outcome::Other(Box::new(error.maybe_executed(false)));
    // The end, then how many attempts an idempotent method has, and another one.
    let ends = [
        (ok(), 1, 1),
        (overloaded(), 3, 3),
        (failed(CallError::no_such_service("stock", "count", "no queue")), 3, 3),
        (own_error(ErrorDetails::new("busy", "").retryable(true)), 3, 1),
        (own_error(ErrorDetails::new("too_few", "")), 1, 1),
        (Outcome::Service(None, Body::written(Vec::new()), None), 1, 1),
        (not_executed(limited.clone()), 3, 3),
        (Outcome::Other(Box::new(limited)), 3, 1),
        (not_executed(OtherError::new("unauthenticated", "")), 1, 1),
        (timeout(), 1, 1),
        (failed(CallError::disconnected("stock", "count", true)), 1, 1),
        (failed(CallError::internal("stock", "count", "a panic")), 1, 1),
        (failed(CallError::bad_request("stock", "count", "")), 1, 1),
        (failed(CallError::shutdown("stock", "count", false)), 1, 1),
    ];
    let layer = layer(RetryPolicy::default());
    for (end, idempotent, other) in ends {
        let fake = Fake::new([at_once(end.clone())]);
        let code = Response::from(end).code().to_owned();
        assert_eq!(call(&layer, &fake, &TO_COUNT).await.code(), code);
        assert_eq!(fake.take_count(), idempotent, "{code}");
        assert_eq!(call(&layer, &fake, &TO_TAKE).await.code(), code);
        assert_eq!(fake.take_count(), other, "{code}");
    }
    // With a limit for an attempt, one of its timeouts is repeated as well.
    let limited = super::layer(RetryPolicy::default().attempt_timeout(ms(500)));
    let fake = Fake::new([at_once(timeout())]);
    call(&limited, &fake, &TO_COUNT).await;
    assert_eq!(fake.take_count(), 3);
    call(&limited, &fake, &TO_TAKE).await;
    assert_eq!(fake.take_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_ends_the_call() {
    let fake = Fake::new([at_once(overloaded()), at_once(overloaded()), at_once(ok())]);
    let response = call(&layer(RetryPolicy::default()), &fake, &TO_TAKE).await;
    assert!(response.is_ok());
    assert_eq!(fake.take_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_an_attempt_that_may_have_been_executed_outweighs_a_later_one() {
    let busy = own_error(ErrorDetails::new("busy", "").retryable(true));
    let fake = Fake::new([at_once(busy), at_once(overloaded())]);
    let response = call(&layer(RetryPolicy::default()), &fake, &TO_COUNT).await;
    assert_eq!((response.code(), response.maybe_executed(), fake.take_count()), ("busy", true, 3));
    let policy = RetryPolicy::default().attempt_timeout(ms(100));
    let fake = Fake::new([never(), at_once(overloaded())]);
    let response = call(&layer(policy), &fake, &TO_COUNT).await;
    assert_eq!((response.code(), response.maybe_executed(), fake.take_count()), ("timeout", true, 3));
}

/// Collects the values of the field `attempt` that spans learn.
#[cfg(feature = "cli")]
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<u64>>>);

#[cfg(feature = "cli")]
impl tracing::field::Visit for Recorded {
    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn fmt::Debug) {}

    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        assert_eq!(field.name(), "attempt");
        lock(&self.0).push(value);
    }
}

#[cfg(feature = "cli")]
impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Recorded {
    fn on_record(
        &self,
        _: &tracing::span::Id,
        values: &tracing::span::Record<'_>,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) {
        values.record(&mut self.clone());
    }
}

#[cfg(feature = "cli")]
#[tokio::test(start_paused = true)]
async fn a_span_that_has_the_field_learns_the_number_of_each_further_attempt() {
    use tracing::Instrument;
    use tracing_subscriber::layer::SubscriberExt;

    let recorded = Recorded::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(recorded.clone()));
    let fake = Fake::new([at_once(overloaded())]);
    let span = tracing::info_span!("call", attempt = tracing::field::Empty);
    call(&layer(RetryPolicy::default()), &fake, &TO_COUNT).instrument(span).await;
    assert_eq!(*lock(&recorded.0), [2, 3]);
    call(&layer(RetryPolicy::default()), &fake, &TO_COUNT).instrument(tracing::info_span!("other")).await;
    assert_eq!(lock(&recorded.0).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn errors_of_foreign_layers_are_final_unless_they_say_that_nothing_was_executed() {
    #[derive(Clone)]
    struct Failing(fn() -> BoxError, Arc<AtomicUsize>);
    impl Service<Request> for Failing {
        type Response = Response;
        type Error = BoxError;
        type Future = BoxFuture;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request) -> BoxFuture {
            self.1.fetch_add(1, Ordering::SeqCst);
            Box::pin(std::future::ready(Err(self.0())))
        }
    }
    let attempts = async |error: fn() -> BoxError| {
        let count = Arc::default();
        let mut service = layer(RetryPolicy::default()).layer(Failing(error, Arc::clone(&count)));
        service.call(TO_COUNT.request()).await.unwrap_err();
        count.load(Ordering::SeqCst)
    };
    assert_eq!(attempts(|| "the cache is down".into()).await, 1);
    assert_eq!(attempts(|| CallError::<std::convert::Infallible>::overloaded("a", "b", "").into()).await, 3);
    #[cfg(feature = "tower")]
    assert_eq!(attempts(|| tower::load_shed::error::Overloaded::new().into()).await, 3);
    #[cfg(feature = "tower")]
    assert_eq!(attempts(|| tower::timeout::error::Elapsed::new().into()).await, 1);
}

#[tokio::test(start_paused = true)]
async fn the_budget_bounds_the_attempts_of_all_calls_together() {
    let layer = RetryLayer::new(RetryPolicy::default());
    let other = layer.clone();
    let fake = Fake::new([at_once(overloaded())]);
    let calls: Vec<_> = (0..1_000)
        .map(|call_number| {
            let (layer, fake) = (if call_number % 2 == 0 { layer.clone() } else { other.clone() }, fake.clone());
            tokio::spawn(async move { call(&layer, &fake, &TO_COUNT).await.code().to_owned() })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), "overloaded");
    }
    let further = fake.take_count() - 1_000;
    // Those of ten seconds, a tenth of the calls, and those of the time that has passed meanwhile.
    assert!((100..=113).contains(&further), "{further}");
}

#[tokio::test(start_paused = true)]
async fn a_call_within_a_retry_is_sent_once_unless_its_policy_says_otherwise() {
    let within = Asked { is_within_retry: true, ..TO_COUNT };
    let fake = Fake::new([at_once(overloaded())]);
    call(&layer(RetryPolicy::default()), &fake, &within).await;
    assert_eq!(fake.take_count(), 1);
    call(&layer(RetryPolicy::default().within_retries(true)), &fake, &within).await;
    assert_eq!(fake.take_count(), 3);
    // Nor is it cut off.
    let slow = Fake::new([after(ms(5_000), ok())]);
    assert!(call(&layer(RetryPolicy::default().attempt_timeout(ms(100))), &slow, &within).await.is_ok());
    assert_eq!((slow.take_count(), slow.dropped()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_has_its_own_policy_before_its_methods_and_that_before_the_layers() {
    let layer = layer(RetryPolicy::default().attempts(2)).method("stock.take", RetryPolicy::default().attempts(4));
    let fake = Fake::new([at_once(overloaded())]);
    let mut counts = Vec::new();
    for asked in [TO_COUNT, TO_TAKE] {
        for of_call in [None, Some(RetryPolicy::default().attempts(6)), Some(RetryPolicy::none())] {
            let mut request = asked.request();
            if let Some(policy) = of_call {
                request.extensions_mut().insert(OfCall(Arc::new(policy)));
            }
            pass(&layer, &fake, request).await;
            counts.push(fake.take_count());
        }
    }
    assert_eq!(counts, [2, 6, 1, 4, 6, 1]);
    // Without a policy a layer passes calls on.
    call(&RetryLayer::default().method("stock.taken", RetryPolicy::default()), &fake, &TO_TAKE).await;
    assert_eq!(fake.take_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_outermost_layer_with_a_policy_applies_it_alone() {
    let inner = layer(RetryPolicy::default().attempts(5));
    let fake = Fake::new([at_once(overloaded())]);
    for (outer, attempts) in [(layer(RetryPolicy::default()), 3), (layer(RetryPolicy::none()), 1)] {
        let mut both = outer.layer(inner.layer(fake.clone()));
        both.call(TO_COUNT.request()).await.unwrap();
        assert_eq!(fake.take_count(), attempts);
    }
    let mut both = RetryLayer::default().layer(inner.layer(fake.clone()));
    both.call(TO_COUNT.request()).await.unwrap();
    assert_eq!(fake.take_count(), 5);
}
