//! When another attempt begins, and how long one may take.

use super::*;

#[tokio::test(start_paused = true)]
async fn pauses_are_spread_below_a_bound_that_doubles_to_its_maximum() {
    let policy = RetryPolicy::default().attempts(6).backoff(ms(100), ms(400));
    let layer = layer(policy);
    let mut longest = [Duration::ZERO; 5];
    let mut shortest = [Duration::MAX; 5];
    for _ in 0..200 {
        let fake = Fake::new([at_once(overloaded())]);
        call(&layer, &fake, &TO_COUNT).await;
        for (at, pause) in fake.pauses().into_iter().enumerate() {
            longest[at] = longest[at].max(pause);
            shortest[at] = shortest[at].min(pause);
        }
    }
    // The clock counts whole milliseconds. Of 200 random ones, one is in the upper and one in the lower fifth, but for one time in 10^19.
    for ((longest, shortest), bound) in longest.into_iter().zip(shortest).zip([100, 200, 400, 400, 400].map(ms)) {
        assert!(longest <= bound + ms(1) && longest > bound * 4 / 5, "{longest:?} below {bound:?}");
        assert!(shortest < bound / 5, "{shortest:?} below {bound:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_the_deadline_and_nothing_is_waited_for_until_then() {
    let policy = RetryPolicy::default().attempts(1_000).backoff(ms(100), ms(100));
    let layer = layer(policy);
    for _ in 0..20 {
        let fake = Fake::new([at_once(overloaded())]);
        let begun_at = Instant::now();
        let response = call(&layer, &fake, &Asked { within: Some(ms(1_000)), ..TO_COUNT }).await;
        assert_eq!(response.code(), "overloaded");
        assert!(begun_at.elapsed() < ms(1_000), "{:?}", begun_at.elapsed());
        assert!(fake.take_count() > 5);
    }
    // Without a deadline the number of attempts is the end.
    let fake = Fake::new([at_once(overloaded())]);
    let sixty = super::layer(RetryPolicy::default().attempts(60));
    call(&sixty, &fake, &Asked { within: None, ..TO_COUNT }).await;
    assert_eq!(fake.take_count(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_the_service_asks_for_is_kept_and_not_begun_when_it_ends_too_late() {
    let layer = layer(RetryPolicy::default());
    let asks_for = |wait| own_error(ErrorDetails::new("busy", "").retry_after(wait));
    let fake = Fake::new([at_once(asks_for(ms(2_000))), at_once(ok())]);
    assert!(call(&layer, &fake, &TO_COUNT).await.is_ok());
    let pause = fake.pauses()[0];
    assert!(pause >= ms(2_000) && pause <= ms(2_051), "{pause:?}");
    // The spread is left out where the deadline leaves no room for it.
    let fake = Fake::new([at_once(asks_for(ms(998))), at_once(ok())]);
    let within = |within| Asked { within: Some(within), ..TO_COUNT };
    assert!(call(&layer, &fake, &within(ms(1_000))).await.is_ok());
    for wait in [ms(1_000), Duration::from_secs(3_600), Duration::MAX] {
        let fake = Fake::new([at_once(asks_for(wait)), at_once(ok())]);
        let begun_at = Instant::now();
        let response = call(&layer, &fake, &within(ms(1_000))).await;
        assert_eq!((response.code(), fake.take_count()), ("busy", 1));
        assert_eq!(begun_at.elapsed(), ms(0), "final at once");
    }
    // Of a layer as well.
    let limited = OtherError::new("rate_limited", "").retry_after(ms(500)).maybe_executed(false);
    let fake = Fake::new([at_once(Outcome::Other(Box::new(limited))), at_once(ok())]);
    assert!(call(&layer, &fake, &TO_TAKE).await.is_ok());
    assert!(fake.pauses()[0] >= ms(500));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_cancelled_and_replaced() {
    let policy = RetryPolicy::default().attempt_timeout(ms(100));
    let fake = Fake::new([never(), at_once(ok())]);
    assert!(call(&layer(policy.clone()), &fake, &TO_COUNT).await.is_ok());
    assert_eq!((fake.pauses().len(), fake.dropped()), (1, 1));
    assert!(fake.pauses()[0] >= ms(100) && fake.pauses()[0] <= ms(152), "{:?}", fake.pauses());
    // The last one has the rest of the time.
    let fake = Fake::new([after(ms(3_000), ok())]);
    assert!(call(&layer(policy.clone()), &fake, &TO_COUNT).await.is_ok());
    assert_eq!((fake.take_count(), fake.dropped()), (3, 2));
    // One that must not be repeated is not cut off.
    let fake = Fake::new([after(ms(3_000), ok())]);
    assert!(call(&layer(policy.clone()), &fake, &TO_TAKE).await.is_ok());
    assert_eq!((fake.take_count(), fake.dropped()), (1, 0));
    // Nor is one when no other could follow: without a budget, or near the deadline.
    let fake = Fake::new([after(ms(3_000), ok())]);
    let spent = RetryLayer::new(policy.clone()).budget(RetryBudget::percent(0).min_per_s(0));
    assert!(call(&spent, &fake, &TO_COUNT).await.is_ok());
    assert_eq!((fake.take_count(), fake.dropped()), (1, 0));
    let fake = Fake::new([after(ms(103), ok())]);
    let near = Asked { within: Some(ms(100)), ..TO_COUNT };
    assert!(call(&layer(policy), &fake, &near).await.is_ok());
    assert_eq!((fake.take_count(), fake.dropped()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_for_attempts_one_may_take_all_of_the_time() {
    let fake = Fake::new([after(ms(9_000), ok())]);
    assert!(call(&layer(RetryPolicy::default()), &fake, &TO_COUNT).await.is_ok());
    assert_eq!((fake.take_count(), fake.dropped()), (1, 0));
}
