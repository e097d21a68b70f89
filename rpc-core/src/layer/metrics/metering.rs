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
use crate::meter::METADATA;

/// Measures a call until it is answered, or dropped.
///
/// Every look-up at the recorder is made anew: a recorder may drop a metric that was idle, and then a handle that is kept would lead
/// nowhere. The keys, which cost more, are kept.
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
        let active = metrics::with_recorder(|recorder| {
            if let Some(waited) = waited {
                recorder.register_histogram(&keys.queue_wait, &METADATA).record(waited);
            }
            recorder.register_gauge(&keys.active, &METADATA)
        });
        active.increment(1.0);
        Self { keys, call, began_at, active, has_ended: false }
    }

    /// Notes the answer.
    pub(super) fn end(&mut self, answered: &Result<Response, BoxError>) {
        match answered {
            // Its own code, if it has one, is the service's.
            Ok(response) if response.is_service_error() => self.note(Some("service")),
            answered => match code_of(answered) {
                OK => self.note(None),
                code => self.note(Some(code)),
            },
        }
    }

    fn note(&mut self, code: Option<&str>) {
        self.has_ended = true;
        let took = self.began_at.elapsed();
        self.active.decrement(1.0);
        let key = self.keys.duration(code, &self.call);
        metrics::with_recorder(|recorder| recorder.register_histogram(key, &METADATA).record(took));
    }
}

impl Drop for Metering {
    fn drop(&mut self) {
        if !self.has_ended {
            self.note(Some(code_of_dropped(&self.call)));
        }
    }
}
