//! Replies that travel apart from the others, and dead letters: each on a channel of its own, settled after its confirm.
//!
//! A broker answers a publish it does not like by closing the channel, and with it would go everything that the lane is working
//! on. So a reply that may be refused shares no channel: a large one, the reply to a request that has cost the lane a
//! channel before, every reply while the broker's last refusal is fresh, and one that the broker has refused already.
//! Nothing here executes a request again: a reply that cannot be delivered is counted, and its request acknowledged.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{task::JoinSet, time::sleep};

use super::{
    dead_letter::{self, Reason},
    dispatch::Answer,
    finished::{Finished, Reply, Way, reply_publish},
    lane::Lane,
    log::log_request,
    stats::Counters,
};
use crate::{
    connection::{
        Backoff, Channel, Delivery,
        amqp::{PRECONDITION_FAILED, Refusal},
        within,
    },
    error::Error,
    lock::lock,
    meter::Event,
    printable::printable,
};

/// The replies of one consumer that travel apart; dropping it stops them, and their requests stay unacknowledged.
pub(super) struct Apart {
    lane: Arc<Lane>,
    running: JoinSet<Finished>,
    /// Bounded by the prefetch count: each delivery waits here once.
    waiting: VecDeque<Finished>,
    idle: Idle,
}

/// Channels in confirm mode that have no message under way.
type Idle = Arc<Mutex<Vec<Channel>>>;

impl Apart {
    pub(super) fn new(lane: Arc<Lane>) -> Self {
        Self { lane, running: JoinSet::new(), waiting: VecDeque::new(), idle: Idle::default() }
    }

    /// Takes a request with its reply or its dead letter.
    pub(super) fn send(&mut self, finished: Finished) {
        self.waiting.push_back(finished);
        self.start();
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// The next request that is to be settled; `None` when there is nothing to wait for.
    ///
    /// # Cancel safety
    /// Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Option<Finished> {
        loop {
            let ended = self.running.join_next().await?;
            self.start();
            // An error would be a panic here: the request stays unacknowledged.
            if let Ok(finished) = ended {
                return Some(finished);
            }
        }
    }

    fn start(&mut self) {
        while self.running.len() < AT_ONCE_MAX
            && let Some(mut finished) = self.waiting.pop_front()
        {
            let (lane, idle) = (Arc::clone(&self.lane), Arc::clone(&self.idle));
            self.running.spawn(async move {
                match finished.reply.take() {
                    Some(Reply { delivery, answer, way: Way::DeadLetter }) => keep(&lane, &delivery, &answer).await,
                    Some(Reply { delivery, answer, .. }) => deliver(&lane, &idle, &delivery, answer).await,
                    None => {}
                }
                finished
            });
        }
    }
}

/// Delivers a reply, or gives it up.
async fn deliver(lane: &Lane, idle: &Idle, delivery: &Delivery, mut answer: Answer) {
    let mut backoff = Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
    let mut reason = String::new();
    for _ in 0..ATTEMPTS_MAX {
        if let Some(limit) = lane.caution.limit_bytes()
            && answer.body_bytes() > limit
        {
            answer = too_large(&answer, Some(limit));
        }
        match attempt(lane, idle, delivery, &answer).await {
            Ok(Sent::Delivered) => {
                lane.caution.confirmed();
                return Counters::add(&lane.counters.answered);
            }
            Ok(Sent::Returned) => {
                lane.caution.confirmed();
                lane.note(Event::CallerGone);
                return Counters::add(&lane.counters.answered);
            }
            Ok(Sent::Refused) => "the reply queue refused it (basic.nack)".clone_into(&mut reason),
            Err(error) => {
                reason = error.to_string();
                let is_denial = Refusal::of(&error).is_some_and(|refusal| refusal.is_denial());
                match error {
                    // Nothing else but its size can be wrong with a reply: RabbitMQ closes the channel with 406.
                    Error::Refused { reply_code: PRECONDITION_FAILED, .. } if answer.body_bytes() > 0 && !is_denial => {
                        lane.caution.learn_limit(&error);
                        answer = too_large(&answer, lane.caution.limit_bytes());
                        continue;
                    }
                    // It would be refused again.
                    Error::Refused { .. } | Error::NameTooLong { .. } | Error::PropertiesTooLarge { .. } => break,
                    _ => {}
                }
            }
        }
        sleep(backoff.pause()).await;
    }
    lane.note(Event::ReplyRefused);
    let reply_to = delivery.reply_to().unwrap_or_default();
    log_request!(
        error,
        lane.source,
        *delivery,
        reply_to = %printable(reply_to),
        reason = %printable(&reason),
        "a reply cannot be delivered and is given up: its request was executed, and its caller times out"
    );
}

enum Sent {
    Delivered,
    /// The caller has gone, and its reply queue with it.
    Returned,
    Refused,
}

async fn attempt(lane: &Lane, idle: &Idle, delivery: &Delivery, answer: &Answer) -> Result<Sent, Error> {
    let known = lock(idle).pop().filter(|channel| !channel.has_ended());
    let channel = match known {
        Some(channel) => channel,
        None => within(OPEN_LIMIT, "open a channel for a reply", open(lane)).await?,
    };
    let reply_to = delivery.reply_to().unwrap_or_default();
    let (properties, body) = answer.message(delivery, reply_to);
    let confirm = channel.publish_for_confirm(reply_publish(&lane.source.users, reply_to, properties, body))?;
    let sent = match within(CONFIRM_LIMIT, "confirm a reply", confirm.wait()).await? {
        (true, None) => Sent::Delivered,
        (true, Some(_)) => Sent::Returned,
        (false, _) => Sent::Refused,
    };
    let mut idle = lock(idle);
    if idle.len() < IDLE_MAX {
        idle.push(channel);
    }
    Ok(sent)
}

async fn open(lane: &Lane) -> Result<Channel, Error> {
    let channel = lane.source.connection.channel().await?;
    channel.confirm_select().await?;
    Ok(channel)
}

/// The answer instead of one that the broker does not take.
fn too_large(answer: &Answer, limit_bytes: Option<usize>) -> Answer {
    Answer::TooLarge { body_bytes: answer.body_bytes(), limit_bytes }
}

/// Dead-letters a one-way request that failed.
async fn keep(lane: &Lane, delivery: &Delivery, answer: &Answer) {
    let Some((code, message)) = answer.failure_without_reply() else { return };
    dead_letter::keep(lane, delivery, Reason::Failed { code, message }).await;
}

/// Messages under way at once, each on a channel of its own.
const AT_ONCE_MAX: usize = 8;
/// Channels that are kept for the next ones.
const IDLE_MAX: usize = 2;
/// Attempts for one reply.
const ATTEMPTS_MAX: u32 = 6;
/// Bounds of the randomised pauses between them.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(50);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);
const OPEN_LIMIT: Duration = Duration::from_secs(10);
const CONFIRM_LIMIT: Duration = Duration::from_secs(30);
