//! Replies out, then acks: one task for each consumer, on the consumer's channel.
//!
//! ```text
//!  handler tasks ──Finished──► replier: publish, publish, …, then ack
//! ```
//!
//! The broker keeps the order of a channel, so when it has received an ack it has received the reply. All replies that
//! are ready are sent together, and the acks wait once until they are on the socket, because lapin sends
//! methods before queued messages. Where tags are consecutive one `multiple` ack covers them. Replies that the broker may
//! refuse take another way (`apart.rs`), and come back here to be acknowledged.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::mpsc;

use super::{
    apart::Apart,
    direct_reply_to,
    finished::{Finished, Outcome, Reply, Way, reply_publish},
    lane::Lane,
    log::log_request,
    policy::AckPolicy,
    stats::Counters,
};
use crate::{
    connection::{Channel, Delivery, Unconfirmed, Verdict, amqp::Settlement},
    error::Error,
    meter::Event,
    printable::printable,
};

/// Runs until every sender is gone and every reply that travels apart has ended. The queue is bounded by the prefetch count: each
/// delivery is sent here once.
pub(super) async fn send_replies(channel: Channel, lane: Arc<Lane>, mut finished: mpsc::UnboundedReceiver<Finished>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut acks = Acks::default();
    let mut settlements = Vec::new();
    let mut apart = Apart::new(Arc::clone(&lane));
    let mut is_open = true;
    while is_open || !apart.is_idle() {
        if apart.is_idle() {
            is_open = finished.recv_many(&mut batch, BATCH_MAX).await > 0;
        } else {
            tokio::select! {
                received = finished.recv_many(&mut batch, BATCH_MAX), if is_open => is_open = received > 0,
                settled = apart.next() => batch.extend(settled),
            }
        }
        if !is_open && channel.has_ended() {
            // Requests whose replies still travel apart are redelivered, and nothing here outlives the lane's channel.
            return;
        }
        part(&mut batch, &mut apart);
        if lane.source.ack_policy == AckPolicy::AfterConfirmedReply {
            confirm(&channel, &mut batch, &lane).await;
            part(&mut batch, &mut apart);
        } else {
            send(&channel, &mut batch, &lane).await;
        }
        for Finished { delivery_tag, outcome, .. } in batch.drain(..) {
            if outcome == Outcome::Requeue {
                settlements.push(Settlement::Requeue { delivery_tag });
            }
            acks.finish(delivery_tag, outcome == Outcome::Ack);
        }
        acks.take(&mut settlements);
        for settlement in settlements.drain(..) {
            if let Err(error) = channel.settle(settlement) {
                // The broker redelivers a request that it has no ack for.
                tracing::debug!(%error, ?settlement, "could not settle");
            }
        }
    }
}

/// Moves those that travel apart out of the batch.
fn part(batch: &mut Vec<Finished>, apart: &mut Apart) {
    if batch.iter().any(Finished::is_apart) {
        for finished in batch.extract_if(.., |finished| finished.is_apart()) {
            apart.send(finished);
        }
    }
}

/// Sends a batch's replies and waits until the last one is on the socket, and with it all of them.
async fn send(channel: &Channel, batch: &mut [Finished], lane: &Lane) {
    let counters = &*lane.counters;
    let mut left = batch.iter().filter(|finished| finished.reply.is_some()).count();
    for Reply { delivery, answer, .. } in batch.iter_mut().filter_map(|finished| finished.reply.take()) {
        left -= 1;
        let reply_to = delivery.reply_to().unwrap_or_default();
        if !direct_reply_to::is_safe(reply_to) {
            refuse(lane, &delivery);
            continue;
        }
        let (properties, body) = answer.message(&delivery, reply_to);
        let publish = reply_publish(&lane.source.users, reply_to, properties, body);
        // Counted first, so that a caller that has its answer finds it counted.
        Counters::add(&counters.answered);
        let sent = if left == 0 { channel.publish_written(publish).await } else { channel.publish(publish) };
        if let Err(error) = sent {
            Counters::subtract(&counters.answered);
            log_not_sent(lane, &delivery, &error);
        }
    }
}

/// Counts a reply whose `reply_to` the broker would close the connection for.
#[cold]
fn refuse(lane: &Lane, delivery: &Delivery) {
    lane.note(Event::ReplyRefused);
    log_request!(
        warn,
        lane.source,
        *delivery,
        reply_to = %printable(delivery.reply_to().unwrap_or_default()),
        "a malformed reply_to: the request is acknowledged without its reply"
    );
}

#[cold]
fn log_not_sent(lane: &Lane, delivery: &Delivery, error: &Error) {
    let reply_to = printable(delivery.reply_to().unwrap_or_default());
    log_request!(warn, lane.source, *delivery, %error, %reply_to, "could not send a reply");
}

/// Sends a batch's replies and waits for the confirm of each. A reply that the broker refuses is tried again, apart: that it is
/// refused is no reason to execute its request again.
async fn confirm(channel: &Channel, batch: &mut [Finished], lane: &Lane) {
    let counters = &*lane.counters;
    let mut unconfirmed = Unconfirmed::new();
    for (at, finished) in batch.iter_mut().enumerate() {
        let Some(Reply { delivery, answer, .. }) = &finished.reply else { continue };
        let reply_to = delivery.reply_to().unwrap_or_default();
        if !direct_reply_to::is_safe(reply_to) {
            refuse(lane, delivery);
            finished.reply = None;
            continue;
        }
        let (properties, body) = answer.message(delivery, reply_to);
        let publish = reply_publish(&lane.source.users, reply_to, properties, body);
        if let Err((_, error)) = unconfirmed.publish(channel, publish, at) {
            log_not_sent(lane, delivery, &error);
            if matches!(error, Error::Disconnected { .. }) {
                finished.outcome = Outcome::Requeue;
            } else {
                lane.note(Event::ReplyRefused);
            }
            finished.reply = None;
        }
    }
    for (at, confirmed) in unconfirmed.settle().await {
        let Some(finished) = batch.get_mut(at) else { continue };
        let reply = finished.reply.take();
        match confirmed {
            Verdict::Confirmed => Counters::add(&counters.answered),
            Verdict::Returned { .. } => {
                Counters::add(&counters.answered);
                lane.note(Event::CallerGone);
            }
            Verdict::Refused => finished.reply = reply.map(|reply| Reply { way: Way::Apart, ..reply }),
            Verdict::Lost => {
                if let Some(Reply { delivery, .. }) = &reply {
                    log_request!(warn, lane.source, *delivery, "the broker did not confirm a reply");
                }
                finished.outcome = Outcome::Requeue;
            }
        }
    }
}

/// Merges acks of consecutive delivery tags.
#[derive(Debug, Default)]
struct Acks {
    /// Every tag up to this one is settled.
    settled_through: u64,
    /// Of the tags up to there: the last that needs an ack, and how many do.
    last_unacked: Option<u64>,
    unacked: usize,
    /// Finished tags above it: does the tag still need its ack?
    finished: BTreeMap<u64, bool>,
}

impl Acks {
    /// Notes a tag; `needs_ack` is false when it is settled in another way.
    fn finish(&mut self, delivery_tag: u64, needs_ack: bool) {
        if delivery_tag == self.settled_through + 1 {
            self.extend(needs_ack);
        } else {
            self.finished.insert(delivery_tag, needs_ack);
        }
    }

    /// Settles the next tag.
    fn extend(&mut self, needs_ack: bool) {
        self.settled_through += 1;
        if needs_ack {
            self.last_unacked = Some(self.settled_through);
            self.unacked += 1;
        }
    }

    /// The acks to send now: one for the consecutive run, one for each tag above a gap.
    fn take(&mut self, settlements: &mut Vec<Settlement>) {
        while let Some(entry) = self.finished.first_entry()
            && *entry.key() == self.settled_through + 1
        {
            let needs_ack = entry.remove();
            self.extend(needs_ack);
        }
        let unacked = std::mem::take(&mut self.unacked);
        // A `multiple` ack must name a tag that is still unacknowledged itself (RabbitMQ: 406 otherwise).
        if let Some(delivery_tag) = self.last_unacked.take() {
            settlements.push(Settlement::Ack { delivery_tag, multiple: unacked > 1 });
        }
        for (&delivery_tag, needs_ack) in &mut self.finished {
            if std::mem::take(needs_ack) {
                settlements.push(Settlement::Ack { delivery_tag, multiple: false });
            }
        }
    }
}

/// As many as a busy pool finishes between two looks.
const BATCH_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn take(acks: &mut Acks) -> Vec<(u64, bool)> {
        let mut settlements = Vec::new();
        acks.take(&mut settlements);
        settlements
            .into_iter()
            .map(|settlement| match settlement {
                Settlement::Ack { delivery_tag, multiple } => (delivery_tag, multiple),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn consecutive_tags_share_one_ack() {
        let mut acks = Acks::default();
        for delivery_tag in [2, 1, 3] {
            acks.finish(delivery_tag, true);
        }
        assert_eq!(take(&mut acks), [(3, true)]);
        assert_eq!(take(&mut acks), []);
    }

    #[test]
    fn a_tag_above_a_gap_is_acked_alone_and_only_once() {
        let mut acks = Acks::default();
        acks.finish(3, true);
        assert_eq!(take(&mut acks), [(3, false)]);
        acks.finish(1, true);
        acks.finish(2, true);
        // 3 is acked already: the multiple ack names 2.
        assert_eq!(take(&mut acks), [(2, true)]);
        acks.finish(4, true);
        assert_eq!(take(&mut acks), [(4, false)]);
    }

    #[test]
    fn requeued_tags_close_the_gap_without_an_ack() {
        let mut acks = Acks::default();
        acks.finish(1, true);
        acks.finish(2, false);
        assert_eq!(take(&mut acks), [(1, false)]);
        acks.finish(3, true);
        assert_eq!(take(&mut acks), [(3, false)]);
    }
}
