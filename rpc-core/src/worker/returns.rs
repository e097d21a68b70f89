//! Replies that the broker returned: their callers have gone, and their reply queues with them.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::lane::Lane;
use crate::{connection::Returns, meter::Event, task::AbortOnDrop};

/// Counts the returned replies of a channel; dropping it stops that.
#[derive(Debug)]
pub(super) struct ReturnsTask {
    stop: oneshot::Sender<()>,
    task: AbortOnDrop,
}

impl ReturnsTask {
    pub(super) fn spawn(returns: Returns, lane: Arc<Lane>) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop, task: AbortOnDrop::spawn(count(returns, stopped, lane)) }
    }

    /// Stops counting once the replies returned so far are counted.
    pub(super) async fn finish(self) {
        // An error says that the channel has ended, and the task with it.
        let _ = self.stop.send(());
        self.task.join().await;
    }
}

async fn count(mut returns: Returns, mut stopped: oneshot::Receiver<()>, lane: Arc<Lane>) {
    loop {
        tokio::select! {
            // No caller waits for the count, so a late one is found with the next reply or at the end.
            returned = returns.next(|| false) => match returned {
                Some(_) => add(&lane),
                None => return,
            },
            _ = &mut stopped => {
                while returns.next_ready().is_some() {
                    add(&lane);
                }
                return;
            }
        }
    }
}

fn add(lane: &Lane) {
    tracing::debug!("a reply whose caller has gone");
    lane.note(Event::CallerGone);
}
