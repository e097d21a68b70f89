//! One call as it is measured.

use std::sync::Arc;

use metrics::Gauge;
use tokio::time::Instant;

use super::{
    super::{
        ended::{OK, code_of, code_of_dropped},
        request::LogicalCall,
        response::{BoxError, Response},
    },
    keys::MethodKeys,
};

/// Measures a call until it is answered, or dropped.
pub(super) struct Metering {
    keys: Arc<MethodKeys>,
    call: Arc<LogicalCall>,
    began_at: Instant,
    active: Gauge,
    has_ended: bool,
}

impl Metering {
    pub(super) fn begin(keys: Arc<MethodKeys>, call: Arc<LogicalCall>) -> Self {
        let began_at = Instant::now();
        let waited = call.served.as_ref().and_then(|served| served.context.waited(began_at));
        let active = keys.begin(began_at, waited);
        Self { keys, call, began_at, active, has_ended: false }
    }

    /// Notes the answer.
    pub(super) fn end(&mut self, answered: &Result<Response, BoxError>) {
        match code_of(answered) {
            OK => self.note(None),
            code => self.note(Some(code)),
        }
    }

    fn note(&mut self, code: Option<&str>) {
        self.has_ended = true;
        self.active.decrement(1.0);
        let now = Instant::now();
        self.keys.end(now, now.saturating_duration_since(self.began_at), code, &self.call);
    }
}

impl Drop for Metering {
    fn drop(&mut self) {
        if !self.has_ended {
            self.note(Some(code_of_dropped(&self.call)));
        }
    }
}
