//! Layers around calls: tower's `Layer` and `Service`, on both sides.
//!
//! A layer wraps the service further in, and sees every call: it can read and change it, answer it, time it, send it again. The
//! guide's chapter on [layers](crate::guide::layers) has the rules and examples.
//!
//! ```text
//!  Call ─► outermost layer ─► … ─► innermost layer ─► core: sends, and sends again ─► broker
//!  broker ─► pool: expiry, cancel, slot ─► outermost layer ─► … ─► innermost layer ─► dedupe ─► handler
//! ```

mod auth;
mod breaker;
mod caller;
mod ended;
mod extensions;
mod foreign;
mod from_fn;
pub(crate) mod headers;
#[cfg(feature = "metrics")]
mod metrics;
pub(crate) mod names;
mod naming;
mod received;
mod request;
mod response;
mod retry;
mod stack;
mod trace;

#[cfg(feature = "metrics")]
pub use self::metrics::{MetricsLayer, MetricsService};
pub use self::{
    auth::{AuthLayer, AuthService, Authenticator, Denied, Token, TokenLayer, TokenService, TokenSource},
    breaker::{BreakerState, CircuitBreaker, CircuitBreakerService},
    caller::Caller,
    extensions::Extensions,
    from_fn::{FromFn, FromFnService, from_fn},
    request::Request,
    response::{BoxError, BoxFuture, Response},
    retry::{RetryBudget, RetryLayer, RetryPolicy, RetryService},
    stack::{Next, RpcLayer, RpcService},
    trace::{TraceLayer, TraceService},
};
pub(crate) use self::{
    foreign::Foreign,
    headers::Headers,
    received::{Body, LazyHeaders},
    request::{AttemptId, Core, LogicalCall, Progress, Served},
    response::Outcome,
    retry::{Latencies, OfCall},
    stack::Layers,
};
