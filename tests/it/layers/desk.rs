//! A service to put layers around, and simple layers.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rpc_core::{
    CallError, Context,
    layer::{self, Next, Request, Response, RpcLayer},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, time::sleep};

/// The service's own error.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum Refused {
    #[error("the desk is closed")]
    Closed,
    #[error("{0}")]
    Call(String),
}

impl From<CallError> for Refused {
    fn from(error: CallError) -> Self {
        Self::Call(error.code().to_owned())
    }
}

/// Serves a desk by a function of the question and the context.
#[derive(Clone)]
pub(crate) struct Clerk(Arc<dyn Fn(String, Context) -> Answer + Send + Sync>);

type Answer = Pin<Box<dyn Future<Output = Result<String, Refused>> + Send>>;

impl Clerk {
    pub(crate) fn with<F, A>(answer: F) -> Self
    where
        F: Fn(String, Context) -> A + Send + Sync + 'static,
        A: Future<Output = Result<String, Refused>> + Send + 'static,
    {
        Self(Arc::new(move |question, ctx| Box::pin(answer(question, ctx))))
    }

    /// Answers every question with itself, and counts them.
    pub(crate) fn echo() -> (Self, Arc<AtomicUsize>) {
        let count = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&count);
        let clerk = Self::with(move |question, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move { Ok(question) }
        });
        (clerk, count)
    }

    /// Notifies that a question has come, and answers after a minute.
    pub(crate) fn hanging() -> (Self, Arc<Notify>) {
        let begun = Arc::new(Notify::new());
        let begins = Arc::clone(&begun);
        let clerk = Self::with(move |question, _| {
            begins.notify_one();
            async move {
                sleep(Duration::from_secs(60)).await;
                Ok(question)
            }
        });
        (clerk, begun)
    }

    pub(crate) async fn answer(&self, question: String, ctx: &Context) -> Result<String, Refused> {
        (self.0)(question, ctx.clone()).await
    }
}

/// Declares, where it stands, a service of that name, served by a [`Clerk`].
macro_rules! desk {
    ($name:literal) => {
        #[rpc_core::service(name = $name)]
        pub(crate) trait Desk {
            async fn ask(
                &self,
                ctx: &rpc_core::Context,
                question: String,
            ) -> Result<String, $crate::layers::desk::Refused>;
            #[rpc(idempotent)]
            async fn plain(&self, ctx: &rpc_core::Context, question: String) -> String;
            #[rpc(oneway)]
            async fn tell(&self, ctx: &rpc_core::Context, note: String);
        }

        impl Desk for $crate::layers::desk::Clerk {
            async fn ask(
                &self,
                ctx: &rpc_core::Context,
                question: String,
            ) -> Result<String, $crate::layers::desk::Refused> {
                self.answer(question, ctx).await
            }
            async fn plain(&self, ctx: &rpc_core::Context, question: String) -> String {
                self.answer(question, ctx).await.unwrap()
            }
            async fn tell(&self, ctx: &rpc_core::Context, note: String) {
                self.answer(note, ctx).await.unwrap();
            }
        }
    };
}
pub(crate) use desk;

/// Events in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn note(&self, event: impl Into<String>) {
        self.0.lock().unwrap().push(event.into());
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// A layer that notes when a request goes in, and how it comes out.
    pub(crate) fn layer(&self, name: &'static str) -> impl RpcLayer + use<> {
        let log = self.clone();
        layer::from_fn(move |request: Request, next: Next| {
            let log = log.clone();
            async move {
                log.note(format!("{name} {}", request.method()));
                let response = next.run(request).await?;
                log.note(format!("{name} {}", response.code()));
                Ok(response)
            }
        })
    }
}

/// A layer that changes each request on its way in.
pub(crate) fn changing(change: impl Fn(&mut Request) + Clone + Send + Sync + 'static) -> impl RpcLayer {
    layer::from_fn(move |mut request: Request, next: Next| {
        change(&mut request);
        next.run(request)
    })
}

/// A layer that answers each request itself.
pub(crate) fn answering(answer: impl Fn(&Request) -> Response + Clone + Send + Sync + 'static) -> impl RpcLayer {
    layer::from_fn(move |request: Request, _: Next| {
        let response = answer(&request);
        async move { Ok(response) }
    })
}
