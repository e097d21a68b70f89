//! The harness of the integration tests: where a case runs, what it may touch, and how it waits.
//!
//! It holds no assertions about the framework; those are in `it/`.
//!
//! ```text
//!  on_both_brokers!(a_case) ──► bundled::a_case   ──► Stage { a Broker of its own }
//!                           └─► rabbitmq::a_case  ──► Stage { RPC_TEST_RABBITMQ_URL, shared by all cases }
//! ```
//!
//! Cases run in parallel on one RabbitMQ, so each uses service names of its own (`probe!("its-name")`).

mod broker_process;
mod client_process;
mod definitions;
pub mod proxy;
pub mod raw;
mod redis_process;
mod script;
mod signal;
mod slow_link;
mod stage;
mod store_contract;
mod uri;
mod version;
mod wait;
pub mod wire;
mod worker_process;

use std::{fmt, future::Future, pin::Pin, sync::Arc};

pub use broker_process::BrokerProcess;
pub use client_process::ClientProcess;
pub use definitions::broker;
pub use redis_process::RedisProcess;
use rpc_core::{
    __private::{Handler, Method, MethodDescriptor, Request, Sealed, ServiceDescriptor},
    Call, Client, Context, Dispatch,
    dedupe::FencingToken,
};
pub use script::Script;
pub use signal::signal;
pub use slow_link::SlowLink;
pub use stage::{Stage, Target, framework_uri, run};
pub use store_contract::check_store;
pub use uri::{address_of, with_parameter};
pub use version::{Expectations, version_at};
pub use wait::{eventually, within};
pub use worker_process::WorkerProcess;

/// Registers cases, `async fn case(stage: &Stage)`, once for each broker, with the broker in the test's name.
///
/// A case that is written but not registered is dead code, which the lints refuse.
#[macro_export]
macro_rules! on_both_brokers {
    ($($case:ident),+ $(,)?) => {
        mod bundled {
            $(#[test]
            fn $case() {
                $crate::run($crate::Target::Bundled, super::$case);
            })+
        }
        mod rabbitmq {
            $(#[test]
            fn $case() {
                $crate::run($crate::Target::RabbitMq, super::$case);
            })+
        }
    };
}

/// Declares, where it stands, a service of that name with the methods `ask(question) -> answer` and the
/// idempotent `ask_again(question) -> answer`: the trait `Probe`, with [`Answers`] as its implementation.
#[macro_export]
macro_rules! probe {
    ($name:literal) => {
        #[rpc_core::service(name = $name)]
        pub(crate) trait Probe {
            async fn ask(&self, ctx: &rpc_core::Context, question: String) -> String;
            #[rpc(idempotent)]
            async fn ask_again(&self, ctx: &rpc_core::Context, question: String) -> String;
        }

        impl Probe for $crate::Answers {
            async fn ask(&self, ctx: &rpc_core::Context, question: String) -> String {
                self.answer(ctx, question).await
            }
            async fn ask_again(&self, ctx: &rpc_core::Context, question: String) -> String {
                self.answer(ctx, question).await
            }
        }
    };
}

/// The behaviour of a `Probe`.
#[derive(Clone)]
pub struct Answers(Arc<dyn Fn(Asked) -> Answer + Send + Sync>);

type Answer = Pin<Box<dyn Future<Output = String> + Send>>;

/// A question and what came with it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The argument.
    pub question: String,
    /// Whether the broker had delivered it before.
    pub is_redelivered: bool,
    /// Where the answer goes.
    pub reply_to: Option<String>,
    /// The number of its claim, if its pool has a store of answers.
    pub token: Option<u64>,
}

impl Answers {
    /// Answers with what `answer` resolves to.
    pub fn with<F, A>(answer: F) -> Self
    where
        F: Fn(Asked) -> A + Send + Sync + 'static,
        A: Future<Output = String> + Send + 'static,
    {
        Self(Arc::new(move |asked| Box::pin(answer(asked))))
    }

    /// Answers every question with itself.
    pub fn echo() -> Self {
        Self::with(async |asked| asked.question)
    }

    /// Called by what [`probe!`] generates.
    pub async fn answer(&self, ctx: &Context, question: String) -> String {
        let is_redelivered = ctx.redelivered();
        let reply_to = ctx.reply_to().map(str::to_owned);
        let token = ctx.extensions().get().map(|token: &FencingToken| token.get());
        (self.0)(Asked { question, is_redelivered, reply_to, token }).await
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

/// A service served under a name that is known only at run time.
#[derive(Debug)]
pub struct Named<S> {
    service: S,
    descriptor: &'static ServiceDescriptor,
}

impl<S: Dispatch> Named<S> {
    /// `service`, called `name`. The name lives as long as the process.
    pub fn new(name: &str, service: S) -> Self {
        let original = service.descriptor();
        let methods: Vec<_> = original
            .methods
            .iter()
            .map(|method| MethodDescriptor { routing_key: leak(&format!("{name}.{}", method.name)), ..*method })
            .collect();
        let descriptor = ServiceDescriptor { name: leak(name), methods: Box::leak(methods.into()), ..*original };
        Self { service, descriptor: Box::leak(Box::new(descriptor)) }
    }
}

impl<S: Dispatch> Sealed for Named<S> {}

impl<S: Dispatch> Dispatch for Named<S> {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        self.descriptor
    }

    fn dispatch(&self, request: Request) -> Handler {
        self.service.dispatch(request)
    }
}

/// Calls of a `Probe` whose name is known only at run time.
#[derive(Debug, Clone)]
pub struct NamedProbe {
    client: Client,
    descriptor: &'static ServiceDescriptor,
}

impl NamedProbe {
    /// A client of the `Probe` called `service`. The name lives as long as the process.
    pub fn new(client: Client, service: &str) -> Self {
        let server = named_probe::ProbeServer::new(Answers::echo());
        Self { client, descriptor: Named::new(service, server).descriptor() }
    }

    /// `ask`, or `ask_again` when it is to be idempotent.
    pub fn ask(&self, question: &str, is_idempotent: bool) -> Call<String> {
        let method = self.descriptor.methods.iter().position(|method| method.idempotent == is_idempotent);
        let method = method.expect("a Probe has one of each");
        self.client.__call::<Ask>(self.descriptor, method, &[question.to_owned()])
    }
}

/// Both methods of a `Probe`, their argument as a positional array.
struct Ask;

impl Method for Ask {
    type Arguments = [String; 1];
    type Ok = String;
}

mod named_probe {
    crate::probe!("named");
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.into())
}
