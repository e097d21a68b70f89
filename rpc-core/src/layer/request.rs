//! [`Request`]: a call as a layer sees it.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    extensions::Extensions,
    headers,
    received::{Body, LazyHeaders},
    response::BoxFuture,
};
use crate::{
    codec::Codec,
    connection::{Address, amqp::HeaderValue},
    context::Context,
    forward::Carried,
    service::{MethodDescriptor, ServiceDescriptor},
};

/// A call on its way through the layers of a client, or a request on its way through those of a worker pool.
///
/// A layer may change its [headers](Self::set_header), its [body](Self::set_body) and its [extensions](Self::extensions_mut), and
/// passes it to the service that it wraps, or answers itself. Clones, which are cheap, are the same logical call: they share its
/// deadline, its [`message_id`](Self::message_id) and the count of its [attempts](Self::attempt). So a layer may send a clone to
/// send the call again.
#[derive(Clone)]
#[non_exhaustive]
pub struct Request {
    pub(crate) call: Arc<LogicalCall>,
    /// Behind the innermost layer.
    pub(crate) core: Arc<dyn Core>,
    pub(crate) headers: LazyHeaders,
    pub(crate) body: Body,
    pub(crate) extensions: Extensions,
    /// `None` for most: each layer moves the request.
    pub(crate) carried: Option<Box<Carried>>,
}

/// The part of a call that no layer changes, shared by the clones of its request.
pub(crate) struct LogicalCall {
    pub(crate) service: &'static ServiceDescriptor,
    pub(crate) method: &'static MethodDescriptor,
    /// All of it, for errors that name it; zero in a pool.
    pub(crate) budget: Duration,
    /// `None` when the caller waits for ever.
    pub(crate) deadline: Option<Instant>,
    /// In a client.
    pub(crate) message_id: Option<String>,
    pub(crate) priority: Option<u8>,
    /// In a client, whether a handler makes the call whose own request is another attempt already; in a pool, whether this one is.
    pub(crate) is_within_retry: bool,
    /// In a worker pool.
    pub(crate) served: Option<Served>,
    pub(crate) progress: Progress,
}

impl LogicalCall {
    pub(crate) fn message_id(&self) -> Option<&str> {
        match &self.served {
            Some(served) => served.context.message_id(),
            None => self.message_id.as_deref(),
        }
    }
}

/// The request of a worker pool.
pub(crate) struct Served {
    pub(crate) context: Context,
    /// The index of the method.
    pub(crate) method: usize,
    /// The encoding of the arguments.
    pub(crate) codec: Codec,
    /// The levels that they may nest.
    pub(crate) max_depth: u32,
    /// Whether it has arrived with headers besides `rpc-deadline`.
    pub(crate) has_headers: bool,
}

/// The service behind the innermost layer: the client's sending, or the pool's handlers.
pub(crate) trait Core: Send + Sync {
    fn run(&self, request: Request) -> BoxFuture;

    /// In a client, the host and port of its broker, as far as they are known.
    fn server(&self) -> Option<Arc<Address>> {
        None
    }
}

/// An attempt of a logical call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptId(u32);

impl AttemptId {
    /// That and all later ones are not told apart.
    const LAST: u32 = u64::BITS - 1;

    /// Whether no other one was begun before.
    pub(crate) const fn is_first(self) -> bool {
        self.0 == 0
    }

    const fn bit(self) -> u64 {
        1 << self.0
    }
}

/// How far the attempts of a logical call have come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// How often it was sent.
    sent: AtomicU32,
    /// The attempts that may have been executed, a bit each: those that were sent, less those whose end says that they were not.
    /// From the 64th on they share a bit, which stays.
    maybe_executed: AtomicU64,
    /// How many attempts there were.
    attempts: AtomicU32,
    /// Whether the task of the call is polling the layers now.
    is_polled: AtomicBool,
    /// How many attempts that task has polled which have not ended: they wake it at the deadline.
    awaited: AtomicU32,
}

impl Progress {
    /// The number of the next attempt, from 1.
    pub(crate) fn next_number(&self) -> u32 {
        self.sent.load(Ordering::Relaxed).saturating_add(1)
    }

    pub(crate) fn begin_attempt(&self) -> AttemptId {
        AttemptId(self.attempts.fetch_add(1, Ordering::Relaxed).min(AttemptId::LAST))
    }

    /// How often the call was sent.
    pub(crate) fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Notes that a message of an attempt was sent.
    pub(crate) fn note_sent(&self, attempt: AttemptId) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.maybe_executed.fetch_or(attempt.bit(), Ordering::Relaxed);
    }

    /// Notes that an attempt has ended certainly not executed.
    pub(crate) fn note_not_executed(&self, attempt: AttemptId) {
        if attempt.0 < AttemptId::LAST {
            self.maybe_executed.fetch_and(!attempt.bit(), Ordering::Relaxed);
        }
    }

    pub(crate) fn maybe_executed(&self) -> bool {
        self.maybe_executed.load(Ordering::Relaxed) != 0
    }

    /// Polls the layers in the task of the call.
    pub(crate) fn polling<T>(&self, poll: impl FnOnce() -> T) -> T {
        self.is_polled.store(true, Ordering::Relaxed);
        let polled = poll();
        self.is_polled.store(false, Ordering::Relaxed);
        polled
    }

    /// Whether an attempt wakes the task of the call at the deadline.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed) > 0
    }

    /// Whether the task of the call polls an attempt for the first time.
    pub(crate) fn begin_awaiting(&self) -> bool {
        let is_own = self.is_polled.load(Ordering::Relaxed);
        if is_own {
            self.awaited.fetch_add(1, Ordering::Relaxed);
        }
        is_own
    }

    /// Notes that such an attempt has ended, or was dropped.
    pub(crate) fn end_awaiting(&self) {
        self.awaited.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Request {
    pub(crate) fn new(call: Arc<LogicalCall>, core: Arc<dyn Core>, headers: LazyHeaders, body: Body) -> Self {
        Self { call, core, headers, body, extensions: Extensions::default(), carried: None }
    }

    /// The name of the service.
    pub fn service(&self) -> &'static str {
        self.call.service.name
    }

    /// The name of the method.
    pub fn method(&self) -> &'static str {
        self.call.method.name
    }

    /// Whether the method is `#[rpc(idempotent)]`: it may be executed more than once.
    pub fn is_idempotent(&self) -> bool {
        self.call.method.idempotent
    }

    /// Whether the method is `#[rpc(oneway)]`: it has no reply.
    pub fn is_oneway(&self) -> bool {
        self.call.method.oneway
    }

    /// Whether the method is `#[rpc(blocking)]`: its handlers run on threads of their own.
    pub fn is_blocking(&self) -> bool {
        self.call.method.blocking
    }

    /// When the caller stops waiting; `None` when it never does. It is fixed before the outermost layer.
    pub fn deadline(&self) -> Option<Instant> {
        self.call.deadline
    }

    /// How long the caller still waits, zero once its deadline has passed; `None` when it waits for ever.
    pub fn remaining(&self) -> Option<Duration> {
        self.call.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The `message_id`, by which workers recognise the same logical call. In a client every call with layers has one; in a pool
    /// it is that of the request, if it has one.
    pub fn message_id(&self) -> Option<&str> {
        self.call.message_id()
    }

    /// In a client, the number of the attempt that would be sent now, from 1: attempts by layers count, and so do those that the
    /// client makes by itself after the loss of a connection. In a pool, the number of this attempt.
    pub fn attempt(&self) -> u32 {
        self.context().map_or_else(|| self.call.progress.next_number(), Context::attempt)
    }

    /// The context of the handler; `None` in a client.
    pub fn context(&self) -> Option<&Context> {
        self.call.served.as_ref().map(|served| &served.context)
    }

    /// The value of a header; `None` when it is absent, or of a type that [`HeaderValue`] does not have.
    pub fn header(&self, name: &str) -> Option<&HeaderValue> {
        headers::get(self.headers.get(), name)
    }

    /// All headers, in the order in which they travel.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &HeaderValue)> {
        headers::iter(self.headers.get())
    }

    /// Sets a header, in place of one of the same name.
    ///
    /// In a client it travels, as one set with [`Call::header`](crate::Call::header) does, whose rules hold here, too. In a pool the
    /// handler finds it in its context, and its calls carry it on if the pool
    /// [forwards](crate::WorkerPool::forward_headers) headers of that name.
    pub fn set_header(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<HeaderValue>) {
        let name = name.into();
        self.own(&name);
        self.headers.change(|headers| headers::set(headers, name, value.into()));
    }

    /// Removes a header, and returns its value.
    pub fn remove_header(&mut self, name: &str) -> Option<HeaderValue> {
        self.own(name);
        self.headers.change(|headers| headers::remove(headers, name))
    }

    /// Notes that a header, if there is one, is not inherited.
    fn own(&mut self, name: &str) {
        if let Some(carried) = &mut self.carried {
            carried.inherited.forget(name);
        }
    }

    /// The arguments, encoded by the service's [`codec`](crate::Codec).
    pub fn body(&self) -> &Bytes {
        self.body.get()
    }

    /// Replaces the encoded arguments.
    pub fn set_body(&mut self, body: impl Into<Bytes>) {
        self.body = Body::Shared(body.into());
    }

    /// Values of other layers.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Values for layers further in, and, in a pool, for the handler.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.extensions
    }
}

/// Neither arguments nor values of headers, which may be secret.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers().map(|(name, _)| name).collect();
        f.debug_struct("Request")
            .field("service", &self.service())
            .field("method", &self.method())
            .field("message_id", &self.message_id())
            .field("headers", &headers)
            .field("body_bytes", &self.body().len())
            .finish_non_exhaustive()
    }
}
