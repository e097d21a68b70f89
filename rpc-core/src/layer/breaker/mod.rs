//! [`CircuitBreaker`]: keeps calls from a service that does not answer, until it does again.

mod circuit;

use std::{
    fmt,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

pub use self::circuit::BreakerState;
use self::circuit::{Circuit, Rules, Verdict};
use super::{
    request::Request,
    response::{BoxError, BoxFuture, Response},
};
use crate::{call_error::OtherError, lock::lock};

/// A layer of a client that stops calling a service whose calls fail, and tries again after a pause.
///
/// While it is closed, it counts. When, of at least 20 calls in the last 10 s, half have failed, it opens: calls end at once with the
/// code `circuit_open`. They were not executed, are retryable, and carry the time until the next try as `retry_after`. After 5 s it is
/// half open: one call is let through, and its end closes or opens the circuit.
///
/// A call has failed when its code is `timeout`, `disconnected`, `internal` or `overloaded`. A result and a service's own error
/// are successes. Other errors (a bad request, a refused token, a service that is not there) say nothing about the service's
/// state and count as neither, and so does a call that its caller drops. In front of a [retry](crate::guide::layers) the breaker counts calls,
/// behind it attempts.
///
/// Each service has a circuit of its own; clones of the layer share them.
///
/// ```
/// use std::time::Duration;
///
/// use rpc_core::layer::CircuitBreaker;
///
/// # fn example(client: &rpc_core::Client) -> rpc_core::Client {
/// client.layer(CircuitBreaker::new().minimum_calls(50).failure_rate(0.25).open_for(Duration::from_secs(2)))
/// # }
/// ```
#[derive(Clone)]
pub struct CircuitBreaker {
    rules: Rules,
    /// By the name of the service: a client calls few.
    circuits: Arc<Mutex<Vec<(&'static str, Circuit)>>>,
}

impl CircuitBreaker {
    /// A closed one, with the defaults.
    pub fn new() -> Self {
        Self { rules: Rules::DEFAULT, circuits: Arc::default() }
    }

    /// How many calls have to be counted before it may open. The default is 20; 0 counts as 1.
    #[must_use]
    pub const fn minimum_calls(mut self, calls: u32) -> Self {
        self.rules.minimum_calls = if calls == 0 { 1 } else { calls };
        self
    }

    /// The share of failed calls that opens it, above 0 and at most 1. The default is 0.5. Values outside are cut to that range.
    #[must_use]
    pub const fn failure_rate(mut self, rate: f64) -> Self {
        self.rules.failure_rate = if rate > 1.0 {
            1.0
        } else if rate > 0.0 {
            rate
        } else {
            f64::MIN_POSITIVE
        };
        self
    }

    /// Over how long it counts. The default is 10 s; less than 10 ms counts as 10 ms.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.rules.window = window.max(Duration::from_millis(10));
        self
    }

    /// How long it stays open before a call is tried. The default is 5 s.
    #[must_use]
    pub const fn open_for(mut self, pause: Duration) -> Self {
        self.rules.open_for = pause;
        self
    }

    /// The state of the circuit of a service; closed when it was never called.
    pub fn state(&self, service: &str) -> BreakerState {
        let circuits = lock(&self.circuits);
        let circuit = circuits.iter().find(|(name, _)| *name == service);
        circuit.map_or(BreakerState::Closed, |(_, circuit)| circuit.state(Instant::now()))
    }

    fn with<T>(&self, service: &'static str, act: impl FnOnce(&mut Circuit, &Rules) -> T) -> T {
        let mut circuits = lock(&self.circuits);
        let at = circuits.iter().position(|(name, _)| *name == service).unwrap_or_else(|| {
            circuits.push((service, Circuit::new(Instant::now())));
            circuits.len() - 1
        });
        act(&mut circuits[at].1, &self.rules)
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = Instant::now();
        let states: Vec<_> = lock(&self.circuits).iter().map(|(name, circuit)| (*name, circuit.state(now))).collect();
        f.debug_struct("CircuitBreaker").field("rules", &self.rules).field("circuits", &states).finish()
    }
}

impl<S> Layer<S> for CircuitBreaker {
    type Service = CircuitBreakerService<S>;

    fn layer(&self, inner: S) -> CircuitBreakerService<S> {
        CircuitBreakerService { inner, breaker: self.clone() }
    }
}

/// The service of [`CircuitBreaker`].
#[derive(Debug, Clone)]
pub struct CircuitBreakerService<S> {
    inner: S,
    breaker: CircuitBreaker,
}

impl<S> Service<Request> for CircuitBreakerService<S>
where
    S: Service<Request, Response = Response, Error: Into<BoxError>, Future: Send + 'static>,
{
    type Response = Response;
    type Error = BoxError;
    type Future = BoxFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> BoxFuture {
        let service = request.service();
        let admitted = self.breaker.with(service, |circuit, rules| circuit.admit(rules, Instant::now()));
        let is_trial = match admitted {
            Ok(is_trial) => is_trial,
            Err(pause) => {
                let message = format!("calls of '{service}' have failed: the next one is tried in {pause:?}");
                let refusal = OtherError::new(CODE, message).maybe_executed(false).retryable(true).retry_after(pause);
                return Box::pin(std::future::ready(Ok(Response::failed(refusal))));
            }
        };
        let mut counted =
            Counted { breaker: self.breaker.clone(), service, deadline: request.deadline(), is_trial, is_over: false };
        let answering = self.inner.call(request);
        Box::pin(async move {
            let answered = answering.await.map_err(Into::into);
            counted.end(Verdict::of(&answered));
            answered
        })
    }
}

/// A call that the breaker has let through.
struct Counted {
    breaker: CircuitBreaker,
    service: &'static str,
    deadline: Option<Instant>,
    /// The one by which a half-open circuit decides.
    is_trial: bool,
    is_over: bool,
}

impl Counted {
    fn end(&mut self, verdict: Verdict) {
        self.is_over = true;
        let (now, is_trial) = (Instant::now(), self.is_trial);
        let opened = self.breaker.with(self.service, |circuit, rules| circuit.note(rules, verdict, is_trial, now));
        if opened {
            tracing::warn!(service = self.service, "calls fail: the circuit is open");
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // Dropped at its deadline, as behind a `Buffer`, it is a timeout; dropped before, it says nothing.
        let is_late = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        self.end(if is_late { Verdict::Failure } else { Verdict::Neither });
    }
}

/// The code of a call that was not let through.
const CODE: &str = "circuit_open";
