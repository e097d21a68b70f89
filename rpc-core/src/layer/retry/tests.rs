use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::*;
use crate::{
    call_error::{CallError, ErrorDetails, OtherError, TimeoutStage},
    codec::Codec,
    layer::{
        Body, LazyHeaders,
        request::{Core, LogicalCall, Progress},
        response::Outcome,
    },
    lock::lock,
    service::{MethodDescriptor, ServiceDescriptor},
};

mod endings;
mod hedging;
mod pauses;

static SERVICE: ServiceDescriptor = ServiceDescriptor {
    name: "stock",
    version: 1,
    queue: None,
    codec: Codec::MessagePack,
    max_length: None,
    max_depth: Codec::MAX_DEPTH,
    methods: &[
        MethodDescriptor { idempotent: true, hedge: true, ..MethodDescriptor::new("count", "stock.count") },
        MethodDescriptor::new("take", "stock.take"),
        MethodDescriptor { idempotent: true, ..MethodDescriptor::new("list", "stock.list") },
    ],
};
const COUNT: usize = 0;
const TAKE: usize = 1;
const LIST: usize = 2;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The answer to one request.
#[derive(Clone)]
struct Step {
    after: Duration,
    /// `None`: the answer never comes.
    outcome: Option<Outcome>,
}

fn at_once(outcome: Outcome) -> Step {
    after(ms(0), outcome)
}

fn after(after: Duration, outcome: Outcome) -> Step {
    Step { after, outcome: Some(outcome) }
}

fn never() -> Step {
    Step { after: ms(0), outcome: None }
}

fn ok() -> Outcome {
    Outcome::Ok(None, Body::written(b"5".to_vec()))
}

fn failed(error: CallError) -> Outcome {
    Outcome::Failed(error)
}

fn overloaded() -> Outcome {
    failed(CallError::overloaded("stock", "count", "the queue is full"))
}

fn own_error(details: ErrorDetails) -> Outcome {
    Outcome::Service(None, Body::written(b"1".to_vec()), Some(Box::new(details)))
}

/// A service that follows a script, and answers the last line of it for ever.
#[derive(Clone)]
struct Fake {
    script: Arc<Mutex<VecDeque<Step>>>,
    /// When each request came.
    times: Arc<Mutex<Vec<Instant>>>,
    /// How many requests were dropped before their answer.
    dropped: Arc<AtomicUsize>,
}

impl Fake {
    fn new(script: impl IntoIterator<Item = Step>) -> Self {
        Self {
            script: Arc::new(Mutex::new(script.into_iter().collect())),
            times: Arc::default(),
            dropped: Arc::default(),
        }
    }

    fn then(&self, steps: impl IntoIterator<Item = Step>) {
        *lock(&self.script) = steps.into_iter().collect();
    }

    /// The times between the requests.
    fn pauses(&self) -> Vec<Duration> {
        lock(&self.times).windows(2).map(|times| times[1] - times[0]).collect()
    }

    /// How many requests came since the last look.
    fn take_count(&self) -> usize {
        std::mem::take(&mut *lock(&self.times)).len()
    }

    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }
}

/// Counts requests whose futures are dropped.
struct Unanswered(Option<Arc<AtomicUsize>>);

impl Unanswered {
    fn answered(mut self) {
        self.0.take();
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(dropped) = self.0.take() {
            dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Service<Request> for Fake {
    type Response = Response;
    type Error = BoxError;
    type Future = BoxFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> BoxFuture {
        lock(&self.times).push(Instant::now());
        let step = {
            let mut script = lock(&self.script);
            let next = script.pop_front().expect("a script");
            if script.is_empty() {
                script.push_back(next.clone());
            }
            next
        };
        let unanswered = Unanswered(Some(Arc::clone(&self.dropped)));
        Box::pin(async move {
            let attempt = request.call.progress.begin_attempt();
            request.call.progress.note_sent(attempt);
            sleep(step.after).await;
            let Some(outcome) = step.outcome else { return std::future::pending().await };
            unanswered.answered();
            let response = Response::from(outcome);
            if !response.maybe_executed() {
                request.call.progress.note_not_executed(attempt);
            }
            Ok(response)
        })
    }
}

struct NoCore;

impl Core for NoCore {
    fn run(&self, _: Request) -> BoxFuture {
        unreachable!("the service behind the layer is a fake")
    }
}

struct Asked {
    method: usize,
    within: Option<Duration>,
    is_within_retry: bool,
}

const TO_COUNT: Asked = Asked { method: COUNT, within: Some(Duration::from_secs(10)), is_within_retry: false };
const TO_TAKE: Asked = Asked { method: TAKE, ..TO_COUNT };
const TO_LIST: Asked = Asked { method: LIST, ..TO_COUNT };

impl Asked {
    fn request(&self) -> Request {
        let call = Arc::new(LogicalCall {
            service: &SERVICE,
            method: &SERVICE.methods[self.method],
            budget: self.within.unwrap_or(Duration::MAX),
            deadline: self.within.map(|within| Instant::now() + within),
            message_id: Some("m".to_owned()),
            priority: None,
            is_within_retry: self.is_within_retry,
            served: None,
            progress: Progress::default(),
        });
        Request::new(call, Arc::new(NoCore), LazyHeaders::NONE, Body::written(Vec::new()))
    }
}

async fn call(layer: &RetryLayer, fake: &Fake, asked: &Asked) -> Response {
    pass(layer, fake, asked.request()).await
}

async fn pass(layer: &RetryLayer, fake: &Fake, request: Request) -> Response {
    let mut service = layer.layer(fake.clone());
    std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
    service.call(request).await.unwrap()
}

/// With a budget that is never spent.
fn layer(policy: RetryPolicy) -> RetryLayer {
    RetryLayer::new(policy).budget(RetryBudget::percent(10_000))
}
