//! Opens what a client needs, in a task that outlives the callers who wait for it, and opens it again when it is lost.
//!
//! ```text
//!  caller ──get──► Kept ◄──Arc<T>── task: open ──► wait for its end ──► open …
//!                   └──wanted──►     └─refused─► the callers are told; the next one makes it try again
//! ```
//!
//! A caller that gives up abandons nothing: the next one finds what the first one began.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::{Instant, sleep},
};

use super::life::Life;
use crate::{connection::Backoff, error::Error, lock::lock, task::AbortOnDrop};

/// A part of a client that is kept open.
pub(super) trait Keep: Sized + Send + Sync + 'static {
    /// All that opening one needs.
    type Source: Clone + Send + Sync + 'static;

    /// Opens one. It waits for the connection without a limit, and for the broker's answers with one.
    fn open(source: &Self::Source) -> impl Future<Output = Result<Self, Error>> + Send;

    fn life(&self) -> &Life;

    /// Whether it has ended although its connection lives.
    fn has_failed_alone(&self, source: &Self::Source) -> bool;

    /// Whether it was left while it works: another one is opened at once, and this one ends what it has begun.
    fn is_left(&self) -> bool {
        false
    }
}

/// A part of a client, and the task that keeps it open.
pub(super) struct Kept<T: Keep> {
    source: T::Source,
    shared: Arc<Shared<T>>,
    task: Mutex<Option<AbortOnDrop>>,
}

struct Shared<T> {
    open: Mutex<Option<Arc<T>>>,
    /// The last attempt to open.
    attempt: watch::Sender<Attempt>,
    wanted: Notify,
}

/// The outcome of an attempt.
#[derive(Debug, Default)]
struct Attempt {
    /// The reason of its failure, and until when nothing else is to be expected.
    refused: Option<(Error, Option<Instant>)>,
}

impl<T: Keep> Kept<T> {
    pub(super) fn new(source: T::Source) -> Self {
        let (attempt, wanted) = (watch::Sender::default(), Notify::new());
        let shared = Arc::new(Shared { open: Mutex::new(None), attempt, wanted });
        Self { source, shared, task: Mutex::new(None) }
    }

    /// The open one.
    pub(super) fn current(&self) -> Option<Arc<T>> {
        lock(&self.shared.open).as_ref().filter(|open| !open.life().has_ended()).cloned()
    }

    /// Lets it be opened, without waiting for that.
    ///
    /// # Errors
    /// [`Error::Configuration`] outside a tokio runtime.
    pub(super) fn want(&self) -> Result<(), Error> {
        // Stopped, or closed for good.
        if matches!(self.shared.attempt.borrow().refused, Some((_, None))) {
            return Ok(());
        }
        let mut task = lock(&self.task);
        // It ends with the runtime in which it was spawned.
        if task.as_ref().is_none_or(AbortOnDrop::is_finished) {
            Handle::try_current().map_err(|_| outside())?;
            *task = Some(AbortOnDrop::spawn(keep(self.source.clone(), Arc::clone(&self.shared))));
        }
        Ok(())
    }

    /// The open one, once it is open.
    ///
    /// # Errors
    /// The broker's refusal; [`Error::Closed`] when the connection is closed for good.
    ///
    /// # Cancel safety
    /// Dropping the future abandons nothing.
    pub(super) async fn get(&self) -> Result<Arc<T>, Error> {
        let mut attempts = self.shared.attempt.subscribe();
        loop {
            let refused = attempts.borrow_and_update().refused.clone();
            // After the mark above: one that is opened from here on is a change.
            if let Some(open) = self.current() {
                return Ok(open);
            }
            if let Some((error, until)) = refused
                && until.is_none_or(|until| Instant::now() < until)
            {
                return Err(error);
            }
            self.shared.wanted.notify_one();
            self.want()?;
            // The sender is ours.
            drop(attempts.changed().await);
        }
    }

    /// Stops the task for good, and returns the one that was open.
    pub(super) fn stop(&self) -> Option<Arc<T>> {
        lock(&self.task).take();
        let reason = "the client was shut down".to_owned();
        self.shared.report(Some((Error::Closed { reason }, None)));
        lock(&self.shared.open).take()
    }
}

impl<T: Keep> Drop for Kept<T> {
    fn drop(&mut self) {
        // The task's runtime may stand still, and with it the task's end.
        self.stop();
    }
}

impl<T: Keep> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("is_open", &self.current().is_some()).finish_non_exhaustive()
    }
}

impl<T> Shared<T> {
    fn report(&self, refused: Option<(Error, Option<Instant>)>) {
        self.attempt.send_replace(Attempt { refused });
    }
}

/// Runs until the connection is closed for good.
async fn keep<T: Keep>(source: T::Source, shared: Arc<Shared<T>>) {
    let new_backoff = || Backoff::new(OPEN_DELAY_INITIAL, OPEN_DELAY_MAX);
    let mut backoff = new_backoff();
    let mut left = VecDeque::new();
    loop {
        match T::open(&source).await {
            Ok(opened) => {
                let (opened, since) = (Arc::new(opened), Instant::now());
                *lock(&shared.open) = Some(Arc::clone(&opened));
                shared.report(None);
                opened.life().ended().await;
                lock(&shared.open).take();
                if since.elapsed() > STABLE {
                    backoff = new_backoff();
                }
                if opened.is_left() {
                    left.push_back(opened);
                    left.drain(..left.len().saturating_sub(LEFT_MAX));
                // The pauses of a lost connection are its supervisor's.
                } else if opened.has_failed_alone(&source) {
                    drop(opened);
                    sleep(backoff.pause()).await;
                }
            }
            Err(error @ Error::Closed { .. }) => return shared.report(Some((error, None))),
            // The callers wait, each within its own budget.
            Err(error @ (Error::Disconnected { .. } | Error::TimedOut { .. })) => {
                tracing::debug!(%error, "could not open a channel of a client; trying again");
                sleep(backoff.pause()).await;
            }
            Err(error) => {
                let pause = backoff.pause();
                shared.report(Some((error, Some(Instant::now() + pause))));
                sleep(pause).await;
                // A broker that has refused is asked again when the answer matters.
                shared.wanted.notified().await;
            }
        }
    }
}

/// The error of a call that no tokio runtime polls.
#[cold]
pub(super) fn outside() -> Error {
    let reason = "a call is polled outside a tokio runtime, which has its timers: await it in one".to_owned();
    Error::Configuration(reason)
}

const OPEN_DELAY_INITIAL: Duration = Duration::from_millis(20);
const OPEN_DELAY_MAX: Duration = Duration::from_secs(1);
/// Those that were left and are kept until they have ended what they had begun.
const LEFT_MAX: usize = 4;
/// One that has lived this long ended for a new reason.
const STABLE: Duration = Duration::from_secs(1);
