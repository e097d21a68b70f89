//! A request at its end: how it is settled, and the answer that leaves before that.

use super::{direct_reply_to, dispatch::Answer};
use crate::{
    connection::{
        Delivery,
        amqp::{Properties, Publish},
    },
    users::Users,
};

/// A delivery whose handler has ended, or that needs none.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) delivery_tag: u64,
    pub(super) outcome: Outcome,
    pub(super) reply: Option<Reply>,
}

/// How the delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Ack,
    Requeue,
    /// It was acknowledged before the handler ran.
    Settled,
}

#[derive(Debug)]
pub(super) struct Reply {
    /// The request; its `reply_to` is set, unless it becomes a dead letter.
    pub(super) delivery: Delivery,
    pub(super) answer: Answer,
    pub(super) way: Way,
}

/// The way on which an answer leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// With the others, on the lane's channel.
    Lane,
    /// On a channel of its own: the broker may refuse it.
    Apart,
    /// The request was one-way and failed: it is dead-lettered, with its answer as the reason.
    DeadLetter,
}

impl Finished {
    /// Whether its reply does not travel on the lane's channel.
    pub(super) fn is_apart(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| reply.way != Way::Lane)
    }
}

/// Replies are mandatory, so that callers that have gone are counted; but RabbitMQ returns mandatory replies to
/// `amq.rabbitmq.reply-to` although it delivers them.
pub(super) fn reply_publish<'a>(
    users: &'a Users,
    reply_to: &'a [u8],
    mut properties: Properties<'a>,
    body: &'a [u8],
) -> Publish<'a> {
    properties.user_id = users.own();
    let mandatory = !direct_reply_to::is_direct(reply_to);
    Publish { exchange: "", routing_key: reply_to, mandatory, properties, body }
}
