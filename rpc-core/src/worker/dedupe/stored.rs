//! A pool's use of a store.
//!
//! ```text
//!  claim ──► completed ───────────────────────────────► that answer
//!    ▲ ├───► other arguments ─────────────────────────► bad_request
//!    │ ├───► running elsewhere ──► a pause, and again until the caller's deadline
//!    │ ├───► the store is away ──► overloaded, or the handler without a claim
//!    │ └───► claimed ──► handler, beside it a task that renews ──► its answer is final? complete, else release
//!    └─────────────────────────────────────────────────────────────── refused: the claim had run out
//! ```

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    key::{Fingerprint, Key},
    leave_slot,
    limited::Limited,
    other_arguments, record,
    settler::{End, Settlement, Settler},
    still_running,
    store::{Claim, Entry, FencingToken, StoreError},
    store_options::{StoreOptions, WhenAway},
};
use crate::{
    context::Context,
    envelope::Code,
    meter::{Event, Of},
    service::ServiceDescriptor,
    task::AbortOnDrop,
    worker::{
        dispatch::{Request, Response},
        stats::Counters,
    },
};

/// A lane's use of its pool's store.
#[derive(Debug)]
pub(super) struct Stored {
    service: &'static ServiceDescriptor,
    store: Arc<Limited>,
    settler: Settler,
    counters: Arc<Counters>,
}

/// A logical request.
struct Asked {
    key: Key,
    arguments: Fingerprint,
    deadline: Option<Instant>,
}

/// The outcome of waiting for a claim.
enum Turn {
    Run(FencingToken),
    Answer(Response),
    /// The store is away, and the request has not been seen to run elsewhere.
    Away(StoreError),
}

impl Stored {
    /// Within a runtime.
    pub(super) fn new(options: StoreOptions, service: &'static ServiceDescriptor, counters: Arc<Counters>) -> Self {
        let store = Arc::new(Limited::new(options));
        let settler = Settler::spawn(Arc::clone(&store), Arc::clone(&counters));
        Self { service, store, settler, counters }
    }

    fn key(&self, method: usize, context: &Context) -> Option<Key> {
        Key::of_request(self.service.name, self.service.methods[method].name, context)
    }

    /// Whether the store has the answer to the request.
    pub(super) async fn is_completed(&self, method: usize, context: &Context) -> bool {
        let Some(key) = self.key(method, context) else { return false };
        matches!(self.store.read(&key).await, Ok(Some(Entry::Completed(_))))
    }

    /// Answers a request: from the store, or by its handler.
    pub(super) async fn answer(&self, request: Request, run: impl AsyncFnOnce(Request) -> Response) -> Response {
        let Some(key) = self.key(request.method(), request.context()) else {
            return run(request).await;
        };
        let arguments = Fingerprint::of(request.context().body());
        let asked = Asked { key, arguments, deadline: request.context().deadline() };
        match self.claim(&asked).await {
            Turn::Run(token) => self.run(&asked, token, request, run).await,
            Turn::Answer(response) => response,
            Turn::Away(error) => match self.store.options.when_away {
                WhenAway::Refuse => {
                    Counters::add(&self.counters.store_refused);
                    Response::failed(Code::Overloaded, format!("{error}; the request was not executed"))
                }
                WhenAway::GoOn => {
                    Counters::add(&self.counters.store_bypassed);
                    run(request).await
                }
            },
        }
    }

    /// Claims the request, or waits for the answer to the same one.
    async fn claim(&self, asked: &Asked) -> Turn {
        let mut pause = PAUSE_MIN;
        let mut runs_elsewhere = false;
        loop {
            let left = match self.store.claim(&asked.key, asked.arguments).await {
                Ok(Claim::Claimed(token)) => return Turn::Run(token),
                Ok(Claim::Completed(reply)) => {
                    self.counters.note_of(Event::Deduplicated, Of::Nothing);
                    return Turn::Answer(record::decode(&reply));
                }
                Ok(Claim::OtherArguments) => return Turn::Answer(other_arguments()),
                Ok(Claim::Running { left }) => left,
                // Neither "not executed" nor another execution would be right for a request that runs elsewhere.
                Err(_) if runs_elsewhere => PAUSE_MAX,
                Err(error) => return Turn::Away(error),
            };
            runs_elsewhere = true;
            let _left = leave_slot();
            let until = Instant::now() + pause.min(left.max(PAUSE_MIN));
            match asked.deadline {
                Some(deadline) if deadline <= until => {
                    sleep_until(deadline).await;
                    return Turn::Answer(still_running());
                }
                Some(_) | None => sleep_until(until).await,
            }
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    async fn run(
        &self,
        asked: &Asked,
        token: FencingToken,
        request: Request,
        run: impl AsyncFnOnce(Request) -> Response,
    ) -> Response {
        let mut held = Held { stored: self, key: &asked.key, token, end: Some(End::Release) };
        let renewal = AbortOnDrop::spawn(renew(Arc::clone(&self.store), asked.key.clone(), token));
        let response = run(request.with_extension(token)).await;
        match record::encode(&response, self.store.options.reply_max_bytes) {
            None => {
                held.release().await;
                response
            }
            Some(reply) => {
                let is_kept = held.complete(reply.clone()).await;
                drop(renewal);
                if is_kept { response } else { self.agree(asked, response, reply).await }
            }
        }
    }

    /// The answer of a handler whose claim had run out: another handler may have given another one.
    async fn agree(&self, asked: &Asked, response: Response, reply: Bytes) -> Response {
        loop {
            let token = match self.claim(asked).await {
                Turn::Answer(others) => return others,
                Turn::Run(token) => token,
                Turn::Away(_) => {
                    Counters::add(&self.counters.answers_unkept);
                    return response;
                }
            };
            let mut held = Held { stored: self, key: &asked.key, token, end: None };
            if held.complete(reply.clone()).await {
                return response;
            }
        }
    }
}

/// A claim of this process; the settler ends it if this is dropped before.
struct Held<'a> {
    stored: &'a Stored,
    key: &'a Key,
    token: FencingToken,
    /// How it is to end; `None` when it has.
    end: Option<End>,
}

impl Held<'_> {
    async fn release(&mut self) {
        if self.stored.store.release(self.key, self.token).await.is_ok() {
            self.end = None;
        }
    }

    /// False when the claim had run out. While the store is away, the settler goes on.
    async fn complete(&mut self, reply: Bytes) -> bool {
        // Also when the task is stopped now: the handler has run.
        self.end = Some(End::Complete(reply.clone()));
        let Ok(is_kept) = self.stored.store.complete(self.key, self.token, reply).await else { return true };
        self.end = None;
        if !is_kept {
            Counters::add(&self.stored.counters.claims_lost);
            tracing::warn!(key = %self.key, "a claim ran out while its handler ran: another worker may have run it, too");
        }
        is_kept
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Some(end) = self.end.take() else { return };
        let until = Instant::now() + self.stored.store.options.lease;
        let settlement = Settlement { key: self.key.clone(), token: self.token, end, until };
        self.stored.settler.settle(settlement, &self.stored.counters);
    }
}

/// Renews a claim until it is lost.
async fn renew(store: Arc<Limited>, key: Key, token: FencingToken) {
    loop {
        sleep(store.options.lease / 3).await;
        if let Ok(false) = store.renew(&key, token).await {
            return;
        }
    }
}

/// Between two looks at a request that runs elsewhere; doubles up to the second.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);
