//! Retries do not multiply over tiers: a handler's calls are sent once when its own request is a retry.

use super::*;

on_both_brokers!(
    a_handlers_calls_are_not_repeated_within_a_retry_unless_asked_for,
    the_tiers_further_in_know_of_it_too,
);

/// Cases run at the same time on one RabbitMQ, so each has services of its own.
mod two {
    pub(super) mod front {
        crate::retries::stock!("retries-two-tiers-front");
    }
    pub(super) mod back {
        crate::retries::stock!("retries-two-tiers-back");
    }
}
mod three {
    pub(super) mod front {
        crate::retries::stock!("retries-three-tiers-front");
    }
    pub(super) mod middle {
        crate::retries::stock!("retries-three-tiers-middle");
    }
    pub(super) mod back {
        crate::retries::stock!("retries-three-tiers-back");
    }
}

/// Enough for whatever a test repeats.
fn unlimited(policy: RetryPolicy) -> ClientOptions {
    retrying(policy).retry_budget(RetryBudget::percent(0).min_per_s(1_000))
}

/// Asks a service, and is busy when that is.
macro_rules! asks {
    ($client:expr) => {{
        let client = $client;
        Shelf::with(move |_| {
            let call = client.count();
            async move { call.await.map_err(|_| StockError::Busy) }
        })
    }};
}

async fn a_handlers_calls_are_not_repeated_within_a_retry_unless_asked_for(stage: &Stage) {
    use two::{back, front};
    let connection = stage.connect().await;
    let (shelf, count) = Shelf::script([Err(StockError::Busy)]);
    let _back = stage.pool(back::StockServer::new(shelf)).await.start().await.unwrap();
    let outer = front::StockClient::with_options(&connection, unlimited(RetryPolicy::default()));
    // The first attempt of the front asks three times, the others once each.
    for (within_retries, requests) in [(false, 3 + 1 + 1), (true, 3 + 3 + 3)] {
        let options = unlimited(RetryPolicy::default().within_retries(within_retries));
        let asks = asks!(back::StockClient::with_options(&connection, options));
        let pool = stage.pool(front::StockServer::new(asks)).await.start().await.unwrap();
        assert_eq!(outer.count().await.unwrap_err().code(), "busy");
        assert_eq!(count.swap(0, Ordering::SeqCst), requests);
        pool.shutdown(SOON).await.unwrap();
    }
}

async fn the_tiers_further_in_know_of_it_too(stage: &Stage) {
    use three::{back, front, middle};
    let connection = stage.connect().await;
    let (shelf, count) = Shelf::script([Err(StockError::Busy)]);
    let _back = stage.pool(back::StockServer::new(shelf)).await.start().await.unwrap();
    let inner = back::StockClient::with_options(&connection, unlimited(RetryPolicy::default()));
    let _middle = stage.pool(middle::StockServer::new(asks!(inner))).await.start().await.unwrap();
    // It has no policy, and passes on that its request is a retry.
    let between = middle::StockClient::new(&connection);
    let _front = stage.pool(front::StockServer::new(asks!(between))).await.start().await.unwrap();
    let outer = front::StockClient::with_options(&connection, unlimited(RetryPolicy::default()));
    assert_eq!(outer.count().await.unwrap_err().code(), "busy");
    assert_eq!(count.load(Ordering::SeqCst), 3 + 1 + 1);
}
