//! Waiting: for a condition or a future, always with a deadline that says what did not happen.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `limit`; `what` says what was waited for.
pub async fn eventually(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !within(limit, what, condition()).await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        sleep(LOOK_AGAIN).await;
    }
}

/// The output of `future`.
///
/// # Panics
/// When it is not there within `limit`; `what` says what was waited for.
pub async fn within<F: Future>(limit: Duration, what: &str, future: F) -> F::Output {
    match timeout(limit, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {limit:?}: {what}"),
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(5);
