//! Handlers that count what they do, for the tests of pools that remember answers.

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rpc_core::CallFuture;
use rpc_tests::eventually;
use tokio::sync::Semaphore;

/// Counts what it does; `release` lets handlers go on.
#[derive(Clone)]
pub(crate) struct Ledger {
    count: Arc<AtomicUsize>,
    pub(crate) release: Arc<Semaphore>,
}

impl Ledger {
    pub(crate) fn open() -> Self {
        Self { count: Arc::default(), release: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)) }
    }

    pub(crate) fn closed() -> Self {
        Self { count: Arc::default(), release: Arc::new(Semaphore::new(0)) }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Counts a handler, and returns its number once it may go on.
    pub(crate) async fn enter(&self) -> usize {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        self.release.acquire().await.unwrap().forget();
        number
    }

    /// `book` calls a handler of this closed ledger with its argument, always under the same key.
    pub(crate) async fn refuses_other_arguments<E>(&self, book: impl Fn(&str) -> CallFuture<usize, E>)
    where
        E: Debug + Send + 'static,
    {
        let first = tokio::spawn(book("a"));
        eventually(SOON, "it runs", async || self.count() == 1).await;
        let error = book("b").await.unwrap_err();
        assert!(error.code() == "bad_request" && !error.maybe_executed(), "{error:?}");
        self.release.add_permits(1);
        assert_eq!(first.await.unwrap().unwrap(), 1);
        assert_eq!(book("b").await.unwrap_err().code(), "bad_request");
        assert_eq!((book("a").await.unwrap(), self.count()), (1, 1));
    }
}

const SOON: Duration = Duration::from_secs(5);
