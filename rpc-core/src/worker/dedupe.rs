//! A bounded memory of answers: a request that arrives again is answered, not executed again.
//!
//! ```text
//!  request ──name──► answered before? ──► that answer
//!                    running now?     ──► wait, then look again
//!                    neither          ──► run the handler, remember its answer
//! ```
//!
//! The memory belongs to one queue of one pool: another worker remembers other requests.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{sync::watch, time::timeout_at};

use super::{
    dispatch::{Request, Response},
    stats::Counters,
};
use crate::{
    connection::Delivery,
    envelope::Code,
    lock::lock,
    meter::{Event, Of},
    topology,
};

/// How many answers a pool remembers, to repeat them instead of executing a request again.
///
/// A request is known by its `message_id`, by its method, and by its `user_id` if it has one: a caller who sets
/// [`idempotency_key`](crate::Call::idempotency_key) must use a new key for each logical call. One without a
/// `message_id` is known when the broker redelivers it. Results and the service's own errors are remembered; a
/// handler that panicked or was stopped, or whose error says that another attempt may help
/// ([`ServiceError`](crate::ServiceError)), runs again.
///
/// A request that arrives while an earlier one of the same name still runs waits for the answer of the earlier one. So
/// [`RetryPolicy::hedge`](crate::RetryPolicy::hedge) gains nothing with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DedupeOptions {
    entries: usize,
    bytes: usize,
}

impl Default for DedupeOptions {
    fn default() -> Self {
        Self { entries: 1_024, bytes: 16 << 20 }
    }
}

impl DedupeOptions {
    /// Answers remembered for each queue. The default is 1 024.
    #[must_use]
    pub const fn entries(mut self, entries: usize) -> Self {
        self.entries = entries;
        self
    }

    /// Their encoded size in bytes, with their names, for each queue. The default is 16 MiB. An answer larger than that
    /// is not remembered.
    #[must_use]
    pub const fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }
}

/// A lane's memory.
#[derive(Debug)]
pub(super) struct Dedupe {
    options: DedupeOptions,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    requests: HashMap<Name, Known>,
    /// The answered ones, the oldest first.
    answered: VecDeque<Name>,
    answered_bytes: usize,
}

/// The identity of a logical request.
type Name = Arc<[u8]>;

#[derive(Debug)]
enum Known {
    /// Its sender is dropped when the handler has ended.
    Running(watch::Receiver<()>),
    Answered(Response),
}

/// The result of a look-up.
enum Lookup {
    Run(Running),
    Wait(watch::Receiver<()>),
    Answered(Response),
}

impl Dedupe {
    pub(super) fn new(options: DedupeOptions) -> Self {
        Self { options, memory: Mutex::default() }
    }

    /// Whether the request would be answered from memory.
    pub(super) fn remembers(&self, method: usize, delivery: &Delivery) -> bool {
        let Some(name) = name(method, delivery) else { return false };
        matches!(self.memory().requests.get(&name), Some(Known::Answered(_)))
    }

    /// Remembers an answer to a request, which must have a name.
    #[cfg(test)]
    pub(super) fn learn(self: &Arc<Self>, method: usize, delivery: &Delivery) {
        let name = name(method, delivery).expect("the request has a name");
        self.memory().remember(&name, Response::ok_of(1), self.options);
    }

    /// Answers a request: from memory, or by its handler.
    pub(super) async fn answer(
        self: &Arc<Self>,
        request: Request,
        counters: &Counters,
        run: impl AsyncFnOnce(Request) -> Response,
    ) -> Response {
        let Some(name) = name(request.method(), request.context().delivery()) else {
            return run(request).await;
        };
        loop {
            let mut ended = match self.look_up(&name) {
                Lookup::Run(running) => {
                    let response = run(request).await;
                    running.end(&response);
                    return response;
                }
                Lookup::Answered(response) => {
                    counters.note_of(Event::Deduplicated, Of::Nothing);
                    return response;
                }
                Lookup::Wait(ended) => ended,
            };
            // Resolves when the sender is dropped: no value is ever sent.
            let is_over = match request.context().deadline() {
                Some(deadline) => timeout_at(deadline, ended.changed()).await.is_err(),
                None => {
                    drop(ended.changed().await);
                    false
                }
            };
            if is_over {
                return Response::failed(Code::Timeout, "the same request was still running at the caller's deadline");
            }
        }
    }

    fn look_up(self: &Arc<Self>, name: &Name) -> Lookup {
        let mut memory = self.memory();
        match memory.requests.get(name) {
            Some(Known::Answered(response)) => Lookup::Answered(response.clone()),
            Some(Known::Running(ended)) => Lookup::Wait(ended.clone()),
            None => {
                let (sender, ended) = watch::channel(());
                memory.requests.insert(Arc::clone(name), Known::Running(ended));
                Lookup::Run(Running { dedupe: Arc::clone(self), name: Arc::clone(name), _ended: sender })
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }
}

/// A running handler; requests that wait for it look up again when this is dropped.
struct Running {
    dedupe: Arc<Dedupe>,
    name: Name,
    _ended: watch::Sender<()>,
}

impl Running {
    fn end(self, response: &Response) {
        if response.is_final() {
            self.dedupe.memory().remember(&self.name, response.clone(), self.dedupe.options);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut memory = self.dedupe.memory();
        if let Some(Known::Running(_)) = memory.requests.get(&self.name) {
            memory.requests.remove(&self.name);
        }
    }
}

impl Memory {
    fn remember(&mut self, name: &Name, response: Response, options: DedupeOptions) {
        let bytes = bytes_of(name, &response);
        if bytes > options.bytes || options.entries == 0 {
            return;
        }
        self.requests.insert(Arc::clone(name), Known::Answered(response));
        self.answered.push_back(Arc::clone(name));
        self.answered_bytes += bytes;
        while self.answered.len() > options.entries || self.answered_bytes > options.bytes {
            let Some(oldest) = self.answered.pop_front() else { return };
            if let Some(Known::Answered(response)) = self.requests.remove(&oldest) {
                self.answered_bytes -= bytes_of(&oldest, &response);
            }
        }
    }
}

fn bytes_of(name: &Name, response: &Response) -> usize {
    name.len() + response.body_bytes()
}

/// The name of a request, if it has one that no other request has.
fn name(method: usize, delivery: &Delivery) -> Option<Name> {
    // Of one user: a key that another one happens to choose, too, must not give that user this one's answer.
    let user = delivery.user_id().unwrap_or_default();
    let scope = format!("{method}\n{}\n{user}", user.len());
    if let Some(message_id) = delivery.message_id() {
        return Some([scope.as_bytes(), message_id].concat().into());
    }
    // Callers elsewhere may use a correlation_id again; ours never do, in one reply queue.
    let reply_to = delivery.reply_to().filter(|reply_to| topology::is_reply_queue(reply_to))?;
    Some([scope.as_bytes(), reply_to, b"\n", delivery.correlation_id_bytes()?].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dedupe(entries: usize, bytes: usize) -> Arc<Dedupe> {
        Arc::new(Dedupe::new(DedupeOptions { entries, bytes }))
    }

    fn answer(dedupe: &Arc<Dedupe>, name: &str, response: &Response) {
        match dedupe.look_up(&name.as_bytes().into()) {
            Lookup::Run(running) => running.end(response),
            Lookup::Wait(_) | Lookup::Answered(_) => panic!("{name} is known"),
        }
    }

    fn is_known(dedupe: &Arc<Dedupe>, name: &str) -> bool {
        matches!(dedupe.memory().requests.get(name.as_bytes()), Some(Known::Answered(_)))
    }

    #[test]
    fn answers_are_bounded_in_number_and_the_oldest_goes_first() {
        let dedupe = dedupe(2, 1_000);
        for name in ["a", "b", "c"] {
            answer(&dedupe, name, &Response::ok_of(10));
        }
        assert!(!is_known(&dedupe, "a") && is_known(&dedupe, "b") && is_known(&dedupe, "c"));
        assert_eq!(dedupe.memory().answered_bytes, 22);
    }

    #[test]
    fn answers_are_bounded_in_bytes_and_one_too_large_is_not_kept() {
        let dedupe = dedupe(100, 50);
        for name in ["a", "b", "c"] {
            answer(&dedupe, name, &Response::ok_of(19));
        }
        assert!(!is_known(&dedupe, "a") && is_known(&dedupe, "b") && is_known(&dedupe, "c"));
        answer(&dedupe, "d", &Response::ok_of(50));
        assert!(!is_known(&dedupe, "d") && is_known(&dedupe, "c"));
        assert_eq!(dedupe.memory().answered_bytes, 40);
    }

    #[test]
    fn a_failed_or_stopped_handler_leaves_nothing_and_the_next_one_runs() {
        let dedupe = dedupe(2, 1_000);
        answer(&dedupe, "a", &Response::failed(Code::Internal, "it panicked"));
        let Lookup::Run(running) = dedupe.look_up(&(*b"a").into()) else { panic!("it was not remembered") };
        let Lookup::Wait(ended) = dedupe.look_up(&(*b"a").into()) else { panic!("one runs already") };
        assert!(ended.has_changed().is_ok(), "the first one still runs");
        drop(running);
        assert!(ended.has_changed().is_err(), "those who wait are woken");
        assert!(matches!(dedupe.look_up(&(*b"a").into()), Lookup::Run(_)));
    }
}
