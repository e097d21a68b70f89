//! The keys of a method's metrics, labels included: made once, because they cost more than to look a metric up.

use std::{
    fmt,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use metrics::{Gauge, Histogram, Key, Label};
use tokio::time::Instant;

use super::super::{
    names,
    naming::{Destination, MethodName},
    request::LogicalCall,
};
use crate::{
    connection::Address,
    meter::{
        CLIENT_ACTIVE, CLIENT_DURATION, METADATA, Metric, PROCESS_DURATION, PUBLISH_DURATION, QUEUE_WAIT,
        SERVER_ACTIVE, SERVER_DURATION,
    },
    service::MethodDescriptor,
    stats::codes::{codes, place_of, places},
};

/// The methods that were called, and the brokers that they were called through: as many as the program knows.
#[derive(Debug, Default)]
pub(super) struct Known(RwLock<Vec<Arc<MethodKeys>>>);

impl Known {
    /// The keys of the call's method.
    pub(super) fn of(&self, call: &LogicalCall, server: Option<Arc<Address>>) -> Arc<MethodKeys> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = known.iter().find(|keys| keys.are_of(call, server.as_deref())) {
            return Arc::clone(keys);
        }
        drop(known);
        self.learn(call, server)
    }

    #[cold]
    fn learn(&self, call: &LogicalCall, server: Option<Arc<Address>>) -> Arc<MethodKeys> {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Another call of the method may have been faster.
        if let Some(keys) = known.iter().find(|keys| keys.are_of(call, server.as_deref())) {
            return Arc::clone(keys);
        }
        let keys = Arc::new(MethodKeys::new(call, server));
        known.push(Arc::clone(&keys));
        keys
    }
}

/// The keys of one method, on one side.
#[derive(Debug)]
pub(super) struct MethodKeys {
    method: &'static MethodDescriptor,
    is_in_pool: bool,
    server: Option<Arc<Address>>,
    active: Key,
    /// In a pool.
    queue_wait: Key,
    ok: Key,
    /// By the [place](place_of) of the code.
    errors: Box<[OnceLock<Key>]>,
    handles: RwLock<Option<Handles>>,
}

/// The recorder's metrics behind the keys that most calls need; each is looked up when it is used, because that makes it.
///
/// A look-up costs half a call, so they are kept, but for [`FRESH`] only: a recorder may drop metrics that are idle, or be installed late.
struct Handles {
    since: Instant,
    active: Gauge,
    queue_wait: OnceLock<Histogram>,
    ok: OnceLock<Histogram>,
}

impl MethodKeys {
    fn new(call: &LogicalCall, server: Option<Arc<Address>>) -> Self {
        let is_in_pool = call.served.is_some();
        let method = || vec![Label::new(names::METHOD, MethodName(call).to_string())];
        let active = if is_in_pool { SERVER_ACTIVE } else { CLIENT_ACTIVE };
        Self {
            method: call.method,
            is_in_pool,
            active: Key::from_parts(active.name, method()),
            queue_wait: Key::from_parts(QUEUE_WAIT.name, method()),
            ok: duration_key(call, server.as_deref(), None),
            errors: (0..places(call.method.error_codes)).map(|_| OnceLock::new()).collect(),
            handles: RwLock::new(None),
            server,
        }
    }

    fn are_of(&self, call: &LogicalCall, server: Option<&Address>) -> bool {
        std::ptr::eq(self.method, call.method)
            && self.is_in_pool == call.served.is_some()
            && self.server.as_deref() == server
    }

    /// Counts a call that begins; returns the gauge that it has raised.
    pub(super) fn begin(&self, now: Instant, queue_wait: Option<Duration>) -> Gauge {
        self.with_handles(now, |handles| {
            if let Some(waited) = queue_wait {
                handles.queue_wait.get_or_init(|| histogram(&self.queue_wait)).record(waited);
            }
            handles.active.increment(1.0);
            handles.active.clone()
        })
    }

    /// Records the time that a call took, until now, which ended with this code, `None` of one without an error.
    pub(super) fn end(&self, now: Instant, took: Duration, code: Option<&str>, call: &LogicalCall) {
        match code {
            None => self.with_handles(now, |handles| handles.ok.get_or_init(|| histogram(&self.ok)).record(took)),
            Some(_) => histogram(self.duration(code, call)).record(took),
        }
    }

    fn with_handles<T>(&self, now: Instant, work: impl FnOnce(&Handles) -> T) -> T {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(handles) = handles.as_ref().filter(|handles| now.saturating_duration_since(handles.since) < FRESH) {
            return work(handles);
        }
        drop(handles);
        let active = metrics::with_recorder(|recorder| recorder.register_gauge(&self.active, &METADATA));
        let fresh = Handles { since: now, active, queue_wait: OnceLock::new(), ok: OnceLock::new() };
        work(self.handles.write().unwrap_or_else(PoisonError::into_inner).insert(fresh))
    }

    /// The key of the time that a call took which ended with this code, `None` of one without an error.
    fn duration(&self, code: Option<&str>, call: &LogicalCall) -> &Key {
        let Some(code) = code else { return &self.ok };
        let own = self.method.error_codes;
        let at = place_of(code, own);
        self.errors[at].get_or_init(|| duration_key(call, self.server.as_deref(), codes(own).nth(at)))
    }
}

fn histogram(key: &Key) -> Histogram {
    metrics::with_recorder(|recorder| recorder.register_histogram(key, &METADATA))
}

fn duration_key(call: &LogicalCall, server: Option<&Address>, error: Option<&'static str>) -> Key {
    let is_in_pool = call.served.is_some();
    let mut labels = Vec::with_capacity(7);
    let mut add = |name, value| labels.push(Label::from_static_parts(name, value));
    let Metric { name, .. } = match (is_in_pool, call.method.oneway) {
        (false, false) => CLIENT_DURATION,
        (true, false) => SERVER_DURATION,
        (false, true) => PUBLISH_DURATION,
        (true, true) => PROCESS_DURATION,
    };
    if call.method.oneway {
        let (operation, kind) =
            if is_in_pool { (names::CONSUME, names::PROCESS) } else { (names::PUBLISH, names::SEND) };
        add(names::MESSAGING_SYSTEM, names::MESSAGING_SYSTEM_VALUE);
        add(names::OPERATION_NAME, operation);
        add(names::OPERATION_TYPE, kind);
        labels.push(Label::new(names::DESTINATION, Destination { call, has_queue: is_in_pool }.to_string()));
    } else {
        add(names::SYSTEM, names::SYSTEM_VALUE);
        add(names::STATUS_CODE, error.unwrap_or("ok"));
        labels.push(Label::new(names::METHOD, MethodName(call).to_string()));
    }
    labels.extend(error.map(|code| Label::from_static_parts(names::ERROR_TYPE, code)));
    if let Some((host, port)) = server {
        labels.push(Label::new(names::SERVER_ADDRESS, host.to_string()));
        labels.push(Label::new(names::SERVER_PORT, port.to_string()));
    }
    Key::from_parts(name, labels)
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles").field("since", &self.since).finish_non_exhaustive()
    }
}

/// Recorders drop metrics that were idle for longer.
const FRESH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::Codec, layer::Progress, service::ServiceDescriptor};

    static METHODS: [MethodDescriptor; 2] = [
        MethodDescriptor { error_codes: &["closed"], ..MethodDescriptor::new("ask", "desk.ask") },
        MethodDescriptor { oneway: true, ..MethodDescriptor::new("tell", "desk.tell") },
    ];
    static SERVICE: ServiceDescriptor = ServiceDescriptor {
        name: "desk",
        version: 1,
        queue: None,
        codec: Codec::MessagePack,
        max_length: None,
        max_depth: Codec::MAX_DEPTH,
        methods: &METHODS,
    };

    fn call(method: usize) -> LogicalCall {
        LogicalCall {
            service: &SERVICE,
            method: &SERVICE.methods[method],
            budget: Duration::ZERO,
            deadline: None,
            message_id: None,
            priority: None,
            is_within_retry: false,
            served: None,
            progress: Progress::default(),
        }
    }

    fn text(key: &Key) -> String {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        format!("{} {}", key.name(), labels.join(" "))
    }

    #[test]
    fn the_keys_of_a_method_and_a_broker_are_made_once() {
        let known = Known::default();
        let server = |port| Some(Arc::new(("host".into(), port)));
        let first = known.of(&call(0), server(1));
        assert!(Arc::ptr_eq(&first, &known.of(&call(0), server(1))), "the address counts, not where it stands");
        for other in [known.of(&call(0), server(2)), known.of(&call(0), None), known.of(&call(1), server(1))] {
            assert!(!Arc::ptr_eq(&first, &other));
        }
        assert_eq!(known.0.read().unwrap().len(), 4);
    }

    #[test]
    fn the_labels_say_the_method_its_end_and_the_broker() {
        let known = Known::default();
        let keys = known.of(&call(0), Some(Arc::new(("host".into(), 5672))));
        let system = "rpc.client.call.duration rpc.system.name=rpc_amqp rpc.response.status_code";
        let server = "server.address=host server.port=5672";
        assert_eq!(text(keys.duration(None, &call(0))), format!("{system}=ok rpc.method=desk/ask {server}"));
        for (code, label) in [("timeout", "timeout"), ("closed", "closed"), ("made up", "_OTHER")] {
            let expected = format!("{system}={label} rpc.method=desk/ask error.type={label} {server}");
            assert_eq!(text(keys.duration(Some(code), &call(0))), expected);
        }
        let publish = known.of(&call(1), None);
        assert_eq!(
            text(publish.duration(Some("no_such_service"), &call(1))),
            "messaging.client.operation.duration messaging.system=rabbitmq messaging.operation.name=publish \
             messaging.operation.type=send messaging.destination.name=rpc:desk.tell error.type=no_such_service"
        );
        assert_eq!(text(&publish.active), "rpc_amqp.client.active_calls rpc.method=desk/tell");
    }
}
