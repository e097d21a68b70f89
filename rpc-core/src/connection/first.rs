//! The first link of a connection: to the first node that answers, perhaps after a wait for it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    options::ConnectionOptions,
    supervisor::{Opened, open_link},
    uri::Endpoint,
};
use crate::error::Error;

/// Opens a link to the first node that answers, and says which one that is.
///
/// # Errors
/// That of the last node; one that trying again would not cure, if there is any.
pub(super) async fn open_first(endpoints: &[Endpoint], options: &ConnectionOptions) -> Result<(Opened, usize), Error> {
    let now = Instant::now();
    let deadline = now.checked_add(options.wait_for_broker).unwrap_or(now + FOR_EVER);
    let mut backoff = options.backoff();
    // Each node is tried once, for as long as an attempt may take, also without a limit.
    let mut failed = match open_any(endpoints, options).await {
        Ok(opened) => return Ok(opened),
        Err(error) => error,
    };
    loop {
        let next = Instant::now() + backoff.pause();
        if !is_awaited(&failed, options) || next >= deadline {
            return Err(failed);
        }
        tracing::debug!(error = %failed, "no broker yet");
        sleep_until(next).await;
        match timeout_at(deadline, open_any(endpoints, options)).await {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(error)) => failed = error,
            Err(_) => return Err(failed),
        }
    }
}

async fn open_any(endpoints: &[Endpoint], options: &ConnectionOptions) -> Result<(Opened, usize), Error> {
    let mut failed: Option<Error> = None;
    for (at, endpoint) in endpoints.iter().enumerate() {
        match open_link(endpoint, options).await {
            Ok(opened) => return Ok((opened, at)),
            Err(error) if failed.as_ref().is_none_or(|failed| is_awaited(failed, options)) => failed = Some(error),
            Err(_) => {}
        }
    }
    Err(failed.unwrap_or_else(|| Error::Configuration("no URI to connect to".to_owned())))
}

/// Whether another attempt may succeed: the node, the provider of credentials, or if the options say so the user's access may be there later.
const fn is_awaited(error: &Error, options: &ConnectionOptions) -> bool {
    match error {
        Error::Unreachable { .. } | Error::TimedOut { .. } | Error::Disconnected { .. } | Error::Credentials { .. } => {
            true
        }
        Error::AuthenticationRefused { .. } | Error::VhostRefused { .. } | Error::ConnectionLimit { .. } => {
            options.wait_for_access
        }
        _ => false,
    }
}

/// A year.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
