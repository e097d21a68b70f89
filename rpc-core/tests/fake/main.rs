//! Clients whose services are in the same process: `XClient::fake`, `FakePool`.
#![cfg(feature = "macros")]
#![allow(clippy::unwrap_used)]

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rpc_core::{CallError, Context, ServiceError, service};
use serde::{Deserialize, Serialize};

mod calls;
mod layers;
mod without_answer;

#[service]
trait Desk {
    async fn ask(&self, ctx: &Context, question: String) -> Result<String, Refused>;
    #[rpc(idempotent)]
    async fn look(&self, ctx: &Context, question: String) -> Result<String, Refused>;
    #[rpc(idempotent)]
    async fn plain(&self, ctx: &Context, question: String) -> String;
    #[rpc(oneway)]
    async fn tell(&self, ctx: &Context, note: String) -> Result<(), Refused>;
    #[rpc(no_cancel)]
    async fn keep(&self, ctx: &Context, question: String) -> String;
    #[rpc(blocking)]
    async fn crunch(&self, ctx: &Context, question: String) -> String;
}

#[derive(Debug, PartialEq, thiserror::Error, Serialize, Deserialize, ServiceError)]
enum Refused {
    #[error("the desk is closed")]
    Closed,
    #[rpc(retry_after = "2s")]
    #[error("{waiting} are waiting")]
    Busy { waiting: u32 },
}

/// Serves a desk by a function of the question and the context.
#[derive(Clone)]
struct Clerk(Arc<dyn Fn(String, Context) -> Answer + Send + Sync>);

type Answer = Pin<Box<dyn Future<Output = Result<String, Refused>> + Send>>;

impl Clerk {
    fn with<F, A>(answer: F) -> Self
    where
        F: Fn(String, Context) -> A + Send + Sync + 'static,
        A: Future<Output = Result<String, Refused>> + Send + 'static,
    {
        Self(Arc::new(move |question, ctx| Box::pin(answer(question, ctx))))
    }

    /// Answers every question with itself, and counts them.
    fn echo() -> (Self, Arc<AtomicUsize>) {
        let count = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&count);
        let clerk = Self::with(move |question, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move { Ok(question) }
        });
        (clerk, count)
    }
}

impl Desk for Clerk {
    async fn ask(&self, ctx: &Context, question: String) -> Result<String, Refused> {
        (self.0)(question, ctx.clone()).await
    }

    async fn look(&self, ctx: &Context, question: String) -> Result<String, Refused> {
        (self.0)(question, ctx.clone()).await
    }

    async fn plain(&self, ctx: &Context, question: String) -> String {
        (self.0)(question, ctx.clone()).await.unwrap()
    }

    async fn tell(&self, ctx: &Context, note: String) -> Result<(), Refused> {
        (self.0)(note, ctx.clone()).await.map(drop)
    }

    async fn keep(&self, ctx: &Context, question: String) -> String {
        (self.0)(question, ctx.clone()).await.unwrap()
    }

    async fn crunch(&self, ctx: &Context, question: String) -> String {
        (self.0)(question, ctx.clone()).await.unwrap()
    }
}

/// Events in their order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, event: impl Into<String>) {
        self.0.lock().unwrap().push(event.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// Gives tasks of the runtime their turn.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Code, whether it may have been executed, whether to try again.
fn parts<E>(error: &CallError<E>) -> (&str, bool, bool) {
    (error.code(), error.maybe_executed(), error.is_retryable())
}
