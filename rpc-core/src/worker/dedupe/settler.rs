//! Ends claims behind the requests that cannot: their task was stopped, or the store was away.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    key::Key,
    limited::Limited,
    store::{FencingToken, StoreError},
};
use crate::{task::AbortOnDrop, worker::stats::Counters};

/// A task that ends claims; it stops when this is dropped, and what it has not ended runs out.
#[derive(Debug)]
pub(super) struct Settler {
    outbox: mpsc::Sender<Settlement>,
    _task: AbortOnDrop,
}

/// A claim that is to be ended.
#[derive(Debug)]
pub(super) struct Settlement {
    pub(super) key: Key,
    pub(super) token: FencingToken,
    pub(super) end: End,
    /// When the claim has run out, so that it is too late.
    pub(super) until: Instant,
}

/// How a claim ends.
#[derive(Debug, Clone)]
pub(super) enum End {
    Release,
    Complete(Bytes),
}

impl Settler {
    pub(super) fn spawn(store: Arc<Limited>, counters: Arc<Counters>) -> Self {
        let (outbox, inbox) = mpsc::channel(PENDING_MAX);
        Self { outbox, _task: AbortOnDrop::spawn(run(store, counters, inbox)) }
    }

    /// Takes a claim over, unless it has too many.
    pub(super) fn settle(&self, settlement: Settlement, counters: &Counters) {
        if let Err(refused) = self.outbox.try_send(settlement) {
            give_up(&refused.into_inner(), counters);
        }
    }
}

async fn run(store: Arc<Limited>, counters: Arc<Counters>, mut inbox: mpsc::Receiver<Settlement>) {
    let mut pending = VecDeque::new();
    while let Some(settlement) = match pending.pop_front() {
        Some(settlement) => Some(settlement),
        None => inbox.recv().await,
    } {
        match settle(&store, &settlement).await {
            Ok(true) => {}
            // The claim had run out.
            Ok(false) => give_up(&settlement, &counters),
            Err(_) if Instant::now() >= settlement.until => give_up(&settlement, &counters),
            Err(_) => {
                pending.push_back(settlement);
                sleep(PAUSE).await;
            }
        }
        while pending.len() < PENDING_MAX
            && let Ok(next) = inbox.try_recv()
        {
            pending.push_back(next);
        }
    }
}

async fn settle(store: &Limited, Settlement { key, token, end, .. }: &Settlement) -> Result<bool, StoreError> {
    match end {
        End::Release => store.release(key, *token).await,
        End::Complete(reply) => store.complete(key, *token, reply.clone()).await,
    }
}

/// A claim that is not released runs out; an answer that is not kept is counted.
fn give_up(settlement: &Settlement, counters: &Counters) {
    if let End::Complete(_) = settlement.end {
        Counters::add(&counters.answers_unkept);
        tracing::warn!(key = %settlement.key, "an answer was not kept: the same request may be executed again");
    }
}

/// Claims that wait for the store.
const PENDING_MAX: usize = 1_024;
/// Between two tries while it is away.
const PAUSE: Duration = Duration::from_millis(100);
