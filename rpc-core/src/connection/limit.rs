//! Waits that end.

use std::time::Duration;

use tokio::time::timeout;

use crate::error::Error;

/// Waits for an operation, at most for `limit`; then it is dropped.
///
/// # Errors
/// The operation's own; [`Error::TimedOut`] with its name.
pub(crate) async fn within<T>(
    limit: Duration,
    operation: &str,
    outcome: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match timeout(limit, outcome).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::TimedOut { operation: operation.to_owned(), limit }),
    }
}

/// For the broker's answer to one method; after it the operation fails, and is tried again on another channel. RabbitMQ answers in
/// milliseconds, and in seconds while a cluster finds out that a node is gone.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(10);
