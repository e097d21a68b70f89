//! The memory of one queue of one pool: the default, without a store.
//!
//! ```text
//!  request ──name──► answered before? ──► that answer
//!                    running now?     ──► wait, then look again
//!                    neither          ──► run the handler, remember its answer
//! ```

use std::{
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{sync::watch, time::timeout_at};

use super::{
    bounded::{Bounded, Known, Name},
    key::{Id, Who},
    leave_slot,
    options::DedupeOptions,
    other_arguments, still_running,
};
use crate::{
    context::Context,
    lock::lock,
    meter::{Event, Of},
    worker::{
        dispatch::{Request, Response},
        stats::Counters,
    },
};

/// A lane's memory.
#[derive(Debug)]
pub(super) struct Local {
    options: DedupeOptions,
    memory: Mutex<Bounded<Running, Answered>>,
    /// Of arguments.
    hasher: foldhash::fast::RandomState,
}

/// A request that runs.
#[derive(Debug)]
struct Running {
    arguments: u64,
    /// Its sender is dropped when the handler has ended.
    ended: watch::Receiver<()>,
}

#[derive(Debug)]
struct Answered {
    arguments: u64,
    response: Response,
}

/// The result of a look-up.
enum Lookup {
    Run(Claimed),
    Wait(watch::Receiver<()>),
    Answered(Response),
    OtherArguments,
}

impl Local {
    pub(super) fn new(options: DedupeOptions) -> Self {
        Self { options, memory: Mutex::default(), hasher: foldhash::fast::RandomState::default() }
    }

    /// Whether the request would be answered from memory.
    pub(super) fn remembers(&self, method: usize, context: &Context) -> bool {
        let Some(name) = name(method, context) else { return false };
        matches!(self.memory().get(&name), Some(Known::Ended(..)))
    }

    /// Answers a request: from memory, or by its handler.
    pub(super) async fn answer(
        self: &Arc<Self>,
        request: Request,
        counters: &Counters,
        run: impl AsyncFnOnce(Request) -> Response,
    ) -> Response {
        let Some(name) = name(request.method(), request.context()) else {
            return run(request).await;
        };
        let arguments = self.hasher.hash_one(request.context().body());
        loop {
            let mut ended = match self.look_up(&name, arguments) {
                Lookup::Run(claimed) => {
                    let response = run(request).await;
                    claimed.end(&response);
                    return response;
                }
                Lookup::Answered(response) => {
                    counters.note_of(Event::Deduplicated, Of::Nothing);
                    return response;
                }
                Lookup::OtherArguments => return other_arguments(),
                Lookup::Wait(ended) => ended,
            };
            let _left = leave_slot();
            // Resolves when the sender is dropped: no value is ever sent.
            let is_over = match request.context().deadline() {
                Some(deadline) => timeout_at(deadline, ended.changed()).await.is_err(),
                None => {
                    drop(ended.changed().await);
                    false
                }
            };
            if is_over {
                return still_running();
            }
        }
    }

    fn look_up(self: &Arc<Self>, name: &Name, arguments: u64) -> Lookup {
        let mut memory = self.memory();
        match memory.get(name) {
            Some(Known::Running(Running { arguments: others, .. }))
            | Some(Known::Ended(Answered { arguments: others, .. }, _))
                if *others != arguments =>
            {
                Lookup::OtherArguments
            }
            Some(Known::Ended(answered, _)) => Lookup::Answered(answered.response.clone()),
            Some(Known::Running(running)) => Lookup::Wait(running.ended.clone()),
            None => {
                let (sender, ended) = watch::channel(());
                memory.begin(name, Running { arguments, ended });
                Lookup::Run(Claimed { local: Arc::clone(self), name: Arc::clone(name), arguments, _ended: sender })
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Bounded<Running, Answered>> {
        lock(&self.memory)
    }

    /// Remembers an answer to a request, which must have a name.
    #[cfg(test)]
    pub(super) fn learn(&self, method: usize, context: &Context) {
        let name = name(method, context).expect("the request has a name");
        let arguments = self.hasher.hash_one(context.body());
        let answered = Answered { arguments, response: Response::ok_of(1) };
        self.memory().end(&name, answered, 1, self.options);
    }
}

/// A running handler; requests that wait for it look up again when this is dropped.
struct Claimed {
    local: Arc<Local>,
    name: Name,
    arguments: u64,
    _ended: watch::Sender<()>,
}

impl Claimed {
    fn end(self, response: &Response) {
        if response.is_final() {
            let answered = Answered { arguments: self.arguments, response: response.clone() };
            self.local.memory().end(&self.name, answered, response.body_bytes(), self.local.options);
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.local.memory().forget_running(&self.name);
    }
}

/// The name of a request, if it has one that no other request has.
fn name(method: usize, context: &Context) -> Option<Name> {
    let id = Id::of(context)?;
    let mut name = Vec::with_capacity(96);
    name.extend_from_slice(&method.to_be_bytes());
    Who::sends(context).write(&mut name);
    id.write(&mut name);
    Some(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Code;

    fn local(entries: usize, bytes: usize) -> Arc<Local> {
        Arc::new(Local::new(DedupeOptions { entries, bytes }))
    }

    fn look_up(local: &Arc<Local>, name: &str) -> Lookup {
        local.look_up(&name.as_bytes().into(), 0)
    }

    fn answer(local: &Arc<Local>, name: &str, response: &Response) {
        match look_up(local, name) {
            Lookup::Run(claimed) => claimed.end(response),
            Lookup::Wait(_) | Lookup::Answered(_) | Lookup::OtherArguments => panic!("{name} is known"),
        }
    }

    fn is_known(local: &Arc<Local>, name: &str) -> bool {
        matches!(local.memory().get(name.as_bytes()), Some(Known::Ended(..)))
    }

    #[test]
    fn answers_are_bounded_in_number_and_the_oldest_goes_first() {
        let local = local(2, 1_000);
        for name in ["a", "b", "c"] {
            answer(&local, name, &Response::ok_of(10));
        }
        assert!(!is_known(&local, "a") && is_known(&local, "b") && is_known(&local, "c"));
        assert_eq!(local.memory().ended_bytes(), 22);
    }

    #[test]
    fn answers_are_bounded_in_bytes_and_one_too_large_is_not_kept() {
        let local = local(100, 50);
        for name in ["a", "b", "c"] {
            answer(&local, name, &Response::ok_of(19));
        }
        assert!(!is_known(&local, "a") && is_known(&local, "b") && is_known(&local, "c"));
        answer(&local, "d", &Response::ok_of(50));
        assert!(!is_known(&local, "d") && is_known(&local, "c"));
        assert_eq!(local.memory().ended_bytes(), 40);
    }

    #[test]
    fn a_failed_or_stopped_handler_leaves_nothing_and_the_next_one_runs() {
        let local = local(2, 1_000);
        answer(&local, "a", &Response::failed(Code::Internal, "it panicked"));
        let Lookup::Run(running) = look_up(&local, "a") else { panic!("it was not remembered") };
        let Lookup::Wait(ended) = look_up(&local, "a") else { panic!("one runs already") };
        assert!(ended.has_changed().is_ok(), "the first one still runs");
        drop(running);
        assert!(ended.has_changed().is_err(), "those who wait are woken");
        assert!(matches!(look_up(&local, "a"), Lookup::Run(_)));
    }

    #[test]
    fn a_name_with_other_arguments_is_refused_while_the_first_runs_and_afterwards() {
        let local = local(2, 1_000);
        let other = |local: &Arc<Local>| matches!(local.look_up(&(*b"a").into(), 1), Lookup::OtherArguments);
        let Lookup::Run(running) = look_up(&local, "a") else { panic!("it is new") };
        assert!(other(&local));
        running.end(&Response::ok_of(1));
        assert!(other(&local));
        assert!(matches!(look_up(&local, "a"), Lookup::Answered(_)));
    }
}
