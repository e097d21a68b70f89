//! The end of a span: the code of the call, whatever ended it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::Span;

use super::{
    super::{
        ended::{LAYER, OK, code_of, code_of_dropped},
        names,
        naming::MethodName,
        request::LogicalCall,
        response::{BoxError, Response},
    },
    span::Side,
};
use crate::envelope::Code;

/// Notes how a call ended: with an answer, or dropped.
pub(super) struct Ending {
    span: Span,
    side: Side,
    call: Arc<LogicalCall>,
    began_at: Instant,
    /// In a pool, how long the request has waited for its handler, if it says how long its caller waits.
    queue_wait: Option<Duration>,
    is_logged: bool,
    has_ended: bool,
}

impl Ending {
    pub(super) fn new(span: Span, side: Side, call: Arc<LogicalCall>, is_logged: bool) -> Self {
        let began_at = Instant::now();
        let queue_wait = call.served.as_ref().filter(|_| is_logged).and_then(|served| served.context.waited(began_at));
        Self { span, side, call, began_at, queue_wait, is_logged, has_ended: false }
    }

    /// Notes the answer.
    pub(super) fn end(&mut self, answered: &Result<Response, BoxError>) {
        self.note(code_of(answered));
    }

    fn note(&mut self, code: &str) {
        self.has_ended = true;
        let Self { span, side, call, .. } = &*self;
        if side.has_reply() {
            span.record(names::STATUS_CODE, code);
        }
        let attempts = call.progress.sent();
        if attempts > 1 && !side.is_in_pool() {
            span.record(names::ATTEMPTS, attempts);
        }
        if code != OK {
            span.record(names::ERROR_TYPE, code);
            if !side.is_in_pool() || is_failure_of_server(code) {
                span.record(names::SPAN_STATUS, names::SPAN_ERROR);
            }
        }
        if self.is_logged {
            self.log(code);
        }
    }

    fn log(&self, code: &str) {
        // Not by `parent:`, which would cut the event off the spans outside when this one is not wanted.
        self.span.in_scope(|| {
            tracing::info!(
                target: REQUESTS,
                kind = self.side.kind(),
                method = %MethodName(&self.call),
                code,
                duration_ms = milliseconds(self.began_at.elapsed()),
                queue_wait_ms = self.queue_wait.map(milliseconds),
                "request"
            );
        });
    }
}

/// Without an answer.
impl Drop for Ending {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        self.note(code_of_dropped(&self.call));
    }
}

/// Whether the worker, not its caller, has to do something about it. The status of a server's span is for those alone.
fn is_failure_of_server(code: &str) -> bool {
    let codes = [Code::Internal, Code::Timeout, Code::Overloaded, Code::PayloadTooLarge].map(Code::name);
    codes.contains(&code) || code == LAYER
}

/// With three decimals.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

/// The target of the events that log requests.
pub(super) const REQUESTS: &str = "rpc_core::requests";
