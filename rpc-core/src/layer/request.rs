//! [`Request`]: a call as a layer sees it.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    extensions::Extensions,
    headers::{self, Headers},
    response::BoxFuture,
};
use crate::{
    codec::Codec,
    connection::amqp::HeaderValue,
    context::Context,
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
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
    pub(crate) extensions: Extensions,
}

/// The part of a call that no layer changes, shared by the clones of its request.
pub(crate) struct LogicalCall {
    pub(crate) service: &'static ServiceDescriptor,
    pub(crate) method: &'static MethodDescriptor,
    /// `None` when the caller waits for ever.
    pub(crate) deadline: Option<Instant>,
    pub(crate) message_id: Option<String>,
    pub(crate) priority: Option<u8>,
    /// In a client, whether a handler makes the call whose own request is another attempt already; in a pool, whether this one is.
    pub(crate) is_within_retry: bool,
    /// In a worker pool.
    pub(crate) served: Option<Served>,
    pub(crate) progress: Progress,
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
}

/// The service behind the innermost layer: the client's sending, or the pool's handlers.
pub(crate) trait Core: Send + Sync {
    fn run(&self, request: Request) -> BoxFuture;
}

/// How far the attempts of a logical call have come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// How often it was sent.
    sent: AtomicU32,
    /// How many attempts may have been executed: those that were sent, less those whose end says that they were not.
    maybe_executed: AtomicU32,
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

    /// Notes that a message was sent; `is_first` is true for the first one of its attempt.
    pub(crate) fn note_sent(&self, is_first: bool) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        if is_first {
            self.maybe_executed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that an attempt that was sent was certainly not executed.
    pub(crate) fn note_not_executed(&self) {
        self.maybe_executed.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn maybe_executed(&self) -> bool {
        self.maybe_executed.load(Ordering::Relaxed) > 0
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
        self.call.message_id.as_deref()
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
        headers::get(&self.headers, name)
    }

    /// All headers, in the order in which they travel.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &HeaderValue)> {
        headers::iter(&self.headers)
    }

    /// Sets a header, in place of one of the same name.
    ///
    /// In a client it travels, as one set with [`Call::header`](crate::Call::header) does, whose rules hold here, too. In a pool the
    /// handler finds it in its context.
    pub fn set_header(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<HeaderValue>) {
        headers::set(&mut self.headers, name.into(), value.into());
    }

    /// Removes a header, and returns its value.
    pub fn remove_header(&mut self, name: &str) -> Option<HeaderValue> {
        headers::remove(&mut self.headers, name)
    }

    /// The arguments, encoded by the service's [`codec`](crate::Codec).
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Replaces the encoded arguments.
    pub fn set_body(&mut self, body: impl Into<Bytes>) {
        self.body = body.into();
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
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Request")
            .field("service", &self.service())
            .field("method", &self.method())
            .field("message_id", &self.message_id())
            .field("headers", &headers)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}
