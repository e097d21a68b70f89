//! Second requests while the first one is late.

use super::*;

/// A layer that has seen a hundred answers of 1 to 100 ms, and a service that is as quick.
async fn trained() -> (RetryLayer, Fake) {
    let layer = layer(RetryPolicy::default().hedge(true));
    let fake = Fake::new([at_once(ok())]);
    for sample in 1..=100 {
        fake.then([after(ms(sample), ok())]);
        assert!(call(&layer, &fake, &TO_COUNT).await.is_ok());
    }
    assert_eq!((fake.take_count(), fake.dropped()), (100, 0), "none is sent twice before there are a hundred");
    (layer, fake)
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_overtaken_by_that_to_a_second_request_which_cancels_the_first() {
    let (layer, fake) = trained().await;
    fake.then([never(), after(ms(5), ok())]);
    let begun_at = Instant::now();
    assert!(call(&layer, &fake, &TO_COUNT).await.is_ok());
    let took = begun_at.elapsed();
    // 95 ms are the 95th percentile.
    assert!(took >= ms(100) && took <= ms(103), "{took:?}");
    assert_eq!((fake.take_count(), fake.dropped()), (2, 1));
    // The first one may be the quicker one, too.
    fake.then([after(ms(97), ok()), never()]);
    assert!(call(&layer, &fake, &TO_COUNT).await.is_ok());
    assert_eq!((fake.take_count(), fake.dropped()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_method_that_is_not_marked_is_not_sent_a_second_time() {
    let (layer, fake) = trained().await;
    for sample in 1..=100 {
        fake.then([after(ms(sample), ok())]);
        assert!(call(&layer, &fake, &TO_LIST).await.is_ok());
    }
    fake.take_count();
    fake.then([after(ms(500), ok()), at_once(ok())]);
    assert!(call(&layer, &fake, &TO_LIST).await.is_ok());
    assert_eq!(fake.take_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_policy_without_retries_may_hedge() {
    let (hedging, fake) = trained().await;
    fake.then([never(), at_once(ok())]);
    let mut request = TO_COUNT.request();
    request.extensions_mut().insert(OfCall(Arc::new(RetryPolicy::none().hedge(true))));
    assert!(pass(&hedging, &fake, request).await.is_ok());
    assert_eq!((fake.take_count(), fake.dropped()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failure_does_not_overtake_the_other_request() {
    let (layer, fake) = trained().await;
    for failure in [overloaded(), failed(CallError::internal("stock", "count", "a panic"))] {
        fake.then([after(ms(300), ok()), at_once(failure)]);
        assert!(call(&layer, &fake, &TO_COUNT).await.is_ok());
        assert_eq!(fake.take_count(), 2);
    }
    // When both fail, one that may have been executed says so.
    fake.then([after(ms(300), failed(CallError::internal("stock", "count", "a panic"))), after(ms(300), overloaded())]);
    let response = call(&layer, &fake, &TO_COUNT).await;
    assert_eq!((response.code(), fake.take_count()), ("internal", 2));
    // A final error of the service is an answer.
    fake.then([never(), at_once(own_error(ErrorDetails::new("too_few", "")))]);
    assert_eq!(call(&layer, &fake, &TO_COUNT).await.code(), "too_few");
    assert_eq!(fake.dropped(), 1);
}

#[tokio::test(start_paused = true)]
async fn other_methods_other_policies_and_calls_within_retries_are_not_sent_twice() {
    let (layer, fake) = trained().await;
    fake.then([after(ms(3_000), ok())]);
    let within = Asked { is_within_retry: true, ..TO_COUNT };
    for asked in [&TO_TAKE, &within] {
        assert!(call(&layer, &fake, asked).await.is_ok());
    }
    let mut request = TO_COUNT.request();
    request.extensions_mut().insert(OfCall(Arc::new(RetryPolicy::default())));
    assert!(pass(&layer, &fake, request).await.is_ok());
    assert_eq!((fake.take_count(), fake.dropped()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn at_most_one_call_in_twenty_is_sent_twice_and_each_draws_on_the_budget() {
    let (layer, fake) = trained().await;
    // Five have been saved during the first hundred.
    fake.then([after(ms(3_000), ok())]);
    for _ in 0..40 {
        assert!(call(&layer, &fake, &Asked { within: None, ..TO_COUNT }).await.is_ok());
    }
    let further = fake.take_count() - 40;
    assert_eq!(further, 5 + 2, "then they take as long as most");
    let (layer, fake) = trained().await;
    let spent = layer.budget(RetryBudget::percent(0).min_per_s(0));
    for sample in 1..=100 {
        fake.then([after(ms(sample), ok())]);
        call(&spent, &fake, &TO_COUNT).await;
    }
    fake.take_count();
    fake.then([after(ms(3_000), ok())]);
    assert!(call(&spent, &fake, &TO_COUNT).await.is_ok());
    assert_eq!(fake.take_count(), 1);
}
