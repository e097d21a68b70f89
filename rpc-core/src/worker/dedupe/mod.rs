//! Requests that arrive again are answered, not executed again.
//!
//! ```text
//!  request ──► layers ──► Dedupe ─┬─ Local: the memory of one queue of one pool ──► handler
//!                                 └─ Stored: a DedupeStore of several processes ──► handler
//! ```

mod bounded;
mod key;
mod limited;
mod local;
mod memory;
mod options;
mod record;
#[cfg(feature = "dedupe-redis")]
mod redis_store;
mod settler;
mod store;
mod store_options;
mod stored;

use std::sync::Arc;

#[cfg(feature = "dedupe-redis")]
pub use self::redis_store::RedisStore;
pub use self::{
    key::{Fingerprint, Key},
    memory::MemoryStore,
    options::DedupeOptions,
    store::{Claim, DedupeStore, Entry, FencingToken, StoreError},
    store_options::{StoreOptions, WhenAway},
};
use self::{local::Local, stored::Stored};
use super::{
    dispatch::{Dispatch, Handler, Request, Response},
    stats::Counters,
};
use crate::{
    budget,
    context::Context,
    envelope::Code,
    nesting::NestedCall,
    service::{MethodDescriptor, ServiceDescriptor},
};

/// How a pool remembers answers.
#[derive(Debug, Clone)]
pub(super) enum Remembering {
    Locally(DedupeOptions),
    In(StoreOptions),
}

impl Remembering {
    /// The memory of one lane. Within a runtime: a store's has a task.
    pub(super) fn of_lane(
        &self,
        service: &'static ServiceDescriptor,
        exempt: &[String],
        counters: &Arc<Counters>,
    ) -> Dedupe {
        let memory = match self {
            Self::Locally(options) => Memory::Local(Arc::new(Local::new(*options))),
            Self::In(options) => Memory::Stored(Arc::new(Stored::new(options.clone(), service, Arc::clone(counters)))),
        };
        Dedupe { memory, covers: service.methods.iter().map(|method| covers(service, method, exempt)).collect() }
    }
}

/// Why a pool cannot remember the answers of these services, but for the methods that are excepted; `None` if it can.
pub(super) fn misfit(services: &[&ServiceDescriptor], is_remembering: bool, exempt: &[String]) -> Option<String> {
    let methods = || services.iter().flat_map(|service| service.methods.iter().map(move |method| (*service, method)));
    let is_unknown = |name: &&String| methods().all(|(service, method)| covers(service, method, &[name.to_string()]));
    if let Some(name) = exempt.iter().find(is_unknown) {
        return Some(format!("dedupe_except names '{name}', which no service of the pool has: write `service.method`"));
    }
    let hedged = methods().find(|(service, method)| is_remembering && method.hedge && covers(service, method, exempt));
    hedged.map(|(service, method)| {
        format!(
            "the method '{0}.{1}' is `#[rpc(hedge)]`: its second requests would wait for the first ones' answers. Leave it out with \
             `.dedupe_except([\"{0}.{1}\"])`, or take `hedge` away",
            service.name, method.name
        )
    })
}

/// Whether the answers of a method are remembered, by the `service.method` names of those that are not.
pub(super) fn covers(service: &ServiceDescriptor, method: &MethodDescriptor, exempt: &[String]) -> bool {
    !exempt.iter().any(|name| name.split_once('.') == Some((service.name, method.name)))
}

/// A lane's memory of answers; clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Dedupe {
    memory: Memory,
    /// Whether the answers of each method are remembered.
    covers: Arc<[bool]>,
}

#[derive(Debug, Clone)]
enum Memory {
    Local(Arc<Local>),
    Stored(Arc<Stored>),
}

impl Dedupe {
    /// Whether the request would be answered from memory. A store is [asked](Self::is_stored) another way.
    pub(super) fn remembers(&self, method: usize, context: &Context) -> bool {
        match &self.memory {
            Memory::Local(local) => self.covers[method] && local.remembers(method, context),
            Memory::Stored(_) => false,
        }
    }

    /// Whether a store has the answer to the request.
    pub(super) async fn is_stored(&self, method: usize, context: &Context) -> bool {
        match &self.memory {
            Memory::Local(_) => false,
            Memory::Stored(stored) => self.covers[method] && stored.is_completed(method, context).await,
        }
    }

    /// Answers a request from memory, or by the handler of `service`, in one slot. The slot is left while the request waits for the same
    /// one.
    pub(super) fn dispatch(&self, service: &Arc<dyn Dispatch>, counters: &Arc<Counters>, request: Request) -> Handler {
        let (dedupe, service, counters) = (self.clone(), Arc::clone(service), Arc::clone(counters));
        Box::pin(async move {
            let run = async |request| service.dispatch(request).await;
            dedupe.answer(request, &counters, run).await
        })
    }

    async fn answer(
        &self,
        request: Request,
        counters: &Counters,
        run: impl AsyncFnOnce(Request) -> Response,
    ) -> Response {
        match &self.memory {
            _ if !self.covers[request.method()] => run(request).await,
            Memory::Local(local) => local.answer(request, counters, run).await,
            Memory::Stored(stored) => stored.answer(request, run).await,
        }
    }

    /// The memory of a lane, for tests.
    #[cfg(test)]
    pub(super) fn for_test(service: &'static ServiceDescriptor) -> Self {
        Remembering::Locally(DedupeOptions::default()).of_lane(service, &[], &Arc::default())
    }

    /// Remembers an answer to a request, which must have a name.
    #[cfg(test)]
    pub(super) fn learn(&self, method: usize, context: &Context) {
        if let Memory::Local(local) = &self.memory {
            local.learn(method, context);
        }
    }
}

/// Leaves the slot of the request that is served here, while it waits and this is held: handlers that have left theirs for a call need it
/// to go on, among them the one that is waited for.
fn leave_slot() -> Option<NestedCall> {
    // Where too many wait already, this one keeps its slot.
    budget::nested_call()?.ok()
}

fn other_arguments() -> Response {
    Response::failed(Code::BadRequest, "the same message_id came before, with other arguments")
}

fn still_running() -> Response {
    Response::failed(Code::Timeout, "the same request was still running at the caller's deadline")
}
